"""A fake of Staff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from sepelib.util.testing import Clock

from ._operations import number
from ._request import FakeRequest, Refusal
from ._routes import route
from ._service import FakeService
from ._staff_query import QueryError, at, parsed

__all__ = ["FakeStaff", "StaffState"]

Item = dict[str, Any]

_PARAMETERS = ("_fields", "_query", "_page", "_limit", "_sort")
_DEFAULT_LIMIT = 50

# The fields that may be asked for even while no item has them.
_PERSON: Item = {"id": 0, "login": "", "name": {"first": "", "last": ""}, "is_dismissed": False}
_GROUP: Item = {"id": 0, "slug": "", "name": "", "type": "", "parent": {"slug": ""}}
_SHAPES: dict[str, Item] = {
    "persons": _PERSON,
    "groups": _GROUP,
    "groupmembership": {"id": 0, "person": _PERSON, "group": _GROUP},
}


@dataclass
class StaffState:
    """Memberships have the ids of a person and of a group. One count of ids for all."""

    persons: dict[int, Item] = field(default_factory=dict)
    groups: dict[int, Item] = field(default_factory=dict)
    memberships: dict[int, tuple[int, int]] = field(default_factory=dict)
    last_id: int = 0


class FakeStaff(FakeService[StaffState]):
    """Persons, groups and who is in which.

    A group that lies in another one has it as its `parent`; its members are not the other's.
    *max_limit*: rows that a page has at most, whatever is asked for.
    """

    service = "staff"

    def __init__(
        self, *, max_limit: int = 1000, strict: bool = True, clock: Clock | None = None
    ) -> None:
        self.max_limit = max_limit
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> StaffState:
        return StaffState()

    # What a test says.

    def add_person(self, login: str, **fields: Any) -> Item:
        """Somebody new; *fields* beside, or instead of, id, name and is_dismissed."""
        person = {
            "id": self._id(),
            "login": login,
            "name": {"first": login.capitalize(), "last": ""},
            "is_dismissed": False,
            **fields,
        }
        self.state.persons[person["id"]] = person
        return person

    def add_group(self, slug: str, *logins: str, parent: str | None = None, **fields: Any) -> Item:
        """A group of persons, who are added if they are not known; *parent*: a group's slug."""
        group: Item = {"id": self._id(), "slug": slug, "name": slug, "type": "team", **fields}
        group["parent"] = None if parent is None else {"slug": parent}
        self.state.groups[group["id"]] = group
        for login in logins:
            self.add_member(slug, login)
        return group

    def add_member(self, slug: str, login: str) -> None:
        """Put a person, added if not known, into a group."""
        group = next(item for item in self.state.groups.values() if item["slug"] == slug)
        known = (item for item in self.state.persons.values() if item["login"] == login)
        person = next(known, None) or self.add_person(login)
        self.state.memberships[self._id()] = (person["id"], group["id"])

    def remove_member(self, slug: str, login: str) -> None:
        """Take a person out of a group."""
        for id in list(self.state.memberships):
            item = self._membership(id)
            if (item["group"]["slug"], item["person"]["login"]) == (slug, login):
                del self.state.memberships[id]

    # What a client asks.

    @route("GET", "/v3/persons", op="persons", query=None)
    @route("GET", "/v3/groups", op="groups", query=None)
    @route("GET", "/v3/groupmembership", op="memberships", query=None)
    def _list(self, request: FakeRequest) -> object:
        kind = request.path.rstrip("/").rpartition("/")[2]
        found = self._items(kind)
        for fits in self._conditions(kind, found, request):
            found = [item for item in found if fits(item)]
        for name in reversed(_names(request, "_sort")):
            falling, name = name.startswith("-"), name.removeprefix("-")
            found.sort(key=lambda item: _order(at(item, name)), reverse=falling)
        page = number(request, "_page", 1, least=1)
        limit = min(number(request, "_limit", _DEFAULT_LIMIT, least=1), self.max_limit)
        pages = max(1, -(-len(found) // limit))
        shown = found[(page - 1) * limit : page * limit]
        fields = _names(request, "_fields")
        return {
            "links": {"next": _link(request, page + 1)} if page < pages else {},
            "page": page,
            "pages": pages,
            "limit": limit,
            "total": len(found),
            "result": [_chosen(item, fields) for item in shown] if fields else shown,
        }

    @route("GET", "/v3/{kind}/{id}", op="item", query=("_fields",))
    def _item(self, request: FakeRequest) -> object:
        kind, id = request.args["kind"], request.args["id"]
        for item in self._items(kind) if kind in _SHAPES else ():
            if str(item["id"]) == id:
                fields = _names(request, "_fields")
                return _chosen(item, fields) if fields else item
        raise Refusal(404, "not_found", f"no {id} in {kind}")

    def _items(self, kind: str) -> list[Item]:
        if kind == "groupmembership":
            return [self._membership(id) for id in self.state.memberships]
        return list((self.state.persons if kind == "persons" else self.state.groups).values())

    def _membership(self, id: int) -> Item:
        person, group = self.state.memberships[id]
        return {"id": id, "person": self.state.persons[person], "group": self.state.groups[group]}

    def _conditions(
        self, kind: str, items: list[Item], request: FakeRequest
    ) -> list[Callable[[Item], bool]]:
        conditions = []
        for name, value in request.pairs:
            if name == "_query":
                try:
                    conditions.append(parsed(value))
                except QueryError as error:
                    raise Refusal(400, "bad_query", str(error)) from None
            elif name not in _PARAMETERS:
                if all(at(item, name) is None for item in (_SHAPES[kind], *items)):
                    raise Refusal(400, "unknown_parameter", f"{kind} have no {name}")
                conditions.append(_equal(name, value.split(",")))
        return conditions

    def _id(self) -> int:
        self.state.last_id += 1
        return self.state.last_id


def _equal(name: str, values: list[str]) -> Callable[[Item], bool]:
    return lambda item: _as_text(at(item, name)) in values


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _order(value: Any) -> tuple[int, Any]:
    """Nulls first, then numbers, then texts."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))


def _chosen(item: Item, names: list[str]) -> Item:
    """The part of *item* that the dotted names lead to."""
    chosen: Item = {}
    for name in names:
        *way, last = name.split(".")
        inner: Any = item
        place = chosen
        for part in way:
            inner = inner.get(part) if isinstance(inner, dict) else None
            if not isinstance(inner, dict):
                break
            place = place.setdefault(part, {})
        if isinstance(inner, dict) and last in inner:
            place[last] = inner[last]
    return chosen


def _names(request: FakeRequest, parameter: str) -> list[str]:
    return [name for name in request.query.get(parameter, "").split(",") if name]


def _link(request: FakeRequest, page: int) -> str:
    pairs = [pair for pair in request.pairs if pair[0] != "_page"]
    return f"{request.url}?{urlencode([*pairs, ('_page', page)])}"
