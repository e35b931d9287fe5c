"""The document classes of an alias, also those that mongoengine has lost sight of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mongoengine import Document
from mongoengine.connection import DEFAULT_CONNECTION_NAME

__all__ = ["forget_collections"]


def forget_collections(alias: str) -> None:
    """Let each document of *alias* look for its collection, and make its indexes, at its next use.

    mongoengine's registry has one class for each name: of two test modules that both have a
    `Ticket`, the first would go on with a client that is closed.
    """
    for document in _below(Document):
        if document._meta.get("db_alias", DEFAULT_CONNECTION_NAME) == alias:
            document._disconnect()


def _below(base: Any) -> Iterator[Any]:
    for each in base.__subclasses__():
        yield each
        yield from _below(each)
