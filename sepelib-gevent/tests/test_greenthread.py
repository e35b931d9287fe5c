import gc
import logging
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original, is_module_patched
from gevent.threadpool import ThreadPool

import sepelib.gevent.errors
from sepelib.core.exceptions import LogicalError
from sepelib.gevent import GreenThread, GreenThreadMisused, LostInFork, NotFinished, NotPatched
from sepelib.gevent.testing import no_green_threads_left
from sepelib.util import instrument
from sepelib.util.deadline import Deadline, DeadlineExceeded, deadline
from sepelib.util.testing import check_errors

LIMIT = 20.0  # seconds; far more than anything here takes

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_green_threads_left():
        yield


def started(target: Callable[..., Any] | None = None, **options: Any) -> GreenThread:
    thread = GreenThread(target, **options)
    thread.start()
    return thread


def fails() -> None:
    raise ValueError("broken")


def sleeps() -> None:
    gevent.sleep(LIMIT)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


class Deaf:
    """Waits in a `finally`, until told to `go`: a kill alone does not end it."""

    def __init__(self) -> None:
        self.begun, self.go = Event(), Event()

    def __call__(self) -> None:
        try:
            self.begun.set()
            gevent.sleep(LIMIT)
        finally:
            self.go.wait(LIMIT)


class Series:
    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def of(self, *values: str) -> Any:
        series = self

        class One:
            def inc(self, n: float = 1, /) -> None:
                series.values[values] = series.values.get(values, 0) + n

            def dec(self, n: float = 1, /) -> None:
                self.inc(-n)

            def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
                series.values[values] = fn()
                return lambda: None

            def labels(self, *more: str) -> Any:
                return series.of(*more)

            set = observe = inc

        return One()


class Recorder:
    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    def counter(self, name: str, help: str = "", labels: Any = (), **_: Any) -> Any:
        return self.series.setdefault(name, Series()).of()

    gauge = histogram = counter

    def value(self, name: str, *labels: str) -> float:
        return self.series[name].values.get(labels, 0)


# --- the words of threading.Thread


def test_a_target_runs_with_its_arguments_and_its_value_is_the_result() -> None:
    thread = GreenThread(lambda a, b: a - b, "subtract", (5,), {"b": 2})
    assert thread.ident is None and not thread.is_alive() and thread.age == 0.0

    thread.start()

    assert thread.is_alive() and thread.ident == id(thread.greenlet)
    assert thread.result(LIMIT) == 3
    assert thread.join() and not thread.is_alive() and thread.exception is None
    assert thread.age > 0
    assert repr(thread) == "<GreenThread 'subtract' ended>"


def test_a_subclass_says_in_run_what_it_does() -> None:
    class Answer(GreenThread):
        def run(self) -> int:
            return 42

    thread = Answer()
    thread.start()
    assert thread.result(LIMIT) == 42
    assert started().result(LIMIT) is None


def test_a_thread_without_a_name_gets_one_of_its_own() -> None:
    one, two = GreenThread(fails), GreenThread()
    assert one.name.startswith("GreenThread-") and one.name.endswith(" (fails)")
    assert one.name.split()[0] != two.name


def test_a_target_that_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="callable"):
        GreenThread("main")  # type: ignore[arg-type]


def test_start_works_once() -> None:
    thread = started()
    with pytest.raises(RuntimeError, match="only once"):
        thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="only once"):
        thread.start()


@pytest.mark.parametrize("call", ["join", "result"])
def test_one_cannot_wait_for_what_was_not_started(call: str) -> None:
    with pytest.raises(GreenThreadMisused, match="before start"):
        getattr(GreenThread(name="early"), call)()


def test_join_tells_whether_it_ended_and_never_raises_what_it_died_of() -> None:
    thread = started(sleeps)
    assert thread.join(0.01) is False and thread.join(0) is False
    assert thread.kill()
    assert started(fails).join(LIMIT) is True


def test_join_and_result_obey_the_deadline() -> None:
    thread = started(sleeps)
    with deadline(0.01):
        assert thread.join() is False
        with pytest.raises(DeadlineExceeded):
            thread.result()
    assert thread.kill()


@pytest.mark.parametrize("call", ["join", "result", "stop", "kill"])
def test_nobody_waits_for_itself(call: str) -> None:
    thread = started(lambda: getattr(GreenThread.current(), call)())
    with pytest.raises(RuntimeError, match="from itself would wait for ever"):
        thread.result(LIMIT)


def test_current_is_the_one_that_calls() -> None:
    assert GreenThread.current() is None
    thread = started(lambda: (GreenThread.current(), gevent.spawn(GreenThread.current).get()))
    assert thread.result(LIMIT) == (thread, None)
    assert GreenThread.all_alive() == []


def test_get_ident_is_the_ident_once_patched_and_the_native_one_before() -> None:
    thread = started(threading.get_ident)
    patched = is_module_patched("threading")
    expected = thread.ident if patched else get_original("_thread", "get_ident")()
    assert thread.result(LIMIT) == expected


def test_threading_local_is_of_each_thread_once_patched_and_shared_before() -> None:
    local = threading.local()
    local.value = "main"
    thread = started(lambda: getattr(local, "value", None))
    assert thread.result(LIMIT) == (None if is_module_patched("threading") else "main")


def test_current_thread_is_not_renamed_so_that_the_main_thread_keeps_its_name() -> None:
    name = started(lambda: threading.current_thread().name, name="worker").result(LIMIT)
    if is_module_patched("threading"):
        assert name.startswith("Dummy-")
    else:
        assert name == threading.current_thread().name == "MainThread"


# --- result


def test_result_raises_what_the_thread_raised_with_the_place() -> None:
    thread = started(fails)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken") as caught:
            thread.result(LIMIT)
        names = [entry.name for entry in caught.traceback]
        assert names[-1] == "fails" and "_bootstrap" not in names and len(names) == 3
    assert thread.exception is caught.value


def test_result_that_is_late_says_so_and_is_not_mistaken_for_the_threads_own_timeout() -> None:
    thread = started(sleeps, name="slow")
    with pytest.raises(NotFinished, match="slow: no result within") as caught:
        thread.result(0.01)
    assert isinstance(caught.value, TimeoutError) and caught.value.thread == "slow"
    assert thread.is_alive() and thread.kill()

    def times_out() -> None:
        raise TimeoutError("of the socket")

    with pytest.raises(TimeoutError, match="of the socket") as own:
        started(times_out).result(LIMIT)
    assert not isinstance(own.value, NotFinished)


# --- death is noticed, once


def test_a_death_is_logged_once_at_once_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    thread = started(fails, name="reader")
    thread.join(LIMIT)

    assert errors(caplog) == ["reader died: ValueError: broken"]
    record = caplog.records[-1]
    assert record.exc_info is not None and record.exc_info[1] is thread.exception
    with pytest.raises(ValueError, match="broken"):
        thread.result()
    assert len(errors(caplog)) == 1


def test_nothing_is_printed_by_gevent(capfd: pytest.CaptureFixture[str]) -> None:
    thread = started(fails)
    with pytest.raises(ValueError, match="broken"):
        thread.result(LIMIT)
    gevent.sleep(0)
    assert capfd.readouterr().err == ""


def test_who_waits_in_result_owns_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="broken"):
        started(fails).result(LIMIT)
    assert errors(caplog) == []


def test_who_gave_up_waiting_owns_nothing(caplog: pytest.LogCaptureFixture) -> None:
    go = Event()

    def fails_later() -> None:
        go.wait(LIMIT)
        fails()

    thread = started(fails_later, name="late")
    with pytest.raises(NotFinished):
        thread.result(0.01)
    go.set()
    thread.join(LIMIT)
    assert errors(caplog) == ["late died: ValueError: broken"]


def test_a_waiter_killed_as_the_thread_dies_leaves_the_death_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiter: gevent.Greenlet[..., Any]

    def fails_and_kills() -> None:
        gevent.sleep(0.01)  # until the waiter waits
        waiter.kill(block=False)  # is served before the waiter hears of our end
        fails()

    thread = GreenThread(fails_and_kills, "thread")
    thread.start()
    waiter = gevent.spawn(thread.result, LIMIT)
    waiter.join(LIMIT)
    assert not thread.is_alive() and errors(caplog) == ["thread died: ValueError: broken"]


def test_one_of_two_waiters_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    thread = started(lambda: gevent.sleep(0.01) or fails())  # type: ignore[func-returns-value]
    other = gevent.spawn(thread.result, LIMIT)
    with pytest.raises(ValueError, match="broken"):
        thread.result(LIMIT)
    with pytest.raises(ValueError, match="broken"):
        other.get(timeout=LIMIT)
    assert errors(caplog) == []


def test_greenlet_exit_is_a_clean_end(caplog: pytest.LogCaptureFixture) -> None:
    def leaves() -> None:
        raise gevent.GreenletExit

    thread = started(leaves)
    assert thread.result(LIMIT) is None and thread.exception is None
    assert errors(caplog) == []


def test_system_exit_ends_the_thread_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    thread = started(lambda: sys.exit(3), name="quitter")
    assert thread.join(LIMIT)
    assert isinstance(thread.exception, SystemExit)
    assert errors(caplog) == ["quitter died: SystemExit: 3 (which ends this thread alone)"]


def test_a_leaked_gevent_timeout_is_a_death(caplog: pytest.LogCaptureFixture) -> None:
    def late() -> None:
        with gevent.Timeout(0.01):
            sleeps()

    assert isinstance(started(late, name="late").join(LIMIT), bool)
    assert errors(caplog) == ["late died: Timeout: 0.01 seconds"]


def test_a_keyboard_interrupt_goes_on_to_the_main_greenlet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    thread = GreenThread(interrupted)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 it strikes whatever waits
        thread.start()
        gevent.sleep(LIMIT)
    assert not thread.is_alive() and errors(caplog) == []


def test_a_dead_thread_frees_what_it_held_without_the_garbage_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Held:
        pass

    freed: list[weakref.ref[Any]] = []

    class Dies(GreenThread):
        def run(self) -> None:
            held = Held()
            freed.append(weakref.ref(held))
            try:
                fails()
            except ValueError as e:
                raise LookupError("no luck") from e

    gc.collect()
    gc.disable()
    try:
        thread = Dies()
        thread.start()
        assert thread.join(LIMIT) and isinstance(thread.exception, LookupError)
        freed_early = freed[0]() is None
        freed.append(weakref.ref(thread))
        with pytest.raises(LookupError):
            thread.result()
        del thread
        gevent.sleep(0)  # the hub lets go of the greenlet
        assert freed_early and freed[1]() is None
    finally:
        gc.enable()


# --- stop


def test_a_thread_that_looks_at_the_flag_stops_at_once() -> None:
    turns = 0

    def loop() -> str:
        nonlocal turns
        thread = GreenThread.current()
        assert thread is not None and not thread.stopping
        while not thread.wait(LIMIT):
            turns += 1
        return "clean"

    thread = started(loop)
    gevent.sleep(0)
    before = time.monotonic()
    assert thread.stop() is True
    assert thread.result() == "clean" and thread.stopping and turns == 0
    assert time.monotonic() - before < LIMIT / 2


def test_wait_is_a_sleep_until_somebody_asks() -> None:
    def naps() -> list[bool]:
        thread = GreenThread.current()
        assert thread is not None
        return [thread.wait(0.001), thread.wait(-1.0)]

    assert started(naps).result(LIMIT) == [False, False]


def test_a_request_before_the_start_is_seen_by_the_thread() -> None:
    thread = GreenThread(lambda: getattr(GreenThread.current(), "stopping", None))
    thread.request_stop()
    thread.start()
    assert thread.result(LIMIT) is True


def test_who_does_not_listen_is_killed_after_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    thread = started(sleeps)
    assert thread.stop(timeout=0.01) is True
    assert thread.result() is None and errors(caplog) == []


def test_stop_tells_the_truth_about_a_thread_stuck_in_a_finally(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaf = Deaf()
    thread = started(deaf, name="deaf")
    deaf.begun.wait(LIMIT)

    assert thread.stop(timeout=0.01, kill_timeout=0.01) is False
    assert thread.is_alive()
    (line,) = errors(caplog)
    assert line.startswith("deaf is still alive 0.01 s after it was killed")
    assert "self.go.wait(LIMIT)" in line

    deaf.go.set()
    assert thread.join(LIMIT) and thread.exception is None
    assert thread.stop() is True


def test_a_clean_up_that_fails_after_a_kill_is_a_death(caplog: pytest.LogCaptureFixture) -> None:
    def loses_its_file() -> None:
        try:
            sleeps()
        finally:
            raise OSError("disk full")

    thread = started(loses_its_file, name="writer")
    gevent.sleep(0)
    assert thread.kill() is True
    assert errors(caplog) == ["writer died: OSError: disk full; while handling GreenletExit"]


def test_a_thread_killed_before_its_first_turn_never_runs() -> None:
    ran: list[int] = []
    thread = started(lambda: ran.append(1))
    assert thread.kill() and not thread.is_alive()
    gevent.sleep(0)
    assert ran == [] and thread.result() is None


def test_a_greenlet_killed_from_outside_before_its_first_turn_is_an_end_too() -> None:
    recorder = Recorder()
    ran: list[int] = []
    ended: list[GreenThread] = []
    thread = started(lambda: ran.append(1), recorder=recorder)
    thread._when_ended(ended.append)
    assert thread.greenlet is not None
    thread.greenlet.kill(block=False)

    assert not thread.is_alive() and thread.join(LIMIT)
    gevent.sleep(0)
    assert ran == [] and ended == [thread] and recorder.value("green_threads_alive") == 0
    assert GreenThread.all_alive() == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_thread_stopped_before_its_start_never_runs(end: str) -> None:
    ran: list[int] = []
    thread = GreenThread(lambda: ran.append(1))
    assert getattr(thread, end)() is True
    thread.start()
    gevent.sleep(0)
    assert ran == [] and not thread.is_alive() and thread.join() and thread.result() is None


def test_stopping_is_not_cut_by_a_deadline_that_is_over() -> None:
    thread = started(lambda: GreenThread.current().wait(LIMIT))
    gevent.sleep(0)
    with deadline(0.0):
        assert thread.stop() is True


# --- where it cannot wait


def in_a_native_thread(call: Callable[[], Any]) -> Any:
    pool = ThreadPool(1)
    try:
        return pool.spawn(call).get(timeout=LIMIT)
    finally:
        pool.kill()


def test_a_native_thread_cannot_start_one(caplog: pytest.LogCaptureFixture) -> None:
    thread = GreenThread(sleeps, "stray")

    def start() -> str:
        with pytest.raises(GreenThreadMisused) as caught:
            thread.start()
        return str(caught.value)

    assert in_a_native_thread(start).startswith("stray: start() is for the main thread")
    assert not thread.is_alive() and thread.ident is None


@pytest.mark.parametrize("call", ["join", "result", "stop", "kill"])
def test_a_native_thread_cannot_wait_for_one(call: str) -> None:
    thread = started(sleeps)

    def tries() -> str:
        with pytest.raises(GreenThreadMisused) as caught:
            getattr(thread, call)()
        return str(caught.value)

    assert "request_stop() works here" in in_a_native_thread(tries)
    assert thread.kill()


def test_a_native_thread_can_ask_one_to_stop() -> None:
    thread = started(lambda: GreenThread.current().wait(LIMIT))
    gevent.sleep(0)
    before = time.monotonic()
    in_a_native_thread(thread.request_stop)
    assert thread.result(LIMIT) is True
    assert time.monotonic() - before < LIMIT / 2


@pytest.mark.parametrize("call", ["join", "result", "stop", "kill"])
def test_a_signal_handler_in_the_hub_is_refused_with_a_clear_message(call: str) -> None:
    thread = started(sleeps, name="busy")
    heard: list[str] = []

    def handler(signum: int, frame: object) -> None:
        assert gevent.getcurrent() is gevent.get_hub()
        try:
            getattr(thread, call)()
        except GreenThreadMisused as e:
            heard.append(str(e))

    former = signal.signal(signal.SIGUSR1, handler)
    try:
        gevent.get_hub().loop.run_callback(signal.raise_signal, signal.SIGUSR1)
        with gevent.Timeout(LIMIT, AssertionError("it did not come true")):
            while not heard:
                gevent.sleep(0.001)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert heard == [
        f"busy: {call}() waits, which the hub and so a signal handler cannot; "
        "request_stop() works here"
    ]
    assert thread.is_alive() and thread.kill()


def test_a_signal_handler_can_ask_to_stop() -> None:
    thread = started(lambda: GreenThread.current().wait(LIMIT))
    gevent.sleep(0)
    former = signal.signal(signal.SIGUSR1, lambda *_: thread.request_stop())
    try:
        gevent.get_hub().loop.run_callback(signal.raise_signal, signal.SIGUSR1)
        assert thread.result(LIMIT) is True
    finally:
        signal.signal(signal.SIGUSR1, former)


# --- context


def test_the_context_of_who_starts_it_comes_along_and_nothing_goes_back() -> None:
    def changes() -> str:
        before = request_id.get()
        request_id.set("inside")
        return before

    token = request_id.set("outside")
    try:
        thread = GreenThread(changes)
        request_id.set("at the start")
        thread.start()
        assert thread.result(LIMIT) == "at the start"
        assert request_id.get() == "at the start"
    finally:
        request_id.reset(token)


def test_a_context_can_be_given() -> None:
    context = copy_context()
    context.run(request_id.set, "given")
    assert started(request_id.get, context=context).result(LIMIT) == "given"


def test_the_deadline_is_left_behind_unless_it_is_asked_for() -> None:
    with deadline(LIMIT) as mine:
        assert started(Deadline.current).result() is None
        assert started(Deadline.current, inherit_deadline=True).result() is mine


# --- metrics


def test_the_living_and_the_dead_are_counted() -> None:
    recorder = Recorder()
    thread = started(sleeps, recorder=recorder)
    assert recorder.value("green_threads_alive") == 1
    thread.kill()
    for name in ("a", "a", None):
        started(fails, name=name, recorder=recorder).join(LIMIT)
    started(recorder=recorder).join(LIMIT)

    assert recorder.value("green_threads_alive") == 0
    assert recorder.value("green_thread_deaths", "a") == 2
    assert recorder.value("green_thread_deaths", "GreenThread") == 1  # of few series, by no number


def test_the_ambient_recorder_is_the_default() -> None:
    recorder: Any = Recorder()
    former = instrument.install(recorder)
    try:
        thread = started(fails, name="ambient")
        thread.join(LIMIT)
    finally:
        instrument.install(former)
    assert recorder.value("green_thread_deaths", "ambient") == 1
    assert "green_threads_alive" in recorder.series


# --- fork

FORKS = """
import os, sys
if sys.argv[1] == "green":
    from gevent import monkey; monkey.patch_all()
import gevent
from sepelib.gevent import GreenThread, LostInFork

out = []
def sleeping():
    while True:
        gevent.sleep(0.01)
        out.append("sleeping")
def waiting():
    thread = GreenThread.current()
    while not thread.wait(0.01):
        out.append("waiting")
    out.append("stopped")
def forks():
    gevent.sleep(0.05)
    pid = gevent.os.fork()
    if pid == 0:
        out.clear()
        late = [t for t in threads if t is not GreenThread.current()]
        gevent.sleep(0.1)
        for thread in late:
            assert not thread.is_alive() and thread.join(1.0), thread
            try:
                thread.result()
            except LostInFork as e:
                out.append(str(e).split(":")[0])
            assert thread.stop() and thread.kill()
            thread.request_stop()
        assert GreenThread.all_alive() == [GreenThread.current()]
        GreenThread(out.append, args=("new",)).start()
        gevent.sleep(0.05)
        print(*sorted(out), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    out.clear()
    gevent.sleep(0.2)
    assert {"sleeping", "waiting"} <= set(out), out
    print("parent", flush=True)

import gevent.os
threads = [GreenThread(f, f.__name__) for f in (sleeping, waiting, forks)]
for thread in threads: thread.start()
threads[2].result()
"""


@pytest.mark.parametrize("world", ["plain", "green"])
def test_a_forked_child_has_only_the_thread_that_forked(world: str, tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    done = subprocess.run(
        [sys.executable, "forks.py", world],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.stdout, done.returncode) == ("new sleeping waiting\nparent\n", 0), done.stderr


# --- errors, import


def test_every_error_pickles_and_is_one_line() -> None:
    check_errors(
        sepelib.gevent.errors,
        examples=[
            GreenThreadMisused("reader", "start() can be called only once"),
            NotPatched(("socket", "ssl")),
            NotFinished("reader", 1.5),
            LostInFork("reader"),
        ],
    )
    assert issubclass(GreenThreadMisused, LogicalError)
    assert issubclass(GreenThreadMisused, RuntimeError)


def test_importing_makes_no_hub_and_patches_nothing() -> None:
    code = (
        "import sepelib.gevent, sepelib.gevent.testing, gevent.monkey, gevent._hub_local as h;"
        "assert h.get_hub_if_exists() is None;"
        "assert not gevent.monkey.is_anything_patched();"
        "sepelib.gevent.GreenThread(print); sepelib.gevent.GreenThreads();"
        "assert h.get_hub_if_exists() is None"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=LIMIT)
