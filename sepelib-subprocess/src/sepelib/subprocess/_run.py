"""Run a program to its end, with a deadline, a cap on output, and no leftovers."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, overload

from sepelib.util import processes
from sepelib.util.processes import Completed
from sepelib.util.secrets import MASK
from sepelib.util.text import to_text, truncate
from sepelib.util.url import SECRET_NAME, redact_text

__all__ = ["CompletedText", "ProcessFailed", "run"]

log = logging.getLogger(__name__)

_MAX_OUTPUT = 16 << 20
_TAIL = 4096  # bytes of stderr that an error keeps
_SHOWN = 300  # characters of them in its one line, and of arguments in the log
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028-\u202e\u2066-\u2069]+")


class CompletedText(NamedTuple):
    """A program that has ended, its output as text; *returncode* is negative after a signal."""

    returncode: int
    stdout: str
    stderr: str
    elapsed: float


class ProcessFailed(RuntimeError):
    """*program* ended with *returncode*, negative after a signal; *stderr_tail* is what it said.

    In the tail, at most 4096 bytes, URLs are redacted.
    """

    def __init__(self, program: str, returncode: int, stderr_tail: str) -> None:
        super().__init__(program, returncode, stderr_tail)
        self.program = program
        self.returncode = returncode
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        lines = [line for line in self.stderr_tail.splitlines() if line.strip()]
        said = _UNSEEN.sub(" ", lines[-1]).strip() if lines else "nothing on stderr"
        return f"{self.program}: {_how(self.returncode)}: {truncate(said, _SHOWN)}"


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"ended by {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal has no name
        return f"ended by signal {-returncode}"


@overload
def run(
    args: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    max_output: int = _MAX_OUTPUT,
    check: bool = False,
    text: Literal[False] = False,
) -> Completed: ...
@overload
def run(
    args: Sequence[str],
    *,
    timeout: float,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    max_output: int = _MAX_OUTPUT,
    check: bool = False,
    text: Literal[True],
) -> CompletedText: ...
def run(
    args: Sequence[str],
    *,
    timeout: float,
    input: bytes | str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    max_output: int = _MAX_OUTPUT,
    check: bool = False,
    text: bool = False,
) -> Completed | CompletedText:
    """Run *args* without a shell until it has ended and its output is closed.

    A `sepelib.util.processes.Runner`: what that says of *timeout*, *env*, the locale and of whom is
    ended when something is raised holds here. *max_output*: bytes of both streams together.
    *check*: ProcessFailed for an exit status that is not 0. *text*: *input* and output are str,
    as UTF-8; bytes that are none show as `\\xff`, and no line end is changed.

    Raises ProcessTimeout, OutputTooLarge, ProgramNotFound, ProcessFailed, DeadlineExceeded; all
    name the program and not its arguments. The arguments are logged at DEBUG, without the values of
    options such as `--password` and without the secrets of URLs.
    """
    if isinstance(input, str):
        if not text:
            raise TypeError("input is bytes; text=True takes a str")
        input = input.encode()
    elif text and input is not None:
        raise TypeError("with text=True input is a str")
    if log.isEnabledFor(logging.DEBUG) and not isinstance(args, str | bytes):
        log.debug("running %s", _redacted(args))
    done = processes.run(
        args, timeout=timeout, input=input, env=env, cwd=cwd, max_output=max_output
    )
    if check and done.returncode:
        tail = redact_text(to_text(done.stderr[-_TAIL:]))
        raise ProcessFailed(os.fspath(args[0]), done.returncode, tail)
    if not text:
        return done
    return CompletedText(done.returncode, to_text(done.stdout), to_text(done.stderr), done.elapsed)


def _redacted(args: Sequence[str]) -> str:
    shown = []
    secret = False  # the argument before was an option that a secret follows
    for arg in args:
        name, equals, _ = arg.partition("=")
        if secret:
            shown.append(MASK)
            secret = False
        elif equals and SECRET_NAME.search(name) and "/" not in name:
            shown.append(f"{name}={MASK}")
        else:
            shown.append(redact_text(arg))
            secret = arg.startswith("-") and not equals and bool(SECRET_NAME.search(arg))
    return truncate(_UNSEEN.sub(" ", " ".join(shown)), _SHOWN)
