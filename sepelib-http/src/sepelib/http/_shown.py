"""Strangers' text made fit to be seen: URLs, bodies, words; and the secrets taken out of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from requests import PreparedRequest

from sepelib.util.secrets import MASK
from sepelib.util.text import to_text, truncate
from sepelib.util.url import SECRET_NAME, redact_text, redact_url

__all__ = ["Scrubber", "one_line", "shown_url", "visible"]

_URL_LENGTH = 500
# Control characters of ASCII, Latin-1 and Unicode, among them those that turn the text around.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHORTEST = 4  # characters of a secret; to mask a shorter one wherever it stands spoils the text


def shown_url(url: str) -> str:
    """*url* without user and password, the values of its query masked, without its fragment.

    More is hidden than by `redact_url()`: an error travels far, and what is searched for is often
    a name or an address of somebody.
    """
    url = one_line(redact_url(url).partition("#")[0])
    scheme = _SCHEME.match(url)
    rest, question, query = url[scheme.end() if scheme else 0 :].partition("?")
    host, slash, path = rest.partition("/")
    if scheme:
        host = host.rpartition("@")[2]
    if question:
        query = "&".join(_masked(parameter) for parameter in query.split("&"))
    shown = f"{scheme[0] if scheme else ''}{host}{slash}{path}{question}{query}"
    return truncate(shown, _URL_LENGTH)


def visible(text: str) -> str:
    """*text* with its control characters as `\\x1b`; lines and tabs stay."""
    return _UNSEEN.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """*text* in one line, with single spaces, control characters as `\\x1b`."""
    return visible(" ".join(text.split()))


class Scrubber:
    """Masks the secrets of a call wherever a server, or a library, repeats them.

    They are: what has a secret's name among the headers of the requests, in their queries and among
    *values*, those of the path's template; the password in *auth*.
    """

    def __init__(self, url: str, values: Mapping[str, str | bytes | int], auth: object) -> None:
        self._url = url
        self._values = values
        self._auth = auth
        self._requests: list[PreparedRequest] = []
        self._secrets: list[str] | None = None

    def learn(self, request: PreparedRequest) -> None:
        """Take the secrets of *request* for ours: that is what was sent."""
        self._requests.append(request)
        self._secrets = None

    def __call__(self, text: str) -> str:
        if self._secrets is None:
            found = {secret for secret in self._found() if len(secret) >= _SHORTEST}
            # The longest first: it may have a shorter one in it.
            self._secrets = sorted(found, key=len, reverse=True)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redact_text(text)

    def _found(self) -> Iterator[str]:
        named: list[tuple[str, str | bytes | int]] = [*self._values.items()]
        for request in self._requests:
            named += request.headers.items()
        for url in (self._url, *(request.url or "" for request in self._requests)):
            with contextlib.suppress(ValueError):  # to requests it was a URL
                named += parse_qsl(urlsplit(url).query)
        for name, value in named:
            if SECRET_NAME.search(name):
                secret = to_text(value)
                # "Bearer abc": a server may well repeat the second word alone.
                yield from (secret, secret.partition(" ")[2])
                yield from (quote(secret, safe=""), quote(secret, safe="/"))
        if isinstance(self._auth, tuple):
            yield to_text(self._auth[1])


def _masked(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return MASK if name else ""
    return f"{name}={MASK}" if value else parameter


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
