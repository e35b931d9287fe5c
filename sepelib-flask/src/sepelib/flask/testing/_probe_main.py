"""The child process of Probe: python -m sepelib.flask.testing._probe_main FOLDER"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import gevent.socket
from gevent import ssl
from gevent.server import StreamServer

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._http import HttpServer
from sepelib.flask.server._limits import Limits
from sepelib.flask.testing._probe_app import application, journal
from sepelib.util.testing import MemoryRecorder

__all__ = ["Commands", "main"]


class Commands:
    """What `Probe.tell()` can ask for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logger = logging.getLogger("sepelib.flask.access")
        self._logger.addHandler(logging.FileHandler(folder / "access.log"))
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._server: HttpServer | None = None
        self._recorder = MemoryRecorder()

    def ping(self) -> str:
        return "pong"

    def open(self, options: dict[str, Any]) -> Any:
        if self._server is not None:
            self._server.stop(0.0)
        journal.clear()
        limits = Limits(**options["limits"])
        listener = _listener(str(self._folder / "socket") if options["unix"] else None)
        listener.listen(limits.backlog)
        address = listener.getsockname()
        context = None
        if options["tls"]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options["tls"])
        self._recorder = MemoryRecorder()
        self._server = server = HttpServer(
            listener,
            application,
            limits=limits,
            access_log=AccessLog(options["access_log"]) if options["access_log"] else None,
            recorder=self._recorder,
            ssl_context=context,
        )
        server.environ["probe.server"] = server
        server.start()
        return address

    def stats(self) -> dict[str, Any]:
        series = self._recorder.series
        return {
            "connections": self._opened().stats(),
            "gauge": {k[0]: v for k, v in series("http_server_connections").items()},
            "rejected": {k[0]: v for k, v in series("http_server_rejected").items()},
            "journal": journal,
        }

    def leaks(self) -> dict[str, int]:
        """What is alive, less what this question takes."""
        gc.collect()
        greenlets = [o for o in gc.get_objects() if isinstance(o, gevent.Greenlet) and not o.dead]
        descriptors = len(os.listdir("/proc/self/fd"))
        return {"greenlets": len(greenlets) - 1, "descriptors": descriptors}

    def forget(self) -> None:
        journal.clear()

    def begin_drain(self) -> None:
        self._opened().begin_drain()

    def stop(self, timeout: float) -> None:
        self._opened().stop(timeout)

    def stop_twice_at_once(self, timeout: float) -> None:
        gevent.joinall([gevent.spawn(self._opened().stop, timeout) for _ in range(2)])

    def stop_soon(self, timeout: float) -> None:
        gevent.spawn(self._opened().stop, timeout)

    def _opened(self) -> HttpServer:
        assert self._server is not None, "open() comes first"
        return self._server


def _listener(path: str | None) -> Any:
    if path is None:
        listener = gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
    else:
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(path)
    return listener


def main(folder: Path) -> None:
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s %(message)s")
    commands = Commands(folder)

    def obey(sock: Any, _: object) -> None:
        with sock.makefile("rwb") as file:
            name, *arguments = json.loads(file.readline())
            file.write(json.dumps(getattr(commands, name)(*arguments)).encode() + b"\n")

    control = StreamServer(("127.0.0.1", 0), obey)
    control.start()
    (folder / "control.new").write_text(json.dumps(control.address))
    os.rename(folder / "control.new", folder / "control.json")
    control.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
