"""The head of an HTTP/1 request, read strictly into a WSGI environment.

Whatever two parsers could understand in two ways is refused, since behind a proxy such requests
smuggle others in: folded lines, spaces around a name, bare CR or LF, control characters, several
Content-Length or Host, Content-Length beside Transfer-Encoding, any encoding but chunked.

Source: RFC 9112 (HTTP/1.1), RFC 9110 (fields), PEP 3333 (environment).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sepelib.flask.server._limits import Limits

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["CHUNKED", "Refused", "check_beginning", "check_trailer", "parse_head"]

CHUNKED = -1
"""Length of a body that says itself where it ends."""


class Refused(Exception):
    """Not a request that we take: *status* is the answer, *reason* the label of the metric."""

    def __init__(self, status: int, reason: str, why: str) -> None:
        super().__init__(status, reason, why)
        self.status = status
        self.reason = reason
        self.why = why

    def __str__(self) -> str:
        return f"{self.status}: {self.why}"


def _malformed(why: str) -> Refused:
    return Refused(400, "malformed", why)


# What may stand in a head; CR and LF are what is left of it.
_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_TOKEN_BYTE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]").match
_VERSION = re.compile(r"HTTP/\d\.\d").fullmatch
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
_MAX_METHOD = 32
_MAX_DIGITS = 18

# Names of headers seen before, checked once; None: dropped.
_keys: dict[str, str | None] = {}
_MAX_KEYS = 1024
_MAX_KEPT_NAME = 64

# Of these a second one is refused. All others are joined, as RFC 9110 5.3 allows.
_SINGLE = frozenset(
    ["CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_HOST", "HTTP_TRANSFER_ENCODING"]
)


def parse_head(head: bytes, environ: WSGIEnvironment, limits: Limits) -> tuple[int, bool, bool]:
    """Put the request into *environ*; return its body's length, keep-alive, and expectation.

    *head* goes to the end of the last header, without its CRLF. The length is CHUNKED or 0 and
    more; keep-alive says that the client would send another request on this connection;
    the expectation is of `100 Continue`. Raises Refused.
    """
    lines = head.decode("latin-1").split("\r\n")
    if len(lines[0]) > limits.max_request_line:
        raise Refused(414, "line_too_long", "the request line is too long")
    if len(lines) - 1 > limits.max_headers:
        raise Refused(431, "headers_too_large", "too many headers")
    if head.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise _malformed("a control character")
    version, authority = _request_line(lines[0], environ)

    keys = _keys
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise _malformed("a header without a colon")
        try:
            key = keys[name]
        except KeyError:
            key = _key(name)
        if key is None:
            continue
        value = value.strip(" \t")
        if key in environ:
            value = _joined(key, environ[key], value)
        environ[key] = value

    keep_alive = version == "HTTP/1.1"
    host = environ.get("HTTP_HOST")
    if host is None:
        if keep_alive:
            raise _malformed("no Host")
    elif not _is_host(host):
        raise _malformed("an impossible Host")
    if authority is not None:
        environ["HTTP_HOST"] = authority  # RFC 9112 3.2.2: the target's wins
    if "HTTP_CONNECTION" in environ:
        keep_alive = _keep_alive(environ["HTTP_CONNECTION"], keep_alive)
    return _length(environ, version), keep_alive, _expects(environ, version)


def _request_line(line: str, environ: WSGIEnvironment) -> tuple[str, str | None]:
    """Version, and the authority of a target in absolute form."""
    method, space, rest = line.partition(" ")
    target, second, version = rest.partition(" ")
    if not (space and second and target) or " " in version or "\t" in line:
        raise _malformed("a request line of other than three parts")
    if method not in _METHODS and (len(method) > _MAX_METHOD or not _TOKEN(method)):
        raise _malformed("an impossible method")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if _VERSION(version):
            raise Refused(505, "version", "neither HTTP/1.1 nor HTTP/1.0")
        raise _malformed("an impossible version")
    environ["REQUEST_METHOD"] = method
    environ["REQUEST_URI"] = target
    environ["SERVER_PROTOCOL"] = version

    authority = None
    if target[0] != "/":
        target, authority = _absolute(method, target)
    if "#" in target:
        raise _malformed("a fragment in the target")
    path, _, query = target.partition("?")
    environ["PATH_INFO"] = unquote(path, "latin-1") if "%" in path else path
    environ["QUERY_STRING"] = query
    return version, authority


def _absolute(method: str, target: str) -> tuple[str, str | None]:
    """Path with query, and authority, of a target that does not start with a slash."""
    if method == "CONNECT":
        raise Refused(501, "not_implemented", "CONNECT is for proxies")
    if target == "*" and method == "OPTIONS":
        return target, None
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise _malformed("an impossible target")
    end = re.search(r"[/?#]", rest)
    authority, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    if not authority or not _is_host(authority):
        raise _malformed("an impossible authority")
    return path if path.startswith("/") else f"/{path}", authority


@lru_cache(maxsize=256)
def _is_host(host: str) -> bool:
    return (
        re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:\d{0,5})?", host)
        is not None
    )


def _key(name: str) -> str | None:
    """The environment's key for a header whose name was not seen before."""
    if not _TOKEN(name):
        # Also a folded line, which starts with a space, and a space before the colon.
        raise _malformed("an impossible name of a header")
    if "_" in name:
        key = None  # X_User and X-User would have the same key: the one a proxy did not check
    elif (key := name.upper().replace("-", "_")) not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
        key = f"HTTP_{key}"
    if len(name) <= _MAX_KEPT_NAME and len(_keys) < _MAX_KEYS:
        _keys[name] = key
    return key


def _joined(key: str, first: str, second: str) -> str:
    if key in _SINGLE:
        raise _malformed(f"two of {key}")
    return f"{first}; {second}" if key == "HTTP_COOKIE" else f"{first}, {second}"


def _keep_alive(connection: str, default: bool) -> bool:
    tokens = [token.strip(" \t") for token in connection.lower().split(",")]
    return "close" not in tokens and (default or "keep-alive" in tokens)


def _length(environ: WSGIEnvironment, version: str) -> int:
    length: str | None = environ.get("CONTENT_LENGTH")
    encoding: str | None = environ.get("HTTP_TRANSFER_ENCODING")
    if encoding is not None:
        if length is not None:
            raise _malformed("Content-Length beside Transfer-Encoding")
        if version != "HTTP/1.1":
            raise _malformed("Transfer-Encoding in HTTP/1.0")
        if encoding.lower() != "chunked":
            raise Refused(501, "not_implemented", "a Transfer-Encoding that is not chunked")
        return CHUNKED
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise _malformed("an impossible Content-Length")
    if len(length) > _MAX_DIGITS:
        raise Refused(413, "body_too_large", "a Content-Length of too many digits")
    return int(length)


def _expects(environ: WSGIEnvironment, version: str) -> bool:
    expect: str | None = environ.get("HTTP_EXPECT")
    if expect is None:
        return False
    if expect.lower() != "100-continue":
        raise Refused(417, "expectation", "an Expect that is not 100-continue")
    return version == "HTTP/1.1"  # RFC 9110 10.1.1: of HTTP/1.0 it is ignored


def check_beginning(part: bytes, limits: Limits) -> None:
    """Raise Refused when *part*, a head that is not complete, will not become one we take."""
    line_end = part.find(b"\r\n")
    if (len(part) if line_end < 0 else line_end) > limits.max_request_line:
        raise Refused(414, "line_too_long", "the request line is too long")
    if len(part) > limits.max_header_bytes:
        raise Refused(431, "headers_too_large", "the headers are too large")
    if part.count(b"\n") != part.count(b"\r\n"):
        raise _malformed("a line that ends with a bare LF")
    if part not in (b"", b"\r") and not _TOKEN_BYTE(part):
        raise _malformed("not HTTP")  # TLS, for one, whose client would wait until the timeout
    if line_end >= 0:
        _request_line(part[:line_end].decode("latin-1"), {})


def check_trailer(line: bytes) -> None:
    """Raise ValueError unless *line* is a header, which nobody gets to see."""
    name, colon, _ = line.decode("latin-1").partition(":")
    if not colon or not _TOKEN(name) or line.translate(None, _TEXT):
        raise ValueError("an impossible trailer")
