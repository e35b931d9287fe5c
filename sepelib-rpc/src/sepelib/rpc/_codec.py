"""The seam between a call and the library that knows the service.

    codec_for(service, protocol) ──► Codec ──method(name)──► Method: encode, decode

The library is found from the service that the caller hands in, and imported only then.
Both codecs write the head of a message themselves, since they know its bytes beforehand, and so
compare version, kind, method and sequence number of a reply at once with what they must be.
Source: thrift-binary-protocol.md and thrift-compact-protocol.md of Apache Thrift, "Message".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Any, Literal, Protocol, TypeAlias

from sepelib.rpc._connection import Connection

__all__ = [
    "PIECE",
    "Codec",
    "Ending",
    "Heads",
    "Method",
    "Mismatch",
    "WireProtocol",
    "app_exception",
    "codec_for",
    "heads",
    "is_exception",
    "outcome_of",
    "without_connection",
]

WireProtocol: TypeAlias = Literal["binary", "compact"]
EndingKind: TypeAlias = Literal["ok", "idl_exception", "app_exception"]

CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4
PIECE = 16 << 10
"""Bytes that are asked for at once; most replies come as a whole then."""

_KEPT_APART = frozenset({0, 1, 5, 6})
"""The kinds of TApplicationException that tell of the method (unknown, unknown method, missing
result, internal error), not of a connection that is out of step."""

_SEQID = struct.Struct(">i").pack


class Mismatch(Exception):
    """The reply belongs to another call, or is of a kind that no reply is. Takes one sentence."""


class Ending:
    """A whole reply that is more than its value: an exception of the peer, or bytes behind it."""

    __slots__ = ("error", "keep", "kind", "value")

    def __init__(
        self,
        value: Any = None,
        *,
        error: Exception | None = None,
        kind: EndingKind = "ok",
        keep: bool = True,
    ) -> None:
        self.value = value
        self.error = error
        self.kind: EndingKind = kind
        self.keep = keep


Encode: TypeAlias = Callable[[int, tuple[Any, ...], dict[str, Any]], tuple[bytes, bytes]]
Decode: TypeAlias = Callable[[Connection, bytes, int], Any]


class Method:
    """One method, compiled.

    `encode(seqid, args, kwargs)` is the message to send, and how a good reply to it begins. Raises
    what the library does for values that do not fit, and TypeError for arguments that do not.
    `decode(connection, beginning, seqid)` reads the reply; it is the value returned, or an Ending.
    OSError and ReplyRefused of the connection pass, Mismatch is raised, and of what the library
    raises any Exception.
    """

    __slots__ = ("decode", "encode", "name", "oneway")

    def __init__(self, name: str, oneway: bool, encode: Encode, decode: Decode) -> None:
        self.name = name
        self.oneway = oneway
        self.encode = encode
        self.decode = decode


class Codec(Protocol):
    """One service in one protocol, for any number of threads and greenlets."""

    service_name: str
    method_names: frozenset[str]

    def method(self, name: str) -> Method:
        """Compiled, anew each time: keep it. *name* is one of `method_names`."""
        ...


Heads: TypeAlias = Callable[[int], tuple[bytes, bytes]]


def heads(name: str, oneway: bool, protocol: WireProtocol) -> Heads:
    """A function from a sequence number to how the call begins, and how its reply has to."""
    encoded = name.encode()
    kind = ONEWAY if oneway else CALL
    if protocol == "binary":
        tail = struct.pack(">i", len(encoded)) + encoded
        call = bytes([0x80, 1, 0, kind]) + tail
        reply = bytes([0x80, 1, 0, REPLY]) + tail

        def binary(seqid: int) -> tuple[bytes, bytes]:
            number = _SEQID(seqid)
            return call + number, reply + number

        return binary
    tail = _varint(len(encoded)) + encoded
    call = bytes([0x82, 1 | kind << 5])
    reply = bytes([0x82, 1 | REPLY << 5])

    def compact(seqid: int) -> tuple[bytes, bytes]:
        rest = _varint(seqid) + tail
        return call + rest, reply + rest

    return compact


def is_exception(method: str, call: int, name: object, kind: int, seqid: int) -> bool:
    """Whether a message with this head tells of a failure; Mismatch if it is no answer to *call*.

    For the replies that do not begin as expected.
    """
    if seqid != call or name != method:
        raise Mismatch("the reply of another call has come (seqid or method differs)")
    if kind not in (REPLY, EXCEPTION):
        raise Mismatch(f"a message of the kind {kind}, which is no reply, has come")
    return kind == EXCEPTION


def app_exception(error: Any) -> Ending:
    return Ending(error=error, kind="app_exception", keep=error.type in _KEPT_APART)


def outcome_of(fields: Collection[str], missing: Callable[[], Exception]) -> Callable[[Any], Any]:
    """A function from the struct of a result, which has *fields*, to the value, or the Ending.

    *missing* makes the error of a method that has a value to return, and did not.
    """
    errors = tuple(field for field in fields if field != "success")
    has_value = "success" in fields

    def outcome(struct: Any) -> Any:
        if has_value:
            value = struct.success
            if value is not None:
                return value
        for field in errors:
            error = getattr(struct, field)
            if error is not None:
                return Ending(error=error, kind="idl_exception")
        if not has_value:
            return None
        return app_exception(missing())

    return outcome


def without_connection(value: Any) -> Ending:
    """*value*, perhaps an Ending, of a reply that has bytes behind it."""
    ending = value if isinstance(value, Ending) else Ending(value)
    ending.keep = False
    return ending


def codec_for(service: Any, protocol: WireProtocol, max_message: int) -> Codec:
    """TypeError when *service* is of neither library."""
    if protocol not in ("binary", "compact"):
        raise ValueError(f"protocol= is 'binary' or 'compact', not {protocol!r}")
    if hasattr(service, "thrift_services"):
        from sepelib.rpc._codec_thriftpy2 import Thriftpy2Codec

        return Thriftpy2Codec(service, protocol, max_message)
    client = getattr(service, "Client", service)
    if isinstance(client, type) and any(name.startswith("send_") for name in dir(client)):
        from sepelib.rpc._codec_apache import ApacheCodec

        return ApacheCodec(client, protocol, max_message)
    raise TypeError(
        f"{service!r} is neither a service of thriftpy2 nor a module, or its Client, made by "
        "Apache's compiler"
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
