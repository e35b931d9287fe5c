"""Buckets whose width is a fixed share of their values, and what can be told from their counts.

The upper half of a 32-bit float is its sign, its exponent and 7 bits of its mantissa: a number that
names one of 128 buckets between a power of two and the next, found with no arithmetic at all, and
for many values at once. That is the *key* of a value; a bucket is 1/128 wide, relative to its
values. Values beyond a 32-bit float are told apart by a 64-bit one likewise, down to 1e-307 and up
to the largest; their keys have the bit `_WIDE` on top. A scale can be coarser: its keys are the
same without the lowest bits.

Idea: DDSketch (Masson, Rim, Lee, VLDB 2019), with this cheaper mapping.
"""

from __future__ import annotations

import math
import struct
import sys
from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise

from sepelib.metrics._moments import NOTHING, finite, moments_of

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from sepelib.metrics._moments import Moments
else:
    Any = object

__all__ = [
    "FULL",
    "SCALES",
    "Packed",
    "Scale",
    "Split",
    "add",
    "digest",
    "pack",
    "pairs",
    "scale_for",
]

_WIDE = 1 << 19
EXACT_ABOVE, EXACT_BELOW = 2.0**-126, 2.0**127  # what keys_of() takes

FULL = 256  # values turned to keys at once: what is faster with more is lost in memory
_pack_floats = struct.Struct(f"<{FULL}f").pack
_unpack_upper_halves = struct.Struct("<" + "2xH" * FULL).unpack

Packed = tuple[bytes, bytes]
"""Keys and counts of many buckets, at an eighth of the memory of a dict."""


def keys_of(values: Sequence[float]) -> Sequence[int]:
    """The finest keys of floats whose sizes are from EXACT_ABOVE to EXACT_BELOW."""
    if len(values) == FULL:
        return _unpack_upper_halves(_pack_floats(*values))
    number = len(values)
    return struct.unpack("<" + "2xH" * number, struct.pack(f"<{number}f", *values))


def digest(values: list[float]) -> tuple[Moments, Sequence[int], int]:
    """What is to be known of floats: their moments, their finest keys, and how many of them are NaN
    or infinite and left out."""
    total, low, high = sum(values), min(values), max(values)
    # The sum tells of any NaN or infinity; the least and the greatest are not to be relied on then.
    if total - total == 0.0 and low >= EXACT_ABOVE and high <= EXACT_BELOW:
        return moments_of(values, total, low, high), keys_of(values), 0
    return _digest_any(values)


def _digest_any(values: list[float]) -> tuple[Moments, Sequence[int], int]:
    found = sorted([value for value in values if math.isfinite(value)])
    refused = len(values) - len(found)
    if not found:
        return NOTHING, (), refused
    ends = (
        0,
        bisect_left(found, -EXACT_BELOW),
        bisect_right(found, -EXACT_ABOVE),
        bisect_left(found, EXACT_ABOVE),
        bisect_right(found, EXACT_BELOW),
        len(found),
    )
    huge_negative, negative, near_zero, positive, huge = (
        found[start:end] for start, end in pairwise(ends)
    )
    keys = [key_of(value) for value in huge_negative + near_zero + huge]
    keys += keys_of(negative + positive)
    return moments_of(found, finite(sum(found)), found[0], found[-1]), keys, refused


def key_of(value: float) -> int:
    """The finest key of any finite value."""
    if value == 0:
        return 0
    if EXACT_ABOVE <= abs(value) <= EXACT_BELOW:
        return int(struct.unpack("<I", struct.pack("<f", value))[0] >> 16)
    return _WIDE | int(struct.unpack("<Q", struct.pack("<d", value))[0] >> 45)


class _Memo(dict[int, Any]):
    """What *make* says of keys, worked out once each."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __missing__(self, key: int) -> Any:
        value = self[key] = self._make(key)
        return value


class Scale:
    """All buckets of one width."""

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.lower: Callable[[int], float] = _Memo(lambda key: self.bounds(key)[0]).__getitem__

    def key(self, value: float) -> int:
        return key_of(value) >> self.shift

    def bounds(self, key: int) -> tuple[float, float]:
        """The least and the greatest value of a bucket, of which it has the one nearer to 0."""
        first = key << self.shift
        if first == 0:
            return 0.0, 0.0
        following = first + (1 << self.shift)
        if first & _WIDE:
            form, places, mask = "<Qd", 45, _WIDE - 1
        else:
            form, places, mask = "<If", 16, (1 << 16) - 1
        ends = [
            struct.unpack(f"<{form[2]}", struct.pack(f"<{form[1]}", (k & mask) << places))[0]
            for k in (first, following)
        ]
        # The bucket with the largest double ends where the next, at infinity, would begin.
        low, high = sorted(max(-sys.float_info.max, min(end, sys.float_info.max)) for end in ends)
        return low, high

    def ordered(self, keys: Iterable[int]) -> list[int]:
        """By their values. Keys of positive values are in that order as they are."""
        found = sorted(keys)
        if found and found[-1] << self.shift >= 1 << 15:
            found.sort(key=self.lower)
        return found

    def quantiles(
        self, counts: Mapping[int, int], wanted: Iterable[float], low: float, high: float
    ) -> dict[float, float]:
        """The values of rank ceil(q * n), off by half a bucket at most; *low* and *high*: the
        least and the greatest of all values, which are known better than by their buckets."""
        keys = self.ordered(counts)
        ends = list(accumulate([counts[key] for key in keys]))
        found = {}
        for q in wanted:
            rank = max(1, math.ceil(round(q * ends[-1], 6)))  # 0.07 * 100 is 7.000000000000001
            if rank == 1 or rank == ends[-1]:
                found[q] = low if rank == 1 and ends[-1] > 1 else high
                continue
            below, above = self.bounds(keys[bisect_left(ends, rank)])
            found[q] = min(max(below + (above - below) / 2, low), high)
        return found


class Split:
    """Counts by the parts between edges; part 0 is below the first edge.

    closed: the side on which an edge belongs to the part that it bounds. A bucket is not divided:
    the one with an edge in it goes to the part that this edge itself belongs to, so an edge is off
    by the width of a bucket at most, and not at all for values that equal it.
    """

    def __init__(self, scale: Scale, edges: Sequence[float], *, closed: str) -> None:
        lowers = [scale.lower(scale.key(edge)) for edge in edges]
        find = bisect_left if closed == "right" else bisect_right
        self._part: Callable[[int], int] = _Memo(lambda k: find(lowers, scale.lower(k))).__getitem__
        self._parts = len(edges) + 1

    def counts(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        found = [0] * self._parts
        part = self._part
        for key, count in pairs:
            found[part(key)] += count
        return found


SCALES = [Scale(shift) for shift in range(7)]


def scale_for(error: float) -> Scale:
    """The coarsest whose buckets are no wider than *error*, relative to their values."""
    for scale in reversed(SCALES):
        if (1 << scale.shift) / 128 <= error < 1:
            return scale
    raise ValueError(f"an error is from 1/128 up to 1, not {error!r}")


def add(counts: dict[int, int], pairs: Iterable[tuple[int, int]], shift: int = 0) -> None:
    get = counts.get
    for key, count in pairs:
        key >>= shift
        counts[key] = get(key, 0) + count


def pack(counts: Mapping[int, int]) -> Packed:
    number = len(counts)
    return struct.pack(f"{number}I", *counts), struct.pack(f"{number}Q", *counts.values())


def pairs(packed: Packed) -> Iterable[tuple[int, int]]:
    keys, counts = packed
    return zip(memoryview(keys).cast("I"), memoryview(counts).cast("Q"), strict=True)
