"""Arguments of calls, as they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["jsonable", "several"]


def jsonable(value: Any) -> Any:
    """*value* for a JSON body: a datetime, which has to be aware, as RFC 3339; a set as a list."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time that is sent has a zone")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return [jsonable(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def several(names: Iterable[str], what: str) -> list[str]:
    """*names* as a list; TypeError for one text, which would be taken for its letters."""
    if isinstance(names, str):
        raise TypeError(f"{what} are several names, not the one text {names!r}")
    return list(names)
