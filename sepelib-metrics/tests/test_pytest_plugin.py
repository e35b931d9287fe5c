"""The fixture, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

LIMIT = 60.0  # seconds; far more than anything here takes

SUITE = """
from sepelib.metrics import Registry, default_registry
from sepelib.metrics.testing import assert_metric

seen = []

def test_counts(metrics_registry):
    assert isinstance(metrics_registry, Registry)
    assert metrics_registry is not default_registry
    metrics_registry.counter("jobs").inc()
    assert_metric(metrics_registry, "jobs", value=1)
    seen.append(metrics_registry)

def test_begins_anew(metrics_registry):
    assert metrics_registry not in seen
    assert metrics_registry.snapshot()["metrics"] == []
"""


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=LIMIT
    )


def test_each_test_has_a_registry_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "sepelib.metrics.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    done = run("-m", "pytest", *options, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_without_pytest_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; import sepelib.metrics.pytest_plugin"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert "needs pytest: pip install 'sepelib-metrics[pytest]'" in done.stderr
