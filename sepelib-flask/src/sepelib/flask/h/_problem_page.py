"""An error as the client sees it: problem+json for programs, a page for people.

Source: RFC 9457, "Problem Details for HTTP APIs".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from flask import Response, current_app, request
from sepelib.flask.h._encoding import dumps
from sepelib.util import request_id
from sepelib.util.text import to_text
from sepelib.util.url import redact_text

__all__ = ["RESERVED", "Problem", "render"]

RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code", "request_id"})
"""Members of the document that details may not replace."""


class Problem(NamedTuple):
    """What is told of an error: nothing that is not meant for the client."""

    status: int
    title: str
    code: str
    detail: str
    details: Mapping[str, Any]
    headers: Iterable[tuple[str, str]]


def render(problem: Problem) -> Response:
    """The answer to the request under way; HTML when its Accept prefers that to JSON.

    A view under `json_api` answers JSON whatever is accepted.
    """
    html = not _is_json_view() and _prefers_html()
    body = _page(problem) if html else _document(problem)
    response = Response(body, problem.status)
    response.headers.extend(problem.headers)
    response.headers["Content-Type"] = (
        "text/html; charset=utf-8" if html else "application/problem+json"
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if html:
        response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.vary.add("Accept")
    return response


def _is_json_view() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, "answers_json", False)


def _prefers_html() -> bool:
    best = request.accept_mimetypes.best_match(
        ["application/problem+json", "application/json", "text/html"], "application/json"
    )
    return best == "text/html"


def _document(problem: Problem) -> bytes:
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": redact_text(problem.detail),
        "instance": quote(request.path),
        "code": problem.code,
    }
    if (current := request_id.current()) is not None:
        members["request_id"] = current
    try:
        return dumps(members | dict(problem.details))
    except (TypeError, ValueError, RecursionError):
        # A detail that is no JSON is a mistake, but must not hide what was to be told.
        shown = {name: to_text(value) for name, value in problem.details.items()}
        return dumps(members | shown)


def _page(problem: Problem) -> str:
    title = escape(f"{problem.status} {problem.title}")
    current = request_id.current()
    note = f"<p><small>Request {escape(current)}</small>\n" if current else ""
    items = "".join(
        f"<li><code>{escape(to_text(each['path']))}</code> {escape(to_text(each['message']))}\n"
        for each in problem.details.get("errors", ())
        if isinstance(each, Mapping) and each.keys() >= {"path", "message"}
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<h1>{title}</h1>\n<p>{escape(redact_text(problem.detail))}\n"
        + (f"<ul>\n{items}</ul>\n" if items else "")
        + note
    )
