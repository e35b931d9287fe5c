"""The fixtures, in a pytest of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from sepelib.gevent import GreenThread
from sepelib.gevent.testing import no_green_threads_left

LIMIT = 60.0  # seconds; far more than anything here takes

SUITE = """
import gevent, pytest, time
from sepelib.gevent import GreenThread

def test_leaks(green_threads_leak):
    GreenThread(gevent.sleep, "forgotten", args=(60.0,)).start()

def test_is_not_disturbed_and_leaks_nothing(green_threads_leak):
    assert GreenThread.all_alive() == []
    thread = GreenThread(gevent.sleep, args=(60.0,))
    thread.start()
    assert thread.kill()

@pytest.mark.gevent_timeout(0.05)
def test_hangs():
    try:
        gevent.sleep(60.0)
    except Exception:
        pass                                  # does not save it

@pytest.mark.gevent_timeout(30)
def test_is_in_time(gevent_timeout):
    assert gevent_timeout == 30.0
    gevent.sleep(0.01)

def test_has_a_default(gevent_timeout):
    assert gevent_timeout == 60.0
"""


@pytest.mark.parametrize("world", [["pytest"], ["gevent.monkey", "--module", "pytest"]])
def test_the_fixtures_fail_the_tests_that_leak_or_hang(world: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "sepelib.gevent.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [sys.executable, "-m", *world, *options, "-rfE", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    out = done.stdout
    assert "green threads were left running: forgotten" in out, out + done.stderr
    assert "ERROR test_suite.py::test_leaks" in out
    assert "FAILED test_suite.py::test_hangs - Failed: the test took more than 0.05 s" in out
    assert "1 failed, 4 passed, 1 error" in out


def alive() -> Iterator[GreenThread]:
    yield from GreenThread.all_alive()


def test_a_block_that_leaves_nothing_or_what_ends_when_asked_passes() -> None:
    with no_green_threads_left():
        thread = GreenThread(gevent.sleep, args=(0.01,))
        thread.start()
        thread.request_stop()
    assert list(alive()) == []


def test_threads_from_before_are_no_leak_and_the_error_of_the_block_passes() -> None:
    older = GreenThread(gevent.sleep, args=(LIMIT,))
    older.start()
    with pytest.raises(KeyError), no_green_threads_left():  # noqa: PT012 it leaves a thread first
        GreenThread(gevent.sleep, args=(LIMIT,)).start()
        raise KeyError
    assert list(alive()) == [older]
    assert older.kill()
