import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sepelib.util.processes import Proc
from sepelib.vcs.svnfile import SvnClient


@pytest.fixture
def client() -> SvnClient:
    return SvnClient(schemes=("file", "svn"), timeout=60.0)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """Pids of what this test has started, found by a mark in their environment."""
    mark = f"SEPELIB_TEST_MARK={os.urandom(8).hex()}"
    monkeypatch.setenv(*mark.split("="))

    def alive() -> list[int]:
        found = []
        for stat in Proc().snapshot().values():
            try:
                environ = Path(f"/proc/{stat.pid}/environ").read_bytes()
            except OSError:
                continue
            if stat.alive and mark.encode() in environ:
                found.append(stat.pid)
        return found

    yield alive
    assert alive() == [], "left behind"
