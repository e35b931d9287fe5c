"""A fake of ITS."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from ._crud import CrudFake
from ._operations import Delete, History, Item, Listing, Read, Replace, Table, prefix
from ._request import FakeRequest, Refusal

__all__ = ["FakeIts"]

_LARGEST = 64 << 10  # bytes of a value, as JSON
_DEEPEST = 8


@dataclass(frozen=True, kw_only=True)
class _Set(Replace):
    """As Replace, with the size of the value held, and with its expiry."""

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        key, expires = request.key, self.fields(request).get("expires_at")
        seconds = None if expires is None else _seconds_until(expires, fake.now)
        reply = super().run(fake, request)
        fake.state.due = [entry for entry in fake.state.due if entry[1:3] != (self.table, key)]
        if seconds is not None:
            fake.later(seconds, self.table, key, None)
        return reply

    def fields(self, request: FakeRequest, required: tuple[str, ...] = ()) -> Item:
        fields = super().fields(request)
        if "value" not in fields:
            raise Refusal(400, "missing_field", "value is missing", details={"field": "value"})
        if len(json.dumps(fields["value"])) > _LARGEST:
            raise Refusal(413, "too_large", f"a value has at most {_LARGEST} bytes")
        return {**fields, "author": FakeIts.author}


def _seconds_until(text: object, now: dt.datetime) -> float:
    try:
        seconds = (dt.datetime.fromisoformat(str(text)) - now).total_seconds()
    except (TypeError, ValueError):
        raise Refusal(400, "bad_field", "expires_at is no RFC 3339 time") from None
    if seconds <= 0:
        raise Refusal(400, "bad_field", "expires_at is over")
    return seconds


class FakeIts(CrudFake):
    """Values with versions, guarded, which expire by `clock`."""

    service = "its"
    author = "somebody"
    """Who all callers are."""
    tables = (
        Table("values", key=("path",), versions=True, history=True, changed="updated_at"),
        Table("handles", key=("path",)),
    )
    operations = (
        Read("value", "/v1/values/{path:path}", "values"),
        _Set("replace", "/v1/values/{path:path}", "values"),
        Delete("reset", "/v1/values/{path:path}", "values", guarded=True),
        # Not "{path:path}/history": the routes above would win.
        *(
            History("history", f"/v1/values/{'/'.join(names)}/history", "values")
            for names in ([f"{{p{n}}}" for n in range(deep)] for deep in range(1, _DEEPEST + 1))
        ),
        Listing("handles", "/v1/handles", "handles", filters={"prefix": prefix("path")}),
    )

    def add_handle(
        self, path: str, type: str = "string", *, enum: Any = (), description: str = ""
    ) -> None:
        """A knob, whose default is in force."""
        handle = {"path": path, "type": type, "enum": list(enum), "description": description}
        self.add("handles", handle)

    def set_value(self, path: str, value: Any, *, author: str = "somebody") -> str:
        """Put *value* in force, whatever was; its version."""
        self.add("values", {"path": path, "value": value, "author": author})
        return self.version_header("values", path)["ETag"]

    def value(self, path: str) -> Any:
        """The value in force, None for the default."""
        self.catch_up()
        item = self.get("values", path)
        return None if item is None else item["value"]
