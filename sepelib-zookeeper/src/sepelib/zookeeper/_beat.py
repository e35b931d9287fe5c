"""One timer of the hub for all that is due in a client."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sepelib.zookeeper.session import clock

__all__ = ["Beat"]


class Beat:
    """Calls *run*(now) in the hub, again and again; it gives the time at which it is due next.

    Times are those of the session's clock. *run* must not block.
    """

    def __init__(self, hub: Any, run: Callable[[float], float]) -> None:
        self._hub = hub
        self._run = run
        self._timer: Any = None
        self.due = math.inf

    def start(self) -> None:
        """Begin with a call at once."""
        self._arm(clock(), clock())

    def stop(self) -> None:
        """No more calls."""
        self.due = math.inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def by(self, at: float) -> None:
        """Call by *at*, if the beat is on."""
        if at < self.due and self._timer is not None:
            self._arm(at, clock())

    def _arm(self, at: float, now: float) -> None:
        self.stop()
        self.due = at
        self._timer = self._hub.loop.timer(max(0.0, at - now))
        self._timer.start(self._fire)

    def _fire(self) -> None:
        timer = self._timer
        self.due = -math.inf  # what *run* gives counts for what is asked for meanwhile
        # Whatever *run* raises, which the hub reports: the next call comes.
        at = clock() + 1.0
        try:
            at = self._run(clock())
        finally:
            if self._timer is timer:
                self._arm(at, clock())
