"""Nanny: attributes are changed by snapshot ids, so that no change of somebody else is lost."""

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiTimeout,
    BadRequest,
    NotFound,
    VersionConflict,
    WaitTimeout,
)
from sepelib.yandex.nanny import (
    Instance,
    NannyClient,
    Service,
    ServiceState,
    Snapshot,
    SnapshotFailed,
    SnapshotState,
)
from sepelib.yandex.testing import EPOCH, FakeNanny, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def nanny(yandex_fakes: YandexFakes, fake_nanny: FakeNanny) -> NannyClient:
    """A client whose waits are of the fake's time, of a service with one snapshot."""
    fake_nanny.add_service("web", {"replicas": 1}, info={"owner": "ann"}, instances=(("h1", 80),))
    clock = yandex_fakes.clock
    client: NannyClient = yandex_fakes.client("nanny", clock=clock, sleep=clock.sleep)
    return client


def one_more(content: dict[str, Any]) -> dict[str, Any]:
    content["replicas"] += 1
    return content


def replicas(fake: FakeNanny) -> list[int]:
    """Of each snapshot."""
    return [s["content"]["replicas"] for s in fake.state.services["web"].snapshots["runtime_attrs"]]


def test_attributes_are_read_and_replaced(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    first = nanny.runtime_attrs("web")
    assert (first.snapshot_id, first.content) == ("snapshot-1", {"replicas": 1})
    assert (first.author, first.comment, first.created_at) == ("robot", "created", EPOCH)

    second = nanny.set_runtime_attrs(
        "web", {"replicas": 2}, snapshot_id="snapshot-1", comment="two"
    )

    assert fake_nanny.calls[-1].json == {
        "snapshot_id": "snapshot-1",
        "content": {"replicas": 2},
        "comment": "two",
    }
    assert (second.content, second.comment) == ({"replicas": 2}, "two")
    assert nanny.runtime_attrs("web") == second
    with pytest.raises(VersionConflict, match="the latest snapshot is snapshot-3") as caught:
        nanny.set_runtime_attrs("web", {}, snapshot_id="snapshot-1", comment="late")
    assert caught.value.status == 409 and not caught.value.maybe_applied
    assert fake_nanny.calls.ops[-1] == "set_runtime_attrs"


def test_info_attributes_have_snapshots_of_their_own(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    info = nanny.info_attrs("web")
    assert info.content == {"owner": "ann"} and info.snapshot_id is not None
    nanny.set_info_attrs("web", {"owner": "bob"}, snapshot_id=info.snapshot_id, comment="")
    updated = nanny.update_info_attrs("web", lambda c: {**c, "abc": 1}, "abc")
    assert updated.content == {"owner": "bob", "abc": 1}
    assert replicas(fake_nanny) == [1]


def test_an_update_applies_a_function(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    new = nanny.update_runtime_attrs("web", one_more, "more")

    assert new.content == {"replicas": 2} and replicas(fake_nanny) == [1, 2]
    assert fake_nanny.latest("web")["meta"]["comment"] == "more"
    assert fake_nanny.calls.ops == ["runtime_attrs", "set_runtime_attrs"]


@pytest.mark.parametrize("fn", [lambda content: content, lambda content: {"replicas": 1}])
def test_no_change_is_no_write(
    nanny: NannyClient, fake_nanny: FakeNanny, fn: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    assert nanny.update_runtime_attrs("web", fn, "nothing").snapshot_id == "snapshot-1"
    assert fake_nanny.calls.ops == ["runtime_attrs"]


def test_who_was_slower_reads_again(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    faster = [10, 20]

    def raced(content: dict[str, Any]) -> dict[str, Any]:
        if faster:
            fake_nanny.change("web", {"replicas": faster.pop(0)})
        return one_more(content)

    new = nanny.update_runtime_attrs("web", raced, "more")

    assert new.content == {"replicas": 21} and replicas(fake_nanny) == [1, 10, 20, 21]
    assert len(yandex_fakes.clock.sleeps) == 2 and yandex_fakes.clock.now < 1.0


def test_who_is_always_slower_gives_up(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    def raced(content: dict[str, Any]) -> dict[str, Any]:
        fake_nanny.change("web", {"replicas": content["replicas"] + 10})
        return one_more(content)

    with pytest.raises(VersionConflict) as caught:
        nanny.update_runtime_attrs("web", raced, "more", attempts=3)

    assert not caught.value.maybe_applied
    assert replicas(fake_nanny) == [1, 11, 21, 31]


def test_a_412_is_a_conflict_too(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    fake_nanny.faults.next("set_runtime_attrs", status=412)
    assert nanny.update_runtime_attrs("web", one_more, "more").content == {"replicas": 2}


def test_a_write_whose_answer_was_lost_is_not_written_twice(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    fake_nanny.faults.next("set_runtime_attrs", reset="after-apply")

    new = nanny.update_runtime_attrs("web", one_more, "more")

    assert new.content == {"replicas": 2} and replicas(fake_nanny) == [1, 2]
    assert new.snapshot_id == fake_nanny.latest("web")["snapshot_id"]
    assert [call.status for call in fake_nanny.calls] == [200, None, 409, 200]


def test_a_write_that_was_read_too_slowly_is_not_written_twice(
    fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    fake_nanny.add_service("web", {"replicas": 1})
    fake_nanny.faults.next("set_runtime_attrs", delay=1.0)
    slow: NannyClient = yandex_fakes.client("nanny", timeout=(1.0, 0.2), sleep=lambda _: None)

    assert slow.update_runtime_attrs("web", one_more, "more").content == {"replicas": 2}
    assert replicas(fake_nanny) == [1, 2]


def test_a_write_that_did_not_arrive_is_repeated(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    fake_nanny.faults.next("set_runtime_attrs", reset="before-apply")
    assert nanny.update_runtime_attrs("web", one_more, "more").content == {"replicas": 2}
    assert replicas(fake_nanny) == [1, 2]


def test_a_lost_write_under_another_one_is_not_repeated(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    """The second write has seen the first: to add one again would be one too many."""

    def sleep(seconds: float) -> None:
        fake_nanny.change("web", {"replicas": 2, "image": "new"})

    fake_nanny.faults.next("set_runtime_attrs", reset="after-apply")
    client: NannyClient = yandex_fakes.client("nanny", sleep=sleep)

    with pytest.raises(VersionConflict) as caught:
        client.update_runtime_attrs("web", one_more, "more")

    assert caught.value.maybe_applied
    assert replicas(fake_nanny) == [1, 2, 2]


def test_a_plain_write_is_compared_before_it_fails(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    fake_nanny.faults.next("set_runtime_attrs", reset="after-apply")
    new = nanny.set_runtime_attrs("web", {"replicas": 5}, snapshot_id="snapshot-1", comment="five")
    assert new.content == {"replicas": 5}

    def sleep(seconds: float) -> None:
        fake_nanny.change("web", {"replicas": 7})

    client: NannyClient = yandex_fakes.client("nanny", sleep=sleep)
    fake_nanny.faults.next("set_runtime_attrs", reset="before-apply")
    assert new.snapshot_id is not None
    with pytest.raises(VersionConflict) as caught:
        client.set_runtime_attrs("web", {"replicas": 6}, snapshot_id=new.snapshot_id, comment="six")
    assert caught.value.maybe_applied and replicas(fake_nanny) == [1, 5, 7]


def test_a_service_that_is_away_is_told_of_as_it_is(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    fake_nanny.faults.on("set_runtime_attrs", reset="after-apply")
    with pytest.raises(ApiConnectionError) as caught:
        nanny.update_runtime_attrs("web", one_more, "more")
    assert caught.value.maybe_applied and not isinstance(caught.value, ApiTimeout)


def test_a_snapshot_is_asked_for_once(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    nanny.update_runtime_attrs("web", one_more, "more")
    snapshot = nanny.snapshot("web", "snapshot-1")
    snapshot.content["replicas"] = 99
    yandex_fakes.clock.advance(1e9)

    assert nanny.snapshot("web", "snapshot-1").content == {"replicas": 1}
    assert len(fake_nanny.calls.of("snapshot")) == 1
    with pytest.raises(NotFound):
        nanny.snapshot("web", "snapshot-9")


def test_a_state_is_set_and_waited_for(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    nanny.set_snapshot_state("web", "snapshot-1", "online", comment="go")
    assert fake_nanny.calls[-1].status == 202
    before = nanny.current_state("web")
    assert (before.state, before.of("snapshot-1"), before.of("x")) == ("preparing",) * 2 + (None,)

    after = nanny.wait_state("web", "snapshot-1", "online")

    assert (after.state, after.of("snapshot-1")) == ("online", "online")
    assert after.snapshots == (SnapshotState(snapshot_id="snapshot-1", state="online"),)
    assert 20.0 <= yandex_fakes.clock.now < 35.0


def test_a_wait_ends_in_time_or_where_nothing_comes_any_more(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    with pytest.raises(WaitTimeout, match="within 20 s, last state offline"):
        nanny.wait_state("web", "snapshot-1", "online", 20.0)
    with pytest.raises(WaitTimeout, match="last state unknown"):
        nanny.wait_state("web", "snapshot-9", "online", 20.0)

    fake_nanny.move("web", "snapshot-1", "failed")
    with pytest.raises(SnapshotFailed, match="snapshot snapshot-1 is failed") as caught:
        nanny.wait_state("web", "snapshot-1", "online")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.state) == (str(caught.value), "failed")
    assert nanny.wait_state("web", "snapshot-1", "failed").state == "failed"


def test_a_state_said_twice_is_said_once(
    nanny: NannyClient, fake_nanny: FakeNanny, yandex_fakes: YandexFakes
) -> None:
    fake_nanny.faults.next("set_snapshot_state", reset="after-apply")
    nanny.set_snapshot_state("web", "snapshot-1", "online", comment="go")
    yandex_fakes.clock.advance(19.0)
    nanny.set_snapshot_state("web", "snapshot-1", "online", comment="go on")
    yandex_fakes.clock.advance(1.0)
    assert nanny.current_state("web").of("snapshot-1") == "online"
    nanny.set_snapshot_state("web", "snapshot-1", "online", comment="still")
    assert nanny.current_state("web").of("snapshot-1") == "online"


def test_services_and_instances(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    for number in range(150):
        fake_nanny.add_service(f"s{number}")
    services = nanny.services()
    assert len({service.id for service in services}) == 151 and services.total == 151
    assert nanny.instances("web") == [Instance(host="h1", port=80)]
    with pytest.raises(NotFound):
        nanny.instances("db")


def test_a_comment_may_be_required(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    fake_nanny.require_comment = True
    with pytest.raises(BadRequest, match="comment is missing"):
        nanny.update_runtime_attrs("web", one_more, "")
    with pytest.raises(BadRequest, match="comment is missing"):
        nanny.set_snapshot_state("web", "snapshot-1", "online", comment="")
    assert nanny.update_runtime_attrs("web", one_more, "said").content == {"replicas": 2}


def test_paths_may_end_with_a_slash(fake_nanny: FakeNanny) -> None:
    fake_nanny.add_service("web")
    section = {**fake_nanny.config(), "slash": True, "paths": {"info_attrs": "/v2/services/{id}"}}
    fake_nanny.strict = False
    with NannyClient.from_config(section, session=fake_nanny.session()) as client:
        client.runtime_attrs("web")
        with pytest.raises(NotFound):
            client.info_attrs("web")
    assert [call.path for call in fake_nanny.calls] == [
        "/v2/services/web/runtime_attrs/",
        "/v2/services/web",
    ]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"content": 7, "meta": "x", "id": {}, "snapshots": 7, "state": []},
        {"snapshots": [7, {"state": {}}], "meta": {"created_at": "2026-01-01T00:00:00Z"}},
    ],
)
def test_models_take_whatever_comes(raw: object) -> None:
    kept = raw if isinstance(raw, dict) else {"value": raw}
    for model in (Service, Snapshot, SnapshotState, ServiceState, Instance):
        assert model.from_dict(raw).raw == kept
    assert ServiceState.from_dict(raw).of("x") is None
    moment = Snapshot.from_dict(raw).created_at
    assert moment is None or (isinstance(moment, datetime) and moment.tzinfo is UTC)


def test_a_reset_fake_is_a_fresh_one(nanny: NannyClient, fake_nanny: FakeNanny) -> None:
    nanny.set_snapshot_state("web", "snapshot-1", "online", comment="go")
    fake_nanny.reset()
    assert fake_nanny.state == FakeNanny().state


def test_a_tuple_is_written_as_the_list_that_it_becomes(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    fake_nanny.faults.next("set_runtime_attrs", reset="after-apply")
    new = nanny.update_runtime_attrs("web", lambda _: {"hosts": ("h1", "h2")}, "hosts")
    assert new.content == {"hosts": ["h1", "h2"]}
    fake_nanny.calls.clear()
    nanny.update_runtime_attrs("web", lambda _: {"hosts": ("h1", "h2")}, "again")
    assert fake_nanny.calls.ops == ["runtime_attrs"]


def test_true_in_place_of_1_is_a_change(nanny: NannyClient) -> None:
    new = nanny.update_runtime_attrs("web", lambda _: {"replicas": True}, "a mistake")
    assert new.snapshot_id != "snapshot-1" and new.content["replicas"] is True


def test_a_write_that_cannot_be_looked_up_says_that_it_may_have_worked(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    def changed(content: dict[str, Any]) -> dict[str, Any]:
        fake_nanny.faults.on("runtime_attrs", status=403)
        return one_more(content)

    fake_nanny.faults.next("set_runtime_attrs", reset="after-apply")
    with pytest.raises(VersionConflict) as caught:
        nanny.update_runtime_attrs("web", changed, "more")
    assert caught.value.maybe_applied and replicas(fake_nanny) == [1, 2]


@pytest.mark.parametrize(
    "answer", [b'{"content": {}}', b'{"snapshot_id": 7, "content": {}}', b'{"snapshot_id": "s"}']
)
def test_nothing_is_written_over_an_answer_without_an_id_or_content(
    nanny: NannyClient, fake_nanny: FakeNanny, answer: bytes
) -> None:
    fake_nanny.faults.on("runtime_attrs", body=answer)
    with pytest.raises(ApiProtocolError, match="no snapshot_id or content"):
        nanny.update_runtime_attrs("web", lambda _: {"replicas": 2}, "two")
    assert fake_nanny.calls.ops == ["runtime_attrs"]


def test_a_function_that_returns_nothing_writes_nothing(
    nanny: NannyClient, fake_nanny: FakeNanny
) -> None:
    def in_place(content: dict[str, Any]) -> Any:
        content["replicas"] = 2

    with pytest.raises(TypeError, match="has to return them"):
        nanny.update_runtime_attrs("web", in_place, "two")
    assert fake_nanny.calls.ops == ["runtime_attrs"]
