"""What asking over the network ends with: an answer, or one of these exceptions.

A wait that is over is a TimeoutError.
"""

from __future__ import annotations

import http
from typing import NamedTuple

__all__ = ["Answer", "NotConnected", "Unreachable", "said_by_http"]


class Answer(NamedTuple):
    """A whole answer. *complaint*: what is wrong with it, one sentence; None when nothing is."""

    status: int  # of HTTP; 0 for the reply to a call
    complaint: str | None = None


class Unreachable(Exception):
    """No answer, and trying again at once is no use. One sentence, without the URL."""


class NotConnected(Unreachable):
    """The connection was refused or cut, or never came about: the next may be luckier."""


def said_by_http(status: int) -> str:
    """The sentence for a *status* that is not fine."""
    # The phrase is the standard's: the server's own is a stranger's text.
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    return f"answered {status} {phrase}".rstrip()
