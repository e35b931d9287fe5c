"""Which server is started, when it counts as ready, and that nothing of it is left."""

import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import monkey

import sepelib.mongo.errors
from sepelib.mongo import MongoUnavailable, mock_database
from sepelib.mongo._engine import Engine, Launch, find_engine
from sepelib.mongo._engine_server import MongoServer
from sepelib.mongo._engine_wire import command
from sepelib.mongo.errors import AliasTaken, MongoNotInstalled, SequenceLostError
from sepelib.util.processes import Proc
from sepelib.util.testing import check_errors

PATCHED = monkey.is_module_patched("socket")
SCRIPTS = sysconfig.get_path("scripts")
RS = shutil.which("secantusd-rs", path=SCRIPTS) or shutil.which("secantusd-rs")

# Speaks mongod's command line and its log, and is not the primary until it is told to be. Behind
# it stands the embedded server.
MONGOD = """#!{python}
import argparse, json, os, re, signal, socket, struct, subprocess, sys, threading
import bson

words = argparse.ArgumentParser(prefix_chars="-")
words.add_argument("--dbpath", required=True)
words.add_argument("--port", type=int, required=True)
words.add_argument("--bind_ip", required=True)
words.add_argument("--nounixsocket", action="store_true", required=True)
words.add_argument("--replSet")
words = words.parse_args()
assert os.path.isdir(words.dbpath) and words.bind_ip == "127.0.0.1"

def log(**entry):
    print(json.dumps(entry, separators=(",", ":")), flush=True)

log(id=4615611, msg="MongoDB starting", attr={{"port": words.port}})
behind = subprocess.Popen(
    [{rs!r}, "--config", os.path.join(words.dbpath, "..", "empty"), "--host", "127.0.0.1",
     "--port", "0", "--storage-path", os.path.join(words.dbpath, "rs"), "--cache-size", "64M",
     "--log-file-max", "16MB", *([] if words.replSet else ["--standalone"])],
    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: (behind.terminate(), behind.wait(), os._exit(0)))
port = int(re.search(rb":([0-9]+)", behind.stdout.readline())[1])
initiated = os.path.join(words.dbpath, "initiated")

def take(peer, size):
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            sys.exit()
        data += more
    return data

def answer(message):
    if not words.replSet or os.path.exists(initiated) or message[12:16] != struct.pack("<i", 2013):
        return None
    asked = bson.decode(message[21:])
    if "replSetGetStatus" in asked:
        reply = {{"ok": 0, "code": 94, "errmsg": "no replset config has been received"}}
    elif "replSetInitiate" in asked:
        config = asked["replSetInitiate"]
        member = "127.0.0.1:%d" % listener.getsockname()[1]
        assert config == {{"_id": words.replSet, "members": [{{"_id": 0, "host": member}}]}}, config
        open(initiated, "w").close()
        reply = {{"ok": 1}}
    elif "hello" in asked:
        reply = {{"ok": 1, "isWritablePrimary": False}}
    else:
        return None
    body = struct.pack("<iB", 0, 0) + bson.encode(reply)
    return struct.pack("<iiii", 16 + len(body), 1, 1, 2013) + body

def serve(peer):
    with peer, socket.create_connection(("127.0.0.1", port)) as server:
        def back():
            while data := server.recv(65536):
                peer.sendall(data)
            peer.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=back, daemon=True).start()
        while True:
            head = take(peer, 16)
            message = head + take(peer, struct.unpack("<i", head[:4])[0] - 16)
            own = answer(message)
            if own is None:
                server.sendall(message)
            else:
                peer.sendall(own)

listener = socket.create_server(("127.0.0.1", words.port))
log(s="I", c="NETWORK", id=23016, ctx="listener", msg="Waiting for connections",
    attr={{"port": listener.getsockname()[1], "ssl": "off"}})
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


def program(folder: Path, name: str, code: str) -> str:
    path = folder / name
    path.write_text(code)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def mongod(tmp_path: Path) -> str:
    """A stand-in: mongod itself is on few machines where these tests run."""
    assert RS is not None
    return program(tmp_path, "mongod", MONGOD.format(python=sys.executable, rs=RS))


@pytest.fixture
def server() -> Iterator[MongoServer]:
    server = MongoServer(find_engine())
    try:
        server.start()
        yield server
    finally:
        server.close()


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(pid: int) -> bool:
    stat = Proc().read(pid)
    return stat is not None and stat.alive


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, with none of anybody else."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def script(code: str, *, patched: bool = PATCHED, **environ: str) -> "subprocess.Popen[str]":
    first = "import gevent.monkey; gevent.monkey.patch_all()\n" if patched else ""
    return subprocess.Popen(
        [sys.executable, "-c", first + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


def says(child: "subprocess.Popen[str]", seconds: float = 60.0) -> str:
    assert child.stdout is not None
    with gevent.Timeout(seconds, AssertionError("the script says nothing")):
        ready, _, _ = select.select([child.stdout], [], [], seconds)
        assert ready
        return child.stdout.readline()


def engine_of(code: str, ready: Callable[[str], int | None] | None = None) -> Engine:
    """An engine whose program is Python code; it gets the port and the data folder."""

    def arguments(launch: Launch) -> list[str]:
        return [str(launch.port), str(launch.data)]

    def announced(line: str) -> int | None:
        return int(line.split()[1]) if line.startswith("ready ") else None

    return Engine("fake", (sys.executable, "-c", code), arguments, ready or announced)


# Which engine.


def test_mongod_comes_before_the_embedded_servers(
    mongod: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEPELIB_MONGOD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_engine().name == "mongod"
    assert find_engine().program == (mongod,)
    assert find_engine("secantus-rs").name == "secantus-rs"


def test_the_variable_names_the_mongod(mongod: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPELIB_MONGOD", mongod)
    assert find_engine().program == (mongod,)


def test_a_mongod_that_is_named_and_not_there_is_not_replaced_by_another_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEPELIB_MONGOD", "/no/such/mongod")
    with pytest.raises(MongoNotInstalled, match="SEPELIB_MONGOD=/no/such/mongod"):
        find_engine()


def test_the_rust_server_comes_before_the_python_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEPELIB_MONGOD", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    engine = find_engine()
    assert (engine.name, engine.program) == ("secantus-rs", (RS,))


def test_a_program_on_a_relative_path_is_found_from_the_server_s_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RS is not None
    (tmp_path / "secantusd-rs").symlink_to(RS)
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: "/nowhere")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("PATH", tmp_path.name)
    assert find_engine("secantus-rs").program == (str(tmp_path / "secantusd-rs"),)


def test_the_python_server_is_run_as_a_program_and_not_imported() -> None:
    engine = find_engine("secantus-py")
    assert engine.program[0] == sys.executable
    assert engine.program[-2:] == ("-m", "secantus")
    assert "secantus" not in sys.modules


def test_the_program_s_later_name_gets_only_options_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RS is not None
    there = program(tmp_path, "secantusd-mdb", "")
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = find_engine("secantus-rs")
    assert engine.program == (there,)
    data, config = tmp_path / "data", tmp_path / "empty"
    assert engine.arguments(Launch(data, config, 0, True, False)) == [
        *("--port", "0"),
        *("--storage-path", str(data)),
    ]


def test_nothing_installed_says_what_was_tried_and_how_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.delenv("SEPELIB_MONGOD", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MongoNotInstalled) as caught:
        find_engine()
    text = str(caught.value)
    for word in ("mongod (not on PATH)", "secantusd-rs", "secantusd-mdb", "python -m secantus"):
        assert word in text
    assert "pip install 'sepelib-mongo[embedded]'" in text and "SEPELIB_MONGO_URI" in text
    assert "\n" not in text


def test_an_engine_that_is_named_and_absent_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEPELIB_MONGOD", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MongoUnavailable, match="mongod") as caught:
        mock_database(engine="mongod", alias="absent")
    assert "secantus" not in str(caught.value).split(". Install")[0]


def test_the_errors_pickle_and_are_one_line() -> None:
    check_errors(
        sepelib.mongo.errors,
        examples=[
            MongoNotInstalled(["mongod (not on PATH)"]),
            MongoUnavailable("mongod: gone", 1, "its\nlog"),
            AliasTaken("default"),
            SequenceLostError("tickets", "sepelib.sequences", 7),
        ],
    )


# mongod's own way.


def test_mongod_starts_as_a_replica_set_of_one(
    mongod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPELIB_MONGOD", mongod)
    with mock_database(engine="mongod", alias="set") as db:
        assert db.engine == "mongod" and db.server is not None and db.pid
        with open(f"/proc/{db.pid}/cmdline") as file:
            assert "--replSet" in file.read()
        assert db.supports("transactions")
        db.db.things.insert_one({"_id": 1})
        db.server.stop()
        db.server.start()  # initiated once only: the stand-in would refuse a second time
        assert db.db.things.count_documents({}) == 1


def test_mongod_starts_alone_when_no_replica_set_is_wanted(
    mongod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPELIB_MONGOD", mongod)
    with mock_database(engine="mongod", alias="alone", replica_set=False) as db:
        with open(f"/proc/{db.pid}/cmdline") as file:
            assert "--replSet" not in file.read()
        assert not db.supports("change_streams")


@pytest.mark.parametrize(
    ("line", "port"),
    [
        (json.dumps({"id": 23016, "attr": {"port": 4711}}, separators=(",", ":")), 4711),
        ('{"t":{},"id":23016,"msg":"Waiting for connections","attr":{"po', None),
        ('{"id":23015,"attr":{"port":4711}}', None),
        ('{"id":5,"msg":"says \\"id\\":23016, you know"}', None),
        ('[1,{"id":23016,"attr":{"port":4711}}]', None),
        ("Waiting for connections on port 4711", None),
    ],
)
def test_the_port_is_that_of_the_ready_entry(
    line: str, port: int | None, mongod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPELIB_MONGOD", mongod)
    assert find_engine("mongod").ready_port(line) == port


def test_the_embedded_server_s_ready_line_gives_its_port() -> None:
    engine = find_engine("secantus-rs")
    assert engine.ready_port("secantusd-rs listening on 127.0.0.1:4711\n") == 4711
    assert engine.ready_port("secantusd-rs listening on 127.0.0.1:47") == 47
    assert engine.ready_port("[INFO] will be listening on 127.0.0.1:4711, soon") is None


# Ready.


@pytest.mark.parametrize("name", ["secantus-rs", "secantus-py"])
def test_each_embedded_server_starts_answers_and_ends(name: str, temporary: Path) -> None:
    server = MongoServer(find_engine(name))
    try:
        server.start()
        pid = server.pid
        assert pid is not None
        assert command(server.port, {"hello": 1})["isWritablePrimary"]
        assert list(temporary.iterdir()) == [server.log_path.parent]
    finally:
        server.close()
    assert not alive(pid)
    assert list(temporary.iterdir()) == []


def test_a_stranger_that_answers_on_a_port_is_not_our_server(server: MongoServer) -> None:
    # The program ends at once; somebody who would answer is there all the time.
    code = f"import sys; print('ready {server.port}'); sys.exit(3)"
    ours = MongoServer(engine_of(code))
    try:
        with pytest.raises(MongoUnavailable) as caught:
            ours.start()
    finally:
        ours.close()
    assert caught.value.returncode == 3


def test_a_port_is_not_believed_before_its_line_is_whole(server: MongoServer) -> None:
    # More digits could follow; somebody who would answer is there all the time.
    code = f"import time; print('ready {server.port}', end='', flush=True); time.sleep(99)"
    ours = MongoServer(engine_of(code), start_timeout=0.5)
    try:
        with pytest.raises(MongoUnavailable, match="not ready within"):
            ours.start()
    finally:
        ours.close()


def test_a_server_that_dies_is_reported_with_its_exit_status_and_log() -> None:
    server = MongoServer(engine_of("import sys; print('no such option'); sys.exit(2)"))
    try:
        with pytest.raises(MongoUnavailable, match="ended with status 2") as caught:
            server.start()
    finally:
        server.close()
    assert caught.value.returncode == 2
    assert caught.value.log == "no such option"


@pytest.mark.parametrize("replica_set", [False, True])
def test_a_server_that_says_ready_and_does_not_answer_is_not_ready(replica_set: bool) -> None:
    code = """if 1:
        import socket, time
        listener = socket.create_server(("127.0.0.1", 0))
        print("ready", listener.getsockname()[1], flush=True)
        while True:
            listener.accept()[0].close()
    """
    server = MongoServer(engine_of(code), replica_set=replica_set, start_timeout=0.5)
    try:
        with pytest.raises(MongoUnavailable, match=r"not ready within 0\.5 s"):
            server.start()
        assert not server.running
    finally:
        server.close()


def test_a_server_that_never_says_ready_is_killed_when_its_time_is_over() -> None:
    server = MongoServer(engine_of("import time; print('wait', flush=True); time.sleep(99)"))
    try:
        with pytest.raises(MongoUnavailable, match=r"not ready within 0\.3 s"):
            server.start(0.3)
        assert server.pid is not None and not alive(server.pid)
    finally:
        server.close()


def test_a_program_that_cannot_be_run_is_unavailable(tmp_path: Path) -> None:
    broken = program(tmp_path, "broken", "\x7fELF nothing")
    engine = engine_of("")._replace(program=(broken,))
    server = MongoServer(engine)
    try:
        with pytest.raises(MongoUnavailable, match="cannot run"):
            server.start()
    finally:
        server.close()


def test_the_settings_of_the_developer_do_not_leak_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".secantus").mkdir()
    for path in (tmp_path / "secantusd.toml", tmp_path / ".secantus" / "secantusd.toml"):
        path.write_text("[server]\nport = 'nonsense'\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECANTUS_OPLOG_ASYNC", "nonsense")
    monkeypatch.chdir(tmp_path)
    server = MongoServer(find_engine("secantus-rs"))
    try:
        server.start()
        with open(f"/proc/{server.pid}/environ") as file:
            assert "SECANTUS_" not in file.read()
    finally:
        server.close()


def test_a_durable_server_is_told_to_sync() -> None:
    for durable in (False, True):
        server = MongoServer(find_engine("secantus-rs"), durable=durable)
        try:
            server.start()
            with open(f"/proc/{server.pid}/cmdline") as file:
                assert ("--sync-on-commit" in file.read()) == durable
        finally:
            server.close()


def test_the_server_takes_little_disk() -> None:
    server = MongoServer(find_engine("secantus-rs"))
    try:
        server.start()
        used = subprocess.run(
            ["du", "-sm", str(server.log_path.parent)], capture_output=True, check=True, text=True
        )
        assert int(used.stdout.split()[0]) < 200
    finally:
        server.close()


# Faults.


def test_a_killed_server_starts_again_on_its_port_and_data(server: MongoServer) -> None:
    port, pid = server.port, server.pid
    command(port, {"insert": "things", "documents": [{"_id": 1}]})
    server.stop()
    assert not server.running
    server.start()
    assert server.port == port and server.pid != pid
    assert command(port, {"count": "things"})["n"] == 1


def test_restore_brings_back_what_is_dead_or_stands_still(server: MongoServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.running)
    server.restore()
    assert command(server.port, {"ping": 1})["ok"] == 1
    server.pause()
    with pytest.raises(TimeoutError):
        command(server.port, {"ping": 1}, timeout=0.2)
    server.restore()
    assert command(server.port, {"ping": 1})["ok"] == 1


def test_a_port_taken_while_the_server_was_down_is_an_error(server: MongoServer) -> None:
    server.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        with pytest.raises(MongoUnavailable):
            server.start()


# Nothing is left.


HOLD = """
import sys
from sepelib.mongo import mock_database
db = mock_database(engine="secantus-rs")
print(db.pid, db.log_path.parent, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_an_owner_that_is_killed_leaves_neither_server_nor_files(signum: int) -> None:
    child = script(HOLD)
    try:
        pid, folder = says(child).split()
        assert alive(int(pid)) and os.path.isdir(folder)
        child.send_signal(signum)
        eventually(lambda: not alive(int(pid)) and not os.path.exists(folder))
    finally:
        child.kill()
        child.communicate()


def test_an_owner_that_forgets_to_close_leaves_nothing() -> None:
    child = script(HOLD)
    pid, folder = says(child).split()
    child.communicate("\n", timeout=60)
    assert child.returncode == 0
    eventually(lambda: not alive(int(pid)) and not os.path.exists(folder))


def test_ctrl_c_goes_to_the_owner_only() -> None:
    child = script(
        """
import os, signal
from sepelib.mongo import mock_database
with mock_database(engine="secantus-rs") as db:
    os.setpgid(0, 0)
    try:
        os.killpg(0, signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        pass
    db.db.things.insert_one({})
    print("still there", db.server.running, os.getpgid(db.pid) != os.getpgrp())
"""
    )
    assert child.communicate(timeout=60)[0] == "still there True True\n"


def test_a_forked_child_stops_nothing_whether_it_closes_or_exits() -> None:
    child = script(
        """
import os, sys
from sepelib.mongo import mock_database
with mock_database(engine="secantus-rs") as db:
    for how in (db.close, sys.exit, lambda: os._exit(0)):
        pid = os.fork()
        if not pid:
            try:
                how()
            finally:
                if how != sys.exit:
                    os._exit(0)
        os.waitpid(pid, 0)
        db.db.things.insert_one({})
    print(db.server.running, db.db.things.count_documents({}))
"""
    )
    assert child.communicate(timeout=60)[0] == "True 3\n"


def test_a_server_started_in_a_thread_outlives_the_thread() -> None:
    started: list[Any] = []
    thread = threading.Thread(
        target=lambda: started.append(mock_database(engine="secantus-rs", alias="of a thread"))
    )
    thread.start()
    thread.join(60)
    with started[0] as db:
        db.db.things.insert_one({"_id": 1})
        assert db.server.running and db.db.things.count_documents({}) == 1


def test_a_server_started_before_patching_is_at_hand_after_it() -> None:
    child = script(
        """
import warnings
from sepelib.mongo._engine import find_engine
from sepelib.mongo._engine_server import MongoServer
server = MongoServer(find_engine("secantus-rs"))
server.start()
import gevent.monkey
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    gevent.monkey.patch_all()
server.kill()
server.start()
from sepelib.mongo import mock_database
import gevent
def use(n):
    uri = f"mongodb://127.0.0.1:{server.port}/?directConnection=true"
    with mock_database(uri=uri, alias=str(n)) as db:
        db.db.things.insert_one({})
        return db.db.things.count_documents({})
print(sum(job.get() for job in [gevent.spawn(use, n) for n in range(5)]))
server.close()
""",
        patched=False,
    )
    assert child.communicate(timeout=60)[0] == "5\n"


def test_greenlets_start_servers_side_by_side_while_others_run() -> None:
    # In a process of its own, patched in both worlds.
    child = script(
        """
import gevent
from sepelib.mongo import mock_database
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1
def start(n):
    with mock_database(engine="secantus-rs", alias=str(n)) as db:
        db.db.things.insert_one({})
        return db.pid
ticker = gevent.spawn(tick)
jobs = [gevent.spawn(start, n) for n in range(4)]
print(len({job.get(timeout=60) for job in jobs}), ticks > 10)
""",
        patched=True,
    )
    assert child.communicate(timeout=90)[0] == "4 True\n"


def test_a_greenlet_killed_while_it_starts_leaves_nothing(temporary: Path) -> None:
    child = script(
        """
import gevent
from sepelib.mongo import mock_database
import mongoengine.connection as connections
for pause in (0.0, 0.02, 0.06, 0.12, 0.2):
    job = gevent.spawn(mock_database, engine="secantus-rs")
    gevent.sleep(pause)
    job.kill()
    if isinstance(job.value, gevent.GreenletExit):
        assert not connections._connection_settings, pause
    else:
        job.value.close()
print("done")
""",
        patched=True,
    )
    assert child.communicate(timeout=90)[0] == "done\n"
    assert list(temporary.iterdir()) == []


# Kept.


def test_a_kept_server_goes_on_until_it_is_killed() -> None:
    child = script(
        """
from sepelib.mongo import mock_database
with mock_database(engine="secantus-rs", keep=True) as db:
    db.db.things.insert_one({"_id": 1})
print(db.kept())
""",
    )
    told = child.communicate(timeout=60)[0]
    uri, _, rest = told.partition(" in ")
    folder, _, pid_text = rest.partition(", until you kill ")
    pid = int(pid_text)
    try:
        assert alive(pid)
        with mock_database(uri=uri, alias="visitor") as db:
            name = uri.rpartition("/")[2].partition("?")[0]
            assert db.client[name].things.find_one() == {"_id": 1}
        assert sorted(os.listdir(folder)) == ["data", "empty", "server.log"]
    finally:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid))
        shutil.rmtree(folder)


def test_a_server_that_was_to_be_kept_and_never_ran_leaves_no_folder(temporary: Path) -> None:
    server = MongoServer(engine_of("raise SystemExit(1)"), keep=True)
    with pytest.raises(MongoUnavailable):
        server.start()
    server.close()
    assert list(temporary.iterdir()) == []
