"""Fixtures over `sepelib.vcs.testing`. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.vcs.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.vcs.pytest_plugin needs pytest: pip install 'sepelib-vcs[pytest]'"
    ) from e

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepelib.vcs.testing import Repository

__all__ = ["svn_repo"]


@pytest.fixture
def svn_repo(tmp_path: Path) -> Iterator[Repository]:
    """An empty repository, at `url` by file://; ``with svn_repo.serve(user, password)`` by svn://.

    Error when Subversion is not installed.
    """
    from sepelib.vcs.testing import Repository

    with Repository(tmp_path / "svn_repo") as repository:
        yield repository
