"""What the bare clients of the Thrift libraries get wrong: `./dev peers` runs these on them."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sepelib.rpc.testing import ThriftServer
from sepelib.rpc.thrift import ThriftBinClient, ThriftHttpClient


class Directory:
    def echo(self, text: str) -> str:
        return text


Opening = Callable[[ThriftServer, float], Any]


@pytest.fixture
def open_client(request: pytest.FixtureRequest, thriftpy: Any, apache: Any) -> Iterator[Opening]:
    """A client of a server, with a timeout; ours, or what --peer says."""
    peer = request.config.getoption("--peer", None) or "ours"
    with contextlib.ExitStack() as clients:

        def open_client(server: ThriftServer, timeout: float) -> Any:
            opening = {"ours": ours, "thriftpy2": bare_thriftpy2, "apache": bare_apache}[peer]
            service = apache.service if peer == "apache" else thriftpy.service
            client, close = opening(service, server, timeout)
            clients.callback(close)
            return client

        yield open_client


def ours(service: Any, server: ThriftServer, timeout: float) -> Any:
    if server.transport == "http":
        client: Any = ThriftHttpClient(service, [server.url], timeout=timeout)
    else:
        client = ThriftBinClient(service, [server.endpoint], pool_size=1, timeout=timeout)
    return client, client.close


def bare_thriftpy2(service: Any, server: ThriftServer, timeout: float) -> Any:
    import thriftpy2.http
    import thriftpy2.rpc

    milliseconds = round(timeout * 1000)
    if server.transport == "http":
        client = thriftpy2.http.make_client(service, url=server.url, timeout=milliseconds)
    else:
        client = thriftpy2.rpc.make_client(service, server.host, server.port, timeout=milliseconds)
    return client, client.close


def bare_apache(service: Any, server: ThriftServer, timeout: float) -> Any:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport import TSocket, TTransport

    bare = TSocket.TSocket(server.host, server.port)
    bare.setTimeout(timeout * 1000)
    transport = TTransport.TBufferedTransport(bare)
    transport.open()
    return service.Client(TBinaryProtocol(transport)), transport.close


@pytest.mark.peer("thriftpy2", "T1")
@pytest.mark.peer("apache", "T1")
def test_after_a_timeout_the_next_caller_gets_no_answer_to_the_former_one(
    thriftpy: Any, open_client: Opening
) -> None:
    with ThriftServer(thriftpy.service, Directory()) as server:
        client = open_client(server, 0.2)
        server.late(0.4)
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the library's affair
            client.echo("ALICE")
        server.wait_for(lambda: len(server.calls) == 1)
        time.sleep(0.5)  # her answer has been sent now, to whoever listens

        answer = client.echo("bob")

    assert answer == "bob", f"bob is told {answer!r}"


@pytest.mark.peer("thriftpy2", "T2")
def test_overlapping_calls_over_http_leave_the_timeout_of_all_sockets_alone(
    thriftpy: Any, open_client: Opening
) -> None:
    before = socket.getdefaulttimeout()
    with ThriftServer(thriftpy.service, Directory(), transport="http") as server:
        first, second = open_client(server, 7.0), open_client(server, 7.0)
        server.late(0.3)
        overlapping = threading.Thread(target=first.echo, args=["ALICE"])
        overlapping.start()
        server.wait_for(lambda: len(server.calls) == 1)
        server.late(0.6)
        second.echo("bob")
        overlapping.join()

    after = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before)
    assert after == before, f"socket.getdefaulttimeout() is {after} for the whole process"
