from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest

from sepelib.util.secrets import MASK, Secret

VALUES: list[str | bytes] = ["hunter2-visible", b"hunter2-visible"]


@pytest.fixture(params=VALUES, ids=["str", "bytes"])
def secret(request: pytest.FixtureRequest) -> Secret[Any]:
    return Secret(request.param)


def test_only_reveal_gives_the_value() -> None:
    assert Secret("hunter2").reveal() == "hunter2"
    assert Secret(b"\x00\xff").reveal() == b"\x00\xff"


def test_however_it_is_printed_it_is_three_stars(secret: Secret[Any]) -> None:
    assert [repr(secret), str(secret), format(secret), f"{secret}", f"{secret!r:>9}".strip()] == (
        [MASK] * 5
    )
    assert f"{secret:>40}" == f"{secret:d}" == MASK  # any format; it may not tell the length
    assert "%s %r" % (secret, secret) == "*** ***"  # noqa: UP031
    assert "{0} {0!s}".format(secret) == "*** ***"  # noqa: UP032
    assert str([secret, {"p": secret}]) == "[***, {'p': ***}]"


def test_json_gives_stars_with_default_str_and_otherwise_refuses_without_the_value(
    secret: Secret[Any],
) -> None:
    assert json.dumps({"p": secret}, default=str) == '{"p": "***"}'
    with pytest.raises(TypeError) as refused:
        json.dumps({"p": secret})
    assert "hunter2" not in str(refused.value)


def test_a_log_line_and_a_traceback_do_not_show_it(
    secret: Secret[Any], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(__name__).error("password %s %r", secret, secret)
    try:
        raise RuntimeError(secret)
    except RuntimeError as e:
        shown = traceback.TracebackException.from_exception(e, capture_locals=True)
    lines = "".join(shown.format())
    assert "secret = ***" in lines
    assert "RuntimeError: ***" in lines
    assert "hunter2" not in lines + caplog.text


def test_code_that_wants_a_str_gets_an_error_that_does_not_tell(secret: Secret[Any]) -> None:
    wrong: Any = secret
    for use in (
        lambda: "password=" + wrong,
        lambda: "".join([wrong]),
        lambda: b"%b" % wrong,
        lambda: bytes(wrong),
        lambda: list(wrong),
        lambda: len(wrong),
        lambda: int(wrong),
        lambda: vars(wrong),
    ):
        with pytest.raises(TypeError) as refused:
            use()
        assert "hunter2" not in str(refused.value)
    assert not isinstance(wrong, str | bytes)


def test_it_equals_a_secret_of_the_same_value_and_nothing_else() -> None:
    other: list[object] = ["a", b"a", MASK, Secret("b"), Secret(b"a"), Secret("ab"), None]
    assert Secret("a") == Secret("a")
    assert Secret(b"\xff") == Secret(b"\xff")
    assert Secret("пароль\ud800") == Secret("пароль\ud800")  # what surrogateescape lets in
    assert [Secret("a") != o for o in other] == [True] * len(other)
    assert len({Secret("a"), Secret("a"), Secret(b"a")}) == 2


def test_it_is_false_when_empty() -> None:
    assert not Secret("")
    assert not Secret(b"")
    assert Secret(" ")


def test_it_is_copied_as_itself_and_not_pickled(secret: Secret[Any]) -> None:
    @dataclasses.dataclass
    class Config:
        password: Secret[Any]

    assert copy.copy(secret) is secret
    assert copy.deepcopy({"p": secret})["p"] is secret
    assert dataclasses.asdict(Config(secret))["password"] is secret
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(secret, protocol)


def test_a_secret_of_a_secret_is_wrapped_once() -> None:
    assert Secret(Secret("a")).reveal() == "a"


def test_what_is_neither_str_nor_bytes_is_refused_without_the_value() -> None:
    wrong: Any = 31337
    with pytest.raises(TypeError, match="str or bytes, not int") as refused:
        Secret(wrong)
    assert "31337" not in str(refused.value)


def test_importing_it_does_not_load_openssl() -> None:
    script = "import sys, sepelib.util.secrets; sys.exit('_hashlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
