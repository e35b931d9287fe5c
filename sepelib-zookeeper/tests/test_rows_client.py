"""What a client must get right under faults: one case for each known way of getting it wrong.

Most of them run against kazoo's own client too, where they fail: `./dev peers`.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import monkey

from sepelib.util.testing import free_port

SESSION = 1.0  # seconds, where it has to end


@pytest.mark.peer("kazoo", "C1")
def test_a_client_that_keeps_sending_notices_a_dead_server(proxy: Any, flavour: Any) -> None:
    client = flavour.client(proxy.hosts, timeout=SESSION)

    def keep_sending() -> None:
        while True:
            client.exists_async("/")
            gevent.sleep(0.05)

    flavour.spawn(keep_sending)
    proxy.hold()

    flavour.eventually(
        lambda: not flavour.connected(client),
        2 * SESSION,
        "CONNECTED 2 T after the last answer, while it sends a request each 50 ms",
    )


@pytest.mark.peer("kazoo", "C2")
def test_a_client_cut_off_knows_that_its_session_is_lost_before_others_can_see_it(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=SESSION)
    client.create("/mine", ephemeral=True)

    proxy.hold()
    flavour.eventually(lambda: not observer.exists("/mine"), 5 * SESSION, "it never expired")

    assert flavour.lost(client), "not LOST though the server has expired the session"


@pytest.mark.peer("kazoo", "C3")
@pytest.mark.parametrize("way", ["get", "get_async", "retry"])
def test_a_request_made_while_cut_off_ends_in_time(proxy: Any, flavour: Any, way: str) -> None:
    client = flavour.client(proxy.hosts, timeout=SESSION)
    flavour.cut_off(client, proxy)
    ways: dict[str, Callable[[], Any]] = {
        "get": lambda: client.get("/"),
        "get_async": lambda: client.get_async("/").get(),
        "retry": lambda: client.retry(client.get, "/"),
    }

    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the library's affair
        flavour.within(
            3 * SESSION, ways[way], otherwise="a request still waits for an answer after 3 T"
        )


@pytest.mark.peer("kazoo", "C4")
def test_clients_are_back_soon_after_the_server_is(proxy: Any, flavour: Any) -> None:
    clients = [flavour.client(proxy.hosts) for _ in range(8)]
    for client in clients:
        flavour.cut_off(client, proxy)
    gevent.sleep(3.0)  # the outage

    proxy.heal()
    gevent.sleep(1.0)

    late = sum(not flavour.connected(client) for client in clients)
    assert not late, f"after an outage of 3 s {late} of 8 clients are away 1 s longer"


@pytest.mark.peer("kazoo", "C5")
def test_a_wait_on_a_watch_outlives_a_reconnect(
    zookeeper: Any, proxy: Any, observer: Any, flavour: Any
) -> None:
    node = f"{'0' * 32}__lock__0000000000"
    observer.create(f"/gate/{node}", makepath=True)
    client = flavour.client(proxy.hosts)
    waiter = flavour.spawn(flavour.pass_through, client, "/gate", node)
    flavour.eventually(lambda: watches(zookeeper), 5.0, "it set no watch")

    flavour.cut_off(client, proxy)
    proxy.heal()
    flavour.eventually(lambda: flavour.connected(client), 5.0, "it did not reconnect")
    observer.delete(f"/gate/{node}")

    flavour.result(waiter, 2.0, "what was waited for is here, and the waiter waits on")


def watches(zookeeper: Any) -> int:
    """The watches on the server, of all clients."""
    return int(zookeeper.mntr()["zk_watch_count"])


@pytest.mark.peer("kazoo", "C6")
@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit])
def test_a_callback_that_dies_takes_no_other_watch_with_it(
    zookeeper: Any, observer: Any, flavour: Any, error: type[BaseException]
) -> None:
    client, seen = flavour.client(zookeeper.hosts), list[str]()

    def die(event: Any) -> None:
        seen.append(event.path)
        raise error

    observer.create("/a")
    observer.create("/b")
    client.get("/a", watch=die)
    client.get("/b", watch=lambda event: seen.append(event.path))

    observer.set("/a", b"x")
    flavour.eventually(lambda: seen == ["/a"], 2.0, "the first watch did not fire")
    observer.set("/b", b"x")

    flavour.eventually(
        lambda: "/b" in seen, 2.0, f"no watch fires any more after a {error.__name__} in a callback"
    )


@pytest.mark.peer("kazoo", "C7")
def test_a_slow_callback_delays_no_other_watch(zookeeper: Any, observer: Any, flavour: Any) -> None:
    client, seen = flavour.client(zookeeper.hosts), list[str]()

    def dawdle(event: Any) -> None:
        seen.append(event.path)
        gevent.sleep(5.0)

    observer.create("/a")
    observer.create("/b")
    client.get("/a", watch=dawdle)
    client.get("/b", watch=lambda event: seen.append(event.path))

    observer.set("/a", b"x")
    flavour.eventually(lambda: seen == ["/a"], 2.0, "the first watch did not fire")
    observer.set("/b", b"x")

    flavour.eventually(lambda: "/b" in seen, 2.0, "a watch waits for another one's slow callback")


@pytest.mark.peer("kazoo", "C8")
def test_a_start_that_fails_raises_what_except_exception_catches(flavour: Any) -> None:
    client = flavour.make(f"127.0.0.1:{free_port()}")
    try:
        flavour.within(10.0, client.start, 0.5, otherwise="start(0.5) still waits after 10 s")
    except Exception as error:
        caught: BaseException = error
    except BaseException as error:
        caught = error

    assert isinstance(caught, Exception), f"start() raised {type(caught).__mro__[1].__name__}"
    assert isinstance(caught, TimeoutError)


@pytest.mark.peer("kazoo", "C9")
def test_a_callback_may_stop_the_client(zookeeper: Any, observer: Any, flavour: Any) -> None:
    client, done = flavour.client(zookeeper.hosts), list[str]()

    def stop(event: Any) -> None:
        client.stop()
        done.append("stopped")

    observer.create("/a")
    client.get("/a", watch=stop)
    observer.set("/a", b"x")

    flavour.eventually(lambda: done, 3 * SESSION, "stop() in a callback waits for itself")
    assert not client.connected


@pytest.mark.peer("kazoo", "C10")
def test_a_native_thread_is_told_at_once_that_it_may_not(zookeeper: Any, flavour: Any) -> None:
    client, errors = flavour.client(zookeeper.hosts), list[BaseException]()

    def native() -> None:
        try:
            client.get("/")
        except BaseException as error:
            errors.append(error)

    monkey.get_original("_thread", "start_new_thread")(native, ())
    flavour.eventually(lambda: errors, 2.0, "a request from a native thread hangs")

    assert not isinstance(errors[0], gevent.exceptions.LoopExit), "LoopExit: would block forever"
    assert "thread" in str(errors[0])
    assert client.get("/"), "the client works on"


@pytest.mark.peer("kazoo", "C11")
def test_a_state_listener_may_make_requests(proxy: Any, flavour: Any) -> None:
    client, answers = flavour.client(proxy.hosts), list[Any]()

    def ask(state: Any) -> None:
        if state == "CONNECTED":
            answers.append(client.get("/"))

    client.add_listener(ask)
    flavour.cut_off(client, proxy)
    proxy.heal()

    flavour.eventually(lambda: answers, 5.0, "a request in a state listener has deadlocked")


@pytest.mark.peer("kazoo", "C12")
def test_a_with_block_raises_when_its_transaction_fails(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    client.create("/there")

    def two() -> None:
        with client.transaction() as transaction:
            transaction.create("/new")
            transaction.create("/there")

    with pytest.raises(Exception):  # noqa: B017, PT011
        two()
    assert not client.exists("/new")


@pytest.mark.peer("kazoo", "C12")
def test_a_commit_that_fails_raises(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    transaction = client.transaction()
    transaction.delete("/nowhere")

    with pytest.raises(Exception):  # noqa: B017, PT011
        transaction.commit()


# C13: kazoo has none of these.


def test_a_watch_can_be_removed_here_and_on_the_server(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    client, seen = flavour.client(zookeeper.hosts), list[Any]()
    observer.create("/a")
    client.get("/a", watch=seen.append)
    assert watches(zookeeper) == 1

    assert client.remove_watches("/a", seen.append)
    assert watches(zookeeper) == 0
    observer.set("/a", b"x")
    client.sync("/a")

    assert not seen and not client.remove_watches("/a", seen.append)


@pytest.mark.zookeeper(container_check=0.5)
def test_containers_and_nodes_with_a_time_to_live_are_removed_by_the_server(
    zookeeper: Any, flavour: Any
) -> None:
    client = flavour.client(zookeeper.hosts)
    assert client.create_container("/container") == "/container"
    client.create("/container/child")
    assert client.create_ttl("/ttl", ttl=0.1) == "/ttl"

    client.delete("/container/child")

    flavour.eventually(lambda: client.get_children("/") == [], 6.0, "they are still there")


def test_the_timeout_that_the_server_grants_is_known(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts, timeout=3600.0)

    assert client.session.timeout == 60.0


# Requests and the hub.


@pytest.mark.peer("kazoo", "C14")
def test_a_slow_name_server_stops_no_other_greenlet(
    zookeeper: Any, flavour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, asked, gaps = gevent.get_hub(), list[Any](), [0.0]
    find = monkey.get_original("socket", "getaddrinfo")
    sleep = monkey.get_original("time", "sleep")

    def slow(*args: Any) -> Any:
        asked.append(args)
        sleep(0.7)
        return find(*args)

    class Resolver:
        """gevent's way, which asks in a thread of its pool."""

        def getaddrinfo(self, *args: Any) -> Any:
            return hub.threadpool.apply(slow, args)

    def tick() -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(0.01)
            gaps.append(time.monotonic() - before)

    monkeypatch.setattr(hub, "resolver", Resolver())
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    flavour.spawn(tick)

    flavour.client(zookeeper.hosts.replace("127.0.0.1", "localhost"))

    assert asked and max(gaps) < 0.6, f"all greenlets stood still for {max(gaps):.1f} s"


@pytest.mark.peer("kazoo", "C15")
def test_a_greenlet_can_be_killed_while_it_floods_a_client_that_is_cut_off(
    proxy: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts)
    flavour.cut_off(client, proxy)

    def flood() -> None:
        for _ in range(2000):
            client.get_async("/")

    greenlet = flavour.spawn(flood)
    gevent.sleep(0.3)
    greenlet.kill(timeout=2.0)

    assert greenlet.dead, "GreenletExit is eaten"


@pytest.mark.parametrize("held", ["the answer", "the connection"])
def test_a_greenlet_can_be_killed_in_a_request(proxy: Any, flavour: Any, held: str) -> None:
    client = flavour.client(proxy.hosts, timeout=10.0)
    if held == "the answer":
        proxy.hold_replies()
    else:
        flavour.cut_off(client, proxy)
    greenlet = flavour.spawn(client.get, "/")
    gevent.sleep(0.2)

    greenlet.kill(timeout=2.0)

    with pytest.raises(gevent.GreenletExit):
        flavour.result(greenlet, 0.1, "the kill was not heard")
    proxy.heal()  # so that the stop need not wait
