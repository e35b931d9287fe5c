import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from sepelib.gevent import GreenThread, blocking_monitor
from sepelib.gevent.testing import no_green_threads_left

LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_green_threads_left():
        yield


class Recorder:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def histogram(self, name: str, help: str = "", labels: Any = (), **_: Any) -> Any:
        assert name == "hub_blocked_seconds" and not labels
        return self

    def observe(self, value: float, /) -> None:
        self.seconds.append(value)

    def gauge(self, *_: Any) -> Any:
        return self

    def inc(self, n: float = 1, /) -> None: ...

    dec = inc


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(LIMIT, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.001)


def hogs(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_who_blocks_the_hub_is_named_with_the_place(caplog: pytest.LogCaptureFixture) -> None:
    recorder: Any = Recorder()
    monitor = blocking_monitor(recorder, threshold=0.1)
    monitor.start()
    gevent.sleep(0.05)
    hog = GreenThread(hogs, "hog", args=(0.5,))
    hog.start()
    hog.join(LIMIT)
    until(lambda: recorder.seconds)
    assert monitor.stop()

    assert max(recorder.seconds) >= 0.5 - 0.1 / 4 - 0.01
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    (line,) = [line for line in lines if "by hog, which was at" in line]
    assert line.startswith("the hub was blocked for") and "while time.monotonic() < until" in line
    assert len(lines) == len(recorder.seconds)


def test_a_greenlet_without_a_name_is_shown_by_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    recorder: Any = Recorder()
    monitor = blocking_monitor(recorder, threshold=0.05)
    monitor.start()
    gevent.sleep(0.02)
    hogs(0.3)
    until(lambda: recorder.seconds)
    assert monitor.stop()
    (line,) = [r.getMessage() for r in caplog.records if "no GreenThread" in r.getMessage()]
    assert "in test_a_greenlet_without_a_name_is_shown_by_its_stack" in line


def test_a_hub_that_runs_is_not_reported() -> None:
    recorder: Any = Recorder()
    monitor = blocking_monitor(recorder, threshold=LIMIT)
    monitor.start()
    hogs(0.05)
    gevent.sleep(0.01)
    assert monitor.daemon and monitor.stop() and recorder.seconds == []


def test_its_native_thread_ends_with_it() -> None:
    import sys

    before = set(sys._current_frames())
    monitor = blocking_monitor(threshold=0.02)
    monitor.start()
    until(lambda: set(sys._current_frames()) - before)
    assert monitor.kill()
    until(lambda: not set(sys._current_frames()) - before)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_makes_no_sense_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        blocking_monitor(threshold=threshold)
