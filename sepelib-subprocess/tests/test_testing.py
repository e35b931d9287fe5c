"""The children for tests stand as they are called, and none outlives its test unseen."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sepelib.subprocess import run, terminate
from sepelib.subprocess.testing import Kind, LeftBehind, Processes
from sepelib.util.processes import Proc

GENEROUS = 30.0


@pytest.mark.parametrize("kind", Kind)
def test_a_child_stands_and_is_found_with_its_tree(kind: Kind) -> None:
    with Processes() as processes:
        popen = processes.start(kind)
        lives = kind not in (Kind.ZOMBIE, Kind.ENDED_BUT_ITS_CHILD)
        assert (popen.pid in processes.alive()) == lives
        assert (popen.pid in processes.kill()) == lives
        assert processes.alive() == []
        assert popen.returncode is not None


def test_who_is_left_behind_is_named_and_killed() -> None:
    with pytest.raises(LeftBehind) as caught, Processes() as processes:
        popen = processes.start(Kind.IGNORES_TERM)
    assert popen.pid in caught.value.pids
    assert f"{popen.pid} (sh -c trap" in str(caught.value)
    assert popen.returncode is not None


def test_an_orphan_in_another_session_is_found() -> None:
    with pytest.raises(LeftBehind, match="sleep 1000"), Processes() as processes:
        processes.start("setsid sh -c 'setsid sleep 1000 & echo up' & wait")


def test_a_program_of_ones_own_joins_in_by_its_environment() -> None:
    with pytest.raises(LeftBehind, match="sleep 1000"), Processes() as processes:
        run(
            ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"],
            timeout=GENEROUS,
            env=processes.env,
        )


def test_the_failure_of_the_block_is_not_hidden() -> None:
    processes = Processes()
    popen = processes.start(Kind.PLAIN)
    with pytest.raises(ZeroDivisionError), processes:
        raise ZeroDivisionError
    assert popen.returncode is not None


def test_a_process_in_the_middle_of_an_exec_is_found() -> None:
    script = 'echo up; i=0; while [ $i -lt 400 ]; do i=$((i+1)); exec env I=$i sh -c "$S"; done'
    with Processes() as processes:
        processes.env["S"] = 'i=$I; [ $i -lt 400 ] && exec env I=$((i+1)) sh -c "$S"; sleep 1000'
        popen = processes.start(script)
        for _ in range(100):
            assert popen.pid in processes.alive()
        terminate(popen, GENEROUS)


def test_nobody_else_is_found() -> None:
    with Processes() as processes, Processes() as others:
        popen = others.start(Kind.PLAIN)
        assert processes.alive() == []
        assert processes.kill() == {}
        assert popen.poll() is None
        terminate(popen, GENEROUS)


def test_a_script_that_does_not_stand_is_told_at_once() -> None:
    with Processes() as processes, pytest.raises(RuntimeError, match="not 'up'"):
        processes.start("echo down")


def test_the_fixture_fails_the_test_that_leaves_a_process(tmp_path: Path) -> None:
    test = tmp_path / "test_inner.py"
    test.write_text(
        textwrap.dedent("""
            from sepelib.subprocess import terminate
            from sepelib.subprocess.testing import Kind

            pytest_plugins = ["sepelib.subprocess.pytest_plugin"]

            def test_good(processes):
                terminate(processes.start(Kind.STOPPED), 30.0)

            def test_bad(processes):
                (open("pid", "w")).write(str(processes.start(Kind.SETSID).pid))
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 passed, 1 error" in done.stdout
    assert "processes left behind: " in done.stdout
    stat = Proc().read(int((tmp_path / "pid").read_text()))
    assert stat is None or not stat.alive
