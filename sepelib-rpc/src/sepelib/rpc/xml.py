"""XML-RPC calls that end in time, and say what went wrong.

    state = xmlrpc_call("http://127.0.0.1:9001/RPC2", "supervisor.getState")

    with ServerProxy("https://host/RPC2", auth=("robot", password)) as server:
        server.system.listMethods()
        server.call("jobs.start", 7, timeout=60.0)

Types: None, bool, int to 64 bits, float, str, bytes (base64), datetime, list and tuple, dict with
str keys; others are refused before anything is sent, as are characters that XML cannot hold.
Errors: the tree is in `XmlRpcError`'s module, `_xml_errors`; below it is all that the network and
the server can do. ValueError and TypeError are for arguments that make no sense.
Units: seconds and bytes.
Tried again, by `retries`: what has found no connection, and of methods said to be idempotent what
got no whole reply. A reply is never waited for twice on one connection: after anything but a whole
reply it is closed, so no call reads what was meant for another.
Sharing: a proxy without a `session` of yours may serve any number of threads and greenlets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth

from sepelib.core import constants
from sepelib.rpc._xml_errors import (
    DeadlineExceeded,
    TransportKind,
    XmlRpcError,
    XmlRpcFault,
    XmlRpcHttpError,
    XmlRpcParseError,
    XmlRpcTransportError,
    XmlRpcValueRefused,
    shown,
)
from sepelib.rpc._xml_parse import Unparsable, parse_reply
from sepelib.rpc._xml_post import Auth, Exchange, RawReply
from sepelib.rpc._xml_session import private_session
from sepelib.rpc._xml_write import Unsendable, write_call
from sepelib.util.deadline import deadline
from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.secrets import Secret
from sepelib.util.url import redact_url

__all__ = [
    "DeadlineExceeded",
    "ServerProxy",
    "TransportKind",
    "XmlRpcError",
    "XmlRpcFault",
    "XmlRpcHttpError",
    "XmlRpcParseError",
    "XmlRpcTransportError",
    "XmlRpcValueRefused",
    "xmlrpc_call",
]

Login: TypeAlias = tuple[str, str | Secret[str]]

_HEADERS = {"Content-Type": "text/xml", "Accept": "text/xml", "Accept-Encoding": "gzip"}
_EXCERPT = 2048  # bytes
_UNFIT_FOR_URL = re.compile(r"[\x00-\x20\x7f]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE).match


def xmlrpc_call(
    url: str,
    method: str,
    /,
    *params: object,
    session: requests.Session | None = None,
    timeout: float | None = constants.NETWORK_TIMEOUT,
    total_timeout: float | None = 30.0,
    idempotent: bool = False,
    retries: RetryPolicy | None = None,
    allow_none: bool = True,
    big_ints: Literal["i8", "error"] = "i8",
    headers: Mapping[str, str] | None = None,
    auth: Login | Auth = None,
    max_response: int = 16 << 20,
    datetimes: Literal["aware", "naive"] = "aware",
    recorder: Recorder = AMBIENT,
) -> Any:
    """The result of one call. The keywords are those of `ServerProxy`, which saves connections."""
    with ServerProxy(
        url,
        session=session,
        timeout=timeout,
        total_timeout=total_timeout,
        idempotent="all" if idempotent else (),
        retries=retries,
        allow_none=allow_none,
        big_ints=big_ints,
        headers=headers,
        auth=auth,
        max_response=max_response,
        datetimes=datetimes,
        recorder=recorder,
    ) as server:
        return server.call(method, *params)


class ServerProxy:
    """A server whose procedures are called like methods: `server.system.listMethods()`.

    *url*: whole, with its path, often /RPC2. A user and password in it are sent as *auth* would be,
    and shown nowhere. *session*: any `requests.Session`; stays yours, and open. None is a private
    one, which takes nothing from the environment, keeps connections until `close()`, and no
    cookies. *timeout*: of connecting, and of each wait for bytes. *total_timeout*: of a call with
    its retries, cut by the current deadline; headers that drip in are ended by the private session
    and by an InstrumentedSession, not by a plain one of yours. *idempotent*: the methods that may
    be executed twice, or "all". *retries*: names `XmlRpcTransportError`; whatever it says, a call
    that may have been executed is repeated only if its method is idempotent.
    *allow_none*: send None as nil. *big_ints*: how ints beyond 32 bits are sent. *headers*: sent
    with each call. *auth*: (user, password), or what requests takes. *max_response*: bytes of a
    reply, decompressed. *datetimes*: how they come: "aware" in UTC, which is assumed where the
    server says no offset, or "naive" as the server says them, in UTC if it does say one.
    """

    def __init__(
        self,
        url: str,
        *,
        session: requests.Session | None = None,
        timeout: float | None = constants.NETWORK_TIMEOUT,
        total_timeout: float | None = 30.0,
        idempotent: Collection[str] | Literal["all"] = (),
        retries: RetryPolicy | None = None,
        allow_none: bool = True,
        big_ints: Literal["i8", "error"] = "i8",
        headers: Mapping[str, str] | None = None,
        auth: Login | Auth = None,
        max_response: int = 16 << 20,
        datetimes: Literal["aware", "naive"] = "aware",
        recorder: Recorder = AMBIENT,
    ) -> None:
        if big_ints not in ("i8", "error"):
            raise ValueError(f"big_ints= is 'i8' or 'error', not {big_ints!r}")
        if datetimes not in ("aware", "naive"):
            raise ValueError(f"datetimes= is 'aware' or 'naive', not {datetimes!r}")
        if isinstance(idempotent, str) and idempotent != "all":
            raise TypeError("idempotent= is a collection of methods, or 'all'")
        self._url, self._shown_url, login = _checked_url(url)
        self._auth = _as_auth(login if auth is None else auth)
        self._headers = _checked_headers(headers or {})
        self._timeout = timeout
        self._total_timeout = total_timeout
        self._idempotent = idempotent
        self._retries = retries or RetryPolicy(
            XmlRpcTransportError, attempts=2, backoff=Backoff(0.1), layer="transport"
        )
        self._allow_none = allow_none
        self._big_ints = big_ints
        self._max_response = max_response
        self._aware = datetimes == "aware"
        self._calls = recorder.counter(
            "xmlrpc_client_calls", "XML-RPC calls that have ended.", ("method", "result")
        )
        self._own_session = session is None
        self._session = private_session() if session is None else session

    def call(
        self,
        method: str,
        /,
        *params: object,
        timeout: float | EllipsisType | None = ...,
        total_timeout: float | EllipsisType | None = ...,
        idempotent: bool | None = None,
    ) -> Any:
        """The result of *method*, whatever its name; what is not given is as the proxy has it."""
        result = "cancelled"
        try:
            value = self._call(
                method,
                params,
                self._timeout if timeout is ... else timeout,
                self._total_timeout if total_timeout is ... else total_timeout,
                self._is_idempotent(method) if idempotent is None else idempotent,
            )
            result = "ok"
            return value
        except XmlRpcError as error:
            result = error.result
            raise
        except Exception:
            result = "error"
            raise
        finally:
            self._calls.labels(str(method), result).inc()

    def multicall(self, calls: Iterable[Sequence[Any]], /, **options: Any) -> list[Any]:
        """Several calls in one request: `[("add", 1, 2), ("pow", 2, 8)]` gives `[3, 256]`.

        In place of the result of a call that failed there is its XmlRpcFault, not raised. They are
        executed in this order, all of them. *options* as for `call()`; it is idempotent if all of
        its methods are. For servers with `system.multicall`; that of supervisord is another one,
        whose results are an XmlRpcParseError.
        """
        calls = [tuple(call) for call in calls]
        methods = [str(method) for method, *_ in calls]
        options.setdefault("idempotent", all(map(self._is_idempotent, methods)))
        boxcar = [{"methodName": method, "params": params} for method, *params in calls]
        results = self.call("system.multicall", boxcar, **options)
        if not isinstance(results, list) or len(results) != len(calls):
            raise self._unparsable("system.multicall", f"not {len(calls)} results")
        return [self._one_of_many(*pair) for pair in zip(methods, results, strict=True)]

    def close(self) -> None:
        """Close the connections, unless they are of a session of yours."""
        if self._own_session:
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__} has no {name}; use call() for the server's"
            )
        return _Method(self, name)

    def __repr__(self) -> str:
        return f"<ServerProxy {self._shown_url}>"

    # Inside.

    def _is_idempotent(self, method: str) -> bool:
        return self._idempotent == "all" or method in self._idempotent

    def _call(
        self,
        method: str,
        params: Sequence[object],
        timeout: float | None,
        total_timeout: float | None,
        idempotent: bool,
    ) -> Any:
        try:
            body = write_call(method, params, allow_none=self._allow_none, big_ints=self._big_ints)
        except Unsendable as error:
            name = shown(str(method))
            raise XmlRpcValueRefused(self._shown_url, name, error.path, error.reason) from None
        exchange = Exchange(
            self._session,
            self._url,
            self._shown_url,
            method,
            body,
            headers=self._headers,
            auth=self._auth,
            timeout=timeout,
            max_response=self._max_response,
            idempotent=idempotent,
        )
        with deadline(total_timeout):
            reply = self._retries(exchange.attempt)
        if isinstance(reply, XmlRpcTransportError):
            raise reply
        return self._value(method, reply)

    def _value(self, method: str, raw: RawReply) -> Any:
        why = None
        try:
            reply = parse_reply(raw.body, aware=self._aware)
        except Unparsable as error:
            why = error
        else:
            if reply.is_fault:  # whatever the status: some servers send it with 500
                raise self._fault(method, reply.value)
        if not 200 <= raw.status < 300:
            location = shown(redact_url(raw.location)) if 300 <= raw.status < 400 else ""
            excerpt = _excerpt(raw.body) if why is not None else ""  # results are not shown
            raise XmlRpcHttpError(self._shown_url, method, raw.status, excerpt, location)
        if why is not None:
            if kind := _foreign_kind(raw):
                reason = f"a reply of {kind}, which is not XML-RPC"
                raise self._unparsable(method, reason, excerpt=_excerpt(raw.body))
            raise self._unparsable(method, why.reason, why.line, why.column)
        return reply.value

    def _one_of_many(self, method: str, result: object) -> Any:
        if isinstance(result, dict):
            return self._fault(method, result)
        if isinstance(result, list) and len(result) == 1:
            return result[0]
        raise self._unparsable("system.multicall", "a result that is neither [value] nor a fault")

    def _fault(self, method: str, fault: object) -> XmlRpcFault:
        match fault:
            case {"faultCode": int() | str() as code, "faultString": str(message)}:
                return XmlRpcFault(self._shown_url, method, code, message)
        raise self._unparsable(method, "a fault without a faultCode or a faultString")

    def _unparsable(
        self, method: str, reason: str, line: int = 0, column: int = 0, excerpt: str = ""
    ) -> XmlRpcParseError:
        return XmlRpcParseError(self._shown_url, method, reason, line, column, excerpt)


class _Method:
    """`server.a.b`, to be called."""

    __slots__ = ("_name", "_server")

    def __init__(self, server: ServerProxy, name: str) -> None:
        self._server = server
        self._name = name

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Method(self._server, f"{self._name}.{name}")

    def __call__(self, *params: object) -> Any:
        return self._server.call(self._name, *params)

    def __repr__(self) -> str:
        return f"<{self._name} of {self._server!r}>"


def _checked_url(url: str) -> tuple[str, str, Auth]:
    """The URL without its login, the same to be shown, and the login."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False  # it says why with parts of the URL, perhaps of the password
    if not fits or _UNFIT_FOR_URL.search(url):
        raise ValueError(f"not a URL of http or https: {shown(redact_url(url))}")
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    auth = HTTPBasicAuth(unquote_to_bytes(user), unquote_to_bytes(password)) if at else None
    url = urlunsplit(parts._replace(netloc=host))
    return url, redact_url(url), auth


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        # requests refuses these too, but shows the value, which may be a token.
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"no header of HTTP: {shown(name)}")
    given = {name.lower() for name in headers}
    return {name: value for name, value in _HEADERS.items() if name.lower() not in given} | dict(
        headers
    )


def _as_auth(auth: Login | Auth) -> Auth:
    if not isinstance(auth, tuple):
        return auth
    user, password = auth
    # As bytes: requests encodes a str in Latin-1.
    return HTTPBasicAuth(user.encode(), Secret(password).reveal().encode())


def _foreign_kind(raw: RawReply) -> str | None:
    """What a reply that is no XML-RPC is instead; None when it claims to be XML."""
    if not raw.body.strip():
        return "no bytes at all"
    if _HTML(raw.body):
        return "text/html"
    kind = raw.content_type.partition(";")[0].strip().lower()
    return None if not kind or kind.endswith(("/xml", "+xml")) else shown(kind)


def _excerpt(body: bytes) -> str:
    return shown(body[:_EXCERPT].decode(errors="replace"))
