"""All connections of a server: how many, which one has to go, which one is overdue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import gevent
from gevent import Greenlet
from gevent.event import Event

from sepelib.flask.server._connection import Connection, End, State
from sepelib.flask.server._limits import Limits
from sepelib.util.instrument import Recorder

__all__ = ["Connections"]

log = logging.getLogger(__name__)

# Who goes first when there is no room: those that need nothing more, those that idle, those that
# have said nothing, those that take long over their headers. Never one with a request, nor one
# whose request may be on the way: that is what the seconds in its state are for.
_EXPENDABLE = {
    State.CLOSING: (0, 0.0),
    State.IDLE: (1, 0.0),
    State.NEW: (2, 0.2),
    State.READING: (3, 0.2),
}

_TICKS = 10  # looks for overdue connections in the shortest of the limits


class Connections:
    """The table; calls *on_room* when a connection has gone.

    Nothing here waits but `wait()` and `kill()`.
    """

    def __init__(self, limits: Limits, recorder: Recorder, on_room: Callable[[], object]) -> None:
        self.on_room = on_room
        self._limits = limits
        self._all: set[Connection] = set()
        self._left = Event()
        self._watch: Any = None
        self._looked = 0.0
        self._tick = _tick(limits)
        self._rejected = recorder.counter(
            "http_server_rejected", "Connections and requests refused.", labels=("reason",)
        )
        gauge = recorder.gauge("http_server_connections", "Open connections.", labels=("state",))
        self._detach = [
            gauge.labels(state.value).bind(partial(self._count, state)) for state in State
        ]

    def __len__(self) -> int:
        return len(self._all)

    def stats(self) -> dict[str, int]:
        return {state.value: self._count(state) for state in State}

    def _count(self, state: State) -> int:
        return sum(connection.state is state for connection in list(self._all))

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def making_room(self) -> bool:
        """Whether it is full of connections of which some were ended and are about to go."""
        limits = self._limits
        if len(self._all) < limits.max_connections + limits.reserve:
            return False
        return any(c.end is not None and c.state is not State.BUSY for c in self._all)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room; makes some by ending the connection that is missed least."""
        limits = self._limits
        staying = [c for c in self._all if c.end is None or c.state is State.BUSY]
        if len(staying) >= limits.max_connections and not self._evict(staying):
            if len(staying) >= limits.max_connections + limits.reserve:
                self.rejected("full")
                return False
            connection.over_limit = connection.last = True
        self._all.add(connection)
        return True

    def _evict(self, among: list[Connection]) -> bool:
        now = time.monotonic()
        expendable = []
        for connection in among:
            rank, age = _EXPENDABLE.get(connection.state, (0, inf))
            if connection.end is None and now - connection.since >= age:
                expendable.append((rank, connection.since, id(connection), connection))
        if not expendable:
            return False
        *_, victim = min(expendable)
        self.rejected("evicted")
        victim.wake(End.EVICTED)
        return True

    def serve(self, connection: Connection, run: Callable[[], object]) -> None:
        """Run it in a greenlet of its own, after which it is closed, also if it never began."""
        connection.greenlet = Greenlet(run)
        connection.greenlet.rawlink(lambda _: self._over(connection))
        connection.greenlet.start()
        if self._watch is None:
            self._looked = time.monotonic()
            self._watch = gevent.get_hub().loop.timer(self._tick, self._tick)
            self._watch.start(self._look)

    def _over(self, connection: Connection) -> None:
        connection.close()
        self._all.discard(connection)
        self._left.set()
        self.on_room()
        if not self._all and self._watch is not None:
            self._watch.close()
            self._watch = None

    def _look(self) -> None:
        now, before = time.monotonic(), self._looked
        self._looked = now
        # Something has kept the hub from its work. What has come meanwhile is read first.
        if now - before > 2 * self._tick:
            return
        for connection in list(self._all):
            if connection.deadline < now:
                connection.expire()

    def retire(self, grace: float = inf) -> None:
        """Let each end with its present answer, and idle ones at once; see Connection.retire()."""
        for connection in self._all:
            connection.last = True
        gevent.get_hub().loop.run_callback(self._retire, grace)

    def _retire(self, grace: float) -> None:
        for connection in list(self._all):
            connection.retire(grace)

    def busy(self) -> int:
        """Those with a request, but for the one whose greenlet asks."""
        return len([c for c in self._others() if c.state in (State.BUSY, State.READING)])

    def _others(self) -> list[Connection]:
        me = gevent.getcurrent()
        return [c for c in self._all if c.greenlet is not me]

    def wait(self, timeout: float | None) -> int:
        """Until all but the caller's own are closed; the number of those that are busy."""
        until = inf if timeout is None else time.monotonic() + timeout
        while self._others() and (left := until - time.monotonic()) > 0:
            self._left.clear()
            self._left.wait(None if left == inf else left)
        return self.busy()

    def kill(self, timeout: float) -> None:
        """End all but the caller's own; what goes on after *timeout* loses its socket."""
        greenlets = [c.greenlet for c in self._others() if c.greenlet is not None]
        gevent.killall(greenlets, block=False)
        self.wait(timeout)
        for connection in self._others():
            log.error("%s: its request does not end when killed", connection.peer)
            connection.close()

    def detach(self) -> None:
        """Report to the recorder no more."""
        for detach in self._detach:
            detach()
        self._detach = []


def _tick(limits: Limits) -> float:
    times = (
        limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.write_timeout,
    )  # fmt: skip
    return max(0.01, min([1.0, *(t / _TICKS for t in times if t is not None)]))
