"""Who holds and who waits, as operators see it, and holds that are ended by force."""

import random
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from kazoo.security import CREATOR_ALL_ACL

from sepelib.util.deadline import deadline
from sepelib.zookeeper import (
    Client,
    Lock,
    LockLost,
    LockNotAcquired,
    ReadLock,
    Semaphore,
    WriteLock,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
    break_lock,
)
from sepelib.zookeeper.operate import occupancy, read_occupants

PATH = "/service/lock"


@pytest.fixture
def client(zookeeper: Any) -> Client:
    client: Client = zookeeper.client(timeout=10.0)
    return client


@pytest.fixture
def operator(zookeeper: Any, proxy: Any) -> Client:
    """Another client, behind the proxy."""
    client: Client = zookeeper.client(hosts=proxy.hosts, timeout=2.0)
    return client


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def held(lock: Any) -> Any:
    assert lock.acquire(timeout=5.0)
    return lock


def names(*markers: str) -> list[str]:
    """Contenders with these markers, in their order, in a listing that has none."""
    children = [f"{random.getrandbits(128):032x}{it}{n:010}" for n, it in enumerate(markers)]
    random.shuffle(children)
    return children


# Who is there.


@pytest.mark.parametrize(
    ("markers", "holding"),
    [
        ("", ""),
        ("w", "h"),
        ("www", "h.."),
        ("rrr", "hhh"),
        ("rrwr", "hh.."),
        ("wrr", "h.."),
        ("rw", "h."),
    ],
)
def test_a_writer_holds_alone_and_readers_up_to_the_first_writer(
    markers: str, holding: str
) -> None:
    children = names(*({"w": "__lock__", "r": "__rlock__"}[it] for it in markers))

    holders, waiters = occupancy([*children, "config", "w-1"])

    places = sorted(holders + waiters, key=lambda place: place.sequence)
    assert "".join("h" if place in holders else "." for place in places) == holding
    assert [place.sequence for place in waiters] == sorted(place.sequence for place in waiters)


def test_all_leases_of_a_semaphore_are_held() -> None:
    holders, waiters = occupancy(names("__lease__", "__wait__", "__lease__", "__wait__"))

    assert [place.sequence for place in holders] == [0, 2]
    assert [place.sequence for place in waiters] == [1, 3]


def test_the_wrap_of_the_sequence_does_not_change_the_order() -> None:
    guid = f"{7:032x}"

    holders, waiters = occupancy([f"{guid}__lock__-2147483648", f"{guid}__lock__2147483647"])

    assert [place.sequence for place in holders + waiters] == [2147483647, -2147483648]


def test_what_is_known_of_a_contender(client: Client, zookeeper: Any) -> None:
    lock = held(Lock(client, PATH))
    gevent.spawn(Lock(client, PATH, "by hand").acquire)
    wait_until(lambda: len(client.get_children(PATH)) == 2)

    holding, waiting = occupancy(client.get_children(PATH))
    (holder, waiter) = read_occupants(client, PATH, holding + waiting)

    assert holder.contender == lock.holder()
    assert holder.kind == "lock" and holder.ephemeral and holder.leases == 1
    assert f"{holder.host}:{holder.pid}" == holder.contender.identifier
    stat = client.exists(holder.path)
    assert holder.since.timestamp() == stat.ctime / 1000 and holder.since.tzinfo
    assert (waiter.contender.identifier, waiter.host, waiter.pid) == ("by hand", None, None)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"{", b'{"id": 1, "host": 2, "pid": "x"}', b"{" * 5000, b"[]", b"1"]
)
def test_data_of_whatever_kind_is_read(client: Client, data: bytes) -> None:
    client.create(f"{PATH}/{names('__lock__')[0]}", data, makepath=True)

    (occupant,) = read_occupants(client, PATH, occupancy(client.get_children(PATH)).holders)

    assert (occupant.host, occupant.pid, occupant.ephemeral) == (None, None, False)


def test_who_has_gone_is_left_out(client: Client) -> None:
    assert list(read_occupants(client, PATH, occupancy(names("__lock__")).holders)) == []


def test_kazoos_contenders_are_seen(client: Client) -> None:
    lock, semaphore = client.Lock(PATH, "kazoo's"), client.Semaphore("/s", "lease", max_leases=2)
    lock.acquire()
    semaphore.acquire()
    client.create(f"/s/{random.getrandbits(128):032x}")  # named so, and no lease

    (locker,) = read_occupants(client, PATH, occupancy(client.get_children(PATH)).holders)
    (leaser,) = read_occupants(client, "/s", occupancy(client.get_children("/s")).holders)

    assert (locker.contender.identifier, locker.kind) == ("kazoo's", "lock")
    assert (leaser.contender.identifier, leaser.kind) == ("lease", "lease")
    assert break_lock(client, "/s") == leaser.contender


# Holds that are ended.


def test_the_holder_is_told_and_the_next_one_has_it(client: Client, operator: Client) -> None:
    first, second = held(Lock(client, PATH)), Lock(client, PATH)
    waiting = gevent.spawn(second.acquire, timeout=10.0)
    wait_until(lambda: len(first.contenders()) == 2)
    told = first.contenders()[0]

    broken = break_lock(operator, PATH, first.fencing_token)

    assert broken == told
    assert waiting.get(timeout=5.0)
    assert first.lost.wait(5.0) and first.lost_reason == "deleted" and not first.is_acquired
    assert second.is_acquired and second.fencing_token > broken.token


def test_without_a_token_it_is_whoever_holds_it(client: Client, operator: Client) -> None:
    lock = held(Lock(client, PATH))

    assert break_lock(operator, PATH).token == lock.fencing_token
    assert lock.lost.wait(5.0)


def test_another_holder_than_the_one_that_was_meant_is_not_touched(
    client: Client, operator: Client
) -> None:
    first = held(Lock(client, PATH))
    token = first.fencing_token
    first.release()
    second = held(Lock(client, PATH, "the next\x1b"))

    with pytest.raises(LockNotAcquired) as caught:
        break_lock(operator, PATH, token)

    assert caught.value.path == PATH
    assert f"0x{token:x}, but the next\\x1b with token 0x" in str(caught.value)
    second.verify()


def test_who_waits_is_not_touched(client: Client, operator: Client) -> None:
    lock = held(Lock(client, PATH))
    waiting = gevent.spawn(Lock(client, PATH).acquire, timeout=10.0)
    wait_until(lambda: len(lock.contenders()) == 2)

    with pytest.raises(LockNotAcquired):
        break_lock(operator, PATH, lock.contenders()[1].token)

    lock.release()
    assert waiting.get(timeout=5.0)


def test_a_lock_that_nobody_holds_is_not_broken(operator: Client) -> None:
    with pytest.raises(LockNotAcquired, match="nobody holds it"):
        break_lock(operator, PATH)
    operator.create(PATH, makepath=True)
    with pytest.raises(LockNotAcquired, match="nobody holds it"):
        break_lock(operator, PATH, 1)


def test_of_several_readers_just_the_one_is_put_out(client: Client, operator: Client) -> None:
    readers = [held(ReadLock(client, PATH, f"reader {n}")) for n in range(5)]
    writer = WriteLock(client, PATH)
    waiting = gevent.spawn(writer.acquire, timeout=10.0)
    wait_until(lambda: len(client.get_children(PATH)) == 6)

    with pytest.raises(LockNotAcquired, match=r"say by the token .* and 2 more"):
        break_lock(operator, PATH)
    assert break_lock(operator, PATH, readers[1].fencing_token).identifier == "reader 1"

    assert readers[1].lost.wait(5.0)
    for reader in readers:
        if reader is not readers[1]:
            reader.verify()
            reader.release()
    assert waiting.get(timeout=5.0)


def test_a_lease_of_a_semaphore_goes_to_the_next(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    leases = [semaphore.acquire(timeout=5.0) for _ in range(2)]
    waiting = gevent.spawn(semaphore.acquire, timeout=10.0)
    wait_until(lambda: len(client.get_children(PATH)) == 3)

    assert leases[0] is not None and leases[1] is not None
    assert break_lock(operator, PATH, leases[0].token).token == leases[0].token

    assert waiting.get(timeout=5.0)
    assert leases[0].lost.wait(5.0)
    leases[1].check()


def test_a_holder_that_lets_go_meanwhile_is_said_so(client: Client, zookeeper: Any) -> None:
    class Late(Client):
        def transaction(self) -> Any:
            lock.release()
            held(Lock(client, PATH))
            return super().transaction()

    lock = held(Lock(client, PATH))
    with Late(zookeeper.hosts) as operator, pytest.raises(LockNotAcquired, match="by itself"):
        break_lock(operator, PATH)
    assert len(client.get_children(PATH)) == 1  # the next one's


def test_a_holder_that_is_asked_to_let_go_meanwhile_is_put_out_all_the_same(
    client: Client, zookeeper: Any
) -> None:
    class Late(Client):
        def transaction(self) -> Any:
            node = f"{PATH}/{client.get_children(PATH)[0]}"
            if client.exists(node).version < 3:
                client.set(node, b"__REVOKE__")
            return super().transaction()

    lock = held(Lock(client, PATH))
    with Late(zookeeper.hosts) as operator:
        assert break_lock(operator, PATH).token == lock.fencing_token
    assert client.get_children(PATH) == []


@pytest.mark.parametrize("operation", ["get_children", "get", "multi"])
def test_a_lost_answer_changes_nothing(
    client: Client, operator: Client, proxy: Any, operation: str
) -> None:
    lock = held(Lock(client, PATH))
    waiting = gevent.spawn(Lock(client, PATH).acquire, timeout=10.0)
    wait_until(lambda: len(lock.contenders()) == 2)

    with proxy.lose_answer_to(operation):
        assert break_lock(operator, PATH).token == lock.fencing_token

    assert waiting.get(timeout=5.0)
    gevent.sleep(0.05)
    assert len(client.get_children(PATH)) == 1  # and not that one too


def test_when_nobody_knows_if_it_was_done_the_next_holder_is_not_taken_for_the_one_that_was_meant(
    client: Client, proxy: Any
) -> None:
    class Unheard(Client):
        def transaction(self) -> Any:
            proxy.hold()  # what is sent from now on never arrives
            gevent.spawn(outage)
            return super().transaction()

    def outage() -> None:
        gevent.sleep(0.1)
        lock.release()
        assert following.acquire(timeout=5.0)
        proxy.cut()
        proxy.heal()

    lock, following = held(Lock(client, PATH)), Lock(client, PATH)
    token = lock.fencing_token

    with Unheard(proxy.hosts, timeout=10.0) as operator:
        assert break_lock(operator, PATH).token == token
    following.verify()


def test_what_has_never_arrived_is_done_again(client: Client, proxy: Any) -> None:
    held_back = []

    class Unheard(Client):
        def transaction(self) -> Any:
            if not held_back:
                held_back.append(proxy.hold())
                gevent.spawn_later(0.1, lambda: (proxy.cut(), proxy.heal()))
            return super().transaction()

    lock = held(Lock(client, PATH))

    with Unheard(proxy.hosts, timeout=10.0) as operator:
        assert break_lock(operator, PATH).token == lock.fencing_token
    assert held_back and client.get_children(PATH) == []


def test_a_kill_at_any_request_leaves_nothing_running(client: Client, zookeeper: Any) -> None:
    operator = zookeeper.client()
    call, count, strike = operator._call, 0, 0

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == strike:
            gevent.spawn(breaking.kill, block=False)
        return call(*args)

    operator._call = counted
    while count >= strike:
        strike, count = strike + 1, 0
        with Lock(client, PATH) as lock:
            breaking = gevent.spawn(break_lock, operator, PATH)
            breaking.join(5.0)
            assert breaking.ready()
            gone = lock.lost.wait(0.4) if len(client.get_children(PATH)) == 0 else False
            assert lock.is_acquired is not gone
    assert strike == 4  # the listing, the node, the transaction


def test_when_time_is_over_it_says_if_it_may_be_done_yet(
    client: Client, operator: Client, proxy: Any
) -> None:
    lock = held(Lock(client, PATH))
    proxy.hold_replies()

    with pytest.raises(ZookeeperTimeout) as caught:
        break_lock(operator, PATH, timeout=0.1)
    assert not caught.value.maybe_executed
    with pytest.raises(ZookeeperTimeout), deadline(0.1):
        break_lock(operator, PATH)

    proxy.heal()
    lock.verify()


def test_a_refusal_of_the_servers_is_one_of_ours(client: Client, zookeeper: Any) -> None:
    from kazoo.security import make_acl

    client.create(PATH, makepath=True, acl=[make_acl("world", "anyone", read=True, create=True)])
    node = client.create(f"{PATH}/{names('__lock__')[0]}", b"me", ephemeral=True)

    with pytest.raises(ZookeeperError, match=r"not broken.*NoAuthError"):
        break_lock(client, PATH)
    assert client.exists(node)


@pytest.mark.parametrize("named", [True, False])
def test_among_those_who_come_and_go_it_ends_no_other_hold_than_it_says(
    zookeeper: Any, operator: Client, named: bool
) -> None:
    path, over = "/jobs/nightly", False
    lost, broken, missed = set[int](), set[int](), 0

    def work(client: Client) -> None:
        def told(lock: Lock, reason: str) -> None:
            assert reason == "deleted"

        lock = Lock(client, path, on_lost=told)
        while not over:
            assert lock.acquire(timeout=10.0)
            token = lock.fencing_token
            gevent.sleep(0.003)
            try:
                lock.verify(10.0)
            except LockLost:
                lost.add(token)
            lock.release()

    workers = [gevent.spawn(work, zookeeper.client(timeout=10.0)) for _ in range(4)]
    lock = Lock(operator, path)
    with gevent.Timeout(20.0, AssertionError("it did not come true")):
        while len(broken) < 5 or missed < 5:
            holder = lock.holder()
            if holder is None:
                continue
            gevent.sleep(0.002)
            try:
                broken.add(break_lock(operator, path, holder.token if named else None).token)
            except LockNotAcquired:
                missed += 1
    over = True
    gevent.joinall(workers, timeout=10.0, raise_error=True)

    # A hold that was broken behind its verify() is in `broken` alone.
    assert lost <= broken


def test_a_holder_whose_node_may_not_be_read_is_one(client: Client, zookeeper: Any) -> None:
    client.create("/jobs")
    client.create("/jobs/nightly")
    owner = zookeeper.client(auth_data=[("digest", "me:x")], default_acl=CREATOR_ALL_ACL)
    lock = Lock(owner, "/jobs/nightly")
    assert lock.acquire(timeout=5.0)

    places = occupancy(client.get_children("/jobs/nightly")).holders
    [seen] = read_occupants(client, "/jobs/nightly", places)
    assert not seen.readable and seen.ephemeral
    assert seen.contender == ("", lock.fencing_token, owner.session.session_id)

    with pytest.raises(LockNotAcquired, match=f"but .* with token {lock.fencing_token:#x}"):
        break_lock(client, "/jobs/nightly", lock.fencing_token + 1)
    assert break_lock(client, "/jobs/nightly") == seen.contender
    assert lock.lost.wait(5.0) and lock.lost_reason == "deleted"


def test_a_path_that_looks_like_a_lease_says_nothing_of_leases(client: Client) -> None:
    path = "/x7__lease__/x5__wait__"
    with Semaphore(client, path, max_leases=3).leased(timeout=5.0) as lease:
        places = occupancy(client.get_children(path)).holders
        [seen] = read_occupants(client, path, places)
        assert seen.leases == lease.count == 1


def test_what_cannot_be_a_path_or_a_token_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ValueError, match="below the root"):
        break_lock(client, "/")
    for token in ("0x1", True, 1.0):
        with pytest.raises(TypeError, match="a token is an int"):
            break_lock(client, PATH, token)  # type: ignore[arg-type]
    with pytest.raises(ZookeeperMisused):
        break_lock(object(), PATH)  # type: ignore[arg-type]
