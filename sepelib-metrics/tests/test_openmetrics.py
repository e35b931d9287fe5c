"""The text format of OpenMetrics, read back by prometheus_client's strict parser."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sepelib.metrics import Registry
from sepelib.metrics.render import openmetrics


def text_of(registry: Registry) -> str:
    return openmetrics.render(registry).decode()


def families_of(registry: Registry) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(text_of(registry)))
    families = {family.name: family for family in found}
    assert len(families) == len(found)
    return families


def values_of(family: Metric) -> dict[tuple[str, ...], float]:
    return {(s.name, *sorted(s.labels.values())): s.value for s in family.samples}


def test_a_document_in_full() -> None:
    registry = Registry(labels={"service": "web"})
    registry.counter("requests", 'Of "all".\nC:\\').inc(3)
    seconds = registry.histogram("request_seconds", "Until the answer.", buckets=(1, 2.5))
    seconds.observe(1.0)
    registry.histogram("size_bytes", unit="seconds", buckets=(1,)).observe(2)

    body, content_type = registry.dump("openmetrics")

    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.decode() == (
        "# HELP request_seconds Until the answer.\n"
        "# TYPE request_seconds histogram\n"
        "# UNIT request_seconds seconds\n"
        'request_seconds_bucket{service="web",le="1.0"} 1\n'
        'request_seconds_bucket{service="web",le="2.5"} 1\n'
        'request_seconds_bucket{service="web",le="+Inf"} 1\n'
        'request_seconds_sum{service="web"} 1\n'
        'request_seconds_count{service="web"} 1\n'
        '# HELP requests Of \\"all\\".\\nC:\\\\\n'
        "# TYPE requests counter\n"
        'requests_total{service="web"} 3\n'
        "# TYPE size_bytes histogram\n"
        'size_bytes_bucket{service="web",le="1.0"} 0\n'
        'size_bytes_bucket{service="web",le="+Inf"} 1\n'
        'size_bytes_sum{service="web"} 2\n'
        'size_bytes_count{service="web"} 1\n'
        "# EOF\n"
    )


def test_an_empty_registry_is_an_end() -> None:
    assert text_of(Registry()) == "# EOF\n"
    assert families_of(Registry()) == {}


def test_all_kinds_are_read_back() -> None:
    now = 0.0
    registry = Registry(clock=lambda: now)
    registry.counter("c", "C.", ("a",)).labels("x").inc(2.5)
    registry.gauge("g", "G.").set(-1)
    registry.meter("m", "M.").mark(30)
    registry.histogram("h_bytes", "H.", unit="bytes", buckets=(64, 4096)).observe(100)
    now = 60.0

    families = families_of(registry)

    assert {name: f.type for name, f in families.items()} == {
        **{"c": "counter", "g": "gauge", "h_bytes": "histogram"},
        **{"m": "counter", "m_rate": "gauge"},
    }
    assert [f.documentation for f in families.values()] == ["C.", "G.", "H.", "M.", "M."]
    assert families["h_bytes"].unit == "bytes"
    assert values_of(families["c"]) == {("c_total", "x"): 2.5}
    assert values_of(families["g"]) == {("g",): -1}
    assert values_of(families["m"]) == {("m_total",): 30}
    assert values_of(families["m_rate"])["m_rate", "1m"] == 0.5
    assert values_of(families["h_bytes"]) == {
        ("h_bytes_bucket", "64.0"): 0,
        ("h_bytes_bucket", "4096.0"): 1,
        ("h_bytes_bucket", "+Inf"): 1,
        ("h_bytes_sum",): 100,
        ("h_bytes_count",): 1,
    }


@pytest.mark.parametrize("buckets", [(-1, 0, 1), (0, 1), (1, 2)])
def test_a_histogram_of_negative_values_has_no_sum_which_would_not_grow(
    buckets: tuple[float, ...],
) -> None:
    registry = Registry()
    registry.histogram("change", unit="", buckets=buckets).observe(-5)

    names = {sample.name for sample in families_of(registry)["change"].samples}

    assert names == {"change_bucket"}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20),
    st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=20),
)
def test_the_buckets_of_any_values_and_edges_are_those_of_a_histogram(
    values: list[float], edges: set[float]
) -> None:
    registry = Registry()
    histogram = registry.histogram("h", buckets=sorted(edges))
    for value in values:
        histogram.observe(value)

    samples = families_of(registry)["h"].samples  # the parser looks at their order

    assert [s.value for s in samples if s.labels.get("le") == "+Inf"] == [len(values)]


hostile = st.text(
    st.characters() | st.sampled_from('"\\\n\r{}=,# %s\x85\u2028\u00e9\U0001f600\udc80'),
    max_size=12,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(labels=st.sets(st.tuples(hostile, hostile), max_size=4), help=hostile)
def test_hostile_labels_and_helps_come_back_as_they_were(
    labels: set[tuple[str, str]], help: str
) -> None:
    registry = Registry()
    counter = registry.counter("c", help, ("a", "b"))
    histogram = registry.histogram("h", help, ("a", "b"), buckets=(1.0,))
    for values in labels:
        counter.labels(*values).inc()
        histogram.labels(*values).observe(0.5)

    families = families_of(registry)

    expected = {
        tuple(text.encode("utf-8", "backslashreplace").decode() for text in v) for v in labels
    }
    for name, family in families.items():
        found = {(s.labels["a"], s.labels["b"]) for s in family.samples}
        assert found == expected, name
        # The parser takes leading spaces for a part of the separator.
        assert family.documentation == help.encode("utf-8", "backslashreplace").decode().lstrip(" ")
    assert set(families) == ({"c", "h"} if labels else set())
