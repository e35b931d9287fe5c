"""The error that is promised, against sorted lists."""

import bisect
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.metrics import Registry
from sepelib.metrics._buckets import SCALES, Scale, key_of, keys_of

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

SHAPES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda rng: rng.lognormvariate(0, 1),
    "exponential": lambda rng: rng.expovariate(20),
    "pareto": lambda rng: rng.paretovariate(1.5),
    "bimodal": lambda rng: abs(rng.gauss(0.005, 0.001) if rng.random() < 0.9 else rng.gauss(2, 1)),
    "uniform": lambda rng: rng.uniform(0, 1000),
}


def exact(values: list[float], q: float) -> float:
    return sorted(values)[max(0, math.ceil(round(q * len(values), 6)) - 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("error", [0.01, 0.05])
def test_quantiles_are_within_the_error_of_exact_ones(shape: str, error: float) -> None:
    rng = random.Random(shape)
    values = [SHAPES[shape](rng) for _ in range(30_000)]
    histogram = Registry(clock=lambda: 0.0).histogram("x", quantiles=QUANTILES, error=error)
    for value in values:
        histogram.observe(value)

    found = histogram.read().window.quantiles

    assert list(found) == list(QUANTILES)
    for q in QUANTILES:
        assert found[q] == pytest.approx(exact(values, q), rel=error / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_other_moments_are_exact(shape: str) -> None:
    rng = random.Random(shape)
    values = [SHAPES[shape](rng) for _ in range(5_000)]
    histogram = Registry(clock=lambda: 0.0).histogram("x")
    for value in values:
        histogram.observe(value)

    reading = histogram.read()

    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    assert reading.count == reading.window.count == len(values)
    assert reading.sum == pytest.approx(math.fsum(values), rel=1e-12)
    assert reading.window.mean == pytest.approx(mean, rel=1e-12)
    assert reading.window.stddev == pytest.approx(math.sqrt(spread / len(values)), rel=1e-9)
    assert (reading.window.min, reading.window.max) == (min(values), max(values))


def test_the_deviation_of_values_that_are_nearly_equal_is_not_lost() -> None:
    histogram = Registry(clock=lambda: 0.0).histogram("x")
    for n in range(1000):
        histogram.observe(1e9 + n % 2)
    assert histogram.read().window.stddev == pytest.approx(0.5, rel=1e-6)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300),
    st.sampled_from([0.01, 0.1]),
)
@settings(derandomize=True, max_examples=200, deadline=None)
def test_any_finite_values_have_quantiles_within_the_error(
    values: list[float], error: float
) -> None:
    histogram = Registry(clock=lambda: 0.0).histogram("x", quantiles=(0, 0.25, 0.5, 1), error=error)
    for value in values:
        histogram.observe(value)

    window = histogram.read().window

    assert window.count == len(values)
    assert (window.min, window.max) == (min(values), max(values))
    for q, found in window.quantiles.items():
        # Below 1e-307 doubles themselves lose digits.
        assert found == pytest.approx(exact(values, q), rel=error / 2 + 1e-6, abs=1e-307)
    assert math.isfinite(histogram.read().sum) and window.stddev is not None
    assert 0 <= window.stddev < math.inf


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: f"1/{128 >> scale.shift}")
@given(value=st.floats(allow_nan=False, allow_infinity=False))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_a_value_is_in_its_bucket_and_no_bucket_is_wider_than_it_may(
    scale: Scale, value: float
) -> None:
    low, high = scale.bounds(scale.key(value))
    rounding = abs(value) * 2**-24  # to a 32-bit float
    assert low - rounding <= value <= high + rounding
    if abs(value) > 1e-307:
        width = (1 << scale.shift) / 128
        # Taken in two steps: the difference of the largest doubles is infinite.
        assert high / 2 - low / 2 <= min(abs(low), abs(high)) * width / 2 * (1 + 1e-12)


@given(
    st.lists(
        st.floats(2**-126, 2**127, width=32).flatmap(lambda x: st.sampled_from([x, -x])),
        min_size=1,
        max_size=300,
    )
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_many_keys_are_the_same_as_one_by_one(values: list[float]) -> None:
    assert list(keys_of(values)) == [key_of(value) for value in values]


def test_a_full_buffer_of_keys_is_the_same_as_one_by_one() -> None:
    rng = random.Random(1)
    values = [rng.choice((-1, 1)) * rng.lognormvariate(0, 20) for _ in range(256)]
    assert list(keys_of(values)) == [key_of(value) for value in values]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=100))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_buckets_are_ordered_as_their_values_are(values: list[float]) -> None:
    scale = SCALES[0]
    ordered = scale.ordered({scale.key(value) for value in values})
    lows = [scale.bounds(key)[0] for key in ordered]
    assert lows == sorted(lows)
    for value in values:
        at = bisect.bisect_right(lows, scale.bounds(scale.key(value))[0]) - 1
        assert ordered[at] == scale.key(value)
