"""How much of a reply is taken: decoded bytes, whoever packs them."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
import requests

from sepelib.http import InstrumentedSession
from sepelib.http.session import ResponseTooLarge
from sepelib.http.testing import HttpTestServer, Reply, faults
from sepelib.util.testing import MemoryRecorder

CAP = 1 << 20

Read = Callable[[requests.Response], object]


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
        "s", base_url=server.url, max_body=CAP, max_concurrency=2, recorder=recorder
    ) as session:
        yield session


def refused(recorder: MemoryRecorder, times: int = 1) -> None:
    assert recorder.value("http_client_errors", "s", "too_large") == times
    assert recorder.value("http_client_in_flight", "s") == 0
    assert {key[3] for key in recorder.series("http_client_requests")} == {"error"}


def by_chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield bytes(65536)


def test_a_body_of_just_the_cap_is_taken(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/plain", body=bytes(CAP))
    server.route("GET", "/chunks", lambda request: Reply(body=by_chunks(CAP)))
    packed = gzip.compress(bytes(CAP))
    server.route("GET", "/gzip", body=packed, headers={"Content-Encoding": "gzip"})
    for path in ("/plain", "/chunks", "/gzip"):
        assert session.get(path).content == bytes(CAP)
        with session.get(path, stream=True) as response:
            assert b"".join(response.iter_content(1000)) == bytes(CAP)


def test_a_length_over_the_cap_is_refused_before_a_byte_of_it_is_read(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.route("GET", "/", body=bytes(CAP + 1), fault=faults.hold_after_headers())
    for stream in (False, True):
        with pytest.raises(ResponseTooLarge) as caught:
            session.get("/", stream=stream)
        assert str(caught.value) == (
            f"GET {server.url}/: the reply announces {CAP + 1} bytes, max_body is {CAP}"
        )
    refused(recorder, 2)


def test_a_length_that_only_a_head_has_is_no_body(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/", body=bytes(CAP * 2))
    assert session.head("/").headers["Content-Length"] == str(CAP * 2)


def test_chunks_beyond_the_cap_are_not_read(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.route("GET", "/", lambda request: Reply(body=by_chunks(1 << 40)))
    with pytest.raises(ResponseTooLarge):
        session.get("/")
    refused(recorder)


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_small_bomb_is_stopped(
    server: HttpTestServer,
    session: InstrumentedSession,
    recorder: MemoryRecorder,
    packed: Callable[[bytes], bytes],
) -> None:
    name = "gzip" if packed is gzip.compress else "deflate"
    server.route("GET", "/", body=packed(bytes(CAP * 2)), headers={"Content-Encoding": name})
    with pytest.raises(ResponseTooLarge) as caught:
        session.get("/")
    assert "has a body of more, max_body" in str(caught.value)
    refused(recorder)


READS: dict[str, Read] = {
    "content": lambda r: r.content,
    "text": lambda r: r.text,
    "json": lambda r: r.json(),
    "iter_content(1)": lambda r: sum(len(chunk) for chunk in r.iter_content(64)),
    "iter_content(None)": lambda r: sum(len(chunk) for chunk in r.iter_content(None)),
    "iter_content(large)": lambda r: sum(len(chunk) for chunk in r.iter_content(1 << 30)),
    "iter_lines": lambda r: sum(len(line) for line in r.iter_lines(65536)),
    "raw.read()": lambda r: r.raw.read(decode_content=True),
    "raw.read(large)": lambda r: r.raw.read(1 << 30, decode_content=True),
    "raw.stream": lambda r: sum(len(chunk) for chunk in r.raw.stream(decode_content=True)),
    "raw.data": lambda r: (setattr(r.raw, "decode_content", True), r.raw.data),
    "raw.read1": lambda r: all(iter(lambda: r.raw.read1(65536, decode_content=True), b"")),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_bomb_is_stopped_at_the_cap_with_bounded_memory_however_it_is_read(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder, read: Read
) -> None:
    server.next(faults.gzip_bomb(200 * CAP))
    response = session.get("/", stream=True)
    tracemalloc.start()
    try:
        with pytest.raises(ResponseTooLarge):
            read(response)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * CAP
    refused(recorder)


def test_bytes_that_are_not_unpacked_count_too(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.route("GET", "/", lambda request: Reply(body=by_chunks(1 << 40)))
    with session.get("/", stream=True) as response, pytest.raises(ResponseTooLarge):
        response.raw.read()
    refused(recorder)


def test_one_chunk_larger_than_the_cap_is_not_read_whole(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    # The server is in this process: in one write, all that it sends is made before the head leaves,
    # and is not counted below.
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (64 * CAP, bytes(64 * CAP))
    reply = Reply(headers={"Transfer-Encoding": "chunked"}, body=body)
    server.route("GET", "/", lambda request: reply)
    with session.get("/", stream=True) as response:
        tracemalloc.start()
        try:
            with pytest.raises(ResponseTooLarge):
                list(response.iter_content(None))
            assert tracemalloc.get_traced_memory()[1] < 20 * CAP
        finally:
            tracemalloc.stop()


def test_the_cap_of_a_call_takes_the_place_of_the_sessions(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/", body=b"x" * 100)
    assert session.get("/", max_body=100).content == b"x" * 100
    with pytest.raises(ResponseTooLarge):
        session.get("/", max_body=99)
    server.route("GET", "/", body=bytes(CAP * 3))
    assert len(session.get("/", max_body=None).content) == CAP * 3
    assert InstrumentedSession().max_body == 64 << 20


def test_the_body_of_a_redirect_has_the_cap_too(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.route(
        "GET",
        "/",
        lambda request: Reply(302, headers={"Location": "/on"}, body=by_chunks(1 << 40)),
    )
    with pytest.raises(ResponseTooLarge):
        session.get("/")
    refused(recorder)


def test_chunks_of_a_stream_keep_their_bounds(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/", lambda request: Reply(body=iter([b"one", b"two" * 20_000, b"3"])))
    with session.get("/", stream=True) as response:
        chunks = list(response.iter_content(None))
    assert chunks == [b"one", b"two" * 20_000, b"3"]


def test_a_slot_and_the_connection_are_free_after_too_much(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.route("GET", "/", lambda request: Reply(body=by_chunks(1 << 40)))
    for _ in range(5):  # of two slots
        with pytest.raises(ResponseTooLarge):
            session.get("/")
    server.wait_for(lambda: server.connections.open == 0)


@pytest.mark.parametrize("packing", ["gzip", "deflate", "gzip, gzip"])
def test_packed_bodies_are_unpacked_as_by_requests(
    server: HttpTestServer, session: InstrumentedSession, packing: str
) -> None:
    text = b"".join(b"%d\n" % n for n in range(20_000))
    packed = zlib.compress(text) if packing == "deflate" else gzip.compress(text)
    if packing == "gzip, gzip":
        packed = gzip.compress(packed)
    server.route("GET", "/", body=packed, headers={"Content-Encoding": packing})
    assert session.get("/").content == text
    with session.get("/", stream=True) as response:
        assert b"".join(response.iter_content(77)) == text
    with session.get("/", stream=True) as response:
        assert response.raw.read() == packed
    with session.get("/", stream=True) as response:
        response.raw.decode_content = True
        assert b"".join(iter(lambda: response.raw.read(1000), b"")) == text


def test_rubbish_that_is_said_to_be_packed_is_a_decoding_error(
    server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
) -> None:
    server.next(faults.corrupted_gzip())
    with pytest.raises(requests.exceptions.ContentDecodingError):
        session.get("/")
    assert recorder.value("http_client_errors", "s", "invalid_response") == 1
    assert recorder.value("http_client_in_flight", "s") == 0
