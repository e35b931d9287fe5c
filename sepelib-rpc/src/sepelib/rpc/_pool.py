"""Connections kept for the next call: a bounded number, the last one used first.

    acquire ──► IN_USE ──release──► IDLE ──acquire──► IN_USE      anything else: CLOSED

What is handed out is new, or idle and found fresh at that moment. Whoever acquires either releases
after a call that went through or discards, on any BaseException.

Sharing: any thread or greenlet. The way of a call that finds a connection takes no lock: a list's
`pop` and `append` are atomic.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

from sepelib.core.exceptions import LogicalError
from sepelib.rpc._connection import Connect, Connection, ConnectionState
from sepelib.rpc._hosts import Host, Hosts, HostState
from sepelib.rpc._slots import Slots
from sepelib.rpc._thrift_errors import ConnectFailed, DeadlineExceeded, PoolExhausted
from sepelib.util.deadline import checked_seconds
from sepelib.util.instrument import Counter

__all__ = ["Pool", "is_over", "said"]

_IN_USE, _IDLE, _CLOSED = ConnectionState.IN_USE, ConnectionState.IDLE, ConnectionState.CLOSED
_MOVES = {_IN_USE: {_IDLE, _CLOSED}, _IDLE: {_IN_USE, _CLOSED}, _CLOSED: set[ConnectionState]()}


class Pool:
    """At most *size* connections, in use and idle, to all *hosts* together.

    *connect* makes them. *wait*: seconds that `acquire` waits for a slot. *connect_timeout*: for
    one host. *max_idle*, *max_age*: seconds after which a connection is not used again; those at
    the bottom are closed when others come back. No thread watches: what nobody calls through stays
    open until `close()`. None is no limit. *connects* counts by "ok", "failed" and "cancelled".
    """

    def __init__(
        self,
        hosts: Hosts,
        connect: Connect[Any],
        *,
        size: int,
        wait: float | None,
        connect_timeout: float | None,
        max_idle: float | None,
        max_age: float | None,
        connects: Mapping[str, Counter],
    ) -> None:
        self._hosts = hosts
        self._connect = connect
        self._wait = _limit(wait)
        self._connect_timeout = _limit(connect_timeout)
        self._max_idle = _limit(max_idle)
        self._max_age = _limit(max_age)
        self._connects = connects
        self._slots = Slots(size)
        self._closed = False
        _watch_forks(self)
        self.labels = ", ".join(host.label for host in hosts.all)

    def acquire(self, method: str, now: float, limit: float) -> Connection:
        """A connection that is the caller's until `release` or `discard`.

        *now* and *limit*, the caller's deadline, are moments of `time.monotonic()`; *method* is for
        the errors. PoolExhausted, ConnectFailed (of the last host tried), DeadlineExceeded:
        nothing was sent. LogicalError once closed.
        """
        try:
            self._slots.take()
        except IndexError:
            now = self._queue(method, now, limit)
        try:
            only = self._hosts.only
            if only is None:
                return self._from_any(method, now, limit)
            connection = self._idle_of(only, now)
            if connection is None:
                connection = self._connected(only, method, now, limit)
            return connection
        except BaseException:
            self._slots.free()
            raise

    def release(self, connection: Connection, now: float) -> None:
        """Take back a connection that stands where the next call can begin."""
        host = connection.host
        host.in_use.discard(connection)
        if now - connection.born < self._max_age:
            connection.idle_since = now  # before it is idle: `stats()` of another thread asks
            _move(connection, _IDLE)
            host.idle.append(connection)
            for oldest in host.idle[:1]:  # by now another thread may have taken all
                if now - oldest.idle_since > self._max_idle:
                    self._close_idle(host, 0)
        else:
            _close(connection)
        self._slots.free()
        if self._closed:
            self._close_all_idle()

    def discard(self, connection: Connection) -> None:
        """Close a connection of which nothing is known any more."""
        connection.host.in_use.discard(connection)
        _close(connection)
        self._slots.free()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when its call ends. Those who wait fail."""
        self._closed = True
        self._close_all_idle()
        self._slots.close()

    @property
    def in_use(self) -> int:
        return sum([len(host.in_use) for host in self._hosts.all])

    @property
    def idle(self) -> int:
        return sum([len(host.idle) for host in self._hosts.all])

    @property
    def waiting(self) -> int:
        return self._slots.waiting

    def stats(self) -> dict[str, Any]:
        """Plain data; `ejected_until` is a moment of `time.monotonic()`, None when in rotation."""
        now = time.monotonic()
        return {
            "size": self._slots.size,
            "waiting": self.waiting,
            "hosts": {
                host.label: {
                    "state": host.state.value,
                    "idle": len(host.idle),
                    "in_use": len(host.in_use),
                    "connects": host.connects,
                    "failures": host.failures,
                    "ejected_until": host.ejected_until if host.ejected_until > now else None,
                    "connections": [_shown(c, now) for c in (*host.idle, *host.in_use)],
                }
                for host in self._hosts.all
            },
        }

    def start_anew(self) -> None:
        """In a forked child: the connections are the parent's. Its own copies of them are closed.

        Two processes on one connection would read each other's replies, with numbers that fit.
        """
        for host in self._hosts.all:
            for connection in (*host.idle, *host.in_use):
                connection.close()
            host.idle.clear()
            host.in_use.clear()
        self._hosts.start_anew()
        self._slots.start_anew()

    # Inside.

    def _queue(self, method: str, now: float, limit: float) -> float:
        """Wait for a slot; the moment when it came."""
        end = min(now + self._wait, limit)
        if self._slots.wait(end):
            return time.monotonic()
        if self._closed:
            raise self._is_closed()
        if limit <= end:
            raise DeadlineExceeded(self.labels, method, False)
        raise PoolExhausted(self.labels, method, self._slots.size, self._wait)

    def _idle_of(self, host: Host, now: float) -> Connection | None:
        """A fresh one; those that are not are closed."""
        while True:
            try:
                connection = host.idle.pop()
            except IndexError:
                return None
            try:
                if (
                    now - connection.idle_since <= self._max_idle
                    and now - connection.born <= self._max_age
                    and connection.is_fresh()
                ):
                    _move(connection, _IN_USE)
                    host.in_use.add(connection)
                    return connection
            except BaseException:
                _close(connection)
                raise
            _close(connection)

    def _from_any(self, method: str, now: float, limit: float) -> Connection:
        failure = None
        for host in self._hosts.candidates(now):
            connection = self._idle_of(host, now)
            if connection is not None:
                return connection
            try:
                return self._connected(host, method, now, limit)
            except ConnectFailed as error:
                failure = error
                now = time.monotonic()
        assert failure is not None
        try:
            raise failure
        finally:
            del failure  # its traceback has this frame

    def _connected(self, host: Host, method: str, now: float, limit: float) -> Connection:
        if self._closed:
            raise self._is_closed()
        if now >= limit:
            raise DeadlineExceeded(host.label, method, False)
        self._make_room()
        end = min(now + self._connect_timeout, limit)
        result = "cancelled"
        try:
            connection = self._connect(host.target, end)
            result = "ok"
        except OSError as error:
            result = "failed"
            failed_at = time.monotonic()
            if isinstance(error, TimeoutError) and is_over(limit):
                # The caller was in a hurry: that says nothing of the host.
                raise DeadlineExceeded(host.label, method, False) from error
            self._hosts.failed(host, failed_at)
            if host.state is HostState.EJECTED and self._hosts.only is None:
                while self._close_idle(host, -1):
                    pass
            raise ConnectFailed(host.label, method, said(error)) from error
        except Exception:
            result = "failed"
            raise
        finally:
            self._connects[result].inc()
        self._hosts.connected(host)
        connection.host = host
        connection.born = time.monotonic()
        connection.state = _IN_USE
        host.in_use.add(connection)
        return connection

    def _make_room(self) -> None:
        """For one more connection, at the cost of an idle one to another host."""
        while self._slots.taken + self.idle > self._slots.size:
            hosts = [host for host in self._hosts.all if host.idle]
            if not hosts:
                return
            self._close_idle(max(hosts, key=lambda host: len(host.idle)), 0)

    def _close_idle(self, host: Host, index: int) -> bool:
        try:
            connection = host.idle.pop(index)
        except IndexError:
            return False
        _close(connection)
        return True

    def _close_all_idle(self) -> None:
        for host in self._hosts.all:
            while self._close_idle(host, -1):
                pass

    def _is_closed(self) -> LogicalError:
        return LogicalError(f"the client of {self.labels} is closed")


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_watching: list[None] = []


def _watch_forks(pool: Pool) -> None:
    _pools.add(pool)
    if not _watching:  # with the first pool, as an import registers nothing
        _watching.append(None)
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for pool in list(_pools):
        pool.start_anew()


def _shown(connection: Connection, now: float) -> dict[str, Any]:
    state = connection.state
    idle = now - connection.idle_since if state is _IDLE else None
    return {"state": state.value, "age": now - connection.born, "idle": idle}


def is_over(limit: float) -> bool:
    """Whether a wait that has just timed out did so because of this *limit*."""
    # A timer of gevent may be early by so much, as its loop's clock stands still.
    return time.monotonic() >= limit - 0.02


def said(error: OSError) -> str:
    """The words of the system, in one line."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return " ".join(str(error.strerror or error).split()) or type(error).__name__


def _limit(seconds: float | None) -> float:
    return math.inf if seconds is None else checked_seconds(seconds, "a timeout")


def _move(connection: Connection, state: ConnectionState) -> None:
    assert state in _MOVES[connection.state], f"{connection.state} to {state}"
    connection.state = state


def _close(connection: Connection) -> None:
    _move(connection, _CLOSED)
    connection.close()
