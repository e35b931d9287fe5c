"""What is held: an own node at the head of a queue, until it is released or lost.

    HELD ──release()──► RELEASED
      └──session over, node deleted, node not found in time──► LOST

`held` is the conjunction of this state, the session's lease and, after a reconnect, a lease of one
T until the node has been seen again: a node may be deleted while nobody is told.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from logging import ERROR, WARNING, getLogger
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from kazoo.exceptions import KazooException, NoNodeError

from sepelib.zookeeper._contender import UNANSWERED, Node, discard
from sepelib.zookeeper._handler import Wake
from sepelib.zookeeper._identity import ask
from sepelib.zookeeper._wait import Wait
from sepelib.zookeeper.errors import LockLost, LockNotAcquired, ZookeeperError, ZookeeperTimeout
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["DELETED", "SESSION", "UNVERIFIED", "Grant", "Strike", "Tenure"]

_log = getLogger("sepelib.zookeeper.lock")

SESSION = "session"
"""Lost because the session is over, by the server's word or by the own clock."""
DELETED = "deleted"
"""Lost because somebody has deleted the node."""
UNVERIFIED = "unverified"
"""Lost because one T after a reconnect the node has not been seen yet."""

_WATCH_AFTER = 0.3
"""Seconds after which a node is watched: short sections do without that request."""
_REVOKE = b"__REVOKE__"
"""What asks a holder to let go, as Apache Curator writes it."""


class Tenure(enum.Enum):
    HELD = "held"
    RELEASED = "released"
    LOST = "lost"


_MOVES = {
    Tenure.HELD: frozenset({Tenure.RELEASED, Tenure.LOST}),
    Tenure.RELEASED: frozenset[Tenure](),
    Tenure.LOST: frozenset[Tenure](),
}


class Grant:
    """Made when an attempt is granted *node*, without a yield in between.

    on_end: called once, at the end, at once; must not block or raise. on_revoke: called in a
    greenlet of its own, once. *what* names it in the log.
    """

    def __init__(
        self,
        client: Client,
        node: Node,
        path: str,
        *,
        on_end: Callable[[Grant], None],
        on_revoke: Callable[[], object] | None = None,
        what: str = "lock",
    ) -> None:
        self._client = client
        self._session = client.session
        self.node = node
        self.path = path
        self.lost = gevent.event.Event()
        self.reason: str | None = None
        self.levels = 1
        """How often a re-entrant lock has been taken."""
        self.deletion: Any = None
        """After the release: the result of the request, which nobody has to wait for."""
        self.since = self._session.clock()
        self._on_end = on_end
        self._on_revoke = on_revoke
        self._what = what
        self._named = f"{what} {path}"
        self._state = Tenure.HELD
        self._seen_until: float | None = None
        self._overdue = False
        self._cut_off = self._session.state is not SessionState.CONNECTED
        self._unsubscribe = self._session.subscribe(self._session_moved)
        self._loop = gevent.get_hub().loop
        self._watch = Wake(self._look)
        self._patience: Any = None
        self._timer: Any = None
        if on_revoke is None:
            self._look_later()
        else:
            self._look()

    @property
    def state(self) -> Tenure:
        return self._state

    @property
    def held(self) -> bool:
        """Local, O(1), for any thread; once False it stays False."""
        seen_until = self._seen_until
        if seen_until is not None and self._session.clock() >= seen_until:
            self._overdue = True  # remembered: the answer may come a moment later
        return (
            self._state is Tenure.HELD
            and not self._overdue
            and self._session.holds(self.node.epoch)
        )

    def held_for(self) -> float:
        return self._session.clock() - self.since

    def lease_remaining(self) -> float:
        if not self.held:
            return 0.0
        left = self._session.lease_remaining()
        seen_until = self._seen_until
        return left if seen_until is None else min(left, seen_until - self._session.clock())

    def release(self) -> bool:
        """False if it was not held. Never yields; see `deletion`."""
        if not self.held:
            self._session_moved()
            return False
        self.deletion = discard(self._client, self.node)
        self._end(Tenure.RELEASED)
        return True

    def check(self) -> None:
        """Raise LockLost if it was lost, LockNotAcquired if it was released."""
        if not self.held:
            self._session_moved()
            if self.reason is None:
                raise LockNotAcquired(self.path, "it is not held", self._what)
            raise self.loss()

    def loss(self) -> LockLost:
        """What says that it was lost."""
        return LockLost(self.path, self.reason or "", self._what)

    def verify(self, timeout: float | None) -> None:
        """`check()`, and ask the server: LockLost if the node is gone, ZookeeperTimeout."""
        self.check()
        client, node = self._client, self.node
        wait = Wait.for_answer(self.path, timeout, client.request_timeout)
        wait.what = self._what
        try:
            # After a sync, since the server may lag behind the one that has deleted the node.
            answers = client.sync_async(node.path), client.exists_async(node.path)
            stat = ask(client, wait, *answers)[1]
        except ZookeeperTimeout:
            raise
        except UNANSWERED as e:
            self.check()
            raise ZookeeperTimeout(f"{self._named}: the connection was lost") from e
        except KazooException as e:
            raise ZookeeperError(f"{self._named}: the own node cannot be read: {e!r}") from e
        if stat is None:
            self.gone()
        self.check()

    def gone(self) -> None:
        """The server says that the node is not there."""
        if self._state is Tenure.HELD:  # else that is our own doing
            self._lose(DELETED)

    def _session_moved(self) -> None:
        if self._state is not Tenure.HELD:
            return
        if not self._session.holds(self.node.epoch):
            self._lose(SESSION)
        elif not self.held:
            self._lose(UNVERIFIED)
        elif self._session.state is SessionState.SUSPENDED:
            if not self._cut_off:
                self._cut_off = True
                self._say_suspended()
        elif self._cut_off:
            self._cut_off = False
            self._doubt()

    def _say_suspended(self) -> None:
        _say(
            WARNING,
            "%s: suspended while held, %.1f s of the lease remain",
            self._named,
            self.lease_remaining(),
            fields=self.fields(),
        )

    def _doubt(self) -> None:
        """Back in the same session: what happened to the node meanwhile nobody has told."""
        if self._seen_until is None:
            self._seen_until = self._session.clock() + self._session.timeout
            # Again and again: the hub's clock is another one, and may be early.
            self._patience = self._loop.timer(self._session.timeout, 0.05, ref=False)
            self._patience.start(self._session_moved)
        self._look()

    def _look(self) -> None:
        """Read the own node and watch it, here on the hub: nothing waits."""
        self._stop_timer()
        if self._state is not Tenure.HELD or self._session.state is not SessionState.CONNECTED:
            return  # after the next reconnect
        if self._seen_until is not None:
            self._client.sync_async(self.node.path)  # what follows is answered after it
        self._client.get_async(self.node.path, self._watch).rawlink(self._read)

    def _read(self, answer: Any) -> None:
        if self._state is not Tenure.HELD:
            return
        error = answer.exception
        if isinstance(error, NoNodeError):
            self._lose(DELETED)
        elif error is None:
            if not self.held:
                self._session_moved()
                return
            self._seen_until = None
            self._stop_patience()
            data, _ = answer.value
            if data == _REVOKE and self._on_revoke is not None:
                on_revoke, self._on_revoke = self._on_revoke, None
                gevent.spawn(on_revoke)
        elif not isinstance(error, UNANSWERED):
            words = "%s: the own node cannot be read: %r"
            _say(ERROR, words, self._named, error, fields=self.fields())
        elif self._session.state is SessionState.CONNECTED:
            self._look_later()

    def _look_later(self) -> None:
        self._stop_timer()
        # A new one each time: one that has fired, started again, fires at once.
        self._timer = self._loop.timer(_WATCH_AFTER, ref=False)
        self._timer.start(self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _lose(self, reason: str) -> None:
        self.reason = reason
        late = self._session.clock() - self._session.lease_deadline
        node = self.node
        if reason == DELETED:
            self._client._janitor.release(node.guid)
        else:
            self._client._janitor.dispose(node.directory, node.guid, node.name, epoch=node.epoch)
        self._end(Tenure.LOST)
        self.lost.set()
        _say(
            ERROR,
            "%s: lost while held: %s, held for %.1f s%s",
            self._named,
            reason,
            self.held_for(),
            f", noticed {late:.3f} s late" if reason == SESSION and late > 0 else "",
            fields=self.fields(),
        )

    def _end(self, state: Tenure) -> None:
        assert state in _MOVES[self._state], f"{self._state} to {state}"
        self._state = state
        self._unsubscribe()
        self._stop_timer()
        self._stop_patience()
        self._on_end(self)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.close()
            self._patience = None

    def fields(self) -> dict[str, object]:
        """For log records."""
        node = self.node
        return {
            "path": self.path,
            "guid": node.guid,
            "session": f"0x{node.session_id:x}",
            "token": node.token,
        }


class Strike:
    """Raises LockLost in the present greenlet when *grant* is lost, unless disarmed before."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._target: Any = gevent.getcurrent()
        grant.lost.rawlink(self._hit)

    def disarm(self) -> None:
        self._target = None
        self._grant.lost.unlink(self._hit)

    def _hit(self, _: object) -> None:
        # In the hub, as a gevent.Timeout does it: the target is where it yields, or is over.
        target, self._target = self._target, None
        if target is not None:
            target.throw(self._grant.loss())


def _say(level: int, words: str, *args: object, fields: dict[str, object]) -> None:
    # The session tells from the hub or from the connection, and a log handler may wait.
    gevent.spawn(_log.log, level, words, *args, extra=fields)
