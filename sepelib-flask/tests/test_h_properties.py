"""Whatever a client sends: a value of the type, or an ApiError; and what was sent comes back."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.flask import h
from sepelib.flask.h.errors import ApiError, InvalidArguments
from sepelib.util.secrets import Secret

app = Flask(__name__)
steady = settings(derandomize=True, deadline=None, max_examples=200)


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


@dataclass(frozen=True)
class Leaf:
    kind: Literal["leaf"]
    number: Annotated[int, h.Range(-5, 1000)]


@dataclass(frozen=True)
class Fork:
    kind: Literal["fork"]
    left: Leaf | Fork | None = None
    right: Leaf | Fork | None = None


@dataclass(frozen=True)
class Everything:
    text: str
    number: int
    ratio: float
    sure: bool
    nothing: None
    exact: Decimal
    at: datetime
    day: date
    id: UUID
    colour: Colour
    word: Literal["a", 1, True, None]
    pair: tuple[int, str]
    many: list[Leaf | Fork]
    unique: frozenset[str]
    by_name: dict[str, int | str | None]
    anything: Any = None
    source: Annotated[str, h.Name("from")] = ""
    lines: Annotated[list[str], h.Length(max=3)] = field(default_factory=list)


leaves = st.builds(Leaf, st.just("leaf"), st.integers(-5, 1000))
trees = st.recursive(
    leaves, lambda inner: st.builds(Fork, st.just("fork"), inner, inner | st.none()), max_leaves=5
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
everything = st.builds(
    Everything,
    text=text,
    number=st.integers(),
    ratio=finite,
    sure=st.booleans(),
    nothing=st.none(),
    exact=st.decimals(allow_nan=False, allow_infinity=False, places=3),
    at=st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC)),
    day=st.dates(),
    id=st.uuids(),
    colour=st.sampled_from(Colour),
    word=st.sampled_from(["a", 1, True, None]),
    pair=st.tuples(st.integers(), text),
    many=st.lists(trees, max_size=3),
    unique=st.frozensets(text, max_size=3),
    by_name=st.dictionaries(text, st.integers() | text | st.none(), max_size=3),
    anything=anything,
    source=text,
    lines=st.lists(text, max_size=3),
)


def read(kind: Any, data: bytes) -> Any:
    with app.test_request_context(method="POST", data=data, content_type="application/json"):
        return h.body(kind)


@steady
@given(everything)
def test_what_is_sent_as_json_comes_back_equal(value: Everything) -> None:
    assert read(Everything, h.json_response(value).data) == value


KINDS: list[Any] = [
    *(Everything, Leaf, list[Leaf | Fork], dict[str, Leaf], tuple[int, str], set[int], Colour),
    *(int, float, str, bool, Decimal, datetime, date, UUID, Secret, Any, int | str | None),
]


def mutated(document: Any, choices: Callable[[Any], Any]) -> Any:
    """*document* with a value somewhere replaced."""
    if isinstance(document, dict) and document and choices(st.booleans()):
        key = choices(st.sampled_from(sorted(document)))
        return document | {key: mutated(document[key], choices)}
    if isinstance(document, list) and document and choices(st.booleans()):
        at = choices(st.integers(0, len(document) - 1))
        return [*document[:at], mutated(document[at], choices), *document[at + 1 :]]
    return choices(anything)


def reads_or_refuses(kind: Any, data: bytes) -> None:
    refusal: ApiError | None = None
    try:
        made = read(kind, data)
    except ApiError as error:
        refusal = error
    if refusal is None:
        if isinstance(kind, type) and kind is not Any:
            assert isinstance(made, kind)
        return
    check_refusal(refusal)


def check_refusal(refusal: ApiError) -> None:
    assert refusal.status == 400
    assert len(refusal.message.splitlines()) == 1 and len(refusal.message) < 1000
    found: Any = refusal.details.get("errors", ())
    assert len(found) <= 20
    json.dumps(found).encode()


@steady
@given(everything, st.data())
def test_any_change_of_a_document_is_read_or_refused(
    value: Everything, data: st.DataObject
) -> None:
    document = json.loads(h.json_response(value).data)
    reads_or_refuses(Everything, json.dumps(mutated(document, data.draw)).encode())


@steady
@given(anything, st.sampled_from(KINDS))
def test_any_document_is_read_or_refused(document: Any, kind: Any) -> None:
    reads_or_refuses(kind, json.dumps(document).encode())


@steady
@given(st.binary(max_size=50) | st.text('[]{}",:0123456789.eE+-ntrufalsNI\\ \x00', max_size=50))
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    for kind in (Any, Everything, dict[str, Any], float):
        reads_or_refuses(kind, data if isinstance(data, bytes) else data.encode())


@dataclass
class Query:
    a: int | None = None
    b: list[float] = field(default_factory=list)
    c: Colour | bool = False
    d: Annotated[str, h.Length(1, 5), h.Pattern("[a-z]*")] = "x"
    e: datetime | None = None


@steady
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef") | text, text | st.from_regex(r"-?[0-9.e]+")),
        max_size=5,
    ),
    st.binary(max_size=10),
)
def test_any_query_is_read_or_refused(pairs: list[tuple[str, str]], tail: bytes) -> None:
    raw = urlencode(pairs) + "&" + tail.decode("latin-1")
    with app.test_request_context(environ_overrides={"QUERY_STRING": raw}):
        refusal = None
        try:
            found = h.args.parse(Query)
        except InvalidArguments as error:
            refusal = error
    if refusal is None:
        assert all(math.isfinite(each) for each in found.b)
    else:
        check_refusal(refusal)


@steady
@given(st.text(max_size=300))
def test_any_file_name_makes_a_header_that_is_one_line_of_ascii(name: str) -> None:
    (value,) = h.attachment(name).values()
    assert value.isascii() and value.isprintable() and len(value) < 3000
