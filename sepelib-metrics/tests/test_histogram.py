import asyncio
import functools
import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.metrics import Histogram, Registry

EDGES = (0.001, 0.01, 0.1, 1.0, 10.0)


class Clock:
    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def made(clock: Callable[[], float] | None = None, **options: Any) -> Histogram:
    return Registry(clock=clock or Clock()).histogram("request_seconds", **options)


def refused(registry: Registry, metric: str) -> float:
    faults = registry.counter("metrics_faults", "", ("fault", "subject"))
    return faults.labels("refused", metric).read()


def test_one_value_is_told_exactly() -> None:
    histogram = made()
    histogram.observe(3.0)
    reading = histogram.read()
    window = reading.window
    assert (reading.count, reading.sum) == (1, 3.0)
    assert (window.count, window.mean, window.min, window.max, window.stddev) == (1, 3, 3, 3, 0)
    assert set(window.quantiles.values()) == {3.0}


def test_an_empty_window_has_no_statistics() -> None:
    window = made(window=30.0).read().window
    assert (window.seconds, window.count, window.quantiles) == (30.0, 0, {})
    assert (window.mean, window.min, window.max, window.stddev) == (None, None, None, None)


@pytest.mark.parametrize("number", [1, 255, 256, 257, 1000])
def test_nothing_is_lost_however_full_the_buffer_is(number: int) -> None:
    histogram = made()
    for value in range(number):
        histogram.observe(value)
    reading = histogram.read()
    assert reading.count == reading.window.count == number
    assert reading.sum == sum(range(number))
    assert (reading.window.min, reading.window.max) == (0, number - 1)


@pytest.mark.parametrize("value", [3, True, Decimal("3.5"), Fraction(7, 2)])
def test_numbers_of_other_types_are_values_too(value: float) -> None:
    histogram = made()
    histogram.observe(value)
    assert histogram.read().sum == float(value)


@pytest.mark.parametrize("value", ["3", b"3", None, [3.0]])
def test_a_value_is_a_number(value: object) -> None:
    histogram = made()
    with pytest.raises(TypeError):
        histogram.observe(value)  # type: ignore[arg-type]
    assert histogram.read().count == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_value_that_is_not_finite_is_left_out_and_counted(value: float) -> None:
    registry = Registry(clock=Clock())
    histogram = registry.histogram("request_seconds")
    histogram.observe(1.0)
    histogram.observe(value)
    histogram.observe(2.0)

    reading = histogram.read()

    assert (reading.count, reading.sum) == (2, 3.0)
    assert (reading.window.min, reading.window.max) == (1.0, 2.0)
    assert refused(registry, "request_seconds") == 1


def test_values_none_of_which_is_finite_leave_it_empty() -> None:
    registry = Registry(clock=Clock())
    histogram = registry.histogram("request_seconds")
    for _ in range(300):
        histogram.observe(math.nan)
    assert histogram.read().count == histogram.read().window.count == 0
    assert refused(registry, "request_seconds") == 300


def test_zero_and_negative_values_are_values_like_others() -> None:
    histogram = made(quantiles=(0, 0.25, 0.5, 0.75, 1))
    for value in -4.0, -2.0, -0.0, 0.0, 2.0, 4.0, -1e-300, 1e300:
        histogram.observe(value)
    window = histogram.read().window
    assert (window.min, window.max, window.count) == (-4.0, 1e300, 8)
    assert window.quantiles[0.25] == pytest.approx(-2, rel=0.01)
    assert window.quantiles[0.5] == 0
    assert window.quantiles[0.75] == pytest.approx(2, rel=0.01)
    assert histogram.cumulative((-3, -2, 0, 2, 1e301)) == [1, 2, 5, 6, 8]


# The window.


def test_values_leave_the_window_and_stay_in_the_totals() -> None:
    clock = Clock()
    histogram = made(clock, window=60.0)
    for second in range(300):
        clock.now = 1000.0 + second
        histogram.observe(second)

    reading = histogram.read()

    assert reading.count == 300
    assert reading.window.max == 299
    assert 239 <= (reading.window.min or 0) <= 250  # none older than 60 s, all of the last 50 s
    assert reading.window.count == 300 - (reading.window.min or 0)


@pytest.mark.parametrize("number", [1, 40, 256, 1000])
def test_the_window_of_an_idle_histogram_runs_out(number: int) -> None:
    clock = Clock()
    histogram = made(clock, window=60.0)
    for _ in range(number):
        histogram.observe(1.0)
    clock.now += 49
    assert histogram.read().window.count == number
    clock.now += 11
    assert histogram.read().window.count == 0
    assert histogram.read().count == number


@pytest.mark.parametrize("number", [1, 40, 256, 1000])
def test_nobody_has_to_read_for_old_values_to_leave(number: int) -> None:
    clock = Clock()
    histogram = made(clock, window=60.0)
    for _ in range(number):
        histogram.observe(1.0)
    clock.now += 3600
    histogram.observe(2.0)
    reading = histogram.read()
    assert (reading.window.count, reading.window.max) == (1, 2.0)
    assert reading.count == number + 1


@pytest.mark.parametrize("pause", [1.0, 9.99, 10.0, 25.0, 59.0, 61.0, 1e6])
def test_each_value_is_dated_when_it_comes(pause: float) -> None:
    clock = Clock()
    clock.now = 0.0
    histogram = made(clock, window=60.0)
    times = [n * pause for n in range(500)]
    for clock.now in times:
        histogram.observe(clock.now)

    window = histogram.read().window

    # Slices end at multiples of 10 s, of which the last six are shown.
    start = (times[-1] // 10 - 5) * 10
    assert window.count == sum(time >= start for time in times)


def test_a_fast_stream_that_falls_silent_is_not_taken_for_recent() -> None:
    clock = Clock(step=1e-4)  # ten thousand values a second
    histogram = made(clock, window=60.0)
    for _ in range(2000):
        histogram.observe(1.0)
    clock.now += 3600
    for _ in range(40):
        histogram.observe(2.0)

    window = histogram.read().window

    assert window.max == window.min == 2.0
    assert 40 - 31 <= window.count <= 40  # as is documented


def test_in_a_fast_stream_the_clock_is_read_rarely() -> None:
    readings = itertools.count()

    def clock() -> float:
        return 1000 + next(readings) * 1e-5

    histogram = made(clock)
    for _ in range(10_000):
        histogram.observe(1.0)
    assert next(readings) < 1500
    assert histogram.read().count == 10_000


def test_a_stream_that_becomes_slow_is_dated_exactly_again() -> None:
    clock = Clock(step=1e-4)
    histogram = made(clock, window=60.0)
    for _ in range(1000):
        histogram.observe(1.0)
    clock.step = 1.0
    for n in range(1000):
        histogram.observe(100.0 + n)
    window = histogram.read().window
    assert window.min is not None and 1099 - 60 <= window.min <= 1099 - 49


def test_what_waits_in_the_buffer_is_bounded() -> None:
    histogram = made()
    for _ in range(10_000):
        histogram.observe(1.0)
        assert len(histogram._buffer) <= 256


def test_slices_that_left_the_window_take_no_memory() -> None:
    clock = Clock()
    histogram = made(clock, window=60.0)
    for _ in range(100):
        histogram.observe(1.0)
        clock.now += 10
        assert len(histogram._closed) <= 5
    clock.now += 100
    histogram.read()
    assert histogram._closed == ()


def test_a_clock_that_goes_back_does_no_harm() -> None:
    clock = Clock()
    histogram = made(clock)
    histogram.observe(1.0)
    clock.now -= 500
    histogram.observe(2.0)
    assert histogram.read().count == 2
    clock.now += 2000
    histogram.observe(3.0)
    assert (histogram.read().count, histogram.read().window.count) == (3, 1)


# Totals by edges.


def test_counts_by_edges_include_the_edge_and_only_grow() -> None:
    clock, rng = Clock(), random.Random(1)
    histogram = made(clock)
    values: list[float] = []
    last = [0] * len(EDGES)
    for _ in range(50):
        clock.now += 3
        for value in [rng.choice(EDGES), *(rng.expovariate(1) for _ in range(rng.randrange(20)))]:
            histogram.observe(value)
            values.append(value)
        counts, count, total = histogram.scrape(EDGES)
        assert count == len(values)
        assert total == pytest.approx(sum(values))
        assert all(a >= b for a, b in zip(counts, last, strict=True))
        assert counts == sorted(counts)
        for edge, found in zip(EDGES, counts, strict=True):
            assert sum(v <= edge for v in values) <= found
            assert found <= sum(v <= edge * 1.01 for v in values)
        last = counts


@pytest.mark.parametrize("edge", [0.1, 0.25, 1, 3, 5, 7.5, 30, 1e-40, 1e40])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_that_equals_an_edge_is_on_the_right_side(edge: float, sign: int) -> None:
    histogram = made()
    histogram.observe(sign * edge)
    histogram.observe(float(f"{sign * edge:.17g}"))
    assert histogram.cumulative((sign * edge,)) == [2]
    assert histogram.left_closed((sign * edge,)) == [2]


def test_left_closed_parts_drop_what_is_below_and_keep_what_is_above() -> None:
    histogram = made()
    for value in 0.5, 1, 1, 3, 7, 10, 11, 1000:
        histogram.observe(value)
    assert histogram.left_closed((1, 5, 10)) == [3, 1, 3]


@given(
    values=st.lists(st.floats(-1e6, 1e6), max_size=200),
    edges=st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=8).map(sorted),
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_parts_by_edges_are_all_values_off_by_the_width_of_a_bucket(
    values: list[float], edges: list[float]
) -> None:
    histogram = made()
    for value in values:
        histogram.observe(value)

    counts, count, _ = histogram.scrape(edges)

    assert count == len(values) and counts == sorted(counts)
    for edge, found in zip(edges, counts, strict=True):
        slack = abs(edge) * 0.01 + 1e-37
        assert sum(v <= edge - slack for v in values) <= found
        assert found <= sum(v <= edge + slack for v in values)
    weights = histogram.left_closed(edges)
    above_first = sum(v >= edges[0] for v in values)
    slack = abs(edges[0]) * 0.01 + 1e-37
    assert above_first - sum(weights) <= sum(edges[0] <= v <= edges[0] + slack for v in values)


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ({}, 0.001, 60),
        ({"unit": "bytes"}, 64, 4 << 30),
        ({"unit": "rows"}, 0.001, 1e9),
        ({"unit": ""}, 0.001, 1e9),
        ({"buckets": [1, 2, 3]}, 1, 3),
    ],
)
def test_the_edges_of_a_family_suit_its_unit(
    options: dict[str, Any], first: float, last: float
) -> None:
    registry = Registry()
    registry.histogram("sizes", **options)
    [family] = registry.families()
    assert (family.buckets[0], family.buckets[-1]) == (first, last)  # type: ignore[attr-defined]
    assert family.unit == (options.get("unit", "seconds") or None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buckets": ()}, "ascending"),
        ({"buckets": (1, 1)}, "ascending"),
        ({"buckets": (1, math.inf)}, "finite"),
        ({"quantiles": (50,)}, "from 0 to 1"),
        ({"window": 0}, "more than 0 seconds"),
        ({"window": math.inf}, "more than 0 seconds"),
        ({"error": 0.001}, "1/128"),
        ({"error": 1}, "1/128"),
        ({"error": math.nan}, "1/128"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match=words):
        registry.histogram("sizes", **options)
    assert registry.families() == []


def test_a_coarser_error_takes_fewer_buckets() -> None:
    numbers = []
    for error in 0.01, 0.02, 0.1:
        histogram, rng = made(error=error), random.Random(1)
        for _ in range(5000):
            histogram.observe(rng.lognormvariate(0, 1))
        numbers.append(len(histogram.contents()[1]))
    assert numbers[0] > numbers[1] * 1.5 > numbers[2] * 3


def test_reset_begins_anew_and_the_histogram_stays_in_use() -> None:
    clock = Clock()
    registry = Registry(clock=clock)
    histogram = registry.histogram("request_seconds")
    for _ in range(3):
        for _ in range(300):
            histogram.observe(1.0)
        clock.now += 15
        histogram.scrape(EDGES)
    registry.reset()
    assert histogram.scrape(EDGES) == ([0] * len(EDGES), 0, 0.0)
    histogram.observe(5.0)
    assert histogram.scrape(EDGES) == ([0, 0, 0, 0, 1], 1, 5.0)
    assert histogram.read().window.count == 1


# Timing.


def test_a_block_is_timed_however_it_ends() -> None:
    clock = Clock()
    histogram = made(clock)

    @histogram.time()
    def by_decorator() -> None:
        clock.now += 3
        raise KeyError

    def by_block() -> None:
        with histogram.time():
            by_decorator()

    with pytest.raises(KeyError):
        by_block()
    with histogram.time():
        clock.now += 2
    reading = histogram.read()
    assert (reading.count, reading.sum) == (3, 8.0)


def test_one_timing_serves_many_blocks_and_nested_ones() -> None:
    clock = Clock()
    histogram = made(clock)
    timing = histogram.time()
    with timing:
        clock.now += 1
        with timing:
            clock.now += 2
            with timing:
                clock.now += 4
    with timing:
        clock.now += 8
    window = histogram.read().window
    assert (window.count, histogram.read().sum) == (4, 4 + 6 + 7 + 8)
    assert (window.min, window.max) == (4, 8)


def test_a_long_block_is_dated_at_its_end() -> None:
    clock = Clock()
    histogram = made(clock, window=60.0)
    histogram.observe(1.0)
    with histogram.time():
        clock.now += 1000
    window = histogram.read().window
    assert (window.count, window.max) == (1, 1000)


def test_timed_blocks_do_not_pile_up_in_the_buffer() -> None:
    clock = Clock()
    histogram = made(clock)
    timed = histogram.time()(int)
    for _ in range(1000):
        with histogram.time():
            pass
        timed()
        assert len(histogram._buffer) <= 256
    assert histogram.read().count == 2000


def test_a_function_is_timed_and_otherwise_as_it_was() -> None:
    clock = Clock()
    histogram = made(clock)

    @histogram.time()
    def countdown(n: int, *, fail: bool = False) -> str:
        """Docs."""
        clock.now += 1
        if fail and n == 0:
            raise RuntimeError
        return countdown(n - 1, fail=fail) + "." if n else ""

    assert countdown(2) == ".."
    assert (countdown.__name__, countdown.__doc__) == ("countdown", "Docs.")
    assert (histogram.read().count, histogram.read().sum) == (3, 1 + 2 + 3)
    with pytest.raises(RuntimeError):
        countdown(0, fail=True)
    assert histogram.read().count == 4


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None:
    await asyncio.sleep(0)


async def async_generator() -> AsyncIterator[int]:
    yield 1


class AsyncCallable:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [generator, coroutine, async_generator, functools.partial(coroutine), AsyncCallable()],
    ids=str,
)
def test_a_function_whose_call_runs_nothing_is_refused(fn: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="takes no time"):
        made().time()(fn)


def test_a_decorator_goes_next_to_the_function() -> None:
    with pytest.raises(TypeError, match="below @staticmethod"):
        made().time()(staticmethod(int))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decorates a function"):
        made().time()(3)  # type: ignore[arg-type]
    assert made().time()(int)("7") == 7
