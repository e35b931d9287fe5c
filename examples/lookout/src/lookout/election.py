"""Who sits in the chair: the only replica, or the one of several that ZooKeeper lets.

Whatever ZooKeeper does, every replica probes on; cut off from it, a replica does not judge.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from lookout.chair import Chair
from lookout.ledger import Epoch
from sepelib.gevent import GreenThread
from sepelib.util.retry import Backoff

if TYPE_CHECKING:
    from sepelib.zookeeper import Client, Leadership

__all__ = ["Alone", "Elected"]

log = logging.getLogger(__name__)

ASK = 2.0  # seconds for who judges


class Alone:
    """There is nobody to agree with. Its own `Leadership`, which is never lost."""

    is_leader = True

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

    def _run(self) -> None:
        delays = Backoff(base=0.5, cap=10.0).delays()
        while not self.stopping.is_set():
            try:
                self._chair.serve(self)
            except Exception as error:
                log.error("nobody judges, trying on: %s", error)
            self.stopping.wait(next(delays))


class Elected:
    """A singleton among the replicas whose *client* has the same lock at *path*."""

    def __init__(self, chair: Chair, client: Client, path: str, replica: str) -> None:
        from sepelib.zookeeper import InterruptableLock, SingletonService

        self._chair = chair
        self._client = client
        self._lock = InterruptableLock(client, path)  # never acquired: it shows the queue
        self._service = SingletonService(client, path, self._serve, identifier=replica)

    def start(self) -> None:
        """Waits for nothing: the replica is of use without ZooKeeper, too."""
        self._service.start()

    def stop(self) -> None:
        """Another one leads as soon as the target of ours is dead, and not before."""
        self._service.stop()

    @property
    def is_judge(self) -> bool:
        return self._service.is_leader

    @property
    def error(self) -> BaseException | None:
        """Why this replica judges no more."""
        return self._service.error

    def status(self) -> dict[str, Any]:
        service = self._service
        return {
            "here": service.is_leader,
            "state": service.state.value,
            "token": service.token,
        }

    def judge(self) -> str | None:
        """Who leads, asked of ZooKeeper; None when nobody does, or it does not say."""
        from sepelib.zookeeper import ZookeeperError

        try:
            contenders = self._lock.contenders(ASK)
        except ZookeeperError:
            return None
        return contenders[0].identifier if contenders else None

    def _serve(self, leadership: Leadership) -> None:
        # Tokens begin anew with the data of ZooKeeper, and the incidents stay: later data counts as
        # later, whatever its tokens are.
        made = self._client.get(leadership.path)[1].ctime
        self._chair.serve(leadership, Epoch(made, leadership.token))
