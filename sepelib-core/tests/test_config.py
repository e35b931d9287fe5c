"""Loading once, and asking for values."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sepelib.core import config as module
from sepelib.core.config import (
    Config,
    ConfigError,
    ConfigSyntaxError,
    ConfigTemplateError,
    ConfigTypeError,
    DuplicateKeyError,
    MissingValueError,
    Place,
)
from sepelib.core.config import errors as config_errors
from sepelib.core.exceptions import Error, LogicalError
from sepelib.core.testing import fresh_config
from sepelib.util.testing import check_error, check_errors

if TYPE_CHECKING:
    from .conftest import Load

TEXT = """\
web:
  http: {port: 80, timeout: 3, ratio: 0.5, tls: true, host: null}
  name.with.dots: {inner: yes}
hosts:
- name: a
- name: b
ports: {80: http, "443": https}
level: info
since: 2020-01-02
at: 2020-01-02 03:04:05
address: 10.0.0.1
password: hunter2
empty: {}
"""


@pytest.fixture
def config(load: Load) -> Config:
    return load(TEXT)


@pytest.fixture
def fresh() -> Iterator[Config]:
    with fresh_config() as config:
        yield config


# Loading


def test_the_documented_calls_work(
    fresh: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg_default.yml").write_text("web: {http: {port: {{ port }}}}")

    loaded = module.load("./cfg_default.yml", config_context={"port": 8080})

    assert loaded is fresh
    assert module.get_value("web.http.port") == 8080
    assert module.get_value("web.http.host", "localhost") == "localhost"
    assert module.get() == {"web": {"http": {"port": 8080}}} == loaded.get()


def test_asking_before_loading_is_a_bug_that_says_what_to_call(fresh: Config) -> None:
    for ask in (
        lambda: module.get_value("a"),
        lambda: module.get_value("a", 1),
        lambda: module.get_value("a", type=int),
        module.get,
        fresh.get,
    ):
        with pytest.raises(LogicalError) as caught:
            ask()
        assert str(caught.value) == "no configuration is loaded; call config.load(path) first"


def test_loading_again_with_equal_arguments_keeps_the_tree(tmp_path: Path) -> None:
    path, config = tmp_path / "cfg.yml", Config()
    path.write_text("a: {{ n }}")
    tree = config.load(path, config_context={"n": 1}).get()
    path.write_text("a: 2 {{ n }}")

    assert config.load(str(path), config_context={"n": 1}) is config
    assert config.get() is tree


def test_loading_again_with_other_arguments_is_a_bug(tmp_path: Path) -> None:
    one, two, config = tmp_path / "one.yml", tmp_path / "two.yml", Config()
    one.write_text("a: 1")
    two.write_text("a: 2")
    config.load(one)

    with pytest.raises(LogicalError) as caught:
        config.load(two)
    assert str(caught.value) == (
        f"{one} is loaded already, with other arguments; "
        f"pass replace=True to load {two} in its place"
    )
    with pytest.raises(LogicalError):
        config.load(one, config_context={"n": 2})
    assert config.get() == {"a": 1}


def test_replace_loads_anew_even_with_equal_arguments(tmp_path: Path) -> None:
    path, config = tmp_path / "cfg.yml", Config()
    path.write_text("a: 1\nb: {c: 1}")
    config.load(path)
    before = config.get_value("b")
    path.write_text("a: 2\nb: {c: 2}")

    config.load(path, replace=True)

    assert (config.get_value("a"), config.get_value("b.c")) == (2, 2)
    assert before == {"c": 1}, "who holds an old value keeps it"


def test_a_load_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path, config = tmp_path / "cfg.yml", Config()
    path.write_text("a: 1")
    config.load(path)
    for text in ("a: 2\na: 3", "a: {{ x }}", "- a"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            config.load(path, replace=True)

        assert config.get() == {"a": 1}
        assert config.load(path) is config, "the arguments of the last success count"


def test_a_first_load_that_fails_may_be_tried_again_with_other_arguments(tmp_path: Path) -> None:
    path, config = tmp_path / "cfg.yml", Config()
    path.write_text("a: {{ n }}")
    with pytest.raises(ConfigTemplateError):
        config.load(path)

    assert config.load(path, config_context={"n": 1}).get() == {"a": 1}


def test_a_context_that_changes_later_counts_as_it_was(tmp_path: Path) -> None:
    path, config, context = tmp_path / "cfg.yml", Config(), {"n": 1}
    path.write_text("a: {{ n }}")
    config.load(path, config_context=context)
    context["n"] = 2

    with pytest.raises(LogicalError):
        config.load(path, config_context=context)


def test_two_configurations_do_not_meet(fresh: Config, config: Config) -> None:
    assert config.get_value("level") == "info"
    with pytest.raises(LogicalError):
        module.get_value("level")


def test_readers_see_a_whole_tree_while_others_load(tmp_path: Path) -> None:
    config = Config()
    for n in (1, 2):
        (tmp_path / f"{n}.yml").write_text(f"a: {{x: {n}, y: {n}}}\nb: {n}")
    config.load(tmp_path / "1.yml")
    done = threading.Event()
    torn: list[Any] = []

    def read() -> None:
        while not done.is_set():
            pair = config.get_value("a")
            if pair["x"] != pair["y"]:
                torn.append(pair)
            for key in ("a.x", "a.y", "b"):
                config.get_value(key)
            time.sleep(0)  # lets the others run where threads are greenlets

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(3)]
    try:
        for reader in readers:
            reader.start()
        for turn in range(100):
            time.sleep(0)
            config.load(tmp_path / f"{turn % 2 + 1}.yml", replace=True)
            n = turn % 2 + 1
            # A reader that walked the old tree must not have filled the new cache.
            assert [config.get_value(key) for key in ("a.x", "a.y", "b")] == [n, n, n]
    finally:
        done.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert torn == []


# Values by key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("web.http.port", 80),
        ("hosts.0.name", "a"),
        ("hosts.1", {"name": "b"}),
        (("hosts", 1, "name"), "b"),
        (("hosts", "1", "name"), "b"),
        (("web", "name.with.dots", "inner"), True),
        ("ports.80", "http"),
        (("ports", 80), "http"),
        ("ports.443", "https"),
        ("web.http.host", None),
        ("empty", {}),
    ],
)
def test_a_key_leads_through_mappings_and_lists(config: Config, key: Any, value: Any) -> None:
    for _ in range(2):
        assert config.get_value(key) == value
        assert config.get_value(key, "default") == value
    assert config.get_value(key) is config.get_value(key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("wbe", "1:1: no 'wbe'; did you mean 'web'?"),
        ("web.http.prot", "2:9: no 'web.http.prot' in 'web.http'; did you mean 'web.http.port'?"),
        ("empty.x", "13:8: no 'empty.x' in 'empty'; it is empty"),
        ("hosts.0.q", "5:3: no 'hosts.0.q' in 'hosts.0'; it has name"),
        ("hosts.2.name", "5:1: no 'hosts.2.name' in 'hosts', a list of 2; an index counts from 0"),
        ("hosts.-1", "5:1: no 'hosts.-1' in 'hosts', a list of 2; an index counts from 0"),
        ("hosts.00", "5:1: no 'hosts.00' in 'hosts', a list of 2; an index counts from 0"),
        ("hosts.name", "5:1: no 'hosts.name' in 'hosts', a list of 2; an index counts from 0"),
        ("level.x", "8:8: no 'level.x' in 'level', of type str; it holds no keys"),
        (
            "web.http.host.x",
            "2:61: no 'web.http.host.x' in 'web.http.host', of type null; it holds no keys",
        ),
        (
            ("web", "name.with.dots", "innr"),
            "3:19: no \"('web', 'name.with.dots', 'innr')\" "
            "in \"('web', 'name.with.dots')\"; "
            "did you mean \"('web', 'name.with.dots', 'inner')\"?",
        ),
        (
            "zzz",
            "1:1: no 'zzz'; it has web, hosts, ports, level, since, at, address, password, ...",
        ),
        ("", "1:1: no ''; it has web, hosts, ports, level, since, at, address, password, ..."),
    ],
)
def test_a_missing_value_names_what_exists_and_what_is_near(
    config: Config, key: Any, message: str
) -> None:
    with pytest.raises(MissingValueError) as caught:
        config.get_value(key)

    assert str(caught.value) == f"cfg.yml:{message}"
    assert isinstance(caught.value, KeyError)
    assert caught.value.key == key
    assert config.get_value(key, 5) == 5
    assert config.get_value(key, None) is None


def test_a_missing_value_has_the_longest_prefix_that_exists(config: Config) -> None:
    with pytest.raises(MissingValueError) as caught:
        config.get_value("web.http.a.b.c")

    assert caught.value.prefix == "web.http"
    assert caught.value.snippet.startswith("  http: {port: 80")


def test_misses_do_not_fill_the_memory(config: Config) -> None:
    before = len(config._values)
    for n in range(100):
        config.get_value(f"no.{n}", None)
        config.get_value(f"hosts.{'0' * n}1", None)

    assert len(config._values) <= before + 1


def test_a_key_of_another_type_is_a_bug(config: Config) -> None:
    with pytest.raises(LogicalError, match=r"^a key is 'a\.b' or \('a', 'b'\), not 5$"):
        config.get_value(5)  # type: ignore[call-overload]


# Types


class Level(Enum):
    INFO = "info"


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("web.http.port", int, 80),
        ("web.http.timeout", float, 3.0),
        ("web.http.ratio", float, 0.5),
        ("web.http.tls", bool, True),
        ("level", str, "info"),
        ("hosts", list, [{"name": "a"}, {"name": "b"}]),
        ("empty", dict, {}),
        ("empty", Mapping, {}),
        ("since", date, date(2020, 1, 2)),
        ("at", datetime, datetime(2020, 1, 2, 3, 4, 5)),
        ("level", Level, Level.INFO),
        ("address", IPv4Address, IPv4Address("10.0.0.1")),
        ("hosts", len, 2),
        ("web.http.host", type(None), None),
    ],
)
def test_a_value_comes_as_the_type_that_was_asked_for(
    config: Config, key: str, kind: Any, value: Any
) -> None:
    for _ in range(2):
        assert config.get_value(key, type=kind) == value
        assert isinstance(config.get_value(key, type=kind), type(value))


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        ("web.http.tls", int, "cfg.yml:2:49: web.http.tls must be int, not bool"),
        ("web.http.tls", float, "cfg.yml:2:49: web.http.tls must be float, not bool"),
        ("web.http.port", bool, "cfg.yml:2:16: web.http.port must be bool, not int"),
        ("web.http.port", str, "cfg.yml:2:16: web.http.port must be str, not int"),
        ("web.http.ratio", int, "cfg.yml:2:39: web.http.ratio must be int, not float"),
        ("web.http.host", str, "cfg.yml:2:61: web.http.host must be str, not null"),
        ("level", int, "cfg.yml:8:8: level must be int, not str"),
        ("hosts", dict, "cfg.yml:5:1: hosts must be dict, not list"),
        ("web", list, "cfg.yml:2:3: web must be list, not dict"),
        ("at", date, "cfg.yml:10:5: at must be date, not datetime"),
        (
            "level",
            IPv4Address,
            "cfg.yml:8:8: level must be IPv4Address, which says: Expected 4 octets in 'info'",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_is_written(
    config: Config, key: str, kind: Any, message: str
) -> None:
    with pytest.raises(ConfigTypeError) as caught:
        config.get_value(key, type=kind)

    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)
    with pytest.raises(ConfigTypeError):
        config.get_value(key, 5, type=kind)


def test_a_default_is_not_converted(config: Config) -> None:
    assert config.get_value("no", "default", type=int) == "default"
    with pytest.raises(MissingValueError):
        config.get_value("no", type=int)


def test_a_number_too_large_for_a_float_is_refused(load: Load) -> None:
    config = load(f"a: 1{'0' * 400}")

    with pytest.raises(ConfigTypeError, match="int too large to convert to float"):
        config.get_value("a", type=float)


def test_what_a_function_says_of_a_secret_is_not_repeated(config: Config) -> None:
    with pytest.raises(ConfigTypeError) as caught:
        config.get_value("password", type=IPv4Address)

    assert str(caught.value) == (
        "cfg.yml:12:11: password must be IPv4Address, which refuses this str"
    )
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in repr(caught.value)


def test_a_type_that_cannot_be_called_is_a_bug(config: Config) -> None:
    with pytest.raises(LogicalError, match="neither a class nor a function"):
        config.get_value("level", type=int | None)  # type: ignore[arg-type]


def test_a_cancellation_passes_through_a_conversion(config: Config) -> None:
    class Cancelled(BaseException):
        pass

    def convert(value: object) -> int:
        raise Cancelled

    with pytest.raises(Cancelled):
        config.get_value("level", type=convert)


# Overriding


def test_an_override_ends_with_its_block(config: Config) -> None:
    tree = config.get()

    with config.override({"web.http.port": 1, "new.a.b": [1, {"c": 2}], ("ports", 80): "x"}):
        assert config.get_value("web.http.port") == 1
        assert config.get_value("web.http.timeout") == 3
        assert config.get_value("new.a.b.1.c") == 2
        assert config.get_value("ports") == {80: "x", "443": "https"}
        with config.override({"web.http.port": 2, "hosts.1.name": "z", "web.http": {}}):
            assert config.get_value("hosts.1.name") == "z"
            assert config.get_value("web.http") == {}
        assert config.get_value("web.http.port") == 1

    assert config.get() is tree
    assert config.get_value("new", None) is None


def test_an_override_ends_when_the_block_fails(config: Config) -> None:
    with pytest.raises(KeyboardInterrupt), config.override({"level": "debug"}):
        raise KeyboardInterrupt

    assert config.get_value("level") == "info"


def test_an_overridden_value_has_no_place_and_its_neighbours_keep_theirs(config: Config) -> None:
    with config.override({"web.http.port": "x", "hosts.0.name": 1}):
        with pytest.raises(ConfigTypeError, match=r"^web\.http\.port must be int, not str$"):
            config.get_value("web.http.port", type=int)
        with pytest.raises(ConfigTypeError, match=r"^cfg\.yml:2:39: web\.http\.ratio"):
            config.get_value("web.http.ratio", type=int)
        with pytest.raises(ConfigTypeError, match=r"^cfg\.yml:6:9: hosts\.1\.name"):
            config.get_value("hosts.1.name", type=int)


def test_overridden_values_are_read_only_copies(config: Config) -> None:
    mine: dict[str, Any] = {"a": [1]}
    with config.override({"new": mine}):
        mine["a"].append(2)

        assert config.get_value("new.a") == [1]
        with pytest.raises(TypeError, match="read-only"):
            config.get_value("new.a").append(3)


def test_an_override_needs_no_file(fresh: Config) -> None:
    with module.override({"a.b": 1}):
        assert module.get_value("a.b", type=int) == 1
        with pytest.raises(MissingValueError, match=r"^no 'a\.c' in 'a'; it has b$"):
            module.get_value("a.c")
    with pytest.raises(LogicalError):
        module.get_value("a.b")


def test_an_override_through_a_value_or_beyond_a_list_is_a_bug(config: Config) -> None:
    with (
        pytest.raises(LogicalError, match=r"^level\.x cannot be set: type str has no such keys$"),
        config.override({"level.x": 1}),
    ):
        pass
    with (
        pytest.raises(LogicalError, match=r"^hosts\.2 cannot be set: "),
        config.override({"hosts.2": 1}),
    ):
        pass


# Errors

PLACE = Place("cfg.yml", 3, 5)


ERRORS = [
    ConfigError("what", PLACE, "a: 1"),
    ConfigError("what"),
    ConfigSyntaxError("what", PLACE, "a: 1"),
    ConfigTemplateError("what", PLACE, "a: 1"),
    DuplicateKeyError("a", PLACE, Place("cfg.yml", 1, 1), "a: 1"),
    MissingValueError("no 'a.b'", PLACE, "a: 1", "a.b", "a"),
    ConfigTypeError("a must be int", PLACE, "a: 1", "a"),
]


def test_every_error_is_one_line_that_survives_pickle_and_copy() -> None:
    check_errors(module, config_errors, examples=ERRORS)
    check_error(ERRORS[0])  # `examples` keeps one of each class


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_is_an_error_of_the_house_and_shows_its_words(error: ConfigError) -> None:
    assert isinstance(error, Error)
    assert not str(error).startswith(("'", '"')), "KeyError would show a repr"


def test_a_place_without_a_column_or_a_line_is_shorter() -> None:
    assert [str(Place("f", 1, 2)), str(Place("f", 1)), str(Place("f"))] == ["f:1:2", "f:1", "f"]
