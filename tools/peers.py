"""The same faults against the libraries that people use today: `./dev peers`.

    python -m tools.peers               every case; status 1 when one has lost its bite
    python -m tools.peers C1 L3         these rows alone

A test marked `@pytest.mark.peer("kazoo", "C1")` is a case of our contract which shows a defect of
kazoo. Plain pytest runs it on ours, where it passes. Here it runs once more with the option
`--peer kazoo`, which a fixture of its distribution reads: the same lines on kazoo's own class,
where an assertion must fail. A case that passes there proves nothing about ours any more.

Each case is a pytest of its own in a child process, since what it shows may hang the interpreter
for good; that is a finding too, after a time limit. Any other error than a failed assertion (a
typo, a missing server) is the case's own fault and counts as such.

This module is the runner and the plugin of its children (`-p tools.peers`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LIMIT = 40.0  # seconds; cases bound what they wait for, so this ends only what hangs the hub
AT_ONCE = min(2, os.cpu_count() or 1)  # timings are part of the cases: do not crowd them


# The plugin.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peer", help="run the cases on this library")
    parser.addoption("--peer-report", type=Path, help="tell this file, in JSON, what happened")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        cases = [
            (item.nodeid, *mark.args)
            for item in session.items
            for mark in item.iter_markers("peer")
        ]
        session.config.getoption("--peer-report").write_text(json.dumps(cases))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    if call.when == "call" or call.excinfo is not None:
        finding = _finding(call, report)
        item.config.getoption("--peer-report").write_text(json.dumps(finding))
        # The cleanup of a defect may hang as well. What the case has started goes with us.
        os._exit(0)
    return report


def _finding(call: pytest.CallInfo[Any], report: pytest.TestReport) -> tuple[str, str]:
    if call.excinfo is None:
        return "passed", "the case has lost its bite"
    error = call.excinfo.value
    if call.when == "call" and isinstance(error, AssertionError | pytest.fail.Exception):
        return "failed", str(error).partition("\n")[0]
    return "broken", report.longreprtext


# The runner.


class Case(NamedTuple):
    node: str
    peer: str
    row: str

    @property
    def about(self) -> str:
        name, _, parameter = self.node.rpartition("::")[2].removeprefix("test_").partition("[")
        return name.replace("_", " ") + (f" ({parameter[:-1]})" if parameter else "")


class Run:
    """One case on its peer, in a child."""

    def __init__(self, case: Case, report: Path, limit: float) -> None:
        self.case = case
        self._report = report
        self._process = _pytest(case.node, "--peer", case.peer, report=report)
        self._limit = limit
        self._deadline = time.monotonic() + limit

    def ended(self) -> bool:
        return self._process.poll() is not None or time.monotonic() > self._deadline

    def finding(self) -> tuple[str, str]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            status, text = json.loads(self._report.read_text())
            return status, text
        if self._process.returncode is None:
            return "failed", f"hung for {self._limit:.0f} s"
        return "broken", f"pytest ended with status {self._process.returncode}"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own
        self._process.wait()


def _pytest(*arguments: str, report: Path) -> subprocess.Popen[bytes]:
    plugin = ["-p", "tools.peers", "--peer-report", str(report)]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugin, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def collect(scratch: Path) -> list[Case]:
    report = scratch / "cases"
    with _pytest("--collect-only", "-m", "peer", report=report) as process:
        process.wait()
    if not report.exists():
        raise SystemExit("peers: pytest cannot collect the cases: try ./dev quick --collect-only")
    cases = [Case(*fields) for fields in json.loads(report.read_text())]
    return sorted(cases, key=lambda case: (case.peer, _by_number(case.row), case.node))


def _by_number(row: str) -> tuple[str, int]:
    """C2 comes before C10; a row may also be a name."""
    name = row.rstrip("0123456789")
    return name, int(row[len(name) :] or 0)


def run(cases: Sequence[Case], scratch: Path, limit: float) -> Iterator[tuple[Case, str, str]]:
    """What each case finds, in their order, as soon as it is known."""
    waiting = deque(enumerate(cases))
    running: dict[int, Run] = {}
    findings: dict[int, tuple[str, str]] = {}
    try:
        for number, case in enumerate(cases):
            while number not in findings:
                while waiting and len(running) < AT_ONCE:
                    next_number, next_case = waiting.popleft()
                    running[next_number] = Run(next_case, scratch / str(next_number), limit)
                time.sleep(0.05)
                for ended in [one for one in running if running[one].ended()]:
                    findings[ended] = running[ended].finding()
                    running.pop(ended).kill()
            yield case, *findings[number]
    finally:
        for one in running.values():
            one.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev peers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="these rows alone, e.g. C1")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a case may hang")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        cases = [case for case in collect(scratch) if not options.rows or case.row in options.rows]
        count = {"failed": 0, "passed": 0, "broken": 0}
        for case, status, text in run(cases, scratch, options.limit):
            count[status] += 1
            verdict = {"failed": "fails", "passed": "PASSES", "broken": "BROKEN CASE"}[status]
            print(f"{case.row}, {case.peer}: {case.about}")
            print(textwrap.indent(f"{verdict}: {text}", " " * 4), flush=True)
    print(
        f"{len(cases)} cases in {time.monotonic() - started:.0f} s: {count['failed']} fail on the "
        f"peers as known, {count['passed']} pass, {count['broken']} are broken"
    )
    return 0 if cases and count["failed"] == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
