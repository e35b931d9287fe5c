"""An ephemeral node that is there as long as this process wants it.     Status: production.

    with PersistentNode(client, "/hosts/web1", b"10.0.0.1:80") as node:
        node.wait(5.0)
        node.set_data(b"10.0.0.1:81")

It is made again when the session has expired, when somebody has deleted it, when what is above it
was deleted. Whoever reads it reads what `set_data()` was given last.

Metrics: `zk_persistent_made` (path_class): nodes made, so one is the least.
Source: PersistentNode of Apache Curator.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError

from sepelib.util.retry import Backoff
from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._handler import Lane
from sepelib.zookeeper._keeper import Keeper, Life
from sepelib.zookeeper._watch import Watch
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.transaction import TransactionRefused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["PersistentNode"]

_log = getLogger(__name__)

_BACKOFF = Backoff(base=0.1, cap=10.0)
_LARGEST = 0xFFFFF - 1024
"""Bytes of data and paths that servers take in a request; their jute.maxbuffer may be another."""
_SHORTEST = 0.05
"""Seconds within which a session that has ended is known to have: with it the node goes first."""
_CALM = 30.0
"""Seconds for which a node has to be left alone until its next loss is taken for the first."""

# Of each client the keepers at each path, the one whose turn it is first.
_turns: weakref.WeakKeyDictionary[Client, dict[str, list[PersistentNode]]] = (
    weakref.WeakKeyDictionary()
)


class _Seen(NamedTuple):
    """The node was there, ours, with this data."""

    epoch: int
    data: bytes


class PersistentNode(Keeper):
    """Keeps an ephemeral node with *data* at *path*, from `start()` to `stop()`.

    Made again at once after the end of the session; after a deletion by others with a growing delay
    (up to 10 s) and a WARNING, and so is the data when others write it. A node that is there and
    belongs to another session, or to none, is never taken over: it is waited for until it is gone.
    One that an earlier session of this client has left is replaced, in one transaction.

    *on_change*(present) is called when `is_present` has changed, in a greenlet of its own, never
    twice at once; of several changes that came meanwhile only the last is told. Parents are made
    where they are missing, persistent, the last one as a container if *container*.
    A unique name is the caller's to make (`f"/hosts/{uuid4().hex}"`). Of several objects with one
    path and one client the first one keeps the node until it is stopped, then the next.

    Sharing: for the greenlets of the client's hub; `is_present` and `stop()` for any thread.
    Errors: what the servers refuse is logged, kept in `error` and tried again.
    Left behind: nothing; a node that cannot be deleted when it is stopped goes as soon as the
    servers can be reached, or with the session.
    """

    _WHAT = "persistent node"

    def __init__(
        self,
        client: Client,
        path: str,
        data: bytes = b"",
        *,
        on_change: Callable[[bool], object] | None = None,
        container: bool = False,
        path_class: str = "",
    ) -> None:
        super().__init__(client, path)
        self._directory, _, self._name = self.path.rpartition("/")
        self._data = self._checked(data)
        self._on_change = on_change
        self._container = container
        self._lane = Lane()
        self._told = False
        self._seen: _Seen | None = None
        self._cut_off = False
        self._seen_by = float("inf")
        self._absent = True
        self._unsure = False
        self._late = (0.0, 0)
        self._sent: bytes | None = None
        self._sessions: set[int] = set()
        self._asked = (0, 0)
        self._made_in: int | None = None
        self._made_at = 0.0
        self._occupant = 0
        self._delays = _BACKOFF.delays()
        self._made = self._client.recorder.counter(
            "zk_persistent_made", "Nodes made by what keeps one.", ("path_class",)
        ).labels(path_class)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' present' if self.is_present else ''}>"

    @property
    def is_present(self) -> bool:
        """Whether the node is there and ours, as far as the session's lease lets one say: local.

        False as soon as the session may be over, by the own clock too; when somebody has deleted it
        some milliseconds later; after a reconnect when it was not seen again for one T, which
        alone `on_change` is not told of.
        """
        seen = self._seen
        return (
            seen is not None
            and self._life is Life.ON
            and self._session.holds(seen.epoch)
            and self._session.clock() < self._seen_by
        )

    @property
    def data(self) -> bytes:
        """What it has, or is to have."""
        return self._data

    def set_data(self, data: bytes) -> None:
        """Let the node have *data*, now and when it is made again. Never waits; see `wait()`.

        ValueError for more than servers take (1 MiB with the request).
        """
        self._client.check_thread(f"a {self._WHAT}")
        self._data = self._checked(data)
        self._wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is there with the data set last; False after *timeout* seconds.

        Raises ZookeeperMisused when it is not started or the client is stopped, DeadlineExceeded
        when the current `sepelib.util.deadline` is the earlier one.
        """
        return self._await(timeout, self._settled)

    def _checked(self, data: bytes) -> bytes:
        if not isinstance(data, bytes):
            raise TypeError(f"the data of a node is bytes, not {type(data).__name__}")
        # The servers would close the connection, each time that it is sent.
        room = _LARGEST - 2 * len((self._client.chroot + self.path).encode())
        if len(data) > room:
            raise ValueError(
                f"{self._WHAT} {self.path}: {len(data)} bytes are too many, servers take {room}"
            )
        return data

    def _settled(self) -> bool:
        return self.is_present and self._seen is not None and self._seen.data == self._data

    # In the greenlet.

    def _go_on(self, call: Call) -> None:
        turns = _turns.setdefault(self._client, {})
        queue = turns.setdefault(self.path, [])
        queue.append(self)
        queue[0]._wake()
        unsubscribe = self._session.subscribe(self._session_moved)
        try:
            call.wait.until(lambda: queue[0] is self or self._life is not Life.ON)
            if queue[0] is self:
                super()._go_on(call)
        finally:
            unsubscribe()
            queue.remove(self)
            if queue:
                queue[0]._late = max(queue[0]._late, self._late)
                queue[0]._wake()
            else:
                del turns[self.path]
            self._lose()

    def _step(self, call: Call) -> bool:
        if not self._absent:
            self._look(call)
        elif self._life is Life.ON:
            self._make(call)
        else:
            return self._may_yet_come(call)
        return True

    def _make(self, call: Call) -> None:
        self._absent = False
        data = self._data

        def ask() -> Any:
            self._note_asked(data)
            return self._client.create_async(self.path, data, ephemeral=True)

        try:
            call.write(ask)
            self._note_made()
        except NodeExistsError:
            self._unsure = True
        except NoNodeError:
            self._absent = True
            call.read(
                lambda: self._client.ensure_parent_async(
                    self._directory or "/", container=self._container
                )
            )
        except Unanswered:
            self._note_unanswered()
        except KazooException:
            self._absent = True  # refused
            raise

    def _note_asked(self, data: bytes) -> None:
        self._sent = data
        self._asked = self._session.epoch, self._session.session_id
        self._sessions.add(self._session.session_id)

    def _note_made(self) -> None:
        self._made_in, session_id = self._asked
        self._sessions = {session_id}
        self._made_at = time.monotonic()
        self._occupant = 0
        self._made.inc()
        _log.info("persistent node %s: made", self.path, extra=self._fields())

    def _note_unanswered(self) -> None:
        self._unsure = True
        self._late = time.monotonic() + self._session.timeout, self._asked[1]

    def _look(self, call: Call) -> None:
        if self._unsure:
            call.read(lambda: self._client.sync_async(self.path))
        epoch = self._session.epoch
        try:
            watch = call.watch(self.path)
        except NoNodeError:
            self._missing(call, epoch)
            return
        with watch:
            data, stat = watch.value
            if watch.fired or not self._session.holds(epoch):
                return
            self._unsure = False
            if stat.ephemeralOwner != self._session.session_id:
                self._occupied(call, watch, stat)
                return
            before, self._seen = self._seen, _Seen(epoch, data)
            self._made_in = epoch
            self._cut_off = False
            self._seen_by = float("inf")
            if self._life is not Life.ON:
                self._delete(call, stat)
            elif data != self._data:
                self._write(call, stat, before, data)
            else:
                self._stand(call, watch)

    def _missing(self, call: Call, epoch: int) -> None:
        self._absent = True
        self._lose()
        if self._made_in == epoch:
            self._put_right(call, epoch, "was deleted by somebody")
        self._made_in = None

    def _put_right(self, call: Call, epoch: int, what: str) -> None:
        """Leave some time to whoever does that, and to the session to end, if that is why."""
        if time.monotonic() - self._made_at > _CALM:
            self._delays = _BACKOFF.delays()

        def is_over() -> bool:
            return self._life is not Life.ON or not self._session.holds(epoch)

        if not call.wait.until(is_over, _SHORTEST + next(self._delays)):
            _log.warning("persistent node %s %s, put right", self.path, what, extra=self._fields())

    def _occupied(self, call: Call, watch: Watch, stat: Any) -> None:
        self._lose()
        self._made_in = None
        if self._life is not Life.ON:
            self._absent = True
        elif stat.ephemeralOwner in self._sessions:
            self._replace(call, stat)
        else:
            if self._occupant != stat.czxid:
                self._occupant = stat.czxid
                _log.warning(
                    "persistent node %s: there is one of %s, waiting until that is gone",
                    self.path,
                    f"session 0x{stat.ephemeralOwner:x}" if stat.ephemeralOwner else "no session",
                    extra=self._fields(),
                )
            self._until(call, lambda: watch.fired or self._life is not Life.ON)

    def _replace(self, call: Call, stat: Any) -> None:
        """The server has not noticed yet that our earlier session is over."""

        data = self._data

        def ask() -> Any:
            self._note_asked(data)
            transaction = self._client.transaction()
            transaction.delete(self.path, stat.version)
            transaction.create(self.path, data, ephemeral=True)
            return transaction.commit_async()

        try:
            call.write(ask)
            self._note_made()
        except TransactionRefused as refusal:
            if not isinstance(refusal.error, NoNodeError | NodeExistsError | BadVersionError):
                raise
            self._unsure = True
        except Unanswered:
            self._note_unanswered()

    def _write(self, call: Call, stat: Any, before: _Seen | None, found: bytes) -> None:
        data = self._data
        # What was sent last is no stranger's: since then another `set_data()` may have come.
        known = before is not None and before.epoch == self._made_in and found != self._sent
        if before is not None and known and before.data == data:
            self._put_right(call, before.epoch, "was written by somebody")
        self._sent = data
        try:
            call.write(lambda: self._client.set_async(self.path, data, version=stat.version))
        except (BadVersionError, NoNodeError, Unanswered):
            self._unsure = True

    def _delete(self, call: Call, stat: Any) -> None:
        self._made_in = self._seen = None
        try:
            call.write(lambda: self._client.delete_async(self.path, version=stat.version))
            self._absent = True
        except (BadVersionError, NoNodeError, Unanswered):
            self._unsure = True

    def _stand(self, call: Call, watch: Watch) -> None:
        data = self._data
        self._changed()
        self._until(call, lambda: watch.fired or self._life is not Life.ON or self._data != data)

    def _may_yet_come(self, call: Call) -> bool:
        """A create without an answer may yet be executed: look again for one T."""
        self._done.set()
        queue = _turns[self._client][self.path]
        until, session_id = self._late
        left = until - time.monotonic()
        if left <= 0 or len(queue) > 1 or self._session.session_id != session_id:
            return False
        with call.watch(self.path, "exists") as watch:
            self._until(call, lambda: watch.fired or self._life is Life.ON or len(queue) > 1, left)
        self._absent = self._life is Life.ON or len(queue) > 1
        return True

    def _lose(self) -> None:
        self._seen = None
        self._changed()

    # What it tells.

    def _session_moved(self) -> None:
        if self._session.state is not SessionState.CONNECTED:
            self._cut_off = True
        elif self._cut_off:
            self._cut_off = False
            self._seen_by = min(self._seen_by, self._session.clock() + self._session.timeout)
        self._changed()

    def _changed(self) -> None:
        super()._changed()
        if self._on_change is not None and self.is_present is not self._told:
            self._lane.post(self._tell, f"on_change of persistent node {self.path}", self.path)

    def _tell(self) -> None:
        present = self.is_present
        if present is not self._told and self._on_change is not None:
            self._told = present
            self._on_change(present)
