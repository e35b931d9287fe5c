"""yasm, taken apart by a decoder that enforces the rules of the format."""

import math
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.metrics import Registry
from sepelib.metrics.render import _yasm
from sepelib.metrics.testing import YasmSignal, parse_yasm


def signals_of(registry: Registry) -> list[YasmSignal]:
    return parse_yasm(_yasm.render(registry))


def values_of(registry: Registry) -> dict[str, object]:
    """By the whole name, as it is written."""
    return {
        "".join(f"{n}={v};" for n, v in s.tags.items()) + f"{s.name}_{s.suffix}": s.value
        for s in signals_of(registry)
    }


def test_a_document_in_full() -> None:
    registry = Registry(prefix="app_", labels={"prj": "web"})
    requests = registry.counter("requests", "Answers.", ("method", "ctype"))
    requests.labels("GET", "prod").inc(3.9)
    requests.labels("PUT", "").inc(2)
    registry.gauge("queue_size").set(-7.5)
    registry.meter("jobs").mark(4)
    seconds = registry.histogram("seconds", buckets=(0.5, 1, 2))
    for value in (0, 0.1, 0.5, 0.75, 2, 100):
        seconds.observe(value)

    body, content_type = registry.dump("yasm")

    assert content_type == "application/json"
    assert body == (
        b'[["ctype=prod;method=GET;prj=web;app_requests_dmmm",3],'
        b'["method=PUT;prj=web;app_requests_dmmm",2],'
        b'["prj=web;app_jobs_dmmm",4],'
        b'["prj=web;app_queue_size_ammx",-7.5],'
        b'["prj=web;app_seconds_count_dmmm",6],'
        b'["prj=web;app_seconds_dhhh",[[0,2],[0.5,2],[1,0],[2,2]]]]'
    )


def test_an_empty_registry_is_an_empty_list() -> None:
    assert _yasm.render(Registry()) == b"[]"


def test_values_below_the_first_edge_are_only_in_the_count() -> None:
    registry = Registry()
    for name, buckets in ("positive", (1, 2)), ("negative", (-1, 1)):
        histogram = registry.histogram(name, buckets=buckets)
        for value in (-5, -1, 0, 1, 2):
            histogram.observe(value)

    values = values_of(registry)

    assert values["positive_dhhh"] == [(0, 1), (1, 1), (2, 1)]
    assert values["negative_dhhh"] == [(-1, 2), (1, 2)]
    assert values["positive_count_dmmm"] == values["negative_count_dmmm"] == 5


def test_of_many_edges_fifty_are_left_with_the_first_and_the_last() -> None:
    registry = Registry()
    histogram = registry.histogram("h", buckets=range(1, 1001))
    for value in range(1001):
        histogram.observe(value)

    (buckets,) = (s.value for s in signals_of(registry) if s.suffix == "dhhh")

    assert isinstance(buckets, list) and len(buckets) == 50
    assert buckets[0][0] == 0 and buckets[-1][0] == 1000
    assert sum(weight for _, weight in buckets) == 1001


@pytest.mark.parametrize(
    ("suffix", "value", "written"),
    [
        ("summ", 2.5, 2),
        ("ammv", 2.5, 2.5),
        ("max", 2.5, 2.5),
        ("dvvv", 2.5, 2),
    ],
)
def test_a_suffix_may_be_chosen(suffix: str, value: float, written: float) -> None:
    registry = Registry()
    registry.counter("c", yasm=suffix).inc(value)
    registry.gauge("g", yasm=suffix).set(value)
    registry.meter("m", yasm=suffix).mark(value)
    assert values_of(registry) == {f"{name}_{suffix}": written for name in "cgm"}


@pytest.mark.parametrize("suffix", ["", "mmm", "dhhh", "hgram", "a_mm", "zmmm", "ammx;"])
def test_a_suffix_that_does_not_fit_is_refused_where_it_is_given(suffix: str) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match=f"'c'.*'{suffix}' (is no suffix of|of) yasm"):
        registry.counter("c", yasm=suffix)
    with pytest.raises(ValueError, match=r"'ammx' of yasm does not fit a histogram"):
        registry.histogram("h", yasm="ammx")
    assert values_of(registry) == {}


def test_a_histogram_may_have_the_suffix_of_another_histogram() -> None:
    registry = Registry()
    registry.histogram("h", buckets=(1,), yasm="hgram").observe(5)
    assert values_of(registry) == {"h_hgram": [(0, 0), (1, 1)], "h_count_dmmm": 1}


def test_what_grows_and_is_negative_and_what_is_no_number_is_left_out() -> None:
    registry = Registry()
    registry.gauge("falling", yasm="dmmm").set(-1)
    registry.gauge("broken").bind(lambda: 1 / 0)
    registry.gauge("nothing").set(math.nan)
    registry.counter("big").inc(1e308)
    registry.counter("big").inc(1e308)
    registry.gauge("whole").set(1)
    assert [s.name for s in signals_of(registry) if "faults" not in s.name] == ["whole"]


def test_more_than_fifteen_labels_leave_the_first_by_name() -> None:
    registry = Registry(labels={"a": "const"})
    names = [f"l{number:02}" for number in range(20)]
    counter = registry.counter("c", "", names)
    counter.labels(*names).inc(1)
    counter.labels(*names[:-1], "other").inc(2)  # becomes the same signal

    (signal,) = signals_of(registry)

    assert list(signal.tags) == ["a", *names[:14]]
    assert signal.value == 3


@pytest.mark.parametrize(
    ("suffix", "together"),
    [("ammx", 9), ("axxx", 4), ("annn", 2), ("avvv", 3), ("attt", 3), ("max", 4), ("summ", 9)],
)
def test_series_that_become_one_signal_are_put_together_as_the_suffix_says(
    suffix: str, together: float
) -> None:
    registry = Registry()
    gauge = registry.gauge("g", "", ("path",), yasm=suffix)
    for path, value in ("/a b", 2), ("/a?b", 4), ("/a=b", 3):
        gauge.labels(path).set(value)
    assert values_of(registry) == {f"path=/a_b;g_{suffix}": together}


def test_histograms_that_become_one_signal_are_added_when_their_edges_agree() -> None:
    registry = Registry()
    labelled = registry.histogram("h", "", ("path",), buckets=(1, 2))
    labelled.labels("a b").observe(0.5)
    labelled.labels("a?b").observe(1.5)
    registry.histogram("x:y", buckets=(1, 2)).observe(0.5)
    registry.histogram("x_y", buckets=(1, 3)).observe(0.5)

    values = values_of(registry)

    assert values["path=a_b;h_dhhh"] == [(0, 1), (1, 1), (2, 0)]
    assert values["path=a_b;h_count_dmmm"] == 2
    assert values["x_y_dhhh"] == [(0, 1), (1, 0), (2, 0)]


def test_series_that_were_unregistered_vanish() -> None:
    registry = Registry()
    registry.counter("a").inc()
    registry.counter("b").inc()
    assert len(values_of(registry)) == 2
    registry.unregister("a")
    assert values_of(registry) == {"b_dmmm": 1}


hostile = st.text(st.characters() | st.sampled_from(";=_/ \n\"'\u00e9\udc80"), max_size=8)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(hostile, hostile, st.floats(0, 1e9)), max_size=5),
    name=st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True),
    const=hostile,
)
def test_whatever_the_labels_are_the_document_keeps_the_rules(
    rows: list[tuple[str, str, float]], name: str, const: str
) -> None:
    registry = Registry(prefix=f"{name}_", labels={"const": const})
    for kind in registry.counter, registry.gauge, registry.meter, registry.histogram:
        kind(f"{kind.__name__}s", "", ("a", "b"))
    for a, b, value in rows:
        registry.counter("counters", "", ("a", "b")).labels(a, b).inc(int(value))
        registry.gauge("gauges", "", ("a", "b")).labels(a, b).set(value)
        registry.meter("meters", "", ("a", "b")).labels(a, b).mark(value)
        registry.histogram("histograms", "", ("a", "b")).labels(a, b).observe(value)

    signals = signals_of(registry)

    assert all(set(signal.tags) <= {"a", "b", "const"} for signal in signals)
    assert sum(s.value for s in signals if s.name.endswith("_counters")) == sum(
        int(value) for _, _, value in rows
    )
    assert sum(s.value for s in signals if s.name.endswith("_count")) == len(rows)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-100, 100), max_size=30),
    edges=st.sets(st.integers(-100, 100), min_size=1, max_size=80),
)
def test_a_histogram_counts_what_lies_from_each_edge_to_the_next(
    values: list[int], edges: set[int]
) -> None:
    registry = Registry()
    histogram = registry.histogram("h", buckets=sorted(edges), error=1 / 128)
    for value in values:
        histogram.observe(value)

    (buckets,) = (s.value for s in signals_of(registry) if s.suffix == "dhhh")

    assert isinstance(buckets, list)
    written = [edge for edge, _ in buckets]
    assert set(written) <= edges | {0} and written[0] == min(*edges, 0)
    expected = [0] * len(written)
    for value in values:
        if value >= written[0]:
            expected[bisect_right(written, value) - 1] += 1
    assert [weight for _, weight in buckets] == expected
