"""What an error of requests or urllib3 is in one word, and without the secrets of its URL."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException

import requests
from urllib3 import exceptions as urllib3_errors

from sepelib.util import deadline
from sepelib.util.url import redact_text

from ._call import Stage
from ._raised import NoFreeSlot, ResponseTooLarge

__all__ = ["hide_secrets", "kind_of"]

_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (deadline.DeadlineExceeded, "deadline"),
    (ResponseTooLarge, "too_large"),
    (NoFreeSlot, "no_slot"),
    (requests.ConnectTimeout, "connect_timeout"),
    ((requests.ReadTimeout, urllib3_errors.ReadTimeoutError), "read_timeout"),
)
_NOT_HTTP = (
    urllib3_errors.DecodeError,
    urllib3_errors.InvalidHeader,
    urllib3_errors.InvalidChunkLength,
    requests.exceptions.InvalidHeader,
)


def kind_of(error: BaseException, stage: Stage) -> str:
    """One of few words, for a label: that of `sepelib.http.errors`, or of what has no class there.

    Those are `no_slot`, `write_timeout`, `cancelled` (by gevent, Ctrl-C, exit) and `other`.
    """
    if not isinstance(error, Exception):
        return "cancelled"
    for classes, kind in _BY_CLASS:
        if isinstance(error, classes):
            return kind
    if isinstance(error, requests.ConnectionError) and stage is Stage.UNSENT:
        return "connect"
    if not isinstance(error, (requests.RequestException, urllib3_errors.HTTPError)):
        return "other"
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            return "write_timeout"
        if isinstance(cause, (ConnectionError, urllib3_errors.IncompleteRead)):
            return "connection_lost"
        if isinstance(cause, (*_NOT_HTTP, HTTPException)):
            return "invalid_response"
    return "connection_lost"


def hide_secrets(error: BaseException) -> None:
    """Mask what requests and urllib3 say of the URL, in *error* and in what it was made of.

    Their sentences have the path with its query. Classes and attributes stay as they are.
    """
    for each in (error, *_causes(error)):
        if any(isinstance(arg, str) for arg in each.args):
            each.args = tuple(redact_text(a) if isinstance(a, str) else a for a in each.args)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and those inside of it, as requests and urllib3 nest them: among the arguments."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            todo += [*one.args, getattr(one, "reason", None)]
