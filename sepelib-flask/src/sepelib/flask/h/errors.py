"""One form for all errors: problem+json (RFC 9457) for programs, a page for browsers.

    app = Flask(__name__)
    h.errors.register(app, table={BackendError: 502, svn.NotFound: 404})

    raise h.errors.NotFound("no such job", job=job_id)

    Error, HTTPException
    └── ApiError(status, code, message, **details)
        ├── BadRequest 400
        │   ├── InvalidArguments        the query
        │   └── InvalidBody             the JSON body
        ├── Unauthorized 401            WWW-Authenticate
        ├── Forbidden 403   NotFound 404   Conflict 409   Gone 410
        ├── PreconditionFailed 412   PreconditionRequired 428
        ├── BodyTooLarge 413   UnsupportedBody 415
        └── TooManyRequests 429   Unavailable 503      Retry-After

The document has `type`, `title`, `status`, `detail`, `instance` (the path), `code`, the
`request_id` if there is one, and the error's details. An ApiError is answered so in any
application; `register` does it for all others too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from werkzeug.exceptions import HTTPException

from flask import Flask, Response
from sepelib.flask.h._errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    Conflict,
    Forbidden,
    Gone,
    InvalidArguments,
    InvalidBody,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedBody,
)
from sepelib.flask.h._problem_page import Problem, render
from sepelib.flask.h._request import request_words
from sepelib.util.deadline import DeadlineExceeded
from sepelib.util.exceptions import format_exception

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
    "register",
]

log = logging.getLogger(__name__)

Answer = int | Callable[[Any], ApiError]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def register(app: Flask, *, table: Mapping[type[Exception], Answer] | None = None) -> None:
    """Let *app* answer every error in one form.

    *table* says how errors of other libraries are answered: by a status, with words that tell
    nothing of the inside, or by a function of the error that returns an ApiError. The nearest
    class counts, so `Error` in it stands for the whole tree.

    * HTTPException (abort(), 404 and 405 of the routing): its status, words and headers. A
      handler of your own for one status stays.
    * DeadlineExceeded: 503, unless the table has another answer.
    * All else, LogicalError and an Error that the table does not have among it: 500 that tells
      nothing, logged as ERROR with its traceback. Not 503, which asks clients and balancers to
      send the same again. With PROPAGATE_EXCEPTIONS, in debug mode and in tests it is raised as
      Flask does.

    What is answered with 5xx is logged once, with the request id: what the table has as WARNING in
    one line. 4xx are the client's and not logged.
    """
    answers: dict[type[Exception], Answer] = {DeadlineExceeded: 503}
    answers.update(table or {})
    for kind, answer in answers.items():
        app.register_error_handler(kind, partial(_answer_by_table, answer))
    app.register_error_handler(HTTPException, _answer_http)
    # Flask's own names no request id. One of a subclass is its author's will.
    if type(app).log_exception is Flask.log_exception:
        app.log_exception = _log_unexpected  # type: ignore[method-assign]


def _answer_http(error: HTTPException) -> Response | HTTPException:
    if isinstance(error, ApiError):
        if error.code >= 500:
            _warn(error, error.code)
        return error.get_response()
    if error.response is not None or error.code is None or error.code < 400:
        return error
    if error.code >= 500 and getattr(error, "original_exception", None) is None:
        _warn(error, error.code)
    headers = [each for each in error.get_headers() if each[0].lower() != "content-type"]
    return render(_plain(error.code, error.description, headers))


def _answer_by_table(answer: Answer, error: Exception) -> Response:
    if isinstance(answer, int):
        if answer >= 500:
            _warn(error, answer)
        return render(_plain(answer, None, []))
    made = answer(error)
    if made.code >= 500:
        _warn(error, made.code)
    return made.get_response()


def _plain(status: int, detail: str | None, headers: list[tuple[str, str]]) -> Problem:
    like = HTTPException()
    like.code = status
    code = re.sub("[^a-z0-9]+", "_", like.name.lower()).strip("_")
    return Problem(status, like.name, code, detail or f"{like.name}.", {}, headers)


def _warn(error: Exception, status: int) -> None:
    what, which = request_words()
    log.warning("%s answered %d: %s (%s)", what, status, format_exception(error), which)


def _log_unexpected(exc_info: _ExcInfo) -> None:
    what, which = request_words()
    log.error("%s failed (%s)", what, which, exc_info=exc_info)
