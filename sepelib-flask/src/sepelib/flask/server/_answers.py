"""What the server itself says: small answers, made as a whole, and pages for errors."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from sepelib.flask.server._negotiation import best
from sepelib.flask.server._response import status_line

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["NOT_KEPT", "Answer", "Headers", "json_answer", "page", "send", "text_answer"]

Headers = tuple[tuple[str, str], ...]

NOT_KEPT = ("Cache-Control", "no-store")


class Answer(NamedTuple):
    """A whole answer. `Content-Length` and `X-Content-Type-Options` are added when it is sent."""

    status: int
    body: bytes
    content_type: str
    headers: Headers = (NOT_KEPT,)


def text_answer(text: str, status: int = 200, headers: Headers = ()) -> Answer:
    """*text* should end with a newline: it is read in terminals."""
    return Answer(status, text.encode(), "text/plain; charset=utf-8", (NOT_KEPT, *headers))


def json_answer(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return Answer(status, text.encode(), "application/json", (NOT_KEPT, *headers))


_WORDS = {
    400: "The request cannot be understood.",
    403: "This is not for you.",
    404: "There is nothing here.",
    405: "This cannot be done here.",
    408: "The request took too long to arrive.",
    413: "The request is too large.",
    500: "The server failed. The error has been logged.",
    503: "The server cannot answer now. Try again later.",
}


def page(
    status: int, environ: WSGIEnvironment, detail: str | None = None, headers: Headers = ()
) -> Answer:
    """An error as problem+json (RFC 9457), as a page for people, or as a line of text.

    *detail* is one sentence for the client; it may hold what a stranger wrote. With it goes the
    request's id: what the client is to tell us, and what the log has.
    """
    accept, request_id = environ.get("HTTP_ACCEPT"), environ.get("sepelib.request_id")
    line = status_line(status)
    words = detail or _WORDS.get(status, f"{line.partition(' ')[2]}.")
    kind = best(accept, ("application/problem+json", "application/json", "text/html", "text/plain"))
    if kind == "text/html":
        text, content_type = _page(line, words, request_id), "text/html; charset=utf-8"
        headers = (*headers, ("Content-Security-Policy", "default-src 'none'"))
    elif kind == "text/plain":
        note = f" (request {request_id})" if request_id else ""
        text, content_type = f"{line}: {words}{note}\n", "text/plain; charset=utf-8"
    else:
        text, content_type = _problem(status, line, words, environ), "application/problem+json"
    return Answer(status, text.encode(), content_type, (NOT_KEPT, ("Vary", "Accept"), *headers))


def send(
    answer: Answer,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    exc_info: Any = None,
) -> list[bytes]:
    """As a WSGI application does it."""
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("X-Content-Type-Options", "nosniff"),
        *answer.headers,
    ]
    request_id = environ.get("sepelib.request_id")
    if request_id is not None:
        headers.append(("X-Request-Id", request_id))
    start_response(status_line(answer.status), headers, exc_info)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]


def _problem(status: int, line: str, words: str, environ: WSGIEnvironment) -> str:
    # The members that `sepelib.flask.h.errors` gives to the application's own errors.
    title = line.partition(" ")[2]
    problem = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": words,
        "instance": quote(environ.get("PATH_INFO", "").encode("latin-1", "replace")),
        "code": "_".join(re.findall("[a-z0-9]+", title.lower())),
    }
    request_id = environ.get("sepelib.request_id")
    if request_id is not None:
        problem["request_id"] = request_id
    return json.dumps(problem) + "\n"


def _page(line: str, words: str, request_id: str | None) -> str:
    note = f"<p><small>Request {html.escape(request_id)}</small>\n" if request_id else ""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{line}</title>\n<h1>{line}</h1>\n<p>{html.escape(words)}\n{note}</html>\n"
    )
