"""pyotrs, a client of somebody else's, does its ordinary work against the live FakeOtrs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyotrs import (  # type: ignore[import-untyped]
    Article,
    Attachment,
    Client,
    DynamicField,
    Ticket,
)
from pyotrs.lib import APIError, SessionCreateError  # type: ignore[import-untyped]

from sepelib.yandex.testing import FakeOtrs


@pytest.fixture(params=[False, True], ids=["SessionID", "AccessToken"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeOtrs]:
    fake = FakeOtrs(access_tokens=request.param)
    with fake.serve():
        yield fake
        fake.check()


def client_of(fake: FakeOtrs, folder: Path, password: str | None = None) -> Client:
    return Client(
        fake.root,
        fake.login,
        password or fake.password,
        session_id_file=str(folder / "session"),
        request_timeout=20,
    )


def a_ticket() -> Ticket:
    return Ticket.create_basic(
        Title="Disk is full", Queue="Raw", State="new", Priority="3 normal", CustomerUser="ann"
    )


def test_it_signs_in_and_keeps_its_session(fake: FakeOtrs, tmp_path: Path) -> None:
    client = client_of(fake, tmp_path)
    assert client.session_create()
    assert client.session_get(client.session_id_store.value)
    assert client.result[0] == {"Key": "UserLogin", "Value": "robot"}

    assert client.session_restore_or_create()
    again = client_of(fake, tmp_path)
    assert again.session_restore_or_create()
    assert again.session_id_store.value == client.session_id_store.value

    fake.expire_sessions()
    assert client_of(fake, tmp_path).session_restore_or_create()
    assert len(fake.state.sessions) == 1


def test_it_makes_reads_changes_and_finds_tickets(fake: FakeOtrs, tmp_path: Path) -> None:
    client = client_of(fake, tmp_path)
    client.session_create()
    file = Attachment.create_basic("bm8gc3BhY2UK", "text/plain", "df.txt")
    place = DynamicField("Place", "rack 7")

    made = client.ticket_create(
        a_ticket(),
        Article({"Subject": "Disk", "Body": "no space left"}),
        attachments=[file],
        dynamic_fields=[place],
    )
    number = made["TicketID"]
    changed = client.ticket_update(
        number, Article({"Subject": "More", "Body": "still"}), attachments=[file], State="open"
    )
    assert changed["TicketID"] == number and changed["ArticleID"] != made["ArticleID"]
    assert client.ticket_update_set_pending(number)

    ticket = client.ticket_get_by_id(number, articles=True, attachments=True)
    assert (ticket.tid, ticket.field_get("Title")) == (int(number), "Disk is full")
    assert ticket.field_get("State") == "pending reminder"
    assert ticket.dynamic_field_get("Place").value == "rack 7"
    assert [article.field_get("Subject") for article in ticket.articles] == ["Disk", "More"]
    ticket.articles[0].attachment_get("df.txt").save_to_dir(str(tmp_path))
    assert (tmp_path / "df.txt").read_bytes() == b"no space\n"
    assert ticket.article_get(made["ArticleID"]).field_get("Body") == "no space left"

    by_number = client.ticket_get_by_number(made["TicketNumber"])
    assert by_number.tid == ticket.tid and by_number.articles == []
    assert [one.tid for one in client.ticket_get_by_list([number])] == [ticket.tid]
    assert client.ticket_search(Title="Disk%", Queues=["Raw"], Limit=5) == [number]
    assert client.ticket_search(Title="nothing") == []
    assert client.ticket_search_full_text("space") == [number]
    history = client.ticket_history_get_by_id(number)
    assert history["History"][0]["HistoryType"] == "NewTicket"


def test_it_is_told_of_refusals(fake: FakeOtrs, tmp_path: Path) -> None:
    client = client_of(fake, tmp_path)
    client.session_create()
    with pytest.raises(APIError, match=r"TicketGet\.AccessDenied"):
        client.ticket_get_by_id(404)
    nameless = a_ticket()
    nameless.field_add(Title="")
    with pytest.raises(APIError, match=r"TicketCreate\.MissingParameter"):
        client.ticket_create(nameless, Article({"Subject": "s", "Body": "b"}))
    fake.expire_sessions()
    with pytest.raises(APIError, match=r"TicketSearch\.AuthFail"):
        client.ticket_search()
    with pytest.raises((APIError, SessionCreateError), match=r"SessionCreate|AccessTokenCreate"):
        client_of(fake, tmp_path, "wrong").session_create()
