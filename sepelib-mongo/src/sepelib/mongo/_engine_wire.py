"""One command to a server over a plain socket: no client, no threads, nothing left behind."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import bson

__all__ = ["command"]

_OP_MSG = 2013
_HEADER = struct.Struct("<iiii")  # length, request id, response to, opcode


def command(port: int, document: dict[str, Any], *, timeout: float = 2.0) -> dict[str, Any]:
    """The answer to *document*, with its `ok` as it is. OSError when there is none in time.

    https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md
    """
    body = struct.pack("<iB", 0, 0) + bson.encode({**document, "$db": "admin"})
    message = _HEADER.pack(_HEADER.size + len(body), 1, 0, _OP_MSG) + body
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout)) as peer:
        peer.sendall(message)
        length, _, _, opcode = _HEADER.unpack(_read(peer, _HEADER.size))
        answer = _read(peer, length - _HEADER.size)
    if opcode != _OP_MSG:
        raise ConnectionError(f"port {port} does not speak OP_MSG: its opcode is {opcode}")
    return bson.decode(answer[5:])


def _read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise ConnectionError("the server hung up")
        data += more
    return data
