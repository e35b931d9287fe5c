"""The judge: a history in, figures and violations out. Pure, and the same for every library.

Safety, exact whatever the machine does, since a claim's time is taken before it is asked whether
the lock is held, and a grant's after it was given. One thing is excused: a session that the server
ended by itself, for which no lease can be prepared. Until its owner is told, or its lease is over,
only the token protects; how late it was is a figure.

    stale      a claim with an older token after a newer one was granted to another worker
    order      a first claim whose token is not above those of all first claims before it
    reused     one token granted twice
    no token   granted without a node that could be found
    overlap    a singleton's target ran on while a newer one ran elsewhere
    refused    a claim that a store which remembers the highest token would have refused
    fence      a fenced transaction that went through after one with a newer token
    kept       held after the acquire had been struck

Liveness, with `Limits`:

    gap        nobody was granted it for too long
    not alive  a worker was not granted it in time after the last fault
    away       not connected for too long although nothing was wrong with it or a server
    late       acquire(timeout=...) or release() took longer than it may
    hung       a worker did not come to rest
    orphan     nodes left although nobody wants anything
    janitor    deletes outstanding although nothing is wrong any more
    raised     an error that nobody provided for
    died       a worker's process ended by itself
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from soak.history import HARNESS, Event

__all__ = ["Figures", "Limits", "Report", "Violation", "check"]

_STALL = 0.1  # seconds between two samples of a target, which it takes each 10 ms

_ENDS = ("granted", "missed", "struck", "raised")


class Limits(NamedTuple):
    """Seconds. What the machine itself was late by (`stalled`) is added to each of them."""

    timeout: float = 2.0
    """The session's."""
    acquire: float = 5.0
    """What acquire(timeout=...) was given."""
    revive: float = 30.0
    """From the last fault's end to the last worker's first grant."""
    grace: float = 4.0
    """For what the workers and servers do on a shared machine, scheduling included."""


class Violation(NamedTuple):
    kind: str
    t: float
    worker: int
    text: str
    recipe: str = ""


class Figures(NamedTuple):
    """Of one recipe."""

    granted: int
    claims: int
    lost: int
    """Losses that the holder noticed by itself."""
    groundless: int
    """... with no fault near it in the three session timeouts before."""
    stale: int
    lateness: float
    """Of the latest stale claim, in seconds after the newer grant."""
    untold: int
    """Claims that would be stale but for a session that the server ended by itself."""
    untold_for: float
    """... of the latest of them."""
    gap: float
    """The longest without a grant, while faults went on."""
    gap_limit: float
    """What that one might have been, with the faults of its time."""
    revived: float
    """From the end of the last fault until each worker had been granted it; -1: not all."""


class Report(NamedTuple):
    faults: Mapping[str, int]
    seconds: float
    figures: Mapping[str, Figures]
    violations: Sequence[Violation]

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many violations of each kind."""
        return Counter(violation.kind for violation in self.violations)


def check(history: Iterable[Event], limits: Limits | None = None) -> Report:
    """Judge *history*, in any order."""
    case = _Case(history, limits or Limits())
    violations = [*case.general()]
    figures = {}
    for recipe in case.recipes:
        found, figures[recipe] = _judge(case, recipe)
        violations += found
    violations.sort(key=lambda violation: violation.t)
    return Report(case.count_faults(), case.healed - case.began, figures, violations)


class _Case:
    """A history in the order of time, and what several checks ask of it."""

    def __init__(self, history: Iterable[Event], limits: Limits) -> None:
        # At one instant claims come before grants: what cannot be told apart is no proof.
        self.events = sorted(history, key=lambda e: (e.t, e.kind == "granted"))
        self.limits = limits
        self.by_kind: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            self.by_kind[event.kind].append(event)
        self.workers = sorted({e.worker for e in self.events if e.worker != HARNESS})
        self.recipes = sorted({e.recipe for e in self.events if "recipe" in e.fields})
        self.began = self.events[0].t if self.events else 0.0
        self.ended = self.events[-1].t if self.events else 0.0
        self.healed = next((e.t for e in self.by_kind["healed"]), self.ended)

    def count_faults(self) -> Mapping[str, int]:
        return Counter(
            f"server {e.name}" if "server" in e.fields else str(e.name)
            for e in self.by_kind["fault"]
        )

    def longest_gap(self, since: float, until: float) -> float:
        """How long nobody may be granted a lock in that time.

        The holder's session has to end, and the next in the queue may be in a fault. A server that
        stops or stands still may take the quorum along, and a new leader renews all sessions.
        """
        faults = self.by_kind["fault"]
        longest = max((e.lasted for e in faults if "hit" in e.fields), default=0.0)
        servers = sum(
            e.lasted + self.limits.timeout
            for e in faults
            if "server" in e.fields and e.t <= until and e.t + e.lasted >= since
        )
        own = self.limits.timeout + longest + self.limits.grace
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

    def untold(self, sample: Event, granted: Mapping[tuple[int, str], float]) -> bool:
        """Whether the server had ended the session it was granted in, of which it may not know."""
        return any(
            granted.get((sample.worker, sample.n), sample.t) <= e.t + e.lasted
            and e.t <= sample.t <= e.t + e.lasted + self.limits.timeout
            for e in self.by_kind["fault"]
            if e.name == "expire" and e.hit == sample.worker
        )

    def disturbed(self, worker: int, begin: float, end: float) -> bool:
        """Whether any fault touched that worker or a server in that time."""
        return any(
            e.t <= end and e.t + e.lasted >= begin
            for e in self.by_kind["fault"]
            if "server" in e.fields or e.fields.get("hit") == worker
        )

    def general(self) -> Iterator[Violation]:
        """What concerns no recipe, or all."""
        for e in self.by_kind["raised"]:
            yield Violation("raised", e.t, e.worker, f"{e.recipe}: {e.where}: {e.error}")
        for e in self.by_kind["died"]:
            yield Violation("died", e.t, e.hit, f"ended with status {e.status}: {e.log}")
        for e in self.by_kind["left"]:
            if e.names:
                text = f"{e.recipe}: {len(e.names)} left when all was quiet: {', '.join(e.names)}"
                yield Violation("orphan", e.t, HARNESS, text)
        for worker in self.workers:
            yield from self._away(worker)
        yield from self._rest()

    def _away(self, worker: int) -> Iterator[Violation]:
        limit = self.limits.timeout + self.limits.grace
        for since, until in self._absences(worker):
            # The longest part of it without a fault, which is long enough to come back.
            calm = since
            for fault in self.by_kind["fault"]:
                if "server" in fault.fields or fault.hit == worker:
                    end = fault.t + fault.lasted
                    if fault.t > until:
                        break
                    if fault.t - calm > limit + self.stalled(calm, fault.t):
                        yield self._absent(worker, calm, fault.t)
                    calm = max(calm, end)
            if until - calm > limit + self.stalled(calm, until):
                yield self._absent(worker, calm, until)

    def _absences(self, worker: int) -> Iterator[tuple[float, float]]:
        since = None
        for e in self.events:
            if e.worker == worker and e.kind in ("start", "session"):
                if e.kind == "session" and e.state == "CONNECTED":
                    if since is not None:
                        yield since, e.t
                    since = None
                elif since is None or e.kind == "start":
                    since = e.t
        if since is not None:
            yield since, self.ended

    def _absent(self, worker: int, since: float, until: float) -> Violation:
        text = f"not connected for {until - since:.1f} s that had no fault"
        return Violation("away", until, worker, text)

    def _rest(self) -> Iterator[Violation]:
        for stopped in self.by_kind["stopped"]:
            for worker in self.workers:
                idle = [e for e in self.by_kind["idle"] if e.worker == worker and e.t > stopped.t]
                if not idle:
                    yield Violation("hung", stopped.t, worker, "never came to rest")
                elif idle[-1].pending:
                    text = f"{idle[-1].pending} deletes outstanding when all was quiet"
                    yield Violation("janitor", idle[-1].t, worker, text)


def _judge(case: _Case, recipe: str) -> tuple[list[Violation], Figures]:
    mine = [e for e in case.events if e.fields.get("recipe") == recipe]
    grants = [e for e in mine if e.kind == "granted"]
    claims = [e for e in mine if e.kind == "claim"]
    since = {(e.worker, e.n): e.t for e in grants}
    untold = {id(e) for e in mine if e.kind in ("claim", "release") and case.untold(e, since)}
    told = [e for e in claims if id(e) not in untold]
    stale = list(_superseded(mine, "stale", [e for e in told if e.held]))
    forgiven = list(_superseded(mine, "", [e for e in claims if e.held and id(e) in untold]))
    gap, gap_limit, gap_found = _gap(case, recipe, grants)
    revived, dead = _revived(case, recipe, grants)
    losses = _losses(claims)
    span = 3 * case.limits.timeout
    figures = Figures(
        granted=len(grants),
        claims=len(claims),
        lost=len(losses),
        groundless=sum(not case.disturbed(e.worker, e.t - span, e.t) for e in losses),
        stale=len(stale),
        lateness=max((late for _, late in stale), default=0.0),
        untold=len(forgiven),
        untold_for=max((late for _, late in forgiven), default=0.0),
        gap=gap,
        gap_limit=gap_limit,
        revived=revived,
    )
    violations = [violation for violation, _ in stale]
    if recipe == "singleton":
        samples = _unstalled(mine, case.limits.timeout / 5)
        samples = [e for e in samples if id(e) not in untold]
        violations += [violation for violation, _ in _superseded(mine, "overlap", samples)]
    violations += [*_tokens(recipe, grants), *_order(recipe, told), *_refused(recipe, told)]
    violations += [*_fenced(recipe, mine), *_kept(recipe, mine), *_late(case, recipe, mine)]
    violations += gap_found + dead
    return [violation._replace(recipe=recipe) for violation in violations], figures


def _superseded(
    events: Sequence[Event], kind: str, samples: Sequence[Event]
) -> Iterator[tuple[Violation, float]]:
    """Samples taken after a newer token was granted to another worker, and how long after."""
    wanted = {id(sample) for sample in samples}
    grants: list[Event] = []
    highest: dict[int, int] = {}  # by worker
    for event in events:
        if event.kind == "granted":
            grants.append(event)
            highest[event.worker] = max(highest.get(event.worker, 0), event.token)
        elif id(event) in wanted and any(
            token > event.token for worker, token in highest.items() if worker != event.worker
        ):
            first = next(g for g in grants if g.token > event.token and g.worker != event.worker)
            late = event.t - first.t
            text = (
                f"{event.recipe}: token {event.token} {late:.3f} s after"
                f" {first.token} was granted to worker {first.worker}"
            )
            yield Violation(kind, event.t, event.worker, text), late


def _unstalled(events: Sequence[Event], excuse: float) -> list[Event]:
    """A target's samples, but for those of the first *excuse* seconds after a stall.

    Who stands still cannot be stopped in that time, and one that clings to life is given a moment
    to clean up. Against what it does then stand its own check and the fence.
    """
    kept = []
    last: dict[tuple[int, str], float] = {}
    excused: dict[tuple[int, str], float] = {}
    for event in events:
        if event.kind not in ("granted", "claim", "release"):
            continue
        run = event.worker, event.n
        if event.t - last.get(run, event.t) > _STALL:
            excused[run] = event.t + excuse
        last[run] = event.t
        if event.kind != "granted" and event.t > excused.get(run, 0.0):
            kept.append(event)
    return kept


def _losses(claims: Sequence[Event]) -> list[Event]:
    """The first claim of each hold that says it is over."""
    first: dict[tuple[int, str], Event] = {}
    for claim in claims:
        if not claim.held:
            first.setdefault((claim.worker, claim.n), claim)
    return list(first.values())


def _tokens(recipe: str, grants: Sequence[Event]) -> Iterator[Violation]:
    seen: dict[int, Event] = {}
    for grant in grants:
        if not grant.token:
            yield Violation("no token", grant.t, grant.worker, f"{recipe}: granted without a node")
        elif (other := seen.setdefault(grant.token, grant)) is not grant:
            text = f"{recipe}: token {grant.token} was granted to worker {other.worker} before"
            yield Violation("reused", grant.t, grant.worker, text)


def _order(recipe: str, claims: Sequence[Event]) -> Iterator[Violation]:
    highest, begun = 0, set()
    for claim in claims:
        if claim.held and (hold := (claim.worker, claim.n)) not in begun:
            begun.add(hold)
            if claim.token <= highest:
                text = f"{recipe}: token {claim.token} begins after {highest}"
                yield Violation("order", claim.t, claim.worker, text)
            highest = max(highest, claim.token)


def _refused(recipe: str, claims: Sequence[Event]) -> Iterator[Violation]:
    highest = 0
    for claim in claims:
        if claim.held:
            if claim.token < highest:
                text = f"{recipe}: a store that has seen {highest} refuses {claim.token}"
                yield Violation("refused", claim.t, claim.worker, text)
            highest = max(highest, claim.token)


def _fenced(recipe: str, events: Sequence[Event]) -> Iterator[Violation]:
    writes = sorted((e for e in events if e.kind == "wrote"), key=lambda e: e.version)
    for before, after in pairwise(writes):
        if after.token < before.token or after.version == before.version:
            text = (
                f"{recipe}: version {after.version} by token {after.token} follows"
                f" version {before.version} by {before.token}"
            )
            yield Violation("fence", after.t, after.worker, text)


def _kept(recipe: str, events: Sequence[Event]) -> Iterator[Violation]:
    for e in events:
        if e.kind == "struck" and e.held:
            yield Violation("kept", e.t, e.worker, f"{recipe}: held after {e.how} in acquire()")


def _late(case: _Case, recipe: str, events: Sequence[Event]) -> Iterator[Violation]:
    kills = [e for e in case.by_kind["fault"] if e.name == "kill" and "hit" in e.fields]
    ends = {(e.worker, e.n): e.t for e in reversed(events) if e.kind in _ENDS}
    for e in events:
        if e.kind == "acquire":
            cut = min((k.t for k in kills if k.hit == e.worker and k.t >= e.t), default=0.0)
            end = ends.get((e.worker, e.n), cut or case.ended)
            limit = case.limits.acquire + case.limits.grace + case.paused(e.worker, e.t, end)
            if end - e.t > limit:
                text = f"{recipe}: acquire() of attempt {e.n} took {end - e.t:.1f} s"
                yield Violation("late", end, e.worker, text)
        elif e.kind in ("release", "struck"):
            # A release is timed from its own beginning, a struck acquire from the blow.
            begin = e.t if e.kind == "release" else e.t - e.took
            if e.took > case.limits.grace + case.paused(e.worker, begin, begin + e.took):
                what = "release()" if e.kind == "release" else f"acquire() after a {e.how}"
                text = f"{recipe}: {what} of attempt {e.n} took {e.took:.1f} s"
                yield Violation("late", begin + e.took, e.worker, text)


def _gap(case: _Case, recipe: str, grants: Sequence[Event]) -> tuple[float, float, list[Violation]]:
    """The longest gap, what it might have been, and the gaps that were too long."""
    if not case.by_kind["healed"]:
        return 0.0, 0.0, []
    times = [g.t for g in grants if g.t < case.healed] or [case.began]
    gaps = list(pairwise([*times, case.healed]))
    found = []
    for since, until in gaps:
        if until - since > case.longest_gap(since, until):
            text = f"{recipe}: granted to nobody for {until - since:.1f} s"
            found.append(Violation("gap", until, HARNESS, text))
    since, until = max(gaps, key=lambda gap: gap[1] - gap[0])
    return until - since, case.longest_gap(since, until), found


def _revived(case: _Case, recipe: str, grants: Sequence[Event]) -> tuple[float, list[Violation]]:
    if not case.by_kind["healed"]:
        return 0.0, []
    first: dict[int, float] = {}
    for grant in grants:
        if grant.t >= case.healed:
            first.setdefault(grant.worker, grant.t - case.healed)
    limit = case.limits.revive + case.stalled(case.healed, case.ended)
    dead = [
        Violation("not alive", case.ended, w, f"{recipe}: nothing granted {limit:.0f} s after")
        for w in case.workers
        if first.get(w, limit + 1) > limit
    ]
    all_alive = len(first) == len(case.workers)
    return (max(first.values(), default=0.0) if all_alive else -1.0), dead
