"""Puts items into one queue, gets them, claims them, and says that they are done, or not."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Protocol

import gevent
from kazoo.exceptions import KazooException

from soak.libraries import Library
from soak.recipes.base import Context, Driver, Struck

__all__ = ["Consumer"]

_PATH = "/soak/queue"
_PUTS = (0.4, 1.6)  # seconds between two
_GET = 2.0  # seconds that a get waits
_PERIOD = 0.02  # seconds between two claims
_PRIORITIES = (50, 100, 100, 100, 200)
_REFUSED = 0.15  # of all items: given back


class Item(Protocol):
    data: bytes

    def node(self) -> str:
        """What it is called in ZooKeeper; the same for each delivery."""

    def held(self) -> bool: ...

    def ack(self) -> str:
        """What has become of it: "acked", "lost" to others, or "unsure"."""

    def nack(self) -> bool: ...


class Queue(Protocol):
    def put(self, data: bytes, priority: int) -> None: ...

    def get(self, timeout: float) -> Item | None: ...


def queue(library: Library) -> Queue:
    return (_Sepelib if library.name == "sepelib" else _Kazoo)(library.client)


class Consumer(Driver):
    """And producer."""

    def __init__(self, context: Context) -> None:
        super().__init__("queue", context)
        self._taken = 0

    def run(self) -> None:
        putting = gevent.spawn(self._put, queue(self.context.library))
        own = queue(self.context.library)
        while not self.resting:
            self._process(own, _GET)
        putting.join()
        # What is still there is somebody's; what one has given back oneself is there again.
        while self._process(own, 1.0):
            pass

    def _put(self, own: Queue) -> None:
        while not self.resting:
            n = f"{self.me}.{self.attempt()}"
            priority = self.rng.choice(_PRIORITIES)
            self.write("put", n)
            try:
                self.strike(partial(own.put, n.encode(), priority))
            except Struck as e:
                self.write("struck", n, how=e.how, took=e.took)
            except self.context.library.failed as e:
                self.write("unsure", n, error=repr(e))
            except Exception as e:
                self.raised(n, "put", e)
            else:
                self.write("stored", n)
            self.pause(*_PUTS)

    def _process(self, own: Queue, timeout: float) -> bool:
        """False when there was nothing."""
        n = self.attempt()
        self.write("acquire", n, timeout=timeout)
        try:
            item = self.strike(lambda: own.get(timeout))
        except Struck as e:
            self.write("struck", n, how=e.how, took=e.took)
            return True
        except Exception as e:
            self.raised(n, "get", e)
            return True
        if item is None:
            self.write("missed", n)
            return False
        self._taken += 1
        # Among the items in hand the newest is the holder that faults prefer.
        token = time.monotonic_ns()
        self.write("granted", n, token=token, item=item.data.decode(), node=item.node())
        held = True
        for _ in range(self.rng.randint(1, 30)):
            t = time.monotonic()
            held = item.held()
            self.write("claim", n, t=t, token=token, held=held)
            if not held:
                break
            gevent.sleep(_PERIOD)
        self._end(item, n, token)
        return True

    def _end(self, item: Item, n: str, token: int) -> None:
        """One that was lost is acknowledged too: it must not count."""
        done = self.rng.random() >= _REFUSED
        if done:
            self.write("ack", n)
        began = time.monotonic()
        try:
            how = item.ack() if done else "nacked" if item.nack() else "lost"
        except self.context.library.failed:
            how = "unsure" if done else "lost"
        except Exception as e:
            how = "unsure" if done else "lost"
            self.raised(n, "ack", e)
        self.write("release", n, t=began, token=token, took=time.monotonic() - began, how=how)


class _Sepelib:
    def __init__(self, client: Any) -> None:
        from sepelib.zookeeper import Queue

        self._queue = Queue(client, _PATH)

    def put(self, data: bytes, priority: int) -> None:
        self._queue.put(data, priority)

    def get(self, timeout: float) -> Item | None:
        item = self._queue.get(timeout)
        return None if item is None else _SepelibItem(item)


class _SepelibItem:
    def __init__(self, item: Any) -> None:
        self.data: bytes = item.data
        self._item = item

    def node(self) -> str:
        return str(self._item._claim.item)

    def held(self) -> bool:
        return bool(self._item.held)

    def ack(self) -> str:
        from sepelib.zookeeper import ZookeeperTimeout
        from sepelib.zookeeper.queue import ItemLost

        try:
            self._item.ack()
        except ItemLost as e:
            return "unsure" if "before the ack was answered" in e.reason else "lost"
        except ZookeeperTimeout:
            return "unsure"
        return "acked"

    def nack(self) -> bool:
        return bool(self._item.nack())


class _Kazoo:
    """Its LockingQueue: the other one loses what its consumer dies with by design."""

    def __init__(self, client: Any) -> None:
        self._queue = client.LockingQueue(_PATH)

    def put(self, data: bytes, priority: int) -> None:
        self._queue.put(data, priority)

    def get(self, timeout: float) -> Item | None:
        data = self._queue.get(timeout)
        return None if data is None else _KazooItem(self._queue, data)


class _KazooItem:
    def __init__(self, queue: Any, data: bytes) -> None:
        self.data = data
        self._queue = queue
        self._node = queue.processing_element[0]

    def node(self) -> str:
        return str(self._node)

    def held(self) -> bool:
        try:
            return bool(self._queue.holds_lock())
        except KazooException:
            return False

    def ack(self) -> str:
        return "acked" if self._queue.consume() else "lost"

    def nack(self) -> bool:
        return bool(self._queue.release())
