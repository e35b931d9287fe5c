"""How messages lie on a connection, seen from the server: bare, framed or in HTTP."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ._thrift_dialects import Source

__all__ = ["Envelope", "Request", "Stream", "envelope_of"]

Envelope: TypeAlias = Literal["buffered", "framed", "http"]

_BLANK = b"\r\n\r\n"


class Stream:
    """Bytes of a connection; it ends by ConnectionAbortedError, between messages by None."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._kept = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._kept) < size:
            self._more()
        return self._take(size)

    def until(self, end: bytes) -> bytes:
        while (place := self._kept.find(end)) < 0:
            self._more()
        return self._take(place + len(end))

    def begun(self) -> bool:
        """Wait for the first byte of a message; False when the client has ended before it."""
        if self._kept:
            return True
        self._kept += self._connection.recv(65536)
        return bool(self._kept)

    def _more(self) -> None:
        if not (data := self._connection.recv(65536)):
            raise ConnectionAbortedError("the client went in the middle of a message")
        self._kept += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._kept[:size])
        del self._kept[:size]
        return data


class Request(NamedTuple):
    """Where the message of a request is read from, and what came with it."""

    source: Source
    path: str = ""
    headers: Mapping[str, str] = {}


class Wire(Protocol):
    def request(self, stream: Stream) -> Request:
        """Read what goes before the message, or all of it."""

    def wrapped(self, message: bytes) -> bytes:
        """All that is sent for this reply."""


def envelope_of(envelope: Envelope) -> Wire:
    wires: dict[Envelope, type[Wire]] = {"buffered": _Buffered, "framed": _Framed, "http": _Http}
    return wires[envelope]()


class _Buffered:
    def request(self, stream: Stream) -> Request:
        return Request(stream)

    def wrapped(self, message: bytes) -> bytes:
        return message


class _Framed:
    def request(self, stream: Stream) -> Request:
        return Request(_Message(stream.read(int.from_bytes(stream.read(4), "big"))))

    def wrapped(self, message: bytes) -> bytes:
        return len(message).to_bytes(4, "big") + message if message else b""


class _Http:
    def request(self, stream: Stream) -> Request:
        first, *lines = stream.until(_BLANK).decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        if method != "POST":
            raise ValueError(f"{method} {path}: Thrift comes by POST")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = stream.read(int(headers["content-length"]))
        return Request(_Message(body), path, headers)

    def wrapped(self, message: bytes) -> bytes:
        return http_reply(message)


def http_reply(body: bytes, status: str = "200 OK", kind: str = "application/x-thrift") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Message:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._data):
            raise EOFError(f"the message ends after {len(self._data)} bytes, not {end}")
        data, self._place = self._data[self._place : end], end
        return data
