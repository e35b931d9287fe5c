"""One connection that carries Thrift over HTTP, without the pool and codec above it."""

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.rpc._connection import Connection, PeerClosed, ReplyRefused
from sepelib.rpc._http_by_session import connect_by_session
from sepelib.rpc._http_head import parse_reply_head, parse_url
from sepelib.rpc._http_transport import http_connect
from sepelib.rpc.testing import ThriftServer

PING = b"\x80\1\0\1\0\0\0\4ping\0\0\0\x07\0"
PONG = b"\x80\1\0\2\0\0\0\4ping\0\0\0\x07\0"
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(PONG)
MAX = 1000
PATIENCE = 10.0

Connected = Callable[[], Connection]


@pytest.fixture
def server(thriftpy: Any) -> Iterator[ThriftServer]:
    handler = SimpleNamespace(ping=lambda: None, tell=lambda text: None)
    with ThriftServer(thriftpy.service, handler, transport="http") as server:
        yield server


@pytest.fixture(params=["own", "session"])
def connection(request: pytest.FixtureRequest, server: ThriftServer) -> Iterator[Connection]:
    """Each kind in turn."""
    target = parse_url(server.url)
    with requests.Session() as session:
        session.trust_env = False
        if request.param == "own":
            connection: Connection = http_connect(MAX, None)(target, time.monotonic() + PATIENCE)
        else:
            connection = connect_by_session(session, MAX)(target, math.inf)
        yield connection
        connection.close()


@pytest.fixture
def own(server: ThriftServer) -> Iterator[Connection]:
    connection = http_connect(MAX, None)(parse_url(server.url), time.monotonic() + PATIENCE)
    yield connection
    connection.close()


def send(connection: Connection, within: float = PATIENCE) -> None:
    connection.send(PING, time.monotonic() + within)


def ask(connection: Connection, *, piece: int = 1 << 14) -> bytes:
    """A reply that is as long as a pong."""
    send(connection)
    reply = b""
    while len(reply) < len(PONG):
        part = connection.receive(min(piece, len(PONG) - len(reply)))
        assert part
        reply += part
    return reply


def test_calls_follow_each_other_on_one_connection(
    server: ThriftServer, connection: Connection
) -> None:
    for _ in range(3):
        assert ask(connection) == PONG
        assert connection.replied and connection.is_at_end() and connection.is_fresh()
    assert server.connections.accepted == 1 and len(server.calls) == 3
    headers = server.calls[-1].headers
    assert headers["host"] == f"{server.host}:{server.port}"
    assert headers["content-type"] == "application/x-thrift"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("piece", [1, 5, 1 << 14])
@pytest.mark.parametrize(
    "reply",
    [
        OK + LENGTH + PONG,
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + b"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\n"
        + OK
        + LENGTH
        + PONG,
        b"HTTP/1.1 200\r\ncontent-LENGTH:%d \r\n\r\n%b" % (len(PONG), PONG),
        OK + b"Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + PONG,
        OK + b"Transfer-Encoding: Chunked\r\n\r\n11\r\n" + PONG + b"\r\n0\r\n\r\n",
        OK
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in PONG)
        + b"000\r\nTrailer: x\r\nAnother: y\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive, x\r\n" + LENGTH + PONG,
    ],
)
def test_a_body_is_read_to_its_end_and_no_further(
    server: ThriftServer, own: Connection, reply: bytes, piece: int
) -> None:
    for fault in (server.garbage, lambda data: drip(server, data)):
        fault(reply)
        assert ask(own, piece=piece) == PONG
        assert own.is_at_end()
        assert ask(own) == PONG and own.is_at_end()  # the next one is another's
    assert server.connections.accepted == 1


def drip(server: ThriftServer, data: bytes) -> None:
    """Send *data* byte by byte."""

    def fault(exchange: Any, reply: bytes) -> None:
        for place in range(len(data)):
            exchange.send(data[place : place + 1])

    server._arm(fault, 1)


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        (OK + b"Connection: close\r\n" + LENGTH + PONG, b""),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH + PONG, b""),
        (OK + b"\r\n" + PONG, b""),  # until the end of the connection
        (OK + LENGTH + PONG, b"bytes of nobody"),
        (OK + b"Content-Length: 18\r\n\r\n" + PONG, b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n12\r\n" + PONG + b"x\r\n0\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + PONG + b"\r\n1\r\nx\r\n0\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + PONG + b"\r\n0\r\n\r\n", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + PONG + b"\r\nx\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + PONG, b""),  # no last chunk in time
    ],
)
def test_a_connection_that_does_not_stand_at_a_reply_is_not_at_its_end(
    server: ThriftServer, own: Connection, reply: bytes, left: bytes
) -> None:
    server.garbage(reply + left)
    assert ask(own) == PONG
    assert not own.is_at_end()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"220 mail.example ESMTP\r\n", "not HTTP/1"),
        (PONG, "not HTTP/1"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1"),
        (OK + b"Content-Length: 1_7\r\n\r\n" + PONG, "Content-Length is broken"),
        (OK + b"Content-Length: -1\r\n\r\n" + PONG, "Content-Length is broken"),
        (OK + b"Content-Length: 17\r\nContent-Length: 16\r\n\r\n" + PONG, "is broken"),
        (OK + b"Transfer-Encoding: chunked\r\n" + LENGTH + PONG, "not to be trusted"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "not to be trusted"),
        (OK + b"Content-Encoding: gzip\r\n" + LENGTH + PONG, "Content-Encoding"),
        (OK + b"no colon\r\n" + LENGTH + PONG, "header of the reply is broken"),
        (OK + b"Content-Length : 17\r\n\r\n" + PONG, "header of the reply is broken"),
        (OK + b"Content-Length: 1001\r\n\r\n", "larger than max_message=1000"),
        (OK + b"Content-Length: 99999999999\r\n\r\n", "larger than max_message=1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n7FFFFFFF\r\nx", "larger than max_message=1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx", "size of a chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx", "size of a chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n\r\nx", "size of a chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 20_000, "too long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n", "than it says|too long"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ends inside the reply"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 9000, "trailers"),
        (OK + b"X: y\r\n" * 9000, "headers of the reply are over"),
        (OK + b"Content-Length: 4\r\n\r\nabcd", "ends inside the reply"),
        (OK + b"\r\n" + b"x" * 2000, "larger than max_message=1000"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "ends inside the reply"),
    ],
)
def test_what_is_no_reply_is_refused(
    server: ThriftServer, own: Connection, reply: bytes, reason: str
) -> None:
    server.garbage(reply)
    send(own)
    with pytest.raises(ReplyRefused, match=reason):  # noqa: PT012
        while True:
            own.receive(600)


def test_a_page_is_an_error_with_status_and_excerpt_and_without_secrets(
    server: ThriftServer, connection: Connection
) -> None:
    server.html(500)
    send(connection)
    with pytest.raises(ReplyRefused) as refused:
        connection.receive(1)
    assert str(refused.value) == (
        "HTTP 500 as the test says is no reply: "
        "'<!DOCTYPE html> <html><head><title>Oops</title></head><body>no</body></html>'"
    )
    assert connection.replied


@pytest.mark.parametrize("status", [b"302 Found", b"401 Unauthorized", b"503 Busy"])
def test_no_redirect_is_followed(
    server: ThriftServer, connection: Connection, status: bytes
) -> None:
    server.garbage(
        b"HTTP/1.1 %b\r\nLocation: %b\r\nContent-Length: 42\r\n\r\n%b"
        % (status, server.url.encode(), b"see http://bob:hunter2@host/?token=t\n\x1b[0m ")
    )
    send(connection)
    with pytest.raises(ReplyRefused) as refused:
        connection.receive(1)
    assert str(refused.value) == (
        f"HTTP {status.decode()} is no reply: 'see http://bob:***@host/?token=*** ?[0m'"
    )
    assert len(server.calls) == 1


def test_a_login_page_with_status_200_is_no_reply(
    server: ThriftServer, connection: Connection
) -> None:
    server.html(200)
    send(connection)
    with pytest.raises(ReplyRefused, match=r"^HTTP 200 as the test says is a page and no reply: "):
        connection.receive(1)


def test_a_page_that_hangs_does_not_hold_the_error(server: ThriftServer, own: Connection) -> None:
    server.garbage(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n")
    send(own, within=60.0)
    began = time.monotonic()
    with pytest.raises(ReplyRefused, match=r"^HTTP 500 Oops is no reply$"):
        own.receive(1)
    assert time.monotonic() - began < 10.0


def test_drops_do_not_stretch_the_time(server: ThriftServer, own: Connection) -> None:
    server.drip(0.05)
    began = time.monotonic()
    send(own, within=0.3)
    with pytest.raises(TimeoutError):  # noqa: PT012
        while True:
            own.receive(1)
    assert time.monotonic() - began < 3.0


def test_a_late_reply_is_a_timeout(server: ThriftServer, connection: Connection) -> None:
    server.late(30.0)
    send(connection, within=0.2)
    with pytest.raises(TimeoutError):
        connection.receive(1)
    assert not connection.replied


@pytest.mark.parametrize("after", [0, 10, 80])
def test_an_end_inside_the_reply_is_one(
    server: ThriftServer, connection: Connection, after: int
) -> None:
    server.cut(after)
    send(connection)
    with pytest.raises(OSError, match=r"\w"):  # noqa: PT012
        while True:
            connection.receive(4)
    assert len(server.calls) == 1


def test_a_reset_is_an_error_of_the_system(server: ThriftServer, connection: Connection) -> None:
    server.reset()
    send(connection)
    with pytest.raises(ConnectionResetError):
        connection.receive(1)


def test_an_end_in_good_order_is_told_apart(server: ThriftServer, own: Connection) -> None:
    server.cut()
    send(own)
    with pytest.raises(PeerClosed):
        own.receive(1)
    assert not own.replied


@pytest.mark.parametrize("disturb", ["stray", "disconnect"])
def test_an_idle_connection_that_was_disturbed_is_not_fresh(
    server: ThriftServer, own: Connection, disturb: str
) -> None:
    assert ask(own) == PONG and own.is_at_end() and own.is_fresh()
    assert getattr(server, disturb)() == 1
    server.wait_for(lambda: not own.is_fresh())


def test_a_oneway_call_waits_for_the_status(server: ThriftServer, connection: Connection) -> None:
    tell = b"\x80\1\0\4\0\0\0\4tell\0\0\0\1\x0b\0\1\0\0\0\2hi\0"
    for _ in range(2):
        connection.send(tell, time.monotonic() + PATIENCE)
        connection.confirm()
        assert connection.is_at_end()
    assert server.connections.accepted == 1
    assert ask(connection) == PONG


def test_a_oneway_call_that_the_server_refuses_fails(
    server: ThriftServer, connection: Connection
) -> None:
    server.html(503)
    send(connection)
    with pytest.raises(ReplyRefused, match="HTTP 503"):
        connection.confirm()


# Where to.


def test_a_url_says_where_to_and_keeps_its_secrets() -> None:
    target = parse_url(
        "https://b%40b:p%3Aw@[::1]/thrift?token=t&x=1", {"X-Id": "7", "Accept": "*/*"}
    )
    assert target.address == ("::1", 443, "") and target.tls
    assert target.url == "https://[::1]/thrift?token=t&x=1"
    assert target.label == "https://[::1]/thrift?token=***&x=1"
    assert target.head == (
        b"POST /thrift?token=t&x=1 HTTP/1.1\r\n"
        b"Host: [::1]\r\n"
        b"User-Agent: sepelib-rpc\r\n"
        b"Content-Type: application/x-thrift\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Authorization: Basic YkBiOnA6dw==\r\n"
        b"X-Id: 7\r\n"
        b"Accept: */*\r\n"
        b"Content-Length: "
    )
    plain = parse_url("http://host:8080")
    assert plain.address == ("host", 8080, "") and not plain.tls
    assert plain.head.startswith(b"POST / HTTP/1.1\r\nHost: host:8080\r\n")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://host/", {}),
        ("host:9090", {}),
        ("http://", {}),
        ("http://host:port/", {}),
        ("http://host:99999/", {}),
        ("http://bob:hunter2@host/a b", {}),
        ("http://host/\u00e4", {}),
        ("http://host/#top", {}),
        ("http://host/", {"X": "a\r\nY: b"}),
        ("http://host/", {"X": "a\nb"}),
        ("http://host/", {"X\r\nY": "a"}),
        ("http://host/", {"": "a"}),
        ("http://host/", {"X": "\u20ac"}),
        ("http://host/", {"content-length": "7"}),
        ("http://host/", {"Connection": "close"}),
        ("http://host/", {"Host": "other"}),
        ("http://bob:hunter2@host/", {"authorization": "OAuth x"}),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse_url(url, headers)
    assert "hunter2" not in str(refused.value)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: OK + tail))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_head_is_read_or_refused(data: bytes) -> None:
    try:
        head = parse_reply_head(data)
    except ReplyRefused:
        return
    assert 0 <= head.status <= 999 and (head.length is None or head.length >= 0)


# TLS.


def test_tls_is_verified(thriftpy: Any, tls: SimpleNamespace) -> None:
    handler = SimpleNamespace(ping=lambda: None)
    with ThriftServer(
        thriftpy.service, handler, transport="http", ssl_context=tls.server
    ) as server:
        target = parse_url(server.url)
        connection = http_connect(MAX, tls.client)(target, time.monotonic() + PATIENCE)
        for _ in range(2):
            assert ask(connection) == PONG and connection.is_at_end() and connection.is_fresh()
        connection.close()
        assert server.connections.accepted == 1

        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            http_connect(MAX, None)(target, time.monotonic() + PATIENCE)
        with requests.Session() as session:
            untrusting = connect_by_session(session, MAX)(target, math.inf)
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                send(untrusting)
        assert len(server.calls) == 2


# By a session.


def test_a_session_that_finds_no_server_has_sent_nothing(server: ThriftServer) -> None:
    server.refuse()
    target = parse_url(server.url.replace("http://", "http://bob:hunter2@"))
    with requests.Session() as session:
        connection = connect_by_session(session, MAX)(target, math.inf)
        with pytest.raises(ConnectionRefusedError) as refused:
            send(connection)
    assert refused.value.__context__ is None  # requests would show the URL


def test_a_session_brings_its_own_headers_and_hooks(server: ThriftServer) -> None:
    target = parse_url(server.url.replace("http://", "http://bob:pw@"), {"X-Ours": "1"})
    seen = []
    with requests.Session() as session:
        session.trust_env = False
        session.headers["X-Theirs"] = "2"
        session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
        connection = connect_by_session(session, MAX)(target, math.inf)
        assert ask(connection) == PONG
        connection.close()
    (call,) = server.calls
    assert (call.headers["x-ours"], call.headers["x-theirs"]) == ("1", "2")
    assert call.headers["authorization"] == "Basic Ym9iOnB3" and seen == [200]


@pytest.mark.parametrize("size", [1001, 1 << 20])
def test_a_session_is_bounded_too(server: ThriftServer, size: int) -> None:
    server.message(b"x" * size)
    with requests.Session() as session:
        connection = connect_by_session(session, MAX)(parse_url(server.url), math.inf)
        send(connection)
        received = 0
        with pytest.raises(ReplyRefused, match="larger than max_message=1000"):  # noqa: PT012
            while True:
                received += len(connection.receive(600))
        connection.close()
    assert received == MAX
