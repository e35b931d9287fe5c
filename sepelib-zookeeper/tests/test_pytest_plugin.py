"""The fixtures, as a suite downstream sees them: without a conftest, in a pytest of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gevent import monkey

from sepelib.zookeeper.testing import ServerPool, Zookeeper, ZookeeperServer

PATCHED = monkey.is_module_patched("socket")
PYTEST = [sys.executable, *(["-m", "gevent.monkey", "--module"] if PATCHED else ["-m"]), "pytest"]
OPTIONS = ["-p", "no:cacheprovider", "-W", "error", "--strict-markers", "-rA"]


def start(tmp_path: Path, code: str, **environ: str) -> "subprocess.Popen[str]":
    (tmp_path / "test_downstream.py").write_text("import pytest\n" + code)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "SEPELIB_MISSING")}
    return subprocess.Popen(
        [*PYTEST, *OPTIONS, "--rootdir", str(tmp_path), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=kept | environ,
    )


def run(tmp_path: Path, code: str, **environ: str) -> tuple[int, str]:
    child = start(tmp_path, code, **environ)
    try:
        output = child.communicate(timeout=120)[0]
    finally:
        child.kill()
        child.wait()
    return child.returncode, output


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_suite_needs_no_conftest_and_each_test_has_an_empty_tree(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
@pytest.mark.parametrize("turn", ["first", "second"])
def test_x(zookeeper_client, turn):
    assert zookeeper_client.get_children("/") == []
    zookeeper_client.create("/a")
""",
    )
    assert status == 0, output
    assert "2 passed" in output


def test_a_failed_test_shows_the_log(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
def test_x(zookeeper):
    zookeeper.srvr()
    assert False

def test_y(zookeeper):
    zookeeper.close()
    zookeeper.server.close()
    assert False

def test_z():
    assert False
""",
    )
    assert status == 1
    assert "3 failed in" in output  # and no errors of the fixtures
    x, y, z = output.split("= FAILURES =")[1].split("____ test_")[1:]
    assert "ZooKeeper's log" in x and "Processing srvr command" in x
    assert "Processing" not in y
    assert "ZooKeeper's log" not in z.split("short test summary")[0]


def test_the_marker_says_which_server(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
pytestmark = pytest.mark.zookeeper(tick=100)

def config(server):
    return dict(line.split("=", 1) for line in (server.folder / "zoo.cfg").read_text().split())

def test_of_the_module(zookeeper):
    assert config(zookeeper)["tickTime"] == "100"

@pytest.mark.zookeeper(tick=300, container_check=0.5)
def test_the_nearest_wins(zookeeper):
    assert config(zookeeper)["tickTime"] == "300"
    with open(f"/proc/{zookeeper.pid}/cmdline") as command:
        assert "-Dznode.container.checkIntervalMs=500" in command.read()

@pytest.mark.zookeeper(ensemble=2)
def test_an_ensemble(zookeeper, zookeeper_client):
    assert len(zookeeper.members) == 2
    assert zookeeper.hosts.endswith(zookeeper.chroot)
    zookeeper_client.create("/a")
    assert zookeeper[0] in (zookeeper.leader(), *zookeeper.followers())

@pytest.mark.zookeeper(ensemble=2)
def test_an_ensemble_by_name(zookeeper_ensemble):
    assert config(zookeeper_ensemble.leader())["tickTime"] == "100"
    assert zookeeper_ensemble.client().get_children("/") == []
    with zookeeper_ensemble.proxy() as proxy:
        assert proxy.hosts.endswith(zookeeper_ensemble.chroot)

@pytest.mark.zookeeper(tack=100)
def test_a_misspelt_option(zookeeper):
    pass
""",
    )
    assert status == 1
    assert "4 passed, 1 error" in output
    assert "unexpected keyword argument 'tack'" in output


def test_a_missing_zookeeper_is_an_error_that_names_the_package(tmp_path: Path) -> None:
    code = "def test_x(zookeeper): pass"
    status, output = run(tmp_path, code, ZOOKEEPER_HOME=str(tmp_path))
    assert status == 1
    assert "1 error" in output and "apt-get install libzookeeper-java" in output
    status, output = run(tmp_path, code, ZOOKEEPER_HOME=str(tmp_path), SEPELIB_MISSING="skip")
    assert status == 0
    assert "1 skipped" in output


def test_nothing_outlives_a_pytest_that_is_killed(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
import time
def test_x(zookeeper, zookeeper_client, tmp_path_factory):
    with open("pids.part", "w") as file:
        print(zookeeper.pid, zookeeper.folder, file=file)
    import os
    os.rename("pids.part", "pids")
    time.sleep(600)
""",
    )
    try:
        eventually((tmp_path / "pids").exists)
        pid, folder = (tmp_path / "pids").read_text().split()
        assert Path(folder).exists() and Path("/proc", pid).exists()
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    eventually(lambda: not Path("/proc", pid).exists() and not Path(folder).exists())


def test_two_suites_at_once_share_nothing(tmp_path: Path) -> None:
    """As the workers of xdist do, which are processes too."""
    code = """
import os, time
def test_x(zookeeper, zookeeper_client):
    zookeeper_client.create("/a")
    print("RESULT", zookeeper.port, zookeeper.pid, zookeeper.folder)
    mine, other = os.environ["MINE"], os.environ["OTHER"]
    open(mine, "w").close()
    until = time.monotonic() + 60
    while not os.path.exists(other):
        assert time.monotonic() < until
        time.sleep(0.02)
    zookeeper.kill()
"""
    children = []
    for mine, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"suite-{mine}").mkdir()
        at = {"MINE": str(tmp_path / mine), "OTHER": str(tmp_path / other)}
        children.append(start(tmp_path / f"suite-{mine}", code, **at))
    results = []
    for child in children:
        output = child.communicate(timeout=120)[0]
        assert child.returncode == 0, output
        results.append(output.split("RESULT ")[1].splitlines()[0].split())
    assert all(one != other for one, other in zip(*results, strict=True))


def test_the_plugin_is_free_while_unused() -> None:
    code = """
import sys, pytest
before = set(sys.modules)
import sepelib.zookeeper.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    allowed = {"sepelib", "sepelib.zookeeper", "sepelib.zookeeper.pytest_plugin"}
    assert set(done.stdout.split()) <= allowed | {"__future__", "importlib", "typing"}, done.stderr


@pytest.mark.parametrize("fault", ["kill", "pause", "close"])
def test_a_server_left_broken_is_replaced(fault: str) -> None:
    with ServerPool() as pool:
        with pool.zookeeper("first") as zookeeper:
            broken, folder = zookeeper.server, zookeeper.folder
            (zookeeper.server.close if fault == "close" else getattr(zookeeper, fault))()
        assert not folder.exists()
        with pool.zookeeper("second") as zookeeper:
            assert zookeeper.server is not broken
            assert zookeeper.mode() == "standalone"


def test_a_server_that_serves_is_used_again_and_closed_with_the_pool() -> None:
    with ServerPool() as pool:
        with pool.zookeeper("x[a/b \N{GREEK SMALL LETTER ALPHA}]") as first:
            with first.kill():
                assert not first.running
            assert first.chroot == "/x-a-b-1"
        with pool.zookeeper("x") as second, pool.zookeeper("x", tick_time=100) as other:
            assert second.server is first.server
            assert second.chroot == "/x-2"
            assert other.server is not second.server
        folders = [second.folder, other.folder]
    assert not any(folder.exists() for folder in folders)


def test_clients_and_proxies_end_with_their_test() -> None:
    with ServerPool() as pool:
        with pool.zookeeper("x") as zookeeper:
            client, idle = zookeeper.client(timeout=4.0), zookeeper.client(start=False)
            proxy = zookeeper.proxy()
            through = zookeeper.client(hosts=proxy.hosts)
            client.create("/a")
            assert through.get_children("/") == ["a"]
            assert proxy.hosts.endswith(zookeeper.chroot)
            assert zookeeper.cons().count("sid=") == 2
        assert not (client.connected or idle.connected or through.connected)
        eventually(lambda: "sid=" not in zookeeper.cons())
        with pytest.raises(RuntimeError, match="cannot be started again"):
            proxy.start()


def test_the_fixtures_work_here(zookeeper: Zookeeper) -> None:
    assert isinstance(zookeeper.server, ZookeeperServer)
    assert zookeeper.hosts == f"127.0.0.1:{zookeeper.port}{zookeeper.chroot}"
