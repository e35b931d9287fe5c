"""Applies to every test of the tree: the root directory is the tree, wherever pytest is started.

Imports no distribution: each is tested alone, in an environment that has only what it declares.
"""

import os
import signal
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: concerns several distributions (set by conftest)")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Of a job that a shell has put into the background; the children of tests are to hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("TOX_ENV_NAME"):
        _refuse_the_source_tree()
    if os.environ.get("SEPELIB_WORLD") == "green":
        _refuse_the_plain_world(config)


def _refuse_the_source_tree() -> None:
    import sepelib  # the namespace, no distribution

    if strays := [path for path in sepelib.__path__ if not path.startswith(sys.prefix)]:
        raise pytest.UsageError(f"sepelib comes from {strays}, not from wheels")


def _refuse_the_plain_world(config: pytest.Config) -> None:
    from gevent import monkey

    if not monkey.is_module_patched("socket"):
        raise pytest.UsageError("green: run as `python -m gevent.monkey --module pytest`")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("green: no -n, the workers of xdist would not be patched")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.relative_to(config.rootpath).parts[0].startswith("sepelib-"):
            item.add_marker("whole")
