"""Queues: each item processed at least once and done once, none lost, and held by one at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from soak.checks.case import Case, Verdict, Violation
from soak.checks.general import kept
from soak.history import HARNESS, Event

__all__ = ["judge"]


class _Hold(NamedTuple):
    worker: int
    item: str
    node: str
    asked: float
    begin: float
    believed: float
    """The last time it was certainly held, as its worker believed."""
    acked: float | None
    """When the answer was there that it is done."""
    unsure: bool
    """Whether it may have been done without an answer."""


def judge(case: Case, recipe: str) -> Verdict:
    puts = {e.n: e for e in case.of(recipe, "put")}
    stored = {e.n: e for e in case.of(recipe, "stored")}
    holds: dict[str, list[_Hold]] = defaultdict(list)
    for hold in _holds(case, recipe):
        holds[hold.item].append(hold)
    violations = [*kept(case, recipe)]
    for item, own in holds.items():
        if item not in puts:
            text = f"queue: {item!r} was put by nobody"
            violations.append(Violation("invented", own[0].begin, own[0].worker, text))
        violations += [*_at_once(own), *_done(own)]
        if len(nodes := {hold.node for hold in own}) > 1:
            text = f"queue: {item} is there as {', '.join(sorted(nodes))}"
            violations.append(Violation("doubled", own[-1].begin, own[-1].worker, text))
    violations += _lost(case, recipe, stored, holds)
    flat = [hold for own in holds.values() for hold in own]
    return violations, {
        "put": len(stored),
        "unsure": len(puts) - len(stored),
        "granted": len(flat),
        "done": sum(hold.acked is not None for hold in flat),
        "unsure whether done": sum(hold.unsure for hold in flat),
        "redelivered": len(flat) - len(holds),
        "claims": len(case.of(recipe, "claim")),
    }


def _holds(case: Case, recipe: str) -> Iterator[_Hold]:
    asked = {(e.worker, e.n): e.t for e in case.of(recipe, "acquire")}
    grants = {(e.worker, e.n): e for e in case.of(recipe, "granted")}
    since = {key: e.t for key, e in grants.items()}
    believed = dict(since)
    for claim in case.of(recipe, "claim"):
        if claim.held and not case.untold(claim, since):
            believed[claim.worker, claim.n] = claim.t
    ends = {(e.worker, e.n): e for e in case.of(recipe, "release")}
    asking = {(e.worker, e.n) for e in case.of(recipe, "ack")}
    for key, e in grants.items():
        end = ends.get(key)
        acked = end.t + end.took if end is not None and end.how == "acked" else None
        unsure = key in asking if end is None else end.how == "unsure"
        node = str(e.node)
        yield _Hold(e.worker, e.item, node, asked.get(key, e.t), e.t, believed[key], acked, unsure)


def _at_once(holds: Sequence[_Hold]) -> Iterator[Violation]:
    for first, second in pairwise(holds):
        if second.begin < first.believed:
            text = (
                f"queue: {first.item} was held by worker {first.worker} for"
                f" {first.believed - second.begin:.3f} s after worker {second.worker} had got it"
            )
            yield Violation("shared", first.believed, first.worker, text)


def _done(holds: Sequence[_Hold]) -> Iterator[Violation]:
    done = [hold for hold in holds if hold.acked is not None]
    for hold in done[1:]:
        text = f"queue: {hold.item} was done twice, before by worker {done[0].worker}"
        yield Violation("done twice", hold.acked or 0.0, hold.worker, text)
    for hold in holds:
        if done and hold not in done and hold.asked > (done[0].acked or 0.0):
            text = f"queue: {hold.item} was got again, done before by worker {done[0].worker}"
            yield Violation("again", hold.begin, hold.worker, text)


def _lost(
    case: Case, recipe: str, stored: dict[str, Event], holds: dict[str, list[_Hold]]
) -> Iterator[Violation]:
    if not any(e.recipe == recipe for e in case.by_kind["left"]):
        return  # it did not come to the end, where the queue is empty
    for item, e in stored.items():
        own = holds.get(item, [])
        if not own:
            text = f"queue: {item} was put and got by nobody"
            yield Violation("lost", e.t, e.worker, text)
        elif not any(hold.acked is not None or hold.unsure for hold in own):
            text = f"queue: {item} was got {len(own)} times and never done"
            yield Violation("lost", own[-1].begin, HARNESS, text)
