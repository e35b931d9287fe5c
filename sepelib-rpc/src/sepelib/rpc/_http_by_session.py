"""Thrift over a `requests.Session` of the caller, for what that session brings with it.

Slower than connections of our own, and what ends its waits is the session: with a plain one a
server that drips its headers holds the call as long as it likes. Bodies are read by the deadline.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import requests
from urllib3 import exceptions as urllib3_errors

from sepelib.rpc._connection import Connect, Connection, PeerClosed, ReplyRefused
from sepelib.rpc._http_head import HttpTarget, ReplyHead, refusal, with_excerpt

__all__ = ["SessionConnection", "connect_by_session"]

_PAGE = 2048  # bytes, of which an excerpt is made
_OF_LIBRARIES = (requests.RequestException, urllib3_errors.HTTPError)
_FAILURES = (*_OF_LIBRARIES, OSError)
_REFUSED = urllib3_errors.NewConnectionError  # a TimeoutError of urllib3, whatever it tells of
_UNSENT = (
    requests.ConnectTimeout,
    urllib3_errors.ConnectTimeoutError,
    _REFUSED,
    ssl.SSLCertVerificationError,
)
_TIMEOUTS = (requests.Timeout, urllib3_errors.TimeoutError, TimeoutError)


def connect_by_session(session: requests.Session, max_message: int) -> Connect[HttpTarget]:
    """Nothing is connected: the session does that, when it has to."""

    def connect(target: HttpTarget, end: float) -> SessionConnection:
        return SessionConnection(session, target, max_message)

    return connect


class SessionConnection(Connection):
    """One request at a time, over whatever connection the session takes for it."""

    __slots__ = ("_end", "_failure", "_left", "_max_message", "_response", "_session", "_target")

    def __init__(self, session: requests.Session, target: HttpTarget, max_message: int) -> None:
        self._session = session
        self._target = target
        self._max_message = max_message
        self._response: requests.Response | None = None
        self._failure: OSError | None = None

    def send(self, message: bytes, end: float) -> None:
        """The whole exchange but for the body of the reply: a session does not part the two.

        So a failure that does not say that nothing was sent is kept for `receive()`.
        """
        self.close()
        self.replied = False
        self._failure = None
        self._end = end
        self._left = self._max_message
        try:
            self._response = self._session.post(
                self._target.url,
                data=message,
                headers=self._target.headers,
                timeout=self._timeout(),
                allow_redirects=False,
                stream=True,
            )
        except _FAILURES as error:
            chain = list(_chain(error))
            failure = _translated(chain)
            if any(isinstance(e, _UNSENT) for e in chain):
                unsent = failure
            else:
                self._failure, unsent = failure, None
        else:
            return
        # Not above: errors of requests have the whole URL, and would be printed as the context.
        if unsent is not None:
            raise unsent

    def receive(self, size: int) -> bytes:
        if not self.replied:
            self.confirm()
        if self._left <= 0:
            raise ReplyRefused(f"the reply is larger than max_message={self._max_message} bytes")
        data = self._read(min(size, self._left))
        if not data:
            raise ReplyRefused("the body ends inside the reply")
        self._left -= len(data)
        return data

    def confirm(self) -> None:
        if self._failure is not None:
            raise self._failure
        assert self._response is not None
        self.replied = True
        head = ReplyHead(
            self._response.status_code,
            self._response.reason or "",
            self._response.headers.get("Content-Type", ""),
            self._response.headers.get("Content-Encoding", ""),
            None,
            False,
            True,
        )
        if why_not := refusal(head):
            page = b""
            with suppress(OSError):
                # Of a redirect requests has read the body, though it is not to follow it.
                page = self._read(_PAGE) or self._response.content
            raise ReplyRefused(with_excerpt(why_not, page[:_PAGE]))

    def is_at_end(self) -> bool:
        try:
            return not self._read(1)
        except (OSError, ReplyRefused):
            return False

    def is_fresh(self) -> bool:
        return True

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            with suppress(*_FAILURES):
                response.close()

    # Inside.

    def _timeout(self) -> float | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return None if left == math.inf else left

    def _read(self, size: int) -> bytes:
        self._timeout()
        assert self._response is not None
        try:
            data: bytes = self._response.raw.read1(size, decode_content=False)
        except _FAILURES as error:
            failure = _translated(list(_chain(error)))
        else:
            return data
        raise failure


def _translated(chain: list[BaseException]) -> OSError:
    """What the system has said, without the library's words, which have the URL."""
    system = [e for e in chain if not isinstance(e, _OF_LIBRARIES)]
    if any(isinstance(e, _TIMEOUTS) and not isinstance(e, _REFUSED) for e in chain):
        return TimeoutError("timed out")
    if system and isinstance(system[-1], OSError):
        return system[-1]
    return PeerClosed(f"the connection has ended ({type(chain[-1]).__name__})")


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
