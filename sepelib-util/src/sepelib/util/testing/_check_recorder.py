"""What every recorder of metrics has to pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from sepelib.util.instrument import Counter, Gauge, Histogram, Recorder
from sepelib.util.testing._require import require

__all__ = ["check_recorder"]

_numbers = itertools.count(1)  # names differ from one check of a shared recorder to the next


class _Make(Protocol):
    def __call__(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Any: ...


def check_recorder(
    recorder: Recorder, read: Callable[[str, tuple[str, ...]], float] | None = None
) -> None:
    """AssertionError unless *recorder* fits `sepelib.util.instrument.Recorder` in deed.

    read(name, label values): the value that the next dump would show for a counter or gauge, by
    the name that was given, hence without `_total`; None leaves out the values. Leaves instruments
    `check_<number>_...` behind. `NULL`, which checks nothing, is no recorder in this sense.
    """
    prefix = f"check_{next(_numbers)}"
    _check_making(recorder.counter, f"{prefix}_making_counter")
    _check_making(recorder.gauge, f"{prefix}_making_gauge")
    _check_making(recorder.histogram, f"{prefix}_making_histogram")
    _check_kinds(recorder, f"{prefix}_kinds")
    _check_counter(recorder, f"{prefix}_counter", read)
    _check_gauge(recorder, f"{prefix}_gauge", read)
    _check_bound_gauge(recorder, f"{prefix}_bound_gauge", read)
    _check_histogram(recorder, f"{prefix}_histogram")


def _check_making(make: _Make, name: str) -> None:
    require(make(name) is make(name), f"{name}: made twice, it is two instruments")
    labelled = make(f"{name}_labelled", "Help.", ("a", "b"))
    require(
        make(f"{name}_labelled", "Help.", ["a", "b"]) is labelled,
        f"{name}_labelled: made twice, with a tuple and a list of labels, it is two instruments",
    )
    child = labelled.labels("x", "y")
    require(labelled.labels("x", "y") is child, f"{name}: labels() twice gave two series")
    require(labelled.labels("y", "x") is not child, f"{name}: the order of label values is ignored")
    for values in (), ("x",), ("x", "y", "z"):
        _refuses(partial(labelled.labels, *values), f"{name}: {len(values)} of 2 values")
    _refuses(lambda: make(f"{name}_labelled", "", ("b", "a")), f"{name}: other labels")
    _refuses(lambda: make(f"{name}_labelled"), f"{name}: no labels, the second time")


def _check_kinds(recorder: Recorder, name: str) -> None:
    recorder.counter(name)
    _refuses(lambda: recorder.gauge(name), f"{name}: a counter made again as a gauge")
    _refuses(lambda: recorder.histogram(name), f"{name}: a counter made again as a histogram")


def _check_counter(
    recorder: Recorder, name: str, read: Callable[[str, tuple[str, ...]], float] | None
) -> None:
    counter: Counter = recorder.counter(name)
    counter.inc()
    counter.inc(2.5)
    children: Counter = recorder.counter(f"{name}_labelled", "", ("a", "b"))
    children.labels("x", "y").inc(2)
    children.labels("y", "x").inc()
    if read is not None:
        _shows(read, name, (), 3.5)
        _shows(read, f"{name}_labelled", ("x", "y"), 2)
        _shows(read, f"{name}_labelled", ("y", "x"), 1)


def _check_gauge(
    recorder: Recorder, name: str, read: Callable[[str, tuple[str, ...]], float] | None
) -> None:
    gauge: Gauge = recorder.gauge(name)
    gauge.set(10)
    gauge.inc()
    gauge.inc(0.5)
    gauge.dec()
    gauge.dec(4)
    child = recorder.gauge(f"{name}_labelled", "", ("a",)).labels("x")
    child.dec(2)
    if read is not None:
        _shows(read, name, (), 6.5)
        _shows(read, f"{name}_labelled", ("x",), -2)


def _check_bound_gauge(
    recorder: Recorder, name: str, read: Callable[[str, tuple[str, ...]], float] | None
) -> None:
    for labels in (), ("a",):
        values = ("x",) * len(labels)
        full_name = f"{name}_{len(labels)}"
        family: Gauge = recorder.gauge(full_name, "", labels)
        gauge = family.labels(*values) if labels else family
        sizes = {"one": 3.0, "other": 4.0}
        unbind_one = gauge.bind(partial(sizes.__getitem__, "one"))
        unbind_other = gauge.bind(partial(sizes.__getitem__, "other"))
        if read is not None:
            _shows(read, full_name, values, 7)
            sizes["one"] = 5.0
            _shows(read, full_name, values, 9)  # asked at each dump
        unbind_one()
        unbind_one()  # close() is idempotent, and calls this
        if read is not None:
            _shows(read, full_name, values, 4)
        unbind_other()


def _check_histogram(recorder: Recorder, name: str) -> None:
    histogram: Histogram = recorder.histogram(name, "Help.", unit="bytes")
    for value in 0, 0.5, 1e-9, 1e12:
        histogram.observe(value)
    recorder.histogram(f"{name}_labelled", "", ("a",)).labels("x").observe(1.0)


def _refuses(make: Callable[[], object], what: str) -> None:
    try:
        make()
    except ValueError as error:
        require(str(error), f"{what}: refused without a word")
    else:
        raise AssertionError(f"{what}: not refused with a ValueError")


def _shows(
    read: Callable[[str, tuple[str, ...]], float],
    name: str,
    values: tuple[str, ...],
    expected: float,
) -> None:
    shown = read(name, values)
    require(shown == expected, f"{name}{values}: shows {shown}, not {expected}")
