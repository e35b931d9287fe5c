"""Issues, queues and the client's own settings, against the fake."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.yandex.auth import OAuthToken
from sepelib.yandex.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionRequired,
    VersionConflict,
)
from sepelib.yandex.startrek import Attachment, Comment, Issue, StartrekClient, Transition, User
from sepelib.yandex.testing import FakeStartrek, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    fake_startrek.add_queue("OPS")
    return fake_startrek


@pytest.fixture
def client(fake: FakeStartrek, startrek_client: StartrekClient) -> StartrekClient:
    return startrek_client


def test_an_issue_is_created_with_its_fields(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_user("ann", "Ann")
    parent = client.issues.create("TEST", "parent")
    fake.add_field("deadline")

    issue = client.issues.create(
        "TEST",
        "Disk is full",
        type="bug",
        assignee={"id": "2"},
        parent=parent,
        tags=["disk"],
        deadline=datetime(2026, 2, 1, 3, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=3))),
    )

    assert (issue.key, issue.version, issue.summary) == ("TEST-2", 1, "Disk is full")
    assert issue.type is not None and issue.type.key == "bug"
    assert issue.assignee is not None and issue.assignee.display == "Ann"
    assert issue.parent is not None and issue.parent.key == "TEST-1"
    assert issue.tags == ["disk"] and issue["deadline"] == "2026-02-01T00:00:00.250+0000"
    assert issue.created_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_each_create_has_a_unique_of_its_own(fake: FakeStartrek, client: StartrekClient) -> None:
    client.issues.create("TEST", "x")
    client.issues.create("TEST", "x")

    one, other = (call.json["unique"] for call in fake.calls.of("issues.create"))
    assert one != other and len(one) == len(other) == 32 and len(fake.state.issues) == 2


def test_a_unique_that_is_taken_gives_the_issue_that_has_it(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    first = client.issues.create("TEST", "x", unique="deploy-7")
    again = client.issues.create("TEST", "y", unique="deploy-7")

    assert again == first and len(fake.state.issues) == 1
    assert client.issues.by_unique("deploy-7") == first
    assert client.issues.by_unique("deploy-8") is None


def test_an_empty_unique_would_protect_nothing(fake: FakeStartrek, client: StartrekClient) -> None:
    with pytest.raises(ValueError, match="unique is empty"):
        client.issues.create("TEST", "x", unique="")

    assert fake.calls.ops == []


def test_whoever_the_token_is_of_may_be_named_in_fields(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    # As published, `myself` has a uid and a login and no id.
    me = User.from_dict({"uid": 1, "login": "robot"})

    issue = client.issues.create("TEST", "x", assignee=me)
    assert issue.assignee is not None and issue.assignee.display == "Robot"


def test_a_conflict_for_another_reason_is_raised(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.next("issues.create", status=409)

    with pytest.raises(Conflict) as caught:
        client.issues.create("TEST", "x")

    assert not isinstance(caught.value, VersionConflict) and caught.value.op == "issues.create"


def test_an_edit_of_an_old_version_is_refused(fake: FakeStartrek, client: StartrekClient) -> None:
    issue = client.issues.create("TEST", "x")
    client.issues.update(issue, version=1, summary="y")

    with pytest.raises(VersionConflict, match=r"409: the version is 2, not 1") as caught:
        client.issues.update(issue, version=issue.version, summary="z")

    assert caught.value.maybe_applied is False and caught.value.attempts == 1
    assert client.issues.update(issue, summary="z").version == 3


def test_the_version_of_a_new_issue_is_over_when_its_queue_edits_it(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_automation("TEST", tags=["triage"])
    issue = client.issues.create("TEST", "x")

    with pytest.raises(VersionConflict):
        client.issues.update(issue, version=issue.version, summary="y")

    assert issue.version == 1 and client.issues.get(issue).tags == ["triage"]


@pytest.mark.parametrize("status", [409, 412])
def test_both_conflicts_of_an_edit_are_one(
    fake: FakeStartrek, client: StartrekClient, status: int
) -> None:
    fake.add_issue("TEST")
    fake.faults.next(status=status)

    with pytest.raises(VersionConflict) as caught:
        client.issues.update("TEST-1", version=1, summary="y")

    assert caught.value.status == status


def test_a_component_is_edited_with_its_version_only(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_component("TEST", "disk")
    (component,) = client.queues.components("TEST")
    assert component.id is not None

    with pytest.raises(PreconditionRequired):
        client.dictionaries.update_component(component.id, name="disks")
    after = client.dictionaries.update_component(component.id, version=1, name="disks")
    with pytest.raises(VersionConflict) as caught:
        client.dictionaries.update_component(component.id, version=1, name="plates")

    assert caught.value.status == 412 and (after.name, after.version) == ("disks", 2)
    assert client.dictionaries.component(component.id).name == "disks"


def test_an_update_resets_empties_and_changes_lists(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_user("ann"), fake.add_user("bob")
    fake.add_issue("TEST", tags=["a", "b"], assignee="ann", followers=["ann"], description="d")

    client.issues.update("TEST-1", tags={"add": ["c"]}, assignee=None, followers=[])
    client.issues.update("TEST-1", tags={"remove": ["a"]}, description={"set": "e"})
    issue = client.issues.update(
        "TEST-1",
        tags={"replace": [{"target": "b", "replacement": "z"}]},
        followers={"add": ["bob"]},
    )

    assert issue.tags == ["z", "c"] and issue.assignee is None and issue.description == "e"
    assert [one.display for one in issue.followers] == ["Bob"]


def test_the_status_changes_by_transitions_only(fake: FakeStartrek, client: StartrekClient) -> None:
    issue = client.issues.create("TEST", "x")

    with pytest.raises(BadRequest) as caught:
        client.issues.update(issue, status="closed")

    assert caught.value.fields == {"status": "it changes by transitions only"}


def test_a_transition_asks_for_its_screen_and_gives_the_next_ones(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    issue = client.issues.create("TEST", "x")
    ways = client.issues.transitions(issue)
    (close,) = [way for way in ways if way.id == "close"]

    assert close.to is not None and close.to.key == "closed" and close.screen is not None
    with pytest.raises(BadRequest, match="422: resolution: required"):
        client.issues.execute(issue, close)
    after = client.issues.execute(issue, close, comment="done", resolution="fixed")

    closed = client.issues.get(issue)
    assert [way.id for way in after] == ["reopen"]
    assert closed.status is not None and closed.status.key == "closed"
    assert closed.previous_status is not None and closed.previous_status.key == "open"
    assert closed.resolution is not None and closed.resolution.key == "fixed"
    assert [comment.text for comment in client.comments.list(issue)] == ["done"]
    with pytest.raises(NotFound, match="no transition close from closed"):
        client.issues.execute(issue, "close", resolution="fixed")


def test_a_moved_issue_answers_to_both_of_its_keys(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    room = f"{7:024x}--room"
    issue = client.issues.create("TEST", "x", **{room: "B12"})
    client.issues.execute(issue, "start")

    moved = client.issues.move(issue, "OPS", initial_status=True, notify=False)

    assert (moved.key, moved.aliases, moved["previousQueue"]["key"]) == (
        "OPS-1",
        ["TEST-1"],
        "TEST",
    )
    assert moved.status is not None and moved.status.key == "open" and room not in moved
    assert client.issues.get("TEST-1") == moved == client.issues.get("OPS-1")
    assert fake.calls.of("issues.move")[-1].query["notify"] == "false"


def test_issues_are_cloned(fake: FakeStartrek, client: StartrekClient) -> None:
    issue = client.issues.create("TEST", "x")

    copies = client.issues.clone(issue, ["TEST", "OPS"], link_with_original=True)

    assert [copy.key for copy in copies] == ["TEST-2", "OPS-1"]
    links = [link.object.key for link in client.links.list(issue) if link.object is not None]
    assert links == ["TEST-2", "OPS-1"]


def test_only_the_fields_that_are_asked_for_come(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_issue("TEST", summary="x")
    fake.add_attachment("TEST-1", "log.txt", b"line\n")

    issue = client.issues.get("TEST-1", fields="summary", expand=["transitions", "attachments"])

    assert issue.summary == "x" and issue.queue is None and issue.key == "TEST-1"
    assert [one["id"] for one in issue["transitions"]] == ["start", "close"]
    assert [one["name"] for one in issue["attachments"]] == ["log.txt"]


@pytest.mark.parametrize("as_list", [False, True])
def test_myself_is_read_in_both_of_its_shapes(
    fake: FakeStartrek, client: StartrekClient, as_list: bool
) -> None:
    fake.myself_as_list = as_list

    assert client.myself().login == "robot"


def test_queues_and_dictionaries_are_read(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_version("TEST", "1.0")
    dictionaries = client.dictionaries

    assert [one.key for one in client.queues.list(per_page=1)] == ["TEST", "OPS"]
    assert len(fake.calls.of("queues.list")) == 2
    assert client.queues.get("OPS", expand="all").key == "OPS"
    assert [one.key for one in dictionaries.statuses()] == ["open", "inProgress", "closed"]
    assert "minor" in [one.key for one in dictionaries.priorities()]
    assert [one.key for one in dictionaries.resolutions()] == ["fixed", "wontFix"]
    assert [one.key for one in dictionaries.issue_types()] == ["task", "bug"]
    assert "summary" in [one.id for one in dictionaries.fields()]
    assert list(dictionaries.worklog()) == []
    assert dictionaries.user("robot").display == dictionaries.user(1).display == "Robot"
    (version,) = client.queues.versions("TEST")
    assert version.id is not None and dictionaries.version(version.id) == version


def test_an_action_is_sent_without_a_body(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_version("TEST", "1.0")

    assert client.dictionaries.archive_version(1).raw["archived"] is True
    assert fake.calls.of("dictionaries.archive_version")[-1].request.body == b""
    # The escape hatch, for whatever has no method here.
    answer = client.request("versions.get", "GET", "/v2/versions/{id}", at={"id": 1})
    assert answer.data["name"] == "1.0"


def test_the_organization_is_named_in_the_one_header_that_it_has(
    yandex_fakes: YandexFakes, fake: FakeStartrek
) -> None:
    fake.org_id = "7"
    right = yandex_fakes.client("startrek")
    wrong_kind = yandex_fakes.client("startrek", org_id=None, cloud_org_id="7")
    none = yandex_fakes.client("startrek", org_id=None)

    assert right.myself().login == "robot"
    for client in (wrong_kind, none):
        with pytest.raises(Forbidden, match="no access to this organization"):
            client.myself()
    sent = [call.headers for call in fake.calls.of("myself")]
    assert [headers.get("X-Org-ID") for headers in sent] == ["7", None, None]
    assert [headers.get("X-Cloud-Org-ID") for headers in sent] == [None, "7", None]
    with pytest.raises(ValueError, match="not both"):
        StartrekClient(org_id=7, cloud_org_id="x")


def test_the_version_of_the_api_is_a_setting(yandex_fakes: YandexFakes, fake: FakeStartrek) -> None:
    client = yandex_fakes.client("startrek", api_version="v3")
    fake.add_issue("TEST")

    found = client.issues.get("TEST-1")

    assert fake.calls.of("issues.get")[-1].request.path == "/v3/issues/TEST-1"
    assert "/v3/" in found["self"]


def test_a_section_makes_a_client() -> None:
    section: dict[str, Any] = {
        "auth": {"type": "oauth", "token": "t-secret"},
        "org_id": 7,
        "api_version": "v3",
        "timeout": {"connect": 1, "read": 10, "total": 30},
    }

    with StartrekClient.from_config(section) as client:
        assert repr(client) == "<StartrekClient at https://api.tracker.yandex.net>"
    StartrekClient.from_config({**section, "org_id": None, "cloud_org_id": "c"}).close()
    with pytest.raises(ConfigError, match="startrek has the unknown key orgid"):
        StartrekClient.from_config({**section, "orgid": 7})


def test_a_key_stays_within_its_segment_of_the_path(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    with pytest.raises(NotFound):
        client.issues.get("../queues?x=1")
    with pytest.raises(ValueError, match=r"no segment of a path"):
        client.issues.get("..")

    assert [call.request.path for call in fake.calls] == ["/v2/issues/..%2Fqueues%3Fx%3D1"]


def test_what_has_no_key_is_no_argument() -> None:
    with StartrekClient("http://startrek.test", OAuthToken("t")) as client:
        for call in (
            lambda: client.issues.get(Issue({})),
            lambda: client.issues.execute("T-1", Transition()),
            lambda: client.comments.delete("T-1", Comment()),
            lambda: client.attachments.open(Attachment()),
            lambda: client.attachments.open(Attachment.from_dict({"content": {"url": "x"}})),
            lambda: client.bulk.get(""),
            lambda: client.bulk.transition(["T-1"], Transition()),
            lambda: client.issues.create("T", "x", parent=Issue({})),
        ):
            with pytest.raises(ValueError, match=r"has (no|neither)"):
                call()


def test_a_date_without_a_zone_is_refused() -> None:
    client = StartrekClient("http://startrek.test", OAuthToken("t"))

    with client, pytest.raises(ValueError, match="no time zone"):
        client.issues.update("T-1", deadline=datetime(2026, 1, 1))


def test_a_day_is_sent_as_it_is(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_field("deadline")

    assert client.issues.create("TEST", "x", deadline=date(2026, 2, 1))["deadline"] == "2026-02-01"
