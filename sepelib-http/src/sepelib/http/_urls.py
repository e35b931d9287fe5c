"""Where a request goes, and under which label it is counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from sepelib.util.url import UrlTemplate, Value, redact_url

__all__ = ["expanded", "joined", "origin_of"]

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}

_compiled = lru_cache(maxsize=1024)(UrlTemplate)


def expanded(template: str, path: Mapping[str, Value]) -> str:
    """*template* with its values quoted; `../admin` stays one segment. See UrlTemplate."""
    return _compiled(template).expand(**path)


def joined(base: str | None, url: str) -> str:
    """*url* below *base*, whose own path is kept; an absolute *url* as it is."""
    if base is None or _ABSOLUTE.match(url):
        return url
    if not url or url.startswith(("?", "#")):
        return base + url
    return f"{base.rstrip('/')}/{url.lstrip('/')}"


@lru_cache(maxsize=1024)
def _origin(scheme: str, netloc: str) -> str:
    host, colon, port = netloc.rpartition("@")[2].lower().rpartition(":")
    if not colon or not port.isdigit():
        host, port = netloc.rpartition("@")[2].lower(), str(_PORTS.get(scheme, ""))
    return f"{scheme}://{host}:{port}"


def origin_of(url: str) -> str:
    """`scheme://host:port`, without a user, always with the port."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "invalid"
    return _origin(parts.scheme, parts.netloc)


@lru_cache(maxsize=1024)
def label_of(template: str) -> str:
    """A template as a label: as written, less a user and password before the host."""
    return redact_url(template)
