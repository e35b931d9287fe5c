"""Where requests go: bases, the links of services, parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from ._shown import shown_url

__all__ = ["Origin", "checked_base", "followed", "origin", "query"]

_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]


def checked_base(url: str) -> str:
    """*url* without slashes at its end; ValueError if paths cannot be put behind it."""
    parts = urlsplit(url)
    if (
        parts.scheme not in _PORTS
        or not parts.hostname
        or not url.isprintable()
        or set(url) & set(" \\?#")
    ):
        raise ValueError(f"{shown_url(url)} is no base URL: write http(s)://host[:port][/path]")
    if parts.username or parts.password:
        raise ValueError(f"{shown_url(url)} has a user in it: give auth=")
    return url.rstrip("/")


def origin(url: str) -> Origin:
    """Scheme, host and port, as RFC 6454 compares them; ValueError if there are none."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{shown_url(url)} has no origin: write http(s)://host[:port]")
    return parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme]


def followed(link: str, base: str, origins: Collection[Origin], *, anywhere: bool) -> str | None:
    """The URL that *link*, in an answer from below *base*, leads to; None if it is foreign."""
    try:
        url = urljoin(f"{base}/", link)
        allowed = _is_plain(url) and (origin(url) in origins or anywhere)
    except ValueError:
        return None
    return url if allowed else None


def _is_plain(url: str) -> bool:
    """Whether all parsers of URLs find the same host in it."""
    return (
        url.isascii()
        and url.isprintable()
        and not set(url) & set("\\ ")
        and "@" not in urlsplit(url).netloc
    )


def query(params: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """None is left out, a list repeats its name, a bool is true or false."""
    for name, value in params.items():
        for item in value if isinstance(value, list | tuple | set | frozenset) else (value,):
            if isinstance(item, bool):
                yield name, "true" if item else "false"
            elif item is not None:
                yield name, str(item)
