"""Thrift messages over HTTP: POST on a kept connection, the status checked, everything bounded.

The body of a reply is of one of four kinds, which tell how its end is found:

    LENGTH   by Content-Length          CHUNKED  by a last chunk of no bytes
    TO_END   by the connection's        NONE     read to its end, or there is none
"""

from __future__ import annotations

import enum
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sepelib.rpc._connection import Connect, Connection, PeerClosed, ReplyRefused
from sepelib.rpc._http_head import (
    HttpTarget,
    ReplyHead,
    parse_reply_head,
    refusal,
    with_excerpt,
)
from sepelib.rpc._wire import Wire, open_wire

if TYPE_CHECKING:
    import ssl

__all__ = ["HttpConnection", "http_connect"]

_READ = 16 << 10  # bytes at once: a head and most bodies
_MAX_HEAD = 32 << 10  # bytes, of trailers as well
_MAX_CHUNK_LINE = 1 << 10  # bytes, with extensions that nobody uses
_PATIENCE = 0.2  # seconds for what is only nice to have: a page's first words, a last chunk
_BLANK = b"\r\n\r\n"


class _Body(enum.Enum):
    NONE = "no more"
    LENGTH = "of a known length"
    CHUNKED = "in chunks"
    TO_END = "until the connection ends"


def http_connect(max_message: int, ssl_context: ssl.SSLContext | None) -> Connect[HttpTarget]:
    """Connects to URLs, those of https by *ssl_context* or by one that trusts what the system does.

    The latter is made at the first connection and then kept.
    """

    def connect(target: HttpTarget, end: float) -> HttpConnection:
        nonlocal ssl_context
        if target.tls and ssl_context is None:
            import ssl

            ssl_context = ssl.create_default_context()
        wire = open_wire(target.address, end, ssl_context if target.tls else None)
        return HttpConnection(wire, target.head, max_message)

    return connect


class HttpConnection(Connection):
    """One request at a time; the next one only after a body read to its end."""

    __slots__ = (
        "_ahead",
        "_begun",
        "_body",
        "_end",
        "_head",
        "_keeps",
        "_left",
        "_max_message",
        "_room",
        "_wire",
    )

    def __init__(self, wire: Wire, head: bytes, max_message: int) -> None:
        self._wire = wire
        self._head = head
        self._max_message = max_message

    def send(self, message: bytes, end: float) -> None:
        self.replied = self._begun = False
        self._ahead = b""
        self._end = end
        self._wire.send(b"%b%d\r\n\r\n%b" % (self._head, len(message), message), end)

    def receive(self, size: int) -> bytes:
        if not self._begun:
            self._begin()
        if not self._left:
            self._next_part()
        wanted = min(size, self._left)
        if self._ahead:
            data, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
        else:
            data = self._more(wanted)
        self._left -= len(data)
        return data

    def is_at_end(self) -> bool:
        if not self._begun or self._left or not self._keeps:
            return False
        if self._body is _Body.CHUNKED:
            # The caller has its result: what is left is worth a moment, and no error.
            self._end = min(self._end, time.monotonic() + _PATIENCE)
            try:
                self._next_chunk()
            except (OSError, ReplyRefused):
                return False
        return not self._left and not self._ahead

    def confirm(self) -> None:
        self._begin()

    def is_fresh(self) -> bool:
        return self._wire.is_fresh()

    def close(self) -> None:
        self._wire.close()

    # Inside.

    def _more(self, size: int) -> bytes:
        data = self._wire.receive(size, self._end)
        if not data:
            raise PeerClosed("the peer has closed the connection")
        self.replied = True
        return data

    def _begin(self) -> None:
        head = self._read_head()
        while head.status < 200:  # 100 Continue and its like go before the reply
            head = self._read_head()
        if why_not := refusal(head):
            raise ReplyRefused(with_excerpt(why_not, self._first_words(head)))
        self._begun = True
        self._keeps = head.keeps
        self._left = 0
        self._room = self._max_message
        if head.chunked:
            self._body = _Body.CHUNKED
        elif head.length is not None:
            self._body = _Body.LENGTH
            self._take_room(head.length)
        elif head.status == 204:
            self._body = _Body.NONE
        else:
            self._body = _Body.TO_END
            self._keeps = False
            self._take_room(self._room)

    def _read_head(self) -> ReplyHead:
        data = self._ahead or self._more(_READ)
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise ReplyRefused("the answer is not HTTP/1")
        while (place := data.find(_BLANK)) < 0:
            if len(data) > _MAX_HEAD:
                raise ReplyRefused(f"the headers of the reply are over {_MAX_HEAD} bytes")
            data += self._more(_READ)
        self._ahead = data[place + len(_BLANK) :]
        return parse_reply_head(data[:place])

    def _take_room(self, size: int) -> None:
        self._left = size
        self._room -= size
        if self._room < 0:
            raise ReplyRefused(f"the reply is larger than max_message={self._max_message} bytes")

    def _next_part(self) -> None:
        """Set `_left`, as more of the body is asked for."""
        if self._body is _Body.CHUNKED:
            self._next_chunk()
        elif self._body is _Body.TO_END:
            raise ReplyRefused(f"the reply is larger than max_message={self._max_message} bytes")
        if not self._left:
            raise ReplyRefused("the body ends inside the reply")

    def _next_chunk(self) -> None:
        if self._room < self._max_message and self._line(0):
            raise ReplyRefused("a chunk of the reply is longer than it says")
        digits = self._line(_MAX_CHUNK_LINE).partition(b";")[0].strip(b" \t")
        try:
            size = int(digits, 16) if digits.isalnum() else -1
        except ValueError:
            size = -1
        if not 0 <= size < 1 << 60:
            raise ReplyRefused("the size of a chunk is broken")
        if size:
            self._take_room(size)
            return
        trailers = 0
        while line := self._line(_MAX_HEAD):
            trailers += len(line)
            if trailers > _MAX_HEAD:
                raise ReplyRefused(f"the trailers of the reply are over {_MAX_HEAD} bytes")
        self._body = _Body.NONE

    def _line(self, limit: int) -> bytes:
        while (place := self._ahead.find(b"\r\n")) < 0:
            if len(self._ahead) > limit + 1:
                raise ReplyRefused("a line between the chunks of the reply is too long")
            self._ahead += self._more(_READ)
        line, self._ahead = self._ahead[:place], self._ahead[place + 2 :]
        return line

    def _first_words(self, head: ReplyHead) -> bytes:
        if not self._ahead and head.length != 0:
            self._end = min(self._end, time.monotonic() + _PATIENCE)
            with suppress(OSError):
                return self._more(_READ)
        return self._ahead
