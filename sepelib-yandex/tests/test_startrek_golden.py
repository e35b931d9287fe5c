"""The client and the fake, each held against answers written by hand from published facts."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sepelib.yandex.errors import NotFound, VersionConflict
from sepelib.yandex.startrek import Issue, StartrekClient
from sepelib.yandex.testing import FakeStartrek, check_shape, sample, samples

MOMENT = datetime(2026, 6, 11, 5, 16, 1, 339000, tzinfo=UTC)

# What the client makes of each sample, and what that has to be.
READ: dict[str, tuple[Callable[[StartrekClient], Any], Any]] = {
    "myself_list": (lambda c: c.myself().login, "ann"),
    "myself": (lambda c: (c.myself().uid, c.myself().display), (11, "Ann")),
    "issue": (
        lambda c: (lambda i: (i.key, i["votes"], i.status.key, i.created_at, i.aliases))(
            c.issues.get("T-7")
        ),
        ("T-7", 0, "open", MOMENT, ["OLD-1"]),
    ),
    "created": (lambda c: c.issues.create("T", "Disk is full").version, 1),
    "issue_with_local_field": (
        lambda c: c.issues.get("T-7")["6063181a59590578909db920--room"],
        "B12",
    ),
    "moved": (
        lambda c: (lambda i: (i.key, i.aliases, i["previousQueue"]["key"]))(
            c.issues.move("T-7", "S")
        ),
        ("S-1", ["T-7"], "T"),
    ),
    "search": (lambda c: [i.key for i in c.issues.search(queue="T", limit=1)], ["T-7"]),
    "scroll": (lambda c: [i.key for i in c.issues.scroll(query="x", limit=1)], ["T-7"]),
    "scroll_end": (lambda c: [i.key for i in c.issues.scroll(query="x")], ["T-7"]),
    "count": (lambda c: c.issues.count(query="x"), 5),
    "transitions": (
        lambda c: [(w.id, w.to.key, w.screen.id) for w in c.issues.transitions("T-7")],
        [("close", "closed", "50")],
    ),
    "executed": (
        lambda c: [(w.id, w.to.key, w.screen) for w in c.issues.execute("T-7", "close")],
        [("reopen", "open", None)],
    ),
    "comment": (
        lambda c: (lambda m: (m.id, m.long_id, m.version, m.author.display, m.created_at))(
            c.comments.create("T-7", "x")
        ),
        (626, "5fa15a24ac894475dd14ff07", 1, "Ann", MOMENT),
    ),
    "comments": (lambda c: [m.text for m in c.comments.list("T-7")], ["On rack 7"]),
    "link": (
        lambda c: (lambda n: (n.id, n.type.id, n.direction, n.object.key))(
            c.links.create("T-7", "relates", "T-8")
        ),
        (10, "relates", "outward", "T-8"),
    ),
    "attachment": (
        lambda c: (lambda a: (a.id, a.name, a.size, a.mimetype))(
            c.attachments.upload("T-7", b"line\n", "log.txt")
        ),
        ("4159", "log.txt", 5, "text/plain"),
    ),
    "changelog": (
        lambda c: [(e.type, e.issue.key, e.fields) for e in c.issues.changelog("T-7", limit=1)],
        [("IssueUpdated", "T-7", ())],
    ),
    "bulk": (
        lambda c: (lambda b: (b.status, b.status_text, b.issue_percent, b.over))(
            c.bulk.update(["T-7"], {"tags": ["x"]})
        ),
        ("CREATED", "Bulk change is created", 0, False),
    ),
    "bulk_over": (
        lambda c: (lambda b: (b.status, b.chunk_percent, b.over, b.failed))(c.bulk.get("1")),
        ("COMPLETE", 100, True, False),
    ),
    "queues": (lambda c: [(q.key, q.version) for q in c.queues.list()], [("T", 5)]),
    "queue_with_text_version": (lambda c: [q.version for q in c.queues.list()], ["5"]),
    "fields": (
        lambda c: [f.raw["schema"]["type"] for f in c.dictionaries.fields()],
        ["string"],
    ),
    "error": (lambda c: _refusal(c, NotFound), (404, "no issue T-9", {})),
    "error_of_fields": (lambda c: _refusal(c, Exception), (422, "", {"summary": "required"})),
    "conflict": (lambda c: _refusal(c, VersionConflict), (409, "the version is 4, not 3", {})),
}

# How the fake is asked for the like.
ASKED: dict[str, tuple[str, str, Any]] = {
    "myself": ("GET", "/myself", None),
    "myself_list": ("GET", "/myself", None),
    "issue": ("GET", "/issues/T-1", None),
    "issue_with_local_field": ("GET", "/issues/T-1", None),
    "created": ("POST", "/issues/", {"queue": "T", "summary": "x"}),
    "moved": ("POST", "/issues/T-1/_move?queue=S&moveAllFields=true", None),
    "search": ("POST", "/issues/_search?perPage=1", {"queue": "T"}),
    "scroll": (
        "POST",
        "/issues/_search?scrollType=sorted&perScroll=1",
        {"filter": {"queue": "T"}},
    ),
    "scroll_end": ("POST", "/issues/_search?scrollType=sorted", {"filter": {"queue": "T"}}),
    "count": ("POST", "/issues/_count", {"filter": {"queue": "T"}}),
    "transitions": ("GET", "/issues/T-2/transitions", None),
    "executed": ("POST", "/issues/T-1/transitions/close/_execute", {"resolution": "fixed"}),
    "comment": ("POST", "/issues/T-1/comments", {"text": "x"}),
    "comments": ("GET", "/issues/T-1/comments", None),
    "link": ("POST", "/issues/T-1/links", {"relationship": "relates", "issue": "T-2"}),
    "attachment": ("POST", "/issues/T-1/attachments/?filename=log.txt", b"line\n"),
    "changelog": ("GET", "/issues/T-1/changelog?perPage=1", None),
    "bulk": ("POST", "/bulkchange/_update", {"issues": ["T-1"], "values": {"tags": ["x"]}}),
    "bulk_over": ("GET", "/bulkchange/over", None),
    "queues": ("GET", "/queues", None),
    "fields": ("GET", "/fields", None),
    "error": ("GET", "/issues/T-9", None),
    "error_of_fields": ("POST", "/issues/", {"queue": "T"}),
    "conflict": ("PATCH", "/issues/T-1?version=3", {"summary": "x"}),
    "cleared": ("POST", "/system/search/scroll/_clear", {}),
}
NOT_ASKED = {"queue_with_text_version"}  # reported, and no default of the fake


def _refusal(client: StartrekClient, kind: type[Exception]) -> tuple[Any, ...]:
    with pytest.raises(kind) as caught:
        client.issues.update("T-7", version=3, summary="x")
    error: Any = caught.value
    return error.status, error.message, error.fields


@pytest.fixture
def prepared(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake = fake_startrek
    fake.bulk_hidden = fake.bulk_polls = 0
    fake.add_queue("T")
    fake.add_queue("S")
    fake.add_issue("T", summary="Disk is full", **{"6063181a59590578909db920--room": "B12"})
    # Somewhere between two statuses each way of which has a screen.
    fake.state.workflow = [way for way in fake.state.workflow if way.id != "start"]
    fake.add_issue("T", summary="Fan is loud")
    issue = fake.issue("T-1")
    fake.comment(issue, {"text": "On rack 7"})
    fake.edited(fake.issue("T-1"), {"tags": ["x"]})
    return fake


def test_all_samples_are_asked_for() -> None:
    names = {one.name for one in samples("startrek")}

    assert READ.keys() == names - {"cleared"}  # nothing is read from that one
    assert ASKED.keys() == names - NOT_ASKED


@pytest.mark.parametrize("name", READ)
def test_the_client_reads_what_is_published(
    fake_startrek: FakeStartrek, startrek_client: StartrekClient, name: str
) -> None:
    fake_startrek.faults.play(sample("startrek", name).reply, times=2)
    read, expected = READ[name]

    assert read(startrek_client) == expected
    fake_startrek.faults.clear()


@pytest.mark.parametrize("name", ASKED)
def test_the_fake_answers_in_the_published_form(prepared: FakeStartrek, name: str) -> None:
    expected = sample("startrek", name)
    method, path, body = ASKED[name]
    prepared.myself_as_list = name == "myself_list"
    sent = {"files": {"file": ("file", body)}} if isinstance(body, bytes) else {"json": body}
    with prepared.session() as session:
        session.headers["Authorization"] = f"OAuth {prepared.token}"
        if name == "bulk_over":
            made = session.post(
                f"{prepared.url}/v2/bulkchange/_move", json={"issues": ["T-1"], "queue": "S"}
            )
            path = f"/bulkchange/{made.json()['id']}"

        answer = session.request(method, f"{prepared.url}/v2{path}", timeout=20, **sent)

    assert answer.status_code == expected.reply.status
    if expected.reply.body:
        check_shape(answer.json(), expected.json)
    else:
        assert answer.content == b""
    of_service = [pair for pair in expected.reply.headers if pair[0] != "Content-Type"]
    for header, value in of_service:
        assert header in answer.headers
        assert value.count("rel=") == answer.headers[header].count("rel=")


def test_an_issue_of_the_samples_is_a_mapping() -> None:
    issue = Issue.from_dict(sample("startrek", "issue").json)

    assert dict(issue) == sample("startrek", "issue").json and len(issue) == len(issue.raw)
