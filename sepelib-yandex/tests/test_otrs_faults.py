"""What the client of OTRS does when answers are lost, refused or strange."""

from typing import Any

import pytest

from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ServerError,
)
from sepelib.yandex.otrs import Attachment, OtrsClient, OtrsError
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


def test_a_create_whose_answer_is_lost_is_not_repeated(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("TicketCreate", reset="after-apply")

    with pytest.raises(ApiConnectionError) as caught:
        otrs_client.create_ticket(TICKET, ARTICLE)

    assert caught.value.maybe_applied and len(fake_otrs.state.tickets) == 1


def test_an_update_is_not_repeated_even_where_a_site_has_it_as_put() -> None:
    routes = {"TicketUpdate": "PUT /Ticket/:TicketID"}
    fake = FakeOtrs(routes=routes)
    number = fake.add_ticket()
    client = OtrsClient.from_config({**fake.config(), "routes": routes}, session=fake.session())
    fake.faults.on("TicketUpdate", reset="after-apply")

    with pytest.raises(ApiConnectionError) as caught:
        client.update_ticket(number, None, ARTICLE)
    assert caught.value.maybe_applied and len(fake.ticket(number)["Article"]) == 1


def test_a_unique_ticket_is_made_once_whatever_is_lost(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.next("TicketCreate", reset="after-apply")
    first = otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))
    again = otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))
    other = otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/8"))

    assert first == again and first.ticket_id != other.ticket_id
    assert first.ticket_number and first.article_id is None
    assert len(fake_otrs.state.tickets) == 2
    assert fake_otrs.ticket(first.ticket_id)["DynamicField"] == [
        {"Name": "Alert", "Value": "disk/7"}
    ]


def test_a_search_that_is_lost_before_the_create_has_made_nothing(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("TicketSearch", reset="after-apply")

    with pytest.raises(ApiConnectionError, match="it was not applied") as caught:
        otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))

    assert not caught.value.maybe_applied and "TicketCreate" not in fake_otrs.calls.ops


def test_a_unique_ticket_that_is_not_found_after_a_loss_is_the_error(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.next("TicketCreate", reset="before-apply")

    with pytest.raises(ApiConnectionError) as caught:
        otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))

    assert caught.value.maybe_applied
    assert fake_otrs.calls.ops[1:] == ["TicketSearch", "TicketCreate", "TicketSearch"]


def test_the_error_of_a_lost_create_is_not_hidden_by_that_of_the_search(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.faults.on("TicketCreate", reset="after-apply")
    fake_otrs.faults.next("TicketSearch", body=b"{}")
    fake_otrs.faults.on("TicketSearch", status=403)

    with pytest.raises(ApiConnectionError) as caught:
        otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))

    assert caught.value.maybe_applied and caught.value.op == "TicketCreate"


def test_a_ticket_that_a_search_finds_without_the_field_is_not_the_one(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    number = fake_otrs.add_ticket()
    fake_otrs.faults.on("TicketSearch", json={"TicketID": [str(number)]})

    with pytest.raises(ApiProtocolError, match="dynamic field Alert finds ticket 1 without it"):
        otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))
    assert "TicketCreate" not in fake_otrs.calls.ops


def test_a_read_is_repeated(fake_otrs: FakeOtrs, otrs_client: OtrsClient) -> None:
    number = fake_otrs.add_ticket()
    fake_otrs.faults.next("TicketGet", reset="before-apply")
    fake_otrs.faults.next("TicketSearch", status=503)

    assert otrs_client.get_ticket(number).id == number
    assert otrs_client.search() == [number]
    assert len(fake_otrs.calls.retries) == 2


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"7", b""])
def test_a_200_that_means_nothing_is_asked_for_again_where_that_is_safe(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient, body: bytes
) -> None:
    otrs_client.session()
    fake_otrs.faults.on("Ticket*", body=body)

    with pytest.raises(ApiProtocolError) as read:
        otrs_client.search()
    with pytest.raises(ApiProtocolError) as written:
        otrs_client.create_ticket(TICKET, ARTICLE)
    assert (read.value.attempts, written.value.attempts) == (3, 1)
    assert written.value.maybe_applied and len(fake_otrs.calls.of("TicketCreate")) == 1


def test_answers_without_what_was_asked_for_are_errors(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    otrs_client.session()
    fake_otrs.faults.on("Ticket*", json={"TicketID": ["not a number"], "Ticket": []})

    for call in (
        lambda: otrs_client.get_ticket(1),
        lambda: otrs_client.create_ticket(TICKET, ARTICLE),
        lambda: otrs_client.search(),
        lambda: otrs_client.history(1),
    ):
        with pytest.raises(ApiProtocolError, match="means nothing"):
            call()
    fake_otrs.expire_sessions()
    fake_otrs.faults.clear()
    fake_otrs.faults.on("SessionCreate", json={"SessionID": ""})
    with pytest.raises(ApiProtocolError, match="there is no SessionID"):
        otrs_client.search()


@pytest.mark.parametrize(
    "answer",
    [
        {"TicketHistory": [7], "TicketID": ["1"], "Ticket": [7]},
        {"TicketHistory": {"History": {}}, "TicketID": ["1"], "Ticket": {"DynamicField": "x"}},
        {"TicketHistory": 7, "TicketID": [[1]], "Ticket": [{"DynamicField": [7]}]},
    ],
)
def test_answers_of_another_form_are_no_crash(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient, answer: dict[str, Any]
) -> None:
    otrs_client.session()
    fake_otrs.faults.on("Ticket*", json=answer)

    with pytest.raises(ApiProtocolError, match="there is no History"):
        otrs_client.history(1)
    with pytest.raises(ApiProtocolError):
        otrs_client.create_ticket(TICKET, ARTICLE, unique=("Alert", "disk/7"))


def test_a_failure_of_the_transport_keeps_its_words(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    otrs_client.session()
    fake_otrs.faults.play(sample("otrs", "fault").reply, times=3)
    with pytest.raises(ServerError) as fault:
        otrs_client.search()
    fake_otrs.faults.play(sample("otrs", "no route").reply)
    with pytest.raises(ServerError, match="Error while determine Operation") as nowhere:
        otrs_client.create_ticket(TICKET, ARTICLE)

    assert (fault.value.code, fault.value.message) == (
        "Server",
        "the web service is not configured",
    )
    assert (fault.value.attempts, nowhere.value.attempts) == (3, 1)


def test_a_request_that_is_too_big_is_said_to_be() -> None:
    fake = FakeOtrs(max_request=1000)
    client = OtrsClient.from_config(fake.config(), session=fake.session())
    big = Attachment(filename="big", content=b"x" * 1000)

    with pytest.raises(OtrsError, match="Too Large") as caught:
        client.create_ticket(TICKET, ARTICLE, attachments=[big])
    assert caught.value.status == 413 and fake.state.tickets == {}
