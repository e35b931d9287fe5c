"""Strikes the requests that go on after their time.

A `gevent.Timeout` for each step of each request would take 1.5 us of the processor, or as much as a
tenth of what a small request takes in all. Here a step takes one store; the table is looked at some
times a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent.hub import Hub

from sepelib.flask.server._errors import RequestTimedOut

__all__ = ["Overdue"]

T = TypeVar("T")

_LOOKS = 20  # in the time of one request


class Overdue:
    """Ends steps, of whatever greenlets, *seconds* after their beginning and a twentieth later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tables: dict[Hub, _Table] = {}

    def bounded(self, owner: Any, step: Callable[..., T], *arguments: Any) -> T:
        """*step*; when it is struck, `owner.struck_by` is the error first.

        In a greenlet that no hub has started, as the main one is under gunicorn's sync worker,
        nothing could strike.
        """
        greenlet = gevent.getcurrent()
        hub: Any = greenlet.parent
        table = self._tables.get(hub)
        if table is None:
            if not isinstance(hub, Hub):
                return step(*arguments)
            table = self._tables[hub] = _Table(hub, self._seconds)
        if not table.looking:
            table.look_out()
        steps = table.steps
        steps[owner] = time.monotonic() + self._seconds, greenlet
        try:
            return step(*arguments)
        finally:
            steps.pop(owner, None)


class _Table:
    """The steps under way on one hub, in the order of their times."""

    def __init__(self, hub: Hub, seconds: float) -> None:
        self.steps: dict[Any, tuple[float, Any]] = {}
        self.looking = False
        self._seconds = seconds
        self._interval = min(0.5, max(0.005, seconds / _LOOKS))
        self._timer: Any = hub.loop.timer(self._interval, self._interval)

    def look_out(self) -> None:
        self.looking = True
        self._timer.start(self._look)

    def _look(self) -> None:
        if not self.steps:
            self._timer.stop()
            self.looking = False
            return
        now = time.monotonic()
        for owner, (due, greenlet) in list(self.steps.items()):
            if due > now:
                return
            if self.steps.get(owner) == (due, greenlet):
                del self.steps[owner]
                error = owner.struck_by = RequestTimedOut(self._seconds)
                error.close()  # its own timer
                greenlet.throw(error)
