"""Calls to a service of thriftpy2, run by its own processor."""

from __future__ import annotations

try:
    import thriftpy2  # noqa: F401
except ModuleNotFoundError as e:
    raise ImportError(
        "a server for services of thriftpy2 needs thriftpy2: pip install 'sepelib-rpc[thrift]'"
    ) from e

from collections.abc import Callable
from typing import Any

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.protocol.compact import TCompactProtocol
from thriftpy2.thrift import TApplicationException, TProcessor

from ._thrift_dialects import Handler, Readable, Sink, Source, Turn, WireFormat, watch

__all__ = ["Thriftpy2Dialect"]

# The pure ones: those in Cython read from transports in Cython only.
_PROTOCOLS: dict[WireFormat, Any] = {"binary": TBinaryProtocol, "compact": TCompactProtocol}


class Thriftpy2Dialect:
    def __init__(self, service: Any, wire_format: WireFormat) -> None:
        self._service = service
        self._protocol = _PROTOCOLS[wire_format]

    def run(self, source: Source, turn: Turn) -> bytes:
        sink = Sink()
        iprot, oprot = self._protocol(Readable(source)), self._protocol(sink)
        watch(turn, iprot, "read_message_begin", oprot, "write_message_begin")
        processor = TProcessor(self._service, Handler(turn))
        name, seqid, result, call = processor.process_in(iprot)
        failure = result if call is None else _outcome(processor, call, result)
        if failure is not None:
            processor.send_exception(oprot, name, failure, seqid)
        elif not result.oneway:
            processor.send_result(oprot, name, result, seqid)
        return sink.getvalue()


def _outcome(processor: TProcessor, call: Callable[[], Any], result: Any) -> Any:
    """What the caller is told instead of *result*, which is filled otherwise."""
    try:
        result.success = call()
    except Exception as error:
        if result.oneway or processor.handle_exception(error, result):
            return None
        if isinstance(error, TApplicationException):
            return error
        return TApplicationException(TApplicationException.INTERNAL_ERROR, "Internal error")
    return None
