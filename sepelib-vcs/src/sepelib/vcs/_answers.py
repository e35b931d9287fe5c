"""What svn answers in XML, as tuples.

svn quotes what it was told by a server, so a document with a DTD, or in another encoding, is not
its own and is refused; how large it may be is up to the runner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from sepelib.vcs._errors import SvnError

if TYPE_CHECKING:
    from datetime import datetime
    from xml.etree.ElementTree import Element

_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'

T = TypeVar("T")
Kind = Literal["file", "dir"]


class Info(NamedTuple):
    """What is at *url* in *revision*. *size* is in bytes, None for a directory.

    *last_changed_revision*, *author* and *date* (aware, UTC) are of the last commit which changed
    it, or for a directory anything below it. An anonymous commit has no author.
    """

    url: str
    root: str
    uuid: str
    kind: Kind
    size: int | None
    revision: int
    last_changed_revision: int
    author: str | None
    date: datetime | None


class Entry(NamedTuple):
    """One file or directory of a listing; *name* is its path below what was listed."""

    name: str
    kind: Kind
    size: int | None
    last_changed_revision: int
    author: str | None
    date: datetime | None


class ChangedPath(NamedTuple):
    """*action* is A (added), M (modified), D (deleted), R (replaced); *path* is of the root."""

    path: str
    action: Literal["A", "M", "D", "R"]
    kind: str
    copied_from: str | None
    copied_revision: int | None


class LogEntry(NamedTuple):
    """One commit. *paths* is empty unless it was asked for."""

    revision: int
    author: str | None
    date: datetime | None
    message: str
    paths: tuple[ChangedPath, ...]


def infos(what: str, xml: bytes) -> list[Info]:
    return _read(what, xml, "entry", _info)


def entries(what: str, xml: bytes) -> list[Entry]:
    return _read(what, xml, "list/entry", _entry)


def log_entries(what: str, xml: bytes) -> list[LogEntry]:
    return _read(what, xml, "logentry", _log_entry)


def _read(what: str, xml: bytes, path: str, make: Callable[[Element], T]) -> list[T]:
    from xml.etree.ElementTree import ParseError, fromstring

    # svn writes "<" of names and messages as "&lt;", so "<!" starts a DTD or is not svn's.
    if not xml.startswith(_DECLARATION) or b"<!" in xml:
        raise SvnError(f"{what}: its answer is not the XML of svn")
    try:
        return [make(element) for element in fromstring(xml).iterfind(path)]
    except (ParseError, KeyError, ValueError) as e:
        raise SvnError(f"{what}: its answer is not as svn 1.14 writes it: {e!r}") from e


def _info(element: Element) -> Info:
    return Info(
        _text(element, "url"),
        _text(element, "repository/root"),
        _text(element, "repository/uuid"),
        cast(Kind, element.attrib["kind"]),
        _number(element.get("size")),
        int(element.attrib["revision"]),
        *_commit(element),
    )


def _entry(element: Element) -> Entry:
    return Entry(
        _text(element, "name"),
        cast(Kind, element.attrib["kind"]),
        _number(element.findtext("size")),
        *_commit(element),
    )


def _log_entry(element: Element) -> LogEntry:
    return LogEntry(
        int(element.attrib["revision"]),
        element.findtext("author"),
        _date(element),
        element.findtext("msg") or "",
        tuple(_changed_path(path) for path in element.iterfind("paths/path")),
    )


def _changed_path(element: Element) -> ChangedPath:
    return ChangedPath(
        element.text or "",
        cast(Literal["A", "M", "D", "R"], element.attrib["action"]),
        element.get("kind", ""),
        element.get("copyfrom-path"),
        _number(element.get("copyfrom-rev")),
    )


def _commit(element: Element) -> tuple[int, str | None, datetime | None]:
    commit = element.find("commit")
    if commit is None:
        raise ValueError("no commit")
    return int(commit.attrib["revision"]), commit.findtext("author"), _date(commit)


def _date(element: Element) -> datetime | None:
    from datetime import datetime

    text = element.findtext("date")
    return datetime.fromisoformat(text) if text else None


def _text(element: Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
