"""A metrics recorder that keeps everything, for a test to look at."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MemoryRecorder"]


class MemoryRecorder:
    """A `sepelib.util.instrument.Recorder` whose values a test reads.

        recorder = MemoryRecorder()
        session = InstrumentedSession(recorder=recorder)
        ...
        assert recorder.value("http_client_in_flight", "http") == 0

    A counter or gauge nobody has touched is 0, a histogram without values is []; a name that was
    never declared is a KeyError which lists those that were, so that a misspelt one cannot pass.
    Exact under threads, greenlets and signal handlers; every value observed is kept.
    """

    def __init__(self) -> None:
        self._lock = _thread.RLock()  # native in a patched process too
        self._families: dict[str, _Family] = {}

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Any:
        return self._family(name, _Counter, labels, None)

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Any:
        return self._family(name, _Gauge, labels, None)

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> Any:
        return self._family(name, _Histogram, labels, unit)

    @property
    def names(self) -> list[str]:
        """Of all that was declared, sorted."""
        return sorted(self._families)

    def value(self, name: str, *labels: str) -> float:
        """Of a counter or gauge; callbacks bound to a gauge are asked now."""
        value: float = self._read(name, (_Counter, _Gauge), labels)
        return value

    def observations(self, name: str, *labels: str) -> list[float]:
        """What a histogram was told, in order."""
        values: list[float] = self._read(name, (_Histogram,), labels)
        return values

    def series(self, name: str) -> dict[tuple[str, ...], Any]:
        """By label values, of each series that exists: a float, or the list of a histogram."""
        family = self._find(name)
        with self._lock:
            return {labels: series.read() for labels, series in family.children.items()}

    def _read(self, name: str, kinds: tuple[type, ...], labels: tuple[str, ...]) -> Any:
        family = self._find(name)
        if family.kind not in kinds:
            raise TypeError(f"{name!r} is a {family.kind.__name__.lstrip('_').lower()}")
        if len(labels) != len(family.labels):
            raise ValueError(f"{name!r} has the labels {family.labels}, not {len(labels)} of them")
        with self._lock:
            series = family.children.get(labels)
            return (family.kind(family) if series is None else series).read()

    def _find(self, name: str) -> _Family:
        try:
            return self._families[name]
        except KeyError:
            raise KeyError(f"{name!r} was never declared; these were: {self.names}") from None

    def _family(
        self, name: str, kind: type[_Series], labels: Sequence[str], unit: str | None
    ) -> Any:
        with self._lock:
            family = self._families.get(name)
            if family is None:
                family = self._families[name] = _Family(self._lock, kind, tuple(labels), unit)
        if (kind, tuple(labels), unit) != (family.kind, family.labels, family.unit):
            raise ValueError(f"{name!r} was declared before with another kind, labels or unit")
        return family.root


class _Family:
    def __init__(
        self, lock: _thread.RLock, kind: type[_Series], labels: tuple[str, ...], unit: str | None
    ) -> None:
        self.lock = lock
        self.kind = kind
        self.labels = labels
        self.unit = unit
        self.children: dict[tuple[str, ...], _Series] = {}
        self.root: Any = _Labelled(self) if labels else self.child(())

    def child(self, values: tuple[str, ...]) -> _Series:
        if len(values) != len(self.labels):
            raise ValueError(f"{len(values)} values for the labels {self.labels}")
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"label values are str, not {values!r}")
        with self.lock:
            if values not in self.children:
                self.children[values] = self.kind(self)
            return self.children[values]


class _Labelled:
    def __init__(self, family: _Family) -> None:
        self._family = family

    def labels(self, *values: str) -> _Series:
        return self._family.child(values)

    def _refuse(self, *_: object) -> None:
        raise ValueError(f"has the labels {self._family.labels}: use labels(...)")

    inc = dec = set = observe = bind = _refuse


class _Series:
    def __init__(self, family: _Family) -> None:
        self._family = family

    def labels(self, *values: str) -> _Series:
        return self._family.child(values)

    def read(self) -> Any:
        raise NotImplementedError


class _Counter(_Series):
    def __init__(self, family: _Family) -> None:
        super().__init__(family)
        self._value = 0.0

    def inc(self, n: float = 1, /) -> None:
        if not n >= 0:
            raise ValueError(f"a counter only grows, not by {n!r}")
        with self._family.lock:
            self._value += n

    def read(self) -> float:
        return self._value


class _Gauge(_Series):
    def __init__(self, family: _Family) -> None:
        super().__init__(family)
        self._value = 0.0
        self._bound: dict[object, Callable[[], float]] = {}

    def set(self, value: float, /) -> None:
        self._value = value

    def inc(self, n: float = 1, /) -> None:
        with self._family.lock:
            self._value += n

    def dec(self, n: float = 1, /) -> None:
        self.inc(-n)

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        key = object()
        self._bound[key] = fn
        return lambda: self._bound.pop(key, None) and None

    def read(self) -> float:
        return self._value + sum([fn() for fn in list(self._bound.values())])


class _Histogram(_Series):
    def __init__(self, family: _Family) -> None:
        super().__init__(family)
        self._values: list[float] = []

    def observe(self, value: float, /) -> None:
        self._values.append(value)

    def read(self) -> list[float]:
        return list(self._values)
