"""The errors of `h.errors`, which are answers as well."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from flask import has_request_context
from sepelib.core.exceptions import Error
from sepelib.flask.h._problem_page import RESERVED, Problem, render

if TYPE_CHECKING:
    from flask import Response

__all__ = [
    "ApiError",
    "BadRequest",
    "BodyTooLarge",
    "Conflict",
    "Forbidden",
    "Gone",
    "InvalidArguments",
    "InvalidBody",
    "NotFound",
    "PreconditionFailed",
    "PreconditionRequired",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnsupportedBody",
]


class ApiError(Error, HTTPException):
    """Answer with *status* (400 to 599), *code* (a word for programs), *message* (for people).

    *details* become members of the problem document beside the standard ones, by the rules of
    `json_response`; `errors` is meant for a list of `{"path": ..., "message": ...}`. All of it
    goes to the client: no secrets, no names of internal hosts.

    It is a werkzeug HTTPException too, so it becomes this answer in any Flask application, and an
    application's own handler of that class sees it. Hence `code` is the status, as there, and the
    word is `error_code`.
    """

    code: int

    def __init__(self, status: int, code: str, message: str, /, **details: object) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"the status of an error is 400 to 599, not {status}")
        if clash := RESERVED & details.keys():
            raise TypeError(f"{', '.join(sorted(clash))} is made by the answer, name it otherwise")
        HTTPException.__init__(self, message)
        self.args = (status, code, message)
        self.code = status
        self.error_code = code
        self.message = message
        self.details = details

    @property
    def status(self) -> int:
        return self.code

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        """Headers of the answer that go with the error."""
        return ()

    def get_response(self, environ: Any = None, scope: Any = None) -> Response:
        """The answer to the request under way; its Accept chooses between JSON and HTML."""
        if not has_request_context():
            raise RuntimeError(
                f"{type(self).__name__} is an answer to a request, and there is none"
            )
        return render(
            Problem(
                self.code,
                self.name,
                self.error_code,
                self.message,
                self.details,
                self.extra_headers(),
            )
        )

    def __str__(self) -> str:
        return f"{self.code} {self.error_code}: {self.message}"


class _Known(ApiError):
    """One with a status of its own."""

    code = 400
    _code = "bad_request"
    _message = "The request cannot be understood."

    def __init__(
        self, message: str | None = None, /, *, code: str | None = None, **details: object
    ) -> None:
        super().__init__(type(self).code, code or self._code, message or self._message, **details)
        self.args = (self.message,)


class BadRequest(_Known):
    """400: the request is wrong, and will be however often it is repeated."""


class InvalidArguments(BadRequest):
    """400: arguments of the query are unknown, missing or wrong; `details["errors"]` has each."""

    _code = "invalid_arguments"
    _message = "The arguments of the query are wrong."


class InvalidBody(BadRequest):
    """400: the JSON body is wrong; `details["errors"]` has the path of each mistake."""

    _code = "invalid_body"
    _message = "The body is wrong."


class Unauthorized(_Known):
    """401: no credentials, or none that are good; *challenge* tells which are wanted."""

    code = 401
    _code = "unauthorized"
    _message = "Credentials are missing or not valid."

    def __init__(
        self,
        message: str | None = None,
        /,
        *,
        challenge: str = "Bearer",
        code: str | None = None,
        **details: object,
    ) -> None:
        super().__init__(message, code=code, **details)
        self.challenge = challenge

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        return [("WWW-Authenticate", self.challenge)]


class Forbidden(_Known):
    """403: known, and not allowed."""

    code = 403
    _code = "forbidden"
    _message = "This is not allowed."


class NotFound(_Known):
    """404: there is no such thing, or nothing that this client may know of."""

    code = 404
    _code = "not_found"
    _message = "There is no such thing."


class Conflict(_Known):
    """409: it does not go with the present state, such as a name that is taken."""

    code = 409
    _code = "conflict"
    _message = "This conflicts with the present state."


class Gone(_Known):
    """410: it was there and will not be again."""

    code = 410
    _code = "gone"
    _message = "It is gone."


class PreconditionFailed(_Known):
    """412: changed since the client read it; see `h.check_precondition`."""

    code = 412
    _code = "precondition_failed"
    _message = "It has changed since it was read: read it again."


class BodyTooLarge(_Known):
    """413: the body has more bytes than are taken."""

    code = 413
    _code = "body_too_large"
    _message = "The body is too large."


class UnsupportedBody(_Known):
    """415: the body is not of a type, charset or coding that is read here."""

    code = 415
    _code = "unsupported_body"
    _message = "The body is not of a type that is read here."


class PreconditionRequired(_Known):
    """428: an edit has to say which version it edits, by If-Match."""

    code = 428
    _code = "precondition_required"
    _message = "Say by If-Match which version is to be changed."


class _Later(_Known):
    def __init__(
        self,
        message: str | None = None,
        /,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        **details: object,
    ) -> None:
        super().__init__(message, code=code, **details)
        if retry_after is not None and not 0 <= retry_after < math.inf:
            raise ValueError(f"retry_after is finite and not negative, not {retry_after}")
        self.retry_after = retry_after

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        if self.retry_after is None:
            return ()
        return [("Retry-After", str(math.ceil(self.retry_after)))]


class TooManyRequests(_Later):
    """429: this client is to come back after *retry_after* seconds."""

    code = 429
    _code = "too_many_requests"
    _message = "Too many requests."


class Unavailable(_Later):
    """503: not now; perhaps after *retry_after* seconds."""

    code = 503
    _code = "unavailable"
    _message = "Not available now."
