"""What signals ask of a server: greenlets do it, the handlers only take note.

Those run in the middle of anything, in the hub too.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from gevent.event import Event

from sepelib.flask.server._reopen import reopen_logs

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
        return _handlers(
            {
                signal.SIGTERM: self._on_stop,
                signal.SIGINT: self._on_stop,
                signal.SIGUSR1: self._on_reopen,
            }
        )

    def wait(self, *, until: Callable[[], bool]) -> None:
        """Until one says that it is the end, or *until()* does, asked at all `news`."""
        while self._signum is None and not until():
            # With a limit: when all greenlets wait for one another, nothing but a timer keeps the
            # hub from giving up with LoopExit, deaf to the signal to come.
            self.news.wait(60.0)
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


@contextmanager
def _handlers(
    handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]],
) -> Iterator[None]:
    former: dict[signal.Signals, Any] = {}
    try:
        for signum, handler in handlers.items():
            former[signum] = signal.signal(signum, handler)
        yield
    finally:
        for signum, was in former.items():
            # None: set by something that is not Python, and cannot be set again from here.
            signal.signal(signum, signal.SIG_DFL if was is None else was)
