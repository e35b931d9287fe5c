"""What goes before a message in HTTP: the head of a request made, the head of a reply read.

Source: RFC 9112 and 9110, as far as a POST of a whole body needs them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from sepelib.rpc._connection import ReplyRefused
from sepelib.rpc._wire import Address
from sepelib.util.text import truncate
from sepelib.util.url import redact_text, redact_url

__all__ = [
    "HttpTarget",
    "ReplyHead",
    "parse_reply_head",
    "parse_url",
    "refusal",
    "with_excerpt",
]

_SHOWN = 200  # characters of a page that is no reply

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[\x21-\x7e]*")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\r\n]*))?")
_OURS = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding"}
)


class HttpTarget(NamedTuple):
    """Where to POST to, and what goes before the message.

    *head* is all of that up to the number of the Content-Length; *url* and *headers* are the same
    for who makes it by himself. *label* is the URL fit to be seen. *url* has no credentials.
    """

    address: Address
    tls: bool
    head: bytes
    url: str
    headers: Mapping[str, str]
    label: str


class ReplyHead(NamedTuple):
    """What the head of a reply says. *length*: of the body, None when it does not say."""

    status: int
    reason: str
    content_type: str
    content_encoding: str
    length: int | None
    chunked: bool
    keeps: bool
    """Whether the connection goes on behind the body."""


def parse_url(url: str, headers: Mapping[str, str] | None = None) -> HttpTarget:
    """Of an http or https URL. Its user and password become an Authorization header.

    ValueError for what cannot be sent: another scheme, control characters, spaces, non-ASCII
    characters in the path, a header of the connection's own. Shows no secret.
    """
    shown = redact_url(url)
    if not _TARGET.fullmatch(url):  # before urlsplit(), which drops some of them in silence
        raise ValueError(f"{shown!r}: percent-encode spaces and all that is not ASCII")
    try:
        parts = urlsplit(url)
        host, port, tls = parts.hostname, parts.port, parts.scheme == "https"
    except ValueError as error:
        raise ValueError(f"{shown!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{shown!r} is no URL of http:// or https:// with a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.fragment:
        raise ValueError(f"{shown!r}: a fragment is not sent, leave it out")
    default = 443 if tls else 80
    place = f"[{host}]" if ":" in host else host
    if port not in (None, default):
        place = f"{place}:{port}"
    lines = {
        "User-Agent": "sepelib-rpc",
        "Content-Type": "application/x-thrift",
        "Accept": "application/x-thrift",
        "Accept-Encoding": "identity",
    }
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    _add(lines, headers or {})
    text = "".join([f"{name}: {value}\r\n" for name, value in lines.items()])
    head = f"POST {target} HTTP/1.1\r\nHost: {place}\r\n{text}Content-Length: "
    bare = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    address = Address(host, port or default)
    return HttpTarget(address, tls, head.encode("latin-1"), bare, lines, redact_url(bare))


def _add(lines: dict[str, str], headers: Mapping[str, str]) -> None:
    known = {name.lower(): name for name in lines}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"a header {name!r} cannot be sent")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name} has characters that HTTP forbids")
        if "Authorization" in lines and name.lower() == "authorization":
            raise ValueError("an Authorization is in the URL and in the headers: which one?")
        lines.pop(known.get(name.lower(), ""), None)
        lines[name] = value


def parse_reply_head(data: bytes) -> ReplyHead:
    """Of all up to the empty line, without it; ReplyRefused for what is ambiguous or no HTTP/1."""
    first, *lines = data.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ReplyRefused("the answer is not HTTP/1")
    minor, status, reason = status_line.groups(b"")
    content_type = content_encoding = connection = coding = b""
    length: int | None = None
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or name[-1:] in b" \t" or name[:1] in b" \t":
            raise ReplyRefused("a header of the reply is broken")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"content-length":
            if not _NUMBER.fullmatch(value) or length not in (None, int(value)):
                raise ReplyRefused("the reply's Content-Length is broken")
            length = int(value)
        elif name == b"content-type":
            content_type = value
        elif name == b"connection":
            connection += value.lower() + b","
        elif name == b"transfer-encoding":
            coding += value.lower() + b","
        elif name == b"content-encoding":
            content_encoding = value
    if coding not in (b"", b"chunked,") or (coding and length is not None):
        # Two lengths are how a reply is smuggled into another's place.
        raise ReplyRefused("the reply has a Transfer-Encoding that is not to be trusted")
    keeps = minor == b"1"
    if connection:
        options = {option.strip() for option in connection.split(b",")}
        keeps = b"close" not in options and (keeps or b"keep-alive" in options)
    return ReplyHead(
        int(status),
        reason.decode("latin-1"),
        content_type.decode("latin-1"),
        content_encoding.decode("latin-1"),
        length,
        bool(coding),
        keeps,
    )


def refusal(head: ReplyHead) -> str:
    """Why the body behind *head* is not read as Thrift; "" if it is."""
    status = f"HTTP {head.status} {head.reason}".rstrip()
    if not 200 <= head.status < 300:
        return f"{status} is no reply"
    if head.content_encoding.lower() not in ("", "identity"):
        return "the reply has a Content-Encoding, which was not asked for"
    if head.content_type.lower().startswith("text/html"):
        return f"{status} is a page and no reply"
    return ""


def with_excerpt(reason: str, page: bytes) -> str:
    """*reason* and the first words of *page*, in one line, the secrets of URLs masked."""
    text = redact_text(" ".join(page.decode("utf-8", "replace").split()))
    words = "".join([c if c.isprintable() else "?" for c in text])
    return f"{reason}: {truncate(words, _SHOWN)!r}" if words else reason
