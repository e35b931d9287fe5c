"""What is watched, and how: the list `targets` as typed values.

A target is of the kind whose key it has: `url` is got, or there is one of `exec`, `thrift` and
`xmlrpc` instead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from lookout.checks import (
    NAME,
    Expected,
    Protocol,
    Transport,
    arguments,
    count,
    expected,
    file_name,
    host_and_port,
    http_status,
    http_url,
    name_for,
    one_or_more,
    password,
    protocol,
    seconds,
    tags,
    thrift_method,
    transport,
    url_to_post_to,
    user,
    watchable,
    xmlrpc_method,
)
from lookout.judge import Rules
from sepelib.core.config import Config
from sepelib.util.secrets import Secret
from sepelib.util.url import redact_url

__all__ = [
    "Defaults",
    "Kind",
    "Program",
    "Target",
    "ThriftCall",
    "XmlRpcCall",
    "refuse_unknown",
    "target_at",
    "targets_in",
]

# Every key there is: a misspelt one would otherwise be a default that nobody asked for.
TARGET_KEYS = {"name", "tags", "max_latency", "interval", "timeout", "confirm", "recover"}
KIND_KEYS = {
    "http": {"url", "status"},
    "exec": {"exec", "args"},
    "thrift": {"thrift", "method", "transport", "protocol"},
    "xmlrpc": {"xmlrpc", "method", "expect", "user", "password"},
}

PING = "ping"
LIST_METHODS = "system.listMethods"


class Kind(StrEnum):
    """How a target is probed. Each but HTTP is also the key that makes a target one of it."""

    HTTP = "http"
    EXEC = "exec"
    THRIFT = "thrift"
    XMLRPC = "xmlrpc"


@dataclass(frozen=True, slots=True)
class Program:
    """A file of *directory* and its arguments, which may hold secrets: they are not shown."""

    kind: ClassVar[Kind] = Kind.EXEC
    directory: Path
    name: str
    args: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"exec:{self.name}"


@dataclass(frozen=True, slots=True)
class ThriftCall:
    """A *method* without arguments, of the first of *hosts* that can be connected to.

    hosts: "name:port", or URLs of http or https with *transport* "http".
    """

    kind: ClassVar[Kind] = Kind.THRIFT
    hosts: tuple[str, ...]
    method: str = PING
    transport: Transport = "buffered"
    protocol: Protocol = "binary"

    @property
    def shown(self) -> str:
        if self.transport == "http":
            return ", ".join(f"thrift+{redact_url(url)}#{self.method}" for url in self.hosts)
        return f"thrift://{','.join(self.hosts)}/{self.method}"


@dataclass(frozen=True, slots=True)
class XmlRpcCall:
    """A *method* without parameters, and what it has to return: *expect*, if not None.

    The login is that of *url*, or *user* and *password*.
    """

    kind: ClassVar[Kind] = Kind.XMLRPC
    url: str
    method: str = LIST_METHODS
    expect: Expected | None = None
    user: str | None = None
    password: Secret[str] | None = None

    @property
    def shown(self) -> str:
        return f"xmlrpc+{redact_url(self.url)}#{self.method}"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a target does not say for itself. Without an *exec_dir* no programs are run."""

    interval: float = 30.0
    timeout: float = 5.0
    rules: Rules = field(default_factory=Rules)
    exec_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What to probe: *url* is got, unless there is a *how*.

    A URL may hold a password: show `shown_url` instead.
    """

    name: str
    url: str
    interval: float = 30.0
    timeout: float = 5.0
    rules: Rules = field(default_factory=Rules)
    status: int | None = None
    max_latency: float | None = None
    how: Program | ThriftCall | XmlRpcCall | None = None
    tags: frozenset[str] = frozenset()

    @property
    def kind(self) -> Kind:
        return Kind.HTTP if self.how is None else self.how.kind

    @property
    def shown_url(self) -> str:
        return redact_url(self.url) if self.how is None else self.how.shown

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def targets_in(
    config: Config, defaults: Defaults, *, also: Collection[str] = ()
) -> tuple[Target, ...]:
    """The list `targets` of *config*, with *defaults* for what they do not say.

    also: more keys that they may have, which are not looked at.
    """
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
        row = config.get_value(("targets", index), type=dict)
        kind = next((kind for kind in Kind if kind in row), Kind.HTTP)
        refuse_unknown(config, ("targets", index), {*TARGET_KEYS, *KIND_KEYS[kind], *also})
        name = config.get_value(f"{key}.name", type=new_name)
        url = ""
        how: Program | ThriftCall | XmlRpcCall | None = None
        match kind:
            case Kind.HTTP:
                url = config.get_value(f"{key}.url", type=http_url)
            case Kind.EXEC:
                how = _program(config, key, defaults.exec_dir)
            case Kind.THRIFT:
                how = _thrift(config, key)
            case Kind.XMLRPC:
                how = _xmlrpc(config, key)
        targets.append(
            Target(
                name=name,
                url=url,
                interval=config.get_value(f"{key}.interval", defaults.interval, type=seconds),
                timeout=config.get_value(f"{key}.timeout", defaults.timeout, type=seconds),
                rules=Rules(
                    config.get_value(f"{key}.confirm", defaults.rules.confirm, type=count),
                    config.get_value(f"{key}.recover", defaults.rules.recover, type=count),
                ),
                status=config.get_value(f"{key}.status", None, type=http_status),
                max_latency=config.get_value(f"{key}.max_latency", None, type=seconds),
                how=how,
                tags=config.get_value(f"{key}.tags", frozenset(), type=tags),
            )
        )
    return tuple(targets)


def _program(config: Config, key: str, exec_dir: Path | None) -> Program:
    def program_name(value: object) -> str:
        if exec_dir is None:
            raise ValueError("left out as long as probes.exec_dir names no directory of programs")
        return file_name(value)

    file = config.get_value(f"{key}.exec", type=program_name)
    args = config.get_value(f"{key}.args", (), type=arguments)
    assert exec_dir is not None  # program_name has seen to it
    return Program(exec_dir, file, args)


def _thrift(config: Config, key: str) -> ThriftCall:
    how: Transport = config.get_value(f"{key}.transport", "buffered", type=transport)
    check = url_to_post_to if how == "http" else host_and_port
    if isinstance(config.get_value(f"{key}.thrift", type=one_or_more), str):
        hosts = [config.get_value(f"{key}.thrift", type=check)]
    else:
        number = len(config.get_value(f"{key}.thrift"))
        hosts = [config.get_value(f"{key}.thrift.{n}", type=check) for n in range(number)]
    wire: Protocol = config.get_value(f"{key}.protocol", "binary", type=protocol)
    return ThriftCall(
        tuple(hosts),
        config.get_value(f"{key}.method", PING, type=thrift_method),
        how,
        wire,
    )


def _xmlrpc(config: Config, key: str) -> XmlRpcCall:
    url = config.get_value(f"{key}.xmlrpc", type=url_to_post_to)

    def apart(value: object) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("left out, as the URL has a login already")
        return user(value)

    row = config.get_value(key, type=dict)
    login: tuple[str | None, Secret[str] | None] = (None, None)
    if "user" in row or "password" in row:  # neither is of use without the other
        login = (
            config.get_value(f"{key}.user", type=apart),
            config.get_value(f"{key}.password", type=password),
        )
    return XmlRpcCall(
        url,
        config.get_value(f"{key}.method", LIST_METHODS, type=xmlrpc_method),
        config.get_value(f"{key}.expect", None, type=expected),
        *login,
    )


def target_at(url: object) -> Target:
    """The target that a single URL names, as `shown_url` writes them; ValueError if none."""
    text = url if isinstance(url, str) else ""
    scheme, _, rest = text.partition("://")
    how: ThriftCall | XmlRpcCall | None = None
    try:
        if scheme == "thrift":
            hosts, _, method = rest.partition("/")
            places = tuple(host_and_port(host) for host in hosts.split(","))
            how = ThriftCall(places, thrift_method(method or PING))
        elif scheme in ("xmlrpc+http", "xmlrpc+https"):
            parts = urlsplit(text.removeprefix("xmlrpc+"))
            method = xmlrpc_method(parts.fragment or LIST_METHODS)
            how = XmlRpcCall(url_to_post_to(urlunsplit(parts._replace(fragment=""))), method)
        else:
            http_url(text)
    except ValueError:  # it speaks of a part, and the port may be wrong in ways that quote it
        raise ValueError(
            "a URL of http:// or https://, thrift://HOST:PORT/METHOD or "
            "xmlrpc+http://HOST/PATH#METHOD"
        ) from None
    return Target(name_for(text, ()), text if how is None else "", how=how)


def refuse_unknown(config: Config, key: tuple[str | int, ...], names: Collection[str]) -> None:
    """Raise ConfigError, with its place, for a key below *key* that is none of *names*."""

    def known(value: object) -> None:
        raise ValueError(f"there are only {', '.join(sorted(names))}")

    for name in config.get_value(key, {}, type=dict):
        if name not in names:
            config.get_value((*key, name), type=known)  # for the place of it
