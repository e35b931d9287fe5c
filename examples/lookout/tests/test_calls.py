"""Thrift and XML-RPC services as targets: what is fine, and the sentence for what is not."""

import io
import json
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.parser.parser import parse_fp

from examples.lookout.tests.daemon import NOWHERE, Lookout, Target, until
from lookout.probe import probe
from lookout.records import Result
from lookout.settings import Configuration, Settings
from lookout.targets import Kind, ThriftCall, XmlRpcCall, target_at
from lookout.targets import Target as Watched
from sepelib.core.config import ConfigError
from sepelib.rpc.testing import ThriftServer, XmlRpcServer
from sepelib.util.instrument import install
from sepelib.util.secrets import Secret
from sepelib.util.testing import MemoryRecorder, ServerProcess

IDL = """
struct Person { 1: string name, 2: list<i64> numbers }
exception Busy { 1: string why }
service Directory {
    void ping(), Person whoami(), void refuse() throws (7: Busy busy)
}
"""
PARSED: Any = parse_fp(io.StringIO(IDL), "directory_thrift", enable_cache=False)


class Handler:
    def ping(self) -> None:
        pass

    def whoami(self) -> Any:
        return PARSED.Person(name="bob", numbers=[1, 2, 3])

    def refuse(self) -> None:
        raise PARSED.Busy(why="secret")


def serving(**options: Any) -> ThriftServer:
    return ThriftServer(PARSED.Directory, Handler(), **options)


def call(
    *hosts: str, timeout: float = 20.0, max_latency: float | None = None, **how: Any
) -> Result:
    what = ThriftCall(hosts, **how)
    return probe(Watched("t", "", timeout=timeout, max_latency=max_latency, how=what))


def post(url: str, method: str = "get", timeout: float = 20.0, **how: Any) -> Result:
    return probe(Watched("x", "", timeout=timeout, how=XmlRpcCall(url, method, **how)))


# Thrift


@pytest.mark.parametrize("protocol", ["binary", "compact"])
@pytest.mark.parametrize("transport", ["buffered", "framed", "http"])
@pytest.mark.parametrize("method", ["ping", "whoami"])
def test_a_thrift_service_that_answers_is_fine_whatever_it_returns(
    transport: Any, protocol: Any, method: str
) -> None:
    with serving(transport=transport, protocol=protocol) as server:
        host = server.url if transport == "http" else server.endpoint
        result = call(host, method=method, transport=transport, protocol=protocol)

        assert (result.error, result.status, result.tries) == (None, 0, 1)
        assert [call.method for call in server.calls] == [method]


def test_after_an_answer_that_came_too_late_the_next_probe_is_right() -> None:
    with serving() as server:
        server.late(30.0)
        late = call(server.endpoint, timeout=0.3)
        after = call(server.endpoint)

        assert (late.error, late.status) == ("no complete answer within 0.3 s", None)
        assert late.latency < 10
        assert (after.error, after.status) == (None, 0)
        assert len(server.calls) == 2  # what may have been executed is not repeated


def test_each_call_is_a_new_connection() -> None:
    with serving() as server:
        assert all(call(server.endpoint).ok for _ in range(3))

        assert {call.connection for call in server.calls} == {1, 2, 3}
        server.wait_for(lambda: not server.connections.open)


def test_an_answer_that_drips_in_ends_at_the_timeout() -> None:
    with serving() as server:
        server.drip(0.1)
        result = call(server.endpoint, timeout=0.2)

    assert result.error == "no complete answer within 0.2 s"
    assert result.latency < 10


@pytest.mark.parametrize("method", ["pong", "end"])  # one is a word that thriftpy2 reserves
def test_an_unknown_method_is_an_answer_and_a_failure_in_the_words_of_the_server(
    method: str,
) -> None:
    with serving() as server:
        result = call(server.endpoint, method=method)

    assert (result.status, result.tries) == (0, 1)
    assert result.error is not None
    assert result.error == f"{method}: Unknown method"


def test_an_exception_of_the_idl_is_a_failure_without_any_idl_here() -> None:
    with serving() as server:
        result = call(server.endpoint, method="refuse")

    assert (result.error, result.status) == ("refuse: answered with an exception of its IDL", 0)


def test_an_answer_to_a_call_that_is_slower_than_allowed_is_a_failure() -> None:
    with serving() as server:
        server.late(0.1)
        result = call(server.endpoint, max_latency=0.02)

    assert result.error is not None
    assert re.fullmatch(r"answered in \d+\.\d\d s, slower than 0\.02 s", result.error)
    assert result.status == 0


def test_a_refused_connection_is_named_and_tried_twice() -> None:
    with serving() as server:
        server.refuse()
        result = call(server.endpoint)

    assert result.error == f"no connection to {server.endpoint} (Connection refused)"
    assert (result.status, result.tries) == (None, 2)


def test_a_thrift_host_that_does_not_resolve_is_named() -> None:
    result = call("nowhere.invalid:9090")

    assert result.error is not None
    assert result.error.startswith("no connection to nowhere.invalid:9090 (")


def test_one_of_several_hosts_is_enough() -> None:
    with serving() as dead, serving() as server:
        dead.refuse()

        assert call(dead.endpoint, server.endpoint).error is None
        assert len(server.calls) == 1


def test_what_is_not_thrift_and_what_is_cut_is_a_sentence() -> None:
    with serving() as server:
        server.garbage()
        assert "not" in str(call(server.endpoint).error)
        server.cut(5)
        assert "ended inside the reply" in str(call(server.endpoint).error)
        server.rogue("string")  # it claims to have two gigabytes
        assert not call(server.endpoint).ok
        assert len(server.calls) == 3


def test_a_page_instead_of_thrift_over_http_is_told() -> None:
    with serving(transport="http") as server:
        server.html(502)
        url = server.url.replace("//", "//bob:sesame@")
        result = call(url, transport="http")

    assert result.error is not None
    assert "502" in result.error
    assert "sesame" not in result.error


# XML-RPC


@pytest.fixture
def server() -> Iterator[XmlRpcServer]:
    state = {"statecode": 1, "statename": "RUNNING"}
    functions = {"get": lambda: state, "text": lambda: "up", "many": lambda: [1, 2]}
    with XmlRpcServer(functions) as server:
        yield server


def test_an_xmlrpc_service_that_answers_is_fine(server: XmlRpcServer) -> None:
    result = post(server.url, "system.listMethods")

    assert (result.error, result.status, result.tries) == (None, 0, 1)
    assert [call.params for call in server.calls] == [()]


@pytest.mark.parametrize(
    ("method", "expected", "error"),
    [
        ("get", (("statename", "RUNNING"),), None),
        ("get", (("statename", "RUNNING"), ("statecode", 1)), None),
        ("text", "up", None),
        (
            "get",
            (("statename", "FATAL"),),
            "get: statename is 'RUNNING', expected 'FATAL'",
        ),
        ("get", (("statecode", "1"),), "get: statecode is 1, expected '1'"),
        ("get", (("mood", "good"),), "get: no mood in the answer"),
        ("get", "RUNNING", "get is a dict, expected 'RUNNING'"),
        ("many", (("statename", "RUNNING"),), "get: is a list, expected members"),
        ("text", "down", "text is 'up', expected 'down'"),
    ],
)
def test_an_answer_is_what_was_expected_or_that_is_said(
    server: XmlRpcServer, method: str, expected: Any, error: str | None
) -> None:
    result = post(server.url, method, expect=expected)

    assert (result.error, result.status) == (error and error.replace("get: is", f"{method}: is"), 0)


def test_a_fault_is_an_answer_and_a_failure_in_one_line_without_secrets() -> None:
    def fails() -> None:
        raise ValueError("see\nhttp://bob:sesame@x/?token=t0ken\n[31m")

    with XmlRpcServer({"get": fails}) as server:
        result = post(server.url)

    assert result.status == 0
    assert result.error is not None
    shown = re.escape("see http://bob:***@x/?token=*** [31m")
    assert re.fullmatch(rf"get: fault 1: .*{shown}", result.error)
    assert "\n" not in result.error


def test_an_http_error_is_said_in_the_words_of_the_standard(server: XmlRpcServer) -> None:
    server.html(503)
    result = post(server.url.replace("//", "//bob:sesame@"))

    assert (result.error, result.status) == ("answered 503 Service Unavailable", 503)


def test_a_page_instead_of_a_reply_is_told(server: XmlRpcServer) -> None:
    server.html()
    result = post(server.url)

    assert result.error == "not an XML-RPC answer (a reply of text/html, which is not XML-RPC)"
    assert result.status is None


def test_xmlrpc_connections_that_fail_are_tried_twice_and_calls_that_were_sent_are_not(
    server: XmlRpcServer,
) -> None:
    server.cut(10)
    result = post(server.url)
    assert result.error is not None
    assert result.error.startswith("the connection has ended before the whole reply")
    assert (result.tries, len(server.calls)) == (1, 1)

    server.refuse()
    result = post(server.url)
    assert (result.error, result.tries) == ("no connection (Connection refused)", 2)


@pytest.mark.parametrize("fault", ["late", "drip", "drip_body"])
def test_a_reply_that_takes_too_long_ends_at_the_timeout_and_the_next_is_right(
    server: XmlRpcServer, fault: str
) -> None:
    getattr(server, fault)(0.1 if fault != "late" else 30.0)
    late = post(server.url, timeout=0.2)
    after = post(server.url, expect=(("statename", "RUNNING"),))

    assert late.error == "no complete answer within 0.2 s"
    assert late.latency < 10
    assert after.error is None


def test_a_bomb_is_not_unpacked(server: XmlRpcServer) -> None:
    server.gzip_bomb()

    assert post(server.url).error == "the reply is larger than max_response=1048576 bytes"


def test_calls_are_measured_by_target_and_method() -> None:
    recorder = MemoryRecorder()
    former = install(recorder)
    try:
        with serving() as thrift, XmlRpcServer({"get": lambda: 1}) as xml:
            call(thrift.endpoint)
            call(thrift.endpoint, method="pong")
            post(xml.url)
    finally:
        install(former)

    assert recorder.value("thrift_client_calls", "t", "ping", "ok") == 1
    assert recorder.value("thrift_client_calls", "t", "pong", "app_exception") == 1
    assert recorder.value("xmlrpc_client_calls", "get", "ok") == 1


# A real supervisord

PASSWORD = "p@ss:w/rd"
SUPERVISORD = """
    [supervisord]
    nodaemon = true
    logfile = {folder}/supervisord.log
    pidfile = {folder}/supervisord.pid
    childlogdir = {folder}

    [inet_http_server]
    port = 127.0.0.1:{port}
    username = robot
    password = {password}

    [rpcinterface:supervisor]
    supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


def supervisord(server: ServerProcess) -> list[str]:
    config = server.folder / "supervisord.conf"
    settings = {"folder": server.folder, "port": server.port, "password": PASSWORD}
    config.write_text(textwrap.dedent(SUPERVISORD).format(**settings))
    return [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)]


def ready(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=1.0) as connection:
        connection.settimeout(1.0)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.0 401"


def test_a_real_supervisord_is_asked_for_its_state() -> None:
    login = {"user": "robot", "password": Secret(PASSWORD)}
    with ServerProcess(supervisord, ready=ready, name="supervisord") as server:
        url = f"http://127.0.0.1:{server.port}/RPC2"

        def state(expected: str, **login: Any) -> str | None:
            expect = (("statename", expected),)
            return post(url, "supervisor.getState", expect=expect, **login).error

        assert state("RUNNING", **login) is None
        said = "supervisor.getState: statename is 'RUNNING', expected 'FATAL'"
        assert state("FATAL", **login) == said
        assert state("RUNNING") == "answered 401 Unauthorized"
        guess = {"user": "robot", "password": Secret("guess")}
        assert state("RUNNING", **guess) == "answered 401 Unauthorized"
        said = "supervisor.nothing: fault 1: UNKNOWN_METHOD"
        assert post(url, "supervisor.nothing", **login).error == said

        asked = f"xmlrpc+{url}#supervisor.getState"
        target = target_at(asked.replace("//", "//robot:p%40ss%3Aw%2Frd@"))
        assert probe(target).error is None
        assert target.shown_url == asked.replace("//", "//robot:***@")


# The command line


def test_the_command_calls_a_service_and_says_in_one_line_how_it_was() -> None:
    with serving() as server:
        server.garbage()
        url = f"thrift://{server.endpoint}/whoami"
        done = subprocess.run(
            [sys.executable, "-m", "lookout", "probe", url],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert [call.method for call in server.calls] == ["whoami"]

    assert (done.returncode, done.stderr) == (1, "")  # nothing in the log
    assert re.fullmatch(rf"{url}: what came is not a reply .*\(\d+ ms\)\n", done.stdout)


@pytest.mark.parametrize(
    ("url", "shown", "how"),
    [
        ("thrift://a:9", "thrift://a:9/ping", ThriftCall(("a:9",))),
        ("thrift://[::1]:9/x", "thrift://[::1]:9/x", ThriftCall(("[::1]:9",), "x")),
        ("thrift://a:9,b:8/x", "thrift://a:9,b:8/x", ThriftCall(("a:9", "b:8"), "x")),
        (
            "xmlrpc+https://bob:sesame@a/RPC2",
            "xmlrpc+https://bob:***@a/RPC2#system.listMethods",
            XmlRpcCall("https://bob:sesame@a/RPC2"),
        ),
        ("xmlrpc+http://a:1/#x.y", "xmlrpc+http://a:1/#x.y", XmlRpcCall("http://a:1/", "x.y")),
        ("http://a/#x", "http://a/#x", None),
    ],
)
def test_a_url_names_a_target_and_is_shown_without_its_password(
    url: str, shown: str, how: object
) -> None:
    target = target_at(url)

    assert (target.how, target.shown_url) == (how, shown)


@pytest.mark.parametrize(
    "url",
    [
        *("", "thrift://", "thrift://a", "thrift://a:x/", "thrift://a:9/b/c", "thrift://u:p@a:9/"),
        *("xmlrpc+http:///x", "xmlrpc://a/", "xmlrpc+ftp://a/", "xmlrpc+http://a/#x y", "thrift:a"),
        *("xmlrpc+http://[::1/", "thrift://[::1:9/", "thrift://a:99999/", "thrift://a:0/"),
    ],
)
def test_a_url_that_names_no_target_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^a URL of http:// or https://, thrift://HOST:PORT"):
        target_at(url)


# The configuration


def read(tmp_path: Path, row: str) -> Settings:
    path = tmp_path / "lookout.yml"
    path.write_text(f"service: {{state: /tmp/x}}\ntargets:\n- {{name: d, {row}}}\n{NOWHERE}")
    return Configuration(path).load()


@pytest.mark.parametrize(
    ("row", "kind", "how"),
    [
        ("thrift: 'a:9'", Kind.THRIFT, ThriftCall(("a:9",))),
        (
            "thrift: ['a:9', 'b:9'], method: x, transport: framed, protocol: compact",
            Kind.THRIFT,
            ThriftCall(("a:9", "b:9"), "x", "framed", "compact"),
        ),
        (
            "thrift: 'http://a/t', transport: http",
            Kind.THRIFT,
            ThriftCall(("http://a/t",), transport="http"),
        ),
        ("xmlrpc: 'http://a/RPC2'", Kind.XMLRPC, XmlRpcCall("http://a/RPC2")),
        (
            "xmlrpc: 'http://a/', method: a.b, expect: {s: up, n: 1}, user: u, password: 7",
            Kind.XMLRPC,
            XmlRpcCall("http://a/", "a.b", (("s", "up"), ("n", 1)), "u", Secret("7")),
        ),
        ("xmlrpc: 'http://a/', expect: true", Kind.XMLRPC, XmlRpcCall("http://a/", expect=True)),
        ("xmlrpc: 'http://a/', expect: null", Kind.XMLRPC, XmlRpcCall("http://a/")),
    ],
)
def test_a_call_is_read_with_all_it_says(tmp_path: Path, row: str, kind: Kind, how: object) -> None:
    (target,) = read(tmp_path, row).targets

    assert (target.kind, target.how) == (kind, how)
    assert "sesame" not in repr(target)
    hash(target)  # the watchdog keeps them by this


@pytest.mark.parametrize(
    ("row", "place", "sentence"),
    [
        ("thrift: a", "3:21", "a host and a port, such as"),
        ("thrift: ['a:9', b]", "3:29", "targets.0.thrift.1 must be host_and_port"),
        ("thrift: []", "3:21", "a text, or a list of at least one"),
        ("thrift: 'a:9', transport: http", "3:21", "a URL that starts with http"),
        ("thrift: 'http://a/'", "3:21", "a host and a port, such as"),
        ("thrift: 'a:9', transport: udp", "3:39", "buffered, framed or http"),
        ("thrift: 'a:9', protocol: json", "3:38", "binary or compact"),
        ("thrift: 'a:9', method: 'p()'", "3:36", "the name of a method, without"),
        ("thrift: 'a:9', url: http://x/", "3:33", "there are only confirm, interval"),
        ("thrift: 'a:9', expect: 5", "3:36", "there are only confirm, interval"),
        ("xmlrpc: 'ftp://u:sesame@a/'", "3:21", "a URL that starts with http"),
        ("xmlrpc: 'http://a/#x'", "3:21", "a URL without a #fragment"),
        ("xmlrpc: 'http://a/', method: 'a b'", "3:42", "the name of a method, such as"),
        ("xmlrpc: 'http://a/', expect: [1]", "3:42", "a text, a number, true, false, or members"),
        ("xmlrpc: 'http://a/', expect: {a: [1]}", "3:42", "a text, a number, true, false, or"),
        ("xmlrpc: 'http://a/', expect: {}", "3:42", "a text, a number, true, false, or members"),
        ("xmlrpc: 'http://a/', user: u", "3:3", "no 'targets.0.password'"),
        ("xmlrpc: 'http://a/', password: sesame", "3:3", "no 'targets.0.user'"),
        (
            "xmlrpc: 'http://u:sesame@a/', user: u, password: sesame",
            "3:49",
            "left out, as the URL has a login already",
        ),
        ("xmlrpc: 'http://a/', args: []", "3:40", "there are only confirm, expect, interval"),
    ],
)
def test_a_wrong_call_is_said_in_one_line_with_its_place(
    tmp_path: Path, row: str, place: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, row)

    assert f"lookout.yml:{place}: " in str(caught.value)
    assert sentence in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert "\n" not in str(caught.value)


# In the service


def test_services_that_misbehave_delay_no_other_target_and_show_no_password(
    target: Target, tmp_path: Path
) -> None:
    with serving() as fine, serving() as late, XmlRpcServer({"get": lambda: "up"}) as xml:
        late.late(600, times=None)
        xml.html(503, times=None)
        rows = [
            {"name": "fine", "thrift": fine.endpoint},
            {"name": "late", "thrift": late.endpoint},
            {"name": "xml", "xmlrpc": xml.url, "method": "get", "user": "u", "password": "sesame"},
            {"name": "url", "xmlrpc": xml.url.replace("//", "//u:sesame@"), "method": "get"},
            {"name": "web", "url": target.url},
        ]
        (tmp_path / "lookout.yml").write_text(
            f"service: {{state: state}}\nweb: {{port: 0, drain_delay: 0}}\n{NOWHERE}"
            f"probes: {{interval: 100ms, timeout: 400ms}}\ntargets: {json.dumps(rows)}\n"
        )
        with Lookout("serve", "-c", "lookout.yml", cwd=tmp_path) as lookout:
            until(lambda: lookout.target("late")["state"] == "down")
            until(lambda: lookout.target("xml")["state"] == "down")
            until(lambda: lookout.target("web")["probes"] >= 5)
            until(lambda: lookout.target("fine")["state"] == "up")
            assert lookout.target("fine")["kind"] == "thrift"
            assert lookout.target("xml")["kind"] == "xmlrpc"
            page, config, metrics = map(lookout.get, ("", "config/", "metrics"))
            assert f"thrift://{fine.endpoint}/ping" in page
            assert f"xmlrpc+{xml.url}#get" in page
            for name, labels in (
                ("lookout_probes", 'target="late",result="failed"'),
                ("thrift_client_calls", 'client="fine",method="ping",result="ok"'),
                ("xmlrpc_client_calls", 'method="get",result="http_error"'),
            ):
                assert f'{name}_total{{service="lookout",{labels}}}' in metrics
            for shown in (page, config, metrics, lookout.get("api/v1/status"), lookout.log):
                assert "sesame" not in shown
            late.heal()
            until(lambda: lookout.target("late")["state"] == "up")
            assert lookout.process.stop() == 0
