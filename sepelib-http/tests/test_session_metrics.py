"""What the recorder is told, and that it balances after every fault."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sepelib.http import InstrumentedSession
from sepelib.http.testing import HttpTestServer, Reply, faults, unanswered_address
from sepelib.util import instrument
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import MemoryRecorder

ANY = (requests.ConnectionError, requests.Timeout, requests.HTTPError)


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def session(server: HttpTestServer, recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
    with InstrumentedSession(
        "staff",
        base_url=server.url,
        timeout=0.2,
        total_timeout=1.0,
        max_body=1000,
        retries=RetryPolicy(ANY, attempts=2, backoff=Backoff(0)),
        recorder=recorder,
    ) as session:
        yield session


def test_these_are_the_names(session: InstrumentedSession, recorder: MemoryRecorder) -> None:
    assert recorder.names == [
        "http_client_errors",
        "http_client_in_flight",
        "http_client_pool_wait_seconds",
        "http_client_requests",
        "http_client_retries",
        "http_client_seconds",
    ]


def test_a_template_is_the_label(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    for login in ("ann", "bob"):
        session.get("/users/{id}", path={"id": login})
    session.post("/users/{id}", path={"id": "ann"}, endpoint="edit")
    session.get("/users/ann")
    assert recorder.series("http_client_requests") == {
        ("staff", "/users/{id}", "GET", "2xx"): 2,
        ("staff", "edit", "POST", "2xx"): 1,
        ("staff", server.url, "GET", "2xx"): 1,
    }
    assert set(recorder.series("http_client_seconds")) == {
        ("staff", "/users/{id}"),
        ("staff", "edit"),
        ("staff", server.url),
    }


@pytest.mark.parametrize(
    ("status", "label"), [(200, "2xx"), (204, "2xx"), (304, "3xx"), (404, "4xx"), (599, "5xx")]
)
def test_a_status_is_counted_by_its_class(
    server: HttpTestServer,
    session: InstrumentedSession,
    recorder: MemoryRecorder,
    status: int,
    label: str,
) -> None:
    server.route("GET", "/", status=status)
    session.get("/")
    assert recorder.series("http_client_requests") == {("staff", server.url, "GET", label): 1}


def test_a_method_nobody_knows_is_other(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    for method in ("BREW", "PROPFIND", "get"):
        session.request(method, "/")
    assert recorder.value("http_client_requests", "staff", server.url, "OTHER", "2xx") == 2
    assert recorder.value("http_client_requests", "staff", server.url, "GET", "2xx") == 1


def test_no_label_has_a_secret_of_the_url(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    url = f"http://user:hunter2@127.0.0.1:{server.port}/x?token=hunter2"
    session.get(url)
    session.get(f"http://user:hunter2@127.0.0.1:{server.port}/{{n}}?token=hunter2", path={"n": 1})
    shown = str(recorder.series("http_client_requests")) + str(
        recorder.series("http_client_seconds")
    )
    assert "hunter2" not in shown and server.url in shown


def test_each_hop_of_a_redirect_is_counted_on_its_own_host(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    with HttpTestServer() as other:
        server.route("GET", "/users/{id}", status=302, headers={"Location": f"{other.url}/u"})
        other.route("GET", "/u", status=301, headers={"Location": "/v"})
        assert session.get("/users/{id}", path={"id": 1}).ok
        assert recorder.series("http_client_requests") == {
            ("staff", "/users/{id}", "GET", "3xx"): 1,
            ("staff", other.url, "GET", "3xx"): 1,
            ("staff", other.url, "GET", "2xx"): 1,
        }


FAULTS: dict[str, tuple[Any, str]] = {
    fault.name: (fault, kind)
    for fault, kind in [
        (faults.reset(), "connection_lost"),
        (faults.reset_on_arrival(), "connection_lost"),
        (faults.close(), "connection_lost"),
        (faults.garbage(), "invalid_response"),
        (faults.hold(), "read_timeout"),
        (faults.hold_after_headers(), "read_timeout"),
        (faults.drip_headers(0.1), "deadline"),
        (faults.drip_body(0.1), "deadline"),
        (faults.many_headers(1000), "invalid_response"),
        (faults.reset_mid_body(), "connection_lost"),
        (faults.content_length_too_long(), "connection_lost"),
        (faults.chunked_without_end(), "connection_lost"),
        (faults.invalid_chunk(), "invalid_response"),
        (faults.corrupted_gzip(), "invalid_response"),
        (faults.gzip_bomb(1 << 20), "too_large"),
    ]
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS.keys())
def test_the_books_balance_after_every_fault(
    server: HttpTestServer,
    session: InstrumentedSession,
    recorder: MemoryRecorder,
    fault: Any,
    kind: str,
    stream: bool,
) -> None:
    server.route("GET", "/", body=b"x" * 50)
    server.next(fault, times=None)

    def read() -> None:
        with session.get("/", stream=stream) as response:
            response.content  # noqa: B018

    with pytest.raises(requests.RequestException) as caught:
        read()
    attempts = 1 + recorder.value("http_client_retries", "staff")
    assert recorder.value("http_client_in_flight", "staff") == 0
    assert recorder.series("http_client_errors") == {("staff", kind): attempts}
    assert recorder.series("http_client_requests") == {
        ("staff", server.url, "GET", "error"): attempts
    }
    assert len(recorder.observations("http_client_seconds", "staff", server.url)) == attempts
    assert "\n" not in str(caught.value)
    server.heal()
    server.release()
    del caught
    gc.collect()
    for _ in range(3):
        assert session.get("/").content == b"x" * 50
    server.wait_for(lambda: server.connections.open == 1)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://no.such.host.invalid/"], ids=["refused", "no such host"]
)
def test_the_books_balance_without_a_connection(
    session: InstrumentedSession, recorder: MemoryRecorder, url: str
) -> None:
    with pytest.raises(requests.ConnectionError) as caught:
        session.post(url)
    assert caught.value.maybe_sent is False  # type: ignore[attr-defined]
    assert recorder.series("http_client_errors") == {("staff", "connect"): 2}
    assert recorder.value("http_client_in_flight", "staff") == 0


def test_the_books_balance_after_a_connect_without_an_answer(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    with unanswered_address() as (host, port), pytest.raises(requests.ConnectTimeout):
        session.get(f"http://{host}:{port}/")
    assert recorder.series("http_client_errors") == {("staff", "connect_timeout"): 2}
    assert recorder.value("http_client_in_flight", "staff") == 0


def test_what_is_wrong_with_the_url_is_not_counted(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    for url in ("ftp://host/", "http://", "http://[::1/"):
        with pytest.raises(requests.RequestException):
            session.get(url)
    assert recorder.series("http_client_requests") == {}
    assert recorder.value("http_client_in_flight", "staff") == 0


def test_an_error_of_a_hook_loses_nothing(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    def fail(response: requests.Response, **kwargs: object) -> None:
        raise LookupError("of the hook")

    with pytest.raises(LookupError):
        session.get("/", hooks={"response": fail})
    gc.collect()
    assert recorder.value("http_client_in_flight", "staff") == 0


def test_an_error_of_a_body_is_the_callers_and_loses_nothing(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise LookupError("of the body")

    with pytest.raises(LookupError):
        session.put("/", data=body())
    assert recorder.value("http_client_in_flight", "staff") == 0
    assert recorder.series("http_client_errors") == {("staff", "other"): 1}
    assert session.get("/").ok


def test_a_retry_is_counted_and_its_attempts_too(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.unavailable())
    session.get("/")
    assert recorder.value("http_client_retries", "staff") == 1
    assert recorder.series("http_client_requests") == {
        ("staff", server.url, "GET", "5xx"): 1,
        ("staff", server.url, "GET", "2xx"): 1,
    }


def test_the_gauge_shows_what_is_under_way(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    seen = []

    def answer(request: object) -> Reply:
        seen.append(recorder.value("http_client_in_flight", "staff"))
        return Reply()

    server.route("GET", "/", answer)
    session.get("/")
    assert seen == [1] and recorder.value("http_client_in_flight", "staff") == 0


def test_the_ambient_recorder_is_the_default(server: HttpTestServer) -> None:
    with InstrumentedSession("ambient", base_url=server.url) as session:
        recorder = MemoryRecorder()
        former = instrument.install(recorder)
        try:
            session.get("/")
            assert recorder.value("http_client_requests", "ambient", server.url, "GET", "2xx") == 1
            assert recorder.value("http_client_in_flight", "ambient") == 0
        finally:
            instrument.install(former)


def test_labels_made_from_input_are_not_kept_without_end(recorder: MemoryRecorder) -> None:
    from sepelib.http._metrics import SessionMetrics

    metrics = SessionMetrics(recorder, "s")
    for number in range(3000):
        metrics.request(f"http://host{number}:80", "GET", 200, 0.1)
    assert len(metrics._requests) <= 1000 and len(metrics._seconds) <= 1000
    assert recorder.value("http_client_requests", "s", "http://host2999:80", "GET", "2xx") == 1
