"""Blocking calls that let the greenlets of an unpatched process run meanwhile."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["interruptible", "off_the_hub"]

P = ParamSpec("P")
R = TypeVar("R")

_INTERVAL = 0.05


def off_the_hub(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call *function*, in gevent's thread pool if this thread has a hub that it would block.

    A test that restarts a server must not stall the client under test. Without gevent, without a
    hub in this thread, or when the world is patched, it is a plain call. Who is cancelled while
    waiting leaves the call to its thread.
    """
    return interruptible(lambda: function(*args, **kwargs), None)


def interruptible(call: Callable[[], R], end: Callable[[], object] | None) -> R:
    """As `off_the_hub`; who is cancelled calls *end* until the call has ended in its thread."""
    hub = _unpatched_hub()
    if hub is None:
        return call()
    context = contextvars.copy_context()
    values: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(context.run(call))
        except BaseException as error:  # gevent would print it, and then raise it here
            errors.append(error)

    task = hub.threadpool.spawn(run)
    try:
        task.get()
    except BaseException:
        while end is not None and not task.ready():
            end()
            task.wait(_INTERVAL)
        raise
    if errors:
        raise errors[0]
    return values[0]


def _unpatched_hub() -> Any:
    gevent = sys.modules.get("gevent")
    if gevent is None:
        return None
    from gevent import monkey
    from gevent._hub_local import get_hub_if_exists

    if monkey.is_module_patched("time"):
        return None
    hub = get_hub_if_exists()
    return None if hub is None or hub is gevent.getcurrent() else hub
