"""Locks against sessions that end, come back or stand still, and against other people's hands.

After each of them the queue holds nobody who does not wait, and the lock can be had.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import monkey

SESSION = 1.0  # seconds, where it has to end
PATH = "/service/lock"


# Sessions.


def test_a_session_that_ends_between_create_and_answer_grants_nothing(
    zookeeper: Any, proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=SESSION)
    lock = flavour.lock(client, PATH)
    other = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()

    proxy.hold_replies()  # with those that would have granted it
    attempt = flavour.spawn(lock.acquire)
    queue.comes_to(1)
    proxy.hold()
    assert other.acquire(timeout=10.0)
    proxy.heal()

    queue.comes_to(2)
    assert not lock.is_acquired and not attempt.ready() and other.is_acquired
    other.release()
    assert flavour.result(attempt, 5.0, "it never acquired")
    assert queue.owners() == [client.session.session_id]


def test_a_waiter_survives_one_expiry_after_the_other(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    node = queue.join()
    client = flavour.client(zookeeper.hosts)
    attempt = flavour.spawn(flavour.lock(client, PATH).acquire)
    sessions = set()
    for _ in range(3):
        queue.comes_to(2)
        flavour.eventually(lambda: flavour.connected(client), 5.0, "it did not reconnect")
        flavour.eventually(
            lambda: client.session.session_id not in sessions, 5.0, "there is no new session"
        )
        sessions.add(client.session.session_id)
        queue.comes_to(2)
        zookeeper.expire(client)

    queue.comes_to(2)
    queue.delete(node)
    assert flavour.result(attempt, 5.0, "it never acquired")
    assert len(sessions) == 3


def test_a_waiter_and_a_holder_survive_one_restart_after_the_other(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    holder = flavour.lock(flavour.client(zookeeper.hosts, timeout=20.0), PATH)
    waiter = flavour.lock(flavour.client(zookeeper.hosts, timeout=20.0), PATH)
    assert holder.acquire(timeout=5.0)
    attempt = flavour.spawn(waiter.acquire)
    queue.comes_to(2)

    for _ in range(2):
        zookeeper.restart()
    assert holder.is_acquired and not attempt.ready()
    flavour.eventually(
        lambda: flavour.connected(holder._client), 10.0, "the holder did not reconnect"
    )
    holder.verify(10.0)
    holder.release()

    assert flavour.result(attempt, 10.0, "it never acquired")
    queue.stays_at(1)


def test_a_session_found_alive_after_it_was_given_up_gives_no_lock_back(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    lost = list[str]()
    client = flavour.client(zookeeper.hosts, timeout=2 * SESSION)
    lock = flavour.lock(client, PATH, on_lost=lambda lock, reason: lost.append(reason))
    assert lock.acquire(timeout=5.0)
    session, epoch = client.session.session_id, client.session.epoch

    with zookeeper.kill():  # time stands still for sessions, and each gets a fresh T then
        flavour.eventually(lambda: flavour.lost(client), 3 * SESSION, "the lease does not end")
        assert not lock.is_acquired
    flavour.eventually(lambda: flavour.connected(client), 5.0, "it did not reconnect")

    assert client.session.session_id == session and client.session.epoch > epoch
    assert not lock.is_acquired and lost == ["session"]
    queue.comes_to(0, 3.0)
    other = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert other.acquire(timeout=1.0), "a lock given up keeps others waiting"


def test_a_node_made_before_the_session_was_given_up_grants_nothing_in_the_next_epoch(
    zookeeper: Any, proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=2 * SESSION)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()
    session, epoch = client.session.session_id, client.session.epoch

    with proxy.lose_answer_to("create", then="hold"):
        attempt = flavour.spawn(lambda: (lock.acquire(), lock.is_acquired))
        queue.comes_to(1)
        with zookeeper.kill():
            flavour.eventually(lambda: flavour.lost(client), 3 * SESSION, "the lease does not end")
    proxy.heal()

    assert flavour.result(attempt, 10.0, "it never acquired") == (True, True)
    assert client.session.session_id == session and client.session.epoch > epoch
    lock.verify(5.0)
    queue.stays_at(1)


STOPPED = """
import sys, time
client = Client(sys.argv[1], timeout=2 * SESSION)
client.start()
lock = Lock(client, sys.argv[2])
gevent.spawn(lock.acquire)
while True:
    before = time.monotonic()
    print(f"{before} {lock.is_acquired}", flush=True)
    gevent.sleep(0.005)
"""


def test_a_waiter_stopped_while_its_turn_came_and_went_claims_nothing(
    zookeeper: Any, queue: Any, flavour: Any, tmp_path: Path
) -> None:
    node = queue.join()
    out = tmp_path / "claims"

    def claims() -> list[list[str]]:
        return [line.split() for line in out.read_text().splitlines()[:-1]]

    code = "import gevent\n" + flavour.script + STOPPED
    command = [sys.executable, "-c", code, zookeeper.hosts, PATH]
    with out.open("w") as stdout, subprocess.Popen(command, stdout=stdout) as waiter:
        try:
            queue.comes_to(2, 15.0)
            os.kill(waiter.pid, signal.SIGSTOP)
            queue.delete(node)  # its turn, though it cannot know
            other = flavour.lock(flavour.client(zookeeper.hosts), PATH)
            assert flavour.acquire(other, 10.0)
            os.kill(waiter.pid, signal.SIGCONT)
            queue.comes_to(2)
            gevent.sleep(0.5)
            released = time.monotonic()
            other.release()
            flavour.eventually(lambda: claims()[-1][1] == "True", 5.0, "it never acquired")
        finally:
            waiter.kill()

    assert not [when for when, held in claims() if held == "True" and float(when) < released]


# A process that stands still.


def test_a_holder_whose_hub_was_blocked_knows_at_once(zookeeper: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts, timeout=SESSION), PATH)
    assert lock.acquire(timeout=5.0)

    monkey.get_original("time", "sleep")(SESSION)

    assert not lock.is_acquired and lock.lease_remaining() == 0.0


def test_another_thread_knows_while_the_hub_is_blocked(zookeeper: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts, timeout=SESSION), PATH)
    assert lock.acquire(timeout=5.0)
    seen, done = list[bool](), list[bool]()
    sleep = monkey.get_original("time", "sleep")

    def look() -> None:
        while not done:
            seen.append(lock.is_acquired)
            sleep(0.01)

    monkey.get_original("_thread", "start_new_thread")(look, ())
    sleep(SESSION)
    done.append(True)

    assert seen[0] and not seen[-1]
    assert seen == sorted(seen, reverse=True), "once False, never True again"


def test_a_forked_child_holds_nothing(zookeeper: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    assert lock.acquire(timeout=5.0)

    child = monkey.get_original("os", "fork")()
    if not child:
        os._exit(int(lock.is_acquired))  # nothing else of this process may run in it
    _, status = monkey.get_original("os", "waitpid")(child, 0)

    assert status == 0 and lock.is_acquired


# Other people's hands.


def test_a_waiter_whose_parent_is_removed_gets_the_lock(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    queue.join()
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)
    attempt = flavour.spawn(lock.acquire)
    queue.comes_to(2)

    queue.clear()

    assert flavour.result(attempt, 5.0, "it waits for a node that is no more")
    queue.stays_at(1)


def test_a_parent_removed_at_each_turn_costs_nobody_the_lock(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    from kazoo.exceptions import NoNodeError, NotEmptyError

    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    def collect() -> None:
        while True:
            try:
                observer.delete(PATH)
            except (NoNodeError, NotEmptyError):
                gevent.sleep(0.001)

    flavour.spawn(collect)
    for _ in range(100):
        assert lock.acquire(timeout=5.0)
        lock.release()


def test_a_waiter_whose_node_is_deleted_joins_again(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    node = queue.join()
    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH)
    attempt = flavour.spawn(lock.acquire)
    queue.comes_to(2)

    queue.delete(f"{PATH}/{queue.names()[1]}")
    queue.comes_to(1)
    queue.delete(node)

    assert flavour.result(attempt, 5.0, "it never acquired")
    assert queue.owners() == [client.session.session_id]


def test_a_node_deleted_during_an_outage_is_missed_after_it(
    proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=6.0)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    gevent.sleep(0.5)
    flavour.cut_off(client, proxy)

    queue.clear()
    proxy.heal()

    flavour.eventually(lambda: not lock.is_acquired, 2.0, "is_acquired is True without a node")
    assert lock.lost.is_set() and lock.lost_reason == "deleted"


def test_who_may_not_join_the_queue_is_told(zookeeper: Any, observer: Any, flavour: Any) -> None:
    from kazoo.security import READ_ACL_UNSAFE

    from sepelib.zookeeper import ZookeeperError

    observer.ensure_path(PATH)
    observer.set_acls(PATH, READ_ACL_UNSAFE)
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    with pytest.raises(ZookeeperError, match="NoAuth"):
        flavour.within(3.0, lock.acquire, otherwise="it waits for what it may not have")
    with pytest.raises(ZookeeperError, match="NoAuth"):
        flavour.within(3.0, lock.acquire, otherwise="it waits for its own former attempt")


def test_locks_of_kazoo_and_ours_exclude_each_other(zookeeper: Any, flavour: Any) -> None:
    from kazoo.client import KazooClient
    from kazoo.handlers.gevent import SequentialGeventHandler

    theirs = KazooClient(zookeeper.hosts, timeout=10.0, handler=SequentialGeventHandler())
    theirs.start()
    ours = flavour.client(zookeeper.hosts, timeout=10.0)
    locks = [theirs.Lock(PATH), flavour.lock(ours, PATH), theirs.Lock(PATH)]
    locks.append(flavour.lock(ours, PATH))
    inside, turns = 0, [0] * len(locks)
    until = time.monotonic() + 1.5

    def work(number: int) -> None:
        nonlocal inside
        while time.monotonic() < until:
            locks[number].acquire()
            inside += 1
            assert inside == 1, "two hold the lock"
            gevent.sleep(0.001)
            inside -= 1
            locks[number].release()
            turns[number] += 1

    workers = [flavour.spawn(work, number) for number in range(len(locks))]
    for worker in workers:
        flavour.result(worker, 10.0, "one of them hangs")
    theirs.stop()
    theirs.close()

    assert min(turns) > 3, f"it is not fair: {turns}"
