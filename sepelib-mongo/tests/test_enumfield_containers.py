"""EnumField inside of lists, maps and sets: elements convert, bad and unknown ones are refused."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
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


def test_elements_convert_on_assignment_and_on_load() -> None:
    ticket = ReadTicket(history=["new", Status.DONE], votes={"a": "open"})
    assert ticket.history == [Status.NEW, Status.DONE] and ticket.votes == {"a": Status.OPEN}
    ticket.history = ("open", "done")
    ticket.votes = {"b": "new"}
    assert ticket.history == [Status.OPEN, Status.DONE] and ticket.votes == {"b": Status.NEW}

    ticket = ReadTicket.objects.get(id=ticket.save().id)

    assert ticket.history == [Status.OPEN, Status.DONE] and ticket.votes == {"b": Status.NEW}
    assert in_database(ticket)["history"] == ["open", "done"]
    assert in_database(ticket)["votes"] == {"b": "new"}


def test_an_appended_stored_form_is_saved_as_its_member() -> None:
    ticket = ReadTicket().save()

    ticket.history.append("done")
    ticket.votes["a"] = "new"
    ticket.save()

    assert ReadTicket.objects.get(history=Status.DONE, votes__a=Status.NEW) == ticket


@pytest.mark.parametrize("bad", ["typo", Other.NEW, None, 1, ["new"], UnknownEnumValue("gone")])
@pytest.mark.parametrize("name", ["history", "kept", "strict_list", "lenient_list"])
def test_a_bad_element_is_refused(name: str, bad: Any) -> None:
    if name == "kept" and isinstance(bad, UnknownEnumValue):
        return  # what "keep" is for
    for ticket in (ReadTicket(**{name: ["new", bad]}), ReadTicket().save()):
        setattr(ticket, name, ["new", bad])
        refused(ticket, name)
    getattr(ticket, name).pop()
    getattr(ticket, name).append(bad)
    refused(ticket, name)


def test_a_bad_value_in_a_map_is_refused() -> None:
    assert "typo" in refused(ReadTicket(votes={"a": "typo"}), "votes")


def test_unknown_elements_load_and_are_refused_but_with_keep() -> None:
    ticket = stored(history=["gone", "new"], kept=["gone", "new"], votes={"a": "gone"})
    assert ticket.history == ticket.kept == [UnknownEnumValue("gone"), Status.NEW]
    assert ticket.votes == {"a": UnknownEnumValue("gone")}

    assert "gone" in refused(ticket, "history") and "gone" in refused(ticket, "votes")
    ticket.history = []
    ticket.votes = {}
    ticket.kept.append("done")
    ticket.save()

    assert in_database(ticket)["kept"] == ["gone", "new", "done"]


def test_the_elements_of_a_set_are_as_those_of_a_list() -> None:
    ticket = ReadTicket(labels=["new", Status.DONE])
    ticket.labels.add("open")
    assert ticket.labels == set(Status)
    assert in_database(ticket.save())["labels"] == ["done", "new", "open"]
    for bad in ("typo", Other.NEW):
        refused(ReadTicket(labels=[bad]), "labels")
        refused(ReadTicket(lenient_labels=[bad]), "lenient_labels")
        ticket.lenient_labels.add(bad)
        refused(ticket, "lenient_labels")
        ticket.lenient_labels.clear()

    ticket = stored(labels=["gone", "new"], kept_labels=["gone"], lenient_labels=["gone"])

    assert ticket.labels == {UnknownEnumValue("gone"), Status.NEW}
    assert ticket.lenient_labels == {Status.OPEN}
    refused(ticket, "labels")
    ticket.labels.remove(UnknownEnumValue("gone"))
    ticket.kept_labels.add("new")
    ticket.save()
    assert in_database(ticket)["kept_labels"] == ["gone", "new"]


def test_a_container_of_ones_own_reads_as_mongoengines_do() -> None:
    class PlainList(ListField):  # type: ignore[misc]
        def to_python(self, value: Any) -> Any:
            convert = self.field.to_python
            return [convert(element) for element in value]

    class ReadPlain(Document):
        history = PlainList(EnumField(Status, unknown="keep"))

    ReadPlain._get_collection().insert_one({"history": ["gone", "new"]})

    assert ReadPlain.objects.get().history == [UnknownEnumValue("gone"), Status.NEW]
    assert ReadPlain(history=["typo"]).history == ["typo"]


def test_unknown_elements_follow_what_the_field_says() -> None:
    assert stored(lenient_list=["gone"]).lenient_list == [Status.OPEN]
    with pytest.raises(ValidationError, match=r"ReadTicket\.strict_list"):
        stored(strict_list=["gone"])


def test_an_unknown_element_moved_to_a_field_is_refused() -> None:
    ticket = stored(history=["gone"])

    ticket.status = ticket.history[0]
    refused(ticket, "status")
    refused(ReadTicket(status=ticket.history[0]), "status")
