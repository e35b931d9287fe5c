"""End a process that was named by a Popen, a pid or a psutil.Process, and report how it ended."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from signal import SIGTERM, valid_signals
from typing import Any, NamedTuple, Protocol

from sepelib.util.processes import Proc, ProcessStat, ProcessTree

__all__ = ["PopenLike", "ProcessSurvived", "PsutilLike", "Termination", "terminate"]

_REAPING = 1.0  # seconds for the status of a process that is dead to come through
_PAUSE = 0.002


class PopenLike(Protocol):
    """A `subprocess.Popen`: the stdlib's, gevent's, psutil's."""

    # A property, since in typeshed and in gevent these two are of several types.
    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...


class PsutilLike(Protocol):
    """A `psutil.Process`. Its `is_running`, where there is one, is asked when clocks disagree."""

    @property
    def pid(self) -> int: ...
    def create_time(self) -> float: ...


class Termination(NamedTuple):
    """How a process and its tree ended.

    *returncode*: of the process itself, negative after a signal; None when it lives, when it is no
    child of ours, or when somebody else took its status. *killed*: somebody needed SIGKILL.
    *already_dead*: nobody was alive, nobody was signalled. *elapsed*: seconds. *survivors*: the
    pids left alive by `kill=False`, else empty.
    """

    returncode: int | None
    killed: bool
    already_dead: bool
    elapsed: float
    survivors: tuple[int, ...]


class ProcessSurvived(OSError):
    """Processes *pids* are alive after SIGKILL; *states* are theirs, as letters of ps(1).

    D waits for a device or a network mount, and dies when that answers. Any other is mostly a
    member of the tree which this user may not signal.
    """

    def __init__(self, pids: tuple[int, ...], states: tuple[str, ...], elapsed: float) -> None:
        named = ", ".join(f"{p} ({s})" for p, s in zip(pids[:10], states, strict=False))
        more = f" and {len(pids) - 10} more" if len(pids) > 10 else ""
        super().__init__(f"alive after SIGKILL, {elapsed:.3g} s from the start: {named}{more}")
        self.pids = pids
        self.states = states
        self.elapsed = elapsed

    def __reduce__(self) -> tuple[type[ProcessSurvived], tuple[object, ...]]:
        return type(self), (self.pids, self.states, self.elapsed)


def terminate(
    process: PopenLike | PsutilLike | int,
    timeout: float = 10.0,
    *,
    kill_timeout: float = 5.0,
    tree: bool = True,
    signal: int = SIGTERM,
    kill: bool = True,
    reap: bool = False,
) -> Termination:
    """End *process* and what it started within *timeout*, by SIGKILL within *kill_timeout* more.

    One deadline for all of them, and it is not cut by the current `deadline()`. The process itself
    hears *signal* first, since it knows how to stop its workers; the others when it has gone or
    half of the time is over. Stopped ones are continued. With *tree* False only the process is
    ended. With *kill* False those who did not listen are reported as survivors.

    A pid means whoever has it at the call. A Popen or psutil.Process means the one process it was
    made for: when the pid belongs to another by now, that one is dead and nobody is signalled. So
    is a Popen that was waited for already, and what it left behind cannot be proved to be its.

    No exit status is ever stolen: a Popen is reaped by its own `wait()`, and the status of any
    other child of ours is looked at and left for its owner. *reap*: you forked that pid yourself
    and nobody else waits for it, so `waitpid` it, it alone. Whatever else has died in the tree is
    reaped by its parent.

    Raises ValueError for who is never to be ended (1 and below, this process, its ancestors, the
    leader of its group, the Popen of another process), PermissionError for a process of another
    user, ProcessSurvived. A BaseException during the wait passes at once: no more signals.
    Sharing: from any thread or greenlet; in a process patched by gevent only the greenlet waits.
    """
    began = time.monotonic()
    _check(timeout, kill_timeout, signal)
    front = _front(process)
    held = front.hold(tree)
    if held is None:
        return Termination(front.status(reap), False, True, time.monotonic() - began, ())
    with held:
        ended = held.end(timeout, kill_timeout=kill_timeout, signum=signal, kill=kill)
        status = None if held.alive() else front.status(reap)
        alive = _alive(ended.survivors)
    elapsed = time.monotonic() - began
    if alive and kill:
        pids, states = (tuple(stat.pid for stat in alive), tuple(stat.state for stat in alive))
        raise ProcessSurvived(pids, states, elapsed)
    survivors = tuple(stat.pid for stat in alive)
    return Termination(status, bool(ended.killed), ended.already_dead, elapsed, survivors)


def _check(timeout: float, kill_timeout: float, signal: int) -> None:
    for seconds in timeout, kill_timeout:
        if not seconds >= 0:
            raise ValueError(f"a timeout is a number of seconds, not {seconds!r}")
    if signal not in valid_signals():
        raise ValueError(f"no such signal: {signal!r}")


def _alive(pids: tuple[int, ...]) -> list[ProcessStat]:
    stats = map(Proc().read, pids)
    return [stat for stat in stats if stat is not None and stat.alive]


def _front(process: object) -> _Pid | _Popen:
    if isinstance(process, int):
        return _Pid(process)
    pid = getattr(process, "pid", None)
    if isinstance(pid, int):
        # By shape: gevent's Popen is not the stdlib's, psutil need not be there. psutil.Popen has
        # both shapes, and its own wait().
        if all(hasattr(process, name) for name in ("returncode", "poll", "wait")):
            return _Popen(process)  # type: ignore[arg-type]
        if callable(getattr(process, "create_time", None)):
            return _Psutil(process)  # type: ignore[arg-type]
    raise TypeError(f"a process is a Popen, a pid or a psutil.Process, not {process!r:.100}")


class _Pid:
    """Whoever has the pid now."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stat: ProcessStat | None = None

    def hold(self, tree: bool) -> ProcessTree | None:
        """The tree, or None when it is known to be dead. ValueError: never to be ended."""
        held = ProcessTree(self._pid, tree=tree)
        try:
            if held.start is not None:
                self._stat = self._read(held.start)
            if self._is_ours(self._stat):
                return held
        except BaseException:
            held.close()
            raise
        held.close()
        self._stat = None
        return None

    def _is_ours(self, stat: ProcessStat | None) -> bool:
        return stat is not None

    def _read(self, start: int) -> ProcessStat | None:
        stat = Proc().read(self._pid)
        return stat if stat is not None and stat.start == start else None

    def status(self, reap: bool) -> int | None:
        """Of a process that is dead."""
        if self._stat is None or self._stat.ppid != os.getpid():
            return None
        if reap:
            try:
                return _soon(self._reap)
            except ChildProcessError:
                return None
        return _peek(self._pid)

    def _reap(self) -> int | None:
        # gevent has a waitpid of its own in os once it has patched, for what its loop has reaped.
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


class _Psutil(_Pid):
    """The process that a psutil.Process was made for."""

    def __init__(self, process: PsutilLike) -> None:
        super().__init__(process.pid)
        self._process = process

    def _is_ours(self, stat: ProcessStat | None) -> bool:
        if stat is None:
            return False
        try:
            created = self._process.create_time()
            # In clock ticks, by the clock of the wall, which may have been set since.
            if abs((created - _boot_time()) * os.sysconf("SC_CLK_TCK") - stat.start) < 1.5:
                return True
            is_running: Callable[[], bool] | None = getattr(self._process, "is_running", None)
            return is_running is not None and is_running() and self._read(stat.start) is not None
        except Exception:
            if self._read(stat.start) is None:
                return False  # died under our eyes, which is a psutil.NoSuchProcess
            raise


class _Popen:
    """The child that a Popen was made for."""

    def __init__(self, popen: PopenLike) -> None:
        self._popen = popen

    def hold(self, tree: bool) -> ProcessTree | None:
        pid = self._popen.pid
        if self._popen.returncode is not None:
            return None  # reaped: the pid may be anybody's
        held = ProcessTree(pid, tree=tree)
        stat = Proc().read(pid)
        # Not reaped afterwards means: it had its pid all the time.
        if stat is not None and stat.start == held.start and self._popen.returncode is None:
            if stat.ppid == os.getpid():
                return held
            held.close()
            raise ValueError(
                f"process {pid} is not ended: it is no child of process {os.getpid()}, so it "
                "cannot be proved that it is the one of this Popen"
            )
        held.close()
        return None

    def status(self, reap: bool) -> int | None:
        popen = self._popen
        if popen.returncode is None and _is_waitable(popen.pid):
            try:
                popen.wait(timeout=_REAPING)
            except Exception as e:
                if type(e).__name__ != "TimeoutExpired":  # the stdlib's, gevent's, psutil's
                    raise
        # Else reaped: by a thread in wait() or gevent's loop, which are about to say so, or by a
        # stranger, and then the stdlib's wait() would make up a 0.
        status: int | None = _soon(lambda: popen.returncode)
        return status


def _soon(ask: Callable[[], int | None]) -> int | None:
    until = time.monotonic() + _REAPING
    while (status := ask()) is None and time.monotonic() < until:
        time.sleep(_PAUSE)
    return status


def _peek(pid: int) -> int | None:
    """The exit status of a dead child, which stays there for its owner."""
    try:
        seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if seen is None:
        return None
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def _is_waitable(pid: int) -> bool:
    return _peek(pid) is not None


def _boot_time() -> int:
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return int(line.split()[1])
    raise OSError(errno.ENOSYS, "no boot time (Linux's /proc/stat is needed)")
