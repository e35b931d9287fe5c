"""Acquire and release of a semaphore on a real ZooKeeper, beside kazoo's own one.

Needs Java and ZooKeeper (Debian: libzookeeper-java). Requests are those that the server counts.
"""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import gevent

from benchmarks.runner import Comparison, Goal, Variant
from benchmarks.zookeeper import PAIRS, Kazoo, Library, Ours, Server, create_and_delete, paths
from sepelib.zookeeper import Semaphore

CONTENDERS, LEASES, LAPS = 20, 4, 3


def comparisons() -> list[Comparison]:
    server = Server()
    ours, kazoo = server.library(Ours()), server.library(Kazoo())
    our_crowd = Crowd(server, ours, our_pair)
    kazoo_crowd = Crowd(server, kazoo, kazoo_pair)
    return [
        Comparison(
            "zookeeper: requests of a semaphore's acquire + release",
            requests(server, alone(ours, our_pair)),
            {"kazoo": requests(server, alone(kazoo, kazoo_pair)), "four": lambda: 4.0},
            goals=[Goal("four", 1.01)],  # pings are counted too
            clocked=False,
            unit="requests",
        ),
        Comparison(
            "zookeeper: a semaphore's acquire + release",
            alone(ours, our_pair),
            {
                "kazoo": alone(kazoo, kazoo_pair),
                "create + delete, kazoo": create_and_delete(kazoo),
            },
            goals=[Goal("kazoo", 0.5)],
        ),
        Comparison(
            f"zookeeper: {CONTENDERS} contenders on {LEASES} leases, {LAPS} times each",
            our_crowd.laps,
            {"kazoo": kazoo_crowd.laps},
            goals=[Goal("kazoo", 1.0)],
        ),
        Comparison(
            f"zookeeper: requests of each of them there, {CONTENDERS} on {LEASES} leases",
            our_crowd.requests,
            {"kazoo": kazoo_crowd.requests},
            goals=[Goal("kazoo", 1.0)],
            clocked=False,
            unit="requests",
        ),
    ]


Maker = Callable[[Any, str, int], Variant]


def our_pair(client: Any, path: str, leases: int) -> Variant:
    semaphore = Semaphore(client, path, max_leases=leases)

    def pair() -> None:
        lease = semaphore.acquire()
        gevent.sleep(0)
        assert lease is not None
        lease.release()

    return pair


def kazoo_pair(client: Any, path: str, leases: int) -> Variant:
    semaphore = client.Semaphore(path, max_leases=leases)

    def pair() -> None:
        semaphore.acquire()
        gevent.sleep(0)
        semaphore.release()

    return pair


def alone(library: Library, make: Maker) -> Variant:
    [client] = library.clients(1)
    pair = make(client, next(paths), 1)
    pair()  # what is done once by each object
    return pair


def requests(server: Server, pair: Variant) -> Variant:
    def counted() -> float:
        before = server.requests()
        for _ in repeat(None, PAIRS):
            pair()
        return (server.requests() - 1 - before) / PAIRS

    return counted


class Crowd:
    """Contenders with a session each, who all want a lease a number of times."""

    def __init__(self, server: Server, library: Library, make: Maker) -> None:
        self._server = server
        path = next(paths)
        self._pairs = [make(client, path, LEASES) for client in library.clients(CONTENDERS)]
        for pair in self._pairs:
            pair()

    def laps(self) -> None:
        greenlets = [gevent.spawn(partial(repeated, pair)) for pair in self._pairs]
        gevent.joinall(greenlets, raise_error=True)

    def requests(self) -> float:
        before = self._server.requests()
        self.laps()
        return (self._server.requests() - 1 - before) / (CONTENDERS * LAPS)


def repeated(pair: Variant) -> None:
    for _ in repeat(None, LAPS):
        pair()
