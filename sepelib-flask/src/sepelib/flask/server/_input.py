"""The body of a request, as `wsgi.input`: bounded in time and size, strict about chunks.

A body that breaks a bound raises one of werkzeug's exceptions from `read()`, so that Flask answers
with 413, 408 or 400; from then on every read raises it, and the connection ends with the answer.
What the application leaves unread is read and thrown away if little, else the connection ends: it
is never taken for the next request.

Source: RFC 9112, 6 and 7.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    RequestEntityTooLarge,
    RequestTimeout,
)

from sepelib.flask.server._connection import Connection, End, Pace
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._parser import CHUNKED, check_trailer

__all__ = [
    "NO_BODY",
    "Body",
    "BodyCut",
    "BodyMalformed",
    "BodyStalled",
    "BodyTooLarge",
    "body_of",
]

_SKIPPED = 65536  # bytes of a body nobody wanted that are read to keep the connection
_PIECE = 65536
_LINE_PIECE = 8192

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_MAX_CHUNK_LINE = 256
# Lines and extensions may cost 16 bytes a chunk and twice its data, and this much beside.
_MAX_EXCESS = 16384

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLarge(RequestEntityTooLarge):
    """Over `Limits.max_body_bytes`, declared or received."""

    description = "The body of the request is larger than this server takes."


class BodyStalled(RequestTimeout):
    """The client sends too slowly or not at all."""

    description = "The body of the request did not come in time."


class BodyCut(ClientDisconnected):
    """The client went away in the middle."""

    description = "The body of the request is incomplete."


class BodyMalformed(BadRequest):
    """Not the chunks that Transfer-Encoding announced."""

    description = "The body of the request is not properly chunked."


_Failure = BodyTooLarge | BodyStalled | BodyCut | BodyMalformed

_FAILURES = (BodyTooLarge, BodyStalled, BodyCut, BodyMalformed)

_REASONS: dict[type[_Failure], str] = {
    BodyTooLarge: "body_too_large",
    BodyStalled: "body_timeout",
    BodyCut: "body_cut",
    BodyMalformed: "body_malformed",
}


class Body:
    """That of a request without one; the base of the others."""

    __slots__ = ()

    def read(self, size: int | None = -1, /) -> bytes:
        """*size* bytes, all that remain when it is negative or None; fewer only at the end."""
        return b""

    def readline(self, size: int | None = -1, /) -> bytes:
        return b""

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def answered(self) -> bool:
        """The answer begins: whether another request can follow this body."""
        return True

    def skip(self) -> bool:
        """Throw away what is left, if little; whether the end was reached."""
        return True


NO_BODY = Body()


class _Received(Body):
    """A body that comes in over the connection; subclasses know where it ends."""

    __slots__ = (
        "_at",
        "_broken",
        "_connection",
        "_expects",
        "_max",
        "_pace",
        "_raw",
        "_reject",
        "_spare",
    )

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        expects: bool,
        reject: Callable[[str], object],
    ) -> None:
        self._connection = connection
        self._max = limits.max_body_bytes
        self._pace = Pace(limits.body_timeout, limits.min_rate)
        self._expects = expects
        self._reject = reject
        self._broken: type[_Failure] | None = None
        self._spare = b""  # of the body: what readline() took beyond its line
        # Of the wire: what was received with the head, and then what we receive. Indexed, as a
        # slice for each of many small chunks would copy it over and over.
        self._raw = connection.buffer
        self._at = 0
        connection.buffer = b""

    def read(self, size: int | None = -1, /) -> bytes:
        left = -1 if size is None or size < 0 else size
        parts = []
        while left and (data := self._next(_PIECE if left < 0 else left)):
            parts.append(data)
            if left > 0:
                left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        left = -1 if size is None or size < 0 else size
        parts = []
        while left and (data := self._next(_LINE_PIECE if left < 0 else min(left, _LINE_PIECE))):
            end = data.find(b"\n") + 1
            if end:
                self._spare = data[end:] + self._spare
                data = data[:end]
            parts.append(data)
            if end:
                break
            if left > 0:
                left -= len(data)
        return b"".join(parts)

    def _next(self, most: int) -> bytes:
        """1 to *most* bytes, or none at the end."""
        if self._spare:
            data, self._spare = self._spare[:most], self._spare[most:]
            return data
        if self._broken is not None:
            raise self._broken()
        return self._fetch(most)

    def _fetch(self, most: int) -> bytes:
        raise NotImplementedError

    def _take(self, most: int) -> bytes:
        """1 to *most* bytes of the wire."""
        if self._at == len(self._raw):
            self._receive()
        data = self._raw[self._at : self._at + most]
        self._at += len(data)
        return data

    def _receive(self) -> None:
        connection, pace = self._connection, self._pace
        if self._expects:
            self._expects = False
            try:
                connection.send(_CONTINUE, pace)
            except OSError:
                raise self._failure(BodyCut) from None
        start = time.monotonic()
        data = connection.receive(start + pace.patience())
        pace.note(time.monotonic() - start, len(data))
        if not data:
            raise self._failure(BodyStalled if connection.end is End.EXPIRED else BodyCut)
        self._raw = self._raw[self._at :] + data
        self._at = 0

    def _failure(self, kind: type[_Failure]) -> _Failure:
        self._broken = kind
        self._connection.last = True
        if kind is BodyCut:
            self._connection.gone = True
        self._reject(_REASONS[kind])
        return kind()

    def _end(self) -> None:
        """The body is complete: what follows is the next request's."""
        self._connection.buffer = self._raw[self._at :]
        self._raw, self._at = b"", 0


class _LengthBody(_Received):
    __slots__ = ("_left", "_length")

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        expects: bool,
        reject: Callable[[str], object],
        length: int,
    ) -> None:
        super().__init__(connection, limits, expects, reject)
        self._length = self._left = length

    def _fetch(self, most: int) -> bytes:
        if not self._left:
            return b""
        if self._max is not None and self._length > self._max:
            raise self._failure(BodyTooLarge)
        data = self._take(min(most, self._left))
        self._left -= len(data)
        if not self._left:
            self._end()
        return data

    def answered(self) -> bool:
        # A client that still waits for 100 Continue may send the body or not: nobody can tell.
        awaited, self._expects = self._expects, False
        return self._broken is None and not (self._left and awaited) and self._left <= _SKIPPED

    def skip(self) -> bool:
        if self._left > _SKIPPED:
            return False
        try:
            while self._broken is None and self._fetch(_PIECE):
                pass
        except _FAILURES:
            pass
        return self._broken is None


class _ChunkedBody(_Received):
    __slots__ = ("_ended", "_excess", "_left", "_limits", "_total")

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        expects: bool,
        reject: Callable[[str], object],
    ) -> None:
        super().__init__(connection, limits, expects, reject)
        self._limits = limits
        self._left = -1  # of the present chunk; -1: before the first
        self._total = 0
        self._excess = 0
        self._ended = False

    def _fetch(self, most: int) -> bytes:
        while self._left <= 0:
            if self._ended:
                return b""
            self._next_chunk()
        data = self._take(min(most, self._left))
        self._left -= len(data)
        return data

    def _next_chunk(self) -> None:
        if self._left == 0 and self._line(0) != b"":
            raise self._failure(BodyMalformed)
        line = self._line(_MAX_CHUNK_LINE)
        match = _CHUNK(line)
        if match is None:
            raise self._failure(BodyMalformed)
        self._left = size = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) - 16 - 2 * size)
        if self._excess > _MAX_EXCESS:
            raise self._failure(BodyMalformed)
        self._total += size
        if self._max is not None and self._total > self._max:
            raise self._failure(BodyTooLarge)
        if size == 0:
            self._trailers()
            self._ended = True
            self._end()

    def _trailers(self) -> None:
        size = 0
        for _ in range(self._limits.max_headers + 1):
            line = self._line(self._limits.max_header_bytes - size)
            if not line:
                return
            size += len(line) + 2
            try:
                check_trailer(line)
            except ValueError:
                break
        raise self._failure(BodyMalformed)

    def _line(self, most: int) -> bytes:
        """The next line of the wire, of at most *most* bytes, without its CRLF."""
        while (end := self._raw.find(b"\r\n", self._at)) < 0:
            pending = len(self._raw) - self._at
            if pending > most + 1 or self._raw.find(b"\n", self._at) >= 0:
                raise self._failure(BodyMalformed)
            self._receive()
        line = self._raw[self._at : end]
        if len(line) > most:
            raise self._failure(BodyMalformed)
        self._at = end + 2
        return line

    def answered(self) -> bool:
        self._expects = False
        return self._ended

    def skip(self) -> bool:
        return self._ended


def body_of(
    length: int,
    connection: Connection,
    limits: Limits,
    expects: bool,
    reject: Callable[[str], object],
) -> Body:
    """*length* as `parse_head()` has it; *reject* counts the reason of a failure."""
    if length == CHUNKED:
        return _ChunkedBody(connection, limits, expects, reject)
    if length:
        return _LengthBody(connection, limits, expects, reject, length)
    return NO_BODY
