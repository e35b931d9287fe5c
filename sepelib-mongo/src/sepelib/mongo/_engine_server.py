"""One server as a child process, on 127.0.0.1 and one port for its life.

    new ──start──► running ──stop, kill, its own death──► stopped ──start──► running ...

Gone with the process that made it, even after kill -9 (`sepelib.util.testing.ServerProcess`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from sepelib.util.processes import Proc
from sepelib.util.testing import ServerNotReady, ServerProcess, SupervisorLost

from ._engine import Engine, Launch
from ._engine_wire import command
from .errors import MongoUnavailable

__all__ = ["MongoServer"]

_INTERVAL = 0.02  # seconds between two looks
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94


class MongoServer:
    """Starts *engine*; ready when it has said so itself, lives, and answers.

    *replica_set*: a set of one node, which transactions and change streams want. *durable*: what
    was acknowledged survives kill -9, at about a third of the speed. *keep*: the data are in a
    folder of their own, `kept`, which close() leaves.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        replica_set: bool = True,
        durable: bool = False,
        keep: bool = False,
        start_timeout: float = 30.0,
    ) -> None:
        self.engine = engine
        self.kept: Path | None = None
        self._replica_set = replica_set
        self._durable = durable
        self._keep = keep
        self._port = 0
        self._read_from = 0  # where in the log this start begins
        self._process = ServerProcess(
            self._command,
            ready=lambda process: self._is_ready(process.log_path),
            name=f"mongo-{engine.name}",
            env=_environment(),
            start_timeout=start_timeout,
        )

    @property
    def port(self) -> int:
        """Known from the first start on, and the same after each."""
        return self._port

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives, paused or not."""
        try:
            return self._process.running
        except SupervisorLost:
            return False  # the kernel has killed it too

    @property
    def log_path(self) -> Path:
        return self._process.log_path

    def log_tail(self, lines: int = 50) -> str:
        return self._process.log_tail(lines)

    def start(self, timeout: float | None = None) -> None:
        """Start, on the same port and data, and wait until it is ready: MongoUnavailable if not."""
        try:
            self._process.start(timeout)
        except ServerNotReady as error:
            raise MongoUnavailable(str(error), self._process.returncode, error.log) from error
        except SupervisorLost as error:
            raise MongoUnavailable(str(error)) from error
        except OSError as error:
            program = self.engine.program[0]
            reason = f"{self.engine.name}: cannot run {program}: {error.strerror or error}"
            raise MongoUnavailable(reason) from error

    def stop(self) -> None:
        """SIGTERM, and wait. The data stay."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL: a crash. The data stay, as far as they are on the disk."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and silent."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def restore(self) -> None:
        """Running again, whatever was done to it."""
        if self.running:
            self.resume()
        else:
            self.start()

    def leave(self) -> int:
        """With *keep*: start it anew as a process that stays until somebody ends it; its pid."""
        assert self.kept is not None
        self.stop()
        log = self.kept / "server.log"
        shutil.copyfile(self._process.log_path, log)
        self._read_from = log.stat().st_size
        program, *arguments = self._arguments(self.kept)
        # Not Popen, which would complain that nobody waits for the process.
        pid = os.posix_spawn(
            program,
            [program, *arguments],
            _environment(),
            setsid=True,
            setsigmask=(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        until = time.monotonic() + self._process.start_timeout
        while not self._answers(log):
            stat = Proc().read(pid)
            if stat is None or not stat.alive or time.monotonic() >= until:
                raise MongoUnavailable(f"{self.engine.name} did not start again in {self.kept}")
            time.sleep(_INTERVAL)
        return pid

    def close(self) -> None:
        """End it at once and remove its files. Idempotent; a fork of the owner must not."""
        try:
            with contextlib.suppress(SupervisorLost):
                self._process.kill()  # the data are of no use: there is nothing to wait for
        finally:
            self._process.close()
        if self.kept is not None and not self._port:  # it never ran
            shutil.rmtree(self.kept, ignore_errors=True)

    def _command(self, process: ServerProcess) -> list[str]:
        if self._keep and self.kept is None:
            self.kept = Path(tempfile.mkdtemp(prefix="sepelib-mongo-kept-"))
        log = process.log_path
        self._read_from = log.stat().st_size if log.exists() else 0
        return self._arguments(self.kept or process.folder)

    def _arguments(self, folder: Path) -> list[str]:
        data = folder / "data"
        data.mkdir(exist_ok=True)
        config = folder / "empty"
        config.touch()
        launch = Launch(data, config, self._port, self._replica_set, self._durable)
        return [*self.engine.program, *self.engine.arguments(launch)]

    def _answers(self, log: Path) -> bool:
        try:
            return self._is_ready(log)
        except OSError:
            return False

    def _is_ready(self, log: Path) -> bool:
        port = self._announced_port(log)
        if port is None or command(port, {"ping": 1}).get("ok") != 1:
            return False
        if self._replica_set and not _is_primary(port):
            return False
        self._port = port
        return True

    def _announced_port(self, log: Path) -> int | None:
        # Its own word, not a port where somebody answers: that may be a stranger.
        with open(log, "rb") as file:
            file.seek(self._read_from)
            for line in file:
                port = self.engine.ready_port(line.decode(errors="replace"))
                if port is not None and line.endswith(b"\n"):  # else digits may be missing
                    return port
        return None


def _is_primary(port: int) -> bool:
    """Whether the one node is the primary; a new one is told to be."""
    if command(port, {"hello": 1}).get("isWritablePrimary"):
        return True
    status = command(port, {"replSetGetStatus": 1})
    if status.get("code") == _NOT_YET_INITIALIZED:
        member = {"_id": 0, "host": f"127.0.0.1:{port}"}
        answer = command(port, {"replSetInitiate": {"_id": "rs0", "members": [member]}})
        if answer.get("ok") != 1 and answer.get("code") != _ALREADY_INITIALIZED:
            raise MongoUnavailable(f"replSetInitiate failed: {answer.get('errmsg')}")
    return False


def _environment() -> dict[str, str]:
    # SecantusDB takes settings from its variables.
    return {name: value for name, value in os.environ.items() if not name.startswith("SECANTUS_")}
