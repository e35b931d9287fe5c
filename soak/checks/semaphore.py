"""Semaphores: never more at once than the limit that may have been in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from soak.checks.case import Case, Verdict, Violation
from soak.checks.exclusion import losses, tokens
from soak.checks.general import kept
from soak.history import Event

__all__ = ["LIMIT", "judge"]

LIMIT = 3
"""In force until the first change of it."""

_FOREVER = float("inf")


def judge(case: Case, recipe: str) -> Verdict:
    grants = case.of(recipe, "granted")
    claims = case.of(recipe, "claim")
    over, most = _over(_holds(case, recipe), _changes(case, recipe))
    found = [violation for violation, _ in over]
    violations = [*found, *tokens(recipe, grants), *kept(case, recipe)]
    return violations, {
        "granted": len(grants),
        "claims": len(claims),
        "limits set": len(case.of(recipe, "resized")),
        "most at once": most,
        "over the limit": len(over),
        "longest": max((lasted for _, lasted in over), default=0.0),
        "losses noticed": len(losses(claims)),
    }


class _Hold(NamedTuple):
    asked: float
    """When it was asked for: it was decided then or later."""
    worker: int
    spans: Sequence[tuple[float, float, int]]
    """From, until and how many leases it certainly held in that time, as it believed itself."""


def _holds(case: Case, recipe: str) -> list[_Hold]:
    """What was held without any doubt.

    A claim's time is taken before it is asked whether the leases are held, and a lease that is
    gone does not come back: they were held from the sample before up to it.
    """
    asked = {(e.worker, e.n): e.t for e in case.of(recipe, "acquire")}
    samples: dict[tuple[int, str], list[Event]] = {}
    for e in case.of(recipe, "granted", "claim"):
        samples.setdefault((e.worker, e.n), []).append(e)
    holds = []
    for (worker, n), own in samples.items():
        if own[0].kind != "granted":
            continue
        excused = list(case.untold_spans(worker, own[0].t))
        spans: list[tuple[float, float, int]] = []
        last = own[0].t
        for claim in own[1:]:
            over = max((b for a, b in excused if a <= claim.t <= b), default=None)
            if over is not None:
                last = over  # what it believes until then is no proof
                continue
            if claim.held and spans and spans[-1][1:] == (last, claim.held):
                spans[-1] = (spans[-1][0], claim.t, claim.held)
            elif claim.held:
                spans.append((last, claim.t, claim.held))
            last = claim.t
        if spans:
            holds.append(_Hold(asked.get((worker, n), own[0].t), worker, spans))
    return holds


class _Change(NamedTuple):
    """A limit that came into force within this time, if ever."""

    begin: float
    end: float
    limit: int
    sure: bool


def _changes(case: Case, recipe: str) -> list[_Change]:
    done = {(e.worker, e.n): e for e in reversed(case.of(recipe, "resized", "unsure", "raised"))}
    changes = [_Change(-_FOREVER, -_FOREVER, LIMIT, True)]
    for e in case.of(recipe, "resize"):
        end = done.get((e.worker, e.n))
        if end is not None and end.kind == "resized":
            changes.append(_Change(e.t, end.t, e.limit, True))
        else:
            given_up = end.t if end is not None else case.cut_off(e.worker, e.t) or case.ended
            changes.append(_Change(e.t, given_up + case.limits.aftermath, e.limit, False))
    return changes


def _highest(changes: Sequence[_Change], begin: float, end: float) -> int:
    """The highest limit that may have been in force at some instant of that time."""
    settled = max(c.begin for c in changes if c.sure and c.end <= begin)
    return max(c.limit for c in changes if c.begin <= end and c.end >= settled)


def _over(
    holds: Sequence[_Hold], changes: Sequence[_Change]
) -> tuple[list[tuple[Violation, float]], int]:
    """Each grant by which there were too many at once, how long they were; and the most at once.

    The newest of them was decided after all of them were asked for and before its own call
    returned: the highest limit of that time counts. A limit that sinks takes nothing away.
    """
    found, most = [], 0
    active: list[tuple[float, _Hold, int]] = []  # by their ends
    spans = sorted((begin, end, count, hold) for hold in holds for begin, end, count in hold.spans)
    for begin, end, count, hold in spans:
        # What ends when another begins cannot be told apart from it: no overlap.
        active = [other for other in active if other[0] > begin]
        active.append((end, hold, count))
        held = sum(count for _, _, count in active)
        most = max(most, held)
        limit = _highest(changes, max(other.asked for _, other, _ in active), begin)
        if held > limit:
            lasted = min(until for until, _, _ in active) - begin
            workers = ", ".join(str(other.worker) for _, other, _ in active)
            text = f"semaphore: {held} at once by workers {workers}, {limit} at most"
            found.append((Violation("over", begin, hold.worker, text), lasted))
    return found, most
