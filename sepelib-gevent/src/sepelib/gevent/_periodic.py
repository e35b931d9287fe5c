"""A function called at a fixed rate."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Literal

from sepelib.gevent.greenthread import GreenThread
from sepelib.util.instrument import AMBIENT, Recorder

__all__ = ["periodic"]

log = logging.getLogger(__name__)


def periodic(
    fn: Callable[[], object],
    interval: float,
    *,
    name: str,
    jitter: float = 0.1,
    immediately: bool = True,
    on_error: Literal["log", "die"] = "log",
    daemon: bool = False,
    recorder: Recorder = AMBIENT,
    rng: Callable[[], float] | None = None,
) -> GreenThread:
    """A thread, to be started, that calls *fn* every *interval* seconds until it is stopped.

    The times are multiples of *interval* from the start on (the first at once unless
    *immediately* is False), each but that first put off by a random part of *jitter* intervals, so
    that a fleet does not knock at once; delays do not add up. A call that takes longer makes the
    times skip that it has missed: calls neither overlap nor come in a burst. `stop()` ends a pause
    at once and lets a call end; a long *fn* asks `GreenThread.current().stopping`.
    on_error: "log" logs an Exception at ERROR and goes on, "die" ends the thread with it; anything
    else, such as a gevent.Timeout, ends it always. rng: gives [0, 1), for tests.
    Metrics: `periodic_seconds` (name, result: ok, error, cancelled), `periodic_skipped` (name).
    """
    if not (0 < interval < math.inf):
        raise ValueError(f"{name}: an interval is positive and finite, not {interval!r}")
    if not 0 <= jitter <= 1:
        raise ValueError(f"{name}: jitter is a part of the interval, 0 to 1, not {jitter!r}")
    if on_error not in ("log", "die"):
        raise ValueError(f"{name}: on_error is 'log' or 'die', not {on_error!r}")
    import random  # loads hashlib; not for whoever only imports the package

    thread = _Periodic(fn, name, daemon=daemon, recorder=recorder)
    thread.interval = interval
    thread.jitter = jitter
    thread.tick = 0 if immediately else 1
    thread.on_error = on_error
    thread.rng = rng or random.random
    return thread


def next_tick(tick: int, elapsed: float, interval: float) -> int:
    """The one after *tick* that is not yet over *elapsed* seconds after the start."""
    return max(tick + 1, math.ceil(elapsed / interval))


class _Periodic(GreenThread):
    interval: float
    jitter: float
    tick: int
    on_error: str
    rng: Callable[[], float]

    def run(self) -> None:
        seconds = self._recorder.histogram(
            "periodic_seconds", "Calls of a periodic function.", ("name", "result")
        )
        skipped = self._recorder.counter(
            "periodic_skipped", "Calls left out because one before took too long.", ("name",)
        ).labels(self.name)
        started, tick = time.monotonic(), self.tick
        while not self.wait(started + self._due(tick) - time.monotonic()):
            began, result = time.monotonic(), "cancelled"
            try:
                result = self._call()
            finally:
                seconds.labels(self.name, result).observe(time.monotonic() - began)
            after = next_tick(tick, time.monotonic() - started, self.interval)
            skipped.inc(after - tick - 1)
            tick = after

    def _due(self, tick: int) -> float:
        late = self.rng() * self.jitter if tick else 0.0
        return (tick + late) * self.interval

    def _call(self) -> str:
        try:
            super().run()
        except Exception as error:
            if self.on_error == "die":
                raise
            from sepelib.util.exceptions import format_exception  # heavy

            log.error("%s failed: %s", self.name, format_exception(error), exc_info=True)
            return "error"
        return "ok"
