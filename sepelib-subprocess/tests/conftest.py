"""What strikes from outside, and what the engine falls back to."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from gevent import Timeout, monkey

Strike = Callable[[float], AbstractContextManager[type[BaseException]]]


@contextlib.contextmanager
def _struck_after(seconds: float) -> Iterator[type[BaseException]]:
    if monkey.is_module_patched("select"):
        with Timeout(seconds):
            yield Timeout
        return

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield KeyboardInterrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture
def struck_after() -> Strike:
    """A BaseException from outside: gevent's in a patched process, a signal handler's otherwise."""
    return _struck_after


@pytest.fixture(params=["pidfd", "no pidfd"])
def pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no pidfd":

        def refuse(pid: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(os, "pidfd_open", refuse)
