"""The contract of Lock where nothing fails: order, tokens, time, sharing, costs, words."""

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder, check_obeys_deadline
from sepelib.zookeeper import (
    Client,
    ConfigurationError,
    InterruptableLock,
    Interrupted,
    Lock,
    LockLost,
    LockNotAcquired,
    LockTimeout,
    TransactionError,
    ZookeeperError,
    ZookeeperMisused,
)
from sepelib.zookeeper._queue import LOCK, READ, Place, Queue, nearest

PATH = "/jobs/nightly"


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        client = Client(zookeeper.hosts, **{"timeout": 20.0} | options)
        clients.append(client)
        client.start(timeout=20.0)
        return client

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """Another client, who looks at the server."""
    return connect()


@pytest.fixture
def kazoo(zookeeper: Any) -> Iterator[KazooClient]:
    client = KazooClient(zookeeper.hosts, timeout=20.0, handler=SequentialGeventHandler())
    client.start()
    yield client
    client.stop()
    client.close()


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def children(client: Any, path: str = PATH) -> list[str]:
    return list(client.get_children(path)) if client.exists(path) else []


def answered(recorder: MemoryRecorder, *ops: str) -> float:
    """How many requests the server has answered; of all kinds, unless told which."""
    series = recorder.series("zk_requests")
    return sum(float(count) for (op, _), count in series.items() if not ops or op in ops)


# The queue.


def test_places_are_read_out_of_the_names_of_all_kinds_of_contenders() -> None:
    queue = Queue([LOCK, READ, "-lock-"])
    guid = uuid.uuid4().hex

    names = [f"{guid}{READ}0000000003", f"_c_{guid}-lock-0000000001", f"{guid}{LOCK}0000000002"]
    strangers = ["config", f"{guid}{LOCK}", f"{guid}{LOCK}12", f"{guid}__lease__0000000000"]

    assert queue.order(names + strangers) == [
        Place(names[1], "-lock-", 1),
        Place(names[2], LOCK, 2),
        Place(names[0], READ, 3),
    ]


def test_a_pattern_may_have_groups_of_its_own() -> None:
    assert Queue([LOCK, "(-lock-|_(x)_)"]).order(["a-lock-0000000001", "b_x_0000000000"]) == [
        Place("b_x_0000000000", "_x_", 0),
        Place("a-lock-0000000001", "-lock-", 1),
    ]


@given(
    start=st.integers(-(2**31), 2**31 - 1),
    steps=st.lists(st.integers(1, 2**20), max_size=20),
    shuffled=st.randoms(use_true_random=False),
)
def test_contenders_are_in_the_order_of_their_creation_across_the_wrap(
    start: int, steps: list[int], shuffled: Any
) -> None:
    counts = [start]
    for step in steps:
        counts.append(counts[-1] + step)
    # As the server's Java writes its 32-bit counter: %010d of a signed int.
    names = [f"x{LOCK}{(count + 2**31) % 2**32 - 2**31:010d}" for count in counts]
    listed = list(names)
    shuffled.shuffle(listed)

    assert [place.name for place in Queue([LOCK]).order(listed)] == names


def test_a_contender_waits_for_the_nearest_that_counts() -> None:
    write, read = Place("w", LOCK, 1), Place("r", READ, 2)

    assert nearest()([write, read]) is read
    assert nearest({READ})([write, read]) is write
    assert nearest({READ})([read]) is None
    assert nearest()([]) is None


def test_a_number_below_zero_is_older_than_zero(client: Client, operator: Client) -> None:
    operator.ensure_path(PATH)
    older = operator.create(f"{PATH}/{uuid.uuid4().hex}{LOCK}-000000001", ephemeral=True)
    operator.create(f"{PATH}/{uuid.uuid4().hex}{LOCK}2147483647", ephemeral=True)
    lock = Lock(client, PATH)

    assert not lock.acquire(blocking=False)
    operator.delete(older)
    assert lock.acquire(blocking=False)


# Exclusion.


def test_one_holds_and_the_others_follow_in_the_order_in_which_they_came(
    connect: Callable[..., Client], operator: Client
) -> None:
    order: list[tuple[int, int]] = []
    inside = 0

    def work(number: int, lock: Lock) -> None:
        nonlocal inside
        with lock:
            inside += 1
            assert inside == 1
            order.append((number, lock.fencing_token))
            gevent.sleep(0.005)
            inside -= 1

    first = Lock(operator, PATH)
    assert first.acquire(timeout=10.0)
    greenlets = []
    for number in range(8):
        greenlets.append(gevent.spawn(work, number, Lock(connect(), PATH)))
        eventually(lambda count=number + 2: len(children(operator)) == count)
    first.release()
    gevent.joinall(greenlets, timeout=10.0, raise_error=True)

    assert [number for number, _ in order] == list(range(8))
    tokens = [token for _, token in order]
    assert tokens == sorted(tokens)
    eventually(lambda: children(operator) == [])


def test_the_token_grows_when_the_parent_was_deleted_and_made_again(
    client: Client, operator: Client
) -> None:
    lock = Lock(client, PATH)
    tokens = []
    for _ in range(3):
        with lock:
            tokens.append(lock.fencing_token)
        eventually(lambda: not children(operator))
        operator.delete(PATH)

    assert tokens == sorted(set(tokens))


def test_kazoo_waits_for_us_and_we_wait_for_kazoo(
    client: Client, operator: Client, kazoo: KazooClient
) -> None:
    ours, theirs, last = Lock(client, PATH, "ours"), kazoo.Lock(PATH, "theirs"), Lock(client, PATH)

    assert ours.acquire(timeout=10.0)
    waiting = gevent.spawn(theirs.acquire)
    eventually(lambda: len(children(operator)) == 2)
    assert theirs.contenders() == ["ours", "theirs"]
    behind = gevent.spawn(last.acquire)
    eventually(lambda: len(children(operator)) == 3)
    assert not waiting.ready()

    ours.release()
    assert waiting.get(timeout=10.0)
    assert not behind.ready() and not last.acquire(blocking=False)

    theirs.release()
    assert behind.get(timeout=10.0)


def test_sections_of_ours_and_of_kazoo_never_overlap(
    connect: Callable[..., Client], zookeeper: Any, kazoo: KazooClient
) -> None:
    inside, sections = 0, 0

    def work(lock: Any) -> None:
        nonlocal inside, sections
        for _ in range(10):
            with lock:
                inside += 1
                assert inside == 1
                gevent.sleep(0)
                inside -= 1
                sections += 1

    locks = [Lock(connect(), PATH), kazoo.Lock(PATH), Lock(connect(), PATH), kazoo.Lock(PATH)]
    gevent.joinall([gevent.spawn(work, lock) for lock in locks], timeout=30.0, raise_error=True)

    assert sections == 40


def test_contenders_of_another_implementation_are_waited_for(
    client: Client, operator: Client
) -> None:
    operator.ensure_path(PATH)
    curator = operator.create(f"{PATH}/_c_{uuid.uuid4()}-lock-", ephemeral=True, sequence=True)

    lock = Lock(client, PATH, extra_lock_patterns=["-lock-"])

    assert not lock.acquire(blocking=False)
    operator.delete(curator)
    assert lock.acquire(timeout=10.0)


# Time.


def test_an_acquire_ends_when_its_time_is_over(client: Client, operator: Client) -> None:
    holder, lock = Lock(operator, PATH), Lock(client, PATH)
    assert holder.acquire(timeout=10.0)
    started = time.monotonic()

    assert not lock.acquire(timeout=0.2)
    assert time.monotonic() - started >= 0.2
    with pytest.raises(LockTimeout, match=PATH):
        lock.acquire(timeout=0.2, raise_on_timeout=True)

    assert not lock.is_acquired and not lock.release()
    eventually(lambda: len(children(operator)) == 1)
    holder.release()
    assert lock.acquire(timeout=10.0)


def test_no_time_at_all_is_one_try(client: Client, operator: Client) -> None:
    lock, other = Lock(client, PATH), Lock(operator, PATH)

    assert lock.acquire(timeout=0)
    assert not other.acquire(timeout=0)
    assert not other.acquire(blocking=False, timeout=5.0)
    with pytest.raises(ValueError, match="negative"):
        other.acquire(timeout=-1)


def test_an_acquire_obeys_the_deadline_of_its_caller(client: Client, operator: Client) -> None:
    assert Lock(operator, PATH).acquire(timeout=10.0)

    check_obeys_deadline(Lock(client, PATH).acquire)
    with deadline(0.2), pytest.raises(DeadlineExceeded):
        Lock(client, PATH).acquire(timeout=5.0)
    with deadline(5.0):
        assert not Lock(client, PATH).acquire(timeout=0.1)

    eventually(lambda: len(children(operator)) == 1)


# Sharing.


def test_greenlets_get_a_shared_lock_at_once_and_in_the_order_in_which_they_asked(
    client: Client,
) -> None:
    lock = Lock(client, PATH)
    order: list[int] = []

    def work(number: int) -> None:
        assert lock.acquire()
        order.append(number)
        gevent.sleep(0.01)
        lock.release()

    assert lock.acquire()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.05)
    greenlets = []
    for number in range(10):
        greenlets.append(gevent.spawn(work, number))
        gevent.sleep(0)
    greenlets.pop(4).kill()
    started = time.monotonic()
    lock.release()
    gevent.joinall(greenlets, timeout=10.0, raise_error=True)

    assert order == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert time.monotonic() - started < 5.0


def test_who_has_lost_it_does_not_release_what_another_greenlet_has_got_since(
    client: Client, operator: Client
) -> None:
    lock = Lock(client, PATH, on_revoke=print)  # watched at once
    assert lock.acquire()
    operator.delete(f"{PATH}/{children(operator)[0]}")
    assert lock.lost.wait(5.0)
    go_on = gevent.event.Event()

    def hold() -> bool:
        with lock:
            go_on.wait()
            return lock.is_acquired

    other = gevent.spawn(hold)
    eventually(lambda: lock._grant is not None and lock._grant.held)

    assert not lock.is_acquired  # for this greenlet
    with pytest.raises(LockLost):
        lock.check()
    assert not lock.release()
    assert len(children(operator)) == 1
    go_on.set()
    assert other.get(timeout=5.0)


def test_any_greenlet_may_release(client: Client) -> None:
    lock = Lock(client, PATH)
    gevent.spawn(lock.acquire).get(timeout=10.0)

    assert lock.is_acquired
    assert lock.release() is True
    assert lock.release() is False


def test_a_block_may_be_left_by_another_greenlet_than_has_entered_it(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        lock = gevent.spawn(stack.enter_context, Lock(client, PATH)).get(timeout=10.0)
        assert lock.is_acquired
    assert not lock.is_acquired


def test_threads_may_look_and_interrupt_and_nothing_else(client: Client, operator: Client) -> None:
    held, lock = Lock(operator, PATH), InterruptableLock(client, PATH)
    assert held.acquire()
    waiting = gevent.spawn(lock.acquire)
    eventually(lambda: len(children(operator)) == 2)
    gevent.sleep(0.1)  # it sleeps now, and nothing else wakes it
    seen: list[Any] = []

    def look() -> None:
        seen.append(held.is_acquired)
        for call in (held.acquire, held.release, held.verify, held.contenders):
            try:
                call()
            except ZookeeperMisused as error:
                seen.append(type(error))
        lock.interrupt()

    gevent.get_hub().threadpool.apply(look)

    assert seen == [True] + [ZookeeperMisused] * 4
    with pytest.raises(Interrupted):
        waiting.get(timeout=5.0)
    assert held.is_acquired


def test_an_interrupt_wins_over_a_grant_that_comes_at_the_same_time(
    client: Client, operator: Client
) -> None:
    class InterruptedAtTheGrant(InterruptableLock):
        def _attempt(self, wait: Any) -> Any:
            attempt = super()._attempt(wait)
            attempt._blocker = lambda ahead: self.interrupt()  # None: nobody is in the way
            return attempt

    lock = InterruptedAtTheGrant(client, PATH)
    with pytest.raises(Interrupted):
        lock.acquire(timeout=5.0)

    assert not lock.is_acquired
    assert InterruptableLock(client, PATH).acquire(timeout=5.0)


def test_an_interrupt_at_any_moment_is_either_heard_or_too_late(
    client: Client, operator: Client
) -> None:
    lock = InterruptableLock(client, PATH)
    heard = 0
    for turns in range(40):
        waiting = gevent.spawn(lock.acquire)
        for _ in range(turns // 4):
            gevent.sleep(0)
        lock.interrupt()
        try:
            assert waiting.get(timeout=5.0)
        except Interrupted:
            heard += 1
            assert not lock.is_acquired
        else:
            assert lock.release()

    assert heard
    eventually(lambda: not children(operator))


def test_a_cancel_is_not_kept_for_those_who_come_later(client: Client) -> None:
    lock = Lock(client, PATH)
    lock.cancel()
    assert lock.acquire(timeout=5.0)

    lock.cancel()
    assert lock.is_acquired


# `with` and `locked()`.


def test_a_with_block_holds_the_lock_and_gets_it(client: Client, operator: Client) -> None:
    with Lock(client, PATH) as lock:
        assert isinstance(lock, Lock) and lock.is_acquired
        lock.check()
        lock.verify()
        assert 0 < lock.lease_remaining() <= 20.0
    assert not lock.is_acquired
    assert lock.lease_remaining() == 0.0
    for call in (lock.check, lock.verify, lock.transaction):
        with pytest.raises(LockNotAcquired):
            call()
    with pytest.raises(LockNotAcquired):
        assert lock.fencing_token
    eventually(lambda: not children(operator))


def test_a_block_that_raises_releases_the_lock(client: Client) -> None:
    lock = Lock(client, PATH)

    with pytest.raises(KeyError), lock.locked():
        raise KeyError

    assert not lock.is_acquired and lock.acquire(blocking=False)


def test_a_locked_block_that_gets_no_lock_is_not_entered(client: Client, operator: Client) -> None:
    assert Lock(operator, PATH).acquire()

    with pytest.raises(LockTimeout), Lock(client, PATH).locked(timeout=0.1):
        pytest.fail("entered")


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_lock_tells_at_the_end_of_a_block_that_it_was_lost(
    client: Client, operator: Client, strict: bool
) -> None:
    told = []
    try:
        with Lock(client, PATH, strict=strict, on_revoke=print) as lock:
            operator.delete(f"{PATH}/{children(operator)[0]}")
            assert lock.lost.wait(5.0)
    except LockLost as error:
        told.append(error.reason)

    assert told == (["deleted"] if strict else [])


def test_what_a_strict_block_raises_itself_goes_before_its_loss(
    client: Client, operator: Client
) -> None:
    def work() -> None:
        with Lock(client, PATH, strict=True, on_revoke=print) as lock:
            operator.delete(f"{PATH}/{children(operator)[0]}")
            assert lock.lost.wait(5.0)
            raise KeyError

    with pytest.raises(KeyError):
        work()


def test_a_loss_ends_the_block_that_asked_for_it_and_no_other(
    client: Client, operator: Client
) -> None:
    lock = Lock(client, PATH, on_revoke=print)

    def work() -> None:
        with lock.locked(kill_on_lost=True):
            operator.delete(f"{PATH}/{children(operator)[0]}")
            gevent.sleep(10.0)
            pytest.fail("it went on for ten seconds")

    with pytest.raises(LockLost, match="deleted"):
        work()

    with lock.locked():
        operator.delete(f"{PATH}/{children(operator)[0]}")
        assert lock.lost.wait(5.0)
        gevent.sleep(0.05)
    with lock.locked(kill_on_lost=True):
        assert lock._grant is not None
        lock._grant.gone()  # the block is left before the hub can strike
    gevent.sleep(0.05)


# What it says of itself and others.


def test_contenders_are_shown_with_who_they_are_and_the_token_they_will_have(
    client: Client, operator: Client
) -> None:
    held, named = Lock(client, PATH), Lock(operator, PATH, "worker-7")
    assert held.holder() is None and held.contenders() == []
    assert held.acquire()
    waiting = gevent.spawn(named.acquire)
    eventually(lambda: len(children(operator)) == 2)

    first, second = held.contenders()

    assert held.holder() == first
    assert (first.token, first.session_id) == (held.fencing_token, client.session.session_id)
    data = json.loads(client.get(f"{PATH}/{Queue([LOCK]).order(children(operator))[0].name}")[0])
    assert set(data) == {"id", "host", "pid", "start", "guid"}
    assert first.identifier == data["id"] == f"{data['host']}:{data['pid']}"
    assert second.identifier == "worker-7"
    held.release()
    assert waiting.get(timeout=5.0)
    assert named.fencing_token == second.token


def test_a_transaction_of_the_holder_is_refused_once_its_node_is_gone(
    client: Client, operator: Client
) -> None:
    operator.ensure_path("/result")
    lock = Lock(client, PATH)
    assert lock.acquire()

    operator.set(f"{PATH}/{children(operator)[0]}", b"changed")  # as a revocation does
    done = lock.transaction()
    done.set_data("/result", b"1")
    done.commit()
    assert operator.get("/result")[0] == b"1"

    late = lock.transaction()
    late.set_data("/result", b"2")
    operator.delete(f"{PATH}/{children(operator)[0]}")
    with pytest.raises(TransactionError):
        late.commit()
    assert operator.get("/result")[0] == b"1"


def test_a_verify_finds_out_what_nobody_has_told(client: Client, operator: Client) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire()
    operator.delete(f"{PATH}/{children(operator)[0]}")

    with pytest.raises(LockLost, match="deleted"):
        lock.verify()

    assert not lock.is_acquired and lock.lost.is_set() and lock.lost_reason == "deleted"


def test_a_verify_during_which_the_lock_is_released_tells_of_no_loss(client: Client) -> None:
    told: list[str] = []
    lock = Lock(client, PATH, on_lost=lambda lock, reason: told.append(reason))
    assert lock.acquire()
    grant = lock._grant
    assert grant is not None
    verifying = gevent.spawn(lock.verify)
    gevent.sleep(0)

    assert lock.release()
    grant.gone()  # as an answer says that comes after the deletion
    with pytest.raises(LockNotAcquired):
        verifying.get(timeout=5.0)

    assert not told and grant.reason is None


def test_who_limits_no_request_may_ask_all_the_same(connect: Callable[..., Client]) -> None:
    lock = Lock(connect(request_timeout=float("inf")), PATH, "me")
    assert lock.acquire()

    lock.verify()

    assert [contender.identifier for contender in lock.contenders()] == ["me"]


def test_a_holder_is_asked_once_to_let_go(client: Client, operator: Client) -> None:
    asked: list[Lock] = []
    lock = Lock(client, PATH, on_revoke=asked.append)
    assert lock.acquire()
    node = f"{PATH}/{children(operator)[0]}"

    operator.set(node, b"nothing special")
    operator.set(node, b"__REVOKE__")
    eventually(lambda: asked)
    operator.set(node, b"__REVOKE__")
    lock.verify()

    assert asked == [lock] and lock.is_acquired


def test_a_path_that_cannot_have_contenders_is_refused(client: Client) -> None:
    client.create("/ephemeral", ephemeral=True)

    with pytest.raises(ConfigurationError, match="/ephemeral"):
        Lock(client, "/ephemeral").acquire(timeout=5.0)


def test_a_parent_that_cannot_be_made_is_no_endless_wait(client: Client) -> None:
    client.create("/ephemeral", ephemeral=True)

    with pytest.raises(ZookeeperError, match="/ephemeral/jobs"):
        Lock(client, "/ephemeral/jobs").acquire(timeout=20.0)


@pytest.mark.parametrize("path", ["", "/", "//", "/jobs/../nightly", "/jobs/./x", "/jobs\0"])
def test_a_path_that_names_no_node_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Lock(Client("127.0.0.1:1"), path)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (b"/jobs", {}),
        (PATH, {"identifier": b"me"}),
        (PATH, {"extra_lock_patterns": "-lock-"}),
    ],
)
def test_what_is_of_another_type_is_refused(path: Any, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="str"):
        Lock(Client("127.0.0.1:1"), path, **options)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_timeout_that_is_none_is_refused_and_leaves_nothing(client: Client, timeout: Any) -> None:
    lock = Lock(client, PATH)

    with pytest.raises((ValueError, TypeError), match="timeout"):
        lock.acquire(timeout=timeout)

    assert lock.acquire(timeout=10.0)
    assert len(children(client)) == 1


@pytest.mark.parametrize("spelling", ["jobs/nightly", "//jobs//nightly/"])
def test_a_path_is_the_same_however_it_is_written(client: Client, spelling: str) -> None:
    assert Lock(client, PATH).acquire()
    assert not Lock(client, spelling).acquire(blocking=False)


def test_a_plain_client_of_kazoo_is_refused(kazoo: KazooClient) -> None:
    with pytest.raises(ZookeeperMisused, match=r"sepelib\.zookeeper\.Client"):
        Lock(kazoo, PATH)


def test_an_acquire_of_a_stopped_client_says_so(connect: Callable[..., Client]) -> None:
    client = connect()
    holder, lock = Lock(connect(), PATH), Lock(client, PATH)
    assert holder.acquire()
    waiting = gevent.spawn(lock.acquire)
    eventually(lambda: len(children(client)) == 2)

    client.stop()

    with pytest.raises(ZookeeperMisused):
        waiting.get(timeout=10.0)
    with pytest.raises(ZookeeperMisused):
        lock.acquire(timeout=5.0)


# What it costs.


def test_an_uncontended_lock_costs_three_requests(connect: Callable[..., Client]) -> None:
    recorder = MemoryRecorder()
    client = connect(recorder=recorder)
    lock = Lock(client, PATH)
    assert lock.acquire() and lock.release()
    gevent.sleep(0.05)  # the client's janitor has had its first look at the directory
    before = answered(recorder)

    for _ in range(10):
        assert lock.acquire() and lock.release()
    assert answered(recorder) - before == 30

    for _ in range(10):
        with Lock(client, PATH):
            pass
    assert answered(recorder) - before == 60


def test_the_server_counts_three_requests_too(client: Client, zookeeper: Any) -> None:
    lock = Lock(client, PATH)
    assert lock.acquire() and lock.release()
    gevent.sleep(0.05)
    before = zookeeper.mntr()["zk_packets_received"]
    for _ in range(20):
        assert lock.acquire() and lock.release()
    after = zookeeper.mntr()["zk_packets_received"]

    assert 60 <= after - before <= 62  # the question itself, perhaps a ping


def test_a_hand_over_among_many_costs_five_requests(connect: Callable[..., Client]) -> None:
    recorder = MemoryRecorder()
    clients = [connect(recorder=recorder) for _ in range(5)]
    for client in clients:
        with Lock(client, PATH):
            gevent.sleep(0.05)  # the client's janitor has its first look at the directory
    before = answered(recorder)

    def work(client: Client) -> None:
        for _ in range(10):
            with Lock(client, PATH):
                gevent.sleep(0)

    gevent.joinall(
        [gevent.spawn(work, client) for client in clients for _ in range(4)],
        timeout=60.0,
        raise_error=True,
    )

    assert (answered(recorder) - before) / 200 <= 5.0


def test_a_release_wakes_one_waiter(connect: Callable[..., Client]) -> None:
    recorder = MemoryRecorder()
    holder, waiters = connect(), connect(recorder=recorder)
    lock = Lock(holder, PATH)
    assert lock.acquire()
    greenlets = [gevent.spawn(Lock(waiters, PATH).acquire) for _ in range(15)]
    eventually(lambda: answered(recorder, "get") == 15)
    before = answered(recorder)

    lock.release()
    gevent.wait(greenlets, timeout=10.0, count=1)
    gevent.sleep(0.1)

    assert answered(recorder) - before == 1
    assert sum(greenlet.ready() for greenlet in greenlets) == 1
    gevent.killall(greenlets)


# Metrics and log.


def test_metrics_show_waits_holds_and_losses(
    connect: Callable[..., Client], operator: Client
) -> None:
    recorder = MemoryRecorder()
    client = connect(recorder=recorder)
    lock = Lock(client, PATH, path_class="nightly", on_revoke=print)

    assert lock.acquire()
    waiting = gevent.spawn(Lock(client, PATH, path_class="nightly").acquire, timeout=0.2)
    eventually(lambda: recorder.value("zk_lock_waiters", "nightly") == 1)
    assert waiting.get(timeout=5.0) is False
    assert not Lock(client, PATH, path_class="nightly").acquire(blocking=False)
    lock.release()
    assert lock.acquire()
    operator.delete(f"{PATH}/{children(operator)[-1]}")
    assert lock.lost.wait(5.0)

    acquires = {
        result: len(recorder.observations("zk_lock_acquire_seconds", "nightly", result))
        for result in ("acquired", "timeout", "busy")
    }
    assert acquires == {"acquired": 2, "timeout": 1, "busy": 1}
    assert len(recorder.observations("zk_lock_held_seconds", "nightly")) == 2
    assert recorder.value("zk_lock_lost", "nightly", "deleted") == 1
    assert recorder.value("zk_lock_waiters", "nightly") == 0


def test_the_log_has_one_line_for_each_event(
    client: Client, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sepelib.zookeeper.lock")
    lock = Lock(client, PATH, on_revoke=print)

    with lock:
        token = lock.fencing_token
    assert lock.acquire()
    operator.delete(f"{PATH}/{children(operator)[-1]}")
    assert lock.lost.wait(5.0)
    eventually(lambda: len(caplog.records) == 4)

    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "INFO", "ERROR"]
    words = [
        "acquired after",
        "released, was held for",
        "acquired after",
        "lost while held: deleted",
    ]
    for record, word in zip(caplog.records, words, strict=True):
        assert word in record.message and PATH in record.message
        assert {"path", "guid", "session", "token"} <= vars(record).keys()
    assert caplog.records[0].token == token  # type: ignore[attr-defined]


def test_a_callback_that_fails_is_logged_and_harms_nobody(
    client: Client, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(lock: Lock, *reason: str) -> None:
        raise KeyError(*reason)

    lock = Lock(client, PATH, on_lost=fail, on_revoke=fail)
    assert lock.acquire()
    node = f"{PATH}/{children(operator)[0]}"
    operator.set(node, b"__REVOKE__")
    eventually(lambda: "on_revoke of lock" in caplog.text)
    operator.delete(node)
    eventually(lambda: "on_lost of lock" in caplog.text)

    assert lock.acquire(timeout=5.0)
