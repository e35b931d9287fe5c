"""Faults of the fakes, as a bare client sees them, without a socket and over HTTP."""

import base64
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import urllib3
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError

from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.yandex.base import ApiClient
from sepelib.yandex.errors import YandexError
from sepelib.yandex.testing import FakeRequest, FakeService, Refusal, Reply, route

LIMIT = 20.0  # seconds; far more than anything here takes


@dataclass
class CounterState:
    count: int = 0


class FakeCounter(FakeService[CounterState]):
    service = "counter"

    def new_state(self) -> CounterState:
        return CounterState()

    @route("POST", "/count", op="count.add", auth=False, query=None)
    def _add(self, request: FakeRequest) -> object:
        self.state.count += 1
        return Reply(201, json={"count": self.state.count}, headers={"X-Version": "7"})

    @route("GET", "/count", op="count.get", auth=False, query=None)
    def _get(self, request: FakeRequest) -> object:
        return {"count": self.state.count}

    @route("GET", "/issue", op="issue", auth=False)
    def _issue(self, request: FakeRequest) -> object:
        if request.headers.get("X-Bad"):
            raise Refusal(400, "code_of_the_error", "no")
        return {"key": "TEST-123", "access_token": "issued-token", "author": "somebody"}


class Caller:
    def __init__(self, fake: FakeCounter) -> None:
        self.fake = fake
        self.session = fake.session()

    def __call__(self, method: str = "GET", path: str = "/count", **options: Any) -> Any:
        options.setdefault("timeout", LIMIT)
        return self.session.request(method, self.fake.url + path, **options)


@pytest.fixture(params=["inprocess", "live"])
def call(request: pytest.FixtureRequest) -> Iterator[Caller]:
    fake = FakeCounter()
    with contextlib.ExitStack() as stack:
        if request.param == "live":
            stack.enter_context(fake.serve())
        caller = Caller(fake)
        stack.callback(caller.session.close)
        yield caller


def test_next_strikes_so_many_times_and_nothing_is_applied(call: Caller) -> None:
    call.fake.faults.next(status=503, headers={"Retry-After": "1"}, times=2)
    assert call.fake.faults.pending == 2

    first, second, third = (call("POST") for _ in range(3))

    assert (first.status_code, first.headers["Retry-After"]) == (503, "1")
    assert first.json()["error"] == "fault"
    assert second.status_code == 503 and third.status_code == 201
    assert call.fake.state.count == 1 and call.fake.faults.pending == 0
    assert [made.applied for made in call.fake.calls] == [False, False, True]


def test_next_is_for_an_operation_or_a_pattern_of_them(call: Caller) -> None:
    call.fake.faults.next("count.a*", status=500)
    call.fake.faults.next("count.get", status=502)

    assert [call().status_code, call().status_code] == [502, 200]
    assert [call("POST").status_code, call("POST").status_code] == [500, 201]


def test_a_status_may_come_after_the_change(call: Caller) -> None:
    call.fake.faults.next(status=504, apply=True, body="gateway", headers={"X-G": "1"})

    answer = call("POST")

    assert (answer.status_code, answer.text, answer.headers["X-G"]) == (504, "gateway", "1")
    assert call.fake.state.count == 1


def test_a_body_replaces_the_proper_one_and_the_change_is_done(call: Caller) -> None:
    call.fake.faults.on("count.add", body=b"<html>")

    answer = call("POST")

    assert (answer.status_code, answer.text, answer.headers["X-Version"]) == (201, "<html>", "7")
    assert call.fake.state.count == 1 and call().json() == {"count": 1}


def test_a_reply_can_be_played(call: Caller) -> None:
    call.fake.faults.play(Reply(202, json=[1], headers={"X-A": "b"}), "count.add")

    assert call().json() == {"count": 0}
    answer = call("POST")
    assert (answer.status_code, answer.json(), answer.headers["X-A"]) == (202, [1], "b")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert call.fake.state.count == 0


@pytest.mark.parametrize(("reset", "count"), [("before-apply", 0), ("after-apply", 1)])
def test_a_reset_is_a_connection_error_before_or_after_the_change(
    call: Caller, reset: Any, count: int
) -> None:
    call()  # there is a connection that is kept

    call.fake.faults.next("count.add", reset=reset)
    with pytest.raises(requests.ConnectionError) as caught:
        call("POST")

    cause = caught.value.args[0]
    assert isinstance(cause, ProtocolError)
    assert isinstance(cause.args[1], ConnectionResetError)
    assert call.fake.state.count == count
    assert call.fake.calls[-1].status is None and call.fake.calls[-1].applied is bool(count)
    assert call().json() == {"count": count}


def test_over_http_a_reset_is_a_reset_and_no_end() -> None:
    fake = FakeCounter()
    fake.faults.next(reset="before-apply")
    with fake.serve():
        assert fake.server is not None
        with socket.create_connection(fake.server.address, LIMIT) as connection:
            connection.sendall(b"GET /count HTTP/1.1\r\nHost: h\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)


def test_a_delay_beyond_the_read_timeout_is_a_read_timeout_at_that_time(call: Caller) -> None:
    call.fake.faults.next(delay=LIMIT)

    begun = time.monotonic()
    with pytest.raises(requests.ReadTimeout) as caught:
        call("POST", timeout=(LIMIT, 0.1))
    took = time.monotonic() - begun

    assert 0.1 <= took < LIMIT / 4
    assert isinstance(caught.value.args[0], ReadTimeoutError)
    assert call.fake.state.count == 1
    assert call().json() == {"count": 1}


def test_a_short_delay_is_only_late(call: Caller) -> None:
    call.fake.faults.on("*", delay=0.03)
    call.fake.faults.next(delay=0.03)

    begun = time.monotonic()
    assert call().ok
    assert time.monotonic() - begun >= 0.06


def test_a_delayed_reset_is_both(call: Caller) -> None:
    call.fake.faults.next(delay=0.05, reset="after-apply")

    begun = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        call("POST")
    assert time.monotonic() - begun >= 0.05 and call.fake.state.count == 1


def test_a_delay_holds_up_nobody_else_and_ends_with_the_server() -> None:
    fake = FakeCounter()
    fake.faults.next(delay=LIMIT)
    failed: list[Exception] = []

    def wait() -> None:
        try:
            Caller(fake)()
        except requests.RequestException as e:
            failed.append(e)

    begun = time.monotonic()
    with fake.serve():
        assert fake.server is not None
        late = threading.Thread(target=wait)
        late.start()
        fake.server.wait_for(lambda: len(fake.calls) == 1)
        assert Caller(fake)().ok
    late.join(LIMIT)
    assert time.monotonic() - begun < LIMIT / 2 and len(failed) == 1


@pytest.mark.parametrize(
    "timeout", [0.5, (9.0, 0.5), urllib3.Timeout(read=0.5), urllib3.Timeout(total=0.5)]
)
def test_in_process_a_delay_takes_the_sleep_of_the_session(timeout: Any) -> None:
    fake = FakeCounter()
    slept: list[float] = []
    session = fake.session(sleep=slept.append)
    fake.faults.next(delay=0.25)
    fake.faults.next(delay=3600.0)

    assert session.get(fake.url + "/count", timeout=timeout).ok
    with pytest.raises(requests.ReadTimeout):
        session.get(fake.url + "/count", timeout=timeout)

    assert slept == [0.25, 0.5]


def test_in_process_without_a_timeout_a_delay_is_slept_whole() -> None:
    fake = FakeCounter()
    slept: list[float] = []
    fake.faults.next(delay=3600.0)

    assert fake.session(sleep=slept.append).get(fake.url + "/count").ok
    assert slept == [3600.0]


def test_a_drip_brings_the_body_byte_by_byte(call: Caller) -> None:
    call.fake.faults.on("*", drip=0.01)

    begun = time.monotonic()
    with call(stream=True) as answer:
        first = answer.raw.read(1)
        rest = answer.raw.read()
    assert first + rest == b'{"count": 0}'
    assert time.monotonic() - begun >= 0.12


def test_a_drip_is_slower_than_no_read_timeout_over_http() -> None:
    fake = FakeCounter()
    fake.faults.next(drip=LIMIT)
    with fake.serve(), pytest.raises(requests.ConnectionError, match="timed out"):
        Caller(fake)(timeout=0.1)


def test_a_rate_limit_is_by_the_clock_of_the_fake(call: Caller) -> None:
    call.fake.faults.rate_limit(2, per=2.5, op="count.add")

    assert [call("POST").status_code for _ in range(2)] == [201, 201]
    call.fake.clock.advance(1.0)
    limited = call("POST")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "2")
    assert call().status_code == 200
    call.fake.clock.advance(1.5)
    assert call("POST").status_code == 201
    assert call.fake.state.count == 3


def test_what_is_next_comes_first_and_clear_ends_it_all(call: Caller) -> None:
    call.fake.faults.on("*", status=500)
    call.fake.faults.on("*", times=1, status=501)
    call.fake.faults.next(status=502)

    assert [call().status_code for _ in range(2)] == [502, 500]
    call.fake.faults.rate_limit(1)
    call.fake.faults.clear()
    assert [call().status_code for _ in range(2)] == [200, 200]


def test_on_with_a_number_ends_by_itself(call: Caller) -> None:
    call.fake.faults.on("*", times=1, status=500)

    assert [call().status_code for _ in range(2)] == [500, 200]


def test_a_fault_meets_what_no_route_has_too(call: Caller) -> None:
    call.fake.faults.next(status=503)

    assert call(path="/nowhere").status_code == 503
    call.fake.check()


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"headers": {"X": "1"}},
        {"delay": -1.0},
        {"drip": -1.0},
        {"reset": "before-apply", "status": 500},
        {"reset": "after-apply", "body": b""},
        {"status": 500, "times": 0},
    ],
)
def test_a_fault_without_sense_is_refused(fault: Any) -> None:
    faults = FakeCounter().faults

    with pytest.raises(ValueError, match=r"a (fault|delay|connection)"):
        faults.next(**fault)
    with pytest.raises(ValueError, match=r"a (fault|delay|connection)"):
        faults.on("*", **fault)
    assert faults.pending == 0


@pytest.mark.parametrize(("count", "per"), [(0, 1.0), (1, 0.0)])
def test_a_rate_limit_without_sense_is_refused(count: int, per: float) -> None:
    with pytest.raises(ValueError, match="rate limit"):
        FakeCounter().faults.rate_limit(count, per=per)


def test_who_is_down_refuses_connections_and_comes_back(call: Caller) -> None:
    call()
    url = call.fake.url

    call.fake.down = True
    with pytest.raises(requests.ConnectionError) as caught:
        call("POST")
    call.fake.down = False

    assert isinstance(caught.value.args[0], MaxRetryError)
    assert isinstance(caught.value.args[0].reason, NewConnectionError)
    assert call("POST").json() == {"count": 1} and call.fake.url == url
    assert call.fake.calls.ops == ["count.get", "count.add"]


# What was called.


def test_each_call_is_kept_as_it_came(call: Caller) -> None:
    call("POST", json={"a": [1]}, params={"b": "c"}, headers={"X-Request-Id": "id-1"})
    call("POST", data={"d": "ж"})

    first, second = call.fake.calls.of("count.add")
    assert (first.method, first.path, first.query) == ("POST", "/count", {"b": "c"})
    assert first.json == {"a": [1]} and first.headers["x-request-id"] == "id-1"
    assert first.status == 201 and first.reply is not None and first.reply.json == {"count": 1}
    assert second.form == {"d": "ж"} and second.request_id is None and second.json is None
    assert call.fake.calls[-1] is second and len(call.fake.calls) == 2
    assert call.fake.calls[:1] == [first] and list(call.fake.calls) == [first, second]


def test_a_retry_is_known_by_its_request_id() -> None:
    fake = FakeCounter()
    call = Caller(fake)
    uuid = "0b6e9f5a-5a4f-4f3c-9d3a-123456789012"
    for request_id in (f"{uuid}-1", f"{uuid}-2", "other-1", uuid, f"{uuid}-2"):
        call(headers={"X-Request-Id": request_id})
    call()
    call()

    assert [made.attempt for made in fake.calls] == [1, 2, 1, None, 2, None, None]
    assert [made.request_id for made in fake.calls.retries] == [f"{uuid}-2"]


def test_a_log_with_a_credential_is_found() -> None:
    fake = FakeCounter()
    call = Caller(fake)
    call(headers={"Authorization": "OAuth the-oauth-token"})
    basic = base64.b64encode(b"client:client-password").decode()
    call(headers={"Authorization": f"Basic {basic}", "Cookie": "a=b; Session_id=a-session"})
    call(params={"oauth_token": "in the query", "login": "somebody"})
    call("POST", data={"Password": "in-a-form", "n": "1"})
    call("POST", json={"deep": [{"user_ticket": "in-json"}], "token": "short"})
    call(headers={"X-Ya-Service-Ticket": "3:serv:x:y"})
    call(path="/issue")
    call(path="/issue", headers={"X-Bad": "1"})

    assert fake.calls.secrets() == {
        "the-oauth-token",
        basic,
        "client-password",
        "a-session",
        "in the query",
        "in-a-form",
        "in-json",
        "3:serv:x:y",
        "issued-token",
    }
    fake.calls.assert_no_secret_in("somebody asked for TEST-123: code_of_the_error, short")
    for text in ("GET /?t=in%20the%20query", "x client-password y", "3:serv:x:y"):
        with pytest.raises(AssertionError, match="a credential of") as caught:
            fake.calls.assert_no_secret_in(text)
        assert not any(secret in str(caught.value) for secret in fake.calls.secrets())


def test_a_repr_shows_no_credential() -> None:
    fake = FakeCounter()
    Caller(fake)(params={"token": "a-secret"}, headers={"Authorization": "OAuth another"})

    shown = repr(fake.calls) + repr(fake.calls[0].request) + repr(fake.calls[0].reply)

    assert "GET /count" in shown and "secret" not in shown and "another" not in shown


# As a client of ours sees it.


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "headers": {"Retry-After": "0"}, "times": 1},
        {"status": 500},
        {"status": 404},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"body": b"<html>"},
        {"reset": "before-apply"},
        {"reset": "after-apply"},
        {"delay": LIMIT},
        {"drip": 0.1},
        "down",
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_ends_alike_without_a_socket_and_over_http(fault: Any, method: str) -> None:
    def end(fake: FakeCounter, **options: Any) -> tuple[object, ...]:
        if fault == "down":
            fake.down = True
        else:
            fake.faults.on("*", **fault)
        with ApiClient.from_config(
            fake.config(),
            timeout=(LIMIT, 0.3),
            total_timeout=1.0,
            retry=RetryPolicy(YandexError, attempts=2, backoff=Backoff(0.0)),
            **options,
        ) as client:
            begun = time.monotonic()
            try:
                told: tuple[object, ...] = ("answered", client.request("x", method, "/count").data)
            except YandexError as e:
                said = str(e).replace(fake.root, "")
                told = (type(e), re.sub(r"\[request .*?\]", "", said), e.attempts)
                told += (getattr(e, "maybe_applied", None), getattr(e, "phase", None))
            assert time.monotonic() - begun < 1.0 + LIMIT / 10
        return (*told, fake.state.count, [call.status for call in fake.calls])

    served, in_process = FakeCounter(), FakeCounter()
    with served.serve():
        live = end(served)
    assert end(in_process, session=in_process.session()) == live
