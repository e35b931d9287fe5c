"""The contract of Semaphore where nothing fails: the bound, order, time, the maximum, costs."""

import contextlib
import gc
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder, check_obeys_deadline
from sepelib.zookeeper import (
    Client,
    ConfigurationError,
    Interrupted,
    Lease,
    LockLost,
    LockNotAcquired,
    LockTimeout,
    Semaphore,
    TransactionRefused,
    ZookeeperError,
    ZookeeperMisused,
)
from sepelib.zookeeper._permit import Permit, count_of, leased
from sepelib.zookeeper._wait import Wait

PATH = "/limits/backend"
Connect = Callable[..., Client]


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Connect]:
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        client = Client(zookeeper.hosts, **{"timeout": 20.0} | options)
        clients.append(client)
        client.start(timeout=20.0)
        return client

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


@pytest.fixture
def operator(connect: Connect) -> Client:
    """Another client, who looks at the server."""
    return connect()


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def children(client: Any, kind: str = "") -> list[str]:
    names = client.get_children(PATH) if client.exists(PATH) else []
    return sorted((name for name in names if kind in name), key=lambda name: name[-10:])


def waiting(client: Any, number: int) -> None:
    eventually(lambda: len(children(client, "__wait__")) == number)


def acquired(semaphore: Semaphore, n: int = 1, timeout: float = 10.0) -> Lease:
    lease = semaphore.acquire(n, timeout=timeout)
    assert lease is not None
    return lease


def requests(zookeeper: Any) -> int:
    """Seen by the server so far; asking is one of them."""
    return int(zookeeper.mntr()["zk_packets_received"])


# The bound and the order.


def test_as_many_as_the_maximum_have_a_lease_and_the_next_waits(
    client: Client, operator: Client
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    first, second = acquired(semaphore), acquired(semaphore)
    third = gevent.spawn(acquired, Semaphore(operator, PATH, max_leases=2))
    waiting(operator, 1)
    assert first.held and second.held and not third.ready()

    assert second.release()

    assert third.get(timeout=5.0).held
    assert first.held and not second.held
    assert len(children(operator, "__lease__")) == 2 and children(operator, "__wait__") == []


def test_those_who_wait_are_served_in_the_order_in_which_they_came(
    client: Client, connect: Connect, operator: Client
) -> None:
    holder = acquired(Semaphore(client, PATH))
    order, greenlets = list[int](), []
    other = connect()

    def work(number: int) -> None:
        with Semaphore(client if number % 2 else other, PATH):
            order.append(number)

    for number in range(6):
        greenlets.append(gevent.spawn(work, number))
        waiting(operator, number + 1)
    holder.release()

    gevent.joinall(greenlets, timeout=10.0, raise_error=True)
    assert order == list(range(6))
    assert children(operator) == []


def test_several_leases_are_had_all_or_none(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=5)
    first, second = acquired(semaphore, 2), acquired(semaphore)
    assert semaphore.acquire(3, timeout=0.1) is None
    attempt = gevent.spawn(acquired, semaphore, 3)
    waiting(operator, 1)
    second.release()

    lease = attempt.get(timeout=5.0)
    assert lease.count == 3 and leased(children(operator)) == 5
    assert semaphore.acquire(blocking=False) is None
    first.release()
    assert lease.held and leased(children(operator)) == 3
    lease.release()
    assert children(operator) == []


def test_who_wants_many_is_not_overtaken_by_those_who_want_few(
    client: Client, operator: Client
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=4)
    few, other = acquired(semaphore), acquired(semaphore)
    large = gevent.spawn(acquired, semaphore, 4)
    waiting(operator, 1)
    small = [gevent.spawn(acquired, semaphore) for _ in range(3)]
    waiting(operator, 4)
    few.release()
    assert semaphore.acquire(blocking=False) is None, "there is room, but others came before"
    waiting(operator, 4)
    assert not large.ready()

    other.release()
    lease = large.get(timeout=5.0)
    waiting(operator, 3)
    lease.release()

    gevent.joinall(small, timeout=5.0, raise_error=True)
    assert all(greenlet.get().held for greenlet in small)


def test_a_token_is_of_the_grant_and_greater_than_those_before(
    client: Client, operator: Client
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    tokens = []
    for _ in range(3):
        tokens.append(acquired(semaphore).token)
        [*_, name] = children(operator)
        assert operator.exists(f"{PATH}/{name}").czxid == tokens[-1]

    assert tokens == sorted(set(tokens))


def test_names_tell_how_many_leases_they_stand_for() -> None:
    guid = "0" * 32
    names = [f"{guid}__lease__0000000001", f"{guid}x12__lease__-2147483648"]

    assert [count_of(name) for name in names] == [1, 12]
    assert leased([*names, f"{guid}x3__wait__0000000002", f"{guid}__max__", "x9"]) == 13


# What it costs.


def test_acquire_and_release_take_four_requests(client: Client, zookeeper: Any) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    acquired(semaphore).release()
    before = requests(zookeeper)

    for _ in range(10):
        acquired(semaphore).release()

    assert requests(zookeeper) - before - 1 <= 4 * 10 + 1, "a ping may be among them"


def test_one_release_wakes_one_of_many_who_wait(
    connect: Connect, operator: Client, zookeeper: Any
) -> None:
    recorder = MemoryRecorder()
    client = connect(recorder=recorder)
    holders = [acquired(Semaphore(operator, PATH, max_leases=4)) for _ in range(4)]
    semaphore = Semaphore(client, PATH, max_leases=4)
    greenlets = [gevent.spawn(acquired, semaphore) for _ in range(30)]
    waiting(operator, 30)
    gevent.sleep(0.2)

    def answered() -> float:
        return sum(float(count) for count in recorder.series("zk_requests").values())

    before = answered()
    holders[0].release()
    gevent.wait(greenlets, timeout=10.0, count=1)
    gevent.sleep(0.2)

    # It lists and asks for the lease; the next one finds itself the oldest and lists.
    assert answered() - before == 3
    assert sum(greenlet.ready() for greenlet in greenlets) == 1
    gevent.killall(greenlets)


def test_a_grant_leaves_no_watch(client: Client, operator: Client, zookeeper: Any) -> None:
    before = zookeeper.mntr()["zk_watch_count"]
    semaphore = Semaphore(client, PATH)
    for _ in range(3):
        holder = acquired(semaphore)
        impatient = gevent.spawn(semaphore.acquire, timeout=0.1)
        patient = gevent.spawn(acquired, semaphore)
        waiting(operator, 2)
        assert impatient.get(timeout=5.0) is None
        holder.release()
        patient.get(timeout=5.0).release()

    eventually(lambda: zookeeper.mntr()["zk_watch_count"] == before)


def test_what_is_over_is_not_kept(client: Client, operator: Client) -> None:
    kinds = ("Permit", "Grant", "Lease", "Wait", "Watch")

    def kept() -> int:
        gc.collect()
        return sum(type(one).__name__ in kinds for one in gc.get_objects())

    semaphore = Semaphore(client, PATH)
    acquired(semaphore).release()
    before = kept()
    for _ in range(20):
        with semaphore:
            assert semaphore.acquire(timeout=0.005) is None
    semaphore._client.sync(PATH)

    eventually(lambda: kept() <= before + 2)
    eventually(lambda: client._janitor.pending() == 0 and children(operator) == [])


# Time.


def test_the_time_covers_all_and_leaves_no_wait(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH)
    with semaphore:
        assert semaphore.acquire(timeout=0.1) is None
        with pytest.raises(LockTimeout, match=PATH):
            semaphore.acquire(timeout=0.1, raise_on_timeout=True)
        with pytest.raises(LockTimeout), semaphore.leased(timeout=0.1):
            raise AssertionError("it is not held")
        with deadline(0.1), pytest.raises(DeadlineExceeded):
            semaphore.acquire()
        check_obeys_deadline(semaphore.acquire)
        eventually(lambda: children(operator, "__wait__") == [])


def test_without_blocking_nobody_is_waited_for_who_has_a_lease(
    client: Client, operator: Client
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    lease = semaphore.acquire(2, blocking=False)
    assert lease is not None
    assert semaphore.acquire(2, blocking=False) is None
    assert semaphore.acquire(2, timeout=0) is None
    one = semaphore.acquire(timeout=0)
    assert one is not None and one.held

    eventually(lambda: len(children(operator)) == 2)


def test_without_blocking_those_who_pass_are_waited_for(client: Client, operator: Client) -> None:
    operator.ensure_path(PATH)
    semaphore = Semaphore(client, PATH, max_leases=3)
    acquired(semaphore).release()
    # One that came before and is about to have its lease: it has to be waited for.
    before = operator.create(f"{PATH}/{'0' * 32}__wait__", ephemeral=True, sequence=True)
    attempt = gevent.spawn(semaphore.acquire, blocking=False)
    waiting(operator, 2)
    assert semaphore.acquire(2, blocking=False) is None, "no room for all three of them"
    assert not attempt.ready()

    operator.delete(before)

    lease = attempt.get(timeout=5.0)
    assert lease is not None and lease.held


def test_without_blocking_the_dead_are_not_waited_for_longer_than_a_request(
    connect: Connect, operator: Client
) -> None:
    client = connect(request_timeout=0.3)
    semaphore = Semaphore(client, PATH, max_leases=3)
    acquired(semaphore).release()
    operator.create(f"{PATH}/{'0' * 32}__wait__", ephemeral=True, sequence=True)

    with gevent.Timeout(5.0, AssertionError("it waits for one who is dead")):
        assert semaphore.acquire(blocking=False) is None
    waiting(operator, 1)


# The maximum.


def test_more_leases_go_at_once_to_those_who_wait(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH)
    acquired(semaphore)
    greenlets = [gevent.spawn(acquired, semaphore) for _ in range(3)]
    waiting(operator, 3)

    Semaphore(operator, PATH, max_leases=None).set_max_leases(3)
    gevent.wait(greenlets, timeout=5.0, count=2)
    waiting(operator, 1)
    assert len(semaphore.leases()) == 3

    semaphore.set_max_leases(4)
    gevent.joinall(greenlets, timeout=5.0, raise_error=True)
    assert all(greenlet.get().held for greenlet in greenlets)


def test_after_less_leases_no_new_ones_are_given_until_there_are_less(
    client: Client, operator: Client
) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    leases = [acquired(semaphore) for _ in range(3)]
    attempt = gevent.spawn(acquired, semaphore)
    waiting(operator, 1)

    Semaphore(operator, PATH, max_leases=None).set_max_leases(1)
    assert all(lease.held for lease in leases)
    for lease in leases[:2]:
        lease.release()
        assert semaphore.acquire(blocking=False) is None
        assert not attempt.ready()
    leases[2].release()

    assert attempt.get(timeout=5.0).held
    assert len(children(operator, "__lease__")) == 1


def test_a_maximum_that_is_lowered_beside_a_grant_is_obeyed(
    client: Client, operator: Client
) -> None:
    """The listing said that there is room, and now the maximum is another one."""
    asking, go = gevent.event.Event(), gevent.event.Event()

    class Slow(Permit):
        def _ask(self) -> None:
            asking.set()
            go.wait(10.0)
            super()._ask()

    semaphore = Semaphore(client, PATH, max_leases=2)
    acquired(semaphore)
    wait = Wait(PATH, 10.0, what="semaphore")
    permit = Slow(client, PATH, 1, semaphore._limit, semaphore._data, wait)
    attempt = gevent.spawn(permit.run)
    assert asking.wait(5.0)
    Semaphore(operator, PATH, max_leases=None).set_max_leases(1)
    go.set()

    gevent.sleep(0.2)
    assert not attempt.ready() and len(children(operator, "__lease__")) == 1
    attempt.kill()
    waiting(operator, 0)


def test_the_maximum_is_kept_and_the_same_for_all(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    acquired(semaphore).release()
    assert json.loads(operator.get(PATH)[0]) == {"sepelib": "semaphore", "max_leases": 3}
    assert semaphore.get_max_leases() == 3

    with pytest.raises(ConfigurationError, match=r"its maximum is 3 leases, not 2.*set_max_leases"):
        Semaphore(operator, PATH, max_leases=2).acquire()
    other = Semaphore(operator, PATH, max_leases=None)
    for _ in range(3):
        acquired(other)

    assert children(operator, "__wait__") == []


def test_who_has_agreed_once_goes_along_with_changes(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=1)
    acquired(semaphore)
    Semaphore(operator, PATH, max_leases=None).set_max_leases(2)
    acquired(semaphore)
    operator.delete(PATH, recursive=True)  # what was changed is known to those who saw it

    acquired(semaphore)
    assert semaphore.get_max_leases() == 2


def test_a_node_made_anew_has_a_maximum_of_its_own(client: Client, operator: Client) -> None:
    """Of the same version as that of the former one."""
    two, any_number = (
        Semaphore(client, PATH, max_leases=2),
        Semaphore(client, PATH, max_leases=None),
    )
    acquired(two).release()
    acquired(any_number).release()
    operator.delete(PATH)
    other = acquired(Semaphore(operator, PATH, max_leases=1))

    with pytest.raises(ConfigurationError, match=r"its maximum is 1 leases, not 2"):
        two.acquire()
    assert any_number.acquire(blocking=False) is None
    other.release()
    assert acquired(any_number).held


def test_a_maximum_that_nobody_has_said_is_asked_for(client: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=None)
    with pytest.raises(ConfigurationError, match="nobody has said"):
        semaphore.acquire()
    with pytest.raises(ConfigurationError, match="is not there"):
        semaphore.get_max_leases()

    semaphore.set_max_leases(2)
    assert acquired(semaphore, 2).held


def test_a_node_that_says_nothing_is_told_the_maximum(client: Client, operator: Client) -> None:
    operator.ensure_path(PATH)

    with pytest.raises(ConfigurationError, match="nobody has said"):
        Semaphore(client, PATH, max_leases=None).acquire()
    assert acquired(Semaphore(client, PATH, max_leases=2)).held

    assert Semaphore(operator, PATH, max_leases=None).get_max_leases() == 2


@pytest.mark.parametrize(
    "data", [b"5", b"{}", b'{"max_leases": 0}', b'{"max_leases": true}', b"\xff"]
)
def test_a_node_that_is_something_else_is_refused(
    client: Client, operator: Client, data: bytes
) -> None:
    """kazoo's semaphore writes a bare number, and counts differently."""
    operator.create(PATH, data, makepath=True)
    semaphore = Semaphore(client, PATH, max_leases=5)

    for call in (semaphore.acquire, semaphore.get_max_leases, lambda: semaphore.set_max_leases(2)):
        with pytest.raises(ConfigurationError, match="something else"):
            call()
    eventually(lambda: children(operator) == [])
    assert operator.get(PATH)[0] == data


def test_more_than_the_maximum_is_never_waited_for(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    with pytest.raises(ConfigurationError, match=r"4 leases are asked for, its maximum is 3"):
        semaphore.acquire(4, timeout=5.0)
    acquired(semaphore)
    large = gevent.spawn(acquired, semaphore, 3)
    waiting(operator, 1)
    small = gevent.spawn(acquired, semaphore)
    waiting(operator, 2)

    semaphore.set_max_leases(2)

    with pytest.raises(ConfigurationError, match=r"3 leases are asked for"):
        large.get(timeout=5.0)
    assert small.get(timeout=5.0).held, "it waits for one who cannot go on"


def test_a_parent_that_cannot_be_is_named(client: Client, operator: Client) -> None:
    operator.create("/ephemeral", ephemeral=True)
    for path in ("/ephemeral", "/ephemeral/below"):
        with pytest.raises(ZookeeperError, match=f"semaphore {path}"):
            Semaphore(client, path).acquire(timeout=5.0)


# Being lost, released, cancelled.


def test_a_lease_whose_node_is_deleted_is_lost(client: Client, operator: Client) -> None:
    losses = list[tuple[Lease, str]]()
    semaphore = Semaphore(
        client, PATH, max_leases=2, on_lost=lambda lease, reason: losses.append((lease, reason))
    )
    first, second = acquired(semaphore), acquired(semaphore)
    gevent.sleep(0.5)  # they are no short sections, so their nodes are watched
    operator.delete(f"{PATH}/{children(operator)[0]}")

    assert first.lost.wait(5.0)
    eventually(lambda: losses)
    assert losses == [(first, "deleted")] and first.lost_reason == "deleted"
    assert not first.held and first.lease_remaining() == 0.0 and not first.release()
    with pytest.raises(LockLost, match="deleted"):
        first.check()
    assert second.held and not second.lost.is_set()
    second.check()


def test_a_released_lease_is_neither_held_nor_lost(client: Client) -> None:
    lease = acquired(Semaphore(client, PATH))
    assert lease.lease_remaining() > 0.0 and "held" in repr(lease)
    lease.check()
    assert lease.release() and not lease.release()

    assert not lease.held and not lease.lost.is_set() and lease.lost_reason is None
    for call in (lease.check, lease.transaction):
        with pytest.raises(LockNotAcquired):
            call()


def test_a_with_gives_its_lease_and_lets_go_of_it(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=3)
    with semaphore as lease, semaphore as other, semaphore.leased() as third:
        assert lease.held and other.held and third.held
        assert len({lease.token, other.token, third.token}) == 3
    with pytest.raises(KeyError), semaphore, semaphore.leased(2, timeout=5.0):
        raise KeyError
    with acquired(semaphore, 3) as all_of_them:
        assert all_of_them.held

    assert not (lease.held or other.held or third.held or all_of_them.held)
    assert children(operator) == []


def test_a_with_may_be_left_by_another_greenlet_than_the_one_that_entered(
    client: Client, operator: Client
) -> None:
    semaphore, stack = Semaphore(client, PATH, max_leases=2), contextlib.ExitStack()
    with semaphore as own:
        lease = gevent.spawn(stack.enter_context, semaphore).get(timeout=5.0)
        gc.collect()

        gevent.spawn(stack.close).get(timeout=5.0)

        assert lease.held + own.held == 1
    assert not lease.held and not own.held
    assert children(operator) == []


def test_a_verify_finds_out_what_nobody_has_told(client: Client, operator: Client) -> None:
    lease = acquired(Semaphore(client, PATH))
    lease.verify()
    operator.delete(f"{PATH}/{children(operator)[0]}")

    with pytest.raises(LockLost, match=f"semaphore {PATH} was lost: deleted"):
        lease.verify(5.0)

    assert not lease.held and lease.lost.is_set()
    with pytest.raises(LockLost, match="deleted"):
        lease.verify()


def test_what_it_says_is_about_a_semaphore(client: Client) -> None:
    semaphore = Semaphore(client, PATH)
    with semaphore.leased() as lease:
        with pytest.raises(LockTimeout, match=f"^semaphore {PATH}: not granted"):
            semaphore.acquire(timeout=0, raise_on_timeout=True)
        with pytest.raises(LockTimeout, match=f"^semaphore {PATH}: not granted"):
            semaphore.leased(timeout=0).__enter__()
    for call in (lease.check, lease.verify, lease.transaction):
        with pytest.raises(LockNotAcquired, match=f"^semaphore {PATH}: it is not held"):
            call()


def test_a_strict_with_says_that_its_lease_was_lost(client: Client, zookeeper: Any) -> None:
    semaphore = Semaphore(client, PATH, strict=True)

    def at_the_end() -> None:
        with semaphore as lease:
            zookeeper.expire(client)
            assert lease.lost.wait(5.0)

    def at_once() -> None:
        with semaphore.leased(kill_on_lost=True):
            zookeeper.expire(client)
            gevent.sleep(5.0)
            raise AssertionError("it was not struck")

    for body in (at_the_end, at_once):
        with pytest.raises(LockLost):
            body()
    with semaphore:
        pass


def test_a_transaction_needs_the_lease(client: Client, operator: Client) -> None:
    lease = acquired(Semaphore(client, PATH))
    transaction = lease.transaction()
    transaction.create("/result", b"1")
    assert transaction.commit() == [True, "/result"]

    transaction = lease.transaction()
    transaction.set_data("/result", b"2")
    operator.delete(f"{PATH}/{children(operator)[0]}")
    with pytest.raises(TransactionRefused):
        transaction.commit()
    assert operator.get("/result")[0] == b"1"


def test_cancel_reaches_all_who_wait_and_nobody_else(client: Client, operator: Client) -> None:
    semaphore = Semaphore(client, PATH, max_leases=2)
    lease = acquired(semaphore, 2)
    greenlets = [gevent.spawn(semaphore.acquire, n) for n in (1, 2, 1)]
    waiting(operator, 3)
    gevent.get_hub().threadpool.apply(semaphore.cancel)

    for greenlet in greenlets:
        with pytest.raises(Interrupted, match=f"semaphore {PATH}"):
            greenlet.get(timeout=2.0)
    waiting(operator, 0)
    assert lease.held
    lease.release()
    assert acquired(semaphore, 2).held


def test_a_callback_that_fails_is_logged_and_the_next_comes(
    client: Client, zookeeper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[str]()

    def fail(lease: Lease, reason: str) -> None:
        told.append(reason)
        raise gevent.Timeout if len(told) == 1 else KeyError

    semaphore = Semaphore(client, PATH, max_leases=2, on_lost=fail)
    leases = [acquired(semaphore) for _ in range(2)]
    zookeeper.expire(client)

    eventually(lambda: told == ["session", "session"])
    eventually(lambda: caplog.text.count(f"on_lost of semaphore {PATH} has failed") == 2)
    assert not any(lease.held for lease in leases)
    assert acquired(semaphore).held


# Looking, words, misuse.


def test_others_see_who_has_leases_and_who_waits(client: Client, operator: Client) -> None:
    lease = acquired(Semaphore(client, PATH, "worker-1", max_leases=3), 2)
    other = acquired(Semaphore(operator, PATH, max_leases=3))
    attempt = gevent.spawn(Semaphore(client, PATH, "worker-3", max_leases=3).acquire, 3)
    waiting(operator, 1)
    view = Semaphore(operator, PATH, max_leases=None)

    first, second = view.leases()
    assert first == ("worker-1", lease.token, client.session.session_id, 2)
    assert second.token == other.token and second.session_id == operator.session.session_id
    assert ":" in second.identifier and second.leases == 1
    [waiter] = view.waiters()
    assert (waiter.identifier, waiter.leases) == ("worker-3", 3)
    assert Semaphore(operator, "/nothing").leases() == []
    attempt.kill()


def test_metrics_show_waits_holds_and_losses(connect: Connect, zookeeper: Any) -> None:
    recorder = MemoryRecorder()
    client = connect(recorder=recorder)
    semaphore = Semaphore(client, PATH, path_class="backend")
    lease = acquired(semaphore)
    attempt = gevent.spawn(semaphore.acquire, timeout=0.2)
    eventually(lambda: recorder.value("zk_semaphore_waiters", "backend") == 1)
    assert attempt.get(timeout=5.0) is None
    assert semaphore.acquire(blocking=False) is None
    zookeeper.expire(client)
    assert lease.lost.wait(5.0)

    acquires = {
        result: len(recorder.observations("zk_semaphore_acquire_seconds", "backend", result))
        for result in ("acquired", "timeout", "busy")
    }
    assert acquires == {"acquired": 1, "timeout": 1, "busy": 1}
    assert len(recorder.observations("zk_semaphore_held_seconds", "backend")) == 1
    assert recorder.value("zk_semaphore_lost", "backend", "session") == 1
    assert recorder.value("zk_semaphore_waiters", "backend") == 0


def test_the_log_has_one_line_for_each_event(
    client: Client, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sepelib.zookeeper.semaphore")
    semaphore = Semaphore(client, PATH, max_leases=2)
    with semaphore.leased(2) as lease:
        pass
    lost = acquired(semaphore)
    gevent.sleep(0.4)
    operator.delete(f"{PATH}/{children(operator)[0]}")
    assert lost.lost.wait(5.0)
    eventually(lambda: len(caplog.records) == 4)

    words = ["2 acquired after", "2 released, held for", "1 acquired", "lost while held: deleted"]
    for record, word in zip(caplog.records, words, strict=True):
        assert word in record.message and f"semaphore {PATH}: " in record.message
        assert {"path", "guid", "session", "token"} <= vars(record).keys()
    assert caplog.records[0].token == lease.token  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None, 10**9])
def test_a_number_that_is_none_is_refused_at_once(client: Client, number: Any) -> None:
    semaphore = Semaphore(client, PATH)
    for call in (semaphore.acquire, semaphore.set_max_leases):
        with pytest.raises((TypeError, ValueError)):
            call(number)
    if number is not None:
        with pytest.raises((TypeError, ValueError)):
            Semaphore(client, PATH, max_leases=number)


def test_it_is_refused_what_it_cannot_work_with(client: Client, connect: Connect) -> None:
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        Semaphore(KazooClient(), PATH)
    with pytest.raises(ValueError, match="path of a semaphore"):
        Semaphore(client, "/")
    with pytest.raises(TypeError, match="path of a semaphore"):
        Semaphore(client, 5)  # type: ignore[arg-type]
    stopped = connect()
    semaphore = Semaphore(stopped, PATH)
    lease = acquired(semaphore)
    stopped.stop()
    assert lease.lost.is_set() and not lease.release()
    for call in (semaphore.acquire, semaphore.leases, lambda: semaphore.set_max_leases(2)):
        with pytest.raises(ZookeeperMisused, match="stopped"):
            call()


def test_other_threads_are_told_to_stay_away(client: Client) -> None:
    semaphore = Semaphore(client, PATH)
    lease = acquired(semaphore)
    results = list[object]()

    def misuse() -> None:
        results.append(lease.held)
        for call in (semaphore.acquire, semaphore.leases, lease.release, lease.verify):
            try:
                call()
            except ZookeeperMisused:
                results.append("misused")

    gevent.get_hub().threadpool.apply(misuse)
    assert results == [True, *["misused"] * 4]
    assert lease.held


@pytest.mark.parametrize("path", ["/a__lease__b/c", "/x3__wait__/0000000007__lease__0000000001"])
def test_a_path_that_looks_like_a_node_of_ours_is_a_path_like_any_other(
    client: Client, operator: Client, path: str
) -> None:
    semaphore = Semaphore(client, path, "me", max_leases=2)
    with semaphore.leased(2, timeout=5.0) as lease:
        assert semaphore.acquire(blocking=False) is None
        eventually(lambda: len(operator.get_children(path)) == 1)
        assert "x2__lease__" in operator.get_children(path)[0]
        lease.verify()
    assert operator.get_children(path) == []


@pytest.mark.parametrize("letter", ["\0", "\x1f", "\x7f", "\x9f", "\ue000", "\uffff", "😀"])
def test_a_path_that_no_server_takes_is_refused_at_once(client: Client, letter: str) -> None:
    path = f"/a/b{letter}c"
    with pytest.raises(ValueError, match="path of a semaphore cannot have") as failure:
        Semaphore(client, path)
    assert str(failure.value).isascii() and str(failure.value).isprintable()
    with pytest.raises(KazooException):
        client.create(path)  # indeed


@pytest.mark.parametrize("path", ["/a/../b", "/./b", "//"])
def test_a_path_that_names_no_node_is_refused(client: Client, path: str) -> None:
    with pytest.raises(ValueError, match="path of a semaphore names a node below the root"):
        Semaphore(client, path)


def test_an_identifier_that_no_server_takes_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ValueError, match="100000 bytes at most, not 100001"):
        Semaphore(client, PATH, "ü" * 50_000 + "x")

    with Semaphore(client, PATH, "ü" * 50_000) as lease:
        lease.verify()
