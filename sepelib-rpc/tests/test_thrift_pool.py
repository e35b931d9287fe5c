"""The pool of connections, over connections that a test makes stale, slow or broken."""

import contextlib
import itertools
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sepelib.core.exceptions import LogicalError
from sepelib.rpc._connection import Connection, ConnectionState
from sepelib.rpc._hosts import Host, Hosts
from sepelib.rpc._pool import Pool
from sepelib.rpc._thrift_errors import ConnectFailed, DeadlineExceeded, PoolExhausted
from sepelib.util.testing import MemoryRecorder

GREEN = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("socket")
LONG = 10.0


class Killed(BaseException):
    """What a GreenletExit is to the code that it strikes."""


@contextlib.contextmanager
def killed_after(seconds: float) -> Iterator[None]:
    """Raise Killed out of whatever the block waits in."""
    if GREEN:
        import gevent

        with gevent.Timeout(seconds, Killed()):
            yield
        return

    def strike(*_: object) -> None:
        raise Killed

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class Fake(Connection):
    def __init__(self, number: int, target: str) -> None:
        self.number = number
        self.target = target
        self.fresh = True
        self.closed = 0

    def send(self, message: bytes, end: float) -> None: ...

    def receive(self, size: int) -> bytes:
        return b""

    def is_at_end(self) -> bool:
        return True

    def is_fresh(self) -> bool:
        return self.fresh

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A pool, what it has made so far, and what the next connects do instead."""

    def __init__(self, *labels: str, size: int = 2, wait: float = 0.05, **options: Any) -> None:
        self.recorder = MemoryRecorder()
        connects = self.recorder.counter("connects", "", ("result",))
        self.made: list[Fake] = []
        self.numbers = itertools.count()
        self.ends: list[float] = []
        self.dead: dict[str, BaseException] = {}
        self.hosts = [Host(label, label) for label in labels or ("a:1",)]
        options = {"connect_timeout": 3.0, "max_idle": 60.0, "max_age": 600.0} | options
        self.pool = Pool(
            Hosts(self.hosts, probe_time=3.0, rng=random.Random(1)),
            self.connect,
            size=size,
            wait=wait,
            connects={name: connects.labels(name) for name in ("ok", "failed", "cancelled")},
            **options,
        )

    def connect(self, target: str, end: float) -> Fake:
        self.ends.append(end)
        if target in self.dead:
            raise self.dead[target]
        fake = Fake(next(self.numbers), target)
        self.made.append(fake)
        return fake

    def acquire(self, *, later: float = 0.0, limit: float = math.inf) -> Fake:
        taken = self.pool.acquire("echo", time.monotonic() + later, limit)
        assert isinstance(taken, Fake)
        return taken

    def release(self, connection: Connection, *, later: float = 0.0) -> None:
        self.pool.release(connection, time.monotonic() + later)

    def several(self, count: int) -> list[Fake]:
        """So many idle ones, the first released first."""
        taken = [self.acquire() for _ in range(count)]
        for connection in taken:
            self.release(connection)
        return taken

    def connects(self, result: str) -> float:
        return self.recorder.value("connects", result)


def started(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "not so in time"
        time.sleep(0.001)


# Which connection.


def test_the_last_connection_used_is_the_next_one() -> None:
    rig = Rig()
    first, second = rig.several(2)

    assert rig.acquire() is second
    assert rig.acquire() is first
    assert rig.connects("ok") == 2


def test_stale_connections_are_closed_and_cost_no_failure() -> None:
    rig = Rig(size=3)
    for connection in rig.several(3):
        connection.fresh = False

    fresh = rig.acquire()

    assert fresh.number == 3
    assert [connection.closed for connection in rig.made] == [1, 1, 1, 0]
    assert [connection.state for connection in rig.made[:3]] == [ConnectionState.CLOSED] * 3
    assert rig.pool.stats()["hosts"]["a:1"]["failures"] == 0


@pytest.mark.parametrize(("later", "reused"), [(59.0, True), (61.0, False)])
def test_a_connection_idle_for_too_long_is_not_used(later: float, reused: bool) -> None:
    rig = Rig(max_idle=60.0)
    (old,) = rig.several(1)

    assert (rig.acquire(later=later) is old) is reused
    assert old.closed == (not reused)


def test_those_left_at_the_bottom_are_closed_when_others_come_back() -> None:
    rig = Rig(max_idle=60.0)
    bottom, _ = rig.several(2)

    busy = rig.acquire(later=50.0)
    rig.release(busy, later=61.0)

    assert bottom.closed == 1 and busy.closed == 0
    assert rig.pool.idle == 1


def test_a_connection_past_its_age_is_not_taken_and_not_taken_back() -> None:
    rig = Rig(max_age=600.0, max_idle=None)
    first, second = rig.several(2)
    assert rig.acquire() is second
    rig.release(second, later=601.0)
    assert second.closed == 1

    assert rig.acquire(later=601.0) not in (first, second)
    assert first.closed == 1


def test_no_limits_when_the_caller_writes_none() -> None:
    rig = Rig(max_age=None, max_idle=None, connect_timeout=None)
    (old,) = rig.several(1)

    assert rig.acquire(later=1e9) is old
    assert rig.ends == [math.inf]


# How many.


def test_no_more_than_size_and_who_waits_too_long_is_told_so() -> None:
    rig = Rig(size=2, wait=0.05)
    rig.acquire()
    rig.acquire()

    before = time.monotonic()
    with pytest.raises(PoolExhausted, match=r"all 2 connections .* pool_size=.*; not executed"):
        rig.acquire()
    waited = time.monotonic() - before

    assert 0.04 <= waited < LONG
    assert len(rig.made) == 2 and rig.pool.waiting == 0


def test_the_deadline_of_the_caller_ends_the_wait_before() -> None:
    rig = Rig(size=1, wait=LONG)
    rig.acquire()

    with pytest.raises(DeadlineExceeded) as exceeded:
        rig.acquire(limit=time.monotonic() + 0.05)

    assert not exceeded.value.maybe_executed
    assert rig.pool.waiting == 0


def test_who_waits_gets_the_slot_though_the_one_before_asks_again_at_once() -> None:
    rig = Rig(size=1, wait=LONG)
    mine = rig.acquire()
    order: list[str] = []

    def wait_in_line() -> None:
        connection = rig.acquire()
        order.append("waiting")
        rig.release(connection)

    thread = started(wait_in_line)
    until(lambda: rig.pool.waiting == 1)
    rig.release(mine)
    again = rig.acquire()
    order.append("greedy")
    rig.release(again)
    thread.join(LONG)

    assert order == ["waiting", "greedy"]


def test_those_who_wait_are_served_in_turn() -> None:
    rig = Rig(size=1, wait=LONG)
    held = rig.acquire()
    order: list[int] = []

    def wait_in_line(number: int) -> None:
        connection = rig.acquire()
        order.append(number)
        rig.release(connection)

    threads = []
    for number in range(4):
        threads.append(started(lambda number=number: wait_in_line(number)))
        until(lambda number=number: rig.pool.waiting == number + 1)
    rig.release(held)
    for thread in threads:
        thread.join(LONG)

    assert order == [0, 1, 2, 3]


def test_who_is_killed_while_waiting_leaves_nothing_behind() -> None:
    rig = Rig(size=1, wait=LONG)
    held = rig.acquire()

    with pytest.raises(Killed), killed_after(0.05):
        rig.acquire()

    assert rig.pool.waiting == 0
    rig.release(held)
    assert rig.acquire() is held


def test_a_slot_handed_to_who_is_being_killed_goes_on_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(size=1, wait=LONG)
    held = rig.acquire()

    class Doomed(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rig.release(held)  # the slot comes, and then what has been on its way
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Doomed)
        with pytest.raises(Killed):
            rig.acquire()

    assert rig.acquire() is held


def test_a_connect_that_is_killed_gives_its_slot_back() -> None:
    rig = Rig(size=1)
    rig.dead["a:1"] = Killed()
    with pytest.raises(Killed):
        rig.acquire()
    assert rig.connects("cancelled") == 1

    rig.dead.clear()
    assert rig.acquire().number == 0
    assert rig.pool.in_use == 1


def test_a_check_that_is_killed_closes_the_connection_and_gives_its_slot_back() -> None:
    rig = Rig(size=1)
    (idle,) = rig.several(1)

    def killed() -> bool:
        raise Killed

    idle.is_fresh = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        rig.acquire()

    assert idle.closed == 1
    assert rig.acquire() is not idle


def test_a_discarded_connection_makes_room_for_another() -> None:
    rig = Rig(size=1)
    broken = rig.acquire()
    rig.pool.discard(broken)

    assert broken.closed == 1 and broken.state is ConnectionState.CLOSED
    assert rig.acquire().number == 1


def test_many_threads_never_share_a_connection_nor_exceed_the_size() -> None:
    rig = Rig(size=3, wait=LONG)
    seen: set[int] = set()
    trouble: list[object] = []

    def work() -> None:
        source = random.Random(threading.get_ident())
        try:
            for _ in range(150):
                connection = rig.acquire()
                if connection.number in seen or len(seen) >= 3:
                    trouble.append((connection.number, set(seen)))
                seen.add(connection.number)
                time.sleep(0)
                seen.discard(connection.number)
                if source.random() < 0.1:
                    rig.pool.discard(connection)
                else:
                    rig.release(connection)
        except BaseException as error:
            trouble.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [started(work) for _ in range(8)]
        for thread in threads:
            thread.join(60.0)
    finally:
        sys.setswitchinterval(interval)

    assert not trouble and not any(thread.is_alive() for thread in threads)
    assert rig.pool.in_use == 0 and rig.pool.waiting == 0 and rig.pool.idle <= 3
    assert rig.pool.idle == sum(not connection.closed for connection in rig.made)


# Connecting.


def test_connecting_has_its_timeout_or_what_the_deadline_leaves() -> None:
    rig = Rig(connect_timeout=3.0)
    now = time.monotonic()
    rig.pool.acquire("echo", now, math.inf)
    rig.pool.acquire("echo", now, now + 1.0)

    assert rig.ends == [now + 3.0, now + 1.0]


def test_a_deadline_that_is_over_connects_no_more_but_uses_what_is_there() -> None:
    rig = Rig()
    with pytest.raises(DeadlineExceeded):
        rig.acquire(limit=time.monotonic() - 1)
    assert not rig.ends and rig.pool.in_use == 0


def test_a_failure_names_the_host_and_why() -> None:
    rig = Rig()
    rig.dead["a:1"] = ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectFailed) as failed:
        rig.acquire()

    assert str(failed.value) == "echo at a:1: no connection (Connection refused); not executed"
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)
    assert rig.connects("failed") == 1 and rig.pool.in_use == 0


def test_a_connect_cut_by_the_deadline_says_nothing_of_the_host() -> None:
    rig = Rig()
    rig.dead["a:1"] = TimeoutError("timed out")

    with pytest.raises(DeadlineExceeded):
        rig.acquire(limit=time.monotonic() + 0.01)

    assert rig.pool.stats()["hosts"]["a:1"]["failures"] == 0


def test_one_attempt_goes_on_to_the_next_host() -> None:
    rig = Rig("a:1", "b:1", "c:1")
    rig.dead = {"a:1": OSError("no"), "b:1": OSError("no")}

    assert rig.acquire().target == "c:1"

    rig.dead["c:1"] = OSError("no")
    rig.pool.discard(rig.made[0])
    with pytest.raises(ConnectFailed):
        rig.acquire()


def test_hosts_take_turns_and_each_has_idle_connections_of_its_own() -> None:
    rig = Rig("a:1", "b:1", size=4)
    for _ in range(3):
        for target in ("a:1", "b:1"):
            connection = rig.acquire()
            assert connection.target == target
            rig.release(connection)

    assert len(rig.made) == 2


def test_an_idle_connection_to_another_host_makes_room() -> None:
    rig = Rig("a:1", "b:1", size=2)
    for connection in (rig.acquire(), rig.acquire()):
        rig.release(connection)
    rig.acquire()
    rig.release(rig.acquire())
    assert (rig.pool.in_use, rig.pool.idle) == (1, 1)

    rig.acquire()  # the turn of a:1, whose only connection is in use

    assert (rig.pool.in_use, rig.pool.idle) == (2, 0)
    assert [connection.closed for connection in rig.made] == [0, 1, 0]


def test_an_ejected_host_loses_its_idle_connections() -> None:
    rig = Rig("a:1", "b:1", size=4)
    held = rig.acquire()
    assert held.target == "a:1"
    rig.dead["a:1"] = OSError("no")
    hosts, failed = rig.pool._hosts, Hosts.failed

    def released_meanwhile(host: Host, now: float) -> None:
        if host.failures == 2:
            rig.release(held)
        failed(hosts, host, now)

    hosts.failed = released_meanwhile  # type: ignore[method-assign]
    while rig.hosts[0].failures < 3:
        rig.pool.discard(rig.acquire())

    assert rig.pool.stats()["hosts"]["a:1"]["state"] == "ejected"
    assert held.closed == 1 and rig.pool.idle == 0


# The end.


def test_close_closes_idle_ones_now_and_used_ones_when_they_come_back() -> None:
    rig = Rig()
    idle, used = rig.several(2)
    assert rig.acquire() is used
    rig.pool.close()
    rig.pool.close()
    assert idle.closed == 1 and used.closed == 0

    rig.release(used)

    assert used.closed == 1 and rig.pool.idle == 0
    with pytest.raises(LogicalError, match="closed"):
        rig.acquire()


def test_close_wakes_those_who_wait() -> None:
    rig = Rig(size=1, wait=LONG)
    rig.acquire()
    caught: list[BaseException] = []

    def wait_in_line() -> None:
        try:
            rig.acquire()
        except BaseException as error:
            caught.append(error)

    thread = started(wait_in_line)
    until(lambda: rig.pool.waiting == 1)
    rig.pool.close()
    thread.join(LONG)

    assert [type(error) for error in caught] == [LogicalError]


def test_stats_tell_how_long_a_connection_has_been_idle() -> None:
    rig = Rig("a:1")
    rig.release(rig.acquire())

    [kept] = rig.pool.stats()["hosts"]["a:1"]["connections"]

    assert kept["state"] == "idle" and 0 <= kept["idle"] <= kept["age"] < LONG


def test_stats_are_plain_data() -> None:
    import json

    rig = Rig("a:1", "b:1", size=3)
    rig.dead["b:1"] = OSError("no")
    rig.release(rig.acquire())
    rig.acquire()  # b fails, a is idle

    stats = rig.pool.stats()
    assert json.loads(json.dumps(stats)) == stats
    [kept] = stats["hosts"]["a:1"].pop("connections")
    assert kept == {"state": "in_use", "age": kept["age"], "idle": None}
    assert 0 <= kept["age"] < LONG
    assert stats["hosts"]["b:1"].pop("connections") == []
    assert stats == {
        "size": 3,
        "waiting": 0,
        "hosts": {
            "a:1": {
                **{"state": "up", "idle": 0, "in_use": 1, "connects": 1, "failures": 0},
                "ejected_until": None,
            },
            "b:1": {
                **{"state": "up", "idle": 0, "in_use": 0, "connects": 0, "failures": 1},
                "ejected_until": None,
            },
        },
    }
