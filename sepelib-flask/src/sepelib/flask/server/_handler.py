"""Serves one connection: reads requests, calls the application, and sees to how each ends.

Whatever the application does ends this request and no other. An error before the answer has begun
becomes a 500; after that the answer is cut off so that the client can see it: without the last
chunk, short of its Content-Length, or by a reset.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import gevent
from werkzeug.exceptions import HTTPException

from sepelib.flask.server._connection import Connection, End, Pace, State
from sepelib.flask.server._input import NO_BODY, Body, body_of
from sepelib.flask.server._parser import Refused, check_beginning, parse_head
from sepelib.flask.server._response import Response, closing_answer, status_line
from sepelib.util.url import redact_url

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIEnvironment

    from gevent.socket import socket as gevent_socket

    from sepelib.flask.server._http import HttpServer

__all__ = ["Handler"]

log = logging.getLogger(__name__)

_CLIENT_GONE = 499  # nginx's; is logged, never sent
_LINGER = 1.0  # seconds for the client to read its last answer


class Handler:
    """gevent.pywsgi's `handler_class`. The caller admits `connection` and calls `handle()`."""

    def __init__(self, sock: gevent_socket, address: object, server: HttpServer) -> None:
        self.connection = Connection(sock, address)
        self._server = server
        self._limits = limits = server.limits
        self._header_timeout = inf if limits.header_timeout is None else limits.header_timeout
        self._idle_timeout = inf if limits.idle_timeout is None else limits.idle_timeout
        self._pace = Pace(limits.write_timeout, limits.min_rate)  # of writing
        self._base: WSGIEnvironment = {}
        self._received = 0.0

    def refuse_at_once(self) -> None:
        """There is no room: say so and close, without a greenlet, and without waiting."""
        if self._server.ssl_context is None:
            self.connection.send_at_once(closing_answer(503))
        self.connection.close()

    def handle(self) -> None:
        """Serve it to its end; the caller closes it."""
        context = self._server.ssl_context
        if context is not None and not self._shake_hands(context):
            return
        self._base = self._environment()
        while self._serve_one():
            pass

    def _shake_hands(self, context: ssl.SSLContext) -> bool:
        connection = self.connection
        try:
            connection.start_tls(context, connection.since + self._header_timeout)
        except OSError as error:
            self._server.connections.rejected("tls")
            log.debug("%s: no TLS: %s", connection.peer, error)
            return False
        return True

    def _environment(self) -> WSGIEnvironment:
        """What all requests of this connection have in common."""
        environ: WSGIEnvironment = self._server.get_environ()
        address = self.connection.address
        if isinstance(address, tuple):
            environ["REMOTE_ADDR"] = str(address[0])
            environ["REMOTE_PORT"] = str(address[1])
        environ["sepelib.connection"] = self.connection
        environ["sepelib.over_limit"] = self.connection.over_limit
        return environ

    def _serve_one(self) -> bool:
        """Whether another request may follow."""
        connection = self.connection
        environ = self._base.copy()
        try:
            head = self._read_head()
            if head is None:
                return False
            length, keep_alive, expects = parse_head(head, environ, self._limits)
        except Refused as refused:
            self._refuse(refused, environ)
            return False
        connection.move(State.BUSY, self._received)
        body = NO_BODY
        if length:
            reject = self._server.connections.rejected
            body = body_of(length, connection, self._limits, expects, reject)
        environ["wsgi.input"] = body
        environ["sepelib.received"] = self._received
        self._pace.restart()
        response = Response(
            connection,
            body,
            self._pace,
            environ["REQUEST_METHOD"] == "HEAD",
            environ["SERVER_PROTOCOL"] == "HTTP/1.1",
            keep_alive,
        )
        self._run(environ, response)
        if connection.last or not response.keep_alive:
            if not (connection.gone or connection.abort) and self._unread(body):
                connection.linger(_LINGER)
            return False
        if not body.skip():
            return False
        connection.move(State.IDLE, time.monotonic())
        return True

    def _run(self, environ: WSGIEnvironment, response: Response) -> None:
        try:
            result = self._server.application(environ, response.start)
            try:
                response.send(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except (Exception, gevent.Timeout) as error:
            self._failed(error, environ, response)
        except BaseException:
            self._killed(response)
            raise
        finally:
            self._log(environ, response)

    def _failed(
        self, error: Exception | gevent.Timeout, environ: WSGIEnvironment, response: Response
    ) -> None:
        connection = self.connection
        if connection.gone:
            return
        status = 500
        if isinstance(error, HTTPException) and error.code and connection.last:
            status = error.code  # the body's, which an application without Flask let through
        elif not getattr(error, "is_logged", False):  # h.StreamBroken, which said more
            method, target = environ["REQUEST_METHOD"], redact_url(environ["REQUEST_URI"])
            log.error("%s %s: the application failed", method, target, exc_info=error)
        if response.complete:
            return
        if response.head_sent:
            connection.last = True
            connection.abort = response.ends_with_connection
        else:
            self._send_page(status, environ, response)

    def _killed(self, response: Response) -> None:
        connection = self.connection
        connection.last = True
        if response.head_sent:
            connection.abort = response.ends_with_connection
        else:
            response.status = 503
            connection.send_at_once(closing_answer(503))

    def _refuse(self, refused: Refused, environ: WSGIEnvironment) -> None:
        """Answer what is not a request; nothing after it on this connection can be trusted."""
        connection = self.connection
        connection.last = True
        log.debug("%s: refused: %s", connection.peer, refused)
        if refused.reason:
            self._server.connections.rejected(refused.reason)
        connection.move(State.BUSY, self._received)
        self._pace.restart()
        response = Response(connection, NO_BODY, self._pace)
        self._send_page(refused.status, environ, response)
        self._log(environ, response)
        if not connection.gone:
            connection.linger(_LINGER)

    def _send_page(self, status: int, environ: WSGIEnvironment, response: Response) -> None:
        try:
            kind, page = self._server.error_page(status, environ)
        except Exception:
            log.exception("the page for status %d failed", status)
            kind, page = "text/plain", f"{status_line(status)}\n".encode()
        response.restart()
        response.start(status_line(status), [("Content-Type", kind)])
        with suppress(OSError):  # `gone` is set
            response.send([page])

    def _log(self, environ: WSGIEnvironment, response: Response) -> None:
        access_log = self._server.access_log
        if access_log is not None:
            status = _CLIENT_GONE if self.connection.gone else response.status
            seconds = time.monotonic() - self._received
            access_log.write(environ, status, response.body_bytes, seconds)

    def _unread(self, body: Body) -> bool:
        return bool(self.connection.buffer) or not body.answered()

    def _read_head(self) -> bytes | None:
        """The next request's head, without the end of its last line; None: there is no next."""
        connection = self.connection
        part = _without_empty_line(connection.buffer)
        if not part:
            new = connection.state is State.NEW
            until = connection.since + (self._header_timeout if new else self._idle_timeout)
            while not part:
                received = connection.receive(until)
                if not received:
                    return None
                part = _without_empty_line(received)
        self._received = time.monotonic()
        end = part.find(b"\r\n\r\n")
        if end < 0:
            connection.move(State.READING, self._received)
            until = self._received + self._header_timeout
            while end < 0:
                check_beginning(part, self._limits)
                received = connection.receive(until)
                if not received:
                    self._no_more(connection.end)
                    return None
                part = _without_empty_line(part + received)
                end = part.find(b"\r\n\r\n")
        if end > self._limits.max_header_bytes:
            check_beginning(part[:end], self._limits)  # which says what is too large
        connection.buffer = part[end + 4 :]
        return part[:end]

    def _no_more(self, end: End | None) -> None:
        """The head stops in the middle."""
        if end is End.EXPIRED:
            raise Refused(408, "header_timeout", "the headers did not come in time")
        if end is End.EVICTED:
            raise Refused(503, "", "there is no room")  # counted by who evicted it


def _without_empty_line(part: bytes) -> bytes:
    # RFC 9112 2.2: some clients end a body with a line too many.
    return part[2:] if part.startswith(b"\r\n") else part
