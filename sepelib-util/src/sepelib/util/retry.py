"""Try again, later and later, until it works or there is nothing left to spend.

    @retry((ConnectionError, TimeoutError), attempts=5, deadline=10.0)
    def fetch() -> bytes: ...

    for attempt in RetryPolicy(OSError):        # the same, around a block
        with attempt:
            fetch(timeout=attempt.remaining)

Units: all durations are seconds on a monotonic clock.
Errors: the last one is raised as it was, with a note of attempts and time; nothing is wrapped.
BaseExceptions (`gevent.Timeout`, `GreenletExit`, `KeyboardInterrupt`) pass untouched.
Each failure that is tried again is one WARNING here; the last one is its catcher's to log.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from sepelib.util._backoff import Backoff
from sepelib.util._budget import RetryBudget
from sepelib.util._frozen import Frozen
from sepelib.util._layer import in_transport
from sepelib.util._lazy import refuse_lazy
from sepelib.util._retry_run import Attempt, RetryRun, RetryState, retries_disabled
from sepelib.util.deadline import Deadline, checked_seconds
from sepelib.util.deadline import deadline as under_deadline

if TYPE_CHECKING:
    import random

__all__ = [
    "Attempt",
    "Backoff",
    "RetryBudget",
    "RetryPolicy",
    "RetryState",
    "retries_disabled",
    "retry",
    "retry_call",
]

P = ParamSpec("P")
T = TypeVar("T")

_BACKOFF = Backoff()


class RetryPolicy(Frozen):
    """What to retry, how often, how late. Calls a function, or loops over a block.

    on: the exceptions to retry, named as for `except`. A DeadlineExceeded, though it is an OSError,
    is retried only when that class itself is among them.
    attempts: tries in all, the first included; None is no limit.
    deadline: seconds for all attempts and waits, and the current `Deadline` of each attempt. A wait
    that would reach it, or one from outside, is not begun: the last error is raised at once.
    retry_if: asked with the error; False raises it. on_retry: told before each wait. Whatever
    either of them raises goes to the caller.
    budget: shared by all that call one backend; when it refuses, the last error is raised.
    layer: "transport" for a library that talks to a peer. Found inside the attempt of another such
    policy it calls once and leaves retrying to the outer one, or 3 x 3 tries would hit the peer.
    A policy without it neither sets nor obeys this; `deadline.detached()` leaves it.
    An error's `retry_after: float | None` replaces the backoff, since the peer asked for it;
    without a deadline it is obeyed, be it an hour.
    sleep, clock, rng: for tests; None looks up `time.sleep`, `time.monotonic`, `random` each time.

    Sharing: no state but the budget's; any number of threads and greenlets.
    """

    __slots__ = (
        "attempts",
        "backoff",
        "budget",
        "clock",
        "deadline",
        "layer",
        "on",
        "on_retry",
        "retry_if",
        "rng",
        "sleep",
    )
    on: tuple[type[Exception], ...]
    attempts: int | None
    backoff: Backoff
    deadline: float | None
    retry_if: Callable[[Exception], bool] | None
    on_retry: Callable[[RetryState], object] | None
    budget: RetryBudget | None
    layer: Literal["transport"] | None
    sleep: Callable[[float], object] | None
    clock: Callable[[], float] | None
    rng: random.Random | None

    def __init__(
        self,
        on: type[Exception] | tuple[type[Exception], ...],
        *,
        attempts: int | None = 3,
        backoff: Backoff = _BACKOFF,
        deadline: float | None = None,
        retry_if: Callable[[Exception], bool] | None = None,
        on_retry: Callable[[RetryState], object] | None = None,
        budget: RetryBudget | None = None,
        layer: Literal["transport"] | None = None,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if attempts is not None and attempts < 1:
            raise ValueError(f"a policy makes at least 1 attempt, not {attempts!r}")
        if layer not in (None, "transport"):
            raise ValueError(f"the layer of a policy is 'transport' or None, not {layer!r}")
        if deadline is not None:
            deadline = checked_seconds(deadline, "the deadline of a policy")
        self._freeze(
            on=_named_exceptions(on),
            attempts=attempts,
            backoff=backoff,
            deadline=deadline,
            retry_if=retry_if,
            on_retry=on_retry,
            budget=budget,
            layer=layer,
            sleep=sleep,
            clock=clock,
            rng=rng,
        )

    def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `fn(*args, **kwargs)`, tried again as this policy says."""
        refuse_lazy(fn, "retry", "retry")
        if self.layer is None and self.deadline is None:
            return self._call(fn, args, kwargs)
        return self._call_inside(fn, args, kwargs)

    def decorate(self, fn: Callable[P, T]) -> Callable[P, T]:
        """*fn* under this policy. Stands below `@staticmethod` and `@classmethod`."""
        refuse_lazy(fn, "retry", "retry")
        plain = self.layer is None and self.deadline is None
        call = self._call if plain else self._call_inside

        @functools.wraps(fn)
        def retrying(*args: P.args, **kwargs: P.kwargs) -> T:
            return call(fn, args, kwargs)

        return retrying

    def __iter__(self) -> Iterator[Attempt]:
        """Attempts, until a `with attempt:` ends without an error that is to be retried.

        The block's end, `break`, `continue` and `return` inside of the `with` are a success and end
        the loop; an error that is not retried (not named, or the last) leaves the loop. The code
        after the `with` runs after failed attempts too: put it inside.
        """
        nested = self.layer is not None and in_transport.get()
        started = (self.clock or time.monotonic)()
        if self.budget is not None and not nested:
            self.budget.deposit(started)
        with under_deadline(self.deadline, clock=self.clock) as limit:
            pass  # the earlier of ours and the one outside; each attempt enters it for itself
        run = RetryRun(self, "a block", started, limit, nested=nested)
        while True:
            attempt = Attempt(run, self._inside(limit))
            yield attempt
            if not attempt.is_to_be_retried():
                return
            run.wait()

    def _call(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        # A first try that works pays for a clock and a `try`; all the rest is behind `except`.
        started = (self.clock or time.monotonic)()
        if self.budget is not None:
            self.budget.deposit(started)
        run = None
        while True:
            try:
                return fn(*args, **kwargs)
            except self.on as error:
                if run is None:
                    run = RetryRun(self, fn, started, Deadline.current())
                if not run.again(error):
                    raise
            # Outside of `except`: during the wait, and as the context of the next error, the old
            # one would keep its traceback and all that the frames hold.
            run.wait()

    def _call_inside(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        call: Callable[..., T] = self._call
        mark = None
        if self.layer is not None:
            if in_transport.get():
                call = _call_once
            else:
                mark = in_transport.set(True)
        try:
            if self.deadline is None:
                return call(fn, args, kwargs)
            with under_deadline(self.deadline, clock=self.clock):
                return call(fn, args, kwargs)
        finally:
            if mark is not None:
                in_transport.reset(mark)

    @contextmanager
    def _inside(self, limit: Deadline | float | None) -> Iterator[None]:
        mark = None if self.layer is None else in_transport.set(True)
        try:
            with under_deadline(limit, clock=self.clock):
                yield
        finally:
            if mark is not None:
                in_transport.reset(mark)


def retry(
    on: type[Exception] | tuple[type[Exception], ...],
    *,
    attempts: int | None = 3,
    backoff: Backoff = _BACKOFF,
    deadline: float | None = None,
    retry_if: Callable[[Exception], bool] | None = None,
    on_retry: Callable[[RetryState], object] | None = None,
    budget: RetryBudget | None = None,
    layer: Literal["transport"] | None = None,
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] | None = None,
    rng: random.Random | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function or method with a `RetryPolicy` of these arguments.

    TypeError at decoration for a generator or coroutine function: its call fails never, its body
    runs later.
    """
    return RetryPolicy(
        on,
        attempts=attempts,
        backoff=backoff,
        deadline=deadline,
        retry_if=retry_if,
        on_retry=on_retry,
        budget=budget,
        layer=layer,
        sleep=sleep,
        clock=clock,
        rng=rng,
    ).decorate


def retry_call(fn: Callable[..., T], /, *args: Any, policy: RetryPolicy, **kwargs: Any) -> T:
    """`policy(fn, *args, **kwargs)`, which type checkers see more of."""
    return policy(fn, *args, **kwargs)


def _call_once(fn: Callable[..., T], args: Any, kwargs: Any) -> T:
    return fn(*args, **kwargs)


def _named_exceptions(on: object) -> tuple[type[Exception], ...]:
    named = on if isinstance(on, tuple) else (on,)
    for cls in named:
        if not isinstance(cls, type) or not issubclass(cls, BaseException):
            raise TypeError(
                f"name the exceptions to retry, as in retry((OSError, ...)), not {cls!r}"
            )
        if not issubclass(cls, Exception):
            raise TypeError(f"{cls.__name__} ends a greenlet or the process: it is not retried")
    if not named:
        raise TypeError("name the exceptions to retry: an empty tuple retries nothing")
    return named
