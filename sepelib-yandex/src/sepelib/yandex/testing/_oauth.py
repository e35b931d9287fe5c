"""A fake of the OAuth server."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sepelib.util.testing import Clock

from ._accounts import YEAR, Accounts, App, OAuthToken
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["Code", "Device", "FakeOAuth", "OAuthState"]

CODE_LIFETIME = 600.0  # seconds, of device codes too
INTERVAL = 5
DEVICES = 30
"""Tokens of devices that a user has for one application; the oldest dies."""


@dataclass
class Code:
    """A confirmation code, for one exchange."""

    uid: str
    client_id: str
    asked: tuple[str, ...]
    granted: tuple[str, ...]
    expires_at: float
    challenge: str = ""
    challenge_method: str = ""
    device_id: str | None = None


@dataclass
class Device:
    """A device that waits for its user; *answer* is None, "approved" or "denied"."""

    user_code: str
    client_id: str
    asked: tuple[str, ...]
    expires_at: float
    device_id: str | None
    answer: str | None = None
    uid: str = ""
    granted: tuple[str, ...] = ()
    polled_at: float | None = None


@dataclass
class OAuthState:
    codes: dict[str, Code] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    """By device code."""
    refresh_keeps_token: bool = False
    """Whether a refresh gives the same access token, with a longer life."""
    slow_down: bool = False
    """Whether who asks for a device more often than every 5 s is told so. `inferred`."""


class FakeOAuth(FakeService[OAuthState]):
    """The OAuth server, over `accounts`: what it gives and revokes, FakeBlackbox knows.

        oauth = FakeOAuth()
        oauth.add_user("ann", uid=11)
        code = oauth.confirm(client.authorize_url(scope=["a"]), uid=11)     # as the browser does
        oauth.approve(codes.user_code, uid=11)

    There is one application, "fake-client" with the secret in `config()`, of all scopes that
    somebody asks for; `accounts.add_app()` adds others, with the scopes they are registered for.
    """

    service = "oauth"
    client_id = "fake-client"
    client_secret = "fake-client-secret"

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

    def new_state(self) -> OAuthState:
        return OAuthState()

    def reset(self, *, clock: Clock | None = None) -> None:
        """As new; accounts that it shares stay as they are."""
        super().reset(clock=clock)
        if not self._shares_accounts:
            self.accounts.reset(clock=self.clock)

    def config(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }

    # What users do.

    def add_user(self, login: str, **fields: Any) -> Any:
        """See `Accounts.add_user`."""
        return self.accounts.add_user(login, **fields)

    def confirm(self, url: str, *, uid: int | str, scopes: Iterable[str] | None = None) -> str:
        """The code that a user gets at the authorize *url*; AssertionError for a wrong one.

        *scopes*: those that the user grants, by default all that are asked for.
        """
        asked = dict(parse_qsl(urlsplit(url).query))
        assert urlsplit(url).path == "/authorize", f"{urlsplit(url).path} is not /authorize"
        assert asked.get("response_type") == "code", "not for a code"
        app = self._app(asked.get("client_id", ""))
        assert app is not None, "of an unknown application"
        needed, optional = _split(asked.get("scope", "")), _split(asked.get("optional_scope", ""))
        self._check_scopes(app, (*needed, *optional))
        return self.add_code(
            uid=uid,
            client_id=app.client_id,
            asked=(*needed, *optional),
            granted=(*needed, *optional) if scopes is None else scopes,
            challenge=asked.get("code_challenge", ""),
            challenge_method=asked.get("code_challenge_method", "plain"),
            device_id=asked.get("device_id"),
        )

    def add_code(
        self,
        *,
        uid: int | str,
        client_id: str | None = None,
        asked: Iterable[str] = (),
        granted: Iterable[str] | None = None,
        challenge: str = "",
        challenge_method: str = "plain",
        device_id: str | None = None,
    ) -> str:
        """A confirmation code for the token of *uid*."""
        code = f"{7000000 + self.accounts.number('code')}"
        asked = tuple(asked)
        self.state.codes[code] = Code(
            str(uid),
            client_id or self.client_id,
            asked,
            asked if granted is None else tuple(granted),
            self.clock.now + CODE_LIFETIME,
            challenge,
            challenge_method,
            device_id,
        )
        return code

    def approve(
        self, user_code: str, *, uid: int | str, scopes: Iterable[str] | None = None
    ) -> None:
        """The user has entered *user_code*, and grants *scopes*, by default all."""
        device = self._device(user_code)
        device.answer, device.uid = "approved", str(uid)
        device.granted = device.asked if scopes is None else tuple(scopes)

    def deny(self, user_code: str) -> None:
        """The user does not want that."""
        self._device(user_code).answer = "denied"

    # The service.

    def authorize(self, request: FakeRequest) -> None:
        """Basic, or both in the form."""
        self._client(request)

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        code = refusal.code
        if code in ("unknown_parameter", "unsupported_media_type"):
            code = "invalid_request"
        body = {"error": code, "error_description": refusal.message}
        return Reply(refusal.status, json=body, headers=refusal.headers)

    @route(
        "POST", "/token", op="token.code", body="form", when={"grant_type": "authorization_code"}
    )
    def _by_code(self, request: FakeRequest) -> object:
        asked = _form(request, "code", optional=("code_verifier", "device_id", "device_name"))
        app = self._client(request)
        code = self.state.codes.get(asked["code"])
        if code is None or code.client_id != app.client_id:
            raise _refused("invalid_grant", "Code is not known")
        del self.state.codes[asked["code"]]  # for one exchange, even for one that fails
        if code.expires_at <= self.clock.now:
            raise _refused("invalid_grant", "Code has expired")
        if code.challenge and not _proves(code, asked.get("code_verifier", "")):
            raise _refused("invalid_grant", "code_verifier does not match")
        device_id = asked.get("device_id") or code.device_id
        return self._given(code.uid, app, code.granted, asked=code.asked, device_id=device_id)

    @route("POST", "/token", op="token.refresh", body="form", when={"grant_type": "refresh_token"})
    def _by_refresh(self, request: FakeRequest) -> object:
        asked = _form(request, "refresh_token")
        app = self._client(request)
        old = next(
            (
                token
                for token in self.accounts.tokens.values()
                if token.refresh_token == asked["refresh_token"]
                and token.client_id == app.client_id
            ),
            None,
        )
        if old is None or old.expires_at <= self.clock.now:
            raise _refused("invalid_grant", "refresh_token is not known")
        if self.state.refresh_keeps_token:
            old.expires_at = self.clock.now + YEAR
            return self._answer(old, asked=old.scopes)
        self.accounts.revoke(old.access_token)
        return self._given(old.uid, app, old.scopes, asked=old.scopes, device_id=old.device_id)

    @route("POST", "/token", op="token.device", body="form", when={"grant_type": "device_code"})
    def _by_device(self, request: FakeRequest) -> object:
        asked = _form(request, "code")
        app = self._client(request)
        device = self.state.devices.get(asked["code"])
        if device is None or device.client_id != app.client_id:
            raise _refused("invalid_grant", "device code is not known")
        if device.expires_at <= self.clock.now:
            raise _refused("expired_token", "device code has expired")
        before, device.polled_at = device.polled_at, self.clock.now
        if device.answer is None:
            if self.state.slow_down and before is not None and self.clock.now < before + INTERVAL:
                raise _refused("slow_down", "asked too often")
            raise _refused("authorization_pending", "User has not yet authorized the application")
        del self.state.devices[asked["code"]]
        if device.answer == "denied":
            raise _refused("access_denied", "User has denied it")
        return self._given(
            device.uid, app, device.granted, asked=device.asked, device_id=device.device_id
        )

    @route("POST", "/token", op="token.password", body="form", when={"grant_type": "password"})
    def _by_password(self, request: FakeRequest) -> object:
        asked = _form(request, "username", "password")
        app = self._client(request)
        user = self.accounts.user_by_login(asked["username"])
        if user is None or user.disabled or not user.password:
            raise _refused("invalid_grant", "login or password is not valid")
        if user.password != asked["password"]:
            raise _refused("invalid_grant", "login or password is not valid")
        return self._given(user.uid, app, sorted(app.scopes), asked=sorted(app.scopes))

    @route("POST", "/token", op="token.unknown", body="form")
    def _by_what(self, request: FakeRequest) -> object:
        if "grant_type" not in request.form:
            raise _refused("invalid_request", "grant_type not specified")
        raise _refused("unsupported_grant_type", "no such grant_type")

    @route("POST", "/device/code", op="device.codes", body="form", auth=False)
    def _device_codes(self, request: FakeRequest) -> object:
        asked = _form(
            request,
            "client_id",
            optional=("device_id", "device_name", "scope", "optional_scope", "client_secret"),
        )
        app = self._app(asked["client_id"])
        if app is None:
            raise _refused("invalid_client", "Client not found")
        _check_blocked(app)
        scopes = (*_split(asked.get("scope", "")), *_split(asked.get("optional_scope", "")))
        self._check_scopes(app, scopes)
        number = self.accounts.number("device")
        device_code, user_code = f"device-code-{number}", f"user{number:04}"
        self.state.devices[device_code] = Device(
            user_code,
            app.client_id,
            scopes,
            self.clock.now + CODE_LIFETIME,
            asked.get("device_id"),
        )
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_url": "https://ya.ru/device",
            "interval": INTERVAL,
            "expires_in": int(CODE_LIFETIME),
        }

    @route("POST", "/revoke_token", op="revoke", body="form")
    def _revoke(self, request: FakeRequest) -> object:
        asked = _form(request, "access_token")
        app = self._client(request)
        token = self.accounts.tokens.get(asked["access_token"])
        if token is None or token.client_id != app.client_id:
            raise _refused("invalid_grant", "the token is not of this application")
        self.accounts.revoke(token.access_token)
        return {"status": "ok"}

    # Inside.

    def _app(self, client_id: str) -> App | None:
        if client_id == self.client_id:
            # Not among the accounts from the start: as new, those of all three fakes are empty.
            self.accounts.apps.setdefault(
                client_id, App(client_id, self.client_secret, "Fake application")
            )
        return self.accounts.apps.get(client_id)

    def _client(self, request: FakeRequest) -> App:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        basic = scheme == "Basic"
        if basic:
            try:
                pair = b64decode(encoded, validate=True).decode()
            except ValueError:
                pair = ""
            client_id, _, secret = pair.partition(":")
        else:
            form = request.form
            client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        app = self._app(client_id)
        if app is None or app.client_secret != secret:
            raise Refusal(401 if basic else 400, "invalid_client", "Wrong client id or secret")
        _check_blocked(app)
        return app

    def _check_scopes(self, app: App, scopes: Iterable[str]) -> None:
        if app.client_id != self.client_id and not set(scopes) <= app.scopes:
            raise _refused("invalid_scope", "the application is not registered for that scope")

    def _device(self, user_code: str) -> Device:
        for device in self.state.devices.values():
            if device.user_code == user_code:
                return device
        raise KeyError(user_code)

    def _given(
        self,
        uid: str,
        app: App,
        scopes: Iterable[str],
        *,
        asked: Iterable[str],
        device_id: str | None = None,
    ) -> dict[str, Any]:
        tokens = self.accounts.tokens
        if device_id is not None:
            of_devices = [
                token.access_token
                for token in tokens.values()
                if (token.uid, token.client_id) == (uid, app.client_id) and token.device_id
            ]
            for oldest in of_devices[: max(0, len(of_devices) - DEVICES + 1)]:
                self.accounts.revoke(oldest)
        token = self.accounts.add_token(
            uid=uid,
            scopes=scopes,
            client_id=app.client_id,
            refresh_token=f"1:refresh-{self.accounts.number('refresh')}",
            device_id=device_id,
        )
        return self._answer(token, asked=asked)

    def _answer(self, token: OAuthToken, *, asked: Iterable[str]) -> dict[str, Any]:
        answer = {
            "token_type": "bearer",
            "access_token": token.access_token,
            "expires_in": int(token.expires_at - self.clock.now),
            "refresh_token": token.refresh_token,
        }
        if set(asked) != set(token.scopes):
            answer["scope"] = " ".join(token.scopes)
        return answer


def _refused(code: str, description: str) -> Refusal:
    return Refusal(400, code, description)


def _check_blocked(app: App) -> None:
    if app.blocked:
        raise _refused("unauthorized_client", "the application is blocked")


def _form(request: FakeRequest, *required: str, optional: Iterable[str] = ()) -> dict[str, str]:
    form = request.form
    for name in required:
        if not form.get(name):
            raise _refused("invalid_request", f"{name} not specified")
    known = {*required, *optional, "grant_type", "client_id", "client_secret"}
    unknown = sorted(form.keys() - known)
    if unknown:
        raise _refused("invalid_request", f"unknown parameter {unknown[0]}")
    return form


def _proves(code: Code, verifier: str) -> bool:
    """RFC 7636, 4.6."""
    if code.challenge_method == "S256":
        digest = sha256(verifier.encode()).digest()
        verifier = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return verifier == code.challenge


def _split(scopes: str) -> tuple[str, ...]:
    return tuple(scopes.split())
