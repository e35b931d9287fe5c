"""The contract of SetDeltaMixin: of what many writers with stale copies change, nothing is lost."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mongoengine import Document, StringField

from sepelib.mongo import SetDeltaMixin, SetField

pytestmark = pytest.mark.usefixtures("mongo_db")


class DeltaShared(SetDeltaMixin, Document):
    tags = SetField(StringField())


def at_once(jobs: list[Callable[[], Any]]) -> None:
    """Each in a thread, which is a greenlet where threading is patched."""
    failures: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []


def test_50_writers_each_adding_one_to_a_stale_copy_lose_none() -> None:
    DeltaShared(tags=["start"]).save()
    copies = [DeltaShared.objects.get() for _ in range(50)]
    for number, host in enumerate(copies):
        host.tags.add(f"n{number}")

    at_once([host.save for host in copies])

    assert DeltaShared.objects.get().tags == {"start", *(f"n{number}" for number in range(50))}


def test_50_writers_each_replacing_one_of_a_stale_copy_lose_none() -> None:
    DeltaShared(tags=[f"old{number}" for number in range(50)]).save()
    copies = [DeltaShared.objects.get() for _ in range(50)]
    for number, host in enumerate(copies):
        host.tags ^= {f"old{number}", f"new{number}"}

    at_once([host.save for host in copies])

    assert DeltaShared.objects.get().tags == {f"new{number}" for number in range(50)}


# One process imports, the writers are its forks, each with a client of its own: eight imports
# of mongoengine at once take ten times as long as the rest of this test.
WRITERS = """
import json, os, sys
from mongoengine import Document, StringField, connect
from sepelib.mongo import SetDeltaMixin, SetField

class DeltaShared(SetDeltaMixin, Document):
    tags = SetField(StringField())

def write(number):
    client = connect(host=uri)
    hosts = [DeltaShared.objects.get() for _ in range(10)]
    os.write(1, b"loaded\\n")
    go.read()
    for i, host in enumerate(hosts):
        host.tags ^= {f"old{number}.{i}", f"new{number}.{i}"}
        host.save()
    client.close()

uri = json.loads(sys.stdin.readline())
reading, writing = os.pipe()
go = open(reading)
children = []
for number in range(8):
    if not (child := os.fork()):
        os.close(writing)
        status = 1
        try:
            write(number)
            status = 0
        except BaseException as error:
            os.write(1, f"{error!r}\\n".encode())
        finally:
            os._exit(status)
    children.append(child)
sys.stdin.readline()
os.close(writing)                           # which all children see at once
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_8_processes_with_stale_copies_lose_none(mongo_db: Any) -> None:
    DeltaShared(tags=[f"old{p}.{i}" for p in range(8) for i in range(10)]).save()
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writers:
        assert writers.stdin is not None and writers.stdout is not None
        writers.stdin.write(json.dumps(mongo_db.uri) + "\n")
        writers.stdin.flush()
        for _ in range(8):
            assert writers.stdout.readline() == "loaded\n"
        writers.communicate("go\n", timeout=60)

    assert writers.returncode == 0
    assert DeltaShared.objects.get().tags == {f"new{p}.{i}" for p in range(8) for i in range(10)}
