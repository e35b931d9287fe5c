"""EnumField in queries and updates, and `migrate_enum`."""

import re
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
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
    Q,
    StringField,
    ValidationError,
)
from mongoengine.errors import InvalidQueryError, LookUpError
from mongoengine.queryset import transform

from sepelib.mongo import EnumField, SetField, UnknownEnumValue, find_and_modify, migrate_enum

pytestmark = pytest.mark.usefixtures("mongo_db")


class Status(Enum):
    NEW = "new"
    OPEN = "open"
    DONE = "done"


class Other(Enum):
    NEW = "new"


class OtherWord(StrEnum):
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


class EnumColoured(Document):
    status = EnumField(Status, aliases={"old": Status.NEW})
    meta = {"allow_inheritance": True}


class EnumColouredRed(EnumColoured):
    """It inherits the field."""


class EnumWhen(Document):
    class At(Enum):
        START = datetime(2026, 1, 1, tzinfo=UTC)

    at = EnumField(At)


def jobs(**query: Any) -> set[str]:
    return {job.key for job in EnumJob.objects(**query)}


def in_database(key: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = EnumJob._get_collection().find_one({"k": key})
    return found


@pytest.fixture
def three() -> None:
    EnumJob(key="a", status="new", level=1, plain="small", numbered="FIRST").save()
    EnumJob(key="b", status="done", level=10, plain="large", numbered="SECOND").save()
    EnumJob(key="c").save()


# Queries


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": Status.NEW}, "a"),
        ({"status": "new"}, "a"),
        ({"status": None}, "c"),
        ({"status__ne": Status.NEW}, "bc"),
        ({"status__ne": "done"}, "ac"),
        ({"status__ne": None}, "ab"),
        ({"status__in": [Status.NEW, "done"]}, "ab"),
        ({"status__in": {"new", Status.OPEN}}, "a"),
        ({"status__in": (member for member in Status)}, "ab"),
        ({"status__in": Status}, "ab"),
        ({"status__in": dict.fromkeys(["new"]).keys()}, "a"),
        ({"status__in": [None, Status.NEW]}, "ac"),
        ({"status__in": []}, ""),
        ({"status__nin": ["new", Status.OPEN]}, "bc"),
        ({"status__nin": frozenset([Status.DONE])}, "ac"),
        ({"status__all": [Status.NEW]}, "a"),
        ({"status__not": Status.NEW}, "bc"),
        ({"status__not": "done"}, "ac"),
        ({"status__not": None}, "ab"),
        ({"status__not__in": [Status.NEW]}, "bc"),
        ({"status__not__ne": "new"}, "a"),
        ({"status__exists": True}, "ab"),
        ({"status__exists": False}, "c"),
        ({"status": UnknownEnumValue("new")}, "a"),
        ({"level": Level.LOW}, "a"),
        ({"level": 1.0}, "a"),
        ({"level__gt": Level.LOW}, "b"),
        ({"level__gte": 1}, "ab"),
        ({"level__lt": 10}, "a"),
        ({"level__lte": Level.HIGH}, "ab"),
        ({"numbered": Name.ZWEITER}, "b"),
        ({"numbered__in": ["FIRST", "ZWEITER"]}, "ab"),
        ({"plain": "small"}, "a"),
        ({"plain__nin": ["small"]}, "bc"),
        ({"some": Status.DONE}, ""),
    ],
    ids=repr,
)
def test_members_and_stored_forms_are_found(three: None, query: dict[str, Any], found: str) -> None:
    assert jobs(**query) == set(found)


def test_conditions_combine(three: None) -> None:
    either = Q(status=Status.NEW) | Q(level=Level.HIGH)

    assert {job.key for job in EnumJob.objects(either)} == {"a", "b"}
    assert {job.key for job in EnumJob.objects(status__ne="new", status__exists=True)} == {"b"}
    assert {job.key for job in EnumJob.objects(level__gt=1).filter(level__lte=10)} == {"b"}


@pytest.mark.parametrize(
    "query",
    [
        {"status": "typo"},
        {"status": ""},
        {"status": Other.NEW},
        {"status": Status},
        {"status": ["new"]},
        {"status": {"$ne": "new"}},
        {"status": re.compile("n")},
        {"status": True},
        {"status": "finished"},
        {"status__ne": "typo"},
        {"status__in": ["new", "typo"]},
        {"status__in": "new"},
        {"status__in": [["new"]]},
        {"status__nin": [Other.NEW]},
        {"status__all": ["typo"]},
        {"status__not": "typo"},
        {"status__not__in": ["typo"]},
        {"status__gt": Status.NEW},
        {"status__lte": "new"},
        {"numbered__gt": Name.FIRST},
        {"numbered": 1},
        {"level": True},
        {"level": "1"},
        {"level__gt": 5},
        {"level__gt": None},
        {"plain": "medium"},
        {"plain": OtherWord.NEW},
        {"plain__gt": "small"},
        {"status__contains": "n"},
        {"status__icontains": "n"},
        {"status__startswith": "new"},
        {"status__exact": "new"},
        {"status__iexact": "NEW"},
        {"status__regex": "n.*"},
        {"status__match": {"$in": ["new"]}},
        {"status__elemMatch": {"$in": ["new"]}},
        {"status__near": ["new"]},
        {"status__other": "new"},
        {"history": "typo"},
        {"history__in": ["typo"]},
        {"history": ["new", "typo"]},
        {"history__all": [Other.NEW]},
        {"history__contains": "n"},
        {"history__other": "new"},
        {"history__0": "typo"},
        {"votes__a": "typo"},
        {"votes__a__in": ["typo"]},
        {"votes__a__contains": "n"},
        {"votes": {"a": "typo"}},
        {"rounds__a": "typo"},
        {"labels": "typo"},
        {"labels": ["new", "typo"]},
        {"box__status": "typo"},
        {"box": {"bs": "typo"}},
        {"box": EnumJobBox(status="typo")},
        {"boxes__status": "typo"},
        {"boxes__match": {"status": "typo"}},
    ],
    ids=repr,
)
def test_what_is_no_member_or_no_operator_is_refused_and_not_merely_not_found(
    query: dict[str, Any],
) -> None:
    with pytest.raises(InvalidQueryError, match=REFUSED):
        EnumJob.objects(**query).count()


def test_the_refusal_of_a_query_names_the_field_and_all_members() -> None:
    with pytest.raises(InvalidQueryError, match=r"EnumJob\.status: 'typo' .*'new', 'open', 'done'"):
        EnumJob.objects(status="typo").count()
    with pytest.raises(InvalidQueryError, match=r"EnumJob\.history: 'typo'"):
        EnumJob.objects(history="typo").count()
    with pytest.raises(InvalidQueryError, match=r"EnumJob\.votes: 'typo'"):
        EnumJob.objects(votes__a="typo").count()


def test_a_legacy_value_is_found_by_asking_for_it() -> None:
    EnumJob._get_collection().insert_many(
        [{"k": "a", "st": "gone", "h": ["gone"], "v": {"x": "gone"}}, {"k": "b", "st": "finished"}]
    )

    assert jobs(status=UnknownEnumValue("gone")) == {"a"}
    assert jobs(status__in=[UnknownEnumValue("gone"), UnknownEnumValue("finished")]) == {"a", "b"}
    assert jobs(status__nin=[UnknownEnumValue("gone")]) == {"b"}
    assert jobs(history=UnknownEnumValue("gone"), votes__x=UnknownEnumValue("gone")) == {"a"}
    assert jobs(__raw__={"st": "gone"}) == {"a"}
    assert jobs(status=EnumJob.objects.get(key="a").status) == {"a"}


def test_elements_of_lists_maps_and_embedded_documents_are_found() -> None:
    EnumJob(
        key="a",
        history=["new", "done"],
        levels=[1],
        votes={"x": "open", "y": "new"},
        rounds={"x": ["done"]},
        labels=["open"],
        box=EnumJobBox(status="done"),
        boxes=[EnumJobBox(status="new")],
    ).save()

    for query in (
        {"history": Status.DONE},
        {"history": ["new", Status.DONE]},
        {"history__in": [Status.OPEN, "done"]},
        {"history__all": [Status.NEW, "done"]},
        {"history__nin": ["open"]},
        {"history__ne": Status.OPEN},
        {"history__not": Status.OPEN},
        {"history__size": 2},
        {"history__1": Status.DONE},
        {"levels__gte": Level.LOW},
        {"votes__x": Status.OPEN},
        {"votes__x__in": ["open"]},
        {"votes__y__ne": Status.OPEN},
        {"votes__z__exists": False},
        {"votes": {"x": Status.OPEN, "y": "new"}},
        {"rounds__x": Status.DONE},
        {"labels": Status.OPEN},
        {"labels": {Status.OPEN}},
        {"labels__all": ["open"]},
        {"box__status": Status.DONE},
        {"box": {"bs": Status.DONE}},
        {"box": EnumJobBox(status="done")},
        {"boxes__status": "new"},
        {"boxes__match": {"status": Status.NEW}},
    ):
        assert jobs(**query) == {"a"}, query
    assert jobs(history__all=["open"]) == jobs(votes__x=Status.NEW) == set()


def test_a_time_is_found_with_and_without_a_zone() -> None:
    EnumWhen(at=EnumWhen.At.START).save()

    assert EnumWhen.objects(at=datetime(2026, 1, 1)).get().at is EnumWhen.At.START


def test_sorting_only_and_indexes_know_the_fields() -> None:
    EnumJob(key="a", votes={"x": "open"}, status="new").save()

    job = EnumJob.objects.order_by("votes__x", "-status").only("status", "votes.x").get()

    assert job.status is Status.NEW and job.votes == {"x": Status.OPEN} and job.key is None


def test_each_key_of_a_map_is_a_field_of_its_own() -> None:
    fields = [EnumJob._lookup_field(["votes", key])[-1] for key in "xy"]

    assert [field.db_field for field in fields] == ["x", "y"]


# Updates


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


# Migration


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
