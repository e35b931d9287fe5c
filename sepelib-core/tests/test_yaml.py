"""What YAML is taken, what is refused, and where the refusal points."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import time
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sepelib.core.config import ConfigSyntaxError, DuplicateKeyError

if TYPE_CHECKING:
    from .conftest import Load, Refused

PLAIN = """\
a: [1, 2.5, yes, null, text, 'quoted', 0o7, 0644, 1e3, 2020-01-02, 12:30:45, "\\t\\u00e9"]
b: {c: {d: e}, "f g": [], 'h.i': {}}
80: eighty
"80": text
~: nothing
1.5: float
binary: !!binary aGk=
folded: >
  one
  two
literal: |
  one
  two
base: &base {x: 1, y: [1]}
other: &other {y: 2, z: 3}
merged: {<<: *base, x: 2}
both: {<<: [*base, *other], w: 0}
alias: *base
equals: =
"""


def test_plain_yaml_loads_as_it_does_with_the_safe_loader(load: Load) -> None:
    assert load(PLAIN).get() == yaml.safe_load(PLAIN.replace("equals: =", "equals: '='"))


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "{# jinja #}", "{}"])
def test_an_empty_file_is_an_empty_mapping(load: Load, text: str) -> None:
    assert load(text).get() == {}


def test_an_empty_file_with_only_a_bom_is_an_empty_mapping(load: Load) -> None:
    assert load(b"\xef\xbb\xbf").get() == {}


@pytest.mark.parametrize(
    ("text", "kind"), [("- 1\n", "list"), ("just text", "single value"), ("null", "single value")]
)
def test_a_root_that_is_no_mapping_is_refused(refused: Refused, text: str, kind: str) -> None:
    assert str(refused(text)) == (
        f"cfg.yml:1:1: the file holds a {kind}; make it a mapping, `key: value`"
    )


def test_a_second_document_is_refused_where_it_begins(refused: Refused) -> None:
    assert str(refused("a: 1\n---\nb: 1\n")) == (
        "cfg.yml:2:1: a second document begins; keep one document in a file"
    )


def test_a_tab_as_indent_is_refused_in_plain_words(refused: Refused) -> None:
    assert str(refused("a:\n\tb: 1\n")) == (
        "cfg.yml:2:1: found character that cannot start any token; "
        "indent with spaces, a tab cannot indent"
    )


def test_an_open_bracket_is_refused_with_the_place_of_the_bracket(refused: Refused) -> None:
    assert str(refused("a: 1\nb: [1,\nc: 2\nd: 3\n")) == (
        "cfg.yml:4:2: did not find expected ',' or ']' "
        "while parsing a flow sequence that begins at cfg.yml:2:4"
    )


def test_a_value_with_a_colon_is_refused_with_advice(refused: Refused) -> None:
    assert str(refused("a: 1\nb: c: d\n")) == (
        "cfg.yml:2:5: mapping values are not allowed in this context; "
        "quote a value that holds ': ', or correct the indentation"
    )


def test_a_value_that_begins_with_a_reserved_character_is_refused_with_advice(
    refused: Refused,
) -> None:
    assert str(refused("a: @home\n")) == (
        "cfg.yml:1:4: found character that cannot start any token; quote a value that begins with @"
    )


def test_an_unknown_alias_is_refused(refused: Refused) -> None:
    assert str(refused("a: *base\n")).startswith("cfg.yml:1:4: found undefined alias")


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x7f", "\ufffe"])
def test_a_control_character_is_refused_where_it_stands(refused: Refused, character: str) -> None:
    assert str(refused(f"é: 1\nb: '😀{character}'\n")) == (
        f"cfg.yml:2:6: character U+{ord(character):04X} cannot stand in YAML; write it as an escape"
    )


def test_a_lone_surrogate_from_the_context_is_refused(refused: Refused) -> None:
    assert str(refused("a: {{ x }}\n", x="\ud83d")).startswith("cfg.yml:1:4: character U+D83D")


def test_equal_keys_of_different_spelling_are_duplicates(refused: Refused) -> None:
    for one, other in (("1", "0x1"), ("1", "1.0"), ("true", "1"), ("a", "'a'"), ("~", "null")):
        error = refused(f"{one}: x\n{other}: y\n")
        assert isinstance(error, DuplicateKeyError)
        assert str(error.first) == "cfg.yml:1:1"


def test_a_duplicate_in_a_flow_mapping_or_below_a_list_is_found(refused: Refused) -> None:
    assert str(refused("a:\n- {b: 1, c: 2,\n   b: 3}")).startswith("cfg.yml:3:4: duplicate key 'b'")


def test_a_merged_key_may_be_written_again(load: Load) -> None:
    config = load("base: &b {x: 1, y: 1}\none: {x: 2, <<: *b}\ntwo: {<<: *b, x: 3}\n")

    assert config.get_value("one") == {"x": 2, "y": 1}
    assert config.get_value("two") == {"x": 3, "y": 1}


def test_of_several_merged_mappings_the_first_wins(load: Load) -> None:
    text = "a: &a {x: a}\nb: &b {x: b, y: b}\nc: {<<: [*a, *b]}\n"

    assert load(text).get_value("c") == {"x": "a", "y": "b"}


def test_a_duplicate_beside_a_merge_is_still_a_duplicate(refused: Refused) -> None:
    error = refused("base: &b {x: 1}\none:\n  x: 2\n  <<: *b\n  x: 3\n")

    assert str(error).startswith("cfg.yml:5:3: duplicate key 'x', first at cfg.yml:3:3;")


def test_two_merge_keys_in_one_mapping_are_a_duplicate(refused: Refused) -> None:
    error = refused("base: &b {x: 1}\none:\n  <<: *b\n  <<: *b\n")

    assert str(error).startswith("cfg.yml:4:3: duplicate key '<<', first at cfg.yml:3:3;")


def test_a_merge_of_something_else_is_refused(refused: Refused) -> None:
    assert str(refused("a: {<<: [1]}\n")) == (
        "cfg.yml:1:10: << merges mappings, this is a single value; name an anchored mapping"
    )


def test_a_merged_value_is_cited_where_it_was_written(load: Load) -> None:
    config = load("base: &b\n  port: x\none:\n  host: h\n  <<: *b\n")

    with pytest.raises(TypeError, match=r"^cfg\.yml:2:9: one\.port must be int, not str$"):
        config.get_value("one.port", type=int)
    with pytest.raises(TypeError, match=r"^cfg\.yml:4:9: one\.host must be int, not str$"):
        config.get_value("one.host", type=int)


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: [*x]}", "a: &x {<<: *x}"])
def test_an_alias_to_what_holds_it_is_refused(refused: Refused, text: str) -> None:
    assert "an alias in this value means the value itself" in str(refused(text))


def test_aliases_that_multiply_are_refused(refused: Refused) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]

    assert "aliases make over 1000000 values" in str(refused("\n".join(lines)))


def test_aliases_that_nest_are_refused(refused: Refused) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)]

    assert str(refused("\n".join(lines))).endswith("nested deeper than 100 levels")


def test_a_hundred_levels_are_taken_and_a_hundred_and_one_refused(
    load: Load, refused: Refused
) -> None:
    assert load(f"a: {'[' * 99}{']' * 99}").get_value("a.0.0") != []
    assert str(refused(f"a: {'[' * 100}{']' * 100}")) == (
        "cfg.yml:1:103: nested deeper than 100 levels"
    )


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? "])
def test_a_nesting_that_would_crash_the_composer_is_refused(refused: Refused, unit: str) -> None:
    assert str(refused("a: 1\nb:\n  " + unit * 200_000)).endswith("nested deeper than 100 levels")


def test_many_small_lists_are_not_taken_for_a_deep_one(load: Load) -> None:
    assert len(load("a:\n" + "- [1]\n" * 12_000).get_value("a")) == 12_000


@pytest.mark.parametrize("tag", ["!sceret x", "!!python/name:os.system ''", "!!set {a}", "!x [1]"])
def test_a_tag_is_refused(refused: Refused, tag: str) -> None:
    error = refused(f"a: 1\nb: {tag}\n")

    assert str(error).startswith("cfg.yml:2:4: unknown tag ")
    assert isinstance(error, ConfigSyntaxError)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2020-13-45", "timestamp"),
        ("!!int abc", "int"),
        ("!!bool x", "bool"),
        ("!!float ''", "float"),
    ],
)
def test_a_value_that_is_none_of_its_type_is_refused(
    refused: Refused, text: str, kind: str
) -> None:
    assert (
        str(refused(f"a: {text}\n")) == f"cfg.yml:1:4: not a valid {kind}; quote it if it is text"
    )


def test_a_mapping_as_a_key_is_refused(refused: Refused) -> None:
    assert str(refused("{a: 1}: 2")).startswith("cfg.yml:1:1: a mapping cannot be a key;")


def test_a_key_without_a_value_is_null(load: Load) -> None:
    assert load("a:\nb: ~\n").get() == {"a": None, "b": None}


def test_ten_thousand_values_keep_their_places(load: Load) -> None:
    groups = "".join(
        f"g{i}:\n" + "".join(f"  k{j}: {{{{ {j} }}}}\n" for j in range(10)) for i in range(1000)
    )
    config = load(groups)

    assert config.get_value("g999.k9") == 9
    with pytest.raises(TypeError, match=r"^cfg\.yml:11000:7: g999\.k9 must be str"):
        config.get_value("g999.k9", type=str)


def test_ten_thousand_values_load_within_a_second(load: Load) -> None:
    text = "".join(f"k{n}: value {n}\n" for n in range(10_000))
    started = time.monotonic()

    assert len(load(text).get()) == 10_000

    assert time.monotonic() - started < 1.0  # 0.06 s where it was written


def values(config: Any) -> list[Any]:
    return [config, config["d"], config["l"], config["l"][0]]


def test_what_callers_get_refuses_changes(load: Load) -> None:
    tree: Any = load("d: {a: 1}\nl: [{b: 2}, 3]\n").get()
    changes = {
        dict: [
            lambda d: d.__setitem__("x", 1),
            lambda d: d.__delitem__("d"),
            lambda d: d.update(x=1),
            lambda d: d.setdefault("x", 1),
            lambda d: d.pop("a", None),
            lambda d: d.popitem(),
            lambda d: d.clear(),
            lambda d: d.__ior__({"x": 1}),
        ],
        list: [
            lambda x: x.__setitem__(0, 1),
            lambda x: x.__delitem__(0),
            lambda x: x.append(1),
            lambda x: x.extend([1]),
            lambda x: x.insert(0, 1),
            lambda x: x.pop(),
            lambda x: x.remove(3),
            lambda x: x.clear(),
            lambda x: x.sort(),
            lambda x: x.reverse(),
            lambda x: x.__iadd__([1]),
            lambda x: x.__imul__(2),
        ],
    }
    for value in values(tree):
        for change in changes[dict if isinstance(value, dict) else list]:
            with pytest.raises(TypeError, match="the configuration is read-only"):
                change(value)
    assert tree == {"d": {"a": 1}, "l": [{"b": 2}, 3]}


def test_what_callers_get_is_a_dict_to_all_others(load: Load) -> None:
    tree = load("d: {a: 1}\nl: [{b: 2}, 3]\n").get()
    settings: dict[str, Any] = {}
    settings.update(tree)

    assert json.loads(json.dumps(tree)) == tree == settings == {**tree}
    assert isinstance(tree, dict)
    assert tree | {"x": 1} == {"x": 1, **tree}


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))], ids=["copy", "pickle"]
)
def test_a_copy_is_plain_and_may_be_changed(load: Load, copied: Any) -> None:
    tree = copied(load("d: {a: 1}\nl: [{b: 2}, 3]\n").get())

    assert [type(value) for value in values(tree)] == [dict, dict, list, dict]
    tree["l"][0]["b"] = 3
    assert copy.copy(load("d: {}\nl: [{}]").get()) == {"d": {}, "l": [{}]}


def test_values_have_plain_types(load: Load) -> None:
    tree = load("a: text\nb: 1\nc: 1.5\nd: true\ne: null\nf: 2020-01-02\n{% if 1 %}g: h{% endif %}")

    types = {key: type(value) for key, value in tree.get().items()}
    assert list(types.values()) == [str, int, float, bool, type(None), date, str]


WITHOUT_LIBYAML = """
import sys
sys.modules["yaml._yaml"] = None
from sepelib.core.config import Config, ConfigError

for text in sys.stdin.read().split("=====\\n"):
    with open("cfg.yml", "w") as file:
        file.write(text)
    try:
        Config().load("cfg.yml", config_context={"x": 1})
    except ConfigError as error:
        print(error.place)
        assert "hunter2" not in str(error) + repr(error), error
"""


def test_places_are_the_same_without_libyaml(refused: Refused) -> None:
    texts = [
        "a: 1\nt: 'é😀'\nb:\n  c: {{ x }}\n  c: 2\n",
        "a:\n\tb: 1\n",
        "a: 'é'\nb: c: d\n",
        "é: 1\nb: '😀\x07'\n",
        "a: 1\n---\nb: 1\n",
        "a: &x {b: [*x]}",
        "password: *hunter2",
        "password: [&hunter2 a, &hunter2 b, {{ 1 }}",
        "password: !hunter2 x",
        "a: [!secret hunter2, NO, b: [c]: d]",
    ]
    expected = [str(refused(text, x=1).place) for text in texts]

    child = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBYAML],
        input="=====\n".join(texts),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert child.stdout.splitlines() == expected
