"""A raw HTTP/1.1 client whose every byte a test decides.

with SlowClient(server.address) as client:
    client.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    client.send(b"a" * 50, every=0.1)       # a byte each 0.1 s
    assert client.answer().status == 408
    assert client.closed()
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["Answer", "NoAnswer", "SlowClient"]

_PIECE = 65536


class NoAnswer(ConnectionError):
    """The server closed the connection, or was silent, where an answer was due.

    `received` is what came of it.
    """

    def __init__(self, why: str, received: bytes = b"") -> None:
        super().__init__(f"{why}, after {received[:200]!r}")
        self.why = why
        self.received = received

    def __reduce__(self) -> tuple[type[NoAnswer], tuple[str, bytes]]:
        return type(self), (self.why, self.received)


class Answer:
    """What came: `headers` by lower-case name, the last of several; `complete` unless it was cut.

    An answer without a length, to be ended by the connection, is complete when that was orderly.
    """

    def __init__(self, status: int, headers: dict[str, str], head: bytes) -> None:
        self.status = status
        self.headers = headers
        self.head = head
        self.body = b""
        self.complete = False

    def __repr__(self) -> str:
        cut = "" if self.complete else ", cut"
        return f"Answer({self.status}, {self.headers}, {self.body[:60]!r}{cut})"


class SlowClient:
    """Connects at once to *address*, a host and a port or the path of a unix socket.

    *tls*: a context for a TLS connection to *server_hostname*. *receive_buffer*: bytes that the
    kernel takes for us unread, for a client that does not read. Each wait ends after *timeout*
    seconds with TimeoutError. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str = "localhost",
        timeout: float = 20.0,
        receive_buffer: int | None = None,
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.timeout = timeout
        self._buffer = bytearray()  # grows in place: who copies it for each piece is slow for real
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(timeout)
            if receive_buffer is not None:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._sock.connect(address)
            if family == socket.AF_INET:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                # An end without close_notify is an error: it could be somebody's in between.
                self._sock = tls.wrap_socket(
                    self._sock, server_hostname=server_hostname, suppress_ragged_eofs=False
                )
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> SlowClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes, *, every: float = 0.0, piece: int = 1) -> int:
        """Send *data*, if *every* is given in pieces of *piece* bytes, that many seconds apart.

        Returns how much went out before the server closed the connection.
        """
        size = piece if every else len(data)
        sent = 0
        while sent < len(data):
            try:
                self._sock.sendall(data[sent : sent + size])
            except (BrokenPipeError, ConnectionResetError):
                break
            sent += size
            if every and sent < len(data):
                time.sleep(every)
        return min(sent, len(data))

    def get(self, target: str = "/", *headers: str) -> Answer:
        """Ask for *target*, with further headers as `Name: value`, and read the answer."""
        lines = [f"GET {target} HTTP/1.1", "Host: test", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))
        return self.answer()

    def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer, to a HEAD request one without a body. Raises NoAnswer."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._receive():
                raise NoAnswer("closed", bytes(self._buffer))
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        answer = Answer(int(lines[0].split()[1]), headers, bytes(head))
        if to_head or answer.status in (204, 304) or answer.status < 200:
            answer.complete = True
        elif headers.get("transfer-encoding") == "chunked":
            answer.body, answer.complete = self._chunks()
        elif "content-length" in headers:
            length = int(headers["content-length"])
            answer.body = self._exactly(length)
            answer.complete = len(answer.body) == length
        else:
            answer.complete = self._until_closed()
            answer.body, self._buffer = bytes(self._buffer), bytearray()
        return answer

    def receive(self, size: int) -> bytes:
        """Up to *size* bytes of whatever comes; b"" when the server has closed."""
        if not self._buffer:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(data)

    def closed(self, within: float | None = None) -> bool:
        """Whether the server closes, having sent nothing more, within that time (or `timeout`)."""
        self._sock.settimeout(self.timeout if within is None else within)
        try:
            return not self._buffer and not self._receive()
        except TimeoutError:
            return False
        finally:
            self._sock.settimeout(self.timeout)

    def half_close(self) -> None:
        """Say that nothing more will be sent; answers can still be read."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a reset, as a client that crashes."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> bool:
        """Whether something came; raises TimeoutError. A reset is an end like any other."""
        try:
            data = self._sock.recv(_PIECE)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)

    def _until_closed(self) -> bool:
        """Whether the end was an orderly one."""
        with suppress(ConnectionResetError):
            while data := self._sock.recv(_PIECE):
                self._buffer += data
            return True
        return False

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size and self._receive():
            pass
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(data)

    def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while True:
            while b"\r\n" not in self._buffer:
                if not self._receive():
                    return b"".join(parts), False
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line, 16)
            data = self._exactly(size + 2)
            if len(data) < size + 2:
                return b"".join([*parts, data[:size]]), False
            if not size:
                return b"".join(parts), True
            parts.append(data[:-2])
