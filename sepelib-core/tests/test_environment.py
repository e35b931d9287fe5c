"""Values from the environment and from the command line."""

from __future__ import annotations

import logging
import math
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sepelib.core import config as module
from sepelib.core.config import (
    ConfigError,
    ConfigSyntaxError,
    ConfigTypeError,
    MissingValueError,
    parse_context,
)
from sepelib.core.exceptions import LogicalError

if TYPE_CHECKING:
    from .conftest import Layered

BASE = """\
web:
  http: {host: localhost, port: 80, max-size: null, "a.b": 1}
hosts: [a, {name: b}]
level: info
password: x
"""


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Any:
    return monkeypatch.setenv


def test_a_variable_replaces_a_value_with_its_type(layered: Layered, env: Any) -> None:
    env("APP_WEB__HTTP__PORT", "8080")
    env("APP_LEVEL", "debug")
    env("APP_WEB__HTTP__MAX_SIZE", "1.5")
    env("APP_WEB__HTTP__A_B", "true")
    env("APP_HOSTS__1__NAME", "c")
    env("OTHER_LEVEL", "x")

    config = layered(BASE, "level: warning", env_prefix="APP")

    assert config.get_value("web.http") == {
        **{"host": "localhost", "port": 8080, "max-size": 1.5, "a.b": True}
    }
    assert config.get_value("level") == "debug"
    assert config.get_value("hosts") == ["a", {"name": "c"}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        (" 80 ", 80),
        ("true", True),
        ("1.5", 1.5),
        ("", None),
        ("null", None),
        ("2020-01-02", date(2020, 1, 2)),
        ("'80'", "80"),
        ('"a\\nb"', "a\nb"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("{a: [b]}", {"a": ["b"]}),
        ("plain text", "plain text"),
        ("a: b #c", "a: b #c"),
        ("*x", "*x"),
        ("&x !y", "&x !y"),
        ("@%`|>-", "@%`|>-"),
        ("<<", "<<"),
        ("=", "="),
        ("  blanks stay ", "  blanks stay "),
        ("a\nb", "a\nb"),
        ("- a", "- a"),
        (".inf", math.inf),
        ("😀", "😀"),
    ],
)
def test_a_text_is_one_scalar_whatever_is_in_it(
    layered: Layered, env: Any, text: str, value: Any
) -> None:
    env("APP_A", text)

    got = layered("a: null", env_prefix="APP").get_value("a")

    assert got == value
    assert type(got) is type(value) or isinstance(value, list | dict)


def test_a_variable_that_looks_like_yaml_and_is_not_is_refused_without_its_value(
    layered: Layered, env: Any
) -> None:
    for text in ("[hunter2", "{a: *hunter2}", "'hunter2", "[a]hunter2", "{a: 1, a: 2}"):
        env("APP_PASSWORD", text)
        with pytest.raises(ConfigSyntaxError) as caught:
            layered(BASE, env_prefix="APP")
        assert str(caught.value) == (
            "environment variable APP_PASSWORD: "
            f"not YAML, which a value that begins with {text[0]} has to be; quote it"
        )
    env("APP_PASSWORD", "2020-13-45")
    with pytest.raises(ConfigSyntaxError, match=r"^environment variable APP_PASSWORD: not a valid"):
        layered(BASE, env_prefix="APP")


def test_an_unknown_key_is_refused_with_what_is_near(layered: Layered, env: Any) -> None:
    env("APP_WEB__HTTP__PROT", "1")
    with pytest.raises(MissingValueError) as caught:
        layered(BASE, env_prefix="APP")
    assert str(caught.value) == (
        "environment variable APP_WEB__HTTP__PROT: no 'web.http.prot' in 'web.http'; "
        "did you mean 'web.http.port'?"
    )


@pytest.mark.parametrize("name", ["HOSTS__2", "LEVEL__X", "WEB____HTTP", "HOSTS__0__NAME", "__WEB"])
def test_a_variable_that_leads_nowhere_is_refused(layered: Layered, env: Any, name: str) -> None:
    env(f"APP_{name}", "1")

    with pytest.raises(MissingValueError, match=rf"^environment variable APP_{name}: no "):
        layered(BASE, env_prefix="APP")


def test_an_unknown_name_without_a_path_is_a_warning_since_it_may_be_a_strangers(
    layered: Layered, env: Any, caplog: pytest.LogCaptureFixture
) -> None:
    env("APP_LEVLE", "hunter2")

    layered(BASE, env_prefix="APP", ambiguous="yaml11")

    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "sepelib.core.config",
            "WARNING",
            "environment variable APP_LEVLE: no 'levle'; did you mean 'level'?; ignored",
        )
    ]


def test_a_variable_that_means_two_keys_is_refused(layered: Layered, env: Any) -> None:
    env("APP_A_B", "1")

    with pytest.raises(
        ConfigError, match=r"^environment variable APP_A_B: may mean 'a-b' or 'a_b'"
    ):
        layered("a-b: 1\na_b: 2\n", env_prefix="APP")


def test_a_scalar_over_a_mapping_names_both_places(layered: Layered, env: Any) -> None:
    env("APP_WEB", "1")
    with pytest.raises(ConfigTypeError) as caught:
        layered(BASE, env_prefix="APP")
    assert str(caught.value) == (
        "environment variable APP_WEB: web is a single value over a mapping at cfg.yml:2:3; "
        "make both alike"
    )


def test_a_mapping_in_a_variable_is_merged_and_a_list_replaces(layered: Layered, env: Any) -> None:
    env("APP_WEB", "{http: {port: 1}}")
    env("APP_HOSTS", "[c]")

    config = layered(BASE, env_prefix="APP")

    assert config.get_value("web.http.port") == 1
    assert config.get_value("web.http.host") == "localhost"
    assert config.get_value("hosts") == ["c"]
    assert str(config.explain("web.http.port")) == "environment variable APP_WEB"


def test_a_value_of_a_wrong_type_names_the_variable(layered: Layered, env: Any) -> None:
    env("APP_WEB__HTTP__PORT", "hunter2")
    config = layered(BASE, env_prefix="APP")

    with pytest.raises(ConfigTypeError) as caught:
        config.get_value("web.http.port", type=int)
    assert str(caught.value) == (
        "environment variable APP_WEB__HTTP__PORT: web.http.port must be int, not str"
    )
    assert caught.value.snippet == ""


def test_norway_in_a_variable_is_a_warning_without_the_value(
    layered: Layered, env: Any, caplog: pytest.LogCaptureFixture
) -> None:
    env("APP_LEVEL", "NO")
    layered(BASE, env_prefix="APP")

    assert caplog.messages == [
        "environment variable APP_LEVEL: this value is read as a bool; quote it if it is text"
    ]


def test_a_prefix_that_is_no_name_is_a_bug(layered: Layered) -> None:
    for prefix in ("", "APP_", "A-B", "_"):
        with pytest.raises(LogicalError, match="env_prefix is a name such as 'APP', not "):
            layered(BASE, env_prefix=prefix)


def test_without_a_prefix_the_environment_is_not_read(layered: Layered, env: Any) -> None:
    env("APP_LEVEL", "debug")

    assert layered(BASE).get_value("level") == "info"


# Overrides


def test_an_override_beats_all_and_keeps_its_type(layered: Layered, env: Any) -> None:
    env("APP_LEVEL", "debug")
    values: dict[str, Any] = {"level": "80", "hosts.1.name": None, "web": {"http": {"port": 1}}}

    config = layered(BASE, "level: a", env_prefix="APP", overrides=values)

    assert config.get_value("level") == "80"
    assert config.get_value("hosts") == ["a", {"name": None}]
    assert config.get_value("web.http.port") == 1
    assert config.get_value("web.http.host") == "localhost"


def test_an_override_may_be_given_by_a_tuple(layered: Layered) -> None:
    config = layered(BASE, overrides={("web", "http", "a.b"): 2})

    assert config.get_value(("web", "http", "a.b")) == 2


def test_an_override_of_an_unknown_key_is_refused(layered: Layered) -> None:
    with pytest.raises(MissingValueError) as caught:
        layered(BASE, overrides={"web.http.prot": 1})
    assert str(caught.value) == (
        "override: no 'web.http.prot' in 'web.http'; did you mean 'web.http.port'?"
    )
    with pytest.raises(LogicalError):
        layered(BASE, overrides={(): {}})


def test_an_override_of_another_shape_names_the_place_below(layered: Layered) -> None:
    with pytest.raises(ConfigTypeError) as caught:
        layered(BASE, overrides={"web.http": 1})
    assert str(caught.value) == (
        "override: web.http is a single value over a mapping at cfg.yml:2:9; make both alike"
    )


def test_overrides_that_change_later_count_as_they_were(layered: Layered) -> None:
    overrides: dict[str, Any] = {"hosts": [1]}
    config = layered(BASE, overrides=overrides)
    overrides["level"] = "x"
    overrides["hosts"].append(2)

    assert config.reload() == ((), (), ())
    assert config.get_value("level") == "info"


# parse_context


def test_names_and_values_of_a_command_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dc.yml").write_text("name: sas\nhosts: [a]\n")
    Path("list.yml").write_text("- 1\n- 2\n")

    context = parse_context(
        ["port=80", "dc=@dc.yml", "list=@list.yml", "x=a=b", "empty=", "port=81", "web.http.port=1"]
    )

    assert context == {
        **{"port": 81, "dc": {"name": "sas", "hosts": ["a"]}, "list": [1, 2], "x": "a=b"},
        **{"empty": None, "web.http.port": 1},
    }
    assert module.parse_context([]) == {}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("port", "not NAME=VALUE; write a name, '=' and a value"),
        ("=80", "not NAME=VALUE; write a name, '=' and a value"),
        (
            "x=[hunter2",
            "value of x: not YAML, which a value that begins with [ has to be; quote it",
        ),
        ("x=@bad.yml", "bad.yml:2:1: duplicate key 'a', first at bad.yml:1:1; remove one of them"),
        ("x=@tag.yml", "tag.yml:1:4: !append is for overlays; there is nothing below this file"),
    ],
)
def test_a_bad_argument_is_one_line_without_its_value(
    tmp_path: Path, monkeypatch: Any, item: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yml").write_text("a: 1\na: 2\n")
    Path("tag.yml").write_text("a: !append [1]\n")

    with pytest.raises(ConfigError) as caught:
        parse_context([item])
    assert str(caught.value) == message


def test_a_missing_file_of_an_argument_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^no\.yml: no such file; the working directory is "):
        parse_context(["x=@no.yml"])


def test_a_secret_of_the_command_line_does_not_reach_a_log(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    parse_context(["password=NO"])

    assert caplog.messages == []
