"""An XML-RPC server that keeps what it gets and fails as a test says."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from xmlrpc.client import loads
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

from sepelib.util.testing import ThreadedServer

if TYPE_CHECKING:
    import ssl

__all__ = ["ReceivedCall", "XmlRpcServer"]

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_ESTABLISHED = 1  # a state of TCP in <netinet/tcp.h>
_TICK = 0.02  # seconds until a client that has gone is noticed
_VALUE = b"<methodResponse><params><param><value>%b</value></param></params></methodResponse>"
_LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol">%b]>
""" % b"".join(b'<!ENTITY %c "%b">' % (n, b"&%c;" % (n - 1) * 10) for n in b"bcdefghij")
_HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>no</body></html>\n"


class ReceivedCall(NamedTuple):
    """A call as it came; it has been executed, or is being so."""

    method: str
    params: tuple[Any, ...]
    headers: Mapping[str, str]  # by names in lower case
    body: bytes
    connection: int  # the first one that the server accepted is 1


class XmlRpcServer(ThreadedServer):
    """An XML-RPC server on the loopback, with faults on demand.

        with XmlRpcServer({"add": operator.add}) as server:
            server.late(2.0)                            # the next reply, then no more
            xmlrpc_call(server.url, "add", 1, 2)
            assert [call.params for call in server.calls] == [(1, 2)]

    *functions*, and what is registered with `dispatcher` (of the standard library), are run and
    marshalled by `xmlrpc.server`, with None, datetime and bytes, `system.listMethods` and
    `system.multicall`. Connections are kept alive, replies from 1400 bytes on come by gzip. Any
    path is served. *users*: {name: password}, asked for by HTTP Basic. *ssl_context*: talk TLS.

    A fault strikes the replies to the next *times* calls, None: to each until `heal()`; the call
    has been executed by then. Other methods: see ThreadedServer.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        users: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        super().__init__(ssl_context=ssl_context, close_timeout=close_timeout)
        self.dispatcher = SimpleXMLRPCDispatcher(allow_none=True, use_builtin_types=True)
        self.dispatcher.register_introspection_functions()
        self.dispatcher.register_multicall_functions()
        for name, function in (functions or {}).items():
            self.dispatcher.register_function(function, name)
        self._scheme = "http" if ssl_context is None else "https"
        self._logins = None if users is None else {_basic(*user) for user in users.items()}
        self._mind = threading.Lock()  # guards all below; held for moments
        self._calls: list[ReceivedCall] = []
        self._next: list[_Fault] = []
        self._lasting: list[_Fault] = []
        self._numbers: dict[int, int] = {}  # of connections, by their descriptor
        self._last_number = 0

    @property
    def url(self) -> str:
        """http://127.0.0.1:port/RPC2, or https."""
        return f"{self._scheme}://{self.host}:{self.port}/RPC2"

    @property
    def calls(self) -> tuple[ReceivedCall, ...]:
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
        """Send *size* bytes of the reply, headers first, each *every* seconds."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            exchange.drip(reply, every, size)

        self._arm(fault, times)

    def drip_body(self, every: float, *, size: int = 1, times: int | None = 1) -> None:
        """Send the headers at once, then *size* bytes each *every* seconds."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            head, body = _parted(reply)
            exchange.send(head)
            exchange.drip(body, every, size)

        self._arm(fault, times)

    def cut(self, after: int = 0, *, times: int | None = 1) -> None:
        """Send so many bytes of the body, then close the connection; 0: not even the headers."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            head, body = _parted(reply)
            if after:
                exchange.send(head + body[:after])
            exchange.close_connection = True

        self._arm(fault, times)

    def reset(self, *, times: int | None = 1) -> None:
        """Close the connection by a TCP RST, with nothing sent."""
        self._arm(lambda exchange, reply: exchange.reset(), times)

    # Faults of the reply.

    def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = "text/xml",
        headers: Mapping[str, str] | None = None,
        times: int | None = 1,
    ) -> None:
        """Send *body* as it is."""
        lines = [
            f"HTTP/1.1 {status} as the test says",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        self._arm(lambda exchange, reply: exchange.send(data), times)

    def status(self, status: int, *, times: int | None = 1) -> None:
        """Send the proper reply, be it a fault, with another status."""

        def fault(exchange: _Exchange, reply: bytes) -> None:
            _, _, rest = reply.partition(b"\r\n")
            exchange.send(b"HTTP/1.1 %d as the test says\r\n%b" % (status, rest))

        self._arm(fault, times)

    def html(self, status: int = 200, *, times: int | None = 1) -> None:
        """Send a page, as a proxy does that wants a login."""
        self.reply(_HTML, status=status, content_type="text/html; charset=utf-8", times=times)

    def redirect(self, location: str, status: int = 302, *, times: int | None = 1) -> None:
        """Send the client elsewhere."""
        self.reply(b"", status=status, headers={"Location": location}, times=times)

    def entities(self, *, times: int | None = 1) -> None:
        """Send a DTD whose entities are of 3 GB when they are expanded."""
        self.reply(_LAUGHS + _VALUE % b"&j;", times=times)

    def oversized(self, size: int, *, times: int | None = 1) -> None:
        """Send a string of so many bytes."""
        self.reply(_VALUE % (b"x" * size), times=times)

    def gzip_bomb(self, size: int = 64 << 20, *, times: int | None = 1) -> None:
        """Send a string of so many bytes as a thousandth of them."""
        body = gzip.compress(_VALUE % (b"x" * size))
        self.reply(body, headers={"Content-Encoding": "gzip"}, times=times)

    def heal(self) -> None:
        """No fault any more. Those under way go on."""
        with self._mind:
            self._next, self._lasting = [], []

    # Inside.

    def opened(self, connection: socket.socket) -> None:
        with self._mind:
            self._last_number += 1
            self._numbers[connection.fileno()] = self._last_number

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with self._mind:
            number = self._numbers[connection.fileno()]
        _Exchange(connection, peer, self, number)

    def _arm(self, fault: _Fault, times: int | None) -> None:
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

    def _welcomes(self, authorization: str | None) -> bool:
        return self._logins is None or authorization in self._logins

    def _run(self, body: bytes, headers: Mapping[str, str], connection: int) -> bytes:
        with contextlib.suppress(Exception):  # what cannot be read gets its fault below
            params, method = loads(body, use_builtin_types=True)
            with self._mind:
                self._calls.append(
                    ReceivedCall(str(method), tuple(params), headers, body, connection)
                )
        reply: Any = self.dispatcher._marshaled_dispatch(body)
        return reply if isinstance(reply, bytes) else str(reply).encode()


class _Exchange(SimpleXMLRPCRequestHandler):
    """One connection, read and answered by the standard library but for the last step."""

    protocol_version = "HTTP/1.1"
    rpc_paths = ()
    server: Any
    connection: socket.socket

    def __init__(
        self,
        connection: socket.socket,
        peer: tuple[str, int],
        owner: XmlRpcServer,
        number: int,
    ) -> None:
        self._owner = owner
        self._number = number
        super().__init__(connection, peer, self)  # type: ignore[arg-type]

    # What the handler of the standard library asks its server for, which is itself here.
    logRequests = False

    def _marshaled_dispatch(self, data: bytes, *_: object) -> bytes:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self._owner._run(data, headers, self._number)

    def do_POST(self) -> None:
        wfile, self.wfile = self.wfile, io.BytesIO()
        if self._owner._welcomes(self.headers["Authorization"]):
            super().do_POST()
        else:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        reply, self.wfile = self.wfile.getvalue(), wfile
        fault = self._owner._due()
        if fault is None:
            self.send(reply)
        else:
            fault(self, reply)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: bytes, every: float, size: int) -> None:
        for place in range(0, len(data), size):
            self.pause(every)
            self.send(data[place : place + size])

    def pause(self, seconds: float) -> None:
        """Raises ConnectionAbortedError when the client goes, or the server is stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._owner.ending.wait(min(left, _TICK)) or self._client_has_gone():
                raise ConnectionAbortedError

    def _client_has_gone(self) -> bool:
        # Not by a read, which TLS would get in the way of.
        state = self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state[0] != _ESTABLISHED

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.connection.close()  # here: the base would first shut it down, which sends a FIN
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


_Fault: TypeAlias = Callable[[_Exchange, bytes], None]


def _parted(reply: bytes) -> tuple[bytes, bytes]:
    head, blank, body = reply.partition(b"\r\n\r\n")
    return head + blank, body


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
