"""How values are distributed: quantiles of a sliding window, and totals since the start.

Both come from one store. `observe()` only appends to a buffer; for many values at a time the buffer
is *drained* into buckets (`_buckets`), which cost a fraction of a microsecond each that way. The
window is a ring of slices, of which the newest one is open; when it is closed, its counts go into
those since the start, too.

No lock is taken. Who drains has taken the flag `_draining`; whoever comes meanwhile, from another
thread, a signal handler, a finalizer or a greenlet that a finalizer switched to, leaves its values
in the buffer, or reads what is stored and adds what is in the buffer for itself. The steps marked
"at once" rely on CPython with the GIL, as counters do: it looks for other threads and signals at
backward jumps and after calls, and collects garbage where objects that it tracks are made.
"""

from __future__ import annotations

import _collections  # type: ignore[import-not-found]
import _thread
import math
from itertools import accumulate

from sepelib.metrics._buckets import FULL, add, digest, pack, pairs
from sepelib.metrics._histogram_family import SLICES
from sepelib.metrics._moments import NOTHING, finite, together
from sepelib.metrics._readings import HistogramReading, WindowReading
from sepelib.metrics._series import FREE_THREADED, Series, number
from sepelib.metrics._timing import Timing

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sepelib.metrics._buckets import Packed, Split
    from sepelib.metrics._histogram_family import HistogramFamily
    from sepelib.metrics._moments import Moments
    from sepelib.metrics._series import Family

    _Before = tuple[int, float, Packed]  # count, sum, buckets
    _Slice = tuple[int, Moments, Packed]  # when: a multiple of the slice's length
    _Parts = tuple[list[int], int, float]  # counts between edges, count, sum
    _Counts = dict[int, int]

__all__ = ["Histogram"]

# The clock is read for each value, until a full buffer has come within so many seconds; then for
# each _STRIDE-th only, until those take longer.
_FAST = 0.25
_STRIDE = 32

_EMPTY = pack({})

# Counts one key of each value, in C: the one piece of work per value that is left to a dict.
_count: Callable[[dict[int, int], Iterable[int]], None] = _collections._count_elements


class Histogram(Series):
    """Quantiles, mean, deviation and extremes of a sliding window; count, sum and buckets for ever.

    Errors: quantiles are within half of the family's `error`; the mean, the deviation and the
    extremes are exact. Zero and negative values are values like others. NaN and infinity are left
    out, and counted in `metrics_faults`. The window moves in steps: it holds the values of the last
    5/6 of its length, and none older than all of it. Values are dated when they come; only in a
    stream of over a thousand a second the clock is read for each 32nd of them, so that when it
    falls silent, up to 31 later ones may be taken for a part of it.
    Sharing: any thread, greenlet, signal handler or finalizer.
    """

    __slots__ = (
        "_before",
        "_buffer",
        "_checked",
        "_clock",
        "_closed",
        "_draining",
        "_due",
        "_filling_since",
        "_index",
        "_merged",
        "_moments",
        "_open",
        "_parts",
        "_slice_end",
    )
    _family: HistogramFamily

    def __init__(self, family: Family, label_values: tuple[str, ...]) -> None:
        super().__init__(family, label_values)
        self._clock = self._family.host.clock
        self.reset()

    def reset(self) -> None:
        self._draining = False
        now = self._clock()
        self._buffer: list[float] = []
        self._due = 0  # size of the buffer from which on `observe()` reads the clock
        self._checked = self._filling_since = now  # the clock was read; the buffer was empty
        # The open slice: its number and end, its values by their finest keys.
        self._index = math.floor(now / self._family.slice_seconds)
        self._slice_end = (self._index + 1) * self._family.slice_seconds
        self._open: _Counts = {}
        self._moments: Moments = NOTHING
        self._closed: tuple[_Slice, ...] = ()  # those of the window
        self._before: _Before = (0, 0.0, _EMPTY)  # all that were ever closed
        self._parts: dict[Split, tuple[_Before, list[int], Moments, _Parts]] = {}
        self._merged: tuple[tuple[_Slice, ...], Moments, Packed] = ((), NOTHING, _EMPTY)

    def observe(self, value: float, /) -> None:
        """Add a value. TypeError unless it is a number; NaN and infinity are counted as faults."""
        if type(value) is not float:
            value = _as_float(value)
        buffer = self._buffer
        if len(buffer) >= self._due:
            self._check()
        buffer.append(value)

    def time(self) -> Timing:
        """`with histogram.time():`, or `@histogram.time()`: observe how long it took, in seconds.

        However it ends, by an exception too. As a decorator it refuses generator and coroutine
        functions (TypeError), whose call takes no time. One may serve several blocks, nested ones
        too, but not two greenlets at a time: take a new one there.
        """
        timing = Timing()
        timing.histogram = self
        timing.start = timing.outer = None
        return timing

    def observe_at(self, now: float, value: float) -> None:
        """`observe()` for who has just read the clock and has a float, not NaN or infinity."""
        buffer = self._buffer
        if now >= self._slice_end or len(buffer) >= FULL:
            self._settle(now)
        buffer.append(value)

    def read(self) -> HistogramReading:
        return self._read(None)[0]

    def cumulative(self, edges: Sequence[float]) -> list[int]:
        """How many values since the start were not above each of the ascending *edges*."""
        return self.scrape(edges)[0]

    def scrape(self, edges: Sequence[float]) -> tuple[list[int], int, float]:
        """`cumulative(edges)`, and the count and the sum of the same instant; much cheaper than
        `read()`. An edge is off by the family's `error` at most, and exact for equal values."""
        parts, count, total = self._split(self._family.split(edges, "right"))
        return list(accumulate(parts[:-1])), count, total

    def left_closed(self, edges: Sequence[float]) -> list[int]:
        """How many values since the start lie between each edge, which is included, and the next;
        the last part is open. Values below the first edge are left out."""
        return self._split(self._family.split(edges, "left"))[0][1:]

    def contents(self) -> tuple[HistogramReading, _Counts, _Counts]:
        """`read()`, and the counts by keys since the start and of the window, of one instant."""
        everything: _Counts = {}
        reading, recent = self._read(everything)
        return reading, everything, recent

    def _read(self, everything: _Counts | None) -> tuple[HistogramReading, _Counts]:
        """What there is now, and the counts of the window; those since the start, which are many
        more, go to *everything* if that is wanted."""
        family = self._family
        now = self._clock()
        self._settle(now)
        opened, moments, before, closed, index = self._stored()
        shift = family.scale.shift
        if everything is not None:
            everything.update(pairs(before[2]))
            add(everything, opened.items(), shift)
        count, total = before[0] + moments[0], finite(before[1] + moments[1])

        oldest = math.floor(now / family.slice_seconds) - SLICES + 1
        of_window, packed = self._merge([piece for piece in closed if piece[0] >= oldest])
        recent = dict(pairs(packed))
        if index >= oldest:
            of_window = together(of_window, moments)
            add(recent, opened.items(), shift)
        window = WindowReading.of(of_window, recent, family.scale, family.window, family.quantiles)
        return HistogramReading(count, total, window), recent

    def activity(self) -> object:
        return self._before[0] + self._moments[0] + len(self._buffer)

    def _check(self) -> None:
        """Look at the clock, and drain when the buffer is full or the open slice is over."""
        if self._draining:
            return
        self._draining = True
        try:
            now, size = self._clock(), len(self._buffer)
            if size < FULL and now < self._slice_end:
                if self._due:
                    self._due = size + _STRIDE if now - self._checked < _FAST else 0
            else:
                # A clock that stands still, in a test, says nothing about the rate.
                fast = size >= FULL and 0 < now - self._filling_since < _FAST
                self._drain(now)
                self._due = len(self._buffer) + _STRIDE if fast else 0
            self._checked = now
        finally:
            self._draining = False

    def _settle(self, now: float) -> None:
        """Drain, unless somebody does."""
        if self._draining:
            return
        self._draining = True
        try:
            self._drain(now)
            self._due = min(self._due, _STRIDE)
        finally:
            self._draining = False

    def _drain(self, now: float) -> None:
        self._filling_since = now
        buffer = self._buffer
        values = [*buffer]  # a slice could be cut short by a finalizer that runs while it is made
        if values:
            moments, keys, refused = digest(values)
            moments = together(self._moments, moments)
            opened, drained, uncounted = self._open, slice(len(values)), iter(keys)
            # At once: so each value is either in the buffer or in the slice, for whoever comes in.
            self._moments = moments
            del buffer[drained]
            _count(opened, uncounted)
            if refused:
                self._family.host.fault("refused", self._family.name, refused)
        if now >= self._slice_end:
            self._close_slice(now)

    def _close_slice(self, now: float) -> None:
        seconds = self._family.slice_seconds
        index = math.floor(now / seconds)
        closed = [*self._closed]
        moments, before = self._moments, self._before
        if moments[0]:
            counts: _Counts = {}
            add(counts, self._open.items(), self._family.scale.shift)
            closed.append((self._index, moments, pack(counts)))
            add(counts, pairs(before[2]))
            before = before[0] + moments[0], finite(before[1] + moments[1]), pack(counts)
        kept = tuple([piece for piece in closed if piece[0] > index - SLICES])
        fresh: _Counts = {}
        end = (index + 1) * seconds
        # At once:
        self._open = fresh
        self._moments = NOTHING
        self._before = before
        self._closed = kept
        self._index = index
        self._slice_end = end

    def _stored(self) -> tuple[_Counts, Moments, _Before, tuple[_Slice, ...], int]:
        """What there is at one instant; what is still in the buffer counts for the open slice."""
        while True:
            moments, before = self._moments, self._before
            closed, index = self._closed, self._index
            opened = self._open.copy()
            late = [*self._buffer]
            if self._moments is moments and self._before is before:  # else somebody drained
                break
        if late:
            added, keys, _ = digest(late)
            _count(opened, keys)
            moments = together(moments, added)
        return opened, moments, before, closed, index

    def _split(self, split: Split) -> _Parts:
        self._settle(self._clock())
        known = self._parts.get(split)
        if known is not None:
            of_before, base, of_moments, parts = known
            if of_moments is self._moments and of_before is self._before and not self._buffer:
                return parts
        opened, moments, before, _, _ = self._stored()
        if known is None or of_before is not before:
            base = split.counts(pairs(before[2]))
        shift = self._family.scale.shift
        added = split.counts([(key >> shift, count) for key, count in opened.items()])
        counts = [a + b for a, b in zip(base, added, strict=True)]
        parts = counts, before[0] + moments[0], finite(before[1] + moments[1])
        self._parts[split] = before, base, moments, parts
        return parts

    def _merge(self, closed: list[_Slice]) -> tuple[Moments, Packed]:
        of_closed, moments, packed = self._merged
        if of_closed != (asked := tuple(closed)):
            counts: _Counts = {}
            moments = NOTHING
            for _, of_slice, counted in asked:
                add(counts, pairs(counted))
                moments = together(moments, of_slice)
            packed = pack(counts)
            self._merged = asked, moments, packed
        return moments, packed


class LockedHistogram(Histogram):
    """For interpreters without the GIL."""

    __slots__ = ("_lock",)

    def reset(self) -> None:
        self._lock = _thread.RLock()
        super().reset()

    def observe(self, value: float, /) -> None:
        with self._lock:
            super().observe(value)

    def observe_at(self, now: float, value: float) -> None:
        with self._lock:
            super().observe_at(now, value)

    def _read(self, everything: _Counts | None) -> tuple[HistogramReading, _Counts]:
        with self._lock:
            return super()._read(everything)

    def _split(self, split: Split) -> _Parts:
        with self._lock:
            return super()._split(split)


def _as_float(value: object) -> float:
    try:
        return float(number(value, "an observed value"))
    except OverflowError:
        return math.inf  # refused like one


HISTOGRAM = LockedHistogram if FREE_THREADED else Histogram
