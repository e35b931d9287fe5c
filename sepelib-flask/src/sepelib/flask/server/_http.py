"""The HTTP server: gevent's accept loop, with bounds, states, deadlines and a drain that ends.

It serves any WSGI application. What it adds to the environment:

    sepelib.received     when the first byte of the request was seen, time.monotonic()
    sepelib.connection   the Connection: peer, gone, close_after_answer()
    sepelib.over_limit   True when the connection is one of the reserve (see Limits)
    wsgi.input           raises 413, 408 and 400 as werkzeug's exceptions
    REQUEST_URI          the request's target as it was sent

The life of a server:

    start() ──► begin_drain() ──► stop_listening() ──► wait_idle() ──► kill()
                    └──────────────── stop() ────────────────┘
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gevent.pywsgi import WSGIServer

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._connections import Connections
from sepelib.flask.server._handler import Handler
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._response import status_line
from sepelib.util.instrument import AMBIENT, Recorder

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["ErrorPage", "HttpServer", "plain_page"]

log = logging.getLogger(__name__)

ErrorPage = Callable[[int, "WSGIEnvironment"], tuple[str, bytes]]
"""Makes content type and body of an answer the application did not give."""

_GRACE = 0.5  # seconds for the first request of a connection that came just before the stop
_KILL_TIMEOUT = 1.0


def plain_page(status: int, environ: WSGIEnvironment) -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", f"{status_line(status)}\n".encode()


class HttpServer(WSGIServer):
    """Serves *application* to the clients of *listener*, a bound and listening stream socket.

    The listener, TCP or unix, is the server's from now on: `stop()` closes it. *error_page* makes
    what is sent for a request that no application saw, or whose application failed; when it fails
    itself the answer is plain text. *ssl_context* is one of `gevent.ssl`, or of `ssl` in a process
    that gevent patched. *server_name* is what SERVER_NAME says, by default the address.
    """

    # Any callable with these arguments will do, its documentation says; the stub is narrower.
    handler_class: Any = Handler
    stop_timeout = 30.0

    def __init__(
        self,
        listener: socket.socket,
        application: WSGIApplication,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        access_log: AccessLog | None = None,
        recorder: Recorder = AMBIENT,
        ssl_context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        error_page: ErrorPage = plain_page,
    ) -> None:
        if ssl_context is not None:
            _check_cooperative(ssl_context)
        self.limits = limits
        self.access_log = access_log
        self.ssl_context = ssl_context
        self.error_page = error_page
        # Waiting is for the hub alone: a blocking accept() would stop the whole process.
        listener.setblocking(False)
        name, port = _address(listener)
        self.connections = Connections(limits, recorder, self._go_on_accepting)
        self.draining = False
        environ = {
            "SERVER_NAME": server_name or name,
            "SERVER_PORT": port,
            "wsgi.url_scheme": "http" if ssl_context is None else "https",
            "wsgi.multithread": True,
            "wsgi.input_terminated": True,
        }
        super().__init__(listener, application, log=None, environ=environ)

    def full(self) -> bool:
        """Asked by gevent before each accept; when true it pauses."""
        return self.connections.making_room()

    def _go_on_accepting(self) -> None:
        if self.started:
            self.start_accepting()

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except ConnectionAbortedError:  # it went away while it waited to be accepted
            return None

    def do_handle(self, *args: Any) -> None:
        sock, address = args
        try:
            if isinstance(address, tuple):
                # Else the kernel holds small answers back until the client has acknowledged the
                # one before, which the client delays: 40 ms for each request.
                with suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handler = self.handler_class(sock, address, self)
            if self.draining:
                handler.connection.last = True
            if self.connections.admit(handler.connection):
                self.connections.serve(handler.connection, handler.handle)
            else:
                handler.refuse_at_once()
        except BaseException:
            sock.close()
            raise

    def stats(self) -> dict[str, int]:
        """The number of connections in each state."""
        return self.connections.stats()

    def begin_drain(self) -> None:
        """From now on each connection ends with its next answer, and idle ones end at once.

        New ones are still accepted: a load balancer is to hear from `/ping` that it should go away.
        """
        self.draining = True
        self.connections.retire()

    def stop_listening(self) -> None:
        """Accept those that wait already, then close the listener.

        (`stop_accepting()` is gevent's: a pause, after which they still queue up.)
        """
        if self.closed:
            return
        if self.started:
            self.stop_accepting()
            # Bounded: whoever connects faster than we accept must not keep us here.
            for _ in range(2 * self.limits.backlog):
                try:
                    accepted = self.do_read()
                except OSError as error:
                    log.error("the last connections of the backlog are lost: %s", error)
                    break
                if not accepted:
                    break
                self.do_handle(*accepted)
        self.close()

    def wait_idle(self, timeout: float | None = 30.0) -> int:
        """Until all connections are closed, but for the caller's own; how many are busy then."""
        return self.connections.wait(timeout)

    def kill(self) -> None:
        """Cut all connections off and end their greenlets, but for the caller's own."""
        self.connections.kill(_KILL_TIMEOUT)

    def stop(self, timeout: float | None = None) -> None:
        """Drain and end: requests get *timeout* (default: `stop_timeout`) seconds to be answered.

        Who has connected before is still served. Nobody waits for connections without a request.
        May be called again, also at the same time, and by a request, which is then not waited for.
        """
        self.begin_drain()
        self.stop_listening()
        self.connections.retire(_GRACE)
        busy = self.wait_idle(self.stop_timeout if timeout is None else timeout)
        if busy:
            log.warning("%d requests did not end in time and are killed", busy)
        self.kill()
        self.connections.detach()
        if self.access_log is not None:
            self.access_log.flush()


def _address(listener: socket.socket) -> tuple[str, str]:
    address = listener.getsockname()
    return (address[0], str(address[1])) if isinstance(address, tuple) else ("localhost", "")


def _check_cooperative(context: ssl.SSLContext) -> None:
    from gevent.ssl import SSLContext

    if not isinstance(context, SSLContext):
        raise TypeError(
            "this ssl_context would block the whole process: make it of gevent.ssl.SSLContext, "
            "or let gevent patch the process before anything else"
        )
