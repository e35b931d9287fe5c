"""Test support without pytest (fixtures: `sepelib.gevent.pytest_plugin`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sepelib.gevent.greenthread import GreenThread

__all__ = ["no_green_threads_left"]


@contextmanager
def no_green_threads_left(grace: float = 1.0) -> Iterator[None]:
    """AssertionError when the block leaves a GreenThread alive that it started.

    One that is asked to stop has *grace* seconds to end. Those left are killed, so that they
    disturb nobody after; an error of the block itself passes instead.
    """
    before = set(GreenThread.all_alive())
    try:
        yield
    except BaseException:
        _kill(_left(before))
        raise
    left = [
        thread for thread in _left(before) if not (thread.stopping and thread.join(timeout=grace))
    ]
    _kill(left)
    if left:
        names = ", ".join(thread.name for thread in left)
        raise AssertionError(f"green threads were left running: {names}")


def _left(before: set[GreenThread]) -> list[GreenThread]:
    current = GreenThread.current()
    return [t for t in GreenThread.all_alive() if t not in before and t is not current]


def _kill(threads: list[GreenThread]) -> None:
    for thread in threads:
        thread.kill()
