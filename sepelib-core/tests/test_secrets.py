"""What is secret is seen nowhere: not in dumps, errors, snippets, reprs, tracebacks or logs."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sepelib.core import config as module
from sepelib.core.config import Config, ConfigError, ConfigTypeError, MissingValueError
from sepelib.core.exceptions import LogicalError
from sepelib.core.testing import fresh_config
from sepelib.util.secrets import Secret

if TYPE_CHECKING:
    from .conftest import Layered, Refused

TEXT = """\
web: {port: 80, host: local, nothing: null}
db: {url: "mongodb://bob:hunter22@db:27017/x?token=tttttttt", pool: 5}
plain: !secret hunter33
number: !secret 12345678
empty: !secret
list: !secret [hunter44, {a: hunter55}]
api_token: hunter66
passwords: {a: hunter77, b: [hunter88]}
auth: {mode: local, secret: hunter99}
dsn: postgres://u:hunterAA@h/d
uri: http://localhost/
pin: !secret abc
base: &b !secret {x: hunterBB}
merged: {<<: *b}
"""
SECRETS = [f"hunter{n}" for n in ("22", "33", "44", "55", "66", "77", "88", "99", "AA", "BB")]


@pytest.fixture
def config(layered: Layered) -> Config:
    return layered(TEXT)


def hidden(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


# Values and dumps


def test_a_tagged_value_is_text_to_the_program(config: Config) -> None:
    assert config.get_value("plain", type=str) == "hunter33"
    assert type(config.get_value("plain")) is str
    assert config.get_value("number") == "12345678"
    assert config.get_value("empty") is None
    assert config.get_value("list.1.a") == "hunter55"


def test_a_value_can_be_taken_as_a_secret(config: Config) -> None:
    secret = config.get_value("plain", type=Secret)

    assert repr(secret) == "***"
    assert secret.reveal() == "hunter33"
    with pytest.raises(ConfigTypeError, match="a Secret is made of str or bytes, not int"):
        config.get_value("web.port", type=Secret)


def test_a_masked_dump_has_the_keys_and_no_secret(config: Config) -> None:
    tree = config.to_dict()

    assert hidden(repr(tree))
    assert tree == {
        "web": {"port": 80, "host": "local", "nothing": None},
        "db": {"url": "mongodb://bob:***@db:27017/x?token=***", "pool": 5},
        "plain": "***",
        "number": "***",
        "empty": None,
        "list": ["***", {"a": "***"}],
        "api_token": "***",
        "passwords": {"a": "***", "b": ["***"]},
        "auth": {"mode": "***", "secret": "***"},
        "dsn": "***",
        "uri": "***",
        "pin": "***",
        "base": {"x": "***"},
        "merged": {"x": "***"},
    }
    assert yaml.safe_load(config.dump()) == tree == json.loads(config.dump(fmt="json"))


def test_an_unmasked_dump_loads_as_the_same(config: Config) -> None:
    tree = config.to_dict(mask=False)

    assert tree == config.get()
    assert type(tree["list"][1]) is dict
    assert yaml.safe_load(config.dump(mask=False)) == tree
    assert json.loads(config.dump(mask=False, fmt="json")) == tree


def test_a_dump_writes_what_the_format_does_not_have_as_text(layered: Layered) -> None:
    config = layered(
        "d: 2020-01-02\nn: .nan\n1: {true: ~, null: x}\nt: 2020-01-02 03:04:05\n"
        "b: !!binary aGk=\nx: 1\n"
        "shared: &s [1, {a: 2020-01-02}]\nagain: *s\ntext: 'NO é 😀'\n",
        overrides={"x": Config},
    )

    assert json.loads(config.dump(fmt="json")) == {
        "d": "2020-01-02",
        "n": "nan",
        "1": {"true": None, "null": "x"},
        "t": "2020-01-02 03:04:05",
        "b": "b'hi'",
        "x": str(Config),
        "shared": [1, {"a": "2020-01-02"}],
        "again": [1, {"a": "2020-01-02"}],
        "text": "NO é 😀",
    }
    dumped = yaml.safe_load(config.dump())
    assert dumped["x"] == str(Config)
    assert dumped["text"] == "NO é 😀"
    assert "&" not in config.dump() and "😀" in config.dump()


def test_another_format_is_a_bug(config: Config) -> None:
    with pytest.raises(LogicalError, match="fmt is 'yaml' or 'json', not 'toml'"):
        config.dump(fmt="toml")  # type: ignore[arg-type]


def test_a_secret_object_of_the_program_is_masked(layered: Layered) -> None:
    config = layered("a: null", overrides={"a": Secret("hunter22")})

    assert config.to_dict() == {"a": "***"}
    assert hidden(config.dump() + config.dump(mask=False))
    assert config._values.redact("x hunter22") == "x ***"


def test_a_dump_before_loading_is_a_bug() -> None:
    for ask in (Config().to_dict, Config().dump, lambda: Config().to_dict(mask=False)):
        with pytest.raises(LogicalError, match="no configuration is loaded"):
            ask()


def test_what_replaces_a_secret_is_one(layered: Layered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_C", "hunter33")
    config = layered(
        "a: !secret x\nb: !secret y\nc: !secret z\nd: {e: !secret [w]}\nf: 1",
        "a: hunter22\nd: {e: !append [hunter55]}",
        env_prefix="APP",
        overrides={"b": "hunter44", "f": 2},
    )

    assert config.to_dict() == {
        **{"a": "***", "b": "***", "c": "***", "d": {"e": ["***", "***"]}, "f": 2}
    }
    assert config.get_value("d.e") == ["w", "hunter55"]


# Errors


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("plain", int),
        ("list", dict),
        ("list.0", int),
        ("list.1.a", float),
        ("passwords.a", int),
        ("merged.x", int),
        ("db.url", int),
    ],
)
def test_a_value_of_a_wrong_type_is_not_shown(config: Config, key: str, kind: Any) -> None:
    def refuse(value: object) -> None:
        raise ValueError(f"what is {value!r}?")

    for wanted in (kind, refuse):
        with pytest.raises(ConfigTypeError) as caught:
            config.get_value(key, type=wanted)
        error = caught.value
        assert hidden(str(error) + repr(error) + error.snippet)
        assert hidden("".join(traceback.format_exception(error)))


def test_a_function_that_shows_a_section_with_a_secret_is_not_repeated(config: Config) -> None:
    def refuse(value: object) -> None:
        raise ValueError(f"what is {value!r}?")

    for key in ("auth", "list", "db", ()):
        with pytest.raises(ConfigTypeError) as caught:
            config.get_value(key, type=refuse)
        assert hidden("".join(traceback.format_exception(caught.value)))
    with pytest.raises(ConfigTypeError, match="which says: what is"):
        config.get_value("web", type=refuse)


def test_what_is_said_of_a_url_is_repeated_without_its_cause(config: Config) -> None:
    def refuse(value: object) -> None:
        try:
            raise KeyError(value)
        except KeyError as error:
            raise ValueError("only http is fine") from error

    with pytest.raises(ConfigTypeError, match="which says: only http is fine") as caught:
        config.get_value("db.url", type=refuse)
    assert hidden("".join(traceback.format_exception(caught.value)))


def test_a_section_with_a_short_secret_is_not_shown_either(layered: Layered) -> None:
    def refuse(value: object) -> None:
        raise ValueError(f"what is {value!r}?")

    config = layered("a: {b: !secret abc, c: 1}\n")

    with pytest.raises(ConfigTypeError) as caught:
        config.get_value("a", type=refuse)
    assert str(caught.value) == "cfg.yml:1:4: a must be refuse, which refuses this dict"
    assert "abc" not in "".join(traceback.format_exception(caught.value))


def test_the_place_of_an_alias_does_not_show_what_it_names(layered: Layered) -> None:
    config = layered("name: &x hunter22\npassword: *x\n")

    with pytest.raises(ConfigTypeError) as caught:
        config.get_value("password", type=int)
    assert str(caught.value) == "cfg.yml:1:7: password must be int, not str"
    assert caught.value.snippet == "***"


def test_a_missing_key_beside_a_secret_does_not_show_it(config: Config) -> None:
    for key in ("plain.x", "list.7", "api_token.x", "db.url.x", "passwords.b.0.x"):
        with pytest.raises(MissingValueError) as caught:
            config.get_value(key)
        assert hidden(str(caught.value) + caught.value.snippet)


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter22: x",
        "a: !secret hunter22: x",
        "a: !secret |\n  hunter22\n  {{ no }}",
        "passwords:\n- hunter22 {{ no }}",
        "passwords:\n- - hunter22 {{ no }}",
        "secrets:\n  db:\n    main: hunter22 {{ no }}",
        "tokens:\n  # about\n\n  db:\n  - main: hunter22 {{ no }}",
        "a: {password: hunter22, b: {{ no }} }",
        "a: {b: {{ no }}, password: hunter22}",
        "url: http://bob:hunter22@h/{{ no }}",
        "a: {url: 'amqp://bob:hunter22@h', b: c: d}",
        '{% set password = "hunter22" + no %}',
        '"password" : "hunter22{{ no }}"',
        "password: >-\n\n   hunter22 {{ no }}",
        "password: [a,\n  hunter22, {{ no }}]",
        "password: hunter22\npassword: hunter33",
        "password: &hunter22 [",
        "password: *hunter22",
        "password: !hunter22 x",
        "password: '\\hunter22",
        'password: "\\hunter22"',
        "password: 2020-13-45 # hunter22",
    ],
)
def test_a_snippet_never_shows_a_secret(refused: Refused, text: str) -> None:
    error = refused(text)

    assert hidden(str(error) + repr(error) + error.snippet)
    assert hidden("".join(traceback.format_exception(error)))


def test_a_snippet_shows_what_is_beside_a_secret(refused: Refused) -> None:
    error = refused("hosts:\n- password: x\n  name: {{ no }}\n")
    assert error.snippet == "  name: {{ no }}"
    assert refused("token: x\nname: {{ no }}\n").snippet == "name: {{ no }}"
    assert refused("tokens:\n- x\nname: {{ no }}\n").snippet == "name: {{ no }}"


def test_a_conflict_between_layers_shows_no_secret(layered: Layered) -> None:
    for base, over in (
        ("password: {a: 1}", "password: hunter22"),
        ("a: !secret [x]", "a: !secret hunter22"),
        ("a: hunter22", "a: {b: hunter33}"),
    ):
        with pytest.raises(ConfigError) as caught:
            layered(base, over)
        assert "hunter22" not in str(caught.value) + caught.value.snippet


# Logs


@pytest.fixture
def written(config: Config) -> Iterator[Callable[[], str]]:
    """What the handler of the logger "app", which has the filter, has written so far."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    handler.addFilter(module.RedactingFilter(config))
    log = logging.getLogger("app")
    log.addHandler(handler)
    log.propagate = False
    try:
        yield stream.getvalue
    finally:
        log.removeHandler(handler)
        log.propagate = True


log = logging.getLogger("app.part")


def test_secrets_are_replaced_in_the_message_and_its_arguments(written: Callable[[], str]) -> None:
    log.error("with hunter33: %s %r", "hunter44", ["hunter66"])
    log.error(ValueError("hunter77"))
    log.error("%(pw)s", {"pw": "hunter22"})
    log.error("hunter88 100%")

    assert written().splitlines() == [
        "ERROR app.part with ***: *** ['***']",
        "ERROR app.part ***",
        "ERROR app.part ***",
        "ERROR app.part *** 100%",
    ]


def test_other_messages_stay_as_they_are(written: Callable[[], str]) -> None:
    log.error("in %s mode at http://localhost/ on port %d, abc", "local", 80)

    assert written() == "ERROR app.part in local mode at http://localhost/ on port 80, abc\n"


def test_secrets_are_replaced_in_urls_the_program_never_configured(
    written: Callable[[], str],
) -> None:
    log.error("GET %s", "https://me:pw@example.org/?sig=1")

    assert written() == "ERROR app.part GET https://me:***@example.org/?sig=***\n"


def test_secrets_are_replaced_in_tracebacks_and_stacks(written: Callable[[], str]) -> None:
    try:
        raise ValueError("what is hunter33?")
    except ValueError:
        log.exception("failed")
    log.error("here", stack_info=True)

    assert hidden(written())
    assert "ValueError: what is ***?" in written()
    assert "Stack (most recent call last)" in written()


def test_a_traceback_without_a_secret_keeps_its_exception(config: Config) -> None:
    record = logging.LogRecord(
        "app", 40, "x.py", 1, "a %s", ("b",), (ValueError, ValueError("x"), None)
    )

    assert module.RedactingFilter(config).filter(record)
    assert record.exc_info is not None and record.args == ("b",) and record.msg == "a %s"


def test_a_formatter_that_looks_at_the_exception_finds_none(config: Config) -> None:
    error = ValueError("hunter33")
    record = logging.LogRecord("app", 40, "x.py", 1, "a", (), (ValueError, error, None))
    record.exc_text = "cached: hunter33"

    module.RedactingFilter(config).filter(record)

    assert record.exc_info is None and record.exc_text == "cached: ***"


def test_secrets_are_replaced_in_extra_fields(config: Config) -> None:
    record = logging.makeLogRecord({"msg": "a", "peer": "bob:hunter33", "name": "hunter33"})

    module.RedactingFilter(config).filter(record)

    assert (vars(record)["peer"], record.name) == ("bob:***", "hunter33")


def test_a_message_that_cannot_be_formatted_is_logged_without_its_secret(
    written: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("app.part").error(*("%d %d", "hunter33"))

    assert written() == "ERROR app.part %d %d ('***',)\n"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("secret", ["a'b\"c\\d é", "p/w?x=y z%", "line one\nline two", "😀😀😀😀"])
def test_the_ways_in_which_a_secret_is_written_are_replaced(layered: Layered, secret: str) -> None:
    from urllib.parse import quote, quote_plus

    config = layered("a: !secret {{ x|yaml }}", config_context={"x": secret})
    for written in (
        *(secret, repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)),
        *(repr([secret]), quote(secret), quote(secret, safe=""), quote_plus(secret)),
        *(f"<{secret}>", f"{secret}{secret}", str({"a": secret})),
    ):
        shown = config._values.redact(f"x {written} y")
        assert "***" in shown
        assert secret not in shown and repr(secret)[1:-1] not in shown


def test_a_short_secret_is_replaced_as_a_word_and_a_very_short_one_is_not(
    layered: Layered,
) -> None:
    config = layered("a: !secret test\nb: !secret abc\nc: !secret longer-secret\nd: !secret 12345")

    redact = config._values.redact
    assert redact("test latest test_x 'test' abc") == "*** latest ***_x '***' abc"
    assert redact("xlonger-secretx port 12345, 123456") == "x***x port ***, 123456"


def test_of_two_secrets_the_longer_is_replaced_first(layered: Layered) -> None:
    config = layered("a: !secret abcdefgh\nb: !secret abcdefghijkl")

    assert config._values.redact("abcdefghijkl abcdefgh") == "*** ***"


def test_the_password_of_a_url_is_replaced_alone_too(layered: Layered) -> None:
    config = layered("url: http://bob:p%40sswords@h/\n")

    assert config._values.redact("bob p%40sswords p@sswords") == "bob *** ***"


def test_the_filter_follows_the_configuration_of_the_process(layered: Layered) -> None:
    def shown(text: str) -> str:
        record = logging.makeLogRecord({"msg": text})
        assert redacting.filter(record)
        return record.getMessage()

    redacting = module.RedactingFilter()
    with fresh_config() as config:
        assert shown("hunter22 http://u:pw@h/") == "hunter22 http://u:***@h/"
        layered("a: !secret hunter22")
        config.load("cfg.yml")
        assert shown("hunter22 hunter33") == "*** hunter33"
        layered("a: !secret hunter33")
        config.reload()
        assert shown("hunter22 hunter33") == "hunter22 ***"
        with config.override({"password": "hunter44"}):
            assert shown("hunter44") == "***"
