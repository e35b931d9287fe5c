"""What an enumeration's values are in the program, and what they are in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum, Flag
from typing import Any
from uuid import UUID

import bson
from bson import Decimal128, ObjectId
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError

__all__ = ["Forms"]

_SCALARS = (str, int, float, bool, bytes, datetime, ObjectId, UUID, Decimal128)

_ANY_UUID: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD
)


class Forms:
    """The members of one enumeration, with the stored form of each.

    A member is one of an Enum, or a plain string. All copies of a field share one of these, since
    mongoengine copies the fields of a class for each document that it does not dereference.
    """

    def __init__(self, declared: Any, *, by: str, aliases: Mapping[Any, Any] | None = None) -> None:
        if by not in ("value", "name"):
            raise ValueError(f"by={by!r}: it is 'value' or 'name'")
        self.enum: type[Enum] | None = None
        if isinstance(declared, type) and issubclass(declared, Enum):
            if issubclass(declared, Flag):
                raise TypeError(f"{declared.__name__}: a Flag has more values than members")
            self.enum = declared
            self.name = declared.__name__
            self.members: tuple[Any, ...] = tuple(declared)
        else:
            if by == "name":
                raise ValueError("by='name': plain strings have no names")
            self.name = "choice"
            self.members = _plain(declared)
        if not self.members:
            raise ValueError(f"{self.name}: nothing to choose from")
        self._by_name = by == "name"
        self._current: dict[Any, Any] = {}
        for member in self.members:
            self._add(member)
        self.numeric = all(
            isinstance(form, (int, float, Decimal128)) and not isinstance(form, bool)
            for form in map(self.stored, self.members)
        )
        self.warned: dict[str, object] = {}
        """What the field has warned of already."""
        self.old: dict[Any, Any] = {}
        """Stored forms that nothing is written as any more, with the member of each."""
        if self._by_name and self.enum is not None:
            for name, member in self.enum.__members__.items():
                if name != member.name:
                    self._current[name] = self.old[name] = member
        self._aliases: dict[Any, Any] = {}
        self._add_aliases(aliases)

    def __deepcopy__(self, memo: dict[int, Any]) -> Forms:
        return self

    def is_member(self, value: Any) -> bool:
        if self.enum is not None:
            return isinstance(value, self.enum)
        # A member of a str-Enum equals its value, but is none of ours.
        return isinstance(value, str) and not isinstance(value, Enum) and value in self.members

    def stored(self, member: Any) -> Any:
        if self.enum is None:
            return member
        return member.name if self._by_name else member.value

    def find(self, value: Any) -> Any:
        """The member that *value* is, or is the stored form of; None: there is none."""
        if self.enum is not None and isinstance(value, self.enum):
            return value
        return self._current.get(_key(value))

    def find_alias(self, raw: Any) -> Any:
        """The member that was stored as *raw* once; None: there is none."""
        return self._aliases.get(_key(raw))

    def _add(self, member: Any) -> None:
        form = self.stored(member)
        if not _is_scalar(form):
            raise TypeError(
                f"{self.name}: {form!r} is no single value for the database; by='name' stores names"
            )
        key = _key(form)
        if key in self._current:
            raise ValueError(f"{self.name}: the database cannot hold {form!r} and another apart")
        self._current[key] = member

    def _add_aliases(self, aliases: Mapping[Any, Any] | None) -> None:
        if aliases is None:
            return
        if not isinstance(aliases, Mapping):
            raise TypeError(f"aliases: a mapping of old forms to members, not {aliases!r}")
        for raw, member in aliases.items():
            if not _is_scalar(raw):
                raise TypeError(f"aliases: {raw!r} is no single value of a database")
            if not self.is_member(member):
                raise ValueError(f"aliases: {member!r} is no member of {self.name}")
            if _key(raw) in self._current:
                raise ValueError(f"aliases: {raw!r} is what {self.name} stores today")
            self._aliases[_key(raw)] = self.old[raw] = member


def _plain(declared: Any) -> tuple[str, ...]:
    if isinstance(declared, str) or not isinstance(declared, Iterable):
        raise TypeError(f"an Enum class, or an iterable of strings, not {declared!r}")
    choices = tuple(declared)
    for choice in choices:
        if not isinstance(choice, str) or isinstance(choice, Enum):
            raise TypeError(f"{choice!r} is no plain string; all members of an Enum: its class")
    if len(set(choices)) < len(choices):
        raise ValueError(f"{choices!r}: some string is there twice")
    return choices


def _is_scalar(value: Any) -> bool:
    if not isinstance(value, _SCALARS) or isinstance(value, Enum) or value != value:
        return False
    try:
        bson.encode({"": value}, codec_options=_ANY_UUID)
    except (BSONError, OverflowError, UnicodeError):
        return False
    return True


def _key(raw: Any) -> Any:
    """Equal for what the database takes for equal; None for what is no scalar.

    There a number is itself in each of its types, and a bool is none; a time has milliseconds, and
    no zone. Here a member of some other Enum is nothing, though it may equal a string or a number.
    """
    if type(raw) is str:
        return raw
    if isinstance(raw, Enum) or not isinstance(raw, _SCALARS):
        return None
    if isinstance(raw, bool):
        return bool, raw
    if isinstance(raw, (int, float)):
        return float, raw
    if isinstance(raw, datetime):
        return datetime, int(DatetimeMS(raw))
    if isinstance(raw, Decimal128):
        return Decimal128, raw.bid  # it has no hash
    return str(raw) if isinstance(raw, str) else (type(raw), raw)
