"""A number of leases, shared out fairly.     Status: production.

    with Semaphore(client, "/limits/backend", max_leases=5) as lease:
        lease.check()                                   # LockLost when it is not ours any more

    lease = semaphore.acquire(3, timeout=5.0)           # all three, or None
    if lease is not None:
        with lease:
            ...

First come, first served: who wants many is not overtaken by those who want few, so they wait too.
Never are more leases granted than the maximum, whatever gets lost on the way; there is no lock, and
each grant is one transaction (`_permit` has the proof). A lease is held as a `Lock` is: it is lost
with the session, told by the own clock before others can have it.

The maximum is the semaphore's own, kept in its node: `max_leases` has to be the same for all users,
or None for what is there. `set_max_leases()` changes it for all, at once; a change by hand is
obeyed too, and seen by who waits when the next lease comes or goes. The node stays when nobody uses
it: persistent, and never taken for garbage, since the maximum is in it.

No call leaves another node behind: not by a timeout, a cancel, GreenletExit, gevent.Timeout or
KeyboardInterrupt, at whatever moment. What cannot be deleted at once the client's janitor deletes.

On the wire: other nodes than those of kazoo's and Curator's semaphores, which must not have the
same path; where kazoo's has left its maximum, ConfigurationError says so.

Sharing: a Semaphore is for all greenlets of its client's hub, and each may have leases of it at the
same time. `Lease.held` and `cancel()` are for any thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any, NamedTuple, Self

import gevent
import gevent.event
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._contender import Node
from sepelib.zookeeper._grant import Grant, Strike, Tenure
from sepelib.zookeeper._handler import Lane
from sepelib.zookeeper._identity import identifier_of, identity, normal_path, read_places
from sepelib.zookeeper._lock_meters import LockMeters
from sepelib.zookeeper._permit import LEASES, MOST, WAITS, Limit, Permit, count_of
from sepelib.zookeeper._queue import Queue
from sepelib.zookeeper._wait import Busy, TimeIsUp, Wait, ending
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import (
    ConfigurationError,
    LockTimeout,
)
from sepelib.zookeeper.transaction import TransactionRefused

__all__ = ["Claimant", "Lease", "Semaphore"]

_log = getLogger(__name__)

_WHAT = "semaphore"
_RELEASE_PATIENCE = 0.2
"""Seconds that a release gives the server to answer; the lease is released in any case."""


class Claimant(NamedTuple):
    """Who has leases of a semaphore, or waits for them."""

    identifier: str
    """As given to the semaphore; `host:pid` when nothing was given."""
    token: int
    """`Lease.token`; of who waits it is another one."""
    session_id: int
    leases: int
    """How many."""


class Lease:
    """One lease of a semaphore, or several that were acquired at once: held and lost together.

    Made by `Semaphore.acquire()`. As a context manager it is released at the end.
    """

    def __init__(
        self,
        client: Client,
        node: Node,
        path: str,
        count: int,
        *,
        strict: bool,
        on_end: Callable[[Lease], None],
    ) -> None:
        self._client = client
        self._strict = strict
        self._grant = Grant(client, node, path, on_end=lambda _: on_end(self), what=_WHAT)
        self.path = path
        """That of the semaphore."""
        self.count = count
        """For how many leases it stands."""

    def __repr__(self) -> str:
        return f"<Lease of {self.count} in {self.path}, {self._grant.state.value}>"

    @property
    def held(self) -> bool:
        """Whether it is held now; once False, for good. Local, without a request, for any thread.

        Exact against silence, pauses and partitions, as `Lock.is_acquired`.
        """
        return self._grant.held

    @property
    def token(self) -> int:
        """Greater than that of each lease granted before; stays readable."""
        return self._grant.node.token

    @property
    def lost(self) -> gevent.event.Event:
        """Set when it is lost."""
        return self._grant.lost

    @property
    def lost_reason(self) -> str | None:
        """Why it was lost: "session", "deleted" or "unverified"."""
        return self._grant.reason

    def lease_remaining(self) -> float:
        """Seconds for which it is held even if no server is heard any more; 0.0 when not held."""
        return self._grant.lease_remaining()

    def check(self) -> None:
        """Raise LockLost if it was lost, LockNotAcquired if it was released."""
        self._grant.check()

    def verify(self, timeout: float | None = None) -> None:
        """`check()`, and ask the server for the own node: LockLost if it is gone.

        ZookeeperTimeout when there is no answer in *timeout* seconds (None: the client's
        `request_timeout`).
        """
        self._client.check_thread("Lease.verify()")
        self._grant.verify(timeout)

    def transaction(self) -> Any:
        """A transaction of the client that is refused unless this lease is still there.

        That check is its first operation, hence the first of its results. LockLost,
        LockNotAcquired as from `check()`.
        """
        self._grant.check()
        transaction = self._client.transaction()
        transaction.check(self._grant.node.path, -1)
        return transaction

    def release(self) -> bool:
        """Let others have it, all of it; False when it is not held any more.

        Raises nothing for want of a connection and waits for the server's answer for a fifth of a
        second at the most; from the call on it is not held, and the node is deleted as soon as the
        servers can be reached.
        """
        self._client.check_thread("Lease.release()")
        grant = self._grant
        if not grant.release():
            return False
        _log.info(
            "semaphore %s: %d released, held for %.3f s",
            self.path,
            self.count,
            grant.held_for(),
            extra=grant.fields(),
        )
        if grant.deletion is not None:
            grant.deletion.wait(_RELEASE_PATIENCE)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        released = self.release()
        if self._strict and kind is None and not released and self._grant.state is Tenure.LOST:
            raise self._grant.loss()


class Semaphore:
    """Gives at most *max_leases* leases at *path* at a time; fair.

    max_leases: the same for all users; None takes what is there, and needs somebody else to have
    said it. identifier: shown to others by `leases()` and `waiters()`. on_lost(lease, reason) is
    called once for each lease that is lost, in a greenlet of its own, one call at a time. strict:
    leaving a `with` whose lease was lost raises LockLost. path_class: the label of the metrics,
    `zk_semaphore_acquire_seconds`, `_held_seconds`, `_waiters` and `_lost`.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        identifier: str | None = None,
        max_leases: int | None = 1,
        *,
        on_lost: Callable[[Lease, str], object] | None = None,
        strict: bool = False,
        path_class: str = "",
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, _WHAT)
        if max_leases is not None:
            _check_number("max_leases", max_leases)
        self._limit = Limit(self.path, max_leases)
        self._data = identity(identifier)
        self._on_lost = on_lost
        self._losses = Lane()
        self._strict = strict
        self._meters = LockMeters(self._client.recorder, path_class, _WHAT)
        self._pending: set[Wait] = set()
        self._entered: list[tuple[Any, Lease]] = []  # by which greenlet

    def __repr__(self) -> str:
        return f"<Semaphore {self.path}>"

    def acquire(
        self,
        n: int = 1,
        *,
        blocking: bool = True,
        timeout: float | None = None,
        raise_on_timeout: bool = False,
    ) -> Lease | None:
        """*n* leases as one; None when *timeout* seconds are over or it would block.

        The timeout covers everything: the connection, the queue. None waits for ever. Without
        *blocking* it is None at once unless there is room for those who came before and for this
        one; then they are waited for, within the client's `request_timeout`. Without a connection
        it is None. raise_on_timeout: LockTimeout instead when the time is over.
        Raises Interrupted after `cancel()`, DeadlineExceeded when the current
        `sepelib.util.deadline` is the earlier one, ConfigurationError when *n* is more than the
        maximum, also when that is lowered meanwhile, or others say another maximum,
        ZookeeperMisused when the client is stopped, ZookeeperError when the servers refuse.
        """
        _check_number("n", n)
        self._client.check_thread("Semaphore.acquire()")
        wait = Wait(self.path, timeout, blocking=blocking, what=_WHAT)
        result = "acquired"
        self._pending.add(wait)
        self._meters.waiters.inc()
        try:
            return self._obtain(n, wait)
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
            raise LockTimeout(self.path, wait.waited(), _WHAT)
        return None

    def _obtain(self, count: int, wait: Wait) -> Lease:
        permit = Permit(self._client, self.path, count, self._limit, self._data, wait)
        node = permit.run()
        lease = Lease(self._client, node, self.path, count, strict=self._strict, on_end=self._ended)
        try:
            _log.info(
                "semaphore %s: %d acquired after %.3f s, %d were ahead",
                self.path,
                count,
                wait.waited(),
                permit.most_ahead,
                extra=lease._grant.fields(),
            )
        except BaseException:  # a handler may yield
            lease._grant.release()
            raise
        return lease

    def _ended(self, lease: Lease) -> None:
        self._meters.held.observe(lease._grant.held_for())
        on_lost, reason = self._on_lost, lease.lost_reason
        if reason is not None:
            self._meters.lost(reason).inc()
            if on_lost is not None:
                what = f"on_lost of semaphore {self.path}"
                self._losses.post(lambda: on_lost(lease, reason), what, self.path)

    def cancel(self) -> None:
        """Let those who wait in `acquire()` now raise Interrupted; for any thread.

        Nothing else: what is held stays held, and who comes later waits as ever.
        """
        for wait in tuple(self._pending):
            wait.interrupt()

    @contextmanager
    def leased(
        self, n: int = 1, timeout: float | None = None, *, kill_on_lost: bool = False
    ) -> Iterator[Lease]:
        """Hold *n* leases for a block; LockTimeout when they do not come in *timeout* seconds.

        kill_on_lost: a loss raises LockLost in the block, at the yield where it is then.
        """
        with self._acquired(n, timeout) as lease:
            strike = Strike(lease._grant) if kill_on_lost else None
            try:
                yield lease
            finally:
                if strike is not None:
                    strike.disarm()

    def __enter__(self) -> Lease:
        lease = self._acquired(1, None)
        self._entered.append((gevent.getcurrent(), lease))
        return lease

    def __exit__(self, *failure: Any) -> None:
        me, entered = gevent.getcurrent(), self._entered
        own = [at for at, (greenlet, _) in enumerate(entered) if greenlet is me]
        # None when another greenlet has entered: any of its own is as good.
        _, lease = entered.pop(own[-1] if own else -1)
        lease.__exit__(*failure)

    def _acquired(self, n: int, timeout: float | None) -> Lease:
        lease = self.acquire(n, timeout=timeout, raise_on_timeout=True)
        assert lease is not None
        return lease

    # The maximum.

    def get_max_leases(self, timeout: float | None = None) -> int:
        """The maximum as the server has it; ConfigurationError when there is none.

        ZookeeperTimeout after *timeout* seconds (None: the client's `request_timeout`).
        """
        with Call.for_answer(self._client, self.path, _WHAT, timeout) as call:
            try:
                data, _ = call.read(lambda: self._client.get_async(self.path))
            except NoNodeError as e:
                raise ConfigurationError(f"semaphore {self.path}: is not there") from e
            return self._limit.read(data)

    def set_max_leases(self, n: int, timeout: float | None = None) -> None:
        """Change the maximum for all users; makes the semaphore if it is not there.

        More: who waits goes on at once. Less: who has a lease keeps it, and there are no new ones
        until there are less than *n*. ZookeeperTimeout after *timeout* seconds (None: the client's
        `request_timeout`): it may be done then.
        """
        _check_number("n", n)
        with Call.for_answer(self._client, self.path, _WHAT, timeout) as call:
            while not self._set_max(call, n):
                call.wait.breathe()

    def _set_max(self, call: Call, n: int) -> bool:
        """Whether it is done; what came in between is read again."""
        client, path = self._client, self.path
        try:
            data, stat = call.read(lambda: client.get_async(path))
        except NoNodeError:
            self._make(call, n)
            return False
        if data and self._limit.read(data) == n:
            self._limit.changed(n, stat)
            return True
        transaction = client.transaction()
        transaction.set_data(path, self._limit.data(n), stat.version)
        # Who is to look again watches the children, so that no second watch is needed for this.
        nudge = f"{path}/{uuid.uuid4().hex}__max__"
        transaction.create(nudge, ephemeral=True)
        transaction.delete(nudge)
        try:
            changed = call.write(transaction.commit_async)[0]
        except Unanswered:
            try:
                _, now = call.read(lambda: client.get_async(path))
            except NoNodeError:
                return False
            # If not done then, it yet may be; the next try has the same version, so one is done.
            # If another change is there, it came just behind ours, or in the place of ours.
            return bool(now.mzxid != stat.mzxid)
        except TransactionRefused as e:
            if isinstance(e.error, BadVersionError | NoNodeError):
                return False
            raise
        self._limit.changed(n, changed)
        return True

    def _make(self, call: Call, n: int) -> None:
        client, path = self._client, self.path
        try:
            call.write(lambda: client.create_async(path, self._limit.data(n)))
        except NoNodeError:
            above = path.rpartition("/")[0] or "/"
            call.read(lambda: client.ensure_parent_async(above, container=False))
        except (NodeExistsError, Unanswered):
            pass  # it is read again

    # Who is there.

    def leases(self, timeout: float | None = None) -> list[Claimant]:
        """Who has leases, in the order of the grants.

        One request for each, ZookeeperTimeout after *timeout* seconds. None: the client's
        `request_timeout`.
        """
        return self._claimants(LEASES, timeout)

    def waiters(self, timeout: float | None = None) -> list[Claimant]:
        """Who waits, in the order of the queue; as `leases()`."""
        return self._claimants(WAITS, timeout)

    def _claimants(self, queue: Queue, timeout: float | None) -> list[Claimant]:
        self._client.check_thread("Semaphore.leases()")
        found = read_places(self._client, self.path, queue, timeout, _WHAT)
        return [
            Claimant(identifier_of(data), stat.czxid, stat.ephemeralOwner, count_of(place.name))
            for place, data, stat in found
        ]


def _check_number(name: str, number: object) -> None:
    if type(number) is not int:
        raise TypeError(f"{name} is an int, not {type(number).__name__}")
    if not 1 <= number <= MOST:
        raise ValueError(f"{name} is 1 at least and {MOST} at most, not {number}")
