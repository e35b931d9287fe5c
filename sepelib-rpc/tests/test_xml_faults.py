"""Servers and networks that fail: in time, told apart, and never a stranger's answer."""

from __future__ import annotations

import contextlib
import gc
import gzip
import operator
import signal
import socket
import ssl
import threading
import time
import tracemalloc
import xmlrpc.client
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import trustme
from gevent import Timeout, monkey

from sepelib.rpc.testing import XmlRpcServer
from sepelib.rpc.xml import (
    DeadlineExceeded,
    ServerProxy,
    XmlRpcParseError,
    XmlRpcTransportError,
    xmlrpc_call,
)
from sepelib.util.deadline import deadline
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import (
    FlakyProxy,
    MemoryRecorder,
    ThreadedServer,
    check_obeys_deadline,
    check_transport_nesting,
)

pytest_plugins = ["sepelib.util.pytest_plugin"]

GENEROUS = 10.0
AT_ONCE = RetryPolicy(XmlRpcTransportError, attempts=2, backoff=Backoff(0), layer="transport")


@pytest.fixture
def server() -> Iterator[XmlRpcServer]:
    with XmlRpcServer({"add": operator.add, "echo": lambda *values: list(values)}) as server:
        yield server


@pytest.fixture
def proxy(server: XmlRpcServer) -> Iterator[ServerProxy]:
    with ServerProxy(server.url) as proxy:
        yield proxy


@contextlib.contextmanager
def struck_after(seconds: float) -> Iterator[type[BaseException]]:
    """A BaseException from outside: gevent's in a patched process, a signal handler's otherwise."""
    if monkey.is_module_patched("select"):
        with Timeout(seconds):
            yield Timeout
        return

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield KeyboardInterrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def lost(call: Callable[[], object]) -> XmlRpcTransportError:
    with pytest.raises(XmlRpcTransportError) as caught:
        call()
    # Those of requests and urllib3 show the whole URL.
    assert not isinstance(caught.value.__context__, requests.RequestException)
    assert not isinstance(caught.value.__cause__, requests.RequestException)
    return caught.value


# Nobody gets what was meant for another.


def test_after_a_timeout_nobody_gets_the_answer_that_came_late(
    server: XmlRpcServer, proxy: ServerProxy
) -> None:
    server.late(0.5)
    error = lost(lambda: proxy.call("echo", "ALICE", timeout=0.1))
    assert (error.kind, error.maybe_executed) == ("timeout", True)
    assert "no answer within 0.1 s; it may have been executed" in str(error)
    assert proxy.echo("bob") == ["bob"]
    server.wait_for(lambda: server.connections == (2, 1))  # its connection was closed
    assert [call.params for call in server.calls] == [("ALICE",), ("bob",)]


@pytest.mark.parametrize("during", ["headers", "body"])
def test_a_cancellation_passes_and_its_connection_is_closed(
    server: XmlRpcServer, during: str
) -> None:
    recorder = MemoryRecorder()
    with ServerProxy(server.url, idempotent="all", recorder=recorder) as proxy:
        assert proxy.echo(0) == [0]
        if during == "headers":
            server.late(0.5)
        else:
            server.drip_body(0.02)
        with struck_after(0.15) as struck, pytest.raises(struck):
            proxy.echo("ALICE")
        assert proxy.echo("bob") == ["bob"]
        server.wait_for(lambda: server.connections == (2, 1))
    assert [call.params for call in server.calls] == [(0,), ("ALICE",), ("bob",)]
    assert recorder.series("xmlrpc_client_calls") == {
        ("echo", "ok"): 2.0,
        ("echo", "cancelled"): 1.0,
    }


def test_threads_that_share_a_proxy_get_their_own_answers(
    server: XmlRpcServer, proxy: ServerProxy
) -> None:
    wrong: list[object] = []

    def work(mine: int) -> None:
        for number in range(30):
            if proxy.echo(mine, number) != [mine, number]:
                wrong.append((mine, number))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
        assert not thread.is_alive()
    assert wrong == [] and len(server.calls) == 240
    assert server.connections.accepted <= 8


# Time.


@contextlib.contextmanager
def unanswered() -> Iterator[str]:
    """Nobody takes up a connection here: a queue of Linux that is full ignores newcomers."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        sockets.enter_context(socket.create_connection(listener.getsockname(), timeout=GENEROUS))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


FAULTS: dict[str, Callable[[XmlRpcServer], object]] = {
    "late": lambda server: server.late(60.0, times=None),
    "dripping headers": lambda server: server.drip(0.02, times=None),
    "dripping body": lambda server: server.drip_body(0.02, times=None),
    "silent in the body": lambda server: server.drip_body(60.0, size=50, times=None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_ends_with_the_deadline_of_its_caller(
    server: XmlRpcServer, proxy: ServerProxy, fault: str
) -> None:
    FAULTS[fault](server)
    check_obeys_deadline(lambda: proxy.echo("x" * 100), grace=1.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_ends_with_its_total_timeout(server: XmlRpcServer, fault: str) -> None:
    FAULTS[fault](server)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        xmlrpc_call(server.url, "echo", "x" * 100, total_timeout=0.2, idempotent=True)
    assert 0.15 < time.monotonic() - started < 2.0
    assert caught.value.maybe_executed is True
    assert str(caught.value) == (
        f"echo at {server.url}: deadline exceeded; it may have been executed"
    )


@pytest.mark.parametrize("fault", ["late", "dripping body", "silent in the body"])
def test_a_call_by_a_session_of_the_caller_ends_in_time_too(
    server: XmlRpcServer, fault: str
) -> None:
    FAULTS[fault](server)
    with requests.Session() as session:
        check_obeys_deadline(
            lambda: xmlrpc_call(server.url, "echo", "x" * 100, session=session), grace=1.0
        )
    server.wait_for(lambda: server.connections.open == 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_over_tls_ends_in_time_too(fault: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        XmlRpcServer({"echo": lambda *values: list(values)}, ssl_context=context) as server,
        ServerProxy(server.url) as proxy,
    ):
        proxy._session.verify = str(tmp_path / "ca.pem")
        assert proxy.echo("x") == ["x"]
        FAULTS[fault](server)
        check_obeys_deadline(lambda: proxy.echo("x" * 100), grace=1.0)


def test_tls_that_drips_in_the_middle_of_a_record_ends_in_time(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        XmlRpcServer({"echo": lambda *values: list(values)}, ssl_context=context) as server,
        FlakyProxy(*server.address) as between,
        ServerProxy(f"https://127.0.0.1:{between.port}/") as proxy,
    ):
        proxy._session.verify = str(tmp_path / "ca.pem")
        assert proxy.echo("x") == ["x"]
        between.drip(1, 0.02)
        check_obeys_deadline(lambda: proxy.echo("x" * 1000), grace=1.0)


def test_connecting_ends_in_time() -> None:
    with unanswered() as url:
        check_obeys_deadline(lambda: xmlrpc_call(url, "add", 1, 2), grace=1.0)
        with pytest.raises(DeadlineExceeded) as caught:
            xmlrpc_call(url, "add", 1, 2, total_timeout=0.1)
        assert caught.value.maybe_executed is False
        error = lost(lambda: xmlrpc_call(url, "add", 1, 2, timeout=0.1, retries=AT_ONCE))
        assert (error.kind, error.maybe_executed) == ("connect", False)
        assert "no connection within 0.1 s; it was not executed" in str(error)


def test_all_addresses_of_a_host_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with unanswered() as url:
        found = socket.getaddrinfo("127.0.0.1", urlsplit(url).port, type=socket.SOCK_STREAM) * 4
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            xmlrpc_call("http://many.test/", "add", 1, 2, total_timeout=0.4)
        assert not caught.value.maybe_executed and time.monotonic() - started < 1.2


def test_a_cancellation_in_the_middle_of_connecting_leaves_no_socket() -> None:
    with unanswered() as url, ServerProxy(url) as proxy:
        with struck_after(0.1) as struck, pytest.raises(struck):
            proxy.echo()
        gc.collect()  # a socket that nobody has closed is a warning, hence an error


@pytest.mark.parametrize("late", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_an_idle_connection_on_which_something_waits_is_not_used_again(late: bytes) -> None:
    """Its end, or an answer that nobody has asked for."""
    answered, said = threading.Event(), threading.Event()

    class Talkative(ThreadedServer):
        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            body = xmlrpc.client.dumps((peer[1],), methodresponse=True).encode()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert answered.wait(GENEROUS)
            if late:
                connection.sendall(late)
            else:
                connection.shutdown(socket.SHUT_WR)
            said.set()
            self.ending.wait(GENEROUS)

    with Talkative() as server, ServerProxy(f"http://{server.host}:{server.port}/") as proxy:
        first = proxy.port()
        answered.set()
        assert said.wait(GENEROUS) and proxy.port() != first


def test_sending_to_a_server_that_does_not_read_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        large = "x" * (32 << 20)
        check_obeys_deadline(lambda: xmlrpc_call(url, "echo", large), grace=3.0)
        error = lost(lambda: xmlrpc_call(url, "echo", large, timeout=0.2))
        assert error.kind == "timeout"


def test_a_large_call_on_a_slow_line_is_alive() -> None:
    text = "x" * (40 << 20)
    body = xmlrpc.client.dumps((len(text),), methodresponse=True).encode()

    def read_slowly(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            received = 0
            while received < len(text):
                count = len(connection.recv(1 << 20))
                if not count:
                    return  # the client has given up
                received += count
                time.sleep(count / (20 << 20))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a short queue
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=read_slowly, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        started = time.monotonic()
        # As a whole it takes longer than any single wait may take.
        assert xmlrpc_call(url, "echo", text, timeout=1.5) == len(text)
        assert time.monotonic() - started > 1.5
        thread.join(GENEROUS)


def test_a_deadline_that_is_over_sends_nothing(server: XmlRpcServer, proxy: ServerProxy) -> None:
    with deadline(0.0), pytest.raises(DeadlineExceeded) as caught:
        proxy.add(1, 2)
    assert caught.value.maybe_executed is False
    assert server.connections.accepted == 0


def test_a_drip_that_is_quick_enough_is_an_answer(server: XmlRpcServer) -> None:
    server.drip(0.01, size=20)
    assert xmlrpc_call(server.url, "add", 1, 2, timeout=None, total_timeout=None) == 3


# Ends.


def test_a_connection_that_ends_early_is_told(server: XmlRpcServer, proxy: ServerProxy) -> None:
    for fault in (lambda: server.cut(), lambda: server.cut(10), lambda: server.reset()):
        proxy.add(1, 2)
        before = len(server.calls)
        fault()
        error = lost(lambda: proxy.add(1, 2))
        assert (error.kind, error.maybe_executed) == ("closed", True)
        assert "the connection has ended before the whole reply (" in str(error)
        assert "ProtocolError" not in str(error)
        assert len(server.calls) == before + 1  # executed, and not repeated


def test_a_reply_that_is_not_http_is_told(server: XmlRpcServer) -> None:
    server._arm(lambda exchange, _: exchange.send(b"220 mail.test ESMTP\r\n"), 1)
    error = lost(lambda: xmlrpc_call(server.url, "add", 1, 2))
    assert error.kind == "closed" and "BadStatusLine" in str(error)


@pytest.mark.parametrize(
    ("head", "frame"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
            lambda body: chunked(body) + b"0\r\n\r\n",
        ),
        (b"HTTP/1.0 200 OK", lambda body: body),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close", lambda body: body),
    ],
    ids=["chunked", "HTTP/1.0", "continued"],
)
def test_a_reply_without_a_length_is_read_to_its_end(
    server: XmlRpcServer, head: bytes, frame: Callable[[bytes], bytes]
) -> None:
    body = xmlrpc.client.dumps((["x" * 1000],), methodresponse=True).encode()

    def send(exchange: Any, _: bytes) -> None:
        exchange.send(head + b"\r\n\r\n" + frame(body))
        exchange.close_connection = b"chunked" not in head

    server._arm(send, 2)
    with ServerProxy(server.url) as proxy:
        assert proxy.echo() == ["x" * 1000]
        assert proxy.echo() == ["x" * 1000]
    assert server.connections.accepted == (1 if b"chunked" in head else 2)


def chunked(body: bytes) -> bytes:
    pieces = [body[place : place + 100] for place in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def test_a_chunked_reply_that_ends_early_is_told(server: XmlRpcServer) -> None:
    body = xmlrpc.client.dumps((["x" * 1000],), methodresponse=True).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for data in (chunked(body), chunked(body)[:-50], b"zz\r\nhello\r\n"):

        def send(exchange: Any, _: bytes, data: bytes = data) -> None:
            exchange.send(head + data)
            exchange.close_connection = True

        server._arm(send, 1)
        assert lost(lambda: xmlrpc_call(server.url, "echo")).kind == "closed"


def test_a_refused_connection_is_told_with_the_words_of_the_system(server: XmlRpcServer) -> None:
    server.stop()
    error = lost(lambda: xmlrpc_call(server.url, "add", 1, 2, retries=AT_ONCE))
    assert (error.kind, error.maybe_executed) == ("connect", False)
    assert "no connection (Connection refused); it was not executed" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


# Sizes and encodings.


def test_a_reply_may_be_as_large_as_allowed_and_not_larger(server: XmlRpcServer) -> None:
    body = xmlrpc.client.dumps(("x" * 3000,), methodresponse=True).encode()
    for headers in ({}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}):
        data = body
        if headers:
            data = gzip.compress(body) if "gzip" in headers.values() else zlib.compress(body)
        server.reply(data, headers=headers, times=2)
        assert xmlrpc_call(server.url, "echo", max_response=len(body)) == "x" * 3000
        error = lost(lambda: xmlrpc_call(server.url, "echo", max_response=len(body) - 1))
        assert (error.kind, error.maybe_executed) == ("too_large", True)
        assert f"larger than max_response={len(body) - 1} bytes" in str(error)


def test_a_gzip_bomb_costs_little_memory(server: XmlRpcServer) -> None:
    server.gzip_bomb(100 << 20)
    tracemalloc.start()
    try:
        error = lost(lambda: xmlrpc_call(server.url, "echo", max_response=1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.kind == "too_large"
    assert peak < 8 << 20
    server.wait_for(lambda: server.connections.open == 0)


def test_an_oversized_reply_is_not_read_to_its_end(
    server: XmlRpcServer, proxy: ServerProxy
) -> None:
    server.oversized(32 << 20)
    assert lost(lambda: proxy.echo()).kind == "too_large"
    assert proxy.echo(1) == [1]
    server.wait_for(lambda: server.connections == (2, 1))


def test_nothing_at_all_compressed_without_end_is_too_large(server: XmlRpcServer) -> None:
    engine = zlib.compressobj(wbits=31)
    head = engine.compress(b"") + engine.flush(zlib.Z_FULL_FLUSH)
    server.reply(head + b"\x00\x00\x00\xff\xff" * 1_000_000, headers={"Content-Encoding": "gzip"})
    assert lost(lambda: xmlrpc_call(server.url, "echo", max_response=1 << 20)).kind == "too_large"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-20], "the compressed reply has no end"),
        (lambda data: b"", "the compressed reply has no end"),
        (lambda data: data[:30] + b"\x00" * 9 + data[39:], "the compressed reply is broken"),
        (lambda data: b"<methodResponse/>", "the compressed reply is broken"),
    ],
)
def test_a_broken_compression_is_told(
    server: XmlRpcServer, change: Callable[[bytes], bytes], words: str
) -> None:
    body = gzip.compress(xmlrpc.client.dumps((list(range(500)),), methodresponse=True).encode())
    server.reply(change(body), headers={"Content-Encoding": "gzip"})
    error = lost(lambda: xmlrpc_call(server.url, "echo", idempotent=True, retries=AT_ONCE))
    assert (error.kind, error.reason) == ("encoding", words)
    assert len(server.calls) == 1


def test_an_encoding_not_asked_for_is_told(server: XmlRpcServer) -> None:
    server.reply(b"...", headers={"Content-Encoding": "br"})
    assert lost(lambda: xmlrpc_call(server.url, "echo")).kind == "encoding"


def test_entities_are_refused_at_once(server: XmlRpcServer) -> None:
    server.entities()
    with pytest.raises(XmlRpcParseError, match="a DTD, which is refused in line 2"):
        xmlrpc_call(server.url, "echo")


# Tried again.


def test_a_server_that_is_back_at_the_second_try_is_not_noticed(server: XmlRpcServer) -> None:
    server.stop()
    retries = RetryPolicy(
        XmlRpcTransportError,
        attempts=2,
        backoff=Backoff(0),
        layer="transport",
        on_retry=lambda state: server.start(),
    )
    assert xmlrpc_call(server.url, "add", 1, 2, retries=retries) == 3


def test_by_default_a_refused_connection_is_tried_twice(
    server: XmlRpcServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    lost(lambda: xmlrpc_call(server.url, "add", 1, 2))
    assert caplog.text.count("attempt 1 of 2 failed") == 1


@pytest.mark.parametrize("fault", ["reset", "cut", "late"])
def test_what_may_have_been_executed_is_repeated_only_if_it_is_idempotent(
    server: XmlRpcServer, fault: str
) -> None:
    eager = RetryPolicy(XmlRpcTransportError, attempts=5, backoff=Backoff(0))
    strike = {"reset": server.reset, "cut": server.cut, "late": lambda: server.late(60.0)}[fault]
    with ServerProxy(server.url, timeout=0.3, retries=eager, idempotent={"add"}) as proxy:
        strike()
        lost(lambda: proxy.echo(1))
        strike()
        lost(lambda: proxy.call("add", 1, 2, idempotent=False))
        assert [call.method for call in server.calls] == ["echo", "add"]
        strike()
        assert proxy.add(1, 2) == 3
        strike()
        assert proxy.call("echo", 1, idempotent=True) == [1]
        strike()
        assert proxy.multicall([("add", 1, 2), ("add", 3, 4)]) == [3, 7]
        strike()
        lost(lambda: proxy.multicall([("add", 1, 2), ("echo", 1)]))
    assert [call.method for call in server.calls] == [
        *("echo", "add", "add", "add", "echo", "echo"),
        *["system.multicall"] * 3,
    ]


def test_what_an_earlier_try_may_have_executed_is_not_forgotten(server: XmlRpcServer) -> None:
    retries = RetryPolicy(
        XmlRpcTransportError,
        attempts=2,
        backoff=Backoff(0),
        on_retry=lambda state: server.stop(),
    )
    server.reset()
    call = partial(xmlrpc_call, server.url, "add", 1, 2, idempotent=True, retries=retries)
    error = lost(call)
    assert (error.kind, error.maybe_executed) == ("connect", True)
    assert "Connection refused); it may have been executed" in str(error)

    server.start()
    with unanswered() as elsewhere:
        hops = iter([server.url, elsewhere])

        class Moving(requests.Session):
            """Its first request goes to the server, its second one to a host that is down."""

            def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
                return super().request(method, next(hops), *args, **kwargs)

        server.reset()
        with Moving() as session, pytest.raises(DeadlineExceeded) as caught:
            xmlrpc_call(
                server.url,
                "add",
                session=session,
                idempotent=True,
                retries=AT_ONCE,
                total_timeout=0.5,
            )
        assert caught.value.maybe_executed is True


def test_what_another_try_cannot_help_is_not_repeated(server: XmlRpcServer) -> None:
    for fault in (server.html, lambda: server.status(500), lambda: server.oversized(2000)):
        fault()
        with pytest.raises((XmlRpcTransportError, Exception)):
            xmlrpc_call(server.url, "fail", idempotent=True, retries=AT_ONCE, max_response=1000)
    assert len(server.calls) == 3


def test_an_answer_lost_on_the_way_is_executed_once_unless_idempotent(
    server: XmlRpcServer, flaky_proxy: Callable[[str, int], FlakyProxy]
) -> None:
    between = flaky_proxy(*server.address)
    with ServerProxy(f"http://127.0.0.1:{between.port}/", retries=AT_ONCE) as proxy:
        with between.lose_answer(lambda data: b"ALICE" in data):
            lost(lambda: proxy.echo("ALICE"))
        with between.lose_answer(lambda data: b"CAROL" in data):
            assert proxy.call("echo", "CAROL", idempotent=True) == ["CAROL"]
        assert proxy.echo("bob") == ["bob"]
    params = [call.params for call in server.calls]
    assert params == [("ALICE",), ("CAROL",), ("CAROL",), ("bob",)]


def test_inside_another_transport_only_that_one_retries(server: XmlRpcServer) -> None:
    server.reset(times=None)
    with ServerProxy(server.url, idempotent="all", retries=AT_ONCE) as proxy:
        check_transport_nesting(
            lambda: proxy.add(1, 2), lambda: len(server.calls), on=XmlRpcTransportError
        )
