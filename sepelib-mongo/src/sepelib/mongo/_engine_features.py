"""What a server can do, found out by doing it: version numbers of embedded servers tell nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

__all__ = ["FEATURES", "probe"]


def probe(client: MongoClient[dict[str, Any]], feature: str) -> bool:
    """Whether the server does *feature*; network errors pass. Leaves nothing behind."""
    name = f"sepelib_{os.getpid()}_{os.urandom(6).hex()}"
    try:
        return FEATURES[feature](client[name])
    except OperationFailure:
        return False
    finally:
        client.drop_database(name)


def _transactions(db: Database[dict[str, Any]]) -> bool:
    db.things.insert_one({"_id": 1})
    with db.client.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 2}, session=session)
        session.abort_transaction()
    return db.things.count_documents({}) == 1


def _change_streams(db: Database[dict[str, Any]]) -> bool:
    with db.things.watch(max_await_time_ms=1000) as stream:
        db.things.insert_one({"_id": 1})
        change = stream.try_next()
    return change is not None and change["operationType"] == "insert"


def _text(db: Database[dict[str, Any]]) -> bool:
    db.things.create_index([("words", "text")])
    db.things.insert_many([{"words": "to be or not"}, {"words": "the question"}])
    return len(list(db.things.find({"$text": {"$search": "question"}}))) == 1


def _where(db: Database[dict[str, Any]]) -> bool:
    db.things.insert_many([{"a": 1}, {"a": 2}])
    return len(list(db.things.find({"$where": "this.a == 2"}))) == 1


def _geo(db: Database[dict[str, Any]]) -> bool:
    db.things.create_index([("at", "2dsphere")])
    far, near = [{"at": {"type": "Point", "coordinates": [x, 0]}} for x in (2, 1)]
    db.things.insert_many([far, near])
    here = {"type": "Point", "coordinates": [0, 0]}
    found = db.things.find({"at": {"$nearSphere": {"$geometry": here}}})
    return [place["at"]["coordinates"][0] for place in found] == [1, 2]


def _profiler(db: Database[dict[str, Any]]) -> bool:
    # mongoengine's query_counter relies on it that reading the profile is recorded as well.
    db.command("profile", 2)
    db.things.find_one()
    db["system.profile"].find_one()
    db.command("profile", 0)
    recorded = set(db["system.profile"].distinct("ns"))
    return recorded >= {f"{db.name}.things", f"{db.name}.system.profile"}


FEATURES: Mapping[str, Callable[[Database[dict[str, Any]]], bool]] = {
    "transactions": _transactions,
    "change_streams": _change_streams,
    "text": _text,
    "where": _where,
    "geo": _geo,
    "profiler": _profiler,
}
