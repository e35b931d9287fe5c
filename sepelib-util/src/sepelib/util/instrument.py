"""The shape of a metrics recorder, and one that waits for the process to choose.

A library measures through `AMBIENT`, the default of every `recorder=`; nothing happens, at nearly
no cost, until the daemon says `instrument.install(metrics.default_registry)`. From then on all
instruments made before and after report there.

    _requests = AMBIENT.counter("http_client_requests", "Answers.", labels=("method",))
    _gets = _requests.labels("GET")         # keep the child: looking it up per call costs more
    _gets.inc()

Names come without `_total`: outputs that want it append it.
Sharing: everything here is for any thread, greenlet, signal handler or finalizer.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn, Protocol

__all__ = ["AMBIENT", "NULL", "Counter", "Gauge", "Histogram", "Recorder", "install"]


class Counter(Protocol):
    """Only grows."""

    def inc(self, n: float = 1, /) -> None: ...

    def labels(self, *values: str) -> Counter:
        """The series of these values, in the declared order; ValueError for another number.

        The same values give the same object.
        """
        ...


class Gauge(Protocol):
    """Goes up and down."""

    def set(self, value: float, /) -> None: ...

    def inc(self, n: float = 1, /) -> None: ...

    def dec(self, n: float = 1, /) -> None: ...

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        """Ask *fn* at each dump; several bound to one series are summed. The result detaches."""
        ...

    def labels(self, *values: str) -> Gauge: ...


class Histogram(Protocol):
    """The distribution of the values observed."""

    def observe(self, value: float, /) -> None: ...

    def labels(self, *values: str) -> Histogram: ...


class Recorder(Protocol):
    """Makes instruments. The same name, kind and labels give the same instrument."""

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Counter: ...

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Gauge: ...

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> Histogram: ...


class _NullInstrument:
    __slots__ = ()

    def inc(self, n: float = 1, /) -> None:
        pass

    def dec(self, n: float = 1, /) -> None:
        pass

    def set(self, value: float, /) -> None:
        pass

    def observe(self, value: float, /) -> None:
        pass

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        return _nothing

    def labels(self, *values: str) -> _NullInstrument:
        return self


def _nothing() -> None:
    pass


class _NullRecorder:
    _instrument = _NullInstrument()

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> _NullInstrument:
        return self._instrument

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> _NullInstrument:
        return self._instrument

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> _NullInstrument:
        return self._instrument


NULL: Recorder = _NullRecorder()
"""Does nothing, and checks nothing."""

_lock = _thread.RLock()  # native under gevent too; makes and binds instruments, never yields
_installed: Recorder = NULL

_CACHED_SERIES = 1000


def install(recorder: Recorder) -> Recorder:
    """Let all ambient instruments report to *recorder*; returns the former one (NULL at first).

    Counters and histograms go on there from their next use; what they counted before stays where it
    was. Gauges keep their own value, which *recorder* asks for from now on and the former one no
    longer does. All or nothing: when *recorder* refuses a gauge, the former one stays.
    """
    global _installed
    if recorder is AMBIENT:
        raise ValueError("AMBIENT reports to the installed recorder: it cannot be that itself")
    with _lock:
        _ambient.move_gauges(recorder)
        former, _installed = _installed, recorder
        return former


class _Family:
    """What was declared under one name, and its series."""

    def __init__(
        self, kind: str, name: str, help: str, labels: tuple[str, ...], unit: str | None
    ) -> None:
        self.kind = kind
        self.name = name
        self.labels = labels
        self.unit = unit
        self._help = help
        self._series: dict[tuple[str, ...], Any] = {}

    def series(self, values: tuple[str, ...]) -> Any:
        series = self._series.get(values)
        return self._make(values) if series is None else series

    def all_series(self) -> list[Any]:
        return list(self._series.values())

    def counterpart(self, recorder: Recorder, values: tuple[str, ...]) -> Any:
        if self.kind == "counter":
            family: Any = recorder.counter(self.name, self._help, self.labels)
        elif self.kind == "gauge":
            family = recorder.gauge(self.name, self._help, self.labels)
        else:
            unit = self.unit or "seconds"
            family = recorder.histogram(self.name, self._help, self.labels, unit=unit)
        return family.labels(*values) if values else family

    def _make(self, values: tuple[str, ...]) -> Any:
        if len(values) != len(self.labels):
            raise ValueError(f"{self}: {len(values)} values were given")
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"{self}: values are str, not {values!r}")
        with _lock:
            series = self._series.get(values)
            if series is None:
                series = _SERIES[self.kind](self, values)
                # Beyond that a counter works without being kept, so that label values made from
                # user input cost no memory here; the recorder has its own limit. A gauge has a
                # value to keep.
                if self.kind == "gauge" or len(self._series) < _CACHED_SERIES:
                    self._series[values] = series
            return series

    def __str__(self) -> str:
        labels = f"the labels ({', '.join(self.labels)})" if self.labels else "no labels"
        return f"{self.kind} {self.name!r} has {labels}"


class _Labelled:
    """A family with labels, of which only the series can be used."""

    __slots__ = ("_family",)

    def __init__(self, family: _Family) -> None:
        self._family = family

    def labels(self, *values: str) -> Any:
        return self._family.series(values)

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError(f"{self._family}: use labels(...)")

    inc = dec = set = observe = bind = _refuse


class _Rebinding:
    """A series that finds its counterpart at the first use after an `install()`."""

    __slots__ = ("_family", "_recorder", "_report", "_values")
    _method: ClassVar[str]

    def __init__(self, family: _Family, values: tuple[str, ...]) -> None:
        self._family = family
        self._values = values
        # Serves as the generation number: it is kept, so no other object has its identity.
        self._recorder: Recorder | None = None
        self._report: Callable[[float], None] | None = None

    def labels(self, *values: str) -> Any:
        return self._family.series(values)

    def _rebind(self) -> None:
        with _lock:
            recorder = _installed
            if recorder is NULL:
                self._report = None
            else:
                counterpart = self._family.counterpart(recorder, self._values)
                self._report = getattr(counterpart, self._method)
            self._recorder = recorder


class _Counter(_Rebinding):
    __slots__ = ()
    _method = "inc"

    def inc(self, n: float = 1, /) -> None:
        if self._recorder is not _installed:
            self._rebind()
        if self._report is not None:
            self._report(n)


class _Histogram(_Rebinding):
    __slots__ = ()
    _method = "observe"

    def observe(self, value: float, /) -> None:
        if self._recorder is not _installed:
            self._rebind()
        if self._report is not None:
            self._report(value)


class _Gauge:
    """Keeps its value, for which the recorder asks at each dump.

    So an `inc()` before an `install()` and a `dec()` after it are 0, whatever threads do meanwhile.
    Relies on CPython with the GIL: no other thread runs between the load and the store of
    `self._value += n` when *n* is a float.
    """

    __slots__ = ("_bound", "_detach", "_family", "_value", "_values")

    def __init__(self, family: _Family, values: tuple[str, ...]) -> None:
        self._family = family
        self._values = values
        self._value = 0.0
        self._bound: dict[object, Callable[[], float]] = {}
        self._detach = self.attach(_installed)

    def set(self, value: float, /) -> None:
        self._value = float(value)

    def inc(self, n: float = 1, /) -> None:
        n = float(n)
        self._value += n

    def dec(self, n: float = 1, /) -> None:
        n = float(n)
        self._value -= n

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        key = object()
        self._bound[key] = fn

        def detach() -> None:
            self._bound.pop(key, None)

        return detach

    def labels(self, *values: str) -> Any:
        return self._family.series(values)

    def read(self) -> float:
        return self._value + sum([fn() for fn in list(self._bound.values())])

    def attach(self, recorder: Recorder) -> Callable[[], None]:
        detach: Callable[[], None] = self._family.counterpart(recorder, self._values).bind(
            self.read
        )
        return detach

    def moved(self, detach: Callable[[], None]) -> None:
        former, self._detach = self._detach, detach
        former()


class _LockedGauge(_Gauge):
    """For interpreters without the GIL."""

    __slots__ = ()

    def inc(self, n: float = 1, /) -> None:
        with _lock:
            super().inc(n)

    def dec(self, n: float = 1, /) -> None:
        with _lock:
            super().dec(n)


_FREE_THREADED = sys.version_info >= (3, 13) and not sys._is_gil_enabled()
_SERIES = {
    "counter": _Counter,
    "gauge": _LockedGauge if _FREE_THREADED else _Gauge,
    "histogram": _Histogram,
}


class _Ambient:
    """The recorder of who does not know which recorder the process will install."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[_Family, Any]] = {}

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Counter:
        if name.endswith("_total"):
            raise ValueError(f"{name!r}: the name of a counter goes without '_total'")
        counter: Counter = self._instrument("counter", name, help, labels)
        return counter

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Gauge:
        gauge: Gauge = self._instrument("gauge", name, help, labels)
        return gauge

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> Histogram:
        histogram: Histogram = self._instrument("histogram", name, help, labels, unit)
        return histogram

    def move_gauges(self, recorder: Recorder) -> None:
        gauges = [
            gauge
            for family, _ in self._families.values()
            if family.kind == "gauge"
            for gauge in family.all_series()
        ]
        moves: list[tuple[_Gauge, Callable[[], None]]] = []
        try:
            for gauge in gauges:
                moves.append((gauge, gauge.attach(recorder)))
        except BaseException:
            for _, detach in moves:
                detach()
            raise
        for gauge, detach in moves:
            gauge.moved(detach)

    def _instrument(
        self, kind: str, name: str, help: str, labels: Sequence[str], unit: str | None = None
    ) -> Any:
        if isinstance(labels, str):
            raise TypeError(f"the labels of {name!r} are a sequence of names, not a str")
        with _lock:
            if name not in self._families:
                family = _Family(kind, name, help, tuple(labels), unit)
                root = _Labelled(family) if family.labels else family.series(())
                self._families[name] = family, root
            family, root = self._families[name]
        if (kind, tuple(labels), unit) != (family.kind, family.labels, family.unit):
            asked = f"{kind} with the labels ({', '.join(labels)})"
            unit_of = f" and the unit {family.unit!r}" if family.unit else ""
            raise ValueError(f"{family}{unit_of} already: it cannot be a {asked} too")
        return root


_ambient = _Ambient()
AMBIENT: Recorder = _ambient
"""Reports to the recorder that the process has installed. Default of every `recorder=`."""
