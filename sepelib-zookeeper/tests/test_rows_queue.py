"""What a queue must get right under faults: one case for each known way of getting it wrong.

They run against kazoo's Queue and LockingQueue too, where they fail: `./dev peers`.
"""

from typing import Any

import gevent
import pytest
from kazoo.exceptions import ConnectionLoss

PATH = "/mail"


class Consumer:
    """A queue of the flavour, with the least that all of them offer."""

    def __init__(self, flavour: Any, client: Any, *, locking: bool = False) -> None:
        self.client = client
        self._ours = flavour.name == "ours"
        self._locking = locking
        self._queue = self._make()
        self._item: Any = None

    def _make(self) -> Any:
        if not self._ours:
            kind = self.client.LockingQueue if self._locking else self.client.Queue
            return kind(PATH)
        from sepelib.zookeeper import Queue

        return Queue(self.client, PATH)

    def put(self, data: bytes, priority: int = 100) -> None:
        self._queue.put(data, priority)

    def get(self, timeout: float = 0.0) -> bytes | None:
        """The data of an item."""
        if not self._ours:
            got = self._queue.get(timeout) if self._locking else self._queue.get()
            return None if got is None else bytes(got)
        self._item = self._queue.get(timeout)
        return None if self._item is None else bytes(self._item.data)

    def consume(self) -> None:
        if self._ours:
            self._item.ack()
        else:
            self._queue.consume()

    def size(self) -> int:
        return int(self._queue.size()) if self._ours else len(self._queue)


@pytest.mark.peer("kazoo", "QUEUE-GET")
def test_an_item_whose_get_has_lost_an_answer_is_not_lost(
    zookeeper: Any, proxy: Any, flavour: Any
) -> None:
    consumer = Consumer(flavour, flavour.client(proxy.hosts))
    other = Consumer(flavour, flavour.client(zookeeper.hosts))
    consumer.put(b"1")

    with proxy.lose_answer_to("multi" if flavour.name == "ours" else "delete"):
        found = flavour.within(5.0, consumer.get, otherwise="get() hangs")

    assert found or other.get(), "nobody has got the item, and it is not in the queue"


@pytest.mark.peer("kazoo", "QUEUE-GET")
def test_an_item_whose_consumer_fails_is_given_to_another(zookeeper: Any, flavour: Any) -> None:
    consumer = Consumer(flavour, flavour.client(zookeeper.hosts))
    other = Consumer(flavour, flavour.client(zookeeper.hosts))
    consumer.put(b"1")
    assert consumer.get() == b"1"

    zookeeper.expire(consumer.client)

    assert other.get() == b"1", "the item went with its consumer"


@pytest.mark.peer("kazoo", "QUEUE-STALE")
def test_an_urgent_item_overtakes_what_a_consumer_has_listed_already(
    zookeeper: Any, flavour: Any
) -> None:
    consumer = Consumer(flavour, flavour.client(zookeeper.hosts))
    producer = Consumer(flavour, flavour.client(zookeeper.hosts))
    for data in (b"1", b"2", b"3"):
        producer.put(data)
    assert consumer.get() == b"1"

    producer.put(b"urgent", 1)

    assert consumer.get() == b"urgent", "the urgent item waits for those that were listed before"


@pytest.mark.peer("kazoo", "QUEUE-PUT")
def test_an_item_whose_put_has_lost_its_answer_is_in_the_queue_once(
    zookeeper: Any, proxy: Any, flavour: Any
) -> None:
    producer = Consumer(flavour, flavour.client(proxy.hosts))
    producer.put(b"first")

    with proxy.lose_answer_to("multi" if flavour.name == "ours" else "create"):
        try:
            producer.put(b"1")
        except ConnectionLoss:
            flavour.eventually(
                lambda: flavour.connected(producer.client), 5.0, "it did not reconnect"
            )
            producer.put(b"1")  # as every caller would

    assert producer.size() == 2, "the item is in the queue twice"


@pytest.mark.peer("kazoo", "LOCKINGQUEUE-HANG")
def test_a_get_that_waits_goes_on_after_a_reconnect(
    zookeeper: Any, proxy: Any, flavour: Any
) -> None:
    consumer = Consumer(flavour, flavour.client(proxy.hosts), locking=True)
    producer = Consumer(flavour, flavour.client(zookeeper.hosts), locking=True)
    getting = flavour.spawn(consumer.get, 20.0)
    gevent.sleep(0.2)

    proxy.cut()
    flavour.eventually(lambda: not flavour.connected(consumer.client), 2.0, "no cut")
    flavour.eventually(lambda: flavour.connected(consumer.client), 5.0, "it did not reconnect")
    producer.put(b"1")

    assert flavour.result(getting, 3.0, "get() waits for ever") == b"1"


@pytest.mark.peer("kazoo", "LOCKINGQUEUE-EXPIRY")
def test_an_item_that_was_lost_and_is_done_by_another_is_not_got_again(
    zookeeper: Any, flavour: Any
) -> None:
    consumer = Consumer(flavour, flavour.client(zookeeper.hosts), locking=True)
    other = Consumer(flavour, flavour.client(zookeeper.hosts), locking=True)
    consumer.put(b"1")
    assert consumer.get(5.0) == b"1"

    zookeeper.expire(consumer.client)
    assert other.get(5.0) == b"1"
    other.consume()

    again = flavour.within(5.0, consumer.get, 0.3, otherwise="get() hangs")
    assert again is None, "get() gives an item that another consumer has consumed"


@pytest.mark.peer("kazoo", "LOCKINGQUEUE-EXPIRY")
def test_who_has_lost_an_item_is_told_so_when_it_is_done(zookeeper: Any, flavour: Any) -> None:
    consumer = Consumer(flavour, flavour.client(zookeeper.hosts), locking=True)
    other = Consumer(flavour, flavour.client(zookeeper.hosts), locking=True)
    consumer.put(b"1")
    assert consumer.get(5.0) == b"1"
    zookeeper.expire(consumer.client)
    assert other.get(5.0) == b"1"
    other.consume()
    flavour.eventually(lambda: flavour.connected(consumer.client), 5.0, "no new session")

    said = "nothing"
    try:
        flavour.within(5.0, consumer.consume, otherwise="it hangs")
    except Exception as error:
        said = f"{type(error).__name__} {error}"
    assert "another consumer" in said, f"what it says of an item that was lost: {said}"


@pytest.mark.peer("kazoo", "LOCKINGQUEUE-WATCHES")
def test_an_empty_get_leaves_no_watch(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    consumer = Consumer(flavour, client, locking=True)
    for _ in range(20):
        assert consumer.get(0.01) is None

    kept = sum(len(functions) for functions in client._child_watchers.values())
    assert kept <= 4, f"{kept} functions are kept after 20 empty calls"
