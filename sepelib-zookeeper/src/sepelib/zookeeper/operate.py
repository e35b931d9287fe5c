"""Who holds and who waits, for operators, and how to end a hold by force.

    contender = break_lock(client, "/jobs/nightly", token=0x2a)

Locks, read and write locks and semaphores, of this package and of kazoo. What a live session
holds only an operator can call an orphan: nothing here breaks a lock by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.exceptions import BadVersionError, NoAuthError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._identity import Contender, identifier_of, normal_path
from sepelib.zookeeper._permit import LEASE, WAIT, count_of
from sepelib.zookeeper._queue import LOCK, READ, Place, Queue
from sepelib.zookeeper._walk import REFUSED, answers, join
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import LockNotAcquired, ZookeeperError
from sepelib.zookeeper.transaction import TransactionRefused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = [
    "Occupancy",
    "Occupant",
    "break_lock",
    "chosen",
    "moment",
    "occupancy",
    "outsiders",
    "read_occupants",
]

_log = getLogger(__name__)

_CONTENDERS = Queue((LOCK, READ, LEASE, WAIT))
_KAZOO_LEASE = re.compile("[0-9a-f]{32}")
_KINDS = {LOCK: "lock", READ: "read", LEASE: "lease", WAIT: "lease", "": "lease"}
_MOST_JSON = 4096  # bytes of data in which a description is looked for


class Occupancy(NamedTuple):
    """Who is at the path of a lock, by the names of the nodes alone."""

    holders: list[Place]
    """Of a lock one, of read locks and semaphores any number."""
    waiters: list[Place]
    """In the order in which their turn comes."""


class Occupant(NamedTuple):
    """One of them, with what is in its node."""

    path: str
    """Of the node."""
    kind: str
    """lock (a write lock too), read or lease."""
    contender: Contender
    host: str | None
    pid: int | None
    since: datetime
    """When it came into the queue, by the servers' clock. When its turn came nobody notes; a lease
    is made when it is granted."""
    changed: datetime
    version: int
    leases: int
    """How many leases of a semaphore it is; else 1."""
    readable: bool
    """False: who it is may not be read, so the identifier is empty."""

    @property
    def ephemeral(self) -> bool:
        """False: no end of a session will remove it."""
        return self.contender.session_id != 0


def occupancy(children: Iterable[str]) -> Occupancy:
    """*children* are all those of the lock's path; what is no contender is left out."""
    children = list(children)
    holders: list[Place] = []
    waiters: list[Place] = []
    any_ahead = writer_ahead = False
    for place in _CONTENDERS.order(children):
        if place.marker == LEASE:
            holds = True
        elif place.marker == WAIT:
            holds = False
        elif place.marker == READ:
            holds = not writer_ahead
            any_ahead = True
        else:
            holds = not any_ahead
            any_ahead = writer_ahead = True
        (holders if holds else waiters).append(place)
    holders += [Place(name, "", 0) for name in children if _KAZOO_LEASE.fullmatch(name)]
    return Occupancy(holders, waiters)


def outsiders(children: Iterable[str]) -> list[str]:
    """Those of *children* that are not contenders by their names."""
    children = list(children)
    inside = {place.name for place in _CONTENDERS.order(children)}
    return [name for name in children if name not in inside]


def read_occupants(
    client: Client, path: str, places: Iterable[Place], *, call: Call | None = None
) -> Iterator[Occupant]:
    """What is in the nodes of *places* at *path*; those that have gone are left out."""
    kinds = {join(path, place.name): place.marker for place in places}
    for node, found in answers(client, kinds, client.get_async, call=call):
        if isinstance(found, NoAuthError):
            # It holds or waits all the same, which everybody may know.
            stat, data = next(answers(client, [node], client.exists_async, call=call))[1], None
        else:
            data, stat = (None, None) if isinstance(found, NoNodeError) else found
        if stat is None or isinstance(stat, REFUSED):
            continue
        if kinds[node] or stat.ephemeralOwner:  # else no lease of kazoo's, but named like one
            yield _occupant(node, kinds[node], data, stat)


def _occupant(node: str, marker: str, data: bytes | None, stat: Any) -> Occupant:
    host, pid = _host_and_pid(data or b"")
    return Occupant(
        node,
        _KINDS[marker],
        Contender(identifier_of(data), stat.czxid, stat.ephemeralOwner),
        host,
        pid,
        moment(stat.ctime),
        moment(stat.mtime),
        stat.version,
        count_of(node.rpartition("/")[2]) if marker in (LEASE, WAIT) else 1,
        data is not None,
    )


def moment(milliseconds: int) -> datetime:
    """What a stat calls a time."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a server whose clock was nonsense
        return datetime.fromtimestamp(0, UTC)


def _host_and_pid(data: bytes) -> tuple[str | None, int | None]:
    if not data.startswith(b"{") or len(data) > _MOST_JSON:
        return None, None
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):
        return None, None
    host, pid = described.get("host"), described.get("pid")
    return host if isinstance(host, str) else None, pid if isinstance(pid, int) else None


def break_lock(
    client: Client, path: str, token: int | None = None, *, timeout: float | None = None
) -> Contender:
    """Take the lock at *path* away from the one who holds it with *token*, who is returned.

    The next in the queue has it then. The former holder is told at once (`lost`, reason "deleted"),
    or when it asks the server next; a write of it that is on its way only a store that refuses
    older tokens will stop. Of read locks and semaphores just the one hold is ended; one of kazoo's
    semaphores takes the same node for each, so there it may be a later hold of the same object.

    token: the `fencing_token`; None: whoever holds it, as long as that is one. LockNotAcquired, and
    nothing done, when nobody holds it with that token. ZookeeperTimeout after *timeout* seconds
    (None: the client's `request_timeout`); when that says *maybe_executed* it may be done yet.
    ZookeeperError when the servers refuse.
    """
    client_of(client)
    path = normal_path(path)
    if token is not None and (not isinstance(token, int) or isinstance(token, bool)):
        raise TypeError(f"a token is an int, not {type(token).__name__}")
    breaking = _Breaking(client, path, token)
    with Call.for_answer(client, path, "lock", timeout) as call:
        while not breaking.done(call):
            call.wait.breathe()
    assert breaking.target is not None
    contender = breaking.target.contender
    _log.warning(
        "lock %s: taken from %.100r by an operator",
        path,
        contender.identifier,
        extra={
            "path": path,
            "guid": breaking.target.path.rpartition("/")[2][:32],
            "session": f"0x{contender.session_id:x}",
            "token": contender.token,
        },
    )
    return contender


class _Breaking:
    """One call of `break_lock()`, and whom it is after."""

    def __init__(self, client: Client, path: str, token: int | None) -> None:
        self._client = client
        self._path = path
        self._token = token
        self.target: Occupant | None = None

    def done(self, call: Call) -> bool:
        """Try once; False when it has to be tried again."""
        if call.unanswered:
            # The server of now may lag behind the one that was asked.
            call.read(lambda: self._client.sync_async(self._path))
        try:
            children = call.read(lambda: self._client.get_children_async(self._path))
        except NoNodeError:
            children = []
        holders = list(
            read_occupants(self._client, self._path, occupancy(children).holders, call=call)
        )
        if call.unanswered and all(holder.contender.token != self._token for holder in holders):
            return True
        self.target = chosen(self._path, holders, self._token)
        self._token = self.target.contender.token  # from now on this one or nobody
        try:
            call.write(self._delete)
        except Unanswered:
            return False
        except TransactionRefused as e:
            if isinstance(e.error, BadVersionError):  # it was asked to let go (`on_revoke`)
                return False
            if not isinstance(e.error, NoNodeError):
                raise ZookeeperError(f"lock {self._path}: not broken: {e}") from e
            if not call.unanswered:
                raise LockNotAcquired(self._path, "its holder has just let go by itself") from e
        return True

    def _delete(self) -> Any:
        assert self.target is not None
        transaction = self._client.transaction()
        # Without a check before it, which would need the permission to read.
        transaction.delete(self.target.path, self.target.version)
        return transaction.commit_async()


def chosen(path: str, holders: Sequence[Occupant], token: int | None) -> Occupant:
    """The one of *holders* with *token*; None: the only one. LockNotAcquired says who holds it."""
    if not holders:
        raise LockNotAcquired(path, "nobody holds it")
    if token is None and len(holders) == 1:
        return holders[0]
    for holder in holders:
        if holder.contender.token == token:
            return holder
    held = ", ".join(_named(holder.contender) for holder in holders[:3])
    if len(holders) > 3:
        held += f" and {len(holders) - 3} more"
    if token is None:
        raise LockNotAcquired(path, f"say by the token which hold to end: {held}")
    raise LockNotAcquired(path, f"nobody holds it with token 0x{token:x}, but {held}")


def _named(contender: Contender) -> str:
    return f"{contender.identifier:.100} with token 0x{contender.token:x}".encode(
        "unicode_escape"
    ).decode()
