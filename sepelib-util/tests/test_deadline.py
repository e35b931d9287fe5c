import contextvars
import copy
import pickle
import threading
import time

import gevent
import pytest

from sepelib.util.deadline import Deadline, DeadlineExceeded, clip, deadline, detached
from sepelib.util.testing._clock import Clock


def remaining() -> float | None:
    current = Deadline.current()
    return None if current is None else current.remaining()


def test_there_is_no_deadline_outside_of_any() -> None:
    assert Deadline.current() is None
    assert clip(3.0) == 3.0
    assert clip(None) is None


def test_a_block_sees_its_deadline_and_leaves_none_behind() -> None:
    clock = Clock()
    with deadline(5.0, clock=clock) as current:
        assert current is not None
        assert Deadline.current() is current
        clock.advance(2.0)
        assert current.remaining() == 3.0
    assert Deadline.current() is None


def test_an_error_in_the_block_leaves_no_deadline_behind() -> None:
    with pytest.raises(KeyError), deadline(5.0):
        raise KeyError
    assert Deadline.current() is None


@pytest.mark.parametrize(("outer", "inner"), [(1.0, 5.0), (5.0, 1.0), (1.0, 1.0)])
def test_of_nested_deadlines_the_earlier_is_in_force(outer: float, inner: float) -> None:
    clock = Clock()
    with deadline(outer, clock=clock):
        with deadline(inner, clock=clock):
            assert remaining() == 1.0
        assert remaining() == outer


def test_none_changes_nothing() -> None:
    with deadline(None) as nothing:
        assert nothing is None
        assert Deadline.current() is None
    with deadline(5.0) as outer, deadline(None) as inner:
        assert inner is outer
        assert Deadline.current() is outer


def test_a_deadline_made_elsewhere_can_be_put_in_force() -> None:
    clock = Clock()
    made = Deadline.after(5.0, clock=clock)
    clock.advance(1.0)
    with deadline(made) as current:
        assert current is made
        assert remaining() == 4.0


def test_check_raises_once_nothing_is_left() -> None:
    clock = Clock()
    limit = Deadline.after(1.0, clock=clock)
    limit.check()
    clock.advance(1.0)
    with pytest.raises(DeadlineExceeded, match=r"deadline exceeded 0\.000 s ago"):
        limit.check()
    clock.advance(0.25)
    assert limit.remaining() == -0.25
    with pytest.raises(DeadlineExceeded, match=r"0\.250 s ago"):
        limit.check()


def test_a_deadline_runs_on_the_monotonic_clock() -> None:
    before = time.monotonic()
    left = Deadline.after(10.0).remaining()
    assert 10.0 - (time.monotonic() - before) <= left <= 10.0


def test_clip_gives_the_lesser_of_the_timeout_and_what_is_left() -> None:
    clock = Clock()
    with deadline(5.0, clock=clock):
        assert clip(2.0) == 2.0
        assert clip(9.0) == 5.0
        assert clip(None) == 5.0
        assert clip(0) == 0.0
        clock.advance(4.0)
        assert clip(2.0) == 1.0
        clock.advance(1.0)
        for timeout in 2.0, 0.0, None:
            with pytest.raises(DeadlineExceeded):
                clip(timeout)


def test_a_deadline_of_zero_is_over_at_once() -> None:
    with deadline(0), pytest.raises(DeadlineExceeded):
        clip(1.0)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), float("-inf")])
def test_seconds_that_make_no_sense_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"a deadline is finite and not negative, not"):
        Deadline.after(seconds)
    with pytest.raises(ValueError, match="a deadline"), deadline(seconds):
        pass
    with pytest.raises(ValueError, match="a timeout"):
        clip(seconds)
    assert Deadline.current() is None


@pytest.mark.parametrize("seconds", ["1", True, 1j, [1]])
def test_what_is_no_number_is_refused(seconds: float) -> None:
    with pytest.raises(TypeError, match="a deadline is a number of seconds, not"):
        Deadline.after(seconds)
    with pytest.raises(TypeError, match="a timeout is a number of seconds, not"):
        clip(seconds)


def test_detached_work_has_no_deadline_and_may_open_its_own() -> None:
    clock = Clock()
    with deadline(1.0, clock=clock) as outer:
        clock.advance(2.0)
        with detached():
            assert clip(7.0) == 7.0
            with deadline(9.0, clock=clock):
                assert remaining() == 9.0
            assert Deadline.current() is None
        assert Deadline.current() is outer


def test_detached_puts_the_deadline_back_after_an_error() -> None:
    with deadline(1.0) as outer:
        with pytest.raises(KeyError), detached():
            raise KeyError
        assert Deadline.current() is outer


def test_deadline_exceeded_is_a_timeout_and_an_os_error_that_pickles() -> None:
    error = DeadlineExceeded("host:80: no answer in time")
    assert isinstance(error, TimeoutError)
    for twin in pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error):
        assert type(twin) is DeadlineExceeded
        assert str(twin) == "host:80: no answer in time"


def test_a_new_thread_starts_without_the_deadline_and_a_copied_context_carries_it() -> None:
    seen: list[Deadline | None] = []
    with deadline(5.0) as current:
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=lambda: seen.append(Deadline.current())),
            threading.Thread(target=context.run, args=(lambda: seen.append(Deadline.current()),)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen == [None, current]


def test_greenlets_that_take_turns_have_a_deadline_each() -> None:
    left: dict[float, list[float | None]] = {}

    def work(seconds: float) -> None:
        assert Deadline.current() is None
        clock = Clock()
        with deadline(seconds, clock=clock):
            seen = left.setdefault(seconds, [])
            for _ in range(3):
                seen.append(remaining())
                clock.advance(1.0)
                gevent.sleep(0)  # the others run here, inside of our `with`

    with deadline(100.0) as ours:
        gevent.joinall([gevent.spawn(work, seconds) for seconds in (5.0, 9.0)], raise_error=True)
        assert Deadline.current() is ours

    assert left == {5.0: [5.0, 4.0, 3.0], 9.0: [9.0, 8.0, 7.0]}


def test_a_killed_greenlet_passes_through_its_deadline_untouched() -> None:
    seen: list[BaseException] = []

    def work() -> None:
        try:
            with deadline(60.0):
                gevent.sleep(60.0)
        except BaseException as error:
            seen.append(error)
            raise

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    greenlet.kill()
    assert [type(error) for error in seen] == [gevent.GreenletExit]
