"""Waits on a socket that end with the current deadline, for clients that stand on http.client.

A timeout of a socket starts anew with each byte, so a server that drips its headers holds
`timeout=1` for ever (psf/requests#1928). Here each single wait gets what the deadline leaves.

    class Reply(http.client.HTTPResponse):
        def __init__(self, sock, *args, **kwargs):
            super().__init__(ClippedFile(sock), *args, **kwargs)

    class Connection(http.client.HTTPConnection):
        response_class = Reply

        def send(self, data):
            if self.sock is None:
                self.connect()
            send_clipped(self.sock, data, self.timeout, super().send)

urllib3 has the same hooks, and so has requests by its pools.
Not bounded by this: the resolver of names, which no timeout reaches.
"""

from __future__ import annotations

import io
import math
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any

from sepelib.util.deadline import DeadlineExceeded, clip

__all__ = ["ClippedFile", "connect_clipped", "is_silent", "send_clipped"]

_PIECE = 256 << 10  # bytes
_READABLE, _WRITABLE = select.POLLIN, select.POLLOUT
# By their names: `ssl` costs 10 ms, for those whose sockets have none of it as well.
_WANTED = {"SSLWantReadError": _READABLE, "SSLWantWriteError": _WRITABLE}


class ClippedFile:
    """*sock* as far as `http.client.HTTPResponse` uses it: its `makefile()`.

    Each read ends with the deadline in force when it is read: raises DeadlineExceeded then, and
    TimeoutError when nothing came within the timeout that the socket had when this was made. The
    socket may be in non-blocking mode afterwards: set its timeout before it is used for anything
    else, as http.client and urllib3 do.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """A file that is closed apart from the socket, and keeps the connection until then."""
        return io.BufferedReader(_Reader(self._sock))


class _Reader(io.RawIOBase):
    """The bytes of one reply."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = sock.gettimeout()
        # Of the socket's own kind: it keeps the socket open when the connection lets go of it.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # The waits are ours: for one read of TLS gevent waits several times, until a record is
        # complete, and gives the whole timeout to each.
        self._sock.settimeout(0.0)
        while True:
            event = _READABLE
            try:
                count = self._raw.readinto(buffer)
                if count is not None:
                    return count
            except OSError as error:
                wanted = _WANTED.get(type(error).__name__)
                if wanted is None:
                    raise
                event = wanted
            limit = clip(self._timeout)
            if not _is_ready(self._sock, event, limit):
                # Said by who has set the limit: a timer of gevent may end it a little early.
                if limit != self._timeout:
                    raise DeadlineExceeded("no bytes came before the deadline")
                raise TimeoutError("no bytes came in time")

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._raw.close()


def _is_ready(sock: socket.socket, event: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))


def connect_clipped(
    host: str,
    port: int,
    timeout: float | None,
    *,
    family: int = socket.AF_UNSPEC,
    options: Iterable[tuple[int, int, int | bytes]] = (),
    source_address: tuple[str, int] | None = None,
) -> socket.socket:
    """A connection to the first address of *host* that takes one.

    Each address has *timeout*, or less by the deadline, and so has what follows on the socket.
    *options*: for `setsockopt()`, before it connects. Raises socket.gaierror for a name without
    addresses, else the OSError of the last one. A BaseException that strikes leaves no socket.
    """
    failure: OSError | None = None
    for kind, form, protocol, _, address in socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM
    ):
        sock = socket.socket(kind, form, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(clip(timeout))
            if source_address is not None:
                sock.bind(source_address)
            sock.connect(address)
            sock.settimeout(clip(timeout))
        except BaseException as error:
            sock.close()
            if isinstance(error, DeadlineExceeded) or not isinstance(error, OSError):
                raise
            failure = error
        else:
            return sock
    try:
        raise failure or OSError(f"{host} has no addresses")
    finally:
        failure = None  # else the error and its traceback hold each other


def send_clipped(
    sock: socket.socket,
    data: bytes | bytearray | memoryview,
    timeout: float | None,
    send: Callable[[memoryview], object],
) -> None:
    """Give *data* to *send* piece by piece, each with *timeout*, or less by the deadline.

    `sendall()` has one timeout for all it is given, and a large body on a slow line is alive.
    """
    rest = memoryview(data).cast("B")
    while rest:
        sock.settimeout(clip(timeout))
        send(rest[:_PIECE])
        rest = rest[_PIECE:]


def is_silent(sock: socket.socket) -> bool:
    """Whether *sock* is open and nothing waits to be read: neither its end nor a late answer.

    Asked before an idle connection is used again. It never yields: `select.poll`, which urllib3
    asks, switches greenlets under gevent, and one that is cancelled there loses a connection that
    is in nobody's hands. Leaves the socket in non-blocking mode.
    """
    try:
        sock.settimeout(0.0)
        socket.socket.recv(sock, 1, socket.MSG_PEEK)  # beneath TLS
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
