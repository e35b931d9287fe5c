"""What a consumer knows of a queue: which item to try next, and when to look again.

A listing is used for many items, since one of thousands costs more than all the rest. What makes
that right: every priority has a directory of its own, so a more urgent item fires the watch of
another directory, and whatever comes into a listed one goes behind what is listed already. Items
that come back to their places are seen with the next listing, a second later at most.

Consumers that run into each other spread over the first few items. One that finds items done by
others skips some at each step from then on, more with each that it finds: the others take them, or
the next listing shows them again.
"""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from kazoo.exceptions import NoNodeError

from sepelib.zookeeper._call import Call
from sepelib.zookeeper._contender import check_running
from sepelib.zookeeper._queue import Queue as Order
from sepelib.zookeeper._queue_claims import CLAIMS, Refusal, claimed
from sepelib.zookeeper._queue_slots import make_directory
from sepelib.zookeeper._wait import Busy, Wait
from sepelib.zookeeper._watch import Watch
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Pick", "View", "directories"]

_FRESH = 1.0
"""Seconds for which a listing is used, and all is kept when nobody asks."""
_CROWD = 50
"""So many other consumers at most are made room for."""

_PRIORITY = re.compile(r"[0-9]{3}\Z")
_ITEMS = Order(["-"])


def directories(path: str, children: Iterable[str]) -> list[str]:
    """Those of the items, the most urgent first, among the *children* of the queue at *path*."""
    return [f"{path}/{name}" for name in sorted(children) if _PRIORITY.match(name)]


class Pick(NamedTuple):
    path: str
    """Of the item."""
    claims: Watch | None
    """The listing of claims that was known by then."""


class _Shelf:
    """The items of one directory that are yet to be tried, in order."""

    def __init__(self) -> None:
        self.names: deque[str] = deque()
        self.listed = 0.0

    def usable(self) -> bool:
        return bool(self.names) and time.monotonic() - self.listed < _FRESH


class View:
    """For the greenlets of one queue object. *own*: the names of items that are not to be tried."""

    def __init__(self, client: Client, path: str, own: Container[str]) -> None:
        self._client = client
        self._path = path
        self._claims = f"{path}/{CLAIMS}"
        self._own = own
        self._watches: dict[str, Watch] = {}
        self._shelves: dict[str, _Shelf] = {}
        self._current = ""
        """The directory from which items are taken."""
        self._stale = False
        self._refused: set[str] = set()
        """Taken by others, though the listing of claims does not show it."""
        self._crowd = 0
        """How many other consumers there seem to be."""
        self._gap = 1
        """How many items the others take while this one takes one, and one."""
        self._looking = False
        self._lookers: set[Wait] = set()
        self.waiting = False
        """Somebody waits for the others too: what they hold matters from the beginning."""
        self._waiter: Wait | None = None
        self._users = 0
        self._timer: Any = None

    def __enter__(self) -> None:
        """While it is in use its watches stay."""
        self._users += 1
        if self._timer is not None:
            self._timer.stop()

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            if self._timer is None:
                self._timer = gevent.get_hub().loop.timer(_FRESH, _FRESH, ref=False)
            # From now on: start() would go on where it was stopped.
            self._timer.again(self._tidy)

    def pick(self, call: Call) -> Pick | None:
        """An item to be tried; None when there is nothing free."""
        while True:
            if self._usable():
                return Pick(self._pop(), self._watches.get(self._claims))
            self._take_turn(call)
            try:
                if not self._usable() and not self._look(call):
                    return None
            finally:
                self._looking = False
                for wait in self._lookers:
                    wait.wake()

    def _take_turn(self, call: Call) -> None:
        """One looks for all; who does not wait for items waits for that, not for a connection."""

        def is_free() -> bool:
            if not call.wait.blocking and self._client.session.state is not SessionState.CONNECTED:
                raise Busy
            return not self._looking

        self._lookers.add(call.wait)
        try:
            call.wait.until(is_free)
        finally:
            self._lookers.discard(call.wait)
        self._looking = True

    def tried(self, pick: Pick, refusal: Refusal | None) -> None:
        """What became of the item that was picked."""
        if refusal is None:
            self._gap = max(self._gap - 1, 1)
            return
        self._crowd = min(self._crowd + 1, _CROWD)
        if refusal is Refusal.TAKEN:
            # Before the latest listing of claims it may have come back, and no watch would tell.
            if pick.claims is not None and pick.claims is self._watches.get(self._claims):
                self._refused.add(pick.path.rpartition("/")[2])
        else:
            self._gap = min(self._gap + 2, _CROWD)

    def changed(self) -> None:
        """An item has come back: no listing shows it."""
        self._stale = True
        self._wake()

    def until_changed(self, call: Call) -> None:
        """Wait until there may be something free; for one greenlet at a time."""

        def changed() -> bool:
            check_running(self._client)
            # With the connection the watches are gone: each of them has fired. Another greenlet
            # may have looked, and have left something.
            return (
                self._stale
                or any(watch.fired for watch in self._watches.values())
                or any(shelf.names for shelf in self._shelves.values())
            )

        self._waiter = call.wait
        try:
            call.wait.until(changed)
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()

    def _usable(self) -> bool:
        shelf = self._shelves.get(self._current)
        if shelf is None or not shelf.usable() or self._stale:
            return False
        # The watch of the directory itself has fired by now; of the less urgent ones nothing
        # has to be known. That of the queue is the shortest path.
        return all(
            not watch.fired or path >= self._current for path, watch in self._watches.items()
        )

    def _pop(self) -> str:
        names = self._shelves[self._current].names
        for _ in range(min(self._gap, len(names)) - 1):
            names.popleft()
        index = random.randrange(min(len(names), 2 * self._crowd + 1))
        name = names[index]
        del names[index]
        return f"{self._current}/{name}"

    # Looking.

    def _look(self, call: Call) -> bool:
        """Whether there is something to be tried. What is known for certain is not asked again."""
        if self._stale:
            self._stale = False
            self._shelves.clear()
        taken = self._taken(call)
        for directory in self._directories(call):
            shelf = self._shelves.setdefault(directory, _Shelf())
            if not shelf.usable():
                names = [
                    place.name for place in _ITEMS.order(self._children(call, directory) or ())
                ]
                shelf.names = deque(n for n in names if n not in taken and n not in self._own)
                shelf.listed = time.monotonic()
            if shelf.names:
                self._current = directory
                return True
        return False

    def _taken(self, call: Call) -> set[str]:
        """The items that others have, as far as that has mattered yet."""
        watch = self._watches.get(self._claims)
        if watch is None or watch.fired:
            self._watches.pop(self._claims, None)
            if not self._crowd and not self.waiting:
                return set()
            self._refused.clear()
        others = claimed(self._children(call, self._claims) or ()) | self._refused
        others = {name for name in others if name not in self._own}
        self._crowd = min(len(others), _CROWD)
        return others

    def _directories(self, call: Call) -> list[str]:
        while True:
            children = self._children(call, self._path)
            if children is None:
                make_directory(call, self._path)
                continue
            found = directories(self._path, children)
            for path in self._watches.keys() - {self._path, self._claims, *found}:
                self._watches.pop(path).remove()
            for path in self._shelves.keys() - set(found):
                del self._shelves[path]
            return found

    def _children(self, call: Call, path: str) -> list[str] | None:
        """As they are, and watched from then on; None if there is no such node."""
        watch = self._watches.get(path)
        if watch is None or watch.fired:
            self._watches.pop(path, None)
            try:
                watch = self._watches[path] = self._watch(call, path)
            except NoNodeError:
                return None
        children: list[str] = watch.value
        return children

    def _watch(self, call: Call, path: str) -> Watch:
        """As `Call.watch()`, but it outlives the call."""
        watch: Watch | None = None

        def ask() -> Any:
            nonlocal watch
            if watch is not None:
                watch.remove()  # the answer may be late, and set it
            watch = Watch(self._client, path, self._wake, "children")
            return watch.answer

        try:
            call.read(ask)
        except NoNodeError:
            raise
        except BaseException:
            if watch is not None:
                watch.remove()
            raise
        assert watch is not None
        return watch

    def _tidy(self) -> None:
        self._timer.stop()
        self._shelves.clear()
        while self._watches:
            self._watches.popitem()[1].remove()
