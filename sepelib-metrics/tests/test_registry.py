import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from sepelib import metrics
from sepelib.metrics import Registry


def here() -> str:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno}"


def names(registry: Registry) -> list[str]:
    return [family.name for family in registry.families()]


@pytest.mark.parametrize("kind", ["counter", "gauge", "meter", "histogram"])
def test_asking_twice_gives_the_same_instrument(kind: str) -> None:
    registry = Registry()
    make = getattr(registry, kind)
    assert make("a") is make("a", "Help comes from the first.")
    assert make("b", "", ("x", "y")) is make("b", "", ["x", "y"])
    assert make("b", "", ("x", "y"), max_series=7, ttl=3.0) is make("b", "", ["x", "y"])
    assert getattr(metrics, kind)("a", registry=registry) is make("a")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda r: r.gauge("jobs", "", ("x",)), r"a gauge with the labels \(x\)"),
        (lambda r: r.counter("jobs", "", ("y",)), r"a counter with the labels \(y\)"),
        (lambda r: r.counter("jobs"), "a counter without labels"),
    ],
)
def test_another_kind_or_other_labels_are_refused_and_both_places_are_named(
    ask: Callable[[Registry], object], words: str
) -> None:
    registry = Registry()
    made = here(), registry.counter("jobs", "", ("x",))
    with pytest.raises(ValueError, match=f"it cannot be {words} too") as caught:
        ask(registry)
    assert str(caught.value).startswith("'jobs' is a counter with the labels (x) and was made at ")
    assert made[0] in str(caught.value)
    assert str(caught.value).count(__file__) == 2


def test_another_unit_is_refused() -> None:
    registry = Registry()
    registry.histogram("sizes", unit="bytes")
    assert registry.histogram("sizes", unit="bytes").read().count == 0
    with pytest.raises(ValueError, match=r"without labels in bytes .* without labels in seconds"):
        registry.histogram("sizes")


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (("histogram", "jobs"), ("counter", "jobs_count"), "jobs_count"),
        (("gauge", "jobs_sum"), ("histogram", "jobs"), "jobs_sum"),
        (("counter", "jobs"), ("gauge", "jobs_total"), "jobs_total"),
        (("meter", "jobs"), ("gauge", "jobs_rate"), "jobs_rate"),
    ],
)
def test_a_name_that_an_output_would_give_twice_is_refused(
    first: tuple[str, str], second: tuple[str, str], shared: str
) -> None:
    registry = Registry()
    getattr(registry, first[0])(first[1])
    with pytest.raises(ValueError, match=f"would share the name '{shared}'"):
        getattr(registry, second[0])(second[1])
    assert names(registry) == [first[1]]


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a.b", "é", "a\n", "a\u00aa"])
def test_a_name_that_prometheus_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a metric"):
        Registry().counter(name)
    with pytest.raises(ValueError, match="no name of a label"):
        Registry().counter("jobs", "", (name,))


@pytest.mark.parametrize("name", ["a", "_", "a:b", ":a", "A1_b"])
def test_a_name_that_prometheus_takes_is_taken(name: str) -> None:
    registry = Registry()
    registry.counter(name)
    assert names(registry) == [name]


def test_a_counter_goes_without_total() -> None:
    with pytest.raises(ValueError, match=r"goes without '_total', outputs that want it append it"):
        Registry().counter("jobs_total")
    with pytest.raises(ValueError, match="goes without '_total'"):
        Registry().meter("jobs_total")


@pytest.mark.parametrize("label", ["le", "quantile", "__name__", "a:b"])
def test_labels_that_outputs_need_for_themselves_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match=f"the label '{label}'|no name of a label"):
        Registry().counter("jobs", "", (label,))
    with pytest.raises(ValueError, match=f"the label '{label}'|no name of a label"):
        Registry(labels={label: "x"})


def test_labels_are_a_sequence_of_different_names() -> None:
    registry = Registry(labels={"service": "x"})
    with pytest.raises(TypeError, match="not a str"):
        registry.counter("jobs", "", "kind")
    with pytest.raises(TypeError, match="is a str"):
        registry.counter("jobs", "", (1,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="named twice"):
        registry.counter("jobs", "", ("kind", "kind"))
    with pytest.raises(ValueError, match="have the label 'service' already"):
        registry.counter("jobs", "", ("kind", "service"))
    with pytest.raises(TypeError, match="values are str"):
        Registry(labels={"shard": 1})  # type: ignore[dict-item]
    assert names(registry) == []


def test_the_prefix_is_part_of_the_name() -> None:
    registry = Registry("shop_")
    counter = registry.counter("jobs", "", ("kind",))
    assert names(registry) == ["shop_jobs"]
    assert registry.counter("jobs", "", ("kind",)) is counter
    registry.unregister("jobs")
    assert names(registry) == []


def test_families_are_sorted_and_say_what_was_declared() -> None:
    registry = Registry(labels={"service": "x"})
    registry.histogram("c_seconds", "How long.", ("a",), yasm="ahhh")
    registry.counter("b", "How many.", ("x", "y"))
    registry.gauge("a").set(1)
    registry.meter("d")
    found = [(f.name, f.kind, f.help, f.unit, f.label_names, f.yasm) for f in registry.families()]
    assert found == [
        ("a", "gauge", "", None, (), None),
        ("b", "counter", "How many.", None, ("x", "y"), None),
        ("c_seconds", "histogram", "How long.", "seconds", ("a",), "ahhh"),
        ("d", "meter", "", None, (), None),
    ]
    assert registry.const_labels == {"service": "x"}
    [series] = registry.families()[0].series()
    assert (series.label_values, series.render_cache) == ((), None)


def test_an_unregistered_metric_reports_nowhere_and_its_name_is_free() -> None:
    registry = Registry()
    counter = registry.counter("jobs")
    registry.unregister("jobs")
    counter.inc()
    assert names(registry) == []
    registry.gauge("jobs_total")
    with pytest.raises(ValueError, match="no metric 'jobs'"):
        registry.unregister("jobs")
    with pytest.raises(ValueError, match="no metric"):
        registry.unregister("metrics_faults")


def test_a_snapshot_is_plain_and_survives_json() -> None:
    registry = Registry("shop_", {"service": "x"})
    registry.counter("jobs", "How many.", ("kind",)).labels("new").inc(2)
    registry.gauge("length").set(1.5)
    registry.meter("requests").mark(3)
    seconds = registry.histogram("seconds")
    seconds.observe(2.0)
    registry.histogram("empty_bytes", unit="bytes")
    before = time.time()

    snapshot = registry.snapshot()

    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert before <= snapshot.pop("time") <= time.time()
    empty, jobs, length, requests, timed = snapshot.pop("metrics")
    assert snapshot == {"labels": {"service": "x"}}
    assert jobs == {
        "name": "shop_jobs",
        "kind": "counter",
        "help": "How many.",
        "unit": None,
        "labels": ["kind"],
        "series": [{"labels": ["new"], "value": 2}],
    }
    assert length["series"] == [{"labels": [], "value": 1.5}]
    [row] = requests["series"]
    assert row["count"] == 3 and set(row["rates"]) == {"1m", "5m", "15m"}
    [row] = timed["series"]
    assert timed["unit"] == "seconds"
    assert (row["count"], row["sum"]) == (1, 2.0)
    assert row["window"] == {
        "seconds": 60.0,
        "count": 1,
        "mean": 2.0,
        "min": 2.0,
        "max": 2.0,
        "stddev": 0.0,
        "quantiles": dict.fromkeys(["0.5", "0.75", "0.9", "0.95", "0.99", "0.999"], 2.0),
    }
    assert row["buckets"]["cumulative"] == row["buckets"]["window"] != []
    [row] = empty["series"]
    assert row["window"]["quantiles"] == {} and row["window"]["mean"] is None


# Hooks.


def test_hooks_run_once_before_each_dump_until_removed() -> None:
    registry = Registry()
    gauge = registry.gauge("length")
    calls: list[str] = []

    def measure() -> None:
        calls.append("x")
        gauge.set(len(calls))

    remove = registry.collect_hook(measure)
    assert calls == []
    assert registry.snapshot()["metrics"][0]["series"][0]["value"] == 1
    body, content_type = registry.dump("prometheus")
    assert b"length 2" in body and content_type.startswith("text/plain")
    remove()
    remove()
    registry.snapshot()
    assert len(calls) == 2


def test_a_hook_that_fails_is_counted_and_the_dump_goes_on() -> None:
    registry = Registry()
    gauge = registry.gauge("length")

    def fails() -> None:
        raise OSError("no /proc here")

    registry.collect_hook(fails)
    registry.collect_hook(lambda: gauge.set(3))

    shown = {m["name"]: m["series"] for m in registry.snapshot()["metrics"]}

    assert shown["length"] == [{"labels": [], "value": 3}]
    [fault] = shown["metrics_faults"]
    assert fault["labels"][0] == "hook" and fault["labels"][1].endswith("fails")
    assert fault["value"] == 1


def test_a_hook_that_makes_a_dump_itself_does_not_run_for_ever() -> None:
    registry = Registry()
    calls: list[int] = []

    def dumps() -> None:
        calls.append(1)
        registry.snapshot()

    registry.collect_hook(dumps)
    registry.snapshot()
    registry.snapshot()
    assert len(calls) == 2


def test_a_cancellation_that_strikes_in_a_hook_goes_through() -> None:
    class Cancelled(BaseException):
        pass

    def cancelled() -> None:
        raise Cancelled

    registry = Registry()
    registry.collect_hook(cancelled)
    for _ in range(2):  # it is called again the next time
        with pytest.raises(Cancelled):
            registry.snapshot()


def test_a_hook_may_make_metrics() -> None:
    registry = Registry()
    registry.collect_hook(lambda: registry.gauge("late").set(1))
    assert [m["name"] for m in registry.snapshot()["metrics"]] == ["late"]


# Dumps, forks, imports.


@pytest.mark.parametrize("fmt", ["yaml", "json", "prometheus", "openmetrics", "yasm"])
def test_every_format_is_bytes_with_a_content_type(fmt: str) -> None:
    registry = Registry()
    registry.counter("jobs").inc()
    body, content_type = registry.dump(fmt)
    assert b"jobs" in body and "/" in content_type


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"xml.*openmetrics"):
        Registry().dump("xml")


FORKS = """
import os
from sepelib.metrics import Registry

registry = Registry()
counter, histogram = registry.counter("jobs"), registry.histogram("seconds")

def use(times):
    for _ in range(times):
        counter.inc()
        histogram.observe(1.0)

def in_child():
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
    else:
        use(1)
        print(counter.read(), histogram.read().count, flush=True)
        os._exit(0)

use(5)
in_child()
registry.reset_in_children()
registry.reset_in_children()
in_child()
print(counter.read(), histogram.read().count)
"""


def test_a_forked_child_goes_on_unless_it_is_asked_to_begin_anew() -> None:
    # In a process that gevent has not patched, which would wait for the child in its own way.
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["6 6", "1 1", "5 5"]


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import sepelib.metrics;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    theirs = {name for name in loaded if not name.startswith("sepelib")}
    # Counted in modules, not in milliseconds: what makes an import slow is what it drags in.
    assert theirs <= {
        *("__future__", "_bisect", "_collections", "_struct", "bisect", "itertools"),
        *("math", "struct"),
    }
