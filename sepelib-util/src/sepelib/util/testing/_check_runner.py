"""The conformance check of `sepelib.util.processes.Runner`."""

from __future__ import annotations

import os
import sys
import time

from sepelib.util.deadline import deadline
from sepelib.util.processes import OutputTooLarge, Proc, ProcessTimeout, Runner

__all__ = ["check_runner"]

_GENEROUS = 30.0  # for what takes milliseconds on an idle machine


def check_runner(runner: Runner) -> None:
    """Raise AssertionError unless *runner* keeps the contract of a Runner; takes some seconds."""
    _ends_and_tells(runner)
    _feeds_and_reads_at_once(runner)
    _gives_the_environment(runner)
    _caps_the_output(runner)
    _ends_the_tree(runner)
    _obeys_the_deadline(runner)
    _names_a_missing_program(runner)


def _expect(held: bool, otherwise: str) -> None:
    if not held:  # not `assert`, which python -O leaves out
        raise AssertionError(otherwise)


def _python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *args]


def _ends_and_tells(runner: Runner) -> None:
    done = runner(["sh", "-c", "printf out; printf err >&2; exit 3"], timeout=_GENEROUS)
    _expect(done.returncode == 3, f"an exit status is returned, not raised: {done}")
    _expect((done.stdout, done.stderr) == (b"out", b"err"), f"both streams, as bytes: {done}")
    _expect(0 < done.elapsed < _GENEROUS, f"elapsed is in seconds: {done}")
    done = runner(["sh", "-c", "kill -KILL $$"], timeout=_GENEROUS)
    _expect(done.returncode == -9, f"the end by a signal is negative: {done}")
    done = runner(["printf", "%s", "$HOME; *"], timeout=_GENEROUS)
    _expect(done.stdout == b"$HOME; *", f"no shell reads the arguments: {done}")
    try:
        done.returncode = 0  # type: ignore[misc]
    except AttributeError:
        pass
    else:
        raise AssertionError("a result can be changed")


def _feeds_and_reads_at_once(runner: Runner) -> None:
    done = runner(["cat"], timeout=_GENEROUS)
    _expect(done.stdout == b"", f"without input stdin is empty: {done}")
    large = bytes(range(256)) * 4096
    code = (
        "import sys; i = sys.stdin.buffer; "
        "[(sys.stdout.buffer.write(b), sys.stderr.buffer.write(b)) "
        "for b in iter(lambda: i.read(65536), b'')]"
    )
    done = runner(_python(code), timeout=_GENEROUS, input=large)
    _expect(done.stdout == large, "input larger than a pipe comes back on stdout")
    _expect(done.stderr == large, "input larger than a pipe comes back on stderr")
    done = runner(["true"], timeout=_GENEROUS, input=large)
    _expect(done.returncode == 0, f"a program may leave its input unread: {done}")


def _gives_the_environment(runner: Runner) -> None:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        done = runner(["pwd", "-P"], timeout=_GENEROUS, cwd=Path(folder))
        where = os.path.realpath(folder).encode()
        _expect(done.stdout.strip() == where, f"cwd is where it runs: {done}")
    env = {"PATH": os.environ.get("PATH", os.defpath), "SEPELIB_CHECK": "on"}
    done = runner(["env"], timeout=_GENEROUS, env=env)
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines()}
    _expect(b"SEPELIB_CHECK=on" in done.stdout.splitlines(), f"env reaches the program: {done}")
    _expect(not names & {b"HOME", b"USER"}, f"env replaces the environment: {done}")
    done = runner(["sh", "-c", "echo $LC_ALL"], timeout=_GENEROUS)
    _expect(done.stdout.strip() in (b"C", b"C.UTF-8"), f"messages are not translated: {done}")


def _caps_the_output(runner: Runner) -> None:
    done = runner(["head", "-c", "1000", "/dev/zero"], timeout=_GENEROUS, max_output=1000)
    _expect(len(done.stdout) == 1000, "max_output itself is allowed")
    for stream in "", " >&2":
        try:
            runner(
                ["sh", "-c", f"exec cat /dev/zero{stream}"], timeout=_GENEROUS, max_output=100_000
            )
        except OutputTooLarge as e:
            _expect("/dev/zero" not in str(e), f"an error does not show arguments: {e}")
        else:
            raise AssertionError("output beyond max_output raises OutputTooLarge")


def _ends_the_tree(runner: Runner) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        pids = os.path.join(folder, "pids")
        script = f"trap '' TERM; sleep 1000 & echo $! $$ >{pids}; wait; wait"
        began = time.monotonic()
        try:
            runner(["sh", "-c", script], timeout=1.0)
        except ProcessTimeout as e:
            _expect("sleep" not in str(e), f"an error does not show arguments: {e}")
        else:
            raise AssertionError("a program that does not end raises ProcessTimeout")
        took = time.monotonic() - began
        _expect(took < _GENEROUS, f"a timeout of 1 s took {took:.1f} s")
        with open(pids, encoding="ascii") as file:
            left = [Proc().read(int(pid)) for pid in file.read().split()]
        for stat in left:
            _expect(stat is None or not stat.alive, f"left behind: {stat}")


def _obeys_the_deadline(runner: Runner) -> None:
    began = time.monotonic()
    try:
        with deadline(0.2):
            runner(["sleep", "1000"], timeout=2 * _GENEROUS)
    except TimeoutError:
        took = time.monotonic() - began
        _expect(took < _GENEROUS, f"a current deadline of 0.2 s took {took:.1f} s")
    else:
        raise AssertionError("the timeout is cut by the current deadline")


def _names_a_missing_program(runner: Runner) -> None:
    try:
        runner(["sepelib-no-such-program", "hush"], timeout=_GENEROUS)
    except FileNotFoundError as e:
        _expect("sepelib-no-such-program" in str(e), f"a missing program is named: {e}")
        _expect("hush" not in str(e), f"an error does not show arguments: {e}")
    else:
        raise AssertionError("a missing program raises FileNotFoundError")
