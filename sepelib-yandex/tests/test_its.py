"""ITS: knobs with versions, and overrides that do not outlive their block."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from sepelib.util.deadline import deadline
from sepelib.yandex.errors import (
    ApiResponseError,
    ApiTimeout,
    BadRequest,
    NotFound,
    PreconditionRequired,
    ServerError,
    VersionConflict,
)
from sepelib.yandex.its import ItsClient
from sepelib.yandex.testing import FakeIts, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")

KNOB = "web/search/threads"


@pytest.fixture
def its(fake_its: FakeIts, yandex_fakes: YandexFakes) -> ItsClient:
    client = yandex_fakes.client("its", sleep=fake_its.clock.sleep, now=lambda: fake_its.now)
    assert isinstance(client, ItsClient)
    return client


def test_a_handle_without_a_value_has_its_default(its: ItsClient) -> None:
    assert its.get(KNOB) is None
    with pytest.raises(NotFound, match=r"its value .*web/search/threads"):
        its.value(KNOB)


def test_a_value_has_the_version_of_the_header(fake_its: FakeIts, its: ItsClient) -> None:
    version = fake_its.set_value(KNOB, {"deep": [1]}, author="ann")
    found = its.value(KNOB)
    assert (found.path, found.value, found.author) == (KNOB, {"deep": [1]}, "ann")
    assert found.version == version and found.updated_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", 0, False, None, [], "x/y ?"])
def test_any_value_is_set_and_read(its: ItsClient, value: Any) -> None:
    written = its.set(KNOB, value, version=None)
    assert its.get(KNOB) == written and written.value == value


def test_a_value_is_set_over_the_version_that_was_seen(fake_its: FakeIts, its: ItsClient) -> None:
    first = its.set(KNOB, 1, version=None, comment="more load")
    second = its.set(KNOB, 2, version=first.version)
    assert second.version != first.version and fake_its.value(KNOB) == 2
    call = fake_its.calls.of("replace")[0]
    assert call.json == {"value": 1, "comment": "more load"}
    assert call.headers["If-None-Match"] == "*" and "If-Match" not in call.headers


def test_a_value_that_was_changed_meanwhile_is_a_conflict(
    fake_its: FakeIts, its: ItsClient
) -> None:
    seen = its.set(KNOB, 1, version=None)
    fake_its.set_value(KNOB, 5)
    for version in (seen.version, None):
        with pytest.raises(VersionConflict) as caught:
            its.set(KNOB, 2, version=version)
        assert caught.value.status == 412 and not caught.value.maybe_applied
    with pytest.raises(VersionConflict):
        its.set(KNOB, 5, version=seen.version)  # the same value, but by someone else
    with pytest.raises(VersionConflict):
        its.reset(KNOB, version=seen.version)
    assert fake_its.value(KNOB) == 5


def test_a_set_whose_answer_is_lost_has_worked_once(fake_its: FakeIts, its: ItsClient) -> None:
    before = its.set(KNOB, 1, version=None)
    fake_its.faults.next("replace", reset="after-apply")
    written = its.set(KNOB, 2, version=before.version)
    assert written.value == 2 and written.version == its.value(KNOB).version
    assert [value.value for value in its.history(KNOB)] == [2, 1]


def test_a_set_that_lost_its_answer_and_then_its_value_is_a_conflict(
    fake_its: FakeIts, its: ItsClient
) -> None:
    before = its.set(KNOB, 1, version=None)
    fake_its.set_value(KNOB, 7)
    fake_its.faults.next("replace", reset="before-apply")
    with pytest.raises(VersionConflict) as caught:
        its.set(KNOB, 2, version=before.version)
    assert caught.value.maybe_applied and fake_its.value(KNOB) == 7


def test_a_reset_whose_answer_is_lost_has_worked(fake_its: FakeIts, its: ItsClient) -> None:
    written = its.set(KNOB, 1, version=None)
    fake_its.faults.next("reset", reset="after-apply")
    its.reset(KNOB, version=written.version)
    assert its.get(KNOB) is None
    with pytest.raises(NotFound):
        its.reset(KNOB, version=written.version)


def test_a_value_expires(fake_its: FakeIts, its: ItsClient) -> None:
    until = fake_its.now + timedelta(seconds=60)
    written = its.set(KNOB, 1, version=None, expires_at=until)
    assert written.expires_at == until
    fake_its.clock.advance(59.0)
    assert its.value(KNOB).value == 1
    fake_its.clock.advance(1.0)
    assert its.get(KNOB) is None


def test_a_value_set_without_an_expiry_loses_the_earlier_one(
    fake_its: FakeIts, its: ItsClient
) -> None:
    until = fake_its.now + timedelta(seconds=60)
    first = its.set(KNOB, 1, version=None, expires_at=until)
    its.set(KNOB, 2, version=first.version)
    fake_its.clock.advance(61.0)
    assert its.value(KNOB).value == 2


def test_an_expiry_without_a_zone_is_refused_before_anything_is_sent(
    fake_its: FakeIts, its: ItsClient
) -> None:
    with pytest.raises(ValueError, match="has a zone"):
        its.set(KNOB, 1, version=None, expires_at=datetime(2026, 1, 2))
    assert fake_its.calls.ops == []


def test_a_large_value_is_refused(its: ItsClient) -> None:
    its.set(KNOB, "x" * ((64 << 10) - 2), version=None)
    with pytest.raises(ApiResponseError) as caught:
        its.set(KNOB + "/more", "x" * (64 << 10), version=None)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_handles_are_listed_by_prefix_and_history_backwards(
    fake_its: FakeIts, its: ItsClient
) -> None:
    fake_its.add_handle(KNOB, "number", description="threads of the search")
    fake_its.add_handle("mail/mode", "enum", enum=["on", "off"])
    (knob,) = its.handles(prefix="web/")
    assert (knob.path, knob.type) == (KNOB, "number")
    assert [handle.enum for handle in its.handles()] == [(), ("on", "off")]
    fake_its.set_value(KNOB, 1)
    fake_its.set_value(KNOB, 2)
    fake_its.set_value("mail", 3)
    assert [value.value for value in its.history(KNOB)] == [2, 1]
    assert [value.value for value in its.history("mail")] == [3]


def test_an_override_ends_with_its_block(fake_its: FakeIts, its: ItsClient) -> None:
    with its.override(KNOB, 8, ttl=600.0, comment="load test") as ours:
        assert its.get(KNOB) == ours and fake_its.value(KNOB) == 8
        assert ours.expires_at == fake_its.now + timedelta(seconds=600)
    assert its.get(KNOB) is None


def test_an_override_puts_back_the_earlier_value_and_its_expiry(
    fake_its: FakeIts, its: ItsClient
) -> None:
    until = fake_its.now + timedelta(seconds=3600)
    its.set(KNOB, 4, version=None, expires_at=until)
    with its.override(KNOB, 8, ttl=600.0):
        fake_its.clock.advance(300.0)
    found = its.value(KNOB)
    assert found.value == 4 and found.expires_at == until


def test_an_override_ends_though_its_block_fails_or_is_killed(
    fake_its: FakeIts, its: ItsClient
) -> None:
    class Killed(BaseException): ...

    for kind in (RuntimeError, Killed):
        with pytest.raises(kind), its.override(KNOB, 8, ttl=600.0):
            raise kind
        assert fake_its.value(KNOB) is None


def test_an_override_ends_though_the_deadline_of_its_block_is_over(
    fake_its: FakeIts, its: ItsClient, yandex_fakes: YandexFakes
) -> None:
    clock = fake_its.clock
    client = yandex_fakes.client("its", clock=clock, sleep=clock.sleep, now=lambda: fake_its.now)
    with deadline(5.0, clock=clock), client.override(KNOB, 8, ttl=600.0):
        clock.advance(6.0)
        with pytest.raises(ApiTimeout):
            client.get(KNOB)
    assert fake_its.value(KNOB) is None


def test_an_override_that_someone_has_changed_is_left_alone(
    fake_its: FakeIts, its: ItsClient
) -> None:
    for earlier in (None, 4):
        if earlier is not None:
            fake_its.set_value(KNOB, earlier)
        with pytest.raises(VersionConflict), its.override(KNOB, 8, ttl=600.0):
            fake_its.set_value(KNOB, 9)
        assert fake_its.value(KNOB) == 9
        fake_its.remove("values", KNOB)


def test_an_override_of_a_default_that_has_expired_is_over(
    fake_its: FakeIts, its: ItsClient
) -> None:
    with its.override(KNOB, 8, ttl=600.0):
        fake_its.clock.advance(601.0)
    assert its.get(KNOB) is None


def test_an_expired_override_tells_that_the_earlier_value_is_not_back(
    fake_its: FakeIts, its: ItsClient
) -> None:
    fake_its.set_value(KNOB, 4)
    with pytest.raises(VersionConflict), its.override(KNOB, 8, ttl=600.0):
        fake_its.clock.advance(601.0)


def test_an_error_of_the_block_is_not_hidden_by_an_override_that_stays(
    fake_its: FakeIts, its: ItsClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake_its.faults.on("reset", status=500)
    with pytest.raises(RuntimeError, match="mine"), its.override(KNOB, 8, ttl=600.0):
        raise RuntimeError("mine")
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"{KNOB} keeps its override until 2026-01-01 00:10:00+00:00: its reset")
    with pytest.raises(ServerError), its.override("other", 8, ttl=600.0):
        pass


def test_the_fake_refuses_what_the_contract_does_not_have(
    fake_its: FakeIts, its: ItsClient
) -> None:
    with pytest.raises(BadRequest, match="value is missing"):
        its.replace(KNOB, {}, if_none_match="*")
    with pytest.raises(BadRequest, match="no RFC 3339"):
        its.replace(KNOB, {"value": 1, "expires_at": "soon"}, if_none_match="*")
    with pytest.raises(BadRequest, match="expires_at is over"):
        its.set(KNOB, 1, version=None, expires_at=fake_its.now)
    with pytest.raises(PreconditionRequired):
        its.replace(KNOB, {"value": 1})
    fake_its.set_value(KNOB, 1)
    with pytest.raises(PreconditionRequired):
        its.reset(KNOB, version=None)


def test_a_value_that_has_not_changed_is_not_sent_again(fake_its: FakeIts) -> None:
    version = fake_its.set_value(KNOB, 1)
    answer = fake_its.session().get(
        f"{fake_its.url}/v1/values/{KNOB}",
        headers={"Authorization": f"OAuth {fake_its.token}", "If-None-Match": version},
        timeout=20.0,
    )
    assert (answer.status_code, answer.headers["ETag"], answer.content) == (304, version, b"")
    assert isinstance(answer, requests.Response)


def test_what_is_sent_as_a_list_is_found_again_though_its_answer_is_lost(
    fake_its: FakeIts, its: ItsClient
) -> None:
    fake_its.faults.next("replace", reset="after-apply")
    assert its.set(KNOB, (1, {2: None}), version=None).value == [1, {"2": None}]


def test_one_is_not_true_when_an_answer_was_lost(
    fake_its: FakeIts, its: ItsClient, yandex_fakes: YandexFakes
) -> None:
    def sleep(seconds: float) -> None:
        fake_its.set_value(KNOB, True)

    client: ItsClient = yandex_fakes.client("its", sleep=sleep)
    fake_its.faults.next("replace", reset="before-apply")
    with pytest.raises(VersionConflict):
        client.set(KNOB, 1, version=None)


def test_a_set_that_cannot_be_looked_up_says_that_it_may_have_worked(
    fake_its: FakeIts, its: ItsClient
) -> None:
    fake_its.faults.next("replace", reset="after-apply")
    fake_its.faults.on("value", status=403)
    with pytest.raises(VersionConflict) as caught:
        its.set(KNOB, 1, version=None)
    assert caught.value.maybe_applied


def test_an_override_of_what_has_expired_meanwhile_leaves_the_default(
    fake_its: FakeIts, its: ItsClient
) -> None:
    its.set(KNOB, 4, version=None, expires_at=fake_its.now + timedelta(seconds=60))
    with its.override(KNOB, 8, ttl=600.0):
        fake_its.clock.advance(60.0)
    assert fake_its.value(KNOB) is None
