"""The suite runs twice: as it is, and in a process that gevent patched first."""

import os

from gevent import monkey


def test_the_world_is_the_one_that_was_asked_for() -> None:
    wanted = os.environ.get("SEPELIB_WORLD") == "green"
    assert monkey.is_module_patched("socket") is wanted
    assert monkey.is_module_patched("threading") is wanted
