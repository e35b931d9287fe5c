"""The base of every test server: a thread per connection on a private port of the loopback.

NEW ──start──► LISTENING ◄──start── REFUSING
                   └──refuse, stop────►┘            any ──close──► CLOSED
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import logging
    import ssl

__all__ = ["Connections", "ThreadedServer"]

_HANDSHAKE_TIMEOUT = 10.0
_POLL_INTERVAL = 0.02


class Connections(NamedTuple):
    """How many connections a server has accepted so far, and how many are open now."""

    accepted: int
    open: int


class _State(enum.Enum):
    NEW = "not started"
    LISTENING = "listening"
    REFUSING = "refusing connections"
    CLOSED = "closed"


class ThreadedServer:
    """A TCP server on 127.0.0.1 for tests: a subclass says in `handle` how it talks.

        class Echo(ThreadedServer):
            def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
                while data := connection.recv(65536):
                    connection.sendall(data)

        with Echo() as server, socket.create_connection(server.address) as client: ...

    The port is chosen by the system at the first `start()` and stays this server's own until
    `close()`, while it refuses too: no other process can be given it in between.

    Threads are native, or greenlets when the process is monkey-patched, one for each connection.
    What a handler raises is raised by `close()`, which so ends a test that would have missed it
    (several: as an ExceptionGroup). When the `with` block fails by itself, they are logged
    instead. Errors of the classes in `silent`, and errors of sockets that `stop()` has shut down,
    are a test's daily life and are dropped.

    *ssl_context*: talk TLS; a failed handshake is logged and is no failure of the server.
    *close_timeout*: seconds `stop()` and `close()` wait for the threads; TimeoutError after that.
    All methods may be called from any thread or greenlet.
    """

    silent: tuple[type[Exception], ...] = (ConnectionError,)

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, close_timeout: float = 5.0
    ) -> None:
        self.ending = threading.Event()
        """Set while `stop()` ends the connections: a handler that has to wait, waits on this."""
        self._ssl_context = ssl_context
        self._close_timeout = close_timeout
        self._changed = threading.Condition()  # guards all below but _door; never held blocking
        self._changes = 0
        self._state = _State.NEW
        self._accepted = 0
        self._open: dict[threading.Thread, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._settle_wanted = self._settled = 0
        self._door = threading.RLock()  # one at a time opens or shuts the listening socket
        self._acceptor: threading.Thread | None = None
        self._address: tuple[str, int] | None = None
        self._kept: list[socket.socket] = []  # for life: the port's keeper and both ends of _wake

    # What a subclass writes.

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        """Serve one connection, in a thread of its own; it is closed for you afterwards."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to handle()")

    def opened(self, connection: socket.socket) -> None:
        """Called for each connection, in order, before its `handle`. Must not block."""

    def closed(self, connection: socket.socket) -> None:
        """Called for each connection, after its `handle`. Must not block."""

    def interrupt(self, connection: socket.socket) -> None:
        """Make the `handle` of this open connection return soon. Must not block.

        Shuts the socket down, so that reads end and writes fail. Override it where a handler
        waits for something else as well.
        """
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS state away from under its reader.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    # Start and stop.

    def start(self) -> Self:
        """Listen, for the first time or again on the same port. Nothing happens if it does."""
        with self._door:
            if self._state is _State.LISTENING:
                return self
            if self._state is _State.CLOSED:
                raise RuntimeError(f"{self} cannot be started again")
            self._join_acceptor()  # somebody's refuse() may have been cancelled half-way
            if not self._kept:
                self._keep_port()
            listener = _bound(self.port)
            try:
                listener.listen(socket.SOMAXCONN)
                listener.setblocking(False)
                self.ending.clear()
                self._move(_State.LISTENING)
                self._acceptor = self._thread(self._accept_loop, listener, name="accept")
                self._acceptor.start()
            except BaseException:
                self._move(_State.REFUSING)
                self._acceptor = None
                listener.close()
                raise
        return self

    def refuse(self) -> None:
        """Close the listening socket: who connects gets ECONNREFUSED. Connections live on.

        A connection that was made before this call has been accepted when it returns.
        """
        with self._door:
            if self._state is _State.LISTENING:
                self._move(_State.REFUSING)
            self._join_acceptor()

    def stop(self) -> None:
        """Refuse new connections and end the open ones; `start()` comes back on the same port."""
        self.refuse()
        self.ending.set()
        me = threading.current_thread()
        with self._changed:
            threads = [thread for thread in self._threads if thread is not me]
            for connection in self._open.values():
                self.interrupt(connection)
            self._notify()
            # Not by join() alone: one that gevent cancels takes its thread for ended.
            self._changed.wait_for(
                lambda: not any(thread in self._open for thread in threads), self._close_timeout
            )
            stuck = [thread.name for thread in threads if thread in self._open]
        if stuck:
            raise TimeoutError(
                f"{self}: still running {self._close_timeout:g} s after stop: {', '.join(stuck)}"
            )
        for thread in threads:
            thread.join(self._close_timeout)

    def restart(self) -> None:
        """`stop()` and `start()` as one: what the clients of a restarted server see."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good, then raise what handlers raised. The second call does nothing."""
        failures = self._close()
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"{self}: {len(failures)} failures", failures)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        for failure in self._close():
            _log().error("%s: %s", self, failure, exc_info=failure)

    # What a test asks.

    @property
    def address(self) -> tuple[str, int]:
        """(host, port), as for `socket.create_connection`. Known after the first `start()`."""
        if self._address is None:
            raise RuntimeError(f"{self} has no address yet: call start() or use it in a with")
        return self._address

    @property
    def host(self) -> str:
        return self.address[0]

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def connections(self) -> Connections:
        with self._changed:
            return Connections(self._accepted, len(self._open))

    def wait_for(self, condition: Callable[[], object], *, timeout: float = 10.0) -> None:
        """Return as soon as *condition* holds; TimeoutError after *timeout* seconds.

        It is asked again, with no lock held, at each change here and each 20 ms.
        """
        end = time.monotonic() + timeout
        while True:
            seen = self._changes
            if condition():
                return
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self}: not so within {timeout:g} s; {self.connections}")
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(left, _POLL_INTERVAL))

    def __str__(self) -> str:
        where = "" if self._address is None else f" {self._address[0]}:{self._address[1]}"
        return f"{type(self).__name__}{where} ({self._state.value})"

    # Inside.

    def _move(self, state: _State) -> None:
        with self._changed:
            self._state = state
            self._wake()
            self._notify()

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _wake(self) -> None:
        if self._kept:
            with contextlib.suppress(BlockingIOError):  # full: it wakes up anyway
                self._kept[-1].send(b"x")

    def _keep_port(self) -> None:
        with contextlib.ExitStack() as undo:
            keeper = undo.enter_context(_bound(0))
            reader, writer = socket.socketpair()
            for end in (reader, writer):
                undo.enter_context(end).setblocking(False)
            self._address = keeper.getsockname()
            self._kept = [keeper, reader, writer]
            undo.pop_all()

    def _thread(self, target: Callable[..., None], *args: object, name: str) -> threading.Thread:
        return threading.Thread(
            target=target, args=args, name=f"{type(self).__name__}:{self.port}-{name}", daemon=True
        )

    def _join_acceptor(self) -> None:
        with self._changed:
            acceptor = self._acceptor
            if not self._changed.wait_for(lambda: self._acceptor is None, self._close_timeout):
                raise TimeoutError(f"{self}: still accepting after {self._close_timeout:g} s")
        if acceptor is not None:
            acceptor.join(self._close_timeout)

    def _accept_loop(self, listener: socket.socket) -> None:
        poller, woken = select.poll(), self._kept[1]
        try:
            with listener:
                poller.register(listener, select.POLLIN)
                poller.register(woken, select.POLLIN)
                while True:
                    with self._changed:
                        last = self._state is not _State.LISTENING
                        wanted = self._settle_wanted
                    self._accept_all(listener)
                    with self._changed:
                        self._settled = wanted
                        self._notify()
                    if last:
                        return
                    poller.poll()
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
        except Exception as error:
            self._fail(error)
        finally:
            with self._changed:
                self._acceptor = None
                self._notify()

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            connection.settimeout(None)  # whatever socket.setdefaulttimeout() says
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = self._thread(self._serve, connection, peer, name=str(self._accepted + 1))
            with self._changed:
                self._accepted += 1
                self._open[thread] = connection
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                self.opened(connection)
                self._notify()
            try:
                thread.start()
            except BaseException:
                with self._changed:
                    self._open.pop(thread).close()
                    self._threads.remove(thread)
                    self.closed(connection)
                raise

    def _settle(self) -> None:
        """Return when each connection the system has made by now went through `opened`."""
        with self._changed:
            self._settle_wanted = wanted = self._settle_wanted + 1
            self._wake()
        self.wait_for(
            lambda: self._settled >= wanted or self._acceptor is None, timeout=self._close_timeout
        )

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        thread = threading.current_thread()
        try:
            if self._ssl_context is None or self._secure(thread, self._ssl_context, peer):
                self.handle(self._open[thread], peer)
        except Exception as error:
            if not self._is_expected(error):
                self._fail(error)
        finally:
            with self._changed:
                ended = self._open.pop(thread)
                with contextlib.suppress(OSError):
                    # A forgotten makefile() must not keep the client waiting for the end.
                    socket.socket.shutdown(ended, socket.SHUT_RDWR)
                ended.close()
                self.closed(connection)
                self._notify()

    def _secure(
        self, thread: threading.Thread, context: ssl.SSLContext, peer: tuple[str, int]
    ) -> bool:
        with self._changed:  # stop() shall find the one or the other, never a detached socket
            secured = self._open[thread] = context.wrap_socket(
                self._open[thread], server_side=True, do_handshake_on_connect=False
            )
        secured.settimeout(_HANDSHAKE_TIMEOUT)
        try:
            secured.do_handshake()
        except OSError as error:
            _log().info("%s: no TLS with %s:%d: %s", self, *peer, error)
            return False
        secured.settimeout(None)
        return True

    def _is_expected(self, error: Exception) -> bool:
        if isinstance(error, self.silent):
            return True
        if self.ending.is_set() and isinstance(error, (OSError, EOFError)):
            return True
        if self._ssl_context is None:
            return False
        import ssl

        return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failures.append(error)
            self._notify()

    def _close(self) -> list[Exception]:
        failures: list[Exception] = []
        with self._door:
            self._move(_State.CLOSED)
        try:
            self.stop()
        except TimeoutError as error:
            failures.append(error)
        with self._changed:
            for kept in self._kept:
                kept.close()
            self._kept = []
            failures = self._failures + failures
            self._failures = []
        return failures


def _log() -> logging.Logger:
    import logging  # here: it would be half the import time of this module

    return logging.getLogger(__name__)


def _bound(port: int) -> socket.socket:
    """A socket bound to the port. On Linux several may be, if all say so and one listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound
