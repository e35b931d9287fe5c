"""What sepelib.mongo needs of mongoengine and pymongo beyond their public names.

They may change in any release. Each name has a test of what it must do, `@proves` lists them,
and the first test compares the list with what the sources use: a name that is used and not
proven fails, and so does one that is not used any more.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import mongoengine
import pymongo
import pytest
from bson import ObjectId
from mongoengine import (
    DictField,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    IntField,
    ListField,
    MapField,
    Q,
    StringField,
)
from mongoengine.base import UPDATE_OPERATORS, BaseField
from mongoengine.errors import InvalidQueryError, LookUpError
from mongoengine.queryset import QuerySet, transform
from mongoengine.queryset.base import BaseQuerySet
from pymongo import _csot
from pymongo.errors import AutoReconnect, _OperationCancelled
from pymongo.synchronous.pool import Pool

import sepelib.mongo
from sepelib.mongo._origin import origin

SOURCES = sorted(Path(inspect.getfile(sepelib.mongo)).parent.rglob("*.py"))
NOT_NAMES = {"_id", "_cls", "_sets"}  # keys of dicts
NOT_NAMES |= {"_abc_impl", "_active", "_getframe", "_is_protocol"}  # Python's

Test = TypeVar("Test", bound=Callable[..., None])
PROVEN: set[str] = set()


def proves(*names: str) -> Callable[[Test], Test]:
    PROVEN.update(names)
    return lambda test: test


class Chamber(EmbeddedDocument):
    number = IntField(db_field="n")


class Cottage(Document):
    name = StringField(unique=True, db_field="nm", default="none")
    rooms = EmbeddedDocumentListField(Chamber, db_field="r")
    best = EmbeddedDocumentField(Chamber, db_field="b")
    tags = ListField(StringField())
    more = DictField()
    district = IntField(db_field="d")

    meta = {"allow_inheritance": True, "shard_key": ("district",), "ordering": ["name"]}


class Mansion(Cottage):
    pool = IntField(db_field="pl")


class Hut(Document):
    pass


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.isidentifier() and name != "_"


def names_in(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Private names that a source uses, and those that it makes."""
    used: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                own.add(name)
            case ast.keyword(arg=str(name)):
                used.add(name)
            case ast.ImportFrom(module=str(module), level=0) if "sepelib" not in module:
                used.update(alias.name for alias in node.names)
            case ast.Assign(targets=[ast.Name(id="__slots__")]):
                own.update(ast.literal_eval(node.value))
            case ast.Constant(value=str(name)):
                used.add(name)
    return set(filter(private, used)), set(filter(private, own))


def overridden() -> set[str]:
    """Private names of theirs that classes of ours define anew."""
    names = set()
    for source in SOURCES:
        if source.stem.startswith("__"):
            continue
        module = importlib.import_module(f"sepelib.mongo.{source.stem}")
        for _, ours in inspect.getmembers(module, inspect.isclass):
            if ours.__module__ == module.__name__:
                bases = {*ours.__mro__, Document} - {ours}  # a mix-in is used with Document
                theirs = [b for b in bases if b.__module__.startswith(("mongoengine", "pymongo"))]
                if len(bases) == 2 and "Mixin" not in ours.__name__:
                    continue
                names |= {n for n in vars(ours) if any(n in vars(base) for base in theirs)}
    return set(filter(private, names)) - NOT_NAMES


def test_the_names_used_are_those_proven_here() -> None:
    trees = [names_in(ast.parse(source.read_text())) for source in SOURCES]
    used = set().union(*(used for used, _ in trees))
    own = set().union(*(own for _, own in trees))
    foreign = (used - own - NOT_NAMES) | overridden()

    assert sorted(foreign - PROVEN) == [], "used, but not proven"
    assert sorted(PROVEN - used - own) == [], "proven, but not used any more"


# Documents


@proves("_from_son", "_auto_dereference", "_class_name")
def test_from_son_makes_a_clean_document_of_the_stored_class(mongo_db: Any) -> None:
    assert (Cottage._class_name, Mansion._class_name, Hut._class_name) == (
        "Cottage",
        "Cottage.Mansion",
        "Hut",
    )
    stored = {"_id": ObjectId(), "_cls": "Cottage.Mansion", "nm": "x", "pl": 2}

    villa = Cottage._from_son(stored, _auto_dereference=True)

    assert type(villa) is Mansion and (villa.name, villa.pool) == ("x", 2)
    assert villa._get_changed_fields() == [] and not villa._created
    assert QuerySet(Cottage, None)._auto_dereference is True
    assert QuerySet(Cottage, None).no_dereference()._auto_dereference is False


@proves("_get_collection", "_get_collection_name", "_disconnect")
def test_a_document_knows_its_collection_until_it_is_disconnected(mongo_db: Any) -> None:
    collection = Cottage._get_collection()
    assert collection == mongo_db.db["cottage"] and Cottage._get_collection_name() == "cottage"
    assert "nm_1" in collection.index_information() or len(collection.index_information()) > 1
    assert Document._get_collection_name() is None

    mongo_db.db.drop_collection("cottage")
    Cottage._get_collection()
    assert mongo_db.db["cottage"].index_information() == {}
    Cottage._disconnect()
    Cottage._get_collection()
    assert len(mongo_db.db["cottage"].index_information()) > 1


@proves("_connection_settings")
def test_the_engine_s_aliases_are_in_its_tables(mongo_db: Any) -> None:
    tables = (
        mongoengine.connection._connection_settings,
        mongoengine.connection._connections,
        mongoengine.connection._dbs,
    )
    mongoengine.connection.get_db("default")
    assert all("default" in table for table in tables)
    assert tables[1]["default"] is mongo_db.client
    assert mongoengine.connection._connection_settings["default"]["name"] == mongo_db.name

    options = {"host": "127.0.0.1", "uuidRepresentation": "standard"}
    mongoengine.register_connection("unused", **options)
    assert "unused" in tables[0] and "unused" not in tables[1]
    mongoengine.disconnect("unused")
    assert not any("unused" in table for table in tables)


@proves("_meta")
def test_meta_says_what_the_class_declares() -> None:
    assert Cottage._meta["allow_inheritance"] is True and Mansion._meta["allow_inheritance"] is True
    assert not Hut._meta.get("allow_inheritance")
    assert Hut._meta.get("db_alias", "default") == "default"
    assert Cottage._meta["ordering"] == ["name"]


@proves("_fields", "_lookup_field")
def test_fields_are_known_by_name_and_by_path() -> None:
    assert {"id", "name", "rooms", "pool"} <= set(Mansion._fields)
    assert Mansion._fields["name"].db_field == "nm" and Mansion._fields["name"].name == "name"

    rooms, number = Cottage._lookup_field(["rooms", "number"])
    assert (rooms.db_field, number.db_field) == ("r", "n")
    assert Cottage._lookup_field(["more", "any"])[0].db_field == "more"
    assert Cottage._lookup_field(["tags", "0"])[1] == "0"
    with pytest.raises(LookUpError):
        Cottage._lookup_field(["nonesuch"])


@proves("_data", "_created", "_initialised")
def test_a_document_knows_whether_it_is_made_saved_or_loaded(mongo_db: Any) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    class Watching(BaseField):
        def __set__(self, instance: Any, value: Any) -> None:
            seen.append((instance._initialised, instance._created, self.name in instance._data))
            super().__set__(instance, value)

    class Watched(Document):
        value = Watching()

    document = Watched(value=1)
    assert seen == [(False, True, False)]
    assert document._initialised and document._created and document._data["value"] == 1
    document.value = 2
    assert seen[1] == (True, True, True)

    document.save()
    assert not document._created
    loaded = Watched.objects.get()
    assert loaded._initialised and not loaded._created
    assert seen[-1][0] is False


@proves("_changed_fields", "_mark_as_changed", "_clear_changed_fields")
def test_changes_are_listed_by_the_names_of_the_database() -> None:
    assert not hasattr(Cottage(name="x"), "_changed_fields")  # all of a new one counts as changed
    house = Cottage._from_son({"_id": ObjectId(), "_cls": "Cottage", "nm": "x"})
    assert house._changed_fields == []

    house._mark_as_changed("name")
    house._mark_as_changed("name")
    assert house._changed_fields == ["nm"]

    house._clear_changed_fields()
    assert house._changed_fields == []


@proves("_get_update_doc", "_save_update", "_integrate_shard_key")
def test_save_sends_what_get_update_doc_says_by_save_update(mongo_db: Any) -> None:
    calls: list[tuple[Any, ...]] = []

    class Saved(Document):
        name = StringField(db_field="nm")
        tag = StringField()

        meta = {"shard_key": ("name",)}

        def _get_update_doc(self) -> Any:
            update = super()._get_update_doc()
            calls.append(("update", {key: dict(value) for key, value in update.items()}))
            update.setdefault("$set", {})["extra"] = 1
            return update

        def _save_update(self, doc: Any, save_condition: Any, write_concern: Any) -> Any:
            calls.append(("save", doc["_id"], save_condition, write_concern))
            return super()._save_update(doc, save_condition, write_concern)

        def _clear_changed_fields(self) -> None:
            calls.append(("clear",))
            super()._clear_changed_fields()

    document = Saved(name="x", tag="t").save()
    assert calls == [("clear",)]
    calls.clear()

    document.tag = None
    document.save(write_concern={"w": 1}, save_condition={"name": "x"})

    assert calls[0][:3] == ("save", document.pk, {"name": "x"}) and calls[0][3]["w"] == 1
    assert calls[1:] == [("update", {"$unset": {"tag": 1}}), ("clear",)]
    stored = mongo_db.db["saved"].find_one()
    assert stored == {"_id": document.pk, "nm": "x", "extra": 1}
    assert document._integrate_shard_key(stored, {"_id": 1}) == {"_id": 1, "nm": "x"}


@proves("_instance")
def test_what_is_embedded_knows_the_document_around_it() -> None:
    house = Cottage(rooms=[Chamber(number=1)], best=Chamber(number=2))

    assert house.rooms[0]._instance == house and house.best._instance == house
    assert Chamber()._instance is None


# Fields


def test_who_gives_a_value_to_convert_is_seen_in_the_stack(mongo_db: Any) -> None:
    asked: list[str] = []

    class Asking(BaseField):
        def to_python(self, value: Any) -> Any:
            asked.append(origin())
            return value

        def to_mongo(self, value: Any) -> Any:
            asked.append(origin())
            return value

    class Kept(EmbeddedDocument):
        one = Asking()

    class Asked(Document):
        one = Asking()
        many = ListField(ListField(Asking()))
        named = MapField(Asking())
        kept = EmbeddedDocumentField(Kept)
        all_kept = ListField(EmbeddedDocumentField(Kept))

    def origins() -> set[str]:
        found = set(asked)
        asked.clear()
        return found

    raw = {"one": 1, "many": [[1]], "named": {"a": 1}, "kept": {"one": 1}, "all_kept": [{"one": 1}]}
    document = Asked(**raw)
    assert len(asked) == 5 and origins() == {"__init__"}
    document.to_mongo()
    assert origins() == {""}
    state = document.__getstate__()
    assert len(asked) == 5 and origins() == {"__getstate__"}
    document.__setstate__(state)
    assert len(asked) == 5 and origins() == {"_from_son"}
    document.save()
    origins()
    Asked.objects.get()
    assert len(asked) == 5 and origins() == {"_from_son"}
    document.reload()
    assert origins() == {"_from_son"}
    Asked.objects(kept={"one": 1}, named={"a": 1}).count()
    assert origins() == {"prepare_query_value"}
    Asked.one.to_python(1)
    assert origins() == {""}


@proves("_set_owner_document")
def test_a_field_is_told_its_document_when_the_class_is_made() -> None:
    owners = []

    class Told(BaseField):
        def _set_owner_document(self, owner_document: Any) -> None:
            owners.append(owner_document)
            super()._set_owner_document(owner_document)

    class Telling(Document):
        value = Told()

    assert owners == [Telling] and Telling.value.owner_document is Telling


@proves("_validate", "_validate_choices")
def test_a_document_validates_its_fields_and_these_their_choices_by_known_methods() -> None:
    calls: list[str] = []

    class Checked(StringField):
        def _validate(self, value: Any, **options: Any) -> None:
            calls.append("validate")
            super()._validate(value, **options)

        def _validate_choices(self, value: Any) -> None:
            calls.append("choices")

    class Checking(Document):
        one = Checked(choices=["a"])
        many = ListField(Checked(choices=["a"]))

    Checking(one="not one", many=["of", "them"]).validate()

    assert calls == ["validate", "choices"] * 3


@proves("_auto_gen")
def test_a_field_that_generates_may_be_required_and_empty() -> None:
    class Generating(BaseField):
        _auto_gen = True

        def generate(self) -> str:
            return "made"

    class Generated(Document):
        value = Generating(required=True)

    document = Generated()
    document.validate()
    assert document.to_mongo()["value"] == "made" and BaseField._auto_gen is False


# Querysets


@proves("_query", "_query_obj", "_cls_query", "_document", "_collection", "_ordering")
def test_a_queryset_is_its_query_document_collection_and_order(mongo_db: Any) -> None:
    collection = mongo_db.db["cottage"]
    houses = QuerySet(Cottage, collection)

    assert houses._document is Cottage and houses._collection is collection
    assert houses._cls_query == {"_cls": {"$in": ("Cottage", "Cottage.Mansion")}}
    assert houses(name="x")._query == {"nm": "x", **houses._cls_query}
    assert houses(Q(name="x"))._query_obj.to_query(Cottage) == {"nm": "x"}
    assert houses(__raw__={"_cls": "Cottage"})._query == {
        "$and": [houses._cls_query, {"_cls": "Cottage"}]
    }
    assert QuerySet(Mansion, collection)._cls_query == {"_cls": "Cottage.Mansion"}
    assert QuerySet(Hut, collection)._cls_query == {}
    assert houses._ordering is None and houses.order_by()._ordering == []
    assert houses.order_by("-name", "best__number")._ordering == [("nm", -1), ("b.n", 1)]
    assert BaseQuerySet(Cottage, collection)(name="x")._query == houses(name="x")._query


@proves("_skip", "_limit", "_empty", "_where_clause", "_scalar", "_none", "_as_pymongo")
def test_a_queryset_keeps_what_narrows_it(mongo_db: Any) -> None:
    houses = QuerySet(Cottage, mongo_db.db["cottage"])
    unset = [houses._skip, houses._limit, houses._where_clause]

    assert unset == [None] * 3
    assert not (houses._empty or houses._scalar or houses._none or houses._as_pymongo)
    assert houses.skip(0)._skip == 0 and houses.limit(0)._limit == 0
    assert (houses[1:3]._skip, houses[1:3]._limit, houses[1:1]._empty) == (1, 2, True)
    assert houses.where("x")._where_clause == "x" and houses.scalar("name")._scalar == ["name"]
    assert houses.none()._none and houses.as_pymongo()._as_pymongo


@proves("_hint", "_collation", "_comment", "_max_time_ms")
def test_a_queryset_keeps_its_options(mongo_db: Any) -> None:
    houses = QuerySet(Cottage, mongo_db.db["cottage"])

    assert houses._hint == -1 and houses.hint("_id_")._hint == "_id_"
    assert [houses._collation, houses._comment, houses._max_time_ms] == [None] * 3
    assert houses.collation({"locale": "en"})._collation == {"locale": "en"}
    assert houses.comment("why")._comment == "why" and houses.max_time_ms(5)._max_time_ms == 5


@proves("_loaded_fields", "_fields_to_dbfields")
def test_a_queryset_knows_the_names_of_its_fields_in_the_database(mongo_db: Any) -> None:
    houses = QuerySet(Cottage, mongo_db.db["cottage"])

    assert not houses._loaded_fields
    assert houses.only("name")._loaded_fields.as_dict() == {"nm": 1, "_cls": 1}
    assert houses.exclude("name", "id")._loaded_fields.as_dict() == {"nm": 0, "_id": 0}
    assert houses._fields_to_dbfields(["best.number"]) == ["b.n"]
    assert houses._fields_to_dbfields(["pk"]) == ["_id"]
    assert houses._fields_to_dbfields(["pool"]) == ["pl"]  # of a subclass
    with pytest.raises(LookUpError):
        houses._fields_to_dbfields(["nonesuch"])


def test_updates_are_translated_to_operators_and_names_of_the_database() -> None:
    assert transform.update(Cottage, set__name="x", inc__best__number=1) == {
        "$set": {"nm": "x"},
        "$inc": {"b.n": 1},
    }
    assert transform.update(Cottage, set_on_insert__district=1) == {"$setOnInsert": {"d": 1}}
    assert {"set", "inc", "dec", "push", "set_on_insert", "max"} <= UPDATE_OPERATORS
    with pytest.raises(InvalidQueryError):
        transform.update(Cottage, set__nonesuch=1)


# pymongo


@contextlib.contextmanager
def client_of(mongo_db: Any, kind: Any = pymongo.MongoClient, **options: Any) -> Iterator[Any]:
    with kind(mongo_db.uri, **options) as client:
        client.admin.command("ping")
        yield client


@proves("_get_bound_session")
def test_a_client_knows_the_session_bound_to_the_context(mongo_db: Any) -> None:
    with client_of(mongo_db) as client:
        assert client._get_bound_session() is None
        with client.start_session() as session, session.bind():
            assert client._get_bound_session() is session
        assert client._get_bound_session() is None


@proves("_topology", "_servers", "_monitor", "_rtt_monitor", "_srv_monitor", "_executor")
@proves("_kill_cursors_executor", "_closed", "_timeout", "_thread")
def test_a_client_s_threads_are_found_by_its_monitors(mongo_db: Any) -> None:
    before = set(threading.enumerate())
    with client_of(mongo_db) as client:
        (server,) = client._topology._servers.values()
        assert client._topology._srv_monitor is None and not client._closed
        assert client._timeout is None
        executors = [
            client._kill_cursors_executor,
            server._monitor._executor,
            server._monitor._rtt_monitor._executor,
        ]
        running = [executor._thread for executor in executors if executor._thread is not None]
        idents = {thread.ident for thread in threading.enumerate()}
        assert running and {thread.ident for thread in running} <= idents
        assert all(isinstance(thread.run.__self__, threading.Thread) for thread in running)
    assert client._closed
    for executor in executors:
        executor.join(10)
    assert set(threading.enumerate()) <= before


@proves("_retry_internal", "_run_operation", "_select_server", "_close_cursor_now")
@proves("_server_property")
def test_operations_of_a_client_pass_known_methods(mongo_db: Any) -> None:
    passed = []

    def noting(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            passed.append(name)
            return getattr(super(Noting, self), name)(*args, **kwargs)

        return method

    names = ["_retry_internal", "_run_operation", "_select_server", "_close_cursor_now"]
    names.append("_server_property")
    Noting: Any = type("Noting", (pymongo.MongoClient,), {name: noting(name) for name in names})
    with client_of(mongo_db, Noting) as client:
        collection = client[mongo_db.name]["x"]
        for operation in (
            lambda: collection.insert_many([{}, {}, {}]),
            lambda: collection.find_one_and_delete({}),
            lambda: collection.count_documents({}),
            lambda: client.admin.command("ping"),
        ):
            passed.clear()
            operation()
            assert "_retry_internal" in passed and "_select_server" in passed
        passed.clear()
        assert client.is_primary and client.address
        assert set(passed) == {"_server_property"} and len(passed) == 2
        passed.clear()
        with collection.find(batch_size=1) as cursor:
            next(cursor)
        assert {"_run_operation", "_retry_internal", "_close_cursor_now"} <= set(passed)


FORKING = """
import os, sys, pymongo

class Client(pymongo.MongoClient):
    def _after_fork(self):
        before = self._topology._pid
        super()._after_fork()
        print(os.getpid() != parent, before == parent, self._topology._pid, flush=True)

parent = os.getpid()
client = Client(sys.argv[1])
client.admin.command("ping")
child = os.fork()
if not child:
    client._topology._pid = None            # no warning at the first use, which is an error here
    client.admin.command("ping")
    print(client._topology._pid == os.getpid(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
client.close()
"""


@proves("_after_fork", "_pid")
def test_a_forked_child_tells_the_client_before_anything_runs(mongo_db: Any) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKING, mongo_db.uri]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)

    called, used = done.stdout.splitlines()
    assert called.startswith("True True ") and used == "True" and done.returncode == 0


@proves("_pool_class", "_condition_class")
def test_the_classes_of_pools_and_conditions_can_be_given(mongo_db: Any) -> None:
    connected = []

    class Noted(Pool):
        def connect(self, *args: Any, **kwargs: Any) -> Any:
            connected.append(self.is_sdam)
            return super().connect(*args, **kwargs)

    class Condition(threading.Condition):
        pass

    with client_of(mongo_db, _pool_class=Noted, _condition_class=Condition) as client:
        assert connected.count(False) == 1 and True in connected
        assert isinstance(client._topology._condition, Condition)


@proves("_csot")
def test_the_limit_in_force_is_known() -> None:
    assert _csot.get_timeout() is None and _csot.remaining() is None
    with pymongo.timeout(5):
        remaining = _csot.remaining()
        assert _csot.get_timeout() == 5 and remaining is not None and 0 < remaining <= 5
    assert _csot.get_rtt() >= 0


@proves("_OperationCancelled")
def test_a_cancelled_operation_is_a_lost_connection_by_this_name() -> None:
    assert issubclass(_OperationCancelled, AutoReconnect)
    assert _OperationCancelled.__name__ == "_OperationCancelled"


@proves("_add_error_label")
def test_labels_are_added_to_errors_by_one_method() -> None:
    error = AutoReconnect("x")
    error._add_error_label("L")

    assert error.has_error_label("L")
