"""When a request may be sent again: the table of `sepelib.http.session`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import requests

from sepelib.util.retry import RetryBudget, RetryPolicy, RetryState

from ._call import Call, Stage
from ._raised import DeadlineExceeded, NoFreeSlot, RetryableStatus
from ._shown import shown_url

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

__all__ = ["default_policy", "send_again", "transport_policy"]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_STATUSES = frozenset({429, 502, 503, 504})
_FINAL = (DeadlineExceeded, NoFreeSlot, requests.exceptions.SSLError)


def default_policy() -> RetryPolicy:
    """Two attempts, and a budget of its own."""
    on = (requests.ConnectionError, requests.Timeout, requests.HTTPError)
    return RetryPolicy(on, attempts=2, budget=RetryBudget())


def transport_policy(policy: RetryPolicy, counted: Callable[[], object]) -> RetryPolicy:
    """*policy* as a transport's, which tells *counted* of each request sent again."""
    told = policy.on_retry

    def on_retry(state: RetryState) -> None:
        counted()
        if isinstance(state.error, RetryableStatus):
            state.error.answer.close()  # a stream holds the slot that the next one needs
        if told is not None:
            told(state)

    return RetryPolicy(
        policy.on,
        attempts=policy.attempts,
        backoff=policy.backoff,
        deadline=policy.deadline,
        retry_if=policy.retry_if,
        on_retry=on_retry,
        budget=policy.budget,
        layer="transport",
        sleep=policy.sleep,
        clock=policy.clock,
        rng=policy.rng,
    )


def send_again(
    call: Call, request: PreparedRequest, attempt: Callable[[], Response], stream: bool
) -> Response:
    """The answer to *attempt*, made as often as *call* and *request* allow."""
    try:
        result = call.policy(_Attempts(call, request, attempt, stream))
    except RetryableStatus as error:
        return error.answer
    if isinstance(result, requests.RequestException):
        raise result
    return result


class _Attempts:
    """Raises what the policy may retry; another error it returns, which ends the policy's work."""

    def __init__(
        self, call: Call, request: PreparedRequest, attempt: Callable[[], Response], stream: bool
    ) -> None:
        self._call = call
        self._request = request
        self._attempt = attempt
        self._stream = stream
        self._position = _position(request.body)
        self._first = True

    def __getattr__(self, name: str) -> str:
        if name == "__qualname__":  # asked for by the log of a retry, else not worth its time
            return f"{self._request.method} {shown_url(self._request.url or '')}"
        raise AttributeError(name)

    def __call__(self) -> Response | requests.RequestException:
        if self._first:
            self._first = False
        elif isinstance(self._position, int):
            body: Any = self._request.body
            body.seek(self._position)
        try:
            response = self._attempt()
            again = response.status_code in _STATUSES and self._harmless() and self._repeatable()
            if again and not self._stream:
                response.content  # noqa: B018  reads it, for the connection's next request
        except requests.RequestException as error:
            if self._may_repeat(error):
                raise
            return error
        if again:
            raise _status_error(response)
        return response

    def _may_repeat(self, error: requests.RequestException) -> bool:
        if isinstance(error, _FINAL):
            return False
        if self._call.stage is Stage.UNSENT:
            # Nor was the body read, unless it has no beginning to go back to.
            return isinstance(error, requests.ConnectionError)
        return self._call.stage is Stage.SENT and self._harmless() and self._repeatable()

    def _harmless(self) -> bool:
        if self._call.idempotent is not None:
            return self._call.idempotent
        return self._request.method in _IDEMPOTENT or "Idempotency-Key" in self._request.headers

    def _repeatable(self) -> bool:
        return self._position is not _GONE


_GONE = object()  # the position of a body that is read once


def _position(body: Any) -> object:
    if body is None or isinstance(body, (bytes, str)):
        return None
    try:
        if body.seekable():
            return body.tell()
    except (AttributeError, OSError):
        pass
    return _GONE


def _status_error(response: Response) -> RetryableStatus:
    sentence = f"{response.status_code} {response.reason or ''}".rstrip()
    return RetryableStatus(sentence, response, retry_after(response.headers.get("Retry-After")))


def retry_after(text: str | None, *, now: Callable[[], float] | None = None) -> float | None:
    """Seconds from now, of a number or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (now or time.time)())
