"""What every call that blocks has to pass."""

from __future__ import annotations

import time
from collections.abc import Callable

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing._require import require

__all__ = ["check_obeys_deadline"]


def check_obeys_deadline(
    call: Callable[[], object], *, seconds: float = 0.2, grace: float = 5.0
) -> None:
    """AssertionError unless *call*, which would block for long, ends with the current deadline.

    It has to raise DeadlineExceeded, not before *seconds* are over and at most *grace* seconds
    later; and at once when the deadline is over already. A call that never returns hangs the check.
    """
    elapsed = _time_until_exceeded(call, seconds)
    require(elapsed >= seconds / 2, f"ended after {elapsed:.3f} s of {seconds} s: it never blocked")
    require(elapsed <= seconds + grace, f"ended {elapsed - seconds:.1f} s after its deadline")
    late = _time_until_exceeded(call, 0.0)
    require(late <= grace, f"took {late:.1f} s to see that its deadline was over before")


def _time_until_exceeded(call: Callable[[], object], seconds: float) -> float:
    started = time.monotonic()
    try:
        with deadline(seconds):
            result = call()
    except DeadlineExceeded as error:
        require("\n" not in str(error), f"DeadlineExceeded has more than one line: {error!s}")
        return time.monotonic() - started
    except Exception as error:
        raise AssertionError(f"ended with {error!r}, not with DeadlineExceeded") from error
    raise AssertionError(f"returned {result!r} under a deadline of {seconds} s")
