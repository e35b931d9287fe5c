"""JSON bodies as checked Python values.

    @dataclass(frozen=True)
    class NewJob:
        name: Annotated[str, Length(1, 64)]
        ports: list[Annotated[int, Range(1, 65535)]]
        password: Secret[str] | None = None

    job = h.body(NewJob)        # a NewJob, or 400 with `ports[2]: must be an integer from 1 ...`

All mistakes are told at once, at most 20, each with its path. Types: see `convert`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from werkzeug.exceptions import RequestEntityTooLarge

from flask import request
from sepelib.flask.h._errors import BodyTooLarge, InvalidBody, UnsupportedBody
from sepelib.flask.h._json_text import loads
from sepelib.flask.h._problems import ROOT
from sepelib.flask.h._request import refusing
from sepelib.flask.h.convert import plan_of
from sepelib.util.text import human_size

__all__ = ["MAX_BODY", "body"]

MAX_BODY = 1 << 20
"""Bytes of a JSON body, by default."""

T = TypeVar("T")


def body(kind: type[T], *, max_bytes: int = MAX_BODY) -> T:
    """The JSON body of the request as a *kind*: mostly a dataclass, else any type of `convert`.

    Strict where JSON is loose: refused with 400 are unknown and missing keys, a key that stands
    twice, NaN and infinities, 1.0 and true for an int, text that no encoding has, more than 64
    levels. A ValueError of `__post_init__` is told to the client. Values of a Secret, or below a
    key with a secret's name, stand in no error.

    Raises InvalidBody (400), BodyTooLarge (413) above *max_bytes*, announced or not, and
    UnsupportedBody (415) when the Content-Type is not JSON in UTF-8, which also keeps forms of
    other sites out; TypeError for a type that cannot be read. May be called again.
    """
    plan = plan_of(kind)
    _check_type()
    data = _data(max_bytes)
    try:
        document = loads(data)
    except ValueError as e:
        raise InvalidBody(f"The body is {e}.") from None
    with refusing(InvalidBody) as problems:
        made: T = plan.read(document, ROOT, problems)
    return made


def _check_type() -> None:
    charset: Any = request.mimetype_params.get("charset", "utf-8")
    if not request.is_json or charset.lower() not in ("utf-8", "utf8"):
        raise UnsupportedBody("The body has to be JSON in UTF-8: Content-Type: application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedBody("The body has to be sent without a Content-Encoding.")


def _data(max_bytes: int) -> bytes:
    limit = request.max_content_length
    most = max_bytes if limit is None else min(limit, max_bytes)
    # One more: werkzeug refuses a body of just the length that it is told, when none is announced.
    request.max_content_length = most + 1
    try:
        data = request.get_data()
    except RequestEntityTooLarge:
        data = None
    finally:
        request.max_content_length = limit
    if data is None or len(data) > most:
        raise BodyTooLarge(f"The body has more than {human_size(most)}.")
    return data
