"""What ThriftHttpClient adds to its connections: logins, headers, pages, sessions, TLS."""

import pickle
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from sepelib.rpc.testing import ThriftServer
from sepelib.rpc.thrift import ConnectFailed, OutcomeUnknown, ProtocolViolation, ThriftHttpClient

SECRET = "hunter2"


@pytest.fixture
def server(library: Any, handler: Any) -> Iterator[ThriftServer]:
    with ThriftServer(library.service, handler, transport="http") as server:
        yield server


@pytest.fixture
def login_url(server: ThriftServer) -> str:
    return server.url.replace("http://", f"http://bob:{SECRET}@") + f"?token={SECRET}"


def test_a_login_in_the_url_is_sent_and_shown_nowhere(
    library: Any, server: ThriftServer, login_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ThriftHttpClient(library.service, login_url, headers={"X-Who": "me"}) as client:
        assert client.whoami() == "directory"
        (call,) = server.calls
        assert call.headers["authorization"] == "Basic Ym9iOmh1bnRlcjI="
        assert call.headers["x-who"] == "me"
        assert call.path == f"/thrift?token={SECRET}"

        shown = [repr(client), str(client.stats())]
        server.html(403)
        with pytest.raises(ProtocolViolation) as violation:
            client.whoami()
        server.cut()
        with pytest.raises(OutcomeUnknown) as unknown:
            client.whoami()
        server.stop()
        with pytest.raises(ConnectFailed) as failed:
            client.whoami()
        for error in (violation.value, unknown.value, failed.value):
            shown += [str(error), repr(error), str(error.host), repr(error.__cause__)]
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert SECRET not in "".join([*shown, caplog.text])
    assert f"http://{server.host}:{server.port}/thrift?token=***" in str(failed.value)


def test_a_page_is_an_error_that_tells_status_and_first_words(
    library: Any, server: ThriftServer
) -> None:
    server.html(502)
    with (
        ThriftHttpClient(library.service, server.url) as client,
        pytest.raises(ProtocolViolation) as violation,
    ):
        client.ping()
    assert str(violation.value) == (
        f"ping at {server.url}: HTTP 502 as the test says is no reply: '<!DOCTYPE html> "
        "<html><head><title>Oops</title></head><body>no</body></html>'; may have been executed"
    )


def test_connections_are_kept_whatever_the_body_comes_in(
    library: Any, server: ThriftServer
) -> None:
    with ThriftHttpClient(library.service, server.url) as client:
        for size in (1, 7, 1000):
            server.chunked(size)
            assert [person.age for person in client.many(20)] == list(range(20))
            assert client.many(0) == []
    assert server.connections.accepted == 1


def test_a_session_is_used_and_stays_the_callers(
    library: Any, server: ThriftServer, login_url: str
) -> None:
    seen = []
    with requests.Session() as session:
        session.trust_env = False
        session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
        with ThriftHttpClient(library.service, login_url, session=session) as client:
            for _ in range(3):
                assert client.echo("x" * 100_000) == "x" * 100_000
            client.tell("psst")
            with pytest.raises(library.types.NotFound):
                client.forget("bob")
        assert server.connections.accepted == 1  # the session's own pool keeps it
        assert session.get_adapter("http://") and seen == [200] * 5
    assert {call.headers["authorization"] for call in server.calls} == {"Basic Ym9iOmh1bnRlcjI="}


def test_by_a_session_too_nobody_gets_the_answer_to_alice(
    library: Any, server: ThriftServer, handler: Any
) -> None:
    gone = threading.Event()
    handler.echo = lambda text: text if text != "ALICE" or gone.wait(20.0) else "never"
    with (
        requests.Session() as session,
        ThriftHttpClient(library.service, server.url, session=session) as client,
    ):
        with pytest.raises(OutcomeUnknown) as unknown:
            client.call("echo", "ALICE", timeout=0.1)
        assert unknown.value.kind == "timeout"
        gone.set()
        assert [client.echo(name) for name in ("bob", "carol")] == ["bob", "carol"]
        server.cut()
        with pytest.raises(OutcomeUnknown):
            client.add(1)
    assert [call.method for call in server.calls] == ["echo"] * 3 + ["add"]


def test_a_session_that_finds_no_server_has_not_executed_the_call(
    library: Any, server: ThriftServer, login_url: str
) -> None:
    server.refuse()
    with (
        requests.Session() as session,
        ThriftHttpClient(library.service, login_url, session=session) as client,
        pytest.raises(Exception, match="not executed") as failed,
    ):
        client.add(1)
    assert failed.value.maybe_executed is False and SECRET not in str(failed.value)


def test_certificates_are_checked(library: Any, handler: Any, tls: SimpleNamespace) -> None:
    with ThriftServer(library.service, handler, transport="http", ssl_context=tls.server) as server:
        with ThriftHttpClient(library.service, server.url, ssl_context=tls.client) as client:
            for _ in range(3):
                assert client.echo("x" * 200_000) == "x" * 200_000
        with (
            ThriftHttpClient(library.service, server.url) as distrusting,
            pytest.raises(ConnectFailed, match="certificate verify failed"),
        ):
            distrusting.ping()
    assert [call.method for call in server.calls] == ["echo"] * 3
    assert {call.connection for call in server.calls} == {1}


@pytest.mark.parametrize("url", ["host:9090", "unix:/x", "http://host/\n", "http://"])
def test_what_is_no_url_is_refused_at_once(thriftpy: Any, url: str) -> None:
    with pytest.raises(ValueError, match=r"no URL|percent-encode"):
        ThriftHttpClient(thriftpy.service, url)


def test_a_session_and_an_own_tls_context_exclude_each_other(
    thriftpy: Any, tls: SimpleNamespace
) -> None:
    with requests.Session() as session, pytest.raises(ValueError, match="the session's affair"):
        ThriftHttpClient(
            thriftpy.service, "https://a.example/", session=session, ssl_context=tls.client
        )
