"""The contract of Queue: order, time, what an item tells, what it costs, and faults."""

import contextlib
import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import greenlet
import pytest
from kazoo.client import KazooClient

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder, check_obeys_deadline
from sepelib.zookeeper import (
    Client,
    Queue,
    SessionLost,
    SessionState,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper.queue import Item, ItemLost, ItemState

PATH = "/mail"
SESSION = 2.0


@pytest.fixture
def client(zookeeper: Any) -> Client:
    client: Client = zookeeper.client(timeout=20.0)
    return client


@pytest.fixture
def queue(client: Client) -> Queue:
    return Queue(client, PATH)


@pytest.fixture
def other(zookeeper: Any) -> Queue:
    """Of another client, which no fault touches."""
    return Queue(zookeeper.client(timeout=20.0), PATH)


@pytest.fixture
def faulty(proxy: Any, zookeeper: Any) -> Queue:
    """Of a client that comes through the proxy, and has put and got an item before."""
    queue = Queue(zookeeper.client(hosts=proxy.hosts, timeout=SESSION), PATH)
    queue.put(b"first")
    take(queue).ack()
    return queue


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def take(queue: Queue, timeout: float = 10.0) -> Item:
    item = queue.get(timeout)
    assert item is not None
    return item


def drain(queue: Queue) -> list[bytes]:
    """All there is, in order, acked."""
    found = []
    while (item := queue.get(timeout=0)) is not None:
        found.append(item.data)
        item.ack()
    return found


def nodes(client: Client, kind: str) -> list[str]:
    path = f"{PATH}/{kind}"
    return list(client.get_children(path)) if client.exists(path) else []


def killed_at_yield(
    number: int, error: type[BaseException], call: Callable[..., Any], *args: Any
) -> Any:
    """What *call* gives if it yields less often, None if it was killed at that yield."""
    yields = 0
    victim = gevent.spawn(call, *args)
    kill = gevent.get_hub().loop.run_callback

    def trace(event: str, switch: tuple[Any, Any]) -> None:
        nonlocal yields
        if switch[0] is victim:
            yields += 1
            if yields == number:
                kill(victim.kill, error, False)

    former = greenlet.settrace(trace)
    try:
        victim.join(10.0)
    finally:
        greenlet.settrace(former)
    assert victim.ready(), "it goes on"
    return None if isinstance(victim.value, gevent.GreenletExit) else victim.value


def is_clean(queue: Queue) -> bool:
    """Nobody holds an item, nobody waits."""
    return not nodes(queue.client, "claims") and not nodes(queue.client, "line")


# Order.


def test_items_come_in_the_order_of_their_priority_then_first_come_first_served(
    queue: Queue,
) -> None:
    for number, priority in enumerate([100, 500, 100, 0, 999, 7]):
        queue.put(b"%d" % number, priority)

    assert drain(queue) == [b"3", b"5", b"0", b"2", b"1", b"4"]


def test_an_urgent_item_overtakes_all_that_wait(queue: Queue, other: Queue) -> None:
    other.put_many([b"1", b"2", b"3"])
    take(queue).ack()

    queue.put(b"urgent", 50)  # a directory that was not there
    assert take(queue).data == b"urgent"
    queue.put(b"again", 50)  # one that was
    assert take(queue).data == b"again"
    assert take(queue).data == b"2"


def test_items_with_a_lower_priority_do_not_hide_what_is_less_urgent(queue: Queue) -> None:
    queue.put(b"later", 200)
    queue.put(b"now", 1)
    now = take(queue)

    later = take(queue)
    assert (now.data, later.data) == (b"now", b"later")
    assert now.nack()
    queue.put(b"last", 200)
    assert drain(queue) == [b"now", b"last"]


def test_an_item_that_is_given_back_has_its_place_again(queue: Queue, other: Queue) -> None:
    queue.put_many([b"1", b"2", b"3"])
    first, second = take(queue), take(queue)

    assert second.nack() and first.nack()

    assert drain(queue) == [b"1", b"2", b"3"]


def test_an_item_given_back_by_another_consumer_is_next_within_a_second(
    queue: Queue, other: Queue
) -> None:
    queue.put_many([b"%03d" % number for number in range(200)])
    first = take(other)
    take(queue).ack()
    first.nack()

    seen = []
    with gevent.Timeout(10.0):
        while b"000" not in seen:
            with take(queue) as item:
                seen.append(item.data)
            gevent.sleep(0.02)

    assert len(seen) < 80  # and not behind all others


def test_many_at_once_are_all_in_the_queue_in_their_order_or_none(queue: Queue) -> None:
    keys = queue.put_many(iter([b"1", b"2", b"3"]))

    assert len(set(keys)) == 3
    assert [take(queue).key for _ in keys] == keys
    assert queue.put_many([]) == []
    with pytest.raises(TypeError):
        queue.put_many([b"4", "5"])  # type: ignore[list-item]
    assert queue.get(timeout=0) is None


# What an item says.


def test_an_item_is_claimed_then_acked(queue: Queue, other: Queue) -> None:
    key = queue.put(b"1", 7)
    item = take(queue)

    assert (item.data, item.key, item.priority) == (b"1", key, 7)
    assert (item.deliveries, item.redelivered, item.held) == (1, False, True)
    assert item.state is ItemState.HELD and not item.lost.is_set()
    assert other.get(timeout=0) is None
    assert queue.size() == 1

    item.ack()

    assert not item.held and repr(item) == f"<Item {key} of {PATH}, acked>"
    assert queue.size() == 0 and nodes(queue.client, "claims") == []
    item.ack()
    assert not item.nack()


def test_an_item_that_comes_again_says_so_and_its_token_grows(queue: Queue, other: Queue) -> None:
    queue.put(b"1")
    tokens = []
    for delivery in range(1, 5):
        item = take(queue if delivery % 2 else other)
        tokens.append(item.token)
        assert (item.deliveries, item.redelivered) == (delivery, delivery > 1)
        assert item.nack() and item.state is ItemState.RETURNED and not item.held

    assert tokens == sorted(set(tokens))


def test_who_has_given_an_item_back_cannot_ack_it(queue: Queue) -> None:
    queue.put(b"1")
    item = take(queue)
    assert item.nack()

    with pytest.raises(ItemLost, match=rf"^queue {PATH}: item {item.key} was lost: .*nack"):
        item.ack()
    assert not item.nack()
    assert drain(queue) == [b"1"]


def test_a_block_acks_at_its_end(queue: Queue) -> None:
    queue.put_many([b"1", b"2", b"3"])

    with take(queue) as item:
        assert item.held
    assert item.state is ItemState.ACKED
    with take(queue) as item:
        item.ack()
    with take(queue) as item:
        item.nack()

    assert drain(queue) == [b"3"]


@pytest.mark.parametrize("error", [KeyError, gevent.Timeout, gevent.GreenletExit])
def test_a_block_that_raises_gives_the_item_back(queue: Queue, error: type[BaseException]) -> None:
    queue.put(b"1")

    with pytest.raises(error), take(queue) as item:
        raise error

    assert item.state is ItemState.RETURNED
    assert take(queue).deliveries == 2


def test_an_item_given_back_with_a_delay_comes_when_that_is_over(queue: Queue) -> None:
    queue.put_many([b"1", b"2"])
    assert take(queue).nack(delay=0.3)

    assert take(queue).data == b"2"
    assert queue.get(timeout=0.1) is None
    assert take(queue).data == b"1"


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_a_delay_that_is_none_is_refused(queue: Queue, delay: float) -> None:
    queue.put(b"1")
    item = take(queue)

    with pytest.raises(ValueError, match="delay"):
        item.nack(delay)
    assert item.held


@pytest.mark.parametrize("data", [b"", b"\n", b"a\n", b"\0\xff", b'{"sepelib": "lock"}'])
def test_data_come_out_as_they_went_in_and_are_never_empty_on_the_server(
    queue: Queue, data: bytes
) -> None:
    queue.put(data)

    [name] = nodes(queue.client, "100")
    # Or a collector of locks, which leave empty nodes, would remove it.
    assert queue.client.get(f"{PATH}/100/{name}")[0] not in (b"", b'{"sepelib": "lock"}')
    assert drain(queue) == [data]


def test_an_item_that_comes_back_too_often_is_put_aside(client: Client, other: Queue) -> None:
    queue = Queue(client, PATH, max_deliveries=2)
    key = queue.put(b"poison", 7)
    queue.put(b"good")
    for _ in range(2):
        with pytest.raises(KeyError), take(queue):
            raise KeyError

    assert take(queue).data == b"good"
    dead = take(queue.dead)
    assert (dead.data, dead.key, dead.priority) == (b"poison", key, 7)
    dead.ack()
    eventually(lambda: len(nodes(client, "claims")) == 1)  # that of the good one
    assert other.size() == 1


# Time.


def test_no_time_at_all_is_one_look(queue: Queue) -> None:
    assert queue.get(timeout=0) is None
    queue.put(b"1")
    assert queue.get(timeout=0) is not None
    assert queue.get(timeout=0) is None


def test_a_get_ends_when_its_time_is_over_and_leaves_nothing(queue: Queue, zookeeper: Any) -> None:
    assert queue.get(timeout=0.1) is None
    queue.put(b"1")
    held = take(queue)
    assert queue.get(timeout=0.1) is None

    held.ack()
    assert not nodes(queue.client, "line")


def test_a_get_waits_until_something_is_put(queue: Queue, other: Queue) -> None:
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(other.client, "line"))
    assert not waiting.ready()

    other.put(b"1", 5)

    item = waiting.get(timeout=5.0)
    assert item is not None and item.data == b"1"
    eventually(lambda: not nodes(other.client, "line"))


def test_a_get_waits_until_what_others_hold_comes_back(queue: Queue, other: Queue) -> None:
    other.put(b"1")
    held = take(other)
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(other.client, "line"))

    held.nack()

    assert waiting.get(timeout=5.0).deliveries == 2


def test_a_get_waits_until_what_its_own_queue_holds_comes_back(queue: Queue) -> None:
    queue.put(b"1")
    held = take(queue)
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(queue.client, "line"))

    held.nack()

    assert waiting.get(timeout=5.0).deliveries == 2


def test_a_get_obeys_the_deadline_of_its_caller(queue: Queue) -> None:
    check_obeys_deadline(queue.get)
    with deadline(0.1), pytest.raises(DeadlineExceeded):
        queue.get(timeout=5.0)
    with deadline(5.0):
        assert queue.get(timeout=0.05) is None
    eventually(lambda: is_clean(queue))


def test_a_block_whose_deadline_is_over_acks_all_the_same(queue: Queue) -> None:
    queue.put(b"1")

    with pytest.raises(DeadlineExceeded), deadline(0.05), take(queue):
        gevent.sleep(0.1)

    eventually(lambda: queue.size() == 0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_timeout_that_is_none_is_refused(queue: Queue, timeout: Any) -> None:
    queue.put(b"1")
    item = take(queue)
    for call in (queue.get, queue.size, item.ack, lambda timeout: queue.put(b"", timeout=timeout)):
        with pytest.raises((ValueError, TypeError), match="timeout"):
            call(timeout)
    assert item.held


def test_a_put_without_an_answer_says_whether_it_may_be_done(faulty: Queue, proxy: Any) -> None:
    proxy.hold_replies()
    with pytest.raises(ZookeeperTimeout, match=f"queue {PATH}") as caught:
        faulty.put(b"1", timeout=0.2)
    assert caught.value.maybe_executed
    proxy.refuse()
    proxy.cut()
    faulty.client.session.wait(SessionState.SUSPENDED, 5.0)
    with pytest.raises(ZookeeperTimeout) as caught:
        faulty.put(b"2", timeout=0.2)
    assert not caught.value.maybe_executed
    proxy.heal()

    eventually(lambda: faulty.client.session.state is SessionState.CONNECTED)
    assert drain(faulty) == [b"1"]


def test_an_ack_without_an_answer_goes_on(faulty: Queue, proxy: Any, other: Queue) -> None:
    faulty.put(b"1")
    item = take(faulty)
    proxy.hold_requests()
    with pytest.raises(ZookeeperTimeout):
        item.ack(timeout=0.1)
    assert item.state is ItemState.ACKING and not item.held
    proxy.heal()

    item.ack(timeout=5.0)
    assert other.size() == 0


# Sharing.


def test_many_greenlets_of_one_queue_get_each_item_once(queue: Queue) -> None:
    greenlets = [gevent.spawn(take, queue) for _ in range(20)]
    eventually(lambda: nodes(queue.client, "line"))
    assert len(nodes(queue.client, "line")) == 1  # one of them stands for all

    queue.put_many([b"%d" % number for number in range(20)])
    items = [it.get(timeout=10.0) for it in greenlets]

    assert sorted(int(item.data) for item in items) == list(range(20))
    assert {item.deliveries for item in items} == {1}


def test_what_another_greenlet_has_listed_and_left_is_found_by_the_one_that_waits(
    queue: Queue, other: Queue
) -> None:
    assert other.get(timeout=0.05) is None
    before = other.client.create(f"{PATH}/line/0__wait__", ephemeral=True, sequence=True)
    waiting = gevent.spawn(take, queue)
    eventually(lambda: len(nodes(other.client, "line")) == 2)
    gevent.sleep(0.05)  # it waits for the one before it

    other.put_many([b"1", b"2"])
    assert take(queue, 0).data == b"1"
    other.client.delete(before)

    assert waiting.get(timeout=3.0).data == b"2"


def test_a_thread_may_ask_whether_an_item_is_held_and_nothing_else(queue: Queue) -> None:
    queue.put(b"1")
    item = take(queue)
    seen: list[Any] = []

    def look() -> None:
        seen.append(item.held)
        for call in (item.ack, item.nack, queue.get, queue.size, lambda: queue.put(b"")):
            try:
                call()
            except ZookeeperMisused as error:
                seen.append(type(error))

    gevent.get_hub().threadpool.apply(look)

    assert seen == [True] + [ZookeeperMisused] * 5
    assert item.held


# Refusals.


@pytest.mark.parametrize(
    ("data", "priority", "error"),
    [
        ("text", 100, TypeError),
        (None, 100, TypeError),
        (b"", "1", TypeError),
        (b"", -1, ValueError),
        (b"", 1000, ValueError),
        (b"x" * 2**20, 100, ValueError),
    ],
)
def test_what_cannot_be_put_is_refused_at_once(
    data: Any, priority: Any, error: type[Exception]
) -> None:
    queue = Queue(Client("127.0.0.1:1"), PATH)
    with pytest.raises(error):
        queue.put(data, priority)


def test_the_largest_item_goes_through_and_one_byte_more_is_refused(queue: Queue) -> None:
    overhead = 128 + len(f"{queue.client.chroot}{PATH}/100")
    largest = 0xFFFFF - 2 * overhead - 1
    queue.put(b"x" * largest)

    assert len(take(queue).data) == largest
    with pytest.raises(ValueError, match="its name"):
        queue.put(b"x" * (largest + 1))


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "/a\0"])
def test_a_path_that_names_no_node_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Queue(Client("127.0.0.1:1"), path)


def test_a_plain_client_of_kazoo_and_a_senseless_limit_are_refused(client: Client) -> None:
    with pytest.raises(ZookeeperMisused, match=r"sepelib\.zookeeper\.Client"):
        Queue(KazooClient(), PATH)
    with pytest.raises(ValueError, match="max_deliveries"):
        Queue(client, PATH, max_deliveries=0)


def test_a_stopped_client_is_said_at_once(queue: Queue) -> None:
    queue.put(b"1")
    item = take(queue)
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(queue.client, "line"))

    queue.client.stop()

    with pytest.raises(ZookeeperMisused, match="stopped"):
        waiting.get(timeout=5.0)
    with pytest.raises(ZookeeperMisused, match="stopped"):
        queue.put(b"2")
    with pytest.raises(ItemLost):
        item.ack()


def test_a_queue_that_cannot_be_made_is_no_endless_wait(client: Client) -> None:
    client.create("/ephemeral", ephemeral=True)
    queue = Queue(client, "/ephemeral/queue")

    for call in (queue.get, lambda: queue.put(b"1", timeout=10.0)):
        with pytest.raises(ZookeeperError, match=r"^queue /ephemeral/queue"):
            call()


def test_the_error_of_a_lost_item_can_be_copied_and_pickled() -> None:
    error = ItemLost(PATH, "key", "gone")
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(same) == str(error)
        assert (same.path, same.item, same.reason) == (PATH, "key", "gone")


# What it costs.


def packets(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_packets_received"])


def test_a_put_costs_one_request_and_a_get_with_its_ack_three(queue: Queue, zookeeper: Any) -> None:
    queue.put(b"first")
    take(queue).ack()
    queue.put(b"second")
    gevent.sleep(0.05)  # the client's janitor has had its first look at the directory
    before = packets(zookeeper)
    for _ in range(50):
        queue.put(b"x")
    put = packets(zookeeper)
    for _ in range(50):
        take(queue).ack()
    got = packets(zookeeper)

    assert put - before <= 50 + 2  # the question itself, perhaps a ping
    assert got - put <= 150 + 5  # and the listing


def test_costs_stay_the_same_in_the_long_run(queue: Queue, zookeeper: Any) -> None:
    """Longer than what is kept for the next call is kept when there is none."""
    queue.put_many([b"x"] * 200)
    end = time.monotonic() + 1.3
    while time.monotonic() < end:
        queue.put(b"x")
        take(queue).ack()
        gevent.sleep(0.02)
    before = packets(zookeeper)
    calls = 30
    for _ in range(calls):
        queue.put(b"x")
        take(queue).ack()
        gevent.sleep(0.02)

    assert packets(zookeeper) - before <= 4 * calls + 10  # a listing or two, pings


def test_those_who_wait_cost_nothing_when_one_is_woken(zookeeper: Any, other: Queue) -> None:
    queues = [Queue(zookeeper.client(timeout=20.0), PATH) for _ in range(8)]
    waiting = [gevent.spawn(take, queue) for queue in queues]
    eventually(lambda: len(nodes(other.client, "line")) == 8)
    other.put(b"first")
    gevent.wait(waiting, timeout=5.0, count=1)
    gevent.sleep(0.1)
    before = packets(zookeeper)

    other.put(b"second")
    gevent.sleep(0.3)

    assert sum(it.ready() for it in waiting) == 2
    assert packets(zookeeper) - before <= 12


def test_an_idle_queue_has_neither_watches_nor_nodes_on_the_server(
    queue: Queue, client: Client, zookeeper: Any
) -> None:
    queue.put(b"1", 5)
    take(queue).ack()
    for _ in range(5):
        assert queue.get(timeout=0.01) is None

    def left() -> int:
        mntr = zookeeper.mntr()
        return int(mntr["zk_watch_count"]) + int(mntr["zk_ephemerals_count"])

    eventually(lambda: left() == 0)
    assert not client._data_watchers and not client._child_watchers
    assert client._janitor.pending() == 0


def test_metrics_tell_what_becomes_of_items(zookeeper: Any) -> None:
    recorder = MemoryRecorder()
    client = zookeeper.client(timeout=20.0, recorder=recorder)
    queue = Queue(client, PATH, max_deliveries=1, path_class="mail")
    queue.put_many([b"1", b"2"])
    take(queue).ack()
    take(queue).nack()
    assert queue.get(timeout=0) is None
    queue.put(b"3")
    held = take(queue)

    assert recorder.series("zk_queue_put") == {("mail",): 3.0}
    assert recorder.series("zk_queue_got") == {("mail",): 3.0}
    assert recorder.series("zk_queue_held") == {("mail",): 1.0}
    ends = {end: count for (_, end), count in recorder.series("zk_queue_ended").items() if count}
    assert ends == {"acked": 1.0, "given back": 1.0, "dead": 1.0}
    held.ack()


# Faults.


@pytest.mark.parametrize("operation", ["multi", "create"])
def test_a_put_whose_answer_is_lost_puts_once_even_if_it_is_taken_at_once(
    zookeeper: Any, proxy: Any, other: Queue, operation: str
) -> None:
    queue = Queue(zookeeper.client(hosts=proxy.hosts, timeout=SESSION), PATH)
    if operation == "multi":
        queue.put(b"first")
        take(queue).ack()
    keys = []

    def process() -> None:
        with take(other) as item:
            keys.append(item.key)

    processing = gevent.spawn(process)
    eventually(lambda: nodes(other.client, "line"))

    with proxy.lose_answer_to(operation):
        key = queue.put(b"1")

    processing.get(timeout=5.0)
    assert keys == [key]
    assert other.get(timeout=0.2) is None


@pytest.mark.parametrize("processed", [False, True])
def test_a_put_whose_answer_and_session_are_lost_is_looked_for_and_not_doubled(
    faulty: Queue, proxy: Any, zookeeper: Any, other: Queue, processed: bool
) -> None:
    with proxy.lose_answer_to("multi", then="hold"):
        putting = gevent.spawn(faulty.put, b"1")
        eventually(lambda: other.size() == 1)
        if processed:
            take(other).ack()
        zookeeper.expire(faulty.client)
    proxy.heal()

    if processed:
        with pytest.raises(SessionLost, match=f"^queue {PATH}: .*processed already, or"):
            putting.get(timeout=10.0)
    else:
        assert take(other).key == putting.get(timeout=10.0)
    assert other.get(timeout=0.1) is None


@pytest.mark.parametrize(
    ("operation", "waits"),
    [(op, waits) for op in ("multi", "get", "get_children") for waits in (False, True)]
    + [("create", True)],
)
def test_a_get_whose_answer_is_lost_gets_the_item_once(
    faulty: Queue, proxy: Any, other: Queue, operation: str, waits: bool
) -> None:
    if not waits:
        other.put(b"1")
    with proxy.lose_answer_to(operation):
        getting = gevent.spawn(take, Queue(faulty.client, PATH))
        if waits:
            gevent.sleep(0.15)
            other.put(b"1")
        item = getting.get(timeout=10.0)

    assert item.held and not item.redelivered
    assert other.get(timeout=0) is None
    item.ack()
    assert other.size() == 0
    eventually(lambda: is_clean(other))


@pytest.mark.parametrize("then", ["cut", "hold"])
def test_an_ack_whose_answer_is_lost_is_done_once(
    faulty: Queue, proxy: Any, other: Queue, then: Any
) -> None:
    other.put(b"1")
    item = take(faulty)
    with proxy.lose_answer_to("multi", then=then):
        item.ack(timeout=10.0)

    assert item.state is ItemState.ACKED
    assert other.size() == 0 and is_clean(other)


def test_an_ack_whose_answer_and_session_are_lost_says_that_nobody_knows(
    faulty: Queue, proxy: Any, zookeeper: Any, other: Queue
) -> None:
    other.put(b"1")
    item = take(faulty)
    with proxy.lose_answer_to("multi", then="hold"):
        acking = gevent.spawn(item.ack)
        eventually(lambda: other.size() == 0)
        zookeeper.expire(faulty.client)
    proxy.heal()

    with pytest.raises(ItemLost, match="before the ack was answered"):
        acking.get(timeout=10.0)


def test_a_nack_whose_answer_is_lost_gives_back_and_nothing_else(
    faulty: Queue, proxy: Any, other: Queue
) -> None:
    other.put(b"1")
    item = take(faulty)
    waiting = gevent.spawn(take, other)
    eventually(lambda: nodes(other.client, "line"))

    with proxy.lose_answer_to("multi"):
        assert item.nack()

    taken = waiting.get(timeout=5.0)
    gevent.sleep(0.3)  # the nack was repeated meanwhile, and must not hit the other's claim
    assert taken.held
    taken.ack()
    assert taken.deliveries == 2


@pytest.mark.parametrize("waits", [False, True])
def test_a_get_killed_at_any_yield_leaves_no_claim_and_no_place(
    client: Client, other: Queue, waits: bool
) -> None:
    yields, got = 0, None
    other.put(b"0", 5)
    while got is None:
        yields += 1
        if waits:
            held = take(other)
            gevent.spawn_later(0.02, held.nack)
        error = gevent.Timeout if yields % 2 else gevent.GreenletExit
        got = killed_at_yield(yields, error, Queue(client, PATH).get)
        if got is not None:
            got.nack()
        eventually(lambda: is_clean(other))
        assert take(other).nack()

    assert yields >= (9 if waits else 4)
    assert drain(other) == [b"0"]


@pytest.mark.parametrize("operation", ["multi", "get", "get_children", "create"])
@pytest.mark.parametrize("then", ["cut", "hold"])
def test_a_get_killed_while_an_answer_is_lost_leaves_nothing(
    faulty: Queue, proxy: Any, other: Queue, operation: str, then: Any
) -> None:
    if operation != "create":  # that of the line
        other.put(b"1")
    with proxy.lose_answer_to(operation, then=then):
        getting = gevent.spawn(faulty.get)
        gevent.sleep(0.05)
        getting.kill(gevent.Timeout, timeout=1.0)
        assert getting.ready()
    proxy.heal()

    if isinstance(getting.value, Item):  # it was there already
        getting.value.nack()
    if operation == "create":
        other.put(b"1")
    eventually(lambda: is_clean(other))
    assert take(other).data == b"1"


def test_a_put_killed_at_any_yield_puts_once_or_not(client: Client, other: Queue) -> None:
    yields, key = 0, None
    while key is None:
        yields += 1
        queue = Queue(client, PATH)
        key = killed_at_yield(yields, gevent.GreenletExit, queue.put, b"%d" % yields)
    queue.put(b"last")

    found = Counter(drain(other))
    assert yields > 3
    assert found[b"last"] == 1 and set(found.values()) == {1}
    eventually(lambda: not nodes(other.client, "puts"))


@pytest.mark.parametrize("method", ["ack", "nack"])
def test_an_ack_or_nack_killed_at_any_yield_is_done(
    queue: Queue, other: Queue, method: str
) -> None:
    for yields in range(1, 3):
        queue.put(b"1")
        item = take(queue)
        killed_at_yield(yields, gevent.Timeout, getattr(item, method))

        eventually(lambda: is_clean(other))
        assert item.state is (ItemState.ACKED if method == "ack" else ItemState.RETURNED)
        assert len(drain(other)) == (method == "nack")


@pytest.mark.parametrize("method", ["ack", "nack"])
def test_an_ack_or_nack_that_is_killed_is_done(
    faulty: Queue, proxy: Any, other: Queue, method: str
) -> None:
    other.put(b"1")
    item = take(faulty)
    with proxy.lose_answer_to("multi", then="hold"):
        ending = gevent.spawn(getattr(item, method))
        gevent.sleep(0.05)
        ending.kill()
    proxy.refuse()
    proxy.cut()
    proxy.heal()

    eventually(lambda: is_clean(other))
    assert other.size() == (0 if method == "ack" else 1)


def test_a_consumer_whose_session_ends_knows_and_another_has_the_item_at_once(
    zookeeper: Any, other: Queue
) -> None:
    queue = Queue(zookeeper.client(timeout=SESSION), PATH)
    queue.put_many([b"1", b"2"])
    item = take(queue)
    waiting = [gevent.spawn(take, other) for _ in range(2)]
    gevent.wait(waiting, timeout=5.0, count=1)

    zookeeper.expire(queue.client)

    again = next(it.get() for it in gevent.iwait(waiting, 5.0) if it.get().data == b"1")
    assert again.redelivered and again.token > item.token
    assert item.lost.wait(5.0) and not item.held and item.state is ItemState.LOST
    with pytest.raises(ItemLost, match="another consumer"):
        item.ack()
    assert not item.nack()
    gevent.sleep(0.2)  # what the loser cleans up
    assert again.held
    again.ack()


def test_a_consumer_cut_off_knows_before_another_has_the_item(
    zookeeper: Any, proxy: Any, other: Queue
) -> None:
    queue = Queue(zookeeper.client(hosts=proxy.hosts, timeout=1.0), PATH)
    queue.put(b"1")
    item = take(queue)

    proxy.hold()
    again = take(other)

    assert not item.held
    again.ack()
    proxy.heal()
    with pytest.raises(ItemLost):
        item.ack(timeout=10.0)


def test_a_consumer_that_was_frozen_knows_before_anybody_tells_it(zookeeper: Any) -> None:
    queue = Queue(zookeeper.client(timeout=0.4), PATH)
    queue.put(b"1")
    item = take(queue)

    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass  # the hub has no turn

    assert not item.held


def test_a_claim_that_an_operator_has_deleted_is_found_by_the_ack(
    queue: Queue, other: Queue
) -> None:
    queue.put(b"1")
    item = take(queue)
    [claim] = nodes(queue.client, "claims")
    transaction = other.client.transaction()
    transaction.delete(f"{PATH}/claims/{claim}")
    transaction.delete(f"{PATH}/100/{nodes(queue.client, '100')[0]}/claim")
    transaction.commit()

    again = take(other)
    with pytest.raises(ItemLost, match="claim is gone"):
        item.ack()
    assert item.lost.is_set() and again.held


def test_an_item_that_an_operator_has_deleted_leaves_no_claim(queue: Queue, other: Queue) -> None:
    queue.put(b"1")
    item = take(queue)
    other.client.delete(f"{PATH}/100", recursive=True)

    with pytest.raises(ItemLost):
        item.ack()

    eventually(lambda: is_clean(other))
    queue.put(b"2")
    assert drain(queue) == [b"2"]


def test_a_queue_whose_directories_are_removed_goes_on(queue: Queue, other: Queue) -> None:
    queue.put(b"1")
    assert drain(queue) == [b"1"]
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(other.client, "line"))

    for kind in ("100", "claims"):
        other.client.delete(f"{PATH}/{kind}")
    other.put(b"2")

    assert waiting.get(timeout=5.0).data == b"2"


def test_a_get_waits_on_over_a_lost_connection_and_a_lost_session(
    zookeeper: Any, proxy: Any, other: Queue
) -> None:
    queue = Queue(zookeeper.client(hosts=proxy.hosts, timeout=SESSION), PATH)
    waiting = gevent.spawn(take, queue)
    eventually(lambda: nodes(other.client, "line"))

    proxy.cut()
    eventually(lambda: queue.client.session.state is SessionState.CONNECTED)
    zookeeper.expire(queue.client)
    eventually(lambda: queue.client.session.epoch == 2)
    eventually(lambda: nodes(other.client, "line"))
    other.put(b"1")

    assert waiting.get(timeout=5.0).data == b"1"


def test_a_restart_of_the_server_loses_nothing(zookeeper: Any, queue: Queue) -> None:
    queue.put_many([b"1", b"2"])
    held = take(queue)
    waiting = [gevent.spawn(take, queue, 30.0) for _ in range(2)]
    eventually(lambda: sum(it.ready() for it in waiting) == 1)

    zookeeper.kill()
    putting = gevent.spawn(queue.put, b"3")
    gevent.sleep(0.1)
    zookeeper.start()

    putting.get(timeout=20.0)
    items = [it.get(timeout=20.0) for it in waiting]
    assert sorted(item.data for item in items) == [b"2", b"3"]
    for item in (held, *items):
        item.ack(timeout=10.0)
    assert queue.size() == 0


CONSUMER = """
import sys, gevent
from sepelib.zookeeper import Client, Queue
client = Client(sys.argv[1], timeout=1.0)
client.start()
queue = Queue(client, sys.argv[2])
item = queue.get()
gevent.sleep(60)
"""


def test_the_item_of_a_consumer_killed_with_9_comes_back(zookeeper: Any, other: Queue) -> None:
    other.put_many([b"1", b"2"])
    with subprocess.Popen([sys.executable, "-c", CONSUMER, zookeeper.hosts, PATH]) as consumer:
        try:
            eventually(lambda: nodes(other.client, "claims"), 20.0)
        finally:
            os.kill(consumer.pid, signal.SIGKILL)

    waiting = gevent.spawn(take, other)
    assert waiting.get(timeout=10.0).data == b"2"
    item = take(other)
    assert (item.data, item.deliveries) == (b"1", 2)
    item.ack()


def test_under_expiries_and_lost_answers_every_item_is_processed_and_acked_once(
    zookeeper: Any, proxy: Any, other: Queue
) -> None:
    hosts = [proxy.hosts, zookeeper.hosts]
    clients = [zookeeper.client(hosts=hosts[i % 2], timeout=SESSION) for i in range(5)]
    processed, acked, unknown, put = Counter[str](), Counter[str](), Counter[str](), set[str]()
    calm = done = False

    def produce(number: int) -> None:
        queue = Queue(clients[number % 5], PATH)
        count = 0
        while not calm:
            count += 1
            with contextlib.suppress(SessionLost):
                put.add(queue.put(b"%d-%d" % (number, count), count % 3, timeout=30.0))
            gevent.sleep(0.02)

    def consume(number: int) -> None:
        queue = Queue(clients[number % 5], PATH)
        while not done:
            item = queue.get(timeout=0.2)
            if item is None:
                continue
            processed[item.key] += 1
            try:
                item.ack(timeout=30.0)
                acked[item.key] += 1
            except ItemLost as error:
                unknown[item.key] += "before the ack was answered" in error.reason

    consumers = [gevent.spawn(consume, number) for number in range(10)]
    producers = [gevent.spawn(produce, number) for number in range(5)]
    for number in range(5):
        with proxy.lose_answer_to("multi") as loss:
            loss.wait()
        gevent.sleep(0.1)
        zookeeper.expire(clients[number])
    calm = True
    gevent.joinall(producers, timeout=30.0, raise_error=True)
    eventually(lambda: other.size() == 0, 30.0)
    done = True
    gevent.joinall(consumers, timeout=30.0, raise_error=True)

    assert len(put) > 50 and put <= set(processed)
    assert max(acked.values()) == 1
    assert put <= set(acked) | set(unknown)
    eventually(lambda: is_clean(other))
