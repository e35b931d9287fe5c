"""People, their sessions and tokens: what blackbox, oauth and passport know in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sepelib.util.testing import Clock

__all__ = ["Accounts", "App", "OAuthToken", "Session", "User", "UserTicket"]

YEAR = 31536000.0  # seconds; what a token lives


@dataclass
class User:
    """An account. *info*: fields of the profile; *dbfields* and *attributes*: of Blackbox."""

    uid: str
    login: str
    password: str = ""
    disabled: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    dbfields: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    karma: str = "0"

    @property
    def normalised_login(self) -> str:
        """Attribute 1008. That dots become dashes is `inferred` from one published example."""
        return self.login.lower().replace(".", "-")


@dataclass
class App:
    """An application of the OAuth server, with the scopes it is registered for."""

    client_id: str
    client_secret: str = ""
    name: str = ""
    scopes: frozenset[str] = frozenset()
    blocked: bool = False


@dataclass
class OAuthToken:
    """A token that was given. *expires_at*: by the clock."""

    access_token: str
    uid: str
    client_id: str
    scopes: tuple[str, ...]
    expires_at: float
    refresh_token: str = ""
    device_id: str | None = None


@dataclass
class Session:
    """The cookies of a browser. *hosts*: the sites it holds for; *old*: to be signed anew."""

    session_id: str
    uid: str
    hosts: frozenset[str]
    expires_at: float
    ssl_session_id: str | None = None
    old: bool = False


@dataclass
class UserTicket:
    uid: str
    expires_at: float


class Accounts:
    """Shared by FakeBlackbox, FakeOAuth and FakePassport: a token that one gives, all know.

        accounts = Accounts(clock=clock)
        oauth, blackbox = FakeOAuth(accounts=accounts), FakeBlackbox(accounts=accounts)

    The dicts may be changed as a test likes. Uids and what is generated are numbered from 1.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock = Clock(0.0) if clock is None else clock
        self.reset()

    def reset(self, *, clock: Clock | None = None) -> None:
        """As new: nobody is known. *clock*: from now on this one."""
        self.clock = clock or self.clock
        self.users: dict[str, User] = {}
        """By uid."""
        self.apps: dict[str, App] = {}
        """By client_id."""
        self.tokens: dict[str, OAuthToken] = {}
        """By access token."""
        self.sessions: dict[str, Session] = {}
        """By Session_id."""
        self.user_tickets: dict[str, UserTicket] = {}
        self.lcookies: dict[str, str] = {}
        """Uids by the cookie L."""
        self._last: dict[str, int] = {}

    def add_user(
        self,
        login: str,
        *,
        uid: int | str | None = None,
        password: str = "",
        disabled: bool = False,
        info: Mapping[str, Any] | None = None,
        dbfields: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        karma: str = "0",
    ) -> User:
        """An account; *uid* is the next free number by default."""
        if uid is None:
            uid = self.number("uid")
            while str(uid) in self.users:
                uid = self.number("uid")
        user = User(
            str(uid),
            login,
            password,
            disabled,
            dict(info or {}),
            dict(dbfields or {}),
            dict(attributes or {}),
            karma,
        )
        self.users[user.uid] = user
        return user

    def add_app(
        self,
        client_id: str,
        client_secret: str = "",
        *,
        name: str = "",
        scopes: Iterable[str] = (),
    ) -> App:
        """An application, registered for *scopes*."""
        app = App(client_id, client_secret, name or client_id, frozenset(scopes))
        self.apps[client_id] = app
        return app

    def add_token(
        self,
        token: str | None = None,
        *,
        uid: int | str,
        scopes: Iterable[str] = (),
        client_id: str = "fake-app",
        expires_in: float = YEAR,
        refresh_token: str = "",
        device_id: str | None = None,
    ) -> OAuthToken:
        """A token as if the OAuth server had given it; generated if it is not given."""
        given = OAuthToken(
            token or f"y0_access-{self.number('access')}",
            str(uid),
            client_id,
            tuple(scopes),
            self.clock.now + expires_in,
            refresh_token,
            device_id,
        )
        self.tokens[given.access_token] = given
        return given

    def add_session(
        self,
        session_id: str,
        *,
        uid: int | str,
        hosts: Iterable[str] = ("yandex-team.ru",),
        ssl_session_id: str | None = None,
        expires_in: float = YEAR,
        old: bool = False,
    ) -> Session:
        """A session that holds for *hosts* and the sites below them."""
        session = Session(
            session_id,
            str(uid),
            frozenset(hosts),
            self.clock.now + expires_in,
            ssl_session_id,
            old,
        )
        self.sessions[session_id] = session
        return session

    def add_user_ticket(self, uid: int | str, *, expires_in: float = 300.0) -> str:
        """A user ticket for *uid*, as Blackbox gives it."""
        ticket = f"3:user:uid-{uid}-{self.number('ticket')}:signed"
        self.user_tickets[ticket] = UserTicket(str(uid), self.clock.now + expires_in)
        return ticket

    def revoke(self, access_token: str) -> None:
        """It is unknown from now on."""
        self.tokens.pop(access_token, None)

    def user_by_login(self, login: str) -> User | None:
        """However it is spelled."""
        wanted = User("", login).normalised_login
        return next((u for u in self.users.values() if u.normalised_login == wanted), None)

    def number(self, kind: str) -> int:
        """The next one of that kind, from 1."""
        self._last[kind] = self._last.get(kind, 0) + 1
        return self._last[kind]

    def __eq__(self, other: object) -> bool:
        """Whether both know the same, whatever their clocks say."""
        return isinstance(other, Accounts) and self._known() == other._known()

    __hash__ = None  # type: ignore[assignment]

    def _known(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "clock"}
