"""What EnumField reads and does not know: old forms, and values of nobody."""

import copy
import gc
import logging
import pickle
from collections.abc import Callable, Iterator
from enum import Enum, StrEnum
from typing import Any

import pytest
from bson import ObjectId
from bson.json_util import CANONICAL_JSON_OPTIONS as JSON
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    ListField,
    MapField,
    ReferenceField,
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


class Word(StrEnum):
    NEW = "new"
    RAISE = "raise"
    EMPTY = ""


class ReadBox(EmbeddedDocument):
    status = EnumField(Status, db_field="bs")
    note = StringField()


class ReadTicket(Document):
    status = EnumField(Status, default="new", db_field="st")
    title = StringField()
    legacy = EnumField(Status, aliases={"finished": Status.DONE, 1: Status.NEW})
    strict = EnumField(Status, unknown="raise")
    lenient = EnumField(Status, unknown=Status.OPEN)
    history = ListField(EnumField(Status))
    kept = ListField(EnumField(Status, unknown="keep"))
    strict_list = ListField(EnumField(Status, unknown="raise"))
    lenient_list = ListField(EnumField(Status, unknown=Status.OPEN))
    votes = MapField(EnumField(Status))
    labels = SetField(EnumField(Status))
    kept_labels = SetField(EnumField(Status, unknown="keep"))
    lenient_labels = SetField(EnumField(Status, unknown=Status.OPEN))
    box = EmbeddedDocumentField(ReadBox)
    boxes = EmbeddedDocumentListField(ReadBox)


class ReadComment(Document):
    ticket = ReferenceField(ReadTicket)
    tickets = ListField(ReferenceField(ReadTicket))


@pytest.fixture(autouse=True)
def warned_of_nothing() -> Iterator[None]:
    """A field warns once in its life, and these live as long as the tests."""
    yield
    for model in (ReadTicket, ReadBox):
        for field in model._fields.values():
            for part in (field, getattr(field, "field", None)):
                if isinstance(part, EnumField):
                    part._forms.warned.clear()


def stored(**values: Any) -> ReadTicket:
    """A document that some other program has written, as read."""
    key = ReadTicket._get_collection().insert_one(values).inserted_id
    found: ReadTicket = ReadTicket.objects.get(id=key)
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


def test_an_unknown_value_is_loaded_and_stays_while_it_is_left_alone() -> None:
    ticket = stored(st="gone", title="a")
    assert ticket.status == UnknownEnumValue("gone")
    assert not isinstance(ticket.status, Status)
    assert ticket._get_changed_fields() == []

    ticket.title = "b"
    ticket.save()

    assert in_database(ticket)["st"] == "gone" and in_database(ticket)["title"] == "b"
    ticket.status = ticket.status
    ticket.save()
    assert in_database(ticket)["st"] == "gone"


def test_assigning_a_member_repairs_an_unknown_value() -> None:
    ticket = stored(st="gone")

    ticket.status = "open"
    ticket.save()

    assert in_database(ticket)["st"] == "open"
    assert ReadTicket.objects.get(id=ticket.id).status is Status.OPEN


def test_an_unknown_value_assigned_anew_is_refused() -> None:
    ticket, other = stored(st="gone"), stored(st="new")
    value = ticket.status

    other.status = value
    refused(other, "status")
    refused(ReadTicket(status=value), "status")
    ticket.status = "gone"
    refused(ticket, "status")
    ticket.status = "new"
    ticket.save()
    ticket.status = value
    refused(ticket, "status")


def test_an_unknown_value_survives_reload_and_modify() -> None:
    ticket = stored(st="gone", title="a")

    ticket.reload()
    ticket.title = "b"
    ticket.save()
    ticket.modify(set__title="c")
    ticket.title = "d"
    ticket.save()
    ticket.status = "new"
    ticket.reload("status")
    ticket.save()

    assert ticket.status == UnknownEnumValue("gone")
    assert in_database(ticket)["st"] == "gone" and in_database(ticket)["title"] == "d"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_document_can_be_saved_with_its_unknown_value(
    copied: Callable[[Any], Any],
) -> None:
    ticket = copied(stored(st="gone"))

    ticket.title = "b"
    ticket.save()

    assert in_database(ticket)["st"] == "gone" and ticket.status == UnknownEnumValue("gone")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("status", "typo"),
        ("status", UnknownEnumValue("typo")),
        ("legacy", "finished"),
        ("strict", "typo"),
        ("lenient", "typo"),
        ("history", ["new", "typo"]),
        ("kept", ["new", "typo"]),
        ("lenient_list", ["typo"]),
        ("kept_labels", {"new", "typo", "other typo"}),
        ("lenient_labels", {"typo"}),
        ("votes", {"a": "typo"}),
    ],
)
def test_what_was_given_is_given_in_a_copied_document_too(
    copied: Callable[[Any], Any], name: str, bad: Any
) -> None:
    new, old = ReadTicket(title="a"), ReadTicket(title="a").save()

    for ticket in (new, old):
        setattr(ticket, name, bad)
        twin = copied(ticket)

        refused(twin, name)
        assert twin.title == "a" and getattr(twin, name) == getattr(ticket, name)
    assert copied(ReadTicket(box=ReadBox(status="typo"))).box.status == "typo"


def test_the_unknown_value_of_a_copied_document_may_be_assigned_to_itself() -> None:
    ticket = copy.deepcopy(stored(st="gone"))
    gc.collect()  # of what mongoengine made the copy from

    ticket.status = ticket.status

    assert in_database(ticket.save())["st"] == "gone"


def test_a_document_made_from_json_as_a_new_one_is_refused() -> None:
    key, said = ObjectId(), '{"_id": {"$oid": "%s"}, "st": "gone", "box": {"bs": "gone"}}'
    ReadTicket.from_json(said % key, json_options=JSON).validate()

    new = ReadTicket.from_json(said % key, created=True, json_options=JSON)
    without_key = ReadTicket.from_json('{"st": "gone"}', json_options=JSON)

    refused(new, "status")
    refused(without_key, "status")
    new.status = "new"
    refused(new, "box")


def test_an_unknown_value_in_an_embedded_document_stays_too() -> None:
    ticket = stored(box={"bs": "gone", "note": "a"}, boxes=[{"bs": "gone"}])
    assert ticket.box.status == ticket.boxes[0].status == UnknownEnumValue("gone")

    ticket.box.note = "b"
    ticket.save()

    assert in_database(ticket)["box"] == {"bs": "gone", "note": "b"}
    box = ReadTicket.objects.get(id=ticket.id).box
    gc.collect()
    box.validate()  # when nothing has the document any more
    with pytest.raises(ValidationError):
        ReadTicket(box=ticket.box).save()
    ticket.box.status = "done"
    assert in_database(ticket.save())["box"]["bs"] == "done"


@pytest.mark.parametrize("raw", ["gone", 3, True, ["new"], {"a": [1]}, b"new"])
def test_any_stored_value_can_be_unknown(raw: Any) -> None:
    ticket = stored(st=raw)

    assert ticket.status == UnknownEnumValue(raw) and ticket.status.raw == raw
    assert hash(ticket.status) == hash(UnknownEnumValue(raw))
    ticket.title = "b"
    assert in_database(ticket.save())["st"] == raw


def test_unknown_values_are_equal_by_what_is_stored_and_travel() -> None:
    value = stored(st="gone").status

    assert {value, UnknownEnumValue("gone")} == {UnknownEnumValue("gone")}
    assert value != UnknownEnumValue("new") and value != "gone" and repr(value)
    for again in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert again == value and type(again) is UnknownEnumValue


def test_one_warning_for_each_unknown_value_of_a_field(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sepelib.mongo"):
        ReadTicket._get_collection().insert_many([{"st": "gone"}, {"st": "gone"}])
        list(ReadTicket.objects.no_dereference())  # for which mongoengine copies the fields
        for _ in range(3):
            stored(st="gone")
            stored(st="lost", box={"bs": "gone"})
        ReadTicket(status="typo")

    said = sorted(record.getMessage() for record in caplog.records)
    assert len(said) == 3
    assert "ReadBox.status" in said[0] and "ReadTicket.status" in said[1] and "'gone'" in said[1]


def test_a_broken_writer_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    field = ReadTicket._fields["status"]

    with caplog.at_level(logging.WARNING, "sepelib.mongo"):
        for number in range(1100):
            ReadTicket.from_json(f'{{"st": "{number}{"x" * 500}"}}', json_options=JSON)

    assert len(caplog.records) == 1000 == len(field._forms.warned)
    assert len(caplog.records[-1].getMessage()) < 300


def test_unknown_raise_refuses_to_load() -> None:
    with pytest.raises(ValidationError, match=r"ReadTicket\.strict.*'gone'.*'new', 'open', 'done'"):
        stored(strict="gone")


def test_unknown_with_a_member_loads_as_it_and_writes_nothing() -> None:
    ticket = stored(lenient="gone", title="a")
    assert ticket.lenient is Status.OPEN and ticket._get_changed_fields() == []

    ticket.title = "b"

    assert in_database(ticket.save())["lenient"] == "gone"


def test_a_document_read_through_a_reference_is_read() -> None:
    ticket = stored(st="gone", lenient="gone", legacy="finished")
    ReadComment(ticket=ticket, tickets=[ticket]).save()

    comment = ReadComment.objects.get()

    for found in (
        comment.ticket,
        comment.tickets[0],
        ReadComment.objects.select_related()[0].ticket,
    ):
        assert found.status == UnknownEnumValue("gone")
        assert found.lenient is Status.OPEN and found.legacy is Status.DONE
    assert ReadTicket.objects.scalar("legacy").get() is Status.DONE


def test_words_that_are_members_too_are_told_apart() -> None:
    class ReadWorded(Document):
        word = EnumField(Word, unknown=Word.RAISE)
        meta = {"strict": False}

    ReadWorded._get_collection().insert_one({"word": "gone"})

    assert ReadWorded.objects.get().word is Word.RAISE


def test_an_alias_is_read_as_its_member_and_never_written() -> None:
    ticket = stored(legacy="finished", title="a")
    assert ticket.legacy is Status.DONE and ticket._get_changed_fields() == []
    assert stored(legacy=1).legacy is Status.NEW and stored(legacy=1.0).legacy is Status.NEW

    ticket.title = "b"
    ticket.save()
    assert in_database(ticket)["legacy"] == "finished"

    ticket.legacy = Status.NEW
    ticket.legacy = Status.DONE
    assert in_database(ticket.save())["legacy"] == "done"
