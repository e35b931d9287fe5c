"""Counters and gauges: one number each."""

from __future__ import annotations

import math

from sepelib.metrics._series import FREE_THREADED, Series, number

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable

    from sepelib.metrics._series import Family

__all__ = ["Counter", "Gauge"]


class Counter(Series):
    """Only grows.

    Sharing: any thread, greenlet, signal handler or finalizer, without a lock. CPython with the
    GIL looks for other threads and signals at calls and backward jumps only, so nothing comes
    between the load and the store of `self._value += n` when *n* is a plain number.
    """

    # `_value` is a finite number: renderers of this package may read it where a call is too slow.
    __slots__ = ("_value",)

    def __init__(self, family: Family, label_values: tuple[str, ...]) -> None:
        super().__init__(family, label_values)
        self._value: float = 0

    def inc(self, n: float = 1, /) -> None:
        """Add *n*; ValueError unless it is finite and not negative."""
        if n == 1:
            self._value += 1
        else:
            n = amount(self, n)
            self._value += n

    def read(self) -> float:
        return self._value

    def reset(self) -> None:
        self._value = 0

    def activity(self) -> object:
        return self._value


class Gauge(Series):
    """Goes up and down, and may ask functions for its value.

    What a dump shows is the own value plus those of all bound functions; nothing when it is not
    finite. Sharing: as `Counter`.
    """

    __slots__ = ("_bound", "_value", "_writes")

    def __init__(self, family: Family, label_values: tuple[str, ...]) -> None:
        super().__init__(family, label_values)
        self._value: float = 0
        self._writes = 0
        self._bound: dict[object, Callable[[], float]] | None = None

    def set(self, value: float, /) -> None:
        self._value = number(value, "the value of a gauge")
        self._writes += 1

    def inc(self, n: float = 1, /) -> None:
        n = number(n, "an amount")
        self._value += n
        self._writes += 1

    def dec(self, n: float = 1, /) -> None:
        n = number(n, "an amount")
        self._value -= n
        self._writes += 1

    def track(self) -> _Tracking:
        """`with gauge.track():` counts the block while it runs. Any number of them at a time."""
        return _Tracking(self)

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        """Ask *fn* at each dump; several bound to one series are summed. The result detaches.

        When *fn* fails the dump goes without this series, and the failure is counted in
        `metrics_faults`. *fn* runs wherever a dump is made: it should not wait.
        """
        key = object()
        with self._family.host.lock:
            if self._bound is None:
                self._bound = {}
            self._bound[key] = fn
        bound = self._bound

        def detach() -> None:
            bound.pop(key, None)

        return detach

    def read(self) -> float | None:
        """The value, or None when there is nothing to show."""
        value = self._value
        try:
            if self._bound:
                value += sum([number(fn(), "a value") for fn in list(self._bound.values())])
            if math.isfinite(value):
                return value
        except Exception:
            pass  # counted below, like a value that is not finite
        self._family.host.fault("gauge", self._family.name)
        return None

    def reset(self) -> None:
        """Set to 0. What is bound stays bound."""
        self._value = 0

    def activity(self) -> object:
        return object() if self._bound else self._writes


class _Tracking:
    __slots__ = ("_gauge",)

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def __enter__(self) -> None:
        self._gauge.inc()

    def __exit__(self, *_: object) -> None:
        self._gauge.dec()


class LockedCounter(Counter):
    """For interpreters without the GIL."""

    __slots__ = ()

    def inc(self, n: float = 1, /) -> None:
        n = amount(self, n)
        with self._family.host.lock:
            self._value += n


class LockedGauge(Gauge):
    """For interpreters without the GIL."""

    __slots__ = ()

    def set(self, value: float, /) -> None:
        value = number(value, "the value of a gauge")
        with self._family.host.lock:
            super().set(value)

    def inc(self, n: float = 1, /) -> None:
        n = number(n, "an amount")
        with self._family.host.lock:
            super().inc(n)

    def dec(self, n: float = 1, /) -> None:
        n = number(n, "an amount")
        with self._family.host.lock:
            super().dec(n)


def amount(series: Series, n: float) -> float:
    if type(n) is not int and type(n) is not float:
        n = number(n, "an amount")
    if type(n) is int and n.bit_length() > 64:  # of thousands of bits could not be written out
        raise ValueError(f"{series!r} cannot be increased by a number of {n.bit_length()} bits")
    if not 0 <= n < math.inf:
        raise ValueError(f"{series!r} only grows: it cannot be increased by {n}")
    return n


COUNTER = LockedCounter if FREE_THREADED else Counter
GAUGE = LockedGauge if FREE_THREADED else Gauge
