"""Listening sockets: TCP, or a file with a mode; a file that nobody listens on is replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from contextlib import suppress
from typing import Any

import gevent
import gevent.socket

from sepelib.flask.server._errors import CannotListen

__all__ = ["Listener", "listen_tcp", "listen_unix"]

_LOCK_TIMEOUT = 5.0  # seconds


class Listener:
    """A bound and listening socket, and the file it may have, at its path `address`."""

    def __init__(self, sock: gevent.socket.socket, path: str | None = None) -> None:
        self.sock = sock
        self.address: tuple[Any, ...] | str = sock.getsockname() if path is None else path
        self._path = path
        self._identity = _identity(path) if path is not None else None

    def close(self) -> None:
        self.sock.close()
        self.remove_file()

    def remove_file(self) -> None:
        """Unless another server has put its own there. Idempotent."""
        path, self._path = self._path, None
        if path is not None and _identity(path) == self._identity:
            with suppress(OSError):
                os.unlink(path)


def listen_tcp(host: str, port: int, backlog: int) -> Listener:
    """Listen at an address of this host; 0 is a free port. Raises CannotListen."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise CannotListen(shown, "a port is 0 to 65535")
    try:
        (family, kind, protocol, _, address), *_ = gevent.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise CannotListen(shown, f"{host!r} is no address of a host") from error
    sock = gevent.socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise CannotListen(shown, _reason(error)) from error
        raise
    return Listener(sock)


def listen_unix(path: str, mode: int, backlog: int) -> Listener:
    """Listen at the file *path*, of *mode* from its first moment on. Raises CannotListen.

    A socket file that nobody listens on, as a killed server leaves it, is replaced; any other
    file, and one that somebody listens on, is not.
    """
    sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder: int | None = None
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        _lock(folder)
        _remove_stale(path)
        # Bound under another name, since for a moment the file has the mode of the umask.
        private = f"{path}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(private)
        sock.bind(private)
        try:
            os.chmod(private, mode)
            sock.listen(backlog)
            os.rename(private, path)
        except BaseException:
            os.unlink(private)
            raise
        return Listener(sock, path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise CannotListen(path, _reason(error)) from error
        raise
    finally:
        if folder is not None:
            os.close(folder)


def _lock(folder: int) -> None:
    """Of several servers that start at once, one looks and binds at a time."""
    until = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        gevent.sleep(0.01)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotListen(path, "the file is there, and is no socket; remove it or use another")
    with gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Not blocking: a server whose backlog is full lives, and connect() would wait for it.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise CannotListen(path, "another server listens there; stop it first")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use; stop who listens there, or use another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 are for root"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
