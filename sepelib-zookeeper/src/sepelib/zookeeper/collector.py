"""Removes what locks leave behind: parents that nobody uses.     Status: production.

    collector = LockGarbageCollector(client, ["/app/locks"])
    with collector:                 # on each host; one of them works
        ...

A parent goes only when all of this is so:

* it lies below one of the *roots*, and has no children;
* it is not ephemeral (a container looks persistent: what is empty goes, here or by the servers);
* it had children once; or it has the marker `{"sepelib": "lock"}` for data and is a day old;
* its data is empty, or that marker;
* its ACL is open to the world, or the one that this client gives to what it makes;
* it was seen like that twice, *idle* seconds apart, with the same czxid, cversion and pzxid;
* and then the servers do multi[check(path, version), delete(path, version)], which they refuse
  when there is a child: no contender, however fresh, is ever removed with its parent.

Contenders of this package take a parent that is gone for one that is to be made. kazoo's locks fail
with NoNodeError then: do not name a root below which kazoo's locks are in use.

Contenders themselves: those of this client's session are its janitor's; those of dead sessions the
servers remove; those of other live sessions are reported when they hold a lock for long while
others wait, which a leader may well do (`break_lock()` is for operators). What is not ephemeral
(kazoo's `ephemeral=False`) ends with no session: it is deleted when its data has not changed for
*max_age* seconds, if the operator gives that.

Metrics: `zk_gc_deleted`, `zk_gc_skipped` (reason): both in nodes, the latter in each look.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from logging import DEBUG, INFO, WARNING, getLogger
from typing import TYPE_CHECKING, NamedTuple, Self

import gevent

from sepelib.util.deadline import DeadlineExceeded
from sepelib.zookeeper._collect import Orphan, Pass, Policy, Sighting, remembered
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import ZookeeperMisused
from sepelib.zookeeper.singleton import Leadership, SingletonService

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["LockGarbageCollector", "Orphan", "Report"]

_log = getLogger(__name__)


class Report(NamedTuple):
    """What one look has found and done."""

    scanned: int
    """Nodes that were looked at."""
    empty: int
    """Parents without children among them, whatever became of them."""
    ripe: int
    """What may go by all rules; in a dry run it stays."""
    deleted: int
    skipped: Mapping[str, int]
    """Why nodes without children stay, and how many. fresh: not seen unchanged for long enough
    yet; unused: never had a child; data, acl: somebody else's; ephemeral, container, ttl: for the
    servers to remove; changed, refilled, gone: in the last moment; unanswered: nobody knows, the
    next look does; denied; full: more than can be remembered. depth: has children too far down."""
    removed: tuple[str, ...]
    """The paths of what was deleted, or is ripe in a dry run: the first 1000."""
    orphans: tuple[Orphan, ...]
    """Holders that may have been forgotten: the first 100."""
    dry_run: bool
    seconds: float
    trouble: str | None
    """Why it ended before its time; None if it has seen everything."""


class LockGarbageCollector:
    """Deletes the unused parents of locks below *roots*; see the module for what that is.

    Units: seconds. *interval*: from one look to the next. *idle*: how long a parent has to be
    unused. *dry_run*: report only. *rate*: deletes a second at most, `math.inf` for no limit; looks
    have 64 requests under way at most. *depth*: levels below a root that are looked at. *matching*:
    a regular expression, the whole identifier of what *max_age* applies to. *suspect_age*: how long
    one holds a lock for which others wait until it is reported among the orphans. *unused_age*: of
    a parent with the marker that never had a child. *path*: of the lock by which one host is
    chosen; `__collector__` below the first root unless given.

    A dry run and a look write nothing, but where the age of a node decides: one ephemeral node for
    a moment, to learn the servers' time.

    It needs the permission to read below the roots, to delete there, and to see ACLs.
    Sharing: for the greenlets of the client's hub; `stop()` for any thread.
    """

    def __init__(
        self,
        client: Client,
        roots: Sequence[str],
        *,
        interval: float = 60.0,
        idle: float = 600.0,
        dry_run: bool = False,
        max_age: float | None = None,
        matching: str = ".*",
        rate: float = 50.0,
        depth: int = 8,
        suspect_age: float = 3600.0,
        unused_age: float = 86400.0,
        path: str | None = None,
        name: str = "lock-collector",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client_of(client)
        if isinstance(roots, str):
            raise TypeError("the roots are several paths, not one str")
        normal = tuple(dict.fromkeys(normal_path(root) for root in roots))
        if not normal:
            raise ValueError("a collector needs a root at least")
        for root in normal:
            if f"{client.chroot}{root}/".startswith("/zookeeper/"):
                raise ValueError(f"{root} belongs to the servers themselves")
        _positive(interval=interval, rate=rate, depth=depth)
        _positive(suspect_age=suspect_age, unused_age=unused_age)
        if max_age is not None:
            _positive(max_age=max_age)
        if not 0 <= idle < math.inf:
            raise ValueError(f"idle is not negative and finite, not {idle!r}")
        self._policy = Policy(
            tuple(root for root in normal if not _is_below(root, normal)),
            idle,
            dry_run,
            max_age,
            re.compile(matching, re.DOTALL),
            rate,
            depth,
            suspect_age,
            unused_age,
        )
        self._interval = interval
        self._clock = clock
        self._sightings: dict[str, Sighting] = {}
        self._looking = False
        self._told: set[int] = set()  # tokens of orphans
        self.last: Report | None = None
        """Of the latest look on this host."""
        recorder = client.recorder
        self._deleted = recorder.counter("zk_gc_deleted", "Nodes that the lock collector deleted.")
        self._skipped = recorder.counter(
            "zk_gc_skipped", "Nodes that the lock collector left, in each look.", ("reason",)
        )
        self.service = SingletonService(
            client, path or f"{normal[0]}/__collector__", self._lead, name=name
        )
        """What runs it: `is_leader`, `state`, `error`."""

    def __repr__(self) -> str:
        return f"<LockGarbageCollector of {', '.join(self._policy.roots)}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Look again and again, on one host of those which have started; as of SingletonService."""
        self.service.start()

    def stop(self, timeout: float | None = None) -> bool:
        """End that; as of SingletonService. A later start goes on with what was seen."""
        return self.service.stop(timeout)

    def run_forever(self, *, wait: Callable[[float], bool] | None = None) -> None:
        """Start, and return after `stop()`; as of SingletonService."""
        self.service.run_forever(wait=wait)

    def collect(self) -> Report:
        """Look once, here and now, and delete what was seen like that *idle* seconds ago.

        Goes on over reconnects and new sessions. When there is no contact for the client's
        `request_timeout`, or the current deadline is over, it ends with a Report of what was done
        until then, and `trouble`. ZookeeperMisused while another one runs and when the client is
        stopped; ZookeeperError when the servers refuse in general. A kill ends it at once.
        """
        return self._collect(lambda: None)

    def _collect(self, check: Callable[[], object]) -> Report:
        self._client.check_thread("LockGarbageCollector.collect()")
        if self._looking:
            raise ZookeeperMisused("the collector is looking already: one look at a time")
        began, trouble = time.monotonic(), None
        look = Pass(
            self._client,
            self._policy,
            self._sightings,
            clock=self._clock or time.monotonic,
            check=check,
            deleted=self._deleted.inc,
            skipped=lambda reason: self._skipped.labels(reason).inc(),
        )
        self._looking = True
        try:
            look.run()
            self._sightings = look.sightings
        except DeadlineExceeded as error:
            trouble = str(error)
        finally:
            self._looking = False
            if self._sightings is not look.sightings:
                self._sightings = remembered(self._sightings, look.sightings)
        report = Report(
            look.scanned,
            look.empty,
            look.ripe,
            look.deleted,
            look.skipped,
            tuple(look.removed),
            tuple(look.orphans),
            self._policy.dry_run,
            time.monotonic() - began,
            trouble,
        )
        self._tell(report)
        return report

    def _tell(self, report: Report) -> None:
        self.last = report
        fields = {"path": self._policy.roots[0]}
        level = WARNING if report.trouble else INFO if report.deleted else DEBUG
        _log.log(
            level,
            "collector: %d nodes, %d parents empty, %d deleted in %.1f s%s",
            report.scanned,
            report.empty,
            report.deleted,
            report.seconds,
            f"; ended early: {report.trouble}" if report.trouble else "",
            extra=fields,
        )
        for orphan in report.orphans:
            if orphan.contender.token not in self._told:
                _log.log(
                    INFO if orphan.ephemeral else WARNING,
                    "lock %s: held by %.100r, %.0f s in the queue, %d wait%s",
                    orphan.path,
                    orphan.contender.identifier,
                    orphan.age,
                    orphan.waiting,
                    "" if orphan.ephemeral else "; not ephemeral, so no session's end removes it",
                    extra={
                        "path": orphan.path,
                        "session": f"0x{orphan.contender.session_id:x}",
                        "token": orphan.contender.token,
                    },
                )
        self._told = {orphan.contender.token for orphan in report.orphans}

    def _lead(self, leadership: Leadership) -> None:
        def check() -> None:
            if leadership.stopping.is_set():
                raise gevent.GreenletExit
            leadership.check()

        while True:
            self._collect(check)
            leadership.sleep(self._interval)


def _is_below(path: str, others: Sequence[str]) -> bool:
    return any(path.startswith(f"{other}/") for other in others)


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} is positive, not {number!r}")
