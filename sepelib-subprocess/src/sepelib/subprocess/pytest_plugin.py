"""Fixtures over `sepelib.subprocess.testing`. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.subprocess.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.subprocess.pytest_plugin needs pytest: pip install 'sepelib-subprocess[pytest]'"
    ) from e

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepelib.subprocess.testing import Processes

__all__ = ["processes"]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts children of all kinds; the test fails when one of them outlives it."""
    from sepelib.subprocess.testing import Processes

    with Processes() as processes:
        yield processes
