"""What services answer, as frozen values that take whatever comes.

    @record
    class Person(Record):
        login: str | None = None
        dismissed: bool | None = key("is_dismissed")
        first_name: str | None = key("name.first")
        joined: datetime | str | None = key("joined_at", of=moment)
        groups: tuple[Group, ...] = key("groups", of=many(Group.from_dict), default=())

    Person.from_dict({"login": "ann", "is_dismissed": False, "desk": 7}).raw["desk"]    # 7

Lenient on purpose: an unknown key stays in `raw`, a missing one is the default, and a value of
another type than the annotation says is kept as it came. One field that has changed must not make
a whole answer unreadable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, TypeVar, dataclass_transform

__all__ = ["Record", "key", "many", "moment", "record"]

T = TypeVar("T")

_NOTHING: Any = object()


def key(name: str, *, of: Callable[[Any], Any] | None = None, default: Any = None) -> Any:
    """A field that the service calls *name*; dots lead into objects.

    *of* makes the value of what is there, unless that is null; it must not fail, as `moment`,
    `many(...)` and `Record.from_dict` do not. *default*: when it is missing or null.
    """
    return dataclasses.field(default=default, metadata={"key": name.split("."), "of": of})


# Without field_specifiers: one that is called without `default=` would make its field required.
@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots and keywords, for subclasses of `Record`."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


@record
class Record:
    """Something a service has answered; `raw` is all of it. Never changes, may be shared."""

    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """Never fails. What is no object gives a record of defaults, with `raw` {"value": it}."""
        if not isinstance(raw, Mapping):
            return cls(raw={"value": raw})
        values: dict[str, Any] = {"raw": raw}
        for field in dataclasses.fields(cls):
            if field.name == "raw" or not field.init:
                continue
            value = _found(raw, field.metadata.get("key") or [field.name])
            if value is None:
                continue
            of = field.metadata.get("of")
            values[field.name] = value if of is None else of(value)
        return cls(**values)


def many(of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For `key(of=)`: a tuple of what *of* makes of each item; what is no list stays as it is."""

    def all_of(value: Any) -> Any:
        return tuple(of(item) for item in value) if isinstance(value, list | tuple) else value

    return all_of


def moment(value: Any) -> Any:
    """An aware datetime in UTC of ISO 8601 text or of unix seconds; anything else as it is.

    A text without a zone is taken for UTC. A bool is no number.
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            if found.tzinfo is None:
                return found.replace(tzinfo=UTC)
            return found.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return value


def _found(raw: Any, names: list[str]) -> Any:
    """What the dotted name leads to; a key that has the dots in it comes first."""
    if len(names) > 1 and ".".join(names) in raw:
        return raw[".".join(names)]
    for name in names:
        if not isinstance(raw, Mapping):
            return None
        raw = raw.get(name)
    return raw
