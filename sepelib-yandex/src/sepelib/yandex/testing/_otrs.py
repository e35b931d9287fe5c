"""A fake of OTRS: the ticket connector of its generic interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sepelib.util.testing import Clock

from ._otrs_payload import (
    TIME,
    Item,
    article_of,
    files_and_fields,
    need,
    object_of,
    refused,
    resolved,
    several,
    shown,
)
from ._otrs_search import SEARCH, search
from ._request import FakeRequest, Refusal, Reply
from ._routes import Route
from ._service import FakeService

__all__ = ["FakeOtrs", "OtrsState", "OtrsUser"]

_ROUTES = {
    "SessionCreate": "POST /Session",
    "SessionGet": "GET /Session/:SessionID",
    "TicketCreate": "POST /Ticket",
    "TicketGet": "GET /Ticket/:TicketID",
    "TicketGetList": "GET /TicketList",
    "TicketUpdate": "PATCH /Ticket/:TicketID",
    "TicketSearch": "GET /Ticket",
    "TicketHistoryGet": "GET /TicketHistory/:TicketID",
}
_CREDENTIALS = ("SessionID", "AccessToken", "UserLogin", "CustomerUserLogin", "Password")
_GET = (
    "TicketID",
    "DynamicFields",
    "Extended",
    "AllArticles",
    "ArticleSenderType",
    "ArticleOrder",
    "ArticleLimit",
    "Attachments",
    "GetAttachmentContents",
    "HTMLBodyAsAttachment",
)
_QUERY: Mapping[str, tuple[str, ...]] = {
    "SessionGet": _CREDENTIALS,
    "TicketGet": (*_CREDENTIALS, *_GET),
    "TicketGetList": (*_CREDENTIALS, *_GET),
    "TicketSearch": (*_CREDENTIALS, *SEARCH),
    "TicketHistoryGet": (*_CREDENTIALS, "TicketID"),
}


@dataclass(frozen=True)
class OtrsUser:
    """Who asks."""

    login: str
    customer: bool = False


@dataclass
class OtrsState:
    """Tickets as OTRS shows them, with their articles and dynamic fields, by their ids."""

    agents: dict[str, str] = field(default_factory=dict)
    """Passwords by logins."""
    customers: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, tuple[OtrsUser, float]] = field(default_factory=dict)
    """Who, and when by the clock it began."""
    tickets: dict[str, Item] = field(default_factory=dict)
    history: dict[str, list[Item]] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of login and id of a ticket."""
    known: dict[str, list[str]] = field(default_factory=dict)
    """Names of queues, states and priorities; their ids are the numbers of the items, from 1."""
    last: int = 0
    """The last number given to a ticket, an article or a session."""


class FakeOtrs(FakeService[OtrsState]):
    """OTRS with an agent `login`, whose password is `password`, a queue, states and a priority.

    As OTRS does, it refuses in an answer of 200, finds nothing as `{}`, has ids as text, takes a
    repeated parameter for a list, ignores the body of a GET, and lets path and query win over the
    body.
    *routes*: as of `sepelib.yandex.otrs`. *access_tokens*: sessions are called AccessToken, as
    since OTRS 8. *session_ttl*: seconds. *type_required*: a ticket needs a Type. *max_request*:
    bytes, more is a 413.
    Inferred: the names of fields that tickets and articles have in addition to what was sent, the
    words of errors, MissingParameter for a call without credentials, and that a customer may see
    the tickets of which it is the CustomerUser.
    """

    service = "otrs"
    prefix = "/otrs/nph-genericinterface.pl/Webservice/GenericTicketConnectorREST"
    login = "robot"
    password = "fake-otrs-password"

    def __init__(
        self,
        *,
        routes: Mapping[str, str] | None = None,
        access_tokens: bool = False,
        session_ttl: float = 28_800.0,
        type_required: bool = False,
        max_request: int = 16 << 20,
        strict: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._table = {**_ROUTES, **(routes or {})}
        self.session_key = "AccessToken" if access_tokens else "SessionID"
        self.session_ttl = session_ttl
        self.type_required = type_required
        self.max_request = max_request
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> OtrsState:
        return OtrsState(
            agents={self.login: self.password},
            known={
                "Queue": ["Raw"],
                "State": ["new", "open", "pending reminder", "closed"],
                "Priority": ["3 normal"],
            },
        )

    def extra_routes(self) -> list[Route]:
        handlers: dict[str, Callable[..., Any]] = {
            "SessionCreate": FakeOtrs._session_create,
            "SessionGet": FakeOtrs._session_get,
            "TicketCreate": FakeOtrs._create,
            "TicketGet": FakeOtrs._get,
            "TicketGetList": FakeOtrs._get_list,
            "TicketUpdate": FakeOtrs._update,
            "TicketSearch": FakeOtrs._search,
            "TicketHistoryGet": FakeOtrs._history,
        }
        return [self._route(op, handler) for op, handler in handlers.items()]

    def _route(self, op: str, handler: Callable[..., Any]) -> Route:
        method, _, path = self._table[op].partition(" ")
        return Route(
            method,
            re.sub(r":(\w+)", r"{\1}", path),
            op,
            query=_QUERY.get(op) if method == "GET" else None,
            body=None if method == "GET" else "json",
            auth=not op.startswith("Session"),
            when={},
            handler=handler,
        )

    def authorize(self, request: FakeRequest) -> None:
        self._user(self._payload(request))

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        code, headers = refusal.code, refusal.headers
        if refusal.status == 200 or code == "unknown_parameter":
            condition = "InvalidParameter" if code == "unknown_parameter" else code
            said = f"{request.op}: {refusal.message}"
            error = {"ErrorCode": f"{request.op}.{condition}", "ErrorMessage": said}
            return Reply(json={"Error": error}, headers=headers)
        status = 500 if refusal.status in (400, 415) else refusal.status
        if code == "fault":
            fault = {"faultcode": "Server", "faultstring": refusal.message}
            return Reply(status, json=fault, headers=headers)
        return Reply(status, body=refusal.message, headers=headers)

    def no_route(self, request: FakeRequest) -> Refusal:
        why = f"{request.method} {request.path}"
        return Refusal(500, "no_route", f"Error while determine Operation: no route for {why}")

    def config(self) -> dict[str, Any]:
        return {"url": self.url, "login": self.login, "password": self.password}

    # What a test says.

    def add_ticket(self, title: str = "A ticket", **fields: Any) -> int:
        """A ticket; its id. *fields* as of TicketCreate, Article and DynamicField if wanted.

        These two may be lists.
        """
        dynamic, articles = fields.pop("DynamicField", []), fields.pop("Article", [])
        names = {name: values[0] for name, values in self.state.known.items()}
        ticket = self._new_ticket({"Title": title, "CustomerUser": "ann", **names, **fields})
        _, ticket["DynamicField"] = files_and_fields({"DynamicField": dynamic})
        for article in articles if isinstance(articles, list) else [articles]:
            files, _ = files_and_fields(article)
            self._add_article(ticket, article, files, OtrsUser(self.login))
        return int(ticket["TicketID"])

    def add_customer(self, login: str, password: str) -> None:
        """A customer who may sign in."""
        self.state.customers[login] = password

    def add_queue(self, name: str) -> None:
        self.state.known["Queue"].append(name)

    def ticket(self, ticket_id: int | None) -> Item:
        """The ticket itself, with all articles and dynamic fields."""
        return self.state.tickets[str(ticket_id)]

    def deny(self, ticket_id: int, login: str | None = None) -> None:
        """Let *login*, by default the agent, not see a ticket."""
        self.state.denied.add((login or self.login, str(ticket_id)))

    def expire_sessions(self) -> None:
        """End all sessions, silently, as OTRS does."""
        self.state.sessions.clear()

    # Operations.

    def _session_create(self, request: FakeRequest) -> object:
        user = self._by_password(self._payload(request))
        session = f"fake-session-{self._number()}"
        self.state.sessions[session] = user, self.clock.now
        return {self.session_key: session}

    def _session_get(self, request: FakeRequest) -> object:
        user = self._by_session(request.args["SessionID"])
        if user is None:
            raise refused("SessionInvalid", "the session is over or unknown")
        data = {"UserLogin": user.login, "UserType": "Customer" if user.customer else "User"}
        name = "SessionData" if self.session_key == "SessionID" else "AccessTokenData"
        return {name: [{"Key": key, "Value": value} for key, value in data.items()]}

    def _create(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        user = self._user(payload)
        fields = object_of(payload, "Ticket") or {}
        wanted = ["Title", "CustomerUser", "Queue", "State", "Priority"]
        for name in [*wanted, "Type"] if self.type_required else wanted:
            need(fields, f"Ticket.{name}", name, f"{name}ID")
        article = article_of(payload)
        if article is None:
            raise refused("MissingParameter", "Article is missing")
        files, dynamic = files_and_fields(payload)
        ticket = self._new_ticket(fields)
        self._set_dynamic(ticket, dynamic)
        answer = {name: ticket[name] for name in ("TicketID", "TicketNumber")}
        return {**answer, "ArticleID": self._add_article(ticket, article, files, user)}

    def _update(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        user = self._user(payload)
        ticket = self._seen(user, payload)
        fields = self._resolved(object_of(payload, "Ticket") or {})
        article = article_of(payload)
        files, dynamic = files_and_fields(payload)
        if files and article is None:
            raise refused("MissingParameter", "an Attachment needs an Article")
        ticket.update(fields, Changed=self._time())
        self._set_dynamic(ticket, dynamic)
        self._note(ticket, "TicketUpdate")
        answer = {"TicketID": ticket["TicketID"]}
        if article is not None:
            answer["ArticleID"] = self._add_article(ticket, article, files, user)
        return answer

    def _get(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        return {"Ticket": [shown(self._seen(self._user(payload), payload), payload)]}

    def _get_list(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        user = self._user(payload)
        need(payload, "TicketID", "TicketID")
        ids = ",".join(several(payload["TicketID"])).split(",")
        tickets = [self._seen(user, {"TicketID": one}) for one in ids]
        return {"Ticket": [shown(ticket, payload) for ticket in tickets]}

    def _search(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        user = self._user(payload)
        tickets = [t for t in self.state.tickets.values() if self._may_see(user, t)]
        ids = search(tickets, payload)
        return {"TicketID": ids} if ids else {}

    def _history(self, request: FakeRequest) -> object:
        payload = self._payload(request)
        number = self._seen(self._user(payload), payload)["TicketID"]
        entries = self.state.history[number]
        return {"TicketHistory": [{"TicketID": number, "History": entries}]}

    # Inside.

    def _payload(self, request: FakeRequest) -> Item:
        """Body, query and path as one; the last of them wins."""
        if len(request.body) > self.max_request:
            raise Refusal(413, "too_large", "Request Entity Too Large")
        body = {} if request.method == "GET" else request.json
        if not isinstance(body, dict):
            raise Refusal(500, "undecodable", "the content of the request cannot be decoded")
        values = {name: request.values(name) for name, _ in request.pairs}
        query = {name: v[0] if len(v) == 1 else v for name, v in values.items()}
        return {**body, **query, **request.args}

    def _user(self, payload: Item) -> OtrsUser:
        session = payload.get(self.session_key)
        if session is None:
            return self._by_password(payload) if self.strict else OtrsUser(self.login)
        user = self._by_session(str(session))
        if user is None:
            raise refused("AuthFail", "User could not be authenticated")
        return user

    def _by_session(self, session: str) -> OtrsUser | None:
        user, began = self.state.sessions.get(session, (None, 0.0))
        return user if self.clock.now - began < self.session_ttl else None

    def _by_password(self, payload: Item) -> OtrsUser:
        customer = "CustomerUserLogin" in payload
        login = payload.get("CustomerUserLogin" if customer else "UserLogin")
        if not login or not payload.get("Password"):
            raise refused("MissingParameter", "a session, or a login and a Password, is needed")
        known = self.state.customers if customer else self.state.agents
        if not isinstance(login, str) or known.get(login) != payload["Password"]:
            raise refused("AuthFail", "User could not be authenticated")
        return OtrsUser(login, customer)

    def _may_see(self, user: OtrsUser, ticket: Item) -> bool:
        if (user.login, ticket["TicketID"]) in self.state.denied:
            return False
        return not user.customer or ticket.get("CustomerUser") == user.login

    def _seen(self, user: OtrsUser, payload: Item) -> Item:
        need(payload, "TicketID", "TicketID")
        ticket = self.state.tickets.get(str(payload["TicketID"]))
        if ticket is None or not self._may_see(user, ticket):
            raise refused("AccessDenied", f"no access to ticket {payload['TicketID']}")
        return ticket

    def _resolved(self, fields: Item) -> Item:
        return resolved(fields, self.state.known, self.now)

    def _new_ticket(self, fields: Item) -> Item:
        known = self._resolved(fields)
        number = str(self._number())
        ticket = {
            **known,
            "TicketID": number,
            "TicketNumber": f"{self.now:%Y%m%d}{number:>06}",
            "Created": self._time(),
            "Changed": self._time(),
            "DynamicField": [],
            "Article": [],
        }
        self.state.tickets[number] = ticket
        self._note(ticket, "NewTicket")
        return ticket

    def _add_article(self, ticket: Item, article: Item, files: list[Item], user: OtrsUser) -> str:
        number = str(self._number())
        made = {
            "Channel": "Internal",
            "SenderType": "customer" if user.customer else "agent",
            "ContentType": f"{article.get('MimeType')}; charset={article.get('Charset')}",
            **article,
            "ArticleID": number,
            "TicketID": ticket["TicketID"],
            "Attachment": files,
        }
        ticket["Article"].append(made)
        self._note(ticket, "AddArticle")
        return number

    def _set_dynamic(self, ticket: Item, fields: list[Item]) -> None:
        known = {one["Name"]: one for one in ticket["DynamicField"]}
        known |= {one["Name"]: {"Name": one["Name"], "Value": one.get("Value")} for one in fields}
        ticket["DynamicField"] = list(known.values())

    def _note(self, ticket: Item, kind: str) -> None:
        entry = {"HistoryType": kind, "CreateTime": self._time()}
        self.state.history.setdefault(ticket["TicketID"], []).append(entry)

    def _number(self) -> int:
        self.state.last += 1
        return self.state.last

    def _time(self) -> str:
        return self.now.strftime(TIME)
