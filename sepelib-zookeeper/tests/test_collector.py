"""What the collector deletes, what it leaves, and that nobody who contends ever notices it."""

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from sepelib.util.deadline import deadline
from sepelib.util.testing import Clock, MemoryRecorder
from sepelib.zookeeper import (
    Client,
    Lock,
    LockGarbageCollector,
    Report,
    SessionState,
    ZookeeperMisused,
)
from sepelib.zookeeper._collect import Sighting, remembered

T = 2.0
IDLE = 600.0
MARKER = b'{"sepelib": "lock"}'


class Meddled(Client):
    """Calls *meddle* before each transaction is made, in the greenlet that makes it."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def transaction(self) -> Any:
        self.meddle()
        return super().transaction()


@pytest.fixture
def client(zookeeper: Any) -> Client:
    client: Client = zookeeper.client(timeout=10.0)
    client.create("/locks")
    return client


@pytest.fixture
def meddled(zookeeper: Any, client: Client) -> Iterator[Meddled]:
    with Meddled(zookeeper.hosts, timeout=10.0) as meddled:
        yield meddled


@pytest.fixture
def proxied(zookeeper: Any, proxy: Any, client: Client) -> Client:
    return zookeeper.client(hosts=proxy.hosts, timeout=T, request_timeout=0.5)


class Aging:
    """A collector, and the time it goes by."""

    def __init__(self, client: Client, *roots: str, **options: Any) -> None:
        self.clock = Clock()
        options = {"idle": IDLE, "rate": math.inf, "clock": self.clock} | options
        self.collector = LockGarbageCollector(client, roots or ("/locks",), **options)

    def look(self, after: float = 0.0) -> Report:
        self.clock.advance(after)
        return self.collector.collect()

    def twice(self) -> Report:
        self.look()
        return self.look(after=IDLE)


def used(client: Client, *paths: str, **options: Any) -> None:
    """Make empty parents that had a child once."""
    for path in paths:
        client.create(path, makepath=True, **options)
        client.create(f"{path}/child")
        client.delete(f"{path}/child")


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


# The rules, one after another.


def test_an_unused_parent_goes_when_it_was_seen_twice_long_enough_apart(client: Client) -> None:
    used(client, "/locks/a")
    aging = Aging(client)

    assert aging.look().deleted == 0
    assert aging.look(after=IDLE - 1).skipped == {"fresh": 1}
    report = aging.look(after=1)

    assert (report.scanned, report.empty, report.ripe, report.deleted) == (2, 1, 1, 1)
    assert report.removed == ("/locks/a",) and report.skipped == {} and report.trouble is None
    assert client.get_children("/locks") == []
    assert aging.collector.last == report


def test_the_parent_of_a_lock_that_was_used_goes(client: Client) -> None:
    lock = Lock(client, "/locks/deep/a")
    with lock:
        pass

    assert Aging(client).twice().removed == ("/locks/deep/a",)
    with lock:
        assert client.exists("/locks/deep/a")


def test_a_directory_goes_when_all_in_it_has_gone_for_long_enough(client: Client) -> None:
    used(client, "/locks/app/a", "/locks/app/b")
    aging = Aging(client)

    assert sorted(aging.twice().removed) == ["/locks/app/a", "/locks/app/b"]
    assert aging.look(after=IDLE).deleted == 0  # the directory is seen empty for the first time
    assert aging.look(after=IDLE).removed == ("/locks/app",)


def test_even_without_idle_one_look_is_not_enough(client: Client) -> None:
    used(client, "/locks/a")
    aging = Aging(client, idle=0.0)

    assert aging.look().deleted == 0
    assert aging.look().deleted == 1


@pytest.mark.parametrize("again", ["used", "made anew"])
def test_a_parent_that_was_used_between_two_looks_starts_anew(client: Client, again: str) -> None:
    used(client, "/locks/a")
    aging = Aging(client)
    aging.look()
    if again == "made anew":
        client.delete("/locks/a")
        used(client, "/locks/a")
    else:
        with Lock(client, "/locks/a"):
            pass

    assert aging.look(after=IDLE).skipped == {"fresh": 1}
    assert aging.look(after=IDLE - 1).deleted == 0
    assert aging.look(after=1).deleted == 1


def test_what_has_a_child_stays(client: Client) -> None:
    used(client, "/locks/held", "/locks/full")
    client.create("/locks/full/0", b"data")
    aging = Aging(client)

    with Lock(client, "/locks/held"):
        report = aging.twice()

    assert report.deleted == 0 and report.empty == 0
    assert client.exists("/locks/full/0") and client.exists("/locks/held")


def test_a_root_stays_and_so_does_what_is_beside_it(client: Client) -> None:
    used(client, "/locks/a", "/other/a", "/locksmith")
    aging = Aging(client, "/locks", "/locks/a", "/missing")
    aging.twice()
    aging.look(after=IDLE)

    assert aging.look(after=IDLE).deleted == 0
    assert client.get_children("/locks") == []  # what is below a root goes, root or not
    assert client.exists("/other/a") and client.exists("/locksmith")


def test_a_parent_that_never_had_a_child_stays(client: Client) -> None:
    client.create("/locks/barrier")  # which is closed as long as it exists

    assert Aging(client, unused_age=0.001).twice().skipped == {"unused": 1}


def test_one_that_is_marked_and_old_goes_though_it_never_had_a_child(client: Client) -> None:
    client.create("/locks/a", MARKER)

    young = Aging(client).twice()
    gevent.sleep(0.02)
    old = Aging(client, unused_age=0.01).twice()

    assert young.skipped == {"unused": 1} and young.empty == 0
    assert old.removed == ("/locks/a",)


def test_how_old_it_is_the_servers_say(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create("/locks/a", MARKER)
    early = time.time
    monkeypatch.setattr(time, "time", lambda: early() + 10 * 86400)

    assert Aging(client).twice().skipped == {"unused": 1}
    assert client.get_children("/locks") == ["a"]  # nothing is left of the question


@pytest.mark.parametrize("data", [b"x", b"0", b'{"sepelib": "lock" }', b"y" * len(MARKER)])
def test_a_parent_with_data_of_others_stays(client: Client, data: bytes) -> None:
    used(client, "/locks/a", value=data)

    assert Aging(client).twice().skipped == {"data": 1}


def test_a_parent_with_the_marker_goes(client: Client) -> None:
    used(client, "/locks/a", value=MARKER)

    assert Aging(client).twice().deleted == 1


def test_a_parent_with_an_acl_of_others_stays(client: Client) -> None:
    everybody = make_acl("world", "anyone", all=True)
    used(client, "/locks/a", acl=[make_digest_acl("a", "b", read=True), everybody])

    assert Aging(client).twice().skipped == {"acl": 1}


def test_a_parent_whose_acl_nobody_may_read_stays(client: Client) -> None:
    used(client, "/locks/a", acl=[make_acl("world", "anyone", create=True, delete=True)])

    assert Aging(client).twice().skipped == {"denied": 1}


def test_parents_with_the_clients_own_acl_go(zookeeper: Any, client: Client) -> None:
    options = {"auth_data": [("digest", "me:secret")], "default_acl": CREATOR_ALL_ACL}
    owner = zookeeper.client(**options)
    used(owner, "/locks/mine")
    used(owner, "/locks/open", acl=OPEN_ACL_UNSAFE)

    assert sorted(Aging(owner).twice().removed) == ["/locks/mine", "/locks/open"]


def test_what_is_ephemeral_stays(client: Client) -> None:
    client.create("/locks/a", ephemeral=True)

    assert Aging(client).twice().skipped == {"ephemeral": 1}


def test_a_container_goes_as_it_would_without_us(client: Client) -> None:
    with Lock(client, "/locks/a", container=True):  # nothing that is read tells it from others
        pass
    client.create_ttl("/locks/ttl", ttl=60.0)

    report = Aging(client).twice()

    assert report.removed == ("/locks/a",) and report.skipped == {"unused": 1}


@pytest.mark.parametrize(
    ("reason", "meddle"),
    [
        ("refilled", lambda client: client.create("/locks/a/fresh", ephemeral=True)),
        ("changed", lambda client: client.set("/locks/a", b"data")),
        ("gone", lambda client: client.delete("/locks/a")),
    ],
)
def test_what_changes_in_the_last_moment_stays(
    client: Client, meddled: Meddled, reason: str, meddle: Callable[[Client], object]
) -> None:
    used(client, "/locks/a")
    aging = Aging(meddled)
    aging.look()
    meddled.meddle = lambda: meddle(client)

    report = aging.look(after=IDLE)

    assert (report.ripe, report.deleted) == (1, 0)
    assert report.skipped == {reason: 1}
    if reason == "refilled":
        assert client.get_children("/locks/a") == ["fresh"]


def test_a_parent_without_permission_to_delete_stays(client: Client) -> None:
    client.create("/locks/dir", acl=[make_acl("world", "anyone", read=True, create=True)])
    client.create("/locks/dir/a")
    client.create("/locks/dir/a/child")
    client.delete("/locks/dir/a/child")

    assert Aging(client).twice().skipped == {"denied": 1}


def test_how_far_down_it_looks_is_limited(client: Client) -> None:
    used(client, "/locks/1/2/3")

    report = Aging(client, depth=2).twice()

    assert report.deleted == 0 and report.scanned == 3 and report.skipped == {"depth": 1}


def test_a_dry_run_tells_what_would_go(client: Client) -> None:
    used(client, "/locks/a", "/locks/b")
    client.create("/locks/c")
    before = client.exists("/locks").pzxid

    report = Aging(client, dry_run=True).twice()

    assert (report.ripe, report.deleted, report.dry_run) == (2, 0, True)
    assert sorted(report.removed) == ["/locks/a", "/locks/b"]
    assert client.exists("/locks").pzxid == before


def test_it_deletes_no_more_than_the_rate_a_second(client: Client) -> None:
    used(client, *(f"/locks/{number}" for number in range(21)))
    aging = Aging(client, rate=100.0)
    aging.look()

    report = aging.look(after=IDLE)

    assert report.deleted == 21 and report.seconds >= 0.2


def test_what_it_does_is_counted(zookeeper: Any) -> None:
    recorder = MemoryRecorder()
    client = zookeeper.client(recorder=recorder)
    used(client, "/locks/a", "/locks/b")
    client.set("/locks/b", b"data")

    Aging(client).twice()

    assert recorder.value("zk_gc_deleted") == 1
    assert recorder.value("zk_gc_skipped", "fresh") == 1
    assert recorder.value("zk_gc_skipped", "data") == 2


# Contenders.


def contend(client: Client, path: str, data: bytes = b"host:1", **options: Any) -> str:
    """As kazoo's lock does."""
    prefix = f"{path}/{random.getrandbits(128):032x}__lock__"
    options = {"ephemeral": True, "makepath": True} | options
    return str(client.create(prefix, data, sequence=True, **options))


def test_who_holds_for_long_while_others_wait_is_reported_and_stays(
    zookeeper: Any, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    other = zookeeper.client()
    node = contend(other, "/locks/a", b"host:7")
    contend(other, "/locks/a")
    contend(other, "/locks/alone")
    gevent.sleep(0.02)

    aging = Aging(client, suspect_age=0.01)
    with caplog.at_level(logging.INFO, "sepelib.zookeeper.collector"):
        aging.look()
        (orphan,) = aging.look().orphans

    assert (orphan.path, orphan.waiting, orphan.ephemeral) == ("/locks/a", 1, True)
    assert orphan.contender == ("host:7", client.exists(node).czxid, other.session.session_id)
    assert orphan.age > 0.01
    (record,) = caplog.records  # one for each, not one for each look
    assert record.levelname == "INFO" and "'host:7'" in record.getMessage()
    assert client.exists(node)
    assert not Aging(client).look().orphans  # by default an hour


def test_a_contender_that_may_not_be_read_stays_however_old(zookeeper: Any, client: Client) -> None:
    acl = [make_digest_acl("me", "x", all=True)]
    client.create("/locks/a")
    client.create("/locks/a/" + "0" * 32 + "__lock__0000000000", acl=acl)
    gevent.sleep(0.05)

    report = Aging(client, max_age=0.01).look()

    assert report.ripe == 0 and client.get_children("/locks/a")
    [orphan] = report.orphans
    assert orphan.contender.identifier == "" and not orphan.ephemeral


def test_what_is_of_the_own_session_is_the_janitors(client: Client) -> None:
    contend(client, "/locks/a")
    contend(client, "/locks/a")
    gevent.sleep(0.02)

    assert not Aging(client, suspect_age=0.01).look().orphans


def test_a_contender_that_is_not_ephemeral_is_reported_and_stays(client: Client) -> None:
    node = contend(client, "/locks/a", ephemeral=False)

    report = Aging(client).twice()

    assert [orphan.ephemeral for orphan in report.orphans] == [False]
    assert client.exists(node) and report.deleted == 0


def test_a_contender_that_is_not_ephemeral_goes_if_the_operator_says_so(
    zookeeper: Any, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    old = contend(client, "/locks/a", b"batch:1", ephemeral=False)
    kept = [
        contend(client, "/locks/a", b"other:1", ephemeral=False),
        contend(zookeeper.client(), "/locks/a", b"batch:2"),
    ]
    gevent.sleep(0.1)
    fresh = contend(client, "/locks/a", b"batch:3", ephemeral=False)

    with caplog.at_level(logging.WARNING, "sepelib.zookeeper"):
        report = Aging(client, max_age=0.1, matching="batch:[0-9]+").look()

    assert report.deleted == 1 and report.removed == (old,)
    assert all(client.exists(node) for node in [*kept, fresh]) and not client.exists(old)
    assert "'batch:1'" in caplog.records[0].getMessage()
    assert len(client.get_children("/locks/a")) == 3


def test_a_contender_that_shows_life_in_the_last_moment_stays(
    client: Client, meddled: Meddled
) -> None:
    node = contend(client, "/locks/a", ephemeral=False)
    gevent.sleep(0.02)
    meddled.meddle = lambda: client.set(node, b"alive")

    assert Aging(meddled, max_age=0.01).look().skipped == {"changed": 1}
    assert client.exists(node)


# Faults.


@pytest.mark.parametrize("operation", ["multi", "get_acls", "get_children"])
def test_a_lost_answer_is_looked_for_and_nothing_is_done_twice(
    client: Client, proxied: Client, proxy: Any, operation: str
) -> None:
    used(client, *(f"/locks/{number}" for number in range(20)))
    aging = Aging(proxied)
    aging.look()
    before = proxy.counts()

    with proxy.lose_answer_to(operation):
        report = aging.look(after=IDLE)

    assert report.trouble is None
    assert report.deleted + report.skipped.get("unanswered", 0) == 20
    assert report.deleted == 20 - len(client.get_children("/locks"))
    assert (proxy.counts() - before)["multi"] <= 20
    aging.look(after=IDLE)
    assert client.get_children("/locks") == []


def test_the_end_of_the_session_does_not_end_a_look(
    zookeeper: Any, client: Client, meddled: Meddled
) -> None:
    used(client, *(f"/locks/{number}" for number in range(20)))
    aging = Aging(meddled)
    aging.look()
    expired = []

    def expire_once() -> None:
        if not expired:
            expired.append(meddled.session.session_id)
            zookeeper.expire(meddled)

    meddled.meddle = expire_once
    report = aging.look(after=IDLE)

    assert report.trouble is None and meddled.session.session_id not in expired
    assert report.deleted == 20 - len(client.get_children("/locks"))
    assert report.deleted + report.skipped.get("unanswered", 0) == 20


def test_an_outage_ends_a_look_with_a_report_of_what_was_done(
    client: Client, proxied: Client, proxy: Any, flavour: Any
) -> None:
    used(client, *(f"/locks/{number}" for number in range(20)))
    aging = Aging(proxied, rate=50.0)
    aging.look()

    aging.clock.advance(IDLE)
    look = flavour.spawn(aging.collector.collect)
    flavour.eventually(lambda: len(client.get_children("/locks")) < 15, 5.0, "nothing is deleted")
    flavour.cut_off(proxied, proxy)
    report = flavour.result(look, 10.0, "the look hangs")

    assert report.trouble and "\n" not in report.trouble
    # The answer to one may have been lost with the connection.
    left = len(client.get_children("/locks"))
    assert 20 - left - 1 <= report.deleted <= 20 - left < 20
    proxy.heal()
    wait_until(lambda: proxied.session.state is SessionState.CONNECTED)
    assert aging.look().deleted == left  # what it had seen it still knows


def test_the_current_deadline_ends_a_look_with_a_report(client: Client) -> None:
    used(client, *(f"/locks/{number}" for number in range(20)))
    aging = Aging(client, rate=20.0)
    aging.look()

    with deadline(0.3):
        report = aging.look(after=IDLE)

    assert report.trouble is not None
    assert 0 < report.deleted == 20 - len(client.get_children("/locks")) < 20


def test_a_look_killed_at_any_request_leaves_nothing(
    zookeeper: Any, client: Client, meddled: Meddled
) -> None:
    call, count, strike = meddled._call, 0, math.inf

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == strike:
            gevent.spawn(look.kill, block=False)
        return call(*args)

    ended = False
    while not ended:
        used(client, "/locks/a")
        client.create("/locks/b", MARKER)
        gevent.sleep(0.002)
        aging = Aging(meddled, unused_age=0.001)
        aging.look()
        aging.clock.advance(IDLE)
        strike = 1 if strike == math.inf else strike + 1
        count = 0
        meddled._call = counted
        look = gevent.spawn(aging.collector.collect)
        look.join(10.0)
        assert look.ready()
        meddled._call = call
        ended = count < strike
        wait_until(lambda: meddled._janitor.pending() == 0)
        wait_until(lambda: set(client.get_children("/locks")) <= {"a", "b"}, 5.0)
        aging.look(after=IDLE)  # it can be used again
        for name in client.get_children("/locks"):
            client.delete(f"/locks/{name}")
    assert strike > 8


def test_looks_that_never_come_to_their_end_remember_no_more_than_others() -> None:
    old = dict.fromkeys((f"/old/{number}" for number in range(200_000)), Sighting(1, 1, 1, 0.0))
    new = {"/new": Sighting(1, 1, 1, 5.0), "/old/7": Sighting(7, 2, 2, 5.0)}

    kept = remembered(old, new)

    assert len(kept) == 200_000
    assert kept["/new"] == new["/new"] and kept["/old/7"] == new["/old/7"]
    assert remembered({"/a": old["/old/1"]}, new) == new | {"/a": old["/old/1"]}


def test_two_looks_at_once_are_refused(client: Client) -> None:
    used(client, *(f"/locks/{number}" for number in range(20)))
    collector = Aging(client).collector
    look = gevent.spawn(collector.collect)
    gevent.sleep(0)

    with pytest.raises(ZookeeperMisused, match="one look at a time"):
        collector.collect()
    assert look.get(timeout=5.0).scanned == 21
    assert collector.collect().scanned == 21


# On several hosts.


def test_of_several_hosts_one_collects_and_the_next_takes_over(
    zookeeper: Any, client: Client
) -> None:
    collectors = [
        LockGarbageCollector(zookeeper.client(), ["/locks"], interval=0.02, idle=0.0)
        for _ in range(3)
    ]
    for collector in collectors:
        collector.start()
    wait_until(lambda: any(collector.last for collector in collectors))
    (leader,) = [collector for collector in collectors if collector.service.is_leader]
    used(client, "/locks/a")
    wait_until(lambda: not client.exists("/locks/a"))
    assert [collector for collector in collectors if collector.last] == [leader]

    assert leader.stop()
    used(client, "/locks/b")
    wait_until(lambda: not client.exists("/locks/b"))

    assert not leader.service.is_leader
    assert all(collector.stop() for collector in collectors)
    assert client.get_children("/locks") == ["__collector__"]


def test_a_stop_ends_a_look_that_is_under_way(zookeeper: Any, client: Client) -> None:
    used(client, *(f"/locks/{number}" for number in range(50)))
    with LockGarbageCollector(
        client, ["/locks"], interval=0.01, idle=0.0, rate=10.0, path="/gc"
    ) as collector:
        wait_until(lambda: len(client.get_children("/locks")) < 50)
        assert collector.stop(timeout=5.0)
    left = len(client.get_children("/locks"))

    assert left > 30
    assert client.get_children("/gc") == []


def test_its_service_goes_on_in_a_new_session(zookeeper: Any, client: Client) -> None:
    working = zookeeper.client(timeout=T)
    with LockGarbageCollector(working, ["/locks"], interval=0.02, idle=0.0) as collector:
        wait_until(lambda: collector.last)
        zookeeper.expire(working)
        wait_until(lambda: not collector.service.is_leader)
        used(client, "/locks/a")
        wait_until(lambda: not client.exists("/locks/a"))


# Under churn.


def test_under_churn_exclusion_holds_and_nobody_fails(zookeeper: Any, client: Client) -> None:
    paths = [f"/locks/{number}" for number in range(6)]
    inside: dict[str, object] = {}
    tokens = dict.fromkeys(paths, 0)
    until, entered, deleted, refilled = time.monotonic() + 1.0, 0, 0, 0

    def goes_on() -> bool:
        return time.monotonic() < until or entered <= 200 or deleted <= 40

    def work(client: Client, rng: random.Random) -> None:
        nonlocal entered
        me = object()
        while goes_on():
            path = rng.choice(paths)
            lock = Lock(client, path, on_lost=lambda lock, reason: losses.append(reason))
            assert lock.acquire(timeout=10.0)
            assert inside.setdefault(path, me) is me, "two hold it"
            assert lock.fencing_token > tokens[path]
            tokens[path] = lock.fencing_token
            entered += 1
            gevent.sleep(rng.choice([0.0, 0.001, 0.005]))
            assert inside.pop(path) is me and lock.is_acquired
            assert lock.release()
            gevent.sleep(rng.random() * 0.03)

    def collect(client: Client) -> None:
        nonlocal deleted, refilled
        collector = LockGarbageCollector(client, ["/locks"], idle=0.0, rate=math.inf)
        while goes_on():
            report = collector.collect()
            deleted += report.deleted
            refilled += report.skipped.get("refilled", 0)
            gevent.sleep(0)

    losses: list[str] = []
    greenlets = [gevent.spawn(work, zookeeper.client(), random.Random(n)) for n in range(10)]
    greenlets += [gevent.spawn(collect, zookeeper.client()) for _ in range(2)]
    gevent.joinall(greenlets, timeout=20.0, raise_error=True)

    assert all(greenlet.successful() for greenlet in greenlets)
    assert losses == []
    assert entered > 200 and deleted > 40, f"{entered} entered, {deleted} deleted, {refilled}"


def test_an_acquire_whose_path_is_deleted_between_its_steps_comes_through(
    zookeeper: Any, client: Client
) -> None:
    deleted = 0

    class Unlucky(Client):
        def ensure_parent_async(self, path: str, *, container: bool = True) -> Any:
            result = super().ensure_parent_async(path, container=container)

            def delete() -> None:
                nonlocal deleted
                if deleted < 5:
                    deleted += 1
                    client.delete(path)

            result.get()
            delete()
            return result

    with Unlucky(zookeeper.hosts) as unlucky, Lock(unlucky, "/locks/a/b") as lock:
        assert lock.is_acquired and deleted == 5


# Use.


@pytest.mark.parametrize(
    ("roots", "options"),
    [
        ((), {}),
        (("/",), {}),
        (("/a",), {"rate": 0}),
        (("/a",), {"interval": 0}),
        (("/a",), {"idle": -1}),
        (("/a",), {"idle": math.inf}),
        (("/a",), {"max_age": 0}),
        (("/a",), {"depth": 0}),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    client: Client, roots: tuple[str, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"(root|positive|finite|path)"):
        LockGarbageCollector(client, roots, **options)


def test_the_servers_own_nodes_are_no_root() -> None:
    for hosts, root in (("h:1", "/zookeeper"), ("h:1/zookeeper", "/quota")):
        with pytest.raises(ValueError, match="belongs to the servers"):
            LockGarbageCollector(Client(hosts), [root])


def test_one_str_is_no_list_of_roots(client: Client) -> None:
    with pytest.raises(TypeError, match="several"):
        LockGarbageCollector(client, "/locks")


def test_a_client_that_is_stopped_is_said(client: Client) -> None:
    collector = LockGarbageCollector(client, ["/locks"])
    client.stop()

    with pytest.raises(ZookeeperMisused):
        collector.collect()
