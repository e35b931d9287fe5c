"""The table of retries, row by row, in-process and over HTTP."""

import io
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest

from sepelib.util.retry import Backoff, RetryBudget, RetryPolicy, retries_disabled
from sepelib.util.testing import Clock
from sepelib.yandex.auth import OAuthToken, TokenSource
from sepelib.yandex.base import ApiClient, Response
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    ApiTimeout,
    BadRequest,
    Forbidden,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    YandexError,
)
from sepelib.yandex.testing import FakeRequest, FakeService, Refusal, Reply, route


@dataclass
class ShopState:
    items: dict[str, Any] = field(default_factory=dict)


class FakeShop(FakeService[ShopState]):
    service = "shop"

    def new_state(self) -> ShopState:
        return ShopState({"pen": {"key": "pen"}})

    @route("GET", "/items/{key}", op="items.get")
    def _get(self, request: FakeRequest) -> object:
        item = self.state.items.get(request.args["key"])
        if item is None:
            raise Refusal(404, "not_found", "no such item")
        return item

    @route("POST", "/items", op="items.create", body="json")
    def _create(self, request: FakeRequest) -> object:
        number = len(self.state.items)
        self.state.items[str(number)] = request.json
        return Reply(201, json={"id": number})

    @route("POST", "/find", op="items.find", body="json")
    def _find(self, request: FakeRequest) -> object:
        return {"found": len(self.state.items)}

    @route("DELETE", "/items/{key}", op="items.delete")
    def _delete(self, request: FakeRequest) -> object:
        if self.state.items.pop(request.args["key"], None) is None:
            raise Refusal(404, "not_found", "no such item")
        return Reply(204)

    @route("POST", "/files", op="files.create", body=None)
    def _upload(self, request: FakeRequest) -> object:
        self.state.items["file"] = request.body
        return {"size": len(request.body)}


class ShopClient(ApiClient):
    service = "shop"
    PATHS = {
        "items.get": "/items/{key}",
        "items.create": "/items",
        "items.find": "/find",
        "items.delete": "/items/{key}",
        "files.create": "/files",
    }

    def check(self, response: Response, /) -> None:
        data = response.data
        if isinstance(data, dict) and "failed" in data:
            raise ApiResponseError("later", status=response.status, temporary=data["failed"] == 1)

    def get(self, key: str = "pen") -> Any:
        return self.request("items.get", "GET", at={"key": key}).data

    def create(self) -> Any:
        return self.request("items.create", "POST", json={"a": 1}).data

    def find(self) -> Any:
        return self.request("items.find", "POST", json={}, idempotent=True).data

    def delete(self, key: str = "pen") -> Response:
        return self.request("items.delete", "DELETE", at={"key": key})

    def upload(self, data: Any, *, idempotent: bool | None = None) -> Any:
        return self.request("files.create", "POST", data=data, idempotent=idempotent).data


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["inprocess", "live"])
def shop(request: pytest.FixtureRequest) -> Iterator[FakeShop]:
    fake = FakeShop()
    with fake.serve() if request.param == "live" else nullcontext():
        yield fake
    fake.check()


@pytest.fixture
def client(shop: FakeShop, clock: Clock) -> Iterator[ShopClient]:
    with client_of(shop, clock) as client:
        yield client


def client_of(shop: FakeShop, clock: Clock, **options: Any) -> ShopClient:
    if shop.server is None:
        options.setdefault("session", shop.session())
    return ShopClient(
        shop.url, OAuthToken(shop.token), **{"sleep": clock.sleep, "timeout": 5.0, **options}
    )


# Nothing was sent.


def test_no_connection_is_tried_again_whatever_the_method(
    shop: FakeShop, client: ShopClient, clock: Clock
) -> None:
    for call in (client.get, client.create):
        clock.sleeps.clear()
        down(shop)
        with pytest.raises(ApiConnectionError, match=r"no connection .*it was not applied") as c:
            call()
        assert c.value.attempts == 3 and not c.value.maybe_applied and len(clock.sleeps) == 2
        up(shop)
        call()
    assert len(shop.state.items) == 2


def test_a_service_that_is_back_is_reached_by_the_next_attempt(shop: FakeShop) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        up(shop)

    down(shop)
    with client_of(shop, Clock(), sleep=sleep) as client:
        assert client.create() == {"id": 1}
    assert len(waits) == 1 and 0 <= waits[0] <= 0.2


def test_a_connection_that_takes_too_long_is_tried_again_whatever_the_method(clock: Clock) -> None:
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # in the queue, and nobody takes them out: the next one gets no answer
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = ShopClient(url, timeout=(0.1, 5.0), sleep=clock.sleep)
        with client, pytest.raises(ApiTimeout, match=r"no connection within 0\.1 s") as caught:
            client.create()
    assert (caught.value.attempts, caught.value.phase) == (3, "connect")
    assert not caught.value.maybe_applied and len(clock.sleeps) == 2


def test_an_unknown_host_is_no_connection(clock: Clock) -> None:
    client = ShopClient("http://nowhere.invalid", sleep=clock.sleep)
    with client, pytest.raises(ApiConnectionError, match=r"no connection") as caught:
        client.create()
    assert caught.value.attempts == 3 and not caught.value.maybe_applied


# It was sent, and no whole answer came.


@pytest.mark.parametrize("reset", ["before-apply", "after-apply"])
def test_a_reset_is_tried_again_if_the_call_is_idempotent(
    shop: FakeShop, client: ShopClient, reset: Any
) -> None:
    for call, op in ((client.get, "items.get"), (client.find, "items.find")):
        shop.faults.next(op, reset=reset)
        assert call()
        assert len(shop.calls.of(op)) == 2


@pytest.mark.parametrize(("reset", "made"), [("before-apply", 0), ("after-apply", 1)])
def test_a_reset_of_another_call_is_raised_as_maybe_applied(
    shop: FakeShop, client: ShopClient, reset: Any, made: int
) -> None:
    client.get()  # so that it strikes a connection of the pool
    shop.faults.next("items.create", reset=reset)
    with pytest.raises(ApiConnectionError, match=r"it may have been applied") as caught:
        client.create()
    assert caught.value.maybe_applied and caught.value.attempts == 1
    assert len(shop.calls.of("items.create")) == 1
    assert len(shop.state.items) == 1 + made


def test_maybe_applied_is_remembered_from_an_attempt_before_the_last(
    shop: FakeShop, clock: Clock
) -> None:
    shop.faults.next("items.find", reset="after-apply")
    with (
        client_of(shop, clock, sleep=lambda seconds: down(shop)) as client,
        pytest.raises(ApiConnectionError, match=r"no connection.*it may have been") as caught,
    ):
        client.find()
    assert caught.value.maybe_applied and caught.value.attempts == 3


def test_a_read_timeout_is_tried_again_if_the_call_is_idempotent(
    shop: FakeShop, clock: Clock
) -> None:
    with client_of(shop, clock, timeout=(5.0, 0.2)) as client:
        shop.faults.next("items.get", delay=1.0)
        assert client.get() == {"key": "pen"}
        shop.faults.next("items.create", delay=1.0)
        with pytest.raises(
            ApiTimeout, match=r"no answer within 0\.2 s; it may have been"
        ) as caught:
            client.create()
    error = caught.value
    assert (error.phase, error.timeout, error.maybe_applied) == ("read", 0.2, True)
    assert len(shop.calls.of("items.get")) == 2 and len(shop.calls.of("items.create")) == 1


# The service has refused.


def test_429_is_tried_again_after_the_time_it_names(
    shop: FakeShop, client: ShopClient, clock: Clock
) -> None:
    for call in (client.get, client.create):
        clock.sleeps.clear()
        shop.faults.next(status=429, headers={"Retry-After": "7"})
        shop.faults.next(status=429)
        call()
        assert clock.sleeps[0] == 7.0 and clock.sleeps[1] <= 0.4
    shop.faults.on("*", status=429)
    with pytest.raises(TooManyRequests) as caught:
        client.create()
    assert caught.value.attempts == 3 and not caught.value.maybe_applied


def test_503_with_a_retry_after_is_a_refusal_and_without_one_is_not(
    shop: FakeShop, client: ShopClient, clock: Clock
) -> None:
    shop.faults.next(status=503, headers={"Retry-After": "2"})
    client.create()
    assert clock.sleeps == [2.0]
    shop.faults.next(status=503)
    with pytest.raises(ServerError) as caught:
        client.create()
    assert caught.value.attempts == 1 and caught.value.maybe_applied


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_of_the_server_is_tried_again_if_the_call_is_idempotent(
    shop: FakeShop, client: ShopClient, status: int
) -> None:
    shop.faults.next(status=status, times=2)
    assert client.get() == {"key": "pen"}
    shop.faults.next(status=status, apply=True)
    with pytest.raises(ServerError) as caught:
        client.create()
    assert caught.value.maybe_applied and caught.value.status == status
    assert len(shop.calls.of("items.get")) == 3 and len(shop.calls.of("items.create")) == 1


def test_the_last_error_is_raised_as_it_is_with_the_number_of_attempts(
    shop: FakeShop, client: ShopClient
) -> None:
    shop.faults.next(status=502)
    shop.faults.next(status=500, times=2)
    with pytest.raises(ServerError) as caught:
        client.get()
    assert (caught.value.status, caught.value.attempts) == (500, 3)
    assert caught.value.request_id.endswith("-3")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, BadRequest),
        (403, Forbidden),
        (404, NotFound),
        (418, ApiResponseError),
        (501, ServerError),
    ],
)
def test_any_other_status_is_raised_at_once(
    shop: FakeShop, client: ShopClient, status: int, cls: type[ApiResponseError]
) -> None:
    shop.faults.on("*", status=status)
    for call in (client.get, client.create):
        with pytest.raises(cls) as caught:
            call()
        assert type(caught.value) is cls and caught.value.attempts == 1
        assert caught.value.maybe_applied == (status >= 500)


@pytest.mark.parametrize("body", [b"<html>", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_not_json_is_tried_again_if_the_call_is_idempotent(
    shop: FakeShop, client: ShopClient, body: bytes
) -> None:
    shop.faults.next(body=body, times=2)
    assert client.get() == {"key": "pen"}
    shop.faults.next(body=body)
    with pytest.raises(ApiProtocolError, match="status 201, the answer is not JSON") as caught:
        client.create()
    assert caught.value.maybe_applied and caught.value.attempts == 1
    assert len(caught.value.body) <= 200


def test_a_failure_told_inside_of_a_200_is_tried_again_if_it_is_temporary(
    shop: FakeShop, client: ShopClient
) -> None:
    shop.faults.next(json={"failed": 1})
    assert client.get() == {"key": "pen"}
    shop.faults.next(json={"failed": 2})
    with pytest.raises(ApiResponseError, match=r"items\.get .*: status 200: later") as caught:
        client.get()
    assert caught.value.attempts == 1
    shop.faults.next(json={"failed": 1})
    with pytest.raises(ApiResponseError) as caught:
        client.create()
    assert caught.value.attempts == 1


# Of deletions, tokens, bodies.


def test_a_deletion_whose_repetition_finds_nothing_has_worked(
    shop: FakeShop, client: ShopClient
) -> None:
    shop.faults.next("items.delete", reset="after-apply")
    answer = client.delete()
    assert (answer.status, answer.attempts, answer.data) == (404, 2, None)
    assert "pen" not in shop.state.items
    with pytest.raises(NotFound):
        client.delete()


def test_a_deletion_that_was_only_refused_before_is_not_called_done(
    shop: FakeShop, client: ShopClient
) -> None:
    shop.faults.next("items.delete", status=429)
    with pytest.raises(NotFound) as caught:
        client.delete("no such")
    assert caught.value.attempts == 2


def test_a_token_that_has_rotated_is_loaded_and_the_call_repeated_once(
    shop: FakeShop, clock: Clock, tmp_path: Any
) -> None:
    file = tmp_path / "token"
    file.write_text(shop.token)
    client = client_of(shop, clock)
    client._auth = OAuthToken(TokenSource.file(file))
    with client:
        client.get()
        shop.tokens = {"new-token"}
        file.write_text("new-token\n")
        assert client.create() == {"id": 1}
        shop.tokens = {"newest-token"}
        with pytest.raises(Unauthorized) as caught:
            client.create()
    assert caught.value.attempts == 1, "the same token is not tried twice"
    assert clock.sleeps == []


def test_a_source_is_told_that_its_token_was_refused(shop: FakeShop, clock: Clock) -> None:
    tokens = ["old-token"]
    source = TokenSource.call(lambda: tokens[0], invalidate=lambda: tokens.insert(0, shop.token))
    client = client_of(shop, clock)
    client._auth = OAuthToken(source)
    with client:
        assert client.create() == {"id": 1}
    assert len(tokens) == 2 and len(shop.calls.of("items.create")) == 2


def test_a_reload_after_401_happens_once_in_a_call(shop: FakeShop, clock: Clock) -> None:
    numbers = iter(range(100))
    client = client_of(shop, clock)
    client._auth = OAuthToken(TokenSource.call(lambda: f"wrong-{next(numbers)}"))
    with client, pytest.raises(Unauthorized) as caught:
        client.get()
    assert caught.value.attempts == 2 and len(shop.calls.of("items.get")) == 2


def test_a_file_is_rewound_to_where_it_was(shop: FakeShop, client: ShopClient) -> None:
    file = io.BytesIO(b"skipped" + b"x" * 1000)
    file.seek(7)
    shop.faults.next("files.create", status=500)
    assert client.upload(file, idempotent=True) == {"size": 1000}
    shop.faults.next("files.create", status=429)
    file.seek(7)
    assert client.upload(file) == {"size": 1000}


def test_files_of_a_form_are_rewound(shop: FakeShop, client: ShopClient) -> None:
    shop.faults.next("files.create", status=503, headers={"Retry-After": "0"})
    files = {"file": ("a.txt", io.BytesIO(b"content of the file"))}
    client.request("files.create", "POST", files=files)
    assert b"content of the file" in shop.state.items["file"]


def test_what_can_be_read_once_is_sent_once(shop: FakeShop, client: ShopClient) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for data in (Pipe(b"x"), iter([b"x"])):
        shop.faults.next("files.create", status=500)
        with pytest.raises(ServerError) as caught:
            client.upload(data, idempotent=True)
        assert caught.value.attempts == 1


# How often and how late.


def test_a_policy_of_the_caller_says_how_often(shop: FakeShop, clock: Clock) -> None:
    policy = RetryPolicy(YandexError, attempts=5, backoff=Backoff(1, 1, 1, "none"))
    with client_of(shop, clock, retry=policy) as client:
        shop.faults.next(status=500, times=4)
        assert client.get() == {"key": "pen"}
        assert clock.sleeps == [1.0] * 4
        shop.faults.next(status=500)
        with pytest.raises(ServerError):
            client.create()
    assert len(shop.calls.of("items.create")) == 1


def test_a_budget_ends_the_retries_of_a_dying_service(shop: FakeShop, clock: Clock) -> None:
    policy = RetryPolicy(YandexError, budget=RetryBudget(0.1, min_per_second=0.1), clock=clock)
    shop.faults.on("*", status=500)
    with client_of(shop, clock, retry=policy) as client:
        for _ in range(40):
            with pytest.raises(ServerError):
                client.get()
    assert 40 < len(shop.calls.of("items.get")) <= 46


def test_inside_of_another_transport_there_is_one_attempt(
    shop: FakeShop, client: ShopClient, clock: Clock
) -> None:
    outer = RetryPolicy(ServerError, attempts=3, layer="transport", sleep=clock.sleep)
    shop.faults.on("*", status=500)
    with pytest.raises(ServerError):
        outer(client.get)
    assert len(shop.calls.of("items.get")) == 3


def test_retries_can_be_switched_off_for_a_test(shop: FakeShop, client: ShopClient) -> None:
    shop.faults.next(status=500)
    with retries_disabled(), pytest.raises(ServerError):
        client.get()


def test_each_attempt_takes_the_next_of_several_hosts(shop: FakeShop, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    if shop.server is None:
        return  # its session reaches one host only
    with ShopClient([dead, shop.url], OAuthToken(shop.token), sleep=clock.sleep) as client:
        answer = client.request("items.get", "GET", at={"key": "pen"})
    assert answer.attempts == 2 and answer.where.url.startswith(shop.url)


def test_a_retry_is_one_warning_and_an_attempt_one_debug_line(
    shop: FakeShop, client: ShopClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shop.faults.next(status=500)
    client.get()
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    lines = [r.getMessage() for r in caplog.records if r.name == "sepelib.yandex._call"]
    assert len(warnings) == 1 and len(lines) == 2
    assert warnings[0].startswith("shop items.get: attempt 1 of 3 failed")
    for line, result in zip(lines, ("5xx", "ok"), strict=True):
        assert f"(GET {shop.url}/items/pen)" in line and f": {result} in " in line
    shop.calls.assert_no_secret_in(caplog.text)


def test_attempts_share_an_id_and_differ_in_their_number(
    shop: FakeShop, client: ShopClient
) -> None:
    shop.faults.next(status=500)
    client.get()
    client.get()
    first, second, other = (call.request_id for call in shop.calls.of("items.get"))
    assert first.removesuffix("-1") == second.removesuffix("-2") != other.removesuffix("-1")


def down(shop: FakeShop) -> None:
    if shop.server is None:
        shop.down = True
    else:
        shop.server.stop()


def up(shop: FakeShop) -> None:
    if shop.server is None:
        shop.down = False
    else:
        shop.server.start()
