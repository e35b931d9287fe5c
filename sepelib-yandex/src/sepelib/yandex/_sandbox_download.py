"""A resource of Sandbox, streamed into a file from one of its sources, and checked.

The order is that of Sandbox's own tools: the proxy twice, each link once, the proxy again. A try
is one request; between two of them lies the backoff of the client.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from sepelib.util.deadline import deadline
from sepelib.util.retry import RetryPolicy

from .errors import (
    NOWHERE,
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    ForeignLink,
    Where,
    YandexError,
)

if TYPE_CHECKING:
    from .sandbox import Resource, SandboxClient

__all__ = ["ChecksumMismatch", "ResourceNotReady", "download"]

_log = logging.getLogger(__name__)


class ResourceNotReady(YandexError):
    """Its *state* is not READY, so there is nothing to download."""

    def __init__(self, reason: str = "", /, *, where: Where = NOWHERE, state: str = "") -> None:
        super().__init__(reason, where=where)
        self.state = state


class ChecksumMismatch(ApiProtocolError):
    """The content has the md5 *actual*, the resource says *expected*. It was not kept."""

    def __init__(
        self,
        reason: str = "",
        /,
        *,
        where: Where = NOWHERE,
        body: str = "",
        status: int = 0,
        expected: str = "",
        actual: str = "",
    ) -> None:
        super().__init__(reason, where=where, body=body, status=status)
        self.expected = expected
        self.actual = actual


class _Source(NamedTuple):
    op: str
    url: str
    trusted: bool
    """Whether it gets our token."""


_LINKS = _Source("", "", False)  # in their place, until they are asked for


def download(
    client: SandboxClient,
    id: int,
    to: str | os.PathLike[str] | BinaryIO,
    *,
    verify_md5: bool,
    timeout: float | None,
) -> Resource:
    """See `Resources.download`."""
    with deadline(timeout, clock=client._clock):
        resource = client.resources.get(id, links=False)
        where = Where(client.service, "resources.data")
        if not resource.is_ready:
            state = client.shown(str(resource.state))
            reason = f"resource {id} is {state}, not READY"
            raise ResourceNotReady(reason, where=where, state=state)
        md5 = None
        if verify_md5 and not resource.multifile:
            if not isinstance(resource.md5, str) or not resource.md5:
                reason = f"resource {id} has no md5; verify_md5=False takes it unchecked"
                raise ApiProtocolError(reason, where=where)
            md5 = resource.md5.strip().lower()
        with _opened(to) as file:
            _Download(client, id, resource, file, md5).run()
    return resource


class _Download:
    def __init__(
        self, client: SandboxClient, id: int, resource: Resource, file: BinaryIO, md5: str | None
    ) -> None:
        self._client = client
        self._id = id
        self._file = file
        self._start = file.tell()
        self._md5 = md5
        self._params: dict[str, Any] = {"origin": client._origin}
        proxy = resource.proxy
        if not isinstance(proxy, str) or not proxy:
            proxy = None if client._proxy is None else f"{client._proxy.rstrip('/')}/{id}"
        proxies = [] if proxy is None else [_Source("resources.data", proxy, True)]
        if resource.multifile:
            self._params["stream"] = "tgz"
            self._left = proxies * 3
        else:
            self._left = [*proxies * 2, _LINKS, *proxies]
        self._tries = 0
        self._failure: YandexError | None = None

    def run(self) -> None:
        own = self._client._policy
        policy = RetryPolicy(
            (ApiConnectionError, ApiProtocolError, ApiResponseError),
            attempts=None,  # as many as there are sources
            backoff=own.backoff,
            retry_if=lambda error: bool(self._left),
            on_retry=own.on_retry,
            budget=own.budget,
            layer="transport",  # so that each request in it is sent once
            sleep=own.sleep,
            clock=own.clock,
            rng=own.rng,
        )
        try:
            policy(self._next)
        except YandexError as error:
            error.attempts = max(1, self._tries)
            self._cut()
            raise
        except BaseException:
            self._cut()
            raise

    def _next(self) -> None:
        """Try the next source that may be asked."""
        while self._left:
            source = self._left.pop(0)
            if source is _LINKS:
                links = self._client.resources.links(self._id)
                self._left[:0] = [_Source("resources.link", url, False) for url in links]
                continue
            try:
                self._fetch(source)
                return
            except ForeignLink as error:
                _log.debug("%s", error)
                self._failure = self._failure or error
            except YandexError as error:
                self._failure = error
                raise
        if self._failure is None:
            where = Where(self._client.service, "resources.data")
            raise ApiProtocolError(f"resource {self._id} has neither proxy nor links", where=where)
        raise self._failure

    def _fetch(self, source: _Source) -> None:
        request: dict[str, Any] = {"link": source.url, "total_timeout": None}
        if source.trusted:
            request["params"] = self._params
        else:
            request["auth"] = None
        self._tries += 1
        self._cut()
        digest = _md5()
        try:
            stream = self._client._stream(source.op, **request)
        except ForeignLink:
            self._tries -= 1
            raise
        with stream:
            for piece in stream.pieces():
                digest.update(piece)
                while piece:  # an unbuffered file may take a part of it
                    taken = self._file.write(piece)
                    piece = piece[len(piece) if taken is None else taken :]
        actual = digest.hexdigest()
        if self._md5 is not None and actual != self._md5:
            expected = self._client.shown(self._md5)
            raise ChecksumMismatch(
                f"the md5 of the content is {actual}, not {expected}",
                where=stream.where,
                status=stream.status,
                expected=expected,
                actual=actual,
            )

    def _cut(self) -> None:
        """Take back what an earlier try has written."""
        if self._file.tell() != self._start:
            self._file.seek(self._start)
            self._file.truncate()


@contextmanager
def _opened(to: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(to, str | os.PathLike):
        from sepelib.util.fs import atomic_write

        with atomic_write(to, "wb") as file:
            yield file
        return
    if not to.seekable():
        raise ValueError("the file is not seekable, so corrupt bytes could not be taken back")
    yield to


def _md5() -> Any:
    import hashlib  # with OpenSSL behind it

    return hashlib.md5(usedforsecurity=False)
