"""Calls to a service that Apache's compiler has made, run by its own processor."""

from __future__ import annotations

try:
    import thrift  # type: ignore[import-untyped]  # noqa: F401
except ModuleNotFoundError as e:
    raise ImportError(
        "a server for services made by Apache's compiler needs thrift: "
        "pip install 'sepelib-rpc[apache-thrift]'"
    ) from e

from typing import Any

from thrift.protocol.TBinaryProtocol import TBinaryProtocol  # type: ignore[import-untyped]
from thrift.protocol.TCompactProtocol import TCompactProtocol  # type: ignore[import-untyped]

from ._thrift_dialects import Handler, Readable, Sink, Source, Turn, WireFormat, watch

__all__ = ["ApacheDialect"]

_PROTOCOLS: dict[WireFormat, Any] = {"binary": TBinaryProtocol, "compact": TCompactProtocol}


class ApacheDialect:
    def __init__(self, processor: Any, wire_format: WireFormat) -> None:
        self._processor = processor
        self._protocol = _PROTOCOLS[wire_format]

    def run(self, source: Source, turn: Turn) -> bytes:
        sink = Sink()
        iprot, oprot = self._protocol(Readable(source)), self._protocol(sink)
        watch(turn, iprot, "readMessageBegin", oprot, "writeMessageBegin")
        self._processor(Handler(turn)).process(iprot, oprot)
        return sink.getvalue()
