"""What mongoengine does not tell a field: where a value comes from, and what the field is in."""

from __future__ import annotations

import sys
from typing import Any

from mongoengine.base import BaseField

__all__ = ["Given", "container_of", "label_of", "origin"]

_BETWEEN = frozenset({"to_mongo", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"})
_ORIGINS = frozenset({"__init__", "__getstate__", "prepare_query_value"})


def origin() -> str:
    """What wants a value converted, beyond all fields that have this one inside.

    "__init__" for what a constructor is given, "prepare_query_value" for a query or an update,
    "_from_son" for what was read, "__getstate__" for what is pickled or copied, "" for the rest.

    It is read from the call stack: in each of these cases mongoengine calls the same method with
    nothing but the value, and no signal, flag or order of calls differs that a field could see.
    So ask only about a value that cannot be converted: it is slow, about 5 microseconds.
    """
    frame: Any = sys._getframe(1)
    found = ""
    while frame is not None:
        name: str = frame.f_code.co_name
        if name in _ORIGINS:
            return name  # though a mapping in the place of a document goes through _from_son too
        if name == "_from_son":
            found = name
        elif name not in _BETWEEN and not isinstance(frame.f_locals.get("self"), BaseField):
            break
        frame = frame.f_back
    return found


class Given:
    """A value that the field refuses, in the state of a document that is pickled or copied.

    mongoengine reads that state as if it came from the database, where other values may be.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: Given) -> bool:
        return repr(self.value) < repr(other.value)  # the elements of a set are put in order


def container_of(field: Any) -> Any:
    """The field of the document that is, or has inside at whatever depth, *field*."""
    for outer in field.owner_document._fields.values():
        inner = outer
        while inner is not None:
            # Not the field itself: mongoengine copies fields, and so do we.
            if getattr(inner, "creation_counter", None) == field.creation_counter:
                return outer
            inner = getattr(inner, "field", None)
    return None


def label_of(field: Any) -> str:
    """How errors name *field*: those inside others have no name of their own."""
    if field.owner_document is None:
        return type(field).__name__
    name = field.name or getattr(container_of(field), "name", None) or field.db_field
    return f"{field.owner_document.__name__}.{name}"
