"""Run a function on the one of many that leads, once.     Status: production.

    election = Election(client, "/app/migration", "web1")
    report = election.run(migrate, database)

The function is dead before ZooKeeper can give the lead to another, as the target of a
SingletonService is, which is what serves better for something that has to run for ever.

On the wire this is a Lock: kazoo's elections and locks, SingletonService and this one exclude each
other on one path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent.monkey import get_original

from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._lease import Timings
from sepelib.zookeeper._term import Fence, Leadership, OnSuspend, Term
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import ConfigurationError, Interrupted, LockLost, WouldDeadlock
from sepelib.zookeeper.lock import Contender, InterruptableLock

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Election"]

_get_ident: Callable[[], int] = get_original("_thread", "get_ident")

_POLL = 0.05

R = TypeVar("R")


class Election:
    """Lets one of all who `run()` at *path* lead at a time.

    *identifier*: shown to others by `contenders()`. *on_suspend*, *stop_timeout* and *fence* as of
    a SingletonService: when a leader without contact to ZooKeeper is ended, how many seconds it has
    for that, and what becomes of one that does not end. *name* is for logs and metrics.

    Sharing: for the greenlets of the client's hub, of which each `run()` stands for itself in the
    election; `cancel()` for any thread.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        identifier: str | None = None,
        *,
        on_suspend: OnSuspend = "wait",
        stop_timeout: float | None = None,
        fence: Fence = "kill",
        name: str | None = None,
    ) -> None:
        if on_suspend not in ("wait", "stop"):
            raise ValueError(f"on_suspend is 'wait' or 'stop', not {on_suspend!r}")
        if fence not in ("kill", "exit"):
            raise ValueError(f"fence is 'kill' or 'exit', not {fence!r}")
        if stop_timeout is not None and not 0 < stop_timeout < float("inf"):
            raise ValueError(f"stop_timeout is positive and finite, not {stop_timeout!r}")
        self._client = client_of(client)
        self.path = normal_path(path, "election")
        self.name = name or self.path.rpartition("/")[2]
        self._identifier = identifier
        self._on_suspend: OnSuspend = on_suspend
        self._stop_timeout = stop_timeout
        self._fence: Fence = fence
        self._hub: Any = None
        self._bids: set[_Bid] = set()

    def __repr__(self) -> str:
        return f"<Election {self.path}{' leading' if self.leadership is not None else ''}>"

    @property
    def leadership(self) -> Leadership | None:
        """For the function that leads: its token, `check()`, `sleep()`, `stopping`; None else."""
        for bid in tuple(self._bids):
            if bid.term is not None and bid.term.leadership.is_leader:
                return bid.term.leadership
        return None

    def run(
        self,
        func: Callable[..., R],
        *args: object,
        timeout: float | None = None,
        **kwargs: object,
    ) -> R:
        """Wait for the lead, call *func*(*args*, **kwargs*) with it, give it up; the result.

        *timeout*: seconds for the wait, LockTimeout when they are over; None waits for ever. The
        current `sepelib.util.deadline` holds for the wait alone. *func* runs in a greenlet of its
        own, in a copy of the context.

        What *func* raises is raised. LockLost when the lead was lost before it returned: then it
        has been ended, told by LockLost or GreenletExit as a SingletonService tells its target.
        Interrupted when `cancel()` came while this waited, or has ended *func*. WouldDeadlock when
        *func* calls this itself. Whatever strikes the caller ends *func* first; a second strike
        does not wait for that, and the lead is given up when *func* is dead.
        """
        if not callable(func):
            raise TypeError(f"the function of an Election is callable, {func!r} is not")
        self._client.check_thread("Election.run()")
        if any(bid.term is not None and bid.term.is_current() for bid in self._bids):
            raise WouldDeadlock(self.path, "a function that leads would wait for its own end")
        self._hub = gevent.get_hub()
        results: list[R] = []
        lock = InterruptableLock(self._client, self.path, self._identifier, path_class=self.name)
        bid = _Bid(lock)
        self._bids.add(bid)
        try:
            lock.acquire(timeout=timeout, raise_on_timeout=True)
            bid.lead(self._term(lock, lambda _: results.append(func(*args, **kwargs))))
        finally:
            self._bids.discard(bid)
            bid.leave()
        if (error := bid.failure()) is not None:
            raise error
        if results:
            return results[0]
        if bid.asked:
            raise Interrupted(self.path, "election")
        raise gevent.GreenletExit  # its own: nobody has told it to die

    def cancel(self) -> None:
        """End each `run()` of this object that waits or leads now, by Interrupted; never waits.

        A function that leads is asked by `Leadership.stopping` first, and ended when it goes on
        for longer than the stop timeout; one that returns of itself has finished, and its result
        counts. Nothing else: who runs later is not concerned.
        """
        if self._hub is None:
            return
        if _get_ident() != self._hub.thread_ident:
            self._hub.loop.run_callback_threadsafe(self.cancel)
            return
        for bid in tuple(self._bids):
            bid.cancel()

    def contenders(self, timeout: float | None = None) -> list[Contender]:
        """Who leads, and who comes next, in their order; as `Lock.contenders()`."""
        return InterruptableLock(self._client, self.path).contenders(timeout)

    def _term(self, lock: InterruptableLock, target: Callable[[Leadership], object]) -> Term:
        session = self._client.session
        stop_timeout = self._stop_timeout
        if stop_timeout is None:
            stop_timeout = Timings.of(session.timeout).stop_timeout
        elif stop_timeout > session.timeout / 2 > 0:
            raise ConfigurationError(
                f"election {self.path}: a stop_timeout of {stop_timeout:.3g} s is more than half "
                f"of the session's timeout, {session.timeout:.3g} s"
            )
        return Term(
            lock,
            session,
            target,
            path=self.path,
            name=self.name,
            stop_timeout=stop_timeout,
            on_suspend=self._on_suspend,
            fence=self._fence,
            context=copy_context(),
        )


class _Bid:
    """One run: stands in the election, leads, gives the lead up."""

    def __init__(self, lock: InterruptableLock) -> None:
        self.lock = lock
        self.term: Term | None = None
        self.asked = False
        self._begun = False

    def cancel(self) -> None:
        self.asked = True
        self.lock.cancel()
        if self.term is not None:
            self.term.ask()

    def lead(self, term: Term) -> None:
        """Return when the target of *term* is dead; the lead is given up then, not before."""
        self.term = term
        # In a greenlet of its own, which comes to its end however often the caller is struck.
        keeper = gevent.spawn(self._keep, term)
        keeper.name = f"election {term.leadership.path}"
        try:
            keeper.join()
        except BaseException:
            keeper.kill()
            raise

    def _keep(self, term: Term) -> None:
        if self.asked:
            return
        self._begun = True
        try:
            term.run()
        finally:
            if term.is_over:
                self.lock.release()
            else:
                # Killed, and again: with the node gone another could lead beside the target.
                gevent.spawn(self._bury, term)

    def _bury(self, term: Term) -> None:
        while not term.is_over:
            gevent.sleep(_POLL)
        self.lock.release()

    def leave(self) -> None:
        if not self._begun:
            self.lock.release()

    def failure(self) -> BaseException | None:
        """What the target has raised, or why it had to end before it was done."""
        term = self.term
        if term is None or term.lost is None:
            return None if term is None else term.error
        lost = LockLost(term.leadership.path, term.lost)
        lost.__cause__ = term.error
        return lost
