"""A metric is a family of series, told apart by the values of their labels."""

from __future__ import annotations

import math
import sys

from sepelib.metrics._names import described

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    import _thread
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn, Self

    from sepelib.metrics._names import Place

__all__ = ["OVERFLOW", "Family", "Host", "Series", "number"]

OVERFLOW = "__overflow__"
"""Each label value of the series that stands for all beyond `max_series`."""

FREE_THREADED = sys.version_info >= (3, 13) and not sys._is_gil_enabled()


_NONE: dict[Any, Any] = {}  # never written to: most families have no ttl


class Host:
    """What the series of one registry share."""

    __slots__ = ("clock", "fault", "lock")

    def __init__(
        self,
        clock: Callable[[], float],
        fault: Callable[..., None],
        lock: _thread.RLock,
    ) -> None:
        self.clock = clock
        self.fault = fault  # fault(what went wrong, name of the metric, how often=1): counted
        self.lock = lock  # for making and dropping series; nothing under it yields


class Series:
    """One row of a metric: an instrument, and what a renderer wants to know of it.

    label_values: in the order of the family's `label_names`; () without labels.
    render_cache: belongs to the renderers, who keep the formatted beginning of their lines here.
    """

    __slots__ = ("_family", "label_values", "render_cache")

    def __init__(self, family: Family, label_values: tuple[str, ...]) -> None:
        self._family = family
        self.label_values = label_values
        self.render_cache: Any = None

    def labels(self, *values: str) -> Self:
        """The series of these label values, in the declared order; the same values, the same one.

        ValueError for another number of values. Beyond `max_series` it is the overflow series.
        Keep it where speed matters.
        """
        series: Self = self._family.labels(*values)
        return series

    def remove(self, *values: str) -> None:
        """Forget the series of these label values, if there is one; it makes room for another.

        Who holds it counts for nobody from now on; `labels()` begins anew. ValueError for another
        number of values, and without labels: `Registry.unregister()` forgets the whole metric.
        """
        self._family.remove(*values)

    def reset(self) -> None:
        """Begin anew at nothing. For tests: values that come in meanwhile may be lost."""
        raise NotImplementedError

    def activity(self) -> object:
        """Something that differs from its former self once the series was written to."""
        raise NotImplementedError

    def __repr__(self) -> str:
        names = self._family.label_names
        labels = ", ".join(f"{n}={v!r}" for n, v in zip(names, self.label_values, strict=False))
        return f"<{type(self).__name__.lstrip('_')} {self._family.name}{{{labels}}}>"


class Family:
    """All series of one name. With labels it is also what the program holds: see `labels()`.

    name: with the registry's prefix, without what outputs append (`_total`, `_bucket`).
    kind: "counter", "gauge", "meter" or "histogram". unit: of a histogram's values, or None.
    yasm: the suffix that the yasm output is to use instead of the kind's usual one, or None.
    """

    __slots__ = (
        "_children",
        "_dormant",
        "_last_sweep",
        "_make",
        "_max_series",
        "_overflow",
        "_seen",
        "_ttl",
        "help",
        "host",
        "kind",
        "label_names",
        "name",
        "place",
        "unit",
        "yasm",
    )

    def __init__(
        self,
        make: Callable[[Family, tuple[str, ...]], Series],
        kind: str,
        name: str,
        help: str,
        label_names: tuple[str, ...],
        unit: str | None,
        *,
        host: Host,
        place: Place,
        max_series: int,
        ttl: float | None,
        yasm: str | None,
    ) -> None:
        if max_series < 1:
            raise ValueError(f"the max_series of {name!r} is a number from 1 on, not {max_series}")
        if ttl is not None and not 0 < ttl < math.inf:
            raise ValueError(f"the ttl of {name!r} is more than 0 seconds, not {ttl!r}")
        self.kind = kind
        self.name = name
        self.help = help
        self.label_names = label_names
        self.unit = unit
        self.yasm = yasm
        self.place = place
        self._make = make
        self.host = host
        self._max_series = max_series
        self._ttl = ttl
        self._children: dict[tuple[str, ...], Series] = {}
        self._overflow: Series | None = None
        # Of families with a ttl: the last change of each series, as activity and time; and those
        # dropped which the program still holds.
        self._seen: dict[tuple[str, ...], tuple[object, float]] = _NONE if ttl is None else {}
        self._dormant: dict[tuple[str, ...], Series] = _NONE if ttl is None else {}
        self._last_sweep = host.clock()

    def labels(self, *values: str) -> Any:
        """The series of these values: see `Series.labels()`."""
        try:
            return self._children[values]
        except KeyError:
            return self._child(values)

    def remove(self, *values: str) -> None:
        """Forget the series of these values: see `Series.remove()`."""
        if not values or len(values) != len(self.label_names):
            raise ValueError(f"{self}: {len(values)} values were given")
        with self.host.lock:
            self._children.pop(values, None)
            if self._ttl is not None:
                self._dormant.pop(values, None)
                self._seen.pop(values, None)

    def series(self) -> list[Series]:
        """All that there are, in the order they were made; the overflow series comes last."""
        found = list(self._children.values())
        if self._overflow is not None:
            found.append(self._overflow)
        return found

    def all_series(self) -> Iterator[Series]:
        """Those of `series()` and those dropped that the program still holds."""
        yield from self.series()
        yield from list(self._dormant.values())

    def drop_idle(self) -> None:
        """Take out what was not written to for the ttl; a second series keeps no second memory.

        One that the program still holds comes back when it is written to again, with all that it
        counted.
        """
        if self._ttl is None or not self.label_names:
            return
        with self.host.lock:
            now = self._last_sweep = self.host.clock()
            for values in list(self._children):
                self._age(values, now, self._ttl)
            self._sort_out_the_dormant(now)

    def _age(self, values: tuple[str, ...], now: float, ttl: float) -> None:
        activity = self._children[values].activity()
        seen, since = self._seen.get(values, (None, now))
        if seen != activity:
            self._seen[values] = activity, now
        elif now - since >= ttl:
            self._dormant[values] = self._children.pop(values)

    def _sort_out_the_dormant(self, now: float) -> None:
        for values in list(self._dormant):
            # Asked in this order: once nobody else holds it nobody can write to it any more, since
            # `labels()` gives out a dormant series only under the lock.
            unheld = _references([self._dormant[values]]) <= _UNHELD + 1
            activity = self._dormant[values].activity()
            if self._seen[values][0] != activity:
                self._children[values] = self._dormant.pop(values)
                self._seen[values] = activity, now
            elif unheld:
                del self._dormant[values], self._seen[values]

    def _child(self, values: tuple[str, ...]) -> Series:
        if len(values) != len(self.label_names):
            raise ValueError(f"{self}: {len(values)} values were given")
        values = tuple([self._checked_value(value) for value in values])
        host = self.host
        if self._wants_room():
            self.drop_idle()
        with host.lock:
            child = self._children.get(values) or self._awaken(values)
            if child is not None:
                return child
            reserved = bool(values) and values == (OVERFLOW,) * len(values)
            if len(self._children) < self._max_series and not reserved:
                # A finalizer may have made the same one while we made ours.
                return self._children.setdefault(values, self._make(self, values))
            if self._overflow is None:
                self._overflow = self._make(self, (OVERFLOW,) * len(values))
            overflow = self._overflow
        if not reserved:
            host.fault("overflow", self.name)
        return overflow

    def _awaken(self, values: tuple[str, ...]) -> Series | None:
        child = self._dormant.pop(values, None) if self._dormant else None
        if child is not None:
            self._children[values] = child
            self._seen[values] = child.activity(), self.host.clock()
        return child

    def _wants_room(self) -> bool:
        # Not at each lookup beyond the limit: a sweep looks at all series.
        return (
            self._ttl is not None
            and len(self._children) >= self._max_series
            and self.host.clock() - self._last_sweep >= self._ttl / 10
        )

    def _checked_value(self, value: str) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{self}: values are str, not {value!r}")
        value = str.__str__(value)  # of a str subclass too: nothing of ours runs its code
        # A file name may hold lone surrogates, over which each dump would fail.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError(f"{self}: use labels(...)")

    inc = dec = set = bind = track = mark = observe = time = _refuse

    def __str__(self) -> str:
        return f"{self.name!r} is {described(self.kind, self.label_names, self.unit)}"

    def __repr__(self) -> str:
        return f"<Family {self.kind} {self.name}({', '.join(self.label_names)})>"


def _references(box: list[Any]) -> int:
    return sys.getrefcount(box[0])


_UNHELD = _references([object()])  # by nobody but the box; differs between versions of Python


def number(value: object, what: str) -> float:
    """*value* as a plain int or float: adding one of these runs no Python code, which is what
    keeps an update whole without a lock."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{what} is a number, not {value!r}")
    return float(value)  # type: ignore[arg-type]
