"""Who blocks the hub: one long computation or blocking call stops every greenlet of the process."""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from types import FrameType
from typing import Any

import gevent
from gevent.monkey import get_original
from sepelib.gevent.greenthread import GreenThread
from sepelib.util.instrument import AMBIENT, Recorder

__all__ = ["blocking_monitor"]

log = logging.getLogger(__name__)


def blocking_monitor(recorder: Recorder = AMBIENT, threshold: float = 0.1) -> GreenThread:
    """A daemon thread, to be started, that reports each time the hub stood for *threshold* seconds.

    Each is a WARNING with the name of the GreenThread that held the hub and the stack it had then,
    once the hub runs again, and a value of `hub_blocked_seconds`. A beat in the hub, four times in
    *threshold*, is what is missed: the time reported is short by up to that much, and work of many
    greenlets without a pause counts too. The stack is taken by a native thread. A hub that never
    comes back is not reported: SIGUSR2 of `run_service` shows where it is.
    """
    if not (0 < threshold < math.inf):
        raise ValueError(f"a threshold is positive and finite, not {threshold!r}")
    thread = _Monitor(name="hub monitor", daemon=True, recorder=recorder)
    thread.threshold = threshold
    return thread


class _Monitor(GreenThread):
    threshold: float

    def run(self) -> None:
        blocked = self._recorder.histogram("hub_blocked_seconds", "Times when the hub stood.")
        pause = self.threshold / 4
        watcher = _Watcher(gevent.get_hub().thread_ident, self.threshold, pause)
        try:
            while True:
                watcher.beat()
                if self.wait(pause):
                    return
                seconds = watcher.since_beat() - pause
                if seconds >= self.threshold:
                    blocked.observe(seconds)
                    log.warning("the hub was blocked for %.3g s by %s", seconds, watcher.seen())
        finally:
            watcher.close()


class _Watcher:
    """A native thread that takes the stack of the hub's thread when a beat stays out.

    It does not log: the locks of log handlers are gevent's in a patched process.
    """

    def __init__(self, watched: int, threshold: float, pause: float) -> None:
        self._watched = watched
        self._threshold = threshold
        self._pause = pause
        self._beat = time.monotonic()
        self._seen: tuple[float, str] | None = None  # at which beat, and what
        self._open: Any = get_original("_thread", "allocate_lock")()
        self._open.acquire()
        get_original("_thread", "start_new_thread")(self._run, ())

    def beat(self) -> None:
        self._beat = time.monotonic()

    def since_beat(self) -> float:
        return time.monotonic() - self._beat

    def seen(self) -> str:
        """What held the hub after the last beat."""
        if self._seen is None or self._seen[0] != self._beat:
            return "something that was over before it could be seen"
        return self._seen[1]

    def close(self) -> None:
        """Let the native thread end, within moments."""
        self._open.release()

    def _run(self) -> None:
        while not self._open.acquire(timeout=self._pause):
            beat = self._beat
            fresh = self._seen is None or self._seen[0] != beat
            if fresh and time.monotonic() - beat > self._threshold:
                frame = sys._current_frames().get(self._watched)
                if frame is not None:
                    self._seen = (beat, _describe(frame))


def _describe(frame: FrameType) -> str:
    stack = "".join(traceback.format_stack(frame)).rstrip("\n")
    return f"{_thread_of(frame)}, which was at\n{stack}"


def _thread_of(frame: FrameType) -> str:
    """The name of the GreenThread at whose bottom *frame* stands."""
    bottom: FrameType | None = frame
    while bottom is not None:
        if bottom.f_code is GreenThread._bootstrap.__code__:
            thread = bottom.f_locals.get("self")  # gone in its last moment
            return thread.name if isinstance(thread, GreenThread) else "a thread that ended"
        bottom = bottom.f_back
    return "a greenlet that is no GreenThread"
