"""Requests that end, a stop that is legal everywhere, and kazoo's names that we stand on."""

import gc
import inspect
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent
import gevent.os
import gevent.select
import pytest
import trustme
from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
)
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.protocol import connection as kazoo_connection
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import RetryFailedError

from sepelib.util.deadline import deadline
from sepelib.util.testing import MemoryRecorder, ThreadedServer, free_port
from sepelib.zookeeper import (
    Client,
    SessionLost,
    SessionState,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper._stream import Stream
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.testing import ZookeeperServer

T = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def make() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(hosts: str, timeout: float = T, *, start: bool = True, **options: Any) -> Client:
        client = Client(hosts, timeout, **options)
        clients.append(client)
        if start:
            client.start()
        return client

    yield make
    for client in clients:
        client.close()


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not within the limit"
        gevent.sleep(0.01)


def greenlets() -> set[int]:
    gc.collect()
    return {id(o) for o in gc.get_objects() if isinstance(o, gevent.Greenlet) and not o.dead}


# ---- what we stand on


def test_the_names_of_kazoo_that_are_not_public_are_those_we_know() -> None:
    """When this fails, kazoo has changed: read its diff, then `_kazoo.py`, then raise the pin."""
    assert version("kazoo").startswith("2.11.")
    parameters = {
        kazoo_connection.ConnectionHandler: {
            "__init__": ["self", "client", "retry_sleeper", "logger", "sasl_options"],
            "zk_loop": ["self"],
            "_connect_loop": ["self", "retry"],
            "_connect_attempt": ["self", "host", "hostip", "port", "retry"],
            "_connect": ["self", "host", "hostip", "port"],
            "_expand_client_hosts": ["self"],
            "_invoke": ["self", "timeout", "request", "xid"],
            "_submit": ["self", "request", "timeout", "xid"],
            "_write": ["self", "msg", "timeout"],
            "_read": ["self", "length", "timeout"],
            "_read_header": ["self", "timeout"],
            "_read_watch_event": ["self", "buffer", "offset"],
            "_authenticate_with_sasl": ["self", "host", "timeout"],
            "_server_pinger": ["self"],
            "start": ["self"],
            "stop": ["self", "timeout"],
            "close": ["self"],
        },
        KazooClient: {
            "_call": ["self", "request", "async_object"],
            "_session_callback": ["self", "state"],
            "_notify_pending": ["self", "state"],
            "_make_state_change": ["self", "state"],
            "_reset": ["self"],
            "_reset_session": ["self"],
            "_reset_watchers": ["self"],
            "start_async": ["self"],
            "create_async": [
                *("self", "path", "value", "acl", "ephemeral"),
                *("sequence", "makepath", "include_data"),
            ],
            "ensure_path_async": ["self", "path", "acl"],
        },
    }
    for cls, methods in parameters.items():
        for name, expected in methods.items():
            found = list(inspect.signature(getattr(cls, name)).parameters)
            assert found == expected, f"{cls.__name__}.{name}"
    client = KazooClient(handler=SequentialGeventHandler())
    attributes = (
        *("_connection", "_conn_retry", "_retry", "_queue", "_pending", "_live", "_stopped"),
        *("_writer_stopped", "_state", "_session_id", "_session_passwd", "_session_timeout"),
        *("_child_watchers", "_data_watchers", "last_zxid", "chroot", "hosts", "read_only"),
    )
    for name in attributes:
        assert hasattr(client, name), f"KazooClient.{name}"
    for name in ("_connection_routine", "_rw_server", "_ro_mode", "retry_sleeper", "sasl_options"):
        assert hasattr(client._connection, name), f"ConnectionHandler.{name}"
    for name in ("RWServerAvailable", "STOP_CONNECTING", "WATCH_XID", "PING_XID", "AUTH_XID"):
        assert hasattr(kazoo_connection, name)
    xids = kazoo_connection.WATCH_XID, kazoo_connection.PING_XID, kazoo_connection.AUTH_XID
    assert xids == (-1, -2, -4)


def test_it_is_a_kazoo_client_with_all_that_kazoo_users_know(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts)
    assert isinstance(client, KazooClient)
    states: list[str] = []
    client.add_listener(states.append)
    assert client.create("/kazoo/a/b", b"x", makepath=True) == "/kazoo/a/b"
    path, stat = client.create_async("/kazoo/s-", sequence=True, include_data=True).get()
    assert (path, stat.version) == ("/kazoo/s-0000000001", 0)
    assert client.get("/kazoo/a/b")[0] == b"x"
    assert client.set("/kazoo/a/b", b"y").version == 1
    assert sorted(client.get_children("/kazoo")) == ["a", "s-0000000001"]
    assert client.exists("/nope") is None
    assert client.sync("/kazoo") == "/kazoo"
    assert client.ensure_path("/kazoo/a/b") is True
    assert client.retry(client.get, "/kazoo/a/b")[0] == b"y"
    assert client.get_acls("/kazoo")[1].version == 0
    seen: list[str] = []
    client.get("/kazoo/a/b", watch=lambda event: seen.append(event.path))
    client.delete("/kazoo", recursive=True)
    eventually(lambda: seen == ["/kazoo/a/b"])
    with pytest.raises(NoNodeError):
        client.get("/kazoo")
    assert client.command(b"ruok") == "imok"
    assert client.server_version() >= (3, 5)
    client.stop()
    eventually(lambda: states == [KazooState.LOST])


# ---- every request ends


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_request_that_is_not_answered_ends_in_its_time(
    server: ZookeeperServer, make: Any, how: str
) -> None:
    proxy = server.proxy()
    recorder = MemoryRecorder()
    client = make(proxy.hosts, 10.0, request_timeout=0.4, recorder=recorder)
    proxy.hold()
    start = time.monotonic()
    with pytest.raises(ZookeeperTimeout, match=r"^get /: no answer within 0\.4") as caught:
        client.get("/") if how == "sync" else client.get_async("/").get()
    assert 0.4 <= time.monotonic() - start < 2.0
    assert caught.value.maybe_executed
    assert isinstance(caught.value, ConnectionLoss | TimeoutError)
    proxy.heal()
    # The late answer is taken for no other request's.
    assert client.exists("/nope") is None
    assert client.get("/")[1].version == 0
    assert recorder.value("zk_requests", "get", "ok") == 1


def test_a_request_without_a_connection_ends_in_its_time_and_is_never_sent(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 4.0, request_timeout=0.4)
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.session.state is SessionState.SUSPENDED)
    start = time.monotonic()
    result = client.create_async("/never-sent")
    with pytest.raises(ZookeeperTimeout, match=r"^create /never-sent: not sent within") as caught:
        result.get()
    assert 0.4 <= time.monotonic() - start < 2.0
    assert not caught.value.maybe_executed
    proxy.heal()
    assert client.session.wait(timeout=20.0)
    assert client.exists("/never-sent") is None


def test_the_time_of_a_request_is_that_of_the_session_unless_told_otherwise(
    server: ZookeeperServer, make: Any
) -> None:
    assert make(server.hosts, 3.0).request_timeout == 3.0
    assert make(server.hosts, 3.0, request_timeout=7.0).request_timeout == 7.0
    # The server allows 20 ticks at most without another setting; here 60 s.
    assert make(server.hosts, 100.0).request_timeout == 60.0


def test_the_current_deadline_is_obeyed(server: ZookeeperServer, make: Any) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 10.0)
    proxy.hold()
    start = time.monotonic()
    with deadline(0.3), pytest.raises(ZookeeperTimeout, match="get /a: no answer within the"):
        client.get("/a")
    with deadline(0.0), pytest.raises(ZookeeperTimeout, match="deadline exceeded"):
        client.get("/a")
    with deadline(0.0), pytest.raises(ZookeeperTimeout, match="deadline exceeded"):
        client.retry(client.get, "/a")
    with pytest.raises(ZookeeperTimeout, match="within the caller's"):
        client.get_async("/a").get(timeout=0.1)
    assert time.monotonic() - start < 3.0
    proxy.heal()


def test_what_takes_several_requests_has_the_time_of_one(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 20.0, request_timeout=0.5)
    proxy.delay(replies=0.2)
    for call in client.ensure_path, lambda path: client.create(path, makepath=True):
        start = time.monotonic()
        with pytest.raises(ZookeeperTimeout, match=r"not done within 0\.5 s"):
            call("/a/b/c/d/e/f/g")
        assert time.monotonic() - start < 2.0


def test_a_retry_ends_too(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts, 10.0, request_timeout=0.5)
    calls: list[float] = []

    def fail() -> None:
        calls.append(time.monotonic())
        raise ConnectionLoss

    with pytest.raises(RetryFailedError):
        client.retry(fail)
    assert len(calls) > 2
    assert calls[-1] - calls[0] < 5.0  # not T


def test_a_lost_connection_fails_each_request_with_an_error_of_its_own(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts)
    proxy.hold_replies()
    results = [client.get_async("/") for _ in range(3)]
    gevent.sleep(0.05)
    proxy.cut()
    errors = []
    for result in results:
        with pytest.raises(
            ConnectionLoss, match=r"^get /: no answer came before the end of the connection to 127"
        ) as caught:
            result.get()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3


def test_an_expired_session_fails_requests_with_session_lost(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts)
    results: list[Any] = []
    client.session.subscribe(
        lambda: (
            results.append(gevent.spawn(client.get))
            if client.session.state is SessionState.LOST
            else None
        )
    )
    client._session_callback(KeeperState.EXPIRED_SESSION)
    with pytest.raises(SessionLost) as caught:
        client.get("/")
    assert isinstance(caught.value, SessionExpiredError)


def test_the_first_end_of_a_result_counts(server: ZookeeperServer, make: Any) -> None:
    result = make(server.hosts).handler.async_result()
    with pytest.raises(ZookeeperTimeout, match="no answer yet"):
        result.get_nowait()
    result.set(1)
    result.set_exception(NoNodeError())
    result.set(2)
    assert (result.get(), result.exception) == (1, None)


def test_a_thousand_requests_in_flight_are_answered_in_order(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts, 20.0)
    client.create("/many", bytes(20_000))
    results = [
        client.get_async("/many") if number % 2 else client.create_async(f"/many/{number}")
        for number in range(1000)
    ]
    for number, result in enumerate(results):
        answer = result.get()
        assert answer[0] == bytes(20_000) if number % 2 else answer == f"/many/{number}"


def test_a_stream_that_never_runs_dry_leaves_others_room() -> None:
    class Flood:
        def recv(self, size: int) -> bytes:
            return b"abcd"

    stream = Stream(Flood(), check=lambda: None, on_room=lambda: None)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            gevent.sleep(0)

    ticker = gevent.spawn(tick)
    assert stream.take(400) == b"abcd" * 100
    ticker.kill()
    assert ticks > 90


def test_large_values_leave_in_pieces_and_in_order(server: ZookeeperServer, make: Any) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 20.0)
    client.create("/large")
    proxy.hold_requests()
    values = [bytes([number]) * 900_000 for number in range(8)]
    results = [client.set_async("/large", value) for value in values]
    assert client._connection._stream.full
    gevent.sleep(0.05)
    proxy.resume()
    assert [result.get().version for result in results] == list(range(1, 9))
    assert client.get("/large")[0] == values[-1]


def test_a_value_that_cannot_be_sent_harms_nobody_else(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    with pytest.raises(UnicodeEncodeError):
        client.get("/\ud800")
    assert client.exists("/")
    assert client.session.epoch == 1


def test_the_metrics_of_requests(server: ZookeeperServer, make: Any) -> None:
    recorder = MemoryRecorder()
    proxy = server.proxy()
    client = make(proxy.hosts, 10.0, recorder=recorder)
    client.create("/metrics")
    for _ in range(2):
        with pytest.raises(NodeExistsError):
            client.create("/metrics")
    assert client.exists("/metrics/none") is None
    assert recorder.value("zk_requests", "create", "ok") == 1
    assert recorder.value("zk_requests", "create", "error") == 2
    assert recorder.value("zk_requests", "exists", "ok") == 1
    assert len(recorder.observations("zk_request_seconds", "create")) == 3
    proxy.hold()
    client._request_timeout = 0.1
    with pytest.raises(ZookeeperTimeout):
        client.get("/metrics")
    client._request_timeout = 5.0
    lost = client.get_async("/metrics")
    proxy.cut()
    with pytest.raises(ConnectionLoss):
        lost.get()
    assert recorder.value("zk_requests", "get", "timeout") == 1
    assert recorder.value("zk_requests", "get", "lost") == 1


# ---- start


def test_a_start_on_a_dead_port_is_a_timeout_and_leaves_nothing(make: Any) -> None:
    before = greenlets()
    port = free_port()
    client = make(f"127.0.0.1:{port}", start=False)
    start = time.monotonic()
    with pytest.raises(ZookeeperTimeout) as caught:
        client.start(timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 2.0
    assert isinstance(caught.value, TimeoutError | Exception)
    assert str(caught.value).startswith(f"no connection to 127.0.0.1:{port} within 0.3 s: ")
    assert "refused" in str(caught.value)
    eventually(lambda: greenlets() <= before, 3.0)
    with pytest.raises(ConnectionClosedError):
        client.get("/")


def test_a_start_that_is_killed_leaves_nothing(server: ZookeeperServer, make: Any) -> None:
    proxy = server.proxy()
    proxy.hold()
    before = greenlets()
    client = make(proxy.hosts, start=False)
    with suppress(gevent.Timeout), gevent.Timeout(0.2):
        client.start()
    proxy.cut()  # its own threads are greenlets in a patched process
    eventually(lambda: greenlets() <= before, 3.0)
    assert client.session.epoch == 0
    with deadline(0.2), pytest.raises(ZookeeperTimeout):
        client.start()


def test_stop_and_start_make_a_new_session(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    client.create("/restart", ephemeral=True)
    for epoch in 2, 3:
        old = client.session.session_id
        client.restart()
        assert client.session.session_id != old
        assert client.session.epoch == epoch
        assert not client.session.holds(epoch - 1)
        assert client.exists("/restart") is None
    client.start()
    assert client.session.epoch == 3


def test_a_chroot_is_invisible_and_its_absence_is_told(
    server: ZookeeperServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(f"{server.hosts}/apps/one")
    assert "the chroot /apps/one does not exist" in caplog.text
    other = make(server.hosts)
    other.ensure_path("/apps/one")
    assert client.create("/x", ephemeral=True) == "/x"
    seen: list[str] = []
    client.get("/x", watch=lambda event: seen.append(event.path))
    assert other.exists("/apps/one/x").ephemeralOwner == client.session.session_id
    client.delete("/x")
    eventually(lambda: seen == ["/x"])


def test_a_failed_login_ends_the_client_and_is_told(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    with pytest.raises(AuthFailedError):
        client.add_auth("unknown", "bob:secret")
    eventually(lambda: client.session.state is SessionState.LOST)
    with pytest.raises(AuthFailedError, match="authentication failed at"):
        client.get("/")
    client.stop()
    client.auth_data.clear()
    client.start()
    assert client.get("/")


def test_logins_are_answered_between_other_requests(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    results = [client.sync_async("/") for _ in range(20)]
    login = client.add_auth_async("digest", "bob:secret")
    results += [client.get_async("/") for _ in range(20)]
    assert login.get() is True
    assert [result.get() for result in results][:20] == ["/"] * 20
    assert client.session.epoch == 1


# ---- outages


def test_requests_may_come_before_there_is_a_connection(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts, start=False)
    client.start_async()
    assert client.client_state == KeeperState.CONNECTING
    assert client.exists("/")


def test_a_server_that_does_not_answer_the_first_request_is_asked_again_soon(
    server: ZookeeperServer, make: Any
) -> None:
    """One that has just begun to listen may forget it."""
    proxy = server.proxy()
    client = make(proxy.hosts, 20.0, start=False)
    start = time.monotonic()
    with proxy.lose_answer_to("connect", then="hold"):
        client.start(timeout=15.0)
    assert time.monotonic() - start < 8.0
    assert client._connection._unheard == 0


def test_a_server_that_takes_its_time_for_the_first_request_is_given_more(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 4.0, start=False)
    proxy.delay(replies=1.4)  # more than T / 4
    client.start(timeout=15.0)
    assert client.session.holds(1)


@pytest.fixture
def unreachable() -> Iterator[str]:
    """A port to which nobody is connected, nor refused."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"
        for each in waiting:
            each.close()


def test_a_host_that_is_gone_does_not_cost_the_session(
    server: ZookeeperServer, make: Any, unreachable: str
) -> None:
    proxy = server.proxy()
    client = make(f"{unreachable},{proxy.hosts}", 3.0, randomize_hosts=False)
    for _ in range(2):
        proxy.cut()
        eventually(lambda: client.session.state is SessionState.SUSPENDED)
        assert client.session.wait(timeout=20.0)
    assert client.session.epoch == 1


def test_after_an_outage_it_is_back_soon_after_the_server(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 4.0)
    retry = client._connection.retry_sleeper
    assert (retry.max_tries, retry.delay, retry.max_delay) == (-1, 0.05, 1.0)
    proxy.refuse()
    proxy.cut()
    gevent.sleep(2.0)
    proxy.heal()
    start = time.monotonic()
    assert client.session.wait(timeout=20.0)
    assert time.monotonic() - start < 3.0
    assert client.get("/")


class ReadOnlyServer(ThreadedServer):
    """As much of a ZooKeeper as a member without a quorum shows."""

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        frame = connection.recv(4096)
        if frame[:4] == b"isro":
            connection.sendall(b"ro")
            return
        timeout = (400).to_bytes(4, "big")
        answer = bytes(4) + timeout + (77).to_bytes(8, "big") + (16).to_bytes(4, "big") + bytes(16)
        answer += b"\x01"
        connection.sendall(len(answer).to_bytes(4, "big") + answer)
        while ping := connection.recv(4096):
            if ping[4:8] == (-2).to_bytes(4, "big", signed=True):
                connection.sendall((16).to_bytes(4, "big") + ping[4:8] + bytes(12))


def test_a_read_only_server_is_a_connection_but_keeps_no_session(make: Any) -> None:
    with ReadOnlyServer() as server:
        client = make(f"127.0.0.1:{server.address[1]}", 0.4, read_only=True)
        gevent.sleep(1.0)
        assert client.client_state == KeeperState.CONNECTED_RO
        assert (client.session.state, client.session.epoch) == (SessionState.LOST, 0)
        assert not client.session.holds(0)
        assert not client.session.wait(timeout=0.1)
        client.close()


def test_a_read_only_server_is_left_for_any_other_that_takes_writes(
    server: ZookeeperServer, make: Any, unreachable: str
) -> None:
    with ReadOnlyServer() as first, ReadOnlyServer() as second:
        hosts = ",".join(f"127.0.0.1:{it.address[1]}" for it in (first, second))
        hosts = f"{hosts},{unreachable},{server.hosts}"
        client = make(hosts, 2.0, read_only=True, randomize_hosts=False)
        assert client.client_state == KeeperState.CONNECTED_RO
        assert client.session.wait(timeout=20.0)
        assert client.exists("/")
        client.close()


class Garbage(ThreadedServer):
    """Accepts the session, then says what is no answer."""

    def __init__(self, garbage: bytes) -> None:
        super().__init__()
        self.garbage = garbage

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        connection.recv(4096)
        answer = bytes(4) + (4000).to_bytes(4, "big") + (77).to_bytes(8, "big")
        answer += (16).to_bytes(4, "big") + bytes(17)
        connection.sendall(len(answer).to_bytes(4, "big") + answer + self.garbage)
        while connection.recv(4096):
            pass


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04abcd",
        b"\x00\x00\x00\x10" + bytes(16),
        b"\x00\x00\x00\x10\xff\xff\xff\xfc" + bytes(12),
        b"\x00\x00\x00\x11\xff\xff\xff\xff" + bytes(13),
    ],
)
def test_garbage_ends_the_connection_and_not_the_client(
    make: Any, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Garbage(garbage) as server:
        client = make(f"127.0.0.1:{server.address[1]}", 4.0, start=False)
        client.start_async()
        eventually(lambda: server.connections.accepted > 3, 4.0)
        client.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


class Terminator(ThreadedServer):
    """Talks TLS to the client and plainly to the server."""

    silent = (ConnectionError, ssl.SSLError, OSError)

    def __init__(self, upstream: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(ssl_context=context)
        self.upstream = upstream

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with socket.create_connection(self.upstream) as upstream:
            back = threading.Thread(target=self._pass, args=(upstream, connection))
            back.start()
            self._pass(connection, upstream)
            upstream.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(*self.silent):
            while data := source.recv(65536):
                sink.sendall(data)


def test_it_talks_tls(server: ZookeeperServer, make: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Terminator(server.address, context) as terminator:
        hosts = f"127.0.0.1:{terminator.address[1]}"
        client = make(hosts, 1.0, use_ssl=True, ca=str(tmp_path / "ca.pem"))
        value = bytes(range(256)) * 3000
        client.create("/tls", value)
        results = [client.get_async("/tls") for _ in range(5)]
        assert all(result.get()[0] == value for result in results)
        gevent.sleep(1.2)
        assert client.session.epoch == 1
        client.close()


def test_a_silent_tls_server_does_not_stop_the_hub(make: Any) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    with silent:
        client = make(f"127.0.0.1:{silent.getsockname()[1]}", use_ssl=True, start=False)
        client.start_async()
        start = time.monotonic()
        gevent.sleep(0.2)
        assert time.monotonic() - start < 1.5


# ---- stop


def test_stop_is_legal_before_start_and_any_number_of_times(make: Any, server: Any) -> None:
    client = make(server.hosts, start=False)
    client.stop()
    client.close()
    client.start()
    client.stop()
    client.stop()
    client.close()
    with pytest.raises(ConnectionClosedError):
        client.get("/")


def test_stop_ends_the_session_at_once_and_leaves_nothing(
    server: ZookeeperServer, make: Any
) -> None:
    other = make(server.hosts)
    before = greenlets()
    client = make(server.hosts)
    client.create("/stop", ephemeral=True)
    start = time.monotonic()
    client.stop()
    assert other.exists("/stop") is None
    assert time.monotonic() - start < 1.0
    assert client.session.state is SessionState.LOST
    eventually(lambda: greenlets() <= before, 3.0)


def test_nothing_is_held_any_more_when_the_end_of_the_session_is_asked_for(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client, other = make(proxy.hosts), make(server.hosts)
    client.create("/held", ephemeral=True)
    gone = gevent.event.Event()
    other.exists("/held", watch=lambda event: gone.set())
    proxy.hold_replies()
    stopping = gevent.spawn(client.stop)
    assert gone.wait(10.0)
    assert not stopping.dead
    assert not client.session.holds(1)
    assert client.session.state is SessionState.LOST
    assert client.client_state == KeeperState.CLOSED
    with pytest.raises(ConnectionClosedError, match="the client is closed"):
        client.get("/")
    with pytest.raises(ZookeeperMisused, match="cannot wait for the end"):
        raise in_the_hub(client.start_async)
    stopping.join()


def in_the_hub(call: Callable[[], object]) -> BaseException:
    failed = gevent.event.AsyncResult()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failed.set(error)

    gevent.get_hub().loop.run_callback(run)
    error: BaseException = failed.get(timeout=5.0)
    return error


def test_stop_waits_for_a_silent_server_not_long(server: ZookeeperServer, make: Any) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts, 10.0)
    pending = client.get_async("/")
    proxy.hold()
    pending = client.get_async("/")
    start = time.monotonic()
    client.stop()
    assert time.monotonic() - start < 4.0
    with pytest.raises(ConnectionClosedError):
        pending.get()


def stop_in_a_watch(client: Client, stop: Callable[[], None]) -> None:
    client.exists("/watched", watch=lambda event: stop())
    client.create("/watched", ephemeral=True)


def stop_in_a_state_listener(client: Client, stop: Callable[[], None]) -> None:
    client.add_listener(lambda state: stop())
    client._connection.cut(ConnectionLoss("test"))


def stop_in_a_session_listener(client: Client, stop: Callable[[], None]) -> None:
    client.session.add_listener(lambda state, epoch: stop())
    client._connection.cut(ConnectionLoss("test"))


def stop_in_a_subscriber(client: Client, stop: Callable[[], None]) -> None:
    client.session.subscribe(stop)
    client._connection.cut(ConnectionLoss("test"))


def stop_in_the_hub(client: Client, stop: Callable[[], None]) -> None:
    client.get_async("/").rawlink(lambda result: stop())


def stop_in_a_thread(client: Client, stop: Callable[[], None]) -> None:
    gevent.get_hub().threadpool.spawn(stop)


@pytest.mark.parametrize(
    "way",
    [
        *(stop_in_a_watch, stop_in_a_state_listener, stop_in_a_session_listener),
        *(stop_in_a_subscriber, stop_in_the_hub, stop_in_a_thread),
    ],
)
def test_stop_is_legal_everywhere(
    server: ZookeeperServer, make: Any, way: Callable[[Client, Callable[[], None]], None]
) -> None:
    before = greenlets()
    client = make(server.hosts)
    returned: list[float] = []

    def stop() -> None:
        start = time.monotonic()
        client.stop()
        returned.append(time.monotonic() - start)

    way(client, stop)
    eventually(lambda: returned, 8.0)
    assert returned[0] < 3.0
    eventually(lambda: client.client_state == KeeperState.CLOSED, 5.0)
    eventually(lambda: greenlets() <= before, 5.0)


@pytest.mark.parametrize("connected", [True, False])
def test_a_process_that_forgets_to_stop_ends(server: ZookeeperServer, connected: bool) -> None:
    hosts = server.hosts if connected else f"127.0.0.1:{free_port()}"
    script = f"""
from sepelib.zookeeper import Client
client = Client("{hosts}", {T})
client.start_async().wait(1.0)
if {connected}:
    client.exists("/", watch=lambda event: client.stop())
"""
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30.0)
    assert time.monotonic() - start < 10.0


# ---- where it does not work


def test_a_native_thread_is_told_at_once(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    pool = gevent.get_hub().threadpool
    for call in client.get, client.get_async, lambda path: client.start():
        with pytest.raises(ZookeeperMisused, match="belongs to the thread that made the client"):
            pool.apply(call, ("/",))
    assert client.get("/")


def test_a_forked_process_is_refused_and_does_not_touch_the_connection(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts)
    client.create("/fork", ephemeral=True)
    reader, writer = os.pipe()
    # Not fork(), which has gevent reap all children of this process, also those of other tests.
    pid = gevent.os.fork_gevent()
    if not pid:
        answer = b"no"
        with suppress(BaseException):
            held = client.session.holds(1)
            try:
                client.get("/")
            except ZookeeperMisused:
                answer = b"refused" if not held else b"held"
            gevent.sleep(0.8)
            client.stop()
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    until = time.monotonic() + 20.0
    while not gevent.select.select([reader], [], [], 0.02)[0]:
        assert time.monotonic() < until
        assert client.exists("/fork")
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"refused"
    with suppress(ChildProcessError):  # in the patched world gevent may have done that
        os.waitpid(pid, 0)
    gevent.sleep(0.5)
    assert client.session.epoch == 1
    assert client.exists("/fork")


def test_recipes_refuse_other_clients_in_one_sentence(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts, start=False)
    assert client_of(client) is client
    with pytest.raises(ZookeeperMisused, match=r"need a sepelib\.zookeeper\.Client, not a kazoo"):
        client_of(KazooClient(handler=SequentialGeventHandler()))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="24 days at most"):
        Client("localhost", 1e7)
    with pytest.raises(ValueError, match="session's timeout is positive"):
        Client("127.0.0.1:1", 0)
    with pytest.raises(ValueError, match="request timeout is positive"):
        Client("127.0.0.1:1", request_timeout=0)
    with pytest.raises(TypeError, match="brings its own handler"):
        Client("127.0.0.1:1", handler=SequentialGeventHandler())
