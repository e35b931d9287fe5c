"""The expressions that the fake of Staff takes as `_query`. The grammar is ours:

    or         = and ("or" and)*
    and        = atom ("and" atom)*
    atom       = "(" or ")" | field comparison
    comparison = ("==" | "!=" | ">" | "<") value | "in" "(" value ("," value)* ")"
    value      = number | 'text' | "text" | true | false | null

A field is dotted; one that is not there is null, and neither above nor below anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

__all__ = ["QueryError", "at", "parsed"]

Item = dict[str, Any]
Predicate = Callable[[Item], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>==|!=|[<>(),])"
    r"|(?P<word>[A-Za-z_][\w.]*))"
)
_CONSTANTS = {"true": True, "false": False, "null": None}
_RESERVED = {*_CONSTANTS, "and", "or", "in"}
_DEEPEST = 50  # parentheses


class QueryError(ValueError):
    """The expression does not follow the grammar, and where."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parsed(text: str) -> Predicate:
    """What says whether an item fits. Raises QueryError."""
    return _Parser(text).whole()


def at(item: Any, name: str) -> Any:
    """The value of a dotted field, None where the way ends early."""
    for part in name.split("."):
        item = item.get(part) if isinstance(item, dict) else None
    return item


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Predicate:
        found = self._either()
        if self._token.kind != "end":
            self._fail("the end")
        return found

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _takes(self, text: str) -> bool:
        if self._token.kind == "text" or self._token.text != text:
            return False
        self._next += 1
        return True

    def _needs(self, text: str) -> None:
        if not self._takes(text):
            self._fail(text)

    def _either(self) -> Predicate:
        parts = [self._both()]
        while self._takes("or"):
            parts.append(self._both())
        return lambda item: any(part(item) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._atom()]
        while self._takes("and"):
            parts.append(self._atom())
        return lambda item: all(part(item) for part in parts)

    def _atom(self) -> Predicate:
        if not self._takes("("):
            return self._comparison()
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"at most {_DEEPEST} parentheses in each other")
        inner = self._either()
        self._needs(")")
        self._depth -= 1
        return inner

    def _comparison(self) -> Predicate:
        token = self._token
        if token.kind != "word" or token.text in _RESERVED:
            self._fail("a field")
        self._next += 1
        field = token.text
        if self._takes("in"):
            self._needs("(")
            values = [self._value()]
            while self._takes(","):
                values.append(self._value())
            self._needs(")")
            return lambda item: any(_same(at(item, field), value) for value in values)
        for sign, holds in _SIGNS.items():
            if self._takes(sign):
                value = self._value()
                return lambda item: holds(at(item, field), value)
        self._fail("==, !=, >, < or in")

    def _value(self) -> Any:
        token = self._token
        self._next += 1
        if token.kind == "number":
            return float(token.text) if "." in token.text else int(token.text)
        if token.kind == "text":
            return token.text[1:-1]
        if token.kind == "word" and token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        self._next -= 1
        self._fail("a value")

    def _fail(self, wanted: str) -> NoReturn:
        token = self._token
        raise QueryError(f"_query: {wanted} is wanted at {token.at}, not {token.text or 'the end'}")


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _above(one: Any, other: Any) -> bool:
    try:
        return bool(one > other)
    except TypeError:
        return False


_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _same,
    "!=": lambda one, other: not _same(one, other),
    ">": _above,
    "<": lambda one, other: _above(other, one),
}


def _tokens(text: str) -> list[_Token]:
    found, done, end = [], 0, len(text.rstrip())
    while done < end:
        match = _TOKEN.match(text, done)
        if match is None or match.lastgroup is None:
            raise QueryError(f"_query: {text[done : done + 10].strip()!r} at {done} means nothing")
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        done = match.end()
    return [*found, _Token("end", "", end)]
