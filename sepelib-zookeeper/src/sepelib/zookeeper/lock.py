"""Locks that never say "held" when another may hold them.     Status: production.

    with Lock(client, "/jobs/nightly") as lock:
        rows = compute()
        lock.check()                                    # LockLost when it is not ours any more
        store.write(rows, fence=lock.fencing_token)     # a store that refuses older tokens is safe

Held means: an own node stands at the head of the queue, seen there in the present epoch of the
session, and the session's lease is on. When that ends the holder is told (`lost`, `on_lost`), by
its own clock if the servers cannot be heard, and before they can give the lock to another.

No call leaves a node behind: not by a timeout, an interrupt, GreenletExit, gevent.Timeout or
KeyboardInterrupt, at whatever moment. What cannot be deleted at once the client's janitor deletes.

On the wire these are kazoo's locks: contenders of both exclude each other.

Sharing: a lock object is for all greenlets of its client's hub, which get it one after the other in
the order in which they asked. `is_acquired`, `cancel()` and `interrupt()` are for any thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from logging import getLogger
from typing import Any, ClassVar, Self

import gevent
import gevent.event

from sepelib.zookeeper._contender import Attempt, Node
from sepelib.zookeeper._grant import Grant, Strike, Tenure
from sepelib.zookeeper._identity import Contender, contenders, identity, normal_path
from sepelib.zookeeper._lock_meters import LockMeters
from sepelib.zookeeper._queue import LOCK, Blocker, Queue, nearest
from sepelib.zookeeper._wait import Busy, TimeIsUp, Turns, Wait, ending
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import (
    LockNotAcquired,
    LockTimeout,
)

__all__ = ["Contender", "InterruptableLock", "Lock", "RLock"]

_log = getLogger(__name__)

_RELEASE_PATIENCE = 0.2
"""Seconds that a release gives the server to answer; the lock is released in any case."""


class Lock:
    """Excludes all others at *path*; fair; not re-entrant.

    identifier: shown to others by `contenders()`. extra_lock_patterns: more markers of contenders,
    regular expressions, for queues shared with other implementations. on_lost(lock, reason) is
    called once for each loss, on_revoke(lock) once a grant when somebody asks the holder to let go
    (data `__REVOKE__`, as Apache Curator writes it), each in a greenlet of its own. container: make
    the parent a container, which the servers remove when it is empty; not where kazoo's locks are
    used. strict: leaving a `with` whose lock was lost raises LockLost. path_class: the label of the
    metrics.
    """

    _MARKER: ClassVar[str] = LOCK
    """Between the GUID and the sequence of an own node."""
    _RIVALS: ClassVar[tuple[str, ...]] = (LOCK,)
    """The markers of other contenders, before the extra ones."""
    _IGNORED: ClassVar[frozenset[str]] = frozenset()
    """Markers of contenders that need not be waited for."""

    def __init__(
        self,
        client: Client,
        path: str,
        identifier: str | None = None,
        *,
        extra_lock_patterns: Sequence[str] = (),
        on_lost: Callable[[Any, str], object] | None = None,
        on_revoke: Callable[[Any], object] | None = None,
        container: bool = False,
        strict: bool = False,
        path_class: str = "",
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path)
        if isinstance(extra_lock_patterns, str):
            raise TypeError("extra_lock_patterns are several, not one str")
        self._queue = Queue((self._MARKER, *self._RIVALS, *extra_lock_patterns))
        self._data = identity(identifier)
        self._on_lost = on_lost
        self._on_revoke = on_revoke
        self._container = container
        self._strict = strict
        self._meters = LockMeters(self._client.recorder, path_class)
        self._turns = Turns()
        self._pending: set[Wait] = set()
        self._grant: Grant | None = None
        # The last grant of each greenlet, until it is released: after a loss the object may be held
        # by another greenlet, which the first one must neither release nor believe to be itself.
        self._own: weakref.WeakKeyDictionary[Any, Grant] = weakref.WeakKeyDictionary()
        self._entered: weakref.WeakKeyDictionary[Any, list[Grant]] = weakref.WeakKeyDictionary()
        self._never_lost = gevent.event.Event()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' held' if self.is_acquired else ''}>"

    def acquire(
        self, blocking: bool = True, timeout: float | None = None, *, raise_on_timeout: bool = False
    ) -> bool:
        """True when it is held now; False when *timeout* seconds are over or it would block.

        The timeout covers everything: other greenlets of this object, the connection, the queue.
        None waits for ever. Without *blocking* only the server's word is waited for, and nothing
        without a connection. raise_on_timeout: LockTimeout instead of False when the time is over.
        Raises Interrupted after `cancel()`, DeadlineExceeded when the current
        `sepelib.util.deadline` is the earlier one, ZookeeperMisused when the client is stopped,
        ZookeeperError when the servers refuse.
        """
        self._client.check_thread("Lock.acquire()")
        wait = Wait(self.path, timeout, blocking=blocking)
        result = "acquired"
        self._pending.add(wait)
        self._meters.waiters.inc()
        try:
            self._obtain(wait)
            return True
        except (Busy, TimeIsUp) as e:
            result = ending(e)
        except BaseException as e:
            result = ending(e)
            raise
        finally:
            self._pending.discard(wait)
            self._meters.waiters.dec()
            self._meters.acquires(result).observe(wait.waited())
        if raise_on_timeout and timeout is not None:
            raise LockTimeout(self.path, wait.waited())
        return False

    def _obtain(self, wait: Wait) -> None:
        self._turns.take(wait)
        try:
            attempt = self._attempt(wait)
            node = attempt.run()
        except BaseException:
            self._turns.give(wait)
            raise
        grant = self._hold(node, wait)
        try:
            _log.info(
                "lock %s: acquired after %.3f s, %d were ahead",
                self.path,
                wait.waited(),
                attempt.most_ahead,
                extra=grant.fields(),
            )
        except BaseException:  # a handler may yield
            self._own.pop(gevent.getcurrent(), None)
            grant.release()
            raise

    def _attempt(self, wait: Wait) -> Attempt:
        return Attempt(
            self._client,
            self.path,
            self._MARKER,
            self._queue,
            self._blocker(wait),
            self._data,
            wait,
            container=self._container,
        )

    def _blocker(self, wait: Wait) -> Blocker:
        return nearest(self._IGNORED)

    def _hold(self, node: Node, wait: Wait) -> Grant:
        on_revoke = self._on_revoke
        grant = Grant(
            self._client,
            node,
            self.path,
            on_end=partial(self._ended, wait),
            on_revoke=on_revoke and partial(self._tell, "on_revoke", on_revoke),
        )
        self._grant = grant
        self._own[gevent.getcurrent()] = grant
        return grant

    def _ended(self, wait: Wait, grant: Grant) -> None:
        self._turns.give(wait)
        self._meters.held.observe(grant.held_for())
        if grant.state is Tenure.LOST:
            assert grant.reason is not None
            self._meters.lost(grant.reason).inc()
            if self._on_lost is not None:
                gevent.spawn(self._tell, "on_lost", self._on_lost, grant.reason)

    def _tell(self, what: str, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(self, *args)
        except (Exception, gevent.Timeout, gevent.GreenletExit):
            _log.exception("%s of lock %s has failed", what, self.path, extra={"path": self.path})

    def release(self) -> bool:
        """Let the next one have it; False when it is not held, be it lost or never acquired.

        Any greenlet may release what another has acquired. Raises nothing for want of a connection
        and waits for the server's answer for a fifth of a second at the most; from the call on the
        lock is not held, and the node is deleted as soon as the servers can be reached.
        """
        self._client.check_thread("Lock.release()")
        grant = self._own.pop(gevent.getcurrent(), None) or self._grant
        return grant is not None and self._give_up(grant)

    def _give_up(self, grant: Grant) -> bool:
        if not grant.release():
            return False
        _log.info(
            "lock %s: released, was held for %.3f s",
            self.path,
            grant.held_for(),
            extra=grant.fields(),
        )
        if grant.deletion is not None:
            grant.deletion.wait(_RELEASE_PATIENCE)
        return True

    @property
    def is_acquired(self) -> bool:
        """Whether this object holds the lock now; once False for a grant, it stays False for it.

        Local, without a request, for any thread. For a greenlet that has acquired it and not
        released it: whether that grant of its own holds.
        Exact against silence, pauses and partitions: False before another can be granted it. What
        somebody else ends on the servers (the session closed by force, the node deleted) is known
        when the connection says so, some milliseconds later; `fencing_token` and `transaction()`
        are exact always.
        """
        grant = self._current()
        return grant is not None and grant.held

    @property
    def fencing_token(self) -> int:
        """Greater than that of each holder before; LockNotAcquired when there is no grant.

        The czxid of the own node: it grows over the whole life of the ensemble, also when the
        parent is deleted and made again. Stays readable after a loss.
        """
        return self._granted().node.token

    @property
    def lost(self) -> gevent.event.Event:
        """Set when the present grant is lost; each grant has its own."""
        grant = self._current()
        return self._never_lost if grant is None else grant.lost

    @property
    def lost_reason(self) -> str | None:
        """Why the latest grant was lost: "session", "deleted" or "unverified"."""
        grant = self._current()
        return None if grant is None else grant.reason

    def lease_remaining(self) -> float:
        """Seconds for which it is held even if no server is heard any more; 0.0 when not held."""
        grant = self._current()
        return 0.0 if grant is None else grant.lease_remaining()

    def check(self) -> None:
        """Raise LockLost if the lock was lost, LockNotAcquired if it is not held otherwise."""
        self._granted().check()

    def verify(self, timeout: float | None = None) -> None:
        """`check()`, and ask the server for the own node: LockLost if it is gone.

        ZookeeperTimeout when there is no answer in *timeout* seconds (None: the client's
        `request_timeout`).
        """
        self._client.check_thread("Lock.verify()")
        self._granted().verify(timeout)

    def holder(self, timeout: float | None = None) -> Contender | None:
        """Who is at the head of the queue, as the server sees it; as `contenders()`."""
        found = self.contenders(timeout)
        return found[0] if found else None

    def contenders(self, timeout: float | None = None) -> list[Contender]:
        """Who is in the queue, in its order; ZookeeperTimeout after *timeout* seconds.

        One request for each. None: the client's `request_timeout`.
        """
        self._client.check_thread("Lock.contenders()")
        return contenders(self._client, self.path, self._queue, timeout)

    def transaction(self) -> Any:
        """A transaction of the client that is refused unless the own node is still there.

        That check is its first operation, hence the first of its results. LockLost,
        LockNotAcquired as from `check()`.
        """
        grant = self._granted()
        grant.check()
        transaction = self._client.transaction()
        transaction.check(grant.node.path, -1)  # a revocation changes the version
        return transaction

    def cancel(self) -> None:
        """Let those who wait in `acquire()` now raise Interrupted; for any thread.

        Nothing else: what is held stays held, and who comes later waits as ever.
        """
        for wait in tuple(self._pending):
            wait.interrupt()

    def __enter__(self) -> Self:
        self._enter(None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave(failed=kind is not None)

    @contextmanager
    def locked(self, timeout: float | None = None, kill_on_lost: bool = False) -> Iterator[Self]:
        """Hold it for a block; LockTimeout when it does not come within *timeout* seconds.

        kill_on_lost: a loss raises LockLost in the block, at the yield where it is then.
        """
        grant = self._enter(timeout)
        strike = Strike(grant) if kill_on_lost else None
        failed = True
        try:
            yield self
            failed = False
        finally:
            if strike is not None:
                strike.disarm()
            self._leave(failed=failed)

    def _enter(self, timeout: float | None) -> Grant:
        if not self.acquire(timeout=timeout, raise_on_timeout=True):
            raise LockNotAcquired(self.path)
        me = gevent.getcurrent()
        grant = self._own[me]
        self._entered.setdefault(me, []).append(grant)
        return grant

    def _leave(self, *, failed: bool) -> None:
        me = gevent.getcurrent()
        entered = self._entered.get(me)
        # Empty when another greenlet has entered.
        grant = entered.pop() if entered else self._grant
        if grant is None:
            return
        if self._own.get(me) is grant and grant.levels == 1:
            del self._own[me]
        released = self._give_up(grant)
        if self._strict and not failed and not released and grant.state is Tenure.LOST:
            raise grant.loss()

    def _current(self) -> Grant | None:
        return self._own.get(gevent.getcurrent()) or self._grant

    def _granted(self) -> Grant:
        grant = self._current()
        if grant is None or grant.state is Tenure.RELEASED:
            raise LockNotAcquired(self.path)
        return grant


class InterruptableLock(Lock):
    """A Lock whose waits can be ended, promptly and in every state of the connection."""

    def interrupt(self) -> None:
        """Let those who wait in `acquire()` now raise Interrupted; for any thread.

        Wins over a grant that comes at the same time. A later `acquire()` works as ever.
        """
        self.cancel()


class RLock(Lock):
    """A Lock that a greenlet which holds it may acquire again; it is free after as many releases.

    Only the greenlet that has acquired it can release it: False for another.
    """

    def acquire(
        self, blocking: bool = True, timeout: float | None = None, *, raise_on_timeout: bool = False
    ) -> bool:
        self._client.check_thread("RLock.acquire()")
        grant = self._own.get(gevent.getcurrent())
        if grant is not None and grant.held:
            grant.levels += 1
            return True
        return super().acquire(blocking, timeout, raise_on_timeout=raise_on_timeout)

    def release(self) -> bool:
        """One level less; False when this greenlet does not hold it."""
        self._client.check_thread("RLock.release()")
        me = gevent.getcurrent()
        grant = self._own.get(me)
        if grant is None:
            return False
        if grant.levels == 1:
            del self._own[me]
        return self._give_up(grant)

    def _give_up(self, grant: Grant) -> bool:
        grant.levels -= 1
        return grant.held if grant.levels else super()._give_up(grant)
