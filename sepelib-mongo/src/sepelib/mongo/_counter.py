"""The document that a sequence counts in, and what is done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pymongo
from bson.codec_options import DEFAULT_CODEC_OPTIONS
from bson.int64 import Int64
from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError

from sepelib.mongo.errors import SequenceLostError
from sepelib.util.deadline import clip

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

__all__ = ["Counter", "integer", "limited", "own_session", "positive"]

# An answer that is not in the journals of a majority can be lost with a server, and the ids that it
# gave out would be given out again.
DURABLE = WriteConcern(w="majority", j=True)


class Counter:
    """The document that counts, and what is done with it."""

    def __init__(self, name: str, db_alias: str, collection: str, start: int) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a sequence is a text, not {name!r}")
        self.name = name
        self.db_alias = db_alias
        self.collection = collection
        self.start = integer(start, "a start")
        self.filter: Mapping[str, str] = {"_id": name}

    def collection_of(self, database: Database[dict[str, Any]]) -> Collection[dict[str, Any]]:
        return database.get_collection(
            self.collection,
            codec_options=DEFAULT_CODEC_OPTIONS,
            read_preference=ReadPreference.PRIMARY,
            write_concern=DURABLE,
        )

    def create(
        self, counters: Collection[dict[str, Any]], session: ClientSession, *, last: int
    ) -> None:
        """Unless it exists."""
        with suppress(DuplicateKeyError):
            counters.insert_one({"_id": self.name, "next": Int64(last)}, session=session)

    def count(
        self, counters: Collection[dict[str, Any]], session: ClientSession, n: int
    ) -> int | None:
        """The last of the next *n* ids; None if there is no counter."""
        counter = counters.find_one_and_update(
            self.filter,
            {"$inc": {"next": Int64(n)}},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return None if counter is None else int(counter["next"])

    def raise_to(
        self, counters: Collection[dict[str, Any]], session: ClientSession, value: int
    ) -> bool:
        """False if there is no counter."""
        update = {"$max": {"next": Int64(value)}}
        return counters.update_one(self.filter, update, session=session).matched_count > 0

    def lost(self, last: int | None) -> SequenceLostError:
        return SequenceLostError(self.name, self.collection, last)


@contextmanager
def own_session(counters: Collection[dict[str, Any]]) -> Iterator[ClientSession]:
    # Not one that the caller may have bound, with its transaction.
    client = counters.database.client
    with limited(), client.start_session(causal_consistency=False) as session:
        yield session


def limited() -> AbstractContextManager[None]:
    seconds = clip(None)
    return nullcontext() if seconds is None else pymongo.timeout(seconds)


def integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an integer, not {value!r}")
    return value


def positive(value: object, what: str) -> int:
    if (number := integer(value, what)) < 1:
        raise ValueError(f"{what} is a number from 1 on, not {number}")
    return number
