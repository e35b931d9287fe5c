"""The client of Passport: a profile, a page, and who a request is from."""

import pickle
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sepelib.core.config import ConfigError
from sepelib.core.exceptions import LogicalError
from sepelib.yandex.auth import OAuthToken, TokenSource
from sepelib.yandex.blackbox import NotAuthenticated, Status
from sepelib.yandex.errors import ApiProtocolError, Unauthorized
from sepelib.yandex.passport import Identity, PassportClient, Profile
from sepelib.yandex.testing import (
    FakeBlackbox,
    FakePassport,
    YandexFakes,
    check_shape,
    sample,
)

pytestmark = pytest.mark.yandex(transport="both")

IP = "192.0.2.7"
INFO = sample("passport", "info").json
ALL_SCOPES = (
    *("login:email", "login:info", "login:birthday"),
    *("login:avatar", "login:default_phone"),
)


@pytest.fixture
def fake(fake_passport: FakePassport) -> FakePassport:
    accounts = fake_passport.accounts
    accounts.add_user("ann", uid=11, info=INFO)
    accounts.add_token("y0_all", uid=11, scopes=ALL_SCOPES, client_id="cid")
    accounts.add_token("y0_none", uid=11, scopes=(), client_id="cid")
    accounts.add_session("session-of-ann", uid=11, ssl_session_id="ssl-of-ann")
    return fake_passport


@pytest.fixture
def client(fake: FakePassport, yandex_fakes: YandexFakes) -> PassportClient:
    blackbox = yandex_fakes.client("blackbox")
    made = yandex_fakes.client("passport", blackbox=blackbox, sleep=lambda seconds: None)
    assert isinstance(made, PassportClient)
    return made


def test_a_profile_shows_what_the_scopes_of_the_token_allow(
    fake: FakePassport, client: PassportClient
) -> None:
    profile = client.user_info("y0_all")
    assert (profile.id, profile.login, profile.client_id) == ("11", "ann", "cid")
    assert (profile.default_email, profile.emails) == (INFO["default_email"], ("ann@example.test",))
    assert profile.default_phone is not None and profile.default_phone.id == 7
    assert profile.birthday == "0000-12-23"

    bare = client.user_info("y0_none")
    assert bare.login == "ann" and bare.psuid and bare.default_email is None
    assert bare.emails == () and bare.first_name is None and bare.birthday is None


def test_the_token_is_in_the_header_and_never_in_the_url(
    fake: FakePassport, client: PassportClient
) -> None:
    client.user_info("y0_all")
    call = fake.calls.of("info")[-1]
    assert call.query == {"format": "json"} and call.headers["Authorization"] == "OAuth y0_all"


def test_the_clients_own_token_is_used_when_none_is_given(
    fake: FakePassport, yandex_fakes: YandexFakes
) -> None:
    given = ["y0_dead"]
    source = TokenSource.call(lambda: given[0], invalidate=lambda: given.__setitem__(0, "y0_all"))
    client = yandex_fakes.client("passport", auth=OAuthToken(source))
    assert client.user_info().login == "ann"  # after the 401 with another one
    assert [call.status for call in fake.calls] == [401, 200]


def test_a_bad_token_is_unauthorized_though_the_answer_is_no_json(
    fake: FakePassport, client: PassportClient
) -> None:
    with pytest.raises(Unauthorized, match="expired_token") as refused:
        client.user_info("y0_unknown")
    assert "y0_unknown" not in repr(pickle.loads(pickle.dumps(refused.value)))
    fake.accounts.users["11"].disabled = True
    with pytest.raises(Unauthorized):
        client.user_info("y0_all")


def test_an_answer_that_is_no_object_is_none(fake: FakePassport, client: PassportClient) -> None:
    fake.faults.on("info", body="[]")
    with pytest.raises(ApiProtocolError):
        client.user_info("y0_all")


def test_published_profiles(fake: FakePassport, client: PassportClient) -> None:
    for name in ("info", "info_without_scopes"):
        fake.faults.play(sample("passport", name).reply)
        profile = client.user_info("y0_all")
        assert (profile.id, profile.psuid) == ("11", "1.AAA.bbb")
        assert profile.is_avatar_empty is (True if name == "info" else None)

    session = fake.session()
    headers = {"Authorization": "OAuth y0_all"}
    answer = session.get(f"{fake.url}/info?format=json", headers=headers, timeout=5)
    check_shape(answer.json(), INFO)


def test_the_fake_takes_a_token_in_the_header_only(fake: FakePassport) -> None:
    session: requests.Session = fake.session()
    answer = session.get(f"{fake.url}/info?oauth_token=y0_all", timeout=5)
    assert answer.status_code == 401 and answer.text == "expired_token"


def test_the_page_to_log_in_leads_back(client: PassportClient) -> None:
    back = "https://me.test/x?a=b&c=ы#d"
    url = client.login_url(back)
    assert url.startswith("https://passport.test/auth?retpath=https%3A%2F%2Fme.test")
    assert parse_qs(urlsplit(url).query) == {"retpath": [back]}
    with PassportClient() as plain:
        assert plain.login_url("x") == "https://passport.yandex.ru/auth?retpath=x"


# Who a request is from.


def test_a_token_is_somebody(fake: FakePassport, client: PassportClient) -> None:
    assert client.check_oauth("y0_all", IP, ["login:info"]) == Identity(
        login="ann",
        uid="11",
        scopes=frozenset(ALL_SCOPES),
        client_id="cid",
        source="oauth",
        need_reset=False,
    )
    with pytest.raises(NotAuthenticated, match="lacks the scope tool:write"):
        client.check_oauth("y0_all", IP, ["tool:write"])
    with pytest.raises(NotAuthenticated) as refused:
        client.check_oauth("y0_unknown", IP)
    assert refused.value.status is Status.INVALID


def test_cookies_are_somebody(
    fake: FakePassport, fake_blackbox: FakeBlackbox, client: PassportClient
) -> None:
    cookies = {"Session_id": "session-of-ann", "sessionid2": "ssl-of-ann", "other": "x"}
    me = client.check_session(cookies, IP, "www.yandex-team.ru")
    assert (me.login, me.source, me.client_id, me.scopes) == ("ann", "session", None, frozenset())
    asked = fake_blackbox.calls.of("sessionid")[-1].form
    assert asked["sslsessionid"] == "ssl-of-ann" and asked["host"] == "www.yandex-team.ru"
    assert asked["sessionid"] == "session-of-ann" and asked["userip"] == IP

    fake_blackbox.force_status("NEED_RESET")
    assert client.check_session(cookies, IP, "yandex-team.ru").need_reset
    fake_blackbox.force_status("EXPIRED")
    with pytest.raises(NotAuthenticated, match="expired"):
        client.check_session(cookies, IP, "yandex-team.ru")


@pytest.mark.parametrize("cookies", [{}, {"Session_id": ""}, {"sessionid2": "ssl-of-ann"}])
def test_without_the_cookie_nobody_is_asked(
    cookies: dict[str, str], fake_blackbox: FakeBlackbox, client: PassportClient
) -> None:
    with pytest.raises(NotAuthenticated, match="no cookie Session_id") as refused:
        client.check_session(cookies, IP, "yandex-team.ru")
    assert refused.value.status is Status.NOAUTH and len(fake_blackbox.calls) == 0


def test_without_blackbox_it_says_what_it_needs(passport_client: PassportClient) -> None:
    with pytest.raises(LogicalError, match="blackbox="):
        passport_client.check_oauth("y0_all", IP)
    with pytest.raises(LogicalError, match="blackbox="):
        passport_client.check_session({"Session_id": "x"}, IP, "yandex-team.ru")


def test_the_config_knows_the_page() -> None:
    section = {"passport_url": "https://passport.yandex-team.ru/"}
    with PassportClient.from_config(section) as client:
        assert client.login_url("x").startswith("https://passport.yandex-team.ru/auth?")
    with pytest.raises(ConfigError, match="unknown key retpath"):
        PassportClient.from_config({"retpath": "x"})


@pytest.mark.parametrize("raw", [{}, None, [], {"emails": "x", "default_phone": 5, "id": {}}])
def test_profiles_take_whatever_comes(raw: object) -> None:
    assert Profile.from_dict(raw).emails == ()
