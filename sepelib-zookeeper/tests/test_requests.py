"""Containers, nodes that end by themselves, parents, and watches that are taken back."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from kazoo.exceptions import (
    NodeExistsError,
    NoNodeError,
    NoWatcherError,
    UnimplementedError,
)

from sepelib.util.testing import FlakyProxy
from sepelib.zookeeper import Client, TreeCache
from sepelib.zookeeper._handler import Wake
from sepelib.zookeeper._kazoo_requests import CreateContainer
from sepelib.zookeeper._kazoo_watches import DATA, set_watches
from sepelib.zookeeper.testing import ZookeeperServer

T = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer(container_check=0.2) as server:
        yield server


@pytest.fixture
def client(server: ZookeeperServer) -> Iterator[Client]:
    with Client(server.hosts, timeout=T) as client:
        for name in client.get_children("/"):
            if name != "zookeeper":
                client.delete(f"/{name}", recursive=True)
        yield client


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def is_container(client: Client, path: str) -> bool:
    """Whether the server removes *path* after its only child."""
    client.create(f"{path}/only-child")
    client.delete(f"{path}/only-child")
    try:
        wait_until(lambda: not client.exists(path), 2.0)
    except AssertionError:
        return False
    return True


# Containers and nodes with a time to live.


def test_a_container_goes_with_its_last_child(client: Client) -> None:
    assert client.create_container("/c", b"data") == "/c"
    assert client.get("/c")[0] == b"data"
    assert is_container(client, "/c")


def test_a_container_is_refused_as_every_node_is(client: Client) -> None:
    client.create_container("/c")

    with pytest.raises(NodeExistsError):
        client.create_container("/c")
    with pytest.raises(NoNodeError):
        client.create_container("/no/parent")
    with pytest.raises(TypeError):
        client.create_container("/d", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.create_container(b"/d")  # type: ignore[arg-type]


class Old(Client):
    """A client of a server that knows no containers."""

    refused = 0

    def _call(self, request: Any, async_object: Any) -> Any:
        if isinstance(request, CreateContainer):
            self.refused += 1
            async_object.set_exception(UnimplementedError())
            return None
        return super()._call(request, async_object)


def test_a_server_without_containers_gets_persistent_nodes_and_the_log_one_line(
    server: ZookeeperServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with Old(server.hosts, timeout=T) as old:
        assert old.create_container("/c", b"data") == "/c"
        old.ensure_parent("/d/e")

        assert old.refused == 1
    assert client.get("/c")[0] == b"data"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "no container nodes" in warnings[0].message


def test_a_node_with_a_time_to_live_goes_when_that_is_over(client: Client) -> None:
    assert client.create_ttl("/t", b"data", ttl=0.3) == "/t"
    assert client.get("/t")[0] == b"data"
    numbered = client.create_ttl("/n-", ttl=60.0, sequence=True)
    assert numbered.startswith("/n-0000")

    wait_until(lambda: not client.exists("/t"))
    assert client.exists(numbered)


@pytest.mark.parametrize("ttl", [0, -1.0, 0.0001, 2e9, float("nan")])
def test_a_time_to_live_is_what_a_server_can_keep(client: Client, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        client.create_ttl("/t", ttl=ttl)


def test_a_server_that_offers_no_time_to_live_says_so_and_makes_nothing() -> None:
    with (
        ZookeeperServer(settings={"extendedTypesEnabled": "false"}) as server,
        Client(server.hosts, timeout=T) as client,
    ):
        with pytest.raises(UnimplementedError):
            client.create_ttl("/t", ttl=1.0)

        assert not client.exists("/t")


def test_paths_are_those_below_the_chroot(server: ZookeeperServer, client: Client) -> None:
    client.create("/app")
    with Client(f"{server.hosts}/app", timeout=T) as rooted:
        assert rooted.create_container("/c") == "/c"
        assert rooted.create_ttl("/t", ttl=60.0) == "/t"
        rooted.ensure_parent("/p/q")

    assert sorted(client.get_children("/app")) == ["c", "p", "t"]


# Parents.


@pytest.mark.parametrize("container", [True, False])
def test_a_parent_is_a_container_below_persistent_nodes(client: Client, container: bool) -> None:
    client.ensure_parent("/p/q/r", container=container)

    assert is_container(client, "/p/q/r") is container
    gevent.sleep(0.3)  # as long as the server needs for an empty container
    assert client.exists("/p/q")


def test_a_parent_that_is_there_is_left_as_it_is(client: Client) -> None:
    client.create("/p", b"data")
    client.ensure_parent("/p")
    client.ensure_parent("/")

    assert client.get("/p")[0] == b"data"


def test_a_parent_is_made_though_the_one_above_comes_and_goes(client: Client) -> None:
    client.create("/above")

    def take_away() -> None:
        while True:
            try:
                client.delete("/above", recursive=True)
            except NoNodeError:
                gevent.sleep(0.001)

    taker = gevent.spawn(take_away)
    for _ in range(30):
        client.ensure_parent("/above/p")
    taker.kill()


def test_a_parent_is_made_without_waiting_for_it(client: Client) -> None:
    made = client.ensure_parent_async("/p/q")
    assert not made.ready()
    assert made.get() is True
    assert client.exists("/p/q")

    client.stop()
    with pytest.raises(Exception, match="not connected"):
        client.ensure_parent_async("/x").get()


# Watches taken back.


@pytest.mark.parametrize("kind", ["data", "children"])
def test_a_watch_is_taken_back_here_and_on_the_server(
    server: ZookeeperServer, client: Client, kind: Any
) -> None:
    seen = list[Any]()
    client.create("/a")
    ask = client.get if kind == "data" else client.get_children
    ask("/a", watch=seen.append)
    assert server.mntr()["zk_watch_count"] == 1

    assert client.remove_watches("/a", seen.append, kind=kind)

    assert server.mntr()["zk_watch_count"] == 0
    client.create("/a/child")
    client.set("/a", b"")
    client.sync("/a")
    assert seen == []
    assert not client.remove_watches("/a", seen.append, kind=kind)


def test_a_watch_on_what_is_not_there_is_taken_back(
    server: ZookeeperServer, client: Client
) -> None:
    client.exists("/no", watch=print)

    assert client.remove_watches("/no", print)
    assert server.mntr()["zk_watch_count"] == 0


def test_another_function_of_the_same_path_keeps_its_watch(
    server: ZookeeperServer, client: Client
) -> None:
    seen, others = list[Any](), list[Any]()
    client.create("/a")
    client.get("/a", watch=seen.append)
    client.get("/a", watch=others.append)

    assert client.remove_watches("/a", seen.append)

    assert server.mntr()["zk_watch_count"] == 1
    client.set("/a", b"")
    wait_until(lambda: others)
    assert others[0].type == "CHANGED" and not seen


def test_all_functions_of_a_path_are_taken_back_at_once(
    server: ZookeeperServer, client: Client
) -> None:
    seen = list[Any]()
    client.create("/a")
    client.get("/a", watch=seen.append)
    client.exists("/a", watch=lambda event: seen.append(event))

    assert client.remove_watches("/a")

    assert server.mntr()["zk_watch_count"] == 0
    client.set("/a", b"")
    client.sync("/a")
    assert seen == []


def test_a_watch_whose_request_is_not_answered_yet_is_taken_back(
    server: ZookeeperServer, client: Client
) -> None:
    seen = list[Any]()
    client.create("/a")

    asked = client.get_async("/a", watch=seen.append)
    removed = client.remove_watches_async("/a", seen.append)

    assert not asked.ready()
    assert removed.get() is True
    client.set("/a", b"")
    client.sync("/a")
    assert seen == [] and server.mntr()["zk_watch_count"] == 0
    assert not set_watches(client, "/a", DATA)


def test_a_watch_that_a_cache_stands_in_for_is_taken_back_before_its_answer(
    server: ZookeeperServer, client: Client
) -> None:
    """The server has no watch of its own for it, which could be removed."""
    called: list[Any] = []
    client.create("/app")
    with TreeCache(client, "/app"):
        kept = client.get_async("/app", watch=lambda event: called.append("kept"))
        asked = client.get_async("/app", watch=called.append)
        assert client.remove_watches_async("/app", called.append).get() is True
        again = client.get_async("/app", watch=lambda event: called.append("again"))
        gevent.joinall([kept, asked, again])
        client.set("/app", b"x")
        wait_until(lambda: len(called) >= 2)
        client.sync("/")
        gevent.sleep(0.02)
    assert sorted(called) == ["again", "kept"]


def test_a_watch_set_at_the_same_moment_is_told_that_it_is_gone(
    server: ZookeeperServer, client: Client
) -> None:
    """The server has one watch for both, and was asked to forget it after it was set again."""
    mine, other = list[Any](), list[Any]()
    client.create("/a")
    client.get("/a", watch=mine.append)

    client.get_async("/a", watch=other.append)
    client.remove_watches_async("/a", mine.append)
    client.sync("/a")

    wait_until(lambda: other)
    assert other[0].type == "NONE" and other[0].path == "/a" and not mine


def test_a_watch_set_after_the_removal_stays(server: ZookeeperServer, client: Client) -> None:
    seen = list[Any]()
    client.create("/a")
    client.get("/a", watch=seen.append)

    client.remove_watches_async("/a", seen.append)
    client.get_async("/a", watch=seen.append)
    client.sync("/a")
    assert server.mntr()["zk_watch_count"] == 1
    client.set("/a", b"")

    wait_until(lambda: seen)
    assert [event.type for event in seen] == ["CHANGED"]


def test_a_watch_that_the_server_does_not_have_is_no_watch(client: Client) -> None:
    assert not client.remove_watches("/a")
    with pytest.raises(NoWatcherError):
        client.remove_watches_async("/a").get()
    with pytest.raises(KeyError):
        client.remove_watches("/a", kind="other")  # type: ignore[arg-type]


def test_a_removal_while_cut_off_leaves_no_callback(server: ZookeeperServer) -> None:
    with FlakyProxy(*server.address) as proxy:
        host, port = proxy.address
        with Client(f"{host}:{port}", timeout=T) as far:
            woken, kept = Event(), Event()
            far.exists("/a", watch=Wake(kept.set))
            mine = Wake(woken.set)
            far.exists("/b", watch=mine)
            proxy.hold()
            far.remove_watches_async("/b", mine)
            proxy.cut()

            assert kept.wait(5.0)
            assert not woken.is_set()
            proxy.heal()
