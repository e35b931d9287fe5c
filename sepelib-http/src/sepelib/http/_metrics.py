"""What a session tells its recorder."""

from __future__ import annotations

from typing import TypeVar

from sepelib.util.instrument import Counter, Histogram, Recorder

__all__ = ["SessionMetrics"]

# A stranger's method is no label of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_CLASSES = {number: f"{number}xx" for number in range(1, 6)}
_KEPT = 1000  # children; beyond that, labels come from input and the recorder has its own limit

K = TypeVar("K")
V = TypeVar("V")


class SessionMetrics:
    """The instruments of one session, and the children in use: one look-up in a dict per call."""

    def __init__(self, recorder: Recorder, session: str) -> None:
        self._session = session
        self._requests_family = recorder.counter(
            "http_client_requests",
            "Requests sent, each redirect and each retry for itself.",
            labels=("session", "endpoint", "method", "status"),
        )
        self._seconds_family = recorder.histogram(
            "http_client_seconds",
            "From the connection to the last byte of the body; to the headers of a stream.",
            labels=("session", "endpoint"),
        )
        self._errors_family = recorder.counter(
            "http_client_errors",
            "Requests without a usable answer.",
            labels=("session", "kind"),
        )
        self.retries = recorder.counter(
            "http_client_retries", "Requests sent again.", labels=("session",)
        ).labels(session)
        self.in_flight = recorder.gauge(
            "http_client_in_flight", "Requests that hold a connection.", labels=("session",)
        ).labels(session)
        self.pool_wait = recorder.histogram(
            "http_client_pool_wait_seconds",
            "Waited for one of max_concurrency slots.",
            labels=("session",),
        ).labels(session)
        self._requests: dict[tuple[str, str, int | None], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def request(self, endpoint: str, method: str, status: int | None, seconds: float) -> None:
        """Count one; *status* None is an error."""
        key = endpoint, method, None if status is None else status // 100
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests_family.labels(
                self._session,
                endpoint,
                method if method in _METHODS else "OTHER",
                _CLASSES.get(key[2] or 0, "error"),
            )
            _keep(self._requests, key, counter)
        counter.inc()
        histogram = self._seconds.get(endpoint)
        if histogram is None:
            histogram = self._seconds_family.labels(self._session, endpoint)
            _keep(self._seconds, endpoint, histogram)
        histogram.observe(seconds)

    def error(self, kind: str) -> None:
        self._errors_family.labels(self._session, kind).inc()


def _keep(children: dict[K, V], key: K, child: V) -> None:
    if len(children) < _KEPT:
        children[key] = child
