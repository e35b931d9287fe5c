"""The body of a reply, read within a number of decoded bytes and within the deadline."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from ._raised import ResponseTooLarge
from ._shown import shown_url

if TYPE_CHECKING:
    from requests import PreparedRequest

    from ._exchange import Exchange

__all__ = ["LimitedResponse"]

_CHUNK = 64 << 10


class LimitedResponse(HTTPResponse):
    """A urllib3 response that ends its exchange: read to the end, closed, failed or dropped.

    urllib3 has no hook for the class of its responses, and a mock makes its own ones, so `limit()`
    turns one that was made elsewhere into this.
    """

    _exchange: Exchange
    _request: PreparedRequest
    _left: int | None
    _size: int | None
    _reading = False

    @classmethod
    def limit(
        cls, raw: HTTPResponse, exchange: Exchange, request: PreparedRequest, size: int | None
    ) -> None:
        """Let *raw* give *size* bytes at most. Raises ResponseTooLarge when it announces more."""
        raw.__class__ = cls
        assert isinstance(raw, cls)
        raw._exchange = exchange
        raw._request = request
        raw._left = raw._size = size
        if size is not None and (raw.length_remaining or 0) > size:
            raw._fail(raw._too_large(f"announces {raw.length_remaining} bytes"))

    def read(
        self,
        amt: int | None = None,
        decode_content: bool | None = None,
        cache_content: bool = False,
    ) -> bytes:
        if amt is not None and amt >= 0:
            read = super().read
            return self._ended(amt, self._counted(lambda: read(self._at_most(amt), decode_content)))
        pieces = []
        while piece := self.read(_CHUNK, decode_content):
            pieces.append(piece)
        body = b"".join(pieces)
        if cache_content:
            self._body = body
        return body

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        read1 = super().read1
        wanted = _CHUNK if amt is None or amt < 0 else amt
        return self._ended(
            wanted, self._counted(lambda: read1(self._at_most(wanted), decode_content))
        )

    def stream(
        self, amt: int | None = _CHUNK, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        try:
            yield from super().stream(amt, decode_content)
        except GeneratorExit:
            if self.closed:
                self._exchange.finish()
            raise
        self._exchange.finish()

    def read_chunked(
        self, amt: int | None = None, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        # A limit that keeps the server's chunks whole, as long as they are within ours.
        chunks = super().read_chunked(self._at_most(amt), decode_content)
        try:
            while chunk := self._counted(lambda: next(chunks, b"")):
                yield chunk
        finally:
            chunks.close()  # now, and not when a collection finds it
        self._exchange.finish()

    def release_conn(self) -> None:
        super().release_conn()
        self._let_go()

    def close(self) -> None:
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        # urllib3 does both in the middle of a read that is about to fail, or to be unpacked.
        if not self._reading:
            self._exchange.finish()

    def _counted(self, read: Callable[[], bytes]) -> bytes:
        self._reading = True
        try:
            data = read()
        except BaseException as error:
            self._reading = False
            self._fail(error)
        self._reading = False
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._fail(self._too_large("has a body of more"))
        return data

    def _ended(self, wanted: int, data: bytes) -> bytes:
        # What is decoded has leftovers when the connection is through, the rest has not.
        if (not data and wanted) or (self._decoder is None and self.closed):
            self._exchange.finish()
        return data

    def _at_most(self, amt: int | None) -> int | None:
        """So many bytes that one more than allowed is seen, and no more are unpacked."""
        if self._left is None:
            return amt
        return self._left + 1 if amt is None or amt < 0 else min(amt, self._left + 1)

    def _too_large(self, what: str) -> ResponseTooLarge:
        request = self._request
        return ResponseTooLarge(
            f"{request.method} {shown_url(request.url or '')}: the reply {what}, "
            f"max_body is {self._size}",
            request=request,
        )

    def _fail(self, error: BaseException) -> None:
        """Raise *error*, or the deadline in its place."""
        if isinstance(error, HTTPError) and self._exchange.call.expired:
            exceeded = self._exchange.call.exceeded(self._request)
            exceeded.__cause__ = error
            error = exceeded
        self._exchange.finish(error)
        self.close()  # the rest of the body is in the connection
        raise error
