"""Dicts and lists that refuse changes: a configuration has many readers and one owner."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

__all__ = [
    "NOWHERE",
    "FrozenDict",
    "FrozenList",
    "freeze",
    "frozen_dict",
    "frozen_list",
    "offset_in",
    "offsets_of",
    "replaced",
]

NOWHERE = -1


def _read_only(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("the configuration is read-only; copy.deepcopy() makes a plain copy of it")


class FrozenDict(dict[Any, Any]):
    """A mapping of the configuration: a `dict` that refuses changes.

    All readers share it. `json.dumps`, ``==``, ``**`` and `isinstance(x, dict)` work as ever;
    `dict(x)`, `copy`, `pickle` and `copy.deepcopy` give plain dicts.
    """

    __slots__ = ("_offsets",)
    _offsets: tuple[int, ...]  # of the values, in the order of the keys

    __setitem__ = __delitem__ = __ior__ = _read_only
    clear = pop = popitem = setdefault = update = _read_only

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list of the configuration: a `list` that refuses changes. See `FrozenDict`."""

    __slots__ = ("_offsets",)
    _offsets: tuple[int, ...]

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _read_only
    append = clear = extend = insert = pop = remove = _read_only
    reverse = sort = _read_only

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def freeze(value: Any, offset: int = NOWHERE) -> Any:
    """A read-only copy of *value*, down to the leaves, all of it written at *offset*."""
    if isinstance(value, Mapping):
        items = {key: freeze(item, offset) for key, item in value.items()}
        return frozen_dict(items, [offset] * len(items))
    if isinstance(value, list | tuple):
        return frozen_list([freeze(item, offset) for item in value], [offset] * len(value))
    return value


def frozen_dict(items: Mapping[Any, Any], offsets: Iterable[int]) -> FrozenDict:
    result = FrozenDict(items)
    result._offsets = tuple(offsets)
    return result


def frozen_list(
    items: Sequence[Any], offsets: Iterable[int], kind: type[FrozenList] = FrozenList
) -> FrozenList:
    result = kind(items)
    result._offsets = tuple(offsets)
    return result


def offsets_of(parent: FrozenDict | FrozenList) -> tuple[int, ...]:
    """Where each value of *parent* begins in the `Layers` that it was read from, or NOWHERE."""
    return parent._offsets


def replaced(
    parent: FrozenDict | FrozenList, key: Any, value: Any, offset: int
) -> FrozenDict | FrozenList:
    """A copy of *parent* with another *value*, written at *offset*, at *key*."""
    if isinstance(parent, FrozenList):
        items, places = list(parent), list(parent._offsets)
        items[key], places[key] = value, offset
        return frozen_list(items, places)
    offsets = dict(zip(parent, parent._offsets, strict=True)) | {key: offset}
    return frozen_dict({**parent, key: value}, offsets.values())


def offset_in(parent: FrozenDict | FrozenList, key: Any) -> int:
    """Where the value of *key*, which *parent* has, begins, or NOWHERE."""
    if isinstance(parent, FrozenDict):
        key = list(parent).index(key)
    offset: int = parent._offsets[key]
    return offset
