"""A Server inside the test's process, in the patched world and in the plain one.

In a process that gevent has patched it runs in greenlets beside the test. In any other it has a
native thread and a hub of its own there: in one thread it and a client that blocks would wait for
each other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import gevent

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from sepelib.flask.server import Server

__all__ = ["RunningServer"]

_TIMEOUT = 30.0  # seconds; far more than a start or a stop takes


class RunningServer:
    """Serves *app* at a free port of 127.0.0.1 until `close()`; *options* are those of Server.

        with RunningServer(app, request_timeout=0.5) as server:
            requests.get(f"{server.url}/ping")

    `drain_delay` is 0 unless given. `server` is the Server, for its `add_check()`; nothing else of
    it may be called from the test in the plain world, where it belongs to another thread.
    """

    def __init__(self, app: WSGIApplication | None = None, **options: Any) -> None:
        from sepelib.flask.server import Server

        self.server: Server = Server(app, **{"drain_delay": 0.0} | options)
        self.url = ""
        self.admin_url = ""
        self._asked: Any = None
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def __enter__(self) -> RunningServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int] | str:
        """Host and port, or the path of the socket file: what a SlowClient connects to."""
        return self.server.address

    def start(self) -> None:
        """Raises what `Server.start()` does."""
        self._thread.start()
        if not self._started.wait(_TIMEOUT):
            raise TimeoutError("the server did not start")
        if self._error is not None:
            self._thread.join(_TIMEOUT)
            raise self._error

    def stop_soon(self) -> None:
        """Let it drain; returns at once."""
        self._asked.send()

    def close(self) -> None:
        """Let it drain, and wait until it has stopped. Idempotent."""
        if self._thread.is_alive():
            self.stop_soon()
            self._thread.join(_TIMEOUT)
            if self._thread.is_alive():
                raise TimeoutError("the server did not stop")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        hub = gevent.get_hub()
        try:
            self._serve(hub)
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()
            if not hub.main_hub:
                hub.destroy(destroy_loop=True)

    def _serve(self, hub: Any) -> None:
        self.server.start()
        try:
            self.url, self.admin_url = self.server.url, self.server.admin_url
            # The one thing that another thread may do to a loop.
            self._asked = hub.loop.async_()
            self._started.set()
            hub.wait(self._asked)
        finally:
            self.server.stop()
