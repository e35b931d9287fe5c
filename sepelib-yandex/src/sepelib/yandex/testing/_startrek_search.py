"""How the fake tracker searches: the filter's language, order, and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from ._request import FakeRequest
from ._startrek_state import Issue, refused

__all__ = ["by_order", "links", "matches", "number", "paged"]


def matches(issue: Issue, asked: dict[str, list[Any]]) -> bool:
    """Whether *issue* has what the filter asks: all its fields, each with one of its values."""
    return all(
        any(_has(issue.get(name), value) for value in values) for name, values in asked.items()
    )


def _has(found: Any, value: Any) -> bool:
    if value == "Empty()":
        return found is None or found == []
    if isinstance(found, list):
        return any(_has(one, value) for one in found)
    if isinstance(found, dict):
        return str(value) in {found.get("id"), found.get("key"), found.get("display")}
    return found is not None and str(found) == str(value)


def by_order(issues: list[Issue], order: Sequence[str]) -> list[Issue]:
    """Sorted by fields such as "+status"; issues without a value come last."""
    for name in reversed(order):
        backwards, name = name.startswith("-"), name.lstrip("+-")
        some = [issue for issue in issues if issue.get(name) not in (None, [])]
        none = [issue for issue in issues if issue.get(name) in (None, [])]
        issues = sorted(some, key=lambda issue: _rank(issue[name]), reverse=backwards) + none
    return issues


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, dict):
        value = value.get("key") or value.get("display")
    return (0, value) if isinstance(value, int) else (1, str(value))


def number(request: FakeRequest, name: str, default: int, *, most: int | None = None) -> int:
    """A parameter that is a number from 1."""
    said = request.query.get(name, str(default))
    if not (said.isascii() and said.isdigit() and int(said) >= 1):
        raise refused(400, **{name: "not a number from 1"})
    if most is not None and int(said) > most:
        raise refused(400, **{name: f"more than {most}"})
    return int(said)


def paged(
    request: FakeRequest, rows: list[Any], *, cap: int | None = None
) -> tuple[list[Any], list[tuple[str, str]]]:
    """The page that is asked for, and its headers. *cap*: rows behind it are not there."""
    rows = rows if cap is None else rows[:cap]
    page, size = number(request, "page", 1), number(request, "perPage", 50)
    pages = -(-len(rows) // size)
    related = {"first": {"page": 1}, "seek": {}, "next": {"page": page + 1}}
    if page >= pages:
        del related["next"]
    headers = links(request, related, {"perPage": size})
    headers += [("X-Total-Count", str(len(rows))), ("X-Total-Pages", str(pages))]
    return rows[(page - 1) * size : page * size], headers


def links(
    request: FakeRequest, related: dict[str, dict[str, Any]], also: dict[str, Any]
) -> list[tuple[str, str]]:
    """A Link header for each; "seek" is a template with the page to choose."""
    kept = {k: v for k, v in request.pairs if k not in ("page", "perPage", "scrollType", "id")}
    found = []
    for name, params in related.items():
        query = urlencode({**kept, **also, **params})
        template = "{&page}" if name == "seek" else ""
        found.append(("Link", f'<{request.url}?{query}{template}>; rel="{name}"'))
    return found
