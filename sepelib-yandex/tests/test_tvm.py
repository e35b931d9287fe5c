"""The client of tvmtool: a ticket is kept, renewed in time, and outlives the daemon."""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.deadline import deadline
from sepelib.util.secrets import Secret
from sepelib.util.testing import Clock
from sepelib.yandex.auth import TicketProvider, TokenSource, TvmTicket, auth_from_config
from sepelib.yandex.base import ApiClient
from sepelib.yandex.errors import (
    ApiProtocolError,
    BadRequest,
    CredentialsUnavailable,
    DeadlineExceeded,
    ServerError,
    Unauthorized,
)
from sepelib.yandex.testing import FakeTvmTool, YandexFakes, check_shape, sample
from sepelib.yandex.tvm import Health, ServiceTicketCheck, Ticket, TvmClient, UserTicketCheck

pytestmark = pytest.mark.yandex(transport="both")

MINUTE = 60.0
HOUR = 3600.0
LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(fake_tvm: FakeTvmTool) -> FakeTvmTool:
    fake_tvm.add_destination("blackbox", 222)
    fake_tvm.add_destination("staff", 333)
    return fake_tvm


@pytest.fixture
def make(yandex_fakes: YandexFakes, clock: Clock) -> Callable[..., TvmClient]:
    def make(**options: Any) -> TvmClient:
        client = yandex_fakes.client("tvm", **{"clock": clock, "sleep": clock.sleep, **options})
        assert isinstance(client, TvmClient)
        return client

    return make


@pytest.fixture
def client(fake: FakeTvmTool, make: Callable[..., TvmClient]) -> TvmClient:
    return make()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# What tvmtool is asked.


def test_tickets_of_several_services_come_in_one_answer(
    fake: FakeTvmTool, client: TvmClient
) -> None:
    found = client.tickets(["blackbox", "staff"], src="me")
    assert {name: ticket.tvm_id for name, ticket in found.items()} == {
        "blackbox": 222,
        "staff": 333,
    }
    ticket = found["blackbox"].ticket
    assert ticket is not None and ticket.reveal() == fake.ticket("blackbox")
    assert re.fullmatch(r"3:serv:[A-Za-z0-9_\-]+:[A-Za-z0-9_\-]+", ticket.reveal())
    call = fake.calls.of("tickets")[-1]
    assert call.query == {"dsts": "blackbox,staff", "src": "me"}
    assert call.headers["Authorization"] == fake.token  # without a scheme


def test_a_service_ticket_is_checked_for_us(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.add_service_ticket("3:serv:from-1:sign", src=1)
    fake.add_service_ticket("3:serv:for-another:sign", src=1, dst="another")

    good = client.checksrv("3:serv:from-1:sign")
    assert (good.is_valid, good.src) == (True, 1)
    wrong = client.checksrv(Secret("3:serv:for-another:sign"))
    assert (wrong.is_valid, wrong.error) == (False, "wrong dst")
    assert client.checksrv("3:serv:for-another:sign", dst="another").is_valid
    assert not client.checksrv("3:serv:unknown:x").is_valid
    call = fake.calls.of("checksrv")[0]
    assert call.query == {"dst": "self"}
    assert call.headers["X-Ya-Service-Ticket"] == "3:serv:from-1:sign"


def test_a_user_ticket_is_checked(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.add_user_ticket("3:user:of-ann:sign", 11, 12)

    good = client.checkusr("3:user:of-ann:sign", override_env="prod_yateam")
    assert (good.is_valid, good.default_uid, good.uids) == (True, 11, (11, 12))
    assert good.scopes == ("bb:sessionid",)
    bad = client.checkusr("3:user:unknown:sign")
    assert (bad.is_valid, bad.error, bad.uids) == (False, "invalid ticket", ())
    call = fake.calls.of("checkusr")[0]
    assert call.query == {"override_env": "prod_yateam"}


def test_an_answer_can_not_say_by_itself_that_a_ticket_is_valid(
    fake: FakeTvmTool, client: TvmClient
) -> None:
    fake.faults.next(status=403, json={"is_valid": True, "src": 1})
    assert not client.checksrv("3:serv:a:b").is_valid


@pytest.mark.parametrize("health", ["ok", "warning", "error"])
def test_a_ping_tells_how_it_is(health: str, fake: FakeTvmTool, client: TvmClient) -> None:
    fake.state.health = health
    assert client.ping() is Health(health) and len(fake.calls) == 1


def test_statuses_are_what_is_published_of_them(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.tokens = {"another"}
    with pytest.raises(Unauthorized, match="Invalid authentication token"):
        client.tickets(["blackbox"])
    fake.tokens = {fake.token}
    with pytest.raises(BadRequest, match="no destination nobody"):
        client.tickets(["nobody"])
    before = len(fake.calls)
    fake.faults.next(status=500)
    assert client.tickets(["blackbox"]) and len(fake.calls) == before + 2
    fake.faults.on("*", status=500)
    with pytest.raises(ServerError):
        client.checksrv("3:serv:a:b")
    fake.faults.clear()
    fake.faults.on("*", status=302, headers={"Location": "http://127.0.0.1:9/"})
    with pytest.raises(Exception, match="status 302"):  # not followed
        client.tickets(["blackbox"])


def test_an_answer_that_is_no_object_is_none(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.faults.on("*", body="[]")
    with pytest.raises(ApiProtocolError):
        client.tickets(["blackbox"])
    with pytest.raises(ApiProtocolError):
        client.checkusr("3:user:a:b")


def test_published_answers(fake: FakeTvmTool, client: TvmClient) -> None:
    def played(name: str) -> None:
        fake.faults.play(sample("tvm", name).reply)

    played("tickets")
    assert client.service_ticket("blackbox").reveal() == "3:serv:Z29sZGVu:c2lnbg"
    played("checksrv")
    assert client.checksrv("3:serv:a:b").src == 1
    played("checksrv_refused")
    assert not client.checksrv("3:serv:a:b").is_valid
    played("checkusr")
    assert client.checkusr("3:user:a:b").uids == (11, 12)
    played("bad_token")
    played("bad_token")
    with pytest.raises(Unauthorized):
        client.tickets(["blackbox"])


def test_the_fake_answers_in_the_published_shapes(fake: FakeTvmTool) -> None:
    fake.add_service_ticket("3:serv:a:b", src=1)
    fake.add_user_ticket("3:user:a:b", 11)
    session = fake.session()
    session.headers["Authorization"] = fake.token
    get = session.get
    tickets = get(f"{fake.url}/tvm/tickets?dsts=blackbox", timeout=5)
    check_shape(tickets.json(), sample("tvm", "tickets").json)
    headers = {"X-Ya-Service-Ticket": "3:serv:a:b", "X-Ya-User-Ticket": "3:user:a:b"}
    good = get(f"{fake.url}/tvm/checksrv?dst=self", headers=headers, timeout=5)
    check_shape(good.json(), sample("tvm", "checksrv").json)
    bad = get(f"{fake.url}/tvm/checksrv?dst=other", headers=headers, timeout=5)
    assert bad.status_code == 403
    check_shape(bad.json(), sample("tvm", "checksrv_refused").json)
    user = get(f"{fake.url}/tvm/checkusr", headers=headers, timeout=5)
    check_shape(user.json(), sample("tvm", "checkusr").json)
    for path in ("/tvm/tickets", "/tvm/checksrv?dst=self", "/tvm/checkusr"):
        refused = get(f"{fake.url}{path}", timeout=5)
        assert refused.status_code == 400 and refused.headers["Content-Type"].startswith("text/")
    del session.headers["Authorization"]
    assert get(f"{fake.url}/tvm/tickets?dsts=blackbox", timeout=5).status_code == 401


# The life of a ticket.


def test_a_ticket_is_asked_for_once(fake: FakeTvmTool, client: TvmClient, clock: Clock) -> None:
    first = client.service_ticket("blackbox")
    clock.advance(8 * MINUTE - 1)
    assert client.service_ticket("blackbox") is first and len(fake.calls) == 1
    assert client.service_ticket("staff") != first and len(fake.calls) == 2


def test_after_eight_minutes_it_is_renewed_and_nobody_waits(
    fake: FakeTvmTool, client: TvmClient, clock: Clock
) -> None:
    first = client.service_ticket("blackbox")
    fake.rotate()
    clock.advance(8 * MINUTE)
    fake.faults.next(delay=0.2)

    assert client.service_ticket("blackbox") is first  # by the old one
    wait_until(lambda: client.service_ticket("blackbox") != first)

    assert client.service_ticket("blackbox").reveal() == fake.ticket("blackbox")
    assert len(fake.calls) == 2  # however many have asked meanwhile
    client.close()
    assert not any(thread.name == "tvm-refresh" for thread in threading.enumerate())


def test_closing_waits_for_a_renewal_under_way(
    fake: FakeTvmTool, client: TvmClient, clock: Clock
) -> None:
    client.service_ticket("blackbox")
    clock.advance(8 * MINUTE)
    fake.faults.next(delay=0.2)
    client.service_ticket("blackbox")
    wait_until(lambda: len(fake.calls) == 2)
    client.close()
    assert not any(thread.name == "tvm-refresh" for thread in threading.enumerate())


def test_after_ten_minutes_it_is_waited_for(
    fake: FakeTvmTool, client: TvmClient, clock: Clock
) -> None:
    client.service_ticket("blackbox")
    fake.rotate()
    clock.advance(10 * MINUTE)
    assert client.service_ticket("blackbox").reveal() == fake.ticket("blackbox")


def test_when_tvmtool_fails_the_old_ticket_is_used_for_eleven_hours(
    fake: FakeTvmTool, client: TvmClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = client.service_ticket("blackbox")
    fake.down = True
    clock.advance(9 * MINUTE)
    assert client.service_ticket("blackbox") is first
    wait_until(lambda: "the last one is used" in caplog.text)
    clock.advance(2 * MINUTE)
    assert client.service_ticket("blackbox") is first
    clock.advance(11 * HOUR - 11 * MINUTE - 1)
    assert client.service_ticket("blackbox") is first
    assert "WARNING" in caplog.text and "no service ticket for blackbox" in caplog.text
    clock.advance(1)
    with pytest.raises(CredentialsUnavailable, match="no service ticket for blackbox"):
        client.service_ticket("blackbox")

    fake.down = False
    fake.rotate()
    clock.advance(10)
    assert client.service_ticket("blackbox").reveal() == fake.ticket("blackbox")


def test_a_tvmtool_that_has_failed_is_left_alone_for_a_while(
    fake: FakeTvmTool, client: TvmClient, clock: Clock
) -> None:
    first = client.service_ticket("blackbox")
    fake.faults.on("*", status=400)
    clock.advance(10 * MINUTE)
    for _ in range(5):
        assert client.service_ticket("blackbox") is first
    assert len(fake.calls) == 2
    clock.advance(10)
    assert client.service_ticket("blackbox") is first
    assert len(fake.calls) == 3


def test_a_renewal_that_fails_is_not_tried_by_each_call(
    fake: FakeTvmTool, client: TvmClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = client.service_ticket("blackbox")
    fake.faults.on("*", status=400)
    clock.advance(8 * MINUTE)
    client.service_ticket("blackbox")
    wait_until(lambda: "the last one is used" in caplog.text)
    for _ in range(5):
        assert client.service_ticket("blackbox") is first
    client.close()
    assert len(fake.calls) == 2


def test_without_any_ticket_each_call_asks(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.faults.next(status=400)
    with pytest.raises(CredentialsUnavailable) as failed:
        client.service_ticket("blackbox")
    assert not failed.value.maybe_applied
    assert client.service_ticket("blackbox")


def test_an_error_for_one_service_is_none_for_another(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.add_destination("blackbox", 222, error="no such dst in the grants")
    with pytest.raises(CredentialsUnavailable, match="no such dst in the grants"):
        client.service_ticket("blackbox")
    assert client.service_ticket("staff")


@pytest.mark.parametrize(
    "answer", [{}, {"blackbox": None}, {"blackbox": {"ticket": ""}}, {"blackbox": []}]
)
def test_an_answer_without_the_ticket_is_told(
    answer: object, fake: FakeTvmTool, client: TvmClient
) -> None:
    fake.faults.on("*", json=answer)
    with pytest.raises(CredentialsUnavailable, match="tvmtool gives none"):
        client.service_ticket("blackbox")


def test_many_who_ask_at_once_share_one_request(
    fake: FakeTvmTool, make: Callable[..., TvmClient]
) -> None:
    client = make(clock=None, sleep=None, timeout=LIMIT, total_timeout=LIMIT)
    fake.faults.next(delay=0.2)
    found: list[Secret[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(client.service_ticket("blackbox")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(found) == 20 and len(set(found)) == 1 and len(fake.calls) == 1


def test_who_has_no_time_left_does_not_wait_for_the_others_ticket(
    fake: FakeTvmTool, make: Callable[..., TvmClient]
) -> None:
    client = make(clock=None, sleep=None, timeout=LIMIT, total_timeout=LIMIT)
    fake.faults.next(delay=0.5)
    first = threading.Thread(target=client.service_ticket, args=("blackbox",))
    first.start()
    wait_until(lambda: len(fake.calls) == 1)
    with pytest.raises(DeadlineExceeded, match="waiting for a service ticket"), deadline(0.05):
        client.service_ticket("blackbox")
    first.join(LIMIT)
    assert len(fake.calls) == 1


def test_it_takes_half_a_second_at_most(fake: FakeTvmTool, make: Callable[..., TvmClient]) -> None:
    client = make(clock=None, sleep=None)
    fake.faults.on("*", delay=5.0)
    started = time.monotonic()
    with pytest.raises(CredentialsUnavailable):
        client.service_ticket("blackbox")
    assert time.monotonic() - started < 3.0
    fake.faults.clear()


# In the requests of others.


class Echo(ApiClient):
    service = "echo"
    PATHS = {"ping": "/tvm/ping"}


def test_a_refused_ticket_is_asked_for_anew_and_the_request_repeated(
    fake: FakeTvmTool, client: TvmClient
) -> None:
    provider: TicketProvider = client  # held by mypy
    with Echo(fake.url, TvmTicket(provider, "blackbox"), session=fake.session()) as echo:
        echo.request("ping", "GET", decode=False)
        old = fake.ticket("blackbox")
        fake.rotate()
        fake.faults.next("ping", status=401)
        echo.request("ping", "GET", decode=False)

    sent = [call.headers["X-Ya-Service-Ticket"] for call in fake.calls.of("ping")]
    assert sent == [old, old, fake.ticket("blackbox")]
    assert len(fake.calls.of("tickets")) == 2


def test_a_refused_ticket_is_better_than_none(fake: FakeTvmTool, client: TvmClient) -> None:
    first = client.service_ticket("blackbox")
    fake.down = True
    client.forget("blackbox")
    assert client.service_ticket("blackbox") is first


def test_without_a_ticket_nothing_is_sent(fake: FakeTvmTool, client: TvmClient) -> None:
    fake.faults.on("tickets", status=400)
    with (
        Echo(fake.url, TvmTicket(client, "blackbox"), session=fake.session()) as echo,
        pytest.raises(CredentialsUnavailable) as failed,
    ):
        echo.request("ping", "GET", decode=False)
    assert failed.value.service == "echo" and fake.calls.of("ping") == []


# Configuration and secrecy.


def test_the_environment_says_where_tvmtool_is(
    fake: FakeTvmTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEPLOY_TVM_TOOL_URL", raising=False)
    with pytest.raises(ValueError, match="DEPLOY_TVM_TOOL_URL"):
        TvmClient()
    with pytest.raises(ConfigError, match="DEPLOY_TVM_TOOL_URL"):
        TvmClient.from_config({})
    monkeypatch.setenv("DEPLOY_TVM_TOOL_URL", fake.url)
    monkeypatch.setenv("TVMTOOL_LOCAL_AUTHTOKEN", fake.token)
    with TvmClient(session=fake.session()) as client:
        assert client.tickets(["staff"])
    with TvmClient.from_config({}, session=fake.session()) as client:
        assert client.tickets(["staff"])
    monkeypatch.delenv("TVMTOOL_LOCAL_AUTHTOKEN")
    with (
        TvmClient(session=fake.session()) as client,
        pytest.raises(CredentialsUnavailable, match="TVMTOOL_LOCAL_AUTHTOKEN"),
    ):
        client.tickets(["staff"])


def test_another_service_has_it_in_its_own_section(tmp_path: Any) -> None:
    fake = FakeTvmTool()
    fake.add_destination("blackbox", 222)
    file = tmp_path / "token"
    file.write_text(fake.token)
    section = {"type": "tvm", "dst": "blackbox", "url": "", "token_file": str(file), "src": "me"}
    with fake.serve() as url:
        auth = auth_from_config({**section, "url": url})
        headers: dict[str, str] = {}
        auth.apply(headers)
    assert headers == {"X-Ya-Service-Ticket": fake.ticket("blackbox")}
    assert fake.calls[-1].query == {"dsts": "blackbox", "src": "me"}
    fake.check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auth": {"type": "none"}}, "unknown key auth"),
        ({"token_env": "X"}, "one of token, token_env, token_file"),
        ({"token": 7}, "tvm.token is not a text"),
        ({"dsts": "x"}, "unknown key dsts"),
        ({"src": 7}, "src is not str"),
    ],
)
def test_a_config_that_does_not_fit_is_named(change: dict[str, object], words: str) -> None:
    section = {"url": "http://localhost:1", "token": "local-token", **change}
    with pytest.raises(ConfigError, match=words) as refused:
        TvmClient.from_config(section)
    assert "local-token" not in str(refused.value)


def test_no_ticket_and_no_token_is_shown(
    fake: FakeTvmTool, make: Callable[..., TvmClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make(token=TokenSource(fake.token))
    found = client.tickets(["blackbox"])
    shown: list[object] = [found, found["blackbox"].raw, client, client.service_ticket("blackbox")]
    for ask in (client.checksrv, client.checkusr):
        fake.faults.next(status=403, json={"error": "bad 3:serv:mine:sign"})
        shown.append(ask("3:serv:mine:sign").error)
        fake.faults.on("*", status=400, body=f"bad 3:serv:mine:sign {fake.token}")
        with pytest.raises(BadRequest) as refused:
            ask("3:serv:mine:sign")
        shown += [refused.value, str(refused.value), vars(refused.value)]
        fake.faults.clear()

    everything = repr(shown) + caplog.text
    assert "bad ***" in everything
    for secret in (fake.ticket("blackbox"), "3:serv:mine:sign", fake.token):
        assert secret not in everything
    fake.calls.assert_no_secret_in(everything)


@pytest.mark.parametrize(
    "raw", [{}, None, [], "text", {"uids": 5, "scopes": {}, "ticket": 7, "src": "x"}]
)
def test_results_take_whatever_comes(raw: object) -> None:
    assert not UserTicketCheck.from_dict(raw).is_valid and UserTicketCheck.from_dict(raw).uids == ()
    assert not ServiceTicketCheck.from_dict(raw).is_valid
    assert "7" not in repr(Ticket.from_dict(raw))
