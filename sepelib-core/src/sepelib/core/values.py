"""Look values up by key, and say well what is missing or of another type."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from sepelib.core.config_errors import ConfigTypeError, MissingValueError, Place, looks_secret
from sepelib.core.exceptions import LogicalError
from sepelib.core.frozen import (
    NOWHERE,
    FrozenDict,
    FrozenList,
    freeze,
    frozen_dict,
    offsets_of,
    replaced,
)
from sepelib.core.source import Rendered

__all__ = ["MISSING", "Key", "Source", "Unloaded", "Values"]

Key = str | tuple[str | int, ...]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

_KEYS_SHOWN = 8
_INDEX = re.compile("0|[1-9][0-9]{0,8}")


class Source(NamedTuple):
    """What a configuration was loaded from."""

    path: str  # absolute
    context: Mapping[str, Any]


class Values(dict[Key, Any]):
    """The values of one tree by their keys; a value asked for once is a dict entry from then on.

    Tree and entries live and go together, so that no reader can keep a value of an older tree
    for a newer one. MISSING is never stored: there are endlessly many keys of it.
    """

    def __init__(self, root: FrozenDict, rendered: Rendered | None, source: Source | None) -> None:
        super().__init__()
        self.root = root
        self.rendered = rendered
        self.source = source

    def __missing__(self, key: Key) -> Any:
        value: Any = self.root
        for part in _parts(key):
            found = child(value, part)
            if found is MISSING:
                return MISSING
            value = value[found]
        self[key] = value
        return value

    def place(self, parts: tuple[Any, ...]) -> Place | None:
        """Where the value of *parts*, which exists, is written; None: in no file."""
        if self.rendered is None:
            return None
        if not parts:
            return Place(self.rendered.path, 1, 1)
        offset, value = 0, self.root
        for part in parts:
            found = child(value, part)
            index = list(value).index(found) if isinstance(value, FrozenDict) else found
            offset, value = offsets_of(value)[index], value[found]
        return None if offset == NOWHERE else self.rendered.place(offset)

    def missing(self, key: Key) -> MissingValueError:
        """The error for *key*, which does not exist."""
        parts = _parts(key)
        value: Any = self.root
        known = 0
        while (found := child(value, parts[known])) is not MISSING:
            value = value[found]
            known += 1
        place, prefix = self.place(parts[:known]), _shown(parts[:known])
        what = f"no {_shown(parts)!r}" + (f" in {prefix!r}" if known else "")
        what += _advice(value, parts[:known], parts[known])
        return MissingValueError(what, place, self._snippet(place), key, prefix)

    def typed(self, key: Key, value: Any, kind: Any) -> Any:
        """*value* as *kind*, a class or a function that makes one of it."""
        name = getattr(kind, "__name__", repr(kind))
        if kind in (bool, int, float, str, bytes, date, datetime):  # exact: a bool is an int
            if type(value) is kind:
                return value
            if kind is not float or type(value) is not int:
                raise self._mismatch(key, f"must be {name}, not {_kind(value)}")
        elif isinstance(kind, type) and isinstance(value, kind):
            return value
        elif kind in (dict, list):
            raise self._mismatch(key, f"must be {name}, not {_kind(value)}")
        if not callable(kind):
            raise LogicalError(f"type={kind!r} is neither a class nor a function")
        try:
            return kind(value)
        except Exception as error:
            refusal = error
        if looks_secret(_shown(_parts(key))):
            # Neither the words nor the cause: both tend to hold the value.
            raise self._mismatch(key, f"must be {name}, which refuses this {_kind(value)}")
        raise self._mismatch(key, f"must be {name}, which says: {refusal}") from refusal

    def _mismatch(self, key: Key, what: str) -> ConfigTypeError:
        parts = _parts(key)
        place = self.place(parts)
        return ConfigTypeError(f"{_shown(parts)} {what}", place, self._snippet(place), key)

    def _snippet(self, place: Place | None) -> str:
        return self.rendered.snippet(place) if place and self.rendered else ""

    def overridden(self, others: Mapping[Key, Any]) -> "Values":
        """The same tree with *others* in it."""
        root = self.root
        for key, value in others.items():
            root = self._with(root, key, _parts(key), freeze(value))
        return Values(root, self.rendered, self.source)

    def _with(self, parent: Any, key: Key, parts: tuple[str | int, ...], value: Any) -> Any:
        if not parts:
            return value
        found = child(parent, parts[0])
        if found is not MISSING:
            return replaced(parent, found, self._with(parent[found], key, parts[1:], value))
        if not isinstance(parent, FrozenDict):
            raise LogicalError(
                f"{_shown(_parts(key))} cannot be set: type {_kind(parent)} has no such keys"
            )
        return replaced(parent, parts[0], self._with(frozen_dict({}), key, parts[1:], value))


class Unloaded(Values):
    """What there is before the first load: nothing, and each question is a mistake."""

    def __init__(self) -> None:
        super().__init__(frozen_dict({}), None, None)

    def __missing__(self, key: Key) -> Any:
        raise LogicalError("no configuration is loaded; call config.load(path) first")


def child(parent: Any, part: str | int) -> Any:
    """The key or index of *parent* that *part* means, or MISSING."""
    if isinstance(parent, FrozenDict):
        if part in parent:
            return part
        number = _number(part)
        return number if number in parent else MISSING
    if isinstance(parent, FrozenList):
        number = _number(part)
        return number if number is not MISSING and number < len(parent) else MISSING
    return MISSING


def _parts(key: Key) -> tuple[str | int, ...]:
    if isinstance(key, str):
        return tuple(key.split("."))
    if isinstance(key, tuple):
        return key
    raise LogicalError(f"a key is 'a.b' or ('a', 'b'), not {key!r}")


def _number(part: str | int) -> Any:
    if isinstance(part, int):
        return part if part >= 0 else MISSING
    # One spelling per index: '00' beside '0' would be one more entry of the cache.
    return int(part) if _INDEX.fullmatch(part) else MISSING


def _shown(parts: tuple[str | int, ...]) -> str:
    names = [str(part) for part in parts]
    return repr(parts) if any("." in name for name in names) else ".".join(names)


def _kind(value: object) -> str:
    names = {FrozenDict: "dict", FrozenList: "list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _advice(parent: object, known: tuple[str | int, ...], part: str | int) -> str:
    if isinstance(parent, FrozenList):
        return f", a list of {len(parent)}; an index counts from 0"
    if not isinstance(parent, FrozenDict):
        return f", of type {_kind(parent)}; it holds no keys"
    from difflib import get_close_matches

    names = [str(name) for name in parent]
    if near := get_close_matches(str(part), names, 1):
        return f"; did you mean {_shown((*known, near[0]))!r}?"
    if not names:
        return "; it is empty"
    more = ", ..." if len(names) > _KEYS_SHOWN else ""
    return f"; it has {', '.join(names[:_KEYS_SHOWN])}{more}"
