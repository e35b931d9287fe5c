"""Several ZooKeeper servers with a quorum.

with Ensemble(3) as ensemble:
    client = connect(ensemble.hosts)
    with ensemble.leader().kill():
        ...                             # another one leads; the dead one comes back at the end
    ensemble.followers()[0].pause()
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from sepelib.util.testing import ServerNotReady
from sepelib.zookeeper.testing._hub import off_the_hub
from sepelib.zookeeper.testing._ports import Reservation
from sepelib.zookeeper.testing._proxy import ZookeeperProxy
from sepelib.zookeeper.testing._server import Outage, ZookeeperServer

__all__ = ["Ensemble", "EnsembleProxy"]

_INTERVAL = 0.02


class Ensemble:
    """*size* servers, `ensemble[0]` and on; *options* are those of each `ZookeeperServer`.

    A control acts on all of them; for one, ask the member. As a context manager it starts at
    entry and closes at exit. Ready means: all serve, exactly one leads.
    """

    def __init__(self, size: int = 3, **options: Any) -> None:
        if size < 2:
            raise ValueError(f"size is {size}: a single server is a ZookeeperServer")
        name = options.pop("name", "zookeeper")
        self.members = tuple(ZookeeperServer(name=f"{name}-{i}", **options) for i in range(size))
        self._reservations: list[Reservation] = []

    def __repr__(self) -> str:
        return f"<Ensemble of {list(self.members)}>"

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> ZookeeperServer:
        return self.members[index]

    def __iter__(self) -> Iterator[ZookeeperServer]:
        return iter(self.members)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def hosts(self) -> str:
        """The connection string of a client, with all members and without a chroot."""
        return ",".join(member.hosts for member in self.members)

    def leader(self, timeout: float = 30.0) -> ZookeeperServer:
        """The one member that leads, once there is one. Raises ServerNotReady."""
        until = time.monotonic() + timeout
        while True:
            leaders = [member for member in self.members if member.mode() == "leader"]
            if len(leaders) == 1:
                return leaders[0]
            self._give_up_after(until, f"{len(leaders)} leaders after {timeout:g} s")

    def followers(self) -> list[ZookeeperServer]:
        """The members that follow now."""
        return [member for member in self.members if member.mode() == "follower"]

    def start(self, timeout: float | None = None) -> None:
        """Start those that do not run, side by side, and return when the ensemble is ready."""
        self._introduce()
        stopped = [member for member in self.members if not member.running]
        off_the_hub(_side_by_side, [partial(member.start, timeout) for member in stopped])
        self.wait_ready()

    def stop(self) -> Outage:
        """SIGTERM to all, and wait."""
        off_the_hub(_side_by_side, [member.stop for member in self.members])
        return Outage(self.start)

    def kill(self) -> Outage:
        """SIGKILL to all: the power is gone."""
        off_the_hub(_side_by_side, [member.kill for member in self.members])
        return Outage(self.start)

    def restart(self, timeout: float | None = None) -> None:
        """stop(), then start()."""
        self.stop()
        self.start(timeout)

    def pause(self) -> Outage:
        """SIGSTOP to all."""
        for member in self.members:
            member.pause()
        return Outage(self.resume)

    def resume(self) -> None:
        """SIGCONT to all."""
        for member in self.members:
            member.resume()

    def expire(self, session: Any, *, timeout: float = 10.0) -> None:
        """As `ZookeeperServer.expire`, through the leader."""
        self.leader(timeout).expire(session, timeout=timeout)

    def proxy(self, chroot: str = "") -> EnsembleProxy:
        """A proxy before each member; closed with the ensemble, or before by you."""
        return EnsembleProxy([member.proxy() for member in self.members], chroot)

    def mode(self) -> str | None:
        """ "ensemble" when it is ready, else None."""
        modes = Counter(member.mode() for member in self.members)
        ready = modes["leader"] == 1 and modes["follower"] == len(self.members) - 1
        return "ensemble" if ready else None

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return when all serve and exactly one leads. Raises ServerNotReady."""
        until = time.monotonic() + timeout
        while self.mode() is None:
            self._give_up_after(until, f"no quorum of all after {timeout:g} s")

    def log_tail(self, lines: int = 50) -> str:
        """The last lines of each member's log."""
        return "\n".join(f"--- {member.name}\n{member.log_tail(lines)}" for member in self.members)

    def close(self) -> None:
        """Stop all, remove their folders. Idempotent."""
        try:
            off_the_hub(_side_by_side, [member.close for member in self.members])
        finally:
            while self._reservations:
                self._reservations.pop().close()

    def _introduce(self) -> None:
        if self._reservations:
            return
        lines = []
        for number, member in enumerate(self.members, 1):
            member._reserve_port()
            quorum, election = Reservation(), Reservation()
            self._reservations += [quorum, election]
            lines.append(f"server.{number}=127.0.0.1:{quorum.port}:{election.port};{member.hosts}")
        for number, member in enumerate(self.members, 1):
            member._join(number, lines)

    def _give_up_after(self, until: float, why: str) -> None:
        if time.monotonic() >= until:
            raise ServerNotReady("ensemble", why, self.log_tail())
        off_the_hub(time.sleep, _INTERVAL)


class EnsembleProxy:
    """One `ZookeeperProxy` for each member: `proxy[i]` for one, the methods here for all."""

    def __init__(self, proxies: list[ZookeeperProxy], chroot: str) -> None:
        self.proxies = tuple(proxies)
        self.chroot = chroot

    def __getitem__(self, index: int) -> ZookeeperProxy:
        return self.proxies[index]

    def __iter__(self) -> Iterator[ZookeeperProxy]:
        return iter(self.proxies)

    def __len__(self) -> int:
        return len(self.proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def hosts(self) -> str:
        return ",".join(f"{p.host}:{p.port}" for p in self.proxies) + self.chroot

    def hold(self) -> None:
        for proxy in self.proxies:
            proxy.hold()

    def hold_requests(self) -> None:
        for proxy in self.proxies:
            proxy.hold_requests()

    def hold_replies(self) -> None:
        for proxy in self.proxies:
            proxy.hold_replies()

    def resume(self) -> None:
        for proxy in self.proxies:
            proxy.resume()

    def refuse(self) -> None:
        for proxy in self.proxies:
            proxy.refuse()

    def cut(self, *, reset: bool = False) -> int:
        return sum(proxy.cut(reset=reset) for proxy in self.proxies)

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def counts(self) -> Counter[str]:
        return sum((proxy.counts() for proxy in self.proxies), Counter[str]())

    def close(self) -> None:
        for proxy in self.proxies:
            proxy.close()


def _side_by_side(calls: list[Callable[[], object]]) -> None:
    """Run all in threads of their own; what one of them raised is raised when all have ended."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
