"""One ZooKeeper server as a child process, and the faults a client has to survive.

with ZookeeperServer() as server:
    client = connect(server.hosts)
    server.expire(client)               # its session is closed behind its back
    with server.pause():                # SIGSTOP, and SIGCONT at the end of the block
        ...
    with server.kill():                 # SIGKILL, and a start on the same data
        ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sepelib.util.testing import ServerNotReady, ServerProcess
from sepelib.zookeeper.testing._hub import interruptible, off_the_hub
from sepelib.zookeeper.testing._install import java_command
from sepelib.zookeeper.testing._ports import Reservation
from sepelib.zookeeper.testing._wire import ask, close_session, parse_mntr

if TYPE_CHECKING:
    from sepelib.zookeeper.testing._proxy import ZookeeperProxy

__all__ = ["Outage", "ZookeeperServer"]

_INTERVAL = 0.02


class Outage:
    """What a fault returns: forget it, or use it in a `with` that undoes the fault at its end."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo = undo

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo()


class ZookeeperServer:
    """A standalone server on 127.0.0.1, on one port for its life; a member, inside an `Ensemble`.

    *tick_time* is ZooKeeper's tickTime, in milliseconds: the server grants session timeouts from
    2 ticks to *max_session_timeout* seconds. *container_check*: seconds between two looks for
    empty containers and TTL nodes that are over (the server's default is 60). *settings* are
    lines of zoo.cfg, *properties* Java system properties; both win over ours.

    As a context manager it starts at entry and closes at exit. Gone with the process that made
    it, even after kill -9. Starts and stops let the greenlets of an unpatched process run.
    """

    def __init__(
        self,
        *,
        tick_time: int = 200,
        max_session_timeout: float = 60.0,
        container_check: float | None = None,
        settings: Mapping[str, object] | None = None,
        properties: Mapping[str, object] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 10.0,
        name: str = "zookeeper",
    ) -> None:
        self.name = name
        self.tick_time = tick_time
        self._settings: dict[str, object] = {
            "tickTime": tick_time,
            "maxSessionTimeout": round(max_session_timeout * 1000),
            "admin.enableServer": "false",  # it would want port 8080
            "4lw.commands.whitelist": "*",
            "maxClientCnxns": 0,  # the default is 60 an address
            "forceSync": "no",
            "extendedTypesEnabled": "true",
            "initLimit": 20,
            "syncLimit": 10,
            **(settings or {}),
        }
        self._properties = {key: str(value) for key, value in (properties or {}).items()}
        if container_check is not None:
            interval = str(round(container_check * 1000))
            self._properties.setdefault("znode.container.checkIntervalMs", interval)
        self._member: tuple[int, list[str]] | None = None  # in an ensemble: my number, all members
        self._wait_until_serving = True
        self._reservation: Reservation | None = None
        self._proxies: list[ZookeeperProxy] = []
        self._process = ServerProcess(
            self._command,
            ready=lambda _: self._is_ready(),
            name=name,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )

    def __repr__(self) -> str:
        where = "not started" if self._reservation is None else f"at port {self.port}"
        return f"<{type(self).__name__} {self.name} {where}>"

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

    # Where it is.

    @property
    def port(self) -> int:
        """The same from the first start to close()."""
        if self._reservation is None:
            raise RuntimeError(f"{self.name} has no port: call start() or use it in a with")
        return self._reservation.port

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def hosts(self) -> str:
        """The connection string of a client, without a chroot."""
        return f"127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        """zoo.cfg, the data and the log; removed by close()."""
        return self._process.folder

    @property
    def log_path(self) -> Path:
        return self._process.log_path

    def log_tail(self, lines: int = 50) -> str:
        """The last lines of the log, of all its starts; none once it is closed."""
        return "" if self._reservation is None else self._process.log_tail(lines)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives, paused or not."""
        return self._process.running

    # What an operator, a crash or a bad day does.

    def start(self, timeout: float | None = None, *, serving: bool = True) -> None:
        """Start, on the same port and data, and return when it serves.

        *serving* False: when it answers at all, which a member without a quorum does too. Raises
        ServerNotReady with the tail of the log, MissingComponent when there is no ZooKeeper.
        """
        self._reserve_port()
        self._wait_until_serving = serving
        interruptible(partial(self._process.start, timeout), self._process.kill)

    def stop(self) -> Outage:
        """SIGTERM, and wait. Sessions and data stay, and count from the start after it."""
        off_the_hub(self._process.stop)
        return Outage(self._start_again)

    def kill(self) -> Outage:
        """SIGKILL: a crash. Sessions are in the log and get a fresh timeout at the next start."""
        off_the_hub(self._process.kill)
        return Outage(self._start_again)

    def restart(self, timeout: float | None = None) -> None:
        """stop(), then start()."""
        self.stop()
        self.start(timeout)

    def pause(self) -> Outage:
        """SIGSTOP; returns when it stands still. Connections stay open and silent."""
        off_the_hub(self._process.pause)
        return Outage(self.resume)

    def resume(self) -> None:
        """SIGCONT. A server paused for long expires sessions right after."""
        off_the_hub(self._process.resume)

    def expire(self, session: Any, *, timeout: float = 10.0) -> None:
        """Close a session behind its client's back; its ephemerals are gone when this returns.

        *session* is a client, or its `client_id`: (session id, password). LookupError when the
        server knows no such session. In an ensemble other members may see it a moment later.
        """
        session_id, password = getattr(session, "client_id", session) or (0, b"")
        if not session_id:
            raise ValueError(f"{session!r} has no session to expire: is it connected?")
        off_the_hub(close_session, self.address, session_id, bytes(password), timeout=timeout)

    def proxy(self, chroot: str = "") -> ZookeeperProxy:
        """A running proxy in front of this server; closed with the server, or before by you."""
        from sepelib.zookeeper.testing._proxy import ZookeeperProxy

        proxy = ZookeeperProxy(*self.address, chroot=chroot)
        self._proxies = [p for p in self._proxies if not p.over] + [proxy]
        return proxy.start()

    def close(self) -> None:
        """Stop the server and its proxies, remove its folder. Idempotent."""
        with ExitStack() as stack:
            reservation, self._reservation = self._reservation, None
            if reservation is not None:
                stack.callback(reservation.close)
            stack.callback(off_the_hub, self._process.close)
            while self._proxies:
                stack.callback(self._proxies.pop().close)

    # What it says.

    def ask(self, word: str, *, timeout: float = 5.0) -> str:
        """The answer to a four letter word. OSError (TimeoutError) when there is none."""
        return off_the_hub(ask, self.address, word, timeout=timeout)

    def srvr(self) -> str:
        return self.ask("srvr")

    def mntr(self) -> dict[str, str | int]:
        """The server's numbers, by name. Each question counts as one of zk_packets_received."""
        return parse_mntr(self.ask("mntr"))

    def wchs(self) -> str:
        return self.ask("wchs")

    def cons(self) -> str:
        return self.ask("cons")

    def mode(self) -> str | None:
        """One of standalone, leader, follower; None while it does not serve, or is away."""
        if self._reservation is None:
            return None
        try:
            return _mode(self.ask("srvr", timeout=1.0))
        except OSError:
            return None

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return when it serves, after a resume, say. Raises ServerNotReady."""
        until = time.monotonic() + timeout
        while self.mode() is None:
            if time.monotonic() >= until:
                raise ServerNotReady(self.name, f"not serving in {timeout:g} s", self.log_tail())
            off_the_hub(time.sleep, _INTERVAL)

    # Inside.

    def _is_ready(self) -> bool:
        answer = ask(self.address, "srvr", timeout=1.0)
        return bool(_mode(answer)) if self._wait_until_serving else bool(answer)

    def _reserve_port(self) -> None:
        if self._reservation is None:
            self._reservation = Reservation()

    def _join(self, number: int, members: list[str]) -> None:
        """Be member *number* of an ensemble; *members* are its lines of zoo.cfg."""
        self._member = (number, members)

    def _start_again(self) -> None:
        if not self.running:
            self.start()

    def _command(self, process: ServerProcess) -> list[str]:
        data = process.folder / "data"
        data.mkdir(exist_ok=True)
        settings = {"dataDir": data, **self._settings}
        if self._member is None:
            settings = {"clientPort": self.port, "clientPortAddress": "127.0.0.1", **settings}
        lines = [f"{key}={value}" for key, value in settings.items()]
        if self._member is not None:
            number, members = self._member
            lines += members
            (data / "myid").write_text(f"{number}\n")
        config = process.folder / "zoo.cfg"
        config.write_text("\n".join(lines) + "\n")
        return java_command(self._properties, str(config))


def _mode(answer: str) -> str | None:
    for line in answer.splitlines():
        if line.startswith("Mode: "):
            return line.removeprefix("Mode: ").strip()
    return None
