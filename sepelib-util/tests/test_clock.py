import threading

import pytest

from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing._clock import Clock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = Clock(now=5.0)
    assert clock() == clock.now == 5.0
    clock.advance(0.5)
    assert clock() == clock.now == 5.5
    clock.advance(0)
    assert clock.now == 5.5
    assert clock.sleeps == []


def test_sleep_moves_the_time_and_is_noted() -> None:
    clock = Clock(now=5.0)
    clock.sleep(2.5)
    clock.sleep(0)
    assert clock.now == 7.5
    assert clock.sleeps == [2.5, 0]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_time_never_goes_back(seconds: float) -> None:
    clock = Clock(now=5.0)
    with pytest.raises(ValueError, match="a step of a clock is finite and not negative"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match="a step of a clock is finite and not negative"):
        clock.sleep(seconds)
    assert clock.now == 5.0
    assert clock.sleeps == []


def test_a_policy_runs_on_it() -> None:
    clock = Clock()
    backoff = Backoff(base=1.0, factor=10.0, cap=50.0, jitter="none")
    policy = RetryPolicy(OSError, attempts=4, backoff=backoff, clock=clock, sleep=clock.sleep)

    def fail() -> None:
        clock.advance(0.25)
        raise OSError("down")

    with pytest.raises(OSError, match="down") as caught:
        policy(fail)
    assert clock.sleeps == [1.0, 10.0, 50.0]
    assert caught.value.__notes__ == [
        "retry: gave up after 4 attempts in 62.00 s: no attempt is left"
    ]


def test_threads_that_move_one_clock_add_up() -> None:
    clock = Clock(now=0.0)

    def work() -> None:
        for _ in range(1000):
            clock.advance(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now == 4000.0
