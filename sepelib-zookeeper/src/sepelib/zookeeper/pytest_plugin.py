"""Fixtures with a real ZooKeeper. Loaded by itself, free while unused; no conftest is needed.

    def test_it(zookeeper_client):
        zookeeper_client.create("/a", b"1")     # an empty tree for each test

    @pytest.mark.zookeeper(ensemble=3, tick=100)
    def test_a_fail_over(zookeeper):
        with zookeeper.leader().kill(): ...

    zookeeper            an empty chroot on a server that the tests of a process share, and its
                         controls: `sepelib.zookeeper.testing.Zookeeper`
    zookeeper_client     a started `sepelib.zookeeper.Client` there
    zookeeper_ensemble   as `zookeeper`, on an ensemble of three

The marker: *ensemble* (members), *tick* (milliseconds), *container_check* (seconds between two
looks for empty containers). A server that a test leaves stopped, paused or broken is replaced. The
end of its log is shown with the failure of a test. No server outlives its pytest.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.zookeeper.pytest_plugin needs pytest: pip install 'sepelib-zookeeper[pytest]'"
    ) from e

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepelib.zookeeper import Client
    from sepelib.zookeeper.testing import ServerPool, Zookeeper

__all__ = ["zookeeper", "zookeeper_client", "zookeeper_ensemble"]

_used = pytest.StashKey[list[Any]]()


@pytest.fixture
def zookeeper(request: pytest.FixtureRequest, _zookeeper_pool: ServerPool) -> Iterator[Zookeeper]:
    """An empty chroot on a real ZooKeeper, its `hosts`, `client()`, `proxy()` and faults."""
    yield from _zookeeper(request, _zookeeper_pool)


@pytest.fixture
def zookeeper_client(zookeeper: Zookeeper) -> Client:
    """A started client in the chroot of `zookeeper`; stopped when the test ends."""
    return zookeeper.client()


@pytest.fixture
def zookeeper_ensemble(
    request: pytest.FixtureRequest, _zookeeper_pool: ServerPool
) -> Iterator[Zookeeper]:
    """As `zookeeper`, on an ensemble: also `[i]`, `leader()` and `followers()`."""
    yield from _zookeeper(request, _zookeeper_pool, ensemble=3)


@pytest.fixture(scope="session")
def _zookeeper_pool() -> Iterator[ServerPool]:
    from sepelib.zookeeper.testing import ServerPool

    with ServerPool() as pool:
        yield pool


def _zookeeper(
    request: pytest.FixtureRequest, pool: ServerPool, **options: Any
) -> Iterator[Zookeeper]:
    for marker in reversed(list(request.node.iter_markers("zookeeper"))):  # the nearest wins
        options |= marker.kwargs
    with _take(pool, request.node.name, **options) as zookeeper:
        request.node.stash.setdefault(_used, []).append(zookeeper)
        yield zookeeper


def _take(
    pool: ServerPool,
    name: str,
    *,
    ensemble: int | None = None,
    tick: int = 200,
    container_check: float | None = None,
) -> AbstractContextManager[Zookeeper]:
    return pool.zookeeper(name, ensemble, tick_time=tick, container_check=container_check)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "zookeeper(ensemble=None, tick=200, container_check=None): the server of the zookeeper "
        "fixtures: members, milliseconds, seconds",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for zookeeper in item.stash.get(_used, []):
            report.sections.append(("ZooKeeper's log", zookeeper.log_tail()))
    return report
