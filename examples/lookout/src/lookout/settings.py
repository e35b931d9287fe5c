"""The configuration as typed values, all checked at the start.

Whatever is wrong is a `ConfigError`: one line that cites the file and the line in it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lookout.judge import Rules
from sepelib.core.config import Config
from sepelib.util.url import redact_url

__all__ = ["SHIPPED", "Settings", "Target", "http_url", "name_for", "read"]

SHIPPED = Path(__file__).with_name("lookout.yml")

# Every key there is: a misspelt one would otherwise be a default that nobody asked for.
KEYS: dict[str, set[str]] = {
    "service": {"name", "state"},
    "web": {"host", "port"},
    "probes": {"interval", "timeout", "confirm", "recover"},
    "history": {"results", "incidents", "save_every"},
    "log": {"level"},
    "targets": set(),
}
TARGET_KEYS = {"name", "url", "status", "max_latency"} | KEYS["probes"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Target:
    """What to probe. Its URL may hold a password: show `shown_url` instead."""

    name: str
    url: str
    interval: float = 30.0
    timeout: float = 5.0
    rules: Rules = field(default_factory=Rules)
    status: int | None = None
    max_latency: float | None = None

    @property
    def shown_url(self) -> str:
        return redact_url(self.url)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the daemon is told from outside."""

    name: str
    state: Path
    host: str
    port: int
    targets: tuple[Target, ...]
    max_results: int
    max_incidents: int
    save_every: float
    log_level: str


def read(path: str | Path, context: Mapping[str, Any]) -> Settings:
    """Load and check the file *path*; *context* fills in its template."""
    # Not the `config` of the process: what the parts of lookout need is handed to them, typed.
    config = Config().load(path, config_context=context)
    _refuse_unknown(config, (), KEYS)
    for section, names in KEYS.items():
        if names:
            _refuse_unknown(config, (section,), names)
    return Settings(
        name=config.get_value("service.name", "lookout", type=str),
        state=Path(config.get_value("service.state", type=str)),
        host=config.get_value("web.host", "127.0.0.1", type=str),
        port=config.get_value("web.port", 8080, type=port),
        targets=_targets(config),
        max_results=config.get_value("history.results", 300, type=count),
        max_incidents=config.get_value("history.incidents", 200, type=count),
        save_every=config.get_value("history.save_every", 5.0, type=seconds),
        log_level=config.get_value("log.level", "INFO", type=level),
    )


def _targets(config: Config) -> tuple[Target, ...]:
    every = config.get_value("probes.interval", 30.0, type=seconds)
    timeout = config.get_value("probes.timeout", 5.0, type=seconds)
    confirm = config.get_value("probes.confirm", 2, type=count)
    recover = config.get_value("probes.recover", 2, type=count)
    taken: set[str] = set()

    def new_name(value: object) -> str:
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise ValueError("letters, digits, '.', '_' and '-', 63 at most")
        if value in taken:
            raise ValueError("another target has this name")
        taken.add(value)
        return value

    targets = []
    for index in range(len(config.get_value("targets", type=watchable))):
        key = f"targets.{index}"
        _refuse_unknown(config, ("targets", index), TARGET_KEYS)
        targets.append(
            Target(
                name=config.get_value(f"{key}.name", type=new_name),
                url=config.get_value(f"{key}.url", type=http_url),
                interval=config.get_value(f"{key}.interval", every, type=seconds),
                timeout=config.get_value(f"{key}.timeout", timeout, type=seconds),
                rules=Rules(
                    config.get_value(f"{key}.confirm", confirm, type=count),
                    config.get_value(f"{key}.recover", recover, type=count),
                ),
                status=config.get_value(f"{key}.status", None, type=http_status),
                max_latency=config.get_value(f"{key}.max_latency", None, type=seconds),
            )
        )
    return tuple(targets)


def _refuse_unknown(config: Config, key: tuple[str | int, ...], names: Collection[str]) -> None:
    def known(value: object) -> None:
        raise ValueError(f"there are only {', '.join(sorted(names))}")

    for name in config.get_value(key, {}, type=dict):
        if name not in names:
            config.get_value((*key, name), type=known)  # for the place of it


# What a value must be. `get_value` puts the key and the place before what they complain of;
# none repeats the value, which may be a secret.


def seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e7:
        raise ValueError("a positive number")
    return float(value)


def count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number from 1")
    return value


def port(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 65535:
        raise ValueError("a whole number up to 65535")
    return value


def http_status(value: object) -> int:
    if type(value) is not int or not 200 <= value <= 599:
        raise ValueError("a whole number from 200 to 599")
    return value


def level(value: object) -> str:
    if value not in LEVELS:
        raise ValueError(f"one of {', '.join(LEVELS)}")
    return str(value)


def watchable(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list with at least one target in it, else there is nothing to watch")
    return value


def http_url(value: object) -> str:
    """*value* if it is a URL that can be probed, else ValueError."""
    refused = ValueError("a URL that starts with http:// or https:// and names a host")
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise refused
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise refused from None  # its text holds the URL
    if not fits:
        raise refused
    return value


def name_for(url: str, taken: Collection[str]) -> str:
    """A name for a target of which only the URL is known: its host, numbered if need be."""
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(url).hostname or "")[:50].strip(".-") or "url"
    names = (host if n == 1 else f"{host}-{n}" for n in itertools.count(1))
    return next(name for name in names if name not in taken)
