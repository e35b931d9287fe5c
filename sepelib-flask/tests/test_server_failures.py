"""What a client hears of an application that fails or takes too long, and what the log hears."""

import html
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import flask
import gevent
import pytest
import requests
from werkzeug.exceptions import HTTPException, ImATeapot, MethodNotAllowed

from sepelib.flask.server import RequestTimedOut, Server
from sepelib.flask.testing import NoAnswer, RunningServer, SlowClient
from sepelib.util.deadline import Deadline, DeadlineExceeded, clip

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0


def get(url: str, accept: str | None = None, **options: Any) -> requests.Response:
    return requests.get(url, headers={"Accept": accept}, timeout=LIMIT, **options)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("fails")

    @app.get("/boom")
    def boom() -> str:
        raise RuntimeError("the secret reason")

    @app.get("/obeys")
    def obeys() -> str:
        left = clip(LIMIT)
        assert left is not None
        gevent.sleep(left)
        current = Deadline.current()
        assert current is not None
        current.check()
        return "too late"

    @app.get("/hangs")
    def hangs() -> str:
        gevent.sleep(LIMIT)
        return "too late"

    @app.get("/left")
    def left() -> str:
        current = Deadline.current()
        return "none" if current is None else str(current.remaining())

    return app


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("image/png", "application/problem+json"),
    ],
)
def test_a_failure_is_a_page_of_the_kind_the_client_likes(
    server: Servers, app: flask.Flask, accept: str | None, content_type: str
) -> None:
    answer = get(f"{server(app).url}/boom", accept)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"] in answer.text
    for inner in ("secret reason", "Traceback", "RuntimeError", "test_server"):
        assert inner not in answer.text


def test_the_problem_has_the_members_of_rfc_9457(server: Servers, app: flask.Flask) -> None:
    answer = get(f"{server(app).url}/boom")

    problem = answer.json()
    assert problem == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "The server failed. The error has been logged.",
        "instance": "/boom",
        "code": "internal_server_error",
        "request_id": answer.headers["X-Request-Id"],
    }


def test_a_failure_is_logged_once(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    get(f"{server(app).url}/boom")

    assert len(errors(caplog)) == 1
    assert "the secret reason" in caplog.text


def test_an_application_with_pages_of_its_own_keeps_them(server: Servers, app: flask.Flask) -> None:
    @app.errorhandler(500)
    def page(error: Exception) -> tuple[str, int]:
        return "our own page", 500

    assert get(f"{server(app).url}/boom").text == "our own page"


def test_a_blueprint_with_a_page_for_all_keeps_it(server: Servers) -> None:
    app, part = flask.Flask("whole"), flask.Blueprint("part", "part")

    @part.errorhandler(HTTPException)
    def page(error: HTTPException) -> tuple[str, int]:
        return "the part's page", 500

    @part.get("/boom")
    def boom() -> str:
        raise RuntimeError

    app.register_blueprint(part)

    assert get(f"{server(app).url}/boom").text == "the part's page"


def test_an_application_that_answers_500_itself_is_left_alone(server: Servers) -> None:
    app = flask.Flask("says so")

    @app.get("/")
    def index() -> tuple[str, int]:
        return "it is my own fault", 500

    assert get(server(app).url).text == "it is my own fault"


def test_an_exception_that_flask_lets_through_is_logged_once_with_a_page(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True

    answer = get(f"{server(app).url}/boom")

    assert answer.status_code == 500
    (message,) = errors(caplog)
    assert answer.json()["request_id"] in message
    assert "'/boom'" in message


# -- Too late.


def test_the_handler_finds_its_deadline(server: Servers, app: flask.Flask) -> None:
    left = float(get(f"{server(app, request_timeout=50.0).url}/left").text)
    assert 20.0 < left <= 50.0
    assert get(f"{server(app, request_timeout=None).url}/left").text == "none"


def test_by_default_a_request_has_a_minute(server: Servers, app: flask.Flask) -> None:
    assert 30.0 < float(get(f"{server(app).url}/left").text) <= 60.0


def test_no_time_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        Server(request_timeout=0)


def test_a_deadline_does_not_reach_the_next_request_of_the_connection(
    server: Servers, app: flask.Flask
) -> None:
    with SlowClient(server(app, request_timeout=0.5).address) as client:
        first = float(client.get("/left").body)
        gevent.sleep(0.2)
        second = float(client.get("/left").body)

    assert second > first - 0.1


def test_a_handler_that_obeys_its_deadline_makes_a_503(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    answer = get(f"{server(app, request_timeout=0.2).url}/obeys")

    assert answer.status_code == 503
    assert answer.json()["detail"] == "The answer was not ready in time."
    assert len(errors(caplog)) == 1


def test_a_handler_that_ignores_its_deadline_is_struck_and_makes_a_503(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down: list[BaseException | None] = []
    app.teardown_request(torn_down.append)

    start = time.monotonic()
    answer = get(f"{server(app, request_timeout=0.2).url}/hangs")

    assert answer.status_code == 503
    assert time.monotonic() - start < LIMIT / 2
    assert isinstance(torn_down[0], RequestTimedOut)
    (message,) = errors(caplog)
    assert answer.json()["request_id"] in message
    assert "in hangs" in caplog.text  # where it waited


def test_who_catches_exceptions_does_not_catch_the_end_of_its_time(
    server: Servers, app: flask.Flask
) -> None:
    @app.get("/catches")
    def catches() -> str:
        while True:
            try:
                gevent.sleep(LIMIT)
            except Exception:
                continue

    assert get(f"{server(app, request_timeout=0.1).url}/catches").status_code == 503


def test_a_late_plain_application_is_a_503_too(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        raise DeadlineExceeded("the database did not answer")

    assert get(server(app).url).status_code == 503
    (message,) = errors(caplog)
    assert "DeadlineExceeded: the database did not answer" in message


def test_a_stream_has_its_time_for_each_part(server: Servers) -> None:
    app = flask.Flask("stream")

    @app.get("/")
    def index() -> Iterator[str]:
        def parts() -> Iterator[str]:
            for n in range(8):
                gevent.sleep(0.1)  # 0.8 s in all
                yield str(n)

        return parts()

    assert get(server(app, request_timeout=0.5).url).text == "01234567"


def test_a_stream_that_stands_still_is_cut_off(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    app = flask.Flask("stream")

    @app.get("/")
    def index() -> Iterator[str]:
        def parts() -> Iterator[str]:
            yield "begun"
            gevent.sleep(LIMIT)

        return parts()

    with SlowClient(server(app, request_timeout=0.2).address) as client:
        answer = client.get("/", "X-Request-Id: find-me")

    assert (answer.status, answer.body, answer.complete) == (200, b"begun", False)
    assert len(errors(caplog)) == 1
    assert "request find-me" in caplog.text


def test_a_stream_that_fails_before_its_first_part_has_a_page(server: Servers) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        raise RuntimeError("at once")
        yield b"never"

    answer = get(server(app).url)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_stream_that_fails_in_the_middle_is_visibly_cut_and_logged_once(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        yield b"half"
        raise RuntimeError("in the middle")

    with SlowClient(server(app).address) as client:
        answer = client.get("/")

    assert (answer.body, answer.complete) == (b"half", False)
    assert len(errors(caplog)) == 1


def test_empty_parts_end_nothing(server: Servers) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        yield from (b"", b"one ", b"", b"two", b"")

    assert get(server(app).url).text == "one two"


def test_the_application_s_iterable_is_closed_once_however_it_ends(server: Servers) -> None:
    closed: list[str] = []

    class Parts:
        def __init__(self, name: str) -> None:
            self.name = name

        def __iter__(self) -> Iterator[bytes]:
            if self.name == "/first":
                raise RuntimeError
            yield b"part"
            if self.name == "/middle":
                raise RuntimeError

        def close(self) -> None:
            closed.append(self.name)

    def app(environ: Any, start: Any) -> Parts:
        start("200 OK", [("Content-Type", "text/plain")])
        return Parts(environ["PATH_INFO"])

    running = server(app)
    for path in ("/well", "/first", "/middle"):
        with SlowClient(running.address) as client:
            client.get(path)
    running.close()

    assert closed == ["/well", "/first", "/middle"]


def test_write_of_pep_3333_works(server: Servers) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        write = start("200 OK", [("Content-Type", "text/plain")])
        write(b"written, ")
        return [b"returned"]

    assert get(server(app).url).text == "written, returned"


# -- What werkzeug raises in an application that is no Flask.


def test_an_http_exception_of_a_plain_application_is_what_it_says(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/method":
            raise MethodNotAllowed(["GET", "PUT"])
        if environ["PATH_INFO"] == "/own":
            raise HTTPException(response=flask.Response("mine", 418, {"X-Own": "1"}))
        raise ImATeapot("short <and> stout")

    url = server(app).url

    page = get(f"{url}/", "text/html")
    assert (page.status_code, page.text.count("<and>")) == (418, 0)
    assert html.escape("short <and> stout") in page.text
    assert get(f"{url}/method").headers["Allow"] == "GET, PUT"
    own = get(f"{url}/own")
    assert (own.status_code, own.text, own.headers["X-Own"]) == (418, "mine", "1")
    assert errors(caplog) == []


def test_a_body_beyond_the_limit_is_a_413_in_both_kinds_of_applications(server: Servers) -> None:
    from sepelib.flask.server import Limits

    flask_app = flask.Flask("reads")

    @flask_app.post("/")
    def index() -> str:
        return str(len(flask.request.get_data()))

    def plain(environ: Any, start: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        raise AssertionError("it was read")

    for app in (flask_app, plain):
        url = server(app, limits=Limits(max_body_bytes=10)).url
        answer = requests.post(url, data=b"x" * 11, timeout=LIMIT)
        assert answer.status_code == 413


def test_what_is_not_http_has_a_page_of_ours_too(server: Servers) -> None:
    with SlowClient(server().address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        answer = client.answer()

    assert answer.status == 400
    assert json.loads(answer.body)["status"] == 400


def test_a_killed_request_is_not_swallowed(server: Servers, app: flask.Flask) -> None:
    ended: list[type[BaseException]] = []
    began: list[bool] = []

    @app.get("/notes")
    def notes() -> str:
        began.append(True)
        try:
            gevent.sleep(LIMIT)
        except BaseException as error:
            ended.append(type(error))
            raise
        return ""

    running = server(app, stop_timeout=0.1)
    with SlowClient(running.address) as client:
        client.send(b"GET /notes HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: began)
        running.close()
        try:
            status = client.answer().status
        except NoAnswer:
            status = 503

    assert status == 503
    assert ended == [gevent.GreenletExit]


def test_an_iterable_whose_first_part_is_never_made_is_closed_when_the_request_is_killed(
    server: Servers,
) -> None:
    began: list[bool] = []
    closed: list[bool] = []

    class Waits:
        def __iter__(self) -> Iterator[bytes]:
            began.append(True)
            gevent.sleep(LIMIT)
            yield b"late"

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start: Any) -> Waits:
        start("200 OK", [])
        return Waits()

    running = server(app, stop_timeout=0.1)
    with SlowClient(running.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: began)
        running.close()

    assert closed == [True]


def test_a_stream_whose_first_part_is_late_is_a_503(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        gevent.sleep(LIMIT)
        yield b"late"

    assert get(server(app, request_timeout=0.1).url).status_code == 503
    assert len(errors(caplog)) == 1


def test_a_stream_may_keep_the_context_of_its_request(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    # What it has bound when it began has to be there, and may be taken back, when it ends.
    app = flask.Flask("stream")

    @app.get("/<length>")
    def index(length: str) -> flask.Response:
        def parts() -> Iterator[str]:
            yield f"{flask.request.args['a']} "
            yield f"{flask.request.args['b']}"

        headers = {"Content-Length": length} if length != "any" else {}
        return flask.Response(flask.stream_with_context(parts()), headers=headers)

    url = server(app).url
    for length in ("any", "3"):
        assert get(f"{url}/{length}?a=1&b=2").text == "1 2"
    assert errors(caplog) == []
