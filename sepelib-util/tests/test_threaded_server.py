import contextlib
import http.client
import http.server
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest
import trustme

from sepelib.util.testing._threaded_server import ThreadedServer

Peer = tuple[str, int]


class Echo(ThreadedServer):
    def handle(self, connection: socket.socket, peer: Peer) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)


class Failing(ThreadedServer):
    def handle(self, connection: socket.socket, peer: Peer) -> None:
        raise ValueError(f"no {connection.recv(100).decode()} here")


def connect(server: ThreadedServer) -> socket.socket:
    client = socket.create_connection(server.address, timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(server: ThreadedServer, data: bytes) -> bytes:
    with connect(server) as client:
        client.sendall(data)
        return client.recv(65536)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    with Echo() as warm:  # gevent opens files of its own at the first use
        ask(warm, b"x")
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_files() == files


def test_it_serves_on_the_loopback_at_a_port_of_its_own() -> None:
    with Echo() as one, Echo() as other:
        assert one.host == other.host == "127.0.0.1"
        assert one.port != other.port
        assert ask(one, b"one") == b"one"
        assert ask(other, b"other") == b"other"


def test_making_one_opens_nothing() -> None:
    files = open_files()
    server = Echo()
    assert open_files() == files
    with pytest.raises(RuntimeError, match="no address yet"):
        _ = server.address
    server.close()


def test_each_connection_has_a_handler_of_its_own() -> None:
    with Echo() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        for number, client in reversed(list(enumerate(clients))):
            assert client.recv(100) == b"%d" % number


def test_connections_are_counted() -> None:
    with Echo() as server:
        assert server.connections == (0, 0)
        with connect(server), connect(server):
            server.wait_for(lambda: server.connections == (2, 2))
        server.wait_for(lambda: server.connections == (2, 0))


def test_accepted_sockets_send_small_answers_at_once_and_ignore_the_default_timeout() -> None:
    seen: list[tuple[int, float | None]] = []

    class Look(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            nodelay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            seen.append((nodelay, connection.gettimeout()))

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    try:
        with Look() as server:
            assert ask(server, b"") == b""
    finally:
        socket.setdefaulttimeout(before)
    assert seen == [(1, None)]


def test_close_ends_open_connections_at_once() -> None:
    server = Echo().start()
    with connect(server) as idle, connect(server) as used:
        used.sendall(b"x")
        assert used.recv(1) == b"x"
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 2
        assert idle.recv(1) == used.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_close_ends_a_handler_that_cannot_write() -> None:
    class Flood(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            while True:
                connection.sendall(b"x" * 65536)

    with Flood() as server, connect(server) as client:
        assert client.recv(1) == b"x"


def test_close_ends_a_handler_that_waits_for_the_ending() -> None:
    class Slow(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            assert self.ending.wait(60)

    started = time.monotonic()
    with Slow() as server, connect(server):
        server.wait_for(lambda: server.connections.open == 1)
    assert time.monotonic() - started < 10


def test_a_handler_of_a_restarted_server_may_wait_again() -> None:
    ended: list[bool] = []

    class Slow(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            ended.append(self.ending.wait(0.001))

    with Slow() as server:
        server.restart()
        assert ask(server, b"") == b""
    assert ended == [False]


def test_a_file_that_a_handler_forgets_does_not_keep_its_client_waiting() -> None:
    forgotten: list[socket.SocketIO] = []

    class Forgetful(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            forgotten.append(connection.makefile("rb", buffering=0))

    with Forgetful() as server:
        assert ask(server, b"") == b""
    forgotten.pop().close()


def test_closing_twice_is_closing_once() -> None:
    server = Failing().start()
    ask(server, b"luck")
    with pytest.raises(ValueError, match="no luck here"):
        server.close()
    server.close()
    with pytest.raises(RuntimeError, match="cannot be started again"):
        server.start()


def test_one_that_was_never_started_closes() -> None:
    Echo().close()


def test_what_a_handler_raises_is_raised_at_close() -> None:
    with pytest.raises(ValueError, match="no luck here"), Failing() as server:
        assert ask(server, b"luck") == b""


def test_several_failures_come_as_a_group() -> None:
    server = Failing().start()
    ask(server, b"luck")
    ask(server, b"bread")
    with pytest.raises(ExceptionGroup) as caught:
        server.close()
    assert sorted(map(str, caught.value.exceptions)) == ["no bread here", "no luck here"]


def test_a_failing_block_keeps_its_error_and_logs_the_handlers_error_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Failing()

    def block() -> None:
        with server:
            ask(server, b"luck")
            raise KeyError("the block's own")

    with pytest.raises(KeyError, match="the block's own"):
        block()
    server.close()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "no luck here" in record.getMessage()


def test_a_client_that_resets_is_no_failure() -> None:
    with Echo() as server:
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.wait_for(lambda: server.connections == (1, 0))


def test_a_subclass_says_which_errors_are_a_tests_daily_life() -> None:
    class Quiet(Failing):
        silent = (ValueError,)

    with Quiet() as server:
        assert ask(server, b"luck") == b""


def test_a_handler_that_does_not_end_is_named() -> None:
    go_on = threading.Event()

    class Stuck(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            go_on.wait(60)

    server = Stuck(close_timeout=0.1).start()
    with connect(server):
        server.wait_for(lambda: server.connections.open == 1)
        with pytest.raises(TimeoutError, match=f"still running.*Stuck:{server.port}-1"):
            server.close()
        go_on.set()
        server.wait_for(lambda: server.connections.open == 0)
    server.close()


def test_a_handler_may_close_its_server() -> None:
    class Once(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            self.stop()

    with Once() as server:
        with connect(server) as client:
            assert client.recv(1) == b""
        server.wait_for(lambda: server.connections.open == 0)
        with pytest.raises(ConnectionRefusedError):
            connect(server)


def test_refuse_shuts_the_door_and_leaves_the_guests() -> None:
    with Echo() as server, connect(server) as guest:
        server.refuse()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connect(server)
        guest.sendall(b"still here")
        assert guest.recv(100) == b"still here"
        server.start()
        assert ask(server, b"back") == b"back"


def test_refuse_loses_no_connection_that_was_made_before() -> None:
    with Echo() as server:
        for _ in range(50):
            with connect(server) as guest:
                server.refuse()
                guest.sendall(b"x")
                assert guest.recv(1) == b"x"
            server.start()


def test_nobody_else_is_given_the_port_meanwhile() -> None:
    with Echo() as server:
        server.refuse()
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(server.address)


def test_restart_ends_connections_and_comes_back_on_the_same_port() -> None:
    with Echo() as server:
        address = server.address
        for round_number in range(5):
            with connect(server) as client:
                server.restart()
                assert client.recv(1) == b""
            assert server.address == address
            assert ask(server, b"%d" % round_number) == b"%d" % round_number


def test_doors_may_be_worked_by_many_at_once() -> None:
    with Echo() as server:

        def work() -> None:
            for _ in range(20):
                server.refuse()
                server.start()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ask(server, b"x") == b"x"


def test_wait_for_says_that_it_was_not_so() -> None:
    with Echo() as server, pytest.raises(TimeoutError, match="not so within"):
        server.wait_for(lambda: server.connections.open == 1, timeout=0.05)


def test_wait_for_asks_again_when_nothing_changes_here() -> None:
    flags: list[int] = []
    with Echo() as server:
        server.wait_for(lambda: flags.append(0) or len(flags) > 3)


def test_an_http_server_is_a_handler_class_away() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *args: object) -> None: ...

    class Http(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            Page(connection, peer, self)  # type: ignore[arg-type]

    with Http() as server:
        client = http.client.HTTPConnection(*server.address, timeout=10)
        for path in ("/one", "/two"):
            client.request("GET", path)
            assert client.getresponse().read() == path.encode()
        assert server.connections.accepted == 1
        client.close()


def test_an_xmlrpc_server_is_a_dispatcher_away() -> None:
    class XmlRpc(ThreadedServer, SimpleXMLRPCDispatcher):
        logRequests = False

        def __init__(self) -> None:
            ThreadedServer.__init__(self)
            SimpleXMLRPCDispatcher.__init__(self)

        def handle(self, connection: socket.socket, peer: Peer) -> None:
            SimpleXMLRPCRequestHandler(connection, peer, self)  # type: ignore[arg-type]

    with XmlRpc() as server:
        server.register_function(lambda a, b: a + b, "add")
        with ServerProxy(f"http://127.0.0.1:{server.port}/") as client:
            assert client.add(2, 3) == 5


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls() -> Contexts:
    authority = trustme.CA()
    contexts = Contexts(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context())
    authority.issue_cert("127.0.0.1").configure_cert(contexts.server)
    authority.configure_trust(contexts.client)
    return contexts


def test_it_talks_tls(tls: Contexts) -> None:
    with Echo(ssl_context=tls.server) as server, connect(server) as plain:
        with tls.client.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(b"secret")
            assert client.recv(100) == b"secret"
        server.wait_for(lambda: server.connections == (1, 0))


def test_a_client_that_distrusts_the_certificate_is_no_failure(tls: Contexts) -> None:
    with Echo(ssl_context=tls.server) as server, connect(server) as plain:
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")
        server.wait_for(lambda: server.connections == (1, 0))


def test_close_ends_tls_connections_before_and_after_the_handshake(tls: Contexts) -> None:
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        with Echo(ssl_context=tls.server) as server:
            silent = stack.enter_context(connect(server))
            client = tls.client.wrap_socket(
                stack.enter_context(connect(server)), server_hostname="127.0.0.1"
            )
            stack.enter_context(client)
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert server.connections == (2, 2)
        assert time.monotonic() - started < 5
        assert silent.recv(1) == client.recv(1) == b""
