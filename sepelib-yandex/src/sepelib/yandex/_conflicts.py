"""Edits that were repeated: whether the version in the way is of an attempt of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import VersionConflict, YandexError

__all__ = ["own_write", "same_json"]

T = TypeVar("T")


def own_write(
    conflict: VersionConflict, ask: Callable[[], T | None], is_ours: Callable[[T], bool]
) -> T:
    """What *ask* finds if a lost attempt of this edit has written it; else raises *conflict*."""
    if conflict.maybe_applied:
        try:
            found = ask()
        except YandexError as error:
            raise conflict from error  # it says that the edit may be there, this error does not
        if found is not None and is_ours(found):
            return found
    raise conflict


def same_json(one: Any, other: Any) -> bool:
    """Whether both are sent alike: a tuple is a list, but True is not 1."""
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    # Twice: keys that are numbers become text by the first, and can then be sorted.
    return json.dumps(json.loads(json.dumps(value)), sort_keys=True)
