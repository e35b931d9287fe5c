"""The libraries on trial, in one shape for the worker. Imported in a worker only: needs gevent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import gevent
import gevent.event
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.recipe.lock import LockTimeout
from kazoo.retry import KazooRetry

__all__ = ["Hold", "Library", "Mutex", "library"]

STORE = "/soak-store"
START_TIMEOUT = 10.0


class Hold(Protocol):
    """What a singleton's target is told about its leadership."""

    def token(self) -> int: ...

    def held(self) -> bool: ...


class Mutex(Protocol):
    def acquire(self, timeout: float) -> bool: ...

    def interrupt(self) -> bool:
        """False when this library has no such thing."""

    def held(self) -> bool: ...

    def token(self) -> int:
        """0 when the node that it was granted for cannot be found."""

    def write(self) -> int | None:
        """Write to the store under the protection of the lock; its version, None if unknown."""

    def release(self) -> None: ...


class Library(Protocol):
    expected: tuple[type[Exception], ...]
    """What `interrupt()` makes of an acquire."""

    def start(self, on_session: Callable[[str, int, int, bytes], None]) -> None:
        """Connect, however long it takes; on_session(state, epoch, id, password)."""

    def mutex(self, path: str) -> Mutex: ...

    def singleton(self, path: str, target: Callable[[Hold], None]) -> Callable[[], None]:
        """Run *target* again and again; returns what stops that."""

    def pending(self) -> int:
        """Deletes that are still to be done."""


def library(name: str, hosts: str, timeout: float) -> Library:
    libraries: dict[str, Callable[[str, float], Library]] = {
        "sepelib": _Sepelib,
        "kazoo": _Kazoo,
    }
    return libraries[name](hosts, timeout)


# Ours.


class _Sepelib:
    def __init__(self, hosts: str, timeout: float) -> None:
        from sepelib.zookeeper import Client, Interrupted

        self.expected: tuple[type[Exception], ...] = (Interrupted,)
        self._client = Client(hosts, timeout=timeout)

    def start(self, on_session: Callable[[str, int, int, bytes], None]) -> None:
        from sepelib.zookeeper import ZookeeperTimeout

        def changed(state: Any, epoch: int) -> None:
            session_id, password = self._client.client_id or (0, b"")
            on_session(state.name, epoch, session_id, password)

        self._client.session.add_listener(changed)
        while True:
            with contextlib.suppress(ZookeeperTimeout):
                self._client.start(timeout=START_TIMEOUT)
                self._client.ensure_path(STORE)
                return

    def mutex(self, path: str) -> Mutex:
        return _SepelibMutex(self._client, path)

    def singleton(self, path: str, target: Callable[[Hold], None]) -> Callable[[], None]:
        from sepelib.zookeeper import SingletonService

        service = SingletonService(
            self._client, path, lambda ctx: target(_SepelibHold(ctx)), requeue_delay=(0.05, 0.5)
        )
        service.start()

        def stop() -> None:
            service.stop()

        return stop

    def pending(self) -> int:
        pending: int = self._client._janitor.pending()
        return pending


class _SepelibMutex:
    def __init__(self, client: Any, path: str) -> None:
        from sepelib.zookeeper import InterruptableLock

        self._lock = InterruptableLock(client, path)

    def acquire(self, timeout: float) -> bool:
        return self._lock.acquire(timeout=timeout)

    def interrupt(self) -> bool:
        self._lock.interrupt()
        return True

    def held(self) -> bool:
        return self._lock.is_acquired

    def token(self) -> int:
        return self._lock.fencing_token

    def write(self) -> int | None:
        from sepelib.zookeeper import ZookeeperError

        try:
            transaction = self._lock.transaction()
            transaction.set_data(STORE, str(self.token()).encode())
            version: int = transaction.commit()[-1].version
        except (ZookeeperError, KazooException):
            return None
        return version

    def release(self) -> None:
        self._lock.release()


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


# The control.


class _Kazoo:
    expected: tuple[type[Exception], ...] = ()

    def __init__(self, hosts: str, timeout: float) -> None:
        handler = SequentialGeventHandler()
        # By its own default it may stay away for an hour after an outage.
        retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=1.0, sleep_func=handler.sleep_func)
        self._client = KazooClient(hosts, timeout, handler=handler, connection_retry=retry)

    def start(self, on_session: Callable[[str, int, int, bytes], None]) -> None:
        def changed(state: str) -> None:
            session_id, password = self._client.client_id or (0, b"")
            on_session(state, 0, session_id, password)

        self._client.add_listener(changed)
        self._client.start_async().wait()
        self._client.retry(self._client.ensure_path, STORE)

    def mutex(self, path: str) -> Mutex:
        return _KazooMutex(self._client, self._client.Lock(path))

    def singleton(self, path: str, target: Callable[[Hold], None]) -> Callable[[], None]:
        stopped = gevent.event.Event()
        election: Any = None

        def lead() -> None:
            mutex = _KazooMutex(self._client, election.lock)
            mutex.find_token()
            target(mutex)

        def run() -> None:
            nonlocal election
            while not stopped.is_set():
                election = self._client.Election(path)
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

    def pending(self) -> int:
        return 0


class _KazooMutex:
    def __init__(self, client: Any, lock: Any) -> None:
        self._client = client
        self._lock = lock
        self._token = 0

    def acquire(self, timeout: float) -> bool:
        try:
            acquired: bool = self._lock.acquire(timeout=timeout)
        except LockTimeout:
            return False
        if acquired:
            self.find_token()
        return acquired

    def find_token(self) -> None:
        """It has none of its own; the node's czxid is what ours takes."""
        self._token = 0
        with contextlib.suppress(KazooException):
            path = f"{self._lock.path}/{self._lock.node}"
            self._token = self._client.retry(self._client.get, path)[1].czxid

    def interrupt(self) -> bool:
        return False

    def held(self) -> bool:
        held: bool = self._lock.is_acquired
        return held

    def token(self) -> int:
        return self._token

    def write(self) -> int | None:
        return None

    def release(self) -> None:
        self._lock.release()
