"""Every fault of the server, against the session and against the client upon it.

What is raised has a documented class, and afterwards nothing is missing: no slot, no socket, no
count, and the next answer is the right one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import requests
from requests import exceptions

from sepelib.http import InstrumentedSession, RestClient, errors, session
from sepelib.http.testing import Fault, HttpTestServer, faults, unanswered_address
from sepelib.util.deadline import deadline
from sepelib.util.retry import RetryPolicy
from sepelib.util.testing import MemoryRecorder

FOR_EVER = 3600.0
GOOD = {"good": True}
URL = "/users/{id}"


class Case(NamedTuple):
    """*raised* by the session, or the status of what it returns; *error* of the client, or None.

    *plain*: the error upon a plain session, RestError stands for the same. *within*: a deadline.
    """

    fault: Fault
    raised: type[Exception] | int
    error: type[errors.RestError] | None
    plain: type[errors.RestError] | None = errors.RestError
    timeout: float = 20.0
    within: float | None = None


CASES = [
    Case(faults.slow_accept(FOR_EVER), exceptions.ReadTimeout, errors.ReadTimeout, timeout=0.3),
    Case(faults.slow_accept(0.05), 200, None),
    Case(faults.reset_on_arrival(), exceptions.ConnectionError, errors.ConnectionLost),
    Case(faults.late(0.05), 200, None),
    Case(faults.late(FOR_EVER), exceptions.ReadTimeout, errors.ReadTimeout, timeout=0.3),
    Case(faults.hold(), exceptions.ReadTimeout, errors.ReadTimeout, timeout=0.3),
    Case(faults.reset(), exceptions.ConnectionError, errors.ConnectionLost),
    Case(faults.close(), exceptions.ConnectionError, errors.ConnectionLost),
    Case(faults.garbage(), exceptions.ConnectionError, errors.InvalidResponse),
    Case(faults.garbage(b"HTTP/1.1 two\r\n\r\n"), exceptions.ConnectionError,
         errors.InvalidResponse),
    Case(faults.garbage(b"\x16\x03\x01\x00" * 9), exceptions.ConnectionError,
         errors.InvalidResponse),
    Case(faults.garbage(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), exceptions.ConnectionError,
         errors.InvalidResponse),
    Case(faults.unavailable(retry_after=7), 503, errors.ServerError),
    Case(faults.unavailable(status=429), 429, errors.RateLimited),
    Case(faults.redirect("/elsewhere"), 200, None),
    Case(faults.redirect("http://[bad"), exceptions.InvalidURL, errors.InvalidResponse),
    Case(faults.redirect("ftp://h/x"), exceptions.InvalidSchema, errors.InvalidResponse),
    Case(faults.redirect_loop(), exceptions.TooManyRedirects, errors.TooManyRedirects),
    Case(faults.informational(status=100, times=3), 200, None),
    # http.client takes any 1xx but 100 for the answer.
    Case(faults.informational(), 103, errors.UnexpectedStatus),
    Case(faults.drip_headers(0.05, count=2), session.DeadlineExceeded, errors.DeadlineExceeded,
         None, within=0.5),
    Case(faults.many_headers(200), exceptions.ConnectionError, errors.InvalidResponse),
    Case(faults.many_headers(1, size=100_000), exceptions.ConnectionError, errors.InvalidResponse),
    Case(faults.many_headers(50, size=60_000), 200, None),
    Case(faults.hold_after_headers(), exceptions.ConnectionError, errors.ReadTimeout, timeout=0.3),
    Case(faults.drip_body(0.05), session.DeadlineExceeded, errors.DeadlineExceeded, None,
         within=0.5),
    Case(faults.reset_mid_body(), exceptions.ChunkedEncodingError, errors.ConnectionLost),
    Case(faults.content_length_too_long(), exceptions.ChunkedEncodingError, errors.ConnectionLost),
    Case(faults.content_length_too_short(9), 200, errors.InvalidResponse),
    Case(faults.chunked_without_end(), exceptions.ChunkedEncodingError, errors.ConnectionLost),
    Case(faults.invalid_chunk(), exceptions.ChunkedEncodingError, errors.InvalidResponse),
    Case(faults.corrupted_gzip(), exceptions.ContentDecodingError, errors.InvalidResponse),
    Case(faults.gzip_bomb(8 << 20), session.ResponseTooLarge, errors.ResponseTooLarge,
         errors.InvalidResponse),
    Case(faults.close_after_answer(), 200, None),
]  # fmt: skip
IDS = [f"{case.fault.name}-{n}" for n, case in enumerate(CASES)]


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        server.route("*", "/{any:path}", json=GOOD)
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def limited(server: HttpTestServer, recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
    """A session with one slot: a second call needs that of the first."""
    with InstrumentedSession(
        "s",
        base_url=server.url,
        retries=RetryPolicy(requests.RequestException, attempts=1),
        max_concurrency=1,
        concurrency_timeout=0.0,
        max_body=4 << 20,
        recorder=recorder,
    ) as limited:
        yield limited


def strike(server: HttpTestServer, fault: Fault) -> None:
    server.next(fault, times=None if fault.name == "redirect_loop" else 1)


def recovered(server: HttpTestServer, fault: Fault) -> None:
    server.heal()
    if fault.name == "close_after_answer":  # else the next request may still meet the end
        server.wait_for(lambda: server.connections.open == 0)


def all_is_well(server: HttpTestServer, recorder: MemoryRecorder) -> None:
    assert recorder.value("http_client_in_flight", "s") == 0
    sent = sum(recorder.series("http_client_requests").values())
    observed = sum(len(seconds) for seconds in recorder.series("http_client_seconds").values())
    assert observed == sent
    failed = [v for k, v in recorder.series("http_client_requests").items() if k[3] == "error"]
    assert sum(failed) == sum(recorder.series("http_client_errors").values())
    server.wait_for(lambda: server.connections.open <= 1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_session_raises_what_requests_would_and_loses_nothing(
    server: HttpTestServer,
    limited: InstrumentedSession,
    recorder: MemoryRecorder,
    case: Case,
    stream: bool,
) -> None:
    def ask() -> requests.Response:
        with (
            deadline(case.within),
            limited.get(URL, path={"id": 7}, stream=stream, timeout=case.timeout) as response,
        ):
            assert response.content is not None
            return response

    strike(server, case.fault)
    if isinstance(case.raised, int):
        assert ask().status_code == case.raised
    else:
        with pytest.raises(case.raised) as caught:
            ask()
        assert isinstance(caught.value, requests.RequestException)
    all_is_well(server, recorder)
    recovered(server, case.fault)
    assert limited.get("/next").json() == GOOD
    all_is_well(server, recorder)


@pytest.mark.parametrize("kind", ["instrumented", "plain"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_client_raises_its_documented_class_and_the_next_call_is_right(
    server: HttpTestServer,
    limited: InstrumentedSession,
    recorder: MemoryRecorder,
    case: Case,
    kind: str,
) -> None:
    with requests.Session() as plain:
        client = RestClient(limited if kind == "instrumented" else plain, server.url)
        expected = case.error
        if kind == "plain" and case.plain is not errors.RestError:
            expected = case.plain
        strike(server, case.fault)
        if expected is None:
            assert client.get(URL, id=7, timeout=case.timeout) == GOOD
        else:
            with deadline(case.within), pytest.raises(errors.RestError) as caught:
                client.get(URL, id=7, timeout=case.timeout)
            error = caught.value
            assert type(error) is expected
            assert error.method == "GET" and error.url.startswith(f"{server.url}/users/7")
            if isinstance(error, errors.TransportError):
                assert error.maybe_sent and error.__cause__ is not None
                if kind == "instrumented" and "error" in statuses(recorder):
                    assert recorder.value("http_client_errors", "s", error.kind) == 1
        recovered(server, case.fault)
        assert client.get("/next") == GOOD
        if kind == "instrumented":
            all_is_well(server, recorder)


def statuses(recorder: MemoryRecorder) -> set[str]:
    return {labels[3] for labels in recorder.series("http_client_requests")}


def test_no_fault_is_forgotten() -> None:
    assert {case.fault.name for case in CASES} == set(faults.__all__)


@pytest.mark.parametrize("kind", ["instrumented", "plain"])
def test_where_nobody_is_at_home_nothing_was_sent(
    server: HttpTestServer, limited: InstrumentedSession, recorder: MemoryRecorder, kind: str
) -> None:
    with requests.Session() as plain, unanswered_address() as (host, port):
        used = limited if kind == "instrumented" else plain
        server.stop()
        cases: list[tuple[str, type[errors.TransportError]]] = [
            (f"http://{host}:{port}", errors.ConnectTimeout),
            (server.url, errors.ConnectFailed),
            ("http://no-such-host.invalid", errors.ConnectFailed),
        ]
        for url, expected in cases:
            with pytest.raises(errors.TransportError) as caught:
                RestClient(used, url).post(URL, id=7, json={}, timeout=(0.2, 20.0))
            assert type(caught.value) is expected and not caught.value.maybe_sent
    if kind == "instrumented":
        all_is_well(server, recorder)
        assert recorder.value("http_client_errors", "s", "connect_timeout") == 1
        assert recorder.value("http_client_errors", "s", "connect") == 2


def test_when_all_slots_are_taken_nothing_was_sent(
    server: HttpTestServer, limited: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    client = RestClient(limited, server.url)
    with limited.get("/x", stream=True):
        with pytest.raises(errors.NoFreeSlot) as caught:
            client.get(URL, id=7)
        assert not caught.value.maybe_sent
    assert client.get(URL, id=7) == GOOD
    all_is_well(server, recorder)


def test_a_put_that_may_have_been_sent_once_is_not_promised_to_be_unsent(
    server: HttpTestServer,
) -> None:
    """The second attempt meets a closed door: that says nothing of the first."""
    policy = RetryPolicy(
        requests.RequestException, attempts=2, sleep=lambda seconds: server.refuse()
    )
    server.next(faults.reset())
    with InstrumentedSession(retries=policy) as session, pytest.raises(errors.RestError) as caught:
        RestClient(session, server.url).put("/x", json={})
    assert isinstance(caught.value, errors.TransportError)
    assert len(server.requests) == 1 and caught.value.maybe_sent
