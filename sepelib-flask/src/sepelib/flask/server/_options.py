"""Options of a Server that are more than a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sepelib.flask.server._peers import LOOPBACK

if TYPE_CHECKING:
    import ssl

__all__ = ["AdminOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminOptions:
    """Who may see /config/ and reopen logs, and where.

    *networks*: addresses of admins, such as `"10.0.0.0/8"`, or `"unix"` for who comes through a
    unix socket. By default those of this host.
    *port* (0 is a free one) or *unix*, the path of a socket file with *unix_mode*: a listener of
    its own with all built-in handlers and nothing else; the main one then has only /ping and
    /version of them. Who may open the file of a unix listener, is an admin.
    """

    networks: Sequence[str] = LOOPBACK
    host: str = "127.0.0.1"
    port: int | None = None
    unix: str | None = None
    unix_mode: int = 0o600
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.port is not None and self.unix is not None:
            raise ValueError("admins have a port or a unix socket, not both")

    @property
    def listens(self) -> bool:
        return self.port is not None or self.unix is not None
