"""A monotonic clock that a test moves by hand."""

from __future__ import annotations

from sepelib.util.deadline import checked_seconds

__all__ = ["Clock"]


class Clock:
    """A clock and a sleep in one, for every `clock=` and `sleep=` of the house.

        clock = Clock()
        policy = RetryPolicy(OSError, clock=clock, sleep=clock.sleep)

    Time stands still until `advance()` or `sleep()` moves it, by exactly that much. `sleep()`
    returns at once: it neither blocks nor lets another greenlet run.
    Sharing: threads and greenlets may all read and move it, but there is one time for all: two that
    sleep 1 s "at once" move it by 2 s. Give each of them a clock where that matters.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self.sleeps: list[float] = []
        """Seconds of each `sleep()` so far."""

    @property
    def now(self) -> float:
        """Seconds, as `time.monotonic()`; the zero means nothing."""
        return self._now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass. ValueError when they are negative: this clock never goes back."""
        seconds = checked_seconds(seconds, "a step of a clock")
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass, and note them in `sleeps`."""
        self.advance(seconds)
        self.sleeps.append(seconds)
