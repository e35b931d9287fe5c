"""Answers: JSON of what Python has, empty ones, created things, files by name.

    return h.json_response({"at": datetime.now(UTC), "tags": {"b", "a"}}, ETag=tag)

Which types have a form in JSON, and how to add one: see `encode`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from flask import Response
from sepelib.flask.h._encoding import dumps, encode

__all__ = ["attachment", "created", "encode", "json_response", "no_content"]


def json_response(obj: Any, status: int = 200, /, **headers: str) -> Response:
    """*obj* as JSON. In the names of *headers* `_` is `-`: `Cache_Control="no-store"`.

    Raises TypeError or ValueError for what is not JSON, NaN among it, before anything is sent.
    """
    response = Response(dumps(obj), status, mimetype="application/json")
    return with_headers(response, headers)


def no_content(**headers: str) -> Response:
    """204: done, and nothing to say."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return with_headers(response, headers)


def created(url: str, obj: Any = None, /, **headers: str) -> Response:
    """201: made, to be found at *url*, which may be relative; *obj* is what was made."""
    response = Response(status=201) if obj is None else json_response(obj, 201)
    response.location = url
    return with_headers(response, headers)


def attachment(name: str) -> dict[str, str]:
    """The header by which a browser saves the answer under *name*, whatever that is.

        Response(data, headers=h.attachment("отчёт.csv"))

    A path has its separators replaced, control characters go, and of more than 200 characters the
    end is kept. Source: RFC 6266, RFC 8187.
    """
    name = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", "", name)
    name = re.sub(r'[/\\:*?"<>|]', "_", name).strip(" .")[-200:] or "download"
    plain = re.sub(r"[^A-Za-z0-9!#$&+.^_`|~ -]", "_", name)
    value = f'attachment; filename="{plain}"'
    if plain != name:
        value += f"; filename*=UTF-8''{quote(name, safe='!#$&+.^_`|~-')}"
    return {"Content-Disposition": value}


def with_headers(response: Response, headers: dict[str, str]) -> Response:
    """*response* with *headers*, as `json_response` takes them. Not public."""
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response
