"""Barriers: what they promise, and that no fault lets anybody through early or leaves a trace."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.zookeeper import (
    Barrier,
    Client,
    ConfigurationError,
    DoubleBarrier,
    SessionLost,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)

GATE = "/import/closed"
PATH = "/step"
KILLS: list[type[BaseException]] = [gevent.GreenletExit, KeyboardInterrupt]


@pytest.fixture
def client(zookeeper: Any) -> Client:
    made: Client = zookeeper.client()
    return made


@pytest.fixture
def far(zookeeper: Any, proxy: Any) -> Client:
    """A client behind the proxy."""
    made: Client = zookeeper.client(hosts=proxy.hosts, timeout=2.0)
    return made


SPAWNED: list[Any] = []


@pytest.fixture(autouse=True)
def no_trace(zookeeper: Any) -> Iterator[None]:
    """Whatever a test does, no watch is left when those who wait are killed."""
    yield
    gevent.killall(SPAWNED, timeout=5.0)
    SPAWNED.clear()
    eventually(lambda: not watches(zookeeper))


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def standing(client: Client) -> list[str]:
    return client.get_children(PATH) if client.exists(PATH) else []


def comes_to(client: Client, count: int) -> None:
    eventually(lambda: len(standing(client)) == count)


def ended(greenlet: Any, seconds: float = 5.0) -> Any:
    """What it returned; raises what it raised."""
    greenlet.join(seconds)
    assert greenlet.ready(), "it waits on"
    return greenlet.get()


def spawn(call: Callable[..., Any], *args: Any) -> Any:
    SPAWNED.append(gevent.spawn(call, *args))
    return SPAWNED[-1]


def no_claims(client: Client) -> bool:
    return not client._janitor._guids and not client._janitor.pending()


# Barrier.


def test_a_barrier_holds_up_those_who_come_until_it_is_removed(client: Client) -> None:
    gate = Barrier(client, GATE)
    assert gate.wait() and gate.wait(0)
    assert gate.create() and not gate.create()
    assert not gate.wait(0) and not gate.wait(0.02)
    waiters = [spawn(Barrier(client, GATE).wait) for _ in range(3)]
    gevent.sleep(0.02)

    assert gate.remove() and not gate.remove()

    assert all(ended(waiter) for waiter in waiters)


def test_a_barrier_is_kazoos(client: Client, zookeeper: Any) -> None:
    kazoo = client.Barrier(GATE)
    kazoo.create()
    assert not Barrier(client, GATE).wait(0)
    Barrier(client, GATE).remove()
    assert not client.exists(GATE)


def test_a_lost_answer_closes_and_opens_all_the_same(far: Client, proxy: Any) -> None:
    gate = Barrier(far, GATE)
    with proxy.lose_answer_to("create", containing=b"closed"):
        assert gate.create()
    assert not gate.wait(0)
    with proxy.lose_answer_to("delete"):
        assert gate.remove()
    with proxy.lose_answer_to("exists"):
        assert gate.wait()


def test_a_removal_whose_answer_is_lost_opens_nothing_that_was_closed_since(
    client: Client, far: Client, proxy: Any
) -> None:
    gate = Barrier(far, GATE)
    gate.create()
    with proxy.lose_answer_to("delete") as loss:
        removal = spawn(gate.remove)
        loss.wait()
        proxy.refuse()
        assert Barrier(client, GATE).create()
        proxy.heal()
        assert ended(removal)
    assert not gate.wait(0)


def test_without_an_answer_it_is_said_whether_the_gate_may_be_closed(
    far: Client, proxy: Any
) -> None:
    gate = Barrier(far, "/closed")
    proxy.hold()
    with pytest.raises(ZookeeperTimeout, match=r"^barrier /closed: no answer in ") as sent:
        gate.create(0.05)
    assert sent.value.maybe_executed

    proxy.refuse()
    proxy.cut()
    eventually(lambda: far.session.state.name != "CONNECTED")
    with pytest.raises(ZookeeperTimeout) as unsent:
        gate.remove(0.05)
    assert not unsent.value.maybe_executed


def test_a_gate_is_looked_at_behind_all_that_was_done_before(far: Client, proxy: Any) -> None:
    """Of servers of which one lags behind it is the latest that counts."""
    before = proxy.counts()
    assert Barrier(far, GATE).wait() and not Barrier(far, GATE).remove()
    spent = proxy.counts() - before
    assert spent["sync"] == spent["exists"] == 2


def test_a_wait_goes_on_in_the_next_session(zookeeper: Any, client: Client, far: Client) -> None:
    gate = Barrier(client, GATE)
    gate.create()
    waiter = spawn(Barrier(far, GATE).wait)
    eventually(lambda: watches(zookeeper))

    zookeeper.expire(far)
    eventually(lambda: far.session.epoch == 2)
    eventually(lambda: watches(zookeeper))
    assert not waiter.ready()
    gate.remove()

    assert ended(waiter)


def test_a_wait_keeps_to_its_timeout_without_a_connection(far: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    gate = Barrier(far, GATE)
    assert not spawn(gate.wait, 0.1).get(timeout=2.0)
    assert not spawn(gate.wait, 0).get(timeout=2.0)
    with deadline(0.05), pytest.raises(DeadlineExceeded, match="barrier /import/closed"):
        gate.wait()


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_waiter_leaves_no_watch(
    zookeeper: Any, client: Client, kill: type[BaseException]
) -> None:
    gate = Barrier(client, GATE)
    gate.create()
    waiter = spawn(outcome, gate.wait)
    eventually(lambda: watches(zookeeper))

    waiter.kill(kill, timeout=5.0)

    assert isinstance(waiter.value, kill)
    eventually(lambda: not watches(zookeeper))


def test_who_waits_at_a_client_that_stops_is_told(zookeeper: Any, client: Client) -> None:
    gate, barrier = Barrier(client, GATE), DoubleBarrier(client, PATH, 2)
    gate.create()
    waiters = [spawn(outcome, gate.wait), spawn(outcome, barrier.enter)]
    comes_to(client, 1)
    eventually(lambda: watches(zookeeper) == 3)

    client.stop()

    gevent.joinall(waiters, timeout=2.0)
    assert all(isinstance(waiter.value, ZookeeperMisused) for waiter in waiters)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except BaseException as e:
        return e


@pytest.mark.parametrize("make", [Barrier, lambda *args: DoubleBarrier(*args, 2)])
def test_what_cannot_be_a_barrier_is_said_at_once(client: Client, make: Any) -> None:
    with pytest.raises(ValueError, match="the path of a barrier"):
        make(client, "/")
    with pytest.raises(TypeError, match="the path of a barrier"):
        make(client, b"/x")
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        make(KazooClient(), "/x")


def test_a_barrier_is_for_one_client_at_least(client: Client) -> None:
    with pytest.raises(ValueError, match="one client at least, not 0"):
        DoubleBarrier(client, PATH, 0)
    with pytest.raises(TypeError, match="an int, not bool"):
        DoubleBarrier(client, PATH, True)
    with DoubleBarrier(client, PATH, 1) as alone:
        assert alone.participating


def test_another_thread_is_refused(client: Client) -> None:
    thread = gevent.get_hub().threadpool
    for call in (Barrier(client, GATE).wait, DoubleBarrier(client, PATH, 1).enter):
        with pytest.raises(ZookeeperMisused, match="thread"):
            thread.apply(call)
    assert standing(client) == []


# DoubleBarrier: rounds.


def test_all_are_in_before_one_goes_on_and_out_before_one_goes_on(zookeeper: Any) -> None:
    """In each of many rounds on the same path, by the same objects."""
    rounds, size = 25, 4
    entering, leaving = [0] * rounds, [0] * rounds
    clients = [zookeeper.client() for _ in range(2)]

    def work(barrier: DoubleBarrier) -> None:
        for number in range(rounds):
            entering[number] += 1
            assert barrier.enter()
            assert entering[number] == size, "somebody is in before all have come"
            assert barrier.participating
            gevent.sleep(random.random() / 500)
            leaving[number] += 1
            assert barrier.leave()
            assert leaving[number] == size, "somebody is out before all have left"
            assert not barrier.participating

    workers = [spawn(work, DoubleBarrier(clients[i % 2], PATH, size)) for i in range(size)]
    for worker in workers:
        ended(worker, 20.0)
    assert standing(clients[0]) == []
    assert all(no_claims(client) for client in clients)


def test_a_round_is_made_of_the_number_and_the_others_wait_for_the_next(client: Client) -> None:
    barriers = [DoubleBarrier(client, PATH, 2) for _ in range(4)]
    entries = {spawn(barrier.enter): barrier for barrier in barriers}
    gevent.joinall(list(entries), count=2, timeout=5.0)
    first = [barrier for entry, barrier in entries.items() if entry.ready()]
    gevent.sleep(0.05)
    assert sum(barrier.participating for barrier in barriers) == 2

    assert not first[0].leave(0)
    gevent.sleep(0.05)
    assert sum(barrier.participating for barrier in barriers) == 1, "a round within a round"
    assert first[1].leave()

    gevent.joinall(list(entries), timeout=5.0)
    second = [barrier for barrier in barriers if barrier.participating]
    assert len(second) == 2 and not set(second) & set(first)
    assert first[0].leave(), "it has seen its own round out, whoever is in now"


def test_who_did_not_wait_for_the_rest_may_do_so_later(client: Client) -> None:
    one, other = pair(client)
    assert not one.leave(0.02)
    assert not one.leave(0)
    waiting = spawn(one.leave)
    gevent.sleep(0.02)
    assert not waiting.ready()
    assert other.leave()
    assert ended(waiting)


def pair(*clients: Client) -> tuple[DoubleBarrier, DoubleBarrier]:
    """Two members, both in."""
    one, other = (DoubleBarrier(client, PATH, 2) for client in (clients * 2)[:2])
    entry = spawn(one.enter)
    assert other.enter(5.0)
    assert ended(entry)
    return one, other


def test_a_block_that_raises_leaves_without_waiting(client: Client) -> None:
    one, other = pair(client)
    assert other.leave(0) is False
    assert one.leave()

    def fail(barrier: DoubleBarrier) -> None:
        with barrier:
            raise KeyError("x")

    entry = spawn(one.enter)
    failing = spawn(outcome, fail, other)
    assert ended(entry)
    failing.join(5.0)
    assert isinstance(failing.value, KeyError)
    assert one.leave(5.0)


def test_calls_out_of_order_are_refused(client: Client) -> None:
    barrier = DoubleBarrier(client, PATH, 2)
    with pytest.raises(ZookeeperMisused, match="it is outside"):
        barrier.leave()
    entry = spawn(barrier.enter)
    comes_to(client, 1)
    with pytest.raises(ZookeeperMisused, match="it is being entered"):
        barrier.enter()
    entry.kill()
    comes_to(client, 0)
    one, _ = pair(client)
    with pytest.raises(ZookeeperMisused, match="it is inside"):
        one.enter()


def test_members_of_another_number_are_told(client: Client) -> None:
    three = spawn(DoubleBarrier(client, PATH, 3).enter)
    comes_to(client, 1)
    gevent.sleep(0.05)  # who comes later is told; who looks at the same time, too
    with pytest.raises(ConfigurationError, match="is for 2 here, and another member waits for 3"):
        DoubleBarrier(client, PATH, 2).enter(5.0)
    comes_to(client, 1)
    assert not three.ready()


@pytest.mark.parametrize("data", [b"1", b"{}", b"\xff", b"[" * 100_000])
def test_data_of_something_else_is_said_and_kept(client: Client, data: bytes) -> None:
    client.create(PATH, data)
    with pytest.raises(ConfigurationError, match="there is data of something else"):
        DoubleBarrier(client, PATH, 1).enter()
    assert client.get(PATH)[0] == data
    comes_to(client, 0)


def test_other_nodes_count_for_nobody(client: Client) -> None:
    for name in ("ready", "0" * 32, "x__member2", f"{'0' * 32}__member2x"):
        client.create(f"{PATH}/{name}", makepath=True)
    assert not DoubleBarrier(client, PATH, 2).enter(0.05)


def test_the_members_are_written_down(client: Client) -> None:
    one, other = (DoubleBarrier(client, PATH, 2, name) for name in ("one", "other"))
    entry = spawn(one.enter)
    other.enter()
    ended(entry)
    record = json.loads(client.get(PATH)[0])
    assert sorted(record["members"]) == sorted(standing(client))
    assert {client.get(f"{PATH}/{name}")[0] for name in standing(client)} == {b"one", b"other"}


# DoubleBarrier: time.


def test_nothing_stays_of_who_gave_up(client: Client) -> None:
    barrier = DoubleBarrier(client, PATH, 2)
    assert not barrier.enter(0)
    assert not barrier.enter(0.02)
    assert standing(client) == [] and no_claims(client)
    with deadline(0.05), pytest.raises(DeadlineExceeded, match="double barrier /step"):
        barrier.enter()
    comes_to(client, 0)
    eventually(lambda: no_claims(client))
    assert not DoubleBarrier(client, PATH, 2).enter(0.02), "somebody who gave up counts"


def test_the_last_one_needs_no_time(client: Client) -> None:
    entry = spawn(DoubleBarrier(client, PATH, 2).enter)
    comes_to(client, 1)
    assert DoubleBarrier(client, PATH, 2).enter(0)
    assert ended(entry)


def test_who_was_let_in_as_its_time_ended_is_in(zookeeper: Any, client: Client, proxy: Any) -> None:
    late = DoubleBarrier(zookeeper.client(hosts=proxy.hosts), PATH, 2)
    entry = spawn(late.enter, 0.6)
    comes_to(client, 1)
    eventually(lambda: watches(zookeeper) == 2)
    before = proxy.counts()["multi"]
    proxy.hold_replies()  # nobody tells it that the other one comes

    other = DoubleBarrier(client, PATH, 2)
    assert other.enter()
    eventually(lambda: proxy.counts()["multi"] > before)  # its time is over
    proxy.resume()

    assert ended(entry) and late.participating
    assert not other.leave(0.02), "the other one does not wait for it"
    assert late.leave() and other.leave()


def test_who_was_let_in_before_it_had_looked_is_in(
    zookeeper: Any, client: Client, proxy: Any
) -> None:
    late, other = (
        DoubleBarrier(zookeeper.client(hosts=proxy.hosts), PATH, 2),
        DoubleBarrier(client, PATH, 2),
    )
    client.ensure_path(PATH)
    loss = proxy.lose_answer_to("get", containing=PATH.encode(), then="hold")
    entry = spawn(late.enter, 0.3)
    loss.wait()

    assert other.enter(5.0)
    before = proxy.counts()
    eventually(lambda: proxy.counts() != before)  # its time is over
    proxy.resume()

    assert ended(entry) and late.participating
    assert not other.leave(0.02), "the other one does not wait for it"
    assert late.leave() and other.leave()


def test_a_deadline_that_is_over_keeps_no_member_inside(client: Client) -> None:
    one, other = pair(client)
    with deadline(0.001):
        gevent.sleep(0.01)
        with pytest.raises(DeadlineExceeded):
            one.leave()
    assert other.leave(5.0) and one.leave(5.0)

    def stay_too_long() -> None:
        with deadline(0.2), other:
            ended(entry)
            gevent.sleep(0.21)

    entry = spawn(one.enter)
    with pytest.raises(DeadlineExceeded):
        stay_too_long()
    assert one.leave(5.0)


def test_the_timeout_is_kept_without_a_connection(client: Client, far: Client, proxy: Any) -> None:
    barrier = DoubleBarrier(far, PATH, 2)
    entry = spawn(barrier.enter, 0.3)
    comes_to(client, 1)
    proxy.refuse()
    proxy.cut()
    assert not ended(entry, 2.0)
    proxy.heal()
    comes_to(client, 0)
    eventually(lambda: no_claims(far))


def test_a_leave_without_a_connection_leaves_when_there_is_one(
    client: Client, far: Client, proxy: Any
) -> None:
    one, other = pair(far, client)
    proxy.refuse()
    proxy.cut()
    assert not one.leave(0.1)
    proxy.heal()
    assert other.leave(5.0) and one.leave(5.0)


# DoubleBarrier: sessions.


def test_who_waits_stands_there_again_in_the_next_session(
    zookeeper: Any, client: Client, far: Client
) -> None:
    entry = spawn(DoubleBarrier(far, PATH, 2).enter)
    comes_to(client, 1)
    zookeeper.expire(far)
    eventually(lambda: far.session.epoch == 2)
    comes_to(client, 1)

    assert DoubleBarrier(client, PATH, 2).enter(5.0)

    assert ended(entry)


def test_who_waits_stands_there_again_when_its_node_was_deleted(
    client: Client, zookeeper: Any
) -> None:
    barrier = DoubleBarrier(client, PATH, 2)
    entry = spawn(barrier.enter)
    comes_to(client, 1)
    gevent.sleep(0.05)
    client.delete(f"{PATH}/{standing(client)[0]}")
    comes_to(client, 1)
    assert DoubleBarrier(client, PATH, 2).enter(5.0)
    assert ended(entry)


def test_who_waits_stands_there_again_when_all_was_deleted(client: Client) -> None:
    entry = spawn(DoubleBarrier(client, PATH, 2).enter)
    comes_to(client, 1)
    gevent.sleep(0.05)
    client.delete(PATH, recursive=True)
    comes_to(client, 1)
    assert DoubleBarrier(client, PATH, 2).enter(5.0)
    assert ended(entry)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_who_was_let_in_and_has_died_since_is_not_let_in(
    zookeeper: Any, client: Client, far: Client, proxy: Any, rounds: int
) -> None:
    """Though it is not, or not yet, or no more, to be seen what became of its round."""
    late = DoubleBarrier(far, PATH, 2)
    entry = spawn(outcome, late.enter)
    comes_to(client, 1)
    eventually(lambda: watches(zookeeper) == 2)
    session = far.client_id
    proxy.refuse()
    proxy.cut()
    other = DoubleBarrier(client, PATH, 2)
    assert other.enter()
    zookeeper.expire(session)
    assert other.leave(5.0)
    for _ in range(rounds):
        pair(client)
        for name in standing(client):
            client.delete(f"{PATH}/{name}")

    proxy.heal()

    entry.join(5.0)
    assert isinstance(entry.value, SessionLost), entry.value
    assert "/step: the session ended, and the others did not wait" in str(entry.value)
    comes_to(client, 0)
    entry = spawn(late.enter)
    assert other.enter(5.0) and ended(entry), "it cannot come again"


def test_who_dies_inside_holds_nobody_up_and_is_told(
    zookeeper: Any, client: Client, far: Client
) -> None:
    dead, living = pair(far, client)
    zookeeper.expire(far)
    eventually(lambda: far.session.epoch == 2)

    assert not dead.participating
    assert living.leave(5.0)
    with pytest.raises(SessionLost, match="the others did not wait"):
        dead.leave()

    entry = spawn(dead.enter)
    assert living.enter(5.0)
    assert ended(entry)


def test_whose_node_was_deleted_inside_is_told(client: Client) -> None:
    one, other = pair(client)
    client.delete(f"{PATH}/{one._node.name if one._node else ''}")
    with pytest.raises(ZookeeperError, match="somebody deleted the own node"):
        one.leave()
    assert other.leave(5.0)


def test_the_death_of_a_member_does_not_end_the_wait_for_another(
    zookeeper: Any, client: Client, far: Client
) -> None:
    barriers = [DoubleBarrier(c, PATH, 3) for c in (client, far, client)]
    for entry in [spawn(barrier.enter) for barrier in barriers]:
        ended(entry)
    leaving = spawn(barriers[0].leave)
    comes_to(client, 2)
    zookeeper.expire(far)
    comes_to(client, 1)
    gevent.sleep(0.05)
    assert not leaving.ready()
    assert barriers[2].leave(5.0) and ended(leaving)


def test_who_has_gone_since_it_was_seen_is_not_counted(
    client: Client, far: Client, proxy: Any
) -> None:
    first = spawn(DoubleBarrier(client, PATH, 2).enter)
    comes_to(client, 1)
    proxy.delay(replies=0.15)
    entry = spawn(DoubleBarrier(far, PATH, 2).enter)
    eventually(lambda: proxy.counts()["get_children"])  # it will see two

    first.kill()

    eventually(lambda: proxy.counts()["multi"])
    gevent.sleep(0.4)
    assert not entry.ready(), "it is in alone"
    assert client.get(PATH)[1].version == 0


def test_a_dead_session_counts_for_nobody_who_comes_later(
    zookeeper: Any, client: Client, far: Client
) -> None:
    entry = spawn(outcome, DoubleBarrier(far, PATH, 3).enter)
    comes_to(client, 1)
    far.stop()
    entry.join(2.0)
    others = [spawn(DoubleBarrier(client, PATH, 3).enter, 0.2) for _ in range(2)]
    assert not any(ended(other) for other in others)


def test_members_go_on_after_a_restart_of_the_server(zookeeper: Any) -> None:
    clients = [zookeeper.client(timeout=4.0) for _ in range(2)]
    first = spawn(DoubleBarrier(clients[0], PATH, 2).enter)
    comes_to(clients[0], 1)
    with zookeeper.kill():
        second = spawn(DoubleBarrier(clients[1], PATH, 2).enter)
        gevent.sleep(0.1)
    assert ended(first, 15.0) and ended(second, 15.0)


# DoubleBarrier: every answer lost, every request killed.

ENTRY = ["create", "get", "get_children", "multi"]
EXIT = ["delete", "get_children", "exists"]


@pytest.mark.parametrize(
    ("operation", "last"),
    [*[(operation, last) for operation in ENTRY[:3] for last in (False, True)], ("multi", True)],
)
def test_an_answer_that_is_lost_on_the_way_in_changes_nothing(
    client: Client, far: Client, proxy: Any, operation: str, last: bool
) -> None:
    far.ensure_path(PATH)
    near, distant = DoubleBarrier(client, PATH, 2), DoubleBarrier(far, PATH, 2)
    first, second = (near, distant) if last else (distant, near)
    loss = proxy.lose_answer_to(operation, containing=PATH.encode())
    entry = spawn(first.enter)
    comes_to(client, 1)
    gevent.sleep(0.05)  # whoever is the last opens it, so the first one has to look before
    assert second.enter(10.0)
    assert ended(entry)
    loss.wait()
    assert len(standing(client)) == 2
    assert client.get(PATH)[1].version == 1, "it was opened twice"


@pytest.mark.parametrize("operation", EXIT)
def test_an_answer_that_is_lost_on_the_way_out_changes_nothing(
    client: Client, far: Client, proxy: Any, operation: str
) -> None:
    near, distant = pair(client, far)
    with proxy.lose_answer_to(operation, containing=PATH.encode()):
        leaving = spawn(distant.leave)
        comes_to(client, 1)
        gevent.sleep(0.05)
        assert not leaving.ready()
        assert near.leave(5.0)
        assert ended(leaving)


@pytest.mark.parametrize("operation", [*ENTRY, "exists"])
@pytest.mark.parametrize("kill", KILLS)
def test_who_is_killed_on_the_way_in_leaves_nothing(
    client: Client, far: Client, proxy: Any, operation: str, kill: type[BaseException]
) -> None:
    """Wherever the kill strikes: while it waits for this answer, which comes or does not."""
    far.ensure_path(PATH)
    barrier = DoubleBarrier(far, PATH, 2)
    others = spawn_members(client, operation)
    loss = proxy.lose_answer_to(operation, containing=PATH.encode(), then="hold")
    entry = spawn(outcome, barrier.enter)
    loss.wait()

    entry.kill(kill, timeout=1.0)

    assert isinstance(entry.value, kill)
    assert not barrier.participating
    gevent.killall(others)
    proxy.cut()
    proxy.heal()
    comes_to(client, 0)
    eventually(lambda: no_claims(far) and no_claims(client))


def spawn_members(client: Client, operation: str) -> list[Any]:
    """What lets a member come as far as *operation*."""
    count = {"multi": 1, "exists": 2}.get(operation, 0)
    members = [spawn(hold_inside, DoubleBarrier(client, PATH, 2)) for _ in range(count)]
    comes_to(client, count)
    gevent.sleep(0.05)  # they have looked, and wait
    return members


def hold_inside(barrier: DoubleBarrier) -> None:
    with barrier:
        gevent.sleep(30.0)


@pytest.mark.parametrize("operation", EXIT)
@pytest.mark.parametrize("kill", KILLS)
def test_who_is_killed_on_the_way_out_has_left(
    client: Client, far: Client, proxy: Any, operation: str, kill: type[BaseException]
) -> None:
    near, distant = pair(client, far)
    loss = proxy.lose_answer_to(operation, containing=PATH.encode(), then="hold")
    leaving = spawn(outcome, distant.leave)
    loss.wait()

    leaving.kill(kill, timeout=1.0)

    assert isinstance(leaving.value, kill)
    proxy.cut()
    proxy.heal()
    assert near.leave(5.0)
    assert distant.leave(5.0)
    comes_to(client, 0)
    eventually(lambda: no_claims(far))


def test_cuts_and_deaths_at_any_moment_let_nobody_through_alone(zookeeper: Any) -> None:
    """Members of a barrier of three, of which each dies now and then and comes again."""
    rng, size, rounds = random.Random(7), 3, 0
    proxies = [zookeeper.proxy() for _ in range(size)]
    clients = [zookeeper.client(hosts=proxy.hosts, timeout=2.0) for proxy in proxies]
    there, stop = set[int](), False

    def work(number: int) -> None:
        nonlocal rounds
        barrier = DoubleBarrier(clients[number], PATH, size)
        while not stop:
            there.add(number)
            with contextlib.suppress(SessionLost):
                if barrier.enter(10.0):
                    assert len(there) == size, "somebody is in, and not all have come"
                    rounds += 1
                    barrier.leave(10.0)
            there.discard(number)
            gevent.sleep(rng.random() / 100)

    workers = [spawn(work, number) for number in range(size)]
    for _ in range(25):
        gevent.sleep(rng.random() / 10)
        if rng.random() < 0.8:
            rng.choice(proxies).cut()
        else:
            victim = rng.choice(clients)
            if victim.session.state.name == "CONNECTED":
                zookeeper.expire(victim)
    before = rounds
    eventually(lambda: rounds > before + 2 * size, 15.0)
    stop = True
    gevent.sleep(0.05)
    gevent.killall(workers, timeout=5.0)  # who waits for one that has stopped
    for worker in workers:
        worker.get()
    comes_to(clients[0], 0)
    eventually(lambda: all(no_claims(client) for client in clients))
