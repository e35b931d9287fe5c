"""JSON bodies into dataclasses: all mistakes at once, each with its path, no secret in any."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

import pytest
from flask import Flask, request

from sepelib.flask import h
from sepelib.flask.h.errors import BodyTooLarge, InvalidBody, UnsupportedBody
from sepelib.util.secrets import Secret

app = Flask(__name__)
JobId = NewType("JobId", str)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    port: Annotated[int, h.Range(1, 65535)]
    host: str = "localhost"


@dataclass
class Job:
    name: Annotated[str, h.Length(1, 10), h.Pattern("[a-z-]+")]
    items: list[Item] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    password: Secret[str] | None = None
    kind: Annotated[Literal["a", "b"], h.Name("class")] = "a"

    def __post_init__(self) -> None:
        if self.name == "root":
            raise ValueError("root is not a name")
        if self.password is not None and len(self.password.reveal()) < 4:
            raise ValueError(f"{self.password.reveal()} is too short a password")


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)
    parent: Optional["Tree"] = None  # noqa: UP037, UP045


@dataclass(frozen=True)
class Circle:
    shape: Literal["circle"]
    radius: float


@dataclass(frozen=True)
class Square:
    shape: Literal["square"]
    side: float


@dataclass
class Bytes:
    raw: bytes


@dataclass
class Inner:
    inner: list[Bytes]


@dataclass
class Init:
    secret: InitVar[int]


@dataclass
class Twice:
    a: Annotated[int, h.Name("b")]
    b: int


class Plain:
    pass


class Flags(enum.Flag):
    A = 1


@dataclass
class Ring:
    shape: Literal["circle", "ring"]


@dataclass
class Knot:
    left: Knot | Item | None = None


@dataclass
class Near:
    shape: Literal["near"]
    next: Near | Far | None = None


@dataclass
class Far:
    shape: Literal["far"]
    next: Near | Far | None = None


@contextmanager
def posted(
    data: bytes | str, content_type: str = "application/json", **more: Any
) -> Iterator[None]:
    with app.test_request_context("/", method="POST", data=data, content_type=content_type, **more):
        yield


def read(kind: Any, document: Any) -> Any:
    text = document if isinstance(document, bytes) else json.dumps(document)
    with posted(text):
        return h.body(kind)


def refusals(kind: Any, document: Any) -> dict[str, str]:
    with pytest.raises(InvalidBody) as caught:
        read(kind, document)
    errors: Any = caught.value.details["errors"]
    return {each["path"]: each["message"] for each in errors}


def refusal(document: bytes, kind: Any = Job, **more: Any) -> str:
    with posted(document, **more), pytest.raises(InvalidBody) as caught:
        h.body(kind)
    return caught.value.message


def test_a_body_is_a_dataclass_with_dataclasses_inside() -> None:
    document = {
        "name": "x",
        "items": [{"port": 1}, {"port": 2, "host": "h"}],
        "labels": {"a b": "c"},
        "password": "hunter2",
        "class": "b",
    }
    assert read(Job, document) == Job(
        "x", [Item(1), Item(2, "h")], {"a b": "c"}, Secret("hunter2"), "b"
    )


def test_every_mistake_is_told_with_its_path() -> None:
    document = {
        "name": "Not Fine",
        "items": [{"port": 1}, {"port": 70000}, {"port": "x", "hots": ""}, {}, 5],
        "labels": {"a b": 1, "ok": None},
        "kind": "a",
        "class": "c",
    }
    assert refusals(Job, document) == {
        "name": 'must be a string of length from 1 to 10 that matches [a-z-]+, not "Not Fine"',
        "items[1].port": "must be an integer from 1 to 65535, not 70000",
        "items[2].port": 'must be an integer from 1 to 65535, not "x"',
        "items[2].hots": "unknown key; did you mean 'host'?",
        "items[3].port": "missing",
        "items[4]": "must be an object like Item, not a number",
        'labels["a b"]': "must be a string, not 1",
        "labels.ok": "must be a string, not null",
        "kind": "unknown key; there is class, items, labels, name, password",
        "class": 'must be "a" or "b", not "c"',
    }


def test_the_answer_says_the_first_mistake_and_lists_all() -> None:
    @app.post("/jobs")
    def create() -> dict[str, str]:
        return {"name": h.body(Job).name}

    answer = app.test_client().post("/jobs", json={"items": [{"port": 0}]})

    assert answer.status_code == 400 and answer.mimetype == "application/problem+json"
    assert answer.get_json(force=True) | {"errors": None} == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "items[0].port: must be an integer from 1 to 65535, not 0 (and 1 more)",
        "instance": "/jobs",
        "code": "invalid_body",
        "errors": None,
    }
    assert [each["path"] for each in answer.get_json(force=True)["errors"]] == [
        "items[0].port",
        "name",
    ]


def test_no_more_than_twenty_mistakes_are_told() -> None:
    assert len(refusals(list[int], ["x"] * 100_000)) == 20


@pytest.mark.parametrize(
    ("kind", "document", "value"),
    [
        (str, "я", "я"),
        (int, 12, 12),
        (float, 1, 1.0),
        (float, 1.5, 1.5),
        (bool, True, True),
        (None, None, None),
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal, 3, Decimal(3)),
        (datetime, "2026-01-01T02:00:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime, "2026-01-01t00:00:00.5z", datetime(2026, 1, 1, 0, 0, 0, 500000, UTC)),
        (date, "2026-01-01", date(2026, 1, 1)),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (Colour, "red", Colour.RED),
        (Literal["x", 1, None], None, None),
        (Literal[1], 1, 1),
        (JobId, "x", "x"),
        (list[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 2, 1], {1, 2}),
        (frozenset[Colour], ["red"], frozenset([Colour.RED])),
        (set[tuple[int, str]], [[1, "a"]], {(1, "a")}),
        (set[Circle], [{"shape": "circle", "radius": 1}], {Circle("circle", 1.0)}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (dict[UUID, int], {}, {}),
        (int | None, None, None),
        (int | str, "1", "1"),
        (str | datetime, "2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        (str | datetime, "soon", "soon"),
        (float | int, 1, 1),
        (list[int] | int, [1], [1]),
        (Circle | Square, {"shape": "square", "side": 2}, Square("square", 2.0)),
        (dict[str, Any], {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (Annotated[dict[str, int], h.Length(max=1)], {"a": 1}, {"a": 1}),
        (Annotated[date, h.Range(date(2026, 1, 1))], "2026-01-01", date(2026, 1, 1)),
        (Annotated[Decimal, h.Range(0, 1)], "0.5", Decimal("0.5")),
        (Annotated[float | None, "a note"], None, None),
    ],
)
def test_each_type_takes_its_form(kind: Any, document: object, value: object) -> None:
    found = read(kind, document)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "documents"),
    [
        (str, [1, None, True, [], {}]),
        (int, [True, 1.0, 1e3, "1", None, [1]]),
        (float, [True, "1", None, 10**400]),
        (bool, [0, 1, "true", None]),
        (None, [0, "", False]),
        (Decimal, [1.5, "nan", "1_0", True, None]),
        (datetime, ["2026-01-01", "2026-01-01T00:00:00", 1767225600, None]),
        (date, ["2026-01-01T00:00:00Z", "01.01.2026", 20260101]),
        (UUID, ["x", 5]),
        (Colour, ["RED", 1, None, True, []]),
        (Literal["x", 1], [True, 1.0, "y", None, {}, []]),
        (Literal[True], [1, "true"]),
        (list[int], [{}, "ab", None, 1]),
        (tuple[int, str], [[1], [1, "a", 2], ["a", 1], {}]),
        (set[int], [["a"], 1]),
        (dict[str, int], [[], [["a", 1]], {"a": "b"}, None]),
        (dict[Colour, int], [{"green": 1}]),
        (int | None, ["", "1"]),
        (int | str, [None, True, 1.5, []]),
        (Circle | Square, [{"shape": "star"}, {"radius": 1}, {"shape": "circle", "side": 1}, []]),
        (Annotated[list[int], h.Length(1, 2)], [[], [1, 2, 3], 5]),
        (Annotated[date, h.Range(date(2026, 1, 1))], ["2025-12-31"]),
    ],
)
def test_each_type_refuses_the_forms_of_others(kind: Any, documents: list[object]) -> None:
    for document in documents:
        assert refusals(kind, document), document


def test_objects_of_several_types_are_told_apart_by_their_tag() -> None:
    wrong = {"shape": "circle", "radius": "big"}
    assert refusals(list[Circle | Square], [wrong]) == {"[0].radius": 'must be a number, not "big"'}
    for tag, words in (("star", '"star"'), ([], "a list"), (1, "1"), (None, "null")):
        assert refusals(Circle | Square, {"shape": tag, "radius": 1}) == {
            "shape": f'must be "circle" or "square", not {words}'
        }
    assert refusals(Circle | Square | None, {"radius": 1}) == {"shape": "missing"}


@pytest.mark.parametrize(
    "kind",
    [Item | Circle, Item | dict[str, int], list[int] | list[str], Circle | Ring, Knot | None],
)
def test_a_union_in_which_objects_or_lists_look_alike_is_a_mistake_of_the_program(
    kind: Any,
) -> None:
    with pytest.raises(TypeError, match=r"of one name|of lists"):
        read(kind, {})


def test_a_deep_document_of_a_union_inside_of_itself_takes_no_time() -> None:
    document: dict[str, Any] = {"shape": "far", "next": "x"}
    for _ in range(60):
        document = {"shape": "near", "next": document}
    ((path, message),) = refusals(Near | Far, document).items()
    assert path.startswith("next.next.next.") and message.endswith("not a string")


def test_a_dataclass_may_hold_itself() -> None:
    found = read(Tree, {"value": 1, "children": [{"value": 2}], "parent": {"value": 3}})
    assert found == Tree(1, [Tree(2)], Tree(3))
    assert refusals(Tree, {"value": 1, "children": [{"value": 2, "children": [{}]}]}) == {
        "children[0].children[0].value": "missing"
    }


def test_what_the_class_refuses_is_told_at_its_path() -> None:
    assert refusals(list[Job], [{"name": "root"}]) == {"[0]": "root is not a name"}


def test_no_secret_stands_in_an_error() -> None:
    @dataclass
    class Account:
        pin: int
        api_key: int
        extra: dict[str, dict[str, int]]
        login: Secret[str] | int
        deep: list[Secret[str]]

    told = refusals(
        Account,
        {
            "pin": "hunter2",
            "api_key": [1],
            "extra": {"token": {"x": "hunter2"}},
            "login": ["hunter2"],
            "deep": "hunter2",
        },
    )
    assert sorted(told) == ["api_key", "deep", "extra.token.x", "login", "pin"]
    assert "hunter2" not in str(told) and told["pin"] == "must be an integer, not a string"
    word = Annotated[Secret[str], h.Pattern("[a-z]+")]
    for kind, value in ((Secret, 271828), (list[Secret[str]], [271828]), (word, "HUNTER2")):
        (message,) = refusals(kind, value).values()
        assert "271828" not in message and "HUNTER2" not in message
    assert refusals(Job, {"name": "x", "password": "pw1"}) == {"": "*** is too short a password"}


def test_values_and_keys_are_cut_and_cannot_break_a_line() -> None:
    (message,) = refusals(int, "a\r\nb" + "x" * 100_000).values()
    assert len(message) < 100 and "\n" not in message
    ((path, message),) = refusals(Item, {"port": 1, "y\n" * 50_000: 1}).items()
    assert len(path) < 100 and "\n" not in path + message
    (path,) = refusals(dict[str, int], {'"]. ': "x"})
    assert path == '["\\"]. "]'


@pytest.mark.parametrize("document", [b'{"port": 1, "port": 2}', b'{"port": 1, "port": 1}'])
def test_a_key_that_stands_twice_is_refused(document: bytes) -> None:
    assert refusals(Item, document) == {"port": "stands twice"}
    assert refusals(list[Item], b"[" + document + b"]") == {"[0].port": "stands twice"}
    assert refusals(dict[str, int], document) == {"port": "stands twice"}
    assert refusals(Any, b'{"a": [' + document + b"]}") == {"a[0].port": "stands twice"}


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400"])
def test_numbers_that_are_not_finite_are_refused(number: bytes) -> None:
    for kind in (float, int, int | None, float | str, Any, str, Literal[1], Decimal):
        assert refusals(kind, number), kind
    assert refusals(dict[str, Any], b'{"a": [' + number + b"]}").keys() == {"a[0]"}
    assert "NaN" in refusals(float, b"NaN")[""]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "line 1 column 2"),
        (b'{"name": "x"} {}', "Extra data"),
        (b'{"name": "x",}', "not JSON"),
        (b'"a\nb"', "control character"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"name": "x"}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b'{"a":' * 100_000, "too deeply"),
        (b"9" * 5000, "too many digits"),
    ],
)
def test_what_is_no_json_is_refused(document: bytes, words: str) -> None:
    assert words in refusal(document)


def test_a_byte_order_mark_is_skipped() -> None:
    assert read(Job, b'\xef\xbb\xbf{"name": "x"}') == Job("x")


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"a\\udc00b"'])
def test_half_of_a_surrogate_pair_is_refused(text: bytes) -> None:
    for kind in (str, Any, str | None, list[str] | str):
        assert "surrogate" in refusals(kind, text)[""]
    assert refusals(dict[str, int], b"{" + text + b": 1}")
    assert refusals(Secret, text)
    assert read(str, b'"\\ud83d\\ude00"') == "\U0001f600"


def test_nesting_is_bounded_at_one_depth_whoever_calls() -> None:
    def nested(levels: int) -> bytes:
        return b'{"value":1,"children":[' * levels + b"]}" * levels

    assert read(Tree, nested(31)).value == 1
    (message,) = refusals(Tree, nested(33)).values()
    assert message == "nested deeper than 64 levels"
    assert read(Any, b"[" * 64 + b"]" * 64)
    assert refusals(Any, b"[" * 65 + b"]" * 65)

    def deeper(calls: int) -> dict[str, str]:
        return deeper(calls - 1) if calls else refusals(Any, b"[" * 500 + b"]" * 500)

    assert "nested deeper than 64 levels" in deeper(sys.getrecursionlimit() // 3).values()


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonp",
    ],
)
def test_a_body_has_to_say_that_it_is_json(content_type: str) -> None:
    with posted(b'{"name": "x"}', content_type), pytest.raises(UnsupportedBody):
        h.body(Job)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=UTF-8", "application/merge-patch+json", "Application/JSON"],
)
def test_every_name_of_json_is_taken(content_type: str) -> None:
    with posted(b'{"name": "x"}', content_type):
        assert h.body(Job) == Job("x")


def test_a_compressed_body_is_refused() -> None:
    with (
        posted(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        pytest.raises(UnsupportedBody, match="Content-Encoding"),
    ):
        h.body(Job)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_above_the_limit_is_refused_and_one_of_just_the_limit_is_read(
    announced: bool,
) -> None:
    def environ(data: bytes) -> dict[str, Any]:
        if announced:
            return {}
        return {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}

    for size, max_bytes in ((100, 100), (1 << 20, None)):
        limit = {} if max_bytes is None else {"max_bytes": max_bytes}
        fits = b'"' + b"x" * (size - 2) + b'"'
        with posted(fits, environ_overrides=environ(fits)):
            assert len(h.body(str, **limit)) == size - 2
            assert len(h.body(str, **limit)) == size - 2  # again
            with pytest.raises(BodyTooLarge):
                h.body(str, max_bytes=50)
        for more in (1, 1000):
            large = fits + b" " * more
            with posted(large, environ_overrides=environ(large)), pytest.raises(BodyTooLarge):
                h.body(str, **limit)


def test_the_limit_of_the_application_holds_when_it_is_lower() -> None:
    with posted(b'"' + b"x" * 200 + b'"'):
        request.max_content_length = 100
        with pytest.raises(BodyTooLarge, match="100B"):
            h.body(str)
        assert request.max_content_length == 100


def test_types_that_cannot_be_read_are_told_by_class_and_field() -> None:
    with pytest.raises(TypeError, match=r"Inner\.inner: .*Bytes\.raw: bytes cannot be read"):
        read(Inner, {})
    bad = [Init, Twice, Plain, Flags, list, dict, complex, dict[int, str], set[list[int]]]
    bad += [Annotated[str, h.Range(1)], Annotated[int, h.Length(1)], Annotated[int, h.Pattern("a")]]
    bad += [Annotated[datetime, h.Range(datetime(2026, 1, 1))], Secret[bytes], set[Job]]
    for kind in bad:
        with pytest.raises(TypeError):
            read(kind, {})
    for make in (lambda: h.Range(2, 1), lambda: h.Range(), lambda: h.Length(2, 1)):
        with pytest.raises(ValueError, match=r"Range|Length"):
            make()


def test_fields_that_init_does_not_take_are_unknown() -> None:
    @dataclass
    class Counted:
        a: int
        count: int = field(default=0, init=False)

    assert read(Counted, {"a": 1}) == Counted(1)
    assert "count" in refusals(Counted, {"a": 1, "count": 5})


def test_a_bug_in_the_class_is_no_mistake_of_the_client() -> None:
    @dataclass
    class Buggy:
        a: int

        def __post_init__(self) -> None:
            raise KeyError("oops")

    with pytest.raises(KeyError):
        read(Buggy, {"a": 1})
