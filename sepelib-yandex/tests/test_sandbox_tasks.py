"""Tasks of Sandbox: drafts, batches with failures inside of a 200, and the wait for an end."""

import pickle
from typing import Any

import pytest

from sepelib.util.testing import Clock
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    BadRequest,
    BatchError,
    Conflict,
    NotFound,
    WaitTimeout,
)
from sepelib.yandex.sandbox import SandboxClient, TaskGroup
from sepelib.yandex.testing import FakeSandbox

pytestmark = pytest.mark.yandex(transport="both")


class Waits:
    """A clock for a client; its sleeps move the fake's clock as well."""

    def __init__(self, fake: FakeSandbox) -> None:
        self.fake = fake
        self.clock = Clock(0.0)
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        self.fake.clock.advance(seconds)


@pytest.fixture
def waits(fake_sandbox: FakeSandbox) -> Waits:
    return Waits(fake_sandbox)


@pytest.fixture
def client(waits: Waits, yandex_fakes: Any) -> SandboxClient:
    made: SandboxClient = yandex_fakes.client(
        "sandbox", clock=lambda: waits.clock.now, sleep=waits.sleep
    )
    return made


def test_a_task_is_a_draft_until_it_is_started(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    tasks = sandbox_client.tasks
    draft = tasks.create(
        "BUILD", owner="SEARCH", description="x", input={"a": 1}, tags=["t"], kill_timeout=600
    )
    number = draft.id or 0
    assert (draft.status, draft.group) == ("draft", TaskGroup.DRAFT)
    assert fake_sandbox.calls[0].json == {
        "type": "BUILD",
        "owner": "SEARCH",
        "description": "x",
        "input": {"a": 1},
        "tags": ["t"],
        "kill_timeout": 600,
    }
    assert tasks.update(number, description="y").description == "y"

    [item] = tasks.start(number, comment="go")
    assert (item.id, item.ok) == (number, True)
    assert fake_sandbox.calls[-1].json == {"action": "start", "id": [number], "comment": "go"}
    with pytest.raises(Conflict, match="is queued, no draft"):
        tasks.update(number, description="z")
    assert tasks.get(number).group is TaskGroup.QUEUED
    fake_sandbox.clock.advance(5.0)
    assert tasks.get(number).group is TaskGroup.RUNNING
    fake_sandbox.finish(number, "failed", output={"log": "http://…"})
    assert tasks.get(number).group is TaskGroup.FAILED
    assert tasks.output(number) == {"log": "http://…"}
    with pytest.raises(BadRequest, match="type is missing"):
        tasks.create("")


def test_a_create_whose_answer_is_lost_leaves_a_draft_and_nothing_more(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    fake_sandbox.faults.on("tasks.create", reset="after-apply")

    with pytest.raises(ApiConnectionError) as caught:
        sandbox_client.run("BUILD")

    assert caught.value.maybe_applied
    assert [task["status"] for task in fake_sandbox.state.tasks.values()] == ["draft"]


def test_a_create_without_an_id_in_the_answer_is_not_started(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    fake_sandbox.faults.on("tasks.create", json={"status": "draft"})

    with pytest.raises(ApiProtocolError, match="no id") as caught:
        sandbox_client.run("BUILD")
    assert caught.value.maybe_applied and fake_sandbox.calls.ops == ["tasks.create"]


def test_tasks_are_listed(fake_sandbox: FakeSandbox, sandbox_client: SandboxClient) -> None:
    for number in range(120):
        fake_sandbox.add_task("BUILD", owner="SEARCH" if number % 2 else "WEB")
    fake_sandbox.add_task("TEST", status="failed")

    builds = sandbox_client.tasks.list(type="BUILD")
    assert len(list(builds)) == builds.total == 120
    assert [t.group for t in sandbox_client.tasks.list(status="failed")] == [TaskGroup.FAILED]
    assert len(list(sandbox_client.tasks.list(owner="WEB", limit=7))) == 7


# Batches.


def test_failures_of_single_tasks_inside_of_a_200_are_an_error(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    good, started = fake_sandbox.add_task(), fake_sandbox.add_task(status="running")

    with pytest.raises(BatchError) as caught:
        sandbox_client.tasks.start([good, started, 404])

    error = caught.value
    assert [item["ok"] for item in error.results] == [True, False, False]
    assert "start failed for 2 of 3" in str(error) and "404: there is no such task" in str(error)
    assert error.maybe_applied and fake_sandbox.state.tasks[good]["status"] == "queued"
    assert pickle.loads(pickle.dumps(error)).results == error.results


def test_failures_of_single_tasks_are_told_where_they_are_no_error(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    draft, running = fake_sandbox.add_task(), fake_sandbox.add_task(status="running")

    stopped = sandbox_client.tasks.stop([draft, running], check=False)
    assert [(item.id, item.ok) for item in stopped] == [(draft, False), (running, True)]
    assert stopped[0].message == "it is draft, neither queued nor running"
    assert sandbox_client.tasks.get(running).group is TaskGroup.STOPPED
    deleted = sandbox_client.tasks.delete([draft, running])
    assert all(item.ok for item in deleted) and fake_sandbox.state.tasks == {}
    with pytest.raises(NotFound):
        sandbox_client.tasks.get(draft)


def test_a_batch_of_nothing_asks_nothing(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    assert list(sandbox_client.tasks.start([])) == []
    assert fake_sandbox.calls.ops == []


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"items": 7}, {"items": [{"id": 99, "ok": True}]}, {"items": [{"id": 1, "ok": "1"}]}],
)
def test_a_task_that_the_answer_does_not_say_is_done_has_failed(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, answer: object
) -> None:
    number = fake_sandbox.add_task()
    fake_sandbox.faults.on("tasks.batch", json=answer)
    with pytest.raises(BatchError, match="failed for 1 of 1"):
        sandbox_client.tasks.start(number)


def test_ids_of_an_answer_may_be_text(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    fake_sandbox.faults.on("tasks.batch", json={"items": [{"id": "7", "ok": True}]})
    [item] = sandbox_client.tasks.start(7)
    assert (item.id, item.ok) == (7, True)


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("start", "draft", "queued"), ("stop", "running", "stopped"), ("delete", "failed", None)],
)
def test_a_batch_that_is_repeated_counts_what_the_first_one_did(
    fake_sandbox: FakeSandbox, client: SandboxClient, action: str, before: str, after: str | None
) -> None:
    number, other = fake_sandbox.add_task(status=before), 404
    fake_sandbox.faults.next("tasks.batch", reset="after-apply")
    act = getattr(client.tasks, action)

    [item] = act(number)

    assert item.ok and len(fake_sandbox.calls.of("tasks.batch")) == 2
    assert fake_sandbox.state.tasks.get(number, {}).get("status") == after
    fake_sandbox.faults.next("tasks.batch", reset="before-apply")
    [unknown] = act(other, check=False)
    assert unknown.ok is (action == "delete")


def test_a_second_look_that_fails_leaves_the_failure(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_task()
    fake_sandbox.faults.next("tasks.batch", reset="after-apply")
    fake_sandbox.faults.on("tasks.get", status=500)
    with pytest.raises(BatchError, match="it is queued, no draft"):
        client.tasks.start(number)


# Waits.


def test_a_wait_asks_later_and_later_until_the_task_is_over(
    fake_sandbox: FakeSandbox, client: SandboxClient, waits: Waits
) -> None:
    fake_sandbox.run_time = 300.0
    task = client.run("BUILD", wait=3600.0)

    assert task.group is TaskGroup.SUCCEEDED
    assert waits.slept == [10.0, 15.0, 22.5, 33.75, 50.625, 60.0, 60.0, 60.0]


def test_a_wait_has_a_limit(fake_sandbox: FakeSandbox, client: SandboxClient, waits: Waits) -> None:
    fake_sandbox.run_time = None

    with pytest.raises(WaitTimeout, match="last state running") as caught:
        client.run("BUILD", wait=100.0)

    assert (caught.value.state, caught.value.timeout) == ("running", 100.0)
    assert sum(waits.slept) == 100.0
    assert [task["status"] for task in fake_sandbox.state.tasks.values()] == ["running"]


def test_a_task_that_was_killed_by_its_time_has_failed(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    task = client.run("BUILD", kill_timeout=30.0, wait=100.0)
    assert task.group is TaskGroup.FAILED


def test_run_without_a_wait_gives_the_task_as_it_was_started(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    assert client.run("BUILD").group is TaskGroup.QUEUED


def test_names_of_states_are_configuration(
    fake_sandbox: FakeSandbox, yandex_fakes: Any, waits: Waits
) -> None:
    client = yandex_fakes.client(
        "sandbox",
        status_groups={"SUCCESS": "succeeded", "EXECUTING": "running"},
        clock=lambda: waits.clock.now,
        sleep=waits.sleep,
    )
    over = fake_sandbox.add_task(status="SUCCESS")
    strange = fake_sandbox.add_task(status="DREAMING")

    assert client.tasks.wait(over, 1.0).group is TaskGroup.SUCCEEDED
    assert (client.tasks.get(strange).status, client.tasks.get(strange).group) == ("DREAMING", None)
    with pytest.raises(WaitTimeout, match="last state DREAMING"):
        client.tasks.wait(strange, 30.0)
