"""One answer on its way to the client: checked, framed, and in as few writes as it can be.

A body whose length is known (the application's Content-Length, or a list) goes as it is; any other
is chunked, or for HTTP/1.0 ends with the connection. The head waits for the first part of the body
and leaves together with it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import TracebackType

from sepelib.flask.server._connection import Connection, Pace
from sepelib.flask.server._input import Body

__all__ = ["BadAnswer", "Response", "closing_answer", "status_line"]

_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_STATUS = re.compile(r"[2-9]\d\d( .*)?").fullmatch
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

# Names of headers that applications send, checked once, in lower case.
_names: dict[str, str] = {}
_MAX_NAMES = 256
_FRAMING = frozenset(["connection", "content-length", "date", "transfer-encoding"])

_JOINED = 65536  # bytes; what is more goes out without having been copied behind the head

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class BadAnswer(ValueError):
    """What the application answers breaks HTTP or PEP 3333."""


class Response:
    """*body* is the request's: how much of it is unread decides what becomes of the connection."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_chunked",
        "_connection",
        "_date_given",
        "_head",
        "_head_only",
        "_left",
        "_modern",
        "_pace",
        "body_bytes",
        "complete",
        "head_sent",
        "keep_alive",
        "status",
    )

    def __init__(
        self,
        connection: Connection,
        body: Body,
        pace: Pace,
        head_only: bool = False,
        modern: bool = True,
        keep_alive: bool = False,
    ) -> None:
        self._connection = connection
        self._body = body
        self._pace = pace
        self._head_only = head_only
        self._modern = modern  # HTTP/1.1
        self._head: bytes | None = None
        self._bodiless = False
        self._date_given = False
        self._left: int | None = None  # of a body whose length is known
        self._chunked = False
        self.keep_alive = keep_alive
        self.status = 0
        self.head_sent = False
        self.body_bytes = 0
        self.complete = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether the client takes an orderly end of the connection for the end of the answer."""
        return self.head_sent and not (self._chunked or self._bodiless or self._left is not None)

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: _ExcInfo | None = None,
        /,
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response(). Raises BadAnswer and TypeError."""
        if exc_info is not None:
            self.restart(exc_info)
        elif self._head is not None:
            raise BadAnswer("start_response() called again, without exc_info")
        if not _STATUS(status):
            raise BadAnswer(f"an impossible status: {status!r}")
        code = int(status[:3])
        left = None
        lines = ["HTTP/1.1 " + status]
        for name, value in headers:
            lower = _names.get(name) or _checked(name)
            if lower in _FRAMING:
                if lower == "content-length":
                    left = _length(value, left)
                    if code == 204:  # RFC 9110 8.6: has none
                        continue
                elif lower == "connection":
                    if "close" in value.lower():
                        self.keep_alive = False
                    continue
                elif lower == "transfer-encoding":
                    raise BadAnswer("Transfer-Encoding is for the server to choose")
                else:
                    self._date_given = True
            lines.append(name + ": " + value)
        try:
            head = "\r\n".join(lines).encode("latin-1")
        except UnicodeEncodeError as error:
            raise BadAnswer(
                f"a header is not latin-1: {error.object[error.start :][:20]!r}"
            ) from None
        if head.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
            raise BadAnswer("a control character in the status or a header")
        self._head = head
        self._left = left
        self._bodiless = self._head_only or code == 204 or code == 304
        self.status = code
        return self.write

    def restart(self, exc_info: _ExcInfo | None = None) -> None:
        """Forget what `start()` was told. Raises *exc_info*'s error if the head is out."""
        try:
            if self.head_sent:
                assert exc_info is not None and exc_info[1] is not None
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            exc_info = None  # else the traceback and this frame would keep each other
        self._head = self._left = None
        self._date_given = False

    def write(self, data: bytes) -> None:
        """Send a part of the body. OSError when the client is gone."""
        if not self.head_sent:
            self._begin(data, whole=False)
        elif data:
            self._send(self._framed(data))

    def send(self, result: Iterable[bytes]) -> None:
        """Send what the application returned, to the last byte."""
        if type(result) is list or type(result) is tuple:
            data = b"".join(result)
            if self.head_sent:  # by write()
                self.write(data)
            else:
                self._begin(data, whole=True)
        else:
            for data in result:
                if data:
                    self.write(data)
            if not self.head_sent:
                self._begin(b"", whole=True)
        if self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._left and not self._bodiless:
            raise BadAnswer(f"the body is {self._left} bytes shorter than its Content-Length")
        self.complete = True

    def _begin(self, data: bytes, whole: bool) -> None:
        if self._head is None:
            raise BadAnswer("start_response() was not called")
        connection = self._connection
        keep_alive = self.keep_alive and not connection.last and self._body.answered()
        head = self._head if self._date_given else self._head + _date()
        if self._left is None and self.status != 204 and self.status != 304:
            if whole:
                if data or not self._head_only:  # else a HEAD, of whose GET we know nothing
                    self._left = len(data)
                    head += b"\r\nContent-Length: %d" % len(data)
            elif self._modern:
                if not self._head_only:
                    self._chunked = True
                head += b"\r\nTransfer-Encoding: chunked"
            elif not self._head_only:
                keep_alive = False
        if not keep_alive:
            connection.last = True
            head += b"\r\nConnection: close"
        elif not self._modern:
            head += b"\r\nConnection: keep-alive"
        self.keep_alive = keep_alive
        data = self._framed(data)
        self.head_sent = True
        if len(data) <= _JOINED:
            self._send(head + b"\r\n\r\n" + data)
        else:
            self._send(head + b"\r\n\r\n" + data[:_JOINED])
            self._send(memoryview(data)[_JOINED:])

    def _framed(self, data: bytes) -> bytes:
        """*data* as it goes out."""
        if self._bodiless:
            return b""
        size = len(data)
        if self._left is not None:
            if size > self._left:
                raise BadAnswer("the body is longer than its Content-Length")
            self._left -= size
        self.body_bytes += size
        return b"%x\r\n%b\r\n" % (size, data) if self._chunked and data else data

    def _send(self, data: bytes | memoryview) -> None:
        self._connection.send(data, self._pace)


def _checked(name: str) -> str:
    if not _NAME(name):
        raise BadAnswer(f"an impossible name of a header: {name!r}")
    lower = name.lower()
    if len(_names) < _MAX_NAMES:
        _names[name] = lower
    return lower


def _length(value: str, before: int | None) -> int:
    if not (value.isascii() and value.isdigit()):
        raise BadAnswer(f"an impossible Content-Length: {value!r}")
    if before is not None:
        raise BadAnswer("two of Content-Length")
    return int(value)


_date_made = 0
_date_line = b""


def _date() -> bytes:
    global _date_made, _date_line
    now = int(time.time())
    if now != _date_made:
        t = time.gmtime(now)
        clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        day = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year}"
        _date_line = f"\r\nDate: {day} {clock} GMT".encode()
        _date_made = now
    return _date_line


def status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def closing_answer(status: int) -> bytes:
    """A whole answer for a moment in which nothing can be asked or waited for."""
    text = status_line(status)
    page = f"{text}\n"
    return (
        f"HTTP/1.1 {text}\r\nContent-Type: text/plain\r\nContent-Length: {len(page)}\r\n"
        f"Connection: close\r\n\r\n{page}"
    ).encode()
