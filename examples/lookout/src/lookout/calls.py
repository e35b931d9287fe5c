"""Call a method of a Thrift or XML-RPC service, over a new connection, and look at what it says.

Only methods without arguments. A call is sent again only if it certainly was not executed.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from thriftpy2.parser.parser import parse_fp
from thriftpy2.thrift import TApplicationException

from lookout.answers import Answer, NotConnected, Unreachable, said_by_http
from lookout.checks import Expected
from lookout.targets import Target, ThriftCall, XmlRpcCall
from sepelib.rpc.thrift import (
    ConnectFailed,
    OutcomeUnknown,
    ProtocolViolation,
    RequestNotSent,
    ThriftBinClient,
    ThriftError,
    ThriftHttpClient,
)
from sepelib.rpc.xml import (
    XmlRpcFault,
    XmlRpcHttpError,
    XmlRpcParseError,
    XmlRpcTransportError,
    xmlrpc_call,
)
from sepelib.util.retry import RetryPolicy
from sepelib.util.text import truncate
from sepelib.util.url import redact_text

__all__ = ["call_thrift", "call_xmlrpc"]

MAX_REPLY = 1 << 20  # bytes
MAX_SAID = 200  # characters of what a server wrote
THRIFT_ONCE = RetryPolicy(ThriftError, attempts=1)
XMLRPC_ONCE = RetryPolicy(XmlRpcTransportError, attempts=1)

# No IDL is needed to call a method without arguments: what it returns is skipped, whatever its
# type is. Its exceptions must not be, or they would pass for a good end; their numbers are small.
IDL = f"""
exception Declared {{}}
service Probed {{ void ping() throws ({", ".join(f"{n}: Declared e{n}" for n in range(1, 33))}) }}
"""


def call_thrift(target: Target, how: ThriftCall) -> Answer:
    """TimeoutError at the current deadline."""
    try:
        with _thrift_client(target, how) as client:
            client.call(how.method)
    except TApplicationException as error:
        return Answer(0, f"{how.method}: {_shown(str(error))}")
    except _idl().Declared:
        return Answer(0, f"{how.method}: answered with an exception of its IDL")
    except (ConnectFailed, RequestNotSent) as error:
        raise NotConnected(f"no connection to {error.host} ({error.reason})") from error
    except (OutcomeUnknown, ProtocolViolation) as error:
        raise Unreachable(_shown(error.reason)) from error
    return Answer(0)


def _thrift_client(target: Target, how: ThriftCall) -> ThriftBinClient | ThriftHttpClient:
    idl = _idl()
    # As thriftpy2 would have made it, had the IDL the method's name: which may be a word of Thrift.
    service = type(
        "Probed",
        (),
        {
            "thrift_services": [how.method],
            f"{how.method}_args": idl.Probed.ping_args,
            f"{how.method}_result": idl.Probed.ping_result,
        },
    )
    options: dict[str, Any] = {
        "timeout": None,  # the deadline is
        "connect_timeout": target.timeout / len(how.hosts),  # none takes the time of the others
        "protocol": how.protocol,
        "retries": THRIFT_ONCE,
        "name": target.name,
        "max_message": MAX_REPLY,
    }
    if how.transport == "http":
        return ThriftHttpClient(service, how.hosts, **options)
    return ThriftBinClient(service, how.hosts, framed=how.transport == "framed", **options)


@cache
def _idl() -> Any:
    parse: Any = parse_fp  # untyped
    return parse(io.StringIO(IDL), "probed_thrift", enable_cache=False)


def call_xmlrpc(target: Target, how: XmlRpcCall) -> Answer:
    """TimeoutError at the current deadline, or that of the target."""
    login = None if how.user is None or how.password is None else (how.user, how.password)
    try:
        value = xmlrpc_call(
            how.url,
            how.method,
            timeout=None,
            total_timeout=target.timeout,
            retries=XMLRPC_ONCE,
            auth=login,
            max_response=MAX_REPLY,
        )
    except XmlRpcFault as fault:
        said = f"{how.method}: fault {fault.code}: {fault.message}"
        return Answer(0, _shown(said))
    except XmlRpcHttpError as error:
        return Answer(error.status, said_by_http(error.status))
    except XmlRpcTransportError as error:
        kind = NotConnected if error.kind == "connect" else Unreachable
        raise kind(error.reason) from error
    except XmlRpcParseError as error:
        raise Unreachable(f"not an XML-RPC answer ({error.reason})") from error
    return Answer(0, None if how.expect is None else _unexpected(how.method, value, how.expect))


def _unexpected(method: str, value: object, expected: Expected) -> str | None:
    if not isinstance(expected, tuple):
        pairs: list[tuple[str, object, object]] = [(method, value, expected)]
    elif isinstance(value, dict):
        for name, _ in expected:
            if name not in value:
                return f"{method}: no {name} in the answer"
        pairs = [(f"{method}: {name}", value[name], wanted) for name, wanted in expected]
    else:
        return f"{method}: is {_said(value)}, expected members"
    for what, found, wanted in pairs:
        if found != wanted:
            return f"{what} is {_said(found)}, expected {_said(wanted)}"
    return None


def _said(value: object) -> str:
    if isinstance(value, str):
        return repr(_shown(value))
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return f"a {type(value).__name__}"


def _shown(text: str) -> str:
    """*text* of a stranger in one short line, without the secrets of URLs."""
    text = text[: 8 * MAX_SAID]
    printable = "".join(char if char.isprintable() else " " for char in text)
    return truncate(redact_text(" ".join(printable.split())), MAX_SAID)
