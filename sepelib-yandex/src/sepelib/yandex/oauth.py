"""OAuth: tokens for codes, by the server of Yandex.

    oauth = OAuthClient(client_id="...", client_secret=Secret("..."))
    send_the_user_to(oauth.authorize_url(state=state))
    token = oauth.token_by_code(code)
    later = oauth.token_by_refresh(token.refresh_token)

    codes = oauth.device_codes()                # for what has no browser
    print(f"open {codes.verification_url} and enter {codes.user_code}")
    token = oauth.wait_device(codes)

A code is good for one exchange, so no exchange is sent again after it may have arrived: the error
has `maybe_applied` then. A token may die at any time (the user logs out everywhere, changes the
password, the application its scopes): a 401 in the middle of its life is normal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from urllib.parse import urlencode

from sepelib.core.config import ConfigError
from sepelib.core.exceptions import LogicalError
from sepelib.util.deadline import deadline
from sepelib.util.secrets import Secret

from ._failures import LATE
from ._hidden import hidden, revealed, with_hidden
from .auth import BasicAuth, TokenSource, source_from_config
from .base import ApiClient, Response, decoded_object
from .contract import Card
from .errors import (
    ApiProtocolError,
    ApiResponseError,
    DeadlineExceeded,
    WaitTimeout,
    Where,
)
from .model import Record, key, record

__all__ = ["CARD", "DeviceCodes", "OAuthClient", "OAuthError", "Token"]

CARD = Card(
    service="oauth",
    purpose="tokens for codes, passwords and refresh tokens",
    confidence="public-doc",
    sources=("ID-DOC", "YID", "YMUS", "YATOOL"),
    auth="Basic, client_id and client_secret",
    endpoints=("GET /authorize", "POST /token", "POST /device/code", "POST /revoke_token"),
    base_url="https://oauth.yandex.ru",
    inferred=(
        "the password grant",
        "the answer to a revocation",
        "401 for a wrong client_secret",
        "expired_token and slow_down of the device flow",
    ),
)

_SLOWER = 5.0  # seconds; RFC 8628, 3.5
_INTERVAL = 5.0  # seconds; RFC 8628, 3.2
_LIFETIME = 600.0  # seconds that device codes live
_PENDING = frozenset({"authorization_pending", "slow_down"})


class OAuthError(ApiResponseError):
    """The server refuses: *code* is its name for why, say invalid_grant."""

    @property
    def error(self) -> str:
        return self.code

    @property
    def description(self) -> str:
        """In its own words."""
        return self.message


def _scopes(value: Any) -> frozenset[str] | None:
    return frozenset(value.split()) if isinstance(value, str) else None


def _seconds(value: Any) -> float | None:
    """*value* if it is a number of seconds that a moment can be so late."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**10:
        return None
    return float(value)


@record
class Token(Record):
    """An access token, and what may get the next one. Its repr shows neither."""

    access_token: Secret[str] = key("access_token", of=hidden, default=Secret(""))
    refresh_token: Secret[str] | None = key("refresh_token", of=hidden)
    """Lives as long as the access token."""
    expires_at: datetime | None = None
    """None when the server does not say it."""
    scope: frozenset[str] | None = key("scope", of=_scopes)
    """None when it is what was asked for."""

    def __repr__(self) -> str:
        return f"<Token {self.access_token!r} until {self.expires_at}>"


@record
class DeviceCodes(Record):
    """What a device shows to its user: `verification_url` and `user_code`, for a short time."""

    device_code: Secret[str] = key("device_code", of=hidden, default=Secret(""))
    user_code: str = ""
    verification_url: str = ""
    interval: float = key("interval", of=lambda v: _seconds(v) or _INTERVAL, default=_INTERVAL)
    """Seconds between two questions."""
    expires_in: float = key("expires_in", of=lambda v: _seconds(v) or _LIFETIME, default=_LIFETIME)
    """Seconds that they live."""

    def __repr__(self) -> str:
        return f"<DeviceCodes for {self.verification_url}>"


class OAuthClient(ApiClient):
    """Asks the OAuth server, for one application; threads and greenlets may share it.

    *client_secret*: a TokenSource is read anew for each exchange.
    *allow_password_grant*: let `token_by_password()` work, which no current documentation has.
    *now*: the time of day, aware. The rest as in `ApiClient`.
    """

    service = "oauth"
    default_url = "https://oauth.yandex.ru"
    PATHS = {
        "authorize": "/authorize",
        "verification_code": "/verification_code",
        "token.code": "/token",
        "token.refresh": "/token",
        "token.password": "/token",
        "token.device": "/token",
        "device.codes": "/device/code",
        "revoke": "/revoke_token",
    }
    OPTIONS = {"client_id": str, "allow_password_grant": bool}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        client_id: str = "",
        client_secret: str | Secret[str] | TokenSource = "",
        *,
        allow_password_grant: bool = False,
        now: Callable[[], datetime] | None = None,
        **kwargs: Any,
    ) -> None:
        if not client_id or not client_secret:
            raise ValueError("an OAuthClient is of an application: give client_id, client_secret")
        if not isinstance(client_secret, TokenSource):
            client_secret = TokenSource(client_secret)
        super().__init__(url, BasicAuth(client_id, client_secret), **kwargs)
        self._client_id = client_id
        self._allow_password_grant = allow_password_grant
        self._time_of_day = now

    @classmethod
    def from_config(cls, section: Mapping[str, Any], **kwargs: Any) -> Self:
        """As in `ApiClient`; in place of `auth` a `client_id` and its `client_secret`.

        Or `client_secret_env`, or `client_secret_file`. ConfigError names what does not fit.
        """
        left = dict(section)
        if "auth" in left:
            raise ConfigError("oauth has the unknown key auth: its secret is in client_secret_file")
        if not left.get("client_id"):
            raise ConfigError("oauth.client_id is missing")
        secret = source_from_config("oauth", left, "client_secret")
        return super().from_config(left, **{"client_secret": secret, **kwargs})

    @property
    def verification_code_url(self) -> str:
        """The page that shows the code, as `redirect_uri` of an application without a site."""
        return self._urls("verification_code", None, {})[0]

    def authorize_url(
        self,
        response_type: Literal["code", "token"] = "code",
        *,
        redirect_uri: str | None = None,
        scope: Iterable[str] | None = None,
        optional_scope: Iterable[str] | None = None,
        state: str | None = None,
        login_hint: str | None = None,
        device_id: str | None = None,
        device_name: str | None = None,
        force_confirm: bool = False,
        code_challenge: str | None = None,
        code_challenge_method: str | None = None,
    ) -> str:
        """Where to send the user; nothing is asked here.

        *optional_scope*: what the user may refuse. *state*: comes back with the code; compare it.
        *device_id*: 6 to 50 printable ASCII characters. *device_name*: at most 100.
        """
        query = {
            "response_type": response_type,
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": _joined(scope),
            "optional_scope": _joined(optional_scope),
            "state": state,
            "login_hint": login_hint,
            **_device(device_id, device_name),
            "force_confirm": "yes" if force_confirm else None,
            "code_challenge": code_challenge,
            "code_challenge_method": code_challenge_method,
        }
        url = self._urls("authorize", None, {})[0]
        return f"{url}?{urlencode({k: v for k, v in query.items() if v is not None})}"

    def token_by_code(
        self,
        code: str | Secret[str],
        *,
        code_verifier: str | Secret[str] | None = None,
        device_id: str | None = None,
        device_name: str | None = None,
    ) -> Token:
        """The token that a confirmation *code* is for."""
        form = {
            "grant_type": "authorization_code",
            "code": revealed(code),
            "code_verifier": None if code_verifier is None else revealed(code_verifier),
            **_device(device_id, device_name),
        }
        return self._token("token.code", form)

    def token_by_refresh(self, refresh_token: str | Secret[str]) -> Token:
        """A token for longer, about every 3 months; it may be the same one as before."""
        form = {"grant_type": "refresh_token", "refresh_token": revealed(refresh_token)}
        return self._token("token.refresh", form)

    def token_by_password(self, username: str, password: str | Secret[str]) -> Token:
        """`inferred`. LogicalError without `allow_password_grant=True`."""
        if not self._allow_password_grant:
            raise LogicalError("the password grant is off: OAuthClient(allow_password_grant=True)")
        form = {"grant_type": "password", "username": username, "password": revealed(password)}
        return self._token("token.password", form)

    def device_codes(
        self,
        *,
        device_id: str | None = None,
        device_name: str | None = None,
        scope: Iterable[str] | None = None,
        optional_scope: Iterable[str] | None = None,
    ) -> DeviceCodes:
        """The beginning of the device flow: what the user has to enter, and where."""
        form = {
            "client_id": self._client_id,
            **_device(device_id, device_name),
            "scope": _joined(scope),
            "optional_scope": _joined(optional_scope),
        }
        answer = self._asked("device.codes", form, auth=None)
        return DeviceCodes.from_dict(with_hidden(answer, "device_code"))

    def poll_device(self, code: DeviceCodes | str | Secret[str]) -> Token | None:
        """The token, or None while the user has not entered the code. OAuthError when it is over.

        To be asked no more often than `DeviceCodes.interval` says.
        """
        found = self._polled(code)
        return found if isinstance(found, Token) else None

    def wait_device(self, codes: DeviceCodes, timeout: float | None = None) -> Token:
        """The token, once the user has entered the code.

        Waits `codes.interval` before each question, and 5 s more from each time on that the server
        says slow_down. *timeout*: seconds in all, by default the life of the codes. Raises
        WaitTimeout, OAuthError when the user refuses or the codes are over, and whatever a request
        ends with. Can be called again with the same codes.
        """
        interval = codes.interval
        seconds = codes.expires_in if timeout is None else timeout
        state = "authorization_pending"
        with deadline(seconds, clock=self._clock) as limit:
            assert limit is not None
            while (left := limit.remaining()) > 0:
                (self._sleep or time.sleep)(min(interval, left))
                if limit.remaining() <= 0:
                    break
                try:
                    found = self._polled(codes)
                except DeadlineExceeded as error:
                    if error.maybe_applied or limit.remaining() > LATE:
                        raise  # the server may have given the token, or there is time for it
                    break
                if isinstance(found, Token):
                    return found
                state = found
                if state == "slow_down":
                    interval += _SLOWER
        where = Where(self.service, "token.device")
        raise WaitTimeout("the code was not entered", where=where, state=state, timeout=seconds)

    def revoke(self, token: Token | str | Secret[str]) -> None:
        """Let the access token of a device die before its time."""
        access_token = token.access_token if isinstance(token, Token) else token
        self._asked("revoke", {"access_token": revealed(access_token)})

    # Inside.

    def check(self, response: Response, /) -> None:
        """Reads the answer. What it begins with is not told: that may be a token."""
        response.data = found = decoded_object(response)
        op = response.where.op
        needed = ("device_code", "user_code") if op == "device.codes" else ("access_token",)
        if op == "revoke":
            return
        for name in needed:
            if not isinstance(found.get(name), str) or not found[name]:
                raise ApiProtocolError(f"an answer without {name}", status=response.status)

    def parse_error(self, response: Response, /) -> ApiResponseError:
        found = decoded_object(response)
        code, said = found.get("error"), found.get("error_description")
        if 400 <= response.status < 500 and response.status != 429 and isinstance(code, str):
            words = said if isinstance(said, str) else ""
            return OAuthError(words, status=response.status, code=code)
        return super().parse_error(response)

    def _polled(self, code: DeviceCodes | str | Secret[str]) -> Token | str:
        """The token, or why there is none yet."""
        device_code = code.device_code if isinstance(code, DeviceCodes) else code
        form = {"grant_type": "device_code", "code": revealed(device_code)}
        try:
            return self._token("token.device", form)
        except OAuthError as error:
            if error.code not in _PENDING:
                raise
            return error.code

    def _token(self, op: str, form: Mapping[str, str | None]) -> Token:
        now = (self._time_of_day or _utcnow)()  # before it is sent: rather too early than too late
        token = Token.from_dict(with_hidden(self._asked(op, form), "access_token", "refresh_token"))
        seconds = _seconds(token.raw.get("expires_in"))
        return replace(token, expires_at=None if seconds is None else now + timedelta(0, seconds))

    def _asked(self, op: str, form: Mapping[str, str | None], **options: Any) -> Mapping[str, Any]:
        data = {name: value for name, value in form.items() if value is not None}
        answer: Mapping[str, Any] = self.request(
            op, "POST", data=data, expect=(200,), decode=False, **options
        ).data
        return answer


def _utcnow() -> datetime:
    return datetime.now(UTC)


def _joined(scope: Iterable[str] | None) -> str | None:
    return scope if scope is None or isinstance(scope, str) else " ".join(scope)


def _device(device_id: str | None, device_name: str | None) -> dict[str, str | None]:
    if device_id is not None and not (
        6 <= len(device_id) <= 50 and device_id.isascii() and device_id.isprintable()
    ):
        raise ValueError("a device_id has 6 to 50 printable ASCII characters")
    if device_name is not None and len(device_name) > 100:
        raise ValueError("a device_name has at most 100 characters")
    return {"device_id": device_id, "device_name": device_name}
