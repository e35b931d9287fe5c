"""Is the service well? Checks run in parallel, once for all who ask, each within its time.

idle ──asked──► running ──ended in time──► idle, with a verdict
                   │
               its time is over: the verdict is "timed out"; it is interrupted
                   └──► if it goes on all the same it is running still, and is not
                        started again until it has ended
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gevent
from gevent.event import Event

from sepelib.util.deadline import checked_seconds, deadline
from sepelib.util.exceptions import format_exception

__all__ = ["Check", "Checks", "Verdict"]

log = logging.getLogger(__name__)

_SLACK = 0.1  # seconds for an interrupted check to end in


class Verdict(NamedTuple):
    """What a check found: *problem* is None when all is well, else one line."""

    problem: str | None
    seconds: float
    at: float  # time.monotonic() of its end


class Check:
    """One check. *fn* returns when all is well; it raises, or returns False, when not."""

    def __init__(
        self, name: str, fn: Callable[[], object], timeout: float, cache: float, critical: bool
    ) -> None:
        self.name = name
        self.critical = critical
        self._fn = fn
        self._timeout = checked_seconds(timeout, "the timeout of a check")
        self._cache = checked_seconds(cache, "the cache of a check")
        self._running: gevent.Greenlet[..., None] | None = None
        self._started = 0.0
        self._verdict: Verdict | None = None
        self._news = Event()
        if not self._timeout:
            raise ValueError("the timeout of a check is more than 0 seconds")

    def start(self) -> None:
        """Unless it runs, or its verdict is fresh."""
        if self._running is not None or self._is_fresh():
            return
        self._started = time.monotonic()
        self._news.clear()
        self._running = gevent.spawn(self._run)

    def verdict(self) -> Verdict:
        """Of the run under way, if it ends within its timeout, else the latest. After `start()`."""
        if self._running is not None:
            left = self._started + self._timeout + _SLACK - time.monotonic()
            if left > 0:
                self._news.wait(left)
        if self._verdict is not None and self._running is None:
            return self._verdict
        now = time.monotonic()
        return Verdict(f"no answer for {now - self._started:.3g} s", now - self._started, now)

    def _is_fresh(self) -> bool:
        return self._verdict is not None and time.monotonic() - self._verdict.at <= self._cache

    def _run(self) -> None:
        problem: str | None = "killed"
        try:
            problem = self._ask()
        finally:
            now = time.monotonic()
            self._tell(problem)
            self._verdict = Verdict(problem, now - self._started, now)
            self._running = None
            self._news.set()

    def _ask(self) -> str | None:
        limit = gevent.Timeout.start_new(self._timeout)
        try:
            # The deadline first: what obeys it can say itself what it has been waiting for.
            with deadline(self._timeout * 0.95):
                return "returned False" if self._fn() is False else None
        except Exception as error:
            return format_exception(error)
        except gevent.Timeout as timeout:
            if timeout is not limit:
                return f"timed out: {timeout}"
            return f"timed out after {self._timeout:.3g} s"
        finally:
            limit.close()

    def _tell(self, problem: str | None) -> None:
        """Log what has changed since the last time."""
        before = self._verdict.problem if self._verdict is not None else None
        if problem is not None and before is None:
            log.warning("check %s: %s", self.name, problem)
        elif problem is None and before is not None:
            log.info("check %s: well again", self.name)


class Checks:
    """All checks of a server."""

    def __init__(self) -> None:
        self._all: dict[str, Check] = {}

    def add(self, check: Check) -> None:
        if check.name in self._all:
            raise ValueError(f"there is a check {check.name!r} already")
        self._all[check.name] = check

    def failing(self) -> list[str]:
        """The names of critical checks that fail."""
        critical = [check for check in self._all.values() if check.critical]
        return [name for name, verdict in _run(critical).items() if verdict.problem is not None]

    def report(self, *, details: bool) -> dict[str, dict[str, Any]]:
        """All of them, for JSON. With *details* also what is wrong: that may name other hosts."""
        checks = list(self._all.values())
        verdicts = _run(checks)
        now = time.monotonic()
        return {
            check.name: {
                "ok": verdicts[check.name].problem is None,
                "critical": check.critical,
                "seconds": round(verdicts[check.name].seconds, 6),
                "age": round(max(0.0, now - verdicts[check.name].at), 3),
            }
            | ({"problem": verdicts[check.name].problem} if details else {})
            for check in checks
        }


def _run(checks: Sequence[Check]) -> Mapping[str, Verdict]:
    for check in checks:
        check.start()
    return {check.name: check.verdict() for check in checks}
