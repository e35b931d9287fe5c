"""What a recipe leaves behind in a session that lives on is deleted, whatever happens."""

import random
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.exceptions import KazooException, NoAuthError
from kazoo.security import make_acl, make_digest_acl

from sepelib.util.testing import Clock, FlakyProxy, MemoryRecorder
from sepelib.zookeeper import Client, SessionState
from sepelib.zookeeper._janitor import Janitor
from sepelib.zookeeper.testing import ZookeeperServer

T = 2.0
CREATE, DELETE = 15, 2
LOCK = "__lock__"


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def observer(server: ZookeeperServer) -> Iterator[Client]:
    """A client that no fault touches."""
    with Client(server.hosts, timeout=20.0) as client:
        for name in client.get_children("/"):
            if name != "zookeeper":
                client.delete(f"/{name}", recursive=True)
        client.create("/d")
        yield client


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def proxy(server: ZookeeperServer) -> Iterator[FlakyProxy]:
    with FlakyProxy(*server.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FlakyProxy, observer: Client, recorder: MemoryRecorder) -> Iterator[Client]:
    """A client behind the proxy."""
    host, port = proxy.address
    with Client(f"{host}:{port}", timeout=T, recorder=recorder) as client:
        yield client


@pytest.fixture
def janitor(client: Client) -> Janitor:
    return client._janitor


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def has_op(op: int) -> Callable[[bytes], bool]:
    def look(data: bytes) -> bool:
        while len(data) >= 12:
            if int.from_bytes(data[8:12], "big") == op:
                return True
            data = data[4 + int.from_bytes(data[:4], "big") :]
        return False

    return look


def make(client: Client, janitor: Janitor, directory: str = "/d") -> tuple[str, str]:
    """A contender's node: its GUID and its name."""
    guid = janitor.claim(directory)
    path = client.create(f"{directory}/{guid}{LOCK}", ephemeral=True, sequence=True)
    return guid, path.rpartition("/")[2]


def no_deletes(client: Client, directory: str) -> None:
    """Make a directory of which only a:b may delete children."""
    everybody = make_acl("world", "anyone", read=True, create=True)
    client.create(directory, acl=[make_digest_acl("a", "b", all=True), everybody])


def cut_off(proxy: FlakyProxy, client: Client) -> None:
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: client.session.state is not SessionState.CONNECTED)


# GUIDs.


def test_a_guid_is_32_hex_digits_and_never_given_twice(janitor: Janitor) -> None:
    guids = {janitor.claim("/d") for _ in range(1000)}

    assert len(guids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", guid) for guid in guids)


def test_a_guid_that_is_released_leaves_nothing_to_do(client: Client, janitor: Janitor) -> None:
    guid, name = make(client, janitor)
    client.delete(f"/d/{name}")
    janitor.release(guid)
    janitor.release(guid)

    assert janitor.pending() == 0
    assert not janitor._places and not janitor._guids  # a million paths cost nothing


# Deletes.


@pytest.mark.parametrize("named", [True, False])
def test_a_node_is_deleted(
    client: Client, observer: Client, janitor: Janitor, recorder: MemoryRecorder, named: bool
) -> None:
    guid, name = make(client, janitor)
    other, other_name = make(client, janitor)

    janitor.dispose("/d", guid, name if named else None, epoch=client.session.epoch)
    assert janitor.pending() == 1
    assert recorder.value("zk_janitor_pending") == 1

    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/d") == [other_name]
    assert recorder.value("zk_janitor_pending") == 0
    assert recorder.value("zk_janitor_deleted") == 1
    janitor.release(other)


@pytest.mark.parametrize("named", [True, False])
def test_a_node_that_is_not_there_is_done_with(
    client: Client, janitor: Janitor, recorder: MemoryRecorder, named: bool
) -> None:
    guid = janitor.claim("/d")
    janitor.dispose("/d", guid, f"{guid}{LOCK}0000000000" if named else None, epoch=1)
    gone = janitor.claim("/no/directory")
    janitor.dispose("/no/directory", gone, None, epoch=1)

    wait_until(lambda: janitor.pending() == 0)
    assert recorder.value("zk_janitor_deleted") == 0


def test_a_killed_greenlet_leaves_at_once_and_its_node_goes(
    client: Client, observer: Client, janitor: Janitor
) -> None:
    made = gevent.event.Event()

    def contend() -> None:
        guid = janitor.claim("/d")
        try:
            client.create(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True)
            made.set()
            gevent.sleep(60.0)
        except BaseException:
            janitor.dispose("/d", guid, None, epoch=client.session.epoch)
            raise

    contender = gevent.spawn(contend)
    made.wait(5.0)
    contender.kill()

    assert contender.dead
    wait_until(lambda: not observer.get_children("/d"))


def test_a_create_that_was_killed_before_its_answer_leaves_no_node(
    client: Client, observer: Client, janitor: Janitor
) -> None:
    for _ in range(20):
        guid = janitor.claim("/d")
        client.create_async(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True)
        janitor.dispose("/d", guid, None, epoch=client.session.epoch)

    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/d") == []


def test_it_may_be_used_where_nothing_can_wait(
    client: Client, observer: Client, janitor: Janitor
) -> None:
    guid, name = make(client, janitor)
    epoch = client.session.epoch

    gevent.get_hub().loop.run_callback(lambda: janitor.dispose("/d", guid, name, epoch=epoch))

    wait_until(lambda: not observer.get_children("/d"))


# Faults.


def test_a_delete_outlives_an_outage(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    guid, name = make(client, janitor)
    unnamed, _ = make(client, janitor, "/d")
    cut_off(proxy, client)

    janitor.dispose("/d", guid, name, epoch=client.session.epoch)
    janitor.dispose("/d", unnamed, None, epoch=client.session.epoch)
    gevent.sleep(0.2)
    assert janitor.pending() == 2
    proxy.heal()

    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/d") == []
    assert client.session.epoch == 1, "the session has outlived it too, so the janitor did it"


def test_a_delete_that_did_not_reach_the_server_is_asked_for_again(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    guid, name = make(client, janitor)
    sent = proxy.received.requests
    proxy.hold_requests()
    janitor.dispose("/d", guid, name, epoch=client.session.epoch)
    wait_until(lambda: proxy.received.requests > sent)

    proxy.cut()  # and what was held is gone
    proxy.heal()

    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/d") == []


def test_a_lost_answer_to_a_delete_is_asked_for_again(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    guid, name = make(client, janitor)

    with proxy.lose_answer(has_op(DELETE)) as loss:
        janitor.dispose("/d", guid, name, epoch=client.session.epoch)
        wait_until(loss.lost.is_set)

    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/d") == []


def test_a_lost_answer_to_a_create_leaves_no_node(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    guid = janitor.claim("/d")
    with proxy.lose_answer(has_op(CREATE)), pytest.raises(KazooException):
        client.create(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True, include_data=True)
    assert observer.get_children("/d")

    janitor.dispose("/d", guid, None, epoch=client.session.epoch)

    wait_until(lambda: not observer.get_children("/d"))


def test_it_ends_when_the_session_is_another_one(
    server: ZookeeperServer, client: Client, janitor: Janitor, recorder: MemoryRecorder
) -> None:
    no_deletes(client, "/p")
    guid, name = make(client, janitor, "/p")
    epoch = client.session.epoch
    janitor.dispose("/p", guid, name, epoch=epoch)
    gevent.sleep(0.1)
    assert janitor.pending() == 1

    server.expire(client)

    wait_until(lambda: janitor.pending() == 0)
    assert client.session.epoch == epoch + 1
    assert recorder.value("zk_janitor_deleted") == 0


def test_a_node_of_a_former_epoch_is_deleted_in_the_same_session(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    """LOST by the own clock, while the server has the session: its nodes would stay."""
    guid, name = make(client, janitor)
    epoch, session_id = client.session.epoch, client.session.session_id

    proxy.hold_replies()
    wait_until(lambda: client.session.state is SessionState.LOST)
    janitor.dispose("/d", guid, name, epoch=epoch)
    proxy.heal()
    wait_until(lambda: client.session.state is SessionState.CONNECTED)

    assert client.session.epoch == epoch + 1
    wait_until(lambda: janitor.pending() == 0)
    if client.session.session_id == session_id:
        assert observer.get_children("/d") == []
    else:  # the server was faster than the proxy
        wait_until(lambda: not observer.get_children("/d"))


def test_it_ends_when_the_client_stops_and_works_again_after_a_start(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    guid, name = make(client, janitor)
    make(client, janitor)
    cut_off(proxy, client)
    janitor.dispose("/d", guid, name, epoch=client.session.epoch)
    client.stop()
    wait_until(lambda: janitor.pending() == 0)
    wait_until(lambda: janitor._sweeper is None or janitor._sweeper.dead)
    janitor.dispose("/d", guid, name, epoch=1)
    assert janitor.pending() == 0

    proxy.heal()
    client.start()
    guid, name = make(client, janitor)
    janitor.dispose("/d", guid, name, epoch=client.session.epoch)

    wait_until(lambda: janitor.pending() == 0)
    assert name not in observer.get_children("/d")


def test_no_node_is_asked_to_be_deleted_twice_at_once(
    server: ZookeeperServer, client: Client, janitor: Janitor, recorder: MemoryRecorder
) -> None:
    guid, name = make(client, janitor)
    before = int(server.mntr()["zk_packets_received"])

    for _ in range(50):
        janitor.dispose("/d", guid, name, epoch=client.session.epoch)
        janitor.dispose("/d", guid, None, epoch=client.session.epoch)
        assert janitor.pending() == recorder.value("zk_janitor_pending") == 1
    wait_until(lambda: janitor.pending() == 0)

    # One delete; the rest are pings and the question itself.
    assert int(server.mntr()["zk_packets_received"]) - before <= 4


def test_one_that_cannot_be_deleted_holds_up_no_other_and_is_told_of(
    client: Client, observer: Client, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    janitor = Janitor(client, clock=clock)
    no_deletes(client, "/p")
    stuck, stuck_name = make(client, janitor, "/p")
    janitor.dispose("/p", stuck, stuck_name, epoch=client.session.epoch)
    wait_until(lambda: isinstance(janitor._places["/p"].trouble, NoAuthError))
    assert not caplog.records

    guid, name = make(client, janitor)
    janitor.dispose("/d", guid, name, epoch=client.session.epoch)
    wait_until(lambda: not observer.get_children("/d"))
    clock.advance(10.5)
    janitor._session_moved()  # as after a reconnect: all is tried at once
    wait_until(lambda: caplog.records)

    (record,) = caplog.records
    assert record.levelname == "WARNING" and "1 nodes in /p" in record.message
    assert "NoAuth" in record.message
    assert record.guid == stuck  # type: ignore[attr-defined]
    client.add_auth("digest", "a:b")
    clock.advance(1.1)
    janitor._session_moved()
    wait_until(lambda: janitor.pending() == 0)
    assert observer.get_children("/p") == []


# The sweep.


def test_the_sweep_deletes_what_nobody_knows_of(
    client: Client, observer: Client, recorder: MemoryRecorder
) -> None:
    """A create that the server has done after all, long after it was given up."""
    janitor = Janitor(client, interval=0.1)
    live, live_name = make(client, janitor)
    guid = janitor.claim("/d")
    janitor.dispose("/d", guid, None, epoch=client.session.epoch)
    wait_until(lambda: janitor.pending() == 0)

    client.create(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True)

    wait_until(lambda: observer.get_children("/d") == [live_name])
    janitor.release(live)


def test_the_first_claim_of_a_client_asks_the_server_nothing(
    client: Client, janitor: Janitor, recorder: MemoryRecorder
) -> None:
    janitor.claim("/d")
    gevent.sleep(0.05)
    client.exists("/d")

    assert {labels[0] for labels in recorder.series("zk_requests")} == {"exists"}


def test_the_sweep_comes_after_a_reconnect(
    proxy: FlakyProxy, client: Client, observer: Client, janitor: Janitor
) -> None:
    janitor.claim("/d")
    guid = janitor.claim("/d")
    janitor.dispose("/d", guid, None, epoch=client.session.epoch)
    wait_until(lambda: janitor.pending() == 0)
    client.create(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True)

    proxy.cut()

    wait_until(lambda: not observer.get_children("/d"))


def test_the_sweep_leaves_what_is_not_its_own(client: Client, observer: Client) -> None:
    janitor, second = Janitor(client, interval=0.05), Janitor(client, interval=0.05)
    janitor.claim("/d")
    _, registered = make(client, second)  # another registry in the same session
    foreign = observer.create(f"/d/{'0' * 32}{LOCK}", ephemeral=True, sequence=True)
    stolen = observer.create(f"/d/{janitor._prefix}{'0' * 20}{LOCK}", ephemeral=True)
    kazoos = client.create(f"/d/{uuid.uuid4().hex}{LOCK}", ephemeral=True)  # its Lock's names
    orphan = janitor.claim("/d")
    janitor.release(orphan)
    client.create(f"/d/{orphan}{LOCK}", ephemeral=True)

    wait_until(lambda: f"{orphan}{LOCK}" not in observer.get_children("/d"))

    left = observer.get_children("/d")
    assert len(left) == 4
    assert registered in left
    assert {path.rpartition("/")[2] for path in (foreign, stolen, kazoos)} <= set(left)


def test_the_sweep_forgets_directories_that_are_certainly_clean(client: Client) -> None:
    janitor = Janitor(client, interval=0.05)
    for number in range(20):
        guid = janitor.claim(f"/{number}")
        janitor.dispose(f"/{number}", guid, None, epoch=client.session.epoch)
    assert len(janitor._places) == 20

    wait_until(lambda: not janitor._places and janitor._sweeper.dead)


def test_the_sweep_never_hits_a_live_node(
    proxy: FlakyProxy, observer: Client, client: Client, recorder: MemoryRecorder
) -> None:
    """Contenders come and go, are killed and cut off, while the sweep runs without a pause."""
    janitor = Janitor(client, interval=0.001)
    rng = random.Random(7)
    robbed, lived, killed = list[str](), list[str](), list[str]()

    def contend() -> None:
        while True:
            epoch = client.session.epoch
            guid = janitor.claim("/d")
            name = None
            try:
                path = client.create(f"/d/{guid}{LOCK}", ephemeral=True, sequence=True)
                name = path.rpartition("/")[2]
                gevent.sleep(rng.uniform(0.0, 0.02))
                # Alive: whoever is not the contender must not have deleted it.
                if client.exists(path) is None and client.session.holds(epoch):
                    robbed.append(path)
                lived.append(path)
                client.delete(path)
                janitor.release(guid)
            except Exception:
                janitor.dispose("/d", guid, name, epoch=epoch)
                gevent.sleep(0.005)
            except BaseException:
                killed.append(guid)
                janitor.dispose("/d", guid, name, epoch=epoch)
                raise

    contenders: list[Any] = [gevent.spawn(contend) for _ in range(8)]
    with gevent.Timeout(30.0, AssertionError("it did not come true")):
        for number in range(60):
            gevent.sleep(0.03)
            if number % 15 == 14:
                proxy.cut()
            else:
                victim = rng.randrange(len(contenders))
                contenders[victim].kill()
                contenders[victim] = gevent.spawn(contend)
        while len(lived) < 300:
            gevent.sleep(0.05)
    gevent.killall(contenders)

    assert robbed == []
    assert len(killed) >= 40
    wait_until(lambda: janitor.pending() == 0 and not observer.get_children("/d"))
    assert client.session.epoch == 1, "an expiry would have cleaned up in the janitor's place"
