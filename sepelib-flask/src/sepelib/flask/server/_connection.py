"""One connection: its socket with deadlines, and where it is in its life.

    NEW ──► READING ──► BUSY ──► IDLE ──► READING …
     └────────────────►  ▲ │      └─────► BUSY …
                         └─┤ (pipelined)
     READING, BUSY ────────┴──► CLOSING

Deadlines: gevent's own timeouts cost a timer for each wait. Here a wait costs one store into
`deadline`, and the table of connections looks for overdue ones a few times a second and wakes them.
(Shutting the socket down would wake them too, but breaks TLS, and cuts off what is on the way.)
Sharing: a connection belongs to the greenlet that serves it. Callbacks of the hub may end its wait.
"""

from __future__ import annotations

import enum
import socket
import struct
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from gevent import Greenlet
    from gevent.socket import socket as gevent_socket
    from gevent.ssl import SSLSocket

__all__ = ["Connection", "End", "Pace", "State"]

_RECEIVE = 65536
_LINGER_BYTES = 1 << 20


class State(enum.Enum):
    """Of a connection."""

    NEW = "new"  # accepted, perhaps in the TLS handshake; no byte of a request came yet
    READING = "reading"  # a part of a request's head is here
    BUSY = "busy"  # the request is with the application, or is being answered
    IDLE = "idle"  # answered; waits for the next request
    CLOSING = "closing"  # had its last answer; what the client still sends is thrown away


_MOVES = {
    State.NEW: (State.READING, State.BUSY),
    State.READING: (State.BUSY, State.CLOSING),
    State.BUSY: (State.IDLE, State.READING, State.BUSY, State.CLOSING),
    State.IDLE: (State.BUSY, State.READING),
    State.CLOSING: (),
}


class End(enum.Enum):
    """Why the wait of a connection was ended from outside its greenlet."""

    EXPIRED = "expired"
    EVICTED = "evicted"
    RETIRED = "retired"


class _Woken(BaseException):
    """Thrown into a wait for the client, and caught there."""


class Pace:
    """How long a client may be waited for in one transfer: see Limits, *body_timeout*."""

    __slots__ = ("_moved", "_rate", "_timeout", "_waited")

    def __init__(self, timeout: float | None, rate: float) -> None:
        self._timeout = inf if timeout is None else timeout
        self._rate = rate
        self.restart()

    def restart(self) -> None:
        self._waited = 0.0
        self._moved = 0

    def patience(self) -> float:
        """Seconds for the next wait; less than 0 when they are used up."""
        timeout = self._timeout
        return min(timeout, timeout + self._moved / self._rate - self._waited)

    def note(self, waited: float, moved: int) -> None:
        self._waited += waited
        self._moved += moved


class Connection:
    """What the application sees as `environ["sepelib.connection"]`: `peer`, `gone`, `over_limit`,
    `close_after_answer()`. The rest is the server's."""

    __slots__ = (
        "_tls",
        "_waiting",
        "abort",
        "address",
        "buffer",
        "deadline",
        "end",
        "gone",
        "greenlet",
        "last",
        "over_limit",
        "peer",
        "since",
        "sock",
        "state",
    )

    def __init__(self, sock: gevent_socket, address: object) -> None:
        self.sock = sock
        self.address = address
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
        self.state = State.NEW
        self.since = time.monotonic()  # when it came into this state
        self.deadline = inf
        self.buffer = b""  # received, not yet used
        self.last = False  # no more requests after the present one
        self.over_limit = False
        self.gone = False  # the client went away, or was cut off, before it had its answer
        self.abort = False  # close with a reset: by an orderly end the answer would seem complete
        self.end: End | None = None
        self.greenlet: Greenlet[..., object] | None = None
        self._tls: SSLSocket | None = None
        self._waiting = False

    def close_after_answer(self) -> None:
        """Serve nothing more on this connection. The answer says so if it has not begun."""
        self.last = True

    def move(self, state: State, now: float) -> None:
        assert state in _MOVES[self.state], f"{self.state} to {state}"
        self.state = state
        self.since = now

    # -- For the greenlet that serves it.

    def receive(self, deadline: float) -> bytes:
        """The next bytes; b"" when there are none to come, for the reason `end` or the client's."""
        if self.end is not None and self.end is not End.EXPIRED and self.state is not State.BUSY:
            return self._already_here()  # nobody wakes it a second time
        self.deadline = deadline
        self._waiting = True
        try:
            return self.sock.recv(_RECEIVE)
        except _Woken:
            return self._already_here()
        except OSError:
            return b""
        finally:
            self.deadline = inf
            self._waiting = False

    def _already_here(self) -> bytes:
        """What came before we were woken, or while the process had no time for us."""
        self.sock.settimeout(0.0)
        try:
            return self.sock.recv(_RECEIVE)
        except OSError:
            return b""
        finally:
            self.sock.settimeout(None)

    def send(self, data: bytes | memoryview, pace: Pace) -> None:
        """Send all. OSError when the client is gone, or does not keep the *pace*."""
        now = time.monotonic()
        self._waiting = True
        try:
            while True:
                self.deadline = now + pace.patience()
                sent = self.sock.send(data)
                before, now = now, time.monotonic()
                pace.note(now - before, sent)
                if sent == len(data):
                    return
                data = memoryview(data)[sent:]
        except OSError:
            self.gone = self.last = True
            raise
        except _Woken:
            # Not orderly: the kernel would keep what is unsent, for a client that does not read.
            self.gone = self.last = self.abort = True
            raise TimeoutError(f"{self.peer} does not read its answer") from None
        finally:
            self.deadline = inf
            self._waiting = False

    def send_at_once(self, data: bytes) -> None:
        """Send what fits without waiting: the last words of somebody who is being killed."""
        with suppress(OSError):
            self.sock.settimeout(0.0)
            self.sock.send(data)

    def start_tls(self, context: ssl.SSLContext, deadline: float) -> None:
        """Shake hands. OSError when the client does not, in time."""
        self.deadline = deadline
        self._waiting = True
        try:
            try:
                self._tls = context.wrap_socket(
                    self.sock, server_side=True, do_handshake_on_connect=False
                )
            except ValueError as error:  # gone already, which ssl takes for not connected
                raise ConnectionAbortedError(str(error)) from None
            self.sock = self._tls
            self._tls.do_handshake()
        except _Woken:
            raise TimeoutError("no handshake in time") from None
        finally:
            self.deadline = inf
            self._waiting = False

    def linger(self, seconds: float) -> None:
        """Wait for the client's end, and throw away what it sends until then.

        Closing a socket with unread data in it resets the connection, and the reset can destroy
        the answer before the client has read it (RFC 9112, 9.6).
        """
        now = time.monotonic()
        self.move(State.CLOSING, now)
        self.buffer = b""
        self._end_sending()
        left, until = _LINGER_BYTES, now + seconds
        while left > 0 and (data := self.receive(until)):
            left -= len(data)

    def close(self) -> None:
        """Does not wait."""
        with suppress(OSError):
            if self.abort:
                option = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            elif self._tls is not None:
                self._end_sending()
        self.sock.close()

    def _end_sending(self) -> None:
        with suppress(OSError, ValueError):
            if self._tls is None:
                self.sock.shutdown(socket.SHUT_WR)
            else:
                # Sends our close_notify; that we cannot wait for the client's is an OSError.
                self._tls.settimeout(0.0)
                try:
                    self._tls.unwrap()
                finally:
                    self._tls.settimeout(None)

    # -- For others, in the hub.

    def expire(self) -> None:
        """Its deadline is over."""
        self.wake(End.EXPIRED)

    def retire(self, grace: float) -> None:
        """Let it end with the answer to what has arrived: at once if that is nothing.

        One on which nothing was ever asked gets *grace* seconds: its request may be on the way.
        """
        if self.state is State.IDLE:
            self.wake(End.RETIRED)
        elif self.state is State.NEW or self.state is State.CLOSING:
            self.deadline = min(self.deadline, time.monotonic() + grace)

    def wake(self, why: End) -> None:
        """End its wait for the client, and so itself, unless it finds that something has come."""
        self.end = why
        self.last = True
        if self._waiting:
            assert self.greenlet is not None
            self.greenlet.throw(_Woken)
