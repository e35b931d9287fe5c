"""What requests and urllib3 raise, as the error it means.

Told by classes, never by words: those change from one version to the next.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator

import requests
import urllib3.exceptions as urllib3

from sepelib.util import deadline

from . import errors
from ._raised import NoFreeSlot, ResponseTooLarge
from ._shown import Scrubber, shown_url

__all__ = ["FAILURES", "transport_error"]

FAILURES = (requests.RequestException, urllib3.HTTPError, deadline.DeadlineExceeded)
"""What a session raises when there is no answer."""

# Our own fault: the request could not even be written down.
_BUGS = (requests.exceptions.InvalidHeader, requests.exceptions.InvalidJSONError)

_Meaning = tuple[type[errors.TransportError], str, bool]

_LOST: _Meaning = (errors.ConnectionLost, "the connection was lost", True)
_INVALID: _Meaning = (errors.InvalidResponse, "no valid answer", True)
_UNCONNECTED: _Meaning = (errors.ConnectFailed, "no connection", False)

# The first that fits any error of the chain wins.
_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], _Meaning], ...] = (
    ((deadline.DeadlineExceeded,), (errors.DeadlineExceeded, "", True)),
    ((NoFreeSlot,), (errors.NoFreeSlot, "", False)),
    ((ResponseTooLarge,), (errors.ResponseTooLarge, "", True)),
    ((requests.TooManyRedirects,), (errors.TooManyRedirects, "", True)),
    # A ConnectTimeoutError by class, but at once.
    ((urllib3.NewConnectionError, urllib3.ProxyError), _UNCONNECTED),
    ((urllib3.ConnectTimeoutError,), (errors.ConnectTimeout, "no connection in time", False)),
    ((urllib3.ReadTimeoutError,), (errors.ReadTimeout, "no answer in time", True)),
    ((ssl.SSLCertVerificationError,), _UNCONNECTED),
    ((urllib3.DecodeError, urllib3.InvalidChunkLength, urllib3.HeaderParsingError), _INVALID),
    ((http.client.RemoteDisconnected, http.client.IncompleteRead), _LOST),
    ((http.client.HTTPException,), _INVALID),
    # Where the server has sent us: the first URL was looked at when it was made.
    ((requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema), _INVALID),
    ((urllib3.LocationValueError,), _INVALID),
    ((TimeoutError,), (errors.ReadTimeout, "no answer in time", True)),
    ((urllib3.SSLError, urllib3.ProtocolError, ConnectionError), _LOST),
)
_UNKNOWN: _Meaning = (errors.TransportError, "no answer", True)


def transport_error(error: Exception, method: str, url: str, scrub: Scrubber) -> Exception:
    """*error*, one of FAILURES, as a TransportError; itself when the caller is at fault."""
    if isinstance(error, _BUGS):
        return error
    request = getattr(error, "request", None)
    if isinstance(request, requests.PreparedRequest):
        scrub.learn(request)
        url = request.url or url  # with the parameters, or where a redirect has led to
    chain = list(_chain(error, set()))
    found, (cls, what, maybe_sent) = next(
        ((e, meaning) for kinds, meaning in _MEANINGS for e in chain if isinstance(e, kinds)),
        (error, _UNKNOWN),
    )
    maybe_sent = getattr(error, "maybe_sent", maybe_sent)  # an InstrumentedSession knows
    if cls is errors.ConnectionLost and not maybe_sent:
        cls, what, _ = _UNCONNECTED
    # Without a word of ours the error has a sentence of its own, which begins as this one will.
    words = str(chain[-1]) if what else str(found).removeprefix(f"{method} {shown_url(url)}: ")
    why = f"{what}: {words}" if what and words else what or words
    return cls(method, scrub(url), scrub(why), maybe_sent)


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """*error* and what it wraps, the innermost last.

    Not its context: that may be an error of the caller, who is handling one.
    """
    seen.add(id(error))
    yield error
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(inner, BaseException) and id(inner) not in seen:
            yield from _chain(inner, seen)
