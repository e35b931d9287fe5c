"""Wait, having a lock, for what others change under it; they say when.     Status: production.

    lock = Lock(client, "/jobs/lock")
    changed = Condition(client, "/jobs/changed", lock)

    with lock:                                          # who waits
        changed.wait_for(lambda: client.get_children("/jobs/todo"), timeout=60.0)
        take_one()
    with lock:                                          # who changes it
        client.create("/jobs/todo/a")
        changed.notify()

A waiter is an ephemeral node below the path, made before the lock is released; a notify deletes
nodes, the oldest first, in one transaction with a check of the caller's lock. So none is lost: not
between the release and the wait, not by a disconnect, and not to a waiter that gives up.

As with threads a wake-up may be spurious, the lock is taken back in its turn, so that others may
have changed the state again, and a waiter whose process dies takes a notify with it, be it dead
already while the servers still have its session. Hence: state in ZooKeeper and `wait_for()`, or
`notify_all()`.

All who use a path use the same lock. It holds b"" or the id of the latest notify, and nobody else
writes it; a ConditionListener there hears of each. kazoo has no recipe for it.

Requests: wait() 6, and 2 more when the lock has to be waited for; notify() 2.
Sharing: for all greenlets of the client's hub. A greenlet waits and notifies by a lock that it has
acquired itself.
Metrics: `zk_condition_wait_seconds` (path_class, result), `zk_condition_notified` (path_class):
waiters, `zk_condition_passed_on` (path_class): notifies of waiters that were killed.
Source: POSIX, pthread_cond_wait: a waiter that is cancelled shall not consume a signal.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from logging import getLogger
from typing import TypeVar

import gevent
from kazoo.exceptions import BadVersionError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._grant import Grant
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._queue import Queue
from sepelib.zookeeper._wait import Busy, TimeIsUp, ending
from sepelib.zookeeper._waiter import MARKER, Waiter
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import (
    Interrupted,
    LockLost,
    LockNotAcquired,
    ZookeeperError,
)
from sepelib.zookeeper.lock import Lock
from sepelib.zookeeper.rwlock import ReadLock
from sepelib.zookeeper.transaction import TransactionRefused

__all__ = ["Condition"]

_log = getLogger(__name__)

_T = TypeVar("_T")

_WAITERS = Queue([MARKER])
_BATCH = 500
"""Waiters deleted by one transaction: the servers refuse a request of 1 MB."""

# The grant that a `with` was entered by, of the one that it has after a wait.
_entered_by: weakref.WeakKeyDictionary[Grant, Grant] = weakref.WeakKeyDictionary()


class Condition:
    """At *path*, of those who hold *lock*: a Lock, RLock, InterruptableLock or WriteLock.

    container: make the node a container, which the servers remove when no waiter is left, and not
    a persistent one. path_class: the label of the metrics.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        lock: Lock,
        *,
        container: bool = True,
        path_class: str = "",
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "condition")
        if not isinstance(lock, Lock):
            raise TypeError(f"the lock of a Condition is a Lock, not {type(lock).__name__}")
        if isinstance(lock, ReadLock):
            raise TypeError("the lock of a Condition excludes others, which a ReadLock does not")
        if lock._client is not self._client:
            raise ValueError(f"the lock {lock.path} belongs to another client")
        if lock.path == self.path:
            raise ValueError(f"a condition has a path of its own, {self.path} is its lock's")
        self.lock = lock
        self._container = container
        recorder = self._client.recorder
        self._path_class = path_class
        self._waits = recorder.histogram(
            "zk_condition_wait_seconds",
            "Time in wait() by its end: notified, timeout, interrupted, error, killed.",
            ("path_class", "result"),
        )
        self._notified = recorder.counter(
            "zk_condition_notified", "Waiters that were notified.", ("path_class",)
        ).labels(path_class)
        self._passed_on = recorder.counter(
            "zk_condition_passed_on",
            "Notifies of waiters that were killed, given to others.",
            ("path_class",),
        ).labels(path_class)

    def __repr__(self) -> str:
        return f"<Condition {self.path} of {self.lock!r}>"

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait to be notified, take it back; False when *timeout* is over first.

        True may be spurious, as after a new session. The timeout, None for ever, is of the waiting;
        the lock is then waited for as long as it takes. An RLock is released and taken back with
        all its levels. The lock has another `fencing_token` afterwards.

        An exception, of a kill too, leaves at once and without the lock, unless it came before the
        release (`is_acquired` tells): it cannot wait until others release it. The `with` around it
        ends as it should. A notify that had come is passed on to another waiter.

        LockNotAcquired when the greenlet does not hold the lock, LockLost when it was lost or
        cannot be had again; Interrupted after `interrupt()` or `cancel()` of the lock;
        DeadlineExceeded when the current deadline is the earlier one, ZookeeperMisused when the
        client is stopped.
        """
        self._client.check_thread("Condition.wait()")
        grant = self._held()
        call = Call(self._client, self.path, "condition", timeout)
        result = ""
        try:
            woken = self._wait(call, grant)
            result = "notified" if woken else "timeout"
            return woken
        except BaseException as e:
            result = ending(e)
            raise
        finally:
            self._waits.labels(self._path_class, result).observe(call.wait.waited())

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """`wait()` until *predicate*() is true, which is what is returned.

        After *timeout* seconds what it was last, false. It is called with the lock held, for the
        first time before any wait.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not (value := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return value

    def notify(self, n: int = 1, *, timeout: float | None = None) -> int:
        """Wake the *n* who wait longest, or as many as there are; how many these were.

        They go on when they have the lock. LockNotAcquired when the greenlet does not hold it,
        LockLost when it was lost, ZookeeperTimeout when the servers do not answer in *timeout*
        seconds (None: the client's `request_timeout`): it may be done then. Done twice it never is,
        whatever becomes of the answers.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"notify() takes a number of waiters, not {type(n).__name__}")
        if n < 1:
            raise ValueError(f"notify() wakes 1 waiter at least, not {n}")
        return self._notify(n, timeout)

    def notify_all(self, *, timeout: float | None = None) -> int:
        """Wake all who wait; as `notify()`."""
        return self._notify(None, timeout)

    def _held(self) -> Grant:
        grant = self.lock._own.get(gevent.getcurrent())
        if grant is None:
            raise LockNotAcquired(self.lock.path, "this greenlet does not hold it")
        grant.check()
        return grant

    # Waiting.

    def _wait(self, call: Call, grant: Grant) -> bool:
        waiter: Waiter | None = None
        woken = False
        try:
            with self._interruptible(call):
                waiter = self._stand(call, grant)
                # In any case: a loop of waits too short for a node must let others in.
                self._let_go(grant)
                call.wait.check()
                if waiter is not None:
                    with suppress(TimeIsUp, Busy):
                        waiter.wait(call)
                        woken = True
            if waiter is not None and not woken:
                with self._interruptible(Call(self._client, self.path, "condition")) as last:
                    woken = waiter.leave(last)
            self._take_back(grant)
        except BaseException:
            if waiter is not None:
                waiter.resign()
            # It has to find its own one, released or lost, to release nobody else's.
            self.lock._own.setdefault(gevent.getcurrent(), grant)
            raise
        return woken

    def _stand(self, call: Call, grant: Grant) -> Waiter | None:
        """One among those who wait; None when there was no time for it."""
        waiter = Waiter(
            self._client,
            self.path,
            grant,
            self.lock._data,
            container=self._container,
            pass_on=self._wake_another,
        )
        try:
            waiter.stand(call)
        except BaseException as e:
            waiter.resign()
            if isinstance(e, TimeIsUp | Busy):
                return None
            raise
        return waiter

    @contextmanager
    def _interruptible(self, call: Call) -> Iterator[Call]:
        pending = self.lock._pending
        pending.add(call.wait)
        try:
            with call:
                yield call
        finally:
            pending.discard(call.wait)

    def _let_go(self, grant: Grant) -> None:
        """Release it, with all levels; it stays the greenlet's own one."""
        if not Lock._give_up(self.lock, grant):
            grant.check()

    def _take_back(self, grant: Grant) -> None:
        lock = self.lock
        try:
            lock.acquire()
        except Interrupted:
            raise
        except ZookeeperError as e:
            raise LockLost(lock.path, f"it cannot be had again after a wait: {e}") from e
        me = gevent.getcurrent()
        back = lock._own[me]
        back.levels = grant.levels
        entered = lock._entered.get(me, [])
        entered[:] = [back if it is grant else it for it in entered]
        # Whoever looks after the first grant, as `locked(kill_on_lost=True)`, means this one too.
        first = _entered_by[back] = _entered_by.get(grant, grant)
        back.lost.rawlink(partial(_tell_of_loss, first, back))

    # Notifying.

    def _notify(self, n: int | None, timeout: float | None) -> int:
        self._client.check_thread("Condition.notify()")
        grant = self._held()
        total = 0
        with Call.for_answer(self._client, self.path, "condition", timeout) as call:
            while True:
                most = _BATCH if n is None else min(n - total, _BATCH)
                woken = self._notify_some(call, grant, most)
                self._notified.inc(woken)
                total += woken
                if woken < _BATCH or total == n:
                    break
        _log.debug("condition %s: %d notified", self.path, total, extra=grant.fields())
        return total

    def _notify_some(self, call: Call, grant: Grant, most: int) -> int:
        unknown: dict[bytes, int] = {}
        while True:
            try:
                if unknown:
                    data, stat = call.read(partial(self._client.get_async, self.path))
                    if data in unknown:
                        return unknown[data]
                    # Of this version, what was sent is either refused or the next one.
                    version, waiters = stat.version, self._listing(call)[0]
                else:
                    waiters, version = self._listing(call)
            except NoNodeError:
                return 0  # nobody waits, and listeners will see that it is gone
            operation = os.urandom(16).hex().encode()
            chosen = waiters[:most]
            transaction = self.lock.transaction()
            transaction.set_data(self.path, operation, version)
            for waiter in chosen:
                transaction.delete(f"{self.path}/{waiter}")
            try:
                call.write(transaction.commit_async)
                return len(chosen)
            except Unanswered:
                unknown[operation] = len(chosen)
            except TransactionRefused as e:
                if e.index == 0 and isinstance(e.error, NoNodeError):
                    grant.gone()
                    grant.check()
                if not isinstance(e.error, NoNodeError | BadVersionError):
                    raise
            call.wait.breathe()

    def _listing(self, call: Call) -> tuple[list[str], int]:
        """Who waits, the oldest first, and the version of the node."""
        ask = partial(self._client.get_children_async, self.path, include_data=True)
        try:
            children, stat = call.read(ask)
        except NoNodeError:
            # The server may lag behind the one where it was made.
            call.read(partial(self._client.sync_async, self.path))
            children, stat = call.read(ask)
        return [place.name for place in _WAITERS.order(children)], stat.version

    def _wake_another(self, call: Call) -> None:
        """Without the lock: a spurious wake-up is allowed at any time."""
        while True:
            try:
                waiters, _ = self._listing(call)
            except NoNodeError:
                return
            if not waiters:
                return
            oldest = f"{self.path}/{waiters[0]}"
            try:
                call.write(partial(self._client.delete_async, oldest))
            except (NoNodeError, Unanswered):
                call.wait.breathe()  # rather two than none
            else:
                self._passed_on.inc()
                return


def _tell_of_loss(first: Grant, back: Grant, _: object) -> None:
    first.reason = back.reason
    first.lost.set()
