"""Fixtures for tests of green threads. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.gevent.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.gevent.pytest_plugin needs pytest: pip install 'sepelib-gevent[pytest]'"
    ) from e

from collections.abc import Iterator

__all__ = ["gevent_timeout", "green_threads_leak"]

_DEFAULT = 60.0  # seconds


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "gevent_timeout(seconds): fail the test, which waits cooperatively, after that"
    )


@pytest.fixture
def green_threads_leak() -> Iterator[None]:
    """Fails the test that leaves a GreenThread alive, and kills what it left."""
    from sepelib.gevent.testing import no_green_threads_left

    with no_green_threads_left():
        yield


@pytest.fixture
def gevent_timeout(request: pytest.FixtureRequest) -> Iterator[float]:
    """Fails the test when it waits for too long; gives the seconds, 60 unless marked otherwise.

    `@pytest.mark.gevent_timeout(5)` sets them, and is enough alone. For what waits through gevent:
    a test that blocks the hub cannot be interrupted so.
    """
    import gevent

    marker = request.node.get_closest_marker("gevent_timeout")
    seconds = float(marker.args[0]) if marker is not None else _DEFAULT
    # Not an Exception, so the tested code does not swallow it.
    late = pytest.fail.Exception(f"the test took more than {seconds:g} s", pytrace=True)
    with gevent.Timeout(seconds, late):
        yield seconds


@pytest.fixture(autouse=True)
def _gevent_timeout_when_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gevent_timeout") is not None:
        request.getfixturevalue("gevent_timeout")
