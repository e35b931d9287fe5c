"""What a client hears of an application that fails; the log hears the rest, once.

    escapes the application           the client's answer         the log
    DeadlineExceeded                  503                         ERROR, one line
    RequestTimedOut                   503                         ERROR, with where it waited
    werkzeug's HTTPException          what it says                nothing below 500
    any other                         500                         ERROR, with the traceback

Flask catches what its views raise, logs it and makes a 500 of it. Of that we hear by its signal:
the traceback in Flask's log line then has the request's id, a late request is a 503, and the 500
has our page, unless the application has one of its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, InternalServerError

from sepelib.flask.server._answers import Answer, page
from sepelib.flask.server._errors import RequestTimedOut
from sepelib.util.deadline import DeadlineExceeded
from sepelib.util.exceptions import format_exception, note
from sepelib.util.text import truncate

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from flask import Flask

__all__ = ["FlaskFailures", "answer_to", "rule_of"]

log = logging.getLogger(__name__)

_LATE = "The answer was not ready in time."
_MOST_PATH = 200


def answer_to(error: BaseException, environ: WSGIEnvironment) -> Answer:
    """What to send in place of the application's answer; logs *error*."""
    said = _said_by(error, environ) if isinstance(error, HTTPException) else None
    if said is not None and said.status < 500:
        return said
    path = truncate(environ.get("PATH_INFO", ""), _MOST_PATH)
    where = environ["sepelib.request_id"], environ["REQUEST_METHOD"], path
    if isinstance(error, DeadlineExceeded):
        log.error("request %s: %s %r: %s", *where, format_exception(error))
        return page(503, environ, _LATE)
    log.error("request %s: %s %r failed", *where, exc_info=error)
    if isinstance(error, RequestTimedOut):
        return page(503, environ, _LATE)
    return said or page(500, environ)


def _said_by(error: HTTPException, environ: WSGIEnvironment) -> Answer:
    if error.response is None and error.code is not None:
        headers = [(k, v) for k, v in error.get_headers(environ) if k.lower() != "content-type"]
        return page(error.code, environ, error.description, tuple(headers))
    response = error.get_response(environ)
    headers = [(k, v) for k, v in response.headers if k.lower() not in _OURS]
    content_type = response.headers.get("Content-Type", "text/html; charset=utf-8")
    body = response.get_data()
    return Answer(response.status_code, body, content_type, tuple(headers))


_OURS = ("content-type", "content-length")


def rule_of(app: WSGIApplication, environ: WSGIEnvironment) -> Any:
    """The URL rule of a request to *app*, if it is a Flask: for those that had no answer of it."""
    from flask import Flask

    if not isinstance(app, Flask):
        return None
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except Exception:
        return None
    return rule


class FlaskFailures:
    """Marks the environ of a request that Flask has failed: `sepelib.failure` is what to say.

    For *app* if it is a Flask. The signal holds this object weakly; who made it, keeps it.
    """

    def __init__(self, app: WSGIApplication | None) -> None:
        from flask import Flask, got_request_exception  # not for who serves no application

        if isinstance(app, Flask):
            got_request_exception.connect(self._failed, app)

    def _failed(self, app: Flask, *, exception: BaseException, **_: Any) -> None:
        from flask import request

        environ = request.environ
        request_id = environ.get("sepelib.request_id")
        if request_id is None:  # served by somebody else too
            return
        note(exception, f"request {request_id}")
        if isinstance(exception, DeadlineExceeded):
            environ["sepelib.failure"] = 503, _LATE
        elif not _has_error_page(app):
            environ["sepelib.failure"] = 500, None


def _has_error_page(app: Flask) -> bool:
    """Whether it answers failures itself, in all or in one of its blueprints."""
    for by_code in app.error_handler_spec.values():
        if by_code.get(500):
            return True
        if any(issubclass(InternalServerError, kind) for kind in by_code.get(None, ())):
            return True
    return False
