"""`ZookeeperProxy`: which frames pass and which are lost, seen frame by frame."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss
from kazoo.handlers.gevent import SequentialGeventHandler

from sepelib.zookeeper.testing import ZookeeperProxy, ZookeeperServer
from sepelib.zookeeper.testing._wire import Reply, Wire, string

EXISTS, GET, PING, CLOSE = 3, 4, 11, -11
PING_XID, EVENT_XID = -2, -1
WATCH, NO_WATCH = b"\1", b"\0"


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def proxy(server: ZookeeperServer) -> Iterator[ZookeeperProxy]:
    with server.proxy() as proxy:
        yield proxy


@pytest.fixture
def direct(server: ZookeeperServer) -> Iterator[Wire]:
    with Wire(server.address, 10.0) as wire:
        wire.connect()
        yield wire


@pytest.fixture
def wire(proxy: ZookeeperProxy) -> Iterator[Wire]:
    with Wire(proxy.address, 10.0) as wire:
        wire.connect()
        yield wire


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path that is not there."""
    return f"/{request.node.name}"


def frame(xid: int, kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">ii", xid, kind) + body


def get(xid: int, path: str = "/") -> bytes:
    return frame(xid, GET, string(path) + NO_WATCH)


def create(xid: int, path: str) -> bytes:
    acl = struct.pack(">ii", 1, 31) + string("world") + string("anyone")
    return frame(xid, 1, string(path) + string("") + acl + struct.pack(">i", 0))


def exists(direct: Wire, path: str) -> bool:
    direct.send(frame(1, EXISTS, string(path) + NO_WATCH))
    return direct.reply().error == 0


def until_the_end(wire: Wire) -> list[Reply]:
    replies = []
    while True:
        try:
            replies.append(wire.reply())
        except EOFError:
            return replies


def xids(replies: list[Reply]) -> list[int]:
    return [reply.xid for reply in replies]


def test_frames_pass_and_are_counted(proxy: ZookeeperProxy, wire: Wire, path: str) -> None:
    before = proxy.counts()
    wire.send(get(1), create(2, path), frame(PING_XID, PING), frame(3, 15, b"nonsense"))
    assert [wire.reply().xid for _ in range(4)][:2] == [1, 2]
    wire.send(frame(4, CLOSE))
    assert wire.reply().xid == 4
    assert before == Counter(connect=1)
    # A create2 is a create, with an error here.
    assert proxy.counts() - before == Counter(get=1, create=2, ping=1, close=1)


def test_a_frame_that_comes_in_pieces_passes_whole(proxy: ZookeeperProxy, wire: Wire) -> None:
    proxy.drip(1, 0.001, direction="requests")
    wire.send(get(1))
    assert wire.reply().xid == 1


def test_frames_larger_than_a_buffer_pass(proxy: ZookeeperProxy, wire: Wire, path: str) -> None:
    big = bytes(900_000)
    acl = struct.pack(">ii", 1, 31) + string("world") + string("anyone")
    data = struct.pack(">i", len(big)) + big
    wire.send(
        *(frame(i, 1, string(f"{path}{i}") + data + acl + bytes(4)) for i in range(3)),
        *(get(i, f"{path}{i - 3}") for i in range(3, 6)),
    )
    replies = [wire.reply() for _ in range(6)]
    assert xids(replies) == [0, 1, 2, 3, 4, 5]
    assert all(big in reply.body for reply in replies[3:])


def test_four_letter_words_pass(proxy: ZookeeperProxy) -> None:
    with socket.create_connection(proxy.address, 10.0) as connection:
        connection.sendall(b"srvr")
        assert b"Mode: standalone" in connection.makefile("rb").read()
    assert not proxy.counts()


def test_exactly_the_answer_to_the_operation_is_lost(
    proxy: ZookeeperProxy, wire: Wire, direct: Wire, path: str
) -> None:
    with proxy.lose_answer_to("create") as loss:
        wire.send(get(1), frame(PING_XID, PING), get(2), create(3, path), get(4))
        replies = until_the_end(wire)
    # All that came before it arrives; what comes after it is lost with the connection.
    assert sorted(xids(replies)) == [PING_XID, 1, 2]
    assert exists(direct, path)
    assert loss.request == struct.pack(">i", len(create(3, path))) + create(3, path)
    assert loss.answer[4:8] == struct.pack(">i", 3)


def test_a_watch_event_is_not_taken_for_the_answer(
    proxy: ZookeeperProxy, wire: Wire, path: str
) -> None:
    wire.send(frame(1, EXISTS, string(path) + WATCH))
    assert wire.reply().error == -101
    with proxy.lose_answer_to("create") as loss:
        wire.send(create(-7, path))  # a client may start anywhere, also below zero
        replies = until_the_end(wire)
    assert xids(replies) == [EVENT_XID]
    assert loss.answer[4:8] == struct.pack(">i", -7)


def test_a_pings_answer_is_not_taken_for_the_answer(
    proxy: ZookeeperProxy, server: ZookeeperServer, wire: Wire, path: str
) -> None:
    with proxy.lose_answer_to("create") as loss:
        with server.pause():  # so that both are asked before one is answered
            wire.send(create(1, path), frame(PING_XID, PING))
            proxy.wait_for(lambda: proxy.counts()["ping"])
        assert xids(until_the_end(wire)) in ([], [PING_XID])
    assert loss.answer[4:8] == struct.pack(">i", 1)


def test_of_several_pings_the_answer_to_the_next_is_lost(
    proxy: ZookeeperProxy, server: ZookeeperServer, wire: Wire
) -> None:
    with server.pause():
        wire.send(frame(PING_XID, PING))
        proxy.wait_for(lambda: proxy.counts()["ping"] == 1)
        loss = proxy.lose_answer_to("ping")
        wire.send(frame(PING_XID, PING))
        proxy.wait_for(lambda: proxy.counts()["ping"] == 2)
    assert xids(until_the_end(wire)) == [PING_XID]
    loss.wait()


def test_only_a_request_with_the_given_bytes_loses_its_answer(
    proxy: ZookeeperProxy, wire: Wire, path: str
) -> None:
    with proxy.lose_answer_to("create", containing=b"-two"):
        wire.send(create(1, f"{path}-one"), create(2, f"{path}-two"))
        assert xids(until_the_end(wire)) == [1]


def test_a_connection_can_lose_the_answer_to_its_first_frame(
    proxy: ZookeeperProxy, server: ZookeeperServer
) -> None:
    proxy.lose_answer_to("connect")
    with Wire(proxy.address, 10.0) as wire, pytest.raises(EOFError):
        wire.connect()
    with Wire(proxy.address, 10.0) as wire:
        assert wire.connect()[0]


def test_a_loss_may_end_in_a_reset(proxy: ZookeeperProxy, wire: Wire, path: str) -> None:
    with proxy.lose_answer_to("create", then="reset"):
        wire.send(create(1, path))
        with pytest.raises(ConnectionResetError):
            wire.reply()


def test_a_loss_may_end_in_silence(proxy: ZookeeperProxy, wire: Wire, path: str) -> None:
    loss = proxy.lose_answer_to("create", then="hold")
    wire.send(get(1), create(2, path), get(3))
    assert wire.reply().xid == 1
    loss.wait()
    proxy.wait_for(lambda: proxy.counts()["get"] == 2)
    proxy.resume()
    assert wire.reply().xid == 3


def test_silence_outlives_the_server(
    proxy: ZookeeperProxy, server: ZookeeperServer, wire: Wire, path: str
) -> None:
    loss = proxy.lose_answer_to("create", then="hold")
    wire.send(create(1, path), get(2), frame(3, CLOSE))
    loss.wait()
    proxy.wait_for(lambda: "sid=" not in server.cons())
    proxy.resume()
    assert xids(until_the_end(wire)) == [2, 3]


def test_one_answer_is_lost_and_no_other(proxy: ZookeeperProxy, path: str) -> None:
    proxy.lose_answer_to("create")
    for i, expected in enumerate([[], [1]]):
        with Wire(proxy.address, 10.0) as wire:
            wire.connect()
            wire.send(create(1, f"{path}{i}"), *[frame(2, CLOSE)] * bool(expected))
            assert xids(until_the_end(wire))[:1] == expected


def test_a_loss_that_nothing_came_to_lose_fails_its_test(proxy: ZookeeperProxy, wire: Wire) -> None:
    with pytest.raises(AssertionError, match="no delete came"), proxy.lose_answer_to("delete"):
        wire.send(get(1))
    assert wire.reply().xid == 1
    loss = proxy.lose_answer_to("delete")
    with pytest.raises(RuntimeError, match="is armed already"):
        proxy.lose_answer_to("get")
    with pytest.raises(TimeoutError, match="no such request came"):
        loss.wait(timeout=0.01)
    proxy.heal()
    proxy.lose_answer_to("get").cancel()
    wire.send(get(2))
    assert wire.reply().xid == 2


def test_an_unknown_operation_is_refused(proxy: ZookeeperProxy) -> None:
    with pytest.raises(ValueError, match=r"no operation 'creat': .*create, delete"):
        proxy.lose_answer_to("creat")


def test_held_requests_do_not_reach_the_server(
    proxy: ZookeeperProxy, wire: Wire, direct: Wire, path: str
) -> None:
    proxy.hold_requests()
    wire.send(create(1, path))
    proxy.wait_for(lambda: proxy.received.requests > proxy.passed.requests)
    assert proxy.counts()["create"] == 0
    assert not exists(direct, path)
    proxy.heal()
    assert wire.reply().xid == 1


def test_held_replies_have_been_earned(
    proxy: ZookeeperProxy, wire: Wire, direct: Wire, path: str
) -> None:
    proxy.hold_replies()
    replies = proxy.received.replies
    wire.send(create(1, path))
    proxy.wait_for(lambda: proxy.received.replies > replies)
    assert exists(direct, path)
    proxy.heal()
    assert wire.reply().xid == 1


def test_a_cut_reaches_client_and_server(
    proxy: ZookeeperProxy, server: ZookeeperServer, wire: Wire
) -> None:
    proxy.refuse()
    assert proxy.cut() == 1
    with pytest.raises(EOFError):
        wire.reply()
    with pytest.raises(ConnectionRefusedError):
        Wire(proxy.address, 10.0)
    proxy.wait_for(lambda: "sid=" not in server.cons())
    proxy.heal()
    with Wire(proxy.address, 10.0) as again:
        assert again.connect()[0]


def test_a_server_that_is_down_looks_down(server: ZookeeperServer) -> None:
    with server.proxy() as proxy, server.stop():
        wire = Wire(proxy.address, 10.0)
        with wire, pytest.raises((EOFError, ConnectionError)):
            wire.connect()


def test_new_connections_can_be_led_to_another_server(
    proxy: ZookeeperProxy, server: ZookeeperServer, path: str
) -> None:
    with ZookeeperServer() as other, Wire(other.address, 10.0) as there:
        there.connect()
        proxy.redirect(*other.address)
        with Wire(proxy.address, 10.0) as wire:
            wire.connect()
            wire.create(path)
        assert exists(there, path)


def test_a_chroot_is_a_part_of_its_hosts(server: ZookeeperServer) -> None:
    with server.proxy("/chroot") as proxy:
        assert proxy.hosts == f"127.0.0.1:{proxy.port}/chroot"


def test_a_proxy_whose_test_failed_is_closed(server: ZookeeperServer) -> None:
    class Failed(Exception):
        pass

    proxy = server.proxy()
    with Wire(proxy.address, 10.0) as wire:
        wire.connect()
        with pytest.raises(Failed), proxy:
            raise Failed
    assert proxy.connections.open == 0
    with pytest.raises(RuntimeError, match="cannot be started again"):
        proxy.start()


def test_greenlets_run_while_a_test_waits_for_the_proxy(proxy: ZookeeperProxy) -> None:
    """In an unpatched process too, where the proxy's own threads are native ones."""
    gevent.sleep(0)  # the hub is there
    client = KazooClient(proxy.hosts, 4.0, handler=SequentialGeventHandler())
    try:
        client.start()
        loss = proxy.lose_answer_to("create")
        created = client.create_async("/by-kazoo")
        loss.wait()
        with pytest.raises(ConnectionLoss):
            created.get(timeout=10.0)
        before = time.monotonic()
        asked = gevent.spawn(client.retry, client.exists, "/by-kazoo")
        proxy.wait_for(asked.ready, timeout=20.0)
        assert asked.value is not None
        assert time.monotonic() - before < 20.0
    finally:
        client.stop()
        client.close()
