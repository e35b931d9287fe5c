"""find_and_modify: what comes back, from what, and of which class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymongo
import pymongo.monitoring
import pytest
from bson.codec_options import CodecOptions
from mongoengine import (
    DateTimeField,
    Document,
    DynamicDocument,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    IntField,
    ListField,
    Q,
    ReferenceField,
    StringField,
    queryset_manager,
)
from mongoengine.errors import InvalidQueryError
from mongoengine.queryset import QuerySet

from sepelib.mongo import find_and_modify

pytestmark = pytest.mark.usefixtures("mongo_db")


class Spot(EmbeddedDocument):
    city = StringField(db_field="c")
    seats = IntField(db_field="s")


class Errand(Document):
    number = IntField(db_field="no")
    state = StringField(db_field="st", default="new")
    owner = StringField()
    tags = ListField(StringField())
    place = EmbeddedDocumentField(Spot, db_field="pl")
    places = EmbeddedDocumentListField(Spot, db_field="pls")
    max = IntField(db_field="mx")
    at = DateTimeField()
    after = ReferenceField("self")

    meta = {"ordering": ["-number"]}

    @queryset_manager
    def fresh(model: Any, queryset: QuerySet) -> QuerySet:
        return queryset.filter(state="new")


class Beast(Document):
    name = StringField(unique=True)
    legs = IntField(db_field="l")

    meta = {"allow_inheritance": True}


class Hound(Beast):
    breed = StringField(db_field="b")


class Whelp(Hound):
    pass


class LooseSheet(DynamicDocument):
    pass


class Commands(pymongo.monitoring.CommandListener):
    """What is sent; *before* is called with each command, when it is about to leave."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.before: Callable[[dict[str, Any]], None] = lambda command: None

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if event.command_name == "findAndModify":
            command = dict(event.command)
            self.sent.append(command)
            self.before(command)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


@contextmanager
def watched(mongo_db: Any, model: Any) -> Iterator[tuple[QuerySet, Commands]]:
    """A queryset of *model* by a client of its own, whose commands are seen."""
    model._get_collection()  # makes the indexes
    commands = Commands()
    with pymongo.MongoClient(mongo_db.uri, event_listeners=[commands]) as client:
        collection = client[mongo_db.name][model._get_collection_name()]
        yield QuerySet(model, collection), commands


@pytest.fixture
def jobs() -> list[Errand]:
    """1, 2 and 3, newest inserted first."""
    saved = [Errand(number=n, tags=["a"], place=Spot(city="c", seats=n)).save() for n in (3, 2, 1)]
    return saved[::-1]


# What comes back


def test_the_document_comes_back_as_it_was_before(jobs: list[Errand]) -> None:
    job = find_and_modify(Errand, {"number": 2}, {"state": "taken"})

    assert isinstance(job, Errand) and (job.pk, job.state) == (jobs[1].pk, "new")
    assert Errand.objects.get(number=2).state == "taken"


def test_with_new_it_comes_back_as_it_is_after(jobs: list[Errand]) -> None:
    job = find_and_modify(Errand, {"number": 2}, {"state": "taken"}, new=True)

    assert (job.pk, job.state) == (jobs[1].pk, "taken")


def test_none_comes_back_when_nothing_matches(jobs: list[Errand]) -> None:
    assert find_and_modify(Errand, {"number": 9}, {"state": "taken"}) is None
    assert find_and_modify(Errand, {"number": 9}, {"state": "taken"}, new=True) is None
    assert find_and_modify(Errand, {"number": 9}, remove=True) is None
    assert Errand.objects(state="taken").count() == 0 and Errand.objects.count() == 3


def test_only_one_of_many_is_changed(jobs: list[Errand]) -> None:
    find_and_modify(Errand, {"state": "new"}, {"state": "taken"})

    assert Errand.objects(state="taken").count() == 1


def test_a_removed_document_comes_back_and_is_gone(jobs: list[Errand]) -> None:
    job = find_and_modify(Errand, {"number": 2}, remove=True)

    assert job.pk == jobs[1].pk and job.number == 2
    assert {left.number for left in Errand.objects} == {1, 3}


def test_the_document_is_clean_and_save_updates_it(mongo_db: Any, jobs: list[Errand]) -> None:
    job = find_and_modify(Errand, {"number": 2}, {"owner": "me"}, new=True)
    assert job._get_changed_fields() == [] and not job._created
    mongo_db.db["errand"].update_one({"no": 2}, {"$set": {"st": "behind its back"}})

    job.number = 22
    job.save()

    stored = mongo_db.db["errand"].find_one({"_id": job.pk})
    assert (stored["no"], stored["owner"], stored["st"]) == (22, "me", "behind its back")
    assert Errand.objects.count() == 3


def test_raw_gives_the_dict_as_stored(jobs: list[Errand]) -> None:
    found = find_and_modify(Errand, {"number": 2}, {"state": "taken"}, new=True, raw=True)

    assert (
        found["_id"] == jobs[1].pk and found["st"] == "taken" and found["pl"] == {"c": "c", "s": 2}
    )
    assert find_and_modify(Errand, {"number": 9}, {"state": "taken"}, raw=True) is None
    assert find_and_modify(Errand.objects.as_pymongo(), {"number": 2}, remove=True)["no"] == 2


def test_datetimes_follow_the_client(mongo_db: Any) -> None:
    at = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    Errand(number=1, at=at).save()
    collection = mongo_db.db["errand"]

    for aware in (True, False):
        options: CodecOptions[Any] = CodecOptions(tz_aware=aware)
        queryset = QuerySet(Errand, collection.with_options(codec_options=options))
        found = find_and_modify(queryset, {"number": 1}, {"state": "seen"})
        assert found.at == (at if aware else at.replace(tzinfo=None))


# Model: a class or a queryset


def test_a_class_is_its_whole_collection_without_its_ordering(jobs: list[Errand]) -> None:
    with_ordering = Errand.objects.first()
    assert with_ordering.number == 3
    Errand.objects(number=3).delete()
    Errand(number=3).save()  # now the last in the collection

    assert find_and_modify(Errand, None, {"state": "seen"}).number != 3


def test_a_queryset_brings_its_filter_in_addition_to_the_query(jobs: list[Errand]) -> None:
    queryset = Errand.objects(number__gte=2)

    assert find_and_modify(queryset, {"number__lte": 2}, {"owner": "me"}).number == 2
    assert find_and_modify(queryset, {"number": 1}, {"owner": "me"}) is None
    assert find_and_modify(queryset(owner="me"), update={"owner": "you"}).number == 2
    assert find_and_modify(queryset, Q(owner="you") | Q(owner="none"), remove=True).number == 2
    assert find_and_modify(Errand.fresh, {"number": 3}, {"state": "taken"}).number == 3
    assert find_and_modify(Errand.fresh, {"number": 3}, {"state": "taken"}) is None


def test_a_queryset_brings_its_order(jobs: list[Errand]) -> None:
    assert find_and_modify(Errand.objects.order_by("number"), None, {"owner": "x"}).number == 1
    assert find_and_modify(Errand.objects.order_by("-number"), None, {"owner": "x"}).number == 3
    assert (
        find_and_modify(Errand.objects.order_by("-number"), remove=True, sort="number").number == 1
    )


def test_a_queryset_brings_the_fields_of_only_and_exclude(jobs: list[Errand]) -> None:
    job = find_and_modify(Errand.objects.only("number"), {"number": 1}, {"owner": "me"}, new=True)
    assert (job.number, job.owner, job.tags) == (1, None, [])

    job = find_and_modify(Errand.objects.exclude("number"), {"number": 1}, {"owner": "me"})
    assert (job.number, job.owner, job.tags) == (None, "me", ["a"])

    job = find_and_modify(
        Errand.objects.only("number"), {"number": 1}, {"owner": "x"}, fields="owner"
    )
    assert (job.number, job.owner) == (None, "me")


def test_a_queryset_brings_its_options_and_keywords_win(mongo_db: Any, jobs: list[Errand]) -> None:
    with watched(mongo_db, Errand) as (queryset, commands):
        asked = queryset(number=1).hint("_id_").comment("why").max_time_ms(5000)
        asked = asked.collation({"locale": "en", "strength": 2})
        find_and_modify(asked, update={"owner": "x"})
        find_and_modify(
            asked,
            update={"owner": "x"},
            hint=[("_id", 1)],
            comment="because",
            max_time_ms=4000,
            collation={"locale": "de"},
        )
        find_and_modify(queryset(number=1), update={"owner": "x"})

    first, second, third = commands.sent
    assert (first["hint"], first["comment"], first["maxTimeMS"]) == ("_id_", "why", 5000)
    assert first["collation"] == {"locale": "en", "strength": 2}
    assert (second["hint"], second["comment"], second["maxTimeMS"]) == ({"_id": 1}, "because", 4000)
    assert second["collation"] == {"locale": "de"}
    assert not {"hint", "comment", "maxTimeMS", "collation", "let", "fields", "sort"} & set(third)


def test_a_queryset_that_does_not_follow_references_passes_that_on(jobs: list[Errand]) -> None:
    Errand(number=9, after=jobs[0]).save()

    follows = find_and_modify(Errand.objects, {"number": 9}, {"owner": "me"})
    stays = find_and_modify(Errand.objects.no_dereference(), {"number": 9}, {"owner": "me"})

    assert isinstance(follows.after, Errand) and not isinstance(stays.after, Errand)


def test_none_as_a_queryset_finds_nothing(jobs: list[Errand]) -> None:
    assert find_and_modify(Errand.objects.none(), {}, {"state": "taken"}) is None
    with pytest.raises(InvalidQueryError, match="none"):
        find_and_modify(Errand.objects.none(), {}, {"state": "taken"}, upsert=True)
    assert Errand.objects(state="taken").count() == 0


@pytest.mark.parametrize(
    ("narrow", "word"),
    [
        (lambda objects: objects.skip(1), "skip"),
        (lambda objects: objects.limit(1), "limit"),
        (lambda objects: objects[:2], "limit"),
        (lambda objects: objects[1:], "skip"),
        (lambda objects: objects[1:1], "slice"),
        (lambda objects: objects.where("this.no == 1"), "where"),
        (lambda objects: objects.scalar("number"), "scalar"),
    ],
)
def test_a_queryset_with_what_cannot_be_done_is_refused(
    mongo_db: Any, jobs: list[Errand], narrow: Callable[[QuerySet], QuerySet], word: str
) -> None:
    with (
        watched(mongo_db, Errand) as (queryset, commands),
        pytest.raises(InvalidQueryError, match=word),
    ):
        find_and_modify(narrow(queryset), {"number": 1}, {"state": "taken"})

    assert commands.sent == []


def test_what_is_no_model_is_refused() -> None:
    class NoErrand(Document):
        meta = {"abstract": True}

    for model in (Spot, NoErrand, Document, Errand(), "Errand", None, Errand.objects.first):
        with pytest.raises(TypeError, match="neither a queryset nor a document class"):
            find_and_modify(model, {}, {"state": "taken"})


# Inheritance


def test_documents_of_subclasses_come_back_as_their_class() -> None:
    for made in (Beast(name="a"), Hound(name="d", breed="x"), Whelp(name="p", breed="y")):
        made.save()

    found = [find_and_modify(Beast, {"name": name}, {"legs": 4}) for name in "adp"]
    assert [type(animal) for animal in found] == [Beast, Hound, Whelp]
    partial = find_and_modify(Beast, {"name": "p"}, {"legs": 4}, fields="breed")
    assert type(partial) is Whelp and (partial.name, partial.breed) == (None, "y")
    for fields in ({"name": 0}, {"_cls": 0}, {"_cls": 0, "name": 0}):
        assert type(find_and_modify(Beast, {"name": "p"}, {"legs": 4}, fields=fields)) is Whelp


def test_a_query_on_a_subclass_touches_only_its_own() -> None:
    Beast(name="a").save()
    Whelp(name="p").save()

    assert find_and_modify(Hound, {"name": "a"}, {"legs": 4}) is None
    assert find_and_modify(Hound, {"name": "p"}, {"legs": 4}).name == "p"
    assert find_and_modify(Whelp, {}, remove=True).name == "p"
    assert find_and_modify(Hound.objects.no_sub_classes(), {}, {"legs": 4}) is None
    assert Beast.objects.get().name == "a" and Beast.objects.get().legs is None


def test_a_dynamic_document_takes_any_name() -> None:
    update = {"inc__row": 1, "label": "x"}
    made = find_and_modify(LooseSheet, {"page": 1}, update, sort="-row", upsert=True, new=True)

    assert (made.page, made.row, made.label) == (1, 1, "x")


def test_nothing_given_is_changed_by_the_call() -> None:
    query = {"__raw__": {"name": "a", "l": {"$lt": 9}}}
    update: dict[str, Any] = {"$setOnInsert": {"l": 4}}
    stages: list[dict[str, Any]] = [{"$set": {"l": 5}}]
    queryset = Beast.objects(legs__gt=0)

    find_and_modify(queryset, query, update, upsert=True)
    find_and_modify(queryset, query, stages, upsert=True)

    assert query == {"__raw__": {"name": "a", "l": {"$lt": 9}}}
    assert update == {"$setOnInsert": {"l": 4}} and stages == [{"$set": {"l": 5}}]
    assert [animal.legs for animal in queryset] == [5]
