"""Several operations of which all are done or none, and a commit that does not hide which.

with client.transaction() as transaction:
    transaction.check("/config", 7)
    transaction.set_data("/config", data)       # TransactionError at the end: neither was done

OPEN ──commit──► SENT ──all done──► DONE
 ▲                │ ├──refused──────► REFUSED
 └─never sent─────┘ └──no answer────► UNKNOWN ──commit (sent again)──► SENT
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, Self

from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    OperationTimeoutError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
    SessionMovedError,
)

from sepelib.zookeeper import _kazoo_requests as wire
from sepelib.zookeeper.errors import TransactionError, ZookeeperMisused

__all__ = ["Transaction", "TransactionRefused", "TransactionUnknown"]

_NO_ANSWER = (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    OperationTimeoutError,
    SessionExpiredError,
    SessionMovedError,
)


class TransactionRefused(TransactionError):
    """No operation was done, because of the one at *index*, whose *error* is also the cause.

    *operations* are their names and paths, in order. *results* are all errors: RolledBackError
    before the refused one, RuntimeInconsistency behind it.
    """

    unknown = False

    def __init__(self, results: Sequence[Any], operations: Sequence[str], /) -> None:
        super().__init__(results)
        self.args = (self.results, list(operations))
        self.operations = list(operations)

    @property
    def index(self) -> int:
        for index, result in enumerate(self.results):
            if not isinstance(result, RolledBackError | RuntimeInconsistency):
                return index
        return 0

    @property
    def error(self) -> Exception:
        error: Exception = self.results[self.index]
        return error

    def __str__(self) -> str:
        place = f"operation {self.index + 1} of {len(self.results)}"
        refused = f"{self.operations[self.index]}: {type(self.error).__name__}"
        return f"transaction refused at {place}, {refused}; none was done"


class TransactionUnknown(TransactionError):
    """It was sent and not answered: all of its operations were done, or none, or they yet will be.

    Look at a node that it changes, or call `commit()` again, which sends it a second time: a
    transaction that cannot be done twice (it creates a certain node, deletes one, or has a version)
    is done once then, or is refused, by itself or by somebody else, and stays unknown.
    """

    unknown = True

    def __init__(self, operations: Sequence[str], /) -> None:
        super().__init__([])
        self.args = (list(operations),)
        self.operations = list(operations)

    def __str__(self) -> str:
        named = ", ".join(self.operations[:3])
        more = len(self.operations) - 3
        tail = f" and {more} more" if more > 0 else ""
        return f"transaction sent, no answer: it is done, or not: {named}{tail}"


class _State(enum.Enum):
    OPEN = "is open"
    SENT = "is being committed"
    DONE = "is committed already"
    REFUSED = "was refused; make a new one"
    UNKNOWN = "may be committed already"


class _Operation(NamedTuple):
    request: Any
    text: str


class Transaction:
    """Made by `Client.transaction()`. Operations are done in the order in which they are added.

    As a context manager it commits at the end of the block; when the block raises, nothing is sent.
    For one greenlet at a time.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._operations: list[_Operation] = []
        self._state = _State.OPEN
        self._sent_before = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self.commit()

    @property
    def operations(self) -> list[Any]:
        """What was added, as requests."""
        return [operation.request for operation in self._operations]

    @property
    def committed(self) -> bool:
        """Whether it was done, for certain."""
        return self._state is _State.DONE

    def create(
        self,
        path: str,
        value: bytes = b"",
        acl: Any = None,
        ephemeral: bool = False,
        sequence: bool = False,
        *,
        container: bool = False,
    ) -> None:
        """Add a create; its result is the path that was made.

        A *container* needs servers since 3.5: before that commit() fails with UnimplementedError.
        """
        if container and (ephemeral or sequence):
            raise ValueError("a container is neither ephemeral nor sequential")
        _check(value, bytes, "the value of a node")
        full = wire.full_path(self.client, path, trailing=sequence)
        flags = wire.EPHEMERAL * ephemeral | wire.SEQUENCE * sequence
        flags = wire.CONTAINER if container else flags
        acl = acl or self.client.default_acl
        request = wire.create(full, value, acl, flags)
        self._add(_Operation(request, f"create {path}"))

    def delete(self, path: str, version: int = -1) -> None:
        """Add a delete; *version* -1 is any. Its result is True."""
        _check(version, int, "a version")
        full = wire.full_path(self.client, path)
        self._add(_Operation(wire.delete(full, version), f"delete {path}"))

    def set_data(self, path: str, value: bytes, version: int = -1) -> None:
        """Add a set; its result is the stat of the node after it."""
        _check(value, bytes, "the value of a node")
        _check(version, int, "a version")
        full = wire.full_path(self.client, path)
        self._add(_Operation(wire.set_data(full, value, version), f"set_data {path}"))

    def check(self, path: str, version: int) -> None:
        """Refuse the transaction unless the node is there in this *version*; -1 is any."""
        _check(version, int, "a version")
        full = wire.full_path(self.client, path)
        self._add(_Operation(wire.check_version(full, version), f"check {path}"))

    def commit(self) -> list[Any]:
        """Send it and wait; the results of the operations, in order.

        Raises TransactionRefused when one of them cannot be done, TransactionUnknown when there is
        no answer to what was sent; both are TransactionError. Trouble with the connection before it
        was sent is raised as it is, and so is a kill of the caller: it is not sent later. Then, and
        when the outcome is unknown, it may be committed again; it is never sent twice by itself.
        """
        answer = self._send()
        if answer is None:
            return []
        try:
            answer.get()
        except Exception as error:
            return self._end(answer, error)
        except BaseException:
            self._end_unanswered(answer)
            raise
        return self._judge(answer.value)

    def commit_async(self) -> Any:
        """As `commit()`; never waits. The result fails as commit() does."""
        result = self.client.handler.async_result()
        answer = self._send()
        if answer is None:
            result.set([])
            return result
        result.behind = answer

        def settle(answer: Any) -> None:
            failure = answer.exception
            try:
                if failure is not None:
                    self._end(answer, failure)
                result.set(self._judge(answer.value))
            except Exception as error:
                result.set_exception(error)

        answer.rawlink(settle)
        return result

    def _add(self, operation: _Operation) -> None:
        if self._state is not _State.OPEN:
            raise ZookeeperMisused(f"nothing can be added: the transaction {self._state.value}")
        self._operations.append(operation)

    def _send(self) -> Any:
        if self._state not in (_State.OPEN, _State.UNKNOWN):
            raise ZookeeperMisused(f"commit() came twice: the transaction {self._state.value}")
        if not self._operations:
            self._state = _State.DONE
            return None
        self._state = _State.SENT
        return wire.ask(self.client, wire.Multi(self.operations))

    def _end(self, answer: Any, error: Exception) -> NoReturn:
        if not isinstance(error, _NO_ANSWER):
            self._state = _State.REFUSED
            raise error
        self._end_unanswered(answer)
        if answer.sent is None:
            raise error
        raise TransactionUnknown(self._texts()) from error

    def _end_unanswered(self, answer: Any) -> None:
        if answer.sent is None:
            answer.withdraw()
            self._state = _State.UNKNOWN if self._sent_before else _State.OPEN
        else:
            self._state = _State.UNKNOWN
            self._sent_before = True

    def _judge(self, results: list[Any]) -> list[Any]:
        if any(isinstance(result, Exception) for result in results):
            refused = TransactionRefused(results, self._texts())
            if self._sent_before:
                self._state = _State.UNKNOWN
                raise TransactionUnknown(self._texts()) from refused
            self._state = _State.REFUSED
            raise refused from refused.error
        self._state = _State.DONE
        return [self._shown(result) for result in results]

    def _shown(self, result: Any) -> Any:
        # Of containers the server gives the path, which nobody has cut off the chroot yet, and
        # the stat.
        of_container = isinstance(result, tuple) and isinstance(result[0], str)
        return self.client.unchroot(result[0]) if of_container else result

    def _texts(self) -> list[str]:
        return [operation.text for operation in self._operations]


def _check(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is of the type {kind.__name__}, not {type(value).__name__}")
