"""What the tracker answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from sepelib.yandex.model import Record, many, moment, record
from sepelib.yandex.model import key as named

__all__ = [
    "Attachment",
    "BulkChange",
    "Change",
    "Comment",
    "Entry",
    "Issue",
    "Link",
    "Queue",
    "Reference",
    "RemoteLink",
    "Transition",
    "User",
    "commas",
    "plain",
]


def _same(value: Any) -> Any:
    return value


@record
class Reference(Record):
    """What one object says of another one. Never asks for more by itself."""

    id: str | None = None
    key: str | None = None
    display: str | None = None
    url: str | None = named("self")


class Issue(Mapping[str, Any]):
    """An issue, as the mapping that the tracker answers: its fields are the user's to define.

    The attributes are the fields that every issue may have, None where it has none; references
    are `Reference`, dates aware. `raw` is the mapping itself; local fields are found there, as
    "<24 hex digits>--name". Nothing here asks the tracker.
    """

    __slots__ = ("raw",)

    raw: Mapping[str, Any]

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    @classmethod
    def from_dict(cls, raw: Any) -> Issue:
        """Never fails. What is no object gives an issue of {"value": it}."""
        return cls(raw if isinstance(raw, Mapping) else {"value": raw})

    @property
    def id(self) -> str | None:
        return self.raw.get("id")

    @property
    def key(self) -> str | None:
        return self.raw.get("key")

    @property
    def version(self) -> int | None:
        """For `issues.update(version=)`. The one from `create` may be over already."""
        return self.raw.get("version")

    @property
    def summary(self) -> str | None:
        return self.raw.get("summary")

    @property
    def description(self) -> str | None:
        return self.raw.get("description")

    @property
    def queue(self) -> Reference | None:
        return self._reference("queue")

    @property
    def status(self) -> Reference | None:
        return self._reference("status")

    @property
    def previous_status(self) -> Reference | None:
        return self._reference("previousStatus")

    @property
    def type(self) -> Reference | None:
        return self._reference("type")

    @property
    def priority(self) -> Reference | None:
        return self._reference("priority")

    @property
    def resolution(self) -> Reference | None:
        return self._reference("resolution")

    @property
    def parent(self) -> Reference | None:
        return self._reference("parent")

    @property
    def assignee(self) -> Reference | None:
        return self._reference("assignee")

    @property
    def created_by(self) -> Reference | None:
        return self._reference("createdBy")

    @property
    def updated_by(self) -> Reference | None:
        return self._reference("updatedBy")

    @property
    def followers(self) -> list[Reference]:
        found = self.raw.get("followers")
        return [Reference.from_dict(one) for one in found] if isinstance(found, list) else []

    @property
    def aliases(self) -> list[str]:
        """The keys that it had in other queues."""
        return self._list("aliases")

    @property
    def tags(self) -> list[str]:
        return self._list("tags")

    @property
    def created_at(self) -> datetime | str | None:
        return moment(self.raw.get("createdAt"))  # type: ignore[no-any-return]

    @property
    def updated_at(self) -> datetime | str | None:
        return moment(self.raw.get("updatedAt"))  # type: ignore[no-any-return]

    @property
    def last_comment_updated_at(self) -> datetime | str | None:
        return moment(self.raw.get("lastCommentUpdatedAt"))  # type: ignore[no-any-return]

    def _reference(self, name: str) -> Reference | None:
        found = self.raw.get(name)
        return None if found is None else Reference.from_dict(found)

    def _list(self, name: str) -> list[Any]:
        found = self.raw.get(name)
        return list(found) if isinstance(found, list) else []

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"<Issue {self.key}>"


@record
class Transition(Record):
    """A way out of an issue's status."""

    id: str | None = None
    display: str | None = None
    to: Reference | None = named("to", of=Reference.from_dict)
    screen: Reference | None = named("screen", of=Reference.from_dict)
    """What may, or must, be filled in on the way."""
    url: str | None = named("self")


@record
class Comment(Record):
    id: int | None = None
    long_id: str | None = named("longId")
    version: int | None = None
    text: str | None = None
    author: Reference | None = named("createdBy", of=Reference.from_dict)
    created_at: datetime | str | None = named("createdAt", of=moment)
    updated_at: datetime | str | None = named("updatedAt", of=moment)
    summonees: tuple[Reference, ...] = named("summonees", of=many(Reference.from_dict), default=())
    attachments: tuple[Reference, ...] = named(
        "attachments", of=many(Reference.from_dict), default=()
    )


@record
class Link(Record):
    """*direction* is inward or outward, *object* the other issue."""

    id: int | str | None = None
    type: Reference | None = named("type", of=Reference.from_dict)
    direction: str | None = None
    object: Reference | None = named("object", of=Reference.from_dict)
    created_at: datetime | str | None = named("createdAt", of=moment)


@record
class RemoteLink(Record):
    """A link to something outside. What is published names no field of it but these."""

    id: int | str | None = None
    type: Reference | None = named("type", of=Reference.from_dict)
    direction: str | None = None
    object: Reference | None = named("object", of=Reference.from_dict)


@record
class Attachment(Record):
    """A file; *content* is the URL to download it from, *size* in bytes."""

    id: str | None = None
    name: str | None = None
    content: str | None = None
    mimetype: str | None = None
    size: int | None = None
    author: Reference | None = named("createdBy", of=Reference.from_dict)
    created_at: datetime | str | None = named("createdAt", of=moment)


@record
class Change(Record):
    """An entry of the changelog; *fields* as the tracker has them."""

    id: str | None = None
    type: str | None = None
    issue: Reference | None = named("issue", of=Reference.from_dict)
    author: Reference | None = named("updatedBy", of=Reference.from_dict)
    updated_at: datetime | str | None = named("updatedAt", of=moment)
    fields: tuple[Mapping[str, Any], ...] = named("fields", of=many(_same), default=())


@record
class BulkChange(Record):
    """A change of many issues; over when *status* is COMPLETE or FAILED."""

    id: str | None = None
    status: str | None = None
    status_text: str | None = named("statusText")
    chunk_percent: int | None = named("executionChunkPercent")
    issue_percent: int | None = named("executionIssuePercent")

    @property
    def over(self) -> bool:
        return self.status in ("COMPLETE", "FAILED")

    @property
    def failed(self) -> bool:
        return self.status == "FAILED"


@record
class Queue(Record):
    """*version* may be a text."""

    id: int | str | None = None
    key: str | None = None
    name: str | None = None
    display: str | None = None
    version: int | str | None = None


@record
class User(Record):
    """Somebody; of *id* and *uid* a tracker may have one or both."""

    id: str | None = None
    uid: int | str | None = None
    login: str | None = None
    display: str | None = None
    email: str | None = None


@record
class Entry(Record):
    """Of a dictionary: a status, a field, a version of a queue, …"""

    id: int | str | None = None
    key: str | None = None
    name: str | Mapping[str, str] | None = None
    display: str | None = None
    version: int | str | None = None


def plain(value: Any) -> Any:
    """*value* as JSON has it: datetimes in the tracker's form, what it has answered as references.

    An aware datetime is needed.
    """
    if isinstance(value, Issue | Record):
        for name in ("key", "id"):
            if (found := value.raw.get(name)) is not None:
                return {name: found}
        if isinstance(value, User) and value.login is not None:
            return value.login  # `myself` is published without an id
        raise ValueError(f"{type(value).__name__} has no key or id to refer to it by")
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
    if isinstance(value, date):
        return value.isoformat()
    return value


def commas(names: str | Iterable[str]) -> str | None:
    """Names as one parameter of a query; None for none."""
    return (names if isinstance(names, str) else ",".join(names)) or None
