"""The fake of Blackbox, asked by plain requests: what it takes, and in which form it answers."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import requests

from sepelib.yandex.testing import Accounts, FakeBlackbox, FakeOAuth, check_shape, sample

IP = "192.0.2.7"


@pytest.fixture
def fake() -> Iterator[FakeBlackbox]:
    fake = FakeBlackbox()
    fake.add_user("Ann.Lee", uid=11, password="pw", dbfields={"a.b.c": "<&>"})
    fake.add_token("t", uid=11, scopes=["x", "y"])
    fake.add_session("s", uid=11)
    yield fake
    fake.check()


def post(fake: FakeBlackbox, method: str, **form: str) -> requests.Response:
    url = f"{fake.url}?method={method}"
    return fake.session().post(url, data=form, timeout=5)


def told(answer: requests.Response) -> Any:
    assert answer.status_code == 200
    return answer.json()


def exception(answer: requests.Response) -> int:
    found = told(answer)["exception"]["id"]
    assert isinstance(found, int)
    return found


def test_it_answers_in_the_published_shapes(fake: FakeBlackbox) -> None:
    json = {"format": "json", "attributes": "1008"}
    more = {**json, "userip": IP, "get_user_ticket": "yes"}
    token = told(post(fake, "oauth", oauth_token="t", **more))
    check_shape(token, sample("blackbox", "oauth").json)
    session = told(post(fake, "sessionid", sessionid="s", host="yandex-team.ru", **more))
    check_shape(session, sample("blackbox", "sessionid").json)
    owner = told(post(fake, "user_ticket", user_ticket=token["user_ticket"], **json))
    check_shape(owner, sample("blackbox", "user_ticket").json)
    refused = told(post(fake, "user_ticket", user_ticket="3:user:a:b", **json))
    check_shape(refused, sample("blackbox", "user_ticket_error").json)
    assert "exception" not in refused
    fake.force_status("EXPIRED")
    check_shape(
        told(post(fake, "oauth", oauth_token="t", **more)), sample("blackbox", "rejection").json
    )
    fake.fail(10)
    check_shape(told(post(fake, "oauth", **more)), sample("blackbox", "exception").json)


def test_without_a_format_it_is_xml(fake: FakeBlackbox) -> None:
    answer = fake.session().get(
        fake.url,
        params={"method": "userinfo", "uid": "11", "userip": IP, "dbfields": "a.b.c"},
        timeout=5,
    )
    assert answer.headers["Content-Type"].startswith("text/xml")
    root = ET.fromstring(answer.content)
    published = ET.fromstring(sample("blackbox", "userinfo_xml").reply.body)
    assert root.findtext("uid") == "11" and published.find("uid") is not None
    assert root.find("dbfield[@id='a.b.c']").text == "<&>"  # type: ignore[union-attr]
    refused = fake.session().get(fake.url, params={"method": "userinfo", "uid": "1"}, timeout=5)
    assert ET.fromstring(refused.content).find("exception[@id='2']") is not None
    nobody = fake.session().get(
        fake.url, params={"method": "userinfo", "login": "x", "userip": IP}, timeout=5
    )
    assert ET.fromstring(nobody.content).find("uid").text is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("oauth", {"oauth_token": "t"}),  # no userip
        ("oauth", {"userip": IP}),
        ("oauth", {"oauth_token": "t", "userip": IP, "scopes": "x"}),
        ("oauth", {"oauth_token": "t", "userip": IP, "sessionid": "s"}),
        ("sessionid", {"sessionid": "s", "userip": IP}),  # no host
        ("sessionid", {"sessionid": "s", "host": "h"}),
        ("login", {"login": "ann.lee", "userip": IP}),
        ("userinfo", {"userip": IP}),
        ("nothing", {}),
    ],
)
def test_what_it_does_not_take_is_invalid_params(
    method: str, form: dict[str, str], fake: FakeBlackbox
) -> None:
    assert exception(post(fake, method, format="json", **form)) == 2


def test_the_method_is_in_the_query_and_the_password_is_not(fake: FakeBlackbox) -> None:
    form = {"method": "oauth", "oauth_token": "t", "userip": IP, "format": "json"}
    assert exception(fake.session().post(fake.url, data=form, timeout=5)) == 2
    login = {"login": "ann.lee", "password": "pw", "userip": IP, "format": "json"}
    url = f"{fake.url}?method=login"
    assert exception(fake.session().post(url, params=login, data={"x": "y"}, timeout=5)) == 2
    assert told(post(fake, "login", **login))["status"]["id"] == 0


def test_a_body_that_is_no_form_is_refused(fake: FakeBlackbox) -> None:
    url = f"{fake.url}?method=oauth&format=json"
    assert exception(fake.session().post(url, json={"oauth_token": "t"}, timeout=5)) == 2


def test_a_get_is_as_good_as_a_post(fake: FakeBlackbox) -> None:
    asked = {"method": "oauth", "oauth_token": "t", "userip": IP, "format": "json"}
    answer = fake.session().get(fake.url, params=asked, timeout=5)
    assert told(answer)["oauth"]["scope"] == "x y"
    assert "attributes" not in told(answer)  # not asked for


def test_only_a_known_service_ticket_opens_it(fake: FakeBlackbox) -> None:
    fake.require_tickets("3:serv:a:b")
    asked = {"method": "oauth", "oauth_token": "t", "userip": IP, "format": "json"}
    session = fake.session()
    assert exception(session.get(fake.url, params=asked, timeout=5)) == 21
    for ticket, opens in (("3:serv:a:c", False), ("3:serv:a:b", True)):
        headers = {"X-Ya-Service-Ticket": ticket}
        answer = told(session.get(fake.url, params=asked, headers=headers, timeout=5))
        assert ("status" in answer) is opens


def test_what_is_on_the_way_is_not_in_its_words(fake: FakeBlackbox) -> None:
    fake.faults.next(status=502)
    answer = post(fake, "oauth", format="json")
    assert answer.status_code == 502 and "exception" not in answer.text


def test_a_reset_is_as_new_and_leaves_shared_accounts_alone(fake: FakeBlackbox) -> None:
    fake.force_status("EXPIRED")
    fake.fail(9)
    fake.require_tickets()
    fake.reset()
    assert fake.state == FakeBlackbox().state and fake.accounts == FakeBlackbox().accounts

    accounts = Accounts()
    blackbox, oauth = FakeBlackbox(accounts=accounts), FakeOAuth(accounts=accounts)
    blackbox.add_user("ann", uid=1)
    oauth.reset()
    blackbox.reset()
    assert blackbox.accounts is oauth.accounts and accounts.users.keys() == {"1"}
    accounts.reset()
    assert accounts == Accounts()


def test_two_fakes_share_nothing_unless_they_are_given_it() -> None:
    one, other = FakeBlackbox(), FakeBlackbox()
    one.add_user("ann")
    assert other.accounts.users == {} and one.accounts != other.accounts
