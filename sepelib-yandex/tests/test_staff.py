"""Staff: persons and groups are listed, and who is in which group is never guessed."""

from collections.abc import Callable
from typing import Any

import pytest

from sepelib.yandex.errors import (
    ApiProtocolError,
    BadRequest,
    ForeignLink,
    ServerError,
)
from sepelib.yandex.staff import StaffClient
from sepelib.yandex.testing import FakeStaff, Reply, YandexFakes, check_shape, sample

pytestmark = pytest.mark.yandex(transport="both")

# The envelope as it was described to us: a page with a next one, and a last page.
PERSONS = {
    "links": {"next": "http://staff.test/v3/persons?_page=2"},
    "page": 1,
    "pages": 2,
    "total": 70,
    "result": [{"id": 7, "login": "ann", "name": {"first": "Ann"}, "is_dismissed": False}],
}
MEMBERSHIPS = {
    "links": {},
    "page": 1,
    "pages": 1,
    "total": 1,
    "result": [{"person": {"login": "ann"}}],
}


@pytest.fixture
def staff(yandex_fakes: YandexFakes, fake_staff: FakeStaff) -> StaffClient:
    """A client with the fake's time, of a few people in a tree of groups."""
    fake_staff.add_person("ann", name={"first": "Ann", "last": "Lee"})
    fake_staff.add_person("bob", is_dismissed=True)
    fake_staff.add_group("all")
    fake_staff.add_group("dev", "cid", parent="all")
    fake_staff.add_group("web", "ann", "bob", parent="dev")
    fake_staff.add_group("db", "ann", parent="dev")
    clock = yandex_fakes.clock
    client: StaffClient = yandex_fakes.client(
        "staff", stale_ttl=100.0, clock=clock, sleep=clock.sleep
    )
    return client


def crowd(fake: FakeStaff, count: int) -> list[str]:
    logins = [f"p{number:03}" for number in range(count)]
    for login in logins:
        fake.add_person(login)
    return logins


def test_persons_are_found_by_their_fields(staff: StaffClient, fake_staff: FakeStaff) -> None:
    found = list(staff.persons(login=["ann", "cid"], fields=("login", "name.first"), sort="-login"))

    assert found == [
        {"login": "cid", "name": {"first": "Cid"}},
        {"login": "ann", "name": {"first": "Ann"}},
    ]
    assert fake_staff.calls[-1].query == {
        "login": "ann,cid",
        "_fields": "login,name.first",
        "_sort": "-login",
        "_limit": "50",
    }
    assert [p["login"] for p in staff.persons(is_dismissed=True)] == ["bob"]
    assert [p["login"] for p in staff.persons({"name.last": "Lee"})] == ["ann"]
    assert list(staff.persons(login="nobody")) == []
    assert [p["login"] for p in staff.persons(query='id > 1 and login != "cid"')] == ["bob"]


def test_one_person_and_one_group(staff: StaffClient, fake_staff: FakeStaff) -> None:
    ann = staff.person("ann", fields=("name.last",))
    assert ann == {"login": "ann", "name": {"last": "Lee"}}
    assert staff.person("nobody") is None
    web = staff.group("web")
    assert web is not None and web["parent"] == {"slug": "dev"}
    assert staff.group("nothing") is None
    assert [g["slug"] for g in staff.groups({"parent.slug": "dev"})] == ["web", "db"]
    rows = staff.memberships({"group.slug": "web"}, fields=("person.login",))
    assert list(rows) == [{"person": {"login": "ann"}}, {"person": {"login": "bob"}}]


@pytest.mark.parametrize("value", ["", "ann,cid"])
def test_what_is_no_single_value_is_no_filter(staff: StaffClient, value: str) -> None:
    asks: list[Callable[[str], object]] = [
        staff.person,
        staff.group,
        staff.groups_of,
        staff.members,
        lambda group: staff.members(group, recursive=True),
        lambda login: staff.is_member(login, "web"),
        lambda login: staff.persons(login=[login]),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match="no single value"):
            ask(value)


def test_a_filter_without_a_value_is_none(staff: StaffClient) -> None:
    nothings: list[str | list[str]] = ["", []]
    for nothing in nothings:
        with pytest.raises(ValueError, match="would let everything pass"):
            staff.persons(login=nothing)


def test_fields_are_several_names(staff: StaffClient) -> None:
    with pytest.raises(TypeError, match="not the one text 'login'"):
        staff.persons(fields="login")


def test_pages_follow_the_links(staff: StaffClient, fake_staff: FakeStaff) -> None:
    logins = crowd(fake_staff, 120)

    found = staff.persons(fields=("login",), sort="id", query='login > "p" and login < "q"')

    assert [person["login"] for person in found] == logins and found.total == 120
    assert len(fake_staff.calls) == 3
    assert fake_staff.calls[-1].query["_page"] == "3" and "_query" in fake_staff.calls[-1].query
    assert len(list(staff.persons(limit=7))) == 7


def test_pages_go_on_without_links(staff: StaffClient, fake_staff: FakeStaff) -> None:
    for number in (1, 2):
        row = {"login": f"p{number}"}
        fake_staff.faults.play(Reply(json={"page": number, "pages": 2, "result": [row]}))
    assert [person["login"] for person in staff.persons()] == ["p1", "p2"]
    assert [call.query.get("_page") for call in fake_staff.calls] == [None, "2"]


def test_a_link_to_another_host_is_not_followed(staff: StaffClient, fake_staff: FakeStaff) -> None:
    body = {"links": {"next": "http://evil.test/v3/persons"}, "result": [{"login": "ann"}]}
    fake_staff.faults.play(Reply(json=body))
    with pytest.raises(ForeignLink):
        list(staff.persons())


def test_a_dump_is_stable_while_rows_come_and_go(
    fake_staff: FakeStaff, yandex_fakes: YandexFakes
) -> None:
    logins = crowd(fake_staff, 10)
    staff: StaffClient = yandex_fakes.client("staff", page_size=4)

    found = []
    for person in staff.dump("persons", fields=("login",), query='login > "p"'):
        found.append(person["login"])
        if len(found) == 4:
            del fake_staff.state.persons[1]  # with page numbers, p004 would now be missed
            fake_staff.add_person("p999")

    assert found == [*logins, "p999"]
    first, second = fake_staff.calls[0].query, fake_staff.calls[1].query
    assert first["_query"] == 'login > "p"' and first["_fields"] == "login,id"
    assert second["_query"] == '(login > "p") and id > 4'
    assert second["_sort"] == "id" and "_page" not in second


def test_a_dump_knows_no_more_than_numbers_for_ids(
    staff: StaffClient, fake_staff: FakeStaff
) -> None:
    fake_staff.faults.play(Reply(json={"result": [{"id": "1 or id > 0"}] * 50}))
    with pytest.raises(ApiProtocolError, match="an id is no number"):
        list(staff.dump("groups"))


def test_a_dump_ends_behind_the_last_row_though_pages_are_small(
    fake_staff: FakeStaff, yandex_fakes: YandexFakes
) -> None:
    fake_staff.max_limit = 3
    logins = crowd(fake_staff, 10)
    staff: StaffClient = yandex_fakes.client("staff", page_size=4)
    assert [person["login"] for person in staff.dump("persons")] == logins


def test_groups_of_a_person(staff: StaffClient, fake_staff: FakeStaff) -> None:
    assert staff.groups_of("ann") == {"web", "db"}
    assert staff.groups_of("cid") == {"dev"}
    assert staff.groups_of("nobody") == set()
    assert fake_staff.calls[0].query["person.login"] == "ann"


def test_who_has_left_is_in_no_group(staff: StaffClient) -> None:
    assert staff.groups_of("bob") == set()
    assert staff.members("web") == {"ann"} and not staff.is_member("bob", "web")


def test_members_of_a_group(staff: StaffClient, fake_staff: FakeStaff) -> None:
    assert staff.members("dev") == {"cid"} and staff.members("all") == set()
    assert staff.members("dev", recursive=True) == {"ann", "cid"}
    assert staff.members("all", recursive=True) == {"ann", "cid"}
    assert staff.members("nothing", recursive=True) == set()
    assert staff.is_member("ann", "web") and not staff.is_member("ann", "dev")
    assert staff.is_member("ann", "all", recursive=True)
    assert not staff.is_member("bob", "all", recursive=True)


def test_groups_in_a_circle_come_to_an_end(staff: StaffClient, fake_staff: FakeStaff) -> None:
    fake_staff.add_group("x", "ann", parent="y")
    fake_staff.add_group("y", "cid", parent="x")
    assert staff.members("x", recursive=True) == {"ann", "cid"}


def test_many_inner_groups_are_asked_for_in_portions(
    staff: StaffClient, fake_staff: FakeStaff
) -> None:
    logins = [f"p{number:03}" for number in range(120)]
    fake_staff.add_group("top")
    for login in logins:
        fake_staff.add_group(f"group-of-{login}", login, parent="top")
    assert staff.members("top", recursive=True) == set(logins)
    asked = [call.query.get("group.slug", "") for call in fake_staff.calls.of("memberships")]
    assert max(len(keys.split(",")) for keys in asked) == 50


def test_a_service_that_does_not_know_the_filter_makes_nobody_a_member(
    staff: StaffClient, fake_staff: FakeStaff
) -> None:
    """It answers with everybody; nothing of that is about the one who was asked for."""
    rows = [{"person": {"login": "eve"}, "group": {"slug": "admins"}}]
    broken = [7, None, {}, {"person": "ann", "group": "web"}, {"person": {"login": "ann"}}]
    for body in ({"result": rows}, {"result": broken}):
        fake_staff.faults.on("memberships", json=body)
        staff.forget()
        assert staff.groups_of("ann") == set()
        assert staff.members("web") == set()
        fake_staff.faults.clear()
    fake_staff.faults.on("persons", json={"result": [{"login": "eve"}]})
    assert staff.person("ann") is None


def test_answers_are_kept_for_a_while(
    staff: StaffClient, fake_staff: FakeStaff, yandex_fakes: YandexFakes
) -> None:
    for _ in range(3):
        assert staff.is_member("ann", "web") and staff.members("web") == {"ann"}
    assert len(fake_staff.calls) == 2

    fake_staff.remove_member("web", "ann")
    yandex_fakes.clock.advance(59.0)
    assert staff.is_member("ann", "web")
    yandex_fakes.clock.advance(2.0)
    assert not staff.is_member("ann", "web")

    fake_staff.add_member("web", "ann")
    staff.forget()
    assert staff.is_member("ann", "web")


def test_an_outage_is_survived_for_stale_ttl(
    staff: StaffClient, fake_staff: FakeStaff, yandex_fakes: YandexFakes
) -> None:
    assert staff.groups_of("ann") == {"web", "db"}
    fake_staff.faults.on("*", status=500)
    yandex_fakes.clock.advance(61.0)

    assert staff.groups_of("ann") == {"web", "db"}
    with pytest.raises(ServerError):
        staff.groups_of("cid")
    yandex_fakes.clock.advance(100.0)
    with pytest.raises(ServerError):
        staff.groups_of("ann")


def test_without_stale_ttl_an_outage_is_an_error(
    fake_staff: FakeStaff, yandex_fakes: YandexFakes
) -> None:
    clock = yandex_fakes.clock
    client: StaffClient = yandex_fakes.client("staff", clock=clock, sleep=clock.sleep)
    fake_staff.add_group("web", "ann")
    assert client.groups_of("ann") == {"web"}
    fake_staff.faults.on("*", status=500)
    clock.advance(61.0)
    with pytest.raises(ServerError):
        client.groups_of("ann")


def test_the_names_of_fields_are_constants(fake_staff: FakeStaff) -> None:
    class Other(StaffClient):
        LOGIN = "name.first"
        GROUP_KEY = "name"
        DISMISSED = "left"

    fake_staff.add_person("ann", left=False)
    fake_staff.add_person("bob", left=True)
    fake_staff.add_group("g1", "ann", "bob", name="Web")
    fake_staff.tokens.add("t")
    section = {**fake_staff.config(), "cache_ttl": 0, "stale_ttl": 0.0, "page_size": 10}
    with Other.from_config(section, session=fake_staff.session()) as client:
        assert client.groups_of("Ann") == {"Web"}
        assert client.members("Web") == {"Ann"}
        assert client.group("Web") is not None and client.person("Ann") is not None
        assert client.members("Web") == {"Ann"}
    assert len(fake_staff.calls.of("memberships")) == 3


def test_the_service_refuses_what_it_does_not_know(
    staff: StaffClient, fake_staff: FakeStaff
) -> None:
    asks: list[tuple[dict[str, Any], str]] = [
        ({"height": 7}, "persons have no height"),
        ({"_size": 7}, "persons have no _size"),
        ({"query": "id >"}, "a value is wanted at 4, not the end"),
    ]
    for asked, words in asks:
        with pytest.raises(BadRequest, match=words):
            staff.persons(**asked).first_page()
    for page in ("0", "x", "-1"):
        answer = fake_staff.session().get(
            f"{fake_staff.url}/v3/persons?_page={page}",
            headers={"Authorization": f"OAuth {fake_staff.token}"},
            timeout=20,
        )
        assert answer.status_code == 400 and answer.json()["error"] == "bad_parameter"


def test_the_fake_has_single_items(fake_staff: FakeStaff) -> None:
    fake_staff.add_person("ann")
    headers = {"Authorization": f"OAuth {fake_staff.token}"}
    session, url = fake_staff.session(), fake_staff.url + "/v3/persons/"
    found = session.get(url + "1?_fields=login", headers=headers, timeout=20)
    assert (found.status_code, found.json()) == (200, {"login": "ann"})
    missing = session.get(url + "9", headers=headers, timeout=20)
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "logins"),
    [
        ("id == 1", ["ann"]),
        ("id != 1", ["bob", "cid"]),
        ("id > 1 and id < 3", ["bob"]),
        ("id in (1, 3, 9)", ["ann", "cid"]),
        ("id == 1 or id == 2 and is_dismissed == false", ["ann"]),
        ("(id == 1 or id == 2) and is_dismissed == true", ["bob"]),
        ("name.first == 'Ann'", ["ann"]),
        ('login in ("ann", "cid") and name.last == ""', ["ann", "cid"]),
        ("nothing == null", ["ann", "bob", "cid"]),
        ("nothing > 0", []),
        ("login > 5", []),
        ("is_dismissed == 1", []),
        ("id == 1.0", ["ann"]),
        ("((((id==1))))", ["ann"]),
        ("login == 'and'", []),
    ],
)
def test_the_fakes_expressions(fake_staff: FakeStaff, query: str, logins: list[str]) -> None:
    fake_staff.add_person("ann")
    fake_staff.add_person("bob", is_dismissed=True)
    fake_staff.add_person("cid")
    with StaffClient.from_config(fake_staff.config(), session=fake_staff.session()) as client:
        assert [person["login"] for person in client.persons(query=query)] == logins


@pytest.mark.parametrize(
    "query",
    [
        "",
        "id",
        "id = 1",
        "id == 1 id == 2",
        "(id == 1",
        "id == 1)",
        "id in ()",
        "id in 1",
        "id in (1,)",
        "and == 1",
        "id == and",
        "id == 'a",
        "id == 1x",
        "1 == 1",
        "__import__('os')",
        "id == (1)",
        "(" * 5000 + "id == 1" + ")" * 5000,
    ],
)
def test_what_the_fake_does_not_take_for_an_expression(fake_staff: FakeStaff, query: str) -> None:
    fake_staff.add_person("ann")
    with (
        StaffClient.from_config(fake_staff.config(), session=fake_staff.session()) as client,
        pytest.raises(BadRequest, match="_query"),
    ):
        client.persons(query=query).first_page()


def test_the_known_answers_are_understood(staff: StaffClient, fake_staff: FakeStaff) -> None:
    fake_staff.faults.play(Reply(json=PERSONS))
    pager = staff.persons()
    assert [person["login"] for person in pager.first_page()] == ["ann"] and pager.total == 70
    fake_staff.faults.play(Reply(json=MEMBERSHIPS))
    assert list(staff.memberships()) == [{"person": {"login": "ann"}}]
    fake_staff.faults.play(sample("staff", "connect").reply)
    assert list(staff.persons()) == [{"is_dismissed": False}]


def test_the_fake_answers_as_it_is_known(fake_staff: FakeStaff) -> None:
    for login in ("ann", "bob"):
        fake_staff.add_person(login)
    fake_staff.add_group("web", "ann")
    headers = {"Authorization": f"OAuth {fake_staff.token}"}

    def ask(path: str) -> Any:
        url = f"{fake_staff.url}/v3/{path}"
        return fake_staff.session().get(url, headers=headers, timeout=20).json()

    persons = ask("persons?_limit=1&_fields=id,login,name.first,is_dismissed")
    check_shape(persons, PERSONS)
    assert persons["links"]["next"].startswith(fake_staff.url + "/v3/persons?")
    members = ask("groupmembership?group.slug=web&_fields=person.login")
    assert members["result"] == MEMBERSHIPS["result"]
    check_shape(members, MEMBERSHIPS)
    check_shape(members, {"pages": sample("staff", "connect").json["pages"]})
    relative = sample("staff", "360").json
    check_shape(members, {name: relative[name] for name in ("page", "pages", "total")})


def test_a_reset_fake_is_a_fresh_one(staff: StaffClient, fake_staff: FakeStaff) -> None:
    fake_staff.reset()
    assert fake_staff.state == FakeStaff().state


@pytest.mark.parametrize("told", [{}, {"is_dismissed": None}, {"is_dismissed": "false"}])
def test_who_is_not_said_to_be_here_is_no_member(
    staff: StaffClient, fake_staff: FakeStaff, told: dict[str, object]
) -> None:
    row = {"person": {"login": "eve", **told}, "group": {"slug": "web"}}
    fake_staff.faults.on("memberships", json={"result": [row]})
    asks: list[Callable[[], object]] = [
        lambda: staff.groups_of("eve"),
        lambda: staff.members("web"),
        lambda: staff.is_member("eve", "web", recursive=True),
    ]
    for ask in asks:
        with pytest.raises(ApiProtocolError, match=r"does not say person\.is_dismissed"):
            ask()


@pytest.mark.parametrize("slug", ["", "web,admins"])
def test_an_inner_group_that_cannot_be_asked_for_is_an_error(
    staff: StaffClient, fake_staff: FakeStaff, slug: str
) -> None:
    fake_staff.add_group(slug, "ann", parent="dev")
    with pytest.raises(ApiProtocolError, match="staff groups: nobody can ask for"):
        staff.members("dev", recursive=True)
