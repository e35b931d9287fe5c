from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gridfs
import mongoengine
import pymongo
import pytest
from pymongo import DeleteOne, IndexModel, InsertOne, MongoClient, monitoring
from pymongo.cursor import CursorType
from pymongo.errors import NetworkTimeout

from sepelib.mongo import connect, mock_database
from sepelib.mongo.connection import MongoDeadlineExceeded
from sepelib.mongo.errors import MongoError
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import FlakyProxy, MemoryRecorder, check_obeys_deadline

ALIAS = "daemon"
Client = MongoClient[dict[str, Any]]


class Started(monitoring.CommandListener):
    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    def last(self, name: str) -> dict[str, Any]:
        return [command for command in self.commands if name in command][-1]


class Line:
    """A client, and the line between it and the server."""

    def __init__(self, mongo_db: Any, proxy: FlakyProxy) -> None:
        self.proxy = proxy
        self.recorder = MemoryRecorder()
        self.started = Started()
        self._db = mongo_db

    def connect(self, *, client_options: Any = None, **settings: Any) -> Client:
        host, port = self.proxy.address
        self.client: Client = connect(
            by_way_of(self._db.uri, f"{host}:{port}"),
            alias=ALIAS,
            name=self._db.name,
            recorder=self.recorder,
            client_options={
                "event_listeners": [self.started],
                **(client_options or {}),
            },
            **settings,
        )
        return self.client

    @property
    def db(self) -> Any:
        return self.client[self._db.name]


@pytest.fixture(scope="module")
def closing() -> Iterator[list[threading.Thread]]:
    """Who close clients behind the tests' backs: it takes half a second, which would add up."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)


@pytest.fixture
def line(mongo_db: Any, closing: list[threading.Thread]) -> Iterator[Line]:
    host, port = mongo_db.client.address
    with FlakyProxy(host, port) as proxy:
        yield Line(mongo_db, proxy)
        proxy.heal()
        if ALIAS in mongoengine.connection._connections:
            client = mongoengine.connection.get_connection(ALIAS)
            closing.append(threading.Thread(target=client.close))
            closing[-1].start()
            wait_until(lambda: ALIAS not in mongoengine.connection._connection_settings)


def operations(client: Client, db: Any) -> dict[str, Callable[[], object]]:
    """Each with a part of its own of what there is to prepare while the server still answers."""
    db.x.insert_many([{"n": number} for number in range(100)])
    cursor = iter(db.x.find(batch_size=2))
    commands = iter(db.x.aggregate([], batchSize=2))
    exhaust = db.x.find(batch_size=2, cursor_type=CursorType.EXHAUST)
    for each in cursor, commands, exhaust:
        next(each)
    changes = db.x.watch()
    changes.try_next()
    session = client.start_session()
    session.start_transaction()
    db.x.insert_one({"in": "transaction"}, session=session)
    files = gridfs.GridFS(db)

    def rest_of(cursor: Any) -> Callable[[], object]:
        return lambda: list(cursor)

    return {
        "insert_one": lambda: db.x.insert_one({}),
        "insert_many": lambda: db.x.insert_many([{}, {}]),
        "a large insert": lambda: db.x.insert_one({"blob": b"x" * (12 << 20)}),
        "update_one": lambda: db.x.update_one({}, {"$set": {"a": 1}}),
        "update_many": lambda: db.x.update_many({}, {"$set": {"a": 1}}),
        "replace_one": lambda: db.x.replace_one({"n": 1}, {}),
        "delete_many": lambda: db.x.delete_many({"n": 2}),
        "bulk_write": lambda: db.x.bulk_write([InsertOne({}), DeleteOne({})]),
        "client.bulk_write": lambda: client.bulk_write([InsertOne({}, namespace=f"{db.name}.x")]),
        "find_one": lambda: db.x.find_one(),
        "find": lambda: list(db.x.find()),
        "getMore": rest_of(cursor),
        "getMore of an aggregation": rest_of(commands),
        "getMore of an exhaust cursor": rest_of(exhaust),
        "find_one_and_update": lambda: db.x.find_one_and_update({}, {"$set": {"a": 1}}),
        "aggregate": lambda: list(db.x.aggregate([{"$match": {}}])),
        "aggregate into": lambda: db.x.aggregate([{"$out": "y"}]),
        "count_documents": lambda: db.x.count_documents({}),
        "estimated_document_count": lambda: db.x.estimated_document_count(),
        "distinct": lambda: db.x.distinct("n"),
        "explain": lambda: db.x.find().explain(),
        "create_index": lambda: db.x.create_index("n"),
        "create_indexes": lambda: db.x.create_indexes([IndexModel("n")]),
        "list_indexes": lambda: list(db.x.list_indexes()),
        "drop_indexes": lambda: db.x.drop_indexes(),
        "create_collection": lambda: db.create_collection("z"),
        "list_collections": lambda: db.list_collection_names(),
        "rename": lambda: db.x.rename("xx"),
        "drop": lambda: db.y.drop(),
        "command": lambda: db.command("ping"),
        "list_databases": lambda: client.list_database_names(),
        "drop_database": lambda: client.drop_database(f"{db.name}_no"),
        "server_info": lambda: client.server_info(),
        "watch": lambda: db.watch(),
        "a change": lambda: next(changes),
        "commit_transaction": lambda: session.commit_transaction(),
        "GridFS": lambda: files.put(b"x"),
    }


def test_every_operation_ends_with_the_deadline(line: Line) -> None:
    client = line.connect()
    calls = operations(client, line.db)
    line.proxy.hold()

    for name, call in calls.items():
        took = time_until_exceeded(name, call, 0.05)
        assert 0.02 < took < 2.0, f"{name} took {took} s"

    line.proxy.heal()
    assert line.db.x.count_documents({}) > 0


def test_a_stopped_server_is_left_alone_at_the_deadline() -> None:
    with mock_database(engine="secantus-rs", alias="stopped") as database:
        assert database.pid is not None
        client: Client = connect(database.uri, alias=ALIAS, name=database.name)
        client[database.name]["x"].insert_one({"_id": 1})
        with client:
            os.kill(database.pid, signal.SIGSTOP)
            try:
                wait_until(lambda: is_stopped(database.pid))
                check_obeys_deadline(client[database.name]["x"].find_one, seconds=0.3, grace=2.0)
            finally:
                os.kill(database.pid, signal.SIGCONT)
            assert client[database.name]["x"].find_one() == {"_id": 1}


def test_an_operation_on_no_server_ends_with_the_deadline_and_not_half_a_second_later(
    line: Line,
) -> None:
    line.connect()
    line.proxy.refuse()
    line.proxy.cut()
    with pytest.raises(pymongo.errors.PyMongoError), pymongo.timeout(0.5):
        line.db.x.find_one()  # now it is known to be away

    def late() -> float:
        since = time.monotonic()
        with pytest.raises(DeadlineExceeded), deadline(0.1):
            line.db.x.find_one()
        return time.monotonic() - since

    assert min(late() for _ in range(5)) < 0.3


def test_what_is_raised_is_all_that_a_caller_could_wait_for(line: Line) -> None:
    line.connect()
    line.proxy.hold()

    with pytest.raises(MongoDeadlineExceeded) as caught, deadline(0.1):
        line.db.x.find_one()

    error = caught.value
    assert isinstance(error, MongoError | NetworkTimeout | DeadlineExceeded)
    assert isinstance(error, TimeoutError) and error.timeout
    assert isinstance(error.__cause__, pymongo.errors.PyMongoError)
    assert str(line.proxy.address[1]) in str(error) and "\n" not in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (MongoDeadlineExceeded, str(error))


def test_a_deadline_that_is_over_sends_nothing(line: Line) -> None:
    line.connect()
    before = line.proxy.received

    with deadline(0.0), pytest.raises(MongoDeadlineExceeded, match="nothing was sent"):
        line.db.x.find_one()

    assert line.recorder.value("mongo_commands", "find", "ok") == 0
    assert line.started.commands[-1].keys().isdisjoint({"find"})
    assert line.proxy.received.requests >= before.requests  # the monitors go on


def test_a_timeout_of_the_callers_own_is_not_called_the_deadline(line: Line) -> None:
    line.connect()
    line.proxy.hold()

    with deadline(20.0), pymongo.timeout(0.1), pytest.raises(NetworkTimeout) as caught:
        line.db.x.find_one()

    assert not isinstance(caught.value, DeadlineExceeded)


def test_the_clients_own_limit_holds_under_a_longer_deadline(line: Line) -> None:
    line.connect(client_options={"timeoutMS": 200})
    line.proxy.hold()
    since = time.monotonic()

    with deadline(20.0), pytest.raises(NetworkTimeout) as caught:
        line.db.x.insert_one({})

    assert time.monotonic() - since < 5.0
    assert not isinstance(caught.value, DeadlineExceeded)


@pytest.mark.parametrize("operation", ["insert_one", "find_one"])
def test_a_client_told_that_it_has_no_limit_obeys_a_deadline(line: Line, operation: str) -> None:
    line.connect(timeout=5.0, client_options={"timeoutMS": 0})
    line.db.x.insert_one({})
    line.proxy.hold()

    assert time_until_exceeded(operation, lambda: getattr(line.db.x, operation)({}), 0.1) < 2.0


@pytest.mark.parametrize("operation", ["update_one", "find_one_and_update"])
def test_a_write_tried_again_under_a_deadline_is_the_same_one_to_the_server(
    line: Line, operation: str
) -> None:
    # By which mongod does it once. The embedded server compares the time that is left, too.
    line.connect()
    line.db.x.insert_one({"_id": 1})
    line.started.commands.clear()

    with deadline(20.0), line.proxy.lose_answer(lambda data: b"$inc" in data):
        getattr(line.db.x, operation)({"_id": 1}, {"$inc": {"n": 1}})

    first, second = line.started.commands
    assert first["lsid"] == second["lsid"] and first["txnNumber"] == second["txnNumber"]
    assert 0 < second["maxTimeMS"] <= first["maxTimeMS"] <= 20_000


def test_a_short_max_time_ms_stays_in_force_under_a_deadline(line: Line) -> None:
    line.connect()

    with deadline(20.0):
        list(line.db.x.find().max_time_ms(50))
        assert line.started.last("find")["maxTimeMS"] == 50
        list(line.db.x.aggregate([], maxTimeMS=60))
        assert line.started.last("aggregate")["maxTimeMS"] == 60
        list(line.db.x.find().max_time_ms(60_000))
        assert 10_000 < line.started.last("find")["maxTimeMS"] <= 20_000


def test_an_attempt_to_connect_is_limited_under_a_longer_deadline(line: Line) -> None:
    line.connect(connect_timeout=0.3)
    line.db.x.insert_many([{} for _ in range(1000)])
    exhaust = line.db.x.find(batch_size=2, cursor_type=CursorType.EXHAUST)
    next(exhaust)  # has the only connection
    line.proxy.accept_and_hang()
    found: list[Any] = []

    def ask() -> None:
        with deadline(60.0):
            found.append(line.db.x.count_documents({}))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: line.recorder.value("mongo_pool", "in_use") == 2)
    wait_until(lambda: line.recorder.value("mongo_pool", "in_use") == 1)  # it gave up
    line.proxy.heal()
    asking.join(20)

    assert found == [1000]


# Transactions.


def test_a_transaction_is_aborted_although_its_deadline_is_over(line: Line) -> None:
    client = line.connect()
    line.db.x.insert_one({"_id": 1})

    def work(session: Any) -> None:
        with deadline(0.3) as current, session.start_transaction():
            line.db.x.update_one({"_id": 1}, {"$set": {"a": 1}}, session=session)
            assert current is not None
            time.sleep(max(current.remaining(), 0.0))
            line.db.x.update_one({"_id": 1}, {"$set": {"a": 2}}, session=session)

    with client.start_session() as session, pytest.raises(MongoDeadlineExceeded):
        work(session)

    assert line.recorder.value("mongo_commands", "abortTransaction", "ok") == 1
    line.db.x.update_one({"_id": 1}, {"$set": {"a": 3}})  # no conflict with what was left behind
    assert line.db.x.find_one() == {"_id": 1, "a": 3}


def test_with_transaction_does_not_try_for_two_minutes(line: Line) -> None:
    client = line.connect()
    line.db.x.insert_one({"_id": 0})

    def work(session: Any) -> None:
        line.db.x.insert_one({"_id": 1}, session=session)
        line.proxy.hold()  # the commit will not be answered

    since = time.monotonic()
    with client.start_session() as session, deadline(0.3), pytest.raises(DeadlineExceeded):
        session.with_transaction(work)

    assert time.monotonic() - since < 5.0


def test_the_end_of_a_cursor_is_tried_for_a_moment_only(line: Line) -> None:
    line.connect()
    line.db.x.insert_many([{} for _ in range(10)])
    cursor = line.db.x.find(batch_size=2)
    next(cursor)
    line.proxy.hold()
    since = time.monotonic()

    with deadline(0.0):
        cursor.close()

    assert time.monotonic() - since < 5.0


def by_way_of(uri: str, address: str) -> str:
    """*uri* with *address* as the only host, user and options as they are."""
    scheme, _, rest = uri.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    options = [each for each in rest.partition("?")[2].split("&") if each]
    query = "&".join({*options, "directConnection=true"})
    return f"{scheme}://{user}{'@' if user else ''}{address}/?{query}"


def time_until_exceeded(name: str, call: Callable[[], object], seconds: float) -> float:
    since = time.monotonic()
    try:
        with deadline(seconds):
            result = call()
    except DeadlineExceeded:
        return time.monotonic() - since
    raise AssertionError(f"{name} gave {result!r}")


def is_stopped(pid: int | None) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("State:\tT" in (task / "status").read_text() for task in tasks)


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)
