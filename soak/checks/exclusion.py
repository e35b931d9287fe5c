"""Locks and singletons: one at a time, in the order of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from soak.checks.case import Case, Verdict, Violation
from soak.checks.general import kept
from soak.history import Event

__all__ = ["judge", "losses", "tokens"]

_STALL = 0.1  # seconds between two samples of a target, which it takes each 10 ms


def judge(case: Case, recipe: str) -> Verdict:
    mine = case.by_recipe[recipe]
    grants = case.of(recipe, "granted")
    claims = case.of(recipe, "claim")
    since = {(e.worker, e.n): e.t for e in grants}
    untold = {id(e) for e in case.of(recipe, "claim", "release") if case.untold(e, since)}
    told = [e for e in claims if id(e) not in untold]
    stale = list(_superseded(mine, "stale", [e for e in told if e.held]))
    forgiven = list(_superseded(mine, "", [e for e in claims if e.held and id(e) in untold]))
    lost = losses(claims)
    span = 3 * case.limits.timeout
    figures = {
        "granted": len(grants),
        "claims": len(claims),
        "stale": len(stale),
        "latest": max((late for _, late in stale), default=0.0),
        "untold of an expiry": len(forgiven),
        "untold for": max((late for _, late in forgiven), default=0.0),
        "losses noticed": len(lost),
        "without a fault": sum(not case.disturbed(e.worker, e.t - span, e.t) for e in lost),
    }
    violations = [violation for violation, _ in stale]
    if recipe == "singleton":
        samples = _unstalled(mine, case.limits.timeout / 5)
        samples = [e for e in samples if id(e) not in untold]
        violations += [violation for violation, _ in _superseded(mine, "overlap", samples)]
    violations += [*tokens(recipe, grants), *_order(recipe, told), *_refused(recipe, told)]
    violations += [*_fenced(recipe, mine), *kept(case, recipe)]
    return violations, figures


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
    samples = []
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
            samples.append(event)
    return samples


def losses(claims: Sequence[Event]) -> list[Event]:
    """The first claim of each hold that says it is over."""
    first: dict[tuple[int, str], Event] = {}
    for claim in claims:
        if not claim.held:
            first.setdefault((claim.worker, claim.n), claim)
    return list(first.values())


def tokens(recipe: str, grants: Sequence[Event]) -> Iterator[Violation]:
    seen: dict[int, Event] = {}
    for grant in grants:
        for token in grant.fields.get("tokens", [grant.token]):
            if not token:
                text = f"{recipe}: granted without a node"
                yield Violation("no token", grant.t, grant.worker, text)
            elif token in seen:
                other = seen[token].worker
                text = f"{recipe}: token {token} was granted to worker {other} before"
                yield Violation("reused", grant.t, grant.worker, text)
            seen.setdefault(token, grant)


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
