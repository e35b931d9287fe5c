"""Views whose answers, and whose errors, are JSON."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest
from flask import Flask, Response

from sepelib.flask import h
from sepelib.flask.h.errors import NotFound

BROWSER = {"Accept": "text/html"}


@dataclass
class Options:
    dry: bool = False


@dataclass
class NewJob:
    name: str


@dataclass
class Unreadable:
    raw: bytes


@dataclass
class Early:
    later: Later | None = None  # noqa: F821


def answer(returned: Any) -> Any:
    app = Flask("test")
    app.testing = True

    @app.get("/x")
    @h.json_api
    def view() -> Any:
        return returned

    return app.test_client().get("/x")


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], [], {}, "text", 5, True, NewJob("x")])
def test_whatever_a_view_returns_is_json(value: Any) -> None:
    response = answer(value)
    assert response.mimetype == "application/json"
    assert response.get_json() == ({"name": "x"} if isinstance(value, NewJob) else value)


def test_status_and_headers_stand_beside_it() -> None:
    assert answer(([1], 202)).status_code == 202
    assert answer(([1], {"X-A": "b"})).headers["X-A"] == "b"
    both = answer(([1], 201, {"X-A": "b"}))
    assert (both.status_code, both.headers["X-A"], both.get_json()) == (201, "b", [1])
    assert answer((h.no_content(), {"X-A": "b"})).status_code == 204


def test_a_response_passes() -> None:
    assert answer(Response("plain", mimetype="text/plain")).text == "plain"


@pytest.mark.parametrize("wrong", [None, (None, 200), (), (1, 2, 3), (1, {}, 2), (1, "x")])
def test_what_says_nothing_is_a_mistake_of_the_view(wrong: Any) -> None:
    with pytest.raises(TypeError, match="json_api"):
        answer(wrong)


def test_arguments_and_body_are_read_before_the_view_runs() -> None:
    app, ran = Flask("test"), []

    @app.post("/jobs/<int:number>")
    @h.json_api(args=Options, body=NewJob, max_body=100)
    def create(number: int, args: Options, body: NewJob) -> tuple[Any, int]:
        ran.append(number)
        return {"number": number, "dry": args.dry, "name": body.name}, 201

    client = app.test_client()
    response = client.post("/jobs/7?dry=1", json={"name": "x"})
    assert response.status_code == 201
    assert response.get_json() == {"number": 7, "dry": True, "name": "x"}
    assert client.post("/jobs/7?dri=1", json={"name": "x"}).status_code == 400
    assert client.post("/jobs/7", json={}).status_code == 400
    assert client.post("/jobs/7", json={"name": "x" * 100}).status_code == 413
    assert ran == [7]


def test_a_type_that_cannot_be_read_is_told_where_the_decorator_stands() -> None:
    for options in ({"body": Unreadable}, {"args": Unreadable}, {"args": int}):
        with pytest.raises(TypeError):
            h.json_api(**options)(lambda **_: None)


def test_a_class_that_is_defined_later_is_looked_up_at_the_first_request() -> None:
    app = Flask("test")

    @app.post("/x")
    @h.json_api(body=Early)
    def view(body: Early) -> Any:
        return body

    globals()["Later"] = NewJob
    try:
        sent = {"later": {"name": "x"}}
        assert app.test_client().post("/x", json=sent).get_json() == sent
    finally:
        del globals()["Later"]


def test_errors_are_json_whatever_is_accepted() -> None:
    app = Flask("test")
    h.errors.register(app)

    @app.get("/x/<int:kind>")
    @h.json_api
    def view(kind: int) -> Any:
        raise (NotFound(), ValueError())[kind]

    for kind, status in ((0, 404), (1, 500)):
        response = app.test_client().get(f"/x/{kind}", headers=BROWSER)
        assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert app.test_client().get("/other", headers=BROWSER).mimetype == "text/html"


def test_errors_of_hooks_before_the_view_are_json_too() -> None:
    app = Flask("test")
    app.before_request(lambda: h.args.only())
    app.add_url_rule("/x", view_func=h.json_api(lambda: {}))
    response = app.test_client().get("/x?a=1", headers=BROWSER)
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")


def test_other_decorators_above_it_do_not_change_that() -> None:
    app = Flask("test")

    def decorated(view: Any) -> Any:
        @wraps(view)
        def outer() -> Any:
            h.args.only()
            return view()

        return outer

    app.add_url_rule("/x", "x", decorated(h.json_api(lambda: {})))
    response = app.test_client().get("/x?a=1", headers=BROWSER)
    assert response.mimetype == "application/problem+json"


def test_the_name_and_the_words_of_the_view_stay() -> None:
    @h.json_api(args=Options)
    def view(args: Options) -> None:
        """Words."""

    assert (view.__name__, view.__doc__) == ("view", "Words.")


def test_the_helpers_work_where_gevent_is_not_loaded() -> None:
    code = "import sys; from sepelib.flask import h; sys.exit('gevent' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
