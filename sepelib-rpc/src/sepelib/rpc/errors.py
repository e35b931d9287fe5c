"""The root of what Thrift and XML-RPC calls fail with.

Error (sepelib.core)
└── RpcError
    ├── ThriftError      sepelib.rpc.thrift
    └── XmlRpcError      sepelib.rpc.xml
"""

from __future__ import annotations

from sepelib.core.exceptions import Error

__all__ = ["RpcError"]


class RpcError(Error):
    """A remote procedure call that brought no result."""
