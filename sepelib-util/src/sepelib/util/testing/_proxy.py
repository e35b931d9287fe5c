"""A TCP proxy that does to connections what networks do to them, when a test says so."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ._link import NO_FAULTS, Board, Direction, Door, Drip, Link, LinkState, ResetRule
from ._lost_answer import LostAnswer
from ._threaded_server import ThreadedServer

__all__ = ["FlakyProxy", "LostAnswer", "Traffic"]

_BOTH: tuple[Direction, ...] = ("requests", "replies")


class Traffic(NamedTuple):
    """Bytes by direction: requests go from clients to the server, replies come back."""

    requests: int
    replies: int


class FlakyProxy(ThreadedServer):
    """A proxy in front of a real server, with faults that change while connections run.

        with FlakyProxy("127.0.0.1", server_port) as proxy:
            client = connect(*proxy.address)
            proxy.hold_replies()        # nothing comes back, nothing is closed
            proxy.resume()              # what was held arrives now

    What passes is decided at each send, under one lock with the change of faults: when a method
    returns, not a byte passes by the old ones, on connections old or new. Faults of one
    direction add up; `heal()` takes all of them away. TLS passes as it is.

    The end of one direction (a half-close) is passed on as such, behind the bytes before it and
    by their faults; a reset likewise. A client whose server cannot be reached is reset. A
    direction keeps 256 KiB at most, then it stops reading, so that the sender is slowed down.
    """

    def __init__(
        self, upstream_host: str, upstream_port: int, *, close_timeout: float = 5.0
    ) -> None:
        super().__init__(close_timeout=close_timeout)
        self._board = Board((upstream_host, upstream_port), self._changed, self._notify)
        self._links: dict[socket.socket, Link] = {}

    # Time.

    def delay(self, *, requests: float | None = None, replies: float | None = None) -> None:
        """Pass each chunk so many seconds after it came, in order; None leaves it as it is.

        A latency, not a bandwidth: chunks wait side by side, up to 256 KiB of them.
        """
        with self._changed:
            if requests is not None:
                self._set(("requests",), delay=requests)
            if replies is not None:
                self._set(("replies",), delay=replies)

    def drip(self, count: int, every: float, *, direction: Direction = "replies") -> None:
        """Pass at most *count* bytes each *every* seconds."""
        if count < 1:
            raise ValueError(f"count is {count}: drip at least one byte, or hold")
        self._set((direction,), drip=Drip(count, every))

    # Silence.

    def hold(self) -> None:
        """Pass nothing either way and close nothing, as when a cable is pulled."""
        self._set(_BOTH, held=True)

    def hold_requests(self) -> None:
        """Pass nothing to the server, not even that a client is gone."""
        self._set(("requests",), held=True)

    def hold_replies(self) -> None:
        """Pass nothing to the clients, not even that the server is gone."""
        self._set(("replies",), held=True)

    def resume(self) -> None:
        """Hold no more, and deliver what was held."""
        with self._changed:
            self._set(_BOTH, held=False)
            for link in self._links.values():
                link.resume()

    # Ends.

    def cut(self, *, reset: bool = False) -> int:
        """Close each open connection on both sides; returns how many, once all are closed.

        By FIN, or by RST (*reset*). What was held or delayed is dropped. A client that has
        connected before this call is cut; one that connects afterwards is not.
        """
        self._settle()
        with self._changed:
            threads = list(self._open)
            for connection in self._open.values():
                self._links[connection].end(LinkState.RESET if reset else LinkState.CUT)
        self.wait_for(
            lambda: not any(thread in self._open for thread in threads),
            timeout=self._close_timeout,
        )
        return len(threads)

    def reset_after(
        self, count: int, *, direction: Direction = "replies", times: int | None = 1
    ) -> None:
        """Let *count* more bytes of a connection pass, then reset it on both sides.

        Each connection counts for itself, an open one from now. *times*: so many connections
        are reset, the next ones live; None = each, until `heal()`.
        """
        if count < 0:
            raise ValueError(f"count is {count}: it cannot be negative")
        self._set((direction,), reset=ResetRule(count, times))

    def lose_answer(
        self,
        request: Callable[[bytes], object] = lambda data: True,
        *,
        answer: Callable[[bytes], object] | None = None,
        then: Literal["cut", "reset", "hold"] = "cut",
    ) -> LostAnswer:
        """Lose the answer to the first request that matches, exactly one, on any connection.

            with proxy.lose_answer(lambda data: b"SET" in data):
                with pytest.raises(ConnectionError):
                    client.set("x", 1)          # the server has x, the client does not know

        *request* is called before a chunk is sent to the server, with all bytes that this
        connection has sent since the loss was armed (at most the last MiB): a frame that came in
        two pieces is seen whole at the second. The chunk goes to the server, and what the server
        sends from then on is swallowed, until *answer* holds for all of that (default: at the
        first bytes). Give it where requests are pipelined or the server speaks unasked, so that
        a ping's reply is not taken for the answer, and where an answer comes in several chunks.
        Then the connection is closed, or reset, or with "hold" its replies are held until
        `resume()`. One loss can be armed at a time; it is disarmed once a request matched.
        """
        loss = LostAnswer(request, answer, then, self._disarm)
        with self._changed:
            if self._board.armed is not None:
                raise RuntimeError(f"{self}: an answer is to be lost already: cancel() that first")
            self._board.armed = loss
        return loss

    # Newcomers. refuse() and start() are of ThreadedServer.

    def accept(self) -> None:
        """Connect new clients to the server, and those that hang."""
        self._open_door(Door.OPEN)

    def accept_and_hang(self) -> None:
        """Accept new clients and do nothing with them: not read, not connected, not closed."""
        self._open_door(Door.HANGING)

    def redirect(self, upstream_host: str, upstream_port: int) -> None:
        """Connect new clients to another server."""
        with self._changed:
            self._board.upstream = (upstream_host, upstream_port)

    def heal(self) -> None:
        """No fault any more: accept, pass and deliver all."""
        with self._changed:
            self._board.faults = dict.fromkeys(_BOTH, NO_FAULTS)
            if self._board.armed is not None:
                self._disarm(self._board.armed)
        self.resume()
        self.accept()

    # What a test asks.

    @property
    def received(self) -> Traffic:
        """Bytes that came to the proxy, held and swallowed ones too."""
        with self._changed:
            return Traffic(**self._board.received)

    @property
    def passed(self) -> Traffic:
        """Bytes that the proxy has sent on."""
        with self._changed:
            return Traffic(**self._board.passed)

    # Inside.

    def opened(self, connection: socket.socket) -> None:
        self._links[connection] = Link(self._board, connection)

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        self._links[connection].run()

    def interrupt(self, connection: socket.socket) -> None:
        self._links[connection].end(LinkState.CUT)

    def closed(self, connection: socket.socket) -> None:
        del self._links[connection]

    def _set(self, directions: tuple[Direction, ...], **fault: Any) -> None:
        with self._changed:
            for direction in directions:
                changed = self._board.faults[direction]._replace(**fault)
                self._board.faults[direction] = changed
            self._wake_links()

    def _wake_links(self) -> None:
        for link in self._links.values():
            link.wake()

    def _open_door(self, door: Door) -> None:
        with self._changed:
            self._board.door = door
            self._wake_links()
        self.start()

    def _disarm(self, loss: LostAnswer) -> None:
        with self._changed:
            if self._board.armed is loss:
                self._board.armed = None
            loss.cancelled()
