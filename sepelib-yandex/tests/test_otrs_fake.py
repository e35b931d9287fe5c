"""FakeOtrs, asked by bare requests: what OTRS is known to do, whoever its client is."""

from typing import Any

import pytest
import requests

from sepelib.yandex.testing import FakeOtrs, check_shape, sample

pytestmark = pytest.mark.yandex(transport="both")

LIMIT = 20.0  # seconds; far more than anything here takes
TICKET = {"Title": "x", "Queue": "Raw", "State": "new", "Priority": "3 normal"}
WHOLE = {
    "Ticket": {**TICKET, "CustomerUser": "ann"},
    "Article": {"Subject": "s", "Body": "b", "MimeType": "text/plain", "Charset": "UTF8"},
}


class Wire:
    """Requests as they are, with a session of the agent in the payload."""

    def __init__(self, fake: FakeOtrs) -> None:
        self.fake = fake
        self.http = fake.session()
        login = {"UserLogin": fake.login, "Password": fake.password}
        self.session = self.ask("POST", "/Session", json=login).json()["SessionID"]

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self.http.request(method, self.fake.url + path, timeout=LIMIT, **kwargs)

    def get(self, path: str, **params: Any) -> Any:
        answer = self.ask("GET", path, params={"SessionID": self.session, **params})
        assert answer.status_code == 200
        return answer.json()

    def send(self, method: str, path: str, **body: Any) -> Any:
        answer = self.ask(method, path, json={"SessionID": self.session, **body})
        assert answer.status_code == 200
        return answer.json()


@pytest.fixture
def wire(fake_otrs: FakeOtrs) -> Wire:
    return Wire(fake_otrs)


def code(answer: Any) -> str:
    return str(answer["Error"]["ErrorCode"])


def test_answers_have_the_shapes_that_are_known(wire: Wire) -> None:
    file = {"Filename": "a", "ContentType": "text/plain", "Content": "AAA="}
    field = {"Name": "Place", "Value": "rack 7"}
    made = wire.send("POST", "/Ticket", **WHOLE, Attachment=file, DynamicField=[field])
    check_shape(made, sample("otrs", "created").json)
    number = made["TicketID"]
    updated = wire.send("PATCH", f"/Ticket/{number}", Article=WHOLE["Article"])
    check_shape(updated, sample("otrs", "updated").json)
    found = wire.get("/Ticket")
    check_shape(found, sample("otrs", "found").json)
    [ticket] = wire.get(
        f"/Ticket/{number}", DynamicFields=1, AllArticles=1, Attachments=1, ArticleLimit=1
    )["Ticket"]
    wanted = sample("otrs", "ticket").json["Ticket"][0]
    assert wanted.keys() - ticket.keys() == set()
    check_shape(ticket["Article"], wanted["Article"])
    check_shape(ticket["DynamicField"], wanted["DynamicField"][:1])
    check_shape(wire.get(f"/TicketHistory/{number}"), sample("otrs", "history").json)
    check_shape(wire.get("/Ticket/404"), sample("otrs", "refused").json)
    check_shape(wire.get(f"/Session/{wire.session}"), sample("otrs", "session data").json)
    assert code(wire.get("/Session/x")) == "SessionGet.SessionInvalid"


def test_ids_are_text(wire: Wire) -> None:
    made = wire.send("POST", "/Ticket", **WHOLE)
    assert made == {"TicketID": "2", "TicketNumber": "20260101000002", "ArticleID": "3"}
    assert wire.get("/Ticket") == {"TicketID": ["2"]}


def test_nothing_found_is_an_empty_object(wire: Wire) -> None:
    assert wire.get("/Ticket", Title="none") == sample("otrs", "nothing found").json


@pytest.mark.parametrize(
    ("body", "condition"),
    [
        ({}, "MissingParameter"),
        ({"Ticket": TICKET}, "MissingParameter"),
        ({"Ticket": WHOLE["Ticket"]}, "MissingParameter"),
        ({**WHOLE, "Article": {**WHOLE["Article"], "Charset": None}}, "MissingParameter"),
        ({**WHOLE, "Ticket": ["x"]}, "WrongStructure"),
        ({**WHOLE, "Article": "x"}, "WrongStructure"),
        ({**WHOLE, "Attachment": "x"}, "WrongStructure"),
        ({**WHOLE, "DynamicField": ["x"]}, "WrongStructure"),
        ({**WHOLE, "DynamicField": {"Value": 1}}, "MissingParameter"),
        ({**WHOLE, "Attachment": {"Filename": "a", "Content": "AAA="}}, "MissingParameter"),
        ({**WHOLE, "Ticket": {**WHOLE["Ticket"], "QueueID": "7", "Queue": ""}}, "InvalidParameter"),
        ({**WHOLE, "Ticket": {**WHOLE["Ticket"], "PendingTime": 5}}, "InvalidParameter"),
        ({**WHOLE, "Ticket": {**WHOLE["Ticket"], "PendingTime": {"Diff": ""}}}, "InvalidParameter"),
        (
            {**WHOLE, "Ticket": {**WHOLE["Ticket"], "PendingTime": {"Diff": 1e12}}},
            "InvalidParameter",
        ),
        ({**WHOLE, "DynamicField": {"Name": ["a"]}}, "WrongStructure"),
        ({**WHOLE, "SessionID": None, "UserLogin": ["x"], "Password": "x"}, "AuthFail"),
    ],
)
def test_a_ticket_that_is_not_whole_is_refused_with_the_code(
    wire: Wire, body: dict[str, Any], condition: str
) -> None:
    assert code(wire.send("POST", "/Ticket", **body)) == f"TicketCreate.{condition}"
    assert wire.fake.state.tickets == {}


def test_an_attachment_is_base64(wire: Wire) -> None:
    file = {"Filename": "a", "ContentType": "text/plain", "Content": "no base64!"}
    answer = wire.send("POST", "/Ticket", **WHOLE, Attachment=[file])
    assert code(answer) == "TicketCreate.InvalidParameter"


def test_an_attachment_of_an_update_needs_an_article(wire: Wire) -> None:
    number = wire.fake.add_ticket()
    file = {"Filename": "a", "ContentType": "text/plain", "Content": "AAA="}
    answer = wire.send("PATCH", f"/Ticket/{number}", Attachment=file)
    assert code(answer) == "TicketUpdate.MissingParameter"


def test_ids_do_as_well_as_names(wire: Wire) -> None:
    ids = {"QueueID": 1, "StateID": "2", "PriorityID": "1"}
    ticket = {"Title": "x", "CustomerUser": "ann", **ids}
    number = wire.send("POST", "/Ticket", Ticket=ticket, Article=WHOLE["Article"])["TicketID"]
    made = wire.fake.ticket(number)
    assert (made["Queue"], made["State"], made["Priority"]) == ("Raw", "open", "3 normal")


def test_the_body_of_a_get_is_ignored_and_path_and_query_win_over_others(wire: Wire) -> None:
    first, second = wire.fake.add_ticket("first"), wire.fake.add_ticket("second")

    found = wire.ask(
        "GET",
        "/Ticket",
        params={"SessionID": wire.session},
        json={"SessionID": "no", "Title": "first"},
    )
    assert found.json() == {"TicketID": [str(second), str(first)]}
    answer = wire.ask(
        "PATCH",
        f"/Ticket/{first}",
        params={"SessionID": wire.session},
        json={"SessionID": "no", "TicketID": second, "Ticket": {"Title": "changed"}},
    )
    assert answer.json() == {"TicketID": str(first)}
    assert [t["Title"] for t in wire.fake.state.tickets.values()] == ["changed", "second"]


def test_who_asks_without_a_session_is_refused_or_shows_a_password(wire: Wire) -> None:
    number = wire.fake.add_ticket(CustomerUser="bob")
    wire.fake.add_customer("bob", "of-bob")
    agent = {"UserLogin": wire.fake.login, "Password": wire.fake.password}

    def ask(**params: str) -> Any:
        return wire.ask("GET", f"/Ticket/{number}", params=params).json()

    assert code(ask()) == "TicketGet.MissingParameter"
    assert code(ask(SessionID="gone")) == "TicketGet.AuthFail"
    assert code(ask(UserLogin="robot", Password="wrong")) == "TicketGet.AuthFail"
    assert code(ask(UserLogin="bob", Password="of-bob")) == "TicketGet.AuthFail"
    assert ask(**agent)["Ticket"][0]["TicketID"] == str(number)
    assert "Ticket" in ask(CustomerUserLogin="bob", Password="of-bob")
    assert code(wire.send("POST", "/Session")) == "SessionCreate.MissingParameter"


def test_sessions_end_by_the_clock(wire: Wire) -> None:
    wire.fake.clock.advance(28_799.0)
    assert wire.get("/Ticket") == {}
    wire.fake.clock.advance(1.0)
    assert code(wire.get("/Ticket")) == "TicketSearch.AuthFail"


def test_a_list_is_one_parameter_several_times(wire: Wire) -> None:
    wire.fake.add_queue("Junk")
    for queue in ("Raw", "Junk"):
        wire.fake.add_ticket(Queue=queue)
    assert wire.get("/Ticket", Queues=["Raw", "Junk"]) == {"TicketID": ["3", "2"]}
    assert wire.get("/Ticket", Queues="Junk") == {"TicketID": ["3"]}
    assert wire.get("/Ticket", QueueIDs=["1"]) == {"TicketID": ["2"]}


def test_a_list_of_tickets_has_no_gaps(wire: Wire) -> None:
    numbers = [wire.fake.add_ticket() for _ in range(2)]
    wanted = ",".join(map(str, numbers))
    assert len(wire.get("/TicketList", TicketID=wanted)["Ticket"]) == 2
    assert code(wire.get("/TicketList", TicketID=f"{wanted},9")) == "TicketGetList.AccessDenied"
    assert code(wire.get("/TicketList")) == "TicketGetList.MissingParameter"


def test_searches_end_at_500_or_at_the_limit(wire: Wire) -> None:
    for _ in range(501):
        wire.fake.add_ticket()
    assert len(wire.get("/Ticket")["TicketID"]) == 500
    assert len(wire.get("/Ticket", Limit=501)["TicketID"]) == 501


@pytest.mark.parametrize(
    "params",
    [
        {"Nonsense": "1"},
        {"SortBy": "Colour"},
        {"OrderBy": "Sideways"},
        {"Limit": "x"},
        {"DynamicField_X": "Equals"},
    ],
)
def test_a_search_for_what_it_does_not_know_is_refused(wire: Wire, params: Any) -> None:
    assert code(wire.get("/Ticket", **params)) == "TicketSearch.InvalidParameter"


def test_texts_of_articles_are_searched(wire: Wire) -> None:
    article = {**WHOLE["Article"], "Body": "no space left"}
    number = wire.fake.add_ticket(Article=article)
    wire.fake.add_ticket()
    found = {"TicketID": [str(number)]}
    both = {"FullTextIndex": 1, "Subject": "%space%", "Body": "%space%"}
    assert wire.get("/Ticket", **both, ContentSearch="OR") == found
    assert wire.get("/Ticket", **both) == {}
    assert wire.get("/Ticket", MIMEBase_Body="%space%") == found


def test_a_transport_that_fails_is_a_500(wire: Wire) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"[]"):
        answer = wire.ask("POST", "/Ticket", data=body, headers=headers)
        assert (answer.status_code, answer.text) == (
            500,
            "the content of the request cannot be decoded",
        )
    form = wire.ask("POST", "/Session", data={"UserLogin": "x"})
    assert form.status_code == 500
    wire.fake.faults.next(status=500)
    check_shape(wire.ask("GET", "/Ticket").json(), sample("otrs", "fault").json)


def test_an_unknown_route_is_a_500_in_plain_text_unless_strict() -> None:
    fake = FakeOtrs(strict=False)
    answer = fake.session().delete(fake.url + "/Ticket/1", timeout=LIMIT)
    assert (answer.status_code, answer.headers["Content-Type"]) == (
        500,
        "text/plain; charset=utf-8",
    )
    assert answer.text.startswith("Error while determine Operation")
    fake.check()
    # Credentials neither.
    assert fake.session().get(fake.url + "/Ticket", timeout=LIMIT).json() == {}

    strict = FakeOtrs()
    assert strict.session().delete(strict.url + "/Ticket/1", timeout=LIMIT).status_code == 501
    with pytest.raises(AssertionError, match="no route for DELETE"):
        strict.check()


def test_options_of_a_site() -> None:
    fake = FakeOtrs(access_tokens=True, type_required=True, max_request=500)
    http = fake.session()

    def post(path: str, **body: Any) -> requests.Response:
        return http.post(fake.url + path, json=body, timeout=LIMIT)

    answer = post("/Session", UserLogin=fake.login, Password=fake.password).json()
    check_shape(answer, sample("otrs", "access token").json)
    token = answer["AccessToken"]
    data = http.get(f"{fake.url}/Session/{token}", timeout=LIMIT).json()
    assert data["AccessTokenData"][0] == {"Key": "UserLogin", "Value": "robot"}
    refused = post("/Ticket", AccessToken=token, **WHOLE).json()
    assert refused["Error"]["ErrorMessage"] == "TicketCreate: Ticket.Type is missing"
    typed = {**WHOLE, "Ticket": {**WHOLE["Ticket"], "Type": "Problem"}}
    assert "TicketID" in post("/Ticket", AccessToken=token, **typed).json()
    assert post("/Ticket", AccessToken=token, x="y" * 500).status_code == 413


def test_reset_is_as_new(fake_otrs: FakeOtrs, wire: Wire) -> None:
    wire.send("POST", "/Ticket", **WHOLE)
    fake_otrs.deny(2)
    fake_otrs.add_queue("Junk")
    assert fake_otrs.state != FakeOtrs().state
    fake_otrs.reset()
    assert fake_otrs.state == FakeOtrs().state
