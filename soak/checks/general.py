"""What concerns no recipe, or all alike: life, rest, errors, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from soak.checks.case import Case, Violation
from soak.history import HARNESS, Event
from soak.recipes import RECIPES

__all__ = ["general", "kept", "liveness"]

# What a call's line is followed by, in the end.
_ENDS: Mapping[str, frozenset[str]] = {
    "acquire": frozenset(("granted", "missed", "struck", "raised")),
    "resize": frozenset(("resized", "unsure", "raised")),
    "put": frozenset(("stored", "unsure", "struck", "raised")),
    "add": frozenset(("added", "unsure", "struck", "raised")),
    "wait": frozenset(("woken", "struck", "raised")),
    "notify": frozenset(("notified", "unsure", "raised")),
    "join": frozenset(("joined", "unsure", "raised")),
}


def general(case: Case) -> Iterator[Violation]:
    for e in case.by_kind["raised"]:
        yield Violation("raised", e.t, e.worker, f"{e.recipe}: {e.where}: {e.error}", e.recipe)
    for e in case.by_kind["died"]:
        yield Violation("died", e.t, e.hit, f"ended with status {e.status}: {e.log}")
    for e in case.by_kind["left"]:
        if names := _orphans(case, e):
            text = f"{e.recipe}: {len(names)} left when all was quiet: {', '.join(names)}"
            yield Violation("orphan", e.t, HARNESS, text, e.recipe)
    for worker in case.workers:
        yield from _away(case, worker)
    yield from _rest(case)


def _orphans(case: Case, left: Event) -> list[str]:
    litter = RECIPES[left.recipe].litter
    swept = [name for name in left.names if litter and litter in name]
    if swept and len(swept) <= _cut_off(case, left.recipe):
        return [name for name in left.names if name not in swept]
    return list(left.names)


def _cut_off(case: Case, recipe: str) -> int:
    """How many calls were in hand when their process was killed."""
    ends = frozenset[str]().union(*_ENDS.values())
    over = {(e.worker, e.n) for e in case.of(recipe, *ends)}
    calls = case.of(recipe, *_ENDS)
    return sum((e.worker, e.n) not in over for e in calls if case.cut_off(e.worker, e.t))


def _away(case: Case, worker: int) -> Iterator[Violation]:
    limit = case.limits.timeout + case.limits.grace
    for since, until in _absences(case, worker):
        # The longest part of it without a fault, which is long enough to come back.
        calm = since
        for fault in case.by_kind["fault"]:
            if "server" in fault.fields or fault.hit == worker:
                end = fault.t + fault.lasted
                if fault.t > until:
                    break
                if fault.t - calm > limit + case.stalled(calm, fault.t):
                    yield _absent(worker, calm, fault.t)
                calm = max(calm, end)
        if until - calm > limit + case.stalled(calm, until):
            yield _absent(worker, calm, until)


def _absences(case: Case, worker: int) -> Iterator[tuple[float, float]]:
    since = None
    for e in case.events:
        if e.worker == worker and e.kind in ("start", "session"):
            if e.kind == "session" and e.state == "CONNECTED":
                if since is not None:
                    yield since, e.t
                since = None
            elif since is None or e.kind == "start":
                since = e.t
    if since is not None:
        yield since, case.ended


def _absent(worker: int, since: float, until: float) -> Violation:
    text = f"not connected for {until - since:.1f} s that had no fault"
    return Violation("away", until, worker, text)


def _rest(case: Case) -> Iterator[Violation]:
    for stopped in case.by_kind["stopped"]:
        for worker in case.workers:
            idle = [e for e in case.by_kind["idle"] if e.worker == worker and e.t > stopped.t]
            if not idle:
                yield Violation("hung", stopped.t, worker, "never came to rest")
            elif idle[-1].pending:
                text = f"{idle[-1].pending} deletes outstanding when all was quiet"
                yield Violation("janitor", idle[-1].t, worker, text)


def kept(case: Case, recipe: str) -> Iterator[Violation]:
    for e in case.of(recipe, "struck"):
        if e.fields.get("held"):
            yield Violation("kept", e.t, e.worker, f"{recipe}: held after {e.how} in acquire()")


def liveness(case: Case, recipe: str) -> tuple[list[Violation], Mapping[str, float]]:
    """Calls that are late, times without the recipe's first sign of life, workers without any."""
    found = [*_late(case, recipe)]
    if not case.by_kind["healed"]:
        return found, {}
    signs = RECIPES[recipe].signs
    gap, limit, gaps = _gap(case, recipe, case.of(recipe, signs[0]))
    revived, dead = _revived(case, recipe, signs)
    return [*found, *gaps, *dead], {"gap": gap, "gap limit": limit, "all alive": revived}


def _late(case: Case, recipe: str) -> Iterator[Violation]:
    events = case.by_recipe[recipe]
    ends: dict[tuple[int, str, str], float] = {}
    for e in reversed(events):
        for call, kinds in _ENDS.items():
            if e.kind in kinds:
                ends[e.worker, e.n, call] = e.t
    for e in events:
        if e.kind in _ENDS:
            end = ends.get((e.worker, e.n, e.kind))
            if end is None:
                cut = case.cut_off(e.worker, e.t)
                end = case.ended if cut is None else cut
            given = e.fields.get("timeout", case.limits.acquire)
            limit = given + case.limits.grace + case.paused(e.worker, e.t, end)
            if e.kind == "wait":
                # It has to get its lock back.
                limit += case.longest_gap(e.t, end, RECIPES[recipe].holders)
            if end - e.t > limit:
                text = f"{recipe}: {e.kind}() of attempt {e.n} took {end - e.t:.1f} s"
                yield Violation("late", end, e.worker, text)
        elif e.kind in ("release", "struck"):
            # A release is timed from its own beginning, a struck call from the blow.
            begin = e.t if e.kind == "release" else e.t - e.took
            if e.took > case.limits.grace + case.paused(e.worker, begin, begin + e.took):
                what = "release()" if e.kind == "release" else f"the call after a {e.how}"
                text = f"{recipe}: {what} of attempt {e.n} took {e.took:.1f} s"
                yield Violation("late", begin + e.took, e.worker, text)


def _gap(case: Case, recipe: str, signs: Sequence[Event]) -> tuple[float, float, list[Violation]]:
    """The longest gap, what it might have been, and the gaps that were too long."""
    holders = RECIPES[recipe].holders
    times = [g.t for g in signs if g.t < case.healed] or [case.began]
    gaps = list(pairwise([*times, case.healed]))
    found = []
    for since, until in gaps:
        if until - since > case.longest_gap(since, until, holders):
            text = f"{recipe}: {RECIPES[recipe].signs[0]} to nobody for {until - since:.1f} s"
            found.append(Violation("gap", until, HARNESS, text))
    since, until = max(gaps, key=lambda gap: gap[1] - gap[0])
    return until - since, case.longest_gap(since, until, holders), found


def _revived(case: Case, recipe: str, signs: Sequence[str]) -> tuple[float, list[Violation]]:
    """When the last worker had shown the last sign of life; -1: not all have."""
    limit = case.limits.revive + case.stalled(case.healed, case.ended)
    latest, dead = 0.0, []
    for kind in signs:
        first: dict[int, float] = {}
        for e in case.of(recipe, kind):
            if e.t >= case.healed:
                first.setdefault(e.worker, e.t - case.healed)
        for worker in case.workers:
            if first.get(worker, limit + 1) > limit:
                text = f"{recipe}: nothing {kind} {limit:.0f} s after"
                dead.append(Violation("not alive", case.ended, worker, text))
        missing = len(first) < len(case.workers)
        latest = -1.0 if missing or latest < 0 else max([latest, *first.values()])
    return latest, dead
