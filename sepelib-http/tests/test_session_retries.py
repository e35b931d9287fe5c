"""What is sent again, and what never."""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
import requests

from sepelib.http import InstrumentedSession
from sepelib.http.testing import HttpTestServer, ReceivedRequest, Reply, faults
from sepelib.util.deadline import deadline
from sepelib.util.retry import Backoff, RetryBudget, RetryPolicy
from sepelib.util.testing import MemoryRecorder, check_transport_nesting

AT_ONCE = Backoff(0.0)
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
    policy = RetryPolicy(ANY, attempts=3, backoff=AT_ONCE)
    with InstrumentedSession(
        "s", base_url=server.url, timeout=0.2, retries=policy, recorder=recorder
    ) as session:
        yield session
    assert recorder.value("http_client_in_flight", "s") == 0


def kept_alive(session: InstrumentedSession, server: HttpTestServer) -> None:
    """Let the next request find a connection that was used before."""
    assert session.get("/first").ok
    assert server.connections.open == 1


def methods(server: HttpTestServer) -> list[str]:
    return [request.method for request in server.requests if request.path != "/first"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
def test_an_idempotent_request_is_sent_again_after_a_reset(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder, method: str
) -> None:
    kept_alive(session, server)
    server.next(faults.reset())
    assert session.request(method, "/").ok
    assert methods(server) == [method, method]
    assert recorder.value("http_client_retries", "s") == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "LINK"])
def test_another_is_not_repeated_after_a_reset_following_the_send(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder, method: str
) -> None:
    kept_alive(session, server)
    server.next(faults.reset())
    with pytest.raises(requests.ConnectionError) as caught:
        session.request(method, "/", data=b"x")
    assert caught.value.maybe_sent  # type: ignore[attr-defined]
    assert methods(server) == [method]
    assert recorder.value("http_client_retries", "s") == 0
    assert recorder.value("http_client_errors", "s", "connection_lost") == 1


def test_a_post_is_not_repeated_when_the_reset_meets_it_on_its_way(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    kept_alive(session, server)
    server.next(faults.reset_on_arrival())
    with pytest.raises(requests.ConnectionError):
        session.post("/", data=b"x")
    assert methods(server) == []


@pytest.mark.parametrize(
    "how",
    [{"idempotent": True}, {"headers": {"Idempotency-Key": "7"}}],
    ids=["by the caller", "by its key"],
)
def test_a_post_that_is_called_idempotent_is_sent_again(
    server: HttpTestServer, session: InstrumentedSession, how: dict[str, Any]
) -> None:
    server.next(faults.reset())
    assert session.post("/", data=b"x", **how).ok
    assert [request.body for request in server.requests] == [b"x", b"x"]


def test_a_get_that_is_called_not_idempotent_is_sent_once(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.reset())
    with pytest.raises(requests.ConnectionError):
        session.get("/launch", idempotent=False)
    assert methods(server) == ["GET"]


def test_a_refused_connect_is_repeated_for_any_method(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.refuse()

    def start(state: object) -> None:
        server.start()

    policy = RetryPolicy(ANY, attempts=2, backoff=AT_ONCE, on_retry=start)
    assert session.post("/", data=iter([b"a", b"b"]), retries=policy).ok
    assert [request.body for request in server.requests] == [b"ab"]
    assert recorder.value("http_client_retries", "s") == 1
    assert recorder.value("http_client_errors", "s", "connect") == 1


def test_a_second_attempt_that_is_refused_does_not_promise_that_the_first_was_unsent(
    server: HttpTestServer,
) -> None:
    policy = RetryPolicy(ANY, attempts=2, backoff=AT_ONCE, on_retry=lambda state: server.refuse())
    server.next(faults.reset())
    session = InstrumentedSession(base_url=server.url, retries=policy)
    with session, pytest.raises(requests.ConnectionError) as caught:
        session.put("/", data=b"x")
    assert len(server.requests) == 1
    assert caught.value.maybe_sent  # type: ignore[attr-defined]


def test_the_default_is_two_attempts(server: HttpTestServer, recorder: MemoryRecorder) -> None:
    with InstrumentedSession("s", base_url=server.url, recorder=recorder) as session:
        server.next(faults.reset(), times=None)
        with pytest.raises(requests.ConnectionError):
            session.get("/")
    assert methods(server) == ["GET", "GET"]


def test_the_default_budget_ends_the_retries_of_a_backend_that_fails_for_good(
    server: HttpTestServer,
) -> None:
    with InstrumentedSession(base_url=server.url) as session:
        server.next(faults.unavailable(retry_after=0), times=None)
        for _ in range(60):
            assert session.get("/").status_code == 503
    assert len(server.requests) < 60 + 10 + 60 * 0.1 + 2


def test_a_read_timeout_is_repeated_if_idempotent(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.hold())
    assert session.get("/").ok
    server.next(faults.hold())
    with pytest.raises(requests.ReadTimeout):
        session.post("/")
    assert methods(server) == ["GET", "GET", "POST"]


@pytest.mark.parametrize(
    "fault",
    [faults.reset_mid_body(), faults.content_length_too_long(), faults.chunked_without_end()],
    ids=lambda fault: fault.name,
)
def test_a_reply_that_has_begun_is_not_asked_for_again(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder, fault: Any
) -> None:
    server.next(fault)
    with pytest.raises(requests.RequestException):
        session.get("/")
    assert methods(server) == ["GET"]
    assert recorder.value("http_client_errors", "s", "connection_lost") == 1


@pytest.mark.parametrize(
    "fault",
    [faults.garbage(), faults.garbage(b"HTTP/1.1 200 OK\r\nX: y"), faults.many_headers()],
    ids=["no HTTP", "half a header", "too many headers"],
)
def test_nor_is_one_whose_headers_had_begun(
    server: HttpTestServer, session: InstrumentedSession, fault: Any
) -> None:
    server.next(fault)
    with contextlib.suppress(requests.ConnectionError):
        session.get("/")
    assert methods(server) == ["GET"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_answer_that_asks_to_come_again_is_obeyed_if_idempotent(
    server: HttpTestServer, session: InstrumentedSession, status: int
) -> None:
    server.next(faults.unavailable(status=status))
    assert session.get("/").status_code == 200
    assert server.connections.accepted == 1  # the first answer was read, so that this one serves
    server.next(faults.unavailable(status=status))
    assert session.post("/").status_code == status
    assert methods(server) == ["GET", "GET", "POST"]


@pytest.mark.parametrize("status", [400, 408, 409, 425, 500, 501, 505])
def test_other_answers_are_answers(
    server: HttpTestServer, session: InstrumentedSession, status: int
) -> None:
    server.next(faults.unavailable(status=status, retry_after=0))
    assert session.get("/").status_code == status


def test_the_last_of_the_answers_is_given_whole(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.unavailable(), times=None)
    response = session.get("/")
    assert response.status_code == 503 and response.text == "not now\n"
    with session.get("/", stream=True) as response:
        assert response.raw.read() == b"not now\n"
    assert len(server.requests) == 6 and server.connections.accepted <= 4


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_takes_the_place_of_the_backoff(server: HttpTestServer, how: str) -> None:
    asked: list[float] = []
    policy = RetryPolicy(ANY, attempts=2, backoff=Backoff(50, jitter="none"), sleep=asked.append)
    value = 7 if how == "seconds" else formatdate(time.time() + 7, usegmt=True)
    server.next(faults.unavailable(retry_after=value))
    with InstrumentedSession(base_url=server.url, retries=policy) as session:
        assert session.get("/").ok
    assert len(asked) == 1 and 4 < asked[0] <= 7


@pytest.mark.parametrize("value", ["soon", "-5", "1.5", "", "9" * 400, "Fri, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_useful_waits_no_longer_than_the_deadline(
    server: HttpTestServer, session: InstrumentedSession, value: str
) -> None:
    server.next(faults.unavailable(retry_after=value))
    started = time.monotonic()
    assert session.get("/").status_code in (200, 503)
    assert time.monotonic() - started < 10


def test_a_retry_after_beyond_the_deadline_gives_the_answer_at_once(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.unavailable(retry_after=3600))
    started = time.monotonic()
    with deadline(20.0):
        response = session.get("/")
    assert response.status_code == 503 and response.text == "not now\n"
    assert time.monotonic() - started < 10
    assert len(server.requests) == 1


def test_a_file_is_rewound_to_where_it_was(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    file = io.BytesIO(b"head:body")
    file.seek(5)
    server.next(faults.reset())
    assert session.put("/", data=file).ok
    assert [request.body for request in server.requests] == [b"body", b"body"]


def test_a_multipart_form_is_sent_again_whole(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.reset())
    assert session.put("/", files={"f": ("n.txt", io.BytesIO(b"content"))}).ok
    first, second = server.requests
    assert first.body == second.body and b"content" in first.body


def generator() -> Iterator[bytes]:
    yield b"once"


class Pipe(io.RawIOBase):
    def __init__(self) -> None:
        self._left = b"once"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data, self._left = self._left, b""
        return data


@pytest.mark.parametrize("body", [generator, Pipe], ids=["generator", "pipe"])
@pytest.mark.parametrize("fault", [faults.reset(), faults.unavailable()], ids=lambda f: f.name)
def test_what_can_be_read_once_is_sent_once(
    server: HttpTestServer, session: InstrumentedSession, body: Callable[[], Any], fault: Any
) -> None:
    server.next(fault)
    with contextlib.suppress(requests.ConnectionError):
        assert session.put("/", data=body()).status_code == 503
    assert [request.body for request in server.requests] == [b"once"]


def test_a_connection_that_was_closed_while_idle_is_no_attempt(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    with InstrumentedSession("s", base_url=server.url, recorder=recorder) as session:
        for _ in range(5):
            server.next(faults.close_after_answer())
            assert session.post("/", data=b"x").ok
            server.wait_for(lambda: server.connections.open == 0)
    assert len(server.requests) == 5
    assert recorder.value("http_client_retries", "s") == 0
    assert recorder.series("http_client_errors") == {}


def test_a_server_that_restarts_is_not_noticed(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    with InstrumentedSession("s", base_url=server.url, recorder=recorder) as session:
        assert session.post("/").ok
        server.restart()
        assert session.post("/").ok
    assert recorder.value("http_client_retries", "s") == 0


def test_retries_give_way_to_those_of_a_transport_above(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.reset(), times=None)
    check_transport_nesting(
        lambda: session.get("/"), lambda: len(server.requests), on=requests.ConnectionError
    )


def test_each_hop_of_a_redirect_is_retried_for_itself(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/a", status=302, headers={"Location": "/b"})
    server.route("GET", "/b", body="there")
    server.next(faults.reset(), path="/b")
    assert session.get("/a").text == "there"
    assert [request.path for request in server.requests] == ["/a", "/b", "/b"]


def test_the_policy_of_the_caller_decides_what_is_left_to_decide(server: HttpTestServer) -> None:
    seen: list[object] = []
    policy = RetryPolicy(
        requests.ConnectionError,
        attempts=4,
        backoff=AT_ONCE,
        retry_if=lambda error: bool(seen.append(error) or len(seen) < 2),
        budget=RetryBudget(),
    )
    with InstrumentedSession(base_url=server.url, retries=policy) as session:
        server.next(faults.unavailable())  # an HTTPError, which it does not name
        assert session.get("/").status_code == 503
        server.next(faults.reset(), times=None)
        with pytest.raises(requests.ConnectionError):
            session.get("/")
    assert len(seen) == 2 and len(server.requests) == 3


def test_a_policy_of_one_attempt_sends_once(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url) as session:
        server.next(faults.reset())
        with pytest.raises(requests.ConnectionError):
            session.get("/", retries=RetryPolicy(ANY, attempts=1))
    assert len(server.requests) == 1


def test_a_retry_is_one_warning_without_secrets(
    server: HttpTestServer, session: InstrumentedSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.next(faults.reset())
    session.get("/x", params={"token": "hunter2"}, auth=("user", "hunter2"))
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    text = warning.getMessage()
    assert f"GET {server.url}/x?token=***: attempt 1 of 3 failed" in text
    assert "hunter2" not in text


def test_urllib3_repeats_nothing_by_itself(session: InstrumentedSession) -> None:
    adapter: Any = session.get_adapter("http://any")
    assert (adapter.max_retries.total, adapter.max_retries.read) == (0, False)


def test_a_stream_that_is_asked_for_again_keeps_no_slot(server: HttpTestServer) -> None:
    kept: list[object] = []  # the errors, with their answers: so no collector helps
    policy = RetryPolicy(ANY, attempts=5, backoff=AT_ONCE, on_retry=kept.append)
    server.next(faults.unavailable(), times=4)
    session = InstrumentedSession(base_url=server.url, max_concurrency=1, retries=policy)
    with session, session.get("/", stream=True, total_timeout=10) as response:
        assert response.status_code == 200


def test_the_request_that_is_sent_again_is_the_same(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    def unavailable_once(request: ReceivedRequest) -> Reply:
        return Reply(503 if len(server.requests) == 1 else 200)

    server.route("PUT", "/", unavailable_once)
    session.put("/", json={"a": 1}, headers={"X-A": "b"}, params={"q": "r"})
    first, second = server.requests
    assert first.headers == second.headers and first.body == second.body
    assert first.target == second.target
