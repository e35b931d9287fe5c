"""ISS: a target is set, and waited for until enough instances have got there."""

from datetime import UTC, datetime, timedelta

import pytest

from sepelib.yandex.errors import BadRequest, NotFound, WaitTimeout
from sepelib.yandex.iss import ConfigurationState, Instance, IssClient
from sepelib.yandex.testing import EPOCH, FakeIss, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")

HOSTS = ("h1", "h2", "h3", "h4")


@pytest.fixture
def iss(yandex_fakes: YandexFakes, fake_iss: FakeIss) -> IssClient:
    """A client whose waits are of the fake's time."""
    fake_iss.add_configuration("web", *HOSTS)
    clock = yandex_fakes.clock
    client: IssClient = yandex_fakes.client("iss", clock=clock, sleep=clock.sleep)
    return client


def test_a_target_is_waited_for(
    iss: IssClient, fake_iss: FakeIss, yandex_fakes: YandexFakes
) -> None:
    iss.set_target("web", revision="2", desired="running")
    assert fake_iss.calls[-1].status == 202
    assert fake_iss.calls[-1].json == {"revision": "2", "desired": "running"}
    assert iss.state("web").by_actual == {}

    state = iss.wait_state("web", "2")

    assert (state.id, state.revision, state.total) == ("web", "2", 4)
    assert state.by_actual == {"running": 4} and state.share("running") == 1.0
    assert 10.0 <= yandex_fakes.clock.now < 20.0


def test_instances_of_a_host(iss: IssClient, yandex_fakes: YandexFakes) -> None:
    iss.set_target("web", revision="2", desired="prepared", hosts=["h1"])
    yandex_fakes.clock.advance(10.0)

    (one,) = iss.instances("h1")
    (other,) = iss.instances("h2")

    assert (one.host, one.port, one.revision) == ("h1", 8080, "2")
    assert (one.desired, one.actual) == ("prepared", "prepared")
    assert one.changed_at == EPOCH + timedelta(seconds=10)
    assert (other.revision, other.actual) == ("1", "running")


def test_enough_may_be_less_than_all(iss: IssClient, fake_iss: FakeIss) -> None:
    fake_iss.stick("h4", "no disk")
    iss.set_target("web", revision="2", desired="running")

    assert iss.wait_state("web", "2", 0.75).by_actual == {"running": 3}
    with pytest.raises(WaitTimeout, match=r"within 60 s, last state 75% running in 2"):
        iss.wait_state("web", "2", timeout=60.0)
    (stuck,) = iss.instances("h4")
    assert (stuck.desired, stuck.actual, stuck.message) == ("running", "running", "no disk")
    assert stuck.revision == "1"


def test_the_former_revision_does_not_count(iss: IssClient) -> None:
    with pytest.raises(WaitTimeout, match="100% running in 1"):
        iss.wait_state("web", "2", timeout=20.0)


def test_a_target_said_twice_is_one(
    iss: IssClient, fake_iss: FakeIss, yandex_fakes: YandexFakes
) -> None:
    fake_iss.faults.next("set_target", reset="after-apply")

    iss.set_target("web", revision="2", desired="running")
    assert len(fake_iss.calls) == 2 and len(fake_iss.state.due) == 4
    yandex_fakes.clock.advance(9.0)
    iss.set_target("web", revision="2", desired="running")
    yandex_fakes.clock.advance(1.0)

    assert iss.state("web").share("running") == 1.0


def test_a_new_target_is_in_place_of_the_last(iss: IssClient, yandex_fakes: YandexFakes) -> None:
    iss.set_target("web", revision="2", desired="running")
    yandex_fakes.clock.advance(9.0)
    iss.set_target("web", revision="1", desired="absent")
    yandex_fakes.clock.advance(9.0)
    assert iss.state("web").by_actual == {"running": 4}
    assert iss.wait_state("web", "1", actual="absent").by_actual == {"absent": 4}


def test_of_nothing_nothing_runs() -> None:
    empty = ConfigurationState.from_dict({"total": 0, "by_actual": {}})
    assert (empty.share("running"), empty.share("absent")) == (0.0, 1.0)


def test_what_is_refused(iss: IssClient) -> None:
    with pytest.raises(BadRequest, match="bad_hosts"):
        iss.set_target("web", revision="2", desired="running", hosts=["h9"])
    with pytest.raises(BadRequest, match="bad_state"):
        iss.set_target("web", revision="2", desired="asleep")
    with pytest.raises(NotFound):
        iss.state("db")
    with pytest.raises(NotFound):
        iss.instances("h9").first_page()
    with pytest.raises(ValueError, match="ratio"):
        iss.wait_state("web", "1", 0.0)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"total": "4", "by_actual": {"running": 4}, "changed_at": "never"},
        {"total": 4, "by_actual": ["running"], "changed_at": 0},
        {"total": True, "by_actual": {"running": None}},
    ],
)
def test_models_take_whatever_comes(raw: object) -> None:
    state = ConfigurationState.from_dict(raw)
    assert state.share("running") == 0.0
    assert state.raw == (raw if isinstance(raw, dict) else {"value": raw})
    moment = Instance.from_dict(raw).changed_at
    assert moment in (None, "never", datetime(1970, 1, 1, tzinfo=UTC))


def test_a_reset_fake_is_a_fresh_one(iss: IssClient, fake_iss: FakeIss) -> None:
    iss.set_target("web", revision="2", desired="running")
    fake_iss.reset()
    assert fake_iss.state == FakeIss().state


@pytest.mark.parametrize(
    ("total", "running", "share"),
    [(3, 10**400, 1.0), (10**400, 1, 0.0), (-1, -1, 0.0), (3, -1, 0.0), (2, 3, 1.0), (True, 1, 0)],
)
def test_a_share_is_one_whatever_is_told(total: int, running: int, share: float) -> None:
    told = ConfigurationState.from_dict({"total": total, "by_actual": {"running": running}})
    assert told.share("running") == share
