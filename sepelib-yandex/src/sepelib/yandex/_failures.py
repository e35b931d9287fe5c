"""What went wrong between requests and the service, told as one of our errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import NamedTuple

import requests
from urllib3 import exceptions as urllib3_errors

from sepelib.util import deadline

from .errors import (
    ApiConnectionError,
    ApiTimeout,
    DeadlineExceeded,
    Where,
    YandexError,
)

__all__ = ["FAILURES", "LATE", "Failure", "explained"]

LATE = 0.02
"""Seconds that a timer of gevent may be early, as its loop's clock stands still."""

_REFUSED = urllib3_errors.NewConnectionError  # a TimeoutError of urllib3, whatever it tells of
_UNSENT = (requests.ConnectTimeout, _REFUSED, urllib3_errors.ConnectTimeoutError)
_TIMEOUTS = (requests.Timeout, urllib3_errors.TimeoutError, TimeoutError)
_OF_LIBRARIES = (requests.RequestException, urllib3_errors.HTTPError)
_UNUSABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidJSONError,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    UnicodeError,
)

FAILURES = (*_OF_LIBRARIES, OSError, UnicodeError)
"""What a request may end with."""


class Failure(NamedTuple):
    error: YandexError
    cause: BaseException | None
    """What the system has said. Errors of requests have the whole URL, those of http.client what
    the service has sent: they are left out."""
    final: bool
    """Another attempt would end the same."""


def explained(
    error: Exception,
    where: Where,
    timeouts: tuple[float | None, float | None],
    *,
    sent: bool,
) -> Failure:
    """*timeouts*: those that this attempt had, to connect and to read. *sent*: it is known."""
    chain = list(_chain(error))
    system = [e for e in chain if isinstance(e, OSError) and not isinstance(e, _OF_LIBRARIES)]
    cause = system[-1] if system else None
    # One that urllib3 has found is of the answer.
    invalid = any(isinstance(e, urllib3_errors.InvalidHeader) for e in chain)
    if isinstance(error, _UNUSABLE) and not sent and not invalid:
        unusable = ApiConnectionError(f"cannot be sent ({type(error).__name__})", where=where)
        return Failure(unusable, None, True)
    sent = sent or _maybe_sent(chain)
    timed_out = any(isinstance(e, _TIMEOUTS) and not isinstance(e, _REFUSED) for e in chain)
    current = deadline.Deadline.current()
    if any(isinstance(e, deadline.DeadlineExceeded) for e in chain) or (
        timed_out and current is not None and current.remaining() <= LATE
    ):
        over = DeadlineExceeded("the deadline is over", where=where, maybe_applied=sent)
        return Failure(over, cause, True)
    said = type(chain[-1]).__name__ if cause is None else _said(cause)
    failed: YandexError
    if timed_out:
        timeout = timeouts[1] if sent else timeouts[0]
        limit = "" if timeout is None else f" within {timeout:.3g} s"
        failed = ApiTimeout(
            f"no answer{limit}" if sent else f"no connection{limit}",
            where=where,
            maybe_applied=sent,
            timeout=timeout,
            phase="read" if sent else "connect",
        )
    elif any(isinstance(e, ssl.SSLError) for e in chain):
        # By a session that does not tell, only a certificate is known to be looked at before.
        untrusted = any(isinstance(e, ssl.SSLCertVerificationError) for e in chain)
        applied = sent and not untrusted
        failed = ApiConnectionError(f"TLS failed ({said})", where=where, maybe_applied=applied)
        return Failure(failed, cause, untrusted)
    elif not sent:
        failed = ApiConnectionError(f"no connection ({said})", where=where)
    else:
        failed = ApiConnectionError(
            f"the connection has ended before the whole answer ({said})",
            where=where,
            maybe_applied=True,
        )
    return Failure(failed, cause, False)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and what it was made of, the innermost last.

    Not by contexts: of a session that tries again they hold errors of the attempts before.
    """
    for _ in range(10):
        if error is None:
            return
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        error = next((e for e in inner if isinstance(e, BaseException)), None)


def _maybe_sent(chain: list[BaseException]) -> bool:
    for error in chain:
        told = getattr(error, "maybe_sent", None)  # by sepelib.http's sessions and our own
        if isinstance(told, bool):
            return told
    if isinstance(chain[0], deadline.DeadlineExceeded):
        return False  # by our own look at the clock
    return not any(isinstance(e, _UNSENT) for e in chain)


def _said(error: BaseException) -> str:
    """The words of the system; they have no URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
