"""Run programs and end processes together with all that they started. Linux.

    done = run(["svn", "info", url], timeout=30.0)      # bytes; an exit status raises nothing
    with ProcessTree(pid) as tree:
        tree.end(timeout=10.0)                          # TERM, wait, KILL: one deadline for all

A pid is a number that the kernel gives to somebody else later, so a process is known by its pid and
start time, and held by a pidfd where the kernel has them: a signal reaches that process or nobody.
Without pidfds (seccomp, no descriptors left) the start time is compared right before each kill(2)
and the end is polled for with growing pauses.

What belongs to a tree: the leader, its descendants, and the members of each session or process
group that one of them leads. Who was seen once stays a member after its parents have died, and a
session's number is not given away while it has members, so orphans can still be proved. Out of
reach is a process that left its session and lost its parent between two looks at the table.

Units: seconds on `time.monotonic()`, bytes.
Sharing: `run` from any thread or greenlet; a `ProcessTree` by one at a time. Waiting is
`select.poll` on pidfds and pipes: it blocks the thread, or only the greenlet once gevent has
patched `select`.
Left behind: nobody is reaped but the child of `run`, by its Popen: no exit status is ever stolen.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sepelib.util._process_tree import Ended, Proc, ProcessStat, ProcessTree, milliseconds
from sepelib.util.deadline import clip

if TYPE_CHECKING:
    import subprocess
    from io import FileIO

__all__ = [
    "Completed",
    "Ended",
    "OutputTooLarge",
    "Proc",
    "ProcessStat",
    "ProcessTimeout",
    "ProcessTree",
    "ProgramNotFound",
    "Runner",
    "run",
]

_GRACE = 1.0  # between TERM and KILL for the tree of a call that is already over
_CHUNK = 65536  # what a pipe holds


class Completed(NamedTuple):
    """A program that has ended; *returncode* is negative after a signal."""

    returncode: int
    stdout: bytes
    stderr: bytes
    elapsed: float


class Runner(Protocol):
    """Runs a program to its end. `run` is one, `sepelib.subprocess.run` another.

    Never raises for an exit status; raises ProcessTimeout and OutputTooLarge, then with the whole
    tree of the program ended. *env* replaces the environment. Conformance:
    `sepelib.util.testing.check_runner`.
    """

    def __call__(
        self,
        args: Sequence[str],
        /,
        *,
        timeout: float,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        max_output: int = 64 << 20,
    ) -> Completed: ...


class ProcessTimeout(TimeoutError):
    """A program, or one that it left holding its output, was not done in *timeout* seconds."""

    def __init__(self, program: str, timeout: float) -> None:
        super().__init__(f"{program}: not done within {timeout:.3g} s, ended with its children")
        self.program = program
        self.timeout = timeout

    def __reduce__(self) -> tuple[type[ProcessTimeout], tuple[str, float]]:
        return type(self), (self.program, self.timeout)


class OutputTooLarge(RuntimeError):
    """A program wrote more than *limit* bytes to stdout and stderr together."""

    def __init__(self, program: str, limit: int) -> None:
        super().__init__(program, limit)
        self.program = program
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.program}: more than {self.limit} bytes of output, ended with its children"


class ProgramNotFound(FileNotFoundError):
    """There is no such program, or its first line names an interpreter that is missing."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program}: no such program: install it or give its full path")
        self.program = program

    def __reduce__(self) -> tuple[type[ProgramNotFound], tuple[str]]:
        return type(self), (self.program,)


def run(
    args: Sequence[str],
    /,
    *,
    timeout: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    max_output: int = 64 << 20,
) -> Completed:
    """Run *args* without a shell until it has ended and its output is closed: the default Runner.

    *timeout* is cut by the current deadline. *env* replaces the environment; LC_ALL is C.UTF-8
    unless *env* says otherwise: messages stay English, yet names outside ASCII survive, which
    they do not under C. Without *input* stdin is empty.

    Raises ProcessTimeout, OutputTooLarge (both streams together; read no further), ProgramNotFound,
    DeadlineExceeded when nothing is left to begin with. Whatever is raised, BaseExceptions too, the
    program and its children are ended first, which may take a second more if they ignore SIGTERM.
    After a good end nobody is signalled: a daemon that has let go of its output stays.

    Errors name the program and not its arguments, which may hold secrets.
    """
    if isinstance(args, str | bytes) or not args:
        raise TypeError("args is a list: the program, then its arguments")
    program = os.fspath(args[0])
    limit = clip(timeout)
    if limit is None:
        raise TypeError("a program is not run without a limit: timeout is a number of seconds")
    began = time.monotonic()
    call = _Call(program, limit, began + limit, max_output)
    with ExitStack() as files:
        ours, theirs = _pipes(files, bool(input))
        popen = _spawn(program, args, theirs, env, cwd)
        for file in theirs:
            if file is not None:
                file.close()
        with ProcessTree(popen.pid, own_session=True) as tree:
            try:
                stdout, stderr = _talk(call, ours, input or b"")
                if not tree.wait(call.until - time.monotonic()):
                    raise ProcessTimeout(program, limit)
            except BaseException:
                _abandon(popen, tree)
                raise
        return Completed(popen.wait(), stdout, stderr, time.monotonic() - began)


class _Call(NamedTuple):
    program: str
    timeout: float
    until: float
    max_output: int


_Files = tuple["FileIO | None", "FileIO", "FileIO"]  # stdin, stdout, stderr


def _pipes(files: ExitStack, with_input: bool) -> tuple[_Files, _Files]:
    def pipe() -> tuple[FileIO, FileIO]:
        r, w = os.pipe()
        return files.enter_context(open(r, "rb", 0)), files.enter_context(open(w, "wb", 0))

    in_r, in_w = pipe() if with_input else (None, None)
    (out_r, out_w), (err_r, err_w) = pipe(), pipe()
    for file in (in_w, out_r, err_r):
        if file is not None:
            os.set_blocking(file.fileno(), False)
    return (in_w, out_r, err_r), (in_r, out_w, err_w)


def _spawn(
    program: str,
    args: Sequence[str],
    files: _Files,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
) -> subprocess.Popen[bytes]:
    import subprocess  # not at the top: 9 ms for everyone who only wants a type from here

    environ = {"LC_ALL": "C.UTF-8"} | dict(os.environ if env is None else env)
    if env is None:
        environ["LC_ALL"] = "C.UTF-8"
        environ.pop("LANGUAGE", None)  # gettext obeys it even so
    # __new__ and __init__ apart: gevent waits for the exec cooperatively inside of __init__, and
    # what strikes there would leave us with a child and without its pid.
    popen: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)
    try:
        popen.__init__(  # type: ignore[misc]
            list(args),
            stdin=files[0] or subprocess.DEVNULL,
            stdout=files[1],
            stderr=files[2],
            env=environ,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as e:
        if cwd is not None and not os.path.isdir(cwd):
            raise
        raise ProgramNotFound(program) from e
    except Exception:
        raise
    except BaseException:
        if getattr(popen, "pid", None):
            with ProcessTree(popen.pid) as tree:
                _abandon(popen, tree)
        raise
    return popen


def _talk(call: _Call, files: _Files, input: bytes) -> tuple[bytes, bytes]:
    """Feed and read until all is closed."""
    stdin, stdout, stderr = files
    chunks: dict[FileIO, list[bytes]] = {stdout: [], stderr: []}
    room = call.max_output
    unsent = memoryview(input)
    poller = select.poll()
    talking: dict[int, FileIO] = {}
    for file in files:
        if file is not None:
            talking[file.fileno()] = file
            poller.register(file.fileno(), select.POLLOUT if file is stdin else select.POLLIN)
    while talking:
        left = call.until - time.monotonic()
        if left <= 0:
            raise ProcessTimeout(call.program, call.timeout)
        for fd, _ in poller.poll(milliseconds(left)):
            file = talking[fd]
            try:
                if file is stdin:
                    unsent = unsent[os.write(fd, unsent[:_CHUNK]) :]
                    over = not unsent
                else:
                    data = os.read(fd, _CHUNK)
                    room -= len(data)
                    if room < 0:
                        raise OutputTooLarge(call.program, call.max_output)
                    chunks[file].append(data)
                    over = not data
            except BlockingIOError:
                continue
            except BrokenPipeError:
                over = True  # nobody wants the rest
            if over:
                poller.unregister(fd)
                del talking[fd]
                file.close()
    return b"".join(chunks[stdout]), b"".join(chunks[stderr])


def _abandon(popen: subprocess.Popen[bytes], tree: ProcessTree) -> None:
    try:
        tree.end(_GRACE)
    except BaseException:
        tree.send(signal.SIGKILL)  # struck a second time: no manners
        tree.wait(_GRACE)  # it is dead in a moment, and then reaped below
        raise
    finally:
        if not tree.alive():
            popen.wait()
