"""How long and how often: the limits of a client, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from sepelib.util.retry import Backoff, RetryPolicy

from .errors import ApiConnectionError, ApiProtocolError, ApiResponseError

__all__ = ["Timeout", "checked_total", "pair", "policy_of"]

Timeout = float | tuple[float | None, float | None] | None


def pair(timeout: Timeout) -> tuple[float | None, float | None]:
    """To connect and to read."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    for seconds in (connect, read):
        if seconds is not None and not 0 < seconds < inf:
            raise ValueError(f"a timeout is finite and more than 0 seconds, not {seconds!r}")
    return connect, read


def checked_total(seconds: float | None) -> float | None:
    if seconds is not None and not 0 <= seconds < inf:
        raise ValueError(f"a total_timeout is finite and not negative, not {seconds!r}")
    return seconds


def policy_of(
    policy: RetryPolicy | None,
    clock: Callable[[], float] | None,
    sleep: Callable[[float], object] | None,
) -> RetryPolicy:
    """*policy*, or ours, as one of a transport: inside of another one it tries once."""
    if policy is None:
        on = (ApiConnectionError, ApiProtocolError, ApiResponseError)
        policy = RetryPolicy(on, attempts=3, backoff=Backoff(0.2, cap=5.0))
    return RetryPolicy(
        policy.on,
        attempts=policy.attempts,
        backoff=policy.backoff,
        deadline=policy.deadline,
        retry_if=policy.retry_if,
        on_retry=policy.on_retry,
        budget=policy.budget,
        layer="transport",
        sleep=sleep or policy.sleep,
        clock=clock or policy.clock,
        rng=policy.rng,
    )
