"""TCP ports of 127.0.0.1 that nobody else gets."""

from __future__ import annotations

import socket

__all__ = ["Reservation"]


class Reservation:
    """A port that only who asks for it by number can take, until `close()`.

    A bound socket that never listens: on Linux a server that sets SO_REUSEADDR, as Java does,
    binds beside it, while the system gives the port to nobody who wants any. So a server finds
    its port free at each start, and a client that knocks while it is down is refused and cannot
    be connected to itself.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        try:
            # Set after the bind: before it, the kernel may give one port to two reservations.
            self._socket.bind(("127.0.0.1", 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.port: int = self._socket.getsockname()[1]
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()
