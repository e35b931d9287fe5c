"""What watches and caches must get right: one case for each known way of getting it wrong.

They run against kazoo's own recipes too, where they fail: `./dev peers`.
"""

from typing import Any

import gevent
import pytest

PATH = "/config"


def data_watch(flavour: Any, client: Any, path: str, callback: Any) -> Any:
    if flavour.name == "kazoo":
        return client.DataWatch(path, callback)
    from sepelib.zookeeper import DataWatch

    return DataWatch(client, path, callback)


def children_watch(flavour: Any, client: Any, path: str, callback: Any) -> Any:
    if flavour.name == "kazoo":
        return client.ChildrenWatch(path, callback)
    from sepelib.zookeeper import ChildrenWatch

    return ChildrenWatch(client, path, callback)


def tree_cache(flavour: Any, client: Any, path: str) -> Any:
    if flavour.name == "kazoo":
        from kazoo.recipe.cache import TreeCache as KazooTreeCache

        return KazooTreeCache(client, path)
    from sepelib.zookeeper import TreeCache

    return TreeCache(client, path)


# Watches.


@pytest.mark.peer("kazoo", "DATAWATCH")
def test_a_callback_that_raises_a_type_error_is_called_once(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    called = []

    def callback(data: Any, stat: Any, event: Any = None) -> None:
        called.append(data)
        raise TypeError("of the callback's own")

    observer.create(PATH, b"x")
    client = flavour.client(zookeeper.hosts)
    flavour.spawn(data_watch, flavour, client, PATH, callback).join(5.0)

    flavour.eventually(lambda: called, 5.0, "it was not called")
    gevent.sleep(0.05)
    assert called == [b"x"], "one state is told twice"


@pytest.mark.peer("kazoo", "DATAWATCH")
def test_a_callback_that_times_out_is_called_with_the_next_state(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    called = []

    def callback(data: Any, stat: Any, event: Any = None) -> None:
        called.append(data)
        if data == b"b":
            raise gevent.Timeout(0.1)

    observer.create(PATH, b"a")
    data_watch(flavour, flavour.client(zookeeper.hosts), PATH, callback)
    flavour.eventually(lambda: called, 5.0, "it was not called")
    observer.set(PATH, b"b")
    flavour.eventually(lambda: b"b" in called, 5.0, "a change was not told")

    observer.set(PATH, b"c")

    flavour.eventually(lambda: b"c" in called, 2.0, "no watch of the client is alive any more")


@pytest.mark.peer("kazoo", "CHILDRENWATCH")
def test_children_are_watched_on_when_the_node_is_made_again(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    called: list[Any] = []
    observer.create(f"{PATH}/a", makepath=True)
    children_watch(flavour, flavour.client(zookeeper.hosts), PATH, called.append)
    flavour.eventually(lambda: called == [["a"]], 5.0, "it was not called")

    observer.delete(PATH, recursive=True)
    observer.create(f"{PATH}/b", makepath=True)

    flavour.eventually(lambda: called[-1] == ["b"], 2.0, "it is dead since the deletion")


@pytest.mark.peer("kazoo", "CHILDRENWATCH")
def test_children_of_a_node_that_is_not_there_yet_are_watched(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    called: list[Any] = []
    children_watch(flavour, flavour.client(zookeeper.hosts), PATH, called.append)

    observer.create(f"{PATH}/a", makepath=True)

    flavour.eventually(
        lambda: called and called[-1] == ["a"], 2.0, "it died where there was no node"
    )


@pytest.mark.peer("kazoo", "CHILDRENWATCH")
def test_a_child_made_again_while_the_connection_was_away_is_told(
    zookeeper: Any, observer: Any, proxy: Any, flavour: Any
) -> None:
    """It is another worker: who has given work to the first one has to do so again."""
    called: list[Any] = []
    observer.create(f"{PATH}/a", makepath=True)
    client = flavour.client(proxy.hosts, timeout=20.0)
    children_watch(flavour, client, PATH, called.append)
    flavour.eventually(lambda: called == [["a"]], 5.0, "it was not called")

    flavour.cut_off(client, proxy)
    observer.delete(f"{PATH}/a")
    observer.create(f"{PATH}/a")
    proxy.heal()

    flavour.eventually(lambda: len(called) == 2, 3.0, "the names were the same, so it is untold")


# Caches.


@pytest.mark.peer("kazoo", "TREECACHE")
def test_a_neighbour_whose_name_begins_alike_is_not_taken_for_a_node_below(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    observer.create("/x/foo/bar", b"of foo", makepath=True)
    observer.create("/x/foobar", b"another")
    cache = tree_cache(flavour, flavour.client(zookeeper.hosts), "/x/foo")
    cache.start()
    flavour.eventually(lambda: cache.get_data("/x/foo/bar"), 5.0, "it was not read")

    try:
        found = cache.get_data("/x/foobar")
    except ValueError:
        found = None

    assert found is None, f"/x/foobar is given as {found.data!r}, which is the data of /x/foo/bar"
    cache.close()


@pytest.mark.peer("kazoo", "TREECACHE")
def test_a_listener_that_times_out_does_not_end_the_cache(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    observer.create(f"{PATH}/a", b"1", makepath=True)
    cache = tree_cache(flavour, flavour.client(zookeeper.hosts), PATH)
    cache.start()
    flavour.eventually(lambda: cache.get_data(f"{PATH}/a"), 5.0, "it was not read")
    called = []

    def listener(event: Any) -> None:
        called.append(event)
        raise gevent.Timeout(0.1)

    cache.listen(listener)
    observer.set(f"{PATH}/a", b"2")
    flavour.eventually(lambda: called, 5.0, "the listener was not called")

    observer.set(f"{PATH}/a", b"3")

    flavour.eventually(
        lambda: cache.get_data(f"{PATH}/a").data == b"3", 2.0, "it shows the old data for ever"
    )
    cache.close()


@pytest.mark.peer("kazoo", "TREECACHE")
def test_a_cache_makes_no_node(zookeeper: Any, observer: Any, flavour: Any) -> None:
    cache = tree_cache(flavour, flavour.client(zookeeper.hosts), PATH)
    cache.start()

    assert observer.exists(PATH) is None, "what only reads has written"
    cache.close()


@pytest.mark.peer("kazoo", "TREECACHE")
def test_a_cache_leaves_no_watch_on_the_server(zookeeper: Any, observer: Any, flavour: Any) -> None:
    before = int(zookeeper.mntr()["zk_watch_count"])
    observer.create(f"{PATH}/a", makepath=True)
    client = flavour.client(zookeeper.hosts)
    cache = tree_cache(flavour, client, PATH)
    cache.start()
    flavour.eventually(lambda: cache.get_data(f"{PATH}/a"), 5.0, "it was not read")

    cache.close()
    client.sync("/")

    assert int(zookeeper.mntr()["zk_watch_count"]) == before, "the server still watches for it"
