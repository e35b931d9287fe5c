"""Either Thrift library, made to run one call from bytes to bytes.

_thrift_server ──► dialect_of(service) ──► _dialect_thriftpy2 or _dialect_apache
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

__all__ = [
    "ONEWAY",
    "Dialect",
    "Handler",
    "Header",
    "Readable",
    "Sink",
    "Source",
    "Turn",
    "WireFormat",
    "dialect_of",
    "watch",
]

WireFormat: TypeAlias = Literal["binary", "compact"]

ONEWAY = 4


class Header(NamedTuple):
    """What a message begins with; *kind* is a TMessageType."""

    name: str
    kind: int
    seqid: int


class Source(Protocol):
    """Where a message is read from."""

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or an error."""


class Turn(Protocol):
    """What a server adds to one call."""

    def received(self, header: Header) -> None:
        """A message has begun."""

    def execute(self, method: str, args: Sequence[Any]) -> Any:
        """Run the call, which has been read to its end, and return what its handler does."""

    def replied(self, header: Header) -> Header:
        """A reply begins; the header that it is to have."""


class Dialect(Protocol):
    """A service of one of the libraries."""

    def run(self, source: Source, turn: Turn) -> bytes:
        """Read a message, execute it, return the reply; b"" for one that has none.

        A handler's error that the IDL does not declare becomes a TApplicationException of the
        kind INTERNAL_ERROR, and a method that the service does not have one of UNKNOWN_METHOD.
        """


def dialect_of(service: Any, wire_format: WireFormat) -> Dialect:
    """*service*: a service of thriftpy2, an Apache module with a Processor, or that class."""
    if hasattr(service, "thrift_services"):
        from ._dialect_thriftpy2 import Thriftpy2Dialect

        return Thriftpy2Dialect(service, wire_format)
    processor = getattr(service, "Processor", service)
    if callable(getattr(processor, "process", None)):
        from ._dialect_apache import ApacheDialect

        return ApacheDialect(processor, wire_format)
    raise TypeError(
        f"{service!r} is neither a service of thriftpy2 nor a module or class with a Processor "
        "that Apache's compiler made"
    )


def watch(turn: Turn, iprot: Any, read_begin: str, oprot: Any, write_begin: str) -> None:
    read, write = getattr(iprot, read_begin), getattr(oprot, write_begin)

    def reading() -> Any:
        begin = read()
        turn.received(Header(*begin))
        return begin

    def writing(name: str, kind: int, seqid: int) -> None:
        write(*turn.replied(Header(name, kind, seqid)))

    setattr(iprot, read_begin, reading)
    setattr(oprot, write_begin, writing)


class Handler:
    """Stands before the user's handler, since nobody else is told the moment of execution."""

    def __init__(self, turn: Turn) -> None:
        self.__turn = turn

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args: self.__turn.execute(method, args)


class Readable:
    """A transport of both libraries, which name its methods differently."""

    def __init__(self, source: Source) -> None:
        self.read = self.readAll = source.read


class Sink(io.BytesIO):
    """A transport of both libraries that keeps what is written."""
