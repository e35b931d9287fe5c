"""OTRS: tickets, searches and settings, by the client against the fake."""

import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.testing import check_errors
from sepelib.yandex import otrs
from sepelib.yandex.otrs import Article, Attachment, OtrsClient, OtrsError, Ticket, TicketIds
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
FILE = Attachment(filename="df.txt", content=b"\x00 100%\n", content_type="text/plain")


FILE_AS_SENT = {"Filename": "df.txt", "ContentType": "text/plain", "Content": "AAA="}


def test_a_ticket_is_made_read_changed_and_found(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    made = otrs_client.create_ticket(
        TICKET, ARTICLE, dynamic_fields={"Place": "rack 7"}, attachments=[FILE]
    )
    assert isinstance(made.ticket_id, int) and isinstance(made.article_id, int)

    changed = otrs_client.update_ticket(
        made.ticket_id,
        {"State": "open"},
        {**ARTICLE, "Subject": "Still"},
        dynamic_fields={"Cost": 7},
        attachments=[FILE],
    )
    assert changed.article_id == made.article_id + 1

    ticket = otrs_client.get_ticket(made.ticket_id, attachments=True)
    assert (ticket.id, ticket.number) == (made.ticket_id, made.ticket_number)
    assert (ticket.title, ticket.state, ticket.queue_id) == ("Disk is full", "open", 1)
    assert ticket.dynamic_fields == {"Place": "rack 7", "Cost": 7}
    assert [article.subject for article in ticket.articles] == ["Disk", "Still"]
    assert [one.content for a in ticket.articles for one in a.attachments] == [FILE.content] * 2
    assert otrs_client.search(Title="Disk%", DynamicField_PlaceEquals="rack 7") == [ticket.id]
    assert [e["HistoryType"] for e in otrs_client.history(made.ticket_id)] == [
        "NewTicket",
        "AddArticle",
        "TicketUpdate",
        "AddArticle",
    ]


def test_of_a_ticket_comes_what_is_asked_for(fake_otrs: FakeOtrs, otrs_client: OtrsClient) -> None:
    article = {**ARTICLE, "ContentType": "text/html; charset=utf-8", "Attachment": FILE_AS_SENT}
    fake_otrs.add_ticket(
        Article=[article, {**ARTICLE, "SenderType": "customer"}],
        DynamicField={"Name": "Place", "Value": "rack 7"},
    )
    [number] = otrs_client.search()

    bare = otrs_client.get_ticket(number, dynamic_fields=False)
    assert bare.articles == () and bare.dynamic_fields is None
    whole = otrs_client.get_ticket(number, articles=True, article_order="DESC")
    assert [a.sender_type for a in whole.articles] == ["customer", "agent"]
    assert not any(a.attachments for a in whole.articles)
    agents = otrs_client.get_ticket(number, articles=True, sender_types=["agent"])
    assert [a.sender_type for a in agents.articles] == ["agent"]
    first = otrs_client.get_ticket(number, attachments=True, contents=False, article_limit=1)
    assert [(f.filename, f.content) for f in first.articles[0].attachments] == [("df.txt", None)]
    html = otrs_client.get_ticket(number, attachments=True, html_body=True, article_limit=1)
    assert html.articles[0].attachments[1].content == b"no space left"


def test_several_tickets_come_by_one_request_or_not_at_all(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    numbers = [fake_otrs.add_ticket(f"number {n}") for n in range(3)]

    assert [t.id for t in otrs_client.get_tickets(numbers)] == numbers
    assert otrs_client.get_tickets([]) == []
    assert len(fake_otrs.calls.of("TicketGetList")) == 1

    fake_otrs.deny(numbers[1])
    with pytest.raises(OtrsError) as caught:
        otrs_client.get_tickets(map(str, numbers))
    assert caught.value.condition == "AccessDenied"


def test_one_id_is_no_list_of_its_digits(fake_otrs: FakeOtrs, otrs_client: OtrsClient) -> None:
    for _ in range(12):
        fake_otrs.add_ticket()

    assert [t.id for t in otrs_client.get_tickets("12")] == [12]
    assert [t.id for t in otrs_client.get_tickets(7)] == [7]


def test_a_refusal_inside_of_a_200_is_an_error_with_its_code(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    with pytest.raises(OtrsError) as caught:
        otrs_client.get_ticket(404)

    error = caught.value
    assert (error.code, error.condition) == ("TicketGet.AccessDenied", "AccessDenied")
    assert (error.status, error.attempts, error.maybe_applied) == (200, 1, False)
    assert "TicketGet.AccessDenied: TicketGet: no access to ticket 404" in str(error)
    assert pickle.loads(pickle.dumps(error)).code == error.code


@pytest.mark.parametrize(
    ("ticket", "article", "code", "words"),
    [
        ({**TICKET, "Title": ""}, ARTICLE, "MissingParameter", "Ticket.Title is missing"),
        ({**TICKET, "Queue": None}, ARTICLE, "MissingParameter", "Ticket.Queue"),
        ({**TICKET, "State": "gone"}, ARTICLE, "InvalidParameter", "Ticket.State"),
        (TICKET, {"Subject": "x", "Body": "y"}, "MissingParameter", "Article.ContentType"),
        (TICKET, {**ARTICLE, "Body": ""}, "MissingParameter", "Article.Body"),
        ({**TICKET, "PendingTime": {"Year": 1}}, ARTICLE, "InvalidParameter", "PendingTime"),
    ],
)
def test_a_ticket_that_is_not_whole_is_refused(
    otrs_client: OtrsClient,
    ticket: dict[str, Any],
    article: dict[str, Any],
    code: str,
    words: str,
) -> None:
    with pytest.raises(OtrsError, match=words) as caught:
        otrs_client.create_ticket(ticket, article)
    assert caught.value.code == f"TicketCreate.{code}" and not caught.value.maybe_applied


def test_an_unknown_refusal_of_a_write_may_have_changed_something(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    error = {"ErrorCode": "TicketUpdate.Strange", "ErrorMessage": "half done"}
    fake_otrs.faults.on("Ticket*", json={"Error": error})

    with pytest.raises(OtrsError) as written:
        otrs_client.update_ticket(1, {"State": "open"})
    with pytest.raises(OtrsError) as read:
        otrs_client.get_ticket(1)
    assert written.value.maybe_applied and not read.value.maybe_applied


def test_pending_times_are_sent_as_otrs_wants_them(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    number = fake_otrs.add_ticket()

    otrs_client.update_ticket(number, {"PendingTime": timedelta(hours=2)})
    assert fake_otrs.ticket(number)["PendingTime"] == "2026-01-01 02:00:00"
    moscow = timezone(timedelta(hours=3))
    otrs_client.update_ticket(number, {"PendingTime": datetime(2026, 5, 4, 3, 2, tzinfo=moscow)})
    assert fake_otrs.ticket(number)["PendingTime"] == "2026-05-04 00:02:00"
    with pytest.raises(ValueError, match="has a zone"):
        otrs_client.update_ticket(number, {"PendingTime": datetime(2026, 5, 4)})


def test_attachments_want_an_article(fake_otrs: FakeOtrs, otrs_client: OtrsClient) -> None:
    with pytest.raises(ValueError, match="belong to an article"):
        otrs_client.update_ticket(1, attachments=[FILE])
    assert fake_otrs.calls.ops == []


# Searches.


def test_a_search_gives_numbers_newest_first_and_nothing_for_an_empty_object(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    old = fake_otrs.add_ticket("old")
    fake_otrs.clock.advance(3600)
    new = fake_otrs.add_ticket("new", State="open")

    assert otrs_client.search() == [new, old]
    assert otrs_client.search(Limit=1) == [new]
    assert otrs_client.search(SortBy="Title", OrderBy="Up") == [new, old]
    assert otrs_client.search(States=["new", "open"]) == [new, old]
    assert otrs_client.search(StateType="new", Title=None) == [old]
    when = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert otrs_client.search(TicketCreateTimeNewerDate=when) == [new]
    otrs_client.search(DynamicField_DueEquals=(when, True))
    assert fake_otrs.calls[-1].values("DynamicField_DueEquals") == ["2026-01-01 00:30:00", "1"]
    assert otrs_client.search(Title="%nothing%") == []
    answer = fake_otrs.calls[-1].reply
    assert answer is not None and answer.json == {}


def test_a_list_is_sent_as_a_repeated_parameter(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    fake_otrs.add_queue("Junk")
    numbers = [fake_otrs.add_ticket(Queue=queue) for queue in ("Raw", "Junk")]

    assert otrs_client.search(Queues=["Raw", "Junk"], OrderBy="Up") == numbers
    assert fake_otrs.calls[-1].values("Queues") == ["Raw", "Junk"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"DynamicField_CostEquals": "5"}, [2]),
        ({"DynamicField_CostEquals": ["3", "5"]}, [2, 1]),
        ({"DynamicField_CostGreaterThan": "3"}, [2]),
        ({"DynamicField_CostGreaterThanEquals": "3"}, [2, 1]),
        ({"DynamicField_CostSmallerThan": "5"}, [1]),
        ({"DynamicField_PlaceLike": "rack%"}, [1]),
    ],
)
def test_dynamic_fields_are_searched_by_operators(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient, filters: dict[str, Any], found: list[int]
) -> None:
    fields = [{"Name": "Cost", "Value": "3"}, {"Name": "Place", "Value": "rack 7"}]
    fake_otrs.add_ticket(DynamicField=fields)
    fake_otrs.add_ticket(DynamicField={"Name": "Cost", "Value": "5"})
    fake_otrs.add_ticket()

    assert otrs_client.search(**filters) == found


# Routes and configuration.


def test_a_site_may_have_other_routes() -> None:
    routes = {
        "TicketSearch": "POST /TicketSearch",
        "TicketGet": "POST /TicketGet",
        "TicketUpdate": "PATCH /T/:TicketID/Update",
        "TicketGetList": "GET /Tickets/:TicketID",
    }
    fake = FakeOtrs(routes=routes)
    number = fake.add_ticket()
    client = OtrsClient.from_config({**fake.config(), "routes": routes}, session=fake.session())
    fake.faults.next("TicketSearch", reset="before-apply")

    assert client.search(Queues=["Raw"], **{"DynamicField_X": None}) == [number]
    assert client.get_ticket(number).id == number
    client.update_ticket(number, {"State": "open"})
    assert [one.state for one in client.get_tickets([number])] == ["open"]
    assert fake.calls.of("TicketGet")[0].json["TicketID"] == str(number)
    assert fake.calls.of("TicketUpdate")[0].path.endswith(f"/T/{number}/Update")
    fake.check()


@pytest.mark.parametrize(
    ("op", "route"),
    [
        ("TicketDelete", "DELETE /Ticket/:TicketID"),
        ("TicketGet", "/Ticket/:TicketID"),
        ("TicketGet", "FETCH /Ticket/:TicketID"),
        ("TicketGet", "GET /Ticket/:SessionID"),
        ("TicketSearch", "GET /Ticket/:TicketID"),
        ("TicketSearch", 7),
    ],
)
def test_a_route_that_cannot_be_is_refused(op: str, route: str) -> None:
    with pytest.raises(ValueError, match=op):
        OtrsClient("http://otrs.test/x", "robot", "secret", routes={op: route})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"password": "x", "password_env": "Y"}, "one of password, password_env, password_file"),
        ({"password": 7}, "it is a text"),
        ({"pasword": "x"}, "unknown key pasword"),
        ({"password": "x", "routes": []}, "otrs.routes"),
    ],
)
def test_a_section_that_does_not_fit_is_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OtrsClient.from_config({"url": "http://otrs.test", "login": "robot", **more})


def test_there_is_no_client_without_a_login() -> None:
    with pytest.raises(ValueError, match="login"):
        OtrsClient("http://otrs.test")


# Golden samples.


def test_the_client_reads_what_otrs_is_known_to_answer(
    fake_otrs: FakeOtrs, otrs_client: OtrsClient
) -> None:
    play = fake_otrs.faults.play
    play(sample("otrs", "access token").reply)
    play(sample("otrs", "created").reply)
    made = otrs_client.create_ticket(TICKET, ARTICLE)
    assert (made.ticket_id, made.ticket_number, made.article_id) == (17, "2026010100017", 31)
    assert fake_otrs.calls[1].json["AccessToken"] == "uH4c7TzQ2mV9"

    play(sample("otrs", "updated").reply)
    assert otrs_client.update_ticket(17, {"State": "open"}).article_id == 32
    play(sample("otrs", "ticket").reply)
    ticket = otrs_client.get_ticket(17)
    assert (ticket.id, ticket.queue_id, ticket.state_id) == (17, 2, 4)
    assert ticket.dynamic_fields == {"Place": "rack 7", "Cost": None}
    assert ticket.articles[0].attachments[0].content == b"no space\n"
    play(sample("otrs", "found").reply)
    assert otrs_client.search() == [19, 17]
    play(sample("otrs", "nothing found").reply)
    assert otrs_client.search() == []
    play(sample("otrs", "history").reply)
    assert otrs_client.history(17) == [{"HistoryType": "NewTicket"}]
    play(sample("otrs", "refused").reply)
    with pytest.raises(OtrsError, match="does not have access") as refused:
        otrs_client.get_ticket(17)
    assert refused.value.code == "TicketGet.AccessDenied"
    play(sample("otrs", "session").reply, "SessionCreate")
    play(sample("otrs", "session expired").reply, "TicketSearch")
    play(sample("otrs", "found").reply, "TicketSearch")
    assert otrs_client.search() == [19, 17]
    assert fake_otrs.calls[-1].query["SessionID"] == "uH4c7TzQ2mV9"


def test_its_errors_travel() -> None:
    check_errors(otrs, examples=[OtrsError("no", code="TicketGet.AuthFail", status=200)])


@pytest.mark.parametrize("kind", [Ticket, Article, Attachment, TicketIds])
def test_records_take_whatever_comes(kind: Any) -> None:
    names = ["Article", "Attachment", "DynamicField", "Content", "TicketID", "TicketNumber"]
    for value in (None, 7, "text", "ж", [], [7], {}, {"Name": 1}, [{"Value": 1}], True):
        found = kind.from_dict(dict.fromkeys(names, value) | {"Title": value, "x": 1})
        assert found.raw["x"] == 1 and isinstance(repr(found), str)
    one = Ticket.from_dict({"Article": {"ArticleID": "3"}, "DynamicField": {"Name": "a"}})
    assert [a.id for a in one.articles] == [3] and one.dynamic_fields == {"a": None}
