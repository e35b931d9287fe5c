import functools
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sepelib.util.testing import Clock
from sepelib.util.timers import Stopwatch, Timer, slow

LIMIT = 20.0  # seconds; far more than anything here takes


class Killed(BaseException):
    pass


def test_a_timer_runs_during_its_block_and_stands_after_it() -> None:
    clock = Clock()
    timer = Timer(clock=clock)
    assert timer.elapsed == 0.0
    with timer as same:
        assert same is timer
        clock.advance(1.5)
        assert timer.elapsed == 1.5
        clock.advance(0.5)
    clock.advance(10.0)

    assert timer.elapsed == 2.0 and repr(timer) == "<Timer 2s>"


def test_a_timer_that_is_entered_again_starts_anew() -> None:
    clock = Clock()
    timer = Timer(clock=clock)
    for seconds in (5.0, 2.0):
        with timer:
            clock.advance(seconds)

    assert timer.elapsed == 2.0


def test_a_block_that_fails_is_timed_and_its_error_passes() -> None:
    clock = Clock()
    work = taking(clock, 3.0, Killed())
    with pytest.raises(Killed), Timer(clock=clock) as timer:
        work()

    assert timer.elapsed == 3.0


def test_without_a_clock_real_time_is_taken() -> None:
    before = time.monotonic()
    watch = Stopwatch()
    with Timer() as timer, watch.lap("nap"):
        time.sleep(0.01)
    whole = time.monotonic() - before

    assert 0.009 <= watch.laps["nap"] <= timer.elapsed <= whole
    assert watch.elapsed >= timer.elapsed


def test_laps_add_up_by_name() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    for _ in range(3):
        with watch.lap("db"):
            clock.advance(0.4)
    render = taking(clock, 0.2, Killed())
    with pytest.raises(Killed), watch.lap("render"):
        render()
    clock.advance(0.13)

    assert watch.laps == pytest.approx({"db": 1.2, "render": 0.2})
    assert watch.report() == str(watch) == "1.53s: db 1.2s in 3, render 200ms"


def test_a_watch_without_laps_reports_the_whole() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    clock.advance(90.0)

    assert watch.report() == "1m30s" and watch.laps == {}


def test_nested_laps_count_for_each_of_them() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    with watch.lap("outer"):
        clock.advance(1.0)
        with watch.lap("inner"), watch.lap("outer"):
            clock.advance(2.0)

    assert watch.laps == {"inner": 2.0, "outer": 5.0}


def test_laps_handed_out_are_a_copy() -> None:
    watch = Stopwatch()
    watch.laps["x"] = 1.0

    assert watch.laps == {}


def test_parallel_laps_of_many_threads_are_all_counted() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)

    def work() -> None:
        for _ in range(2000):
            with watch.lap("x"):
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
    finally:
        sys.setswitchinterval(interval)

    assert watch.report() == "0s: x 0s in 16000"


def taking(clock: Clock, seconds: float, result: object = None) -> Callable[..., object]:
    def work(*args: object, **kwargs: object) -> object:
        """Works."""
        clock.advance(seconds)
        if isinstance(result, BaseException):
            raise result
        return result or (args, kwargs)

    return work


def test_a_slow_call_is_one_warning_and_a_quick_one_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    quick = slow(1.0, clock=clock)(taking(clock, 0.9))
    late = slow(1.0, clock=clock)(taking(clock, 1.0))

    assert quick(1, a=2) == late(1, a=2) == ((1,), {"a": 2})
    (record,) = caplog.records
    assert record.getMessage() == (
        "taking.<locals>.work took 1s, which is slow (from 1s on): returned tuple"
    )
    assert (record.name, record.levelno) == (__name__, logging.WARNING)
    assert (late.__name__, late.__doc__) == ("work", "Works.")


@pytest.mark.parametrize("error", [ConnectionError("refused"), Killed("refused")])
def test_a_slow_failure_says_how_it_ended_and_passes(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with pytest.raises(type(error)) as caught:
        slow(1.0, logging.getLogger("mine"), clock=clock)(taking(clock, 90.0, error))()
    with pytest.raises(type(error)):
        slow(1.0, clock=clock)(taking(clock, 0.5, error))()

    assert caught.value is error
    (record,) = caplog.records
    assert record.name == "mine"
    assert record.getMessage().endswith(
        f" took 1m30s, which is slow (from 1s on): raised {type(error).__name__}: refused"
    )


def test_the_value_of_a_slow_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    slow(0.0, clock=clock)(taking(clock, 1.0, "hunter2"))("hunter2")

    assert len(caplog.messages) == 1 and "hunter2" not in caplog.text


def test_methods_partials_and_objects_can_be_slow(caplog: pytest.LogCaptureFixture) -> None:
    class Thing:
        @staticmethod
        @slow(0.0)
        def static() -> int:
            return 1

        @slow(0.0)
        def method(self) -> int:
            return 2

        def __call__(self) -> int:
            return 3

    assert Thing.static() == 1 and Thing().method() == 2
    assert slow(0.0)(Thing())() == 3
    assert slow(0.0)(functools.partial(int, "4"))() == 4
    assert [message.split(" took ")[0].split(".")[-1] for message in caplog.messages] == [
        *("static", "method", "Thing", "partial")
    ]


async def coroutine_function() -> None: ...


async def async_generator_function() -> AsyncIterator[None]:
    yield


def generator_function() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    "fn",
    [
        *(coroutine_function, async_generator_function, generator_function),
        functools.partial(generator_function),
    ],
)
def test_what_runs_later_is_refused(fn: Any) -> None:
    with pytest.raises(TypeError, match="runs nothing to time; put the slow inside of it"):
        slow(1.0)(fn)


def test_nonsense_is_refused() -> None:
    with pytest.raises(TypeError, match="put slow below @staticmethod"):
        slow(1.0)(staticmethod(taking))
    with pytest.raises(TypeError, match="is none"):
        slow(1.0)(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threshold"):
        slow(-1.0)
    with pytest.raises(TypeError, match="threshold"):
        slow(taking)  # type: ignore[arg-type]
