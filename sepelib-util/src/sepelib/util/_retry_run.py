"""One run of a policy: what was spent so far, and whether there is to be another attempt."""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from sepelib.util.deadline import Deadline, DeadlineExceeded

if TYPE_CHECKING:
    import logging

    from sepelib.util.retry import RetryPolicy

__all__ = ["Attempt", "RetryRun", "RetryState", "retries_disabled"]

_WARNING = 30  # logging.WARNING
_NOTE = "retry: gave up after "
_disabled: list[None] = []  # one item for each `retries_disabled()` that is open


@contextmanager
def retries_disabled() -> Iterator[None]:
    """Let every policy of the process make one attempt only. For tests."""
    _disabled.append(None)  # atomic, as is pop(): threads and greenlets may overlap
    try:
        yield
    finally:
        _disabled.pop()


class RetryState(NamedTuple):
    """What `on_retry` is told after a failure, before the wait.

    number: of the attempt that failed, from 1. delay: the wait to come. elapsed: since the first
    attempt began. remaining: before the deadline, None without one. All in seconds.
    """

    error: Exception
    number: int
    delay: float
    elapsed: float
    remaining: float | None


class RetryRun:
    """Belongs to one call, hence to one greenlet. Keeps no error between attempts."""

    __slots__ = ("_delay", "_delays", "_nested", "_what", "limit", "number", "policy", "started")

    def __init__(
        self,
        policy: RetryPolicy,
        what: object,
        started: float,
        limit: Deadline | None,
        *,
        nested: bool = False,
    ) -> None:
        self.policy = policy
        self.started = started
        self.limit = limit
        self.number = 1
        self._what = what
        self._nested = nested
        self._delays = policy.backoff.delays(rng=policy.rng)
        self._delay = 0.0

    def again(self, error: Exception) -> bool:
        """Decide after a failure. False: raise *error*, which has its note by then."""
        policy = self.policy
        if self._nested or not _is_meant(error, policy.on):
            return False
        if policy.retry_if is not None and not policy.retry_if(error):
            return False
        now = (policy.clock or time.monotonic)()
        elapsed = now - self.started
        remaining = self.remaining()
        delay = _hint(error)
        if delay is None:
            delay = next(self._delays)
        refusal = self._refusal(now, delay, remaining)
        if refusal is not None:
            tries = "1 attempt" if self.number == 1 else f"{self.number} attempts"
            _note(error, f"{_NOTE}{tries} in {elapsed:.2f} s: {refusal}")
            return False
        if _log().isEnabledFor(_WARNING):
            self._log_failure(error, delay)
        if policy.on_retry is not None:
            policy.on_retry(RetryState(error, self.number, delay, elapsed, remaining))
        self.number += 1
        self._delay = delay
        return True

    def wait(self) -> None:
        if self._delay > 0:
            (self.policy.sleep or time.sleep)(self._delay)

    def remaining(self) -> float | None:
        return None if self.limit is None else self.limit.remaining()

    def _refusal(self, now: float, delay: float, remaining: float | None) -> str | None:
        policy = self.policy
        if policy.attempts is not None and self.number >= policy.attempts:
            return "no attempt is left"
        if _disabled:
            return "retries are disabled"
        if remaining is not None and remaining <= 0:
            return "the deadline is over"
        if remaining is not None and delay >= remaining:
            return f"a wait of {delay:.2f} s would pass the deadline ({remaining:.2f} s left)"
        # Last, since it charges: before the wait, so that those asleep count.
        if policy.budget is not None and not policy.budget.try_withdraw(now):
            return "the retry budget of the backend is spent"
        return None

    def _log_failure(self, error: Exception, delay: float) -> None:
        # Its import costs as much as the rest of `retry`, for something that may never fail.
        from sepelib.util.exceptions import format_exception

        what = self._what
        name = what if isinstance(what, str) else getattr(what, "__qualname__", type(what).__name__)
        tries = "" if self.policy.attempts is None else f" of {self.policy.attempts}"
        _log().warning(
            "%s: attempt %d%s failed, next in %.2f s: %s",
            name,
            self.number,
            tries,
            delay,
            format_exception(error),
        )


class _Outcome(enum.Enum):
    UNUSED = enum.auto()
    FINAL = enum.auto()  # a success, or an error that left the loop
    RETRY = enum.auto()


class Attempt:
    """One turn of `for attempt in policy:`; its block is `with attempt:`, entered once."""

    __slots__ = ("_inside", "_outcome", "_run", "number")

    def __init__(self, run: RetryRun, inside: AbstractContextManager[None]) -> None:
        self.number = run.number
        self._run = run
        self._inside = inside
        self._outcome = _Outcome.UNUSED

    @property
    def remaining(self) -> float | None:
        """Seconds before the deadline, the policy's or the one outside; None without one."""
        return self._run.remaining()

    def is_to_be_retried(self) -> bool:
        """Whether the block failed so that another attempt follows. For the policy's loop."""
        if self._outcome is _Outcome.UNUSED:
            raise RuntimeError("the attempt was not used: write `with attempt:` inside the loop")
        return self._outcome is _Outcome.RETRY

    def __enter__(self) -> Attempt:
        if self._outcome is not _Outcome.UNUSED:
            raise RuntimeError("an attempt is entered once: the loop gives the next one")
        self._outcome = _Outcome.FINAL
        self._inside.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._inside.__exit__(None, None, None)
        if isinstance(error, self._run.policy.on) and self._run.again(error):
            self._outcome = _Outcome.RETRY
        return self._outcome is _Outcome.RETRY


@functools.cache
def _log() -> logging.Logger:
    import logging  # half of this module's import time, for something that may never fail

    return logging.getLogger("sepelib.util.retry")


def _is_meant(error: Exception, on: tuple[type[Exception], ...]) -> bool:
    # A deadline from above is not a failure of the peer: `on=OSError` does not mean it.
    if not isinstance(error, DeadlineExceeded):
        return True
    return any(issubclass(cls, DeadlineExceeded) and isinstance(error, cls) for cls in on)


def _hint(error: Exception) -> float | None:
    hint = getattr(error, "retry_after", None)
    if isinstance(hint, int | float) and 0 <= hint < float("inf"):
        return hint
    return None


def _note(error: Exception, text: str) -> None:
    # One note, the outermost policy's: an error raised twice, or through nested policies, would
    # collect them.
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes[:] = [note for note in notes if not str(note).startswith(_NOTE)]
    with suppress(Exception):  # a frozen exception refuses; that must not take its place
        error.add_note(text)
