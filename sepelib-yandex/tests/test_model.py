"""Records take whatever comes."""

import pickle
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any

import pytest

from sepelib.yandex.model import Record, key, many, moment, record


@record
class Group(Record):
    name: str | None = None


@record
class Person(Record):
    login: str | None = None
    dismissed: bool | None = key("is_dismissed")
    first: str | None = key("name.first")
    joined: datetime | str | None = key("joined_at", of=moment)
    groups: tuple[Group, ...] = key("groups", of=many(Group.from_dict), default=())
    chief: Group | None = key("chief", of=Group.from_dict)


def test_known_keys_are_fields_and_all_of_them_are_in_raw() -> None:
    raw = {
        "login": "ann",
        "is_dismissed": False,
        "name": {"first": "Ann"},
        "joined_at": "2017-06-11T05:16:01.339+0300",
        "groups": [{"name": "a"}, {"name": "b", "x": 1}],
        "desk": 7,
    }
    person = Person.from_dict(raw)
    assert (person.login, person.dismissed, person.first) == ("ann", False, "Ann")
    assert person.joined == datetime(2017, 6, 11, 2, 16, 1, 339000, UTC)
    assert [group.name for group in person.groups] == ["a", "b"]
    assert person.raw["desk"] == 7 and person.groups[1].raw["x"] == 1 and person.chief is None


def test_missing_and_null_are_the_default() -> None:
    for raw in ({}, {"login": None, "groups": None, "name": None}, {"name": "no object"}):
        assert Person.from_dict(raw) == Person()


@pytest.mark.parametrize("raw", [None, [], "text", 7, True])
def test_what_is_no_object_gives_a_record_of_defaults(raw: Any) -> None:
    assert Person.from_dict(raw) == Person() and Person.from_dict(raw).raw == {"value": raw}


def test_a_value_of_another_type_is_kept() -> None:
    raw = {"login": 7, "groups": "none", "joined_at": "yesterday", "chief": "bob"}
    person: Any = Person.from_dict(raw)
    assert (person.login, person.groups, person.joined) == (7, "none", "yesterday")
    assert person.chief.raw == {"value": "bob"}


def test_a_key_with_dots_in_it_comes_first() -> None:
    assert Person.from_dict({"name.first": "A", "name": {"first": "B"}}).first == "A"


def test_records_are_frozen_equal_by_value_and_pickle() -> None:
    person = Person.from_dict({"login": "ann", "joined_at": 0})
    with pytest.raises(FrozenInstanceError):
        person.login = "bob"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(person)) == person
    assert "raw" not in repr(person) and "ann" in repr(person)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        (1767323045, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("0000-01-01", "0000-01-01"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("", ""),
        (True, True),
        (1e300, 1e300),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_times_are_aware_and_in_utc_or_stay_as_they_came(value: Any, found: Any) -> None:
    assert moment(value) == found


def test_type_checkers_take_no_field_for_required() -> None:
    # A specifier that is called without `default=` makes one that is, as PEP 681 says.
    said = record.__dataclass_transform__  # type: ignore[attr-defined]
    assert said["field_specifiers"] == () and said["kw_only_default"]
