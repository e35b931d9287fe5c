"""A fixture for tests of what measures itself. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.metrics.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.metrics.pytest_plugin needs pytest: pip install 'sepelib-metrics[pytest]'"
    ) from e

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepelib.metrics import Registry

__all__ = ["metrics_registry"]


@pytest.fixture
def metrics_registry() -> Registry:
    """A registry with nothing in it. See `sepelib.metrics.testing.assert_metric`."""
    from sepelib.metrics import Registry

    return Registry()
