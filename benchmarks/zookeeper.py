"""Locks, hand-offs, fail-over and plain requests on a real ZooKeeper, beside kazoo's own classes.

Needs Java and ZooKeeper (Debian: libzookeeper-java). Server and clients share this machine, so a
figure says something only beside the floor or the peer of the same run.

Requests are counted by the server: it sees what a client's own count would miss.
"""

import atexit
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import repeat
from typing import Any, Protocol

import gevent
from gevent.event import Event
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

from benchmarks.runner import Comparison, Goal, Variant
from sepelib.zookeeper import Client, Lock, SingletonService
from sepelib.zookeeper.testing import ZookeeperServer

TIMEOUT = 30.0  # of sessions: so long that hardly a ping falls into what is counted
PAIRS = 50  # of acquire and release, in one sample of requests
GETS = 400  # in one sample
CONTENDERS = 50
LAPS = 4  # of all contenders, in one sample of hand-offs
WAITERS = 30
JOINS = 6  # more round trips than any lock's way into the queue takes
FAILOVERS = 5  # at once
FAILOVER_TIMEOUT = 2.0  # of the sessions that die
TICK = 0.2

# Leads until it is killed, or until its starter is gone.
LEADER = """
import sys
from gevent.fileobject import FileObject

hosts, timeout, path = sys.argv[1], float(sys.argv[2]), sys.argv[3]

def lead(*_):
    print("leading", flush=True)
    FileObject(0, "rb", closefd=False).read()
"""
OUR_LEADER = """
from sepelib.zookeeper import Client, SingletonService

client = Client(hosts, timeout)
client.start()
SingletonService(client, path, lead).run_forever()
"""
KAZOO_LEADER = """
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

client = KazooClient(hosts, timeout, handler=SequentialGeventHandler())
client.start()
client.Election(path).run(lead)
"""

paths = map("/benchmark/{}".format, itertools.count())


def comparisons() -> list[Comparison]:
    server = Server()
    ours, kazoo = server.library(Ours()), server.library(Kazoo())
    return [
        *one_client(server, ours, kazoo),
        two_contenders(server, ours, kazoo),
        Comparison(
            f"zookeeper: requests by {WAITERS} waiters for one release",
            Herd(server, ours, WAITERS).requests,
            {"kazoo": Herd(server, kazoo, WAITERS).requests},
            goals=[Goal("kazoo", 1.0)],
            clocked=False,
            unit="requests",
        ),
        *many_contenders(server, ours, kazoo),
        *successions(ours, kazoo),
    ]


class Server:
    """ZooKeeper, and the connected clients of each library."""

    def __init__(self) -> None:
        self._server = ZookeeperServer(tick_time=round(TICK * 1000))
        self._libraries: list[Library] = []
        self._server.start()
        atexit.register(self._close)  # before what the server itself has registered

    def library(self, library: "Library") -> "Library":
        library.hosts = self._server.hosts
        self._libraries.append(library)
        return library

    def requests(self) -> int:
        """Seen by the server so far, this question too."""
        return int(self._server.mntr()["zk_packets_received"])

    def _close(self) -> None:
        for library in self._libraries:
            library.close()
        self._server.close()


class Leader(Protocol):
    leading: Event
    since: float

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Library:
    """One of the two: its client, its lock, its leader, here and as a process of its own."""

    hosts: str
    leader_process: str

    def __init__(self) -> None:
        self._clients: list[Any] = []
        self._greenlets: list[Any] = []
        self._leaders: list[Leader] = []
        self._locks: list[Any] = []

    def connect(self) -> Any:
        raise NotImplementedError

    def lock(self, client: Any, path: str) -> Any:
        raise NotImplementedError

    def make_leader(self, client: Any, path: str) -> Leader:
        raise NotImplementedError

    def leader(self, client: Any, path: str) -> Leader:
        self._leaders.append(self.make_leader(client, path))
        return self._leaders[-1]

    def clients(self, number: int) -> list[Any]:
        """The same ones each time: as many sessions as contenders, as in a fleet of processes."""
        while len(self._clients) < number:
            client = self.connect()
            client.start()
            self._clients.append(client)
        return self._clients[:number]

    def kept_lock(self, client: Any, path: str) -> Any:
        """Released at the end, since a client that stops with a lock held says that it is lost."""
        self._locks.append(self.lock(client, path))
        return self._locks[-1]

    def spawn(self, call: Callable[..., Any], *args: Any) -> Any:
        self._greenlets.append(gevent.spawn(call, *args))
        return self._greenlets[-1]

    def close(self) -> None:
        for leader in self._leaders:
            leader.close()
        gevent.killall(self._greenlets)
        for lock in self._locks:
            lock.release()
        gevent.joinall([gevent.spawn(client.stop) for client in self._clients], timeout=10.0)


class Ours(Library):
    leader_process = LEADER + OUR_LEADER

    def connect(self) -> Any:
        return Client(self.hosts, TIMEOUT)

    def lock(self, client: Any, path: str) -> Any:
        return Lock(client, path)

    def make_leader(self, client: Any, path: str) -> Leader:
        return OurLeader(client, path)


class Kazoo(Library):
    leader_process = LEADER + KAZOO_LEADER

    def connect(self) -> Any:
        return KazooClient(self.hosts, TIMEOUT, handler=SequentialGeventHandler())

    def lock(self, client: Any, path: str) -> Any:
        return client.Lock(path)

    def make_leader(self, client: Any, path: str) -> Leader:
        return KazooLeader(client, path)


class OurLeader:
    def __init__(self, client: Any, path: str) -> None:
        self.leading = Event()
        self.since = 0.0
        self._service = SingletonService(client, path, self._lead)

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self.leading.clear()
        if not self._service.stop():
            raise RuntimeError(f"{self._service} does not stop")

    def close(self) -> None:
        self._service.stop()

    def _lead(self, leadership: Any) -> None:
        self.since = time.perf_counter()
        self.leading.set()
        leadership.stopping.wait()


class KazooLeader:
    def __init__(self, client: Any, path: str) -> None:
        self.leading = Event()
        self.since = 0.0
        self._asked = Event()
        self._greenlet: Any = None
        self._election = client.Election(path)

    def start(self) -> None:
        self._asked.clear()
        self._greenlet = gevent.spawn(self._election.run, self._lead)

    def stop(self) -> None:
        self.leading.clear()
        self._asked.set()
        self._greenlet.join()

    def close(self) -> None:
        self._greenlet.kill()

    def _lead(self) -> None:
        self.since = time.perf_counter()
        self.leading.set()
        self._asked.wait()


def one_client(server: Server, ours: Library, kazoo: Library) -> list[Comparison]:
    def requests(pair: Variant) -> Variant:
        def counted() -> float:
            before = server.requests()
            for _ in repeat(None, PAIRS):
                pair()
            return (server.requests() - 1 - before) / PAIRS

        return counted

    floor, our_floor = create_and_delete(kazoo), create_and_delete(ours)
    floors = {"create + delete, kazoo": floor, "create + delete, ours": our_floor}
    return [
        Comparison(
            "zookeeper: requests of acquire + release",
            requests(same_object(ours)),
            {"kazoo": requests(same_object(kazoo)), "create + delete": requests(floor)},
            goals=[Goal("kazoo", 0.75)],
            clocked=False,
            unit="requests",
        ),
        Comparison(
            "zookeeper: acquire + release, one object",
            same_object(ours),
            {"kazoo": same_object(kazoo), **floors},
            goals=[Goal("create + delete, kazoo", 1 / 0.65)],
        ),
        Comparison(
            "zookeeper: acquire + release, a new object each time",
            new_object(ours),
            {"kazoo": new_object(kazoo), **floors},
            goals=[Goal("create + delete, kazoo", 1 / 0.65)],
        ),
        Comparison(
            f"zookeeper: {GETS} plain gets",
            gets(ours),
            {"kazoo": gets(kazoo)},
            goals=[Goal("kazoo", 1 / 0.97)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper: CPU of {GETS} plain gets",
            gets(ours, clock=time.process_time),
            {"kazoo": gets(kazoo, clock=time.process_time)},
            clocked=False,
        ),
    ]


def create_and_delete(library: Library) -> Variant:
    """What no lock can do without."""
    [client] = library.clients(1)
    path = next(paths)
    client.ensure_path(path)

    def pair() -> None:
        client.delete(client.create(f"{path}/node", b"", ephemeral=True, sequence=True))

    return pair


def same_object(library: Library) -> Variant:
    [client] = library.clients(1)
    lock = library.lock(client, next(paths))

    def pair() -> None:
        lock.acquire()
        lock.release()

    return pair


def new_object(library: Library) -> Variant:
    [client] = library.clients(1)
    path = next(paths)

    def pair() -> None:
        lock = library.lock(client, path)
        lock.acquire()
        lock.release()

    return pair


def gets(library: Library, clock: Callable[[], float] = time.perf_counter) -> Variant:
    [client] = library.clients(1)
    path = next(paths)
    client.create(path, b"x" * 100, makepath=True)

    def sample() -> float:
        began = clock()
        for _ in repeat(None, GETS):
            client.get(path)
        return clock() - began

    return sample


class Crowd:
    """Contenders that take a lock in turns, over and over; a gate holds it between two samples.

    So a sample begins and ends with all of them in the queue.
    """

    def __init__(self, server: Server, library: Library, contenders: int) -> None:
        self._server = server
        self._library = library
        self._number = contenders
        self._gate: Any = None
        self._freed = 0.0
        self._latencies: list[float] = []
        self._requests: list[float] = []

    def p99(self) -> float:
        """Seconds from a release's beginning to the next one's grant."""
        before = self._server.requests()
        self.laps()
        seen = self._server.requests() - 1 - before
        self._requests.append(seen / len(self._latencies))
        return statistics.quantiles(self._latencies, n=100, method="inclusive")[98]

    def requests(self) -> float:
        """Of one hand-off, in a sample that p99() has taken."""
        return self._requests.pop()

    def laps(self) -> None:
        if self._gate is None:
            self._gather()
        self._latencies.clear()
        for _ in repeat(None, LAPS):
            self._release(self._gate)
            self._acquire(self._gate)

    def _gather(self) -> None:
        first, *others = self._library.clients(self._number + 1)
        path = next(paths)
        self._gate = self._library.kept_lock(first, path)
        self._gate.acquire()
        for client in others:
            self._library.spawn(self._contend, self._library.kept_lock(client, path))
        self._release(self._gate)
        self._acquire(self._gate)

    def _contend(self, lock: Any) -> None:
        while True:
            self._acquire(lock)
            self._release(lock)

    def _acquire(self, lock: Any) -> None:
        lock.acquire()
        self._latencies.append(time.perf_counter() - self._freed)

    def _release(self, lock: Any) -> None:
        self._freed = time.perf_counter()
        lock.release()


def two_contenders(server: Server, ours: Library, kazoo: Library) -> Comparison:
    return Comparison(
        f"zookeeper: {2 * LAPS} hand-offs between 2 contenders",
        Crowd(server, ours, 1).laps,
        {"kazoo": Crowd(server, kazoo, 1).laps},
        goals=[Goal("kazoo", 1.0)],
    )


def many_contenders(server: Server, ours: Library, kazoo: Library) -> list[Comparison]:
    our_crowd, kazoo_crowd = (Crowd(server, library, CONTENDERS) for library in (ours, kazoo))
    return [
        Comparison(
            f"zookeeper: p99 of the hand-offs among {CONTENDERS} contenders",
            our_crowd.p99,
            {"kazoo": kazoo_crowd.p99},
            goals=[Goal("kazoo", 1.0)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper: requests of a hand-off among {CONTENDERS} contenders, in those samples",
            our_crowd.requests,
            {"kazoo": kazoo_crowd.requests, "five": lambda: 5.0},
            goals=[Goal("five", 1.01)],  # pings are counted too
            clocked=False,
            unit="requests",
        ),
    ]


def successions(ours: Library, kazoo: Library) -> list[Comparison]:
    return [
        Comparison(
            "zookeeper: from the clean stop of a leader to the next one's lead",
            Succession(ours).clean_stop,
            {"kazoo's Election": Succession(kazoo).clean_stop, "50 ms": lambda: 0.05},
            goals=[Goal("50 ms", 1.0)],
            clocked=False,
        ),
        Comparison(
            f"zookeeper: from kill -9 of a leader to the next one's lead, the worst of {FAILOVERS}",
            partial(failover, ours),
            {
                "kazoo's Election": partial(failover, kazoo),
                "timeout + 2 ticks": lambda: FAILOVER_TIMEOUT + 2 * TICK,
            },
            goals=[Goal("timeout + 2 ticks", 1.0)],
            clocked=False,
        ),
    ]


class Herd:
    """A holder, and waiters of which each release is to wake one."""

    def __init__(self, server: Server, library: Library, waiters: int) -> None:
        self._server = server
        self._library = library
        self._number = waiters + 1
        self._queue: list[tuple[Any, Any, Any]] = []  # client, lock, greenlet; the holder is first

    def requests(self) -> float:
        """By all waiters, for one release."""
        if not self._queue:
            path = next(paths)
            for client in self._library.clients(self._number):
                self._join(client, self._library.kept_lock(client, path))
        before = self._server.requests()
        client, lock, _ = self._queue.pop(0)
        lock.release()
        self._queue[0][2].get()
        # The first answer comes after the event of a waiter that was woken, the second one after
        # what that waiter has asked then.
        known = [waiting.exists("/") for _ in range(2) for waiting, _, _ in self._queue]
        seen = self._server.requests() - 1 - before
        self._join(client, lock)
        return float(seen - 1 - len(known))  # the other one is the delete

    def _join(self, client: Any, lock: Any) -> None:
        greenlet = self._library.spawn(lock.acquire)
        settle(client)
        self._queue.append((client, lock, greenlet))


class Succession:
    """Two leaders of one path, of which one leads and the other waits."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._pair: list[tuple[Any, Leader]] = []

    def clean_stop(self) -> float:
        """Seconds from the stop of the one to the lead of the other."""
        if not self._pair:
            path = next(paths)
            for client in self._library.clients(2):
                self._pair.append((client, self._library.leader(client, path)))
                self._start(-1)
        self._pair.reverse()
        (_, other), (_, first) = self._pair
        began = time.perf_counter()
        first.stop()
        lead(other)
        self._start(1)
        return other.since - began

    def _start(self, which: int) -> None:
        client, leader = self._pair[which]
        leader.start()
        settle(client)


def settle(client: Any) -> None:
    """Return when what another greenlet has begun with *client* waits for somebody else."""
    for _ in repeat(None, JOINS):
        client.exists("/")


def lead(leader: Leader) -> None:
    if not leader.leading.wait(10 * FAILOVER_TIMEOUT):
        raise RuntimeError(f"no successor leads: {type(leader).__name__}")


@cache
def failover(library: Library) -> float:
    """Seconds from kill -9 of a leading process to its successor's lead, the worst of several.

    Killed right after their first heartbeat, so that the server waits as long as it can.
    """
    path_of = [next(paths) for _ in range(FAILOVERS)]
    processes = [start_leader(library, path) for path in path_of]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "leading\n":
                raise RuntimeError("a leader's process has failed")
        [client] = library.clients(1)
        successors = [library.leader(client, path) for path in path_of]
        for successor in successors:
            successor.start()
        settle(client)
        began = time.perf_counter()
    finally:
        for process in processes:
            process.kill()
    for process in processes:
        process.communicate()
    for successor in successors:
        lead(successor)
        successor.stop()
    return max(successor.since - began for successor in successors)


def start_leader(library: Library, path: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", library.leader_process, library.hosts, str(FAILOVER_TIMEOUT), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
