"""What goes over the wire, read and written: requests as they come, replies as they shall look.

Source: RFC 9110 and RFC 9112, as far as a test needs them.
"""

from __future__ import annotations

import http
import json as _json
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

__all__ = ["Body", "Connection", "Headers", "ReceivedRequest", "Reply", "RequestHead"]

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
Body: TypeAlias = bytes | str | Iterable[bytes]

_HEAD_LIMIT = 1 << 20
_BODILESS = (204, 304)


class ReceivedRequest(NamedTuple):
    """A request as it came."""

    method: str
    target: str  # as on the wire, with the query
    headers: tuple[tuple[str, str], ...]  # in the order and the case they came
    body: bytes  # without the framing of chunks
    connection: int  # the first one that the server accepted is 1
    time: float  # time.monotonic() when the last byte had come
    version: str = "HTTP/1.1"
    args: Mapping[str, str] = {}  # what stands for the {names} of the route, unquoted

    @property
    def path(self) -> str:
        """The target without its query, still quoted."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The parameters of the target, unquoted, in their order."""
        return tuple(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The value of the header *name* in any case; of several joined by ", "."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def json(self) -> Any:
        """The body, parsed."""
        return _json.loads(self.body)


class Reply:
    """What a route answers: *json* is encoded, a *body* of str too, as UTF-8.

    An iterable *body* is sent in chunks, each when it is made. Content-Length or Transfer-Encoding
    and Content-Type are added unless *headers* have them.
    """

    def __init__(
        self,
        status: int = 200,
        *,
        headers: Headers = (),
        body: Body = b"",
        json: object = ...,
        reason: str | None = None,
    ) -> None:
        self.status = status
        self.headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        if json is not ...:
            body = _json.dumps(json)
            self._add("Content-Type", "application/json")
        elif isinstance(body, str):
            self._add("Content-Type", "text/plain; charset=utf-8")
        self.body = body.encode() if isinstance(body, str) else body
        self.reason = _reason(status) if reason is None else reason

    def head(self, *, framing: Headers | None = None, last: bool = False) -> bytes:
        """The status line and the headers.

        *framing* takes the place of Content-Length or Transfer-Encoding; *last* says that the
        connection will be closed.
        """
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        if framing is None:
            framing = self._framing()
        given = list(framing.items() if isinstance(framing, Mapping) else framing)
        if last and not self._has("Connection"):
            given.append(("Connection", "close"))
        lines += [f"{name}: {value}" for name, value in [*self.headers, *given]]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def content(self) -> bytes:
        """The whole body, also of an iterable."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)

    def _framing(self) -> dict[str, str]:
        if self.status in _BODILESS or self._has("Content-Length", "Transfer-Encoding"):
            return {}
        if isinstance(self.body, bytes):
            return {"Content-Length": str(len(self.body))}
        return {"Transfer-Encoding": "chunked"}

    def _has(self, *names: str) -> bool:
        wanted = {name.lower() for name in names}
        return any(name.lower() in wanted for name, _ in self.headers)

    def _add(self, name: str, value: str) -> None:
        if not self._has(name):
            self.headers.append((name, value))


class RequestHead(NamedTuple):
    """The first part of a request, up to the empty line."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> str:
        """All values of the header *name*, in lower case."""
        return ",".join(value.lower() for key, value in self.headers if key.lower() == name)

    @property
    def keeps_alive(self) -> bool:
        return self.version == "HTTP/1.1" and "close" not in self.values("connection")


class Connection:
    """The bytes that a client sends. EOFError once it has gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    def wait(self) -> None:
        """Return when the first byte of the next request is there."""
        if not self._received:
            self._receive()

    def read_head(self) -> RequestHead:
        while b"\r\n\r\n" not in self._received:
            if len(self._received) > _HEAD_LIMIT:
                raise ValueError(f"a request's head has no end in {_HEAD_LIMIT} bytes")
            self._receive()
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise ValueError(f"not the first line of a request: {first!r}")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError(f"not a header: {line!r}")
            headers.append((name, value.strip()))
        return RequestHead(words[0], words[1], words[2], tuple(headers))

    def read_body(self, head: RequestHead) -> bytes:
        length, coding = head.values("content-length"), head.values("transfer-encoding")
        if length and coding:
            raise ValueError("a request has Content-Length and Transfer-Encoding")
        if length or coding:
            if head.values("expect") == "100-continue":
                self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return self._chunks() if coding else self._exactly(int(length))
        return b""

    def _chunks(self) -> bytes:
        chunks = []
        while size := int(self._line().partition(b";")[0], 16):
            chunks.append(self._exactly(size))
            self._exactly(2)
        while self._line():
            pass  # trailers
        return b"".join(chunks)

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._receive()
        line, self._received = self._received.split(b"\r\n", 1)
        return line

    def _exactly(self, count: int) -> bytes:
        pieces, missing = [self._received], count - len(self._received)
        while missing > 0:
            self._received = b""
            self._receive()
            pieces.append(self._received)
            missing -= len(self._received)
        data = b"".join(pieces)
        self._received = data[count:]
        return data[:count]

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._received += data


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
