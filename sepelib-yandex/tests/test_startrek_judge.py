"""yandex_tracker_client, as it is published, in its ordinary use against the live fake.

A client that others wrote from the real service: what works for it here is likely right.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yandex_tracker_client import TrackerClient
from yandex_tracker_client import exceptions as tracker_errors

from sepelib.yandex.testing import FakeStartrek


@pytest.fixture
def fake() -> Iterator[FakeStartrek]:
    fake = FakeStartrek(org_id="7")
    fake.add_queue("TEST")
    fake.add_queue("OPS")
    with fake.serve():
        yield fake
    fake.check()


@pytest.fixture
def tracker(fake: FakeStartrek) -> Iterator[Any]:
    client = TrackerClient(token=fake.token, org_id="7", base_url=fake.url, retries=2)
    yield client
    client._connection.session.close()


def test_it_creates_reads_and_edits_issues(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_user("ann")

    created = tracker.issues.create(queue="TEST", summary="x", type={"key": "bug"}, tags=["a"])
    found = tracker.issues["TEST-1"]
    found.update(summary="y", assignee="ann", tags={"add": ["b"]})

    again = tracker.issues["TEST-1"]
    assert (created.key, created.status.key, created.type.key) == ("TEST-1", "open", "bug")
    assert (again.summary, again.version, again.tags) == ("y", 2, ["a", "b"])
    assert again.assignee.display == "Ann" and again.assignee.login == "ann"
    assert again.createdAt.endswith("+0000") and tracker.myself.login == "robot"


def test_an_edit_of_what_has_changed_meanwhile_is_its_conflict(
    fake: FakeStartrek, tracker: Any
) -> None:
    fake.add_automation("TEST", tags=["seen"])
    created = tracker.issues.create(queue="TEST", summary="x")

    with pytest.raises(tracker_errors.Conflict):
        created.update(summary="y")

    tracker.issues[created.key].update(summary="y")
    assert fake.issue("TEST-1")["summary"] == "y" and fake.issue("TEST-1")["version"] == 3


def test_its_create_that_lost_the_answer_finds_the_issue_by_unique(
    fake: FakeStartrek, tracker: Any
) -> None:
    fake.faults.next("issues.create", reset="after-apply")

    created = tracker.issues.create(queue="TEST", summary="x")

    assert created.key == "TEST-1" and len(fake.state.issues) == 1
    assert len(fake.calls.of("issues.by_unique")) == 1


def test_it_finds_page_by_page(fake: FakeStartrek, tracker: Any) -> None:
    for number in range(7):
        fake.add_issue("TEST", summary=f"{number}")
    fake.add_query("Queue: TEST", lambda issue: issue["queue"]["key"] == "TEST")

    by_filter = tracker.issues.find(filter={"queue": "TEST"}, per_page=3, order=["-key"])

    assert (len(by_filter), by_filter.pages_count) == (7, 3)
    assert [issue.summary for issue in by_filter.get_page(2)] == ["3", "2", "1"]
    assert [issue.summary for issue in by_filter] == ["6", "5", "4", "3", "2", "1", "0"]
    assert len(list(tracker.issues.find("Queue: TEST"))) == 7
    assert [issue.key for issue in tracker.issues.find(keys=["TEST-2", "TEST-4"])] == [
        "TEST-2",
        "TEST-4",
    ]
    assert tracker.issues.find(filter={"queue": "TEST", "summary": "3"}, count_only=True) == 1
    with pytest.raises(tracker_errors.BadRequest):
        tracker.issues.find("Queue: OPS")


def test_it_scrolls(fake: FakeStartrek, tracker: Any) -> None:
    for number in range(25):
        fake.add_issue("TEST", summary=f"{number}")

    found = tracker.issues.find(filter={"queue": "TEST"}, scrollType="sorted", perScroll=10)

    assert [issue.summary for issue in found] == [f"{number}" for number in range(25)]
    assert len(fake.calls.of("issues.search")) == 3


def test_it_comments(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST")
    fake.add_user("bob")
    issue = tracker.issues["TEST-1"]

    comment = issue.comments.create(text="look", summonees=["bob"])
    comment.update(text="look here")
    issue.comments.create(text="second")

    first, second = issue.comments.get_all()
    assert (first.text, first.summonees[0].display, second.text) == ("look here", "Bob", "second")
    first.delete()
    assert [comment.text for comment in issue.comments] == ["second"]


def test_it_links(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST"), fake.add_issue("TEST")
    one, other = tracker.issues["TEST-1"], tracker.issues["TEST-2"]

    one.links.create(relationship="depends on", issue=other)

    (link,) = one.links
    (back,) = other.links
    assert (link.object.key, link.direction, back.direction) == ("TEST-2", "outward", "inward")
    link.delete()
    assert list(other.links) == []


def test_it_takes_transitions(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST")
    issue = tracker.issues["TEST-1"]

    ways = {way.id: way for way in issue.transitions.get_all()}
    with pytest.raises(tracker_errors.UnprocessableEntity):
        ways["close"].execute()
    after = issue.transitions["close"].execute(comment="done", resolution="fixed")

    assert [way.id for way in after] == ["reopen"] and ways["close"].to.key == "closed"
    closed = tracker.issues["TEST-1"]
    assert (closed.status.key, closed.previousStatus.key) == ("closed", "open")
    assert closed.resolution.key == "fixed"
    assert [comment.text for comment in closed.comments] == ["done"]


def test_it_uploads_and_downloads_attachments(
    fake: FakeStartrek, tracker: Any, tmp_path: Path
) -> None:
    fake.add_issue("TEST")
    file = tmp_path / "log.txt"
    file.write_bytes(b"line\n" * 5000)
    issue = tracker.issues["TEST-1"]

    issue.attachments.create(str(file))
    with_file = tracker.issues.create(queue="TEST", summary="x", attachments=[str(file)])

    (tmp_path / "down").mkdir()
    (attachment,) = issue.attachments
    attachment.download_to(str(tmp_path / "down"))
    assert (tmp_path / "down" / "log.txt").read_bytes() == file.read_bytes()
    (of_create,) = with_file.attachments
    assert b"".join(of_create.read()) == file.read_bytes()
    attachment.delete()
    assert list(issue.attachments) == []


def test_it_changes_issues_in_bulk_and_waits(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST"), fake.add_issue("TEST")
    both = [tracker.issues["TEST-1"], tracker.issues["TEST-2"]]

    update = tracker.bulkchange.update(both, priority="critical", tags={"add": ["bulk"]})
    assert update.status == "CREATED" and update.wait(interval=0.01).status == "COMPLETE"
    close = tracker.bulkchange.transition(["TEST-1"], "close", resolution="fixed")
    assert close.wait(interval=0.01).status == "COMPLETE"
    again = tracker.bulkchange.transition(["TEST-1"], "close", resolution="fixed")
    assert again.wait(interval=0.01).status == "FAILED"
    move = tracker.bulkchange.move(["TEST-1"], "OPS")
    assert move.wait(interval=0.01).status == "COMPLETE"

    moved = tracker.issues["TEST-1"]
    assert (moved.key, moved.aliases, moved.priority.key) == ("OPS-1", ["TEST-1"], "critical")
    assert (moved.status.key, moved.tags) == ("closed", ["bulk"])


def test_it_moves_and_clones_and_reads_the_changelog(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST", summary="x")
    issue = tracker.issues["TEST-1"]

    moved = issue.move_to("OPS")
    moved.clone_to(["TEST"], link_with_original=True)

    assert (moved.key, moved.previousQueue.key) == ("OPS-1", "TEST")
    assert [entry.type for entry in moved.changelog] == ["IssueCreated", "IssueMoved"]
    assert [link.object.key for link in moved.links] == ["TEST-2"]


def test_it_reads_queues_and_dictionaries(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_version("TEST", "1.0")
    fake.add_component("TEST", "disk")
    queue = tracker.queues["TEST"]

    assert [one.key for one in tracker.queues] == ["TEST", "OPS"]
    assert [one.name for one in queue.versions] == ["1.0"]
    assert [one.name for one in queue.components] == ["disk"]
    assert [one.key for one in tracker.statuses] == ["open", "inProgress", "closed"]
    assert tracker.users["robot"].login == "robot"
    (version,) = queue.versions
    version.perform_action("_archive", "post", ignore_empty_body=True)
    assert tracker.versions[version.id].archived is True


def test_a_local_field_is_found_under_its_short_name(fake: FakeStartrek, tracker: Any) -> None:
    name = f"{7:024x}--room"
    fake.add_issue("TEST", **{name: "B12"})

    issue = tracker.issues["TEST-1"]
    assert (issue.room, issue[name]) == ("B12", "B12")
    tracker.issues["TEST-1"]  # tells the tracker that it did so


def test_what_is_refused_is_its_error_of_the_same_kind(fake: FakeStartrek, tracker: Any) -> None:
    fake.add_issue("TEST")
    with pytest.raises(tracker_errors.NotFound, match="no issue TEST-9"):
        tracker.issues["TEST-9"]
    with pytest.raises(tracker_errors.BadRequest, match="status: it changes by transitions only"):
        tracker.issues["TEST-1"].update(status="closed")
    with pytest.raises(tracker_errors.UnprocessableEntity, match="summary: required"):
        tracker.issues.create(queue="TEST")
    without_org = TrackerClient(token=fake.token, base_url=fake.url)
    with pytest.raises(tracker_errors.Forbidden):
        without_org.issues["TEST-1"]
    without_org._connection.session.close()
