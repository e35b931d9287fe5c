"""A connection that talks in lines and ends each step in time: see `smtp`.

smtplib gives each recv() the whole timeout anew, so that a server which drips its answers holds
the client for hours; it asks the DNS for our own name first, and reads replies of any length.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sepelib.util.secrets import Secret

if TYPE_CHECKING:
    import ssl

__all__ = ["NotSmtp", "Reply", "Wire", "left_until"]

_T = TypeVar("_T")
_CHUNK = 64 << 10
_MAX_REPLY = 64 << 10  # bytes; 512 a line are the standard's limit, and a few lines are usual
_LONGEST_POLL = 3600.0  # the kernel counts milliseconds in 31 bits
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


class NotSmtp(ValueError):
    """What came is no SMTP reply."""


class Reply(NamedTuple):
    """A code, and the words after it; several lines of them are joined by a newline."""

    code: int
    text: bytes


class Wire:
    """One connection. OSErrors of the system come as they are; TimeoutError once *until* is over.

    *until* is a moment of `time.monotonic()`, None is no limit. Non-blocking underneath: a timeout
    of the socket would start anew at each chunk and, under gevent, at each TLS record.
    """

    def __init__(self, host: str, port: int, until: float | None) -> None:
        self.until = until
        self._host = host
        self._received = b""
        self._socket = _connect(host, port, until)

    @property
    def local_address(self) -> str:
        name: str = self._socket.getsockname()[0]
        return name

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on in TLS. NotSmtp when something came in clear behind the last reply."""
        if self._received:
            # It would pass for an answer from inside of TLS (CVE-2011-0411).
            raise NotSmtp("it sent more than its answer before TLS began")
        secured = context.wrap_socket(
            self._socket, server_hostname=self._host, do_handshake_on_connect=False
        )
        self._socket = secured
        self._in_time(secured.do_handshake, select.POLLIN)

    def send(self, data: bytes | Secret[bytes]) -> None:
        rest = memoryview(data.reveal() if isinstance(data, Secret) else data)
        while rest:
            sent = self._in_time(partial(self._socket.send, rest[:_CHUNK]), select.POLLOUT)
            if not sent:  # gevent's way to say that TLS has to wait
                self._wait(select.POLLOUT)
            rest = rest[sent:]

    def reply(self) -> Reply:
        """The next reply. EOFError at the end of the connection."""
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            found = _REPLY_LINE.fullmatch(line)
            if not found or size > _MAX_REPLY:
                raise NotSmtp(
                    f"it answered {line[:80]!r}" if not found else "its answer is endless"
                )
            lines.append(found[3] or b"")
            if found[2] != b"-":
                return Reply(int(found[1]), b"\n".join(lines))

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        while b"\n" not in self._received:
            if len(self._received) > _MAX_REPLY:
                raise NotSmtp(f"it answered {self._received[:80]!r}")
            data = self._in_time(partial(self._socket.recv, 4096), select.POLLIN)
            if not data:
                raise EOFError("the server closed the connection")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        return line.rstrip(b"\r")

    def _in_time(self, operation: Callable[[], _T], event: int) -> _T:
        while True:
            try:
                return operation()
            except BlockingIOError:
                self._wait(event)
            except OSError as e:
                # By name: the module `ssl` is not imported for a connection in clear.
                if type(e).__name__ == "SSLWantReadError":
                    self._wait(select.POLLIN)
                elif type(e).__name__ == "SSLWantWriteError":
                    self._wait(select.POLLOUT)
                else:
                    raise

    def _wait(self, event: int) -> None:
        poller = select.poll()
        poller.register(self._socket, event)
        ready: object = None
        while not ready:
            left = left_until(self.until)
            ready = poller.poll(int(1000 * min(_LONGEST_POLL, left)) + 1)


def left_until(until: float | None) -> float:
    """Seconds until the moment, infinite for None. TimeoutError once it is over."""
    left = float("inf") if until is None else until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _connect(host: str, port: int, until: float | None) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
        # A share for each address, or a first one that is dead would use up all the time.
        share = left_until(until) / (len(found) + 1 - number)
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(share, _LONGEST_POLL))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            return connection
        except BaseException as e:
            connection.close()
            if not isinstance(e, OSError) or number == len(found):
                raise
    raise OSError(f"no address of {host}")
