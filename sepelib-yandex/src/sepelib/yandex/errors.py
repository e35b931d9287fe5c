"""What a call to a service can end with beside a result.

    YandexError
    ├── CredentialsUnavailable      no token to send: nothing was sent
    ├── ApiConnectionError          no whole answer has come
    │   └── ApiTimeout                  a wait was too long; `phase` tells which
    │       └── DeadlineExceeded            (util's too, so a TimeoutError) the total time is over
    ├── ApiProtocolError            an answer came that means nothing here
    │   └── ForeignLink                 it leads to another host; nothing was sent there
    ├── ApiResponseError            the service has answered that it will not or cannot
    │   ├── BadRequest                  400, 422
    │   ├── Unauthorized                401
    │   ├── Forbidden                   403
    │   ├── NotFound                    404
    │   ├── Conflict                    409
    │   │   └── VersionConflict         409 or 412 on an edit
    │   ├── PreconditionFailed          412
    │   ├── PreconditionRequired        428
    │   ├── TooManyRequests             429
    │   └── ServerError                 5xx
    ├── WaitTimeout                 (TimeoutError) what was waited for did not come to its end
    └── BatchError                  an answer of 200 in which some items failed

Each has `service`, `op`, `method`, `url` (its secrets masked), `request_id`, `attempts`, and
`maybe_applied`: False is a promise that the service has done nothing of what was asked.
None has a request, a response, a header or a credential, so they may be logged and pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sepelib.core.exceptions import Error
from sepelib.util import deadline as _deadline

__all__ = [
    "NOWHERE",
    "ApiConnectionError",
    "ApiProtocolError",
    "ApiResponseError",
    "ApiTimeout",
    "BadRequest",
    "BatchError",
    "Conflict",
    "CredentialsUnavailable",
    "DeadlineExceeded",
    "Forbidden",
    "ForeignLink",
    "NotFound",
    "PreconditionFailed",
    "PreconditionRequired",
    "ServerError",
    "TooManyRequests",
    "Unauthorized",
    "VersionConflict",
    "WaitTimeout",
    "Where",
    "YandexError",
]


class Where(NamedTuple):
    """The call that an error tells of. *url* is fit to be shown."""

    service: str = ""
    op: str = ""
    method: str = ""
    url: str = ""
    request_id: str = ""

    def __str__(self) -> str:
        name = f"{self.service} {self.op}".strip()
        line = f"{self.method} {self.url}".strip()
        return f"{name} ({line})" if name and line else name or line


NOWHERE = Where()


class YandexError(Error):
    """*reason*, at the call *where*. Fields of subclasses are keywords with defaults."""

    attempts: int
    """How many requests were sent, or tried to be."""
    maybe_applied: bool
    """Whether the service may have done what was asked, in any attempt."""
    retry_after: float | None = None
    """Seconds that the service asks to wait."""

    def __init__(self, reason: str = "", /, *, where: Where = NOWHERE) -> None:
        # One argument, as some are OSErrors; the fields travel in __dict__ when it is pickled.
        super().__init__(reason)
        self.reason = reason
        self.where = where
        self.attempts = 1
        self.maybe_applied = False

    @property
    def service(self) -> str:
        return self.where.service

    @property
    def op(self) -> str:
        return self.where.op

    @property
    def method(self) -> str:
        return self.where.method

    @property
    def url(self) -> str:
        return self.where.url

    @property
    def request_id(self) -> str:
        return self.where.request_id

    def _sentence(self) -> str:
        return self.reason or type(self).__name__

    def __str__(self) -> str:
        place = str(self.where)
        return f"{place}: {self._sentence()}" if place else self._sentence()


class CredentialsUnavailable(YandexError):
    """There is no token to send, and why. Nothing was sent."""


class ApiConnectionError(YandexError):
    """No whole answer has come. `maybe_applied` is False when the request has not left."""

    def __init__(
        self, reason: str = "", /, *, where: Where = NOWHERE, maybe_applied: bool = False
    ) -> None:
        super().__init__(reason, where=where)
        self.maybe_applied = maybe_applied

    def _sentence(self) -> str:
        fate = "it may have been applied" if self.maybe_applied else "it was not applied"
        return f"{super()._sentence()}; {fate}"


class ApiTimeout(ApiConnectionError):
    """Nothing came for *timeout* seconds of *phase*; None is the time that a caller left."""

    def __init__(
        self,
        reason: str = "",
        /,
        *,
        where: Where = NOWHERE,
        maybe_applied: bool = False,
        timeout: float | None = None,
        phase: Literal["connect", "read", "total"] = "total",
    ) -> None:
        super().__init__(reason, where=where, maybe_applied=maybe_applied)
        self.timeout = timeout
        self.phase = phase


class DeadlineExceeded(ApiTimeout, _deadline.DeadlineExceeded):
    """The `total_timeout`, or a deadline from above, was over."""


class ApiProtocolError(YandexError):
    """An answer came that means nothing here; *body* is how it begins, its secrets masked."""

    def __init__(
        self, reason: str = "", /, *, where: Where = NOWHERE, body: str = "", status: int = 0
    ) -> None:
        super().__init__(reason, where=where)
        self.body = body
        self.status = status

    def _sentence(self) -> str:
        said = f": {self.body}" if self.body else ""
        status = f"status {self.status}, " if self.status else ""
        return f"{status}{super()._sentence()}{said}"


class ForeignLink(ApiProtocolError):
    """The service links to a host that is not its own. Nothing was sent there."""


class ApiResponseError(YandexError):
    """The service answers with *status* and its own words.

    *code* is its name for what went wrong, *fields* its words for single fields, *body* how the
    body begins. *temporary*: the same call may work later; it is repeated if that is safe.
    """

    def __init__(
        self,
        message: str = "",
        /,
        *,
        where: Where = NOWHERE,
        status: int = 0,
        code: str = "",
        fields: Mapping[str, str] | None = None,
        body: str = "",
        retry_after: float | None = None,
        temporary: bool = False,
    ) -> None:
        super().__init__(message, where=where)
        self.status = status
        self.code = code
        self.message = message
        self.fields = dict(fields or {})
        self.body = body
        self.retry_after = retry_after
        self.temporary = temporary

    def _sentence(self) -> str:
        code = self.code if self.code != self.message else ""
        fields = ", ".join(f"{name}: {why}" for name, why in self.fields.items())
        said = "; ".join(part for part in (self.message, fields) if part)
        return ": ".join(part for part in (f"status {self.status}", code, said) if part)


class BadRequest(ApiResponseError):
    """400 or 422: the service does not take what was sent."""


class Unauthorized(ApiResponseError):
    """401: the token is missing, unknown or over; a reloaded one was tried."""


class Forbidden(ApiResponseError):
    """403: known, but without the right."""


class NotFound(ApiResponseError):
    """404: no such thing."""


class Conflict(ApiResponseError):
    """409: it exists already, or its state does not allow it."""


class VersionConflict(Conflict):
    """409 or 412 on an edit: it has changed since it was read."""


class PreconditionFailed(ApiResponseError):
    """412: a condition of the request does not hold."""


class PreconditionRequired(ApiResponseError):
    """428: the service wants to be told which version is edited."""


class TooManyRequests(ApiResponseError):
    """429: refused before anything was done; `retry_after` if the service tells."""


class ServerError(ApiResponseError):
    """5xx: the service, or what stands before it, has failed."""


class WaitTimeout(YandexError, TimeoutError):
    """Not over within *timeout* seconds; *state* is what was last seen."""

    def __init__(
        self,
        reason: str = "",
        /,
        *,
        where: Where = NOWHERE,
        state: str = "",
        timeout: float | None = None,
    ) -> None:
        super().__init__(reason, where=where)
        self.state = state
        self.timeout = timeout

    def _sentence(self) -> str:
        limit = "" if self.timeout is None else f" within {self.timeout:g} s"
        return f"{self.reason or 'not over'}{limit}, last state {self.state or 'unknown'}"


class BatchError(YandexError):
    """Some items of a batch failed, in an answer of 200.

    *results* has an item for each one that was asked for, in the service's own form.
    """

    def __init__(
        self,
        reason: str = "",
        /,
        *,
        where: Where = NOWHERE,
        results: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(reason, where=where)
        self.results = tuple(results)
        self.maybe_applied = True
