"""A service's answer, whole or as a stream."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from requests.structures import CaseInsensitiveDict

from sepelib.util import deadline

from ._failures import FAILURES, explained
from .errors import ApiProtocolError, Where

if TYPE_CHECKING:
    from types import TracebackType

    import requests

__all__ = ["Response", "Stream", "TooLarge", "whole_body"]

_CHUNK = 64 << 10  # bytes
_MEMBER = 0x1F  # begins each member of a gzip file (RFC 1952, 2.3.1)


class TooLarge(ApiProtocolError):
    """The body is larger than `max_body`; asking again would not help."""


class Response:
    """The answer to one call, read to its end; *attempts* is how many requests it took.

    *data* is the decoded JSON if that was asked for, None for an empty body.
    """

    __slots__ = ("attempts", "content", "data", "headers", "status", "where")

    def __init__(
        self, status: int, headers: CaseInsensitiveDict[str], content: bytes, where: Where
    ) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.where = where
        self.attempts = 1
        self.data: Any = None

    @property
    def text(self) -> str:
        """The body, by the charset of its Content-Type, else as UTF-8; broken bytes replaced."""
        _, _, charset = self.headers.get("Content-Type", "").partition("charset=")
        try:
            return self.content.decode(
                charset.partition(";")[0].strip(" \"'") or "utf-8", "replace"
            )
        except (LookupError, ValueError):  # idna takes no "replace", for one
            return self.content.decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<Response {self.status} of {self.where}>"


class Stream:
    """An answer whose body is read piece by piece, within the time of its call; close it.

    It holds a connection and one of the client's slots until it is read to its end or closed.
    For one greenlet.
    """

    def __init__(
        self,
        answer: requests.Response,
        where: Where,
        timeouts: tuple[float | None, float | None],
        release: Callable[[], None],
    ) -> None:
        self.status = answer.status_code
        self.headers: CaseInsensitiveDict[str] = answer.headers
        self.where = where
        self.attempts = 1
        self._answer = answer
        self._timeouts = timeouts
        self._release = release
        self._deadline = deadline.Deadline.current()
        self._open = [None]

    def pieces(self) -> Iterator[bytes]:
        """The body, decompressed. Raises ApiConnectionError when it breaks off."""
        try:
            chunks = _decoded(self._answer, self.where, self._received())
            while True:
                with deadline.deadline(self._deadline):
                    piece = next(chunks, b"")
                if not piece:
                    return
                yield piece
        finally:
            self.close()

    def save(self, file: BinaryIO) -> int:
        """Write the body to *file*; the number of bytes."""
        size = 0
        for piece in self.pieces():
            file.write(piece)
            size += len(piece)
        return size

    def close(self) -> None:
        """Idempotent. What is unread goes with its connection."""
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            self._answer.close()
        finally:
            self._release()

    def __del__(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._release()  # the connection ends by itself, as garbage

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _received(self) -> Iterator[bytes]:
        try:
            yield from _received(self._answer)
            return
        except FAILURES as error:
            failure = explained(error, self.where, self._timeouts, sent=True)
        raise failure.error from failure.cause


def whole_body(answer: requests.Response, where: Where, max_body: int) -> bytes:
    """The decompressed body. Raises TooLarge, ApiProtocolError, and what requests raises."""
    body = bytearray()
    for piece in _decoded(answer, where, _capped(_received(answer), where, max_body)):
        body += piece
        _check(len(body), where, max_body)
    return bytes(body)


def _received(answer: requests.Response) -> Iterator[bytes]:
    """As they come and not decoded: urllib3 before 2.6 makes one piece of a whole gzip bomb."""
    while piece := answer.raw.read1(_CHUNK, decode_content=False):
        yield piece
        deadline.clip(None)  # a session that is not ours may give each wait a new timeout


def _capped(pieces: Iterator[bytes], where: Where, max_body: int) -> Iterator[bytes]:
    received = 0
    for piece in pieces:
        received += len(piece)
        _check(received, where, max_body)  # compressed, nothing at all may be of any length
        yield piece


def _check(size: int, where: Where, max_body: int) -> None:
    if size > max_body:
        raise TooLarge(f"the answer is larger than max_body={max_body} bytes", where=where)


def _decoded(answer: requests.Response, where: Where, pieces: Iterator[bytes]) -> Iterator[bytes]:
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        yield from pieces
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ApiProtocolError("the answer has a Content-Encoding not asked for", where=where)
    engine = zlib.decompressobj(wbits=47)  # gzip or zlib, told by the first bytes
    empty = True
    try:
        for piece in pieces:
            empty = False
            while piece:
                if engine.eof:
                    if piece[0] != _MEMBER:
                        return  # padding, which gunzip does not look at either
                    engine = zlib.decompressobj(wbits=31)
                if unpacked := engine.decompress(piece, _CHUNK):
                    yield unpacked
                piece = engine.unused_data if engine.eof else engine.unconsumed_tail
        if rest := engine.flush():
            yield rest
    except zlib.error as error:
        raise ApiProtocolError("the compressed answer is broken", where=where) from error
    if not engine.eof and not empty:
        raise ApiProtocolError("the compressed answer has no end", where=where)
