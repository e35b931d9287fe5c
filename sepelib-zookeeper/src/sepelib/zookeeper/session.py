"""The session with the ZooKeeper servers, as far as this process can know it.

    if client.session.holds(epoch):     # local, O(1), from any thread
        ...

The servers end a session when they heard nothing of it for its timeout T. Somebody cut off from
them is not told: so the session is LOST here by the own clock, a margin before T has passed since
the last request that was answered was sent. The clock runs on while the machine sleeps.

Sharing: `holds`, `lease_remaining` and the attributes are for any thread; all else for the
greenlets of the client's hub.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from logging import getLogger

import gevent.event

from sepelib.util.text import human_duration
from sepelib.zookeeper._handler import Lane
from sepelib.zookeeper._lease import Lease, Move, SessionState, Timings

__all__ = ["Session", "SessionState"]

_log = getLogger(__name__)

_RAN_OUT = "no request was answered within its lease"

Listener = Callable[[SessionState, int], object]


def clock() -> float:
    """Seconds on the clock of all leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Session:
    """Made by the client, which tells it what happens on the connection."""

    clock = staticmethod(clock)

    def __init__(self) -> None:
        self._lease = Lease()
        self._listeners: list[Callable[[Move], object]] = []
        self._wakes: list[Callable[[], object]] = []
        self._untold: deque[tuple[Move | None, str]] = deque()
        self._telling = False
        self._pid = os.getpid()
        self._warned_at = 0.0

    def __repr__(self) -> str:
        return f"<Session 0x{self.session_id:x} {self.state.value}, epoch {self.epoch}>"

    @property
    def state(self) -> SessionState:
        """LOST as soon as the lease is over; who listens is told when the hub has its next turn."""
        lease = self._lease
        return lease.state if lease.holds(lease.epoch, clock()) else SessionState.LOST

    @property
    def epoch(self) -> int:
        """0 before the first connection; grows by one at each CONNECTED that is not a return.

        So a session that was LOST by the clock and then was found alive is a new epoch of the same
        `session_id`: what was declared lost stays lost.
        """
        return self._lease.epoch

    @property
    def session_id(self) -> int:
        """As `ephemeralOwner` shows it; 0 before the first connection."""
        return self._lease.session_id

    @property
    def timeout(self) -> float:
        """T as negotiated with the server, in seconds; 0.0 before the first connection."""
        return self._lease.timeout

    @property
    def timings(self) -> Timings:
        """What follows from T."""
        return self._lease.timings

    @property
    def lease_deadline(self) -> float:
        """On `clock()`."""
        return self._lease.deadline

    def lease_remaining(self) -> float:
        """Seconds until the session is LOST if no answer comes; 0.0 when it is."""
        if not self.holds(self._lease.epoch):
            return 0.0
        return max(0.0, self._lease.deadline - clock())

    def holds(self, epoch: int) -> bool:
        """Whether what was got in *epoch* can still be relied on.

        Once False for an epoch it is never True for it again. False in a forked process.
        """
        return self._lease.holds(epoch, clock()) and os.getpid() == self._pid

    def wait(
        self, state: SessionState = SessionState.CONNECTED, timeout: float | None = None
    ) -> bool:
        """Wait until the session is in *state*; False when *timeout* seconds have passed."""
        if self.state is state:
            return True
        reached = gevent.event.Event()

        def look() -> None:
            if self.state is state:
                reached.set()

        remove = self.subscribe(look)
        try:
            return reached.wait(timeout)
        finally:
            remove()

    def add_listener(self, callback: Listener) -> Callable[[], None]:
        """Call *callback*(state, epoch) at each change, in order, in a greenlet of its own.

        It may take its time and use the client; whatever it raises is logged. The result removes
        it.
        """
        lane = Lane()
        name = getattr(callback, "__qualname__", None) or repr(callback)

        def post(move: Move) -> None:
            lane.post(lambda: callback(*move), f"the session's listener {name}")

        self._listeners = [*self._listeners, post]

        def remove() -> None:
            self._listeners = [other for other in self._listeners if other is not post]
            lane.clear()

        return remove

    def subscribe(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call *wake* at once at each change, wherever that is; the result removes it.

        Also when the client ends for good, were the session lost before. For recipes: *wake* must
        not block or use the client; it sets an event.
        """

        def call() -> None:
            wake()

        self._wakes = [*self._wakes, call]

        def remove() -> None:
            self._wakes = [other for other in self._wakes if other is not call]

        return remove

    # What follows is for the client.

    @property
    def due(self) -> float:
        """When `_passed()` has to be called, on `clock()`."""
        lost = self._lease.state is SessionState.LOST
        return math.inf if lost else self._lease.deadline

    def _connected(self, session_id: int, timeout: float, sent: float) -> None:
        now = clock()
        is_new = session_id != self._lease.session_id
        self._warn_of_margin(now)
        self._tell(self._lease.passed(now), _RAN_OUT)
        moves = self._lease.connected(session_id, timeout, sent, now)
        if is_new:
            _log.info(
                "session 0x%x is new, timeout %s",
                session_id,
                human_duration(timeout),
                extra=self._extra(),
            )
        self._tell(moves, "another one took its place")

    def _answered(self, sent: float) -> None:
        now = clock()
        lease = self._lease
        late = lease.deadline - now < lease.timings.lease / 2
        if late:
            self._warn_of_margin(now)
        moves = lease.answered(sent, now)
        if moves:
            self._tell(moves, _RAN_OUT)

    def _disconnected(self, reason: str) -> None:
        self._passed(clock())
        self._tell(self._lease.disconnected(clock()), reason)

    def _ended(self, reason: str) -> None:
        self._tell(self._lease.ended() or [None], reason)

    def _passed(self, now: float) -> None:
        moves = self._lease.passed(now)
        if moves:
            self._tell(moves, _RAN_OUT)

    def _warn_of_margin(self, now: float) -> None:
        lease = self._lease
        left = lease.deadline - now
        if lease.state is SessionState.LOST or not 0 < left < lease.timings.lease / 2:
            return
        if now >= self._warned_at + lease.timeout:  # One line for all answers of one stall.
            self._warned_at = now
            _log.warning(
                "session 0x%x was without an answer for %d %% of its lease, %s were left",
                lease.session_id,
                round(100 - 100 * left / lease.timings.lease),
                human_duration(left),
                extra=self._extra(),
            )

    def _tell(self, moves: Sequence[Move | None], reason: str) -> None:
        """Tell all of *moves*; None is for those who only wake."""
        self._untold += [(move, reason) for move in moves]
        if self._telling:  # Somebody who was told stops the client: that is told to all next.
            return
        self._telling = True
        try:
            while self._untold:
                self._tell_one(*self._untold.popleft())
        finally:
            self._telling = False

    def _tell_one(self, move: Move | None, reason: str) -> None:
        if move is not None:
            self._log_move(move, reason)
            for post in self._listeners:
                post(move)
        for wake in self._wakes:
            try:
                wake()
            except Exception:
                _log.exception("a subscriber of the session has failed")

    def _log_move(self, move: Move, reason: str) -> None:
        if move.state is SessionState.LOST:
            _log.info("session 0x%x is lost: %s", self.session_id, reason, extra=self._extra())
        elif move.state is SessionState.SUSPENDED:
            _log.info("session 0x%x is suspended: %s", self.session_id, reason, extra=self._extra())
        else:
            _log.debug("session 0x%x is connected, epoch %d", self.session_id, move.epoch)

    def _extra(self) -> dict[str, object]:
        return {"session": f"0x{self.session_id:x}", "epoch": self.epoch}
