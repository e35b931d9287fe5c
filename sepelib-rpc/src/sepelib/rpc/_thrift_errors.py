"""What a Thrift call can end with beside its result and the exceptions of its IDL.

    RpcError
    └── ThriftError              any of these
        ├── PoolExhausted            not executed: no connection became free in time
        ├── ConnectFailed            not executed: no host could be connected to
        ├── RequestNotSent           not executed: the last byte of the request never left
        ├── OutcomeUnknown           may have been executed: no whole reply has come
        ├── ProtocolViolation        may have been executed: what came is not the reply
        └── DeadlineExceeded         (util's too, so a TimeoutError) the caller's time was over

Each has `host`, `method` and `maybe_executed`. None has the arguments or bytes of a reply.
Exceptions declared in the IDL, and the library's TApplicationException, are raised as they are.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from sepelib.rpc.errors import RpcError
from sepelib.util import deadline as _deadline

__all__ = [
    "ConnectFailed",
    "DeadlineExceeded",
    "OutcomeKind",
    "OutcomeUnknown",
    "PoolExhausted",
    "ProtocolViolation",
    "RequestNotSent",
    "ThriftError",
]

OutcomeKind: TypeAlias = Literal["timeout", "closed", "cut"]


class ThriftError(RpcError):
    """*method* at *host* has brought no result.

    *host* is as the caller named it, or all of them when it is none in particular.
    *maybe_executed* is False when the server certainly has not run the method.
    """

    _result: ClassVar[str] = "unknown"
    maybe_executed: bool = True

    def __init__(self, host: str, method: str, /, *fields: object) -> None:
        super().__init__(host, method, *fields)
        self.host = host
        self.method = method

    @property
    def result(self) -> str:
        """What the metric calls this."""
        return self._result

    def _reason(self) -> str:
        return "no result"

    def __str__(self) -> str:
        fate = "may have been executed" if self.maybe_executed else "not executed"
        return f"{self.method} at {self.host}: {self._reason()}; {fate}"


class PoolExhausted(ThriftError):
    """All *size* connections were in use for the *waited* seconds that the caller gave."""

    _result = "not_sent"
    maybe_executed = False

    def __init__(self, host: str, method: str, size: int, waited: float, /) -> None:
        super().__init__(host, method, size, waited)
        self.size = size
        self.waited = waited

    def _reason(self) -> str:
        return (
            f"all {self.size} connections were in use for {self.waited:.3g} s; raise pool_size= or "
            "call less at once"
        )


class ConnectFailed(ThriftError):
    """There is no connection: refused, timed out, unknown name, no trust by TLS."""

    _result = "not_sent"
    maybe_executed = False

    def __init__(self, host: str, method: str, reason: str, /) -> None:
        super().__init__(host, method, reason)
        self.reason = reason

    def _reason(self) -> str:
        return f"no connection ({self.reason})"


class RequestNotSent(ThriftError):
    """The connection broke, or time ran out, before the last byte of the request left."""

    _result = "not_sent"
    maybe_executed = False

    def __init__(self, host: str, method: str, reason: str, /) -> None:
        super().__init__(host, method, reason)
        self.reason = reason

    def _reason(self) -> str:
        return f"the request was not sent ({self.reason})"


class OutcomeUnknown(ThriftError):
    """The request left and no whole reply has come.

    *kind*: "timeout" (`timeout` is over), "closed" (the connection ended before the first byte of
    the reply), "cut" (it ended inside the reply).
    """

    def __init__(self, host: str, method: str, kind: OutcomeKind, reason: str, /) -> None:
        super().__init__(host, method, kind, reason)
        self.kind = kind
        self.reason = reason

    def _reason(self) -> str:
        return self.reason


class ProtocolViolation(ThriftError):
    """What came is not the reply: another call's, not Thrift, too large, or with more to read."""

    def __init__(self, host: str, method: str, reason: str, /) -> None:
        super().__init__(host, method, reason)
        self.reason = reason

    def _reason(self) -> str:
        return self.reason


class DeadlineExceeded(ThriftError, _deadline.DeadlineExceeded):
    """The deadline of the caller was over, whatever `timeout` says."""

    _result = "deadline"

    def __init__(self, host: str, method: str, maybe_executed: bool, /) -> None:
        self.host = host
        self.method = method
        self.maybe_executed = maybe_executed
        # As an OSError it takes one sentence; the fields are kept apart.
        RpcError.__init__(self, ThriftError.__str__(self))

    def _reason(self) -> str:
        return "deadline exceeded"

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[DeadlineExceeded], tuple[str, str, bool]]:
        return type(self), (self.host, self.method, self.maybe_executed)
