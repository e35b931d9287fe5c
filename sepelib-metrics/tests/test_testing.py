"""The checks that tests of metrics use: what they let pass, and what they say when they do not."""

import json
from typing import Any

import pytest

from sepelib.metrics import Registry
from sepelib.metrics.testing import YasmSignal, assert_metric, parse_yasm


def test_a_yasm_document_is_taken_apart() -> None:
    document = json.dumps(
        [
            ["ctype=prod;prj=web;queue_size_ammx", 7.5],
            ["http_requests_dmmm", 1234],
            ["latency_ms_dhhh", [[0, 10], [5, 3], [10.5, 0]]],
            ["old_max", -1],
            ["old_hgram", []],
        ]
    )

    assert parse_yasm(document.encode()) == parse_yasm(document)
    assert parse_yasm(document) == [
        YasmSignal("queue_size", "ammx", {"ctype": "prod", "prj": "web"}, 7.5),
        YasmSignal("http_requests", "dmmm", {}, 1234),
        YasmSignal("latency_ms", "dhhh", {}, [(0, 10), (5, 3), (10.5, 0)]),
        YasmSignal("old", "max", {}, -1),
        YasmSignal("old", "hgram", {}, []),
    ]


FIFTY_ONE = [[edge, 1] for edge in range(51)]
SIXTEEN_TAGS = "".join(f"t{number:02}=x;" for number in range(16))


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"a_dmmm": 1}, "a document is a list of pairs"),
        (["a_dmmm", 1], r"a signal is a list \[name, value\]"),
        ([["a_dmmm", 1, 2]], r"a signal is a list \[name, value\]"),
        ([[1, 1]], r"a signal is a list \[name, value\]"),
        ([["a_dmmm", 1], ["a_dmmm", 2]], "'a_dmmm' is there twice"),
        ([["a", 1]], "no name of a signal with a suffix"),
        ([["dmmm", 1]], "no name of a signal with a suffix"),
        ([["a_zmmm", 1]], "no name of a signal with a suffix"),
        ([["a b_dmmm", 1]], "no name of a signal with a suffix"),
        ([["é_dmmm", 1]], "no name of a signal with a suffix"),
        ([["a_dmmm\n", 1]], "no name of a signal with a suffix"),
        ([["a_dmmm;x=y", 1]], "no name of a signal with a suffix"),
        ([["x=;a_dmmm", 1]], "a tag is name=value;"),
        ([["=x;a_dmmm", 1]], "a tag is name=value;"),
        ([["x;a_dmmm", 1]], "a tag is name=value;"),
        ([["x=y=z;a_dmmm", 1]], "a tag is name=value;"),
        ([[";a_dmmm", 1]], "a tag is name=value;"),
        ([["b=x;a=x;a_dmmm", 1]], "tags are sorted by name"),
        ([["a=x;a=y;a_dmmm", 1]], "tags are sorted by name"),
        ([[f"{SIXTEEN_TAGS}a_dmmm", 1]], "more than 15 tags"),
        ([["a_dmmm", 1.5]], "a non-negative integer, not 1.5"),
        ([["a_summ", -1]], "a non-negative integer, not -1"),
        ([["a_dmmm", True]], "a non-negative integer, not True"),
        ([["a_ammx", None]], "a number, not None"),
        ([["a_ammx", [[0, 1]]]], "a number, not"),
        ([["a_dhhh", 3]], "a histogram is a list of pairs, not 3"),
        ([["a_dhhh", [1, 2]]], "a histogram is a list of pairs"),
        ([["a_dhhh", [[0, 1.5]]]], r"a bucket is \[edge, weight\]"),
        ([["a_dhhh", [[0, -1]]]], r"a bucket is \[edge, weight\]"),
        ([["a_hgram", [["0", 1]]]], r"a bucket is \[edge, weight\]"),
        ([["a_dhhh", [[5, 1], [0, 1]]]], "the edges do not ascend"),
        ([["a_dhhh", [[5, 1], [5, 1]]]], "the edges do not ascend"),
        ([["a_dhhh", FIFTY_ONE]], "51 edges, more than 50"),
    ],
)
def test_a_yasm_document_that_breaks_a_rule_is_refused(document: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_yasm(json.dumps(document))


@pytest.mark.parametrize("text", ['[["a_ammx", NaN]]', '[["a_ammx", -Infinity]]', "", "\xff"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting value"):
        parse_yasm(text)


@pytest.fixture
def registry() -> Registry:
    made = Registry(prefix="app_")
    requests = made.counter("requests", "", ("method",))
    requests.labels("GET").inc(3)
    requests.labels("PUT").inc(0.5)
    made.gauge("queue").set(-2)
    made.meter("jobs").mark(4)
    made.histogram("seconds").observe(7.5)
    return made


def test_a_metric_has_its_value(registry: Registry) -> None:
    assert_metric(registry, "requests", {"method": "GET"}, value=3)
    assert_metric(registry, "requests", {"method": "PUT"}, value=0.5)
    assert_metric(registry, "queue", value=-2)
    assert_metric(registry, "jobs", value=4)
    assert_metric(registry, "seconds", value=1)


def test_another_value_is_an_error_that_shows_all_series(registry: Registry) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_metric(registry, "requests", {"method": "GET"}, value=4)
    assert str(caught.value) == (
        "requests{method='GET'} is 3, expected 4;"
        " there is: requests{method='GET'} 3; requests{method='PUT'} 0.5"
    )


def test_a_missing_series_is_an_error_even_when_nothing_is_expected(registry: Registry) -> None:
    with pytest.raises(AssertionError, match="is not there, expected 0; there is: requests"):
        assert_metric(registry, "requests", {"method": "HEAD"}, value=0)
    with pytest.raises(AssertionError, match="there is no series of responses"):
        assert_metric(registry, "responses", value=0)


def test_a_metric_grows_in_a_block(registry: Registry) -> None:
    requests = registry.counter("requests", "", ("method",))
    with assert_metric(registry, "requests", {"method": "GET"}, delta=2):
        requests.labels("GET").inc(2)
    with assert_metric(registry, "requests", {"method": "POST"}, delta=1):
        requests.labels("POST").inc()
    with assert_metric(registry, "requests", {"method": "HEAD"}, delta=0):
        requests.labels("GET").inc()
    with assert_metric(registry, "queue", delta=-1):
        registry.gauge("queue").dec()


def test_a_metric_that_grows_otherwise_is_an_error(registry: Registry) -> None:
    requests = registry.counter("requests", "", ("method",))
    with (
        pytest.raises(AssertionError, match=r"requests\{method='GET'\} grew by 2, expected 1"),
        assert_metric(registry, "requests", {"method": "GET"}, delta=1),
    ):
        requests.labels("GET").inc(2)


def test_the_error_of_the_block_is_not_hidden(registry: Registry) -> None:
    with pytest.raises(KeyError), assert_metric(registry, "queue", delta=1):
        raise KeyError


def test_either_a_value_or_a_delta_is_asked_for(registry: Registry) -> None:
    untyped: Any = assert_metric
    with pytest.raises(TypeError, match="either a value or a delta"):
        untyped(registry, "queue")
    with pytest.raises(TypeError, match="either a value or a delta"):
        untyped(registry, "queue", value=1, delta=1)
