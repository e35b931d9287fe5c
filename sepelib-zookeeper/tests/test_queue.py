"""The contract of Queue: order, time, what an item tells, what it costs."""

import copy
import pickle
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder, check_obeys_deadline
from sepelib.zookeeper import (
    Client,
    Queue,
    SessionState,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper.queue import Item, ItemLost, ItemState
from sepelib.zookeeper.testing import ZookeeperServer

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

    with pytest.raises(ZookeeperTimeout) as caught, deadline(0.05), take(queue):
        gevent.sleep(0.1)
    assert caught.value.maybe_executed

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


def test_many_greenlets_that_do_not_wait_find_what_there_is(queue: Queue) -> None:
    queue.put_many([b"x"] * 10)

    looking = [gevent.spawn(queue.get, 0) for _ in range(11)]

    items = [it.get(timeout=10.0) for it in looking]
    assert sum(item is not None for item in items) == 10


def test_who_does_not_wait_does_not_wait_for_one_that_waits_for_a_connection(
    faulty: Queue, proxy: Any
) -> None:
    proxy.refuse()
    proxy.cut()
    assert faulty.client.session.wait(SessionState.SUSPENDED, 5.0)
    looking = gevent.spawn(faulty.get, 5.0)
    gevent.sleep(0.05)

    with gevent.Timeout(1.0):
        assert faulty.get(timeout=0) is None

    looking.kill()


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


def test_the_largest_item_goes_through_and_one_byte_more_is_refused(client: Client) -> None:
    """The largest can be moved to the dead, too, which takes a longer request."""
    queue = Queue(client, PATH, max_deliveries=1)
    largest = 0xFFFFF - 4 * (128 + len(f"{client.chroot}{PATH}/100")) - 1
    queue.put(b"x" * largest)

    assert take(queue).nack()
    assert queue.get(timeout=0) is None
    assert len(take(queue.dead).data) == largest
    assert client.session.epoch == 1
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


# What it costs, and what it leaves.


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
        gevent.sleep(0.005)

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
    with pytest.raises(ZookeeperMisused):
        gevent.get_hub().threadpool.apply(queue.get)
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


def test_a_queue_that_is_empty_leaves_nothing() -> None:
    with (
        ZookeeperServer(container_check=0.1) as server,
        Client(server.hosts, timeout=20.0) as client,
    ):
        queue = Queue(client, PATH, max_deliveries=1)
        queue.put(b"1")
        take(queue).nack()
        assert queue.get(timeout=0.05) is None
        take(queue.dead).ack()

        eventually(lambda: client.get_children("/") == ["zookeeper"])

        waiting = gevent.spawn(take, queue)
        eventually(lambda: nodes(client, "line"))
        queue.put(b"2")
        assert waiting.get(timeout=5.0).data == b"2"


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

    def ends() -> dict[str, float]:
        return {end: n for (_, end), n in recorder.series("zk_queue_ended").items() if n}

    eventually(lambda: ends() == {"acked": 1.0, "given back": 1.0, "dead": 1.0})
    held.ack()
