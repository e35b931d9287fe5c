import math

import pytest

from sepelib.metrics import Registry


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_young_meter_gives_the_mean_since_it_was_made() -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    meter.mark(20)
    meter.mark()
    meter.mark(9)
    clock.now += 10

    reading = meter.read()

    assert reading.count == 30
    assert reading.rates == {"1m": 3.0, "5m": 3.0, "15m": 3.0}


def test_a_meter_that_was_just_made_has_no_rate() -> None:
    meter = Registry(clock=Clock()).meter("requests")
    meter.mark()
    assert meter.read().rates == {"1m": 0.0, "5m": 0.0, "15m": 0.0}


def test_rates_are_those_of_their_windows() -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    for second in range(1200):
        meter.mark(10 if second >= 1140 else 4 if second >= 900 else 1)
        clock.now += 1
        if second % 15 == 14:
            meter.read()

    rates = meter.read().rates

    assert rates["1m"] == pytest.approx(10)
    assert rates["5m"] == pytest.approx((60 * 10 + 240 * 4) / 300)
    assert rates["15m"] == pytest.approx((60 * 10 + 240 * 4 + 600 * 1) / 900, rel=0.02)


def test_rates_fall_to_nothing_when_nothing_comes() -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    meter.mark(600)
    for _ in range(15 * 4 + 8):  # the edges of windows blur by a twelfth
        clock.now += 15
        meter.read()
    reading = meter.read()
    assert reading.count == 600
    assert reading.rates == {"1m": 0.0, "5m": 0.0, "15m": 0.0}


def test_between_rare_readings_the_count_is_taken_to_have_grown_evenly() -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    clock.now += 1000
    meter.read()
    meter.mark(600)
    clock.now += 600
    rates = meter.read().rates
    assert rates["1m"] == rates["5m"] == pytest.approx(1.0)
    assert rates["15m"] == pytest.approx(600 / 900)


@pytest.mark.parametrize("pause", [0.01, 1.0, 7.0, 100.0])
def test_readers_however_many_cost_no_more_memory_than_a_few_dozen_notes(pause: float) -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    for _ in range(3000):
        meter.mark()
        clock.now += pause
        meter.read()

    assert len(meter._notes) <= 40
    for rate in meter.read().rates.values():
        assert rate == pytest.approx(1 / pause, rel=0.05)


def test_a_clock_that_stands_still_does_no_harm() -> None:
    clock = Clock()
    meter = Registry(clock=clock).meter("requests")
    clock.now += 60
    for _ in range(3):
        meter.mark(60)
        rates = meter.read().rates
    assert rates == {"1m": 3.0, "5m": 3.0, "15m": 3.0}


@pytest.mark.parametrize("n", [-1, math.nan, math.inf])
def test_a_meter_only_counts_up(n: float) -> None:
    meter = Registry().meter("requests")
    with pytest.raises(ValueError, match="only grows"):
        meter.mark(n)
    assert meter.read().count == 0


def test_reset_begins_anew() -> None:
    clock = Clock()
    registry = Registry(clock=clock)
    meter = registry.meter("requests")
    meter.mark(5)
    clock.now += 100
    registry.reset()
    meter.mark(7)
    clock.now += 7
    assert meter.read().count == 7
    assert meter.read().rates["15m"] == 1.0
