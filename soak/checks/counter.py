"""Counters: the value is the sum of what was acknowledged and of some of what was not answered.

Each add is of its own size and says which value it found and which it left. So the acknowledged
ones lie side by side on the line of values, and what is between them must be unanswered ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from soak.checks.case import Case, Verdict, Violation
from soak.history import HARNESS

__all__ = ["judge"]


class _Add(NamedTuple):
    pre: int
    post: int
    value: int
    worker: int
    begin: float
    end: float


class _Unanswered(NamedTuple):
    begin: float
    value: int


def judge(case: Case, recipe: str) -> Verdict:
    ends = {(e.worker, e.n): e for e in case.of(recipe, "added")}
    adds, unanswered = [], []
    for e in case.of(recipe, "add"):
        end = ends.get((e.worker, e.n))
        if end is None:
            unanswered.append(_Unanswered(e.t, e.value))
        else:
            adds.append(_Add(end.pre, end.post, e.value, e.worker, e.t, end.t))
    adds.sort()
    unknown = len(unanswered)
    violations = [*_wrong(adds), *_order(adds), *_chain(case, recipe, adds, unanswered)]
    return violations, {
        "added": len(adds),
        "unanswered": unknown,
        "of these done": unknown - len(unanswered),
        "value": max((e.value for e in case.of(recipe, "value")), default=0),
    }


def _wrong(adds: Sequence[_Add]) -> Iterator[Violation]:
    for add in adds:
        if add.post - add.pre != add.value:
            text = f"counter: {add.value} added to {add.pre} made {add.post}"
            yield Violation("sum", add.end, add.worker, text)


def _order(adds: Sequence[_Add]) -> Iterator[Violation]:
    """In the order of values no add may come after one that began when it had ended."""
    earliest = float("inf")
    for add in reversed(adds):
        if add.begin > earliest:
            text = f"counter: {add.pre} was found after a higher value had been told"
            yield Violation("order", add.end, add.worker, text)
        earliest = min(earliest, add.end)


def _chain(
    case: Case, recipe: str, adds: Sequence[_Add], unanswered: list[_Unanswered]
) -> Iterator[Violation]:
    """Takes those of *unanswered* away that were done."""
    at, before = 0, case.began
    values = {add.value for add in adds}
    for add in adds:
        if add.pre < at:
            text = f"counter: {add.value} was added to {add.pre} when the value was {at} already"
            yield Violation("lost", add.end, add.worker, text)
        elif add.pre > at and not _made_of(add.pre - at, before, add.end, unanswered, case):
            yield _unexplained(add.pre - at, values, add.end, add.worker)
        if add.post >= at:
            at, before = add.post, add.begin
    last = max((add.end for add in adds), default=case.began)
    for e in case.of(recipe, "value"):
        told = max((add.post for add in adds if add.end < e.asked), default=0)
        if e.value < told:
            text = f"counter: {e.value} was read when {told} had been told"
            yield Violation("lost", e.t, e.worker, text)
        # The first one read when all was told may be explained by what was not answered.
        elif e.asked >= last and e.value > at:
            if not _made_of(e.value - at, before, e.t, unanswered, case):
                yield _unexplained(e.value - at, values, e.t, HARNESS)
            at = e.value


def _made_of(
    gap: int, since: float, until: float, unanswered: list[_Unanswered], case: Case
) -> bool:
    """Whether some of *unanswered* that may have been done then make up *gap*: they are taken."""
    earliest = since - case.limits.acquire - case.limits.aftermath
    sums: dict[int, tuple[_Unanswered, ...]] = {0: ()}
    for one in unanswered:
        if earliest <= one.begin <= until:
            for total, parts in list(sums.items()):
                if total + one.value <= gap:
                    sums.setdefault(total + one.value, (*parts, one))
            if gap in sums:
                for part in sums[gap]:
                    unanswered.remove(part)
                return True
    return False


def _unexplained(gap: int, values: set[int], t: float, worker: int) -> Violation:
    again = ", the size of an acknowledged one" if gap in values else ""
    text = f"counter: it grew by {gap}, of which no unanswered add knows{again}"
    return Violation("sum", t, worker, text)
