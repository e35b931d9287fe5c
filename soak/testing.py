"""Histories made by hand, for the tests of the judge."""

from __future__ import annotations

from typing import Any, Self

from soak.checker import Limits, Report, check
from soak.history import HARNESS, Event

__all__ = ["LIMITS", "History"]

LIMITS = Limits(timeout=2.0, acquire=5.0, revive=30.0, grace=2.0)


class History:
    """Lines of one recipe: each method adds what a worker or the harness would have written."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.events: list[Event] = []

    def add(self, t: float, worker: int, kind: str, n: str = "1.1", **fields: Any) -> Self:
        return self.note(t, worker, kind, recipe=self.recipe, n=n, **fields)

    def note(self, t: float, worker: int, kind: str, **fields: Any) -> Self:
        """A line that is of no recipe."""
        self.events.append(Event(t, worker, kind, fields))
        return self

    def fault(self, t: float, name: str, lasted: float = 0.0, **target: int) -> Self:
        return self.note(t, HARNESS, "fault", name=name, detail="", lasted=lasted, **target)

    def judged(self) -> Report:
        return check(self.events, LIMITS)

    def kinds(self) -> set[str]:
        return set(self.judged().kinds)

    def texts(self) -> list[str]:
        return [violation.text for violation in self.judged().violations]
