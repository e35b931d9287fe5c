"""Semaphores against lost answers, kills, ends of sessions and other people's hands.

The bound is judged by the server's own log of transactions: each grant, with all leases and the
maximum of that moment.
"""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest

from sepelib.zookeeper import Client, Lease, LockLost, Semaphore, SessionState
from sepelib.zookeeper._permit import Limit, Permit, count_of
from sepelib.zookeeper._wait import Wait

SESSION = 1.0  # seconds; where it runs out
PATH = "/limits/backend"


class Grant(NamedTuple):
    """What the server's log says of one lease."""

    zxid: int
    leases: int  # all of them then, this one too
    most: int


def transactions(folder: Path) -> Iterator[tuple[int, int, list[tuple[int, bytes]]]]:
    """(zxid, session, [(operation, record)]) of all that the server in *folder* has done."""
    logs = folder.rglob("log.*")
    for path in sorted(logs, key=lambda path: int(path.suffix[1:], 16)):
        data, at = path.read_bytes(), 16
        while at + 12 <= len(data):
            length = struct.unpack_from(">i", data, at + 8)[0]
            if length <= 0:
                break
            session, _, zxid, _, operation = struct.unpack_from(">qiqqi", data, at + 12)
            record = data[at + 44 : at + 12 + length]
            yield zxid, session, _parts(operation, record)
            at += length + 13


def _parts(operation: int, record: bytes) -> list[tuple[int, bytes]]:
    if operation != 14:
        return [(operation, record)]
    parts, at = [], 4
    for _ in range(struct.unpack_from(">i", record)[0]):
        part = struct.unpack_from(">i", record, at)[0]
        text, at = _text(record, at + 4)
        parts.append((part, text))
    # What was refused is in the log too, with an error where it was.
    return [] if any(part == -1 for part, _ in parts) else parts


def _text(record: bytes, at: int) -> tuple[bytes, int]:
    length = struct.unpack_from(">i", record, at)[0]
    return record[at + 4 : at + 4 + max(0, length)], at + 4 + max(0, length)


def grants(folder: Path, semaphore: str) -> list[Grant]:
    """All grants of the *semaphore* at that full path, each judged."""
    found, limit = list[Grant](), Limit(semaphore, None)
    leases, most = dict[str, int](), 0  # whose they are
    for zxid, session, parts in transactions(folder):
        granted = False
        for operation, record in parts:
            if operation in (1, 2, 5, 15):  # create, delete, set, create2
                path, at = _text(record, 0)
                directory, _, name = path.decode().rpartition("/")
                if path.decode() == semaphore and operation != 2:
                    data = _text(record, at)[0]
                    most = limit.read(data) if data else 0
                elif directory == semaphore and "__lease__" in name:
                    if operation == 2:
                        leases.pop(name, None)
                    elif operation != 5:
                        granted, leases[name] = True, session
            elif operation == -11:
                leases = {name: owner for name, owner in leases.items() if owner != session}
        if granted:
            found.append(Grant(zxid, sum(map(count_of, leases)), most))
    return found


@pytest.fixture
def history(zookeeper: Any) -> Callable[[], list[Grant]]:
    return lambda: grants(zookeeper.folder, zookeeper.chroot + PATH)


@pytest.fixture
def connect(zookeeper: Any) -> Callable[..., Client]:
    def connect(hosts: str = zookeeper.hosts, **options: Any) -> Client:
        client: Client = zookeeper.client(hosts=hosts, **{"timeout": 6.0} | options)
        return client

    return connect


@pytest.fixture
def client(connect: Callable[..., Client], proxy: Any) -> Client:
    """One whose requests and answers go through the proxy."""
    return connect(proxy.hosts)


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """A client that no fault touches."""
    return connect(timeout=20.0)


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def children(operator: Client, kind: str = "") -> list[str]:
    names = operator.get_children(PATH) if operator.exists(PATH) else []
    return sorted((name for name in names if kind in name), key=lambda name: name[-10:])


def count(operator: Client, kind: str, number: int) -> None:
    eventually(lambda: len(children(operator, kind)) == number)


def acquired(semaphore: Semaphore, n: int = 1, timeout: float | None = 10.0) -> Lease:
    lease = semaphore.acquire(n, timeout=timeout)
    assert lease is not None
    return lease


def clear(operator: Client) -> None:
    """All of it at once."""
    transaction = operator.transaction()
    for name in children(operator):
        transaction.delete(f"{PATH}/{name}")
    transaction.delete(PATH)
    transaction.commit()


# Each request of an acquire: of the first, of one who has to wait, of one behind that one.

REQUESTS = [
    ("create", b"max_leases", 0),
    ("create", b"__wait__", 0),
    ("get_children", b"", 0),
    ("get", b"", 0),
    ("multi", b"", 0),
    ("create", b"__wait__", 1),
    ("get_children", b"", 1),
    ("get", b"", 1),
    ("get", b"__wait__", 2),
]


class Attempt:
    """An acquire in a greenlet of its own, with *others* before it, the first of whom holds."""

    def __init__(self, client: Client, operator: Client, others: int) -> None:
        self.operator = operator
        before = Semaphore(operator, PATH)
        self.holder = acquired(before) if others else None
        self.waiters = [gevent.spawn(acquired, before) for _ in range(others - 1)]
        count(operator, "__wait__", len(self.waiters))
        self._client = client

    def start(self) -> Any:
        self.greenlet = gevent.spawn(acquired, Semaphore(self._client, PATH), timeout=20.0)
        return self.greenlet

    def free(self) -> None:
        """Let those before it go."""
        if self.holder is not None:
            self.holder.release()
        for waiter in self.waiters:
            waiter.get(timeout=10.0).release()


@pytest.mark.parametrize(("operation", "containing", "others"), REQUESTS)
def test_an_answer_that_is_lost_costs_nothing_but_time(
    client: Client,
    operator: Client,
    proxy: Any,
    history: Callable[[], list[Grant]],
    operation: str,
    containing: bytes,
    others: int,
) -> None:
    attempt = Attempt(client, operator, others)
    with proxy.lose_answer_to(operation, containing=containing) as loss:
        attempt.start()
        loss.wait()
    attempt.free()

    lease = attempt.greenlet.get(timeout=10.0)
    count(operator, "", 1)
    [name] = children(operator, "__lease__")
    stat = operator.exists(f"{PATH}/{name}")
    assert (stat.czxid, stat.ephemeralOwner) == (lease.token, client.session.session_id)
    assert lease.held
    assert lease.release()
    count(operator, "", 0)
    assert len(history()) == 1 + others, "it was granted twice"


@pytest.mark.parametrize(("operation", "containing", "others"), REQUESTS)
def test_who_is_killed_at_any_request_leaves_nothing(
    client: Client,
    operator: Client,
    proxy: Any,
    operation: str,
    containing: bytes,
    others: int,
) -> None:
    attempt = Attempt(client, operator, others)
    with proxy.lose_answer_to(operation, containing=containing, then="hold") as loss:
        attempt.start()
        loss.wait()
        attempt.greenlet.kill(gevent.Timeout if others else gevent.GreenletExit, timeout=1.0)
    assert attempt.greenlet.ready(), "the kill was not heard"
    proxy.heal()

    count(operator, "", others)
    attempt.free()
    count(operator, "", 0)
    eventually(lambda: client._janitor.pending() == 0)
    with acquired(Semaphore(client, PATH)) as lease:
        assert lease.held


class Slow(Permit):
    """One that takes its time between the listing and the request that makes the lease."""

    def __init__(self, client: Client, semaphore: Semaphore) -> None:
        wait = Wait(PATH, 20.0, what="semaphore")
        super().__init__(client, PATH, 1, semaphore._limit, semaphore._data, wait)
        self.asking = gevent.event.Event()
        self.go = gevent.event.Event()

    def _ask(self) -> None:
        if not self.asking.is_set():
            self.asking.set()
            self.go.wait(10.0)
        super()._ask()


@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit])
def test_a_grant_whose_answer_is_late_is_not_kept_by_one_who_is_killed(
    client: Client, operator: Client, proxy: Any, error: type[BaseException]
) -> None:
    permit = Slow(client, Semaphore(client, PATH))
    attempt = gevent.spawn(permit.run)
    assert permit.asking.wait(5.0)
    proxy.hold_replies()
    permit.go.set()
    count(operator, "__lease__", 1)
    attempt.kill(error, timeout=1.0)
    assert attempt.ready()
    proxy.heal()  # on the same connection, the answer comes

    count(operator, "", 0)


def test_a_grant_whose_answer_is_lost_is_not_kept_by_one_whose_time_is_over(
    client: Client, operator: Client, proxy: Any
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    acquired(semaphore).release()
    with proxy.lose_answer_to("multi", then="hold"):
        assert semaphore.acquire(2, timeout=0.3) is None
        assert len(children(operator, "x2__lease__")) == 1, "the server has granted it"
    proxy.heal()

    count(operator, "", 0)


def test_a_grant_that_was_not_sent_when_its_caller_was_killed_never_is(
    client: Client, operator: Client, proxy: Any, history: Callable[[], list[Grant]]
) -> None:
    permit = Slow(client, Semaphore(client, PATH))
    attempt = gevent.spawn(permit.run)
    assert permit.asking.wait(5.0)
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.session.state is SessionState.SUSPENDED)
    permit.go.set()
    gevent.sleep(0.05)
    attempt.kill(timeout=1.0)
    assert attempt.ready()
    proxy.heal()

    count(operator, "", 0)
    assert history() == []


def test_a_woken_head_whose_answer_is_lost_looks_again(
    client: Client, operator: Client, proxy: Any
) -> None:
    holder = acquired(Semaphore(operator, PATH))
    attempt = gevent.spawn(acquired, Semaphore(client, PATH))
    count(operator, "__wait__", 1)
    gevent.sleep(0.1)
    with proxy.lose_answer_to("get_children"):
        holder.release()
        assert attempt.get(timeout=10.0).held
    count(operator, "", 1)


@pytest.mark.parametrize("then", ["cut", "hold"])
def test_a_release_whose_answer_is_lost_releases(
    client: Client, operator: Client, proxy: Any, then: str
) -> None:
    lease = acquired(Semaphore(client, PATH, max_leases=2), 2)
    with proxy.lose_answer_to("delete", then=then), gevent.Timeout(2.0):
        assert lease.release() and not lease.held
    proxy.heal()
    count(operator, "", 0)


def test_a_release_that_is_killed_releases(client: Client, operator: Client, proxy: Any) -> None:
    lease = acquired(Semaphore(client, PATH))
    proxy.hold_requests()
    release = gevent.spawn(lease.release)
    gevent.sleep(0.05)
    release.kill(timeout=1.0)
    assert release.ready() and not lease.held
    proxy.heal()
    count(operator, "", 0)


# A maximum whose answer is lost.


def test_a_change_of_the_maximum_whose_answer_is_lost_is_done_once(
    client: Client, operator: Client, proxy: Any
) -> None:
    semaphore = Semaphore(client, PATH)
    for operation in ("create", "get", "multi"):
        version = operator.get(PATH)[1].version if operator.exists(PATH) else -1
        with proxy.lose_answer_to(operation):
            semaphore.set_max_leases(version + 5, timeout=10.0)
        assert semaphore.get_max_leases() == version + 5
        assert operator.get(PATH)[1].version == version + 1

    assert children(operator) == []


def test_a_change_whose_answer_is_lost_does_not_undo_the_next_one(
    client: Client, operator: Client, proxy: Any
) -> None:
    semaphore, other = Semaphore(client, PATH), Semaphore(operator, PATH)
    semaphore.set_max_leases(2)
    with proxy.lose_answer_to("multi", then="hold") as loss:
        change = gevent.spawn(semaphore.set_max_leases, 7, timeout=10.0)
        loss.wait()
        other.set_max_leases(3)
        proxy.cut()
    proxy.heal()

    change.get(timeout=10.0)
    assert other.get_max_leases() == 3


def test_a_change_whose_answer_and_node_are_lost_is_made_again(
    client: Client, operator: Client, proxy: Any
) -> None:
    semaphore = Semaphore(client, PATH)
    semaphore.set_max_leases(2)
    with proxy.lose_answer_to("multi", then="hold") as loss:
        change = gevent.spawn(semaphore.set_max_leases, 7, timeout=10.0)
        loss.wait()
        operator.delete("/limits", recursive=True)
        proxy.cut()
    proxy.heal()

    change.get(timeout=10.0)
    assert Semaphore(operator, PATH).get_max_leases() == 7


def test_changes_at_once_all_end_and_one_of_them_stays(
    client: Client, operator: Client, proxy: Any
) -> None:
    semaphores = [Semaphore(it, PATH, max_leases=None) for it in (client, operator)]
    semaphores[0].set_max_leases(1)
    greenlets = [
        gevent.spawn(semaphores[number % 2].set_max_leases, 2 + number) for number in range(8)
    ]
    gevent.joinall(greenlets, timeout=10.0, raise_error=True)

    assert all(greenlet.ready() for greenlet in greenlets)
    assert 2 <= semaphores[1].get_max_leases() <= 9


# What others do.


def test_a_wait_that_is_deleted_beside_its_grant_is_no_lease(
    client: Client, operator: Client, history: Callable[[], list[Grant]]
) -> None:
    semaphore = Semaphore(client, PATH)
    permit = Slow(client, semaphore)
    attempt = gevent.spawn(permit.run)
    assert permit.asking.wait(5.0)
    [wait] = children(operator)
    operator.delete(f"{PATH}/{wait}")
    other = acquired(Semaphore(operator, PATH))
    permit.go.set()

    count(operator, "__wait__", 1)
    assert not attempt.ready()
    other.release()
    node = attempt.get(timeout=5.0)
    assert [node.name] == children(operator) and node.guid != wait[:32]
    assert [grant.leases for grant in history()] == [1, 1]


def test_a_grant_that_is_there_already_is_taken_for_what_it_is(
    client: Client, operator: Client
) -> None:
    """As when a multi without an answer is done late, beside the second one."""
    semaphore = Semaphore(client, PATH)
    permit = Slow(client, semaphore)
    attempt = gevent.spawn(permit.run)
    assert permit.asking.wait(5.0)
    [wait] = children(operator)
    lease = wait.replace("__wait__", "__lease__")
    transaction = client.transaction()
    transaction.create(f"{PATH}/{lease}", ephemeral=True)
    transaction.delete(f"{PATH}/{wait}")
    transaction.commit()
    permit.go.set()

    node = attempt.get(timeout=5.0)
    assert node.name == lease == children(operator)[0]
    assert node.token == operator.exists(f"{PATH}/{lease}").czxid


def test_all_of_it_may_be_deleted_while_some_hold_and_some_wait(
    client: Client, operator: Client, history: Callable[[], list[Grant]]
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    held = acquired(semaphore, 2)
    attempts = [gevent.spawn(acquired, semaphore) for _ in range(4)]
    count(operator, "__wait__", 4)
    gevent.sleep(0.4)

    clear(operator)

    gevent.wait(attempts, timeout=10.0, count=2)
    assert held.lost.wait(5.0) and held.lost_reason == "deleted"
    count(operator, "__wait__", 2)
    for attempt in attempts:
        if attempt.ready():
            attempt.get().release()
    gevent.joinall(attempts, timeout=10.0, raise_error=True)
    assert all(attempt.ready() for attempt in attempts)
    assert all(grant.leases <= 2 for grant in history())


def test_a_parent_that_goes_each_time_is_made_again(
    client: Client, operator: Client, history: Callable[[], list[Grant]]
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    for _ in range(5):
        acquired(semaphore).release()
        operator.delete("/limits", recursive=True)

    assert acquired(semaphore, 2).held and semaphore.get_max_leases() == 2


# Sessions.


def test_a_lease_is_lost_with_its_session_and_told(
    zookeeper: Any, connect: Callable[..., Client], operator: Client
) -> None:
    client, told = connect(), list[str]()
    semaphore = Semaphore(
        client, PATH, max_leases=2, on_lost=lambda lease, reason: told.append(reason)
    )
    first, second = acquired(semaphore), acquired(semaphore)
    attempt = gevent.spawn(acquired, Semaphore(operator, PATH, max_leases=2), 2)
    count(operator, "__wait__", 1)

    zookeeper.expire(client)

    assert attempt.get(timeout=5.0).held
    for lease in (first, second):
        assert lease.lost.wait(5.0) and not lease.held
        with pytest.raises(LockLost, match="session"):
            lease.check()
    eventually(lambda: told == ["session", "session"])


def test_who_is_cut_off_knows_before_another_has_the_lease(
    connect: Callable[..., Client], proxy: Any, operator: Client
) -> None:
    client = connect(proxy.hosts, timeout=SESSION)
    lease = acquired(Semaphore(client, PATH))
    attempt = gevent.spawn(acquired, Semaphore(operator, PATH))
    count(operator, "__wait__", 1)

    proxy.hold()
    assert attempt.get(timeout=10 * SESSION).held

    assert not lease.held, "two have one lease"


def test_who_waits_goes_on_in_a_new_session(
    zookeeper: Any, connect: Callable[..., Client], operator: Client
) -> None:
    holder = acquired(Semaphore(operator, PATH))
    client = connect()
    attempt = gevent.spawn(acquired, Semaphore(client, PATH))
    count(operator, "__wait__", 1)
    first = client.session.session_id

    zookeeper.expire(client)
    eventually(lambda: client.session.session_id != first)
    count(operator, "__wait__", 1)
    holder.release()

    assert attempt.get(timeout=10.0).held
    [name] = children(operator)
    assert operator.exists(f"{PATH}/{name}").ephemeralOwner == client.session.session_id


def test_a_watch_whose_answer_and_session_are_lost_is_not_waited_for(
    zookeeper: Any, connect: Callable[..., Client], operator: Client, proxy: Any
) -> None:
    holder = acquired(Semaphore(operator, PATH))
    client = connect(proxy.hosts, timeout=2.0)
    watched = PATH.encode() + b"\1"
    with proxy.lose_answer_to("get_children", containing=watched, then="hold") as loss:
        attempt = gevent.spawn(acquired, Semaphore(client, PATH))
        loss.wait()
        first = client.session.session_id
        zookeeper.expire(client)
    proxy.heal()
    eventually(lambda: client.session.session_id != first)
    count(operator, "__wait__", 1)
    gevent.sleep(0.1)

    holder.release()
    assert attempt.get(timeout=5.0).held


def test_a_grant_whose_session_ends_before_its_answer_is_none(
    zookeeper: Any, connect: Callable[..., Client], operator: Client, proxy: Any
) -> None:
    client = connect(proxy.hosts, timeout=2.0)
    semaphore = Semaphore(client, PATH)
    acquired(semaphore).release()
    first = client.session.session_id
    with proxy.lose_answer_to("multi", then="hold") as loss:
        attempt = gevent.spawn(acquired, semaphore)
        loss.wait()
        zookeeper.expire(client)
    proxy.heal()

    lease = attempt.get(timeout=10.0)
    assert lease.held and client.session.session_id != first
    count(operator, "", 1)
    assert lease.token == operator.exists(f"{PATH}/{children(operator)[0]}").czxid


def test_a_session_that_was_lost_by_the_clock_alone_keeps_nothing(
    connect: Callable[..., Client], proxy: Any, operator: Client
) -> None:
    """The servers still know the session, and a grant of it is under way."""
    client = connect(proxy.hosts, timeout=SESSION)
    semaphore = Semaphore(client, PATH)
    acquired(semaphore).release()
    with proxy.lose_answer_to("multi", then="hold") as loss:
        attempt = gevent.spawn(acquired, semaphore)
        loss.wait()
        proxy.hold()
        eventually(lambda: client.session.state is SessionState.LOST)
    proxy.heal()

    assert attempt.get(timeout=10.0).held
    count(operator, "", 1)


def test_a_restart_of_the_server_costs_no_lease_and_no_place(
    zookeeper: Any, connect: Callable[..., Client]
) -> None:
    semaphores = [Semaphore(connect(timeout=20.0), PATH, max_leases=2) for _ in range(3)]
    lease = acquired(semaphores[0], 2)
    attempts = [gevent.spawn(acquired, it, timeout=30.0) for it in semaphores[1:]]
    operator = semaphores[0]._client
    count(operator, "__wait__", 2)
    before = children(operator, "__wait__")

    zookeeper.restart()

    eventually(lambda: operator.connected, 20.0)
    assert children(operator, "__wait__") == before
    lease.check()
    lease.release()
    gevent.joinall(attempts, timeout=20.0, raise_error=True)
    assert all(attempt.get().held for attempt in attempts)


# Everything at once.


class Belief:
    """Which leases their owners take for held."""

    def __init__(self) -> None:
        self.leases = set[Lease]()
        self.highest = 0
        self.granted = 0
        self.five = gevent.event.Event()

    def enter(self, lease: Lease) -> None:
        self.leases.add(lease)
        self.granted += 1
        self.highest = max(self.highest, sum(it.count for it in self.leases if it.held))
        if self.highest == 5:
            self.five.set()

    def leave(self, lease: Lease) -> None:
        self.leases.discard(lease)


def judge(history: list[Grant], at_least: int) -> None:
    assert [grant for grant in history if grant.leases > grant.most] == []
    assert len(history) >= at_least


def test_fifty_contenders_have_never_more_than_five_leases(
    zookeeper: Any,
    connect: Callable[..., Client],
    operator: Client,
    history: Callable[[], list[Grant]],
) -> None:
    belief, laps = Belief(), 3
    clients = [connect(timeout=20.0) for _ in range(10)]

    def work(client: Client, seed: int) -> None:
        rng, semaphore = random.Random(seed), Semaphore(client, PATH, max_leases=5)
        for _ in range(laps):
            with acquired(semaphore, timeout=60.0) as lease:
                belief.enter(lease)
                belief.five.wait(10.0)  # once all that may be are there
                gevent.sleep(rng.choice([0.0, 0.001, 0.005]))
                belief.leave(lease)

    before = int(zookeeper.mntr()["zk_packets_received"])
    workers = [gevent.spawn(work, clients[number % 10], number) for number in range(50)]
    gevent.joinall(workers, timeout=60.0, raise_error=True)
    seen = int(zookeeper.mntr()["zk_packets_received"]) - before

    assert belief.granted == 50 * laps and belief.highest == 5
    judge(history(), 50 * laps)
    assert seen / (50 * laps) < 12, "requests of one acquire and release, of all who are involved"
    assert children(operator) == []


def test_kills_and_timeouts_at_any_moment_leave_nothing(
    zookeeper: Any,
    connect: Callable[..., Client],
    operator: Client,
    history: Callable[[], list[Grant]],
) -> None:
    clients, belief, rng = [connect() for _ in range(2)], Belief(), random.Random(1)
    limits = [0.001, 0.003, 0.01, 0.05, 0.2]
    watches = zookeeper.mntr()["zk_watch_count"]
    until = time.monotonic() + 0.7

    def goes_on() -> bool:
        return time.monotonic() < until or belief.granted <= 20

    def work(client: Client, seed: float) -> None:
        rng, semaphore = random.Random(seed), Semaphore(client, PATH, max_leases=3)
        while goes_on():
            with (
                gevent.Timeout(rng.choice(limits), False),  # type: ignore[arg-type]
                semaphore.leased(rng.choice([1, 1, 2, 3])) as lease,
            ):
                belief.enter(lease)
                try:
                    gevent.sleep(rng.choice([0.0, 0.001, 0.01]))
                finally:
                    belief.leave(lease)

    workers = [gevent.spawn(work, clients[number % 2], number) for number in range(8)]
    while goes_on():
        gevent.sleep(rng.random() / 50)
        number = rng.randrange(8)
        workers[number].kill(block=False)
        workers[number] = gevent.spawn(work, clients[number % 2], rng.random())
    gevent.joinall(workers, timeout=10.0)

    assert all(worker.ready() for worker in workers)
    assert belief.highest <= 3
    judge(history(), belief.granted)
    count(operator, "", 0)
    eventually(lambda: zookeeper.mntr()["zk_watch_count"] == watches)


def test_grants_and_changes_race_over_lost_answers_and_never_exceed_the_maximum(
    proxy: Any,
    connect: Callable[..., Client],
    operator: Client,
    history: Callable[[], list[Grant]],
) -> None:
    clients, belief, rng = [connect(proxy.hosts) for _ in range(3)], Belief(), random.Random(2)
    Semaphore(operator, PATH, max_leases=None).set_max_leases(4)
    until = time.monotonic() + 0.8

    def goes_on() -> bool:
        return time.monotonic() < until or belief.granted <= 30

    def work(client: Client, seed: int) -> None:
        rng, semaphore = random.Random(seed), Semaphore(client, PATH, max_leases=None)
        while goes_on():
            lease = semaphore.acquire(rng.choice([1, 1, 2]), timeout=0.5)
            if lease is not None:
                belief.enter(lease)
                gevent.sleep(rng.choice([0.0, 0.001, 0.01]))
                belief.leave(lease)
                lease.release()

    def change() -> None:
        rng, semaphore = random.Random(3), Semaphore(clients[0], PATH, max_leases=None)
        while goes_on():
            semaphore.set_max_leases(rng.randint(2, 4), timeout=10.0)
            gevent.sleep(rng.random() / 50)

    workers: list[Any] = [gevent.spawn(work, clients[number % 3], number) for number in range(9)]
    workers.append(gevent.spawn(change))
    while goes_on():
        operation = rng.choice(["create", "get_children", "multi", "multi", "get", "delete"])
        loss = proxy.lose_answer_to(operation, then=rng.choice(["cut", "reset"]))
        gevent.sleep(rng.random() / 20)
        loss.cancel()
        gevent.sleep(rng.random() / 20)
    gevent.joinall(workers, timeout=20.0, raise_error=True)

    assert all(worker.ready() for worker in workers)
    assert belief.highest <= 4 and belief.granted > 30
    judge(history(), belief.granted)
    assert len({grant.most for grant in history()}) > 1, "the maximum never changed"
    count(operator, "", 0)
    eventually(lambda: all(client._janitor.pending() == 0 for client in clients))


def test_followers_that_lag_grant_nobody_too_much(zookeeper_ensemble: Any) -> None:
    ensemble = zookeeper_ensemble
    hosts = [f"{ensemble[number].hosts}{ensemble.chroot}" for number in range(3)]
    clients = [ensemble.client(hosts=hosts[number % 3], timeout=6.0) for number in range(6)]
    belief, until = Belief(), time.monotonic() + 0.7
    Semaphore(clients[0], PATH, max_leases=None).set_max_leases(3)

    def work(client: Client, seed: int) -> None:
        rng, semaphore = random.Random(seed), Semaphore(client, PATH, max_leases=None)
        while time.monotonic() < until:
            with acquired(semaphore, rng.choice([1, 2])) as lease:
                belief.enter(lease)
                gevent.sleep(0.0)
                belief.leave(lease)

    def change() -> None:
        rng, semaphore = random.Random(4), Semaphore(clients[1], PATH, max_leases=None)
        while time.monotonic() < until:
            semaphore.set_max_leases(rng.randint(2, 3))
            gevent.sleep(rng.random() / 20)

    workers: list[Any] = [
        gevent.spawn(work, client, number) for number, client in enumerate(clients * 2)
    ]
    gevent.joinall([*workers, gevent.spawn(change)], timeout=30.0, raise_error=True)

    assert belief.highest <= 3 and belief.granted > 10
    judge(grants(ensemble.leader().folder, ensemble.chroot + PATH), belief.granted)
