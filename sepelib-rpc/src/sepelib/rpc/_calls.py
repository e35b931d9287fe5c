"""One call, from arguments to result: a connection, the bytes, what a failure means, a retry.

| failed while                 | executed? | raised            | repeated                       |
|------------------------------|-----------|-------------------|--------------------------------|
| waiting for the pool         | no        | PoolExhausted     | yes                            |
| connecting                   | no        | ConnectFailed     | yes; each host was tried       |
| sending                      | no        | RequestNotSent    | yes                            |
| waiting for the first byte   | unknown   | OutcomeUnknown    | if idempotent                  |
| reading the reply            | unknown   | OutcomeUnknown    | if idempotent; ERROR in the log |
| the reply is another's, none | unknown   | ProtocolViolation | if idempotent; ERROR in the log |
| an exception of the peer     | yes       | as it is          | never                          |
| the caller's time is over    | either    | DeadlineExceeded  | never                          |
| killed, gevent.Timeout       | unknown   | as it is          | never                          |

After all but an exception of the peer the connection is closed. A connection found stale before it
was used costs no attempt.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from sepelib.rpc._codec import Codec, Ending, Method, Mismatch
from sepelib.rpc._connection import Connection, ReplyRefused
from sepelib.rpc._pool import Pool, is_over, said
from sepelib.rpc._thrift_errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    ProtocolViolation,
    RequestNotSent,
    ThriftError,
)
from sepelib.rpc._thrift_meters import Meters
from sepelib.util.deadline import Deadline
from sepelib.util.retry import RetryPolicy

__all__ = ["Call", "Caller"]

_log = logging.getLogger(__name__)

_MAX_SEQID = 0x7FFFFFFF

Call = Callable[..., Any]


class Caller:
    """Compiles the methods of one client. Shared by all that share its pool."""

    def __init__(self, codec: Codec, pool: Pool, retries: RetryPolicy, meters: Meters) -> None:
        self.codec = codec
        self.pool = pool
        self._retries = retries
        self._meters = meters
        self._methods: dict[str, Method] = {}
        self._next_seqid = itertools.count(1).__next__
        # A policy is asked from the first attempt on if that attempt is of any account to it, else
        # only after a failure: it costs as much as all the rest of a call.
        self._asks_first = retries.budget is not None or retries.deadline is not None

    def compiled(self, name: str, timeout: float, idempotent: bool) -> Call:
        """The function of a method. AttributeError if the service has none of this *name*."""
        method = self._methods.get(name)
        if method is None:
            if name not in self.codec.method_names:
                raise AttributeError(f"{self.codec.service_name} has no method {name!r}")
            method = self._methods[name] = self.codec.method(name)
        attempt = self._attempt(method, timeout)
        encode = method.encode
        next_seqid = self._next_seqid
        asks_first = self._asks_first
        again = self._again
        ok = self._meters.calls(name, "ok")
        observe = self._meters.seconds(name)
        count = self._meters.calls

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.monotonic()
            result = "cancelled"
            failure: ThriftError | None = None
            try:
                seqid = next_seqid() & _MAX_SEQID
                request, beginning = encode(seqid, args, kwargs)
                value = None
                if not asks_first:
                    try:
                        value = attempt(request, beginning, seqid, started)
                    except ThriftError as error:
                        if not _is_repeatable(error, idempotent):
                            raise
                        failure = error
                if failure is not None or asks_first:
                    value = again(name, attempt, (request, beginning, seqid), failure, idempotent)
                if type(value) is Ending:
                    result = value.kind
                    if value.error is not None:
                        raise value.error
                    return value.value
                result = "ok"
                return value
            except ThriftError as error:
                result = error.result
                raise
            except Exception:
                if result == "cancelled":  # no exception of the peer: nothing was sent
                    result = "not_sent"
                raise
            finally:
                failure = None  # its traceback has this frame
                observe(time.monotonic() - started)
                if result == "ok":
                    ok()
                else:
                    count(name, result)()

        call.__name__ = name
        call.__qualname__ = f"{self.codec.service_name}.{name}"
        return call

    def _attempt(self, method: Method, timeout: float) -> Callable[[bytes, bytes, int, float], Any]:
        name, decode, oneway = method.name, method.decode, method.oneway
        acquire, release, discard = self.pool.acquire, self.pool.release, self.pool.discard
        current_deadline = Deadline.current

        def attempt(request: bytes, beginning: bytes, seqid: int, now: float) -> Any:
            deadline = current_deadline()
            limit = math.inf if deadline is None else now + deadline.remaining()
            connection = acquire(name, now, limit)
            sent = False
            try:
                end = time.monotonic() + timeout
                if end > limit:
                    end = limit
                connection.send(request, end)
                sent = True
                if oneway:
                    connection.confirm()
                    value = None
                else:
                    value = decode(connection, beginning, seqid)
                keep = connection.is_at_end() and (type(value) is not Ending or value.keep)
            except BaseException as error:
                discard(connection)
                meaning = _meaning(error, connection, name, sent, limit, timeout)
                if meaning is None:
                    raise
                raise meaning from error
            if keep:
                release(connection, time.monotonic())
            else:
                discard(connection)
            return value

        return attempt

    def _again(
        self,
        name: str,
        attempt: Callable[[bytes, bytes, int, float], Any],
        message: tuple[bytes, bytes, int],
        failure: ThriftError | None,
        idempotent: bool,
    ) -> Any:
        """Leave it to the policy; *failure* is of its first attempt, if that was made already."""
        failures = [] if failure is None else [failure]
        failure = None

        def next_attempt() -> Any:
            if failures:
                raise failures.pop()
            try:
                return attempt(*message, time.monotonic())
            except ThriftError as error:
                # So the policy, perhaps one of the caller's, cannot repeat too much.
                if _is_repeatable(error, idempotent):
                    raise
                return error

        next_attempt.__qualname__ = f"{self.codec.service_name}.{name}"
        value = self._retries(next_attempt)
        if isinstance(value, ThriftError):
            raise value
        return value


def _is_repeatable(error: ThriftError, idempotent: bool) -> bool:
    if isinstance(error, DeadlineExceeded):
        return False
    return idempotent or not error.maybe_executed


def _meaning(
    error: BaseException,
    connection: Connection,
    method: str,
    sent: bool,
    limit: float,
    timeout: float,
) -> ThriftError | None:
    """What *error* tells the caller; None when it is to pass as it is."""
    host = connection.host.label
    if not isinstance(error, Exception):
        return None
    if isinstance(error, TimeoutError) and is_over(limit):
        return DeadlineExceeded(host, method, sent)
    if not sent:
        if isinstance(error, OSError):
            return RequestNotSent(host, method, said(error))
        return None
    if isinstance(error, TimeoutError):
        what = "no whole reply" if connection.replied else "no reply"
        meaning: ThriftError = OutcomeUnknown(
            host, method, "timeout", f"{what} within {timeout:g} s"
        )
    elif not isinstance(error, OSError):
        if isinstance(error, ReplyRefused | Mismatch):
            meaning = ProtocolViolation(host, method, str(error))
        else:
            reason = f"what came is not a reply ({type(error).__name__})"
            meaning = ProtocolViolation(host, method, reason)
    elif connection.replied:
        reason = f"the connection ended inside the reply ({said(error)})"
        meaning = OutcomeUnknown(host, method, "cut", reason)
    else:
        reason = f"the connection ended before the reply ({said(error)})"
        return OutcomeUnknown(host, method, "closed", reason)
    if not isinstance(error, TimeoutError) or connection.replied:
        _log.error("%s", meaning)
    return meaning
