"""TreeCache: what it shows is what the servers have, soon after, whatever happens on the way."""

import gc
import logging
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.security import make_digest_acl

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder, check_obeys_deadline
from sepelib.zookeeper import (
    ChildrenWatch,
    Client,
    DataWatch,
    NodeData,
    TreeCache,
    TreeEvent,
    TreeEventType,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper.testing._frames import Frames, kind_of

T = 2.0
ROOT = "/app"
ADDED, UPDATED, REMOVED = (
    TreeEventType.NODE_ADDED,
    TreeEventType.NODE_UPDATED,
    TreeEventType.NODE_REMOVED,
)
SUSPENDED, LOST, RECONNECTED, INITIALIZED = (
    TreeEventType.CONNECTION_SUSPENDED,
    TreeEventType.CONNECTION_LOST,
    TreeEventType.CONNECTION_RECONNECTED,
    TreeEventType.INITIALIZED,
)


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def client(proxy: Any, recorder: MemoryRecorder) -> Iterator[Client]:
    """Behind the proxy."""
    with Client(proxy.hosts, timeout=T, recorder=recorder) as client:
        yield client


@pytest.fixture
def other(zookeeper: Any) -> Iterator[Client]:
    """Whom no fault meets."""
    with Client(zookeeper.hosts, timeout=20.0) as other:
        yield other


@pytest.fixture(params=["one watch", "each node"])
def both(request: pytest.FixtureRequest, client: Client) -> str:
    """As with a server of today, and as with one before 3.6."""
    client._recursive_offered = request.param == "one watch"
    return str(request.param)


class Told(list[TreeEvent]):
    """What a listener is told."""

    def __call__(self, event: TreeEvent) -> None:
        self.append(event)

    def of(self, *kinds: TreeEventType) -> list[str]:
        return [e.event_data.path for e in self if e.event_type in kinds and e.event_data]

    def kinds(self) -> list[TreeEventType]:
        return [event.event_type for event in self]


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come to that")):
        while not condition():
            gevent.sleep(0.005)


def settle(client: Client) -> None:
    """What has happened on the server by now has been asked for, and is here when this returns."""
    for _ in range(3):
        client.sync("/")
        gevent.sleep(0.01)


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


def cut_off(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    assert client.session.wait(client.session.state.SUSPENDED, 5.0)


def grow(client: Client, *paths: str) -> None:
    for path in paths:
        client.create(path, path.encode(), makepath=True)


def truth(client: Client, path: str = ROOT) -> dict[str, tuple[bytes, int, int]]:
    """What the servers have, when nobody changes it."""
    if client.exists(path) is None:
        return {}
    data, stat = client.get(path)
    found = {path: (data, stat.czxid, stat.mzxid)}
    for name in client.get_children(path):
        found |= truth(client, f"{path}/{name}" if path != "/" else f"/{name}")
    return found


def shown(cache: TreeCache, path: str | None = None) -> dict[str, tuple[bytes, int, int]]:
    """What the cache has."""
    path = path or cache.path
    node = cache.get_data(path)
    if node is None:
        return {}
    assert node.path == path and cache.exists(path)
    found = {path: (node.data, node.stat.czxid, node.stat.mzxid)}
    for name in cache.get_children(path, ()):
        found |= shown(cache, f"{path}/{name}" if path != "/" else f"/{name}")
    return found


# Reading.


def test_it_shows_the_tree_without_asking_anybody(
    client: Client, other: Client, proxy: Any, both: str
) -> None:
    grow(other, "/app/a/x", "/app/a/y", "/app/b")
    with TreeCache(client, ROOT) as cache:
        proxy.hold()
        node = cache.get_data("/app/a/x")
        assert node is not None
        assert (node.path, node.data, node.stat.version) == ("/app/a/x", b"/app/a/x", 0)
        assert cache.get_children(ROOT) == frozenset({"a", "b"})
        assert cache.get_children("/app/b") == frozenset()
        assert cache.get_children("/app/a/") == frozenset({"x", "y"})
        assert cache.exists("/app/a") and not cache.exists("/app/c")
        assert cache.get_data("/app/c") is None and cache.get_data("/app/c", 1) == 1
        assert cache.get_children("/app/c/d") is None
        proxy.heal()


def test_a_path_that_begins_alike_is_not_in_the_tree(client: Client, other: Client) -> None:
    grow(other, "/app/bar", "/appbar")
    with TreeCache(client, ROOT) as cache:
        for path in "/appbar", "/app2", "/", "/ap", "app/bar", "":
            with pytest.raises(ValueError, match="not below it"):
                cache.get_data(path)
            with pytest.raises(ValueError, match="not below it"):
                cache.get_children(path)
            with pytest.raises(ValueError, match="not below it"):
                cache.exists(path)
        other.set("/appbar", b"x")
        settle(client)
        assert set(shown(cache)) == {"/app", "/app/bar"}


def test_the_root_of_all_can_be_cached(client: Client, other: Client, both: str) -> None:
    grow(other, "/a/b")
    with TreeCache(client, "/") as cache:
        assert shown(cache) == truth(other, "/")
        grow(other, "/c")
        eventually(lambda: cache.get_children("/") == frozenset({"a", "c"}))
        assert cache.exists("/") and cache.exists("/a/b/")


def test_a_root_that_is_not_there_is_seen_when_it_comes(
    client: Client, other: Client, both: str
) -> None:
    told = Told()
    with TreeCache(client, ROOT) as cache:
        cache.listen(told)
        assert not cache.exists(ROOT) and cache.get_children(ROOT) is None
        for _ in range(3):
            grow(other, "/app/a")
            eventually(lambda: cache.exists("/app/a"))
            other.delete(ROOT, recursive=True)
            eventually(lambda: not cache.exists(ROOT))
        eventually(lambda: told.of(REMOVED) == ["/app/a", "/app"] * 3)
        assert told.of(ADDED) == ["/app", "/app/a"] * 3


def test_levels_below_the_deepest_are_not_read(client: Client, other: Client, both: str) -> None:
    grow(other, "/app/a/b/c")
    with (
        TreeCache(client, ROOT, max_depth=1) as cache,
        TreeCache(client, ROOT, max_depth=0) as flat,
    ):
        assert set(shown(cache)) == {"/app", "/app/a"}
        assert set(shown(flat)) == {"/app"}
        grow(other, "/app/a/b2", "/app/d/e")
        eventually(lambda: set(shown(cache)) == {"/app", "/app/a", "/app/d"})
        settle(client)
        assert set(shown(flat)) == {"/app"}


def test_reading_and_closing_work_in_another_thread(client: Client, other: Client) -> None:
    grow(other, "/app/a")
    pool = gevent.get_hub().threadpool
    cache = TreeCache(client, ROOT)
    with pytest.raises(ZookeeperMisused, match="thread"):
        pool.apply(cache.start)
    cache.start()
    assert pool.apply(cache.get_data, ("/app/a",)) == cache.get_data("/app/a")
    assert pool.apply(cache.get_children, (ROOT,)) == frozenset({"a"})
    pool.apply(cache.close)
    eventually(lambda: not cache.exists(ROOT))


# Following.


def test_events_tell_each_change_in_order(client: Client, other: Client, both: str) -> None:
    told = Told()
    grow(other, "/app/a")
    cache = TreeCache(client, ROOT)
    assert cache.listen(told) is told
    with cache:
        assert not cache.get_data("/app/b")
        eventually(lambda: INITIALIZED in told.kinds())
        assert told.of(ADDED) == ["/app", "/app/a"] and told.kinds()[-1] is INITIALIZED
        del told[:]
        other.create("/app/b", b"1")
        eventually(lambda: len(told) == 1)
        other.set("/app/b", b"2")
        eventually(lambda: len(told) == 2)
        other.delete("/app/b")
        eventually(lambda: len(told) == 3)
    assert told.kinds() == [ADDED, UPDATED, REMOVED]
    data = [event.event_data for event in told]
    assert all(isinstance(each, NodeData) for each in data)
    assert [(each.path, each.data) for each in data if each] == [
        ("/app/b", b"1"),
        ("/app/b", b"2"),
        ("/app/b", b"2"),
    ]


def test_a_node_made_again_with_its_children_is_removed_and_added(
    client: Client, other: Client, both: str
) -> None:
    told = Told()
    grow(other, "/app/a/b")
    with TreeCache(client, ROOT) as cache:
        cache.listen(told)
        again = other.transaction()
        again.delete("/app/a/b")
        again.delete("/app/a")
        again.create("/app/a", b"new")
        again.create("/app/a/c")
        again.commit()
        eventually(lambda: shown(cache) == truth(other))
        eventually(lambda: told.of(ADDED) == ["/app/a", "/app/a/c"])
        assert sorted(told.of(REMOVED)) == ["/app/a", "/app/a/b"]


def churn(client: Client, steps: int, seed: int) -> Iterator[int]:
    """Random changes below the root, deep and wide; yields after each."""
    rng = random.Random(seed)
    for step in range(steps):
        paths = list(truth(client)) or [ROOT]
        path = rng.choice(paths)
        kind = rng.random()
        if kind < 0.45 and path.count("/") < 6:
            client.create(f"{path}/{rng.randrange(6)}-{step % 7}", b"", makepath=True)
        elif kind < 0.75:
            if client.exists(path):
                client.set(path, b"%d" % step)
        elif kind < 0.95:
            client.delete(path, recursive=True)
        else:
            swap = client.transaction()
            for gone in sorted(truth(client, path), reverse=True):
                swap.delete(gone)
            swap.create(path, b"swapped")
            swap.create(f"{path}/in", b"")
            swap.commit()
        yield step


def check_order(told: Told) -> None:
    """Each node is added, updated and removed in turn, and gets never older."""
    there: dict[str, int] = {}
    for event in told:
        if event.event_data is None:
            continue
        path, _, stat = event.event_data
        if event.event_type is ADDED:
            assert path not in there
            assert path == ROOT or path.rpartition("/")[0] in there
            there[path] = stat.mzxid
        elif event.event_type is UPDATED:
            assert there[path] < stat.mzxid
            there[path] = stat.mzxid
        else:
            assert there.pop(path) <= stat.mzxid
            assert not any(other.startswith(path + "/") for other in there)


def attempt(changes: Iterator[int]) -> bool:
    try:
        next(changes)
    except KazooException:  # such as a node that is there already
        return False
    return True


@pytest.mark.parametrize("seed", [1, 2])
def test_it_comes_to_the_truth_under_churn_and_faults(
    client: Client, other: Client, proxy: Any, zookeeper: Any, both: str, seed: int
) -> None:
    told = Told()
    cache = TreeCache(client, ROOT)
    cache.listen(told)
    rng = random.Random(seed)
    grow(other, *(f"/app/{number}/{number}" for number in range(5)))
    starting = gevent.spawn(cache.start, 20.0)
    for round_ in range(6):
        for number in range(10):
            attempt(churn(other, 1, seed * 1000 + round_ * 10 + number))
        fault = rng.random()
        if fault < 0.4:
            proxy.cut()
        elif fault < 0.6 and client.session.state is client.session.state.CONNECTED:
            zookeeper.expire(client)
    starting.get()
    other.create(f"{ROOT}/last-", sequence=True, makepath=True)
    eventually(lambda: cache.in_sync and shown(cache) == truth(other))
    check_order(told)
    added, removed = set(told.of(ADDED)), set(told.of(REMOVED))
    assert set(shown(cache)) <= added and removed <= added
    cache.close()


def test_no_change_made_while_it_reads_is_lost(client: Client, other: Client, both: str) -> None:
    grow(other, *(f"/app/{number:03}" for number in range(200)))
    cache = TreeCache(client, ROOT)
    started = cache.start_async()
    for number in range(0, 200, 5):
        other.set(f"/app/{number:03}", b"new")
        other.delete(f"/app/{number + 1:03}")
        grow(other, f"/app/{number + 2:03}/below")
    assert started.wait(10.0)
    eventually(lambda: shown(cache) == truth(other))
    cache.close()


def test_only_so_many_requests_are_on_their_way(client: Client, other: Client, both: str) -> None:
    grow(other, *(f"/app/{number:03}" for number in range(400)))
    cache, most = TreeCache(client, ROOT), 0
    started = cache.start_async()
    while not started.is_set():
        most = max(most, len(client._pending) + len(client._queue))
        gevent.sleep(0.0005)  # which leaves the proxy's threads their turn
    assert 20 < most <= 110
    cache.close()


# Watches.


def test_it_has_one_watch_and_leaves_none(client: Client, other: Client, zookeeper: Any) -> None:
    grow(other, *(f"/app/{number}" for number in range(50)))
    before = watches(zookeeper)
    cache = TreeCache(client, ROOT)
    cache.start()
    # Servers before 3.9 count it in both of their tables.
    assert before + 1 <= watches(zookeeper) <= before + 2
    cache.close()
    cache.close()
    settle(client)
    assert watches(zookeeper) == before and not client._recursive_watchers
    assert not cache.exists(ROOT)


def test_without_recursive_watches_it_has_two_for_each_node_and_leaves_none(
    client: Client, other: Client, zookeeper: Any
) -> None:
    client._recursive_offered = False
    grow(other, *(f"/app/{number}" for number in range(50)))
    before = watches(zookeeper)
    cache = TreeCache(client, ROOT)
    cache.start()
    assert watches(zookeeper) == before + 2 * 51
    cache.close()
    settle(client)
    assert watches(zookeeper) == before
    assert not any(client._data_watchers.values()) and not any(client._child_watchers.values())


def test_a_missing_root_leaves_no_watch_either(client: Client, zookeeper: Any, both: str) -> None:
    before = watches(zookeeper)
    cache = TreeCache(client, ROOT)
    cache.start()
    settle(client)
    assert watches(zookeeper) > before
    cache.close()
    settle(client)
    assert watches(zookeeper) == before


@pytest.mark.parametrize("cache_first", [True, False])
def test_other_watches_of_the_same_node_and_it_do_not_end_each_other(
    client: Client, other: Client, zookeeper: Any, both: str, cache_first: bool
) -> None:
    """Servers before 3.9 know one mode for a path of a session (ZOOKEEPER-4466)."""
    data: list[bytes | None] = []
    names: list[list[str] | None] = []
    single: list[str] = []
    before = watches(zookeeper)
    grow(other, "/app/a")
    cache = TreeCache(client, ROOT)
    if cache_first:
        cache.start()
    data_watch = DataWatch(client, ROOT, lambda value, stat: data.append(value))
    names_watch = ChildrenWatch(client, ROOT, names.append)
    assert data_watch.wait(5.0) and names_watch.wait(5.0)
    if not cache_first:
        cache.start()
    client.get(ROOT, watch=lambda event: single.append(event.type))

    for number in range(3):
        other.set(ROOT, b"%d" % number)
        eventually(lambda: data[-1] == other.get(ROOT)[0])
        grow(other, f"/app/{number}")
        eventually(lambda: names[-1] == sorted(other.get_children(ROOT)))
        eventually(lambda: shown(cache) == truth(other))
    assert single == ["CHANGED"]

    data_watch.stop()
    names_watch.stop()
    settle(client)
    grow(other, "/app/b/c")
    other.set(ROOT, b"x")
    eventually(lambda: shown(cache) == truth(other))

    again = DataWatch(client, ROOT, lambda value, stat: data.append(value))
    assert again.wait(5.0)
    cache.close()
    settle(client)
    other.set(ROOT, b"y")
    eventually(lambda: data[-1] == b"y")
    again.stop()
    settle(client)
    assert watches(zookeeper) == before


def test_two_caches_of_a_path_go_on_without_each_other(
    client: Client, other: Client, zookeeper: Any, both: str
) -> None:
    before = watches(zookeeper)
    one, two = TreeCache(client, ROOT), TreeCache(client, ROOT)
    one.start()
    two.start()
    grow(other, "/app/a")
    eventually(lambda: shown(one) == shown(two) == truth(other))
    one.close()
    settle(client)
    grow(other, "/app/b")
    other.set("/app/a", b"x")
    eventually(lambda: shown(two) == truth(other))
    two.close()
    settle(client)
    assert watches(zookeeper) == before


@pytest.mark.parametrize("seed", [3])
def test_caches_and_watches_of_overlapping_paths_come_and_go_without_each_other(
    client: Client, other: Client, zookeeper: Any, proxy: Any, both: str, seed: int
) -> None:
    """The server has one watch of a path for all of them, and not of each kind."""
    rng = random.Random(seed)
    before = watches(zookeeper)
    paths = ["/app", "/app/a"]
    caches: list[TreeCache] = []
    told: dict[DataWatch | ChildrenWatch, list[Any]] = {}

    def begin() -> None:
        path, last = rng.choice(paths), [object()]
        kind = rng.randrange(4)
        if kind < 2:
            caches.append(TreeCache(client, path))
            caches[-1].start_async()
        elif kind == 2:
            told[DataWatch(client, path, lambda data, stat: last.__setitem__(0, data))] = last
        else:
            told[ChildrenWatch(client, path, partial(last.__setitem__, 0))] = last

    def end() -> None:
        if rng.random() < 0.5 and caches:
            caches.pop(rng.randrange(len(caches))).close()
        elif told:
            watch = rng.choice(list(told))
            del told[watch]
            watch.stop()

    def change(step: int) -> None:
        path = rng.choice([*paths, "/app/b", "/app/a/y"])
        with suppress(KazooException):
            if rng.random() < 0.3:
                other.delete(path, recursive=True)
            elif other.exists(path):
                other.set(path, b"%d" % step)
            else:
                other.create(path, b"%d" % step, makepath=True)

    def all_is_known() -> bool:
        for watch, last in told.items():
            there = other.exists(watch.path) is not None
            if isinstance(watch, DataWatch):
                now: Any = other.get(watch.path)[0] if there else None
            else:
                now = sorted(other.get_children(watch.path)) if there else None
            if last[0] != now:
                return False
        return all(
            cache.initialized.is_set() and shown(cache) == truth(other, cache.path)
            for cache in caches
        )

    for step in range(60):
        if rng.random() < 0.6:
            begin()
        change(2 * step)
        if rng.random() < 0.1:
            proxy.cut()
        if rng.random() < 0.5:
            end()
        if rng.random() < 0.5:
            gevent.sleep(rng.random() / 100)
        change(2 * step + 1)
        if step % 3 == 2:
            eventually(all_is_known)
    while caches or told:
        end()
    settle(client)
    assert watches(zookeeper) == before
    assert not client._recursive_watchers
    assert not any(client._data_watchers.values()) and not any(client._child_watchers.values())


def test_a_cache_made_at_once_after_one_that_was_closed_is_told(
    client: Client, other: Client, both: str
) -> None:
    one, two = TreeCache(client, ROOT), TreeCache(client, ROOT)
    one.start()
    one.close()
    two.start()
    grow(other, "/app/a")
    eventually(lambda: shown(two) == truth(other))
    two.close()


def old_server(address: tuple[str, int], *, answers: bool = True) -> StreamServer:
    """A way to *address* on which a request that is newer than 3.5 is an unknown one.

    Without *answers* the connection ends, as it does when what is behind that request is not read.
    """

    def serve(near: Any, _: object) -> None:
        far = gevent.socket.create_connection(address)

        def back() -> None:
            with suppress(OSError):
                while data := far.recv(65536):
                    near.sendall(data)
            near.close()

        backwards, frames, first = gevent.spawn(back), Frames(), True
        with suppress(OSError), closing(far):
            while data := near.recv(65536):
                for frame in frames.feed(data):
                    if first or kind_of(frame) != "add_watch":
                        far.sendall(frame)
                    elif answers:
                        far.sendall(frame[:8] + (999).to_bytes(4) + frame[12:])
                    else:
                        near.shutdown(socket.SHUT_RDWR)
                    first = False
        backwards.kill()

    return StreamServer(("127.0.0.1", 0), serve)


@pytest.mark.parametrize(("answers", "cuts"), [(True, 1), (False, 3)])
def test_an_older_server_costs_a_connection_and_is_read_all_the_same(
    zookeeper: Any, other: Client, caplog: pytest.LogCaptureFixture, answers: bool, cuts: int
) -> None:
    caplog.set_level(logging.INFO, "sepelib.zookeeper")
    told = Told()
    grow(other, "/app/a/b")
    server = old_server(zookeeper.server.address, answers=answers)
    server.start()
    hosts = f"127.0.0.1:{server.server_port}{zookeeper.chroot}"
    try:
        with Client(hosts, timeout=T) as client:
            cache = TreeCache(client, ROOT)
            cache.listen(told)
            cache.start()
            assert shown(cache) == truth(other)
            grow(other, "/app/a/c/d")
            other.set("/app/a", b"x")
            other.delete("/app/a/b")
            eventually(lambda: shown(cache) == truth(other))
            with TreeCache(client, "/") as second:
                assert second.exists("/app/a/c/d")
            assert caplog.text.count("no recursive watches") == 1
            assert told.kinds().count(SUSPENDED) == cuts
            cache.close()
    finally:
        server.stop()


# Connections and sessions.


def test_after_a_reconnect_what_differs_is_told_and_nothing_else(
    client: Client, other: Client, proxy: Any, both: str
) -> None:
    told = Told()
    grow(other, "/app/same", "/app/changed", "/app/gone/below", "/app/again", "/app/deep/er/gone")
    cache = TreeCache(client, ROOT)
    cache.listen(told)
    cache.start()
    assert cache.in_sync
    cut_off(client, proxy)
    assert not cache.in_sync
    eventually(lambda: SUSPENDED in told.kinds())
    del told[:]
    other.set("/app/changed", b"x")
    other.delete("/app/gone", recursive=True)
    other.delete("/app/again")
    other.create("/app/again")
    other.delete("/app/deep/er/gone")
    grow(other, "/app/deep/new/er")
    assert cache.exists("/app/gone/below")
    proxy.heal()
    eventually(lambda: INITIALIZED in told.kinds())
    assert shown(cache) == truth(other) and cache.in_sync
    assert told.kinds()[0] is RECONNECTED
    assert told.of(UPDATED) == ["/app/changed"]
    assert sorted(told.of(REMOVED)) == [
        "/app/again",
        "/app/deep/er/gone",
        "/app/gone",
        "/app/gone/below",
    ]
    assert sorted(told.of(ADDED)) == ["/app/again", "/app/deep/new", "/app/deep/new/er"]
    grow(other, "/app/later")
    eventually(lambda: told.of(ADDED)[-1] == "/app/later")
    cache.close()


def test_it_goes_on_over_expired_sessions(
    client: Client, other: Client, zookeeper: Any, both: str
) -> None:
    told = Told()
    grow(other, "/app/a")
    cache = TreeCache(client, ROOT)
    cache.start()
    cache.listen(told)
    for number in range(2):
        ended = client.session.session_id
        zookeeper.expire(client)
        grow(other, f"/app/{number}")
        eventually(lambda: shown(cache) == truth(other))
        assert client.session.session_id != ended
        other.set("/app/a", b"%d" % number)
        eventually(lambda: shown(cache) == truth(other))
    connection = [kind for kind in told.kinds() if kind in (LOST, SUSPENDED, RECONNECTED)]
    assert [kind for kind in connection if kind is not SUSPENDED] == [LOST, RECONNECTED] * 2
    cache.close()


def test_it_goes_on_when_the_client_is_stopped_and_started(
    client: Client, other: Client, proxy: Any, both: str
) -> None:
    told = Told()
    cache = TreeCache(client, ROOT)
    cache.start()
    cache.listen(told)
    client.stop()
    grow(other, "/app/a")
    eventually(lambda: told.kinds() == [LOST])
    before = proxy.counts()
    client.start()
    eventually(lambda: shown(cache) == truth(other))
    # A server may be behind what was shown, and the client has forgotten it.
    assert (proxy.counts() - before)["sync"] == 1
    cache.close()


def test_it_may_begin_before_the_client_does(zookeeper: Any, other: Client) -> None:
    grow(other, "/app/a")
    client = Client(zookeeper.hosts, timeout=T)
    cache = TreeCache(client, ROOT)
    initialized = cache.start_async()
    assert not initialized.wait(0.02) and not cache.in_sync
    with client:
        assert initialized.wait(10.0) and shown(cache) == truth(other)
        cache.close()


@pytest.mark.parametrize("request_", ["add_watch", "get", "get_children"])
def test_a_lost_answer_loses_nothing(
    client: Client, other: Client, proxy: Any, request_: str
) -> None:
    grow(other, "/app/a/b", "/app/c")
    cache = TreeCache(client, ROOT)
    with proxy.lose_answer_to(request_):
        cache.start()
    assert shown(cache) == truth(other)
    with proxy.lose_answer_to("get"):
        grow(other, "/app/d/e")
        eventually(lambda: shown(cache) == truth(other))
    cache.close()


def lose_by_the_clock(client: Client) -> None:
    """As after a hub that was blocked for long: the session is lost, its connection lives on."""
    session = client.session
    epoch, connected = session.epoch, client._connection.connect_sent
    session._lease.deadline = session.clock()
    client._beat.by(session.clock())
    eventually(lambda: session.epoch == epoch + 1)
    assert client._connection.connect_sent == connected


def test_a_session_lost_by_the_clock_alone_leaves_no_watch_behind(
    client: Client, other: Client, zookeeper: Any, both: str
) -> None:
    told = Told()
    before = watches(zookeeper)
    grow(other, "/app/a/b")
    cache = TreeCache(client, ROOT)
    cache.start()
    cache.listen(told)
    for number in range(3):
        lose_by_the_clock(client)
        eventually(lambda: cache.in_sync)
        other.set("/app/a/b", b"%d" % number)
        eventually(lambda: shown(cache) == truth(other))
    assert [kind for kind in told.kinds() if kind in (LOST, RECONNECTED)] == [LOST, RECONNECTED] * 3
    cache.close()
    settle(client)
    assert watches(zookeeper) == before and not client._recursive_watchers


def test_a_new_session_is_synced_until_the_server_has_answered_that(
    client: Client, other: Client, proxy: Any
) -> None:
    """Not until then the client knows what is too old for it."""
    grow(other, "/app/a")
    with TreeCache(client, ROOT) as cache:
        client.stop()
        before = proxy.counts()
        with proxy.lose_answer_to("sync"):
            client.start()
            eventually(lambda: client.session.state is client.session.state.SUSPENDED)
        eventually(lambda: cache.in_sync)
        assert (proxy.counts() - before)["sync"] == 2
        proxy.cut()
        eventually(lambda: not cache.in_sync)
        eventually(lambda: cache.in_sync)
        assert (proxy.counts() - before)["sync"] == 2


def test_one_cut_for_many_caches_is_one_cut(client: Client, other: Client, proxy: Any) -> None:
    """It takes several to conclude that the server is an old one."""
    grow(other, "/app/a")
    proxy.hold_replies()
    caches = [TreeCache(client, ROOT) for _ in range(5)]
    for cache in caches:
        cache.start_async()
    eventually(lambda: proxy.counts()["add_watch"] == 5)
    proxy.cut()
    eventually(lambda: client.session.state is client.session.state.SUSPENDED)
    proxy.heal()
    for cache in caches:
        assert cache.initialized.wait(10.0)
    assert client._recursive_offered
    for cache in caches:
        cache.close()


# Start and close.


def test_a_start_that_comes_to_no_end_is_a_timeout_and_leaves_nothing(
    client: Client, other: Client, proxy: Any, zookeeper: Any, both: str
) -> None:
    before = watches(zookeeper)
    grow(other, "/app/a")
    wakes = len(client.session._wakes)
    proxy.hold_replies()
    cache = TreeCache(client, ROOT)
    with pytest.raises(ZookeeperTimeout, match=r"^tree cache /app: not read within 0\.05 s"):
        cache.start(0.05)
    proxy.resume()
    settle(client)
    assert watches(zookeeper) == before and len(client.session._wakes) == wakes
    with pytest.raises(ZookeeperMisused, match="closed already"):
        cache.start()


@pytest.mark.parametrize("kill", [gevent.GreenletExit, gevent.Timeout, KeyboardInterrupt])
def test_a_start_that_is_killed_leaves_nothing(
    client: Client, other: Client, proxy: Any, zookeeper: Any, kill: type[BaseException], both: str
) -> None:
    before = watches(zookeeper)
    grow(other, "/app/a")
    proxy.hold_replies()
    raised: list[BaseException] = []

    def start() -> None:
        try:
            TreeCache(client, ROOT).start()
        except BaseException as error:
            raised.append(error)

    starting = gevent.spawn(start)
    gevent.sleep(0.02)
    starting.kill(kill)
    assert isinstance(raised[0], kill)
    proxy.resume()
    settle(client)
    assert watches(zookeeper) == before


def test_start_obeys_the_deadline(client: Client, proxy: Any) -> None:
    proxy.hold_replies()
    check_obeys_deadline(lambda: TreeCache(client, ROOT).start())
    with deadline(0.05), pytest.raises(DeadlineExceeded):
        TreeCache(client, ROOT).start(None)
    proxy.resume()


def test_it_is_started_once(client: Client) -> None:
    cache = TreeCache(client, ROOT)
    assert repr(cache) == "<TreeCache /app latent, 0 nodes>"
    cache.start()
    with pytest.raises(ZookeeperMisused, match="started already"):
        cache.start()
    assert cache.exists(ROOT) is False and cache.initialized.is_set()
    cache.close()
    with pytest.raises(ZookeeperMisused, match="closed already"):
        cache.start_async()
    never = TreeCache(client, ROOT)
    never.close()
    never.close()


def test_wrong_arguments_are_refused_at_once(client: Client) -> None:
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        TreeCache(KazooClient(), ROOT)
    with pytest.raises(TypeError, match="str"):
        TreeCache(client, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="levels"):
        TreeCache(client, ROOT, max_depth=-1)
    with pytest.raises(TypeError, match="callable"):
        TreeCache(client, ROOT).listen("x")  # type: ignore[type-var]


def test_the_number_of_nodes_is_a_metric(
    client: Client, other: Client, recorder: MemoryRecorder
) -> None:
    grow(other, "/app/a/b")
    with TreeCache(client, ROOT, path_class="config"):
        assert recorder.value("zk_tree_cache_nodes", "config") == 3
    assert recorder.value("zk_tree_cache_nodes", "config") == 0


# Listeners.


@pytest.mark.parametrize("error", [TypeError, gevent.Timeout, gevent.GreenletExit])
def test_what_a_listener_raises_is_logged_and_ends_that_call_alone(
    client: Client, other: Client, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told, failing = Told(), Told()

    def fail(event: TreeEvent) -> None:
        failing(event)
        raise error

    with TreeCache(client, ROOT) as cache:
        cache.listen(fail)
        cache.listen(told)
        grow(other, "/app/a")
        eventually(lambda: told.of(ADDED) == failing.of(ADDED) == ["/app", "/app/a"])
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == len(failing)
    assert failed[0].path == ROOT  # type: ignore[attr-defined]
    assert "tree cache /app" in failed[0].getMessage()


def test_a_slow_listener_delays_neither_the_cache_nor_others(client: Client, other: Client) -> None:
    told, slow, go = Told(), Told(), gevent.event.Event()

    def dawdle(event: TreeEvent) -> None:
        go.wait()
        slow(event)

    with TreeCache(client, ROOT) as cache:
        cache.listen(dawdle)
        cache.listen(told)
        grow(other, "/app/a", "/app/b")
        eventually(lambda: told.of(ADDED) == ["/app", "/app/a", "/app/b"])
        assert shown(cache) == truth(other)
        assert not slow
        go.set()
        eventually(lambda: slow == told)


def test_a_listener_that_was_removed_is_told_nothing_more(client: Client, other: Client) -> None:
    told, go = Told(), gevent.event.Event()

    def dawdle(event: TreeEvent) -> None:
        told(event)
        go.wait()

    with TreeCache(client, ROOT) as cache:
        cache.listen(dawdle)
        grow(other, "/app/a", "/app/b")
        eventually(lambda: shown(cache) == truth(other))
        cache.remove_listener(dawdle)
        go.set()
        gevent.sleep(0.02)
        assert len(told) == 1


def test_a_listener_may_close_the_cache(client: Client, other: Client, zookeeper: Any) -> None:
    told = Told()
    before = watches(zookeeper)
    cache = TreeCache(client, ROOT)

    @cache.listen
    def close(event: TreeEvent) -> None:
        told(event)
        if event.event_type is ADDED:
            cache.close()

    cache.start()
    grow(other, "/app/a", "/app/b")
    settle(client)
    assert told.of(ADDED) == ["/app"] and watches(zookeeper) == before


def test_no_listener_is_told_of_what_has_closed_the_cache(
    client: Client, other: Client, proxy: Any, zookeeper: Any
) -> None:
    told = Told()
    before = watches(zookeeper)
    cache = TreeCache(client, ROOT)
    remove = client.session.subscribe(cache.close)
    cache.start()
    cache.listen(told)
    proxy.cut()
    eventually(lambda: client.session.state is client.session.state.SUSPENDED)
    eventually(lambda: client.session.state is client.session.state.CONNECTED)
    settle(client)
    remove()
    assert not told and watches(zookeeper) == before


def test_memory_is_that_of_the_nodes_that_are_there(client: Client, other: Client) -> None:
    def live() -> int:
        gc.collect()
        ours = ("sepelib.zookeeper", "kazoo")
        return sum(str(type(each).__module__).startswith(ours) for each in gc.get_objects())

    def come_and_go(first: int) -> None:
        for number in range(first, first + 40):
            with other.transaction() as transaction:
                transaction.create(f"/app/{number}", b"")
                transaction.create(f"/app/{number}/below", b"")
            other.delete(f"/app/{number}", recursive=True)
        other.set(ROOT, b"%d" % first)
        eventually(lambda: shown(cache) == truth(other))

    grow(other, ROOT)
    for recursive in True, False:
        client._recursive_offered = recursive
        with TreeCache(client, ROOT) as cache:
            come_and_go(0)
            gevent.sleep(0.05)
            before = live()
            come_and_go(40)
            gevent.sleep(0.05)
            # Each of its 160 changes would leave something.
            assert live() < before + 40
            assert len(client._data_watchers) + len(client._child_watchers) <= 2


# Refusals.


def test_a_node_that_may_not_be_read_is_not_there_and_logged_once(
    client: Client, other: Client, both: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = [make_digest_acl("a", "b", all=True)]
    grow(other, "/app/open/a")
    for name in "x", "y":
        other.create(f"/app/{name}", b"secret", acl=secret)
    with TreeCache(client, ROOT) as cache:
        assert set(shown(cache)) == {"/app", "/app/open", "/app/open/a"}
        grow(other, "/app/later")
        eventually(lambda: cache.exists("/app/later"))
    refused = [record for record in caplog.records if "cannot be read" in record.getMessage()]
    assert [record.levelno for record in refused if record.levelno > logging.DEBUG] == [
        logging.WARNING
    ]


def test_a_node_that_may_not_be_read_any_more_is_gone_after_a_reconnect(
    client: Client, other: Client, zookeeper: Any, proxy: Any, both: str
) -> None:
    """Servers do not even tell of its end."""
    before = watches(zookeeper)
    grow(other, "/app/a/b", "/app/c")
    cache = TreeCache(client, ROOT)
    cache.start()
    other.add_auth("digest", "a:b")
    other.set_acls("/app/a", [make_digest_acl("a", "b", all=True)])
    proxy.cut()
    eventually(lambda: set(shown(cache)) == {"/app", "/app/c"})
    eventually(lambda: cache.in_sync)
    other.set("/app/c", b"x")
    eventually(lambda: cache.get_data("/app/c", None) == ("/app/c", *other.get("/app/c")))
    cache.close()
    settle(client)
    assert watches(zookeeper) == before


def troubled_server(address: tuple[str, int], operation: str, times: int) -> StreamServer:
    """A way to *address* on which the first *operation*s fail, as at a server with overload."""
    left = [times]

    def serve(near: Any, _: object) -> None:
        far = gevent.socket.create_connection(address)
        refused: set[bytes] = set()

        def back() -> None:
            frames = Frames()
            with suppress(OSError):
                while data := far.recv(65536):
                    for frame in frames.feed(data):
                        if frame[4:8] in refused:
                            refused.remove(frame[4:8])
                            # Of a reply: length, xid, zxid, error.
                            frame = b"\0\0\0\x10" + frame[4:16] + struct.pack(">i", -127)
                        near.sendall(frame)
            near.close()

        backwards, frames, first = gevent.spawn(back), Frames(), True
        with suppress(OSError), closing(far):
            while data := near.recv(65536):
                for frame in frames.feed(data):
                    if not first and kind_of(frame) == operation and left[0]:
                        left[0] -= 1
                        refused.add(frame[4:8])
                    far.sendall(frame)
                    first = False
        backwards.kill()

    return StreamServer(("127.0.0.1", 0), serve)


@pytest.mark.parametrize(
    ("operation", "times"), [("add_watch", 1), ("get", 2), ("get_children", 1)]
)
def test_an_error_that_says_nothing_of_the_node_does_not_hide_it(
    zookeeper: Any,
    other: Client,
    operation: str,
    times: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    grow(other, "/app/a/b", "/app/c")
    server = troubled_server(zookeeper.server.address, operation, times)
    server.start()
    try:
        hosts = f"127.0.0.1:{server.server_port}{zookeeper.chroot}"
        with Client(hosts, timeout=T) as client, TreeCache(client, ROOT) as cache:
            assert shown(cache) == truth(other) and cache.in_sync
            assert client._recursive_offered
    finally:
        server.stop()
    assert caplog.text.count("is tried again") == 1
