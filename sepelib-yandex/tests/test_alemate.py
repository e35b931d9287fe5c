"""alemate: groups of tasks."""

import pytest

from sepelib.yandex.alemate import AlemateClient, TaskGroup
from sepelib.yandex.errors import BadRequest, Conflict, NotFound, ServerError, WaitTimeout
from sepelib.yandex.testing import FakeAlemate, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


def restart() -> TaskGroup:
    tasks = TaskGroup()
    stop = tasks.add("stop", options={"service": "web"})
    tasks.add("start", after=[stop], id="begin")
    return tasks


@pytest.fixture
def alemate(fake_alemate: FakeAlemate, yandex_fakes: YandexFakes) -> AlemateClient:
    clock = fake_alemate.clock
    client = yandex_fakes.client("alemate", clock=clock, sleep=clock.sleep)
    assert isinstance(client, AlemateClient)
    return client


def test_a_group_is_what_was_added_to_it() -> None:
    assert restart().tasks == [
        {"id": "t1", "type": "stop", "options": {"service": "web"}, "deps": []},
        {"id": "begin", "type": "start", "options": {}, "deps": ["t1"]},
    ]


def test_a_submitted_group_is_new_under_an_id_of_its_own(
    fake_alemate: FakeAlemate, alemate: AlemateClient
) -> None:
    group = alemate.submit(restart(), author="ann", comment="release 7")
    assert (group.status, group.author, group.comment) == ("new", "ann", "release 7")
    assert [(task.id, task.type, task.status) for task in group.tasks] == [
        ("t1", "stop", "new"),
        ("begin", "start", "new"),
    ]
    assert group.id is not None and len(group.id) == 36 and alemate.get(group.id) == group
    (call,) = fake_alemate.calls.of("create")
    assert call.json == {"tasks": restart().tasks, "author": "ann", "comment": "release 7"}


def test_a_submission_whose_answer_is_lost_makes_one_group(
    fake_alemate: FakeAlemate, alemate: AlemateClient
) -> None:
    fake_alemate.faults.next("create", reset="after-apply")
    group = alemate.submit(restart())
    assert [found.id for found in alemate.groups()] == [group.id]


def test_an_id_with_other_tasks_is_a_conflict(alemate: AlemateClient) -> None:
    alemate.submit(restart(), id="g")
    other = TaskGroup()
    other.add("stop")
    with pytest.raises(Conflict):
        alemate.submit(other, id="g")


def test_the_service_refuses_tasks_that_cannot_be(alemate: AlemateClient) -> None:
    circle = TaskGroup()
    circle.add("a", after=["y"], id="x")
    circle.add("a", after=["x"], id="y")
    with pytest.raises(BadRequest, match="a circle: ") as caught:
        alemate.submit(circle)
    assert caught.value.code == "cycle"
    alone = TaskGroup()
    alone.add("a", after=["nobody"])
    with pytest.raises(BadRequest, match="nobody, which is not there"):
        alemate.submit(alone)
    twins = TaskGroup()
    twins.add("a", id="x")
    twins.add("b", id="x")
    with pytest.raises(BadRequest, match="same id"):
        alemate.submit(twins)
    with pytest.raises(BadRequest, match="has id, type"):
        alemate.create("g", [{"id": "x"}])
    assert list(alemate.groups()) == []


def test_a_group_moves_from_state_to_state_and_not_otherwise(alemate: AlemateClient) -> None:
    alemate.submit(restart(), id="g")
    with pytest.raises(Conflict, match="g is new: no pause from there"):
        alemate.pause("g")
    assert alemate.start("g", comment="now").status == "running"
    assert alemate.pause("g").status == "paused"
    with pytest.raises(Conflict):
        alemate.start("g")
    assert alemate.resume("g").status == "running"
    assert alemate.cancel("g").status == "cancelled"
    with pytest.raises(Conflict):
        alemate.cancel("g")
    with pytest.raises(NotFound):
        alemate.start("nobody")


def test_a_start_whose_answer_is_lost_is_not_repeated(
    fake_alemate: FakeAlemate, alemate: AlemateClient
) -> None:
    alemate.submit(restart(), id="g")
    fake_alemate.faults.next("start", status=500, apply=True)
    with pytest.raises(ServerError) as caught:
        alemate.start("g")
    assert caught.value.maybe_applied and caught.value.attempts == 1
    assert alemate.get("g").status == "running"


def test_a_failed_task_is_done_again_or_skipped(
    fake_alemate: FakeAlemate, alemate: AlemateClient
) -> None:
    alemate.submit(restart(), id="g")
    alemate.start("g")
    with pytest.raises(Conflict, match="t1 is new"):
        alemate.retry("g", "t1")
    fake_alemate.fail("g", "t1", "no disk")
    group = alemate.get("g")
    assert group.status == "failed"
    assert (group.tasks[0].status, group.tasks[0].message) == ("failed", "no disk")
    assert alemate.retry("g", "t1").tasks[0].status == "new"
    fake_alemate.fail("g", "t1")
    group = alemate.skip("g", "t1", comment="by hand")
    assert (group.status, group.tasks[0].status) == ("running", "skipped")
    with pytest.raises(NotFound, match="no task t9"):
        alemate.skip("g", "t9")


def test_groups_are_listed_by_state_and_author(alemate: AlemateClient) -> None:
    for number, author in enumerate(["ann", "bob", "ann"]):
        alemate.submit(restart(), id=f"g{number}", author=author)
    alemate.start("g2")
    assert [group.id for group in alemate.groups(author="ann")] == ["g0", "g2"]
    assert [group.id for group in alemate.groups(author="ann", status="new")] == ["g0"]


def test_a_wait_ends_with_the_group(fake_alemate: FakeAlemate, alemate: AlemateClient) -> None:
    alemate.submit(restart(), id="g")
    alemate.start("g")
    fake_alemate.later(100.0, "groups", "g", {"status": "failed"})
    assert alemate.wait("g", timeout=3600.0).status == "failed"
    assert fake_alemate.clock.sleeps[:3] == [2.0, 3.0, 4.5] and fake_alemate.clock.now < 200.0
    fake_alemate.finish("g")
    assert alemate.wait("g", timeout=1.0).status == "done"


def test_a_wait_that_is_over_says_what_was_last_seen(alemate: AlemateClient) -> None:
    alemate.submit(restart(), id="g")
    with pytest.raises(WaitTimeout, match="alemate wait: not over within 30 s, last state new"):
        alemate.wait("g", timeout=30.0)
