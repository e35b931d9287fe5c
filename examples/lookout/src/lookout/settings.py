"""The configuration as typed values, all checked before any of them is used.

Whatever is wrong is a `ConfigError`: one line that cites the file and the line in it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lookout.judge import Rules
from sepelib.core import config as core_config
from sepelib.core.config import Config, ConfigError, Place
from sepelib.util.secrets import Secret
from sepelib.util.smtp import Mailer, build_message
from sepelib.util.url import redact_url

__all__ = ["SHIPPED", "Configuration", "MailSettings", "Settings", "Target", "http_url", "name_for"]

SHIPPED = Path(__file__).with_name("lookout.yml")

# Every key there is: a misspelt one would otherwise be a default that nobody asked for.
KEYS: dict[str, set[str]] = {
    "service": {"name", "state"},
    "web": {"host", "port"},
    "probes": {"interval", "timeout", "confirm", "recover"},
    "history": {"results", "incidents", "save_every"},
    "mail": {"enabled", "host", "port", "sender", "recipients", "tls", "user", "password"},
    "log": {"level"},
    "targets": set(),
}
TARGET_KEYS = {"name", "url", "status", "max_latency"} | KEYS["probes"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
Tls = Literal["none", "starttls", "tls"]
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
class MailSettings:
    """Who gets a mail, from whom, by which server; see `Mailer` for what None means."""

    sender: str
    recipients: tuple[str, ...]
    host: str = "localhost"
    port: int | None = None
    tls: Tls | None = None
    user: str | None = None
    password: Secret[str] | None = None

    def mailer(self) -> Mailer:
        """A new one, to be closed. Raises ValueError where the values contradict each other."""
        return Mailer(self.host, self.port, tls=self.tls, user=self.user, password=self.password)


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
    mail: MailSettings | None  # None: nobody is to be told


class Configuration:
    """The file with all that is laid over it: overlays, the environment (`LOOKOUT_WEB__PORT`) and
    *overrides*. *context* fills in the templates.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overlays: Sequence[Path] = (),
        context: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        # Not the one of the process: what the parts of lookout need is handed to them, typed.
        self.config = Config()
        self._path = path
        self._overlays = overlays
        self._context = context
        self._overrides = overrides

    def load(self) -> Settings:
        """Read everything for the first time."""
        return _settings(self._loaded(self.config))

    def reload(self) -> Settings:
        """Read everything anew. When it raises, what was loaded before stays."""
        # On the side first: `config` changes only when all of the new values are known to be fine.
        settings = _settings(self._loaded(Config()))
        self.config.reload()
        return settings

    def _loaded(self, config: Config) -> Config:
        return config.load(
            self._path,
            config_context=self._context,
            overlays=self._overlays,
            env_prefix="LOOKOUT",
            overrides=self._overrides,
            ambiguous="error",
        )


def _settings(config: Config) -> Settings:
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
        mail=_mail(config),
    )


def _mail(config: Config) -> MailSettings | None:
    number = len(config.get_value("mail.recipients", [], type=list))
    if not number or not config.get_value("mail.enabled", True, type=bool):
        return None

    def get(key: str, kind: Any) -> Any:
        """None where there is nothing, or a null."""
        value = config.get_value(f"mail.{key}", None)
        return None if value is None else config.get_value(f"mail.{key}", type=kind)

    mail = MailSettings(
        sender=config.get_value("mail.sender", type=address),
        recipients=tuple(
            config.get_value(f"mail.recipients.{n}", type=address) for n in range(number)
        ),
        host=config.get_value("mail.host", "localhost", type=str),
        port=get("port", port),
        tls=get("tls", tls),
        user=get("user", str),
        password=get("password", password),
    )
    try:
        mail.mailer().close()  # opens no connection, and knows what does not go together
    except ValueError as error:
        at = config.explain("mail")
        place = Place(at.file or "mail", at.line, at.column)
        raise ConfigError(f"mail: {error}", place) from None
    return mail


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
    with suppress(ValueError):  # its text holds the value
        if 0 < (number := core_config.duration(value)) < 1e7:
            return number
    raise ValueError("a time such as 5s, 250ms or 1m30s, more than none")


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


def tls(value: object) -> str:
    if value not in ("none", "starttls", "tls"):
        raise ValueError("none, starttls or tls")
    return str(value)


def password(value: object) -> Secret[str]:
    return Secret(str(value))


def address(value: object) -> str:
    """*value* if it is one address of a mail, else ValueError."""
    with suppress(ValueError, TypeError):
        build_message(str(value), (), "", "")
        return str(value)
    raise ValueError("one address, such as ann@example.org or Ann <ann@example.org>")


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
