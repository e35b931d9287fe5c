"""Frames of ZooKeeper's protocol and what kind of request each is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["CONNECT_XID", "OPERATIONS", "Frames", "kind_of", "xid_of"]

CONNECT_XID: Final = -(1 << 31)  # our name for the first frame each way, which has none
_HEADER: Final = struct.Struct(">ii")
_LARGEST: Final = 64 << 20  # a length above it is no length but a four letter word

_KINDS: Final = {
    -11: "close",
    1: "create",
    2: "delete",
    3: "exists",
    4: "get",
    5: "set",
    6: "get_acls",
    7: "set_acls",
    8: "get_children",
    9: "sync",
    11: "ping",
    12: "get_children",
    13: "check",
    14: "multi",
    15: "create",  # create2, which returns the Stat too
    16: "reconfig",
    17: "check_watches",
    18: "remove_watches",
    19: "create",  # of a container
    21: "create",  # with a time to live
    22: "multi_read",
    100: "auth",
    101: "set_watches",
    102: "sasl",
    103: "get_ephemerals",
    104: "get_all_children_number",
    105: "set_watches",
    106: "add_watch",
    107: "who_am_i",
}
OPERATIONS: Final = frozenset({"connect", *_KINDS.values()})


def xid_of(frame: bytes) -> int:
    """Pairs a request with its answer."""
    xid: int = _HEADER.unpack_from(frame, 4)[0]
    return xid


def kind_of(frame: bytes) -> str:
    """The name of a request, but of the first of a connection."""
    number: int = _HEADER.unpack_from(frame, 4)[1]
    return _KINDS.get(number, str(number))


class Frames:
    """Cuts one direction of a connection into frames, each with its length in front."""

    def __init__(self) -> None:
        self.plain = False
        """Set when these are no frames: somebody asks with a four letter word."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= 4 and not self.plain:
            length = int.from_bytes(self._buffer[:4])
            if length > _LARGEST:
                self.plain = True
            elif len(self._buffer) < 4 + length:
                return
            else:
                frame = bytes(self._buffer[: 4 + length])
                del self._buffer[: 4 + length]
                yield frame

    def rest(self) -> bytes:
        """What is no frame, or not yet."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
