"""The engine below `sepelib.util.processes`: know a process, find its tree, end it."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import NamedTuple

_PASSES = 100  # looks at the table before a tree that forks faster than we look is left as it is
_NO_PIDFD = {errno.ENOSYS, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV}


class ProcessStat(NamedTuple):
    """What /proc/PID/stat tells; *start* is in clock ticks since boot."""

    pid: int
    state: str
    ppid: int
    pgid: int
    sid: int
    threads: int
    start: int

    @property
    def alive(self) -> bool:
        # A main thread that has ended while others run shows as a zombie too.
        return self.state not in "ZX" or self.threads > 1


class Proc:
    """The process table under *root*."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root

    def read(self, pid: int) -> ProcessStat | None:
        """One process, zombies included; None when there is none."""
        try:
            with open(f"{self._root}/{pid}/stat", "rb", buffering=0) as file:
                raw = file.read(4096)
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name stands in parentheses and may hold spaces and parentheses itself.
        f = raw[raw.rindex(b")") + 1 :].split()
        return ProcessStat(
            pid, f[0].decode(), int(f[1]), int(f[2]), int(f[3]), int(f[17]), int(f[19])
        )

    def snapshot(self) -> dict[int, ProcessStat]:
        """All that can be seen, by pid. Not atomic: processes come and go while it is read."""
        table = {}
        for name in os.listdir(self._root):
            if name.isdecimal():
                try:
                    stat = self.read(int(name))
                except PermissionError:  # hidepid: not ours to signal either
                    continue
                if stat is not None:
                    table[stat.pid] = stat
        return table


class Ended(NamedTuple):
    """How a tree ended: pids that needed SIGKILL, pids that are alive all the same."""

    already_dead: bool
    killed: tuple[int, ...]
    survivors: tuple[int, ...]
    elapsed: float


class Held:
    """One process that cannot be taken for another."""

    __slots__ = ("_proc", "fd", "stat")

    def __init__(self, proc: Proc, stat: ProcessStat) -> None:
        self._proc = proc
        self.stat = stat
        self.fd: int | None = None
        try:
            with open(os.devnull, "rb", buffering=0):  # one has to stay free for reading /proc
                self.fd = os.pidfd_open(stat.pid)
        except ProcessLookupError:
            pass  # gone: alive() says so
        except OSError as e:
            if e.errno not in _NO_PIDFD:
                raise

    def alive(self) -> bool:
        # Also the second look after the opening: that start time, then and now, means that the
        # number was not given away in between and the pidfd is of the process we meant.
        now = self._proc.read(self.stat.pid)
        return now is not None and now.start == self.stat.start and now.alive

    def send(self, signum: int) -> bool:
        """False when it was dead. PermissionError when it is not ours."""
        if not self.alive():
            return False
        try:
            if self.fd is None:
                os.kill(self.stat.pid, signum)
            else:
                signal.pidfd_send_signal(self.fd, signum)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


class ProcessTree:
    """The process *pid* and what it started, to be signalled, waited for and ended.

    Raises ValueError for pids which are never to be ended: 1 and below, this process, its
    ancestors, the leader of its process group. A pid that is gone makes a tree that is already
    dead.

    *start*: the start time (`ProcessStat.start`) known from earlier; another one means a recycled
    pid, which counts as dead. *tree*: False leaves all but the leader alone. *own_session*: the
    caller started it with `start_new_session=True`, so that what is left of its session is known
    even when it has gone before this look. *adopted*: this process is a subreaper with no other
    children: all its descendants belong to the tree.
    """

    def __init__(
        self,
        pid: int,
        *,
        start: int | None = None,
        tree: bool = True,
        own_session: bool = False,
        adopted: bool = False,
        proc: Proc | None = None,
    ) -> None:
        self.pid = pid
        self._proc = proc or Proc()
        self._spared = self._check(pid)
        self._tree = tree
        self._adopted = adopted
        self._ours = (os.getpgrp(), os.getsid(0))
        self._members: dict[int, Held] = {}
        self._led: dict[int, int] = {pid: -1} if own_session else {}  # number -> leader's start
        self._leader: Held | None = None
        stat = self._proc.read(pid)
        if stat is None or (start is not None and stat.start != start):
            return
        if own_session and stat.sid != pid:
            return
        self._leader = self._hold(stat)

    def _check(self, pid: int) -> frozenset[int]:
        if pid <= 1:
            raise ValueError(f"process {pid} is never ended: not the pid of one ordinary process")
        spared = {0, 1}
        ancestor = os.getpid()
        while ancestor > 1:
            spared.add(ancestor)
            stat = self._proc.read(ancestor)
            if stat is None:
                if ancestor == os.getpid():
                    raise OSError(errno.ENOSYS, "no process table (Linux's /proc is needed)")
                break
            ancestor = stat.ppid
        if pid in spared or pid == os.getpgrp():
            raise ValueError(
                f"process {pid} is never ended from process {os.getpid()}: it is that process, "
                "its ancestor or the leader of its process group"
            )
        return frozenset(spared)

    def __enter__(self) -> ProcessTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the members; signals nobody."""
        while self._members:
            self._members.popitem()[1].close()
        self._led.clear()
        self._leader = None

    @property
    def start(self) -> int | None:
        """The leader's start time, None when it was gone at the first look."""
        return None if self._leader is None else self._leader.stat.start

    def alive(self) -> bool:
        """Whether the leader is."""
        return self._leader is not None and self._leader.alive()

    def members(self) -> tuple[int, ...]:
        """Pids alive now, the leader first."""
        return tuple(held.stat.pid for held in self._look())

    def wait(self, timeout: float) -> bool:
        """Wait for the leader's end, True when it has ended. A zombie has; nothing is reaped."""
        if self._leader is not None:
            _wait([self._leader], time.monotonic() + timeout)
        return not self.alive()

    def send(self, signum: int) -> None:
        """Send *signum* once to each member, looking again until no new one appears."""
        told: set[Held] = set()
        for _ in range(_PASSES):
            fresh = [held for held in self._look() if held not in told]
            if not fresh:
                return
            self._tell(fresh, signum)
            told.update(fresh)

    def end(
        self,
        timeout: float = 10.0,
        *,
        kill_timeout: float = 5.0,
        signum: int = signal.SIGTERM,
        kill: bool = True,
    ) -> Ended:
        """End them all within *timeout*, by SIGKILL within *kill_timeout* more.

        The leader hears first, since it knows how to stop its workers; the others when it is gone
        or half of the time is. Stopped ones are continued, else they would never hear. Not clipped
        by the current deadline: work that ran out of time still has to be cleaned up.

        PermissionError for the leader passes; members that may not be signalled are survivors.
        A BaseException during the wait passes at once: no more signals are sent.
        """
        began = time.monotonic()
        alive = self._look()
        already_dead = not alive
        killed: tuple[int, ...] = ()
        if alive and signum != signal.SIGKILL:
            alive = self._ask(signum, began, timeout)
        if alive and kill:
            killed, alive = self._kill(time.monotonic() + kill_timeout)
        survivors = tuple(held.stat.pid for held in alive)
        return Ended(already_dead, killed, survivors, time.monotonic() - began)

    def _ask(self, signum: int, began: float, timeout: float) -> list[Held]:
        told: set[Held] = set()
        if self._leader is not None:
            self._tell([self._leader], signum, signal.SIGCONT)
            told.add(self._leader)
            _wait([self._leader], began + timeout / 2)
        until = began + timeout
        while alive := self._look():
            fresh = [held for held in alive if held not in told]
            self._tell(fresh, signum, signal.SIGCONT)
            told.update(fresh)
            if time.monotonic() >= until:
                break
            _wait(alive, until)
        return alive

    def _kill(self, until: float) -> tuple[tuple[int, ...], list[Held]]:
        killed: dict[int, None] = {}
        while True:
            # Stopped ones cannot fork while we look who is there.
            self.send(signal.SIGSTOP)
            alive = self._look()
            killed |= dict.fromkeys(self._tell(alive, signal.SIGKILL))
            if not alive or time.monotonic() >= until:
                return tuple(killed), alive
            _wait(alive, until)

    def _tell(self, members: Iterable[Held], *signums: int) -> list[int]:
        told = []
        for held in members:
            try:
                if all(held.send(signum) for signum in signums):
                    told.append(held.stat.pid)
            except PermissionError:
                if held is self._leader:
                    raise
        return told

    def _look(self) -> list[Held]:
        """The members alive, those included that have appeared since the last look."""
        if not self._tree:
            return [self._leader] if self.alive() and self._leader is not None else []
        table = self._proc.snapshot()
        for pid, held in list(self._members.items()):
            if not _same(table.get(pid), held.stat.start):
                del self._members[pid]
                held.close()
        for number, start in list(self._led.items()):
            if number in table and not _same(table[number], start):
                del self._led[number]  # a stranger has the number now, and maybe a session too
        parents = {pid: held.stat.start for pid, held in self._members.items()}
        if self._adopted:
            parents[os.getpid()] = 0
        grown = True
        while grown:
            grown = False
            for stat in table.values():
                if stat.pid in parents or stat.pid in self._spared or not stat.alive:
                    continue
                if (
                    parents.get(stat.ppid, stat.start + 1) <= stat.start
                    or stat.pgid in self._led
                    or stat.sid in self._led
                ):
                    self._hold(stat)
                    parents[stat.pid] = stat.start
                    grown = True
        return [held for held in self._members.values() if held.alive()]

    def _hold(self, stat: ProcessStat) -> Held:
        held = self._members[stat.pid] = Held(self._proc, stat)
        if stat.pid in (stat.pgid, stat.sid) and stat.pid not in self._ours:
            self._led[stat.pid] = stat.start
        return held


def _same(stat: ProcessStat | None, start: int) -> bool:
    return stat is not None and stat.start == start


def _wait(everyone: Iterable[Held], until: float) -> None:
    """Return when all are dead or *until* is over."""
    alive = [held for held in everyone if held.alive()]
    fds = {held.fd for held in alive if held.fd is not None}
    if len(fds) < len(alive):
        _poll_table(alive, until)
        return
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    while fds and (left := until - time.monotonic()) > 0:
        for fd, _ in poller.poll(milliseconds(left)):
            poller.unregister(fd)
            fds.discard(fd)


def _poll_table(alive: list[Held], until: float) -> None:
    pause = 0.001
    while alive and (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
        alive = [held for held in alive if held.alive()]


def milliseconds(seconds: float) -> int:
    """For a poll() in a loop: at most an hour, since more than 24 days overflow."""
    return int(min(seconds, 3600.0) * 1000) + 1  # rounded up: poll(0) would spin through the rest
