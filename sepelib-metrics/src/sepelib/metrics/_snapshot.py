"""The plain form of metrics. See `Registry.snapshot()`."""

from __future__ import annotations

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sepelib.metrics._readings import WindowReading
    from sepelib.metrics._series import Family

__all__ = ["histogram", "metric"]


def metric(family: Family, *, buckets: bool) -> dict[str, Any]:
    rows = [_row(family, series, buckets) for series in family.series()]
    return {
        "name": family.name,
        "kind": family.kind,
        "help": family.help,
        "unit": family.unit,
        "labels": list(family.label_names),
        "series": [row for row in rows if row is not None],
    }


def _row(family: Any, series: Any, buckets: bool) -> dict[str, Any] | None:
    labels = {"labels": list(series.label_values)}
    if family.kind == "histogram" and buckets:
        reading, everything, recent = series.contents()
        shift = family.scale.shift
        of_all = reading.count, reading.sum, reading.window
        return labels | histogram(*of_all, shift, everything, recent)
    reading = series.read()
    if family.kind == "histogram":
        return labels | _totals(reading.count, reading.sum, reading.window)
    if family.kind == "meter":
        return labels | {"count": reading.count, "rates": reading.rates}
    return None if reading is None else labels | {"value": reading}


def histogram(
    count: int,
    total: float,
    reading: WindowReading,
    shift: int,
    everything: Mapping[int, int],
    recent: Mapping[int, int],
) -> dict[str, Any]:
    return _totals(count, total, reading) | {
        "buckets": {
            "shift": shift,
            "cumulative": sorted(map(list, everything.items())),
            "window": sorted(map(list, recent.items())),
        },
    }


def _totals(count: int, total: float, reading: WindowReading) -> dict[str, Any]:
    return {"count": count, "sum": total, "window": _window(reading)}


def _window(reading: WindowReading) -> dict[str, Any]:
    return {
        "seconds": reading.seconds,
        "count": reading.count,
        "mean": reading.mean,
        "min": reading.min,
        "max": reading.max,
        "stddev": reading.stddev,
        "quantiles": {repr(q): value for q, value in reading.quantiles.items()},
    }
