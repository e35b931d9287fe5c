"""What a value has to be beside its type, written with `typing.Annotated`.

    port: Annotated[int, Range(1, 65535)]
    name: Annotated[str, Length(1, 64), Pattern(r"[a-z][a-z0-9-]*")]
    tags: Annotated[list[str], Length(max=10)] = field(default_factory=list)
    source: Annotated[str, Name("from")]

Several of one kind add up. All are checked by `body()`, `args.parse()` and `args.get()`.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

__all__ = ["Constraint", "Length", "Name", "Pattern", "Range"]

_NUMBERS = (int, float, Decimal)


class Constraint:
    """Base of the three which look at a value."""

    def words(self) -> str:
        """What stands after the type in "must be an integer from 1 to 9"."""
        raise NotImplementedError

    def holds(self, value: Any) -> bool:
        """Whether *value*, which is of the type, fits."""
        raise NotImplementedError

    def fits(self, kind: Any) -> bool:
        """Whether it means anything for values of the class *kind*."""
        raise NotImplementedError


@dataclass(frozen=True)
class Range(Constraint):
    """At least *min* and at most *max*, both included: of int, float, Decimal, date, datetime.

    Bounds of a datetime are aware.
    """

    min: Any = None
    max: Any = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError("a Range has a min or a max")
        _check_bounds("Range", self.min, self.max)

    def words(self) -> str:
        return _between(self.min, self.max)

    def holds(self, value: Any) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def fits(self, kind: Any) -> bool:
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        if kind in _NUMBERS:
            return all(isinstance(bound, _NUMBERS) for bound in bounds)
        if kind is datetime:
            return all(isinstance(bound, datetime) and bound.tzinfo for bound in bounds)
        return kind is date and all(type(bound) is date for bound in bounds)


@dataclass(frozen=True)
class Length(Constraint):
    """At least *min* and at most *max* characters of a str, or items of a list, set, tuple, dict.

    A str in a query has at most 4096 characters, unless a Length says otherwise.
    """

    min: int = 0
    max: int | None = None

    def __post_init__(self) -> None:
        _check_bounds("Length", self.min, self.max)

    def words(self) -> str:
        low = None if self.min == 0 and self.max is not None else self.min
        return f"of length {_between(low, self.max)}"

    def holds(self, value: Sized) -> bool:
        return self.min <= len(value) and (self.max is None or len(value) <= self.max)

    def fits(self, kind: Any) -> bool:
        return kind in (str, list, tuple, set, frozenset, dict)


@dataclass(frozen=True)
class Pattern(Constraint):
    """A str that *regex* matches as a whole.

    Strangers choose the text: mind expressions that take exponential time, such as `(a+)+`.
    """

    regex: str

    def __post_init__(self) -> None:
        re.compile(self.regex)

    def words(self) -> str:
        return f"that matches {self.regex}"

    def holds(self, value: str) -> bool:
        return re.fullmatch(self.regex, value) is not None  # `re` keeps it compiled

    def fits(self, kind: Any) -> bool:
        return kind is str


@dataclass(frozen=True)
class Name:
    """The name of a dataclass's field outside of Python, in arguments, bodies and replies.

    For those that Python does not take, `from` and `class`, or that others have chosen.
    """

    name: str


def _check_bounds(what: str, low: Any, high: Any) -> None:
    if low is not None and high is not None and not low <= high:
        raise ValueError(f"a {what} from {low!r} to {high!r} holds nothing")


def _between(low: Any, high: Any) -> str:
    low, high = (bound.isoformat() if isinstance(bound, date) else bound for bound in (low, high))
    if high is None:
        return f"from {low}"
    if low is None:
        return f"up to {high}"
    return f"from {low} to {high}" if low != high else f"of {low}"
