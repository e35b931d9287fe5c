"""The connection to MongoDB: made when it is first needed, and again and again until there is one.

Everybody asks for it where they use it, and bears that it is away: nothing waits for it at the
start. Whether it is away is known here alone, and said once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mongoengine import connection
from mongoengine.errors import OperationError
from pymongo import MongoClient, WriteConcern
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from lookout.models import ALIAS, MODELS
from lookout.settings import MongoSettings
from sepelib.mongo import connect
from sepelib.mongo.errors import MongoError
from sepelib.util.deadline import DeadlineExceeded, deadline

__all__ = ["DURABLE", "Away", "Database", "Refused"]

log = logging.getLogger(__name__)

SELECTION = 2.0  # seconds to find the server; an election takes more, and all is tried again
DURABLE = WriteConcern(w="majority", j=True)
AWAY = (ConnectionFailure, MongoError, DeadlineExceeded, connection.ConnectionFailure)


class Away(Exception):
    """MongoDB does not do what it is asked; one sentence. What was asked may have been done."""


class Refused(Away):
    """It is there, and says no. Not known to `Database.error`, and for who has asked to log."""


class Database:
    """The one of *settings*, for any number of greenlets, on the alias of `lookout.models`.

    error: why it cannot be had, None when it can.
    """

    def __init__(self, settings: MongoSettings) -> None:
        self.error: str | None = None
        self.settings = settings
        self._is_prepared = False
        self._back_at = float("-inf")  # when the last outage was over

    @contextmanager
    def use(self, seconds: float = 5.0) -> Iterator[MongoClient[dict[str, Any]]]:
        """Models can be used in the block, which has *seconds* for it. Raises Away, Refused."""
        began = time.monotonic()
        try:
            with deadline(seconds):
                client = connect(
                    self.settings.uri.reveal(),
                    alias=ALIAS,
                    name=self.settings.database,
                    server_timeout=SELECTION,
                )
                self._prepare()
                yield client
        except AWAY as error:
            said = _first_words(error)
            self._is_away(said, began)
            raise Away(said) from error
        except (PyMongoError, OperationError) as error:
            self._is_there()
            raise Refused(_first_words(error)) from error
        self._is_there()

    def _is_away(self, said: str, began: float) -> None:
        if began < self._back_at:  # of an outage that is over: others have been answered since
            return
        if self.error is None:
            log.error("MongoDB is away, trying on: %s", said)
        self.error = said

    def _is_there(self) -> None:
        if self.error is not None:
            log.info("MongoDB is back")
            self._back_at = time.monotonic()
        self.error = None

    def _prepare(self) -> None:
        if not self._is_prepared:
            for model in MODELS:
                model.ensure_indexes()
            self._is_prepared = True

    def close(self) -> None:
        """Idempotent; whoever uses it afterwards connects anew."""
        with suppress(connection.ConnectionFailure):
            connection.get_connection(ALIAS).close()


def _first_words(error: BaseException) -> str:
    """Without the state of all servers, or all of an answer, that pymongo appends."""
    said = str(error)
    if isinstance(error, BulkWriteError):
        said = "; ".join(each["errmsg"] for each in error.details["writeErrors"]) or said
    for rest in (" (configured timeouts", ", Timeout: ", ", full error: "):
        said = said.partition(rest)[0]
    return " ".join(said.split()) or type(error).__name__
