"""`./dev peers` tells a case that bites from one that does not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = """
import time
import pytest

@pytest.fixture
def flavour(request):
    return request.config.getoption("--peer", None) or "ours"

@pytest.mark.peer("theirs", "X1")
def test_that_they_are_wrong(flavour):
    assert flavour == "ours", "theirs says 2"

@pytest.mark.peer("theirs", "X-HANG")
@pytest.mark.parametrize("how", ["silently"])
def test_that_they_hang(flavour, how):
    while flavour != "ours":
        time.sleep(1)

@pytest.mark.peer("theirs", "X10")
def test_that_they_are_right(flavour):
    pass

@pytest.mark.peer("theirs", "X11")
def test_that_has_a_typo(flavour):
    flavour.nothing

@pytest.mark.peer("theirs", "X12")
def test_that_has_no_server(servers):
    pass

def test_of_ours_alone(flavour):
    raise SystemExit
"""


def peers(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    (folder / "test_cases.py").write_text(CASES)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = peer\n")
    run = subprocess.run(
        [sys.executable, "-m", "tools.peers", "--limit", "5", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.returncode, [line.strip() for line in (run.stdout + run.stderr).splitlines()]


def test_defects_that_show_end_with_status_0(tmp_path: Path) -> None:
    status, lines = peers(tmp_path, "X1", "X-HANG")

    assert status == 0
    assert lines[:4] == [
        "X1, theirs: that they are wrong",
        "fails: theirs says 2",
        "X-HANG, theirs: that they hang (silently)",
        "fails: hung for 5 s",
    ]


def test_a_case_that_has_lost_its_bite_ends_with_status_1(tmp_path: Path) -> None:
    status, lines = peers(tmp_path, "X1", "X10")

    assert status == 1
    assert lines[3] == "PASSES: the case has lost its bite"


def test_a_case_with_a_fault_of_its_own_proves_nothing(tmp_path: Path) -> None:
    status, lines = peers(tmp_path, "X11", "X12")

    assert status == 1
    assert any("no attribute 'nothing'" in line for line in lines)
    assert any("fixture 'servers' not found" in line for line in lines)
    assert lines[-1].endswith("0 fail on the peers as known, 0 pass, 2 are broken")


def test_nothing_asked_proves_nothing(tmp_path: Path) -> None:
    assert peers(tmp_path, "X99")[0] == 1
