"""Where metrics are made, found again and read."""

from __future__ import annotations

import _thread
import os
import sys
import time

from sepelib.metrics._histogram import HISTOGRAM
from sepelib.metrics._histogram_family import HistogramFamily
from sepelib.metrics._meter import METER
from sepelib.metrics._names import (
    check_name,
    check_yasm,
    checked_const_labels,
    checked_labels,
    clash,
    described,
    place,
)
from sepelib.metrics._series import OVERFLOW, Family, Host, Series
from sepelib.metrics._snapshot import metric
from sepelib.metrics.counters import COUNTER, GAUGE

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sepelib.metrics._histogram import Histogram
    from sepelib.metrics._meter import Meter
    from sepelib.metrics.counters import Counter, Gauge

__all__ = ["OVERFLOW", "Family", "Registry", "Series", "default_registry"]

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


class Registry:
    """The metrics of a process, or of a part of it that wants its own.

    prefix: written before each name as it is. labels: those of all series, such as the service.
    max_series: of each metric that does not say otherwise; all label values beyond share one
    overflow series, whose label values are `__overflow__`.
    clock: seconds, monotonic; for tests.

    What it could not do it counts in `metrics_faults`, by fault and by what it happened to:
    "overflow" (a lookup of label values beyond `max_series`), "refused" (NaN or an infinity was
    observed), "gauge" (a bound function failed, or the value is not finite), "hook".

    Fits `sepelib.util.instrument.Recorder`. Sharing: any thread, greenlet, signal handler or
    finalizer.
    """

    def __init__(
        self,
        prefix: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        max_series: int = 1000,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.prefix = prefix
        self.const_labels = checked_const_labels(labels or {})
        self._max_series = max_series
        # Native under gevent too, and reentrant: a finalizer may make a metric or a series. Nothing
        # under it yields.
        self._lock = _thread.RLock()
        # Kept, not looked up at each call: gevent does not patch it, and each value asks for it.
        self._host = Host(clock or time.monotonic, self._fault, self._lock)
        self._families: dict[str, Family] = {}  # by the name with the prefix
        self._sorted: list[Family] | None = None
        self._hooks: dict[object, _Hook] = {}
        self._resets_in_children = False
        self._faults: Family = self._instrument(
            "counter",
            COUNTER,
            "metrics_faults",
            "What the registry could not do.",
            ("fault", "subject"),
            (sys.maxsize, None, None),
        )

    def counter(
        self,
        name: str,
        help: str = "",
        labels: Sequence[str] = (),
        *,
        max_series: int | None = None,
        ttl: float | None = None,
        yasm: str | None = None,
    ) -> Counter:
        """A counter: the one there is, or a new one. All four kinds are made like this:

        name, labels: as in Prometheus; the name goes without `_total`. A metric with labels is used
        by its series, `.labels("GET", "200")`, else ValueError.
        max_series: instead of the registry's. ttl: series that were not written to for so many
        seconds are dropped at a dump; they come back when the program still holds them and writes
        again, else begin anew. yasm: the suffix in the yasm output, such as "summ".
        ValueError when the name is taken by a metric of another kind, other labels or another unit;
        what else is asked for is settled by the first who asks.
        """
        counter: Counter = self._instrument(
            "counter", COUNTER, name, help, labels, (max_series, ttl, yasm)
        )
        return counter

    def gauge(
        self,
        name: str,
        help: str = "",
        labels: Sequence[str] = (),
        *,
        max_series: int | None = None,
        ttl: float | None = None,
        yasm: str | None = None,
    ) -> Gauge:
        """A gauge; see `counter()`."""
        gauge: Gauge = self._instrument("gauge", GAUGE, name, help, labels, (max_series, ttl, yasm))
        return gauge

    def meter(
        self,
        name: str,
        help: str = "",
        labels: Sequence[str] = (),
        *,
        max_series: int | None = None,
        ttl: float | None = None,
        yasm: str | None = None,
    ) -> Meter:
        """A meter; see `counter()`."""
        meter: Meter = self._instrument("meter", METER, name, help, labels, (max_series, ttl, yasm))
        return meter

    def histogram(
        self,
        name: str,
        help: str = "",
        labels: Sequence[str] = (),
        *,
        unit: str = "seconds",
        quantiles: Sequence[float] = QUANTILES,
        window: float = 60.0,
        error: float = 0.01,
        buckets: Sequence[float] | None = None,
        max_series: int | None = None,
        ttl: float | None = None,
        yasm: str | None = None,
    ) -> Histogram:
        """A histogram; see `counter()`.

        unit: of the values, "" for none. quantiles: those of dumps. window: seconds that they look
        back. error: how wide a bucket is at most, relative to its values, from 1/128 up to 1; a
        coarser one takes less memory. buckets: the edges for outputs that have fixed ones; default
        for seconds from 1 ms to 60 s, for bytes from 64 to 4 GiB, else powers of ten from 0.001.
        """
        histogram: Histogram = self._instrument(
            "histogram",
            HISTOGRAM,
            name,
            help,
            labels,
            (max_series, ttl, yasm),
            unit=unit or None,
            quantiles=quantiles,
            window=window,
            error=error,
            buckets=buckets,
        )
        return histogram

    def unregister(self, name: str) -> None:
        """Forget a metric; ValueError when there is none. Who holds it counts for nobody."""
        with self._lock:
            family = self._families.get(self.prefix + name)
            if family is None or family is self._faults:
                raise ValueError(f"there is no metric {name!r} to unregister")
            del self._families[family.name]
            self._sorted = None

    def families(self) -> list[Family]:
        """All metrics, sorted by name: what each dump begins with, once.

        First the hooks run and idle series are dropped.
        """
        for hook in list(self._hooks.values()):
            hook.run(self._fault)
        with self._lock:
            found = self._sorted
            if found is None:
                by_name = sorted(self._families.items())
                found = self._sorted = [family for _, family in by_name]
        for family in found:
            family.drop_idle()
        if self._faults.series():
            return list(found)
        return [family for family in found if family is not self._faults]

    def snapshot(self, *, buckets: bool = True) -> dict[str, Any]:
        """All values as plain dicts and lists that JSON can hold; `sepelib.metrics.merge()` puts
        several together.

            {"time": unix seconds, "labels": those of the registry, "metrics": [
                {"name", "kind", "help", "unit", "labels": [names], "series": [
                    {"labels": [values], "value"},                                counter, gauge
                    {"labels": [values], "count", "rates": {"1m", "5m", "15m"}},  meter
                    {"labels": [values], "count", "sum", "buckets",               histogram
                     "window": {"seconds", "count", "mean", "min", "max", "stddev",
                                "quantiles": {"0.5": ...}}}]}]}

        Sorted by name. What an empty window cannot tell is None, and it has no quantiles. "buckets"
        is for `merge()`; with *buckets* False it is left out, which is cheaper.
        """
        return {
            "time": time.time(),
            "labels": dict(self.const_labels),
            "metrics": [metric(family, buckets=buckets) for family in self.families()],
        }

    def dump(self, fmt: str) -> tuple[bytes, str]:
        """All values as "yaml", "json", "prometheus", "openmetrics" or "yasm", and the content
        type; ValueError for another format.

        The first dump of a format imports what renders it, which a signal handler must not: one
        that dumps wants a dump made before it is installed.
        """
        from sepelib.metrics import render

        return render.dump(self, fmt)

    def collect_hook(self, fn: Callable[[], object]) -> Callable[[], None]:
        """Call *fn* before each dump and snapshot; the result removes it.

        For values that are asked for rather than counted. An Exception of *fn* is counted in
        `metrics_faults`, and the dump goes on. It is not called again while it runs.
        """
        key = object()
        self._hooks[key] = _Hook(fn)

        def remove() -> None:
            self._hooks.pop(key, None)

        return remove

    def reset(self) -> None:
        """Set all values to nothing; metrics, series, bound functions and hooks stay. For tests."""
        for family in list(self._families.values()):
            for series in family.all_series():
                series.reset()

    def reset_in_children(self) -> None:
        """From now on a forked child begins at nothing, instead of at the values of its parent.

        For who forks while threads run, too: what another thread was about to do is put right.
        Cannot be undone, and keeps the registry for the life of the process.
        """
        if not self._resets_in_children:
            self._resets_in_children = True
            os.register_at_fork(after_in_child=self._begin_in_child)

    def _begin_in_child(self) -> None:
        # Another thread of the parent may have held it.
        self._lock = self._host.lock = _thread.RLock()
        self.reset()

    def _instrument(
        self,
        kind: str,
        make: Callable[[Family, tuple[str, ...]], Series],
        name: str,
        help: str,
        labels: Sequence[str],
        limits: tuple[int | None, float | None, str | None],
        *,
        unit: str | None = None,
        **options: Any,
    ) -> Any:
        full_name = self.prefix + name
        labels = checked_labels(full_name, labels)
        with self._lock:
            family = self._families.get(full_name)
            if family is None:
                family = self._family(kind, make, full_name, help, labels, limits, unit, options)
        if (family.kind, family.label_names, family.unit) != (kind, labels, unit):
            raise ValueError(
                f"{family} and was made at {family.place}: it cannot be"
                f" {described(kind, labels, unit)} too, asked for at {place()}"
            )
        return family if labels else family.labels()

    def _family(
        self,
        kind: str,
        make: Callable[[Family, tuple[str, ...]], Series],
        name: str,
        help: str,
        labels: tuple[str, ...],
        limits: tuple[int | None, float | None, str | None],
        unit: str | None,
        options: dict[str, Any],
    ) -> Family:
        check_name(kind, name)
        max_series, ttl, yasm = limits
        if yasm is not None:
            check_yasm(kind, name, yasm)
        if doubled := set(labels) & set(self.const_labels):
            raise ValueError(f"{name!r}: all series have the label {doubled.pop()!r} already")
        here = place()
        if found := clash(kind, name, self._kind_of):
            other, shared = self._families[found[0]], found[1]
            raise ValueError(
                f"{kind} {name!r}, asked for at {here}, would share the name {shared!r} in the"
                f" output with {other.kind} {other.name!r}, made at {other.place}"
            )
        family = (HistogramFamily if kind == "histogram" else Family)(
            make,
            kind,
            name,
            help,
            labels,
            unit,
            host=self._host,
            place=here,
            max_series=self._max_series if max_series is None else max_series,
            ttl=ttl,
            yasm=yasm,
            **options,
        )
        if not labels:
            family.labels()  # shown from now on, as 0
        if name in self._families:  # a finalizer made it while we did
            return self._families[name]
        self._families[name] = family
        self._sorted = None
        return family

    def _kind_of(self, name: str) -> str | None:
        family = self._families.get(name)
        return None if family is None else family.kind

    def _fault(self, fault: str, subject: str, n: int = 1) -> None:
        self._faults.labels(fault, subject).inc(n)


class _Hook:
    __slots__ = ("_fn", "_running")

    def __init__(self, fn: Callable[[], object]) -> None:
        self._fn = fn
        self._running = False

    def run(self, fault: Callable[..., None]) -> None:
        if self._running:
            return
        self._running = True
        try:
            self._fn()
        except Exception:
            fault("hook", getattr(self._fn, "__qualname__", type(self._fn).__name__))
        finally:
            self._running = False


default_registry = Registry()
"""Of `sepelib.metrics.counter()` and the like."""
