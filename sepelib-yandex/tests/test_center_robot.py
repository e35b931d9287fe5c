"""center-robot: robots and commands."""

from datetime import UTC, datetime

import pytest

from sepelib.yandex.center_robot import CenterRobotClient
from sepelib.yandex.errors import BadRequest, Conflict, NotFound, WaitTimeout
from sepelib.yandex.testing import FakeCenterRobot, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def centre(fake_center_robot: FakeCenterRobot, yandex_fakes: YandexFakes) -> CenterRobotClient:
    fake_center_robot.add_robot("web", stage="merge", build_id="b2")
    fake_center_robot.add_robot("images", "stopped")
    clock = fake_center_robot.clock
    client = yandex_fakes.client("center_robot", clock=clock, sleep=clock.sleep)
    assert isinstance(client, CenterRobotClient)
    return client


def test_robots_have_states(centre: CenterRobotClient) -> None:
    robots = [(robot.name, robot.state) for robot in centre.robots()]
    assert robots == [("web", "running"), ("images", "stopped")]
    robot = centre.state("web")
    assert (robot.state, robot.stage, robot.build_id) == ("running", "merge", "b2")
    assert robot.updated_at == datetime(2026, 1, 1, tzinfo=UTC) and robot.started_at is None
    with pytest.raises(NotFound):
        centre.state("nobody")


def test_builds_are_listed_the_newest_first(
    fake_center_robot: FakeCenterRobot, centre: CenterRobotClient
) -> None:
    for number in range(3):
        fake_center_robot.add_build("web", f"b{number}", state="done")
    assert [build.build_id for build in centre.builds("web")] == ["b2", "b1", "b0"]
    assert [build.build_id for build in centre.builds("web", limit=2)] == ["b2", "b1"]
    assert list(centre.builds("images")) == []
    with pytest.raises(NotFound):
        list(centre.builds("nobody"))


def test_a_command_is_followed_to_its_end(
    fake_center_robot: FakeCenterRobot, centre: CenterRobotClient
) -> None:
    command = centre.command("images", "start", args={"deep": True}, comment="go")
    assert command.id is not None
    (call,) = fake_center_robot.calls.of("command")
    assert call.json == {"command": "start", "args": {"deep": True}, "comment": "go"}
    assert call.status == 202 and centre.get_command(command.id).status == "new"
    assert centre.state("images").state == "stopped"
    done = centre.wait(command.id, timeout=600.0)
    assert (done.command, done.status) == ("start", "done")
    assert centre.state("images").state == "running"


def test_a_command_whose_answer_is_lost_is_given_once(
    fake_center_robot: FakeCenterRobot, centre: CenterRobotClient
) -> None:
    fake_center_robot.faults.next("command", reset="after-apply")
    command = centre.command("web", "stop")
    assert len(fake_center_robot.calls.of("command")) == 2
    assert [item["id"] for item in fake_center_robot.all("commands")] == [command.id]


def test_a_key_of_the_caller_makes_the_same_command(
    fake_center_robot: FakeCenterRobot, centre: CenterRobotClient
) -> None:
    first = centre.command("web", "stop", idempotency_key="release-7")
    assert centre.command("web", "stop", idempotency_key="release-7") == first
    assert centre.command("web", "stop") != first
    with pytest.raises(Conflict):
        centre.command("web", "start", idempotency_key="release-7")


def test_a_command_that_cannot_be_is_refused(centre: CenterRobotClient) -> None:
    with pytest.raises(NotFound):
        centre.command("nobody", "start")
    with pytest.raises(BadRequest, match="'dance' is none of start, stop, switch"):
        centre.command("web", "dance")


def test_a_wait_that_is_over_says_what_was_last_seen(centre: CenterRobotClient) -> None:
    command = centre.command("web", "switch")
    assert command.id is not None
    with pytest.raises(WaitTimeout, match="not over within 6 s, last state running"):
        centre.wait(command.id, timeout=6.0, interval=5.0)
