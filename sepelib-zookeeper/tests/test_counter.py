"""Counters and shared values: each change once, whatever answers, sessions and callers are lost."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from sepelib.util.deadline import deadline
from sepelib.zookeeper import (
    Client,
    ConfigurationError,
    Counter,
    SharedValue,
    ZookeeperMisused,
    ZookeeperTimeout,
)

PATH = "/app/hits"
KILLS: list[type[BaseException]] = [gevent.GreenletExit, KeyboardInterrupt]


@pytest.fixture
def client(zookeeper: Any) -> Client:
    made: Client = zookeeper.client()
    return made


@pytest.fixture
def far(zookeeper: Any, proxy: Any, client: Client) -> Iterator[Client]:
    """A client behind the proxy."""
    made: Client = zookeeper.client(hosts=proxy.hosts, timeout=2.0)
    yield made
    leaves_no_trace(client)  # what it still deletes goes through the proxy, which ends next


@pytest.fixture(autouse=True)
def no_trace(client: Client) -> Iterator[None]:
    yield
    leaves_no_trace(client)


def leaves_no_trace(client: Client) -> None:
    """Whatever a test does, no op node stays; but those with a key."""
    if client.connected:
        eventually(lambda: not ops(client))


def ops(client: Client) -> list[str]:
    if not client.exists(PATH):
        return []
    return [name for name in client.get_children(PATH) if not name.startswith("key-")]


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except BaseException as e:
        return e


def ended(greenlet: Any, seconds: float = 5.0) -> Any:
    """What it returned; raises what it raised."""
    greenlet.join(seconds)
    assert greenlet.ready(), "it waits on"
    return greenlet.get()


# Counter.


def test_a_counter_counts(client: Client) -> None:
    hits = Counter(client, PATH)
    assert hits.value == 0
    assert client.exists(PATH) is None, "to read is not to write"
    assert hits.add(3) == (0, 3)
    assert hits.add(-5) == (3, -2)
    assert Counter(client, PATH).value == -2


def test_it_begins_at_its_default(client: Client) -> None:
    hits = Counter(client, PATH, 10)
    assert hits.value == 10
    assert hits.add(0) == (10, 10)
    assert Counter(client, PATH).value == 10


def test_an_int_has_any_size(client: Client) -> None:
    hits, huge = Counter(client, PATH), 10**4000 + 1
    assert hits.add(huge) == (0, huge)
    assert hits.add(-1) == (huge, 10**4000)
    with pytest.raises(ValueError, match="digits"):
        hits.add(10**4300)
    assert hits.value == 10**4000


def test_a_float_is_exact_as_floats_are(client: Client) -> None:
    mass = Counter(client, PATH, 0.0)
    assert mass.add(0.1) == (0.0, 0.1)
    assert mass.add(1) == (0.1, 1.1)
    before, after = mass.add(1e-300, key="tiny")
    assert (before, after) == mass.add(1e-300, key="tiny")
    assert mass.value == 0.1 + 1


def test_a_float_stays_finite(client: Client) -> None:
    mass = Counter(client, PATH, 0.0)
    assert mass.add(1.5e308, key="most") == (0.0, 1.5e308)
    with pytest.raises(ValueError, match=r"counter /app/hits: 1.5e\+308 and 1e\+308 are inf"):
        mass.add(1e308)
    assert mass.add(1.5e308, key="most") == (0.0, 1.5e308), "it is done already"
    with pytest.raises(ValueError, match="cannot count"):
        mass.add(10**400)
    assert mass.add(0.1, key="a") == (1.5e308, 1.5e308)
    client.set(PATH, b"nan")
    for call in (lambda: mass.value, lambda: mass.add(1.0)):
        with pytest.raises(ConfigurationError, match=r"holds b'nan', which is no float"):
            call()
    assert client.get(PATH)[0] == b"nan"


class Wrapped(Client):
    """Reads of a node as it is after 2**32 - 1 changes: a set of that version is no check."""

    def get_async(self, path: str, watch: Any = None) -> Any:
        result = self.handler.async_result()

        def tell(answer: Any) -> None:
            if answer.exception is not None:
                result.set_exception(answer.exception)
            else:
                data, stat = answer.value
                result.set((data, stat._replace(version=-1)))

        super().get_async(path, watch).rawlink(tell)
        return result


def test_a_version_that_is_no_check_loses_no_addition(zookeeper: Any, client: Client) -> None:
    counters = []
    for _ in range(3):
        wrapped = Wrapped(zookeeper.hosts)
        wrapped.start()
        counters.append(Counter(wrapped, PATH))
    counters[0].add(0)

    def work(counter: Counter[int]) -> None:
        for _ in range(10):
            counter.add(1)

    for worker in [gevent.spawn(work, counter) for counter in counters]:
        ended(worker, 20.0)
    assert counters[0].value == 30
    for counter in counters:
        counter._client.close()
    client.delete(PATH, recursive=True)  # what stood in for the check is kept for an hour


def test_a_counter_is_kazoos(client: Client) -> None:
    theirs = client.Counter(PATH)
    theirs += 4
    ours = Counter(client, PATH)
    assert ours.add(1) == (4, 5)
    theirs += 2
    assert ours.value == theirs.value == 7
    assert client.get(PATH)[0] == b"7"


@pytest.mark.parametrize("n", [True, 1.0, "1", None])
def test_what_is_no_int_is_refused_at_once(client: Client, n: Any) -> None:
    with pytest.raises(TypeError, match="this counter takes int, not"):
        Counter(client, PATH).add(n)
    assert client.exists(PATH) is None


def test_what_cannot_be_counted_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ValueError, match="cannot count inf"):
        Counter(client, PATH, 0.0).add(float("inf"))
    with pytest.raises(TypeError, match="an int or a float, not bool"):
        Counter(client, PATH, True)
    with pytest.raises(ValueError, match="keep is positive"):
        Counter(client, PATH, keep=0)
    with pytest.raises(ValueError, match="the path of a counter"):
        Counter(client, "/")
    for key in ("", "x" * 201):
        with pytest.raises(ValueError, match="a key has 1 to 200"):
            Counter(client, PATH).add(1, key=key)


def test_there_is_no_plus(client: Client) -> None:
    hits: Any = Counter(client, PATH)
    with pytest.raises(TypeError, match="unsupported operand"):
        hits += 1
    with pytest.raises(TypeError, match="unsupported operand"):
        hits - 1


@pytest.mark.parametrize("data", [b"x", b"1.5", b"\xff", b"\0\0\0\1"])
def test_data_of_something_else_are_said_and_kept(client: Client, data: bytes) -> None:
    client.create(PATH, data, makepath=True)
    hits = Counter(client, PATH)
    for call in (lambda: hits.value, lambda: hits.add(1)):
        with pytest.raises(ConfigurationError, match=r"counter /app/hits: holds b'.*no int"):
            call()
    assert client.get(PATH)[0] == data


def test_the_value_has_all_that_was_answered_before(zookeeper: Any) -> None:
    one, other = zookeeper.client(), zookeeper.client()
    for number in range(1, 20):
        Counter(one, PATH).add(1)
        assert Counter(other, PATH).value == number


def test_an_addition_costs_three_requests(client: Client, far: Client, proxy: Any) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    eventually(lambda: not ops(client))
    before = proxy.counts()
    hits.add(1)
    eventually(lambda: not ops(client))
    spent = proxy.counts() - before
    # One in 256 additions looks for what dead processes left behind.
    assert {op: spent[op] for op in ("get", "multi", "delete")} == {
        "get": 1,
        "multi": 1,
        "delete": 1,
    }


def test_many_add_at_once(zookeeper: Any) -> None:
    clients = [zookeeper.client() for _ in range(5)]
    counters = [Counter(clients[number % 5], PATH) for number in range(20)]
    results = list[tuple[int, int]]()

    def work(counter: Counter[int], n: int) -> None:
        for _ in range(25):
            results.append(counter.add(n))

    workers = [gevent.spawn(work, hits, n) for n, hits in enumerate(counters)]
    for worker in workers:
        ended(worker, 30.0)

    total = 25 * sum(range(20))
    assert counters[0].value == total
    # Each began where another one has ended.
    moves = sorted(move for move in results if move[0] != move[1])
    assert [before for before, _ in moves] == [0, *(after for _, after in moves[:-1])]


def test_greenlets_that_share_a_counter_take_turns(client: Client, far: Client) -> None:
    hits = Counter(far, PATH)
    workers = [gevent.spawn(hits.add, 1) for _ in range(20)]
    assert sorted(ended(worker) for worker in workers) == [(n, n + 1) for n in range(20)]


# Counter: answers.

REQUESTS = ["get", "multi", "delete", "create"]


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("key", [None, "k"])
def test_a_lost_answer_adds_once(
    client: Client, far: Client, proxy: Any, operation: str, key: str | None
) -> None:
    if key and operation == "delete":
        operation = "multi"  # one with a key is kept
    hits = Counter(far, PATH)
    with proxy.lose_answer_to(operation):
        assert hits.add(2, key=key, timeout=10.0) == (0, 2)
        eventually(lambda: not ops(client))
    assert Counter(client, PATH).value == 2
    assert hits.add(1) == (2, 3)


def test_it_is_known_however_many_have_written_since(
    client: Client, far: Client, proxy: Any
) -> None:
    hits, others = Counter(far, PATH), Counter(client, PATH)
    others.add(10)
    with proxy.lose_answer_to("multi") as loss:
        adding = gevent.spawn(hits.add, 5)
        loss.wait()
        proxy.refuse()
        for _ in range(30):
            others.add(1)
        proxy.heal()
        assert ended(adding) == (10, 15)
    assert others.value == 45


def test_it_is_known_in_the_next_session(
    zookeeper: Any, client: Client, far: Client, proxy: Any
) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    session = far.client_id
    with proxy.lose_answer_to("multi") as loss:
        adding = gevent.spawn(hits.add, 5)
        loss.wait()
        proxy.refuse()
        zookeeper.expire(session)
        Counter(client, PATH).add(100)
        proxy.heal()
        assert ended(adding) == (1, 6)
    assert far.session.epoch == 2
    assert Counter(client, PATH).value == 106


def test_what_did_not_arrive_is_asked_for_again(client: Client, far: Client, proxy: Any) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    before = proxy.counts()["multi"]
    proxy.hold_requests()
    adding = gevent.spawn(hits.add, 5)
    gevent.sleep(0.05)
    Counter(client, PATH).add(100)
    proxy.cut()
    proxy.heal()
    assert ended(adding) == (101, 106)
    assert proxy.counts()["multi"] - before == 1
    assert hits.value == 106


def test_a_time_that_is_over_says_whether_it_may_be_added(far: Client, proxy: Any) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    with proxy.lose_answer_to("multi", then="hold") as loss:
        adding = gevent.spawn(outcome, lambda: hits.add(5, timeout=0.2))
        loss.wait()
        error = ended(adding)
    assert isinstance(error, ZookeeperTimeout) and error.maybe_executed
    assert str(error).startswith("counter /app/hits: no answer in ")
    assert str(error).endswith(" s; what was sent last is done, or not")
    proxy.cut()
    proxy.heal()
    assert hits.value == 6

    proxy.hold()
    with pytest.raises(ZookeeperTimeout) as unsent, deadline(0.05):
        hits.add(5)
    assert not unsent.value.maybe_executed
    proxy.heal()
    assert hits.value == 6


def test_with_a_key_it_is_asked_for_again(client: Client, far: Client, proxy: Any) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    with proxy.lose_answer_to("multi", then="hold"), pytest.raises(ZookeeperTimeout):
        hits.add(5, key="order/7", timeout=0.1)
    # This process dies; the next one has the order still.
    again = Counter(client, PATH)
    again.add(100)
    assert again.add(5, key="order/7") == (1, 6)
    assert again.add(5, key="order/8") == (106, 111)
    assert again.add(5, key="order/7") == (1, 6)
    assert again.value == 111
    with pytest.raises(ValueError, match="the key 'order/7' is one of adding 5"):
        again.add(6, key="order/7")


def test_a_key_that_many_use_at_once_adds_once(zookeeper: Any) -> None:
    counters = [Counter(zookeeper.client(), PATH) for _ in range(5)]
    workers = [gevent.spawn(hits.add, 1, key="same") for hits in counters]
    assert [ended(worker) for worker in workers] == 5 * [(0, 1)]
    assert counters[0].value == 1


def test_who_asks_for_longer_than_a_key_is_kept_does_not_add_again(
    client: Client, far: Client, proxy: Any
) -> None:
    hits, others = Counter(far, PATH, keep=0.2), Counter(client, PATH, keep=0.2)
    others.add(0)
    with proxy.lose_answer_to("multi") as loss:
        adding = gevent.spawn(outcome, lambda: hits.add(5, key="k", timeout=10.0))
        loss.wait()
        proxy.refuse()
    gevent.sleep(0.25)
    for _ in range(260):
        others.add(1)
    eventually(lambda: not client.exists(f"{PATH}/key-k"))
    proxy.heal()
    error = ended(adding)
    assert isinstance(error, ZookeeperTimeout) and error.maybe_executed
    assert others.value == 265


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("kill", KILLS)
def test_who_is_killed_leaves_no_node(
    client: Client, far: Client, proxy: Any, operation: str, kill: type[BaseException]
) -> None:
    hits = Counter(far, PATH)
    if operation != "create":
        hits.add(1)
    value = Counter(client, PATH).value
    loss = proxy.lose_answer_to(operation, then="hold")
    adding = gevent.spawn(outcome, hits.add, 5)
    loss.wait()

    adding.kill(kill, timeout=1.0)

    if operation != "delete":  # which is not waited for
        assert isinstance(adding.value, kill)
    proxy.cut()
    proxy.heal()
    eventually(lambda: not ops(client))
    assert Counter(client, PATH).value - value in (0, 5)
    assert ended(gevent.spawn(hits.add, 1))[1] == Counter(client, PATH).value, "it has no turn"


def test_an_op_node_goes_however_its_deletion_fares(
    client: Client, far: Client, proxy: Any
) -> None:
    hits = Counter(far, PATH)
    hits.add(1)
    before = proxy.counts()["multi"]
    proxy.delay(replies=0.2)
    adding = gevent.spawn(hits.add, 1)
    eventually(lambda: proxy.counts()["multi"] > before)
    proxy.hold_requests()
    ended(adding)
    gevent.sleep(0.02)  # the deletion is on its way, and ends there
    assert len(ops(client)) == 1
    proxy.cut()
    proxy.heal()
    eventually(lambda: not ops(client))


def test_who_is_killed_without_a_connection_leaves_no_node(
    client: Client, far: Client, proxy: Any
) -> None:
    hits = Counter(far, PATH)
    with proxy.lose_answer_to("multi") as loss:
        adding = gevent.spawn(outcome, hits.add, 1)
        loss.wait()
        proxy.refuse()
        eventually(lambda: far.session.state.name != "CONNECTED")
    adding.kill()
    assert len(ops(client)) == 1
    proxy.heal()
    eventually(lambda: not ops(client))


def test_what_dead_processes_left_is_swept_up(client: Client) -> None:
    """Their nodes are as old as they are by the clock of the servers."""
    hits = Counter(client, PATH, keep=0.2)
    hits.add(1, key="old")
    client.create(f"{PATH}/op-{'0' * 32}")
    client.create(f"{PATH}/other")
    gevent.sleep(0.3)
    for _ in range(260):
        hits.add(1)
    eventually(lambda: "key-old" not in client.get_children(PATH))
    left = client.get_children(PATH)
    assert f"op-{'0' * 32}" in left, "its caller may not know yet"
    assert "other" in left
    client.delete(PATH, recursive=True)


def test_the_node_may_be_deleted_meanwhile(client: Client) -> None:
    hits = Counter(client, PATH)
    hits.add(5)
    eventually(lambda: not ops(client))
    client.delete("/app", recursive=True)
    assert hits.value == 0
    assert hits.add(1) == (0, 1)


def test_a_stopped_client_and_another_thread_are_refused(client: Client) -> None:
    hits = Counter(client, PATH)
    with pytest.raises(ZookeeperMisused, match="thread"):
        gevent.get_hub().threadpool.apply(hits.add, (1,))
    client.stop()
    with pytest.raises(ZookeeperMisused, match="stopped"):
        hits.add(1)


def test_cuts_and_deaths_at_any_moment_lose_nothing_and_add_nothing(zookeeper: Any) -> None:
    rng = random.Random(3)
    proxies = [zookeeper.proxy() for _ in range(3)]
    clients = [zookeeper.client(hosts=proxy.hosts, timeout=2.0) for proxy in proxies]
    counters = [Counter(clients[number % 3], PATH) for number in range(6)]
    until = time.monotonic() + 1.2
    sure, unsure = 0, 0

    def work(counter: Counter[int]) -> None:
        nonlocal sure, unsure
        while time.monotonic() < until:
            n = rng.randrange(1, 10)
            try:
                before, after = counter.add(n, timeout=rng.choice([0.01, 5.0]))
                assert after - before == n
                sure += n
            except ZookeeperTimeout as e:
                unsure += n if e.maybe_executed else 0

    workers = [gevent.spawn(work, counter) for counter in counters]
    while time.monotonic() < until:
        gevent.sleep(rng.random() / 10)
        if rng.random() < 0.8:
            rng.choice(proxies).cut()
        elif (victim := rng.choice(clients)).session.state.name == "CONNECTED":
            zookeeper.expire(victim)
    for worker in workers:
        ended(worker, 15.0)

    assert sure > 50
    assert sure <= counters[0].value <= sure + unsure


# SharedValue.


def test_a_shared_value_is_set_and_read(client: Client) -> None:
    limits = SharedValue(client, PATH, b"default")
    assert limits.get() == (b"default", 0)
    assert client.exists(PATH) is None, "to read is not to write"
    limits.set(b"1")
    value, first = limits.get()
    assert value == b"1"
    limits.set(b"1")
    assert limits.get()[1] > first
    assert client.get(PATH)[0] == b"1"


def test_it_is_set_if_it_is_the_expected_one(client: Client) -> None:
    limits = SharedValue(client, PATH)
    assert limits.try_set(b"1", 0)
    assert not limits.try_set(b"2", 0)
    value, which = limits.get()
    assert limits.try_set(b"2", which)
    assert not limits.try_set(b"3", which)
    assert (value, limits.get()[0]) == (b"1", b"2")
    eventually(lambda: not ops(client))
    client.delete(PATH)
    client.create(PATH, b"new")
    assert not limits.try_set(b"3", which)


def test_an_update_is_repeated_until_nobody_was_faster(zookeeper: Any) -> None:
    values = [SharedValue(zookeeper.client(), PATH) for _ in range(5)]

    def work(value: SharedValue, letter: bytes) -> None:
        for _ in range(10):
            new = value.update(lambda old: old + letter)
            assert new is not None and new.endswith(letter)

    workers = [gevent.spawn(work, value, b"abcde"[i : i + 1]) for i, value in enumerate(values)]
    for worker in workers:
        ended(worker, 20.0)
    assert sorted(values[0].get()[0]) == sorted(b"abcde" * 10)


def test_what_is_not_changed_costs_one_round_trip(client: Client, far: Client, proxy: Any) -> None:
    """A sync, since the server may lag behind, and no op node to delete."""
    limits = SharedValue(far, PATH)
    limits.set(b"1")
    eventually(lambda: not ops(client))
    before = proxy.counts()
    assert not limits.try_set(b"2", 7)
    assert limits.update(lambda old: None) is None
    gevent.sleep(0.05)
    spent = proxy.counts() - before
    assert {op: spent[op] for op in ("sync", "get", "multi", "delete")} == {
        "sync": 2,
        "get": 2,
        "multi": 0,
        "delete": 0,
    }


def test_an_update_may_leave_all_as_it_is(client: Client) -> None:
    limits = SharedValue(client, PATH)
    limits.set(b"1")
    before = limits.get()
    assert limits.update(lambda old: None) is None
    with pytest.raises(KeyError):
        limits.update(lambda old: {}[old])
    with pytest.raises(TypeError, match="is bytes, not str"):
        limits.update(lambda old: "x")  # type: ignore[arg-type, return-value]
    assert limits.get() == before


@pytest.mark.parametrize("operation", ["get", "multi", "create"])
def test_a_lost_answer_sets_once(client: Client, far: Client, proxy: Any, operation: str) -> None:
    limits, others = SharedValue(far, PATH), SharedValue(client, PATH)
    with proxy.lose_answer_to(operation):
        assert limits.try_set(b"1", 0)
    assert others.get()[0] == b"1"
    eventually(lambda: not ops(client))
    with proxy.lose_answer_to("multi") as loss:
        setting = gevent.spawn(limits.set, b"2")
        loss.wait()
        proxy.refuse()
        others.set(b"3")
        proxy.heal()
        ended(setting)
    assert others.get()[0] == b"3", "what came later was overwritten"


def test_an_update_without_an_answer_is_not_asked_for_again(
    client: Client, far: Client, proxy: Any
) -> None:
    stock = SharedValue(far, PATH, b"1")

    def take(old: bytes) -> bytes:
        if old == b"0":
            raise LookupError("none is left")
        return str(int(old) - 1).encode()

    with proxy.lose_answer_to("multi"):
        assert stock.update(take) == b"0"
    with pytest.raises(LookupError):
        stock.update(take)


def test_a_value_is_bytes_that_the_servers_take(client: Client) -> None:
    limits = SharedValue(client, PATH)
    for call in (limits.set, lambda value: limits.try_set(value, 0)):
        with pytest.raises(TypeError, match="a shared value is bytes, not str"):
            call("x")
        with pytest.raises(ValueError, match="has 1000000 bytes at most"):
            call(b"x" * 1_000_001)
    limits.set(b"x" * 1_000_000)
    assert len(limits.get()[0]) == 1_000_000


def test_a_change_is_waited_for(zookeeper: Any, client: Client, far: Client) -> None:
    limits, others = SharedValue(far, PATH), SharedValue(client, PATH)
    _, seen = limits.get()
    assert not limits.wait_change(seen, 0.02) and not limits.wait_change(seen, 0)
    waiting = gevent.spawn(limits.wait_change, seen)
    gevent.sleep(0.05)
    assert not waiting.ready()
    others.set(b"1")
    assert ended(waiting)
    assert limits.wait_change(seen, 0), "it has changed already"
    value, seen = limits.get()
    assert value == b"1"

    waiting = gevent.spawn(limits.wait_change, seen)
    eventually(lambda: zookeeper.mntr()["zk_watch_count"])
    zookeeper.expire(far)
    eventually(lambda: far.session.epoch == 2)
    gevent.sleep(0.02)
    assert not waiting.ready()
    others.set(b"2")
    assert ended(waiting)
    eventually(lambda: not zookeeper.mntr()["zk_watch_count"])


def test_no_change_is_missed_while_cut_off(client: Client, far: Client, proxy: Any) -> None:
    limits = SharedValue(far, PATH)
    _, seen = limits.get()
    waiting = gevent.spawn(limits.wait_change, seen)
    gevent.sleep(0.05)
    proxy.refuse()
    proxy.cut()
    SharedValue(client, PATH).set(b"1")
    proxy.heal()
    assert ended(waiting)
