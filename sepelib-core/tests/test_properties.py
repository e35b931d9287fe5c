"""What holds for all values, not only for those that somebody thought of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.core.config import Config, parse_context
from sepelib.core.config.frozen import NOWHERE, FrozenDict, freeze
from sepelib.core.config.merge import MergeConflict, deep_merge
from sepelib.core.config.secrecy import Redactor

pytestmark = pytest.mark.filterwarnings("error")
steady = settings(derandomize=True, deadline=None, max_examples=60)

TEXT = st.text(max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=10),
    st.dates(),
    st.sampled_from(
        ["NO", "0644", "1.10", "<<", "=", "!x", "*a", "- a", "a: b", "x #y", "~", "\x85"]
    ),
)
KEYS = st.one_of(TEXT, st.integers(), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
# One key has values of one shape only, so that any two trees fit.
TREES: st.SearchStrategy[Any] = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "scalar": st.integers() | st.none(),
            "text": st.text("ab", max_size=2),
            "list": st.lists(st.integers(), max_size=3),
            "map": TREES,
        },
    )
)


@contextmanager
def loaded(text: str, **context: Any) -> Iterator[Config]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "cfg.yml")
        path.write_text(text)
        yield Config().load(path, config_context=context, ambiguous="error")


def like(one: Any, other: Any) -> bool:
    """Equal and of equal types: 1, 1.0 and True are three values; so are 0.0 and -0.0."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(like, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(like(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other and repr(one) == repr(other)


@steady
@given(VALUES)
def test_what_the_filter_writes_loads_as_the_same_and_is_never_ambiguous(value: Any) -> None:
    with loaded("block: {{ x|yaml }}\nflow: [{{ x|yaml }}, {k: {{ x|yaml }}, l: 1}]", x=value) as c:
        assert all(like(value, c.get_value(key)) for key in ("block", "flow.0", "flow.1.k"))


@steady
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_a_dump_writes_loads_as_the_same(tree: dict[str, Any]) -> None:
    with loaded("{{ x|yaml }}", x=tree) as one:
        text = one.dump(mask=False).replace("{", "{{ '{' }}")
    with loaded(text) as two:
        assert like(one.to_dict(mask=False), two.to_dict(mask=False))


@steady
@given(TEXT.filter(lambda text: text[:1] not in ("@", "[", "{", "'", '"')))
def test_every_text_is_a_value_on_the_command_line(text: str) -> None:
    (value,) = parse_context([f"x={text}"]).values()

    assert value == text if isinstance(value, str) else len(text) < 30


def merged(base: Any, over: Any) -> Any:
    return deep_merge(freeze(base), freeze(over), set())


@steady
@given(TREES)
def test_the_empty_tree_changes_nothing_and_is_changed_into_any(tree: Any) -> None:
    assert merged(tree, {}) == tree == merged({}, tree)


@steady
@given(TREES)
def test_a_tree_over_itself_is_the_same(tree: Any) -> None:
    assert merged(tree, tree) == tree


@steady
@given(TREES, TREES, TREES)
def test_it_does_not_matter_which_two_of_three_are_merged_first(a: Any, b: Any, c: Any) -> None:
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@steady
@given(TREES, TREES)
def test_the_upper_tree_is_found_in_the_result_and_both_stay(a: Any, b: Any) -> None:
    base, over = freeze(a), freeze(b)

    result = deep_merge(base, over, set())

    assert (base, over) == (a, b)
    assert merged(result, b) == result
    assert list(result)[: len(a)] == list(a), "the order of the lower tree stays"
    assert result.keys() == a.keys() | b.keys()


@steady
@given(st.dictionaries(TEXT, VALUES, max_size=3), st.dictionaries(TEXT, VALUES, max_size=3))
def test_any_two_trees_merge_or_name_a_key_of_both(a: Any, b: Any) -> None:
    try:
        result = merged(a, b)
    except MergeConflict as conflict:
        one, other = a, b
        for key in conflict.key:
            one, other = one[key], other[key]
        assert type(one) is not type(other)
    else:
        assert isinstance(result, FrozenDict)
        assert result.keys() == a.keys() | b.keys()


@steady
@given(TREES, TREES)
def test_each_value_keeps_the_offset_of_the_tree_it_came_from(a: Any, b: Any) -> None:
    secrets = {2}

    result = deep_merge(freeze(a, 1), freeze(b, 2), secrets)

    for key, offset in zip(result, result._offsets, strict=True):
        merged_maps = key == "map" and key in a and key in b
        assert offset == (2 if key in b and not merged_maps else 1)
    assert secrets == {2}
    assert NOWHERE not in result._offsets


SECRET = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=8)


@steady
@given(st.lists(SECRET, min_size=1, max_size=4), st.text(), st.text())
def test_no_text_has_a_secret_after_the_redaction(
    secrets: list[str], before: str, after: str
) -> None:
    redact = Redactor(secrets)

    for secret in secrets:
        for text in (secret, before + secret + after, repr(before + secret), f"{secret}{secret}"):
            assert secret not in redact(text)


@steady
@given(st.lists(SECRET, max_size=3), st.text("abc :/", max_size=30))
def test_a_text_without_a_secret_stays_as_it_is(secrets: list[str], text: str) -> None:
    if not any(secret in text for secret in secrets) and "//" not in text:
        assert Redactor([s for s in secrets if s.isalpha()])(text) == text
