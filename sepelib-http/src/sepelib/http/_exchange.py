"""One request on the wire: its slot, its place in the metrics, its errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.response import HTTPResponse

from ._body import LimitedResponse
from ._kinds import hide_secrets, kind_of
from ._raised import NoFreeSlot
from ._shown import shown_url

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from sepelib.util.slots import Slots

    from ._call import Call
    from ._metrics import SessionMetrics

__all__ = ["Backend", "Exchange", "exchanged"]


class Backend:
    """What all calls of one session share."""

    __slots__ = ("concurrency_timeout", "metrics", "slots")

    def __init__(
        self, metrics: SessionMetrics, slots: Slots | None, concurrency_timeout: float | None
    ) -> None:
        self.metrics = metrics
        self.slots = slots
        self.concurrency_timeout = concurrency_timeout


def exchanged(
    call: Call, request: PreparedRequest, endpoint: str, send: Callable[[], Response], stream: bool
) -> Response:
    """What *send* returns, with a body that ends the exchange.

    Raises what requests would, DeadlineExceeded, NoFreeSlot and ResponseTooLarge.
    """
    exchange = Exchange(call, request.method or "", endpoint)
    try:
        exchange.enter(request)
        response = send()
        exchange.replied(response.status_code, stream)
        if isinstance(response.raw, HTTPResponse):
            LimitedResponse.limit(response.raw, exchange, request, call.max_body)
        else:
            exchange.finish()  # of a mock's own kind: nobody would tell when it is read
        return response
    except HTTPError as error:
        # One of the few that requests lets through.
        wrong_url = isinstance(error, LocationValueError)
        kind = requests.exceptions.InvalidURL if wrong_url else requests.RequestException
        raise exchange.failed(kind(error, request=request), request) from error
    except requests.RequestException as error:
        failure = exchange.failed(error, request)
        if failure is not error:
            raise failure from error
        raise
    except BaseException as error:
        exchange.finish(error)
        raise


class Exchange:
    """From the slot to the last byte of the body; `finish()` may be called by all who end it.

    The last reference to an unfinished one finishes it: a reply that nobody reads or closes gives
    its slot back when it is garbage. That does no I/O.
    """

    __slots__ = (
        "_entered",
        "_method",
        "_metrics",
        "_seconds",
        "_slots",
        "_started",
        "_status",
        "_unfinished",
        "call",
        "endpoint",
    )

    def __init__(self, call: Call, method: str, endpoint: str) -> None:
        self.call = call
        self.endpoint = endpoint
        self._method = method
        self._metrics = call.backend.metrics
        self._slots = call.backend.slots
        self._status: int | None = None
        self._seconds: float | None = None
        self._started = time.monotonic()
        self._entered = False
        self._unfinished = [None]  # whoever takes the item finishes

    def enter(self, request: PreparedRequest) -> None:
        """Take a slot. Raises NoFreeSlot, or DeadlineExceeded."""
        slots = self._slots
        try:
            self.call.limit(None)
        except TimeoutError as error:
            raise requests.Timeout(error, request=request) from None
        if slots is None or slots.try_acquire():
            self._metrics.pool_wait.observe(0.0)
        else:
            self._wait(slots, request)
        self._entered = True
        self._metrics.in_flight.inc()

    def replied(self, status: int, stream: bool) -> None:
        """The headers are here; of a *stream* that is what counts as its time."""
        self._status = status
        if stream:
            self._seconds = time.monotonic() - self._started

    def failed(
        self, error: requests.RequestException, request: PreparedRequest
    ) -> requests.RequestException:
        """Finish, and give what to raise instead of *error*."""
        call = self.call
        if call.expired:
            error = call.exceeded(request)
        else:
            hide_secrets(error)
            # For RestClient and others who have to know whether to ask before they repeat.
            error.maybe_sent = call.maybe_sent  # type: ignore[attr-defined]
        self.finish(error)
        return error

    def finish(self, error: BaseException | None = None) -> None:
        """Give the slot back and count, once. *error*: there is no usable answer."""
        try:
            self._unfinished.pop()
        except IndexError:
            return
        metrics = self._metrics
        if self._entered:
            metrics.in_flight.dec()
            if self._slots is not None:
                self._slots.release()
        seconds = self._seconds
        if seconds is None:
            seconds = time.monotonic() - self._started
        status = self._status if error is None else None
        metrics.request(self.endpoint, self._method, status, seconds)
        if error is not None:
            metrics.error(kind_of(error, self.call.stage))

    def __del__(self) -> None:
        self.finish()

    def _wait(self, slots: Slots, request: PreparedRequest) -> None:
        call = self.call
        began = time.monotonic()
        try:
            granted = slots.acquire(call.limit(call.backend.concurrency_timeout))
            if granted:
                return
            call.timed_out()
        except TimeoutError:
            pass  # nothing was left
        finally:
            self._started = time.monotonic()
            self._metrics.pool_wait.observe(self._started - began)
        raise NoFreeSlot(
            f"{request.method} {shown_url(request.url or '')}: no slot free for "
            f"{self._started - began:.2f} s, max_concurrency is {slots.size}",
            request=request,
        )
