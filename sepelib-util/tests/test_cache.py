import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.util.cache import CacheStats, TTLCache
from sepelib.util.deadline import Deadline, DeadlineExceeded, deadline
from sepelib.util.retry import RetryPolicy
from sepelib.util.testing import Clock

LIMIT = 20.0  # seconds; far more than anything here takes


class Killed(BaseException):
    """As GreenletExit, in both worlds."""


class Down(ConnectionError):
    pass


class Value:
    pass


class Call:
    """A call in a thread of its own, which is a greenlet where gevent patched."""

    def __init__(self, fn: Callable[[], object]) -> None:
        self._fn = fn
        self.result: object = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._fn()
        except BaseException as e:
            self.error = e

    def join(self) -> "Call":
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "a call hangs"
        return self

    def outcome(self) -> object:
        self.join()
        return self.result if self.error is None else type(self.error)


class Loader:
    """Begins, waits for `go`, and ends as told."""

    def __init__(self, result: object = "loaded") -> None:
        self.result = result
        self.begun = threading.Event()
        self.go = threading.Event()
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(LIMIT)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def in_flight(self, cache: TTLCache[str, Any], key: str = "key", **options: Any) -> Call:
        """A call that has begun to load *key*."""
        call = Call(lambda: cache.get_or_load(key, self, **options))
        assert self.begun.wait(LIMIT)
        return call


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < ends, "what was waited for does not come"
        time.sleep(0.001)


def asking(cache: TTLCache[str, Any], load: Callable[[], Any], number: int = 1) -> list[Call]:
    """Calls that wait for the load of "key" which is under way."""
    before = cache.stats().misses
    calls = [Call(lambda: cache.get_or_load("key", load)) for _ in range(number)]
    until(lambda: cache.stats().misses == before + number)
    return calls


def never() -> Any:
    raise AssertionError("loaded though it should not")


def failing(error: BaseException) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def counting() -> Callable[[], int]:
    numbers = iter(range(1, 1000))
    return lambda: next(numbers)


def test_a_value_is_kept_for_its_ttl() -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, clock=clock)
    load = counting()

    assert cache.get_or_load("key", load) == 1
    clock.advance(4.9)
    assert cache.get_or_load("key", load) == 1 and cache.get("key") == 1
    clock.advance(0.1)
    assert cache.get("key") is None and cache.get("key", "none") == "none"
    assert cache.get_or_load("key", load) == 2
    assert cache.stats() == CacheStats(hits=2, misses=4, loads=2, stale=0, evictions=0)


def test_none_and_false_are_values_too() -> None:
    cache: TTLCache[str, object] = TTLCache(10, ttl=5.0)

    assert cache.get_or_load("key", lambda: None) is None
    assert cache.get_or_load("key", never) is None
    assert cache.get("key", "default") is None


def test_the_least_recently_used_value_makes_room() -> None:
    cache: TTLCache[str, int] = TTLCache(2, ttl=60.0)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)

    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2 and cache.stats().evictions == 1


def test_each_value_may_have_a_ttl_of_its_own() -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, clock=clock)
    cache.set("short", 1, ttl=1.0)
    cache.set("long", 2, ttl=math.inf)
    cache.get_or_load("seen", lambda: 3, ttl=lambda value: value * 2.0)
    clock.advance(5.5)

    assert (cache.get("short"), cache.get("long"), cache.get("seen")) == (None, 2, 3)
    clock.advance(0.5)
    assert cache.get("seen") is None


@pytest.mark.parametrize("ttl", [0, -1.0, -math.inf])
def test_a_value_that_lives_no_longer_is_given_and_not_kept(ttl: float) -> None:
    cache: TTLCache[str, Value] = TTLCache(10, ttl=5.0)
    cache.set("key", Value())
    cache.set("key", Value(), ttl=ttl)
    assert len(cache) == 0

    value = cache.get_or_load("key", Value, ttl=lambda _: ttl)
    alive = weakref.ref(value)
    del value
    assert len(cache) == 0 and alive() is None


@pytest.mark.parametrize(
    "options",
    [
        *[{"maxsize": 0}, {"maxsize": True}, {"maxsize": 1.5}, {"ttl": -1}, {"ttl": math.nan}],
        *[{"stale_on_error": -1}, {"load_timeout": 0}, {"load_timeout": -1}, {"ttl": math.inf}],
    ],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"maxsize|ttl|stale_on_error|timeout"):
        TTLCache(**{"maxsize": 1, "ttl": 1.0, **options})


@pytest.mark.parametrize("ttl", [math.nan, "5", True])
def test_a_ttl_that_is_no_number_is_refused_and_a_load_with_it_failed(ttl: Any) -> None:
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0)
    with pytest.raises((TypeError, ValueError), match="a ttl is"):
        cache.set("key", 1, ttl=ttl)
    with pytest.raises((TypeError, ValueError), match="a ttl is"):
        cache.get_or_load("key", lambda: 1, ttl=lambda _: ttl)

    assert cache.get_or_load("key", lambda: 2) == 2


def test_a_thousand_calls_for_one_key_are_one_load() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    load = Loader()
    first = load.in_flight(cache)
    others = asking(cache, load, 999)
    load.go.set()

    assert {call.outcome() for call in [first, *others]} == {"loaded"}
    assert load.calls == 1
    assert cache.stats() == CacheStats(hits=0, misses=1000, loads=1, stale=0, evictions=0)


def test_different_keys_load_at_the_same_time_and_reads_do_not_wait() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    cache.set("there", 1)
    one, two = Loader(1), Loader(2)
    calls = [one.in_flight(cache, "one"), two.in_flight(cache, "two")]

    assert cache.get("there") == 1 and cache.get_or_load("there", never) == 1
    assert cache.get("one") is None
    cache.set("there", 2)
    for load in (two, one):
        load.go.set()
    assert [call.outcome() for call in calls] == [1, 2]


def test_when_the_loader_is_killed_one_of_the_others_takes_over() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, stale_on_error=60.0)
    cache.set("key", "old")
    cache.invalidate("key")
    killed, load = Loader(Killed()), Loader()
    first = killed.in_flight(cache)
    others = asking(cache, load, 20)
    killed.go.set()
    assert first.outcome() is Killed
    assert load.begun.wait(LIMIT)
    load.go.set()

    assert {call.outcome() for call in others} == {"loaded"}
    assert load.calls == 1 and cache.stats().loads == 2 and cache.stats().stale == 0


def test_a_greenlet_that_is_killed_while_loading_leaves_its_key_free() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    greenlet = gevent.spawn(cache.get_or_load, "key", lambda: gevent.sleep(LIMIT))
    gevent.sleep(0)
    greenlet.kill()

    assert cache.get_or_load("key", lambda: 2) == 2
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        cache.get_or_load("other", lambda: gevent.sleep(LIMIT))
    assert cache.get_or_load("other", lambda: 3) == 3


def test_all_who_wait_get_the_error_and_later_calls_try_again() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    load = Loader(Down("refused"))
    first = load.in_flight(cache)
    others = asking(cache, never, 20)
    load.go.set()

    assert {call.outcome() for call in [first, *others]} == {Down}
    assert first.error is load.result and load.calls == 1
    assert cache.get_or_load("key", lambda: 2) == 2


def frames_of(error: BaseException | None) -> int:
    count, traceback = 0, error and error.__traceback__
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count


def test_a_shared_error_does_not_collect_the_frames_of_all_who_get_it() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    load = Loader(Down("refused"))
    first = load.in_flight(cache)
    others = asking(cache, never, 20)
    load.go.set()
    for call in [first, *others]:
        call.join()

    assert 2 <= frames_of(first.error) <= 10


def test_nothing_keeps_an_error_alive() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, stale_on_error=60.0)
    gone: list[weakref.ref[Down]] = []

    def load() -> Any:
        error = Down("refused")
        gone.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with pytest.raises(Down):
            cache.get_or_load("key", load)
        cache.set("key", 1)
        cache.invalidate("key")
        assert cache.get_or_load("key", load) == 1
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_an_expired_value_is_given_while_its_load_fails_and_no_longer_than_allowed() -> None:
    clock = Clock()
    cache: TTLCache[str, str] = TTLCache(10, ttl=5.0, stale_on_error=60.0, clock=clock)
    cache.set("key", "old")
    clock.advance(64.9)
    assert cache.get_or_load("key", failing(Down("refused"))) == "old"
    assert cache.get("key") is None
    clock.advance(0.1)
    with pytest.raises(Down):
        cache.get_or_load("key", failing(Down("refused")))

    assert len(cache) == 0 and cache.stats().stale == 1


def test_a_value_that_gets_too_old_while_its_load_fails_is_not_given() -> None:
    clock = Clock()
    cache: TTLCache[str, str] = TTLCache(10, ttl=5.0, stale_on_error=60.0, clock=clock)
    cache.set("key", "old")
    clock.advance(60.0)

    def load() -> str:
        clock.advance(20.0)
        raise Down("refused")

    with pytest.raises(Down):
        cache.get_or_load("key", load)


def test_who_waits_for_a_load_that_hangs_gets_the_expired_value() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, stale_on_error=60.0, load_timeout=0.05)
    cache.set("key", "old")
    cache.invalidate("key")
    load = Loader("new")
    first = load.in_flight(cache)

    assert cache.get_or_load("key", never) == "old"
    load.go.set()
    assert first.outcome() == "new" and cache.get("key") == "new"


def test_all_who_wait_for_a_load_that_fails_get_the_expired_value() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, stale_on_error=60.0)
    cache.set("key", "old")
    cache.invalidate("key")
    load = Loader(Down("refused"))
    first = load.in_flight(cache)
    others = asking(cache, never, 20)
    load.go.set()

    assert {call.outcome() for call in [first, *others]} == {"old"}
    assert cache.stats().stale == 21 and load.calls == 1
    assert cache.get_or_load("key", lambda: "new") == "new"


def test_an_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, stale_on_error=60.0, clock=clock)
    cache.set("a", 1)
    cache.set("b", 2)
    clock.advance(6.5)
    load = failing(Down("refused by http://ivan:hunter2@host/"))
    for _ in range(3):
        for key in "ab":
            cache.get_or_load(key, load)

    assert caplog.messages == [
        "failing.<locals>.load fails, values that expired are given instead (this one 1.5s ago): "
        "Down: refused by http://ivan:***@host/"
    ]
    assert caplog.records[0].levelno == logging.WARNING
    cache.get_or_load("a", lambda: 3)
    clock.advance(6.0)
    cache.get_or_load("a", load)
    assert len(caplog.messages) == 2


def test_one_key_that_always_fails_beside_others_that_work_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, stale_on_error=60.0, clock=clock)
    cache.set("bad", 1)
    for _ in range(5):
        clock.advance(6.0)
        cache.get_or_load("bad", failing(Down("refused")))
        cache.get_or_load("good", lambda: 2)

    assert len(caplog.messages) == 1


def test_cancellation_is_never_answered_with_an_expired_value() -> None:
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, stale_on_error=60.0)
    cache.set("key", 1)
    cache.invalidate("key")

    with pytest.raises(Killed):
        cache.get_or_load("key", failing(Killed()))


def test_an_invalidated_value_may_be_given_stale_and_a_deleted_one_not() -> None:
    cache: TTLCache[str, int] = TTLCache(10, ttl=5.0, stale_on_error=60.0)
    cache.set("key", 1)
    cache.invalidate("key")
    cache.invalidate("unknown")

    assert cache.get("key") is None
    assert cache.get_or_load("key", failing(Down())) == 1
    assert cache.delete("key") and not cache.delete("key")
    with pytest.raises(Down):
        cache.get_or_load("key", failing(Down()))


@pytest.mark.parametrize("how", ["delete", "invalidate", "clear", "set"])
def test_a_load_that_began_before_a_change_does_not_undo_it(how: str) -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    load = Loader("old")
    first = load.in_flight(cache)
    (waiting,) = asking(cache, never)
    arguments = {"clear": (), "set": ("key", "new")}.get(how, ("key",))
    getattr(cache, how)(*arguments)

    assert cache.get_or_load("key", lambda: "new") == "new"  # waits for no old load
    load.go.set()
    assert (first.outcome(), waiting.outcome()) == ("old", "old")
    assert cache.get("key") == "new"


def test_clear_forgets_all() -> None:
    cache: TTLCache[str, int] = TTLCache(10, ttl=60.0)
    cache.set("a", 1)
    cache.clear()

    assert len(cache) == 0 and cache.get("a") is None


def test_a_load_runs_under_the_timeout_of_the_cache_not_under_its_callers_deadline() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, load_timeout=5.0)
    tries = []

    def load() -> float:
        current = Deadline.current()
        assert current is not None
        with pytest.raises(Down):
            RetryPolicy(Down, attempts=2, layer="transport", sleep=tries.append)(failing(Down()))
        return current.remaining()

    with deadline(0.5):
        outer = Deadline.current()
        left = RetryPolicy(Down, layer="transport")(cache.get_or_load, "key", load)
        assert Deadline.current() is outer

    assert 0.5 < left <= 5.0
    assert len(tries) == 1  # it retries, though its first caller is inside of such a policy


def test_who_waits_obeys_its_own_deadline_and_the_load_goes_on() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    load = Loader()
    first = load.in_flight(cache)
    with deadline(0.02), pytest.raises(DeadlineExceeded):
        cache.get_or_load("key", never)
    load.go.set()

    assert first.outcome() == "loaded" and cache.get("key") == "loaded"


def test_a_load_that_hangs_frees_its_waiters_and_its_key() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, load_timeout=0.05)
    load = Loader("late")
    first = load.in_flight(cache)
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
        cache.get_or_load("key", never)

    assert cache.get_or_load("key", lambda: "new") == "new"
    load.go.set()
    assert first.outcome() == "late" and cache.get("key") == "new"


def test_without_a_load_timeout_who_waits_waits() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, load_timeout=None)
    load = Loader()
    first = load.in_flight(cache)
    (waiting,) = asking(cache, never)
    load.go.set()

    assert (first.outcome(), waiting.outcome()) == ("loaded", "loaded")
    assert cache.get_or_load("other", Deadline.current) is None


def test_a_loader_may_use_the_cache_but_not_load_its_own_key() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)

    assert cache.get_or_load("a", lambda: cache.get_or_load("b", lambda: 1) + 1) == 2
    with pytest.raises(RuntimeError, match="the same key"):
        cache.get_or_load("c", lambda: cache.get_or_load("c", never))
    assert cache.get_or_load("c", lambda: 3) == 3


def test_without_single_flight_each_loads_and_the_last_begun_is_kept() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0, single_flight=False)
    one, two = Loader(1), Loader(2)
    calls = [one.in_flight(cache), two.in_flight(cache)]
    for load in (two, one):
        load.go.set()
        until(lambda: cache.get("key") == 2)

    assert [call.outcome() for call in calls] == [1, 2]
    assert cache.get("key") == 2
    with deadline(0.5):
        left = cache.get_or_load("other", lambda: Deadline.current().remaining())  # type: ignore[union-attr]
    assert left <= 0.5


def test_greenlets_and_native_threads_share_a_load() -> None:
    cache: TTLCache[str, Any] = TTLCache(10, ttl=60.0)
    pool = gevent.get_hub().threadpool

    def load() -> str:
        while cache.stats().misses < 2:
            gevent.sleep(0.001)
        return "by the greenlet"

    def spawn() -> Any:
        native = pool.spawn(cache.get_or_load, "key", never)
        return native, load()

    with gevent.Timeout(LIMIT, AssertionError("it did not come true")):
        native, value = cache.get_or_load("key", spawn, ttl=0)
        assert value == "by the greenlet"
        assert native.get() == (native, value)


def test_a_finalizer_of_a_value_may_use_the_cache() -> None:
    cache: TTLCache[str, object] = TTLCache(1, ttl=60.0)

    class Odd:
        def __del__(self) -> None:
            cache.set("by the finalizer", 1)

    cache.set("odd", Odd())
    cache.set("b", 2)

    assert len(cache) == 1
    cache.set("odd", Odd())
    cache.clear()
    assert cache.get("by the finalizer") == 1


KEYS = st.sampled_from("abcde")
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.sampled_from([None, 0.0, 1.0, 20.0])),
    st.tuples(st.sampled_from(["get", "load", "fail", "delete", "invalidate"]), KEYS),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0, 10.0])),
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_sequence_of_calls_gives_no_value_that_is_too_old(steps: list[Any]) -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(3, ttl=10.0, stale_on_error=5.0, clock=clock)
    written: dict[str, tuple[int, float]] = {}  # the last value, and when it expires
    numbers = iter(range(1000))
    for what, *arguments in steps:
        if what == "advance":
            clock.advance(*arguments)
            continue
        key = arguments[0]
        value, expires = written.get(key, (-1, -math.inf))
        if what == "set":
            ttl = arguments[1]
            written[key] = next(numbers), clock.now + (10.0 if ttl is None else ttl)
            cache.set(key, written[key][0], ttl=ttl)
            if ttl == 0.0:
                del written[key]
        elif what == "get":
            assert cache.get(key, -2) in ({value, -2} if clock.now < expires else {-2})
        elif what == "load":
            new = next(numbers)
            found = cache.get_or_load(key, lambda new=new: new)
            assert found == new or (found == value and clock.now < expires)
            if found == new:
                written[key] = new, clock.now + 10.0
        elif what == "fail":
            try:
                found = cache.get_or_load(key, failing(Down()))
            except Down:
                found = value
            else:
                assert clock.now < expires + 5.0
            assert found == value
        elif what == "delete":
            cache.delete(key)
            written.pop(key, None)
        else:
            cache.invalidate(key)
            if key in written:
                written[key] = value, min(expires, clock.now)
        assert len(cache) <= 3
