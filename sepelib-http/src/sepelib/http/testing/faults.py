"""What can go wrong between a client and a server: one function for each fault.

    server.next(faults.reset())                              # the next request, then no more
    server.next(faults.drip_body(0.1), times=None)           # each, until server.heal()
    server.route("GET", "/slow", body=b"...", fault=faults.late(2.0))

Units: seconds and bytes. What waits goes on at `server.release()`, and ends when the client goes
away or the server is stopped. "The answer" is what the route has, or the echo.
"""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator

from ._exchange import Exchange, Fault, chunk
from ._wire import Reply

__all__ = [
    "chunked_without_end",
    "close",
    "close_after_answer",
    "content_length_too_long",
    "content_length_too_short",
    "corrupted_gzip",
    "drip_body",
    "drip_headers",
    "garbage",
    "gzip_bomb",
    "hold",
    "hold_after_headers",
    "informational",
    "invalid_chunk",
    "late",
    "many_headers",
    "redirect",
    "redirect_loop",
    "reset",
    "reset_mid_body",
    "reset_on_arrival",
    "slow_accept",
    "unavailable",
]

_MIB = 1 << 20
_CHUNKED = {"Transfer-Encoding": "chunked"}


# Before a request has been read.


def slow_accept(seconds: float) -> Fault:
    """The next connection is left alone for so long, before TLS begins on it.

    As with any busy server the kernel has accepted it by then: the client has connected, and waits
    for the handshake or for the answer. See `unanswered_address()` for a connect that hangs.
    """

    def deliver(exchange: Exchange) -> None:
        exchange.pause(seconds)

    return Fault("slow_accept", deliver, "accept")


def reset_on_arrival() -> Fault:
    """RST as soon as a request begins to arrive; it is not read and not in the journal."""
    return Fault("reset_on_arrival", lambda exchange: exchange.reset(), "arrival")


# In place of the answer.


def late(seconds: float) -> Fault:
    """The answer comes whole, but so much later."""

    def deliver(exchange: Exchange) -> None:
        exchange.pause(seconds)
        exchange.answer()

    return Fault("late", deliver)


def hold() -> Fault:
    """Nothing until `server.release()`, then the answer."""

    def deliver(exchange: Exchange) -> None:
        exchange.pause()
        exchange.answer()

    return Fault("hold", deliver)


def reset() -> Fault:
    """RST after the request has been read: the server may have done what was asked."""
    return Fault("reset", lambda exchange: exchange.reset())


def close() -> Fault:
    """The connection ends, without an answer, after the request has been read."""
    return Fault("close", lambda exchange: exchange.hang_up())


def garbage(data: bytes = b"220 mail.example.org ESMTP\r\n\r\n") -> Fault:
    """*data* instead of an answer, then the connection ends."""

    def deliver(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return Fault("garbage", deliver)


def unavailable(*, status: int = 503, retry_after: float | str | None = None) -> Fault:
    """An answer of *status*, such as 429, with a Retry-After if given: seconds or a date."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def deliver(exchange: Exchange) -> None:
        exchange.answer(Reply(status, headers=headers, body="not now\n"))

    return Fault("unavailable", deliver)


def redirect(location: str, *, status: int = 302) -> Fault:
    """The client is sent to *location*, which may be another host."""

    def deliver(exchange: Exchange) -> None:
        exchange.answer(Reply(status, headers={"Location": location}))

    return Fault("redirect", deliver)


def redirect_loop(*, status: int = 302) -> Fault:
    """The client is sent to where it is. With ``times=None`` it never comes out."""

    def deliver(exchange: Exchange) -> None:
        exchange.answer(Reply(status, headers={"Location": exchange.request.target}))

    return Fault("redirect_loop", deliver)


# Before the answer and in its headers.


def informational(*, status: int = 103, times: int = 1) -> Fault:
    """So many answers of 1xx, then the answer."""

    def deliver(exchange: Exchange) -> None:
        exchange.send(Reply(status).head(framing=()) * times)
        exchange.answer()

    return Fault("informational", deliver)


def drip_headers(every: float, *, count: int = 1) -> Fault:
    """The headers of the answer come *count* bytes at a time, *every* so many seconds."""

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.drip(exchange.head(framing=_length(body)), every=every, count=count)
        exchange.send(body)

    return Fault("drip_headers", deliver)


def many_headers(number: int = 1000, *, size: int = 100) -> Fault:
    """The answer has so many headers more, with values of *size* bytes."""

    def deliver(exchange: Exchange) -> None:
        reply = exchange.reply
        more = [(f"X-Header-{n}", "x" * size) for n in range(number)]
        exchange.answer(Reply(reply.status, headers=reply.headers + more, body=reply.body))

    return Fault("many_headers", deliver)


def hold_after_headers() -> Fault:
    """The headers, then nothing until `server.release()`, then the body."""

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.send(exchange.head(framing=_length(body)))
        exchange.pause()
        exchange.send(body)

    return Fault("hold_after_headers", deliver)


# In the body.


def drip_body(every: float, *, count: int = 1) -> Fault:
    """The body of the answer comes *count* bytes at a time, *every* so many seconds."""

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.send(exchange.head(framing=_length(body)))
        exchange.drip(body, every=every, count=count)

    return Fault("drip_body", deliver)


def reset_mid_body(sent: int | None = None) -> Fault:
    """RST after so many bytes of the body, by default half of them, have reached the client."""

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.send(exchange.head(framing=_length(body)))
        exchange.send(body[: len(body) // 2 if sent is None else sent])
        exchange.drain()
        exchange.reset()

    return Fault("reset_mid_body", deliver)


def content_length_too_long(extra: int = 10) -> Fault:
    """So many bytes more are announced than come before the connection ends."""

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.send(exchange.head(framing=_length(body, extra)) + body)
        exchange.hang_up()

    return Fault("content_length_too_long", deliver)


def content_length_too_short(missing: int = 1) -> Fault:
    """So many bytes less are announced than come; the connection stays open.

    They are what a client that trusts the connection takes for the start of its next answer.
    """

    def deliver(exchange: Exchange) -> None:
        body = exchange.body()
        exchange.send(exchange.head(framing=_length(body, -missing)) + body)

    return Fault("content_length_too_short", deliver)


def chunked_without_end() -> Fault:
    """The whole body in one chunk, then the connection ends without the last, empty chunk."""

    def deliver(exchange: Exchange) -> None:
        exchange.send(exchange.head(framing=_CHUNKED) + chunk(exchange.body()))
        exchange.hang_up()

    return Fault("chunked_without_end", deliver)


def invalid_chunk() -> Fault:
    """The whole body in one chunk, then a chunk whose size is not a number."""

    def deliver(exchange: Exchange) -> None:
        head = exchange.head(framing=_CHUNKED)
        exchange.send(head + chunk(exchange.body()) + b"not a size\r\n")
        exchange.hang_up()

    return Fault("invalid_chunk", deliver)


def corrupted_gzip() -> Fault:
    """The body is said to be compressed by gzip; it begins so and goes on as rubbish."""

    def deliver(exchange: Exchange) -> None:
        body = gzip.compress(exchange.body(), mtime=0)[:10] + b"\xff" * 20
        exchange.answer(_with_body(exchange.reply, body, "gzip"))

    return Fault("corrupted_gzip", deliver)


def gzip_bomb(size: int) -> Fault:
    """A body of *size* bytes, all zero, of which about a thousandth is sent. Made as it is read."""

    def deliver(exchange: Exchange) -> None:
        exchange.answer(_with_body(exchange.reply, _zeros(size), "gzip"))

    return Fault("gzip_bomb", deliver)


# After the answer.


def close_after_answer() -> Fault:
    """The answer, which promises to keep the connection, and then its end.

    What a client meets whose idle connection the server has closed. For the other half of that
    race, the end that meets the next request on its way, see `reset_on_arrival()`.
    """

    def deliver(exchange: Exchange) -> None:
        exchange.answer()
        exchange.hang_up()

    return Fault("close_after_answer", deliver)


def _length(body: bytes, more: int = 0) -> dict[str, str]:
    return {"Content-Length": str(len(body) + more)}


def _with_body(reply: Reply, body: bytes | Iterator[bytes], coding: str) -> Reply:
    headers = [*reply.headers, ("Content-Encoding", coding)]
    return Reply(reply.status, headers=headers, body=body)


def _zeros(size: int) -> Iterator[bytes]:
    squeeze = zlib.compressobj(9, wbits=31)
    while size > 0:
        squeezed = squeeze.compress(bytes(min(size, _MIB)))
        size -= _MIB
        if squeezed:
            yield squeezed
        time.sleep(0)  # a client that is a greenlet of this process wants to read as well
    yield squeeze.flush()
