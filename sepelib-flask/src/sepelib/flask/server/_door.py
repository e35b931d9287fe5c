"""One listener and the HTTP server behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._answers import page
from sepelib.flask.server._http import HttpServer
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._listen import Listener
from sepelib.util.instrument import Recorder

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["Door"]


class Door:
    """Serves *application* at *listener*, which is its own from now on, also when this fails."""

    def __init__(
        self,
        listener: Listener,
        application: WSGIApplication,
        *,
        limits: Limits,
        access_log: AccessLog | None,
        recorder: Recorder,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._scheme = "http" if ssl_context is None else "https"
        try:
            self.server = HttpServer(
                listener.sock,
                application,
                limits=limits,
                access_log=access_log,
                recorder=recorder,
                ssl_context=ssl_context,
                error_page=_error_page,
            )
        except BaseException:
            listener.close()
            raise

    @property
    def address(self) -> tuple[str, int] | str:
        """One that clients of this host can use."""
        address = self._listener.address
        if not isinstance(address, tuple):
            return address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
        return host, address[1]

    @property
    def port(self) -> int | None:
        address = self.address
        return address[1] if isinstance(address, tuple) else None

    @property
    def url(self) -> str:
        address = self.address
        if not isinstance(address, tuple):
            return f"{self._scheme}+unix://{quote(address, safe='')}"
        host, port = address
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def stop(self, timeout: float) -> None:
        try:
            self.server.stop(timeout)
        finally:
            self._listener.remove_file()


def _error_page(status: int, environ: WSGIEnvironment) -> tuple[str, bytes]:
    answer = page(status, environ)
    return answer.content_type, answer.body
