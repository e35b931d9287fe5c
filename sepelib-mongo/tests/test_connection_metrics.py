from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mongoengine
import pymongo
import pytest
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from sepelib.mongo import connect
from sepelib.util import instrument
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import FlakyProxy, MemoryRecorder

ALIAS = "daemon"


class Measured:
    """A client whose connections go through a proxy, and what it reports."""

    def __init__(self, mongo_db: Any, proxy: FlakyProxy) -> None:
        self.proxy = proxy
        self.recorder = MemoryRecorder()
        host, port = proxy.address
        self.client: MongoClient[dict[str, Any]] = connect(
            by_way_of(mongo_db.uri, f"{host}:{port}"),
            alias=ALIAS,
            name=mongo_db.name,
            max_pool=2,
            recorder=self.recorder,
        )
        self.things = self.client[mongo_db.name]["things"]

    def count(self, command: str, result: str) -> float:
        return self.recorder.value("mongo_commands", command, result)

    def pool(self) -> dict[str, float]:
        return {
            state: self.recorder.value("mongo_pool", state)
            for state in ("in_use", "idle", "waiting")
        }


@pytest.fixture(scope="module")
def closing() -> Iterator[list[threading.Thread]]:
    """Who close clients behind the tests' backs: it takes half a second, which would add up."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)


@pytest.fixture
def measured(mongo_db: Any, closing: list[threading.Thread]) -> Iterator[Measured]:
    host, port = mongo_db.client.address
    with FlakyProxy(host, port) as proxy:
        each = Measured(mongo_db, proxy)
        yield each
        proxy.heal()
        closing.append(threading.Thread(target=each.client.close))
        closing[-1].start()
        wait_until(lambda: ALIAS not in mongoengine.connection._connection_settings)


def test_commands_are_counted_by_name_and_timed(measured: Measured) -> None:
    measured.things.insert_one({"_id": 1})
    measured.things.find_one_and_update({"_id": 1}, {"$set": {"a": 1}})
    measured.things.find_one()
    measured.things.find_one()

    assert measured.count("insert", "ok") == 1
    assert measured.count("findAndModify", "ok") == 1
    assert measured.count("find", "ok") == 2
    seconds = measured.recorder.observations("mongo_seconds", "find")
    assert len(seconds) == 2 and all(0 < each < 10 for each in seconds)


def test_what_the_server_refuses_is_an_error(measured: Measured) -> None:
    measured.things.insert_one({"_id": 1})

    with pytest.raises(DuplicateKeyError):
        measured.things.insert_one({"_id": 1})
    with pytest.raises(OperationFailure):
        measured.things.update_one({}, {"$no": {"a": 1}})

    assert measured.count("insert", "error") == 1
    assert measured.count("update", "error") == 1


def test_an_answer_that_does_not_come_in_time_is_a_timeout(measured: Measured) -> None:
    measured.proxy.hold()

    with pytest.raises(DeadlineExceeded), deadline(0.1):
        measured.things.find_one()

    assert measured.count("find", "timeout") == 1
    (seconds,) = measured.recorder.observations("mongo_seconds", "find")
    assert 0.05 < seconds < 5


def test_a_broken_connection_is_lost_and_the_retry_is_another_command(measured: Measured) -> None:
    measured.things.insert_one({"_id": 1})
    with measured.proxy.lose_answer(lambda data: b"find" in data):
        assert measured.things.find_one() == {"_id": 1}

    assert (measured.count("find", "lost"), measured.count("find", "ok")) == (1, 1)


def test_a_command_that_finds_no_server_is_counted_too(measured: Measured) -> None:
    measured.proxy.refuse()
    measured.proxy.cut()

    with pytest.raises(PyMongoError), pymongo.timeout(0.5):
        measured.things.delete_one({})

    assert measured.count("delete", "timeout") + measured.count("delete", "lost") >= 1
    assert measured.count("delete", "ok") == 0


def test_names_of_commands_are_bounded(measured: Measured) -> None:
    for number in range(20):
        with pytest.raises(OperationFailure):
            measured.client.admin.command(f"no_such_command_{number}")

    assert measured.count("other", "error") == 20
    assert {command for command, _ in measured.recorder.series("mongo_commands")} <= {
        "other",
        "ping",
    }


def test_labels_hold_no_data(measured: Measured) -> None:
    measured.things.insert_one({"_id": "secret"})
    list(measured.things.find({"_id": "secret"}))

    series = measured.recorder.series("mongo_commands"), measured.recorder.series("mongo_seconds")
    assert "secret" not in str(series) and "things" not in str(series)


def test_the_pool_shows_who_uses_it_and_who_waits(measured: Measured) -> None:
    measured.things.find_one()
    wait_until(lambda: measured.pool() == {"in_use": 0, "idle": 1, "waiting": 0})
    measured.proxy.hold_replies()

    threads = [threading.Thread(target=measured.things.find_one) for _ in range(2)]
    threads[0].start()
    wait_until(lambda: measured.pool() == {"in_use": 1, "idle": 0, "waiting": 0})
    threads[1].start()
    wait_until(lambda: measured.pool() == {"in_use": 2, "idle": 0, "waiting": 0})
    third = threading.Thread(target=measured.things.find_one)
    third.start()
    wait_until(lambda: measured.pool() == {"in_use": 2, "idle": 0, "waiting": 1})

    measured.proxy.heal()
    for thread in [*threads, third]:
        thread.join(10)
    assert measured.pool() == {"in_use": 0, "idle": 2, "waiting": 0}


def test_a_closed_client_shows_no_pool(measured: Measured) -> None:
    measured.things.find_one()
    assert sum(measured.pool().values()) > 0

    measured.client.close()

    assert measured.pool() == {"in_use": 0, "idle": 0, "waiting": 0}
    gauge = measured.recorder.gauge("mongo_pool", labels=("state",)).labels("idle")
    assert not gauge._bound


def test_without_a_word_it_reports_to_the_installed_recorder(mongo_db: Any) -> None:
    recorder = MemoryRecorder()
    former = instrument.install(recorder)
    try:
        with connect(mongo_db.uri, alias=ALIAS, name=mongo_db.name) as client:
            client[mongo_db.name]["things"].find_one()
            assert recorder.value("mongo_commands", "find", "ok") == 1
            assert recorder.value("mongo_pool", "idle") >= 1
    finally:
        instrument.install(former)
    assert ALIAS not in mongoengine.connection._connection_settings


KILLED = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from sepelib.mongo import connect
from sepelib.util.testing import FlakyProxy, MemoryRecorder

uri, host, port, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
recorder = MemoryRecorder()
with FlakyProxy(host, port) as proxy:
    client = connect(
        uri.replace("PROXY", f"{proxy.address[0]}:{proxy.address[1]}"), name=name,
        recorder=recorder, max_pool=5,
    )
    things = client[name]["things"]
    things.insert_one({"_id": 1})
    proxy.hold_replies()
    running = [gevent.spawn(things.find_one) for _ in range(5)]
    waiting = [gevent.spawn(things.distinct, "_id") for _ in range(5)]
    with gevent.Timeout(10, AssertionError("they never got there")):
        while recorder.value("mongo_pool", "waiting") < 5:
            gevent.sleep(0.01)
        gevent.sleep(0.2)
    gevent.killall(running + waiting)
    proxy.heal()
    count = lambda command, result: recorder.value("mongo_commands", command, result)
    assert count("find", "cancelled") == 5, recorder.series("mongo_commands")
    assert count("distinct", "cancelled") == 5, recorder.series("mongo_commands")
    assert recorder.value("mongo_pool", "in_use") == 0
    assert recorder.value("mongo_pool", "waiting") == 0
    assert things.find_one() == {"_id": 1}
    timed_out = gevent.Timeout.start_new(0.1)
    proxy.hold_replies()
    try:
        things.find_one()
    except gevent.Timeout as caught:
        assert caught is timed_out
    proxy.heal()
    assert count("find", "cancelled") == 6
    is_update = lambda data: b"update" in data
    with proxy.lose_answer(is_update) as lost:
        trying = gevent.spawn(things.update_one, {"_id": 1}, {"$inc": {"n": 1}})
        lost.wait()
    with proxy.lose_answer(is_update, then="hold") as lost:
        lost.wait()  # the second try
    trying.kill()
    proxy.heal()
    assert isinstance(trying.value, gevent.GreenletExit), trying
    assert (count("update", "lost"), count("update", "cancelled")) == (1, 1)
    assert recorder.value("mongo_pool", "in_use") == 0
    assert things.find_one() == {"_id": 1, "n": 1}
    client.close()
print("ok")
"""


def test_killed_greenlets_are_counted_as_cancelled_and_give_their_connection_back(
    mongo_db: Any,
) -> None:
    host, port = mongo_db.client.address
    uri = by_way_of(mongo_db.uri, "PROXY")

    assert run(KILLED, uri, host, str(port), mongo_db.name) == "ok\n"


def by_way_of(uri: str, address: str) -> str:
    """*uri* with *address* as the only host, user and options as they are."""
    scheme, _, rest = uri.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    options = [each for each in rest.partition("?")[2].split("&") if each]
    query = "&".join({*options, "directConnection=true"})
    return f"{scheme}://{user}{'@' if user else ''}{address}/?{query}"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)
