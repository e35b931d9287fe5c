"""RPC over an InstrumentedSession: its metrics and limits, and still at most once."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import thriftpy2

from sepelib.http import InstrumentedSession
from sepelib.rpc.testing import ThriftServer, XmlRpcServer
from sepelib.rpc.thrift import OutcomeUnknown, ThriftHttpClient
from sepelib.rpc.xml import XmlRpcTransportError, xmlrpc_call
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def session(recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
    with InstrumentedSession("rpc", recorder=recorder) as session:
        yield session


def sent(recorder: MemoryRecorder) -> float:
    return sum(recorder.series("http_client_requests").values())


def test_xmlrpc_is_measured_by_the_session(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    with XmlRpcServer({"add": lambda a, b: a + b}) as server:
        assert xmlrpc_call(server.url, "add", 1, 2, session=session) == 3
    assert sent(recorder) == 1
    assert recorder.value("http_client_in_flight", "rpc") == 0


def test_a_lost_reply_of_xmlrpc_is_not_asked_for_twice(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    with XmlRpcServer({"add": lambda a, b: a + b}) as server:
        server.reset()
        with pytest.raises(XmlRpcTransportError) as caught:
            xmlrpc_call(server.url, "add", 1, 2, session=session)
        assert caught.value.maybe_executed
    assert sent(recorder) == 1
    assert recorder.value("http_client_in_flight", "rpc") == 0


def test_a_deadline_holds_for_what_drips_through_the_session(session: InstrumentedSession) -> None:
    with XmlRpcServer({"add": lambda a, b: a + b}) as server:
        server.drip(0.05)
        with pytest.raises(DeadlineExceeded), deadline(0.3):
            xmlrpc_call(server.url, "add", 1, 2, session=session)


def test_thrift_goes_over_the_session_at_most_once(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    idl: Any = thriftpy2.load_fp(io.StringIO("service Sums {i32 add(1: i32 n)}"), "sums_thrift")

    class Sums:
        def add(self, n: int) -> int:
            return n + 1

    with (
        ThriftServer(idl.Sums, Sums(), transport="http") as server,
        ThriftHttpClient(idl.Sums, server.url, session=session) as client,
    ):
        assert client.add(1) == 2
        server.reset()
        with pytest.raises(OutcomeUnknown):
            client.add(2)
        assert client.add(3) == 4
        assert [call.args for call in server.calls].count((2,)) <= 1
    assert sent(recorder) == 3
    assert recorder.value("http_client_in_flight", "rpc") == 0
