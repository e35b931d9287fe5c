import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.gevent import GreenThread, periodic
from sepelib.gevent._periodic import next_tick
from sepelib.gevent.testing import no_green_threads_left
from sepelib.util.deadline import Deadline, deadline

LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_green_threads_left():
        yield


class Seen:
    """A recorder that keeps what it is told, with name and labels."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[str, ...], float]] = []

    def counter(self, name: str, help: str = "", labels: Any = (), **_: Any) -> Any:
        seen = self.seen

        class One:
            def __init__(self, values: tuple[str, ...] = ()) -> None:
                self.values = values

            def labels(self, *values: str) -> "One":
                return One(values)

            def observe(self, value: float = 1.0, /) -> None:
                seen.append((name, self.values, value))

            inc = dec = observe

        return One()

    gauge = histogram = counter

    def results(self) -> list[str]:
        return [labels[1] for name, labels, _ in self.seen if name == "periodic_seconds"]


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(LIMIT, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.001)


def run(thread: GreenThread, condition: Callable[[], object]) -> None:
    thread.start()
    until(condition)
    assert thread.stop() and thread.exception is None


def test_it_is_called_at_once_and_again_and_again_until_it_is_stopped() -> None:
    calls: list[float] = []
    thread = periodic(lambda: calls.append(time.monotonic()), 0.02, name="beat", jitter=0.0)
    before = time.monotonic()
    run(thread, lambda: len(calls) >= 4)

    count = len(calls)
    # At a fixed rate: none before its time, whatever the ones before it took.
    assert all(at - before >= 0.02 * number - 0.001 for number, at in enumerate(calls))
    gevent.sleep(0.05)
    assert len(calls) == count


def test_it_can_begin_after_the_first_interval() -> None:
    calls: list[float] = []
    before = time.monotonic()
    thread = periodic(
        lambda: calls.append(time.monotonic()), 0.05, name="late", jitter=0.0, immediately=False
    )
    run(thread, lambda: calls)
    assert calls[0] - before >= 0.05


def test_jitter_puts_off_each_call_but_the_first_and_does_not_add_up() -> None:
    calls: list[float] = []
    draws: list[int] = []  # how many calls there had been

    def rng() -> float:
        draws.append(len(calls))
        return 0.8

    before = time.monotonic()
    thread = periodic(lambda: calls.append(time.monotonic()), 0.05, name="x", jitter=0.5, rng=rng)
    run(thread, lambda: len(calls) >= 3)
    assert draws[0] == 1  # none for the first
    assert all(at - before >= 0.05 * (n + 0.4) - 0.001 for n, at in enumerate(calls) if n)


@given(
    tick=st.integers(0, 10**6),
    late=st.integers(0, 10**4),
    interval=st.integers(1, 1000),
)
@settings(derandomize=True, max_examples=200, deadline=None)
def test_the_next_time_is_the_first_of_the_grid_that_is_not_over(
    tick: int, late: int, interval: int
) -> None:
    elapsed = tick * interval + late
    after = next_tick(tick, elapsed, interval)
    assert after > tick and after * interval >= elapsed
    assert after == tick + 1 or (after - 1) * interval < elapsed


def test_a_slow_call_makes_it_skip_and_not_catch_up() -> None:
    recorder: Any = Seen()
    running, calls = 0, list[int]()

    def slow() -> None:
        nonlocal running
        running += 1
        calls.append(running)
        gevent.sleep(0.05)
        running -= 1

    thread = periodic(slow, 0.02, name="slow", jitter=0.0, recorder=recorder)
    run(thread, lambda: len(calls) >= 3)
    assert set(calls) == {1}
    skipped = [n for name, _, n in recorder.seen if name == "periodic_skipped"]
    assert len(skipped) == len(calls) and min(skipped) >= 2


def test_an_error_is_logged_each_time_and_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    recorder: Any = Seen()
    calls: list[int] = []

    def fails_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("broken")

    run(periodic(fails_once, 0.01, name="beat", recorder=recorder), lambda: len(calls) >= 2)
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert lines == ["beat failed: ValueError: broken"]
    assert recorder.results()[:2] == ["error", "ok"]


def test_an_error_can_be_a_death(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ValueError("broken")

    thread = periodic(fails, 0.01, name="beat", on_error="die")
    thread.start()
    assert thread.join(LIMIT) and isinstance(thread.exception, ValueError)
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert lines == ["beat died: ValueError: broken"]


def test_a_kill_during_a_call_passes_and_is_counted_as_cancelled() -> None:
    recorder: Any = Seen()
    begun: list[int] = []

    def sleeps() -> None:
        begun.append(1)
        gevent.sleep(LIMIT)

    thread = periodic(sleeps, 0.01, name="beat", recorder=recorder)
    thread.start()
    until(lambda: begun)
    assert thread.kill() and thread.exception is None
    assert recorder.results() == ["cancelled"]


def test_a_leaked_timeout_ends_it() -> None:
    def late() -> None:
        with gevent.Timeout(0.01):
            gevent.sleep(LIMIT)

    thread = periodic(late, 0.01, name="late")
    thread.start()
    assert thread.join(LIMIT) and isinstance(thread.exception, gevent.Timeout)


def test_it_outlives_the_request_that_started_it() -> None:
    seen: list[Deadline | None] = []
    thread = periodic(lambda: seen.append(Deadline.current()), 0.01, name="beat")
    with deadline(0.02):
        thread.start()
    run_on = time.monotonic() + 0.05
    until(lambda: time.monotonic() > run_on and len(seen) >= 2)
    assert thread.stop() and set(seen) == {None}


@pytest.mark.parametrize(
    "wrong",
    [{"interval": 0.0}, {"interval": float("nan")}, {"jitter": 1.5}, {"on_error": "ignore"}],
)
def test_what_makes_no_sense_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="beat: "):
        periodic(**{"fn": print, "interval": 1.0, "name": "beat", **wrong})
