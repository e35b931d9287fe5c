import logging
import sys
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event

from sepelib.gevent import GreenThread, GreenThreadMisused, GreenThreads
from sepelib.gevent.testing import no_green_threads_left
from sepelib.util.deadline import deadline

LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_green_threads_left():
        yield


class Worker(GreenThread):
    """Runs until it is asked to stop, and says so in *events*."""

    def __init__(self, name: str, events: list[str], *, daemon: bool = False) -> None:
        super().__init__(name=name, daemon=daemon)
        self.events = events

    def run(self) -> None:
        self.events.append(f"+{self.name}")
        self.wait(LIMIT)
        self.events.append(f"-{self.name}")


def fails() -> None:
    raise ValueError("broken")


def when(event: Event, call: Callable[[], object]) -> Callable[[], None]:
    def waits() -> None:
        assert event.wait(LIMIT)
        call()

    return waits


def test_tiers_start_from_the_lowest_and_stop_from_the_highest() -> None:
    events: list[str] = []
    threads = GreenThreads()
    for name, tier in (("http", 2), ("db", 0), ("cache", 1), ("log", 0)):
        threads.add(Worker(name, events), tier=tier)
    threads.start()
    gevent.sleep(0)
    assert events == ["+db", "+log", "+cache", "+http"] and len(threads) == 4

    assert threads.stop() is True
    assert events[4:6] == ["-http", "-cache"] and set(events[6:]) == {"-db", "-log"}
    assert len(threads) == 0 and threads.failed is None


def test_the_threads_of_a_tier_stop_in_parallel() -> None:
    all_asked, asked = Event(), []

    def stubborn() -> None:
        thread = GreenThread.current()
        assert thread is not None
        thread.wait(LIMIT)
        asked.append(thread)
        if len(asked) == 3:
            all_asked.set()
        assert all_asked.wait(LIMIT), "the others were not asked meanwhile"

    threads = GreenThreads()
    for _ in range(3):
        threads.add(GreenThread(stubborn))
    threads.start()
    gevent.sleep(0)
    assert threads.stop() is True and threads.failed is None


def test_the_first_death_is_what_wait_returns_and_the_others_run_on() -> None:
    events: list[str] = []
    with GreenThreads() as threads:
        worker = threads.add(Worker("worker", events))
        bad = threads.add(GreenThread(fails, "bad"))
        assert threads.wait(LIMIT) is bad and threads.failed is bad
        assert isinstance(bad.exception, ValueError)
        assert worker.is_alive()
    assert events == ["+worker", "-worker"]


def test_system_exit_in_a_thread_fails_the_group_and_not_the_process() -> None:
    with GreenThreads() as threads:
        quitter = threads.add(GreenThread(sys.exit, args=(3,)))
        assert threads.wait(LIMIT) is quitter
        assert isinstance(quitter.exception, SystemExit)


def test_wait_ends_when_all_have_ended_cleanly() -> None:
    with GreenThreads() as threads:
        threads.add(GreenThread(gevent.sleep, args=(0.01,)))
        killed = threads.add(GreenThread(gevent.sleep, args=(LIMIT,)))
        gevent.spawn(killed.kill)
        assert threads.wait(LIMIT) is None
        assert len(threads) == 0


def test_wait_does_not_wait_for_daemons_and_sees_them_die() -> None:
    go = Event()
    with GreenThreads() as threads:
        dies = threads.add(GreenThread(when(go, fails), daemon=True))
        assert threads.wait(LIMIT) is None
        threads.add(GreenThread(gevent.sleep, args=(LIMIT,)))
        go.set()
        assert threads.wait(LIMIT) is dies
        next(iter(threads)).kill()


def test_wait_has_a_limit_and_obeys_the_deadline() -> None:
    with GreenThreads() as threads:
        threads.add(GreenThread(gevent.sleep, args=(LIMIT,)))
        assert threads.wait(0.01) is None and len(threads) == 1
        with deadline(0.01):
            assert threads.wait() is None
        next(iter(threads)).kill()


def test_a_death_in_result_is_a_death_of_the_group_too() -> None:
    with GreenThreads() as threads:
        bad = threads.add(GreenThread(fails))
        with pytest.raises(ValueError, match="broken"):
            bad.result(LIMIT)
        assert threads.failed is bad


def test_on_death_may_stop_the_group() -> None:
    events: list[str] = []
    stopped = Event()

    def on_death(thread: GreenThread) -> None:
        assert not thread.is_alive()
        threads.stop()
        events.append(thread.name)
        stopped.set()

    threads = GreenThreads(on_death=on_death)
    threads.add(Worker("worker", events))
    threads.add(GreenThread(fails, "bad"), tier=1)
    threads.start()
    assert stopped.wait(LIMIT)
    assert events == ["+worker", "-worker", "bad"]
    gevent.sleep(0)


def test_an_on_death_that_fails_is_logged_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    def on_death(thread: GreenThread) -> None:
        raise LookupError("nobody to tell")

    with GreenThreads("web", on_death=on_death) as threads:
        threads.add(GreenThread(fails, "bad"))
        threads.wait(LIMIT)
        gevent.sleep(0)
        gevent.sleep(0)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "bad died: ValueError: broken",
        "web: on_death died: LookupError: nobody to tell",
    ]


def test_stop_tells_of_a_thread_that_lives_on_and_stops_the_tiers_below() -> None:
    go, begun, events = Event(), Event(), list[str]()

    def deaf() -> None:
        try:
            begun.set()
            gevent.sleep(LIMIT)
        finally:
            go.wait(LIMIT)

    threads = GreenThreads()
    threads.add(Worker("low", events))
    stuck = threads.add(GreenThread(deaf, "stuck"), tier=1)
    threads.start()
    begun.wait(LIMIT)

    assert threads.stop(timeout=0.02, kill_timeout=0.01) is False
    assert events == ["+low", "-low"] and list(threads) == [stuck]
    go.set()
    assert stuck.join(LIMIT) and threads.stop() is True


def test_one_tier_does_not_eat_the_time_of_the_next() -> None:
    graceful = Event()

    def needs_a_moment() -> None:
        thread = GreenThread.current()
        assert thread is not None
        thread.wait(LIMIT)
        gevent.sleep(0.05)
        graceful.set()

    threads = GreenThreads()
    threads.add(GreenThread(needs_a_moment))
    threads.add(GreenThread(gevent.sleep, args=(LIMIT,)), tier=1)  # uses all of its share
    threads.start()
    gevent.sleep(0)
    before = time.monotonic()
    assert threads.stop(timeout=1.0) is True
    assert graceful.is_set() and time.monotonic() - before < LIMIT / 2


def test_a_group_stopped_before_its_start_runs_nothing() -> None:
    events: list[str] = []
    threads = GreenThreads()
    worker = threads.add(Worker("worker", events))
    assert threads.stop() is True
    worker.start()
    gevent.sleep(0)
    assert events == [] and not worker.is_alive()
    with pytest.raises(GreenThreadMisused, match="only once"):
        threads.start()


def test_threads_join_a_running_group_started_or_not() -> None:
    events: list[str] = []
    with GreenThreads() as threads:
        running = Worker("running", events)
        running.start()
        threads.add(running)
        threads.add(Worker("fresh", events))
        over = GreenThread()
        over.start()
        over.join()
        threads.add(over)
        gevent.sleep(0)
        assert events == ["+running", "+fresh"] and len(threads) == 2


def test_a_group_is_not_misused() -> None:
    threads = GreenThreads("web")
    thread = threads.add(GreenThread(threads.stop, "inside"))
    with pytest.raises(GreenThreadMisused, match="inside belongs to it already"):
        threads.add(thread)
    with pytest.raises(GreenThreadMisused, match="before start"):
        threads.wait()
    threads.start()
    with pytest.raises(GreenThreadMisused, match="waits for itself"):
        thread.result(LIMIT)
    threads.stop()
    with pytest.raises(GreenThreadMisused, match="comes too late"):
        threads.add(GreenThread())
    assert repr(threads) == "<GreenThreads 'web' stopped, 0 threads>"
