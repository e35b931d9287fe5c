import math

import pytest

from sepelib.metrics import Registry


def faults(registry: Registry, metric: str) -> float:
    return (
        registry.counter("metrics_faults", "", ("fault", "subject")).labels("gauge", metric).read()
    )


def test_a_gauge_goes_up_and_down() -> None:
    gauge = Registry().gauge("queue_length")
    assert gauge.read() == 0
    gauge.set(10)
    gauge.inc()
    gauge.inc(0.5)
    gauge.dec(4)
    gauge.dec()
    gauge.inc(-1)
    assert gauge.read() == 5.5


def test_what_is_bound_is_asked_at_each_reading_and_summed() -> None:
    gauge = Registry().gauge("connections")
    pools = [3, 4]
    detach = gauge.bind(lambda: pools[0])
    gauge.bind(lambda: pools[1])
    gauge.set(100)
    assert gauge.read() == 107

    pools[0] = 5
    assert gauge.read() == 109
    detach()
    detach()  # as close() may be called twice
    assert gauge.read() == 104


def test_one_function_can_be_bound_twice() -> None:
    gauge = Registry().gauge("connections")
    detach = gauge.bind(lambda: 1)
    gauge.bind(lambda: 1)
    assert gauge.read() == 2
    detach()
    assert gauge.read() == 1


def test_a_function_that_fails_costs_its_own_sample_only_and_is_counted() -> None:
    registry = Registry()
    broken, sound = registry.gauge("broken"), registry.gauge("sound")
    sound.set(1)
    detach = broken.bind(lambda: 1 / 0)
    broken.bind(lambda: 1)

    shown = {m["name"]: m["series"] for m in registry.snapshot()["metrics"]}

    assert shown["broken"] == []
    assert shown["sound"] == [{"labels": [], "value": 1}]
    assert faults(registry, "broken") == 1
    detach()
    assert broken.read() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_shown_and_counted(value: float) -> None:
    registry = Registry()
    registry.gauge("set").set(value)
    registry.gauge("bound").bind(lambda: value)

    shown = {m["name"]: m["series"] for m in registry.snapshot()["metrics"]}

    assert shown["set"] == shown["bound"] == []
    assert faults(registry, "set") == faults(registry, "bound") == 1


def test_a_function_that_gives_no_number_is_one_that_fails() -> None:
    registry = Registry()
    registry.gauge("odd").bind(lambda: "7")  # type: ignore[arg-type,return-value]
    assert registry.gauge("odd").read() is None
    assert faults(registry, "odd") == 1


def test_a_cancellation_that_strikes_in_a_bound_function_goes_through() -> None:
    class Cancelled(BaseException):
        pass

    def cancelled() -> float:
        raise Cancelled

    gauge = Registry().gauge("slow")
    gauge.bind(cancelled)
    with pytest.raises(Cancelled):
        gauge.read()


def test_track_counts_a_block_while_it_runs_however_it_ends() -> None:
    gauge = Registry().gauge("in_flight")
    tracking = gauge.track()

    def fails() -> None:
        with tracking:
            assert gauge.read() == 3
            raise RuntimeError

    with tracking, gauge.track():
        with pytest.raises(RuntimeError):
            fails()
        assert gauge.read() == 2
    assert gauge.read() == 0


@pytest.mark.parametrize("value", ["1", None])
def test_a_value_is_a_number(value: object) -> None:
    gauge = Registry().gauge("queue_length")
    for change in gauge.set, gauge.inc, gauge.dec:
        with pytest.raises(TypeError):
            change(value)  # type: ignore[arg-type]
    assert gauge.read() == 0


def test_reset_keeps_what_is_bound() -> None:
    registry = Registry()
    gauge = registry.gauge("connections")
    gauge.set(5)
    gauge.bind(lambda: 2)
    registry.reset()
    assert gauge.read() == 2
