"""Conditions: each notify that was acknowledged wakes a waiter, and nobody sleeps for ever.

Who waits is registered before it gives the lock back, and who notifies holds that lock: a waiter
whose lock was asked for and granted before the notifier's was there. It was certainly there up to
its timeout when that is how it ended, since then it has deleted its own node. So a notify which
left such a witness asleep must have woken others, or found the nodes of others that had died.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from soak.checks.case import Case, Verdict, Violation
from soak.history import Event

__all__ = ["judge"]

_FOREVER = float("inf")


class _Wait(NamedTuple):
    worker: int
    n: str
    begin: float
    token: int
    ended: float
    """When it was over at the latest, for a notify that found its node."""
    until: float
    """Up to when it was certainly there and not notified: -inf when nothing is certain."""
    notified: bool
    asleep: bool


class _Notify(NamedTuple):
    worker: int
    locked: float
    token: int
    begin: float
    end: float
    wanted: int
    """0: all."""
    woken: int
    """As it said."""


def judge(case: Case, recipe: str) -> Verdict:
    waits = list(_waits(case, recipe))
    notifies = list(_notifies(case, recipe))
    unheard = list(_unheard(waits, notifies))
    behind, latest = _behind(case, recipe)
    violations = [*unheard, *_asleep(case, waits), *behind]
    return violations, {
        "waits": len(waits),
        "woken": sum(wait.notified for wait in waits),
        "timed out": sum(e.kind == "woken" and not e.notified for e in case.by_recipe[recipe]),
        "notifies": len(notifies),
        "unheard": len(unheard),
        "heard": len(case.of(recipe, "heard")),
        "last change heard after": latest,
    }


def _waits(case: Case, recipe: str) -> Iterator[_Wait]:
    ends = {(e.worker, e.n): e for e in case.of(recipe, "woken", "struck", "raised")}
    lost: dict[int, list[float]] = {}
    for e in case.by_kind["session"]:
        if e.state == "LOST":
            lost.setdefault(e.worker, []).append(e.t)
    for e in case.of(recipe, "wait"):
        end = ends.get((e.worker, e.n))
        cut = case.cut_off(e.worker, e.t) if end is None else None
        over = case.ended if end is None and cut is None else end.t if end is not None else cut
        assert over is not None
        broken = any(e.t <= t <= over for t in lost.get(e.worker, ()))
        notified = end is not None and end.kind == "woken" and end.notified
        until = -_FOREVER
        if end is not None and end.kind == "woken" and not end.notified and not broken:
            until = e.t + e.timeout
        # A node that was not deleted by a notify or its owner stays until the session's end.
        clean = end is not None and end.kind == "woken" and not broken
        ended = over if clean else over + case.limits.aftermath
        asleep = end is None and cut is None
        yield _Wait(e.worker, e.n, e.t, e.token, ended, until, notified, asleep)


def _notifies(case: Case, recipe: str) -> Iterator[_Notify]:
    ends = {(e.worker, e.n): e for e in case.of(recipe, "notified")}
    for e in case.of(recipe, "notify"):
        end = ends.get((e.worker, e.n))
        if end is not None:
            yield _Notify(e.worker, e.locked, e.token, e.t, end.t, e.wanted, end.woken)


def _unheard(waits: Sequence[_Wait], notifies: Sequence[_Notify]) -> Iterator[Violation]:
    """Notifies that left a witness asleep without enough others to have been theirs.

    In the order of time each takes the waiters that end first: no other share-out explains more.
    """
    free = sorted((w for w in waits if w.until == -_FOREVER), key=lambda wait: wait.ended)
    for notify in sorted(notifies, key=lambda notify: notify.begin):
        witness = _witness(waits, notify)
        if witness is None:
            continue
        if notify.wanted == 0:
            text = f"condition: notify_all() did not wake worker {witness.worker}, {witness.n}"
            yield Violation("unheard", notify.end, notify.worker, text)
            continue
        fit = [w for w in free if w.begin < notify.end and w.ended >= notify.begin]
        if (woken := min(len(fit), notify.woken)) < notify.wanted:
            text = (
                f"condition: notify({notify.wanted}) woke {woken}, and worker {witness.worker}"
                f" waited on in {witness.n}"
            )
            yield Violation("unheard", notify.end, notify.worker, text)
        for wait in fit[: notify.wanted]:
            free.remove(wait)


def _witness(waits: Sequence[_Wait], notify: _Notify) -> _Wait | None:
    return next(
        (
            wait
            for wait in waits
            if wait.begin < notify.locked and wait.token < notify.token and notify.end < wait.until
        ),
        None,
    )


def _asleep(case: Case, waits: Sequence[_Wait]) -> Iterator[Violation]:
    """Who still waits at the end, although each worker has notified all when it was stopped."""
    if case.by_kind["stopped"]:
        for wait in waits:
            if wait.asleep:
                text = f"condition: {wait.n} still waits at the end"
                yield Violation("asleep", case.ended, wait.worker, text)


def _behind(case: Case, recipe: str) -> tuple[list[Violation], float]:
    """Listeners by which the last change was not seen; and how long after it the last one had."""
    truths = case.of(recipe, "version")
    if not truths:
        return [], 0.0
    version = truths[-1].version
    last: Mapping[int, Event] = {e.worker: e for e in case.of(recipe, "heard")}
    changed = max((e.t for e in case.of(recipe, "notified")), default=case.healed)
    limit = case.limits.timeout + case.limits.grace + case.stalled(changed, case.ended)
    found, latest = [], 0.0
    for worker in case.workers:
        e = last.get(worker)
        if e is None or e.version != version:
            seen = "nothing" if e is None else f"version {e.version}"
            text = f"condition: the listener has seen {seen}, the last is version {version}"
            found.append(Violation("behind", case.ended, worker, text))
        else:
            latest = max(latest, e.t - changed)
            if e.t - changed > limit:
                text = f"condition: the last change was seen {e.t - changed:.1f} s after"
                found.append(Violation("behind", e.t, worker, text))
    return found, latest
