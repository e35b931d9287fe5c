"""Values without parts: numbers, text, times, the members of an Enum or a Literal, secrets.

From JSON each comes in exactly one form: a boolean is no integer, 1.0 is none either, "1" is a
string. From an argument comes text, of which numbers are plain ASCII.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sepelib.flask.h._plan import Plan
from sepelib.flask.h._problems import BAD, BOOLEAN, NULL, NUMBER, STRING, At, Problems, kind_of
from sepelib.util.secrets import Secret

__all__ = ["SCALARS", "Choice", "SecretText", "Text", "enum_plan"]

_LONGEST = 4096  # characters of an argument

_INTEGER = re.compile(r"-?[0-9]{1,100}")
_DECIMAL = re.compile(r"-?[0-9]{1,100}(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Scalar(Plan):
    """A value made by one of two functions, which return BAD when they cannot."""

    textual = True
    hashable = True

    def __init__(
        self,
        expected: str,
        kind: Any,
        accepts: Iterable[str],
        from_json: Callable[[Any], Any],
        from_text: Callable[[str], Any],
    ) -> None:
        self.expected = expected
        self.kind = kind
        self.accepts = frozenset(accepts)
        self._from_json = from_json
        self._from_text = from_text

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        made = self._from_json(value)
        if made is BAD:
            return problems.mismatch(at, self.expected, value, hidden=self.hidden)
        return made

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        made = self._from_text(text)
        if made is BAD:
            return problems.mismatch(at, self.expected, text, hidden=self.hidden)
        return made


class Choice(Scalar):
    """One of a few values, by which objects of several types may be told apart.

    *choices* are pairs of what stands in JSON and what it means.
    """

    def __init__(self, choices: list[tuple[Any, Any]], kind: Any = None) -> None:
        for value, _ in choices:
            if type(value) not in (str, int, bool, type(None)):
                raise TypeError(f"{value!r} is neither a string, an integer, a boolean nor None")
        # 1 and True are one key of a dict.
        by_value = {(type(value), value): meaning for value, meaning in choices}
        by_text = {_words(value): meaning for value, meaning in choices if value is not None}

        def from_json(value: Any) -> Any:
            if isinstance(value, list | dict):
                return BAD
            return by_value.get((type(value), value), BAD)

        super().__init__(
            " or ".join(json.dumps(value, ensure_ascii=False) for value, _ in choices),
            kind,
            {kind_of(value) for value, _ in choices},
            from_json,
            lambda text: by_text.get(text, BAD),
        )
        self.values = frozenset(by_value)


class Text(Scalar):
    """A str. Of an argument it is bounded, unless a Length bounds it."""

    def __init__(self, longest: int | None = _LONGEST) -> None:
        super().__init__("a string", str, [STRING], _text, _text)
        self.longest = longest

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        if type(value) is str and _text(value) is BAD:
            return problems.add(at, "has half of a surrogate pair, which no encoding has")
        return super().read(value, at, problems)

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        if self.longest is not None and len(text) > self.longest:
            return problems.add(
                at, f"must be of at most {self.longest} characters, not {len(text)}"
            )
        return super().parse(text, at, problems)


class SecretText(Text):
    """A Secret made of a str."""

    def __init__(self, longest: int | None = _LONGEST) -> None:
        super().__init__(longest)
        self.kind = Secret
        self.hidden = True

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        text = super().read(value, at, problems)
        return BAD if text is BAD else Secret(text)

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        text = super().parse(text, at, problems)
        return BAD if text is BAD else Secret(text)


def _text(value: Any) -> Any:
    if type(value) is not str:
        return BAD
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which nobody can store or send on
            return BAD
    return value


def _int(value: Any) -> Any:
    return value if type(value) is int else BAD


def _int_of_text(text: str) -> Any:
    return int(text) if _INTEGER.fullmatch(text) else BAD


def _float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return BAD
    return BAD


def _float_of_text(text: str) -> Any:
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else BAD


def _bool(value: Any) -> Any:
    return value if type(value) is bool else BAD


def _bool_of_text(text: str) -> Any:
    return {"true": True, "1": True, "false": False, "0": False}.get(text, BAD)


def _none(value: Any) -> Any:
    return None if value is None else BAD


def _decimal(value: Any) -> Any:
    # A JSON number with a fraction came as a float, and may have lost digits on the way.
    if type(value) is int:
        return Decimal(value)
    return _decimal_of_text(value) if type(value) is str else BAD


def _decimal_of_text(text: str) -> Any:
    return Decimal(text) if _DECIMAL.fullmatch(text) else BAD


def _datetime(value: Any) -> Any:
    if type(value) is not str or not _DATETIME.fullmatch(value):
        return BAD
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # the 30th of February, the year 0000 in UTC
        return BAD


def _date(value: Any) -> Any:
    if type(value) is not str or not _DATE.fullmatch(value):
        return BAD
    try:
        return date.fromisoformat(value)
    except ValueError:
        return BAD


def _uuid(value: Any) -> Any:
    return UUID(value) if type(value) is str and _UUID.fullmatch(value) else BAD


def _no_text(text: str) -> Any:
    return BAD


SCALARS: dict[Any, Plan] = {
    str: Text(),
    int: Scalar("an integer", int, [NUMBER], _int, _int_of_text),
    float: Scalar("a number", float, [NUMBER], _float, _float_of_text),
    bool: Scalar("true or false", bool, [BOOLEAN], _bool, _bool_of_text),
    type(None): Scalar("null", None, [NULL], _none, _no_text),
    Decimal: Scalar(
        "a decimal number (in JSON a string, or an integer)",
        Decimal,
        [NUMBER, STRING],
        _decimal,
        _decimal_of_text,
    ),
    datetime: Scalar(
        "a time with its offset, such as 2026-11-23T07:15:00Z (a + in a query is written %2B)",
        datetime,
        [STRING],
        _datetime,
        _datetime,
    ),
    date: Scalar("a date, such as 2026-11-23", date, [STRING], _date, _date),
    UUID: Scalar("a UUID", UUID, [STRING], _uuid, _uuid),
    Secret: SecretText(),
    Secret[str]: SecretText(),
}


def enum_plan(kind: type[enum.Enum]) -> Plan:
    """One of the values of *kind*, aliases included; TypeError when they do not exist in JSON."""
    members = {member.value: member for member in kind.__members__.values()}
    if issubclass(kind, enum.Flag) or not members:
        raise TypeError(f"{kind.__qualname__}: a Flag, or an Enum without members")
    return Choice(list(members.items()), kind)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
