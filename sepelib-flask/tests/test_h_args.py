"""The arguments of a query: typed, bounded, none unnoticed."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from flask import Flask

from sepelib.flask import h
from sepelib.flask.h.errors import InvalidArguments
from sepelib.util.secrets import Secret

app = Flask(__name__)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Search:
    q: Annotated[str, h.Length(1, 20)]
    limit: Annotated[int, h.Range(1, 100)] = 20
    state: Literal["new", "done"] | None = None
    tag: list[str] = field(default_factory=list)
    since: datetime | None = None
    source: Annotated[str, h.Name("from")] = ""

    def __post_init__(self) -> None:
        if self.q == self.source:
            raise ValueError("q and from are the same")


def asked(query: str, read: Callable[[], Any]) -> Any:
    with app.test_request_context(f"/?{query}"):
        return read()


def refusals(query: str, read: Callable[[], Any]) -> dict[str, str]:
    """The message for each argument that is refused."""
    with pytest.raises(InvalidArguments) as caught:
        asked(query, read)
    assert caught.value.code == 400
    errors: Any = caught.value.details["errors"]
    return {each["path"]: each["message"] for each in errors}


def search() -> Search:
    return h.args.parse(Search)


def test_a_dataclass_describes_the_whole_query() -> None:
    found = asked(
        "q=x+y&limit=5&state=done&tag=a&tag=b&since=2026-11-23T10:15:00%2B03:00&from=me", search
    )
    moment = datetime(2026, 11, 23, 7, 15, tzinfo=UTC)
    assert found == Search("x y", 5, "done", ["a", "b"], moment, "me")
    assert found.since.tzinfo is UTC


def test_what_has_a_default_may_be_missing() -> None:
    assert asked("q=x", search) == Search("x")


def test_a_misspelt_argument_is_refused_and_the_nearest_name_told() -> None:
    assert refusals("q=x&limt=5", search) == {"limt": "unknown argument; did you mean 'limit'?"}
    assert refusals("q=x&Limit=5", search)["Limit"].startswith("unknown argument")
    assert "there is from, limit, q, since, state, tag" in refusals("q=x&zzz=5", search)["zzz"]


def test_the_name_in_python_is_unknown_when_there_is_another_outside() -> None:
    assert "source" in refusals("q=x&source=me", search)


def test_all_mistakes_are_told_at_once() -> None:
    assert refusals("limit=0&state=old&limt=1&since=yesterday", search) == {
        "limit": 'must be an integer from 1 to 100, not "0"',
        "state": 'must be "new" or "done", not "old"',
        "limt": "unknown argument; did you mean 'limit'?",
        "since": "must be a time with its offset, such as 2026-11-23T07:15:00Z (a + in a query is "
        'written %2B), not "yesterday"',
        "q": "missing",
    }


def test_no_more_than_twenty_mistakes_are_told() -> None:
    assert len(refusals("&".join(f"x{n}=1" for n in range(500)), search)) == 20


def test_a_second_value_where_one_belongs_is_refused() -> None:
    assert refusals("q=a&q=b", search) == {"q": "given 2 times; it has one value"}
    assert refusals("n=1&n=1", lambda: h.args.get("n", int)) == {
        "n": "given 2 times; it has one value"
    }


def test_what_the_class_itself_refuses_is_told_to_the_client() -> None:
    assert refusals("q=me&from=me", search) == {"": "q and from are the same"}


def test_others_may_read_arguments_of_their_own() -> None:
    asked("q=x&offset=7", lambda: h.args.parse(Search, also=h.PAGE_ARGUMENTS))
    asked("q=x&whatever=7", lambda: h.args.parse(Search, strict=False))
    assert refusals("q=x&ofset=7", lambda: h.args.parse(Search, also=["offset"])) == {
        "ofset": "unknown argument; did you mean 'offset'?"
    }


def test_a_class_that_no_query_can_hold_is_a_mistake_of_the_program() -> None:
    @dataclass
    class Nested:
        inner: Search

    @dataclass
    class Free:
        anything: dict[str, str]

    for kind in (Nested, Free, int):
        with pytest.raises(TypeError):
            asked("", lambda kind=kind: h.args.parse(kind))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "-12", -12),
        (int, "007", 7),
        (float, "-1.5e3", -1500.0),
        (float, "3", 3.0),
        (Decimal, "1.10", Decimal("1.10")),
        (bool, "true", True),
        (bool, "1", True),
        (bool, "false", False),
        (bool, "0", False),
        (str, "", ""),
        (str, "%D1%8F", "я"),
        (date, "2026-02-28", date(2026, 2, 28)),
        (datetime, "2026-02-28T12:00:00.123456789Z", datetime(2026, 2, 28, 12, 0, 0, 123456, UTC)),
        (
            UUID,
            "6BA7B810-9dad-11d1-80b4-00c04fd430c8",
            UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ),
        (Colour, "red", Colour.RED),
        (Level, "2", Level.HIGH),
        (Literal["a", 1, True], "1", 1),
        (Literal["a", 1, True], "true", True),
        (int | str, "12", 12),
        (int | str, "x", "x"),
        (str | int, "12", 12),
        (int | None, "12", 12),
        (Annotated[str, h.Pattern("[a-z]+")], "abc", "abc"),
    ],
)
def test_each_type_takes_its_own_form(kind: Any, text: str, value: object) -> None:
    found = asked(f"x={text}", lambda: h.args.get("x", kind))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            int,
            [
                "",
                "+1",
                "%201",
                "1%20",
                "1_000",
                "1.0",
                "0x10",
                "\N{ARABIC-INDIC DIGIT ONE}",
                "--1",
                "1%0A",
                "9" * 101,
            ],
        ),
        (float, ["", "nan", "NaN", "inf", "-Infinity", "1e999", "1_0", "%201", "٣", ".5", "1."]),
        (Decimal, ["", "nan", "sNaN", "Infinity", "1,5", "1e9999"]),
        (bool, ["", "yes", "True", "TRUE", "on", "2", "01"]),
        (date, ["", "2026-02-30", "20260228", "2026-2-8", "2026-02-28T00:00:00Z"]),
        (
            datetime,
            [
                "",
                "2026-02-28",
                "2026-02-28T12:00:00",
                "2026-02-28T12:00Z",
                "2026-02-28T25:00:00Z",
                "2026-02-28T23:59:60Z",
                "2026-02-28T12:00:00+03:00",  # a space by the time it is here
                "0001-01-01T00:00:00%2B14:00",
                "2026-W09-6T12:00:00Z",
            ],
        ),
        (UUID, ["", "6ba7b8109dad11d180b400c04fd430c8", "urn:uuid:0", "x" * 36]),
        (Colour, ["", "RED", "Colour.RED", "green"]),
        (Level, ["", "3", "LOW", "01"]),
        (int | None, ["", "null", "None"]),
        (Annotated[str, h.Pattern("[a-z]+")], ["", "Abc", "abc%0A"]),
    ],
)
def test_each_type_refuses_the_forms_that_others_let_through(kind: Any, texts: list[str]) -> None:
    for text in texts:
        message = refusals(f"x={text}", lambda: h.args.get("x", kind))["x"]
        assert message.startswith("must be "), text


def test_an_argument_without_a_default_has_to_be_there() -> None:
    assert refusals("", lambda: h.args.get("x")) == {"x": "missing"}
    assert asked("", lambda: h.args.get("x", int, 7)) == 7
    assert asked("", lambda: h.args.get("x", default=None)) is None


def test_bounds_are_included_and_those_of_a_str_are_of_its_length() -> None:
    def number() -> int:
        return h.args.get("x", int, min=1, max=3)

    def text() -> str:
        return h.args.get("x", min=1, max=3)

    assert [asked(f"x={n}", number) for n in (1, 3)] == [1, 3]
    assert refusals("x=4", number) == {"x": 'must be an integer from 1 to 3, not "4"'}
    assert asked("x=abc", text) == "abc"
    assert refusals("x=abcd", text) == {
        "x": "must be a string of length from 1 to 3, not of length 4"
    }
    assert "from 1" in refusals("x=", text)["x"]


def test_choices_are_the_only_values_taken() -> None:
    def read() -> list[int]:
        return h.args.get("x", int, many=True, choices=(1, 2))

    assert asked("x=2&x=1", read) == [2, 1]
    assert refusals("x=2&x=3", read) == {"x": "must be 1 or 2"}


def test_many_values_are_a_list_and_each_is_checked() -> None:
    def read() -> list[int]:
        return h.args.get("x", int, many=True, max=9)

    assert asked("x=1&x=2", read) == [1, 2] and asked("x=1", read) == [1]
    assert refusals("x=1&x=b&x=10", read) == {
        "x[1]": 'must be an integer up to 9, not "b"',
        "x[2]": 'must be an integer up to 9, not "10"',
    }
    assert refusals("", read) == {"x": "missing"}
    assert asked("", lambda: h.args.get("x", int, (), many=True)) == ()


def test_collections_of_a_class_take_all_values() -> None:
    @dataclass
    class Several:
        a: set[int] = field(default_factory=set)
        b: tuple[int, ...] = ()
        c: Annotated[list[str], h.Length(max=2)] = field(default_factory=list)
        d: list[int] | None = None

    def read() -> Several:
        return h.args.parse(Several)

    assert asked("a=1&a=1&b=2&c=x&c=y&d=4", read) == Several({1}, (2,), ["x", "y"], [4])
    assert asked("", read) == Several()
    assert refusals("c=1&c=2&c=3&d=4&d=x", read) == {
        "c": "must be a list of length up to 2, not of length 3",
        "d[1]": 'must be an integer, not "x"',
    }


def test_long_values_and_long_queries_are_bounded() -> None:
    assert "at most 4096" in refusals("x=" + "a" * 4097, lambda: h.args.get("x"))["x"]
    longer = Annotated[str, h.Length(max=5000)]
    assert len(asked("x=" + "a" * 5000, lambda: h.args.get("x", longer))) == 5000
    shown = refusals("x=" + "9" * 3000, lambda: h.args.get("x", int))["x"]
    assert len(shown) < 100
    with pytest.raises(InvalidArguments, match="more than 1000"):
        asked("&".join("x=1" for _ in range(1001)), lambda: h.args.get("x", many=True))


@pytest.mark.parametrize("query", ["x=%FF", "%FF=1", "x=1&y=%C3%28", "x=%ED%A0%80"])
def test_what_is_no_utf_8_is_refused_and_not_replaced(query: str) -> None:
    with pytest.raises(InvalidArguments, match="UTF-8"):
        asked(query, lambda: h.args.get("x"))


def test_a_flag_is_there_or_not() -> None:
    def read() -> bool:
        return h.args.flag("x")

    assert [asked(q, read) for q in ("x", "x=", "x=1", "x=true")] == [True] * 4
    assert [asked(q, read) for q in ("", "y", "x=0", "x=false")] == [False] * 4
    assert "x" in refusals("x=yes", read) and "x" in refusals("x&x", read)


def test_a_moment_is_in_utc_whatever_its_offset() -> None:
    def read() -> datetime:
        return h.args.datetime("x")

    found = asked("x=2026-01-01T00:30:00%2B01:00", read)
    assert found == datetime(2025, 12, 31, 23, 30, tzinfo=UTC) and found.tzinfo is UTC
    assert asked("", lambda: h.args.datetime("x", None)) is None
    assert "offset" in refusals("x=2026-01-01T00:30:00", read)["x"]


def test_only_refuses_whatever_is_not_named() -> None:
    asked("a=1", lambda: h.args.only("a", "b"))
    assert refusals("a=1&bb=2", lambda: h.args.only("a", "b")) == {
        "bb": "unknown argument; did you mean 'b'?"
    }
    assert refusals("a=1", h.args.only) == {"a": "unknown argument"}


def test_secrets_stand_in_no_error() -> None:
    @dataclass
    class Login:
        token: int
        word: Annotated[Secret[str], h.Length(8)]

    told = refusals("token=hunter2&word=hunter3", lambda: h.args.parse(Login))
    assert told == {
        "token": "must be an integer, not a string",
        "word": "must be a string of length from 8, not of length 7",
    }


def test_the_query_is_read_anew_for_each_request_of_one_context() -> None:
    with app.app_context():
        assert asked("x=1", lambda: h.args.get("x")) == "1"
        assert asked("x=2", lambda: h.args.get("x")) == "2"
