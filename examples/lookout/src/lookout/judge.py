"""Decide from good and bad probes whether a target is up; no clock, no socket.

    UNKNOWN ──good──► UP ──bad──► SUSPECT ──bad, `confirm` in a row──► DOWN
                      ▲ ▲            │                                 ▲  │
                      │ └────good────┘                              bad│  │good
                      │                                                │  ▼
                      └────────────good, `recover` in a row──────── RECOVERING

There is an incident in DOWN and RECOVERING, and in no other state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Rules", "Standing", "State"]


class State(StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    RECOVERING = "recovering"

    @property
    def is_outage(self) -> bool:
        """Whether an incident is open."""
        return self in (State.DOWN, State.RECOVERING)

    @property
    def was_good(self) -> bool:
        """Whether the last probe was."""
        return self in (State.UP, State.RECOVERING)


_MOVES = {
    # from             good              good enough  bad            bad enough
    State.UNKNOWN: (State.UP, State.UP, State.SUSPECT, State.DOWN),
    State.UP: (State.UP, State.UP, State.SUSPECT, State.DOWN),
    State.SUSPECT: (State.UP, State.UP, State.SUSPECT, State.DOWN),
    State.DOWN: (State.RECOVERING, State.UP, State.DOWN, State.DOWN),
    State.RECOVERING: (State.RECOVERING, State.UP, State.DOWN, State.DOWN),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How many probes in a row make an outage, and how many end it; both at least 1."""

    confirm: int = 2
    recover: int = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a target stands: its state, and how many of its last probes agreed with each other."""

    state: State = State.UNKNOWN
    streak: int = 0

    def after(self, good: bool, rules: Rules) -> Standing:
        """The standing once one more probe is known."""
        streak = self.streak + 1 if good == self.state.was_good else 1
        enough = streak >= (rules.recover if good else rules.confirm)
        return Standing(_MOVES[self.state][2 * (not good) + enough], streak)
