"""What to do with an error beside raising it: show it, find its origin, note it, let it pass.

    except Exception as e:
        log.warning("no answer: %s", format_exception(e))       # one line, with the causes

Errors: whatever the error in hand does in its `__str__` or properties, nothing here raises it; a
BaseException that is no Exception, such as `gevent.Timeout`, passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from reprlib import Repr
from types import TracebackType
from typing import TYPE_CHECKING

from sepelib.util.secrets import MASK, Secret
from sepelib.util.text import to_text, truncate
from sepelib.util.url import SECRET_NAME, redact_text

if TYPE_CHECKING:
    import logging
    from traceback import TracebackException

__all__ = ["format_exception", "format_traceback", "note", "root_cause", "suppress"]

_WARNING = 30  # logging.WARNING

# Control characters of ASCII, Latin-1 and Unicode, among them those that turn the text around.
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028-\u202e\u2066-\u2069]+")
_SHOWN = 20  # errors in one line, of a chain or group that may have thousands
_READ = 64 << 10  # characters of one message: the rest is never shown
_LOCAL = 200  # characters of one local variable


def format_exception(error: BaseException, *, chain: bool = True, max_length: int = 500) -> str:
    """*error* in one line of at most *max_length* characters, for a log line or a label.

    `ApiError: no answer (while reading x); from ConnectionError: refused` is an error with a note
    and its cause; `; while handling` tells of a context, `[KeyError: 'a' | OSError: b]` of a
    group's members. With `chain=False` neither cause nor context is shown. No control characters
    and no lone surrogates; URLs as `redact_text()` has them. Never raises.
    """
    pieces = []
    try:
        for piece in _pieces(error, chain, set()):
            pieces.append(piece)
    except Exception as e:  # a cause, a note or a group that is a property, and fails
        pieces = pieces or [type(error).__name__]
        pieces.append(f" (the rest fails with {type(e).__name__})")
    return truncate("".join(pieces), max(max_length, 0))


def format_traceback(error: BaseException, *, locals: bool = False) -> str:
    """The whole text that Python prints of *error*, without the last newline.

    URLs are as `redact_text()` has them. With *locals* each frame shows its variables, cut to 200
    characters; a `Secret`, and a variable or key of a dict with a secret's name, shows `***`. Other
    objects show what their repr does: for a developer's eyes. Before Python 3.13 the error and its
    frames then wait for the garbage collector. Never raises.
    """
    import traceback  # reads and tokenizes sources: for an error that may never come

    try:
        printed = traceback.TracebackException(type(error), error, error.__traceback__)
        if locals:
            _add_locals(printed, error)
        text = "".join(printed.format())
    except Exception as e:
        return f"{format_exception(error)}\n(its traceback fails with {type(e).__name__})"
    return _encodable(redact_text(text.rstrip("\n")))


def root_cause(error: BaseException) -> BaseException:
    """The first error of the chain that led to *error*, which is *error* itself without one.

    Followed are the cause, else the only member of an ExceptionGroup, else the context unless
    `from None` suppressed it. A group of several is a root: none of them is the one. In a circle it
    is the last one that was not met before. Never raises.
    """
    seen = {id(error)}
    try:
        while (earlier := _origin(error)) is not None and id(earlier) not in seen:
            seen.add(id(earlier))
            error = earlier
    except Exception:  # a property fails: what we came to is as far as can be seen
        pass
    return error


def note(error: BaseException, text: str) -> None:
    """Add *text*, such as "while reading x", to the notes of *error*, once. Never raises."""
    text = to_text(text)
    try:
        if text not in getattr(error, "__notes__", ()):
            error.add_note(text)
    except Exception:  # a frozen error refuses; that must not take its place
        pass


class suppress:
    """Let the errors *named* end the block without harm, each logged as one line.

        with suppress(OSError, log=log):
            cache_file.unlink()

    Logged by *log*, default the logger of this module, at *level*; the record names the function
    that has the `with`. Of an ExceptionGroup the members named are taken out, the rest goes on.
    TypeError for a class outside Exception: cancellation is not to be suppressed.
    Sharing: keeps nothing; one object may serve any number of greenlets, threads and nestings.
    """

    __slots__ = ("_level", "_log", "_named")

    def __init__(
        self,
        *named: type[Exception],
        log: logging.Logger | None = None,
        level: int = _WARNING,
    ) -> None:
        for cls in named:
            if not isinstance(cls, type) or not issubclass(cls, Exception):
                raise TypeError(f"only subclasses of Exception are suppressed, not {cls!r}")
        if not named:
            raise TypeError("name the exceptions to suppress")
        self._named = named
        self._log = log
        self._level = level

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, self._named):
            self._report(error)
            return True
        if not isinstance(error, BaseExceptionGroup):
            return False
        taken, rest = error.split(self._named)
        if taken is None:
            return False
        self._report(taken)
        if rest is None:
            return True
        context = rest.__context__
        try:
            raise rest
        finally:
            rest.__context__ = context  # else it is the whole group, with what was taken out

    def _report(self, error: BaseException) -> None:
        log = self._log
        if log is None:
            import logging  # most of this module's import time, for what may never happen

            log = logging.getLogger(__name__)
        if log.isEnabledFor(self._level):
            log.log(self._level, "suppressed %s", format_exception(error), stacklevel=3)


def _pieces(error: BaseException, chain: bool, seen: set[int]) -> Iterator[str]:
    link = ""
    while True:
        seen.add(id(error))
        yield link + _alone(error)
        if isinstance(error, BaseExceptionGroup):
            yield from _members(error, chain, seen)
        if not chain:
            return
        if error.__cause__ is not None:
            earlier, link = error.__cause__, "; from "
        elif error.__context__ is not None and not error.__suppress_context__:
            earlier, link = error.__context__, "; while handling "
        else:
            return
        if id(earlier) in seen:
            return
        if len(seen) >= _SHOWN:
            yield "; ..."
            return
        error = earlier


def _members(
    group: BaseExceptionGroup[BaseException], chain: bool, seen: set[int]
) -> Iterator[str]:
    yield " ["
    for number, member in enumerate(group.exceptions):
        if number:
            yield " | "
        if len(seen) >= _SHOWN:
            yield "..."
            break
        if id(member) not in seen:
            yield from _pieces(member, chain, seen)
        else:
            yield type(member).__name__
    yield "]"


def _alone(error: BaseException) -> str:
    name = type(error).__name__
    text = _one_line(error)
    shown = f"{name}: {text}" if text else name
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list | tuple) and notes:
        shown += f" ({'; '.join(_one_line(each) for each in notes[:_SHOWN])})"
    return shown


def _one_line(value: object) -> str:
    try:
        text = str.__str__(str(value))
    except Exception as e:
        text = f"(its text fails with {type(e).__name__})"
    # Masked first: a control character inside of a secret would end it.
    text = redact_text(text[:_READ])
    return _encodable(_UNSEEN.sub(" ", text).strip())


def _encodable(text: str) -> str:
    # A lone surrogate would make the log handler fail, far away from here.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _origin(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        only: BaseException = error.exceptions[0]
        return only
    return None if error.__suppress_context__ else error.__context__


def _add_locals(printed: TracebackException, error: BaseException) -> None:
    """Give the frames of *printed*, which was made of *error*, their variables.

    Not `capture_locals=True`: that makes the whole repr of each, and swallows a `gevent.Timeout`
    which strikes meanwhile.
    """
    from traceback import walk_tb

    shown = _Shown()
    pairs: list[tuple[TracebackException | None, BaseException | None]] = [(printed, error)]
    while pairs:
        printed_one, one = pairs.pop()
        if printed_one is None or one is None:
            continue
        # Both begin at the oldest frame; the printed ones may be fewer (`sys.tracebacklimit`).
        for summary, (frame, _) in zip(printed_one.stack, walk_tb(one.__traceback__), strict=False):
            summary.locals = {
                name: MASK if SECRET_NAME.search(name) else shown.repr(value)
                for name, value in frame.f_locals.items()
                if not name.startswith("__")
            }
        pairs += [(printed_one.__cause__, one.__cause__)]
        pairs += [(printed_one.__context__, one.__context__)]
        if isinstance(one, BaseExceptionGroup):
            pairs += zip(printed_one.exceptions or (), one.exceptions, strict=False)


class _Shown(Repr):
    """A bounded repr without secrets, of a value that may fail to have one."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _LOCAL

    def repr(self, x: object) -> str:
        return truncate(_UNSEEN.sub(" ", super().repr(x)), _LOCAL)

    def repr1(self, x: object, level: int) -> str:
        try:
            if isinstance(x, dict):  # of any subclass, which a Repr would not look into
                return self.repr_dict(x, level)
            return super().repr1(x, level)
        except Exception as e:
            return f"<{type(x).__name__} whose repr fails with {type(e).__name__}>"

    def repr_dict(self, x: dict[object, object], level: int) -> str:
        masked = {
            key: Secret("") if SECRET_NAME.search(to_text(key)) else value
            for key, value in x.items()
        }
        return super().repr_dict(masked, level)

    # Masked before it is cut: half a URL may no longer look like one.

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(redact_text(x[:_READ]), level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return self.repr_instance(x[:_READ], level)

    def repr_instance(self, x: object, level: int) -> str:
        return truncate(redact_text(repr(x)[:_READ]), _LOCAL)
