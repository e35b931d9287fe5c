"""A Queue under lost answers, kills, the ends of sessions, and operators."""

import contextlib
import gc
import os
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

from sepelib.zookeeper import (
    Client,
    Queue,
    SessionLost,
    SessionState,
    ZookeeperTimeout,
)
from sepelib.zookeeper._call import Call
from sepelib.zookeeper._queue_claims import Refusal
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


def greenlets() -> list[Any]:
    found = (it for it in gc.get_objects() if isinstance(it, gevent.Greenlet))
    return [it for it in found if not it.dead]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("method", ["ack", "nack"])
def test_a_kill_of_all_greenlets_ends_no_claim_halfway(
    queue: Queue, other: Queue, method: str, begun: bool
) -> None:
    queue.put(b"1")
    item = take(queue)
    before = greenlets()
    ending = gevent.spawn(getattr(item, method))
    gevent.sleep(0)
    if begun:
        gevent.sleep(0)
    started = [it for it in greenlets() if it not in before and it is not ending]
    assert started
    gevent.killall(started, block=False)

    ending.get(timeout=5.0)
    assert item.state is (ItemState.ACKED if method == "ack" else ItemState.RETURNED)
    eventually(lambda: is_clean(other))
    assert len(drain(other)) == (method == "nack")


def test_a_put_that_was_not_sent_yet_is_not_said_to_be_done_perhaps(
    zookeeper: Any, proxy: Any
) -> None:
    queue = Queue(zookeeper.client(hosts=proxy.hosts, timeout=SESSION), PATH)
    with (
        proxy.lose_answer_to("create", containing=b"/puts/", then="hold"),
        pytest.raises(ZookeeperTimeout) as caught,
    ):
        queue.put(b"1", timeout=0.3)  # it comes no further than to its slot
    assert not caught.value.maybe_executed


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


def test_a_claim_that_an_operator_has_deleted_by_half_keeps_the_item_from_nobody(
    queue: Queue, other: Queue
) -> None:
    queue.put(b"1")
    for kind in ("ack", "nack"):
        item = take(queue)
        other.client.delete(f"{PATH}/claims/{nodes(queue.client, 'claims')[0]}")
        with pytest.raises(ItemLost) if kind == "ack" else contextlib.nullcontext():
            getattr(item, kind)()
        again = take(other, 2.0)
        assert again.data == b"1"
        again.nack()


def test_an_ack_that_the_servers_refuse_gives_the_item_back(
    queue: Queue, other: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.put(b"1")
    item = take(queue)
    other.client.create(f"{PATH}/100/{nodes(queue.client, '100')[0]}/foreign")

    with pytest.raises(ItemLost, match="refuse"):
        item.ack()

    assert "NotEmptyError" in caplog.text
    assert take(other, 2.0).data == b"1"


def test_a_refusal_older_than_the_latest_listing_of_claims_hides_nothing(
    faulty: Queue, proxy: Any, other: Queue
) -> None:
    """Of two greenlets of one queue the one hears a refusal while the other lists the claims."""
    faulty.put(b"1")
    held, view = take(other), faulty._view
    with view, Call(faulty.client, PATH, "queue", 5.0) as call:
        refused = view.pick(call)
        assert refused is not None
        view.tried(refused, Refusal.TAKEN)
        assert held.nack()
        proxy.hold_replies()
        looking = gevent.spawn(take, faulty, 2.0)
        eventually(lambda: view._looking)
        view.tried(refused, Refusal.TAKEN)
        proxy.heal()

        assert looking.get(timeout=5.0).data == b"1"


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


def lose_an_answer(proxy: Any) -> None:
    """Of a transaction that gets one: the end of a session may come before it."""
    lost = False
    while not lost:
        with proxy.lose_answer_to("multi") as loss, contextlib.suppress(TimeoutError):
            loss.wait(timeout=2.0)
            lost = True


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
        lose_an_answer(proxy)
        gevent.sleep(0.1)
        eventually(lambda: clients[number].session.state is SessionState.CONNECTED)  # noqa: B023
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
