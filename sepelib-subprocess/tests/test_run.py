"""A program runs to its end within its deadline and cap, or is ended with all that it started."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from sepelib.subprocess import (
    OutputTooLarge,
    ProcessFailed,
    ProcessTimeout,
    ProgramNotFound,
    run,
)
from sepelib.subprocess.testing import Kind, Processes
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.processes import Runner
from sepelib.util.testing import check_runner

pytest_plugins = ["sepelib.subprocess.pytest_plugin"]

GENEROUS = 30.0


def test_run_is_a_runner() -> None:
    runner: Runner = run
    check_runner(runner)


def test_an_exit_status_is_returned_and_output_is_bytes() -> None:
    done = run(["sh", "-c", "printf out; printf err >&2; exit 3"], timeout=GENEROUS)
    assert done[:3] == (3, b"out", b"err")
    assert 0 < done.elapsed < GENEROUS


def test_check_raises_for_an_exit_status_with_the_end_of_stderr() -> None:
    script = "seq 10000 >&2; printf 'svn: E170001: no\\n\\n' >&2; exit 3"
    with pytest.raises(ProcessFailed) as caught:
        run(["sh", "-c", script], timeout=GENEROUS, check=True)
    error = caught.value
    assert (error.program, error.returncode) == ("sh", 3)
    assert str(error) == "sh: exit status 3: svn: E170001: no"
    assert error.stderr_tail.endswith("9999\n10000\nsvn: E170001: no\n\n")
    assert len(error.stderr_tail) == 4096


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")]
)
def test_check_names_the_signal(number: int, name: str) -> None:
    code = f"import os; os.kill(os.getpid(), {int(number)})"
    with pytest.raises(ProcessFailed, match=f"ended by {name}: nothing on stderr"):
        run([sys.executable, "-I", "-S", "-c", code], timeout=GENEROUS, check=True)


def test_check_passes_a_good_end() -> None:
    assert run(["printf", "ok"], timeout=GENEROUS, check=True).stdout == b"ok"


def test_an_error_shows_no_secret_and_is_one_line() -> None:
    said = r"cannot reach https://me:hunter2@host/\x1b[31m\r"
    with pytest.raises(ProcessFailed) as caught:
        run(["sh", "-c", f"printf '{said}' >&2; exit 1"], timeout=GENEROUS, check=True)
    for text in str(caught.value), caught.value.stderr_tail, repr(caught.value):
        assert "hunter2" not in text
    assert "https://me:***@host/" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_text_is_utf_8_both_ways_and_never_fails() -> None:
    done = run(
        ["sh", "-c", r"cat; printf '\377\r\n' >&2"], timeout=GENEROUS, input="щ\n", text=True
    )
    assert done[:3] == (0, "щ\n", "\\xff\r\n")


def test_input_is_of_the_kind_of_the_output() -> None:
    with pytest.raises(TypeError, match="bytes"):
        run(["cat"], timeout=GENEROUS, input="text")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="str"):
        run(["cat"], timeout=GENEROUS, input=b"bytes", text=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("args", ["true", b"true", []])
def test_a_command_line_is_not_taken_for_a_list(args: list[str]) -> None:
    with pytest.raises(TypeError):
        run(args, timeout=GENEROUS)


def test_output_beyond_sixteen_megabytes_ends_the_program(processes: Processes) -> None:
    size = 16 << 20
    head = ["head", "-c", str(size), "/dev/zero"]
    assert len(run(head, timeout=GENEROUS).stdout) == size
    with pytest.raises(OutputTooLarge, match=str(size)):
        run(["sh", "-c", Kind.FLOODING.value], timeout=GENEROUS, env=processes.env)
    assert processes.alive() == []


@pytest.mark.parametrize(
    "kind", [kind for kind in Kind if kind not in (Kind.ZOMBIE, Kind.FLOODING)]
)
def test_a_timeout_leaves_nothing(kind: Kind, processes: Processes) -> None:
    began = time.monotonic()
    with pytest.raises(ProcessTimeout):
        run(["sh", "-c", kind.value], timeout=0.3, env=processes.env)
    assert processes.alive() == []
    assert time.monotonic() - began < GENEROUS / 2


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ZOMBIE])
def test_what_strikes_during_a_run_passes_and_leaves_nothing(
    kind: Kind,
    processes: Processes,
    struck_after: Callable[[float], AbstractContextManager[type[BaseException]]],
) -> None:
    with struck_after(0.3) as strike, pytest.raises(strike):
        run(["sh", "-c", kind.value], timeout=GENEROUS, env=processes.env, max_output=1 << 40)
    assert processes.alive() == []


def test_the_current_deadline_cuts_the_timeout() -> None:
    with deadline(0.1), pytest.raises(ProcessTimeout):
        run(["sleep", "1000"], timeout=GENEROUS)
    with deadline(0.0), pytest.raises(DeadlineExceeded):
        run(["sleep", "1000"], timeout=GENEROUS)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProgramNotFound, match="sepelib-no-such-program"):
        run(["sepelib-no-such-program", "hush"], timeout=GENEROUS)


def test_the_arguments_are_logged_without_their_secrets(caplog: pytest.LogCaptureFixture) -> None:
    args = ["true", "--password", "hunter2", "--token=hunter2", "https://me:hunter2@host/p"]
    args += ["--verbose", "API_KEY=hunter2", "two\nlines", "--password"]
    with caplog.at_level(logging.DEBUG, logger="sepelib.subprocess"):
        run(args, timeout=GENEROUS)
    (record,) = [r for r in caplog.records if r.name.startswith("sepelib.subprocess")]
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == (
        "running true --password *** --token=*** https://me:***@host/p --verbose API_KEY=*** "
        "two lines --password"
    )


def test_a_path_may_be_the_program() -> None:
    done = run([sys.executable, "-c", "print(1)"], timeout=GENEROUS, cwd=os.curdir, text=True)
    assert done.stdout == "1\n"
