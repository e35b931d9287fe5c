"""What a semaphore must get right: one case for each known way of getting it wrong.

They run against kazoo's own semaphore too, where they fail: `./dev peers`.
"""

from typing import Any

import gevent
import pytest

PATH = "/service/semaphore"


class User:
    """A semaphore of the flavour, as its user has it: with one lease at most."""

    def __init__(self, flavour: Any, client: Any, max_leases: int = 1) -> None:
        self.client = client
        self.lease: Any = None
        self._kazoo = flavour.name == "kazoo"
        self.semaphore: Any
        if self._kazoo:
            self.semaphore = client.Semaphore(PATH, max_leases=max_leases)
        else:
            from sepelib.zookeeper import Semaphore

            self.semaphore = Semaphore(client, PATH, max_leases=max_leases)

    def acquire(self, timeout: float | None = None, *, blocking: bool = True) -> bool:
        if not self._kazoo:
            self.lease = self.semaphore.acquire(timeout=timeout, blocking=blocking)
            return self.lease is not None
        from kazoo.exceptions import LockTimeout

        try:
            return bool(self.semaphore.acquire(timeout=timeout, blocking=blocking))
        except LockTimeout:
            return False

    @property
    def held(self) -> bool:
        return bool(self.semaphore.is_acquired if self._kazoo else self.lease and self.lease.held)

    def release(self) -> None:
        (self.semaphore if self._kazoo else self.lease).release()


def children(observer: Any) -> list[str]:
    return list(observer.get_children(PATH)) if observer.exists(PATH) else []


@pytest.mark.peer("kazoo", "S1")
def test_a_holder_whose_session_expires_knows(zookeeper: Any, flavour: Any) -> None:
    user = User(flavour, flavour.client(zookeeper.hosts))
    assert user.acquire(5.0)
    other = User(flavour, flavour.client(zookeeper.hosts))

    zookeeper.expire(user.client)

    assert other.acquire(5.0)
    flavour.eventually(lambda: not user.held, 2.0, "two have the one lease, by their belief")


@pytest.mark.peer("kazoo", "S2")
def test_cancel_reaches_who_waits_behind_another_who_waits(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    users = [User(flavour, flavour.client(zookeeper.hosts)) for _ in range(3)]
    assert users[0].acquire(5.0)
    attempts = []
    for user in users[1:]:
        attempts.append(flavour.spawn(user.acquire))
        gevent.sleep(0.15)

    users[2].semaphore.cancel()

    with pytest.raises(Exception):  # noqa: B017, PT011
        flavour.result(attempts[1], 2.0, "cancel() is not heard")
    assert not attempts[0].ready()


@pytest.mark.peer("kazoo", "S3")
def test_without_blocking_all_get_one_of_as_many_free_leases(zookeeper: Any, flavour: Any) -> None:
    users = [User(flavour, flavour.client(zookeeper.hosts), 10) for _ in range(10)]
    assert users[0].acquire(5.0)  # what there is only at first is made
    users[0].release()

    attempts = [flavour.spawn(lambda user=user: user.acquire(blocking=False)) for user in users]

    got = [flavour.result(attempt, 10.0, "it blocks") for attempt in attempts]
    assert got == [True] * 10, f"{got.count(False)} of 10 were refused with 10 leases free"
    assert not User(flavour, users[0].client, 10).acquire(blocking=False)


@pytest.mark.peer("kazoo", "S4")
def test_what_a_session_tells_is_told_to_nobody_who_is_gone(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)

    def listeners() -> int:
        told = client.state_listeners
        return len(told) if flavour.name == "kazoo" else len(told) + len(client.session._wakes)

    before = listeners()
    for _ in range(10):
        user = User(flavour, client)
        assert user.acquire(5.0)
        user.release()

    assert listeners() - before <= 1, "one for each semaphore there ever was"


@pytest.mark.peer("kazoo", "S5")
def test_it_leaves_no_other_node_beside_its_own(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    user = User(flavour, flavour.client(zookeeper.hosts))
    assert user.acquire(5.0)
    user.release()

    assert observer.get_children("/service") == ["semaphore"]
    assert children(observer) == []


@pytest.mark.peer("kazoo", "S5")
def test_acquire_and_release_take_at_most_four_requests(zookeeper: Any, flavour: Any) -> None:
    user = User(flavour, flavour.client(zookeeper.hosts, timeout=20.0))
    assert user.acquire(5.0)
    user.release()
    before = int(zookeeper.mntr()["zk_packets_received"])

    for _ in range(10):
        assert user.acquire(5.0)
        user.release()

    seen = int(zookeeper.mntr()["zk_packets_received"]) - 1 - before
    assert seen <= 4 * 10 + 1, f"{seen} for 10 of them"  # a ping may be among them


@pytest.mark.peer("kazoo", "S6")
def test_two_who_mean_different_maxima_are_told(
    zookeeper: Any, observer: Any, flavour: Any
) -> None:
    observer.ensure_path(PATH)  # by somebody who has not come to say the maximum
    first = User(flavour, flavour.client(zookeeper.hosts), 1)
    assert first.acquire(5.0)

    second = User(flavour, flavour.client(zookeeper.hosts), 5)
    with pytest.raises(Exception, match="max"):
        second.acquire(5.0)


@pytest.mark.peer("kazoo", "S6")
def test_the_node_of_an_older_session_is_not_taken_for_an_own_one(
    zookeeper: Any, proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=1.0)
    user = User(flavour, client)
    assert user.acquire(5.0)
    proxy.refuse()
    proxy.cut()
    flavour.eventually(lambda: not flavour.connected(client), 2.0, "a cut was not noticed")
    client.stop()  # the end of its session does not get through
    proxy.heal()
    client.start()

    assert user.acquire(10.0)
    [node] = children(observer)
    owner = observer.exists(f"{PATH}/{node}").ephemeralOwner
    assert owner == client.client_id[0], "it adopted the old session's lease, which will expire"
