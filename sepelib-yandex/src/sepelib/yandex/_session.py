"""The session of a client that was given none: every wait ends by the current deadline.

A timeout of a socket starts anew with each byte, so a server that drips its headers holds
`timeout=1` for ever (psf/requests#1928). Here each read waits for what the deadline leaves.
Not bounded: the resolver of names; each address of a host has the connect timeout for itself, and
so has, under gevent, each step of a TLS handshake.
"""

from __future__ import annotations

import http.client
import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family

from sepelib.util.wire import ClippedFile, connect_clipped, is_silent, send_clipped

from ._shown import shown_url

__all__ = ["own_session"]

_ORIGINS = 16  # pools kept, each of one scheme, host and port


def own_session(connections: int) -> requests.Session:
    """Takes no proxies, logins or certificates from the environment; keeps no cookies."""
    session = requests.Session()
    session.trust_env = False
    session.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "sepelib-yandex"
    adapter = _Adapter(pool_connections=_ORIGINS, pool_maxsize=connections, pool_block=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


class _Reply(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(ClippedFile(sock), *args, **kwargs)  # type: ignore[arg-type]


class _HttpConnection(urllib3.connection.HTTPConnection):
    response_class = _Reply
    target: str | None = None

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

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        target, self.target = self.target, None
        super().putrequest(method, target or url, *args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        send_clipped(self.sock, data, self.timeout, super().send)


class _HttpsConnection(_HttpConnection, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            # urllib3 makes of a handshake that is late what it makes of an answer that is.
            error.maybe_sent = False  # type: ignore[attr-defined]  # looked at by `_failures`
            raise


class _Discreet(urllib3.connectionpool.HTTPConnectionPool):
    """urllib3 logs each URL it asks for, at DEBUG: it is given the one that may be shown."""

    def _make_request(  # type: ignore[override]
        self, conn: Any, method: str, url: str, **kwargs: Any
    ) -> Any:
        conn.target = url
        return super()._make_request(conn, method, shown_url(url), **kwargs)


class _HttpPool(_Discreet):
    ConnectionCls = _HttpConnection


class _HttpsPool(_Discreet, urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
