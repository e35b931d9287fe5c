"""Blackbox: who is behind a session, a token, a ticket or a password.

    blackbox = BlackboxClient(auth=TvmTicket(tvm, "blackbox"))
    who = blackbox.oauth(token, request.remote_addr, scopes={"tool:write"})
    if who.is_valid:
        print(who.login, who.uid)
    who.require()                       # or NotAuthenticated

A rejection is a result, not an error. Errors are for what Blackbox cannot answer: BlackboxError,
which it tells inside of a 200, and the tree of `sepelib.yandex.errors`.
Everything here only reads, so all of it is tried again, until `total_timeout` is over: what finds
no connection, any status but 200, an answer that means nothing, the exceptions 9 and 10.
Secrets go in the body of a POST. Answers may be JSON or XML, the results are the same.
Nothing is kept: for a cache of verdicts see the authenticator of sepelib.flask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.secrets import Secret

from ._blackbox_answers import (
    BlackboxAccessDenied,
    BlackboxError,
    BlackboxInvalidParams,
    BlackboxTemporaryError,
    BlackboxUnknownError,
    Check,
    LoginCheck,
    NotAuthenticated,
    SessionCheck,
    Status,
    TicketCheck,
    TokenCheck,
    UserInfo,
    exception_of,
    flag,
    scalar,
)
from ._hidden import revealed, with_hidden
from ._shown import shown_text
from .base import ApiClient, Response
from .contract import Card
from .errors import ApiProtocolError, ApiResponseError, YandexError
from .model import Record, key, record

if TYPE_CHECKING:
    from .auth import Auth

__all__ = [
    "CARD",
    "BlackboxAccessDenied",
    "BlackboxClient",
    "BlackboxError",
    "BlackboxInvalidParams",
    "BlackboxTemporaryError",
    "BlackboxUnknownError",
    "Check",
    "LCookie",
    "LoginCheck",
    "NotAuthenticated",
    "SessionCheck",
    "Status",
    "TicketCheck",
    "TokenCheck",
    "UserInfo",
]

CARD = Card(
    service="blackbox",
    purpose="checks sessions, tokens, tickets and passwords, and tells account data",
    confidence="public-code",
    sources=("YT-AUTH", "NWSMTP"),
    auth="a TVM service ticket; before that the network of the caller",
    endpoints=(
        "POST ?method=oauth",
        "POST ?method=sessionid",
        "POST ?method=user_ticket",
        "POST ?method=login",
        "GET ?method=userinfo",
        "GET ?method=checkip",
        "POST ?method=lcookie",
    ),
    base_url="https://blackbox.yandex-team.ru/blackbox",
    inferred=(
        "the name of the XML root",
        "uid in JSON answers",
        "the JSON of userinfo, and several accounts in one userinfo",
        "the XML of all methods but login and userinfo",
        "parameters and answers of checkip and lcookie",
    ),
)

AnswerFormat = Literal["json", "xml"]
Value = str | int
CheckT = TypeVar("CheckT", bound=Check)

_NORMALISED_LOGIN = "1008"
_LOCALHOST = "127.0.0.1"

# What an answer has at least one of; without, it is none of Blackbox's.
_TELLING = {
    "oauth": ("status",),
    "sessionid": ("status",),
    "login": ("status",),
    "user_ticket": ("users", "error"),
    "userinfo": ("users", "uid"),
    "checkip": ("result",),
    "lcookie": ("uid",),
}
_IN_XML = frozenset({"login", "userinfo"})  # as those who have published them ask


@record
class LCookie(Record):
    """Who was logged in in this browser. `inferred`."""

    uid: str | None = key("uid", of=scalar)
    login: str | None = key("login", of=scalar)


class BlackboxClient(ApiClient):
    """Asks Blackbox; fits the `Blackbox` that sepelib.flask's authenticator takes.

    *url*: with its path; of several hosts each attempt takes the next one.
    *answer_format*: "json" or "xml" for all methods; None asks each in the form that is published
    for it: `login` and `userinfo` XML, the others JSON.
    The rest as in `ApiClient`; *retry* is by default without a limit but the time.

    *user_ip* is the address of the user; a caller who has none may give "" or None, and
    127.0.0.1 is sent. *dbfields* and *attributes* are the names of more data to be told.
    """

    service = "blackbox"
    default_url = "https://blackbox.yandex-team.ru/blackbox"
    PATHS = dict.fromkeys((*_TELLING, "call"), "")
    OPTIONS = {"answer_format": str}

    CHECKIP_PARAMETER = "ip"
    """`inferred`."""
    LCOOKIE_PARAMETER = "lcookie"
    """`inferred`."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        answer_format: AnswerFormat | None = None,
        total_timeout: float | None = 15.0,
        retry: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        if answer_format not in (None, "json", "xml"):
            raise ValueError(f"answer_format is json or xml, not {answer_format!r}")
        retry = retry or RetryPolicy(YandexError, attempts=None, backoff=Backoff(1.0, cap=1.0))
        super().__init__(url, auth, total_timeout=total_timeout, retry=retry, **kwargs)
        self._answer_format = answer_format

    def oauth(
        self,
        token: str | Secret[str],
        user_ip: str | None,
        *,
        scopes: Iterable[str] = (),
        dbfields: Iterable[str] = (),
        attributes: Iterable[str] = (),
        get_user_ticket: bool = False,
    ) -> TokenCheck:
        """Whose token it is. *scopes*: those it must have, or it is not valid.

        They are compared here: to Blackbox a token of any application is valid.
        """
        secret = revealed(token)
        form = {
            "oauth_token": secret,
            "userip": user_ip or _LOCALHOST,
            **_more(dbfields, attributes, get_user_ticket),
        }
        found = _check(TokenCheck, self._post("oauth", form), secret)
        wanted = frozenset(_all_of(scopes))
        if found.status is Status.VALID and not wanted <= found.scopes:
            return replace(found, missing_scopes=wanted - found.scopes)
        return found

    def sessionid(
        self,
        session_id: str | Secret[str],
        user_ip: str | None,
        host: str,
        *,
        ssl_session_id: str | Secret[str] | None = None,
        dbfields: Iterable[str] = (),
        attributes: Iterable[str] = (),
        get_user_ticket: bool = False,
    ) -> SessionCheck:
        """Whose session it is at the site *host*: the cookies Session_id and sessionid2."""
        secrets = [revealed(session_id)]
        form = {
            "sessionid": secrets[0],
            "host": host,
            "userip": user_ip or _LOCALHOST,
            **_more(dbfields, attributes, get_user_ticket),
        }
        if ssl_session_id:
            secrets.append(revealed(ssl_session_id))
            form["sslsessionid"] = secrets[1]
        return _check(SessionCheck, self._post("sessionid", form), *secrets)

    def user_ticket(
        self, ticket: str | Secret[str], *, attributes: Iterable[str] = ()
    ) -> TicketCheck:
        """On behalf of whom *ticket* is."""
        secret = revealed(ticket)
        form = {"user_ticket": secret, **_more((), attributes, False)}
        return _check(TicketCheck, self._post("user_ticket", form), secret)

    def login(
        self,
        login: str,
        password: str | Secret[str],
        user_ip: str | None,
        *,
        sid: str | None = None,
        dbfields: Iterable[str] = (),
        optimize: bool = True,
    ) -> LoginCheck:
        """Whether *password* is that of *login*, in the service *sid* (say "smtp").

        *optimize*: False sends `optimize=no`.
        """
        secret = revealed(password)
        query = {
            "login": login,
            "sid": sid,
            "userip": user_ip or _LOCALHOST,
            "dbfields": _joined(dbfields),
            "optimize": None if optimize else "no",
        }
        return _check(LoginCheck, self._post("login", {"password": secret}, query), secret)

    def userinfo(
        self,
        user_ip: str | None,
        *,
        uid: Value | None = None,
        login: str | None = None,
        sid: str | None = None,
        dbfields: Iterable[str] = (),
        attributes: Iterable[str] = (),
        regname: str | None = None,
        aliases: str | None = None,
        emails: str | None = None,
    ) -> UserInfo:
        """The account of *uid*, or of *login* in the service *sid*; one of them is given.

        `exists` is False when there is none. *regname*, *aliases*, *emails* are sent as they are:
        what they may be is not public.
        """
        if (uid is None) is (login is None):
            raise ValueError("userinfo is of a uid or of a login")
        who = {"uid": uid, "login": login, "sid": sid}
        more = {"regname": regname, "aliases": aliases, "emails": emails}
        users = self._userinfo(user_ip, {**who, **more}, dbfields, attributes)
        return users[0] if users else UserInfo.from_dict({})

    def userinfos(
        self,
        uids: Iterable[Value],
        user_ip: str | None,
        *,
        dbfields: Iterable[str] = (),
        attributes: Iterable[str] = (),
    ) -> tuple[UserInfo, ...]:
        """The accounts of several *uids*, in Blackbox's order. `inferred`."""
        joined = ",".join(map(str, uids))
        if not joined:
            return ()
        return self._userinfo(user_ip, {"uid": joined}, dbfields, attributes)

    def checkip(self, ip: str) -> bool:
        """Whether *ip* is one of ours. `inferred`."""
        return flag(self._get("checkip", {self.CHECKIP_PARAMETER: ip})["result"])

    def lcookie(self, cookie: str | Secret[str]) -> LCookie:
        """Whose the cookie L is. `inferred`."""
        return LCookie.from_dict(self._post("lcookie", {self.LCOOKIE_PARAMETER: revealed(cookie)}))

    def call(self, method: str, /, **params: str | int | Secret[str] | None) -> dict[str, Any]:
        """What *method* answers, as it comes, XML in the form of JSON; a user ticket is a Secret.

        *params* go in the body, without those that are None; `format=json` unless they say more.
        """
        form: dict[str, Any] = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in params.items()
        }
        return self._ask("call", method, "POST", {}, {**self._format("call"), **form})

    def check_token(self, token: str, user_ip: str) -> TokenCheck:
        """`oauth()` as a verdict for an authenticator.

        NEED_RESET, which is no status of a valid token, is INVALID here: of a session it would be
        accepted.
        """
        found = self.oauth(token, user_ip)
        if found.status is Status.NEED_RESET:
            return replace(found, status=Status.INVALID)
        return found

    def check_session(
        self, session_id: str, user_ip: str, host: str, *, ssl_session_id: str | None = None
    ) -> SessionCheck:
        """`sessionid()` as a verdict for an authenticator."""
        return self.sessionid(session_id, user_ip, host, ssl_session_id=ssl_session_id)

    # Inside.

    def check(self, response: Response, /) -> None:
        """Reads the answer: exceptions are told inside of a 200."""
        response.data = answer = _decoded(response)
        if (error := exception_of(answer)) is not None:
            raise error
        op = response.where.op
        telling = _TELLING.get(op, ())
        if telling and all(answer.get(name) is None for name in telling):
            raise ApiProtocolError(
                f"an answer without {' or '.join(telling)}",
                status=response.status,
                body=response.text,
            )

    def parse_error(self, response: Response, /) -> ApiResponseError:
        """Blackbox answers everything by 200, so any other status is of the way to it."""
        error = super().parse_error(response)
        error.temporary = True
        return error

    def _userinfo(
        self,
        user_ip: str | None,
        who: Mapping[str, Value | None],
        dbfields: Iterable[str],
        attributes: Iterable[str],
    ) -> tuple[UserInfo, ...]:
        query = {
            **who,
            "userip": user_ip or _LOCALHOST,
            "dbfields": _joined(dbfields),
            "attributes": _joined(attributes),
        }
        answer = self._get("userinfo", query)
        users = answer.get("users")
        return tuple(map(UserInfo.from_dict, users if isinstance(users, list) else [answer]))

    def _get(self, op: str, query: Mapping[str, Value | None]) -> dict[str, Any]:
        return self._ask(op, op, "GET", {**query, **self._format(op)}, None)

    def _post(
        self,
        op: str,
        form: Mapping[str, Value | None],
        query: Mapping[str, Value | None] | None = None,
    ) -> dict[str, Any]:
        """*form* has all but the method, unless *query* has what is no secret."""
        if query is None:
            return self._ask(op, op, "POST", {}, {**form, **self._format(op)})
        return self._ask(op, op, "POST", {**query, **self._format(op)}, form)

    def _format(self, op: str) -> dict[str, str]:
        wanted = self._answer_format or ("xml" if op in _IN_XML else "json")
        return {"format": "json"} if wanted == "json" else {}

    def _ask(
        self,
        op: str,
        blackbox_method: str,
        method: str,
        query: Mapping[str, Value | None],
        form: Mapping[str, Value | None] | None,
    ) -> dict[str, Any]:
        response = self.request(
            op,
            method,
            params={"method": blackbox_method, **query},
            data=None if form is None else {k: v for k, v in form.items() if v is not None},
            idempotent=True,
            expect=(200,),
            decode=False,
        )
        found: dict[str, Any] = with_hidden(response.data, "user_ticket")
        return found


def _check(cls: type[CheckT], answer: Mapping[str, Any], *secrets: str) -> CheckT:
    found = cls.from_dict(answer)
    return replace(found, error=shown_text(found.error, secrets))


def _decoded(response: Response) -> dict[str, Any]:
    """The object that is in the answer. Raises ApiProtocolError."""
    content = response.content.strip()
    if content.startswith(b"<"):
        from ._blackbox_xml import Unparsable, parse  # expat, for those who ask for XML

        try:
            return parse(content)
        except Unparsable as error:
            reason = str(error)
    else:
        # An error of json has the whole text in it, and would travel along as a context.
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        reason = "neither a JSON object nor XML" if content else "empty"
    raise ApiProtocolError(f"the answer is {reason}", status=response.status, body=response.text)


def _more(
    dbfields: Iterable[str], attributes: Iterable[str], get_user_ticket: bool
) -> dict[str, str | None]:
    wanted = dict.fromkeys((_NORMALISED_LOGIN, *_all_of(attributes)))
    return {
        "attributes": ",".join(wanted),
        "dbfields": _joined(dbfields),
        "get_user_ticket": "yes" if get_user_ticket else None,
    }


def _joined(names: Iterable[str]) -> str | None:
    return ",".join(_all_of(names)) or None


def _all_of(names: Iterable[str]) -> Collection[str]:
    return [names] if isinstance(names, str) else list(names)
