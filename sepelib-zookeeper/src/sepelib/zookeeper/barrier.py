"""Gates: one that somebody opens for all, and one that opens for a number of members at once.
Status: production.

    Barrier(client, "/import/closed").wait(timeout=60.0)     # while somebody keeps it closed

    barrier = DoubleBarrier(client, "/steps", 3)
    for step in steps:
        with barrier:           # here when all three are; left when all three have done it
            compute(step)

`Barrier` is kazoo's on the wire. `DoubleBarrier` is not: give kazoo's another path.

Units: seconds. Sharing: a Barrier is for all greenlets of its client's hub; a DoubleBarrier is one
member, that is for one greenlet at a time. Watches only wake: what is true is read again, so a
connection that blinks and a session that ends are waited out.
"""

from __future__ import annotations

from typing import Any

from kazoo.exceptions import NodeExistsError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._double_barrier import DoubleBarrier
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._wait import Busy, TimeIsUp
from sepelib.zookeeper.client import Client, client_of

__all__ = ["Barrier", "DoubleBarrier"]


class Barrier:
    """Closed while the node *path* is there, whoever made it, a crashed process too."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "barrier")

    def __repr__(self) -> str:
        return f"<Barrier {self.path}>"

    def create(self, timeout: float | None = None) -> bool:
        """Close it, with the nodes above it if need be; False when it is closed already.

        ZookeeperTimeout when there is no answer in *timeout* seconds (None: the client's
        `request_timeout`); it may be closed then if *maybe_executed*. When the answer is lost, and
        somebody opens it before there is a connection again, it is closed again: the node does not
        say who made it.
        """
        above = self.path.rpartition("/")[0] or "/"
        with Call.for_answer(self._client, self.path, "barrier", timeout) as call:
            while True:
                try:
                    call.write(lambda: self._client.create_async(self.path))
                    return True
                except Unanswered:
                    pass
                except NodeExistsError:
                    return call.unanswered
                except NoNodeError:
                    call.read(lambda: self._client.ensure_parent_async(above, container=False))
                call.wait.breathe()

    def remove(self, timeout: float | None = None) -> bool:
        """Open it; False when it is open already. *timeout* as of `create()`.

        Only what is there at the call goes: not what somebody closes while an answer is lost.
        """
        with Call.for_answer(self._client, self.path, "barrier", timeout) as call:
            first = None
            while True:
                node = call.read(self._look)
                first = first or node
                if node is None or node.czxid != first.czxid:
                    return call.unanswered
                try:
                    call.write(lambda: self._client.delete_async(self.path))
                    return True
                except Unanswered:
                    call.wait.breathe()
                except NoNodeError:
                    return call.unanswered

    def wait(self, timeout: float | None = None) -> bool:
        """True once it is open; False when *timeout* seconds are over before.

        None waits for ever, 0 asks once. Raises DeadlineExceeded when the current
        `sepelib.util.deadline` is the earlier one, ZookeeperMisused when the client is stopped.
        """
        try:
            with Call(self._client, self.path, "barrier", timeout) as call:
                while True:
                    call.contact()
                    self._client.sync_async(self.path)  # what follows is answered after it
                    with call.watch(self.path, "exists") as seen:
                        if seen.value is None:
                            return True
                        call.until_fired(seen)
        except (TimeIsUp, Busy):
            return False

    def _look(self) -> Any:
        self._client.sync_async(self.path)
        return self._client.exists_async(self.path)
