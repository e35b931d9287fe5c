"""RLock: again by who holds it, never by another; and what a loss does to its levels."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from sepelib.zookeeper import Client, Lock, LockLost, RLock

PATH = "/jobs/nightly"


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def connect() -> Client:
        clients.append(Client(zookeeper.hosts, 20.0))
        clients[-1].start(timeout=20.0)
        return clients[-1]

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Callable[[], Client]) -> Client:
    return connect()


@pytest.fixture
def operator(connect: Callable[[], Client]) -> Client:
    return connect()


def lose(lock: Lock, operator: Client) -> None:
    for child in operator.get_children(PATH):
        operator.delete(f"{PATH}/{child}")
    assert lock.lost.wait(5.0)


def test_it_is_free_after_as_many_releases_as_acquires(client: Client, operator: Client) -> None:
    lock, other = RLock(client, PATH), RLock(operator, PATH)

    assert lock.acquire() and lock.acquire(blocking=False) and lock.acquire(timeout=1.0)
    token = lock.fencing_token
    assert len(operator.get_children(PATH)) == 1
    assert lock.release() and lock.release()
    assert lock.is_acquired and not other.acquire(blocking=False)

    assert lock.release()
    assert not lock.is_acquired and not lock.release()
    assert other.acquire(timeout=5.0) and other.fencing_token > token


def test_nested_blocks_hold_it_until_the_outermost_is_left(client: Client) -> None:
    lock = RLock(client, PATH)

    with lock:
        with lock, lock.locked():
            pass
        assert lock.is_acquired
        lock.check()
    assert not lock.is_acquired


def test_another_greenlet_waits_and_cannot_release(client: Client) -> None:
    lock = RLock(client, PATH)
    assert lock.acquire()

    assert gevent.spawn(lock.acquire, timeout=0.1).get() is False
    assert gevent.spawn(lock.release).get() is False
    assert lock.is_acquired
    waiting = gevent.spawn(lock.acquire)
    gevent.sleep(0.05)
    lock.release()
    assert waiting.get(timeout=5.0)
    assert lock.is_acquired and not lock.release()  # by the other


def test_a_level_that_was_lost_does_not_count_for_a_new_grant(
    client: Client, operator: Client
) -> None:
    lock = RLock(client, PATH, on_revoke=print)  # watched at once
    assert lock.acquire() and lock.acquire()
    lose(lock, operator)

    assert not lock.is_acquired
    assert lock.acquire(timeout=5.0)
    lock.check()
    assert lock.release() is True
    assert not lock.is_acquired
    assert lock.release() is False and lock.release() is False


def test_all_levels_are_told_of_a_loss(client: Client, operator: Client) -> None:
    lock = RLock(client, PATH, strict=True, on_revoke=print)
    left = []

    def work() -> None:
        with lock:
            try:
                with lock:
                    lose(lock, operator)
            finally:
                left.append(lock.lost_reason)

    with pytest.raises(LockLost, match="deleted"):
        work()
    assert left == ["deleted"]
    assert not lock.release()
