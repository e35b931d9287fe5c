"""A FlakyProxy that reads ZooKeeper's frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sepelib.util.testing import FlakyProxy
from sepelib.zookeeper.testing._frames import OPERATIONS
from sepelib.zookeeper.testing._hub import off_the_hub
from sepelib.zookeeper.testing._relay import FrameRelay, LostReply, Then

__all__ = ["ZookeeperProxy"]


class ZookeeperProxy(FlakyProxy):
    """All faults of a FlakyProxy, the loss of one answer, and a count of requests.

        with server.proxy() as proxy:
            client = connect(proxy.hosts)
            proxy.hold()                            # a partition that closes nothing
            proxy.heal()
            with proxy.lose_answer_to("create"):
                client.create("/a")                 # made, but the client does not know

    Two hops: the faults of the base class act before the frames are read.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        chroot: str = "",
        close_timeout: float = 5.0,
    ) -> None:
        super().__init__(upstream_host, upstream_port, close_timeout=close_timeout)
        self.chroot = chroot
        self.over = False
        self._relay = FrameRelay((upstream_host, upstream_port), close_timeout=close_timeout)

    @property
    def hosts(self) -> str:
        """The connection string of a client, with the chroot, if any."""
        return f"{self.host}:{self.port}{self.chroot}"

    def lose_answer_to(
        self, operation: str, *, containing: bytes = b"", then: Then = "cut"
    ) -> LostReply:
        """Lose the answer to the next *operation*, exactly that one, on any connection.

        *operation* is a name of `counts()`: "create" is each kind of create, "connect" the first
        frame of a connection; *containing*: of those, the first with these bytes (of its path,
        say). The server gets and executes it. Answers to earlier requests, pings and watch events
        that come before it are passed on; after it the connection is closed, or reset, or with
        "hold" its replies are held until `resume()`. One loss can be armed at a time.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}: {', '.join(sorted(OPERATIONS))}")
        loss = LostReply(operation, containing, then, self._relay.disarm)
        self._relay.arm(loss)
        return loss

    def counts(self) -> Counter[str]:
        """Request frames passed to the server so far, by operation; pings are among them.

        Take two and subtract: `proxy.counts() - before`.
        """
        return self._relay.counts()

    def start(self) -> Self:
        self._relay.start()
        super().redirect(*self._relay.address)
        return super().start()

    def redirect(self, upstream_host: str, upstream_port: int) -> None:
        """Connect new clients to another server."""
        self._relay.upstream = (upstream_host, upstream_port)

    def resume(self) -> None:
        """Hold no more, and deliver what was held."""
        self._relay.releases += 1
        super().resume()

    def heal(self) -> None:
        """No fault any more: accept, pass and deliver all."""
        self._relay.disarm()
        super().heal()

    def wait_for(self, condition: Callable[[], object], *, timeout: float = 10.0) -> None:
        off_the_hub(super().wait_for, condition, timeout=timeout)

    def close(self) -> None:
        """Stop for good, both hops, then raise what they raised. The second call does nothing."""
        self.over = True
        try:
            super().close()
        finally:
            self._relay.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.over = True
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self._relay.__exit__(kind, error, traceback)
