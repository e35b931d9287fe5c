"""The core of the fakes, asked by bare requests, without a socket and over HTTP."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from sepelib.util.testing import Clock
from sepelib.yandex.testing import EPOCH, FakeRequest, FakeService, Refusal, Reply, route

LIMIT = 20.0  # seconds; far more than anything here takes


@dataclass
class GreeterState:
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[tuple[str | None, bytes]] = field(default_factory=list)
    caught_up: int = 0
    inside: int = 0
    most_inside: int = 0


class FakeGreeter(FakeService[GreeterState]):
    service = "greeter"
    prefix = "/api/v1"

    def new_state(self) -> GreeterState:
        return GreeterState()

    def catch_up(self) -> None:
        self.state.caught_up += 1

    @route("GET", "/users/{login}", op="users.get", query=("lang", "x_*"))
    def _get(self, request: FakeRequest) -> object:
        user = self.state.users.get(request.args["login"])
        if user is None:
            raise Refusal(404, "not_found", "no such user", details={"login": request.args})
        return user

    @route("GET", "/users/_count", op="users.count")
    def _count(self, request: FakeRequest) -> object:
        return len(self.state.users)

    @route("GET", "/files/{path:path}", op="files.get", auth=False, query=None)
    def _file(self, request: FakeRequest) -> object:
        links = [("Link", '<a>; rel="next"'), ("Link", '<b>; rel="first"')]
        found = {"path": request.args["path"], "n": request.values("n"), "root": request.root}
        return Reply(json=found, headers=links)

    @route("PUT", "/users/{login}", op="users.put", body="json")
    @route("POST", "/users/{login}", op="users.post", body="json")
    def _put(self, request: FakeRequest) -> object:
        self.state.users[request.args["login"]] = request.json
        return Reply(201, json=request.json)

    @route("DELETE", "/users/{login}", op="users.delete")
    def _delete(self, request: FakeRequest) -> object:
        del self.state.users[request.args["login"]]
        return Reply(204)

    @route("POST", "/token", op="token.other", body="form", auth=False)
    def _token(self, request: FakeRequest) -> object:
        return {"grant": request.form.get("grant")}

    @route("POST", "/token", op="token.refresh", body="form", auth=False, when={"grant": "r"})
    def _refresh(self, request: FakeRequest) -> object:
        return {"refreshed": request.form["of"]}

    @route("GET", "/slow", op="slow", auth=False)
    def _slow(self, request: FakeRequest) -> object:
        self.state.inside += 1
        self.state.most_inside = max(self.state.most_inside, self.state.inside)
        time.sleep(0.01)
        self.state.inside -= 1
        return None

    @route("POST", "/upload", op="upload", body="multipart")
    def _upload(self, request: FakeRequest) -> object:
        file = request.files["file"]
        self.state.uploads.append((file.name, file.content))
        return {"type": file.content_type, "form": request.form}


class FakeLoudGreeter(FakeGreeter):
    """Another shape of errors, another way to say who asks, one route replaced."""

    def authorize(self, request: FakeRequest) -> None:
        if request.headers.get("X-Ticket") != "t":
            raise Refusal(403, "denied", "no ticket")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        return Reply(200, body=f"<error op='{request.op}'>{refusal.code}</error>")

    def no_route(self, request: FakeRequest) -> Refusal:
        return Refusal(500, "no_operation", "no such operation")

    @route("GET", "/users/_count", op="users.number")
    def _count(self, request: FakeRequest) -> object:
        return -1


class Caller:
    """A fake, and a session that reaches it with the token that it takes."""

    def __init__(self, fake: FakeGreeter) -> None:
        self.fake = fake
        self.session = fake.session()

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"OAuth {self.fake.token}", **options.pop("headers", {})}
        return self.session.request(
            method, self.fake.url + path, headers=headers, timeout=LIMIT, **options
        )


@contextlib.contextmanager
def reached(fake: FakeGreeter, transport: str) -> Iterator[Caller]:
    with contextlib.ExitStack() as stack:
        if transport == "live":
            stack.enter_context(fake.serve())
        caller = Caller(fake)
        stack.callback(caller.session.close)
        yield caller


@pytest.fixture(params=["inprocess", "live"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def call(transport: str) -> Iterator[Caller]:
    with reached(FakeGreeter(), transport) as caller:
        yield caller


def test_what_is_put_is_there_under_its_decoded_name(call: Caller) -> None:
    assert call("PUT", "/users/a%2Fb%20ж", json={"n": 1}).status_code == 201

    assert call.fake.state.users == {"a/b ж": {"n": 1}}
    answer = call("GET", "/users/a%2Fb%20%D0%B6")
    assert answer.json() == {"n": 1}
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


def test_literal_segments_win_over_fields_and_a_slash_at_the_end_is_nothing(call: Caller) -> None:
    assert call("GET", "/users/_count").json() == 0
    assert call("GET", "/users/_count/").json() == 0
    assert call("GET", "/files/a/b%2Fc").json()["path"] == "a/b/c"


def test_repeated_parameters_and_headers_are_all_there(call: Caller) -> None:
    answer = call("GET", "/files/x", params={"n": ["1", "2"]})

    assert answer.json()["n"] == ["1", "2"]
    assert answer.headers["Link"] == '<a>; rel="next", <b>; rel="first"'
    assert call.fake.url == answer.json()["root"] + "/api/v1"


def test_one_path_may_be_several_operations(call: Caller) -> None:
    assert call("POST", "/token", data={"grant": "r", "of": "x y"}).json() == {"refreshed": "x y"}
    assert call("POST", "/token", data={"grant": "q"}).json() == {"grant": "q"}
    assert call.fake.calls.ops == ["token.refresh", "token.other"]


def test_files_of_a_form_come_whole(call: Caller) -> None:
    content = b"\r\n--x\r\n\x00\xff\r\n"
    answer = call(
        "POST",
        "/upload",
        files={"file": ("отчёт.bin", content, "image/png")},
        data={"comment": "ж"},
    )

    assert call.fake.state.uploads == [("отчёт.bin", content)]
    assert answer.json() == {"type": "image/png", "form": {"comment": "ж"}}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data"),
        ("multipart/form-data; boundary=b", b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("text/plain", b"--b--"),
    ],
)
def test_a_broken_form_has_no_files(content_type: str, body: bytes) -> None:
    request = FakeRequest("POST", "http://h/", {"Content-Type": content_type}, body)

    assert request.files == {} and request.form == {}


def test_a_body_that_comes_in_chunks_is_read(call: Caller) -> None:
    parts = iter([b'{"n"', b": 1}"])

    answer = call("PUT", "/users/ann", data=parts, headers={"Content-Type": "application/json"})

    assert answer.status_code == 201 and call.fake.state.users["ann"] == {"n": 1}
    assert call("GET", "/users/ann").json() == {"n": 1}  # the connection is in step


def test_an_answer_of_204_has_no_body(call: Caller) -> None:
    call("PUT", "/users/ann", json={})

    answer = call("DELETE", "/users/ann")

    assert answer.status_code == 204 and answer.content == b""
    assert "Content-Length" not in answer.headers or answer.headers["Content-Length"] == "0"
    assert call("GET", "/users/_count").json() == 0


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/users/_count", {"headers": {"Authorization": ""}}, 401, "unauthorized"),
        ("GET", "/users/_count", {"headers": {"Authorization": "OAuth x"}}, 401, "unauthorized"),
        ("GET", "/users/_count", {"params": {"a": "b"}}, 400, "unknown_parameter"),
        ("GET", "/users/_count", {"params": {"a": ""}}, 400, "unknown_parameter"),
        ("PUT", "/users/ann", {"data": {"a": "b"}}, 415, "unsupported_media_type"),
        ("POST", "/token", {"json": {"a": "b"}}, 415, "unsupported_media_type"),
        (
            "PUT",
            "/users/ann",
            {"data": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "malformed_json",
        ),
        ("GET", "/users/bob", {"params": {"lang": "ru", "x_1": "1"}}, 404, "not_found"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_service_and_changes_nothing(
    call: Caller, method: str, path: str, options: Any, status: int, code: str
) -> None:
    answer = call(method, path, **options)

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert set(answer.json()) == {"error", "message", "details"}
    assert call.fake.state.users == {}
    call.fake.check()


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("PATCH", "/users/ann")])
def test_what_no_route_has_is_501_and_fails_the_check(call: Caller, method: str, path: str) -> None:
    answer = call(method, path)

    assert answer.status_code == 501
    with pytest.raises(AssertionError, match=f"FakeGreeter: no route for {method} /api/v1{path}"):
        call.fake.check()
    call.fake.reset()
    call.fake.check()


def test_without_strictness_it_is_404_and_the_rest_passes(transport: str) -> None:
    with reached(FakeGreeter(strict=False), transport) as call:
        assert call("GET", "/nowhere").status_code == 404
        assert call("GET", "/users/_count", headers={"Authorization": ""}).json() == 0
        assert call("GET", "/users/_count", params={"a": "b"}).json() == 0
        call.fake.check()


def test_a_subclass_has_its_own_words_and_routes(transport: str) -> None:
    with reached(FakeLoudGreeter(), transport) as call:
        refused = call("GET", "/users/_count")
        assert refused.text == "<error op='users.number'>denied</error>"
        assert refused.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert call("GET", "/users/_count", headers={"X-Ticket": "t"}).json() == -1
        assert "users.get" in call.fake.ops and "users.count" not in call.fake.ops
        call.fake.strict = False
        assert call("GET", "/nowhere").text == "<error op=''>no_operation</error>"


def test_tokens_can_be_changed_and_reset_brings_the_first_one_back(call: Caller) -> None:
    call.fake.tokens = {"new"}
    assert call("GET", "/users/_count").status_code == 401
    assert call("GET", "/users/_count", headers={"Authorization": "OAuth new"}).ok

    call.fake.reset()

    assert call("GET", "/users/_count").ok
    assert call.fake.config() == {
        "url": call.fake.url,
        "auth": {"type": "oauth", "token": call.fake.token},
    }


def test_reset_equals_a_new_one(call: Caller) -> None:
    call("PUT", "/users/ann", json={})
    call.fake.faults.on("*", status=500)
    call.fake.clock.advance(5.0)
    call.fake.down = True

    call.fake.reset()

    new = FakeGreeter()
    assert call.fake.state == new.state and call.fake.tokens == new.tokens
    assert (call.fake.now, call.fake.down, len(call.fake.calls)) == (EPOCH, False, 0)
    assert call("GET", "/users/_count").json() == 0


def test_two_fakes_share_nothing() -> None:
    one, other = FakeGreeter(), FakeGreeter()
    one.state.users["ann"] = {}
    one.clock.advance(1.0)
    one.faults.next(status=500)

    assert other.state.users == {} and other.clock.now == 0.0 and other.faults.pending == 0


def test_a_given_clock_is_the_time_and_is_not_reset() -> None:
    clock = Clock(60.0)
    fake = FakeGreeter(clock=clock)
    clock.advance(1.5)

    fake.reset()

    assert fake.clock is clock and (fake.now - EPOCH).total_seconds() == 61.5


def test_each_request_lets_first_happen_what_is_due(call: Caller) -> None:
    call("GET", "/users/_count")
    call("GET", "/nowhere")

    assert call.fake.state.caught_up == 2


def test_a_route_that_breaks_fails_the_check() -> None:
    fake = FakeGreeter()
    with pytest.raises(KeyError, match="ann"):
        Caller(fake)("DELETE", "/users/ann")

    with pytest.raises(AssertionError, match=r"users\.delete broke"):
        fake.check()


def test_a_route_that_breaks_over_http_cuts_the_connection_and_fails_the_block() -> None:
    fake = FakeGreeter()
    with pytest.raises(KeyError, match="ann"), fake.serve():  # noqa: PT012
        with pytest.raises(requests.ConnectionError):
            Caller(fake)("DELETE", "/users/ann")
        with pytest.raises(AssertionError, match=r"users\.delete broke"):
            fake.check()


def test_in_process_nothing_else_is_reached() -> None:
    session = FakeGreeter().session()

    with pytest.raises(requests.exceptions.InvalidSchema):
        session.get("http://127.0.0.1:1/")
    assert session.trust_env is False


def test_served_once_at_a_time_and_again() -> None:
    fake = FakeGreeter()
    assert fake.url == "http://greeter.test/api/v1"
    for _ in range(2):
        with fake.serve() as url:
            assert url == fake.url and url.startswith("http://127.0.0.1:")
            with pytest.raises(RuntimeError, match="already"):
                fake.serve().__enter__()
            assert Caller(fake)("GET", "/users/_count").ok
    assert fake.server is None and fake.url == "http://greeter.test/api/v1"


def test_connections_are_kept() -> None:
    fake = FakeGreeter()
    with fake.serve():
        call = Caller(fake)
        for number in range(5):
            call("PUT", f"/users/{number}", json={"n": number})
        assert fake.server is not None and fake.server.connections.accepted == 1
        call.session.close()


def test_routes_run_one_at_a_time(call: Caller) -> None:
    threads = [threading.Thread(target=call, args=("GET", "/slow")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert len(call.fake.calls.of("slow")) == 4 and call.fake.state.most_inside == 1


def test_many_callers_at_once_each_get_their_own_answer(call: Caller) -> None:
    wrong: list[object] = []

    def ask(login: str) -> None:
        for number in range(20):
            content = {"login": login, "n": number}
            if call("PUT", f"/users/{login}", json=content).json() != content:
                wrong.append(content)

    threads = [threading.Thread(target=ask, args=(f"user-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert wrong == [] and len(call.fake.calls) == 160
    assert set(call.fake.state.users) == {f"user-{n}" for n in range(8)}


def test_importing_the_fakes_loads_no_framework() -> None:
    script = (
        "import sys, sepelib.yandex.testing as t\n"
        "assert 'requests' not in sys.modules\n"
        "t.FakeService, t.YandexFakes, t.sample\n"
        "print({'flask', 'gevent', 'pytest', 'werkzeug'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
