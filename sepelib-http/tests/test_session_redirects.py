"""Where a redirect leads, and what goes along."""

from collections.abc import Iterator

import pytest
import requests

from sepelib.http import InstrumentedSession
from sepelib.http.testing import HttpTestServer, faults
from sepelib.util import request_id


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def other() -> Iterator[HttpTestServer]:
    with HttpTestServer() as other:
        yield other


@pytest.fixture
def session(server: HttpTestServer) -> Iterator[InstrumentedSession]:
    with InstrumentedSession(base_url=server.url) as session:
        yield session


def test_another_host_gets_no_authorization_but_the_request_id(
    server: HttpTestServer, other: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.redirect(f"{other.url}/x"))
    with request_id.using("abc"):
        session.get("/", headers={"Authorization": "OAuth hunter2"})
    (first,), (second,) = server.requests, other.requests
    assert first.header("Authorization") == "OAuth hunter2"
    assert second.header("Authorization") is None
    assert first.header("X-Request-Id") == second.header("X-Request-Id") == "abc"


def test_the_same_host_keeps_the_authorization(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.redirect("/x"))
    session.get("/", auth=("user", "pw"))
    first, second = server.requests
    assert first.header("Authorization") == second.header("Authorization") is not None


def test_what_is_no_url_is_an_error_of_requests(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.redirect("http://[bad?token=hunter2"))
    with pytest.raises(requests.exceptions.InvalidURL) as caught:
        session.get("/")
    assert "hunter2" not in str(caught.value)


def test_a_loop_is_too_many_redirects(server: HttpTestServer, session: InstrumentedSession) -> None:
    server.next(faults.redirect_loop(), times=None)
    with pytest.raises(requests.TooManyRedirects):
        session.get("/")
    assert len(server.requests) == session.max_redirects + 1


def test_history_and_final_url_are_those_of_requests(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/a", status=301, headers={"Location": "b"})
    server.route("GET", "/b", status=302, headers={"Location": "/c?q=1"})
    response = session.get("/a")
    assert [hop.status_code for hop in response.history] == [301, 302]
    assert response.url == f"{server.url}/c?q=1"


def test_a_redirect_may_be_left_alone(server: HttpTestServer, session: InstrumentedSession) -> None:
    server.next(faults.redirect("/x"))
    response = session.get("/", allow_redirects=False)
    assert response.status_code == 302 and response.next is not None
    assert response.next.url == f"{server.url}/x"
    assert len(server.requests) == 1
    server.next(faults.redirect("/x"))
    assert session.head("/").status_code == 302


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [
        (301, "GET", b""),
        (302, "GET", b""),
        (303, "GET", b""),
        (307, "POST", b"x"),
        (308, "POST", b"x"),
    ],
)
def test_method_and_body_change_as_in_requests(
    server: HttpTestServer, session: InstrumentedSession, status: int, method: str, body: bytes
) -> None:
    server.next(faults.redirect("/on", status=status))
    session.post("/", data=b"x")
    assert (server.requests[1].method, server.requests[1].body) == (method, body)


def test_cookies_of_a_login_go_along_its_redirects_and_no_further(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/in", status=302, headers={"Location": "/", "Set-Cookie": "sid=1; Path=/"})
    session.get("/in")
    session.get("/")
    assert [request.header("Cookie") for request in server.requests] == [None, "sid=1", None]


def test_the_body_of_a_redirect_that_breaks_is_of_requests_too(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route(
        "GET",
        "/",
        status=302,
        headers={"Location": "/on"},
        body=b"x" * 100,
        fault=faults.reset_mid_body(),
    )
    with pytest.raises(requests.RequestException):
        session.get("/")
    assert [request.path for request in server.requests] == ["/"]
