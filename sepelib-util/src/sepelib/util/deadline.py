"""One moment by which a piece of work must be over, obeyed by every call below it.

    with deadline(2.0):                 # the whole request
        session.get(url)                # whoever blocks clips its own timeout to what is left

Units: seconds on `time.monotonic()`.
Sharing: a `Deadline` never changes, any thread or greenlet may ask it. The *current* one is a
context variable: a new thread, `gevent.spawn` and a Pool start without one, `asyncio` tasks and
`contextvars.copy_context()` carry it along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

from sepelib.util._layer import in_transport

__all__ = ["Deadline", "DeadlineExceeded", "clip", "deadline", "detached"]


class DeadlineExceeded(TimeoutError):
    """The time given from above is over; what was asked for may or may not have happened.

    Base of every other "deadline exceeded" of the house. Takes one sentence. As a TimeoutError it
    is an OSError too: `except OSError` catches it.
    """


class Deadline:
    """A moment of this process's monotonic clock. Made by `Deadline.after()`."""

    __slots__ = ("_at", "_clock")

    def __init__(self, at: float, *, clock: Callable[[], float] | None = None) -> None:
        self._at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float, *, clock: Callable[[], float] | None = None) -> Deadline:
        """The moment *seconds* from now. ValueError when they are negative, NaN or infinite."""
        seconds = checked_seconds(seconds, "a deadline")
        return cls((clock or time.monotonic)() + seconds, clock=clock)

    @staticmethod
    def current() -> Deadline | None:
        """The one in force here, None outside of any `with deadline(...)`."""
        return _current.get()

    def remaining(self) -> float:
        """Seconds left; negative once it is over."""
        return self._at - (self._clock or time.monotonic)()

    def check(self) -> None:
        """Raise DeadlineExceeded once nothing is left."""
        left = self.remaining()
        if left <= 0:
            raise _exceeded(left)

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f} s>"


_current: ContextVar[Deadline | None] = ContextVar("sepelib.util.deadline", default=None)


class deadline:
    """Let the block, and all that it calls, end within *limit*; give the deadline in force.

    *limit* is seconds from the block's beginning, or a Deadline made elsewhere (another thread's).
    An earlier one from outside stays in force; None changes nothing. Nothing is interrupted:
    blocking calls obey by `clip()`, loops by `check()`. For one block at a time.
    """

    # A class and not a generator: a server enters one for each request.
    __slots__ = ("_clock", "_limit", "_token")

    def __init__(
        self, limit: float | Deadline | None, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._token: Token[Deadline | None] | None = None

    def __enter__(self) -> Deadline | None:
        outer = _current.get()
        limit = self._limit
        if limit is None:
            return outer
        inner = limit if isinstance(limit, Deadline) else Deadline.after(limit, clock=self._clock)
        if outer is not None and outer.remaining() <= inner.remaining():
            inner = outer
        self._token = _current.set(inner)
        return inner

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            _current.reset(token)


@contextmanager
def detached() -> Iterator[None]:
    """Run the block outside of any deadline and of any transport's retry policy.

    For work which outlives its caller or serves several: a periodic task started inside a request,
    the one load of a shared cache.
    """
    no_deadline = _current.set(None)
    no_layer = in_transport.set(False)
    try:
        yield
    finally:
        in_transport.reset(no_layer)
        _current.reset(no_deadline)


def clip(timeout: float | None) -> float | None:
    """*timeout*, or what the current deadline leaves when that is less; None is no limit.

    Raises DeadlineExceeded when nothing is left, so a positive *timeout* stays positive.
    """
    if timeout is not None:
        timeout = checked_seconds(timeout, "a timeout")
    current = _current.get()
    if current is None:
        return timeout
    left = current.remaining()
    if left <= 0:
        raise _exceeded(left)
    return left if timeout is None else min(timeout, left)


def checked_seconds(seconds: float, what: str) -> float:
    """*seconds* as a float. Not public: shared with `retry`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what} is a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds < float("inf"):  # NaN fails both comparisons
        raise ValueError(f"{what} is finite and not negative, not {seconds!r}")
    return float(seconds)


def _exceeded(left: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"deadline exceeded {abs(left):.3f} s ago")
