"""JSON: strict, small, and the snapshot."""

import json
from typing import Any, NoReturn

from sepelib.metrics import Registry


def dumped(registry: Registry) -> dict[str, Any]:
    body, content_type = registry.dump("json")
    assert content_type == "application/json"
    document: dict[str, Any] = json.loads(body.decode("ascii"), parse_constant=refuse)
    return document


def refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def filled() -> Registry:
    registry = Registry(prefix="app_", labels={"service": "web"}, clock=lambda: 100.0)
    registry.counter("requests", "Answers.", ("method",)).labels("GET \ud800\n").inc(3)
    registry.gauge("queue_size").set(0.5)
    registry.meter("jobs").mark(2)
    registry.histogram("seconds").observe(0.5)
    registry.histogram("idle_seconds")
    return registry


def test_it_is_the_snapshot_without_the_buckets_of_merges() -> None:
    registry = filled()
    snapshot = registry.snapshot()
    document = dumped(registry)

    assert abs(document.pop("time") - snapshot.pop("time")) < 60
    for metric in snapshot["metrics"]:
        for series in metric["series"]:
            series.pop("buckets", None)
    assert document == snapshot


def test_metrics_are_sorted_and_an_empty_window_has_nothing() -> None:
    document = dumped(filled())

    names = [metric["name"] for metric in document["metrics"]]
    assert names == sorted(names)
    idle = next(m for m in document["metrics"] if m["name"] == "app_idle_seconds")
    (series,) = idle["series"]
    assert series["count"] == 0 and series["window"]["mean"] is None
    assert series["window"]["quantiles"] == {}


def test_a_value_that_json_cannot_say_is_null() -> None:
    registry = Registry()
    registry.counter("big").inc(1e308)
    registry.counter("big").inc(1e308)
    registry.gauge("small").set(-1.5)

    big, small = dumped(registry)["metrics"]

    assert big["series"] == [{"labels": [], "value": None}]
    assert small["series"] == [{"labels": [], "value": -1.5}]


def test_an_empty_registry_has_no_metrics() -> None:
    document = dumped(Registry())
    assert document["metrics"] == [] and document["labels"] == {}


def test_histograms_stay_small_however_many_buckets_they_have() -> None:
    registry = Registry()
    histogram = registry.histogram("seconds")
    for number in range(1, 2000):
        histogram.observe(number / 7)
    assert len(registry.dump("json")[0]) < 600


def test_series_that_were_unregistered_vanish() -> None:
    registry = filled()
    registry.unregister("requests")
    assert "app_requests" not in [metric["name"] for metric in dumped(registry)["metrics"]]
