"""A requests.Session whose every wait ends by the current deadline.

A timeout of a socket starts anew with each byte, so a server that drips its reply holds
`timeout=1` for ever (psf/requests#1928). Here each read, of a part of a header too, waits for what
the deadline leaves at that moment. The hooks are those meant for it:
`http.client.HTTPConnection.response_class`, `send()`, `urllib3.HTTPConnectionPool.ConnectionCls`,
`PoolManager.pool_classes_by_scheme`.

Not bounded: the resolver of names, which no timeout reaches. Within the deadline each address of
a host has the timeout of connecting for itself, and so has, under gevent, each step of TLS.
"""

from __future__ import annotations

import http.client
import socket
from typing import Any

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family

from sepelib.util.wire import ClippedFile, connect_clipped, is_silent, send_clipped

__all__ = ["private_session"]

_MAX_IDLE = 100  # connections of one session kept open for the next calls


def private_session() -> requests.Session:
    """Takes no proxies, logins or certificates from the environment; keeps no cookies."""
    session = _Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=1, pool_maxsize=_MAX_IDLE))
    return session


class _Session(requests.Session):
    """Leaves out what no call needs and a quarter of its time goes into: cookies and redirects.

    It may serve several users of the caller, and what one is given is not for the next.
    """

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        prepared = request.prepare()
        prepared.headers.setdefault("User-Agent", "sepelib-rpc")
        return prepared

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        del kwargs["allow_redirects"]
        response = self.get_adapter(request.url or "").send(request, **kwargs)
        for hook in request.hooks["response"]:  # of auth=, which may answer a 401 so
            response = hook(response, **kwargs) or response
        return response


class _Reply(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(ClippedFile(sock), *args, **kwargs)  # type: ignore[arg-type]


class _HttpConnection(urllib3.connection.HTTPConnection):
    response_class = _Reply

    @property
    def is_connected(self) -> bool:
        if not isinstance(self.sock, socket.socket):
            return super().is_connected
        return is_silent(self.sock)

    def _new_conn(self) -> socket.socket:
        # urllib3 gives each address of a host the whole timeout, and a greenlet that is cancelled
        # there leaves a socket to the garbage collector.
        try:
            return connect_clipped(
                self._dns_host.strip("[]"),
                self.port,
                self.timeout,
                family=allowed_gai_family(),
                options=self.socket_options or (),
                source_address=self.source_address,
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError:
            raise LocationParseError(f"{self.host!r}, label empty or too long") from None
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        send_clipped(self.sock, data, self.timeout, super().send)


class _HttpsConnection(_HttpConnection, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
