"""Fixtures over `sepelib.util.testing`. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.util.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.util.pytest_plugin needs pytest: pip install 'sepelib-util[pytest]'"
    ) from e

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepelib.util.testing import Clock, FlakyProxy, SmtpServer

__all__ = ["clock", "flaky_proxy", "no_retries", "smtp_server"]


@pytest.fixture
def flaky_proxy() -> Iterator[Callable[[str, int], FlakyProxy]]:
    """Makes proxies: `proxy = flaky_proxy(host, port)`. All are closed when the test ends."""
    from sepelib.util.testing import FlakyProxy

    with contextlib.ExitStack() as proxies:

        def start(upstream_host: str, upstream_port: int) -> FlakyProxy:
            proxy = FlakyProxy(upstream_host, upstream_port)
            proxies.callback(proxy.close)
            return proxy.start()

        yield start


@pytest.fixture
def clock() -> Clock:
    """A monotonic clock and a sleep that the test moves by hand."""
    from sepelib.util.testing import Clock

    return Clock()


@pytest.fixture
def no_retries() -> Iterator[None]:
    """Each retry policy makes one attempt, in all threads, while the test runs."""
    from sepelib.util.retry import retries_disabled

    with retries_disabled():
        yield


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    """A mail server without TLS and logins; make others by `sepelib.util.testing.SmtpServer`."""
    from sepelib.util.testing import SmtpServer

    with SmtpServer() as server:
        yield server
