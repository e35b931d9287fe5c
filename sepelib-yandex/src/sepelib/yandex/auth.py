"""Who we are to a service: strategies that put a credential into the headers of a request.

    OAuthToken("y0_...")                                    # as it is
    OAuthToken(TokenSource.env("STARTREK_TOKEN"))
    OAuthToken(TokenSource.file("/etc/app/startrek.token")) # read again when the file changes
    OAuthToken(TokenSource.call(vault.startrek_token))      # asked for each request
    TvmTicket(tvm, "blackbox")                              # a service ticket, X-Ya-Service-Ticket

A credential is in the clear only here, and in the request that it is put into: all of these show
as `***`, and errors tell where a token was to come from, never the token.
Threads and greenlets may share each of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Protocol

from sepelib.core.config import ConfigError
from sepelib.util.secrets import Secret

from .errors import CredentialsUnavailable

__all__ = [
    "Auth",
    "BasicAuth",
    "CombinedAuth",
    "NoAuth",
    "OAuthToken",
    "SessionCookie",
    "TicketProvider",
    "TokenSource",
    "TvmTicket",
    "UserTicket",
    "auth_from_config",
    "token_id",
]

Token = str | Secret[str]

_log = logging.getLogger(__name__)


class Auth(Protocol):
    """What `ApiClient(auth=)` takes."""

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        """Put the credential into the *headers* of a request that is about to be sent.

        Raises CredentialsUnavailable when there is none.
        """
        ...

    def invalidate(self) -> None:
        """A service has answered 401 to what `apply()` still gives: forget what can be got anew.

        The request is repeated once if `apply()` gives something else afterwards.
        """
        ...


class NoAuth:
    """Anonymous."""

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        pass

    def invalidate(self) -> None:
        pass

    def __repr__(self) -> str:
        return "NoAuth()"


class TokenSource:
    """Where a token comes from: `TokenSource(literal)`, `.env()`, `.file()`, `.call()`."""

    def __init__(self, token: Token) -> None:
        self._shown = "a literal"
        kept = _checked(token, "the token")
        self._get: Callable[[], Secret[str]] = lambda: kept
        self._forget: Callable[[], None] = _nothing

    @classmethod
    def env(cls, name: str) -> TokenSource:
        """The environment variable *name*, looked up for each request."""

        def get() -> Secret[str]:
            value = os.environ.get(name, "").strip()
            if not value:
                raise CredentialsUnavailable(f"environment variable {name} has no token")
            return _checked(value, f"environment variable {name}")

        return cls._of(f"environment variable {name}", get)

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> TokenSource:
        """The file at *path*, white space around the token aside; read again when it has changed.

        While it is empty or not there, as in the middle of a rotation, the last token is used.
        """
        file = _TokenFile(os.fspath(path))
        return cls._of(f"file {file.path}", file.get, file.forget)

    @classmethod
    def call(
        cls, get: Callable[[], Token], *, invalidate: Callable[[], object] | None = None
    ) -> TokenSource:
        """What *get* returns, asked for each request: it keeps what is costly to get.

        *invalidate* is called after a 401, unless *get* gives another one by then. Both may block;
        their errors go to the caller.
        """

        def forget() -> None:
            if invalidate is not None:
                invalidate()

        name = getattr(get, "__qualname__", type(get).__name__)
        return cls._of(f"{name}()", lambda: _checked(get(), f"{name}()"), forget)

    @classmethod
    def _of(
        cls, shown: str, get: Callable[[], Secret[str]], forget: Callable[[], None] | None = None
    ) -> TokenSource:
        source = cls.__new__(cls)
        source._shown, source._get, source._forget = shown, get, forget or _nothing
        return source

    def token(self) -> Secret[str]:
        """The token of this moment. Raises CredentialsUnavailable."""
        return self._get()

    def invalidate(self) -> None:
        self._forget()

    def __repr__(self) -> str:
        return f"<TokenSource: {self._shown}>"


class _TokenFile:
    def __init__(self, path: str) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], Secret[str]] | None = None  # replaced as a whole

    def get(self) -> Secret[str]:
        known = self._read
        try:
            status = os.stat(self.path)
            version = status.st_mtime_ns, status.st_size, status.st_ino
            if known is not None and known[0] == version:
                return known[1]
            with open(self.path, encoding="utf-8") as file:
                text = file.read().strip()
            reason = "" if text else "is empty"
        except OSError as error:
            reason = f"cannot be read: {error.strerror or type(error).__name__}"
        except UnicodeDecodeError:
            reason = "is not text"
        if not reason:
            token = _checked(text, f"token file {self.path}")
            self._read = version, token
            return token
        if known is None:
            raise CredentialsUnavailable(f"token file {self.path} {reason}")
        _log.warning("token file %s %s; the last token is used", self.path, reason)
        return known[1]

    def forget(self) -> None:
        # Not the token: it is the best there is while the file is being replaced. Only its mark,
        # as a file system with coarse times may have two versions of one mark.
        known = self._read
        if known is not None:
            self._read = (-1, -1, -1), known[1]


class OAuthToken:
    """`Authorization: OAuth <token>`; *scheme* "Bearer" is for IAM tokens."""

    def __init__(self, token: Token | TokenSource, *, scheme: str = "OAuth") -> None:
        self._source = token if isinstance(token, TokenSource) else TokenSource(token)
        self._scheme = scheme

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        headers["Authorization"] = f"{self._scheme} {self._source.token().reveal()}"

    def invalidate(self) -> None:
        self._source.invalidate()

    def __repr__(self) -> str:
        return f"OAuthToken({self._source!r})"


class TicketProvider(Protocol):
    """What `TvmTicket` asks: `sepelib.yandex.tvm.TvmClient`, or a stand-in."""

    def service_ticket(self, dst: str, /) -> Token:
        """A ticket for the service *dst*, which may come from a cache."""
        ...

    def forget(self, dst: str, /) -> None:
        """The ticket was refused: get another one next time."""
        ...


class TvmTicket:
    """`X-Ya-Service-Ticket` for the service *dst*."""

    def __init__(self, provider: TicketProvider, dst: str) -> None:
        self._provider = provider
        self._dst = dst

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        ticket = _checked(self._provider.service_ticket(self._dst), "the service ticket")
        headers["X-Ya-Service-Ticket"] = ticket.reveal()

    def invalidate(self) -> None:
        self._provider.forget(self._dst)

    def __repr__(self) -> str:
        return f"TvmTicket({self._dst!r})"


class UserTicket:
    """`X-Ya-User-Ticket`: on behalf of a user whom Blackbox has checked."""

    def __init__(self, ticket: Token) -> None:
        self._ticket = _checked(ticket, "the user ticket")

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        headers["X-Ya-User-Ticket"] = self._ticket.reveal()

    def invalidate(self) -> None:
        pass

    def __repr__(self) -> str:
        return "UserTicket(***)"


class SessionCookie:
    """The cookies `Session_id` and, if given, `sessionid2` of a user's browser."""

    def __init__(self, session_id: Token, *, ssl_session_id: Token | None = None) -> None:
        cookie = f"Session_id={_checked(session_id, 'the session cookie').reveal()}"
        if ssl_session_id is not None:
            cookie += f"; sessionid2={_checked(ssl_session_id, 'the session cookie').reveal()}"
        self._cookie = Secret(cookie)

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        headers["Cookie"] = self._cookie.reveal()

    def invalidate(self) -> None:
        pass

    def __repr__(self) -> str:
        return "SessionCookie(***)"


class BasicAuth:
    """`Authorization: Basic`, in UTF-8. ValueError for a colon in the login, which ends it.

    A password of a TokenSource is read anew for each request.
    """

    def __init__(self, login: str, password: Token | TokenSource) -> None:
        if ":" in login:
            raise ValueError("a login of Basic authentication has no colon")
        self._login = login
        self._password = password if isinstance(password, TokenSource) else Secret(password)

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        from base64 import b64encode

        password = self._password
        if isinstance(password, TokenSource):
            password = password.token()
        pair = f"{self._login}:{password.reveal()}".encode()
        headers["Authorization"] = f"Basic {b64encode(pair).decode()}"

    def invalidate(self) -> None:
        if isinstance(self._password, TokenSource):
            self._password.invalidate()

    def __repr__(self) -> str:
        return f"BasicAuth({self._login!r}, ***)"


class CombinedAuth:
    """Several at once, say a service ticket and the user's."""

    def __init__(self, *parts: Auth) -> None:
        self._parts = parts

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        for part in self._parts:
            part.apply(headers)

    def invalidate(self) -> None:
        for part in self._parts:
            part.invalidate()

    def __repr__(self) -> str:
        return f"CombinedAuth{self._parts!r}"


def token_id(token: Token) -> str:
    """Eight characters by which a token may be recognised in logs."""
    from hashlib import sha256

    return sha256(Secret(token).reveal().encode()).hexdigest()[:8]


def auth_from_config(section: Mapping[str, object]) -> Auth:
    """A strategy of `{type: oauth, token_file: ...}`; ConfigError names what does not fit.

    `none`; `oauth` with one of `token`, `token_env`, `token_file`, and perhaps `scheme`; `basic`
    with `login` and one of `password`, `password_env`, `password_file`; `tvm` with `dst`, and
    what `sepelib.yandex.tvm.TvmClient.from_config` takes.
    """
    left = dict(section)
    kind = left.pop("type", None)
    if kind == "none":
        auth: Auth = NoAuth()
    elif kind == "oauth":
        source = source_from_config("auth", left, "token")
        auth = OAuthToken(source, scheme=_text(left.pop("scheme", "OAuth"), "scheme"))
    elif kind == "basic":
        login = _text(left.pop("login", None), "login")
        auth = BasicAuth(login, source_from_config("auth", left, "password"))
    elif kind == "tvm":
        from sepelib.yandex.tvm import TvmClient

        dst = _text(left.pop("dst", None), "dst")
        auth, left = TvmTicket(TvmClient.from_config(left), dst), {}
    else:
        raise ConfigError("auth.type is one of none, oauth, basic, tvm")
    if left:
        raise ConfigError(f"auth has the unknown key {sorted(map(str, left))[0]}")
    return auth


def source_from_config(service: str, section: dict[str, object], name: str) -> TokenSource:
    """The credential that is *name* in *section*, or of its `_env` or `_file`; taken out of it.

    ConfigError unless it is one of them.
    """
    found = {
        kind: section.pop(name + kind) for kind in ("", "_env", "_file") if name + kind in section
    }
    if len(found) != 1:
        raise ConfigError(f"{service} has one of {name}, {name}_env, {name}_file")
    [(kind, value)] = found.items()
    if not value or not isinstance(value, str | Secret if kind == "" else str):
        raise ConfigError(f"{service}.{name}{kind} is not a text")
    if kind == "":
        return TokenSource(value)
    return TokenSource.env(value) if kind == "_env" else TokenSource.file(value)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"auth.{name} is a text")
    return value


def _checked(token: Token, what: str) -> Secret[str]:
    secret = Secret(token)
    value = secret.reveal()
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise CredentialsUnavailable(f"{what} is empty or not printable ASCII")
    return secret


def _nothing() -> None:
    pass
