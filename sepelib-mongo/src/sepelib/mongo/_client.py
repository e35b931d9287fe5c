"""The MongoClient that `connect()` makes.

Every operation of a client, of its databases, collections, cursors, sessions and change streams,
passes `_retry_internal`, or `_run_operation` when its cursor has a connection of its own: there
the current deadline is applied, and what came of the operation is seen.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pymongo
from pymongo import MongoClient, _csot
from pymongo.errors import ConnectionFailure, NetworkTimeout, PyMongoError

from sepelib.mongo._command_meters import CommandMeters, Sent, sent_here
from sepelib.mongo._pool import Pools, SelectionCondition
from sepelib.mongo.errors import MongoError, MongoMisused
from sepelib.util.deadline import Deadline, DeadlineExceeded
from sepelib.util.instrument import Recorder

__all__ = ["DaemonClient", "MongoDeadlineExceeded", "first_words", "patched_modules"]

_CLOSE_SECONDS = 1.0  # for the farewells to servers, which may be gone
_JOIN_SECONDS = 2  # monitors look every 0.5 s whether they should end
_CLEAN_UP_SECONDS = 0.25  # of an operation that must be tried although the deadline is over
_EARLY = 0.005  # an operation gives up by one round trip, rounded to ms, before its deadline


class MongoDeadlineExceeded(MongoError, NetworkTimeout, DeadlineExceeded):  # type: ignore[misc]
    """The current deadline was over before the operation was; it may have been done.

    It has no error labels: `with_transaction()` would try again for two minutes.
    """

    def _add_error_label(self, label: str) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, vars(self)


class DaemonClient(MongoClient[dict[str, Any]]):
    """A client that obeys deadlines, reports, survives a fork and ends with all it started."""

    def __init__(
        self,
        uri: str,
        options: dict[str, Any],
        recorder: Recorder,
        forget: Callable[[DaemonClient], None],
    ) -> None:
        self._meters = CommandMeters(recorder)
        self._pools = Pools(recorder)
        self._world = patched_modules()
        self._forget = forget
        self._forgetting = False
        listeners = [*options.pop("event_listeners", ()), self._meters]
        super().__init__(
            uri,
            connect=False,
            event_listeners=listeners,
            _pool_class=self._pools.make,
            _condition_class=SelectionCondition,
            **options,
        )
        self._pools.show()

    def check_world(self) -> None:
        """MongoMisused when gevent has patched the process after this client was made."""
        if patched_modules() != self._world:
            raise MongoMisused(
                "this MongoClient was made before gevent's monkey patching: each of its calls "
                "would stop all greenlets. Call patch_all() in the first line of the program, and "
                "connect() after it; this client can only be closed"
            )

    def close(self) -> None:
        """Close the connections, and end the threads or greenlets that watched the servers.

        The alias is free afterwards. Takes half a second, as those look no sooner whether they
        should end, and a second more when a server does not answer.
        """
        if self._forgetting:
            return
        self._forgetting = True  # mongoengine calls us back, and frees the alias after that only
        try:
            self._forget(self)
        finally:
            self._forgetting = False
        self._pools.hide()
        executors = self._executors()
        token = sent_here.set(Sent(time.monotonic()))  # no deadline nor other limit but this
        try:
            with pymongo.timeout(_CLOSE_SECONDS):
                try:
                    super().close()
                except BaseException:
                    super().close()  # killed in the farewell, which is not said twice
                    raise
        finally:
            sent_here.reset(token)
        if patched_modules() == self._world:
            for executor in executors:
                executor.join(_JOIN_SECONDS)

    def _executors(self) -> list[Any]:
        topology = self._topology
        if topology is None or self._closed:
            return []
        monitors = [server._monitor for server in list(topology._servers.values())]
        found = [self._kill_cursors_executor]
        for monitor in monitors:
            found += monitor._executor, monitor._rtt_monitor._executor
        if topology._srv_monitor is not None:
            found.append(topology._srv_monitor._executor)
        return found

    def _after_fork(self) -> None:
        # Called by pymongo in the child, before anything else runs there. What was inherited is
        # the parent's: a greenlet that came along would read the answers the parent waits for.
        for executor in self._executors():
            executor.close()
            if self._world.threading:
                _let_end(executor._thread)
        self._pools.abandon()
        super()._after_fork()
        # All was made anew, so there is nothing left to warn of at first use.
        self._topology._pid = None

    # -- Where pymongo's operations pass.

    def _retry_internal(
        self, func: Any, session: Any, bulk: Any, operation: str, *args: Any, **kwargs: Any
    ) -> Any:
        run = super()._retry_internal
        return self._operation(operation, run, (func, session, bulk, operation, *args), kwargs)

    def _run_operation(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        run = super()._run_operation
        if not operation.conn_mgr:
            return run(operation, *args, **kwargs)
        return self._operation(operation.name, run, (operation, *args), kwargs)

    def _close_cursor_now(self, *args: Any, **kwargs: Any) -> None:
        with _limited(self._own_limit(), _CLEAN_UP_SECONDS):
            super()._close_cursor_now(*args, **kwargs)

    def _select_server(self, *args: Any, **kwargs: Any) -> Any:
        if sent_here.get() is not None or self._closed:
            return super()._select_server(*args, **kwargs)
        self.check_world()
        with _limited(self._own_limit()):
            return super()._select_server(*args, **kwargs)

    def _server_property(self, *args: Any, **kwargs: Any) -> Any:
        self.check_world()
        with _limited(self._own_limit()):
            return super()._server_property(*args, **kwargs)

    def _operation(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.check_world()
        grace = _CLEAN_UP_SECONDS if name == "abortTransaction" else 0.0
        sent = Sent(time.monotonic())
        token = sent_here.set(sent)
        try:
            if Deadline.current() is None:
                return call(*args, **kwargs)
            with _limited(self._own_limit(), grace):
                return call(*args, **kwargs)
        except BaseException as error:
            if sent.running is not None or sent.count == 0:
                seconds = time.monotonic() - sent.since
                self._meters.unseen(sent.running or name, error, seconds)
            raise
        finally:
            sent_here.reset(token)

    def _own_limit(self) -> float | None:
        # pymongo applies the client's own limit (timeoutMS) only where no other is in force.
        return (self._timeout or None) if _csot.get_timeout() is None else None


class _limited:
    """Let the block end with the current deadline, by pymongo's means and with our error."""

    __slots__ = ("_deadline", "_grace", "_own", "_timeout")

    def __init__(self, own: float | None, grace: float = 0.0) -> None:
        self._own = own
        self._grace = grace
        self._deadline: Deadline | None = None
        self._timeout: Any = None

    def __enter__(self) -> None:
        current = Deadline.current()
        if current is None:
            return
        left = max(current.remaining(), self._grace)
        if left <= 0:
            raise MongoDeadlineExceeded(f"deadline exceeded {-left:.3f} s ago, nothing was sent")
        self._deadline = current
        self._timeout = pymongo.timeout(left if self._own is None else min(left, self._own))
        self._timeout.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._timeout is None or self._deadline is None:
            return
        late = self._deadline.remaining() <= _csot.get_rtt() + _EARLY
        self._timeout.__exit__(kind, error, traceback)
        if late and isinstance(error, PyMongoError) and _out_of_time(error):
            raise MongoDeadlineExceeded(f"deadline exceeded: {first_words(error)}") from error


def _out_of_time(error: PyMongoError) -> bool:
    # With no time for a retry left, pymongo raises what made it try again: a lost connection.
    return error.timeout or isinstance(error, ConnectionFailure)


def first_words(error: BaseException) -> str:
    """What pymongo says, without the settings, the servers' state or the answer it appends."""
    words = str(error)
    for appended in " (configured timeouts", ", Timeout: ", ", full error: ":
        words = words.partition(appended)[0]
    return words


def _let_end(thread: Any) -> None:
    # After a fork `threading` knows the current thread only, but under gevent the others go on:
    # each would end with a traceback, since it is not there to be taken off the list.
    if thread is not None:
        threading._active.setdefault(thread.ident, thread.run.__self__)  # type: ignore[attr-defined]


class World(NamedTuple):
    """Which modules of blocking calls gevent has patched."""

    socket: bool
    threading: bool


def patched_modules() -> World:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return World(socket=False, threading=False)
    patched = monkey.is_module_patched
    return World(socket=patched("socket"), threading=patched("threading"))
