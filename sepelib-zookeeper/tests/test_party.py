"""A party: who is there, told truly to those who are, and to those who look on."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import gevent.event
import pytest
from kazoo.client import KazooClient

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.zookeeper import (
    Client,
    Party,
    SessionState,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper.party import Member, PartyView

SESSION = 2.0
PATH = "/app/replicas"

HOSTILE = [
    "",
    "web1",
    "a/b/../c",
    "/",
    "x" * 300,
    "x" * 50_000,
    "\0\r\n\t\x1b",
    "ö 日本語 🦀",
    "\ud800 half of a pair",
    "{",
    '{"id": "somebody else"}',
    '{"id": "somebody else", "data": 1}',
    "[1]",
    "null",
    "__party__",
    "__lock__0000000001",
]


@pytest.fixture
def client(proxy: Any) -> Iterator[Client]:
    with Client(proxy.hosts, timeout=SESSION) as client:
        yield client


@pytest.fixture
def other(zookeeper: Any) -> Iterator[Client]:
    """A client which no fault of the proxy touches."""
    with Client(zookeeper.hosts, timeout=SESSION) as client:
        yield client


def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError(f"not within {seconds} s: {what}")):
        while not condition():
            gevent.sleep(0.005)


def expire(client: Client, zookeeper: Any) -> None:
    before = client.session.session_id
    zookeeper.expire(client)
    eventually(lambda: client.session.session_id != before, "there is a new session")


def cut_off(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    assert client.session.wait(SessionState.SUSPENDED, 5.0)


def identifiers(members: tuple[Member, ...]) -> list[str]:
    return [member.identifier for member in members]


def nodes(observer: Any) -> list[str]:
    children: list[str] = observer.get_children(PATH) if observer.exists(PATH) else []
    return children


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


# Members.


def test_who_has_joined_is_a_member_until_it_leaves(client: Client, other: Client) -> None:
    party = Party(client, PATH, "web1")
    assert not party.is_member and party.members() == ()
    assert party.join() and party.is_member
    assert identifiers(Party(other, PATH).members()) == ["web1"]
    assert party.leave() and not party.is_member
    assert Party(other, PATH).members() == ()
    assert party.join() and party.is_member and party.leave()


def test_members_come_in_the_order_in_which_they_have_joined(client: Client, other: Client) -> None:
    with ExitStack() as stack:
        for name in ("b", "c", "a"):
            stack.enter_context(Party(random.choice([client, other]), PATH, name))
        party = Party(client, PATH)
        members = party.members()
        assert identifiers(members) == ["b", "c", "a"]
        assert list(party) == ["b", "c", "a"] and len(party) == 3 and party
        tokens = [member.token for member in members]
        assert tokens == sorted(set(tokens))
        assert {member.session_id for member in members} <= {
            client.session.session_id,
            other.session.session_id,
        }
    assert len(party) == 0 and party


def test_an_identifier_may_be_any_text(client: Client) -> None:
    with ExitStack() as stack:
        for text in HOSTILE:
            assert stack.enter_context(Party(client, PATH, text)).is_member
        assert identifiers(Party(client, PATH).members()) == HOSTILE
        assert {member.data for member in Party(client, PATH).members()} == {None}


def test_a_member_brings_data_of_its_own(client: Client) -> None:
    values: list[Any] = [{"url": "http://a/", "weight": [1, 2.5, None]}, 0, "", [], "\ud800"]
    for value in values:
        with Party(client, PATH, '{"id": 1}', value) as party:
            assert [(it.identifier, it.data) for it in party.members()] == [('{"id": 1}', value)]


def test_nobody_need_have_a_name_of_its_own(client: Client) -> None:
    with Party(client, PATH) as party:
        assert party.identifier == f"{socket.gethostname()}:{os.getpid()}"
        assert list(party) == [party.identifier]


def test_several_members_may_have_the_same_identifier(client: Client, other: Client) -> None:
    with Party(client, PATH, "twin") as first, Party(client, PATH, "twin"):
        with Party(other, PATH, "twin"):
            assert list(first) == ["twin"] * 3
        assert list(first) == ["twin"] * 2


def test_bad_arguments_are_refused_at_once(client: Client) -> None:
    with pytest.raises(TypeError, match="an identifier is a str, not int"):
        Party(client, PATH, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Party(client, PATH, "x", object())
    with pytest.raises(ValueError, match="JSON"):
        Party(client, PATH, "x", float("nan"))
    with pytest.raises(ValueError, match="below the root"):
        Party(client, "/")
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        Party(KazooClient(), PATH)


def test_members_of_kazoo_and_ours_see_each_other(client: Client, observer: Any) -> None:
    theirs = observer.Party(PATH, "theirs")
    theirs.join()
    with Party(client, PATH, "ours") as ours:
        assert list(ours) == ["theirs", "ours"]
        assert sorted(theirs) == ["ours", "theirs"] and len(theirs) == 2
    theirs.leave()
    assert len(ours) == 0


def test_what_is_no_member_is_not_counted(client: Client, observer: Any) -> None:
    observer.create(f"{PATH}/config", makepath=True)
    observer.create(f"{PATH}/{'0' * 32}__lock__", sequence=True)
    with Party(client, PATH, "x") as party, party.watch() as view:
        assert list(party) == ["x"] and len(party) == 1
        assert view.wait(timeout=5.0) and identifiers(view.members) == ["x"]


# Joining.


def test_a_join_that_takes_too_long_goes_on(client: Client, proxy: Any) -> None:
    cut_off(client, proxy)
    party = Party(client, PATH, "x")
    assert not party.join(0.05) and not party.is_member
    proxy.heal()
    eventually(lambda: party.is_member, "it is a member")
    assert party.join(0.0)
    assert party.leave()


@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit, KeyboardInterrupt])
@pytest.mark.parametrize("operation", ["create", "get"])
def test_a_join_that_is_killed_leaves_nobody(
    client: Client, proxy: Any, observer: Any, operation: str, error: type[BaseException]
) -> None:
    def join() -> BaseException | None:
        try:
            party.join()
        except BaseException as e:
            return e
        return None

    party = Party(client, PATH, "x")
    client.ensure_path(PATH)
    with proxy.lose_answer_to(operation, then="hold") as lost:
        joining = gevent.spawn(join)
        lost.wait()
        joining.kill(error, timeout=1.0)
        assert isinstance(joining.value, error)
    proxy.cut()
    proxy.heal()
    eventually(lambda: not nodes(observer), "nobody is there")
    assert not party.is_member
    assert party.join(10.0) and party.leave()


@pytest.mark.parametrize("operation", ["create", "get", "delete"])
def test_one_member_is_there_once_whatever_answer_is_lost(
    client: Client, proxy: Any, observer: Any, operation: str
) -> None:
    party = Party(client, PATH, "x")
    client.ensure_path(PATH)
    with proxy.lose_answer_to(operation):
        assert party.join(10.0)
        assert len(nodes(observer)) == 1
        party.leave()
    eventually(lambda: not nodes(observer), "nobody is there")


def test_a_join_obeys_the_current_deadline(client: Client, proxy: Any, observer: Any) -> None:
    cut_off(client, proxy)
    party = Party(client, PATH, "x")
    with deadline(0.05), pytest.raises(DeadlineExceeded):
        party.join()
    proxy.heal()
    eventually(lambda: client.session.state is SessionState.CONNECTED, "it is connected")
    assert party.members() == () and nodes(observer) == []


# Staying.


def test_a_member_joins_again_after_the_end_of_its_session(
    client: Client, other: Client, zookeeper: Any
) -> None:
    with Party(client, PATH, "x", {"port": 80}) as party:
        for _ in range(2):
            expire(client, zookeeper)
            assert party.join(10.0) and party.is_member
            [member] = Party(other, PATH).members()
            assert member[:3] == ("x", {"port": 80}, client.session.session_id)


def test_a_member_joins_again_when_the_party_was_removed(client: Client, observer: Any) -> None:
    with Party(client, PATH, "x") as party:
        [node] = nodes(observer)
        transaction = observer.transaction()
        transaction.delete(f"{PATH}/{node}")
        transaction.delete(PATH)
        assert not [it for it in transaction.commit() if isinstance(it, Exception)]
        eventually(lambda: nodes(observer), "it is there again")
        assert party.join() and list(party) == ["x"]


def test_one_who_leaves_while_cut_off_is_gone_when_the_connection_is_back(
    client: Client, proxy: Any, observer: Any
) -> None:
    with Party(client, PATH, "x") as party:
        cut_off(client, proxy)
        assert not party.leave()
    assert not party.is_member and len(nodes(observer)) == 1
    proxy.heal()
    eventually(lambda: not nodes(observer), "nobody is there")


def test_one_in_a_silent_network_is_a_member_to_itself_only_as_long_as_to_all(
    proxy: Any, observer: Any
) -> None:
    with (
        Client(proxy.hosts, timeout=1.0) as client,
        Party(client, PATH, "x") as party,
        party.watch() as view,
    ):
        assert view.wait(timeout=5.0)
        proxy.hold()
        assert party.is_member
        eventually(lambda: not nodes(observer), "the session is over")
        assert not party.is_member and not view.is_current

        again = gevent.spawn(party.join)
        gevent.sleep(0.01)
        again.kill()  # who is a member already is not made to leave by that

        proxy.heal()
        eventually(lambda: party.is_member, "it is a member again")
        assert len(nodes(observer)) == 1
        assert view.wait(lambda members: members == party.members(), 10.0)


def test_no_answer_in_time_is_told(client: Client, proxy: Any) -> None:
    party = Party(client, PATH, "x")
    proxy.hold()
    with pytest.raises(ZookeeperTimeout, match=f"^party {PATH}: no answer in "):
        party.members(0.05)
    proxy.heal()


@pytest.mark.parametrize("operation", ["sync", "get_children", "get"])
def test_a_read_of_the_members_survives_a_lost_answer(
    client: Client, other: Client, proxy: Any, operation: str
) -> None:
    with Party(other, PATH, "a"), Party(other, PATH, "b"), proxy.lose_answer_to(operation):
        assert identifiers(Party(client, PATH).members(10.0)) == ["a", "b"]


# A view.


class Told(list[list[str]]):
    """The identifiers of whom a view has told, each time."""

    def __call__(self, members: tuple[Member, ...]) -> None:
        self.append(identifiers(members))

    def comes_to(self, *expected: str) -> None:
        eventually(lambda: self and self[-1] == list(expected), f"the last told is {expected}")


def test_a_view_tells_who_is_there_and_each_change(client: Client, other: Client) -> None:
    told = Told()
    party = Party(client, PATH, "x")
    with party.watch(told) as view:
        told.comes_to()
        with Party(other, PATH, "a"):
            told.comes_to("a")
            with party:
                told.comes_to("a", "x")
                assert view.wait(timeout=5.0) and identifiers(view.members) == ["a", "x"]
            told.comes_to("a")
        told.comes_to()
    assert told == [[], ["a"], ["a", "x"], ["a"], []]


def test_a_view_waits_for_what_is_asked_of_it(client: Client, other: Client) -> None:
    with Party(client, PATH).watch() as view:
        assert view.wait(lambda members: not members, 5.0)
        assert not view.wait(lambda members: len(members) == 2, 0.05)
        waiting = gevent.spawn(view.wait, lambda members: len(members) == 2)
        with Party(other, PATH, "a"), Party(other, PATH, "b"):
            assert waiting.get(timeout=5.0)


def test_a_view_may_be_started_again_and_tells_again_who_is_there(client: Client) -> None:
    told = Told()
    with Party(client, PATH, "x") as party, party.watch(told) as view:
        for _ in range(3):
            assert view.wait(timeout=5.0)
            eventually(lambda: told == [["x"]], "it has told")
            told.clear()
            assert view.stop() and not view.is_current
            assert view.start() and not view.start()


def test_a_view_started_again_tells_nothing_of_what_was_before(client: Client) -> None:
    told: list[list[str]] = []
    view = PartyView(client, PATH, lambda members: told.append(identifiers(members)))
    with Party(client, PATH, "one"):
        view.start()
        eventually(lambda: told == [["one"]], "the first is told")
        with Party(client, PATH, "two"):
            assert view.wait(lambda members: len(members) == 2, 5.0)
            view.stop()  # before the callback has had its turn
        told.clear()
        with view:
            assert view.wait(lambda members: len(members) == 1, 5.0)
            eventually(lambda: told, "it is told")
    assert told == [["one"]]


def test_a_slow_callback_is_not_told_of_what_was_before_a_start(client: Client) -> None:
    told: list[list[str]] = []
    free = gevent.event.Event()

    def slow(members: tuple[Member, ...]) -> None:
        told.append(identifiers(members))
        free.wait(10.0)

    view = PartyView(client, PATH, slow)
    with Party(client, PATH, "one"):
        view.start()
        eventually(lambda: told == [["one"]], "the first is told")
        with Party(client, PATH, "two"):
            assert view.wait(lambda members: len(members) == 2, 5.0)
            view.stop()
        view.start()
        free.set()  # the second is yet to be told
        eventually(lambda: len(told) > 1, "it is told again")
        view.stop()
    assert told == [["one"], ["one"]]


def test_a_view_follows_a_party_that_is_removed_and_made_again(
    client: Client, other: Client, observer: Any
) -> None:
    with Party(client, PATH).watch() as view:
        for number in range(3):
            with Party(other, PATH, str(number)):
                assert view.wait(lambda members: len(members) == 1, 5.0)
            assert view.wait(lambda members: not members, 5.0)
            observer.delete(PATH)


def test_a_view_that_is_cut_off_says_so_and_keeps_what_it_knew(
    client: Client, other: Client, proxy: Any
) -> None:
    told = Told()
    with Party(other, PATH, "a"), Party(client, PATH).watch(told) as view:
        assert view.wait(timeout=5.0) and view.is_current
        cut_off(client, proxy)
        assert not view.is_current and identifiers(view.members) == ["a"]
        with Party(other, PATH, "b"):
            assert not view.wait(timeout=0.05)
            proxy.heal()
            told.comes_to("a", "b")
            assert view.wait(timeout=5.0) and view.is_current
    assert told == [["a"], ["a", "b"]]


def test_a_view_goes_on_in_the_next_session(client: Client, other: Client, zookeeper: Any) -> None:
    told = Told()
    with Party(client, PATH).watch(told) as view:
        assert view.wait(timeout=5.0)
        expire(client, zookeeper)
        with Party(other, PATH, "a"):
            told.comes_to("a")


def test_a_member_that_came_back_unseen_is_not_taken_for_its_former_self(
    client: Client, other: Client, zookeeper: Any, proxy: Any
) -> None:
    with Party(other, PATH, "a") as party, Party(client, PATH).watch() as view:
        assert view.wait(lambda members: len(members) == 1, 5.0)
        cut_off(client, proxy)
        expire(other, zookeeper)
        assert party.join(10.0)
        proxy.heal()
        assert view.wait(timeout=10.0)
        assert view.members == party.members()
        assert view.members[0].session_id == other.session.session_id


def test_a_change_costs_a_view_a_listing_and_a_read(
    client: Client, other: Client, proxy: Any
) -> None:
    with ExitStack() as stack:
        for number in range(10):
            stack.enter_context(Party(other, PATH, str(number)))
        view = stack.enter_context(Party(client, PATH).watch())
        assert view.wait(lambda members: len(members) == 10, 5.0)
        before = proxy.counts()
        with Party(other, PATH, "new"):
            assert view.wait(lambda members: len(members) == 11, 5.0)
        assert view.wait(lambda members: len(members) == 10, 5.0)
        spent = proxy.counts() - before
        assert {it: spent[it] for it in ("sync", "get", "get_children", "exists")} == {
            "sync": 0,
            "get": 1,
            "get_children": 2,
            "exists": 0,
        }


def test_a_slow_callback_is_told_the_last_state_and_never_twice_at_once(
    client: Client, other: Client
) -> None:
    told, running, free = Told(), [0], gevent.event.Event()

    def slow(members: tuple[Member, ...]) -> None:
        running[0] += 1
        assert running[0] == 1
        told(members)
        free.wait()
        running[0] -= 1

    with Party(client, PATH).watch(slow) as view:
        told.comes_to()
        with ExitStack() as stack:
            for number in range(5):
                stack.enter_context(Party(other, PATH, str(number)))
            assert view.wait(lambda members: len(members) == 5, 5.0)
            free.set()
            told.comes_to("0", "1", "2", "3", "4")
            assert len(told) == 2


def test_a_callback_may_fail_or_stop_the_view(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    def fail(members: tuple[Member, ...]) -> None:
        told(members)
        if len(told) == 2:
            view.stop()
        raise gevent.Timeout

    view = PartyView(client, PATH, fail)
    with view:
        told.comes_to()
        with Party(other, PATH, "a"):
            told.comes_to("a")
            assert view.stop()
            with Party(other, PATH, "b"):
                pass
    assert told == [[], ["a"]]
    assert len([record for record in caplog.records if "on_change of party" in record.message]) == 2


def test_a_view_leaves_no_watch_behind(client: Client, zookeeper: Any) -> None:
    before = watches(zookeeper)
    for _ in range(2):
        with Party(client, PATH).watch() as view:
            assert view.wait(timeout=5.0) and watches(zookeeper) == before + 1
        with Party(client, PATH) as party, party.watch() as view:
            assert view.wait(timeout=5.0)
    client.sync("/")
    assert watches(zookeeper) == before


@pytest.mark.parametrize("operation", ["sync", "get_children", "get", "exists"])
def test_a_view_survives_lost_answers_and_leaves_nothing_when_it_is_killed_there(
    client: Client, other: Client, proxy: Any, zookeeper: Any, operation: str
) -> None:
    before = watches(zookeeper)
    with ExitStack() as stack:
        if operation != "exists":
            stack.enter_context(Party(other, PATH, "a"))
        with proxy.lose_answer_to(operation), Party(client, PATH).watch() as view:
            assert view.wait(timeout=10.0)
        with proxy.lose_answer_to(operation, then="hold") as lost:
            view = Party(client, PATH).watch()
            lost.wait()
            view._greenlet.kill()
            assert view.stop()
        proxy.cut()
        proxy.heal()
        assert client.session.wait(SessionState.CONNECTED, 10.0)
    eventually(lambda: watches(zookeeper) == before, "no watch is left")


def test_a_view_ends_with_its_client(client: Client) -> None:
    with Party(client, PATH).watch() as view:
        assert view.wait(timeout=5.0)
        client.stop()
        assert not view.is_current
        with pytest.raises(ZookeeperMisused, match="stopped"):
            view.wait(timeout=5.0)


# All of it.


def test_twenty_who_come_and_go_are_seen_alike_by_all_and_leave_nothing(
    zookeeper: Any, proxy: Any, observer: Any
) -> None:
    rng = random.Random(7)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(hosts, timeout=1.0))
            for hosts in (proxy.hosts, proxy.hosts, zookeeper.hosts, zookeeper.hosts)
        ]
        before = watches(zookeeper)
        parties = [Party(clients[n % 4], PATH, f"m{n}") for n in range(20)]
        told = [Told() for _ in clients]
        views = [parties[n].watch(told[n]) for n in range(4)]

        def churn(party: Party) -> None:
            for _ in range(rng.randrange(2, 6)):
                party.join(rng.choice([0.0, 0.01, 5.0]))
                gevent.sleep(rng.uniform(0, 0.05))
                party.leave(rng.choice([0.0, 1.0]))

        churning = [gevent.spawn(churn, party) for party in parties]
        for _ in range(3):
            gevent.sleep(0.05)
            proxy.cut()
            client = rng.choice(clients[2:])
            if client.session.state is SessionState.CONNECTED:
                zookeeper.expire(client)
        gevent.joinall(churning, timeout=30.0, raise_error=True)
        staying = parties[::2]
        for party in staying:
            assert party.join(10.0)
        for party in parties[1::2]:
            eventually(party.leave, "it has left")

        expected = {party.identifier for party in staying}
        assert {member.identifier for member in parties[0].members()} == expected
        assert len(parties[0]) == len(staying)
        for view, last in zip(views, told, strict=True):
            assert view.wait(lambda members: set(identifiers(members)) == expected, 10.0)
            last.comes_to(*identifiers(view.members))
            assert view.members == views[0].members

        for view in views:
            assert view.stop()
        for party in staying:
            eventually(party.leave, "it has left")
        assert nodes(observer) == []
        eventually(lambda: watches(zookeeper) == before, "no watch is left")
