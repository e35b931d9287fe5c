"""What a series says when it is read: plain values, taken at one instant."""

from __future__ import annotations

from sepelib.metrics._moments import stddev

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sepelib.metrics._buckets import Scale
    from sepelib.metrics._moments import Moments

__all__ = ["HistogramReading", "MeterReading", "WindowReading"]


class _Reading:
    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class MeterReading(_Reading):
    """count: since the start. rates: per second, of the last "1m", "5m" and "15m"."""

    __slots__ = ("count", "rates")

    def __init__(self, count: float, rates: Mapping[str, float]) -> None:
        self.count = count
        self.rates = rates


class WindowReading(_Reading):
    """The values of the last *seconds*. Without any, the statistics are None and there are no
    quantiles. stddev is that of the population."""

    __slots__ = ("count", "max", "mean", "min", "quantiles", "seconds", "stddev")

    def __init__(
        self,
        seconds: float,
        count: int,
        mean: float | None,
        min: float | None,
        max: float | None,
        stddev: float | None,
        quantiles: Mapping[float, float],
    ) -> None:
        self.seconds = seconds
        self.count = count
        self.mean = mean
        self.min = min
        self.max = max
        self.stddev = stddev
        self.quantiles = quantiles

    @classmethod
    def of(
        cls,
        moments: Moments,
        counts: Mapping[int, int],
        scale: Scale,
        seconds: float,
        quantiles: Iterable[float],
    ) -> WindowReading:
        """*counts*: of the same values as *moments*, by the keys of *scale*."""
        n, total, low, high, _ = moments
        if not n:
            return cls(seconds, 0, None, None, None, None, {})
        found = scale.quantiles(counts, quantiles, low, high)
        return cls(seconds, n, total / n, low, high, stddev(moments), found)


class HistogramReading(_Reading):
    """count, sum: of all values since the start. window: of the latest ones."""

    __slots__ = ("count", "sum", "window")

    def __init__(self, count: int, sum: float, window: WindowReading) -> None:
        self.count = count
        self.sum = sum
        self.window = window
