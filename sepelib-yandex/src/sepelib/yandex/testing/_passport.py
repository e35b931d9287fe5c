"""A fake of the profiles of login.yandex.ru."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sepelib.util.testing import Clock

from ._accounts import Accounts, OAuthToken
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FIELDS", "FakePassport", "PassportState"]

FIELDS = {
    "login:email": ("default_email", "emails"),
    "login:info": ("first_name", "last_name", "display_name", "real_name", "sex"),
    "login:birthday": ("birthday",),
    "login:avatar": ("default_avatar_id", "is_avatar_empty"),
    "login:default_phone": ("default_phone",),
}
"""The fields that a scope shows. The names of the last three scopes are `inferred`."""


@dataclass
class PassportState:
    """Nothing: all is in the accounts."""


class FakePassport(FakeService[PassportState]):
    """The profiles, over `accounts`; a token of FakeOAuth is good here.

    passport = FakePassport()
    passport.accounts.add_user("ann", uid=11, info={"first_name": "Ann"})
    passport.accounts.add_token("t", uid=11, scopes=["login:info"])
    """

    service = "passport"

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

    def new_state(self) -> PassportState:
        return PassportState()

    def reset(self, *, clock: Clock | None = None) -> None:
        """As new; accounts that it shares stay as they are."""
        super().reset(clock=clock)
        if not self._shares_accounts:
            self.accounts.reset(clock=self.clock)

    def config(self) -> dict[str, Any]:
        """Without a token: each call has one of its own."""
        return {"url": self.url, "passport_url": "https://passport.test"}

    def authorize(self, request: FakeRequest) -> None:
        if self._token(request) is None:
            raise Refusal(401, "unauthorized", "expired_token")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        """Not JSON, a 401 neither."""
        return Reply(refusal.status, body=refusal.message, headers=refusal.headers)

    @route("GET", "/info", op="info", query=("format",))
    def _info(self, request: FakeRequest) -> object:
        token = self._token(request)
        if token is None:
            raise Refusal(401, "unauthorized", "expired_token")
        if request.query.get("format", "json") != "json":
            raise Refusal(400, "format", "this fake speaks JSON only")
        user = self.accounts.users[token.uid]
        profile = {
            "id": user.uid,
            "login": user.login,
            "client_id": token.client_id,
            "psuid": f"1.fake.{user.uid}",
        }
        shown = {name for scope in token.scopes for name in FIELDS.get(scope, ())}
        return profile | {name: value for name, value in user.info.items() if name in shown}

    def _token(self, request: FakeRequest) -> OAuthToken | None:
        token = self.accounts.tokens.get(request.token or "")
        if token is None or token.expires_at <= self.clock.now:
            return None
        user = self.accounts.users.get(token.uid)
        return None if user is None or user.disabled else token
