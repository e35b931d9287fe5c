"""Ids that count up: 1, 2, 3, never one twice, whatever fails in between.

    tickets = Sequence("tickets", block_size=100)
    tickets.next()          # one round trip for each hundred ids of this process

    class Ticket(Document):
        number = SequentialIdField(primary_key=True)      # taken by the first save()

A counter is a document {_id: <name>, next: <the last one given out>}, of the same shape as those of
mongoengine's SequenceField, so Sequence("person.id", collection="mongoengine.counters") goes on
where a SequenceField has stopped.

Errors: SequenceLostError, DeadlineExceeded, and those of pymongo as they are.
Time: as the limits of the client, the current Deadline and `pymongo.timeout()` allow. Who waits for
another one's block gives up at last when a client with `connect()`'s defaults had failed.
"""

from __future__ import annotations

import _thread
import os
import time
import weakref
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Any

from mongoengine import signals
from mongoengine.base import BaseField
from mongoengine.connection import get_db
from mongoengine.document import EmbeddedDocument
from pymongo.errors import OperationFailure

from sepelib.mongo._block_queue import Asker, Queue, is_timeout
from sepelib.mongo._counter import Counter, integer, limited, own_session, positive

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

__all__ = ["GaplessSequence", "Sequence", "SequentialIdField", "forget_counters"]

_PATIENCE = 45.0  # seconds for another one's request


class Sequence:
    """The ids of one counter; any number of objects and processes may share it.

    start: the first id, when the counter does not exist yet, and nothing afterwards.
    block_size=1: each id is one round trip; ids are unique and grow in the order in which the
    server gave them out, over all processes; an answer that was lost leaves a gap.
    block_size=N: ids are unique and grow within this object; one round trip for N ids, at most one
    at a time. What a process did not use of its block is lost when it ends.

    Sharing: any thread or greenlet; nobody blocks the hub while another one asks the server. A
    forked process takes a block of its own. Counting is no part of a transaction of the caller, as
    one that is aborted would give its ids out again; `GaplessSequence` is for that.
    """

    def __init__(
        self,
        name: str,
        *,
        db_alias: str = "default",
        collection: str = "sepelib.sequences",
        start: int = 1,
        block_size: int = 1,
    ) -> None:
        self._counter = Counter(name, db_alias, collection, start)
        self._block_size = positive(block_size, "a block_size")
        # Native under gevent too; nothing under it yields.
        self._lock = _thread.RLock()
        self._hold = _Hold()
        _register(self)

    @property
    def name(self) -> str:
        return self._counter.name

    def next(self) -> int:
        """The next id."""
        if self._block_size == 1:
            return self._count(1)[0]
        number = self._take()
        if number is None:
            due = time.monotonic() + _PATIENCE
            while (number := self._take()) is None:
                self._refill(due)
            self._hold.queue.pass_on()
        return number

    def reserve(self, n: int) -> range:
        """*n* ids in a row, by one round trip; `next()` and its block are not touched by it."""
        return self._count(positive(n, "the number of ids to reserve"))

    def last(self) -> int | None:
        """The highest id given out to any process, blocks included; None before the first one."""
        counters = self._current_hold().counters
        with own_session(counters) as session:
            counter = counters.find_one(self._counter.filter, session=session)
        if counter is None or counter["next"] == self._counter.start - 1:
            return None
        return int(counter["next"])

    def advance_to(self, value: int) -> None:
        """Give out only ids above *value* from now on; one that was given out already is no news.

        Other processes first use up the blocks that they hold.
        """
        value = integer(value, "a value to advance to")
        hold = self._current_hold()
        counters, counter = hold.counters, self._counter
        known = hold.last
        with own_session(counters) as session:
            if not counter.raise_to(counters, session, value):
                if known is not None:
                    raise counter.lost(known)
                if value < counter.start:
                    return
                counter.create(counters, session, last=value)
                if not counter.raise_to(counters, session, value):
                    raise counter.lost(None)
        hold.has_given(value)
        hold.floor = max(hold.floor, value)

    def __repr__(self) -> str:
        return f"Sequence({self.name!r}, block_size={self._block_size})"

    def __deepcopy__(self, memo: object) -> Sequence:
        # mongoengine copies the fields of a class for documents that do not dereference; both are
        # to draw from one block.
        return self

    def _take(self) -> int | None:
        hold = self._current_hold()
        # An iterator steps in C: whoever takes an id in between, be it a signal handler or a
        # finalizer, gets another one.
        for number in hold.ids:
            if number > hold.floor:
                return number
        return None

    def _count(self, n: int) -> range:
        while True:
            hold = self._current_hold()
            ids = self._ask(hold, n)
            if hold is self._hold:
                return ids
            # Forked while the server was asked: the parent has got the same answer.

    def _ask(self, hold: _Hold, n: int) -> range:
        counters, counter = hold.counters, self._counter
        known = hold.last  # by now: another one may make the counter while we ask
        with own_session(counters) as session:
            last = counter.count(counters, session, n)
            if last is None:
                if known is not None:
                    raise counter.lost(known)
                # Not by an upsert: `$inc` would begin at 1 whatever the start.
                counter.create(counters, session, last=counter.start - 1)
                last = counter.count(counters, session, n)
                if last is None:
                    raise counter.lost(None)
        hold.has_given(last)
        return range(last - n + 1, last + 1)

    def _refill(self, due: float) -> None:
        """Get the next block, or wait until somebody has done it, has failed to, or it is *due*."""
        hold = self._current_hold()
        me = Asker()
        try:
            if not hold.queue.join(me, lambda: length_hint(hold.ids)):
                return
            if hold.queue.first is me:
                hold.ids = iter(self._ask(hold, self._block_size))
            else:
                me.wait(self.name, due)
                # In a forked process, or another database, its id is of another queue.
                me.is_served = hold is self._hold
        except Exception as error:
            if hold.queue.first is me and not is_timeout(error):
                hold.queue.fail(error)
            raise
        finally:
            hold.queue.leave(me)

    def _current_hold(self) -> _Hold:
        database = get_db(self._counter.db_alias)
        hold = self._hold
        if hold.database is database:
            return hold
        with self._lock:
            if self._hold.database != database:
                self._hold = _Hold()
            # Else connected anew, to the same one.
            self._hold.connect(database, self._counter)
            return self._hold

    def _forget(self) -> None:
        # The lock may be held for ever in a forked process, by a thread of its parent.
        self._lock = _thread.RLock()
        self._hold = _Hold()


class GaplessSequence:
    """Ids without gaps: a transaction that is aborted gives its number back.

    For numbers that the law wants without gaps, such as those of invoices. From its `next()` to its
    end a transaction keeps all others from counting, so call it late:

        def issue(session):
            number = invoices.next(session)
            collection.insert_one({"_id": number, ...}, session=session)

        with client.start_session() as session:
            session.with_transaction(issue, write_concern=WriteConcern("majority", j=True))

    Commit with such a write concern, or a lost server gives numbers out twice.
    """

    def __init__(
        self,
        name: str,
        *,
        db_alias: str = "default",
        collection: str = "sepelib.sequences",
        start: int = 1,
    ) -> None:
        self._counter = Counter(name, db_alias, collection, start)
        self._known_in: Database[dict[str, Any]] | None = None
        _register(self)

    @property
    def name(self) -> str:
        return self._counter.name

    def next(self, session: ClientSession | None) -> int:
        """The next number, in the transaction that is active in *session*, else ValueError.

        A transaction that counts at the same time makes this fail as it fails any write: with the
        label TransientTransactionError, by which `with_transaction()` tries again.
        """
        counter = self._counter
        if session is None or not session.in_transaction:
            raise ValueError(
                f"sequence {self.name}: it counts in a transaction and none is active in the "
                "session: call next() within session.with_transaction()"
            )
        database = get_db(counter.db_alias)
        counters = counter.collection_of(database)
        is_known = self._known_in == database
        if not is_known:
            # Outside of the transaction, where a duplicate key would end it. Without effect on
            # the numbers: an aborted first transaction leaves a counter that gave out nothing.
            with own_session(counters) as own:
                counter.create(counters, own, last=counter.start - 1)
        with limited():
            last = counter.count(counters, session, 1)
        if last is None:
            if is_known:
                raise counter.lost(None)
            # The transaction has read something before, and sees the database as of then.
            raise OperationFailure(
                f"sequence {self.name}: the transaction is older than the counter",
                112,  # WriteConflict
                {"errorLabels": ["TransientTransactionError"]},
            )
        self._known_in = database
        return last

    def __repr__(self) -> str:
        return f"GaplessSequence({self.name!r})"

    def _forget(self) -> None:
        self._known_in = None


class SequentialIdField(BaseField):  # type: ignore[misc]
    """An id that the first save of a new document takes from a sequence.

    sequence: a Sequence, the name of one beside the documents, or None for
    "<collection>.<field>".
    format: makes the stored value of a number, as `"T-{:04d}".format` does.

    Taken after validation, if the value is None then; kept if the save fails. `objects.insert()`
    takes those of a list by one round trip. Reading, constructing, `validate()` and `to_json()`
    take none, a value of one's own is kept (raise the counter with
    `Ticket.number.sequence_of(Ticket).advance_to(value)`). Documents that exist are left alone: one
    loaded by `only()` cannot be told from one that has no id. An upsert fills nothing in, use
    `set_on_insert__number=Ticket.number.sequence_of(Ticket).next()`.

    The ids are unique; an index that proves it is made by `unique=True` or `primary_key=True`.
    """

    # Lets a required field be empty until the save has got its id.
    _auto_gen = True

    def __init__(
        self,
        sequence: Sequence | str | None = None,
        *,
        format: Callable[[int], Any] | None = None,
        **field_options: Any,
    ) -> None:
        if sequence is not None and not isinstance(sequence, Sequence | str):
            raise TypeError(f"a sequence is a Sequence, a name or None, not {sequence!r}")
        if format is not None and not callable(format):
            raise TypeError(f"a format is a function of the number, not {format!r}")
        self._sequence = sequence
        self._format = format
        self._sequences: dict[tuple[str, str], Sequence] = {}
        self._watched: set[type] = set()
        super().__init__(**field_options)

    def sequence_of(self, model: Any) -> Sequence:
        """Where the ids of documents of *model* come from."""
        if isinstance(self._sequence, Sequence):
            return self._sequence
        name = self._sequence or f"{model._get_collection_name()}.{self.name}"
        alias = model._meta.get("db_alias", "default")
        key = name, alias
        if key not in self._sequences:
            self._sequences.setdefault(key, Sequence(name, db_alias=alias))
        return self._sequences[key]

    def generate(self) -> None:
        # What mongoengine calls for an id whenever it turns a document into BSON, so for
        # to_json() and pickle, too.
        return None

    def __set__(self, instance: Any, value: object) -> None:
        # Each new document comes by here. No earlier: a mix-in's field learns of one class only.
        if type(instance) not in self._watched:
            self._watch(type(instance))
        super().__set__(instance, value)

    def to_python(self, value: Any) -> Any:
        if self._format is not None:
            return value
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            return value  # for validate() to refuse
        is_number = isinstance(value, str) or (number == value and not isinstance(value, bool))
        return number if is_number else value

    def prepare_query_value(self, op: str, value: Any) -> Any:
        if value is None:
            return None
        value = self.to_python(value)
        self.validate(value)
        return super().prepare_query_value(op, value)

    def validate(self, value: Any, clean: bool = True) -> None:
        if self._format is None and (isinstance(value, bool) or not isinstance(value, int)):
            self.error(f"an id is an integer, not {value!r}")

    def _set_owner_document(self, owner_document: type) -> None:
        if issubclass(owner_document, EmbeddedDocument):
            raise TypeError(
                f"{owner_document.__name__}: a SequentialIdField belongs to a Document; what is "
                "embedded is not saved by itself: call next() of a Sequence"
            )
        super()._set_owner_document(owner_document)

    def _watch(self, model: type) -> None:
        for owner in model.__mro__:
            if getattr(owner, "_fields", {}).get(self.name) is self:
                signals.pre_save_post_validation.connect(self._before_save, sender=owner)
                signals.pre_bulk_insert.connect(self._before_insert, sender=owner)
        self._watched.add(model)

    def _before_save(self, sender: type, *, document: Any, created: bool, **_: object) -> None:
        if created and getattr(document, self.name) is None:
            self._give(document, self.sequence_of(sender).next())

    def _before_insert(self, sender: type, *, documents: list[Any], **_: object) -> None:
        empty: dict[Sequence, list[Any]] = {}
        for document in documents:
            if getattr(document, self.name) is None:
                empty.setdefault(self.sequence_of(type(document)), []).append(document)
        for sequence, its in empty.items():
            ids = sequence.reserve(len(its)) if len(its) > 1 else [sequence.next()]
            for document, number in zip(its, ids, strict=True):
                self._give(document, number)

    def _give(self, document: Any, number: int) -> None:
        setattr(document, self.name, number if self._format is None else self._format(number))


def forget_counters() -> None:
    """Let every Sequence of this process drop its block and its knowledge of its counter.

    For tests, after the database was emptied: a sequence that has given out ids would miss its
    counter.
    """
    for sequence in list(_sequences):
        sequence._forget()


class _Hold:
    """What a Sequence has and knows, in one process and one database."""

    counters: Collection[dict[str, Any]]

    def __init__(self) -> None:
        self.database: Database[dict[str, Any]] | None = None
        self.ids: Iterator[int] = iter(())
        self.floor = -(2**63)  # ids up to it are not given out any more
        self.last: int | None = None  # if any, the counter exists
        self.queue = Queue()

    def connect(self, database: Database[dict[str, Any]], counter: Counter) -> None:
        self.counters = counter.collection_of(database)
        self.database = database

    def has_given(self, last: int) -> None:
        if self.last is None or self.last < last:
            self.last = last


_sequences: weakref.WeakSet[Sequence | GaplessSequence] = weakref.WeakSet()
_is_hooked = False


def _register(sequence: Sequence | GaplessSequence) -> None:
    global _is_hooked
    _sequences.add(sequence)
    if not _is_hooked:
        _is_hooked = True
        # Rather than a look at the pid: that of a process which has ended comes back.
        os.register_at_fork(after_in_child=forget_counters)
