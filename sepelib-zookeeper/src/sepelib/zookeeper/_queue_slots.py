"""Writes that are done once, however often they have to be sent.

A slot is an ephemeral node of a producer. Each write is a transaction that also raises the version
of a slot from the one that is known: sent again after a lost answer it is done now, or refused
since it was done before; no matter what has become meanwhile of that which it made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from kazoo.exceptions import NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._contender import Node, discard
from sepelib.zookeeper.errors import ZookeeperError

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Slot", "Slots", "make_directory"]

_IDLE = 1.0
"""Seconds after which slots that nobody has used are deleted."""


class Slot:
    """For one write at a time."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.version = 0


class Slots:
    """The slots of one producer; as many as it had writes at once."""

    def __init__(self, client: Client, directory: str) -> None:
        self._client = client
        self._directory = directory
        self._free: list[Slot] = []
        self._timer: Any = None

    def take(self, call: Call) -> Slot:
        """A slot of the present epoch, the caller's until `give()` or `drop()`."""
        while self._free:
            slot = self._free.pop()
            if self._client.session.holds(slot.node.epoch):
                return slot
            self.drop(slot)
        return Slot(self._make(call))

    def give(self, slot: Slot) -> None:
        """A write through *slot* was done."""
        slot.version += 1
        self._free.append(slot)
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(_IDLE, _IDLE, ref=False)
        self._timer.again(self._tidy)  # from now on

    def drop(self, slot: Slot) -> None:
        """Nobody knows what became of the write, or the session is over. Never waits."""
        node = slot.node
        self._client._janitor.dispose(node.directory, node.guid, node.name, epoch=node.epoch)

    def _tidy(self) -> None:
        self._timer.stop()
        while self._free:
            discard(self._client, self._free.pop().node)

    def _make(self, call: Call) -> Node:
        session, janitor = self._client.session, self._client._janitor
        while True:
            guid = janitor.claim(self._directory)
            path, epoch = f"{self._directory}/{guid}", session.epoch

            def ask(path: str = path) -> Any:
                nonlocal epoch
                epoch = session.epoch
                return self._client.create_async(path, ephemeral=True, include_data=True)

            try:
                _, stat = call.write(ask)
                return Node(path, guid, stat.czxid, epoch, stat.ephemeralOwner)
            except NoNodeError:
                janitor.release(guid)
                make_directory(call, self._directory)
            except Unanswered:
                janitor.dispose(self._directory, guid, None, epoch=epoch)
                call.unanswered = False  # of what the caller wants nothing was asked for
                call.wait.breathe()
            except BaseException:
                janitor.dispose(self._directory, guid, None, epoch=epoch)
                call.unanswered = False
                raise


def make_directory(call: Call, path: str) -> None:
    """Let there be the container *path*, and those from the queue down to it.

    The caller counts on it as long as that may take.
    """
    names = path.removeprefix(call.path).split("/")
    try:
        for depth in range(1, len(names) + 1):
            level = call.path + "/".join(names[:depth])
            call.read(partial(call.client.ensure_parent_async, level))
    except NoNodeError as e:
        raise ZookeeperError(f"{call.what} {path}: it cannot be made: {e}") from e
    call.wait.breathe()
