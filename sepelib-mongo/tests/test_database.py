"""mock_database: a database of one's own, on a server that was found, started or named."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import mongoengine
import pymongo
import pytest
from bson.binary import UuidRepresentation
from gevent import monkey
from mongoengine import Document, IntField, StringField
from mongoengine.connection import ConnectionFailure, _connection_settings
from pymongo.errors import DuplicateKeyError
from pymongo.uri_parser import parse_uri

from sepelib.mongo import MockDatabase, MongoMisused, MongoUnavailable, mock_database
from sepelib.mongo._engine import find_engine
from sepelib.mongo._engine_uri import naming, without_database, without_password
from sepelib.mongo.errors import AliasTaken
from sepelib.util.deadline import deadline
from sepelib.util.processes import Proc
from sepelib.util.testing import FlakyProxy

PATCHED = monkey.is_module_patched("socket")


class Person(Document):
    meta = {"db_alias": "people"}
    name = StringField(unique=True)
    age = IntField()


@pytest.fixture(scope="module")
def server() -> Iterator[MockDatabase]:
    """A server that the others reach by its URI."""
    with mock_database(engine=find_engine().name, alias="the server") as database:
        yield database


@pytest.fixture
def people(mongo_server: MockDatabase) -> Iterator[MockDatabase]:
    with mongo_server.sibling(alias="people") as database:
        yield database


def databases(server: MockDatabase) -> set[str]:
    return set(server.client.list_database_names())


def script(code: str, **environ: str) -> str:
    first = "import gevent.monkey; gevent.monkey.patch_all()\n" if PATCHED else ""
    done = subprocess.run(
        [sys.executable, "-c", first + code],
        stdout=subprocess.PIPE,
        text=True,
        timeout=90,
        check=True,
        env={**os.environ, **environ},
    )
    return done.stdout


# What one gets.


def test_one_call_gives_documents_a_database(mongo_server: MockDatabase) -> None:
    with mock_database(alias="people") as db:
        Person(name="Ann").save()
        assert db.db.person.count_documents({}) == 1
        assert db.alias == "people"
        assert db.connection is db.client is mongoengine.get_connection("people")
        assert mongoengine.get_db("people").name == db.name
    assert "people" not in _connection_settings


def test_the_database_is_an_own_fresh_one(server: MockDatabase) -> None:
    with server.sibling(alias="one") as one, server.sibling(alias="two") as two:
        assert re.fullmatch(rf"sepelib_{os.getpid()}_[0-9a-f]{{12}}", one.name)
        one.db.things.insert_one({})
        assert one.name != two.name and two.db.list_collection_names() == []


def test_the_server_is_described_by_its_engine_pid_and_log(server: MockDatabase) -> None:
    assert server.engine == find_engine().name
    assert server.pid is not None
    os.kill(server.pid, 0)
    assert server.log_path is not None and server.log_path.exists()
    assert "127.0.0.1" in server.log_tail()
    assert len(server.log_tail(lines=1).splitlines()) == 1


def test_its_uri_leads_to_the_database(server: MockDatabase) -> None:
    with server.sibling(alias="one") as one:
        one.db.things.insert_one({"_id": 1})
        with pymongo.MongoClient[dict[str, Any]](one.uri) as client:
            assert client.get_default_database().things.find_one() == {"_id": 1}


def test_times_are_aware_and_uuids_standard(people: MockDatabase) -> None:
    people.db.things.insert_one({"at": datetime(2026, 1, 1, tzinfo=UTC), "id": uuid.uuid4()})
    thing = people.db.things.find_one()
    assert thing is not None
    assert thing["at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert people.client.codec_options.uuid_representation == UuidRepresentation.STANDARD


@pytest.mark.parametrize(
    "options",
    [
        {"uuidRepresentation": "javaLegacy", "tz_aware": False},
        {"uuidrepresentation": "javaLegacy", "TZ_AWARE": False},
    ],
)
def test_the_caller_s_options_win(server: MockDatabase, options: dict[str, Any]) -> None:
    with mock_database(uri=server.uri, alias="other", client_options=options) as db:
        assert db.client.codec_options.uuid_representation == UuidRepresentation.JAVA_LEGACY
        assert not db.client.codec_options.tz_aware


def test_the_options_in_the_uri_win_over_ours(server: MockDatabase) -> None:
    uri = f"{server.uri}&uuidRepresentation=javaLegacy"
    with mock_database(uri=uri, alias="other") as db:
        assert db.client.codec_options.uuid_representation == UuidRepresentation.JAVA_LEGACY
        assert db.client.codec_options.tz_aware


def test_a_repr_says_where_and_what(server: MockDatabase) -> None:
    with mock_database(uri=server.uri, alias="other") as db:
        where = f"{db.name} at mongodb://127.0.0.1:"
        assert where in repr(db) and "as 'other' (uri, open)" in repr(db)
    assert "(uri, closed)" in repr(db)


# A URI.


def test_the_database_in_the_uri_is_neither_used_nor_dropped(server: MockDatabase) -> None:
    with server.sibling(alias="precious") as precious:
        precious.db.things.insert_one({"_id": "precious"})
        with mock_database(uri=precious.uri, alias="people") as db:
            assert db.name != precious.name
            Person(name="Ann").save()
            db.clean()
            db.drop()
        assert precious.db.things.find_one() == {"_id": "precious"}
        assert precious.db.list_collection_names() == ["things"]
        assert db.name not in databases(server)


def test_a_uri_starts_no_server(server: MockDatabase) -> None:
    with mock_database(uri=server.uri, alias="other") as db:
        assert (db.engine, db.pid, db.log_path, db.server) == ("uri", None, None, None)
        assert db.log_tail() == ""
        assert db.supports("transactions") == server.supports("transactions")


def test_the_variable_is_the_uri(server: MockDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPELIB_MONGO_URI", server.uri)
    with mock_database(alias="other") as db:
        assert db.engine == "uri"
        assert db.client.address == server.client.address


def test_an_engine_that_is_named_ignores_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPELIB_MONGO_URI", "mongodb://127.0.0.1:1/")
    with mock_database(engine="secantus-rs", alias="other") as db:
        assert db.engine == "secantus-rs"


def test_uri_and_engine_together_are_refused() -> None:
    with pytest.raises(ValueError, match="either uri or engine"):
        mock_database(uri="mongodb://127.0.0.1:1/", engine="mongod")
    with pytest.raises(ValueError, match="engine 'mysql': not one of auto, mongod"):
        mock_database(engine="mysql")


def test_nobody_at_the_uri_is_unavailable_and_says_no_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(MongoUnavailable) as caught:
            mock_database(uri=f"mongodb://ann:secret@{host}/", alias="gone", start_timeout=0.3)
    text = str(caught.value)
    assert text.startswith(f"mongodb://{host}: ") and "\n" not in text
    assert "secret" not in text and "ann" not in text
    assert "gone" not in _connection_settings


@pytest.mark.parametrize("uri", ["localhost", "http://localhost/", "mongodb://"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="no URI of a MongoDB server"):
        mock_database(uri=uri, alias="nowhere")
    assert "nowhere" not in _connection_settings


@pytest.mark.parametrize(
    ("uri", "stripped"),
    [
        ("mongodb://h", "mongodb://h/"),
        ("mongodb://h/", "mongodb://h/"),
        ("mongodb://h/db", "mongodb://h/"),
        ("mongodb://h/db.collection", "mongodb://h/"),
        ("mongodb://h:1,i:2/db?replicaSet=rs0", "mongodb://h:1,i:2/?replicaSet=rs0"),
        ("mongodb://h?tls=true", "mongodb://h/?tls=true"),
        ("mongodb://[::1]:1/db", "mongodb://[::1]:1/"),
        ("mongodb://%2Ftmp%2Fm.sock/db", "mongodb://%2Ftmp%2Fm.sock/"),
        # Whom a database knows is not known to admin.
        ("mongodb://u:p%40%2F@h/db", "mongodb://u:p%40%2F@h/?authSource=db"),
        ("mongodb://u:p@h/db?w=1", "mongodb://u:p@h/?w=1&authSource=db"),
        ("mongodb://u:p@h/", "mongodb://u:p@h/?authSource=admin"),
        ("mongodb://u:p@h/db?authSource=x", "mongodb://u:p@h/?authSource=x"),
        (
            "mongodb://u:p@h/?authMechanism=PLAIN",
            "mongodb://u:p@h/?authMechanism=PLAIN&authSource=%24external",
        ),
        (
            "mongodb://u@h/db?authMechanism=MONGODB-X509",
            "mongodb://u@h/?authMechanism=MONGODB-X509&authSource=%24external",
        ),
    ],
)
def test_a_uri_without_its_database_means_the_same_server_and_user(uri: str, stripped: str) -> None:
    assert without_database(uri) == stripped
    assert without_database(naming(stripped, "own")) == stripped
    assert parse_uri(naming(stripped, "own"))["database"] == "own"


def test_a_uri_in_a_message_is_without_user_and_options() -> None:
    assert without_password("mongodb://u:p@h:1,i:2/db?authSource=x") == "mongodb://h:1,i:2"


# Aliases.


def test_an_alias_that_is_connected_is_not_taken_over(people: MockDatabase) -> None:
    with pytest.raises(ConnectionFailure, match="the alias 'people' has a connection already"):
        mock_database(uri=people.uri, alias="people")
    with pytest.raises(AliasTaken):
        people.sibling(alias="people")
    Person(name="Ann").save()
    assert people.db.person.count_documents({}) == 1


def test_an_alias_that_is_registered_and_not_yet_connected_is_taken_too(
    server: MockDatabase,
) -> None:
    mongoengine.register_connection("later", "x", host=server.uri, uuidRepresentation="standard")
    try:
        with pytest.raises(AliasTaken):
            mock_database(uri=server.uri, alias="later")
        assert _connection_settings["later"]["host"] == [server.uri]
    finally:
        mongoengine.disconnect("later")


@pytest.mark.parametrize("turn", range(4))
def test_of_many_who_want_one_alias_at_once_one_gets_it(server: MockDatabase, turn: int) -> None:
    got: list[MockDatabase] = []
    refused: list[AliasTaken] = []

    at_once = threading.Barrier(20)

    def want() -> None:
        at_once.wait(30)
        try:
            got.append(mock_database(uri=server.uri, alias="wanted"))
        except AliasTaken as error:
            refused.append(error)

    threads = [threading.Thread(target=want) for _ in range(20)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert (len(got), len(refused)) == (1, 19)
    assert mongoengine.get_connection("wanted") is got[0].client
    got[0].close()


def test_a_client_that_cannot_be_made_leaves_the_alias_free(server: MockDatabase) -> None:
    with pytest.raises(ConnectionFailure):
        mock_database(uri=server.uri, alias="free", client_options={"maxPoolSize": "many"})
    with mock_database(uri=server.uri, alias="free"):
        pass


# Names.


def test_a_name_of_one_s_own_is_used_and_dropped(server: MockDatabase) -> None:
    name = f"sepelib_{uuid.uuid4().hex}"
    with mock_database(uri=server.uri, alias="named", name=name) as db:
        assert db.name == name
        db.db.things.insert_one({})
        assert name in databases(server)
    assert name not in databases(server)


def test_a_database_that_is_there_already_is_refused_and_stays(server: MockDatabase) -> None:
    with server.sibling(alias="precious") as precious:
        precious.db.things.insert_one({"_id": "precious"})
        with pytest.raises(MongoMisused, match=f"database {precious.name} is not empty"):
            mock_database(uri=server.uri, alias="bold", name=precious.name)
        assert "bold" not in _connection_settings
        assert precious.db.things.count_documents({}) == 1


@pytest.mark.parametrize("name", ["admin", "config", "local"])
def test_the_server_s_own_databases_are_refused(server: MockDatabase, name: str) -> None:
    with pytest.raises(ValueError, match=f"database {name} belongs to the server"):
        mock_database(uri=server.uri, alias="bold", name=name)


# Empty again.


def test_clean_empties_all_and_keeps_indexes_and_views(people: MockDatabase) -> None:
    Person(name="Ann", age=1).save()
    people.db.things.insert_many([{}, {}])
    people.db.create_collection("adults", viewOn="person", pipeline=[{"$match": {"age": 18}}])
    before = people.db.person.index_information()

    people.clean()

    assert Person.objects.count() == people.db.things.count_documents({}) == 0
    assert people.db.person.index_information() == before and "name_1" in before
    Person(name="Bob", age=18).save()
    assert [person["name"] for person in people.db.adults.find()] == ["Bob"]


def test_after_drop_the_unique_index_is_back_with_the_next_document(people: MockDatabase) -> None:
    Person(name="Ann").save()
    people.drop()
    assert people.db.list_collection_names() == []
    Person(name="Ann").save()
    with pytest.raises(mongoengine.NotUniqueError):
        Person(name="Ann").save()


def test_documents_of_other_aliases_keep_theirs_when_one_is_dropped(
    people: MockDatabase, mongo_db: MockDatabase
) -> None:
    class Lodger(Document):
        name = StringField(unique=True)

    Lodger(name="Ann").save()
    collection = Lodger._get_collection()
    people.drop()
    assert Lodger._get_collection() is collection
    mongo_db.drop()
    assert Lodger._get_collection() is not collection


# Features.


def test_the_embedded_server_has_transactions_and_lacks_what_is_mongod_s(
    server: MockDatabase,
) -> None:
    before = databases(server)
    known = {
        feature: server.supports(feature)
        for feature in ("transactions", "change_streams", "text", "where", "geo", "profiler")
    }
    if server.engine == "mongod":
        assert all(known.values())
    else:
        assert known == {
            "transactions": True,
            "change_streams": True,
            "text": False,
            "where": False,
            "geo": False,
            "profiler": False,
        }
    assert databases(server) == before


def test_a_standalone_server_has_no_change_streams() -> None:
    with mock_database(engine=find_engine().name, alias="alone", replica_set=False) as db:
        assert not db.supports("change_streams")
        assert "setName" not in db.client.admin.command("hello")


def test_a_feature_is_tried_once(server: MockDatabase) -> None:
    with mock_database(uri=server.uri, alias="other") as db:
        seen = db.supports("text"), db.sibling(alias="more")
        with seen[1] as more:
            server.server.pause()  # type: ignore[union-attr]
            try:
                assert more.supports("text") == seen[0]
            finally:
                server.server.resume()  # type: ignore[union-attr]


def test_a_feature_that_nobody_knows_is_refused(server: MockDatabase) -> None:
    with pytest.raises(ValueError, match="feature 'joins': not one of transactions, change"):
        server.supports("joins")


# Siblings.


def test_siblings_share_the_client_and_it_stays_open(server: MockDatabase) -> None:
    with server.sibling(alias="one") as one:
        with server.sibling(alias="two") as two:
            assert one.client is two.client is server.client
            one.db.things.insert_one({})
        assert two.name not in databases(server)
        assert one.db.things.count_documents({}) == 1
        assert server.client.admin.command("ping")["ok"] == 1


def test_a_database_at_the_same_uri_shares_the_client_too(server: MockDatabase) -> None:
    with mock_database(uri=server.uri, alias="other") as db:
        assert db.client is server.client
    assert server.client.admin.command("ping")["ok"] == 1


def test_a_sibling_outlives_its_server_without_harm() -> None:
    owner = mock_database(engine=find_engine().name, alias="owner")
    sibling = owner.sibling(alias="orphan")
    owner.close()
    started = time.monotonic()
    sibling.close()
    assert time.monotonic() - started < 5
    assert not {"owner", "orphan"} & set(_connection_settings)
    with pytest.raises(MongoMisused, match="is closed"):
        owner.sibling(alias="late")


# The end.


def test_close_is_idempotent_and_leaves_no_alias_and_no_server() -> None:
    db = mock_database(engine=find_engine().name, alias="people")
    Person(name="Ann").save()
    path = db.log_path
    assert path is not None and path.exists()
    db.close()
    db.close()
    assert "people" not in _connection_settings and not path.parent.exists()
    assert (db.pid, db.log_path, db.log_tail()) == (None, None, "")
    with pytest.raises(ConnectionFailure):
        Person.objects.count()
    with mock_database(engine=find_engine().name, alias="people"):
        assert Person.objects.count() == 0


def test_closed_by_many_at_once_it_is_closed_once(server: MockDatabase) -> None:
    db = server.sibling(alias="one")
    threads = [threading.Thread(target=db.close) for _ in range(10)]
    for thread in threads:
        thread.start()
    with server.sibling(alias="other") as other:
        for thread in threads:
            thread.join(60)
        assert other.client.admin.command("ping")["ok"] == 1
    assert "one" not in _connection_settings


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_close_does_not_wait_for_a_server_that_is_gone_or_stands_still(fault: str) -> None:
    db = mock_database(engine=find_engine().name, alias="faulty")
    db.db.things.insert_one({})
    getattr(db.server, fault)()
    started = time.monotonic()
    db.close()
    assert time.monotonic() - started < 15
    assert "faulty" not in _connection_settings


def test_a_server_whose_supervisor_was_killed_is_gone_and_close_does_not_mind() -> None:
    db = mock_database(engine=find_engine().name, alias="faulty")
    assert db.server is not None and db.pid is not None and db.log_path is not None
    folder, process = db.log_path.parent, Proc().read(db.pid)
    assert process is not None
    os.kill(process.ppid, signal.SIGKILL)
    wait_until(lambda: not db.server.running)  # type: ignore[union-attr]
    with pytest.raises(MongoUnavailable, match="supervisor"):
        db.server.start()
    db.close()
    assert "faulty" not in _connection_settings and not folder.exists()


def test_a_connection_that_breaks_at_the_end_leaves_no_database(server: MockDatabase) -> None:
    with FlakyProxy(*server.client.address) as proxy:
        uri = "mongodb://{}:{}/?directConnection=true".format(*proxy.address)
        db = mock_database(uri=uri, alias="broken")
        db.db.things.insert_one({})
        with proxy.lose_answer(lambda data: b"dropDatabase" in data):
            db.close()
    assert db.name not in databases(server)


def test_a_body_that_fails_closes_too(server: MockDatabase) -> None:
    with pytest.raises(ZeroDivisionError), mock_database(uri=server.uri, alias="fails") as db:
        db.db.things.insert_one({"n": 1 / 0})
    assert "fails" not in _connection_settings


def test_a_deadline_cuts_the_start_and_leaves_nothing() -> None:
    with deadline(0.01), pytest.raises(MongoUnavailable, match="not ready within"):
        mock_database(engine="secantus-rs", alias="hurried")
    assert "hurried" not in _connection_settings


FORGOTTEN = """
import os
from sepelib.mongo import mock_database
db = mock_database()
db.db.things.insert_one({})
if not os.fork():
    raise SystemExit
os.wait()
db.db.things.insert_one({})
print(db.engine, db.name, db.db.things.count_documents({}))
"""


def test_a_database_forgotten_on_another_s_server_is_dropped_at_exit_and_not_by_forks(
    server: MockDatabase,
) -> None:
    engine, name, count = script(FORGOTTEN, SEPELIB_MONGO_URI=server.uri).split()
    assert (engine, count) == ("uri", "2")
    assert name not in databases(server)


def test_keep_leaves_the_database_on_another_s_server(server: MockDatabase) -> None:
    with mock_database(uri=server.uri, alias="kept", keep=True) as db:
        db.db.things.insert_one({})
    assert db.kept() == db.uri
    assert db.name in databases(server)
    server.client.drop_database(db.name)


# A crash.


def test_a_durable_server_keeps_what_it_acknowledged_when_it_is_killed() -> None:
    with mock_database(engine=find_engine().name, alias="durable", durable=True) as db:
        assert db.server is not None
        things = db.db.get_collection("things", write_concern=pymongo.WriteConcern(w=1, j=True))
        acknowledged: list[int] = []
        over = threading.Event()

        def write(number: int) -> None:
            while not over.is_set():
                with contextlib.suppress(DuplicateKeyError):  # written, and sent again
                    things.insert_one({"_id": number})
                acknowledged.append(number)
                number += 4

        writers = [threading.Thread(target=write, args=[first]) for first in range(4)]
        for writer in writers:
            writer.start()
        try:
            for turn in (1, 2, 3):
                wait_until(lambda turn=turn: len(acknowledged) >= 100 * turn)  # type: ignore[misc]
                db.server.kill()
                before = set(acknowledged)
                db.server.start()
                assert before <= {thing["_id"] for thing in things.find()}
        finally:
            over.set()
            for writer in writers:
                writer.join(60)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
