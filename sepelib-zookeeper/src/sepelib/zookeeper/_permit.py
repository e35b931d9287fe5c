"""One attempt to turn a wait into a lease of a semaphore.

    ABSENT ──create──► UNSURE ──answered──► QUEUED ──at the head, and room: one multi──► UNSURE
                                              ▲                                          │   │
                                              └───────────────── refused ────────────────┘   ▼
                                                                                         GRANTED

The nodes, all of them children of the semaphore's:

    <guid>__wait__<sequence>        wants one lease; `<guid>x3__wait__<sequence>` three of them
    <guid>__lease__<sequence>       what becomes of it, of the same name otherwise

The bound: when a lease is granted, all leases together are at most the maximum of that moment.

  1. Sequences grow with time, and a listing that shows the own wait is younger than that wait. So
     it shows all older ones that are still there. Where it shows none, the own wait is the oldest
     from that moment on, as long as it is there.
  2. Leases come by one multi alone, [check(SEM, version), create(lease), delete(own wait)], sent
     after such a listing. Say the listing is of L and the multi is done at G; the own wait is there
     from L to G. Another grant between the two would delete another wait at its own G': an older
     one, which our listing excludes, or a younger one, whose listing excludes that ours is there.
  3. So between L and G leases go and none comes. The listing of a follower that lags is no danger:
     it counts leases that are gone, and misses none.
  4. What the listing was compared with is the maximum of *version*, by the check still that of G.
     No former life of the node is meant: it cannot be deleted while the own wait is below it, and
     the maximum is known by its mzxid, which no two changes share.

Thus a grant need not change the version: others keep what they know, and a lone user has four
requests (create and list in one round trip, the multi, the delete).

A multi without an answer: its lease has the GUID of the wait, so looking for the GUID tells. Sent
twice it is done once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from sepelib.zookeeper._contender import UNANSWERED, Attempt, Node, Phase
from sepelib.zookeeper._queue import Queue, nearest
from sepelib.zookeeper._wait import Busy, Wait
from sepelib.zookeeper._watch import Watch
from sepelib.zookeeper.errors import ConfigurationError
from sepelib.zookeeper.transaction import TransactionRefused, TransactionUnknown

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["LEASE", "LEASES", "MOST", "WAIT", "WAITS", "Limit", "Permit", "count_of", "leased"]

WAIT, LEASE = "__wait__", "__lease__"
WAITS = Queue((WAIT,))
LEASES = Queue((LEASE,))
_COUNT = re.compile(r"x([0-9]{1,9})__(?:wait|lease)__-?[0-9]+$")
MOST = 10**9 - 1
"""More leases than that no name says."""


def count_of(name: str) -> int:
    """For how many leases the node *name* stands."""
    match = _COUNT.search(name)
    return 1 if match is None else int(match.group(1))


def leased(children: Iterable[str]) -> int:
    """How many leases there are among *children*."""
    return sum(count_of(place.name) for place in LEASES.order(children))


class Limit:
    """How many leases of the semaphore at *path* there are at most, as this process knows it.

    *most* None: whatever is there. Else all others have to mean the same at first; what differs
    later in the same node is a change, in a node made anew it is somebody who means something else.
    """

    def __init__(self, path: str, most: int | None) -> None:
        self._path = path
        self._czxid = self._mzxid = 0
        self._any = most is None
        self.most = most
        """The latest known; what a node that is gone is made again with."""
        self.version = 0

    def is_of(self, stat: Any) -> bool:
        """Whether it is that of the node with *stat*."""
        return bool(stat.mzxid == self._mzxid)

    def learn(self, data: bytes, stat: Any) -> None:
        """Take what was read; ConfigurationError when others mean another number."""
        most = self.read(data)
        if not self._any and most != self.most and stat.czxid != self._czxid:
            raise ConfigurationError(
                f"semaphore {self._path}: its maximum is {most} leases, not {self.most}: give all "
                "users the same, or None for what is there, or change it with set_max_leases()"
            )
        self.changed(most, stat)

    def changed(self, most: int, stat: Any) -> None:
        self.most, self.version = most, stat.version
        self._czxid, self._mzxid = stat.czxid, stat.mzxid

    def read(self, data: bytes) -> int:
        """The maximum in the node's *data*."""
        try:
            most = json.loads(data)["max_leases"]
        except (ValueError, TypeError, KeyError, RecursionError):
            most = None
        if type(most) is not int or most < 1:
            text = data[:80].decode(errors="backslashreplace")
            raise ConfigurationError(f"semaphore {self._path}: is something else, {text!r}")
        return most

    def data(self, most: int | None = None) -> bytes:
        """What says so on the server, of *most* or of what is known."""
        most = most or self.most
        if most is None:
            raise ConfigurationError(
                f"semaphore {self._path}: nobody has said how many leases there are: give "
                "max_leases, or call set_max_leases()"
            )
        return json.dumps({"sepelib": "semaphore", "max_leases": most}).encode()


class Permit(Attempt):
    """Waits for *count* leases, for one caller; `run()` gives the node of the lease.

    The oldest waits for a change among the children, the others for the one ahead of them.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        count: int,
        limit: Limit,
        data: Callable[[str], bytes],
        wait: Wait,
    ) -> None:
        marker = WAIT if count == 1 else f"x{count}{WAIT}"
        super().__init__(client, path, marker, WAITS, nearest(), data, wait)
        self._count = count
        self._limit = limit

    def _list(self) -> Any:
        return self._client.get_children_async(self._path, include_data=True)

    def _read_queue(self) -> None:
        # The first listing, that of the create, has shown that it cannot be had at once.
        self._unwatch()
        self._watch = Watch(self._client, self._path, self._wait.wake, "listing")
        self._listing = self._watch.answer
        if self._answered(self._listing):
            self._judge()

    def _judge(self) -> None:
        if self._node is None:
            return
        listing, self._listing = self._listing, None
        try:
            children, stat = listing.get_nowait()
        except UNANSWERED:
            return
        except NoNodeError:
            children, stat = [], None
            if self._watch is not None:
                self._watch.fired = True  # refused: it was not set
        if self._node.name not in children:
            self._rejoin()
        elif self._limit.is_of(stat) or self._ask_limit():
            self._judge_by_limit(children)

    def _judge_by_limit(self, children: list[str]) -> None:
        assert self._node is not None and self._limit.most is not None
        if self._count > self._limit.most:
            raise ConfigurationError(
                f"{self._named}: {self._count} leases are asked for, its maximum is "
                f"{self._limit.most}"
            )
        queue = WAITS.order(children)
        ahead = queue[: [place.name for place in queue].index(self._node.name)]
        self.most_ahead = max(self.most_ahead, len(ahead))
        wanted = sum(count_of(place.name) for place in ahead) + self._count
        room = wanted + leased(children) <= self._limit.most
        if not room and not self._wait.blocking:
            raise Busy
        if ahead:
            self._wait_for(ahead[-1])
        elif room:
            self._ask()
        elif self._watch is not None:
            self._until_fired(self._watch)

    def _until_fired(self, watch: Watch, timeout: float | None = None) -> bool:
        if not self._wait.blocking:
            # There is room for those ahead too: they are about to take it, or they are dead.
            timeout = self._client.request_timeout - self._wait.waited()
        moved = super()._until_fired(watch, timeout)
        if not moved:
            raise Busy
        return True

    def _ask_limit(self) -> bool:
        """Whether the limit is known now; if not, the queue is to be read again."""
        read = self._client.get_async(self._path)
        if not self._answered(read):
            return False
        try:
            data, stat = read.get_nowait()
            if data:
                self._limit.learn(data, stat)
                return True
            # Somebody has made the node and said nothing.
            said = self._client.set_async(self._path, self._limit.data(), version=stat.version)
            if self._answered(said):
                said.get_nowait()
        except (BadVersionError, NoNodeError, *UNANSWERED):
            pass
        return False

    def _ask(self) -> None:
        """Make a lease of the wait, unless something has changed that the listing stands for."""
        self._wait.check()
        node, self._node = self._node, None
        assert node is not None
        lease = _as_lease(node.path)
        transaction = self._client.transaction()
        transaction.check(self._path, self._limit.version)
        # Before the delete: nobody who sees that the wait is gone can miss the lease.
        transaction.create(lease, ephemeral=True)
        transaction.set_data(lease, self._data(node.guid))  # which answers with the stat
        transaction.delete(node.path)
        self._move(Phase.UNSURE)
        answer = transaction.commit_async()
        try:
            if not self._answered(answer):
                return
            stat = answer.get_nowait()[2]
        except (TransactionUnknown, *UNANSWERED):
            return
        except TransactionRefused as e:
            self._refused(e.error, node)
        else:
            self._stand(lease, stat)
        finally:
            answer.withdraw()  # what has not been sent by now is not sent later

    def _refused(self, error: Exception, node: Node) -> None:
        if isinstance(error, BadVersionError):  # the maximum has changed
            self._node = node
            self._move(Phase.QUEUED)
        elif not isinstance(error, NoNodeError | NodeExistsError):
            raise error
        # Else the wait is gone, or the lease is there: an earlier multi, it may be. Look.

    def _stand(self, path: str, stat: Any) -> None:
        super()._stand(path, stat)
        if self._node is not None and LEASES.order([self._node.name]):
            self._wait.check()
            self._move(Phase.GRANTED)

    def _make_parent(self) -> None:
        self._move(Phase.ABSENT)
        self._count_parents()
        made = self._client.create_async(self._path, self._limit.data())
        try:
            if self._answered(made):
                made.get_nowait()
        except (NodeExistsError, *UNANSWERED):
            pass  # the next create tells
        except NoNodeError:
            self._ensure(self._path.rpartition("/")[0] or "/", container=False)
        finally:
            made.withdraw()


def _as_lease(path: str) -> str:
    return LEASE.join(path.rsplit(WAIT, 1))
