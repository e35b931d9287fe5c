"""HttpTestServer, spoken to by hand: what a fault promises is what is on the wire."""

import contextlib
import gc
import gzip
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest
import trustme

from sepelib.http.testing import (
    Exchange,
    Fault,
    HttpTestServer,
    ReceivedRequest,
    Reply,
    faults,
    unanswered_address,
)

DATA_SEGMENTS_IN = 152  # where tcpi_data_segs_in is in struct tcp_info of Linux
LIMIT = 20.0  # seconds; far more than anything here takes
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
LAST_GET = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
BODY = b"0123456789" * 10


class Client:
    """A connection to the server, in bytes."""

    def __init__(self, server: HttpTestServer, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(server.address, timeout=LIMIT)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self) -> tuple[str, dict[str, str]]:
        """The status line, and the headers with their names in lower case."""
        while b"\r\n\r\n" not in self.pending:
            self.receive()
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        return first, {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}

    def body(self, length: int) -> bytes:
        while len(self.pending) < length:
            self.receive()
        body, self.pending = self.pending[:length], self.pending[length:]
        return body

    def answer(self) -> tuple[str, dict[str, str], bytes]:
        first, headers = self.head()
        return first, headers, self.body(int(headers["content-length"]))

    def rest(self) -> bytes:
        """All that comes until the server ends the connection, which it has to do in peace."""
        with contextlib.suppress(EOFError):
            while True:
                self.receive()
        rest, self.pending = self.pending, b""
        return rest

    def is_silent(self) -> bool:
        """Nothing has come, and does not for a moment."""
        self.socket.settimeout(0.05)
        try:
            self.receive()
        except TimeoutError:
            return not self.pending
        finally:
            self.socket.settimeout(LIMIT)
        return False

    def receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.pending += data


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    """With a route /x, and gone without a trace afterwards."""
    with HttpTestServer() as warm, Client(warm) as client:  # gevent opens files at the first use
        client.send(GET)
        client.answer()
    gc.collect()  # what other tests have left must not go away in between
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    with HttpTestServer() as server:
        server.route("GET", "/x", body=BODY)
        yield server
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


@pytest.fixture
def client(server: HttpTestServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def elapsed_since(start: float) -> float:
    return time.monotonic() - start


# Routes and what comes from them.


def test_a_route_answers_with_its_status_headers_and_body(
    server: HttpTestServer, client: Client
) -> None:
    server.route("POST", "/y", status=201, headers={"X-One": "1"}, body="grüß")
    client.send(b"POST /y?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
    first, headers, body = client.answer()
    assert first == "HTTP/1.1 201 Created"
    assert headers["x-one"] == "1" and headers["content-type"] == "text/plain; charset=utf-8"
    assert body.decode() == "grüß"


def test_a_route_may_be_json_or_a_function_and_have_names_in_its_path(
    server: HttpTestServer, client: Client
) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        return Reply(json=dict(request.args))

    server.route("GET", "/users/{id}/files/{name:path}", answer)
    server.route("*", "/json", json=None)
    client.send(b"GET /users/a%2Fb/files/c/d%20e HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.answer()[2] == b'{"id": "a/b", "name": "c/d e"}'
    client.send(b"DELETE /json HTTP/1.1\r\nHost: h\r\n\r\n")
    _, headers, body = client.answer()
    assert body == b"null" and headers["content-type"] == "application/json"


def test_a_later_route_wins_and_a_route_of_the_method_wins_over_one_of_any(
    server: HttpTestServer, client: Client
) -> None:
    server.route("GET", "/{any}", body="new")
    server.route("*", "/x", body="any")
    client.send(GET)
    assert client.answer()[2] == b"new"


def test_what_has_no_route_is_echoed(server: HttpTestServer, client: Client) -> None:
    client.send(b"PUT /no?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n\xff\x00a")
    assert b'"target": "/no?q=1"' in client.answer()[2]
    assert server.requests[0].body == b"\xff\x00a"


def test_head_gets_the_headers_of_get_and_no_body(server: HttpTestServer, client: Client) -> None:
    for _ in range(2):
        client.send(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.head()[1]["content-length"] == "100"
    assert client.pending == b""


def test_a_body_that_is_made_as_it_goes_comes_in_chunks(
    server: HttpTestServer, client: Client
) -> None:
    server.route("GET", "/chunks", body=[b"one", b"", b"twelve bytes"])
    client.send(b"GET /chunks HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert client.head()[1]["transfer-encoding"] == "chunked"
    assert client.rest() == b"3\r\none\r\nc\r\ntwelve bytes\r\n0\r\n\r\n"


# Connections and the journal.


def test_a_connection_lives_on_and_each_answer_is_one_write(
    server: HttpTestServer, client: Client
) -> None:
    for _ in range(3):
        client.send(GET)
        _, headers, body = client.answer()
        assert body == BODY and "connection" not in headers
    assert server.connections == (1, 1)
    info = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    assert struct.unpack_from("I", info, DATA_SEGMENTS_IN) == (3,)


def test_two_requests_at_once_get_two_answers(server: HttpTestServer, client: Client) -> None:
    client.send(GET + GET)
    assert client.answer() == client.answer()


@pytest.mark.parametrize(
    "request_",
    [GET.replace(b"1.1", b"1.0"), LAST_GET],
)
def test_a_client_that_wants_no_more_gets_the_end(
    server: HttpTestServer, client: Client, request_: bytes
) -> None:
    client.send(request_)
    assert client.answer()[1]["connection"] == "close"
    assert client.rest() == b""


def test_the_journal_has_each_request_as_it_came(server: HttpTestServer, client: Client) -> None:
    start = time.monotonic()
    client.send(b"PATCH /a%20b?q=%2F&e= HTTP/1.1\r\nhOst: h\r\nX-A: 1\r\nx-a:2\r\n\r\n")
    client.answer()
    with Client(server) as second:
        second.send(b"GET /x HTTP/1.0\r\n\r\n")
        second.answer()
    first, other = server.requests
    assert (first.method, first.target, first.path) == ("PATCH", "/a%20b?q=%2F&e=", "/a%20b")
    assert first.query == (("q", "/"), ("e", ""))
    assert first.headers == (("hOst", "h"), ("X-A", "1"), ("x-a", "2"))
    assert first.header("X-a") == "1, 2" and first.header("none") is None
    assert (first.connection, other.connection) == (1, 2)
    assert (first.version, other.version) == ("HTTP/1.1", "HTTP/1.0")
    assert start <= first.time <= other.time <= time.monotonic()


def test_a_body_in_chunks_is_journaled_without_their_framing(
    server: HttpTestServer, client: Client
) -> None:
    client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b'6;a=b\r\n{"a": \r\n2\r\n1}\r\n0\r\nTrailer: x\r\n\r\n')
    client.answer()
    assert server.requests[0].json() == {"a": 1}


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(
    server: HttpTestServer, client: Client
) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client.send(head)
    assert client.head()[0] == "HTTP/1.1 100 Continue"
    client.send(b"hi")
    assert client.answer()[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "request_",
    [
        b"HELO example.org\r\n\r\n",
        b"GET /x HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * (2 << 20),
    ],
)
def test_what_is_not_http_fails_the_test_of_that_client(request_: bytes) -> None:
    server = HttpTestServer().start()
    with Client(server) as client, contextlib.suppress(ConnectionError):
        client.send(request_)
        client.rest()
    with pytest.raises(ValueError, match=r"."):
        server.close()


def test_an_error_of_a_route_fails_the_test() -> None:
    def broken(request: ReceivedRequest) -> Reply:
        raise LookupError(f"nothing at {request.path}")

    server = HttpTestServer().start()
    server.route("GET", "/x", broken)
    with Client(server) as client:
        client.send(GET)
        assert client.rest() == b""
    with pytest.raises(LookupError, match="nothing at /x"):
        server.close()


def test_a_client_that_goes_in_the_middle_of_a_request_is_daily_life(
    server: HttpTestServer, client: Client
) -> None:
    client.send(b"POST /x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    client.socket.close()
    server.wait_for(lambda: server.connections == (1, 0))
    assert server.requests == ()


# Which fault strikes when.


def test_next_strikes_as_often_as_it_was_told_and_in_order(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.unavailable(status=500), times=None)
    server.next(faults.unavailable(status=501), times=2)
    server.next(faults.unavailable(status=502))
    seen = []
    for _ in range(5):
        client.send(GET)
        seen.append(client.answer()[0][9:12])
    server.heal()
    client.send(GET)
    assert [*seen, client.answer()[0][9:12]] == ["501", "501", "502", "500", "500", "200"]


def test_next_may_wait_for_a_path(server: HttpTestServer, client: Client) -> None:
    server.next(faults.unavailable(), path="/x")
    client.send(b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n" + GET + GET)
    assert [client.answer()[0][9:12] for _ in range(3)] == ["200", "503", "200"]


def test_a_fault_of_a_route_strikes_there_each_time_after_those_that_are_next(
    server: HttpTestServer, client: Client
) -> None:
    server.route("GET", "/bad", fault=faults.unavailable())
    bad = b"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n"
    server.next(faults.unavailable(status=429))
    client.send(bad + bad + GET)
    assert [client.answer()[0][9:12] for _ in range(3)] == ["429", "503", "200"]


def test_faults_of_an_earlier_stage_have_no_path(server: HttpTestServer) -> None:
    with pytest.raises(ValueError, match="use next"):
        server.route("GET", "/x", fault=faults.reset_on_arrival())
    with pytest.raises(ValueError, match="before a path"):
        server.next(faults.slow_accept(1.0), path="/x")


def test_a_fault_of_ones_own_has_the_exchange_in_its_hands(
    server: HttpTestServer, client: Client
) -> None:
    def deliver(exchange: Exchange) -> None:
        exchange.send(exchange.head() + exchange.request.target.encode() + exchange.body())

    server.next(Fault("own", deliver))
    client.send(GET)
    assert client.answer()[2] == (b"/x" + BODY)[:100]
    assert client.body(2) == BODY[-2:]


def test_at_an_early_stage_there_is_neither_request_nor_reply() -> None:
    failures: list[str] = []

    def deliver(exchange: Exchange) -> None:
        for name in ("request", "reply"):
            try:
                getattr(exchange, name)
            except RuntimeError as error:
                failures.append(str(error))

    with HttpTestServer() as server, Client(server) as client:
        server.next(Fault("curious", deliver, "arrival"))
        client.send(GET)
        client.answer()
    assert len(failures) == 2


# Faults before an answer.


def test_slow_accept_leaves_a_connection_alone(server: HttpTestServer) -> None:
    server.next(faults.slow_accept(0.2))
    start = time.monotonic()
    with Client(server) as client:
        client.send(GET)
        assert client.answer()[2] == BODY
    assert elapsed_since(start) >= 0.2


def test_reset_on_arrival_reads_nothing(server: HttpTestServer, client: Client) -> None:
    server.next(faults.reset_on_arrival())
    client.send(b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n")
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert server.requests == () and server.connections.accepted == 1


def test_reset_comes_after_the_request_was_journaled(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.reset())
    client.send(GET)
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert len(server.requests) == 1


def test_close_ends_the_connection_in_peace_and_without_an_answer(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.close())
    client.send(GET)
    assert client.rest() == b"" and len(server.requests) == 1


def test_garbage_is_sent_as_it_is(server: HttpTestServer, client: Client) -> None:
    server.next(faults.garbage(b"\x00\x01 what?"))
    client.send(GET)
    assert client.rest() == b"\x00\x01 what?"


def test_late_is_the_whole_answer_after_a_while(server: HttpTestServer, client: Client) -> None:
    server.next(faults.late(0.2))
    start = time.monotonic()
    client.send(GET)
    assert client.answer()[2] == BODY and elapsed_since(start) >= 0.2


def test_hold_sends_nothing_until_it_is_released(server: HttpTestServer, client: Client) -> None:
    server.next(faults.hold(), times=2)
    for _ in range(2):  # a release is for what is held by then, not for later
        client.send(GET)
        assert client.is_silent()
        server.release()
        assert client.answer()[2] == BODY


def test_what_is_held_ends_when_the_client_goes(server: HttpTestServer, client: Client) -> None:
    server.next(faults.hold())
    client.send(GET)
    server.wait_for(lambda: server.requests)
    client.socket.close()
    server.wait_for(lambda: server.connections == (1, 0))


def test_what_is_held_or_slow_ends_when_the_server_stops(server: HttpTestServer) -> None:
    server.next(faults.hold())
    server.next(faults.drip_body(3600.0))
    server.next(faults.slow_accept(3600.0))
    with Client(server) as slow:
        server.wait_for(lambda: server.connections.accepted == 1)
        with Client(server) as held, Client(server) as dripping:
            held.send(GET)
            server.wait_for(lambda: len(server.requests) == 1)
            dripping.send(GET)
            assert dripping.head()[0] == "HTTP/1.1 200 OK"
            server.stop()
            assert server.connections.open == 0
            assert slow.rest() + held.rest() == b""


def test_unavailable_says_when_to_come_again(server: HttpTestServer, client: Client) -> None:
    server.next(faults.unavailable(retry_after=2))
    server.next(faults.unavailable(status=429, retry_after="Fri, 31 Dec 1999 23:59:59 GMT"))
    client.send(GET + GET)
    first, headers, _ = client.answer()
    assert first == "HTTP/1.1 503 Service Unavailable" and headers["retry-after"] == "2"
    first, headers, _ = client.answer()
    assert first == "HTTP/1.1 429 Too Many Requests" and headers["retry-after"].startswith("Fri")


def test_a_redirect_goes_where_it_is_told_and_a_loop_to_where_it_is(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.redirect("http://localhost:1/y", status=307))
    server.next(faults.redirect_loop())
    client.send(GET + GET.replace(b"/x", b"/x?n=1"))
    first, headers, _ = client.answer()
    assert first.startswith("HTTP/1.1 307 ") and headers["location"] == "http://localhost:1/y"
    first, headers, _ = client.answer()
    assert first.startswith("HTTP/1.1 302 ") and headers["location"] == "/x?n=1"


# Faults of the headers.


def test_informational_answers_come_before_the_real_one(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.informational(times=2))
    client.send(GET)
    assert client.head() == ("HTTP/1.1 103 Early Hints", {})
    assert client.head() == ("HTTP/1.1 103 Early Hints", {})
    assert client.answer()[2] == BODY


def test_dripped_headers_come_so_many_bytes_at_a_time(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.drip_headers(0.02, count=5))
    start = time.monotonic()
    client.send(GET)
    client.receive()
    assert len(client.pending) <= 20  # a few drops, if this greenlet was late
    head_length = len("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert client.answer()[2] == BODY
    assert elapsed_since(start) >= 0.02 * (head_length // 5 - 1)


def test_headers_may_be_many_and_long(server: HttpTestServer, client: Client) -> None:
    server.next(faults.many_headers(150, size=1000))
    client.send(GET)
    _, headers, body = client.answer()
    assert body == BODY
    assert [len(headers[f"x-header-{n}"]) for n in range(150)] == [1000] * 150


def test_a_hold_after_the_headers_keeps_the_body_back(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.hold_after_headers())
    client.send(GET)
    assert client.head()[1]["content-length"] == "100"
    assert client.is_silent()
    server.release()
    assert client.body(100) == BODY


# Faults of the body.


def test_a_dripped_body_comes_so_many_bytes_at_a_time_and_on_release_at_once(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.drip_body(3600.0, count=7))
    client.send(GET)
    client.head()
    assert client.body(7) == BODY[:7] and client.is_silent()
    server.release()
    assert client.body(93) == BODY[7:]


def test_a_reset_in_the_middle_of_the_body_comes_after_its_first_half(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.reset_mid_body())
    client.send(GET)
    assert client.head()[1]["content-length"] == "100"
    with pytest.raises(ConnectionResetError):
        client.body(100)
    assert client.pending == BODY[:50]


def test_a_reset_waits_until_a_large_half_has_reached_the_client(
    server: HttpTestServer, client: Client
) -> None:
    size = 16 << 20  # more than the buffers between the two hold
    server.route("GET", "/large", body=bytes(size + 1), fault=faults.reset_mid_body(sent=size))
    client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    client.head()
    with pytest.raises(ConnectionResetError):
        client.body(size + 1)
    assert len(client.pending) == size


def test_a_content_length_may_be_too_long(server: HttpTestServer, client: Client) -> None:
    server.next(faults.content_length_too_long(5))
    client.send(GET)
    assert client.head()[1]["content-length"] == "105"
    assert client.rest() == BODY


def test_a_content_length_may_be_too_short_on_a_connection_that_goes_on(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.content_length_too_short(3))
    client.send(GET)
    assert client.answer()[2] == BODY[:97]
    client.send(GET)
    assert client.body(3) == BODY[97:]  # to a client that trusts it: the next answer
    assert client.answer()[2] == BODY


def test_chunks_may_have_no_end(server: HttpTestServer, client: Client) -> None:
    server.next(faults.chunked_without_end())
    client.send(GET)
    assert client.head()[1] == {"transfer-encoding": "chunked"}
    assert client.rest() == b"64\r\n" + BODY + b"\r\n"


def test_a_chunk_may_have_no_size(server: HttpTestServer, client: Client) -> None:
    server.next(faults.invalid_chunk())
    client.send(GET)
    assert client.head()[1] == {"transfer-encoding": "chunked"}
    assert client.rest() == b"64\r\n" + BODY + b"\r\nnot a size\r\n"


def test_corrupted_gzip_begins_as_gzip_and_is_none(server: HttpTestServer, client: Client) -> None:
    server.next(faults.corrupted_gzip())
    client.send(GET)
    _, headers, body = client.answer()
    assert headers["content-encoding"] == "gzip" and body.startswith(b"\x1f\x8b")
    with pytest.raises(Exception, match="Error -3"):
        gzip.decompress(body)


def test_a_gzip_bomb_is_as_large_as_was_asked_for(server: HttpTestServer, client: Client) -> None:
    size = (3 << 20) + 5
    server.next(faults.gzip_bomb(size))
    client.send(LAST_GET)
    assert client.head()[1]["content-encoding"] == "gzip"
    squeezed, rest = b"", client.rest()
    while rest != b"0\r\n\r\n":
        length, rest = rest.split(b"\r\n", 1)
        squeezed += rest[: int(length, 16)]
        rest = rest[int(length, 16) + 2 :]
    assert gzip.decompress(squeezed) == bytes(size)
    assert len(squeezed) < size / 500


def test_a_gzip_bomb_is_made_as_it_is_read(server: HttpTestServer, client: Client) -> None:
    server.next(faults.gzip_bomb(1 << 50))
    client.send(GET)
    client.head()
    client.body(100)
    client.socket.close()
    server.wait_for(lambda: server.connections == (1, 0), timeout=LIMIT)


def test_an_idle_connection_is_closed_after_an_answer_that_promised_to_keep_it(
    server: HttpTestServer, client: Client
) -> None:
    server.next(faults.close_after_answer())
    client.send(GET)
    _, headers, body = client.answer()
    assert body == BODY and "connection" not in headers
    assert client.rest() == b""


# TLS, and nobody at home.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[HttpTestServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with HttpTestServer(ssl_context=context) as server:
        server.route("GET", "/x", body=BODY)
        yield server


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_over_tls_it_is_the_same(tls_server: HttpTestServer, trusting: ssl.SSLContext) -> None:
    assert tls_server.url == f"https://127.0.0.1:{tls_server.port}"
    with Client(tls_server, trusting) as client:
        for _ in range(2):
            client.send(GET)
            assert client.answer()[2] == BODY
        tls_server.next(faults.reset())
        client.send(GET)
        # Below TLS: OpenSSL makes an end without a farewell of it.
        with socket.socket(fileno=os.dup(client.socket.fileno())) as below:
            below.settimeout(LIMIT)
            with pytest.raises(ConnectionResetError):
                below.recv(100)


def test_over_tls_what_is_held_ends_when_the_client_goes(
    tls_server: HttpTestServer, trusting: ssl.SSLContext
) -> None:
    tls_server.next(faults.hold())
    with Client(tls_server, trusting) as client:
        client.send(GET)
        tls_server.wait_for(lambda: tls_server.requests)
    tls_server.wait_for(lambda: tls_server.connections == (1, 0))


def test_slow_accept_is_slow_before_the_handshake(
    tls_server: HttpTestServer, trusting: ssl.SSLContext
) -> None:
    tls_server.next(faults.slow_accept(0.2))
    start = time.monotonic()
    with Client(tls_server, trusting):
        assert elapsed_since(start) >= 0.2


def test_at_an_unanswered_address_a_connect_waits() -> None:
    with unanswered_address() as address, pytest.raises(TimeoutError):
        socket.create_connection(address, timeout=0.2).close()


def test_pytest_is_not_needed() -> None:
    code = "import sys, sepelib.http.testing; assert not {'pytest', 'responses'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)
