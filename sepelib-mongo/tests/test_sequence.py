import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mongoengine
import pymongo
import pytest
from bson import Int64
from mongoengine.connection import ConnectionFailure
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from sepelib.mongo import Sequence, SequenceLostError
from sepelib.mongo.sequence import forget_counters
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import FlakyProxy

LIMIT = 20.0  # seconds, for what should take far less


class Commands(pymongo.monitoring.CommandListener):
    """What the client has sent, in order; can keep an answer from whoever has asked."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.open.set()
        self.answered = threading.Event()

    def started(self, event: Any) -> None:
        if event.command_name in ("findAndModify", "insert", "update", "find"):
            self.sent.append(dict(event.command))

    def succeeded(self, event: Any) -> None:
        if event.command_name == "findAndModify" and not self.open.is_set():
            self.answered.set()
            self.open.wait(LIMIT)

    def failed(self, event: Any) -> None: ...

    @property
    def names(self) -> list[str]:
        return [next(iter(command)) for command in self.sent]


Reach = Callable[..., str]


@pytest.fixture
def reach(mongo_db: Any) -> Iterator[Reach]:
    """Connects another alias to the same database, with a client of other options."""
    aliases: list[str] = []

    def connect(
        *,
        via: tuple[str, int] | None = None,
        name: str | None = None,
        alias: str | None = None,
        **options: Any,
    ) -> str:
        alias = alias or f"reach-{len(aliases)}"
        login = parse_uri(mongo_db.uri)
        host, port = via or mongo_db.client.address
        aliases.append(alias)
        mongoengine.connect(
            name or mongo_db.name,
            alias=alias,
            host=host,
            port=port,
            username=login["username"],
            password=login["password"],
            authentication_source=login["options"].get("authsource"),
            directConnection=True,
            uuidRepresentation="standard",
            appname=alias,  # clients of equal settings would be one
            **options,
        )
        return alias

    yield connect
    for alias in aliases:
        mongoengine.disconnect(alias)


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def proxy(mongo_db: Any) -> Iterator[FlakyProxy]:
    with FlakyProxy(*mongo_db.client.address) as proxy:
        yield proxy


def counters(mongo_db: Any) -> Any:
    return mongo_db.db["sepelib.sequences"]


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


def taking(sequence: Sequence, count: int) -> Callable[[], list[int]]:
    return lambda: [sequence.next() for _ in range(count)]


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


# The counter.


def test_a_new_sequence_counts_from_one(mongo_db: Any) -> None:
    tickets = Sequence("tickets")

    assert [tickets.next(), tickets.next(), Sequence("tickets").next()] == [1, 2, 3]


def test_the_counter_is_a_document_of_name_and_last_id_in_64_bits(mongo_db: Any) -> None:
    Sequence("tickets").next()

    assert list(counters(mongo_db).find()) == [{"_id": "tickets", "next": 1}]
    assert counters(mongo_db).count_documents({"next": {"$type": "long"}}) == 1


def test_ids_go_on_beyond_32_bits(mongo_db: Any) -> None:
    tickets = Sequence("tickets", start=2**31 - 1)

    assert [tickets.next(), tickets.next()] == [2**31 - 1, 2**31]
    assert type(tickets.next()) is int and type(tickets.last()) is int


def test_sequences_of_other_names_and_collections_count_for_themselves(mongo_db: Any) -> None:
    first, second = Sequence("a"), Sequence("b")
    elsewhere = Sequence("a", collection="elsewhere")

    assert [first.next(), first.next(), second.next(), elsewhere.next()] == [1, 2, 1, 1]
    assert mongo_db.db["elsewhere"].count_documents({}) == 1


@pytest.mark.parametrize("start", [1000, 0, -5])
def test_the_start_is_the_first_id_and_matters_only_once(mongo_db: Any, start: int) -> None:
    assert Sequence("tickets", start=start).next() == start
    assert Sequence("tickets", start=77).next() == start + 1


def test_a_sequence_takes_over_from_a_sequence_field_of_mongoengine(mongo_db: Any) -> None:
    class Person(mongoengine.Document):
        id = mongoengine.SequenceField(primary_key=True)
        meta = {"collection": "person"}

    assert [Person().save().id for _ in range(3)] == [1, 2, 3]

    people = Sequence("person.id", collection="mongoengine.counters", start=500)
    assert people.last() == 3
    assert people.next() == 4
    assert Person().save().id == 5


def test_a_counter_whose_number_a_shell_has_written_gives_integers(mongo_db: Any) -> None:
    counters(mongo_db).insert_one({"_id": "tickets", "next": 41.0})

    number = Sequence("tickets").next()
    assert number == 42 and type(number) is int


def test_the_first_use_is_an_insert_and_never_an_upsert(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    tickets = Sequence("tickets", db_alias=reach(event_listeners=[commands]), start=7)

    assert [tickets.next(), tickets.next()] == [7, 8]
    assert commands.names == ["findAndModify", "insert", "findAndModify", "findAndModify"]
    assert not any(command.get("upsert") for command in commands.sent)


def test_every_write_is_acknowledged_by_the_journals_of_a_majority(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    alias = reach(event_listeners=[commands], w=1, journal=False)
    one, ten = Sequence("one", db_alias=alias), Sequence("ten", db_alias=alias, block_size=10)

    one.next(), ten.next(), one.reserve(3), one.advance_to(100)
    Sequence("new", db_alias=alias).advance_to(100)

    assert set(commands.names) == {"findAndModify", "insert", "update"}
    assert len(commands.sent) == 11
    for command in commands.sent:
        assert command["writeConcern"] == {"w": "majority", "j": True}


def test_reads_use_the_primary_whatever_the_client_prefers(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    alias = reach(event_listeners=[commands], readPreference="secondaryPreferred")
    tickets = Sequence("tickets", db_alias=alias)

    assert tickets.next() == tickets.last()
    # Asked of a single member, "the primary" is sent as "primaryPreferred".
    assert commands.names[-1] == "find"
    preference = commands.sent[-1].get("$readPreference", {"mode": "primary"})
    assert preference["mode"] in ("primary", "primaryPreferred")


def test_options_of_the_client_for_documents_do_not_matter(mongo_db: Any, reach: Reach) -> None:
    from bson.raw_bson import RawBSONDocument

    tickets = Sequence("tickets", db_alias=reach(document_class=RawBSONDocument))

    assert tickets.next() == tickets.last() == 1


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"name": ""}),
        (ValueError, {"name": None}),
        (ValueError, {"block_size": 0}),
        (TypeError, {"block_size": 1.5}),
        (TypeError, {"block_size": True}),
        (TypeError, {"start": "1"}),
    ],
)
def test_what_is_no_sequence_is_refused_when_it_is_made(
    error: type[Exception], arguments: dict[str, Any]
) -> None:
    with pytest.raises(error):
        Sequence(**{"name": "tickets", **arguments})


def test_a_sequence_needs_its_connection_only_when_it_is_used() -> None:
    tickets = Sequence("tickets", db_alias="nobody-connects-this")

    with pytest.raises(ConnectionFailure, match="nobody-connects-this"):
        tickets.next()


def test_a_copied_sequence_is_the_same_one(mongo_db: Any) -> None:
    tickets = Sequence("tickets", block_size=10)

    assert copy.deepcopy(tickets) is tickets


# reserve(), last(), advance_to().


def test_reserved_ids_are_in_a_row(mongo_db: Any) -> None:
    tickets = Sequence("tickets")

    assert tickets.next() == 1
    assert tickets.reserve(5) == range(2, 7)
    assert tickets.reserve(1) == range(7, 8)
    assert tickets.next() == 8


def test_reserved_ids_are_beside_the_block(mongo_db: Any) -> None:
    tickets = Sequence("tickets", block_size=10)

    assert tickets.next() == 1
    assert tickets.reserve(5) == range(11, 16)
    assert [tickets.next() for _ in range(10)] == [*range(2, 11), 16]


def test_reserving_is_one_round_trip_and_the_first_use_may_be_one(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    tickets = Sequence("tickets", db_alias=reach(event_listeners=[commands]), start=100)

    assert tickets.reserve(1000) == range(100, 1100)
    before = len(commands.sent)
    assert tickets.reserve(1000) == range(1100, 2100)
    assert len(commands.sent) == before + 1


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_id_cannot_be_reserved(mongo_db: Any, n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        Sequence("tickets").reserve(n)
    assert counters(mongo_db).count_documents({}) == 0


def test_the_last_id_is_none_before_the_first(mongo_db: Any) -> None:
    tickets = Sequence("tickets", start=10)

    assert tickets.last() is None
    counters(mongo_db).insert_one({"_id": "tickets", "next": 9})  # somebody died in between
    assert tickets.last() is None
    assert tickets.next() == tickets.last() == 10


def test_the_last_id_is_that_of_all_processes_blocks_included(mongo_db: Any) -> None:
    mine, yours = Sequence("tickets"), Sequence("tickets", block_size=10)

    mine.next(), yours.next()

    assert mine.last() == yours.last() == 11


def test_advancing_only_raises(mongo_db: Any) -> None:
    tickets = Sequence("tickets")

    tickets.next()
    tickets.advance_to(100)
    assert (tickets.last(), tickets.next()) == (100, 101)
    tickets.advance_to(50)
    assert tickets.next() == 102


def test_a_sequence_can_begin_by_advancing(mongo_db: Any) -> None:
    tickets = Sequence("tickets", start=10)

    tickets.advance_to(5)
    assert tickets.last() is None
    tickets.advance_to(20)
    assert (tickets.last(), tickets.next()) == (20, 21)


def test_advancing_skips_what_is_left_of_the_own_block(mongo_db: Any) -> None:
    tickets = Sequence("tickets", block_size=10)

    assert tickets.next() == 1
    tickets.advance_to(7)
    assert [tickets.next() for _ in range(3)] == [8, 9, 10]
    tickets.advance_to(30)
    assert tickets.next() == 31


def test_a_block_that_was_counted_before_the_advance_is_skipped_too(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    tickets = Sequence("tickets", db_alias=reach(event_listeners=[commands]), block_size=10)
    assert tickets.reserve(1) == range(1, 2)
    commands.open.clear()

    def advance() -> None:
        assert commands.answered.wait(LIMIT)
        tickets.advance_to(100)
        commands.open.set()

    [number], _ = crowd(taking(tickets, 1), advance)

    assert number == 101


# Guarantees.


def test_fifty_greenlets_get_each_id_once_and_in_order(mongo_db: Any) -> None:
    tickets = Sequence("tickets")

    got = crowd(*[taking(tickets, 10)] * 50)

    assert sorted(number for ids in got for number in ids) == list(range(1, 501))
    assert all(ids == sorted(ids) for ids in got)


def test_fifty_objects_may_be_the_first_at_once(mongo_db: Any) -> None:
    got = crowd(*[taking(Sequence("tickets", start=1000), 3) for _ in range(50)])

    assert sorted(number for ids in got for number in ids) == list(range(1000, 1150))
    assert counters(mongo_db).count_documents({}) == 1


def test_an_id_is_higher_than_all_that_somebody_else_had_before(mongo_db: Any) -> None:
    several = [Sequence("tickets") for _ in range(3)]

    got = [sequence.next() for _ in range(5) for sequence in several]

    assert got == sorted(got)


def test_a_block_is_one_round_trip_however_many_ask(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    alias = reach(event_listeners=[commands])
    Sequence("tickets", db_alias=alias).reserve(1)
    before = len(commands.sent)
    tickets = Sequence("tickets", db_alias=alias, block_size=100)

    got = crowd(*[taking(tickets, 20)] * 50)

    assert commands.names[before:] == ["findAndModify"] * 10
    assert sorted(number for ids in got for number in ids) == list(range(2, 1002))
    assert all(ids == sorted(ids) for ids in got)


def test_more_may_wait_than_a_block_has_ids(mongo_db: Any) -> None:
    tickets = Sequence("tickets", block_size=3)

    got = crowd(*[taking(tickets, 4)] * 50)

    assert sorted(number for ids in got for number in ids) == list(range(1, 201))


def test_blocks_of_two_processes_never_overlap(mongo_db: Any) -> None:
    mine, yours = Sequence("tickets", block_size=10), Sequence("tickets", block_size=10)

    first, second = crowd(taking(mine, 55), taking(yours, 55))

    assert first == sorted(first) and second == sorted(second)
    assert len({*first, *second}) == 110
    assert Sequence("tickets").last() == 120  # at most nine of each are left over


def test_a_transaction_that_is_aborted_gives_no_id_back(mongo_db: Any) -> None:
    tickets, blocks = Sequence("tickets"), Sequence("blocks", block_size=2)
    got, reserved = [], []

    with mongo_db.client.start_session() as session, session.bind(end_session=False):
        for _ in range(3):
            with session.start_transaction():
                mongo_db.db["other"].insert_one({})
                got.append((tickets.next(), blocks.next()))
                reserved.append(tickets.reserve(1)[0])
                assert tickets.last() == reserved[-1]
                tickets.advance_to(reserved[-1])
                session.abort_transaction()

    assert got == [(1, 1), (3, 2), (5, 3)] and reserved == [2, 4, 6]


def test_a_lost_answer_is_asked_for_again_and_counts_once(
    mongo_db: Any, proxy: FlakyProxy, reach: Reach
) -> None:
    tickets = Sequence("tickets", db_alias=reach(via=proxy.address))
    assert tickets.next() == 1

    with proxy.lose_answer(lambda data: b"findAndModify" in data):
        assert tickets.next() == 2
    assert tickets.next() == tickets.last() == 3


def test_without_retries_a_lost_answer_leaves_a_gap(
    mongo_db: Any, proxy: FlakyProxy, reach: Reach
) -> None:
    tickets = Sequence("tickets", db_alias=reach(via=proxy.address, retryWrites=False))
    assert tickets.next() == 1

    with (
        proxy.lose_answer(lambda data: b"findAndModify" in data),
        pytest.raises(AutoReconnect),
    ):
        tickets.next()
    assert tickets.next() == 3


# The single refill.


def test_a_refill_that_fails_is_the_failure_of_all_who_wait_and_not_of_the_next(
    mongo_db: Any,
) -> None:
    counters(mongo_db).insert_one({"_id": "tickets", "next": "no number"})
    tickets = Sequence("tickets", block_size=10)

    got = crowd(*[taking(tickets, 1)] * 20)

    assert all(isinstance(error, OperationFailure) for error in got)
    counters(mongo_db).update_one({"_id": "tickets"}, {"$set": {"next": Int64(0)}})
    assert tickets.next() == 1


def test_one_who_has_no_time_does_not_fail_those_who_have(
    mongo_db: Any, proxy: FlakyProxy, reach: Reach
) -> None:
    tickets = Sequence("tickets", db_alias=reach(via=proxy.address), block_size=10)
    tickets.reserve(1)
    proxy.hold_replies()
    hasty_failed = threading.Event()

    def hasty() -> int:
        try:
            with deadline(0.3):
                return tickets.next()
        finally:
            hasty_failed.set()

    def patient() -> int:
        until(lambda: Sequence("tickets").last() == 11)  # the hasty one has asked
        return tickets.next()

    def healer() -> None:
        assert hasty_failed.wait(LIMIT)
        proxy.heal()

    first, second, _ = crowd(hasty, patient, healer)

    assert isinstance(first, DeadlineExceeded | PyMongoError)
    assert isinstance(second, int) and second > 1


@pytest.mark.parametrize("block_size", [1, 10])
@pytest.mark.parametrize("limit", [deadline, pymongo.timeout])
def test_nobody_waits_longer_than_told(
    mongo_db: Any, proxy: FlakyProxy, reach: Reach, limit: Callable[[float], Any], block_size: int
) -> None:
    tickets = Sequence("tickets", db_alias=reach(via=proxy.address), block_size=block_size)
    tickets.reserve(1)
    proxy.hold_replies()
    until_healed = [threading.Event() for _ in range(2)]

    def hasty(ended: threading.Event) -> float:
        began = time.monotonic()
        try:
            with limit(0.2), pytest.raises((DeadlineExceeded, PyMongoError)):
                tickets.next()
            return time.monotonic() - began
        finally:
            ended.set()

    def healer() -> None:
        for ended in until_healed:
            ended.wait(LIMIT)
        proxy.heal()

    *taken, _ = crowd(*[lambda e=e: hasty(e) for e in until_healed], healer)

    assert all(seconds < 5.0 for seconds in taken)


def test_a_deadline_that_is_over_asks_nobody(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    tickets = Sequence("tickets", db_alias=reach(event_listeners=[commands]))

    with deadline(0.0), pytest.raises(DeadlineExceeded):
        tickets.next()
    assert commands.sent == []


def test_a_hand_that_interrupts_takes_another_id(mongo_db: Any) -> None:
    import signal

    tickets = Sequence("tickets", block_size=10**9)
    interrupting: list[int] = []
    got = [tickets.next()]
    former = signal.signal(signal.SIGALRM, lambda *_: interrupting.append(tickets.next()))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        limit = time.monotonic() + LIMIT
        while len(interrupting) < 20 and time.monotonic() < limit:
            got.append(tickets.next())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)

    assert len(interrupting) >= 20
    assert len({*got, *interrupting}) == len(got) + len(interrupting)


# A counter that is lost, another database.


def test_a_counter_that_vanished_after_its_use_is_not_made_again(mongo_db: Any) -> None:
    tickets = Sequence("tickets")
    tickets.reserve(7)
    counters(mongo_db).drop()

    for use in (tickets.next, lambda: tickets.reserve(2), lambda: tickets.advance_to(9)):
        with pytest.raises(SequenceLostError, match="tickets") as caught:
            use()
        assert (caught.value.name, caught.value.last) == ("tickets", 7)
    assert tickets.last() is None
    assert counters(mongo_db).count_documents({}) == 0
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_block_is_used_up_before_the_loss_is_seen(mongo_db: Any) -> None:
    tickets = Sequence("tickets", block_size=3)
    tickets.next()
    counters(mongo_db).drop()

    assert [tickets.next(), tickets.next()] == [2, 3]
    with pytest.raises(SequenceLostError):
        tickets.next()
    assert counters(mongo_db).count_documents({}) == 0


def test_a_counter_that_somebody_has_restored_counts_on(mongo_db: Any) -> None:
    tickets = Sequence("tickets")
    tickets.next()
    counters(mongo_db).drop()
    with pytest.raises(SequenceLostError):
        tickets.next()

    Sequence("tickets").advance_to(50)

    assert tickets.next() == 51


def test_another_database_behind_the_alias_has_another_counter(mongo_db: Any, reach: Reach) -> None:
    alias = reach()
    tickets = Sequence("tickets", db_alias=alias, block_size=10)
    assert [tickets.next(), tickets.next()] == [1, 2]
    other = f"{mongo_db.name}_other"
    mongoengine.disconnect(alias)
    reach(alias=alias, name=other)
    try:
        assert tickets.next() == 1
    finally:
        mongo_db.client.drop_database(other)


def test_the_same_database_connected_anew_goes_on_with_the_block(
    mongo_db: Any, reach: Reach
) -> None:
    alias = reach()
    tickets = Sequence("tickets", db_alias=alias, block_size=10)
    assert tickets.next() == 1
    mongoengine.disconnect(alias)
    reach(alias=alias)

    assert tickets.next() == 2
    mongo_db.db["sepelib.sequences"].drop()
    with pytest.raises(SequenceLostError):
        tickets.reserve(1)


def test_those_who_wait_for_a_block_of_the_former_database_get_one_of_the_new(
    mongo_db: Any, reach: Reach, commands: Commands
) -> None:
    tickets = Sequence("tickets", db_alias=reach(event_listeners=[commands]), block_size=10)
    assert tickets.reserve(100) == range(1, 101)
    commands.open.clear()

    def forget() -> None:
        assert commands.answered.wait(LIMIT)
        counters(mongo_db).delete_many({})
        forget_counters()
        commands.open.set()

    *got, _ = crowd(*[taking(tickets, 1)] * 20, forget)

    assert sorted(number for [number] in got) == list(range(1, 21))


def test_after_the_counters_were_emptied_on_purpose_all_begins_anew(mongo_db: Any) -> None:
    one, ten = Sequence("one"), Sequence("ten", block_size=10)
    one.next(), ten.next()

    counters(mongo_db).delete_many({})
    forget_counters()

    assert (one.next(), ten.next()) == (1, 1)


@pytest.mark.parametrize("empty", ["clean", "drop"])
def test_the_database_for_tests_forgets_the_counters_with_the_documents(
    mongo_db: Any, empty: str
) -> None:
    one, ten = Sequence("one"), Sequence("ten", block_size=10)
    one.next(), ten.next()

    getattr(mongo_db, empty)()

    assert (one.next(), ten.next()) == (1, 1)
