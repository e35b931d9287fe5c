"""Errors travel: they pickle, copy, and are one line that names the call and hides the secrets."""

import pickle

import pytest

from sepelib.core.exceptions import Error
from sepelib.util import deadline
from sepelib.util.testing import check_errors
from sepelib.yandex import errors
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    ApiTimeout,
    BatchError,
    Conflict,
    DeadlineExceeded,
    NotFound,
    ServerError,
    TooManyRequests,
    VersionConflict,
    WaitTimeout,
    Where,
    YandexError,
)

WHERE = Where("startrek", "issues.get", "GET", "https://st.test/v2/issues/T-7", "id-2")


def example_of(cls: type[YandexError]) -> YandexError:
    error = cls("no such issue", where=WHERE)
    error.attempts = 2
    return error


EXAMPLES = [
    *(
        example_of(cls)
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, YandexError)
    ),
    ApiTimeout("late", where=WHERE, maybe_applied=True, timeout=0.5, phase="read"),
    DeadlineExceeded("late", where=WHERE, maybe_applied=True, timeout=0.5, phase="total"),
    ApiProtocolError("no JSON", where=WHERE, body="<html>", status=200),
    NotFound("no", where=WHERE, status=404, code="c", fields={"a": "b"}, body="x", retry_after=1.0),
    WaitTimeout("not over", where=WHERE, state="running", timeout=5.0),
    BatchError("2 of 3 failed", where=WHERE, results=[{"id": 1, "ok": False}]),
]


def test_every_error_pickles_copies_and_is_one_line() -> None:
    for example in EXAMPLES:  # check_errors keeps one of each class
        check_errors(errors, examples=[example])


def test_every_error_names_its_call() -> None:
    for error in EXAMPLES:
        assert str(error).startswith("startrek issues.get (GET https://st.test/v2/issues/T-7): ")
        assert (error.service, error.op, error.method) == ("startrek", "issues.get", "GET")
        assert (error.url, error.request_id) == (WHERE.url, "id-2")


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert issubclass(YandexError, Error)
    assert issubclass(DeadlineExceeded, deadline.DeadlineExceeded)
    assert issubclass(DeadlineExceeded, ApiTimeout) and issubclass(ApiTimeout, ApiConnectionError)
    assert issubclass(VersionConflict, Conflict) and issubclass(WaitTimeout, TimeoutError)
    doc = errors.__doc__ or ""
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, YandexError):
            assert f" {name}" in doc, name


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ApiConnectionError("reset", maybe_applied=True), "reset; it may have been applied"),
        (ApiConnectionError("refused"), "refused; it was not applied"),
        (NotFound("no such", status=404, code="nf"), "status 404: nf: no such"),
        (NotFound("same", status=404, code="same"), "status 404: same"),
        (ServerError("oh", status=500, fields={"a": "b"}), "status 500: oh; a: b"),
        (ApiProtocolError("no JSON", status=200, body="<p>"), "status 200, no JSON: <p>"),
        (WaitTimeout(timeout=5.0), "not over within 5 s, last state unknown"),
        (YandexError(), "YandexError"),
    ],
)
def test_what_they_say(error: YandexError, sentence: str) -> None:
    assert str(error) == sentence


def test_an_error_of_a_service_needs_one_sentence_only() -> None:
    error = pickle.loads(pickle.dumps(TooManyRequests("slow down", status=429, retry_after=3.0)))
    assert (error.status, error.retry_after, error.maybe_applied) == (429, 3.0, False)
    assert isinstance(error, ApiResponseError)
