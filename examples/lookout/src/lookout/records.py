"""What lookout remembers: results of probes, incidents, and the standing of each target."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from lookout.judge import Rules, Standing

__all__ = ["History", "Incident", "Mail", "Record", "Result"]

KEEP_UNWATCHED = timedelta(days=7)
MAX_OUTBOX = 1000  # mails that wait: some days of a mail server that is away


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


@dataclass(frozen=True, slots=True)
class Mail:
    """What is to be told of an incident, as it was when it opened or when it closed.

    to: those who have not got it while others have; empty: all who get mails.
    """

    incident: Incident
    to: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "opened" if self.incident.is_open else "closed"

    @property
    def message_id(self) -> str:
        """The same whenever it is sent, so that a mail client shows a repeated mail once.

        With the moment in it: after the loss of a history there is another INC-1.
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
    """All records, incidents and unsent mails, bounded. `lookout.store` keeps it on disk.

    mailing: whether an incident that opens or closes puts a mail into the `outbox`. It does so
    in one step with the incident: no save has the one without the other.

    Belongs to one hub: no method yields, so greenlets never see it half changed.
    """

    def __init__(
        self, *, max_results: int = 300, max_incidents: int = 200, next_number: int = 1
    ) -> None:
        self.records: dict[str, Record] = {}
        self.incidents: list[Incident] = []  # oldest first
        self.outbox: list[Mail] = []  # oldest first
        self.mailing = False
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

        To be called once the targets are known, and when they change. Gives what it closed.
        """
        others = set(self.records).difference(targets)
        closed = [self._close(t, now, "no longer watched") for t in sorted(others)]
        for target in others:
            record = self.records[target]
            record.standing, record.since = Standing(), None
            if not record.results or now - record.results[-1].at > KEEP_UNWATCHED:
                del self.records[target]
        return [incident for incident in closed if incident]

    def limit(self, *, max_results: int, max_incidents: int) -> None:
        """Other bounds from now on."""
        self.max_results, self.max_incidents = max_results, max_incidents
        for record in self.records.values():
            record.results = deque(record.results, max_results)
        self._trim()

    def _open(self, target: str, result: Result) -> Incident:
        incident = Incident(self.next_number, target, result.at, result.error or "")
        self.next_number += 1
        self.incidents.append(incident)
        self._trim()
        self._post(incident)
        return incident

    def _trim(self) -> None:
        while len(self.incidents) > self.max_incidents:
            # Open ones stay whatever their age: somebody waits for them to end.
            oldest = next((i for i in self.incidents if not i.is_open), None)
            if oldest is None:
                break
            self.incidents.remove(oldest)

    def _post(self, incident: Incident) -> None:
        if self.mailing:
            self.outbox.append(Mail(incident))
            del self.outbox[:-MAX_OUTBOX]

    def _close(self, target: str, at: datetime, because: str) -> Incident | None:
        incident = self.open_incident(target)
        if incident is None:
            return None
        closed = replace(incident, closed_at=at, closed_because=because)
        self.incidents[self.incidents.index(incident)] = closed
        self._post(closed)
        return closed
