"""A declared operation is one request, with each argument where it belongs."""

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sepelib.yandex.errors import NotFound, ServerError
from sepelib.yandex.model import Record, record
from sepelib.yandex.operations import OperationsClient, declared, operation
from sepelib.yandex.paging import LimitOffset, Pager
from sepelib.yandex.testing import FakeRequest, FakeService, Reply, route


@record
class Value(Record):
    path: str | None = None


class KnobsClient(OperationsClient):
    service = "knobs"

    @operation("GET", "/v1/values/{path:path}", of=Value.from_dict)
    def value(self, path: str) -> Value:
        """The value at *path*.

        More.
        """
        return declared

    @operation("PUT", "/v1/values/{path:path}", headers={"version": "If-Match"})
    def set(
        self,
        path: str,
        value: Any,
        *,
        comment: str | None = None,
        expires_at: datetime | None = None,
        version: str | None = None,
    ) -> Any:
        """Turn it."""
        return declared

    @operation("GET", "/v1/values", pages=LimitOffset(2), of=Value.from_dict)
    def values(
        self, *, tags: list[str] | None = None, from_: datetime | None = None
    ) -> Pager[Value]:
        """Those with all *tags*."""
        return declared

    @operation("POST", "/v1/commands", key="key", query=("dry_run",), expect=(202,))
    def command(
        self, command: str, *, args: Any = None, dry_run: bool | None = None, key: str | None = None
    ) -> Any:
        """Do it."""
        return declared

    @operation("POST", "/v1/raw", body="content", idempotent=True)
    def raw(self, content: Any) -> Any:
        """The whole body."""
        return declared

    @operation("DELETE", "/v1/values/{path:path}")
    def reset(self, path: str, *, force: bool = False) -> None:
        """Turn it back."""


class FakeKnobs(FakeService[list[dict[str, Any]]]):
    service = "knobs"

    def new_state(self) -> list[dict[str, Any]]:
        return []

    def _seen(self, request: FakeRequest) -> object:
        return {"path": request.path}

    @route("GET", "/v1/values/{path:path}", op="value", query=None)
    def _value(self, request: FakeRequest) -> object:
        return self._seen(request)

    @route("PUT", "/v1/values/{path:path}", op="set", query=None, body="json")
    def _set(self, request: FakeRequest) -> object:
        return self._seen(request)

    @route("GET", "/v1/values", op="values", query=None)
    def _values(self, request: FakeRequest) -> object:
        start = int(request.query["offset"])
        return {"items": [{"path": str(n)} for n in range(start, min(start + 2, 5))], "total": 5}

    @route("POST", "/v1/commands", op="command", query=None, body="json")
    def _command(self, request: FakeRequest) -> object:
        return Reply(202, json=self._seen(request))

    @route("POST", "/v1/raw", op="raw", body="json")
    def _raw(self, request: FakeRequest) -> object:
        return self._seen(request)

    @route("DELETE", "/v1/values/{path:path}", op="reset", query=None)
    def _reset(self, request: FakeRequest) -> object:
        return Reply(204)


@pytest.fixture
def knobs() -> Iterator[FakeKnobs]:
    fake = FakeKnobs()
    yield fake
    fake.check()


@pytest.fixture
def client(knobs: FakeKnobs) -> KnobsClient:
    return KnobsClient.from_config(
        knobs.config(), session=knobs.session(), sleep=lambda seconds: None
    )


def test_an_argument_of_the_path_goes_there(knobs: FakeKnobs, client: KnobsClient) -> None:
    assert client.value("a/b c") == Value(path="/v1/values/a/b%20c")
    assert client.value(path="x").path == "/v1/values/x"


def test_arguments_of_a_body_go_there_and_none_is_left_out(
    knobs: FakeKnobs, client: KnobsClient
) -> None:
    until = datetime(2026, 1, 2, 6, 4, 5, tzinfo=timezone(timedelta(hours=3)))
    client.set("a", {"deep": [1, None]}, expires_at=until, version='"7"')
    call = knobs.calls.of("set")[-1]
    assert call.json == {"value": {"deep": [1, None]}, "expires_at": "2026-01-02T03:04:05Z"}
    assert call.headers["If-Match"] == '"7"' and call.query == {}
    client.set("a", False)
    call = knobs.calls.of("set")[-1]
    assert call.json == {"value": False} and "If-Match" not in call.headers


def test_a_time_without_a_zone_is_refused(client: KnobsClient) -> None:
    with pytest.raises(ValueError, match="has a zone"):
        client.set("a", 1, expires_at=datetime(2026, 1, 1))


def test_pages_come_as_a_pager(knobs: FakeKnobs, client: KnobsClient) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    pager = client.values(tags=["a", "b"], from_=start)
    assert knobs.calls.ops == []
    assert [value.path for value in pager] == ["0", "1", "2", "3", "4"] and pager.total == 5
    query = knobs.calls.of("values")[-1].query
    assert query == {"tags": "a,b", "from": "2026-01-01T00:00:00Z", "limit": "2", "offset": "4"}


def test_a_key_makes_a_call_that_may_be_repeated(knobs: FakeKnobs, client: KnobsClient) -> None:
    knobs.faults.next("command", reset="after-apply")
    client.command("start", args={}, dry_run=True)
    first, second = knobs.calls.of("command")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert len(first.headers["Idempotency-Key"]) == 36
    assert first.json == {"command": "start", "args": {}} and first.query == {"dry_run": "true"}
    client.command("start", key="mine")
    third = knobs.calls.of("command")[-1]
    assert third.headers["Idempotency-Key"] == "mine" and third.query == {}


def test_a_body_may_be_one_argument(knobs: FakeKnobs, client: KnobsClient) -> None:
    knobs.faults.next("raw", status=500)
    client.raw([1, 2])
    assert knobs.calls.of("raw")[-1].json == [1, 2]


def test_a_deletion_has_its_arguments_in_the_query(knobs: FakeKnobs, client: KnobsClient) -> None:
    client.reset("a", force=True)
    assert knobs.calls.of("reset")[-1].query == {"force": "true"}


def test_paths_are_overridden_by_the_name_of_the_method(knobs: FakeKnobs) -> None:
    section = {**knobs.config(), "paths": {"value": "/v1/raw/{path:path}"}}
    knobs.strict = False
    client = KnobsClient.from_config(section, session=knobs.session())
    with pytest.raises(NotFound, match=r"knobs value .*/v1/raw/x\)"):
        client.value("x")


def test_an_operation_looks_like_the_method_it_is(client: KnobsClient) -> None:
    assert list(inspect.signature(client.set).parameters)[:2] == ["path", "value"]
    assert (client.value.__doc__ or "").startswith("The value at")
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'"):
        client.value("x", nope=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument"):
        client.value()  # type: ignore[call-arg]


def test_the_table_has_all_operations_also_of_the_base_class() -> None:
    class More(KnobsClient):
        @operation("GET", "/v1/more")
        def more(self) -> Any:
            """More."""
            return declared

    names = ["value", "set", "values", "command", "raw", "reset"]
    assert list(KnobsClient.OPERATIONS) == names and list(More.OPERATIONS) == [*names, "more"]
    entry = KnobsClient.OPERATIONS["values"]
    assert (entry.method, entry.path, entry.paged) == ("GET", "/v1/values", True)
    assert entry.doc == "Those with all *tags*." and entry.idempotent is None
    assert KnobsClient.OPERATIONS["command"].idempotent is True
    assert More.PATHS["more"] == "/v1/more" and "more" not in KnobsClient.PATHS


@pytest.mark.parametrize(
    "options",
    [{"query": ("nope",)}, {"headers": {"nope": "X"}}, {"body": "nope"}, {"key": "nope"}],
)
def test_a_name_that_is_no_argument_is_refused_at_once(options: Any) -> None:
    def method(client: KnobsClient, known: str) -> None: ...

    with pytest.raises(TypeError, match=r"method\(\) has no argument nope"):
        operation("POST", "/x", **options)(method)
    with pytest.raises(TypeError, match=r"method\(\) has no argument id"):
        operation("POST", "/x/{id}")(method)


def test_without_a_key_a_post_is_sent_once(knobs: FakeKnobs, client: KnobsClient) -> None:
    class Plain(KnobsClient):
        @operation("POST", "/v1/raw", body="content")
        def raw(self, content: Any) -> Any:
            """Once."""
            return declared

    plain = Plain.from_config(knobs.config(), session=knobs.session())
    knobs.faults.next("raw", status=500)
    with pytest.raises(ServerError) as caught:
        plain.raw(1)
    assert caught.value.attempts == 1


def test_an_argument_that_is_needed_is_not_left_out() -> None:
    class Client(OperationsClient):
        service = "knobs"

        @operation("GET", "/v1/check", headers={"seen": "If-Match"})
        def check_of(self, login: str, seen: str | None, role: str | None = None) -> Any:
            """Whether."""
            return declared

    with (
        Client("http://knobs.test") as client,
        pytest.raises(ValueError, match=r"check_of\(\) needs its login: None would not be sent"),
    ):
        client.check_of(None, None)  # type: ignore[arg-type]
