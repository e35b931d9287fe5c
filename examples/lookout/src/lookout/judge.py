"""Decide from good and bad probes whether a target is up; no clock, no socket.

    UNKNOWN ──good──► UP ──bad──► SUSPECT ──bad, `confirm` in a row──► DOWN
                      ▲ ▲            │                                 ▲  │
                      │ └────good────┘                              bad│  │good
                      │                                                │  ▼
                      └────────────good, `recover` in a row──────── RECOVERING

That is what one replica finds; what all who probe a target find together:

* it is down when most of them stand at DOWN;
* if half do, when one of these has had twice `confirm` failures in a row: an outage that is seen on
  one side only comes later, and is never hidden;
* it is well again when most of them have had `recover` good probes in a row; not half.

So between the two there is a gap in which nothing opens nor closes, whatever the other half says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Rules", "Standing", "State", "are_failing", "are_well", "is_well", "together"]


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


def is_well(standing: Standing, rules: Rules) -> bool:
    """Whether it has had enough good probes to end an outage, which may be others'."""
    return standing.state is State.UP and standing.streak >= rules.recover


def are_failing(standings: Sequence[Standing], rules: Rules) -> bool:
    """Whether these find together that the target is down."""
    streaks = [each.streak for each in standings if each.state is State.DOWN]
    if streaks and 2 * len(streaks) == len(standings):
        return max(streaks) >= 2 * rules.confirm
    return 2 * len(streaks) > len(standings)


def are_well(standings: Sequence[Standing], rules: Rules) -> bool:
    """Whether these find together that an outage is over."""
    return 2 * sum(is_well(each, rules) for each in standings) > len(standings)


# The worst comes first.
_SHOWN = [State.RECOVERING, State.SUSPECT, State.UP]


def together(standings: Sequence[Standing], rules: Rules) -> State:
    """What to show for all of them: DOWN only if that is what they find together."""
    if are_failing(standings, rules):
        return State.DOWN
    states = {State.SUSPECT if each.state is State.DOWN else each.state for each in standings}
    return next((state for state in _SHOWN if state in states), State.UNKNOWN)
