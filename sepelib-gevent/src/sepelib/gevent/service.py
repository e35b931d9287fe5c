"""The life of a daemon: run until it is asked to stop or one of its parts dies.

main ends, all members end ─────────────────────► status 0
a member dies ──► stop all ─────────────────────► status 1, or that of its SystemExit
a signal ──► stop all ──► all ended in time ────► status 0
                      └─► some live on ─────────► status 1
a second signal: the process ends at once ──────► status 128 + signal, as a shell says it
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

import gevent
from gevent.event import Event
from sepelib.gevent.diagnostics import dump_stacks
from sepelib.gevent.errors import GreenThreadMisused
from sepelib.gevent.greenthread import GreenThread
from sepelib.gevent.group import GreenThreads
from sepelib.util.signals import Handler, handled

__all__ = ["run_service"]

log = logging.getLogger(__name__)

_TOP = sys.maxsize  # the tier of main, and of whom we do not know


def run_service(
    main: Callable[[GreenThreads], object],
    *,
    signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    hup: Callable[[], object] | None = None,
    stacks: int | None = signal.SIGUSR2,
    stop_timeout: float = 30.0,
) -> int:
    """Run *main* as a GreenThread and all that it starts; return the exit status of the process.

        def main(threads: GreenThreads) -> None:
            threads.add(GreenThread(serve, "server"))
            threads.add(periodic(beat, 10.0, name="beat"), tier=1)

        sys.exit(run_service(main))

    *main* gets a group to which it adds the parts, each of which starts at once; it may return
    then, or do the work itself. The service ends when all threads but daemons have ended, those
    that were not added too; when a member dies; or at one of *signals*. Whoever is left is then
    stopped within *stop_timeout* seconds: main first, the tiers of the group from the highest on.
    *hup* is called in a green thread for SIGHUP, one call at a time; when it fails, that is logged
    and the service goes on. At the signal *stacks* `dump_stacks()` goes to stderr.
    For the main thread; the former signal handlers are back when it returns.
    """
    if not gevent.get_hub().main_hub:
        raise GreenThreadMisused("run_service", "is for the main thread, which gets the signals")
    return _Service(main, hup).run(signals, stacks, stop_timeout)


class _Service:
    def __init__(
        self, main: Callable[[GreenThreads], object], hup: Callable[[], object] | None
    ) -> None:
        self._threads = GreenThreads("service")
        self._main = GreenThread(main, "main", args=(self._threads,))
        self._hup = hup
        self._signum: int | None = None
        self._hup_asked = False
        self._hup_thread: GreenThread | None = None
        self._news = Event()

    def run(self, signals: Sequence[int], stacks: int | None, stop_timeout: float) -> int:
        handlers: dict[int, Handler] = dict.fromkeys(signals, self._on_stop)
        if self._hup is not None:
            handlers[signal.SIGHUP] = self._on_hup
        if stacks is not None:
            handlers[stacks] = _on_stacks
        with handled(handlers, watch=gevent.get_hub().loop.io):
            try:
                self._threads.add(self._main, tier=_TOP)
                self._threads.start()
                self._until_it_ends()
            finally:
                self._adopt()
                all_ended = self._threads.stop(stop_timeout)
        return self._status(all_ended)

    def _until_it_ends(self) -> None:
        over = gevent.spawn(self._until_all_end)
        over.rawlink(lambda _: self._news.set())
        try:
            while self._signum is None and not over.ready():
                self._news.wait()
                self._news.clear()
                self._call_hup()
        finally:
            over.kill()
        if self._signum is not None:
            log.info("%s: stopping", signal.Signals(self._signum).name)

    def _until_all_end(self) -> None:
        while self._threads.wait() is None and self._adopt():
            pass

    def _adopt(self) -> bool:
        """Let threads that were started but not added belong too; whether there are any."""
        members = set(self._threads)
        strangers = [
            thread
            for thread in GreenThread.all_alive()
            if not thread.daemon and thread not in members and thread is not GreenThread.current()
        ]
        for thread in strangers:
            self._threads.add(thread, tier=_TOP)
        return bool(strangers)

    def _status(self, all_ended: bool) -> int:
        failed = self._threads.failed
        if failed is not None and isinstance(failed.exception, SystemExit):
            code = failed.exception.code
            return code if isinstance(code, int) else int(code is not None)
        return int(failed is not None or not all_ended)

    # Handlers run in the middle of anything, in the hub too: they set flags and an Event.

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None:
            name = signal.Signals(signum).name
            _say(f"{name}: the second signal, ending at once\n")
            os._exit(128 + signum)
        self._signum = signum
        self._news.set()

    def _on_hup(self, signum: int, frame: FrameType | None) -> None:
        self._hup_asked = True
        self._news.set()

    def _call_hup(self) -> None:
        """Start one call unless one runs, whose end is news."""
        busy = self._hup_thread is not None and self._hup_thread.is_alive()
        if self._hup_asked and not busy:
            self._hup_asked = False
            self._hup_thread = GreenThread(self._hup, "hup", daemon=True)
            self._hup_thread._when_ended(lambda _: self._news.set())
            self._hup_thread.start()


def _on_stacks(signum: int, frame: FrameType | None) -> None:
    _say(dump_stacks())


def _say(text: str) -> None:
    # An error here would strike whatever the handler has interrupted.
    with suppress(OSError):
        os.write(2, text.encode(errors="replace"))
