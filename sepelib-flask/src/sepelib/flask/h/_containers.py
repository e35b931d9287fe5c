"""Values with parts: lists, tuples, sets, dicts, any JSON at all; and values that are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from sepelib.flask.h._json_text import NotFinite, Repeated
from sepelib.flask.h._plan import Plan
from sepelib.flask.h._problems import BAD, LIST, OBJECT, At, Problems, kind_of
from sepelib.flask.h._scalars import SCALARS
from sepelib.flask.h.constraints import Constraint, Length
from sepelib.util.secrets import Secret

__all__ = ["ANY", "Constrained", "Container", "DictPlan", "ListPlan", "TuplePlan"]


class Container(Plan):
    """What `read` does before and after it looks at the parts."""

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        if kind_of(value) not in self.accepts:
            # Its kind is all that is shown: what stands in place of an object may be a secret.
            return problems.mismatch(at, self.expected, value, hidden=True)
        if not problems.enter(at):
            return BAD
        before = len(problems.found)
        if isinstance(value, Repeated):
            problems.add((at, value.key), "stands twice")
        made = self._read_parts(value, at, problems)
        problems.leave()
        return made if len(problems.found) == before else BAD

    def _read_parts(self, value: Any, at: At, problems: Problems) -> Any:
        raise NotImplementedError


class ListPlan(Container):
    """A list, set or frozenset of values of one type."""

    accepts = frozenset([LIST])
    several = True

    def __init__(self, kind: Callable[[Iterable[Any]], Any], item: Plan) -> None:
        self.expected = LIST
        self.kind = kind
        self.textual = item.textual and not item.several
        self.hashable = kind is frozenset
        self._make = kind
        self._item = item

    def _read_parts(self, value: Any, at: At, problems: Problems) -> Any:
        read = self._item.read
        return self._make([read(item, (at, index), problems) for index, item in enumerate(value)])

    def parse_all(self, texts: list[str], at: At, problems: Problems) -> Any:
        parse = self._item.parse
        if len(texts) == 1:
            made = [parse(texts[0], at, problems)]
        else:
            made = [parse(text, (at, index), problems) for index, text in enumerate(texts)]
        return BAD if any(each is BAD for each in made) else self._make(made)


class TuplePlan(Container):
    """A list with one type for each place."""

    accepts = frozenset([LIST])
    kind = tuple

    def __init__(self, items: list[Plan]) -> None:
        self.expected = f"a list of {len(items)}"
        self.hashable = all(item.hashable for item in items)
        self._items = items

    def _read_parts(self, value: Any, at: At, problems: Problems) -> Any:
        if len(value) != len(self._items):
            return problems.add(at, f"must be {self.expected}, not of {len(value)}")
        return tuple(
            plan.read(item, (at, index), problems)
            for index, (plan, item) in enumerate(zip(self._items, value, strict=True))
        )


class DictPlan(Container):
    """An object whose keys are data."""

    accepts = frozenset([OBJECT])
    kind = dict

    def __init__(self, key: Plan, item: Plan) -> None:
        self.expected = OBJECT
        self._key = key
        self._item = item

    def _read_parts(self, value: Any, at: At, problems: Problems) -> Any:
        made = {}
        for key, item in value.items():
            place = (at, key)
            name = self._key.read(key, place, problems)
            if name in made and name is not BAD:
                problems.add(place, "means the same as another key")
            made[name] = self._item.read(item, place, problems)
        return made


class Constrained(Plan):
    """Values of a type which also pass some checks."""

    def __init__(self, plan: Plan, constraints: list[Constraint]) -> None:
        self.expected = " ".join([plan.expected, *(each.words() for each in constraints)])
        self.kind = plan.kind
        self.accepts = plan.accepts
        self.textual = plan.textual
        self.several = plan.several
        self.hidden = plan.hidden
        self.hashable = plan.hashable
        self._constraints = constraints
        self._plan = copy(plan)
        self._plan.expected = self.expected  # whatever is wrong, all that is wanted is told

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        return self._checked(self._plan.read(value, at, problems), value, at, problems)

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        return self._checked(self._plan.parse(text, at, problems), text, at, problems)

    def parse_all(self, texts: list[str], at: At, problems: Problems) -> Any:
        if not self.several:
            return super().parse_all(texts, at, problems)
        return self._checked(self._plan.parse_all(texts, at, problems), texts, at, problems)

    def _checked(self, made: Any, given: Any, at: At, problems: Problems) -> Any:
        if made is BAD:
            return BAD
        plain = made.reveal() if self.kind is Secret else made
        for constraint in self._constraints:
            if constraint.holds(plain):
                continue
            if isinstance(constraint, Length):
                length = len(plain)
                return problems.add(at, f"must be {self.expected}, not of length {length}")
            return problems.mismatch(at, self.expected, given, hidden=self.hidden)
        return made


class _AnyPlan(Plan):
    """Any JSON, as the standard library has it; still no key twice, no NaN, not too deep."""

    expected = "any JSON"
    accepts = frozenset([LIST, OBJECT, "null", "a boolean", "a number", "a string"])

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        if isinstance(value, NotFinite):
            return problems.mismatch(at, "a finite number", value)
        if isinstance(value, list):
            return _LISTS.read(value, at, problems)
        if isinstance(value, dict):
            return _OBJECTS.read(value, at, problems)
        return SCALARS[str].read(value, at, problems) if type(value) is str else value


ANY = _AnyPlan()
_LISTS = ListPlan(list, ANY)
_OBJECTS = DictPlan(SCALARS[str], ANY)
