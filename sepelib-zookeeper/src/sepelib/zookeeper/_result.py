"""The answer to a request, and the ends of all requests."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult
from kazoo.exceptions import ConnectionLoss

from sepelib.util.deadline import Deadline, DeadlineExceeded, clip
from sepelib.zookeeper._meters import described
from sepelib.zookeeper.errors import ZookeeperTimeout

__all__ = ["Bounds", "Result"]


class Result(AsyncResult):  # type: ignore[type-arg]  # not subscriptable at run time
    """gevent's, of which the first end counts, whose `get()` obeys the current deadline.

    Its times are those of the session's clock.
    """

    request: Any = None  # None for what takes several of them
    began = 0.0
    sent: float | None = None
    behind: Result | None = None
    """The request of which this tells the outcome in other words."""

    @property
    def left(self) -> bool:
        """Whether the request has left this process."""
        return (self.behind or self).sent is not None

    def withdraw(self) -> None:
        """Let it not be sent any more, if it has not been yet."""
        asked = self.behind or self
        if asked.sent is None:
            asked.set_exception(ConnectionLoss("given up before it was sent"))

    def set(self, value: Any = None) -> None:
        """Store *value*, unless it has ended already."""
        if not self.ready():
            super().set(value)

    def set_exception(self, exception: Any, exc_info: Any = None) -> None:
        """Store *exception*, unless it has ended already."""
        if not self.ready():
            super().set_exception(exception, exc_info)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The value, or its exception raised; ZookeeperTimeout when the caller's time is over."""
        if not self.ready():
            if not block:
                raise ZookeeperTimeout("no answer yet")
            if timeout is not None or Deadline.current() is not None:
                self._wait_within(timeout)
        return super().get()

    def _wait_within(self, timeout: float | None) -> None:
        try:
            limit = clip(timeout)
        except DeadlineExceeded as error:
            raise ZookeeperTimeout(f"{self._text()}: not waited for: {error}") from error
        self.wait(limit)
        if not self.ready():
            raise ZookeeperTimeout(f"{self._text()}: no answer within the caller's {limit:.3g} s")

    def _text(self) -> str:
        return "a request" if self.request is None else described(self.request)


class Bounds:
    """When which result has to end. One sweep for all: a timer per request would cost too much."""

    def __init__(self) -> None:
        self._bounds: deque[tuple[float, Result, Callable[[], Exception]]] = deque()

    def add(self, bound: float, result: Result, error: Callable[[], Exception]) -> None:
        """Let *result* end by *bound*, with *error*(), if nothing else ends it before.

        Bounds come nearly in order, and answers too: what has ended is dropped from the front.
        """
        bounds = self._bounds
        while bounds and bounds[0][1].ready():
            bounds.popleft()
        bounds.append((bound, result, error))

    def sweep(self, now: float) -> float:
        """End what is over; the next bound, or infinity."""
        bounds = self._bounds
        while bounds and (bounds[0][0] <= now or bounds[0][1].ready()):
            _, result, error = bounds.popleft()
            if not result.ready():
                result.set_exception(error())
        return bounds[0][0] if bounds else math.inf
