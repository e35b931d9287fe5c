"""Reads a tree, and goes on to read what changes, over one connection.

The watch is asked for before what it watches is read, on one connection, which keeps the order: so
a change is seen by the read or told by an event behind it. An event only says which node is to be
read again; what is true is the answer. Answers are used in the order of the reads, so no state
follows a later one.

A server from 3.6 on has one recursive watch for all of it. On an older one each node has two, one
for its data and one for its children.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from logging import DEBUG, WARNING, getLogger
from typing import TYPE_CHECKING, Any, Literal

import gevent
from kazoo.exceptions import ConnectionLoss, NoAuthError, NoNodeError, UnimplementedError
from kazoo.protocol.states import EventType

from sepelib.zookeeper import _kazoo_watches as wire
from sepelib.zookeeper._contender import UNANSWERED
from sepelib.zookeeper._handler import EventWake
from sepelib.zookeeper._tree import Put, Tree, below
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Reader"]

_log = getLogger("sepelib.zookeeper.cache")

_IN_FLIGHT = 100  # requests without an answer, at most
_PAUSE = 0.5  # seconds, after an error that tells nothing of the node

_TRIES = 3
"""Connections, one after the other, that end without an answer to what an older server refuses."""

_Read = tuple[str, Literal["get", "exists", "children"]]

# What is known of a read that is wanted.
_SENT, _WALK, _AGAIN = 1, 2, 4


class Reader:
    """Ended by its owner when the connection is; all of it for the hub, nothing waits.

    *walked* is called once all is read that was there at the begin, *restart* when it must begin
    anew on the same connection. Below *max_depth* levels under the root nothing is read.
    """

    def __init__(
        self,
        client: Client,
        tree: Tree,
        max_depth: int | None,
        walked: Callable[[], object],
        restart: Callable[[], object],
    ) -> None:
        self._client = client
        self._tree = tree
        self._max_depth = max_depth
        self._walked = walked
        self._restart = restart
        self._recursive = client._recursive_offered
        self._wake = EventWake(self._see)
        self._reads: dict[_Read, int] = {}
        self._queue: deque[_Read] = deque()
        self._in_flight = 0
        self._walking = 0
        self._troubles = 0
        self._connection = client._connection.connect_sent
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether all was read that was there at the begin."""
        return not self._walking

    def start(self) -> None:
        self._want((self._tree.root, "get"), walk=True)
        if not self._recursive:
            self._send()
            return
        # Nothing is sent behind this before it is answered: an older server closes the connection
        # with its answer, which is lost when there is something that it has not read.
        watch = wire.add_recursive_watch(self._client, self._tree.root, self._wake)
        watch.rawlink(self._watched)

    def end(self) -> None:
        """Read no more: the connection is gone, and the watches with it."""
        self._ended = True

    def take_back(self) -> None:
        """Read no more, and leave no watch on the server."""
        self._ended = True
        if self._recursive:
            wire.remove_recursive_watch(self._client, self._tree.root, self._wake)
            return
        left = set(wire.watches_of(self._client, self._wake))
        for (path, what), state in self._reads.items():
            if state & _SENT:  # the answer will set it
                left.add((path, "children" if what == "children" else "data"))
        for path, kind in left:
            self._client.remove_watches_async(path, self._wake, kind=kind)

    def _watched(self, result: Any) -> None:
        client, error = self._client, result.exception
        silent = client._recursive_unanswered
        if error is None:
            silent.clear()
        elif isinstance(error, ConnectionLoss) and result.left:
            silent.add(self._connection)
        unknown = isinstance(error, UnimplementedError) or len(silent) >= _TRIES
        if unknown and client._recursive_offered:
            client._recursive_offered = False
            _log.info("no recursive watches here, so each node is watched for itself: %r", error)
        if self._ended:
            return
        if error is None:
            self._send()
        elif client.session.state is SessionState.CONNECTED:
            if unknown or isinstance(error, UNANSWERED):
                self._restart()
            else:
                self._later(self._restart, self._tree.root, error)

    def _see(self, event: Any) -> None:
        if self._ended or self._too_deep(event.path):
            return
        if event.type != EventType.CHILD:
            self._want((event.path, "get"))
        if event.type in (EventType.CHILD, EventType.NONE):
            self._want((event.path, "children"))
        self._send()

    def _too_deep(self, path: str, more: int = 0) -> bool:
        limit = self._max_depth
        return limit is not None and len(self._tree.parts(path)) + more > limit

    def _want(self, read: _Read, *, walk: bool = False) -> None:
        state = self._reads.get(read)
        if state is None:
            state = 0
            self._queue.append(read)
        elif state & _SENT:
            state |= _AGAIN
        if walk and not state & _WALK:
            self._walking += 1
            state |= _WALK
        self._reads[read] = state

    def _send(self) -> None:
        client = self._client
        ask = {
            "get": client.get_async,
            "exists": client.exists_async,
            "children": client.get_children_async,
        }
        watch = None if self._recursive else self._wake
        while self._queue and self._in_flight < _IN_FLIGHT:
            read = path, what = self._queue.popleft()
            self._reads[read] |= _SENT
            self._in_flight += 1
            ask[what](path, watch).rawlink(partial(self._answered, read))

    def _answered(self, read: _Read, result: Any) -> None:
        if self._ended:
            return
        path, what = read
        self._in_flight -= 1
        state = self._reads.pop(read)
        walk = bool(state & _WALK)
        try:
            value = result.get_nowait()
        except NoNodeError:
            self._gone(path)
        except UNANSWERED:
            if self._client.session.state is not SessionState.CONNECTED:
                return  # The owner is told of that.
            self._want(read, walk=walk)
        except NoAuthError as error:
            self._note_trouble(path, error, "it is not there")
            self._tree.remove(path)
        except Exception as error:  # of a server in trouble: it says nothing of the node
            self._later(partial(self._again, read, walk), path, error)
            walk = False  # it goes on
        else:
            if what == "get":
                self._found(path, value, walk)
            elif what == "children":
                self._listed(path, value, walk)
            elif value is not None:
                self._want((path, "get"))
        if state & _AGAIN:
            self._want(read)
        self._send()
        if walk:
            self._note_step()

    def _again(self, read: _Read, walk: bool) -> None:
        self._want(read, walk=walk)
        self._send()
        if walk:
            self._note_step()

    def _note_step(self) -> None:
        self._walking -= 1
        if not self._walking:
            self._walked()

    def _found(self, path: str, value: Any, walk: bool) -> None:
        put = self._tree.put(path, value)
        # One without a parent is found again once the parent is: that is still to be read.
        if put is Put.HOMELESS or not (walk or put is Put.NEW) or self._too_deep(path, 1):
            return
        if value[1].numChildren or not self._recursive:
            self._want((path, "children"), walk=walk)
        else:
            self._want_all(path, self._tree.children(path) or (), walk)

    def _listed(self, path: str, names: list[str], walk: bool) -> None:
        known = self._tree.children(path)
        if known is None:
            return
        there = frozenset(names)
        self._want_all(path, there if walk else there - known, walk)
        self._want_all(path, known - there, walk)  # to be told that they are gone

    def _want_all(self, path: str, names: Iterable[str], walk: bool) -> None:
        for name in names:
            self._want((below(path, name), "get"), walk=walk)

    def _gone(self, path: str) -> None:
        self._tree.remove(path)
        if path == self._tree.root and not self._recursive:
            self._want((path, "exists"))

    def _later(self, call: Callable[[], object], path: str, error: Exception) -> None:
        self._note_trouble(path, error, f"that is tried again in {_PAUSE:g} s")

        def run() -> None:
            timer.close()
            if not self._ended:
                call()

        timer = gevent.get_hub().loop.timer(_PAUSE)
        timer.start(run)

    def _note_trouble(self, path: str, error: Exception, so: str) -> None:
        self._troubles += 1
        _log.log(
            WARNING if self._troubles == 1 else DEBUG,
            "tree cache %s: %s cannot be read, so %s: %r",
            self._tree.root,
            path,
            so,
            error,
            extra={"path": path},
        )
