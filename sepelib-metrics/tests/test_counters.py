import math
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest

from sepelib import metrics
from sepelib.metrics import Counter, Registry


class Two(IntEnum):
    VALUE = 2


def read(counter: Counter) -> float:
    return counter.read()


def test_a_counter_begins_at_nothing_and_adds_up() -> None:
    counter = Registry().counter("jobs")
    assert read(counter) == 0

    counter.inc()
    counter.inc(2)
    counter.inc(0)
    counter.inc(0.5)

    assert read(counter) == 3.5


def test_a_count_of_whole_numbers_stays_exact_beyond_what_a_float_holds() -> None:
    counter = Registry().counter("bytes")
    counter.inc(2**60)
    counter.inc()
    assert read(counter) == 2**60 + 1


@pytest.mark.parametrize("n", [-1, -0.001, -math.inf, math.inf, math.nan, Decimal("-1")])
def test_a_counter_only_grows_by_what_is_finite(n: float) -> None:
    counter = Registry().counter("jobs")
    with pytest.raises(ValueError, match=r"Counter jobs.*only grows"):
        counter.inc(n)
    assert read(counter) == 0


@pytest.mark.parametrize("n", ["1", b"1", None, [1]])
def test_an_amount_is_a_number(n: object) -> None:
    counter = Registry().counter("jobs")
    with pytest.raises(TypeError):
        counter.inc(n)  # type: ignore[arg-type]
    assert read(counter) == 0


@pytest.mark.parametrize(
    ("n", "expected"), [(True, 1), (False, 0), (Two.VALUE, 2), (Decimal("2.5"), 2.5)]
)
def test_numbers_of_other_types_count_as_plain_ones(n: float, expected: float) -> None:
    counter = Registry().counter("jobs")
    counter.inc(n)
    assert read(counter) == expected
    assert type(read(counter)) is type(expected)


def test_an_amount_is_made_a_plain_number_before_the_old_value_is_read() -> None:
    """Else what its own code counts meanwhile is lost."""
    counter = Registry().counter("jobs")

    class Nosy(Fraction):
        def __float__(self) -> float:
            counter.inc(10)
            return 2.0

    counter.inc(Nosy(2))

    assert read(counter) == 12


def test_reset_begins_anew_and_the_counter_stays_in_use() -> None:
    registry = Registry()
    plain, child = registry.counter("jobs"), registry.counter("done", "", ("kind",)).labels("x")
    plain.inc(3)
    child.inc(4)

    registry.reset()
    plain.inc()
    child.inc()

    assert read(plain) == read(child) == 1
    assert registry.counter("jobs") is plain


def test_the_module_counts_in_the_default_registry_unless_another_is_given() -> None:
    registry = Registry()
    here = metrics.counter("test_counters_here", registry=registry)
    there = metrics.counter("test_counters_there")
    try:
        assert registry.counter("test_counters_here") is here
        assert metrics.default_registry.counter("test_counters_there") is there
        assert there is not here
    finally:
        metrics.default_registry.unregister("test_counters_there")


def test_an_amount_that_no_output_could_write_is_refused() -> None:
    counter = Registry().counter("jobs")
    with pytest.raises(ValueError, match="by a number of 16610 bits"):
        counter.inc(10**5000)
    counter.inc(2**64 - 1)
    assert counter.read() == 2**64 - 1
