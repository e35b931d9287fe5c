import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from sepelib.mongo import MockDatabase, Sequence, mock_database
from sepelib.mongo._engine import find_engine

LIMIT = 60.0  # seconds, for what should take far less

# Connected, with a sequence of its own; says so, and goes on when it is told to.
PROLOGUE = """
import gevent.monkey; gevent.monkey.patch_all()
import json, os, sys, warnings
import gevent, mongoengine
from pymongo.monitoring import CommandListener
from sepelib.mongo import Sequence

class Gate(CommandListener):
    # Holds the greenlet that has asked before it gets the answer.
    closed = False
    asked = 0

    def started(self, event): ...

    def succeeded(self, event):
        if event.command_name == "findAndModify" and self.closed:
            self.asked += 1
            while self.closed:
                gevent.sleep(0.01)

    def failed(self, event): ...

    def until_asked(self, count=1):
        with gevent.Timeout(20, AssertionError("nobody asks")):
            while self.asked < count:
                gevent.sleep(0.01)

gate = Gate()
uri, name, block_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = mongoengine.connect(name, host=uri, uuidRepresentation="standard", event_listeners=[gate])
tickets = Sequence("tickets", block_size=block_size)

def say(value):
    print(json.dumps(value), flush=True)

def ready():
    client.admin.command("ping")
    say("ready")
    sys.stdin.readline()

def crowd(*calls):
    greenlets = [gevent.spawn(call) for call in calls]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]
"""

TAKE = """
ready()
say(crowd(*[lambda: [tickets.next() for _ in range(50)]] * 4))
"""

# The rest of the block that a process has is nobody's after a fork.
FORK = """
ready()
mine = [tickets.next() for _ in range(3)]
read, write = os.pipe()
pid = os.fork()
if not pid:
    mongoengine.disconnect()
    mongoengine.connect(name, host=uri, uuidRepresentation="standard")
    theirs = [tickets.next() for _ in range(12)]
    os.write(write, json.dumps(theirs).encode())
    os._exit(0)
os.close(write)
mine += [tickets.next() for _ in range(12)]
theirs = json.loads(os.read(read, 65536))
_, status = os.waitpid(pid, 0)
assert status == 0, status
say([mine, theirs])
"""

# Forks of a process whose other threads are in the middle of everything; natively, as gevent's
# greenlets would run on in the child.
FORK_AMONG_THREADS = """
import os, sys, threading, json, warnings
warnings.simplefilter("ignore")     # pymongo says that its client is older than the process

import mongoengine
from sepelib.mongo import Sequence

uri, name, block_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
mongoengine.connect(name, host=uri, uuidRepresentation="standard")
tickets = Sequence("tickets", block_size=block_size)
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
ended = threading.Event()
taken = [[] for _ in range(4)]

def work(ids):
    while not ended.is_set():
        ids.append(tickets.next())

threads = [threading.Thread(target=work, args=(ids,)) for ids in taken]
for thread in threads:
    thread.start()
for _ in range(10):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        mongoengine.disconnect()
        mongoengine.connect(name, host=uri, uuidRepresentation="standard")
        os.write(write, json.dumps([tickets.next() for _ in range(15)]).encode())
        os._exit(0)
    os.close(write)
    taken.append(json.loads(os.read(read, 65536)))
    os.waitpid(pid, 0)
ended.set()
for thread in threads:
    thread.join()
print(json.dumps(taken), flush=True)
"""

# A greenlet asks, the process forks, and the copy of the greenlet in the child gets the answer.
FORK_WHILE_ASKING = """
warnings.simplefilter("ignore")     # pymongo says that its client is older than the process
ready()
tickets.reserve(2)
gate.closed = True
asking = [gevent.spawn(tickets.next) for _ in range(5)]
asking.append(gevent.spawn(lambda: tickets.reserve(1)[0]))
# All that ask are there: of one socket, parent and child could not both read.
gate.until_asked(6 if block_size == 1 else 2)
read, write = os.pipe()
pid = os.fork()
gate.closed = False
gevent.joinall(asking)
mine = [greenlet.value for greenlet in asking] + [tickets.next() for _ in range(5)]
if not pid:
    os.write(write, json.dumps(mine).encode())
    os._exit(0)
os.close(write)
theirs = json.loads(os.read(read, 65536))
os.waitpid(pid, 0)
say([mine, theirs])
"""

# Whoever fills the block is killed; those who wait get theirs.
KILL_THE_ASKER = """
ready()
tickets.reserve(1)
gate.closed = True
waiters = [gevent.spawn(tickets.next) for _ in range(20)]
gate.until_asked()
assert gate.asked == 1
gevent.kill(waiters[0])
gate.closed = False
gevent.joinall(waiters, raise_error=False)
assert isinstance(waiters[0].value, gevent.GreenletExit), waiters[0]
say([[waiter.value for waiter in waiters[1:]]])
"""

# Others run while one asks and others wait.
HUB = """
ready()
gate.closed = True
askers = [gevent.spawn(tickets.next) for _ in range(20)]
gate.until_asked()
steps = 0
while steps < 50 and gate.asked == 1:
    gevent.sleep(0.002)
    steps += 1
gate.closed = False
gevent.joinall(askers, raise_error=True)
say([[asker.value for asker in askers], steps])
"""


class Child:
    def __init__(self, code: str, database: MockDatabase, block_size: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *arguments(database), str(block_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.wait(LIMIT)
        return json.loads(line)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def arguments(database: MockDatabase) -> list[str]:
    uri, _, options = database.uri.partition("?")
    assert uri.endswith(database.name)
    return [f"{uri.removesuffix(database.name)}?{options}", database.name]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.end()


def results(
    children: list[Child], code: str, database: MockDatabase, block_size: int, count: int = 1
) -> list[Any]:
    """What *count* processes say that begin at once."""
    for _ in range(count):
        children.append(Child(code, database, block_size))
    for child in children:
        assert child.answer() == "ready"
    for child in children:
        child.go()
    return [child.answer() for child in children]


def all_of(lists: list[list[int]]) -> list[int]:
    return sorted(number for ids in lists for number in ids)


@pytest.mark.parametrize("block_size", [1, 7])
def test_eight_processes_of_four_greenlets_begin_at_once_and_share_no_id(
    mongo_db: MockDatabase, children: list[Child], block_size: int
) -> None:
    got = results(children, PROLOGUE + TAKE, mongo_db, block_size, count=8)

    ids = all_of([ids for process in got for ids in process])
    assert len(set(ids)) == len(ids) == 8 * 4 * 50
    last = Sequence("tickets").last()
    assert last is not None and last - len(ids) <= 8 * (block_size - 1)
    assert all(ids == sorted(ids) for process in got for ids in process)
    assert mongo_db.db["sepelib.sequences"].count_documents({}) == 1


@pytest.mark.parametrize("block_size", [1, 10])
def test_a_forked_child_drops_the_block(
    mongo_db: MockDatabase, children: list[Child], block_size: int
) -> None:
    [[mine, theirs]] = results(children, PROLOGUE + FORK, mongo_db, block_size)

    assert len({*mine, *theirs}) == 27
    if block_size == 10:
        assert mine[:10] == list(range(1, 11))  # the parent keeps it
        assert min(theirs) > 10


@pytest.mark.parametrize("block_size", [1, 10])
def test_a_child_forked_while_other_threads_count_has_locks_of_its_own(
    mongo_db: MockDatabase, children: list[Child], block_size: int
) -> None:
    [taken] = results(children, FORK_AMONG_THREADS, mongo_db, block_size)

    ids = all_of(taken)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("block_size", [1, 10])
def test_an_answer_that_parent_and_child_both_have_is_that_of_the_parent(
    mongo_db: MockDatabase, children: list[Child], block_size: int
) -> None:
    [[mine, theirs]] = results(children, PROLOGUE + FORK_WHILE_ASKING, mongo_db, block_size)

    assert len({*mine, *theirs}) == len(mine) + len(theirs) == 22


def test_when_the_one_who_asks_is_killed_the_others_get_their_ids(
    mongo_db: MockDatabase, children: list[Child]
) -> None:
    [[ids]] = results(children, PROLOGUE + KILL_THE_ASKER, mongo_db, 100)

    assert sorted(ids) == list(range(102, 121))  # the first block is lost with the asker


def test_the_hub_runs_while_greenlets_ask_and_wait(
    mongo_db: MockDatabase, children: list[Child]
) -> None:
    [[ids, steps]] = results(children, PROLOGUE + HUB, mongo_db, 10)

    assert sorted(ids) == list(range(1, 21))
    assert steps == 50  # of a greenlet that has nothing to do with it


def test_no_id_comes_twice_when_the_server_is_killed_in_between() -> None:
    with mock_database(engine=find_engine().name, alias="crashing", durable=True) as db:
        assert db.server is not None
        one = Sequence("one", db_alias="crashing")
        ten = Sequence("ten", db_alias="crashing", block_size=10)
        taken: dict[str, list[int]] = {"one": [], "ten": []}
        ended = threading.Event()

        def work(sequence: Sequence) -> None:
            while not ended.is_set():
                try:
                    taken[sequence.name].append(sequence.next())
                except PyMongoError:
                    time.sleep(0.01)

        workers = [
            threading.Thread(target=work, args=(sequence,), daemon=True)
            for sequence in (one, ten)
            for _ in range(5)
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in range(3):
                enough = len(taken["one"]) + 200
                limit = time.monotonic() + LIMIT
                while len(taken["one"]) < enough:
                    assert time.monotonic() < limit
                    time.sleep(0.01)
                db.server.kill()
                db.server.start()
        finally:
            ended.set()
            for worker in workers:
                worker.join(LIMIT)
        for ids in taken.values():
            assert len(ids) > 600 and len(set(ids)) == len(ids)
