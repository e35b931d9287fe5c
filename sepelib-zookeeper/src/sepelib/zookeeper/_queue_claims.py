"""The claim of a consumer to an item of a queue, from its beginning to its end for certain.

A claim is two ephemeral nodes, made and deleted together:

    PATH/100/<key>-<sequence>/claim                 excludes others from the item
    PATH/claims/<guid>-<key>-<sequence>             is this claim and no other

What is done with the item is done together with the deletion of the second: so it is done once,
however often it has to be sent, and never by one who has lost the claim.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._queue_slots import make_directory
from sepelib.zookeeper.transaction import Transaction, TransactionRefused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["CLAIMS", "Claim", "Outcome", "Refusal", "claimed"]

_log = getLogger("sepelib.zookeeper.queue")

CLAIMS = "claims"
_GUID = 32


def claimed(children: Iterable[str]) -> set[str]:
    """The names of the items that those in the directory of claims are for."""
    return {name[_GUID + 1 :] for name in children}


class Refusal(enum.Enum):
    TAKEN = "another consumer has it"
    GONE = "it is not in the queue any more"


class Outcome(enum.Enum):
    DONE = "done"
    LOST = "not done: the claim was gone"
    UNKNOWN = "done, or the claim was gone before: the session ended before there was an answer"
    REFUSED = "not done: the servers refuse it, and the claim is still there"


class Claim:
    """Made for one item by one greenlet, which sees to it that `end()` is called."""

    def __init__(self, client: Client, queue: str, item: str) -> None:
        self._client = client
        self._queue = queue
        self.item = item
        """The item's path."""
        self.name = item.rpartition("/")[2]
        self.guid = os.urandom(_GUID // 2).hex()
        self.epoch = 0
        self.session_id = 0
        self._entry = f"{queue}/{CLAIMS}/{self.guid}-{self.name}"
        self._lock = f"{item}/claim"
        self._read: Any = None
        self.unsure = False
        """An answer was lost: after a refusal too there may be something to `end()`."""
        self._end_unsure = False

    @property
    def holds(self) -> bool:
        return self._client.session.holds(self.epoch)

    def take(self, call: Call) -> Refusal | None:
        """None once the item is claimed. For whatever is raised, it may be: `end()` is due."""
        while True:
            try:
                call.write(self._ask)
                return None
            except Unanswered:
                self.unsure = True
                if self._found(call):
                    return None
            except TransactionRefused as e:
                if isinstance(e.error, NodeExistsError):
                    return Refusal.TAKEN
                if not isinstance(e.error, NoNodeError):
                    raise
                if e.index == 0:
                    return Refusal.GONE
                make_directory(call, f"{self._queue}/{CLAIMS}")

    def _found(self, call: Call) -> bool:
        """Whether the claim is there after all, and is ours."""
        session = self._client.session
        # Behind all that the session has asked for before, on whichever server.
        call.read(lambda: self._client.sync_async(self._queue))
        epoch = session.epoch
        stat = call.read(lambda: self._client.exists_async(self._entry))
        if stat is None or stat.ephemeralOwner != session.session_id:
            return False
        # Nobody was told of it yet, so that it may begin with this epoch.
        self.epoch = epoch
        return self.holds

    def read(self, call: Call) -> tuple[bytes, Any]:
        """The item's data and stat, as they are after `take()`. NoNodeError."""
        sent = [self._read]
        found: tuple[bytes, Any] = call.read(
            lambda: sent.pop() if sent else self._client.get_async(self.item)
        )
        return found

    def _ask(self) -> Any:
        session = self._client.session
        self.epoch, self.session_id = session.epoch, session.session_id
        transaction = self._client.transaction()
        transaction.create(self._lock, self.guid.encode(), ephemeral=True)
        transaction.create(self._entry, ephemeral=True)
        answer = transaction.commit_async()
        # Behind it in the same round trip.
        self._read = self._client.get_async(self.item)
        return answer

    def end(
        self,
        then: Callable[[Transaction], object] = lambda transaction: None,
        *,
        after: float = 0.0,
        parent: str = "",
    ) -> gevent.event.AsyncResult[Outcome]:
        """Give the item back, for certain, or do with it what *then* adds. Never waits.

        *after* so many seconds. *parent*: a directory that what is added needs. A greenlet of its
        own goes on until the answer is known: whoever waits for it may be killed. Once for a claim,
        and again only after REFUSED.
        """
        result: gevent.event.AsyncResult[Outcome] = gevent.event.AsyncResult()
        due = time.monotonic() + after

        def run() -> None:
            if (left := due - time.monotonic()) > 0:
                gevent.sleep(left)
            try:
                result.set(self._end(then, parent))
            except Exception as e:
                # The client was stopped, say: then the claim ends with the session.
                _log.info("queue %s: the claim to %s was not ended: %s", self._queue, self.name, e)
                result.set(Outcome.UNKNOWN)

        def go_on(_: object = None) -> None:
            # Again when it was killed, with all others perhaps.
            if not result.ready():
                gevent.spawn(run).rawlink(go_on)

        go_on()
        return result

    def _end(self, then: Callable[[Transaction], object], parent: str) -> Outcome:
        def ask() -> Any:
            transaction = self._client.transaction()
            transaction.delete(self._entry)
            transaction.delete(self._lock)
            then(transaction)
            return transaction.commit_async()

        with Call(self._client, self._queue, "queue") as call:
            while True:
                try:
                    call.write(ask)
                    return Outcome.DONE
                except Unanswered:
                    pass
                except TransactionRefused as e:
                    if isinstance(e.error, NoNodeError):
                        if e.index == 0:
                            return self._without_entry(call)
                        if not (parent and e.index == 3):
                            self._clear_entry(call)  # somebody has deleted the item
                            return Outcome.LOST
                        make_directory(call, parent)
                    else:
                        _log.warning("queue %s: item %s: %s", self._queue, self.name, e)
                        return Outcome.REFUSED
                finally:
                    self._end_unsure |= call.unanswered
                call.wait.breathe()

    def _without_entry(self, call: Call) -> Outcome:
        same = self._client.session.session_id == self.session_id
        if self._end_unsure:
            return Outcome.DONE if same else Outcome.UNKNOWN
        if same:
            self._clear_lock(call)
        return Outcome.LOST

    def _clear_lock(self, call: Call) -> None:
        """Somebody may have deleted the entry alone: nobody could claim the item any more."""
        while True:
            try:
                data, stat = call.read(lambda: self._client.get_async(self._lock))
                if data != self.guid.encode():
                    return
                call.write(partial(self._client.delete_async, self._lock, stat.version))
                return
            except Unanswered:
                call.wait.breathe()
            except (NoNodeError, BadVersionError):
                return

    def _clear_entry(self, call: Call) -> None:
        """The other node went with the item."""
        while True:
            try:
                call.write(lambda: self._client.delete_async(self._entry))
                return
            except Unanswered:
                call.wait.breathe()
            except NoNodeError:
                return
