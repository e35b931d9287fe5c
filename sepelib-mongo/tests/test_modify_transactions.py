"""find_and_modify inside transactions: what is undone, what is raised, what is tried again."""

from __future__ import annotations

from typing import Any

import pymongo
import pymongo.monitoring
import pytest
from mongoengine import Document, IntField, StringField
from mongoengine.errors import NotUniqueError
from mongoengine.queryset import QuerySet
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, OperationFailure

from sepelib.mongo import find_and_modify

pytestmark = [
    pytest.mark.usefixtures("accounts"),
    pytest.mark.mongo(requires=["transactions"]),
]


class Purse(Document):
    name = StringField(unique=True)
    sum = IntField()


@pytest.fixture
def accounts(mongo_db: Any) -> None:
    # A collection that is made inside a transaction is another thing to fail.
    Purse(name="a", sum=10).save()
    Purse(name="b", sum=10).save()


def stored() -> dict[str, int]:
    return {account.name: account.sum for account in Purse.objects}


def test_what_a_transaction_changes_counts_with_its_commit(mongo_db: Any) -> None:
    with mongo_db.client.start_session() as session, session.start_transaction():
        taken = find_and_modify(Purse, {"name": "a"}, {"dec__sum": 3}, new=True, session=session)
        find_and_modify(Purse, {"name": "b"}, {"inc__sum": 3}, session=session)
        find_and_modify(Purse, {"name": "c"}, {"inc__sum": 1}, upsert=True, session=session)
        again = find_and_modify(Purse, {"name": "a"}, {"inc__sum": 0}, session=session)
        outside = stored()

    assert (taken.sum, again.sum) == (7, 7)
    assert outside == {"a": 10, "b": 10} and stored() == {"a": 7, "b": 13, "c": 1}


def test_what_an_aborted_transaction_changed_is_undone(mongo_db: Any) -> None:
    with mongo_db.client.start_session() as session:
        session.start_transaction()
        find_and_modify(Purse, {"name": "a"}, {"dec__sum": 3}, session=session)
        find_and_modify(Purse, {"name": "b"}, remove=True, session=session)
        session.abort_transaction()

    assert stored() == {"a": 10, "b": 10}


def test_a_conflict_passes_as_pymongo_s_error_with_its_label(mongo_db: Any) -> None:
    client = mongo_db.client
    with client.start_session() as first, client.start_session() as second:
        first.start_transaction()
        find_and_modify(Purse, {"name": "a"}, {"inc__sum": 1}, session=first)
        second.start_transaction()

        with pytest.raises(OperationFailure) as caught:
            find_and_modify(Purse, {"name": "a"}, {"inc__sum": 1}, session=second)

        assert caught.value.has_error_label("TransientTransactionError")
        second.abort_transaction()
        first.commit_transaction()
    assert stored()["a"] == 11


@pytest.mark.parametrize("bound", [False, True])
def test_with_transaction_tries_again_after_a_conflict(mongo_db: Any, bound: bool) -> None:
    other = mongo_db.client.start_session()
    other.start_transaction()
    find_and_modify(Purse, {"name": "a"}, {"inc__sum": 1}, session=other)
    tries = 0

    def take(session: ClientSession) -> Any:
        nonlocal tries
        tries += 1
        try:
            return find_and_modify(
                Purse,
                {"name": "a"},
                {"inc__sum": 1},
                new=True,
                session=None if bound else session,
            )
        finally:
            if tries == 1:
                other.commit_transaction()

    with mongo_db.client.start_session() as session:
        if bound:
            with session.bind():
                account = session.with_transaction(take)
        else:
            account = session.with_transaction(take)
    other.end_session()

    assert (tries, account.sum, stored()["a"]) == (2, 12, 12)


def test_a_duplicate_key_inside_is_neither_translated_nor_tried_again(mongo_db: Any) -> None:
    class Count(pymongo.monitoring.CommandListener):
        upserts = 0

        def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
            self.upserts += event.command_name == "findAndModify"

        def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
            pass

        def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
            pass

    count = Count()
    query, update = {"name": "a", "sum": 99}, {"inc__sum": 1}
    with pymongo.MongoClient[Any](mongo_db.uri, event_listeners=[count]) as client:
        accounts = QuerySet(Purse, client[mongo_db.name]["purse"])
        with client.start_session() as session:
            session.start_transaction()
            with pytest.raises(DuplicateKeyError):
                find_and_modify(accounts, query, update, upsert=True, session=session)
            assert count.upserts == 1
            session.abort_transaction()

            with pytest.raises(NotUniqueError):  # a session alone is no transaction
                find_and_modify(accounts, query, update, upsert=True, session=session)


def test_a_failed_command_inside_is_pymongo_s_error(mongo_db: Any) -> None:
    with mongo_db.client.start_session() as session, session.bind():
        session.start_transaction()
        with pytest.raises(OperationFailure) as caught:
            find_and_modify(Purse, {"name": "a"}, {"$inc": {"name": 1}})
        session.abort_transaction()

    assert type(caught.value) is OperationFailure and caught.value.code == 14


def test_a_write_concern_inside_is_refused_as_it_would_have_no_effect(mongo_db: Any) -> None:
    with (
        mongo_db.client.start_session() as session,
        session.start_transaction(),
        pytest.raises(ValueError, match="transaction"),
    ):
        find_and_modify(Purse, {"name": "a"}, {"sum": 0}, session=session, write_concern={"w": 1})

    assert stored()["a"] == 10
