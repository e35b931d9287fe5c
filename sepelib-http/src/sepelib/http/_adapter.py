"""The adapter of requests that puts a call's limits on the wire."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

from ._call import current_call
from ._exchange import exchanged
from ._retries import send_again
from ._urls import origin_of
from ._wire import POOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

__all__ = ["LimitedAdapter"]

_ORIGINS = 64  # pools kept, each of one scheme, host and port


class LimitedAdapter(HTTPAdapter):
    """Obeys the call of the session that uses it; a plain HTTPAdapter without one.

    Its pools never block: waiting there is not safe under gevent, whose Timeout makes urllib3
    release what was never taken.
    """

    def __init__(self, pool_maxsize: int = 100) -> None:
        super().__init__(pool_connections=_ORIGINS, pool_maxsize=pool_maxsize, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS
        self._pools: dict[tuple[str, object], Any] = {}

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = POOLS
        return manager

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> Any:
        if proxies or cert or request.url is None:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        # requests works out the pool's key, of 27 fields, for each request.
        key = origin_of(request.url), verify
        pool = self._pools.get(key)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if len(self._pools) >= _ORIGINS:
                self._pools.clear()
            self._pools[key] = pool
        return pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return super().request_url(request, proxies) if proxies else request.path_url

    def close(self) -> None:
        self._pools.clear()
        super().close()

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        send = partial(super().send, request, stream, timeout, verify, cert, proxies)
        call = current_call.get()
        if call is None:
            return send()
        endpoint = call.endpoint if request.url == call.url else None
        if endpoint is None:
            endpoint = origin_of(request.url or "")
        call.read_timeout = _read_timeout(timeout)

        def attempt() -> Response:
            call.begin()
            return exchanged(call, request, endpoint, send, stream)

        return send_again(call, request, attempt, stream)


def _read_timeout(timeout: Any) -> float | None:
    timeout = timeout[-1] if isinstance(timeout, tuple) else timeout
    timeout = getattr(timeout, "read_timeout", timeout)
    return None if timeout is None else float(timeout)
