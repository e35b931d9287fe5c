"""What the server tells a recorder of metrics about its requests."""

from __future__ import annotations

import time

from sepelib.util.instrument import Counter, Histogram, Recorder

__all__ = ["Measures"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MOST_KEPT = 10_000


class Measures:
    """`http_server_requests`, `http_server_seconds`, `http_server_in_flight`, and refusals.

    Labels come from the rules of the application and from what it answers, never as they are from
    a client: their number is bounded.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._requests = recorder.counter(
            "http_server_requests", "Requests answered.", ("endpoint", "method", "status")
        )
        self._seconds = recorder.histogram(
            "http_server_seconds", "From a request's head to its last byte.", ("endpoint",)
        )
        self.in_flight = recorder.gauge(
            "http_server_in_flight", "Requests that the application works on."
        )
        self._rejected = recorder.counter(
            "http_server_rejected", "Connections and requests refused.", ("reason",)
        )
        # The children, found by one look: by labels() it would take several times as long.
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def count(self, endpoint: str, method: str, status: str, started: float) -> None:
        """One request that ended now and began at *started*, of `time.perf_counter()`."""
        seconds = time.perf_counter() - started
        key = (endpoint, method, status)
        counter = self._counters.get(key)
        if counter is None:
            known = method if method in _METHODS else "OTHER"
            counter = self._requests.labels(endpoint, known, status)
            if known == method and len(self._counters) < _MOST_KEPT:
                self._counters[key] = counter
        counter.inc()
        histogram = self._histograms.get(endpoint)
        if histogram is None:
            histogram = self._histograms[endpoint] = self._seconds.labels(endpoint)
        histogram.observe(seconds)

    def reject(self, reason: str) -> None:
        self._rejected.labels(reason).inc()
