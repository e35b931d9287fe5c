"""One socket, whose every wait ends at a moment: TCP or unix, with TLS or without.

A timeout of a socket starts anew with each byte, so a peer that drips holds `timeout=1` for ever;
here each wait is given what is left. Only this socket's own options are touched.

Not bounded: the resolver of names, which no timeout reaches (gevent's lets others run meanwhile).
"""

from __future__ import annotations

import math
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "TlsWire", "Wire", "open_wire", "parse_address"]

_TLS_PIECE = 64 << 10  # bytes
_MAX_POLL = 86_400_000  # milliseconds


class Address(NamedTuple):
    """Where to connect to: *host* and *port*, or the *path* of a unix socket."""

    host: str
    port: int
    path: str = ""


def parse_address(text: str) -> Address:
    """Of "host:port", "[::1]:port" or "unix:/path"; ValueError for anything else."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address("", 0, text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"a host is 'name:port', '[address]:port' or 'unix:/path', not {text!r}")
    return Address(host, int(port))


def open_wire(
    address: Address, end: float, ssl_context: ssl.SSLContext | None = None
) -> Wire | TlsWire:
    """Connected before *end*, its TLS handshake done; OSError if not."""
    sock = _connected_unix(address.path, end) if address.path else _connected_tcp(address, end)
    try:
        if ssl_context is None:
            return Wire(sock)
        sock.settimeout(0.0)
        sock = ssl_context.wrap_socket(
            sock, server_hostname=address.host or None, do_handshake_on_connect=False
        )
        wire = TlsWire(sock)
        wire.shake_hands(end)
        return wire
    except BaseException:
        sock.close()
        raise


class Wire:
    """A connected socket, which is this object's own from now on."""

    __slots__ = ("_poll", "_sock", "_timeout")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = 0.0
        poll = _native_poll()
        poll.register(sock.fileno(), select.POLLIN)
        # A kept one costs half a microsecond to ask.
        self._poll: Callable[[int], list[tuple[int, int]]] = poll.poll

    def send(self, data: bytes, end: float) -> None:
        """All of *data*; OSError when that was not possible before *end*."""
        self._let_wait_until(end)
        self._sock.sendall(data)

    def receive(self, size: int, end: float) -> bytes:
        """What there is, at most *size* bytes; b"" when the peer has ended the connection."""
        self._let_wait_until(end)
        return self._sock.recv(size)

    def is_fresh(self) -> bool:
        """Whether an idle connection has neither ended nor anything to read. Never waits."""
        return not self._poll(0)

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()

    def _let_wait_until(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # Each change is a system call. Waiting 1 % longer is no harm, and so calls with the same
        # timeout find it as they need it.
        if not left <= self._timeout <= left * 1.01:
            if left == math.inf:
                self._sock.settimeout(None)
            else:
                self._sock.settimeout(left * 1.005)
            self._timeout = left * 1.005


class TlsWire(Wire):
    """The waits are ours: gevent gives the whole timeout to each of the several of one read."""

    __slots__ = ()
    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.settimeout(0.0)

    def shake_hands(self, end: float) -> None:
        self._complete(self._sock.do_handshake, end=end)

    def send(self, data: bytes, end: float) -> None:
        rest = memoryview(data)
        while rest:
            sent = self._complete(self._sock.send, rest[:_TLS_PIECE], end=end)
            if not sent:  # gevent's word for "not now"
                _wait(self._sock, select.POLLOUT, end)
            rest = rest[sent:]

    def receive(self, size: int, end: float) -> bytes:
        received: bytes = self._complete(self._sock.recv, size, end=end)
        return received

    def is_fresh(self) -> bool:
        if not self._poll(0) and not self._sock.pending():
            return True
        # To be read may be no more than the session tickets of TLS 1.3, or a new key.
        import ssl

        try:
            self._sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    def _complete(self, step: Callable[..., Any], *args: object, end: float) -> Any:
        import ssl

        while True:
            try:
                return step(*args)
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            _wait(self._sock, event, end)


def _wait(sock: socket.socket, event: int, end: float) -> None:
    left = end - time.monotonic()
    if left > 0:
        poll = select.poll()  # gevent's when patched: others run meanwhile
        poll.register(sock.fileno(), event)
        if poll.poll(min(math.ceil(left * 1000) if left < math.inf else _MAX_POLL, _MAX_POLL)):
            return
        if end == math.inf or time.monotonic() < end:
            return  # asked again
    raise TimeoutError("timed out")


def _native_poll() -> select.poll:
    # gevent's own lets other greenlets run even with a timeout of 0, and its cost is no less.
    monkey = sys.modules.get("gevent.monkey")
    poll: select.poll = select.poll() if monkey is None else monkey.get_original("select", "poll")()
    return poll


def _connected_unix(path: str, end: float) -> socket.socket:
    return _connected(socket.AF_UNIX, 0, path, end)


def _connected_tcp(address: Address, end: float) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, 0, socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError("not a name that a host can have") from error
    failure: OSError | None = None
    for tried, (family, _, proto, _, sockaddr) in enumerate(found):
        now = time.monotonic()
        # A share each, or a first address that swallows packets leaves nothing for the second.
        share = end if end == math.inf else now + (end - now) / (len(found) - tried)
        try:
            sock = _connected(family, proto, sockaddr, share)
        except OSError as error:
            failure = error
            continue
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock
    try:
        raise failure or OSError(f"the name {address.host} has no address")
    finally:
        del failure  # its traceback has this frame


def _connected(family: int, proto: int, sockaddr: Any, end: float) -> socket.socket:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    try:
        sock.settimeout(None if left == math.inf else left)
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
