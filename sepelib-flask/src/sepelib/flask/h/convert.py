"""Which types can be read from a request, and the plan by which one is read.

    str  int  float  bool  None  Decimal  datetime  date  UUID  Secret  Enum  Literal
    list[T]  set[T]  frozenset[T]  tuple[T, ...]  tuple[A, B]  dict[K, T]  Any
    dataclasses  A | B  Optional  Annotated with constraints  NewType

Several dataclasses in one union are told apart by a required field of one name, with a Literal of
its own in each. A plan is made of the type's hints once and kept as long as the process. A type
that is not among these is a TypeError, which names the class and the field, when it is made.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from functools import lru_cache
from typing import Annotated, Any, Literal, Union

from sepelib.flask.h._class_plan import ClassPlan, Field
from sepelib.flask.h._containers import ANY, Constrained, DictPlan, ListPlan, TuplePlan
from sepelib.flask.h._plan import Plan
from sepelib.flask.h._scalars import SCALARS, Choice, SecretText, Text, enum_plan
from sepelib.flask.h._union import UnionPlan
from sepelib.flask.h.constraints import Constraint, Length, Name
from sepelib.util.secrets import Secret

__all__ = ["outside_names", "plan_of"]

# Of classes only: `A | B` and `B | A` are equal, and are not read alike.
_plans: dict[type, Plan] = dict(SCALARS)


def plan_of(hint: Any) -> Plan:
    """The plan of the type *hint*. TypeError when it cannot be read from a request.

    NameError while a forward reference cannot be resolved yet.
    """
    if isinstance(hint, type) and hint in _plans:
        return _plans[hint]
    # Published when all of it is complete: two threads may make the same one, and no harm done.
    draft = _Draft()
    plan = _compile(hint, draft)
    for union in draft.unions:
        union.complete()
    _plans.update(draft.made)
    return plan


class _Draft:
    """What is made on the way to one plan."""

    def __init__(self) -> None:
        self.made: dict[type, Plan] = {}
        self.unions: list[UnionPlan] = []


@lru_cache(maxsize=1024)
def outside_names(cls: type) -> list[tuple[str, str]]:
    """The fields of a dataclass: each name in Python, and that in JSON."""
    try:
        hints = _hints(cls)
    except NameError:  # a type imported for the type checker only, which may be in a reply
        hints = {}
    return [
        (field.name, _outside(hints.get(field.name), field.name))
        for field in dataclasses.fields(cls)
    ]


def _outside(hint: Any, name: str) -> str:
    return next((mark.name for mark in _marks(hint) if isinstance(mark, Name)), name)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _marks(hint: Any) -> tuple[Any, ...]:
    return hint.__metadata__ if typing.get_origin(hint) is Annotated else ()


def _compile(hint: Any, draft: _Draft) -> Plan:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _constrained(_compile(args[0], draft), args[1:], hint)
    if isinstance(hint, typing.NewType):
        return _compile(hint.__supertype__, draft)
    if hint is Any or hint is object:
        return ANY
    if hint is None:
        return SCALARS[type(None)]
    if hint in SCALARS:
        return SCALARS[hint]
    if origin is Literal:
        return Choice([(_plain(choice), choice) for choice in args])
    if origin in (Union, types.UnionType):
        union = UnionPlan([_compile(member, draft) for member in args])
        draft.unions.append(union)
        return union
    if origin in (list, set, frozenset, tuple, dict):
        return _container(origin, args, hint, draft)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        draft.made[hint] = enum_plan(hint)
        return draft.made[hint]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _class(hint, draft)
    bare = hint in (list, dict, set, frozenset, tuple)
    advice = f"; say of what, as in {hint.__name__}[...]" if bare else ""
    raise TypeError(f"{_shown(hint)} cannot be read from a request{advice}")


def _plain(choice: Any) -> Any:
    return choice.value if isinstance(choice, enum.Enum) else choice


def _container(origin: Any, args: tuple[Any, ...], hint: Any, draft: _Draft) -> Plan:
    if origin is dict:
        key, item = (_compile(arg, draft) for arg in args)
        if key.accepts != {"a string"}:
            raise TypeError(f"{_shown(hint)}: the keys of a JSON object are strings")
        return DictPlan(key, item)
    if origin is tuple and args[1:] != (...,):
        return TuplePlan([_compile(arg, draft) for arg in args])
    item = _compile(args[0], draft)
    if origin in (set, frozenset) and not item.hashable:
        raise TypeError(f"{_shown(hint)}: {_shown(args[0])} does not fit into a set")
    return ListPlan(origin, item)


def _constrained(plan: Plan, marks: tuple[Any, ...], hint: Any) -> Plan:
    constraints = [mark for mark in marks if isinstance(mark, Constraint)]
    for constraint in constraints:
        kind = str if plan.kind is Secret else plan.kind
        if not constraint.fits(kind):
            raise TypeError(f"{_shown(hint)}: {constraint!r} means nothing for {plan.expected}")
    if not constraints:
        return plan
    if isinstance(plan, Text) and any(isinstance(each, Length) for each in constraints):
        plan = SecretText(None) if isinstance(plan, SecretText) else Text(None)
    return Constrained(plan, constraints)


def _class(cls: type, draft: _Draft) -> Plan:
    if cls in _plans:
        return _plans[cls]
    if cls in draft.made:
        return draft.made[cls]  # perhaps not complete yet: it is met inside of itself
    plan = draft.made[cls] = ClassPlan(cls)
    hints = _hints(cls)
    if odd := [name for name, hint in hints.items() if isinstance(hint, dataclasses.InitVar)]:
        raise TypeError(f"{cls.__qualname__}.{odd[0]}: an InitVar cannot be read from a request")
    fields: dict[str, Field] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        try:
            of_field = _compile(hints[field.name], draft)
        except TypeError as e:
            raise TypeError(f"{cls.__qualname__}.{field.name}: {e}") from None
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        key = _outside(hints[field.name], field.name)
        if key in fields:
            raise TypeError(f"{cls.__qualname__}: two fields are named {key!r}")
        fields[key] = Field(key, field.name, of_field, required)
    plan.complete(list(fields.values()))
    return plan


def _shown(hint: Any) -> str:
    return hint.__qualname__ if type(hint) is type else str(hint)
