"""What a client reports of its commands: `mongo_commands` and `mongo_seconds`.

| result    | how the command ended                                              |
|-----------|--------------------------------------------------------------------|
| ok        | the server did it                                                  |
| error     | the server refused it, or one of the writes in it                  |
| timeout   | no connection, no server or no answer in time; or maxTimeMS        |
| lost      | the connection broke, or there was none to be had                  |
| cancelled | the greenlet was killed, or its gevent.Timeout struck              |

pymongo tells its listeners of commands that were sent and then answered or lost. It says nothing
of the end of a killed one, nor of those that never got a connection: these the client's
operations report (`OperationMeters`), so that a database that is away is seen to be away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from pymongo import monitoring
from pymongo.errors import ConnectionFailure, PyMongoError

from sepelib.util.instrument import Recorder

__all__ = ["CommandMeters", "Sent", "sent_here"]

# Other names come from callers' own `db.command(...)`, and may be without bound.
_NAMES = """
    abortTransaction aggregate buildInfo bulkWrite collMod collStats commitTransaction count create
    createIndexes currentOp dbStats delete distinct drop dropDatabase dropIndexes endSessions
    explain find findAndModify getMore hello insert killCursors listCollections listDatabases
    listIndexes ping renameCollection saslContinue saslStart serverStatus update validate
"""
_COMMANDS = {name: name for name in _NAMES.split()} | {"buildinfo": "buildInfo"}
_LOST = {"AutoReconnect", "ConnectionFailure", "NotPrimaryError", "_OperationCancelled"}
_MAX_TIME_MS_EXPIRED = 50


class Sent:
    """The commands of one operation, in the greenlet or thread that runs it."""

    __slots__ = ("count", "running", "since")

    def __init__(self, since: float) -> None:
        self.count = 0
        self.running: str | None = None
        self.since = since


sent_here: ContextVar[Sent | None] = ContextVar("sepelib.mongo sent", default=None)


class CommandMeters(monitoring.CommandListener):
    """Counts the commands of one client."""

    def __init__(self, recorder: Recorder) -> None:
        self._commands = recorder.counter(
            "mongo_commands",
            "Commands by end: ok, error, timeout, lost, cancelled.",
            labels=("command", "result"),
        )
        self._seconds = recorder.histogram(
            "mongo_seconds", "From sending a command to its end.", labels=("command",)
        )
        self._bound: dict[tuple[str, str], tuple[Callable[..., None], ...]] = {}

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        sent = sent_here.get()
        if sent is not None:
            sent.running = event.command_name
            sent.since = time.monotonic()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        refused = "writeErrors" in event.reply or "writeConcernError" in event.reply
        self._answered(event, "error" if refused else "ok")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._answered(event, _result_of_failure(event.failure))

    def unseen(self, command: str, error: BaseException, seconds: float) -> None:
        """It ended by *error*, of which no event tells: before it was sent, or killed."""
        self._count(command, _result_of(error), seconds)

    def _answered(self, event: Any, result: str) -> None:
        sent = sent_here.get()
        if sent is not None:
            sent.running = None
            sent.count += 1
        self._count(event.command_name, result, event.duration_micros / 1e6)

    def _count(self, command: str, result: str, seconds: float) -> None:
        bound = self._bound.get((command, result))
        if bound is None:
            bound = self._bind(command, result)
        count, observe = bound
        count()
        observe(seconds)

    def _bind(self, command: str, result: str) -> tuple[Callable[..., None], ...]:
        name = _COMMANDS.get(command, "other")  # never pymongo's enum of the same value
        bound = self._commands.labels(name, result).inc, self._seconds.labels(name).observe
        if command in _COMMANDS:
            self._bound[command, result] = bound
        return bound


def _result_of_failure(failure: Mapping[str, Any]) -> str:
    if failure.get("code") == _MAX_TIME_MS_EXPIRED or failure.get("errtype") == "NetworkTimeout":
        return "timeout"
    return "lost" if failure.get("errtype") in _LOST else "error"


def _result_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "cancelled"
    if isinstance(error, TimeoutError) or (isinstance(error, PyMongoError) and error.timeout):
        return "timeout"
    return "lost" if isinstance(error, ConnectionFailure) else "error"
