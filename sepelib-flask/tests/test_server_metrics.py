"""What the server counts of its requests, and what it shows of the metrics it was given."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import flask
import gevent
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.flask.server import Exporter, Limits
from sepelib.flask.server._negotiation import best
from sepelib.flask.testing import NoAnswer, RunningServer, SlowClient
from sepelib.util.testing import MemoryRecorder

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Metrics:
    """Says what it is asked for."""

    def dump(self, fmt: str) -> tuple[bytes, str]:
        return f"as {fmt}".encode(), f"application/x-{fmt}"


class Broken:
    def dump(self, fmt: str) -> tuple[bytes, str]:
        raise RuntimeError("no metrics today")


EXPORTER: Exporter = Metrics()


def get(url: str, accept: str | None = None, **options: Any) -> requests.Response:
    return requests.get(url, headers={"Accept": accept}, timeout=LIMIT, **options)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        gevent.sleep(0.01)


# -- What it shows.


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
@pytest.mark.parametrize("fmt", ["prometheus", "openmetrics", "json", "yaml", "yasm"])
def test_a_format_that_is_asked_for_is_given(server: Servers, path: str, fmt: str) -> None:
    answer = get(f"{server(metrics=EXPORTER).url}{path}?fmt={fmt}", BROWSER)

    assert answer.text == f"as {fmt}"
    assert answer.headers["Content-Type"] == f"application/x-{fmt}"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("accept", "fmt"),
    [
        (None, "prometheus"),
        ("*/*", "prometheus"),
        ("text/plain", "prometheus"),
        ("text/*", "prometheus"),
        (PROMETHEUS, "openmetrics"),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", "prometheus"),
        ("application/openmetrics-text", "openmetrics"),
        ("application/json", "json"),
        ("application/json;q=0.1, */*;q=0", "json"),
        ("application/yaml", "yaml"),
        ("APPLICATION/JSON", "json"),
        ("image/png", "prometheus"),
        ("text/plain;q=0, application/json;q=0.1", "json"),
        (";;,,=;q=", "prometheus"),
        ("text/html;q=nan, application/json;q=1e9", "prometheus"),
    ],
)
def test_without_a_format_the_accept_header_decides(
    server: Servers, accept: str | None, fmt: str
) -> None:
    answer = get(f"{server(metrics=EXPORTER).url}/metrics", accept)

    assert answer.text == f"as {fmt}"
    assert answer.headers["Vary"] == "Accept"


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_no_accept_header_breaks_the_choice(accept: str) -> None:
    offers = ("text/plain", "text/html")
    assert best(accept, offers) in (*offers, None)


def test_an_unknown_format_is_told_which_there_are(server: Servers) -> None:
    answer = get(f"{server(metrics=EXPORTER).url}/metrics?fmt=xml")

    assert answer.status_code == 400
    detail = answer.json()["detail"]
    assert detail == "fmt is one of prometheus, openmetrics, json, yaml, yasm, html."


@pytest.mark.parametrize("path", ["/metrics", "/metrics?fmt=html", "/yasm_stats", "/unistat"])
def test_a_service_without_metrics_says_so(server: Servers, path: str) -> None:
    answer = get(f"{server().url}{path}", BROWSER)

    assert answer.status_code == 404
    assert "exports no metrics" in answer.text


@pytest.mark.parametrize("path", ["/yasm_stats", "/unistat"])
def test_yasm_stats_are_the_format_yasm(server: Servers, path: str) -> None:
    assert get(f"{server(metrics=EXPORTER).url}{path}", BROWSER).text == "as yasm"


def test_metrics_that_fail_are_a_500_with_one_log_record(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    answer = get(f"{server(metrics=Broken()).url}/metrics")

    assert answer.status_code == 500
    assert "no metrics today" not in answer.text
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert answer.json()["request_id"] in record.getMessage()


# -- What it counts.


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("counted")

    @app.get("/users/<name>")
    def user(name: str) -> str:
        return name

    @app.get("/boom")
    def boom() -> str:
        raise RuntimeError("boom")

    @app.get("/hang")
    def hang() -> str:
        gevent.sleep(LIMIT)
        return ""

    @app.post("/upload")
    def upload() -> str:
        return str(len(flask.request.get_data()))

    @app.get("/endless")
    def endless() -> Iterator[str]:
        def parts() -> Iterator[str]:
            while True:
                yield "x" * 1000
                gevent.sleep(0.001)

        return parts()

    @app.get("/breaks")
    def breaks() -> Iterator[str]:
        def parts() -> Iterator[str]:
            yield "begun "
            raise RuntimeError("in the middle")

        return parts()

    return app


def requests_of(recorder: MemoryRecorder) -> dict[tuple[str, ...], float]:
    return recorder.series("http_server_requests")


def test_requests_are_counted_by_rule_and_not_by_path(server: Servers, app: flask.Flask) -> None:
    recorder = MemoryRecorder()
    running = server(app, recorder=recorder)
    for name in ("a", "b", "c"):
        get(f"{running.url}/users/{name}")
    get(f"{running.url}/x1")
    get(f"{running.url}/x2")
    get(f"{running.url}/ping")
    requests.request("BREW", f"{running.url}/users/a", timeout=LIMIT)
    requests.request("KILN", f"{running.url}/users/a", timeout=LIMIT)
    running.close()

    assert requests_of(recorder) == {
        ("/users/<name>", "GET", "200"): 3,
        ("unmatched", "GET", "404"): 2,
        ("/ping", "GET", "200"): 1,
        ("unmatched", "OTHER", "405"): 2,
    }
    assert len(recorder.observations("http_server_seconds", "/users/<name>")) == 3
    assert recorder.value("http_server_in_flight") == 0


def test_failures_and_timeouts_are_counted_under_their_rule(
    server: Servers, app: flask.Flask
) -> None:
    recorder = MemoryRecorder()
    running = server(app, recorder=recorder, request_timeout=0.1)
    assert get(f"{running.url}/boom").status_code == 500
    assert get(f"{running.url}/hang").status_code == 503
    running.close()

    assert requests_of(recorder) == {("/boom", "GET", "500"): 1, ("/hang", "GET", "503"): 1}
    assert recorder.value("http_server_in_flight") == 0


def test_a_stream_is_in_flight_until_its_client_goes_away(
    server: Servers, app: flask.Flask
) -> None:
    recorder = MemoryRecorder()
    running = server(app, recorder=recorder)
    with SlowClient(running.address) as client:
        client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.receive(100)
        assert recorder.value("http_server_in_flight") == 1
        assert requests_of(recorder) == {}
        client.reset()

    until(lambda: recorder.value("http_server_in_flight") == 0)
    assert requests_of(recorder) == {("/endless", "GET", "200"): 1}
    assert recorder.observations("http_server_seconds", "/endless")[0] > 0


def test_every_fault_leaves_nothing_in_flight(server: Servers, app: flask.Flask) -> None:
    recorder = MemoryRecorder()
    limits = Limits(body_timeout=0.2, max_body_bytes=1000)
    running = server(app, recorder=recorder, limits=limits, stop_timeout=0.2)

    def faulty(data: bytes, *, reset: bool = False) -> None:
        with SlowClient(running.address) as client:
            client.send(data)
            if reset:
                client.reset()
            else:
                with suppress(NoAnswer):
                    client.answer()

    faulty(b"GET /breaks HTTP/1.1\r\nHost: x\r\n\r\n")
    faulty(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    faulty(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n")
    faulty(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", reset=True)
    faulty(b"GET /users/x HTTP/1.1\r\nHost: x\r\n\r\n", reset=True)
    faulty(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    with SlowClient(running.address) as client:
        client.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: recorder.value("http_server_in_flight") == 1)
        running.close()  # which kills it

    assert recorder.value("http_server_in_flight") == 0
    counted = requests_of(recorder)
    assert counted["/breaks", "GET", "200"] == 1
    assert counted["/hang", "GET", "cancelled"] == 1
    assert counted["/upload", "POST", "413"] == 1
    assert counted["/upload", "POST", "408"] == 1
    assert sum(counted.values()) == 7


def test_ping_is_answered_when_all_connections_are_busy(server: Servers, app: flask.Flask) -> None:
    recorder = MemoryRecorder()
    limits = Limits(max_connections=2, reserve=4)
    running = server(app, recorder=recorder, limits=limits, stop_timeout=0.1)
    with SlowClient(running.address) as one, SlowClient(running.address) as two:
        for client in (one, two):
            client.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: recorder.value("http_server_in_flight") == 2)

        with SlowClient(running.address) as third:
            assert third.get("/ping").body == b"pong"
        with SlowClient(running.address) as third:
            answer = third.get("/users/x")
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["retry-after"] == "1"
            assert third.closed()

    assert recorder.value("http_server_rejected", "connections") == 1
    assert ("/users/<name>", "GET", "200") not in requests_of(recorder)


def test_a_plain_wsgi_application_is_counted_as_a_whole(server: Servers) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        start("201 Created", [("Content-Length", "2")])
        return [b"ok"]

    recorder = MemoryRecorder()
    running = server(app, recorder=recorder)
    answers = [get(f"{running.url}/{n}") for n in range(3)]
    running.close()

    assert [a.text for a in answers] == ["ok"] * 3
    assert requests_of(recorder) == {("unmatched", "GET", "201"): 3}


def test_many_at_once_are_counted_exactly(server: Servers, app: flask.Flask) -> None:
    recorder = MemoryRecorder()
    running = server(app, recorder=recorder)

    def ask() -> None:
        with requests.Session() as session:
            for n in range(20):
                session.get(f"{running.url}/users/{n}", timeout=LIMIT)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    running.close()

    assert requests_of(recorder) == {("/users/<name>", "GET", "200"): 200}
    assert recorder.value("http_server_in_flight") == 0
