"""One call: its attempts, and which failure is worth another one, by the table of `base`."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sepelib.util import deadline

from ._failures import FAILURES, explained
from ._response import Response, Stream, TooLarge, whole_body
from ._shown import secrets_in, secrets_of_headers, shown_text, shown_url
from .errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    ApiTimeout,
    CredentialsUnavailable,
    DeadlineExceeded,
    ForeignLink,
    Where,
    YandexError,
)

if TYPE_CHECKING:
    import requests

    from .auth import Auth
    from .base import ApiClient

__all__ = ["Call"]

_CREDENTIALS = ("Authorization", "Cookie", "X-Ya-Service-Ticket", "X-Ya-User-Ticket")
_TEMPORARY = frozenset({500, 502, 503, 504})

_UNREADABLE = object()

_log = logging.getLogger(__name__)


class Call:
    """Belongs to one greenlet. Called once for each attempt by the policy."""

    def __init__(
        self,
        client: ApiClient,
        op: str,
        method: str,
        urls: tuple[str, ...],
        *,
        params: list[tuple[str, str]],
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        auth: Auth | None,
        anonymous: bool,
        idempotent: bool,
        expect: frozenset[int],
        decode: bool,
        stream: bool,
        timeout: tuple[float | None, float | None],
        request_id: str,
    ) -> None:
        self.__qualname__ = f"{client.service} {op}"  # for the log of a retry
        self._client = client
        self._op = op
        self._method = method
        self._urls = itertools.cycle(urls)
        self._params = params
        self._body = body
        self._headers = headers
        self._auth = auth
        self._anonymous = anonymous
        self._idempotent = idempotent
        self._expect = expect
        self._decode = decode
        self._stream = stream
        self._timeout = timeout
        self._request_id = request_id
        self._files = list(_files_in(body))
        self._attempts = 0
        self._maybe_applied = False  # by any attempt: the last one may have found no connection
        self._final = False  # the attempt's failure would come again
        self._reloaded = False
        self._positions = [file.tell() if _seekable(file) else None for file in self._files]

    def __call__(self) -> Response | Stream | YandexError:
        """The answer, or the error that is not to be repeated; others are raised.

        So the policy that calls this, perhaps one of the caller's, cannot repeat too much.
        """
        url = next(self._urls)
        try:
            response = self._exchange(url)
        except YandexError as error:
            again = self._may_repeat(error)
            self._maybe_applied |= error.maybe_applied
            error.maybe_applied = self._maybe_applied
            error.attempts = self._attempts
            if again:
                raise
            return error
        response.attempts = self._attempts
        return response

    def _may_repeat(self, error: YandexError) -> bool:
        if isinstance(error, DeadlineExceeded | CredentialsUnavailable | ForeignLink | TooLarge):
            return False
        if not self._rewindable():
            return False  # files of a form are read before there is a connection
        if isinstance(error, ApiConnectionError):
            return not self._final and (self._idempotent or not error.maybe_applied)
        if isinstance(error, ApiResponseError):
            if error.status == 429 or (error.status == 503 and error.retry_after is not None):
                return True
            if not error.temporary and error.status not in _TEMPORARY:
                return False
        return self._idempotent

    def _exchange(self, url: str) -> Response | Stream:
        """One attempt; with a 401 and a credential that can be reloaded, two requests."""
        headers = self._attempt_headers(url)
        try:
            return self._request(url, headers)
        except ApiResponseError as error:
            if error.status != 401 or self._auth is None or self._reloaded:
                raise
            refused = error
        self._reloaded = True
        fresh = self._attempt_headers(url)
        if fresh == headers:  # else another call that was refused has got it anew
            self._auth.invalidate()
            fresh = self._attempt_headers(url)
        if fresh == headers or not self._rewindable():
            raise refused
        return self._request(url, fresh)

    def _attempt_headers(self, url: str) -> dict[str, str]:
        """All but the request id."""
        headers = {
            "Accept": "application/json" if self._decode else "*/*",
            "Accept-Encoding": "gzip",
            **self._headers,
        }
        if self._anonymous:
            # What a session has of its own goes to no stranger: requests leaves out what is None.
            headers = {**dict.fromkeys(_CREDENTIALS), **headers}  # type: ignore[dict-item]
        if self._auth is not None:
            try:
                self._auth.apply(headers)
            except CredentialsUnavailable as error:
                raise CredentialsUnavailable(error.reason, where=self._where(url)) from None
        return headers

    def _where(self, url: str) -> Where:
        number = f"{self._request_id}-{self._attempts}"
        return Where(self._client.service, self._op, self._method, shown_url(url), number)

    def _request(self, url: str, headers: Mapping[str, str]) -> Response | Stream:
        """Send it once; count and log it."""
        client = self._client
        self._attempts += 1
        self._final = False
        where = self._where(url)
        result = "cancelled"
        holds_slot = False
        started = time.monotonic()
        try:
            self._wait_for_slot(where)
            holds_slot = True
            started = time.monotonic()
            response = self._sent(url, {**headers, "X-Request-Id": where.request_id}, where)
            result = "ok"
            holds_slot = not isinstance(response, Stream)
            return response
        except YandexError as error:
            result = _result_of(error)
            if isinstance(error, ApiProtocolError):
                error.maybe_applied = True  # it came from somebody who had got the request
            raise
        finally:
            seconds = time.monotonic() - started
            if holds_slot:
                client._slots.release()
            client._meters.observe(self._op, result, seconds)
            _log.debug("%s: attempt %s: %s in %.3f s", where, where.request_id, result, seconds)

    def _wait_for_slot(self, where: Where) -> None:
        slots = self._client._slots
        try:
            if slots.try_acquire() or slots.acquire(deadline.clip(None)):
                return
        except deadline.DeadlineExceeded:
            pass
        raise DeadlineExceeded(
            f"the deadline is over, {slots.size} other calls of this client took all of it",
            where=where,
        )

    def _sent(self, url: str, headers: Mapping[str, str], where: Where) -> Response | Stream:
        timeouts: tuple[float | None, float | None] = self._timeout
        answer: requests.Response | None = None
        try:
            if self._attempts > 1:
                self._rewind()
            timeouts = deadline.clip(self._timeout[0]), deadline.clip(self._timeout[1])
            answer = self._client._session.request(
                self._method,
                url,
                params=self._params or None,
                headers=headers,
                auth=_as_given if self._auth is not None or self._anonymous else None,
                timeout=timeouts,
                allow_redirects=False,
                stream=True,
                verify=self._client._verify,
                **self._body,
            )
            if self._stream and answer.status_code in self._expect:
                stream = Stream(answer, where, timeouts, self._client._slots.release)
                answer = None  # the stream's
                return stream
            content = whole_body(answer, where, self._client._max_body)
        except FAILURES as error:
            failure = explained(error, where, timeouts, sent=answer is not None)
        else:
            return self._judged(
                Response(answer.status_code, answer.headers, content, where), headers
            )
        finally:
            if answer is not None:
                answer.close()
        # Not above: the errors of requests have the whole URL, and as the context of ours they
        # would be printed with it.
        self._final = failure.final
        raise failure.error from failure.cause

    def _judged(self, response: Response, headers: Mapping[str, str]) -> Response:
        client = self._client
        if response.status not in self._expect:
            if response.status == 404 and self._method == "DELETE" and self._maybe_applied:
                return response  # an attempt before this one has removed it
            error = client.parse_error(response)
            self._complete(error, response, headers)
            refused = 400 <= response.status < 500
            busy = response.status == 503 and error.retry_after is not None
            error.maybe_applied = not refused and not busy
            raise error
        if self._decode and response.content:
            response.data = _decoded(response.content)
            if response.data is _UNREADABLE:
                raise self._unreadable(response, headers)
        try:
            client.check(response)
        except YandexError as error:
            self._complete(error, response, headers)
            raise
        return response

    def _unreadable(self, response: Response, headers: Mapping[str, str]) -> ApiProtocolError:
        error = ApiProtocolError(
            "the answer is not JSON", where=response.where, status=response.status
        )
        error.body = shown_text(response.text, self._secrets(headers))
        return error

    def _complete(self, error: YandexError, response: Response, headers: Mapping[str, str]) -> None:
        """Say where, and take out of the service's words what we have sent."""
        error.where = response.where
        secrets = self._secrets(headers)
        error.reason = shown_text(error.reason, secrets)
        error.args = (error.reason,)
        if isinstance(error, ApiProtocolError):
            error.body = shown_text(error.body, secrets)
        if isinstance(error, ApiResponseError):
            error.maybe_applied |= error.temporary
            error.message = error.reason
            error.code = shown_text(error.code, secrets)
            error.body = shown_text(error.body, secrets)
            error.fields = {
                shown_text(name, secrets): shown_text(why, secrets)
                for name, why in error.fields.items()
            }

    def _secrets(self, headers: Mapping[str, str]) -> set[str]:
        """What of this call must not be shown, wherever a service repeats it."""
        sent = [self._params, self._body.get("data"), self._body.get("json")]
        return {*secrets_of_headers(headers), *secrets_in(sent)}

    def _rewindable(self) -> bool:
        return all(_seekable(file) for file in self._files)

    def _rewind(self) -> None:
        for file, position in zip(self._files, self._positions, strict=True):
            if position is not None:
                file.seek(position)


def _decoded(content: bytes) -> Any:
    # An error of json has the whole text in it, and would travel along as a context.
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _UNREADABLE


def _as_given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An authentication of requests, in place of the session's, or of one from ~/.netrc."""
    return request


def _files_in(body: Mapping[str, Any]) -> Iterator[Any]:
    """What is read while it is sent."""
    data = body.get("data")
    if hasattr(data, "read") or hasattr(data, "__next__"):
        yield data
    files = body.get("files") or {}
    for part in files.values() if isinstance(files, Mapping) else [part for _, part in files]:
        content = part[1] if isinstance(part, tuple) else part
        if hasattr(content, "read"):
            yield content


def _seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return False


def _result_of(error: YandexError) -> str:
    if isinstance(error, ApiResponseError):
        return f"{error.status // 100}xx" if error.status >= 300 else "error"
    if isinstance(error, ApiTimeout):
        return "timeout"
    return "connect" if isinstance(error, ApiConnectionError) else "protocol"
