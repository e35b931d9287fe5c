"""ETags: do not send what the client has, do not overwrite what it has not seen.

    @app.get("/jobs/<id>")
    def show(id):
        job = jobs[id]
        tag = h.etag(job.version)
        h.not_modified_if(tag)                          # ends the request with 304
        return h.json_response(job, ETag=tag)

    @app.put("/jobs/<id>")
    def edit(id):
        h.check_precondition(h.etag(jobs[id].version), required=True)       # 412, 428
        ...

Source: RFC 9110, 8.8.3 and 13; RFC 6585 for 428. Between the check and the write another request
may come: store by compare-and-set on the version all the same.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.http import quote_etag

from flask import Response, request
from sepelib.flask.h._encoding import dumps
from sepelib.flask.h._errors import PreconditionFailed, PreconditionRequired
from sepelib.flask.h.responses import with_headers

__all__ = ["check_precondition", "etag", "not_modified_if"]

_TAG = re.compile(r'(W/)?"([!#-~]+)"')


def etag(value: Any, *, weak: bool = False) -> str:
    """A tag for *value*, anything that `json_response` takes: equal values, equal tags.

    Strong by default: it stands for the very bytes of the answer, so make it of all that they
    depend on. A *weak* one (`W/"..."`) says "as good as", for what must not be edited by it.
    """
    digest = sha256(dumps(value, sort_keys=True)).digest()
    return quote_etag(urlsafe_b64encode(digest[:18]).decode(), weak)


def not_modified_if(tag: str, **headers: str) -> None:
    """End a GET or HEAD with 304 when the client has the version *tag*, strong or weak.

    The 304 has the tag and *headers*: give those which the 200 would have had, such as
    Cache_Control and Vary. Other methods pass.
    """
    if request.method not in ("GET", "HEAD"):
        return
    plain, _ = _split(tag)
    if request.if_none_match.contains_weak(plain):
        response = Response(status=304)
        response.headers["ETag"] = tag
        raise HTTPException(response=with_headers(response, headers))


def check_precondition(tag: str | None, *, required: bool = False) -> None:
    """Refuse a change by a client that has not seen the version *tag*; None: nothing is there.

    If-Match has to name the tag, which is strong then, or be `*` for anything that exists;
    If-None-Match must not, so that `*` only creates. Else PreconditionFailed (412). With
    *required* a change of what exists without either is PreconditionRequired (428).
    """
    plain, weak = _split(tag) if tag is not None else ("", False)
    if "If-Match" in request.headers:
        wanted = request.if_match
        matches = wanted.star_tag or (wanted.is_strong(plain) and not weak)
        if tag is None or not matches:
            raise PreconditionFailed()
    elif "If-None-Match" in request.headers:
        if tag is not None and request.if_none_match.contains_weak(plain):
            raise PreconditionFailed()
    elif required and tag is not None:
        raise PreconditionRequired()


def _split(tag: str) -> tuple[str, bool]:
    """What is between the quotes, and whether it is weak."""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f'an ETag is written "x" or W/"x", not {tag!r}')
    return match[2], match[1] is not None
