"""The command line, against a real server: what it prints, how it ends, what it leaves alone."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from kazoo.security import CREATOR_ALL_ACL

from sepelib.zookeeper import Client, Lock, ReadLock, Semaphore
from sepelib.zookeeper._cli import main
from sepelib.zookeeper._cli_output import duration, escaped
from sepelib.zookeeper.testing._hub import off_the_hub

PROGRAM = "python -m sepelib.zookeeper"


@pytest.fixture
def client(zookeeper: Any) -> Client:
    client: Client = zookeeper.client(timeout=10.0)
    return client


class Run:
    """Runs a command in this process; the output is kept."""

    def __init__(self, hosts: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._hosts = hosts
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def __call__(self, *arguments: str, hosts: str | None = None) -> int:
        self._capsys.readouterr()
        try:
            return main(["--hosts", hosts or self._hosts, *arguments])
        except SystemExit as end:  # of argparse
            return int(end.code or 0)
        finally:
            self.out, self.err = self._capsys.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def rows(self) -> list[list[str]]:
        """The cells of each line but the first; columns are two blanks apart at least."""
        lines = self.out.splitlines()[1:]
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


@pytest.fixture
def run(zookeeper: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(zookeeper.hosts, capsys)


class Program:
    """A command in a process of its own.

    Waited for off the hub: gevent's way to do so takes the exit status of all children, also of
    those that other tests start by the standard library.
    """

    def __init__(self, arguments: list[str], **options: Any) -> None:
        self.process = subprocess.Popen(arguments, text=True, **options)

    def communicate(self, text: str | None = None) -> tuple[str, str]:
        return off_the_hub(self.process.communicate, text, timeout=20.0)

    def wait(self, timeout: float = 20.0) -> int:
        return off_the_hub(self.process.wait, timeout)

    def errors(self, letters: int = -1) -> str:
        assert self.process.stderr is not None
        return off_the_hub(self.process.stderr.read, letters)

    def error_line(self) -> str:
        assert self.process.stderr is not None
        return off_the_hub(self.process.stderr.readline)

    def close(self) -> None:
        self.process.kill()
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def spawn(zookeeper: Any) -> Iterator[Callable[..., Program]]:
    programs = []

    def start(*arguments: str, **options: Any) -> Program:
        environment = {**os.environ, "ZOOKEEPER_HOSTS": zookeeper.hosts}
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-m", "sepelib.zookeeper", *arguments]
        program = Program(command, env=environment, **streams | options)
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.close()


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def held(lock: Any) -> Any:
    assert lock.acquire(timeout=5.0)
    return lock


def waiting(client: Client, lock: Any) -> None:
    before = len(client.get_children(lock.path))
    gevent.spawn(lock.acquire, timeout=30.0)
    wait_until(lambda: len(client.get_children(lock.path)) > before)


def used(client: Client, *paths: str) -> None:
    for path in paths:
        with Lock(client, path):
            pass


# What is held.


def test_locks_shows_who_holds_what_and_how_many_wait(client: Client, run: Run) -> None:
    lock = held(Lock(client, "/app/a", "host:1"))
    for _ in range(2):
        waiting(client, Lock(client, "/app/a"))
    readers = [held(ReadLock(client, "/app/deep/b", f"reader:{n}")) for n in range(5)]
    used(client, "/app/unused")

    assert run("locks", "/app") == 0

    assert run.err == ""
    assert run.rows() == [
        ["/app/a", "lock", "host:1", f"0x{lock.fencing_token:x}", "0s", "2"],
        ["/app/deep/b", "read", "reader:0, reader:1, reader:2 and 2 more", "0s", "0"],
    ]
    assert all(reader.is_acquired for reader in readers)


def test_locks_looks_at_the_whole_tree_unless_it_is_told_where(client: Client, run: Run) -> None:
    held(Lock(client, "/one/a"))
    held(Lock(client, "/two/b"))

    assert run("locks") == 0
    assert [row[0] for row in run.rows()] == ["/one/a", "/two/b"]
    assert run("locks", "/two", "/one", "--json") == 0
    assert [it["path"] for it in run.json["locks"]] == ["/one/a", "/two/b"]
    assert run("locks", "--depth", "1") == 0
    assert run.out == "nothing is held there\n"


def test_locks_of_kazoo_and_semaphores_are_shown(client: Client, run: Run) -> None:
    client.Lock("/k/lock", "kazoo").acquire()
    client.Semaphore("/k/sem", "leaser").acquire()
    client.Lock("/k/batch", "batch").acquire(ephemeral=False)
    semaphore = Semaphore(client, "/k/slots", "many", max_leases=3)
    semaphore.acquire(3)
    gevent.spawn(semaphore.acquire)
    wait_until(lambda: len(client.get_children("/k/slots")) == 2)

    assert run("locks", "/k") == 0

    shown = {row[0]: (row[1], row[2], *row[6:]) for row in run.rows()}
    assert shown == {
        "/k/lock": ("lock", "kazoo"),
        "/k/sem": ("lease", "leaser"),
        "/k/batch": ("lock", "batch", "not ephemeral"),
        "/k/slots": ("lease", "many", "3 leases"),
    }


def test_what_has_been_held_for_hours_while_others_wait_is_pointed_out(
    client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(Lock(client, "/app/a"))
    waiting(client, Lock(client, "/app/a"))
    held(Lock(client, "/app/b"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 2 * 3600 + 5 * 60)

    assert run("locks", "--json") == 0
    assert [(it["path"], it["notes"]) for it in run.json["locks"]] == [
        ("/app/a", ["long held"]),
        ("/app/b", []),
    ]
    assert run("locks") == 0
    assert all("2h05m" in row for row in run.rows())


def test_a_clock_that_is_behind_the_servers_is_said(
    client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(Lock(client, "/app/a"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 60)

    assert run("holders", "/app/a") == 0
    assert "behind the servers'" in run.err and run.err.count("\n") == 1


def test_holders_shows_everybody_in_the_order_of_their_turns(client: Client, run: Run) -> None:
    lock = held(Lock(client, "/app/a"))
    for name in ("first", "second", "third"):
        waiting(client, Lock(client, "/app/a", name))

    assert run("holders", "/app/a") == 0

    rows = run.rows()
    session = f"0x{client.session.session_id:x}"
    host, _, pid = lock.holder().identifier.rpartition(":")
    assert rows[0][:5] == ["holds", "lock", f"{host}:{pid}", host, pid]
    assert rows[0][6:] == ["0s", f"0x{lock.fencing_token:x}", session]
    assert [row[0] for row in rows[1:]] == ["waits 1", "waits 2", "waits 3"]
    assert [row[2] for row in rows[1:]] == ["first", "second", "third"]
    assert run("holders", "/app/a", "--json") == 0
    first = run.json["contenders"][0]
    assert first["token"] == f"0x{lock.fencing_token:x}" and first["pid"] == int(pid)
    assert first["holds"] and first["queued_since"].endswith("+00:00")


def test_holders_of_a_free_lock_and_of_none(client: Client, run: Run) -> None:
    used(client, "/app/a")

    assert run("holders", "/app/a") == 0
    assert run.out == "nobody holds it, nobody waits for it\n"
    assert run("holders", "/app/none") == 1
    assert run.err == f"{PROGRAM}: /app/none: no such node\n"
    assert run("locks", "/app/none") == 1


@pytest.mark.parametrize(
    "data",
    [b"\x1b[2J\x1b]0;x\x07\r\n\xe2\x80\xae", b"\xff\x00" * 50, b"z" * 1_000_000, b"{" * 999],
    ids=["terminal", "binary", "huge", "braces"],
)
def test_hostile_data_does_nothing_to_a_terminal(client: Client, run: Run, data: bytes) -> None:
    client.create(f"/app/a\u202e/{7:032x}__lock__", data, sequence=True, makepath=True)

    for command in (["locks", "/app"], ["holders", "/app/a\u202e"], ["gc", "/app"]):
        assert run(*command) == 0
        lines = run.out.split("\n")
        assert all(line.isprintable() and len(line) < 200 for line in lines)
        assert run(*command, "--json") == 0
        assert len(run.out) < 40_000 and run.json
    assert run("break", "/app/a\u202e", "--token", "1", "--yes") == 1
    assert run.err.count("\n") == 1 and run.err[:-1].isprintable() and len(run.err) < 1100


# Holds that are ended.


def test_break_ends_the_hold_with_that_token(client: Client, run: Run) -> None:
    lock = held(Lock(client, "/app/a", "host:1"))
    token = f"0x{lock.fencing_token:x}"

    assert run("break", "/app/a", "--token", token, "--yes") == 0
    assert run.out == f"taken from host:1, token {token}\n"
    assert lock.lost.wait(5.0) and lock.lost_reason == "deleted"
    again = held(Lock(client, "/app/a", "host:2"))
    assert run("break", "/app/a", f"--token={again.fencing_token}", "--yes", "--json") == 0
    assert run.json["broken"]["identifier"] == "host:2"


def test_break_refuses_what_is_not_the_holder(client: Client, run: Run) -> None:
    lock = held(Lock(client, "/app/a", "host:1"))

    assert run("break", "/app/a", "--token", "1", "--yes") == 1
    assert run.err.startswith(f"{PROGRAM}: lock /app/a: nobody holds it with token 0x1, but host:1")
    for arguments in (["/app/a"], ["/", "--token", "1"], ["/app/a", "--token", "x"]):
        assert run("break", *arguments) == 2
    lock.verify()


def test_break_asks_nobody_without_a_terminal(
    client: Client, spawn: Callable[..., Program]
) -> None:
    lock = held(Lock(client, "/app/a"))

    program = spawn("break", "/app/a", "--token", str(lock.fencing_token))
    out, err = program.communicate("y\n")

    assert (program.process.returncode, out) == (2, "") and "give --yes" in err
    lock.verify()


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), ("\n", 2), (signal.SIGINT, 130)], ids=str
)
def test_break_asks_at_a_terminal(
    client: Client, spawn: Callable[..., Program], answer: Any, status: int
) -> None:
    lock = held(Lock(client, "/app/a", "host:1"))
    terminal, tty = pty.openpty()
    try:
        program = spawn("break", "/app/a", "--token", str(lock.fencing_token), stdin=tty)
        question = program.errors(len("Take it from host:1"))
        lock.verify()
        if isinstance(answer, str):
            os.write(terminal, answer.encode())
        else:
            program.process.send_signal(answer)
        program.communicate()
    finally:
        os.close(terminal)
        os.close(tty)

    assert question == "Take it from host:1"
    assert program.process.returncode == status
    assert bool(client.get_children("/app/a")) is (status != 0)


# What is not used.


def test_gc_deletes_nothing_unless_it_is_told_to(client: Client, run: Run) -> None:
    used(client, "/app/a", "/app/b")
    client.create("/app/kept", b"data")

    for arguments in ([], ["--dry-run"]):
        assert run("gc", "/app", *arguments) == 0
        lines = run.out.splitlines()
        assert sorted(lines[:2]) == ["would delete /app/a", "would delete /app/b"]
        assert lines[2:] == ["4 nodes, 2 would go if they stay unused; left: data 1"]
    assert sorted(client.get_children("/app")) == ["a", "b", "kept"]
    assert run("gc", "/app", "--dry-run", "--delete") == 2
    assert run("gc") == 2


def test_gc_deletes_what_it_sees_unused_twice(client: Client, run: Run) -> None:
    used(client, "/app/a", "/app/b")
    held(Lock(client, "/app/c"))

    assert run("gc", "/app", "--delete", "--idle", "0.1") == 0
    assert sorted(run.out.splitlines()[:-1]) == ["deleted /app/a", "deleted /app/b"]
    assert "2 unused parents seen" in run.err
    assert client.get_children("/app") == ["c"]
    assert run("gc", "/app", "--delete", "--json") == 0  # nothing to wait for
    assert run.json["deleted"] == 0 and run.json["scanned"] == 2


def test_gc_deletes_contenders_of_no_session_if_it_is_told_to(client: Client, run: Run) -> None:
    client.Lock("/app/a", "batch").acquire(ephemeral=False)
    gevent.sleep(0.02)

    assert run("gc", "/app", "--delete", "--max-age", "0.01", "--matching", "other") == 0
    assert "not ephemeral" in run.out and len(client.get_children("/app/a")) == 1
    assert run("gc", "/app", "--delete", "--max-age", "0.01", "--matching", "batch") == 0
    assert client.get_children("/app/a") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--idle", "soon"],
        ["--idle", "-1"],
        ["--idle", "9" * 400],
        ["--max-age", "1y"],
        ["--max-age", "0"],
        ["--matching", "("],
        ["--depth", "0"],
        ["--rate", "0"],
        ["--rate", "1d"],
        ["--timeout", "0"],
        ["--timeout", "30d"],
    ],
)
def test_arguments_that_make_no_sense_are_said(run: Run, arguments: list[str]) -> None:
    assert run("gc", "/app", *arguments) == 2
    assert "Traceback" not in run.err and arguments[0] in run.err


def test_the_servers_own_nodes_are_left_to_them(run: Run, zookeeper: Any) -> None:
    root = zookeeper.hosts.partition("/")[0]
    assert run("gc", "/zookeeper/quota", hosts=root) == 2
    assert run.err == f"{PROGRAM}: /zookeeper/quota belongs to the servers themselves\n"


def test_what_may_not_be_read_is_held_all_the_same(
    client: Client, run: Run, zookeeper: Any
) -> None:
    client.create("/app")
    client.create("/app/a")
    owner = zookeeper.client(auth_data=[("digest", "me:secret")], default_acl=CREATOR_ALL_ACL)
    lock = held(Lock(owner, "/app/a"))
    token = hex(lock.fencing_token)

    for command in (["locks", "/app"], ["holders", "/app/a"]):
        assert run(*command) == 0
        assert token in run.out and "no permission to read who" in run.out
    assert run("holders", "/app/a", "--json") == 0
    assert [it["readable"] for it in run.json["contenders"]] == [False]
    assert run("break", "/app/a", "--token", token, "--yes") == 0
    assert lock.lost.wait(5.0)


# How it ends.


def test_no_server_is_one_sentence(run: Run) -> None:
    assert run("locks", "--timeout", "0.3", hosts="127.0.0.1:1") == 3
    assert run.err.startswith(f"{PROGRAM}: no connection to 127.0.0.1:1 within 0.3 s")
    assert run.err.count("\n") == 1 and run.out == ""


@pytest.mark.parametrize("command", ["locks", "gc"])
def test_servers_that_go_silent_are_said(
    client: Client, run: Run, proxy: Any, command: str
) -> None:
    client.create("/app")

    def shut() -> None:
        wait_until(lambda: proxy.counts()["get_children"])
        proxy.refuse()

    gevent.spawn(shut)
    with proxy.lose_answer_to("get_children", then="hold"):
        assert run(command, "/app", "--timeout", "0.5", hosts=proxy.hosts) == 3
    assert run.err.count("\n") == 1 and "Traceback" not in run.err


def test_which_servers_has_to_be_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZOOKEEPER_HOSTS", raising=False)

    assert main(["locks"]) == 2
    assert "--hosts or set ZOOKEEPER_HOSTS" in capsys.readouterr().err
    assert main(["locks", "--hosts", "a:b:c"]) == 2
    assert "--hosts a:b:c" in capsys.readouterr().err


def test_an_interrupt_is_one_line_and_nothing_is_deleted(
    client: Client, spawn: Callable[..., Program]
) -> None:
    used(client, "/app/a")
    program = spawn("gc", "/app", "--delete", "--idle", "1h")
    assert "looking again in 1h00m" in program.error_line()

    program.process.send_signal(signal.SIGINT)
    out, err = program.communicate()

    assert (program.process.returncode, out, err) == (130, "", f"{PROGRAM}: interrupted\n")
    assert client.get_children("/app") == ["a"]


def test_an_interrupt_is_heard_while_nobody_reads_the_output(
    client: Client, spawn: Callable[..., Program]
) -> None:
    transaction = client.transaction()
    transaction.create("/app")
    for number in range(300):  # more than a pipe takes
        transaction.create(f"/app/{number:0200}")
        name = f"/app/{number:0200}/{number:032x}__lock__0000000000"
        transaction.create(name, b"x" * 60, ephemeral=True)
    transaction.commit()
    program = spawn("locks", "/app")
    with gevent.Timeout(20.0, AssertionError("it did not come true")):
        gevent.socket.wait_read(program.process.stdout.fileno())
    gevent.sleep(0.2)

    program.process.send_signal(signal.SIGINT)

    assert program.wait(timeout=5.0) == 130
    assert program.errors() == f"{PROGRAM}: interrupted\n"


def test_an_output_that_takes_no_letters_of_that_kind_is_given_others(
    client: Client, spawn: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    held(Lock(client, "/app/ü", "ï"))

    out, err = spawn("locks", "/app").communicate()

    assert out.splitlines()[1].split()[:3] == ["/app/\\xfc", "lock", "\\xef"]
    assert err == ""


def test_an_output_that_cannot_be_written_is_said(spawn: Callable[..., Program]) -> None:
    with open("/dev/full", "w") as full:
        program = spawn("locks", stdout=full)
    assert program.wait() == 1
    assert program.errors() == (
        f"{PROGRAM}: the output cannot be written: [Errno 28] No space left on device\n"
    )


def test_closed_streams_are_no_error(client: Client, zookeeper: Any) -> None:
    held(Lock(client, "/app/a"))
    program = f"{sys.executable} -m sepelib.zookeeper --hosts {zookeeper.hosts}"
    for arguments, status in (("locks", 0), ("holders /none", 1)):
        script = f"exec {program} {arguments} <&- >&- 2>&-"
        assert Program(["/bin/sh", "-c", script]).wait() == status


def test_a_reader_that_has_seen_enough_is_no_error(
    client: Client, spawn: Callable[..., Program]
) -> None:
    held(Lock(client, "/app/a"))
    reading, writing = os.pipe()
    os.close(reading)
    program = spawn("locks", "/app", stdout=writing)
    os.close(writing)

    assert program.errors() == ""
    assert program.wait() == 0


# Credentials.


@pytest.mark.parametrize("by", ["environment", "file"])
def test_credentials_come_by_the_environment_or_a_file(
    zookeeper: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    owner = zookeeper.client(auth_data=[("digest", "me:se:cret")], default_acl=CREATOR_ALL_ACL)
    lock = held(Lock(owner, "/app/a", "host:1"))

    assert run("locks") == 0
    assert run.out == "nothing is held there\n"
    assert "1 nodes could not be listed: no permission" in run.err
    assert run("holders", "/app/a") == 1
    assert run.err == f"{PROGRAM}: /app/a: no permission to list it\n"

    arguments = []
    if by == "file":
        (tmp_path / "auth").write_text("me:se:cret\n")
        arguments = ["--auth-file", str(tmp_path / "auth")]
    else:
        monkeypatch.setenv("ZOOKEEPER_AUTH", "me:se:cret")
    assert run("locks", *arguments) == 0
    assert run.rows()[0][2] == "host:1"
    lock.verify()


def test_credentials_that_are_none_are_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZOOKEEPER_AUTH", "hunter2")
    assert run("locks") == 2
    assert "ZOOKEEPER_AUTH" in run.err and "hunter2" not in run.err
    assert run("locks", "--auth-file", str(tmp_path / "none")) == 2
    assert "No such file" in run.err


# For eyes.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7500, "2h05m"), (90000, "1d01h")],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("a\x1b[0m\n", "a\\x1b[0m\\n"),
        ("\u202e", "\\u202e"),
        ("x" * 48, "x" * 48),
        ("x" * 49, "x" * 45 + "..."),
        ("\x07" * 13, "\\x07" * 11 + "\\..."),
    ],
)
def test_a_text_is_one_line_and_short(text: str, shown: str) -> None:
    assert escaped(text) == shown
