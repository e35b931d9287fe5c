import contextlib
import functools
import gc
import itertools
import random
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gevent
import gevent.lock
import pytest

from sepelib.util import retry as retry_module
from sepelib.util.deadline import Deadline, DeadlineExceeded, deadline, detached
from sepelib.util.retry import (
    Backoff,
    RetryBudget,
    RetryPolicy,
    RetryState,
    retries_disabled,
    retry,
    retry_call,
)
from sepelib.util.testing._clock import Clock

STEADY = Backoff(base=1.0, factor=1.0, cap=1.0, jitter="none")
AT_ONCE = Backoff(base=0.0)


class Peer:
    """Fails with each of *errors* in turn, then answers "ok" for ever."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "ok"


class Down(ConnectionError):
    pass


class Busy(ConnectionError):
    def __init__(self, retry_after: object) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class PeerDeadlineExceeded(DeadlineExceeded):
    pass


def on_clock(clock: Clock, on: Any = OSError, **options: Any) -> RetryPolicy:
    options.setdefault("backoff", STEADY)
    return RetryPolicy(on, clock=clock, sleep=clock.sleep, **options)


def at_once(on: Any = OSError, **options: Any) -> RetryPolicy:
    return RetryPolicy(on, backoff=AT_ONCE, **options)


def loop(policy: RetryPolicy, block: Callable[[], object]) -> None:
    for attempt in policy:
        with attempt:
            block()


def fails_with(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


# -- what is tried again ---------------------------------------------------------------------------


def test_a_named_failure_is_tried_again_until_it_works() -> None:
    clock, peer = Clock(), Peer(OSError("1"), ConnectionError("2"))
    assert on_clock(clock)(peer) == "ok"
    assert peer.calls == 3
    assert clock.sleeps == [1.0, 1.0]


def test_arguments_reach_each_attempt_and_the_result_comes_back() -> None:
    seen = []

    def work(*args: object, **kwargs: object) -> str:
        seen.append((args, kwargs))
        if len(seen) == 1:
            raise Down
        return "done"

    assert at_once()(work, 1, fn=2, self=3) == "done"
    assert seen == [((1,), {"fn": 2, "self": 3})] * 2


def test_what_is_not_named_passes_untouched_at_once() -> None:
    error = ValueError("a bug")
    peer = Peer(OSError("x"), error)
    with pytest.raises(ValueError, match="a bug") as caught:
        at_once()(peer)
    assert caught.value is error
    assert notes(error) == []
    assert peer.calls == 2


def test_the_last_error_is_raised_as_it_was_with_a_note() -> None:
    clock, errors = Clock(), [OSError("1"), OSError("2"), OSError("3")]
    with pytest.raises(OSError, match="3") as caught:
        on_clock(clock, attempts=3)(Peer(*errors))
    assert caught.value is errors[2]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # nor do the former errors hang on it
    assert notes(errors[2]) == ["retry: gave up after 3 attempts in 2.00 s: no attempt is left"]
    assert notes(errors[0]) == notes(errors[1]) == []


def test_one_attempt_is_no_retry() -> None:
    peer = Peer(OSError("x"))
    with pytest.raises(OSError, match="x") as caught:
        at_once(attempts=1)(peer)
    assert notes(caught.value) == ["retry: gave up after 1 attempt in 0.00 s: no attempt is left"]


def test_without_a_limit_of_attempts_it_goes_on() -> None:
    peer = Peer(*[OSError(str(n)) for n in range(500)])
    assert at_once(attempts=None)(peer) == "ok"
    assert peer.calls == 501


def test_retry_if_looks_at_the_error() -> None:
    busy, refused = Busy(0), ConnectionRefusedError("no")
    peer = Peer(busy, refused)
    with pytest.raises(ConnectionRefusedError) as caught:
        at_once(retry_if=lambda error: isinstance(error, Busy))(peer)
    assert caught.value is refused
    assert notes(refused) == []


def test_what_retry_if_and_on_retry_raise_goes_to_the_caller() -> None:
    def broken(_: object) -> bool:
        raise LookupError("hook")

    for policy in at_once(retry_if=broken), at_once(on_retry=broken):
        peer = Peer(OSError("x"))
        with pytest.raises(LookupError, match="hook"):
            policy(peer)
        with pytest.raises(LookupError, match="hook"):
            loop(policy, fails_with(OSError("x")))
        assert peer.calls == 1


def test_on_retry_is_told_before_each_wait() -> None:
    clock, told = Clock(), list[tuple[RetryState, float]]()
    start = clock.now
    errors = [OSError("1"), OSError("2"), OSError("3")]
    policy = on_clock(
        clock, deadline=10.0, on_retry=lambda state: told.append((state, clock.now - start))
    )
    with pytest.raises(OSError, match="3"):
        policy(Peer(*errors))
    assert told == [
        (RetryState(errors[0], 1, 1.0, 0.0, 10.0), 0.0),
        (RetryState(errors[1], 2, 1.0, 1.0, 9.0), 1.0),
    ]


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(1), gevent.GreenletExit(), gevent.Timeout(1), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_base_exceptions_pass_untouched(error: BaseException) -> None:
    policy = at_once(Exception)
    for run in policy, policy.decorate:
        peer = Peer(error)
        with pytest.raises(type(error)) as caught:
            run(peer) if run is policy else policy.decorate(peer)()
        assert caught.value is error
        assert peer.calls == 1
    with pytest.raises(type(error)) as caught:
        loop(policy, fails_with(error))
    assert caught.value is error
    assert notes(error) == []


def test_a_gevent_timeout_ends_a_retried_call() -> None:
    calls = []

    def hang() -> None:
        calls.append(1)
        gevent.sleep(60)

    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.01) as timeout:
        at_once(Exception)(hang)
    assert caught.value is timeout
    assert calls == [1]


def test_a_killed_greenlet_ends_in_its_wait() -> None:
    peer, ended = Peer(*[OSError("x")] * 9), []

    def work() -> None:
        try:
            RetryPolicy(
                Exception, backoff=Backoff(base=60, cap=60, jitter="none"), sleep=gevent.sleep
            )(peer)
        except BaseException as error:
            ended.append(error)
            raise

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    greenlet.kill()
    assert [type(error) for error in ended] == [gevent.GreenletExit]
    assert ended[0].__context__ is None  # the failure before the wait is over
    assert peer.calls == 1


def test_the_sleep_is_looked_up_at_each_call() -> None:
    # Under gevent's patching (the second run of this suite) another greenlet runs meanwhile.
    slept = threading.Event()
    other = threading.Thread(target=slept.set)
    peer = Peer(OSError("x"))
    backoff = Backoff(base=0.05, jitter="none")
    policy = RetryPolicy(OSError, backoff=backoff, on_retry=lambda _: other.start())
    assert policy(peer) == "ok"
    assert slept.is_set()
    other.join()


# -- waits -----------------------------------------------------------------------------------------


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(base=0.5, factor=3.0, cap=10.0, jitter="none")
    assert list(itertools.islice(backoff.delays(), 5)) == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_waits_never_overflow() -> None:
    delays = Backoff(base=1.0, factor=1e300, cap=5.0, jitter="none").delays()
    assert list(itertools.islice(delays, 2000))[-1] == 5.0


def test_full_jitter_draws_from_zero_to_the_bound() -> None:
    backoff = Backoff(base=1.0, factor=2.0, cap=8.0)
    runs = [list(itertools.islice(backoff.delays(rng=random.Random(n)), 5)) for n in range(500)]
    for delays, bound in zip(zip(*runs, strict=True), [1.0, 2.0, 4.0, 8.0, 8.0], strict=True):
        assert 0 <= min(delays) < 0.05 * bound
        assert 0.95 * bound < max(delays) <= bound
        assert 0.4 * bound < sum(delays) / len(delays) < 0.6 * bound
    assert runs[0] == list(itertools.islice(backoff.delays(rng=random.Random(0)), 5))


def test_a_policy_draws_from_its_rng() -> None:
    def sleeps(seed: int) -> list[float]:
        clock = Clock()
        policy = on_clock(clock, backoff=Backoff(), rng=random.Random(seed))
        policy(Peer(Down(), Down()))
        return clock.sleeps

    assert sleeps(1) == sleeps(1) != sleeps(2)


def test_jitter_without_an_rng_differs_from_run_to_run() -> None:
    first, second = (list(itertools.islice(Backoff().delays(), 8)) for _ in range(2))
    assert first != second


def test_a_base_of_zero_does_not_wait() -> None:
    clock = Clock()
    on_clock(clock, backoff=AT_ONCE)(Peer(Down(), Down()))
    assert clock.sleeps == []


@pytest.mark.parametrize(
    "options",
    [
        {"base": -1},
        {"base": float("nan")},
        {"cap": -1},
        {"cap": float("inf")},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"jitter": "some"},
    ],
)
def test_a_backoff_of_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=" of a Backoff is "):
        Backoff(**options)


def test_the_peers_hint_replaces_the_backoff() -> None:
    clock = Clock()
    on_clock(clock, attempts=4)(Peer(Busy(7), Busy(0), Busy(2.5)))
    assert clock.sleeps == [7, 2.5]  # 0: at once


@pytest.mark.parametrize("hint", [None, "soon", -1, float("nan"), float("inf")])
def test_a_hint_that_makes_no_sense_is_no_hint(hint: object) -> None:
    clock = Clock()
    on_clock(clock)(Peer(Busy(hint)))
    assert clock.sleeps == [1.0]


# -- deadlines -------------------------------------------------------------------------------------


def test_a_wait_that_would_pass_the_deadline_gives_up_now() -> None:
    clock, errors = Clock(), [OSError(str(n)) for n in range(9)]
    backoff = Backoff(base=2.0, factor=2.0, cap=60.0, jitter="none")
    start = clock.now
    with pytest.raises(OSError, match="2") as caught:
        on_clock(clock, attempts=9, backoff=backoff, deadline=10.0)(Peer(*errors))
    assert clock.sleeps == [2.0, 4.0]  # the next one, 8 s, ends 4 s late
    assert clock.now == start + 6.0
    assert caught.value is errors[2]
    assert notes(errors[2]) == [
        "retry: gave up after 3 attempts in 6.00 s: "
        "a wait of 8.00 s would pass the deadline (4.00 s left)"
    ]


def test_a_wait_that_would_leave_nothing_gives_up_too() -> None:
    clock = Clock()
    with pytest.raises(OSError, match="x"):
        on_clock(clock, deadline=1.0)(Peer(OSError("x")))
    assert clock.sleeps == []


def test_the_attempts_themselves_count_against_the_deadline() -> None:
    clock, calls = Clock(), []

    def slow() -> None:
        calls.append(clock.now)
        clock.advance(4.0)
        raise OSError("slow")

    with pytest.raises(OSError, match="slow") as caught:
        on_clock(clock, attempts=9, backoff=AT_ONCE, deadline=10.0)(slow)
    assert len(calls) == 3
    assert "3 attempts in 12.00 s: the deadline is over" in notes(caught.value)[0]


def test_a_hint_beyond_the_deadline_gives_up_now() -> None:
    clock, peer = Clock(), Peer(Busy(3600))
    with pytest.raises(Busy):
        on_clock(clock, deadline=10.0)(peer)
    assert clock.sleeps == []
    assert peer.calls == 1


def test_the_deadline_from_outside_is_obeyed() -> None:
    clock = Clock()
    backoff = Backoff(base=2.0, factor=2.0, cap=60.0, jitter="none")
    peer = Peer(*[OSError(str(n)) for n in range(9)])
    with deadline(10.0, clock=clock), pytest.raises(OSError, match="2"):
        on_clock(clock, attempts=9, backoff=backoff, deadline=100.0)(peer)
    assert clock.sleeps == [2.0, 4.0]


def test_a_policy_without_a_deadline_obeys_the_one_outside() -> None:
    peer = Peer(OSError("x"))
    with deadline(30.0), pytest.raises(OSError, match="x"):
        RetryPolicy(OSError, backoff=Backoff(base=60.0, cap=60.0, jitter="none"))(peer)
    assert peer.calls == 1


def test_each_attempt_runs_under_the_deadline_of_the_policy() -> None:
    clock, seen = Clock(), []

    def look() -> None:
        current = Deadline.current()
        assert current is not None
        seen.append(current.remaining())
        raise Down

    policy = on_clock(clock, deadline=10.0)
    with pytest.raises(Down):
        policy(look)
    with pytest.raises(Down):
        policy.decorate(look)()
    with pytest.raises(Down):
        loop(policy, look)
    assert seen == [10.0, 9.0, 8.0] * 3
    assert Deadline.current() is None


@pytest.mark.parametrize("on", [OSError, TimeoutError, Exception, (ValueError, TimeoutError)])
def test_deadline_exceeded_is_not_retried_for_being_a_timeout(on: Any) -> None:
    error = DeadlineExceeded("over")
    peer = Peer(error)
    with pytest.raises(DeadlineExceeded) as caught:
        at_once(on)(peer)
    assert caught.value is error
    assert peer.calls == 1
    assert notes(error) == []


@pytest.mark.parametrize(
    "on", [DeadlineExceeded, (OSError, DeadlineExceeded), PeerDeadlineExceeded]
)
def test_deadline_exceeded_is_retried_when_it_is_named(on: Any) -> None:
    assert at_once(on)(Peer(PeerDeadlineExceeded("peer"))) == "ok"


def test_another_deadline_exceeded_than_the_named_one_is_not_retried() -> None:
    peer = Peer(DeadlineExceeded("ours"))
    with pytest.raises(DeadlineExceeded):
        at_once((OSError, PeerDeadlineExceeded))(peer)
    assert peer.calls == 1


def test_nothing_is_retried_once_the_deadline_outside_is_over() -> None:
    for error in OSError("x"), DeadlineExceeded("over"):
        peer = Peer(error)
        with deadline(0), pytest.raises(type(error)):
            at_once((OSError, DeadlineExceeded))(peer)
        assert peer.calls == 1


# -- the loop --------------------------------------------------------------------------------------


def test_the_loop_ends_with_the_first_block_that_works() -> None:
    clock, peer, numbers = Clock(), Peer(OSError("1"), OSError("2")), []
    result = None
    for attempt in on_clock(clock):
        with attempt as entered:
            assert entered is attempt
            numbers.append(attempt.number)
            result = peer()
    assert result == "ok"
    assert numbers == [1, 2, 3]
    assert clock.sleeps == [1.0, 1.0]


def test_the_last_error_leaves_the_loop_with_a_note() -> None:
    clock, errors = Clock(), [OSError("1"), OSError("2"), OSError("3")]
    peer = Peer(*errors)
    with pytest.raises(OSError, match="3") as caught:
        loop(on_clock(clock), peer)
    assert caught.value is errors[2]
    assert caught.value.__context__ is None
    assert notes(errors[2]) == ["retry: gave up after 3 attempts in 2.00 s: no attempt is left"]


def test_an_error_that_is_not_named_leaves_the_loop_untouched() -> None:
    error = ValueError("bug")
    with pytest.raises(ValueError, match="bug") as caught:
        loop(at_once(), fails_with(error))
    assert caught.value is error
    assert notes(error) == []


def test_break_continue_and_return_inside_of_the_block_end_the_loop() -> None:
    def by_return() -> int:
        for attempt in at_once():
            with attempt:
                return attempt.number
        return 0

    assert by_return() == 1
    turns = 0
    for attempt in at_once():
        turns += 1
        with attempt:
            continue
    for attempt in at_once():
        turns += 1
        with attempt:
            break
    assert turns == 2


def test_break_after_a_failed_block_ends_the_loop_without_a_wait() -> None:
    clock = Clock()
    for attempt in on_clock(clock):
        with attempt:
            raise Down
        break
    assert clock.sleeps == []


def test_an_error_caught_around_the_block_ends_the_loop() -> None:
    turns = 0
    for attempt in at_once():
        turns += 1
        with contextlib.suppress(ValueError), attempt:
            raise ValueError
    assert turns == 1


def test_an_attempt_that_is_not_used_is_a_mistake_that_is_told() -> None:
    with pytest.raises(RuntimeError, match="write `with attempt:`"):
        for _ in at_once():
            pass


def test_an_attempt_is_entered_once() -> None:
    attempt = next(iter(at_once()))
    with attempt:
        pass
    with pytest.raises(RuntimeError, match="entered once"), attempt:
        pass


def test_an_attempt_tells_the_time_that_remains() -> None:
    clock, seen = Clock(), list[float | None]()

    def run() -> None:
        for attempt in on_clock(clock, deadline=10.0, attempts=2):
            assert Deadline.current() is outer  # ours is there inside of the block only
            seen.append(attempt.remaining)
            with attempt:
                clock.advance(0.5)
                seen.append(attempt.remaining)
                raise Down

    with deadline(50.0, clock=clock) as outer, pytest.raises(Down):
        run()
    assert seen == [10.0, 9.5, 8.5, 8.0]
    assert next(iter(on_clock(clock))).remaining is None
    with deadline(5.0, clock=clock):
        assert next(iter(on_clock(clock, deadline=10.0))).remaining == 5.0
        assert next(iter(on_clock(clock))).remaining == 5.0


def test_one_policy_runs_many_loops_at_once() -> None:
    policy = at_once(attempts=2)
    one, other = iter(policy), iter(policy)
    for loop in one, other, one, other:
        with contextlib.suppress(OSError), next(loop):
            raise Down
    assert list(one) == list(other) == []


# -- the decorator ---------------------------------------------------------------------------------


def test_a_decorated_function_keeps_its_name_and_signature() -> None:
    @retry(OSError)
    def work(a: int, *, b: str = "") -> None:
        """Works."""

    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert work.__wrapped__.__code__.co_varnames == ("a", "b")  # type: ignore[attr-defined]


def test_methods_of_all_kinds_are_retried() -> None:
    class Service:
        def __init__(self) -> None:
            self.peer = Peer(Down(), Down())

        shared = Peer(Down(), Down())

        @retry(OSError, backoff=AT_ONCE)
        def method(self, suffix: str) -> str:
            return self.peer() + suffix

        @classmethod
        @retry(OSError, backoff=AT_ONCE)
        def of_class(cls, suffix: str) -> str:
            return cls.shared() + suffix

        @staticmethod
        @retry(OSError, backoff=AT_ONCE)
        def static(suffix: str) -> str:
            return Service.shared() + suffix

        @property
        @retry(OSError, backoff=AT_ONCE)
        def prop(self) -> str:
            return self.peer()

    service = Service()
    assert service.method("!") == "ok!"
    assert Service.of_class("!") == "ok!"
    Service.shared.errors.append(Down())
    assert service.static("!") == "ok!"
    service.peer.errors.append(Down())
    assert service.prop == "ok"


def test_retry_above_staticmethod_or_classmethod_says_where_to_put_it() -> None:
    kinds: list[Any] = [staticmethod, classmethod]
    for kind in kinds:
        with pytest.raises(TypeError, match=f"put retry below @{kind.__name__}"):
            retry(OSError)(kind(len))


async def coroutine_function() -> None: ...


async def async_generator_function() -> AsyncIterator[None]:
    yield


def generator_function() -> Iterator[None]:
    yield


class Lazy:
    def __call__(self) -> Iterator[None]:
        yield

    def method(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "fn",
    [
        coroutine_function,
        async_generator_function,
        generator_function,
        functools.partial(functools.partial(generator_function)),
        Lazy(),
        Lazy().method,
    ],
    ids=["coroutine", "async generator", "generator", "partial", "object", "method"],
)
def test_what_runs_later_is_refused(fn: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="is a generator or coroutine function"):
        retry(OSError)(fn)
    with pytest.raises(TypeError, match="is a generator or coroutine function"):
        RetryPolicy(OSError)(fn)
    with pytest.raises(TypeError, match="is a generator or coroutine function"):
        retry_call(fn, policy=RetryPolicy(OSError))


def test_a_generator_expression_inside_is_no_reason_to_refuse() -> None:
    assert retry(OSError)(lambda: sum(n for n in range(3)))() == 3
    assert retry(OSError)(functools.partial(int, "5"))() == 5
    assert retry(OSError)(len)("abc") == 3
    assert retry(OSError)(dict)(a=1) == {"a": 1}


def test_retry_call_passes_all_but_the_policy() -> None:
    assert retry_call(dict, {"a": 1}, policy=at_once(), b=2) == {"a": 1, "b": 2}


# -- what is refused -------------------------------------------------------------------------------


def test_a_bare_decorator_is_refused() -> None:
    with pytest.raises(TypeError, match=r"name the exceptions to retry, as in retry\(\(OSError"):

        @retry  # type: ignore[arg-type]
        def work() -> None: ...


@pytest.mark.parametrize(
    "on", ["OSError", OSError("x"), int, [OSError], (OSError, (ValueError,)), ()]
)
def test_exceptions_must_be_named(on: Any) -> None:
    with pytest.raises(TypeError, match="name the exceptions to retry"):
        retry(on)


@pytest.mark.parametrize(
    "on", [BaseException, KeyboardInterrupt, gevent.Timeout, (OSError, gevent.GreenletExit)]
)
def test_classes_outside_of_exception_are_refused(on: Any) -> None:
    with pytest.raises(TypeError, match="is not retried"):
        RetryPolicy(on)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attempts": 0}, "at least 1 attempt"),
        ({"deadline": -1.0}, "the deadline of a policy"),
        ({"deadline": float("nan")}, "the deadline of a policy"),
        ({"layer": "session"}, "the layer of a policy"),
    ],
)
def test_a_policy_of_nonsense_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RetryPolicy(OSError, **options)


def test_a_policy_and_a_backoff_are_frozen() -> None:
    for value, field in (RetryPolicy(OSError), "attempts"), (Backoff(), "base"):
        with pytest.raises(AttributeError, match="is frozen"):
            setattr(value, field, 9)
        with pytest.raises(AttributeError, match="is frozen"):
            delattr(value, field)
        with pytest.raises(AttributeError):
            value.other = 9


def test_a_policy_shows_its_fields() -> None:
    policy = RetryPolicy(OSError, attempts=7)
    assert policy.on == (OSError,)
    assert (policy.attempts, policy.deadline, policy.layer) == (7, None, None)
    assert "attempts=7" in repr(policy)
    assert (
        repr(Backoff(1.0, 2.0, 3.0, "none"))
        == "Backoff(base=1.0, cap=3.0, factor=2.0, jitter='none')"
    )


# -- transports inside of transports ---------------------------------------------------------------


def test_a_transport_inside_of_a_transport_makes_one_attempt() -> None:
    for inner in (
        lambda peer: transport()(peer),
        lambda peer: transport().decorate(peer)(),
        loop_of_a_transport,
    ):
        peer = Peer(*[OSError(str(n)) for n in range(9)])
        with pytest.raises(OSError, match="2") as caught:
            transport()(inner, peer)
        assert peer.calls == 3
        assert notes(caught.value) == [
            "retry: gave up after 3 attempts in 0.00 s: no attempt is left"
        ]


def transport(**options: Any) -> RetryPolicy:
    return at_once(layer="transport", **options)


def loop_of_a_transport(peer: Peer) -> str:
    for attempt in transport():
        with attempt:
            return peer()
    raise AssertionError


def test_a_transport_inside_of_a_transports_loop_makes_one_attempt() -> None:
    peer = Peer(*[Down()] * 9)
    with pytest.raises(Down):
        loop(transport(), lambda: transport()(peer))
    assert peer.calls == 3
    # Between and after the attempts there is no transport around.
    peer = Peer(*[Down()] * 2)
    assert transport()(peer) == "ok"


def test_a_users_policy_neither_sets_nor_obeys_the_layer() -> None:
    for user in at_once(), at_once(deadline=60.0):
        peer = Peer(*[Down()] * 99)
        with pytest.raises(Down):
            user(transport(), peer)
        with pytest.raises(Down):
            transport()(user, peer)
        with pytest.raises(Down):
            loop(user, functools.partial(transport(), peer))
        with pytest.raises(Down):
            transport()(loop, user, peer)
        assert peer.calls == 4 * 9


def test_detached_work_inside_of_a_transport_counts_anew() -> None:
    peer = Peer(*[Down()] * 99)

    def load() -> str:
        with detached():
            return transport()(peer)

    with pytest.raises(Down):
        transport()(load)
    assert peer.calls == 9


def test_a_nested_transport_still_hands_its_deadline_down() -> None:
    clock = Clock()

    def look() -> float:
        current = Deadline.current()
        assert current is not None
        return current.remaining()

    assert transport()(transport(deadline=7.0, clock=clock), look) == 7.0


def test_a_nested_transport_spends_nothing_of_its_budget() -> None:
    budget = RetryBudget(ratio=1.0, min_per_second=0.0)
    with pytest.raises(Down):
        transport()(transport(budget=budget), Peer(*[Down()] * 9))
    with pytest.raises(Down):
        transport()(loop, transport(budget=budget), Peer(*[Down()] * 9))
    assert budget.balance(time.monotonic()) == 0


def test_the_layer_is_of_one_greenlet_only() -> None:
    peer = Peer(*[Down()] * 99)

    def outer() -> None:
        gevent.spawn(inner).join()

    def inner() -> None:
        with pytest.raises(Down):
            transport()(peer)

    transport()(outer)
    assert peer.calls == 3


# -- the budget ------------------------------------------------------------------------------------


def test_a_failing_backend_sees_a_tenth_more_load() -> None:
    clock, calls = Clock(), 0
    budget = RetryBudget(ratio=0.1, min_per_second=0.0, ttl=10.0)
    policy = on_clock(clock, attempts=5, backoff=AT_ONCE, budget=budget)

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise Down

    for _ in range(10_000):
        clock.advance(0.01)
        with pytest.raises(Down):
            policy(fail)
    assert 10_900 <= calls <= 11_000


def test_a_refusal_raises_the_last_error_with_a_note() -> None:
    error = OSError("down")
    policy = at_once(budget=RetryBudget(ratio=0.0, min_per_second=0.0))
    with pytest.raises(OSError, match="down") as caught:
        policy(Peer(error))
    assert caught.value is error
    assert notes(error) == [
        "retry: gave up after 1 attempt in 0.00 s: the retry budget of the backend is spent"
    ]


def test_who_calls_rarely_may_retry_at_all() -> None:
    budget = RetryBudget(ratio=0.0, min_per_second=0.5, ttl=10.0)
    assert [budget.try_withdraw(1000.0) for _ in range(6)] == [True] * 5 + [False]
    assert budget.try_withdraw(1009.0) is False
    assert budget.try_withdraw(1011.0) is True  # the window has passed on


def test_first_tries_are_worth_a_retry_for_ttl_seconds() -> None:
    budget = RetryBudget(ratio=0.5, min_per_second=0.0, ttl=10.0)
    for _ in range(8):
        budget.deposit(1000.0)
    assert budget.balance(1000.0) == 4
    assert budget.balance(1009.9) == 4
    assert budget.balance(1011.1) == 0
    for _ in range(4):
        budget.deposit(1011.2)
    assert budget.balance(1011.2) == 2


def test_one_budget_is_shared_by_the_policies_of_a_backend() -> None:
    budget = RetryBudget(ratio=0.0, min_per_second=0.1, ttl=10.0)
    one, other = at_once(budget=budget), at_once(ValueError, budget=budget)
    assert one(Peer(Down())) == "ok"
    with pytest.raises(ValueError, match="x"):
        other(Peer(ValueError("x")))


def test_the_budget_is_charged_before_the_wait() -> None:
    # Those asleep count: else a thousand sleepers would all come back at once.
    budget, seen = RetryBudget(ratio=0.0, min_per_second=1.0, ttl=3.0), []
    clock = Clock()

    def sleep(seconds: float) -> None:
        seen.append(budget.balance(clock.now))

    policy = RetryPolicy(OSError, backoff=STEADY, clock=clock, sleep=sleep, budget=budget)
    policy(Peer(Down(), Down()))
    assert seen == [2, 1]


def test_giving_up_for_another_reason_charges_nothing() -> None:
    budget = RetryBudget(ratio=0.0, min_per_second=1.0, ttl=1.0)
    with pytest.raises(Down), deadline(0):
        at_once(budget=budget)(Peer(Down()))
    with pytest.raises(Down):
        at_once(budget=budget, attempts=1)(Peer(Down()))
    with pytest.raises(Down), retries_disabled():
        at_once(budget=budget)(Peer(Down()))
    assert budget.balance(time.monotonic()) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": -0.1},
        {"ratio": float("nan")},
        {"min_per_second": -1},
        {"min_per_second": float("inf")},
        {"ttl": 0},
        {"ttl": float("nan")},
    ],
)
def test_a_budget_of_nonsense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="of a RetryBudget is "):
        RetryBudget(**options)


def run_in_native_threads(work: Callable[[], None], count: int = 4) -> None:
    """Real threads in both worlds, switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    pool = gevent.get_hub().threadpool
    sys.setswitchinterval(1e-6)
    try:
        for task in [pool.spawn(work) for _ in range(count)]:
            task.get()
    finally:
        sys.setswitchinterval(interval)


def test_native_threads_lose_no_first_try() -> None:
    budget = RetryBudget(ratio=1.0, min_per_second=0.0, ttl=10.0)

    def work() -> None:
        for _ in range(20_000):
            budget.deposit(1000.0)

    run_in_native_threads(work)
    assert budget.balance(1000.0) == 80_000


def test_native_threads_never_overdraw_a_budget() -> None:
    budgets = [RetryBudget(ratio=0.0, min_per_second=2.0, ttl=1.0) for _ in range(5_000)]
    granted: list[int] = []

    def work() -> None:
        granted.extend([1 for budget in budgets if budget.try_withdraw(1000.0)])

    run_in_native_threads(work)
    assert len(granted) == 10_000


def test_native_threads_and_a_moving_window_keep_the_bound() -> None:
    budget = RetryBudget(ratio=0.1, min_per_second=0.0, ttl=1.0)
    ticks, granted = itertools.count(), []

    def work() -> None:
        for _ in range(10_000):
            now = 1000.0 + next(ticks) * 0.001
            budget.deposit(now)
            if budget.try_withdraw(now):
                granted.append(1)

    run_in_native_threads(work)
    assert 3_500 <= len(granted) <= 4_000


# -- off, logs, leaks, cost ------------------------------------------------------------------------


def test_retries_can_be_switched_off_for_tests() -> None:
    peer = Peer(*[Down("x")] * 9)
    with retries_disabled():
        with pytest.raises(OSError, match="x") as caught, retries_disabled():
            at_once()(peer)
        with pytest.raises(Down):
            transport()(peer)
        with pytest.raises(Down):
            loop(at_once(), peer)
    assert peer.calls == 3
    assert "1 attempt in 0.00 s: retries are disabled" in notes(caught.value)[0]
    assert at_once(attempts=9)(peer) == "ok"


def test_the_switch_holds_in_threads_that_started_before() -> None:
    go, peer, errors = threading.Event(), Peer(*[OSError("x")] * 9), []

    def work() -> None:
        go.wait(30)
        try:
            at_once()(peer)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    with retries_disabled():
        go.set()
        thread.join(30)
    assert peer.calls == len(errors) == 1


def test_each_retried_failure_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    @retry(OSError, backoff=STEADY, clock=clock, sleep=clock.sleep)
    def fetch() -> None:
        raise ConnectionError("refused\nby the peer")

    with pytest.raises(ConnectionError):
        fetch()
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("sepelib.util.retry", "WARNING")
    ] * 2
    assert caplog.messages[1].endswith(
        "fetch: attempt 2 of 3 failed, next in 1.00 s: ConnectionError: refused by the peer"
    )


def test_an_error_that_cannot_say_what_it_is_is_retried_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mute(OSError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert at_once(attempts=None)(Peer(Mute())) == "ok"
    assert caplog.messages == [
        "Peer: attempt 1 failed, next in 0.00 s: Mute: (its text fails with ZeroDivisionError)"
    ]


def test_notes_do_not_pile_up() -> None:
    error = OSError("the same each time")
    error.add_note("mine")
    with pytest.raises(OSError, match="same"):
        at_once(attempts=2)(at_once(attempts=3), Peer(*[error] * 9))
    with pytest.raises(OSError, match="same"):
        at_once(attempts=4)(Peer(*[error] * 9))
    assert notes(error) == ["mine", "retry: gave up after 4 attempts in 0.00 s: no attempt is left"]


def test_an_error_that_refuses_notes_is_raised_without() -> None:
    class Frozen(OSError):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"no {name}")

    error = Frozen("x")
    with pytest.raises(Frozen) as caught:
        at_once()(Peer(*[error] * 3))
    assert caught.value is error


@pytest.mark.parametrize("options", [{}, {"deadline": 60.0, "layer": "transport"}])
def test_errors_and_their_frames_are_gone_at_once(options: dict[str, Any]) -> None:
    class Payload:
        pass

    def fail() -> None:
        payload = Payload()
        alive.append(weakref.ref(payload))
        raise OSError("x")

    def run_call() -> None:
        policy(fail)

    def run_loop() -> None:
        loop(policy, fail)

    def sleep(_: float) -> None:
        assert alive[-1]() is None  # not even during the wait

    policy = RetryPolicy(OSError, backoff=STEADY, sleep=sleep, **options)
    gc.disable()
    try:
        for run in run_call, policy.decorate(fail), run_loop:
            alive = list[weakref.ref[Payload]]()
            with contextlib.suppress(OSError):
                run()
            assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()


def test_greenlets_share_a_policy() -> None:
    policy = RetryPolicy(OSError, sleep=gevent.sleep, backoff=Backoff(0.001), attempts=4)
    peers = [Peer(*[Down()] * (n % 4)) for n in range(50)]
    greenlets = [gevent.spawn(policy, peer) for peer in peers]
    gevent.joinall(greenlets, raise_error=True, timeout=30)
    assert [greenlet.value for greenlet in greenlets] == ["ok"] * 50
    assert [peer.calls for peer in peers] == [n % 4 + 1 for n in range(50)]


def test_a_success_costs_little_more_than_a_wrapper() -> None:
    def fn(a: int) -> int:
        return a

    def wrapper(*args: Any, **kwargs: Any) -> int:
        return fn(*args, **kwargs)

    decorated = retry(OSError)(fn)

    def cost(call: Callable[[int], int]) -> float:
        best = 1e9
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(2000):
                call(1)
            best = min(best, time.perf_counter() - started)
        return best

    assert cost(decorated) < 7 * cost(wrapper)  # about 2; the benchmark holds 3.5


def test_all_public_names_are_there() -> None:
    assert set(retry_module.__all__) == {
        "Attempt",
        "Backoff",
        "RetryBudget",
        "RetryPolicy",
        "RetryState",
        "retries_disabled",
        "retry",
        "retry_call",
    }
    assert all(hasattr(retry_module, name) for name in retry_module.__all__)
