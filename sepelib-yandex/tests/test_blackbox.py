"""The client of Blackbox against the fake, and against what is published of it."""

import logging
import pickle
from collections.abc import Callable, Set
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.secrets import Secret
from sepelib.util.testing import Clock
from sepelib.yandex.auth import TvmTicket
from sepelib.yandex.blackbox import (
    BlackboxAccessDenied,
    BlackboxClient,
    BlackboxError,
    BlackboxInvalidParams,
    BlackboxTemporaryError,
    BlackboxUnknownError,
    NotAuthenticated,
    Status,
    TicketCheck,
    TokenCheck,
    UserInfo,
)
from sepelib.yandex.errors import ApiConnectionError, ApiProtocolError, ServerError
from sepelib.yandex.testing import FakeBlackbox, FakeTvmTool, YandexFakes, sample
from sepelib.yandex.tvm import TvmClient

pytestmark = pytest.mark.yandex(transport="both")

IP = "192.0.2.7"
TOKEN = "y0_token-of-ann"
SESSION = "3:session-of-ann"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(fake_blackbox: FakeBlackbox) -> FakeBlackbox:
    ann = {"uid": 11, "password": "pass-of-ann", "dbfields": {"accounts.ena.uid": "1"}}
    fake_blackbox.add_user("Ann.Lee", **ann)
    fake_blackbox.add_token(TOKEN, uid=11, scopes=["tool:read", "tool:write"], client_id="cid")
    fake_blackbox.add_session(SESSION, uid=11, ssl_session_id="ssl-of-ann")
    return fake_blackbox


@pytest.fixture
def make(yandex_fakes: YandexFakes, clock: Clock) -> Callable[..., BlackboxClient]:
    """A client whose waits take no time."""

    def make(**options: Any) -> BlackboxClient:
        given = {"clock": clock, "sleep": clock.sleep, **options}
        client = yandex_fakes.client("blackbox", **given)
        assert isinstance(client, BlackboxClient)
        return client

    return make


@pytest.fixture
def client(fake: FakeBlackbox, make: Callable[..., BlackboxClient]) -> BlackboxClient:
    return make()


# What is asked and answered.


@pytest.mark.parametrize("answer_format", ["json", "xml", None])
def test_a_token_is_the_same_in_json_and_in_xml(
    answer_format: str | None, fake: FakeBlackbox, make: Callable[..., BlackboxClient]
) -> None:
    found = make(answer_format=answer_format).oauth(
        TOKEN, IP, dbfields=["accounts.ena.uid"], attributes=["1"], get_user_ticket=True
    )

    assert (found.status, found.is_valid, found.need_reset) == (Status.VALID, True, False)
    assert (found.uid, found.login, found.spelled_login) == ("11", "ann-lee", "Ann.Lee")
    assert found.scopes == {"tool:read", "tool:write"} and found.client_id == "cid"
    assert found.dbfields == {"accounts.ena.uid": "1"} and found.error == "OK"
    assert found.user_ticket is not None and found.user_ticket.reveal().startswith("3:user:")
    assert found.require() is found


@pytest.mark.parametrize("answer_format", ["json", "xml"])
def test_every_method_has_one_result_for_both_formats(
    answer_format: str, fake: FakeBlackbox, make: Callable[..., BlackboxClient]
) -> None:
    client = make(answer_format=answer_format)
    ticket = fake.accounts.add_user_ticket(11)
    fake.accounts.lcookies["lcookie-of-ann"] = "11"
    fake.state.ips.add(IP)

    session = client.sessionid(SESSION, IP, "www.yandex-team.ru", ssl_session_id="ssl-of-ann")
    assert (session.login, session.is_valid, session.scopes) == ("ann-lee", True, frozenset())
    owner = client.user_ticket(ticket)
    assert (owner.status, owner.uid, owner.login) == ("valid", "11", "ann-lee")
    assert [user.login for user in owner.users] == ["ann-lee"]
    login = client.login("ann.lee", "pass-of-ann", IP, dbfields=["accounts.ena.uid"])
    assert (login.is_valid, login.uid, login.karma) == (True, "11", "0")
    assert login.dbfields == {"accounts.ena.uid": "1"}
    assert client.userinfo(IP, uid=11, dbfields=["accounts.ena.uid"]).dbfields == login.dbfields
    assert client.userinfo(IP, login="ann.lee", sid="smtp").uid == "11"
    assert [user.uid for user in client.userinfos([11, 12], IP)] == ["11", None]
    assert client.userinfos([], IP) == ()
    assert client.checkip(IP) is True and client.checkip("192.0.2.8") is False
    assert client.lcookie("lcookie-of-ann").uid == "11"
    assert client.lcookie("of-nobody").uid is None
    assert client.call("oauth", oauth_token=Secret(TOKEN), userip=IP)["uid"] == "11"


def test_an_account_that_nobody_has_is_a_value_and_not_an_error(client: BlackboxClient) -> None:
    nobody = client.userinfo(IP, login="nobody")

    assert (nobody.exists, nobody.uid, nobody.login) == (False, None, None)
    assert client.userinfo(IP, uid=11).exists
    with pytest.raises(ValueError, match="a uid or of a login"):
        client.userinfo(IP)


def test_secrets_go_in_the_body_and_the_method_in_the_query(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    client.oauth(TOKEN, IP, get_user_ticket=True)
    client.sessionid(SESSION, IP, "yandex-team.ru", ssl_session_id="ssl-of-ann")
    client.user_ticket("3:user:a:b")
    client.lcookie("lcookie")
    client.login("ann.lee", "pass-of-ann", IP, sid="smtp", optimize=False)

    token, session, ticket, lcookie, login = fake.calls
    for call in (token, session, ticket, lcookie):
        assert call.method == "POST" and call.query == {"method": call.op}
        assert call.form["format"] == "json"
    assert token.form["oauth_token"] == TOKEN and token.form["userip"] == IP
    assert token.form["attributes"] == "1008" and token.form["get_user_ticket"] == "yes"
    assert session.form["sslsessionid"] == "ssl-of-ann" and session.form["attributes"] == "1008"
    assert ticket.form.keys() == {"user_ticket", "attributes", "format"}
    assert login.form == {"password": "pass-of-ann"}  # as published, without a format
    assert login.query == {
        **{"method": "login", "login": "ann.lee", "sid": "smtp"},
        **{"userip": IP, "optimize": "no"},
    }


@pytest.mark.parametrize("nothing", ["", None])
def test_a_caller_without_an_address_sends_that_of_localhost(
    nothing: str | None, fake: FakeBlackbox, client: BlackboxClient
) -> None:
    assert client.oauth(TOKEN, nothing).is_valid
    assert fake.calls.of("oauth")[-1].form["userip"] == "127.0.0.1"


def test_parameters_without_a_published_meaning_pass_untouched(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    client.userinfo(IP, uid=11, regname="yes", aliases="all", emails="getall")
    asked = fake.calls.of("userinfo")[-1].query
    assert (asked["regname"], asked["aliases"], asked["emails"]) == ("yes", "all", "getall")


# Statuses.


@pytest.mark.parametrize("status", list(Status))
def test_of_a_token_only_valid_is_accepted(
    status: Status, fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.force_status(status.upper(), TOKEN)
    found = client.oauth(TOKEN, IP)

    assert found.status is status
    assert found.is_valid is (status is Status.VALID) and not found.need_reset
    if not found.is_valid:
        with pytest.raises(NotAuthenticated) as refused:
            found.require()
        assert refused.value.status is status
        assert pickle.loads(pickle.dumps(refused.value)).status is status


@pytest.mark.parametrize("status", list(Status))
def test_of_a_session_one_to_be_signed_anew_is_accepted_too(
    status: Status, fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.force_status(status.upper())
    found = client.sessionid(SESSION, IP, "yandex-team.ru")

    assert found.status is status
    assert found.is_valid is (status in (Status.VALID, Status.NEED_RESET))
    assert found.need_reset is (status is Status.NEED_RESET)


def test_the_state_of_an_account_gives_the_status(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.add_user("bob", uid=12, disabled=True)
    fake.add_token("of-bob", uid=12)
    fake.add_token("short", uid=11, expires_in=60)
    fake.add_session("old", uid=11, old=True)
    fake.add_session("brief", uid=11, expires_in=60)
    fake.clock.advance(60)

    assert client.oauth("of-bob", IP).status is Status.DISABLED
    assert client.oauth("unknown", IP).status is Status.INVALID
    assert client.oauth("short", IP).status is Status.EXPIRED
    session = client.sessionid
    assert session("old", IP, "yandex-team.ru").status is Status.NEED_RESET
    assert session("brief", IP, "yandex-team.ru").status is Status.EXPIRED
    assert session(SESSION, IP, "example.test").status is Status.NOAUTH
    assert session(SESSION, IP, "notyandex-team.ru").status is Status.NOAUTH
    wrong = session(SESSION, IP, "yandex-team.ru", ssl_session_id="of-somebody")
    assert wrong.status is Status.INVALID
    assert client.login("ann.lee", "wrong", IP).status is Status.INVALID
    assert client.user_ticket("3:user:x:y").status is Status.INVALID


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"id": 0, "value": "VALID"}, Status.VALID),
        ({"id": "1"}, Status.NEED_RESET),
        ({"value": "DISABLED"}, Status.DISABLED),
        ("VALID", Status.VALID),
        ({"id": 6, "value": "VALID"}, Status.INVALID),
        ({"id": True, "value": "VALID"}, Status.INVALID),
        ("SOMETHING_NEW", Status.INVALID),
        ([], Status.INVALID),
    ],
)
def test_a_status_goes_by_its_id_and_an_unknown_one_is_not_valid(
    told: object, status: Status
) -> None:
    assert TokenCheck.from_dict({"status": told}).status is status


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ({"users": [{"login": "ann"}]}, Status.VALID),
        ({"users": [{"login": "ann"}], "error": "OK"}, Status.VALID),
        ({"users": [{"login": "ann"}], "error": "expired"}, Status.INVALID),
        ({"users": [], "error": "OK"}, Status.INVALID),
        ({"users": "ann"}, Status.INVALID),
        ({"status": "VALID"}, Status.INVALID),
        (None, Status.INVALID),
        ({"users": [{}]}, Status.INVALID),
        ({"users": [None, {"login": "ann"}]}, Status.INVALID),
        ({"users": [{"login": " ", "attributes": {"1008": ""}}]}, Status.INVALID),
        ({"users": [{"attributes": {"1008": "ann"}}]}, Status.VALID),
        ({"users": [{"uid": {"value": 7}}]}, Status.VALID),
    ],
)
def test_a_user_ticket_is_valid_with_users_and_without_an_error(
    raw: object, status: Status
) -> None:
    assert TicketCheck.from_dict(raw).status is status


# Scopes are compared here.


def test_a_valid_token_without_the_wanted_scope_is_not_valid(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    found = client.oauth(TOKEN, IP, scopes=["tool:read", "tool:admin"])

    assert found.status is Status.VALID and not found.is_valid
    assert found.missing_scopes == {"tool:admin"}
    with pytest.raises(NotAuthenticated, match="lacks the scope tool:admin"):
        found.require()
    assert client.oauth(TOKEN, IP, scopes="tool:write").is_valid
    assert all("scope" not in "".join(call.form) for call in fake.calls)


def test_a_scope_is_a_whole_word(client: BlackboxClient) -> None:
    assert not client.oauth(TOKEN, IP, scopes=["tool"]).is_valid


# Errors inside of a 200.


@pytest.mark.parametrize("answer_format", ["json", "xml"])
@pytest.mark.parametrize(
    ("id", "kind", "name"),
    [
        (1, BlackboxUnknownError, "UNKNOWN"),
        (2, BlackboxInvalidParams, "INVALID_PARAMS"),
        (21, BlackboxAccessDenied, "ACCESS_DENIED"),
        (77, BlackboxUnknownError, "UNKNOWN"),
    ],
)
def test_a_definite_exception_is_raised_at_once(
    id: int,
    kind: type[BlackboxError],
    name: str,
    answer_format: str,
    fake: FakeBlackbox,
    make: Callable[..., BlackboxClient],
) -> None:
    fake.fail(id, "some words")
    with pytest.raises(kind) as raised:
        make(answer_format=answer_format).oauth(TOKEN, IP)

    error = raised.value
    assert type(error) is kind and (error.id, error.value) == (id, name)
    assert error.error == "BlackBox error: some words" and error.attempts == 1
    assert f"exception {id} {name}: BlackBox error: some words" in str(error)
    assert len(fake.calls) == 1
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.id, str(copy)) == (kind, id, str(error))


@pytest.mark.parametrize("id", [9, 10])
def test_a_temporary_exception_is_tried_again_until_the_time_is_over(
    id: int, fake: FakeBlackbox, client: BlackboxClient, clock: Clock
) -> None:
    fake.fail(id, times=2)
    assert client.oauth(TOKEN, IP).is_valid and len(fake.calls) == 3

    fake.fail(id, times=10_000)
    started = clock.now
    with pytest.raises(BlackboxTemporaryError) as raised:
        client.oauth(TOKEN, IP)
    assert raised.value.id == id and raised.value.attempts > 10
    assert clock.now - started <= 15.0


def test_whatever_happens_on_the_way_is_tried_again(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.faults.next(status=500)
    fake.faults.next(status=404)
    fake.faults.next(status=200, body=b"")
    fake.faults.next(status=200, body=b"\x00garbage {")
    fake.faults.next(reset="before-apply")
    fake.fail(9)
    fake.fail(10)

    assert client.oauth(TOKEN, IP).login == "ann-lee"
    assert len(fake.calls) == 8 and fake.calls[-1].attempt == 8


def test_every_method_may_be_repeated(fake: FakeBlackbox, client: BlackboxClient) -> None:
    asks: list[Callable[[], object]] = [
        lambda: client.sessionid(SESSION, IP, "yandex-team.ru"),
        lambda: client.user_ticket("3:user:x:y"),
        lambda: client.login("ann.lee", "pass-of-ann", IP),
        lambda: client.userinfo(IP, uid=11),
        lambda: client.checkip(IP),
        lambda: client.lcookie("l"),
        lambda: client.call("oauth", oauth_token=TOKEN, userip=IP),
    ]
    for ask in asks:
        before = len(fake.calls)
        fake.faults.next(reset="after-apply")
        ask()
        assert len(fake.calls) == before + 2


@pytest.mark.parametrize(
    "body", ["[]", "7", '{"status": null}', "<doc/>", "<html><p>Hi</p></html>", '{"error": "x"}']
)
def test_an_answer_that_tells_nothing_is_no_verdict(
    body: str, fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.faults.on("oauth", body=body)
    with pytest.raises(ApiProtocolError):
        client.oauth(TOKEN, IP)


def test_an_error_of_the_way_is_raised_as_itself_in_the_end(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.faults.on("*", status=503)
    with pytest.raises(ServerError):
        client.oauth(TOKEN, IP)
    fake.down = True
    with pytest.raises(ApiConnectionError):
        client.oauth(TOKEN, IP)


def test_each_attempt_takes_the_next_host(yandex_fakes: YandexFakes, clock: Clock) -> None:
    fake = yandex_fakes["blackbox"]
    assert isinstance(fake, FakeBlackbox)
    fake.fail(10)
    session = fake.session()
    session.mount("http://second.test", fake.adapter())
    with BlackboxClient(
        [fake.url, "http://second.test/blackbox"],
        session=session,
        clock=clock,
        sleep=clock.sleep,
    ) as client:
        assert client.oauth("x", IP).status is Status.INVALID
    assert len(fake.calls) == 2 and [call.attempt for call in fake.calls] == [1, 2]


# Golden samples.


def _played(fake: FakeBlackbox, name: str) -> None:
    fake.faults.play(sample("blackbox", name).reply)


def test_published_answers_to_a_token(fake: FakeBlackbox, client: BlackboxClient) -> None:
    _played(fake, "oauth")
    found = client.oauth(TOKEN, IP)
    assert (found.uid, found.login, found.client_name) == ("11", "ann-lee", "tool")
    assert found.scopes == {"tool:read", "tool:write"}
    assert found.raw["oauth"]["client_id"] == "cid"

    _played(fake, "exception_ok")
    assert client.oauth(TOKEN, IP).is_valid

    _played(fake, "rejection")
    rejected = client.oauth(TOKEN, IP)
    assert (rejected.status, rejected.error) == (Status.EXPIRED, "the token is over")

    _played(fake, "exception")
    assert client.oauth(TOKEN, IP).is_valid  # at the second attempt


def test_published_answers_to_a_session_and_to_a_user_ticket(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    _played(fake, "sessionid")
    found = client.sessionid(SESSION, IP, "yandex-team.ru")
    assert found.need_reset and found.login == "ann-lee" and found.uid is None

    _played(fake, "user_ticket")
    owner = client.user_ticket("3:user:a:b").require()
    assert (owner.login, owner.spelled_login) == ("the_user", "TheUser")

    _played(fake, "user_ticket_error")
    rejected = client.user_ticket("3:user:a:b")
    assert (rejected.status, rejected.error) == (Status.INVALID, "the ticket is broken")


def test_published_answers_in_xml(fake: FakeBlackbox, client: BlackboxClient) -> None:
    _played(fake, "login_xml")
    found = client.login("ann", "pass-of-ann", IP)
    assert found.is_valid and found.uid == "11" and found.karma == "85"
    assert found.karma_confirmed is True
    assert found.karma_allow_until == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.dbfields["account_info.reg_date.uid"] == "2010-01-02 03:04:05"

    _played(fake, "userinfo_xml")
    assert client.userinfo(IP, login="ann").dbfields["subscription.suid.-"] == "77"
    _played(fake, "userinfo_unknown_xml")
    assert not client.userinfo(IP, login="ann").exists
    _played(fake, "exception_xml")
    with pytest.raises(BlackboxInvalidParams, match="no userip"):
        client.userinfo(IP, login="ann")


@pytest.mark.parametrize("uid", [11, "11", {"value": "11"}, {"value": 11, "hosted": False}])
def test_a_uid_is_a_scalar_or_an_object_with_a_value(uid: object) -> None:
    assert TokenCheck.from_dict({"uid": uid}).uid == "11"


@pytest.mark.parametrize("raw", [{}, None, [], "text", {"uid": [], "attributes": 7, "oauth": 1}])
def test_results_take_whatever_comes(raw: object) -> None:
    found = TokenCheck.from_dict(raw)
    assert (found.status, found.uid, found.login) == (Status.INVALID, None, None)
    assert found.scopes == frozenset() and not found.is_valid
    assert not UserInfo.from_dict(raw).exists


# A verdict for an authenticator: the shapes that sepelib.flask has.


class Verdict(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def uid(self) -> str | None: ...
    @property
    def login(self) -> str | None: ...
    @property
    def scopes(self) -> Set[str]: ...
    @property
    def expires_at(self) -> datetime | None: ...


class Blackbox(Protocol):
    def check_token(self, token: str, user_ip: str) -> Verdict: ...
    def check_session(
        self, session_id: str, user_ip: str, host: str, *, ssl_session_id: str | None = None
    ) -> Verdict: ...


def test_the_client_is_what_an_authenticator_takes(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    blackbox: Blackbox = client  # held by mypy
    verdict = blackbox.check_token(TOKEN, IP)
    assert (verdict.status, verdict.uid, verdict.login) == ("valid", "11", "ann-lee")
    assert verdict.scopes == {"tool:read", "tool:write"} and verdict.expires_at is None
    session = blackbox.check_session(SESSION, IP, "yandex-team.ru", ssl_session_id="ssl-of-ann")
    assert (session.status, session.login) == ("valid", "ann-lee")
    assert blackbox.check_token("unknown", IP).status == "invalid"


def test_a_token_to_be_reset_is_no_verdict_that_somebody_accepts(
    fake: FakeBlackbox, client: BlackboxClient
) -> None:
    fake.force_status("NEED_RESET")
    assert client.check_token(TOKEN, IP).status == "invalid"
    assert client.check_session(SESSION, IP, "yandex-team.ru").status == "need_reset"


# Who we are.


def test_a_service_ticket_opens_it(
    fake: FakeBlackbox,
    fake_tvm: FakeTvmTool,
    tvm_client: TvmClient,
    make: Callable[..., BlackboxClient],
) -> None:
    fake_tvm.add_destination("blackbox", 222)
    fake.require_tickets(fake_tvm.ticket("blackbox"))
    with pytest.raises(BlackboxAccessDenied):
        make().oauth(TOKEN, IP)

    client = make(auth=TvmTicket(tvm_client, "blackbox"))
    assert client.oauth(TOKEN, IP).is_valid and client.oauth(TOKEN, IP).is_valid
    assert len(fake_tvm.calls) == 1


def test_the_config_says_the_format(fake: FakeBlackbox) -> None:
    section = {**fake.config(), "answer_format": "xml"}
    with BlackboxClient.from_config(section, session=fake.session()) as client:
        client.oauth(TOKEN, IP)
    assert "format" not in fake.calls[-1].form
    with pytest.raises(ConfigError, match=r"blackbox: .* json or xml"):
        BlackboxClient.from_config({**fake.config(), "answer_format": "yaml"})


# Secrecy.


def test_no_secret_is_shown_even_when_blackbox_repeats_it(
    fake: FakeBlackbox, client: BlackboxClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.fail(2, f"bad token {TOKEN}")
    with pytest.raises(BlackboxInvalidParams) as raised:
        client.oauth(TOKEN, IP)
    fake.faults.next(json={"status": {"id": 5}, "error": f"unknown {TOKEN}"})
    rejected = client.oauth(TOKEN, IP)
    found = client.oauth(TOKEN, IP, get_user_ticket=True)
    fake.faults.next(json={"status": {"id": 5}, "error": "of pass-of-ann"})
    login = client.login("ann.lee", "pass-of-ann", IP)
    assert found.user_ticket is not None

    shown = f"{raised.value!r} {raised.value} {rejected} {rejected.error} {found} {found.raw}"
    shown += f"{login} {pickle.dumps(raised.value)!r} {caplog.text} {client!r}"
    for secret in (TOKEN, found.user_ticket.reveal(), "pass-of-ann", IP):
        assert secret not in shown
