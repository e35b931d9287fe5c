"""A connected socket as two streams of bytes: reading waits, sending need not."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
import gevent.monkey
import gevent.socket
import gevent.ssl
from kazoo.exceptions import ConnectionDropped
from kazoo.handlers.threading import KazooTimeoutError

from sepelib.zookeeper.session import clock

__all__ = ["Stream", "connect"]

_READ, _WRITE = 1, 2  # of the hub's loop
_CHUNK = 1 << 16
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream:
    """For one greenlet that reads, and any that send.

    *sock* is one that never blocks, TLS or not, gevent's or not; its owner closes it after
    `close()`. *check* is called after each wait and may raise. *on_room* is called in the hub, once
    all has left that did not leave at once.
    """

    def __init__(
        self, sock: Any, check: Callable[[], object], on_room: Callable[[], object]
    ) -> None:
        self._socket = sock
        self._check = check
        self._on_room = on_room
        self._hub = gevent.get_hub()
        self._watchers: dict[int, Any] = {}
        self._unread = bytearray()
        self._unsent = b""
        self.received_at = clock()
        self.why_cut: Exception | None = None

    @property
    def full(self) -> bool:
        """Something waits to leave: nothing else may be sent until *on_room* is called."""
        return bool(self._unsent)

    def readable(self) -> bool:
        """Something has come that is not read yet. Asks the system, and waits for nothing."""
        poll = gevent.monkey.get_original("select", "poll")()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def push(self, data: bytes) -> None:
        """Send; what does not fit now leaves when it does. A broken stream is cut."""
        try:
            self._unsent = data[self._send(data) :]
        except OSError as error:
            self._unsent = b""
            self.cut(error)
        if self._unsent:
            self._watcher(_WRITE).start(self._go_on)

    def send(self, data: bytes) -> None:
        """Send; waits until all has left."""
        while data:
            data = data[self._send(data) :]
            if data:
                self._wait(_WRITE)

    def take(self, length: int) -> bytes:
        """The next *length* bytes; waits for them."""
        unread = self._unread
        waited = True
        while len(unread) < length:
            if not waited:
                gevent.sleep(0)  # A flood of answers must not stop all others.
            try:
                chunk = self._socket.recv(_CHUNK)
            except _LATER:
                self._wait(_READ)
                waited = True
                continue
            if not chunk:
                raise self.why_cut or ConnectionDropped("closed by the server")
            waited = False
            self.received_at = clock()
            unread += chunk
        taken = bytes(unread[:length])
        del unread[:length]
        return taken

    def cut(self, why: Exception) -> None:
        """End both directions: who reads gets *why* raised."""
        self.why_cut = self.why_cut or why
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Watch the socket no more."""
        self._unsent = b""
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()

    def _go_on(self) -> None:
        self._watcher(_WRITE).stop()
        self._check()
        self.push(self._unsent)
        if not self._unsent:
            self._on_room()

    def _send(self, data: bytes) -> int:
        try:
            return int(self._socket.send(data))
        except _LATER:
            return 0

    def _wait(self, events: int) -> None:
        self._hub.wait(self._watcher(events))
        self._check()

    def _watcher(self, events: int) -> Any:
        watcher = self._watchers.get(events)
        if watcher is None:
            watcher = self._hub.loop.io(self._socket.fileno(), events)
            self._watchers[events] = watcher
        return watcher


def connect(
    address: tuple[str, int], timeout: float | None = None, use_ssl: bool = False, **options: Any
) -> Any:
    """A connected socket, within *timeout* seconds; the arguments are those of kazoo's handlers.

    kazoo's own stops the hub of an unpatched process for the handshake, and leaves sockets open.
    """
    with gevent.Timeout(timeout, KazooTimeoutError("not connected in time")):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock: Any = gevent.socket.socket(family)
        try:
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if use_ssl:
                hostname = options.pop("hostname", None)
                sock = _context(**options).wrap_socket(
                    sock, server_hostname=hostname, do_handshake_on_connect=False
                )
                sock.do_handshake()  # here, where a kill finds the socket to close
            return sock
        except BaseException:
            sock.close()
            raise


def _context(
    *,
    ca: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    keyfile_password: str | None = None,
    verify_certs: bool = True,
    check_hostname: bool = False,
) -> Any:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    context.verify_mode = ssl.CERT_REQUIRED if verify_certs else ssl.CERT_NONE
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if ca:
        context.load_verify_locations(ca)
    if certfile and keyfile:
        context.load_cert_chain(certfile, keyfile, keyfile_password)
    return context
