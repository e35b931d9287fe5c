"""`migrate_enum`: old forms in the database become the members of today."""

from enum import Enum, IntEnum
from typing import Any

import pytest
from bson import ObjectId
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    ListField,
    MapField,
    StringField,
)
from mongoengine.errors import LookUpError

from sepelib.mongo import EnumField, SetField, migrate_enum

pytestmark = pytest.mark.usefixtures("mongo_db")


class Status(Enum):
    NEW = "new"
    OPEN = "open"
    DONE = "done"


class Level(IntEnum):
    LOW = 1
    HIGH = 10


class Name(Enum):
    FIRST = 1
    SECOND = 2
    ZWEITER = 2


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


class EnumColoured(Document):
    status = EnumField(Status, aliases={"old": Status.NEW})
    meta = {"allow_inheritance": True}


class EnumColouredRed(EnumColoured):
    """It inherits the field."""


def jobs(**query: Any) -> set[str]:
    return {job.key for job in EnumJob.objects(**query)}


def in_database(key: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = EnumJob._get_collection().find_one({"k": key})
    return found


# Queries


def test_queries_by_member_find_an_alias_only_after_the_migration() -> None:
    EnumJob._get_collection().insert_many(
        [
            {"k": "a", "st": "finished"},
            {"k": "b", "st": 3},
            {"k": "c", "st": 3.0},
            {"k": "d", "st": "done"},
            {"k": "e", "st": "fresh"},
            {"k": "f", "st": "gone"},
            {"k": "g", "st": None},
            {"k": "h", "st": True},
            {"k": "i"},
        ]
    )
    assert jobs(status=Status.DONE) == {"d"} and jobs(status=Status.NEW) == set()

    assert migrate_enum(EnumJob, "status") == 4

    assert jobs(status=Status.DONE) == {"a", "b", "c", "d"} and jobs(status=Status.NEW) == {"e"}
    assert [in_database(key).get("st") for key in "fghi"] == ["gone", None, True, None]
    assert migrate_enum(EnumJob, "status") == 0


def test_a_migration_of_names_rewrites_those_of_aliases_of_the_enum() -> None:
    EnumJob._get_collection().insert_one({"k": "a", "numbered": "ZWEITER"})
    assert EnumJob.objects.get(key="a").numbered is Name.SECOND and not jobs(numbered=Name.SECOND)

    assert migrate_enum(EnumJob, "numbered") == 1

    assert in_database()["numbered"] == "SECOND"


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("history", {"h": ["finished", "new", 3, "gone"]}, {"h": ["done", "new", "done", "gone"]}),
        ("labels", {"labels": ["finished", "new"]}, {"labels": ["done", "new"]}),
        ("box__status", {"b": {"bs": "finished"}}, {"b": {"bs": "done"}}),
        ("box.status", {"b": {"bs": "finished"}}, {"b": {"bs": "done"}}),
        (
            "boxes__status",
            {"bb": [{"bs": "new"}, {"bs": "finished"}, {}]},
            {"bb": [{"bs": "new"}, {"bs": "done"}, {}]},
        ),
        (
            "shelves.boxes.status",
            {"shelves": [{"boxes": [{"bs": "new"}, {"bs": "fresh"}]}, {"boxes": []}]},
            {"shelves": [{"boxes": [{"bs": "new"}, {"bs": "new"}]}, {"boxes": []}]},
        ),
        (
            "shelves.history",
            {"shelves": [{"history": ["open", "fresh"]}]},
            {"shelves": [{"history": ["open", "new"]}]},
        ),
        ("votes__x", {"v": {"x": "fresh", "y": "fresh"}}, {"v": {"x": "new", "y": "fresh"}}),
    ],
)
def test_a_migration_reaches_into_lists_and_embedded_documents(
    field: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    EnumJob._get_collection().insert_many([{"k": "a", **before}, {"k": "b"}])

    assert migrate_enum(EnumJob, field) >= 1

    found = in_database()
    assert {key: found[key] for key in found if key not in ("_id", "k")} == after
    assert migrate_enum(EnumJob, field) == 0


def test_a_migration_of_a_class_leaves_others_in_its_collection() -> None:
    collection = EnumColoured._get_collection()
    collection.insert_many(
        [
            {"_id": name, "_cls": name, "status": "old"}
            for name in ("EnumColoured", "EnumColoured.EnumColouredRed", "Ring")
        ]
    )

    assert migrate_enum(EnumColouredRed, "status") == 1
    assert migrate_enum(EnumColoured, "status") == 1

    assert collection.find_one({"_id": "Ring"})["status"] == "old"


def test_a_migration_leaves_what_somebody_else_writes_meanwhile() -> None:
    key = ObjectId()
    EnumJob._get_collection().insert_one({"_id": key, "k": "a", "st": "finished"})
    job = EnumJob.objects.get(id=key)

    job.status = Status.OPEN
    job.save()

    assert migrate_enum(EnumJob, "status") == 0 and in_database()["st"] == "open"


@pytest.mark.parametrize("field", ["key", "votes", "rounds", "box", "boxes"])
def test_a_migration_of_what_is_no_enum_field_is_refused(field: str) -> None:
    with pytest.raises(TypeError, match=field):
        migrate_enum(EnumJob, field)


def test_a_migration_of_no_field_is_refused() -> None:
    with pytest.raises(LookUpError):
        migrate_enum(EnumJob, "nothing")
