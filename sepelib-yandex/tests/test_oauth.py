"""The OAuth client: codes for tokens, once."""

import logging
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sepelib.core.config import ConfigError
from sepelib.core.exceptions import LogicalError
from sepelib.util.secrets import Secret
from sepelib.util.testing import Clock
from sepelib.yandex.auth import TokenSource
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiTimeout,
    DeadlineExceeded,
    ServerError,
    WaitTimeout,
    YandexError,
)
from sepelib.yandex.oauth import DeviceCodes, OAuthClient, OAuthError, Token
from sepelib.yandex.testing import FakeBlackbox, FakeOAuth, YandexFakes, sample

pytestmark = pytest.mark.yandex(transport="both")

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(fake_oauth: FakeOAuth) -> FakeOAuth:
    fake_oauth.add_user("ann", uid=11, password="pass-of-ann")
    return fake_oauth


@pytest.fixture
def make(yandex_fakes: YandexFakes, clock: Clock) -> Callable[..., OAuthClient]:
    def make(**options: Any) -> OAuthClient:
        given = {"clock": clock, "sleep": clock.sleep, "now": lambda: NOW, **options}
        client = yandex_fakes.client("oauth", **given)
        assert isinstance(client, OAuthClient)
        return client

    return make


@pytest.fixture
def client(fake: FakeOAuth, make: Callable[..., OAuthClient]) -> OAuthClient:
    return make()


# The page for the user.


def test_the_authorize_url_is_built_and_nothing_is_asked(fake: FakeOAuth) -> None:
    with OAuthClient("https://oauth.test", "cid", "secret") as client:
        assert client.verification_code_url == "https://oauth.test/verification_code"
        url = client.authorize_url(
            redirect_uri="https://me.test/back?a=b",
            scope=["a", "b"],
            optional_scope="c",
            state="x&y",
            login_hint="ann",
            device_id="device-1",
            device_name="My Pi",
            force_confirm=True,
            code_challenge="abc",
            code_challenge_method="S256",
        )
        assert urlsplit(url)._replace(query="").geturl() == "https://oauth.test/authorize"
        assert {name: value for name, [value] in parse_qs(urlsplit(url).query).items()} == {
            "response_type": "code",
            "client_id": "cid",
            "redirect_uri": "https://me.test/back?a=b",
            "scope": "a b",
            "optional_scope": "c",
            "state": "x&y",
            "login_hint": "ann",
            "device_id": "device-1",
            "device_name": "My Pi",
            "force_confirm": "yes",
            "code_challenge": "abc",
            "code_challenge_method": "S256",
        }
        plain = client.authorize_url("token")
        assert plain == "https://oauth.test/authorize?response_type=token&client_id=cid"


@pytest.mark.parametrize(
    ("device_id", "device_name"),
    [
        ("short", None),
        ("x" * 51, None),
        ("with\ttab", None),
        ("устройство", None),
        (None, "x" * 101),
    ],
)
def test_a_device_that_the_server_would_not_take_is_refused_here(
    device_id: str | None, device_name: str | None, fake: FakeOAuth, client: OAuthClient
) -> None:
    with pytest.raises(ValueError, match="device_"):
        client.authorize_url(device_id=device_id, device_name=device_name)
    with pytest.raises(ValueError, match="device_"):
        client.device_codes(device_id=device_id, device_name=device_name)
    assert len(fake.calls) == 0


# Codes for tokens.


def test_a_code_gives_a_token_for_one_year(fake: FakeOAuth, client: OAuthClient) -> None:
    code = fake.confirm(client.authorize_url(scope=["a", "b"]), uid=11)
    token = client.token_by_code(Secret(code))

    assert token.access_token.reveal() in fake.accounts.tokens
    assert token.refresh_token is not None
    assert token.expires_at == NOW + timedelta(days=365) and token.scope is None
    call = fake.calls.of("token.code")[-1]
    assert call.form == {"grant_type": "authorization_code", "code": code}
    assert call.headers["Authorization"].startswith("Basic ") and not call.query


def test_the_scope_is_told_when_the_user_has_granted_less(
    fake: FakeOAuth, client: OAuthClient
) -> None:
    url = client.authorize_url(scope=["a"], optional_scope=["b"])
    token = client.token_by_code(fake.confirm(url, uid=11, scopes=["a"]))
    assert token.scope == frozenset({"a"})


def test_a_code_is_for_one_exchange_and_for_ten_minutes(
    fake: FakeOAuth, client: OAuthClient
) -> None:
    code = fake.add_code(uid=11)
    client.token_by_code(code)
    with pytest.raises(OAuthError) as used:
        client.token_by_code(code)
    assert used.value.error == "invalid_grant" and used.value.status == 400

    late = fake.add_code(uid=11)
    fake.clock.advance(600)
    with pytest.raises(OAuthError, match="Code has expired") as expired:
        client.token_by_code(late)
    assert expired.value.description == "Code has expired" and expired.value.attempts == 1
    copy = pickle.loads(pickle.dumps(expired.value))
    assert (copy.error, str(copy)) == ("invalid_grant", str(expired.value))


def test_a_code_with_a_challenge_needs_its_verifier(fake: FakeOAuth, client: OAuthClient) -> None:
    # RFC 7636, appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    url = client.authorize_url(code_challenge=challenge, code_challenge_method="S256")
    client.token_by_code(fake.confirm(url, uid=11), code_verifier=verifier)
    with pytest.raises(OAuthError, match="code_verifier"):
        client.token_by_code(fake.confirm(url, uid=11), code_verifier="another")
    with pytest.raises(OAuthError, match="code_verifier"):
        client.token_by_code(fake.confirm(url, uid=11))


@pytest.mark.parametrize("keeps", [True, False])
def test_a_refresh_may_give_the_same_token(
    keeps: bool, fake: FakeOAuth, client: OAuthClient
) -> None:
    fake.state.refresh_keeps_token = keeps
    first = client.token_by_code(fake.add_code(uid=11))
    assert first.refresh_token is not None
    fake.clock.advance(86400)
    second = client.token_by_refresh(first.refresh_token)

    assert (second.access_token == first.access_token) is keeps
    assert second.expires_at == NOW + timedelta(days=365)
    assert list(fake.accounts.tokens) == [second.access_token.reveal()]
    with pytest.raises(OAuthError, match="invalid_grant"):
        client.token_by_refresh("1:of-nobody")


def test_the_password_grant_is_off_unless_it_is_asked_for(
    fake: FakeOAuth, client: OAuthClient, make: Callable[..., OAuthClient]
) -> None:
    with pytest.raises(LogicalError, match="allow_password_grant"):
        client.token_by_password("ann", "pass-of-ann")
    assert len(fake.calls) == 0

    allowed = make(allow_password_grant=True)
    assert allowed.token_by_password("ann", Secret("pass-of-ann")).access_token
    assert fake.calls[-1].form == {
        "grant_type": "password",
        "username": "ann",
        "password": "pass-of-ann",
    }
    with pytest.raises(OAuthError, match="invalid_grant"):
        allowed.token_by_password("ann", "wrong")


def test_a_revoked_token_is_dead_for_blackbox(
    fake: FakeOAuth, fake_blackbox: FakeBlackbox, client: OAuthClient, yandex_fakes: YandexFakes
) -> None:
    token = client.token_by_code(fake.add_code(uid=11))
    blackbox = yandex_fakes.client("blackbox")
    assert blackbox.oauth(token.access_token, "").login == "ann"

    client.revoke(token)

    assert blackbox.oauth(token.access_token, "").status == "invalid"
    assert fake.calls.of("revoke")[-1].form == {"access_token": token.access_token.reveal()}


def test_a_wrong_secret_is_an_invalid_client(
    fake: FakeOAuth, make: Callable[..., OAuthClient]
) -> None:
    with pytest.raises(OAuthError) as refused:
        make(client_secret="wrong-secret").token_by_code("1234567")
    assert (refused.value.error, refused.value.status) == ("invalid_client", 401)
    assert len(fake.calls) == 1


def test_a_secret_that_was_replaced_is_read_again(
    fake: FakeOAuth, make: Callable[..., OAuthClient]
) -> None:
    given = ["old-secret"]
    source = TokenSource.call(lambda: given[0], invalidate=lambda: given.__setitem__(0, "new"))
    fake.accounts.add_app("app", "new")
    client = make(client_id="app", client_secret=source)
    code = fake.add_code(uid=11, client_id="app")

    assert client.token_by_code(code).access_token
    assert [call.status for call in fake.calls] == [401, 200]


def test_published_answers(fake: FakeOAuth, client: OAuthClient) -> None:
    fake.faults.play(sample("oauth", "token").reply)
    token = client.token_by_code("1234567")
    assert token.access_token.reveal() == "y0_golden-access" and token.scope is None
    fake.faults.play(sample("oauth", "token_scope").reply)
    assert client.token_by_code("1234567").scope == frozenset({"login:info", "login:email"})
    fake.faults.play(sample("oauth", "expired_code").reply)
    with pytest.raises(OAuthError) as refused:
        client.token_by_code("1234567")
    assert (refused.value.error, refused.value.description) == ("invalid_grant", "Code has expired")
    fake.faults.play(sample("oauth", "pending").reply)
    assert client.poll_device("code-code") is None
    fake.faults.play(sample("oauth", "device_codes").reply)
    codes = client.device_codes()
    assert (codes.user_code, codes.interval, codes.expires_in) == ("abcdefgh", 5, 300)


# What is sent again, and what is not.


def exchanges(client: OAuthClient) -> list[Callable[[], object]]:
    return [
        lambda: client.token_by_code("1234567"),
        lambda: client.token_by_refresh("1:refresh"),
        lambda: client.token_by_password("ann", "pass-of-ann"),
        lambda: client.poll_device("device-code"),
        lambda: client.revoke("y0_token"),
    ]


def test_an_exchange_that_may_have_arrived_is_not_sent_again(
    fake: FakeOAuth, make: Callable[..., OAuthClient]
) -> None:
    client = make(allow_password_grant=True)
    for number, exchange in enumerate(exchanges(client), 1):
        fake.faults.next(reset="after-apply")
        with pytest.raises(ApiConnectionError) as lost:
            exchange()
        assert lost.value.maybe_applied and len(fake.calls) == number


def test_a_read_timeout_of_an_exchange_is_raised(
    fake: FakeOAuth, make: Callable[..., OAuthClient]
) -> None:
    client = make(timeout=(5.0, 0.05), clock=None)
    code = fake.add_code(uid=11)
    fake.faults.next(delay=0.5)
    with pytest.raises(ApiTimeout) as late:
        client.token_by_code(code)
    assert (late.value.phase, late.value.maybe_applied) == ("read", True)
    assert len(fake.calls) == 1


def test_a_500_of_an_exchange_is_raised_and_a_refusal_to_act_is_repeated(
    fake: FakeOAuth, client: OAuthClient
) -> None:
    code = fake.add_code(uid=11)
    fake.faults.next(status=500)
    with pytest.raises(ServerError) as broken:
        client.token_by_code(code)
    assert broken.value.maybe_applied
    fake.faults.next(status=429, headers={"Retry-After": "2"})
    fake.faults.next(status=503, headers={"Retry-After": "2"})
    assert client.token_by_code(code).access_token
    assert len(fake.calls) == 4


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        "{}",
        '{"access_token": 7}',
        '{"access_token": "", "refresh_token": "r-r-r-r"}',
    ],
)
def test_an_answer_without_a_token_is_not_shown_and_not_asked_for_again(
    body: str, fake: FakeOAuth, client: OAuthClient
) -> None:
    fake.faults.next(body=body)
    with pytest.raises(ApiProtocolError, match="without access_token") as broken:
        client.token_by_code(fake.add_code(uid=11))
    assert broken.value.maybe_applied and not broken.value.body and len(fake.calls) == 1


def test_an_answer_without_the_codes_of_a_device_is_told(
    fake: FakeOAuth, client: OAuthClient
) -> None:
    fake.faults.next(body="{}")
    with pytest.raises(ApiProtocolError, match="without device_code"):
        client.device_codes()


# A device without a browser.


def test_a_device_waits_until_its_user_has_entered_the_code(
    fake: FakeOAuth, make: Callable[..., OAuthClient], clock: Clock
) -> None:
    codes_and_polls: list[float] = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        fake.clock.advance(seconds)
        codes_and_polls.append(seconds)
        if len(codes_and_polls) == 3:
            fake.approve(codes.user_code, uid=11, scopes=["a"])

    client = make(sleep=sleep)
    codes = client.device_codes(device_id="device-1", device_name="Pi", scope=["a", "b"])
    assert client.poll_device(codes) is None
    token = client.wait_device(codes)

    assert token.scope == frozenset({"a"}) and codes_and_polls == [5.0, 5.0, 5.0]
    assert len(fake.calls.of("token.device")) == 4
    first = fake.calls.of("device.codes")[0]
    assert "Authorization" not in first.headers
    assert first.form == {
        "client_id": fake.client_id,
        "device_id": "device-1",
        "device_name": "Pi",
        "scope": "a b",
    }
    assert fake.accounts.tokens[token.access_token.reveal()].device_id == "device-1"


def test_slow_down_makes_each_wait_longer(
    fake: FakeOAuth, client: OAuthClient, clock: Clock
) -> None:
    codes = client.device_codes()
    fake.state.slow_down = True  # its clock stands still, so each question comes too early
    with pytest.raises(WaitTimeout) as late:
        client.wait_device(codes, timeout=60.0)
    assert clock.sleeps[:4] == [5.0, 5.0, 10.0, 15.0] and sum(clock.sleeps) == 60.0
    assert late.value.state == "slow_down" and late.value.timeout == 60.0


def test_a_wait_ends_with_the_life_of_the_codes(
    fake: FakeOAuth, client: OAuthClient, clock: Clock
) -> None:
    codes = client.device_codes()
    with pytest.raises(WaitTimeout, match="within 600 s, last state authorization_pending"):
        client.wait_device(codes)
    assert sum(clock.sleeps) == 600.0


def test_a_wait_ends_when_the_user_refuses_or_the_codes_are_over(
    fake: FakeOAuth, client: OAuthClient
) -> None:
    codes = client.device_codes()
    fake.deny(codes.user_code)
    with pytest.raises(OAuthError, match="access_denied"):
        client.wait_device(codes)

    codes = client.device_codes()
    fake.clock.advance(600)
    with pytest.raises(OAuthError, match="expired_token"):
        client.wait_device(codes)
    with pytest.raises(OAuthError, match="invalid_grant"):
        client.poll_device("device-code-of-nobody")


def test_a_wait_may_go_on_after_a_failure(fake: FakeOAuth, client: OAuthClient) -> None:
    codes = client.device_codes()
    fake.faults.next(reset="before-apply")
    with pytest.raises(ApiConnectionError):
        client.wait_device(codes)
    fake.approve(codes.user_code, uid=11)
    assert client.wait_device(codes).access_token


def test_a_poll_that_the_deadline_cuts_is_no_silent_end(
    fake: FakeOAuth, make: Callable[..., OAuthClient]
) -> None:
    client = make(clock=None, sleep=lambda seconds: None)
    codes = client.device_codes()
    fake.approve(codes.user_code, uid=11)
    fake.faults.next(delay=1.0)
    with pytest.raises(DeadlineExceeded) as cut:
        client.wait_device(codes, timeout=0.3)
    assert cut.value.maybe_applied  # the server has given the token to nobody


# Configuration and secrecy.


def test_the_config_has_the_application(fake: FakeOAuth, tmp_path: Any) -> None:
    file = tmp_path / "secret"
    file.write_text(fake.client_secret)
    section = {
        "url": fake.url,
        "client_id": fake.client_id,
        "client_secret_file": str(file),
        "allow_password_grant": True,
    }
    with OAuthClient.from_config(section, session=fake.session()) as client:
        assert client.token_by_password("ann", "pass-of-ann").access_token


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"client_secret_env": "X"}, "one of client_secret"),
        ({"client_secret": None}, "client_secret is not a text"),
        ({"client_id": None}, "client_id is missing"),
        ({"auth": {"type": "none"}}, "unknown key auth"),
        ({"scope": "a"}, "unknown key scope"),
        ({"allow_password_grant": "yes"}, "allow_password_grant is not bool"),
    ],
)
def test_a_config_that_does_not_fit_is_named(change: dict[str, object], words: str) -> None:
    section = {"url": "https://oauth.test", "client_id": "a", "client_secret": "b-secret", **change}
    with pytest.raises(ConfigError, match=words) as refused:
        OAuthClient.from_config(section)
    assert "b-secret" not in str(refused.value)


def test_a_client_is_of_an_application() -> None:
    with pytest.raises(ValueError, match="client_id, client_secret"):
        OAuthClient("https://oauth.test")
    with pytest.raises(ValueError, match="colon"):
        OAuthClient("https://oauth.test", "a:b", "secret")


def test_no_secret_is_shown(
    fake: FakeOAuth, make: Callable[..., OAuthClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make(allow_password_grant=True)
    token = client.token_by_code(fake.add_code(uid=11))
    codes = client.device_codes()
    shown: list[object] = [token, token.raw, codes, codes.raw["device_code"], client]
    asks: dict[str, Callable[[str], object]] = {
        "hidden-code": client.token_by_code,
        "hidden-verifier": lambda it: client.token_by_code("1234567", code_verifier=it),
        "1:hidden-refresh": client.token_by_refresh,
        "hidden-password": lambda it: client.token_by_password("ann", it),
        "hidden-device-code": client.poll_device,
        "y0_hidden-token": client.revoke,
    }
    for secret, ask in asks.items():
        words = f"why {secret} of {fake.client_secret}"
        for status in (400, 401, 429, 500, 200):
            for body in (f'{{"error": "{secret}", "error_description": "{words}"}}', words):
                fake.faults.on("*", status=status, body=body)
                if (status, secret) == (200, "y0_hidden-token"):
                    ask(secret)  # of a revocation nobody reads the answer
                else:
                    with pytest.raises(YandexError) as raised:
                        ask(secret)
                    error = raised.value
                    shown += [error, str(error), pickle.dumps(error), vars(error)]
                fake.faults.clear()

    everything = repr(shown) + caplog.text
    assert "TooManyRequests" in everything and "why ***" in everything
    for secret in (*asks, fake.client_secret, codes.user_code):
        assert secret not in everything
    fake.calls.assert_no_secret_in(everything)


@pytest.mark.parametrize("raw", [{}, None, [], {"expires_in": "x", "scope": 5, "interval": True}])
def test_results_take_whatever_comes(raw: object) -> None:
    assert Token.from_dict(raw).scope is None
    assert DeviceCodes.from_dict(raw).interval == 5.0
