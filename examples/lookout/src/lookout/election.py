"""Who sits in the chair: the only replica, or the one of several that ZooKeeper lets.

Whatever ZooKeeper does, every replica probes on; cut off from it, a replica does not judge.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from gevent.event import Event

from lookout.chair import Chair
from lookout.ledger import Epoch
from lookout.settings import ZookeeperSettings
from sepelib.gevent import GreenThread
from sepelib.util.retry import Backoff

if TYPE_CHECKING:
    from sepelib.zookeeper import Leadership

__all__ = ["Alone", "Away", "Elected", "Election"]

log = logging.getLogger(__name__)

ASK = 2.0  # seconds for who else there is


class Away(Exception):
    """ZooKeeper does not answer; one sentence."""


class Election(Protocol):
    """From `start()` to `stop()` the chair is taken when it may be."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def is_degraded(self) -> bool: ...
    @property
    def complaint(self) -> str | None: ...
    def status(self) -> dict[str, Any] | None: ...
    def cluster(self) -> dict[str, Any] | None: ...


class Alone:
    """There is nobody to agree with. Its own `Leadership`, which is never lost."""

    is_leader = True
    is_degraded = False
    complaint = None

    def __init__(self, chair: Chair) -> None:
        self.stopping = Event()
        self._chair = chair
        self._thread = GreenThread(self._run, "judge", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._thread.stop()

    def check(self) -> None:
        """It leads."""

    def status(self) -> None:
        return None

    def cluster(self) -> None:
        return None

    def _run(self) -> None:
        delays = Backoff(base=0.5, cap=30.0).delays()
        while not self.stopping.is_set():
            try:
                self._chair.serve(self)
            except Exception as error:
                log.error("nobody judges, trying on: %s", error)
                self.stopping.wait(next(delays))


class Elected:
    """A singleton among the replicas with the same `zookeeper`."""

    def __init__(self, chair: Chair, settings: ZookeeperSettings, replica: str) -> None:
        # Here, for the one replica without it needs neither kazoo nor its time to import.
        from sepelib.zookeeper import Client, InterruptableLock, SessionState, SingletonService

        self._chair = chair
        self._connected = SessionState.CONNECTED
        self._client = Client(settings.hosts, settings.session_timeout)
        path = f"{settings.prefix}/singletons/judge"
        self._lock = InterruptableLock(self._client, path)  # never acquired: it shows the queue
        self._service = SingletonService(self._client, path, self._serve, identifier=replica)

    def start(self) -> None:
        """Waits for nothing: the replica is of use without ZooKeeper, too."""
        self._client.start_async()
        self._service.start()

    def stop(self) -> None:
        """The service first: another one leads as soon as its target is dead, and not before."""
        self._service.stop()
        self._client.stop()

    @property
    def is_degraded(self) -> bool:
        return self._client.session.state is not self._connected

    @property
    def complaint(self) -> str | None:
        if self._service.error is not None:
            return f"This replica judges no more: {self._service.error}"
        if not self.is_degraded:
            return None
        who = "this replica judges as yet" if self._service.is_leader else "nobody judges here"
        return f"ZooKeeper is away: probing goes on, {who}"

    def status(self) -> dict[str, Any]:
        service = self._service
        return {
            "here": service.is_leader,
            "state": service.state.value,
            "token": service.token,
        }

    def cluster(self) -> dict[str, Any]:
        """Who waits to judge, the one that does first. Raises Away."""
        from sepelib.zookeeper import ZookeeperError

        try:
            names = [each.identifier for each in self._lock.contenders(ASK)]
        except ZookeeperError as error:
            raise Away(f"ZooKeeper does not say who is there: {error}") from error
        return {"judge": names[0] if names else None, "replicas": names}

    def _serve(self, leadership: Leadership) -> None:
        # Tokens begin anew with the data of ZooKeeper, and the file stays: later data counts as
        # later, whatever its tokens are.
        made = self._client.get(leadership.path)[1].ctime
        self._chair.serve(leadership, Epoch(made, leadership.token))
