"""Whatever a service answers makes a record: a field that has changed must not break a client.

The classes are found, not listed: each `Record` of each module of the package.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import sepelib.yandex
from sepelib.util.secrets import Secret
from sepelib.yandex.model import Record

TEXT, NUMBER = "a text", 7

ODD: dict[str, Any] = {
    "null": None,
    "text": TEXT,
    "empty text": "",
    "number": NUMBER,
    "huge number": 10**400,
    "negative": -1,
    "float": 0.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "true": True,
    "false": False,
    "list": [1, "two", None, [3], {"four": 4}],
    "empty list": [],
    "object": {"id": 1, "value": [2], "name": {"first": None}, "key": {}},
    "empty object": {},
    "list of objects": [{"id": "x", "state": []}, {}],
    "lone surrogate": "\ud800",
    "zero byte": "\0",
}


def _modules() -> Iterator[str]:
    prefix = f"{sepelib.yandex.__name__}."
    for module in pkgutil.walk_packages(sepelib.yandex.__path__, prefix):
        yield module.name


def _records() -> list[type[Record]]:
    for name in _modules():
        importlib.import_module(name)
    found: list[type[Record]] = []
    waiting = [Record]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            # dataclass(slots=True) leaves the class it was made of behind.
            current = getattr(importlib.import_module(cls.__module__), cls.__qualname__, None)
            if cls.__module__.startswith("sepelib.yandex.") and current is cls:
                found.append(cls)
            waiting.append(cls)
    return sorted(set(found), key=lambda cls: (cls.__module__, cls.__qualname__))


RECORDS = _records()
every_record = pytest.mark.parametrize(
    "cls", RECORDS, ids=lambda cls: f"{cls.__module__.rpartition('.')[2]}.{cls.__qualname__}"
)


def _fields(cls: type[Record]) -> dict[str, list[str]]:
    """What the service calls each field of *cls*."""
    return {
        field.name: field.metadata.get("key") or [field.name]
        for field in dataclasses.fields(cls)
        if field.name != "raw" and field.init
    }


def _answer(names: list[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def _seen(made: Record) -> None:
    """What anybody does with a record: none of it may fail."""
    assert repr(made) and str(made)
    assert copy.copy(made) == made or _has_nan(made)
    for name in dir(type(made)):
        if not name.startswith("_") and isinstance(getattr(type(made), name), property):
            getattr(made, name)


def _has_nan(made: Record) -> bool:
    return "nan" in repr(made).lower()


def test_all_services_with_records_are_here() -> None:
    modules = {cls.__module__.removeprefix("sepelib.yandex.").split(".")[0] for cls in RECORDS}
    there = {"alemate", "blackbox", "center_robot", "clustermaster", "cms", "gencfg", "iss", "its"}
    there |= {"nanny", "oauth", "passport", "sandbox", "shardtracker", "startrek", "timeline"}
    assert there | {"tvm", "_otrs_payload", "_blackbox_answers", "_sandbox_tasks"} <= modules


@every_record
def test_nothing_at_all_makes_a_record(cls: type[Record]) -> None:
    made = cls.from_dict({})

    assert type(made) is cls and made == cls() and made.raw == {}
    _seen(made)


@every_record
def test_an_unknown_key_stays_in_raw(cls: type[Record]) -> None:
    made = cls.from_dict({"a key of tomorrow": [1], "": 2})

    assert made == cls() and made.raw["a key of tomorrow"] == [1]


@every_record
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_each_field_takes_any_value(cls: type[Record], value: Any) -> None:
    for field, names in _fields(cls).items():
        raw = _answer(names, value)
        made = cls.from_dict(raw)
        assert made.raw is raw or isinstance(made.raw, Mapping)
        if value is None:
            assert getattr(made, field) == getattr(cls(), field), "null is nothing"
        _seen(made)


@every_record
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_all_fields_at_once_take_any_value(cls: type[Record], value: Any) -> None:
    raw: dict[str, Any] = {}
    for names in _fields(cls).values():
        for name, part in _answer(names, value).items():
            known = raw.get(name)
            raw[name] = {**known, **part} if isinstance(known, dict) and len(names) > 1 else part
    _seen(cls.from_dict(raw))


@every_record
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_what_is_no_object_makes_a_record(cls: type[Record], value: Any) -> None:
    made = cls.from_dict(value)

    assert type(made) is cls
    if not isinstance(value, dict):
        assert made == cls() and list(made.raw) == ["value"]
    _seen(made)


@every_record
def test_a_text_where_a_number_is_usual_is_kept(cls: type[Record]) -> None:
    for field in dataclasses.fields(cls):
        plain = field.init and field.metadata.get("of") is None and field.name != "raw"
        if plain and "int" in str(field.type):
            names = field.metadata.get("key") or [field.name]
            made = cls.from_dict(_answer(names, TEXT))
            if made != cls():  # a record with a from_dict of its own may take less
                assert getattr(made, field.name) == TEXT


@every_record
def test_a_record_is_frozen(cls: type[Record]) -> None:
    made = cls.from_dict({})
    for field in _fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field, NUMBER)


@every_record
def test_a_secret_in_a_record_is_hidden(cls: type[Record]) -> None:
    for field, names in _fields(cls).items():
        made = cls.from_dict(_answer(names, "hunter22"))
        if isinstance(getattr(made, field), Secret):
            assert "hunter22" not in repr(made)
