"""The metrics of locks and semaphores."""

from __future__ import annotations

from sepelib.util.instrument import Counter, Histogram, Recorder

__all__ = ["LockMeters"]


class LockMeters:
    """Those of one recipe and class of paths; the series are kept: looking them up costs more."""

    def __init__(self, recorder: Recorder, path_class: str, recipe: str = "lock") -> None:
        self._path_class = path_class
        self._acquires = recorder.histogram(
            f"zk_{recipe}_acquire_seconds",
            "Time in acquire() by its end: acquired, busy, timeout, interrupted, error, killed.",
            ("path_class", "result"),
        )
        self._by_result: dict[str, Histogram] = {}
        self._lost = recorder.counter(
            f"zk_{recipe}_lost", "Those lost while held.", ("path_class", "reason")
        )
        self.held = recorder.histogram(
            f"zk_{recipe}_held_seconds", "From the grant to its release or loss.", ("path_class",)
        ).labels(path_class)
        self.waiters = recorder.gauge(
            f"zk_{recipe}_waiters", "Calls of acquire() under way.", ("path_class",)
        ).labels(path_class)

    def acquires(self, result: str) -> Histogram:
        series = self._by_result.get(result)
        if series is None:
            series = self._by_result[result] = self._acquires.labels(self._path_class, result)
        return series

    def lost(self, reason: str) -> Counter:
        return self._lost.labels(self._path_class, reason)
