"""Credentials beside those of `auth.py`: in a Secret from the first moment to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sepelib.util.secrets import Secret

__all__ = ["hidden", "revealed", "with_hidden"]


def hidden(value: Any) -> Secret[str]:
    """*value*, whatever it is, as a Secret; never fails, for `key(of=)`."""
    return value if isinstance(value, Secret) else Secret(str(value))


def with_hidden(raw: Any, *names: str) -> Any:
    """*raw*, if it is an object a copy in which the values of *names* are Secrets."""
    if not isinstance(raw, Mapping):
        return raw
    return {
        name: hidden(value) if name in names and value is not None else value
        for name, value in raw.items()
    }


def revealed(value: str | Secret[str]) -> str:
    """What is to be sent, of a credential that the caller may have wrapped."""
    return Secret(value).reveal()
