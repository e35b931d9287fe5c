"""What the harness, the judge and the workers have in common about each recipe. Imports nothing.

A module for each of them drives it in a worker: ours and kazoo's in one shape, and what it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

__all__ = ["OVER", "RECIPES", "Recipe"]


class Recipe(NamedTuple):
    paths: Sequence[str]
    """Where nodes of its are, none of which may be left when nobody wants anything."""
    signs: Sequence[str]
    """Kinds of lines, one of each of which every worker has to write after the heal."""
    busy: Set[str]
    """Kinds of lines that make a worker one that faults prefer, until one of `OVER`."""
    kazoo: bool = True
    """Whether kazoo has such a recipe, to be the control."""
    holders: int = 1
    """How many a sign of life may have to wait for, one after the other, that faults have hit."""
    tidy: float = 0.0
    """Seconds for which it may keep nodes for the next call, on purpose."""
    stays: str = ""
    """In the names of nodes that stay on purpose."""
    litter: str = ""
    """In the names of nodes of which a process that is killed in a call leaves one."""


OVER = {"release", "woken", "notified", "added", "departed", "struck", "unsure"}

RECIPES: Mapping[str, Recipe] = {
    "lock": Recipe(["/soak/lock"], ["granted"], {"granted"}),
    "singleton": Recipe(["/soak/singleton"], ["granted"], {"granted"}),
    # Who wants two leases may wait for two holders.
    "semaphore": Recipe(["/soak/semaphore"], ["granted"], {"granted"}, holders=2),
    "condition": Recipe(
        ["/soak/condition", "/soak/condition-lock"],
        ["notified", "woken", "heard"],
        {"wait", "notify"},
        kazoo=False,
        # A notify needs the lock, and so does each waiter that it wakes.
        holders=2,
    ),
    "queue": Recipe(["/soak/queue"], ["granted", "stored"], {"granted"}, tidy=5.0),
    "counter": Recipe(["/soak/counter"], ["added"], {"add"}, stays="/key-", litter="/op-"),
    "party": Recipe(["/soak/party"], ["view"], {"joined"}),
}
