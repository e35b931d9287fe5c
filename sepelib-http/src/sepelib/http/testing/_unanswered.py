"""An address that swallows connections."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

__all__ = ["unanswered_address"]


@contextlib.contextmanager
def unanswered_address() -> Iterator[tuple[str, int]]:
    """A (host, port) where who connects waits for ever: neither accepted nor refused.

    What a host that is down, or a firewall that drops, looks like. Linux: a listening socket whose
    queue is full ignores the first packet of a connection.
    """
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        # A backlog of 0 has room for this one and no other.
        sockets.enter_context(socket.create_connection(address, timeout=10.0))
        yield address
