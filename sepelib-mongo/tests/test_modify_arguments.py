"""find_and_modify: its arguments, what is refused of them, and what it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
import pymongo.monitoring
import pytest
from mongoengine import (
    DateTimeField,
    Document,
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
from mongoengine.errors import InvalidQueryError, NotUniqueError, OperationError, ValidationError
from mongoengine.queryset import QuerySet
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError
from pymongo.write_concern import WriteConcern

from sepelib.mongo import find_and_modify
from sepelib.util.testing import FlakyProxy

pytestmark = pytest.mark.usefixtures("mongo_db")


class Corner(EmbeddedDocument):
    city = StringField(db_field="c")
    seats = IntField(db_field="s")


class Chore(Document):
    number = IntField(db_field="no")
    state = StringField(db_field="st", default="new")
    owner = StringField()
    tags = ListField(StringField())
    place = EmbeddedDocumentField(Corner, db_field="pl")
    places = EmbeddedDocumentListField(Corner, db_field="pls")
    max = IntField(db_field="mx")
    at = DateTimeField()
    after = ReferenceField("self")

    meta = {"ordering": ["-number"]}

    @queryset_manager
    def fresh(model: Any, queryset: QuerySet) -> QuerySet:
        return queryset.filter(state="new")


class ChoreCount(Document):
    name = StringField(unique=True, db_field="key")
    hits = IntField(default=7, db_field="n")
    since = IntField()


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
def jobs() -> list[Chore]:
    """1, 2 and 3, newest inserted first."""
    saved = [Chore(number=n, tags=["a"], place=Corner(city="c", seats=n)).save() for n in (3, 2, 1)]
    return saved[::-1]


# Query


def test_the_query_has_the_syntax_of_mongoengine_or_is_raw(jobs: list[Chore]) -> None:
    for query in (
        {"number": 2},
        {"number__gt": 1, "number__lt": 3},
        {"place__seats": 2},
        {"pk": jobs[1].pk},
        Q(number=2),
        Q(number__gt=1) & Q(number__ne=3),
        {"__raw__": {"no": 2}},
        {"__raw__": {"no": {"$gt": 1}}, "place__seats__lt": 3},
    ):
        assert find_and_modify(Chore, query, {"owner": "me"}).number == 2


@pytest.mark.parametrize("query", [{"nonesuch": 1}, {"$or": []}, "number", [("number", 1)]])
def test_a_query_that_is_none_is_refused(query: Any) -> None:
    with pytest.raises(InvalidQueryError):
        find_and_modify(Chore, query, {"state": "taken"})


# Update


@pytest.mark.parametrize(
    ("update", "changed"),
    [
        ({"inc__number": 5}, {"no": 6}),
        ({"dec__number": 5}, {"no": -4}),
        ({"set__state": "taken"}, {"st": "taken"}),
        ({"state": "taken", "inc__number": 1}, {"st": "taken", "no": 2}),
        ({"unset__state": 1}, {"st": None}),
        ({"push__tags": "b"}, {"tags": ["a", "b"]}),
        ({"add_to_set__tags": ["a", "b"]}, {"tags": ["a", "b"]}),
        ({"pull__tags": "a"}, {"tags": []}),
        ({"place__city": "x"}, {"pl": {"c": "x", "s": 1}}),
        ({"set__place__city": "x"}, {"pl": {"c": "x", "s": 1}}),
        ({"max": 3}, {"mx": 3}),
        ({"max__number": 3}, {"no": 3}),
        ({"$set": {"st": "taken"}, "$inc": {"no": 1}}, {"st": "taken", "no": 2}),
        ({"__raw__": {"$inc": {"no": 1}}}, {"no": 2}),
        (
            [{"$set": {"st": {"$concat": ["$st", "!"]}}}, {"$unset": "pl"}],
            {"st": "new!", "pl": None},
        ),
        ({"__raw__": [{"$set": {"no": {"$add": ["$no", 1]}}}]}, {"no": 2}),
    ],
)
def test_an_update_has_names_of_the_model_or_operators_or_stages(
    jobs: list[Chore], update: Any, changed: dict[str, Any]
) -> None:
    found = find_and_modify(Chore, {"number": 1}, update, new=True, raw=True)

    assert {name: found.get(name) for name in changed} == changed


def test_a_bare_path_of_three_names_sets(mongo_db: Any) -> None:
    class ChoreBox(EmbeddedDocument):
        place = EmbeddedDocumentField(Corner, db_field="p")

    class ChoreShelf(Document):
        box = EmbeddedDocumentField(ChoreBox, db_field="b")

    ChoreShelf(box=ChoreBox(place=Corner(city="x"))).save()

    find_and_modify(ChoreShelf, {}, {"box__place__city": "y"})

    assert mongo_db.db["chore_shelf"].find_one({}, {"_id": 0}) == {"b": {"p": {"c": "y"}}}


def test_array_filters_and_let_are_honoured(mongo_db: Any) -> None:
    Chore(number=1, places=[Corner(city=c, seats=0) for c in "aba"]).save()

    found = find_and_modify(
        Chore,
        {"__raw__": {"$expr": {"$eq": ["$no", "$$wanted"]}}},
        {"$set": {"pls.$[at].s": 5}},
        array_filters=[{"at.c": "a"}],
        let={"wanted": 1},
        new=True,
    )

    assert [(place.city, place.seats) for place in found.places] == [("a", 5), ("b", 0), ("a", 5)]


def test_a_collation_decides_what_matches(jobs: list[Chore]) -> None:
    Chore(number=4, owner="Anna").save()

    assert find_and_modify(Chore, {"owner": "anna"}, {"state": "x"}) is None
    found = find_and_modify(
        Chore, {"owner": "anna"}, {"state": "x"}, collation={"locale": "en", "strength": 2}
    )
    assert found.number == 4


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"$set": {"st": "x"}, "inc__number": 1}, "operators and names"),
        ({"state": "x", "$inc": {"no": 1}}, "operators and names"),
        ({"state": "x", "__raw__": {"$inc": {"no": 1}}}, "operators and names"),
        ({"nonesuch": 1}, "nonesuch"),
        ({"inc__nonesuch": 1}, "nonesuch"),
        ({"inc__number": 1, "dec__number": 1}, "change the same"),
        ({"state": "x", "set__state": "y"}, "change the same"),
        ("state", "neither a dict with names nor a list"),
        (("state", "x"), "neither a dict with names nor a list"),
        ({1: "x"}, "neither a dict with names nor a list"),
    ],
)
def test_an_update_that_cannot_be_right_is_refused_unsent(
    mongo_db: Any, jobs: list[Chore], update: Any, why: str
) -> None:
    with (
        watched(mongo_db, Chore) as (queryset, commands),
        pytest.raises(InvalidQueryError, match=why),
    ):
        find_and_modify(queryset, {"number": 1}, update)

    assert commands.sent == []


def test_a_value_that_its_field_refuses_is_refused_unsent(mongo_db: Any, jobs: list[Chore]) -> None:
    with (
        watched(mongo_db, Chore) as (queryset, commands),
        pytest.raises((ValidationError, ValueError)),
    ):
        find_and_modify(queryset, {"number": 1}, {"inc__number": "many"})

    assert commands.sent == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"upsert": True},
        {"update": {}},
        {"update": []},
        {"update": {"__raw__": {}}},
        {"remove": True, "update": {"state": "x"}},
        {"remove": True, "update": {}},
        {"remove": True, "upsert": True},
        {"remove": True, "new": True},
        {"remove": True, "array_filters": [{"x": 1}]},
    ],
)
def test_neither_both_or_an_empty_update_is_refused_unsent(
    mongo_db: Any, jobs: list[Chore], arguments: dict[str, Any]
) -> None:
    with (
        watched(mongo_db, Chore) as (queryset, commands),
        pytest.raises(ValueError, match=r"nothing to do|remove=True excludes"),
    ):
        find_and_modify(queryset, {"number": 1}, **arguments)

    assert commands.sent == [] and Chore.objects.count() == 3


# Sort and fields


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("number", 1),
        ("+number", 1),
        ("-number", 3),
        (["-number"], 3),
        (["state", "-place__seats"], 3),
        ([("state", 1), ("number", -1)], 3),
        ([("place.seats", 1)], 1),
        (("state", "number"), 1),
        ("pk", 3),
    ],
)
def test_the_first_by_the_sort_is_taken(jobs: list[Chore], sort: Any, first: int) -> None:
    assert find_and_modify(Chore, {}, {"owner": "me"}, sort=sort).number == first


def test_an_empty_sort_clears_the_order_of_a_queryset(mongo_db: Any, jobs: list[Chore]) -> None:
    with watched(mongo_db, Chore) as (queryset, commands):
        find_and_modify(queryset.order_by("number"), {}, {"owner": "me"}, sort=[])
        find_and_modify(queryset.order_by(), {}, {"owner": "me"})

    assert len(commands.sent) == 2 and not any("sort" in command for command in commands.sent)


@pytest.mark.parametrize(
    "sort", ["nonesuch", "", ["-nonesuch"], [("number", 2)], ("number", -1), {"number": 1}, [1]]
)
def test_a_sort_that_is_none_is_refused(sort: Any) -> None:
    with pytest.raises(InvalidQueryError):
        find_and_modify(Chore, {}, {"owner": "me"}, sort=sort)


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ("number", {"_id", "no"}),
        (["number", "place__city"], {"_id", "no", "pl"}),
        (("number",), {"_id", "no"}),
        ({"number": 1, "state": True}, {"_id", "no", "st"}),
        ({"number": 0, "pk": 1}, {"_id", "st", "tags", "pl"}),
        ({"number": 0}, {"_id", "st", "tags", "pl"}),
        ({"number": 1, "id": 0}, {"no"}),
        ("id", {"_id"}),
        ([], {"_id", "no", "st", "tags", "pl"}),
    ],
)
def test_fields_are_those_shown_or_hidden(jobs: list[Chore], fields: Any, stored: set[str]) -> None:
    found = find_and_modify(Chore, {"number": 1}, {"state": "x"}, fields=fields, raw=True)

    assert {name for name, value in found.items() if value != []} == stored


def test_a_partial_document_is_as_from_only(jobs: list[Chore]) -> None:
    job = find_and_modify(Chore, {"number": 1}, {"state": "x"}, fields=["place__city"])
    by_only = Chore.objects(pk=job.pk).only("place__city").get()

    assert job.to_mongo() == by_only.to_mongo() and job.place.city == "c" and job.number is None
    job.owner = "me"
    job.save()
    assert Chore.objects.get(pk=job.pk).number == 1  # what was not loaded is left alone


@pytest.mark.parametrize(
    "fields", ["nonesuch", {"number": 1, "state": 0}, {"number": 5}, {"number": {"$slice": 1}}]
)
def test_fields_that_are_none_are_refused(fields: Any) -> None:
    with pytest.raises(InvalidQueryError):
        find_and_modify(Chore, {}, {"owner": "me"}, fields=fields)


def test_a_document_without_its_id_is_refused_as_save_would_insert_another() -> None:
    with pytest.raises(InvalidQueryError, match="raw=True"):
        find_and_modify(Chore, {}, {"owner": "me"}, fields={"id": 0})
    with pytest.raises(InvalidQueryError, match="raw=True"):
        find_and_modify(Chore.objects.exclude("id"), {}, {"owner": "me"})


# Options and errors


def test_a_write_concern_is_laid_over_the_collection_s(mongo_db: Any, jobs: list[Chore]) -> None:
    with watched(mongo_db, Chore) as (queryset, commands):
        collection = queryset._collection.with_options(write_concern=WriteConcern(w=1, j=True))
        for given in (None, {"wtimeout": 1000}, WriteConcern(w="majority")):
            find_and_modify(QuerySet(Chore, collection), {}, {"owner": "x"}, write_concern=given)

    assert [command["writeConcern"] for command in commands.sent] == [
        {"w": 1, "j": True},
        {"w": 1, "j": True, "wtimeout": 1000},
        {"w": "majority"},
    ]


def test_a_duplicate_key_is_not_unique_and_names_the_collection() -> None:
    ChoreCount(name="a").save()
    ChoreCount(name="b").save()

    with pytest.raises(NotUniqueError, match=r"chore_count: .*E11000") as caught:
        find_and_modify(ChoreCount, {"name": "a"}, {"name": "b"})

    assert isinstance(caught.value.__cause__, pymongo.errors.DuplicateKeyError)


def test_another_failure_of_the_command_is_an_operation_error(jobs: list[Chore]) -> None:
    with pytest.raises(OperationError, match="chore: ") as caught:
        find_and_modify(Chore, {"number": 1}, {"$inc": {"st": 1}})

    assert not isinstance(caught.value, NotUniqueError)
    cause = caught.value.__cause__
    assert isinstance(cause, pymongo.errors.OperationFailure) and cause.code == 14


def test_errors_of_selection_and_of_the_network_pass_unchanged(mongo_db: Any) -> None:
    nobody = "mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=200"
    with (
        pymongo.MongoClient[Any](nobody) as client,
        pytest.raises(ServerSelectionTimeoutError),
    ):
        find_and_modify(QuerySet(Chore, client["x"]["chore"]), {}, {"owner": "x"})

    Chore(number=1).save()
    with FlakyProxy(*mongo_db.client.address) as proxy:
        uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true&retryWrites=false"
        with pymongo.MongoClient[Any](uri) as client:
            queryset = QuerySet(Chore, client[mongo_db.name]["chore"])
            proxy.lose_answer(lambda data: b"findAndModify" in data)
            with pytest.raises(AutoReconnect):
                find_and_modify(queryset, {"number": 1}, {"owner": "me"})
