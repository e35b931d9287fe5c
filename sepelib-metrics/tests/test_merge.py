import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.metrics import Registry, merge


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def series(snapshot: dict[str, Any], name: str) -> dict[tuple[str, ...], dict[str, Any]]:
    [found] = [m for m in snapshot["metrics"] if m["name"] == name]
    return {tuple(row["labels"]): row for row in found["series"]}


def test_counters_and_gauges_are_summed_label_by_label() -> None:
    a, b = Registry(), Registry()
    for registry, n in (a, 1), (b, 10):
        registry.counter("jobs", "", ("kind",)).labels("new").inc(n)
        registry.gauge("length").set(n)
    a.counter("jobs", "", ("kind",)).labels("old").inc(100)
    b.counter("only_here").inc(7)

    merged = merge([a.snapshot(), b.snapshot()])

    assert [m["name"] for m in merged["metrics"]] == ["jobs", "length", "only_here"]
    assert {k: row["value"] for k, row in series(merged, "jobs").items()} == {
        ("new",): 11,
        ("old",): 100,
    }
    assert series(merged, "length")[()]["value"] == 11
    assert series(merged, "only_here")[()]["value"] == 7


def test_counts_and_rates_of_meters_are_summed() -> None:
    clock = Clock()
    a, b = Registry(clock=clock), Registry(clock=clock)
    a.meter("requests")
    b.meter("requests")
    clock.now += 10
    a.meter("requests").mark(10)
    b.meter("requests").mark(20)
    row = series(merge([a.snapshot(), b.snapshot()]), "requests")[()]
    assert row == {"labels": [], "count": 30, "rates": {"1m": 3.0, "5m": 3.0, "15m": 3.0}}


@given(
    parts=st.lists(
        st.lists(st.floats(-1e9, 1e9) | st.just(0.0), max_size=300), min_size=1, max_size=4
    ),
    pause=st.sampled_from([0.0, 7.0, 100.0]),
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_merging_histograms_is_observing_all_in_one(parts: list[list[float]], pause: float) -> None:
    clock = Clock()
    one = Registry(clock=clock)
    several = [Registry(clock=clock) for _ in parts]
    for registry in (one, *several):
        registry.histogram("seconds")
    for part, registry in zip(parts, several, strict=True):
        for value in part:
            registry.histogram("seconds").observe(value)
            one.histogram("seconds").observe(value)
        clock.now += pause

    merged = merge(json.loads(json.dumps([r.snapshot() for r in several])))

    found, expected = series(merged, "seconds")[()], series(one.snapshot(), "seconds")[()]
    assert found["buckets"] == expected["buckets"]
    assert found["count"] == expected["count"]
    assert found["sum"] == pytest.approx(expected["sum"], rel=1e-9, abs=1e-6)
    window, of_one = found["window"], expected["window"]
    for exact in "seconds", "count", "min", "max", "quantiles":
        assert window[exact] == of_one[exact]
    if window["count"]:
        assert window["mean"] == pytest.approx(of_one["mean"], rel=1e-9, abs=1e-6)
        assert window["stddev"] == pytest.approx(of_one["stddev"], rel=1e-6, abs=1e-6)


def test_quantiles_of_the_merged_are_within_the_error_of_exact_ones() -> None:
    rng, values = random.Random(5), []
    registries = [Registry() for _ in range(4)]
    for scale, registry in enumerate(registries):
        for _ in range(3000):
            values.append(rng.lognormvariate(scale, 1))
            registry.histogram("seconds").observe(values[-1])
    window = series(merge([r.snapshot() for r in registries]), "seconds")[()]["window"]
    values.sort()
    assert len(window["quantiles"]) == 6
    for q, found in window["quantiles"].items():
        exact = values[math.ceil(float(q) * len(values)) - 1]
        assert found == pytest.approx(exact, rel=0.01)


def test_the_coarser_error_holds() -> None:
    registries = [Registry(), Registry()]
    one = Registry()
    for registry, error in zip(registries, (0.01, 0.1), strict=True):
        for n in range(1, 1001):
            registry.histogram("seconds", error=error).observe(n)
            one.histogram("seconds", error=0.1).observe(n)
    row = series(merge([r.snapshot() for r in registries]), "seconds")[()]
    expected = series(one.snapshot(), "seconds")[()]
    assert row["buckets"] == expected["buckets"]
    assert row["window"]["quantiles"] == expected["window"]["quantiles"]


def test_what_is_merged_can_be_merged_again() -> None:
    snapshots = []
    for n in range(3):
        registry = Registry()
        registry.counter("jobs").inc(n)
        registry.histogram("seconds").observe(n)
        snapshots.append(registry.snapshot())
    in_steps = merge([merge(snapshots[:2]), snapshots[2]])
    assert series(in_steps, "jobs") == series(merge(snapshots), "jobs")
    row, at_once = series(in_steps, "seconds")[()], series(merge(snapshots), "seconds")[()]
    assert row["buckets"] == at_once["buckets"]
    assert row["window"]["stddev"] == pytest.approx(at_once["window"]["stddev"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda r: r.gauge("jobs"), "a counter without labels in one snapshot and a gauge"),
        (lambda r: r.counter("jobs", "", ("kind",)), r"with the labels \(kind\) in another"),
    ],
)
def test_one_name_for_two_kinds_is_refused(make: Any, words: str) -> None:
    a, b = Registry(), Registry()
    a.counter("jobs")
    make(b)
    with pytest.raises(ValueError, match=f"'jobs' is .*{words}"):
        merge([a.snapshot(), b.snapshot()])


def test_another_unit_is_refused() -> None:
    a, b = Registry(), Registry()
    a.histogram("sizes", unit="bytes")
    b.histogram("sizes")
    with pytest.raises(ValueError, match=r"in bytes in one snapshot and .* in seconds in another"):
        merge([a.snapshot(), b.snapshot()])


def test_of_the_labels_of_registries_those_stay_that_are_the_same_in_all() -> None:
    a = Registry(labels={"service": "x", "host": "one"})
    b = Registry(labels={"service": "x", "host": "two"})
    assert merge([a.snapshot(), b.snapshot()])["labels"] == {"service": "x"}
    assert merge([a.snapshot()])["labels"] == {"service": "x", "host": "one"}


def test_the_time_is_the_latest_and_nothing_is_an_empty_snapshot() -> None:
    a, b = Registry().snapshot(), Registry().snapshot()
    assert merge([b, a])["time"] == b["time"]
    assert merge([]) == {"time": 0.0, "labels": {}, "metrics": []}


def test_a_series_that_one_process_could_not_read_is_the_sum_of_the_others() -> None:
    a, b = Registry(), Registry()
    a.gauge("length").bind(lambda: 1 / 0)
    b.gauge("length").set(3)
    assert series(merge([a.snapshot(), b.snapshot()]), "length")[()]["value"] == 3
