"""Thrift clients that reconnect, and never hand one caller's answer to another.

    client = ThriftBinClient(directory.Directory, ["a.example:9090", "b.example:9090"])
    client.lookup("bob")                                # from any greenlet or thread

    lookups = client.with_options(timeout=0.5, idempotent={"lookup"})
    lookups.lookup("bob")                               # the same connections

The service is one that thriftpy2 has loaded, or a module, or its `Client`, that Apache's compiler
has made: told apart by what they have, and only the library that it needs is imported.

A call fails with an exception of the IDL, with the library's TApplicationException, or with a
`ThriftError` which says whether the call may have been executed. What certainly was not is tried
again, on the next host; what may have been, only if the method is idempotent. `_calls.py` has the
table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from sepelib.core import constants
from sepelib.rpc._calls import Call, Caller
from sepelib.rpc._codec import WireProtocol, codec_for
from sepelib.rpc._connection import Connect
from sepelib.rpc._hosts import Host, Hosts
from sepelib.rpc._pool import Pool
from sepelib.rpc._thrift_errors import (
    ConnectFailed,
    DeadlineExceeded,
    OutcomeKind,
    OutcomeUnknown,
    PoolExhausted,
    ProtocolViolation,
    RequestNotSent,
    ThriftError,
)
from sepelib.rpc._thrift_meters import Meters
from sepelib.util.deadline import checked_seconds
from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.util.retry import Backoff, RetryPolicy

if TYPE_CHECKING:
    import ssl

    import requests

__all__ = [
    "ConnectFailed",
    "DeadlineExceeded",
    "OutcomeKind",
    "OutcomeUnknown",
    "PoolExhausted",
    "ProtocolViolation",
    "RequestNotSent",
    "ThriftBinClient",
    "ThriftError",
    "ThriftHttpClient",
]

Idempotent: TypeAlias = Collection[str] | Literal["all"]


class _Client:
    """What both clients do; they differ in how they connect.

    A method of the service is a method of the client, unless its name is one of `call`, `close`,
    `stats`, `with_options` or begins with an underscore: `call` reaches these too.
    """

    def __init__(
        self,
        service: Any,
        hosts: Sequence[Host],
        connect: Connect[Any],
        *,
        timeout: float | None,
        connect_timeout: float | None,
        pool_size: int,
        pool_timeout: float | EllipsisType | None,
        max_idle: float | None,
        max_age: float | None,
        protocol: WireProtocol,
        idempotent: Idempotent,
        retries: RetryPolicy | None,
        name: str | None,
        recorder: Recorder,
        max_message: int,
    ) -> None:
        if not hosts:
            raise ValueError("a client needs at least one host")
        for what, number in (("pool_size", pool_size), ("max_message", max_message)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{what}= is a number from 1 on, not {number!r}")
        self._timeout = _checked_timeout(timeout)
        self._idempotent = _checked_idempotent(idempotent)
        codec = codec_for(service, protocol, max_message)
        meters = Meters(recorder, codec.service_name if name is None else name)
        probe_time = constants.CONNECT_TIMEOUT if connect_timeout is None else connect_timeout
        pool = Pool(
            Hosts(hosts, probe_time=probe_time),
            connect,
            size=pool_size,
            wait=connect_timeout if pool_timeout is ... else pool_timeout,
            connect_timeout=connect_timeout,
            max_idle=max_idle,
            max_age=max_age,
            connects=meters.connects,
        )
        policy = retries or RetryPolicy(
            ThriftError, attempts=2, backoff=Backoff(0.1), layer="transport"
        )
        self._caller = Caller(codec, pool, policy, meters)
        self._detach: Callable[[], None] | None = meters.watch(pool)

    def call(
        self,
        method: str,
        /,
        *args: Any,
        timeout: float | EllipsisType | None = ...,
        idempotent: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The result of *method*, whatever its name; what is not given is as the client has it."""
        return self._caller.compiled(
            method,
            self._timeout if timeout is ... else _checked_timeout(timeout),
            self._is_idempotent(method) if idempotent is None else idempotent,
        )(*args, **kwargs)

    def with_options(
        self,
        *,
        timeout: float | EllipsisType | None = ...,
        idempotent: Idempotent | None = None,
    ) -> Self:
        """A client with other options and the same connections, which `close()` leaves open."""
        twin = type(self).__new__(type(self))
        twin._caller = self._caller
        twin._detach = None
        twin._timeout = self._timeout if timeout is ... else _checked_timeout(timeout)
        twin._idempotent = (
            self._idempotent if idempotent is None else _checked_idempotent(idempotent)
        )
        return twin

    def stats(self) -> dict[str, Any]:
        """What the pool has at this moment, as plain data.

        `{"size", "waiting", "hosts": {host: {"state", "idle", "in_use", "connects", "failures",
        "ejected_until", "connections": [{"state", "age", "idle"}]}}}`. *ejected_until* is a moment
        of `time.monotonic()` or None; *age* and *idle* are seconds, None for one in use.
        """
        return self._caller.pool.stats()

    def close(self) -> None:
        """Close all connections; those in use when their calls end. LogicalError for later calls.

        Does nothing for what `with_options()` has made.
        """
        if self._detach is not None:
            self._detach()
            self._caller.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Call:
        # Comes here once for each method: from then on it is found without asking.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name}; use call() for the service")
        function = self._caller.compiled(name, self._timeout, self._is_idempotent(name))
        self.__dict__[name] = function
        return function

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._caller.codec.method_names})

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self._caller.codec.service_name} {self._caller.pool.labels}>"
        )

    def _is_idempotent(self, method: str) -> bool:
        return self._idempotent == "all" or method in self._idempotent


class ThriftBinClient(_Client):
    """A client over TCP or unix sockets: `client.method(*args, **kwargs)`.

    One is shared by all greenlets and threads; a connection never is.

    *hosts*: "name:port", "[address]:port" or "unix:/path", one or several, used in turns; one that
    cannot be connected to three times in a row is left out for 1 to 30 s.
    *timeout*: seconds for the request to leave and the reply to come, however it drips; cut by the
    current deadline, as all that follows. *connect_timeout*: for one host, TLS included.
    *pool_size*: connections, in use and idle, in all. *pool_timeout*: seconds to wait for one when
    all are in use, by default *connect_timeout*. *max_idle*, *max_age*: seconds after which a
    connection is not used again.
    *framed*: as the server has it, TFramedTransport or TBufferedTransport. *protocol*: "binary" or
    "compact". *ssl_context*: talk TLS, with the name of the host checked as the context says.
    *idempotent*: the methods that may be executed twice, or "all". *retries*: names `ThriftError`;
    whatever it says, a call that may have been executed is repeated only if idempotent.
    *name*: of the client in metrics, by default the service's. *max_message*: bytes of a reply.
    None for a time is no limit.
    """

    def __init__(
        self,
        service: Any,
        hosts: str | Sequence[str],
        *,
        timeout: float | None = constants.NETWORK_TIMEOUT,
        connect_timeout: float | None = constants.CONNECT_TIMEOUT,
        pool_size: int = 8,
        pool_timeout: float | EllipsisType | None = ...,
        max_idle: float | None = 60.0,
        max_age: float | None = 600.0,
        framed: bool = False,
        protocol: WireProtocol = "binary",
        ssl_context: ssl.SSLContext | None = None,
        idempotent: Idempotent = (),
        retries: RetryPolicy | None = None,
        name: str | None = None,
        recorder: Recorder = AMBIENT,
        max_message: int = 16 << 20,
    ) -> None:
        from sepelib.rpc._transports import connector
        from sepelib.rpc._wire import parse_address

        super().__init__(
            service,
            [Host(text, parse_address(text)) for text in _several(hosts)],
            connector(framed=framed, max_message=max_message, ssl_context=ssl_context),
            timeout=timeout,
            connect_timeout=connect_timeout,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            max_idle=max_idle,
            max_age=max_age,
            protocol=protocol,
            idempotent=idempotent,
            retries=retries,
            name=name,
            recorder=recorder,
            max_message=max_message,
        )


class ThriftHttpClient(_Client):
    """A client that POSTs each message over connections of its own, which are kept.

    *urls*: of http or https, one or several; a login in them is sent as an Authorization header and
    shown nowhere. *ssl_context*: None trusts what the system does. *headers*: sent with each call.
    *session*: a `requests.Session` to go over instead, for what it brings along, its TLS too; it
    stays yours, and open, and is slower. Other keywords are those of `ThriftBinClient`.
    """

    def __init__(
        self,
        service: Any,
        urls: str | Sequence[str],
        *,
        timeout: float | None = constants.NETWORK_TIMEOUT,
        connect_timeout: float | None = constants.CONNECT_TIMEOUT,
        pool_size: int = 8,
        pool_timeout: float | EllipsisType | None = ...,
        max_idle: float | None = 60.0,
        max_age: float | None = 600.0,
        protocol: WireProtocol = "binary",
        ssl_context: ssl.SSLContext | None = None,
        session: requests.Session | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: Idempotent = (),
        retries: RetryPolicy | None = None,
        name: str | None = None,
        recorder: Recorder = AMBIENT,
        max_message: int = 16 << 20,
    ) -> None:
        from sepelib.rpc._http_head import parse_url

        connect: Connect[Any]
        if session is not None:
            from sepelib.rpc._http_by_session import connect_by_session

            if ssl_context is not None:
                raise ValueError("TLS is the session's affair: ssl_context= goes without session=")
            connect = connect_by_session(session, max_message)
        else:
            from sepelib.rpc._http_transport import http_connect

            connect = http_connect(max_message, ssl_context)
        targets = [parse_url(url, headers) for url in _several(urls)]
        super().__init__(
            service,
            [Host(target.label, target) for target in targets],
            connect,
            timeout=timeout,
            connect_timeout=connect_timeout,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            max_idle=max_idle,
            max_age=max_age,
            protocol=protocol,
            idempotent=idempotent,
            retries=retries,
            name=name,
            recorder=recorder,
            max_message=max_message,
        )


def _several(hosts: str | Sequence[str]) -> Sequence[str]:
    return [hosts] if isinstance(hosts, str) else hosts


def _checked_timeout(seconds: float | None) -> float:
    return math.inf if seconds is None else checked_seconds(seconds, "timeout=")


def _checked_idempotent(methods: Idempotent) -> Idempotent:
    if isinstance(methods, str) and methods != "all":
        raise TypeError("idempotent= is a collection of methods, or 'all'")
    return methods
