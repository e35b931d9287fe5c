"""find_and_modify by many greenlets (threads in the plain world) and processes at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mongoengine import Document, IntField, StringField
from mongoengine.queryset import QuerySet

from sepelib.mongo import find_and_modify

pytestmark = pytest.mark.usefixtures("mongo_db")

WORKERS = 50


class RacedTask(Document):
    number = IntField(unique=True)
    owner = IntField()


class RacedHits(Document):
    name = StringField(unique=True)
    count = IntField()


def at_once(work: Callable[[int], Any], workers: int = WORKERS) -> list[Any]:
    """What *work* returns for each worker; they start together."""
    start = threading.Barrier(workers)
    results: list[Any] = [None] * workers
    errors: list[BaseException] = []

    def run(worker: int) -> None:
        try:
            start.wait(30)
            results[worker] = work(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and not any(thread.is_alive() for thread in threads)
    return results


# One process imports, its forks work, each with a client of its own: eight imports of mongoengine
# at once take longer than all the rest. Each line on stdin is a round; of each child the answer
# is one JSON line.
CHILDREN = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
import pymongo
from mongoengine import Document, IntField, StringField
from mongoengine.queryset import QuerySet
from sepelib.mongo import find_and_modify

class RacedTask(Document):
    number = IntField(unique=True)
    owner = IntField()

class RacedHits(Document):
    name = StringField(unique=True)
    count = IntField()

def work(rounds):
    database = pymongo.MongoClient(uri)[name]
    tasks = QuerySet(RacedTask, database["raced_task"])
    hits = QuerySet(RacedHits, database["raced_hits"])

    def claim(_):
        numbers = []
        while task := find_and_modify(tasks, {"owner": None}, {"owner": me}, sort="number"):
            numbers.append(task.number)
        return numbers

    def hit(page):
        update = {"inc__count": 1}
        return find_and_modify(hits, {"name": page}, update, upsert=True, new=True).count

    with ThreadPoolExecutor(4) as pool:
        for line in rounds:
            kind, *pages = line.split()
            if kind == "claim":
                answer = sum(pool.map(claim, range(4)), [])
            else:
                answer = list(pool.map(hit, pages))
            say({me: answer})

def say(answer):
    os.write(1, json.dumps(answer).encode() + b"\\n")

uri, name, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
children = []
for me in range(processes):
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.close(writing)
        for _, other in children:
            other.close()
        try:
            work(open(reading))
        except BaseException as error:
            say(repr(error))
        finally:
            os._exit(0)
    os.close(reading)
    children.append((pid, open(writing, "w", buffering=1)))
say([pid for pid, _ in children])
for line in sys.stdin:
    for _, child in children:
        child.write(line)
for pid, child in children:
    child.close()
    os.waitpid(pid, 0)
"""


class Workers:
    """Processes that do the same rounds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self.pids: list[int] = json.loads(self._stdout.readline())

    def begin(self, line: str) -> None:
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def do(self, line: str) -> list[list[int]]:
        """The answers to one round, given to all at once."""
        self.begin(line)
        answers: dict[str, list[int]] = {}
        for _ in self.pids:
            answers |= json.loads(self._stdout.readline())
        return [answers[str(number)] for number in range(len(self.pids))]


@contextlib.contextmanager
def processes(mongo_db: Any, count: int) -> Iterator[Workers]:
    for model in (RacedTask, RacedHits):
        model._get_collection()  # makes the indexes
    command = [sys.executable, "-c", CHILDREN, mongo_db.uri, mongo_db.name, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        yield Workers(parent)


def test_each_task_is_claimed_once_by_fifty() -> None:
    RacedTask.objects.insert([RacedTask(number=number) for number in range(200)])

    def claim(me: int) -> list[int]:
        numbers = []
        while task := find_and_modify(RacedTask, {"owner": None}, {"owner": me}, sort="number"):
            numbers.append(task.number)
        return numbers

    claimed = at_once(claim)

    assert sorted(number for numbers in claimed for number in numbers) == list(range(200))
    assert all(numbers == sorted(numbers) for numbers in claimed)
    assert {(task.number, task.owner) for task in RacedTask.objects} == {
        (number, me) for me, numbers in enumerate(claimed) for number in numbers
    }


def test_each_task_is_removed_once_by_fifty() -> None:
    RacedTask.objects.insert([RacedTask(number=number) for number in range(100)])

    removed = at_once(lambda me: [find_and_modify(RacedTask, remove=True) for _ in range(4)])

    numbers = [task.number for tasks in removed for task in tasks if task is not None]
    assert sorted(numbers) == list(range(100)) and RacedTask.objects.count() == 0


def test_no_increment_of_fifty_is_lost_and_each_sees_its_own() -> None:
    RacedHits(name="a", count=0).save()

    def hit(me: int) -> list[int]:
        update = {"inc__count": 1}
        return [
            find_and_modify(RacedHits, {"name": "a"}, update, new=True).count for _ in range(10)
        ]

    seen = sorted(count for counts in at_once(hit) for count in counts)

    assert seen == list(range(1, 501)) and RacedHits.objects.get().count == 500


def test_of_fifty_that_compare_and_set_one_wins_each_time() -> None:
    RacedHits(name="a", count=0).save()

    def raise_to_ten(me: int) -> list[int]:
        won = []
        while (count := RacedHits.objects.get().count) < 10:
            if find_and_modify(RacedHits, {"name": "a", "count": count}, {"count": count + 1}):
                won.append(count)
        return won

    assert sorted(count for won in at_once(raise_to_ten) for count in won) == list(range(10))


def test_fifty_racing_upserts_make_one_document_and_lose_no_update() -> None:
    RacedHits.ensure_indexes()  # else the first uses race with it
    for number in range(10):
        name = f"first use {number}"

        def hit(me: int, name: str = name) -> Any:
            return find_and_modify(
                RacedHits, {"name": name}, {"inc__count": 1}, upsert=True, new=True
            ).count

        assert sorted(at_once(hit)) == list(range(1, WORKERS + 1))
        assert RacedHits.objects.get(name=name).count == WORKERS


def test_of_fifty_racing_upserts_one_is_told_that_it_inserted() -> None:
    RacedHits.ensure_indexes()
    for number in range(10):
        name = f"first use {number}"

        def hit(me: int, name: str = name) -> Any:
            return find_and_modify(RacedHits, {"name": name}, {"inc__count": 1}, upsert=True)

        before = at_once(hit)

        assert sum(found is None for found in before) == 1
        assert RacedHits.objects.get(name=name).count == WORKERS


def test_eight_processes_claim_each_once_and_lose_no_upsert(mongo_db: Any) -> None:
    RacedTask.objects.insert([RacedTask(number=number) for number in range(200)])

    with processes(mongo_db, 8) as workers:
        claimed = workers.do("claim")
        hits = [workers.do(f"hit {' '.join([f'page{number}'] * 4)}") for number in range(10)]

    numbers = [number for each in claimed for number in each]
    assert sorted(numbers) == list(range(200))
    assert Tally(task.owner for task in RacedTask.objects) == Tally(
        {me: len(each) for me, each in enumerate(claimed) if each}
    )
    for seen in hits:
        assert sorted(count for each in seen for count in each) == list(range(1, 33))
    assert [hit.count for hit in RacedHits.objects] == [32] * 10


def test_a_killed_worker_leaves_nothing_locked_and_no_half_change(mongo_db: Any) -> None:
    RacedHits(name="a", count=0).save()
    queryset = QuerySet(RacedHits, mongo_db.db["raced_hits"])
    with processes(mongo_db, 1) as workers:
        workers.begin("hit " + "a " * 5000)
        while queryset.get().count < 20:
            pass
        os.kill(workers.pids[0], signal.SIGKILL)

    count = queryset.get().count
    after = find_and_modify(queryset, {"name": "a"}, {"inc__count": 1}, new=True).count
    assert 20 <= count < after <= count + 1 + 4  # its four threads may each have had one under way
