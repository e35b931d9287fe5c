"""What the fixtures give: a fresh chroot on a server that tests share, and replaced servers."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from sepelib.zookeeper.testing._ensemble import Ensemble, EnsembleProxy
from sepelib.zookeeper.testing._hub import off_the_hub
from sepelib.zookeeper.testing._proxy import ZookeeperProxy
from sepelib.zookeeper.testing._server import ZookeeperServer
from sepelib.zookeeper.testing._wire import create_node

if TYPE_CHECKING:
    from sepelib.zookeeper import Client

__all__ = ["ServerPool", "Zookeeper"]


class Zookeeper:
    """An empty chroot on `server`, and what a test does with it.

    What `server` can do can be done here too, `zookeeper.kill()` say; only `hosts` and `proxy()`
    differ: they lead into the chroot. The chroot stays as long as the server.
    """

    def __init__(self, server: ZookeeperServer | Ensemble, chroot: str) -> None:
        self.server = server
        self.chroot = chroot
        self._cleanup = contextlib.ExitStack()
        first = server if isinstance(server, ZookeeperServer) else server.leader()
        off_the_hub(create_node, first.address, chroot, timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def __getitem__(self, index: int) -> ZookeeperServer:
        return cast(Ensemble, self.server)[index]

    @property
    def hosts(self) -> str:
        """The connection string of a client, with the chroot."""
        return self.server.hosts + self.chroot

    def client(self, *, start: bool = True, **options: Any) -> Client:
        """A `sepelib.zookeeper.Client` in the chroot, started; stopped when the test ends.

        *options* are the client's: `timeout`, or `hosts` of a proxy.
        """
        from sepelib.zookeeper import Client

        client = Client(**{"hosts": self.hosts} | options)
        self._cleanup.callback(client.close)
        if start:
            client.start()
        return client

    def proxy(self) -> ZookeeperProxy | EnsembleProxy:
        """A proxy (of an ensemble: one before each member) in the chroot; closed with the test."""
        proxy = self.server.proxy(self.chroot)
        self._cleanup.callback(proxy.close)
        return proxy

    def close(self) -> None:
        """Stop what was made here. The server runs on."""
        self._cleanup.close()


class ServerPool:
    """Servers that outlive a test, one for each set of options; broken ones are replaced."""

    def __init__(self) -> None:
        self._servers: dict[Any, ZookeeperServer | Ensemble] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def zookeeper(self, name: str, size: int | None = None, **options: Any) -> Iterator[Zookeeper]:
        """A `Zookeeper` with a chroot that bears *name*.

        *size* members of an ensemble, None a single server; *options* are the server's. One that
        does not serve at the end of the block is closed, and the next block gets a new one.
        """
        key = (size, *sorted(options.items()))
        if key not in self._servers:
            server = ZookeeperServer(**options) if size is None else Ensemble(size, **options)
            self._servers[key] = server.__enter__()
        server = self._servers[key]
        label = re.sub(r"[^A-Za-z0-9_]+", "-", name)[:60].strip("-")
        chroot = f"/{label}-{next(self._numbers)}"
        try:
            with Zookeeper(server, chroot) as zookeeper:
                yield zookeeper
        finally:
            if server.mode() is None:
                self._servers.pop(key).close()

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            while self._servers:
                stack.callback(self._servers.popitem()[1].close)
