"""A lookout as a child process, and a target whose health is a switch."""

import json
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sepelib.mongo import MockDatabase
from sepelib.util.testing import ServerProcess, ThreadedServer

NOWHERE = "mongo: {uri: 'mongodb://127.0.0.1:1/'}\n"  # for a configuration that is not to be used
LIMIT = 30.0  # seconds for what takes a fraction of one; the machine may be busy


class Target(ThreadedServer):
    """An HTTP server whose health is a switch."""

    silent = (OSError,)  # whoever probes it may go away at any moment

    def __init__(self) -> None:
        super().__init__()
        self.status = "200 OK"
        self.hangs = False

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        connection.recv(65536)
        if self.hangs:
            self.ending.wait()
        connection.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class Lookout:
    """A lookout as a child process. `arguments` follow the name of the command line.

    log_file: where its log goes, if not to stderr.
    """

    def __init__(self, *arguments: object, cwd: Path, log_file: Path | None = None) -> None:
        self.url = ""
        self.log_file = log_file
        self.process = ServerProcess(
            [sys.executable, "-m", "lookout", *map(str, arguments)],
            ready=self._is_ready,
            name="lookout",
            cwd=cwd,
        )

    def __enter__(self) -> "Lookout":
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def _is_ready(self, process: ServerProcess) -> bool:
        if urls := re.findall(r"http://127\.0\.0\.1:\d+/(?=$|\")", self.log, re.MULTILINE):
            self.url = urls[-1]
        return bool(self.url) and self.get("ping") == "pong"

    @property
    def log(self) -> str:
        if self.log_file is not None and self.log_file.exists():
            return self.log_file.read_text()
        return self.process.log_tail(1000)

    def get(self, path: str = "") -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.get("api/v1/status"))
        return status

    def target(self, name: str) -> dict[str, Any]:
        return next(t for t in self.status()["targets"] if t["name"] == name)

    def signal(self, number: int) -> None:
        self.process.signal(number)

    def ended(self) -> int:
        """The exit status, waited for."""
        return self.process.wait(LIMIT)


def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


def section(mongo: MockDatabase) -> str:
    """The one of a configuration that leads to *mongo*."""
    return f"mongo: {{uri: {json.dumps(mongo.uri)}, database: {mongo.name}}}\n"
