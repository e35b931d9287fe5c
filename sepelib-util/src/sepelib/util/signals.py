"""Signal handlers for the time of a block, heard at once by an event loop that sleeps.

    with signals.handled({signal.SIGTERM: on_stop}, watch=gevent.get_hub().loop.io):
        stopped.wait()                  # on_stop only sets the Event

Python runs a handler between two steps of its own code. A signal that arrives after a loop took its
last such step, and before the kernel put it to sleep, is noted but waits there with the loop, until
something else happens. So the kernel's note goes to a pipe as well (`signal.set_wakeup_fd`, as
asyncio does it), which the loop watches.
"""

from __future__ import annotations

import os
import posix
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

__all__ = ["Handler", "handled"]

Handler = Callable[[int, FrameType | None], object]
_READ = 1  # libev's and libuv's word


class _Watcher(Protocol):
    """What `hub.loop.io` makes."""

    def start(self, callback: Callable[[], object], /) -> object: ...
    def stop(self) -> object: ...
    def close(self) -> object: ...


@contextmanager
def handled(
    handlers: Mapping[int, Handler], *, watch: Callable[[int, int], Any] | None = None
) -> Iterator[None]:
    """In the block *handlers* are those of the signals; afterwards the ones of before are back.

    *watch* is `gevent.get_hub().loop.io`, for a main thread that waits in the hub. While it
    watches, the loop has something to wait for: the hub does not raise LoopExit when all greenlets
    wait for one another, deaf to the signal to come. A handler runs in the middle of anything, in
    the hub too: it may set an Event, and must not wait. For the main thread only (ValueError).
    """
    with ExitStack() as undo:
        if watch is not None:
            _wake(watch, undo)
        for signum, handler in handlers.items():
            was = signal.signal(signum, handler)
            # None: set by something that is not Python, and cannot be set again from here.
            undo.callback(signal.signal, signum, signal.SIG_DFL if was is None else was)
        yield


def _wake(watch: Callable[[int, int], Any], undo: ExitStack) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for fd in (reader, writer):
        undo.callback(posix.close, fd)  # gevent's os.close would put it off
    watcher: _Watcher = watch(reader, _READ)
    undo.callback(watcher.close)
    watcher.start(lambda: _drain(reader))
    undo.callback(watcher.stop)
    # A full pipe wakes as well, so it is nothing to warn of.
    was = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    undo.callback(signal.set_wakeup_fd, was)


def _drain(reader: int) -> None:
    with suppress(BlockingIOError):
        posix.read(reader, 4096)
