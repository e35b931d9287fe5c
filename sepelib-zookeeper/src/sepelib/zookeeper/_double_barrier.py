"""The barrier that opens for a number of members at once, round after round.

OUTSIDE ──enter()──► ENTERING ──round opens──► INSIDE ──leave()──► LEAVING ──all gone──► OUTSIDE
                         └─given up─► OUTSIDE                             └─given up─► LEFT
LEFT ──leave()──► LEAVING, ──enter()──► ENTERING
"""

from __future__ import annotations

import enum
import json
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from logging import getLogger
from typing import Any, Self

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._contender import Node, discard
from sepelib.zookeeper._identity import identity, normal_path
from sepelib.zookeeper._wait import Busy, TimeIsUp
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import (
    ConfigurationError,
    SessionLost,
    ZookeeperError,
    ZookeeperMisused,
)
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.transaction import TransactionRefused

__all__ = ["DoubleBarrier"]

_log = getLogger(__name__)

_MEMBER = re.compile(r"[0-9a-f]{32}__member([0-9]+)$")
_LAST_LOOK = 0.5
"""Seconds that an enter() which is over gives the servers to say whether the barrier has opened."""


class _State(enum.Enum):
    OUTSIDE = "outside"
    ENTERING = "being entered"
    INSIDE = "inside"
    LEAVING = "being left"
    LEFT = "left, and the others may be inside"


_MOVES: dict[_State, frozenset[_State]] = {
    _State.OUTSIDE: frozenset({_State.ENTERING}),
    _State.ENTERING: frozenset({_State.INSIDE, _State.OUTSIDE}),
    _State.INSIDE: frozenset({_State.LEAVING, _State.OUTSIDE}),
    _State.LEAVING: frozenset({_State.LEFT, _State.OUTSIDE}),
    _State.LEFT: frozenset({_State.LEAVING, _State.ENTERING}),
}


class DoubleBarrier:
    """Lets *num_clients* members in when that many stand before it, and out when all have left.

        PATH                        data: the members of the latest round
        PATH/<guid>__member<n>      ephemeral; one for each call of enter(), never made again

    A round opens by one transaction, whichever member sends it: it checks that the nodes of
    *num_clients* members are there and writes their names into PATH, at the version that was read.
    A member is in when it reads its own name there. So:

    * Who is let in was let in with *num_clients* - 1 others, all of whom stood before the barrier
      at the same moment. A node of a former round, of another recipe or of a dead session counts
      for nothing, nor does a create that was sent twice.
    * A round does not open while a node of the one before is there: it is over when each of its
      members has left or its session has ended. Members beyond the number wait for the next one.
    * `leave()` returns True when each other member of that round has left or its session has ended,
      as those nodes are never made again. The death of a member holds nobody up for longer than
      its session timeout.
    * Who waits in `enter()` and whose session ends stands there again with a new node, unless the
      barrier may have opened with the old one: SessionLost, since the others did not wait.

    A death is known when the session ends. Until then a dead member counts, as it must; so a round
    may open with one that is dead already, and its members then find out in `leave()`, or never.
    The node PATH stays; to delete it while nobody is there is harmless.

    identifier: the data of the own node, for who looks at it.
    Source: the double barrier of the ZooKeeper documentation, with rounds instead of a node
    `ready`, and the start of a round made atomic.
    """

    def __init__(
        self, client: Client, path: str, num_clients: int, identifier: str | None = None
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "barrier")
        if isinstance(num_clients, bool) or not isinstance(num_clients, int):
            raise TypeError(f"num_clients is an int, not {type(num_clients).__name__}")
        if num_clients < 1:
            raise ValueError(f"a barrier is for one client at least, not {num_clients}")
        self.num_clients = num_clients
        self._data = identity(identifier)
        self._state = _State.OUTSIDE
        self._node: Node | None = None
        self._members: list[str] = []
        self._gate: Any = None
        """The stat of PATH, as it was read when the barrier had not opened for us yet."""

    def __repr__(self) -> str:
        return f"<DoubleBarrier {self.path} of {self.num_clients}, {self._state.value}>"

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """As `leave()`; when the block has raised, without waiting for the others."""
        if self._state is _State.INSIDE:
            if kind is None:
                self.leave()
            else:
                self._abandon()
                self._move(_State.OUTSIDE)

    @property
    def participating(self) -> bool:
        """Whether the others wait for this member: it is in, and its session is not over.

        Local, without a request. What is False here `leave()` tells too, unless the session was
        only given up for want of an answer, and lived on.
        """
        node = self._node
        return (
            self._state is _State.INSIDE
            and node is not None
            and self._client.session.holds(node.epoch)
        )

    def enter(self, timeout: float | None = None) -> bool:
        """True once *num_clients* members are in, this one among them; False when *timeout*
        seconds are over before.

        None waits for ever, 0 asks whether this one is the last. After False, and after whatever is
        raised, this member does not stand there any more; without a connection at that moment the
        barrier may have opened for it as one that left at once. Raises SessionLost as said above,
        DeadlineExceeded when the current `sepelib.util.deadline` is the earlier one,
        ConfigurationError when members wait there for another number, ZookeeperMisused when the
        client is stopped or this member is in already.
        """
        self._require(_State.OUTSIDE, _State.LEFT)
        call = Call(self._client, self.path, "double barrier", timeout)
        self._move(_State.ENTERING)
        self._gate = None
        try:
            try:
                with call:
                    self._members = self._let_in(call)
            except (TimeIsUp, Busy):
                if not self._opened_at_last():
                    return False
            _log.info(
                "double barrier %s: entered after %.3f s",
                self.path,
                call.wait.waited(),
                extra=self._fields(),
            )
            self._move(_State.INSIDE)
            return True
        finally:
            if self._state is _State.ENTERING:
                self._abandon()
                self._move(_State.OUTSIDE)

    def leave(self, timeout: float | None = None) -> bool:
        """Leave; True once all others have, False when *timeout* seconds are over before.

        This member has left in any case, whatever is raised too: without a connection as soon as
        there is one. After False it may be called again, to wait on. SessionLost, or ZookeeperError
        when somebody has deleted the node, if this member was out before the call: the others have
        not waited for it.
        """
        self._client.check_thread("DoubleBarrier.leave()")
        self._require(_State.INSIDE, _State.LEFT)
        self._move(_State.LEAVING)
        try:
            with Call(self._client, self.path, "double barrier", timeout) as call:
                if self._node is not None:
                    self._depart(call, self._node)
                self._see_off(call)
            self._move(_State.OUTSIDE)
            return True
        except (TimeIsUp, Busy):
            return False
        finally:
            if self._state is _State.LEAVING:
                self._abandon()
                self._move(_State.LEFT)

    def _require(self, *states: _State) -> None:
        if self._state not in states:
            raise ZookeeperMisused(f"double barrier {self.path}: it is {self._state.value}")

    def _move(self, state: _State) -> None:
        assert state in _MOVES[self._state], f"{self._state} to {state}"
        self._state = state

    # In.

    def _let_in(self, call: Call) -> list[str]:
        """The members of the round that has opened for us."""
        while True:
            if self._node is None:
                self._node = self._stand(call)
            node = self._node
            try:
                gate = call.watch(self.path)
            except NoNodeError:  # and our node with it
                self._rejoin(call, node)
                continue
            with gate:
                data, stat = gate.value
                members = self._read(data)
                if node.name in members:
                    self._check_session(node)
                    return members
                children = self._children(call)
                if node.name not in children or node.session_id != self._session_id:
                    self._rejoin(call, node)
                    continue
                self._gate = stat
                inside = [name for name in members if name in children]
                if inside:
                    with call.watch(f"{self.path}/{inside[0]}", "exists") as former:
                        if former.value is not None:
                            call.until_fired(gate, former)
                    continue
                rivals = self._rivals(children, node)
                if len(rivals) >= self.num_clients - 1:
                    self._open(call, [node.name, *self._chosen(rivals)], stat.version)
                    continue
                # Whoever makes the number complete lists after its create, and sees us; but not
                # when somebody has deleted our node.
                with (
                    suppress(NoNodeError),
                    call.watch(node.path, "get") as own,
                ):
                    call.until_fired(gate, own)

    def _stand(self, call: Call) -> Node:
        while True:
            call.contact()
            node = self._create(call, self._session_id)
            if node is not None:
                return node

    def _create(self, call: Call, session_id: int) -> Node | None:
        """Our node; None when the session has become another one.

        Within a session it is the same name however often it is sent: there is one node at most.
        Those of a session that is over cannot come any more.
        """
        client = self._client
        guid = client._janitor.claim(self.path)
        path = f"{self.path}/{guid}__member{self.num_clients}"
        epoch = client.session.epoch
        node = None
        try:
            while node is None and self._session_id == session_id:
                try:
                    _, stat = call.write(
                        lambda: client.create_async(
                            path, self._data(guid), ephemeral=True, include_data=True
                        )
                    )
                except NoNodeError:
                    call.read(lambda: client.ensure_parent_async(self.path, container=False))
                    call.wait.breathe()
                    continue
                except (Unanswered, NodeExistsError):
                    stat = call.read(lambda: client.exists_async(path))
                if stat is not None and stat.ephemeralOwner == self._session_id:
                    node = Node(path, guid, stat.czxid, epoch, stat.ephemeralOwner)
            return node
        finally:
            if node is None:
                name = path.rpartition("/")[2]
                client._janitor.dispose(self.path, guid, name, epoch=epoch)

    def _rejoin(self, call: Call, node: Node) -> None:
        """Our node is gone: let there be another one, unless that one may have been let in."""
        with suppress(NoNodeError):
            # Only now: until it went it may have been let in.
            call.read(lambda: self._client.sync_async(self.path))
            data, stat = call.read(lambda: self._client.get_async(self.path))
            if node.name in self._read(data) or self._has_missed_a_round(node, stat):
                raise self._lost(node)
        _log.warning(
            "double barrier %s: the own node was gone while waiting, made again",
            self.path,
            extra=self._fields(),
        )
        self._abandon()

    def _has_missed_a_round(self, node: Node, stat: Any) -> bool:
        """Whether a round may have opened since whose members are not known any more."""
        gate = self._gate
        if gate is None:
            return bool(stat.mzxid > node.token)
        return bool(stat.czxid != gate.czxid or stat.version - gate.version > 1)

    def _rivals(self, children: Iterable[str], node: Node) -> list[str]:
        rivals = []
        for name in children:
            match = _MEMBER.match(name)
            if match is None or name == node.name:
                continue
            if int(match.group(1)) != self.num_clients:
                raise ConfigurationError(
                    f"double barrier {self.path}: is for {self.num_clients} here, and another "
                    f"member waits for {match.group(1)}"
                )
            rivals.append(name)
        return rivals

    def _chosen(self, rivals: list[str]) -> list[str]:
        # At random: nobody is left out for ever.
        return random.sample(rivals, self.num_clients - 1)

    def _open(self, call: Call, members: list[str], version: int) -> None:
        """Let *members* in, if they are all there; what came of it is read."""
        transaction = self._client.transaction()
        for name in members:
            transaction.check(f"{self.path}/{name}", -1)
        record = json.dumps({"sepelib": "double barrier", "members": members}).encode()
        transaction.set_data(self.path, record, version)
        try:
            call.write(transaction.commit_async)
        except Unanswered:
            pass
        except TransactionRefused as e:
            if not isinstance(e.error, NoNodeError | BadVersionError):
                raise
            call.wait.breathe()

    def _opened_at_last(self) -> bool:
        """The time is over: take the own node away, or see that the barrier has opened for it."""
        client, node, gate = self._client, self._node, self._gate
        if node is None or client.session.state is not SessionState.CONNECTED:
            return False
        try:
            with Call(client, self.path, "double barrier", _LAST_LOOK) as call:
                while True:
                    if gate is not None and self._withdrawn(call, node, gate.version):
                        return False
                    data, stat = call.read(lambda: client.get_async(self.path))
                    self._members = self._read(data)
                    if node.name in self._members:
                        return node.session_id == self._session_id
                    if gate is not None and stat.version == gate.version:
                        return False  # it was not that which has changed
                    gate = stat
        except (TimeIsUp, Busy, Unanswered, ZookeeperError):
            return False

    def _withdrawn(self, call: Call, node: Node, version: int) -> bool:
        """Delete the own node, unless the barrier has opened since *version*."""
        transaction = self._client.transaction()
        transaction.check(self.path, version)
        transaction.delete(node.path)
        try:
            call.write(transaction.commit_async)
        except TransactionRefused:
            return False
        self._forget(node)
        return True

    # Out.

    def _depart(self, call: Call, node: Node) -> None:
        """Delete the own node."""
        unsure = False
        while True:
            try:
                call.write(lambda: self._client.delete_async(node.path))
            except Unanswered:
                unsure = True
                continue
            except NoNodeError:
                if not unsure:
                    self._forget(node)
                    self._move(_State.OUTSIDE)
                    raise self._lost(node) from None
            self._forget(node)
            self._members.remove(node.name)
            return

    def _see_off(self, call: Call) -> None:
        """Wait until the nodes of the others are gone; they never come again."""
        while True:
            children = self._children(call)
            self._members = [name for name in self._members if name in children]
            if not self._members:
                return
            with call.watch(f"{self.path}/{self._members[0]}", "exists") as last:
                if last.value is not None:
                    call.until_fired(last)

    # Both.

    @property
    def _session_id(self) -> int:
        return self._client.session.session_id

    def _children(self, call: Call) -> set[str]:
        try:
            return set(call.read(lambda: self._client.get_children_async(self.path)))
        except NoNodeError:
            return set()

    def _read(self, data: bytes) -> list[str]:
        """The members of the latest round."""
        if not data:
            return []
        try:
            return [str(name) for name in json.loads(data)["members"]]
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            raise ConfigurationError(
                f"double barrier {self.path}: there is data of something else"
            ) from e

    def _check_session(self, node: Node) -> None:
        if node.session_id != self._session_id:
            raise self._lost(node)

    def _lost(self, node: Node) -> ZookeeperError:
        if node.session_id != self._session_id:
            return SessionLost(
                f"double barrier {self.path}: the session ended, and the others did not wait"
            )
        return ZookeeperError(
            f"double barrier {self.path}: somebody deleted the own node, and the others did not "
            "wait"
        )

    def _abandon(self) -> None:
        """Let the own node go, for certain and without waiting."""
        node, self._node = self._node, None
        if node is not None:
            discard(self._client, node)

    def _forget(self, node: Node) -> None:
        self._client._janitor.release(node.guid)
        self._node = None

    def _fields(self) -> dict[str, object]:
        node = self._node
        return {
            "path": self.path,
            "guid": None if node is None else node.guid,
            "session": f"0x{self._session_id:x}",
            "token": None if node is None else node.token,
        }
