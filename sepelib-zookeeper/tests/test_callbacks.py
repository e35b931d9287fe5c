"""Watch functions and state listeners: in order, beside each other, and whatever they do."""

import gc
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from kazoo.exceptions import ConfigurationError
from kazoo.protocol.states import Callback, WatchedEvent

from sepelib.util.testing import FlakyProxy, MemoryRecorder
from sepelib.zookeeper import Client, SessionState
from sepelib.zookeeper._handler import Handler, Lane, Wake, resolve
from sepelib.zookeeper.testing import ZookeeperServer

T = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def client(server: ZookeeperServer, recorder: MemoryRecorder) -> Iterator[Client]:
    with Client(server.hosts, timeout=T, recorder=recorder) as client:
        for path in "/a", "/b":
            if client.exists(path):
                client.delete(path)
            client.create(path)
        yield client


@pytest.fixture
def proxy(server: ZookeeperServer) -> Iterator[FlakyProxy]:
    with FlakyProxy(*server.address) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: FlakyProxy) -> Iterator[Client]:
    host, port = proxy.address
    with Client(f"{host}:{port}", timeout=T) as client:
        yield client


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def fire(handler: Handler, function: Callable[[Any], object], path: str) -> None:
    """As the connection does when a watch fires."""
    event = WatchedEvent("CHANGED", "CONNECTED", path)
    handler.dispatch_callback(Callback("watch", function, (event,)))


def lanes() -> int:
    """How many there are in this process."""
    gc.collect()
    return sum(isinstance(it, Lane) for it in gc.get_objects())


# Order.


def test_callbacks_of_one_path_are_called_in_order_one_at_a_time() -> None:
    handler, seen, running = Handler(), list[int](), list[int]()
    handler.start()

    def watch(number: int) -> Callable[[Any], None]:
        def call(event: Any) -> None:
            running.append(number)
            assert len(running) == 1
            gevent.sleep(0.02 if number == 0 else 0.0)
            running.clear()
            seen.append(number)

        return call

    for number in range(5):
        fire(handler, watch(number), "/a")

    wait_until(lambda: len(seen) == 5)
    assert seen == [0, 1, 2, 3, 4]


def test_a_slow_callback_delays_no_other_path(client: Client) -> None:
    begun, go, seen = Event(), Event(), list[str]()

    def dawdle(event: Any) -> None:
        begun.set()
        go.wait()

    client.get("/a", watch=dawdle)
    client.get("/b", watch=lambda event: seen.append(event.path))
    client.set("/a", b"")
    assert begun.wait(5.0)

    client.set("/b", b"")

    wait_until(lambda: seen == ["/b"])
    go.set()


def test_a_callback_may_make_requests_and_set_its_watch_again(client: Client) -> None:
    versions = list[int]()

    def watch(event: Any) -> None:
        _, stat = client.get("/a", watch=watch)
        versions.append(stat.version)

    client.get("/a", watch=watch)
    for number in range(1, 4):
        client.set("/a", b"")
        wait_until(lambda: versions[-1:] == [number])  # noqa: B023

    assert versions == [1, 2, 3]


def test_many_paths_leave_nothing_when_they_are_idle() -> None:
    handler, seen, before = Handler(), list[str](), lanes()
    handler.start()

    def watch(event: Any) -> None:
        seen.append(event.path)

    for number in range(5000):
        fire(handler, watch, f"/{number}")
    assert lanes() > before
    wait_until(lambda: len(seen) == 5000)

    wait_until(lambda: lanes() == before)


# What they raise.


@pytest.mark.parametrize("error", [ValueError, gevent.Timeout, gevent.GreenletExit, SystemExit])
def test_what_a_callback_raises_is_logged_once_with_the_path_and_ends_nothing_else(
    client: Client,
    recorder: MemoryRecorder,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    seen = list[str]()

    def die(event: Any) -> None:
        raise error

    client.get("/a", watch=die)
    client.exists("/a", watch=lambda event: seen.append("of the same path"))
    client.get("/b", watch=lambda event: seen.append("of another path"))
    with caplog.at_level(logging.INFO):
        client.set("/a", b"")
        client.set("/b", b"")
        wait_until(lambda: len(seen) == 2)
        wait_until(lambda: recorder.value("zk_watch_callbacks", "failed") == 1)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "/a" in record.message and error.__name__ in record.message and "die" in record.message
    assert record.path == "/a"  # type: ignore[attr-defined]
    assert recorder.value("zk_watch_callbacks", "ok") == 2


def test_a_callback_whose_greenlet_is_killed_before_it_has_begun_is_called_all_the_same() -> None:
    handler, seen = Handler(), list[str]()
    handler.start()
    fire(handler, lambda event: seen.append("a"), "/a")
    fire(handler, lambda event: seen.append("b"), "/a")

    handler._lanes["/a"].greenlet.kill(block=False)
    wait_until(lambda: len(seen) == 2)

    assert seen == ["a", "b"] and not handler._lanes

    fire(handler, lambda event: seen.append("c"), "/a")
    lane = handler._lanes["/a"]
    assert lane.clear() == 1
    lane.greenlet.kill()
    wait_until(lambda: not handler._lanes)
    assert len(seen) == 2


def test_a_callback_that_is_killed_ends_alone() -> None:
    handler, seen = Handler(), list[str]()
    handler.start()
    victims = list[Any]()

    def sleep(event: Any) -> None:
        victims.append(gevent.getcurrent())
        gevent.sleep(60.0)

    fire(handler, sleep, "/a")
    fire(handler, lambda event: seen.append("next"), "/a")
    wait_until(lambda: victims)

    gevent.kill(victims[0])

    wait_until(lambda: seen == ["next"])


def test_an_interrupt_from_the_keyboard_reaches_the_main_greenlet() -> None:
    handler, seen = Handler(), list[str]()
    handler.start()

    def strike(event: Any) -> None:
        raise KeyboardInterrupt

    fire(handler, strike, "/a")
    fire(handler, lambda event: seen.append("next"), "/a")
    with pytest.raises(KeyboardInterrupt):
        gevent.sleep(10.0)

    wait_until(lambda: seen == ["next"])


# The end.


def test_a_callback_may_stop_the_client(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    seen = list[str]()

    def stop(event: Any) -> None:
        client.stop()
        seen.append("stopped")
        gevent.sleep(0.05)
        seen.append("lives on")

    client.get("/a", watch=stop)
    client.exists("/a", watch=lambda event: seen.append("called after the stop"))
    with gevent.Timeout(5.0):
        client.set("/a", b"")
        wait_until(lambda: "lives on" in seen)

    assert seen in (
        ["stopped", "lives on"],
        ["called after the stop", "stopped", "lives on"],  # both wait for the same event
    )
    assert not client.connected
    assert "still run" not in caplog.text, "the stop has waited for the callback that it waits in"


def test_two_callbacks_may_stop_the_client_at_the_same_time(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    ready, seen = Event(), list[str]()

    def stop(event: Any) -> None:
        ready.wait()
        client.stop()
        seen.append(event.path)

    for path in "/a", "/b":
        client.get(path, watch=stop)
        client.set(path, b"")
    ready.set()

    wait_until(lambda: sorted(seen) == ["/a", "/b"])
    assert "still run" not in caplog.text


def test_a_listener_may_stop_the_client(server: ZookeeperServer) -> None:
    client, seen = Client(server.hosts, timeout=T), list[str]()

    def stop(state: str) -> None:
        seen.append(state)
        if state == "CONNECTED":
            client.stop()

    client.add_listener(stop)
    client.start_async()

    wait_until(lambda: seen == ["CONNECTED", "LOST"])
    assert not client.connected


def test_a_stop_waits_for_a_callback_that_runs_and_drops_those_behind_it(
    client: Client, recorder: MemoryRecorder
) -> None:
    begun, seen = Event(), list[str]()

    def slow(event: Any) -> None:
        begun.set()
        gevent.sleep(0.1)
        seen.append("slow")

    fire(client.handler, slow, "/a")
    fire(client.handler, lambda event: seen.append("behind"), "/a")
    assert begun.wait(5.0)

    client.stop()

    assert seen == ["slow"]
    fire(client.handler, lambda event: seen.append("later"), "/a")
    gevent.sleep(0.05)
    assert seen == ["slow"]
    assert recorder.value("zk_watch_callbacks", "dropped") == 2


def test_a_stop_does_not_wait_for_ever_for_a_callback(caplog: pytest.LogCaptureFixture) -> None:
    handler, go = Handler(stop_timeout=0.05), Event()
    handler.start()
    fire(handler, lambda event: go.wait(), "/a")
    gevent.sleep(0)

    with gevent.Timeout(5.0):
        handler.stop()

    assert "1 watch callbacks still run 0.05 s after the stop" in caplog.text
    go.set()


def test_a_stopped_client_starts_again_with_its_callbacks(client: Client) -> None:
    seen = list[str]()
    client.stop()
    client.start()

    client.get("/a", watch=lambda event: seen.append(event.type))
    client.set("/a", b"")

    wait_until(lambda: seen == ["CHANGED"])


# Reconnects and wake-ups.


def test_each_watch_is_told_once_that_its_connection_is_gone(
    proxy: FlakyProxy, client: Client, far: Client
) -> None:
    seen = list[tuple[str, str, str]]()

    def watch(name: str) -> Callable[[Any], None]:
        return lambda event: seen.append((name, event.type, event.path))

    far.get("/a", watch=watch("data"))
    far.get_children("/a", watch=watch("children"))
    far.exists("/b", watch=watch("other"))

    proxy.cut()
    wait_until(lambda: far.session.state is SessionState.SUSPENDED)
    assert far.session.wait(timeout=10.0)
    far.exists("/b", watch=watch("again"))
    client.set("/b", b"")

    wait_until(lambda: ("again", "CHANGED", "/b") in seen)
    assert sorted(seen) == [
        ("again", "CHANGED", "/b"),
        ("children", "NONE", "/a"),
        ("data", "NONE", "/a"),
        ("other", "NONE", "/b"),
    ]


def test_a_wake_is_called_at_once_without_a_greenlet() -> None:
    handler, woken = Handler(), list[Any]()
    handler.start()

    fire(handler, Wake(lambda: woken.append(gevent.getcurrent())), "/a")

    assert woken == [gevent.getcurrent()]


def test_a_wake_that_fails_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler()

    def fail() -> None:
        raise ValueError

    fire(handler, Wake(fail), "/a")

    assert "a wake-up of /a has failed" in caplog.text


def test_who_waits_for_a_watch_wakes_up_when_the_client_stops(client: Client) -> None:
    woken, seen = Event(), list[str]()
    client.get("/a", watch=Wake(woken.set))
    client.get("/b", watch=lambda event: seen.append(event.type))

    client.stop()

    assert woken.is_set()
    gevent.sleep(0.05)
    assert seen == [], "the callbacks of a stopped client are not called"


# State listeners.


def test_listeners_are_told_each_state_in_order(proxy: FlakyProxy, far: Client) -> None:
    states = list[str]()
    far.add_listener(states.append)

    proxy.cut()
    wait_until(lambda: "CONNECTED" in states)
    far.stop()

    assert far.join_listeners(5.0)
    assert states == ["SUSPENDED", "CONNECTED", "LOST"]


def test_a_listener_may_make_requests(proxy: FlakyProxy, far: Client) -> None:
    answers = list[Any]()

    def ask(state: str) -> None:
        if state == "CONNECTED":
            answers.append(far.get_children("/"))

    far.add_listener(ask)
    proxy.cut()

    wait_until(lambda: answers)


def test_a_listener_that_fails_or_dawdles_stops_no_other_one(
    proxy: FlakyProxy, far: Client, caplog: pytest.LogCaptureFixture
) -> None:
    states = list[str]()

    def die(state: str) -> None:
        raise gevent.GreenletExit

    def dawdle(state: str) -> None:
        gevent.sleep(60.0)

    for listener in die, dawdle, states.append:
        far.add_listener(listener)
    proxy.cut()

    wait_until(lambda: states == ["SUSPENDED", "CONNECTED"])
    died = [record for record in caplog.records if "die" in record.message]
    assert len(died) == 2, "one line for each call"
    assert not far.join_listeners(0.01)


def test_a_listener_is_added_once_and_removed(proxy: FlakyProxy, far: Client) -> None:
    seen = list[str]()

    class Owner:
        def listen(self, state: str) -> bool:
            seen.append(state)
            return True  # enough

        def removed(self, state: str) -> None:
            seen.append("removed")

    owner = Owner()
    far.add_listener(owner.listen)
    far.add_listener(owner.listen)
    far.add_listener(owner.removed)
    far.remove_listener(owner.removed)
    proxy.cut()
    wait_until(lambda: far.session.state is SessionState.SUSPENDED)
    assert far.session.wait(timeout=10.0)

    assert far.join_listeners(5.0)
    assert seen == ["SUSPENDED"]
    with pytest.raises(ConfigurationError):
        far.add_listener(None)  # type: ignore[arg-type]


# What kazoo asks of a handler.


def test_the_timeout_of_the_handler_is_an_exception() -> None:
    assert issubclass(Handler.timeout_exception, Exception)


class SlowResolver:
    """A gevent resolver: 0.3 s a name, and one that never answers."""

    def getaddrinfo(self, host: Any, port: int, *args: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        gevent.sleep(60.0 if name == "silent" else 0.3)
        if name == "unknown":
            raise OSError("no such name")
        return [(2, 1, 6, "", (f"10.0.0.{len(name)}", port))]

    def close(self) -> None: ...


@pytest.fixture
def slow_resolver() -> Iterator[None]:
    hub = gevent.get_hub()
    former = hub.resolver
    hub.resolver = SlowResolver()  # type: ignore[assignment]
    yield
    hub.resolver = former


def test_names_are_looked_up_beside_each_other_and_off_the_hub(
    slow_resolver: None, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = list[int]()

    def tick() -> None:
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    hosts = [("a", 1), (" bb ", 2), ("unknown", 3), ("silent", 4)]

    found = resolve(hosts, 1.0)

    ticker.kill()
    assert found == [("a", "10.0.0.1", 1), ("bb", "10.0.0.2", 2)]
    assert len(ticks) > 10
    assert "unknown cannot be resolved: no such name" in caplog.text
    assert "silent is not resolved in time" in caplog.text


def test_a_name_without_an_answer_holds_up_no_other_one(slow_resolver: None) -> None:
    start = time.monotonic()

    # Nothing is known after 0.1 s, so whatever comes first is waited for.
    assert resolve([("silent", 1), ("unknown", 2), ("a", 3)], 20.0, 0.1) == [("a", "10.0.0.1", 3)]
    assert resolve([("silent", 1), ("a", 3)], 20.0, 0.6) == [("a", "10.0.0.1", 3)]

    assert time.monotonic() - start < 5.0


def test_addresses_and_nonsense_go_through_the_resolver_too() -> None:
    found = resolve([("127.0.0.1", 1), ("x" * 300, 2), ("::1", 3)], 10.0)

    assert ("127.0.0.1", "127.0.0.1", 1) in found
    assert not any(port == 2 for _, _, port in found)
