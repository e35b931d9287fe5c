"""Calls that a real server answers, well or not, and what the caller is told."""

from __future__ import annotations

import base64
import operator
import socket
import ssl
import subprocess
import sys
import time
import traceback
import xmlrpc.client
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from requests.auth import HTTPDigestAuth

import sepelib.rpc.errors
import sepelib.rpc.xml
from sepelib.core.exceptions import Error
from sepelib.rpc.errors import RpcError
from sepelib.rpc.testing import XmlRpcServer
from sepelib.rpc.xml import (
    DeadlineExceeded,
    ServerProxy,
    XmlRpcError,
    XmlRpcFault,
    XmlRpcHttpError,
    XmlRpcParseError,
    XmlRpcTransportError,
    XmlRpcValueRefused,
    xmlrpc_call,
)
from sepelib.util import deadline
from sepelib.util.secrets import Secret
from sepelib.util.testing import MemoryRecorder, check_errors

PASSWORD = "p@ss/w\u00f6rd %"
QUOTED = "p%40ss%2Fw%C3%B6rd%20%25"


def fail() -> None:
    raise KeyError("nothing here")


@pytest.fixture
def server() -> Iterator[XmlRpcServer]:
    functions = {"add": operator.add, "echo": lambda *values: list(values), "fail": fail}
    with XmlRpcServer(functions) as server:
        yield server


def test_a_call_brings_the_result(server: XmlRpcServer) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    values = [None, True, 7, 1.5, "\u263a <&>\n", b"\x00\xff", moment, [[], {}], {"a": {"b": 1}}]
    assert xmlrpc_call(server.url, "add", 1, 2) == 3
    assert xmlrpc_call(server.url, "echo", *values) == values
    assert xmlrpc_call(server.url, "echo", moment, datetimes="naive") == [
        moment.replace(tzinfo=None)
    ]
    assert [call.method for call in server.calls] == ["add", "echo", "echo"]


def test_a_proxy_calls_by_attributes_and_keeps_its_connection(server: XmlRpcServer) -> None:
    with ServerProxy(server.url) as proxy:
        assert proxy.add(1, 2) == 3
        assert "system.listMethods" in proxy.system.listMethods()
        assert proxy.call("add", "a", "b") == "ab"
        with pytest.raises(XmlRpcFault):
            proxy.fail()
        assert repr(proxy) == f"<ServerProxy {server.url}>"
        assert repr(proxy.system.x) == f"<system.x of <ServerProxy {server.url}>>"
        assert not hasattr(proxy, "_nothing") and not hasattr(proxy.add, "__wrapped__")
    assert {call.connection for call in server.calls} == {1}
    server.wait_for(lambda: server.connections.open == 0)


def test_a_single_call_leaves_no_connection(server: XmlRpcServer) -> None:
    xmlrpc_call(server.url, "add", 1, 2)
    server.wait_for(lambda: server.connections == (1, 0))


def test_a_restarted_server_is_not_noticed(server: XmlRpcServer) -> None:
    with ServerProxy(server.url) as proxy:
        for _ in range(3):
            assert proxy.add(1, 2) == 3
            server.restart()
        assert proxy.add(1, 2) == 3
    assert len(server.calls) == 4


def test_long_replies_come_compressed(server: XmlRpcServer) -> None:
    text = "0123456789" * 100_000
    assert xmlrpc_call(server.url, "echo", text) == [text]
    assert server.calls[0].headers["accept-encoding"] == "gzip"


def test_a_session_of_the_caller_is_used_and_left_open(server: XmlRpcServer) -> None:
    with requests.Session() as session:
        session.headers["X-Mine"] = "yes"
        for _ in range(2):
            assert xmlrpc_call(server.url, "add", 1, 2, session=session) == 3
        with ServerProxy(server.url, session=session) as proxy:
            proxy.add(1, 2)
        assert server.connections == (1, 1)
    assert {call.headers["x-mine"] for call in server.calls} == {"yes"}


def test_the_own_session_takes_nothing_from_the_environment(
    server: XmlRpcServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert xmlrpc_call(server.url, "add", 1, 2) == 3
    assert "authorization" not in server.calls[0].headers


def test_no_cookie_goes_from_one_call_to_the_next(server: XmlRpcServer) -> None:
    body = xmlrpc.client.dumps((1,), methodresponse=True).encode()
    server.reply(body, headers={"Set-Cookie": "user=alice; Path=/"})
    with ServerProxy(server.url) as proxy:
        assert proxy.echo() == 1
        proxy.echo()
    assert "cookie" not in server.calls[1].headers


def test_headers_are_sent_and_may_replace_ours(server: XmlRpcServer) -> None:
    xmlrpc_call(
        server.url, "add", 1, 2, headers={"X-Token": "t", "content-type": "application/xml"}
    )
    headers = server.calls[0].headers
    assert (headers["x-token"], headers["content-type"]) == ("t", "application/xml")


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nY: b"}, {"X y": "a"}, {"X": "\u263a"}, {"X": " a"}]
)
def test_a_header_that_is_none_is_refused_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no header of HTTP: X") as caught:
        ServerProxy("http://host/", headers=headers)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://host/",
            "host/RPC2",
            "",
            "http://",
            "http:///RPC2",
            "http://host:x/",
            "http://[::1",
        ),
        *("http://u:hunter2@host:1e9/", "http://u:hunter2@ho st/", "http://host/\nx"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL of http or https: ") as caught:
        ServerProxy(url)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_arguments_that_make_no_sense_are_refused() -> None:
    wrong: Any
    for wrong in ({"big_ints": "i4"}, {"datetimes": "local"}):
        with pytest.raises(ValueError, match="not '"):
            ServerProxy("http://host/", **wrong)
    with pytest.raises(TypeError, match="a collection"):
        ServerProxy("http://host/", idempotent="add")
    with pytest.raises(ValueError, match="finite"):
        xmlrpc_call("http://host/", "add", timeout=-1.0)
    with pytest.raises(ValueError, match="finite"):
        xmlrpc_call("http://host/", "add", total_timeout=float("nan"))


# Logins.


@pytest.mark.parametrize("how", ["url", "auth", "secret"])
def test_logins_are_sent_and_shown_nowhere(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with XmlRpcServer({"fail": fail}, users={"b\u00f6b": PASSWORD}) as server:
        url, auth = server.url, None
        if how == "url":
            url = url.replace("http://", f"http://b%C3%B6b:{QUOTED}@")
        else:
            auth = ("b\u00f6b", PASSWORD if how == "auth" else Secret(PASSWORD))
        caplog.set_level("DEBUG")
        with ServerProxy(url + "?token=t0ken", auth=auth) as proxy:
            errors = []
            for break_it in (server.heal, server.html, server.reset, lambda: server.html(500)):
                break_it()
                with pytest.raises(XmlRpcError) as caught:
                    proxy.fail("par4meter")
                errors.append(caught.value)
            server.close()
            with pytest.raises(XmlRpcTransportError) as caught:
                proxy.fail("par4meter")
            errors.append(caught.value)
            with pytest.raises(XmlRpcValueRefused) as refused:
                proxy.fail({"par4meter"})
            errors.append(refused.value)
            shown = [repr(proxy), caplog.text.replace("/RPC2?token=t0ken HTTP", "")]
        for error in errors:
            shown += [repr(error), *traceback.format_exception(error)]
        assert {type(error) for error in errors} == {
            *(XmlRpcFault, XmlRpcParseError, XmlRpcTransportError, XmlRpcHttpError),
            XmlRpcValueRefused,
        }
        encoded = base64.b64encode(f"b\u00f6b:{PASSWORD}".encode()).decode()
        for text in shown:
            for secret in (PASSWORD, QUOTED, encoded, "t0ken", "par4meter"):
                assert secret not in text.replace('proxy.fail("par4meter")', "").replace(
                    'proxy.fail({"par4meter"})', ""
                )
        assert {error.url for error in errors} == {f"{server.url}?token=***"}


def test_a_wrong_or_missing_login_is_an_http_error() -> None:
    with XmlRpcServer({"add": operator.add}, users={"bob": PASSWORD}) as server:
        for auth in (None, ("bob", "guess"), ("eve", PASSWORD)):
            with pytest.raises(XmlRpcHttpError) as caught:
                xmlrpc_call(server.url, "add", 1, 2, auth=auth)
            assert caught.value.status == 401
        assert server.calls == ()
        url = server.url.replace("//", "//eve:guess@")
        assert xmlrpc_call(url, "add", 1, 2, auth=("bob", PASSWORD)) == 3


def test_a_login_may_be_whatever_requests_takes(server: XmlRpcServer) -> None:
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    for session in (None, requests.Session()):
        server.reply(b"", status=401, headers={"WWW-Authenticate": challenge})
        auth = HTTPDigestAuth("bob", PASSWORD)
        assert xmlrpc_call(server.url, "add", 1, 2, auth=auth, session=session) == 3
        refused, welcome = server.calls[-2:]
        assert "authorization" not in refused.headers
        assert welcome.headers["authorization"].startswith('Digest username="bob"')
        assert welcome.connection == refused.connection
        if session is not None:
            session.close()


# What servers answer beside results.


def test_a_fault_is_a_fault_with_any_status(server: XmlRpcServer) -> None:
    for status in (200, 500, 503, 404):
        server.status(status)
        with pytest.raises(XmlRpcFault) as caught:
            xmlrpc_call(server.url, "fail")
        assert caught.value.code == 1
        assert caught.value.message == "<class 'KeyError'>:'nothing here'"


def test_a_result_with_a_status_of_failure_is_no_result(server: XmlRpcServer) -> None:
    server.status(500)
    with pytest.raises(XmlRpcHttpError) as caught:
        xmlrpc_call(server.url, "add", 1, 2)
    assert (caught.value.status, caught.value.excerpt) == (500, "")


def test_an_http_error_has_status_and_excerpt(server: XmlRpcServer) -> None:
    server.reply(
        b"out of\r\n\x00\xff memory" + b" very" * 5000, status=503, content_type="text/plain"
    )
    with pytest.raises(XmlRpcHttpError) as caught:
        xmlrpc_call(server.url, "add", 1, 2)
    assert caught.value.status == 503 and caught.value.location == ""
    assert caught.value.excerpt.startswith("out of \ufffd memory very")
    assert str(caught.value).startswith(f"add at {server.url}: HTTP status 503: out of")
    assert len(str(caught.value)) < 500


def test_a_page_is_told_by_its_type_and_its_first_words(server: XmlRpcServer) -> None:
    server.html()
    with pytest.raises(
        XmlRpcParseError, match="a reply of text/html, which is not XML-RPC"
    ) as caught:
        xmlrpc_call(server.url, "add", 1, 2)
    assert "Sign in" in caught.value.excerpt
    assert (caught.value.line, caught.value.column) == (0, 0)
    server.html(502)
    with pytest.raises(XmlRpcHttpError, match=r"502: .*Sign in"):
        xmlrpc_call(server.url, "add", 1, 2)
    server.reply(b'{"result": 3}', content_type="application/json")
    with pytest.raises(XmlRpcParseError, match="a reply of application/json") as caught:
        xmlrpc_call(server.url, "add", 1, 2)
    assert caught.value.excerpt == '{"result": 3}'


def test_a_wrong_content_type_does_not_matter_when_the_content_is_right(
    server: XmlRpcServer,
) -> None:
    body = xmlrpc.client.dumps((3,), methodresponse=True).encode()
    for kind in ("text/html", "application/octet-stream", "text/xml; charset=klingon"):
        server.reply(body, content_type=kind)
        assert xmlrpc_call(server.url, "add", 1, 2) == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_says_where_to(server: XmlRpcServer, status: int) -> None:
    server.redirect("http://u:hunter2@other.test/RPC2?sid=hunter2", status)
    with pytest.raises(XmlRpcHttpError) as caught:
        xmlrpc_call(server.url, "add", 1, 2)
    assert caught.value.status == status
    assert caught.value.location == "http://u:***@other.test/RPC2?sid=***"
    assert "a redirect to http://u:***@other.test/RPC2?sid=***" in str(caught.value)
    assert len(server.calls) == 1


def test_a_fault_passes_a_thing_that_looks_like_a_login_masked(server: XmlRpcServer) -> None:
    def leak() -> None:
        raise ValueError("cannot open http://u:hunter2@db.test/")

    server.dispatcher.register_function(leak)
    with pytest.raises(XmlRpcFault) as caught:
        xmlrpc_call(server.url, "leak")
    assert "http://u:***@db.test/" in str(caught.value)
    assert "hunter2" in caught.value.message  # as it came


# Several calls in one.


def test_a_multicall_gives_results_and_faults_in_their_places(server: XmlRpcServer) -> None:
    with ServerProxy(server.url) as proxy:
        results = proxy.multicall([("add", 1, 2), ("fail",), ("nothing",), ["echo", [], None]])
        assert results[0] == 3 and results[3] == [[], None]
        for index, method, words in ((1, "fail", "nothing here"), (2, "nothing", "not supported")):
            fault = results[index]
            assert isinstance(fault, XmlRpcFault) and fault.method == method
            assert words in fault.message
        assert proxy.multicall([]) == []
    assert len(server.calls) == 2


def test_a_multicall_tells_what_cannot_be_sent_and_what_cannot_be_read(
    server: XmlRpcServer,
) -> None:
    with ServerProxy(server.url) as proxy:
        with pytest.raises(
            XmlRpcValueRefused, match=r"params\[0\]\[1\]\.params\[0\] is of type set"
        ):
            proxy.multicall([("add", 1, 2), ("add", {1})])
        for wrong in (3, [[1]], [[1], [2, 3]], [[1], 2]):
            server.reply(xmlrpc.client.dumps((wrong,), methodresponse=True).encode())
            with pytest.raises(XmlRpcParseError, match="result"):
                proxy.multicall([("add", 1, 2), ("add", 3, 4)])


# Metrics.


def test_calls_are_counted_by_method_and_result(server: XmlRpcServer) -> None:
    recorder = MemoryRecorder()
    with ServerProxy(server.url, recorder=recorder, timeout=10.0) as proxy:
        proxy.add(1, 2)
        proxy.add(3, 4)

        def failing(*params: object, **options: Any) -> None:
            with pytest.raises((XmlRpcError, ZeroDivisionError)):
                proxy.call("echo", *params, **options)

        failing({1})
        server.status(500)
        failing()
        server.html()
        failing()
        server.reset()
        failing()
        server.late(60.0)
        failing(total_timeout=0.1)
        with pytest.raises(XmlRpcFault):
            proxy.fail()
        server.refuse()
        server.stop()
        failing()
    with ServerProxy("http://host.test/", session=Broken(), recorder=recorder) as proxy:
        failing()
    assert recorder.series("xmlrpc_client_calls") == {
        ("add", "ok"): 2.0,
        ("echo", "refused"): 1.0,
        ("echo", "http_error"): 1.0,
        ("echo", "parse_error"): 1.0,
        ("echo", "unknown"): 1.0,
        ("echo", "deadline"): 1.0,
        ("echo", "not_sent"): 1.0,
        ("echo", "error"): 1.0,
        ("fail", "fault"): 1.0,
    }


class Broken(requests.Session):
    """A session with a bug."""

    def request(self, *_: Any, **__: Any) -> requests.Response:
        raise ZeroDivisionError


# TLS.


def test_tls_is_verified_and_a_session_brings_its_own_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with XmlRpcServer({"add": operator.add}, ssl_context=context) as server:
        with pytest.raises(XmlRpcTransportError, match=r"TLS failed .*certificate") as caught:
            xmlrpc_call(server.url, "add", 1, 2, idempotent=True)
        assert (caught.value.kind, caught.value.maybe_executed) == ("tls", False)
        assert server.connections.accepted == 1  # another try would find the same certificate
        with requests.Session() as session:
            session.trust_env = False  # else requests prefers a CA bundle of the environment
            session.verify = str(tmp_path / "ca.pem")
            assert xmlrpc_call(server.url, "add", 1, 2, session=session) == 3
        with pytest.raises(XmlRpcTransportError) as caught:
            xmlrpc_call(server.url.replace("https", "http"), "add", 1, 2)
        assert caught.value.kind == "closed"
    with XmlRpcServer() as server, pytest.raises(XmlRpcTransportError) as caught:
        xmlrpc_call(server.url.replace("http", "https"), "add", 1, 2)
    assert caught.value.kind == "tls"


# Errors as such.


def test_every_error_pickles_and_is_one_line() -> None:
    url, method = "http://host/RPC2?token=***", "a.b"
    check_errors(
        sepelib.rpc.xml,
        sepelib.rpc.errors,
        examples=[
            XmlRpcError(url, method),
            XmlRpcFault(url, method, 4, "two\nlines\u2028and more"),
            XmlRpcValueRefused(url, method, "params[0]", "is of type set"),
            XmlRpcTransportError(url, method, "closed", "the connection has ended", True),
            XmlRpcHttpError(url, method, 302, "", "http://other/"),
            XmlRpcParseError(url, method, "not XML", 3, 14, ""),
            DeadlineExceeded(url, method, False),
        ],
    )


def test_all_are_of_one_family() -> None:
    for name in sepelib.rpc.xml.__all__:
        value = getattr(sepelib.rpc.xml, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, XmlRpcError) and issubclass(value, RpcError)
    assert issubclass(RpcError, Error)
    assert issubclass(DeadlineExceeded, deadline.DeadlineExceeded)


def test_the_default_timeout_of_sockets_stays_as_it_is(server: XmlRpcServer) -> None:
    with ServerProxy(server.url, timeout=3.0) as proxy:
        proxy.add(1, 2)
        assert socket.getdefaulttimeout() is None


def test_importing_the_root_brings_no_third_party_along() -> None:
    code = (
        "import sys, sepelib.rpc, sepelib.rpc.errors, sepelib.rpc.testing;"
        "sys.exit(' '.join({'requests', 'urllib3', 'gevent', 'xmlrpc'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_time_is_not_spent_on_a_whole_reply(server: XmlRpcServer) -> None:
    started = time.monotonic()
    with ServerProxy(server.url) as proxy:
        for _ in range(20):
            proxy.add(1, 2)
    # The forty milliseconds of Nagle and a delayed acknowledgement would be 0.8 s.
    assert time.monotonic() - started < 0.7
