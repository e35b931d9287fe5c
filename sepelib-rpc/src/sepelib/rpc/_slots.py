"""A bounded number of slots, and a line of those who wait for one.

Sharing: any thread or greenlet. Who finds a slot takes no lock: a list's `pop` and `append` are
atomic. Who does not queues under one that never yields, and is handed the slot itself, so that a
busy greenlet that asks again at once cannot take it away.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Slots"]


class _Waiter:
    __slots__ = ("has_slot", "woken")

    def __init__(self) -> None:
        # Made here, not at import: of the kind that gevent has put in place by now.
        self.woken = threading.Event()
        self.has_slot = False


class Slots:
    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[None] = [None] * size
        self._waiters: deque[_Waiter] = deque()
        self._lock = _thread.RLock()  # native under gevent too; nothing under it yields
        self._closed = False
        self.take: Callable[[], None] = self._free.pop
        """Take one without waiting; IndexError when there is none."""

    @property
    def taken(self) -> int:
        return self.size - len(self._free)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def free(self) -> None:
        """Give one back."""
        self._free.append(None)
        # In this order, as a waiter queues first and looks for a slot afterwards: one of the two
        # sees the other.
        if self._waiters:
            self._hand_over()

    def wait(self, end: float) -> bool:
        """Wait for one until *end*, first come first served; False when there was none or closed.

        A BaseException that strikes leaves no slot taken and nobody in the line.
        """
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            self._hand_over()
            while not waiter.has_slot and not self._closed:
                left = end - time.monotonic()
                if left <= 0:
                    break
                waiter.woken.wait(min(left, threading.TIMEOUT_MAX))
            with self._lock:
                has_slot, waiter.has_slot = waiter.has_slot, False  # the caller's now
            return has_slot
        finally:
            self._leave(waiter)

    def close(self) -> None:
        """Let all who wait, now and later, go without one. Those taken are given back as ever."""
        self._closed = True
        for waiter in list(self._waiters):
            waiter.woken.set()

    def start_anew(self) -> None:
        """In a forked child: those who had slots, the lock or a place in the line are not here."""
        self._lock = _thread.RLock()
        self._waiters.clear()
        self._free[:] = [None] * self.size

    def _hand_over(self) -> None:
        lucky = []
        with self._lock:
            while self._waiters:
                try:
                    self.take()
                except IndexError:
                    break
                waiter = self._waiters.popleft()
                waiter.has_slot = True
                lucky.append(waiter)
        for waiter in lucky:
            waiter.woken.set()

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            has_slot, waiter.has_slot = waiter.has_slot, False
        if has_slot:  # handed over while a GreenletExit was on its way
            self.free()
