"""Targets for the demo: three small servers on the loopback, two of which fail on a timetable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from gevent.event import Event

from sepelib.flask.server import Server
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


Timetable = Callable[[float], Answer]
TIMETABLES: dict[str, Timetable] = {"steady": steady, "flaky": flaky, "slow": slow}
# Short, so that the first incident opens and closes before anybody looks away.
RULES = {"interval": 1.0, "timeout": 1.0, "max_latency": 0.5}


class DemoTargets:
    """The three servers, each on a port that the system chose. Ends them with the `with` block."""

    def __init__(self) -> None:
        self._ending = Event()
        self._servers: dict[str, Server] = {}
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            started = time.monotonic()
            for name, timetable in TIMETABLES.items():
                app = _app(name, timetable, started, self._ending)
                # Measured by nobody: /metrics is to show what lookout does.
                server = Server(app, drain_delay=0.0, access_log=False, recorder=NULL)
                self._servers[name] = exits.enter_context(server)
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
        return [
            {"name": name, "url": f"{server.url}/", **RULES}
            for name, server in self._servers.items()
        ]


def _app(
    name: str, timetable: Timetable, started: float, ending: Event
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = timetable(time.monotonic() - started)
        ending.wait(answer.delay)
        start_response(answer.status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{name}: {answer.status}\n".encode()]

    return app
