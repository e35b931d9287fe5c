"""What a RestClient can fail with.

    Error
    └── RestError                  any of these
        ├── HttpError                  an answer came, of a status that was not expected
        │   ├── ClientError                4xx: the request is wrong
        │   │   ├── Unauthorized               401: no credentials, or wrong ones
        │   │   ├── Forbidden                  403: not for their owner
        │   │   ├── NotFound                   404
        │   │   ├── Conflict                   409: changed by somebody else, or there already
        │   │   └── RateLimited                429: too many; `retry_after` if it says when
        │   ├── ServerError                5xx: the server failed
        │   └── UnexpectedStatus           any other
        ├── TransportError             no answer that can be used; `maybe_sent`, `kind`
        │   ├── NoFreeSlot                 too many calls of this session are under way
        │   ├── ConnectFailed              refused, no such host, no trust in the certificate
        │   ├── ConnectTimeout             no connection in time
        │   ├── ReadTimeout                connected, and silent for too long
        │   ├── DeadlineExceeded           (util's DeadlineExceeded) the total time is over
        │   ├── ConnectionLost             it ended before the answer, or in the middle of it
        │   ├── ResponseTooLarge           more than the session takes
        │   ├── InvalidResponse            not HTTP, not JSON, not what its headers say
        │   └── TooManyRedirects           a loop, or a chain that does not end
        └── LinkRefused                a link to another host: the credentials stay here

`str()` is one line, ``GET http://host/users/7?full=***: 404 Not Found: the server's own words``.
Secrets are kept out of str, repr and pickles: URLs are shown without user, password and the values
of their query, and what a server repeats of the request's secrets is masked. What requests raised
is the `__cause__`; that one is not masked.
"""

from __future__ import annotations

from typing import ClassVar

from sepelib.core.exceptions import Error
from sepelib.util import deadline
from sepelib.util.text import truncate

from ._shown import one_line, shown_url

__all__ = [
    "ClientError",
    "Conflict",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "DeadlineExceeded",
    "Forbidden",
    "HttpError",
    "InvalidResponse",
    "LinkRefused",
    "NoFreeSlot",
    "NotFound",
    "RateLimited",
    "ReadTimeout",
    "ResponseTooLarge",
    "RestError",
    "ServerError",
    "TooManyRedirects",
    "TransportError",
    "Unauthorized",
    "UnexpectedStatus",
]

_LONGEST = 300  # characters of the server's words in one line


class RestError(Error):
    """A call has failed. *method* and *url* say which; the URL is fit to be seen."""

    method: str
    url: str


class HttpError(RestError):
    """An answer with a *status* that was not expected. *reason* is that of its first line.

    *message* is the server's own words in one line: fields of a JSON problem, the title of a page,
    the first line of a text. *body* is the beginning of the answer, at most 2048 characters, with
    control characters such as ``\\x1b`` made visible; lines are kept. *request_id*: what to tell
    the people of the server; its X-Request-Id, else the one we sent. *retry_after*: seconds from
    the answer on, when it says so.
    """

    def __init__(
        self,
        method: str,
        url: str,
        status: int,
        reason: str = "",
        body: str = "",
        message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        url = shown_url(url)
        super().__init__(method, url, status, reason, body, message, request_id, retry_after)
        self.method = method
        self.url = url
        self.status = status
        self.reason = reason
        self.body = body
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = f"{self.method} {self.url}: {self.status}"
        if self.reason:
            text += f" {self.reason}"
        if self.message and self.message.lower() != self.reason.lower():
            text += f": {self.message}"
        text = truncate(one_line(text), _LONGEST + len(self.url))
        return f"{text} (request {self.request_id})" if self.request_id else text


class ClientError(HttpError):
    """4xx: the request is at fault; the same one will fail again."""


class Unauthorized(ClientError):
    """401: no credentials were sent, or they are wrong or too old."""


class Forbidden(ClientError):
    """403: the owner of the credentials may not do this."""


class NotFound(ClientError):
    """404: there is no such thing, or it is not shown to the owner of the credentials."""


class Conflict(ClientError):
    """409: somebody else was faster. Read it again."""


class RateLimited(ClientError):
    """429: too many requests. A RetryPolicy waits for `retry_after`."""


class ServerError(HttpError):
    """5xx: the server, or a proxy before it, failed. It may have done what was asked."""


class UnexpectedStatus(HttpError):
    """1xx, 2xx or 3xx where another one was expected; 3xx: a redirect that was not followed."""


class TransportError(RestError):
    """No answer that can be used came, because of *why*.

    *maybe_sent*: whether the server may have executed the request. False is a promise. *kind* is
    one word for each class, fit for a label.
    """

    kind: ClassVar[str] = "transport"

    def __init__(self, method: str, url: str, why: str, maybe_sent: bool = True) -> None:
        url, why = shown_url(url), one_line(why)
        # One sentence, and the fields beside it: among the subclasses is an OSError, which makes
        # an errno of the first of several arguments.
        super().__init__(f"{method} {url}: {why}")
        self.method = method
        self.url = url
        self.why = why
        self.maybe_sent = maybe_sent

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.method, self.url, self.why, self.maybe_sent), self.__dict__


class NoFreeSlot(TransportError):
    """All of the session's `max_concurrency` slots were taken for too long. Nothing was sent."""

    kind = "no_slot"


class ConnectFailed(TransportError):
    """No connection: refused, no such host, no trust in the certificate, no TLS."""

    kind = "connect"


class ConnectTimeout(TransportError):
    """No connection within the timeout for it."""

    kind = "connect_timeout"


class ReadTimeout(TransportError):
    """Connected, and not a byte within the timeout for reading."""

    kind = "read_timeout"


class DeadlineExceeded(TransportError, deadline.DeadlineExceeded):
    """The total time is over: that of the session, or the one given from above."""

    kind = "deadline"


class ConnectionLost(TransportError):
    """The connection ended before the answer, or in the middle of it."""

    kind = "connection_lost"


class ResponseTooLarge(TransportError):
    """The answer is larger, once decompressed, than the session takes: see its `max_body`."""

    kind = "too_large"


class InvalidResponse(TransportError):
    """What came is not HTTP, not JSON, or not what its own headers say. *excerpt*: how it begins.

    The server has answered, so it has most likely done what was asked.
    """

    kind = "invalid_response"

    def __init__(
        self, method: str, url: str, why: str, maybe_sent: bool = True, excerpt: str = ""
    ) -> None:
        shown = f"{why}: {truncate(one_line(excerpt), 100)}" if excerpt else why
        super().__init__(method, url, shown, maybe_sent)
        self.why = one_line(why)
        self.excerpt = excerpt

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.method, self.url, self.why, self.maybe_sent, self.excerpt)
        return type(self), fields, self.__dict__


class TooManyRedirects(TransportError):
    """Sent on and on: in a circle, or without an end."""

    kind = "redirects"


class LinkRefused(RestError):
    """*url* is not below *origin*, so nothing was sent there, credentials least of all."""

    def __init__(self, method: str, url: str, origin: str) -> None:
        url = shown_url(url)
        super().__init__(method, url, origin)
        self.method = method
        self.url = url
        self.origin = origin

    def __str__(self) -> str:
        return f"{self.method} {self.url}: not followed, it is not of {self.origin}"
