"""Connections whose every wait ends with the deadline of the call they work for.

A timeout of a socket starts anew with each byte, so a peer that drips holds `timeout=1` for ever
(psf/requests#1928). Here each single wait, for a part of a header as well, gets what is left.
The hooks are those meant for it: `http.client.HTTPConnection.response_class`, `connect()` and
`send()`, `urllib3.HTTPConnectionPool.ConnectionCls` and `QueueCls`,
`PoolManager.pool_classes_by_scheme`.

Not bounded: the resolver of names, which no timeout reaches.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import socket
import ssl
import threading
from typing import Any

import urllib3.connection
import urllib3.connectionpool
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family
from urllib3.util.wait import wait_for_socket

from ._call import Call, Stage, current_call

__all__ = ["POOLS"]

_PIECE = 256 << 10  # bytes of one send: each is progress, and gets the timeout anew


class _Reader(io.RawIOBase):
    """The bytes of one reply. Each read waits for what the call leaves at that moment."""

    def __init__(self, sock: socket.socket, call: Call) -> None:
        self._sock = sock
        self._call = call
        # Of the socket's own kind: it keeps the socket open when the connection lets go of it.
        self._raw: Any = sock.makefile("rb", buffering=0)
        self._read = self._read_tls if isinstance(sock, ssl.SSLSocket) else self._read_plain

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        call = self._call
        try:
            count = self._read(buffer)
        except TimeoutError:
            call.timed_out()
            raise
        if count:
            call.stage = Stage.REPLIED
        return count

    def _read_plain(self, buffer: Any) -> int | None:
        call = self._call
        limit = call.limit(call.read_timeout)
        if call.clipped:  # else it is what urllib3 has set
            self._sock.settimeout(limit)
        count: int | None = self._raw.readinto(buffer)
        return count

    def _read_tls(self, buffer: Any) -> int | None:
        # One read may take several of the socket's, to complete a record, and gevent gives the
        # whole timeout to each. So the waits are ours.
        call = self._call
        self._sock.settimeout(0.0)
        while True:
            try:
                count: int | None = self._raw.readinto(buffer)
                return count
            except ssl.SSLWantReadError:
                wanted = {"read": True}
            except ssl.SSLWantWriteError:
                wanted = {"write": True}
            if not wait_for_socket(self._sock, timeout=call.limit(call.read_timeout), **wanted):
                raise TimeoutError("The read operation timed out")

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._raw.close()


class _Files:
    """A socket as far as `http.client.HTTPResponse` uses it."""

    def __init__(self, sock: socket.socket, call: Call) -> None:
        self._sock = sock
        self._call = call

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._call))


class _Reply(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        call = current_call.get()
        files: Any = sock if call is None else _Files(sock, call)
        super().__init__(files, debuglevel, method, url)


class Connection(urllib3.connection.HTTPConnection):
    response_class = _Reply

    @property
    def is_connected(self) -> bool:
        """Whether it is open and nothing waits to be read: the end, or a late answer.

        urllib3 asks select.poll, where gevent switches greenlets: one that is cancelled there
        loses the connection, which is in nobody's hands at that moment.
        """
        if not isinstance(self.sock, socket.socket):
            return super().is_connected
        self.sock.settimeout(0.0)
        try:
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)  # beneath TLS
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _new_conn(self) -> socket.socket:
        call = current_call.get()
        if call is None:
            return super()._new_conn()
        try:
            return self._connected(call)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            call.timed_out()
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        except OSError as error:
            sentence = f"Failed to establish a new connection: {error}"
            raise NewConnectionError(self, sentence) from error

    def _connected(self, call: Call) -> socket.socket:
        # urllib3 gives the whole timeout to each of a host's addresses, and a greenlet that is
        # cancelled here would leave it a socket.
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._addresses():
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(call.limit(self.timeout))
                if self.source_address:
                    sock.bind(self.source_address)
                sock.connect(address)
                sock.settimeout(call.limit(self.timeout))  # for the handshake that may follow
            except BaseException as error:
                sock.close()
                if call.expired or not isinstance(error, OSError):
                    raise
                failure = error
            else:
                return sock
        try:
            raise failure or OSError("getaddrinfo returns an empty list")
        finally:
            failure = None  # else the error and its traceback hold each other

    def _addresses(self) -> Any:
        host = self._dns_host.strip("[]")
        try:
            host.encode("idna")
        except UnicodeError:
            raise LocationParseError(f"'{host}', label empty or too long") from None
        return socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)

    def send(self, data: Any) -> None:
        call = current_call.get()
        if call is None:
            super().send(data)
            return
        if self.sock is None:
            self.connect()
        call.stage = Stage.SENT
        try:
            # A whole body in one sendall() would get one timeout, and urllib3 gives it that of
            # connecting: uploads of more than three seconds would fail.
            for start in range(0, len(data), _PIECE):
                self.sock.settimeout(call.limit(call.read_timeout))
                super().send(data[start : start + _PIECE] if len(data) > _PIECE else data)
        except TimeoutError:
            call.timed_out()
            raise


class TlsConnection(Connection, urllib3.connection.HTTPSConnection):
    _hang_up: _HangUp | None = None

    def connect(self) -> None:
        try:
            urllib3.connection.HTTPSConnection.connect(self)
        finally:
            if self._hang_up is not None:
                self._hang_up.cancel()
                self._hang_up = None

    def _connected(self, call: Call) -> socket.socket:
        sock = super()._connected(call)
        left = call.limit(None)
        if left is not None:
            self._hang_up = _HangUp(sock, call, left)
        return sock


class _HangUp:
    """Shuts a socket down at the deadline: gevent gives each step of a handshake its timeout."""

    def __init__(self, sock: socket.socket, call: Call, seconds: float) -> None:
        self._sock = sock.dup()  # the same connection, when TLS has taken the first one over
        self._call = call
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self._call.expired = True
        with contextlib.suppress(OSError):  # it has ended by itself, or is cancelled just now
            self._sock.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        self._timer.cancel()
        self._sock.close()


class _Idle:
    """The idle connections of a pool, the last one first, without a lock.

    A stream that was dropped gives its connection back when it is garbage: perhaps in the middle of
    a `get()` of the same thread, which would wait for itself at the lock of a queue. The pools here
    never wait for a connection, so nothing else of a queue is wanted.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: list[Any] = []

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = False, timeout: float | None = None) -> None:
        if len(self._items) >= self._maxsize:
            raise queue.Full
        self._items.append(item)

    def qsize(self) -> int:
        return len(self._items)


class Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = Connection
    QueueCls: Any = _Idle


class TlsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = TlsConnection
    QueueCls: Any = _Idle


POOLS = {"http": Pool, "https": TlsPool}
"""For `PoolManager.pool_classes_by_scheme`."""
