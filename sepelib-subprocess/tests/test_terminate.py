"""A process ends together with all that it started, the report is true, nobody else is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import gevent.subprocess
import psutil
import pytest
from gevent import monkey

import sepelib.subprocess
from sepelib.subprocess import (
    OutputTooLarge,
    PopenLike,
    ProcessFailed,
    ProcessSurvived,
    ProcessTimeout,
    ProgramNotFound,
    PsutilLike,
    Termination,
    run,
    terminate,
)
from sepelib.subprocess.testing import Kind, Processes
from sepelib.util.deadline import deadline
from sepelib.util.processes import Proc
from sepelib.util.testing import check_errors

pytest_plugins = ["sepelib.subprocess.pytest_plugin"]

GENEROUS = 30.0
TERM, KILL = -signal.SIGTERM, -signal.SIGKILL
PATCHED = monkey.is_module_patched("select")


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [stat.pid for stat in Proc().snapshot().values() if stat.ppid == pid and stat.alive]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *args]


# -- the whole tree, and a true report -------------------------------------------------------------

REPORTS = {  # returncode, killed, already_dead
    Kind.PLAIN: (TERM, False, False),
    Kind.IGNORES_TERM: (KILL, True, False),
    Kind.EXITS_7_AT_TERM: (7, False, False),
    Kind.FORKING: (TERM, False, False),
    Kind.DOUBLE_FORKING: (TERM, False, False),
    Kind.SETSID: (TERM, False, False),
    Kind.DOUBLE_FORKING_SETSID: (TERM, False, False),
    Kind.STOPPED: (TERM, False, False),
    Kind.FLOODING: (TERM, False, False),
    Kind.ZOMBIE: (3, False, True),
    Kind.HAS_A_ZOMBIE: (TERM, False, False),
    Kind.FORKS_AT_TERM: (0, False, False),
    Kind.KEEPS_FORKING: (KILL, True, False),
    Kind.ENDED_BUT_ITS_CHILD: (3, False, False),
}


def test_each_kind_of_child_has_its_report_here() -> None:
    assert set(REPORTS) == set(Kind)


@pytest.mark.usefixtures("pidfd")
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ENDED_BUT_ITS_CHILD])
def test_a_tree_ends_and_leaves_nothing(kind: Kind, processes: Processes) -> None:
    popen = processes.start(kind)

    # Half a second is for those who will not listen, and not to be the measure of the others.
    listens = not REPORTS[kind][1]
    ended = terminate(popen, GENEROUS if listens else 0.5)

    assert processes.alive() == []
    assert (ended.returncode, ended.killed, ended.already_dead) == REPORTS[kind]
    assert ended.survivors == ()
    assert 0 <= ended.elapsed < GENEROUS / 2
    assert popen.wait(0) == ended.returncode


@pytest.mark.usefixtures("pidfd")
def test_orphans_of_a_dead_leader_are_ended_while_its_status_still_waits(
    processes: Processes,
) -> None:
    popen = processes.start(Kind.ENDED_BUT_ITS_CHILD)
    ended = terminate(popen, GENEROUS)
    assert ended.returncode == 3
    if not PATCHED:
        assert not ended.already_dead
        assert processes.alive() == []
    else:  # gevent's loop has reaped it: whose the orphan is can be proved no longer
        assert ended.already_dead
        assert len(processes.kill()) == 1


def test_a_hundred_processes_end_together(processes: Processes) -> None:
    popen = processes.start(
        "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do "
        "sleep 1000 & done; wait' & done; sleep 0.1; echo up; wait"
    )
    wait_until(lambda: len(processes.alive()) == 100)
    assert terminate(popen, GENEROUS).returncode == TERM
    assert processes.alive() == []


def test_the_deadline_is_one_for_all(processes: Processes) -> None:
    popen = processes.start(
        "trap '' TERM; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo up; wait"
    )
    ended = terminate(popen, 1.0)
    assert ended.killed
    assert 1.0 <= ended.elapsed < 5.0


def test_another_signal_may_ask(processes: Processes) -> None:
    popen = processes.start(
        "trap 'exit 5' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"
    )
    ended = terminate(popen, GENEROUS, signal=signal.SIGUSR1)
    assert (ended.returncode, ended.killed) == (5, False)


def test_sigkill_as_the_signal_asks_nobody(processes: Processes) -> None:
    ended = terminate(processes.start(Kind.IGNORES_TERM), GENEROUS, signal=signal.SIGKILL)
    assert (ended.returncode, ended.killed) == (KILL, True)
    assert ended.elapsed < GENEROUS / 2


def test_a_timeout_of_zero_kills_at_once(processes: Processes) -> None:
    assert terminate(processes.start(Kind.IGNORES_TERM), 0).returncode == KILL


@pytest.mark.parametrize("timeout", [1e9, float("inf")])
def test_a_timeout_may_be_very_long(timeout: float, processes: Processes) -> None:
    assert terminate(processes.start(Kind.EXITS_7_AT_TERM), timeout).returncode == 7


def test_without_kill_the_survivors_are_told(processes: Processes) -> None:
    popen = processes.start("trap '' TERM; sleep 1000 & echo up; wait; wait")
    (child,) = children_of(popen.pid)
    ended = terminate(popen, 0.1, kill=False)
    assert (ended.returncode, ended.killed, ended.already_dead) == (None, False, False)
    assert set(ended.survivors) == {popen.pid, child}
    assert popen.poll() is None
    assert terminate(popen, 0).survivors == ()


def test_tree_false_ends_only_the_process(processes: Processes) -> None:
    popen = processes.start("sleep 1000 & echo up; wait")
    children = children_of(popen.pid)
    assert terminate(popen, GENEROUS, tree=False).returncode == TERM
    assert processes.alive() == children
    processes.kill()


def test_a_child_of_our_own_group_ends_alone(processes: Processes) -> None:
    one, other = (processes.start(Kind.PLAIN, own_session=False) for _ in range(2))
    assert terminate(one, GENEROUS).returncode == TERM
    assert other.poll() is None
    terminate(other, GENEROUS)


def test_the_current_deadline_does_not_cut_it(processes: Processes) -> None:
    popen = processes.start("trap 'sleep 0.5; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    with deadline(0.1):
        assert terminate(popen, GENEROUS).returncode == 7


def test_a_second_call_finds_it_dead(processes: Processes) -> None:
    popen = processes.start(Kind.EXITS_7_AT_TERM)
    assert terminate(popen, GENEROUS).returncode == 7
    again = terminate(popen, GENEROUS)
    assert again[:3] == (7, False, True)
    assert again.elapsed < GENEROUS / 2


def test_two_may_end_it_at_once(processes: Processes) -> None:
    popen = processes.start(Kind.EXITS_7_AT_TERM)
    found: list[Termination] = []
    threads = [
        threading.Thread(target=lambda: found.append(terminate(popen, GENEROUS))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ended.returncode for ended in found] == [7, 7]


def test_the_waiter_does_not_stop_the_others(processes: Processes) -> None:
    ticks, over = [], threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    popen = processes.start(Kind.IGNORES_TERM)
    before = len(ticks)
    terminate(popen, 1.0)
    during = len(ticks) - before
    over.set()
    ticker.join()
    assert during >= 10


def test_hardly_any_processor_time_is_used_while_waiting(processes: Processes) -> None:
    popen = processes.start(Kind.IGNORES_TERM)
    used = time.process_time()
    terminate(popen, 2.0)
    assert time.process_time() - used < 1.0


def test_what_strikes_during_the_wait_passes_and_signals_stop(
    processes: Processes,
    struck_after: Callable[[float], AbstractContextManager[type[BaseException]]],
) -> None:
    popen = processes.start(Kind.IGNORES_TERM)
    before = open_descriptors()
    with struck_after(0.2) as kind, pytest.raises(kind):
        terminate(popen, GENEROUS)
    wait_until(lambda: open_descriptors() <= before)  # gevent's os.close() waits for its loop
    assert popen.poll() is None
    terminate(popen, 0)


# -- what a process is named by, and whose its status is -------------------------------------------


@pytest.mark.parametrize(
    "named",
    [
        lambda popen: popen,
        lambda popen: popen.pid,
        lambda popen: psutil.Process(popen.pid),
    ],
    ids=["Popen", "pid", "psutil.Process"],
)
def test_popen_wait_still_returns_the_status(
    named: Callable[[PopenLike], PopenLike | PsutilLike | int], processes: Processes
) -> None:
    popen = processes.start(Kind.EXITS_7_AT_TERM)
    ended = terminate(named(popen), GENEROUS)
    # By a bare pid gevent's loop may have been faster, and keeps the status for the Popen.
    assert ended.returncode in ((7, None) if PATCHED else (7,))
    assert not ended.killed
    assert popen.wait(GENEROUS) == 7


@pytest.mark.parametrize("maker", [gevent.subprocess.Popen, psutil.Popen])
def test_a_popen_of_gevent_or_psutil_will_do(
    maker: Callable[..., PopenLike], processes: Processes
) -> None:
    with open(os.devnull, "wb") as null:
        popen = maker(["sleep", "1000"], env=processes.env, stdout=null)
    assert terminate(popen, GENEROUS).returncode == TERM
    assert popen.wait() == TERM


def test_a_thread_in_wait_and_we_see_one_status(processes: Processes) -> None:
    popen = processes.start(Kind.EXITS_7_AT_TERM)
    seen: list[int] = []
    waiter = threading.Thread(target=lambda: seen.append(popen.wait()))
    waiter.start()
    assert terminate(popen, GENEROUS).returncode == 7
    waiter.join()
    assert seen == [7]


FORKED = """
    import os, signal, time
    from sepelib.subprocess import terminate

    def fork():
        if pid := os.fork():
            return pid
        time.sleep(1000)

    other = fork()
    pid = fork()
    ended = terminate(pid, 30.0)
    assert (ended.returncode, ended.killed) == (-15, False), ended
    assert os.waitpid(pid, 0) == (pid, 15)          # it was left for us

    pid = fork()
    assert terminate(pid, 30.0, reap=True).returncode == -15
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
    else:
        raise AssertionError("not reaped")
    assert os.waitpid(other, os.WNOHANG) == (0, 0)
    assert terminate(other, 30.0, reap=True).returncode == -15
"""


def test_a_forked_child_is_left_for_its_owner_or_reaped_on_request(processes: Processes) -> None:
    done = run(python(FORKED), timeout=GENEROUS, env=processes.env)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_forked_child_is_reaped_where_gevent_reaps_too(processes: Processes) -> None:
    code = """
        from gevent import monkey
        monkey.patch_all()
        import os, time
        from sepelib.subprocess import terminate
        pid = os.fork()
        if not pid:
            time.sleep(1000)
        assert terminate(pid, 30.0, reap=True).returncode == -15
    """
    done = run(python(code), timeout=GENEROUS, env=processes.env)
    assert (done.returncode, done.stderr) == (0, b"")


def test_of_a_stranger_no_status_is_known(processes: Processes) -> None:
    popen = processes.start("(exec sleep 1000) & echo up; wait; exit 4")
    (stranger,) = children_of(popen.pid)
    ended = terminate(stranger, GENEROUS, reap=True)
    assert (ended.returncode, ended.killed, ended.already_dead) == (None, False, False)
    assert popen.wait(GENEROUS) == 4


def test_a_zombie_of_another_parent_is_dead(processes: Processes) -> None:
    popen = processes.start(Kind.HAS_A_ZOMBIE)

    def zombies() -> list[int]:
        table = Proc().snapshot().values()
        return [stat.pid for stat in table if stat.ppid == popen.pid and stat.state == "Z"]

    wait_until(zombies)
    (zombie,) = zombies()
    for named in zombie, psutil.Process(zombie):
        ended = terminate(named, GENEROUS)
        assert ended[:3] == (None, False, True)
        assert ended.elapsed < GENEROUS / 2
    terminate(popen, GENEROUS)


def test_a_status_that_somebody_took_is_not_made_up() -> None:
    # The stdlib's Popen.wait() says 0 then.
    code = """
        import os, subprocess
        from sepelib.subprocess import terminate
        popen = subprocess.Popen(["sh", "-c", "exit 3"])
        os.waitpid(popen.pid, 0)
        assert terminate(popen)[:3] == (None, False, True)
        assert popen.returncode is None
    """
    done = run(python(code), timeout=GENEROUS)
    assert (done.returncode, done.stderr) == (0, b"")


# -- nobody else -----------------------------------------------------------------------------------


class Made:
    """A Popen or a psutil.Process, as much as is looked at."""

    def __init__(self, pid: int, **fields: object) -> None:
        self.pid = pid
        self.__dict__.update(fields)


def made_popen(pid: int, returncode: int | None) -> PopenLike:
    def never(timeout: object = None) -> None:
        raise AssertionError("waited for")

    return Made(pid, returncode=returncode, poll=never, wait=never)  # type: ignore[return-value]


def made_psutil(pid: int, created: Callable[[], float], **fields: object) -> PsutilLike:
    return Made(pid, create_time=created, **fields)  # type: ignore[return-value]


def raises(error: Exception) -> Callable[[], float]:
    def create_time() -> float:
        raise error

    return create_time


@pytest.fixture
def innocent(processes: Processes) -> Iterator[int]:
    """The pid of a process that has to live."""
    popen = processes.start(Kind.PLAIN)
    yield popen.pid
    lives = popen.poll() is None
    terminate(popen, GENEROUS)
    assert lives, "somebody else was ended"


def test_the_pid_of_a_popen_that_was_waited_for_may_be_anybodys(innocent: int) -> None:
    assert terminate(made_popen(innocent, 5), GENEROUS)[:3] == (5, False, True)
    # Even somebody's who is never to be ended: that is no reason to refuse.
    assert terminate(made_popen(os.getppid(), 5), GENEROUS)[:3] == (5, False, True)


def test_a_popen_that_is_waited_for_while_we_look_is_dead(
    innocent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = made_popen(innocent, None)
    real = Proc.read

    def read(self: Proc, pid: int) -> object:
        if pid == innocent:
            popen.returncode = 5  # type: ignore[misc]
        return real(self, pid)

    monkeypatch.setattr(Proc, "read", read)
    assert terminate(popen, GENEROUS)[:3] == (5, False, True)


def test_a_popen_whose_child_is_not_ours_is_refused(processes: Processes) -> None:
    popen = processes.start("sleep 1000 & echo up; wait")
    (grandchild,) = children_of(popen.pid)
    before = open_descriptors()
    with pytest.raises(ValueError, match="no child of"):
        terminate(made_popen(grandchild, None), GENEROUS)
    wait_until(lambda: open_descriptors() <= before)
    assert children_of(popen.pid) == [grandchild]
    terminate(popen, GENEROUS)


def test_a_psutil_process_of_another_time_is_dead(innocent: int) -> None:
    created = psutil.Process(innocent).create_time()
    for elsewhen in created + 0.1, created - 0.1, created - 1e6:
        process = made_psutil(innocent, lambda: elsewhen)  # noqa: B023
        assert terminate(process, GENEROUS)[:3] == (None, False, True)
        process = made_psutil(innocent, lambda: elsewhen, is_running=lambda: False)  # noqa: B023
        assert terminate(process, GENEROUS)[:3] == (None, False, True)


def test_a_clock_that_was_set_does_not_hide_a_process(processes: Processes) -> None:
    popen = processes.start(Kind.PLAIN)
    created = psutil.Process(popen.pid).create_time()
    process = made_psutil(popen.pid, lambda: created + 3600.0, is_running=lambda: True)
    assert not terminate(process, GENEROUS).already_dead
    assert popen.wait(GENEROUS) == TERM


def test_a_psutil_process_that_dies_under_our_eyes_is_dead(processes: Processes) -> None:
    popen = processes.start(Kind.PLAIN)

    def create_time() -> float:
        popen.kill()
        popen.wait(GENEROUS)
        raise psutil.NoSuchProcess(popen.pid)

    assert terminate(made_psutil(popen.pid, create_time), GENEROUS)[:3] == (None, False, True)


def test_what_else_psutil_says_passes(innocent: int) -> None:
    with pytest.raises(psutil.AccessDenied):
        terminate(made_psutil(innocent, raises(psutil.AccessDenied(innocent))), GENEROUS)


def test_a_process_that_is_gone_is_already_dead(processes: Processes) -> None:
    popen = processes.start("echo up")
    process = psutil.Process(popen.pid)
    assert popen.wait(GENEROUS) == 0
    for named in popen.pid, process:
        assert terminate(named, GENEROUS)[:3] == (None, False, True)
    assert terminate(popen, GENEROUS)[:3] == (0, False, True)


RECYCLING = """
    import errno, os, signal, subprocess, sys, time
    import psutil
    from sepelib.subprocess import terminate

    if sys.argv[1] == "no pidfd":
        def refuse(pid):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        os.pidfd_open = refuse

    def take_next(pid):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))

    take_next(100)
    first = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    assert first.pid == 100
    lazy, asked = psutil.Process(100), psutil.Process(100)
    asked.create_time()
    first.kill()
    os.waitpid(100, 0)          # behind the back of the Popen
    time.sleep(0.05)            # start times count hundredths of a second
    if sys.argv[2] == "stranger":
        take_next(99)
        script = "sleep 1000 & echo $!; wait"
        parent = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
        assert parent.stdout.readline() == b"100\\n"
    else:
        take_next(100)
        assert subprocess.Popen(["sleep", "1000"]).pid == 100

    def lives():
        return open("/proc/100/stat").read().split()[2] not in "ZX"

    for process in lazy, asked:
        assert terminate(process, 0.2)[:3] == (None, False, True)
        assert lives()
    if sys.argv[2] == "stranger":
        try:
            terminate(first, 0.2)
        except ValueError:
            pass
        else:
            raise AssertionError("not refused")
        assert lives()
    assert terminate(100, 10.0).already_dead is False
"""


@pytest.mark.parametrize("way", ["pidfd", "no pidfd"])
@pytest.mark.parametrize("who", ["stranger", "child"])
def test_a_recycled_pid_is_not_signalled(way: str, who: str) -> None:
    # A PID namespace of its own: there the next pid can be chosen, and nobody else takes it.
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if run([*unshare, "true"], timeout=GENEROUS).returncode:
        unshare += ["--user", "--map-root-user"]
    if run([*unshare, "true"], timeout=GENEROUS).returncode:
        # No package helps against a kernel that refuses; the made-up processes here still test it.
        pytest.skip("this kernel or container permits no PID namespace")
    done = run([*unshare, *python(RECYCLING, way, who)], timeout=GENEROUS)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("pid", [1, 0, -1, -12345, os.getpid(), os.getppid(), True])
def test_what_is_never_to_be_ended_is_refused(pid: int) -> None:
    with pytest.raises(ValueError, match="never ended"):
        terminate(pid, GENEROUS)


def test_our_ancestors_are_refused_by_any_name() -> None:
    with pytest.raises(ValueError, match="never ended"):
        terminate(psutil.Process(os.getppid()), GENEROUS)


def test_the_leader_of_our_group_is_refused(processes: Processes) -> None:
    code = "import sys; from sepelib.subprocess import terminate; terminate(int(sys.argv[1]))"
    leader = subprocess.Popen(["sleep", "1000"], process_group=0, env=processes.env)
    with subprocess.Popen(
        python(code, str(leader.pid)), process_group=leader.pid, stderr=subprocess.PIPE
    ) as member:
        assert member.stderr is not None
        told = member.stderr.read()
    assert b"ValueError: process" in told
    assert leader.poll() is None
    terminate(leader, GENEROUS)


@pytest.mark.parametrize("what", [None, "123", 12.0, object(), Made("7"), Made(12345)])  # type: ignore[arg-type]
def test_what_names_no_process_is_a_type_error(what: object) -> None:
    with pytest.raises(TypeError, match="a Popen, a pid or"):
        terminate(what)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused_before_anybody_is_signalled(
    seconds: float, innocent: int
) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        terminate(innocent, seconds)
    with pytest.raises(ValueError, match="number of seconds"):
        terminate(innocent, kill_timeout=seconds)
    with pytest.raises(ValueError, match="no such signal"):
        terminate(innocent, signal=999)
    with pytest.raises(ValueError, match="no such signal"):
        terminate(innocent, signal=0)


# -- what may not be signalled, what does not die --------------------------------------------------


def test_a_process_of_another_user_passes_the_permission_error(
    innocent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        code = """
            import os, sys
            from sepelib.subprocess import terminate
            os.setuid(65534)
            terminate(int(sys.argv[1]), 0.2)
        """
        done = run(python(code, str(innocent)), timeout=GENEROUS)
        assert b"PermissionError: " in done.stderr
    else:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        with pytest.raises(PermissionError):
            terminate(innocent, 0.2)
        monkeypatch.undo()


def test_a_member_that_does_not_die_is_named_with_its_state(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = processes.start("sleep 1000 & echo up; wait; exit 3")
    (child,) = children_of(popen.pid)
    real = signal.pidfd_send_signal

    def refuse(fd: int, signum: int) -> None:
        if f"Pid:\t{child}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(fd, signum)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    before = open_descriptors()
    with pytest.raises(ProcessSurvived) as caught:
        terminate(popen, 0.2, kill_timeout=0.2)
    monkeypatch.undo()
    wait_until(lambda: open_descriptors() <= before)
    assert (caught.value.pids, caught.value.states) == ((child,), ("S",))
    assert f"{child} (S)" in str(caught.value)
    assert popen.returncode == TERM  # what did die was reaped
    terminate(child, GENEROUS)


def test_a_tree_ends_when_nearly_all_descriptors_are_taken(processes: Processes) -> None:
    popen = processes.start("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo up; wait")
    code = """
        import os, resource, sys
        from sepelib.subprocess import terminate
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, highest + 3))
        assert terminate(int(sys.argv[1]), 5.0).survivors == ()
    """
    done = run(python(code, str(popen.pid)), timeout=GENEROUS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert popen.wait(GENEROUS) == TERM


# -- the names -------------------------------------------------------------------------------------


def test_every_error_pickles_and_is_one_line() -> None:
    check_errors(
        sepelib.subprocess,
        examples=[
            ProcessSurvived((12, 13), ("D", "S"), 15.0),
            ProcessFailed("svn", 1, "svn: E170001: no\n"),
            ProcessTimeout("svn", 1.5),
            OutputTooLarge("svn", 100),
            ProgramNotFound("svn"),
        ],
    )
    many = ProcessSurvived(tuple(range(100)), ("D",) * 100, 1.0)
    assert "and 90 more" in str(many)


def test_nothing_but_util_is_loaded() -> None:
    code = """
        import sys
        before = set(sys.modules)
        import sepelib.subprocess, sepelib.subprocess.testing
        tops = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*tops - set(sys.stdlib_module_names))
    """
    done = run(python(code), timeout=GENEROUS, text=True, check=True)
    assert done.stdout.split() == ["sepelib"]


def test_no_submodule_bears_the_name_of_a_public_object() -> None:
    folder = Path(sepelib.subprocess.__file__).parent
    assert not {path.stem for path in folder.glob("*.py")} & set(sepelib.subprocess.__all__)
