"""`sepelib.metrics.Registry` is a recorder, though neither package knows the other."""

import sys
from collections.abc import Iterator

import pytest

from sepelib.metrics import Registry
from sepelib.util import instrument
from sepelib.util.instrument import AMBIENT, Counter, Gauge, Histogram, Recorder
from sepelib.util.testing import check_recorder


def shown(registry: Registry, name: str, *labels: str) -> float:
    """What the next dump says."""
    [metric] = [m for m in registry.snapshot()["metrics"] if m["name"] == name]
    [row] = [row for row in metric["series"] if row["labels"] == list(labels)]
    value: float = row["count"] if metric["kind"] == "histogram" else row["value"]
    return value


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for ambient instruments, which stay for the life of the process."""
    former = instrument.install(instrument.NULL)
    yield str(request.node.name)
    instrument.install(former)


@pytest.mark.parametrize("prefix", ["", "shop_"])
def test_a_registry_does_all_that_a_recorder_has_to(prefix: str) -> None:
    registry = Registry(prefix)
    check_recorder(registry, lambda name, labels: shown(registry, prefix + name, *labels))


def test_a_registry_and_its_instruments_have_the_shapes() -> None:
    registry = Registry()
    recorder: Recorder = registry
    counter: Counter = registry.counter("a")
    gauge: Gauge = registry.gauge("b")
    histogram: Histogram = registry.histogram("c", unit="bytes")
    assert recorder.counter("a") is counter
    assert recorder.gauge("b") is gauge
    assert recorder.histogram("c", unit="bytes") is histogram


def test_ambient_instruments_report_to_the_registry_that_is_installed(name: str) -> None:
    jobs = AMBIENT.counter(f"{name}_jobs", "Done.", ("kind",)).labels("mail")
    running = AMBIENT.gauge(f"{name}_running")
    seconds = AMBIENT.histogram(f"{name}_seconds")
    jobs.inc()  # nobody listens yet
    running.inc()
    first, second = Registry(), Registry()

    instrument.install(first)
    jobs.inc()
    seconds.observe(0.5)
    running.inc()

    assert shown(first, f"{name}_jobs", "mail") == 1
    assert shown(first, f"{name}_seconds") == 1
    assert shown(first, f"{name}_running") == 2

    assert instrument.install(second) is first
    jobs.inc(5)
    running.dec()
    running.dec()

    assert shown(first, f"{name}_jobs", "mail") == 1
    assert shown(first, f"{name}_running") == 0
    assert shown(second, f"{name}_jobs", "mail") == 5
    assert shown(second, f"{name}_running") == 0


def test_a_conflict_with_an_ambient_instrument_names_the_line_of_its_use(name: str) -> None:
    registry = Registry()
    instrument.install(registry)
    AMBIENT.counter(name).inc()
    line = sys._getframe().f_lineno - 1
    with pytest.raises(ValueError, match=f"{__file__}:{line}") as caught:
        registry.gauge(name)
    assert "instrument.py" not in str(caught.value)
