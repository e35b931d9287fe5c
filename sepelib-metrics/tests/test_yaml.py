"""YAML for people, read back by PyYAML."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.metrics import Registry
from sepelib.metrics.render import _yaml

LOADERS = [yaml.SafeLoader, yaml.CSafeLoader]


def text_of(registry: Registry) -> str:
    return _yaml.render(registry).decode()


def loaded(registry: Registry) -> dict[str, Any]:
    text = text_of(registry)
    first, second = (yaml.load(text, Loader=loader) for loader in LOADERS)
    assert repr(first) == repr(second)
    assert isinstance(first, dict)
    return first


def test_a_document_in_full() -> None:
    now = 0.0
    registry = Registry(labels={"service": "web"}, clock=lambda: now)
    requests = registry.counter("requests", "Answers.\nAll: of # them", ("method", "status"))
    requests.labels("GET", "200").inc(10233)
    requests.labels("GET", "2 0").inc(0.5)
    registry.gauge("queue_size").set(7)
    registry.meter("jobs", "Done.").mark(90)
    size = registry.histogram("size_bytes", unit="bytes", quantiles=(0.5, 0.999))
    for value in (0, 1024, 3 * 2**20):
        size.observe(value)
    registry.histogram("idle_seconds", labels=("a",)).labels("x")
    now = 60.0

    body, content_type = registry.dump("yaml")

    assert content_type == "application/yaml; charset=utf-8"
    assert body.decode() == (
        "# service=web\n"
        "idle_seconds:  # histogram\n"
        "  a=x:\n"
        "    since start: {count: 0}\n"
        "    last 60 s: {count: 0}\n"
        "jobs: {count: 90, 1m: 1.5/s, 5m: 1.5/s, 15m: 1.5/s}  # meter: Done.\n"
        "queue_size: 7  # gauge\n"
        "requests:  # counter: Answers. All: of # them\n"
        "  method=GET status=200: 10233\n"
        "  'method=GET status=\"2 0\"': 0.5\n"
        "size_bytes:  # histogram\n"
        "  since start: {count: 3, sum: 3.001 MiB, mean: 1 MiB}\n"
        "  last 60 s: {count: 0}\n"
    )


def test_quantiles_carry_units_and_are_named_as_people_name_them() -> None:
    registry = Registry()
    for unit, value in (("seconds", 0.0123), ("bytes", 1536), ("requests", 12), ("", 5.5)):
        histogram = registry.histogram(f"h_{unit}", unit=unit, quantiles=(0.5, 0.999, 0.9999))
        histogram.observe(value)

    document = loaded(registry)

    window = document["h_seconds"]["last 60 s"]
    assert list(window) == ["count", "mean", "min", "p50", "p99.9", "p99.99", "max", "stddev"]
    assert window["p99.9"] == "12.3 ms" and window["count"] == 1 and window["stddev"] == "0 s"
    assert document["h_bytes"]["last 60 s"]["p50"] == "1.5 KiB"
    assert document["h_requests"]["since start"]["sum"] == "12 requests"
    assert document["h_"]["since start"]["mean"] == 5.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.5e-10, "0.25 ns"),
        (1e-9, "1 ns"),
        (0.00012345678, "123.5 us"),
        (0.5, "500 ms"),
        (1, "1 s"),
        (-0.25, "-250 ms"),
        (1234.56, "1235 s"),
        (9999999.4, "9999999 s"),
    ],
)
def test_durations_are_scaled_and_rounded(seconds: float, text: str) -> None:
    registry = Registry()
    registry.histogram("h", labels=()).observe(seconds)
    assert loaded(registry)["h"]["since start"]["sum"] == text


@pytest.mark.parametrize("value", [0, 1, -1.5, 1e22, 1e-7, 123456789.123, 10**20, 2**53, 2.0**70])
def test_a_number_is_read_back_as_exactly_that_number(value: float) -> None:
    registry = Registry()
    registry.gauge("g").set(value)
    assert loaded(registry) == {"g": value}


@pytest.mark.parametrize("name", ["no", "Yes", "true", "null", "n", "y", "a:", ":a", "a::b", "_"])
def test_a_name_is_read_back_as_a_name(name: str) -> None:
    registry = Registry()
    registry.gauge(name).set(1)
    assert loaded(registry) == {name: 1}


@pytest.mark.parametrize("unit", ["a, b", "{x}", "°C", "%", "'", "a: b", "#", "\n", "\ud800", " "])
def test_a_hostile_unit_breaks_nothing(unit: str) -> None:
    registry = Registry()
    registry.histogram("h", unit=unit).observe(2)
    assert str(loaded(registry)["h"]["since start"]["sum"]).startswith("2")


def test_a_sum_beyond_all_floats_is_infinite() -> None:
    registry = Registry()
    registry.counter("big").inc(1e308)
    registry.counter("big").inc(1e308)
    assert loaded(registry) == {"big": float("inf")}


def test_keys_longer_than_yaml_likes_are_read_back() -> None:
    registry = Registry()
    name = "n" * 2000
    registry.counter(name).inc(1)
    registry.counter("c", "Help.", ("a",)).labels("x" * 2000).inc(2)
    registry.histogram("h", "Help.", ("a",)).labels("y z" * 2000).observe(1)
    registry.histogram("h" * 1500, "Help.", ("a",)).labels("y" * 1500).observe(1)

    document = loaded(registry)

    assert document[name] == 1
    assert document["c"] == {f"a={'x' * 2000}": 2}
    (window,) = document["h"].values()
    assert window["since start"]["count"] == 1
    (window,) = document["h" * 1500].values()
    assert window["since start"]["count"] == 1


def test_an_empty_registry_is_an_empty_mapping() -> None:
    assert loaded(Registry()) == {}
    assert text_of(Registry(labels={"service": "x"})) == "# service=x\n{}\n"


def test_series_that_were_unregistered_and_gauges_that_fail_vanish() -> None:
    registry = Registry()
    registry.gauge("a").set(1)
    registry.gauge("b").bind(lambda: 1 / 0)
    assert list(loaded(registry)) == ["a"]
    registry.unregister("a")
    assert "a" not in loaded(registry)


hostile = st.text(
    st.characters()
    | st.sampled_from("\"'\\\n\r\t{}[]=,:#&*!|>%@` -?~\x00\x85\u2028\ufeff\U0001f600\udc80"),
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.dictionaries(
        st.tuples(hostile, hostile), st.integers(0, 2**40), min_size=1, max_size=4
    ),
    help=hostile,
    const=hostile,
)
def test_hostile_labels_and_helps_come_back_as_they_were(
    rows: dict[tuple[str, str], int], help: str, const: str
) -> None:
    registry = Registry(labels={"const": const})
    counter = registry.counter("c", help, ("a", "b"))
    histogram = registry.histogram("h", help, ("a", "b"))
    expected: dict[tuple[str, str], int] = {}
    for (a, b), value in rows.items():
        counter.labels(a, b).inc(value)
        histogram.labels(a, b).observe(value)
        known = encodable(a), encodable(b)
        expected[known] = expected.get(known, 0) + value

    document = loaded(registry)

    assert {labels_of(key): value for key, value in document["c"].items()} == expected
    assert {labels_of(key) for key in document["h"]} == set(expected)


def labels_of(key: str) -> tuple[str, str]:
    """What a key says, read as the page says: JSON where there are quotes."""
    values = []
    for name in ("a=", "b="):
        assert key.startswith(name)
        key = key.removeprefix(name)
        if key.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(key)
        else:
            end = (key + " ").index(" ")
            value = key[:end]
        values.append(value)
        key = key[end:].removeprefix(" ")
    assert key == ""
    return values[0], values[1]


def encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
