"""Fixtures: ``pytest_plugins = ["sepelib.core.pytest_plugin"]`` in the top conftest.py."""

try:
    import pytest
except ModuleNotFoundError as error:
    raise ImportError(
        "sepelib.core.pytest_plugin needs pytest: pip install 'sepelib-core[pytest]'"
    ) from error

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from sepelib.core.config import Config
from sepelib.core.testing import fresh_config

__all__ = ["ConfigFile", "config", "config_file"]


class ConfigFile(Protocol):
    def __call__(self, text: str, /, **config_context: Any) -> Config: ...


@pytest.fixture
def config() -> Iterator[Config]:
    """An empty configuration that `sepelib.core.config.get_value` and friends act on."""
    with fresh_config() as fresh:
        yield fresh


@pytest.fixture
def config_file(config: Config, tmp_path: Path) -> ConfigFile:
    """A function that writes *text* to ``tmp_path / "config.yml"`` and loads it into `config`.

    Called again it replaces the file and what was loaded.
    """

    def load(text: str, /, **config_context: Any) -> Config:
        path = tmp_path / "config.yml"
        path.write_text(text, encoding="utf-8")
        return config.load(path, config_context=config_context, replace=True)

    return load
