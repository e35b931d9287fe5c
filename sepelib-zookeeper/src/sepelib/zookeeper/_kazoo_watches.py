"""Watches as kazoo keeps them, and what it does not have: recursive ones, and their removal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from kazoo.protocol.serialization import Exists, GetData, int_struct, write_string
from kazoo.protocol.states import Callback, EventType, WatchedEvent

from sepelib.zookeeper._handler import EventWake, Wake
from sepelib.zookeeper._kazoo_requests import ask, full_path

__all__ = [
    "CHILDREN",
    "DATA",
    "WatchesMixin",
    "add_recursive_watch",
    "as_sent",
    "drop_watch",
    "remove_recursive_watch",
    "remove_watches",
    "set_watches",
    "tell_recursive_watches",
    "watches_of",
]

CHILDREN, DATA, _ANY = 1, 2, 3  # WatcherType of the server
_RECURSIVE = 1  # AddWatchMode
_EVENTS = {1: EventType.CREATED, 2: EventType.DELETED, 3: EventType.CHANGED}


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._recursive_watchers: dict[str, set[EventWake]] = {}  # by full path
        self._recursive_unanswered: set[float] = set()  # connections that have ended instead
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
        for asked in client._pending, client._queue:
            _let_unwatched(asked, full, function)
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


def watches_of(client: Any, function: Any) -> Iterator[tuple[str, Literal["data", "children"]]]:
    """The paths that *function* watches, other than by a recursive watch."""
    for full, functions in client._data_watchers.items():
        if function in functions:
            yield client.unchroot(full), "data"
    for full, functions in client._child_watchers.items():
        if function in functions:
            yield client.unchroot(full), "children"


def _let_unwatched(asked: deque[Any], full: str, function: Any) -> None:
    for number, (request, *rest) in enumerate(asked):
        if (
            isinstance(request, GetData | Exists)
            and request.path == full
            and function in (None, request.watcher)
        ):
            asked[number] = (request._replace(watcher=None), *rest)


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
