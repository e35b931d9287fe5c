import contextlib
import gc
import itertools
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.util.exceptions import (
    format_exception,
    format_traceback,
    note,
    root_cause,
    suppress,
)
from sepelib.util.secrets import Secret


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Broken(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise ZeroDivisionError


class Numeric(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")

    def add_note(self, text: str, /) -> None:
        raise AttributeError("frozen")


class Down(Exception):
    pass


class Cancelled(BaseException):
    pass


def linked(*errors: BaseException) -> BaseException:
    """The first, each one caused by the next."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as e:
        return e


def test_an_error_is_one_line_with_its_causes() -> None:
    error = linked(RuntimeError("no\nanswer"), ConnectionError("refused"), KeyError("host"))

    assert (
        format_exception(error)
        == "RuntimeError: no answer; from ConnectionError: refused; from KeyError: 'host'"
    )
    assert format_exception(error, chain=False) == "RuntimeError: no answer"


def test_a_context_is_told_unless_it_is_suppressed() -> None:
    error = ValueError("b")
    error.__context__ = KeyError("a")

    assert format_exception(error) == "ValueError: b; while handling KeyError: 'a'"

    error.__suppress_context__ = True
    assert format_exception(error) == "ValueError: b"


def test_notes_are_part_of_the_line() -> None:
    error = ValueError("b")
    note(error, "while reading x")
    error.add_note("line 5")

    assert format_exception(error) == "ValueError: b (while reading x; line 5)"
    assert format_exception(linked(OSError(), error)) == (
        "OSError; from ValueError: b (while reading x; line 5)"
    )


def test_a_group_shows_its_members() -> None:
    error = ExceptionGroup("two", [ValueError("a"), linked(OSError("b"), KeyError("c"))])

    assert format_exception(error) == (
        "ExceptionGroup: two (2 sub-exceptions) [ValueError: a | OSError: b; from KeyError: 'c']"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Mute(), "Mute: (its text fails with ZeroDivisionError)"),
        (Numeric(), "Numeric: (its text fails with TypeError)"),
        (Broken("x"), "Broken: x (the rest fails with ZeroDivisionError)"),
        (Exception(Mute()), "Exception: (its text fails with ZeroDivisionError)"),
        (Exception(), "Exception"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Exception("a\ud800b"), "Exception: a\\ud800b"),
        (Exception("a\x00\x1b[1m\x85\u2028\u202eb\r\n"), "Exception: a [1m b"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_error_that_misbehaves_has_a_line_all_the_same(error: BaseException, line: str) -> None:
    assert format_exception(error) == line
    assert line in format_exception(linked(OSError("x"), error))
    assert format_traceback(error)
    assert format_traceback(raised(error), locals=True)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_causes_ends(length: int) -> None:
    errors = [ValueError(str(n)) for n in range(length)]
    linked(*errors, errors[0])

    assert format_exception(errors[0]).count("ValueError") == length
    assert root_cause(errors[0]) is errors[-1]
    assert format_traceback(errors[0]).count("ValueError") == length


def test_a_chain_or_group_of_thousands_is_cut() -> None:
    chain = linked(*[ValueError(str(n)) for n in range(5000)])
    group: Exception = ValueError("x")
    for _ in range(5000):
        group = ExceptionGroup("g", [group])
    wide = ExceptionGroup("w", [ValueError(str(n)) for n in range(5000)])

    for error in (chain, group, wide):
        whole = format_exception(error, max_length=100_000)
        assert "..." in whole and whole.count("ValueError") + whole.count("ExceptionGroup") == 20
        assert len(format_exception(error, max_length=90)) <= 90
    assert str(root_cause(chain)) == "4999"
    assert str(root_cause(group)) == "x"


def test_a_long_line_is_cut_and_says_so() -> None:
    line = format_exception(ValueError("x" * 5000))

    assert len(line) <= 500 and line.endswith(" more)")
    assert format_exception(ValueError("x" * 5000), max_length=-5) == ""


def test_a_secret_in_a_url_is_masked_also_when_cut_or_split() -> None:
    for text in (
        "GET https://ivan:hunter2@host/x?token=hunter2&a=1",
        "GET /x?token=hunter2;x",
        "GET /x?token=a\x00hunter2",
        "x" * 480 + " http://ivan:hunter2@host/",
    ):
        error = raised(ValueError(text))
        note(error, text)
        assert "hunter2" not in format_exception(linked(OSError(text), error), max_length=5000)
        assert "hunter2" not in format_exception(error)
        assert "hunter2" not in format_traceback(error)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(0, 200))
def test_a_line_is_one_printable_line_for_any_text(text: str, length: int) -> None:
    error = ValueError(text)
    error.add_note(text)
    line = format_exception(linked(OSError(text), error), max_length=length)

    assert len(line) <= length and len(line.splitlines()) <= 1
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in line)
    line.encode()


def test_cancellation_inside_of_a_text_is_not_swallowed() -> None:
    class Cancelling(Exception):
        def __str__(self) -> str:
            raise Cancelled

    with pytest.raises(Cancelled):
        format_exception(Cancelling())


def fail(password: str, count: int, **more: object) -> None:
    raise ValueError("bad")


def failure(**more: object) -> Exception:
    try:
        fail("hunter2", 42, **more)
    except ValueError as e:
        return e
    raise AssertionError


def test_a_traceback_is_what_python_prints() -> None:
    text = format_traceback(failure())

    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: bad")
    assert ", in fail\n" in text and "count" not in text.split(", in fail\n")[1]


def test_locals_are_shown_without_secrets() -> None:
    text = format_traceback(
        failure(
            secret=Secret("hunter2"),
            headers={"Authorization": "OAuth hunter2", "Accept": "*/*"},
        ),
        locals=True,
    )

    assert "hunter2" not in text.replace('fail("hunter2", 42, **more)', "")
    assert "    count = 42\n" in text and "    password = ***\n" in text
    assert "'Authorization': ***" in text and "'Accept': '*/*'" in text


@pytest.mark.parametrize("make", [str, str.encode, lambda url: [url], Exception])
def test_a_url_in_a_local_is_masked_before_it_is_cut(make: Callable[[str], object]) -> None:
    value = make(f"https://ivan:{'hunter2' * 20}@{'h' * 500}")
    text = format_traceback(failure(value=value), locals=True)

    assert "ivan:***@hhh" in text
    assert "hunter2" not in text.replace('fail("hunter2", 42, **more)', "")


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, list(range(10**5)), 10**4000, Mute(), {Mute(): Mute()}, "a\nb"],
    ids=["str", "bytes", "list", "int", "mute", "dict", "lines"],
)
def test_locals_are_short_lines_whatever_they_are(value: object) -> None:
    text = format_traceback(failure(value=value), locals=True)

    lines = [line for line in text.splitlines() if line.startswith("    more = ")]
    assert len(lines) == 2 and max(map(len, lines)) < 220  # of fail() and of failure()
    assert "'value': " in lines[0] or "Mute whose repr fails" in lines[0]


def test_locals_of_causes_and_members_are_shown_and_limits_obeyed() -> None:
    limit = 1
    group = raised(ExceptionGroup("g", [failure(mark="member")]))
    error = raised(linked(OSError("x"), group))

    assert "'mark': 'member'" in format_traceback(error, locals=True)
    sys.tracebacklimit = limit
    try:
        text = format_traceback(failure(), locals=True)
    finally:
        del sys.tracebacklimit
    assert "in failure" in text and "in fail\n" not in text and "more = {}" in text


def test_cancellation_inside_of_a_repr_is_not_swallowed() -> None:
    class Cancelling:
        def __repr__(self) -> str:
            raise Cancelled

    with pytest.raises(Cancelled):
        format_traceback(failure(value=Cancelling()), locals=True)


def test_the_root_is_the_cause_then_the_context() -> None:
    origin, middle, last = KeyError("a"), ValueError("b"), OSError("c")
    last.__cause__, last.__context__ = middle, TypeError("context")
    middle.__context__ = origin

    assert root_cause(last) is origin
    middle.__suppress_context__ = True
    assert root_cause(last) is middle
    assert root_cause(origin) is origin


def test_a_group_of_one_is_seen_through_and_of_two_is_a_root() -> None:
    origin = KeyError("a")
    one = ExceptionGroup("one", [linked(ValueError("b"), origin)])
    two = ExceptionGroup("two", [origin, ValueError("b")])

    assert root_cause(linked(OSError("c"), one)) is origin
    assert root_cause(linked(OSError("c"), two)) is two


def test_a_root_that_cannot_be_asked_further_is_the_last_one() -> None:
    broken = Broken("x")

    assert root_cause(linked(OSError("c"), broken)) is broken


def test_a_note_is_there_once() -> None:
    error = ValueError("b")
    for _ in range(3):
        note(error, "while reading x")
    note(error, "in y")

    assert error.__notes__ == ["while reading x", "in y"]


def test_an_error_that_takes_no_notes_stays_as_it_is() -> None:
    odd = ValueError("b")
    odd.__notes__ = 5  # type: ignore[assignment]

    note(Frozen(), "x")
    note(odd, "x")

    assert odd.__notes__ == 5  # type: ignore[comparison-overlap]


def test_what_is_named_is_suppressed_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with suppress(OSError, KeyError):
        raise ConnectionError("refused")

    (record,) = caplog.records
    assert record.getMessage() == "suppressed ConnectionError: refused"
    assert record.levelno == logging.WARNING and record.name == "sepelib.util.exceptions"
    assert record.funcName == "test_what_is_named_is_suppressed_and_logged_once"


def test_a_suppression_logs_where_and_how_loud_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("mine")
    caplog.set_level(logging.INFO)
    with suppress(OSError, log=log, level=logging.INFO):
        raise OSError("a")
    with suppress(OSError, log=log, level=logging.DEBUG):
        raise OSError("b")

    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("mine", "INFO", "suppressed OSError: a")
    ]


@pytest.mark.parametrize("error", [ValueError("a"), Cancelled(), GeneratorExit()])
def test_what_is_not_named_passes_unchanged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(type(error)) as caught, suppress(OSError):
        raise error

    assert caught.value is error and not caplog.records


def test_a_block_without_an_error_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with suppress(Exception):
        pass

    assert not caplog.records


@pytest.mark.parametrize(
    "named", [(), (KeyboardInterrupt,), (OSError, BaseException), ("OSError",), ((OSError,),)]
)
def test_only_named_subclasses_of_exception_can_be_suppressed(named: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="xception"):
        suppress(*named)


def test_members_of_a_group_that_are_named_are_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    with suppress(OSError):
        raise ExceptionGroup("all", [OSError("a"), ExceptionGroup("in", [OSError("b")])])
    with pytest.raises(BaseExceptionGroup) as caught, suppress(OSError):
        raise BaseExceptionGroup("some", [OSError("c"), Cancelled()])

    assert [type(e) for e in caught.value.exceptions] == [Cancelled]
    assert caught.value.__context__ is None
    assert ["OSError: b" in caplog.messages[0], "OSError: c" in caplog.messages[1]] == [True, True]
    with pytest.raises(ExceptionGroup), suppress(OSError):
        raise ExceptionGroup("none", [ValueError("a")])
    assert len(caplog.records) == 2


def test_showing_an_error_keeps_nothing_of_it() -> None:
    error: Exception = Down("x")
    with contextlib.suppress(Down):
        raise error
    alive = weakref.ref(error)
    gc.disable()
    try:
        format_exception(error)
        format_traceback(error)
        note(error, "x")
        del error
        assert alive() is None
    finally:
        gc.enable()
