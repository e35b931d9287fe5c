"""Fixtures for tests of HTTP clients. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.http.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.http.pytest_plugin needs pytest: pip install 'sepelib-http[pytest]'"
    ) from e

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from responses import RequestsMock

    from sepelib.http.testing import HttpTestServer

__all__ = ["http_mock", "http_server"]


@pytest.fixture
def http_server() -> Iterator[HttpTestServer]:
    """A real server that runs, echoes, and fails as it is told; see `sepelib.http.testing`.

    What it has to complain about, a request that is not HTTP or an error of a route's function,
    is an error of the test when it ends.
    """
    from sepelib.http.testing import HttpTestServer

    with HttpTestServer() as server:
        yield server


@pytest.fixture
def http_mock() -> Iterator[RequestsMock]:
    """A `responses.RequestsMock` in place of all connections of requests, in all threads.

    `http_mock.get("http://staff/users/7", json={...})` says what to answer; its `calls` tell what
    was asked. A request that was not announced is refused by a `requests.ConnectionError`. An
    answer that nobody came for is an AssertionError at the end of the test, unless
    `http_mock.assert_all_requests_are_fired = False`.

    No byte is sent, so no timeout, deadline, proxy or broken answer is tested: see `http_server`.
    """
    from responses import RequestsMock

    with RequestsMock(assert_all_requests_are_fired=True) as mock:
        yield mock
