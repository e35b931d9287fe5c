"""A bound on how many at once, which no cancelled waiter can break.

    slots = Slots(10)
    if not slots.acquire(deadline.clip(5.0)):
        raise ...
    try:
        ...
    finally:
        slots.release()

A `threading.Semaphore` has a lock inside: a finalizer that releases in the middle of an `acquire()`
of its own thread waits for itself, and a greenlet that `gevent.Timeout` strikes as it is woken
keeps what nobody gives back. Not closeable and not aware of forks.
"""

from __future__ import annotations

import threading
import time
from collections import deque

__all__ = ["Slots"]

# A wake-up between two hubs of one patched process may be late: a waiter looks by itself as well.
_LOOK_AGAIN = 1.0


class Slots:
    """*size* slots, given to those who wait in the order in which they came.

    Sharing: threads and greenlets, of one hub or of several. Whoever finds a slot with
    `try_acquire()` does not wait for those in the line. ValueError for a *size* below 1.
    No lock is held anywhere: each step is one operation of a deque, and whoever adds to `_free` or
    to `_waiting` looks at both afterwards. So `release()` may be called by a finalizer that the
    garbage collector runs in the middle of an `acquire()`, and by any thread, greenlet or signal
    handler. A waiter that is cancelled at the moment it is granted a slot passes it on.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"there is at least 1 slot, not {size!r}")
        self.size = size
        self._free = deque([None] * size)
        self._waiting: deque[_Waiter] = deque()

    @property
    def free(self) -> int:
        """How many may be taken now."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """How many wait, and some that have given up since."""
        return len(self._waiting)

    def try_acquire(self) -> bool:
        """Take a slot if one is free now."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def acquire(self, timeout: float | None) -> bool:
        """Take a slot, or say that there was none for *timeout* seconds (None: wait on).

        A BaseException that strikes while it waits leaves no slot taken.
        """
        waiter = _Waiter()
        self._waiting.append(waiter)
        try:
            self._match()
            granted = waiter.wait(timeout)
        except BaseException:
            if not waiter.give_up():
                self.release()
            raise
        return granted or not waiter.give_up()

    def release(self) -> None:
        """Give one back, by whoever it was taken. Once for each: more would make slots."""
        self._free.append(None)
        self._match()

    def _match(self) -> None:
        while self._free and self._waiting:
            try:
                self._free.pop()
            except IndexError:
                return  # another thread has it, and looks again after it
            try:
                waiter = self._waiting.popleft()
            except IndexError:
                self._free.append(None)
                continue
            if not waiter.grant():
                self._free.append(None)


class _Waiter:
    """Is granted or gives up: whoever takes the one item of `_open` has decided it."""

    __slots__ = ("_gate", "_open")

    def __init__(self) -> None:
        self._open = [None]
        self._gate = threading.Lock()  # of this waiter alone, so it may be left in any state
        self._gate.acquire()

    def grant(self) -> bool:
        if not self._decide():
            return False
        self._gate.release()
        return True

    def give_up(self) -> bool:
        """False: too late, a slot was granted."""
        return self._decide()

    def wait(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        while self._open:
            left = _LOOK_AGAIN if end is None else min(_LOOK_AGAIN, end - time.monotonic())
            if left <= 0:
                return False
            self._gate.acquire(timeout=left)
        return True

    def _decide(self) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        return True
