"""Fixtures for tests of web services. Not loaded by itself: ask for it.

pytest_plugins = ["sepelib.flask.pytest_plugin"]      # in the conftest.py at the top
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.flask.pytest_plugin needs pytest: pip install 'sepelib-flask[pytest]'"
    ) from e

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepelib.flask.testing import RunningServer, SlowClient

__all__ = ["server", "slow_client"]


@pytest.fixture
def server() -> Iterator[Callable[..., RunningServer]]:
    """Makes servers: `server(app, request_timeout=1.0).url`; stopped when the test ends.

    What it takes is what `sepelib.flask.testing.RunningServer` takes.
    """
    from sepelib.flask.testing import RunningServer

    with ExitStack() as stack:
        yield lambda app=None, **options: stack.enter_context(RunningServer(app, **options))


@pytest.fixture
def slow_client() -> Iterator[Callable[..., SlowClient]]:
    """Makes clients that misbehave: `slow_client(server.address)`; closed when the test ends."""
    from sepelib.flask.testing import SlowClient

    with ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(SlowClient(address, **options))
