"""Read and write locks: who keeps whom out, in which order, what cannot be had, and downgrade()."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

from sepelib.zookeeper import (
    Client,
    Interrupted,
    LockLost,
    LockNotAcquired,
    LockTimeout,
    ReadLock,
    WouldDeadlock,
    WriteLock,
    ZookeeperTimeout,
)

PATH = "/service/table"
SESSION = 2.0
LIMIT = 10.0  # seconds; far more than anything here takes
JOINS = 6  # more round trips than the way into a queue takes

KINDS = pytest.mark.parametrize("kind", [ReadLock, WriteLock])


def eventually(condition: Callable[[], object], otherwise: str = "it never came true") -> None:
    with gevent.Timeout(LIMIT, AssertionError(otherwise)):
        while not condition():
            gevent.sleep(0.005)


class Greenlets:
    """Calls in greenlets of their own, which end with the test."""

    def __init__(self) -> None:
        self._all: list[Any] = []

    def spawn(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        greenlet = gevent.Greenlet(call, *args, **options)
        self._all.append(greenlet)
        greenlet.start()
        return greenlet

    def waiting(self, lock: Any, **options: Any) -> Any:
        """An acquire that is in the queue, or granted."""
        greenlet = self.spawn(lock.acquire, **options)
        settle(lock._client)
        return greenlet

    def close(self) -> None:
        gevent.killall(self._all)


def settle(client: Any) -> None:
    """Return when what another greenlet has begun with *client* waits for somebody else."""
    for _ in range(JOINS):
        client.exists("/")


@pytest.fixture
def run() -> Iterator[Greenlets]:
    greenlets = Greenlets()
    yield greenlets
    greenlets.close()


@pytest.fixture
def connect(zookeeper: Any, run: Greenlets) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connected(hosts: str = zookeeper.hosts, **options: Any) -> Client:
        client = Client(hosts, **{"timeout": SESSION} | options)
        clients.append(client)
        client.start(timeout=LIMIT)
        return client

    yield connected
    run.close()
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def other(connect: Callable[..., Client]) -> Client:
    """Of another process, say."""
    return connect()


def names(client: Any) -> list[str]:
    return sorted(client.get_children(PATH), key=lambda name: name[-10:])


# Who keeps whom out.


def test_any_number_read_at_the_same_time(client: Client, other: Client) -> None:
    readers = [ReadLock(c, PATH) for c in (client, client, other, other)]

    assert all(reader.acquire(timeout=LIMIT) for reader in readers)

    assert all(reader.is_acquired for reader in readers)
    assert len({reader.fencing_token for reader in readers}) == len(readers)


@KINDS
def test_nobody_gets_in_beside_a_writer(client: Client, other: Client, kind: Any) -> None:
    with WriteLock(client, PATH):
        assert not kind(other, PATH).acquire(blocking=False)

    assert kind(other, PATH).acquire(blocking=False)


def test_a_writer_waits_for_the_last_of_the_readers(
    client: Client, other: Client, run: Greenlets
) -> None:
    readers = [ReadLock(client, PATH) for _ in range(3)]
    for reader in readers:
        reader.acquire()
    writer = WriteLock(other, PATH)
    waiting = run.waiting(writer)

    for reader in (readers[2], readers[0]):
        reader.release()
        settle(other)
        assert not waiting.ready()
    readers[1].release()

    assert waiting.get(timeout=LIMIT)


def test_all_readers_come_in_together_after_a_writer(
    client: Client, other: Client, run: Greenlets
) -> None:
    writer = WriteLock(client, PATH)
    writer.acquire()
    readers = [ReadLock(other, PATH) for _ in range(5)]
    waiting = [run.waiting(reader) for reader in readers]
    assert not any(w.ready() for w in waiting)

    writer.release()

    assert all(w.get(timeout=LIMIT) for w in waiting)
    assert all(reader.is_acquired for reader in readers)


def test_a_reader_behind_a_writer_that_waits_waits_too(
    client: Client, other: Client, run: Greenlets
) -> None:
    first, writer, second = ReadLock(client, PATH), WriteLock(other, PATH), ReadLock(other, PATH)
    first.acquire()
    writing = run.waiting(writer)
    reading = run.waiting(second)

    assert not ReadLock(client, PATH).acquire(blocking=False)
    assert not writing.ready()
    assert not reading.ready()

    first.release()
    assert writing.get(timeout=LIMIT)
    settle(other)
    assert not reading.ready()
    writer.release()
    assert reading.get(timeout=LIMIT)


def test_a_reader_goes_on_when_the_writer_before_it_gives_up(
    client: Client, other: Client, run: Greenlets
) -> None:
    first, writer, second = ReadLock(client, PATH), WriteLock(other, PATH), ReadLock(other, PATH)
    first.acquire()
    run.waiting(writer)
    reading = run.waiting(second)

    writer.cancel()

    assert reading.get(timeout=LIMIT)
    assert first.is_acquired


# The same queue as kazoo's.


class Library:
    def __init__(self, client: Any, read: Any, write: Any) -> None:
        self.client = client
        self.kinds = {"read": read, "write": write}

    def lock(self, kind: str) -> Any:
        return self.kinds[kind](self.client, PATH)


@pytest.fixture
def libraries(client: Client, zookeeper: Any, run: Greenlets) -> Iterator[list[Library]]:
    theirs = KazooClient(zookeeper.hosts, timeout=20.0, handler=SequentialGeventHandler())
    theirs.start()
    yield [
        Library(client, ReadLock, WriteLock),
        Library(theirs, lambda c, path: c.ReadLock(path), lambda c, path: c.WriteLock(path)),
    ]
    run.close()
    theirs.stop()
    theirs.close()


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize(("held", "asked"), list(itertools.product(["read", "write"], repeat=2)))
def test_ours_and_kazoos_keep_each_other_out(
    libraries: list[Library], held: str, asked: str, ours_first: bool
) -> None:
    holder, contender = libraries if ours_first else reversed(libraries)
    lock = holder.lock(held)
    assert lock.acquire()

    assert contender.lock(asked).acquire(blocking=False) == (held == asked == "read")


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_mixed_queue_is_served_in_its_order(
    libraries: list[Library], run: Greenlets, ours_first: bool
) -> None:
    turns = itertools.cycle(libraries if ours_first else libraries[::-1])
    active: list[str] = []
    order: list[tuple[str, int]] = []

    def take_part(lock: Any, kind: str, number: int) -> None:
        lock.acquire()
        assert not active if kind == "write" else "write" not in active
        active.append(kind)
        order.append((kind, number))
        settle(libraries[0].client)
        active.remove(kind)
        lock.release()

    gate = libraries[0].lock("write")
    gate.acquire()
    members = []
    for number, letter in enumerate("rrwwrrrwr"):
        library, kind = next(turns), {"r": "read", "w": "write"}[letter]
        members.append(run.spawn(take_part, library.lock(kind), kind, number))
        settle(library.client)
    gate.release()
    for member in members:
        member.get(timeout=LIMIT)

    # Those who read together may come in any order.
    groups = [
        [number for _, number in group] for _, group in itertools.groupby(order, lambda o: o[0])
    ]
    assert [sorted(group) for group in groups] == [[0, 1], [2, 3], [4, 5, 6], [7], [8]]
    assert groups[1] == [2, 3]


# What would wait for itself.


@pytest.mark.parametrize("options", [{}, {"timeout": 1.0}, {"blocking": False}], ids=str)
def test_who_reads_and_asks_to_write_is_told_at_once(client: Client, options: Any) -> None:
    reader, writer = ReadLock(client, PATH), WriteLock(client, PATH)
    reader.acquire()

    with gevent.Timeout(LIMIT), pytest.raises(WouldDeadlock, match="release it first"):
        writer.acquire(**options)

    assert reader.is_acquired
    assert len(names(client)) == 1
    reader.release()
    assert writer.acquire(timeout=LIMIT)


def test_who_writes_and_asks_to_read_is_shown_the_way(client: Client) -> None:
    with WriteLock(client, PATH), pytest.raises(WouldDeadlock, match="downgrade"):
        ReadLock(client, PATH).acquire()


def test_who_reads_twice_is_told_when_a_writer_waits_in_between(
    client: Client, other: Client, run: Greenlets
) -> None:
    first, second, third = (ReadLock(client, PATH) for _ in range(3))
    first.acquire()
    assert second.acquire(timeout=LIMIT)
    writing = run.waiting(WriteLock(other, PATH))

    with gevent.Timeout(LIMIT), pytest.raises(WouldDeadlock, match="a writer waits"):
        third.acquire()

    assert not third.acquire(blocking=False)
    eventually(lambda: len(names(other)) == 3, "the one who was told stays in the queue")
    first.release()
    second.release()
    assert writing.get(timeout=LIMIT)


def test_another_greenlet_that_asks_to_write_just_waits(client: Client, run: Greenlets) -> None:
    reader = ReadLock(client, PATH)
    reader.acquire()

    writing = run.waiting(WriteLock(client, PATH))
    assert not writing.ready()
    reader.release()

    assert writing.get(timeout=LIMIT)


def test_who_reads_elsewhere_may_write_here(client: Client) -> None:
    with ReadLock(client, PATH), WriteLock(client, PATH + "-2") as writer:
        assert writer.is_acquired


def test_a_read_lock_that_was_lost_is_no_hindrance(client: Client, zookeeper: Any) -> None:
    reader = ReadLock(client, PATH)
    reader.acquire()

    zookeeper.expire(client)

    assert reader.lost.wait(LIMIT)
    assert WriteLock(client, PATH).acquire(timeout=LIMIT)


# downgrade()


def test_who_downgrades_reads_with_the_same_token(client: Client) -> None:
    writer = WriteLock(client, PATH, "ann")
    writer.acquire()
    token = writer.fencing_token

    reader = writer.downgrade()

    assert isinstance(reader, ReadLock)
    assert reader.is_acquired
    assert not writer.is_acquired
    assert not writer.release()
    assert reader.fencing_token == token
    reader.check()
    reader.verify()
    assert [contender.identifier for contender in reader.contenders()] == ["ann"]
    with pytest.raises(LockNotAcquired):
        writer.check()
    assert reader.release()
    assert names(client) == []
    with reader:
        assert [contender.identifier for contender in reader.contenders()] == ["ann"]


def test_readers_come_in_and_writers_do_not_when_one_downgrades(
    client: Client, other: Client, run: Greenlets
) -> None:
    writer, rival = WriteLock(client, PATH), WriteLock(other, PATH)
    writer.acquire()
    reading = run.waiting(ReadLock(other, PATH))
    writing = run.waiting(rival)

    reader = writer.downgrade()

    assert reading.get(timeout=LIMIT)
    settle(other)
    assert not writing.ready()
    other_reader = ReadLock(client, PATH)
    assert not other_reader.acquire(blocking=False), "it overtakes a writer"
    reader.release()
    settle(other)
    assert not writing.ready()


@pytest.mark.parametrize("theirs", [True, False], ids=["kazoo", "ours"])
def test_no_writer_that_waits_gets_in_when_one_downgrades(
    libraries: list[Library], run: Greenlets, theirs: bool
) -> None:
    ours, contender = libraries[0], libraries[theirs]
    rounds = 20
    seen: list[bool] = []
    reader: Any = None

    def compete() -> None:
        lock = contender.lock("write")
        while True:
            lock.acquire()
            seen.append(reader is not None and reader.is_acquired)
            lock.release()

    writer = ours.lock("write")
    writer.acquire()
    run.spawn(compete)
    for _ in range(rounds):
        settle(contender.client)  # the competitor waits
        reader = writer.downgrade()
        settle(contender.client)
        before = len(seen)
        assert reader.release()
        assert writer.acquire(timeout=LIMIT)
        assert len(seen) > before  # it was waiting all the time

    assert not any(seen)


def test_a_loss_of_the_answer_to_downgrade_changes_nothing(
    connect: Callable[..., Client], other: Client, zookeeper: Any, run: Greenlets
) -> None:
    with zookeeper.proxy() as proxy:
        client = connect(proxy.hosts)
        writer, rival = WriteLock(client, PATH), WriteLock(other, PATH)
        writer.acquire()
        token = writer.fencing_token
        writing = run.waiting(rival)

        with proxy.lose_answer_to("create"):
            reader = writer.downgrade()

        assert reader.is_acquired
        assert reader.fencing_token == token
        eventually(lambda: len(names(other)) == 2, "the write node stays")
        assert [bool(re.search("__rlock__", name)) for name in names(other)] == [True, False]
        settle(other)
        assert not writing.ready()
        reader.release()
        assert writing.get(timeout=LIMIT)


def test_a_cut_while_the_write_node_goes_keeps_writers_out(
    connect: Callable[..., Client], other: Client, zookeeper: Any, run: Greenlets
) -> None:
    with zookeeper.proxy() as proxy:
        client = connect(proxy.hosts)
        writer, rival = WriteLock(client, PATH), WriteLock(other, PATH)
        writer.acquire()
        writing = run.waiting(rival)

        with proxy.lose_answer_to("delete"):
            reader = writer.downgrade()

        assert reader.is_acquired
        eventually(lambda: len(names(other)) == 2, "the write node stays")
        settle(other)
        assert not writing.ready()
        reader.release()
        assert writing.get(timeout=LIMIT)


def test_downgrade_without_a_server_ends_with_the_lease_and_leaves_nothing(
    connect: Callable[..., Client], other: Client, zookeeper: Any, run: Greenlets
) -> None:
    with zookeeper.proxy() as proxy:
        writer = WriteLock(connect(proxy.hosts), PATH)
        writer.acquire()
        proxy.hold()

        with pytest.raises(LockLost):
            writer.downgrade(timeout=LIMIT)

        assert WriteLock(other, PATH).acquire(timeout=LIMIT)
        proxy.heal()
        eventually(lambda: len(names(other)) == 1, "the read node stays")


def test_downgrade_that_runs_out_of_time_keeps_the_write_lock(
    connect: Callable[..., Client], other: Client, zookeeper: Any
) -> None:
    with zookeeper.proxy() as proxy:
        writer = WriteLock(connect(proxy.hosts, timeout=20.0), PATH)
        writer.acquire()

        proxy.hold_replies()
        with pytest.raises(ZookeeperTimeout, match="not downgraded"):
            writer.downgrade(timeout=0.2)
        proxy.heal()

        assert writer.is_acquired
        eventually(lambda: len(names(other)) == 1, "the read node stays")
        assert not ReadLock(other, PATH).acquire(blocking=False)
        assert writer.downgrade().is_acquired


def test_a_greenlet_killed_in_downgrade_keeps_the_write_lock(
    connect: Callable[..., Client], other: Client, zookeeper: Any, run: Greenlets
) -> None:
    with zookeeper.proxy() as proxy:
        client = connect(proxy.hosts, timeout=20.0)
        writer = WriteLock(client, PATH)
        writer.acquire()

        proxy.hold_replies()
        downgrading = run.spawn(writer.downgrade)
        eventually(lambda: len(names(other)) == 2, "the read node is not made")
        downgrading.kill(timeout=LIMIT)
        proxy.heal()

        assert writer.is_acquired
        eventually(lambda: len(names(other)) == 1, "the read node stays")
        assert names(other)[0].count("__lock__") == 1


def test_a_greenlet_killed_at_the_end_of_downgrade_holds_nothing(
    connect: Callable[..., Client], other: Client, zookeeper: Any, run: Greenlets
) -> None:
    with zookeeper.proxy() as proxy:
        client = connect(proxy.hosts, timeout=20.0)
        writer = WriteLock(client, PATH)
        writer.acquire()

        with proxy.lose_answer_to("delete", then="hold"):
            downgrading = run.spawn(writer.downgrade)
            eventually(lambda: not writer.is_acquired)
            downgrading.kill(timeout=LIMIT)
        proxy.heal()

        if isinstance(downgrading.value, ReadLock):  # the kill came too late
            downgrading.value.release()
        eventually(lambda: not names(other), "a read node stays, and nobody has its lock")


def test_a_write_lock_deleted_behind_the_holders_back_is_not_downgraded(
    client: Client, other: Client, run: Greenlets
) -> None:
    writer, rival = WriteLock(client, PATH), WriteLock(other, PATH)
    writer.acquire()
    writing = run.waiting(rival)

    other.delete(f"{PATH}/{names(other)[0]}")
    assert writing.get(timeout=LIMIT)

    with pytest.raises(LockLost, match="deleted"):
        writer.downgrade()
    assert not writer.is_acquired
    eventually(lambda: len(names(other)) == 1, "the read node stays")


def test_what_is_not_held_cannot_be_downgraded(client: Client) -> None:
    writer = WriteLock(client, PATH)
    with pytest.raises(LockNotAcquired):
        writer.downgrade()

    with writer:
        reader = writer.downgrade()
        with pytest.raises(LockNotAcquired):
            writer.downgrade()
    assert reader.is_acquired


def test_the_options_of_a_writer_are_those_of_its_reader(client: Client, zookeeper: Any) -> None:
    lost: list[tuple[Any, str]] = []
    writer = WriteLock(client, PATH, on_lost=lambda lock, reason: lost.append((lock, reason)))
    writer.acquire()
    reader = writer.downgrade()

    zookeeper.expire(client)

    eventually(lambda: lost, "on_lost was not called")
    assert lost == [(reader, "session")]


# As for any lock.


@KINDS
def test_a_holder_learns_of_a_loss(
    client: Client, other: Client, zookeeper: Any, kind: Any
) -> None:
    lock = kind(client, PATH)
    lock.acquire()

    zookeeper.expire(client)

    assert lock.lost.wait(LIMIT)
    assert not lock.is_acquired
    with pytest.raises(LockLost):
        lock.check()
    token = lock.fencing_token
    assert lock.acquire(timeout=LIMIT)
    assert lock.fencing_token > token


@KINDS
def test_one_that_waits_in_vain_leaves_no_node(
    client: Client, other: Client, run: Greenlets, kind: Any
) -> None:
    with WriteLock(client, PATH):
        lock = kind(other, PATH)
        assert not lock.acquire(timeout=0.05)
        with pytest.raises(LockTimeout):
            lock.acquire(timeout=0.05, raise_on_timeout=True)
        waiting = run.waiting(lock)
        lock.cancel()
        with pytest.raises(Interrupted):
            waiting.get(timeout=LIMIT)
        killed = run.waiting(lock)
        killed.kill(timeout=LIMIT)
        eventually(lambda: len(names(client)) == 1, "somebody who gave up stays in the queue")

    assert lock.acquire(timeout=LIMIT)


@KINDS
def test_release_does_not_wait_for_a_server_that_is_away(
    connect: Callable[..., Client], other: Client, zookeeper: Any, kind: Any
) -> None:
    with zookeeper.proxy() as proxy:
        lock = kind(connect(proxy.hosts, timeout=20.0), PATH)
        lock.acquire()
        proxy.hold()

        with gevent.Timeout(SESSION):
            assert lock.release()

        assert not lock.is_acquired
        assert len(names(other)) == 1
        proxy.heal()
        eventually(lambda: not names(other), "the node stays")
