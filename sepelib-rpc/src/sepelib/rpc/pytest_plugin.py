"""Fixtures over `sepelib.rpc.testing`. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.rpc.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.rpc.pytest_plugin needs pytest: pip install 'sepelib-rpc[pytest]'"
    ) from e

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepelib.rpc.testing import ThriftServer, XmlRpcServer

__all__ = ["thrift_server", "xmlrpc_server"]


@pytest.fixture
def thrift_server() -> Iterator[Callable[..., ThriftServer]]:
    """`thrift_server(service, handler, ...)` makes a ThriftServer that runs until the test ends."""
    from sepelib.rpc.testing import ThriftServer

    with ExitStack() as servers:

        def start(service: Any, handler: object, **options: Any) -> ThriftServer:
            return servers.enter_context(ThriftServer(service, handler, **options))

        yield start


@pytest.fixture
def xmlrpc_server() -> Iterator[XmlRpcServer]:
    """A server without functions and logins; `xmlrpc_server.dispatcher` takes functions."""
    from sepelib.rpc.testing import XmlRpcServer

    with XmlRpcServer() as server:
        yield server
