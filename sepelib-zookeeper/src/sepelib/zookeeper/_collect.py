"""One look of the collector at all that is below its roots."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from logging import getLogger
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from kazoo.exceptions import (
    BadVersionError,
    KazooException,
    NoAuthError,
    NoNodeError,
    NotEmptyError,
)
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl_credential

from sepelib.util.deadline import clip
from sepelib.zookeeper._contender import UNANSWERED, Node, discard
from sepelib.zookeeper._identity import Contender
from sepelib.zookeeper._queue import Place
from sepelib.zookeeper._walk import REFUSED, Visit, answers, contact, walk
from sepelib.zookeeper.errors import TransactionError
from sepelib.zookeeper.operate import occupancy, outsiders, read_occupants
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.transaction import TransactionRefused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["MARKER", "Orphan", "Pass", "Policy", "Sighting", "remembered"]

_log = getLogger("sepelib.zookeeper.collector")

MARKER = b'{"sepelib": "lock"}'
"""The data of a parent that is nothing but one. Exactly this: its length is seen without a read."""

_BATCH = 100
_MOST_SIGHTINGS = 200_000
_MOST_PATHS = 1000
_MOST_ORPHANS = 100

_REFUSALS = {
    BadVersionError: "changed",
    NoAuthError: "denied",
    NoNodeError: "gone",
    NotEmptyError: "refilled",
}


class Orphan(NamedTuple):
    """A holder that may have been forgotten; whether it was, only an operator can tell.

    It is not ephemeral, or has been in the queue for long while others wait: as has the leader of
    a service that runs well.
    """

    path: str
    """Of the lock."""
    contender: Contender
    age: float
    """Seconds in the queue, by this machine's clock."""
    waiting: int
    """How many wait behind it."""
    ephemeral: bool


class Policy(NamedTuple):
    """The collector's arguments."""

    roots: tuple[str, ...]
    idle: float
    dry_run: bool
    max_age: float | None
    matching: re.Pattern[str]
    rate: float
    depth: int
    suspect_age: float
    unused_age: float


class Sighting(NamedTuple):
    """An empty parent, and since when it has been seen like that."""

    czxid: int
    cversion: int
    pzxid: int
    since: float


def remembered(before: Mapping[str, Sighting], seen: Mapping[str, Sighting]) -> dict[str, Sighting]:
    """What a look that has *seen* only a part leaves of what was seen *before*."""
    kept = dict(seen)
    for path, sighting in before.items():
        if len(kept) >= _MOST_SIGHTINGS:
            break  # else looks that never come to their end would add up without one
        kept.setdefault(path, sighting)
    return kept


class _Find(NamedTuple):
    path: str
    version: int
    czxid: int
    stat: Any
    stale: Contender | None
    """None: a parent."""


class Pass:
    """*before*: what was seen in the last one. *check* is called often and may raise.

    Whatever raises, the numbers are those of what was done until then.
    """

    def __init__(
        self,
        client: Client,
        policy: Policy,
        before: Mapping[str, Sighting],
        *,
        clock: Callable[[], float],
        check: Callable[[], object],
        deleted: Callable[[], object],
        skipped: Callable[[str], object],
    ) -> None:
        self._client = client
        self._policy = policy
        self._before = before
        self._clock = clock
        self._check = check
        self._tell_deleted = deleted
        self._tell_skipped = skipped
        self._acls = _own_acls(client)
        self._ripe: list[_Find] = []
        self._heads: dict[str, tuple[str, Place, int]] = {}  # of which lock, how many wait
        self._doubtful: list[_Find] = []
        self._next_delete = 0.0
        self._server_ahead: float | None = None  # of the monotonic clock
        self._server_asked = False
        self.sightings: dict[str, Sighting] = {}
        self.scanned = 0
        self.empty = 0
        self.ripe = 0
        self.deleted = 0
        self.skipped: dict[str, int] = {}
        self.removed: list[str] = []
        self.orphans: list[Orphan] = []

    def run(self) -> None:
        """ZookeeperTimeout, DeadlineExceeded when the servers cannot be reached."""
        try:
            visits = walk(self._client, self._policy.roots, self._policy.depth, _below)
            for visit in visits:
                self._check()
                self._judge(visit)
                if len(self._ripe) >= _BATCH:
                    self._reap()
                if len(self._heads) >= _BATCH:
                    self._suspect()
            self._reap()
            self._suspect()
        finally:
            for _ in self._doubtful:
                self._skip("unanswered")

    def _skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self._tell_skipped(reason)

    # What is seen.

    def _judge(self, visit: Visit) -> None:
        stat = visit.stat
        if visit.refused is not None:
            self._skip(_REFUSALS[type(visit.refused)])
            return
        self.scanned += 1
        if visit.children:
            self._judge_queue(visit)
            if visit.level == self._policy.depth and _below(visit):
                self._skip("depth")
        elif visit.level == 0:
            pass  # somebody has named it, so it may well be wanted
        elif stat.ephemeralOwner:
            self._skip("ephemeral")
        elif stat.dataLength not in (0, len(MARKER)):
            self._skip("data")
        elif stat.cversion == 0 and not (
            stat.dataLength and time.time() - stat.ctime / 1000 > self._policy.unused_age
        ):
            self._skip("unused")
        else:
            self.empty += 1
            self._judge_parent(visit.path, stat)

    def _judge_parent(self, path: str, stat: Any) -> None:
        now = self._clock()
        seen = self._before.get(path)
        if seen is None or seen[:3] != (stat.czxid, stat.cversion, stat.pzxid):
            seen = None
        if len(self.sightings) >= _MOST_SIGHTINGS:
            self._skip("full")
            return
        self.sightings[path] = seen or Sighting(stat.czxid, stat.cversion, stat.pzxid, now)
        if seen is None or now - seen.since < self._policy.idle:
            self._skip("fresh")
        else:
            self._ripe.append(_Find(path, stat.version, stat.czxid, stat, None))

    def _judge_queue(self, visit: Visit) -> None:
        holders, waiters = occupancy(visit.children)
        if holders:
            node = f"{visit.path}/{holders[0].name}"
            self._heads[node] = visit.path, holders[0], len(waiters)
        if self._policy.max_age is None:
            return
        for found in read_occupants(self._client, visit.path, holders + waiters):
            if (
                not found.ephemeral
                and found.readable
                and self._policy.matching.fullmatch(found.contender.identifier)
                and self._is_older(found.path, found.changed, self._policy.max_age)
            ):
                token = found.contender.token
                self._ripe.append(_Find(found.path, found.version, token, None, found.contender))

    def _suspect(self) -> None:
        heads, self._heads = self._heads, {}
        own = self._client.session.session_id
        for node, stat in answers(self._client, heads, self._client.exists_async):
            self._check()
            if stat is None or isinstance(stat, REFUSED) or stat.ephemeralOwner == own:
                continue
            path, place, waiting = heads[node]
            age = time.time() - stat.ctime / 1000
            if stat.ephemeralOwner and not (waiting and age > self._policy.suspect_age):
                continue
            if len(self.orphans) >= _MOST_ORPHANS:
                continue
            for found in read_occupants(self._client, path, [place]):
                self.orphans.append(Orphan(path, found.contender, age, waiting, found.ephemeral))

    # What may go.

    def _reap(self) -> None:
        ripe, self._ripe = self._ripe, []
        parents = {find.path: find for find in ripe if find.stale is None}
        approved = [find for find in ripe if find.stale is not None]
        approved += self._with_our_data(self._with_our_acl(parents))
        self.ripe += len(approved)
        if self._policy.dry_run:
            self._note(approved)
        else:
            self._delete(approved)

    def _with_our_acl(self, parents: dict[str, _Find]) -> dict[str, _Find]:
        kept = {}
        for path, found in answers(self._client, parents, self._client.get_acls_async):
            if isinstance(found, REFUSED):
                self._skip(_REFUSALS[type(found)])
            elif _comparable(found[0]) not in self._acls:
                self._skip("acl")
            else:
                kept[path] = parents[path]
        return kept

    def _with_our_data(self, parents: dict[str, _Find]) -> Iterator[_Find]:
        unused_age = self._policy.unused_age
        marked = [path for path, find in parents.items() if find.stat.dataLength]
        for path, found in answers(self._client, marked, self._client.get_async):
            find = parents[path]
            if isinstance(found, REFUSED):
                self._skip(_REFUSALS[type(found)])
            elif found[0] != MARKER:
                self._skip("data")
            elif find.stat.cversion == 0 and not self._is_older(path, find.stat.ctime, unused_age):
                self._skip("unused")
            else:
                continue
            del parents[path]
        yield from parents.values()

    def _note(self, finds: list[_Find]) -> None:
        room = _MOST_PATHS - len(self.removed)
        self.removed += [find.path for find in finds[:room]]

    def _is_older(self, path: str, changed: datetime | int, age: float) -> bool:
        """By the servers' clock, which is asked at most once, and only if ours says yes."""
        then = changed / 1000 if isinstance(changed, int) else changed.timestamp()
        if time.time() - then <= age:
            return False
        if not self._server_asked:
            self._server_asked = True
            self._server_ahead = self._ask_server_time(path)
        ahead = self._server_ahead
        return ahead is not None and time.monotonic() + ahead - then > age

    def _ask_server_time(self, path: str) -> float | None:
        # Only what is written has a time.
        client = self._client
        root = next(root for root in self._policy.roots if path.startswith(f"{root}/"))
        epoch, guid = client.session.epoch, client._janitor.claim(root)
        try:
            made, stat = client.create_async(
                f"{root}/{guid}__clock__", ephemeral=True, include_data=True
            ).get()
        except BaseException as error:
            client._janitor.dispose(root, guid, None, epoch=epoch)
            if isinstance(error, KazooException):
                return None
            raise
        ahead: float = stat.ctime / 1000 - time.monotonic()
        discard(client, Node(made, guid, stat.czxid, epoch, stat.ephemeralOwner))
        return ahead

    # What goes.

    def _delete(self, finds: list[_Find]) -> None:
        flying: deque[tuple[_Find, Any]] = deque()
        try:
            for find in finds:
                self._check()
                self._pause()
                if self._client.session.state is not SessionState.CONNECTED:
                    contact(self._client, find.path)
                flying.append((find, self._ask_for(find)))
                while flying and flying[0][1].ready():
                    self._settle(*flying.popleft())
            while flying:
                flying[0][1].wait()
                self._settle(*flying.popleft())
        finally:
            for find, answer in flying:
                answer.withdraw()
                self._settle(find, answer)
        self._resolve()

    def _pause(self) -> None:
        now = time.monotonic()
        gevent.sleep(clip(max(0.0, self._next_delete - now)) or 0.0)
        clip(None)  # nothing is sent that nobody would wait for
        self._next_delete = max(self._next_delete, now) + 1 / self._policy.rate

    def _ask_for(self, find: _Find) -> Any:
        transaction = self._client.transaction()
        transaction.check(find.path, find.version)
        transaction.delete(find.path, find.version)
        return transaction.commit_async()

    def _settle(self, find: _Find, answer: Any) -> None:
        error = answer.exception
        if not answer.ready() or isinstance(error, UNANSWERED):
            self._doubtful.append(find)
        elif isinstance(error, TransactionRefused):
            self._skip(_REFUSALS.get(type(error.error), "refused"))
        elif isinstance(error, TransactionError):
            self._doubtful.append(find)
        elif error is not None:
            raise error
        else:
            self._done(find)

    def _resolve(self) -> None:
        """What became of those without an answer: they are not asked for again in this pass."""
        finds = {find.path: find for find in self._doubtful}
        if not finds:
            return
        # Behind what the former connection has done.
        for _ in answers(self._client, list(finds)[:1], self._client.sync_async):
            pass
        for path, stat in answers(self._client, finds, self._client.exists_async):
            find = finds[path]
            self._doubtful.remove(find)
            if stat is None or (not isinstance(stat, REFUSED) and stat.czxid != find.czxid):
                self._done(find)
            else:
                self._skip("unanswered")

    def _done(self, find: _Find) -> None:
        self.deleted += 1
        self._tell_deleted()
        self._note([find])
        self.sightings.pop(find.path, None)
        if find.stale is not None:
            _log.warning(
                "%s: deleted: not ephemeral, unchanged for more than %.0f s, of %.100r",
                find.path,
                self._policy.max_age,
                find.stale.identifier,
                extra={"path": find.path, "token": find.stale.token, "session": "0x0"},
            )


def _below(visit: Visit) -> list[str]:
    """Contenders have no children."""
    return outsiders(visit.children)


def _own_acls(client: Client) -> list[frozenset[tuple[int, str, str]]]:
    """The open one, and what the servers make of the client's."""
    own = set()
    for perms, scheme, identity in _comparable(client.default_acl or ()):
        if scheme == "auth":  # whoever the client has proved to be
            for kind, credential in client.auth_data:
                user, _, password = credential.partition(":")
                if kind == "digest":
                    own.add((perms, kind, make_digest_acl_credential(user, password)))
        else:
            own.add((perms, scheme, identity))
    return [_comparable(OPEN_ACL_UNSAFE), frozenset(own)]


def _comparable(acls: Any) -> frozenset[tuple[int, str, str]]:
    return frozenset((acl.perms, acl.id.scheme, acl.id.id) for acl in acls)
