"""The server: routes, journal, faults."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from sepelib.util.testing import ThreadedServer

from ._exchange import Exchange, Fault, HungUp, Stage
from ._wire import Body, Connection, Headers, ReceivedRequest, Reply

__all__ = ["HttpTestServer"]

_FIELD = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}")


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    answer: Callable[[ReceivedRequest], Reply]
    fault: Fault | None


class _Armed(NamedTuple):
    fault: Fault
    path: str | None


class HttpTestServer(ThreadedServer):
    """An HTTP/1.1 server on the loopback, with faults on demand.

        with HttpTestServer() as server:
            server.route("GET", "/users/{id}", json={"login": "ann"})
            server.next(faults.unavailable(retry_after=1))
            assert requests.get(server.url + "/users/7").status_code == 503

    What no route fits is echoed: 200 and, as JSON, the request. Connections are kept alive, with
    TCP_NODELAY and one write for each answer. A request that is not HTTP, and an error of a route's
    function, fail the test at `close()`. For `start`, `stop`, `refuse`, `restart`, `connections`,
    `wait_for` see ThreadedServer. *ssl_context*: talk TLS.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, close_timeout: float = 5.0
    ) -> None:
        super().__init__(ssl_context=ssl_context, close_timeout=close_timeout)
        self._scheme = "http" if ssl_context is None else "https"
        self._mind = threading.Lock()  # guards all below; held for moments
        self._routes: list[_Route] = []
        self._requests: list[ReceivedRequest] = []
        self._next: list[_Armed] = []
        self._lasting: list[_Armed] = []
        self._releases = 0
        self._numbers: dict[int, int] = {}  # of connections, by their descriptor
        self._last_number = 0

    # What a test says.

    @property
    def url(self) -> str:
        """http://127.0.0.1:port, or https; no slash at the end."""
        return f"{self._scheme}://{self.host}:{self.port}"

    def route(
        self,
        method: str,
        path: str,
        answer: Callable[[ReceivedRequest], Reply] | None = None,
        *,
        status: int = 200,
        headers: Headers = (),
        body: Body = b"",
        json: object = ...,
        fault: Fault | None = None,
    ) -> None:
        """Answer *method* ("*": any) and *path* by *status*, *headers* and *body* or *json*.

        Or by what the function *answer* makes of the request, in a thread of the connection. A
        `{name}` in *path* is one segment, `{name:path}` several; a later route wins over an earlier
        one; HEAD falls back to GET. *fault* strikes each time, unless one of `next()` is due.
        """
        if fault is not None and fault.stage != "answer":
            raise ValueError(f"{fault.name} strikes before the route is known: use next()")
        if answer is None:
            reply = Reply(status, headers=headers, body=body, json=json)
            answer = lambda request: reply  # noqa: E731
        with self._mind:
            self._routes.insert(0, _Route(method.upper(), _compiled(path), answer, fault))

    def next(self, fault: Fault, *, times: int | None = 1, path: str | None = None) -> None:
        """Let *fault* strike the next *times* (None: each time, until `heal()`).

        *path*: only requests whose path, as on the wire, is this one. Faults strike in the order
        they were made, those of a number of times first.
        """
        if path is not None and fault.stage != "answer":
            raise ValueError(f"{fault.name} strikes before a path is known")
        with self._mind:
            if times is None:
                self._lasting.append(_Armed(fault, path))
            else:
                self._next += [_Armed(fault, path)] * times

    def heal(self) -> None:
        """No fault of `next()` any more. Those under way go on: see `release()`."""
        with self._mind:
            self._next, self._lasting = [], []

    def release(self) -> None:
        """Let go on all that a fault holds or drips now."""
        with self._mind:
            self._releases += 1

    # What a test asks.

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The requests that were read whole, in that order, each before it was answered."""
        with self._mind:
            return tuple(self._requests)

    # Inside.

    def opened(self, connection: socket.socket) -> None:
        with self._mind:
            self._last_number += 1
            self._numbers[connection.fileno()] = self._last_number

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with self._mind:
            number = self._numbers[connection.fileno()]
        with contextlib.suppress(HungUp, EOFError):
            self._talk(Connection(connection), number)

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        # Here and not in handle(): the base talks TLS before that.
        fault = self._due("accept")
        if fault is not None:
            with contextlib.suppress(HungUp):  # the base finds it closed
                fault.deliver(Exchange(connection, self.ending, self._released))
        super()._serve(connection, peer)

    def _talk(self, connection: Connection, number: int) -> None:
        alive = True
        while alive:
            connection.wait()
            fault = self._due("arrival")
            if fault is not None:
                fault.deliver(Exchange(connection.socket, self.ending, self._released))
            head = connection.read_head()
            body = connection.read_body(head)
            alive = head.keeps_alive
            exchange = Exchange(connection.socket, self.ending, self._released, last=not alive)
            request = ReceivedRequest(
                head.method, head.target, head.headers, body, number, time.monotonic(), head.version
            )
            self._answer(exchange, request)

    def _answer(self, exchange: Exchange, request: ReceivedRequest) -> None:
        route, args = self._route(request)
        request = request._replace(args=args)
        with self._mind:
            self._requests.append(request)
        exchange.proper(request, _echo(request) if route is None else route.answer(request))
        fault = self._due("answer", request.path) or (route and route.fault)
        if fault is not None:
            fault.deliver(exchange)
        else:
            exchange.answer()

    def _route(self, request: ReceivedRequest) -> tuple[_Route | None, dict[str, str]]:
        with self._mind:
            routes = list(self._routes)
        methods = [request.method, "*"]
        if request.method == "HEAD":
            methods.insert(1, "GET")
        for method in methods:
            for route in routes:
                found = route.path.fullmatch(request.path) if route.method == method else None
                if found is not None:
                    return route, {name: unquote(v) for name, v in found.groupdict().items()}
        return None, {}

    def _due(self, stage: Stage, path: str | None = None) -> Fault | None:
        with self._mind:
            for armed in (self._next, self._lasting):
                for one in armed:
                    if one.fault.stage == stage and one.path in (None, path):
                        if armed is self._next:
                            armed.remove(one)
                        return one.fault
        return None

    def _released(self) -> int:
        return self._releases


def _compiled(path: str) -> re.Pattern[str]:
    pattern, done = "", 0
    for field in _FIELD.finditer(path):
        pattern += re.escape(path[done : field.start()])
        pattern += f"(?P<{field[1]}>{'.+' if field[2] else '[^/]+'})"
        done = field.end()
    return re.compile(pattern + re.escape(path[done:]))


def _echo(request: ReceivedRequest) -> Reply:
    return Reply(
        json={
            "method": request.method,
            "target": request.target,
            "headers": dict(request.headers),
            "body": request.body.decode(errors="backslashreplace"),
            "connection": request.connection,
        }
    )
