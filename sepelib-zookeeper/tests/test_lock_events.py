"""What becomes of a lock by what happens meanwhile: one test for each cell of that table.

While its node is asked for, while it waits, holds, releases; the connection goes, comes back in the
same session, the session ends; the caller is killed, runs out of time, is interrupted.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.monkey
import pytest

from sepelib.zookeeper import Client, InterruptableLock, Interrupted, Lock, LockLost, SessionState
from sepelib.zookeeper._contender import Node
from sepelib.zookeeper._grant import Grant, Tenure

PATH = "/jobs/nightly"
T = 1.5

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
def proxy(zookeeper: Any) -> Iterator[Any]:
    with zookeeper.proxy() as proxy:
        yield proxy


@pytest.fixture
def client(connect: Callable[..., Client], proxy: Any) -> Client:
    """Behind the proxy."""
    return connect(proxy.hosts)


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """Another client, whom no fault meets."""
    client = connect(timeout=20.0)
    client.ensure_path(PATH)
    return client


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def disconnect(proxy: Any, client: Client) -> None:
    """An outage: until proxy.heal()."""
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.session.state is not SessionState.CONNECTED)


def reconnect(proxy: Any, client: Client) -> None:
    proxy.heal()
    eventually(lambda: client.session.state is SessionState.CONNECTED)


def freeze(seconds: float) -> None:
    """No greenlet runs, no timer fires, as when the process is stopped."""
    gevent.monkey.get_original("time", "sleep")(seconds)


def lock_create(data: bytes) -> bool:
    return b"__lock__" in data


def children(operator: Client) -> list[str]:
    return list(operator.get_children(PATH))


def watches(zookeeper: Any) -> int:
    """On the server, of all clients."""
    return int(zookeeper.wchs().rpartition("watches:")[2])


def created(operator: Client) -> int:
    """How many contenders there ever were."""
    stat = operator.exists(PATH)
    return int((stat.cversion + len(children(operator))) / 2)


class Ask:
    """An acquire under way, in a greenlet of its own."""

    def __init__(self, lock: Lock, **options: Any) -> None:
        self.lock = lock
        self.started = time.monotonic()
        self.lasted: float | None = None
        self._greenlet = gevent.spawn(self._run, options)

    def _run(self, options: dict[str, Any]) -> Any:
        try:
            return self.lock.acquire(**options)
        except BaseException as error:
            return error
        finally:
            self.lasted = time.monotonic() - self.started

    @property
    def ready(self) -> bool:
        return bool(self._greenlet.ready())

    def result(self, seconds: float = 10.0) -> Any:
        """What it returned or raised."""
        self._greenlet.join(seconds)
        assert self.ready, f"acquire() still waits after {seconds} s"
        return self._greenlet.value

    def strike(self, kind: type[BaseException]) -> float:
        """Raise *kind* in it; how long it took to end."""
        began = time.monotonic()
        self._greenlet.kill(kind, timeout=10.0)
        return time.monotonic() - began


def give_up(ask: Ask, how: str) -> None:
    """Let it end in the way of this column, and see that it does so as it should."""
    if how == "timeout":
        assert ask.result() is False
    elif how == "interrupt":
        began = time.monotonic()
        ask.lock.cancel()
        assert isinstance(ask.result(), Interrupted)
        assert time.monotonic() - began < 0.1 + 0.4  # a busy machine
    else:
        kind = {kind.__name__: kind for kind in KILLS}[how]
        assert ask.strike(kind) < 0.5
        assert isinstance(ask.result(), kind)
    assert not ask.lock.is_acquired


ENDS = ["timeout", "interrupt", *(kind.__name__ for kind in KILLS)]


# The node is asked for.


def test_create_sent__suspended__waits_within_the_deadline(
    client: Client, operator: Client, proxy: Any
) -> None:
    disconnect(proxy, client)

    late = Ask(Lock(client, PATH), timeout=0.3)
    patient = Ask(Lock(client, PATH), timeout=20.0)
    assert late.result() is False
    assert late.lasted is not None and 0.3 <= late.lasted < 1.5
    assert not patient.ready
    reconnect(proxy, client)

    assert patient.result() is True


def test_create_sent__reconnect__the_node_that_was_made_is_taken(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = Lock(client, PATH)
    session = client.session.session_id

    with proxy.lose_answer(lock_create):
        assert lock.acquire(timeout=20.0)

    assert client.session.session_id == session
    assert created(operator) == 1
    stat = operator.exists(f"{PATH}/{children(operator)[0]}")
    assert (stat.czxid, stat.ephemeralOwner) == (lock.fencing_token, session)


def test_create_sent__reconnect__a_node_that_was_not_made_is_asked_for_again(
    client: Client, operator: Client, proxy: Any
) -> None:
    proxy.hold_requests()
    ask = Ask(Lock(client, PATH), timeout=20.0)
    gevent.sleep(0.1)
    proxy.cut()  # drops what was held
    proxy.heal()

    assert ask.result() is True
    assert created(operator) == 1


def test_create_sent__session_expires__a_node_in_the_new_session(
    client: Client, operator: Client, proxy: Any, zookeeper: Any
) -> None:
    session, epoch = client.session.session_id, client.session.epoch
    proxy.hold_replies()
    ask = Ask(Lock(client, PATH), timeout=20.0)
    eventually(lambda: children(operator))
    zookeeper.expire(client)
    proxy.cut()
    proxy.heal()

    assert ask.result() is True
    assert client.session.session_id != session and client.session.epoch > epoch
    assert created(operator) == 2
    assert [contender.session_id for contender in ask.lock.contenders()] == [
        client.session.session_id
    ]


@pytest.mark.parametrize("waits", [False, True], ids=["to begin", "in the queue"])
def test_an_acquire_after_a_freeze_longer_than_the_lease_keeps_its_time(
    client: Client, operator: Client, waits: bool
) -> None:
    """The hub has not had the turn yet in which it would find out that the session is lost."""
    lock = Lock(operator, PATH)
    assert lock.acquire(timeout=10.0)
    ask = waiter(Lock(client, PATH), operator, timeout=20.0) if waits else None
    claimed = len(client._janitor._guids)
    told: list[bool] = []
    client.session.subscribe(lambda: told.append(True))
    freeze(1.2 * T)
    assert not client.session.holds(client.session.epoch) and not told

    began = time.monotonic()
    with gevent.Timeout(10.0):
        assert not Lock(client, PATH).acquire(timeout=0.5)
    assert time.monotonic() - began < 5.0
    assert len(client._janitor._guids) <= claimed + 1

    lock.release()
    if ask is not None:
        assert ask.result() is True
        ask.lock.release()
    assert Lock(client, PATH).acquire(timeout=10.0)


@pytest.mark.parametrize("how", ENDS)
def test_create_sent__given_up__its_node_is_deleted(
    client: Client, operator: Client, proxy: Any, how: str
) -> None:
    proxy.hold_replies()
    ask = Ask(Lock(client, PATH), timeout=0.3 if how == "timeout" else 20.0)
    eventually(lambda: children(operator))

    give_up(ask, how)
    proxy.resume()

    eventually(lambda: not children(operator))
    assert created(operator) == 1


# It waits.


@pytest.fixture
def holder(operator: Client) -> Lock:
    lock = Lock(operator, PATH)
    assert lock.acquire(timeout=10.0)
    return lock


def waiter(lock: Lock, operator: Client, **options: Any) -> Ask:
    count = len(children(operator))
    ask = Ask(lock, **options)
    eventually(lambda: len(children(operator)) == count + 1)
    gevent.sleep(0.05)
    return ask


def test_waiting__suspended_and_back__reads_the_queue_and_watches_again(
    client: Client, operator: Client, proxy: Any, holder: Lock
) -> None:
    ask = waiter(Lock(client, PATH), operator, timeout=20.0)

    disconnect(proxy, client)
    gevent.sleep(0.1)
    assert not ask.ready
    reconnect(proxy, client)
    gevent.sleep(0.2)
    assert not ask.ready and created(operator) == 2
    holder.release()

    assert ask.result() is True
    assert created(operator) == 2


def test_waiting__suspended_and_back__hears_of_what_happened_meanwhile(
    client: Client, operator: Client, proxy: Any, holder: Lock
) -> None:
    ask = waiter(Lock(client, PATH), operator, timeout=20.0)

    disconnect(proxy, client)
    holder.release()
    reconnect(proxy, client)

    assert ask.result() is True


def test_waiting__own_node_deleted__joins_again_at_the_end(
    client: Client,
    operator: Client,
    proxy: Any,
    holder: Lock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lock = Lock(client, PATH, "ours")
    ask = waiter(lock, operator, timeout=20.0)
    behind = waiter(Lock(operator, PATH, "behind"), operator, timeout=20.0)

    disconnect(proxy, client)
    nodes = [f"{PATH}/{child}" for child in children(operator)]
    operator.delete(next(node for node in nodes if operator.get(node)[0] == b"ours"))
    reconnect(proxy, client)
    eventually(lambda: len(children(operator)) == 3)

    assert [contender.identifier for contender in holder.contenders()][1:] == ["behind", "ours"]
    assert "rejoined" in caplog.text
    holder.release()
    assert behind.result() is True and not ask.ready
    behind.lock.release()
    assert ask.result() is True


def test_waiting__session_expires__joins_again_and_the_time_runs_on(
    client: Client, operator: Client, zookeeper: Any, holder: Lock
) -> None:
    ask = waiter(Lock(client, PATH), operator, timeout=2.0)
    patient = waiter(Lock(client, PATH), operator, timeout=20.0)
    gevent.sleep(0.5)
    zookeeper.expire(client)
    eventually(lambda: len(children(operator)) == 3)

    assert ask.result() is False
    assert ask.lasted is not None and 2.0 <= ask.lasted < 3.5
    holder.release()
    assert patient.result() is True


@pytest.mark.parametrize("how", ENDS)
def test_waiting__given_up__its_node_and_its_watch_are_deleted(
    client: Client, operator: Client, zookeeper: Any, holder: Lock, how: str
) -> None:
    eventually(lambda: watches(zookeeper) == 1)  # the holder's, on its own node
    ask = waiter(Lock(client, PATH), operator, timeout=0.5 if how == "timeout" else 20.0)
    eventually(lambda: watches(zookeeper) == 2)

    give_up(ask, how)

    eventually(lambda: len(children(operator)) == 1)
    eventually(lambda: watches(zookeeper) == 1)
    assert not any(client._data_watchers.values())
    assert holder.is_acquired


@pytest.mark.parametrize("how", ENDS)
def test_waiting_while_suspended__given_up__its_node_is_deleted_later(
    client: Client, operator: Client, proxy: Any, holder: Lock, how: str
) -> None:
    ask = waiter(Lock(client, PATH), operator, timeout=0.5 if how == "timeout" else 20.0)
    disconnect(proxy, client)

    give_up(ask, how)
    assert client.session.state is not SessionState.CONNECTED
    proxy.heal()

    eventually(lambda: len(children(operator)) == 1)


@pytest.mark.parametrize("how", ENDS)
def test_waiting_for_another_greenlet_of_the_object__given_up(
    client: Client, operator: Client, how: str
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire()
    ask = Ask(lock, timeout=0.3 if how == "timeout" else 20.0)
    gevent.sleep(0.05)

    if how == "interrupt":
        lock.cancel()
    elif how != "timeout":
        ask.strike({kind.__name__: kind for kind in KILLS}[how])
    ask.result()

    assert lock.is_acquired and len(children(operator)) == 1
    lock.release()
    assert lock.acquire(timeout=5.0)


# The parent is missing.


@pytest.mark.parametrize("container", [False, True])
def test_a_missing_parent_is_made_and_made_again(
    client: Client, operator: Client, container: bool
) -> None:
    operator.delete("/jobs", recursive=True)
    lock = Lock(client, PATH, container=container)
    for _ in range(2):
        assert lock.acquire(timeout=10.0)
        lock.release()
        eventually(lambda: not children(operator))
        operator.delete(PATH)


def test_a_parent_that_is_deleted_time_and_again_delays_nobody_for_ever(
    client: Client, operator: Client
) -> None:
    def pester() -> None:
        while True:
            try:
                operator.delete(PATH)
            except Exception:
                gevent.sleep(0.001)

    pest = gevent.spawn(pester)
    try:
        for _ in range(5):
            with Lock(client, PATH).locked(timeout=20.0):
                pass
    finally:
        pest.kill()


# It holds.


def test_holding__suspended__holds_until_the_lease_ends_and_then_knows(
    client: Client, operator: Client, proxy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Any, str]] = []
    lock = Lock(client, PATH, on_lost=lambda *args: told.append(args))
    other = Lock(operator, PATH)
    assert lock.acquire(timeout=10.0)
    ask = waiter(other, operator, timeout=20.0)

    disconnect(proxy, client)
    assert lock.is_acquired
    before = lock.lease_remaining()
    assert 0 < before < T
    gevent.sleep(0.05)
    assert lock.lease_remaining() < before
    assert lock.lost.wait(T)
    assert not lock.is_acquired and lock.lost_reason == "session"
    assert not ask.ready  # it knew before the server gave the lock to another
    assert ask.result() is True

    assert not lock.is_acquired
    with pytest.raises(LockLost, match="session"):
        lock.check()
    reconnect(proxy, client)
    gevent.sleep(0.1)
    assert told == [(lock, "session")]
    assert not lock.is_acquired and not lock.release()
    assert "suspended while held" in caplog.text and "lost while held" in caplog.text


def test_holding__reconnect__still_holds_when_the_node_is_there(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)

    for _ in range(2):
        disconnect(proxy, client)
        reconnect(proxy, client)
    gevent.sleep(1.2 * T)

    assert lock.is_acquired
    lock.verify()
    operator.delete(f"{PATH}/{children(operator)[0]}")  # the watch is a new one, too
    assert lock.lost.wait(5.0) and lock.lost_reason == "deleted"


def test_holding__reconnect__is_lost_when_the_node_is_gone(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)

    disconnect(proxy, client)
    operator.delete(f"{PATH}/{children(operator)[0]}")
    reconnect(proxy, client)

    assert lock.lost.wait(T / 2)
    assert lock.lost_reason == "deleted" and not lock.is_acquired


def test_holding__session_expires__is_lost_once_and_can_be_acquired_again(
    client: Client, operator: Client, zookeeper: Any
) -> None:
    told: list[str] = []
    lock = Lock(client, PATH, on_lost=lambda lock, reason: told.append(reason))
    assert lock.acquire(timeout=10.0)
    token = lock.fencing_token

    zookeeper.expire(client)

    assert lock.lost.wait(T)
    assert not lock.is_acquired and lock.fencing_token == token
    assert lock.acquire(timeout=10.0)
    assert lock.fencing_token > token and not lock.lost.is_set()
    assert told == ["session"] and lock.lost_reason is None


def test_holding__late_return_of_the_same_session__what_was_lost_stays_lost(
    connect: Callable[..., Client], zookeeper: Any
) -> None:
    client = connect()
    client.ensure_path(PATH)
    holder, lock = Lock(client, PATH), Lock(client, PATH)
    assert holder.acquire(timeout=10.0)
    ask = waiter(lock, client, timeout=60.0)
    session = client.session.session_id

    zookeeper.kill()
    assert holder.lost.wait(2 * T)
    zookeeper.start()  # from its log, with a fresh T for the session
    eventually(lambda: client.session.state is SessionState.CONNECTED, 20.0)

    assert ask.result(20.0) is True
    assert not holder.is_acquired
    assert client.session.session_id == session
    assert created(client) == 3  # who waited did not take its old place
    eventually(lambda: len(children(client)) == 1)


@pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout])
def test_holding__killed__stays_held_unless_a_block_is_left(
    client: Client, operator: Client, kind: type[BaseException]
) -> None:
    plain, block, managed = (Lock(client, f"{PATH}/{name}") for name in "abc")

    def hold() -> None:
        assert plain.acquire()
        with block, managed.locked():
            gevent.sleep(60.0)

    greenlet = gevent.spawn(hold)
    eventually(lambda: managed.is_acquired)
    greenlet.kill(kind, timeout=5.0)

    assert plain.is_acquired and not block.is_acquired and not managed.is_acquired
    eventually(lambda: not operator.get_children(f"{PATH}/c"))
    assert plain.release()


def test_holding__interrupt__has_no_effect(client: Client) -> None:
    lock = InterruptableLock(client, PATH)
    assert lock.acquire(timeout=10.0)

    lock.interrupt()

    assert lock.is_acquired
    lock.verify()


def test_holding__node_deleted_by_others__is_lost_at_once(client: Client, operator: Client) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)
    gevent.sleep(0.6)  # held for long enough to be watched

    operator.delete(f"{PATH}/{children(operator)[0]}")

    assert lock.lost.wait(2.0)
    assert lock.lost_reason == "deleted" and not lock.is_acquired


def test_holding__a_server_too_slow_to_say_if_it_is_there__is_asked_again_after_a_pause(
    connect: Callable[..., Client], proxy: Any
) -> None:
    client = connect(proxy.hosts, timeout=20.0, request_timeout=0.05)
    lock = Lock(client, PATH)
    while not lock.acquire(timeout=10.0):  # 50 ms may be over by then
        pass
    proxy.hold_replies()
    before = proxy.counts()["get"]
    gevent.sleep(1.2)

    asked = proxy.counts()["get"] - before
    proxy.heal()
    assert 1 <= asked <= 4, f"{asked} times in 1.2 s"
    assert lock.is_acquired


# It releases.


def test_release__suspended__returns_at_once_and_the_node_goes_later(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)
    disconnect(proxy, client)
    began = time.monotonic()

    assert lock.release() is True

    assert time.monotonic() - began < 0.1
    assert not lock.is_acquired and not lock.lost.is_set()
    proxy.heal()
    eventually(lambda: not children(operator))


def test_release__silent_server__returns_soon_and_the_node_goes_later(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)
    proxy.hold()
    began = time.monotonic()

    assert lock.release() is True

    assert time.monotonic() - began < T / 4
    assert not lock.is_acquired
    proxy.cut()
    proxy.heal()
    eventually(lambda: not children(operator))


def test_release__after_a_loss__has_nothing_to_do(
    client: Client, operator: Client, zookeeper: Any
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)
    zookeeper.expire(client)
    assert lock.lost.wait(T)

    assert lock.release() is False
    assert not children(operator)


@pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout])
def test_release__killed__is_released(
    client: Client, operator: Client, proxy: Any, kind: type[BaseException]
) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire(timeout=10.0)
    proxy.hold()
    greenlet = gevent.spawn(lock.release)
    gevent.sleep(0.05)
    greenlet.kill(kind, timeout=5.0)
    assert not lock.is_acquired
    proxy.resume()

    eventually(lambda: not children(operator))


# At any moment.


def test_acquires_struck_at_any_moment_leave_no_node(
    client: Client, operator: Client, proxy: Any
) -> None:
    rng = random.Random(7)
    proxy.delay(requests=0.004, replies=0.004)
    queue_for = Lock(operator, PATH)
    ends = {"granted": 0, "struck": 0}

    def attempt(lock: Lock) -> None:
        with lock:
            ends["granted"] += 1
            gevent.sleep(0.002)

    for number in range(200):
        held = number % 3 == 0 and queue_for.acquire(blocking=False)
        greenlet = gevent.spawn(attempt, Lock(client, PATH))
        gevent.sleep(rng.uniform(0, 0.03))
        if not greenlet.ready():
            ends["struck"] += 1
        greenlet.kill(rng.choice([gevent.GreenletExit, gevent.Timeout]), timeout=5.0)
        if held:
            queue_for.release()

    assert min(ends.values()) > 20, ends
    eventually(lambda: not children(operator))
    assert client._janitor.pending() == 0


def test_an_interrupt_of_the_process_leaves_no_node(
    client: Client, operator: Client, proxy: Any, holder: Lock
) -> None:
    """As Ctrl-C does it: in the greenlet which runs, or by the hub in the main one."""
    proxy.delay(requests=0.01, replies=0.01)
    for moment in (0.0, 0.005, 0.012, 0.025, 0.05, 0.1):
        main = gevent.getcurrent()
        timer = gevent.get_hub().loop.timer(moment)
        timer.start(lambda main=main: main.throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            Lock(client, PATH).acquire(timeout=10.0)
        timer.close()

    eventually(lambda: len(children(operator)) == 1)


# What no server can be made to do in time.


class FakeSession:
    state = SessionState.CONNECTED
    timeout = 2.0
    over = False

    def __init__(self) -> None:
        self.now = 100.0
        self.lease_deadline = 1e9
        self.wake: Callable[[], object] = lambda: None

    def clock(self) -> float:
        return self.now

    def holds(self, epoch: int) -> bool:
        return not self.over

    def lease_remaining(self) -> float:
        return self.lease_deadline - self.now

    def subscribe(self, wake: Callable[[], object]) -> Callable[[], None]:
        self.wake = wake
        return lambda: None

    def move(self, state: SessionState) -> None:
        self.state = state
        self.wake()


class FakeClient:
    """Its server answers when the test does."""

    def __init__(self) -> None:
        self.session = FakeSession()
        self.disposed: list[str] = []
        self.reads: list[gevent.event.AsyncResult] = []
        self._janitor = self

    def dispose(self, directory: str, guid: str, name: str | None, *, epoch: int) -> None:
        self.disposed.append(guid)

    def sync_async(self, path: str) -> None:
        pass

    def get_async(self, path: str, watch: object) -> Any:
        self.reads.append(gevent.event.AsyncResult())
        return self.reads[-1]


def test_holding__reconnect__is_not_held_for_longer_than_t_without_having_seen_the_node() -> None:
    client: Any = FakeClient()
    session = client.session
    ended: list[Grant] = []
    grant = Grant(client, Node(f"{PATH}/n", "guid", 7, 1, 1), PATH, on_end=ended.append)
    session.move(SessionState.SUSPENDED)
    session.move(SessionState.CONNECTED)

    assert grant.held and grant.lease_remaining() == pytest.approx(2.0)
    session.now += 1.5
    session.move(SessionState.SUSPENDED)
    session.move(SessionState.CONNECTED)  # does not begin anew
    assert grant.held and grant.lease_remaining() == pytest.approx(0.5)

    session.now += 0.5
    assert not grant.held and grant.lease_remaining() == 0.0
    client.reads[-1].set((b"", None))  # it was there, and that comes too late
    gevent.sleep(0.01)
    assert not grant.held
    assert grant.state is Tenure.LOST and grant.reason == "unverified"
    assert ended == [grant] and client.disposed == ["guid"]


def test_holding__reconnect__is_held_for_longer_than_t_once_the_node_was_seen() -> None:
    client: Any = FakeClient()
    session = client.session
    grant = Grant(client, Node(f"{PATH}/n", "guid", 7, 1, 1), PATH, on_end=print)
    session.move(SessionState.SUSPENDED)
    session.move(SessionState.CONNECTED)

    client.reads[-1].set((b"", None))
    gevent.sleep(0.01)
    session.now += 100.0

    assert grant.held and grant.lease_remaining() > 100.0


def test_holding__reconnect__is_told_in_time_that_the_node_was_not_seen() -> None:
    client: Any = FakeClient()
    session = client.session
    session.timeout = 0.1
    grant = Grant(client, Node(f"{PATH}/n", "guid", 7, 1, 1), PATH, on_end=print)
    session.move(SessionState.SUSPENDED)
    session.move(SessionState.CONNECTED)
    gevent.sleep(0.15)
    assert grant.held  # by the session's clock, which counts
    session.now += 0.1

    assert grant.lost.wait(5.0) and grant.reason == "unverified"
