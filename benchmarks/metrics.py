"""What it costs a program to measure itself, beside prometheus_client and ddsketch.

Each variant does its thing a number of times per call, so that the call of the variant itself does
not blur what takes 30 ns; observations include their share of the drains. `memory()` prints bytes
per instrument: python -c "from benchmarks.metrics import memory; memory()".
"""

import gc
import random
import tracemalloc
from collections.abc import Callable
from itertools import repeat

import prometheus_client
from ddsketch import DDSketch

from benchmarks.runner import Comparison, Goal
from sepelib.metrics import Registry

TIMES = 1000
_rng = random.Random(1)
VALUES = [_rng.lognormvariate(0, 1) for _ in range(5 * TIMES)]


def comparisons() -> list[Comparison]:
    return [_inc(), _labelled(), _observe(), _with(), _decorated()]


def _inc() -> Comparison:
    ours = Registry().counter("jobs")
    theirs = prometheus_client.Counter("jobs", "Jobs.", registry=None)
    return Comparison(
        f"metrics: counter.inc(), {TIMES} times",
        _repeated(ours.inc),
        {"prometheus_client": _repeated(theirs.inc)},
        goals=[Goal("prometheus_client", 0.2)],
    )


def _labelled() -> Comparison:
    ours = Registry().counter("requests", "", ("method", "status"))
    theirs = prometheus_client.Counter("requests", "R.", ["method", "status"], registry=None)

    def use_ours() -> None:
        for _ in repeat(None, TIMES):
            ours.labels("GET", "200").inc()

    def use_theirs() -> None:
        for _ in repeat(None, TIMES):
            theirs.labels("GET", "200").inc()

    return Comparison(
        f"metrics: counter.labels('GET', '200').inc(), {TIMES} times",
        use_ours,
        {"prometheus_client": use_theirs},
        goals=[Goal("prometheus_client", 0.111)],
    )


def _observe() -> Comparison:
    ours = Registry().histogram("seconds")
    theirs = prometheus_client.Histogram("seconds", "S.", registry=None)
    sketch = DDSketch(0.01)
    return Comparison(
        f"metrics: histogram.observe(), {len(VALUES)} lognormal values",
        _with_values(ours.observe),
        {"prometheus_client": _with_values(theirs.observe), "ddsketch": _with_values(sketch.add)},
        goals=[Goal("prometheus_client", 0.25), Goal("ddsketch", 0.5)],
    )


def _with() -> Comparison:
    ours = Registry().histogram("seconds")
    theirs = prometheus_client.Histogram("seconds", "S.", registry=None)

    def time_ours() -> None:
        for _ in repeat(None, TIMES):
            with ours.time():
                pass

    def time_theirs() -> None:
        for _ in repeat(None, TIMES):
            with theirs.time():
                pass

    return Comparison(
        f"metrics: `with histogram.time():`, {TIMES} times",
        time_ours,
        {"prometheus_client": time_theirs},
        goals=[Goal("prometheus_client", 0.333)],
    )


def _decorated() -> Comparison:
    ours = Registry().histogram("seconds")
    theirs = prometheus_client.Histogram("seconds", "S.", registry=None)
    return Comparison(
        f"metrics: a function under @histogram.time(), {TIMES} times",
        _repeated(ours.time()(_nothing)),
        {"prometheus_client": _repeated(theirs.time()(_nothing))},
        goals=[Goal("prometheus_client", 0.333)],
    )


def _nothing() -> None:
    pass


def _repeated(fn: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in repeat(None, TIMES):
            fn()

    return run


def _with_values(fn: Callable[[float], object]) -> Callable[[], None]:
    def run() -> None:
        for value in VALUES:
            fn(value)

    return run


def memory() -> None:
    """Print bytes per instrument, with its name, of ours and of prometheus_client's."""
    ours, theirs = Registry(max_series=10**6), prometheus_client
    family = ours.counter("family", "", ("name",))
    of_theirs = theirs.Counter("family", "F.", ["name"], registry=None)

    def filled(n: int) -> object:
        histogram = ours.histogram(f"filled_{n}")
        for value in VALUES[:1000]:
            histogram.observe(value)
        return histogram

    for what, make in {
        "counter": lambda n: ours.counter(f"counter_{n}"),
        "counter, prometheus_client": lambda n: theirs.Counter(f"c_{n}", "C.", registry=None),
        "labelled child": lambda n: family.labels(f"{n}"),
        "labelled child, prometheus_client": lambda n: of_theirs.labels(f"{n}"),
        "histogram": lambda n: ours.histogram(f"histogram_{n}"),
        "histogram, prometheus_client": lambda n: theirs.Histogram(f"h_{n}", "H.", registry=None),
        "histogram after 1,000 lognormal values": filled,
    }.items():
        print(f"{what:<40}{_bytes_each(make):8,.0f} B")


def _bytes_each(make: Callable[[int], object], number: int = 500) -> float:
    gc.collect()
    tracemalloc.start()
    kept = [make(n) for n in range(number)]
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(kept)
