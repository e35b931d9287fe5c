"""The part of a history that shows a violation, for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from soak.checker import Violation
from soak.history import HARNESS, Event

__all__ = ["excerpt"]


def excerpt(
    history: Sequence[Event], violation: Violation, *, before: float = 6.0, after: float = 0.5
) -> list[str]:
    """What happened around it, oldest first; claims that say the same are one line.

    Times are in seconds from the violation. Of the other workers only what can matter to it.
    """
    near = [
        e
        for e in history
        if violation.t - before <= e.t + e.fields.get("lasted", 0.0)
        and e.t <= violation.t + after
        and _concerns(e, violation)
    ]
    near.sort(key=lambda e: e.t)
    lines = []
    for _, same in groupby(near, key=_claim_of):
        first, *rest = same
        times = f"{first.t - violation.t:+8.3f}"
        count = ""
        if rest:
            count = f" ({len(rest) + 1} until {rest[-1].t - violation.t:+.3f})"
        who = "harness " if first.worker == HARNESS else f"worker {first.worker}"
        fields = {k: v for k, v in first.fields.items() if k != "password"}
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        lines.append(f"{times}  {who}  {first.kind:<8} {shown}{count}")
    return lines


def _concerns(event: Event, violation: Violation) -> bool:
    if violation.recipe and event.fields.get("recipe", violation.recipe) != violation.recipe:
        return False
    if event.worker in (violation.worker, HARNESS):
        return "hit" not in event.fields or event.hit == violation.worker or violation.worker < 0
    return event.kind in ("granted", "release", "session", "start") or violation.worker < 0


def _claim_of(event: Event) -> object:
    if event.kind in ("claim", "idle", "view", "truth"):
        told = ((k, str(v)) for k, v in event.fields.items() if k not in ("took", "n"))
        return event.worker, event.kind, *told
    return id(event)
