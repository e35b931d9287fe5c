"""Rates of the last 1, 5 and 15 minutes, without a clock on the way of what is counted.

`mark()` only counts. Each reading notes the time and the count, and a rate is what was counted
since the time a minute ago, divided by a minute; between two notes the count is taken to have grown
evenly. So a rate is as fine as the readings are frequent: with one each 15 s it is what it says;
when the last one was 10 minutes ago, all of these rates are the mean of 10 minutes. A meter younger
than the window gives the mean since it was made.
"""

from __future__ import annotations

from itertools import pairwise

from sepelib.metrics._readings import MeterReading
from sepelib.metrics._series import FREE_THREADED, Series
from sepelib.metrics.counters import amount

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from sepelib.metrics._series import Family

__all__ = ["Meter"]

WINDOWS = {"1m": 60.0, "5m": 300.0, "15m": 900.0}
_NOTES = 12  # kept of each window: readers may be many

_Note = tuple[float, float]  # time, count


class Meter(Series):
    """Counts, and knows its rates. Sharing: as `Counter`."""

    __slots__ = ("_count", "_notes")

    def __init__(self, family: Family, label_values: tuple[str, ...]) -> None:
        super().__init__(family, label_values)
        self._count: float = 0
        self._notes: list[_Note] = [(family.host.clock(), 0)]

    def mark(self, n: float = 1, /) -> None:
        """Count *n* events; ValueError unless it is finite and not negative."""
        if n == 1:
            self._count += 1
        else:
            n = amount(self, n)
            self._count += n

    def read(self) -> MeterReading:
        """The count and the rates; this is what makes later rates fine."""
        now, count, notes = self._family.host.clock(), self._count, self._notes
        rates = {name: _rate(notes, now, count, window) for name, window in WINDOWS.items()}
        # Replaced at once: of two simultaneous readings one note may be lost, which is no harm.
        self._notes = _thinned([*notes, (now, count)], now)
        return MeterReading(count, rates)

    def reset(self) -> None:
        self._count = 0
        self._notes = [(self._family.host.clock(), 0)]

    def activity(self) -> object:
        return self._count


class LockedMeter(Meter):
    """For interpreters without the GIL."""

    __slots__ = ()

    def mark(self, n: float = 1, /) -> None:
        n = amount(self, n)
        with self._family.host.lock:
            self._count += n


def _rate(notes: list[_Note], now: float, count: float, window: float) -> float:
    start = now - window
    later = now, count
    for note in reversed(notes):
        if note[0] <= start:
            break
        later = note
    else:
        start = notes[0][0]
        note = notes[0]
    if now <= start:
        return 0.0
    gap = later[0] - note[0]
    grown = (later[1] - note[1]) * (start - note[0]) / gap if gap > 0 else 0.0
    return max(0.0, (count - note[1] - grown) / (now - start))


def _thinned(notes: list[_Note], now: float) -> list[_Note]:
    """Without what no rate needs: of each window some dozen are enough."""
    kept: list[_Note] = []
    for note, following in pairwise(notes):
        age = now - note[0]
        step = next((w for w in WINDOWS.values() if age < w), None)
        if step is None:
            # Of those older than all windows the latest one bounds the longest window.
            if now - following[0] < max(WINDOWS.values()):
                kept = [note]
        elif not kept or following[0] - kept[-1][0] > step / _NOTES:
            kept.append(note)
    return [*kept, notes[-1]]


METER = LockedMeter if FREE_THREADED else Meter
