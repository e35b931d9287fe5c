"""/ping and /version: is it well, and what is it?"""

import json
import platform
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import gevent
import gevent.event
import pytest
import requests
from werkzeug.test import Client

from sepelib.flask.server import AdminOptions, Server
from sepelib.flask.testing import RunningServer, SlowClient

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=LIMIT, **options)


def test_ping_answers_pong_without_an_application(server: Servers) -> None:
    answer = get(f"{server().url}/ping")

    assert (answer.status_code, answer.text) == (200, "pong")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


def test_ping_answers_when_every_hook_of_the_application_fails(server: Servers) -> None:
    app = flask.Flask("broken")

    @app.before_request
    def fails() -> None:
        raise RuntimeError("a hook fails")

    url = server(app).url

    assert get(f"{url}/anything").status_code == 500
    assert get(f"{url}/ping").text == "pong"
    assert get(f"{url}/version").status_code == 200


def test_ping_by_head_has_the_length_and_no_body(server: Servers) -> None:
    with SlowClient(server().address) as client:
        client.send(b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.answer(to_head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "4")
        assert client.get("/ping").body == b"pong"  # nothing was left between the two


def test_ping_by_head_has_no_body_for_any_wsgi_server() -> None:
    # Some send whatever they are given.
    answer = Client(Server().wsgi_app).head("/ping")

    assert list(answer.response) == [b""]
    assert answer.headers["Content-Length"] == "4"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_refused_with_those_allowed(server: Servers, method: str) -> None:
    answer = requests.request(method, f"{server().url}/ping", timeout=LIMIT)

    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_failing_critical_check_is_named_with_503(server: Servers) -> None:
    running = server()
    running.server.add_check("database", lambda: 1 / 0)
    running.server.add_check("cache", lambda: False, critical=False)
    running.server.add_check("disk", lambda: None)

    answer = get(f"{running.url}/ping")

    assert (answer.status_code, answer.text) == (503, "failing: database\n")
    assert get(f"{running.url}/ping?live=1").text == "pong"


def test_checks_that_are_not_critical_leave_ping_well(server: Servers) -> None:
    running = server()
    running.server.add_check("cache", lambda: False, critical=False)

    assert get(f"{running.url}/ping").text == "pong"
    report = get(f"{running.url}/ping?verbose=1").json()
    assert report["status"] == "ok"
    assert report["checks"]["cache"]["ok"] is False
    assert report["checks"]["cache"]["critical"] is False


def test_the_report_tells_each_check_with_its_problem(server: Servers) -> None:
    running = server()
    running.server.add_check("disk", lambda: True)

    def fails() -> None:
        raise OSError("no route to db7")

    running.server.add_check("database", fails)

    answer = get(f"{running.url}/ping?verbose=1")

    report = answer.json()
    assert (answer.status_code, report["status"]) == (503, "failing")
    assert list(report["checks"]) == ["disk", "database"]
    assert report["checks"]["disk"]["problem"] is None
    assert report["checks"]["database"]["problem"] == "OSError: no route to db7"
    assert set(report["checks"]["disk"]) == {"ok", "critical", "seconds", "age", "problem"}


def test_strangers_are_not_told_what_is_wrong(server: Servers) -> None:
    running = server(admin=AdminOptions(networks=["192.0.2.0/24"]))
    running.server.add_check("database", lambda: 1 / 0)

    report = get(f"{running.url}/ping?verbose=1").json()

    assert report["checks"]["database"]["ok"] is False
    assert "problem" not in report["checks"]["database"]


def test_checks_run_in_parallel(server: Servers) -> None:
    running = server()
    met = gevent.event.Event()
    seen: list[str] = []

    def waits(name: str) -> Callable[[], bool]:
        def check() -> bool:
            # Each waits for the other: one after the other, neither could pass.
            seen.append(name)
            if len(seen) == 2:
                met.set()
            return met.wait(LIMIT)

        return check

    for name in ("one", "two"):
        running.server.add_check(name, waits(name), timeout=LIMIT)

    assert get(f"{running.url}/ping").text == "pong"


def test_a_hanging_check_is_timed_out_and_not_started_again_while_it_hangs(
    server: Servers,
) -> None:
    running = server()
    starts: list[float] = []
    hold = gevent.event.Event()

    def stubborn() -> None:
        starts.append(time.monotonic())
        while not hold.is_set():
            try:
                hold.wait(LIMIT)
            except gevent.Timeout:  # the mistake that this is about
                continue

    running.server.add_check("stubborn", stubborn, timeout=0.1, cache=0.0)
    try:
        before = time.monotonic()
        answers = [get(f"{running.url}/ping") for _ in range(5)]
        assert time.monotonic() - before < LIMIT / 2
        assert {a.status_code for a in answers} == {503}
        problem = get(f"{running.url}/ping?verbose=1").json()["checks"]["stubborn"]["problem"]
        assert problem.startswith("no answer for ")
        assert len(starts) == 1
    finally:
        hold.set()


def test_a_check_that_waits_is_interrupted_by_its_timeout(server: Servers) -> None:
    running = server()
    running.server.add_check("slow", lambda: gevent.sleep(LIMIT), timeout=0.1)

    checks = get(f"{running.url}/ping?verbose=1").json()["checks"]

    assert checks["slow"]["problem"] == "timed out after 0.1 s"
    assert checks["slow"]["seconds"] < LIMIT / 2


def test_a_check_finds_its_timeout_as_its_deadline(server: Servers) -> None:
    from sepelib.util.deadline import Deadline

    running = server()
    left: list[float] = []

    def asks() -> None:
        current = Deadline.current()
        assert current is not None
        left.append(current.remaining())

    running.server.add_check("asks", asks, timeout=5.0)

    assert get(f"{running.url}/ping").text == "pong"
    assert 0 < left[0] <= 5.0


def test_many_who_ask_at_once_share_one_run(server: Servers) -> None:
    running = server()
    runs: list[int] = []

    def check() -> None:
        runs.append(1)
        gevent.sleep(0.2)

    running.server.add_check("shared", check, timeout=LIMIT, cache=LIMIT)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(get(f"{running.url}/ping").text))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert answers == ["pong"] * 8
    assert len(runs) == 1


@pytest.mark.parametrize(("cache", "runs_expected"), [(LIMIT, 1), (0.0, 3)])
def test_a_verdict_holds_for_its_time(server: Servers, cache: float, runs_expected: int) -> None:
    running = server()
    runs: list[int] = []
    running.server.add_check("counted", lambda: runs.append(1), cache=cache)

    for _ in range(3):
        assert get(f"{running.url}/ping").text == "pong"

    assert len(runs) == runs_expected


def test_a_check_is_well_again_once_it_is(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sepelib.flask")
    running = server()
    wells = iter([False, False, True])
    running.server.add_check("moody", lambda: next(wells), cache=0.0)

    answers = [get(f"{running.url}/ping").status_code for _ in range(3)]

    assert answers == [503, 503, 200]
    told = [r.getMessage() for r in caplog.records if "moody" in r.getMessage()]
    assert told == ["check moody: returned False", "check moody: well again"]


def test_two_checks_of_one_name_are_refused(server: Servers) -> None:
    running = server()
    running.server.add_check("db", lambda: None)
    with pytest.raises(ValueError, match="'db' already"):
        running.server.add_check("db", lambda: None)
    with pytest.raises(ValueError, match="more than 0"):
        running.server.add_check("never", lambda: None, timeout=0)


def test_version_is_told_as_text_and_as_json(server: Servers) -> None:
    url = server(version="1.2.3", commit="abc").url

    text = get(f"{url}/version")
    by_header = get(f"{url}/version", headers={"Accept": "application/json"})
    by_argument = get(f"{url}/version?fmt=json")

    about = by_header.json()
    assert by_argument.json() == about
    assert text.text == "".join(f"{name}: {value}\n" for name, value in about.items())
    assert (about["version"], about["commit"]) == ("1.2.3", "abc")
    assert about["python"] == platform.python_version()
    started = datetime.fromisoformat(about["started_at"])
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(seconds=60)


def test_a_service_without_a_version_says_when_it_began(server: Servers) -> None:
    assert set(get(f"{server().url}/version?fmt=json").json()) == {"started_at", "python"}


def test_without_an_application_the_rest_is_not_there(server: Servers) -> None:
    answer = get(f"{server().url}/nothing")

    assert answer.status_code == 404
    assert "/ping" in json.loads(answer.text)["detail"]
