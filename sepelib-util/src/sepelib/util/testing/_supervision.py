"""The owner's side of a `_supervisor`: start it, ask it, outlive it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from sepelib.util._process_tree import Proc, ProcessTree, milliseconds
from sepelib.util.processes import ProgramNotFound
from sepelib.util.testing._server_errors import SupervisorLost

__all__ = ["Supervision"]

_PATIENCE = 15.0  # for what takes the supervisor milliseconds on an idle machine
_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sepelib.util.testing._supervisor import main; "
    "pid, start, folder, log, *pipes = sys.argv[2:]; "
    "main(int(pid), int(start), folder, log, *map(int, pipes))"
)


class Supervision:
    """One supervisor with its folder. Requests are answered one at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(tempfile.gettempdir(), f"sepelib-{name}-{os.urandom(8).hex()}")
        self.log = self.folder / "server.log"
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._serial = 0
        self._unsent = b""
        self._unread = b""
        self._pid: int | None = None  # the server's
        theirs_in, self._requests = os.pipe()
        self._replies, theirs_out = os.pipe()
        self._fds = [self._requests, self._replies]
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        try:
            self._supervisor = ProcessTree(self._spawn(theirs_in, theirs_out), tree=False)
        except BaseException:
            self._hang_up()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def _spawn(self, requests: int, replies: int) -> int:
        me = Proc().read(os.getpid())
        assert me is not None
        root = str(Path(__file__).parents[3])  # a checkout's src, or site-packages
        args = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, root]
        args += map(str, (me.pid, me.start, self.folder, self.log, requests, replies))
        # Not Popen: gevent's would want a hub with child watchers, and yields before its pid is
        # known. The exit status is of no interest, so it does not matter who reaps it.
        return os.posix_spawn(
            sys.executable,
            args,
            os.environ,
            setsid=True,
            setsigmask=(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, requests, requests),  # onto itself: inheritable
                (os.POSIX_SPAWN_DUP2, replies, replies),
            ],
        )

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._supervisor.pid

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
    ) -> None:
        args = [os.fspath(word) for word in command]
        environ = dict(os.environ if env is None else env)
        reply = self.request(
            "start", args=args, env=environ, cwd=None if cwd is None else os.fspath(cwd)
        )
        self._pid = reply["pid"]

    def status(self) -> tuple[int | None, int | None]:
        """The server's pid and exit status."""
        reply = self.request("status")
        return reply["pid"], reply["returncode"]

    def end(self, timeout: float, signum: int) -> int | None:
        """The exit status. Raises RuntimeError when a process is alive even after SIGKILL."""
        reply = self.request("stop", timeout, signal=signum)
        if reply["survivors"]:
            raise RuntimeError(f"{self.name}: alive after SIGKILL: {reply['survivors']}")
        status: int | None = reply["returncode"]
        return status

    def request(self, op: str, timeout: float = 0.0, **fields: Any) -> dict[str, Any]:
        """Ask, and wait for the answer: *timeout*, which the supervisor is told, and some more."""
        if os.getpid() != self._owner:
            raise RuntimeError(f"{self.name}: belongs to process {self._owner}, which forked us")
        until = time.monotonic() + timeout + _PATIENCE
        with self._lock:
            self._serial += 1
            request = {"id": self._serial, "op": op, "timeout": timeout, **fields}
            self._unsent += json.dumps(request).encode() + b"\n"
            self._send(until)
            # Answers to requests whose waiter was cancelled come first.
            while (reply := self._receive(until))["id"] != self._serial:
                pass
        if "error" in reply:
            if reply["errno"] == 2 and reply["filename"] == fields["args"][0]:
                raise ProgramNotFound(reply["filename"])
            raise OSError(reply["errno"], reply["error"], reply["filename"])
        return reply

    def _send(self, until: float) -> None:
        while self._unsent:
            try:
                # Cut off as it is written: who is cancelled in between leaves the rest to the next.
                self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
            except BlockingIOError:
                self._poll(self._requests, select.POLLOUT, until)
            except BrokenPipeError:
                self._lost()

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._unread:
            try:
                data = os.read(self._replies, 65536)
            except BlockingIOError:
                self._poll(self._replies, select.POLLIN, until)
                continue
            if not data:
                self._lost()
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _poll(self, fd: int, event: int, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{self.name}: its supervisor, process {self.pid}, does not answer")
        poller = select.poll()
        poller.register(fd, event)
        # In slices: a child forked at the wrong moment may hold the other end of a dead one's pipe.
        if not poller.poll(milliseconds(min(left, 1.0))) and not self._supervisor.alive():
            self._lost()

    def _lost(self) -> NoReturn:
        self._clean_up()
        raise SupervisorLost(self.name, self.pid)

    def close(self, timeout: float) -> None:
        """End server and supervisor, remove the folder. In a fork of the owner: only hang up."""
        try:
            if os.getpid() == self._owner:
                self._close(timeout)
        finally:
            self._hang_up()
            self._supervisor.close()

    def _close(self, timeout: float) -> None:
        try:
            request = {"op": "close", "timeout": timeout}
            with self._lock:
                self._unsent += json.dumps(request).encode() + b"\n"
                self._send(time.monotonic() + _PATIENCE)
        except SupervisorLost:
            return
        if not self._supervisor.wait(timeout + _PATIENCE):
            self._supervisor.end(0.0)
        self._clean_up()

    def _clean_up(self) -> None:
        """What is left when the supervisor is dead; after an orderly end that is nothing."""
        if self._pid is not None:
            # The kernel has killed the server; its workers can still be told by its session.
            with ProcessTree(self._pid, own_session=True) as rest:
                rest.end(0.0, signum=signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(ChildProcessError):  # gevent's SIGCHLD handler reaps whatever it finds
            os.waitpid(self.pid, os.WNOHANG)

    def _hang_up(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
