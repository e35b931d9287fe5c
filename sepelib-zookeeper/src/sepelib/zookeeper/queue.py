"""A queue whose items are processed at least once and acked once.     Status: production.

    queue = Queue(client, "/mail")
    queue.put(b"...")                               # once, whatever happens to the answer

    while True:
        with queue.get() as item:                   # acked at the end, given back by an exception
            send(item.data)

                 ┌──nack(), block failed──► RETURNED
    get ──► HELD ┼──ack()──► ACKING ──────► ACKED
                 │             └──────────┐
                 └──session over──────────┴► LOST

An item that is got is claimed, not removed: for as long as the session of its consumer lives no
other consumer has it. When that ends, the item is back in its place at once. `ack()` removes it, if
the claim is still there: whoever has lost an item, and worked on, is told so by ItemLost.

Order: by priority, the lower the more urgent; first come, first served within one, for a single
consumer. Several consumers spread over the first items of a priority, and one of these may be
passed over for a second. An item more urgent than all others is next as soon as it is in the queue;
as long as such come, the less urgent ones wait. One that comes back has its old place: it is next
at once if consumers wait, and within a second if they are busy.

Costs: put 1 request, get and ack 3, some more when many consumers are busy. A busy consumer lists
the items once a second, so more than some ten thousand are slow. Waiting costs nothing: of all that
wait one looks, and is followed by the next. Should it die or be cut off, the rest wait until the
servers end its session. Apache Curator's advice holds: ZooKeeper keeps all in memory, and writes
each item several times to the log of each server. It is right for thousands of small items (jobs,
orders), wrong for a stream of events. Large data belongs elsewhere, and its name into the queue.
There is no limit for the number of items: who puts may ask `size()`.

Nothing stays behind that an empty queue does not need: directories are containers, what a producer
and a consumer have made ends with them. kazoo's queues are something else on the wire: not at the
same path.

Sharing: a queue object is for all greenlets of its client's hub; so is an item. `held` is for any
thread. Source: the claim node of Apache Curator's DistributedQueue ("lock safety"), its GUIDs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from logging import ERROR, WARNING, getLogger
from typing import TYPE_CHECKING, Any

import gevent
from kazoo.exceptions import BadVersionError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._contender import Attempt, discard
from sepelib.zookeeper._identity import identity, normal_path
from sepelib.zookeeper._queue import Queue as Order
from sepelib.zookeeper._queue import nearest
from sepelib.zookeeper._queue_claims import Claim, Outcome, Refusal
from sepelib.zookeeper._queue_item import END, Item, ItemLost, ItemState
from sepelib.zookeeper._queue_slots import Slot, Slots, make_directory
from sepelib.zookeeper._queue_view import Pick, View, directories
from sepelib.zookeeper._wait import Busy, TimeIsUp, Turns
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import SessionLost
from sepelib.zookeeper.transaction import Transaction, TransactionRefused

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Item", "ItemLost", "ItemState", "Queue"]

_log = getLogger(__name__)

_WAIT = "__wait__"
_LARGEST = 0xFFFFF
"""Bytes of a request that servers accept, unless their jute.maxbuffer is another one."""
_OVERHEAD = 128
"""Bytes of a request for each item, and for itself, beside the data and the paths; not less."""


class Queue:
    """At *path*; made when it is used first.

    max_deliveries: an item that comes back more often is moved to `dead`. path_class: the label of
    the metrics.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        max_deliveries: int | None = None,
        path_class: str = "",
    ) -> None:
        self.client = client_of(client)
        self.path = normal_path(path, "queue")
        if max_deliveries is not None and max_deliveries < 1:
            raise ValueError(f"max_deliveries is one or more, not {max_deliveries!r}")
        self._max_deliveries = max_deliveries
        self._identity = identity(None)
        self._slots = Slots(self.client, f"{self.path}/puts")
        # Whatever this object has or is about to claim; None for what nobody was given yet.
        self._own: dict[str, Item | None] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._view = View(self.client, self.path, self._own)
        self._turns = Turns()
        recorder = self.client.recorder
        self._put_items = recorder.counter(
            "zk_queue_put", "Items put into the queue.", ("path_class",)
        ).labels(path_class)
        self._got_items = recorder.counter(
            "zk_queue_got", "Items given to consumers.", ("path_class",)
        ).labels(path_class)
        self._held_items = recorder.gauge(
            "zk_queue_held", "Items that consumers hold.", ("path_class",)
        ).labels(path_class)
        ended = recorder.counter(
            "zk_queue_ended",
            "Items that are held no more, by end: acked, given back, lost, dead.",
            ("path_class", "end"),
        )
        self._ended = {
            end: ended.labels(path_class, end) for end in ("acked", "given back", "lost", "dead")
        }

    def __repr__(self) -> str:
        return f"<Queue {self.path}>"

    @property
    def dead(self) -> Queue:
        """The queue of the items which were given up: to be read, acked, put again."""
        return Queue(self.client, f"{self.path}/dead")

    def put(self, data: bytes, priority: int = 100, *, timeout: float | None = None) -> str:
        """Put an item behind those of its *priority*, 0 to 999, the lower the more urgent.

        Gives its key. It is put once, also when an answer is lost. ValueError for more data than
        servers take in a request (1 MiB). ZookeeperTimeout after *timeout* seconds (None: the
        client's `request_timeout`): with *maybe_executed* it may be in the queue. SessionLost when
        the session has ended too before it was answered, and it is not in the queue: it is done by
        then, or was never put, and nobody knows.
        """
        return self.put_many([data], priority, timeout=timeout)[0]

    def put_many(
        self, items: Iterable[bytes], priority: int = 100, *, timeout: float | None = None
    ) -> list[str]:
        """Put all of them, in this order, or none: one request, which takes 1 MiB in all."""
        directory = self._directory(priority)
        named = [(os.urandom(16).hex(), _checked(data)) for data in items]
        acls = self.client.default_acl or ()
        overhead = _OVERHEAD + len((self.client.chroot + directory).encode())
        overhead += sum(len(f"{acl.id.scheme}{acl.id.id}".encode()) + 12 for acl in acls)
        # One alone may yet have to be moved to the dead, which takes four operations.
        size = max(len(named) + 1, 4) * overhead + sum(len(data) for _, data in named)
        if size > _LARGEST:
            raise ValueError(
                f"queue {self.path}: {size} bytes at once are too many, servers take {_LARGEST}: "
                "keep large data elsewhere and put its name"
            )
        if named:
            with Call.for_answer(self.client, self.path, "queue", timeout) as call:
                self._put(call, directory, named)
            self._put_items.inc(len(named))
        return [key for key, _ in named]

    def get(self, timeout: float | None = None) -> Item | None:
        """The next item; None when there was none for *timeout* seconds.

        0 looks once, and may miss what another client has put a moment ago: servers lag behind each
        other. The timeout covers everything; None waits for ever. DeadlineExceeded when the current
        `sepelib.util.deadline` is the earlier one. Killed, at whatever moment, it leaves nothing
        behind, and no item claimed.
        """
        try:
            with Call(self.client, self.path, "queue", timeout) as call, self._view:
                item = self._take(call)
                if item is None and call.wait.blocking:
                    item = self._wait(call)
                return item
        except (TimeIsUp, Busy):
            return None

    def size(self, timeout: float | None = None) -> int:
        """How many items there are, those held by consumers too; one request for each priority."""
        with Call.for_answer(self.client, self.path, "queue", timeout) as call:
            try:
                found = call.read(lambda: self.client.get_children_async(self.path))
            except NoNodeError:
                return 0
            count = 0
            for path in directories(self.path, found):
                stat = call.read(partial(self.client.exists_async, path))
                count += 0 if stat is None else stat.numChildren
            return count

    # Putting.

    def _directory(self, priority: int) -> str:
        if not isinstance(priority, int):
            raise TypeError(f"a priority is an int, not {type(priority).__name__}")
        if not 0 <= priority <= 999:
            raise ValueError(f"a priority is from 0 to 999, not {priority}")
        return f"{self.path}/{priority:03d}"

    def _put(self, call: Call, directory: str, named: list[tuple[str, bytes]]) -> None:
        while True:
            slot = self._slots.take(call)
            try:
                done = self._put_through(call, slot, directory, named)
            except BaseException:
                self._slots.drop(slot)
                raise
            if done:
                self._slots.give(slot)
                return
            # The slot has ended with the session.
            self._slots.drop(slot)
            if call.unanswered:
                if self._is_there(call, directory, named[0][0]):
                    return
                raise SessionLost(
                    f"queue {self.path}: the session ended before a put was answered: what was to "
                    "be put is processed already, or was never put"
                )

    def _put_through(
        self, call: Call, slot: Slot, directory: str, named: list[tuple[str, bytes]]
    ) -> bool:
        """False when *slot* is gone."""

        def ask() -> Any:
            transaction = self.client.transaction()
            transaction.set_data(slot.node.path, b"", slot.version)
            for key, data in named:
                transaction.create(f"{directory}/{key}-", data, sequence=True)
            return transaction.commit_async()

        while True:
            try:
                call.write(ask)
                return True
            except Unanswered:
                pass
            except TransactionRefused as e:
                if e.index == 0:
                    # Its version was raised by nobody else: that was the try before.
                    return call.unanswered and isinstance(e.error, BadVersionError)
                if not isinstance(e.error, NoNodeError):
                    raise
                make_directory(call, directory)
            call.wait.breathe()

    def _is_there(self, call: Call, directory: str, key: str) -> bool:
        """Whether the item is in the queue still, which is what can be known without the slot."""
        call.read(lambda: self.client.sync_async(directory))
        try:
            children = call.read(lambda: self.client.get_children_async(directory))
        except NoNodeError:
            return False
        return any(name.startswith(key) for name in children)

    # Getting.

    def _take(self, call: Call) -> Item | None:
        """An item; None when there is nothing free."""
        while True:
            pick = self._view.pick(call)
            if pick is None:
                return None
            item = self._try(call, pick)
            if item is not None:
                return item
            call.wait.breathe()

    def _wait(self, call: Call) -> Item:
        """Stand in the line of those who wait; its head looks for an item."""
        self._turns.take(call.wait)
        self._view.waiting = True
        try:
            while True:
                attempt = Attempt(
                    self.client,
                    f"{self.path}/line",
                    _WAIT,
                    Order([_WAIT]),
                    nearest(),
                    self._identity,
                    call.wait,
                    container=True,
                )
                node = attempt.run()
                try:
                    while self.client.session.holds(node.epoch):
                        self._view.until_changed(call)
                        item = self._take(call)
                        if item is not None:
                            return item
                finally:
                    discard(self.client, node)
        finally:
            self._view.waiting = False
            self._turns.give(call.wait)

    def _try(self, call: Call, pick: Pick) -> Item | None:
        claim = Claim(self.client, self.path, pick.path)
        self._own[claim.name] = None
        item: Item | None = None
        refusal: Refusal | None = None
        try:
            refusal = claim.take(call)
            if refusal is None:
                item = Item(self, claim, *claim.read(call))
        except NoNodeError:
            pass  # somebody has deleted it meanwhile
        except BaseException:
            self._give_back(claim)
            raise
        self._view.tried(pick, refusal)
        if refusal is not None and not claim.unsure:
            del self._own[claim.name]
        elif item is None or not claim.holds:
            self._give_back(claim)
        elif self._max_deliveries is not None and item.deliveries > self._max_deliveries:
            self._bury(item, claim)
        else:
            self._own[claim.name] = item
            if self._unsubscribe is None:
                self._unsubscribe = self.client.session.subscribe(self._session_moved)
            self._got_items.inc()
            self._held_items.inc()
            return item
        return None

    def _bury(self, item: Item, claim: Claim) -> None:
        directory = f"{self.path}/dead/{item.priority:03d}"

        def move(transaction: Transaction) -> None:
            transaction.delete(claim.item)
            transaction.create(f"{directory}/{item.key}-", item.data + END, sequence=True)

        def moved(ended: Any) -> None:
            self._forget(claim)
            if ended.value is Outcome.DONE:
                self._ended["dead"].inc()
                words = "queue %s: item %s is dead: it came back %d times"
                self._say(WARNING, words, item, item.deliveries - 1)

        # Refused, it stays claimed as long as the session lasts, and is in nobody's way.
        claim.end(move, parent=directory).rawlink(moved)

    # What the items say.

    def _give_back(self, claim: Claim) -> None:
        """Nobody was given the item, and it is claimed, or may be. Never waits."""
        claim.end().rawlink(lambda _: self._forget(claim))

    def _forget(self, claim: Claim) -> None:
        """The claim has come to its end on the servers."""
        item = self._own.pop(claim.name)
        if item is None or item.state is not ItemState.ACKED:
            self._view.changed()
        if not self._own and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _session_moved(self) -> None:
        for item in list(self._own.values()):
            if item is not None:
                item._session_moved()

    def _item_ended(self, item: Item, state: ItemState, reason: str) -> None:
        self._held_items.dec()
        self._ended[state.value].inc()
        if state is ItemState.LOST:
            self._say(ERROR, "queue %s: item %s was lost while held: %s", item, reason)

    def _say(self, level: int, words: str, item: Item, *args: object) -> None:
        # The session tells from the hub or from the connection, and a log handler may wait.
        gevent.spawn(_log.log, level, words, self.path, item.key, *args, extra=item._fields())


def _checked(data: bytes) -> bytes:
    if not isinstance(data, bytes):
        raise TypeError(f"the data of an item is bytes, not {type(data).__name__}")
    return data + END
