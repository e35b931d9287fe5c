"""How many retries a backend is worth."""

from __future__ import annotations

import _thread
from collections import deque

from sepelib.util.deadline import checked_seconds

__all__ = ["RetryBudget"]


class RetryBudget:
    """At most *ratio* retries for each first try of the last *ttl* seconds, shared by policies.

    On top of that come *min_per_second* x *ttl* retries in any such window, so that a client which
    calls rarely may retry at all. A backend that fails for good then sees 1 + *ratio* times the
    load, not `attempts` times. One budget belongs to one backend.
    A retry is charged when it is decided, before its wait: those asleep count.
    Units: *now* is seconds on the monotonic clock of the policies that share the budget.
    Sharing: any number of policies, threads and greenlets.
    Source: Finagle's RetryBudget; for those asleep, envoyproxy/envoy#30205.
    """

    def __init__(self, ratio: float = 0.1, min_per_second: float = 1.0, ttl: float = 10.0) -> None:
        if not 0 <= ratio < float("inf"):
            raise ValueError(f"the ratio of a RetryBudget is not negative, not {ratio!r}")
        if not 0 <= min_per_second < float("inf"):
            raise ValueError(f"min_per_second of a RetryBudget is >= 0, not {min_per_second!r}")
        if not checked_seconds(ttl, "the ttl of a RetryBudget"):
            raise ValueError("the ttl of a RetryBudget is more than 0 seconds")
        self._ratio = ratio
        self._reserve = min_per_second * ttl
        self._ttl = ttl
        # Totals only grow. A mark, made each tenth of the ttl, holds (time, first tries before it,
        # retries before it): what happened since is a subtraction, counting one needs no lock.
        self._first_tries = 0
        self._retries = 0
        self._marks: deque[tuple[float, int, int]] = deque()
        self._next_mark = float("-inf")
        self._lock = _thread.RLock()  # native under gevent too; nothing under it yields

    def deposit(self, now: float) -> None:
        """Count a first try."""
        if now >= self._next_mark:
            self._mark(now)
        # One statement: CPython with the GIL switches threads at calls and jumps only. An
        # interpreter without it may lose a few first tries here, which is the safe side.
        self._first_tries += 1

    def try_withdraw(self, now: float) -> bool:
        """Charge one retry, or say that none is left."""
        with self._lock:
            if self.balance(now) < 1:
                return False
            self._retries += 1
            return True

    def balance(self, now: float) -> int:
        """Retries left."""
        with self._lock:
            if now >= self._next_mark:
                self._mark(now)
            _, first_tries, retries = self._marks[0]
            earned = self._ratio * (self._first_tries - first_tries) + self._reserve
            return int(earned) - (self._retries - retries)

    def _mark(self, now: float) -> None:
        with self._lock:
            while self._marks and self._marks[0][0] <= now - self._ttl:
                self._marks.popleft()
            self._marks.append((now, self._first_tries, self._retries))
            self._next_mark = now + self._ttl / 10
