"""What the fake takes and refuses, asked by nothing but requests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from sepelib.util.testing import Clock
from sepelib.yandex.testing import FakeStartrek

pytestmark = pytest.mark.yandex(transport="both")

Ask = Callable[..., requests.Response]


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    return fake_startrek


@pytest.fixture
def ask(fake: FakeStartrek) -> Iterator[Ask]:
    with fake.session() as session:

        def asked(method: str, path: str, json: Any = None, **kwargs: Any) -> requests.Response:
            headers = {"Authorization": f"OAuth {fake.token}", **kwargs.pop("headers", {})}
            url = f"{fake.url}/v2{path}"
            return session.request(method, url, json=json, headers=headers, timeout=20, **kwargs)

        yield asked


def test_an_error_has_its_three_keys(fake: FakeStartrek, ask: Ask) -> None:
    assert ask("GET", "/issues/TEST-9").json() == {
        "errors": {},
        "errorMessages": ["no issue TEST-9"],
        "statusCode": 404,
    }
    fields = ask("POST", "/issues/", {"description": "x"})
    assert (fields.status_code, fields.json()["errorMessages"]) == (422, [])
    assert fields.json()["errors"] == {"summary": "required", "queue": "required"}


def test_who_asks_is_shown_by_token_and_organization(fake: FakeStartrek, ask: Ask) -> None:
    assert ask("GET", "/myself", headers={"Authorization": "OAuth other"}).status_code == 401
    assert ask("GET", "/myself", headers={"Authorization": fake.token}).status_code == 401
    bearer = {"Authorization": f"Bearer {fake.token}"}
    assert ask("GET", "/myself", headers=bearer).status_code == 200
    fake.cloud_org_id = "c7"
    assert ask("GET", "/myself").status_code == 403
    assert ask("GET", "/myself", headers={"X-Org-ID": "c7"}).status_code == 403
    assert ask("GET", "/myself", headers={"X-Cloud-Org-ID": "c7"}).status_code == 200


def test_there_are_two_versions_of_the_api(fake: FakeStartrek, ask: Ask) -> None:
    assert [ask("GET", f"/../{v}/myself").status_code for v in ("v2", "v3", "v4")] == [
        200,
        200,
        404,
    ]


def test_an_unknown_parameter_and_another_content_type_are_refused(
    fake: FakeStartrek, ask: Ask
) -> None:
    fake.add_issue("TEST")

    assert ask("GET", "/issues/TEST-1?expnad=transitions").status_code == 400
    assert ask("POST", "/issues/_search", data=b"{}").status_code == 415
    assert ask("POST", "/issues/TEST-1/attachments/?filename=f", data=b"x").status_code == 415
    other = {"files": {"upload": ("f", b"x")}}
    assert ask("POST", "/issues/TEST-1/attachments/?filename=f", **other).status_code == 400
    assert ask("POST", "/issues/", [1]).status_code == 422
    assert ask("POST", "/issues/", {"queue": "TEST", "summary": "x", "asignee": 1}).json()[
        "errors"
    ] == {"asignee": "no such field; see add_field() of the fake"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"queue": "TEST", "query": "x"},
        {"keys": ["TEST-1"], "filter": {"queue": "TEST"}},
        {"queue": "TEST", "order": ["+key"]},
        {"filter": {"no_such_field": "x"}},
        {"query": "not registered"},
        {"filterId": 7, "queue": "TEST"},
    ],
)
def test_a_search_refuses_what_it_does_not_understand(
    fake: FakeStartrek, ask: Ask, body: Any
) -> None:
    assert ask("POST", "/issues/_search", body).status_code == 400


def test_a_search_does_not_mind_nulls(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_issue("TEST")
    body = {"queue": "TEST", "keys": None, "filter": None, "query": None, "order": None}

    assert [one["key"] for one in ask("POST", "/issues/_search", body).json()] == ["TEST-1"]
    assert ask("POST", "/issues/_count", {"queue": "TEST"}).status_code == 400


def test_a_page_has_its_totals_and_links(fake: FakeStartrek, ask: Ask) -> None:
    for _ in range(5):
        fake.add_issue("TEST")

    page = ask("POST", "/issues/_search?perPage=2&page=2", {"queue": "TEST"})
    last = ask("POST", "/issues/_search?perPage=2&page=3", {"queue": "TEST"})
    behind = ask("POST", "/issues/_search?perPage=2&page=4", {"queue": "TEST"})

    assert [one["key"] for one in page.json()] == ["TEST-3", "TEST-4"]
    assert (page.headers["X-Total-Count"], page.headers["X-Total-Pages"]) == ("5", "3")
    assert set(page.links) == {"first", "seek", "next"} and set(last.links) == {"first", "seek"}
    assert page.links["next"]["url"] == f"{fake.url}/v2/issues/_search?perPage=2&page=3"
    assert page.links["seek"]["url"].endswith("perPage=2{&page}") and behind.json() == []
    for wrong in ("page=0", "perPage=x", "page=-1", "perPage="):
        assert ask("POST", f"/issues/_search?{wrong}", {"queue": "TEST"}).status_code == 400


def test_the_cap_of_the_search_is_kept_in_silence(fake: FakeStartrek, ask: Ask) -> None:
    fake.search_cap = 4
    for _ in range(6):
        fake.add_issue("TEST")

    last = ask("POST", "/issues/_search?perPage=3&page=2", {"queue": "TEST"})
    assert len(last.json()) == 1 and last.headers["X-Total-Count"] == "4"
    assert ask("POST", "/issues/_search?perPage=3&page=3", {"queue": "TEST"}).json() == []


def test_a_scroll_is_opened_turned_and_freed(fake: FakeStartrek, ask: Ask) -> None:
    for _ in range(5):
        fake.add_issue("TEST")
    of_queue = {"filter": {"queue": "TEST"}}

    first = ask("POST", "/issues/_search?scrollType=unsorted&perScroll=2", of_queue)
    name, token = first.headers["X-Scroll-Id"], first.headers["X-Scroll-Token"]
    second = ask("POST", f"/issues/_search?scrollId={name}", of_queue)
    by_link = ask("POST", second.links["next"]["url"].partition("/v2")[2], of_queue)

    assert [len(one.json()) for one in (first, second, by_link)] == [2, 2, 1]
    assert "X-Scroll-Id" not in by_link.headers and "next" not in by_link.links
    wrong = ask("POST", "/system/search/scroll/_clear", {name: "guessed"})
    assert wrong.status_code == 400 and name in fake.state.scrolls
    freed = ask("POST", "/system/search/scroll/_clear", {name: token, "unknown": "x"})
    assert (freed.status_code, freed.content) == (200, b"") and fake.state.scrolls == {}
    assert ask("POST", f"/issues/_search?scrollId={name}", of_queue).status_code == 404


def test_a_scroll_is_forgotten_when_nobody_turns_it(fake: FakeStartrek, ask: Ask) -> None:
    for _ in range(5):
        fake.add_issue("TEST")
    path = "/issues/_search?scrollType=sorted&perScroll=1&scrollTTLMillis=5000"
    name = ask("POST", path, {"filter": {}}).headers["X-Scroll-Id"]
    fake.clock.advance(4.0)
    assert ask("POST", f"/issues/_search?scrollId={name}", {}).status_code == 200
    fake.clock.advance(4.0)
    assert ask("POST", f"/issues/_search?scrollId={name}", {}).status_code == 200
    fake.clock.advance(5.0)

    assert ask("POST", f"/issues/_search?scrollId={name}", {}).status_code == 404


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("scrollType=sorted", {"queue": "TEST"}),
        ("scrollType=sorted", {"keys": ["TEST-1"]}),
        ("scrollType=sorted&perScroll=1001", {"filter": {}}),
        ("scrollType=backwards", {"filter": {}}),
        ("scrollType=sorted&scrollTTLMillis=soon", {"filter": {}}),
    ],
)
def test_a_scroll_that_is_not_supported(
    fake: FakeStartrek, ask: Ask, query: str, body: Any
) -> None:
    refused = ask("POST", f"/issues/_search?{query}", body)

    assert refused.status_code == 400 and fake.state.scrolls == {}
    if "filter" not in body:
        assert refused.json()["errorMessages"] == ["Scroll is not supported"]


def test_versions_are_told_by_query_or_header(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_issue("TEST")
    fake.add_component("TEST", "disk")

    def edit(path: str, **headers: str) -> int:
        return ask("PATCH", path, {"description": "x"}, headers=headers).status_code

    assert edit("/issues/TEST-1?version=1") == 200
    assert edit("/issues/TEST-1?version=1") == 409
    assert edit("/issues/TEST-1", **{"If-Match": '"1"'}) == 409
    assert edit("/issues/TEST-1", **{"If-Match": '"2"'}) == 200
    assert edit("/issues/TEST-1") == 200 and fake.issue("TEST-1")["version"] == 4
    assert edit("/components/1") == 428
    assert edit("/components/1", **{"If-Match": '"7"'}) == 412
    assert edit("/components/1?version=1") == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"status": "closed"}, {"status": "it changes by transitions only"}),
        ({"key": "X-1"}, {"key": "it cannot be changed"}),
        ({"queue": "OPS"}, {"queue": "it cannot be changed"}),
        ({"assignee": "nobody"}, {"assignee": "no nobody among users"}),
        ({"summary": {"add": ["x"]}}, {"summary": "it has no list"}),
        ({"tags": "x"}, {"tags": "it has a list"}),
        ({"tags": {"replace": ["x"]}}, {"tags": "replace has target and replacement"}),
        ({"attachmentIds": ["9"]}, {"attachmentIds": "no temporary attachment 9"}),
    ],
)
def test_an_edit_that_is_refused_changes_nothing(
    fake: FakeStartrek, ask: Ask, body: Any, why: dict[str, str]
) -> None:
    before = fake.add_issue("TEST", tags=["a"])

    refused = ask("PATCH", "/issues/TEST-1", {"description": "x", **body})

    assert refused.status_code == 400 and refused.json()["errors"] == why
    assert fake.issue("TEST-1") is before


@pytest.mark.parametrize(
    ("path", "body", "strange"),
    [
        ("/issues/", {"queue": "TEST", "summary": "x"}, {"unique": [1], "attachmentIds": 1}),
        ("/issues/_search", {}, {"keys": [{}], "query": [1], "filter": [1]}),
        ("/issues/_search", {"filter": {}}, {"order": [1]}),
        ("/issues/TEST-1/comments", {"text": "x"}, {"summonees": 1, "attachmentIds": True}),
        ("/bulkchange/_update", {"values": {"tags": []}}, {"issues": 7}),
        ("/bulkchange/_update", {"issues": ["TEST-1"]}, {"values": ["tags"]}),
    ],
)
def test_values_of_another_kind_are_refused(
    fake: FakeStartrek, ask: Ask, path: str, body: Any, strange: Any
) -> None:
    fake.add_issue("TEST")

    for name, value in strange.items():
        refused = ask("POST", path, {**body, name: value})
        assert refused.status_code == 422 and list(refused.json()["errors"]) == [name]


def test_a_unique_is_taken_once(fake: FakeStartrek, ask: Ask) -> None:
    body = {"queue": "TEST", "summary": "x", "unique": "u"}

    assert [ask("POST", "/issues/", body).status_code for _ in range(2)] == [201, 409]
    assert ask("POST", "/issues/_findByUnique?unique=u").json()["key"] == "TEST-1"
    assert ask("POST", "/issues/_findByUnique?unique=v").status_code == 404
    assert len(fake.state.issues) == 1


def test_a_queue_may_edit_what_was_just_created(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_automation("TEST", tags=["triage"])

    created = ask("POST", "/issues/", {"queue": "TEST", "summary": "x"}).json()

    assert (created["version"], created["tags"]) == (1, [])
    assert (fake.issue("TEST-1")["version"], fake.issue("TEST-1")["tags"]) == (2, ["triage"])


def test_a_workflow_of_its_own(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_entry("statuses", "review", "In review")
    fake.add_transition("ask", ["open"], "review", required=["assignee"])
    fake.add_issue("TEST")

    def take(name: str, body: Any) -> tuple[int, Any]:
        answer = ask("POST", f"/issues/TEST-1/transitions/{name}/_execute", body)
        found = answer.json()
        return answer.status_code, found["errors"] if answer.status_code >= 400 else found

    assert take("ask", {}) == (422, {"assignee": "required"})
    assert take("ask", {"assignee": "robot", "summary": "x"}) == (
        400,
        {"summary": "not on the screen of the transition"},
    )
    assert take("reopen", {})[0] == 404
    assert take("ask", {"assignee": "robot", "comment": "please"}) == (200, [])
    assert fake.issue("TEST-1")["status"]["display"] == "In review"


def test_a_cursor_of_the_changelog_is_no_id_of_an_entry(fake: FakeStartrek, ask: Ask) -> None:
    issue = fake.add_issue("TEST")
    for summary in ("a", "b"):
        issue = fake.edited(issue, {"summary": summary})

    page = ask("GET", "/issues/TEST-1/changelog?perPage=2")
    last = page.json()[-1]["id"]

    assert ask("GET", f"/issues/TEST-1/changelog?id={last}").status_code == 400
    rest = ask("GET", page.links["next"]["url"].partition("/v2")[2])
    assert [one["fields"][0]["to"] for one in rest.json()] == ["b"] and "next" not in rest.links


def test_a_bulk_change_is_hidden_then_created_then_over(fake: FakeStartrek, ask: Ask) -> None:
    fake.bulk_hidden = 2
    fake.add_issue("TEST")
    body = {"issues": [{"key": "TEST-1"}], "values": {"tags": ["x"]}}
    made = ask("POST", "/bulkchange/_update", body).json()

    seen = [ask("GET", f"/bulkchange/{made['id']}") for _ in range(5)]

    assert [one.status_code for one in seen] == [404, 404, 200, 200, 200]
    assert [one.json()["status"] for one in seen[2:]] == ["CREATED", "COMPLETE", "COMPLETE"]
    assert fake.issue("TEST-1")["version"] == 2  # it was applied once
    assert ask("POST", "/bulkchange/_update", {"values": {"a": 1}}).status_code == 422
    assert ask("GET", "/bulkchange/7").status_code == 404


def test_a_test_may_end_a_bulk_change(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_issue("TEST")
    body = {"issues": ["TEST-1", "TEST-9"], "values": {"tags": ["x"]}}
    made = ask("POST", "/bulkchange/_update", body).json()

    fake.finish_bulk(made["id"])

    assert fake.state.bulk[made["id"]].answer["status"] == "FAILED"
    assert fake.issue("TEST-1")["tags"] == ["x"]


def test_urls_lead_back_to_the_fake(fake: FakeStartrek, ask: Ask) -> None:
    fake.add_issue("TEST")
    fake.add_attachment("TEST-1", "a b.txt", b"line\n")
    issue = ask("GET", "/issues/TEST-1").json()

    def follow(url: str) -> requests.Response:
        root, _, path = url.partition("/v2")
        assert root == fake.url
        return ask("GET", path)

    assert follow(issue["self"]).json() == issue
    for name in ("queue", "status", "type", "priority", "createdBy"):
        assert follow(issue[name]["self"]).json()["id"] == issue[name]["id"]
    (file,) = ask("GET", "/issues/TEST-1/attachments").json()
    content = follow(file["content"])
    assert content.content == b"line\n" and content.headers["Content-Type"] == "text/plain"


def test_a_reset_is_as_new_and_no_two_fakes_share_anything() -> None:
    one, other = FakeStartrek(clock=Clock(0.0)), FakeStartrek()
    one.add_queue("TEST"), one.add_user("ann"), one.add_automation("TEST", tags=["x"])
    one.add_issue("TEST", tags=["a"]), one.add_field("deadline"), one.add_query("q", bool)
    one.comment(one.issue("TEST-1"), {"text": "x"})
    one.add_transition("ask", ["open"], "closed")
    assert other.state == FakeStartrek().state != one.state

    one.reset()

    assert one.state == other.state
