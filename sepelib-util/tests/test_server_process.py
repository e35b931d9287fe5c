"""A server that is up when it says so, and gone with whoever started it."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.processes import Proc, ProgramNotFound
from sepelib.util.testing import (
    MissingComponent,
    ServerNotReady,
    ServerProcess,
    SupervisorLost,
    free_port,
    missing,
)

GENEROUS = 30.0

ECHO = """
    import os, socket, subprocess, sys
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    for worker in sys.argv[2:]:
        subprocess.Popen(["sh", "-c", worker])
    print("serving as", os.getpid(), flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"hello\\n")
"""
WORKERS = {
    "none": "true",
    "ignores TERM": "trap '' TERM; while :; do sleep 1000; done",
    "in a session of its own": "exec setsid sleep 1000",
    "double-forked": "(sleep 1000 &)",
    "a daemon": "(setsid sh -c 'sleep 1000 & exec sleep 1000' >/dev/null 2>&1 &)",
    "stopped": "kill -STOP $$",
}


def echo(*workers: str) -> Callable[[ServerProcess], list[str]]:
    code = textwrap.dedent(ECHO)
    return lambda server: [sys.executable, "-I", "-c", code, str(server.port), *workers]


def hello(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=1.0) as peer:
        peer.settimeout(0.3)
        return peer.recv(6) == b"hello\n"


def alive(pid: int) -> bool:
    stat = Proc().read(pid)
    return stat is not None and stat.alive


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


class Marked:
    """Finds processes by a variable of their environment, whoever their parent is by now."""

    def __init__(self) -> None:
        self.env = {**os.environ, "SEPELIB_TEST_MARK": os.urandom(8).hex()}

    def alive(self) -> list[int]:
        mark = self.env["SEPELIB_TEST_MARK"].encode()
        found = []
        for stat in Proc().snapshot().values():
            with contextlib.suppress(OSError):
                if stat.alive and mark in Path(f"/proc/{stat.pid}/environ").read_bytes():
                    found.append(stat.pid)
        return found


@pytest.fixture
def marked() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    try:
        wait_until(lambda: not marked.alive())
    finally:
        for pid in marked.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def supervisor_of(server: ServerProcess) -> int:
    assert server.pid is not None
    stat = Proc().read(server.pid)
    assert stat is not None
    return stat.ppid


# -- the life of a server --------------------------------------------------------------------------


def test_a_server_is_up_inside_the_block_and_gone_after_it(marked: Marked) -> None:
    with ServerProcess(echo(), ready=hello, env=marked.env) as server:
        assert hello(server)
        assert server.running
        assert server.pid is not None
        assert f"serving as {server.pid}" in server.log_tail()
        folder = server.folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert Path(f"/proc/{server.pid}/cwd").resolve() == folder
        supervisor = supervisor_of(server)
    assert not folder.exists()
    assert not alive(supervisor)
    assert not server.running
    assert server.pid is None
    server.close()


@pytest.mark.parametrize("worker", WORKERS)
def test_what_a_server_has_started_ends_with_it(worker: str, marked: Marked) -> None:
    with ServerProcess(
        echo(WORKERS[worker]), ready=hello, env=marked.env, stop_timeout=0.5
    ) as server:
        assert hello(server)
    assert not marked.alive()


def test_a_stop_is_a_sigterm_and_tells_the_status() -> None:
    script = "trap 'echo bye; exit 7' TERM; touch up; while :; do sleep 0.02; done"
    with ServerProcess(["sh", "-c", script], ready=lambda s: (s.folder / "up").exists()) as server:
        assert server.returncode is None
        assert server.stop() == 7
        assert server.returncode == 7
        assert not server.running
        assert server.stop() == 7
        assert server.log_tail(1) == "bye"


def test_a_signal_reaches_the_server_alone_and_its_end_can_be_waited_for() -> None:
    script = """
        (trap 'echo worker heard' HUP; touch up; while :; do sleep 0.02; done) &
        trap 'echo heard; exit 3' HUP; while :; do sleep 0.02; done
    """
    with ServerProcess(["sh", "-c", script], ready=lambda s: (s.folder / "up").exists()) as server:
        with pytest.raises(TimeoutError, match=r"server: still running after 0\.05 s"):
            server.wait(0.05)
        server.signal(signal.SIGHUP)
        assert server.wait(GENEROUS) == 3
        server.signal(signal.SIGHUP)  # nobody is there: nothing happens
        assert server.log_tail() == "heard"


def test_a_wait_obeys_the_current_deadline() -> None:
    with ServerProcess(["sleep", "1000"], ready=lambda _: True) as server:
        with deadline(0.05), pytest.raises(TimeoutError):
            server.wait(GENEROUS)
        assert server.running


def test_a_server_that_ignores_sigterm_is_killed_in_time() -> None:
    script = "trap '' TERM; touch up; while :; do sleep 1000; done"
    with ServerProcess(["sh", "-c", script], ready=lambda s: (s.folder / "up").exists()) as server:
        assert server.stop(0.2) == -signal.SIGKILL


def test_a_crash_and_a_restart_keep_port_and_folder(marked: Marked) -> None:
    with ServerProcess(echo(WORKERS["a daemon"]), ready=hello, env=marked.env) as server:
        pid, port, folder = server.pid, server.port, server.folder
        (folder / "data").touch()
        assert server.kill() == -signal.SIGKILL
        assert not marked.alive()
        server.start()
        assert (server.port, server.folder) == (port, folder)
        assert (folder / "data").exists()
        assert server.pid != pid
        assert hello(server)
        server.restart()
        assert hello(server)
        assert server.log_tail().count("serving as") == 3


def test_a_server_that_dies_by_itself_is_noticed_and_can_be_started(marked: Marked) -> None:
    with ServerProcess(echo(WORKERS["double-forked"]), ready=hello, env=marked.env) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        assert server.returncode == -signal.SIGKILL
        server.start()
        assert hello(server)
        assert len(marked.alive()) == 2  # the first one's worker went at the second start


def test_a_paused_server_does_not_answer_until_resumed() -> None:
    with ServerProcess(echo("sleep 1000"), ready=hello) as server:
        server.pause()
        assert server.running
        with pytest.raises(TimeoutError):
            hello(server)
        server.resume()
        wait_until(lambda: hello(server))
        server.pause()
        assert server.stop() == -signal.SIGTERM


def test_a_running_server_is_not_started_twice() -> None:
    with ServerProcess(echo(), ready=hello) as server:
        with pytest.raises(RuntimeError, match="already running"):
            server.start()
        assert hello(server)


def test_environment_and_working_directory_are_the_servers(tmp_path: Path) -> None:
    with ServerProcess(
        ["sh", "-c", 'echo "$FRUIT" >"$PWD/fruit"; exec sleep 1000'],
        ready=lambda _: (tmp_path / "fruit").exists() and (tmp_path / "fruit").stat().st_size > 0,
        env={"PATH": os.environ["PATH"], "FRUIT": "plum \udc80"},
        cwd=tmp_path,
    ) as server:
        assert (tmp_path / "fruit").read_bytes() == b"plum \x80\n"
        assert b"HOME=" not in Path(f"/proc/{server.pid}/environ").read_bytes()


# -- not ready -------------------------------------------------------------------------------------


def test_a_server_that_dies_at_the_start_is_told_at_once_with_its_log(marked: Marked) -> None:
    began = time.monotonic()
    server = ServerProcess(
        ["sh", "-c", "echo no such option >&2; exit 3"],
        ready=lambda _: False,
        name="zoo",
        env=marked.env,
        start_timeout=10 * GENEROUS,
    )
    with pytest.raises(ServerNotReady) as caught, server:
        pass
    assert time.monotonic() - began < GENEROUS
    assert str(caught.value) == "zoo: ended with status 3 before it was ready"
    assert "no such option" in caught.value.__notes__[0]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.log) == (str(caught.value), "no such option")


def test_a_server_that_is_never_ready_is_ended(marked: Marked) -> None:
    def refused(server: ServerProcess) -> bool:
        raise ConnectionRefusedError("not yet")

    server = ServerProcess(["sleep", "1000"], ready=refused, env=marked.env, start_timeout=0.2)
    with pytest.raises(ServerNotReady, match=r"not ready within 0\.2 s") as caught, server:
        pass
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_an_error_of_the_check_itself_passes_and_leaves_nothing(marked: Marked) -> None:
    folders = []

    def broken(server: ServerProcess) -> bool:
        folders.append(server.folder)
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        ServerProcess(["sleep", "1000"], ready=broken, env=marked.env),
    ):
        pass
    assert not folders[0].exists()


def test_a_missing_program_is_named(marked: Marked) -> None:
    with (
        pytest.raises(ProgramNotFound, match="sepelib-no-such-program"),
        ServerProcess(["sepelib-no-such-program"], ready=hello, env=marked.env),
    ):
        pass


def test_a_start_obeys_the_current_deadline(marked: Marked) -> None:
    server = ServerProcess(["sleep", "1000"], ready=lambda _: False, env=marked.env)
    with deadline(0.3), pytest.raises(ServerNotReady), server:
        pass
    with deadline(0.0), pytest.raises(DeadlineExceeded), server:
        pass


def test_a_failed_bind_is_tried_again_on_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerProcess(echo(), ready=hello)
        server._port = taken.getsockname()[1]  # what free_port() would give with bad luck
        taken.settimeout(0.0)
        with server:
            assert server.port != taken.getsockname()[1]
            assert hello(server)


def test_a_failed_bind_after_a_good_start_is_an_error_since_clients_know_the_port() -> None:
    with ServerProcess(echo(), ready=hello) as server:
        server.stop()
        with (
            socket.create_server(("127.0.0.1", server.port)),
            pytest.raises(ServerNotReady) as caught,
        ):
            server.start()
        assert "Address already in use" in caught.value.log


def test_a_free_port_can_be_bound() -> None:
    ports = [free_port() for _ in range(20)]
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


# -- the owner is gone -----------------------------------------------------------------------------

OWNER = """
    import os, sys, threading, time
    from sepelib.util.testing import ServerProcess

    server = ServerProcess({command}, ready=lambda s: (s.folder / "up").exists(), stop_timeout=5.0)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    print(server.folder, server.pid, os.getppid(), flush=True)
    {then}
"""
SERVER = ["sh", "-c", 'for w; do sh -c "$w" & done; touch up; wait; exec sleep 1000', "server"]


@contextlib.contextmanager
def owner(
    marked: Marked, then: str = "time.sleep(1000)", workers: list[str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """A process that has started a server, in a thread that has ended since."""
    command = SERVER + list(WORKERS.values() if workers is None else workers)
    code = textwrap.dedent(OWNER).format(command=command, then=textwrap.dedent(then))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=marked.env
    ) as popen:
        try:
            assert popen.stdout is not None
            folder, pid, _ = popen.stdout.readline().split()
            yield popen, Path(folder.decode()), int(pid)
        finally:
            popen.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_owner_is_killed(how: int, marked: Marked) -> None:
    with owner(marked) as (popen, folder, pid):
        assert alive(pid)
        assert len(marked.alive()) >= 2 + len(WORKERS) - 1
        popen.send_signal(how)
        popen.wait(GENEROUS)
        wait_until(lambda: not marked.alive())
        wait_until(lambda: not folder.exists())


def test_nothing_is_left_when_the_owner_forgets_to_close(marked: Marked) -> None:
    with owner(marked, then="pass") as (popen, folder, _):
        assert popen.wait(GENEROUS) == 0
        wait_until(lambda: not marked.alive())
        wait_until(lambda: not folder.exists())


@pytest.mark.parametrize("closing", [True, False])
def test_a_fork_of_the_owner_neither_ends_nor_keeps_the_server(
    closing: bool, marked: Marked
) -> None:
    then = f"""
        if os.fork() == 0:
            try:
                server.stop()
            except RuntimeError as e:
                print(e, flush=True)
            if {closing}:
                server.close()
            print("closed", flush=True)
        time.sleep(1000)
    """
    with owner(marked, then, workers=[]) as (popen, folder, pid):
        assert popen.stdout is not None
        assert b"belongs to process" in popen.stdout.readline()
        assert popen.stdout.readline() == b"closed\n"
        assert alive(pid)
        popen.kill()
        wait_until(lambda: not alive(pid))
        wait_until(lambda: not folder.exists())
        wait_until(lambda: len(marked.alive()) == 1)  # the supervisor takes a moment more
        (fork,) = marked.alive()
        os.kill(fork, signal.SIGKILL)


def test_an_owner_that_execs_something_else_is_gone_too(marked: Marked) -> None:
    then = "os.execvp('sleep', ['sleep', '1000'])"
    with owner(marked, then) as (popen, folder, pid):
        wait_until(lambda: not alive(pid))
        wait_until(lambda: not folder.exists())
        assert popen.poll() is None


def test_a_stopped_owner_keeps_its_server(marked: Marked) -> None:
    with owner(marked, workers=[]) as (popen, folder, pid):
        popen.send_signal(signal.SIGSTOP)
        wait_until(lambda: (Proc().read(popen.pid) or pytest.fail("gone")).state == "T")
        time.sleep(0.5)  # time in which something wrong could happen; nothing is waited for
        assert alive(pid)
        assert folder.exists()


# -- the supervisor is gone ------------------------------------------------------------------------


def test_a_server_does_not_outlive_its_supervisor(marked: Marked) -> None:
    with ServerProcess(echo("sleep 1000"), ready=hello, env=marked.env) as server:
        folder, pid, supervisor = server.folder, server.pid, supervisor_of(server)
        assert pid is not None
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not alive(pid))
        with pytest.raises(SupervisorLost, match=str(supervisor)):
            server.stop()
        assert not marked.alive()  # the worker is the owner's to find
        assert not folder.exists()


def test_a_supervisor_told_to_leave_takes_all_with_it(marked: Marked) -> None:
    with ServerProcess(echo(*WORKERS.values()), ready=hello, env=marked.env) as server:
        folder = server.folder
        os.kill(supervisor_of(server), signal.SIGTERM)
        wait_until(lambda: not marked.alive())
        wait_until(lambda: not folder.exists())


def test_a_request_that_was_given_up_does_not_answer_the_next() -> None:
    script = "trap '' TERM; touch up; while :; do sleep 0.02; done"
    with ServerProcess(["sh", "-c", script], ready=lambda s: (s.folder / "up").exists()) as server:
        supervision = server._supervised()
        supervisor = supervisor_of(server)
        os.kill(supervisor, signal.SIGSTOP)
        supervision._unsent = b'{"id": 0, "op": "status"}\n'
        resume = threading.Timer(0.2, os.kill, (supervisor, signal.SIGCONT))
        resume.start()
        assert server.kill() == -signal.SIGKILL
        resume.join()


def test_threads_may_ask_at_the_same_time() -> None:
    with ServerProcess(echo(), ready=hello) as server:
        pids: list[int | None] = []

        def ask() -> None:
            pids.extend(server.pid for _ in range(20))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        server.restart()
        for thread in threads:
            thread.join()
        assert len(pids) == 80
        assert None not in pids


# -- ZooKeeper -------------------------------------------------------------------------------------


def zookeeper(server: ServerProcess) -> list[str]:
    home = os.environ.get("ZOOKEEPER_HOME")
    jars = sorted(Path(home, "lib").glob("*.jar")) if home else []
    debian = Path("/usr/share/java/zookeeper.jar")
    if not jars and debian.exists():
        jars = [debian, debian.with_name("slf4j-simple.jar")]
    if not jars or not any(
        os.access(Path(folder, "java"), os.X_OK) for folder in os.get_exec_path()
    ):
        missing("ZooKeeper", "libzookeeper-java default-jre-headless")
    data = server.folder / "data"
    data.mkdir(exist_ok=True)
    config = server.folder / "zoo.cfg"
    config.write_text(
        f"tickTime=200\ndataDir={data}\nclientPort={server.port}\n"
        "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        "4lw.commands.whitelist=*\nmaxClientCnxns=0\nforceSync=no\n"
    )
    flags = ["-Xmx96m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1"]
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    return ["java", *flags, "-cp", ":".join(map(str, jars)), main, str(config)]


def serves(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=1.0) as peer:
        peer.sendall(b"srvr")
        answer = b""
        while data := peer.recv(4096):
            answer += data
    return b"Mode: " in answer


def test_a_zookeeper_starts_crashes_pauses_and_ends() -> None:
    with ServerProcess(zookeeper, ready=serves, name="zookeeper") as server:
        assert serves(server)
        assert "binding to port" in server.log_tail(1000)
        assert server.kill() == -signal.SIGKILL
        server.start()
        assert serves(server)
        server.pause()
        with pytest.raises(TimeoutError):
            serves(server)
        server.resume()
        assert serves(server)
        assert server.stop() == 128 + signal.SIGTERM  # the JVM's own way to say it
        folder = server.folder
        assert list((folder / "data").iterdir())
    assert not folder.exists()


def test_a_zookeeper_whose_port_is_taken_starts_on_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(0.0)
        server = ServerProcess(zookeeper, ready=serves, name="zookeeper")
        server._port = taken.getsockname()[1]
        with server:
            assert server.port != taken.getsockname()[1]


def test_a_zookeeper_is_gone_with_its_data_when_its_owner_is_killed() -> None:
    code = """
        import runpy, sys, time
        from sepelib.util.testing import ServerProcess
        tests = runpy.run_path(sys.argv[1])
        with ServerProcess(tests["zookeeper"], ready=tests["serves"], name="zookeeper") as server:
            print(server.pid, server.folder, flush=True)
            time.sleep(1000)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), __file__], stdout=subprocess.PIPE
    ) as popen:
        assert popen.stdout is not None
        pid, folder = popen.stdout.readline().split()
        assert Path(f"/proc/{int(pid)}/comm").read_text() == "java\n"
        assert os.path.exists(folder)
        popen.kill()
        popen.wait(GENEROUS)
        wait_until(lambda: not alive(int(pid)))
        wait_until(lambda: not os.path.exists(folder))


# -- missing ---------------------------------------------------------------------------------------


def test_a_missing_component_is_an_error_that_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SEPELIB_MISSING", raising=False)
    with pytest.raises(MissingComponent, match="svn is not installed: apt-get install subversion"):
        missing("svn", "subversion")
    error = MissingComponent("svn", "subversion")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.component, copy.package) == (str(error), "svn", "subversion")


def test_one_variable_turns_it_into_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPELIB_MISSING", "skip")
    with pytest.raises(unittest.SkipTest, match="subversion"):
        missing("svn", "subversion")
    monkeypatch.setenv("SEPELIB_MISSING", "1")
    with pytest.raises(MissingComponent):
        missing("svn", "subversion")
