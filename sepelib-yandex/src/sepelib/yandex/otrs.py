"""Tickets of an OTRS help-desk, by the REST connector of its generic interface.

    client = OtrsClient("https://otrs.example/otrs/nph-genericinterface.pl/Webservice/Tickets",
                        "robot", TokenSource.file("/etc/app/otrs.password"))
    made = client.create_ticket(
        {"Title": "Disk is full", "Queue": "Raw", "State": "new", "Priority": "3 normal",
         "CustomerUser": "ann"},
        {"Subject": "Disk is full", "Body": "…", "ContentType": "text/plain; charset=utf-8"},
        attachments=[Attachment(filename="df.txt", content=b"…", content_type="text/plain")],
    )
    client.get_ticket(made.ticket_id, articles=True).articles[0].subject

Keys of tickets, of articles and of searches are those of OTRS, as written there. OTRS, Znuny and
OTOBO are alike; the routes are configuration of each installation: see `routes=`.

Errors: what OTRS refuses, it refuses in an answer of 200: OtrsError, with a `code` as
"TicketGet.AccessDenied". A ticket that does not exist is one of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, Unpack

from sepelib.core.config import ConfigError
from sepelib.util.deadline import DeadlineExceeded as NothingLeft
from sepelib.util.deadline import clip, deadline
from sepelib.util.secrets import Secret
from sepelib.util.slots import Slots
from sepelib.util.url import UrlTemplate

from ._otrs_payload import (
    Article,
    Attachment,
    Parts,
    Ticket,
    TicketIds,
    as_list,
    as_number,
    sent_extras,
    sent_filter,
    sent_parts,
    sent_ticket,
)
from .auth import Auth, TokenSource
from .base import ApiClient, Response, decoded_object
from .contract import Card
from .errors import ApiProtocolError, ApiResponseError, DeadlineExceeded, Where, YandexError

__all__ = [
    "ROUTES",
    "Article",
    "Attachment",
    "OtrsClient",
    "OtrsError",
    "Parts",
    "Ticket",
    "TicketIds",
]

ROUTES: Mapping[str, str] = {
    "SessionCreate": "POST /Session",
    "TicketCreate": "POST /Ticket",
    "TicketGet": "GET /Ticket/:TicketID",
    "TicketGetList": "GET /TicketList",
    "TicketUpdate": "PATCH /Ticket/:TicketID",
    "TicketSearch": "GET /Ticket",
    "TicketHistoryGet": "GET /TicketHistory/:TicketID",
}
"""Operation → route, as the sample connector of OTRS has them and in its own notation.

SessionGet is not among them: it has the id of the session in its path, where all logs have it.
"""

CARD = Card(
    service="otrs",
    purpose="the help-desk: tickets, their articles and attachments",
    confidence="public-code",
    sources=("ZNUNY", "PYOTRS", "ZN-PYPI"),
    auth="session id in the payload, made of login and password",
    endpoints=tuple(ROUTES.values()),
    base_url="https://HOST/otrs/nph-genericinterface.pl/Webservice/NAME",
    inferred=("a refusal by another code than the known ones may have changed something",),
)

_REFUSALS = frozenset(
    {
        "AccessDenied",
        "AuthFail",
        "InvalidConfiguration",
        "InvalidParameter",
        "MissingParameter",
        "WrongStructure",
    }
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH"})
_WITHOUT_ID = frozenset({"TicketCreate", "TicketSearch"})
_WRITES = frozenset({"TicketCreate", "TicketUpdate"})
_PASSWORDS: Mapping[str, Any] = {
    "password": Secret,
    "password_env": TokenSource.env,
    "password_file": TokenSource.file,
}


class OtrsError(ApiResponseError):
    """OTRS refuses; *code* is `<Operation>.<condition>`. The status is 200, as a rule."""

    @property
    def condition(self) -> str:
        """The code without the operation: "AccessDenied"."""
        return self.code.rpartition(".")[2]


class _Session(NamedTuple):
    name: str
    """Of the parameter: SessionID, since OTRS 8 AccessToken."""
    id: Secret[str]


class OtrsClient(ApiClient):
    """A client of one web service; threads and greenlets may share one.

    *url* has the name of the web service at its end. *login*, *password*: those of an agent, or
    with *customer* of a customer; they are sent to make a session, which all calls share. When it
    has expired, a call makes a new one and is repeated, once.
    *routes*: {operation: "METHOD /path/:TicketID"} where the site differs from `ROUTES`; what the
    path does not take goes into the query of a GET, else into the body.
    *auth*: for what stands before OTRS. All else as in `ApiClient`; its `total_timeout` is for a
    whole call of a method.
    """

    service = "otrs"
    PATHS: ClassVar[Mapping[str, str]] = {
        op: route.partition(" ")[2].replace(":TicketID", "{TicketID}")
        for op, route in ROUTES.items()
    }
    OPTIONS: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "login": str,
        "customer": bool,
        "routes": Mapping,
    }
    error_class = OtrsError

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        login: str = "",
        password: str | Secret[str] | TokenSource = "",
        *,
        customer: bool = False,
        routes: Mapping[str, str] | None = None,
        auth: Auth | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(url, auth, **kwargs)
        if not login:
            raise ValueError("OTRS wants a login and a password")
        self._login = login
        self._password = password if isinstance(password, TokenSource) else Secret(password)
        self._login_name = "CustomerUserLogin" if customer else "UserLogin"
        self._methods = {op: route.partition(" ")[0] for op, route in ROUTES.items()}
        for op, route in (routes or {}).items():
            self._methods[op], self._paths[op] = _route(op, route)
        self._known: _Session | None = None
        self._signing_in = Slots(1)

    @classmethod
    def from_config(cls, section: Mapping[str, Any], **kwargs: Any) -> Self:
        """As in ApiClient, with `login`, one of `password`, `password_env` and `password_file`,
        `customer` and `routes`.
        """
        if not isinstance(section, Mapping):
            raise ConfigError("otrs is not a mapping")
        left = dict(section)
        given = {name: left.pop(name) for name in _PASSWORDS if name in left}
        if given:
            [(name, value), *more] = given.items()
            literal = name == "password" and isinstance(value, Secret)
            if more or not (literal or isinstance(value, str)):
                raise ConfigError(f"otrs has one of {', '.join(_PASSWORDS)}, and it is a text")
            kwargs.setdefault("password", _PASSWORDS[name](value))
        return super().from_config(left, **kwargs)

    def session(self) -> Secret[str]:
        """The id of the session, made if there is none. Not needed before other calls."""
        with deadline(self._total_timeout, clock=self._clock):
            return self._signed_in(None).id

    def create_ticket(
        self,
        ticket: Mapping[str, Any],
        article: Mapping[str, Any],
        *,
        dynamic_fields: Mapping[str, Any] | None = None,
        attachments: Iterable[Attachment] = (),
        unique: tuple[str, str] | None = None,
    ) -> TicketIds:
        """A new ticket with its first article.

        *ticket*: Title, CustomerUser, Queue or QueueID, State or StateID, Priority or PriorityID,
        Type where the site demands it; PendingTime may be a timedelta from now, or a datetime,
        which is sent in UTC. *article*: Subject, Body, ContentType or MimeType and Charset.
        Never repeated once it was sent: after an error with `maybe_applied` there may be a ticket.
        *unique*: (dynamic field, value) that only this ticket has. It is searched for before, and
        after such an error; one that is found is the result, without an `article_id`. Two callers
        at once may still make two tickets.
        """
        fields = dict(dynamic_fields or {})
        if unique is not None:
            fields[unique[0]] = unique[1]
        payload = {
            "Ticket": sent_ticket(ticket),
            "Article": dict(article),
            **sent_extras(fields, attachments),
        }
        with deadline(self._total_timeout, clock=self._clock):
            try:
                found = self._find(unique)
            except YandexError as error:
                error.maybe_applied = False  # as no ticket was sent yet
                raise
            if found is not None:
                return found
            try:
                return self._ids("TicketCreate", payload)
            except YandexError as error:
                found = self._found_after(error, unique)
                if found is None:
                    raise
                return found

    def get_ticket(self, ticket_id: int | str, **parts: Unpack[Parts]) -> Ticket:
        """One ticket, with the *parts* of it that are asked for."""
        return self._tickets("TicketGet", ticket_id, parts)[0]

    def get_tickets(
        self, ticket_ids: int | str | Iterable[int | str], **parts: Unpack[Parts]
    ) -> list[Ticket]:
        """Several tickets by one request; an OtrsError if any one of them may not be read."""
        several = [ticket_ids] if isinstance(ticket_ids, int | str) else ticket_ids
        ids = ",".join(map(str, several))
        return self._tickets("TicketGetList", ids, parts) if ids else []

    def update_ticket(
        self,
        ticket_id: int | str,
        ticket: Mapping[str, Any] | None = None,
        article: Mapping[str, Any] | None = None,
        *,
        dynamic_fields: Mapping[str, Any] | None = None,
        attachments: Iterable[Attachment] = (),
    ) -> TicketIds:
        """Change fields of a ticket, and add an article, with *attachments*, if one is given.

        Never repeated once it was sent, as the article would be there twice.
        """
        extras = sent_extras(dynamic_fields or {}, attachments)
        if "Attachment" in extras and article is None:
            raise ValueError("attachments belong to an article: give article=")
        payload: dict[str, Any] = {"TicketID": str(ticket_id), **extras}
        if ticket is not None:
            payload["Ticket"] = sent_ticket(ticket)
        if article is not None:
            payload["Article"] = dict(article)
        return self._ids("TicketUpdate", payload)

    def search(self, **filters: Any) -> list[int]:
        """The ids of the tickets that fit, the newest first.

        *filters*: Queues, QueueIDs, States, StateType, Title, TicketNumber, CustomerUserLogin,
        TicketCreateTimeNewerDate, DynamicField_NAMEEquals, DynamicField_NAMELike, FullTextIndex,
        SortBy, OrderBy ("Up", "Down"), Limit and so on. `%` stands for any text, a list for any of
        its items, a datetime is sent as it is written. There are no pages, and OTRS stops at 500
        unless Limit says more: to walk through all, ask by windows of time.
        """
        payload = {name: sent_filter(value) for name, value in filters.items() if value is not None}
        response = self._call("TicketSearch", payload)
        found = response.data.get("TicketID") or []  # nothing found is {}
        ids = [as_number(one) for one in (found if isinstance(found, list) else [found])]
        if not all(isinstance(one, int) for one in ids):
            raise _unreadable(response, "an id is no number")
        return ids

    def history(self, ticket_id: int | str) -> list[Mapping[str, Any]]:
        """What happened to a ticket, as OTRS tells it."""
        response = self._call("TicketHistoryGet", {"TicketID": str(ticket_id)})
        found = as_list(response.data.get("TicketHistory"))
        first = found[0] if isinstance(found, list) and found else None
        entries = first.get("History") if isinstance(first, Mapping) else None
        if not isinstance(entries, list):
            raise _unreadable(response, "there is no History")
        return entries

    def check(self, response: Response, /) -> None:
        """OTRS tells of its refusals inside of a 200."""
        found = response.data
        if not isinstance(found, dict):
            raise _unreadable(response, "it is no object")
        error = found.get("Error")
        if error is None:
            return
        said = error if isinstance(error, dict) else {"ErrorMessage": error}
        refused = OtrsError(
            str(said.get("ErrorMessage") or "no words in the answer"),
            status=response.status,
            code=str(said.get("ErrorCode") or ""),
        )
        writes = response.where.op in _WRITES
        refused.maybe_applied = writes and refused.condition not in _REFUSALS
        raise refused

    def parse_error(self, response: Response, /) -> ApiResponseError:
        found = decoded_object(response)
        fault = found.get("faultstring")
        if not isinstance(fault, str):
            return super().parse_error(response)
        return self.error_for(response, fault, code=str(found.get("faultcode") or ""))

    # Inside.

    def _tickets(self, op: str, ticket_ids: int | str, parts: Parts) -> list[Ticket]:
        response = self._call(op, {"TicketID": str(ticket_ids), **sent_parts(parts)})
        found = as_list(response.data.get("Ticket"))
        if not isinstance(found, list) or not found:
            raise _unreadable(response, "there is no Ticket")
        return [Ticket.from_dict(one) for one in found]

    def _ids(self, op: str, payload: Mapping[str, Any]) -> TicketIds:
        response = self._call(op, payload)
        ids = TicketIds.from_dict(response.data)
        if not isinstance(ids.ticket_id, int):
            error = _unreadable(response, "there is no TicketID")
            error.maybe_applied = True
            raise error
        return ids

    def _find(self, unique: tuple[str, str] | None) -> TicketIds | None:
        if unique is None:
            return None
        name, value = unique
        found = self.search(**{f"DynamicField_{name}Equals": value, "Limit": 1})
        if not found:
            return None
        ticket = self.get_ticket(found[0])
        fields = ticket.dynamic_fields
        if not isinstance(fields, Mapping) or str(fields.get(name)) != value:
            # Where a site does not know the field, its search may find just anything.
            where = Where(self.service, "TicketSearch")
            reason = f"a search for the dynamic field {name} finds ticket {found[0]} without it"
            raise ApiProtocolError(reason, where=where)
        return TicketIds.from_dict(ticket.raw)

    def _found_after(self, error: YandexError, unique: tuple[str, str] | None) -> TicketIds | None:
        """The ticket that was made in spite of the *error*."""
        try:
            return self._find(unique) if error.maybe_applied else None
        except YandexError:
            return None  # the first error says more

    def _call(self, op: str, payload: Mapping[str, Any]) -> Response:
        with deadline(self._total_timeout, clock=self._clock):
            session = self._signed_in(None)
            try:
                return self._send(op, {session.name: session.id.reveal(), **payload})
            except OtrsError as error:
                # It has done nothing: whatever the call is, it may be sent again.
                if error.condition != "AuthFail":
                    raise
            session = self._signed_in(session)
            return self._send(op, {session.name: session.id.reveal(), **payload})

    def _signed_in(self, expired: _Session | None) -> _Session:
        """The session that is not *expired*; of those who miss it one makes it."""
        current = self._known
        if current is not None and current is not expired:
            return current
        try:
            granted = self._signing_in.acquire(clip(None))
        except NothingLeft:
            granted = False
        if not granted:
            where = Where(self.service, "SessionCreate")
            raise DeadlineExceeded("the deadline is over before there is a session", where=where)
        try:
            current = self._known
            if current is None or current is expired:
                current = self._known = self._sign_in()
            return current
        finally:
            self._signing_in.release()

    def _sign_in(self) -> _Session:
        password = self._password
        if isinstance(password, TokenSource):
            password = password.token()
        login = {self._login_name: self._login, "Password": password.reveal()}
        try:
            response = self._send("SessionCreate", login)
        except YandexError as error:
            error.maybe_applied = False  # of what the caller has asked for
            raise
        for name in ("SessionID", "AccessToken"):
            found = response.data.get(name)
            if isinstance(found, str) and found and found.isprintable():
                return _Session(name, Secret(found))
        raise _unreadable(response, "there is no SessionID")

    def _send(self, op: str, payload: Mapping[str, Any]) -> Response:
        method = self._methods[op]
        in_path = self._paths[op].names
        rest = {name: value for name, value in payload.items() if name not in in_path}
        read_only = op not in _WRITES  # a session more does no harm
        at = {name: payload[name] for name in in_path}
        if method == "GET":
            return self.request(op, method, at=at, params=rest, idempotent=read_only)
        return self.request(op, method, at=at, json=rest, idempotent=read_only)


def _route(op: str, route: str) -> tuple[str, UrlTemplate]:
    if op not in ROUTES:
        raise ValueError(f"otrs: routes has the unknown operation {op}")
    method, _, path = str(route).partition(" ")
    segments = path.split("/")
    template = "/".join(f"{{{s[1:]}}}" if s.startswith(":") else s for s in segments)
    compiled = UrlTemplate(template)
    known = {"TicketID"} if op.startswith("Ticket") and op not in _WITHOUT_ID else set()
    if method not in _METHODS or not path.startswith("/") or compiled.names - known:
        # No session id either: paths are seen in logs.
        raise ValueError(f"otrs: routes.{op} is no METHOD /path with at most :TicketID in it")
    return method, compiled


def _unreadable(response: Response, why: str) -> ApiProtocolError:
    return ApiProtocolError(
        f"the answer means nothing: {why}", where=response.where, status=response.status
    )
