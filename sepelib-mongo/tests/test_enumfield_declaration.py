"""What an EnumField may not be declared as."""

from datetime import UTC, datetime
from enum import Enum, Flag, IntFlag, StrEnum
from typing import Any

import mongoengine
import pytest

from sepelib.mongo import EnumField


class Status(Enum):
    NEW = "new"
    OPEN = "open"
    DONE = "done"
    CLOSED = "done"  # an alias of DONE


class Other(Enum):
    NEW = "new"


class OtherWord(StrEnum):
    NEW = "new"


class Name(Enum):
    FIRST = ("a", 1)
    SECOND = ("b", 2)
    DEUXIEME = ("b", 2)


class Bits(Flag):
    A = 1


class IntBits(IntFlag):
    A = 1


class Nothing(Enum):
    """It has no members."""


class Unstorable(Enum):
    PAIR = (1, 2)


class TooLarge(Enum):
    HUGE = 2**63


class NotANumber(Enum):
    NAN = float("nan")


class SameTime(Enum):
    NAIVE = datetime(2026, 1, 1)
    AWARE = datetime(2026, 1, 1, tzinfo=UTC)


class Nested(Enum):
    NEW = OtherWord.NEW


@pytest.mark.parametrize(
    ("declared", "options", "error"),
    [
        ("new", {}, TypeError),
        (None, {}, TypeError),
        (5, {}, TypeError),
        ([], {}, ValueError),
        (["a", "b", "a"], {}, ValueError),
        (["a", 1], {}, TypeError),
        ([Status.NEW], {}, TypeError),
        (list(OtherWord), {}, TypeError),
        ([("a", "A")], {}, TypeError),
        (Bits, {}, TypeError),
        (IntBits, {"by": "name"}, TypeError),
        (Nothing, {}, ValueError),
        (Unstorable, {}, TypeError),
        (TooLarge, {}, TypeError),
        (NotANumber, {}, TypeError),
        (Nested, {}, TypeError),
        (SameTime, {}, ValueError),
        (Status.NEW, {}, TypeError),
        (Status, {"by": "values"}, ValueError),
        (["a"], {"by": "name"}, ValueError),
        (Status, {"choices": [Status.NEW, "open"]}, ValueError),
        (Status, {"choices": [Other.NEW]}, ValueError),
        (Status, {"choices": []}, ValueError),
        (["a", "b"], {"choices": ["c"]}, ValueError),
        (["new"], {"choices": [OtherWord.NEW]}, ValueError),
        (Status, {"default": "typo"}, ValueError),
        (Status, {"default": Other.NEW}, ValueError),
        (Status, {"default": ["new"]}, ValueError),
        (Status, {"default": Status.DONE, "choices": [Status.NEW]}, ValueError),
        (Status, {"unknown": "typo"}, ValueError),
        (Status, {"unknown": "new"}, ValueError),
        (Status, {"unknown": Other.NEW}, ValueError),
        (["keep", "raise"], {"unknown": "keep"}, ValueError),
        (Status, {"aliases": {"old": "new"}}, ValueError),
        (Status, {"aliases": {"old": Other.NEW}}, ValueError),
        (Status, {"aliases": {"open": Status.NEW}}, ValueError),
        (Name, {"by": "name", "aliases": {"DEUXIEME": Name.FIRST}}, ValueError),
        (Status, {"aliases": {("a",): Status.NEW}}, TypeError),
        (Status, {"aliases": ["old"]}, TypeError),
        (Status, {"name": "x"}, TypeError),
    ],
    ids=repr,
)
def test_a_declaration_that_cannot_work_is_refused(
    declared: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        EnumField(declared, **options)

    assert "\n" not in str(caught.value)


def test_a_value_that_is_no_scalar_is_told_of_by_name() -> None:
    with pytest.raises(TypeError, match="by='name'"):
        EnumField(Unstorable)

    assert EnumField(Unstorable, by="name", default="PAIR").default is Unstorable.PAIR


def test_choices_may_come_from_any_iterable() -> None:
    field = EnumField((word for word in ("a", "b")), choices=iter(["a"]), default="a")

    assert field.to_python("b") == "b" and field.default == "a"


def test_it_is_an_enum_field_of_mongoengine() -> None:
    """Which its containers ask for, to convert what is assigned."""
    assert isinstance(EnumField(Status), mongoengine.EnumField)
