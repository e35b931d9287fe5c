"""A response as the JSON it holds, or as the error it means."""

from __future__ import annotations

import html
import json
import re
from typing import Any, NoReturn

import requests

from . import errors
from ._retries import retry_after
from ._shown import Scrubber, one_line, shown_url, visible

__all__ = ["http_error", "parsed", "words"]

_BODY = 2048  # characters kept of a body
_READ = 4 * _BODY  # bytes decoded of it, so that no secret is cut in two before it is found
_PROBLEM = 64 << 10  # bytes; a larger JSON is no description of an error
# What services call the words for people, the best first.
_FIELDS = ("message", "detail", "error_description", "error", "title", "description", "reason")
_DEPTH = 3

_BY_STATUS: dict[int, type[errors.HttpError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.RateLimited,
}


def http_error(response: requests.Response, method: str, scrub: Scrubber) -> errors.HttpError:
    """The error which the status of *response* is."""
    status = response.status_code
    cls = _BY_STATUS.get(status)
    if cls is None:
        classes = {4: errors.ClientError, 5: errors.ServerError}
        cls = classes.get(status // 100, errors.UnexpectedStatus)
    request_id = response.headers.get("X-Request-Id") or response.request.headers.get(
        "X-Request-Id"
    )
    message = scrub(words(response))
    if status // 100 == 3 and "Location" in response.headers:
        to = shown_url(scrub(response.headers["Location"]))
        message = f"to {to}" if not message else f"to {to}: {message}"
    return cls(
        method,
        scrub(response.url),
        status,
        visible(scrub(_text(response.reason))),
        visible(scrub(_decoded(response, _READ)))[:_BODY],
        message,
        one_line(_text(request_id))[:200] if request_id else None,
        retry_after(response.headers.get("Retry-After")),
    )


def parsed(response: requests.Response, method: str, scrub: Scrubber) -> Any:
    """The JSON in *response*, None when it has no body. InvalidResponse when it has another."""
    body = response.content
    if not body.strip() or response.status_code in (204, 205):
        return None
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        if kind in ("text/html", "application/xhtml+xml"):
            raise ValueError(f"{kind} instead of JSON")
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise ValueError(f"not JSON: not UTF-8 at byte {e.start}") from None
        try:
            return json.loads(text, parse_constant=_no_number)
        except json.JSONDecodeError as e:
            raise ValueError(f"not JSON: {e}") from None
        except RecursionError:
            raise ValueError("JSON nested too deep") from None
    except ValueError as e:
        excerpt = visible(scrub(_decoded(response, _READ)))[:_BODY]
        why = f"{response.status_code}, {e}"
        raise errors.InvalidResponse(method, scrub(response.url), why, True, excerpt) from e


def words(response: requests.Response) -> str:
    """What the server says of its error, in one line; "" when it says nothing to people."""
    body = response.content
    if body[:1].strip() in (b"{", b"[") and len(body) <= _PROBLEM:
        try:
            return one_line(_of_json(json.loads(body), _DEPTH))
        except (ValueError, RecursionError):
            pass
    text = _decoded(response, _READ)
    start = text[:200].lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<?xml")):
        return one_line(html.unescape(_title(text)))
    return next((one_line(line) for line in text.splitlines() if line.strip()), "")


def _of_json(value: object, depth: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and depth:
        return _of_json(value[0], depth - 1)
    if not isinstance(value, dict) or not depth:
        return ""
    if isinstance(value.get("title"), str) and isinstance(value.get("detail"), str):
        return f"{value['title']}: {value['detail']}"  # RFC 9457
    for name in (*_FIELDS, "errors"):
        found = _of_json(value.get(name), depth - 1)
        if found.strip():
            return found
    return ""


def _title(page: str) -> str:
    # By find(): a pattern for it would take quadratic time on a page that is made for that.
    lower = page.lower()
    start = lower.find(">", max(lower.find("<title"), 0))
    end = lower.find("</title")
    return page[start + 1 : end] if "<title" in lower and start < end else ""


def _decoded(response: requests.Response, length: int) -> str:
    """The first *length* bytes of the body, as text whatever they are."""
    body = response.content[:length]
    charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", response.headers.get("Content-Type", ""))
    try:
        return body.decode(charset[1] if charset else "utf-8", "replace")
    except (LookupError, ValueError):  # unknown, or a codec that is not of text
        return body.decode("utf-8", "replace")


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no number there")
