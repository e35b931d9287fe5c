"""GenCfg: what a tag has is asked for once, what the head has again and again, by its ETag."""

from typing import Any

import pytest
import requests

from sepelib.yandex.errors import ApiProtocolError, ApiTimeout, NotFound
from sepelib.yandex.gencfg import GencfgClient, Group, Instance
from sepelib.yandex.testing import FakeGencfg, Reply, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def gencfg(yandex_fakes: YandexFakes, fake_gencfg: FakeGencfg) -> GencfgClient:
    """A client of the head, with the fake's time."""
    fake_gencfg.add_group("WEB", "h1", "h2", "h1", location="north")
    fake_gencfg.add_group("DB", "h3", port=5432)
    client: GencfgClient = yandex_fakes.client("gencfg", clock=yandex_fakes.clock)
    return client


def test_a_group_has_instances_and_hosts(gencfg: GencfgClient, fake_gencfg: FakeGencfg) -> None:
    assert [(one.hostname, one.port) for one in gencfg.instances("DB")] == [("h3", 5432)]
    assert gencfg.hosts("WEB") == ["h1", "h2"]
    assert gencfg.groups() == ["WEB", "DB"]
    assert gencfg.group("WEB").raw["location"] == "north"
    assert gencfg.tags() == []
    assert fake_gencfg.calls.of("instances")[0].path == "/head/searcherlookup/groups/DB/instances"
    assert "Authorization" not in fake_gencfg.calls[-1].headers


def test_a_tag_is_asked_for_once(
    gencfg: GencfgClient, fake_gencfg: FakeGencfg, yandex_fakes: YandexFakes
) -> None:
    tag: GencfgClient = yandex_fakes.client(
        "gencfg", revision=fake_gencfg.release("r1"), clock=yandex_fakes.clock
    )
    fake_gencfg.add_group("WEB", "h9")

    assert tag.hosts("WEB") == ["h1", "h2"] and gencfg.hosts("WEB") == ["h9"]
    assert tag.group("WEB").name == "WEB" and len(tag.groups()) == 2
    asked = len(fake_gencfg.calls)
    yandex_fakes.clock.advance(1e9)

    assert tag.hosts("WEB") == ["h1", "h2"]
    assert tag.group("WEB").name == "WEB" and len(tag.groups()) == 2
    assert len(fake_gencfg.calls) == asked


def test_tags_come_though_each_one_stays(
    fake_gencfg: FakeGencfg, yandex_fakes: YandexFakes
) -> None:
    revision = fake_gencfg.release("r1")
    clock = yandex_fakes.clock
    tag: GencfgClient = yandex_fakes.client("gencfg", revision=revision, clock=clock)
    assert tag.tags() == ["r1"]
    fake_gencfg.release("r2")
    clock.advance(61.0)
    assert tag.tags() == ["r1", "r2"]


def test_the_head_is_asked_again_by_its_etag(
    gencfg: GencfgClient, fake_gencfg: FakeGencfg, yandex_fakes: YandexFakes
) -> None:
    gencfg.hosts("WEB")
    yandex_fakes.clock.advance(59.0)
    assert gencfg.hosts("WEB") == ["h1", "h2"] and len(fake_gencfg.calls) == 1

    yandex_fakes.clock.advance(2.0)
    assert gencfg.hosts("WEB") == ["h1", "h2"]
    first, second = fake_gencfg.calls
    assert "If-None-Match" not in first.headers and second.headers["If-None-Match"] == '"3"'
    assert (first.status, second.status) == (200, 304)
    assert gencfg.hosts("WEB") == ["h1", "h2"] and len(fake_gencfg.calls) == 2

    fake_gencfg.add_group("WEB", "h9")
    yandex_fakes.clock.advance(61.0)
    assert gencfg.hosts("WEB") == ["h9"]
    yandex_fakes.clock.advance(61.0)
    assert gencfg.hosts("WEB") == ["h9"]
    assert [call.status for call in fake_gencfg.calls] == [200, 304, 200, 304]


def test_what_a_caller_does_to_a_list_is_its_own_matter(gencfg: GencfgClient) -> None:
    gencfg.hosts("WEB").clear()
    gencfg.instances("WEB").clear()
    assert len(gencfg.hosts("WEB")) == 2 and len(gencfg.instances("WEB")) == 3


def test_an_unknown_group_is_not_found_and_not_kept(
    gencfg: GencfgClient, fake_gencfg: FakeGencfg
) -> None:
    with pytest.raises(NotFound, match="unknown_group: no group NEW"):
        gencfg.instances("NEW")
    fake_gencfg.add_group("NEW", "h1")
    assert gencfg.hosts("NEW") == ["h1"]


def test_a_bare_list_is_taken_and_what_is_no_list_is_not(
    gencfg: GencfgClient, fake_gencfg: FakeGencfg
) -> None:
    fake_gencfg.faults.play(Reply(json=[{"hostname": "h7"}]))
    assert gencfg.hosts("A") == ["h7"]
    fake_gencfg.faults.play(Reply(json={"instances": 7}))
    with pytest.raises(ApiProtocolError, match="no list instances"):
        gencfg.hosts("B")
    fake_gencfg.faults.play(Reply(json={"instances": [7, {}]}))
    assert gencfg.hosts("C") == [] and len(gencfg.instances("C")) == 2


def test_a_slow_answer_is_asked_for_three_times(
    fake_gencfg: FakeGencfg, yandex_fakes: YandexFakes
) -> None:
    fake_gencfg.faults.on("groups", delay=1.0)
    gencfg: GencfgClient = yandex_fakes.client(
        "gencfg", timeout=(1.0, 0.05), sleep=lambda seconds: None
    )
    with pytest.raises(ApiTimeout) as caught:
        gencfg.groups()
    assert caught.value.phase == "read" and caught.value.attempts == 3


def test_a_name_cannot_leave_its_place(gencfg: GencfgClient, fake_gencfg: FakeGencfg) -> None:
    fake_gencfg.add_group("A/B?c", "h5")
    assert gencfg.hosts("A/B?c") == ["h5"]
    with pytest.raises(ValueError, match="no segment of a path"):
        gencfg.hosts("..")


def test_all_of_it_can_be_configured(fake_gencfg: FakeGencfg) -> None:
    fake_gencfg.strict = False
    section = {
        "url": fake_gencfg.url,
        "revision": "old",
        "head_ttl": 5,
        "paths": {"instances": "/api/{rev}/{group}"},
    }
    client = GencfgClient.from_config(section, session=fake_gencfg.session())
    with client, pytest.raises(NotFound):
        client.instances("WEB")
    assert fake_gencfg.calls[-1].path == "/api/old/WEB"


@pytest.mark.parametrize("raw", [None, [], {}, {"hostname": 7, "port": "x", "name": {}, "new": 1}])
def test_models_take_whatever_comes(raw: object) -> None:
    kept = raw if isinstance(raw, dict) else {"value": raw}
    assert Instance.from_dict(raw).raw == Group.from_dict(raw).raw == kept


def test_the_head_by_its_name_is_no_tag_and_no_name_is_no_revision(
    fake_gencfg: FakeGencfg, yandex_fakes: YandexFakes
) -> None:
    clock = yandex_fakes.clock
    head: GencfgClient = yandex_fakes.client("gencfg", revision=GencfgClient.HEAD, clock=clock)
    assert head.groups() == []
    fake_gencfg.add_group("WEB", "h1")
    clock.advance(61.0)
    assert head.groups() == ["WEB"]
    with pytest.raises(ValueError, match="None for the head"):
        GencfgClient(fake_gencfg.url, revision="")


def test_another_revision_has_answers_of_its_own(
    gencfg: GencfgClient, fake_gencfg: FakeGencfg
) -> None:
    revision = fake_gencfg.release("r1")
    fake_gencfg.add_group("WEB", "h9")
    assert gencfg.hosts("WEB") == ["h9"]
    gencfg.revision = revision
    assert gencfg.hosts("WEB") == ["h1", "h2"]


def test_a_slow_answer_is_waited_for_though_another_time_is_configured(
    fake_gencfg: FakeGencfg,
) -> None:
    fake_gencfg.add_group("WEB", "h1")
    asked: list[object] = []

    class Session(requests.Session):
        def request(self, *args: Any, **kwargs: Any) -> requests.Response:
            asked.append(kwargs["timeout"])
            return super().request(*args, **kwargs)

    session = Session()
    session.adapters = fake_gencfg.session().adapters
    section = {"url": fake_gencfg.url, "timeout": {"connect": 2, "total": 90}}
    with GencfgClient.from_config(section, session=session) as client:
        assert client.groups() == ["WEB"]
    assert asked == [(2.0, 30.0)]
