"""Many requests under way at once, each answered however often the connection goes meanwhile.

For what looks at whole trees. A connection that stays away longer than the client's
`request_timeout` ends it: ZookeeperTimeout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.exceptions import NoAuthError, NoNodeError

from sepelib.zookeeper._call import Call

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["REFUSED", "Visit", "answers", "contact", "join", "walk"]

_WINDOW = 64
"""Requests under way: one round trip is shared by so many."""

REFUSED = (NoNodeError, NoAuthError)
"""What of one node says nothing of the others: a value here, not raised."""


class Visit(NamedTuple):
    """One node of a walk; *level* 0 is where it began."""

    path: str
    level: int
    children: list[str]
    stat: Any
    """None when it was refused."""
    refused: Exception | None


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def walk(
    client: Client,
    roots: Iterable[str],
    depth: int,
    enter: Callable[[Visit], Iterable[str]] = lambda visit: visit.children,
) -> Iterator[Visit]:
    """The nodes at and below *roots*, down to the level *depth*; 1 request each.

    Directories come before what is in them. *enter* chooses the children to visit. What is kept is
    the names of the directories that are being visited, not the tree.
    """
    # Deep before wide, or all names of a level would be kept.
    todo = [("", 0, iter(roots))]
    asked: deque[tuple[str, int, Any]] = deque()
    while todo or asked:
        while todo and len(asked) < _WINDOW:
            directory, level, names = todo[-1]
            name = next(names, None)
            if name is None:
                todo.pop()
                continue
            path = name if level == 0 else join(directory, name)
            asked.append((path, level, _list(client, path)))
        if not asked:
            return
        path, level, answer = asked.popleft()
        found = _patiently(client, path, partial(_list, client, path), answer)
        if isinstance(found, REFUSED):
            yield Visit(path, level, [], None, found)
            continue
        children, stat = found
        visit = Visit(path, level, children, stat, None)
        yield visit
        if level < depth:
            todo.append((path, level + 1, iter(enter(visit))))


def answers(
    client: Client,
    paths: Iterable[str],
    ask: Callable[[str], Any],
    *,
    call: Call | None = None,
) -> Iterator[tuple[str, Any]]:
    """(path, what *ask*(path) results in) for each of *paths*, in order; also one of REFUSED.

    All within the patience of *call*, or each within its own.
    """
    todo = iter(paths)
    asked: deque[tuple[str, Any]] = deque()
    while True:
        while len(asked) < _WINDOW and (path := next(todo, None)) is not None:
            asked.append((path, ask(path)))
        if not asked:
            return
        path, answer = asked.popleft()
        yield path, _patiently(client, path, partial(ask, path), answer, call)


def contact(client: Client, path: str) -> None:
    """Wait for the connection."""
    with Call.for_answer(client, path, "nodes") as call:
        call.contact()


def _list(client: Client, path: str) -> Any:
    return client.get_children_async(path, include_data=True)


def _patiently(
    client: Client, path: str, ask: Callable[[], Any], answer: Any, call: Call | None = None
) -> Any:
    """The value of *answer*, or of what *ask* gives after it, or one of REFUSED."""

    def first_asked() -> Any:
        nonlocal answer
        latest, answer = answer, None
        return ask() if latest is None else latest

    with Call.for_answer(client, path, "nodes") if call is None else nullcontext(call) as patient:
        try:
            return patient.read(first_asked)
        except REFUSED as refusal:
            return refusal
