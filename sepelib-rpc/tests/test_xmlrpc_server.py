"""The test server, asked by the standard library's client and by bare sockets."""

from __future__ import annotations

import operator
import socket
import xmlrpc.client
from collections.abc import Iterator

import pytest

import sepelib.rpc.testing
from sepelib.rpc.testing import ReceivedCall, XmlRpcServer


@pytest.fixture
def server() -> Iterator[XmlRpcServer]:
    with XmlRpcServer({"add": operator.add}) as server:
        yield server


@pytest.fixture
def client(server: XmlRpcServer) -> Iterator[xmlrpc.client.ServerProxy]:
    with xmlrpc.client.ServerProxy(server.url, allow_none=True, use_builtin_types=True) as client:
        yield client


def test_the_client_of_the_standard_library_understands_it(
    server: XmlRpcServer, client: xmlrpc.client.ServerProxy
) -> None:
    def nothing(value: object) -> None:
        """Does nothing."""

    server.dispatcher.register_function(nothing)
    assert client.add(1, 2) == 3
    assert client.add(b"a", b"b") == b"ab"
    assert client.nothing(None) is None
    assert client.system.methodHelp("nothing") == "Does nothing."
    with pytest.raises(xmlrpc.client.Fault, match="not supported"):
        client.nobody()
    calls = xmlrpc.client.MultiCall(client)
    calls.add(3, 4)
    assert list(calls()) == [7]
    assert server.connections.accepted == 1


def test_it_keeps_what_it_gets(server: XmlRpcServer, client: xmlrpc.client.ServerProxy) -> None:
    client.add(1, 2)
    (call,) = server.calls
    assert isinstance(call, ReceivedCall)
    assert (call.method, call.params, call.connection) == ("add", (1, 2), 1)
    assert call.headers["content-type"] == "text/xml"
    assert b"<methodName>add</methodName>" in call.body


def test_faults_strike_in_order_and_then_no_more(
    server: XmlRpcServer, client: xmlrpc.client.ServerProxy
) -> None:
    server.status(500)
    server.html(403, times=2)
    for status in (500, 403, 403):
        with pytest.raises(xmlrpc.client.ProtocolError) as caught:
            client.add(1, 2)
        assert caught.value.errcode == status
    assert client.add(1, 2) == 3
    server.status(502, times=None)
    for _ in range(3):
        with pytest.raises(xmlrpc.client.ProtocolError, match="502"):
            client.add(1, 2)
    server.heal()
    assert client.add(1, 2) == 3


def test_a_login_is_asked_for(server: XmlRpcServer) -> None:
    with XmlRpcServer({"add": operator.add}, users={"bob": "secret"}) as server:
        for login, errors in (("", True), ("bob:guess@", True), ("bob:secret@", False)):
            url = server.url.replace("//", f"//{login}")
            with xmlrpc.client.ServerProxy(url) as client:
                if errors:
                    with pytest.raises(xmlrpc.client.ProtocolError, match="401"):
                        client.add(1, 2)
                else:
                    assert client.add(1, 2) == 3
        assert len(server.calls) == 1


def raw(server: XmlRpcServer) -> socket.socket:
    body = xmlrpc.client.dumps((1, 2), "add").encode()
    client = socket.create_connection(server.address, timeout=10.0)
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return client


def test_an_answer_is_cut_or_reset(server: XmlRpcServer) -> None:
    server.cut()
    with raw(server) as client:
        assert client.recv(100) == b""
    server.cut(5)
    with raw(server) as client:
        assert client.makefile("rb").read().endswith(b"\r\n\r\n<?xml")
    server.reset()
    with raw(server) as client, pytest.raises(ConnectionResetError):
        client.recv(100)
    assert len(server.calls) == 3


@pytest.mark.parametrize("fault", ["late", "drip", "drip_body"])
def test_what_waits_ends_when_the_client_goes_or_the_server_stops(
    server: XmlRpcServer, fault: str
) -> None:
    getattr(server, fault)(60.0, times=2)
    with raw(server):
        server.wait_for(lambda: len(server.calls) == 1)
    server.wait_for(lambda: server.connections.open == 0)
    with raw(server):
        server.wait_for(lambda: len(server.calls) == 2)
        server.stop()
        assert server.connections.open == 0


def test_what_is_no_call_gets_a_fault_and_is_not_kept(server: XmlRpcServer) -> None:
    with socket.create_connection(server.address, timeout=10.0) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        assert b"<fault>" in client.recv(65536)
    assert server.calls == ()


def test_names_load_at_first_use_and_misspelt_ones_do_not() -> None:
    assert set(sepelib.rpc.testing.__all__) >= {"ReceivedCall", "XmlRpcServer"}
    assert dir(sepelib.rpc.testing) == sorted(sepelib.rpc.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'XmlRpcSrever'"):
        sepelib.rpc.testing.XmlRpcSrever  # noqa: B018
