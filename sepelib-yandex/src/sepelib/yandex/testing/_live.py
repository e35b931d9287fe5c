"""The way to a fake over HTTP: a thread per connection, or a greenlet in a patched process."""

from __future__ import annotations

import http.client
import socket
import struct
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from sepelib.util.testing import ThreadedServer

from ._request import FakeRequest, Reply

if TYPE_CHECKING:
    from ._service import FakeService

__all__ = ["LiveServer"]

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class LiveServer(ThreadedServer):
    """Serves one fake over HTTP/1.1, with connections kept alive."""

    def __init__(self, fake: FakeService[Any]) -> None:
        super().__init__()
        self.fake = fake

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        _Talk(connection, peer, self)


class _Talk(BaseHTTPRequestHandler):
    """One connection. The base class reads the heads of its requests."""

    protocol_version = "HTTP/1.1"
    server: LiveServer  # type: ignore[assignment]  # it only hands it through

    def __init__(self, connection: socket.socket, peer: tuple[str, int], server: LiveServer):
        super().__init__(connection, peer, server)  # type: ignore[arg-type]  # see above

    def answer(self) -> None:
        delivery = self.server.fake.answer(self._asked())
        cut = bool(delivery.delay) and self.server.ending.wait(delivery.delay)
        if cut or delivery.reply is None:
            self._reset()
        else:
            self._send(delivery.reply, delivery.drip)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def _asked(self) -> FakeRequest:
        host = self.headers.get("Host", f"{self.server.host}:{self.server.port}")
        return FakeRequest(
            self.command, f"http://{host}{self.path}", dict(self.headers), self._body()
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(chunks)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError("the client went away in the middle of its request")
        return body

    def _send(self, reply: Reply, drip: float) -> None:
        reason = http.client.responses.get(reply.status, "Unknown")
        head = [f"HTTP/1.1 {reply.status} {reason}"]
        head += [f"{name}: {value}" for name, value in reply.headers]
        if reply.header("Content-Length") is None and reply.status != 204:
            head.append(f"Content-Length: {len(reply.body)}")
        if self.close_connection:
            head.append("Connection: close")
        text = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        body = b"" if self.command == "HEAD" else reply.body
        if not drip:
            self.wfile.write(text + body)
            return
        self.wfile.write(text)
        for at in range(len(body)):
            if self.server.ending.wait(drip):
                self._reset()
                return
            self.wfile.write(body[at : at + 1])

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.connection.close()  # here: the base of the server would first send a FIN

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the fake has its `calls`."""
