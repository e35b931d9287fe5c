"""One request and its answer, in the hands of what answers it."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, NoReturn, TypeAlias

from ._wire import Headers, ReceivedRequest, Reply

__all__ = ["Exchange", "Fault", "HungUp", "Stage"]

Stage: TypeAlias = Literal["accept", "arrival", "answer"]

_TICK = 0.02  # seconds until a release, or a client that has gone, is noticed
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_ESTABLISHED = 1  # a state of TCP_INFO
_SIOCOUTQ = 0x5411  # how many bytes the peer's system has not acknowledged


class Fault(NamedTuple):
    """*deliver* is called in place of the proper answer, at *stage* of the exchange.

    "accept": the connection is there, nothing has been read, TLS has not begun; "arrival": the
    first bytes of a request are there, unread; "answer": it has been read and journaled. At the
    first two the exchange has neither request nor reply, and goes on when *deliver* returns.
    """

    name: str
    deliver: Callable[[Exchange], None]
    stage: Stage = "answer"


class HungUp(Exception):
    """This connection is over."""


class Exchange:
    """What a fault may do with the connection. Ends by itself when client or server go away."""

    def __init__(
        self,
        connection: socket.socket,
        ending: threading.Event,
        releases: Callable[[], int],
        *,
        request: ReceivedRequest | None = None,
        last: bool = False,
    ) -> None:
        self.connection = connection
        self.last = last
        """Whether the connection is closed after this answer."""
        self._ending = ending
        self._releases = releases
        self._releases_before = releases()
        self._request = request
        self._reply: Reply | None = None

    @property
    def request(self) -> ReceivedRequest:
        if self._request is None:
            raise RuntimeError("at this stage no request has been read")
        return self._request

    @property
    def reply(self) -> Reply:
        """The proper answer, as the route has it."""
        if self._reply is None:
            raise RuntimeError("at this stage there is no answer yet")
        return self._reply

    def proper(self, request: ReceivedRequest, reply: Reply) -> None:
        """Set what was asked and what is to be answered."""
        self._request, self._reply = request, reply

    def head(self, *, framing: Headers | None = None) -> bytes:
        """The first part of the proper answer; *framing* as in `Reply.head()`."""
        return self.reply.head(framing=framing, last=self.last)

    def body(self) -> bytes:
        """The second part of the proper answer; empty after HEAD."""
        return b"" if self.request.method == "HEAD" else self.reply.content()

    def answer(self, reply: Reply | None = None) -> None:
        """Send *reply*, by default the proper one: in one write unless it comes in chunks."""
        if reply is not None:
            self._reply = reply
        head, body = self.head(), self.reply.body
        if self.request.method == "HEAD":
            self.send(head)
        elif isinstance(body, bytes):
            self.send(head + body)
        else:
            self.send(head)
            for data in body:
                self.send(chunk(data))
            self.send(b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: bytes, *, every: float, count: int = 1) -> None:
        """Send *count* bytes every so many seconds; at `release()` the rest at once."""
        while data:
            self.send(data[:count])
            data = data[count:]
            if data and self.pause(every):
                self.send(data)
                return

    def pause(self, seconds: float | None = None) -> bool:
        """Wait that long, None: without end, or until `release()`; whether it was that one."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._releases() == self._releases_before:
            left = _TICK if end is None else end - time.monotonic()
            if left <= 0:
                return False
            self._tick(left)
        return True

    def drain(self) -> None:
        """Return when all that was sent has reached the client's system."""
        unsent = bytearray(4)
        while fcntl.ioctl(self.connection, _SIOCOUTQ, unsent) == 0 and any(unsent):
            self._tick(0.001)

    def hang_up(self) -> NoReturn:
        """Close the connection, in the way that TCP closes it."""
        raise HungUp

    def reset(self) -> NoReturn:
        """Close the connection by a TCP RST."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.connection.close()  # here: the base would first shut it down, which sends a FIN
        raise HungUp

    def _tick(self, seconds: float) -> None:
        if self._ending.wait(min(seconds, _TICK)) or self._client_has_gone():
            raise HungUp

    def _client_has_gone(self) -> bool:
        # Not by a read, which TLS and unread requests would get in the way of.
        try:
            state = self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return True
        return state != _ESTABLISHED


def chunk(data: bytes) -> bytes:
    """*data* framed for a body of Transfer-Encoding: chunked; nothing for no data."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
