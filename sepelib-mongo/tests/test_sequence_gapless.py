import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pymongo import WriteConcern
from pymongo.errors import OperationFailure

from sepelib.mongo import GaplessSequence, MockDatabase, Sequence, SequenceLostError
from sepelib.mongo.sequence import forget_counters
from sepelib.util.deadline import DeadlineExceeded, deadline

LIMIT = 60.0  # seconds, for what should take far less

pytestmark = pytest.mark.mongo(requires=["transactions"])


def counters(mongo_db: MockDatabase) -> Any:
    return mongo_db.db["sepelib.sequences"]


def in_transaction(mongo_db: MockDatabase, call: Callable[[Any], Any]) -> Any:
    with mongo_db.client.start_session() as session:
        return session.with_transaction(call, write_concern=WriteConcern("majority", j=True))


def crowd(*calls: Callable[[], Any]) -> list[Any]:
    """What each returns or raises; all begin at once, in threads or greenlets."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Event()

    def run(number: int, call: Callable[[], Any]) -> None:
        gate.wait(LIMIT)
        try:
            results[number] = call()
        except Exception as error:
            results[number] = error

    threads = [
        threading.Thread(target=run, args=(n, call), daemon=True) for n, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    return results


def test_numbers_count_up_from_the_start(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices", start=100)

    assert [in_transaction(mongo_db, invoices.next) for _ in range(3)] == [100, 101, 102]
    assert counters(mongo_db).count_documents({"_id": "invoices", "next": {"$type": "long"}}) == 1


def test_an_aborted_transaction_gives_its_number_back(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices")

    for expected in (1, 1):
        with mongo_db.client.start_session() as session:
            session.start_transaction()
            assert invoices.next(session) == expected
            session.abort_transaction()
    assert in_transaction(mongo_db, invoices.next) == 1
    assert in_transaction(mongo_db, invoices.next) == 2


def test_one_transaction_can_take_several_numbers(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices")

    taken = in_transaction(mongo_db, lambda s: [invoices.next(s) for _ in range(3)])

    assert taken == [1, 2, 3]
    assert in_transaction(mongo_db, invoices.next) == 4


def test_without_an_active_transaction_nothing_is_counted(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices")

    with mongo_db.client.start_session() as session:
        for usage in (session, None):
            with pytest.raises(ValueError, match=r"invoices.*transaction"):
                invoices.next(usage)
        with session.start_transaction():
            invoices.next(session)
        with pytest.raises(ValueError, match="invoices"):
            invoices.next(session)
    assert counters(mongo_db).find_one() == {"_id": "invoices", "next": 1}


def test_a_conflict_has_the_label_by_which_transactions_are_tried_again(
    mongo_db: MockDatabase,
) -> None:
    invoices = GaplessSequence("invoices")
    in_transaction(mongo_db, invoices.next)

    with mongo_db.client.start_session() as first, mongo_db.client.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        assert invoices.next(first) == 2
        with pytest.raises(OperationFailure) as caught:
            invoices.next(second)
        assert caught.value.has_error_label("TransientTransactionError")
        first.commit_transaction()
    assert in_transaction(mongo_db, invoices.next) == 3


@pytest.mark.parametrize("is_used", [True, False])
def test_ten_writers_get_numbers_without_gaps_though_some_abort(
    mongo_db: MockDatabase, is_used: bool
) -> None:
    if is_used:
        in_transaction(mongo_db, GaplessSequence("invoices").next)
    mongo_db.db.create_collection("issued")

    def issue(number_of_writer: int) -> Callable[[], None]:
        invoices = GaplessSequence("invoices")

        def write(session: Any) -> None:
            number = invoices.next(session)
            mongo_db.db["issued"].insert_one({"_id": number}, session=session)
            if number_of_writer % 3 == 0 and number % 2:
                raise LookupError("no customer")

        def several() -> None:
            for _ in range(3):
                try:
                    in_transaction(mongo_db, write)
                except LookupError:
                    time.sleep(0)

        return several

    assert crowd(*[issue(n) for n in range(10)]) == [None] * 10
    issued = sorted(document["_id"] for document in mongo_db.db["issued"].find())
    first = 2 if is_used else 1
    assert len(issued) >= 18
    assert issued == list(range(first, first + len(issued)))
    assert Sequence("invoices").last() == issued[-1]


def test_a_transaction_older_than_the_counter_is_tried_again(mongo_db: MockDatabase) -> None:
    mongo_db.db["orders"].insert_one({"_id": 1})
    invoices = GaplessSequence("invoices")
    tries = []

    def issue(session: Any) -> int:
        tries.append(1)
        mongo_db.db["orders"].find_one({"_id": 1}, session=session)
        return invoices.next(session)

    assert in_transaction(mongo_db, issue) == 1
    assert 1 <= len(tries) <= 2  # a server whose snapshots are looser needs one


def test_a_counter_that_vanished_after_its_use_is_not_made_again(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices")
    in_transaction(mongo_db, invoices.next)
    counters(mongo_db).delete_many({})

    with pytest.raises(SequenceLostError, match="invoices"):
        in_transaction(mongo_db, invoices.next)
    assert counters(mongo_db).count_documents({}) == 0

    forget_counters()
    assert in_transaction(mongo_db, invoices.next) == 1


def test_a_deadline_that_is_over_counts_nothing(mongo_db: MockDatabase) -> None:
    invoices = GaplessSequence("invoices")

    with (
        mongo_db.client.start_session() as session,
        session.start_transaction(),
        deadline(0.0),
        pytest.raises(DeadlineExceeded),
    ):
        invoices.next(session)
    assert in_transaction(mongo_db, invoices.next) == 1


def test_a_gapless_sequence_and_a_sequence_share_a_counter(mongo_db: MockDatabase) -> None:
    invoices, others = GaplessSequence("invoices"), Sequence("invoices")

    assert others.next() == 1
    assert in_transaction(mongo_db, invoices.next) == 2
    assert others.next() == 3
