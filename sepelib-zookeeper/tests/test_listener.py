"""ConditionListener: each change is heard of, whatever happens between it and the listener."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from kazoo.security import READ_ACL_UNSAFE

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import (
    Client,
    Condition,
    ConditionListener,
    Lock,
    SessionState,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)

PATH = "/app/config"
T = 2.0


@pytest.fixture
def connect(zookeeper: Any) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(hosts: str | None = None, timeout: float = T, **options: Any) -> Client:
        client = Client(hosts or zookeeper.hosts, timeout, **options)
        clients.append(client)
        client.start(timeout=20.0)
        return client

    yield connect
    gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=10.0)


@pytest.fixture
def client(connect: Callable[..., Client], proxy: Any) -> Client:
    """Behind the proxy."""
    return connect(proxy.hosts)


@pytest.fixture
def operator(connect: Callable[..., Client]) -> Client:
    """Another client, whom no fault meets."""
    return connect(timeout=20.0)


@pytest.fixture
def listener(client: Client) -> Iterator[ConditionListener]:
    with ConditionListener(client, PATH) as listener:
        yield listener


def signal(operator: Client) -> None:
    ConditionListener.signal(operator, PATH)


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.01)


def outage(proxy: Any, client: Client) -> None:
    """Until proxy.heal()."""
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.session.state is not SessionState.CONNECTED)


# What is heard.


def test_a_signal_is_heard_once(listener: ConditionListener, operator: Client) -> None:
    assert listener.wait(0) is False and listener.wait(0.05) is False
    for number in range(1, 4):
        signal(operator)
        assert listener.wait(10.0) is True
        assert listener.wait(0) is False
        assert listener.sequence == number


def test_a_change_that_came_before_the_wait_is_heard_of_at_once(
    listener: ConditionListener, operator: Client
) -> None:
    signal(operator)
    eventually(lambda: listener.sequence)
    assert listener.wait(0) is True
    assert listener.wait(0) is False


def test_several_changes_may_be_one(listener: ConditionListener, operator: Client) -> None:
    for _ in range(20):
        signal(operator)
    operator.set(PATH, b"the last")
    while listener.wait(0.1):
        pass
    assert 1 <= listener.sequence <= 21


def test_a_notify_is_heard_with_waiters_and_without(
    listener: ConditionListener, operator: Client
) -> None:
    condition = Condition(operator, PATH, Lock(operator, "/app/lock"))
    with condition.lock:
        assert condition.notify() == 0
    assert listener.wait(10.0) is True

    def wait() -> bool:
        with condition.lock:
            return condition.wait(10.0)

    waits = gevent.spawn(wait)
    eventually(lambda: operator.get_children(PATH))
    assert listener.wait(0.1) is False, "a waiter is no change"
    with condition.lock:
        assert condition.notify_all() == 1
    assert listener.wait(10.0) is True and waits.get(timeout=10.0) is True


def test_a_signal_wakes_no_waiter(listener: ConditionListener, operator: Client) -> None:
    condition = Condition(operator, PATH, Lock(operator, "/app/lock"))
    with condition.lock:
        gevent.spawn_later(0.1, signal, operator)
        assert condition.wait(0.3) is False
    assert listener.wait(10.0) is True


def test_what_was_before_the_start_does_not_count(client: Client, operator: Client) -> None:
    operator.create(PATH, b"1", makepath=True)
    listener = ConditionListener(client, PATH)
    operator.set(PATH, b"2")
    with listener:
        assert listener.wait(0.1) is False and listener.sequence == 0
        operator.set(PATH, b"3")
        assert listener.wait(10.0) is True


def test_nothing_between_the_start_and_the_first_watch_is_missed(
    client: Client, operator: Client
) -> None:
    for number in range(1, 11):
        with ConditionListener(client, PATH) as listener:
            operator.set(PATH, b"%d" % number)
            assert listener.wait(10.0) is True


def test_a_missing_node_is_made_and_stays(client: Client, operator: Client) -> None:
    with ConditionListener(client, PATH) as listener:
        assert operator.exists(PATH).ephemeralOwner == 0
        assert listener.wait(0.05) is False
        signal(operator)
        assert listener.wait(10.0) is True
    assert operator.exists(PATH)


def test_a_deletion_is_a_change_and_what_follows_is_too(
    listener: ConditionListener, operator: Client
) -> None:
    for _ in range(3):
        operator.delete(PATH)
        assert listener.wait(10.0) is True
        eventually(lambda: operator.exists(PATH))
        assert listener.wait(0.1) is False
        signal(operator)
        assert listener.wait(10.0) is True


def test_a_node_of_the_same_version_made_again_is_a_change(
    listener: ConditionListener, operator: Client
) -> None:
    transaction = operator.transaction()
    transaction.delete(PATH)
    transaction.create(PATH)
    transaction.commit()
    assert listener.wait(10.0) is True


def test_a_signal_without_a_node_is_for_nobody(operator: Client) -> None:
    signal(operator)
    assert not operator.exists(PATH)


def test_a_signal_keeps_the_data(listener: ConditionListener, operator: Client) -> None:
    operator.set(PATH, b"text")
    signal(operator)
    assert operator.get(PATH)[0] == b"text"


# Several who wait.


def test_each_greenlet_hears_of_each_change(listener: ConditionListener, operator: Client) -> None:
    heard: list[int] = []
    busy = gevent.event.Event()

    def listen(number: int) -> None:
        for _ in range(3):
            assert listener.wait(10.0)
            heard.append(number)
            if number == 2:
                busy.wait(10.0)

    listening = [gevent.spawn(listen, number) for number in range(3)]
    for round_ in range(3):
        signal(operator)
        eventually(lambda round_=round_: len(heard) == 2 * (round_ + 1) + 1)  # type: ignore[misc]
    busy.set()  # two changes that came meanwhile are one now, and then there is a third
    eventually(lambda: heard.count(2) == 2)
    signal(operator)
    gevent.joinall(listening, timeout=10.0, raise_error=True)
    assert sorted(heard) == [0] * 3 + [1] * 3 + [2] * 3


def test_who_names_a_sequence_waits_for_what_is_behind_it(
    listener: ConditionListener, operator: Client
) -> None:
    signal(operator)
    assert listener.wait(10.0, after=0) is True
    assert listener.wait(0, after=0) is True
    assert listener.wait(0.05, after=listener.sequence) is False
    assert listener.wait(0) is True, "which does not count for those who do not"


def test_a_greenlet_killed_in_its_wait_leaves_nothing(listener: ConditionListener) -> None:
    waits = gevent.spawn(listener.wait)
    gevent.sleep(0.05)
    waits.kill(gevent.Timeout, timeout=5.0)
    assert waits.ready() and not listener._waiters


# The callback.


def test_the_callback_is_called_after_each_change_never_twice_at_once(
    client: Client, operator: Client
) -> None:
    running, most, calls = 0, 0, 0
    go_on = gevent.event.Event()

    def changed(of: ConditionListener) -> None:
        nonlocal running, most, calls
        assert of is changes
        running += 1
        most = max(most, running)
        calls += 1
        go_on.wait(10.0)
        running -= 1

    changes = ConditionListener(client, PATH, changed)
    with changes:
        signal(operator)
        eventually(lambda: calls == 1)
        for number in range(3):
            signal(operator)
            eventually(lambda number=number: changes.sequence == number + 2)  # type: ignore[misc]
        go_on.set()
        eventually(lambda: calls == 2)
        assert changes.wait(10.0) and not changes.wait(0.05)
        assert calls == 2 and most == 1


@pytest.mark.parametrize("error", [ValueError, gevent.Timeout, gevent.GreenletExit])
def test_a_callback_that_fails_is_logged_and_called_again(
    client: Client,
    operator: Client,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    calls: list[int] = []

    def changed(listener: ConditionListener) -> None:
        calls.append(listener.sequence)
        raise error

    with ConditionListener(client, PATH, changed):
        signal(operator)
        eventually(lambda: calls == [1])
        signal(operator)
        eventually(lambda: calls == [1, 2])
    assert sum(f"listener {PATH} has failed" in text for text in caplog.messages) == 2


def test_a_callback_that_is_killed_before_it_begins_is_called_all_the_same(
    client: Client, operator: Client
) -> None:
    calls: list[Any] = []
    with ConditionListener(client, PATH, calls.append) as listener:
        listener._heard((1, 1))
        listener._lane.greenlet.kill(block=False)  # with all greenlets, perhaps
        eventually(lambda: len(calls) == 1)
        signal(operator)
        eventually(lambda: len(calls) == 2)


def test_a_callback_may_stop_the_listener_and_start_it_again(
    client: Client, operator: Client
) -> None:
    stopped: list[bool] = []

    def changed(listener: ConditionListener) -> None:
        stopped.append(listener.stop())
        listener.start()

    with ConditionListener(client, PATH, changed) as listener:
        for number in range(1, 3):
            signal(operator)
            eventually(lambda number=number: len(stopped) == number)  # type: ignore[misc]
            eventually(lambda: listener.start() is False)
    assert stopped == [True, True]


# Start and stop.


def test_it_is_started_and_stopped_any_number_of_times(client: Client, operator: Client) -> None:
    listener = ConditionListener(client, PATH)
    with pytest.raises(ZookeeperMisused, match="not started"):
        listener.wait(0)
    assert listener.start() is True and listener.start() is False
    signal(operator)
    assert listener.wait(10.0) is True
    waits = gevent.spawn(listener.wait, after=listener.sequence)
    gevent.sleep(0.01)
    listener.stop()
    listener.stop()
    assert waits.get(timeout=5.0) is False and listener.wait() is False

    signal(operator)
    assert listener.start() is True
    assert listener.wait(0.05) is False, "that was before"
    signal(operator)
    assert listener.wait(10.0) is True and listener.sequence == 2
    listener.stop()


def test_what_was_heard_before_a_restart_does_not_count_after_it(
    listener: ConditionListener, operator: Client
) -> None:
    signal(operator)
    assert listener.wait(10.0) is True
    signal(operator)
    eventually(lambda: listener.sequence == 2)
    listener.stop()
    listener.start()
    assert listener.wait(0) is False


def test_a_start_that_overtakes_a_stop_reads_at_once(
    listener: ConditionListener, client: Client, operator: Client
) -> None:
    began = time.monotonic()
    gevent.get_hub().threadpool.apply(listener.stop)  # it only asks
    assert listener.start() is True
    assert time.monotonic() - began < T / 2
    assert listener.wait(0.05) is False
    signal(operator)
    assert listener.wait(10.0) is True and listener.sequence == 1


def test_nobody_hears_of_a_change_after_the_stop(
    client: Client, operator: Client, proxy: Any
) -> None:
    calls: list[Any] = []
    with ConditionListener(client, PATH, calls.append, poll_interval=0.2) as listener:
        proxy.hold_replies()
        operator.set(PATH, b"x")
        before = proxy.counts()["get"]
        eventually(lambda: proxy.counts()["get"] > before)
        assert listener.stop(timeout=0.01) is False
        proxy.resume()
        eventually(listener.stop)
    gevent.sleep(0.01)
    assert calls == [] and listener.sequence == 0


def test_another_thread_may_stop_it_and_nothing_else(client: Client) -> None:
    listener = ConditionListener(client, PATH)
    listener.start()
    waits = gevent.spawn(listener.wait)
    gevent.sleep(0.01)
    with pytest.raises(ZookeeperMisused):
        gevent.get_hub().threadpool.apply(listener.wait, (0,))
    gevent.get_hub().threadpool.apply(listener.stop)
    assert waits.get(timeout=5.0) is False


def test_a_stopped_listener_leaves_no_watch(client: Client, zookeeper: Any) -> None:
    for _ in range(3):
        with ConditionListener(client, PATH) as listener:
            eventually(lambda: zookeeper.mntr()["zk_watch_count"])
    assert listener.wait(0) is False
    eventually(lambda: not zookeeper.mntr()["zk_watch_count"])


def test_a_client_that_is_stopped_ends_it_with_an_error(
    connect: Callable[..., Client], operator: Client
) -> None:
    client = connect()
    listener = ConditionListener(client, PATH)
    listener.start()
    waits = gevent.spawn(listener.wait)
    gevent.sleep(0.05)
    client.stop()
    for call in (waits.get, listener.wait):
        with pytest.raises(ZookeeperMisused, match="client"):
            call()
    with pytest.raises(ZookeeperMisused):
        listener.start()
    client.start()
    assert listener.start() is True
    signal(operator)
    assert listener.wait(10.0) is True
    listener.stop()


def test_a_start_that_is_killed_has_not_started(client: Client, proxy: Any) -> None:
    listener = ConditionListener(client, PATH)
    proxy.hold()
    start = gevent.spawn(listener.start)
    gevent.sleep(0.05)
    start.kill(timeout=0.5)
    proxy.heal()
    assert start.ready() and listener.wait(0) is False
    assert listener.start() is True
    listener.stop()


def test_a_start_in_an_outage_goes_on_and_its_first_reading_is_a_change(
    connect: Callable[..., Client], operator: Client, proxy: Any
) -> None:
    operator.create(PATH, makepath=True)
    client = connect(proxy.hosts, request_timeout=0.2)
    outage(proxy, client)
    began = time.monotonic()
    with ConditionListener(client, PATH) as listener:
        assert time.monotonic() - began < 2.0
        assert listener.wait(0.05) is False and listener.error is None
        proxy.heal()
        assert listener.wait(10.0) is True
        assert listener.wait(0.1) is False and listener.sequence == 1


def test_a_refusal_is_said_once_and_tried_again(
    client: Client, operator: Client, caplog: pytest.LogCaptureFixture
) -> None:
    operator.ensure_path("/app")
    operator.set_acls("/app", READ_ACL_UNSAFE)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), ConditionListener(client, PATH) as listener:
        assert time.monotonic() - began < T / 2
        assert isinstance(listener.error, ZookeeperError)
        gevent.sleep(0.1)
        operator.delete("/app")
        assert listener.wait(10.0) is True
        assert listener.error is None
    assert sum("trying on" in text for text in caplog.messages) == 1


# Faults.


def test_a_signal_during_an_outage_is_heard_after_it(
    listener: ConditionListener, client: Client, operator: Client, proxy: Any
) -> None:
    outage(proxy, client)
    signal(operator)
    assert listener.wait(0.1) is False
    proxy.heal()
    assert listener.wait(10.0) is True


def test_a_signal_to_a_node_that_is_removed_during_an_outage_is_heard_after_it(
    listener: ConditionListener, client: Client, operator: Client, proxy: Any
) -> None:
    outage(proxy, client)
    signal(operator)
    operator.delete(PATH)
    proxy.heal()
    assert listener.wait(10.0) is True


def test_an_outage_without_a_change_is_none(
    listener: ConditionListener, client: Client, proxy: Any
) -> None:
    for _ in range(2):
        outage(proxy, client)
        proxy.heal()
        eventually(lambda: client.session.state is SessionState.CONNECTED)
    assert listener.wait(0.2) is False


def test_a_new_session_listens_on_and_is_no_change(
    listener: ConditionListener, client: Client, operator: Client, zookeeper: Any
) -> None:
    zookeeper.expire(client)
    eventually(lambda: client.session.epoch == 2)
    assert listener.wait(0.1) is False
    signal(operator)
    assert listener.wait(10.0) is True


def test_a_signal_while_the_session_ends_is_heard(
    listener: ConditionListener, client: Client, operator: Client, proxy: Any, zookeeper: Any
) -> None:
    session = client.client_id
    outage(proxy, client)
    signal(operator)
    zookeeper.expire(session)
    proxy.heal()
    assert listener.wait(10.0) is True


def test_a_silent_partition_hides_no_signal(
    connect: Callable[..., Client], operator: Client, proxy: Any
) -> None:
    client = connect(proxy.hosts, timeout=1.0)
    with ConditionListener(client, PATH) as listener:
        proxy.hold()
        signal(operator)
        eventually(lambda: client.session.state is SessionState.SUSPENDED)
        proxy.heal()
        assert listener.wait(10.0) is True


@pytest.mark.parametrize("then", ["cut", "hold"])
def test_an_answer_that_is_lost_loses_no_signal(
    listener: ConditionListener, operator: Client, proxy: Any, then: str
) -> None:
    with proxy.lose_answer_to("get", then=then) as loss:
        signal(operator)
        loss.wait()
        signal(operator)
    proxy.cut()
    proxy.heal()
    assert listener.wait(10.0) is True
    while listener.wait(0.2):
        pass
    signal(operator)
    assert listener.wait(10.0) is True


@pytest.mark.parametrize("operation", ["get", "create"])
def test_a_start_whose_answer_is_lost_misses_nothing(
    client: Client, operator: Client, proxy: Any, operation: str
) -> None:
    with proxy.lose_answer_to(operation), ConditionListener(client, PATH) as listener:
        signal(operator)
        assert listener.wait(10.0) is True


def test_a_change_of_which_no_watch_told_is_found_by_the_poll(
    client: Client, operator: Client
) -> None:
    with ConditionListener(client, PATH, poll_interval=0.1) as listener:
        eventually(lambda: client._data_watchers)
        # As if the server had forgotten.
        client.remove_watches(PATH, kind="data")
        signal(operator)
        assert listener.wait(10.0) is True


@pytest.mark.parametrize("operation", ["get", "set"])
def test_a_signal_whose_answer_is_lost_is_given(
    client: Client, operator: Client, proxy: Any, operation: str
) -> None:
    with ConditionListener(operator, PATH) as listener:
        with proxy.lose_answer_to(operation, containing=PATH.encode()):
            signal(client)
        assert listener.wait(10.0) is True


def test_signals_at_once_are_all_given(client: Client, operator: Client) -> None:
    operator.create(PATH, makepath=True)
    gevent.joinall(
        [gevent.spawn(signal, by) for by in [client, operator] * 5], timeout=10, raise_error=True
    )
    assert operator.exists(PATH).version == 10


def test_a_signal_without_an_answer_in_time_says_so(
    client: Client, operator: Client, proxy: Any
) -> None:
    operator.create(PATH, makepath=True)
    outage(proxy, client)
    with pytest.raises(ZookeeperTimeout, match=f"listener {PATH}"):
        ConditionListener.signal(client, PATH, timeout=0.1)


# Words and figures.


def test_what_cannot_be_is_refused_at_once(client: Client) -> None:
    with pytest.raises(TypeError, match="callable"):
        ConditionListener(client, PATH, "callback")  # type: ignore[arg-type]
    for bad in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="poll_interval"):
            ConditionListener(client, PATH, poll_interval=bad)
    with pytest.raises(ValueError, match="below the root"):
        ConditionListener(client, "/")
    with pytest.raises(ZookeeperMisused):
        ConditionListener(object(), PATH)  # type: ignore[arg-type]
    assert f"{PATH}: not started, 0 changes" in repr(ConditionListener(client, PATH))


def test_a_wait_obeys_the_deadline(listener: ConditionListener) -> None:
    with deadline(0.05), pytest.raises(DeadlineExceeded):
        listener.wait(10.0)
    with deadline(10.0):
        assert listener.wait(0.05) is False


def test_it_costs_one_request_for_each_change_and_three_for_each_signal(
    connect: Callable[..., Client], operator: Client
) -> None:
    ours, others = MemoryRecorder(), MemoryRecorder()
    client, signaller = connect(recorder=ours), connect(recorder=others)
    operator.create(PATH, makepath=True)
    with ConditionListener(client, PATH, path_class="config") as listener:
        gevent.sleep(0.05)
        before, costs = requests(ours), requests(others)
        for _ in range(3):
            ConditionListener.signal(signaller, PATH)
            assert listener.wait(10.0)
        gevent.sleep(0.05)
        assert requests(ours) - before == 3
        assert requests(others) - costs == 9
    assert ours.value("zk_listener_changes", "config") == 3


def requests(recorder: MemoryRecorder) -> float:
    return sum(float(count) for count in recorder.series("zk_requests").values())
