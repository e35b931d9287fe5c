"""What the client and the recipes fail with.

    Error (sepelib.core)
    ├── ZookeeperError        any of these
    │   ├── ZookeeperTimeout      no answer in time (a DeadlineExceeded, kazoo's ConnectionLoss)
    │   ├── SessionLost           the session is over (kazoo's SessionExpiredError)
    │   ├── TransactionError      refused, and none of it done; or unanswered, and unknown
    │   ├── LockTimeout           not granted in time (a DeadlineExceeded)
    │   ├── LockNotAcquired       a `with` got no lock, or it is not held
    │   ├── LockLost              the lock was held and is not any more
    │   ├── Interrupted           another greenlet or thread has ended the wait
    │   ├── WouldDeadlock         the wait would be for the caller itself
    │   └── ConfigurationError    a path or setting is not what the recipe needs
    └── LogicalError
        └── ZookeeperMisused      a foreign thread, a forked process, a stopped client

Recipes raise nothing else. Plain operations of the client keep kazoo's errors of data
(NoNodeError, BadVersionError, ...) and of the connection (ConnectionLoss, AuthFailedError).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kazoo.exceptions import (
    ConnectionLoss,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
)

from sepelib.core.exceptions import Error, LogicalError
from sepelib.util.deadline import DeadlineExceeded

__all__ = [
    "ConfigurationError",
    "Interrupted",
    "LockLost",
    "LockNotAcquired",
    "LockTimeout",
    "SessionLost",
    "TransactionError",
    "WouldDeadlock",
    "ZookeeperError",
    "ZookeeperMisused",
    "ZookeeperTimeout",
]


class ZookeeperError(Error):
    """Something asked of ZooKeeper could not be done, or cannot be relied on any more."""


class ZookeeperMisused(LogicalError):
    """The client was used where it cannot work: the sentence says where and what to do."""


class ZookeeperTimeout(ZookeeperError, ConnectionLoss, DeadlineExceeded):  # type: ignore[misc]
    """No answer within the time given.

    *maybe_executed* is False when the request certainly has not left this process.
    """

    def __init__(self, sentence: str, *, maybe_executed: bool = True) -> None:
        super().__init__(sentence)
        self.maybe_executed = maybe_executed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, vars(self)


class SessionLost(ZookeeperError, SessionExpiredError):  # type: ignore[misc]
    """The session is over, and with it all its ephemeral nodes.

    For a request that was sent: it may have been executed before the end.
    """


class TransactionError(ZookeeperError):
    """TransactionRefused: no operation was done. TransactionUnknown: all of them, or none.

    *results* are those of the operations, in order: when it was refused, all of them errors. The
    operation that was refused has the error of its own, the others RolledBackError (before it) or
    RuntimeInconsistency (behind it). None when there was no answer.
    """

    def __init__(self, results: Sequence[Any], /) -> None:
        super().__init__(list(results))
        self.results: list[Any] = list(results)

    def __str__(self) -> str:
        for number, result in enumerate(self.results, 1):
            if _refused(result):
                place = f"operation {number} of {len(self.results)}"
                return f"transaction refused at {place}: {type(result).__name__}"
        return f"transaction of {len(self.results)} operations refused"


def _refused(result: object) -> bool:
    followed = isinstance(result, RolledBackError | RuntimeInconsistency)
    return isinstance(result, Exception) and not followed


class LockTimeout(ZookeeperError, DeadlineExceeded):
    """The lock, or whatever *what* is, at *path* was not granted within *timeout* seconds."""

    def __init__(self, path: str, timeout: float, what: str = "lock", /) -> None:
        super().__init__(f"{what} {path}: not granted within {timeout:.3g} s")
        self.path = path
        self.timeout = timeout
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.timeout, self.what), vars(self)


class LockNotAcquired(ZookeeperError):
    """The lock, or whatever *what* is, at *path* is not held: *reason*."""

    def __init__(self, path: str, reason: str = "it is not held", what: str = "lock", /) -> None:
        super().__init__(path, reason, what)
        self.path = path
        self.reason = reason
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} {self.path}: {self.reason}"


class LockLost(ZookeeperError):
    """The lock, or whatever *what* is, at *path* was held and is not any more: *reason*."""

    def __init__(self, path: str, reason: str, what: str = "lock", /) -> None:
        super().__init__(path, reason, what)
        self.path = path
        self.reason = reason
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} {self.path} was lost: {self.reason}"


class Interrupted(ZookeeperError):
    """The wait for *what* is at *path* was ended by `interrupt()` or `cancel()`."""

    def __init__(self, path: str, what: str = "lock", /) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} {self.path}: the wait was interrupted"


class WouldDeadlock(ZookeeperError):
    """The lock at *path* cannot come as long as the caller holds what it holds: *reason*."""

    def __init__(self, path: str, reason: str, /) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"lock {self.path}: {self.reason}"


class ConfigurationError(ZookeeperError):
    """What is in ZooKeeper, or a setting, is not what the recipe needs: see the sentence."""
