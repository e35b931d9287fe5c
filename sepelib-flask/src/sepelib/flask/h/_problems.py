"""What is wrong with a stranger's values, where, and in words that give no secret away."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sepelib.flask.h._json_text import NotFinite
from sepelib.util.text import truncate
from sepelib.util.url import SECRET_NAME

__all__ = [
    "BAD",
    "BOOLEAN",
    "LIST",
    "NULL",
    "NUMBER",
    "OBJECT",
    "ROOT",
    "STRING",
    "At",
    "Enough",
    "Problems",
    "did_you_mean",
    "kind_of",
    "summary",
]

# Keys and indices on the way from the root, the last one first: ((None, "items"), 2). A step down
# costs one tuple; it becomes text when something is wrong.
At = tuple[Any, Any] | None
ROOT: Final[At] = None

BAD: Final[Any] = type("BAD", (), {"__repr__": lambda self: "BAD"})()
"""In place of a value that could not be made; the problem is told already."""

_MOST = 20  # problems told of one request
_DEEPEST = 64  # lists and objects inside of one another
_KEY = 40  # characters shown of a key
_PATH = 200  # of a path
_EXCERPT = 40  # of a value


class Enough(Exception):
    """As many problems as are told: the rest of the input is not looked at."""


class Problems:
    """Collects them while one input is read."""

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []
        self._depth = 0

    def add(self, at: At, message: str) -> Any:
        """Note that *message* holds of the value *at*; returns BAD."""
        self.found.append({"path": path_text(at), "message": message})
        if len(self.found) >= _MOST:
            raise Enough
        return BAD

    def mismatch(self, at: At, expected: str, value: object, *, hidden: bool = False) -> Any:
        """Note that *value* is not what was *expected*; returns BAD."""
        shown = kind_of(value) if hidden or _is_secret(at) else _excerpt(value)
        return self.add(at, f"must be {expected}, not {shown}")

    def enter(self, at: At) -> bool:
        """Go into a list or object; False, and a problem, when that is too deep. See `leave`."""
        if self._depth >= _DEEPEST:
            self.add(at, f"nested deeper than {_DEEPEST} levels")
            return False
        self._depth += 1
        return True

    def leave(self) -> None:
        self._depth -= 1


def summary(found: list[dict[str, str]]) -> str:
    """One sentence of the first of *found*, one or more."""
    first, rest = found[0], len(found) - 1
    told = f"{first['path']}: {first['message']}" if first["path"] else first["message"]
    return f"{told} (and {rest} more)" if rest else told


def path_text(at: At) -> str:
    """`items[2].port`; keys which are no names are quoted as in JSON. The root is ''."""
    steps: list[str | int] = []
    while at is not None:
        at, step = at
        steps.append(step)
    text = ""
    for step in reversed(steps):
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() and step.isascii() and len(step) <= _KEY:
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(truncate(step, _KEY))}]"
    return truncate(text, _PATH)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'limit'?`, else the names that there are, unless they are many."""
    from difflib import get_close_matches  # for mistakes only

    names = sorted(known)
    if near := get_close_matches(name[:64], names, 1):
        return f"; did you mean {near[0]!r}?"
    if not names or len(names) > 8:
        return ""
    return f"; there is {', '.join(names)}"


NULL, BOOLEAN, NUMBER, STRING = "null", "a boolean", "a number", "a string"
LIST, OBJECT = "a list", "an object"

_KINDS: dict[type, str] = {
    type(None): NULL,
    bool: BOOLEAN,
    int: NUMBER,
    float: NUMBER,
    str: STRING,
    list: LIST,
}


def kind_of(value: object) -> str:
    """What *value* is in JSON."""
    if isinstance(value, dict):
        return OBJECT
    return _KINDS.get(type(value), "what JSON does not have")


def _excerpt(value: object) -> str:
    if isinstance(value, str):
        # Cut first: a megabyte need not be quoted. ASCII, so that nothing in it acts on a log.
        return json.dumps(truncate(value, _EXCERPT))
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    if type(value) is int:
        return truncate(str(value), _EXCERPT) if abs(value) < 10**100 else "a huge number"
    return str(value) if isinstance(value, NotFinite) else kind_of(value)


def _is_secret(at: At) -> bool:
    while at is not None:
        at, step = at
        if isinstance(step, str) and SECRET_NAME.search(step):
            return True
    return False
