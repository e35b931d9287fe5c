"""find_and_modify by many greenlets (threads in the plain world) and processes at once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

import pytest
from mongoengine import Document, IntField, StringField
from mongoengine.queryset import QuerySet

from sepelib.mongo import find_and_modify

pytestmark = pytest.mark.usefixtures("mongo_db")

WORKERS = 50
PROCESSES = 8


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


# Each line on stdin is a round; the answer is one JSON line.
CHILD = """
import json, sys
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

uri, name, me = sys.argv[1], sys.argv[2], int(sys.argv[3])
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

print("ready", flush=True)
with ThreadPoolExecutor(4) as pool:
    for line in sys.stdin:
        work, *pages = line.split()
        if work == "claim":
            answer = sum(pool.map(claim, range(4)), [])
        else:
            answer = list(pool.map(hit, pages))
        print(json.dumps(answer), flush=True)
"""


@contextlib.contextmanager
def children(mongo_db: Any) -> Any:
    """A function that gives one round to eight processes at once and collects their answers."""
    for model in (RacedTask, RacedHits):
        model._get_collection()  # makes the indexes
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(PROCESSES):
            command = [sys.executable, "-c", CHILD, mongo_db.uri, mongo_db.name, str(number)]
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            started.append(child)
        for child in started:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"

        def give(line: str) -> list[list[int]]:
            for child in started:
                assert child.stdin is not None
                child.stdin.write(line + "\n")
                child.stdin.flush()
            return [json.loads(child.stdout.readline()) for child in started if child.stdout]

        yield give


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

    with children(mongo_db) as give:
        claimed = give("claim")
        hits = [give(f"hit {' '.join([f'page{number}'] * 4)}") for number in range(10)]

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
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, mongo_db.uri, mongo_db.name, "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("hit " + "a " * 5000 + "\n")
        child.stdin.flush()
        queryset = QuerySet(RacedHits, mongo_db.db["raced_hits"])
        while queryset.get().count < 20:
            pass
        child.kill()

    count = queryset.get().count
    after = find_and_modify(queryset, {"name": "a"}, {"inc__count": 1}, new=True).count
    assert 20 <= count < after <= count + 1 + 4  # its four threads may each have had one under way
