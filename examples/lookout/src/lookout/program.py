"""Run a program as a probe: exit status 0 is fine, else its last line says what is wrong.

Only from `probes.exec_dir`, without a shell, with an empty environment and limits on what it uses.
"""

from __future__ import annotations

import math
import os
import re
import stat
import sys
import time
from datetime import UTC, datetime

from lookout.checks import untrusted
from lookout.records import Result
from lookout.targets import Program, Target
from sepelib.subprocess import OutputTooLarge, ProcessTimeout, ProgramNotFound, run
from sepelib.util.text import to_text, truncate
from sepelib.util.url import redact_text

__all__ = ["probe"]

MAX_OUTPUT = 64 << 10  # bytes
MAX_SENTENCE = 200  # characters
MAX_MEMORY = 2 << 30  # bytes of address space
MAX_FILE = 16 << 20  # bytes
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028-\u202e\u2066-\u2069]+")

# Sets the limits before any line of the program runs, and without the `preexec_fn` of Popen, which
# runs Python in a fork of a process with threads. Not prlimit(1), which gives a file that the
# kernel refuses to a shell. It stays until all that the program has started is gone, as their
# parent if need be (PR_SET_CHILD_SUBREAPER): a daemon that detaches itself is still seen by `run`,
# is not done in time, and is ended. Then it ends as the program has.
LAUNCHER = """
import ctypes, os, resource, signal, sys
cpu, memory, size, program = sys.argv[1:5]
for limit, value in (("CORE", 0), ("CPU", cpu), ("AS", memory), ("FSIZE", size)):
    limit = getattr(resource, "RLIMIT_" + limit)
    hard = resource.getrlimit(limit)[1]
    value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
    resource.setrlimit(limit, (value, value))
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    signal.signal(number, signal.SIG_DFL)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
child = os.fork()
if child == 0:
    try:
        os.execv(program, [program, *sys.argv[5:]])
    except OSError as error:
        sys.exit("cannot be run (" + error.strerror + ")")
try:
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
except ChildProcessError:
    pass
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Unfit(Exception):
    """The program is not to be run; one sentence."""


def probe(target: Target, program: Program) -> Result:
    """A result within `target.timeout` seconds, and one more if it takes no notice of SIGTERM."""
    at = datetime.now(UTC)
    started = time.monotonic()
    status: int | None = None
    error: str | None
    try:
        limits = [math.ceil(target.timeout) + 1, MAX_MEMORY, MAX_FILE]
        done = run(
            [sys.executable, "-ISc", LAUNCHER, *map(str, limits), _path(program), *program.args],
            timeout=target.timeout,
            env={"PATH": PATH},
            cwd="/",
            max_output=MAX_OUTPUT,
        )
    except Unfit as unfit:
        error = str(unfit)
    except ProcessTimeout:
        error = f"{program.name}: not done within {target.timeout:g} s, ended with its children"
    except OutputTooLarge as flood:
        error = f"{program.name}: more than {flood.limit} bytes of output"
    except (ProgramNotFound, OSError) as failure:
        error = f"{program.name}: cannot be run ({failure.strerror or failure})"
    else:
        status = done.returncode
        error = _complaint(target, program, status, done.stdout, done.stderr, done.elapsed)
    return Result(at, time.monotonic() - started, status, error)


def _path(program: Program) -> str:
    """The path without links, of a file that nobody but root and we can have changed.

    Nobody else can change it until it is run either: that goes for all directories above it.
    """
    if reason := untrusted(program.directory):
        raise Unfit(f"{program.name} is not run: probes.exec_dir is {reason}")
    path = program.directory.resolve() / program.name
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise Unfit(f"{program.name}: no such program in probes.exec_dir") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unfit(f"{program.name} is not run: not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise Unfit(f"{program.name} is not run: owned by neither root nor the user of lookout")
    if found.st_mode & 0o022:
        raise Unfit(f"{program.name} is not run: writable by others")
    return str(path)


def _complaint(
    target: Target, program: Program, status: int, stdout: bytes, stderr: bytes, elapsed: float
) -> str | None:
    if status == 0:
        if target.max_latency is not None and elapsed > target.max_latency:
            return f"done in {elapsed:.2f} s, slower than {target.max_latency:g} s"
        return None
    # What is for people is on stdout, as with the plugins of Nagios; a traceback is not.
    lines = to_text(stderr).splitlines() + to_text(stdout).splitlines()
    said = [line for text in lines if (line := UNSEEN.sub(" ", text).strip())]
    how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
    return truncate(redact_text(f"{program.name}: {said[-1] if said else how}"), MAX_SENTENCE)
