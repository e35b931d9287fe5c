"""A service in a child process: for its signals, its exit status, and its log."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from sepelib.util.testing import ServerProcess

__all__ = ["AppProcess"]

_HEAD = "from gevent import monkey; monkey.patch_all()\n"
_TAIL = """
import json as _json, os as _os, sys as _sys
server.start()
with open("started.new", "w") as _file:
    _json.dump({"url": server.url, "admin_url": server.admin_url, "port": server.port}, _file)
_os.rename("started.new", "started.json")
_sys.exit(server.run())
"""


class AppProcess(ServerProcess):
    """Runs a script that makes `server`, a Server; starts it and calls its `run()`.

        with AppProcess("from sepelib.flask.server import Server; server = Server()") as app:
            requests.get(f"{app.url}/ping")
            app.signal(signal.SIGTERM)
            assert app.wait() == 0

    The script is in `folder`, and runs there; *files* are put beside it. *patched*: gevent patches
    the process first.
    """

    def __init__(
        self,
        script: str,
        *,
        files: Mapping[str, str] | None = None,
        patched: bool = True,
        **options: Any,
    ) -> None:
        def command(process: ServerProcess) -> list[str]:
            head = _HEAD if patched else ""
            (process.folder / "service.py").write_text(head + textwrap.dedent(script) + _TAIL)
            for name, text in (files or {}).items():
                (process.folder / name).write_text(text)
            (process.folder / "started.json").unlink(missing_ok=True)
            return [sys.executable, "service.py"]

        super().__init__(command, ready=_is_started, **{"name": "app"} | options)

    def __enter__(self) -> AppProcess:
        super().__enter__()
        return self

    @property
    def url(self) -> str:
        return str(self._where()["url"])

    @property
    def admin_url(self) -> str:
        return str(self._where()["admin_url"])

    @property
    def address(self) -> tuple[str, int]:
        """What a SlowClient connects to."""
        return "127.0.0.1", int(self._where()["port"])

    def _where(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "started.json").read_text())
        return found


def _is_started(process: ServerProcess) -> bool:
    return (process.folder / "started.json").exists()
