"""One connection through a FlakyProxy: two bounded queues between two sockets, one thread.

The thread never blocks but in poll(), which a byte in `_waker` ends: so each change of the
faults acts at once on what is already queued.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import math
import select
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from ._lost_answer import LostAnswer

__all__ = [
    "NO_FAULTS",
    "Board",
    "Direction",
    "Door",
    "Drip",
    "Link",
    "LinkState",
    "ResetRule",
]

_CHUNK = 65536
_QUEUE_LIMIT = 4 * _CHUNK  # a full queue stops the reading: the sender feels it, as it should
_DRAINED_CHUNKS = 64
_CONNECT_TIMEOUT = 10.0
_FLUSH_TIMEOUT = 1.0

Direction = Literal["requests", "replies"]


class Drip(NamedTuple):
    size: int
    every: float


class ResetRule:
    """Reset a connection after so many more bytes of it; *times* connections, None = each."""

    def __init__(self, after: int, times: int | None) -> None:
        self.after = after
        self.times = times


class Faults(NamedTuple):
    """What one direction suffers; replaced as a whole, never changed."""

    held: bool = False
    delay: float = 0.0
    drip: Drip | None = None
    reset: ResetRule | None = None


NO_FAULTS = Faults()


class Door(enum.Enum):
    OPEN = "each client is connected to the server"
    HANGING = "clients are accepted and hang"


class LinkState(enum.Enum):
    RUNNING = "running"
    CUT = "to be closed"
    RESET = "to be reset"
    CLOSED = "closed"


class Board:
    """What the connections of one proxy share. Guarded by `changed`."""

    def __init__(
        self, upstream: tuple[str, int], changed: threading.Condition, notify: Callable[[], None]
    ) -> None:
        self.upstream = upstream
        self.changed = changed
        self.notify = notify
        self.door = Door.OPEN
        self.faults: dict[Direction, Faults] = {"requests": NO_FAULTS, "replies": NO_FAULTS}
        self.armed: LostAnswer | None = None
        self.received: dict[Direction, int] = {"requests": 0, "replies": 0}
        self.passed: dict[Direction, int] = {"requests": 0, "replies": 0}


class _End(enum.Enum):
    """How a stream ended; queued behind its bytes, so that it suffers the same faults."""

    FIN = "closed"
    RST = "reset"


class _Stream:
    """One direction: reads from *source*, sends to *sink* what the faults let pass."""

    def __init__(
        self, link: Link, direction: Direction, source: socket.socket, sink: socket.socket
    ) -> None:
        self.link = link
        self.direction = direction
        self.source = source
        self.sink = sink
        self.blocked = False  # the sink takes nothing more now
        self.held = False  # this stream alone, after a lost answer
        self.finished = False  # the end has been passed on
        self._queue: deque[tuple[float, memoryview | _End]] = deque()
        self._size = 0
        self._ended = False  # nothing more to read
        self._deaf = False  # nobody reads what we send
        self._dripped = -math.inf
        self._rule: ResetRule | None = None
        self._rule_passed = 0
        self._asked: LostAnswer | None = None  # about the first chunk of the queue
        self._seen = bytearray()
        self._seen_for: LostAnswer | None = None
        self._claimed: LostAnswer | None = None  # by the first chunk of the queue

    @property
    def wants_more(self) -> bool:
        return not self._ended and self._size < _QUEUE_LIMIT

    def receive(self) -> None:
        board = self.link.board
        try:
            data = self.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.end(_End.RST)
            return
        if not data:
            self.end(_End.FIN)
            return
        with board.changed:
            board.received[self.direction] += len(data)
            board.notify()
        if self.direction == "replies" and self.link.awaited is not None:
            self.link.swallow(self.link.awaited, data)
        elif not self._deaf:
            self._queue.append((time.monotonic(), memoryview(data)))
            self._size += len(data)

    def end(self, how: _End) -> None:
        self._ended = True
        self._queue.append((time.monotonic(), how))

    def deliver(self) -> float | None:
        """Send what is due; when to come back, None = when a socket or a change wakes us."""
        link, board = self.link, self.link.board
        self.blocked = False
        while self._queue and link.state is LinkState.RUNNING:
            arrived, item = self._queue[0]
            with board.changed:
                faults = board.faults[self.direction]
                if faults.held or self.held:
                    return None
                due = arrived + faults.delay
                if faults.drip is not None:
                    due = max(due, self._dripped + faults.drip.every)
                if due > time.monotonic():
                    return due
                if isinstance(item, _End):
                    self._pass_end(item)
                    return None
                question = self._unasked()
                if question is None and not self._send(arrived, item, faults):
                    return None
            if question is not None:
                self._ask(question, item)  # a stranger's code: not under the lock
        return None

    def _pass_end(self, how: _End) -> None:
        self._queue.popleft()
        if how is _End.RST:
            self.link.end(LinkState.RESET)
            return
        self.finished = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

    def _send(self, arrived: float, item: memoryview, faults: Faults) -> bool:
        """Send a part of the first chunk; False when no more can be sent now."""
        board, limit = self.link.board, len(item)
        if faults.drip is not None:
            limit = min(limit, faults.drip.size)
        if faults.reset is not self._rule:
            self._rule, self._rule_passed = faults.reset, 0
        if self._rule is not None:
            limit = min(limit, self._rule.after - self._rule_passed)
        try:
            sent = self.sink.send(item[:limit]) if limit else 0
        except BlockingIOError:
            self.blocked = True
            return False
        except OSError:
            self._go_deaf()
            return False
        self._dripped = time.monotonic()
        self._size -= sent
        self._rule_passed += sent
        board.passed[self.direction] += sent
        board.notify()
        if sent < len(item):
            self._queue[0] = (arrived, item[sent:])
        else:
            self._queue.popleft()
            self._asked = None
            if self._claimed is not None:
                self.link.awaited, self._claimed = self._claimed, None
        if self._rule is not None and self._rule_passed >= self._rule.after:
            self._obey(self._rule, faults)
            return False
        return True

    def _obey(self, rule: ResetRule, faults: Faults) -> None:
        if rule.times is not None:
            rule.times -= 1
            if rule.times == 0:
                self.link.board.faults[self.direction] = faults._replace(reset=None)
        self.link.flush = self.sink
        self.link.end(LinkState.RESET)

    def _go_deaf(self) -> None:
        # The news travels the other way, behind what is queued there and by the faults there:
        # while requests are held, the server must not learn that its client is gone.
        self._deaf = True
        self._size = 0
        self._queue = deque(entry for entry in self._queue if isinstance(entry[1], _End))
        self.link.other(self).end(_End.RST)

    def _unasked(self) -> LostAnswer | None:
        """The armed loss that has not seen the first chunk of this stream."""
        armed, link = self.link.board.armed, self.link
        if self.direction == "replies" or link.awaited is not None or self._claimed is not None:
            return None
        return None if armed is self._asked else armed

    def _ask(self, question: LostAnswer, item: memoryview) -> None:
        if self._seen_for is not question:
            self._seen_for, self._seen = question, bytearray()
        self._seen += item
        del self._seen[: -LostAnswer.WINDOW]
        self._asked = question
        seen = bytes(self._seen)
        if question.is_request(seen):
            board = self.link.board
            with board.changed:
                if board.armed is question:
                    board.armed = None
                    question.claim(seen)
                    self._claimed = question
                    board.notify()


class Link:
    """One client's connection, from the moment it is accepted."""

    def __init__(self, board: Board, client: socket.socket) -> None:
        self.board = board
        self.state = LinkState.RUNNING
        self.awaited: LostAnswer | None = None  # its request went out, its answer comes next
        self.flush: socket.socket | None = None
        self._sockets = [client]
        self._streams: list[_Stream] = []
        self._woken: socket.socket | None = None
        self._waker: socket.socket | None = None

    # From any thread, under the lock.

    def end(self, how: LinkState) -> None:
        if self.state is LinkState.RUNNING:
            self.state = how
        self.wake()

    def wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(BlockingIOError):  # full: it wakes up anyway
                self._waker.send(b"x")

    def resume(self) -> None:
        for stream in self._streams:
            stream.held = False
        self.wake()

    # In the thread of the link.

    def run(self) -> None:
        try:
            with self.board.changed:
                self._woken, self._waker = socket.socketpair()
                for end in (self._woken, self._waker, *self._sockets):
                    end.setblocking(False)
            while self.board.door is Door.HANGING and self.state is LinkState.RUNNING:
                self._poll({})
            if self.state is LinkState.RUNNING and self._connect():
                self._pump()
        finally:
            if self.flush is not None:
                self._wait_until_arrived(self.flush)
            with self.board.changed:
                self._close()
                self.board.notify()

    def other(self, stream: _Stream) -> _Stream:
        return self._streams[1] if stream is self._streams[0] else self._streams[0]

    def swallow(self, loss: LostAnswer, data: bytes) -> None:
        if not loss.swallow(data):
            return
        with self.board.changed:
            self.awaited = None
            if loss.then == "hold":
                self._streams[1].held = True
            else:
                self.end(LinkState.RESET if loss.then == "reset" else LinkState.CUT)
            loss.done()
            self.board.notify()

    def _connect(self) -> bool:
        host, port = self.board.upstream
        upstream = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        with self.board.changed:
            self._sockets.append(upstream)
        upstream.setblocking(False)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + _CONNECT_TIMEOUT
        try:
            code = upstream.connect_ex((host, port))
            while code == errno.EINPROGRESS and self.state is LinkState.RUNNING:
                if upstream.fileno() in self._poll({upstream: select.POLLOUT}, end):
                    code = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                elif time.monotonic() > end:
                    code = errno.ETIMEDOUT
            if code and self.state is LinkState.RUNNING:
                raise OSError(code, errno.errorcode.get(code, "unknown error"))
        except OSError as error:
            import logging  # here: it would be half the import time of this module

            log = logging.getLogger(__name__)
            log.info("FlakyProxy: no connection to %s:%d: %s", host, port, error)
            with self.board.changed:
                self.end(LinkState.RESET)
        return self.state is LinkState.RUNNING

    def _pump(self) -> None:
        client, upstream = self._sockets
        streams = [
            _Stream(self, "requests", client, upstream),
            _Stream(self, "replies", upstream, client),
        ]
        self._streams = streams
        while True:
            dues = [due for stream in streams if (due := stream.deliver()) is not None]
            if self.state is not LinkState.RUNNING or all(stream.finished for stream in streams):
                return
            # A socket that nobody waits for is left out: its hang-up would make poll() spin.
            interest: dict[socket.socket, int] = {}
            for stream in streams:
                if stream.wants_more:
                    interest[stream.source] = interest.get(stream.source, 0) | select.POLLIN
                if stream.blocked:
                    interest[stream.sink] = interest.get(stream.sink, 0) | select.POLLOUT
            ready = self._poll(interest, min(dues, default=None))
            for stream in streams:
                if stream.wants_more and stream.source.fileno() in ready:
                    stream.receive()

    def _poll(self, interest: dict[socket.socket, int], until: float | None = None) -> set[int]:
        assert self._woken is not None
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        for waited, events in interest.items():
            poller.register(waited, events)
        left = None if until is None else max(0, int((until - time.monotonic()) * 1000) + 1)
        ready = {fd for fd, _ in poller.poll(left)}
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        return ready

    def _wait_until_arrived(self, sink: socket.socket) -> None:
        # A reset takes back what the peer's system has not acknowledged yet.
        end = time.monotonic() + _FLUSH_TIMEOUT
        while time.monotonic() < end:
            unacknowledged = fcntl.ioctl(sink, termios.TIOCOUTQ, struct.pack("i", 0))
            if not struct.unpack("i", unacknowledged)[0]:
                return
            self._poll({}, time.monotonic() + 0.001)

    def _close(self) -> None:
        for closed in self._sockets:
            with contextlib.suppress(OSError):
                if self.state is LinkState.RESET:
                    linger = struct.pack("ii", 1, 0)
                    closed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    closed.shutdown(socket.SHUT_WR)
                    # Closed with unread bytes, a socket sends a reset after all.
                    for _ in range(_DRAINED_CHUNKS):
                        if not closed.recv(_CHUNK):
                            break
            closed.close()
        self.state = LinkState.CLOSED
        for end in (self._woken, self._waker):
            if end is not None:
                end.close()
        self._waker = None
