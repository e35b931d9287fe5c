"""How long something takes: a block, the parts of a job, a function that is slow now and then.

Units: seconds on `time.monotonic()`, hence with the waits of a greenlet; not processor time.
"""

from __future__ import annotations

import _thread
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sepelib.util._lazy import refuse_lazy
from sepelib.util.deadline import checked_seconds
from sepelib.util.text import human_duration

if TYPE_CHECKING:
    import logging

__all__ = ["Stopwatch", "Timer", "slow"]

P = ParamSpec("P")
T = TypeVar("T")


class Timer:
    """Times a block: `with Timer() as timer: ...`, then `timer.elapsed`.

    Entered again it starts anew, so nested and parallel blocks have a Timer each; any thread or
    greenlet may read it meanwhile. clock: for tests; None looks up `time.monotonic` each time.
    """

    __slots__ = ("_clock", "_started", "_stopped")

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._started: float | None = None
        self._stopped: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the block began, or that it took; 0 before it."""
        started, stopped = self._started, self._stopped
        if started is None:
            return 0.0
        return (self._now() if stopped is None else stopped) - started

    def __enter__(self) -> Timer:
        self._stopped = None
        self._started = self._now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped = self._now()

    def _now(self) -> float:
        return (self._clock or time.monotonic)()

    def __repr__(self) -> str:
        return f"<Timer {human_duration(self.elapsed)}>"


class Stopwatch:
    """Adds up what the parts of a job take; it runs from its making on.

        watch = Stopwatch()
        for user in users:
            with watch.lap("db"):
                load(user)
        log.info("%s", watch)           # 1.53s: db 1.2s in 3

    Each lap counts all of its own time, however it ends. Nested and parallel ones count for each of
    them, so the sum may be more than the whole.
    Sharing: any number of threads and greenlets.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._started = self._now()
        self._laps: dict[str, tuple[float, int]] = {}
        self._lock = _thread.RLock()  # native under gevent too; nothing under it yields

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Add the time of the block to the lap *name*, of which there should be few."""
        started = self._now()
        try:
            yield
        finally:
            taken = self._now() - started
            with self._lock:
                seconds, count = self._laps.get(name, (0.0, 0))
                self._laps[name] = seconds + taken, count + 1

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._now() - self._started

    @property
    def laps(self) -> dict[str, float]:
        """Seconds by lap, in the order in which they ended first; a copy, without open ones."""
        with self._lock:
            return {name: seconds for name, (seconds, _) in self._laps.items()}

    def report(self) -> str:
        """One line: `1.53s: db 1.2s in 3, render 200ms`. Also what `str()` gives."""
        with self._lock:
            laps = list(self._laps.items())
        total = human_duration(self.elapsed)
        parts = [
            f"{name} {human_duration(seconds)}" + (f" in {count}" if count > 1 else "")
            for name, (seconds, count) in laps
        ]
        return f"{total}: {', '.join(parts)}" if parts else total

    __str__ = report

    def _now(self) -> float:
        return (self._clock or time.monotonic)()


def slow(
    threshold: float,
    logger: logging.Logger | None = None,
    *,
    clock: Callable[[], float] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function: each call of *threshold* seconds or more is one WARNING.

    It says how long the call took and how it ended: the type of what it returned, since the value
    may be secret, or the error in one line. *logger* None is that of the function's module. Stands
    below `@staticmethod` and `@classmethod`. TypeError at decoration for a generator or coroutine
    function: its body runs after the call.
    """
    threshold = checked_seconds(threshold, "the threshold of slow()")

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        refuse_lazy(fn, "slow", "time")

        @functools.wraps(fn)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            started = (clock or time.monotonic)()
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                taken = (clock or time.monotonic)() - started
                if taken >= threshold:
                    _warn(logger, fn, taken, threshold, _raised(error))
                raise
            taken = (clock or time.monotonic)() - started
            if taken >= threshold:
                ending = f"returned {type(result).__name__}"
                _warn(logger, fn, taken, threshold, ending)
            return result

        return timed

    return decorate


def _warn(
    logger: logging.Logger | None, fn: object, taken: float, threshold: float, ending: str
) -> None:
    import logging  # for a slow call only, which does not notice

    logger = logger or logging.getLogger(getattr(fn, "__module__", None) or __name__)
    logger.warning(
        "%s took %s, which is slow (from %s on): %s",
        getattr(fn, "__qualname__", type(fn).__name__),
        human_duration(taken),
        human_duration(threshold),
        ending,
    )


def _raised(error: BaseException) -> str:
    from sepelib.util.exceptions import format_exception

    return f"raised {format_exception(error)}"
