"""EnumField: what is stored, what is converted, what is refused."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from bson import Decimal128, Int64, ObjectId
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    ListField,
    MapField,
    StringField,
    ValidationError,
)

from sepelib.mongo import EnumField, SetField, UnknownEnumValue

pytestmark = pytest.mark.usefixtures("mongo_db")


class Status(Enum):
    NEW = "new"
    OPEN = "open"
    DONE = "done"
    CLOSED = "done"  # an alias of DONE


class Other(Enum):
    NEW = "new"


class OtherWord(StrEnum):
    NEW = "new"


class Word(StrEnum):
    NEW = "new"
    RAISE = "raise"
    EMPTY = ""


class Level(IntEnum):
    NONE = 0
    LOW = 1
    HIGH = 10


class Mixed(bytes, Enum):
    RAW = b"raw"


@dataclass
class Point:
    x: int


class Place(Point, Enum):
    """Its members have no hash, and their values are nothing for a database."""

    HERE = 1
    THERE = 2


class Name(Enum):
    FIRST = ("a", 1)
    SECOND = ("b", 2)
    DEUXIEME = ("b", 2)


class Scalar(Enum):
    TEXT = "text"
    NUMBER = 2
    LARGE = 2**63 - 1
    FRACTION = 2.5
    TRUTH = True
    BYTES = b"\x00\xff"
    TIME = datetime(2026, 5, 4, 3, 2, 1, 987654)
    EARLY = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    ID = ObjectId("5f0000000000000000000001")
    UUID = UUID(int=7)
    DECIMAL = Decimal128("1.10")


class EnumBox(EmbeddedDocument):
    status = EnumField(Status, db_field="bs")
    note = StringField()


class EnumTicket(Document):
    status = EnumField(Status, default="new", db_field="st")
    title = StringField()
    word = EnumField(Word)
    level = EnumField(Level)
    raw = EnumField(Mixed)
    name = EnumField(Name, by="name")
    place = EnumField(Place, by="name")
    plain = EnumField(["small", "large"])
    legacy = EnumField(Status, aliases={"finished": Status.DONE, 1: Status.NEW})
    some = EnumField(Status, choices=[Status.NEW, Status.OPEN])
    strict = EnumField(Status, unknown="raise")
    lenient = EnumField(Status, unknown=Status.OPEN)
    nullable = EnumField(Status, default=Status.NEW, null=True)
    lazy = EnumField(Status, default=lambda: "open")
    history = ListField(EnumField(Status))
    kept = ListField(EnumField(Status, unknown="keep"))
    strict_list = ListField(EnumField(Status, unknown="raise"))
    lenient_list = ListField(EnumField(Status, unknown=Status.OPEN))
    votes = MapField(EnumField(Status))
    labels = SetField(EnumField(Status))
    kept_labels = SetField(EnumField(Status, unknown="keep"))
    lenient_labels = SetField(EnumField(Status, unknown=Status.OPEN))
    box = EmbeddedDocumentField(EnumBox)
    boxes = EmbeddedDocumentListField(EnumBox)


class EnumScalars(Document):
    value = EnumField(Scalar)


class EnumKeyed(Document):
    status = EnumField(Status, primary_key=True)
    note = StringField()


class EnumNeeded(Document):
    status = EnumField(Status, required=True)


class EnumPainted(Document):
    status = EnumField(Status)
    meta = {"allow_inheritance": True}


class EnumPaintedRed(EnumPainted):
    """It inherits the field."""


def stored(**values: Any) -> EnumTicket:
    """A document that some other program has written, as read."""
    key = EnumTicket._get_collection().insert_one(values).inserted_id
    found: EnumTicket = EnumTicket.objects.get(id=key)
    return found


def in_database(document: Any) -> dict[str, Any]:
    found: dict[str, Any] = type(document)._get_collection().find_one({"_id": document.pk})
    return found


def refused(document: Any, name: str) -> str:
    """What `validate` and `save` say of the field; nothing is written."""
    with pytest.raises(ValidationError) as caught:
        document.validate()
    with pytest.raises(ValidationError):
        document.save()
    return str(caught.value.to_dict()[name])


# What is stored


def test_the_value_of_a_member_is_stored() -> None:
    ticket = EnumTicket(status=Status.DONE, level=Level.HIGH, word=Word.NEW, raw=Mixed.RAW).save()

    found = in_database(ticket)

    assert found["st"] == "done" and found["level"] == 10
    assert found["word"] == "new" and found["raw"] == b"raw"
    assert type(found["word"]) is str and type(found["level"]) is int


def test_by_name_the_name_is_stored_and_the_value_may_be_anything() -> None:
    ticket = EnumTicket(name=Name.FIRST, place=Place.THERE).save()

    assert in_database(ticket)["name"] == "FIRST" and in_database(ticket)["place"] == "THERE"
    ticket = EnumTicket.objects.get(id=ticket.id)
    assert ticket.name is Name.FIRST and ticket.place is Place.THERE
    assert EnumTicket.objects(place__in=[Place.THERE]).count() == 1


def test_plain_choices_are_stored_as_they_are() -> None:
    ticket = EnumTicket(plain="small").save()

    assert in_database(ticket)["plain"] == "small"
    assert EnumTicket.objects.get(id=ticket.id).plain == "small"


def test_an_alias_of_the_enum_gives_the_canonical_member() -> None:
    assert EnumTicket(status=Status.CLOSED).status is Status.DONE
    assert stored(name="DEUXIEME").name is Name.SECOND
    assert EnumTicket(name="DEUXIEME").name is Name.SECOND

    ticket = EnumTicket(name=Name.DEUXIEME).save()

    assert in_database(ticket)["name"] == "SECOND"


@pytest.mark.parametrize("member", list(Scalar), ids=lambda member: member.name)
def test_a_value_of_each_kind_comes_back_as_its_member(member: Scalar) -> None:
    key = EnumScalars(value=member).save().id

    assert EnumScalars.objects.get(id=key).value is member
    assert EnumScalars.objects(value=member).count() == 1


@pytest.mark.parametrize("raw", [10, 10.0, Int64(10)])
def test_a_number_is_read_in_each_type_that_the_database_has_for_it(raw: Any) -> None:
    assert stored(level=raw).level is Level.HIGH


def test_strings_become_an_enum_of_the_same_values_without_a_migration() -> None:
    class EnumBefore(Document):
        status = EnumField(["new", "open"])
        meta = {"collection": "same"}

    class EnumAfter(Document):
        status = EnumField(Status)
        meta = {"collection": "same"}

    EnumBefore(status="open").save()

    assert EnumAfter.objects.get(status=Status.OPEN).status is Status.OPEN


def test_an_enum_field_can_be_the_primary_key() -> None:
    EnumKeyed(status="new", note="a").save()
    keyed = EnumKeyed.objects.get(pk=Status.NEW)
    keyed.note = "b"
    keyed.save()

    assert [(keyed.status, keyed.note) for keyed in EnumKeyed.objects] == [(Status.NEW, "b")]
    keyed.delete()
    assert EnumKeyed.objects.count() == 0


def test_subclasses_inherit_the_field() -> None:
    EnumPaintedRed(status="new").save()

    assert EnumPainted.objects.get(status=Status.NEW).status is Status.NEW


def test_display_and_json_show_the_member_and_the_stored_form() -> None:
    ticket = EnumTicket(status="done", plain="small")

    assert ticket.get_status_display() is Status.DONE and ticket.get_plain_display() == "small"
    assert ticket.to_mongo()["st"] == "done"


# What is given


@pytest.mark.parametrize("given", [Status.DONE, "done"])
def test_assignment_and_constructor_convert_at_once(given: Any) -> None:
    ticket = EnumTicket(status=given)
    assert ticket.status is Status.DONE

    ticket.status = "open"
    ticket.status = given
    assert ticket.status is Status.DONE


def test_a_default_is_a_member_whether_given_as_one_or_stored_or_by_a_callable() -> None:
    ticket = EnumTicket()

    assert ticket.status is Status.NEW and ticket.lazy is Status.OPEN
    ticket.status = ticket.lazy = "done"
    del ticket.status, ticket.lazy
    assert ticket.status is Status.NEW and ticket.lazy is Status.OPEN


def test_a_default_that_a_callable_gives_is_judged_as_any_value() -> None:
    class EnumLazy(Document):
        status = EnumField(Status, default=lambda: "typo")

    assert EnumLazy().status == "typo"
    refused(EnumLazy(), "status")


def test_none_is_the_default_but_with_null() -> None:
    ticket = EnumTicket(status=None, nullable=None, lazy=None, word=None)
    assert ticket.status is Status.NEW and ticket.lazy is Status.OPEN
    assert ticket.nullable is None and ticket.word is None

    ticket = EnumTicket.objects.get(id=ticket.save().id)

    assert in_database(ticket)["nullable"] is None and "word" not in in_database(ticket)
    assert ticket.nullable is None and ticket.word is None
    assert stored(st=None).status is Status.NEW


def test_required_is_what_it_is_for_other_fields() -> None:
    assert "required" in refused(EnumNeeded(), "status")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("status", "typo"),
        ("status", ""),
        ("status", 1),
        ("status", b"new"),
        ("status", ["new"]),
        ("status", {"new": 1}),
        ("status", Status),
        ("status", "NEW"),
        ("status", Other.NEW),
        ("word", OtherWord.NEW),
        ("word", Status.NEW),
        ("plain", OtherWord.NEW),
        ("plain", "medium"),
        ("level", True),
        ("level", 2),
        ("level", "1"),
        ("level", float("nan")),
        ("name", "first"),
        ("name", ("a", 1)),
        ("place", 1),
        ("some", Status.DONE),
        ("some", "done"),
        ("legacy", "finished"),
        ("legacy", 1),
        ("strict", "typo"),
        ("lenient", "typo"),
        ("status", UnknownEnumValue("gone")),
        ("status", UnknownEnumValue("new")),
    ],
    ids=repr,
)
def test_what_is_no_member_is_kept_as_given_and_refused(name: str, given: Any) -> None:
    assigned = EnumTicket(), EnumTicket().save()
    for ticket in assigned:
        setattr(ticket, name, given)

    for ticket in (EnumTicket(**{name: given}), *assigned):
        if name != "some":  # those are members, and not allowed
            assert getattr(ticket, name) == given or given != given
        refused(ticket, name)


def test_the_refusal_lists_the_stored_forms_that_may_be() -> None:
    assert "'new', 'open', 'done'" in refused(EnumTicket(status="typo"), "status")
    assert "'new', 'open'" in (said := refused(EnumTicket(some="done"), "some"))
    assert "EnumTicket.some" in said and "DONE" in said
    assert "'FIRST', 'SECOND'" in refused(EnumTicket(name="typo"), "name")
    assert "0, 1, 10" in refused(EnumTicket(level=2), "level")


def test_one_document_refused_does_not_hinder_the_next() -> None:
    ticket = EnumTicket(status="typo")
    refused(ticket, "status")

    ticket.status = "new"

    assert in_database(ticket.save())["st"] == "new"


def test_choices_limit_what_is_written_and_not_what_is_read() -> None:
    ticket = stored(some="done")

    assert ticket.some is Status.DONE
    assert EnumTicket.objects(some=Status.DONE).count() == 1
    refused(ticket, "some")
    ticket.some = "open"
    assert in_database(ticket.save())["some"] == "open"


def test_an_id_given_to_a_new_document_makes_its_mistakes_no_better() -> None:
    ticket = EnumTicket(status="typo", strict="typo")
    ticket.id = ObjectId()

    refused(ticket, "status")


def test_a_document_given_as_a_mapping_is_given_and_not_read() -> None:
    ticket = EnumTicket(box={"bs": "typo"}, boxes=[{"bs": "typo"}])

    assert ticket.box.status == "typo" and ticket.boxes[0].status == "typo"
    refused(ticket, "box")
    assert EnumTicket(box={"bs": "new"}).box.status is Status.NEW


def test_a_validation_function_gets_members() -> None:
    seen: list[Any] = []

    class EnumJudged(Document):
        status = EnumField(Status, validation=seen.append)

    EnumJudged(status="new").validate()

    assert seen == [Status.NEW]
