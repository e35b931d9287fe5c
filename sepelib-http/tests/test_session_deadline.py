"""One total time for all that a call waits for, whoever drips, stalls or sends it on."""

import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import requests
import trustme

from sepelib.http import InstrumentedSession
from sepelib.http.session import DeadlineExceeded
from sepelib.http.testing import HttpTestServer, Reply, faults, unanswered_address
from sepelib.util import deadline as deadlines
from sepelib.util.deadline import deadline
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import (
    FlakyProxy,
    MemoryRecorder,
    ThreadedServer,
    check_obeys_deadline,
)

TOTAL = 0.4
GRACE = 2.0  # what a busy machine may add; without the limit each case takes far more


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def session(server: HttpTestServer, recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
    session = InstrumentedSession(
        "s", base_url=server.url, total_timeout=TOTAL, timeout=30.0, recorder=recorder
    )
    with session:
        yield session


def ends_in_time(call: object, recorder: MemoryRecorder | None = None) -> DeadlineExceeded:
    assert callable(call)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        call()
    took = time.monotonic() - started
    assert TOTAL * 0.9 <= took < TOTAL + GRACE
    if recorder is not None:
        assert recorder.value("http_client_in_flight", "s") == 0
        assert recorder.value("http_client_errors", "s", "deadline") == 1
    return caught.value


def test_headers_that_drip_end_with_the_total_time(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.drip_headers(0.2))
    error = ends_in_time(lambda: session.get("/"), recorder)
    assert isinstance(error, requests.Timeout) and isinstance(error, deadlines.DeadlineExceeded)
    assert str(error) == f"GET {server.url}/: deadline exceeded while reading the reply"
    assert error.maybe_sent


def test_a_body_that_drips_ends_with_the_total_time(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.drip_body(0.2))
    ends_in_time(lambda: session.get("/"), recorder)


def test_chunks_that_drip_end_with_the_total_time(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    def drip() -> Iterator[bytes]:
        while not server.ending.wait(0.2):
            yield b"x"

    server.route("GET", "/chunks", body=drip())
    ends_in_time(lambda: session.get("/chunks"), recorder)


def test_silence_ends_with_the_total_time(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.hold())
    error = ends_in_time(lambda: session.get("/"), recorder)
    assert "while waiting for the reply" in str(error) and error.maybe_sent


def test_a_stream_that_drips_ends_with_the_total_time(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.drip_body(0.2))

    def read_all() -> None:
        with session.get("/", stream=True) as response:
            for _ in response.iter_content(1):
                pass

    ends_in_time(read_all, recorder)


def test_all_redirects_are_within_the_total_time(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    def slowly_on(request: object) -> Reply:
        time.sleep(0.1)
        return Reply(302, headers={"Location": f"/{time.monotonic()}"})

    server.route("GET", "/{any}", slowly_on)
    ends_in_time(lambda: session.get("/first"))
    assert 2 <= len(server.requests) <= 6


def test_a_connect_without_an_answer_ends_with_the_total_time(
    session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    with unanswered_address() as (host, port):
        error = ends_in_time(lambda: session.get(f"http://{host}:{port}/"), recorder)
    assert "while connecting" in str(error) and not error.maybe_sent


def test_the_wait_for_a_slot_is_within_the_total_time(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    session = InstrumentedSession(
        "s", base_url=server.url, total_timeout=TOTAL, max_concurrency=1, recorder=recorder
    )
    with session, session.get("/", stream=True, total_timeout=None):
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            session.get("/")
        assert TOTAL * 0.9 <= time.monotonic() - started < TOTAL + GRACE
        assert not caught.value.maybe_sent and len(server.requests) == 1
    assert recorder.value("http_client_in_flight", "s") == 0


def test_no_retry_is_begun_whose_wait_would_pass_the_total_time(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    patient = RetryPolicy(requests.HTTPError, attempts=9, backoff=Backoff(0.25, 1.0, jitter="none"))
    server.next(faults.unavailable(), times=None)
    started = time.monotonic()
    assert session.get("/", retries=patient).status_code == 503
    assert time.monotonic() - started < TOTAL + GRACE
    assert 2 <= len(server.requests) <= 3


def test_a_body_nobody_reads_is_sent_within_the_total_time(session: InstrumentedSession) -> None:
    class Deaf(ThreadedServer):
        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            self.ending.wait(30)

    with Deaf() as deaf:
        url = f"http://127.0.0.1:{deaf.port}/"
        error = ends_in_time(lambda: session.put(url, data=bytes(64 << 20)))
        assert error.maybe_sent
        ends_in_time(lambda: session.put(url, data=io.BytesIO(bytes(64 << 20))))


def test_an_upload_may_take_longer_than_a_connect(server: HttpTestServer) -> None:
    server.route("PUT", "/", status=204)

    def slowly() -> Iterator[bytes]:
        for _ in range(4):
            time.sleep(0.1)
            yield bytes(100_000)

    with InstrumentedSession(base_url=server.url, timeout=(0.1, 10.0)) as session:
        assert session.put("/", data=bytes(8 << 20)).status_code == 204
        assert session.put("/", data=slowly()).status_code == 204
    assert [len(request.body) for request in server.requests] == [8 << 20, 400_000]


def test_a_peer_that_stops_reading_for_longer_than_a_connect_takes_is_waited_for(
    server: HttpTestServer,
) -> None:
    server.route("PUT", "/", status=204)
    with FlakyProxy(*server.address) as proxy:
        proxy.hold_requests()
        resume = threading.Timer(0.5, proxy.resume)
        with InstrumentedSession(timeout=(0.1, 10.0)) as session:
            resume.start()
            url = f"http://127.0.0.1:{proxy.port}/"
            assert session.put(url, data=bytes(32 << 20)).status_code == 204
        resume.join()


def test_a_read_timeout_without_a_byte_is_a_read_timeout(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    server.next(faults.hold(), times=None)
    with InstrumentedSession("s", timeout=(3.0, 0.1), recorder=recorder) as session:
        with pytest.raises(requests.ReadTimeout) as caught:
            session.get(server.url)
        assert not isinstance(caught.value, DeadlineExceeded)
    assert recorder.value("http_client_errors", "s", "read_timeout") == 2


def test_a_connect_timeout_is_a_connect_timeout(recorder: MemoryRecorder) -> None:
    session = InstrumentedSession("s", timeout=(0.1, 5.0), recorder=recorder)
    with session, unanswered_address() as (host, port):
        with pytest.raises(requests.ConnectTimeout) as caught:
            session.get(f"http://{host}:{port}/")
        assert caught.value.maybe_sent is False  # type: ignore[attr-defined]
    assert recorder.value("http_client_errors", "s", "connect_timeout") == 2


def test_a_deadline_from_above_is_obeyed(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, total_timeout=None, timeout=None) as session:
        server.next(faults.drip_headers(0.05), times=2)
        check_obeys_deadline(lambda: session.get("/"), seconds=0.4)
        server.next(faults.drip_body(0.05), times=2)
        check_obeys_deadline(lambda: session.get("/"), seconds=0.4)


def test_a_deadline_from_above_that_is_over_lets_nothing_out(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url) as session:
        with deadline(0.0), pytest.raises(DeadlineExceeded) as caught:
            session.post("/", data=b"x")
        assert not caught.value.maybe_sent
    assert server.requests == ()


def test_no_limit_is_none_and_has_to_be_written(server: HttpTestServer) -> None:
    server.route("GET", "/", body=b"x" * 10, fault=faults.drip_body(0.05))
    with InstrumentedSession(base_url=server.url, total_timeout=0.1) as session:
        with pytest.raises(DeadlineExceeded):
            session.get("/")
        assert session.get("/", total_timeout=None).content == b"x" * 10
        assert session.get("/", total_timeout=30).content == b"x" * 10
    assert InstrumentedSession().total_timeout == 30.0
    assert InstrumentedSession().timeout == (3.0, 10.0)


def test_a_prepared_request_has_the_limits_too(server: HttpTestServer) -> None:
    server.next(faults.drip_body(0.05), times=None)
    with InstrumentedSession(total_timeout=0.3) as session:
        prepared = session.prepare_request(requests.Request("GET", server.url))
        with pytest.raises(DeadlineExceeded):
            session.send(prepared)


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield path


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[HttpTestServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HttpTestServer(ssl_context=context) as server:
        yield server


def test_tls_has_the_same_limits(tls_server: HttpTestServer, trusted: str) -> None:
    tls_server.route("GET", "/large", body=bytes(3 << 20))
    tls_server.route("PUT", "/", status=204)
    with InstrumentedSession(base_url=tls_server.url, verify=trusted) as session:
        for _ in range(3):
            assert session.get("/large").content == bytes(3 << 20)
            assert session.put("/", data=bytes(3 << 20)).status_code == 204
        assert tls_server.connections.accepted == 1
        for fault in (faults.drip_headers(0.2), faults.drip_body(0.2), faults.hold()):
            tls_server.next(fault)
            ends_in_time(lambda: session.get("/", total_timeout=TOTAL))


def test_a_tls_handshake_without_an_answer_ends_with_the_total_time(
    tls_server: HttpTestServer, trusted: str
) -> None:
    tls_server.next(faults.slow_accept(30.0))
    with InstrumentedSession(verify=trusted, timeout=30.0, total_timeout=TOTAL) as session:
        error = ends_in_time(lambda: session.get(tls_server.url))
        assert not error.maybe_sent


@pytest.mark.parametrize("after", [0, 4000], ids=["in the handshake", "in a record"])
def test_tls_that_drips_ends_with_the_total_time(
    authority: trustme.CA, trusted: str, after: int
) -> None:
    """Byte by byte: gevent gives each of them the whole timeout, if it is left to its sockets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HttpTestServer(ssl_context=context) as server:
        server.route("GET", "/", body=bytes(100_000))
        with FlakyProxy(*server.address) as proxy:
            url = f"https://127.0.0.1:{proxy.port}/"
            with InstrumentedSession(verify=trusted, timeout=30.0, total_timeout=TOTAL) as session:
                if after:
                    session.get(url)
                proxy.drip(1, 0.1)
                ends_in_time(lambda: session.get(url))
            proxy.cut()


def test_a_certificate_nobody_trusts_is_refused_once(tls_server: HttpTestServer) -> None:
    recorder = MemoryRecorder()
    session = InstrumentedSession("s", recorder=recorder)
    with session, pytest.raises(requests.exceptions.SSLError):
        session.get(tls_server.url)
    assert recorder.value("http_client_retries", "s") == 0
    assert recorder.value("http_client_errors", "s", "connect") == 1
