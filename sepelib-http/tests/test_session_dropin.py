"""It is a requests.Session: what works with one works with this."""

import io
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth

from sepelib.http import InstrumentedSession
from sepelib.http import session as session_module
from sepelib.http.session import DeadlineExceeded, NoFreeSlot, ResponseTooLarge
from sepelib.http.testing import HttpTestServer, ReceivedRequest, Reply, faults
from sepelib.util import request_id
from sepelib.util.testing import MemoryRecorder, check_errors


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def session(server: HttpTestServer) -> Iterator[InstrumentedSession]:
    with InstrumentedSession(base_url=server.url) as session:
        yield session


SAME: dict[str, dict[str, Any]] = {
    "plain": {},
    "params": {"params": {"a": ["1", "2"], "b": "ä ö"}},
    "headers": {"headers": {"X-A": "b", "accept": "text/plain", "User-Agent": None}},
    "json": {"json": {"a": [1, None]}},
    "empty json": {"json": {}},
    "form": {"data": {"a": "b c"}},
    "pairs": {"data": [("a", "1"), ("a", "2")]},
    "bytes": {"data": b"\x00\xff"},
    "text": {"data": "ä"},
    "auth": {"auth": ("user", "pw")},
    "cookies": {"cookies": {"a": "b"}},
    "stream": {"stream": True},
}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("how", SAME.values(), ids=SAME.keys())
def test_the_request_on_the_wire_is_that_of_requests(
    server: HttpTestServer, session: InstrumentedSession, method: str, how: dict[str, Any]
) -> None:
    with requests.Session() as plain:
        plain.trust_env = False
        plain.request(method, server.url + "/x", **how).close()
    for _ in range(2):
        response = session.request(method, "/x", **how)
        assert response.ok and response.content and type(response) is requests.Response
    first, *ours = server.requests
    for request in ours:
        assert request[:4] == first[:4]


def test_the_session_has_the_state_of_requests(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    """Each change of it is seen by the next request, also of one that was sent before."""

    def sent() -> ReceivedRequest:
        session.get("/x")
        return server.requests[-1]

    assert sent().header("X-New") is None
    session.headers["X-New"] = "1"
    assert sent().header("X-New") == "1"
    session.headers.update({"X-New": "2"})
    assert sent().header("x-new") == "2"
    del session.headers["x-new"]
    assert sent().header("X-New") is None
    seen: list[int] = []
    session.hooks["response"].append(lambda response, **kw: seen.append(response.status_code))
    assert sent().header("X-New") is None and seen == [200]
    session.hooks["response"].clear()
    session.params = {"p": "1"}
    assert sent().target == "/x?p=1"
    session.params = {}
    session.auth = ("user", "pw")
    assert str(sent().header("Authorization")).startswith("Basic ")
    session.auth = None
    assert sent().header("Authorization") is None
    session.cookies.set("a", "b")
    assert sent().header("Cookie") == "a=b"
    session.cookies.clear()
    assert sent().header("Cookie") is None
    session.headers = {"X-Only": "3"}  # type: ignore[assignment]
    assert sent().header("X-Only") == "3"
    session.headers = {}
    assert sent().header("X-Only") is None
    assert seen == [200]


def test_a_change_of_a_response_s_request_touches_no_other(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    for _ in range(3):
        request = session.get("/x").request
        request.headers["X-Mine"] = "1"
        request.register_hook("response", lambda response, **kw: pytest.fail("of another"))
    assert [request.header("X-Mine") for request in server.requests] == [None] * 3


def test_positional_arguments_are_those_of_requests(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    session.request("GET", "/x", {"a": "1"})
    session.get("/x", {"a": "1"})
    session.post("/x", b"data")
    session.put("/x", b"data")
    session.post("/x", None, {"j": 1})
    session.get(b"/x")
    targets = [request.target for request in server.requests]
    assert targets == ["/x?a=1", "/x?a=1", "/x", "/x", "/x", "/x"]
    assert server.requests[4].json() == {"j": 1}


def test_files_are_uploaded(server: HttpTestServer, session: InstrumentedSession) -> None:
    session.post("/", files={"f": ("name.txt", io.BytesIO(b"content"))}, data={"a": "b"})
    (request,) = server.requests
    assert b'filename="name.txt"' in request.body and b"content" in request.body


def test_a_prepared_request_is_sent(server: HttpTestServer, session: InstrumentedSession) -> None:
    prepared = session.prepare_request(requests.Request("POST", server.url + "/x", data=b"y"))
    settings = session.merge_environment_settings(prepared.url, {}, None, None, None)
    assert session.send(prepared, **settings).ok
    assert server.requests[0].body == b"y"


def test_an_adapter_may_be_mounted(server: HttpTestServer, session: InstrumentedSession) -> None:
    class Mine(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            request.headers["X-Mine"] = "1"
            return super().send(request, **kwargs)

    session.mount(server.url + "/mine", Mine())
    session.get("/mine")
    session.get("/other")
    assert [request.header("X-Mine") for request in server.requests] == ["1", None]


def test_auth_may_be_any_callable(server: HttpTestServer, session: InstrumentedSession) -> None:
    class Token(AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = "OAuth x"
            return request

    session.auth = Token()
    session.get("/")
    assert server.requests[0].header("Authorization") == "OAuth x"


def test_digest_asks_twice_within_one_slot(server: HttpTestServer) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        if request.header("Authorization") is None:
            challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
            return Reply(401, headers={"WWW-Authenticate": challenge}, body="who?")
        return Reply(body="in")

    server.route("GET", "/", answer)
    recorder = MemoryRecorder()
    with InstrumentedSession(
        "s", base_url=server.url, max_concurrency=1, total_timeout=5, recorder=recorder
    ) as session:
        for _ in range(2):
            response = session.get("/", auth=HTTPDigestAuth("u", "p"))
            assert response.text == "in" and len(response.history) == 1
    assert recorder.value("http_client_in_flight", "s") == 0
    assert recorder.value("http_client_requests", "s", server.url, "GET", "4xx") == 2
    assert recorder.value("http_client_requests", "s", server.url, "GET", "2xx") == 2


def test_it_pickles_with_its_settings(server: HttpTestServer, session: InstrumentedSession) -> None:
    session.headers["X-A"] = "b"
    session.timeout = 7.0
    session.max_body = 5
    twin = pickle.loads(pickle.dumps(session))
    with twin:
        assert (twin.name, twin.base_url, twin.timeout) == ("http", server.url, 7.0)
        assert (twin.max_body, twin.total_timeout, twin.trust_env) == (5, 30.0, False)
        with pytest.raises(ResponseTooLarge):
            twin.get("/")
        assert server.requests[0].header("X-A") == "b"


def test_its_responses_pickle(session: InstrumentedSession) -> None:
    response = session.get("/")
    assert pickle.loads(pickle.dumps(response)).content == response.content


def test_it_can_be_used_after_close(session: InstrumentedSession) -> None:
    assert session.get("/").ok
    session.close()
    session.close()
    assert session.get("/").ok


def test_elapsed_is_the_time_to_the_headers(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/", body=b"x" * 5, fault=faults.drip_body(0.1))
    assert 0 < session.get("/").elapsed.total_seconds() < 0.3


def test_the_requests_mock_of_getsentry_works_and_is_counted() -> None:
    recorder = MemoryRecorder()
    with responses.RequestsMock() as mock, InstrumentedSession("s", recorder=recorder) as session:
        mock.get("http://mock.example/a", json={"b": 1})
        mock.get("http://mock.example/c", body=requests.ConnectionError("down"))
        mock.get("http://mock.example/d", body="x" * 100)
        assert session.get("http://mock.example/a").json() == {"b": 1}
        with pytest.raises(requests.ConnectionError, match="down"):
            session.get("http://mock.example/c", idempotent=False)
        with session.get("http://mock.example/a", stream=True) as response:
            assert response.raw.read()
        with pytest.raises(ResponseTooLarge):
            session.get("http://mock.example/d", max_body=99)
    assert recorder.value("http_client_in_flight", "s") == 0
    requests_ = recorder.series("http_client_requests")
    assert requests_["s", "http://mock.example:80", "GET", "2xx"] == 2


def test_a_session_may_use_another_in_its_hooks(server: HttpTestServer) -> None:
    outer = InstrumentedSession("a", base_url=server.url, max_concurrency=1)
    inner = InstrumentedSession("b", base_url=server.url, max_concurrency=1)

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = inner.get("/token").json()["target"]
        return request

    with outer, inner:
        outer.get("/x", auth=sign)
    assert server.requests[-1].header("Authorization") == "/token"


# What is different, on purpose.


def test_cookies_of_one_user_are_not_sent_for_the_next(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/in", headers={"Set-Cookie": "sid=ann; Path=/"})
    response = session.get("/in")
    assert response.cookies["sid"] == "ann"  # the caller may see it
    session.get("/x")
    session.get("/x", cookies={"mine": "1"})
    session.get("/x")
    assert [request.header("Cookie") for request in server.requests] == [None, None, "mine=1", None]
    assert len(session.cookies) == 0


def test_cookies_are_kept_when_wanted(server: HttpTestServer) -> None:
    server.route("GET", "/in", headers={"Set-Cookie": "sid=ann; Path=/"})
    with InstrumentedSession(base_url=server.url, cookies=True) as session:
        session.get("/in")
        session.get("/x")
    assert server.requests[1].header("Cookie") == "sid=ann"


@pytest.fixture
def hostile_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HttpTestServer
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login netrc password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")


@pytest.mark.usefixtures("hostile_environment")
def test_netrc_and_proxies_of_the_environment_are_ignored(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    session.get("/", headers={"Authorization": "OAuth token"})
    session.get("/", params={"a": "b"})
    session.get("/")
    given, without, plain = server.requests
    assert given.header("Authorization") == "OAuth token"
    assert without.header("Authorization") is None and plain.header("Authorization") is None


@pytest.mark.usefixtures("hostile_environment")
def test_the_environment_is_obeyed_when_it_is_trusted(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, trust_env=True) as session:
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("/")
        session.trust_env = False
        assert session.get("/").ok


@pytest.mark.usefixtures("hostile_environment")
def test_a_netrc_that_is_trusted_is_read_anew(
    server: HttpTestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with InstrumentedSession(base_url=server.url, trust_env=True, verify=False) as session:
        session.get("/")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
        session.get("/")
    first, second = (request.header("Authorization") for request in server.requests)
    assert first is not None and second is not None and first != second


def test_a_proxy_of_the_caller_is_used(server: HttpTestServer) -> None:
    with InstrumentedSession() as session:
        answer = session.get("http://elsewhere.example/x", proxies={"http": server.url})
        assert answer.ok
        session.proxies = {"http": server.url}
        assert session.get("http://elsewhere.example/y").ok
    targets = [request.target for request in server.requests]
    assert targets == ["http://elsewhere.example/x", "http://elsewhere.example/y"]


def test_the_id_of_the_request_under_way_is_sent_on(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    with request_id.using("abc"):
        session.get("/")
        session.get("/")
        session.post("/", data=b"x")
        session.get("/", headers={"x-request-id": "mine"})
    session.get("/")
    ids = [request.header("X-Request-Id") for request in server.requests]
    assert ids == ["abc", "abc", "abc", "mine", None]


def test_the_header_of_the_id_has_a_name_or_none(server: HttpTestServer) -> None:
    with request_id.using("abc"):
        for name in ("X-Trace", None):
            with InstrumentedSession(base_url=server.url, request_id_header=name) as session:
                session.get("/")
    first, second = server.requests
    assert first.header("X-Trace") == "abc" and first.header("X-Request-Id") is None
    assert "abc" not in dict(second.headers).values()


def test_a_user_agent_is_set(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, user_agent="me/1") as session:
        session.get("/")
    assert server.requests[0].header("User-Agent") == "me/1"


# Errors.


def test_every_error_of_it_pickles_and_is_one_of_requests() -> None:
    request = requests.Request("GET", "http://h/").prepare()
    sentence = "GET http://h/: deadline exceeded while connecting"
    check_errors(
        session_module,
        examples=[
            DeadlineExceeded(sentence),
            NoFreeSlot("no slot free", maybe_sent=False),
            ResponseTooLarge("too large"),
        ],
    )
    request.register_hook("response", lambda response, **kw: None)  # no pickle takes that
    error = DeadlineExceeded(sentence, request=request, maybe_sent=False)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.maybe_sent, twin.request) == (sentence, False, None)
    assert isinstance(twin, requests.RequestException)


@pytest.mark.parametrize("fault", [faults.reset(), faults.hold(), faults.gzip_bomb(1 << 20)])
def test_no_error_shows_a_secret_of_the_url(server: HttpTestServer, fault: Any) -> None:
    url = f"http://user:hunter2@127.0.0.1:{server.port}/x?token=hunter2&n=1"
    with InstrumentedSession(timeout=0.1, max_body=1000) as session:
        server.next(fault, times=None)
        with pytest.raises(requests.RequestException) as caught:
            session.get(url)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
        server.refuse()
        session.close()
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(url)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
        assert "/x?token=***&n=" in str(caught.value)
        server.start()


def test_many_threads_find_templates_of_their_own_headers(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url) as session:

        def ask(number: int) -> None:
            session.headers[f"X-{number}"] = "1"
            body = json.loads(session.get(f"/{number % 3}").content)
            assert body["target"] == f"/{number % 3}"

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(100)))
        session.get("/0")
    assert sum(name.startswith("X-") for name, _ in server.requests[-1].headers) == 100
