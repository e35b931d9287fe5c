"""A real server as a child process, for a test or a demo: up when it says so, gone with its owner.

    def command(server: ServerProcess) -> list[str]:
        (server.folder / "zoo.cfg").write_text(f"clientPort={server.port}\n…")
        return ["java", "-cp", jar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"]

    with ServerProcess(command, ready=lambda server: "Mode:" in srvr(server.port)) as server:
        …

    new ──start──► running ◄──resume/pause──► paused
                    │  ▲                        │
               stop, kill, its own death   ◄────┘
                    ▼  │ start, on the same port and folder
                   stopped ──close──► closed

Left behind: nothing, even when the owner is killed with -9. Between the two stands a supervisor
(one small process for each ServerProcess) that watches the owner and removes the server, all that
the server started, and the folder. Only when owner and supervisor are killed with -9 at once the
folder stays, and what the server itself had forked; the server is killed by the kernel.
Sharing: from any thread or greenlet, one request at a time. In a process forked by the owner all
but `close()` is refused, and `close()` there leaves the server to the owner. Works plain and
patched, and may be started in a thread that ends before the server does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sepelib.util.deadline import clip
from sepelib.util.testing._server_errors import ServerNotReady, SupervisorLost

if TYPE_CHECKING:
    from pathlib import Path

    from sepelib.util.testing._supervision import Supervision

__all__ = ["ServerNotReady", "ServerProcess", "SupervisorLost", "free_port"]

_INTERVAL = 0.02  # seconds between two questions "are you ready?"
_TAIL = 65536


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago.

    For servers that cannot be told port 0. Somebody else may take it before the server does:
    `ServerProcess` tries another one then.
    """
    import socket

    with socket.socket() as probe:
        # Without SO_REUSEADDR: with it the kernel may give one port to two of us.
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """Starts *command* and knows it as ready when *ready* says so.

    *command*: the program and its arguments, or a callable that returns them, called at each start,
    when `folder` is there to be filled. *ready* asks the server in its own protocol, with timeouts
    of its own; False or an OSError is "not yet", anything else passes. *env* replaces the
    environment. *cwd* is `folder` unless given. Stdin is empty, stdout and stderr go to the log.

    As a context manager it starts at entry and closes at exit. Without: `start()`, and `close()`
    also when the start failed.
    """

    def __init__(
        self,
        command: Sequence[str] | Callable[[ServerProcess], Sequence[str]],
        *,
        ready: Callable[[ServerProcess], bool],
        name: str = "server",
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self.name = name
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self._command = command
        self._ready = ready
        self._env = env
        self._cwd = cwd
        self._port: int | None = None
        self._was_ready = False
        self._supervisor: Supervision | None = None

    def __enter__(self) -> ServerProcess:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """A private folder (0700), from the first start until close()."""
        return self._supervised().folder

    @property
    def port(self) -> int:
        """A free port for a server that needs one; stays the same from the first ready start on."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def log_path(self) -> Path:
        return self._supervised().log

    def log_tail(self, lines: int = 50) -> str:
        """The last lines of what the server wrote to stdout and stderr, of all its starts."""
        try:
            with open(self.log_path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def pid(self) -> int | None:
        """The server's, alive or not; None before the first start."""
        return None if self._supervisor is None else self._supervisor.status()[0]

    @property
    def returncode(self) -> int | None:
        """The server's exit status, negative after a signal; None while it runs."""
        return None if self._supervisor is None else self._supervisor.status()[1]

    @property
    def running(self) -> bool:
        """Whether the server lives, paused or not."""
        if self._supervisor is None:
            return False
        pid, returncode = self._supervisor.status()
        return pid is not None and returncode is None

    def start(self, timeout: float | None = None) -> None:
        """Start and wait until it is ready, at most *timeout* (default: `start_timeout`) seconds.

        Raises ServerNotReady, with the tail of the log: at once when the server has ended. The
        server is killed then, and whenever something else is raised. Cut by the current deadline.
        """
        limit = clip(self.start_timeout if timeout is None else timeout)
        assert limit is not None
        until = time.monotonic() + limit
        if self._supervisor is None:
            # Not at the top: json, tempfile and shutil, for everyone who imports a name from here.
            from sepelib.util.testing._supervision import Supervision

            self._supervisor = Supervision(self.name)
        if self.running:  # its answer also says that the folder is there
            raise RuntimeError(f"{self.name}: already running")
        try:
            while (why := self._try_to_start(until, limit)) is not None:
                if self._was_ready or not self._lost_its_port():
                    raise ServerNotReady(self.name, why, self.log_tail())
                self._port = None
        except BaseException:
            with suppress(SupervisorLost):
                self.kill()
            raise
        self._was_ready = True

    def _try_to_start(self, until: float, limit: float) -> str | None:
        """None when it is ready, else why not."""
        command = self._command(self) if callable(self._command) else self._command
        self._supervised().start(command, self._env, self._cwd)
        last: OSError | None = None
        while True:
            answered = False
            try:
                answered = self._ready(self)
                last = None
            except OSError as e:
                last = e
            if (status := self.returncode) is not None:
                return f"ended with status {status} before it was ready"
            if answered:
                return None
            if time.monotonic() >= until:
                why = f"not ready within {limit:.3g} s"
                raise ServerNotReady(self.name, why, self.log_tail()) from last
            time.sleep(_INTERVAL)

    def _lost_its_port(self) -> bool:
        if self._port is None:
            return False
        import socket

        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                return True
        return "Address already in use" in self.log_tail()

    def stop(self, timeout: float | None = None) -> int | None:
        """SIGTERM to the whole tree, and SIGKILL after *timeout* (default: `stop_timeout`) seconds.

        Returns the server's exit status, None when it never ran. Data and log stay.
        """
        return self._end(self.stop_timeout if timeout is None else timeout, signal.SIGTERM)

    def kill(self) -> int | None:
        """SIGKILL to the whole tree: a crash. Data and log stay."""
        return self._end(0.0, signal.SIGKILL)

    def signal(self, signum: int) -> None:
        """Send *signum* to the server alone, as an operator would; nothing when it has ended."""
        self._supervised().request("signal", signal=int(signum))

    def wait(self, timeout: float = 10.0) -> int:
        """Its exit status once it has ended by itself, or after `signal()`.

        TimeoutError after *timeout* seconds, which the current deadline cuts; it runs on then.
        """
        limit = clip(timeout)
        assert limit is not None
        until = time.monotonic() + limit
        while True:
            pid, status = self._supervised().status()
            if pid is None:
                raise RuntimeError(f"{self.name}: never started")
            if status is not None:
                return status
            if time.monotonic() >= until:
                raise TimeoutError(f"{self.name}: still running after {limit:.3g} s")
            time.sleep(_INTERVAL)

    def _end(self, timeout: float, signum: int) -> int | None:
        return None if self._supervisor is None else self._supervisor.end(timeout, signum)

    def restart(self, timeout: float | None = None) -> None:
        """stop(), then start() on the same port and folder."""
        self.stop()
        self.start(timeout)

    def pause(self) -> None:
        """SIGSTOP to the whole tree; returns when it stands still."""
        self._supervised().request("pause", timeout=5.0)

    def resume(self) -> None:
        """SIGCONT to the whole tree."""
        self._supervised().request("resume")

    def close(self) -> None:
        """Stop the server, remove its folder. Idempotent."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close(self.stop_timeout)

    def _supervised(self) -> Supervision:
        if self._supervisor is None:
            raise RuntimeError(f"{self.name}: not started, or closed")
        return self._supervisor
