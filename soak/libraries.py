"""The clients on trial, in one shape for the worker; the recipes are in `soak.recipes`.

Imported in a worker only: needs gevent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.retry import KazooRetry

__all__ = ["STORE", "Library", "library"]

STORE = "/soak-store"
START_TIMEOUT = 10.0

Listener = Callable[[str, int, int, bytes], None]


class Library(Protocol):
    name: str
    client: Any
    interrupted: tuple[type[Exception], ...]
    """What an interrupt makes of a call."""
    failed: tuple[type[Exception], ...]
    """What a recipe's call may raise when nobody knows what became of it."""

    def start(self, on_session: Listener) -> None:
        """Connect, however long it takes; on_session(state, epoch, id, password)."""

    def pending(self) -> int:
        """Deletes that are still to be done."""


def library(name: str, hosts: str, timeout: float) -> Library:
    libraries: Mapping[str, Callable[[str, float], Library]] = {
        "sepelib": _Sepelib,
        "kazoo": _Kazoo,
    }
    return libraries[name](hosts, timeout)


class _Sepelib:
    name = "sepelib"

    def __init__(self, hosts: str, timeout: float) -> None:
        from sepelib.zookeeper import Client, Interrupted, SessionLost, ZookeeperTimeout

        self.interrupted: tuple[type[Exception], ...] = (Interrupted,)
        self.failed: tuple[type[Exception], ...] = (ZookeeperTimeout, SessionLost)
        self.client: Any = Client(hosts, timeout=timeout)

    def start(self, on_session: Listener) -> None:
        def changed(state: Any, epoch: int) -> None:
            session_id, password = self.client.client_id or (0, b"")
            on_session(state.name, epoch, session_id, password)

        self.client.session.add_listener(changed)
        while True:
            with contextlib.suppress(KazooException):  # ZookeeperTimeout is one
                self.client.start(timeout=START_TIMEOUT)
                self.client.ensure_path(STORE)
                return

    def pending(self) -> int:
        pending: int = self.client._janitor.pending()
        return pending


class _Kazoo:
    """The control."""

    name = "kazoo"
    interrupted: tuple[type[Exception], ...] = ()

    def __init__(self, hosts: str, timeout: float) -> None:
        self.failed: tuple[type[Exception], ...] = (KazooException,)
        handler = SequentialGeventHandler()
        # By its own default it may stay away for an hour after an outage.
        retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=1.0, sleep_func=handler.sleep_func)
        self.client: Any = KazooClient(hosts, timeout, handler=handler, connection_retry=retry)

    def start(self, on_session: Listener) -> None:
        def changed(state: str) -> None:
            session_id, password = self.client.client_id or (0, b"")
            on_session(state, 0, session_id, password)

        self.client.add_listener(changed)
        self.client.start_async().wait()
        self.client.retry(self.client.ensure_path, STORE)

    def pending(self) -> int:
        return 0
