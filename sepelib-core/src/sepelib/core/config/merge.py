"""Lay one tree over another.

Mappings are merged, key by key; whatever else is laid over a value replaces it. A list replaces a
list, unless it has the tag ``!append``; ``!delete`` takes the key away. A null may replace
anything and be replaced by anything; otherwise a mapping, a list and a single value only replace
their like, since one of the two files is wrong.
"""

from typing import Any, Final

from sepelib.core.config.frozen import (
    NOWHERE,
    FrozenDict,
    FrozenList,
    frozen_dict,
    frozen_list,
    offsets_of,
)

__all__ = ["DELETE", "Appended", "MergeConflict", "deep_merge", "laid_over"]


class _Delete:
    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final = _Delete()


class Appended(FrozenList):
    """A list to append to the one below."""

    __slots__ = ()


class MergeConflict(Exception):
    """What is written at *over* does not fit what is written at *under*, or nowhere, below it."""

    def __init__(self, key: tuple[Any, ...], what: str, over: int, under: int) -> None:
        super().__init__(key, what, over, under)
        self.key = key
        self.what = what
        self.over = over
        self.under = under


def deep_merge(
    base: FrozenDict, over: FrozenDict, secrets: set[int], key: tuple[Any, ...] = ()
) -> FrozenDict:
    """*base* with *over* laid over it; neither changes, and what is in one only is shared.

    *secrets*: the offsets of secret values; one that takes the place of a secret is put in. *key*
    leads to the two. MergeConflict for what does not fit.
    """
    values: dict[Any, Any] = dict(base)
    offsets = dict(zip(base, offsets_of(base), strict=True))
    for (name, new), offset in zip(over.items(), offsets_of(over), strict=True):
        path = (*key, name)
        if new is DELETE:
            if name not in values:
                raise MergeConflict(path, "there is nothing to delete", offset, NOWHERE)
            del values[name], offsets[name]
        elif name in values:
            values[name], offsets[name] = laid_over(
                (values[name], offsets[name]), (new, offset), secrets, path
            )
        else:
            values[name], offsets[name] = _alone(new, secrets, path), offset
    return frozen_dict(values, offsets.values())


def laid_over(
    old: tuple[Any, int], new: tuple[Any, int], secrets: set[int], key: tuple[Any, ...]
) -> tuple[Any, int]:
    """The value with its offset that is left when *new* is laid over *old*."""
    (below, under), (value, over) = old, new
    if isinstance(value, FrozenDict) and isinstance(below, FrozenDict):
        return deep_merge(below, value, secrets, key), under
    if isinstance(value, Appended) and isinstance(below, FrozenList):
        items = [*below, *value]
        return frozen_list(items, (*offsets_of(below), *offsets_of(value))), under
    if value is not None and below is not None and _shape(value) != _shape(below):
        what = f"{_shape(value)} over {_shape(below)}"
        raise MergeConflict(key, what, over, under)
    if under in secrets:
        secrets.add(over)
    return _alone(value, secrets, key), over


def _alone(value: Any, secrets: set[int], key: tuple[Any, ...]) -> Any:
    """*value* where there is nothing below it."""
    if isinstance(value, Appended):
        return frozen_list(value, offsets_of(value))
    if isinstance(value, FrozenDict):
        return deep_merge(frozen_dict({}, ()), value, secrets, key)
    return value


def _shape(value: Any) -> str:
    if isinstance(value, FrozenDict):
        return "a mapping"
    if isinstance(value, Appended):
        return "!append"
    return "a list" if isinstance(value, FrozenList) else "a single value"
