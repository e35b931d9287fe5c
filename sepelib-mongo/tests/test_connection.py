from __future__ import annotations

import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import mongoengine
import pytest
from bson.binary import UuidRepresentation
from mongoengine import DateTimeField, Document, StringField, UUIDField
from pymongo import MongoClient

from sepelib.mongo import MongoMisused, MongoUnavailable, connect, connection, mongo_check
from sepelib.mongo.errors import AliasTaken
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import FlakyProxy

ALIAS = "daemon"
Connect = Callable[..., MongoClient[dict[str, Any]]]


@pytest.fixture(scope="module")
def closing() -> Iterator[list[threading.Thread]]:
    """Who close clients behind the tests' backs: it takes half a second, which would add up."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)


@pytest.fixture
def connected(mongo_db: Any, closing: list[threading.Thread]) -> Iterator[Connect]:
    """connect(), to the test's database under an alias of ours."""

    def make(**options: Any) -> MongoClient[dict[str, Any]]:
        settings = {"uri": mongo_db.uri, "alias": ALIAS, "name": mongo_db.name, **options}
        return connect(settings.pop("uri"), **settings)

    yield make
    if ALIAS in mongoengine.connection._connections:
        closing.append(threading.Thread(target=mongoengine.connection.get_connection(ALIAS).close))
        closing[-1].start()
        wait_until(lambda: ALIAS not in mongoengine.connection._connection_settings)


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """What *count* threads, or greenlets in a patched process, get or fail with."""
    outcomes: list[Any] = []
    together = threading.Barrier(count)

    def run() -> None:
        together.wait(10)
        try:
            outcomes.append(call())
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port that refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


class Ticket(Document):  # type: ignore[misc]
    key = StringField(unique=True)
    token = UUIDField(binary=True)
    at = DateTimeField()
    meta = {"db_alias": ALIAS, "collection": "tickets"}


# At once.


def test_a_server_is_known_when_connect_returns(connected: Connect) -> None:
    client = connected()

    assert client.nodes


def test_documents_use_the_connection_by_its_alias(connected: Connect, mongo_db: Any) -> None:
    client = connected()

    Ticket(key="T-1").save()

    assert client[mongo_db.name]["tickets"].count_documents({"key": "T-1"}) == 1


def test_times_come_back_aware_and_uuids_are_stored_as_standard(
    connected: Connect, mongo_db: Any
) -> None:
    client = connected()
    token, now = uuid.uuid4(), datetime.now(UTC).replace(microsecond=0)
    Ticket(key="T-1", token=token, at=now).save()

    (loaded,) = Ticket.objects
    (stored,) = client[mongo_db.name]["tickets"].find()

    assert (loaded.token, loaded.at) == (token, now)
    assert (stored["token"], stored["at"].tzinfo is not None) == (token, True)
    options = client.codec_options
    assert options.uuid_representation == UuidRepresentation.STANDARD and options.tz_aware


def test_no_server_is_an_error_that_names_it_and_keeps_the_password(nobody: str) -> None:
    user, password = "b" * 7, "p" * 7
    with pytest.raises(MongoUnavailable, match=nobody) as caught:
        connect(f"mongodb://{user}:{password}@{nobody}/tickets", alias=ALIAS, server_timeout=0.2)

    text = "".join(traceback.format_exception(caught.value))
    assert user not in text and password not in text
    assert "\n" not in str(caught.value) and "Topology" not in str(caught.value)


def test_a_user_whom_the_server_refuses_is_an_error_of_one_short_line(mongo_db: Any) -> None:
    host, port = mongo_db.client.address
    user, password = "b" * 7, "p" * 7
    with pytest.raises(MongoUnavailable, match=f"{host}:{port}: .*(?i:authentication)") as caught:
        connect(
            f"mongodb://{user}:{password}@{host}:{port}/?directConnection=true",
            alias=ALIAS,
            name="x",
        )

    text = str(caught.value)
    assert user not in text and password not in text
    assert "full error" not in text and len(text) < 100


def test_nothing_is_left_of_a_connection_that_failed(nobody: str) -> None:
    before = threading.active_count()

    with pytest.raises(MongoUnavailable):
        connect(f"mongodb://{nobody}/tickets", alias=ALIAS, server_timeout=0.1)

    assert threading.active_count() == before
    with pytest.raises(mongoengine.ConnectionFailure):
        mongoengine.connection.get_connection(ALIAS)


def test_an_alias_can_be_connected_after_it_failed(connected: Connect, nobody: str) -> None:
    with pytest.raises(MongoUnavailable):
        connected(uri=f"mongodb://{nobody}/", server_timeout=0.1)

    assert connected().nodes


def test_connecting_obeys_the_deadline_and_leaves_nothing() -> None:
    with FlakyProxy("127.0.0.1", 9) as proxy:
        proxy.accept_and_hang()
        host, port = proxy.address
        with pytest.raises(DeadlineExceeded), deadline(0.2):
            connect(f"mongodb://{host}:{port}/tickets", alias=ALIAS)

    assert ALIAS not in mongoengine.connection._connection_settings


def test_mongoengine_is_not_given_the_uri(connected: Connect) -> None:
    connected()

    kept = mongoengine.connection._connection_settings[ALIAS]
    assert "://" not in str(kept["host"]) and kept["password"] is None


# Once.


def test_the_same_settings_give_the_same_client(connected: Connect) -> None:
    assert connected() is connected()


def test_fifty_who_connect_at_once_share_one_client(connected: Connect) -> None:
    clients = at_once(50, connected)

    assert len(clients) == 50
    assert {id(client) for client in clients} == {id(connected())}
    assert not connection._turns  # no lock is left for each alias there ever was


def test_other_settings_are_an_error_that_names_the_alias(connected: Connect) -> None:
    connected()

    with pytest.raises(AliasTaken, match=ALIAS):
        connected(max_pool=7)
    with pytest.raises(MongoMisused, match=ALIAS):
        connected(name="another")


def test_a_connection_made_by_mongoengine_is_not_taken_over(mongo_db: Any) -> None:
    with pytest.raises(AliasTaken, match="default"):
        connect(mongo_db.uri, name=mongo_db.name)

    assert mongoengine.connection.get_connection() is mongo_db.client


def test_an_alias_that_mongoengine_connects_meanwhile_is_not_taken_over(
    connected: Connect, mongo_db: Any
) -> None:
    with FlakyProxy(*mongo_db.client.address) as proxy:
        proxy.hold_replies()
        uri = by_way_of(mongo_db.uri, "{}:{}".format(*proxy.address))
        outcomes: list[Any] = []
        asking = threading.Thread(
            target=lambda: outcomes.extend(at_once(1, lambda: connected(uri=uri)))
        )
        asking.start()
        wait_until(lambda: proxy.received.requests > 0)
        options = {"host": mongo_db.uri, "uuidRepresentation": "standard", "appname": "meanwhile"}
        theirs = mongoengine.connect(mongo_db.name, alias=ALIAS, **options)
        proxy.heal()
        asking.join(10)

    assert [type(outcome) for outcome in outcomes] == [AliasTaken]
    assert mongoengine.connection.get_connection(ALIAS) is theirs
    assert mongoengine.connection._connection_settings[ALIAS]["host"] == [mongo_db.uri]
    assert theirs.admin.command("ping")["ok"] == 1
    mongoengine.disconnect(ALIAS)


def test_two_aliases_have_clients_of_their_own(connected: Connect) -> None:
    client = connected()

    with connected(alias="other") as other:
        assert other is not client
    assert client.admin.command("ping")["ok"] == 1


# Settings.


def test_the_defaults_are_finite(connected: Connect) -> None:
    options = connected().options

    assert options.pool_options.max_pool_size == 100
    assert options.pool_options.wait_queue_timeout == 5.0
    assert options.pool_options.connect_timeout == 5.0
    assert options.pool_options.socket_timeout == 30.0
    assert options.server_selection_timeout == 15.0


def test_none_is_no_limit(connected: Connect) -> None:
    client = connected(max_pool=None, pool_timeout=None, connect_timeout=None, timeout=None)

    options = client.options.pool_options
    limits = options.wait_queue_timeout, options.connect_timeout, options.socket_timeout
    assert limits == (None, None, None)
    assert client.admin.command("ping")["ok"] == 1


def test_what_the_uri_says_wins_over_keywords_and_client_options_over_all(
    connected: Connect, mongo_db: Any
) -> None:
    uri = with_options(mongo_db.uri, "maxpoolsize=7&socketTimeoutMS=2000&appname=a")

    client = connected(
        uri=uri, max_pool=50, timeout=9.0, client_options={"appname": "b", "tz_aware": False}
    )

    pool = client.options.pool_options
    assert (pool.max_pool_size, pool.socket_timeout) == (7, 2.0)
    assert client.options.pool_options.appname == "b"
    assert not client.codec_options.tz_aware


def test_the_database_comes_from_the_name_or_else_the_uri(
    connected: Connect, mongo_db: Any
) -> None:
    path = with_database(mongo_db.uri, mongo_db.name)
    connected(uri=path, name=None)
    assert mongoengine.connection.get_db(ALIAS).name == mongo_db.name
    mongoengine.disconnect(ALIAS)

    connected(uri=with_database(mongo_db.uri, "another"))
    assert mongoengine.connection.get_db(ALIAS).name == mongo_db.name


def test_no_database_at_all_is_an_error(nobody: str) -> None:
    with pytest.raises(ValueError, match="name="):
        connect(f"mongodb://{nobody}/", alias=ALIAS)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://bob:hun/ter2@127.0.0.1/x",
        "mongodb://bob:hun:ter2@127.0.0.1/x",
        "mongodb://bob:hun@ter2@127.0.0.1/x",
        "mongodb://bob:hun%ter2@127.0.0.1/x",
        "mongodb://bob:1/$ter2@127.0.0.1/x",
        "mongodb://bob:1/ter2@127.0.0.1/x",
        "mongodb+srv://bob:hun/ter2@db.example/x",
    ],
)
def test_a_malformed_uri_does_not_show_its_password(uri: str) -> None:
    with pytest.raises(ValueError, match="quote") as caught:
        connect(uri, alias=ALIAS)

    text = "".join(traceback.format_exception_only(caught.value))
    assert "hun" not in text and "ter2" not in text
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_a_time_is_a_positive_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="pool_timeout"):
        connect("mongodb://127.0.0.1/x", alias=ALIAS, pool_timeout=seconds)


# The end.


def test_a_closed_client_frees_its_alias_and_its_documents(connected: Connect) -> None:
    client = connected()
    Ticket(key="T-1").save()

    client.close()
    client.close()

    assert ALIAS not in mongoengine.connection._connection_settings
    again = connected()
    assert again is not client
    assert Ticket.objects.count() == 1


def test_mongoengine_can_end_the_connection_too(connected: Connect) -> None:
    client = connected()
    Ticket(key="T-1").save()

    mongoengine.disconnect(ALIAS)

    assert connected() is not client
    assert Ticket.objects.count() == 1


def test_a_client_closed_late_leaves_the_next_one_alone(connected: Connect) -> None:
    first = connected()
    mongoengine.disconnect(ALIAS)
    second = connected()

    first.close()

    assert connected() is second
    assert Ticket.objects.count() == 0


def test_no_thread_outlives_close(connected: Connect) -> None:
    before = set(threading.enumerate())
    client = connected()
    started = set(threading.enumerate()) - before
    assert {thread.name for thread in started} >= {"pymongo_kill_cursors_thread"}

    client.close()

    assert not [thread for thread in started if thread.is_alive()]


def test_close_does_not_wait_for_a_silent_server(connected: Connect, mongo_db: Any) -> None:
    host, port = mongo_db.client.address
    with FlakyProxy(host, port) as proxy:
        client = connected(uri=by_way_of(mongo_db.uri, "{}:{}".format(*proxy.address)))
        client[mongo_db.name]["x"].insert_one({})  # a session to say goodbye for
        proxy.hold()
        thread = threading.Thread(target=client.close)
        thread.start()
        thread.join(10)

        assert not thread.is_alive(), "close() hangs"


# The check.


def test_a_check_is_content_with_a_server_that_answers(connected: Connect) -> None:
    connected()

    mongo_check(ALIAS)()


def test_a_check_fails_in_time_when_the_server_is_silent(connected: Connect, mongo_db: Any) -> None:
    host, port = mongo_db.client.address
    with FlakyProxy(host, port) as proxy:
        connected(uri=by_way_of(mongo_db.uri, "{}:{}".format(*proxy.address)))
        proxy.hold()

        with pytest.raises(MongoUnavailable, match=f"{ALIAS}.*{proxy.address[1]}"):
            mongo_check(ALIAS, timeout=0.2)()

        proxy.heal()
        mongo_check(ALIAS)()


def test_a_check_fails_when_nothing_is_connected() -> None:
    with pytest.raises(MongoUnavailable, match="nowhere"):
        mongo_check("nowhere")()


def test_a_check_takes_connections_of_others(mongo_db: Any) -> None:
    mongo_check()()


def by_way_of(uri: str, address: str) -> str:
    """*uri* with *address* as the only host, user and options as they are."""
    scheme, _, rest = uri.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    options = [each for each in rest.partition("?")[2].split("&") if each]
    query = "&".join({*options, "directConnection=true"})
    return f"{scheme}://{user}{'@' if user else ''}{address}/?{query}"


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)


def with_options(uri: str, options: str) -> str:
    if "?" not in uri:
        uri = uri if "/" in uri.partition("://")[2] else f"{uri}/"
        return f"{uri}?{options}"
    return f"{uri}&{options}"


def with_database(uri: str, name: str) -> str:
    scheme, _, rest = uri.partition("://")
    front, question, options = rest.partition("?")
    return f"{scheme}://{front.partition('/')[0]}/{name}{question}{options}"
