"""The contract of Condition where nothing fails: who is woken, when, in which order, the cost."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.monkey
import pytest

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import (
    Client,
    Condition,
    InterruptableLock,
    Interrupted,
    Lock,
    LockLost,
    LockNotAcquired,
    ReadLock,
    RLock,
    WriteLock,
    ZookeeperMisused,
)

PATH = "/jobs/changed"
LOCK = "/jobs/lock"


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        client = Client(zookeeper.hosts, **{"timeout": 20.0} | options)
        clients.append(client)
        client.start(timeout=20.0)
        return client

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """Another client, which looks at the server, and notifies."""
    return connect()


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def children(client: Client, path: str = PATH) -> list[str]:
    return list(client.get_children(path)) if client.exists(path) else []


def made(client: Client, lock: Lock | None = None, **options: Any) -> Condition:
    return Condition(client, PATH, lock or Lock(client, LOCK), **options)


class Waits:
    """A wait in a greenlet of its own, inside of a `with` of the lock."""

    def __init__(
        self, condition: Condition, timeout: float | None = 20.0, woken: list[Any] | None = None
    ) -> None:
        self.condition = condition
        self._woken = [] if woken is None else woken
        self._greenlet = gevent.spawn(self._run, timeout)

    def _run(self, timeout: float | None) -> Any:
        try:
            with self.condition.lock:
                result = self.condition.wait(timeout)
                self.condition.lock.check()
                self._woken.append(self)
                return result
        except BaseException as error:
            return error

    @property
    def ready(self) -> bool:
        return bool(self._greenlet.ready())

    def kill(self, kind: type[BaseException] = gevent.GreenletExit) -> None:
        self._greenlet.kill(kind, timeout=5.0)

    def result(self, seconds: float = 10.0) -> Any:
        """What it returned or raised."""
        self._greenlet.join(seconds)
        assert self.ready, f"it still waits after {seconds} s"
        return self._greenlet.value


def waiting(condition: Condition, operator: Client, **options: Any) -> Waits:
    """One that waits, and has released the lock."""
    before = len(children(operator))
    waits = Waits(condition, **options)
    eventually(lambda: len(children(operator)) > before and not children(operator, LOCK))
    return waits


# Waiting and waking.


def test_a_notify_wakes_who_waits_and_gives_the_lock_back(client: Client, operator: Client) -> None:
    waits = waiting(made(client), operator)
    other = made(operator)

    with other.lock:
        assert other.notify() == 1
        assert not children(operator)
        gevent.sleep(0.05)
        assert not waits.ready  # the lock is not free yet

    assert waits.result() is True
    assert children(operator, LOCK) == []


def test_the_lock_is_released_after_the_node_is_made(client: Client, operator: Client) -> None:
    waiting(made(client), operator)

    (waiter,) = children(operator)
    released = operator.exists(LOCK).pzxid
    assert operator.exists(f"{PATH}/{waiter}").czxid < released


def test_who_is_notified_as_soon_as_the_lock_is_free_is_woken(
    client: Client, operator: Client
) -> None:
    """Before it has set its watch, more often than not."""
    condition, other = made(client), made(operator)

    def notify() -> int:
        with other.lock:
            return other.notify()

    for _ in range(20):
        with condition.lock:
            notifies = gevent.spawn(notify)
            eventually(lambda: len(children(operator, LOCK)) == 2)
            assert condition.wait(10.0)
            assert notifies.get() == 1


@pytest.mark.parametrize("timeout", [0, 0.0001, 0.2])
def test_a_timeout_is_false_and_the_lock_was_free_meanwhile(
    client: Client, operator: Client, timeout: float
) -> None:
    condition, other = made(client), Lock(operator, LOCK)
    condition.lock.acquire()
    token = condition.lock.fencing_token
    between: list[int] = []

    def enter() -> None:
        with other:
            between.append(other.fencing_token)

    gevent.spawn(enter)
    eventually(lambda: len(children(operator, LOCK)) == 2)

    assert condition.wait(timeout) is False

    assert condition.lock.is_acquired
    assert token < between[0] < condition.lock.fencing_token
    eventually(lambda: not children(operator))


def holder(operator: Client) -> str:
    return f"{LOCK}/{min(children(operator, LOCK), key=lambda name: name[-10:])}"


def test_who_was_notified_while_it_gave_up_was_notified(client: Client, operator: Client) -> None:
    """Each notify that took a node has woken somebody, and no other wait says that it was woken."""
    other = made(operator)
    conditions = [made(client) for _ in range(4)]
    woken = notified = 0
    for number in range(15):
        waits = [Waits(condition, timeout=0.01 + number / 500) for condition in conditions]
        gevent.sleep(0.02)
        with other.lock:
            notified += other.notify(2)
        woken += [wait.result() for wait in waits].count(True)
    assert woken == notified > 0


def test_seven_of_twenty_are_woken_those_who_wait_longest(
    client: Client, operator: Client, connect: Callable[..., Client]
) -> None:
    clients = [client, connect()]
    order: list[Any] = []
    waits = [waiting(made(clients[i % 2]), operator, woken=order) for i in range(20)]
    other = made(operator)

    with other.lock:
        assert other.notify(7) == 7
    eventually(lambda: len(order) == 7)
    assert set(order) == set(waits[:7])
    assert len(children(operator)) == 13

    with other.lock:
        assert other.notify_all() == 13
    eventually(lambda: len(order) == 20)
    assert all(wait.result() is True for wait in waits)
    with other.lock:
        assert other.notify() == other.notify_all() == 0


def test_each_is_woken_in_its_turn(client: Client, operator: Client) -> None:
    order: list[Any] = []
    waits = [waiting(made(client), operator, woken=order) for _ in range(5)]
    other = made(operator)
    for number in range(5):
        with other.lock:
            assert other.notify() == 1
        waits[number].result()
    assert order == waits


def test_the_order_outlives_the_end_of_the_sequence(client: Client, operator: Client) -> None:
    operator.ensure_path(PATH)
    older, younger = f"w-{'f' * 32}-{2**31 - 1}", f"w-{'0' * 32}-{-(2**31) + 5}"
    for name in (older, younger, "config"):
        operator.create(f"{PATH}/{name}", ephemeral=True)
    condition = made(client)

    with condition.lock:
        assert condition.notify() == 1
        assert set(children(operator)) == {younger, "config"}
        assert condition.notify_all() == 1
    assert children(operator) == ["config"]


def test_more_waiters_than_fit_into_a_request_are_all_notified(
    client: Client, operator: Client
) -> None:
    path = "/" + "long" * 150
    operator.create(path)
    creates = [
        operator.create_async(f"{path}/w-{number:032x}-", ephemeral=True, sequence=True)
        for number in range(2100)
    ]
    for create in creates:
        create.get()
    condition = Condition(client, path, Lock(client, LOCK))

    with condition.lock:
        assert condition.notify(550) == 550
        left = sorted(children(operator, path))
        assert [int(name[2:34], 16) for name in left] == list(range(550, 2100))
        assert condition.notify_all() == 1550
    assert not children(operator, path)


def test_wait_for_returns_what_the_predicate_says(client: Client, operator: Client) -> None:
    condition, other = made(client), made(operator)
    operator.ensure_path("/todo")

    def take() -> list[str]:
        with condition.lock:
            todo: list[str] = condition.wait_for(lambda: client.get_children("/todo"), 20.0)
            return todo

    taken = gevent.spawn(take)
    eventually(lambda: children(operator))
    with other.lock:
        other.notify()  # for nothing
    eventually(lambda: children(operator))
    with other.lock:
        operator.create("/todo/a")
        other.notify()
    assert taken.get(timeout=10.0) == ["a"]

    asked: list[bool] = []
    with condition.lock:
        began = time.monotonic()
        assert condition.wait_for(lambda: asked.append(condition.lock.is_acquired), 0.2) is None
        assert time.monotonic() - began >= 0.2
        assert condition.wait_for(lambda: [], 0) == []
    assert asked == [True, True]


def test_a_notify_without_waiters_is_gone(client: Client, operator: Client) -> None:
    condition, other = made(client), made(operator)
    with other.lock:
        assert other.notify() == 0
    operator.ensure_path(PATH)
    with other.lock:
        assert other.notify_all() == 0
    with condition.lock:
        assert condition.wait(0.05) is False


def test_greenlets_share_one_condition_and_its_lock(client: Client, operator: Client) -> None:
    condition, order = made(client), list[Any]()
    waits = [waiting(condition, operator, woken=order) for _ in range(3)]
    with condition.lock:
        assert condition.notify(2) == 2
    eventually(lambda: len(order) == 2)
    assert order == waits[:2] and not waits[2].ready
    with condition.lock:
        condition.notify()
    assert waits[2].result() is True


# The lock.


def test_the_lock_has_to_be_held_by_the_greenlet(client: Client) -> None:
    condition = made(client)
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(LockNotAcquired, match=r"this greenlet does not hold it"):
            call()
    with pytest.raises(LockNotAcquired):
        condition.wait_for(lambda: False)
    condition.lock.acquire()
    for call in (condition.wait, condition.notify):
        with pytest.raises(LockNotAcquired):
            gevent.spawn(call).get()
    assert condition.lock.is_acquired
    condition.lock.release()
    with pytest.raises(LockNotAcquired):
        condition.notify()


def test_a_lost_lock_neither_waits_nor_notifies(client: Client, operator: Client) -> None:
    waits = waiting(made(operator), operator)
    condition = made(client)
    condition.lock.acquire()
    operator.delete(holder(operator))

    # Nobody has told this client yet: the servers refuse.
    with pytest.raises(LockLost, match="deleted"):
        condition.notify()
    for call in (condition.wait, condition.notify):
        with pytest.raises(LockLost):
            call()
    assert len(children(operator)) == 1 and not waits.ready
    assert not condition.lock.is_acquired


def test_an_rlock_is_released_and_taken_back_with_all_its_levels(
    client: Client, operator: Client
) -> None:
    lock = RLock(client, LOCK)
    condition, other = made(client, lock), made(operator)

    def notify() -> None:
        with other.lock:  # comes in between
            other.notify()

    with lock:
        lock.acquire()
        with lock:
            notifies = gevent.spawn(notify)
            assert condition.wait(10.0) is True
            assert lock.is_acquired and notifies.get() is None
        assert lock.is_acquired
        assert lock.release() is True and lock.is_acquired
    assert not lock.is_acquired and lock.release() is False
    assert not children(operator, LOCK)


def test_a_block_that_has_waited_releases_the_lock_that_it_has_now(
    client: Client, operator: Client
) -> None:
    lock = Lock(client, LOCK, strict=True)
    condition = made(client, lock)
    with lock as entered:
        for _ in range(3):
            condition.wait(0.01)
        assert entered.is_acquired
    assert not lock.is_acquired
    eventually(lambda: not children(operator, LOCK))


def test_a_block_to_be_struck_by_a_loss_is_so_after_a_wait_too(
    client: Client, operator: Client
) -> None:
    lock = Lock(client, LOCK, on_revoke=print)  # watched at once
    condition = made(client, lock)
    early: list[Any] = []

    def work() -> None:
        with lock.locked(kill_on_lost=True):
            early.append(lock.lost)
            condition.wait(0.01)
            condition.wait(0.01)
            operator.delete(holder(operator))
            gevent.sleep(10.0)

    with pytest.raises(LockLost, match="deleted"):
        work()
    assert early[0].is_set()


def test_a_write_lock_will_do(client: Client, operator: Client) -> None:
    waits = waiting(made(client, WriteLock(client, LOCK)), operator)
    other = made(operator, WriteLock(operator, LOCK))
    with other.lock:
        assert other.notify() == 1
    assert waits.result() is True


@pytest.mark.parametrize("notified", [False, True], ids=["waiting", "before the lock is back"])
def test_an_interrupt_ends_a_wait_without_the_lock(
    client: Client, operator: Client, notified: bool
) -> None:
    lock = InterruptableLock(client, LOCK)
    other = made(operator)
    waits = waiting(made(client, lock), operator)
    if notified:
        other.lock.acquire()
        other.notify()
        eventually(lambda: len(children(operator, LOCK)) == 2)

    began = time.monotonic()
    lock.interrupt()
    assert isinstance(waits.result(), Interrupted)
    assert time.monotonic() - began < 0.5
    assert not lock.is_acquired
    eventually(lambda: not children(operator))
    other.lock.release()
    eventually(lambda: not children(operator, LOCK))
    with lock:
        assert made(client, lock).wait(0.01) is False


# Words and figures.


def test_what_cannot_be_is_refused_at_once(client: Client, operator: Client) -> None:
    lock = Lock(client, LOCK)
    with pytest.raises(TypeError, match="ReadLock"):
        made(client, ReadLock(client, LOCK))
    with pytest.raises(TypeError, match="is a Lock, not str"):
        Condition(client, PATH, "lock")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another client"):
        Condition(client, PATH, Lock(operator, LOCK))
    with pytest.raises(ValueError, match="path of its own"):
        Condition(client, LOCK + "/", lock)
    with pytest.raises(ValueError, match="below the root"):
        Condition(client, "/", lock)
    with pytest.raises(ZookeeperMisused):
        Condition(object(), PATH, lock)  # type: ignore[arg-type]
    condition = Condition(client, "jobs/changed/", lock)
    assert condition.path == PATH and PATH in repr(condition)
    with lock:
        for n in (0, -1):
            with pytest.raises(ValueError, match="at least"):
                condition.notify(n)
        for bad in (True, "1", 1.0):
            with pytest.raises(TypeError, match="number of waiters"):
                condition.notify(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            condition.wait(-1)
        assert lock.is_acquired
    assert not children(client)


def test_another_thread_is_refused(client: Client) -> None:
    condition = made(client)
    errors: list[BaseException] = []

    def use() -> None:
        for call in (condition.wait, condition.notify):
            try:
                call()
            except ZookeeperMisused as error:
                errors.append(error)

    gevent.get_hub().threadpool.apply(use)
    assert len(errors) == 2


def test_a_deadline_ends_a_wait_without_the_lock(client: Client, operator: Client) -> None:
    condition = made(client)
    with pytest.raises(DeadlineExceeded), condition.lock, deadline(0.1):
        condition.wait(20.0)
    assert not condition.lock.is_acquired
    eventually(lambda: not children(operator) and not children(operator, LOCK))


def test_a_timeout_before_the_deadline_is_only_a_timeout(client: Client) -> None:
    condition = made(client)
    with condition.lock, deadline(10.0):
        assert condition.wait(0.05) is False
        assert condition.lock.is_acquired


def test_a_wait_costs_6_requests_and_a_notify_2(
    connect: Callable[..., Client], operator: Client
) -> None:
    ours, others = MemoryRecorder(), MemoryRecorder()
    condition, other = made(connect(recorder=ours)), made(connect(recorder=others))
    operator.ensure_path(PATH)

    def delete() -> None:  # as a notify does it, but the lock is free
        eventually(lambda: children(operator) and not children(operator, LOCK))
        gevent.sleep(0.05)
        operator.delete(f"{PATH}/{children(operator)[0]}")

    with condition.lock:
        before = requests(ours)
        gevent.spawn(delete)
        assert condition.wait(10.0)
        assert requests(ours) - before == 6

    before = requests(ours)
    waits = waiting(condition, operator)
    with other.lock:
        cost = requests(others)
        assert other.notify() == 1
        assert requests(others) - cost == 2
        eventually(lambda: len(children(operator, LOCK)) == 2)
        gevent.sleep(0.05)  # for the request by which it sees that it is not the first
    assert waits.result() is True
    # 2 more for a lock that has to be waited for, and 3 for the block of the lock around it.
    eventually(lambda: requests(ours) - before >= 11)
    assert requests(ours) - before == 11


def requests(recorder: MemoryRecorder) -> float:
    return sum(float(count) for count in recorder.series("zk_requests").values())


def test_no_watch_and_no_guid_stay(client: Client, operator: Client, zookeeper: Any) -> None:
    condition, other = made(client), made(operator)
    with condition.lock:
        for timeout in (0, 0.001, 0.05):
            assert condition.wait(timeout) is False
    waits = waiting(condition, operator)
    with other.lock:
        other.notify()
    waits.result()
    waits = waiting(condition, operator)
    waits.kill()
    eventually(lambda: not zookeeper.mntr()["zk_watch_count"])
    eventually(lambda: not client._janitor._guids)
    assert not condition.lock._pending and not client.session._wakes[1:]


def test_waits_and_notifies_are_counted(connect: Callable[..., Client], operator: Client) -> None:
    recorder = MemoryRecorder()
    condition, other = (made(connect(recorder=recorder), path_class="jobs") for _ in range(2))
    with condition.lock:
        condition.wait(0.01)
    waits = waiting(condition, operator)
    with other.lock:
        other.notify()
    waits.result()
    killed, heir = (waiting(condition, operator) for _ in range(2))
    with other.lock:
        other.notify()
        eventually(lambda: len(children(operator, LOCK)) == 2)
        killed.kill()
    assert heir.result() is True

    times = recorder.series("zk_condition_wait_seconds")
    assert {labels: len(values) for labels, values in times.items()} == {
        ("jobs", "timeout"): 1,
        ("jobs", "notified"): 2,
        ("jobs", "killed"): 1,
    }
    assert recorder.series("zk_condition_notified") == {("jobs",): 2}
    assert recorder.series("zk_condition_passed_on") == {("jobs",): 1}
