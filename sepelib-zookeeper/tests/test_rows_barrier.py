"""What barriers must get right under faults; each case fails on kazoo's own: `./dev peers`."""

from typing import Any

import gevent
import pytest

PATH = "/step"


def barrier(flavour: Any, client: Any) -> Any:
    if flavour.name == "kazoo":
        return client.Barrier(PATH)
    from sepelib.zookeeper import Barrier

    return Barrier(client, PATH)


def double_barrier(flavour: Any, client: Any, number: int) -> Any:
    if flavour.name == "kazoo":
        return client.DoubleBarrier(PATH, number)
    from sepelib.zookeeper import DoubleBarrier

    return DoubleBarrier(client, PATH, number)


def inside(observer: Any) -> list[str]:
    if not observer.exists(PATH):
        return []
    return sorted(name for name in observer.get_children(PATH) if name != "ready")


def watches(zookeeper: Any) -> int:
    """The watches on the server, of all clients."""
    return int(zookeeper.mntr()["zk_watch_count"])


def blink(flavour: Any, client: Any, proxy: Any) -> None:
    flavour.cut_off(client, proxy)
    proxy.heal()
    flavour.eventually(lambda: flavour.connected(client), 5.0, "it did not reconnect")


@pytest.mark.peer("kazoo", "BARRIER")
def test_a_wait_outlives_a_reconnect(
    zookeeper: Any, proxy: Any, observer: Any, flavour: Any
) -> None:
    observer.create(PATH)
    client = flavour.client(proxy.hosts)
    waiter = flavour.spawn(barrier(flavour, client).wait)
    flavour.eventually(lambda: watches(zookeeper), 5.0, "it set no watch")

    blink(flavour, client, proxy)
    observer.delete(PATH)

    assert flavour.result(waiter, 2.0, "the barrier is open, and the waiter waits on")


@pytest.mark.peer("kazoo", "DOUBLEBARRIER-HANG")
def test_a_member_that_waits_outlives_a_reconnect(
    zookeeper: Any, proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts)
    first = flavour.spawn(double_barrier(flavour, client, 2).enter)
    flavour.eventually(lambda: watches(zookeeper), 5.0, "it set no watch")

    blink(flavour, client, proxy)
    second = double_barrier(flavour, flavour.client(zookeeper.hosts), 2)
    flavour.within(5.0, second.enter, otherwise="the last one does not get in")

    flavour.result(first, 2.0, "both stand there, and one waits on")


@pytest.mark.peer("kazoo", "DOUBLEBARRIER-READY")
def test_what_a_former_round_left_behind_counts_for_nobody(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    observer.create(f"{PATH}/ready", makepath=True)
    members = [double_barrier(flavour, flavour.client(zookeeper.hosts), 3) for _ in range(2)]
    entries = [flavour.spawn(member.enter) for member in members]
    flavour.eventually(lambda: len(inside(observer)) == 2, 5.0, "they do not stand there")

    gevent.joinall(entries, timeout=0.5)

    assert not any(entry.ready() for entry in entries), "2 of 3 were enough"


@pytest.mark.peer("kazoo", "DOUBLEBARRIER-LEAVE")
def test_who_leaves_waits_for_the_rest_when_one_dies(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    clients = [flavour.client(zookeeper.hosts) for _ in range(3)]
    members = [double_barrier(flavour, client, 3) for client in clients]
    for entry in [flavour.spawn(member.enter) for member in members]:
        flavour.result(entry, 5.0, "they do not get in")
    lowest = observer.exists(f"{PATH}/{inside(observer)[0]}").ephemeralOwner
    dying = [client.client_id[0] for client in clients].index(lowest)

    leaving = flavour.spawn(members[(dying + 1) % 3].leave)
    flavour.eventually(lambda: len(inside(observer)) == 2, 5.0, "it does not leave")
    zookeeper.expire(clients[dying])
    flavour.eventually(lambda: len(inside(observer)) == 1, 5.0, "the dead one is still there")
    leaving.join(0.5)

    assert not leaving.ready(), "it has left alone, one is still inside"
