"""What a replica does together with others: share the targets, agree on a judge, clean up.

    start:  the client ─► a member of the Party ─► in the queue for the chair, and for the collector
    stop:   no member any more ─► no judge, no collector ─► the client

The others take over the targets first, since that is what is missed first. All of it goes on by
itself, whatever ZooKeeper does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from lookout.chair import Chair
from lookout.election import Alone, Elected
from lookout.settings import CollectorSettings, ZookeeperSettings
from lookout.sharing import Everything, Shared, Sharing
from lookout.targets import Target

__all__ = ["Cluster", "OfOne", "OfSeveral"]


class Cluster(Protocol):
    """From `start()` to `stop()` this replica does its part."""

    @property
    def sharing(self) -> Sharing: ...
    def start(self, chair: Chair, data: dict[str, Any]) -> None:
        """*data*: what others are to know of this replica."""

    def stop(self) -> None: ...
    def use(self, quorum: int) -> None:
        """Share like this from now on."""

    @property
    def is_degraded(self) -> bool: ...
    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""

    def status(self) -> dict[str, Any] | None:
        """Whether this one judges."""

    def show(self, targets: Iterable[Target]) -> dict[str, Any] | None:
        """Who does what; None where this is the only replica. May wait for ZooKeeper."""


class OfOne:
    """The only replica: it probes everything, and judges."""

    is_degraded = False

    def __init__(self, replica: str) -> None:
        self.sharing = Everything(replica)
        self._election: Alone | None = None

    def start(self, chair: Chair, data: dict[str, Any]) -> None:
        self._election = Alone(chair)
        self._election.start()

    def stop(self) -> None:
        if self._election is not None:
            self._election.stop()

    def use(self, quorum: int) -> None:
        """One is all there are."""

    @property
    def complaints(self) -> list[str]:
        return []

    def status(self) -> None:
        return None

    def show(self, targets: Iterable[Target]) -> None:
        return None


class OfSeveral:
    """One of the replicas with the same `zookeeper`.

    changed: called when there are others than before, see `Shared`.
    """

    def __init__(
        self,
        settings: ZookeeperSettings,
        replica: str,
        *,
        quorum: int,
        changed: Callable[[], object],
    ) -> None:
        # Here, for the one replica without it needs neither kazoo nor its time to import.
        from sepelib.zookeeper import Client, SessionState

        self._connected = SessionState.CONNECTED
        self._prefix = settings.prefix
        self._replica = replica
        self._client = Client(settings.hosts, settings.session_timeout)
        self.sharing = Shared(
            self._client,
            f"{settings.prefix}/replicas",
            replica,
            quorum=quorum,
            patience=2 * settings.session_timeout,
            changed=changed,
        )
        self._election: Elected | None = None
        self._collector = (
            Collector(self._client, settings.prefix, settings.collector)
            if settings.collector is not None
            else None
        )

    def start(self, chair: Chair, data: dict[str, Any]) -> None:
        path = f"{self._prefix}/singletons/judge"
        self._client.start_async()
        self.sharing.start(data)
        self._election = Elected(chair, self._client, path, self._replica)
        self._election.start()
        if self._collector is not None:
            self._collector.start()

    def stop(self) -> None:
        self.sharing.stop()
        if self._election is not None:
            self._election.stop()
        if self._collector is not None:
            self._collector.stop()
        self._client.stop()

    def use(self, quorum: int) -> None:
        self.sharing.quorum = quorum

    @property
    def is_degraded(self) -> bool:
        return self._client.session.state is not self._connected

    @property
    def complaints(self) -> list[str]:
        said = []
        if self._election is not None and self._election.error is not None:
            said.append(f"This replica judges no more: {self._election.error}")
        if self.is_degraded:
            judges = self._election is not None and self._election.is_judge
            who = "this replica judges as yet" if judges else "nobody judges here"
            said.append(f"ZooKeeper is away: probing goes on, {who}")
        if self.sharing.complaint is not None:
            said.append(self.sharing.complaint)
        return said

    def status(self) -> dict[str, Any] | None:
        return None if self._election is None else self._election.status()

    def show(self, targets: Iterable[Target]) -> dict[str, Any]:
        election = None if self.is_degraded else self._election
        return {
            "is_current": self.sharing.is_current,
            "judge": None if election is None else election.judge(),
            "replicas": [
                {"name": name, "url": _url(self.sharing.data.get(name))}
                for name in self.sharing.replicas
            ],
            "quorum": self.sharing.quorum,
            "shares": {t.name: list(self.sharing.sharers(t.name)) for t in targets},
            "collector": None if self._collector is None else self._collector.status(),
        }


class Collector:
    """Removes what locks leave below *prefix*, on one of the replicas; it logs what it deletes."""

    def __init__(self, client: Any, prefix: str, settings: CollectorSettings) -> None:
        from sepelib.zookeeper import LockGarbageCollector

        self._collector = LockGarbageCollector(
            client,
            [prefix],
            interval=settings.interval,
            idle=settings.idle,
            path=f"{prefix}/singletons/collector",
        )
        self.start = self._collector.start
        self.stop = self._collector.stop

    def status(self) -> dict[str, Any]:
        """What it does, and what its last look on this replica has found."""
        service, last = self._collector.service, self._collector.last
        return {
            "here": service.is_leader,
            "state": service.state.value,
            "error": None if service.error is None else str(service.error),
            "last": last
            and {
                "scanned": last.scanned,
                "empty": last.empty,
                "deleted": last.deleted,
                "orphans": len(last.orphans),
                "seconds": round(last.seconds, 3),
                "trouble": last.trouble,
            },
        }


def _url(data: Any) -> str | None:
    """What a replica has told; whoever else may write there may have told anything."""
    url = data.get("url") if isinstance(data, dict) else None
    return url if isinstance(url, str) else None
