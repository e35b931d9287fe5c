"""What goes wrong, when and for how long, from a seed: the same seed, the same plan.

What the plan meets is not the same twice: who holds the lock then is up to the run.
"""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["Fault", "schedule"]

AT_HOLDER = 0.6
"""Share of the workers' faults that go to whoever holds then."""
RATE = 1.3
"""Faults a second."""

_LENGTHS = (0.3, 1.0, 2.0)
"""In session timeouts: noticed by nobody, at the edge, and well over it."""
_OPERATIONS = (
    "connect",
    "create",
    "create",
    "delete",
    "exists",
    "get",
    "get_children",
    "multi",
    "multi",
    "multi",
    "multi",
    "ping",
    "set",
    "sync",
)


class Fault(NamedTuple):
    at: float
    """Seconds from the start."""
    kind: str
    detail: str = ""
    seconds: float = 0.0
    server: bool = False
    target: int = 0
    """A server, or the worker to hit when no holder is wanted or known."""
    holder_of: int | None = None
    """Index of the recipe whose holder is to be hit."""


# Kind, weight, and whether it lasts.
_AT_WORKERS = (
    ("kill", 10, False),  # -9, and a new process in its place
    ("pause", 18, True),  # SIGSTOP, SIGCONT
    ("cut", 12, False),  # the connection is closed
    ("silence", 12, True),  # nothing passes, nothing is closed
    ("mute", 6, True),  # requests pass, answers do not
    ("refuse", 12, True),  # closed, and no new one
    ("lose", 16, False),  # one answer of some operation is lost, with the connection
    ("expire", 8, False),  # the server ends the session
)
_AT_SERVERS = (("pause", 4, True), ("kill", 3, False))
_ALL = [(*fault, False) for fault in _AT_WORKERS] + [(*fault, True) for fault in _AT_SERVERS]


def schedule(
    seed: int,
    seconds: float,
    *,
    timeout: float,
    workers: int,
    servers: int,
    recipes: int = 1,
    rate: float = RATE,
) -> list[Fault]:
    """Faults within *seconds*; *timeout* is the session's, which their lengths are made of."""
    rng = random.Random(f"schedule {seed}")
    faults = []
    at = rng.expovariate(rate)
    while at < seconds:
        faults.append(_fault(rng, at, timeout, workers, servers, recipes))
        at += rng.expovariate(rate)
    return faults


def _fault(
    rng: random.Random, at: float, timeout: float, workers: int, servers: int, recipes: int
) -> Fault:
    [(kind, _, lasts, server)] = rng.choices(_ALL, [weight for _, weight, _, _ in _ALL])
    if server:
        # No longer than 3 s: leaders and sessions should change, not the service go away.
        length = rng.uniform(0.2, 3.0) if lasts else 0.0
        return Fault(at, kind, seconds=length, server=True, target=rng.randrange(servers))
    return Fault(
        at,
        kind,
        detail=rng.choice(_OPERATIONS) if kind == "lose" else "",
        seconds=timeout * rng.choice(_LENGTHS) if lasts else 0.0,
        target=rng.randrange(workers),
        holder_of=rng.randrange(recipes) if rng.random() < AT_HOLDER else None,
    )
