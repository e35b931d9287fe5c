"""What a lock must get right under faults: one case for each known way of getting it wrong.

Most of them run against kazoo's own locks too, where they fail: `./dev peers`.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import gevent
import pytest

SESSION = 2.0  # as in conftest
PATH = "/service/lock"


def contend(observer: Any, number: str | None = None) -> str:
    """The node of a contender which this test is itself, in the queue or with that number."""
    prefix = f"{PATH}/{uuid.uuid4().hex}__lock__"
    if number is None:
        return str(observer.create(prefix, ephemeral=True, sequence=True, makepath=True))
    return str(observer.create(prefix + number, ephemeral=True, makepath=True))


def queued(observer: Any, flavour: Any, count: int) -> None:
    flavour.eventually(
        lambda: observer.exists(PATH) and len(observer.get_children(PATH)) == count,
        5.0,
        f"there are not {count} contenders in the queue",
    )


def watches(zookeeper: Any) -> int:
    """The watches on the server, of all clients."""
    return int(zookeeper.mntr()["zk_watch_count"])


# Losing it.


@pytest.mark.peer("kazoo", "L1")
def test_a_holder_whose_session_expires_knows(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH)
    assert flavour.acquire(lock, 5.0)

    zookeeper.expire(client)

    flavour.eventually(lambda: not lock.is_acquired, SESSION, "is_acquired is True a T later")


@pytest.mark.peer("kazoo", "L1")
def test_a_holder_cut_off_knows_before_another_has_the_lock(
    zookeeper: Any, proxy: Any, flavour: Any
) -> None:
    lock = flavour.lock(flavour.client(proxy.hosts, timeout=1.0), PATH)
    other = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert flavour.acquire(lock, 5.0)

    proxy.hold()
    assert flavour.acquire(other, 5 * SESSION)

    assert not lock.is_acquired, "two hold the lock"


@pytest.mark.peer("kazoo", "L1")
def test_a_holder_whose_node_is_deleted_knows(zookeeper: Any, observer: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert flavour.acquire(lock, 5.0)
    gevent.sleep(1.0)  # it is no short section, so the node is watched

    observer.delete(f"{PATH}/{observer.get_children(PATH)[0]}")

    flavour.eventually(lambda: not lock.is_acquired, 1.0, "is_acquired is True without a node")


CLAIMS = """
import sys, time
client = Client(sys.argv[1], timeout=SESSION)
client.start()
lock = Lock(client, sys.argv[2])
lock.acquire()
while True:
    before = time.monotonic()
    print(f"{before} {lock.is_acquired}", flush=True)
    gevent.sleep(0.01)
"""


@pytest.mark.peer("kazoo", "L1")
def test_a_holder_that_was_stopped_claims_nothing_when_it_goes_on(
    zookeeper: Any, flavour: Any, tmp_path: Path
) -> None:
    other = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    out = tmp_path / "claims"
    code = "import gevent\n" + flavour.script + CLAIMS
    with (
        out.open("w") as stdout,
        subprocess.Popen(
            [sys.executable, "-c", code, zookeeper.hosts, PATH], stdout=stdout
        ) as holder,
    ):
        try:
            flavour.eventually(lambda: "True" in out.read_text(), 15.0, "it holds no lock")
            os.kill(holder.pid, signal.SIGSTOP)
            assert flavour.acquire(other, 5 * SESSION)
            granted = time.monotonic()
            os.kill(holder.pid, signal.SIGCONT)
            count = len(out.read_text().splitlines())
            flavour.eventually(
                lambda: len(out.read_text().splitlines()) > count + 20, 10.0, "it says no more"
            )
        finally:
            holder.kill()

    claims = [line.split() for line in out.read_text().splitlines()[:-1]]
    stale = [
        float(when) - granted for when, held in claims if held == "True" and float(when) > granted
    ]
    assert not stale, "it says that it holds the lock after another was granted it"


@pytest.mark.peer("kazoo", "L2")
def test_a_lock_that_was_lost_can_be_acquired_again(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH)
    assert flavour.acquire(lock, 5.0)
    session = client.client_id

    zookeeper.expire(client)
    flavour.eventually(
        lambda: flavour.connected(client) and client.client_id != session, 5.0, "no new session"
    )

    assert flavour.acquire(lock, 3.0), "acquire() on a free lock waits for itself"


# Leaving nothing behind.


@pytest.mark.peer("kazoo", "L3")
@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit])
def test_a_waiter_that_is_killed_keeps_nobody_waiting(
    zookeeper: Any, observer: Any, flavour: Any, error: type[BaseException]
) -> None:
    node = contend(observer)
    victim = flavour.spawn(flavour.lock(flavour.client(zookeeper.hosts), PATH).acquire)
    queued(observer, flavour, 2)
    behind = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    victim.kill(error, timeout=1.0)
    observer.delete(node)

    assert flavour.acquire(behind, 3.0), f"a waiter hit by {error.__name__} holds up all behind it"


@pytest.mark.peer("kazoo", "L4")
def test_a_waiter_whose_time_is_gone_while_cut_off_leaves_no_node(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    contend(observer)
    client = flavour.client(proxy.hosts, timeout=4.0)
    attempt = flavour.spawn(flavour.acquire, flavour.lock(client, PATH), 0.5)
    queued(observer, flavour, 2)
    session = client.client_id

    proxy.hold()
    gevent.sleep(1.0)
    proxy.refuse()
    proxy.cut()
    proxy.heal()
    flavour.eventually(attempt.ready, 5.0, "acquire(timeout=0.5) has not returned")
    flavour.eventually(lambda: flavour.connected(client), 5.0, "it did not reconnect")

    assert client.client_id == session
    flavour.eventually(
        lambda: len(observer.get_children(PATH)) == 1,
        2.0,
        "the node of one that waits no more is left in a live session: a place in the queue",
    )


@pytest.mark.peer("kazoo", "L5")
def test_the_node_of_an_older_session_is_not_taken_for_an_own_one(
    zookeeper: Any, proxy: Any, observer: Any, flavour: Any
) -> None:
    node = contend(observer)
    client = flavour.client(proxy.hosts, timeout=1.5)
    lock = flavour.lock(client, PATH)
    attempt = flavour.spawn(flavour.acquire, lock, 0.5)
    queued(observer, flavour, 2)
    proxy.hold()
    gevent.sleep(0.7)
    proxy.refuse()
    proxy.cut()  # neither the deletion of its node nor the end of its session got through
    flavour.eventually(attempt.ready, 5.0, "acquire(timeout=0.5) has not returned")
    client.stop()
    proxy.heal()
    client.start()
    observer.delete(node)

    assert flavour.acquire(lock, 10.0)
    other = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    assert not flavour.acquire(other, 2.0), "it adopted the old session's node: two hold the lock"


# Time.


@pytest.mark.peer("kazoo", "L6")
def test_the_time_of_an_acquire_runs_while_cut_off(proxy: Any, flavour: Any) -> None:
    client = flavour.client(proxy.hosts)
    lock = flavour.lock(client, PATH)
    flavour.cut_off(client, proxy)

    assert not flavour.within(
        2.5, flavour.acquire, lock, 1.0, otherwise="acquire(timeout=1) waits on after 2.5 s"
    )


@pytest.mark.peer("kazoo", "L6")
def test_the_time_of_an_acquire_does_not_start_anew_at_each_wake_up(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    nodes = [contend(observer) for _ in range(4)]
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    started = time.monotonic()
    attempt = flavour.spawn(flavour.acquire, lock, 1.5)
    for node in nodes[:0:-1]:  # each time the one it waits for
        gevent.sleep(0.6)
        if not attempt.ready():
            observer.delete(node)
    assert not flavour.result(attempt, 5.0, "it still waits")

    waited = time.monotonic() - started
    assert waited < 2.7, f"acquire(timeout=1.5) took {waited:.1f} s"


@pytest.mark.peer("kazoo", "L7")
def test_an_acquire_that_must_not_block_does_not_wait_for_an_outage_to_end(
    proxy: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts)
    lock = flavour.lock(client, PATH)
    flavour.cut_off(client, proxy)

    assert not flavour.within(
        2 * SESSION,
        lambda: lock.acquire(blocking=False),
        otherwise="acquire(blocking=False) blocks as long as the outage",
    )


@pytest.mark.peer("kazoo", "L8")
def test_a_cancel_with_nothing_pending_does_not_poison_the_next_acquire(
    zookeeper: Any, flavour: Any
) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    lock.cancel()

    try:
        acquired = flavour.acquire(lock, 5.0)
    except Exception as error:
        pytest.fail(f"an acquire of later raised {type(error).__name__}")
    assert acquired


@pytest.mark.peer("kazoo", "L8")
def test_a_cancel_is_heard_while_cut_off(proxy: Any, flavour: Any) -> None:
    client = flavour.client(proxy.hosts)
    lock = flavour.lock(client, PATH)
    flavour.cut_off(client, proxy)
    attempt = flavour.spawn(lock.acquire)
    gevent.sleep(0.2)

    lock.cancel()

    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the library's affair
        flavour.result(attempt, 1.0, "cancel() is not heard while disconnected")


@pytest.mark.peer("kazoo", "L9")
def test_a_release_does_not_wait_for_an_outage_to_end(proxy: Any, flavour: Any) -> None:
    client = flavour.client(proxy.hosts, timeout=10.0)
    lock = flavour.lock(client, PATH)
    assert flavour.acquire(lock, 5.0)
    flavour.cut_off(client, proxy)

    flavour.within(1.0, lock.release, otherwise="release() blocks as long as the outage")

    assert not lock.is_acquired


@pytest.mark.peer("kazoo", "L10")
def test_a_parent_removed_in_between_is_made_again(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert flavour.acquire(lock, 5.0)
    lock.release()
    flavour.eventually(lambda: not observer.get_children(PATH), 2.0, "the node is left")
    observer.delete(PATH)

    try:
        acquired = flavour.acquire(lock, 5.0)
    except Exception as error:
        pytest.fail(f"acquire() raised {type(error).__name__} for want of a parent")
    assert acquired


@pytest.mark.peer("kazoo", "L11")
def test_a_lock_object_goes_from_greenlet_to_greenlet_at_once(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    locks = [flavour.lock(client, f"{PATH}-{number}") for number in range(6)]
    assert all(flavour.acquire(lock, 5.0) for lock in locks)
    seconds = [flavour.spawn(lock.acquire) for lock in locks]
    gevent.sleep(1.6)

    for lock in locks:
        lock.release()
    gevent.sleep(0.3)

    late = sum(not second.ready() for second in seconds)
    assert not late, f"after a section of 1.6 s {late} of 6 free locks are not handed over in 0.3 s"


@pytest.mark.peer("kazoo", "L12")
def test_an_acquire_whose_time_is_gone_leaves_no_watch(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    contend(observer)
    client = flavour.client(zookeeper.hosts)
    for _ in range(3):
        assert not flavour.acquire(flavour.lock(client, PATH), 0.3)

    flavour.eventually(
        lambda: not watches(zookeeper), 2.0, "the server keeps the watch of one that waits no more"
    )
    assert not sum(map(len, client._data_watchers.values())), "the client keeps its callbacks"


@pytest.mark.peer("kazoo", "L13")
def test_an_upgrade_from_read_to_write_is_refused(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)

    def upgrade() -> None:
        assert flavour.acquire(flavour.read_lock(client, PATH), 5.0)
        flavour.write_lock(client, PATH).acquire()

    with pytest.raises(Exception):  # noqa: B017, PT011
        flavour.within(
            3.0, upgrade, otherwise="who reads and asks to write waits for itself, silently"
        )


@pytest.mark.peer("kazoo", "L14")
@pytest.mark.zookeeper(container_check=0.5)
def test_the_parent_of_an_unused_lock_goes_away(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH, container=True)
    assert flavour.acquire(lock, 5.0)
    lock.release()

    flavour.eventually(
        lambda: not client.exists(PATH), 6.0, "nobody removes the parents of unused locks"
    )


@pytest.mark.peer("kazoo", "L15")
def test_the_queue_keeps_its_order_when_its_numbers_wrap(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    # After 2147483647 the server goes on with -2147483648: a holder just below zero is older.
    node = contend(observer, "-000000005")
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    assert not flavour.acquire(lock, 0.5), "two hold the lock"
    observer.delete(node)
    assert flavour.acquire(lock, 5.0)


@pytest.mark.peer("kazoo", "L16")
def test_an_acquire_and_release_costs_three_requests(proxy: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(proxy.hosts, timeout=20.0), PATH)
    flavour.acquire(lock, 5.0)
    lock.release()

    before = proxy.counts()
    for _ in range(20):
        assert flavour.acquire(lock, 5.0)
        lock.release()
    counts = proxy.counts() - before
    del counts["ping"]

    assert counts.total() == 60, f"20 times cost {counts}"


@pytest.mark.peer("kazoo", "L17")
def test_a_with_block_gets_the_lock_itself(zookeeper: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    with lock as held:
        assert held is lock, f"it gets {held}"


# L17: what kazoo's locks do not say.


def test_the_tokens_of_holders_grow_though_the_parent_is_removed(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    locks = [flavour.lock(flavour.client(zookeeper.hosts), PATH) for _ in range(2)]
    tokens = []
    for number in range(6):
        lock = locks[number % 2]
        assert lock.acquire(timeout=5.0)
        tokens.append(lock.fencing_token)
        lock.release()
        flavour.eventually(lambda: not observer.get_children(PATH), 2.0, "the node is left")
        if number % 3 == 2:
            observer.delete(PATH)

    assert tokens == sorted(set(tokens))


def test_a_holder_can_be_told_by_identifier_session_and_token(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH, identifier="host-1")
    assert lock.acquire(timeout=5.0)

    holder = flavour.lock(flavour.client(zookeeper.hosts), PATH).holder()

    assert (holder.identifier, holder.session_id) == ("host-1", client.session.session_id)
    assert holder.token == lock.fencing_token


def test_a_release_by_one_that_does_not_hold_it_says_so(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    lock, other = flavour.lock(client, PATH), flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)

    assert not other.release()
    assert lock.is_acquired
    assert lock.release() and not lock.release()


def test_who_has_lost_a_lock_is_told_and_refused_a_transaction(
    zookeeper: Any, flavour: Any
) -> None:
    from sepelib.zookeeper import LockLost

    lost = list[str]()
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH, on_lost=lambda lock, reason: lost.append(reason))
    assert lock.acquire(timeout=5.0)

    zookeeper.expire(client)
    assert lock.lost.wait(SESSION)

    assert not lock.release()
    with pytest.raises(LockLost):
        lock.check()
    with pytest.raises(LockLost):
        lock.transaction()
    flavour.eventually(lambda: lost, 1.0, "on_lost was not called")
    assert lost == ["session"]


def test_who_writes_may_go_on_reading(zookeeper: Any, flavour: Any) -> None:
    lock = flavour.write_lock(flavour.client(zookeeper.hosts), PATH)
    client = flavour.client(zookeeper.hosts)
    assert lock.acquire(timeout=5.0)

    reading = lock.downgrade()

    assert reading.is_acquired and not lock.is_acquired
    assert flavour.read_lock(client, PATH).acquire(timeout=5.0)
    assert not flavour.write_lock(flavour.client(zookeeper.hosts), PATH).acquire(timeout=0.3)
