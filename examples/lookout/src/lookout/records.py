"""What lookout remembers: results of probes, incidents, and the standing of each target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from lookout.judge import Rules, Standing

__all__ = ["History", "Incident", "Record", "Result"]

KEEP_UNWATCHED = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Result:
    """One probe. *error* is a sentence for a person, None when the target is fine.

    latency: seconds of the last try, until the end of the answer or the failure.
    status: of the HTTP answer, None when there was none.
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
    """One outage of one target, open until *closed_at* is set."""

    number: int
    target: str
    opened_at: datetime
    cause: str
    closed_at: datetime | None = None
    closed_because: str | None = None

    @property
    def id(self) -> str:
        return f"INC-{self.number}"

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    def duration(self, now: datetime) -> float:
        """Seconds, never negative: the wall clock may have been set back meanwhile."""
        return max(0.0, ((self.closed_at or now) - self.opened_at).total_seconds())


@dataclass(slots=True)
class Record:
    """One target: its standing, since when, and its last results, oldest first."""

    standing: Standing = field(default_factory=Standing)
    since: datetime | None = None
    results: deque[Result] = field(default_factory=deque)


class History:
    """All records and incidents, bounded. In memory; `lookout.store` keeps it on disk.

    Belongs to one hub: no method yields, so greenlets never see it half changed.
    """

    def __init__(
        self, *, max_results: int = 300, max_incidents: int = 200, next_number: int = 1
    ) -> None:
        self.records: dict[str, Record] = {}
        self.incidents: list[Incident] = []  # oldest first
        self.next_number = next_number
        self.max_results = max_results
        self.max_incidents = max_incidents

    def add(self, target: str, result: Result, rules: Rules) -> Incident | None:
        """Take down a result and judge it; give the incident that it has just opened or closed."""
        record = self.record(target)
        record.results.append(result)
        before, after = record.standing.state, record.standing.after(result.ok, rules)
        record.standing = after
        if before is not after.state:
            record.since = result.at
        if after.state.is_outage and not before.is_outage:
            return self._open(target, result)
        if before.is_outage and not after.state.is_outage:
            return self._close(target, result.at, "recovered")
        return None

    def record(self, target: str) -> Record:
        """The record of *target*, a new one when there was none."""
        if target not in self.records:
            self.records[target] = Record(results=deque(maxlen=self.max_results))
        return self.records[target]

    def open_incident(self, target: str) -> Incident | None:
        return next((i for i in self.incidents if i.is_open and i.target == target), None)

    def watch_only(self, targets: Iterable[str], now: datetime) -> list[Incident]:
        """Close the incidents of all other targets; drop what was not watched for a week.

        To be called at the start, once the targets are known. Gives the incidents it closed.
        """
        others = set(self.records).difference(targets)
        closed = [self._close(t, now, "no longer watched") for t in sorted(others)]
        for target in others:
            record = self.records[target]
            record.standing, record.since = Standing(), None
            if not record.results or now - record.results[-1].at > KEEP_UNWATCHED:
                del self.records[target]
        return [incident for incident in closed if incident]

    def _open(self, target: str, result: Result) -> Incident:
        incident = Incident(self.next_number, target, result.at, result.error or "")
        self.next_number += 1
        self.incidents.append(incident)
        while len(self.incidents) > self.max_incidents:
            # Open ones stay whatever their age: somebody waits for them to end.
            oldest = next((i for i in self.incidents if not i.is_open), None)
            if oldest is None:
                break
            self.incidents.remove(oldest)
        return incident

    def _close(self, target: str, at: datetime, because: str) -> Incident | None:
        incident = self.open_incident(target)
        if incident is None:
            return None
        closed = replace(incident, closed_at=at, closed_because=because)
        self.incidents[self.incidents.index(incident)] = closed
        return closed
