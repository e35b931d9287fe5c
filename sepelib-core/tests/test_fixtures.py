"""The fixtures that a downstream suite asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sepelib.core import config as module
from sepelib.core.exceptions import LogicalError
from sepelib.core.testing import fresh_config

if TYPE_CHECKING:
    from sepelib.core.config import Config
    from sepelib.core.pytest_plugin import ConfigFile

pytest_plugins = ["sepelib.core.pytest_plugin"]


def test_the_fixture_is_what_the_module_acts_on(config: Config, tmp_path: Path) -> None:
    with pytest.raises(LogicalError):
        module.get_value("a")

    with config.override({"a": 1}):
        assert module.get_value("a") == 1


def test_a_text_is_written_and_loaded(config_file: ConfigFile, tmp_path: Path) -> None:
    loaded = config_file("a: {{ n }}", n=1)

    assert (tmp_path / "config.yml").read_text() == "a: {{ n }}"
    assert module.get_value("a") == loaded.get_value("a") == 1


def test_a_second_text_replaces_the_first(config_file: ConfigFile, config: Config) -> None:
    config_file("a: 1")
    config_file("b: é")

    assert config.get() == {"b": "é"}


def test_the_configuration_of_before_comes_back_from_a_failing_block(config: Config) -> None:
    def fail() -> None:
        with fresh_config() as inner, inner.override({"a": 2}):
            assert module.get_value("a") == 2
            raise KeyboardInterrupt

    with config.override({"a": 1}):
        with pytest.raises(KeyboardInterrupt):
            fail()

        assert module.get_value("a") == 1
