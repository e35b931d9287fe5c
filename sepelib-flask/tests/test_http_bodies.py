"""The bodies of requests: lengths, chunks, limits, and what nobody reads."""

import json
import time
from collections.abc import Iterator

import pytest

from sepelib.flask.testing import SlowClient
from sepelib.flask.testing._probe import Probe

MAX = 100_000


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe() as probe:
        probe.open(limits={"max_body_bytes": MAX, "body_timeout": 0.3, "min_rate": 1e6})
        yield probe


@pytest.fixture
def client(probe: Probe) -> Iterator[SlowClient]:
    probe.tell("forget")
    with SlowClient(probe.address) as client:
        yield client


def post(target: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def sized(target: str, body: bytes, *headers: str) -> bytes:
    return post(target, f"Content-Length: {len(body)}", *headers, body=body)


def chunked(target: str, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post(target, "Transfer-Encoding: chunked", body=wire + end)


def rejected(probe: Probe, reason: str) -> float:
    count: float = probe.stats()["rejected"].get(reason, 0.0)
    return count


BODY = b"one\ntwo\n\nlast without an end"


@pytest.mark.parametrize("kind", ["sized", "chunked", "bytewise"])
def test_the_application_reads_as_it_likes(client: SlowClient, kind: str) -> None:
    def asked(target: str) -> list[str]:
        if kind == "sized":
            client.send(sized(target, BODY))
        elif kind == "chunked":
            client.send(chunked(target, BODY[:5], BODY[5:]))
        else:
            client.send(chunked(target, *[BODY[n : n + 1] for n in range(len(BODY))]))
        found: list[str] = json.loads(client.answer().body)
        return found

    text = BODY.decode()
    assert asked("/lines") == text.splitlines(keepends=True)
    assert asked("/lines?size=3")[:4] == ["one", "\n", "two", "\n"]
    assert asked("/pieces?size=10") == [text[:10], text[10:20], text[20:]]
    assert "".join(asked("/pieces?size=1")) == text


def test_an_empty_body_ends_at_once(client: SlowClient) -> None:
    client.send(sized("/echo", b"") + chunked("/echo") + post("/echo"))
    assert [client.answer().body for _ in range(3)] == [b"", b"", b""]


def test_a_body_of_the_limit_passes_and_one_byte_more_does_not(probe: Probe) -> None:
    for make in (sized, chunked):
        with SlowClient(probe.address) as client:
            client.send(make("/flask/upload", b"x" * MAX))
            assert client.answer().body == b"%d bytes" % MAX
            client.send(make("/flask/upload", b"x" * (MAX + 1)))
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert client.closed()


@pytest.mark.parametrize("target", ["/echo", "/flask/upload", "/flask/form"])
def test_too_much_is_a_413_with_and_without_flask(
    client: SlowClient, probe: Probe, target: str
) -> None:
    before = rejected(probe, "body_too_large")
    form = "Content-Type: application/x-www-form-urlencoded"
    client.send(post(target, f"Content-Length: {MAX * 10}", form))
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert rejected(probe, "body_too_large") == before + 1


@pytest.mark.parametrize("target", ["/echo", "/flask/upload"])
def test_a_body_that_stalls_is_a_408(client: SlowClient, probe: Probe, target: str) -> None:
    before = rejected(probe, "body_timeout")
    client.send(post(target, "Content-Length: 100", body=b"half"))
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert client.closed()
    assert rejected(probe, "body_timeout") == before + 1


def test_a_body_that_drips_runs_out_of_time(client: SlowClient) -> None:
    # Each byte comes within body_timeout; all of them together would take 5 s.
    client.send(post("/echo", "Content-Length: 100"))
    start = time.monotonic()
    client.send(b"x" * 100, every=0.05)
    assert client.answer().status == 408
    assert time.monotonic() - start < 4.9


def test_the_time_the_application_takes_is_not_the_clients(client: SlowClient) -> None:
    client.send(post("/echo", "Content-Length: 8", body=b"half"))
    time.sleep(0.1)
    client.send(b"half")
    assert client.answer().body == b"halfhalf"


def test_a_client_that_leaves_within_the_body_is_told_if_it_listens(
    client: SlowClient, probe: Probe
) -> None:
    before = rejected(probe, "body_cut")
    client.send(post("/flask/upload", "Content-Length: 100", body=b"half"))
    client.half_close()
    assert client.answer().status == 400
    assert rejected(probe, "body_cut") == before + 1


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\n0\n\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"z\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"e" * 300 + b"\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5" * 1000,
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        b"5\r\nhello\r\n0\r\nna me: x\r\n\r\n",
        b"5\r\nhello\r\n0\r\nname: \x00\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"5\r\nhello\r\n0\r\na: " + b"b" * 40000 + b"\r\n\r\n",
        (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 200 + b"0\r\n\r\n",
    ],
)
def test_odd_chunks_are_a_400_and_end_the_connection(
    client: SlowClient, probe: Probe, wire: bytes
) -> None:
    before = rejected(probe, "body_malformed")
    client.send(post("/flask/upload", "Transfer-Encoding: chunked", body=wire))
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.closed()
    assert rejected(probe, "body_malformed") == before + 1


def test_proper_extensions_and_trailers_pass_unseen(client: SlowClient) -> None:
    end = b'0;last="x"\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n'
    client.send(post("/echo", "Transfer-Encoding: chunked", body=b"00A;e=1\r\n" + b"x" * 10))
    client.send(b"\r\n" + end)
    assert client.answer().body == b"x" * 10
    assert client.get("/hello").status == 200


def test_a_broken_body_stays_broken(client: SlowClient, probe: Probe) -> None:
    # Flask reads again when a view asks twice; a second read must not find the rest.
    client.send(chunked("/some?n=3", b"abc", end=b"z\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert client.answer().body == b"abc"
    assert client.closed()
    assert "GET /smuggled" not in probe.stats()["journal"]


# -- Bodies that nobody reads.


def test_a_little_that_was_not_read_is_no_request(client: SlowClient, probe: Probe) -> None:
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(sized("/hello", hidden) + sized("/some?n=4", hidden))
    assert [client.answer().body for _ in range(2)] == [b"hello", b"GET "]
    assert client.get("/hello").body == b"hello"
    assert probe.stats()["journal"] == ["POST /hello", "POST /some", "GET /hello"]


def test_much_that_was_not_read_ends_the_connection(client: SlowClient, probe: Probe) -> None:
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 2500
    client.send(sized("/hello", hidden))
    answer = client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
    assert client.closed()
    assert probe.stats()["journal"] == ["POST /hello"]


def test_a_client_that_goes_on_sending_what_nobody_reads_gets_no_reset(
    client: SlowClient,
) -> None:
    data = post("/hello", "Content-Length: 200000", body=b"x" * 200_000)
    assert client.send(data, every=0.01, piece=20_000) == len(data)
    assert client.answer().body == b"hello"
    assert client.closed()


def test_chunks_that_were_not_read_end_the_connection(client: SlowClient, probe: Probe) -> None:
    client.send(chunked("/hello", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert client.answer().headers["connection"] == "close"
    assert client.closed()
    assert probe.stats()["journal"] == ["POST /hello"]


def test_what_was_not_read_and_does_not_come_ends_the_connection(client: SlowClient) -> None:
    client.send(post("/hello", "Content-Length: 100", body=b"half"))
    assert client.answer().body == b"hello"
    assert client.closed()


# -- Expect: 100-continue.

EXPECT = "Expect: 100-continue"


def test_the_client_may_go_on_when_the_application_reads(client: SlowClient) -> None:
    client.send(post("/echo", "Content-Length: 5", EXPECT))
    assert client.answer().status == 100
    client.send(b"hello")
    assert client.answer().body == b"hello"
    assert client.get("/hello").status == 200


def test_who_does_not_wait_is_not_told(client: SlowClient) -> None:
    client.send(sized("/echo", b"hello", EXPECT))
    assert client.answer().body == b"hello"


def test_nobody_may_go_on_when_the_body_is_not_wanted(client: SlowClient) -> None:
    client.send(post("/hello", "Content-Length: 5", EXPECT))
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.closed()


def test_nobody_may_go_on_with_too_much(client: SlowClient) -> None:
    client.send(post("/echo", f"Content-Length: {MAX + 1}", EXPECT))
    assert client.answer().status == 413


def test_chunks_can_be_expected_too(client: SlowClient) -> None:
    client.send(post("/echo", "Transfer-Encoding: chunked", EXPECT))
    assert client.answer().status == 100
    client.send(b"2\r\nok\r\n0\r\n\r\n")
    assert client.answer().body == b"ok"
