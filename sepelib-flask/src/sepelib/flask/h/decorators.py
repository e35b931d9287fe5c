"""A view whose answer is JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, overload

from flask import Response
from sepelib.flask.h import args as arguments
from sepelib.flask.h.convert import plan_of
from sepelib.flask.h.json_body import MAX_BODY
from sepelib.flask.h.json_body import body as read_body
from sepelib.flask.h.responses import json_response

__all__ = ["json_api"]

View = Callable[..., Any]


@overload
def json_api(view: View, /) -> Callable[..., Response]: ...
@overload
def json_api(
    *,
    args: type | None = None,
    body: type | None = None,
    max_body: int = MAX_BODY,
) -> Callable[[View], Callable[..., Response]]: ...
def json_api(
    view: View | None = None,
    /,
    *,
    args: type | None = None,
    body: type | None = None,
    max_body: int = MAX_BODY,
) -> Any:
    """Make what the view returns a JSON answer, and its errors problem+json.

        @app.post("/jobs")
        @h.json_api(args=Options, body=NewJob)
        def create(args: Options, body: NewJob) -> tuple[Job, int]:
            return jobs.create(body, dry=args.dry), 201

    Returned are an object as `json_response` takes it, `(object, status)`, `(object, headers)`,
    `(object, status, headers)` or a Response; so a list is JSON and a tuple is none. None is a
    TypeError, since a forgotten `return` gives it: write `h.no_content()`.

    *args* and *body* are read before the view runs, see `args.parse` and `body`, and handed over
    by these names. A type that cannot be read is a TypeError here, not at the first request; a
    forward reference that has no meaning yet is looked at again then.

    The view's errors are JSON whatever the Accept says: each ApiError, and all others in an
    application that `errors.register` knows. Put it next to the view, below the route.
    """
    if view is None:
        return lambda view: _json_view(view, args, body, max_body)
    return _json_view(view, None, None, MAX_BODY)


def _json_view(
    view: View, args: type | None, body: type | None, max_body: int
) -> Callable[..., Response]:
    with suppress(NameError):  # a forward reference that has no meaning yet
        if args is not None:
            arguments.arguments_plan(args)
        if body is not None:
            plan_of(body)

    @wraps(view)
    def answer(*positional: Any, **named: Any) -> Response:
        if args is not None:
            named["args"] = arguments.parse(args)
        if body is not None:
            named["body"] = read_body(body, max_bytes=max_body)
        return _response(view(*positional, **named))

    answer.answers_json = True  # type: ignore[attr-defined]
    return answer


def _response(returned: Any) -> Response:
    obj, *rest = returned if isinstance(returned, tuple) and returned else (returned,)
    status = rest.pop(0) if rest and isinstance(rest[0], int) else None
    headers = rest.pop(0) if rest and isinstance(rest[0], Mapping) else {}
    if rest or returned == ():
        raise TypeError("a view of json_api returns (object, status, headers), or less of it")
    if obj is None:
        raise TypeError("a view of json_api returned None: write `return h.no_content()`")
    response = obj if isinstance(obj, Response) else json_response(obj)
    if status is not None:
        response.status_code = status
    response.headers.update(headers)
    return response
