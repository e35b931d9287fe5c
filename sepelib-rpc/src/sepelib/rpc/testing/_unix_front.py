"""A unix socket in front of a TCP server."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path
from typing import Self

__all__ = ["UnixFront"]


class UnixFront:
    """Takes connections at *path* and passes their bytes and ends to and from *upstream*.

    A reset arrives as an end. Ended, with its file, by `close()`; the connections end with either
    side.
    """

    def __init__(self, path: Path, upstream: tuple[str, int]) -> None:
        self._path = path
        self._upstream = upstream
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> Self:
        try:
            self._listener.bind(str(self._path))
            self._listener.listen(socket.SOMAXCONN)
        except BaseException:
            self._listener.close()
            raise
        self._spawn(self._accept)
        return self

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        acceptor, *_ = self._threads
        acceptor.join()
        self._listener.close()
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(None)
                self._ends.append(client)
                self._spawn(self._relay, client)

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.socket() as server:
            server.settimeout(None)
            server.connect(self._upstream)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _pass_on(client, server)


def _pass_on(client: socket.socket, server: socket.socket) -> None:
    ways = {client.fileno(): (client, server), server.fileno(): (server, client)}
    poller = select.poll()
    for descriptor in ways:
        poller.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            source, target = ways[descriptor]
            if not (data := source.recv(65536)):
                return
            target.sendall(data)
