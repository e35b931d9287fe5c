"""The order of contenders below a lock's path, as kazoo writes and reads it.

A contender is a child `<prefix><marker><sequence>`; the sequence is the server's signed 32-bit
counter, which wraps. So places are ordered by signed distance, never as strings: right as long as
the youngest and the oldest contender are less than 2**31 creations apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

__all__ = ["LOCK", "READ", "Blocker", "Place", "Queue", "nearest"]

LOCK = "__lock__"
READ = "__rlock__"


class Place(NamedTuple):
    """One contender's place in the queue."""

    name: str
    """The child, without its directory."""
    marker: str
    """What stands before the sequence: `__lock__`, or what an extra pattern has matched."""
    sequence: int


Blocker = Callable[[Sequence[Place]], Place | None]
"""Of the places ahead of the own one, in order: the one to wait for. None grants."""


def nearest(ignore: Container[str] = ()) -> Blocker:
    """Wait for the nearest place ahead whose marker is not in *ignore*."""

    def blocker(ahead: Sequence[Place]) -> Place | None:
        return next((place for place in reversed(ahead) if place.marker not in ignore), None)

    return blocker


class Queue:
    """Reads places out of listings. *patterns*: the contenders' markers, regular expressions."""

    def __init__(self, patterns: Iterable[str]) -> None:
        # Java writes the sequence as %010d: a negative one has nine or ten digits after its sign.
        markers = "|".join(dict.fromkeys(patterns))
        self._place = re.compile(rf"({markers})([0-9]{{10}}|-[0-9]{{9,10}})$")
        self._sequence = self._place.groups  # the last group: a pattern may have some of its own

    def order(self, children: Iterable[str]) -> list[Place]:
        """The contenders among *children*, the one that came first at the head."""
        places = []
        for child in children:
            match = self._place.search(child)
            if match is not None:
                places.append(Place(child, match.group(1), int(match.group(self._sequence))))
        if places:
            origin = places[0].sequence
            places.sort(key=lambda place: (_distance(place.sequence, origin), place.name))
        return places


def _distance(sequence: int, origin: int) -> int:
    return (sequence - origin + 2**31) % 2**32 - 2**31
