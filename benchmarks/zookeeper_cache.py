"""A TreeCache of 10,000 nodes on a real ZooKeeper, beside kazoo's own.

Needs Java and ZooKeeper (Debian: libzookeeper-java). Each cache lives in a process of its own, one
after the other; one process gives all figures of a round. A figure says something only beside the
other of the same run.

Watches are counted by the server, memory is what the process has grown by while it read.
"""

import atexit
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from itertools import count

from benchmarks.runner import Comparison, Goal
from sepelib.zookeeper import Client
from sepelib.zookeeper.testing import ZookeeperServer

DIRECTORIES, LEAVES = 100, 99  # and the root: 10,001 nodes
DATA = b"x" * 100
RUNS = 9  # of each library at most; later rounds take the figures of these again

CHILD = """
import gc, json, socket, sys, time
import gevent
from gevent.event import Event
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler
from sepelib.zookeeper import Client

library, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
hosts = f"{host}:{port}"
if library == "sepelib":
    from sepelib.zookeeper import TreeCache, TreeEventType
    INITIALIZED, UPDATED = TreeEventType.INITIALIZED, TreeEventType.NODE_UPDATED
    client = Client(hosts, 30.0)
    writer = Client(hosts, 30.0)
else:
    from kazoo.recipe.cache import TreeCache, TreeEvent
    INITIALIZED, UPDATED = TreeEvent.INITIALIZED, TreeEvent.NODE_UPDATED
    client = KazooClient(hosts, 30.0, handler=SequentialGeventHandler())
    writer = Client(hosts, 30.0)
client.start()
writer.start()

def watches():
    with socket.create_connection((host, port)) as asking:
        asking.sendall(b"mntr")
        answer = b""
        while data := asking.recv(65536):
            answer += data
    lines = answer.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("zk_watch_count"))

def megabytes():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

read, seen = Event(), set()
wanted, told = 0, Event()

def listen(event):
    if event.event_type == INITIALIZED:
        read.set()
    elif event.event_type == UPDATED:
        seen.add(event.event_data.path)
        if len(seen) == wanted:
            told.set()

before = watches(), megabytes()
cache = TreeCache(client, "/tree")
cache.listen(listen)
began = time.perf_counter()
if library == "sepelib":
    cache.start_async()
else:
    cache.start()
assert read.wait(300.0)
figures = {"warm": time.perf_counter() - began}
assert cache.get_data("/tree/99/98").stat.version >= 0
figures["watches"], figures["MB"] = watches() - before[0], megabytes() - before[1]

latencies = []
for number in range(100):
    seen.clear()
    told.clear()
    wanted = 1
    began = time.perf_counter()
    writer.set_async(f"/tree/{number}/0", b"y" * 100)
    assert told.wait(60.0)
    latencies.append(time.perf_counter() - began)
figures["update"] = sorted(latencies)[len(latencies) // 2]

seen.clear()
told.clear()
wanted = 1000
began = time.perf_counter()
for number in range(10):
    for leaf in range(100):
        path = f"/tree/{leaf}/{number + 10}"
        result = writer.set_async(path, b"z" * 100)
    result.get()
assert told.wait(60.0)
figures["burst"] = time.perf_counter() - began
print(json.dumps(figures))
cache.close()
client.stop()
writer.stop()
"""


def comparisons() -> list[Comparison]:
    ours, kazoo = Runs("sepelib"), Runs("kazoo")

    def compare(name: str, figure: str, at_most: float) -> Comparison:
        return Comparison(
            f"zookeeper: TreeCache of 10,000 nodes, {name}",
            ours.figure(figure),
            {"kazoo": kazoo.figure(figure)},
            goals=[Goal("kazoo", at_most)],
            clocked=False,
            unit={"watches": "watches", "MB": "MB"}.get(figure, ""),
        )

    return [
        compare("time to read them", "warm", 0.5),
        compare("watches on the server", "watches", 0.001),
        compare("memory", "MB", 0.5),
        compare("time until one update is told", "update", 1.0),
        compare("time until 1,000 updates in one burst are told", "burst", 1.0),
    ]


class Runs:
    """The figures of one library, run by run."""

    def __init__(self, library: str) -> None:
        self._library = library
        self.run = cache(self._run)

    def figure(self, name: str) -> Callable[[], float]:
        return partial(self._next, count(), name)

    def _next(self, rounds: "count[int]", name: str) -> float:
        return self.run(next(rounds) % RUNS)[name]

    def _run(self, number: int) -> dict[str, float]:
        host, port = server().address
        command = [sys.executable, "-c", CHILD, self._library, host, str(port)]
        done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        figures: dict[str, float] = json.loads(done.stdout)
        return figures


@cache
def server() -> ZookeeperServer:
    """With the tree."""
    made = ZookeeperServer()
    atexit.register(made.close)
    made.start()
    with Client(made.hosts, 30.0) as client:
        client.create("/tree", DATA)
        for number in range(DIRECTORIES):
            client.create(f"/tree/{number}", DATA)
            results = [
                client.create_async(f"/tree/{number}/{leaf}", DATA) for leaf in range(LEAVES)
            ]
            for result in results:
                result.get()
    return made
