"""What the histograms of one name share: their options, and how their counts are split."""

from __future__ import annotations

import math
from itertools import pairwise

from sepelib.metrics._buckets import Split, scale_for
from sepelib.metrics._series import Family

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sepelib.metrics._names import Place
    from sepelib.metrics._series import Host, Series

__all__ = ["SLICES", "HistogramFamily"]

SLICES = 6  # of a window

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(float(4**n) for n in range(3, 17))  # 64 to 4 GiB
_OTHER = tuple(10.0**n for n in range(-3, 10))


class HistogramFamily(Family):
    """A family of histograms. buckets: the edges for outputs that want fixed ones, ascending."""

    __slots__ = ("_splits", "buckets", "quantiles", "scale", "slice_seconds", "window")

    def __init__(
        self,
        make: Callable[[Family, tuple[str, ...]], Series],
        kind: str,
        name: str,
        help: str,
        label_names: tuple[str, ...],
        unit: str | None,
        *,
        quantiles: Sequence[float],
        window: float,
        error: float,
        buckets: Sequence[float] | None,
        host: Host,
        place: Place,
        max_series: int,
        ttl: float | None,
        yasm: str | None,
    ) -> None:
        super().__init__(
            make,
            kind,
            name,
            help,
            label_names,
            unit,
            host=host,
            place=place,
            max_series=max_series,
            ttl=ttl,
            yasm=yasm,
        )
        self.quantiles = checked_quantiles(quantiles)
        if not 0 < window < math.inf:
            raise ValueError(f"the window of {name!r} is more than 0 seconds, not {window!r}")
        self.window = float(window)
        self.slice_seconds = window / SLICES
        self.scale = scale_for(error)
        self.buckets = default_buckets(unit) if buckets is None else checked_edges(buckets)
        self._splits: dict[tuple[tuple[float, ...], str], Split] = {}

    def split(self, edges: Sequence[float], closed: str) -> Split:
        key = tuple(edges), closed
        found = self._splits.get(key)
        if found is None:
            found = self._splits[key] = Split(self.scale, checked_edges(edges), closed=closed)
        return found


def default_buckets(unit: str | None) -> tuple[float, ...]:
    """1-2.5-5 from a millisecond to 10 s, then 30 and 60 s; powers of 4 for bytes, else of 10."""
    return {"seconds": _SECONDS, "bytes": _BYTES}.get(unit or "", _OTHER)


def checked_edges(edges: Iterable[float]) -> tuple[float, ...]:
    checked = tuple(float(edge) for edge in edges)
    ascending = all(a < b for a, b in pairwise(checked))
    if not checked or not ascending or not all(map(math.isfinite, checked)):
        raise ValueError(f"buckets are finite numbers in ascending order, not {edges!r}")
    return checked


def checked_quantiles(quantiles: Iterable[float]) -> tuple[float, ...]:
    checked = tuple(float(q) for q in quantiles)
    if not all(0 <= q <= 1 for q in checked):
        raise ValueError(f"quantiles are from 0 to 1, not {quantiles!r}")
    return tuple(sorted(set(checked)))
