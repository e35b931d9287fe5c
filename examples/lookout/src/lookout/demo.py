"""Targets for the demo: small servers on the loopback, three of which fail on a timetable."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from gevent.event import Event
from thriftpy2.parser.parser import parse_fp

from sepelib.flask.server import Server
from sepelib.rpc.testing import ThriftServer, XmlRpcServer
from sepelib.util.instrument import NULL

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["TIMETABLES", "DemoTargets"]


class Answer(NamedTuple):
    status: str
    delay: float


def steady(elapsed: float) -> Answer:
    """Always fine."""
    return Answer("200 OK", 0.01)


def flaky(elapsed: float) -> Answer:
    """An error for four seconds of every twenty."""
    return Answer("503 Service Unavailable" if 4 <= elapsed % 20 < 8 else "200 OK", 0.03)


def slow(elapsed: float) -> Answer:
    """Slower and slower until nobody waits for it, and back, every twenty-four seconds."""
    return Answer("200 OK", 0.05 + 1.4 * max(0.0, math.sin((elapsed - 3) * math.tau / 24)))


def restarting(elapsed: float) -> str:
    """What a supervisord says of itself; busy with a restart for four seconds of twenty-two."""
    return "RESTARTING" if 7 <= elapsed % 22 < 11 else "RUNNING"


class Directory:
    """What the Thrift server does: it always answers."""

    def ping(self) -> None:
        pass


IDL = "service Directory { void ping() }"
Timetable = Callable[[float], Answer]
TIMETABLES: dict[str, Timetable] = {"steady": steady, "flaky": flaky, "slow": slow}
# Short, so that the first incident opens and closes before anybody looks away.
RULES = {"interval": 1.0, "timeout": 1.0, "max_latency": 0.5}


class DemoTargets:
    """The servers, each on a port that the system chose. Ends them with the `with` block."""

    def __init__(self) -> None:
        self._ending = Event()
        self._targets: list[dict[str, Any]] = []
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            started = time.monotonic()
            for name, timetable in TIMETABLES.items():
                app = _app(name, timetable, started, self._ending)
                # Measured by nobody: /metrics is to show what lookout does.
                server = Server(app, drain_delay=0.0, access_log=False, recorder=NULL)
                url = f"{exits.enter_context(server).url}/"
                self._targets.append({"name": name, "url": url, **RULES})
            self._targets.append(_directory(exits))
            self._targets.append(_supervisor(exits, started))
            exits.callback(self._ending.set)  # first: no answer is waited for
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    @property
    def targets(self) -> list[dict[str, Any]]:
        """As in the `targets:` of the configuration."""
        return list(self._targets)


def _directory(exits: ExitStack) -> dict[str, Any]:
    parse: Any = parse_fp  # untyped
    service = parse(io.StringIO(IDL), "directory_thrift", enable_cache=False).Directory
    server = exits.enter_context(ThriftServer(service, Directory(), transport="framed"))
    return {"name": "directory", "thrift": server.endpoint, "transport": "framed", **RULES}


def _supervisor(exits: ExitStack, started: float) -> dict[str, Any]:
    def state() -> dict[str, Any]:
        return {"statename": restarting(time.monotonic() - started)}

    server = exits.enter_context(XmlRpcServer({"supervisor.getState": state}))
    return {
        "name": "supervisor",
        "xmlrpc": server.url,
        "method": "supervisor.getState",
        "expect": {"statename": "RUNNING"},
        **RULES,
    }


def _app(
    name: str, timetable: Timetable, started: float, ending: Event
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = timetable(time.monotonic() - started)
        ending.wait(answer.delay)
        start_response(answer.status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{name}: {answer.status}\n".encode()]

    return app
