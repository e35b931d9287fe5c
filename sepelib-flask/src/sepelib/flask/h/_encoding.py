"""Replies as JSON: the types that the standard library does not know, and none that is not JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Set
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import singledispatch
from typing import Any
from uuid import UUID

from sepelib.flask.h.convert import outside_names
from sepelib.util.secrets import Secret

__all__ = ["dumps", "encode"]


@singledispatch
def encode(value: Any) -> Any:
    """What stands in JSON for *value*, of a type that JSON does not have. Register your own:

        @h.encode.register
        def _(value: Money) -> str:
            return f"{value.amount} {value.currency}"

    Known are dataclasses and mappings (objects), sets (sorted lists), Enum (its value), datetime
    (UTC with a Z; a naive one is a ValueError), date, UUID, Decimal (a string, so that no digit
    is lost), Secret (`***`), bson's ObjectId. TypeError for everything else, bytes among it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, field) for field, name in outside_names(type(value))}
    if type(value).__name__ == "ObjectId" and type(value).__module__.partition(".")[0] == "bson":
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes have no form in JSON: decode them, or answer with a Response")
    advice = "; stream_json() takes iterators" if hasattr(value, "__next__") else ""
    raise TypeError(
        f"a {type(value).__qualname__} has no form in JSON: register one by h.encode.register"
        + advice
    )


@encode.register
def _(value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError(f"{value!r} is naive: nobody can tell which moment it is")
    return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


@encode.register
def _(value: date) -> str:
    return value.isoformat()


@encode.register
def _(value: enum.Enum) -> Any:
    return value.value


@encode.register
def _(value: UUID) -> str:
    return str(value)


@encode.register
def _(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"{value} is not JSON")
    return str(value)


@encode.register(Secret)
def _(value: Secret[Any]) -> str:
    return str(value)


@encode.register(Mapping)
def _(value: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(value)


@encode.register(Set)
def _(value: Set[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:  # of several types, or of one without an order
        return sorted(value, key=dumps)


def _encoder(sort_keys: bool) -> json.JSONEncoder:
    return json.JSONEncoder(
        default=encode,
        allow_nan=False,
        ensure_ascii=False,
        separators=(",", ":"),
        sort_keys=sort_keys,
    )


_ENCODER, _SORTED = _encoder(False), _encoder(True)


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """*value* as JSON in UTF-8.

    ValueError for NaN, infinity and a circle, TypeError for what `encode` does not know. Half of a
    surrogate pair, which UTF-8 does not have, is escaped. Keys are str, int, float, bool or None,
    or what `encode` makes a str of.
    """
    encoder = _SORTED if sort_keys else _ENCODER
    try:
        text = encoder.encode(value)
    except TypeError:
        # Rarely: json asks `encode` for values, never for keys.
        text = encoder.encode(_with_plain_keys(value))
    return text.encode("utf-8", "backslashreplace")  # which is JSON's escape too


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _with_plain_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_keys(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return _with_plain_keys(encode(value))


def _key(key: Any) -> Any:
    if key is None or isinstance(key, str | int | float):
        return key
    key = encode(key)
    if not isinstance(key, str | int):
        raise TypeError("the key of an object is a string")
    return key
