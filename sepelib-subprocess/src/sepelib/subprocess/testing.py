"""Children of every awkward kind for a test, none of which outlives it.

    with Processes() as processes:
        popen = processes.start(Kind.IGNORES_TERM)
        end_it_somehow(popen)                           # what is tested
    # LeftBehind is raised when somebody is alive here; all are killed first

Known are they, and all that they start, by a variable of their environment, so also those that have
left their session and lost their parent. Own programs join in with `env=processes.env`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum

from sepelib.subprocess._terminate import terminate
from sepelib.util.processes import Proc, ProcessTree

__all__ = ["Kind", "LeftBehind", "Processes"]

_MARK = "SEPELIB_TEST_PROCESSES"
_MID_EXEC = 1.0  # seconds that a busy machine may leave a process in the middle of an exec
_GENEROUS = 30.0  # seconds for what takes milliseconds on an idle machine


class Kind(Enum):
    """What a child does. The value is a shell script that says "up" when it stands."""

    PLAIN = "echo up; exec sleep 1000"
    IGNORES_TERM = "trap '' TERM; echo up; while :; do sleep 1000; done"
    EXITS_7_AT_TERM = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    FORKING = 'sh -c \'sh -c "sh -c \\"echo up; sleep 1000; :\\"; :"; :\'; :'
    DOUBLE_FORKING = "(sleep 1000 & echo up); sleep 1000; :"
    SETSID = "setsid sh -c 'echo up; sleep 1000; :' & wait"
    DOUBLE_FORKING_SETSID = "setsid sh -c '(sleep 1000 & echo up); sleep 1000; :' & wait"
    STOPPED = "sleep 1000 & echo up; kill -STOP $$; wait"
    FLOODING = "echo up; exec yes"
    ZOMBIE = "echo up; exit 3"
    # Its child ends when the shell, which would reap it, has become a sleep.
    HAS_A_ZOMBIE = (
        "(until grep -q sleep /proc/$$/comm; do sleep 0.01; done; exit 3) & "
        "echo up; exec sleep 1000"
    )
    # Without the trap in the child: a shell loses a signal that comes between the two.
    FORKS_AT_TERM = (
        "trap 'trap - TERM; sleep 1000 & exit 0' TERM; echo up; while :; do sleep 0.05; done"
    )
    KEEPS_FORKING = "trap '' TERM; echo up; while :; do sleep 1000 & sleep 0.02; done"
    ENDED_BUT_ITS_CHILD = "(sleep 1000 & echo up); exit 3"


class LeftBehind(AssertionError):
    """Processes *pids* were alive at the end. They have been killed."""

    def __init__(self, pids: tuple[int, ...], commands: tuple[str, ...]) -> None:
        super().__init__(pids, commands)
        self.pids = pids
        self.commands = commands

    def __str__(self) -> str:
        each = (f"{pid} ({line})" for pid, line in zip(self.pids, self.commands, strict=True))
        return f"processes left behind: {', '.join(each)}"


class Processes:
    """Starts children and sees to it that they are gone at the end.

    At exit all are killed and reaped, and LeftBehind is raised when somebody was alive. Sharing:
    one thread or greenlet at a time.
    """

    def __init__(self) -> None:
        self.env = {**os.environ, _MARK: os.urandom(8).hex()}
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        left = self.kill()
        if left and kind is None:
            raise LeftBehind(tuple(left), tuple(left.values()))

    def start(self, what: Kind | str, *, own_session: bool = True) -> subprocess.Popen[bytes]:
        """A child that stands: of a kind, or a shell script of yours that says "up" in a line.

        Its stdout is a pipe.
        """
        popen = subprocess.Popen(
            ["sh", "-c", what.value if isinstance(what, Kind) else what],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=self.env,
            start_new_session=own_session,
        )
        self._started.append(popen)
        assert popen.stdout is not None
        if (line := popen.stdout.readline()) != b"up\n":
            terminate(popen, 0.0)
            raise RuntimeError(f"process {popen.pid} said {line!r}, not 'up'")
        state = {Kind.STOPPED: "T", Kind.ZOMBIE: "Z", Kind.ENDED_BUT_ITS_CHILD: "Z"}
        if isinstance(what, Kind) and what in state:
            _wait_for_state(popen.pid, state[what])
        return popen

    def alive(self) -> list[int]:
        """The pids of all that are alive, theirs and their descendants'."""
        return [tree.pid for tree, _ in self._find()]

    def kill(self) -> dict[int, str]:
        """End them all now; those found alive, with their command lines."""
        killed: dict[int, str] = {}
        until = time.monotonic() + _GENEROUS
        while found := [self._kill(tree, command) for tree, command in self._find()]:
            killed |= found
            if time.monotonic() > until:
                raise LeftBehind(tuple(killed), tuple(killed.values()))
            time.sleep(0.01)
        while self._started:
            popen = self._started.pop()
            assert popen.stdout is not None
            popen.stdout.close()
            popen.kill()
            popen.wait(_GENEROUS)
        return killed

    def _kill(self, tree: ProcessTree, command: str) -> tuple[int, str]:
        with suppress(PermissionError):
            tree.send(signal.SIGKILL)
        return tree.pid, command

    def _find(self) -> Iterator[tuple[ProcessTree, str]]:
        mark = f"{_MARK}={self.env[_MARK]}".encode()
        until = time.monotonic() + _MID_EXEC
        for stat in Proc().snapshot().values():
            with suppress(OSError, ValueError):  # gone, not ours to look at, one of our ancestors
                if not stat.alive or mark not in _read(stat.pid, "environ", until).split(b"\0"):
                    continue
                with ProcessTree(stat.pid, start=stat.start, tree=False) as tree:
                    command = _read(stat.pid, "cmdline", until).replace(b"\0", b" ").strip()
                    if tree.alive():  # so it was that one whose environment we have read
                        yield tree, command.decode(errors="replace")


def _read(pid: int, name: str, until: float) -> bytes:
    # In the middle of an exec there is a program already, but no environment and no arguments
    # yet; a kernel thread has none of the three. Who has really none costs the wait, so all
    # share one.
    while True:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            found = file.read()
        if found or time.monotonic() > until or not os.path.exists(f"/proc/{pid}/exe"):
            return found
        time.sleep(0.001)


def _wait_for_state(pid: int, state: str) -> None:
    until = time.monotonic() + _GENEROUS
    # Gone will do for a zombie: gevent's loop, in a patched process, reaps whatever it finds.
    while (stat := Proc().read(pid)) is not None and stat.state != state:
        if time.monotonic() > until:
            raise RuntimeError(f"process {pid} is in state {stat.state}, not {state}")
        time.sleep(0.005)
