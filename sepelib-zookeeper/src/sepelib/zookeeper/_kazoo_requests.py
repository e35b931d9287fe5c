"""Requests that kazoo does not know, and what stands on those of its names which are not public.

The other such module is `_kazoo`, the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kazoo.exceptions import EXCEPTIONS, ZookeeperError
from kazoo.protocol.paths import _prefix_root
from kazoo.protocol.serialization import (
    CheckVersion,
    Create,
    Create2,
    Delete,
    Exists,
    GetData,
    MultiHeader,
    SetData,
    int_struct,
    long_struct,
    read_string,
    stat_struct,
    write_string,
)
from kazoo.protocol.serialization import Transaction as KazooTransaction
from kazoo.protocol.states import Callback, EventType, WatchedEvent, ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

from sepelib.zookeeper._handler import EventWake, Wake

__all__ = [
    "CHILDREN",
    "CONTAINER",
    "DATA",
    "EPHEMERAL",
    "SEQUENCE",
    "CreateContainer",
    "CreateTTL",
    "Multi",
    "WatchesMixin",
    "add_recursive_watch",
    "as_sent",
    "ask",
    "check_version",
    "create",
    "delete",
    "drop_watch",
    "full_path",
    "remove_recursive_watch",
    "remove_watches",
    "set_data",
    "set_watches",
    "tell_recursive_watches",
]

EPHEMERAL, SEQUENCE, CONTAINER, _TTL, _TTL_SEQUENCE = 1, 2, 4, 5, 6  # CreateMode of the server
CHILDREN, DATA, _ANY = 1, 2, 3  # WatcherType
_RECURSIVE = 1  # AddWatchMode
_EVENTS = {1: EventType.CREATED, 2: EventType.DELETED, 3: EventType.CHANGED}


class CreateContainer(Create2):  # type: ignore[misc]
    """An empty container node is removed by the server, once it has had a child."""

    type = 19


class CreateTTL(NamedTuple):
    """A node that the server removes after *ttl* milliseconds without a change or a child."""

    path: str
    data: bytes
    acl: Any
    flags: int
    ttl: int
    type: int = 21

    def serialize(self) -> bytes:
        plain = Create2(self.path, self.data, self.acl, self.flags).serialize()
        return bytes(plain + long_struct.pack(self.ttl))

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> Any:
        return Create2.deserialize(data, offset)


class _RemoveWatches(NamedTuple):
    path: str
    kind: int
    answered: Callable[[], None]
    type: int = 18

    def serialize(self) -> bytes:
        return bytes(write_string(self.path) + int_struct.pack(self.kind))

    def deserialize(self, data: bytes, offset: int) -> bool:
        # Here and not in a callback of the result: watches asked for behind this request are
        # answered, and so kept by the client, behind this answer.
        self.answered()
        return True


class _AddWatch(NamedTuple):
    path: str
    mode: int
    type: int = 106

    def serialize(self) -> bytes:
        return bytes(write_string(self.path) + int_struct.pack(self.mode))

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> bool:
        return True


class Multi(NamedTuple):
    """Several operations, of which all are done or none.

    The answer is read completely: kazoo's parser stops at the types it does not know, and leaves
    out what is empty.
    """

    operations: Sequence[Any]
    type: int = KazooTransaction.type

    def serialize(self) -> bytes:
        return bytes(KazooTransaction(self.operations).serialize())

    def deserialize(self, data: bytes, offset: int) -> list[Any]:
        results: list[Any] = []
        header, offset = MultiHeader.deserialize(data, offset)
        while not header.done:
            result, offset = _RESULTS[header.type](data, offset)
            results.append(result)
            header, offset = MultiHeader.deserialize(data, offset)
        return results


def _path_result(data: bytes, offset: int) -> tuple[Any, int]:
    path, offset = read_string(data, offset)
    return path, offset


def _path_and_stat_result(data: bytes, offset: int) -> tuple[Any, int]:
    path, offset = read_string(data, offset)
    stat, offset = _stat_result(data, offset)
    return (path, stat), offset


def _stat_result(data: bytes, offset: int) -> tuple[Any, int]:
    return ZnodeStat._make(stat_struct.unpack_from(data, offset)), offset + stat_struct.size


def _empty_result(data: bytes, offset: int) -> tuple[Any, int]:
    return True, offset


def _error_result(data: bytes, offset: int) -> tuple[Any, int]:
    (code,) = int_struct.unpack_from(data, offset)
    # By a plain look-up: for a code of a newer server, EXCEPTIONS[code] ends the connection.
    kind = EXCEPTIONS.get(code)
    error = ZookeeperError(f"error {code}") if kind is None else kind()
    return error, offset + int_struct.size


_RESULTS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    -1: _error_result,
    Create.type: _path_result,
    Create2.type: _path_and_stat_result,  # as the server answers the create of a container
    Delete.type: _empty_result,
    SetData.type: _stat_result,
    CheckVersion.type: _empty_result,
}


class WatchesMixin:
    """What the client does with the watches of a connection that is gone."""

    handler: Any
    chroot: str
    _state: Any
    _stopped: Any
    _child_watchers: Any
    _data_watchers: Any
    unchroot: Callable[[str], str]
    _recursive_offered = True
    _recursive_unanswered = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._recursive_watchers: dict[str, set[EventWake]] = {}  # by full path
        super().__init__(*args, **kwargs)

    def _reset_watchers(self) -> None:
        self._recursive_watchers.clear()
        # kazoo calls them without the path, by which the handler keeps calls in order.
        for watchers in self._child_watchers, self._data_watchers:
            gone = list(watchers.items())
            watchers.clear()
            for full, functions in gone:
                event = WatchedEvent(EventType.NONE, self._state, self.unchroot(full))
                for function in functions:
                    # A client that is stopped calls nobody; those who wait for it wake up.
                    if self._stopped.is_set() and not isinstance(function, Wake):
                        continue
                    self.handler.dispatch_callback(Callback("watch", function, (event,)))


def full_path(client: Any, path: str, *, trailing: bool = False) -> str:
    """*path* behind the chroot of *client*, normalized; *trailing* keeps a slash at the end."""
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    return str(_prefix_root(client.chroot, path, trailing=trailing))


def ask(client: Any, request: Any) -> Any:
    """Send *request* behind those before it; its result, which fails when it cannot be sent."""
    result = client.handler.async_result()
    client._call(request, result)
    return result


def create(path: str, data: bytes, acl: Any, flags: int, *, ttl: float | None = None) -> Any:
    """The request for a node at the full *path*.

    Answered with its path; with (path, stat) for a container and with a *ttl*.
    """
    acl = acl or OPEN_ACL_UNSAFE
    if ttl is not None:
        flags = _TTL_SEQUENCE if flags & SEQUENCE else _TTL
        return CreateTTL(path, data, acl, flags, round(ttl * 1000))
    if flags == CONTAINER:
        return CreateContainer(path, data, acl, flags)
    return Create(path, data, acl, flags)


delete = Delete
set_data = SetData
check_version = CheckVersion


def set_watches(client: Any, full: str, kind: int) -> set[Any]:
    """The watch functions that wait for the next event of a path."""
    watchers = client._child_watchers if kind == CHILDREN else client._data_watchers
    return set(watchers.get(full, ()))


def drop_watch(client: Any, full: str, kind: int, function: Any) -> None:
    """Forget one watch function, or all of the path for None; the server is not told."""
    watchers = client._child_watchers if kind == CHILDREN else client._data_watchers
    functions = watchers.get(full)
    if functions is None:
        return
    if function is None:
        functions.clear()
    else:
        functions.discard(function)
    if not functions:
        del watchers[full]


def remove_watches(client: Any, full: str, kind: int, function: Any) -> Any:
    """Ask the server to forget its watch of a path; it has one for all functions of a client.

    At its answer *function* (all of them for None) is dropped; the others, asked for meanwhile,
    are called with an event of the type NONE, since nothing watches for them any more.
    """
    if kind == DATA and full in client._recursive_watchers:  # There is no other on the server.
        result = client.handler.async_result()
        result.set(True)
        return result

    def answered() -> None:
        drop_watch(client, full, kind, function)
        others = set_watches(client, full, kind)
        drop_watch(client, full, kind, None)
        _tell(client, full, others)

    return ask(client, _RemoveWatches(full, kind, answered))


def add_recursive_watch(client: Any, path: str, function: EventWake) -> Any:
    """Call *function* with each event of *path* and all below it; from 3.6 of the server on.

    The result fails with UnimplementedError on an older one, which closes the connection then. The
    watch is gone with the connection, and *function* is not told.

    Servers before 3.9 know one mode for a path of a session, the last that was asked for
    (ZOOKEEPER-4466). So what watches *path* itself, for data, is told through this watch, see
    `as_sent()`; and what watched it before is called with an event of the type NONE.
    """
    full = full_path(client, path)
    client._recursive_watchers.setdefault(full, set()).add(function)
    result = ask(client, _AddWatch(full, _RECURSIVE))

    def answered(result: Any) -> None:
        if not result.successful():
            _forget(client, full, function)
            # Behind all that was sent without a watch of its own meanwhile.
            result = ask(client, Exists(full, None))
        result.rawlink(lambda _: _tell_single_watches(client, full))

    result.rawlink(answered)
    return result


def remove_recursive_watch(client: Any, path: str, function: EventWake) -> None:
    """Call *function* no more; the last one of a path takes the watch off the server."""
    full = full_path(client, path)
    if _forget(client, full, function) and full not in client._recursive_watchers:
        result = ask(client, _RemoveWatches(full, _ANY, lambda: None))
        result.rawlink(lambda _: _tell_single_watches(client, full))


def tell_recursive_watches(client: Any, kind: int, full: str) -> None:
    """Call those that watch the full path, or what it is below, with an event of that type."""
    if kind not in _EVENTS or client._stopped.is_set():
        return
    event = WatchedEvent(_EVENTS[kind], client._state, client.unchroot(full))
    above = full
    while above:
        for function in tuple(client._recursive_watchers.get(above, ())):
            client.handler.dispatch_callback(Callback("watch", function, (event,)))
        above = above.rpartition("/")[0] or ("/" if above != "/" else "")


def as_sent(client: Any, request: Any) -> Any:
    """*request* as the server gets it: without a watch of its own where a recursive one is."""
    watchers = client._recursive_watchers
    if watchers and isinstance(request, GetData | Exists) and request.path in watchers:
        return request._replace(watcher=None)
    return request


def _forget(client: Any, full: str, function: EventWake) -> bool:
    functions = client._recursive_watchers.get(full, set())
    if function not in functions:
        return False
    functions.discard(function)
    if not functions:
        del client._recursive_watchers[full]
    return True


def _tell_single_watches(client: Any, full: str) -> None:
    """They may be gone from the server: let them be set again."""
    for kind in DATA, CHILDREN:
        functions = set_watches(client, full, kind)
        drop_watch(client, full, kind, None)
        _tell(client, full, functions)


def _tell(client: Any, full: str, functions: set[Any]) -> None:
    event = WatchedEvent(EventType.NONE, client._state, client.unchroot(full))
    for function in functions:
        client.handler.dispatch_callback(Callback("watch", function, (event,)))
