"""Clients that are tables of operations: a signature, a path, and nothing to run.

    class ItsClient(OperationsClient):
        service = "its"

        @operation("GET", "/v1/values/{path:path}", of=Value.from_dict)
        def value(self, path: str) -> Value:
            '''The value in force at *path*; NotFound when that is the default.'''
            return declared

        @operation("GET", "/v1/handles", pages=LimitOffset(), of=Handle.from_dict)
        def handles(self, *, prefix: str | None = None) -> Pager[Handle]:
            '''The handles whose paths begin with *prefix*.'''
            return declared

An argument goes where its name is found: into the path, else into a header (`headers=`), else into
the query if the method has no body or *query* names it, else into the JSON body. None is left out,
but for a needed argument of the query or the body it is a ValueError.
`from_` is sent as `from`. A datetime is sent as RFC 3339 in UTC; it has to be aware. In a query a
list is one value with commas, `True` is `true`.
The name of the operation, for metrics, logs and `paths=`, is the method's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ClassVar, Concatenate, NamedTuple, Never, ParamSpec, TypeVar, cast
from uuid import uuid4

from sepelib.util.url import UrlTemplate

from ._arguments import jsonable
from .base import ApiClient
from .paging import Strategy

__all__ = ["Operation", "OperationsClient", "declared", "operation"]

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound="OperationsClient")

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

declared: Never = cast(Never, None)
"""What the body of an operation returns, which is never run: for the eyes of type checkers."""


class Operation(NamedTuple):
    """One line of the table. *idempotent* None: the method decides."""

    name: str
    method: str
    path: str
    doc: str
    idempotent: bool | None
    paged: bool


def operation(
    method: str,
    path: str,
    *,
    of: Callable[[Any], Any] | None = None,
    pages: Strategy | None = None,
    query: Iterable[str] = (),
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    key: str | None = None,
    idempotent: bool | None = None,
    expect: Iterable[int] = (200, 201, 202, 204),
) -> Callable[[Callable[Concatenate[C, P], T]], Callable[Concatenate[C, P], T]]:
    """Let the method be one request.

    *of*: makes the result of the decoded JSON, or with *pages* of each item. *query*: arguments of
    it even if the method has a body. *headers*: {argument: header}. *body*: the argument that is
    the whole body. *key*: the argument sent as Idempotency-Key; a uuid when it is None, so that
    the call may be repeated. *idempotent*, *expect*: as in `ApiClient.request`.
    """
    in_path = UrlTemplate(path).names
    in_query = frozenset(query)
    in_headers = dict(headers or {})
    if key is not None:
        in_headers[key] = "Idempotency-Key"
        idempotent = True

    def decorate(function: Callable[Concatenate[C, P], T]) -> Callable[Concatenate[C, P], T]:
        name = function.__name__
        signature = inspect.signature(function)
        lost = sorted((in_path | in_query | in_headers.keys()) - signature.parameters.keys())
        if body is not None and body not in signature.parameters:
            lost.append(body)
        if lost:
            raise TypeError(f"{name}() has no argument {lost[0]}")
        optional = {p.name for p in signature.parameters.values() if p.default is not p.empty}

        @wraps(function)
        def request(client: C, /, *args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(client, *args, **kwargs)
            bound.apply_defaults()
            at: dict[str, Any] = {}
            sent: dict[str, Any] = {"query": {}, "json": {}, "headers": {}}
            whole = None
            for argument, value in list(bound.arguments.items())[1:]:
                if argument in in_path:
                    at[argument] = value
                elif argument == body:
                    whole = jsonable(value)
                elif argument == key and value is None:
                    sent["headers"]["Idempotency-Key"] = str(uuid4())
                elif value is None and (argument in in_headers or argument in optional):
                    continue
                elif value is None:
                    raise ValueError(f"{name}() needs its {argument}: None would not be sent")
                elif argument in in_headers:
                    sent["headers"][in_headers[argument]] = str(value)
                elif argument in in_query or method not in _WITH_BODY:
                    sent["query"][argument.rstrip("_")] = _in_query(value)
                else:
                    sent["json"][argument.rstrip("_")] = jsonable(value)
            settings: dict[str, Any] = {
                "at": at,
                "params": sent["query"],
                "headers": sent["headers"],
                "idempotent": idempotent,
                "expect": expect,
            }
            if method in _WITH_BODY:
                settings["json"] = sent["json"] if body is None else whole
            result: Any
            if pages is not None:
                result = client.pager(pages, name, method, of=of or _same, **settings)
            else:
                data = client.request(name, method, **settings).data
                result = data if of is None else of(data)
            return result  # type: ignore[no-any-return]

        doc = (function.__doc__ or "").strip().partition("\n")[0]
        request._operation = Operation(  # type: ignore[attr-defined]
            name, method, path, doc, idempotent, pages is not None
        )
        return request

    return decorate


class OperationsClient(ApiClient):
    """A client whose methods are declared by `operation`."""

    OPERATIONS: ClassVar[Mapping[str, Operation]] = {}
    """The table, by names, those of base classes included."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        table = dict(cls.OPERATIONS)
        for name, member in vars(cls).items():
            entry = getattr(member, "_operation", None)
            if isinstance(entry, Operation):
                table[name] = entry
        cls.OPERATIONS = table
        cls.PATHS = {**cls.PATHS, **{name: entry.path for name, entry in table.items()}}


def _same(value: Any) -> Any:
    return value


def _in_query(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return ",".join(str(jsonable(item)) for item in items)
    return jsonable(value)
