"""Services that Apache's compiler has generated, with the `thrift` package.

The generated classes write and read themselves, by the package's C extension where it is there.
Its lists are made as long as they claim to be before an item is read, so they are bounded here.

Sharing: any thread or greenlet. A sink or reader serves one call at a time and is kept for the
next; a list is the pool of them.
"""

from __future__ import annotations

try:
    import thrift  # type: ignore[import-untyped]  # noqa: F401
except ModuleNotFoundError as e:
    raise ImportError(
        "services made by Apache's compiler need thrift: pip install 'sepelib-rpc[apache-thrift]'"
    ) from e

import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

from thrift.protocol.TBinaryProtocol import (  # type: ignore[import-untyped]
    TBinaryProtocolAccelerated,
)
from thrift.protocol.TCompactProtocol import (  # type: ignore[import-untyped]
    TCompactProtocolAccelerated,
)
from thrift.protocol.TProtocol import TProtocolException  # type: ignore[import-untyped]
from thrift.Thrift import TApplicationException  # type: ignore[import-untyped]
from thrift.transport.TTransport import (  # type: ignore[import-untyped]
    CReadableTransport,
    TTransportBase,
    TTransportException,
)

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

__all__ = ["ApacheCodec"]

_PROTOCOLS: dict[WireProtocol, Any] = {
    "binary": TBinaryProtocolAccelerated,
    "compact": TCompactProtocolAccelerated,
}


class ApacheCodec:
    """*client* is the class `Client` of the generated module."""

    def __init__(self, client: Any, protocol: WireProtocol, max_message: int) -> None:
        self.service_name = str(client.__module__).rpartition(".")[2]
        self._homes = {
            name.removeprefix("send_"): sys.modules[base.__module__]
            for base in reversed(client.__mro__)
            for name in vars(base)
            if name.startswith("send_")
        }
        self.method_names = frozenset(self._homes)
        self._protocol: WireProtocol = protocol
        self._max_message = max_message
        self._encoders: list[tuple[_Sink, Any]] = []
        self._decoders: list[tuple[_Reader, Any]] = []

    def method(self, name: str) -> Method:
        home = self._homes[name]
        arguments = getattr(home, f"{name}_args")
        result = getattr(home, f"{name}_result", None)
        oneway = result is None
        head = heads(name, oneway, self._protocol)
        decode = _no_reply if oneway else self._decode(name, result)
        return Method(name, oneway, self._encode(name, arguments, head), decode)

    def _protocol_over(self, transport: Any) -> Any:
        return _PROTOCOLS[self._protocol](
            transport,
            string_length_limit=self._max_message,
            container_length_limit=self._max_message,
        )

    def _encode(self, name: str, arguments: Any, head: Heads) -> Any:
        fields = [field[2] for field in arguments.thrift_spec if field is not None]
        spare = self._encoders

        def encode(
            seqid: int, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[bytes, bytes]:
            try:
                struct = arguments(*args, **kwargs)
            except TypeError:
                takes = f"({', '.join(fields)})" if fields else "no arguments"
                raise TypeError(f"{name}() takes {takes}") from None
            try:
                encoder = spare.pop()
            except IndexError:
                sink = _Sink()
                encoder = sink, self._protocol_over(sink)
            sink, protocol = encoder
            struct.write(protocol)
            call, reply = head(seqid)
            message = b"".join((call, *sink.pieces))
            sink.pieces.clear()
            spare.append(encoder)
            return message, reply

        return encode

    def _decode(self, name: str, result: Any) -> Any:
        outcome = _outcome(name, result)
        spare = self._decoders
        max_message = self._max_message

        def decode(connection: Connection, beginning: bytes, call: int) -> Any:
            data = connection.receive(PIECE)
            try:
                decoder = spare.pop()
            except IndexError:
                reader = _Reader()
                decoder = reader, self._protocol_over(reader)
            # One that fails is in the middle of something, and is not used again.
            reader, protocol = decoder
            begun = data.startswith(beginning)
            reader.begin(connection, data, len(beginning) if begun else 0)
            try:
                if not begun and is_exception(name, call, *protocol.readMessageBegin()):
                    error = TApplicationException()
                    error.read(protocol)
                    value = app_exception(error)
                else:
                    struct = result()
                    struct.read(protocol)
                    value = outcome(struct)
            except (OverflowError, TProtocolException, TTransportException) as refusal:
                if _is_of_size(refusal):
                    reason = f"a length in the reply is not within max_message={max_message} bytes"
                    raise ReplyRefused(reason) from refusal
                raise
            finally:
                reader.raise_failure()
            if reader.is_empty():
                spare.append(decoder)
                return value
            return without_connection(value)

        return decode


def _no_reply(connection: Connection, beginning: bytes, call: int) -> Any:
    raise AssertionError("a oneway call has no reply")


def _outcome(name: str, result: Any) -> Callable[[Any], Any]:
    fields = [field[2] for field in result.thrift_spec if field is not None]
    kind = TApplicationException.MISSING_RESULT
    return outcome_of(fields, lambda: TApplicationException(kind, f"{name}: no result"))


def _is_of_size(error: Any) -> bool:
    if isinstance(error, OverflowError):
        return True
    kind = type(error)
    return error.type in (kind.SIZE_LIMIT, kind.NEGATIVE_SIZE)


class _Sink(TTransportBase):  # type: ignore[misc]
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.write = self.pieces.append


class _Reader(TTransportBase, CReadableTransport):  # type: ignore[misc]
    """A reply, of which the C extension reads the pieces by itself and asks for more."""

    cstringio_buf: Any = None  # else a property of the base

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._failure: BaseException | None = None

    def begin(self, connection: Connection, data: bytes, place: int) -> None:
        self._connection = connection
        self.cstringio_buf = BytesIO(data)
        self.cstringio_buf.seek(place)

    def cstringio_refill(self, partial: bytes, size: int) -> BytesIO:
        pieces = [partial]
        missing = size - len(partial)
        assert self._connection is not None
        try:
            while missing > 0:
                pieces.append(self._connection.receive(max(missing, PIECE)))
                missing -= len(pieces[-1])
        except BaseException as failure:
            self._failure = failure
            raise
        self.cstringio_buf = buffer = BytesIO(b"".join(pieces))
        return buffer

    def raise_failure(self) -> None:
        """Of the connection, or of who has killed the caller.

        The C extension goes on without what it could not read, and so raises a TypeError of its
        own in place of a gevent.Timeout.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback has this frame

    def readAll(self, size: int) -> bytes:  # for the head, and where there is no C extension
        if size < 0:
            raise ReplyRefused("a negative length")
        data: bytes = self.cstringio_buf.read(size)
        if len(data) < size:
            data = self.cstringio_refill(data, size).read(size)
        return data

    read = readAll

    def is_empty(self) -> bool:
        is_empty = not self.cstringio_buf.read(1)
        self._connection = self.cstringio_buf = None
        return is_empty
