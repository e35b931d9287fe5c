"""Proposed contract: Staff, the directory of employees, and who is in which group.

    staff = StaffClient("https://staff.example", OAuthToken(TokenSource.env("STAFF_TOKEN")))
    staff.person("ann")
    for person in staff.persons(is_dismissed=False, fields=("login", "name.first")):
        ...
    staff.is_member("ann", "web-team")

The paths, the parameters `_fields`, `_query`, `_page`, `_limit`, `_sort` and the envelope of the
answers are known by name only; the names of fields are a proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sepelib.util.cache import TTLCache

from ._arguments import several
from ._cached import kept
from .auth import Auth
from .base import ApiClient
from .contract import Card
from .errors import ApiProtocolError, Where
from .paging import BodyLinks, Keyset, Pager, Strategy

if TYPE_CHECKING:
    from collections.abc import Set

__all__ = ["CARD", "StaffClient"]

CARD = Card(
    service="staff",
    purpose="the directory of employees and their groups",
    confidence="brief",
    sources=("BRIEF", "YCONN", "Y360"),
    auth="OAuth",
    endpoints=("GET /v3/persons", "GET /v3/groups", "GET /v3/groupmembership"),
    inferred=(
        "the names of all fields",
        "commas for OR, and a minus for a falling _sort",
        "a group's parent, for recursive look-ups",
        "_query: its grammar, used for dumps alone",
    ),
)

_KEPT = 10_000  # answers
_AT_ONCE = 50  # keys in one filter: a URL has an end

Filter = str | int | bool | Iterable[str | int]


class StaffClient(ApiClient):
    """Reads only. What `groups_of`, `members` and `is_member` find is kept for *cache_ttl* seconds.

    *page_size*: rows in one answer, if Staff lets us have that many.
    *stale_ttl*: for so many seconds more it is used when Staff fails; 0 is not at all. Such an
    answer takes at most `total_timeout`, of however many requests.

    Persons, groups and memberships are JSON objects with the fields that were asked for. Those that
    this class itself relies on are the constants.
    """

    service = "staff"
    PATHS = {
        "persons": "/v3/persons",
        "groups": "/v3/groups",
        "memberships": "/v3/groupmembership",
    }
    OPTIONS = {"page_size": int, "cache_ttl": (int, float), "stale_ttl": (int, float)}

    LOGIN = "login"
    """Of a person."""
    DISMISSED = "is_dismissed"
    """Of a person: whether they have left."""
    GROUP_KEY = "slug"
    """Of a group: what it is called by here."""
    PARENT = "parent"
    """Of a group: the group that it is in."""
    PERSON = "person"
    """Of a membership."""
    GROUP = "group"
    """Of a membership."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        page_size: int = 50,
        cache_ttl: float = 60.0,
        stale_ttl: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(url, auth, **kwargs)
        self._page_size = page_size
        self._cache = TTLCache[tuple[str, str], frozenset[str]](
            _KEPT,
            cache_ttl,
            stale_on_error=stale_ttl,
            load_timeout=self._total_timeout,
            clock=self._clock,
        )

    def persons(
        self,
        where: Mapping[str, Filter] | None = None,
        /,
        *,
        fields: Iterable[str] = (),
        query: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Filter,
    ) -> Pager[dict[str, Any]]:
        """The persons whose fields are as *where* and *filters* say; of several values one will do.

        `persons({"name.first": "Ann"}, login=["ann", "bob"])`: dots lead into a person.
        *fields*: what to answer, dotted too; naming them is always worth it. *query*: passed on as
        it is. *sort*: a field. *limit*: of all that is read.
        """
        asked = _parameters(fields, query, sort, {**(where or {}), **filters})
        return self._listed("persons", BodyLinks(self._page_size), asked, limit)

    def person(self, login: str, *, fields: Iterable[str] = ()) -> dict[str, Any] | None:
        """The person of that login, None when there is none."""
        return self._one("persons", self.LOGIN, login, fields)

    def groups(
        self,
        where: Mapping[str, Filter] | None = None,
        /,
        *,
        fields: Iterable[str] = (),
        query: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Filter,
    ) -> Pager[dict[str, Any]]:
        """As `persons`."""
        asked = _parameters(fields, query, sort, {**(where or {}), **filters})
        return self._listed("groups", BodyLinks(self._page_size), asked, limit)

    def group(self, key: str, *, fields: Iterable[str] = ()) -> dict[str, Any] | None:
        """The group of that key, None when there is none."""
        return self._one("groups", self.GROUP_KEY, key, fields)

    def memberships(
        self,
        where: Mapping[str, Filter] | None = None,
        /,
        *,
        fields: Iterable[str] = (),
        query: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Filter,
    ) -> Pager[dict[str, Any]]:
        """As `persons`, of the pairs of a person and a group that the person is in."""
        asked = _parameters(fields, query, sort, {**(where or {}), **filters})
        return self._listed("memberships", BodyLinks(self._page_size), asked, limit)

    def dump(
        self,
        what: str,
        where: Mapping[str, Filter] | None = None,
        /,
        *,
        fields: Iterable[str] = (),
        query: str | None = None,
        **filters: Filter,
    ) -> Pager[dict[str, Any]]:
        """All of *what*, "persons", "groups" or "memberships", by growing `id`.

        Each page is asked for behind the last id of the one before, by `_query`, so nothing is
        missed or doubled while rows come and go. The other arguments as for `persons`.
        """
        names = list(fields)
        if names and "id" not in names:
            names.append("id")

        def after(last: object) -> Mapping[str, Any]:
            if not isinstance(last, int):
                raise ApiProtocolError("an id is no number: no page can be asked for behind it")
            behind = f"id > {last}"
            return {"_query": behind if query is None else f"({query}) and {behind}"}

        asked = _parameters(names, query, "id", {**(where or {}), **filters})
        return self._listed(what, Keyset("id", after, self._page_size), asked, None)

    def groups_of(self, login: str) -> Set[str]:
        """The keys of the groups that the person is in, without those around these groups.

        Of somebody who has left, or is not known, none. ValueError for what cannot be a login: an
        empty text, or one with a comma. ApiProtocolError when Staff does not say who has left.
        """
        return self._kept("groups", login, lambda: self._groups_of(login))

    def members(self, group_key: str, recursive: bool = False) -> Set[str]:
        """The logins of who is in the group and has not left; *recursive*: or in one inside of it.

        Empty for a group that is not known. Raises as `groups_of` does.
        """
        if recursive:
            return self._kept(
                "all members", group_key, lambda: self._members(self._with_inner(group_key))
            )
        return self._kept("members", group_key, lambda: self._members([_single(group_key)]))

    def is_member(self, login: str, group: str, *, recursive: bool = False) -> bool:
        """Whether the person is in the group, or, *recursive*, in one inside of it."""
        if recursive:
            return login in self.members(group, recursive=True)
        return group in self.groups_of(login)

    def forget(self) -> None:
        """Ask Staff again for whatever is wanted next."""
        self._cache.clear()

    def _listed(
        self, op: str, strategy: Strategy, params: Mapping[str, Any], limit: int | None
    ) -> Pager[dict[str, Any]]:
        return self.pager(strategy, op, of=_row, limit=limit, params=params)

    def _one(self, op: str, name: str, value: str, fields: Iterable[str]) -> dict[str, Any] | None:
        names = list(fields)
        if names and name not in names:
            names.append(name)
        asked = _parameters(names, None, None, {name: _single(value)})
        for row in self._listed(op, BodyLinks(2), asked, None).first_page():
            # A service that does not know the filter would answer with anybody.
            if _at(row, name) == value:
                return row
        return None

    def _kept(self, what: str, of: str, load: Callable[[], frozenset[str]]) -> frozenset[str]:
        return kept(self._cache, (what, of), load, Where(self.service, what))

    def _groups_of(self, login: str) -> frozenset[str]:
        found = self._memberships(f"{self.PERSON}.{self.LOGIN}", [_single(login)])
        return frozenset(group for _, group in found)

    def _members(self, groups: list[str]) -> frozenset[str]:
        members: set[str] = set()
        for some in _batches(groups):
            found = self._memberships(f"{self.GROUP}.{self.GROUP_KEY}", some)
            members |= {person for person, _ in found}
        return frozenset(members)

    def _memberships(self, name: str, values: list[str]) -> Iterator[tuple[str, str]]:
        """Login and group of those whose field *name* is one of *values*, who have not left."""
        login, dismissed = f"{self.PERSON}.{self.LOGIN}", f"{self.PERSON}.{self.DISMISSED}"
        group = f"{self.GROUP}.{self.GROUP_KEY}"
        asked = _parameters((login, dismissed, group), None, "id", {name: values})
        for row in self._listed("memberships", BodyLinks(self._page_size), asked, None):
            found = _at(row, login), _at(row, group)
            # A service that does not know the filter would answer with everybody.
            if _at(row, name) not in values or not all(isinstance(name, str) for name in found):
                continue
            has_left = _at(row, dismissed)
            if not isinstance(has_left, bool):
                where = Where(self.service, "memberships")
                raise ApiProtocolError(f"a membership does not say {dismissed}", where=where)
            if not has_left:
                yield found

    def _with_inner(self, key: str) -> list[str]:
        """The group and all that are inside of it, each once even if they lie in a circle."""
        known = {_single(key): None}
        outer = [key]
        around = f"{self.PARENT}.{self.GROUP_KEY}"
        while outer:
            inner = []
            for some in _batches(outer):
                asked = _parameters((self.GROUP_KEY, around), None, "id", {around: some})
                for row in self._listed("groups", BodyLinks(self._page_size), asked, None):
                    found = _at(row, self.GROUP_KEY)
                    if isinstance(found, str) and _at(row, around) in some and found not in known:
                        if not found or "," in found:
                            where = Where(self.service, "groups")
                            raise ApiProtocolError(f"nobody can ask for {found!r}", where=where)
                        known[found] = None
                        inner.append(found)
            outer = inner
        return list(known)


if TYPE_CHECKING:

    class _GroupSource(Protocol):
        """Where an access list looks groups up."""

        def groups_of(self, login: str) -> Set[str]: ...

    def _is_group_source(client: StaffClient) -> _GroupSource:
        return client


def _parameters(
    fields: Iterable[str], query: str | None, sort: str | None, filters: Mapping[str, Filter]
) -> dict[str, Any]:
    return {
        **{name: _value(value) for name, value in filters.items()},
        "_fields": ",".join(several(fields, "fields")) or None,
        "_query": query,
        "_sort": sort,
    }


def _value(value: Filter) -> str | int | bool:
    if not isinstance(value, str | int | bool):
        value = ",".join(_single(_text(one)) for one in value)
    if value == "":
        raise ValueError("a filter without a value would let everything pass")
    return value


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _single(value: str) -> str:
    """*value*, for a filter by one value: a comma in it would make it two, nothing at all none."""
    if not value or "," in value:
        raise ValueError(f"{value!r} is no single value for a filter: it is empty or has a comma")
    return value


def _batches(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])


def _row(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else {"value": item}


def _at(row: Any, name: str) -> Any:
    for part in name.split("."):
        row = row.get(part) if isinstance(row, Mapping) else None
    return row
