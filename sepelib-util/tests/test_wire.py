"""Waits that end with the deadline: threads here, greenlets when patched."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import ThreadedServer, check_obeys_deadline
from sepelib.util.wire import ClippedFile, connect_clipped, is_silent, send_clipped

TOTAL = 0.3
GRACE = 2.0


class Script(ThreadedServer):
    """Reads once, sends *begin*, and then a byte at a time, or nothing."""

    silent = (OSError,)

    def __init__(self, begin: bytes, *, drip: bytes = b"", **options: Any) -> None:
        super().__init__(**options)
        self._begin = begin
        self._drip = drip

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        connection.recv(65536)
        connection.sendall(self._begin)
        while not self.ending.wait(0.02):
            if self._drip:
                connection.sendall(self._drip)


class Reply(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(ClippedFile(sock), *args, **kwargs)  # type: ignore[arg-type]


class Connection(http.client.HTTPConnection):
    response_class = Reply


class TlsConnection(http.client.HTTPSConnection):
    response_class = Reply


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def takes_the_total_time(call: Callable[[], object]) -> None:
    started = time.monotonic()
    with deadline(TOTAL), pytest.raises(DeadlineExceeded):
        call()
    assert TOTAL * 0.9 <= time.monotonic() - started < TOTAL + GRACE


@pytest.mark.parametrize("drip", [b"x", b""], ids=["drips", "stalls"])
@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    ],
    ids=["status", "header", "body", "chunk"],
)
def test_a_reply_that_does_not_come_ends_with_the_deadline(begin: bytes, drip: bytes) -> None:
    with Script(begin, drip=drip) as server:
        connection = Connection(server.host, server.port, timeout=30.0)
        takes_the_total_time(lambda: ask(connection))
        connection.close()


def test_so_it_does_through_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    begin = b"HTTP/1.1 200 OK\r\nX-Long: "
    with Script(begin, drip=b"x", ssl_context=server_side) as server:
        connection = TlsConnection(server.host, server.port, timeout=30.0, context=client_side)
        takes_the_total_time(lambda: ask(connection))
        connection.close()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    with Script(whole, ssl_context=server_side) as server:
        connection = TlsConnection(server.host, server.port, timeout=30.0, context=client_side)
        assert ask(connection) == b"abc"
        connection.close()


def test_it_obeys_a_deadline_as_all_do() -> None:
    with Script(b"HTTP/1.1 200 OK\r\nX-Long: ", drip=b"x") as server:

        def call() -> None:
            connection = Connection(server.host, server.port, timeout=30.0)
            try:
                ask(connection)
            finally:
                connection.close()

        check_obeys_deadline(call)


def test_without_a_deadline_each_wait_has_the_timeout_of_the_socket() -> None:
    with Script(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as server:
        connection = Connection(server.host, server.port, timeout=0.1)
        with pytest.raises(TimeoutError, match="no bytes came in time") as caught:
            ask(connection)
        assert not isinstance(caught.value, DeadlineExceeded)
        connection.close()


def test_a_whole_reply_is_read_and_the_end_of_a_half_one_is_seen() -> None:
    body = bytes(range(256)) * 1000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with Script(head + body) as server:
        connection = Connection(server.host, server.port, timeout=30.0)
        with deadline(20.0):
            assert ask(connection) == body
        connection.close()

    class Half(ThreadedServer):
        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            connection.recv(65536)
            connection.sendall(head + b"half")

    with Half() as server:
        connection = Connection(server.host, server.port, timeout=30.0)
        with pytest.raises(http.client.IncompleteRead):
            ask(connection)
        connection.close()


def test_sending_to_one_who_takes_nothing_ends_with_the_deadline() -> None:
    class Full(ThreadedServer):
        silent = (OSError,)

        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            self.ending.wait(20.0)

    body = b"x" * (64 << 20)
    with Full() as server, socket.create_connection(server.address) as sock:
        started = time.monotonic()
        with deadline(TOTAL), pytest.raises(TimeoutError):
            send_clipped(sock, body, 30.0, sock.sendall)
        assert time.monotonic() - started < TOTAL + GRACE


def test_all_that_is_sent_arrives_in_its_order() -> None:
    pieces: list[bytes] = []
    body = bytes(range(256)) * 4000
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_clipped(ours, body, 5.0, lambda piece: pieces.append(bytes(piece)))
        send_clipped(ours, b"", 5.0, lambda piece: pieces.append(b"never"))
    assert b"".join(pieces) == body and len(pieces) > 1


def test_a_connection_is_silent_until_something_comes_or_it_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_silent(ours)
        theirs.sendall(b"late")
        assert not is_silent(ours)
        assert ours.recv(10) == b"late", "it only looks"
        assert is_silent(ours)
        theirs.close()
        assert not is_silent(ours)
    assert not is_silent(ours), "closed by ourselves"


def test_the_first_address_that_takes_a_connection_is_taken() -> None:
    with Script(b"") as server:
        option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connect_clipped("localhost", server.port, 5.0, options=[option]) as sock:
            assert sock.getpeername()[1] == server.port and sock.gettimeout() == 5.0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        source = ("127.0.0.2", 0)
        with connect_clipped(server.host, server.port, 5.0, source_address=source) as sock:
            assert sock.getsockname()[0] == "127.0.0.2"


def test_no_connection_is_told_as_the_system_tells_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect_clipped("127.0.0.1", port, 5.0)
    with pytest.raises(socket.gaierror):
        connect_clipped("nowhere.invalid", 80, 5.0)
    with deadline(0.0), pytest.raises(DeadlineExceeded):
        connect_clipped("127.0.0.1", port, 5.0)


def test_connecting_to_one_who_does_not_answer_ends_with_the_deadline() -> None:
    # Its backlog is full, so the system drops what comes.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        started = time.monotonic()
        with deadline(TOTAL), pytest.raises(TimeoutError):
            connect_clipped(*address, 30.0)
        assert time.monotonic() - started < TOTAL + GRACE
        for sock in waiting:
            sock.close()
