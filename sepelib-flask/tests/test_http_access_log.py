"""The access log: one line a request, whatever clients put into it."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import gevent
import pytest

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.testing import SlowClient
from sepelib.flask.testing._probe import Probe

TIME = r"\[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe() as probe:
        probe.open(access_log="combined", limits={"header_timeout": 0.3})
        yield probe


def line_after(probe: Probe, before: int) -> str:
    until = time.monotonic() + 10.0
    while len(lines := probe.log_lines()) <= before:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert len(lines) == before + 1
    return lines[-1]


def logged(probe: Probe, data: bytes, *, leave: bool = False) -> str:
    before = len(probe.log_lines())
    with SlowClient(probe.address) as client:
        client.send(data)
        if leave:
            client.receive(100)
            client.reset()
        else:
            client.answer()
    return line_after(probe, before)


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def test_a_request_is_one_line(probe: Probe) -> None:
    line = logged(probe, get("/hello?a=b", "User-Agent: curl/8", "Referer: http://a/b"))
    expected = (
        r'127\.0\.0\.1 - - %s "GET /hello\?a=b HTTP/1\.1" 200 5 "http://a/b" "curl/8" 0\.0\d+ -'
    )
    assert re.fullmatch(expected % TIME, line)


def test_the_line_comes_after_the_last_byte(probe: Probe) -> None:
    line = logged(probe, get("/stream?n=3&every=0.1"))
    assert '" 200 15 "' in line and float(line.split()[-2]) > 0.2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"BAD\r\n\r\n", '"- - -" 400 '),
        (b"GET /x HTTP/1.1\r\n\r\n", '"GET /x HTTP/1.1" 400 '),
        (b"GET /x HTTP/1.1\r\nHost:", '"- - -" 408 '),
        (get("/fail"), '"GET /fail HTTP/1.1" 500 '),
        (get("/stream?fail=1"), '"GET /stream?fail=1 HTTP/1.1" 200 15 '),
    ],
)
def test_refused_and_failed_requests_are_lines_too(
    probe: Probe, data: bytes, expected: str
) -> None:
    assert expected in logged(probe, data)


def test_a_client_that_left_is_a_499(probe: Probe) -> None:
    data = get("/stream?n=100000&size=10000&every=0.001")
    assert " 499 " in logged(probe, data, leave=True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (get("/hello?token=s3cret&a=b"), '"GET /hello?token=***&a=b HTTP/1.1"'),
        (get("/hello", "Referer: http://u:pw@h/?key=s3cret"), '"http://u:***@h/?key=***"'),
        (get("http://u.x/?sig=s3cret"), '"GET http://u.x/?sig=*** HTTP/1.1"'),
        (get("/hello", 'User-Agent: a" 200 5 "b\\'), r'"a\x22 200 5 \x22b\x5c"'),
        (get("/hello", "User-Agent: \xd0\x85\x9b"), r'"\xd0\x85\x9b"'),
        (get("/hello", "User-Agent: a\tb"), r'"a\x09b"'),
        (get('/"x"'), r'"GET /\x22x\x22 HTTP/1.1"'),
        (get("/hello", f"User-Agent: {'a' * 1000}"), f'"{"a" * 256}"'),
        (get(f"/{'a' * 3000}"), f'"GET /{"a" * 2047} HTTP/1.1"'),
    ],
)
def test_what_clients_send_is_redacted_escaped_and_cut(
    probe: Probe, data: bytes, expected: str
) -> None:
    line = logged(probe, data)
    assert expected in line
    assert "s3cret" not in line and "pw@" not in line


# -- Without a server.

ENVIRON: dict[str, Any] = {
    "REMOTE_ADDR": "10.0.0.1",
    "REMOTE_USER": "bob",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/a?token=b",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_USER_AGENT": "a\nb\u2028",
    "sepelib.request_id": "id-1",
}


def written(format: Literal["combined", "json"], environ: dict[str, Any], *numbers: Any) -> str:
    stream = io.StringIO()
    log = AccessLog(format, stream=stream)
    log.write(environ, *numbers)
    log.flush()
    return stream.getvalue()


def test_json_is_an_object_a_line() -> None:
    line = written("json", ENVIRON, 200, 5, 0.0123456)

    assert line.endswith("\n") and line.count("\n") == 1 and line.isascii()
    found = json.loads(line)
    assert re.fullmatch(TIME[2:-2], found.pop("time"))
    assert found == {
        "peer": "10.0.0.1",
        "login": "bob",
        "method": "GET",
        "target": "/a?token=***",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "seconds": 0.012346,
        "referer": None,
        "agent": "a\nb\u2028",
        "id": "id-1",
    }


def test_login_and_request_id_have_their_places() -> None:
    line = written("combined", {**ENVIRON, "REMOTE_USER": "a b"}, 499, 0, 1.0)
    assert line.startswith("10.0.0.1 - a b [") and line.endswith("1.000000 id-1\n")


def test_nothing_is_formatted_for_nobody() -> None:
    class Untouchable(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise AssertionError("formatted")

    logger = logging.Logger("quiet", logging.WARNING)
    log = AccessLog(logger=logger)

    log.write(Untouchable(), 200, 5, 0.1)
    log.flush()

    assert not log.enabled


def test_a_logger_gets_a_record_a_line() -> None:
    records: list[logging.LogRecord] = []
    logger = logging.Logger("access", logging.INFO)
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    logger.addHandler(handler)

    log = AccessLog(logger=logger)
    for target in ("/100%d", "/2"):
        log.write({**ENVIRON, "REQUEST_URI": target}, 200, 5, 0.1)
    assert not records
    gevent.sleep(0)  # the next turn of the hub

    assert [record.levelname for record in records] == ["INFO", "INFO"]
    assert '"GET /100%d HTTP/1.1" 200 5' in records[0].getMessage()
    log.flush()
    assert len(records) == 2


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="combined or json"):
        AccessLog("common")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not to both"):
        AccessLog(logger=logging.getLogger("x"), stream=io.StringIO())
