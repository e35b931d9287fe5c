"""Many readers or one writer at a path, in the order in which they came.     Status: production.

    with ReadLock(client, "/config") as lock:       # beside other readers
        ...
    lock = WriteLock(client, "/config")             # alone
    lock.acquire()
    reader = lock.downgrade()                       # no other writer gets in between

A contender waits for those that came before it: a writer for all of them, a reader for the writers.
So a reader waits behind a writer that waits, and no stream of readers starves a writer.

There is no upgrade: two readers that want to write would wait for each other. A greenlet that reads
and asks to write gets WouldDeadlock, as does one that writes and asks to read (`downgrade()`), and
one that reads and would wait for a writer which waits for that very reader. What counts is which
greenlet has acquired: who passes its lock on to another one is still taken for its holder.

All else is as for `Lock`. On the wire these are kazoo's ReadLock and WriteLock; a plain Lock at the
same path waits for writers and not for readers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

import gevent
from kazoo.exceptions import NodeExistsError, NoNodeError

from sepelib.zookeeper._contender import UNANSWERED, Node
from sepelib.zookeeper._grant import Grant
from sepelib.zookeeper._queue import LOCK, READ, Blocker, Place
from sepelib.zookeeper._wait import TimeIsUp, Wait
from sepelib.zookeeper.client import Client
from sepelib.zookeeper.errors import WouldDeadlock, ZookeeperError, ZookeeperTimeout
from sepelib.zookeeper.lock import Lock
from sepelib.zookeeper.session import SessionState

__all__ = ["ReadLock", "WriteLock"]


class _Options(TypedDict, total=False):
    """Those of a Lock."""

    extra_lock_patterns: Sequence[str]
    on_lost: Callable[[Any, str], object] | None
    on_revoke: Callable[[Any], object] | None
    container: bool
    strict: bool
    path_class: str


# What each greenlet has acquired; what has ended meanwhile is dropped when there is more.
_taken: weakref.WeakKeyDictionary[Any, list[Grant]] = weakref.WeakKeyDictionary()


class _Shared(Lock):
    """One of the two kinds. Knows what its greenlet holds at the same path by other objects."""

    _OTHER: ClassVar[str]
    """The marker of the other kind."""
    _ADVICE: ClassVar[str]
    """For a caller that holds the other kind, and so would wait for itself."""

    def _obtain(self, wait: Wait) -> None:
        if any(self._OTHER in name for name in self._held_by_caller()):
            raise WouldDeadlock(self.path, self._ADVICE)
        super()._obtain(wait)

    def _hold(self, node: Node, wait: Wait) -> Grant:
        grant = super()._hold(node, wait)
        me = gevent.getcurrent()
        _taken[me] = [*(taken for taken in _taken.get(me, ()) if taken.held), grant]
        return grant

    def _held_by_caller(self) -> list[str]:
        """The names of its nodes at this path."""
        taken = _taken.get(gevent.getcurrent(), ())
        directory, client = self.path, self._client
        return [
            grant.node.name
            for grant in taken
            if grant.held and grant.node.directory == directory and grant._client is client
        ]


class ReadLock(_Shared):
    """Held by any number of readers while no writer came before them."""

    _MARKER = READ
    _RIVALS = (LOCK,)
    _IGNORED = frozenset({READ})
    _OTHER = LOCK
    _ADVICE = "this greenlet holds the write lock: downgrade() makes it a read lock"

    def _blocker(self, wait: Wait) -> Blocker:
        blocker = super()._blocker(wait)
        return self._unless_hopeless(blocker) if wait.blocking else blocker

    def _unless_hopeless(self, blocker: Blocker) -> Blocker:
        def checked(ahead: Sequence[Place]) -> Place | None:
            writer = blocker(ahead)
            if writer is not None:
                mine = self._held_by_caller()
                if any(place.name in mine for place in ahead[: ahead.index(writer)]):
                    raise WouldDeadlock(
                        self.path,
                        "this greenlet reads already, and a writer waits for that: use the lock "
                        "that is held",
                    )
            return writer

        return checked


class WriteLock(_Shared):
    """Held by one writer, and by no reader at the same time."""

    _MARKER = LOCK
    _RIVALS = (LOCK, READ)
    _OTHER = READ
    _ADVICE = "this greenlet holds a read lock, which cannot become a write lock: release it first"

    def __init__(
        self,
        client: Client,
        path: str,
        identifier: str | None = None,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(client, path, identifier, **options)
        self._reader: Callable[[], ReadLock] = lambda: ReadLock(client, path, identifier, **options)

    def downgrade(self, timeout: float | None = None) -> ReadLock:
        """Hold a read lock instead, which is returned; readers that wait come in.

        Nobody else holds the write lock in between, whatever happens to the connection: the read
        node is there before the write node goes, and in its place of the queue, so ahead of the
        writers that wait. That is why the `fencing_token` stays what it was, while others see the
        node's own in `contenders()`.

        LockLost when the lock is lost, before or meanwhile, LockNotAcquired if it was not held.
        ZookeeperTimeout after *timeout* seconds (None: the client's `request_timeout`): then, and
        after all else that is raised, the write lock is held as before.
        """
        self._client.check_thread("WriteLock.downgrade()")
        write = self._granted()
        write.check()
        wait = Wait.for_answer(self.path, timeout, self._client.request_timeout)
        node = self._make_read_node(write, wait)
        # No yield up to the release.
        reader = self._reader()
        reader._turns.take(wait)
        reader._hold(node, wait)
        try:
            self._own.pop(gevent.getcurrent(), None)
            self._give_up(write)
        except BaseException:
            reader.release()  # nobody would ever know of it
            raise
        return reader

    def _make_read_node(self, write: Grant, wait: Wait) -> Node:
        """Where the write node stands: others compare sequences, and these are the same."""
        guid = self._client._janitor.claim(self.path)
        sequence = write.node.name.rpartition(LOCK)[2]
        node = write.node._replace(path=f"{self.path}/{guid}{READ}{sequence}", guid=guid)
        unsubscribe = self._client.session.subscribe(wait.wake)
        try:
            while not self._create(node, write, wait):
                pass
            write.check()
        except BaseException as e:
            self._client._janitor.dispose(self.path, guid, None, epoch=node.epoch)
            if isinstance(e, TimeIsUp):
                sentence = f"lock {self.path}: not downgraded in {wait.waited():.3g} s"
                raise ZookeeperTimeout(sentence) from e
            raise
        finally:
            unsubscribe()
        return node

    def _create(self, node: Node, write: Grant, wait: Wait) -> bool:
        """Whether the node is there beside the write node; False when nobody knows."""
        client, session = self._client, self._client.session
        wait.until(lambda: session.state is SessionState.CONNECTED or not write.held)
        write.check()
        created = client.create_async(node.path, self._data(node.guid), ephemeral=True)
        # Answered later than the create: so there was no moment with neither of the two.
        beside = client.exists_async(write.node.path)
        for answer in (created, beside):
            answer.rawlink(wait.wake)
        wait.until(lambda: (created.ready() and beside.ready()) or not write.held)
        write.check()
        refusal = created.exception
        if isinstance(refusal, UNANSWERED) or beside.exception is not None:
            return False
        if isinstance(refusal, NoNodeError) or beside.value is None:
            write.gone()
            write.check()
        # It exists by an earlier create, whose answer was lost: the GUID is ours alone.
        if refusal is not None and not isinstance(refusal, NodeExistsError):
            raise ZookeeperError(f"lock {self.path}: not downgraded: {refusal!r}") from refusal
        return True
