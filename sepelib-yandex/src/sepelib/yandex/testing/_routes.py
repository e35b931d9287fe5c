"""Which method of a fake answers which request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from ._request import FakeRequest

__all__ = ["Body", "Route", "Router", "route"]

Body = Literal["json", "form", "multipart"]

_Handler = TypeVar("_Handler", bound=Callable[..., Any])

_FIELD = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}")


class Route(NamedTuple):
    """One operation; see `route` for what the fields mean."""

    method: str
    path: str
    op: str
    query: tuple[str, ...] | None
    body: Body | None
    auth: bool
    when: Mapping[str, str]
    handler: Callable[..., Any]
    """Called with the fake and the request."""


def route(
    method: str,
    path: str,
    *,
    op: str,
    query: tuple[str, ...] | None = (),
    body: Body | None = None,
    auth: bool = True,
    when: Mapping[str, str] | None = None,
) -> Callable[[_Handler], _Handler]:
    """Let a method of a FakeService answer *method* and *path*. May be written several times.

    *path* is below the fake's `prefix`; `{name}` in it is one segment, `{name:path}` several; a
    slash at the end makes no difference. Literal segments win over fields.
    *op*: the name of the operation, as in the client: faults and calls go by it.
    *query*: the parameters it knows, also as patterns ("DynamicField_*"); None: any.
    *body*: what it takes, held to the Content-Type; None: nobody looks at the body.
    *auth*: whether the fake's `authorize()` is asked.
    *when*: parameters of the query or the form, and the value that each must have.
    """

    def decorate(handler: _Handler) -> _Handler:
        routes = handler.__dict__.setdefault("_routes", [])
        routes.append(Route(method.upper(), path, op, query, body, auth, dict(when or {}), handler))
        return handler

    return decorate


class Router:
    """The routes of one fake, the most exact first."""

    def __init__(self, routes: list[Route], prefix: str) -> None:
        self._routes = sorted(
            ((_compiled(prefix + route.path), route) for route in routes),
            key=lambda entry: (_exactness(entry[1].path), not entry[1].when),
        )

    @property
    def ops(self) -> list[str]:
        """The names of all operations."""
        return sorted({route.op for _, route in self._routes})

    def find(self, request: FakeRequest) -> Route | None:
        """The route of *request*, whose `op` and `args` are set by it."""
        path = request.path.rstrip("/") or "/"
        said: dict[str, str] | None = None
        for pattern, found in self._routes:
            if found.method != request.method:
                continue
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if found.when:
                if said is None:
                    said = {**request.form, **request.query}
                if any(said.get(name) != value for name, value in found.when.items()):
                    continue
            request.op = found.op
            request.args = {name: unquote(value) for name, value in match.groupdict().items()}
            return found
        return None


def unknown_parameters(found: Route, request: FakeRequest) -> list[str]:
    """The parameters of the query that the route does not know."""
    if found.query is None:
        return []
    known = (*found.query, *found.when)
    return [
        name
        for name, _ in request.pairs
        if not any(fnmatchcase(name, pattern) for pattern in known)
    ]


def _compiled(path: str) -> re.Pattern[str]:
    path = path.rstrip("/") or "/"
    pattern, done = "", 0
    for field in _FIELD.finditer(path):
        pattern += re.escape(path[done : field.start()])
        pattern += f"(?P<{field[1]}>{'.+' if field[2] else '[^/]+'})"
        done = field.end()
    return re.compile(pattern + re.escape(path[done:]))


def _exactness(path: str) -> list[int]:
    kinds = []
    for segment in path.strip("/").split("/"):
        field = _FIELD.search(segment)
        kinds.append(0 if field is None else 2 if field[2] else 1)
    return [*kinds, 3]  # so that a longer one comes before its own beginning
