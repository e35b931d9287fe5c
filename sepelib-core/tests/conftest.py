"""A configuration in the current directory, loaded or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from sepelib.core.config import Config, ConfigError


class Load(Protocol):
    def __call__(
        self, text: str | bytes, /, *, files: Mapping[str, str] | None = None, **context: Any
    ) -> Config: ...


class Refused(Protocol):
    def __call__(
        self, text: str | bytes, /, *, files: Mapping[str, str] | None = None, **context: Any
    ) -> ConfigError: ...


class Layered(Protocol):
    def __call__(self, text: str, /, *overlays: str, **arguments: Any) -> Config: ...


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write *text* to ``cfg.yml`` (and *files* beside it) and load that."""
    monkeypatch.chdir(tmp_path)

    def load(
        text: str | bytes, /, *, files: Mapping[str, str] | None = None, **context: Any
    ) -> Config:
        for name, body in {"cfg.yml": text, **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(body if isinstance(body, bytes) else body.encode())
        return Config().load("cfg.yml", config_context=context)

    return load


@pytest.fixture
def refused(load: Load) -> Refused:
    """The error with which such a configuration is refused."""

    def refused(
        text: str | bytes, /, *, files: Mapping[str, str] | None = None, **context: Any
    ) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load(text, files=files, **context)
        assert "\n" not in str(caught.value)
        return caught.value

    return refused


@pytest.fixture
def layered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layered:
    """Write ``cfg.yml`` and the overlays ``1.yml``, ``2.yml``, and load them."""
    monkeypatch.chdir(tmp_path)

    def layered(text: str, /, *overlays: str, **arguments: Any) -> Config:
        names = ["cfg.yml", *(f"{n}.yml" for n in range(1, len(overlays) + 1))]
        for name, body in zip(names, (text, *overlays), strict=True):
            (tmp_path / name).write_text(body)
        return Config().load("cfg.yml", **{"overlays": names[1:], **arguments})

    return layered
