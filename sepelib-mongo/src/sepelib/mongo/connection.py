"""Connect a daemon to MongoDB: at once, once, and with limits.

    import gevent.monkey; gevent.monkey.patch_all()         # the first line of the program
    ...
    client = connect("mongodb://db1,db2,db3/tickets?replicaSet=rs0", max_pool=200)
    server.add_check("mongo", mongo_check(), critical=False)
    ...
    client.close()

Documents of mongoengine use the connection by its alias. Connect after the process has become a
daemon; let `max_pool` be the number of greenlets that use the database at once, or more.

Deadlines: every operation obeys the current one (`sepelib.util.deadline`) and then fails with
`MongoDeadlineExceeded`, a DeadlineExceeded and a NetworkTimeout. It is the time of all of an
operation, retries included, in place of *pool_timeout* and *timeout*; a `pymongo.timeout()` and a
`max_time_ms` of the caller's are obeyed too. An abort of a transaction and the end of a cursor are
tried for another 0.25 s, so that the server drops them. A write that asks for no answer (`w=0`)
obeys the deadline until it has a connection. Until the deadline an operation is tried again as
often as it takes, not once: with `retryWrites`, the default, mongod does a write once all the same.

Forks: in a child the same client works on, and so does all that was made from it: it makes
connections of its own at first use. Those of the parent are closed there, so an operation, a
cursor or a transaction that a greenlet brought along fails or starts anew.

Metrics: `mongo_commands` (command, result) with a result of ok, error, timeout, lost or
cancelled, `mongo_seconds` (command), `mongo_pool` (state) with in_use, idle and waiting. Commands
that no connection was to be had for are counted too. An uncommon command is "other".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import mongoengine
import pymongo
from mongoengine import connection as engine_connections
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from sepelib.mongo._client import (
    DaemonClient,
    MongoDeadlineExceeded,
    first_words,
    patched_modules,
)
from sepelib.mongo._documents import forget_collections
from sepelib.mongo.errors import AliasTaken, MongoUnavailable
from sepelib.util.deadline import DeadlineExceeded, clip, deadline
from sepelib.util.instrument import AMBIENT, Recorder

__all__ = ["MongoDeadlineExceeded", "connect", "mongo_check"]

_SRV = "mongodb+srv://"

_made: dict[str, tuple[DaemonClient, tuple[Any, ...]]] = {}  # by alias, with the settings
_turns: dict[tuple[Any, ...], Any] = {}  # who connects; by process: nobody lets go of a parent's


def connect(
    uri: str,
    *,
    alias: str = "default",
    name: str | None = None,
    max_pool: int | None = 100,
    pool_timeout: float | None = 5.0,
    connect_timeout: float | None = 5.0,
    server_timeout: float = 15.0,
    timeout: float | None = 30.0,
    client_options: Mapping[str, Any] | None = None,
    recorder: Recorder = AMBIENT,
) -> MongoClient[dict[str, Any]]:
    """Connect mongoengine's *alias* to the database *name*; the client is there once a server is.

    *uri*: the options in it win over the keywords. *name*: wins over the database in *uri*, which
    then only says where the user is known. *max_pool*: connections to each server.
    *pool_timeout*: seconds to wait for a free one. *connect_timeout*: to make one.
    *server_timeout*: to find a server that can do the operation, also now; an election takes ten
    or so. *timeout*: without a byte of an answer. None is no limit. *client_options*: further
    keywords of MongoClient, which win over all. Times come back aware (`tz_aware`), UUIDs are
    stored as `standard`.

    The same settings again give the same client, also to greenlets that ask at the same time.
    Close it with `close()` or with `mongoengine.disconnect(alias)`.

    MongoUnavailable: no server, or it refuses us; nothing is left behind. AliasTaken, a
    MongoMisused: the alias has another connection, or the same with other settings. MongoMisused:
    the client was made before gevent's monkey patching, which any use of it says too. ValueError:
    no URI, no database. DeadlineExceeded: the current deadline is over.
    """
    parsed = _parsed(uri)
    database = name if name is not None else parsed["database"]
    if not database:
        raise ValueError("no database: give one by name=, or in the URI as mongodb://host/name")
    options = {
        "maxPoolSize": max_pool,
        "waitQueueTimeoutMS": _milliseconds("pool_timeout", pool_timeout),
        "connectTimeoutMS": _milliseconds("connect_timeout", connect_timeout),
        "serverSelectionTimeoutMS": _milliseconds("server_timeout", server_timeout),
        "socketTimeoutMS": _milliseconds("timeout", timeout),
        "uuidRepresentation": "standard",
        "tz_aware": True,
    }
    for said in parsed["options"], client_options or {}:
        options = _without(options, said)
    options.update(client_options or {})
    settings = uri, database, options, recorder
    hosts = _hosts(uri, parsed)
    with _turn(alias):
        if alias in _made:
            client, others = _made[alias]
            client.check_world()
            if others != settings:
                raise AliasTaken(alias)
            return client
        _check_free(alias)
        client = DaemonClient(uri, dict(options), recorder, partial(_forget, alias))
        try:
            _greet(client, hosts)
            _check_free(alias)  # mongoengine's own connect() does not wait for its turn
            _made[alias] = client, settings
            _register(alias, database, hosts, client)
        except BaseException:
            client.close()
            raise
        return client


def mongo_check(alias: str = "default", *, timeout: float = 1.0) -> Callable[[], None]:
    """Make a check for `Server.add_check()`: the server behind *alias* answers within *timeout*.

    It raises MongoUnavailable otherwise, also when nothing is connected. It takes a connection
    from the pool, as an operation does: a pool without a free one is unwell too.
    """

    def check() -> None:
        try:
            client = engine_connections.get_connection(alias)
            with deadline(timeout), pymongo.timeout(clip(timeout)):
                client.admin.command("ping", read_preference=client.read_preference)
        except (PyMongoError, DeadlineExceeded, engine_connections.ConnectionFailure) as error:
            raise MongoUnavailable(f"{alias}: {first_words(error)}") from error

    return check


def _parsed(uri: str) -> dict[str, Any]:
    # As a plain one: pymongo would ask the name server for the hosts of the other kind.
    plain = "mongodb://" + uri.removeprefix(_SRV) if uri.startswith(_SRV) else uri
    try:
        parsed = dict(parse_uri(plain, validate=False))
        reason = ""
    except (PyMongoError, ValueError) as error:
        reason = first_words(error)
    if "@" in uri.partition("?")[0] and (reason or parsed["username"] is None):
        # Cut in the wrong place: what was called a host or a database is of the password.
        reason = "quote user and password by urllib.parse.quote_plus()"
    if reason:
        raise ValueError(f"no URI of MongoDB: {reason}")
    return parsed


def _without(options: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    names = {_plain(name) for name in said}
    return {name: value for name, value in options.items() if _plain(name) not in names}


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _milliseconds(what: str, seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{what} is a positive number of seconds, not {seconds!r}")
    return seconds * 1000


def _hosts(uri: str, parsed: Mapping[str, Any]) -> str:
    nodes = parsed["nodelist"]
    if uri.startswith(_SRV):
        return str(nodes[0][0])
    return ",".join(host if port is None else f"{host}:{port}" for host, port in nodes)


@contextmanager
def _turn(alias: str) -> Iterator[None]:
    # In a patched process it must be a patched lock, since its holder waits for the network.
    key = os.getpid(), patched_modules(), alias
    while True:
        lock = _turns.setdefault(key, threading.Lock())
        limit = clip(None)
        if not lock.acquire(timeout=-1 if limit is None else limit):
            raise DeadlineExceeded(f"deadline exceeded while another one connects {alias!r}")
        current: Any = _turns.get(key)
        if current is lock:
            break
        lock.release()  # its holder has taken it off, and those who came since have another one
    try:
        yield
    finally:
        del _turns[key]
        lock.release()


def _check_free(alias: str) -> None:
    if alias in engine_connections._connection_settings:
        raise AliasTaken(alias)


def _greet(client: DaemonClient, hosts: str) -> None:
    try:
        client.admin.command("ping", read_preference=client.read_preference)
    except DeadlineExceeded:
        raise
    except PyMongoError as error:
        raise MongoUnavailable(f"no MongoDB for us at {hosts}: {first_words(error)}") from error


def _register(alias: str, database: str, hosts: str, client: DaemonClient) -> None:
    # Without the URI: mongoengine keeps what it is given, and the user and password with it.
    mongoengine.register_connection(
        alias,
        name=database,
        host=hosts,
        mongo_client_class=lambda **_: client,
        uuidRepresentation="standard",
    )
    engine_connections.get_connection(alias)


def _forget(alias: str, client: DaemonClient) -> None:
    if alias in _made and _made[alias][0] is client:
        del _made[alias]
        mongoengine.disconnect(alias)
        forget_collections(alias)
