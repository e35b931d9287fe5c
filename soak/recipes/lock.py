"""Acquires, claims and releases one lock, over and over."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Protocol

import gevent
from kazoo.exceptions import KazooException
from kazoo.recipe.lock import LockTimeout

from soak.libraries import STORE, Library
from soak.recipes.base import Context, Driver, Struck, section

__all__ = ["KazooMutex", "Locker", "Mutex", "mutex"]

_FRESH = 0.3  # of all sections, on a new object
_WRITES = 0.2  # of all sections
_PERIOD = 0.01  # seconds between two claims


class Mutex(Protocol):
    def acquire(self, timeout: float) -> bool: ...

    def interrupt(self) -> None: ...

    def held(self) -> bool: ...

    def token(self) -> int:
        """0 when the node that it was granted for cannot be found."""

    def write(self) -> int | None:
        """Write to the store under the protection of the lock; its version, None if unknown."""

    def release(self) -> None: ...


def mutex(library: Library, path: str) -> Mutex:
    if library.name == "sepelib":
        return _SepelibMutex(library.client, path)
    return KazooMutex(library.client, library.client.Lock(path))


class Locker(Driver):
    def __init__(self, context: Context) -> None:
        super().__init__("lock", context)

    def run(self) -> None:
        lock = mutex(self.context.library, "/soak/lock")
        while not self.resting:
            if self.rng.random() < _FRESH:
                lock = mutex(self.context.library, "/soak/lock")
            self._try(lock, self.attempt())

    def _try(self, lock: Mutex, n: str) -> None:
        timeout = self.context.config.acquire
        # kazoo's cancel() would have to be looked at by the next acquire too.
        interrupt = lock.interrupt if self.context.library.interrupted else None
        self.write("acquire", n)
        try:
            acquired = self.strike(lambda: lock.acquire(timeout), interrupt)
        except Struck as e:
            self.write("struck", n, how=e.how, took=e.took, held=lock.held())
            return
        except Exception as e:
            self.raised(n, "acquire", e)
            return
        if not acquired:
            self.write("missed", n)
            return
        token = lock.token()
        self.write("granted", n, token=token)
        self._claim(lock, n, token)
        began = time.monotonic()
        try:
            lock.release()
        except Exception as e:
            self.raised(n, "release", e)
        took = time.monotonic() - began
        self.write("release", n, t=began, token=token, took=took)

    def _claim(self, lock: Mutex, n: str, token: int) -> None:
        writes = self.rng.random() < _WRITES
        for i in range(section(self.rng)):
            t = time.monotonic()
            held = lock.held()
            self.write("claim", n, t=t, token=token, held=held)
            if not held or self.resting:
                return
            if writes and i % 20 == 0 and (version := lock.write()) is not None:
                self.write("wrote", n, token=token, version=version)
            gevent.sleep(_PERIOD)


class _SepelibMutex:
    def __init__(self, client: Any, path: str) -> None:
        from sepelib.zookeeper import InterruptableLock

        self._lock = InterruptableLock(client, path)

    def acquire(self, timeout: float) -> bool:
        return self._lock.acquire(timeout=timeout)

    def interrupt(self) -> None:
        self._lock.interrupt()

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


class KazooMutex:
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

    def interrupt(self) -> None:
        raise NotImplementedError

    def held(self) -> bool:
        held: bool = self._lock.is_acquired
        return held

    def token(self) -> int:
        return self._token

    def write(self) -> int | None:
        return None

    def release(self) -> None:
        self._lock.release()
