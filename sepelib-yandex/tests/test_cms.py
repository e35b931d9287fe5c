"""CMS: permission to touch hosts is asked for, waited for, and always given back."""

import logging
import pickle
from datetime import UTC, datetime

import gevent
import pytest

from sepelib.util.deadline import deadline
from sepelib.yandex.cms import CmsClient, HostState, MaintenanceRejected, MaintenanceTask
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiResponseError,
    BadRequest,
    NotFound,
    WaitTimeout,
)
from sepelib.yandex.testing import FakeCms, YandexFakes, check_shape, sample

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def cms(yandex_fakes: YandexFakes, fake_cms: FakeCms) -> CmsClient:
    """A client whose waits take no real time, of a service with three hosts."""
    for host in ("h1", "h2", "h3"):
        fake_cms.add_host(host)
    clock = yandex_fakes.clock
    client: CmsClient = yandex_fakes.client("cms", issuer="robot", clock=clock, sleep=clock.sleep)
    return client


def test_a_task_is_granted_and_removed(cms: CmsClient, fake_cms: FakeCms) -> None:
    task = cms.maintenance.create(["h1"], "reboot", id="t1", comment="disk")

    assert (task.id, task.hosts, task.is_granted, task.is_rejected) == ("t1", ("h1",), True, False)
    sent = fake_cms.calls.of("maintenance.create")[0]
    assert sent.json == {
        "id": "t1",
        "type": "automated",
        "issuer": "robot",
        "action": "reboot",
        "hosts": ["h1"],
        "comment": "disk",
    }
    assert [listed.id for listed in cms.maintenance.list()] == ["t1"]
    assert cms.maintenance.check("t1").is_granted

    cms.maintenance.remove("t1")
    with pytest.raises(NotFound, match="Unknown task t1"):
        cms.maintenance.check("t1")


def test_the_same_id_is_the_same_task(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.faults.next("maintenance.create", reset="after-apply")

    task = cms.maintenance.create(["h1"], "reboot")

    assert task.is_granted and list(fake_cms.state.tasks) == [task.id]
    first, again = fake_cms.calls.of("maintenance.create")
    assert first.json == again.json and first.applied and again.applied
    assert cms.maintenance.create(["h1"], "reboot", id=task.id) == task


def test_a_dry_run_leaves_no_trace(cms: CmsClient, fake_cms: FakeCms) -> None:
    assert cms.maintenance.create(["h1"], "reboot", dry_run=True).is_granted
    assert fake_cms.calls[-1].query == {"dry_run": "true"} and not fake_cms.state.tasks


def test_the_policy_decides(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.max_hosts = 2
    maintenance = cms.maintenance

    assert maintenance.create(["h1"], "reboot", id="a").status == "ok"
    waiting = maintenance.create(["h2", "h3"], "profile", id="b")
    assert (waiting.status, waiting.message) == ("in-process", "1 of 2 hosts are being touched")
    assert maintenance.create(["h1", "h2", "h3"], "reboot", id="c").is_rejected
    assert maintenance.create(["h1"], "prepare", id="d").is_granted
    assert {task.id: task.status for task in maintenance.list()} == {
        "a": "ok",
        "b": "in-process",
        "d": "ok",
    }

    maintenance.remove("a")
    assert maintenance.check("b").is_granted


def test_errors_are_plain_text(cms: CmsClient, fake_cms: FakeCms) -> None:
    for hosts, action, words in (
        (["h1"], "burn", "Unsupported action"),
        ([], "reboot", "No hosts specified"),
        (["h9"], "reboot", "Unknown host h9"),
    ):
        with pytest.raises(BadRequest) as caught:
            cms.maintenance.create(hosts, action)
        assert caught.value.message == words and not caught.value.maybe_applied
    answer = fake_cms.session().post(fake_cms.url + "/api/walle/v11/tasks", json=[], timeout=20)
    assert answer.status_code == 400 and answer.headers["Content-Type"].startswith("text/plain")


def test_one_text_is_not_taken_for_hosts(cms: CmsClient) -> None:
    with pytest.raises(TypeError, match="not the one text 'h1'"):
        cms.maintenance.create("h1", "reboot")


def test_a_408_is_tried_again(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.faults.next("maintenance.create", status=408, apply=True)

    assert cms.maintenance.create(["h1"], "reboot").is_granted
    assert len(fake_cms.calls) == 2


def test_a_task_is_waited_for(cms: CmsClient, fake_cms: FakeCms, yandex_fakes: YandexFakes) -> None:
    cms.maintenance.create(["h1"], "reboot", id="a")
    cms.maintenance.create(["h2"], "reboot", id="b")

    with pytest.raises(WaitTimeout, match=r"last state in-process 1 of 1 hosts") as caught:
        cms.maintenance.wait("b", timeout=30.0, interval=10.0)
    assert caught.value.timeout == 30.0 and yandex_fakes.clock.now == 30.0

    del fake_cms.state.tasks["a"]
    assert cms.maintenance.wait("b").is_granted

    fake_cms.reject("b", "a rack is down")
    with pytest.raises(MaintenanceRejected, match="b for h2 is rejected: a rack is down") as no:
        cms.maintenance.wait("b")
    assert (no.value.task_id, no.value.hosts) == ("b", ("h2",))
    copied = pickle.loads(pickle.dumps(no.value))
    assert str(copied) == str(no.value) and copied.hosts == ("h2",)

    fake_cms.revoke("b")
    with pytest.raises(NotFound, match="Empty task"):
        cms.maintenance.wait("b")


def test_a_hold_lasts_as_long_as_its_block(cms: CmsClient, fake_cms: FakeCms) -> None:
    with cms.maintenance.hold(["h1"], "reboot") as task:
        assert task.is_granted and list(fake_cms.state.tasks) == [task.id]

    assert not fake_cms.state.tasks


def test_a_hold_waits_for_its_turn(
    cms: CmsClient, fake_cms: FakeCms, yandex_fakes: YandexFakes
) -> None:
    cms.maintenance.create(["h1"], "reboot", id="other")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            cms.maintenance.remove("other")

    waiting: CmsClient = yandex_fakes.client("cms", sleep=sleep)
    with waiting.maintenance.hold(["h2"], "reboot", id="mine", interval=4.0) as task:
        assert task.is_granted and waits == [4.0, 6.0, 9.0]
    assert not fake_cms.state.tasks


def test_a_hold_gives_back_what_its_block_breaks(cms: CmsClient, fake_cms: FakeCms) -> None:
    with pytest.raises(ZeroDivisionError), cms.maintenance.hold(["h1"], "reboot"):
        _ = 1 / 0
    assert not fake_cms.state.tasks

    # A hold in the block that gets nothing says nothing of the one around it.
    with (
        pytest.raises(BadRequest),
        cms.maintenance.hold(["h1"], "reboot"),
        cms.maintenance.hold(["h9"], "reboot"),
    ):
        pass
    assert not fake_cms.state.tasks


def test_a_hold_gives_back_what_it_got_too_late(cms: CmsClient, fake_cms: FakeCms) -> None:
    cms.maintenance.create(["h1"], "reboot", id="other")

    with pytest.raises(WaitTimeout), cms.maintenance.hold(["h2"], "reboot", 30.0, id="mine"):
        pytest.fail("there is no permission")

    assert list(fake_cms.state.tasks) == ["other"]


def test_a_rejected_hold_leaves_nothing(cms: CmsClient, fake_cms: FakeCms) -> None:
    with (
        pytest.raises(MaintenanceRejected, match="at most 1 hosts"),
        cms.maintenance.hold(["h1", "h2"], "reboot"),
    ):
        pytest.fail("there is no permission")

    assert not fake_cms.state.tasks


@pytest.mark.parametrize("fault", [{"reset": "after-apply"}, {"status": 408, "apply": True}])
def test_a_hold_whose_answer_is_lost_is_given_back(
    cms: CmsClient, fake_cms: FakeCms, fault: dict[str, object]
) -> None:
    fake_cms.faults.on("maintenance.create", **fault)  # type: ignore[arg-type]

    with (
        pytest.raises((ApiConnectionError, ApiResponseError)),
        cms.maintenance.hold(["h1"], "reboot"),
    ):
        pytest.fail("there is no permission")

    assert fake_cms.calls.of("maintenance.remove") and not fake_cms.state.tasks


def test_a_hold_that_was_refused_has_nothing_to_give_back(
    cms: CmsClient, fake_cms: FakeCms
) -> None:
    with pytest.raises(BadRequest), cms.maintenance.hold(["h9"], "reboot"):
        pytest.fail("there is no permission")

    assert fake_cms.calls.ops == ["maintenance.create"]


def test_a_hold_is_given_back_though_the_deadline_is_over(
    cms: CmsClient, fake_cms: FakeCms, yandex_fakes: YandexFakes
) -> None:
    with deadline(5.0, clock=yandex_fakes.clock), cms.maintenance.hold(["h1"], "reboot"):
        yandex_fakes.clock.advance(10.0)

    assert not fake_cms.state.tasks


def test_a_killed_hold_is_given_back(
    cms: CmsClient, fake_cms: FakeCms, yandex_fakes: YandexFakes
) -> None:
    with pytest.raises(gevent.GreenletExit), cms.maintenance.hold(["h1"], "reboot"):
        raise gevent.GreenletExit
    assert not fake_cms.state.tasks

    def killed(seconds: float) -> None:
        raise gevent.GreenletExit

    cms.maintenance.create(["h1"], "reboot", id="other")
    waiting: CmsClient = yandex_fakes.client("cms", sleep=killed)
    with pytest.raises(gevent.GreenletExit), waiting.maintenance.hold(["h2"], "reboot", id="mine"):
        pytest.fail("there is no permission")
    assert list(fake_cms.state.tasks) == ["other"]


def test_a_hold_that_cannot_be_given_back_says_so(
    cms: CmsClient, fake_cms: FakeCms, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cms.faults.on("maintenance.remove", status=500)

    with (
        pytest.raises(ApiResponseError, match="status 500"),
        cms.maintenance.hold(["h1"], "reboot", id="t1"),
    ):
        pass

    fake_cms.state.tasks.clear()
    caplog.clear()
    with pytest.raises(ZeroDivisionError), cms.maintenance.hold(["h1"], "reboot", id="t2"):
        _ = 1 / 0
    told = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert len(told) == 1 and "task t2 is not removed and may hold its hosts" in told[0].message


def test_a_permission_that_is_gone_already_is_given_back(cms: CmsClient, fake_cms: FakeCms) -> None:
    with cms.maintenance.hold(["h1"], "reboot"):
        fake_cms.state.tasks.clear()
    assert fake_cms.calls[-1].status == 404


def test_states_of_hosts(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.add_host("h4", group="web")
    until = datetime(2026, 2, 1, 12, tzinfo=UTC)

    changed = cms.hosts.set_state("h1", "down", reason="disk", author="ann", until=until)

    assert (changed.state, changed.reason, changed.until) == ("down", "disk", until)
    assert cms.hosts.state("h1") == changed
    assert [host.host for host in cms.hosts.list()] == ["h1", "h2", "h3", "h4"]
    assert [host.host for host in cms.hosts.list(state="down")] == ["h1"]
    assert [host.host for host in cms.hosts.list(group="web")] == ["h4"]
    with pytest.raises(NotFound):
        cms.hosts.state("h9")
    with pytest.raises(BadRequest, match="bad_state"):
        cms.hosts.set_state("h1", "asleep", reason="?")
    with pytest.raises(ValueError, match="has a zone"):
        cms.hosts.set_state("h1", "down", reason="?", until=datetime(2026, 2, 1))


def test_states_of_instances(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.add_instance("web", "h1", 80, tags=["a"])
    fake_cms.add_instance("web", "h2", 80)
    fake_cms.add_instance("db", "h1", 5432)

    changed = cms.instances.set_state("h1", 80, "maintenance", reason="disk")

    assert changed.state == "maintenance"
    assert [(one.host, one.port, one.state, one.tags) for one in cms.instances.list("web")] == [
        ("h1", 80, "maintenance", ("a",)),
        ("h2", 80, "active", ()),
    ]


def test_states_need_a_token_and_tasks_do_not(fake_cms: FakeCms) -> None:
    fake_cms.add_host("h1")
    with CmsClient(fake_cms.url, session=fake_cms.session()) as client:
        assert client.maintenance.create(["h1"], "reboot").is_granted
        with pytest.raises(ApiResponseError, match="status 401"):
            client.hosts.state("h1")


@pytest.mark.parametrize("name", ["task-ok", "task-in-process", "task-reject"])
def test_the_published_answers_are_understood(cms: CmsClient, fake_cms: FakeCms, name: str) -> None:
    fake_cms.faults.play(sample("cms", name).reply)

    task = cms.maintenance.check("task-1")

    assert f"task-{task.status}" == name and task.hosts == ("h1",) and task.message
    assert (task.is_granted, task.is_rejected) == (name == "task-ok", name == "task-reject")


def test_the_published_list_and_errors_are_understood(cms: CmsClient, fake_cms: FakeCms) -> None:
    fake_cms.faults.play(sample("cms", "tasks").reply)
    assert [(t.id, t.hosts, t.status) for t in cms.maintenance.list()] == [
        ("task-1", ("h1",), "ok"),
        ("task-2", ("h2", "h3"), "in-process"),
    ]
    fake_cms.faults.play(sample("cms", "removed").reply)
    cms.maintenance.remove("task-1")
    fake_cms.faults.play(sample("cms", "unsupported-action").reply)
    with pytest.raises(BadRequest, match="Unsupported action"):
        cms.maintenance.create(["h1"], "reboot")
    fake_cms.faults.play(sample("cms", "empty-task").reply)
    with pytest.raises(NotFound, match="Empty task"):
        cms.maintenance.check("task-1")
    fake_cms.faults.play(sample("cms", "late").reply)
    assert cms.maintenance.create(["h1"], "reboot").is_granted


def test_the_fake_answers_as_it_was_published(fake_cms: FakeCms) -> None:
    fake_cms.max_hosts = 2
    for host in ("h1", "h2", "h3"):
        fake_cms.add_host(host)
    url, session = fake_cms.url + "/api/walle/v11/tasks", fake_cms.session()
    task = {"id": "a", "type": "manual", "issuer": "ann", "action": "reboot", "hosts": ["h1"]}

    created = session.post(url, json=task, timeout=20)
    waiting = session.post(url, json={**task, "id": "b", "hosts": ["h2", "h3"]}, timeout=20)
    listed = session.get(url, timeout=20)
    bad = session.post(url, json={**task, "id": "c", "action": "burn"}, timeout=20)
    fake_cms.revoke("b")
    empty = session.get(url + "/b", timeout=20)
    removed = session.delete(url + "/a", timeout=20)

    check_shape(created.json(), sample("cms", "task-ok").json)
    check_shape(waiting.json(), sample("cms", "task-in-process").json)
    check_shape(listed.json(), sample("cms", "tasks").json)
    assert [created.json()["status"], waiting.json()["status"]] == ["ok", "in-process"]
    assert "message" not in listed.json()["result"][0]
    for answer, name in ((bad, "unsupported-action"), (empty, "empty-task"), (removed, "removed")):
        expected = sample("cms", name).reply
        assert (answer.status_code, answer.content) == (expected.status, expected.body)


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"id": 7, "hosts": "h1", "status": ["ok"], "until": {}, "new": 1}]
)
def test_models_take_whatever_comes(raw: object) -> None:
    task = MaintenanceTask.from_dict(raw)
    assert not task.is_granted and not task.is_rejected
    assert HostState.from_dict(raw).raw == (raw if isinstance(raw, dict) else {"value": raw})


def test_a_reset_fake_is_a_fresh_one(cms: CmsClient, fake_cms: FakeCms) -> None:
    cms.maintenance.create(["h1"], "reboot")
    fake_cms.reset()
    assert fake_cms.state == FakeCms().state


def test_a_rejection_is_one_short_line_without_secrets(
    fake_cms: FakeCms, yandex_fakes: YandexFakes
) -> None:
    hosts = [f"h{number}" for number in range(1000)]
    fake_cms.max_hosts = 0
    for host in hosts:
        fake_cms.add_host(host)
    client: CmsClient = yandex_fakes.client("cms")
    said = f"no,\n{fake_cms.token} " + "x" * 10_000
    task = {"id": "t1", "hosts": hosts, "status": "reject", "message": said}
    fake_cms.faults.on("maintenance.create", json=task)
    with pytest.raises(MaintenanceRejected) as caught, client.maintenance.hold(hosts, "reboot"):
        pytest.fail("there is no permission")
    told = str(caught.value)
    assert "h0, h1, " in told and "h9 and 990 more is rejected" in told
    assert len(told) < 1000 and "\n" not in told and fake_cms.token not in told
    assert fake_cms.token not in caught.value.message and caught.value.hosts == tuple(hosts)
