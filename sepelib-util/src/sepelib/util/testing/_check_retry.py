"""What every library with a retry policy inside has to pass."""

from __future__ import annotations

from collections.abc import Callable

from sepelib.util.deadline import detached
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing._require import require

__all__ = ["check_transport_nesting"]

_AT_ONCE = Backoff(0)


def check_transport_nesting(
    call: Callable[[], object], attempts: Callable[[], int], *, on: type[Exception]
) -> None:
    """AssertionError unless the retries inside of *call* give way to those of a transport above.

    call: raises *on* each time, after the retries of its own policy, which has
    `layer="transport"`. attempts: how many tries the peer (or a fake of it) has seen so far.
    """

    def tries(run: Callable[[], object]) -> int:
        before = attempts()
        try:
            run()
        except on:
            return attempts() - before
        raise AssertionError(f"returned instead of raising {on.__name__}")

    def detached_call() -> object:
        with detached():
            return call()

    transport = RetryPolicy(on, attempts=2, backoff=_AT_ONCE, layer="transport")
    user = RetryPolicy(on, attempts=2, backoff=_AT_ONCE)

    alone = tries(call)
    require(alone > 1, f"made {alone} attempt: there is no retry to give way")
    inside = tries(lambda: transport(call))
    require(inside == 2, f"inside 2 attempts of a transport: {inside} tries, not 2")
    below_user = tries(lambda: user(call))
    require(below_user == 2 * alone, f"inside 2 attempts of a user: {below_user}, not 2 x {alone}")
    between = tries(lambda: transport(user, call))
    require(between == 4, f"inside a user's 2 attempts inside a transport's 2: {between}, not 4")
    apart = tries(lambda: transport(detached_call))
    require(apart == 2 * alone, f"detached inside 2 attempts of a transport: {apart}")
    after = tries(call)
    require(after == alone, f"alone {alone} tries, and after all that {after}: the mark stayed")
