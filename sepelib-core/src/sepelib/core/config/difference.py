"""What differs between two trees."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sepelib.core.config.frozen import FrozenDict
from sepelib.core.config.values import MISSING, Key, parts_of, shown

__all__ = ["Diff", "concerns", "difference"]

_Path = tuple[Any, ...]


class Diff(NamedTuple):
    """The keys of single values, lists and empty mappings that differ; false when there are none.

    Each is a key for `get_value`: text with dots or, where a key has a dot itself, a tuple.
    """

    changed: tuple[Key, ...]
    added: tuple[Key, ...]
    removed: tuple[Key, ...]

    def __bool__(self) -> bool:
        return any(self)


def difference(before: FrozenDict, after: FrozenDict) -> Diff:
    changed: list[Key] = []
    added: list[Key] = []
    removed: list[Key] = []
    for path, old, new in _pairs((), before, after):
        kind = added if old is MISSING else removed if new is MISSING else changed
        kind.append(_key(path))
    return Diff(tuple(changed), tuple(added), tuple(removed))


def concerns(diff: Diff, key: Key) -> bool:
    """Whether something differs at *key*, below it, or above it."""
    wanted = tuple(map(str, parts_of(key)))
    for keys in diff:
        for each in keys:
            path = tuple(map(str, parts_of(each)))
            length = min(len(path), len(wanted))
            if path[:length] == wanted[:length]:
                return True
    return False


def _pairs(path: _Path, old: Any, new: Any) -> Iterator[tuple[_Path, Any, Any]]:
    """The values that differ; an empty mapping is one where the other side has none."""
    if old is new:
        return
    below = [value for value in (old, new) if isinstance(value, FrozenDict)]
    one_sided = (old is MISSING or new is MISSING) and any(below)
    if len(below) == 2 or one_sided:
        for key in below[0] | below[-1]:
            inner = (
                v.get(key, MISSING) if isinstance(v, FrozenDict) else MISSING for v in (old, new)
            )
            yield from _pairs((*path, key), *inner)
    elif not _same(old, new):
        yield path, old, new


def _same(old: Any, new: Any) -> bool:
    """Equal for all who read them: not 1 and True, but two NaN."""
    if type(old) is not type(new):
        return False
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return bool(old == new or (old != old and new != new))


def _key(path: _Path) -> Key:
    names = [str(part) for part in path]
    return path if shown(path) != ".".join(names) else ".".join(names)
