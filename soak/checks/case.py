"""A history in the order of time, and what several checks ask of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from soak.history import HARNESS, Event

__all__ = ["Case", "Limits", "Verdict", "Violation"]


class Limits(NamedTuple):
    """Seconds. What the machine itself was late by (`stalled`) is added to each of them."""

    timeout: float = 2.0
    """The session's."""
    acquire: float = 5.0
    """What a call with a timeout was given, unless its line says otherwise."""
    revive: float = 30.0
    """From the last fault's end to the last worker's first sign of life."""
    grace: float = 4.0
    """For what the workers and servers do on a shared machine, scheduling included."""

    @property
    def aftermath(self) -> float:
        """How long after its sender has given it up a request may still be carried out.

        The longest fault may hold it back, two session timeouts.
        """
        return 3 * self.timeout + self.grace


class Violation(NamedTuple):
    kind: str
    t: float
    worker: int
    text: str
    recipe: str = ""


Verdict = tuple[Sequence[Violation], Mapping[str, float]]
"""What was violated, and figures by name."""


class Case:
    """A history in the order of time, and what several checks ask of it."""

    def __init__(self, history: Iterable[Event], limits: Limits) -> None:
        # At one instant claims come before grants: what cannot be told apart is no proof.
        self.events = sorted(history, key=lambda e: (e.t, e.kind == "granted"))
        self.limits = limits
        self.by_kind: dict[str, list[Event]] = defaultdict(list)
        self.by_recipe: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            self.by_kind[event.kind].append(event)
            if "recipe" in event.fields:
                self.by_recipe[event.recipe].append(event)
        self.workers = sorted({e.worker for e in self.events if e.worker != HARNESS})
        self.began = self.events[0].t if self.events else 0.0
        self.ended = self.events[-1].t if self.events else 0.0
        self.healed = next((e.t for e in self.by_kind["healed"]), self.ended)

    def of(self, recipe: str, *kinds: str) -> list[Event]:
        """Its lines of these *kinds*."""
        return [e for e in self.by_recipe[recipe] if e.kind in kinds]

    def count_faults(self) -> Mapping[str, int]:
        return Counter(
            f"server {e.name}" if "server" in e.fields else str(e.name)
            for e in self.by_kind["fault"]
        )

    def longest_gap(self, since: float, until: float, holders: int = 1) -> float:
        """How long nobody may be granted a lock in that time.

        The session of its holder has to end, of as many one after the other as *holders*, and the
        next in the queue may be in a fault. A server that stops or stands still may take the quorum
        along, and a new leader renews all sessions.
        """
        faults = self.by_kind["fault"]
        longest = max((e.lasted for e in faults if "hit" in e.fields), default=0.0)
        servers = sum(
            e.lasted + self.limits.timeout
            for e in faults
            if "server" in e.fields and e.t <= until and e.t + e.lasted >= since
        )
        own = holders * (self.limits.timeout + longest) + self.limits.grace
        return float(own + servers + self.stalled(since, until))

    def stalled(self, begin: float, end: float) -> float:
        """How late the machine itself was in that time."""
        stalls = self.by_kind["stalled"]
        return sum(float(e.seconds) for e in stalls if begin <= e.t <= end + e.seconds)

    def paused(self, worker: int, begin: float, end: float) -> float:
        """How long that worker stood still in that time, or the machine."""
        faults = [e for e in self.by_kind["fault"] if e.fields.get("hit") == worker]
        spans = [(e.t, e.t + e.lasted) for e in faults if e.name == "pause"]
        own = sum((max(0.0, min(end, b) - max(begin, a)) for a, b in spans), 0.0)
        return own + self.stalled(begin, end)

    def cut_off(self, worker: int, since: float) -> float | None:
        """When that worker's process next ended, by a kill or by itself, if it did.

        Its last lines may be a little younger than the kill, whose time is taken before it.
        """
        ends = [
            e.t
            for kind in ("fault", "died")
            for e in self.by_kind[kind]
            if e.fields.get("hit") == worker and e.fields.get("name", "kill") == "kill"
        ]
        next_life = [e.t for e in self.by_kind["start"] if e.worker == worker and e.t > since]
        if next_life:
            return max(since, max((t for t in ends if t < next_life[0]), default=next_life[0]))
        return min((t for t in ends if t >= since), default=None)

    def untold_spans(self, worker: int, since: float) -> Iterator[tuple[float, float]]:
        """When that worker may not have known that the server had ended the session it was granted
        something in at *since*: until it is told, or its lease is over."""
        for e in self.by_kind["fault"]:
            if e.name == "expire" and e.fields.get("hit") == worker and since <= e.t + e.lasted:
                yield e.t, e.t + e.lasted + self.limits.timeout

    def untold(self, sample: Event, granted: Mapping[tuple[int, str], float]) -> bool:
        """Whether the server had ended the session it was granted in, of which it may not know."""
        since = granted.get((sample.worker, sample.n), sample.t)
        return any(a <= sample.t <= b for a, b in self.untold_spans(sample.worker, since))

    def disturbed(self, worker: int, begin: float, end: float) -> bool:
        """Whether any fault touched that worker or a server in that time."""
        return any(
            e.t <= end and e.t + e.lasted >= begin
            for e in self.by_kind["fault"]
            if "server" in e.fields or e.fields.get("hit") == worker
        )
