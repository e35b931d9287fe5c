"""Processes end together with all that they started, and nobody else does."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import Timeout, monkey

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.processes import (
    OutputTooLarge,
    Proc,
    ProcessStat,
    ProcessTimeout,
    ProcessTree,
    ProgramNotFound,
    run,
)
from sepelib.util.testing import check_runner

GENEROUS = 30.0
Spawn = Callable[..., "subprocess.Popen[bytes]"]


class Marked:
    """Finds processes by a variable of their environment: independent of what the engine knows."""

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
    left = marked.alive()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "left behind"


@pytest.fixture
def spawn(marked: Marked) -> Iterator[Spawn]:
    """Starts a shell script that says "up" when it stands, in a session of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(script: str, *, own_session: bool = True) -> subprocess.Popen[bytes]:
        popen = subprocess.Popen(
            ["sh", "-c", script],
            stdout=subprocess.PIPE,
            env=marked.env,
            start_new_session=own_session,
        )
        started.append(popen)
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        return popen

    yield spawn
    for popen in started:
        with contextlib.suppress(ProcessLookupError):
            if popen.poll() is None:
                popen.kill()
        popen.wait(GENEROUS)
        assert popen.stdout is not None
        popen.stdout.close()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def struck_after(seconds: float) -> Iterator[type[BaseException]]:
    """A BaseException from outside: gevent's in a patched process, a signal handler's otherwise."""
    if monkey.is_module_patched("select"):
        with Timeout(seconds):
            yield Timeout
        return

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield KeyboardInterrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


KINDS = {
    "plain": "echo up; exec sleep 1000",
    "ignores TERM": "trap '' TERM; echo up; while :; do sleep 1000; done",
    "deep": 'sh -c \'sh -c "sh -c \\"echo up; sleep 1000; :\\"; :"; :\'; :',
    "child in a session of its own": "setsid sh -c 'echo up; sleep 1000; :' & wait",
    "orphan": "(sleep 1000 & echo up); sleep 1000; :",
    "orphan of another session": "setsid sh -c '(sleep 1000 & echo up); sleep 1000; :' & wait",
    "stopped": "sleep 1000 & echo up; kill -STOP $$; wait",
    "floods its output": "echo up; exec yes",
    "forks at TERM": "trap 'sleep 1000 & exit 0' TERM; echo up; while :; do sleep 0.05; done",
    "keeps forking": "trap '' TERM; echo up; while :; do sleep 1000 & sleep 0.02; done",
}


@pytest.fixture(params=["pidfd", "no pidfd"])
def pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no pidfd":

        def refuse(pid: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("pidfd")
@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_ends_and_leaves_nothing(kind: str, spawn: Spawn, marked: Marked) -> None:
    popen = spawn(KINDS[kind])
    with ProcessTree(popen.pid) as tree:
        ended = tree.end(0.5)

    assert not marked.alive()
    assert ended.survivors == ()
    assert not ended.already_dead
    assert popen.wait(GENEROUS) in (0, -signal.SIGTERM, -signal.SIGKILL)


def test_the_exit_status_stays_with_popen(spawn: Spawn) -> None:
    popen = spawn("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    with ProcessTree(popen.pid) as tree:
        ended = tree.end(GENEROUS)
    assert (ended.killed, ended.elapsed < GENEROUS / 2) == ((), True)
    assert popen.wait(GENEROUS) == 7


def test_who_ignores_term_is_killed_at_the_deadline_and_named(spawn: Spawn) -> None:
    popen = spawn("trap '' TERM; echo up; exec sleep 1000")
    with ProcessTree(popen.pid) as tree:
        ended = tree.end(0.3)
    assert ended.killed == (popen.pid,)
    assert 0.3 <= ended.elapsed < GENEROUS
    assert popen.wait(GENEROUS) == -signal.SIGKILL


def test_without_kill_the_survivors_are_told(spawn: Spawn) -> None:
    popen = spawn("trap '' TERM; echo up; exec sleep 1000")
    with ProcessTree(popen.pid) as tree:
        ended = tree.end(0.1, kill=False)
        assert (ended.killed, ended.survivors) == ((), (popen.pid,))
        assert popen.poll() is None
        assert tree.end(0.0, signum=signal.SIGKILL).killed == (popen.pid,)


def test_a_stopped_process_hears_its_sigterm(spawn: Spawn) -> None:
    popen = spawn("trap 'exit 7' TERM; echo up; kill -STOP $$; while :; do sleep 0.05; done")
    wait_until(lambda: Path(f"/proc/{popen.pid}/stat").read_text().split()[2] == "T")
    with ProcessTree(popen.pid) as tree:
        assert tree.end(GENEROUS).killed == ()
    assert popen.wait(GENEROUS) == 7


def test_a_leader_may_stop_its_workers_its_own_way(spawn: Spawn, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = f"trap 'echo TERM >>{log}' TERM; trap 'echo USR1 >>{log}; exit' USR1; echo up"
    popen = spawn(
        f"trap 'sleep 0.3; kill -USR1 $w; wait $w; exit 0' TERM; "
        f'sh -c "{worker}; while :; do sleep 0.05; done" & w=$!; wait'
    )
    with ProcessTree(popen.pid) as tree:
        assert tree.end(GENEROUS).killed == ()
    assert log.read_text() == "USR1\n"


def test_the_others_hear_when_half_the_time_is_over(spawn: Spawn) -> None:
    # A leader that leaves only when its worker has, and does not tell it to.
    popen = spawn("trap : TERM; sleep 1000 & w=$!; echo up; while kill -0 $w; do sleep 0.05; done")
    with ProcessTree(popen.pid) as tree:
        ended = tree.end(4.0)
    assert ended.killed == ()
    assert ended.elapsed >= 2.0


def test_a_plain_child_in_our_own_group_ends_alone(spawn: Spawn) -> None:
    one, other = (spawn(KINDS["plain"], own_session=False) for _ in range(2))
    with ProcessTree(one.pid) as tree:
        assert tree.members() == (one.pid,)
        tree.end(GENEROUS)
    assert one.wait(GENEROUS) == -signal.SIGTERM
    assert other.poll() is None


def test_tree_false_leaves_the_children(spawn: Spawn, marked: Marked) -> None:
    popen = spawn("sleep 1000 & echo up; wait")
    with ProcessTree(popen.pid) as tree, ProcessTree(popen.pid, tree=False) as leader:
        (_, child) = tree.members()
        leader.end(GENEROUS)
        assert marked.alive() == [child]
        assert tree.end(GENEROUS).already_dead is False


def test_a_process_that_is_gone_is_already_dead(spawn: Spawn) -> None:
    popen = spawn("echo up")
    assert popen.wait(GENEROUS) == 0
    with ProcessTree(popen.pid) as tree:
        assert not tree.alive()
        assert tree.wait(GENEROUS)
        ended = tree.end(GENEROUS)
    assert ended[:3] == (True, (), ())
    assert ended.elapsed < GENEROUS / 2


def test_a_zombie_is_dead_and_keeps_its_status(spawn: Spawn) -> None:
    popen = spawn("echo up; exit 3")
    with ProcessTree(popen.pid) as tree:
        assert tree.wait(GENEROUS)
        assert tree.end(GENEROUS).already_dead
    assert popen.wait(GENEROUS) == 3


def test_a_process_whose_main_thread_has_ended_is_alive(marked: Marked) -> None:
    code = """
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(1000,)).start()
        print("up", flush=True)
        ctypes.CDLL(None).syscall({"x86_64": 60}.get(__import__("os").uname().machine, 93), 0)
    """
    popen = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, env=marked.env
    )
    with popen, ProcessTree(popen.pid) as tree:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        wait_until(lambda: Path(f"/proc/{popen.pid}/stat").read_text().split()[2] == "Z")
        assert tree.alive()
        assert tree.end(GENEROUS).survivors == ()
        assert popen.wait(GENEROUS) == -signal.SIGTERM


def test_a_name_with_spaces_and_parentheses_is_read_over(marked: Marked) -> None:
    code = "open('/proc/self/comm', 'w').write('a) R 1 (b'); print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=marked.env,
    ) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        assert "(a) R 1 (b)" in Path(f"/proc/{popen.pid}/stat").read_text()
        stat = Proc().read(popen.pid)
        assert stat is not None
        assert (stat.ppid, stat.pgid) == (os.getpid(), os.getpgrp())
        popen.kill()


def test_the_waiter_does_not_stop_the_others(spawn: Spawn) -> None:
    ticks, over = [], threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    popen = spawn(KINDS["ignores TERM"])
    with ProcessTree(popen.pid) as tree:
        before = len(ticks)
        tree.end(1.0)
        during = len(ticks) - before
    before = len(ticks)
    with pytest.raises(ProcessTimeout):
        run(["sh", "-c", "yes & yes >&2"], timeout=0.5, max_output=1 << 40)
    flooded = len(ticks) - before
    over.set()
    ticker.join()
    assert during >= 10
    assert flooded >= 5


def test_what_strikes_during_the_wait_passes_and_signals_stop(spawn: Spawn) -> None:
    popen = spawn("trap '' TERM; echo up; exec sleep 1000")
    before = open_descriptors()
    with struck_after(0.2) as kind, pytest.raises(kind), ProcessTree(popen.pid) as tree:
        tree.end(GENEROUS)
    wait_until(lambda: open_descriptors() <= before)  # gevent's os.close() waits for its loop
    assert popen.poll() is None


# -- nobody else ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [1, 0, -1, -12345])
def test_what_is_not_the_pid_of_one_process_is_refused(pid: int) -> None:
    with pytest.raises(ValueError, match="never ended"):
        ProcessTree(pid)


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()])
def test_we_and_our_ancestors_are_refused(pid: int) -> None:
    with pytest.raises(ValueError, match="never ended"):
        ProcessTree(pid)


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *args]


def test_the_leader_of_our_group_is_refused() -> None:
    code = """
        import sys
        from sepelib.util.processes import ProcessTree
        ProcessTree(int(sys.argv[1]))
    """
    with subprocess.Popen(["sleep", "1000"], process_group=0) as leader:
        with subprocess.Popen(
            python(code, str(leader.pid)), process_group=leader.pid, stderr=subprocess.PIPE
        ) as member:
            told = member.communicate(timeout=GENEROUS)[1]
        died = leader.poll()
        leader.kill()
    assert b"ValueError: process" in told
    assert died is None


class Table(Proc):
    """A process table of our own making, on top of the real one."""

    def __init__(self, *stats: ProcessStat) -> None:
        super().__init__()
        self.made = {stat.pid: stat for stat in stats}

    def read(self, pid: int) -> ProcessStat | None:
        return self.made.get(pid) or super().read(pid)

    def snapshot(self) -> dict[int, ProcessStat]:
        return super().snapshot() | self.made


A = 1 << 30  # above every pid_max


def stat(pid: int, ppid: int, *, group: int = 1, start: int = 100) -> ProcessStat:
    return ProcessStat(pid, "S", ppid, group, group, 1, start)


def test_members_are_descendants_and_whom_the_leaders_of_sessions_led() -> None:
    table = Table(
        stat(A, 1, group=A),
        stat(A + 1, A, group=A + 1),
        stat(A + 2, A + 1, group=A + 1),
        stat(A + 3, 1, group=A + 1),  # orphan in the session of a descendant
        stat(A + 4, A + 3, group=A + 4),
        stat(A + 5, 1, group=A),  # orphan in the leader's
        stat(A + 6, 1, group=A + 6),  # a stranger
        stat(A + 7, A, group=os.getpgrp()),
        stat(A + 8, 1, group=os.getpgrp()),  # of our group only
    )
    with ProcessTree(A, proc=table) as tree:
        assert set(tree.members()) == {A, A + 1, A + 2, A + 3, A + 4, A + 5, A + 7}


def test_a_group_is_enough_and_so_is_a_session() -> None:
    table = Table(
        stat(A, 1, group=A), stat(A + 1, 1)._replace(pgid=A), stat(A + 2, 1)._replace(sid=A)
    )
    with ProcessTree(A, proc=table) as tree:
        assert set(tree.members()) == {A, A + 1, A + 2}


def test_our_own_session_is_not_ended_with_its_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getsid", lambda _: A)
    with ProcessTree(A, proc=Table(stat(A, 1, group=A), stat(A + 1, 1, group=A))) as tree:
        assert tree.members() == (A,)


def test_who_was_seen_once_stays_when_its_parents_are_gone() -> None:
    table = Table(stat(A, 1), stat(A + 1, A), stat(A + 2, A + 1))
    with ProcessTree(A, proc=table) as tree:
        tree.members()
        table.made = {A + 2: stat(A + 2, 1), A + 3: stat(A + 3, A + 2)}
        assert tree.members() == (A + 2, A + 3)


def test_a_child_older_than_its_parent_is_somebody_elses() -> None:
    table = Table(stat(A, 1, start=100), stat(A + 1, A, start=99))
    with ProcessTree(A, proc=table) as tree:
        assert tree.members() == (A,)


def test_a_session_number_that_was_given_away_proves_nothing() -> None:
    table = Table(stat(A, 1, group=A))
    with ProcessTree(A, proc=table) as tree:
        tree.members()
        table.made = {A: stat(A, 1, group=A, start=200), A + 1: stat(A + 1, A, group=A, start=201)}
        assert tree.members() == ()
        del table.made[A]
        assert tree.members() == ()  # not even when the stranger has died in turn


def test_what_is_left_of_a_session_of_ours_is_known_without_its_leader() -> None:
    table = Table(stat(A + 1, 1, group=A))
    with ProcessTree(A, proc=table, own_session=True) as tree:
        assert tree.members() == (A + 1,)
        table.made[A] = stat(A, 1, group=A)
        assert tree.members() == (A + 1,)
    with ProcessTree(A, proc=Table(stat(A, 1, group=A + 1)), own_session=True) as tree:
        assert tree.members() == ()


@pytest.mark.usefixtures("pidfd")
def test_another_start_time_is_another_process(spawn: Spawn) -> None:
    popen = spawn(KINDS["plain"])
    real = Proc().read(popen.pid)
    assert real is not None
    with ProcessTree(popen.pid, start=real.start + 1) as tree:
        assert tree.end(GENEROUS).already_dead
    table = Table(real)
    for whole in True, False:
        with ProcessTree(popen.pid, start=real.start, tree=whole, proc=table) as tree:
            assert tree.alive()
            table.made[popen.pid] = real._replace(start=real.start + 1)
            assert not tree.alive()
            assert tree.end(GENEROUS).already_dead
            table.made[popen.pid] = real
    assert popen.poll() is None


RECYCLING = """
    import errno, os, signal, subprocess, sys, time
    from sepelib.util.processes import ProcessTree

    if sys.argv[1] == "no pidfd":
        def refuse(pid):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        os.pidfd_open = refuse

    first = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    tree = ProcessTree(first.pid)
    leader = ProcessTree(first.pid, tree=False)
    start = tree.start
    tree.members()
    first.kill()
    first.wait()
    time.sleep(0.05)        # start times count hundredths of a second
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(first.pid - 1))
    second = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    assert second.pid == first.pid, (first.pid, second.pid)

    for seen in tree, leader:
        assert not seen.alive()
        assert seen.end(0.2).already_dead
        seen.send(signal.SIGKILL)
    assert ProcessTree(first.pid, start=start).end(0.2).already_dead
    assert second.poll() is None
    assert ProcessTree(second.pid).end(10.0).survivors == ()
    assert second.wait() == -signal.SIGTERM
"""


@pytest.mark.parametrize("way", ["pidfd", "no pidfd"])
def test_a_recycled_pid_is_not_signalled(way: str) -> None:
    # A PID namespace of its own: there the next pid can be chosen, and nobody else takes it.
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if run([*unshare, "true"], timeout=GENEROUS).returncode:
        unshare += ["--user", "--map-root-user"]
    if run([*unshare, "true"], timeout=GENEROUS).returncode:
        # No package helps against a kernel that refuses; the made-up tables here still test it.
        pytest.skip("this kernel or container permits no PID namespace")
    done = run([*unshare, *python(RECYCLING, way)], timeout=GENEROUS)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_process_that_is_not_ours_passes_the_permission_error(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = spawn(KINDS["plain"])
    if os.geteuid() == 0:
        code = """
            import os, sys
            from sepelib.util.processes import ProcessTree
            tree = ProcessTree(int(sys.argv[1]))
            os.setuid(65534)
            tree.end(0.2)
        """
        done = run(python(code, str(popen.pid)), timeout=GENEROUS)
        assert b"PermissionError: " in done.stderr
    else:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        with ProcessTree(popen.pid) as tree, pytest.raises(PermissionError):
            tree.end(0.2)
    assert popen.poll() is None


def test_a_member_that_is_not_ours_is_a_survivor_and_spares_nobody_else(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = spawn("sleep 1000 & echo up; wait")
    with ProcessTree(popen.pid) as tree:
        (_, child) = tree.members()
        real = signal.pidfd_send_signal

        def refuse(fd: int, signum: int) -> None:
            if f"Pid:\t{child}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            real(fd, signum)

        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        assert tree.end(0.2, kill_timeout=0.2).survivors == (child,)
        monkeypatch.undo()
        assert tree.end(GENEROUS).survivors == ()


def test_a_tree_ends_when_nearly_all_descriptors_are_taken(spawn: Spawn) -> None:
    popen = spawn("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo up; wait")
    code = """
        import os, resource, sys
        from sepelib.util.processes import ProcessTree
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, highest + 3))
        with ProcessTree(int(sys.argv[1])) as tree:
            assert len(tree.members()) == 7
            assert tree.end(5.0).survivors == ()
    """
    done = run(python(code, str(popen.pid)), timeout=GENEROUS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert popen.wait(GENEROUS) == -signal.SIGTERM


# -- run -------------------------------------------------------------------------------------------


def test_run_is_a_runner() -> None:
    before = open_descriptors()
    check_runner(run)
    wait_until(lambda: open_descriptors() <= before)  # gevent's os.close() waits for its loop


def test_run_does_not_start_when_the_deadline_is_over(tmp_path: Path) -> None:
    with deadline(0.0), pytest.raises(DeadlineExceeded):
        run(["touch", str(tmp_path / "started")], timeout=GENEROUS)
    assert not list(tmp_path.iterdir())


def test_a_child_that_holds_the_output_does_not_hold_us_past_the_deadline(marked: Marked) -> None:
    began = time.monotonic()
    with pytest.raises(ProcessTimeout):
        run(["sh", "-c", "echo up; sleep 1000 & exit 0"], timeout=0.5, env=marked.env)
    assert time.monotonic() - began < GENEROUS
    assert not marked.alive()


def test_a_daemon_that_has_let_go_of_the_output_stays(marked: Marked) -> None:
    script = "setsid sleep 1000 >/dev/null 2>&1 </dev/null &"
    assert run(["sh", "-c", script], timeout=GENEROUS, env=marked.env).returncode == 0
    (pid,) = marked.alive()
    with ProcessTree(pid) as tree:
        tree.end(GENEROUS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_strikes_during_a_run_passes_and_leaves_nothing(kind: str, marked: Marked) -> None:
    before = open_descriptors()
    with struck_after(0.3) as strike, pytest.raises(strike):
        run(["sh", "-c", KINDS[kind]], timeout=GENEROUS, env=marked.env, max_output=1 << 40)
    assert not marked.alive()
    wait_until(lambda: open_descriptors() <= before)  # gevent's os.close() waits for its loop


def test_what_strikes_twice_kills_at_once(marked: Marked) -> None:
    before = time.monotonic()
    with (
        struck_after(0.3) as strike,
        pytest.raises(strike),
        deadline(0.1),
    ):  # the first is the timeout: the second finds the tree being ended
        run(["sh", "-c", KINDS["ignores TERM"]], timeout=GENEROUS, env=marked.env)
    assert time.monotonic() - before < GENEROUS
    wait_until(lambda: not marked.alive())


def test_a_timeout_that_strikes_while_the_program_is_started_leaves_nothing(
    marked: Marked,
) -> None:
    code = """
        from gevent import monkey, Timeout
        monkey.patch_all()
        from sepelib.util.processes import run
        for _ in range(20):
            try:
                with Timeout(0):
                    run(["sleep", "1000"], timeout=30.0)
            except Timeout:
                print("struck")
    """
    done = run(python(code), timeout=GENEROUS, env=marked.env)
    assert (done.stdout.split(), done.stderr) == ([b"struck"] * 20, b"")
    assert not marked.alive()


def test_a_callers_locale_stands_and_ours_is_not_translated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    show = ["sh", "-c", "echo $LC_ALL $LANGUAGE"]
    assert run(show, timeout=GENEROUS).stdout == b"C.UTF-8\n"
    assert run(show, timeout=GENEROUS, env={"LC_ALL": "POSIX"}).stdout == b"POSIX\n"


@pytest.mark.parametrize("args", ["true", b"true", []])
def test_a_command_line_is_not_taken_for_a_list(args: list[str]) -> None:
    with pytest.raises(TypeError):
        run(args, timeout=GENEROUS)


def test_a_missing_folder_is_not_called_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        run(["true"], timeout=GENEROUS, cwd=tmp_path / "none")
    assert not isinstance(caught.value, ProgramNotFound)
    assert str(tmp_path / "none") in str(caught.value)


@pytest.mark.parametrize(
    "error", [ProcessTimeout("svn", 1.5), OutputTooLarge("svn", 100), ProgramNotFound("svn")]
)
def test_an_error_pickles_and_names_the_program(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert str(error).startswith("svn: ")


def test_threads_run_programs_at_the_same_time() -> None:
    results: list[bytes] = []

    def work(n: int) -> None:
        results.append(run(["printf", "%s", str(n)], timeout=GENEROUS).stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [b"%d" % n for n in range(8)]
