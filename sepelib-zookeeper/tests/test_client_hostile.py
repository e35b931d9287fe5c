"""A client against what has broken clients elsewhere: half answers, silence, hundreds of cuts."""

import os
import struct
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.server
import pytest
from kazoo.exceptions import ConnectionLoss, SessionExpiredError, SessionMovedError

from sepelib.zookeeper import Client, TransactionRefused, ZookeeperMisused

SESSION = 2.0  # as in conftest


def test_answers_that_drip_do_not_pass_for_a_live_session(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=1.0)
    client.create("/mine", ephemeral=True)

    proxy.drip(1, 0.2)  # something is received all the time, and no answer comes to its end
    proxy.hold_requests()
    flavour.eventually(lambda: not observer.exists("/mine"), 5 * SESSION, "it never expired")
    assert flavour.lost(client)

    proxy.heal()
    flavour.eventually(lambda: flavour.connected(client), 5.0, "it does not recover")
    assert client.exists("/mine") is None


def test_a_start_ends_in_time_at_a_server_that_accepts_and_says_nothing(
    proxy: Any, flavour: Any
) -> None:
    proxy.accept_and_hang()
    client = flavour.make(proxy.hosts)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        client.start(timeout=0.5)

    assert time.monotonic() - started < 3.0


@pytest.mark.parametrize("fault", ["hold", "hold_replies", "refuse and cut"])
def test_a_stop_ends_in_time_whatever_the_network_does(
    proxy: Any, flavour: Any, fault: str
) -> None:
    client = flavour.client(proxy.hosts)
    if fault == "refuse and cut":
        flavour.cut_off(client, proxy)
    else:
        getattr(proxy, fault)()
    request = flavour.spawn(client.get, "/")
    gevent.sleep(0.1)

    flavour.within(4.0, client.stop, otherwise="stop() hangs")

    with pytest.raises(Exception):  # noqa: B017, PT011
        flavour.result(request, 1.0, "a request waits with a client that is stopped")
    assert flavour.lost(client)


def test_starts_and_stops_leave_no_descriptor_and_no_greenlet(zookeeper: Any, flavour: Any) -> None:
    import gc

    def count() -> tuple[int, int]:
        gc.collect()
        greenlets = [
            one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead
        ]
        return len(os.listdir("/proc/self/fd")), len(greenlets)

    client = flavour.client(zookeeper.hosts)
    client.stop()
    before = count()
    for _ in range(10):
        client.start()
        client.get("/")
        client.stop()

    flavour.eventually(lambda: count() <= before, 3.0, f"{count()} instead of {before}")


def test_a_client_that_is_cut_all_the_time_keeps_its_session_and_its_answers(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=6.0)
    client.create("/mine", ephemeral=True)
    session, epoch = client.session.session_id, client.session.epoch
    observer.create("/counter", b"0")

    def cut() -> None:
        while True:
            gevent.sleep(0.03)
            proxy.cut()

    cutter = flavour.spawn(cut)
    answered = 0
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        observer.set("/counter", str(answered).encode())
        value, _ = client.retry(client.get, "/counter")
        assert int(value) == answered, "an answer to an older request"
        answered += 1
    cutter.kill()

    flavour.eventually(lambda: flavour.connected(client), 3.0, "it does not recover")
    assert answered > 5
    assert (client.session.session_id, client.session.epoch) == (session, epoch)
    assert observer.exists("/mine")


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_a_reset_behind_whichever_byte_mixes_up_no_answers(
    proxy: Any, observer: Any, flavour: Any, direction: str
) -> None:
    client = flavour.client(proxy.hosts, timeout=10.0)
    for name in "abc":
        observer.create(f"/{name}", name.encode() * 30)
    session = client.session.session_id
    for count in range(0, 400, 13):
        proxy.reset_after(count, direction=direction)
        # One after the other, as far as they come, so that the reset is behind all kinds of bytes.
        for number in range(12):
            name = "abc"[number % 3]
            try:
                answer = client.get(f"/{name}")
            except ConnectionLoss:
                break
            assert answer[0] == name.encode() * 30
        pending = {name: client.get_async(f"/{name}") for name in "abc"}
        for name in "cab":
            assert client.retry(client.get, f"/{name}")[0] == name.encode() * 30
        for name, result in pending.items():
            assert result.exception is not None or result.get()[0] == name.encode() * 30

    assert (client.session.session_id, client.session.epoch) == (session, 1)


def test_a_stop_ends_the_wait_for_a_lock_also_when_the_session_was_lost_before(
    proxy: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=1.0)
    flavour.cut_off(client, proxy)
    flavour.eventually(lambda: flavour.lost(client), 5.0, "it is not lost")
    waiter = flavour.spawn(flavour.lock(client, "/lock").acquire)
    gevent.sleep(0.1)

    client.stop()

    with pytest.raises(ZookeeperMisused):
        flavour.result(waiter, 2.0, "it waits for a client that is stopped")


def test_a_lost_answer_to_the_hello_costs_no_session(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=6.0)
    client.create("/mine", ephemeral=True)
    session = client.session.session_id

    with proxy.lose_answer_to("connect"):
        proxy.cut()
        flavour.eventually(lambda: not flavour.connected(client), 2.0, "a cut was not noticed")
        flavour.eventually(lambda: flavour.connected(client), 5.0, "it does not recover")

    assert client.session.session_id == session and observer.exists("/mine")


class Follower(gevent.server.StreamServer):
    """Lets any session in, and refuses what is for the leader, as it says, with *error*."""

    def __init__(self, error: int) -> None:
        super().__init__(("127.0.0.1", 0), self.serve)
        self.error = error
        self.sessions: list[int] = []
        """Those that were asked for, 0 for a new one."""

    def serve(self, sock: Any, address: object) -> None:
        def receive() -> bytes:
            head = sock.recv(4)
            return sock.recv(*struct.unpack(">i", head)) if head else b""

        def send(data: bytes) -> None:
            sock.sendall(struct.pack(">i", len(data)) + data)

        (asked,) = struct.unpack_from(">q", receive(), 16)
        self.sessions.append(asked)
        send(struct.pack(">iiqi16sb", 0, 2000, asked or len(self.sessions), 16, bytes(16), 0))
        while data := receive():
            xid, op = struct.unpack_from(">ii", data)
            if op == 14:  # a transaction is answered, by the error of its operation
                refused = struct.pack(">ibii", -1, 0, self.error, self.error)
                send(struct.pack(">iqi", xid, 1, 0) + refused + struct.pack(">ibi", -1, 1, -1))
            else:
                send(struct.pack(">iqi", xid, 1, 0 if op == 11 else self.error))


def change(client: Client) -> None:
    client.create("/x")


def change_all_or_none(client: Client) -> None:
    with client.transaction() as transaction:
        transaction.create("/x")


@pytest.mark.parametrize("do", [change, change_all_or_none])
def test_a_session_that_only_pings_believe_in_is_lost_at_the_first_refusal(
    flavour: Any, do: Callable[[Client], None]
) -> None:
    with Follower(SessionExpiredError.code) as follower:
        follower.start()
        client = flavour.make(f"127.0.0.1:{follower.server_port}")
        client.start()
        with pytest.raises((SessionExpiredError, TransactionRefused)):
            do(client)
        flavour.eventually(lambda: client.session.epoch == 2, 5.0, "the dead session lives on")
        assert follower.sessions == [0, 0]
        client.stop()


def test_a_session_that_has_moved_is_looked_for_elsewhere(flavour: Any) -> None:
    with Follower(SessionMovedError.code) as follower:
        follower.start()
        client = flavour.make(f"127.0.0.1:{follower.server_port}")
        client.start()
        with pytest.raises(SessionMovedError):
            change(client)
        flavour.eventually(lambda: follower.sessions == [0, 1], 5.0, "it stays where it is not")
        flavour.eventually(lambda: flavour.connected(client), 5.0, "it does not recover")
        assert client.session.epoch == 1
        client.stop()
