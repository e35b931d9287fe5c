"""A queue of items on a real ZooKeeper, beside kazoo's Queue and LockingQueue.

kazoo's Queue removes an item when it is got: what a consumer had when it failed is lost. Its
LockingQueue claims an item, as ours does.

Requests are those that the server counts.
"""

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any, Protocol

import gevent

from benchmarks.runner import Comparison, Goal, Variant
from benchmarks.zookeeper import Kazoo, Library, Ours, Server, paths
from sepelib.zookeeper import Queue

ITEMS = 50  # in one sample
FULL = 10_000  # items in a full queue
CONSUMERS = 10
IDLE = 20  # consumers that wait
HANDED = 10  # items that are put one after another for those who wait
DATA = b"x" * 100


class Kind(Protocol):
    """One implementation of a queue: how it is used for an item."""

    library: Library

    def make(self, client: Any, path: str) -> Any: ...
    def put(self, queue: Any) -> None: ...
    def fill(self, queue: Any, number: int) -> None: ...
    def take(self, queue: Any, timeout: float) -> bool: ...


class OurKind:
    def __init__(self, library: Library) -> None:
        self.library = library

    def make(self, client: Any, path: str) -> Any:
        return Queue(client, path)

    def put(self, queue: Any) -> None:
        queue.put(DATA)

    def fill(self, queue: Any, number: int) -> None:
        while number > 0:
            queue.put_many([DATA] * min(number, 1000))
            number -= 1000

    def take(self, queue: Any, timeout: float) -> bool:
        item = queue.get(timeout)
        if item is None:
            return False
        item.ack()
        return True


class KazooQueue:
    def __init__(self, library: Library) -> None:
        self.library = library

    def make(self, client: Any, path: str) -> Any:
        return client.Queue(path)

    def put(self, queue: Any) -> None:
        queue.put(DATA)

    def fill(self, queue: Any, number: int) -> None:
        self.put(queue)  # makes the paths
        for _ in range(0, number - 1, 1000):
            transaction = queue.client.transaction()
            for _ in repeat(None, min(number - 1, 1000)):
                path = f"{queue._entries_path}/{self.prefix}"
                transaction.create(path, DATA, sequence=True)
            transaction.commit()

    prefix = "entry-100-"

    def take(self, queue: Any, timeout: float) -> bool:
        return queue.get() is not None


class KazooLockingQueue(KazooQueue):
    def make(self, client: Any, path: str) -> Any:
        return client.LockingQueue(path)

    def take(self, queue: Any, timeout: float) -> bool:
        return queue.get(timeout) is not None and queue.consume()


def comparisons() -> list[Comparison]:
    server = Server()
    library = server.library(Kazoo())
    ours = OurKind(server.library(Ours()))
    plain, locking = KazooQueue(library), KazooLockingQueue(library)
    kinds: dict[str, Kind] = {"kazoo's Queue": plain, "kazoo's LockingQueue": locking}

    def peers(make: Callable[[Kind], Variant]) -> dict[str, Variant]:
        return {name: make(kind) for name, kind in kinds.items()}

    return [
        Comparison(
            "zookeeper queue: requests of a put",
            requests(server, puts(ours)),
            {**peers(lambda kind: requests(server, puts(kind))), "one": lambda: 1.0},
            goals=[Goal("one", 1.05)],  # pings are counted too
            clocked=False,
            unit="requests",
        ),
        Comparison(
            "zookeeper queue: requests of get + ack",
            requests(server, Backlog(ours).takes),
            {**peers(lambda kind: requests(server, Backlog(kind).takes)), "three": lambda: 3.0},
            # A listing for all of them too.
            goals=[Goal("three", 1.05), Goal("kazoo's LockingQueue", 5 / 7)],
            clocked=False,
            unit="requests",
        ),
        Comparison(
            f"zookeeper queue: {ITEMS} puts",
            clocked(puts(ours)),
            peers(lambda kind: clocked(puts(kind))),
            clocked=False,
        ),
        Comparison(
            f"zookeeper queue: {ITEMS} times get + ack",
            clocked(Backlog(ours).takes),
            peers(lambda kind: clocked(Backlog(kind).takes)),
            goals=[Goal("kazoo's LockingQueue", 1.0)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper queue: {ITEMS} times get + ack, {FULL} items in the queue",
            clocked(Backlog(ours, FULL).takes),
            {
                "kazoo's Queue": clocked(Backlog(plain, FULL).takes),
                "kazoo's LockingQueue": clocked(Backlog(locking, FULL, once=5).takes),
            },
            goals=[Goal("kazoo's LockingQueue", 1.0)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper queue: {CONSUMERS * ITEMS} items by {CONSUMERS} consumers",
            Crowd(ours).drain,
            {"kazoo's LockingQueue": Crowd(locking).drain},
            goals=[Goal("kazoo's LockingQueue", 1.0)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper queue: requests for an item put while {IDLE} consumers wait",
            Idle(server, ours).requests,
            {"kazoo's LockingQueue": Idle(server, locking).requests},
            goals=[Goal("kazoo's LockingQueue", 1.0)],
            clocked=False,
            unit="requests",
        ),
    ]


Work = Callable[[], "tuple[Callable[[], object], int]"]
"""Prepares a sample: gives what is to be measured, and how many items that is about."""


def clocked(work: Work) -> Variant:
    """Seconds for ITEMS items."""

    def sample() -> float:
        run, number = work()
        began = time.perf_counter()
        run()
        return (time.perf_counter() - began) * ITEMS / number

    return sample


def requests(server: Server, work: Work) -> Variant:
    """Requests for one item."""

    def sample() -> float:
        run, number = work()
        before = server.requests()
        run()
        return (server.requests() - 1 - before) / number

    return sample


def puts(kind: Kind) -> Work:
    [client] = kind.library.clients(1)
    queue = kind.make(client, next(paths))

    def work() -> tuple[Callable[[], object], int]:
        kind.put(queue)  # makes what a first put has to make

        def run() -> None:
            for _ in repeat(None, ITEMS):
                kind.put(queue)

        return run, ITEMS

    return work


class Backlog:
    """A queue in which *items* wait, of which each sample takes *once* from one consumer."""

    def __init__(self, kind: Kind, items: int = 0, once: int = ITEMS) -> None:
        self._kind = kind
        self._items = items
        self._once = once
        self._queue: Any = None

    def takes(self) -> tuple[Callable[[], object], int]:
        if self._queue is None:
            [client] = self._kind.library.clients(1)
            self._queue = self._kind.make(client, next(paths))
            self._kind.fill(self._queue, max(self._items, 1))
        self._kind.fill(self._queue, self._once)

        def run() -> None:
            for _ in repeat(None, self._once):
                if not self._kind.take(self._queue, 5.0):
                    raise RuntimeError("an item is missing")

        return run, self._once


class Crowd:
    """Consumers that empty a queue together."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._queues: list[Any] = []

    def drain(self) -> float:
        if not self._queues:
            path = next(paths)
            clients = self._kind.library.clients(CONSUMERS)
            self._queues = [self._kind.make(client, path) for client in clients]
        self._kind.fill(self._queues[0], CONSUMERS * ITEMS)
        left = [CONSUMERS * ITEMS]
        began = time.perf_counter()
        gevent.joinall([gevent.spawn(self._work, queue, left) for queue in self._queues])
        return time.perf_counter() - began

    def _work(self, queue: Any, left: list[int]) -> None:
        while left[0] > 0:
            taken = self._kind.take(queue, 0.05)  # others take some meanwhile
            left[0] -= taken


class Idle:
    """Consumers that wait at an empty queue; each takes an item and waits again."""

    def __init__(self, server: Server, kind: Kind) -> None:
        self._server = server
        self._kind = kind
        self._queues: list[Any] = []
        self._taken = 0

    def requests(self) -> float:
        if not self._queues:
            path = next(paths)
            clients = self._kind.library.clients(IDLE)
            self._queues = [self._kind.make(client, path) for client in clients]
            for queue in self._queues:
                self._kind.library.spawn(self._work, queue)
            gevent.sleep(0.5)
        before = self._server.requests()
        for _ in repeat(None, HANDED):
            number = self._taken
            self._kind.put(self._queues[0])
            while self._taken == number:
                gevent.sleep(0.001)
            gevent.sleep(0.02)  # until all are in their places again
        return (self._server.requests() - 1 - before) / HANDED

    def _work(self, queue: Any) -> None:
        while True:
            taken = self._kind.take(queue, 3600.0)
            self._taken += taken
