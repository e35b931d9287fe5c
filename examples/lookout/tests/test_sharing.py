"""Who is there, and whose the targets are: on a real ZooKeeper, in this process."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from lookout.cluster import Collector
from lookout.settings import CollectorSettings
from lookout.shares import sharers
from lookout.sharing import Everything, Shared
from lookout.targets import Target
from sepelib.zookeeper import Client, InterruptableLock, Party
from sepelib.zookeeper.testing import Zookeeper

PATH = "/lookout/replicas"
SESSION = 2.0
TARGETS = [Target(f"t{n}", f"http://t{n}/") for n in range(40)]


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(20, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


class Replicas:
    """Each with a client of its own."""

    def __init__(self, zookeeper: Any) -> None:
        self.zookeeper = zookeeper
        self.all: list[Replica] = []

    def add(self, name: str, **options: Any) -> "Replica":
        replica = Replica(Client(self.zookeeper.hosts, SESSION), name, **options)
        self.all.append(replica)
        return replica


class Replica:
    def __init__(
        self, client: Client, name: str, quorum: int = 2, patience: float = 2 * SESSION
    ) -> None:
        self.name = name
        self.client = client
        self.changes = 0
        self.seen: list[tuple[str, ...]] = []
        self.shared = Shared(
            client, PATH, name, quorum=quorum, patience=patience, changed=self.changed
        )
        client.start_async()
        self.shared.start({"url": f"http://{name}/"})

    def changed(self) -> None:
        self.changes += 1
        self.seen.append(self.shared.replicas)

    def share(self) -> set[str]:
        return {target.name for target in self.shared.mine(TARGETS)}

    def end(self) -> None:
        self.shared.stop()
        self.client.stop()


@pytest.fixture
def replicas(zookeeper: Zookeeper) -> Iterator[Replicas]:
    made = Replicas(zookeeper)
    yield made
    for each in made.all:
        each.end()


def know(replicas: list[Replica], names: str) -> bool:
    return all(
        each.shared.is_current and list(each.shared.replicas) == names.split() for each in replicas
    )


def test_one_without_others_probes_everything() -> None:
    assert Everything("host").mine(TARGETS) == TARGETS
    assert Everything("host").sharers("t0") == ("host",)


def test_each_target_is_for_two_of_three_and_all_agree_on_which(replicas: Replicas) -> None:
    three = [replicas.add(name) for name in ("r1", "r2", "r3")]
    until(lambda: know(three, "r1 r2 r3"))

    for target in TARGETS:
        sharing = {each.name for each in three if target.name in each.share()}
        assert sharing == set(sharers(target.name, ["r1", "r2", "r3"], 2))
        assert all(set(each.shared.sharers(target.name)) == sharing for each in three)
    assert three[0].shared.data["r2"] == {"url": "http://r2/"}
    three[0].shared.quorum = 3
    assert three[0].share() == {target.name for target in TARGETS}


def test_one_that_leaves_moves_its_share_and_no_other(replicas: Replicas) -> None:
    r1, r2, r3 = (replicas.add(name) for name in ("r1", "r2", "r3"))
    until(lambda: know([r1, r2, r3], "r1 r2 r3"))
    before = r1.share()

    r3.shared.stop()  # its client goes on, for the judge that may have to come to an end
    until(lambda: know([r1, r2], "r1 r2"))
    assert before <= r1.share() == r2.share() == {target.name for target in TARGETS}
    assert list(r3.shared.replicas) == ["r1", "r2", "r3"]  # for who asks it while it ends


def test_one_that_comes_back_has_the_share_that_it_had(replicas: Replicas) -> None:
    r1, r2, r3 = (replicas.add(name) for name in ("r1", "r2", "r3"))
    until(lambda: know([r1, r2, r3], "r1 r2 r3"))
    before = [each.share() for each in (r1, r2, r3)]

    r3.end()
    until(lambda: know([r1, r2], "r1 r2"))
    back = replicas.add("r3")
    until(lambda: know([r1, r2, back], "r1 r2 r3"))
    assert [each.share() for each in (r1, r2, back)] == before


def test_whose_node_or_session_was_ended_comes_back_and_has_probed_all_along(
    replicas: Replicas, zookeeper: Zookeeper
) -> None:
    r1, r2 = replicas.add("r1", quorum=1), replicas.add("r2", quorum=1)
    until(lambda: know([r1, r2], "r1 r2"))
    share, changes = r2.share(), r1.changes

    (node,) = (
        name for name in r1.client.get_children(PATH) if b"r2" in r1.client.get(f"{PATH}/{name}")[0]
    )
    r1.client.delete(f"{PATH}/{node}")
    until(lambda: r1.changes >= changes + 2 and know([r1, r2], "r1 r2"))
    assert all("r2" in names for names in r2.seen)

    changes = r1.changes
    zookeeper.expire(r2.client)
    assert r2.share() >= share
    until(lambda: r1.changes > changes and know([r1, r2], "r1 r2"))
    assert r2.share() == share


def test_cut_off_it_goes_on_with_the_last_known_share(
    replicas: Replicas, zookeeper: Zookeeper
) -> None:
    three = [replicas.add(name) for name in ("r1", "r2", "r3")]
    until(lambda: know(three, "r1 r2 r3"))
    shares = [each.share() for each in three]

    with zookeeper.stop():
        until(lambda: not any(each.shared.is_current for each in three))
        assert [each.share() for each in three] == shares
        assert replicas.add("r4").share() == {t.name for t in TARGETS}  # it has seen nobody yet
    until(lambda: know(replicas.all, "r1 r2 r3 r4"))


def test_two_of_one_name_count_as_one_and_say_so_if_it_lasts(replicas: Replicas) -> None:
    r1, twin = replicas.add("r1", patience=0.3), replicas.add("r1", patience=0.3)
    r2 = replicas.add("r2", quorum=1)
    until(lambda: know([r1, twin, r2], "r1 r2"))

    assert r1.share() == twin.share()
    until(lambda: r1.shared.complaint and twin.shared.complaint)
    assert "Another replica is called r1 as well" in str(r1.shared.complaint)
    assert r2.shared.complaint is None
    twin.end()
    until(lambda: r1.shared.complaint is None)


def test_a_name_that_is_none_is_not_counted_and_named_once(
    replicas: Replicas, zookeeper: Zookeeper, caplog: pytest.LogCaptureFixture
) -> None:
    r1 = replicas.add("r1")
    with Client(zookeeper.hosts, SESSION) as stranger, Party(stranger, PATH, "../../etc"):
        until(lambda: caplog.records)
        with Party(stranger, PATH, "r2", {"url": 5}):
            until(lambda: know([r1], "r1 r2"))
    until(lambda: know([r1], "r1"))
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors == [f"{PATH}: '../../etc' is no name for a replica, not counted"]
    assert json.dumps(r1.shared.data)


def test_the_collector_removes_what_unused_locks_have_left_and_says_what_it_did(
    replicas: Replicas, zookeeper: Zookeeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    r1 = replicas.add("r1")
    until(lambda: know([r1], "r1"))
    with InterruptableLock(r1.client, "/lookout/locks/used"):
        with InterruptableLock(r1.client, "/lookout/locks/unused"):
            pass
        collector = Collector(r1.client, "/lookout", CollectorSettings(0.1, 0.3))
        assert collector.status()["last"] is None
        collector.start()
        try:
            until(lambda: r1.client.exists("/lookout/locks/unused") is None)
            status = collector.status()
            assert (status["here"], status["state"], status["error"]) == (True, "running", None)
            until(lambda: collector.status()["last"]["empty"] == 0)
        finally:
            collector.stop()
        assert r1.client.exists("/lookout/locks/used") is not None
    assert know([r1], "r1")
    assert collector.status()["state"] == "idle"
    assert any("1 deleted" in r.getMessage() for r in caplog.records if r.levelno == logging.INFO)
