"""Services that thriftpy2 has read from IDL, compiled: what a call can know beforehand, it knows.

Binary is done by thriftpy2's codec in Cython, which reads from and writes to memory of its own;
compact, and binary where Cython is missing, by its pure one.

Not bounded: the time of thriftpy2's codecs for a container to be skipped whose items have no bytes,
as only a hostile server sends it: 2.7 s for 2 ** 31 of them in Cython. `_BoundedCompact` is.

Sharing: any thread or greenlet. An encoder or decoder serves one call at a time and is kept for the
next; a list is the pool of them.
"""

from __future__ import annotations

try:
    import thriftpy2  # noqa: F401
except ModuleNotFoundError as e:
    raise ImportError(
        "services of thriftpy2 need thriftpy2: pip install 'sepelib-rpc[thrift]'"
    ) from e

from collections.abc import Callable
from typing import Any, TypeAlias

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.protocol.compact import TCompactProtocol
from thriftpy2.thrift import TApplicationException

from sepelib.rpc._codec import (
    PIECE,
    Heads,
    Method,
    WireProtocol,
    app_exception,
    heads,
    is_exception,
    outcome_of,
    without_connection,
)
from sepelib.rpc._connection import Connection, ReplyRefused

try:
    # Only in CPython's wheels of thriftpy2; it decides for itself by the same import.
    from thriftpy2.protocol.cybin import TCyBinaryProtocol  # type: ignore[attr-defined]
    from thriftpy2.transport.buffered import TCyBufferedTransport  # type: ignore[attr-defined]
    from thriftpy2.transport.memory import TCyMemoryBuffer  # type: ignore[attr-defined]
except ImportError:
    HAS_CYTHON = False
else:
    HAS_CYTHON = True

__all__ = ["HAS_CYTHON", "Thriftpy2Codec"]

_KEPT_BYTES = 64 << 10  # of memory that an encoder or decoder may keep for the next call
_VOID = b"\x00"  # an empty struct, in both protocols
EncodeStruct: TypeAlias = Callable[[Any], bytes]


class Thriftpy2Codec:
    """*service* in *protocol*. *cython*: False for the pure codec."""

    def __init__(
        self, service: Any, protocol: WireProtocol, max_message: int, *, cython: bool = HAS_CYTHON
    ) -> None:
        self.service_name = str(service.__name__)
        self.method_names = frozenset(service.thrift_services)
        self._service = service
        self._protocol: WireProtocol = protocol
        self._max_message = max_message
        self._cython = cython and protocol == "binary"
        self._cython_encoder = _cython_encoder()
        self._decoders: list[_CythonDecoder | _PureDecoder] = []

    def method(self, name: str) -> Method:
        arguments = getattr(self._service, f"{name}_args")
        result = getattr(self._service, f"{name}_result")
        head = heads(name, result.oneway, self._protocol)
        return Method(
            name, result.oneway, self._encode(name, arguments, head), self._decode(name, result)
        )

    def _encode(self, name: str, arguments: Any, head: Heads) -> Any:
        fields = [field[1] for field in arguments.thrift_spec.values()]
        required = [field[1] for field in arguments.thrift_spec.values() if field[-1]]
        to_bytes = self._struct_encoder()

        def made(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                struct = arguments(*args, **kwargs)
            except TypeError:
                raise TypeError(f"{name}() takes ({', '.join(fields)})") from None
            for field in required:
                if getattr(struct, field) is None:
                    raise TypeError(f"{name}() misses the argument {field!r}, which is required")
            return struct

        def encode(
            seqid: int, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[bytes, bytes]:
            call, reply = head(seqid)
            return call + to_bytes(made(args, kwargs)), reply

        def encode_empty(
            seqid: int, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[bytes, bytes]:
            if args or kwargs:
                raise TypeError(f"{name}() takes no arguments")
            call, reply = head(seqid)
            return call + _VOID, reply

        return encode if fields else encode_empty

    def _struct_encoder(self) -> EncodeStruct:
        if self._cython:
            return self._cython_encoder
        return _pure_encoder(_PURE[self._protocol])

    def _decode(self, name: str, result: Any) -> Any:
        spare = self._decoders
        outcome = _outcome(name, result)
        is_void = not result.thrift_spec
        new_decoder = self._decoder

        def decode(connection: Connection, beginning: bytes, call: int) -> Any:
            data = connection.receive(PIECE)
            if is_void and data == beginning + _VOID:
                return None
            try:
                decoder = spare.pop()
            except IndexError:
                decoder = new_decoder()
            # One that fails is in the middle of something, and is not used again.
            if data.startswith(beginning):
                decoder.begin(connection, data[len(beginning) :])
                struct = result()
                decoder.read_struct(struct)
                value = outcome(struct)
            else:
                decoder.begin(connection, data)
                if is_exception(name, call, *decoder.read_head()):
                    error = TApplicationException()
                    decoder.read_struct(error)
                    value = app_exception(error)
                else:
                    struct = result()
                    decoder.read_struct(struct)
                    value = outcome(struct)
            if decoder.is_empty():
                if not decoder.is_large:
                    spare.append(decoder)
                return value
            return without_connection(value)

        return decode

    def _decoder(self) -> _CythonDecoder | _PureDecoder:
        if self._cython:
            return _CythonDecoder(self._max_message)
        return _PureDecoder(_PURE[self._protocol], self._max_message)


def _outcome(name: str, result: Any) -> Callable[[Any], Any]:
    fields = [field[1] for field in result.thrift_spec.values()]
    kind = TApplicationException.MISSING_RESULT
    return outcome_of(fields, lambda: TApplicationException(kind, f"{name}: no result"))


def _too_long(max_message: int) -> ReplyRefused:
    return ReplyRefused(f"a length in the reply is not within max_message={max_message} bytes")


# Cython. Its transports read wrongly from memory that is too short (TCyMemoryBuffer leaves what was
# on the stack), so replies go through a buffered one, which asks us for more.


def _cython_encoder() -> EncodeStruct:
    spare: list[tuple[Any, Callable[[Any], None]]] = []

    def to_bytes(struct: Any) -> bytes:
        try:
            encoder = spare.pop()
        except IndexError:
            memory = TCyMemoryBuffer()
            encoder = memory, TCyBinaryProtocol(memory).write_struct
        memory, write_struct = encoder
        write_struct(struct)
        data: bytes = memory.getvalue()
        if len(data) <= _KEPT_BYTES:
            memory.clean()
            spare.append(encoder)
        return data

    return to_bytes


class _CythonDecoder:
    __slots__ = (
        "_buffer",
        "_connection",
        "_data",
        "_max_message",
        "_most",
        "is_large",
        "read_head",
        "read_struct",
    )

    def __init__(self, max_message: int) -> None:
        self._data = b""
        self._connection: Connection | None = None
        self._max_message = max_message
        self.is_large = False  # its buffer, which never shrinks
        # The buffer grows to hold one string, at most to double of what it was before. One that
        # grows beyond this holds a string that no message can have.
        self._most = 2 * (max_message + PIECE)
        self._buffer = TCyBufferedTransport(self, PIECE)
        protocol = TCyBinaryProtocol(self._buffer)
        self.read_struct: Callable[[Any], object] = protocol.read_struct
        self.read_head: Callable[[], tuple[object, int, int]] = protocol.read_message_begin

    def begin(self, connection: Connection, data: bytes) -> None:
        self._connection = connection
        self._data = data

    def read(self, size: int) -> bytes:
        """For the buffer, which overflows when it is given more than it asks for."""
        data = self._data
        if data:
            self._data = data[size:]
            return data[:size]
        self.is_large |= size > _KEPT_BYTES
        if size > self._most:
            raise _too_long(self._max_message)
        assert self._connection is not None
        return self._connection.receive(size)

    def is_empty(self) -> bool:
        """Nothing of the reply is left, here or in the buffer, which does not tell."""
        self._connection = None
        if self._data:
            return False
        self._data = b"?"
        self._buffer.read(1)
        return not self._data  # only an empty buffer has asked for it


# Pure.


class _BoundedCompact(TCompactProtocol):
    """thriftpy2 loops as often as a container claims, even if its items have no bytes."""

    def __init__(self, source: Any) -> None:
        super().__init__(source)  # type: ignore[no-untyped-call]
        self._source = source

    def _read_collection_begin(self) -> Any:
        kind, size = super()._read_collection_begin()  # type: ignore[no-untyped-call]
        self._source.check_items(size, kind)
        return kind, size

    def _read_map_begin(self) -> Any:
        key, value, size = super()._read_map_begin()  # type: ignore[no-untyped-call]
        self._source.check_items(size, key)
        return key, value, size


_PURE: dict[WireProtocol, Any] = {"binary": TBinaryProtocol, "compact": _BoundedCompact}


class _Sink:
    __slots__ = ("data", "write")

    def __init__(self) -> None:
        self.data = bytearray()
        self.write = self.data.extend


def _pure_encoder(protocol: Any) -> EncodeStruct:
    def to_bytes(struct: Any) -> bytes:
        sink = _Sink()
        protocol(sink).write_struct(struct)
        return bytes(sink.data)

    return to_bytes


class _PureDecoder:
    """Reads from one piece of bytes after the other. Also the transport of its protocol."""

    __slots__ = ("_connection", "_data", "_max_message", "_place", "read_head", "read_struct")
    is_large = False

    def __init__(self, protocol: Any, max_message: int) -> None:
        self._max_message = max_message
        made = protocol(self)
        self.read_struct: Callable[[Any], object] = made.read_struct
        self.read_head: Callable[[], tuple[object, int, int]] = made.read_message_begin
        self._connection: Connection | None = None
        self._data = b""
        self._place = 0

    def begin(self, connection: Connection, data: bytes) -> None:
        self._connection = connection
        self._data = data
        self._place = 0

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        end = self._place + size
        if end > len(self._data):
            self._fill(size)
            end = size
        elif size < 0:
            raise _too_long(self._max_message)
        data = self._data[self._place : end]
        self._place = end
        return data

    def check_items(self, count: int, kind: int) -> None:
        if not 0 <= count <= self._max_message or (count and not kind):
            raise _too_long(self._max_message)

    def is_empty(self) -> bool:
        is_empty = self._place == len(self._data)
        self._connection, self._data = None, b""
        return is_empty

    def _fill(self, size: int) -> None:
        assert self._connection is not None
        if size > self._max_message:
            raise _too_long(self._max_message)
        pieces = [self._data[self._place :]]
        missing = size - len(pieces[0])
        while missing > 0:
            pieces.append(self._connection.receive(max(missing, PIECE)))
            missing -= len(pieces[-1])
        self._data = b"".join(pieces)
        self._place = 0
