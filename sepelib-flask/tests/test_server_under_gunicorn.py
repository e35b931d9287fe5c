"""`Server.wsgi_app` under gunicorn: the built-in handlers, ids, limits in time, metrics."""

import os
import sys
from collections.abc import Iterator

import pytest
import requests

from sepelib.util.testing import ServerProcess

LIMIT = 20.0

SERVICE = """
import flask, time, json
from sepelib.flask.server import Server
from sepelib.util import request_id
from sepelib.util.testing import MemoryRecorder

app = flask.Flask("service")
recorder = MemoryRecorder()

@app.get("/id")
def show_id():
    return request_id.current()

@app.get("/stream")
def stream():
    def parts():
        for n in range(3):
            yield f"{n} {request_id.current()} "
    return parts()

@app.get("/boom")
def boom():
    raise RuntimeError("boom")

@app.get("/late")
def late():
    from sepelib.util.deadline import Deadline
    while True:
        time.sleep(0.05)
        Deadline.current().check()

@app.get("/counted")
def counted():
    series = recorder.series("http_server_requests")
    return {" ".join(k): v for k, v in series.items()}

class Exporter:
    def dump(self, fmt):
        return f"as {fmt}".encode(), "text/plain"

server = Server(app, version="1.2.3", recorder=recorder, metrics=Exporter(), request_timeout=0.5)
server.add_check("well", lambda: None)
server.add_check("slow", lambda: time.sleep(0.01))
application = server.wsgi_app
"""


@pytest.fixture(scope="module", params=["gevent", "sync"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    def command(process: ServerProcess) -> list[str]:
        (process.folder / "service.py").write_text(SERVICE)
        bind = f"127.0.0.1:{process.port}"
        return [sys.executable, "-m", "gunicorn", "-k", request.param, "-b", bind,
                "--no-control-socket", "service:application"]  # fmt: skip

    def ready(process: ServerProcess) -> bool:
        return get(process, "/ping").status_code == 200

    env = os.environ | {"HOME": "/nonexistent"}
    with ServerProcess(command, ready=ready, name=f"gunicorn-{request.param}", env=env) as process:
        yield process


def get(process: ServerProcess, path: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(f"http://127.0.0.1:{process.port}{path}", headers=named, timeout=LIMIT)


def test_the_built_in_handlers_answer(gunicorn: ServerProcess) -> None:
    assert get(gunicorn, "/ping").text == "pong"
    checks = get(gunicorn, "/ping?verbose=1").json()["checks"]
    assert [checks[name]["ok"] for name in ("well", "slow")] == [True, True]
    assert get(gunicorn, "/version").text.startswith("version: 1.2.3\n")
    assert get(gunicorn, "/metrics?fmt=json").text == "as json"
    assert get(gunicorn, "/yasm_stats").text == "as yasm"
    assert "page.js" in get(gunicorn, "/metrics", Accept="text/html").text
    assert requests.head(f"http://127.0.0.1:{gunicorn.port}/ping", timeout=LIMIT).text == ""


def test_ids_reach_the_handler_and_each_part_of_a_stream(gunicorn: ServerProcess) -> None:
    answer = get(gunicorn, "/id", X_Request_Id="mine")
    assert answer.text == answer.headers["X-Request-Id"] == "mine"
    assert get(gunicorn, "/stream", X_Request_Id="mine").text == "0 mine 1 mine 2 mine "
    assert get(gunicorn, "/id").text != "mine"


def test_failures_and_late_requests_have_their_pages(gunicorn: ServerProcess) -> None:
    boom = get(gunicorn, "/boom", X_Request_Id="find-me")
    assert (boom.status_code, boom.json()["request_id"]) == (500, "find-me")
    assert "request find-me" in gunicorn.log_tail(200)
    assert get(gunicorn, "/late").status_code == 503


def test_requests_are_counted_by_rule(gunicorn: ServerProcess) -> None:
    before = get(gunicorn, "/counted").json().get("/id GET 200", 0)
    get(gunicorn, "/id")
    assert get(gunicorn, "/counted").json()["/id GET 200"] == before + 1
