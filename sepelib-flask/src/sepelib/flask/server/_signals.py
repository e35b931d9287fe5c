"""What signals ask of a server: greenlets do it, the handlers only take note.

Those run in the middle of anything, in the hub too.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import FrameType

import gevent
from gevent.event import Event

from sepelib.flask.server._reopen import reopen_logs
from sepelib.util.signals import handled

__all__ = ["Signals"]

log = logging.getLogger(__name__)


class Signals:
    """SIGTERM and SIGINT: the end, at once when there was one before. SIGUSR1: reopen the logs.

    `news` is to be set by whatever `wait()` should look at.
    """

    def __init__(self) -> None:
        self.news = Event()
        self._signum: int | None = None
        self._reopen = False

    def handled(self) -> AbstractContextManager[None]:
        """In the block the signals are ours; afterwards the handlers of before are back."""
        return handled(
            {
                signal.SIGTERM: self._on_stop,
                signal.SIGINT: self._on_stop,
                signal.SIGUSR1: self._on_reopen,
            },
            watch=gevent.get_hub().loop.io,
        )

    def wait(self, *, until: Callable[[], bool]) -> None:
        """Until one says that it is the end, or *until()* does, asked at all `news`."""
        while self._signum is None and not until():
            self.news.wait()
            self.news.clear()
            if self._reopen:
                self._reopen = False
                reopen_logs()
        if self._signum is not None:
            log.info("%s: stopping", signal.Signals(self._signum).name)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None:
            with suppress(OSError):
                name = signal.Signals(signum).name
                os.write(2, f"{name}: the second signal, ending at once\n".encode())
            os._exit(128 + signum)
        self._signum = signum
        self.news.set()

    def _on_reopen(self, signum: int, frame: FrameType | None) -> None:
        self._reopen = True
        self.news.set()
