"""Configurations for tests. The fixtures on top are in `sepelib.core.pytest_plugin`."""

from collections.abc import Iterator
from contextlib import contextmanager

from sepelib.core import config

__all__ = ["fresh_config"]


@contextmanager
def fresh_config() -> Iterator[config.Config]:
    """An empty configuration of the process inside of a ``with``; the one of before comes back.

    `config.get_value` and the other functions of the module act on it meanwhile, in all
    greenlets and threads.
    """
    before = config._default
    config._default = fresh = config.Config()
    try:
        yield fresh
    finally:
        config._default = before
