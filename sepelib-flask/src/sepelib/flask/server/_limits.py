"""What one client may cost: connections, time, bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a server. Times in seconds, sizes in bytes; None lifts a bound that allows it.

    *max_connections*: when that many are open, the one that has been idle longest is closed for a
    new one. When all are busy, *reserve* more are served one request each, so that health checks
    are heard. Above that a connection gets a 503 and is closed.
    *backlog*: connections that the kernel keeps until we accept them.

    *header_timeout*: from the first byte of a request to the end of its headers; also from accept
    to the first byte of the first request, the TLS handshake included.
    *idle_timeout*: between an answer and the first byte of the next request.
    *body_timeout*, *write_timeout*: without a single byte received, or taken from us; and the sum
    of all waiting in one request or answer, beyond one second per *min_rate* bytes. So nobody
    holds a request for hours with a byte now and then. Time in which the application neither reads
    nor writes does not count.

    *max_request_line*, *max_header_bytes* (request line included), *max_headers* (also of the
    trailers of a chunked body), *max_body_bytes* (decoded).
    """

    max_connections: int = 1000
    reserve: int = 16
    backlog: int = 1024
    header_timeout: float | None = 10.0
    idle_timeout: float | None = 60.0
    body_timeout: float | None = 30.0
    write_timeout: float | None = 30.0
    min_rate: float = 500.0
    max_request_line: int = 8190
    max_header_bytes: int = 32768
    max_headers: int = 100
    max_body_bytes: int | None = 16 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                if "None" not in str(field.type):
                    raise ValueError(f"{field.name} is a number, not None")
            elif not 0 <= value < inf or (value == 0 and field.name not in _MAY_BE_ZERO):
                raise ValueError(f"{field.name} is finite and more than 0, not {value!r}")


_MAY_BE_ZERO = {"reserve", "max_body_bytes"}
