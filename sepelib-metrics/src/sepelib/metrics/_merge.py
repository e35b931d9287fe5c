"""Several snapshots, of processes or replicas, as one."""

from __future__ import annotations

from sepelib.metrics._buckets import SCALES, add
from sepelib.metrics._moments import NOTHING, Moments, finite, together
from sepelib.metrics._names import described
from sepelib.metrics._readings import WindowReading
from sepelib.metrics._snapshot import histogram

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = ["merge"]


def merge(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """See `sepelib.metrics.merge()`."""
    snapshots = list(snapshots)
    metrics: dict[str, list[Mapping[str, Any]]] = {}
    for snapshot in snapshots:
        for metric in snapshot["metrics"]:
            metrics.setdefault(metric["name"], []).append(metric)
    return {
        "time": max((snapshot["time"] for snapshot in snapshots), default=0.0),
        "labels": _shared_labels([snapshot["labels"] for snapshot in snapshots]),
        "metrics": [_metric(found) for _, found in sorted(metrics.items())],
    }


def _shared_labels(labels: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first = labels[0] if labels else {}
    return {
        name: value for name, value in first.items() if all(o.get(name) == value for o in labels)
    }


def _metric(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = metrics[0]
    for other in metrics[1:]:
        if (meant := _described(other)) != _described(first):
            raise ValueError(
                f"{first['name']!r} is {_described(first)} in one snapshot and {meant} in another"
            )
    rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for metric in metrics:
        for row in metric["series"]:
            rows.setdefault(tuple(row["labels"]), []).append(row)
    merged = _MERGED[first["kind"]]
    return {
        **first,
        "series": [{"labels": list(labels), **merged(same)} for labels, same in rows.items()],
    }


def _described(metric: Mapping[str, Any]) -> str:
    return described(metric["kind"], tuple(metric["labels"]), metric["unit"])


def _value(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"value": sum(row["value"] for row in rows)}


def _meter(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "count": sum(row["count"] for row in rows),
        "rates": {name: sum(row["rates"][name] for row in rows) for name in rows[0]["rates"]},
    }


def _histogram(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shift = max(row["buckets"]["shift"] for row in rows)
    everything: dict[int, int] = {}
    recent: dict[int, int] = {}
    moments = NOTHING
    quantiles: set[float] = set()
    for row in rows:
        coarser = shift - row["buckets"]["shift"]
        add(everything, row["buckets"]["cumulative"], coarser)
        add(recent, row["buckets"]["window"], coarser)
        moments = together(moments, _moments(row["window"]))
        quantiles.update(map(float, row["window"]["quantiles"]))
    seconds = max(row["window"]["seconds"] for row in rows)
    reading = WindowReading.of(moments, recent, SCALES[shift], seconds, sorted(quantiles))
    return histogram(
        sum(row["count"] for row in rows),
        finite(sum(row["sum"] for row in rows)),
        reading,
        shift,
        everything,
        recent,
    )


def _moments(window: Mapping[str, Any]) -> Moments:
    n = window["count"]
    if not n:
        return NOTHING
    return n, window["mean"] * n, window["min"], window["max"], n * window["stddev"] ** 2


_MERGED = {"counter": _value, "gauge": _value, "meter": _meter, "histogram": _histogram}
