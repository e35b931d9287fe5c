"""Streams, disconnects and limits of bodies over real sockets, under three servers."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sepelib.util.testing import ServerProcess

APP = Path(__file__).with_name("h_app.py")
GENEROUS = 30.0


@pytest.fixture(scope="module", params=["server", "pywsgi", "gevent", "gthread"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    def command(server: ServerProcess) -> list[str]:
        return [sys.executable, str(APP), str(server.port), request.param]

    with ServerProcess(command, ready=answers, name=request.param) as running:
        yield running


def answers(server: ServerProcess) -> bool:
    return ask(server, "/closed/x")[0].startswith(b"HTTP/1.1 200")


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), GENEROUS)


def ask(server: ServerProcess, path: str, version: str = "1.1", headers: str = "") -> list[bytes]:
    """Head and body, as they came until the server closed."""
    return exchange(
        server,
        f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode(),
    )


def exchange(server: ServerProcess, sent: bytes) -> list[bytes]:
    with connect(server) as client:
        client.sendall(sent)
        received = b""
        while True:
            try:
                data = client.recv(65536)
            except ConnectionResetError:
                break
            if not data:
                break
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return [head, body]


def chunks(body: bytes) -> tuple[list[bytes], bool]:
    """The chunks of *body*, and whether the final one is there."""
    found = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return found, True
        assert len(body) >= length + 2 and body[length : length + 2] == b"\r\n"
        found.append(body[:length])
        body = body[length + 2 :]
    return found, False


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def was_closed(server: ServerProcess, name: str) -> bool:
    return b"true" in ask(server, f"/closed/{name}")[1]


def test_a_stream_that_ends_well_ends_with_the_final_chunk(server: ServerProcess) -> None:
    for form, read in (("array", json.loads), ("ndjson", by_line)):
        head, body = ask(server, f"/stream?count=1000&form={form}&name=well-{form}")
        found, complete = chunks(body)
        assert complete and b"transfer-encoding: chunked" in head.lower()
        assert [item["n"] for item in read(b"".join(found))] == list(range(1000))
        assert was_closed(server, f"well-{form}")


def by_line(text: bytes) -> list[dict[str, object]]:
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("fail_at", [1, 5000])
@pytest.mark.parametrize("form", ["array", "ndjson"])
def test_a_stream_that_fails_has_no_final_chunk_and_is_logged_with_its_id(
    server: ServerProcess, form: str, fail_at: int
) -> None:
    mark = f"id-{form}-{fail_at}"

    head, body = ask(
        server,
        f"/stream?count=10000&fail_at={fail_at}&form={form}&name={mark}",
        headers=f"X-Request-Id: {mark}\r\n",
    )

    found, complete = chunks(body)
    assert head.startswith(b"HTTP/1.1 200") and found and not complete
    assert b"".join(found).count(b'"n"') == fail_at  # all that was made is sent
    if form == "array":
        assert not b"".join(found).endswith(b"]")
    wait_until(lambda: was_closed(server, mark))
    line = f"GET /stream broke off after {fail_at} items (request {mark})"
    assert server.log_path.read_text().count(line) == 1


def test_the_server_does_not_log_the_failure_again(server: ServerProcess) -> None:
    ask(server, "/stream?fail_at=3&name=once", headers="X-Request-Id: once\r\n")
    wait_until(lambda: was_closed(server, "once"))

    log = server.log_path.read_text()

    rest = log[log.index("(request once)") :]
    assert rest.count("Traceback") == 1 and "ERROR" not in rest


def test_the_connection_of_a_failed_stream_is_closed(server: ServerProcess) -> None:
    # No `Connection: close`: were it kept, this would wait for more until it times out.
    head, body = exchange(server, b"GET /stream?fail_at=3 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and not chunks(body)[1]


def test_under_http_1_0_a_failed_stream_ends_with_half_a_document(server: ServerProcess) -> None:
    _, body = ask(server, "/stream?fail_at=3&form=ndjson", version="1.0")
    *lines, last = body.splitlines()
    assert len(lines) == 3 and last == b'{"'
    _, body = ask(server, "/stream?fail_at=3", version="1.0")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    _, body = ask(server, "/stream?count=3&form=ndjson", version="1.0")
    assert len(by_line(body)) == 3


def test_when_the_first_item_fails_the_client_gets_a_proper_error(server: ServerProcess) -> None:
    head, body = ask(server, "/stream?fail_at=0", headers="X-Request-Id: first\r\n")
    assert head.startswith(b"HTTP/1.1 500") and b"application/problem+json" in head
    document = json.loads(b"".join(chunks(body)[0]) if b"chunked" in head else body)
    assert document["request_id"] == "first" and "database" not in str(document)


def test_an_empty_stream_is_an_empty_list(server: ServerProcess) -> None:
    assert chunks(ask(server, "/stream?count=0")[1]) == ([b"[]"], True)
    _, body = ask(server, "/stream?count=0&form=ndjson")
    assert b"".join(chunks(body)[0]) == b""


def test_small_items_travel_together_and_each_alone_when_asked_to(server: ServerProcess) -> None:
    together, _ = chunks(ask(server, "/stream?count=1000")[1])
    alone, _ = chunks(ask(server, "/stream?count=50&buffer=0")[1])
    large, _ = chunks(ask(server, "/stream?count=10&size=20000")[1])
    assert len(together) <= 5 and len(alone) >= 50 and len(large) >= 10
    assert b"".join(alone).count(b'"n"') == 50


def test_head_gets_no_body_and_closes_the_items(server: ServerProcess) -> None:
    head, body = exchange(
        server, b"HEAD /stream?name=head HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200")
    # gevent's own server ends the chunks of an answer to HEAD too, of any application.
    assert body == (b"0\r\n\r\n" if server.name == "pywsgi" else b"")
    wait_until(lambda: was_closed(server, "head"))


def test_when_the_client_goes_away_the_items_are_closed(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(
            b"GET /stream?count=100000000&size=1000&name=gone HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert client.recv(1000)
    wait_until(lambda: was_closed(server, "gone"))


def posted(body: bytes, head: str) -> bytes:
    return (
        f"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\n{head}\r\n"
    ).encode() + body


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(1000, b"200"), (1001, b"413"), (100_000, b"413")])
def test_the_limit_of_a_body_holds_with_and_without_its_length(
    server: ServerProcess, size: int, status: bytes
) -> None:
    text = b'"' + b"x" * (size - 2) + b'"'
    for sent in (
        posted(text, f"Content-Length: {size}\r\n"),
        posted(chunked(text, 700), "Transfer-Encoding: chunked\r\n"),
    ):
        head, body = exchange(server, sent)
        assert head.split()[1] == status, head
        if status == b"200":
            assert b"998" in body


def test_a_body_that_breaks_off_is_refused(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(posted(b'"abc', "Content-Length: 100\r\n"))
        client.shutdown(socket.SHUT_WR)
        assert b" 400 " in client.recv(65536).split(b"\r\n")[0]
