"""Passport: the profile behind a token, where to log in, and who a request is from.

    passport = PassportClient(blackbox=blackbox)
    me = passport.check_session(request.cookies, request.remote_addr, request.host)
    # or NotAuthenticated: redirect(passport.login_url(request.url))
    profile = passport.user_info(token)

Passport has no public interface for services: the profile is that of login.yandex.ru, the rest is
asked of Blackbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from sepelib.core.exceptions import LogicalError
from sepelib.util.secrets import Secret

from .auth import Auth, OAuthToken, TokenSource
from .base import ApiClient, Response
from .blackbox import Check, NotAuthenticated, Status, TokenCheck
from .contract import Card
from .errors import ApiProtocolError
from .model import Record, key, record

if TYPE_CHECKING:
    from .blackbox import BlackboxClient

__all__ = ["CARD", "Identity", "PassportClient", "Phone", "Profile"]

CARD = Card(
    service="passport",
    purpose="the profile behind a token, and the way to log in",
    confidence="public-doc",
    sources=("ID-DOC", "YID", "YT-AUTH"),
    auth="OAuth; for sessions the cookies Session_id and sessionid2",
    endpoints=("GET /info",),
    base_url="https://login.yandex.ru",
    inferred=("the URL of the page to log in", "401 for a bad token"),
)

_SESSION_COOKIE = "Session_id"
_SSL_SESSION_COOKIE = "sessionid2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a request is from, as Blackbox has it."""

    login: str | None
    uid: str | None
    scopes: frozenset[str]
    """Of a token; a session has none."""
    client_id: str | None
    """The application that a token is for."""
    source: Literal["oauth", "session"]
    need_reset: bool
    """The user should be sent through `login_url()`, to get the cookies signed anew."""


@record
class Phone(Record):
    id: int | None = None
    number: str | None = None


@record
class Profile(Record):
    """The owner of a token; how much of it, the scopes of the token say."""

    id: str | None = None
    login: str | None = None
    client_id: str | None = None
    psuid: str | None = None
    default_email: str | None = None
    emails: tuple[str, ...] = key("emails", of=lambda emails: _texts(emails), default=())
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    real_name: str | None = None
    sex: str | None = None
    birthday: str | None = None
    """YYYY-MM-DD; of what the user does not tell there are zeros."""
    default_avatar_id: str | None = None
    is_avatar_empty: bool | None = None
    default_phone: Phone | None = key("default_phone", of=Phone.from_dict)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


class PassportClient(ApiClient):
    """*url*: of the profiles, login.yandex.ru. *passport_url*: of the pages for users.

    *blackbox*: for `check_oauth()` and `check_session()`; stays yours to close.
    The rest as in `ApiClient`.
    """

    service = "passport"
    default_url = "https://login.yandex.ru"
    PATHS = {"info": "/info"}
    OPTIONS = {"passport_url": str}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        passport_url: str = "https://passport.yandex.ru",
        blackbox: BlackboxClient | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(url, auth, **kwargs)
        self._passport_url = passport_url.rstrip("/")
        self._blackbox = blackbox

    def user_info(self, token: str | Secret[str] | TokenSource | None = None) -> Profile:
        """The profile of the owner of *token*, by default of the client's own.

        Raises Unauthorized for one that is not valid.
        """
        options: dict[str, Any] = {} if token is None else {"auth": OAuthToken(token)}
        response = self.request("info", "GET", params={"format": "json"}, **options)
        return Profile.from_dict(response.data)

    def login_url(self, retpath: str) -> str:
        """The page to log in, which leads back to the URL *retpath*. `inferred`."""
        return f"{self._passport_url}/auth?retpath={quote(retpath, safe='')}"

    def check_oauth(
        self, token: str | Secret[str], user_ip: str | None, scopes: Iterable[str] = ()
    ) -> Identity:
        """Whose *token* it is. Raises NotAuthenticated, also when it lacks one of *scopes*."""
        found = self._checker().oauth(token, user_ip, scopes=scopes).require()
        return _identity(found, "oauth")

    def check_session(self, cookies: Mapping[str, str], user_ip: str | None, host: str) -> Identity:
        """Whose the *cookies* of a browser at the site *host* are. Raises NotAuthenticated.

        Without the cookie Session_id nobody is asked.
        """
        session_id = cookies.get(_SESSION_COOKIE)
        if not session_id:
            raise NotAuthenticated(f"no cookie {_SESSION_COOKIE}", status=Status.NOAUTH)
        found = self._checker().sessionid(
            session_id, user_ip, host, ssl_session_id=cookies.get(_SSL_SESSION_COOKIE)
        )
        return _identity(found.require(), "session")

    def check(self, response: Response, /) -> None:
        if not isinstance(response.data, dict):
            raise ApiProtocolError("the answer is no JSON object", status=response.status)

    def _checker(self) -> BlackboxClient:
        if self._blackbox is None:
            raise LogicalError("only Blackbox knows that: PassportClient(blackbox=...)")
        return self._blackbox


def _identity(found: Check, source: Literal["oauth", "session"]) -> Identity:
    return Identity(
        login=found.login,
        uid=found.uid,
        scopes=found.scopes,
        client_id=found.client_id if isinstance(found, TokenCheck) else None,
        source=source,
        need_reset=found.need_reset,
    )
