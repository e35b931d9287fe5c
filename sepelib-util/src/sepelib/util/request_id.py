"""Which request is being answered: one word in the logs of every service it passes.

    with request_id.using(request_id.accepted(header) or request_id.new()):
        answer()                            # logs and outgoing calls find it by current()

A server binds it for each request; clients send it on; `add_to_record` puts it into log lines:

    handler.addFilter(request_id.add_to_record)         # then "%(request_id)s" in a format

It lives in a context variable: a new greenlet or thread starts without one unless it copies the
context, as `sepelib.gevent.GreenThread` does.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any

__all__ = ["accepted", "add_to_record", "current", "new", "using"]

_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")
_MAX_LENGTH = 64

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def current() -> str | None:
    """The id of the request under way; None outside of one."""
    return _current.get()


def new() -> str:
    """128 random bits as 32 hexadecimal digits."""
    return os.urandom(16).hex()


def accepted(text: str | None) -> str | None:
    """*text* if it may serve as an id: 1 to 64 of A-Z a-z 0-9 . _ : - and nothing else.

    So a stranger's header can neither start a new line in a log nor fill it.
    """
    if text and len(text) <= _MAX_LENGTH and _ALLOWED.issuperset(text):
        return text
    return None


class using:
    """Let `current()` give *request_id* inside the block. ValueError when it is not acceptable."""

    # A class and not a generator: a server enters one for each request.
    __slots__ = ("_request_id", "_token")

    def __init__(self, request_id: str | None) -> None:
        if request_id is not None and accepted(request_id) is None:
            raise ValueError("a request id is 1 to 64 of A-Z a-z 0-9 . _ : -")
        self._request_id = request_id

    def __enter__(self) -> None:
        self._token = _current.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def add_to_record(record: Any) -> bool:
    """A filter for handlers and loggers: sets `record.request_id`, "-" outside of a request."""
    record.request_id = _current.get() or "-"
    return True
