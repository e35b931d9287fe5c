"""Request ids: taken from who has a good one, else made; in answers, logs and outgoing calls."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
import requests

from sepelib.flask.testing import RunningServer, SlowClient
from sepelib.util import request_id

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("ids")

    @app.get("/")
    def index() -> str:
        return request_id.current() or "none"

    @app.get("/stream")
    def stream() -> Iterator[str]:
        def parts() -> Iterator[str]:
            for _ in range(3):
                yield f"{request_id.current()} "

        return parts()

    @app.get("/boom")
    def boom() -> str:
        raise RuntimeError("boom")

    return app


def get(url: str, name: str | None = None, **options: Any) -> requests.Response:
    headers = {} if name is None else {"X-Request-Id": name}
    return requests.get(url, headers=headers, timeout=LIMIT, **options)


def test_a_good_id_is_used_and_sent_back(server: Servers, app: flask.Flask) -> None:
    url = server(app).url

    for name in ("a", "a.B_9:c-d", "x" * 64):
        answer = get(url, name)
        assert answer.headers["X-Request-Id"] == answer.text == name


@pytest.mark.parametrize("bad", ["", "a b", "a;b", "x" * 65, "ä".encode().decode("latin-1"), "<i>"])
def test_another_id_is_replaced(server: Servers, app: flask.Flask, bad: str) -> None:
    answer = get(server(app).url, bad)

    assert re.fullmatch("[0-9a-f]{32}", answer.text)
    assert answer.headers["X-Request-Id"] == answer.text


def test_an_id_with_a_line_in_it_never_gets_here(server: Servers, app: flask.Flask) -> None:
    with SlowClient(server(app).address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\n evil: 1\r\n\r\n")
        answer = client.answer()

    assert answer.status == 400
    assert b"evil" not in answer.head + answer.body


def test_two_requests_of_one_connection_have_two_ids(server: Servers, app: flask.Flask) -> None:
    with SlowClient(server(app).address) as client:
        first, second = client.get("/").body, client.get("/").body

    assert first != second
    assert len(first) == len(second) == 32


def test_a_stream_has_its_id_in_each_part(server: Servers, app: flask.Flask) -> None:
    assert get(f"{server(app).url}/stream", "mine").text == "mine mine mine "


def test_built_in_answers_have_one_too(server: Servers) -> None:
    assert get(f"{server().url}/ping", "mine").headers["X-Request-Id"] == "mine"
    assert get(f"{server().url}/nothing", "mine").json()["request_id"] == "mine"


def test_an_application_may_name_it_itself(server: Servers) -> None:
    app = flask.Flask("own")

    @app.get("/")
    def index() -> tuple[str, dict[str, str]]:
        return "", {"X-Request-Id": "of-the-application"}

    answer = get(server(app).url, "mine")

    assert answer.headers["X-Request-Id"] == "of-the-application"


def test_the_log_of_a_failure_has_the_id(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    answer = get(f"{server(app).url}/boom", "find-me")

    assert answer.status_code == 500
    assert answer.json()["request_id"] == "find-me"
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "request find-me" in caplog.text
    assert record.exc_info is not None


def test_the_access_log_has_the_id(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sepelib.flask.access")
    running = server(app)
    get(running.url, "find-me")
    running.close()

    (line,) = [r.getMessage() for r in caplog.records if r.name == "sepelib.flask.access"]
    assert line.endswith(" find-me")


def test_the_filter_puts_it_into_records(server: Servers, app: flask.Flask) -> None:
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.getMessage()} {vars(record)['request_id']}")

    logger = logging.getLogger("test_server_request_id")
    handler = Handler()
    handler.addFilter(request_id.add_to_record)
    logger.addHandler(handler)

    @app.get("/logs")
    def logs() -> str:
        logger.warning("working")
        return ""

    try:
        get(f"{server(app).url}/logs", "find-me")
        logger.warning("idle")
    finally:
        logger.removeHandler(handler)

    assert seen == ["working find-me", "idle -"]
