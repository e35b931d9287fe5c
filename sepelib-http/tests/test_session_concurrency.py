"""How many at once, and that no slot is ever lost: threads here, greenlets when patched."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sepelib.http import InstrumentedSession
from sepelib.http.session import NoFreeSlot
from sepelib.http.testing import HttpTestServer, Reply, faults
from sepelib.util.testing import MemoryRecorder

LIMIT = 20.0


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


def in_flight(recorder: MemoryRecorder) -> float:
    return recorder.value("http_client_in_flight", "s")


def test_never_more_than_the_bound_are_in_flight(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    mind, now, most = threading.Lock(), 0, 0

    def answer(request: object) -> Reply:
        nonlocal now, most
        with mind:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with mind:
            now -= 1
        return Reply(body=b"x")

    server.route("GET", "/", answer)
    with (
        InstrumentedSession(
            "s", base_url=server.url, max_concurrency=3, recorder=recorder
        ) as session,
        ThreadPoolExecutor(12) as pool,
    ):
        statuses = list(pool.map(lambda _: session.get("/").status_code, range(60)))
    assert statuses == [200] * 60
    assert most == 3
    # Each that had a slot found the connection of the one before.
    assert server.connections.accepted == 3
    assert in_flight(recorder) == 0
    waits = recorder.observations("http_client_pool_wait_seconds", "s")
    assert len(waits) == 60 and max(waits) > 0.005


def test_threads_share_a_session_and_get_their_own_answers(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url) as session:

        def ask(number: int) -> bool:
            answer = session.get("/{n}", path={"n": number}, headers={"X-N": str(number)}).json()
            return bool(answer["target"] == f"/{number}")

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))
    assert server.connections.accepted <= 8


def test_who_waits_too_long_for_a_slot_has_sent_nothing(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    session = InstrumentedSession(
        "s", base_url=server.url, max_concurrency=1, concurrency_timeout=0.1, recorder=recorder
    )
    with session, session.get("/first", stream=True):
        with pytest.raises(NoFreeSlot) as caught:
            session.get("/second?token=hunter2")
        assert isinstance(caught.value, requests.Timeout)
        text = str(caught.value)
        assert text.startswith(f"GET {server.url}/second?token=***: no slot free for 0.1")
        assert text.endswith("s, max_concurrency is 1")
        assert not caught.value.maybe_sent
        assert in_flight(recorder) == 1
    assert [request.path for request in server.requests] == ["/first"]
    assert recorder.value("http_client_errors", "s", "no_slot") == 1
    assert recorder.value("http_client_retries", "s") == 0
    assert in_flight(recorder) == 0


def test_no_bound_is_none(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, max_concurrency=None) as session:
        streams = [session.get("/", stream=True) for _ in range(120)]
        assert server.connections.open == 120
        for stream in streams:
            stream.close()


Use = Callable[[requests.Response], object]


def half(response: requests.Response) -> None:
    next(response.iter_content(1))
    response.close()


def broken_off(response: requests.Response) -> None:
    for _ in response.iter_content(1):
        break
    response.close()


ENDS: dict[str, Use] = {
    "read": lambda r: r.content,
    "read by lines": lambda r: list(r.iter_lines()),
    "read raw": lambda r: r.raw.read(),
    "read raw in pieces": lambda r: list(iter(lambda: r.raw.read(3), b"")),
    "read1": lambda r: list(iter(lambda: r.raw.read1(), b"")),
    "drained": lambda r: r.raw.drain_conn(),
    "closed": lambda r: r.close(),
    "closed twice": lambda r: (r.close(), r.close()),
    "closed after a part": half,
    "broken off": broken_off,
    "dropped": lambda r: None,
    "dropped after a part": lambda r: next(r.iter_content(1)),
}


@pytest.mark.parametrize("body", ["length", "chunks", "empty"])
@pytest.mark.parametrize("use", ENDS.values(), ids=ENDS.keys())
def test_a_stream_gives_its_slot_back_however_it_ends(
    server: HttpTestServer, recorder: MemoryRecorder, use: Use, body: str
) -> None:
    bodies = {"length": b"x\n" * 50_000, "chunks": None, "empty": b""}

    def answer(request: object) -> Reply:
        content = bodies[body]
        return Reply(body=iter([b"x\n" * 10_000] * 5) if content is None else content)

    server.route("GET", "/", answer)
    with InstrumentedSession(
        "s",
        base_url=server.url,
        max_concurrency=1,
        concurrency_timeout=LIMIT,
        recorder=recorder,
    ) as session:
        for _ in range(3):
            response = session.get("/", stream=True)
            assert in_flight(recorder) == 1
            try:
                use(response)
            except StopIteration:
                assert body == "empty"
            del response
            gc.collect()
            assert in_flight(recorder) == 0
    assert sum(recorder.series("http_client_requests").values()) == 3
    assert {key[3] for key in recorder.series("http_client_requests")} == {"2xx"}
    seconds = recorder.observations("http_client_seconds", "s", server.url)
    assert len(seconds) == 3


# The collector ends the socket by itself, and Python warns of such, as with requests.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_stream_that_is_dropped_in_a_cycle_gives_its_slot_back(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, max_concurrency=1) as session:
        response = session.get("/", stream=True)
        response.me = response  # type: ignore[attr-defined]
        del response
        gc.collect()
        assert session.get("/").ok


def test_a_stream_is_timed_to_its_headers_and_another_to_its_last_byte(
    server: HttpTestServer, recorder: MemoryRecorder
) -> None:
    server.route("GET", "/", body=b"x" * 5, fault=faults.drip_body(0.1))
    with InstrumentedSession("s", base_url=server.url, recorder=recorder) as session:
        with session.get("/", stream=True) as response:
            assert response.content == b"x" * 5
        session.get("/")
    stream, whole = recorder.observations("http_client_seconds", "s", server.url)
    assert stream < 0.3 < whole


def test_a_stream_may_be_read_in_another_thread(server: HttpTestServer) -> None:
    with InstrumentedSession(base_url=server.url, max_concurrency=1) as session:
        response = session.get("/", stream=True)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: response.content).result(LIMIT)
        assert session.get("/").ok


def test_less_than_one_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 slot, not 0"):
        InstrumentedSession(max_concurrency=0)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
