"""The lease on a session: until when the server cannot have given its ephemerals away.

Pure: fed with times and events, asks no clock, has no timer. The server touches a session no
earlier than a request was sent, so *sent + T* is safe for each request that was answered.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Lease", "Move", "SessionState", "Timings"]


class SessionState(enum.Enum):
    """CONNECTED: in contact. SUSPENDED: out of contact, not over. LOST: over, or none yet."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Move(NamedTuple):
    """The session has come to *state*, in *epoch*."""

    state: SessionState
    epoch: int


class Timings(NamedTuple):
    """What happens when in a session without answers, in seconds."""

    ping: float
    """After the last answer: ask for one."""

    silence: float
    """After the last byte: the connection is given up, the session is SUSPENDED."""

    answer: float
    """What a request is given at least before silence counts."""

    connect: float
    """What each server is given, before the next one is tried."""

    margin: float
    """The lease ends so long before the server may end the session."""

    lease: float
    """After the sending of the last answered request: the session is LOST."""

    stop_timeout: float
    """What a singleton has for its end, before the end of the lease, unless told otherwise."""

    @classmethod
    def of(cls, timeout: float) -> Timings:
        """Those of the negotiated session *timeout*."""
        margin = min(max(timeout / 10, 0.1), timeout / 2)
        return cls(
            ping=timeout / 5,
            silence=timeout / 2,
            answer=timeout * 0.3,
            connect=min(max(timeout / 4, 0.3), 2.0),
            margin=margin,
            lease=timeout - margin,
            stop_timeout=min(timeout / 5, 5.0),
        )


class Lease:
    """States, epochs and the deadline; each event gives the moves it caused, in order.

    *epoch* is 0 before the first contact, and grows at each CONNECTED that follows a LOST.
    """

    def __init__(self) -> None:
        self.state = SessionState.LOST
        self.epoch = 0
        self.session_id = 0
        self.timeout = 0.0
        self.timings = Timings.of(0.0)
        self.deadline = 0.0
        self._in_contact = False
        # The last epoch of which somebody was told that its lease is over.
        self._told_over = 0

    def connected(self, session_id: int, timeout: float, sent: float, now: float) -> list[Move]:
        """The server has accepted or made *session_id*; the request for it left at *sent*."""
        moves = self.passed(now)
        if session_id != self.session_id:
            moves += self._lose()
        if timeout < self.timeout:
            # From this request on the server counts with the shorter one.
            self.deadline = min(self.deadline, sent + Timings.of(timeout).lease)
        self.session_id = session_id
        self.timeout = timeout
        self.timings = Timings.of(timeout)
        self._in_contact = True
        if self.state is SessionState.SUSPENDED:
            moves.append(self._move(SessionState.CONNECTED))
        return moves + self.answered(sent, now)

    def answered(self, sent: float, now: float) -> list[Move]:
        """The answer to what left at *sent* is read at *now*."""
        moves = self.passed(now)
        if not self._in_contact:
            return moves
        fresh = sent + self.timings.lease
        if self.state is not SessionState.LOST:
            self.deadline = max(self.deadline, fresh)
            # A thread may have seen the former deadline pass a moment ago.
            moves += self.passed(now)
        if self.state is SessionState.LOST and fresh > now:
            # In this order: a thread that reads the new deadline sees the new epoch too.
            self.epoch += 1
            self.deadline = fresh
            moves.append(self._move(SessionState.CONNECTED))
        return moves

    def disconnected(self, now: float) -> list[Move]:
        """The connection is gone, or is to a server that keeps no sessions (read-only)."""
        moves = self.passed(now)
        self._in_contact = False
        if self.state is SessionState.CONNECTED:
            moves.append(self._move(SessionState.SUSPENDED))
        return moves

    def ended(self) -> list[Move]:
        """The session is over by the server's word or by our own."""
        self._in_contact = False
        return self._lose()

    def passed(self, now: float) -> list[Move]:
        """It is *now*: the lease may be over."""
        return self._lose() if now >= self.deadline or self._told_over == self.epoch else []

    def holds(self, epoch: int, now: float) -> bool:
        """Whether the lease of *epoch* is on. Once False for an epoch, always False for it."""
        deadline = self.deadline
        if now >= deadline and epoch == self.epoch:
            self._told_over = epoch
        return (
            now < deadline
            and epoch == self.epoch
            and epoch != self._told_over
            and self.state is not SessionState.LOST
        )

    def _lose(self) -> list[Move]:
        return [] if self.state is SessionState.LOST else [self._move(SessionState.LOST)]

    def _move(self, state: SessionState) -> Move:
        self.state = state
        return Move(state, self.epoch)
