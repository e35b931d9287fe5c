"""One attempt to come to the head of a queue of contenders; the base of locks and semaphores.

     ┌────────────► ABSENT ──create, answered──► QUEUED ──nobody in the way──► GRANTED
     │               │  ▲                        ▲   │
     │    no answer  ▼  │ not there      there   │   │ own node gone, epoch moved
     │              UNSURE ──────────────────────┘   │
     └───────────────────────────────────────────────┘
    any but GRANTED ──given up, for whatever reason──► LEFT

A node is ours if its GUID is registered with the janitor and its owner is the present session. The
listing that grants was answered after that node was made, by a server that knows the node, so it
shows every contender that came before it.

Watches and sessions only wake: what is true is read again.

Source: the lock recipe of the ZooKeeper documentation; GUIDs after Curator ("protection").
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.exceptions import (
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoChildrenForEphemeralsError,
    NoNodeError,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.protocol.states import KeeperState

from sepelib.zookeeper._queue import Blocker, Place, Queue
from sepelib.zookeeper._wait import Busy, Wait
from sepelib.zookeeper._watch import Watch
from sepelib.zookeeper.errors import ConfigurationError, ZookeeperError, ZookeeperMisused
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["UNANSWERED", "Attempt", "Node", "check_running", "discard"]

_log = getLogger("sepelib.zookeeper.lock")

# What leaves open whether the request was executed.
UNANSWERED = (
    ConnectionLoss,
    ConnectionClosedError,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)

_PARENT_TRIES = 20  # somebody else deletes the parent as often as it is made


class Node(NamedTuple):
    """An own contender node, and when it was ours."""

    path: str
    guid: str
    token: int
    """czxid: grows over the whole ensemble and its life, whatever happens to the parent."""
    epoch: int
    session_id: int

    @property
    def directory(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def check_running(client: Client) -> None:
    """Raise unless *client* has a connection or tries to get one."""
    state = client.client_state
    if state == KeeperState.CLOSED:
        raise ZookeeperMisused("the client is not started, or is stopped already")
    if state == KeeperState.AUTH_FAILED:
        raise ZookeeperError("the servers refuse the client's authentication")


def discard(client: Client, node: Node) -> Any:
    """Delete *node*, for certain and without waiting; the result of the first try, if there is one.

    The calling greenlet may be killed at once: what the first try does not do, the janitor does.
    """

    def hand_over() -> None:
        client._janitor.dispose(node.directory, node.guid, node.name, epoch=node.epoch)

    def done(deletion: Any) -> None:
        if isinstance(deletion.exception, None | NoNodeError):
            client._janitor.release(node.guid)
        else:
            hand_over()

    if client.session.state is not SessionState.CONNECTED:
        hand_over()
        return None
    deletion = client.delete_async(node.path)
    deletion.rawlink(done)
    return deletion


class Phase(enum.Enum):
    ABSENT = "no node of ours is there"
    UNSURE = "one was asked for, and there was no answer"
    QUEUED = "ours stands in the queue"
    GRANTED = "ours is the one"
    LEFT = "given up, nothing is left behind"


_MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.ABSENT: frozenset({Phase.UNSURE, Phase.LEFT}),
    # A semaphore's grant is a request too: unsure before it is answered.
    Phase.UNSURE: frozenset({Phase.ABSENT, Phase.QUEUED, Phase.GRANTED, Phase.LEFT}),
    Phase.QUEUED: frozenset({Phase.ABSENT, Phase.UNSURE, Phase.GRANTED, Phase.LEFT}),
    Phase.GRANTED: frozenset(),
    Phase.LEFT: frozenset(),
}


class Attempt:
    """Stands in the queue of *path* for one caller, until granted or given up."""

    def __init__(
        self,
        client: Client,
        path: str,
        marker: str,
        queue: Queue,
        blocker: Blocker,
        data: Callable[[str], bytes],
        wait: Wait,
        *,
        container: bool = False,
    ) -> None:
        self._client = client
        self._session = client.session
        self._path = path
        self._marker = marker
        self._queue = queue
        self._blocker = blocker
        self._data = data
        self._wait = wait
        self._container = container
        self._named = f"{wait.what} {path}"
        self._phase = Phase.ABSENT
        self._guid = ""
        self._epoch = 0
        self._node: Node | None = None
        self._listing: Any = None
        self._watch: Watch | None = None
        self._parents_made = 0
        self.most_ahead = 0
        """How many contenders were before us at most."""

    def run(self) -> Node:
        """The granted node, whose owner the caller is from now on.

        Busy, TimeIsUp, DeadlineExceeded, Interrupted or a ZookeeperError say why there is none.
        However it ends otherwise, nothing stays behind: what cannot be deleted at once is the
        janitor's.
        """
        unsubscribe = self._session.subscribe(self._wait.wake)
        try:
            while self._step() is not Phase.GRANTED:
                self._wait.breathe()
        except ZookeeperError:
            raise
        except KazooException as e:
            raise ZookeeperError(f"{self._named}: {_words(e)}") from e
        finally:
            unsubscribe()
            self._unwatch()
            if self._phase is not Phase.GRANTED:
                self._abandon()
                self._move(Phase.LEFT)
        assert self._node is not None
        return self._node

    def _step(self) -> Phase:
        self._in_contact()
        steps = {
            Phase.ABSENT: self._join,
            Phase.UNSURE: self._look,
            Phase.QUEUED: self._read_queue,
        }
        steps[self._phase]()
        return self._phase

    def _move(self, phase: Phase) -> None:
        assert phase in _MOVES[self._phase], f"{self._phase} to {phase}"
        self._phase = phase

    def _in_contact(self) -> None:
        """Wait until the session is CONNECTED; a node of a former epoch is left to the janitor."""
        session = self._session

        def settled() -> bool:
            check_running(self._client)
            # After a freeze the lease may be over, and nobody have had the turn yet to say so.
            return session.state is SessionState.CONNECTED and session.holds(session.epoch)

        if not self._wait.blocking and not settled():
            raise Busy
        self._wait.until(settled)
        if self._phase is not Phase.ABSENT and not self._in_epoch():
            self._abandon()
            self._move(Phase.ABSENT)

    def _in_epoch(self) -> bool:
        return self._session.holds(self._epoch)

    def _answered(self, *results: Any) -> bool:
        """Wait for *results*; False when the epoch has gone before."""
        for result in results:
            result.rawlink(self._wait.wake)

        def settled() -> bool:
            return all(result.ready() for result in results) or not self._in_epoch()

        self._wait.until(settled)
        return self._in_epoch() and all(result.ready() for result in results)

    def _join(self) -> None:
        """Make a node, and read the queue in the same round trip."""
        self._unwatch()  # of a former epoch: set or not, nobody knows
        self._epoch = self._session.epoch
        self._guid = guid = self._client._janitor.claim(self._path)
        self._move(Phase.UNSURE)
        created = self._client.create_async(
            f"{self._path}/{guid}{self._marker}",
            self._data(guid),
            ephemeral=True,
            sequence=True,
            include_data=True,
        )
        self._listing = self._list()
        if not self._answered(created, self._listing):
            return
        try:
            path, stat = created.get_nowait()
        except UNANSWERED:
            return
        except NoNodeError:
            self._forget()
            self._make_parent()
        except NoChildrenForEphemeralsError as e:
            self._forget()
            raise ConfigurationError(
                f"{self._named}: is an ephemeral node, which cannot have contenders"
            ) from e
        except KazooException:
            self._forget()
            raise
        else:
            self._stand(path, stat)
            self._judge()

    def _list(self) -> Any:
        return self._client.get_children_async(self._path)

    def _look(self) -> None:
        """Find out what became of a request without an answer."""
        # The listing comes after all that the session has asked for before, on whichever server.
        synced = self._client.sync_async(self._path)
        listing = self._client.get_children_async(self._path)
        if not self._answered(synced, listing):
            return
        try:
            synced.get_nowait()
            children = listing.get_nowait()
        except UNANSWERED:
            return
        except NoNodeError:
            children = []
        name = next((child for child in children if child.startswith(self._guid)), None)
        stat = None
        if name is not None:
            found = self._client.exists_async(f"{self._path}/{name}")
            if not self._answered(found):
                return
            try:
                stat = found.get_nowait()
            except UNANSWERED:
                return
        if stat is not None:
            self._stand(f"{self._path}/{name}", stat)
        else:
            # Under another GUID: should the first create be done after all, its node is not ours.
            self._abandon()
            self._move(Phase.ABSENT)

    def _stand(self, path: str, stat: Any) -> None:
        if stat.ephemeralOwner != self._session.session_id or not self._in_epoch():
            return  # stays UNSURE: the epoch has moved
        self._node = Node(path, self._guid, stat.czxid, self._epoch, stat.ephemeralOwner)
        self._move(Phase.QUEUED)

    def _read_queue(self) -> None:
        self._listing = self._list()
        if self._answered(self._listing):
            self._judge()

    def _judge(self) -> None:
        """Be granted, or wait for the one in the way; later the queue is read again."""
        if self._node is None:
            return
        listing, self._listing = self._listing, None
        try:
            queue = self._queue.order(listing.get_nowait())
        except UNANSWERED:
            return
        except NoNodeError:
            queue = []
        names = [place.name for place in queue]
        if self._node.name not in names:
            self._rejoin()
            return
        ahead = queue[: names.index(self._node.name)]
        self.most_ahead = max(self.most_ahead, len(ahead))
        blocker = self._blocker(ahead)
        if blocker is not None:
            if not self._wait.blocking:
                raise Busy
            self._wait_for(blocker)
        else:
            self._wait.check()
            if self._in_epoch():
                self._move(Phase.GRANTED)

    def _rejoin(self) -> None:
        _log.warning(
            "%s: the own contender was deleted by somebody, rejoined at the end",
            self._named,
            extra=self._fields(),
        )
        self._abandon()
        self._move(Phase.ABSENT)

    def _wait_for(self, place: Place) -> None:
        watch, path = self._watch, f"{self._path}/{place.name}"
        if watch is None or watch.fired or watch.path != path:
            self._unwatch()
            watch = self._watch = Watch(self._client, path, self._wait.wake)
            if not self._answered(watch.answer):
                return
            try:
                watch.answer.get_nowait()
            except (NoNodeError, *UNANSWERED):
                watch.fired = True
                return

        self._until_fired(watch)

    def _until_fired(self, watch: Watch, timeout: float | None = None) -> bool:
        """Wait until there may be something new; False when *timeout* seconds are over first."""

        def moved() -> bool:
            check_running(self._client)
            gone = self._session.state is not SessionState.CONNECTED
            return watch.fired or gone or not self._in_epoch()

        return self._wait.until(moved, timeout)

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.remove()

    def _make_parent(self) -> None:
        self._move(Phase.ABSENT)
        self._count_parents()
        self._ensure(self._path, container=self._container)

    def _count_parents(self) -> None:
        if self._parents_made >= _PARENT_TRIES:
            raise ZookeeperError(f"{self._named}: somebody deletes the parent each time it is made")
        if self._parents_made:
            pause = random.uniform(0, 0.02 * self._parents_made)
            self._wait.until(lambda: False, timeout=pause)
        self._parents_made += 1

    def _ensure(self, path: str, *, container: bool) -> None:
        made = self._client.ensure_parent_async(path, container=container)
        if self._answered(made):
            try:
                made.get_nowait()
            except NoNodeError as e:
                raise ZookeeperError(f"{self._named}: its parent cannot be made: {e}") from e
            except UNANSWERED:
                pass  # the next create tells

    def _forget(self) -> None:
        """The create was refused: there is no node, and there will be none."""
        self._client._janitor.release(self._guid)
        self._guid = ""

    def _abandon(self) -> None:
        """Leave what we have, or may have, in the queue to be deleted. Never yields."""
        guid, self._guid = self._guid, ""
        node, self._node = self._node, None
        if not guid:
            return
        if node is not None:
            discard(self._client, node)
        else:
            janitor = self._client._janitor
            janitor.dispose(self._path, guid, None, epoch=self._epoch)

    def _fields(self) -> dict[str, object]:
        session = f"0x{self._session.session_id:x}"
        token = None if self._node is None else self._node.token
        return {"path": self._path, "guid": self._guid, "session": session, "token": token}


def _words(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()
