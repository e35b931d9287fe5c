"""The seam between the pool and what carries bytes: one `Connection` per kind of transport.

    Pool ── connect(target, end) ──► Connection    _transports.py      buffered and framed
                                         │         _http_transport.py  POST over a kept connection
                                         ▼
                                        Wire       _wire.py            TCP, unix, TLS

A call on a connection: `send()`, then `receive()` until the codec has its message, then
`is_at_end()`. The pool never gives one connection to two callers, and closes it after anything
but a call that went through.

Errors of a transport: OSError, and among these TimeoutError for a wait that reached *end*;
`ReplyRefused` for bytes that cannot be a reply. The caller knows what each means for the fate of
the request: it looks at where it was, and at `replied`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from sepelib.rpc._hosts import Host

__all__ = ["Connect", "Connection", "ConnectionState", "PeerClosed", "ReplyRefused"]

T = TypeVar("T")


class ConnectionState(enum.StrEnum):
    """IN_USE ◄──► IDLE, and from either CLOSED, for ever. New ones are IN_USE."""

    IN_USE = "in_use"
    IDLE = "idle"
    CLOSED = "closed"


class PeerClosed(ConnectionError):
    """The peer has ended the connection in good order (FIN), but too early. Takes one sentence."""


class ReplyRefused(Exception):
    """What came is no reply: over `max_message`, no frame, an HTTP status. Takes one sentence.

    It says what came and what was expected; of bytes, only the first words of a page over HTTP.
    """


class Connection(ABC):
    """One open connection. Belongs to one caller at a time, so nothing here is locked.

    Moments are on `time.monotonic()`; `math.inf` is no limit. A wait never outlasts *end*, however
    the bytes drip, and lets other greenlets run. What is raised out of a wait, a BaseException
    too, leaves the connection in no particular state: whoever has it closes it.
    """

    __slots__ = ("born", "host", "idle_since", "replied", "state")

    # The pool's own; a transport leaves them alone.
    host: Host
    born: float
    idle_since: float
    state: ConnectionState

    replied: bool
    """Whether a byte of the reply has come. `send()` clears it, `receive()` sets it."""

    @abstractmethod
    def send(self, message: bytes, end: float) -> None:
        """Begin a call: the whole of *message* given to the system before *end*, or raise.

        Returned means that the peer may have all of it. Raised means that it cannot: the last byte
        has not left. *end* holds for the following `receive()` as well.
        """

    @abstractmethod
    def receive(self, size: int) -> bytes:
        """Some bytes of the reply: at least one, at most *size* and what `max_message` leaves.

        What surrounds the message (a frame's length, headers of HTTP) is not among them. PeerClosed
        when the connection ended; ReplyRefused when more is asked for than the frame, the body or
        `max_message` holds.
        """

    @abstractmethod
    def is_at_end(self) -> bool:
        """Asked when the codec has its message: is nothing left of this reply?

        False when bytes of a frame or body, or bytes behind it, are unread, or the peer said that
        it will close. Reads what surrounds the end if it must (a last chunk of HTTP). True gives
        the connection back to the pool, so the next byte to come belongs to the next reply. The
        caller has its result by then: failures are False, and only a BaseException is raised.
        """

    def confirm(self) -> None:  # noqa: B027
        """After `send()` of a oneway call: wait for what the transport itself answers, if it does.

        HTTP does, by a status. `is_at_end()` is asked afterwards here too.
        """

    @abstractmethod
    def is_fresh(self) -> bool:
        """Asked before an idle connection is used: neither ended nor anything to read. Cheap.

        Never waits, not even for another greenlet.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the socket at once, without waiting. Idempotent, never raises an Exception."""


Connect: TypeAlias = Callable[[T, float], Connection]
"""Connects to a *target* (of `Host.target`) before *end*, TLS handshake included; OSError if not.

It frees what it opened when it raises, a BaseException too. `socket.setdefaulttimeout()` has no
say in it, and it does not change that.
"""
