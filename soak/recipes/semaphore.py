"""Acquires leases of one semaphore, claims and releases them; changes their limit now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from kazoo.exceptions import KazooException
from kazoo.recipe.lock import LockTimeout

from soak.checks.semaphore import LIMIT
from soak.recipes.base import Context, Driver, Struck

__all__ = ["Leaser"]

_PATH = "/soak/semaphore"
_FRESH = 0.3  # of all attempts, on a new object
_SEVERAL = 0.25  # of all attempts, two at once
_PERIOD = 0.02  # seconds between two claims
_RESIZE = (20.0, 60.0)  # seconds between two changes by a worker
_LIMITS = (2, 3, 4)


class Hold(Protocol):
    def held(self) -> int:
        """How many leases."""

    def token(self) -> int:
        """0 when the node that it was granted for cannot be found."""

    def release(self) -> None: ...


class Semaphore(Protocol):
    @staticmethod
    def prepare(client: Any) -> None:
        """Set the limit to `LIMIT` if nobody has set one."""

    several: bool
    """Whether it has more than one at once, and a limit that can be changed."""

    def acquire(self, count: int, timeout: float) -> Hold | None: ...

    def interrupt(self) -> None: ...

    def resize(self, limit: int) -> None: ...


class Leaser(Driver):
    def __init__(self, context: Context) -> None:
        super().__init__("semaphore", context)
        self._client = context.library.client
        self._new = _Sepelib if context.library.name == "sepelib" else _Kazoo

    def run(self) -> None:
        self._new.prepare(self._client)
        own: Semaphore = self._new(self._client)
        resizing = gevent.spawn(self._resize, own) if own.several else None
        while not self.resting:
            if self.rng.random() < _FRESH:
                own = self._new(self._client)
            self._try(own, self.attempt())
        if resizing is not None:
            resizing.join()

    def _resize(self, own: Semaphore) -> None:
        while not self.resting:
            self.pause(*_RESIZE)
            if self.resting:
                return
            n, limit = self.attempt(), self.rng.choice(_LIMITS)
            self.write("resize", n, limit=limit)
            try:
                own.resize(limit)
            except self.context.library.failed as e:
                self.write("unsure", n, error=repr(e))
            except Exception as e:
                self.raised(n, "resize", e)
            else:
                self.write("resized", n, limit=limit)

    def _try(self, own: Semaphore, n: str) -> None:
        timeout = self.context.config.acquire
        count = 2 if own.several and self.rng.random() < _SEVERAL else 1
        interrupt: Callable[[], object] | None = own.interrupt if own.several else None
        self.write("acquire", n, leases=count)
        try:
            hold = self.strike(lambda: own.acquire(count, timeout), interrupt)
        except Struck as e:
            self.write("struck", n, how=e.how, took=e.took)
            return
        except Exception as e:
            self.raised(n, "acquire", e)
            return
        if hold is None:
            self.write("missed", n)
            return
        token = hold.token()
        self.write("granted", n, token=token, leases=count)
        for _ in range(self.rng.randint(1, 60)):
            t = time.monotonic()
            held = hold.held()
            self.write("claim", n, t=t, token=token, held=held)
            if not held or self.resting:
                break
            gevent.sleep(_PERIOD)
        began = time.monotonic()
        try:
            hold.release()
        except Exception as e:
            self.raised(n, "release", e)
        self.write("release", n, t=began, token=token, took=time.monotonic() - began)


class _Sepelib:
    several = True

    def __init__(self, client: Any) -> None:
        from sepelib.zookeeper import Semaphore

        # It was said by `prepare`, and may be another one since.
        self._semaphore = Semaphore(client, _PATH, max_leases=None)

    @staticmethod
    def prepare(client: Any) -> None:
        from sepelib.zookeeper import ConfigurationError, Semaphore, ZookeeperTimeout

        while True:
            try:
                Semaphore(client, _PATH, max_leases=None).get_max_leases()
                return
            except ConfigurationError:
                with contextlib.suppress(ConfigurationError):
                    lease = Semaphore(client, _PATH, max_leases=LIMIT).acquire(timeout=1.0)
                    if lease is not None:
                        lease.release()
            except ZookeeperTimeout:
                pass

    def acquire(self, count: int, timeout: float) -> Hold | None:
        lease = self._semaphore.acquire(count, timeout=timeout)
        return None if lease is None else _SepelibHold(lease)

    def interrupt(self) -> None:
        self._semaphore.cancel()

    def resize(self, limit: int) -> None:
        self._semaphore.set_max_leases(limit)


class _SepelibHold:
    def __init__(self, lease: Any) -> None:
        self._lease = lease

    def held(self) -> int:
        return int(self._lease.count) if self._lease.held else 0

    def token(self) -> int:
        token: int = self._lease.token
        return token

    def release(self) -> None:
        self._lease.release()


class _Kazoo:
    several = False

    @staticmethod
    def prepare(client: Any) -> None:
        pass

    def __init__(self, client: Any) -> None:
        self._client = client
        self._semaphore = client.Semaphore(_PATH, max_leases=LIMIT)
        self._token = 0

    def acquire(self, count: int, timeout: float) -> Hold | None:
        try:
            if not self._semaphore.acquire(timeout=timeout):
                return None
        except LockTimeout:
            return None
        try:
            node = self._client.retry(self._client.get, self._semaphore.create_path)
            self._token = node[1].czxid
        except KazooException:
            self._token = 0
        return self

    def interrupt(self) -> None:
        raise NotImplementedError

    def resize(self, limit: int) -> None:
        raise NotImplementedError

    def held(self) -> int:
        return int(self._semaphore.is_acquired)

    def token(self) -> int:
        return self._token

    def release(self) -> None:
        self._semaphore.release()
