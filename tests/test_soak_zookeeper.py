"""All recipes at once for a minute under faults; the plan is fixed, what it meets is not.

`./dev soak` does the same for ten minutes, with other seeds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soak.recipes import RECIPES
from soak.report import describe, keep
from soak.run import Options, run
from tools import dists

pytestmark = pytest.mark.slow

SEED = 7


def test_a_minute_of_faults_violates_nothing(tmp_path: Path) -> None:
    outcome = run(Options(SEED, 60.0))
    keep(outcome, tmp_path)
    assert not outcome.report.violations, f"{describe(outcome.report)}\nkept in {tmp_path}"
    assert sum(outcome.report.faults.values()) > 40
    figures = outcome.report.figures
    assert set(figures) == set(RECIPES)
    for recipe in ("lock", "singleton", "semaphore", "queue"):
        assert figures[recipe]["granted"] > 20 and figures[recipe]["claims"] > 500, recipe
    assert figures["condition"]["woken"] > 50 and figures["condition"]["notifies"] > 50
    assert figures["queue"]["done"] > 50
    assert figures["counter"]["added"] > 100
    assert figures["party"]["joined"] > 12 and figures["party"]["looks at the server"] > 50


def test_the_control_cannot_be_had_for_a_recipe_that_it_does_not_have() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "soak", "zookeeper", "--library", "kazoo", "--recipe", "condition"],
        cwd=dists.ROOT,
        env={**os.environ, "PYTHONPATH": str(dists.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("soak: error: kazoo has none of these recipes\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_it_is_ended(signum: int, tmp_path: Path) -> None:
    with sigint_not_ignored_by_children():
        started = subprocess.Popen(
            [sys.executable, "-m", "soak", "zookeeper", "--seconds", "60", "--library", "kazoo"],
            cwd=dists.ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(dists.ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        wait_until(lambda: sum("soak.worker" in line for line in processes_of(tmp_path)) >= 6)
        started.send_signal(signum)
        started.wait(60.0)
    finally:
        started.kill()
        started.wait()
    wait_until(lambda: not processes_of(tmp_path) and not list(tmp_path.iterdir()))


@contextlib.contextmanager
def sigint_not_ignored_by_children() -> Iterator[None]:
    """Of those that are started in the block.

    A shell starts the jobs of its background with SIGINT ignored, which all their children inherit:
    the tests may be one. A signal with a handler has its default disposition behind an exec.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def processes_of(folder: Path) -> list[str]:
    """The command lines that name *folder*: those of workers, servers and their supervisors."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if str(folder) in line:
            found.append(line)
    return found


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
