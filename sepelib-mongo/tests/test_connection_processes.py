"""Forks, monkey patching and the end of a process: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

PATCH = "import gevent.monkey; gevent.monkey.patch_all()\n"
WORLDS = pytest.mark.parametrize("first", ["", PATCH], ids=["plain", "patched"])

CONNECT = """
import os, sys, threading, time, traceback
import mongoengine
from sepelib.mongo import MongoMisused, connect, mongo_check
uri, name = sys.argv[1:]
client = connect(uri, name=name, max_pool=20)
things = client[name]["things"]
things.insert_one({"_id": 1})
"""

FORKED = """
class Thing(mongoengine.Document):
    number = mongoengine.IntField(primary_key=True)
    meta = {"collection": "things"}

Thing.objects.first()

def sockets():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return {name for name in found if name.startswith("socket:")}

def child():
    stop.set()
    assert things.find_one({"_id": 1}) == {"_id": 1}   # made from the client before the fork
    assert Thing.objects(number=1).count() == 1        # likewise, by mongoengine
    assert connect(uri, name=name, max_pool=20) is client
    mongo_check()()
    time.sleep(0.01)
    shared = sockets() & inherited
    assert not shared, shared
    things.insert_one({"_id": os.getpid()})
    client.close()

stop = threading.Event()
counts = []

def busy():
    count = 0
    while not stop.is_set():
        assert things.find_one({"_id": 1}) == {"_id": 1}
        count += 1
    counts.append(count)

threads = [threading.Thread(target=busy) for _ in range(BUSY)]
for thread in threads:
    thread.start()
time.sleep(0.2)
inherited = sockets()
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(pid)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
before = len(counts)
time.sleep(0.2)
stop.set()
for thread in threads:
    thread.join(20)
assert statuses == [0] * 4, statuses
assert before == 0 and len(counts) == BUSY and all(counts), counts
assert things.count_documents({}) == 5
client.close()
print("ok")
"""


@WORLDS
def test_a_forked_child_has_connections_of_its_own_and_no_warning(
    mongo_db: Any, first: str
) -> None:
    script = first + CONNECT + FORKED.replace("BUSY", "0")

    assert run(script, mongo_db) == ("ok\n", "")


def test_a_fork_amid_busy_threads_disturbs_neither_side(mongo_db: Any) -> None:
    out, err = run(CONNECT + FORKED.replace("BUSY", "8"), mongo_db)

    assert (out, err) == ("ok\n", "")


def test_a_fork_amid_busy_greenlets_disturbs_neither_side(mongo_db: Any) -> None:
    out, err = run(PATCH + CONNECT + FORKED.replace("BUSY", "8"), mongo_db)

    assert out == "ok\n", err
    # The test's own greenlets came along to the child and end there, which gevent tells of.
    assert "Thread(pymongo_" not in err


LATE_PATCH = """
import warnings
import gevent.monkey
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    gevent.monkey.patch_all()

def refused(call):
    try:
        call()
    except MongoMisused as error:
        assert "patch_all()" in str(error) and "\\n" not in str(error), error
        return True

session = client.start_session()
assert refused(lambda: things.find_one())
assert refused(lambda: things.insert_one({}))
assert refused(lambda: list(things.aggregate([])))
assert refused(lambda: client.admin.command("ping"))
assert refused(lambda: client.address)
assert refused(lambda: connect(uri, name=name, max_pool=20))
assert refused(mongo_check())
client.close()
again = connect(uri, name=name, max_pool=20)
assert again is not client
assert again[name]["things"].find_one() == {"_id": 1}
again.close()
print("ok")
sys.stdout.flush()
os._exit(0)  # the old monitors are native threads, which gevent lets end with a noise
"""


def test_a_client_made_before_monkey_patching_is_refused(mongo_db: Any) -> None:
    out, _ = run(CONNECT + LATE_PATCH, mongo_db)

    assert out == "ok\n"


ENDED = """
import gevent
client.close()
assert gevent.get_hub().join(10), "something runs on"
print("ok")
"""


def test_no_greenlet_outlives_close(mongo_db: Any) -> None:
    assert run(PATCH + CONNECT + ENDED, mongo_db) == ("ok\n", "")


ABANDONED = """
import gevent
client.close()
import socket
with socket.socket() as silent:
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    port = silent.getsockname()[1]
    connecting = gevent.spawn(connect, f"mongodb://127.0.0.1:{port}/x", connect_timeout=1.0)
    gevent.sleep(0.2)
    connecting.kill()
    assert isinstance(connecting.value, gevent.GreenletExit), connecting.value
    assert not mongoengine.connection._connection_settings
    assert gevent.get_hub().join(10), "something runs on"
connect(uri, name=name).close()
print("ok")
"""


def test_who_is_killed_while_it_connects_leaves_nothing(mongo_db: Any) -> None:
    assert run(PATCH + CONNECT + ABANDONED, mongo_db) == ("ok\n", "")


KILLED_IN_CLOSE = """
import gevent
from sepelib.util.testing import FlakyProxy
from pymongo.uri_parser import parse_uri

client.close()
(address,) = parse_uri(uri)["nodelist"]
with FlakyProxy(*address) as proxy:
    by_way = uri.replace("%s:%s" % address, "%s:%s" % proxy.address)
    client = connect(by_way, name=name)
    client[name]["things"].insert_one({})
    proxy.hold()
    closing = gevent.spawn(client.close)
    gevent.sleep(0.2)
    closing.kill()
    assert isinstance(closing.value, gevent.GreenletExit), closing.value
    assert not mongoengine.connection._connection_settings
with gevent.Timeout(10, AssertionError("something runs on")):
    while any(thread.name.startswith("pymongo") for thread in threading.enumerate()):
        gevent.sleep(0.01)
print("ok")
"""


def test_who_is_killed_while_it_closes_leaves_nothing(mongo_db: Any) -> None:
    assert run(PATCH + CONNECT + KILLED_IN_CLOSE, mongo_db) == ("ok\n", "")


LOOP = """
import gevent
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1

ticking = gevent.spawn(tick)
with gevent.Timeout(30, AssertionError("too slow")):
    list(gevent.pool.Pool(50).imap_unordered(lambda n: things.find_one(), range(500)))
assert ticks > 3, ticks
ticking.kill()
client.close()
print("ok")
"""


def test_the_loop_goes_on_during_operations(mongo_db: Any) -> None:
    script = PATCH + "import gevent.pool\n" + CONNECT + LOOP

    assert run(script, mongo_db) == ("ok\n", "")


def run(script: str, mongo_db: Any) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, mongo_db.uri, mongo_db.name],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
