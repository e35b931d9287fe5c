"""Look values up by key, and say well what is missing or of another type."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from sepelib.core.config.errors import ConfigTypeError, MissingValueError, Place
from sepelib.core.config.frozen import (
    NOWHERE,
    FrozenDict,
    FrozenList,
    freeze,
    frozen_dict,
    offset_in,
    replaced,
)
from sepelib.core.config.layers import Layers, Origin
from sepelib.core.config.request import Request
from sepelib.core.config.secrecy import MASK, Redactor, looks_secret, masked, texts
from sepelib.core.exceptions import LogicalError

__all__ = [
    "MISSING",
    "Changes",
    "Key",
    "Unloaded",
    "Values",
    "advice",
    "child",
    "parts_of",
    "shown",
]

Key = str | tuple[str | int, ...]
Changes = Mapping[str, Any] | Mapping[Key, Any]  # a dict of text keys is no Mapping[Key, Any]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

_KEYS_SHOWN = 8
_INDEX = re.compile("0|[1-9][0-9]{0,8}")


class Values(dict[Key, Any]):
    """The values of one tree by their keys; a value asked for once is a dict entry from then on.

    Tree and entries live and go together, so that no reader can keep a value of an older tree
    for a newer one. MISSING is never stored: there are endlessly many keys of it.
    """

    def __init__(
        self, stages: tuple[FrozenDict, ...], layers: Layers, request: Request | None
    ) -> None:
        super().__init__()
        self.stages = stages  # the tree after each layer; they share what they have in common
        self.root = stages[-1]
        self.layers = layers
        self.request = request
        self._redactor: Redactor | None = None

    def __missing__(self, key: Key) -> Any:
        value: Any = self.root
        for part in parts_of(key):
            found = child(value, part)
            if found is MISSING:
                return MISSING
            value = value[found]
        self[key] = value
        return value

    def place(self, parts: tuple[Any, ...]) -> Place | None:
        """Where the value of *parts*, which exists, is written; None: in no file."""
        if not parts:
            return self.layers.top() if self.request else None
        return self.layers.place(_offsets(self.root, parts)[-1])

    def explain(self, key: Key) -> Origin:
        """Where the value of *key* comes from; `MissingValueError` when there is none."""
        parts = parts_of(key)
        if self[key] is MISSING:
            raise self.missing(key)
        if not parts:
            place = self.place(())
            return Origin(*place, "default") if place else Origin(None, None, None, "override")
        offsets: list[int] = []
        for stage in self.stages:
            found = _offsets(stage, parts)
            if len(found) == len(parts) and found[-1] not in offsets[-1:]:
                offsets.append(found[-1])
        newest, *older = (self.layers.origin(offset) for offset in reversed(offsets))
        return newest._replace(replaced=tuple(older))

    def shown(self, key: Key) -> Any:
        """A plain copy of the value of *key*, which exists, with ``***`` for what is secret."""
        return masked(self[key], self._is_secret(parts_of(key)), self.layers.secrets)

    def redact(self, text: str) -> str:
        """*text* without the secrets of this configuration."""
        if self._redactor is None:
            self._redactor = Redactor(texts(self.root, self.layers.secrets))
        return self._redactor(text)

    def _is_secret(self, parts: tuple[Any, ...]) -> bool:
        return looks_secret(shown(parts)) or not self.layers.secrets.isdisjoint(
            _offsets(self.root, parts)
        )

    def missing(self, key: Key) -> MissingValueError:
        """The error for *key*, which does not exist."""
        parts = parts_of(key)
        value: Any = self.root
        known = 0
        while (found := child(value, parts[known])) is not MISSING:
            value = value[found]
            known += 1
        place, prefix = self.place(parts[:known]), shown(parts[:known])
        what = f"no {shown(parts)!r}" + (f" in {prefix!r}" if known else "")
        what += advice(value, parts[:known], parts[known])
        return MissingValueError(what, place, self._snippet(parts[:known]), key, prefix)

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
        words = " ".join(str(refusal).split())
        holds_secret = self.shown(key) != value
        secret = self._is_secret(parts_of(key)) or (holds_secret and isinstance(value, dict | list))
        # Neither the words nor the cause of a secret: both tend to hold the value. The words about
        # a URL with a password may be fine; what the cause was caused by, nobody knows.
        if secret or self.redact(words) != words:
            raise self._mismatch(key, f"must be {name}, which refuses this {_kind(value)}")
        mismatch = self._mismatch(key, f"must be {name}, which says: {words}")
        raise mismatch from (None if holds_secret else refusal)

    def _mismatch(self, key: Key, what: str) -> ConfigTypeError:
        parts = parts_of(key)
        return ConfigTypeError(
            f"{shown(parts)} {what}", self.place(parts), self._snippet(parts), key
        )

    def _snippet(self, parts: tuple[Any, ...]) -> str:
        snippet = self.layers.snippet(self.place(parts))
        # An alias has the place of its anchor, where nothing may tell that it is a secret.
        hidden = snippet and self._is_secret(parts) and MASK not in snippet
        return MASK if hidden else snippet

    def overridden(self, others: Changes) -> "Values":
        """The same tree with *others* in it."""
        root = self.root
        for key, value in others.items():
            root = self._with(root, key, parts_of(key), freeze(value))
        return Values((*self.stages, root), self.layers, self.request)

    def _with(self, parent: Any, key: Key, parts: tuple[str | int, ...], value: Any) -> Any:
        if not parts:
            return value
        found = child(parent, parts[0])
        if found is not MISSING:
            offset = offset_in(parent, found) if parts[1:] else NOWHERE
            inner = self._with(parent[found], key, parts[1:], value)
            return replaced(parent, found, inner, offset)
        if not isinstance(parent, FrozenDict):
            raise LogicalError(
                f"{shown(parts_of(key))} cannot be set: type {_kind(parent)} has no such keys"
            )
        inner = self._with(frozen_dict({}, ()), key, parts[1:], value)
        return replaced(parent, parts[0], inner, NOWHERE)


class Unloaded(Values):
    """What there is before the first load: nothing, and each question is a mistake."""

    def __init__(self) -> None:
        super().__init__((frozen_dict({}, ()),), Layers(), None)

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


def parts_of(key: Key) -> tuple[str | int, ...]:
    if isinstance(key, str):
        return tuple(key.split("."))
    if isinstance(key, tuple):
        return key
    raise LogicalError(f"a key is 'a.b' or ('a', 'b'), not {key!r}")


def _offsets(root: FrozenDict, parts: tuple[Any, ...]) -> tuple[int, ...]:
    """Where the values on the way along *parts* stand, as far as they exist."""
    offsets = []
    value: Any = root
    for part in parts:
        found = child(value, part)
        if found is MISSING:
            break
        offsets.append(offset_in(value, found))
        value = value[found]
    return tuple(offsets)


def _number(part: str | int) -> Any:
    if isinstance(part, int):
        return part if part >= 0 else MISSING
    # One spelling per index: '00' beside '0' would be one more entry of the cache.
    return int(part) if _INDEX.fullmatch(part) else MISSING


def shown(parts: tuple[str | int, ...]) -> str:
    names = [str(part) for part in parts]
    return repr(parts) if any("." in name for name in names) else ".".join(names)


def _kind(value: object) -> str:
    names = {FrozenDict: "dict", FrozenList: "list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def advice(parent: object, known: tuple[str | int, ...], part: str | int) -> str:
    if isinstance(parent, FrozenList):
        return f", a list of {len(parent)}; an index counts from 0"
    if not isinstance(parent, FrozenDict):
        return f", of type {_kind(parent)}; it holds no keys"
    from difflib import get_close_matches

    names = [str(name) for name in parent]
    if near := get_close_matches(str(part), names, 1):
        return f"; did you mean {shown((*known, near[0]))!r}?"
    if not names:
        return "; it is empty"
    more = ", ..." if len(names) > _KEYS_SHOWN else ""
    return f"; it has {', '.join(names[:_KEYS_SHOWN])}{more}"
