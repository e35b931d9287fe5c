"""Options of a Server from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from sepelib.core.config import ConfigError, Place, duration, size
from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._options import AdminOptions
from sepelib.flask.server._peers import Networks

__all__ = ["options_from"]

Reader = Callable[[Any], Any]


def options_from(config: Any, key: str) -> dict[str, Any]:
    """Keyword arguments of Server. Raises ConfigError, with file and line where they are known."""
    section = _Section(config, key, config.get_value(key, type=dict))
    options = section.read(_SERVER)
    limits = {name: options.pop(name) for name in _LIMITS if name in options}
    if limits:
        options["limits"] = Limits(**limits)
    if (admin := section.inner("admin")) is not None:
        found = admin.read(_ADMIN)
        try:
            options["admin"] = AdminOptions(**found)
        except ValueError as error:
            raise admin.wrong(None, f"does not fit: {error}") from error
    if (tls := section.inner("tls")) is not None:
        options["ssl_context"] = _context(tls)
    return options


class _Section:
    """A mapping in a configuration, and where it stands."""

    def __init__(self, config: Any, key: str, values: Mapping[str, Any]) -> None:
        self._config = config
        self._key = key
        self._values = values

    def read(self, readers: Mapping[str, Reader | None]) -> dict[str, Any]:
        """Each value by its reader, in the order in which they stand; None: not read here."""
        found = {}
        for name, value in self._values.items():
            if name not in readers:
                near = get_close_matches(str(name), readers, 1)
                advice = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(readers)}"
                raise self.wrong(name, f"is not known; {advice}")
            reader = readers[name]
            if reader is not None:
                try:
                    found[name] = reader(value)
                except (TypeError, ValueError) as error:
                    raise self.wrong(name, f"does not fit: {error}") from error
        return found

    def inner(self, name: str) -> _Section | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, "must be a mapping")
        return _Section(self._config, f"{self._key}.{name}", value)

    def wrong(self, name: object, what: str) -> ConfigError:
        key = self._key if name is None else f"{self._key}.{name}"
        place = None
        if hasattr(self._config, "explain"):
            file, line, column, *_ = self._config.explain(key)
            place = None if file is None else Place(file, line, column)
        return ConfigError(f"{key} {what}", place)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text")
    return value


def _host(value: Any) -> str:
    if not _text(value):
        raise ValueError("must not be empty; 0.0.0.0 is all addresses of this host")
    return str(value)


def _port(value: Any) -> int:
    number = _count(value)
    if number > 65535:
        raise ValueError("a port is 0 to 65535")
    return number


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("must be a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number")
    return value


def _mode(value: Any) -> int:
    # 0660 is 432 in YAML 1.1, and a text where octal numbers are refused.
    number = int(value, 8) if isinstance(value, str) else _count(value)
    if number > 0o777:
        raise ValueError("a mode is such as '0660'")
    return number


def _networks(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("must be a list of networks")
    Networks(value)
    return list(value)


def _access_log(value: Any) -> bool | AccessLog:
    return value if isinstance(value, bool) else AccessLog(value)


def _or_none(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _request_timeout(value: Any) -> float:
    seconds = duration(value)
    if seconds == 0:
        raise ValueError("must be more than 0 seconds; null is no limit")
    return seconds


def _limit(name: str, kind: str) -> Reader:
    if name.endswith("timeout"):
        reader: Reader = duration
    elif name.endswith("bytes"):
        reader = size
    else:
        reader = _number if "float" in kind else _count
    reader = _or_none(reader) if "None" in kind else reader

    def checked(value: Any) -> Any:
        limit = reader(value)
        Limits(**{name: limit})  # here, where the place of the value is at hand
        return limit

    return checked


_LIMITS = {field.name: _limit(field.name, str(field.type)) for field in fields(Limits)}
_SERVER: dict[str, Reader | None] = {
    "host": _host,
    "port": _port,
    "unix": _or_none(_text),
    "unix_mode": _mode,
    "request_timeout": _or_none(_request_timeout),
    "drain_delay": duration,
    "stop_timeout": duration,
    "access_log": _access_log,
    "trusted_proxies": _networks,
    "admin": None,
    "tls": None,
    **_LIMITS,
}
_ADMIN: dict[str, Reader | None] = {
    "networks": _networks,
    "host": _host,
    "port": _or_none(_port),
    "unix": _or_none(_text),
    "unix_mode": _mode,
}
_TLS: dict[str, Reader | None] = {"certificate": _text, "key": _or_none(_text)}


def _context(section: _Section) -> Any:
    from gevent import ssl

    files = section.read(_TLS)
    if "certificate" not in files:
        raise section.wrong(None, "needs a certificate, the name of a PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files["certificate"], files.get("key"))
    except OSError as error:  # an SSLError is one
        raise section.wrong(None, f"cannot be used: {error}") from error
    return context
