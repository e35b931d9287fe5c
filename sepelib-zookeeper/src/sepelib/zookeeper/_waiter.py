"""One who waits at a condition: an own node, until somebody else deletes it.

ASKED ──made──► STANDING ──deleted by a notify, or with its session──► WOKEN
  │                │
  └────given up────┴──────► LEFT
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any

import gevent
from kazoo.exceptions import NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._contender import UNANSWERED
from sepelib.zookeeper._grant import Grant
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperMisused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["MARKER", "Waiter"]

_log = getLogger("sepelib.zookeeper.condition")

MARKER = "^w-[0-9a-f]{32}-"
"""Of the nodes, a regular expression for Queue."""


class Stage(enum.Enum):
    ASKED = "a node is asked for, or will be"
    STANDING = "it is there"
    WOKEN = "it is gone, by a notify perhaps"
    LEFT = "it is gone, and no notify came before"


class Waiter:
    """Stands in *directory*, with *data*(guid) as its node's, as of the holder of *grant*.

    The janitor knows of the node until it is certainly gone. pass_on(call) wakes another waiter,
    for one that was woken and cannot make use of it.
    """

    def __init__(
        self,
        client: Client,
        directory: str,
        grant: Grant,
        data: Callable[[str], bytes],
        *,
        container: bool,
        pass_on: Callable[[Call], object],
    ) -> None:
        self._client = client
        self._directory = directory
        self._grant = grant
        self._data = data
        self._container = container
        self._pass_on = pass_on
        self._epoch = grant.node.epoch
        self._stage = Stage.ASKED
        self._guid = client._janitor.claim(directory)
        self._created: Any = None
        self._node = ""

    def stand(self, call: Call) -> None:
        """Make the node; LockLost when the lock is not held any more."""
        while not self._node:
            try:
                self._node = call.write(self._create)
            except NoNodeError:
                make, container = self._client.ensure_parent_async, self._container
                call.read(partial(make, self._directory, container=container))
                call.wait.breathe()
            except Unanswered:
                self._node = self._found(call)
                if not self._node:
                    # Under another GUID: should it come after all, it is not this one.
                    self._dispose()
                    self._guid = self._client._janitor.claim(self._directory)
                    call.wait.breathe()
        self._stage = Stage.STANDING

    def _create(self) -> Any:
        self._grant.check()  # so it is made in the session of the lock
        self._created = self._client.create_async(
            f"{self._directory}/w-{self._guid}-",
            self._data(self._guid),
            ephemeral=True,
            sequence=True,
        )
        return self._created

    def _found(self, call: Call) -> str:
        # After the sync the listing has all that this session has asked for before.
        call.read(partial(self._client.sync_async, self._directory))
        try:
            names = call.read(partial(self._client.get_children_async, self._directory))
        except NoNodeError:
            names = []
        return next((f"{self._directory}/{name}" for name in names if self._guid in name), "")

    def wait(self, call: Call) -> None:
        """Return when it is woken."""
        while self._stage is Stage.STANDING:
            try:
                with call.watch(self._node) as seen:
                    call.until_fired(seen)
            except NoNodeError:
                self._gone(Stage.WOKEN)

    def leave(self, call: Call) -> bool:
        """Delete the node; True when it was woken before."""
        while self._stage is Stage.STANDING:
            try:
                call.write(partial(self._client.delete_async, self._node))
                self._gone(Stage.LEFT)
            except NoNodeError:
                self._gone(Stage.WOKEN)
            except Unanswered:
                call.wait.breathe()
        return self._stage is Stage.WOKEN

    def resign(self) -> None:
        """Leave, whatever the stage, and let another have the wake-up, if there was one.

        Never yields: it is done in a greenlet of its own, for callers that are killed. Nothing else
        may be called afterwards.
        """
        if self._stage is not Stage.LEFT:
            gevent.spawn(self._resign)

    def _resign(self) -> None:
        try:
            with Call(self._client, self._directory, "condition") as call:
                if self._stage is Stage.ASKED:
                    self._learn(call)
                if self.leave(call):
                    self._pass_on(call)
        except ZookeeperMisused:
            pass  # the client was stopped, which ends the session
        except ZookeeperError as error:
            words = "condition %s: the notify of a waiter that was killed may be lost: %s"
            extra = {"path": self._directory, "guid": self._guid}
            _log.warning(words, self._directory, error, extra=extra)
        finally:
            if self._stage in (Stage.ASKED, Stage.STANDING):
                self._dispose()

    def _learn(self, call: Call) -> None:
        """What has become of the create."""
        created = self._created
        if created is None:
            self._gone(Stage.LEFT)
            return
        created.rawlink(call.wait.wake)
        call.wait.until(created.ready)
        if created.exception is None:
            self._node = created.value
            self._stage = Stage.STANDING
        elif not (isinstance(created.exception, UNANSWERED) and created.left):
            self._gone(Stage.LEFT)
        else:
            self._node = self._found(call)
            # Not there: never made, or notified already, nobody knows.
            self._stage = Stage.STANDING if self._node else Stage.WOKEN
            if not self._node:
                self._dispose()

    def _gone(self, stage: Stage) -> None:
        self._stage = stage
        self._client._janitor.release(self._guid)

    def _dispose(self) -> None:
        name = self._node.rpartition("/")[2] or None
        self._client._janitor.dispose(self._directory, self._guid, name, epoch=self._epoch)
