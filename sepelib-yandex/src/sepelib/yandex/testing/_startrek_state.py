"""What the fake tracker has, and the values of issues."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._request import Refusal

__all__ = [
    "LINK_KINDS",
    "LISTS",
    "REFERENCES",
    "Bulk",
    "Issue",
    "LinkKind",
    "Scroll",
    "StartrekState",
    "StoredFile",
    "Way",
    "changed",
    "refused",
    "timestamp",
]

Issue = dict[str, Any]

REFERENCES = {
    "assignee": "users",
    "components": "components",
    "createdBy": "users",
    "fixVersions": "versions",
    "followers": "users",
    "parent": "issues",
    "previousQueue": "queues",
    "previousStatus": "statuses",
    "priority": "priorities",
    "queue": "queues",
    "resolution": "resolutions",
    "status": "statuses",
    "type": "issuetypes",
    "updatedBy": "users",
}
"""Fields whose values are of a table."""

LISTS = frozenset({"aliases", "components", "fixVersions", "followers", "sprint", "tags"})
"""Fields with many values."""

_TEXTS = ("createdAt", "description", "key", "lastCommentUpdatedAt", "summary", "updatedAt")
_DICTIONARIES = {
    "statuses": {"open": "Open", "inProgress": "In progress", "closed": "Closed"},
    "priorities": {"minor": "Minor", "normal": "Normal", "critical": "Critical"},
    "resolutions": {"fixed": "Fixed", "wontFix": "Won't fix"},
    "issuetypes": {"task": "Task", "bug": "Bug"},
}


class LinkKind(NamedTuple):
    type: str
    direction: str
    opposite: str


LINK_KINDS = {
    "relates": LinkKind("relates", "outward", "relates"),
    "depends on": LinkKind("depends", "outward", "is dependent by"),
    "is dependent by": LinkKind("depends", "inward", "depends on"),
    "is subtask for": LinkKind("subtask", "outward", "is parent task for"),
    "is parent task for": LinkKind("subtask", "inward", "is subtask for"),
    "duplicates": LinkKind("duplicates", "outward", "is duplicated by"),
    "is duplicated by": LinkKind("duplicates", "inward", "duplicates"),
    "is epic of": LinkKind("epic", "outward", "has epic"),
    "has epic": LinkKind("epic", "inward", "is epic of"),
}


class Way(NamedTuple):
    """A transition: from one of *source*, none named: from any, to *target*.

    *fields*: those of its screen; *required*: which of them must have a value afterwards.
    *resets*: fields that lose theirs.
    """

    id: str
    display: str
    source: tuple[str, ...]
    target: str
    fields: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()


@dataclass
class Scroll:
    rows: list[Issue]
    token: str
    size: int
    ttl: float
    expires: float
    at: int = 0


@dataclass
class Bulk:
    """*polls*: how often somebody has asked for it."""

    answer: dict[str, Any]
    kind: str
    body: dict[str, Any]
    polls: int = 0


@dataclass
class StoredFile:
    answer: dict[str, Any]
    content: bytes
    issue: str | None = None


def _workflow() -> list[Way]:
    screen = ("resolution", "assignee")
    return [
        Way("start", "Start", ("open",), "inProgress"),
        Way("close", "Close", ("open", "inProgress"), "closed", screen, ("resolution",)),
        Way("reopen", "Reopen", ("closed",), "open", resets=("resolution",)),
    ]


def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    """By their names in paths; the entries by their ids."""
    tables: dict[str, dict[str, dict[str, Any]]] = {
        name: {
            str(number): {
                "self": f"/{name}/{number}",
                "id": str(number),
                "version": 1,
                "key": key,
                "name": display,
                "display": display,
            }
            for number, (key, display) in enumerate(entries.items(), 1)
        }
        for name, entries in _DICTIONARIES.items()
    }
    known = {**dict.fromkeys(_TEXTS, "string"), **dict.fromkeys(REFERENCES, "reference")}
    known |= {"id": "string", "version": "integer", "votes": "integer", "favorite": "boolean"}
    known |= dict.fromkeys(LISTS, "array")
    tables["fields"] = {
        name: {"self": f"/fields/{name}", "id": name, "name": name, "schema": {"type": kind}}
        for name, kind in sorted(known.items())
    }
    tables["linktypes"] = {
        kind.type: {"self": f"/linktypes/{kind.type}", "id": kind.type}
        for kind in LINK_KINDS.values()
    }
    for name in ("queues", "users", "versions", "components", "worklog"):
        tables[name] = {}
    return tables


@dataclass
class StartrekState:
    """URLs are without host and version. Issues are replaced, never changed."""

    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=_tables)
    me: str = ""
    """The id of the user whose token it is."""
    issues: dict[str, Issue] = field(default_factory=dict)
    """By id."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key, or former key, to id."""
    unique: dict[str, str] = field(default_factory=dict)
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By id of the issue, as links, remote_links, changelog."""
    links: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    remote_links: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    changelog: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    workflow: list[Way] = field(default_factory=_workflow)
    automation: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a queue, by its key, changes right after the creation of an issue."""
    queries: dict[str, Callable[[Issue], bool]] = field(default_factory=dict)
    scrolls: dict[str, Scroll] = field(default_factory=dict)
    bulk: dict[str, Bulk] = field(default_factory=dict)
    ids: Counter[str] = field(default_factory=Counter)

    def next_id(self, kind: str) -> int:
        self.ids[kind] += 1
        return self.ids[kind]


def refused(status: int, message: str = "", /, **fields: str) -> Refusal:
    """An error of the tracker; *fields*: what is wrong with single ones."""
    return Refusal(status, "", message, details=fields)


def timestamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def changed(
    name: str, now: Any, asked: Any, resolve: Callable[[str, Any], Any], *, many: bool
) -> Any:
    """The value of a field that is *now*, after what a PATCH has *asked*; None: no value.

    *resolve* makes a stored value of a single one that was sent. *many*: it has a list of them.
    """
    if not isinstance(asked, Mapping) or not asked.keys() & {"add", "remove", "set", "replace"}:
        if asked is None:
            return [] if many else None
        if not many:
            return resolve(name, asked)
        if not isinstance(asked, list):
            raise refused(400, **{name: "it has a list"})
        return [resolve(name, one) for one in asked]
    if "set" in asked:
        return changed(name, now, asked["set"], resolve, many=many)
    if not many:
        raise refused(400, **{name: "it has no list"})
    values = list(now or [])
    for one in _listed(asked.get("remove")):
        gone = resolve(name, one)
        values = [value for value in values if value != gone]
    for one in _listed(asked.get("replace")):
        if not isinstance(one, Mapping) or not {"target", "replacement"} <= one.keys():
            raise refused(400, **{name: "replace has target and replacement"})
        gone, put = resolve(name, one["target"]), resolve(name, one["replacement"])
        values = [put if value == gone else value for value in values]
    for one in _listed(asked.get("add")):
        value = resolve(name, one)
        if value not in values:
            values.append(value)
    return values


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
