import gc
import sys
from enum import StrEnum

import pytest

from sepelib.metrics import OVERFLOW, Counter, Registry


class Method(StrEnum):
    GET = "GET"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def overflowed(registry: Registry, metric: str) -> float:
    faults = registry.counter("metrics_faults", "", ("fault", "subject"))
    return faults.labels("overflow", metric).read()


def shown(registry: Registry, metric: str) -> dict[tuple[str, ...], float]:
    [found] = [m for m in registry.snapshot()["metrics"] if m["name"] == metric]
    return {tuple(row["labels"]): row["value"] for row in found["series"]}


def test_the_same_values_give_the_same_series() -> None:
    requests = Registry().counter("requests", "", ("method", "status"))
    child = requests.labels("GET", "200")
    assert requests.labels("GET", "200") is child
    assert requests.labels("200", "GET") is not child
    assert child.labels("POST", "200") is requests.labels("POST", "200")


def test_an_instrument_without_labels_is_its_only_series() -> None:
    counter = Registry().counter("requests")
    assert counter.labels() is counter


@pytest.mark.parametrize("values", [(), ("GET",), ("GET", "200", "x")])
def test_another_number_of_values_is_refused(values: tuple[str, ...]) -> None:
    requests = Registry().counter("requests", "", ("method", "status"))
    with pytest.raises(ValueError, match=rf"\(method, status\): {len(values)} values"):
        requests.labels(*values)


@pytest.mark.parametrize("value", [200, None, b"x", 1.5])
def test_a_value_is_a_str(value: object) -> None:
    requests = Registry().counter("requests", "", ("status",))
    with pytest.raises(TypeError, match="values are str"):
        requests.labels(value)  # type: ignore[arg-type]


def test_a_str_of_another_type_is_the_same_value() -> None:
    requests = Registry().counter("requests", "", ("method",))
    child = requests.labels(Method.GET)
    assert requests.labels("GET") is child
    assert [type(value) for value in child.label_values] == [str]


def test_a_value_that_no_output_could_encode_is_escaped() -> None:
    registry = Registry()
    files = registry.counter("files", "", ("name",))
    name = "caf\udce9"  # as os.fsdecode() gives a byte that is no UTF-8
    files.labels(name).inc()
    files.labels(name).inc()
    assert shown(registry, "files") == {("caf\\udce9",): 2}


def test_a_metric_with_labels_is_used_by_its_series_only() -> None:
    registry = Registry()
    counter = registry.counter("a", "", ("x",))
    gauge = registry.gauge("b", "", ("x",))
    meter = registry.meter("c", "", ("x",))
    histogram = registry.histogram("d", "", ("x",))
    uses = [counter.inc, gauge.set, gauge.inc, gauge.dec, gauge.bind, gauge.track]
    uses += [meter.mark, histogram.observe, histogram.time]  # type: ignore[list-item]
    for use in uses:
        with pytest.raises(ValueError, match=r"use labels\(...\)"):
            use(1)  # type: ignore[operator]


def test_values_beyond_the_limit_share_one_series_and_are_counted() -> None:
    registry = Registry(max_series=3)
    users = registry.counter("users", "", ("name", "city"))
    for n in range(10):
        users.labels(str(n), "Oslo").inc()
    users.labels("0", "Oslo").inc()
    assert shown(registry, "users") == {
        ("0", "Oslo"): 2,
        ("1", "Oslo"): 1,
        ("2", "Oslo"): 1,
        (OVERFLOW, OVERFLOW): 7,
    }
    assert overflowed(registry, "users") == 7


def test_each_metric_may_have_a_limit_of_its_own() -> None:
    registry = Registry(max_series=1)
    users = registry.counter("users", "", ("name",), max_series=2)
    assert users.labels("a") is not users.labels("b")
    assert users.labels("c") is users.labels("d")
    with pytest.raises(ValueError, match="from 1 on"):
        registry.counter("none", "", ("name",), max_series=0)


def test_the_label_values_of_the_overflow_series_are_kept_for_it() -> None:
    """A user who calls himself so can neither read nor become another's series."""
    registry = Registry(max_series=2)
    users = registry.counter("users", "", ("name",))
    overflow = users.labels(OVERFLOW)
    overflow.inc()
    assert users.labels("a") is not users.labels("b")
    assert users.labels("c") is users.labels(OVERFLOW) is overflow
    assert overflowed(registry, "users") == 1  # the lookup of "c"


@pytest.mark.parametrize("kind", ["counter", "gauge", "meter", "histogram"])
def test_every_kind_overflows(kind: str) -> None:
    registry = Registry(max_series=1)
    family = getattr(registry, kind)("things", "", ("name",))
    assert family.labels("a") is not family.labels("b")
    assert family.labels("b") is family.labels("c")


def test_a_million_label_values_take_no_memory() -> None:
    registry = Registry()
    users = registry.counter("users", "", ("name",))

    def look_up(numbers: range) -> int:
        for n in numbers:
            users.labels(f"user {n}").inc()
        gc.collect()
        return sys.getallocatedblocks()

    before = look_up(range(2_000))
    after = look_up(range(2_000, 1_000_000))

    assert after - before < 1_000
    series = shown(registry, "users")
    assert len(series) == 1000 + 1
    assert sum(series.values()) == 1_000_000
    assert series[(OVERFLOW,)] == overflowed(registry, "users") == 999_000


# Idle series.


def users_with_ttl(clock: Clock, **options: int) -> tuple[Registry, Counter]:
    registry = Registry(clock=clock)
    return registry, registry.counter("users", "", ("name",), ttl=60.0, **options)


def test_without_a_ttl_series_stay() -> None:
    clock = Clock()
    registry = Registry(clock=clock)
    registry.counter("users", "", ("name",)).labels("ann").inc()
    for _ in range(5):
        clock.now += 1e6
        assert shown(registry, "users") == {("ann",): 1}


def test_a_series_that_is_not_written_to_is_dropped() -> None:
    clock = Clock()
    registry, users = users_with_ttl(clock)
    users.labels("ann").inc()
    for _ in range(6):
        users.labels("bob").inc()
        assert ("ann",) in shown(registry, "users")
        clock.now += 10
    users.labels("bob").inc()
    assert shown(registry, "users") == {("bob",): 7}

    users.labels("ann").inc(5)

    assert shown(registry, "users")[("ann",)] == 5  # begins anew


def test_a_dropped_series_that_is_held_comes_back_with_what_it_counted() -> None:
    clock = Clock()
    registry, users = users_with_ttl(clock)
    ann = users.labels("ann")
    ann.inc(3)
    shown(registry, "users")
    clock.now += 60
    assert shown(registry, "users") == {}

    ann.inc()
    assert shown(registry, "users") == {("ann",): 4}

    clock.now += 60
    assert shown(registry, "users") == {}
    assert users.labels("ann") is ann
    assert shown(registry, "users") == {("ann",): 4}


def test_a_bound_method_holds_its_series_too() -> None:
    clock = Clock()
    registry, users = users_with_ttl(clock)
    inc = users.labels("ann").inc
    inc()
    for _ in range(3):
        shown(registry, "users")
        clock.now += 60
    inc()
    assert shown(registry, "users") == {("ann",): 2}


def test_a_dropped_series_that_nobody_holds_takes_no_memory() -> None:
    clock = Clock()
    registry, users = users_with_ttl(clock, max_series=10_000)

    def come_and_go(number: int) -> int:
        for n in range(number):
            users.labels(f"user {n}").inc()
        for _ in range(3):
            shown(registry, "users")
            clock.now += 60
        assert shown(registry, "users") == {}
        gc.collect()
        return sys.getallocatedblocks()

    few = come_and_go(100)
    many = come_and_go(5_000)
    assert many - few < 500


def test_idle_series_make_room_before_others_overflow() -> None:
    clock = Clock()
    registry, users = users_with_ttl(clock, max_series=2)
    users.labels("ann").inc()
    users.labels("bob").inc()
    users.labels("cid").inc()
    assert shown(registry, "users")[(OVERFLOW,)] == 1
    clock.now += 60
    users.labels("dan").inc()
    users.labels("eve").inc()
    assert shown(registry, "users") == {("dan",): 1, ("eve",): 1, (OVERFLOW,): 1}


def test_each_kind_knows_when_it_was_written_to() -> None:
    clock = Clock()
    registry = Registry(clock=clock)
    kept = {}
    for kind in "counter", "gauge", "meter", "histogram":
        family = getattr(registry, kind)(f"a_{kind}", "", ("name",), ttl=60.0)
        kept[kind] = family.labels("busy")
        family.labels("idle")
    bound = registry.gauge("a_gauge", "", ("name",), ttl=60.0).labels("bound")
    bound.bind(lambda: 1)
    for _ in range(10):
        kept["counter"].inc()
        kept["gauge"].set(7)  # to the same value: that is a use
        kept["meter"].mark()
        kept["histogram"].observe(1.0)
        registry.families()
        clock.now += 30
    left = {f.name: [s.label_values for s in f.series()] for f in registry.families()}
    assert left == {
        "a_counter": [("busy",)],
        "a_gauge": [("busy",), ("bound",)],
        "a_histogram": [("busy",)],
        "a_meter": [("busy",)],
    }


def test_a_metric_without_labels_is_never_dropped() -> None:
    clock = Clock()
    registry = Registry(clock=clock)
    registry.counter("users", ttl=60.0)
    for _ in range(3):
        assert shown(registry, "users") == {(): 0}
        clock.now += 100


@pytest.mark.parametrize("ttl", [0, -1.0, float("nan"), float("inf")])
def test_a_ttl_is_a_time(ttl: float) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        Registry().counter("users", "", ("name",), ttl=ttl)


@pytest.mark.parametrize("ttl", [None, 10.0])
def test_a_series_that_is_removed_makes_room_and_begins_anew(ttl: float | None) -> None:
    registry = Registry()
    jobs = registry.counter("jobs", "", ("queue",), max_series=1, ttl=ttl)
    held = jobs.labels("a")
    held.inc(5)

    jobs.remove("a")
    jobs.remove("a")  # once is enough, twice no mistake

    held.inc()
    assert registry.snapshot()["metrics"][0]["series"] == []
    jobs.labels("b").inc()
    assert registry.snapshot()["metrics"][0]["series"] == [{"labels": ["b"], "value": 1}]
    jobs.remove("b")
    assert jobs.labels("a").read() == 0


def test_without_labels_there_is_no_series_to_remove() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="0 values"):
        registry.counter("jobs").remove()
    with pytest.raises(ValueError, match="1 values"):
        registry.counter("labelled", "", ("a", "b")).remove("x")
