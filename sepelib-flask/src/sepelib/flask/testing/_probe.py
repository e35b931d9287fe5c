"""An HttpServer in a child process, with an application that does what the path says.

    with Probe() as probe:
        probe.open(limits={"header_timeout": 0.3})
        with SlowClient(probe.address) as client:
            client.get("/hello")
        probe.stats()       # connections, gauge, rejected, journal
        probe.leaks()       # greenlets, descriptors

In a child, since a gevent server and a blocking client in one process that gevent did not patch
would wait for each other. The child is patched if the process that made it is.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from typing import Any

from sepelib.util.testing import ServerProcess

__all__ = ["Probe"]


class Probe:
    """A child that has one server at a time, none before `open()`."""

    def __init__(self) -> None:
        self._address: tuple[str, int] | str = ""
        self._process = ServerProcess(
            self._command, ready=lambda _: self.tell("ping") == "pong", name="probe"
        )

    def __enter__(self) -> Probe:
        self._process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def _command(self, process: ServerProcess) -> list[str]:
        monkey = sys.modules.get("gevent.monkey")
        patched = monkey is not None and monkey.is_module_patched("socket")
        green = ["-m", "gevent.monkey", "--module"] if patched else ["-m"]
        folder = str(process.folder)
        return [sys.executable, *green, "sepelib.flask.testing._probe_main", folder]

    def open(
        self,
        *,
        limits: Mapping[str, float | None] | None = None,
        tls: str | None = None,
        unix: bool = False,
        access_log: str | None = None,
    ) -> None:
        """Replace the server by a fresh one, with an empty journal.

        *limits* are those of `Limits`; *tls* is the path of a PEM file with key and chain; *unix*:
        on a unix socket; *access_log*: the format, for the lines in `log_lines()`.
        """
        options = {"limits": limits or {}, "tls": tls, "unix": unix, "access_log": access_log}
        found = self.tell("open", options)
        self._address = found if isinstance(found, str) else (found[0], found[1])

    @property
    def address(self) -> tuple[str, int] | str:
        return self._address

    @property
    def process(self) -> ServerProcess:
        return self._process

    def tell(self, command: str, *arguments: Any) -> Any:
        """Let the child do one of `_probe_main.Commands`; returns what that returns."""
        control = json.loads((self._process.folder / "control.json").read_text())
        with socket.create_connection(tuple(control), timeout=60.0) as sock:
            sock.sendall(json.dumps([command, *arguments]).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
        if not line:
            raise ConnectionError(f"the probe did not answer: {self._process.log_tail()}")
        return json.loads(line)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.tell("stats")
        return found

    def leaks(self) -> dict[str, int]:
        found: dict[str, int] = self.tell("leaks")
        return found

    def log_lines(self) -> list[str]:
        return (self._process.folder / "access.log").read_text().splitlines()
