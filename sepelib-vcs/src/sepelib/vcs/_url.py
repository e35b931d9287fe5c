"""URLs of a repository in the one form that svn itself uses, and what names them to svn.

`svn` takes what follows the last '@' of a target for a revision, so its targets always end in
one; `svnmucc` takes '@' as it is, and would make a file with one too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from sepelib.util.url import redact_url

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)
# No user and no host starts with '-': ssh would take it for an option.
_AUTHORITY = re.compile(
    r"(?:[A-Za-z0-9_.~%+][A-Za-z0-9_.~%+-]*@)?"
    r"(?:[A-Za-z0-9_.][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SAFE = "!$&'()*+,-.:;=@_~"  # as svn writes them; letters and digits are always safe


def canonical(url: str, schemes: Iterable[str]) -> str:
    """*url* as svn writes it. ValueError when it is none, or of a scheme that is not allowed.

    What may not stand in a URL (spaces, letters outside ASCII, '?', '#') is encoded as UTF-8;
    '%' has to be written as %25, since "%20" is taken for a space.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{redact_url(url)!r} is no URL of a repository")
    scheme, authority, path = match[1].lower(), match[2], match[3] or ""
    allowed = tuple(schemes)
    if scheme not in allowed:
        raise ValueError(f"a URL of the scheme {scheme} is not allowed, see schemes={allowed}")
    if ":" in authority.rpartition("@")[0]:
        raise ValueError("a URL with a password would show it: give username= and password=")
    if scheme == "file":
        if authority not in ("", "localhost"):
            raise ValueError(f"{url!r}: file:// is of this machine, with three slashes")
        authority = ""
    elif not _AUTHORITY.fullmatch(authority):
        raise ValueError(f"{redact_url(url)!r} names no host")
    user, at, host = authority.rpartition("@")
    segments = [_segment(url, part) for part in path.split("/") if part]
    return "/".join([f"{scheme}://{user}{at}{host.lower()}", *segments])


def _segment(url: str, raw: str) -> str:
    if _STRAY_PERCENT.search(raw):
        raise ValueError(f"{redact_url(url)!r}: write %25 for '%', or use sepelib.util.url.expand")
    try:
        name = unquote_to_bytes(raw.encode()).decode()
    except UnicodeError:
        raise ValueError(f"{redact_url(url)!r}: names in a repository are UTF-8") from None
    if name in (".", "..") or "/" in name or _CONTROL.search(name):
        raise ValueError(
            f"{redact_url(url)!r} has '.', '..', an encoded '/' or a control character"
        )
    return quote(name, safe=_SAFE)


def target(url: str, peg: int | str | None = None) -> str:
    """A canonical *url* as `svn` (not `svnmucc`) wants it."""
    return f"{url}@{'' if peg is None else peg}"


def parent(url: str) -> str:
    return url.rpartition("/")[0]


def ancestors(url: str) -> list[str]:
    """The URLs above a canonical *url*, the server's first."""
    server, path = split(url)
    names = path.split("/")[1:-1]
    return [server + "".join(f"/{name}" for name in names[:n]) for n in range(len(names) + 1)]


def split(url: str) -> tuple[str, str]:
    """A canonical *url* as server and path."""
    end = url.find("/", url.index("://") + 3)
    return (url, "") if end < 0 else (url[:end], url[end:])
