"""A copy of a part of ZooKeeper's tree in memory, kept up to date.

    with TreeCache(client, "/services") as cache:       # read completely
        @cache.listen
        def tell(event): ...
        for name in cache.get_children("/services") or ():
            print(cache.get_data(f"/services/{name}").data)

Reading asks nobody and waits for nothing. What it gives lags behind the servers: by milliseconds
while `in_sync`; while the connection is away, for as long as that takes. No node is shown older
than it was shown before.

The root need not exist. After each reconnect all is read again and compared, so no change is
missed, but those in between add up to one. It goes on over expired sessions and a client that is
stopped and started, until `close()`.

On the server it is one watch from ZooKeeper 3.6 on, else two for each node. To find out that it is
older costs the client one connection. Nodes that the client may not read are not there, nor are
those below them. Servers do not tell that this has changed, nor what happens to a node meanwhile:
one that becomes unreadable is shown as it was until the next reconnect.

Sharing: `get_data`, `get_children`, `exists` and `close` are for any thread, all else for the
greenlets of the client's hub. Each listener is called in a greenlet of its own, with all events in
their order; whatever it raises is logged.

Source: Apache Curator's CuratorCache; events and names after kazoo's TreeCache.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Self, TypeVar, overload

import gevent
import gevent.event
from kazoo.protocol.states import KeeperState

from sepelib.util.deadline import clip
from sepelib.zookeeper._handler import Lane, name_of
from sepelib.zookeeper._tree import NodeData, Tree, TreeEvent, TreeEventType
from sepelib.zookeeper._tree_reader import Reader
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import ZookeeperMisused, ZookeeperTimeout
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.watch import Recency, checked_path

__all__ = ["NodeData", "TreeCache", "TreeEvent", "TreeEventType"]

_log = getLogger(__name__)

D = TypeVar("D")
L = TypeVar("L", bound=Callable[[TreeEvent], object])

_TOLD = {
    SessionState.CONNECTED: TreeEventType.CONNECTION_RECONNECTED,
    SessionState.SUSPENDED: TreeEventType.CONNECTION_SUSPENDED,
    SessionState.LOST: TreeEventType.CONNECTION_LOST,
}


class _State(enum.Enum):
    """LATENT ──start──► STARTED; any ──close──► CLOSED."""

    LATENT = "latent"
    STARTED = "started"
    CLOSED = "closed"


class TreeCache:
    """The nodes at *path* and below, down to *max_depth* levels under it (0: it alone).

    path_class: the label of the metrics.
    """

    def __init__(
        self, client: Client, path: str, *, max_depth: int | None = None, path_class: str = ""
    ) -> None:
        self._client = client_of(client)
        if max_depth is not None and max_depth < 0:
            raise ValueError(f"max_depth is a number of levels, not {max_depth!r}")
        self.path = checked_path(path)
        self.initialized = gevent.event.Event()
        """Set once all has been read for the first time."""
        self._max_depth = max_depth
        self._loop = gevent.get_hub().loop
        self._state = _State.LATENT
        self._tree = Tree(self.path, self._publish)
        self._reader: Reader | None = None
        self._listeners: list[tuple[Callable[[TreeEvent], object], Lane]] = []
        self._session = (SessionState.LOST, 0)
        self._recency = Recency(self._client, self.path)
        self._began = 0.0
        self._unsubscribe: Callable[[], None] = lambda: None
        self._nodes = self._client.recorder.gauge(
            "zk_tree_cache_nodes", "Nodes in tree caches.", labels=("path_class",)
        ).labels(path_class)
        self._detach: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<TreeCache {self.path} {self._state.value}, {self._tree.size} nodes>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout: float | None = 30.0) -> None:
        """Read all, and follow it from then on. What does not succeed leaves it closed.

        ZookeeperTimeout after *timeout* seconds, DeadlineExceeded with the current deadline.
        """
        limit = clip(timeout)
        self.start_async()
        try:
            if not self.initialized.wait(limit):
                raise ZookeeperTimeout(
                    f"tree cache {self.path}: not read within {limit:.3g} s, "
                    f"{self._tree.size} nodes were; {self._client.session!r}"
                )
        except BaseException:
            self.close()
            raise

    def start_async(self) -> gevent.event.Event:
        """Begin to read; gives `initialized`. The client need not be connected, nor started."""
        self._client.check_thread("a TreeCache")
        if self._state is not _State.LATENT:
            raise ZookeeperMisused(f"tree cache {self.path} is {self._state.value} already")
        self._state = _State.STARTED
        self._detach = self._nodes.bind(lambda: float(self._tree.size))
        self._unsubscribe = self._client.session.subscribe(self._look_at_session)
        self._look_at_session()
        return self.initialized

    def close(self) -> None:
        """Forget all, call no listener any more, leave no watch. Never waits; idempotent.

        A call of a listener that has begun comes to its end.
        """
        try:
            self._client.check_thread("")
        except ZookeeperMisused:
            self._loop.run_callback_threadsafe(self._close)
        else:
            self._close()

    def listen(self, listener: L) -> L:
        """Call *listener*(event) from now on, and give it back: for use as a decorator too."""
        self._client.check_thread("a TreeCache")
        if not callable(listener):
            raise TypeError(f"a listener is callable, {listener!r} is not")
        self._listeners.append((listener, self._client.handler.lane()))
        return listener

    def remove_listener(self, listener: Callable[[TreeEvent], object]) -> None:
        """Call *listener* no more, for what has happened already neither."""
        for other, lane in self._listeners:
            if other == listener:
                lane.clear()
        self._listeners = [each for each in self._listeners if each[0] != listener]

    @property
    def in_sync(self) -> bool:
        """Whether each change of the servers arrives here within milliseconds.

        False without a connection, and until all has been read again after that.
        """
        connected = self._client.session.state is SessionState.CONNECTED
        return connected and self._reader is not None and self._reader.done

    @overload
    def get_data(self, path: str) -> NodeData | None: ...
    @overload
    def get_data(self, path: str, default: D) -> NodeData | D: ...

    def get_data(self, path: str, default: D | None = None) -> NodeData | D | None:
        """The node at *path*, *default* when there is none. ValueError outside of this tree."""
        found = self._tree.get(path)
        return default if found is None else found

    @overload
    def get_children(self, path: str) -> frozenset[str] | None: ...
    @overload
    def get_children(self, path: str, default: D) -> frozenset[str] | D: ...

    def get_children(self, path: str, default: D | None = None) -> frozenset[str] | D | None:
        """The names of its children, *default* when there is no node. ValueError as above."""
        found = self._tree.children(path)
        return default if found is None else found

    def exists(self, path: str) -> bool:
        """Whether there is a node at *path*. ValueError as above."""
        return self._tree.get(path) is not None

    def _close(self) -> None:
        started, self._state = self._state is _State.STARTED, _State.CLOSED
        if not started:
            return
        self._unsubscribe()
        self._detach()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.take_back()
        self._tree.clear()
        for _, lane in self._listeners:
            lane.clear()

    def _look_at_session(self) -> None:
        session = self._client.session
        (old_state, old_epoch), (state, epoch) = self._session, (session.state, session.epoch)
        if self._state is not _State.STARTED or (old_state, old_epoch) == (state, epoch):
            return
        self._session = state, epoch
        if old_epoch:
            if old_epoch != epoch and old_state is not SessionState.LOST:
                self._publish(TreeEvent(TreeEventType.CONNECTION_LOST))
            self._publish(TreeEvent(_TOLD[state]))
        if state is SessionState.CONNECTED:
            self._read()
        elif self._reader is not None:
            lost = state is SessionState.LOST
            if lost and self._client.client_state == KeeperState.CONNECTED:
                # By the clock: the connection may live on, with its watches.
                self._reader.take_back()
            self._reader.end()
            self._reader = None

    def _read(self) -> None:
        if self._reader is not None:
            self._reader.take_back()
        self._recency.ensure()
        self._began = time.monotonic()
        self._reader = Reader(
            self._client, self._tree, self._max_depth, self._note_all_read, self._read
        )
        self._reader.start()

    def _note_all_read(self) -> None:
        _log.info(
            "tree cache %s: %d nodes read in %.3g s",
            self.path,
            self._tree.size,
            time.monotonic() - self._began,
            extra={"path": self.path},
        )
        self.initialized.set()
        self._publish(TreeEvent(TreeEventType.INITIALIZED))

    def _publish(self, event: TreeEvent) -> None:
        for listener, lane in self._listeners:
            what = f"the listener {name_of(listener)} of tree cache {self.path}"
            lane.post(partial(listener, event), what, self.path)
