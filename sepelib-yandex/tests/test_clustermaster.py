"""clustermaster: targets and their runs."""

from datetime import UTC, datetime, timedelta

import pytest

from sepelib.yandex.clustermaster import ClustermasterClient
from sepelib.yandex.errors import BadRequest, Conflict, NotFound, ServerError, WaitTimeout
from sepelib.yandex.testing import EPOCH, FakeClustermaster, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def master(fake_clustermaster: FakeClustermaster, yandex_fakes: YandexFakes) -> ClustermasterClient:
    fake_clustermaster.add_target("fetch", hosts=["h1"])
    fake_clustermaster.add_target("merge", hosts=["h1", "h2"], deps=["fetch"])
    clock = fake_clustermaster.clock
    client = yandex_fakes.client("clustermaster", clock=clock, sleep=clock.sleep)
    assert isinstance(client, ClustermasterClient)
    return client


def test_targets_are_listed_with_what_they_depend_on(master: ClustermasterClient) -> None:
    fetch, merge = master.targets()
    assert (merge.name, merge.type, merge.state) == ("merge", "cluster", "idle")
    assert merge.deps == ("fetch",) and merge.hosts == ("h1", "h2") and fetch.deps == ()
    assert list(master.hosts()) == ["h1", "h2"]


def test_a_target_runs_to_its_end(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient
) -> None:
    assert master.run("merge").state == "pending"
    assert fake_clustermaster.calls.of("run")[-1].json == {}
    fake_clustermaster.clock.advance(5.0)
    assert master.target("merge").counts == {"running": 2}
    done = master.wait("merge", timeout=600.0)
    assert (done.state, done.counts) == ("success", {"success": 2})
    assert done.last_started == datetime(2026, 1, 1, tzinfo=UTC)
    assert done.last_finished == EPOCH + timedelta(seconds=15)
    assert master.target("fetch").state == "idle"


def test_a_target_runs_on_some_hosts(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient
) -> None:
    master.run("merge", hosts=["h2"])
    assert [(task.host, task.state) for task in master.tasks("merge")] == [
        ("h1", "idle"),
        ("h2", "pending"),
    ]
    assert [task.host for task in master.tasks("merge", state="pending")] == ["h2"]
    with pytest.raises(BadRequest, match="merge is not on all of these hosts"):
        master.run("merge", hosts=["h9"])


def test_a_target_runs_with_what_it_depends_on(master: ClustermasterClient) -> None:
    master.run_with_deps("merge")
    assert [target.state for target in master.targets()] == ["pending", "pending"]


def test_a_run_that_fails_is_waited_for_too(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient
) -> None:
    fake_clustermaster.add_target("bad", hosts=["h1"], ends="failed")
    master.run("bad")
    assert master.wait("bad", timeout=600.0).state == "failed"
    assert master.reset("bad").state == "idle"


def test_a_pending_target_that_is_run_runs_once(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient
) -> None:
    master.run("merge")
    fake_clustermaster.clock.advance(4.0)
    assert master.run("merge").state == "pending"
    fake_clustermaster.clock.advance(1.0)
    assert master.target("merge").state == "running"


def test_a_target_is_cancelled_or_else_left_alone(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient
) -> None:
    assert master.cancel("merge").state == "idle"
    master.run("merge")
    with pytest.raises(Conflict, match="merge is pending"):
        master.reset("merge")
    assert master.cancel("merge").state == "canceled"
    fake_clustermaster.clock.advance(60.0)
    assert master.wait("merge", timeout=1.0).state == "canceled"


@pytest.mark.parametrize("command", ["cancel", "reset"])
def test_what_may_be_told_twice_is_repeated(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient, command: str
) -> None:
    fake_clustermaster.faults.next(command, reset="after-apply")
    getattr(master, command)("merge")
    assert len(fake_clustermaster.calls.of(command)) == 2


@pytest.mark.parametrize("command", ["run", "run_with_deps"])
def test_a_run_is_told_once(
    fake_clustermaster: FakeClustermaster, master: ClustermasterClient, command: str
) -> None:
    fake_clustermaster.faults.next(command, status=500, apply=True)
    with pytest.raises(ServerError) as caught:
        getattr(master, command)("merge")
    assert caught.value.maybe_applied and len(fake_clustermaster.calls.of(command)) == 1


def test_a_target_that_is_not_there_is_not_found(master: ClustermasterClient) -> None:
    for ask in (master.target, master.run, master.run_with_deps, master.reset, master.cancel):
        with pytest.raises(NotFound):
            ask("nobody")


def test_a_wait_that_is_over_says_what_was_last_seen(master: ClustermasterClient) -> None:
    master.run("merge")
    with pytest.raises(WaitTimeout, match="not over within 6 s, last state running"):
        master.wait("merge", timeout=6.0)
