"""What is written into the request line: templates, bases, and what requests would mend."""

from collections.abc import Iterator

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.http import InstrumentedSession
from sepelib.http._urls import joined, origin_of
from sepelib.http.testing import HttpTestServer


@pytest.fixture(scope="module")
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture(scope="module")
def session(server: HttpTestServer) -> Iterator[InstrumentedSession]:
    with InstrumentedSession(base_url=f"{server.url}/api/v1") as session:
        yield session


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("../admin", "..%2Fadmin"),
        ("..%2Fadmin", "..%252Fadmin"),
        ("%2e%2e", "%252e%252e"),
        ("a/../../b", "a%2F..%2F..%2Fb"),
        ("...", "..."),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("a%b", "a%25b"),
        ("Ünï", "%C3%9Cn%C3%AF"),
        ("a;b=c&d", "a%3Bb%3Dc%26d"),
        ("\\..\\x", "%5C..%5Cx"),
        ("@evil.example", "%40evil.example"),
        (7, "7"),
        (b"\xff/", "%FF%2F"),
    ],
)
def test_a_value_stays_one_segment_on_the_wire(
    server: HttpTestServer, session: InstrumentedSession, value: str, segment: str
) -> None:
    session.get("/users/{id}/keys", path={"id": value})
    assert server.requests[-1].target == f"/api/v1/users/{segment}/keys"


@given(st.text(min_size=1, max_size=20))
@settings(derandomize=True, max_examples=150, deadline=None)
def test_any_value_comes_out_as_it_went_in(
    server: HttpTestServer, session: InstrumentedSession, value: str
) -> None:
    server.route("GET", "/api/v1/users/{id}/keys", body="found")
    try:
        response = session.get("/users/{id}/keys", path={"id": value})
    except ValueError:  # control characters, lone surrogates, dot segments
        return
    assert response.text == "found"
    assert server.requests[-1].args == {"id": value}


@pytest.mark.parametrize("value", ["..", ".", "", "a\nb", "a\x00", None, True, 1.5])
def test_a_value_that_cannot_be_one_sends_nothing(
    server: HttpTestServer, session: InstrumentedSession, value: object
) -> None:
    before = len(server.requests)
    with pytest.raises((ValueError, TypeError)):
        session.get("/users/{id}", path={"id": value})  # type: ignore[dict-item]
    assert len(server.requests) == before


def test_names_have_to_fit_the_template(session: InstrumentedSession) -> None:
    with pytest.raises(TypeError, match="no value for id"):
        session.get("/users/{id}", path={})


def test_params_come_behind_a_template(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    session.get("/{a}?b={c}", path={"a": "x/y", "c": "1&2"}, params={"q": "ä"})
    assert server.requests[-1].target == "/api/v1/x%2Fy?b=1%262&q=%C3%A4"


@pytest.mark.parametrize(
    ("base", "url", "whole"),
    [
        ("http://h/api", "/users", "http://h/api/users"),
        ("http://h/api/", "users", "http://h/api/users"),
        ("http://h/api", "", "http://h/api"),
        ("http://h/api", "?q=1", "http://h/api?q=1"),
        ("http://h/api", "//evil.example/x", "http://h/api/evil.example/x"),
        ("http://h/api", "https://elsewhere/x", "https://elsewhere/x"),
        ("http://h", "a:b", "http://h/a:b"),
        ("http://u:p@h/api", "x", "http://u:p@h/api/x"),
        (None, "http://h/x", "http://h/x"),
    ],
)
def test_a_url_is_joined_below_the_base(base: str | None, url: str, whole: str) -> None:
    assert joined(base, url) == whole


def test_user_and_password_of_the_base_stay_with_it(server: HttpTestServer) -> None:
    base = f"http://user:pw@127.0.0.1:{server.port}/api"
    with HttpTestServer() as other, InstrumentedSession(base_url=base) as session:
        session.get("/x")
        session.get("/x")
        session.get(other.url)
        assert server.requests[-1].header("Authorization") == "Basic dXNlcjpwdw=="
        assert other.requests[0].header("Authorization") is None


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://Host/x?y", "http://host:80"),
        ("https://host/", "https://host:443"),
        ("http://u:p@host:8080/", "http://host:8080"),
        ("http://[::1]/", "http://[::1]:80"),
        ("http://[::1]:81/", "http://[::1]:81"),
        ("http://[::1/", "invalid"),
    ],
)
def test_an_origin_has_no_user_and_always_a_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_a_url_without_a_scheme_is_refused_as_by_requests() -> None:
    with InstrumentedSession() as session, pytest.raises(requests.exceptions.MissingSchema):
        session.get("/x")
