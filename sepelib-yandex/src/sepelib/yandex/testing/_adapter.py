"""The way to a fake without a socket: a transport adapter of requests."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPResponse, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from ._request import FakeRequest

if TYPE_CHECKING:
    from ._service import FakeService

__all__ = ["FakeAdapter"]


class FakeAdapter(BaseAdapter):
    """Asks a fake, and answers or fails as `requests` does over a socket.

    *sleep* is what a delayed answer takes, by default that of `time`.
    """

    def __init__(
        self, fake: FakeService[Any], *, sleep: Callable[[float], object] | None = None
    ) -> None:
        super().__init__()
        self._fake = fake
        self._sleeper = sleep
        self._builder = HTTPAdapter()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: object = None,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer of the fake to *request*."""
        assert request.method is not None
        assert request.url is not None
        asked = FakeRequest(
            request.method, request.url, _headers(request.headers), _bytes(request.body)
        )
        if self._fake.down:
            raise requests.ConnectionError(_refused(asked), request=request)
        delivery = self._fake.answer(asked)
        limit = _read_timeout(timeout)
        if limit is not None and delivery.delay > limit:
            self._sleep(limit)
            raise requests.ReadTimeout(_late(asked, limit), request=request)
        if delivery.delay:
            self._sleep(delivery.delay)
        if delivery.reply is None:
            reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            aborted = ProtocolError("Connection aborted.", reset)
            raise requests.ConnectionError(aborted, request=request)
        content = b"" if asked.method == "HEAD" else delivery.reply.body
        headers = HTTPHeaderDict()
        for name, value in delivery.reply.headers:
            headers.add(name, value)
        headers.setdefault("Content-Length", str(len(delivery.reply.body)))
        raw = HTTPResponse(
            body=_Dripping(content, delivery.drip, self._sleep),
            headers=headers,
            status=delivery.reply.status,
            preload_content=False,
            request_method=asked.method,
            request_url=request.url,
        )
        response = self._builder.build_response(request, raw)
        if not stream:
            response.content  # noqa: B018
        return response

    def close(self) -> None:
        """Nothing is held."""

    def _sleep(self, seconds: float) -> None:
        (time.sleep if self._sleeper is None else self._sleeper)(seconds)


class _Dripping(io.BytesIO):
    """A body of which each read brings one byte, after a while; all at once without *every*."""

    def __init__(self, content: bytes, every: float, sleep: Callable[[float], object]) -> None:
        super().__init__(content)
        self._every = every
        self._sleep = sleep

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._every:
            return super().read(size)
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(1), b""))
        self._sleep(self._every)
        return super().read(min(size, 1))

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.read(size) if not self._every else self.read(1)


def _headers(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        name: value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in headers.items()
    }


def _bytes(body: Any) -> bytes:
    """The body of a prepared request: text, bytes, a file or the parts of a stream."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    if hasattr(body, "read"):
        return _bytes(body.read())
    return b"".join(_bytes(part) for part in body)


def _read_timeout(timeout: object) -> float | None:
    """The read timeout in the `timeout=` of requests."""
    if isinstance(timeout, tuple):
        timeout = timeout[1]
    if isinstance(timeout, Timeout):
        limits = [timeout._read, timeout.total]
        return min((one for one in limits if isinstance(one, (int, float))), default=None)
    return float(timeout) if isinstance(timeout, (int, float)) else None


def _refused(request: FakeRequest) -> MaxRetryError:
    pool = _pool(request)
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    reason = NewConnectionError(
        HTTPConnection(pool.host, pool.port), f"Failed to establish a new connection: {refused}"
    )
    reason.__cause__ = refused
    return MaxRetryError(pool, request.path, reason)


def _late(request: FakeRequest, limit: float) -> ReadTimeoutError:
    message = f"Read timed out. (read timeout={limit})"
    late = ReadTimeoutError(_pool(request), request.path, message)
    late.__cause__ = TimeoutError("timed out")
    return late


def _pool(request: FakeRequest) -> HTTPConnectionPool:
    """Only to name the peer in an error; never connected."""
    return HTTPConnectionPool(request.root.partition("://")[2].partition(":")[0])
