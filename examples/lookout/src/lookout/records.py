"""What a replica remembers: results of probes, and the standing of each target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lookout.judge import Rules, Standing

__all__ = ["History", "Incident", "Mail", "Record", "Result", "well_formed"]

KEEP_UNWATCHED = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Result:
    """One probe. *error* is a sentence for a person, None when the target is fine.

    latency: seconds of the last try, until the end of the answer or the failure.
    status: of the HTTP answer, or of the program's end, 0 for the reply to a call; None when there
        was none.
    """

    at: datetime
    latency: float
    status: int | None = None
    error: str | None = None
    tries: int = 1

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class Incident:
    """One outage of one target, open until *closed_at* is set.

    number: negative as long as it is not saved, only to tell it from others.
    """

    number: int
    target: str
    opened_at: datetime
    cause: str
    closed_at: datetime | None = None
    closed_because: str | None = None

    @property
    def id(self) -> str:
        return f"INC-{'?' if self.number < 0 else self.number}"

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    def duration(self, now: datetime) -> float:
        """Seconds, never negative: the wall clock may have been set back meanwhile."""
        return max(0.0, ((self.closed_at or now) - self.opened_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Mail:
    """What is to be told of an incident, as it was when it opened or when it closed.

    to: those who have not got it while others have; empty: all who get mails.
    """

    incident: Incident
    to: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        return "opened" if self.incident.is_open else "closed"

    @property
    def queued_at(self) -> datetime:
        return self.incident.closed_at or self.incident.opened_at

    @property
    def message_id(self) -> str:
        """The same whenever it is sent, so that a mail client shows a repeated mail once.

        With the moment in it: after the loss of a database there is another INC-1.
        """
        at = f"{self.incident.opened_at:%Y%m%dT%H%M%S.%f}"
        return f"<{self.incident.id}.{self.kind}.{at}@lookout.invalid>"


@dataclass(slots=True)
class Record:
    """One target: its standing, since when, and its last results, oldest first."""

    standing: Standing = field(default_factory=Standing)
    since: datetime | None = None
    results: deque[Result] = field(default_factory=deque)


class History:
    """All records, bounded. `lookout.store` keeps it on disk.

    Belongs to one hub: no method yields, so greenlets never see it half changed.
    """

    def __init__(self, *, max_results: int = 300) -> None:
        self.records: dict[str, Record] = {}
        self.max_results = max_results

    def add(self, target: str, result: Result, rules: Rules) -> None:
        """Take down a result, and where it puts the target."""
        record = self.record(target)
        record.results.append(result)
        before, record.standing = record.standing, record.standing.after(result.ok, rules)
        if before.state is not record.standing.state:
            record.since = result.at

    def record(self, target: str) -> Record:
        """The record of *target*, a new one when there was none."""
        if target not in self.records:
            self.records[target] = Record(results=deque(maxlen=self.max_results))
        return self.records[target]

    def watch_only(self, targets: Iterable[str], now: datetime) -> None:
        """Forget where all other targets stand; drop what was not watched for a week."""
        for target in set(self.records).difference(targets):
            record = self.records[target]
            record.standing, record.since = Standing(), None
            if not record.results or now - record.results[-1].at > KEEP_UNWATCHED:
                del self.records[target]

    def limit(self, max_results: int) -> None:
        """Keep so many results of each target from now on."""
        self.max_results = max_results
        for record in self.records.values():
            record.results = deque(record.results, max_results)


def well_formed(text: str) -> str:
    """*text* as fits into UTF-8, whatever a program or a server has said."""
    return text.encode(errors="replace").decode()
