"""RestClient: what is sent, what is given back, and where the credentials do not go."""

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from urllib3.exceptions import ConnectTimeoutError

from sepelib.http import InstrumentedSession, RestClient, errors
from sepelib.http.testing import HttpTestServer, ReceivedRequest, Reply, faults
from sepelib.util import request_id
from sepelib.util.deadline import deadline
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import MemoryRecorder

LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture(params=["instrumented", "plain"])
def session(request: pytest.FixtureRequest, recorder: MemoryRecorder) -> Iterator[requests.Session]:
    if request.param == "plain":
        with requests.Session() as plain:
            plain.trust_env = False
            yield plain
    else:
        with InstrumentedSession("s", recorder=recorder) as session:
            yield session


@pytest.fixture
def client(server: HttpTestServer, session: requests.Session) -> RestClient:
    return RestClient(session, server.url + "/api/v3")


def targets(server: HttpTestServer) -> list[str]:
    return [request.target for request in server.requests]


# What is sent.


def test_a_path_is_below_the_base_url_and_its_values_stay_in_their_segments(
    server: HttpTestServer, session: requests.Session, client: RestClient
) -> None:
    client.get("/users/{id}/files/{name:path}", id="../admin?x=1#", name="a b/c")
    client.get("users")
    client.get("/of/http://h")
    RestClient(session, server.url + "/").get("/users")
    assert targets(server) == [
        "/api/v3/users/..%2Fadmin%3Fx%3D1%23/files/a%20b/c",
        "/api/v3/users",
        "/api/v3/of/http://h",
        "/users",
    ]


def test_values_whose_names_are_taken_come_as_path_args(
    server: HttpTestServer, client: RestClient
) -> None:
    client.get("/{method}/{path}/{id}", path_args={"method": "m", "path": "p"}, id=7)
    assert targets(server) == ["/api/v3/m/p/7"]


def test_a_path_that_does_not_fit_is_our_mistake_and_is_not_sent(
    server: HttpTestServer, client: RestClient
) -> None:
    with pytest.raises(TypeError, match="no value for id"):
        client.get("/users/{id}")
    with pytest.raises(TypeError, match="has no login"):
        client.get("/users", login="ann")
    with pytest.raises(ValueError, match="empty"):
        client.get("/users/{id}", id="")
    with pytest.raises(ValueError, match="follow"):
        client.get("http://other.example/users")
    assert server.connections.accepted == 0


@pytest.mark.parametrize(
    "url",
    ["", "staff.example", "//staff.example", "ftp://h/", "http://", "http://h/?a", "http://h#a",
     "http://h\\@evil/", "http://h /", "http://[h/"],
)  # fmt: skip
def test_a_base_url_is_plain_http(url: str) -> None:
    with pytest.raises(ValueError, match="a base URL"):
        RestClient(requests.Session(), url)


def test_parameters_bodies_and_headers_are_sent(server: HttpTestServer, client: RestClient) -> None:
    client.post("/x", params={"q": "a&b", "n": [1, 2]}, json={"ключ": None})
    client.put("/x", data=b"\x00raw", headers={"Content-Type": "application/octet-stream"})
    client.patch("/x", data={"form": "1"})
    posted, put, patched = server.requests
    assert (posted.method, posted.target) == ("POST", "/api/v3/x?q=a%26b&n=1&n=2")
    assert posted.json() == {"ключ": None}
    assert posted.header("Content-Type") == "application/json"
    assert (put.body, put.header("content-type")) == (b"\x00raw", "application/octet-stream")
    assert (patched.method, patched.body) == ("PATCH", b"form=1")
    client.delete("/x")
    assert (server.requests[-1].method, server.requests[-1].body) == ("DELETE", b"")


def test_headers_of_the_client_go_along_and_those_of_a_call_win(
    server: HttpTestServer, session: requests.Session
) -> None:
    client = RestClient(session, server.url, headers={"X-A": "1", "X-B": "1", "X-C": "1"})
    client.get("/x", headers={"x-b": "2", "X-C": None})
    client.get("/x", headers={"accept": "text/plain"})
    first, second = server.requests
    assert [first.header(name) for name in ("X-A", "X-B", "X-C")] == ["1", "2", None]
    assert first.header("Accept") == "application/json"
    assert second.header("Accept") == "text/plain"


def test_auth_is_that_of_requests(server: HttpTestServer, session: requests.Session) -> None:
    def token(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = "OAuth abc"
        return request

    RestClient(session, server.url, auth=("bob", "pw")).get("/x")
    RestClient(session, server.url, auth=token).get("/x")
    session.auth = ("ann", "pw")
    RestClient(session, server.url).get("/x")
    with_user = RestClient(session, server.url.replace("//", "//bob:%70w@"))
    with_user.get("/x")
    with_user.follow("/x")
    with_user.follow(server.url + "/x")
    sent = [request.header("Authorization") for request in server.requests]
    assert sent == ["Basic Ym9iOnB3", "OAuth abc", "Basic YW5uOnB3", *["Basic Ym9iOnB3"] * 3]


def test_what_no_request_can_be_made_of_is_our_mistake(
    server: HttpTestServer, client: RestClient
) -> None:
    with pytest.raises(requests.exceptions.InvalidHeader):
        client.get("/x", headers={"X-A": "1\r\nX-B: 2"})
    with pytest.raises(requests.exceptions.InvalidJSONError):
        client.post("/x", json={"n": math.nan})
    with pytest.raises(TypeError):
        client.post("/x", json={"n": object()})
    assert server.connections.accepted == 0


# What is given back.


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, "\xd1\x84", null]}', {"a": [1, 2.5, "ф", None]}),
        (b"\xef\xbb\xbf[]", []),
        (b"null", None),
        (b"", None),
        (b" \r\n", None),
        (b'{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_an_answer_is_its_json_and_none_when_it_has_no_body(
    server: HttpTestServer, client: RestClient, body: bytes, value: Any
) -> None:
    server.route("GET", "/api/v3/x", body=body)
    assert client.get("/x") == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": ', "not JSON: Expecting value"),
        (b'{"a": NaN}', "NaN is no number there"),
        (b'{"a": -Infinity}', "-Infinity is no number there"),
        (b'{"a": 1} x', "not JSON: Extra data"),
        ('"né"'.encode("latin-1"), "not UTF-8 at byte 2"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b"[" * 100_000, "nested too deep"),
        (b"1" * 5000, "integer string conversion"),
    ],
)
def test_what_is_no_json_is_an_invalid_response(
    server: HttpTestServer, client: RestClient, body: bytes, why: str
) -> None:
    server.route("GET", "/api/v3/x", body=body)
    with pytest.raises(errors.InvalidResponse, match=why) as caught:
        client.get("/x")
    assert caught.value.maybe_sent and isinstance(caught.value.__cause__, ValueError)


def test_a_page_for_people_is_an_invalid_response_whatever_is_in_it(
    server: HttpTestServer, client: RestClient
) -> None:
    server.route("GET", "/api/v3/x", headers={"Content-Type": "Text/HTML; a=b"}, body=b"1")
    with pytest.raises(errors.InvalidResponse, match=r"200, text/html instead of JSON: 1$"):
        client.get("/x")


def test_json_may_be_called_something_else(server: HttpTestServer, client: RestClient) -> None:
    for kind in ("text/plain", "application/hal+json", "application/octet-stream"):
        server.route("GET", "/api/v3/x", headers={"Content-Type": kind}, body=b"[1]")
        assert client.get("/x") == [1]


def test_204_and_head_have_no_body(server: HttpTestServer, client: RestClient) -> None:
    server.route("DELETE", "/api/v3/x", status=204)
    server.route("GET", "/api/v3/x", json={"a": 1})
    assert client.delete("/x") is None
    assert client.call("head", "/x") is None
    assert server.requests[-1].method == "HEAD"


def test_expected_says_which_statuses_are_no_error(
    server: HttpTestServer, client: RestClient
) -> None:
    server.route("GET", "/api/v3/x", status=404, json={"found": False})
    assert client.get("/x", expected=(200, 404)) == {"found": False}
    server.route("GET", "/api/v3/x", status=201, json={})
    with pytest.raises(errors.UnexpectedStatus, match="201 Created"):
        client.get("/x", expected={200})


# Redirects and links.


def test_get_follows_a_redirect_and_others_do_not(
    server: HttpTestServer, client: RestClient
) -> None:
    server.next(faults.redirect("/moved"), times=None, path="/api/v3/x")
    server.route("*", "/moved", json="moved")
    assert client.get("/x") == "moved"
    for call in (client.post, client.put, client.patch, client.delete):
        with pytest.raises(errors.UnexpectedStatus, match="302 Found: to /moved"):
            call("/x")
    assert targets(server).count("/moved") == 1


def test_a_redirect_to_another_host_takes_no_secrets_along(
    server: HttpTestServer, session: requests.Session
) -> None:
    with HttpTestServer() as other:
        server.route("GET", "/x", status=302, headers={"Location": other.url + "/y"})
        server.route("GET", "/near", status=302, headers={"Location": "/z and/\xd1\x84"})
        session.headers["X-Session-Token"] = "t"
        secrets = {"X-Api-Key": "k", "Authorization": "OAuth t", "Cookie": "c=1", "X-Plain": "p"}
        client = RestClient(session, server.url, headers=secrets)
        client.get("/x")
        client.get("/near")
        (foreign,) = other.requests
        names = {name.lower() for name, _ in foreign.headers}
        assert "x-plain" in names
        assert names.isdisjoint({"x-api-key", "authorization", "cookie", "x-session-token"})
        assert server.requests[-1].path.startswith("/z%20and/%D1%84")
        assert server.requests[-1].header("X-Api-Key") == "k"
        assert server.requests[0].header("X-Session-Token") == "t"


@pytest.mark.parametrize("location", ["http://[bad/", "ftp://h/x", "http://h:port/", "/\xe9"])
def test_a_redirect_to_nowhere_is_an_invalid_response(
    server: HttpTestServer, client: RestClient, location: str
) -> None:
    server.next(faults.redirect(location))
    with pytest.raises(errors.InvalidResponse, match="a redirect to where HTTP does not go"):
        client.get("/x")


def test_hooks_of_the_session_still_run(server: HttpTestServer, session: requests.Session) -> None:
    seen: list[int] = []

    def note(response: requests.Response, **options: Any) -> None:
        seen.append(response.status_code)

    session.hooks["response"] = [note]
    RestClient(session, server.url).get("/x")
    session.hooks["response"] = note  # type: ignore[assignment]  # requests takes it so too
    RestClient(session, server.url).get("/x")
    assert seen == [200, 200]


def test_follow_goes_to_the_next_page_whether_whole_or_relative(
    server: HttpTestServer, session: requests.Session
) -> None:
    client = RestClient(session, server.url + "/api/", headers={"X-Api-Key": "k"})
    for link in (server.url + "/api/u?page=2&token=t", "/api/u?page=3", "u?page=4", "?page=5"):
        client.follow(link)
    client.follow("/of/ann@example.org")
    upper = server.url.replace("http://127", "HTTP://127") + "/"
    client.follow(upper, method="delete")
    assert targets(server) == [
        "/api/u?page=2&token=t", "/api/u?page=3", "/api/u?page=4", "/api/?page=5",
        "/of/ann@example.org", "/",
    ]  # fmt: skip
    assert {request.header("X-Api-Key") for request in server.requests} == {"k"}
    assert server.requests[-1].method == "DELETE"


def test_follow_refuses_another_origin_before_a_byte_is_sent(
    server: HttpTestServer, session: requests.Session
) -> None:
    with HttpTestServer() as other:
        host = f"127.0.0.1:{server.port}"
        client = RestClient(session, server.url)
        for link in (
            other.url + "/u",
            f"//127.0.0.1:{other.port}/u",
            f"https://{host}/u",
            f"http://localhost:{server.port}/u",
            f"http://bob:pw@{host}/u",
            f"http://127.0.0.1:{other.port}\\@{host}/u",
            f"http://{host}\\@127.0.0.1:{other.port}/u",
            "http://127.0.0.1/u",
            "http://[bad/u",
            "file:///etc/passwd",
            "",
        ):
            with pytest.raises(errors.LinkRefused) as caught:
                client.follow(link)
            assert "pw" not in str(caught.value).replace("passwd", "")
        with pytest.raises(TypeError, match="a link is a str, not NoneType"):
            client.follow(None)  # type: ignore[arg-type]
        assert other.connections.accepted == server.connections.accepted == 0


# With an InstrumentedSession, and with none.


def test_the_template_is_the_endpoint_and_no_value_is_in_a_metric(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    with InstrumentedSession("s", recorder=recorder) as session:
        client = RestClient(session, server.url + "/api")
        client.get("/users/{id}", id="ann", params={"token": "t"})
        client.follow("/api/users?page=2", endpoint="/users")
    assert recorder.series("http_client_requests") == {
        ("s", "/users/{id}", "GET", "2xx"): 1.0,
        ("s", "/users", "GET", "2xx"): 1.0,
    }


def instrumented(attempts: int, **settings: Any) -> InstrumentedSession:
    on = (requests.ConnectionError, requests.Timeout, requests.HTTPError)
    backoff = Backoff(0.001, cap=0.001)
    return InstrumentedSession(
        retries=RetryPolicy(on, attempts=attempts, backoff=backoff), **settings
    )


def test_a_post_is_repeated_only_when_it_is_said_to_be_idempotent(server: HttpTestServer) -> None:
    with instrumented(3) as session:
        client = RestClient(session, server.url)
        server.next(faults.reset())
        with pytest.raises(errors.ConnectionLost) as caught:
            client.post("/x", json={})
        assert caught.value.maybe_sent and len(server.requests) == 1
        server.next(faults.reset())
        client.post("/x", json={}, idempotent=True)
        assert len(server.requests) == 3
        server.next(faults.reset())
        with pytest.raises(errors.ConnectionLost):
            client.get("/x", idempotent=False)
        assert len(server.requests) == 4


def test_a_timeout_of_the_call_wins(server: HttpTestServer, session: requests.Session) -> None:
    server.route("GET", "/x", fault=faults.hold())
    started = time.monotonic()
    for timeout in (0.1, (3.0, 0.1)):
        with pytest.raises(errors.ReadTimeout):
            RestClient(session, server.url).get("/x", timeout=timeout, idempotent=False)
    assert time.monotonic() - started < 5.0


def test_a_plain_session_gets_finite_timeouts_unless_none_is_asked_for(
    server: HttpTestServer,
) -> None:
    seen: list[Any] = []

    class Watched(requests.Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            seen.append(kwargs["timeout"])
            return super().send(request, **kwargs)

    with Watched() as session:
        client = RestClient(session, server.url)
        client.get("/x")
        client.get("/x", timeout=None)
        with deadline(2.0):
            client.get("/x", timeout=(1.0, None))
    assert seen[:2] == [(3.0, 10.0), (None, None)]
    assert seen[2][0] == 1.0 and 0 < seen[2][1] <= 2.0


def test_nothing_is_sent_when_the_deadline_from_above_is_over(
    server: HttpTestServer, client: RestClient
) -> None:
    with deadline(0.0), pytest.raises(errors.DeadlineExceeded) as caught:
        client.get("/x")
    assert not caught.value.maybe_sent
    assert server.connections.accepted == 0


def test_an_error_carries_the_retry_after_that_a_policy_waits_for(server: HttpTestServer) -> None:
    waits: list[float] = []
    server.next(faults.unavailable(status=429, retry_after=3))
    policy = RetryPolicy(errors.RateLimited, sleep=waits.append)
    with instrumented(1) as session:
        policy(RestClient(session, server.url).get, "/x")
    assert waits == [3.0]


def test_the_request_id_of_the_context_is_sent(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    with InstrumentedSession(recorder=recorder) as session, request_id.using("id-1"):
        RestClient(session, server.url).get("/x")
    assert server.requests[0].header("X-Request-Id") == "id-1"


class Cancelled(BaseException):
    """Like gevent.Timeout: no Exception."""


def test_a_cancellation_passes_untouched(server: HttpTestServer, session: requests.Session) -> None:
    cancelled = Cancelled()

    def cancel(request: requests.PreparedRequest) -> requests.PreparedRequest:
        raise cancelled

    with pytest.raises(Cancelled) as caught:
        RestClient(session, server.url, auth=cancel).get("/x")
    assert caught.value is cancelled and caught.value.__cause__ is None


def test_the_error_of_a_caller_is_not_taken_for_the_reason(
    server: HttpTestServer, client: RestClient
) -> None:
    server.next(faults.garbage(), times=None)
    try:
        raise ConnectTimeoutError
    except ConnectTimeoutError:
        with pytest.raises(errors.InvalidResponse):
            client.get("/x")


def test_one_client_serves_many_threads(server: HttpTestServer, client: RestClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def answer(request: ReceivedRequest) -> Reply:
        return Reply(json=request.args["id"])

    server.route("GET", "/api/v3/{id}", answer)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: client.get("/{id}", id=n), range(100)))
    assert got == [str(n) for n in range(100)]
