"""A Thrift server that keeps what it gets and fails as a test says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sepelib.util.testing import ThreadedServer

from ._thrift_dialects import ONEWAY, Header, WireFormat, dialect_of
from ._thrift_faults import Rogue, rogue_message
from ._thrift_wires import Envelope, Request, Stream, envelope_of, http_reply
from ._unix_front import UnixFront

if TYPE_CHECKING:
    import os
    import ssl

__all__ = ["ExecutedCall", "ThriftServer"]

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_ESTABLISHED = 1  # a state of TCP in <netinet/tcp.h>
_TICK = 0.02  # seconds until a client that has gone is noticed
_HTML = b"<!DOCTYPE html>\n<html><head><title>Oops</title></head><body>no</body></html>\n"
_GARBAGE = b"220 mail.example ESMTP\r\n" * 3
_TWO_GIB = (1 << 31) - 1
_LEVELS = 100_000


class ExecutedCall(NamedTuple):
    """A call that was read to its end and has been executed, or is being so."""

    method: str
    args: tuple[Any, ...]
    seqid: int
    oneway: bool
    connection: int  # the first one that the server accepted is 1
    path: str  # this and the headers, by names in lower case, of HTTP only
    headers: Mapping[str, str]


class ThriftServer(ThreadedServer):
    """A Thrift server on the loopback, with faults on demand.

        with ThriftServer(directory.Directory, Handler()) as server:
            server.late(2.0)                            # the next reply, then no more
            client = ThriftBinClient(directory.Directory, server.endpoint)
            ...
            assert [call.method for call in server.calls] == ["echo"]

    *service*: of thriftpy2, or an Apache module with a `Processor`, or that class. *handler*: an
    object with the methods. *protocol* "binary" or "compact", *transport* "buffered", "framed" or
    "http" (any path, kept alive). *ssl_context*: talk TLS. *unix_path*: listen there as well;
    removed by `close()`. Each reply leaves in one write, without Nagle's delay. Errors of the
    handler that the IDL does not declare reach the client as a TApplicationException.

    `calls` is the journal of what was executed, and survives `restart()`. A fault strikes the
    *times* next replies, None: each until `heal()`; the call has been executed by then. A
    oneway call has no reply. Other methods: see ThreadedServer.
    """

    def __init__(
        self,
        service: Any,
        handler: object,
        *,
        protocol: WireFormat = "binary",
        transport: Envelope = "buffered",
        ssl_context: ssl.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        super().__init__(ssl_context=ssl_context, close_timeout=close_timeout)
        self.protocol: WireFormat = protocol
        self.transport: Envelope = transport
        self._dialect = dialect_of(service, protocol)
        self._wire = envelope_of(transport)
        self._scheme = {True: "http", False: "https"}[ssl_context is None]
        self._handler = handler
        self._unix_path = None if unix_path is None else Path(unix_path)
        self._front: UnixFront | None = None
        self._mind = threading.Lock()  # guards all below; held for moments
        self._calls: list[ExecutedCall] = []
        self._next: list[_Fault] = []
        self._lasting: list[_Fault] = []
        self._sleepy: list[float] = []
        self._lines: dict[socket.socket, _Line] = {}  # by the socket before TLS
        self._by_descriptor: dict[int, _Line] = {}
        self._last_number = 0

    def start(self) -> Self:
        super().start()
        if self._unix_path is not None and self._front is None:
            self._front = UnixFront(self._unix_path, self.address).start()
        return self

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            front, self._front = self._front, None
            if front is not None:
                front.close()

    @property
    def endpoint(self) -> str:
        """Where a client finds it: "127.0.0.1:port", or "unix:path" when it has one."""
        if self._unix_path is not None:
            return f"unix:{self._unix_path}"
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """http://127.0.0.1:port/thrift, or https; for transport "http"."""
        return f"{self._scheme}://{self.host}:{self.port}/thrift"

    @property
    def calls(self) -> tuple[ExecutedCall, ...]:
        """All that were executed, in this order."""
        with self._mind:
            return tuple(self._calls)

    # Faults of the way.

    def late(self, seconds: float, *, times: int | None = 1) -> None:
        """Send the reply so much later, unless the client is gone by then."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            exchange.pause(seconds)
            exchange.send(reply)

        self._arm(fault, times)

    def drip(self, every: float, *, size: int = 1, times: int | None = 1) -> None:
        """Send *size* bytes of the reply each *every* seconds."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            for place in range(0, len(reply), size):
                exchange.pause(every)
                exchange.send(reply[place : place + size])

        self._arm(fault, times)

    def cut(self, after: int = 0, *, times: int | None = 1) -> None:
        """Send so many bytes of the reply, then close the connection; 0: none at all."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            if after:
                exchange.send(reply[:after])
            exchange.over = True

        self._arm(fault, times)

    def reset(self, after: int = 0, *, times: int | None = 1) -> None:
        """Send so many bytes of the reply, then close the connection by a TCP RST."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            if after:
                exchange.send(reply[:after])
            exchange.reset()

        self._arm(fault, times)

    def last(self, *, times: int | None = 1) -> None:
        """Send the reply and close the connection behind it."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            exchange.send(reply)
            exchange.over = True

        self._arm(fault, times)

    def slow_accept(self, seconds: float, *, times: int = 1) -> None:
        """Leave the next connections alone for so long before anything is read from them."""
        with self._mind:
            self._sleepy += [seconds] * times

    # Faults of the reply.

    def wrong_seqid(self, offset: int = 1, *, times: int | None = 1) -> None:
        """Answer to another call than was made."""
        self._arm_header(lambda header: header._replace(seqid=header.seqid + offset), times)

    def wrong_method(self, name: str = "other", *, times: int | None = 1) -> None:
        """Answer for another method."""
        self._arm_header(lambda header: header._replace(name=name), times)

    def wrong_kind(self, kind: int = 1, *, times: int | None = 1) -> None:
        """Send a message of this kind; 1 is a call."""
        self._arm_header(lambda header: header._replace(kind=kind), times)

    def garbage(self, data: bytes = _GARBAGE, *, times: int | None = 1) -> None:
        """Send *data* as it is instead of the reply."""
        self._arm(lambda exchange, reply: exchange.send(data), times)

    def message(self, data: bytes, *, times: int | None = 1) -> None:
        """Send *data* as the message, with a proper frame or HTTP header around it."""
        self._arm(lambda exchange, reply: exchange.send(self._wire.wrapped(data)), times)

    def rogue(self, rogue: Rogue, claim: int | None = None, *, times: int | None = 1) -> None:
        """Send a result which claims to have so many bytes or items, and has few.

        "depth" really has its levels, 100,000 by default; else it is 2 GiB.
        """
        if claim is None:
            claim = _LEVELS if rogue == "depth" else _TWO_GIB

        def fault(exchange: _Exchange, reply: bytes) -> None:
            message = rogue_message(self.protocol, exchange.header, rogue, claim)
            exchange.send(self._wire.wrapped(message))

        self._arm(fault, times)

    def trailing(self, data: bytes = _GARBAGE, *, times: int | None = 1) -> None:
        """Send the reply and, in the same write, bytes that belong to nothing."""
        self._arm(lambda exchange, reply: exchange.send(reply + data), times)

    def html(self, status: int = 500, *, times: int | None = 1) -> None:
        """Send a page in HTTP, whatever the transport is."""
        self.garbage(http_reply(_HTML, f"{status} as the test says", "text/html"), times=times)

    def chunked(self, size: int = 10, *, times: int | None = 1) -> None:
        """Send the body of an HTTP reply in chunks of this size."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            _, _, body = reply.partition(b"\r\n\r\n")
            parts = (body[place : place + size] for place in range(0, len(body), size))
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            exchange.send(head + chunks + b"0\r\n\r\n")

        self._arm(fault, times)

    def heal(self) -> None:
        """No fault any more. Those under way go on."""
        with self._mind:
            self._next, self._lasting, self._sleepy = [], [], []

    # Faults of now.

    def stray(self, data: bytes = _GARBAGE) -> int:
        """Send *data*, beneath TLS, on each open connection; returns how many there are."""
        with self._mind:
            lines = list(self._lines.values())
        for line in lines:
            line.disturbed = True
            with contextlib.suppress(OSError):
                socket.socket.send(line.socket, data)
        return len(lines)

    def disconnect(self, *, reset: bool = False) -> int:
        """Close each open connection, by a TCP RST if *reset*; returns how many, once closed."""
        with self._mind:
            lines = list(self._lines.values())
        for line in lines:
            line.disturbed, line.to_reset = True, reset
            with contextlib.suppress(OSError):
                # Reading alone when a RST is to be the first that the client sees.
                how = socket.SHUT_RD if reset else socket.SHUT_RDWR
                socket.socket.shutdown(line.socket, how)
        self.wait_for(lambda: not any(line in self._lines.values() for line in lines))
        return len(lines)

    # Inside.

    def opened(self, connection: socket.socket) -> None:
        with self._mind:
            self._last_number += 1
            line = _Line(self._last_number, connection)
            self._lines[connection] = self._by_descriptor[connection.fileno()] = line

    def closed(self, connection: socket.socket) -> None:
        with self._mind:
            del self._lines[connection]

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with self._mind:
            line = self._by_descriptor[connection.fileno()]
            nap = self._sleepy.pop(0) if self._sleepy else 0.0
        line.socket = connection  # with TLS it is another
        try:
            if nap:
                _pause(self, connection, nap)
            self._serve_messages(connection, line.number)
        except OSError:
            if not line.disturbed:
                raise
        finally:
            if line.to_reset:
                _reset(connection)

    def _serve_messages(self, connection: socket.socket, number: int) -> None:
        stream, over = Stream(connection), False
        while not over and stream.begun():
            exchange = _Exchange(self, connection, number, self._wire.request(stream))
            message = self._dialect.run(exchange.request.source, exchange)
            reply = self._wire.wrapped(message)
            if exchange.act is not None:
                exchange.act(exchange, reply)
            elif reply:
                exchange.send(reply)
            over = exchange.over

    def _execute(self, call: ExecutedCall) -> Any:
        with self._mind:
            self._calls.append(call)
        return getattr(self._handler, call.method)(*call.args)

    def _arm(self, act: _Act, times: int | None) -> None:
        self._arm_fault(_Fault(act, lambda header: header), times)

    def _arm_header(self, change: Callable[[Header], Header], times: int | None) -> None:
        self._arm_fault(_Fault(lambda exchange, reply: exchange.send(reply), change), times)

    def _arm_fault(self, fault: _Fault, times: int | None) -> None:
        with self._mind:
            if times is None:
                self._lasting.append(fault)
            else:
                self._next += [fault] * times

    def _due(self) -> _Fault | None:
        with self._mind:
            if self._next:
                return self._next.pop(0)
            return self._lasting[0] if self._lasting else None


class _Line:
    """One connection."""

    def __init__(self, number: int, connection: socket.socket) -> None:
        self.number = number
        self.socket = connection
        self.disturbed = False
        self.to_reset = False


class _Exchange:
    """One call and its reply."""

    def __init__(
        self, owner: ThriftServer, connection: socket.socket, number: int, request: Request
    ) -> None:
        self.request = request
        self.header = Header("", 0, 0)
        self.act: _Act | None = None
        self.over = False  # no more messages on this connection
        self._owner = owner
        self._connection = connection
        self._number = number

    # What a dialect asks for.

    def received(self, header: Header) -> None:
        self.header = header

    def execute(self, method: str, args: Sequence[Any]) -> Any:
        _, kind, seqid = self.header
        _, path, headers = self.request
        return self._owner._execute(
            ExecutedCall(method, tuple(args), seqid, kind == ONEWAY, self._number, path, headers)
        )

    def replied(self, header: Header) -> Header:
        self.header = header
        fault = self._owner._due()
        if fault is None:
            return header
        self.act = fault.act
        return fault.change(header)

    # What a fault does.

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def pause(self, seconds: float) -> None:
        _pause(self._owner, self._connection, seconds)

    def reset(self) -> None:
        _reset(self._connection)
        self.over = True


_Act = Callable[[_Exchange, bytes], None]


class _Fault(NamedTuple):
    act: _Act
    change: Callable[[Header], Header]


def _pause(server: ThriftServer, connection: socket.socket, seconds: float) -> None:
    """Raises ConnectionAbortedError when the client goes, or the server is stopped."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        # Not by a read, which TLS would get in the way of.
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if server.ending.wait(min(left, _TICK)) or state[0] != _ESTABLISHED:
            raise ConnectionAbortedError("the client has gone, or the server is stopped")


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    connection.close()  # here: the base would first shut it down, which sends a FIN
