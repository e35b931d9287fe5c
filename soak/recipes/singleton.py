"""A singleton's target: blind, and sometimes stubborn, it runs on until it is killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
import gevent.event
from kazoo.exceptions import KazooException

from soak.libraries import Library
from soak.recipes.base import Context, Driver, section
from soak.recipes.lock import KazooMutex

__all__ = ["Leader"]

_PERIOD = 0.01  # seconds between two claims


class Hold(Protocol):
    """What the target is told about its leadership."""

    def token(self) -> int: ...

    def held(self) -> bool: ...


Target = Callable[[Hold], None]


class Leader(Driver):
    def __init__(self, context: Context) -> None:
        super().__init__("singleton", context)

    def run(self) -> None:
        lead = _sepelib if self.context.library.name == "sepelib" else _kazoo
        stop = lead(self.context.library, "/soak/singleton", self._target)
        self.context.resting.wait()
        stop()

    def _target(self, hold: Hold) -> None:
        n = self.attempt()
        token = hold.token()
        stubborn = (Exception,) if self.rng.random() < 0.2 else ()
        self.write("granted", n, token=token)
        try:
            for _ in range(section(self.rng)):
                t = time.monotonic()
                self.write("claim", n, t=t, token=token, held=hold.held())
                with contextlib.suppress(*stubborn):
                    gevent.sleep(_PERIOD)
        finally:
            self.write("release", n, token=token, took=0.0)


# Each runs the target again and again, and returns what stops that.


def _sepelib(library: Library, path: str, target: Target) -> Callable[[], object]:
    from sepelib.zookeeper import SingletonService

    service = SingletonService(
        library.client, path, lambda ctx: target(_SepelibHold(ctx)), requeue_delay=(0.05, 0.5)
    )
    service.start()
    return service.stop


class _SepelibHold:
    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def token(self) -> int:
        token: int = self._ctx.token
        return token

    def held(self) -> bool:
        from sepelib.zookeeper import LockLost

        try:
            self._ctx.check()
        except LockLost:
            return False
        return True


def _kazoo(library: Library, path: str, target: Target) -> Callable[[], object]:
    stopped = gevent.event.Event()
    election: Any = None

    def lead() -> None:
        mutex = KazooMutex(library.client, election.lock)
        mutex.find_token()
        target(mutex)

    def run() -> None:
        nonlocal election
        while not stopped.is_set():
            election = library.client.Election(path)
            with contextlib.suppress(KazooException):
                election.run(lead)
            gevent.sleep(0.05)

    def stop() -> None:
        stopped.set()
        if election is not None:
            election.cancel()
        running.join()

    running = gevent.spawn(run)
    return stop
