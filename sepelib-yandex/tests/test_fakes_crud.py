"""The fake by table, asked by bare requests: the house convention, line by line."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sepelib.yandex.testing._crud import CrudFake
from sepelib.yandex.testing._operations import (
    Command,
    Create,
    Delete,
    History,
    Insert,
    Listing,
    Move,
    Patch,
    Read,
    Replace,
    Table,
    before,
    equal,
    has_all,
    not_before,
    prefix,
)

LIMIT = 20.0  # seconds; far more than anything here takes


class FakeOffice(CrudFake):
    service = "office"
    tables = (
        Table("events", created="created_at", changed="updated_at"),
        Table("knobs", key=("path",), versions=True, history=True, changed="updated_at"),
        Table("groups"),
        Table("places", key=("shard", "host")),
        Table("orders", created="created_at"),
    )
    operations = (
        Listing(
            "events.list",
            "/v1/events",
            "events",
            filters={
                "type": equal("type"),
                "title": prefix("title"),
                "tags": has_all("tags"),
                "from": not_before("start"),
                "to": before("start"),
            },
        ),
        Insert(
            "events.create",
            "/v1/events",
            "events",
            required=("title", "start"),
            defaults={"tags": []},
            unique="external_id",
            answer=("id",),
        ),
        Read("events.get", "/v1/events/{id}", "events"),
        Patch("events.update", "/v1/events/{id}", "events"),
        Delete("events.delete", "/v1/events/{id}", "events"),
        Read("knobs.get", "/v1/knobs/{path:path}", "knobs"),
        Replace("knobs.set", "/v1/knobs/{path:path}", "knobs", required=("value",)),
        Delete("knobs.reset", "/v1/knobs/{path:path}", "knobs", guarded=True),
        History("knobs.history", "/v1/history/{path:path}", "knobs", answer=("value",)),
        Create("groups.create", "/v1/groups/{id}", "groups", defaults={"status": "new"}),
        Read("groups.get", "/v1/groups/{id}", "groups"),
        Delete("groups.delete", "/v1/groups/{id}", "groups"),
        Move("groups.start", "/v1/groups/{id}/start", "groups", moves={"new": "running"}),
        Insert(
            "places.register",
            "/v1/shards/{shard}/register",
            "places",
            required=("host",),
            status=200,
        ),
        Listing("places.list", "/v1/shards/{shard}/hosts", "places", only="host", bare=True),
        Command(
            "orders.give",
            "/v1/desks/{desk}/orders",
            "orders",
            required=("order",),
            defaults={"status": "new"},
            walk=((5.0, "running"), (10.0, "done")),
        ),
        Read("orders.get", "/v1/orders/{id}", "orders"),
    )

    def add_event(self, title: str, **fields: Any) -> str:
        return self.add("events", {"title": title, "start": "2026-01-01T00:00:00Z", **fields})


class Caller:
    def __init__(self, fake: FakeOffice) -> None:
        self.fake = fake
        self.session = fake.session()

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"OAuth {self.fake.token}", **options.pop("headers", {})}
        return self.session.request(
            method, self.fake.url + path, headers=headers, timeout=LIMIT, **options
        )


@pytest.fixture
def fake() -> Iterator[FakeOffice]:
    fake = FakeOffice()
    yield fake
    fake.check()


@pytest.fixture
def call(fake: FakeOffice) -> Caller:
    return Caller(fake)


def titles(answer: requests.Response) -> list[str]:
    return [item["title"] for item in answer.json()["items"]]


def test_it_has_the_operations_of_its_table(fake: FakeOffice) -> None:
    assert fake.ops == sorted(operation.op for operation in FakeOffice.operations)


def test_a_list_comes_in_pages_of_a_hundred_in_the_order_of_making(
    fake: FakeOffice, call: Caller
) -> None:
    for number in range(120):
        fake.add_event(str(number))

    whole = call("GET", "/v1/events")
    assert titles(whole) == [str(number) for number in range(100)]
    assert whole.json()["total"] == 120
    page = call("GET", "/v1/events", params={"limit": 30, "offset": 110})
    assert titles(page) == [str(number) for number in range(110, 120)]
    assert page.json()["total"] == 120


@pytest.mark.parametrize(
    "params", [{"limit": "1001"}, {"limit": "x"}, {"offset": "-1"}, {"limit": "٣"}, {"other": 1}]
)
def test_a_page_that_cannot_be_is_a_400(call: Caller, params: dict[str, str]) -> None:
    assert call("GET", "/v1/events", params=params).status_code == 400


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"type": "release"}, ["one", "two"]),
        ({"type": "release", "title": "t"}, ["two"]),
        ({"tags": "a,b"}, ["two"]),
        ({"tags": "c"}, []),
        ({"from": "2026-01-02T00:00:00Z"}, ["two", "three"]),
        ({"from": "2026-01-02T03:00:00+03:00", "to": "2026-01-03T00:00:00"}, ["two"]),
    ],
)
def test_a_list_is_filtered(
    fake: FakeOffice, call: Caller, params: dict[str, str], found: list[str]
) -> None:
    fake.add_event("one", type="release", tags=["a"])
    fake.add_event("two", type="release", tags=["b", "a"], start="2026-01-02T00:00:00Z")
    fake.add_event("three", start="2026-01-03T00:00:00Z")

    assert titles(call("GET", "/v1/events", params=params)) == found


def test_a_time_that_is_none_is_a_400(fake: FakeOffice, call: Caller) -> None:
    fake.add_event("one")

    assert call("GET", "/v1/events", params={"from": "yesterday"}).status_code == 400


def test_what_is_posted_has_a_number_and_its_times(fake: FakeOffice, call: Caller) -> None:
    fake.clock.advance(90.0)
    event = {"title": "x", "start": "2026-01-01T00:00:00Z"}

    first = call("POST", "/v1/events", json=event)
    second = call("POST", "/v1/events", json=event)

    assert (first.status_code, first.json(), second.json()) == (201, {"id": "1"}, {"id": "2"})
    time = "2026-01-01T00:01:30Z"
    stored = {**event, "id": "1", "tags": [], "created_at": time, "updated_at": time}
    assert call("GET", "/v1/events/1").json() == stored


@pytest.mark.parametrize("body", [{"title": "x"}, {"title": "", "start": "x"}, ["x"], "x"])
def test_a_body_without_what_is_required_is_a_400_and_makes_nothing(
    fake: FakeOffice, call: Caller, body: object
) -> None:
    assert call("POST", "/v1/events", json=body).status_code == 400
    assert fake.all("events") == []


def test_an_idempotency_key_makes_one_thing_of_one_body(fake: FakeOffice, call: Caller) -> None:
    event = {"title": "x", "start": "2026-01-01T00:00:00Z"}
    key = {"Idempotency-Key": "k"}

    first = call("POST", "/v1/events", json=event, headers=key)
    again = call("POST", "/v1/events", json=event, headers=key)
    other = call("POST", "/v1/events", json={**event, "title": "y"}, headers=key)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json() == again.json() and len(fake.all("events")) == 1


def test_a_unique_field_finds_the_first_one_whatever_else_the_body_has(
    fake: FakeOffice, call: Caller
) -> None:
    event = {"title": "x", "start": "2026-01-01T00:00:00Z", "external_id": "e"}

    first = call("POST", "/v1/events", json=event)
    again = call("POST", "/v1/events", json={**event, "title": "y"})

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() and titles(call("GET", "/v1/events")) == ["x"]
    call("DELETE", "/v1/events/1")
    assert call("POST", "/v1/events", json=event).json() == {"id": "2"}


def test_a_patch_changes_its_fields_and_the_time_but_not_the_key(
    fake: FakeOffice, call: Caller
) -> None:
    fake.add_event("x", type="release")
    fake.clock.advance(1.0)

    changed = call("PATCH", "/v1/events/1", json={"end": "later", "type": None}).json()

    assert (changed["title"], changed["end"], changed["type"]) == ("x", "later", None)
    assert changed["created_at"] < changed["updated_at"] == "2026-01-01T00:00:01Z"
    assert call("PATCH", "/v1/events/1", json={"id": "2"}).status_code == 400
    assert call("PATCH", "/v1/events/7", json={}).status_code == 404


def test_what_is_deleted_is_gone(fake: FakeOffice, call: Caller) -> None:
    fake.add_event("x")

    assert call("DELETE", "/v1/events/1").status_code == 204
    assert call("DELETE", "/v1/events/1").status_code == 404
    assert call("GET", "/v1/events/1").json()["error"] == "not_found"


def test_a_version_guards_each_change(fake: FakeOffice, call: Caller) -> None:
    knob = "/v1/knobs/web/port"
    assert call("PUT", knob, json={"value": 1}).status_code == 428
    assert call("PUT", knob, json={"value": 1}, headers={"If-Match": '"1"'}).status_code == 412
    new = call("PUT", knob, json={"value": 1}, headers={"If-None-Match": "*"})
    assert new.status_code == 201 and new.json()["path"] == "web/port"
    assert call("PUT", knob, json={"value": 2}, headers={"If-None-Match": "*"}).status_code == 412

    first = {"If-Match": new.headers["ETag"]}
    changed = call("PUT", knob, json={"value": 2}, headers=first)
    stale = call("PUT", knob, json={"value": 3}, headers=first)

    assert (changed.status_code, stale.status_code) == (200, 412)
    assert stale.json()["error"] == "stale_version"
    assert call("DELETE", knob).status_code == 428
    assert call("DELETE", knob, headers=first).status_code == 412
    assert call("GET", knob).json()["value"] == 2
    assert call("DELETE", knob, headers={"If-Match": changed.headers["ETag"]}).status_code == 204


def test_a_version_is_never_given_twice(fake: FakeOffice, call: Caller) -> None:
    seen = []
    for _ in range(3):
        key = fake.add("knobs", {"path": "a", "value": 1})
        seen.append(call("GET", "/v1/knobs/a").headers["ETag"])
        fake.remove("knobs", key)

    assert len(set(seen)) == 3


def test_what_did_not_change_is_a_304(fake: FakeOffice, call: Caller) -> None:
    fake.add("knobs", {"path": "a", "value": 1})
    known = {"If-None-Match": call("GET", "/v1/knobs/a").headers["ETag"]}

    same = call("GET", "/v1/knobs/a", headers=known)
    fake.change("knobs", "a", {"value": 2})
    other = call("GET", "/v1/knobs/a", headers=known)

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200 and other.json()["value"] == 2


def test_a_history_has_each_change_and_outlives_the_item(fake: FakeOffice, call: Caller) -> None:
    fake.add("knobs", {"path": "a/b", "value": 1})
    fake.change("knobs", "a/b", {"value": 2})
    fake.remove("knobs", "a/b")

    history = call("GET", "/v1/history/a/b").json()

    assert history == {"items": [{"value": 2}, {"value": 1}], "total": 2}


def test_a_put_under_the_callers_key_is_made_once(fake: FakeOffice, call: Caller) -> None:
    statuses = [
        call("PUT", "/v1/groups/g1", json={"tasks": tasks}).status_code for tasks in ([1], [1], [2])
    ]

    assert statuses == [201, 200, 409]
    assert fake.get("groups", "g1") == {"id": "g1", "tasks": [1], "status": "new"}
    fake.add("groups", {"id": "g2"})
    assert call("PUT", "/v1/groups/g2", json={}).status_code == 409
    call("DELETE", "/v1/groups/g1")
    assert call("PUT", "/v1/groups/g1", json={"tasks": [2]}).status_code == 201


def test_a_repeated_put_finds_the_item_as_it_is_now(fake: FakeOffice, call: Caller) -> None:
    call("PUT", "/v1/groups/g1", json={})
    call("POST", "/v1/groups/g1/start", json={})

    assert call("PUT", "/v1/groups/g1", json={}).json()["status"] == "running"


def test_a_move_is_only_from_the_states_that_have_it(fake: FakeOffice, call: Caller) -> None:
    fake.add("groups", {"id": "g", "status": "new"})

    moved, wrong = (call("POST", "/v1/groups/g/start") for _ in range(2))

    assert (moved.status_code, moved.json()["status"]) == (200, "running")
    assert (wrong.status_code, wrong.json()["error"]) == (409, "wrong_state")
    assert call("POST", "/v1/groups/h/start").status_code == 404


def test_fields_of_the_path_become_fields_and_filters(fake: FakeOffice, call: Caller) -> None:
    for shard, host in (("s1", "h1"), ("s1", "h2"), ("s2", "h1"), ("s1", "h1")):
        assert call("POST", f"/v1/shards/{shard}/register", json={"host": host}).status_code == 200

    assert call("GET", "/v1/shards/s1/hosts").json() == ["h1", "h2"]
    assert fake.get("places", "s2/h1") == {"shard": "s2", "host": "h1"}


def test_a_command_is_a_202_that_walks_by_the_clock(fake: FakeOffice, call: Caller) -> None:
    key = {"Idempotency-Key": "k"}
    given = call("POST", "/v1/desks/d/orders", json={"order": "tea"}, headers=key)
    again = call("POST", "/v1/desks/d/orders", json={"order": "tea"}, headers=key)
    assert given.status_code == again.status_code == 202
    assert given.json() == again.json() == {"id": "1", "status": "new"}

    seen = []
    for seconds in (4.9, 0.1, 9.9, 0.1):
        fake.clock.advance(seconds)
        seen.append(call("GET", "/v1/orders/1").json()["status"])

    assert seen == ["new", "running", "running", "done"]


def test_a_clock_that_leaps_misses_no_step(fake: FakeOffice, call: Caller) -> None:
    call("POST", "/v1/desks/d/orders", json={"order": "tea"})
    fake.clock.advance(60.0)

    assert call("GET", "/v1/orders/1").json()["status"] == "done"


def test_what_is_due_later_meets_only_what_is_still_there(fake: FakeOffice, call: Caller) -> None:
    fake.add("knobs", {"path": "a", "value": 1})
    fake.later(10.0, "knobs", "a", None)
    fake.add("knobs", {"path": "b", "value": 1})
    fake.later(10.0, "knobs", "b", {"value": 2})
    fake.remove("knobs", "b")
    fake.add("knobs", {"path": "b", "value": 3})

    fake.clock.advance(10.0)

    assert call("GET", "/v1/knobs/a").status_code == 404
    assert call("GET", "/v1/knobs/b").json()["value"] == 3


def test_what_a_test_puts_in_is_not_shared_with_it(fake: FakeOffice) -> None:
    item: dict[str, Any] = {"id": "g", "tasks": []}
    fake.add("groups", item)
    item["tasks"].append(1)

    assert fake.get("groups", "g") == {"id": "g", "tasks": []}


def test_an_unknown_table_is_named(fake: FakeOffice) -> None:
    with pytest.raises(ValueError, match="FakeOffice has no table 'nothing'"):
        fake.add("nothing", {})


def test_reset_equals_a_new_one(fake: FakeOffice, call: Caller) -> None:
    call("POST", "/v1/desks/d/orders", json={"order": "tea"}, headers={"Idempotency-Key": "k"})
    fake.add("knobs", {"path": "a", "value": 1})

    fake.reset()

    assert fake.state == FakeOffice().state
