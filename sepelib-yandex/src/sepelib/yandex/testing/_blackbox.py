"""A fake of Blackbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from sepelib.util.testing import Clock

from ._accounts import Accounts, User
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["BlackboxState", "FakeBlackbox"]

STATUSES = ("VALID", "NEED_RESET", "EXPIRED", "NOAUTH", "DISABLED", "INVALID")
"""By their ids."""
EXCEPTIONS = {
    1: "UNKNOWN",
    2: "INVALID_PARAMS",
    9: "DB_FETCHFAILED",
    10: "DB_EXCEPTION",
    21: "ACCESS_DENIED",
}

_ANYBODY = "*"
_COMMON = {"method", "format"}
_CHECKS = {"attributes", "dbfields", "get_user_ticket"}
_KNOWN = {
    "oauth": {"oauth_token", "userip", *_CHECKS},
    "sessionid": {"sessionid", "sslsessionid", "host", "userip", *_CHECKS},
    "user_ticket": {"user_ticket", "attributes"},
    "login": {"login", "password", "sid", "userip", "optimize", "dbfields", "attributes"},
    "userinfo": {
        *("uid", "login", "sid", "userip", "dbfields", "attributes"),
        *("regname", "aliases", "emails"),
    },
    "checkip": {"ip"},
    "lcookie": {"lcookie"},
}
_REQUIRED = {
    "oauth": ("oauth_token", "userip"),
    "sessionid": ("sessionid", "host", "userip"),
    "user_ticket": ("user_ticket",),
    "login": ("login", "password", "userip"),
    "userinfo": ("userip",),
    "checkip": ("ip",),
    "lcookie": ("lcookie",),
}


@dataclass
class BlackboxState:
    forced: dict[str, str] = field(default_factory=dict)
    """Statuses by credential, "*" for all."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Exceptions for the next requests: id and words."""
    tickets: set[str] | None = None
    """Service tickets that are accepted; None: nobody needs one."""
    ips: set[str] = field(default_factory=set)
    """Those that checkip knows."""


class FakeBlackbox(FakeService[BlackboxState]):
    """Blackbox, over `accounts`, which FakeOAuth and FakePassport may share.

        bb = FakeBlackbox()
        bb.add_user("ann", uid=11)
        bb.add_token("t", uid=11, scopes=["tool:read"])
        bb.force_status("DISABLED", "t")        # whatever the accounts say
        bb.fail(10, times=2)                    # DB_EXCEPTION, inside of a 200

    Answers by 200 all that it answers itself, XML unless it is asked for `format=json`. Which state
    of an account gives which status is `inferred`: of a token or a session that nobody knows
    INVALID, of one that is over EXPIRED, of a session for another site NOAUTH, of a blocked account
    DISABLED, of a session that is `old` NEED_RESET.
    """

    service = "blackbox"
    prefix = "/blackbox"

    def __init__(
        self,
        *,
        accounts: Accounts | None = None,
        strict: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._shares_accounts = accounts is not None
        self.accounts = Accounts(clock=clock) if accounts is None else accounts
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> BlackboxState:
        return BlackboxState()

    def reset(self, *, clock: Clock | None = None) -> None:
        """As new; accounts that it shares stay as they are."""
        super().reset(clock=clock)
        if not self._shares_accounts:
            self.accounts.reset(clock=self.clock)

    def config(self) -> dict[str, Any]:
        return {"url": self.url}

    # Builders: those of `accounts`, and its own.

    def add_user(self, login: str, **fields: Any) -> User:
        """See `Accounts.add_user`."""
        return self.accounts.add_user(login, **fields)

    def add_token(self, token: str, **fields: Any) -> None:
        """See `Accounts.add_token`."""
        self.accounts.add_token(token, **fields)

    def add_session(self, session_id: str, **fields: Any) -> None:
        """See `Accounts.add_session`."""
        self.accounts.add_session(session_id, **fields)

    def force_status(self, status: str | None, credential: str = _ANYBODY) -> None:
        """Let *credential* (a token, a session, a login) have *status*; None: as it is again."""
        if status is None:
            self.state.forced.pop(credential, None)
            return
        if status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}")
        self.state.forced[credential] = status

    def fail(self, id: int, error: str = "", *, times: int = 1) -> None:
        """Answer the next *times* requests by the exception *id*, inside of a 200."""
        self.state.failures += [(id, error)] * times

    def require_tickets(self, *tickets: str) -> None:
        """From now on let in only who shows one of these service tickets."""
        self.state.tickets = set(tickets)

    # The service.

    def authorize(self, request: FakeRequest) -> None:
        tickets = self.state.tickets
        if tickets is not None and request.headers.get("X-Ya-Service-Ticket") not in tickets:
            raise _exception(21, "no access with this service ticket")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        """Its own refusals are answered by 200; what is on the way to it is not in its words."""
        details = refusal.details
        if refusal.code in ("unknown_parameter", "unsupported_media_type"):
            details = _exception(2, refusal.message).details
        if "exception" not in details:
            return Reply(refusal.status, body=refusal.message, headers=refusal.headers)
        return _reply(details, request, refusal.headers)

    @route("GET", "", op="oauth", query=None, when={"method": "oauth"})
    @route("POST", "", op="oauth", query=None, body="form", when={"method": "oauth"})
    def _oauth(self, request: FakeRequest) -> Reply:
        asked = self._asked(request)
        secret = asked["oauth_token"]
        token = self.accounts.tokens.get(secret)
        if token is None:
            return self._verdict(request, asked, secret, None, "INVALID", "no such token")
        status = "EXPIRED" if token.expires_at <= self.clock.now else "VALID"
        app = self.accounts.apps.get(token.client_id)
        grant = {
            "client_id": token.client_id,
            "client_name": token.client_id if app is None else app.name,
            "scope": " ".join(token.scopes),
        }
        return self._verdict(
            request, asked, secret, token.uid, status, "the token has expired", oauth=grant
        )

    @route("GET", "", op="sessionid", query=None, when={"method": "sessionid"})
    @route("POST", "", op="sessionid", query=None, body="form", when={"method": "sessionid"})
    def _sessionid(self, request: FakeRequest) -> Reply:
        asked = self._asked(request)
        secret = asked["sessionid"]
        session = self.accounts.sessions.get(secret)
        if session is None:
            return self._verdict(request, asked, secret, None, "INVALID", "no such session")
        status, error = "VALID", "OK"
        host = asked["host"].lower()
        given_ssl = asked.get("sslsessionid")
        if session.expires_at <= self.clock.now:
            status, error = "EXPIRED", "the session has expired"
        elif not any(host == own or host.endswith(f".{own}") for own in session.hosts):
            status, error = "NOAUTH", "the session is not for this host"
        elif given_ssl is not None and given_ssl != session.ssl_session_id:
            status, error = "INVALID", "the second cookie is not of this session"
        elif session.old:
            status = "NEED_RESET"
        return self._verdict(request, asked, secret, session.uid, status, error)

    @route("GET", "", op="user_ticket", query=None, when={"method": "user_ticket"})
    @route("POST", "", op="user_ticket", query=None, body="form", when={"method": "user_ticket"})
    def _user_ticket(self, request: FakeRequest) -> Reply:
        asked = self._asked(request)
        known = self.accounts.user_tickets.get(asked["user_ticket"])
        user = None if known is None else self.accounts.users.get(known.uid)
        if known is None or user is None or known.expires_at <= self.clock.now:
            return _reply({"error": "the user ticket is not valid"}, request)
        return _reply({"users": [self._account(user, asked)]}, request)

    @route("GET", "", op="login", query=None, when={"method": "login"})
    @route("POST", "", op="login", query=None, body="form", when={"method": "login"})
    def _login(self, request: FakeRequest) -> Reply:
        asked = self._asked(request)
        if "password" in request.query:
            raise _exception(2, "the password is not to be in the URL")
        user = self.accounts.user_by_login(asked["login"])
        if user is None or not user.password or user.password != asked["password"]:
            return self._verdict(
                request, asked, asked["login"], None, "INVALID", "no such login or password"
            )
        return self._verdict(
            request, asked, asked["login"], user.uid, "VALID", "OK", karma={"value": user.karma}
        )

    @route("GET", "", op="userinfo", query=None, when={"method": "userinfo"})
    @route("POST", "", op="userinfo", query=None, body="form", when={"method": "userinfo"})
    def _userinfo(self, request: FakeRequest) -> Reply:
        asked = self._asked(request)
        if "uid" in asked:
            users = [self.accounts.users.get(uid) for uid in asked["uid"].split(",")]
        elif "login" in asked:
            users = [self.accounts.user_by_login(asked["login"])]
        else:
            raise _exception(2, "neither uid nor login")
        accounts = [{"uid": ""} if u is None else self._account(u, asked) for u in users]
        if _format(request) == "json":
            return _reply({"users": accounts}, request)
        return _reply(accounts[0] if len(accounts) == 1 else {"users": accounts}, request)

    @route("GET", "", op="checkip", query=None, when={"method": "checkip"})
    @route("POST", "", op="checkip", query=None, body="form", when={"method": "checkip"})
    def _checkip(self, request: FakeRequest) -> Reply:
        return _reply({"result": self._asked(request)["ip"] in self.state.ips}, request)

    @route("GET", "", op="lcookie", query=None, when={"method": "lcookie"})
    @route("POST", "", op="lcookie", query=None, body="form", when={"method": "lcookie"})
    def _lcookie(self, request: FakeRequest) -> Reply:
        uid = self.accounts.lcookies.get(self._asked(request)["lcookie"])
        user = None if uid is None else self.accounts.users.get(uid)
        if user is None:
            return _reply({"uid": "", "login": ""}, request)
        return _reply({"uid": user.uid, "login": user.login}, request)

    @route("GET", "", op="unknown", query=None)
    @route("POST", "", op="unknown", query=None)
    def _unknown(self, request: FakeRequest) -> Reply:
        raise _exception(2, "no such method")

    # Inside.

    def _asked(self, request: FakeRequest) -> dict[str, str]:
        """The parameters, which a POST may have in its body, but for the method."""
        if self.state.failures:
            raise _exception(*self.state.failures.pop(0))
        if request.query.get("method") != request.op:
            raise _exception(2, "the method is to be in the query")
        asked = {**request.form, **request.query}
        if _format(request) not in ("json", "xml"):
            raise _exception(2, "no such format")
        for name in _REQUIRED[request.op]:
            if not asked.get(name):
                raise _exception(2, f"missing {name}")
        unknown = sorted(asked.keys() - _COMMON - _KNOWN[request.op])
        if unknown and self.strict:
            raise _exception(2, f"unknown parameter {unknown[0]}")
        return asked

    def _verdict(
        self,
        request: FakeRequest,
        asked: Mapping[str, str],
        credential: str,
        uid: str | None,
        status: str,
        error: str,
        **more: Any,
    ) -> Reply:
        user = None if uid is None else self.accounts.users.get(uid)
        if user is not None and user.disabled:
            status, error = "DISABLED", "the account is blocked"
        elif user is None and status in ("VALID", "NEED_RESET"):
            status, error = "INVALID", "no such account"
        forced = self.state.forced
        status = forced.get(credential, forced.get(_ANYBODY, status))
        accepted = status in ("VALID", "NEED_RESET")
        answer: dict[str, Any] = {
            "status": {"value": status, "id": STATUSES.index(status)},
            "error": "OK" if accepted else error if error != "OK" else status,
        }
        if user is not None and accepted:
            answer |= {**self._account(user, asked), **more}
            if asked.get("get_user_ticket") == "yes":
                answer["user_ticket"] = self.accounts.add_user_ticket(user.uid)
        return _reply(answer, request)

    def _account(self, user: User, asked: Mapping[str, str]) -> dict[str, Any]:
        account: dict[str, Any] = {"uid": user.uid, "login": user.login}
        if wanted := _split(asked.get("attributes", "")):
            known = {"1008": user.normalised_login, **user.attributes}
            account["attributes"] = {name: known[name] for name in wanted if name in known}
        if wanted := _split(asked.get("dbfields", "")):
            account["dbfields"] = {name: user.dbfields.get(name, "") for name in wanted}
        return account


def _format(request: FakeRequest) -> str:
    """XML is what is answered unless somebody asks for another one."""
    return {**request.form, **request.query}.get("format", "xml")


def _exception(id: int, error: str = "") -> Refusal:
    name = EXCEPTIONS.get(id, "UNKNOWN")
    details = {
        "exception": {"value": name, "id": id},
        "error": f"BlackBox error: {error or name}",
    }
    return Refusal(200, name, error, details=details)


def _reply(answer: Mapping[str, Any], request: FakeRequest, headers: Any = ()) -> Reply:
    if _format(request) == "json":
        return Reply(json=dict(answer), headers=headers)
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<doc>{_elements(answer)}</doc>'
    return Reply(body=body, content_type="text/xml; charset=utf-8", headers=headers)


def _elements(answer: Mapping[str, Any]) -> str:
    return "".join(_XML.get(name, _element)(name, value) for name, value in answer.items())


def _element(name: str, value: Any, **attributes: str) -> str:
    if isinstance(value, Mapping) and "value" in value:
        rest = {key: str(other) for key, other in value.items() if key != "value"}
        return _element(name, value["value"], **rest)
    said = "".join(f" {key}={quoteattr(text)}" for key, text in attributes.items())
    if isinstance(value, bool):
        value = str(value).lower()
    inside = _elements(value) if isinstance(value, Mapping) else escape(str(value))
    return f"<{name}{said}>{inside}</{name}>"


def _dbfields(_: str, fields: Mapping[str, str]) -> str:
    return "".join(_element("dbfield", text, id=name) for name, text in fields.items())


def _attributes(_: str, texts: Mapping[str, str]) -> str:
    inside = "".join(_element("attribute", text, type=name) for name, text in texts.items())
    return f"<attributes>{inside}</attributes>"


def _users(_: str, users: list[Mapping[str, Any]]) -> str:
    return "".join(_element("user", user) for user in users)


_XML: dict[str, Callable[[str, Any], str]] = {
    "dbfields": _dbfields,
    "attributes": _attributes,
    "users": _users,
}


def _split(names: str) -> list[str]:
    return [name for name in names.split(",") if name]
