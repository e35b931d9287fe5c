"""DataWatch and ChildrenWatch: the last state always arrives, whatever happens on the way."""

import gc
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import ChildrenWatch, Client, DataWatch, ZookeeperMisused

T = 2.0
PATH = "/config"

Watching = type[DataWatch] | type[ChildrenWatch]


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


class Told(list[Any]):
    """What a callback is told: the data, or the names of the children."""

    def __call__(self, value: Any, stat: Any = None) -> None:
        self.append(value)

    def comes_to(self, *values: Any) -> None:
        eventually(lambda: self == list(values))

    def ends_with(self, value: Any) -> None:
        eventually(lambda: self and self[-1] == value)


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come to that")):
        while not condition():
            gevent.sleep(0.005)


def settle(client: Client) -> None:
    """What has happened on the server by now is told when this returns."""
    client.sync("/")
    gevent.sleep(0.02)


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


def cut_off(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    assert client.session.wait(client.session.state.SUSPENDED, 5.0)


def change(client: Client, number: int) -> Any:
    """Another state of both kinds, from nothing on; what is told of it, by kind."""
    if client.exists(PATH) is None:
        client.create(PATH)
    client.set(PATH, b"%d" % number)
    client.create(f"{PATH}/{number:04}")
    return {DataWatch: b"%d" % number, ChildrenWatch: sorted(client.get_children(PATH))}


BOTH = pytest.mark.parametrize("watching", [DataWatch, ChildrenWatch])


# What is told.


def test_data_and_stat_are_told_first_and_with_each_change(client: Client, other: Client) -> None:
    told: list[Any] = []
    other.create(PATH, b"a")

    def tell(data: bytes | None, stat: Any) -> None:
        told.append((data, stat.version))

    watch = DataWatch(client, PATH, tell)
    assert watch.wait(5.0) and told == [(b"a", 0)]

    for number, data in enumerate((b"b", b"b", b""), 1):
        other.set(PATH, data)
        eventually(partial(lambda count: len(told) == count, number + 1))
    assert told == [(b"a", 0), (b"b", 1), (b"b", 2), (b"", 3)]


def test_children_are_told_in_order_first_and_with_each_change(
    client: Client, other: Client
) -> None:
    told = Told()
    other.create(f"{PATH}/b", makepath=True)

    ChildrenWatch(client, PATH, told)
    told.comes_to(["b"])
    other.create(f"{PATH}/c")
    told.comes_to(["b"], ["b", "c"])
    other.create(f"{PATH}/a")
    told.ends_with(["a", "b", "c"])
    other.delete(f"{PATH}/b")
    told.ends_with(["a", "c"])
    other.set(PATH, b"which is no change of children")
    settle(client)
    assert len(told) == 4


@pytest.mark.parametrize(
    ("watching", "made"), [(DataWatch, b""), (ChildrenWatch, [])], ids=["data", "children"]
)
def test_no_node_is_a_state_and_each_later_one_is_seen(
    client: Client, other: Client, watching: Watching, made: Any
) -> None:
    told, states = Told(), [None]
    watching(client, "/not/yet", told)
    told.comes_to(None)
    for _ in range(3):
        other.create("/not/yet", makepath=True)
        states.append(made)
        told.comes_to(*states)
        other.delete("/not/yet")
        states.append(None)
        told.comes_to(*states)


def test_a_child_made_again_under_its_name_is_another_state(client: Client, other: Client) -> None:
    told = Told()
    other.create(f"{PATH}/a", makepath=True)
    ChildrenWatch(client, PATH, told)
    told.comes_to(["a"])

    again = other.transaction()
    again.delete(f"{PATH}/a")
    again.create(f"{PATH}/a")
    again.commit()

    told.comes_to(["a"], ["a"])


def test_a_node_made_again_with_the_same_data_is_another_state(
    client: Client, other: Client
) -> None:
    told = Told()
    other.create(PATH, b"x")
    DataWatch(client, PATH, told)
    told.comes_to(b"x")

    again = other.transaction()
    again.delete(PATH)
    again.create(PATH, b"x")
    again.commit()

    told.comes_to(b"x", b"x")


@BOTH
def test_a_node_made_between_the_two_requests_that_look_for_it_is_seen(
    client: Client, other: Client, proxy: Any, zookeeper: Any, watching: Watching
) -> None:
    told = Told()
    before = watches(zookeeper)
    proxy.hold_replies()
    watching(client, PATH, told)
    eventually(lambda: proxy.counts()["get" if watching is DataWatch else "get_children"])
    last = change(other, 0)[watching]
    proxy.resume()
    told.comes_to(last)
    settle(client)
    assert watches(zookeeper) == before + 1


def test_the_root_can_be_watched(client: Client, other: Client) -> None:
    told = Told()
    ChildrenWatch(client, "/", told)
    told.comes_to([])
    other.create("/a")
    told.comes_to([], ["a"])


@BOTH
def test_a_decorator_gives_the_function_back(client: Client, watching: Watching) -> None:
    told = Told()
    watch = watching(client, PATH)
    assert not watch.wait(0.01)

    assert watch(told) is told
    assert watch.wait(5.0) and told == [None]
    with pytest.raises(ZookeeperMisused, match="has a callback already"):
        watch(told)


# Slow callbacks.


@BOTH
def test_callbacks_do_not_overlap_and_the_last_state_arrives(
    client: Client, other: Client, watching: Watching
) -> None:
    running, told = [], Told()
    begun, go = gevent.event.Event(), gevent.event.Event()

    def dawdle(value: Any, stat: Any = None) -> None:
        running.append(value)
        assert len(running) == 1
        begun.set()
        go.wait()
        gevent.sleep(0)
        running.pop()
        told(value)

    watching(client, PATH, dawdle)
    assert begun.wait(5.0)
    for number in range(20):
        last = change(other, number)[watching]
    settle(client)
    go.set()

    told.comes_to(None, last)


@BOTH
def test_a_change_that_is_undone_before_it_is_told_is_not_told(
    client: Client, other: Client, watching: Watching
) -> None:
    told, go = Told(), gevent.event.Event()

    def dawdle(value: Any, stat: Any = None) -> None:
        told(value)
        go.wait()

    watching(client, PATH, dawdle)
    told.comes_to(None)
    other.create(PATH)
    settle(client)
    other.delete(PATH)
    settle(client)
    go.set()

    gevent.sleep(0.05)
    assert told == [None]


def test_a_slow_callback_delays_no_other_watch_of_its_path(client: Client, other: Client) -> None:
    told, never = Told(), gevent.event.Event()
    slow = DataWatch(client, PATH, lambda data, stat: never.wait())
    DataWatch(client, PATH, told)
    told.comes_to(None)
    other.create(PATH)
    told.comes_to(None, b"")
    assert not slow.wait(0)
    never.set()


# Callbacks that fail.


@BOTH
@pytest.mark.parametrize("error", [TypeError, OSError, gevent.Timeout, gevent.GreenletExit])
def test_what_a_callback_raises_is_logged_and_ends_that_call_alone(
    client: Client,
    other: Client,
    watching: Watching,
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    recorder: MemoryRecorder,
) -> None:
    told = Told()

    def fail(value: Any, stat: Any = None) -> None:
        told(value)
        raise error

    watch = watching(client, PATH, fail)
    told.comes_to(None)
    assert watch.wait(5.0)
    last = change(other, 1)[watching]
    told.ends_with(last)
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == len(told)
    assert failed[0].path == PATH  # type: ignore[attr-defined]
    assert "fail" in failed[0].getMessage() and error.__name__ in failed[0].getMessage()
    assert recorder.value("zk_watch_callbacks", "failed") == len(told)


@BOTH
def test_a_callback_that_kills_its_own_greenlet_is_called_again(
    client: Client, other: Client, watching: Watching
) -> None:
    told = Told()

    def die(value: Any, stat: Any = None) -> None:
        told(value)
        here: Any = gevent.getcurrent()
        here.kill()

    watching(client, PATH, die)
    told.comes_to(None)
    told.ends_with(None)
    last = change(other, 1)[watching]
    told.ends_with(last)


@BOTH
def test_there_is_no_greenlet_that_could_be_killed(
    client: Client, other: Client, watching: Watching
) -> None:
    told = Told()
    before = {id(each) for each in alive()}
    watching(client, PATH, told)
    told.comes_to(None)
    for number in range(2):
        last = change(other, number)[watching]
        told.ends_with(last)
        gevent.sleep(0)
        assert {id(each) for each in alive()} <= before


def alive() -> list[Any]:
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet)]
    return [each for each in found if not each.dead]


# The end.


@BOTH
def test_a_callback_that_returns_false_is_not_called_again(
    client: Client, other: Client, zookeeper: Any, watching: Watching
) -> None:
    told = Told()
    before = watches(zookeeper)
    change(other, 0)

    def once(value: Any, stat: Any = None) -> bool:
        told(value)
        return False

    watch = watching(client, PATH, once)
    eventually(lambda: watch.stopped)
    settle(client)
    assert watches(zookeeper) == before
    change(other, 1)
    settle(client)
    assert len(told) == 1


@BOTH
@pytest.mark.parametrize("exists", [True, False])
def test_stop_leaves_nothing_on_the_server_nor_here(
    client: Client, other: Client, zookeeper: Any, watching: Watching, exists: bool
) -> None:
    told = Told()
    before = watches(zookeeper)
    if exists:
        change(other, 0)
    wakes = len(client.session._wakes)
    watch = watching(client, PATH, told)
    assert watch.wait(5.0) and not watch.stopped
    assert watches(zookeeper) == before + 1

    watch.stop()
    watch.stop()

    settle(client)
    assert watch.stopped and watches(zookeeper) == before
    assert len(client.session._wakes) == wakes
    assert not any(client._data_watchers.values()) and not any(client._child_watchers.values())
    change(other, 1)
    settle(client)
    assert len(told) == 1


@BOTH
def test_a_stop_while_the_answer_is_on_its_way_calls_nobody(
    client: Client, proxy: Any, zookeeper: Any, watching: Watching
) -> None:
    told = Told()
    before = watches(zookeeper)
    proxy.hold_replies()
    watch = watching(client, PATH, told)
    gevent.sleep(0.02)
    watch.stop()
    assert watch.wait(0)
    proxy.resume()
    settle(client)
    settle(client)
    assert not told and watches(zookeeper) == before


@BOTH
def test_stop_in_the_callback_and_in_another_thread(
    client: Client, other: Client, zookeeper: Any, watching: Watching
) -> None:
    before = watches(zookeeper)
    made: list[Any] = []
    made.append(watching(client, PATH, lambda *_: made[0].stop()))
    made.append(watching(client, PATH, Told()))
    eventually(lambda: made[0].stopped)
    assert made[1].wait(5.0)

    gevent.get_hub().threadpool.apply(made[1].stop)
    eventually(lambda: made[1].stopped)
    settle(client)
    assert watches(zookeeper) == before


def test_a_client_that_stops_calls_nobody_until_it_is_started_again(
    client: Client, other: Client
) -> None:
    told = Told()
    DataWatch(client, PATH, told)
    told.comes_to(None)
    client.stop()
    other.create(PATH, b"x")
    gevent.sleep(0.02)
    assert told == [None]
    client.start()
    told.comes_to(None, b"x")


def test_a_watch_may_be_made_before_the_client_is_started(zookeeper: Any, other: Client) -> None:
    told = Told()
    other.create(PATH, b"x")
    client = Client(zookeeper.hosts, timeout=T)
    DataWatch(client, PATH, told)
    with client:
        told.comes_to(b"x")


# Connections and sessions.


@BOTH
def test_what_changed_while_the_connection_was_away_is_told_once_and_else_nothing(
    client: Client, other: Client, proxy: Any, watching: Watching
) -> None:
    told = Told()
    first = change(other, 0)[watching]
    watching(client, PATH, told)
    told.comes_to(first)

    cut_off(client, proxy)
    proxy.heal()
    eventually(lambda: client.session.state is client.session.state.CONNECTED)
    settle(client)
    assert told == [first]

    cut_off(client, proxy)
    change(other, 1)
    last = change(other, 2)[watching]
    proxy.heal()
    told.comes_to(first, last)
    last = change(other, 3)[watching]
    told.ends_with(last)


@BOTH
def test_a_watch_goes_on_over_expired_sessions(
    client: Client, other: Client, zookeeper: Any, watching: Watching
) -> None:
    told = Told()
    watching(client, PATH, told)
    told.comes_to(None)
    for number in range(3):
        ended = client.session.session_id
        zookeeper.expire(client)
        last = change(other, number)[watching]
        told.ends_with(last)
        eventually(partial(lambda ended: client.session.session_id != ended, ended))
        last = change(other, 10 + number)[watching]
        told.ends_with(last)


@BOTH
def test_a_lost_answer_to_any_read_loses_no_state(
    client: Client, other: Client, proxy: Any, watching: Watching
) -> None:
    told = Told()
    asks = {DataWatch: "get", ChildrenWatch: "get_children"}[watching]
    with proxy.lose_answer_to("exists"):
        watching(client, PATH, told)
        told.comes_to(None)
    with proxy.lose_answer_to(asks):
        last = change(other, 0)[watching]
        told.ends_with(last)


@BOTH
def test_a_new_session_is_synced_before_it_is_read(
    client: Client, other: Client, proxy: Any, zookeeper: Any, watching: Watching
) -> None:
    """Since a server that is behind is not refused by a client which has forgotten all."""
    told = Told()
    watching(client, PATH, told)
    told.comes_to(None)
    before = proxy.counts()
    client.stop()
    client.start()
    settle(client)
    # One of them is this test's own.
    assert (proxy.counts() - before)["sync"] == 2


@BOTH
def test_a_new_session_is_synced_until_the_server_has_answered_that(
    client: Client, proxy: Any, watching: Watching
) -> None:
    """Not until then the client knows what is too old for it."""
    told = Told()
    watching(client, PATH, told)
    told.comes_to(None)
    client.stop()
    before = proxy.counts()
    with proxy.lose_answer_to("sync"):
        client.start()
        eventually(lambda: client.session.state is client.session.state.SUSPENDED)
    last = change(client, 0)[watching]
    told.ends_with(last)
    assert (proxy.counts() - before)["sync"] == 2


@BOTH
def test_no_state_is_older_than_one_before_over_all_kinds_of_faults(
    client: Client, other: Client, proxy: Any, zookeeper: Any, watching: Watching
) -> None:
    told = Told()
    versions: list[int] = []

    def note(value: Any, stat: Any = None) -> None:
        told(value)
        versions.append(int(value) if watching is DataWatch else len(value))

    change(other, 0)
    watching(client, PATH, note)
    for number in range(1, 121):
        last = change(other, number)[watching]
        if number % 40 == 25:
            eventually(lambda: client.session.state is client.session.state.CONNECTED)
            zookeeper.expire(client)
        elif number % 10 == 0:
            proxy.cut()
        gevent.sleep(0.001)
    told.ends_with(last)
    assert versions == sorted(versions) and len(versions) > 5


def test_a_watch_goes_on_over_a_restart_of_the_server(zookeeper: Any) -> None:
    told, names = Told(), Told()
    with Client(zookeeper.hosts, timeout=20.0) as client:
        client.create(PATH, b"x")
        DataWatch(client, PATH, told)
        ChildrenWatch(client, PATH, names)
        told.comes_to(b"x")
        zookeeper.restart()
        client.retry(client.set, PATH, b"y")
        client.retry(client.create, f"{PATH}/a")
        told.comes_to(b"x", b"y")
        names.comes_to([], ["a"])


# Refusals.


def test_a_node_that_may_not_be_read_is_logged_once_and_told_when_it_may(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    other.create(PATH, b"secret", acl=[make_digest_acl("a", "b", read=True)])
    DataWatch(client, PATH, told)
    eventually(lambda: "cannot be read" in caplog.text)
    client.add_auth("digest", "a:b")
    told.comes_to(b"secret")
    assert caplog.text.count("cannot be read") == 1


def test_reconnects_do_not_multiply_the_tries(client: Client, other: Client, proxy: Any) -> None:
    told = Told()
    other.create(PATH, b"secret", acl=[make_digest_acl("a", "b", read=True)])
    watch = DataWatch(client, PATH, told)
    for number in range(1, 7):
        eventually(partial(lambda number: proxy.counts()["get"] == number, number))
        proxy.cut()
        eventually(lambda: client.session.state is client.session.state.SUSPENDED)
    eventually(lambda: proxy.counts()["get"] == 7)
    # One timer waits, the first one, and not one for each: they would have come to the longest.
    assert watch._delay < 30.0

    watch.stop()
    assert watch._timer is None


@BOTH
def test_wrong_arguments_are_refused_at_once(client: Client, watching: Watching) -> None:
    with pytest.raises(TypeError, match="str"):
        watching(client, b"/x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        watching(client, "/x", "y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NUL"):
        watching(client, "/x\0")
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        watching(KazooClient(), "/x")
    assert repr(watching(client, "x/")).endswith(" /x>")


def test_another_thread_is_refused(client: Client) -> None:
    with pytest.raises(ZookeeperMisused, match="thread"):
        gevent.get_hub().threadpool.apply(DataWatch, (client, PATH, Told()))
