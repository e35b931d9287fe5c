"""A fake by table, for services that keep to the house convention.

    class FakeTimeline(CrudFake):
        service = "timeline"
        tables = (Table("events", created="created_at", changed="updated_at"),)
        operations = (
            Listing("events.list", "/v1/events", "events", filters={"type": equal("type")}),
            Insert("events.create", "/v1/events", "events", required=("title", "start"),
                   unique="external_id", answer=("id",)),
            Patch("events.update", "/v1/events/{id}", "events"),
            Delete("events.delete", "/v1/events/{id}", "events"),
        )

What a table does not say is a method with `@route`, as in every fake. The convention: JSON, the
lists as `{"items", "total"}`, versions as ETag, `Idempotency-Key`, 202 and a poll, errors as
`{"error", "message", "details"}`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ._operations import Item, Operation, Table
from ._request import FakeRequest, Refusal
from ._routes import Route
from ._service import FakeService

__all__ = ["CrudFake", "CrudState"]


@dataclass
class CrudState:
    """The items, each a JSON object, by table and key, and what else is known of them."""

    items: dict[str, dict[str, Item]] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    history: dict[tuple[str, str], list[Item]] = field(default_factory=dict)
    repeats: dict[tuple[str, str], tuple[Item, str, str]] = field(default_factory=dict)
    """By operation and mark: what came with the mark, and table and key of the item it made."""
    due: list[tuple[float, str, str, Item | None]] = field(default_factory=list)
    last: int = 0
    """The last number that was given as an id or a version."""


class CrudFake(FakeService[CrudState]):
    """A fake whose routes are a table; see the module."""

    tables: ClassVar[tuple[Table, ...]] = ()
    operations: ClassVar[tuple[Operation, ...]] = ()

    def new_state(self) -> CrudState:
        return CrudState(items={table.name: {} for table in self.tables})

    def extra_routes(self) -> list[Route]:
        return [operation.route() for operation in self.operations]

    # What a test says, and a route too.

    def add(self, table: str, item: Mapping[str, Any]) -> str:
        """Put *item* into its table, instead of the one with its key; the key.

        An item without a key gets a number, as text.
        """
        kind, new = self._table(table), copy.deepcopy(dict(item))
        if kind.key == ("id",) and new.get("id") is None:
            new["id"] = str(self._number())
        key = "/".join(str(new[name]) for name in kind.key)
        if kind.created is not None and kind.created not in new:
            before = self.state.items[table].get(key, {})
            new[kind.created] = before.get(kind.created, self.timestamp())
        self._keep(kind, key, new)
        return key

    def change(self, table: str, key: str, fields: Mapping[str, Any]) -> Item:
        """Set *fields* of an item. Refusal when it is not there, or *fields* would move it."""
        kind = self._table(table)
        item = {**self.need(table, key), **copy.deepcopy(dict(fields))}
        if "/".join(str(item[name]) for name in kind.key) != key:
            raise Refusal(400, "bad_field", f"{' and '.join(kind.key)} cannot change")
        self._keep(kind, key, item)
        return item

    def remove(self, table: str, key: str) -> None:
        """Forget an item, and that its making could be repeated. Its history stays."""
        del self.state.items[table][key]
        self.state.versions.pop((table, key), None)
        self.state.due = [entry for entry in self.state.due if entry[1:3] != (table, key)]
        self.state.repeats = {
            mark: made for mark, made in self.state.repeats.items() if made[1:] != (table, key)
        }

    def later(self, seconds: float, table: str, key: str, fields: Item | None) -> None:
        """`change()`, or `remove()` for None, after so many seconds of the fake's clock.

        Not when the item is removed before. It happens at the next request, or in `catch_up()`.
        """
        self.state.due.append((self.clock.now + seconds, table, key, fields))

    def get(self, table: str, key: str) -> Item | None:
        """The item itself, None when it is not there."""
        return self.state.items[table].get(key)

    def need(self, table: str, key: str) -> Item:
        """The item itself; Refusal, a 404, when it is not there."""
        item = self.get(table, key)
        if item is None:
            raise Refusal(404, "not_found", f"{table}: no {key}")
        return item

    def all(self, table: str) -> list[Item]:
        """The items of a table, in the order of their making."""
        return list(self.state.items[table].values())

    def timestamp(self) -> str:
        """The time of the service, RFC 3339, UTC."""
        return self.now.isoformat().replace("+00:00", "Z")

    # For the operations.

    def catch_up(self) -> None:
        now = self.clock.now
        self.state.due.sort(key=lambda entry: entry[0])
        while self.state.due and self.state.due[0][0] <= now:
            _, table, key, fields = self.state.due.pop(0)
            if fields is None:
                self.remove(table, key)
            else:
                self.change(table, key, fields)

    def repeated(self, op: str, mark: str, content: Item) -> str | None:
        """The key of the item that the first request with this *mark* made; None: this is it.

        Refusal, a 409, when the first one came with another *content*.
        """
        first = self.state.repeats.get((op, mark))
        if first is None:
            return None
        if first[0] != content:
            raise Refusal(409, "conflict", f"{mark} was used with another body")
        return first[2]

    def remember(self, op: str, mark: str, content: Item, key: str) -> None:
        """Know a repetition of the request that made the item *key*."""
        table = next(one.table for one in self.operations if one.op == op)
        self.state.repeats[op, mark] = (copy.deepcopy(content), table, key)

    def version_header(self, table: str, key: str) -> dict[str, str]:
        """The ETag, for a table with versions."""
        version = self.state.versions.get((table, key))
        return {} if version is None else {"ETag": f'"{version}"'}

    def check_version(self, table: str, request: FakeRequest, *, needed: bool = False) -> None:
        """Refusal, a 412, unless If-Match and If-None-Match hold; 428 for a *needed* one."""
        current = self.version_header(table, request.key).get("ETag")
        match, none_match = (request.headers.get(n) for n in ("If-Match", "If-None-Match"))
        if match is None and none_match is None:
            if needed:
                raise Refusal(428, "precondition_required", "If-Match is missing")
            return
        if match is not None and (current is None or match not in (current, "*")):
            raise Refusal(412, "stale_version", f"the version is {current}, not {match}")
        if none_match is not None and current is not None and none_match in (current, "*"):
            raise Refusal(412, "exists", f"the version is {current}")

    # Inside.

    def _table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise ValueError(f"{type(self).__name__} has no table {name!r}")

    def _keep(self, kind: Table, key: str, item: Item) -> None:
        if kind.changed is not None:
            item[kind.changed] = self.timestamp()
        self.state.items[kind.name][key] = item
        if kind.versions:
            self.state.versions[kind.name, key] = self._number()
        if kind.history:
            self.state.history.setdefault((kind.name, key), []).append(copy.deepcopy(item))

    def _number(self) -> int:
        self.state.last += 1
        return self.state.last
