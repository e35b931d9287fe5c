"""What an XML-RPC call can end with beside a result.

    RpcError
    └── XmlRpcError                any of these
        ├── XmlRpcFault                the procedure was run and says that it failed
        ├── XmlRpcValueRefused         (ValueError) nothing was sent: a parameter does not fit
        ├── XmlRpcTransportError       no whole reply has come
        ├── XmlRpcHttpError            a reply of HTTP without a fault in it
        ├── XmlRpcParseError           a reply that is not XML-RPC
        └── DeadlineExceeded           (util's too, so a TimeoutError) time was over

Each has `url`, with its secrets masked, and `method`. None has the parameters or the credentials;
what the server wrote (`message`, `excerpt`) is shown in one line, with the secrets of URLs masked.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from sepelib.rpc.errors import RpcError
from sepelib.util import deadline as _deadline
from sepelib.util.text import truncate
from sepelib.util.url import redact_text

__all__ = [
    "DeadlineExceeded",
    "TransportKind",
    "XmlRpcError",
    "XmlRpcFault",
    "XmlRpcHttpError",
    "XmlRpcParseError",
    "XmlRpcTransportError",
    "XmlRpcValueRefused",
]

TransportKind: TypeAlias = Literal["connect", "tls", "timeout", "closed", "too_large", "encoding"]

_SHOWN = 300  # characters of what a server wrote


class XmlRpcError(RpcError):
    """*method* at *url* has brought no result."""

    _result: ClassVar[str] = "error"

    def __init__(self, url: str, method: str, /, *fields: object) -> None:
        super().__init__(url, method, *fields)
        self.url = url
        self.method = method

    @property
    def result(self) -> str:
        """What the metric calls this."""
        return self._result

    def _reason(self) -> str:
        return "no result"

    def __str__(self) -> str:
        return f"{self.method} at {self.url}: {self._reason()}"


class XmlRpcFault(XmlRpcError):
    """The server answers that the procedure failed.

    *code* is an int, as the specification has it, or the str that some servers send instead.
    *message* is as it came, perhaps of several lines.
    """

    _result = "fault"

    def __init__(self, url: str, method: str, code: int | str, message: str, /) -> None:
        super().__init__(url, method, code, message)
        self.code = code
        self.message = message

    def _reason(self) -> str:
        return f"fault {shown(str(self.code))}: {shown(self.message)}"


class XmlRpcValueRefused(XmlRpcError, ValueError):
    """A parameter that XML-RPC cannot hold; nothing was sent.

    *path* leads to it, as in `params[0].items[2]`; *reason* tells its type, never its value.
    """

    _result = "refused"

    def __init__(self, url: str, method: str, path: str, reason: str, /) -> None:
        super().__init__(url, method, path, reason)
        self.path = path
        self.reason = reason

    def _reason(self) -> str:
        return f"not sent: {self.path} {self.reason}"


class XmlRpcTransportError(XmlRpcError):
    """No whole reply has come.

    *kind*: "connect" (no connection), "tls" (no trust in the peer, or no TLS there), "timeout" (a
    wait for bytes was too long), "closed" (the connection ended early), "too_large" (over
    `max_response`), "encoding" (a compressed reply that is broken or of an unknown kind).
    *maybe_executed* is False when the request certainly has not left.
    """

    def __init__(
        self, url: str, method: str, kind: TransportKind, reason: str, maybe_executed: bool, /
    ) -> None:
        super().__init__(url, method, kind, reason, maybe_executed)
        self.kind = kind
        self.reason = reason
        self.maybe_executed = maybe_executed

    @property
    def result(self) -> str:
        return "unknown" if self.maybe_executed else "not_sent"

    def _reason(self) -> str:
        return f"{self.reason}; {_fate(self.maybe_executed)}"


class XmlRpcHttpError(XmlRpcError):
    """The server, or a proxy before it, answers with *status* and no fault in the body.

    *location* is where a redirect points to, which is not followed. *excerpt* is how the body
    begins.
    """

    _result = "http_error"

    def __init__(self, url: str, method: str, status: int, excerpt: str, location: str, /) -> None:
        super().__init__(url, method, status, excerpt, location)
        self.status = status
        self.excerpt = excerpt
        self.location = location

    def _reason(self) -> str:
        said = f": {self.excerpt}" if self.excerpt else ""
        if self.location:
            said = f", a redirect to {self.location}, which is not followed: call that URL"
        return f"HTTP status {self.status}{said}"


class XmlRpcParseError(XmlRpcError):
    """A reply came that is not XML-RPC. The call was executed, for all one can know.

    *line* and *column* count from 1; both are 0 when no place can be told.
    """

    _result = "parse_error"

    def __init__(
        self, url: str, method: str, reason: str, line: int, column: int, excerpt: str, /
    ) -> None:
        super().__init__(url, method, reason, line, column, excerpt)
        self.reason = reason
        self.line = line
        self.column = column
        self.excerpt = excerpt

    def _reason(self) -> str:
        place = f" in line {self.line}, column {self.column}" if self.line else ""
        said = f": {self.excerpt}" if self.excerpt else ""
        return f"{self.reason}{place}{said}"


class DeadlineExceeded(XmlRpcError, _deadline.DeadlineExceeded):
    """Its `total_timeout`, or the deadline of the caller, was over.

    *maybe_executed* is False when the request certainly has not left.
    """

    _result = "deadline"

    def __init__(self, url: str, method: str, maybe_executed: bool, /) -> None:
        # As an OSError it takes one sentence; the fields are kept apart.
        RpcError.__init__(self, f"{method} at {url}: deadline exceeded; {_fate(maybe_executed)}")
        self.url = url
        self.method = method
        self.maybe_executed = maybe_executed

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[DeadlineExceeded], tuple[str, str, bool]]:
        return type(self), (self.url, self.method, self.maybe_executed)


def shown(text: str) -> str:
    """*text* of a stranger in one short line."""
    start = text[: 8 * _SHOWN]
    printable = "".join(char if char.isprintable() else " " for char in start)
    return truncate(redact_text(" ".join(printable.split())), _SHOWN)


def _fate(maybe_executed: bool) -> str:
    return "it may have been executed" if maybe_executed else "it was not executed"
