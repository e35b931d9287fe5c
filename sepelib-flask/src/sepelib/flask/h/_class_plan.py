"""Dataclasses from JSON objects, and from the arguments of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sepelib.flask.h._containers import Container
from sepelib.flask.h._plan import Plan
from sepelib.flask.h._problems import BAD, OBJECT, At, Problems, did_you_mean
from sepelib.flask.h._scalars import Choice
from sepelib.util.secrets import MASK
from sepelib.util.text import truncate
from sepelib.util.url import SECRET_NAME, redact_text

__all__ = ["ClassPlan", "Field"]

_REFUSAL = 200  # characters shown of what __post_init__ says


class Field(NamedTuple):
    """One field that `__init__` takes: *key* is its name outside, *name* that in Python."""

    key: str
    name: str
    plan: Plan
    required: bool

    @property
    def hidden(self) -> bool:
        return self.plan.hidden or bool(SECRET_NAME.search(self.key))


class ClassPlan(Container):
    """An object with a fixed set of keys, made into *cls*."""

    accepts = frozenset([OBJECT])

    def __init__(self, cls: type) -> None:
        self.expected = f"an object like {cls.__name__}"
        self.kind = cls
        self.fields: dict[str, Field] = {}
        self._required: list[Field] = []

    def complete(self, fields: list[Field]) -> None:
        """The second half of `__init__`: fields may be of *cls* itself."""
        self.fields = {field.key: field for field in fields}
        self._required = [field for field in fields if field.required]
        self.hashable = self.kind.__hash__ is not None and all(f.plan.hashable for f in fields)

    def tags(self) -> dict[str, frozenset[tuple[type, Any]]]:
        """The required fields of a Literal or an Enum, by their keys, with what they may be."""
        return {
            field.key: field.plan.values
            for field in self.fields.values()
            if field.required and isinstance(field.plan, Choice)
        }

    def _read_parts(self, value: Any, at: At, problems: Problems) -> Any:
        made = {}
        for key, item in value.items():
            field = self.fields.get(key)
            if field is None:
                problems.add((at, key), f"unknown key{did_you_mean(key, self.fields)}")
            else:
                made[field.name] = field.plan.read(item, (at, key), problems)
        return self.make(made, value, at, problems)

    def make(
        self, values: dict[str, Any], given: Mapping[str, Any], at: At, problems: Problems
    ) -> Any:
        """The object, of *values* by the names of its fields; *given* is what they were made of."""
        for field in self._required:
            if field.name not in values:
                problems.add((at, field.key), "missing")
        if problems.found:  # here, or elsewhere: all of it will be refused
            return BAD
        try:
            return self.kind(**values)
        except ValueError as e:  # of __post_init__; anything else is a bug in it
            return problems.add(at, self._words_of(e, given))

    def _words_of(self, refusal: ValueError, given: Mapping[str, Any]) -> str:
        words = redact_text(" ".join(str(refusal).split()))
        for field in self.fields.values():
            if field.hidden and field.key in given:
                for secret in _texts(given[field.key]):
                    words = words.replace(secret, MASK)
        return truncate(words, _REFUSAL) or f"refused by {self.kind.__name__}"


def _texts(value: Any) -> list[str]:
    """All that could be recognized of *value*."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [str(value)] if value not in (None, "", True, False) else []
