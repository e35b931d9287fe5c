"""How messages lie on a wire: one after the other (buffered), or each in a frame.

Source: TBufferedTransport and TFramedTransport of Apache Thrift: a frame is its length as a signed
big-endian 32-bit number, then the message.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sepelib.rpc._connection import Connect, Connection, PeerClosed, ReplyRefused
from sepelib.rpc._wire import Address, Wire, open_wire

if TYPE_CHECKING:
    import ssl

__all__ = ["BufferedConnection", "FramedConnection", "connector"]

_LENGTH = struct.Struct(">i")


class BufferedConnection(Connection):
    """Nothing says where a reply ends but the reply itself."""

    __slots__ = ("_end", "_left", "_max_message", "_wire")

    def __init__(self, wire: Wire, max_message: int) -> None:
        self._wire = wire
        self._max_message = max_message

    def send(self, message: bytes, end: float) -> None:
        self.replied = False
        self._left = self._max_message
        self._end = end
        self._wire.send(message, end)

    def receive(self, size: int) -> bytes:
        left = self._left
        if size > left:
            if left <= 0:
                raise ReplyRefused(
                    f"the reply is larger than max_message={self._max_message} bytes"
                )
            size = left
        data = self._wire.receive(size, self._end)
        if not data:
            raise PeerClosed("the peer has closed the connection")
        self.replied = True
        self._left = left - len(data)
        return data

    def is_at_end(self) -> bool:
        return True

    def is_fresh(self) -> bool:
        return self._wire.is_fresh()

    def close(self) -> None:
        self._wire.close()


class FramedConnection(BufferedConnection):
    """A reply is as long as its frame says, before it is read."""

    __slots__ = ("_ahead", "_in_frame")

    def send(self, message: bytes, end: float) -> None:
        self._in_frame = -1
        self._ahead = b""
        super().send(_LENGTH.pack(len(message)) + message, end)

    def receive(self, size: int) -> bytes:
        if self._in_frame < 0:
            self._begin_frame()
        left = self._in_frame
        if not left:
            raise ReplyRefused("the frame ends inside the reply")
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            self._left = left
            data = super().receive(min(size, left))
        self._in_frame = left - len(data)
        return data

    def is_at_end(self) -> bool:
        return self._in_frame <= 0  # below: of a oneway call, no frame was begun

    def _begin_frame(self) -> None:
        # One read brings most replies whole; more than this frame would be bytes of nobody.
        self._left = self._max_message + _LENGTH.size
        data = super().receive(4096)
        while len(data) < _LENGTH.size:
            data += super().receive(_LENGTH.size - len(data))
        (length,) = _LENGTH.unpack_from(data)
        if not 0 < length <= self._max_message:
            raise ReplyRefused(
                f"a frame of {length} bytes; max_message={self._max_message}, and perhaps the "
                "server does not frame its messages"
            )
        if len(data) - _LENGTH.size > length:
            raise ReplyRefused("more bytes than the frame has")
        self._in_frame = length
        self._ahead = data[_LENGTH.size :]


def connector(
    *, framed: bool, max_message: int, ssl_context: ssl.SSLContext | None
) -> Connect[Address]:
    """Connects to addresses."""
    make = FramedConnection if framed else BufferedConnection

    def connect(address: Address, end: float) -> Connection:
        return make(open_wire(address, end, ssl_context), max_message)

    return connect
