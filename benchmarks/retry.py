"""A retried call: what the wrapper costs when all goes well, and when the first try fails."""

import logging
from collections.abc import Callable

import backoff
import stamina
import tenacity

from benchmarks.runner import Comparison, Goal
from sepelib.util.retry import Backoff, retry

NO_PAUSE = Backoff(base=0.0, cap=0.0, jitter="none")


def answer() -> int:
    return 42


def pass_through(function: Callable[..., int]) -> Callable[..., int]:
    def wrapper(*args: object, **kwargs: object) -> int:
        return function(*args, **kwargs)

    return wrapper


def fails_every_second_time() -> Callable[[], int]:
    """Made anew for each variant: each call of a retried one is one failure, then one success."""
    failed = False

    def function() -> int:
        nonlocal failed
        failed = not failed
        if failed:
            raise ConnectionError("refused")
        return 42

    return function


def comparisons() -> list[Comparison]:
    for name in ("sepelib", "backoff", "tenacity", "stamina"):
        # Nobody's log lines: what a retry costs, not what a handler does.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    stamina.instrumentation.set_on_retry_hooks([])
    return [
        Comparison(
            "retry: success at once",
            retry(ConnectionError)(answer),
            {
                "a pass-through wrapper": pass_through(answer),
                "backoff": backoff.on_exception(backoff.expo, ConnectionError, max_tries=3)(answer),
                "tenacity": tenacity.retry(
                    retry=tenacity.retry_if_exception_type(ConnectionError),
                    stop=tenacity.stop_after_attempt(3),
                )(answer),
                "stamina": stamina.retry(on=ConnectionError)(answer),
            },
            goals=[Goal("a pass-through wrapper", 3.5), Goal("backoff", 1 / 7)],
        ),
        Comparison(
            "retry: one failure, then success, no pause",
            retry(ConnectionError, attempts=3, backoff=NO_PAUSE)(fails_every_second_time()),
            {
                "backoff": backoff.on_exception(
                    backoff.constant, ConnectionError, max_tries=3, interval=0, jitter=None
                )(fails_every_second_time()),
                "tenacity": tenacity.retry(
                    retry=tenacity.retry_if_exception_type(ConnectionError),
                    stop=tenacity.stop_after_attempt(3),
                )(fails_every_second_time()),
                "stamina": stamina.retry(
                    on=ConnectionError, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0
                )(fails_every_second_time()),
            },
            goals=[Goal("backoff", 1 / 20)],
        ),
    ]
