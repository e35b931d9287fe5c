"""Sockets: TCP, unix, TLS, how long they wait and what of the process they leave alone."""

import contextlib
import math
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from sepelib.rpc._connection import PeerClosed, ReplyRefused
from sepelib.rpc._transports import BufferedConnection, FramedConnection
from sepelib.rpc._wire import Address, TlsWire, Wire, open_wire, parse_address
from sepelib.rpc.thrift import ConnectFailed, OutcomeUnknown, RequestNotSent, ThriftBinClient
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import ThreadedServer, check_obeys_deadline

pytest_plugins = ["sepelib.rpc.pytest_plugin"]

GREEN = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("socket")
Start = Callable[..., Any]


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


class Plays(ThreadedServer):
    """Runs a function of the test for each connection."""

    def __init__(self, play: Callable[[socket.socket], object], **options: Any) -> None:
        super().__init__(**options)
        self.play = play

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        self.play(connection)


def address_of(server: ThreadedServer) -> Address:
    return Address(server.host, server.port)


# Addresses.


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:80", Address("host", 80)),
        ("10.0.0.1:65535", Address("10.0.0.1", 65535)),
        ("[::1]:9090", Address("::1", 9090)),
        ("unix:/run/x.sock", Address("", 0, "/run/x.sock")),
        ("unix:relative:with:colons", Address("", 0, "relative:with:colons")),
    ],
)
def test_hosts_as_they_are_written(text: str, address: Address) -> None:
    assert parse_address(text) == address


def test_a_name_that_nobody_knows_is_a_failure_to_connect(thriftpy: Any) -> None:
    with (
        ThriftBinClient(thriftpy.service, "no-such-host.invalid:1", timeout=1.0) as client,
        pytest.raises(ConnectFailed, match=r"no-such-host.invalid:1: no connection \("),
    ):
        client.ping()


def test_a_name_that_no_host_can_have_is_one_too(thriftpy: Any) -> None:
    with (
        ThriftBinClient(thriftpy.service, f"{'x' * 64}.example:1") as client,
        pytest.raises(ConnectFailed, match=r"not a name that a host can have|known|No address"),
    ):
        client.ping()


def test_each_address_of_a_name_has_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one swallows what comes: a backlog that is full."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    try:
        with Plays(lambda connection: connection.recv(1)) as server:
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname()),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", server.address),
            ]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
            began = time.monotonic()
            open_wire(Address("both", 1), soon(0.6)).close()
            assert 0.2 <= time.monotonic() - began < 5.0
    finally:
        for sock in [full, *fillers]:
            sock.close()


def test_a_unix_socket(thrift_server: Start, library: Any, handler: Any, tmp_path: Path) -> None:
    server = thrift_server(library.service, handler, unix_path=tmp_path / "s.sock")
    with ThriftBinClient(library.service, server.endpoint) as client:
        assert client.echo("x") == "x"
    server.close()
    with (
        ThriftBinClient(library.service, f"unix:{tmp_path}/s.sock") as client,
        pytest.raises(ConnectFailed, match=r"s\.sock: no connection \(No such file"),
    ):
        client.echo("x")


# TLS.


def test_tls_is_verified_and_its_connections_are_kept(
    thrift_server: Start, library: Any, handler: Any, tls: SimpleNamespace
) -> None:
    server = thrift_server(library.service, handler, ssl_context=tls.server)
    text = "ä" * 500_000
    with ThriftBinClient(
        library.service, f"localhost:{server.port}", ssl_context=tls.client
    ) as client:
        assert client.echo("x") == "x"
        assert client.echo(text) == text
        for _ in range(3):  # nothing is read here but tickets of TLS 1.3
            client.tell("x")
        assert client.echo("x") == "x"
    assert server.connections.accepted == 1


def test_tickets_that_come_while_idle_do_not_make_a_connection_stale(
    thrift_server: Start, library: Any, handler: Any, tls: SimpleNamespace
) -> None:
    server = thrift_server(library.service, handler, ssl_context=tls.server)
    wire = open_wire(Address("localhost", server.port), soon(), tls.client)
    assert isinstance(wire, TlsWire)
    for _ in range(100):
        assert wire.is_fresh()
        time.sleep(0.001)
    server.disconnect()
    end = soon()
    while wire.is_fresh():
        assert time.monotonic() < end
    wire.close()
    wire.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_stranger_is_no_connection(
    thrift_server: Start, library: Any, handler: Any, host: str
) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("other.example").configure_cert(stranger)
    server = thrift_server(library.service, handler, ssl_context=stranger)
    trusting = ssl.create_default_context()
    contexts = [trusting]
    if host == "localhost":
        wrong_name = ssl.create_default_context()
        authority.configure_trust(wrong_name)
        contexts.append(wrong_name)
    for context in contexts:
        with (
            ThriftBinClient(
                library.service, f"{host}:{server.port}", ssl_context=context
            ) as client,
            pytest.raises(ConnectFailed, match=r"verify failed|mismatch"),
        ):
            client.echo("x")
    assert server.calls == ()


def test_a_handshake_ends_in_time(thriftpy: Any, tls: SimpleNamespace) -> None:
    """The server sends the head of a record, byte by byte, and never a whole one."""

    def drip(connection: socket.socket) -> None:
        for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
            connection.sendall(bytes([byte]))
            if server.ending.wait(0.02):
                return

    with Plays(drip) as server:
        client = ThriftBinClient(
            thriftpy.service,
            f"localhost:{server.port}",
            connect_timeout=0.2,
            ssl_context=tls.client,
        )
        began = time.monotonic()
        with client, pytest.raises(ConnectFailed, match="timed out"):
            client.ping()
        assert time.monotonic() - began < 5.0
        patient = ThriftBinClient(
            thriftpy.service, f"localhost:{server.port}", ssl_context=tls.client
        )
        with patient:
            check_obeys_deadline(patient.ping)


# Time.


@pytest.mark.parametrize("secure", [False, True])
def test_a_reply_that_drips_ends_in_time(
    thrift_server: Start, library: Any, handler: Any, tls: SimpleNamespace, secure: bool
) -> None:
    server = thrift_server(library.service, handler, ssl_context=tls.server if secure else None)
    server.drip(0.02, times=None)
    context = tls.client if secure else None
    with ThriftBinClient(
        library.service, f"localhost:{server.port}", timeout=0.3, ssl_context=context
    ) as client:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown) as unknown:
            client.echo("x" * 1000)
        assert 0.25 < time.monotonic() - began < 5.0
        assert unknown.value.kind == "timeout"
        assert str(unknown.value).endswith("no whole reply within 0.3 s; may have been executed")
        with deadline(0.2), pytest.raises(DeadlineExceeded):
            client.with_options(timeout=None).echo("x" * 1000)


@pytest.mark.parametrize("secure", [False, True])
def test_a_peer_that_reads_nothing_is_a_request_not_sent(
    thriftpy: Any, tls: SimpleNamespace, secure: bool
) -> None:
    with Plays(
        lambda connection: server.ending.wait(), ssl_context=tls.server if secure else None
    ) as server:
        context = tls.client if secure else None
        with ThriftBinClient(
            thriftpy.service, f"localhost:{server.port}", timeout=0.3, ssl_context=context
        ) as client:
            began = time.monotonic()
            with pytest.raises(RequestNotSent, match="timed out"):
                client.echo("x" * (64 << 20))
            assert time.monotonic() - began < 10.0


def test_a_wire_keeps_its_timeout_while_it_is_as_good() -> None:
    changes: list[float | None] = []

    class Watched(socket.socket):
        def settimeout(self, value: float | None) -> None:
            changes.append(value)
            super().settimeout(value)

    ours, theirs = socket.socketpair()
    watched = Watched(fileno=ours.detach())
    wire = Wire(watched)
    for _ in range(50):
        wire.send(b"x", soon(10.0))
    assert len(changes) == 1
    wire.send(b"x", soon(1.0))
    wire.send(b"x", math.inf)
    wire.send(b"x", math.inf)
    assert len(changes) == 3 and changes[2] is None
    theirs.sendall(b"y")
    assert wire.receive(10, soon(10.0)) == b"y"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.receive(10, soon(0.05))
    assert 0.04 < time.monotonic() - began < 5.0
    with pytest.raises(TimeoutError):
        wire.send(b"x", time.monotonic() - 1)
    wire.close()
    theirs.close()


# The rest of the process.


def test_small_messages_do_not_wait_for_each_other(thriftpy: Any) -> None:
    with Plays(lambda connection: connection.recv(1)) as server:
        wire = open_wire(address_of(server), soon())
        assert wire._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        wire.close()


def test_the_default_timeout_of_sockets_neither_counts_nor_changes(
    thrift_server: Start, library: Any, handler: Any
) -> None:
    handler.echo = lambda text: time.sleep(0.1) or text
    server = thrift_server(library.service, handler)
    socket.setdefaulttimeout(0.01)
    try:
        with ThriftBinClient(library.service, server.endpoint) as client:
            assert client.echo("x") == "x"
        assert socket.getdefaulttimeout() == 0.01
    finally:
        socket.setdefaulttimeout(None)


def test_others_run_while_a_call_waits(thrift_server: Start, library: Any, handler: Any) -> None:
    server = thrift_server(library.service, handler)
    server.late(0.3)
    ticks = 0
    over = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with ThriftBinClient(library.service, server.endpoint) as client:
            client.echo("x")
    finally:
        over.set()
        thread.join()
    assert ticks > 10


def test_asking_whether_a_connection_is_fresh_lets_nobody_else_run() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    ran = []
    if GREEN:
        import gevent

        gevent.spawn(ran.append, 1)
    assert wire.is_fresh() and not ran
    theirs.sendall(b"x")
    assert not wire.is_fresh() and not ran
    theirs.close()
    wire.close()


def test_a_forked_child_has_connections_of_its_own(
    thrift_server: Start, library: Any, handler: Any
) -> None:
    server = thrift_server(library.service, handler)
    with ThriftBinClient(library.service, server.endpoint, pool_size=1) as client:
        assert client.echo("parent") == "parent"
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                own = client.stats()["hosts"][server.endpoint]
                assert (own["idle"], own["in_use"]) == (0, 0)
                assert client.echo("child") == "child"
                assert client.stats()["hosts"][server.endpoint]["connects"] == 2
                code = 0
            os._exit(code)
        assert client.echo("parent again") == "parent again"
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.echo("and again") == "and again"
        assert client.stats()["hosts"][server.endpoint]["connects"] == 1


# Frames.


@pytest.fixture
def pair() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield SimpleNamespace(wire=Wire(ours), theirs=theirs)


def test_a_frame_may_come_in_any_pieces(pair: Any) -> None:
    connection = FramedConnection(pair.wire, 1000)
    connection.send(b"hello", soon())
    assert pair.theirs.recv(100) == b"\0\0\0\5hello"
    assert not connection.replied
    pair.theirs.sendall(b"\0\0")
    feeder = threading.Timer(0.05, pair.theirs.sendall, [b"\0\4ab"])
    feeder.start()
    assert connection.receive(1) == b"a" and connection.replied and not connection.is_at_end()
    assert connection.receive(10) == b"b"
    pair.theirs.sendall(b"cd")
    assert connection.receive(10) == b"cd" and connection.is_at_end()
    with pytest.raises(ReplyRefused, match="the frame ends inside the reply"):
        connection.receive(1)
    feeder.join()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\0\0\x03\xe9", "a frame of 1001 bytes; max_message=1000"),
        (b"\x7f\xff\xff\xff", "a frame of 2147483647 bytes"),
        (b"\xff\xff\xff\xff", "a frame of -1 bytes"),
        (b"\0\0\0\0", "a frame of 0 bytes"),
        (b"\x80\1\0\2\0\0\0\4echo", "perhaps the server does not frame"),
        (b"\0\0\0\1xy", "more bytes than the frame has"),
    ],
)
def test_frames_that_cannot_be(pair: Any, data: bytes, word: str) -> None:
    connection = FramedConnection(pair.wire, 1000)
    connection.send(b"hello", soon())
    pair.theirs.sendall(data)
    with pytest.raises(ReplyRefused, match=word):
        connection.receive(100)


def test_a_buffered_reply_has_a_last_byte_too(pair: Any) -> None:
    connection = BufferedConnection(pair.wire, 3)
    for _ in range(2):  # each call anew
        connection.send(b"hello", soon())
        pair.theirs.sendall(b"abc")
        assert connection.receive(100) == b"abc"
        with pytest.raises(ReplyRefused, match="larger than max_message=3 bytes"):
            connection.receive(1)
    connection.send(b"hello", soon())
    assert pair.theirs.recv(100) == b"hello" * 3
    pair.theirs.close()
    with pytest.raises(PeerClosed):
        connection.receive(1)
