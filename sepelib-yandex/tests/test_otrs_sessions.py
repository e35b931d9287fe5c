"""Who the client of OTRS is there: sessions, their end, and customers."""

import logging
import pickle
import threading
import time
from typing import Any

import pytest

from sepelib.util.deadline import deadline
from sepelib.util.secrets import Secret
from sepelib.yandex.auth import TokenSource
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    CredentialsUnavailable,
    DeadlineExceeded,
)
from sepelib.yandex.otrs import OtrsClient, OtrsError
from sepelib.yandex.testing import FakeOtrs, sample

pytestmark = pytest.mark.yandex(transport="both")

TICKET = {
    "Title": "Disk is full",
    "Queue": "Raw",
    "State": "new",
    "Priority": "3 normal",
    "CustomerUser": "ann",
}
ARTICLE = {"Subject": "Disk", "Body": "no space left", "ContentType": "text/plain; charset=utf-8"}


def test_one_session_serves_all_calls_and_is_in_none_of_the_headers(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    assert repr(otrs_client.session()) == "***"
    otrs_client.search()
    number = otrs_client.create_ticket(TICKET, ARTICLE).ticket_id
    otrs_client.get_ticket(str(number))

    assert fake_otrs.calls.ops == ["SessionCreate", "TicketSearch", "TicketCreate", "TicketGet"]
    session = otrs_client.session().reveal()
    search, create, get = fake_otrs.calls[1:]
    assert search.query["SessionID"] == create.json["SessionID"] == session
    assert get.query["SessionID"] == session and "Password" not in create.json
    assert not any("Authorization" in call.headers for call in fake_otrs.calls)


def test_a_session_that_has_died_is_renewed_once_and_the_call_repeated(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    otrs_client.search()
    fake_otrs.clock.advance(fake_otrs.session_ttl)

    made = otrs_client.create_ticket(TICKET, ARTICLE)

    assert fake_otrs.calls.ops[2:] == ["TicketCreate", "SessionCreate", "TicketCreate"]
    assert list(fake_otrs.state.tickets) == [str(made.ticket_id)]


def test_a_session_is_renewed_no_more_than_once_for_a_call(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("TicketGet", json=sample("otrs", "session expired").json)

    with pytest.raises(OtrsError) as caught:
        otrs_client.get_ticket(1)

    assert caught.value.code == "TicketGet.AuthFail"
    assert fake_otrs.calls.ops == ["SessionCreate", "TicketGet", "SessionCreate", "TicketGet"]


def test_a_wrong_password_is_said_once(fake_otrs: FakeOtrs, otrs_client: OtrsClient) -> None:
    fake_otrs.state.agents[fake_otrs.login] = "another"

    with pytest.raises(OtrsError) as caught:
        otrs_client.search()

    assert caught.value.code == "SessionCreate.AuthFail"
    assert fake_otrs.calls.ops == ["SessionCreate"]


def test_of_many_callers_without_a_session_one_makes_it(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("SessionCreate", delay=0.2)
    found: list[list[int]] = []
    callers = [
        threading.Thread(target=lambda: found.append(otrs_client.search())) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)

    assert found == [[]] * 8
    assert fake_otrs.calls.ops.count("SessionCreate") == 1


def test_of_many_callers_whose_session_has_died_one_makes_another(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    otrs_client.session()
    fake_otrs.expire_sessions()
    fake_otrs.faults.on("SessionCreate", delay=0.2)
    found: list[list[int]] = []
    callers = [
        threading.Thread(target=lambda: found.append(otrs_client.search())) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)

    assert found == [[]] * 8
    assert fake_otrs.calls.ops.count("SessionCreate") == 2


def test_who_waits_for_another_ones_session_obeys_the_deadline(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    otrs_client._signing_in.acquire(None)  # as somebody who signs in and hangs

    started = time.monotonic()

    with pytest.raises(DeadlineExceeded, match="before there is a session"), deadline(0.05):
        otrs_client.search()

    assert time.monotonic() - started < 10.0
    otrs_client._signing_in.release()
    assert otrs_client.search() == [] and fake_otrs.calls.ops[0] == "SessionCreate"


def test_the_total_time_is_for_all_requests_of_a_method(
    fake_otrs: FakeOtrs, yandex_fakes: Any
) -> None:
    client = yandex_fakes.client("otrs", total_timeout=1.0)
    fake_otrs.faults.on("*", delay=0.4)

    with pytest.raises(DeadlineExceeded) as caught:
        client.create_ticket(TICKET, ARTICLE, unique=("Alert", "7"))
    assert caught.value.maybe_applied is (caught.value.op == "TicketCreate")
    ops = fake_otrs.calls.ops
    assert ops == ["SessionCreate", "TicketSearch", "TicketCreate"][: len(ops)]


def test_a_customer_signs_in_as_one_and_sees_its_own(
    fake_otrs: FakeOtrs, yandex_fakes: Any
) -> None:
    fake_otrs.add_customer("bob", "of-bob")
    number = fake_otrs.add_ticket(CustomerUser="bob")
    fake_otrs.add_ticket(CustomerUser="ann")
    client = yandex_fakes.client("otrs", login="bob", password="of-bob", customer=True)

    assert client.search() == [number]
    client.update_ticket(number, None, ARTICLE)
    assert fake_otrs.ticket(number)["Article"][0]["SenderType"] == "customer"
    assert set(fake_otrs.calls[0].json) == {"CustomerUserLogin", "Password"}


def test_a_session_that_could_not_be_made_has_changed_nothing(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("SessionCreate", reset="after-apply")

    with pytest.raises(ApiConnectionError, match="it was not applied") as caught:
        otrs_client.create_ticket(TICKET, ARTICLE)

    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)


def test_a_session_id_that_cannot_be_sent_is_not_kept(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.next("SessionCreate", body=b'{"SessionID": "x\\ud800"}', times=3)

    with pytest.raises(ApiProtocolError, match="there is no SessionID"):
        otrs_client.search()
    fake_otrs.faults.clear()
    assert otrs_client.search() == []


def test_the_password_comes_from_a_file_or_the_environment(
    fake_otrs: FakeOtrs, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text(fake_otrs.password + "\n")
    monkeypatch.setenv("OTRS_PASSWORD", fake_otrs.password)
    section = {"url": fake_otrs.url, "login": fake_otrs.login}

    for more in ({"password_file": str(file)}, {"password_env": "OTRS_PASSWORD"}):
        client = OtrsClient.from_config({**section, **more}, session=fake_otrs.session())
        assert client.search() == []
    monkeypatch.delenv("OTRS_PASSWORD")
    client = OtrsClient.from_config({**section, "password_env": "OTRS_PASSWORD"})
    with pytest.raises(CredentialsUnavailable, match="OTRS_PASSWORD"):
        client.search()


def test_a_password_may_have_any_letters(fake_otrs: FakeOtrs, yandex_fakes: Any) -> None:
    fake_otrs.state.agents["robot"] = "пароль и пробел"
    client = yandex_fakes.client("otrs", password=Secret("пароль и пробел"))

    assert client.search() == []


def test_no_secret_is_seen_anywhere(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    otrs_client.search()
    session = otrs_client.session().reveal()
    said = {"ErrorCode": f"X.{session}", "ErrorMessage": f"{session} of {fake_otrs.password}"}
    fake_otrs.faults.on("*", json={"Error": said})
    errors = []
    for call in (
        lambda: otrs_client.get_ticket(1),
        lambda: otrs_client.create_ticket(TICKET, ARTICLE),
    ):
        with pytest.raises(OtrsError) as caught:
            call()
        errors.append(caught.value)
    fake_otrs.faults.clear()
    fake_otrs.faults.on("*", reset="before-apply")
    with pytest.raises(ApiConnectionError) as lost:
        otrs_client.search()

    seen = [caplog.text, repr(otrs_client), repr(TokenSource(fake_otrs.password))]
    seen += [f"{e} {e!r} {e.__dict__} {pickle.dumps(e)!r}" for e in (*errors, lost.value)]
    assert session not in "".join(seen)
    fake_otrs.calls.assert_no_secret_in(caplog.text)
