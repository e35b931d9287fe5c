"""Who is there to probe, and what of all targets is for whom.

What is seen is a level, not an event: whatever has changed, the shares follow from who is there now
and from the targets of now. Cut off from ZooKeeper, a replica goes on with those whom it saw last;
before it has seen anybody, with everything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from lookout.checks import NAME
from lookout.shares import sharers
from lookout.targets import Target

if TYPE_CHECKING:
    from sepelib.zookeeper import Client, Member, Party, PartyView

__all__ = ["Everything", "Shared", "Sharing"]

log = logging.getLogger(__name__)


class Sharing(Protocol):
    """Who probes what."""

    @property
    def replicas(self) -> tuple[str, ...]:
        """The names of all, this one among them."""

    @property
    def others(self) -> tuple[str, ...]: ...
    @property
    def is_current(self) -> bool:
        """Whether these are those who are there."""

    def sharers(self, target: str) -> tuple[str, ...]:
        """Who probes the target of this name, the first choice first."""

    def mine(self, targets: Iterable[Target]) -> list[Target]:
        """Those of *targets* that are for this replica."""


class Everything:
    """There is nobody to share with."""

    others: tuple[str, ...] = ()
    is_current = True

    def __init__(self, replica: str) -> None:
        self.replicas: tuple[str, ...] = (replica,)

    def sharers(self, target: str) -> tuple[str, ...]:
        return self.replicas

    def mine(self, targets: Iterable[Target]) -> list[Target]:
        return list(targets)


class Shared:
    """A Party of the replicas at *path*; from `start()` to `stop()` this one is a member.

    quorum: so many are to probe each target. changed: called when others are there than before, in
    a greenlet, never twice at once.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        replica: str,
        *,
        quorum: int,
        patience: float,
        changed: Callable[[], object],
    ) -> None:
        self.quorum = quorum
        self._client = client
        self._path = path
        self._replica = replica
        self._patience = patience  # seconds in which the node of a dead process goes
        self._changed = changed
        self._party: Party | None = None
        self._view: PartyView | None = None
        self._names: tuple[str, ...] = (replica,)
        self._data: dict[str, Any] = {}
        self._odd: frozenset[str] = frozenset()
        self._double_since: float | None = None

    def start(self, data: dict[str, Any]) -> None:
        """Waits for nothing. *data*: what others are to know of this replica."""
        from sepelib.zookeeper import Party

        self._party = Party(self._client, self._path, self._replica, data)
        self._party.join(0.0)
        self._view = self._party.watch(self._see)

    def stop(self) -> None:
        """Leave the others to their new shares; this one keeps its own, for who asks."""
        if self._view is not None:
            self._view.stop(0.0)
        if self._party is not None:
            self._party.leave()

    @property
    def replicas(self) -> tuple[str, ...]:
        return self._names

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(name for name in self._names if name != self._replica)

    @property
    def is_current(self) -> bool:
        return self._view is not None and self._view.is_current

    @property
    def data(self) -> dict[str, Any]:
        """By name, what each has told of itself."""
        return self._data

    @property
    def complaint(self) -> str | None:
        if self._view is not None and self._view.error is not None:
            return f"Who else probes cannot be seen, the last known shares stay: {self._view.error}"
        since = self._double_since
        if since is None or time.monotonic() - since < self._patience:
            return None
        return (
            f"Another replica is called {self._replica} as well, and the two count as one: "
            f"give one of them another name"
        )

    def sharers(self, target: str) -> tuple[str, ...]:
        return sharers(target, self._names, self.quorum)

    def mine(self, targets: Iterable[Target]) -> list[Target]:
        return [target for target in targets if self._replica in self.sharers(target.name)]

    def _see(self, members: tuple[Member, ...]) -> None:
        # Names are those of directories, too, and anybody may write to ZooKeeper.
        odd = frozenset(m.identifier for m in members if not NAME.fullmatch(m.identifier))
        for name in odd.difference(self._odd):
            log.error("%s: %.100r is no name for a replica, not counted", self._path, name)
        self._odd = odd
        members = tuple(member for member in members if member.identifier not in odd)
        names = [member.identifier for member in members]
        if names.count(self._replica) < 2:  # that of a process killed and started again soon goes
            self._double_since = None
        elif self._double_since is None:
            self._double_since = time.monotonic()
        self._data = {member.identifier: member.data for member in members}
        # This one probes, seen or not: it has just come, or its session is over and anew.
        names = sorted({*names, self._replica})
        if tuple(names) != self._names:
            log.info("replicas: %s", ", ".join(names))
        self._names = tuple(names)
        self._changed()
