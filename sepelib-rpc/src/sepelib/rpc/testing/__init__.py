"""Servers that tell the truth, and fail as a test says. Fixtures: `sepelib.rpc.pytest_plugin`.

Names load at first use, so that each half is paid for, and needs its extra, by its users only.

    ThriftServer    either library's own marshalling, with faults
    ExecutedCall    a call as a ThriftServer executed it
    XmlRpcServer    real `xmlrpc.server` marshalling, with faults
    ReceivedCall    a call as it came to an XmlRpcServer
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._thrift_server import ExecutedCall as ExecutedCall
    from ._thrift_server import ThriftServer as ThriftServer
    from ._xmlrpc_server import ReceivedCall as ReceivedCall
    from ._xmlrpc_server import XmlRpcServer as XmlRpcServer
else:
    _HOME = {
        "ExecutedCall": "_thrift_server",
        "ReceivedCall": "_xmlrpc_server",
        "ThriftServer": "_thrift_server",
        "XmlRpcServer": "_xmlrpc_server",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)


__all__ = ["ExecutedCall", "ReceivedCall", "ThriftServer", "XmlRpcServer"]
