"""Replies as no server should give them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ._thrift_dialects import Header, WireFormat

__all__ = ["Rogue", "rogue_message"]

Rogue: TypeAlias = Literal["string", "list", "set", "map", "depth"]

REPLY = 2
_STRING, _STRUCT, _MAP, _SET, _LIST = 11, 12, 13, 14, 15
_CONTAINERS = {"list": _LIST, "set": _SET}
_SMALL = 1000  # bytes that do follow a claim of gigabytes
# Compact's own numbers for the same types.
_COMPACT = {_STRING: 8, _LIST: 9, _SET: 10, _MAP: 11, _STRUCT: 12}


def rogue_message(wire_format: WireFormat, header: Header, rogue: Rogue, claim: int) -> bytes:
    """A reply whose result claims to have *claim* bytes, items or levels, then goes on a bit."""
    if wire_format == "binary":
        return _binary_begin(header) + _binary_result(rogue, claim)
    return _compact_begin(header) + _compact_result(rogue, claim)


def _binary_begin(header: Header) -> bytes:
    name = header.name.encode()
    version = 0x80010000 | header.kind
    return _u32(version) + _u32(len(name)) + name + _u32(header.seqid & 0xFFFFFFFF)


def _binary_result(rogue: Rogue, claim: int) -> bytes:
    if rogue == "depth":  # in a field that no result has, so that it has to be skipped
        return bytes([_STRUCT, 0, 99]) * claim + bytes(claim + 1)
    if rogue == "string":
        return bytes([_STRING, 0, 0]) + _u32(claim) + bytes(_SMALL)
    if rogue == "map":
        return bytes([_MAP, 0, 0, _STRING, _STRING]) + _u32(claim) + bytes(_SMALL)
    return bytes([_CONTAINERS[rogue], 0, 0, _STRING]) + _u32(claim) + bytes(_SMALL)


def _compact_begin(header: Header) -> bytes:
    name = header.name.encode()
    begin = bytes([0x82, 1 | header.kind << 5]) + _varint(header.seqid & 0xFFFFFFFF)
    return begin + _varint(len(name)) + name


def _compact_result(rogue: Rogue, claim: int) -> bytes:
    string = _COMPACT[_STRING]
    if rogue == "depth":
        return bytes([15 << 4 | _COMPACT[_STRUCT]]) * claim + bytes(claim + 1)
    if rogue == "string":
        return bytes([string, 0]) + _varint(claim) + bytes(_SMALL)
    if rogue == "map":
        types = bytes([string << 4 | string])
        return bytes([_COMPACT[_MAP], 0]) + _varint(claim) + types + bytes(_SMALL)
    begin = bytes([_COMPACT[_CONTAINERS[rogue]], 0, 0xF0 | string])
    return begin + _varint(claim) + bytes(_SMALL)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
