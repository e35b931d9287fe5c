"""One call's way over HTTP: a body sent, a reply read, and what went wrong in between."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, NoReturn, TypeAlias

import requests
from requests import PreparedRequest
from requests.auth import AuthBase
from urllib3 import exceptions as urllib3_errors

from sepelib.rpc._xml_errors import DeadlineExceeded, TransportKind, XmlRpcTransportError
from sepelib.util import deadline

__all__ = ["Auth", "Exchange", "RawReply"]

Auth: TypeAlias = AuthBase | Callable[[PreparedRequest], PreparedRequest] | None

_CHUNK = 64 << 10  # bytes
_LATE = 0.02  # seconds; a timer of gevent may be so much early, as its loop's clock stands still
_UNSENT = (
    requests.ConnectTimeout,
    urllib3_errors.NewConnectionError,
    urllib3_errors.ConnectTimeoutError,
)
_REFUSED = urllib3_errors.NewConnectionError  # a TimeoutError of urllib3, whatever it tells of
_TIMEOUTS = (requests.Timeout, urllib3_errors.TimeoutError, TimeoutError)
_OF_LIBRARIES = (requests.RequestException, urllib3_errors.HTTPError)
_FAILURES = (*_OF_LIBRARIES, OSError)


class RawReply(NamedTuple):
    """A whole reply; *body* is decompressed."""

    status: int
    content_type: str
    location: str
    body: bytes


class Exchange:
    """The call of *method*: one body, posted once or more often. Belongs to one greenlet."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        shown_url: str,
        method: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        auth: Auth,
        timeout: float | None,
        max_response: int,
        idempotent: bool,
    ) -> None:
        self._session = session
        self._url = url
        self._shown_url = shown_url
        self._method = method
        self._body = body
        self._headers = headers
        self._auth = auth
        self._timeout = timeout
        self._max_response = max_response
        self._maybe_executed = False  # by any attempt: the last one may have found no connection
        self._repeatable = ("connect", "timeout", "closed") if idempotent else ("connect",)

    def attempt(self) -> RawReply | XmlRpcTransportError:
        """The reply, or the failure that is not to be repeated; others are raised.

        So the policy that calls this, perhaps one of the caller's, cannot repeat too much.
        """
        try:
            return self._post()
        except XmlRpcTransportError as error:
            if error.kind in self._repeatable:
                raise
            return error

    def _post(self) -> RawReply:
        """The connection is kept for others only after a reply read to its end."""
        try:
            timeout = deadline.clip(self._timeout)
        except deadline.DeadlineExceeded:
            raise self._out_of_time(False) from None
        try:
            response = self._session.post(
                self._url,
                data=self._body,
                headers=self._headers,
                auth=self._auth,
                timeout=timeout,
                allow_redirects=False,  # requests would follow a 302 by a GET
                stream=True,
            )
            try:
                return self._whole(response)
            finally:
                response.close()
        except _FAILURES as error:
            failure = error
        # Not above: the errors of requests have the whole URL, and as the context of ours they
        # would be printed with it. The cause is what the system has said.
        self._explain(failure)

    def _whole(self, response: requests.Response) -> RawReply:
        headers = response.headers
        coding = headers.get("Content-Encoding", "").strip().lower()
        chunks = self._received(response)
        if coding in ("gzip", "x-gzip", "deflate"):
            chunks = self._decompressed(chunks)
        elif coding not in ("", "identity"):
            raise self._no_reply("encoding", "the reply has a Content-Encoding not asked for")
        body = bytearray()
        for data in chunks:
            body += data
            self._check_size(len(body))
        return RawReply(
            response.status_code,
            headers.get("Content-Type", ""),
            headers.get("Location", ""),
            bytes(body),
        )

    def _received(self, response: requests.Response) -> Iterator[bytes]:
        """As they come and not decoded: urllib3 before 2.6 makes one piece of a whole gzip bomb."""
        received = 0
        while data := response.raw.read1(_CHUNK, decode_content=False):
            received += len(data)
            self._check_size(received)  # compressed, nothing at all may be of any length
            deadline.clip(None)  # a session that is not ours may give each wait a new timeout
            yield data

    def _decompressed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        engine = zlib.decompressobj(wbits=47)  # gzip or zlib, told by the first bytes
        try:
            for data in chunks:
                while data:
                    yield engine.decompress(data, _CHUNK)
                    data = engine.unconsumed_tail
            yield engine.flush()
        except zlib.error as error:
            raise self._no_reply("encoding", "the compressed reply is broken") from error
        if not engine.eof:
            raise self._no_reply("encoding", "the compressed reply has no end")

    def _check_size(self, size: int) -> None:
        if size > self._max_response:
            reason = f"the reply is larger than max_response={self._max_response} bytes"
            raise self._no_reply("too_large", reason)

    def _explain(self, error: Exception) -> NoReturn:
        chain = list(_chain(error))
        system = [e for e in chain if not isinstance(e, _OF_LIBRARIES)]
        cause = system[-1] if system else None
        unsent = any(isinstance(e, _UNSENT) for e in chain)
        timed_out = any(isinstance(e, _TIMEOUTS) and not isinstance(e, _REFUSED) for e in chain)
        current = deadline.Deadline.current()
        if any(isinstance(e, deadline.DeadlineExceeded) for e in chain) or (
            timed_out and current is not None and current.remaining() <= _LATE
        ):
            raise self._out_of_time(not unsent)
        waited = "" if self._timeout is None else f" within {self._timeout:g} s"
        said = type(chain[-1]).__name__ if cause is None else _said(cause)
        if unsent:
            reason = f"no connection{waited}" if timed_out else f"no connection ({said})"
            raise self._no_reply("connect", reason, maybe_executed=False) from cause
        if any(isinstance(e, ssl.SSLError) for e in chain):
            # Only a certificate is known to be looked at before the request is sent.
            known = any(isinstance(e, ssl.SSLCertVerificationError) for e in chain)
            reason = f"TLS failed ({said})"
            raise self._no_reply("tls", reason, maybe_executed=not known) from cause
        if timed_out:
            raise self._no_reply("timeout", f"no answer{waited}") from cause
        reason = f"the connection has ended before the whole reply ({said})"
        raise self._no_reply("closed", reason) from cause

    def _no_reply(
        self, kind: TransportKind, reason: str, *, maybe_executed: bool = True
    ) -> XmlRpcTransportError:
        self._maybe_executed |= maybe_executed
        return XmlRpcTransportError(
            self._shown_url, self._method, kind, reason, self._maybe_executed
        )

    def _out_of_time(self, maybe_executed: bool) -> DeadlineExceeded:
        self._maybe_executed |= maybe_executed
        return DeadlineExceeded(self._shown_url, self._method, self._maybe_executed)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and what it was made of, the innermost last.

    Not by contexts: of a session that tries again they hold errors of the attempts before.
    """
    for _ in range(10):
        if error is None:
            return
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        error = next((e for e in inner if isinstance(e, BaseException)), None)


def _said(error: BaseException) -> str:
    """The words of the system; they have no URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
