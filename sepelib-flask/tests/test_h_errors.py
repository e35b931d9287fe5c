"""Every error in one form, told to the client without the inside, logged once with its id."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, got_request_exception
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable, ServiceUnavailable
from werkzeug.exceptions import NotFound as NoSuchPage

import sepelib.flask.h.errors
import sepelib.flask.h.streaming
from sepelib.core.exceptions import Error, LogicalError
from sepelib.flask import h
from sepelib.flask.h.errors import ApiError, NotFound, TooManyRequests, Unauthorized, Unavailable
from sepelib.util import request_id
from sepelib.util.deadline import DeadlineExceeded
from sepelib.util.secrets import Secret
from sepelib.util.testing import check_errors

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
LOGGER = "sepelib.flask.h.errors"


class BackendDown(Error):
    """The backend is down."""


class HostDown(BackendDown):
    """One host of it."""


class Unmapped(Error):
    """Nobody has thought of this one."""


def application() -> Flask:
    app = Flask("test")
    h.errors.register(
        app,
        table={
            BackendDown: 502,
            FileNotFoundError: lambda e: NotFound("no such file", file=e.filename),
        },
    )
    return app


def raising(error: BaseException, app: Flask | None = None) -> Flask:
    app = app or application()

    @app.get("/x")
    def fail() -> str:
        raise error

    return app


def answer(app: Flask, path: str = "/x", **options: Any) -> Any:
    return app.test_client().get(path, **options)


def document(response: Any) -> dict[str, Any]:
    assert response.mimetype == "application/problem+json"
    found: dict[str, Any] = response.get_json(force=True)
    assert found["status"] == response.status_code and found["type"] == "about:blank"
    return found


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_every_error_pickles_and_is_one_line() -> None:
    check_errors(
        sepelib.flask.h.errors,
        sepelib.flask.h.streaming,
        examples=[
            ApiError(409, "taken", "the name is taken", name="x"),
            NotFound("no job", code="no_job", job=7),
            Unauthorized(challenge='OAuth realm="x"'),
            TooManyRequests(retry_after=1.5, limit=3),
            Unavailable("soon", retry_after=2),
            h.StreamBroken(104, "GET / broke off after 3 items"),
        ],
    )


def test_an_api_error_is_its_own_answer_in_any_application() -> None:
    app = raising(ApiError(409, "taken", "the name is taken", name="x", at={1, 2}), Flask("plain"))

    response = answer(app)

    assert response.status_code == 409 and response.headers["Cache-Control"] == "no-store"
    assert document(response) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "the name is taken",
        "instance": "/x",
        "code": "taken",
        "name": "x",
        "at": [1, 2],
    }


def test_a_handler_of_the_application_sees_an_api_error_as_an_http_exception() -> None:
    app = raising(NotFound(), Flask("plain"))
    app.register_error_handler(HTTPException, lambda e: (f"mine: {e.error_code}", e.code))

    assert (answer(app).text, answer(app).status_code) == ("mine: not_found", 404)


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (Unauthorized(challenge='OAuth realm="x"'), 401, ("WWW-Authenticate", 'OAuth realm="x"')),
        (TooManyRequests(retry_after=1.2), 429, ("Retry-After", "2")),
        (Unavailable(retry_after=0), 503, ("Retry-After", "0")),
        (ServiceUnavailable(retry_after=7), 503, ("Retry-After", "7")),
        (RequestedRangeNotSatisfiable(length=5), 416, ("Content-Range", "bytes */5")),
    ],
)
def test_headers_of_an_error_are_kept(
    error: Exception, status: int, header: tuple[str, str]
) -> None:
    response = answer(raising(error))
    assert response.status_code == status and header in list(response.headers)
    assert document(response)["status"] == status


def test_errors_of_the_routing_have_the_same_form() -> None:
    app = raising(NotFound())
    missing, method = answer(app, "/nothing"), app.test_client().post("/x")
    assert document(missing)["code"] == "not_found"
    assert document(method)["code"] == "method_not_allowed"
    assert set(method.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_a_browser_gets_a_page_in_which_everything_is_escaped() -> None:
    evil = "<script>alert('1')</script>"
    with request_id.using("id-1"):
        response = answer(raising(NotFound(evil, x=evil)), "/x", headers=BROWSER)

    assert response.mimetype == "text/html" and "Accept" in response.headers["Vary"]
    assert "<script" not in response.text and "&lt;script&gt;" in response.text
    assert "id-1" in response.text and "404 Not Found" in response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_a_page_lists_the_mistakes() -> None:
    app = application()
    app.add_url_rule("/args", view_func=lambda: h.args.only("limit"))
    text = answer(app, "/args?limt=1&%3Cb%3E=2", headers=BROWSER).text
    assert "<code>limt</code>" in text and "<b>" not in text


def test_a_page_takes_whatever_an_author_puts_into_the_list() -> None:
    mistakes = [{"path": 7, "message": None}, "odd", {"path": "x"}]
    text = answer(raising(NotFound("x", errors=mistakes)), headers=BROWSER).text
    assert "<code>7</code> None" in text


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/problem+json, text/html", False),
        ("text/html", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json;q=0.5", True),
        ("image/png", False),
        ("garbage;;q=x,,", False),
    ],
)
def test_accept_chooses(accept: str, html: bool) -> None:
    response = answer(raising(NotFound()), headers={"Accept": accept})
    assert (response.mimetype == "text/html") is html


def test_the_request_id_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with request_id.using("id-1"):
        response = answer(raising(ValueError("hunter2")))

    assert document(response)["request_id"] == "id-1"
    (record,) = records(caplog)
    assert "GET /x" in record.getMessage() and "id-1" in record.getMessage()


@pytest.mark.parametrize(
    "error", [ValueError("hunter2"), LogicalError("hunter2"), Unmapped("hunter2"), KeyError("x")]
)
def test_what_nobody_expected_is_500_that_tells_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    for headers in ({}, BROWSER):
        caplog.clear()
        response = answer(raising(error), headers=headers)
        assert response.status_code == 500
        assert "hunter2" not in response.text and "Traceback" not in response.text
        (record,) = records(caplog)
        assert record.levelno == logging.ERROR and record.name == LOGGER
        assert record.exc_info is not None and record.exc_info[1] is error


def test_the_signal_of_flask_is_sent_as_ever() -> None:
    app, seen = raising(ValueError()), []
    with got_request_exception.connected_to(lambda _, exception: seen.append(exception), app):
        answer(app)
    assert len(seen) == 1


@pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_in_debug_mode_and_tests_the_unexpected_is_raised(
    setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    unexpected, expected = raising(ZeroDivisionError("x")), raising(NotFound())
    unexpected.config[setting] = expected.config[setting] = True
    with pytest.raises(ZeroDivisionError):
        answer(unexpected)
    assert answer(expected).status_code == 404
    assert records(caplog) == []


@pytest.mark.parametrize("error", [BackendDown("db1.internal hunter2"), HostDown("db1.internal")])
def test_the_table_gives_a_status_and_the_words_stay_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    response = answer(raising(error))

    assert document(response)["code"] == "bad_gateway" and "db1" not in response.text
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING and record.exc_info is None
    assert "db1.internal" in record.getMessage() and "502" in record.getMessage()


def test_the_table_may_hold_a_function(caplog: pytest.LogCaptureFixture) -> None:
    told = document(answer(raising(FileNotFoundError(2, "no", "a.txt"))))
    assert (told["status"], told["detail"], told["file"]) == (404, "no such file", "a.txt")
    assert records(caplog) == []


def test_a_deadline_is_503(caplog: pytest.LogCaptureFixture) -> None:
    assert document(answer(raising(DeadlineExceeded("over"))))["status"] == 503
    assert [record.levelno for record in records(caplog)] == [logging.WARNING]


def test_the_table_may_answer_a_deadline_otherwise() -> None:
    app = Flask("test")
    h.errors.register(app, table={DeadlineExceeded: 504})
    assert answer(raising(DeadlineExceeded("over"), app)).status_code == 504


def test_each_5xx_is_logged_once_and_no_4xx(caplog: pytest.LogCaptureFixture) -> None:
    for error, times in ((Unavailable("x"), 1), (NotFound("x"), 0), (ServiceUnavailable(), 1)):
        caplog.clear()
        answer(raising(error))
        assert len(records(caplog)) == times


def test_a_line_of_the_log_cannot_be_broken_by_a_path(caplog: pytest.LogCaptureFixture) -> None:
    app = application()

    @app.before_request
    def fail() -> None:
        raise BackendDown("x")

    answer(app, "/a%0Ab?token=hunter2")
    (record,) = records(caplog)
    assert "\n" not in record.getMessage() and "hunter2" not in record.getMessage()


def test_an_error_after_the_view_has_the_same_form(caplog: pytest.LogCaptureFixture) -> None:
    app = application()
    app.add_url_rule("/x", view_func=lambda: "fine")

    @app.after_request
    def fail(response: Response) -> Response:
        raise ValueError("hunter2")

    response = answer(app)

    assert response.status_code == 500 and "hunter2" not in response.text
    assert document(response)["code"] == "internal_server_error"
    assert "GET /x failed" in caplog.text


class SeeOther(HTTPException):
    code = 303


def raise_(error: Exception) -> str:
    raise error


def test_answers_and_redirects_raised_as_exceptions_pass() -> None:
    app = application()
    app.add_url_rule("/ready", "a", view_func=lambda: abort(Response("as it is", 418)))
    app.add_url_rule(
        "/page", "p", view_func=lambda: raise_(NoSuchPage(response=Response("it", 404)))
    )
    app.add_url_rule("/other", "o", view_func=lambda: raise_(SeeOther()))
    app.add_url_rule("/slash/", "b", view_func=lambda: "x")
    app.add_url_rule("/same", "c", view_func=lambda: h.not_modified_if('"a"') or "new")

    assert answer(app, "/ready").text == "as it is"
    assert answer(app, "/page").text == "it"
    other = answer(app, "/other")
    assert (other.status_code, other.mimetype) == (303, "text/html")
    assert answer(app, "/slash").status_code == 308
    not_modified = answer(app, "/same", headers={"If-None-Match": '"a"'})
    assert (not_modified.status_code, not_modified.headers["ETag"]) == (304, '"a"')


def test_handlers_of_a_blueprint_and_of_one_status_stay() -> None:
    app = application()
    app.register_error_handler(404, lambda e: ("my 404", 404))
    blue = Blueprint("blue", __name__, url_prefix="/blue")
    blue.add_url_rule("/x", view_func=lambda: abort(400))
    blue.register_error_handler(HTTPException, lambda e: ("blue", 400))
    app.register_blueprint(blue)

    assert answer(app, "/nothing").text == "my 404" and answer(app, "/blue/x").text == "blue"


def test_a_logger_of_a_subclass_stays() -> None:
    logged = []

    class Mine(Flask):
        def log_exception(self, exc_info: Any) -> None:
            logged.append(exc_info[1])

    app = Mine("mine")
    h.errors.register(app)
    answer(raising(ValueError(), app))
    assert len(logged) == 1


def test_secrets_and_what_is_no_json_do_no_harm_in_details() -> None:
    told = document(answer(raising(NotFound("x", password=Secret("hunter2"), y=object()))))
    assert told["password"] == "***" and told["y"].startswith("<object")
    told = document(answer(raising(NotFound("see http://a/?token=hunter2"))))
    assert told["detail"] == "see http://a/?token=***"


def test_an_error_has_the_status_of_one_and_own_names_for_details() -> None:
    for status in (200, 304, 600):
        with pytest.raises(ValueError, match="400 to 599"):
            ApiError(status, "x", "y")
    with pytest.raises(TypeError, match="request_id"):
        NotFound("x", request_id="y")
    with pytest.raises(ValueError, match="retry_after"):
        TooManyRequests(retry_after=float("nan"))


def test_it_is_no_answer_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError, match="no"):
        NotFound().get_response()


def test_head_has_the_headers_only() -> None:
    response = raising(NotFound()).test_client().head("/x")
    assert (response.status_code, response.data) == (404, b"")
    assert response.mimetype == "application/problem+json"


def test_the_path_of_the_document_is_a_uri() -> None:
    app = application()
    assert document(answer(app, "/%D1%8F b"))["instance"] == "/%D1%8F%20b"
