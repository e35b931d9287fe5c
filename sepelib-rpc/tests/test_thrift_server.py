"""ThriftServer, asked by the clients of the libraries themselves."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import thriftpy2.http
import thriftpy2.rpc

from sepelib.rpc.testing import ThriftServer

pytest_plugins = ["sepelib.rpc.pytest_plugin"]

Start = Callable[..., ThriftServer]
PING = b"\x80\1\0\1\0\0\0\4ping\0\0\0\x07\0"
PONG = b"\x80\1\0\2\0\0\0\4ping\0\0\0\x07\0"


@contextlib.contextmanager
def client_of(library: Any, server: ThriftServer, protocol: str, transport: str) -> Iterator[Any]:
    """What a user of the library writes."""
    if library.name == "thriftpy2":
        yield from _thriftpy(library, server, protocol, transport)
    else:
        yield from _apache(library, server, protocol, transport)


def _thriftpy(library: Any, server: ThriftServer, protocol: str, transport: str) -> Iterator[Any]:
    from thriftpy2.protocol import TBinaryProtocolFactory, TCompactProtocolFactory
    from thriftpy2.transport import TBufferedTransportFactory, TFramedTransportFactory

    protocols = {"binary": TBinaryProtocolFactory, "compact": TCompactProtocolFactory}
    framed = {True: TFramedTransportFactory, False: TBufferedTransportFactory}
    options = {
        "proto_factory": protocols[protocol](),
        "trans_factory": framed[transport == "framed"](),
    }
    if transport == "http":
        options |= {"url": server.url, "keep_alive": True, "path": "/thrift"}
        client: Any = thriftpy2.http.make_client(library.service, **options)
    else:
        client = thriftpy2.rpc.make_client(
            library.service, server.host, server.port, timeout=5000, **options
        )
    try:
        yield client
    finally:
        client.close()


def _apache(library: Any, server: ThriftServer, protocol: str, transport: str) -> Iterator[Any]:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.THttpClient import THttpClient
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TBufferedTransport, TFramedTransport

    wires = {
        "buffered": lambda: TBufferedTransport(TSocket(server.host, server.port)),
        "framed": lambda: TFramedTransport(TSocket(server.host, server.port)),
        "http": lambda: THttpClient(server.url),
    }
    wire = wires[transport]()
    wire.open()
    codec = {"binary": TBinaryProtocol, "compact": TCompactProtocol}[protocol](wire)
    try:
        yield library.service.Client(codec)
    finally:
        wire.close()


@pytest.mark.parametrize("transport", ["buffered", "framed", "http"])
@pytest.mark.parametrize("protocol", ["binary", "compact"])
def test_both_libraries_are_served_in_every_way(
    thrift_server: Start, library: Any, handler: Any, protocol: str, transport: str
) -> None:
    server = thrift_server(library.service, handler, protocol=protocol, transport=transport)
    types = library.types
    ann = types.Person(
        name="Änn", age=3, tags=["a"], counters={"x": 1 << 40}, kind=types.Kind.ROBOT
    )
    with client_of(library, server, protocol, transport) as client:
        assert client.whoami() == "directory"
        assert client.ping() is None
        assert client.echo("héllo") == "héllo"
        assert client.put(ann, False) == ann
        with pytest.raises(types.Busy) as busy:
            client.put(ann, False)
        assert (busy.value.reason, busy.value.retry_in) == ("Änn is there", 3)
        with pytest.raises(types.NotFound):
            client.forget("bob")
        assert [person.age for person in client.many(3)] == [0, 1, 2]
        assert client.counters() == {"calls": 7} and set(client.numbers()) == {1, 2, 3}
        client.tell("pssst")
        assert client.add(2) == 2  # nothing was answered to `tell`
        assert handler.told == ["pssst"]

    assert [call.method for call in server.calls] == [
        *("whoami", "ping", "echo", "put", "put", "forget", "many", "counters", "numbers"),
        *("tell", "add"),
    ]
    assert server.calls[2].args == ("héllo",)
    assert [call.oneway for call in server.calls[-2:]] == [True, False]
    assert server.calls[0].path == ("/thrift" if transport == "http" else "")


def test_what_the_idl_does_not_know_is_an_application_exception(
    thrift_server: Start, library: Any, handler: Any
) -> None:
    handler.ping = lambda: 1 / 0
    server = thrift_server(library.service, handler)
    with client_of(library, server, "binary", "buffered") as client:
        with pytest.raises(library.application_error) as internal:
            client.ping()
        assert internal.value.type == library.application_error.INTERNAL_ERROR
        with socket.create_connection(server.address) as raw:
            raw.sendall(b"\x80\1\0\1\0\0\0\4nope\0\0\0\7\0")
            reply = raw.recv(4096)
        assert reply[:16] == b"\x80\1\0\3\0\0\0\4nope\0\0\0\7"
        assert client.echo("still there") == "still there"


# Faults, on the bytes themselves: a client of either library would hide half of them.


def everything(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    connection.settimeout(10.0)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (part := connection.recv(size - len(data)))
        assert part, data
    return data


@pytest.fixture
def server(thrift_server: Start, library: Any, handler: Any) -> ThriftServer:
    return thrift_server(library.service, handler)


@pytest.mark.parametrize(
    ("fault", "args", "reply"),
    [
        ("cut", (), b""),
        ("cut", (5,), PONG[:5]),
        ("last", (), PONG),
        ("garbage", (b"hello",), b"hello"),
        ("message", (b"abc",), b"abc"),
        ("trailing", (b"more",), PONG + b"more"),
        ("wrong_seqid", (), PONG.replace(b"\x07", b"\x08")),
        ("wrong_method", ("pong",), PONG.replace(b"ping", b"pong")),
        ("wrong_kind", (3,), PONG.replace(b"\2", b"\3", 1)),
        ("drip", (0.001,), PONG),
        ("late", (0.05,), PONG),
    ],
)
def test_a_fault_strikes_one_reply_to_a_call_that_was_executed(
    server: ThriftServer, fault: str, args: tuple[Any, ...], reply: bytes
) -> None:
    getattr(server, fault)(*args)
    with socket.create_connection(server.address) as client:
        client.sendall(PING)
        begin = exactly(client, len(reply))
        client.shutdown(socket.SHUT_WR)
        assert begin + everything(client) == reply
    assert [call.method for call in server.calls] == ["ping"]

    with socket.create_connection(server.address) as client:
        client.sendall(PING + PING)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == PONG + PONG


def test_a_fault_may_last_and_is_healed(server: ThriftServer) -> None:
    server.message(b"no", times=None)
    server.message(b"first", times=2)
    with socket.create_connection(server.address) as client:
        client.sendall(PING * 4)
        assert exactly(client, 14) == b"firstfirstnono"
        server.heal()
        client.sendall(PING)
        assert exactly(client, len(PONG)) == PONG


@pytest.mark.parametrize("after", [0, 5])
def test_a_reset_is_one(server: ThriftServer, after: int) -> None:
    server.reset(after)
    with socket.create_connection(server.address) as client:
        client.sendall(PING)
        with pytest.raises(ConnectionResetError):
            everything(client)
    assert len(server.calls) == 1


def test_a_oneway_call_has_no_reply_and_uses_up_no_fault(
    server: ThriftServer, handler: Any
) -> None:
    server.message(b"fault")
    with socket.create_connection(server.address) as client:
        client.sendall(b"\x80\1\0\4\0\0\0\4tell\0\0\0\1\x0b\0\1\0\0\0\2hi\0" + PING)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"fault"
    assert handler.told == ["hi"] and [call.oneway for call in server.calls] == [True, False]


def test_open_connections_get_strange_bytes_or_an_end_at_once(server: ThriftServer) -> None:
    with (
        socket.create_connection(server.address) as one,
        socket.create_connection(server.address) as two,
    ):
        server.wait_for(lambda: server.connections.open == 2)
        one.sendall(PING)
        assert exactly(one, len(PONG)) == PONG
        assert server.stray(b"!!") == 2
        assert exactly(one, 2) == b"!!" == exactly(two, 2)
        assert server.disconnect() == 2
        assert one.recv(1) == b"" == two.recv(1)
    assert server.disconnect() == 0


def test_open_connections_may_be_reset(server: ThriftServer) -> None:
    with socket.create_connection(server.address) as client:
        server.wait_for(lambda: server.connections.open == 1)
        assert server.disconnect(reset=True) == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_slow_server_lets_the_first_byte_wait(server: ThriftServer) -> None:
    server.slow_accept(60.0)
    with socket.create_connection(server.address) as slow:
        slow.sendall(PING)
        server.wait_for(lambda: server.connections.open == 1)
        with socket.create_connection(server.address) as next_one:
            next_one.sendall(PING)
            assert exactly(next_one, len(PONG)) == PONG
        assert len(server.calls) == 1
    server.wait_for(lambda: server.connections.open == 0)  # it went, so nobody sleeps for it


@pytest.mark.parametrize("protocol", ["binary", "compact"])
@pytest.mark.parametrize("rogue", ["string", "list", "set", "map"])
def test_a_rogue_reply_is_a_proper_message_up_to_its_claim(
    thrift_server: Start, library: Any, handler: Any, protocol: str, rogue: Any
) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    server = thrift_server(library.service, handler, protocol=protocol, transport="framed")
    server.rogue(rogue, 123_456)
    codec = {"binary": TBinaryProtocol, "compact": TCompactProtocol}[protocol]
    ask: Any = codec(TMemoryBuffer())
    ask.writeMessageBegin("ping", 1, 99)
    ask.writeStructBegin("")
    ask.writeFieldStop()
    message = ask.trans.getvalue()
    with socket.create_connection(server.address) as client:
        client.sendall(len(message).to_bytes(4, "big") + message)
        size = int.from_bytes(exactly(client, 4), "big")
        got: Any = codec(TMemoryBuffer(exactly(client, size)))

    assert got.readMessageBegin() == ("ping", 2, 99)
    got.readStructBegin()
    _, kind, number = got.readFieldBegin()
    assert (kind, number) == ({"string": 11, "list": 15, "set": 14, "map": 13}[rogue], 0)
    if rogue == "string":
        with pytest.raises(EOFError):
            got.readString()
        return
    begin = {"list": got.readListBegin, "set": got.readSetBegin, "map": got.readMapBegin}
    assert begin[rogue]()[-1] == 123_456


def test_html_and_chunks_are_for_http(thrift_server: Start, library: Any, handler: Any) -> None:
    server = thrift_server(library.service, handler, transport="http")
    server.html(502)
    server.chunked(7)
    with socket.create_connection(server.address) as client:
        head = f"POST /x HTTP/1.1\r\nHost: a\r\nX-Me: 1\r\nContent-Length: {len(PING)}\r\n\r\n"
        client.sendall((head.encode() + PING) * 2)
        client.shutdown(socket.SHUT_WR)
        page, _, rest = everything(client).partition(b"HTTP/1.1 200 OK\r\n")
    assert page.startswith(b"HTTP/1.1 502 ") and page.endswith(b"</html>\n")
    assert rest.startswith(b"Transfer-Encoding: chunked\r\n\r\n7\r\n" + PONG[:7] + b"\r\n7\r\n")
    assert rest.endswith(b"\r\n0\r\n\r\n")
    assert server.calls[0].path == "/x" and server.calls[0].headers["x-me"] == "1"


def test_tls_is_spoken_and_stray_bytes_go_beneath_it(
    thrift_server: Start, library: Any, handler: Any, tls: SimpleNamespace
) -> None:
    server = thrift_server(library.service, handler, ssl_context=tls.server)
    with (
        socket.create_connection(server.address) as plain,
        tls.client.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(PING)
        assert exactly(client, len(PONG)) == PONG
        server.stray()
        with pytest.raises(ssl.SSLError):
            client.recv(1)


def test_a_unix_path_is_served_until_the_end(
    thrift_server: Start, library: Any, handler: Any, tmp_path: Path
) -> None:
    path = tmp_path / "thrift.sock"
    server = thrift_server(library.service, handler, unix_path=path)
    assert server.endpoint == f"unix:{path}"
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(PING)
            assert exactly(client, len(PONG)) == PONG
            server.restart()
            assert client.recv(1) == b""
    assert len(server.calls) == 2
    server.close()
    assert not path.exists()


def test_a_restart_keeps_the_journal_and_the_port(server: ThriftServer) -> None:
    for number in (1, 2):
        with socket.create_connection(server.address) as client:
            client.sendall(PING)
            assert exactly(client, len(PONG)) == PONG
            server.restart()
        assert len(server.calls) == number
    assert [call.connection for call in server.calls] == [1, 2]


def test_a_client_that_breaks_off_is_forgiven_one_that_talks_nonsense_is_not(
    library: Any, handler: Any
) -> None:
    with ThriftServer(library.service, handler) as server:
        with socket.create_connection(server.address) as client:
            client.sendall(PING[:10])
        server.wait_for(lambda: server.connections == (1, 0))
    assert server.calls == ()

    def talk_nonsense() -> None:
        with (
            ThriftServer(library.service, handler, transport="framed") as server,
            socket.create_connection(server.address) as client,
        ):
            client.sendall(b"\0\0\0\5" + PING)
            assert everything(client) == b""

    with pytest.raises(EOFError):
        talk_nonsense()


def test_what_is_no_service_is_refused() -> None:
    with pytest.raises(TypeError, match="is neither a service of thriftpy2 nor"):
        ThriftServer(object(), object())
