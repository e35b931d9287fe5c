"""The process between a ServerProcess and its server: ends the server when the owner is gone.

Started by `ServerProcess` as `python -I -S` in a session of its own: single-threaded, nothing of
the owner's interpreter, no Ctrl-C meant for others. It is the server's parent and watches a pidfd
of the owner *process*; the death signal of prctl(2) would fire when the owner's starting *thread*
ends, and a pipe alone stays open in whatever the owner forks. It leaves when the owner is gone or
hangs up, or on SIGTERM, and takes with it the server, all that the server started, and the folder.

It is a subreaper: who loses its parent below it, a daemon with a session of its own too, becomes
its child and cannot get away. Should it be killed with -9 itself, the kernel kills the server
(PR_SET_PDEATHSIG, safe here: one thread), and the owner what is left of the server's session.

Requests and replies are lines of JSON on two pipes: {"id", "op", ...} -> {"id", ...}.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sepelib.util._process_tree import Held, Proc, ProcessTree

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WITHOUT_OWNER = 2.0  # between TERM and KILL when nobody waits for the server any more
_RECHECK = 0.2  # seconds between two looks at the owner where there are no pidfds

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


class _Supervisor:
    def __init__(self, folder: str, log: str, requests: int, replies: int) -> None:
        self._folder = folder
        self._log = log
        self._requests = requests
        self._replies = replies
        self._buffer = b""
        self._server: subprocess.Popen[bytes] | None = None
        self._tree: ProcessTree | None = None

    def watch(self, owner: Held, wakeup: int) -> None:
        """Serve requests until the owner is gone, hangs up or a signal tells us to leave."""
        poller = select.poll()
        for fd in (self._requests, wakeup, owner.fd):
            if fd is not None:
                poller.register(fd, select.POLLIN)
        while owner.alive():
            ready = dict(poller.poll(None if owner.fd is not None else _RECHECK * 1000))
            if wakeup in ready:
                if set(os.read(wakeup, 4096)) - {signal.SIGCHLD}:
                    return
                self._reap()
            if self._requests in ready and not self._serve():
                return

    def _serve(self) -> bool:
        data = os.read(self._requests, 65536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["op"] == "close":
                self.end(request["timeout"])
                return False
            try:
                reply = self._operations[request["op"]](self, request)
            except OSError as e:
                reply = {"errno": e.errno, "error": e.strerror or str(e), "filename": e.filename}
            os.write(self._replies, json.dumps({"id": request["id"], **reply}).encode() + b"\n")
        return bool(data)

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        self.end(_WITHOUT_OWNER)  # what a server that died by itself has left
        me = os.getpid()

        def die_with_us() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:  # killed before the line above
                os._exit(1)

        with open(self._log, "ab") as log:
            self._server = subprocess.Popen(
                request["args"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=request["env"],
                cwd=request["cwd"] or self._folder,
                start_new_session=True,
                preexec_fn=die_with_us,
            )
        self._tree = ProcessTree(self._server.pid, own_session=True, adopted=True)
        return self._status(request)

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            return {"pid": None, "returncode": None}
        return {"pid": self._server.pid, "returncode": self._server.poll()}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        survivors = self.end(request["timeout"], request["signal"])
        return self._status(request) | {"survivors": survivors}

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is not None:
            self._server.send_signal(request["signal"])  # asks first whether it lives
        return self._status(request)

    def _pause(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._tree is not None:
            self._tree.send(signal.SIGSTOP)
            until = time.monotonic() + request["timeout"]
            # A signal is delivered a moment later, and a paused server must not answer once more.
            while time.monotonic() < until:
                stats = map(Proc().read, self._tree.members())
                if all(stat is None or stat.state in "Tt" for stat in stats):
                    break
                time.sleep(0.001)
        return self._status(request)

    def _resume(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._tree is not None:
            self._tree.send(signal.SIGCONT)
        return self._status(request)

    _operations: dict[str, Callable[[_Supervisor, dict[str, Any]], dict[str, Any]]] = {
        "start": _start,
        "status": _status,
        "stop": _stop,
        "signal": _signal,
        "pause": _pause,
        "resume": _resume,
    }

    def end(self, timeout: float, signum: int = signal.SIGTERM) -> list[int]:
        """End the server and all below us; the pids that even SIGKILL did not end."""
        if self._tree is None:
            return []
        ended = self._tree.end(timeout, signum=signum)
        self._reap()
        return list(ended.survivors)

    def _reap(self) -> None:
        if self._server is not None:
            self._server.poll()
        for stat in Proc().snapshot().values():
            ours = self._server is not None and stat.pid == self._server.pid
            if stat.ppid == os.getpid() and not stat.alive and not ours:
                os.waitpid(stat.pid, os.WNOHANG)  # adopted: nobody else will


def main(owner_pid: int, owner_start: int, folder: str, log: str, *pipes: int) -> None:
    """Serve one owner, then remove *folder*. The bootstrap in `ServerProcess` calls this."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in pipes:
            with suppress(OSError):  # the listing's own is closed already
                os.close(int(name))  # the owner's, inherited: somebody may wait for their end
    os.chdir("/")
    signals, wakeup = os.pipe()
    for fd in (signals, wakeup):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wakeup)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    stat = Proc().read(owner_pid)
    if stat is None or stat.start != owner_start:
        return
    owner = Held(Proc(), stat)
    supervisor = _Supervisor(folder, log, *pipes)
    try:
        os.mkdir(folder, 0o700)
        with open(os.path.join(folder, "supervisor.log"), "ab") as errors:
            os.dup2(errors.fileno(), sys.stderr.fileno())
        supervisor.watch(owner, signals)
    finally:
        supervisor.end(_WITHOUT_OWNER)
        shutil.rmtree(folder, ignore_errors=True)
