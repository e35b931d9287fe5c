"""Handlers of signals: whose they are, when they are heard, and what is left behind."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool

from sepelib.util.signals import handled

LIMIT = 60.0  # seconds; far more than a child takes


def child(world: str, body: str) -> str:
    patch = "from gevent import monkey; monkey.patch_all()\n" if world == "green" else ""
    done = subprocess.run(
        [sys.executable, "-c", patch + body], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("world", ["plain", "green"])
def test_a_hub_asleep_hears_a_signal_that_did_not_interrupt_its_sleep(world: str) -> None:
    # What hits another thread leaves the main one asleep, each time: the same as a signal that
    # comes between the loop's last look and its sleep, which happens once in many.
    body = """
import signal, gevent
from gevent.event import Event
from gevent.monkey import get_original
from sepelib.util.signals import handled
start, me = get_original("_thread", ("start_new_thread", "get_ident"))
pause = get_original("time", "sleep")
heard = Event()
def strike():
    calm = 0
    while calm < 20:  # "S" is also one that waits for us to hand it the interpreter
        with open("/proc/self/stat") as stat:
            calm = calm + 1 if stat.read().rpartition(")")[2].split()[0] == "S" else 0
        pause(0.005)
    signal.pthread_kill(me(), signal.SIGTERM)
with handled({signal.SIGTERM: lambda *_: heard.set()}, watch=gevent.get_hub().loop.io):
    start(strike, ())
    heard.wait()
print("heard")
"""
    assert child(world, body) == "heard\n"


def test_greenlets_that_wait_for_one_another_leave_the_hub_listening() -> None:
    body = """
import os, signal, gevent
from gevent.event import Event
from sepelib.util.signals import handled
heard = Event()
with handled({signal.SIGTERM: lambda *_: heard.set()}, watch=gevent.get_hub().loop.io):
    gevent.spawn(Event().wait)
    if os.fork() == 0:
        os.kill(os.getppid(), signal.SIGTERM); os._exit(0)
    heard.wait()
print("heard")
"""
    assert child("plain", body) == "heard\n"


def test_handlers_the_wakeup_and_the_descriptors_of_before_are_back() -> None:
    gevent.sleep(0)
    before = [signal.getsignal(signal.SIGUSR1), _wakeup(), _descriptors()]
    with suppress(KeyError), handled({signal.SIGUSR1: print}, watch=gevent.get_hub().loop.io):
        assert signal.getsignal(signal.SIGUSR1) is print
        assert _wakeup() >= 0
        raise KeyError
    assert [signal.getsignal(signal.SIGUSR1), _wakeup(), _descriptors()] == before


def test_a_handler_that_cannot_be_set_leaves_none_set() -> None:
    before = [signal.getsignal(signal.SIGUSR1), _wakeup(), _descriptors()]
    handlers = {signal.SIGUSR1: print, signal.SIGKILL: print}
    with (
        pytest.raises(OSError, match="Invalid argument"),
        handled(handlers, watch=gevent.get_hub().loop.io),
    ):
        pytest.fail("SIGKILL was caught")
    assert [signal.getsignal(signal.SIGUSR1), _wakeup(), _descriptors()] == before


def test_a_native_thread_cannot_handle_signals() -> None:
    def attempt() -> None:
        with handled({signal.SIGUSR1: print}):
            pytest.fail("a thread other than the main one set a handler")

    pool = ThreadPool(1)
    try:
        with pytest.raises(ValueError, match="main thread"):
            pool.apply(attempt)
    finally:
        pool.kill()


def test_more_signals_than_the_pipe_holds_are_heard_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    count = 0
    heard = Event()

    def on_signal(*_: object) -> None:
        nonlocal count
        count += 1
        heard.set()

    with handled({signal.SIGUSR1: on_signal}, watch=gevent.get_hub().loop.io):
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)
        assert heard.wait(LIMIT)
        gevent.sleep(0.01)  # one turn of the loop, which drains
    assert count == 70_000
    assert capfd.readouterr().err == ""


def _wakeup() -> int:
    was = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(was, warn_on_full_buffer=False)
    return was


def _descriptors() -> int:
    return len(os.listdir(Path("/proc/self/fd")))
