"""One acquire's patience: a deadline, an interrupt, and everything that may wake it.

Units: seconds on `time.monotonic()`. Sharing: `interrupt()` is for any thread, all else for the
greenlets of one hub.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import gevent
import gevent.event

from sepelib.util.deadline import DeadlineExceeded, clip
from sepelib.zookeeper.errors import Interrupted

__all__ = ["Busy", "TimeIsUp", "Turns", "Wait", "ending"]


class TimeIsUp(Exception):
    """The caller's own timeout is over."""


class Busy(Exception):
    """It would block, which the caller does not want."""


def ending(error: BaseException) -> str:
    """How a call has ended that raised *error*, in one word for its metrics."""
    match error:
        case Busy():
            return "busy"
        case TimeIsUp() | DeadlineExceeded():
            return "timeout"
        case Interrupted():
            return "interrupted"
        case Exception():
            return "error"
    return "killed"


class Wait:
    """Made when the acquire begins; *timeout* covers all that happens in it.

    The current deadline is obeyed too: DeadlineExceeded here when it is over, and later from
    `until()` when it is the earlier one. Without *blocking* the caller wants to wait for the
    server's word only, not for other contenders or for a connection.
    """

    def __init__(
        self,
        path: str,
        timeout: float | None = None,
        *,
        blocking: bool = True,
        what: str = "lock",
    ) -> None:
        limit = clip(timeout)
        self.path = path
        self.what = what
        """Of which recipe, for what is said."""
        self.started = time.monotonic()
        # Zero asks to try once, as it does elsewhere: the answers to that are waited for.
        self.blocking = blocking and timeout != 0
        self._by_deadline = limit != timeout
        if timeout == 0:
            limit = clip(None)
            self._by_deadline = limit is not None
        self._end = None if limit is None else self.started + limit
        self._woken = gevent.event.Event()
        self._loop = gevent.get_hub().loop
        self._interrupted = False
        self._rested = False  # since the last `breathe()`

    @classmethod
    def for_answer(cls, path: str, timeout: float | None, default: float) -> Wait:
        """Of a call whose *timeout* is, if None, the client's *default*, which may be infinite."""
        if timeout is None and default < math.inf:
            timeout = default
        return cls(path, timeout)

    def wake(self, *_: object) -> None:
        """Let `until()` look again. Fits as a callback of results, watches and sessions."""
        self._woken.set()

    def interrupt(self) -> None:
        """Let `until()` raise Interrupted, now or when it is called next. For any thread."""
        self._interrupted = True
        self._loop.run_callback_threadsafe(self._woken.set)

    def waited(self) -> float:
        return time.monotonic() - self.started

    def until(self, done: Callable[[], object], timeout: float | None = None) -> bool:
        """Return once *done()*, True; False when *timeout* seconds are over before.

        Raises Interrupted even when it is done, TimeIsUp or DeadlineExceeded when it is not.
        """
        pause_end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._woken.clear()
            self.check()
            if done():
                return True
            now = time.monotonic()
            if self._end is not None and now >= self._end:
                self._give_up()
            if pause_end is not None and now >= pause_end:
                return False
            ends = [end for end in (self._end, pause_end) if end is not None]
            self._rested = True
            self._woken.wait(min(ends) - now if ends else None)

    def breathe(self) -> None:
        """Between two rounds of a loop: others run, if none did in this one, and time counts."""
        if not self._rested:
            gevent.sleep(0)
        self._rested = False
        self.check()
        if self._end is not None and time.monotonic() >= self._end:
            self._give_up()

    def check(self) -> None:
        """Raise Interrupted when that has been asked for."""
        if self._interrupted:
            raise Interrupted(self.path, self.what)

    def _give_up(self) -> None:
        if self._by_deadline:
            raise DeadlineExceeded(
                f"{self.what} {self.path}: nothing came in the {self.waited():.3g} s "
                "that the deadline left"
            )
        raise TimeIsUp


class Turns:
    """Who of the greenlets that share one lock object is next: first come, first served."""

    def __init__(self) -> None:
        self._owner: Wait | None = None
        self._queue: deque[Wait] = deque()

    def take(self, wait: Wait) -> None:
        """Return when it is the turn of *wait*; for whatever it raises, it has no turn."""
        if self._owner is None:
            self._owner = wait
            return
        if not wait.blocking:
            raise Busy
        self._queue.append(wait)
        try:
            wait.until(lambda: self._owner is wait)
        except BaseException:
            if self._owner is wait:
                self.give(wait)
            else:
                self._queue.remove(wait)
            raise

    def give(self, wait: Wait) -> None:
        """The turn of *wait* is over: on to the next, at once."""
        assert self._owner is wait
        self._owner = self._queue.popleft() if self._queue else None
        if self._owner is not None:
            self._owner.wake()
