"""`ZookeeperServer`: one real server, its faults and its numbers."""

import shutil
import socket
import struct
import subprocess
import sys
import time
import unittest
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

from sepelib.util.testing import MissingComponent, ServerNotReady
from sepelib.zookeeper.testing import ZookeeperServer
from sepelib.zookeeper.testing._ports import Reservation
from sepelib.zookeeper.testing._wire import Wire, string

CREATE_CONTAINER, CREATE_TTL, DELETE, EXISTS = 19, 21, 2, 3
NO_NODE = -101
EPHEMERAL, CONTAINER, PERSISTENT_WITH_TTL = 1, 4, 5


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer(container_check=0.2) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Callable[..., KazooClient]]:
    clients = []

    def connect(hosts: str, timeout: float = 4.0) -> KazooClient:
        clients.append(KazooClient(hosts, timeout, handler=SequentialGeventHandler()))
        clients[-1].start()
        return clients[-1]

    yield connect
    for client in clients:
        client.stop()
        client.close()


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        gevent.sleep(0.01)


def test_a_started_server_serves(server: ZookeeperServer) -> None:
    assert server.mode() == "standalone"
    assert server.hosts == f"127.0.0.1:{server.port}"
    assert "Mode: standalone" in server.srvr()
    assert "0 connections watching 0 paths" in server.wchs()
    assert "sid=" not in server.cons()


def test_its_log_is_a_file_and_tells_what_it_does(server: ZookeeperServer) -> None:
    server.srvr()
    assert "Processing srvr command" in server.log_tail()
    assert server.log_path.parent == server.folder


def test_its_numbers_are_numbers(server: ZookeeperServer) -> None:
    with Wire(server.address, 10.0) as wire:
        wire.connect()
        before = server.mntr()
        wire.create("/numbers")
        after = server.mntr()
    assert isinstance(before["zk_packets_received"], int)
    assert isinstance(after["zk_packets_received"], int)
    # The create, and the second question itself.
    assert after["zk_packets_received"] - before["zk_packets_received"] == 2
    assert str(after["zk_version"]).startswith("3.")


def test_an_expired_session_has_no_ephemerals_when_expire_returns(
    server: ZookeeperServer, connect: Callable[..., KazooClient]
) -> None:
    victim, other, states = connect(server.hosts), connect(server.hosts), list[str]()
    victim.create("/ephemeral", ephemeral=True)
    victim.add_listener(states.append)
    session = victim.client_id

    server.expire(victim)

    assert other.exists("/ephemeral") is None
    eventually(lambda: "LOST" in states)
    with pytest.raises(LookupError, match="no session 0x"):
        server.expire(session)


def test_a_client_without_a_session_cannot_be_expired(server: ZookeeperServer) -> None:
    with pytest.raises(ValueError, match="has no session to expire"):
        server.expire(KazooClient(server.hosts, handler=SequentialGeventHandler()))


def test_a_session_is_not_expired_with_a_wrong_password(server: ZookeeperServer) -> None:
    with Wire(server.address, 10.0) as wire:
        session, password = wire.connect()
        with pytest.raises(LookupError):
            server.expire((session, b"not the password"))
        server.expire((session, password))


def test_a_crash_loses_neither_data_nor_sessions() -> None:
    with ZookeeperServer() as server:
        port = server.port
        with Wire(server.address, 10.0) as wire:
            session = wire.connect()
            wire.create("/ephemeral", flags=EPHEMERAL)
        with server.kill():
            assert not server.running and server.mode() is None
            with pytest.raises(ConnectionRefusedError):
                server.srvr()
        assert server.port == port
        with Wire(server.address, 10.0) as wire:
            assert wire.connect(*session) == session
            with pytest.raises(OSError, match="error -110"):  # it exists
                wire.create("/ephemeral")


def test_a_stopped_server_starts_again_on_its_data() -> None:
    with ZookeeperServer() as server:
        with Wire(server.address, 10.0) as wire:
            wire.connect()
            wire.create("/kept")
        first = server.pid
        server.restart()
        assert server.pid != first
        with Wire(server.address, 10.0) as wire:
            wire.connect()
            with pytest.raises(OSError, match="error -110"):  # it exists
                wire.create("/kept")
        with server.stop():
            server.start()  # the end of the block has nothing left to do
        assert server.mode() == "standalone"


def test_a_paused_server_is_silent_and_refuses_nobody(server: ZookeeperServer) -> None:
    with server.pause(), socket.create_connection(server.address, 10.0):
        assert server.running
        with pytest.raises(TimeoutError):
            server.ask("srvr", timeout=0.2)
        assert server.mode() is None
        with pytest.raises(ServerNotReady, match=r"not serving in 0\.1 s"):
            server.wait_ready(0.1)
    server.wait_ready()


def test_a_reserved_port_is_given_to_nobody_but_a_server_that_asks_for_it() -> None:
    reservation = Reservation()
    address = ("127.0.0.1", reservation.port)
    with socket.socket() as thief, pytest.raises(OSError, match="Address already in use"):
        thief.bind(address)
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()
    reservation.close()
    with socket.socket() as other:
        other.bind(address)


def test_greenlets_run_while_a_server_restarts(server: ZookeeperServer) -> None:
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    try:
        gevent.sleep(0)
        server.restart()
        assert len(ticks) > 10
    finally:
        ticker.kill()


def test_a_start_that_is_cancelled_leaves_no_server() -> None:
    server = ZookeeperServer()
    try:
        gevent.sleep(0)  # the hub is there
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            server.start()
        assert not server.running
        server.start()
        assert server.mode() == "standalone"
    finally:
        server.close()


def test_containers_and_nodes_with_a_time_to_live_go(server: ZookeeperServer) -> None:
    with Wire(server.address, 10.0) as wire:
        wire.connect()
        wire.create("/container", CREATE_CONTAINER, CONTAINER)
        wire.create("/container/child")
        wire.request(DELETE, string("/container/child") + struct.pack(">i", -1))
        wire.create("/short", CREATE_TTL, PERSISTENT_WITH_TTL, more=struct.pack(">q", 100))

        def gone(path: str) -> bool:
            wire.send(struct.pack(">ii", 1, EXISTS) + string(path) + b"\0")
            return wire.reply().error == NO_NODE

        eventually(lambda: gone("/container") and gone("/short"))


def test_a_start_that_fails_shows_the_end_of_the_log() -> None:
    server = ZookeeperServer(settings={"tickTime": "soon"})
    with pytest.raises(ServerNotReady, match="ended with status") as caught:
        server.__enter__()
    assert 'For input string: "soon"' in caught.value.log
    server.close()


def test_a_server_that_was_not_started_has_no_port() -> None:
    server = ZookeeperServer()
    assert repr(server) == "<ZookeeperServer zookeeper not started>"
    with pytest.raises(RuntimeError, match="call start"):
        _ = server.hosts
    server.close()


def test_a_closed_server_leaves_nothing() -> None:
    with ZookeeperServer() as server:
        folder, proxy = server.folder, server.proxy()
    server.close()
    assert not folder.exists()
    with pytest.raises(RuntimeError):
        proxy.start()


def test_java_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEPELIB_MISSING", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingComponent, match="apt-get install default-jre-headless"):
        ZookeeperServer().__enter__()


def test_zookeeper_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SEPELIB_MISSING", raising=False)
    monkeypatch.setenv("ZOOKEEPER_HOME", str(tmp_path))
    with pytest.raises(MissingComponent, match="apt-get install libzookeeper-java"):
        ZookeeperServer().__enter__()
    monkeypatch.setenv("SEPELIB_MISSING", "skip")
    with pytest.raises(unittest.SkipTest):
        ZookeeperServer().__enter__()


@pytest.mark.parametrize("where", [".", "lib"])
def test_a_tarball_of_apache_is_used_when_zookeeper_home_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    """A tarball's layout, made of the jars which Debian's names in its manifest."""
    jar = Path("/usr/share/java/zookeeper.jar")
    with zipfile.ZipFile(jar) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "")
    (names,) = (line for line in manifest.splitlines() if line.startswith("Class-Path: "))
    (tmp_path / "lib").mkdir()
    for name in names.split()[1:]:
        source = jar.parent / Path(name).name
        if source.exists():
            (tmp_path / "lib" / source.name).symlink_to(source)
    shutil.copy(jar, tmp_path / where / "zookeeper-3.8.0.jar")
    monkeypatch.setenv("ZOOKEEPER_HOME", str(tmp_path))
    with ZookeeperServer() as server:
        assert server.mode() == "standalone"
        command = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert str(tmp_path / where / "zookeeper-3.8.0.jar") in command
    assert "/usr/share/java" not in command


def test_neither_kazoo_nor_gevent_is_needed() -> None:
    code = """
import sys
from sepelib.zookeeper.testing import Ensemble, ZookeeperServer
with ZookeeperServer() as server, server.proxy():
    print(server.mode())
sys.exit(str({"gevent", "kazoo", "pytest"} & sys.modules.keys() or ""))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr.strip()) == ("standalone\n", "")


def test_importing_it_imports_little() -> None:
    code = "import sys, sepelib.zookeeper.testing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name for name in done.stdout.split() if name.startswith("sepelib")}
    assert loaded == {"sepelib", "sepelib.zookeeper", "sepelib.zookeeper.testing"}
    assert not {"socket", "subprocess", "threading"} & set(done.stdout.split())
