"""An item of a queue, as a consumer has it: until it is acked, given back or lost."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Self

import gevent.event

from sepelib.zookeeper._call import Call
from sepelib.zookeeper._queue_claims import Claim, Outcome
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperTimeout

if TYPE_CHECKING:
    from sepelib.zookeeper.queue import Queue

__all__ = ["END", "Item", "ItemLost", "ItemState"]

# No item is without data: a node without it, and once with a child, is what collectors remove.
END = b"\n"
_NACK_PATIENCE = 0.2
"""Seconds that a nack gives the server to answer; the item is given back in any case."""


class ItemLost(ZookeeperError):
    """*item* of the queue at *path* is not the caller's any more, and was not acked: *reason*."""

    def __init__(self, path: str, item: str, reason: str, /) -> None:
        super().__init__(path, item, reason)
        self.path = path
        self.item = item
        self.reason = reason

    def __str__(self) -> str:
        return f"queue {self.path}: item {self.item} was lost: {self.reason}"


class ItemState(enum.Enum):
    HELD = "held"
    ACKING = "being acked"
    ACKED = "acked"
    RETURNED = "given back"
    LOST = "lost"


_MOVES: dict[ItemState, frozenset[ItemState]] = {
    ItemState.HELD: frozenset({ItemState.ACKING, ItemState.RETURNED, ItemState.LOST}),
    ItemState.ACKING: frozenset({ItemState.ACKED, ItemState.LOST}),
    ItemState.ACKED: frozenset(),
    ItemState.RETURNED: frozenset(),
    ItemState.LOST: frozenset(),
}

_SESSION = "the session was lost, the item is given to another consumer"
_GONE = "its claim is gone, the item is given to another consumer"
_UNKNOWN = "the session ended before the ack was answered: it is acked, or given to another one"
_GIVEN_BACK = "it was given back by nack()"
_REFUSED = "the servers refuse to delete it, see the log; it is given back"
_REASONS = {Outcome.DONE: "", Outcome.LOST: _GONE, Outcome.UNKNOWN: _UNKNOWN}


class Item:
    """What `Queue.get()` gives. As a context manager it is acked when the block ends, and given
    back when the block raises; unless it was acked or given back in it.
    """

    def __init__(self, queue: Queue, claim: Claim, data: bytes, stat: Any) -> None:
        self._queue = queue
        self._claim = claim
        self._state = ItemState.HELD
        self._reason = ""
        self._acking: Any = None
        self.data = data.removesuffix(END)
        self.key = claim.name[:32]
        """As `put()` has given it: the same for each delivery of the item."""
        self.priority = int(claim.item.split("/")[-2])
        # The server counts each claim that was made and each that is gone.
        self.deliveries = int(stat.cversion + stat.numChildren) // 2
        """To how many consumers it was given so far, this one too, and those that were killed, or
        lost their session, before they had it."""
        self.token = int(stat.pzxid)
        """Greater than that of each delivery before, of this item and others. For stores that
        refuse older ones."""
        self.lost = gevent.event.Event()
        """Set when the item is lost."""

    def __repr__(self) -> str:
        return f"<Item {self.key} of {self._queue.path}, {self._state.value}>"

    @property
    def redelivered(self) -> bool:
        """Whether a consumer may have worked on it before."""
        return self.deliveries > 1

    @property
    def state(self) -> ItemState:
        return self._state

    @property
    def held(self) -> bool:
        """Whether no other consumer has it. Local, for any thread; False from ack() and nack() on.

        Exact against silence, pauses and partitions, as `Lock.is_acquired`. That an operator has
        deleted the claim is found by `ack()`.
        """
        return self._state is ItemState.HELD and self._claim.holds

    def ack(self, timeout: float | None = None) -> None:
        """Remove the item: it is done. Once it is acked this does nothing.

        ItemLost when it was given to another consumer. ZookeeperTimeout when there is no answer in
        *timeout* seconds (None: the client's `request_timeout`); the ack goes on, as it does when
        the caller is killed, and may be asked for again to learn what has become of it.
        """
        queue = self._queue
        queue.client.check_thread("Item.ack()")
        try:
            call = Call.for_answer(queue.client, queue.path, "queue", timeout)
        except ZookeeperTimeout as error:
            self._begin_ack()  # the work is done, though there is no time to wait for the answer
            if self._state is ItemState.ACKING:
                words = f"queue {queue.path}: the ack is not waited for, and goes on"
                raise ZookeeperTimeout(words, maybe_executed=True) from error
        else:
            with call:
                self._begin_ack()
                if self._state is ItemState.ACKING:
                    call.unanswered = True
                    self._acking.rawlink(call.wait.wake)
                    call.wait.until(lambda: self._state is not ItemState.ACKING)
        if self._state is not ItemState.ACKED:
            raise ItemLost(queue.path, self.key, self._reason)

    def _begin_ack(self) -> None:
        if self._state is ItemState.HELD and self._still_held():
            self._move(ItemState.ACKING)
            self._acking = self._claim.end(lambda transaction: transaction.delete(self._claim.item))
            self._acking.rawlink(self._acked)

    def nack(self, delay: float = 0.0) -> bool:
        """Give the item back to its place; False if it is not held. After *delay* seconds, if given
        and if this session lasts as long: then others have it at last.

        Raises nothing for want of a connection, and waits for the server's answer for a fifth of a
        second at the most.
        """
        self._queue.client.check_thread("Item.nack()")
        if not 0 <= delay < float("inf"):
            raise ValueError(f"a delay is zero or more seconds, not {delay!r}")
        if self._state is not ItemState.HELD or not self._still_held():
            return False
        self._reason = _GIVEN_BACK
        self._move(ItemState.RETURNED)
        ended = self._claim.end(after=delay)
        ended.rawlink(self._ended)
        if not delay:
            ended.wait(_NACK_PATIENCE)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.nack()
        elif self._state is not ItemState.RETURNED:
            self.ack()

    def _still_held(self) -> bool:
        """Find out now what the session has not told yet."""
        if not self._claim.holds:
            self._lose(_SESSION)
        return self._state is ItemState.HELD

    def _session_moved(self) -> None:
        if self._state is ItemState.HELD:
            self._still_held()

    def _lose(self, reason: str) -> None:
        self._reason = reason
        self._move(ItemState.LOST)
        # The session may be found alive, and the claim with it.
        self._claim.end().rawlink(self._ended)
        self.lost.set()

    def _acked(self, ended: Any) -> None:
        outcome = ended.value
        if outcome is Outcome.REFUSED:
            self._lose(_REFUSED)
            return
        self._reason = _REASONS[outcome]
        self._move(ItemState.ACKED if outcome is Outcome.DONE else ItemState.LOST)
        self._ended(ended)
        if self._state is ItemState.LOST:
            self.lost.set()

    def _ended(self, _: object) -> None:
        self._queue._forget(self._claim)

    def _move(self, state: ItemState) -> None:
        assert state in _MOVES[self._state], f"{self._state} to {state}"
        self._state = state
        if state is not ItemState.ACKING:
            self._queue._item_ended(self, state, self._reason)

    def _fields(self) -> dict[str, object]:
        """For log records."""
        return {
            "path": self._queue.path,
            "guid": self._claim.guid,
            "session": f"0x{self._claim.session_id:x}",
            "token": self.token,
        }
