"""Changes of one node, each of which is done exactly once, whatever answers are lost.

    PATH               the value, bare
    PATH/op-<32 hex>   persistent: this change is done; its data are the change's result
    PATH/key-<key>     the same of a change to which the caller has given a name

A change is one transaction: create its op node, and set PATH at the version that was read. It is
repeated until one was answered, or was refused because the op node is there. The op node is deleted
behind that; one with a key stays for `keep` seconds.

* Not twice: once an attempt is done PATH has another version than the one in any attempt before,
  which is refused then, however late it comes; those that are made later find the op node.
* Not forgotten: it is done if and only if the op node is there, from the same transaction on, and
  nobody deletes that before its caller knows. How many others have written since does not matter,
  so what must be kept is one op node for each change under way, not a history. It is persistent,
  so neither does the session's end.
* Nor is a change of others lost at the version -1, which comes after 2**32 - 1 changes and is no
  check: there a node named after the change before takes its place, for as long as op nodes of the
  dead are kept.
* What cannot be decided is left to the caller: a change whose time is over before the answer came
  is done, or not, which the error says; and with a key it is asked for again.

Op nodes of processes that died, and of keys, are deleted by those which go on: keys `keep` seconds
after they were made, the others not before an hour has passed, by the clock of the servers. A call
that has taken longer without an answer gives up: it could not tell any more what it has done.
Should PATH be deleted and made again between the read and the set, and have come to the same
version by then, the set hits the new node: a value in use is not to be deleted.
"""

from __future__ import annotations

import os
import random
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from typing import TYPE_CHECKING, Any

import gevent
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._wait import TimeIsUp, Turns
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperMisused
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.transaction import TransactionRefused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Once", "Plan"]

_log = getLogger(__name__)

Plan = Callable[[bytes, Any], tuple[bytes, bytes] | None]
"""Of the data and the stat that were read: the new data, and the result of the change. None leaves
all as it is. Called again for each attempt."""

_KEEP_AT_LEAST = 3600.0
_SWEEP_EVERY = 256  # changes
_MAX_KEY = 200  # characters as they stand in the node's name
_FIRST_PAUSE, _LONGEST_PAUSE = 0.004, 0.25


class Once:
    """The changes of *path* by one object; greenlets that share it take turns."""

    def __init__(
        self, client: Client, path: str, initial: bytes, *, keep: float, path_class: str
    ) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int | float):
            raise TypeError(f"keep is a number of seconds, not {type(keep).__name__}")
        if not keep > 0:
            raise ValueError(f"keep is positive, not {keep!r}")
        self._client = client
        self._path = path
        self._initial = initial
        self._keep = max(keep, _KEEP_AT_LEAST)
        self._keep_keys = keep
        self._turns = Turns()
        self._until_sweep = random.randrange(_SWEEP_EVERY)
        self._spent: set[str] = set()
        self._worker: Any = None
        self._conflicts = client.recorder.counter(
            "zk_counter_conflicts",
            "Changes of counters and shared values that others forestalled.",
            labels=("path_class",),
        ).labels(path_class)

    def read(self, call: Call, fresh: bool = True) -> tuple[bytes, Any]:
        """The data and the stat, if *fresh* no older than this call; NoNodeError."""

        def ask() -> Any:
            if fresh:
                self._client.sync_async(self._path)  # what follows is answered after it
            return self._client.get_async(self._path)

        data, stat = call.read(ask)
        return data, stat

    def change(
        self, call: Call, plan: Plan, key: str | None = None, *, fresh: bool = False
    ) -> bytes | None:
        """The result of the change, be it done by now or, with that *key*, before; None as of
        *plan*. What *plan* raises is raised, and nothing is done. *fresh*: show it nothing older
        than this call, for one that may decide to do nothing."""
        name = f"op-{os.urandom(16).hex()}" if key is None else f"key-{_quoted(key)}"
        op = f"{self._path}/{name}"
        self._turns.take(call.wait)
        result = None
        try:
            result = self._try(call, plan, op, fresh=fresh, named=key is not None)
            return result
        finally:
            self._turns.give(call.wait)
            if key is None and (result is not None or call.unanswered):
                self._forget(op)

    def _try(self, call: Call, plan: Plan, op: str, *, fresh: bool, named: bool) -> bytes | None:
        pause = _FIRST_PAUSE
        keep = self._keep_keys if named else self._keep
        while True:
            if call.unanswered:
                result = self._result(call, op)
                if result is not None:
                    return result
                if call.wait.waited() >= keep:
                    raise TimeIsUp  # it may be done, and be swept up since
            try:
                data, stat = self.read(call, fresh)
            except NoNodeError:
                self._make(call)
                continue
            try:
                planned = plan(data, stat)
            except Exception:
                # What it would come to now does not matter when it is done already.
                result = self._result(call, op) if named else None
                if result is None:
                    raise
                return result
            if planned is None:
                return None
            value, result = planned
            transaction = self._client.transaction()
            transaction.create(op, result)
            if stat.version == -1:
                # As an expected version that is any: let this node be what only one can make.
                transaction.create(f"{self._path}/op-{stat.mzxid:032x}")
            transaction.set_data(self._path, value, stat.version)
            try:
                *_, stat = call.write(transaction.commit_async)
            except Unanswered:
                continue
            except TransactionRefused as e:
                if isinstance(e.error, NodeExistsError):
                    known = self._result(call, op)
                    if known is not None:
                        return known
                elif not isinstance(e.error, BadVersionError | NoNodeError):
                    raise
            else:
                self._sweep_sometimes(stat.mtime)
                return result
            self._conflicts.inc()
            call.wait.until(lambda: False, timeout=random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _result(self, call: Call, op: str) -> bytes | None:
        """What the op node says; None: the change is not done."""
        call.read(lambda: self._client.sync_async(self._path))
        try:
            data, _ = call.read(lambda: self._client.get_async(op))
        except NoNodeError:
            return None
        return bytes(data)

    def _make(self, call: Call) -> None:
        above = self._path.rpartition("/")[0] or "/"
        with suppress(NodeExistsError, Unanswered):
            try:
                call.write(lambda: self._client.create_async(self._path, self._initial))
            except NoNodeError:
                call.read(lambda: self._client.ensure_parent_async(above, container=False))
        call.wait.breathe()

    # Op nodes that have served.

    def _forget(self, op: str) -> None:
        """Delete *op*, for certain as long as the client runs. Never waits."""

        def hand_over() -> None:
            self._spent.add(op)
            if self._worker is None or self._worker.dead:
                self._worker = gevent.spawn(self._delete_spent)

        def deleted(deletion: Any) -> None:
            if not isinstance(deletion.exception, None | NoNodeError):
                hand_over()

        if self._client.session.state is SessionState.CONNECTED:
            self._client.delete_async(op).rawlink(deleted)
        else:
            hand_over()

    def _delete_spent(self) -> None:
        # When the client is stopped, the sweep of another one finds them.
        with (
            suppress(ZookeeperError, ZookeeperMisused),
            Call(self._client, self._path, "value") as call,
        ):
            while self._spent:
                op = next(iter(self._spent))
                self._delete(call, op)
                self._spent.discard(op)

    def _delete(self, call: Call, op: str) -> None:
        while True:
            try:
                call.write(lambda: self._client.delete_async(op))
                return
            except Unanswered:
                call.wait.breathe()
            except NoNodeError:
                return

    def _sweep_sometimes(self, now: int) -> None:
        if self._until_sweep:
            self._until_sweep -= 1
        else:
            self._until_sweep = _SWEEP_EVERY
            gevent.spawn(self._sweep, now)

    def _sweep(self, now: int) -> None:
        """Delete what is old at *now*, milliseconds on the clock of the servers."""
        with (
            suppress(ZookeeperError, ZookeeperMisused, NoNodeError),
            Call.for_answer(self._client, self._path, "value", 60.0) as call,
        ):
            for name in call.read(lambda: self._client.get_children_async(self._path)):
                kind = name.partition("-")[0]
                keep = {"op": self._keep, "key": self._keep_keys}.get(kind)
                if keep is not None:
                    self._sweep_one(call, f"{self._path}/{name}", now - 1000 * keep)

    def _sweep_one(self, call: Call, op: str, before: float) -> None:
        stat = call.read(lambda: self._client.exists_async(op))
        if stat is not None and stat.ctime < before:
            self._delete(call, op)


def _quoted(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    quoted = urllib.parse.quote(key, safe="")
    if not 0 < len(quoted) <= _MAX_KEY:
        raise ValueError(f"a key has 1 to {_MAX_KEY} characters, quoted as in URLs; not {key!r}")
    return quoted
