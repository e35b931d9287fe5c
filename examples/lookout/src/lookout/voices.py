"""What each of the replicas that share a target says of it; only what is fresh is listened to.

Fresh is what has come anew within three intervals, by the clock of who listens: clocks of several
hosts differ. So a replica that is dead, or cannot put its results where others find them, is soon
no longer heard, and those who are decide without it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from lookout.judge import State, together
from lookout.records import History, Record
from lookout.targets import Target

__all__ = ["Voices"]

FRESH = 3  # intervals
ON_THE_WAY = 3.0  # seconds from one replica to another, at most
PUBLISHED = 10  # last results of each target
KEEP_GONE = 600.0  # seconds
KEPT = 60  # of those of other replicas: as many as a page shows


class Voices:
    """The *history* of this *replica*, and what is known of those of others.

    sharers: who is to probe the target of a name.
    Belongs to one hub: no method yields.
    """

    def __init__(
        self,
        history: History,
        replica: str,
        sharers: Callable[[str], Sequence[str]],
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._own = replica
        self._histories = {replica: history}
        self._sharers = sharers
        self._clock = clock
        self._moved: dict[tuple[str, str], float] = {}

    def _now(self) -> float:
        return (self._clock or time.monotonic)()

    def heard(self, target: str) -> None:
        """The own history has a new result of *target*."""
        self._moved[self._own, target] = self._now()

    def own(self, target: str) -> Record:
        """That of the own history."""
        return self._histories[self._own].record(target)

    def take(self, replica: str, published: History) -> set[str]:
        """Take what another one has published; give the targets of which that is news."""
        first = replica not in self._histories  # nobody knows how old that is
        known = self._histories.setdefault(replica, History(max_results=KEPT))
        moved = set()
        for name in set(known.records).difference(published.records):
            del known.records[name]
        for name, record in published.records.items():
            before = known.records.get(name)
            if not record.results or (before and before.results[-1] == record.results[-1]):
                continue
            results = list(record.results)
            if before:
                last = before.results[-1]
                newer = results[results.index(last) + 1 :] if last in results else results
                results = [*before.results, *newer]
            known.records[name] = Record(record.standing, record.since, deque(results, KEPT))
            if not first:
                moved.add(name)
                self._moved[replica, name] = self._now()
        return moved

    def keep(self, replicas: Collection[str], targets: Collection[str]) -> None:
        """Forget those who have gone for long, and when there was news of other targets."""
        heard = {self._own, *replicas}
        for (replica, _), at in self._moved.items():
            # Who is away for a moment only is as fresh as it was.
            if self._now() - at < KEEP_GONE:
                heard.add(replica)
        for replica in set(self._histories).difference(heard):
            del self._histories[replica]
        self._moved = {
            (replica, target): at
            for (replica, target), at in self._moved.items()
            if replica in self._histories and target in targets
        }

    def published(self) -> History:
        """What others are to know of the own history; a copy."""
        own = self._histories[self._own]
        copy = History(max_results=PUBLISHED)
        for replica, name in self._moved:
            record = own.records.get(name)
            if replica == self._own and record and _is_sure(record):
                last = deque(list(record.results)[-PUBLISHED:], PUBLISHED)
                copy.records[name] = Record(record.standing, record.since, last)
        return copy

    def known(self, target: Target) -> dict[str, Record]:
        """What there is of all who share *target*, the first choice first, however old."""
        found = {}
        for replica in self._sharers(target.name):
            history = self._histories.get(replica)
            record = history and history.records.get(target.name)
            if record and _is_sure(record):
                found[replica] = record
        return found

    def fresh(self, target: Target) -> dict[str, Record]:
        """That of `known()` which has a say."""
        limit = FRESH * target.interval + target.timeout + ON_THE_WAY
        never = float("-inf")
        return {
            replica: record
            for replica, record in self.known(target).items()
            if self._now() - self._moved.get((replica, target.name), never) <= limit
        }

    def state(self, target: Target) -> State:
        """Where *target* stands; by old results where there are no others."""
        records = self.fresh(target) or self.known(target)
        return together([record.standing for record in records.values()], target.rules)

    def shown(self, target: Target) -> Record:
        """What to draw: the own results of a target that we share, else those of who does."""
        known = self.known(target)
        return known.get(self._own) or next(iter(known.values()), None) or Record()


def _is_sure(record: Record) -> bool:
    """Not one that was begun anew and has no result since."""
    return bool(record.results) and record.standing.state is not State.UNKNOWN
