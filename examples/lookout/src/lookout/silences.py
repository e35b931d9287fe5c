"""Silences: as long as one covers a target, no mail goes out about it.

Incidents open and close as ever, and the page shows them. A mail that a silence holds back goes out
at its end, if the incident is still open then.

They are kept in MongoDB, by the clock of who sets them, and read by each replica again and again.
While MongoDB is away those last read stay, and end when they were to end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mongoengine.errors import ValidationError

from lookout import models
from lookout.database import DURABLE, Away, Database, Refused
from lookout.targets import Target
from sepelib.gevent import periodic
from sepelib.mongo import find_and_modify

__all__ = [
    "LONGEST",
    "Silence",
    "Silences",
    "end_silence",
    "last_of",
    "read_silences",
    "set_silence",
]

log = logging.getLogger(__name__)

LONGEST = timedelta(days=7)
LOOK = 1.0  # seconds from one look to the next
PATIENCE = 2.0  # seconds for a look


@dataclass(frozen=True, slots=True)
class Silence:
    """No mails about *targets*, nor about those with one of *tags*, until then."""

    id: str
    targets: frozenset[str]
    tags: frozenset[str]
    until: datetime
    by: str
    reason: str
    created_at: datetime

    def covers(self, target: Target) -> bool:
        return target.name in self.targets or not self.tags.isdisjoint(target.tags)


def last_of(silences: Sequence[Silence], target: Target) -> Silence | None:
    """Of those that cover *target* the one that ends last."""
    covering = [silence for silence in silences if silence.covers(target)]
    return max(covering, key=lambda silence: silence.until, default=None)


def set_silence(
    database: Database,
    *,
    targets: Collection[str],
    tags: Collection[str],
    seconds: float,
    by: str,
    reason: str,
) -> Silence:
    """Raises Away, and then it may have been set."""
    now = datetime.now(UTC)
    silence = models.Silence(
        targets=targets,
        tags=tags,
        until=now + timedelta(seconds=seconds),
        by=by,
        reason=reason,
        created_at=now,
    )
    with database.use():
        silence.save(write_concern=DURABLE.document)
    return _silence(silence)


def end_silence(database: Database, id: str) -> Silence | None:
    """End it now; None where there is none of this *id*, or it has ended. Raises Away."""
    now = datetime.now(UTC)
    query, end = {"id": id, "until__gt": now}, {"until": now}
    with database.use():
        ended = find_and_modify(models.Silence, query, end, new=True, write_concern=DURABLE)
    return ended and _silence(ended)


def read_silences(database: Database, seconds: float = 5.0) -> list[Silence]:
    """Those that have not ended, the first to end first. Raises Away."""
    with database.use(seconds):
        found = models.Silence.objects(until__gt=datetime.now(UTC)).order_by("until", "id")
        return [_silence(silence) for silence in found]


class Silences:
    """A thread that reads them. Those who ask wait for nothing.

    is_known: False until they were read for the first time.
    clock: gives the time, aware.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self.is_known = False
        self._silences: list[Silence] = []
        self._refused: str | None = None  # why they cannot be read
        self._database = database
        self._clock = clock
        self._thread = periodic(self.look, LOOK, name="silences", daemon=True)

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        if self._refused is None:
            return []
        return [f"Silences cannot be read, those known stay: {self._refused}"]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop(PATIENCE)

    def valid(self) -> list[Silence]:
        """Those of now, the first to end first."""
        now = (self._clock or _now)()
        return [silence for silence in self._silences if now < silence.until]

    def silenced(self, target: Target) -> bool:
        return any(silence.covers(target) for silence in self.valid())

    def look(self) -> None:
        """What the thread does again and again."""
        try:
            self._silences = read_silences(self._database, PATIENCE)
        except (Refused, ValidationError) as error:
            if self._refused is None:
                log.error("silences cannot be read, those known stay: %s", error)
            self._refused = str(error)
        except Away:
            pass  # which the database has said
        else:
            self._refused = None
            self.is_known = True


def _silence(found: models.Silence) -> Silence:
    return Silence(
        found.id,
        frozenset(found.targets),
        frozenset(found.tags),
        found.until,
        found.by,
        found.reason,
        found.created_at,
    )


def _now() -> datetime:
    return datetime.now(UTC)
