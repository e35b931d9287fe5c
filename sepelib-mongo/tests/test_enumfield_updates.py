"""EnumField in updates: what is stored, and what is refused before anything is sent."""

from enum import Enum, IntEnum
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
from mongoengine.errors import InvalidQueryError
from mongoengine.queryset import transform

from sepelib.mongo import EnumField, SetField, UnknownEnumValue, find_and_modify

pytestmark = pytest.mark.usefixtures("mongo_db")


class Status(Enum):
    NEW = "new"
    OPEN = "open"
    DONE = "done"


class Other(Enum):
    NEW = "new"


class Level(IntEnum):
    LOW = 1
    HIGH = 10


class Name(Enum):
    FIRST = 1
    SECOND = 2
    ZWEITER = 2


REFUSED = "is none of|has no operator|has no field or operator"
OLD = {"finished": Status.DONE, 3: Status.DONE, "fresh": Status.NEW}


class EnumJobBox(EmbeddedDocument):
    status = EnumField(Status, db_field="bs", aliases=OLD)


class EnumShelf(EmbeddedDocument):
    boxes = EmbeddedDocumentListField(EnumJobBox)
    history = ListField(EnumField(Status, aliases=OLD))


class EnumJob(Document):
    key = StringField(db_field="k")
    status = EnumField(Status, db_field="st", aliases=OLD)
    level = EnumField(Level)
    numbered = EnumField(Name, by="name")
    plain = EnumField(["small", "large"])
    some = EnumField(Status, choices=[Status.NEW])
    needed = EnumField(Status, required=True, default="new")
    history = ListField(EnumField(Status, aliases=OLD), db_field="h")
    levels = ListField(EnumField(Level))
    votes = MapField(EnumField(Status, aliases=OLD), db_field="v")
    rounds = MapField(ListField(EnumField(Status)))
    labels = SetField(EnumField(Status, aliases=OLD))
    box = EmbeddedDocumentField(EnumJobBox, db_field="b")
    boxes = EmbeddedDocumentListField(EnumJobBox, db_field="bb")
    shelves = EmbeddedDocumentListField(EnumShelf)


def in_database(key: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = EnumJob._get_collection().find_one({"k": key})
    return found


# Queries


@pytest.mark.parametrize(
    ("update", "stored"),
    [
        ({"set__status": Status.DONE}, {"st": "done"}),
        ({"status": "open"}, {"st": "open"}),
        ({"set__status": None, "set__level": 10}, {"st": None, "level": 10}),
        ({"unset__status": 1}, {}),
        ({"set__level": Level.HIGH}, {"level": 10}),
        ({"set__numbered": Name.ZWEITER}, {"numbered": "SECOND"}),
        ({"set__history": [Status.DONE, "new"]}, {"h": ["done", "new"]}),
        ({"set__history__0": Status.DONE}, {"h": ["done", "open", "open"]}),
        ({"push__history": Status.DONE}, {"h": ["new", "open", "open", "done"]}),
        ({"push_all__history": [Status.DONE, "new"]}, {"h": ["new", *["open"] * 2, "done", "new"]}),
        ({"push__history__0": ["done"]}, {"h": ["done", "new", "open", "open"]}),
        ({"add_to_set__history": Status.DONE}, {"h": ["new", "open", "open", "done"]}),
        ({"add_to_set__history": ["new", Status.DONE]}, {"h": ["new", *["open"] * 2, "done"]}),
        ({"pull__history": Status.OPEN}, {"h": ["new"]}),
        ({"pull__history__in": [Status.OPEN, "new"]}, {"h": []}),
        ({"pull_all__history": (member for member in [Status.NEW, "open"])}, {"h": []}),
        ({"set__votes__y": Status.DONE}, {"v": {"x": "new", "y": "done"}}),
        ({"set__votes": {"y": Status.DONE}}, {"v": {"y": "done"}}),
        ({"add_to_set__labels": [Status.DONE]}, {"labels": ["done"]}),
        ({"set__box__status": Status.DONE}, {"b": {"bs": "done"}}),
        ({"set__box": EnumJobBox(status="done")}, {"b": {"bs": "done"}}),
        ({"push__boxes": EnumJobBox(status="done")}, {"bb": [{"bs": "done"}]}),
    ],
    ids=repr,
)
def test_updates_store_what_a_save_would(update: dict[str, Any], stored: dict[str, Any]) -> None:
    EnumJob(key="a", status="new", history=["new", "open", "open"], votes={"x": "new"}).save()
    before = in_database()

    assert EnumJob.objects(key="a").update(**update) == 1

    after = in_database()
    assert {key: after[key] for key in after if after[key] != before.get(key)} == stored
    assert set(before) - set(after) == ({"st"} if "unset__status" in update else set())


@pytest.mark.parametrize(
    "update",
    [
        {"set__status": "typo"},
        {"status": "typo"},
        {"set__status": Other.NEW},
        {"set__status": True},
        {"set__status": "finished"},
        {"set__status": UnknownEnumValue("gone")},
        {"set__some": Status.DONE},
        {"set__level": 5},
        {"inc__level": 1},
        {"dec__level": 1},
        {"set__plain": "medium"},
        {"set_on_insert__status": "typo"},
        {"set__history": ["new", "typo"]},
        {"set__history__0": "typo"},
        {"set__history__S": "typo"},
        {"push__history": "typo"},
        {"push__history": ["typo"]},
        {"push_all__history": ["new", "typo"]},
        {"push__history": UnknownEnumValue("gone")},
        {"add_to_set__history": Other.NEW},
        {"add_to_set__history": ["new", "typo"]},
        {"pull__history": "typo"},
        {"pull__history__in": ["typo"]},
        {"pull_all__history": ["new", "typo"]},
        {"set__votes__a": "typo"},
        {"set__votes": {"a": "typo"}},
        {"set__votes": {"a": UnknownEnumValue("gone")}},
        {"set_on_insert__votes": {"a": "typo"}},
        {"set__rounds__a": "typo"},
        {"set__box__status": "typo"},
        {"set__box": {"bs": "typo"}},
        {"set__box": EnumJobBox(status="typo")},
        {"set_on_insert__box": EnumJobBox(status="typo")},
        {"push__boxes": EnumJobBox(status="typo")},
        {"add_to_set__boxes": [EnumJobBox(status="typo")]},
        {"add_to_set__labels": "typo"},
        {"set__labels": ["typo"]},
    ],
    ids=repr,
)
def test_an_update_with_what_is_no_member_raises_and_sends_nothing(update: dict[str, Any]) -> None:
    EnumJob(key="a", status="new", history=["new"], votes={"x": "new"}).save()
    before = in_database()

    # The fields around this one validate what they store; queries have no such word.
    for call in (EnumJob.objects(key="a").update, EnumJob.objects(key="a").modify):
        with pytest.raises((InvalidQueryError, ValidationError), match=REFUSED):
            call(**update)
    with pytest.raises((InvalidQueryError, ValidationError), match=REFUSED):
        EnumJob.objects(key="new").update(upsert=True, **update)

    assert in_database() == before and EnumJob.objects.count() == 1


@pytest.mark.parametrize("operator", ["set", "push", "add_to_set", "pull", "set_on_insert"])
def test_what_the_field_itself_refuses_is_an_invalid_query(operator: str) -> None:
    field = "history" if operator in ("push", "add_to_set", "pull") else "status"

    with pytest.raises(InvalidQueryError, match=r"EnumJob\.\w+: 'typo' is none of 'new'"):
        EnumJob.objects.update(**{f"{operator}__{field}": "typo"})


def test_what_an_upsert_inserts_is_converted() -> None:
    inserts = {"set_on_insert__status": Status.DONE, "set_on_insert__history": ["new", Status.DONE]}

    EnumJob.objects(key="a", level=Level.LOW).update(upsert=True, **inserts)

    found = in_database()
    assert found["st"] == "done" and found["h"] == ["new", "done"] and found["level"] == 1


def test_the_matched_element_can_be_set() -> None:
    """What is sent, since the embedded server has no positional $."""
    update = transform.update(EnumJob, set__history__S=Status.DONE)

    assert update == {"$set": {"h.$": "done"}}


def test_a_legacy_value_can_be_pulled() -> None:
    EnumJob._get_collection().insert_one({"k": "a", "h": ["gone", "lost", "new"]})

    EnumJob.objects(key="a").update(pull__history=UnknownEnumValue("gone"))
    EnumJob.objects(key="a").update(pull_all__history=[UnknownEnumValue("lost"), Status.OPEN])

    assert in_database()["h"] == ["new"]


def test_find_and_modify_converts_and_refuses_alike() -> None:
    EnumJob(key="a", status="new").save()

    job = find_and_modify(EnumJob, {"status": Status.NEW}, {"set__status": Status.DONE}, new=True)

    assert job is not None and job.status is Status.DONE and in_database()["st"] == "done"
    with pytest.raises(InvalidQueryError):
        find_and_modify(EnumJob, {"status": "typo"}, {"set__status": "new"})
    with pytest.raises(InvalidQueryError):
        find_and_modify(EnumJob, {"status": "done"}, {"set__status": "typo"})
    assert in_database()["st"] == "done"
