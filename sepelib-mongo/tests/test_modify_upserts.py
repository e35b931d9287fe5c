"""find_and_modify: upserts, what they insert, and those that meet another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
import pymongo.monitoring
import pytest
from bson import ObjectId
from mongoengine import (
    Document,
    IntField,
    StringField,
)
from mongoengine.base import TopLevelDocumentMetaclass
from mongoengine.errors import NotUniqueError
from mongoengine.queryset import QuerySet

from sepelib.mongo import find_and_modify, mock_database

pytestmark = pytest.mark.usefixtures("mongo_db")


class PageCount(Document):
    name = StringField(unique=True, db_field="key")
    hits = IntField(default=7, db_field="n")
    since = IntField()


class Vessel(Document):
    name = StringField(unique=True)
    decks = IntField(db_field="d")

    meta = {"allow_inheritance": True}


class Ferry(Vessel):
    line = StringField(db_field="ln")


class CarFerry(Ferry):
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


def test_an_upsert_that_inserts_answers_none_or_with_new_the_document() -> None:
    assert find_and_modify(PageCount, {"name": "a"}, {"inc__hits": 1}, upsert=True) is None
    made = find_and_modify(PageCount, {"name": "b"}, {"inc__hits": 1}, upsert=True, new=True)

    assert (made.name, made.hits) == ("b", 1)
    assert sorted((c.name, c.hits) for c in PageCount.objects) == [("a", 1), ("b", 1)]


def test_an_upsert_that_finds_one_changes_it() -> None:
    PageCount(name="a", hits=1).save()

    before = find_and_modify(PageCount, {"name": "a"}, {"inc__hits": 1}, upsert=True)
    after = find_and_modify(PageCount, {"name": "a"}, {"inc__hits": 1}, upsert=True, new=True)

    assert (before.hits, after.hits, PageCount.objects.count()) == (1, 3, 1)


def test_an_upsert_may_ask_for_the_key_of_the_new_document(mongo_db: Any) -> None:
    key = ObjectId()

    made = find_and_modify(PageCount, {"pk": key}, {"name": "a"}, upsert=True, new=True)

    assert made.pk == key and PageCount.objects.get().pk == key


def test_an_upsert_adds_no_defaults_and_set_on_insert_does(mongo_db: Any) -> None:
    update = {"set_on_insert__since": 2020, "name": "a"}

    find_and_modify(PageCount, {"name": "a"}, update, upsert=True)
    find_and_modify(PageCount, {"name": "a"}, {**update, "set_on_insert__since": 1}, upsert=True)

    (stored,) = mongo_db.db["page_count"].find({}, {"_id": 0})
    assert stored == {"key": "a", "since": 2020}
    assert PageCount.objects.get().hits == 7  # the default, by loading


@pytest.mark.parametrize("model", [Vessel, Ferry, CarFerry])
@pytest.mark.parametrize(
    "update",
    [
        {"decks": 4},
        {"$inc": {"d": 4}},
        {"$setOnInsert": {"d": 4}},
        [{"$set": {"d": 4}}],
    ],
)
def test_an_upsert_stores_the_class(model: TopLevelDocumentMetaclass, update: Any) -> None:
    made = find_and_modify(model, {"name": "x"}, update, upsert=True, new=True)

    assert type(made) is model and made.decks == 4
    assert type(Vessel.objects.get(name="x")) is model
    find_and_modify(model.objects.clear_cls_query(), {"name": "y"}, update, upsert=True)
    assert type(Vessel.objects.get(name="y")) is model


@pytest.mark.parametrize("update", [{"decks": 4}, [{"$set": {"d": 4}}]])
def test_an_upsert_that_finds_a_subclass_document_leaves_its_class(update: Any) -> None:
    CarFerry(name="p").save()

    found = find_and_modify(Vessel, {"name": "p"}, update, upsert=True, new=True)

    assert type(found) is CarFerry and found.decks == 4 and Vessel.objects.count() == 1


@pytest.mark.parametrize("update", [{}, [], {"__raw__": {}}, {"__raw__": []}])
def test_an_empty_upsert_is_not_filled_up_with_the_class(update: Any) -> None:
    with pytest.raises(ValueError, match="nothing to do"):
        find_and_modify(Vessel, {"name": "x"}, update, upsert=True)

    assert Vessel.objects.count() == 0


def test_an_upsert_stores_the_class_that_the_caller_names() -> None:
    find_and_modify(Vessel, {"name": "q", "_cls": "Vessel.Ferry"}, {"decks": 4}, upsert=True)
    find_and_modify(Vessel, {"name": "u"}, {"set___cls": "Vessel.Ferry"}, upsert=True)

    assert [type(vessel) for vessel in Vessel.objects] == [Ferry, Ferry]


# Upserts that meet another


def test_an_upsert_conflicting_with_a_different_document_is_reported_in_the_end(
    mongo_db: Any,
) -> None:
    PageCount(name="taken", hits=1).save()
    with (
        watched(mongo_db, PageCount) as (queryset, commands),
        pytest.raises(NotUniqueError),
    ):
        find_and_modify(queryset, {"hits": 99}, {"name": "taken"}, upsert=True)

    assert sum(command["upsert"] for command in commands.sent) == 1 + 3
    assert PageCount.objects.get().hits == 1


def test_an_upsert_that_lost_the_race_changes_the_winner_s_document(mongo_db: Any) -> None:
    with watched(mongo_db, PageCount) as (queryset, commands):

        def win(command: dict[str, Any]) -> None:
            if command["upsert"] and not PageCount.objects.count():
                PageCount(name="a", hits=10).save()

        commands.before = win
        before = find_and_modify(queryset, {"name": "a"}, {"inc__hits": 1}, upsert=True)

    assert before is not None and before.hits == 10
    assert PageCount.objects.get().hits == 11


def test_an_upsert_is_tried_again_up_to_three_times(mongo_db: Any) -> None:
    PageCount(name="a", hits=1).save()
    with watched(mongo_db, PageCount) as (queryset, commands):

        def let_it_match(command: dict[str, Any]) -> None:
            if sum(command["upsert"] for command in commands.sent) == 3:
                PageCount.objects(name="a").update(set__hits=0)

        commands.before = let_it_match
        query = {"name": "a", "hits": 0}
        found = find_and_modify(queryset, query, {"inc__hits": 5}, upsert=True, new=True)

    assert found.hits == 5 and PageCount.objects.count() == 1


@pytest.mark.parametrize("replica_set", [True, False])
def test_an_upsert_is_one_command_but_for_the_embedded_server(replica_set: bool) -> None:
    with mock_database(replica_set=replica_set, alias="other") as other:
        set_name = other.client.admin.command("hello").get("setName")
        commands = Commands()
        with pymongo.MongoClient[Any](other.uri, event_listeners=[commands]) as client:
            queryset = QuerySet(PageCount, client[other.name]["page_count"])
            queryset._collection.create_index("key", unique=True)
            for _ in range(2):
                find_and_modify(queryset, {"name": "a"}, {"inc__hits": 1}, upsert=True)
            with pytest.raises(NotUniqueError):
                find_and_modify(queryset, {"hits": 99}, {"name": "a"}, upsert=True)

    insert, update, refused = [True], [True], [True]
    if set_name == "secantus":
        insert, update, refused = [False, True], [False], [False, True]
    assert [c["upsert"] for c in commands.sent] == insert + update + refused * 4
