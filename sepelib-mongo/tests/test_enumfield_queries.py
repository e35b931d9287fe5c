"""EnumField in queries: what is found, and what is refused."""

import re
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    ListField,
    MapField,
    Q,
    StringField,
)
from mongoengine.errors import InvalidQueryError

from sepelib.mongo import EnumField, SetField, UnknownEnumValue

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


class EnumWhen(Document):
    class At(Enum):
        START = datetime(2026, 1, 1, tzinfo=UTC)

    at = EnumField(At)


def jobs(**query: Any) -> set[str]:
    return {job.key for job in EnumJob.objects(**query)}


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
