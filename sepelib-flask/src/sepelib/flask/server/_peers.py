"""Who asks: the socket's peer, or whom a proxy that we trust names, and what network that is in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["LOOPBACK", "UNIX", "Networks", "Peers"]

LOOPBACK = ("127.0.0.0/8", "::1/128")
UNIX = "unix"
"""In a list of networks: whoever comes through a unix socket."""

_UNKNOWN = "unknown"  # RFC 7239, 6.2
_MAX_KNOWN = 1024
_FORWARDING = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


class Networks:
    """A set of addresses: `["10.0.0.0/8", "192.0.2.7", "unix"]`. ValueError for anything else."""

    def __init__(self, networks: Iterable[str]) -> None:
        if isinstance(networks, str):
            raise ValueError(f"networks are a list, not {networks!r}")
        names = list(networks)
        self._unix = UNIX in names
        self._networks = [ipaddress.ip_network(name) for name in names if name != UNIX]
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Whether *address*, which may be any text, is in one of them."""
        known = self._known.get(address)
        if known is None:
            known = self._contains(address)
            if len(self._known) < _MAX_KNOWN:
                self._known[address] = known
        return known

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def _contains(self, text: str) -> bool:
        if text == UNIX:
            return self._unix
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


class Peers:
    """Puts the client's address into REMOTE_ADDR, and says who may use what is for admins."""

    def __init__(self, admins: Networks, proxies: Networks) -> None:
        self.has_proxies = bool(proxies)
        self._admins = admins
        self._proxies = proxies

    def resolve(self, environ: WSGIEnvironment) -> None:
        """Of a request from a trusted proxy: REMOTE_ADDR and wsgi.url_scheme are the client's.

        `X-Forwarded-For` is read from its end, where the last of our proxies has written; what
        stands before the first address that is not one of them is the client's own invention.
        The peer itself remains as `sepelib.peer`.
        """
        peer = environ.get("REMOTE_ADDR") or UNIX
        if peer not in self._proxies:
            return
        environ["sepelib.peer"] = peer
        hops = environ.get("HTTP_X_FORWARDED_FOR")
        if hops is not None:
            environ["REMOTE_ADDR"] = self._client(hops)
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme

    def _client(self, hops: str) -> str:
        client = _UNKNOWN
        for hop in reversed(hops.split(",")):
            address = _address(hop.strip())
            if address is None:
                return _UNKNOWN
            client = str(address)
            if client not in self._proxies:
                break
        return client

    def is_admin(self, environ: WSGIEnvironment) -> bool:
        """Whether the client is in the networks of admins.

        A request that some proxy has sent on, but none that we trust, is nobody's: else all that a
        proxy on this host lets in would come from the loopback.
        """
        if "HTTP_X_FORWARDED_FOR" in environ and "sepelib.peer" in environ:
            forwarded = False
        else:
            forwarded = any(name in environ for name in _FORWARDING)
        return not forwarded and (environ.get("REMOTE_ADDR") or UNIX) in self._admins


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Of `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::7` and `[2001:db8::7]:1234`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
