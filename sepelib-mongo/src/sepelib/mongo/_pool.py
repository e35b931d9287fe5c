"""The pools of a client: limits that hold under a deadline, and connections that do not outlive
a fork.

pymongo's way to limit an operation as a whole (`pymongo.timeout`, "CSOT") puts the others aside:
under a deadline of a minute somebody would wait a minute for a host that does not answer, and for
a query with a `max_time_ms`. Here the earlier of both is obeyed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

import pymongo
from pymongo import _csot
from pymongo.synchronous.pool import Connection, Pool

from sepelib.util.instrument import Recorder

__all__ = ["Pools", "SelectionCondition"]


class SelectionCondition(threading.Condition):
    """Waits for a server, and not longer than the operation may: pymongo looks every 0.5 s."""

    def wait(self, timeout: float | None = None) -> bool:
        left = _csot.remaining()
        if left is not None:
            timeout = max(left, 0.0) if timeout is None else max(min(left, timeout), 0.0)
        return super().wait(timeout)


class _Connection(Connection):
    def apply_timeout(self, cmd: MutableMapping[str, Any] | None) -> float | None:
        asked = None if cmd is None else cmd.get("maxTimeMS")
        left = super().apply_timeout(cmd)
        if cmd is not None and asked is not None and left is not None:
            cmd["maxTimeMS"] = min(asked, cmd["maxTimeMS"])
        return left


class _LimitedPool(Pool):
    def __init__(self, pools: Pools, address: Any, options: Any, **kwargs: Any) -> None:
        super().__init__(address, options, **kwargs)
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        pools.add(self)

    def connect(self, *args: Any, **kwargs: Any) -> Connection:
        limit = self.opts.connect_timeout
        if self.is_sdam or not limit or not _csot.get_timeout():
            connection = super().connect(*args, **kwargs)
        else:
            with pymongo.timeout(limit):
                connection = super().connect(*args, **kwargs)
        # There is no other way to say which class it should be of.
        connection.__class__ = _Connection
        self._made.add(connection)
        return connection

    def abandon(self) -> None:
        """Close this process's ends of what another one goes on using."""
        for context in list(self.active_contexts):
            context.cancel()
        for connection in list(self._made):
            connection.close_conn(None)


class Pools:
    """All pools of one client: one for each server, and two for each monitor."""

    def __init__(self, recorder: Recorder) -> None:
        self._pools: list[weakref.ref[_LimitedPool]] = []
        self.make: Callable[..., Pool] = partial(_LimitedPool, self)
        gauge = recorder.gauge("mongo_pool", "Connections, and callers that wait.", ("state",))
        self._gauges = {state: gauge.labels(state) for state in _STATES}
        self._detach: list[Callable[[], None]] = []

    def add(self, pool: _LimitedPool) -> None:
        self._pools = [ref for ref in self._pools if ref() is not None] + [weakref.ref(pool)]

    def show(self) -> None:
        """Report what they have, until `hide()`."""
        # Weakly: the recorder would keep a forgotten client's connections for ever.
        seen = weakref.ref(self)
        for state, gauge in self._gauges.items():
            self._detach.append(gauge.bind(partial(_count, seen, state)))

    def hide(self) -> None:
        while self._detach:
            self._detach.pop()()

    def count(self, state: str) -> int:
        return sum(_STATES[state](pool) for pool in self._alive() if not pool.is_sdam)

    def abandon(self) -> None:
        """In a forked child: these connections are its parent's."""
        pools, self._pools = self._alive(), []
        for pool in pools:
            pool.abandon()

    def _alive(self) -> list[_LimitedPool]:
        return [pool for ref in self._pools if (pool := ref()) is not None]


_STATES: dict[str, Callable[[_LimitedPool], int]] = {
    "in_use": lambda pool: pool.active_sockets,
    "idle": lambda pool: len(pool.conns),
    "waiting": lambda pool: max(pool.operation_count - pool.requests, 0),
}


def _count(seen: weakref.ref[Pools], state: str) -> float:
    pools = seen()
    return 0.0 if pools is None else float(pools.count(state))
