"""As much of ZooKeeper's protocol as a test needs beside a client."""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

__all__ = ["Reply", "Wire", "ask", "close_session", "create_node", "parse_mntr", "string"]

_CREATE: Final = 1
_CLOSE: Final = -11
_CONNECT: Final = struct.Struct(">iqiqi")  # protocol, zxid seen, timeout, session, len(password)
_CONNECTED: Final = struct.Struct(">iiqi")  # protocol, timeout, session, len(password)
_REQUEST: Final = struct.Struct(">ii")  # xid, type
_REPLY: Final = struct.Struct(">iqi")  # xid, zxid, error
_TIMEOUT: Final = 10_000  # milliseconds, of the sessions made here
_OPEN_ACL: Final = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")


def ask(address: tuple[str, int], word: str, *, timeout: float) -> str:
    """What the server says to a four letter word, such as `srvr`."""
    with socket.create_connection(address, timeout) as connection:
        connection.sendall(word.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


def parse_mntr(text: str) -> dict[str, str | int]:
    """Each line of `mntr` is a name, a tab and a value; whole numbers become int."""
    numbers: dict[str, str | int] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            try:
                numbers[name] = int(value)
            except ValueError:
                numbers[name] = value
    return numbers


def close_session(
    address: tuple[str, int], session_id: int, password: bytes, *, timeout: float
) -> None:
    """Take the session over by a second connection and close it: its ephemerals are gone then.

    The answer to closeSession comes when the server has applied the transaction. LookupError when
    the server knows no such session.
    """
    until = time.monotonic() + timeout
    sent = False
    while True:
        try:
            with Wire(address, timeout) as wire:
                if wire.connect(session_id, password)[0]:
                    sent = True
                    wire.request(_CLOSE)
                elif not sent:
                    raise LookupError(
                        f"no session {session_id:#x} with this password at port {address[1]}"
                    )
                return
        except (OSError, EOFError):
            # Its client is alive, and may have taken it back between the two requests.
            if not sent or time.monotonic() >= until:
                raise


def create_node(address: tuple[str, int], path: str, *, timeout: float) -> None:
    """Create a persistent, empty node for everyone, by a session of its own."""
    with Wire(address, timeout) as wire:
        wire.connect()
        wire.create(path)
        wire.request(_CLOSE)


class Reply(NamedTuple):
    xid: int
    error: int
    body: bytes


class Wire:
    """One connection, frame by frame."""

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self._socket = socket.create_connection(address, timeout)
        self._xid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def connect(self, session_id: int = 0, password: bytes = bytes(16)) -> tuple[int, bytes]:
        """Session and password, of a new one unless told which; 0 when there is no such one."""
        if session_id >= 1 << 63:
            session_id -= 1 << 64
        hello = _CONNECT.pack(0, 0, _TIMEOUT, session_id, len(password)) + password + b"\0"
        self.send(hello)
        answer = self.receive()
        _, _, session_id, length = _CONNECTED.unpack_from(answer)
        return session_id, answer[_CONNECTED.size : _CONNECTED.size + length]

    def create(self, path: str, kind: int = _CREATE, flags: int = 0, *, more: bytes = b"") -> None:
        self.request(kind, string(path) + string("") + _OPEN_ACL + struct.pack(">i", flags) + more)

    def request(self, kind: int, body: bytes = b"") -> Reply:
        """Send, and wait for the next frame. OSError when ZooKeeper reports an error."""
        self._xid += 1
        self.send(_REQUEST.pack(self._xid, kind) + body)
        reply = self.reply()
        if reply.error:
            raise OSError(f"request {kind}: error {reply.error} of ZooKeeper")
        return reply

    def send(self, *frames: bytes) -> None:
        """All in one piece."""
        self._socket.sendall(b"".join(struct.pack(">i", len(frame)) + frame for frame in frames))

    def reply(self) -> Reply:
        frame = self.receive()
        xid, _, error = _REPLY.unpack_from(frame)
        return Reply(xid, error, frame[_REPLY.size :])

    def receive(self) -> bytes:
        """The next frame. EOFError at the end, ConnectionError in the middle of one."""
        (length,) = struct.unpack(">i", self._exactly(4, "before the next frame", EOFError))
        return self._exactly(length, "in the middle of a frame", ConnectionError)

    def _exactly(self, count: int, where: str, error: type[Exception]) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise (ConnectionError if data else error)(f"the server has hung up {where}")
            data += chunk
        return data


def string(text: str) -> bytes:
    return struct.pack(">i", len(text.encode())) + text.encode()
