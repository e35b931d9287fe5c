"""Condition against faults: lost answers, kills, ends of sessions, outages. No notify is lost."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest
from kazoo.exceptions import ConnectionLoss, NoNodeError, NotEmptyError, SessionExpiredError
from kazoo.security import READ_ACL_UNSAFE

from sepelib.zookeeper import (
    Client,
    Condition,
    ConditionListener,
    InterruptableLock,
    Interrupted,
    Lock,
    LockLost,
    SessionState,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)

PATH = "/jobs/changed"
LOCK = "/jobs/lock"
T = 2.0

KILLS = [gevent.GreenletExit, gevent.Timeout, KeyboardInterrupt]


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(hosts: str | None = None, timeout: float = T, **options: Any) -> Client:
        client = Client(hosts or zookeeper.hosts, timeout, **options)
        clients.append(client)
        client.start(timeout=20.0)
        return client

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Callable[..., Client], proxy: Any) -> Client:
    """Behind the proxy."""
    return connect(proxy.hosts)


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """Another client, whom no fault meets."""
    client = connect(timeout=20.0)
    client.ensure_path(PATH)
    client.ensure_path(LOCK)
    return client


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def children(operator: Client, path: str = PATH) -> list[str]:
    return list(operator.get_children(path))


def made(client: Client, lock: Lock | None = None) -> Condition:
    return Condition(client, PATH, lock or Lock(client, LOCK))


def outage(proxy: Any, client: Client) -> None:
    """Until proxy.heal()."""
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.session.state is not SessionState.CONNECTED)


class Waits:
    """A wait in a greenlet of its own, inside of a `with` of the lock; *first* is called there,
    and *last* after the wait."""

    def __init__(
        self,
        condition: Condition,
        timeout: float | None = 20.0,
        first: Callable[[], object] = lambda: None,
        last: Callable[[], object] = lambda: None,
    ) -> None:
        self.condition = condition
        self.held = False
        self.greenlet = gevent.spawn(self._run, timeout, first, last)

    def _run(
        self, timeout: float | None, first: Callable[[], object], last: Callable[[], object]
    ) -> Any:
        try:
            with self.condition.lock:
                first()
                result = self.condition.wait(timeout)
                last()
                self.held = self.condition.lock.is_acquired
                return result
        except BaseException as error:
            return error

    @property
    def ready(self) -> bool:
        return bool(self.greenlet.ready())

    def kill(self, kind: type[BaseException] = gevent.GreenletExit) -> None:
        """And it is heard at once."""
        self.greenlet.kill(kind, block=False)
        self.greenlet.join(0.5)
        assert self.ready

    def result(self, seconds: float = 10.0) -> Any:
        """What it returned or raised; what it returned it did with the lock."""
        self.greenlet.join(seconds)
        assert self.ready, f"it still waits after {seconds} s"
        assert self.held == isinstance(self.greenlet.value, bool)
        return self.greenlet.value


def waiting(condition: Condition, operator: Client, **options: Any) -> Waits:
    """One that waits, and has released the lock."""
    before = len(children(operator))
    waits = Waits(condition, **options)
    eventually(lambda: len(children(operator)) > before and not children(operator, LOCK))
    return waits


def notify(condition: Condition, n: int = 1) -> int:
    with condition.lock:
        return condition.notify(n)


def nothing_stays(operator: Client, *clients: Client) -> None:
    eventually(lambda: not children(operator) and not children(operator, LOCK))
    for client in clients:
        eventually(lambda client=client: not client._janitor._guids)  # type: ignore[misc]


# Lost answers.


@pytest.mark.parametrize(
    ("operation", "path", "timeout"),
    [
        ("create", PATH, None),
        ("delete", LOCK, None),
        ("get", PATH, None),
        ("create", LOCK, None),
        ("get_children", LOCK, None),
        ("create", PATH, 0.1),
        ("get", PATH, 0.1),
        ("create", LOCK, 0.1),
    ],
)
def test_a_wait_whose_answer_is_lost_ends_as_it_should(
    client: Client, operator: Client, proxy: Any, operation: str, path: str, timeout: float | None
) -> None:
    """The requests of a wait in their order; a cut connection comes with it."""
    other = made(operator)
    losses: list[Any] = []

    def lose() -> None:
        losses.append(proxy.lose_answer_to(operation, containing=path.encode()))

    with other.lock:
        waits = Waits(made(client), timeout, first=lose)
        eventually(lambda: len(children(operator, LOCK)) == 2)
    eventually(lambda: children(operator) and (timeout or not children(operator, LOCK)))
    if timeout is None:
        assert operator.exists(PATH).cversion == 1  # one create
        assert notify(other) == 1

    assert waits.result() is (timeout is None)
    assert losses[0].lost.is_set(), repr(losses[0])
    nothing_stays(operator, client)


def test_a_timeout_whose_delete_has_no_answer_may_be_a_wake_up(
    client: Client, operator: Client, proxy: Any
) -> None:
    """The node is gone: by that delete or by a notify, nobody knows."""
    waits = waiting(made(client), operator, timeout=0.1)
    with proxy.lose_answer_to("delete", containing=PATH.encode()):
        assert waits.result() is True
    nothing_stays(operator, client)


@pytest.mark.parametrize("operation", ["get_children", "multi"])
def test_a_notify_whose_answer_is_lost_notifies_once(
    client: Client, operator: Client, proxy: Any, operation: str
) -> None:
    condition = made(client)
    waits = [waiting(made(operator), operator) for _ in range(4)]

    with condition.lock, proxy.lose_answer_to(operation, containing=PATH.encode()):
        assert condition.notify(2) == 2
        assert len(children(operator)) == 2

    assert [wait.result() for wait in waits[:2]] == [True, True]
    assert not any(wait.ready for wait in waits[2:])


def test_a_notify_without_an_answer_knows_its_own_behind_a_signal(
    client: Client, operator: Client, proxy: Any
) -> None:
    condition = made(client)
    waits = [waiting(made(operator), operator) for _ in range(3)]

    def two_signals(loss: Any) -> None:
        loss.wait()
        for _ in range(2):
            signal(operator)
        proxy.cut()
        proxy.heal()

    with condition.lock:
        with proxy.lose_answer_to("multi", then="hold") as loss:
            signals = gevent.spawn(two_signals, loss)
            assert condition.notify() == 1
            signals.get()
        assert len(children(operator)) == 2
    assert waits[0].result() is True
    assert not waits[1].ready and not waits[2].ready


def signal(operator: Client) -> None:
    ConditionListener.signal(operator, PATH)


def test_a_notify_that_never_left_is_sent_again(
    client: Client, operator: Client, proxy: Any
) -> None:
    condition = made(client)
    waits = [waiting(made(operator), operator) for _ in range(2)]
    with condition.lock:
        proxy.hold_requests()
        gevent.spawn_later(0.1, lambda: (proxy.cut(), proxy.heal()))
        assert condition.notify() == 1
    assert waits[0].result() is True
    assert len(children(operator)) == 1


def test_notifies_and_signals_at_once_wake_as_many_as_they_say(
    client: Client, operator: Client
) -> None:
    """A signal between the listing and the transaction refuses the latter."""
    condition, other = made(client), made(operator)

    def without_end() -> None:
        while True:
            signal(operator)

    signals = gevent.spawn(without_end)
    for _ in range(10):
        waits = [waiting(other, operator) for _ in range(2)]
        assert notify(condition) == 1
        assert waits[0].result() is True and not waits[1].ready
        assert notify(condition) == 1
        assert waits[1].result() is True
    signals.kill()


def test_a_notify_without_an_answer_in_time_says_so(
    client: Client, operator: Client, proxy: Any
) -> None:
    condition = made(client)
    waits = waiting(made(operator), operator)
    condition.lock.acquire()
    proxy.hold_replies()
    with pytest.raises(ZookeeperTimeout, match=f"condition {PATH}: ") as caught:
        condition.notify(timeout=0.2)
    assert not caught.value.maybe_executed  # it was still about to look who waits
    proxy.heal()
    with proxy.lose_answer_to("multi", then="hold"), pytest.raises(ZookeeperTimeout) as caught:
        condition.notify(timeout=0.3)
    assert caught.value.maybe_executed
    proxy.cut()
    proxy.heal()
    condition.lock.release()
    assert waits.result() is True


# Kills.


class KilledAtYield:
    """Kills who has called `arm()` when it yields for the *number*th time."""

    def __init__(self, number: int, kind: type[BaseException]) -> None:
        self.number = number
        self.struck = False
        self._kind = kind
        self._victim: Any = None
        self._former: Any = None

    def arm(self) -> None:
        self._victim = gevent.getcurrent()

    def disarm(self) -> None:
        self._victim = None

    def __enter__(self) -> "KilledAtYield":
        self._former = greenlet.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        greenlet.settrace(self._former)

    def _trace(self, event: str, ends: tuple[Any, Any]) -> None:
        if self._victim is not None and ends[0] is self._victim and not self._victim.dead:
            self.number -= 1
            if self.number == 0:
                self.struck = True
                self._victim.kill(self._kind, block=False)


def stands(victim: Waits, count: int, operator: Client) -> None:
    """The last of *count* waiters, if the victim is one; it may be dead already."""

    def settled() -> bool:
        expected = count - victim.ready
        return len(children(operator)) == expected and not children(operator, LOCK)

    eventually(settled)


@pytest.mark.parametrize("kind", KILLS)
def test_a_kill_at_any_yield_loses_no_notify_and_leaves_nothing(
    client: Client, operator: Client, connect: Callable[..., Client], kind: type[BaseException]
) -> None:
    """Of one notify for two waiters, of whom the first is killed, one of the two is woken."""
    other, second = made(operator), made(connect())
    strikes = 0
    while True:
        with KilledAtYield(strikes + 1, kind) as killed:
            victim = Waits(made(client), first=killed.arm, last=killed.disarm)
            stands(victim, 1, operator)
            heir = Waits(second)
            stands(victim, 2, operator)
            assert notify(other) == 1
            outcome = victim.result()
        if not killed.struck:
            break
        strikes += 1
        assert isinstance(outcome, kind)
        assert not victim.condition.lock.is_acquired
        assert heir.result() is True
        nothing_stays(operator, client)
    assert outcome is True and not heir.ready
    assert notify(other) == 1 and heir.result() is True
    assert strikes >= 6


@pytest.mark.parametrize("kind", KILLS)
def test_who_is_killed_while_the_news_is_under_way_passes_it_on(
    client: Client, operator: Client, proxy: Any, kind: type[BaseException]
) -> None:
    killed, heir = waiting(made(client), operator), waiting(made(operator), operator)
    proxy.hold_replies()
    assert notify(made(operator)) == 1

    killed.kill(kind)
    assert isinstance(killed.result(), kind) and not heir.ready
    proxy.heal()

    assert heir.result() is True
    nothing_stays(operator, client)


@pytest.mark.parametrize("then", ["cut", "hold"])
def test_who_is_killed_while_its_create_has_no_answer_leaves_no_waiter(
    client: Client, operator: Client, proxy: Any, then: str
) -> None:
    """And passes on the notify that took the node which it did not know of."""
    loss: list[Any] = []
    killed = Waits(
        made(client),
        first=lambda: loss.append(
            proxy.lose_answer_to("create", containing=PATH.encode(), then=then)
        ),
    )
    eventually(lambda: children(operator))
    killed.kill()
    heir = Waits(made(operator))  # gets the lock when the killed one's `with` has released it
    if then == "hold":
        proxy.cut()
        proxy.heal()
    eventually(lambda: not children(operator, LOCK))
    eventually(lambda: len(children(operator)) == 1)
    assert notify(made(operator)) == 1
    assert heir.result() is True
    nothing_stays(operator, client)


def test_a_kill_in_an_outage_is_heard_and_the_node_goes_after_it(
    client: Client, operator: Client, proxy: Any
) -> None:
    killed, heir = waiting(made(client), operator), waiting(made(operator), operator)
    outage(proxy, client)
    killed.kill()
    assert len(children(operator)) == 2
    proxy.heal()
    eventually(lambda: len(children(operator)) == 1)
    assert not heir.ready  # there was no notify to pass on


def test_an_interrupt_before_the_release_leaves_the_lock_to_the_block(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = InterruptableLock(client, LOCK)
    waits = Waits(made(client, lock), first=proxy.hold_replies)
    eventually(lambda: children(operator))
    assert children(operator, LOCK)
    lock.interrupt()
    assert isinstance(waits.result(), Interrupted)
    proxy.heal()
    nothing_stays(operator, client)


def test_an_interrupt_while_the_lock_is_released_ends_a_wait_that_has_no_node(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = InterruptableLock(client, LOCK)
    waits = Waits(made(client, lock), timeout=0.01, first=proxy.hold_replies)
    gevent.sleep(0.1)  # the release waits for its answer for 0.2 s
    lock.interrupt()
    assert isinstance(waits.result(1.0), Interrupted)
    proxy.heal()
    nothing_stays(operator, client)


def test_who_was_killed_releases_nobody_elses_lock(client: Client, operator: Client) -> None:
    """Without a `with`, as `finally: lock.release()`, by greenlets that share a lock."""
    condition = made(client)
    released: list[bool] = []

    def work() -> None:
        condition.lock.acquire()
        try:
            condition.wait(20.0)
        finally:
            released.append(condition.lock.release())

    worker = gevent.spawn(work)
    eventually(lambda: children(operator) and not children(operator, LOCK))
    with condition.lock:
        worker.kill()
        assert released == [False]
        condition.lock.check()


# Sessions and outages.


def test_a_new_session_wakes_who_waits(client: Client, operator: Client, zookeeper: Any) -> None:
    waits = waiting(made(client), operator)
    session = client.session.session_id
    zookeeper.expire(client)
    assert waits.result() is True
    assert client.session.session_id != session
    nothing_stays(operator, client)


def test_an_expiry_before_the_release_is_a_lost_lock(
    client: Client, operator: Client, proxy: Any, zookeeper: Any
) -> None:
    waits = Waits(made(client), first=proxy.hold_replies)
    eventually(lambda: children(operator))
    zookeeper.expire(client)
    proxy.cut()
    proxy.heal()
    assert isinstance(waits.result(), LockLost)
    nothing_stays(operator, client)
    assert operator.exists(PATH).cversion == 2  # one create, which was deleted


def test_an_expiry_between_notify_and_lock_costs_nothing(
    client: Client, operator: Client, zookeeper: Any
) -> None:
    waits = waiting(made(client), operator)
    other = made(operator)
    with other.lock:
        other.notify()
        eventually(lambda: len(children(operator, LOCK)) == 2)
        zookeeper.expire(client)
        eventually(lambda: client.session.epoch > 1)
    assert waits.result() is True
    nothing_stays(operator, client)


def test_a_notify_during_an_outage_is_heard_after_it(
    client: Client, operator: Client, proxy: Any
) -> None:
    waits = waiting(made(client), operator)
    outage(proxy, client)
    assert notify(made(operator)) == 1
    gevent.sleep(0.1)
    assert not waits.ready
    proxy.heal()
    assert waits.result() is True


def test_a_silent_partition_hides_no_notify(client: Client, operator: Client, proxy: Any) -> None:
    waits = waiting(made(client), operator, timeout=None)
    session = client.session.session_id
    proxy.hold()
    assert notify(made(operator)) == 1
    eventually(lambda: client.session.state is SessionState.SUSPENDED)
    proxy.heal()
    assert waits.result() is True
    assert client.session.session_id == session


def test_an_outage_without_a_notify_wakes_nobody(
    client: Client, operator: Client, proxy: Any
) -> None:
    waits = waiting(made(client), operator)
    for _ in range(2):
        proxy.cut()
        eventually(lambda: client.session.state is not SessionState.CONNECTED)
        eventually(lambda: client.session.state is SessionState.CONNECTED)
    gevent.sleep(0.1)
    assert not waits.ready
    assert notify(made(operator)) == 1
    assert waits.result() is True


def test_a_time_that_is_over_in_an_outage_is_so_when_the_lock_is_back(
    client: Client, operator: Client, proxy: Any
) -> None:
    waits, notified = (waiting(made(client), operator, timeout=0.3) for _ in range(2))
    heir = waiting(made(operator), operator)
    outage(proxy, client)
    operator.delete(f"{PATH}/{sorted(children(operator), key=lambda name: name[-10:])[1]}")
    gevent.sleep(0.35)
    assert not waits.ready and not notified.ready
    proxy.heal()
    assert waits.result() is False and notified.result() is True
    assert not heir.ready


def test_a_restart_of_the_server_keeps_who_waits(
    client: Client, operator: Client, zookeeper: Any
) -> None:
    waits = waiting(made(client), operator, timeout=None)
    zookeeper.restart()
    eventually(lambda: operator.session.state is SessionState.CONNECTED, 20.0)
    assert notify(made(operator)) <= 1  # 0 when the session was too short for the restart
    assert waits.result(20.0) is True


def test_two_notifies_for_two_waiters_of_whom_one_dies_reach_the_other(
    operator: Client, connect: Callable[..., Client]
) -> None:
    first, second = connect(), connect()
    dies, lives = waiting(made(first), operator), waiting(made(second), operator)
    other = made(operator)
    with other.lock:
        assert other.notify() == 1
        eventually(lambda: len(children(operator, LOCK)) == 2)
        first.close()
        assert isinstance(dies.result(), ZookeeperMisused)
        assert other.notify() == 1
    assert lives.result() is True


def test_a_waiter_that_is_dead_before_the_notify_takes_none(
    operator: Client, connect: Callable[..., Client]
) -> None:
    first, second = connect(), connect()
    dies, lives = waiting(made(first), operator), waiting(made(second), operator)
    first.close()
    assert isinstance(dies.result(), ZookeeperMisused)
    assert notify(made(operator)) == 1
    assert lives.result() is True


def test_a_lock_that_cannot_be_had_again_is_lost(client: Client, operator: Client) -> None:
    waits = waiting(made(client), operator, timeout=0.2)
    operator.set_acls(LOCK, READ_ACL_UNSAFE)
    error = waits.result()
    assert isinstance(error, LockLost) and "cannot be had again" in str(error)
    assert isinstance(error.__cause__, ZookeeperError)
    nothing_stays(operator, client)


def test_a_condition_removed_again_and_again_is_made_again(
    client: Client, operator: Client
) -> None:
    condition, other = made(client), made(operator)
    operator.delete(PATH)
    stop = gevent.event.Event()

    def remove() -> None:
        while not stop.is_set():
            try:
                operator.delete(PATH)
            except (NoNodeError, NotEmptyError):
                gevent.sleep(0)

    removes = gevent.spawn(remove)
    for _ in range(5):
        waits = Waits(condition)
        eventually(lambda: operator.exists(PATH) and not children(operator, LOCK))
        assert notify(other) == 1
        assert waits.result() is True
    stop.set()
    removes.join(5.0)


# All at once.


def expire(client: Client, zookeeper: Any) -> None:
    # It may have none at the moment, after the last time, or one that is over.
    eventually(lambda: client.client_id and client.client_id[0])
    with contextlib.suppress(LookupError):
        zookeeper.expire(client)


@pytest.mark.parametrize("kills", [False, True], ids=["expiries", "expiries and kills"])
def test_what_is_produced_is_consumed_and_no_consumer_sleeps_over_it(
    zookeeper: Any, operator: Client, connect: Callable[..., Client], kills: bool
) -> None:
    """Each item is told by one notify; nobody looks at the clock, so one lost is one left over."""
    rng = random.Random(8)
    operator.ensure_path("/todo")
    consumers = [connect() for _ in range(3)]

    def consume(client: Client) -> None:
        condition = made(client)
        while True:
            try:
                with condition.lock:
                    todo = condition.wait_for(lambda: sorted(client.get_children("/todo")))
                    taken = condition.lock.transaction()
                    taken.delete(f"/todo/{todo[0]}")
                    taken.commit()
            except (ZookeeperError, ConnectionLoss, SessionExpiredError):
                pass

    other = made(operator)

    def produce() -> None:
        for number in range(60):
            with other.lock:
                operator.create(f"/todo/{number:04}")
                other.notify()
            gevent.sleep(rng.random() / 50)

    workers = [gevent.spawn(consume, client) for client in consumers]
    producer = gevent.spawn(produce)
    while not producer.ready():
        gevent.sleep(0.05)
        number = rng.randrange(3)
        if kills and rng.random() < 0.8:
            workers[number].kill(timeout=1.0)
            workers[number] = gevent.spawn(consume, consumers[number])
        else:
            expire(consumers[number], zookeeper)
    producer.get()

    eventually(lambda: not operator.get_children("/todo"), 10.0)
    gevent.killall(workers, timeout=5.0)
    assert all(worker.exception is None for worker in workers)
    nothing_stays(operator, *consumers)
