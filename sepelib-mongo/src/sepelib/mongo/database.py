"""A real database for tests and demos: a server is found and started, its database is your own.

    with mock_database() as db:             # mongoengine's alias "default" is connected
        Ticket(title="a").save()
        db.clean()

Looked for, in this order: *uri* or SEPELIB_MONGO_URI, where no server is started; mongod
(SEPELIB_MONGOD or PATH); the pinned embedded server, `sepelib-mongo[embedded]`, as a program.

Left behind: nothing, even after kill -9 of the owner; only a database on the server of a URI stays
then. No database is dropped but those made here. Sharing: from any thread or greenlet. A forked
child may use what pymongo lets it use; close() there leaves everything to the owner. Servers start
with and without monkey patching; a client made before patching does not work after it.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import enum
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import mongoengine
import mongoengine.connection
import pymongo
from pymongo.errors import AutoReconnect, PyMongoError

from ._documents import forget_collections
from ._engine import ENGINES, find_engine
from ._engine_features import FEATURES, probe
from ._engine_server import MongoServer
from ._engine_uri import naming, options_of, without_database, without_password
from .errors import AliasTaken, MongoMisused, MongoUnavailable

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

__all__ = ["MockDatabase", "mock_database"]

_DEFAULTS = {"uuidRepresentation": "standard", "tz_aware": True}
_NOT_OURS = ("admin", "config", "local")
_FAREWELL = 10.0  # seconds for the last commands to a server that goes on


def mock_database(
    *,
    uri: str | None = None,
    name: str | None = None,
    alias: str = "default",
    engine: str = "auto",
    replica_set: bool = True,
    durable: bool = False,
    keep: bool = False,
    start_timeout: float = 30.0,
    client_options: Mapping[str, Any] | None = None,
) -> MockDatabase:
    """A fresh database, connected as mongoengine's *alias*; close it, or use it in a `with`.

    *engine*: auto, mongod, secantus-rs or secantus-py; one that is named ignores SEPELIB_MONGO_URI.
    *name* must be the name of no database; without, one is made up. A database in *uri* is not
    looked at. *replica_set*: with transactions and change streams. *durable*: the server keeps
    what it acknowledged, even after kill -9. *keep*: see `MockDatabase.close`. The last three
    are up to the server that a URI names. *client_options* are those of `MongoClient`, beside
    uuidRepresentation="standard" and tz_aware=True.

    Raises MongoNotInstalled, with what was tried and how to install one; MongoUnavailable, with
    the end of the log, when a server does not start in *start_timeout* seconds or does not answer;
    AliasTaken, a mongoengine ConnectionFailure, when *alias* has a connection.
    """
    if engine != "auto" and engine not in ENGINES:
        raise ValueError(f"engine {engine!r}: not one of auto, {', '.join(ENGINES)}")
    if uri is not None and engine != "auto":
        raise ValueError("either uri or engine: a URI names a server that runs already")
    if uri is None and engine == "auto":
        uri = os.environ.get("SEPELIB_MONGO_URI") or None
    options = dict(client_options or {})
    with contextlib.ExitStack() as undo:
        if uri is None:
            server = MongoServer(
                find_engine(engine),
                replica_set=replica_set,
                durable=durable,
                keep=keep,
                start_timeout=start_timeout,
            )
            undo.callback(server.close)
            server.start()
            own = f"mongodb://127.0.0.1:{server.port}/?directConnection=true"
            place = _Place(own, server, options, keep=keep)
        else:
            place = _Place(without_database(uri), None, options, keep=keep)
        database = MockDatabase(place, alias, name, owner=True, timeout=start_timeout)
        undo.pop_all()
    return database


class _State(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


class _Place:
    """A server with databases: one of ours, or one that a URI names."""

    def __init__(
        self, uri: str, server: MongoServer | None, options: dict[str, Any], *, keep: bool
    ) -> None:
        self.uri = uri
        self.server = server
        self.engine = "uri" if server is None else server.engine.name
        self.keep = keep
        self.over = False
        said = {name.lower() for name in options} | set(options_of(uri))
        defaults = {name: value for name, value in _DEFAULTS.items() if name.lower() not in said}
        self.client_options = defaults | options
        self.features: dict[str, bool] = {}

    def __str__(self) -> str:
        return without_password(self.uri)

    @property
    def lives(self) -> bool:
        return not self.over and (self.server is None or self.server.running)

    def close(self) -> None:
        self.over = True
        if self.server is not None:
            self.server.close()


class MockDatabase:
    """A database of its own, and the connection to it. Made by `mock_database`."""

    def __init__(
        self,
        place: _Place,
        alias: str,
        name: str | None = None,
        *,
        owner: bool = False,
        cleaned: bool = False,
        timeout: float = _FAREWELL,
    ) -> None:
        if name in _NOT_OURS:
            raise ValueError(f"database {name} belongs to the server itself")
        if place.over:
            raise MongoMisused(f"{place} is closed: its MockDatabase was")
        self._place = place
        self._owner = owner  # of the server
        self._cleaned = cleaned  # it belongs to another, and is left to that one empty
        self._alias = alias
        self._name = name or f"sepelib_{os.getpid()}_{os.urandom(6).hex()}"
        self._pid = os.getpid()
        self._left: int | None = None
        self._moving = _thread.allocate_lock()  # never held where greenlets switch
        self._client = _connect(place, alias, self._name)
        self._state = _State.OPEN
        try:
            self._check(timeout, is_new=name is not None and not cleaned)
        except BaseException:
            self._disconnect()
            raise
        atexit.register(self.close)

    def _check(self, timeout: float, *, is_new: bool) -> None:
        try:
            with pymongo.timeout(timeout):
                self._client.admin.command("ping")
                taken = is_new and self.db.list_collection_names()
        except PyMongoError as error:
            from ._client import first_words  # a client for daemons: not needed otherwise

            reason = f"{self._place}: {first_words(error)}"
            raise MongoUnavailable(reason, None, self.log_tail()) from error
        if taken:
            raise MongoMisused(
                f"database {self._name} is not empty, and would be dropped: give another name"
            )

    @property
    def connection(self) -> MongoClient[dict[str, Any]]:
        """The client that mongoengine uses for `alias`."""
        return self._client

    @property
    def client(self) -> MongoClient[dict[str, Any]]:
        return self._client

    @property
    def db(self) -> Database[dict[str, Any]]:
        return self._client[self._name]

    @property
    def name(self) -> str:
        return self._name

    @property
    def alias(self) -> str:
        return self._alias

    @property
    def uri(self) -> str:
        """Leads to this database, with user and password if it has them."""
        return naming(self._place.uri, self._name)

    @property
    def server(self) -> MongoServer | None:
        """start(), stop(), kill(), pause() and resume(); None for a URI, and once it is closed."""
        return None if self._place.over else self._place.server

    @property
    def engine(self) -> str:
        """mongod, secantus-rs, secantus-py; or uri."""
        return self._place.engine

    @property
    def pid(self) -> int | None:
        """The server's; None where `server` is."""
        return None if self.server is None else self.server.pid

    @property
    def log_path(self) -> Path | None:
        """The server's stdout and stderr; None where `server` is."""
        return None if self.server is None else self.server.log_path

    def log_tail(self, lines: int = 50) -> str:
        """The last lines of the server's log; none where `server` is None."""
        return "" if self.server is None else self.server.log_tail(lines)

    def supports(self, feature: str) -> bool:
        """Whether the server really does it: tried once, in a database that is dropped.

        *feature*: transactions, change_streams, text, where, geo (results in order of distance) or
        profiler.
        """
        if feature not in FEATURES:
            raise ValueError(f"feature {feature!r}: not one of {', '.join(FEATURES)}")
        known = self._place.features
        if feature not in known:
            known[feature] = probe(self._client, feature)
        return known[feature]

    def sibling(self, *, alias: str, name: str | None = None) -> MockDatabase:
        """Another fresh database on the same server, through the same client."""
        return MockDatabase(self._place, alias, name)

    def cleaned_sibling(self, *, alias: str) -> MockDatabase:
        """This same database under another alias; its close() empties it and drops nothing."""
        return MockDatabase(self._place, alias, self._name, cleaned=True)

    def clean(self) -> None:
        """Empty all collections but the system's. Indexes stay; sequences start anew."""
        for entry in self.db.list_collections():
            if entry["type"] != "view" and not entry["name"].startswith("system."):
                self.db[entry["name"]].delete_many({})
        _forget_counters()

    def drop(self) -> None:
        """Drop the database. Documents make their collections and indexes again at the next use."""
        self._client.drop_database(self._name)
        forget_collections(self._alias)
        _forget_counters()

    def kept(self) -> str:
        """After close() with *keep*: a line that says where everything is."""
        server = self._place.server
        if server is None or server.kept is None:
            return self.uri
        ended = "" if self._left is None else f", until you kill {self._left}"
        return f"{self.uri} in {server.kept}{ended}"

    def close(self) -> None:
        """Disconnect the alias, drop the database, stop the server, remove its files. Idempotent.

        With *keep* database and server stay, and nothing but you ends them. In another process
        than the one that made it: nothing.
        """
        if os.getpid() != self._pid:
            return
        with self._moving:
            if self._state is _State.CLOSED:
                return
            self._state = _State.CLOSED
        atexit.unregister(self.close)
        with contextlib.ExitStack() as stack:
            if self._owner:
                stack.callback(self._place.close)
                if self._place.keep and self.server is not None:
                    stack.callback(self._leave_server, self.server)
            lives = self._place.lives
            stack.callback(self._disconnect, 1.0 if lives else 0.1)
            if lives:
                stack.callback(self._leave_data)

    def _leave_data(self) -> None:
        with pymongo.timeout(_FAREWELL):
            try:
                self._remove_data()
            except AutoReconnect:
                self._remove_data()  # pymongo tries no drop again, and a test may break connections

    def _remove_data(self) -> None:
        if self._cleaned:
            self.clean()
        elif not self._place.keep and not (self._owner and self.server is not None):
            self._client.drop_database(self._name)

    def _leave_server(self, server: MongoServer) -> None:
        self._left = server.leave()
        logging.getLogger(__name__).warning("kept: %s", self.kept())

    def _disconnect(self, seconds: float = 1.0) -> None:
        # The client says goodbye to the server, which may not listen any more.
        with pymongo.timeout(seconds):
            mongoengine.disconnect(self._alias)
        forget_collections(self._alias)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = f"{self._name} at {self._place}"
        return f"<MockDatabase {where} as {self._alias!r} ({self.engine}, {self._state.value})>"


_claimed: dict[str, object] = {}  # aliases that are being connected


def _connect(place: _Place, alias: str, name: str) -> MongoClient[dict[str, Any]]:
    mine = object()
    if _claimed.setdefault(alias, mine) is not mine:  # one step, for threads and greenlets
        raise AliasTaken(alias)
    try:
        if alias in mongoengine.connection._connection_settings:
            raise AliasTaken(alias)
        try:
            client: MongoClient[dict[str, Any]] = mongoengine.connect(
                name, alias=alias, host=place.uri, **place.client_options
            )
        except BaseException:
            mongoengine.disconnect(alias)  # its settings stay registered otherwise
            raise
    finally:
        del _claimed[alias]
    return client


def _forget_counters() -> None:
    # Else a Sequence that has counted here would miss its counter.
    sequences = sys.modules.get("sepelib.mongo.sequence")
    if sequences is not None:
        sequences.forget_counters()
