"""What Blackbox answers, as values, and what it refuses, as errors.

BlackboxError
├── BlackboxTemporaryError      9 DB_FETCHFAILED, 10 DB_EXCEPTION
├── BlackboxInvalidParams       2
├── BlackboxAccessDenied        21
└── BlackboxUnknownError        1, and every id that is not in the table
NotAuthenticated                a credential was rejected, and the caller `require()`d it
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Self

from sepelib.util.secrets import Secret

from ._hidden import hidden
from .errors import NOWHERE, ApiResponseError, Where, YandexError
from .model import Record, key, moment, record

__all__ = [
    "BlackboxAccessDenied",
    "BlackboxError",
    "BlackboxInvalidParams",
    "BlackboxTemporaryError",
    "BlackboxUnknownError",
    "Check",
    "LoginCheck",
    "NotAuthenticated",
    "SessionCheck",
    "Status",
    "TicketCheck",
    "TokenCheck",
    "UserInfo",
    "exception_of",
    "flag",
    "scalar",
]


class Status(enum.StrEnum):
    """What a credential is, in the order of Blackbox's ids from 0."""

    VALID = "valid"
    NEED_RESET = "need_reset"
    """A session: valid, and the user should be sent through Passport to get it signed anew."""
    EXPIRED = "expired"
    NOAUTH = "noauth"
    """A session that does not hold for this host."""
    DISABLED = "disabled"
    """The account is blocked."""
    INVALID = "invalid"
    """Also what is told of every status that is not in this table."""


_STATUSES = {str(number): status for number, status in enumerate(Status)}


class NotAuthenticated(YandexError):
    """*status* and *error* are Blackbox's reason to reject a credential."""

    def __init__(
        self,
        reason: str = "",
        /,
        *,
        where: Where = NOWHERE,
        status: Status = Status.INVALID,
        error: str = "",
    ) -> None:
        super().__init__(reason, where=where)
        self.status = status
        self.error = error

    def _sentence(self) -> str:
        said = "; ".join(part for part in (self.reason, self.error) if part and part != "OK")
        return f"not authenticated: {self.status}" + (f": {said}" if said else "")


class BlackboxError(ApiResponseError):
    """Blackbox cannot answer: exception *id* with the name *code*, its words are `error`."""

    def __init__(
        self, message: str = "", /, *, id: int = 1, status: int = 200, **fields: Any
    ) -> None:
        super().__init__(message, status=status, **fields)
        self.id = id

    @property
    def value(self) -> str:
        """The name of the exception, say DB_EXCEPTION."""
        return self.code

    @property
    def error(self) -> str:
        """What went wrong, in the words of Blackbox."""
        return self.message

    def _sentence(self) -> str:
        return f"exception {self.id} {self.code}" + (f": {self.message}" if self.message else "")


class BlackboxTemporaryError(BlackboxError):
    """9, 10: its database has failed; was tried again."""


class BlackboxInvalidParams(BlackboxError):
    """2: it does not take what was sent."""


class BlackboxAccessDenied(BlackboxError):
    """21: this caller may not ask that; a service ticket, or a grant, is missing."""


class BlackboxUnknownError(BlackboxError):
    """1, and ids that nobody has published."""


_ERRORS = {
    2: BlackboxInvalidParams,
    9: BlackboxTemporaryError,
    10: BlackboxTemporaryError,
    21: BlackboxAccessDenied,
}
_IDS = {
    "OK": 0,
    "UNKNOWN": 1,
    "INVALID_PARAMS": 2,
    "DB_FETCHFAILED": 9,
    "DB_EXCEPTION": 10,
    "ACCESS_DENIED": 21,
}


def exception_of(answer: Mapping[str, Any]) -> BlackboxError | None:
    """The error that *answer* tells of; an exception with the id 0 is none."""
    if (told := answer.get("exception")) is None:
        return None
    name = scalar(told) or "UNKNOWN"
    number = str(told.get("id", "")).strip() if isinstance(told, Mapping) else ""
    id = int(number) if _is_number(number) else _IDS.get(name, 1)
    if id == 0:
        return None
    temporary = id in (9, 10)
    words = scalar(answer.get("error")) or ""
    return _ERRORS.get(id, BlackboxUnknownError)(words, id=id, code=name, temporary=temporary)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def scalar(value: Any) -> str | None:
    """The text of a scalar, or of the `value` in an object; None for nothing and for ""."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if isinstance(value, bool | Mapping | list) or value is None:
        return None
    return str(value).strip() or None


def _text(value: Any) -> str:
    return scalar(value) or ""


def _status(value: Any) -> Status:
    """By the id if there is one, else by the name; what is unknown is not valid."""
    if isinstance(value, Mapping) and value.get("id") is not None:
        return _STATUSES.get(str(value["id"]).strip(), Status.INVALID)
    try:
        return Status(_text(value).lower())
    except ValueError:
        return Status.INVALID


def _texts(value: Any) -> dict[str, str]:
    """All values as text, as dbfields are."""
    if not isinstance(value, Mapping):
        return {}
    return {str(name): "" if text is None else str(text) for name, text in value.items()}


def _words(value: Any) -> frozenset[str]:
    return frozenset(value.split()) if isinstance(value, str) else frozenset()


def flag(value: Any) -> bool:
    """Of JSON's true or of a text."""
    return _text(value) not in ("", "0", "false", "no") if not isinstance(value, bool) else value


def _unix(value: Any) -> Any:
    return moment(int(value) if isinstance(value, str) and _is_number(value) else value)


def _users(value: Any) -> tuple[UserInfo, ...]:
    return tuple(map(UserInfo.from_dict, value)) if isinstance(value, list | tuple) else ()


def _texts_of(name: str) -> Any:
    metadata = {"key": [name], "of": _texts}
    return dataclasses.field(default_factory=dict, metadata=metadata)  # which `key` has not


@record
class UserInfo(Record):
    """An account. One that nobody has is a value too, with `exists` False."""

    uid: str | None = key("uid", of=scalar)
    spelled_login: str | None = key("login", of=scalar)
    """As the account writes it, say Ann.Lee."""
    attributes: Mapping[str, str] = _texts_of("attributes")
    dbfields: Mapping[str, str] = _texts_of("dbfields")
    """What was asked for, all of it text."""

    @property
    def exists(self) -> bool:
        return self.uid is not None

    @property
    def login(self) -> str | None:
        """Normalised (attribute 1008), say ann-lee; as it is spelled where that is not told."""
        return self.attributes.get("1008") or self.spelled_login


@record
class Check(UserInfo):
    """What a credential is, and whose. A rejection is a result like any other.

    Fits `Verdict`, which the authenticator of sepelib.flask wants: `status`, `uid`, `login`,
    `scopes`, `expires_at`.
    """

    ACCEPTED: ClassVar[frozenset[Status]] = frozenset({Status.VALID})

    status: Status = key("status", of=_status, default=Status.INVALID)
    error: str = key("error", of=_text, default="")
    """The reason of a rejection, else OK."""
    scopes: frozenset[str] = key("oauth.scope", of=_words, default=frozenset())
    """Those of a token; empty for anything else."""
    user_ticket: Secret[str] | None = key("user_ticket", of=hidden)

    @property
    def is_valid(self) -> bool:
        return self.status in self.ACCEPTED

    @property
    def need_reset(self) -> bool:
        """Accepted, and the user should be sent through Passport."""
        return self.is_valid and self.status is Status.NEED_RESET

    @property
    def expires_at(self) -> datetime | None:
        """None: no published answer says it."""
        return None

    def require(self) -> Self:
        """Itself. Raises NotAuthenticated if it is a rejection."""
        if not self.is_valid:
            raise NotAuthenticated(self._reason(), status=self.status, error=self.error)
        return self

    def _reason(self) -> str:
        return ""


@record
class TokenCheck(Check):
    """An OAuth token: of which application, and what it may."""

    client_id: str | None = key("oauth.client_id", of=scalar)
    client_name: str | None = key("oauth.client_name", of=scalar)
    missing_scopes: frozenset[str] = key("missing scopes", of=_words, default=frozenset())
    """Of those that the caller asked for: compared here, Blackbox takes a token of any
    application."""

    @property
    def is_valid(self) -> bool:
        return self.status is Status.VALID and not self.missing_scopes

    def _reason(self) -> str:
        missing = ", ".join(sorted(self.missing_scopes))
        return f"the token lacks the scope {missing}" if missing else ""


@record
class SessionCheck(Check):
    """The cookies of a browser."""

    ACCEPTED: ClassVar[frozenset[Status]] = frozenset({Status.VALID, Status.NEED_RESET})


@record
class TicketCheck(Check):
    """A user ticket. `uid` and `login` are of the first of its `users`.

    Blackbox says no status here: with a user who has a name it is VALID, else INVALID.
    """

    users: tuple[UserInfo, ...] = key("users", of=_users, default=())

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        found = raw if isinstance(raw, Mapping) else {}
        users = _users(found.get("users"))
        first = users[0] if users else UserInfo.from_dict({})
        error = _text(found.get("error"))
        named = first.uid is not None or first.login is not None
        valid = named and error in ("", "OK")
        return cls(
            raw=raw if isinstance(raw, Mapping) else {"value": raw},
            uid=first.uid,
            spelled_login=first.spelled_login,
            attributes=first.attributes,
            dbfields=first.dbfields,
            status=Status.VALID if valid else Status.INVALID,
            error=error,
            users=users,
            user_ticket=None,
        )


@record
class LoginCheck(Check):
    """A login with its password."""

    karma: str | None = key("karma", of=scalar)
    karma_confirmed: bool | None = key("karma.confirmed", of=flag)
    karma_allow_until: datetime | str | None = key("karma.allow-until", of=_unix)
