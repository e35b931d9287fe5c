"""The hop behind a ZookeeperProxy that reads frames: counts requests, loses one answer."""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple, Self

from sepelib.util.testing import ThreadedServer
from sepelib.zookeeper.testing._frames import CONNECT_XID, Frames, kind_of, xid_of
from sepelib.zookeeper.testing._hub import off_the_hub

__all__ = ["FrameRelay", "LostReply", "Then"]

_CHUNK = 65536
_LIMIT = 4 * _CHUNK
_CONNECT_TIMEOUT = 10.0
_HELD_INTERVAL = 20  # milliseconds between two looks whether a held connection is released

Then = Literal["cut", "reset", "hold"]


class _State(enum.Enum):
    ARMED = "no such request came"
    CLAIMED = "the request went to the server, its answer has not come yet"
    LOST = "lost"
    CANCELLED = "cancelled"


class LostReply:
    """One answer that will be, or was, lost; made by `ZookeeperProxy.lose_answer_to`.

    In a `with` it insists: a block that ends well without such a request is an AssertionError,
    since its test has tested nothing.
    """

    def __init__(
        self, operation: str, containing: bytes, then: Then, disarm: Callable[[LostReply], None]
    ) -> None:
        self.operation = operation
        self.containing = containing
        self.then = then
        self.lost = threading.Event()
        """Set when the answer is swallowed."""
        self.request = b""
        """The frame whose answer it is."""
        self.answer = b""
        """The frame that the client did not get."""
        self._disarm = disarm
        self._state = _State.ARMED

    def __repr__(self) -> str:
        return f"<answer to {self.operation}: {self._state.value}>"

    def wait(self, *, timeout: float = 10.0) -> None:
        """Return when the answer is lost; TimeoutError after *timeout* seconds."""
        if not off_the_hub(self.lost.wait, timeout):
            raise TimeoutError(f"{self!r} after {timeout:g} s")

    def cancel(self) -> None:
        """Lose nothing any more; an answer whose request went out will be lost all the same."""
        self._disarm(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        if error is None and self._state is _State.CANCELLED:
            raise AssertionError(f"no answer was lost: no {self.operation} came")

    # For the relay, under its lock.

    def matches(self, operation: str, frame: bytes) -> bool:
        return operation == self.operation and self.containing in frame

    def claim(self, frame: bytes) -> None:
        self._state = _State.CLAIMED
        self.request = frame

    def swallow(self, frame: bytes) -> None:
        self._state = _State.LOST
        self.answer = frame
        self.lost.set()

    def cancelled(self) -> None:
        if self._state is _State.ARMED:
            self._state = _State.CANCELLED


class FrameRelay(ThreadedServer):
    """Passes whole frames between clients and the server at *upstream*."""

    # Whatever breaks between two sockets ends their connection, as in a network.
    silent = (OSError,)

    def __init__(self, upstream: tuple[str, int], *, close_timeout: float) -> None:
        super().__init__(close_timeout=close_timeout)
        self.upstream = upstream
        self.releases = 0
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._armed: LostReply | None = None

    def counts(self) -> Counter[str]:
        with self._lock:
            return self._counts.copy()

    def arm(self, loss: LostReply) -> None:
        with self._lock:
            if self._armed is not None:
                raise RuntimeError(f"{self}: {self._armed!r} is armed already: cancel() it first")
            self._armed = loss

    def disarm(self, loss: LostReply | None = None) -> None:
        """Forget *loss*, or whichever is armed."""
        with self._lock:
            if self._armed is not None and loss in (None, self._armed):
                self._armed.cancelled()
                self._armed = None

    def passes(self, operation: str, frame: bytes) -> LostReply | None:
        """Count a request that goes to the server now; the loss which waits for its answer."""
        with self._lock:
            self._counts[operation] += 1
            loss = self._armed
            if loss is None or not loss.matches(operation, frame):
                return None
            loss.claim(frame)
            self._armed = None
            return loss

    def swallows(self, loss: LostReply, frame: bytes) -> None:
        with self._lock:
            loss.swallow(frame)

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            upstream = socket.create_connection(self.upstream, _CONNECT_TIMEOUT)
        except OSError:
            _reset(connection)
            return
        with upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Conversation(self, connection, upstream).run()


class _Request(NamedTuple):
    xid: int
    loss: LostReply | None


class _Conversation:
    """One client and the server, in one thread that waits in poll() alone."""

    def __init__(self, relay: FrameRelay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._sending = {client: bytearray(), server: bytearray()}
        self._requests = Frames()
        self._replies = Frames()
        self._unanswered: list[_Request] = []
        self._greeted = {client: False, server: False}
        self._held: bytearray | None = None  # replies that wait for a release
        self._held_since = 0  # the relay's count of releases at that time
        self._over: Then | None = None

    def run(self) -> None:
        for end in (self._client, self._server):
            end.setblocking(False)
        while not self._relay.ending.is_set():
            ready = self._poll()
            if self._client in ready and not self._receive(self._client):
                # The server closes when it has read the end; a reset is as good as one here.
                self._send(self._server)
                return
            if self._server in ready and not self._receive(self._server):
                self._over = "cut"
            self._send(self._server)
            self._send(self._client)
            if self._over and not self._sending[self._client] and self._held is None:
                if self._over == "reset":
                    _reset(self._client)
                return

    def _poll(self) -> set[socket.socket]:
        if self._held is not None and self._relay.releases != self._held_since:
            self._sending[self._client] += self._held
            self._held = None
        interest = {self._client: 0, self._server: 0}
        if len(self._sending[self._server]) < _LIMIT:
            interest[self._client] |= select.POLLIN
        waiting = self._sending[self._client] if self._held is None else self._held
        if len(waiting) < _LIMIT and self._over is None:
            interest[self._server] |= select.POLLIN
        for end, data in self._sending.items():
            if data:
                interest[end] |= select.POLLOUT
        poller = select.poll()
        ends = {}
        for end, events in interest.items():
            if events:  # the hang-up of one that nobody waits for would make poll() spin
                poller.register(end, events)
                ends[end.fileno()] = end
        timeout = None if self._held is None else _HELD_INTERVAL
        return {
            ends[number]
            for number, event in poller.poll(timeout)
            if event & ~select.POLLOUT and interest[ends[number]] & select.POLLIN
        }

    def _receive(self, source: socket.socket) -> bool:
        """False at the end of what *source* says."""
        try:
            data = source.recv(_CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        if source is self._client:
            for frame in self._requests.feed(data):
                self._request(frame)
            if self._requests.plain:
                self._sending[self._server] += self._requests.rest()
        elif self._requests.plain:
            self._sending[self._client] += data
        else:
            for frame in self._replies.feed(data):
                self._reply(frame)
        return True

    def _first(self, source: socket.socket) -> bool:
        first = not self._greeted[source]
        self._greeted[source] = True
        return first

    def _request(self, frame: bytes) -> None:
        xid, operation = CONNECT_XID, "connect"
        if not self._first(self._client):
            xid, operation = xid_of(frame), kind_of(frame)
        self._unanswered.append(_Request(xid, self._relay.passes(operation, frame)))
        self._sending[self._server] += frame

    def _reply(self, frame: bytes) -> None:
        xid = CONNECT_XID if self._first(self._server) else xid_of(frame)
        loss = self._answered(xid)
        if loss is not None:
            self._relay.swallows(loss, frame)
            if loss.then == "hold":
                self._held, self._held_since = bytearray(), self._relay.releases
            else:
                self._over = loss.then
        elif self._held is not None:
            self._held += frame
        elif self._over is None:
            self._sending[self._client] += frame

    def _answered(self, xid: int) -> LostReply | None:
        """The loss that waits for the answer to the oldest request with this xid."""
        for i, request in enumerate(self._unanswered):  # an event answers none
            if request.xid == xid:
                del self._unanswered[i]
                return request.loss
        return None

    def _send(self, sink: socket.socket) -> None:
        data = self._sending[sink]
        with contextlib.suppress(BlockingIOError):
            while data:
                del data[: sink.send(data)]


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
