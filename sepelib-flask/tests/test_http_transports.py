"""TLS and unix sockets."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent.socket
import pytest
import trustme

from sepelib.flask.server._http import HttpServer
from sepelib.flask.testing import SlowClient
from sepelib.flask.testing._probe import Probe


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def probe(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    limits: dict[str, float | None] = {"header_timeout": 0.4, "idle_timeout": 0.4}
    with Probe() as probe:
        probe.open(tls=str(pem), limits=limits)
        yield probe


def test_requests_over_tls(probe: Probe, context: ssl.SSLContext) -> None:
    with SlowClient(probe.address, tls=context) as client:
        environ = client.get("/environ")
        assert b'"wsgi.url_scheme": "https"' in environ.body
        assert client.get("/big?n=3000000").body == b"y" * 3_000_000
        client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        client.send(b"x" * 200_000)
        assert client.answer().body == b"x" * 200_000


def test_a_client_silent_in_the_handshake_stops_nobody(
    probe: Probe, context: ssl.SSLContext
) -> None:
    before = probe.stats()["rejected"].get("tls", 0)
    with ExitStack() as stack:
        silent = [stack.enter_context(SlowClient(probe.address)) for _ in range(5)]
        silent[0].send(b"\x16\x03\x01\x02")
        with SlowClient(probe.address, tls=context) as client:
            assert client.get("/hello").body == b"hello"
        assert all(client.closed() for client in silent)
    assert probe.stats()["rejected"]["tls"] == before + 5


def test_who_does_not_speak_tls_is_closed(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/" not in client.receive(1000)
        assert client.closed()


def test_slow_headers_over_tls_are_a_408(probe: Probe, context: ssl.SSLContext) -> None:
    # Waking the reader by a shutdown() would break the session, or drop the encryption.
    with SlowClient(probe.address, tls=context) as client:
        client.send(b"GET /slow")
        assert client.answer().status == 408  # deciphered
        assert client.closed()


def test_an_idle_tls_connection_ends(probe: Probe, context: ssl.SSLContext) -> None:
    with SlowClient(probe.address, tls=context) as client:
        assert client.get("/hello").body == b"hello"
        assert client.closed()


def test_nothing_is_left_of_tls_connections(probe: Probe) -> None:
    until = time.monotonic() + 10.0
    while probe.leaks()["greenlets"] or sum(probe.stats()["connections"].values()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_context_that_would_block_the_process_is_refused(authority: trustme.CA) -> None:
    from gevent import monkey

    plain = monkey.get_original("ssl", "SSLContext")
    context = plain(ssl.PROTOCOL_TLS_SERVER)
    listener = gevent.socket.socket()
    try:
        with pytest.raises(TypeError, match=r"gevent\.ssl\.SSLContext"):
            HttpServer(listener, lambda environ, start: [], ssl_context=context)
    finally:
        listener.close()


def test_requests_over_a_unix_socket() -> None:
    with Probe() as probe:
        probe.open(unix=True)
        assert isinstance(probe.address, str) and Path(probe.address).is_socket()
        with SlowClient(probe.address) as client:
            environ = client.get("/environ").body
            assert b"REMOTE_ADDR" not in environ and b'"SERVER_PORT": ""' in environ
            assert client.get("/hello").body == b"hello"
        with SlowClient(probe.address) as client:
            client.send(b"GET /sleep?s=0.2 HTTP/1.1\r\nHost: x\r\n\r\n")
            while not probe.stats()["connections"]["busy"]:
                time.sleep(0.01)
            probe.tell("stop", 10.0)
            assert client.answer().body == b"slept"


def test_a_listener_that_blocks_is_made_not_to(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = HttpServer(listener, lambda environ, start: [])
        assert listener.gettimeout() == 0.0
        server.stop(0.0)
        server.stop(0.0)
        assert server.closed
