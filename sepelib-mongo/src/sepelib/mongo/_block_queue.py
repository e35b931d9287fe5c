"""Who asks for the next block of ids, and who waits for it."""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable

from pymongo import _csot
from pymongo.errors import PyMongoError

from sepelib.util.deadline import DeadlineExceeded, clip

__all__ = ["Asker", "Queue", "is_timeout"]


class Queue:
    """Those who want a block: the first one asks for it, the others wait.

    Whoever is woken has the turn, and hands it on when it has got its id; or it finds none left,
    and asks. So a block wakes nobody in vain, however many wait.
    """

    def __init__(self) -> None:
        # Native under gevent too; nothing under it yields.
        self._lock = _thread.RLock()
        self._waiting: deque[Asker] = deque()
        self.first: Asker | None = None

    def join(self, asker: Asker, is_over: Callable[[], object]) -> bool:
        """False if there is nothing to want any more."""
        with self._lock:
            if is_over():
                return False
            if self.first is None:
                self.first = asker
            else:
                self._waiting.append(asker)
            return True

    def leave(self, asker: Asker) -> None:
        """After whatever has happened to it."""
        with self._lock:
            if self.first is asker:
                self.first = None
            elif asker in self._waiting:
                self._waiting.remove(asker)
                return
            elif asker.is_served:
                return
        self.pass_on()

    def pass_on(self) -> None:
        with self._lock:
            if self.first is None and self._waiting:
                self._waiting.popleft().woken.set()

    def fail(self, error: Exception) -> None:
        with self._lock:
            while self._waiting:
                asker = self._waiting.popleft()
                asker.error = error
                asker.woken.set()


class Asker:
    def __init__(self) -> None:
        self.woken = threading.Event()
        self.error: Exception | None = None
        self.is_served = False  # and goes on to take an id, and then hands on

    def wait(self, name: str, due: float) -> None:
        left = due - time.monotonic()
        within = _csot.remaining()  # a pymongo.timeout() around us
        if within is not None:
            left = min(left, within)
        if not self.woken.wait(clip(max(left, 0.0))):
            raise DeadlineExceeded(f"sequence {name}: no ids in time")
        if self.error is not None:
            raise self.error


def is_timeout(error: Exception) -> bool:
    # The limit of one that had no time is not that of those who wait: the next one tries.
    return isinstance(error, DeadlineExceeded) or (
        isinstance(error, PyMongoError) and error.timeout
    )
