"""A client's section of the configuration, checked: what is unknown or does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from sepelib.core.config import ConfigError
from sepelib.util.retry import Backoff, RetryBudget, RetryPolicy

from .auth import auth_from_config
from .errors import YandexError

__all__ = ["client_arguments"]

_LISTS = (list, tuple)


def client_arguments(
    service: str,
    section: Mapping[str, Any],
    options: Mapping[str, type | tuple[type, ...]],
    *,
    timeouts: tuple[float | None, float | None],
) -> dict[str, Any]:
    """Keywords for the constructor.

    *options*: the service's own keys and their types. *timeouts*: to connect and to read, where
    the section says only the other one.
    """
    left = _mapping(service, "", section)
    given: dict[str, Any] = {}
    if "url" in left:
        url = left.pop("url")
        urls = list(url) if isinstance(url, _LISTS) else [url]
        if not urls or not all(isinstance(item, str) for item in urls):
            raise _unfit(service, "url", "a text or a list of texts")
        given["url"] = urls
    if (auth := left.pop("auth", None)) is not None:
        given["auth"] = auth_from_config(_mapping(service, "auth", auth))
    if (timeout := left.pop("timeout", None)) is not None:
        given |= _timeouts(service, timeout, timeouts)
    if (retries := left.pop("retries", None)) is not None:
        given["retry"] = _policy(service, retries)
    plain: dict[str, type | tuple[type, ...]] = {
        "max_connections": int,
        "max_body": int,
        "verify": (bool, str),
        **options,
    }
    for name, kind in plain.items():
        value = left.pop(name, None)
        if value is not None:
            if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
                kinds = kind if isinstance(kind, tuple) else (kind,)
                raise _unfit(service, name, " or ".join(k.__name__ for k in kinds))
            given[name] = value
    for name in ("headers", "paths"):
        if (texts := left.pop(name, None)) is not None:
            given[name] = _texts(service, name, texts)
    _refuse(service, "", left)
    return given


def _timeouts(
    service: str, section: Any, default: tuple[float | None, float | None]
) -> dict[str, Any]:
    left = _mapping(service, "timeout", section)
    given: dict[str, Any] = {}
    connect = _seconds(service, "timeout.connect", left.pop("connect", default[0]))
    given["timeout"] = connect, _seconds(service, "timeout.read", left.pop("read", default[1]))
    if "total" in left:
        given["total_timeout"] = _seconds(service, "timeout.total", left.pop("total"))
    _refuse(service, "timeout", left)
    return given


def _policy(service: str, section: Any) -> RetryPolicy:
    left = _mapping(service, "retries", section)
    attempts = left.pop("attempts", 3)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        raise _unfit(service, "retries.attempts", "a whole number from 1")
    backoff = left.pop("backoff", (0.2, 5.0))
    if not isinstance(backoff, _LISTS) or len(backoff) != 2:
        raise _unfit(service, "retries.backoff", "[first, longest] in seconds")
    base, cap = (_seconds(service, "retries.backoff", number) for number in backoff)
    ratio = left.pop("budget", None)
    budget = None if ratio is None else RetryBudget(_seconds(service, "retries.budget", ratio))
    _refuse(service, "retries", left)
    return RetryPolicy(
        YandexError, attempts=attempts, backoff=Backoff(base or 0.0, cap=cap or 0.0), budget=budget
    )


def _seconds(service: str, name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise _unfit(service, name, "a number, finite and not negative")
    return float(value)


def _texts(service: str, name: str, value: Any) -> dict[str, str]:
    texts = _mapping(service, name, value)
    if not all(isinstance(text, str) for text in texts.values()):
        raise _unfit(service, name, "a mapping of texts")
    return texts


def _mapping(service: str, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _unfit(service, name, "a mapping with texts for keys")
    return dict(value)


def _refuse(service: str, name: str, left: Mapping[str, Any]) -> None:
    if left:
        place = f"{service}.{name}" if name else service
        raise ConfigError(f"{place} has the unknown key {sorted(left)[0]}")


def _unfit(service: str, name: str, kind: str) -> ConfigError:
    return ConfigError(f"{service}.{name} is not {kind}" if name else f"{service} is not {kind}")
