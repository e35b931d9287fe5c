"""More targets, from MongoDB: a list of which each change is a revision.

`lookout export` writes the list down with the version of each target, the revision in which it
was changed last. `lookout import` takes such a list back, as one step or not at all: where somebody
has changed a target meanwhile, that is a conflict. What is in the list already is no change, so
that an import may be repeated when nobody knows whether it was done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bson
from bson.errors import BSONError
from pymongo import DeleteOne, ReadPreference, ReplaceOne

from lookout import models
from lookout.checks import count
from lookout.database import DURABLE, Away, Database, Refused
from lookout.lists import KeptList, loaded
from lookout.targets import Defaults, Target, targets_in
from sepelib.core.config import ConfigError
from sepelib.core.config.writing import to_yaml_document
from sepelib.gevent import periodic
from sepelib.mongo import find_and_modify

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

__all__ = ["Catalogue", "Changes", "Conflict", "Listed", "Row", "put", "read_catalogue", "written"]

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds from one look to the next
PATIENCE = 2.0  # seconds for a look


class Conflict(Exception):
    """Somebody has changed what was to be changed; one sentence, and nothing was done."""


@dataclass(frozen=True, slots=True)
class Row:
    """A target as it is written down. settings: without its name, its tags and its version.

    version: None for one that is to be new. by: who has made it that.
    """

    name: str
    settings: Mapping[str, Any]
    tags: frozenset[str] = frozenset()
    version: int | None = None
    by: str = ""

    @property
    def content(self) -> str:
        """Equal for rows that say the same."""
        return json.dumps([self.settings, sorted(self.tags)], sort_keys=True)

    def plain(self) -> dict[str, Any]:
        """As in a file, without the version."""
        settings = json.loads(json.dumps(self.settings))  # numbers of BSON are none of YAML
        return {"name": self.name, **settings} | ({"tags": sorted(self.tags)} if self.tags else {})


class Listed(NamedTuple):
    """A list: its rows by their names. revision: None where nobody has said it."""

    revision: int | None
    rows: dict[str, Row]

    def to_yaml(self) -> str:
        """As it is exported."""
        rows = [row.plain() | {"version": row.version} for row in self.rows.values()]
        return to_yaml_document({"revision": self.revision, "targets": rows})


class Changes(NamedTuple):
    """Names of targets that an import makes, changes, removes, or has found as they are to be."""

    made: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]


def written(text: str, scratch: Path, name: str, defaults: Defaults) -> Listed:
    """What the file *name* says, once all of it is known to be fine. Raises ConfigError.

    scratch: a file to be overwritten and removed.
    """
    with loaded(text, scratch, name, keys=("targets", "revision"), ambiguous="error") as config:
        number = len(config.get_value("targets", type=list))
        if number:  # none is fine for who wants to remove them all
            targets_in(config, defaults, also=("version",))
        rows = {}
        for n, row in enumerate(config.to_dict(mask=False)["targets"]):
            try:
                bson.encode(row)
            except (BSONError, OverflowError):  # their texts may hold the value
                raise ConfigError(f"{name}: targets.{n} has what MongoDB cannot keep") from None
            target, version = row.pop("name"), row.pop("version", None)
            if version is not None:
                config.get_value(f"targets.{n}.version", type=count)
            rows[target] = Row(target, row, frozenset(row.pop("tags", ())), version)
        return Listed(config.get_value("revision", None, type=_revision), rows)


def read_catalogue(database: Database, seconds: float = 5.0) -> Listed:
    """The list of now. Raises Away."""
    with database.use(seconds) as client, client.start_session() as session:
        return session.with_transaction(_listed, read_preference=ReadPreference.PRIMARY)


def put(
    database: Database, wanted: Listed, *, by: str, prune: bool = False, dry: bool = False
) -> Changes:
    """Put the rows *wanted* into the list, as one step. Raises Conflict and Away.

    prune: remove all others; not without knowing those: *wanted* has to be of the last revision.
    dry: only say what would be done.
    """

    def work(session: ClientSession) -> Changes:
        stored = _listed(session)
        changes = _compared(wanted, stored, prune=prune)
        if not dry and any(changes[:3]):
            _write(changes, wanted, (stored.revision or 0) + 1, by, session)
        return changes

    with database.use() as client, client.start_session() as session:
        return session.with_transaction(
            work, write_concern=DURABLE, read_preference=ReadPreference.PRIMARY
        )


class Catalogue:
    """A thread that looks at the list, and `targets`, those of the last one that was fine.

    changed: called when `targets` are other ones, or known for the first time, from the thread.
    is_known: False until there was a list that was fine.
    """

    def __init__(self, database: Database, state: Path, *, changed: Callable[[], object]) -> None:
        self._database = database
        self._list = KeptList("MongoDB", state, changed=changed)
        self._used: Defaults | None = None
        self._revision: int | None = None  # that was read last
        self._refused: str | None = None  # why it cannot be read
        self._thread = periodic(self.look, LOOK, name="catalogue", daemon=True)

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._list.targets

    @property
    def is_known(self) -> bool:
        return self._list.is_known

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        said = self._list.complaints
        if self._refused is not None:
            said.append(
                f"The targets in MongoDB cannot be read, the last ones stay: {self._refused}"
            )
        return said

    def use(self, defaults: Defaults) -> None:
        """Begin with these, or go on with them. `targets` are those that were kept."""
        if defaults != self._used:
            self._used = defaults
            self._list.begin(defaults)
            self._revision = None  # a list that was refused may be fine now

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop(PATIENCE)

    def look(self) -> None:
        """What the thread does again and again."""
        try:
            with self._database.use(PATIENCE):
                head = models.TargetList.objects(id=models.TargetList.ID).first()
            revision = head.revision if head else 0
            if revision == self._revision:
                return
            listed = read_catalogue(self._database, PATIENCE)
        except Refused as error:
            if self._refused is None:
                log.error("targets in MongoDB cannot be read, the last ones stay: %s", error)
            self._refused = str(error)
        except Away:
            pass  # which the database has said
        else:
            self._refused = None
            self._revision = listed.revision
            self._take(listed)

    def _take(self, listed: Listed) -> None:
        if listed.rows:
            text = to_yaml_document({"targets": [row.plain() for row in listed.rows.values()]})
            self._list.take(text.encode(), f"MongoDB@{listed.revision}")
        else:
            self._list.forget()


def _listed(session: ClientSession) -> Listed:
    head = _collection(models.TargetList).find_one({"_id": models.TargetList.ID}, session=session)
    rows = _collection(models.TargetDoc).find({}, session=session).sort("_id")
    try:
        found = [
            Row(row["_id"], row["settings"], frozenset(row["tags"]), row["version"], row["by"])
            for row in rows
        ]
        return Listed(head["revision"] if head else 0, {row.name: row for row in found})
    except KeyError as error:
        raise Refused(f"a target is not as lookout has written it: no {error}") from error


def _compared(wanted: Listed, stored: Listed, *, prune: bool) -> Changes:
    changes = Changes([], [], [], [])
    conflicts = []
    for name, row in wanted.rows.items():
        there = stored.rows.get(name)
        if there and there.content == row.content:
            changes.same.append(name)
        elif (there and there.version) != row.version:
            conflicts.append(_conflict(row, there))
        else:
            (changes.changed if there else changes.made).append(name)
    if prune:
        changes.removed.extend(name for name in stored.rows if name not in wanted.rows)
        if changes.removed and wanted.revision != stored.revision:
            said = "none" if wanted.revision is None else wanted.revision
            conflicts.append(f"the list has revision {stored.revision} by now, the file {said}")
    if conflicts:
        raise Conflict("; ".join(conflicts))
    return changes


def _conflict(row: Row, there: Row | None) -> str:
    if there is None:
        return f"{row.name} has been removed"
    said = "none" if row.version is None else row.version
    return f"{row.name} has version {there.version} by {there.by}, the file {said}"


def _write(
    changes: Changes, wanted: Listed, revision: int, by: str, session: ClientSession
) -> None:
    # Before all else: of two who write at once, the later one fails here and looks again.
    find_and_modify(
        models.TargetList,
        {"id": models.TargetList.ID},
        {"revision": revision},
        upsert=True,
        session=session,
    )
    now = datetime.now(UTC)
    requests: list[DeleteOne | ReplaceOne[Any]] = [
        DeleteOne({"_id": name}) for name in changes.removed
    ]
    for row in _rows(wanted, (*changes.made, *changes.changed)):
        document = models.TargetDoc(
            id=row.name,
            settings=dict(row.settings),
            tags=row.tags,
            version=revision,
            changed_at=now,
            by=by,
        )
        requests.append(ReplaceOne({"_id": row.name}, document.to_mongo().to_dict(), upsert=True))
    _collection(models.TargetDoc).bulk_write(requests, session=session)


def _rows(listed: Listed, names: Iterable[str]) -> list[Row]:
    return [listed.rows[name] for name in names]


def _collection(model: Any) -> Any:
    # mongoengine's querysets know of no sessions.
    return model._get_collection()


def _revision(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a whole number from 0")
    return value
