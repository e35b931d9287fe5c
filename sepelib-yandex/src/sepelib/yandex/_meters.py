"""What a client tells its recorder."""

from __future__ import annotations

from sepelib.util.instrument import Counter, Histogram, Recorder

__all__ = ["Meters"]


class Meters:
    """The instruments of one client; one look-up in a dict per request."""

    def __init__(self, recorder: Recorder, service: str) -> None:
        self._service = service
        self._requests_family = recorder.counter(
            "yandex_requests",
            "Requests sent, each attempt for itself.",
            labels=("service", "op", "result"),
        )
        self._seconds_family = recorder.histogram(
            "yandex_seconds",
            "From the connection to the last byte of the body; to the headers of a stream.",
            labels=("service", "op"),
        )
        self._requests: dict[tuple[str, str], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def observe(self, op: str, result: str, seconds: float) -> None:
        key = op, result
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests_family.labels(self._service, op, result)
            self._requests[key] = counter
        counter.inc()
        histogram = self._seconds.get(op)
        if histogram is None:
            histogram = self._seconds[op] = self._seconds_family.labels(self._service, op)
        histogram.observe(seconds)
