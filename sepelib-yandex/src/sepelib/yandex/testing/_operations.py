"""The operations that a table of a `CrudFake` is made of."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ._request import FakeRequest, Refusal, Reply
from ._routes import Body, Route

if TYPE_CHECKING:
    from ._crud import CrudFake

__all__ = [
    "Command",
    "Create",
    "Delete",
    "Filter",
    "History",
    "Insert",
    "Item",
    "Listing",
    "Move",
    "Operation",
    "Patch",
    "Read",
    "Replace",
    "Table",
    "before",
    "equal",
    "has_all",
    "not_before",
    "number",
    "page",
    "prefix",
    "time_of",
]

Item: TypeAlias = dict[str, Any]
Filter: TypeAlias = Callable[[Item, str], bool]

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000


# Filters of a list: each says whether an item fits the value of a parameter.


def equal(name: str) -> Filter:
    """The field is this."""
    return lambda item, value: str(item.get(name)) == value


def prefix(name: str) -> Filter:
    """The field begins with this."""
    return lambda item, value: str(item.get(name, "")).startswith(value)


def has_all(name: str) -> Filter:
    """The field is a list with all of these, which commas part."""
    return lambda item, value: all(one in (item.get(name) or ()) for one in value.split(","))


def not_before(name: str) -> Filter:
    """The field is this time, RFC 3339, or later."""
    return lambda item, value: time_of(item.get(name)) >= time_of(value)


def before(name: str) -> Filter:
    """The field is a time before this one, RFC 3339."""
    return lambda item, value: time_of(item.get(name)) < time_of(value)


def time_of(text: object) -> dt.datetime:
    """A time, RFC 3339; Refusal for what is none."""
    try:
        time = dt.datetime.fromisoformat(str(text))
    except ValueError:
        raise Refusal(400, "bad_parameter", f"{text!r} is no RFC 3339 time") from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Table:
    """A kind of items. *key*: the field, or fields, that name one; numbered when it is missing.

    *versions*: each item has an ETag. *history*: what it was is kept. *created*, *changed*: the
    fields that take the time of the service, RFC 3339.
    """

    name: str
    key: tuple[str, ...] = ("id",)
    versions: bool = False
    history: bool = False
    created: str | None = None
    changed: str | None = None


@dataclass(frozen=True)
class Operation:
    """*op* at *path*, on items of *table*.

    The fields of the path, joined by "/", are the key of the item. *answer*: the fields of the
    item that are shown, None: all.
    """

    method: ClassVar[str]
    body: ClassVar[Body | None] = None

    op: str
    path: str
    table: str
    answer: tuple[str, ...] | None = field(default=None, kw_only=True)

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        """What is answered."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to run()")

    @property
    def query(self) -> tuple[str, ...]:
        """The parameters that it knows."""
        return ()

    def route(self) -> Route:
        """The operation as a route of the fake."""
        return Route(
            self.method,
            self.path,
            self.op,
            query=self.query,
            body=self.body,
            auth=True,
            when={},
            handler=self.run,
        )

    def show(self, item: Item) -> Item:
        """The part of *item* that is answered."""
        return item if self.answer is None else {name: item.get(name) for name in self.answer}

    def reply(self, fake: CrudFake, key: str, status: int = 200) -> Reply:
        """The item with its version."""
        headers = fake.version_header(self.table, key)
        return Reply(status, json=self.show(fake.need(self.table, key)), headers=headers)

    def fields(self, request: FakeRequest, required: tuple[str, ...] = ()) -> Item:
        """The body, which is an object with the *required* fields."""
        fields = request.json
        if not isinstance(fields, dict):
            raise Refusal(400, "bad_body", "the body is no JSON object")
        for name in required:
            if fields.get(name) in (None, ""):
                raise Refusal(400, "missing_field", f"{name} is missing", details={"field": name})
        return fields


@dataclass(frozen=True, kw_only=True)
class Listing(Operation):
    """GET: the items whose fields are as in the path, in the order of their making.

    *filters*: parameter → filter. *only*: the one field of each item that is answered instead of
    the item. *bare*: a list, not paged, instead of `{"items", "total"}`.
    """

    method = "GET"

    filters: Mapping[str, Filter] = field(default_factory=dict)
    only: str | None = None
    bare: bool = False

    @property
    def query(self) -> tuple[str, ...]:
        return (*self.filters, *(() if self.bare else ("limit", "offset")))

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        found = [
            item
            for item in fake.all(self.table)
            if all(str(item.get(name)) == value for name, value in request.args.items())
            and all(
                fits(item, request.query[parameter])
                for parameter, fits in self.filters.items()
                if parameter in request.query
            )
        ]
        shown = [self.show(item) if self.only is None else item.get(self.only) for item in found]
        return shown if self.bare else page(shown, request)


@dataclass(frozen=True, kw_only=True)
class Read(Operation):
    """GET: one item, with its ETag if the table has versions; then 304 for If-None-Match."""

    method = "GET"

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        reply = self.reply(fake, request.key)
        if reply.header("ETag") and request.headers.get("If-None-Match") == reply.header("ETag"):
            return Reply(304, headers=fake.version_header(self.table, request.key))
        return reply


@dataclass(frozen=True, kw_only=True)
class History(Operation):
    """GET: the item after each of its changes, the last one first, as a list."""

    method = "GET"

    @property
    def query(self) -> tuple[str, ...]:
        return ("limit", "offset")

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        changes = fake.state.history.get((self.table, request.key), [])
        return page([self.show(item) for item in reversed(changes)], request)


@dataclass(frozen=True, kw_only=True)
class Create(Operation):
    """PUT of a new item under the caller's key: 201; again with the same body 200, else 409.

    *required*: the fields without which the body is a 400; *defaults*: what a new item has besides.
    """

    method = "PUT"
    body = "json"

    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        key, fields = request.key, self.fields(request, self.required)
        if fake.repeated(self.op, key, fields) is not None:
            return self.reply(fake, key)
        if fake.get(self.table, key) is not None:
            raise Refusal(409, "conflict", f"{key} is there, with another body")
        fake.add(self.table, {**self.defaults, **fields, **request.args})
        fake.remember(self.op, key, fields, key)
        return self.reply(fake, key, 201)


@dataclass(frozen=True, kw_only=True)
class Replace(Operation):
    """PUT of an item with a version: 201 or 200.

    If-Match and `If-None-Match: *` are obeyed: 412. *guarded*: one of them is needed, else 428.
    """

    method = "PUT"
    body = "json"

    required: tuple[str, ...] = ()
    guarded: bool = True

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        key, fields = request.key, self.fields(request, self.required)
        fake.check_version(self.table, request, needed=self.guarded)
        status = 201 if fake.get(self.table, key) is None else 200
        fake.add(self.table, {**fields, **request.args})
        return self.reply(fake, key, status)


@dataclass(frozen=True, kw_only=True)
class Insert(Operation):
    """POST of a new item: *status*; with an `Idempotency-Key` seen before the first one, *again*.

    *unique*: a field of the body that does the same as the header. The fields of the path become
    fields of the item. *required*, *defaults* as for Create.
    """

    method = "POST"
    body = "json"

    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unique: str | None = None
    status: int = 201
    again: int = 200

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        fields = self.fields(request, self.required)
        mark, content = request.headers.get("Idempotency-Key"), fields
        if self.unique is not None and fields.get(self.unique) is not None:
            mark, content = f"{self.unique}={fields[self.unique]}", {}
        first = None if mark is None else fake.repeated(self.op, mark, content)
        if first is not None:
            return self.reply(fake, first, self.again)
        key = fake.add(self.table, {**self.defaults, **fields, **request.args})
        if mark is not None:
            fake.remember(self.op, mark, content, key)
        self.added(fake, key)
        return self.reply(fake, key, self.status)

    def added(self, fake: CrudFake, key: str) -> None:
        """Called for each new item."""


@dataclass(frozen=True, kw_only=True)
class Command(Insert):
    """POST of a long operation: 202 and its id, by which it is polled (a Read).

    *walk*: seconds of the fake's clock from the one state of the item to the next.
    """

    status: int = 202
    again: int = 202
    answer: tuple[str, ...] | None = ("id", "status")
    walk: tuple[tuple[float, str], ...] = ()
    state: str = "status"

    def added(self, fake: CrudFake, key: str) -> None:
        seconds = 0.0
        for pause, state in self.walk:
            seconds += pause
            fake.later(seconds, self.table, key, {self.state: state})


@dataclass(frozen=True, kw_only=True)
class Patch(Operation):
    """PATCH: the fields of the body in place of those of the item. If-Match is obeyed: 412."""

    method = "PATCH"
    body = "json"

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        fields = self.fields(request)
        fake.need(self.table, request.key)
        fake.check_version(self.table, request)
        fake.change(self.table, request.key, fields)
        return self.reply(fake, request.key)


@dataclass(frozen=True, kw_only=True)
class Delete(Operation):
    """DELETE: 204, 404 when it is not there. If-Match is obeyed: 412; *guarded*: and needed."""

    method = "DELETE"

    guarded: bool = False

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        fake.need(self.table, request.key)
        fake.check_version(self.table, request, needed=self.guarded)
        fake.remove(self.table, request.key)
        return Reply(204)


@dataclass(frozen=True, kw_only=True)
class Move(Operation):
    """POST, with a body or without: the *field* of the item moves by *moves*, else 409."""

    method = "POST"

    moves: Mapping[str, str]
    state: str = "status"
    status: int = 200

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        now = str(fake.need(self.table, request.key).get(self.state))
        if now not in self.moves:
            verb = self.op.rpartition(".")[2]
            raise Refusal(409, "wrong_state", f"{request.key} is {now}: no {verb} from there")
        fake.change(self.table, request.key, {self.state: self.moves[now]})
        return self.reply(fake, request.key, self.status)


def page(found: list[Any], request: FakeRequest) -> Item:
    """The part of a list that `limit` and `offset` ask for, in the house's envelope."""
    limit = number(request, "limit", _DEFAULT_LIMIT)
    offset = number(request, "offset", 0)
    if limit > _MAX_LIMIT:
        raise Refusal(400, "bad_parameter", f"limit is at most {_MAX_LIMIT}")
    return {"items": found[offset : offset + limit], "total": len(found)}


def number(request: FakeRequest, name: str, default: int, *, least: int = 0) -> int:
    """A parameter of the query that is a whole number."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise Refusal(400, "bad_parameter", f"{name} is a number from {least}")
    return int(text)
