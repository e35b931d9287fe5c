"""Requests over the wire: answers, keep-alive, bad input, applications that fail."""

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import gevent.socket
import pytest

from sepelib.flask.server._http import HttpServer
from sepelib.flask.testing import SlowClient
from sepelib.flask.testing._probe import Probe


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe() as probe:
        probe.open(limits={"max_header_bytes": 2000, "max_headers": 20})
        yield probe


@pytest.fixture
def client(probe: Probe) -> Iterator[SlowClient]:
    probe.tell("forget")
    with SlowClient(probe.address) as client:
        yield client


def request(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# -- Answers.


def test_sequential_requests_on_one_connection_do_not_stall(client: SlowClient) -> None:
    # Headers and body in two writes without TCP_NODELAY wait 40 ms for a delayed acknowledgement.
    took = []
    for _ in range(50):
        start = time.monotonic()
        assert client.get("/hello").body == b"hello"
        took.append(time.monotonic() - start)

    assert statistics.median(took) < 0.02


def test_an_answer_in_small_parts_does_not_stall(client: SlowClient) -> None:
    took = []
    for _ in range(20):
        start = time.monotonic()
        assert client.get("/stream?n=5").body == b"x" * 25
        took.append(time.monotonic() - start)

    assert statistics.median(took) < 0.02


def test_a_small_answer_comes_in_one_piece(client: SlowClient) -> None:
    client.send(request("GET /hello HTTP/1.1", "Host: x"))
    assert client.receive(65536).endswith(b"\r\n\r\nhello")


def test_a_list_gets_a_length_and_a_generator_chunks(client: SlowClient) -> None:
    parts, stream = client.get("/parts"), client.get("/stream")

    assert (parts.headers["content-length"], parts.body) == ("6", b"onetwo")
    assert (stream.headers["transfer-encoding"], stream.body) == ("chunked", b"x" * 15)
    assert "date" in parts.headers and "date" in stream.headers


def test_a_generator_with_a_length_is_not_chunked(client: SlowClient) -> None:
    answer = client.get("/stream?length=15")
    assert "transfer-encoding" not in answer.headers
    assert (answer.body, client.get("/hello").status) == (b"x" * 15, 200)


def test_an_empty_stream_has_length_0(client: SlowClient) -> None:
    answer = client.get("/stream?n=0")
    assert (answer.headers["content-length"], answer.body) == ("0", b"")


def test_write_and_what_is_returned_come_in_order(client: SlowClient) -> None:
    assert client.get("/write").body == b"written and returned"
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize("size", [65536, 65537, 5_000_000])
def test_a_large_answer_is_whole(client: SlowClient, size: int) -> None:
    assert client.get(f"/big?n={size}").body == b"y" * size


def test_head_gets_the_headers_alone(client: SlowClient) -> None:
    for target in ("/hello", "/stream", "/parts", "/big?n=100000"):
        client.send(request(f"HEAD {target} HTTP/1.1", "Host: x"))
        assert client.answer(to_head=True).status == 200
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize(("code", "length"), [(204, None), (304, "4")])
def test_answers_that_have_no_body_send_none(
    client: SlowClient, code: int, length: str | None
) -> None:
    answer = client.get(f"/status/?code={code}")
    assert (answer.status, answer.headers.get("content-length")) == (code, length)
    assert client.get("/hello").body == b"hello"


def test_an_answer_may_be_changed_before_it_has_begun(client: SlowClient) -> None:
    answer = client.get("/recovers")
    assert (answer.status, answer.body, "x-first" in answer.headers) == (502, b"oops", False)


# -- Who keeps the connection.


def test_a_client_that_asks_for_it_gets_the_end(client: SlowClient) -> None:
    answer = client.get("/hello", "Connection: close")
    assert answer.headers["connection"] == "close" and client.closed()


@pytest.mark.parametrize("how", ["header", "object"])
def test_the_application_may_end_the_connection(client: SlowClient, how: str) -> None:
    answer = client.get(f"/ends?how={how}")
    assert answer.headers["connection"] == "close" and client.closed()


def test_http_1_0_ends_unless_asked_to_stay(client: SlowClient) -> None:
    client.send(request("GET /hello HTTP/1.0", "Connection: keep-alive"))
    assert client.answer().headers["connection"] == "keep-alive"
    client.send(request("GET /hello HTTP/1.0"))
    assert client.answer().headers["connection"] == "close" and client.closed()


def test_a_stream_to_http_1_0_ends_with_the_connection(client: SlowClient) -> None:
    client.send(request("GET /stream HTTP/1.0", "Connection: keep-alive"))
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"x" * 15, True)
    assert "transfer-encoding" not in answer.headers and "content-length" not in answer.headers


def test_pipelined_requests_are_answered_in_order(client: SlowClient, probe: Probe) -> None:
    client.send(
        request("POST /echo HTTP/1.1", "Host: x", "Content-Length: 3", body=b"one")
        + request("GET /sleep?s=0.05 HTTP/1.1", "Host: x")
        + request("POST /echo HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
        + b"3\r\ntwo\r\n0\r\n\r\n"
        + request("GET /hello HTTP/1.1", "Host: x", "Connection: close")
        + request("GET /never HTTP/1.1", "Host: x")
    )

    assert [client.answer().body for _ in range(4)] == [b"one", b"slept", b"two", b"hello"]
    assert client.closed()
    assert "GET /never" not in probe.stats()["journal"]


def test_a_request_in_single_bytes_is_a_request(client: SlowClient) -> None:
    data = request("POST /echo HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
    client.send(data + b"2;ext=1\r\nok\r\n0\r\nTrailer: 1\r\n\r\n", every=0.0005)
    assert client.answer().body == b"ok"
    assert client.get("/hello").status == 200


def test_an_empty_line_before_a_request_is_forgiven(client: SlowClient) -> None:
    client.send(b"\r\n" + request("GET /hello HTTP/1.1", "Host: x"))
    assert client.answer().status == 200
    client.send(b"\r\n")
    assert client.get("/hello").status == 200


# -- Requests that are refused.


def refused(client: SlowClient, data: bytes) -> int:
    client.send(data)
    answer = client.answer()
    assert answer.headers["connection"] == "close" and answer.complete
    assert client.closed()
    return answer.status


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, request("GET / HTTP/1.1")),
        (400, request("GET / HTTP/1.1", "Host: x", "Host: y")),
        (400, request("GET / HTTP/1.1", "Host: x", "A : b")),
        (400, request("GET / HTTP/1.1", "Host: x", "A: b", " c")),
        (400, request("GET / HTTP/1.1", "Host: x", "A: \0")),
        (400, request("GET / HTTP/1.1", "Host: x", "nothing")),
        (400, request("POST / HTTP/1.1", "Host: x", "Content-Length: +1", body=b"a")),
        (400, request("POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 1")),
        (
            400,
            request(
                "POST / HTTP/1.1", "Host: x", "Content-Length: 4", "Transfer-Encoding: chunked",
                body=b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
        ),
        (501, request("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: gzip, chunked")),
        (505, request("GET / HTTP/2.0", "Host: x")),
        (414, b"GET /" + b"a" * 8200),
        (414, request("GET /" + "a" * 8200 + " HTTP/1.1", "Host: x")),
        (431, request("GET / HTTP/1.1", "Host: x", *[f"A{n}: b" for n in range(20)])),
        (431, request("GET / HTTP/1.1", "Host: x", "A: " + "b" * 2000)),
        (431, request("GET / HTTP/1.1", "Host: x", "A: " + "b" * 2000)[:-4]),
        (417, request("POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Expect: fries")),
        (400, b"GET / HTTP/1.1\nHost: x\n\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"GET /simple\r\n"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_and_end_the_connection(
    client: SlowClient, probe: Probe, status: int, data: bytes
) -> None:
    before = sum(probe.stats()["rejected"].values())

    assert refused(client, data) == status

    stats = probe.stats()
    assert stats["journal"] == []
    assert sum(stats["rejected"].values()) == before + 1


def test_a_client_that_goes_on_sending_hears_the_refusal_and_no_reset(client: SlowClient) -> None:
    # A reset can destroy the answer that is on its way.
    data = b"BAD\r\n\r\n" + b"x" * 200_000
    assert client.send(data, every=0.01, piece=20_000) == len(data)
    assert client.answer().status == 400
    assert client.closed()


def test_a_client_that_leaves_within_the_headers_is_forgotten(
    client: SlowClient, probe: Probe
) -> None:
    client.send(b"GET /hello HT")
    client.half_close()
    assert client.closed()
    assert probe.stats()["journal"] == []


# -- The environment.


def test_the_environment_is_what_wsgi_says(client: SlowClient, probe: Probe) -> None:
    environ = json.loads(client.get("/environ/%D0%B6?x=%20", "X-Name: v\xe4").body)

    assert environ["PATH_INFO"] == "/environ/\xd0\xb6"
    assert (environ["QUERY_STRING"], environ["REQUEST_METHOD"]) == ("x=%20", "GET")
    assert (environ["SCRIPT_NAME"], environ["HTTP_X_NAME"]) == ("", "v\xe4")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(probe.address[1]))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert environ["wsgi.version"] == [1, 0] and environ["sepelib.over_limit"] is False
    assert 0.0 < environ["sepelib.received"] <= time.monotonic()


def test_one_request_leaves_nothing_in_the_environment_of_the_next(client: SlowClient) -> None:
    client.get("/environ", "X-Secret: 1", "Content-Length: 0")
    environ = json.loads(client.get("/environ").body)
    assert "HTTP_X_SECRET" not in environ and "CONTENT_LENGTH" not in environ


# -- The page for what no application answers.


@pytest.mark.parametrize("fails", [False, True])
def test_the_page_of_an_error_is_the_hooks_and_plain_when_that_fails(fails: bool) -> None:
    # With gevent's own sockets client and server do meet in one process, patched or not.
    def page(status: int, environ: Any) -> tuple[str, bytes]:
        if fails:
            raise RuntimeError("the page failed")
        return "text/html", f"<h1>{status} {environ.get('PATH_INFO')}</h1>".encode()

    def application(environ: Any, start: Any) -> list[bytes]:
        raise RuntimeError("the application failed")

    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = listener.getsockname()
    answers = []
    with HttpServer(listener, application, error_page=page) as server:
        server.start()
        for data in (request("GET /a HTTP/1.1", "Host: x", "Connection: close"), b"BAD\r\n\r\n"):
            with gevent.socket.create_connection(address) as sock:
                sock.sendall(data)
                with sock.makefile("rb") as file:
                    answers.append(file.read())

    if fails:
        assert answers[0].endswith(b"\r\n\r\n500 Internal Server Error\n")
        assert answers[1].endswith(b"\r\n\r\n400 Bad Request\n")
    else:
        assert answers[0].endswith(b"<h1>500 /a</h1>")
        assert answers[1].endswith(b"<h1>400 None</h1>")


# -- Applications that fail.


@pytest.mark.parametrize("how", ["before", "started", "timeout", "connection", "silent", "str"])
def test_a_failure_before_the_answer_is_a_500_and_the_connection_lives(
    client: SlowClient, how: str
) -> None:
    answer = client.get(f"/fail?how={how}")
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert "x-half" not in answer.headers
    assert client.get("/hello").body == b"hello"


@pytest.mark.parametrize(
    "bad",
    [
        "how=header&value=a%0D%0AX-Injected:%201",
        "how=header&value=a%0Ab",
        "how=header&value=a%00",
        "how=header&value=%E2%82%AC",
        "how=status&value=200",
        "how=status&value=99%20Low",
        "how=status&value=200%20OK%0D%0AX-Injected:%201",
        "how=status&value=100%20Continue",
        "how=number",
        "how=framing",
    ],
)
def test_an_answer_that_breaks_http_is_a_500(client: SlowClient, bad: str) -> None:
    answer = client.get(f"/fail?{bad}")
    expected = 200 if bad == "how=status&value=200" else 500  # no reason is allowed
    assert (answer.status, b"Injected" in answer.head) == (expected, False)


@pytest.mark.parametrize("target", ["/stream?fail=1", "/stream?fail=1&length=100"])
def test_a_failure_within_the_answer_can_be_seen_by_the_client(
    client: SlowClient, probe: Probe, target: str
) -> None:
    answer = client.get(target)
    assert (answer.body, answer.complete) == (b"x" * 15, False)
    assert client.closed()
    assert probe.stats()["journal"].count("closed") == 1


def test_a_failed_answer_without_a_length_is_reset_as_its_end_would_seem_orderly(
    client: SlowClient,
) -> None:
    client.send(request("GET /stream?fail=1 HTTP/1.0"))
    assert client.answer().complete is False


@pytest.mark.parametrize("length", [14, 16])
def test_a_body_that_is_not_as_long_as_it_says_ends_the_connection(
    client: SlowClient, length: int
) -> None:
    client.send(request(f"GET /stream?length={length} HTTP/1.1", "Host: x"))
    answer = client.answer()
    assert len(answer.body) < length
    assert client.closed()


def test_a_failure_in_close_comes_after_a_good_answer(client: SlowClient) -> None:
    assert client.get("/fail?how=close").body == b"ok"
    assert client.get("/hello").body == b"hello"


def test_each_failure_is_logged_once(client: SlowClient, probe: Probe) -> None:
    before = probe.process.log_path.read_text().count("the application failed")
    client.get("/fail?token=topsecret")
    client.get("/stream?fail=1")
    log = probe.process.log_path.read_text()
    assert log.count("the application failed") == before + 2
    assert "topsecret" not in log


def test_the_iterable_is_closed_once_when_all_is_well(client: SlowClient, probe: Probe) -> None:
    client.get("/stream")
    assert probe.stats()["journal"].count("closed") == 1


def test_a_client_that_leaves_within_the_answer_closes_the_iterable_and_is_no_error(
    client: SlowClient, probe: Probe
) -> None:
    before = probe.process.log_path.read_text()
    client.send(request("GET /stream?n=100000&size=10000&every=0.001 HTTP/1.1", "Host: x"))
    client.receive(100)
    client.reset()

    until = time.monotonic() + 10.0
    while (stats := probe.stats())["connections"]["busy"]:
        assert time.monotonic() < until, stats
        time.sleep(0.02)
    assert stats["journal"].count("closed") == 1
    assert probe.process.log_path.read_text() == before
