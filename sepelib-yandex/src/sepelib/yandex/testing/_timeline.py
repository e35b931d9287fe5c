"""A fake of timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._crud import CrudFake
from ._operations import (
    Delete,
    Insert,
    Item,
    Listing,
    Patch,
    Table,
    before,
    has_all,
    not_before,
    time_of,
)
from ._request import FakeRequest, Refusal

__all__ = ["FakeTimeline"]


@dataclass(frozen=True, kw_only=True)
class _Insert(Insert):
    def fields(self, request: FakeRequest, required: tuple[str, ...] = ()) -> Item:
        return _checked(super().fields(request, required))


@dataclass(frozen=True, kw_only=True)
class _Patch(Patch):
    def fields(self, request: FakeRequest, required: tuple[str, ...] = ()) -> Item:
        return _checked(super().fields(request, required))


def _checked(event: Item) -> Item:
    for name in ("start", "end"):
        if event.get(name) is not None:
            time_of(event[name])
    tags = event.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Refusal(400, "bad_field", "tags is no list of texts")
    return event


class FakeTimeline(CrudFake):
    """Events, each once by its external_id."""

    service = "timeline"
    tables = (Table("events", created="created_at", changed="updated_at"),)
    operations = (
        _Insert(
            "create",
            "/v1/events",
            "events",
            required=("title", "start"),
            defaults={"tags": []},
            unique="external_id",
            answer=("id",),
        ),
        _Patch("update", "/v1/events/{id}", "events"),
        Delete("delete", "/v1/events/{id}", "events"),
        Listing(
            "events",
            "/v1/events",
            "events",
            filters={
                "from": not_before("start"),
                "to": before("start"),
                "tags": has_all("tags"),
            },
        ),
    )

    def add_event(self, title: str, **fields: Any) -> str:
        """An event that starts now unless *fields* say otherwise; its id."""
        return self.add("events", {"title": title, "start": self.timestamp(), "tags": [], **fields})
