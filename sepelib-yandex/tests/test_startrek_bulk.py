"""Changes of many issues, and the wait for their end."""

import pytest

from sepelib.util.testing import Clock
from sepelib.yandex.errors import (
    NotFound,
    WaitTimeout,
)
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeStartrek, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    fake_startrek.add_queue("OPS")
    return fake_startrek


@pytest.fixture
def client(fake: FakeStartrek, startrek_client: StartrekClient) -> StartrekClient:
    return startrek_client


def test_a_bulk_change_is_waited_for_though_it_is_not_found_at_first(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.bulk_hidden, fake.bulk_polls = 2, 2
    issues = [client.issues.create("TEST", "x"), client.issues.create("TEST", "y")]

    change = client.bulk.update(issues, {"tags": {"add": ["bulk"]}}, notify=False)
    with pytest.raises(NotFound):
        client.bulk.get(change)
    over = client.bulk.wait(change, timeout=60.0, interval=0.001)

    assert (change.status, over.status, over.failed) == ("CREATED", "COMPLETE", False)
    assert [issue.tags for issue in client.issues.search(queue="TEST")] == [["bulk"], ["bulk"]]
    assert [call.status for call in fake.calls.of("bulk.get")] == [404, 404, 200, 200, 200]
    assert fake.calls.of("bulk.update")[-1].query == {"notify": "false"}


def test_a_bulk_change_that_some_issue_refuses_has_failed(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_issue("TEST"), fake.add_issue("TEST")
    client.issues.execute("TEST-1", "close", resolution="fixed")

    change = client.bulk.transition(["TEST-1", "TEST-2"], "close", values={"resolution": "wontFix"})
    over = client.bulk.wait(change, interval=0.001)

    assert over.failed and over.status_text == "TEST-1: no transition close from closed"
    moved = client.bulk.move(["TEST-2"], "OPS", initial_status=True, move_all_fields=False)
    assert not client.bulk.wait(moved, interval=0.001).failed
    assert [issue.key for issue in client.issues.search(queue="OPS")] == ["OPS-1"]


def test_a_bulk_change_of_one_issue_is_of_that_issue(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    issue = client.issues.create("TEST", "x")

    client.bulk.update(issue, {"tags": ["a"]})
    client.bulk.move("TEST-1", "OPS")

    sent = [call.json["issues"] for call in fake.calls if call.op.startswith("bulk.")]
    assert sent == [["TEST-1"], ["TEST-1"]]  # and neither its fields nor the letters of its key


def test_a_bulk_change_that_never_ends_is_not_waited_for_forever(
    yandex_fakes: YandexFakes, fake: FakeStartrek
) -> None:
    fake.bulk_polls = 10**9
    clock = Clock(1000.0)
    fake.add_issue("TEST")
    client: StartrekClient = yandex_fakes.client("startrek", clock=clock, sleep=clock.sleep)
    change = client.bulk.update(["TEST-1"], {"tags": ["x"]})

    with pytest.raises(WaitTimeout, match="within 60 s, last state CREATED"):
        client.bulk.wait(change, timeout=60.0, interval=1.0)

    assert clock.now == 1060.0


def test_a_bulk_change_that_is_still_not_found_after_ten_seconds_does_not_exist(
    yandex_fakes: YandexFakes, fake: FakeStartrek
) -> None:
    clock = Clock(1000.0)
    client: StartrekClient = yandex_fakes.client("startrek", clock=clock, sleep=clock.sleep)

    with pytest.raises(NotFound, match="no bulk change 7"):
        client.bulk.wait("7", timeout=60.0)

    assert clock.now == 1010.0


def test_a_bulk_change_that_was_found_once_is_not_lost_in_silence(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.bulk_hidden, fake.bulk_polls = 0, 10**9
    fake.add_issue("TEST")
    change = client.bulk.update(["TEST-1"], {"tags": ["x"]})
    client.bulk.get(change)
    fake.faults.next("bulk.get", json=dict(change.raw))
    fake.faults.next("bulk.get", status=404)

    with pytest.raises(NotFound):
        client.bulk.wait(change, timeout=5.0, interval=0.001)
