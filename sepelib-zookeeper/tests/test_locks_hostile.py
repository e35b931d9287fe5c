"""Locks against what has broken locks elsewhere: lost answers, kills and signals at bad moments.

After each of them the queue holds nobody who does not wait, and the lock can be had.
"""

import contextlib
import random
import signal
import time
from typing import Any

import gevent
import pytest

SESSION = 2.0  # as in conftest
PATH = "/service/lock"


# Lost answers.


@pytest.mark.parametrize("operation", ["create", "get_children"])
def test_an_acquire_whose_answer_is_lost_makes_one_node(
    proxy: Any, queue: Any, flavour: Any, operation: str
) -> None:
    client = flavour.client(proxy.hosts)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()
    session = client.session.session_id

    with proxy.lose_answer_to(operation):
        assert lock.acquire(timeout=5.0)

    assert queue.owners() == [session]
    lock.verify(5.0)
    queue.stays_at(1)
    lock.release()
    queue.comes_to(0)


def test_a_create_whose_answer_and_session_are_lost_leaves_one_node(
    zookeeper: Any, proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()
    first = client.session.session_id

    with proxy.lose_answer_to("create", then="hold"):
        attempt = flavour.spawn(lock.acquire)
        queue.comes_to(1)
        zookeeper.expire(client)
    proxy.heal()

    assert flavour.result(attempt, 10.0, "it never acquired")
    assert client.session.session_id != first
    assert queue.owners() == [client.session.session_id] and lock.is_acquired
    queue.stays_at(1)


@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit])
@pytest.mark.parametrize("then", ["cut", "hold"])
def test_a_waiter_killed_while_its_create_has_no_answer_leaves_no_node(
    proxy: Any, queue: Any, flavour: Any, error: type[BaseException], then: str
) -> None:
    client = flavour.client(proxy.hosts, timeout=4.0)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()

    with proxy.lose_answer_to("create", then=then):
        attempt = flavour.spawn(lock.acquire)
        queue.comes_to(1)
        attempt.kill(error, timeout=0.5)
    assert attempt.ready(), "the kill was not heard"
    proxy.heal()

    queue.comes_to(0)
    assert lock.acquire(timeout=5.0)
    queue.stays_at(1)


def test_an_acquire_whose_time_is_gone_before_the_answer_leaves_no_node(
    proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=4.0)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)
    lock.release()

    proxy.hold_replies()
    assert not flavour.within(1.5, flavour.acquire, lock, 0.3, otherwise="0.3 s were 1.5")
    queue.comes_to(1)
    proxy.heal()

    queue.comes_to(0)


def test_a_release_whose_answer_is_lost_releases(proxy: Any, queue: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(proxy.hosts), PATH)
    assert lock.acquire(timeout=5.0)

    with proxy.lose_answer_to("delete"):
        flavour.within(1.0, lock.release, otherwise="it waits for an answer that is lost")
    queue.comes_to(0)

    assert lock.acquire(timeout=5.0)
    queue.stays_at(1)


def test_a_release_that_never_left_releases_after_the_reconnect(
    proxy: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=6.0)
    lock = flavour.lock(client, PATH)
    assert lock.acquire(timeout=5.0)

    proxy.hold_requests()
    flavour.within(1.0, lock.release, otherwise="it waits for an answer that cannot come")
    assert not lock.is_acquired
    proxy.refuse()
    proxy.cut()
    proxy.heal()

    queue.comes_to(0)


@pytest.mark.parametrize("operation", ["get", "get_children"])
def test_a_waiter_whose_answer_is_lost_is_woken_all_the_same(
    proxy: Any, queue: Any, flavour: Any, operation: str
) -> None:
    first, second = queue.join(), queue.join()
    lock = flavour.lock(flavour.client(proxy.hosts), PATH)

    with proxy.lose_answer_to(operation):
        attempt = flavour.spawn(lock.acquire)
        queue.comes_to(3)
        gevent.sleep(0.2)
    queue.delete(second)
    queue.delete(first)

    assert flavour.result(attempt, 5.0, "it never acquired")
    queue.stays_at(1)


# Stopping.


def test_a_signal_that_strikes_a_waiter_leaves_no_node(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    queue.join()
    lock = flavour.lock(flavour.client(zookeeper.hosts), PATH)

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()  # in the main greenlet, which signals strike
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)

    queue.comes_to(1)


def test_a_release_that_is_killed_releases(proxy: Any, queue: Any, flavour: Any) -> None:
    lock = flavour.lock(flavour.client(proxy.hosts), PATH)
    assert lock.acquire(timeout=5.0)
    proxy.hold_replies()
    release = flavour.spawn(lock.release)
    gevent.sleep(0.05)
    release.kill(timeout=1.0)

    assert not lock.is_acquired
    queue.comes_to(0)


def test_who_lost_the_lock_may_acquire_it_in_the_callback_that_says_so(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(zookeeper.hosts)
    again = list[bool]()
    lock = flavour.lock(
        client, PATH, on_lost=lambda lock, reason: again.append(lock.acquire(timeout=5.0))
    )
    assert lock.acquire(timeout=5.0)

    zookeeper.expire(client)

    flavour.eventually(lambda: again, 8.0, "acquire() in on_lost hangs")
    assert again == [True] and not lock.is_acquired, "it is not this greenlet's"
    assert queue.owners() == [client.session.session_id]


def test_a_client_that_stops_keeps_no_waiter_and_no_holder(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    client = flavour.client(zookeeper.hosts)
    held, wanted = flavour.lock(client, PATH), flavour.lock(client, PATH)
    assert held.acquire(timeout=5.0)
    attempt = flavour.spawn(wanted.acquire)
    queue.comes_to(2)

    flavour.within(5.0, client.stop, otherwise="stop() hangs")

    assert not held.is_acquired and held.lost.is_set()
    with pytest.raises(Exception):  # noqa: B017, PT011
        flavour.result(attempt, 1.0, "it waits with a client that is stopped")
    assert not flavour.within(1.0, held.release, otherwise="release() hangs")
    queue.comes_to(0)


# Everything at once.


def test_kills_and_timeouts_at_any_moment_leave_nothing(
    zookeeper: Any, queue: Any, flavour: Any
) -> None:
    clients = [flavour.client(zookeeper.hosts) for _ in range(2)]
    rng, inside, entered = random.Random(1), 0, 0
    until = time.monotonic() + 2.5

    def work(client: Any, seed: int) -> None:
        nonlocal inside, entered
        rng, lock = random.Random(seed), flavour.lock(client, PATH)
        while time.monotonic() < until:
            with gevent.Timeout(rng.choice([0.001, 0.003, 0.01, 0.05]), False), lock:
                inside += 1
                try:
                    assert inside == 1
                    entered += 1
                    gevent.sleep(rng.choice([0.0, 0.001, 0.01]))
                    assert inside == 1
                finally:
                    inside -= 1

    workers = [flavour.spawn(work, clients[number % 2], number) for number in range(6)]
    while time.monotonic() < until:
        gevent.sleep(rng.random() / 50)
        number = rng.randrange(6)
        workers[number].kill(block=False)
        replaced = flavour.spawn(work, clients[number % 2], rng.random())
        workers[number].join(5.0)
        workers[number] = replaced
    for worker in workers:
        with contextlib.suppress(gevent.GreenletExit):
            flavour.result(worker, 10.0, "a worker hangs")

    assert entered > 50
    queue.comes_to(0)
    flavour.eventually(
        lambda: not zookeeper.mntr()["zk_watch_count"], 2.0, "a watch is left on the server"
    )


def test_cuts_and_lost_answers_at_any_moment_leave_nothing(
    proxy: Any, queue: Any, flavour: Any
) -> None:
    clients = [flavour.client(proxy.hosts, timeout=6.0) for _ in range(2)]
    rng, inside, entered = random.Random(2), 0, 0
    until = time.monotonic() + 2.5

    def work(client: Any) -> None:
        nonlocal inside, entered
        lock = flavour.lock(client, PATH)
        while time.monotonic() < until:
            if lock.acquire(timeout=0.5):
                inside += 1
                try:
                    assert inside == 1, "two hold the lock"
                    entered += 1
                    gevent.sleep(0.001)
                finally:
                    inside -= 1
                    lock.release()

    workers = [flavour.spawn(work, clients[number % 2]) for number in range(4)]
    while time.monotonic() < until:
        operation = rng.choice(["create", "get_children", "delete", "get", "sync", "connect"])
        loss = proxy.lose_answer_to(operation, then=rng.choice(["cut", "reset"]))
        gevent.sleep(rng.random() / 10)
        loss.cancel()
        proxy.cut(reset=rng.random() < 0.5)
        gevent.sleep(rng.random() / 10)
    for worker in workers:
        flavour.result(worker, 10.0, "a worker hangs")

    assert entered > 20
    queue.comes_to(0)


def test_what_is_over_is_not_kept(zookeeper: Any, queue: Any, flavour: Any) -> None:
    import gc

    kinds = ("Attempt", "Grant", "Wait", "_Watch")

    def kept() -> dict[str, int]:
        gc.collect()
        names = [type(one).__name__ for one in gc.get_objects()]
        return {kind: names.count(kind) for kind in kinds}

    client = flavour.client(zookeeper.hosts)
    lock = flavour.lock(client, PATH)
    before = kept()
    for _ in range(50):
        assert lock.acquire(timeout=5.0)
        with gevent.Timeout(0.005, False):
            flavour.lock(client, PATH).acquire()
        assert not flavour.acquire(flavour.lock(client, PATH), 0.005)
        lock.release()
    queue.comes_to(0)

    flavour.eventually(
        lambda: sum(kept().values()) <= sum(before.values()) + 2, 2.0, f"{before}, later {kept()}"
    )
    assert client._janitor.pending() == 0


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.002])
def test_an_interrupt_and_a_grant_at_once_leave_either_a_holder_or_nothing(
    zookeeper: Any, queue: Any, flavour: Any, seconds: float
) -> None:
    from sepelib.zookeeper import InterruptableLock, Interrupted

    client = flavour.client(zookeeper.hosts)
    lock = InterruptableLock(client, PATH)
    for _ in range(30):
        node = queue.join()
        attempt = flavour.spawn(lock.acquire)
        queue.comes_to(2)
        gevent.spawn(queue.delete, node)
        gevent.sleep(seconds)
        lock.interrupt()
        try:
            acquired = flavour.result(attempt, 5.0, "it hears neither")
        except Interrupted:
            acquired = False
        assert lock.is_acquired == acquired
        if acquired:
            lock.release()
        queue.comes_to(0)
