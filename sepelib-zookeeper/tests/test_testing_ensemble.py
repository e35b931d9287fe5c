"""`Ensemble`: members, leaders, faults of some and of all."""

import struct
import time
from collections.abc import Callable, Iterator

import pytest

from sepelib.util.testing import ServerNotReady
from sepelib.zookeeper.testing import Ensemble, ZookeeperServer
from sepelib.zookeeper.testing._wire import Wire, string

SYNC, EXISTS = 9, 3


@pytest.fixture(scope="module")
def ensemble() -> Iterator[Ensemble]:
    with Ensemble(3) as ensemble:
        yield ensemble


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "ensemble" in request.fixturenames:
        request.getfixturevalue("ensemble").wait_ready()


def create(server: ZookeeperServer, path: str) -> None:
    with Wire(server.address, 30.0) as wire:
        wire.connect()
        wire.create(path)


def exists(server: ZookeeperServer, path: str) -> bool:
    with Wire(server.address, 30.0) as wire:
        wire.connect()
        wire.request(SYNC, string(path))
        wire.send(struct.pack(">ii", 7, EXISTS) + string(path) + b"\0")
        return wire.reply().error == 0


def comes_to_know(server: ZookeeperServer, path: str) -> bool:
    """Whether *server* has *path*, or has it soon: it may just be leaving for its leader."""
    try:
        return exists(server, path)
    except (OSError, EOFError):
        return False


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_member_leads_and_the_others_follow(ensemble: Ensemble) -> None:
    leader, followers = ensemble.leader(), ensemble.followers()
    assert ensemble.mode() == "ensemble"
    assert {leader, *followers} == set(ensemble) == {ensemble[0], ensemble[1], ensemble[2]}
    assert len(followers) == 2
    assert ensemble.hosts.split(",") == [member.hosts for member in ensemble]


def test_what_one_member_is_told_all_know(ensemble: Ensemble) -> None:
    create(ensemble[0], "/told")
    assert all(exists(member, "/told") for member in ensemble)


def test_another_member_leads_when_the_leader_dies(ensemble: Ensemble) -> None:
    first = ensemble.leader()
    with first.kill():
        eventually(lambda: len(ensemble.followers()) == 1)
        second = ensemble.leader()
        assert second is not first
        create(second, "/without-the-first")
        assert ensemble.mode() is None
    ensemble.wait_ready()
    eventually(lambda: comes_to_know(first, "/without-the-first"))


def test_a_paused_follower_stops_nobody(ensemble: Ensemble) -> None:
    follower = ensemble.followers()[0]
    with follower.pause():
        create(ensemble.leader(), "/without-a-follower")
        with pytest.raises(ServerNotReady, match="no quorum of all"):
            ensemble.wait_ready(0.1)
    ensemble.wait_ready()
    eventually(lambda: comes_to_know(follower, "/without-a-follower"))


def test_a_member_without_a_quorum_does_not_serve(ensemble: Ensemble) -> None:
    ensemble.kill()
    ensemble[0].start(serving=False)
    assert ensemble[0].running and ensemble[0].mode() is None
    with pytest.raises(ServerNotReady, match="0 leaders"):
        ensemble.leader(0.1)
    ensemble.start()
    assert ensemble.mode() == "ensemble"


def test_a_power_cut_loses_no_data(ensemble: Ensemble) -> None:
    create(ensemble.leader(), "/kept")
    with ensemble.kill():
        assert not any(member.running for member in ensemble)
    assert exists(ensemble[1], "/kept")
    ensemble.restart()
    assert exists(ensemble[2], "/kept")


def test_all_can_be_paused_and_resumed(ensemble: Ensemble) -> None:
    with ensemble.pause(), pytest.raises(TimeoutError):
        ensemble[2].ask("srvr", timeout=0.1)
    ensemble.wait_ready()


def test_a_session_of_a_follower_is_expired(ensemble: Ensemble) -> None:
    follower = ensemble.followers()[0]
    with Wire(follower.address, 30.0) as wire:
        session = wire.connect()
        wire.create("/of-a-session", flags=1)
        ensemble.expire(session)
    assert not exists(ensemble.leader(), "/of-a-session")
    with pytest.raises(LookupError):
        ensemble.expire(session)


def test_a_client_can_be_cut_off_from_all_or_one(ensemble: Ensemble) -> None:
    with ensemble.proxy("/chroot") as proxy:
        assert proxy.hosts.endswith(f"127.0.0.1:{proxy[2].port}/chroot")
        wires = [Wire(one.address, 10.0) for one in proxy]
        for wire in wires:
            wire.connect()
        assert proxy.counts() == {"connect": 3}
        assert proxy[0].cut() == 1
        proxy.refuse()
        assert proxy.cut() == 2
        for wire, one in zip(wires, proxy, strict=True):
            with wire, pytest.raises(EOFError):
                wire.receive()
            with pytest.raises(ConnectionRefusedError):
                Wire(one.address, 10.0)
        proxy.heal()
        with Wire(proxy[1].address, 10.0) as wire:
            proxy.hold_replies()
            proxy.hold_requests()
            proxy.resume()
            assert wire.connect()[0]
    assert all(one.connections.open == 0 for one in proxy)


def test_a_proxy_left_open_is_closed_with_its_server(ensemble: Ensemble) -> None:
    with Ensemble(2) as two:
        proxies = list(two.proxy())
        folders = [member.folder for member in two]
        assert len(two) == 2 and two.leader() in set(two)
    two.close()
    assert not any(folder.exists() for folder in folders)
    for proxy in proxies:
        with pytest.raises(RuntimeError, match="cannot be started again"):
            proxy.start()


def test_a_member_that_cannot_start_fails_the_start() -> None:
    broken = Ensemble(2, settings={"tickTime": "soon"})
    with pytest.raises(ServerNotReady, match="ended with status"):
        broken.__enter__()
    assert not any(member.running for member in broken)


def test_an_ensemble_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="is a ZookeeperServer"):
        Ensemble(1)
