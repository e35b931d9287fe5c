"""What several of these files do with the request under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qsl, quote

from flask import request
from sepelib.flask.h._errors import BadRequest, InvalidArguments
from sepelib.flask.h._problems import Enough, Problems, summary
from sepelib.util import request_id

__all__ = ["query", "refusing", "request_words"]

_MOST_ARGUMENTS = 1000
_KEY = "sepelib.flask.h.query"


def request_words() -> tuple[str, str]:
    """`GET /jobs/7` and `request 3f2a...`, for a log line; without the query, which has secrets."""
    return f"{request.method} {quote(request.path)}", f"request {request_id.current() or '-'}"


@contextmanager
def refusing(error: type[BadRequest]) -> Iterator[Problems]:
    """Collect problems in the block, and raise an *error* with all of them at its end."""
    problems = Problems()
    with suppress(Enough):
        yield problems
    if problems.found:
        raise error(summary(problems.found), errors=problems.found)


def query() -> dict[str, list[str]]:
    """The arguments with all their values, in order. Not to be changed.

    Unlike `request.args` it refuses what is not UTF-8, where that puts U+FFFD.
    """
    # Kept in the environment, not in `g`, which a test may share among requests.
    found: dict[str, list[str]] | None = request.environ.get(_KEY)
    if found is None:
        found = request.environ[_KEY] = _parsed(request.query_string)
    return found


def _parsed(raw: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            raw.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_ARGUMENTS,
        )
    except UnicodeDecodeError:
        raise InvalidArguments("The query is not UTF-8.") from None
    except ValueError:
        raise InvalidArguments(f"The query has more than {_MOST_ARGUMENTS} arguments.") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
