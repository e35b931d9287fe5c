"""What a Thrift client reports, by the name of the client."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from sepelib.util.instrument import Recorder

if TYPE_CHECKING:
    from sepelib.rpc._pool import Pool

__all__ = ["Meters"]


class Meters:
    def __init__(self, recorder: Recorder, client: str) -> None:
        self._client = client
        self._calls = recorder.counter(
            "thrift_client_calls", "Thrift calls that have ended.", ("client", "method", "result")
        )
        self._seconds = recorder.histogram(
            "thrift_client_seconds", "Thrift calls, retries included.", ("client", "method")
        )
        connects = recorder.counter(
            "thrift_client_connects", "Connections tried.", ("client", "result")
        )
        self._pool = recorder.gauge(
            "thrift_client_pool", "Connections, and callers that wait.", ("client", "state")
        )
        self.connects = {
            result: connects.labels(client, result) for result in ("ok", "failed", "cancelled")
        }

    def calls(self, method: str, result: str) -> Callable[[], None]:
        """Counts one that ended so."""
        return self._calls.labels(self._client, method, result).inc

    def seconds(self, method: str) -> Callable[[float], None]:
        return self._seconds.labels(self._client, method).observe

    def watch(self, pool: Pool) -> Callable[[], None]:
        """Report what *pool* has, until the result is called or nobody has the pool."""
        # Weakly: the gauge would keep the pool of a forgotten client, and its sockets, for ever.
        seen = weakref.ref(pool)

        def bind(state: str) -> Callable[[], None]:
            def count() -> float:
                pool = seen()
                return 0.0 if pool is None else float(getattr(pool, state))

            return self._pool.labels(self._client, state).bind(count)

        detach = [bind(state) for state in ("in_use", "idle", "waiting")]

        def stop() -> None:
            while detach:
                detach.pop()()

        return stop
