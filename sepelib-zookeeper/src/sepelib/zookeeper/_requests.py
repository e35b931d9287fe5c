"""Requests of the client that kazoo's does not have."""

from __future__ import annotations

import math
from collections.abc import Callable
from logging import getLogger
from typing import Any, Literal

import gevent
from kazoo.exceptions import NodeExistsError, NoNodeError, NoWatcherError, UnimplementedError

from sepelib.zookeeper import _kazoo_requests as wire
from sepelib.zookeeper import _kazoo_watches as watches
from sepelib.zookeeper.transaction import Transaction

__all__ = ["RequestsMixin"]

_log = getLogger(__name__)

_PARENT_TRIES = 20  # somebody else deletes what is made, as often as it is made
_MAX_TTL = 0xFF_FFFF_FFFF / 1000  # seconds: the server keeps five bytes of milliseconds

Kind = Literal["data", "children"]
_KINDS: dict[str, int] = {"data": watches.DATA, "children": watches.CHILDREN}


class RequestsMixin(watches.WatchesMixin):
    """Containers, nodes that end by themselves, the removal of watches, transactions.

    Goes before KazooClient among the bases. Errors are kazoo's, as of every plain operation.
    """

    handler: Any
    default_acl: Any
    _containers_known = True

    def transaction(self) -> Transaction:
        """Several operations of which all are done or none."""
        return Transaction(self)

    def create_container(self, path: str, value: bytes = b"", acl: Any = None) -> str:
        """Make a container: the server removes it when its last child is gone. Gives the path.

        NodeExistsError, NoNodeError for a missing parent. A server before 3.5 has no containers:
        there it is a persistent node, which stays, and the log says so once.
        """
        acl = acl or self.default_acl
        full = wire.full_path(self, path)
        if self._containers_known:
            try:
                made, _ = wire.ask(
                    self, wire.create(full, _checked(value), acl, wire.CONTAINER)
                ).get()
                return self.unchroot(made)
            except UnimplementedError:
                self._containers_known = False
                _log.warning(
                    "the server has no container nodes: %s and others are made persistent, and "
                    "stay when they are empty",
                    path,
                    extra={"path": path},
                )
        plain = wire.ask(self, wire.create(full, _checked(value), acl, 0)).get()
        return self.unchroot(plain)

    def create_ttl(
        self,
        path: str,
        value: bytes = b"",
        *,
        ttl: float,
        acl: Any = None,
        sequence: bool = False,
    ) -> str:
        """Make a node that the server removes *ttl* seconds after its last change. Gives the path.

        Not while it has children. UnimplementedError when the server does not offer it (before 3.5,
        or without its setting extendedTypesEnabled); nothing is made then.
        """
        if not 0.001 <= ttl <= _MAX_TTL:
            raise ValueError(f"a ttl is from 0.001 to {math.floor(_MAX_TTL)} seconds, not {ttl!r}")
        full = wire.full_path(self, path, trailing=sequence)
        flags = wire.SEQUENCE if sequence else 0
        acl = acl or self.default_acl
        made, _ = wire.ask(self, wire.create(full, _checked(value), acl, flags, ttl=ttl)).get()
        return self.unchroot(made)

    def ensure_parent(self, path: str, *, container: bool = True) -> None:
        """Let there be a node *path* for others to be made below; one that is there is left.

        It is made as a container, persistent unless *container*. What is missing above it is made
        persistent: that belongs to others too. Made again when somebody deletes it meanwhile, so
        the caller has to try again as well when it is gone at the next moment.
        """
        make: Callable[[str], object] = self.create_container if container else self._create_plain
        for _ in range(_PARENT_TRIES):
            try:
                make(path)
                return
            except NodeExistsError:
                return
            except NoNodeError:
                above = path.rstrip("/").rpartition("/")[0]
                if not above and not path.strip("/"):
                    raise  # of the chroot itself
                self.ensure_parent(above or "/", container=False)
        raise NoNodeError(f"{path}: somebody deletes what is above each time it is made")

    def ensure_parent_async(self, path: str, *, container: bool = True) -> Any:
        """As `ensure_parent()`; never waits. The result is as of kazoo's `ensure_path_async()`."""
        result = self.handler.async_result()

        def run() -> None:
            try:
                self.ensure_parent(path, container=container)
            except BaseException as error:
                result.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                result.set(True)

        gevent.spawn(run)
        return result

    def remove_watches(
        self, path: str, watch: Callable[[Any], object] | None = None, *, kind: Kind = "data"
    ) -> bool:
        """Forget a watch here and on the server; False when there was none.

        *watch*: the function that is not to be called; None for all of the path. *kind*: "data" for
        those of `get` and `exists`, "children" for those of `get_children`. The server has one
        watch for all functions of this client: it stays as long as another one waits.
        """
        try:
            return bool(self.remove_watches_async(path, watch, kind=kind).get())
        except NoWatcherError:
            return False

    def remove_watches_async(
        self, path: str, watch: Callable[[Any], object] | None = None, *, kind: Kind = "data"
    ) -> Any:
        """As `remove_watches()`, but never waits; *watch* is not called from now on.

        The result is True, or fails with kazoo's NoWatcherError when the server has none. A watch
        whose request is not answered yet is removed as well; should others of the path be set at
        the same moment, they are called with an event of the type NONE.
        """
        full = wire.full_path(self, path)
        number = _KINDS[kind]
        waiting = watches.set_watches(self, full, number)
        watches.drop_watch(self, full, number, watch)
        if watch in waiting and len(waiting) > 1:
            result = self.handler.async_result()
            result.set(True)
            return result
        return watches.remove_watches(self, full, number, watch)

    def _create_plain(self, path: str) -> object:
        full = wire.full_path(self, path)
        return wire.ask(self, wire.create(full, b"", self.default_acl, 0)).get()


def _checked(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"the value of a node is bytes, not {type(value).__name__}")
    return value
