"""The text format of Prometheus, read back by prometheus_client's parser."""

import math
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sepelib.metrics import Registry
from sepelib.metrics.render import prometheus

Key = tuple[str, tuple[tuple[str, str], ...]]


def text_of(registry: Registry) -> str:
    return prometheus.render(registry).decode()


def samples_of(registry: Registry) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for family in text_string_to_metric_families(text_of(registry)):
        for sample in family.samples:
            assert isinstance(sample, Sample)
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def test_a_document_in_full() -> None:
    registry = Registry(prefix="app_", labels={"service": "web"})
    requests = registry.counter("requests", "Answers.\nAll of them: C:\\", labels=("method",))
    requests.labels("GET").inc(3)
    requests.labels("PUT").inc(0.5)
    registry.gauge("queue_size").set(-2.0)
    seconds = registry.histogram("seconds", 'Of "all".', buckets=(0.1, 1, 2.5))
    for value in (0.05, 0.1, 0.5, 3.0):
        seconds.observe(value)

    body, content_type = registry.dump("prometheus")

    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert body.decode() == (
        "# TYPE app_queue_size gauge\n"
        'app_queue_size{service="web"} -2\n'
        "# HELP app_requests_total Answers.\\nAll of them: C:\\\\\n"
        "# TYPE app_requests_total counter\n"
        'app_requests_total{service="web",method="GET"} 3\n'
        'app_requests_total{service="web",method="PUT"} 0.5\n'
        '# HELP app_seconds Of "all".\n'
        "# TYPE app_seconds histogram\n"
        'app_seconds_bucket{service="web",le="0.1"} 2\n'
        'app_seconds_bucket{service="web",le="1.0"} 3\n'
        'app_seconds_bucket{service="web",le="2.5"} 3\n'
        'app_seconds_bucket{service="web",le="+Inf"} 4\n'
        'app_seconds_sum{service="web"} 3.65\n'
        'app_seconds_count{service="web"} 4\n'
    )


def test_an_empty_registry_is_an_empty_document() -> None:
    assert text_of(Registry()) == ""


def test_a_metric_without_series_is_not_written() -> None:
    registry = Registry()
    registry.counter("jobs", "Done.", ("kind",))
    registry.histogram("job_seconds", "Done.", ("kind",))
    registry.meter("job_rate", "Done.", ("kind",))
    assert text_of(registry) == ""


def test_a_meter_is_a_counter_and_its_rates() -> None:
    now = 1000.0
    registry = Registry(clock=lambda: now)
    meter = registry.meter("jobs", "Done.", ("kind",)).labels("a")
    meter.mark(120)
    now += 60

    assert samples_of(registry) == {
        ("jobs_total", (("kind", "a"),)): 120,
        ("jobs_rate", (("kind", "a"), ("window", "1m"))): 2,
        ("jobs_rate", (("kind", "a"), ("window", "5m"))): 2,
        ("jobs_rate", (("kind", "a"), ("window", "15m"))): 2,
    }
    assert "# TYPE jobs_rate gauge\n" in text_of(registry)


def test_a_meter_may_have_a_label_window_of_its_own() -> None:
    registry = Registry(labels={"window": "w"})
    registry.meter("jobs", "", ("window_",)).labels("x").mark()
    found = {labels for name, labels in samples_of(registry) if name == "jobs_rate"}
    assert (("window", "w"), ("window_", "x"), ("window__", "5m")) in found


def test_values_are_written_as_short_as_they_are_exact() -> None:
    registry = Registry()
    for number, value in enumerate(
        (0, 1, 2.0, 2**53, 2.0**53, 0.1, 1e-9, 1e22, -0.25, -3.0, 10**20, 123456789.125)
    ):
        registry.gauge(f"g{number:02}").set(value)

    written = [line.split()[1] for line in text_of(registry).splitlines() if line[0] != "#"]

    assert written == [
        *("0", "1", "2", "9007199254740992", "9007199254740992.0", "0.1", "1e-09", "1e+22"),
        *("-0.25", "-3", "100000000000000000000", "123456789.125"),
    ]


def test_a_sum_beyond_all_floats_is_written_as_infinity() -> None:
    registry = Registry()
    registry.counter("big").inc(1e308)
    registry.counter("big").inc(1e308)
    assert samples_of(registry) == {("big_total", ()): math.inf}


def test_a_gauge_that_cannot_be_asked_or_is_no_number_is_left_out() -> None:
    registry = Registry()
    registry.gauge("broken").bind(lambda: 1 / 0)
    registry.gauge("nothing").set(math.nan)
    registry.gauge("too_much").set(math.inf)
    registry.gauge("whole").set(1)

    samples_of(registry)  # counts the faults, which the next one shows
    found = samples_of(registry)

    assert [name for name, _ in found if "faults" not in name] == ["whole"]
    assert {dict(labels)["subject"] for name, labels in found if "faults" in name} == {
        *("broken", "nothing", "too_much"),
    }


def test_buckets_are_cumulative_since_the_start_and_end_in_the_count() -> None:
    now = 0.0
    registry = Registry(clock=lambda: now)
    histogram = registry.histogram("h", window=10, buckets=(-1, 0, 5), unit="")
    for value in (-2.0, -1.0, 0.0, 0.0, 4.0, 5.0, 6.0):
        histogram.observe(value)
    now = 1000.0

    found = samples_of(registry)

    buckets = [found["h_bucket", (("le", le),)] for le in ("-1.0", "0.0", "5.0", "+Inf")]
    assert buckets == [2, 4, 6, 7]
    assert found["h_count", ()] == 7 and found["h_sum", ()] == 12


def test_series_that_were_dropped_or_unregistered_vanish() -> None:
    now = 0.0
    registry = Registry(clock=lambda: now)
    registry.counter("jobs", "", ("kind",), ttl=60).labels("old").inc()
    registry.gauge("other").set(1)
    assert len(samples_of(registry)) == 2
    now += 30
    registry.counter("jobs", "", ("kind",), ttl=60).labels("new").inc()
    samples_of(registry)
    now += 45
    assert sorted(samples_of(registry)) == [("jobs_total", (("kind", "new"),)), ("other", ())]
    registry.unregister("other")
    registry.unregister("jobs")
    assert text_of(registry) == ""


def test_a_metric_made_again_with_other_labels_is_written_with_them() -> None:
    registry = Registry()
    registry.counter("jobs", "", ("kind",)).labels("a").inc()
    text_of(registry)
    registry.unregister("jobs")
    registry.counter("jobs", "", ("sort",)).labels("a").inc()
    assert samples_of(registry) == {("jobs_total", (("sort", "a"),)): 1}


# Everything that text may hold, and more often what the format gives a meaning.
hostile = st.text(
    st.characters() | st.sampled_from('"\\\n\r{}=,# %s\x85\u2028\u00e9\U0001f600\udc80'),
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.dictionaries(st.tuples(hostile, hostile), st.integers(0, 2**40), max_size=4),
    help=hostile,
    const=hostile,
)
def test_hostile_labels_and_helps_come_back_as_they_were(
    rows: dict[tuple[str, str], int], help: str, const: str
) -> None:
    registry = Registry(labels={"const": const})
    counter = registry.counter("c", help, ("a", "b"))
    histogram = registry.histogram("h", help, ("a", "b"), buckets=(1.0,))
    for labels, value in rows.items():
        counter.labels(*labels).inc(value)
        histogram.labels(*labels).observe(1.0)

    text = text_of(registry)
    found = samples_of(registry)

    # prometheus_client lets other escapes pass; Prometheus itself does not.
    assert re.fullmatch(r'(?:[^\\]|\\[\\n"])*', text)
    expected = {(encodable(a), encodable(b)) for a, b in rows}
    assert {name for name, _ in found} <= {"c_total", "h_bucket", "h_sum", "h_count"}
    for (a, b), value in rows.items():
        labels = {"a": encodable(a), "b": encodable(b), "const": encodable(const)}
        assert found["c_total", tuple(sorted(labels.items()))] == value
        assert found["h_bucket", tuple(sorted({**labels, "le": "+Inf"}.items()))] == 1
    assert len(found) == 5 * len(expected)
    if rows:
        families = list(text_string_to_metric_families(text_of(registry)))
        assert {family.documentation.strip() for family in families} == {encodable(help).strip()}


def encodable(text: str) -> str:
    """Lone surrogates have no place in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def test_the_formats_are_imported_at_their_first_dump() -> None:
    code = (
        "import sys; from sepelib import metrics; r = metrics.Registry()\n"
        "assert not any('metrics.render' in name for name in sys.modules), 'at import'\n"
        "r.dump('prometheus')\n"
        "assert 'json' not in sys.modules, 'for prometheus'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'xml' is no format .* json, openmetrics, prometheus"):
        Registry().dump("xml")


@pytest.mark.parametrize("fmt", ["prometheus", "openmetrics", "json", "yaml", "yasm"])
def test_a_dump_measures_itself_for_the_next_one(fmt: str) -> None:
    registry = Registry()
    registry.dump(fmt)
    registry.dump(fmt)
    labels = (("format", fmt),)
    assert samples_of(registry)["metrics_dump_seconds_count", labels] == 2


def test_a_dump_does_not_fail_when_its_own_metric_has_its_name_taken() -> None:
    registry = Registry()
    registry.counter("metrics_dump_seconds").inc()
    assert registry.dump("prometheus") == registry.dump("prometheus")
