"""The arguments of the query, typed, bounded, and none unnoticed.

    @dataclass(frozen=True)
    class Search:
        q: Annotated[str, Length(1, 100)]
        limit: Annotated[int, Range(1, 100)] = 20
        state: Literal["new", "done"] | None = None
        tag: list[str] = field(default_factory=list)        # ?tag=a&tag=b

    search = h.args.parse(Search)                           # before anything is done

`parse` describes the whole query, so it refuses a name that it does not know: `?limt=5` is an
error with a hint, not a search without a limit. The others read one argument each; beside them
`only("q", "limit")` does the same.

Refused with 400, all mistakes of a query at once: unknown names, a second value where one belongs,
a missing value, what is not of the type. Numbers are plain ASCII (no `1_000`, no ` 1`, no `nan`),
booleans `true`, `false`, `1` or `0`, times have an offset, text is UTF-8. `?x=` and `?x` are the
empty value: a str takes it, other types refuse it. A value has at most 4096 characters, unless a
Length says otherwise. Types: see `convert`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime as _datetime
from typing import Annotated, Any, Final, Literal, TypeVar, overload

from sepelib.flask.h._class_plan import ClassPlan
from sepelib.flask.h._errors import InvalidArguments
from sepelib.flask.h._plan import Plan
from sepelib.flask.h._problems import BAD, ROOT, At, Problems, did_you_mean
from sepelib.flask.h._request import query, refusing
from sepelib.flask.h.constraints import Length, Range
from sepelib.flask.h.convert import plan_of

__all__ = ["REQUIRED", "datetime", "flag", "get", "only", "parse"]


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""The default of an argument that must be there."""

T = TypeVar("T")
D = TypeVar("D")


def parse(kind: type[T], *, strict: bool = True, also: Iterable[str] = ()) -> T:
    """The whole query as an object of the dataclass *kind*.

    Fields are scalars, Optional or not, and lists, sets or tuples of one type of scalar, to which
    all values of the name go. A field with a default may be missing; a ValueError of
    `__post_init__` is told to the client. *also* names arguments that are read elsewhere, such as
    `h.PAGE_ARGUMENTS`; with `strict=False` all others are let through unseen.

    Raises InvalidArguments; TypeError for a class that a query cannot hold.
    """
    plan = arguments_plan(kind)
    allowed = set(also)
    with refusing(InvalidArguments) as problems:
        values = {}
        for name, texts in query().items():
            field = plan.fields.get(name)
            if field is not None:
                values[field.name] = field.plan.parse_all(texts, (ROOT, name), problems)
            elif strict and name not in allowed:
                _refuse_unknown(name, {*plan.fields, *allowed}, problems)
        made: T = plan.make(values, query(), ROOT, problems)
    return made


def arguments_plan(kind: Any) -> ClassPlan:
    """The plan of a dataclass made of a query. TypeError for anything else. Not public."""
    plan = plan_of(kind)
    if not isinstance(plan, ClassPlan):
        raise TypeError(f"the arguments of a query are a dataclass, not {kind!r}")
    for field in plan.fields.values():
        if not field.plan.textual:
            raise TypeError(
                f"{plan.kind.__qualname__}.{field.name}: {field.plan.expected} does not fit into "
                "a query"
            )
    return plan


@overload
def get(
    name: str,
    *,
    choices: Collection[str] | None = None,
    min: int | None = None,
    max: int | None = None,
) -> str: ...
@overload
def get(
    name: str,
    type: type[T],
    *,
    choices: Collection[T] | None = None,
    min: Any = None,
    max: Any = None,
    many: Literal[False] = False,
) -> T: ...
@overload
def get(
    name: str,
    type: type[T],
    default: D,
    *,
    choices: Collection[T] | None = None,
    min: Any = None,
    max: Any = None,
    many: Literal[False] = False,
) -> T | D: ...
@overload
def get(
    name: str,
    *,
    default: D,
    choices: Collection[str] | None = None,
    min: int | None = None,
    max: int | None = None,
) -> str | D: ...
@overload
def get(
    name: str,
    *,
    choices: Collection[str] | None = None,
    min: int | None = None,
    max: int | None = None,
    many: Literal[True],
) -> list[str]: ...
@overload
def get(
    name: str,
    type: type[T],
    *,
    choices: Collection[T] | None = None,
    min: Any = None,
    max: Any = None,
    many: Literal[True],
) -> list[T]: ...
@overload
def get(
    name: str,
    type: type[T],
    default: D,
    *,
    choices: Collection[T] | None = None,
    min: Any = None,
    max: Any = None,
    many: Literal[True],
) -> list[T] | D: ...
def get(
    name: str,
    type: Any = str,
    default: Any = REQUIRED,
    *,
    choices: Collection[Any] | None = None,
    min: Any = None,
    max: Any = None,
    many: bool = False,
) -> Any:
    """The argument *name* as a *type*: a scalar, or Annotated.

    *min* and *max*, both included, bound the value, or the length of a str; *choices* are the
    values that are taken. With *many* it is the list of all its values, each of which has to fit.
    Without a *default* it has to be there. Says nothing of other arguments: see `only`.
    """
    if min is not None or max is not None:
        type = Annotated[type, Length(min or 0, max) if type is str else Range(min, max)]
    plan = plan_of(list[type] if many else type)
    if not plan.textual:
        raise TypeError(f"{plan.expected} does not fit into a query")
    texts = query().get(name)
    if texts is None and default is not REQUIRED:
        return default
    with refusing(InvalidArguments) as problems:
        made = _chosen(plan, texts or [], (ROOT, name), choices, problems)
    return made


def _chosen(
    plan: Plan, texts: list[str], at: At, choices: Collection[Any] | None, problems: Problems
) -> Any:
    if not texts:
        return problems.add(at, "missing")
    made = plan.parse_all(texts, at, problems)
    if choices is not None and made is not BAD:
        for value in made if isinstance(made, list) else [made]:
            if value not in choices:
                problems.add(at, f"must be {' or '.join(map(str, choices))}")
    return made


def flag(name: str) -> bool:
    """Whether ?*name* is there, empty or as `1` or `true`; false without it, or as `0`, `false`."""
    texts = query().get(name)
    if texts is None:
        return False
    return True if texts == [""] else get(name, bool)


@overload
def datetime(name: str) -> _datetime: ...
@overload
def datetime(name: str, default: D) -> _datetime | D: ...
def datetime(name: str, default: Any = REQUIRED) -> Any:
    """A moment in UTC, of text such as `2026-11-23T07:15:00+03:00`; refused without an offset.

    The `+` has to be written `%2B` by the client: in a query it means a space.
    """
    return get(name, _datetime, default)


def only(*names: str) -> None:
    """Refuse the request when it has an argument that is not among *names*.

    Call it before anything is done: a misspelt argument must not go unnoticed.
    """
    with refusing(InvalidArguments) as problems:
        for name in query():
            if name not in names:
                _refuse_unknown(name, names, problems)


def _refuse_unknown(name: str, known: Iterable[str], problems: Problems) -> None:
    problems.add((ROOT, name), f"unknown argument{did_you_mean(name, known)}")
