"""Which replicas probe a target: the highest of hash(target, replica), as many as wanted.

Whoever knows the same names finds the same replicas, without a word between them. One that goes
moves only the targets that it has had, each to the next one in its order; one that comes takes
only what is its own from then on. Source: rendezvous hashing, Thaler and Ravishankar, 1996.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

__all__ = ["sharers"]


def sharers(target: str, replicas: Collection[str], quorum: int) -> tuple[str, ...]:
    """*quorum* of the *replicas*, all where there are no more; the first choice first.

    A name counts once, however often it is there. One of a greater quorum begins with those of a
    smaller.
    """
    ranked = sorted(set(replicas), key=lambda replica: (_rank(target, replica), replica))
    return tuple(ranked[:quorum])


def _rank(target: str, replica: str) -> bytes:
    # Not `hash()`, which is another one in each process. No name has a line feed in it.
    return hashlib.blake2b(f"{target}\n{replica}".encode(), digest_size=8).digest()
