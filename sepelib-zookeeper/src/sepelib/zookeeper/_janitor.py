"""Deletes, for certain, what recipes leave behind in a session that lives on.

    ──claim──► registered ──release──► forgotten
                   │
                   └──dispose──► pending ──deleted, not there, session over──► forgotten

A contender's node carries a GUID, which is registered before the node is asked for. Whoever gives
it up, even in a greenlet that is killed at this moment, only says so; a greenlet of the directory
does the work, and repeats it until it is done or the session is over and the server has done it.

Sweep: each *interval* and after each reconnect the directories in use are listed; a node of ours
whose GUID is not registered, left by a request that took its time, is deleted. No live one can be
hit: what a listing shows was asked for before, and registered before that. GUIDs begin with digits
of this client alone, so others' nodes are never looked at.

Units: seconds on `time.monotonic()`. Sharing: for the greenlets of the client's hub; nothing here
waits. Metrics: `zk_janitor_pending`, `zk_janitor_deleted`.
Source: "guaranteed deletes" and "protection" of Apache Curator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from logging import getLogger
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import KeeperState

from sepelib.util.retry import Backoff
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sepelib.zookeeper.client import Client

__all__ = ["Janitor"]

_log = getLogger(__name__)

_BACKOFF = Backoff(base=0.05, cap=1.0)
_PATIENCE = 10.0  # before the log has a word of it


class _Leftover:
    """A node that is to go. Its names are None as long as they are not known."""

    __slots__ = ("delays", "due", "epoch", "names", "session_id", "since")

    def __init__(self, name: str | None, epoch: int, session_id: int, now: float) -> None:
        self.names = None if name is None else {name}
        self.epoch = epoch
        self.session_id = session_id
        self.since = now
        self.due = now
        self.delays: Iterator[float] = _BACKOFF.delays()


class _Place:
    """A directory in use."""

    __slots__ = ("guids", "pending", "trouble", "uncertain", "wake", "warned", "worker")

    def __init__(self) -> None:
        self.guids: set[str] = set()  # those registered
        self.pending: dict[str, _Leftover] = {}
        # Since when a node may be there, or may yet come, that nobody knows of; None if none can.
        self.uncertain: float | None = None
        self.worker: Any = None
        self.wake = gevent.event.Event()
        self.trouble: Exception | None = None
        self.warned = False

    @property
    def idle(self) -> bool:
        return not self.guids and not self.pending


class Janitor:
    """One for each client; *interval* is between two sweeps."""

    def __init__(
        self,
        client: Client,
        *,
        interval: float = 30.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._interval = interval
        self._clock = clock
        self._prefix = os.urandom(6).hex()
        self._guids: dict[str, str] = {}  # those registered, and their directories
        self._places: dict[str, _Place] = {}
        self._sweeper: Any = None
        self._sweep_now = gevent.event.Event()
        recorder = client.recorder
        self._pending = recorder.gauge("zk_janitor_pending", "Nodes that are yet to be deleted.")
        self._deleted = recorder.counter("zk_janitor_deleted", "Nodes that the janitor deleted.")
        client.session.subscribe(self._session_moved)

    def claim(self, directory: str) -> str:
        """Register a GUID of 32 hex digits for a node that is about to be made in *directory*.

        The node's name has to contain it. Then comes `release()` or `dispose()`.
        """
        guid = self._prefix + os.urandom(10).hex()
        self._guids[guid] = directory
        self._place(directory).guids.add(guid)
        if self._sweeper is None or self._sweeper.dead:
            self._sweeper = gevent.spawn(self._sweep_on)
        return guid

    def release(self, guid: str) -> None:
        """Forget a GUID whose node is certainly gone, or was never made."""
        directory = self._guids.pop(guid, "")
        place = self._places.get(directory)
        if place is not None:
            place.guids.discard(guid)
            if place.idle and place.uncertain is None:
                del self._places[directory]

    def dispose(self, directory: str, guid: str, name: str | None, *, epoch: int) -> None:
        """See to it that the node with *guid* goes. Never waits, never raises.

        *name* None: it is looked for, as it may have been made or not. *epoch*: the one in which
        it was asked for; once that is over and the session another one, the server has deleted it.
        """
        self.release(guid)
        if self._closed:
            return
        place = self._place(directory)
        place.uncertain = self._now()
        known = place.pending.get(guid)
        if known is None:
            self._add(place, guid, name, epoch)
        elif known.names is None and name is not None:
            known.names = {name}
        self._set_to_work(directory, place)

    def pending(self) -> int:
        """How many nodes are yet to be deleted."""
        return sum(len(place.pending) for place in self._places.values())

    # The registry.

    def _now(self) -> float:
        return (self._clock or time.monotonic)()

    @property
    def _closed(self) -> bool:
        """Nothing of the session is left, or will be when the server has noticed."""
        return self._client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)

    def _place(self, directory: str) -> _Place:
        place = self._places.get(directory)
        if place is None:
            place = self._places[directory] = _Place()
        return place

    def _add(self, place: _Place, guid: str, name: str | None, epoch: int) -> None:
        place.pending[guid] = _Leftover(name, epoch, self._client.session.session_id, self._now())
        self._pending.inc()

    def _remove(self, place: _Place, guids: Iterable[str]) -> None:
        for guid in guids:
            if place.pending.pop(guid, None) is not None:
                self._pending.dec()

    def _session_moved(self) -> None:
        now = self._now()
        for place in self._places.values():
            # A request on the former connection may yet be executed.
            place.uncertain = now
            for leftover in place.pending.values():
                leftover.due = now
                leftover.delays = _BACKOFF.delays()
            place.wake.set()
        if self._places:
            self._sweep_now.set()

    # The worker of a directory.

    def _set_to_work(self, directory: str, place: _Place) -> None:
        place.wake.set()
        if place.worker is None or place.worker.dead:
            place.worker = gevent.spawn(self._work, directory, place)

    def _work(self, directory: str, place: _Place) -> None:
        session = self._client.session
        while place.pending:
            place.wake.clear()
            if self._closed:
                self._remove(place, list(place.pending))
                break
            self._remove(place, [guid for guid, it in place.pending.items() if self._over(it)])
            now = self._now()
            due = {guid: it for guid, it in place.pending.items() if it.due <= now}
            if due and session.state is SessionState.CONNECTED:
                self._round(directory, place, due)
            for guid, leftover in due.items():
                if guid in place.pending:
                    leftover.due = self._now() + next(leftover.delays)
            self._warn(directory, place)
            if place.pending:
                next_due = min(leftover.due for leftover in place.pending.values())
                place.wake.wait(max(0.0, next_due - self._now()))
        place.worker = None
        place.warned = False

    def _over(self, leftover: _Leftover) -> bool:
        session = self._client.session
        return session.epoch != leftover.epoch and session.session_id != leftover.session_id

    def _round(self, directory: str, place: _Place, due: dict[str, _Leftover]) -> None:
        try:
            self._find(directory, due)
        except Exception as error:
            place.trouble = error
        # All at once: after an outage there are many.
        deletes = [
            (guid, name, self._client.delete_async(_join(directory, name)))
            for guid, leftover in due.items()
            for name in leftover.names or ()
        ]
        for guid, name, result in deletes:
            try:
                result.get()
                self._deleted.inc()
            except NoNodeError:
                pass
            except Exception as error:
                place.trouble = error
                continue
            names = due[guid].names
            if names is not None:
                names.discard(name)
        self._remove(place, [guid for guid, leftover in due.items() if leftover.names == set()])

    def _find(self, directory: str, due: dict[str, _Leftover]) -> None:
        """Give those whose names are not known their names."""
        unknown = {guid for guid, leftover in due.items() if leftover.names is None}
        if not unknown:
            return
        # Behind the create on the same connection; behind a former one by the sync.
        synced = self._client.sync_async(directory)
        listing = self._client.get_children_async(directory)
        children: list[str] = []
        with suppress(NoNodeError):
            synced.get()
            children = listing.get()
        for guid in unknown:
            due[guid].names = {name for name in children if guid in name}

    def _warn(self, directory: str, place: _Place) -> None:
        if place.warned or not place.pending:
            return
        waited = self._now() - min(leftover.since for leftover in place.pending.values())
        if waited > _PATIENCE:
            place.warned = True
            _log.warning(
                "%d nodes in %s cannot be deleted for %.0f s, tried on: %s",
                len(place.pending),
                directory,
                waited,
                repr(place.trouble) if place.trouble else self._client.session.state.value,
                extra={
                    "path": directory,
                    "guid": next(iter(place.pending)),
                    "session": f"0x{self._client.session.session_id:x}",
                },
            )

    # The sweep.

    def _sweep_on(self) -> None:
        while self._places:
            self._sweep_now.wait(self._interval)
            self._sweep_now.clear()
            if self._closed:
                for place in self._places.values():
                    self._remove(place, list(place.pending))
                self._places.clear()
            for directory in list(self._places):
                if self._client.session.state is SessionState.CONNECTED:
                    self._sweep(directory)

    def _sweep(self, directory: str) -> None:
        if directory not in self._places:
            return
        try:
            orphans = self._orphans(directory)
        except Exception:
            return  # what is uncertain stays so, and the next sweep comes
        place = self._place(directory)
        for guid, name in orphans:
            if guid not in place.pending:
                self._add(place, guid, name, self._client.session.epoch)
                place.uncertain = self._now()
        if place.pending:
            self._set_to_work(directory, place)
        elif place.uncertain is not None and self._now() - place.uncertain >= self._interval:
            place.uncertain = None
        if place.idle and place.uncertain is None:
            self._places.pop(directory, None)

    def _orphans(self, directory: str) -> list[tuple[str, str]]:
        try:
            children = self._client.get_children(directory)
        except NoNodeError:
            return []
        found = []
        for name in children:
            at = name.find(self._prefix)
            guid = name[at : at + 32]
            if at < 0 or guid in self._guids:
                continue
            stat = self._client.exists(_join(directory, name))
            if stat is not None and stat.ephemeralOwner == self._client.session.session_id:
                found.append((guid, name))
        return found


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
