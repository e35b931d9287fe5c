"""Probe every target on its schedule, each in a greenlet of its own, and keep the history.

A target has its own clock, timeout and greenlet: however slow it is, no other waits for it.
"""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import gevent

from lookout.counters import Counters
from lookout.probe import probe
from lookout.records import History, Result
from lookout.store import Keeper
from lookout.targets import Target
from sepelib.gevent import GreenThread
from sepelib.util.url import redact_text

__all__ = ["Watchdog"]

log = logging.getLogger(__name__)

JITTER = 0.1  # of the interval, to either side
FIRST_WITHIN = 1.0  # seconds; the first probes are spread over them


class Watchdog:
    """The probing threads of all targets.

    heard: called with each target that was probed, its result being in the history; does not wait.
    """

    def __init__(
        self,
        history: History,
        keeper: Keeper,
        counters: Counters,
        *,
        heard: Callable[[Target], object],
        prober: Callable[[Target], Result] = probe,
        rng: random.Random | None = None,
    ) -> None:
        self._history = history
        self._keeper = keeper
        self._counters = counters
        self._heard = heard
        self._prober = prober
        self._rng = rng or random.Random()
        self._threads: dict[Target, GreenThread] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        """Watch these from now on. Those that are watched already, all else equal, go on as is."""
        targets = list(targets)
        self._end(set(self._threads).difference(targets))
        names = [target.name for target in targets]
        self._counters.watch_only(names)
        self._history.watch_only(names, datetime.now(UTC))
        self._keeper.touch()
        for target in targets:
            if target not in self._threads:
                # A daemon: it is for `stop()` to end it, when its turn has come.
                thread = GreenThread(
                    self._watch, f"watch {target.name}", args=(target,), daemon=True
                )
                self._threads[target] = thread
                thread.start()

    def stop(self) -> None:
        """End all probes, those under way without a result. Returns within three seconds."""
        self._end(set(self._threads))

    def _end(self, targets: set[Target]) -> None:
        ended = [self._threads.pop(target) for target in targets]
        # A program that takes no notice of SIGTERM is killed after a second.
        gevent.joinall([gevent.spawn(thread.kill, timeout=3.0) for thread in ended])

    def _watch(self, target: Target) -> None:
        beat = time.monotonic() + self._rng.uniform(0, min(FIRST_WITHIN, target.interval))
        while True:
            # Around the beat, not from the last probe: jitter and slow answers do not add up.
            jitter = self._rng.uniform(-JITTER, JITTER) * target.interval
            gevent.sleep(max(0.0, beat + jitter - time.monotonic()))
            try:
                self._take(target, self._prober(target))
            except Exception:
                # A mistake of ours. The other targets are none the worse for it, and this one
                # may be better next time; the page and the log say that something is wrong.
                self._counters.faults.inc()
                trace = redact_text(traceback.format_exc())  # others' errors quote whole URLs
                log.error("%s: lookout itself failed to probe it\n%s", target.name, trace)
            missed = max(0, int((time.monotonic() - beat) / target.interval))
            beat += (1 + missed) * target.interval

    def _take(self, target: Target, result: Result) -> None:
        self._counters.probed(target.name, result)
        self._keeper.touch()
        self._history.add(target.name, result, target.rules)
        self._heard(target)
