"""What answers look like: JSON that any reader takes, names that do no harm, versions, pages."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote
from uuid import UUID

import pytest
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from sepelib.flask import h
from sepelib.flask.h.errors import InvalidArguments, PreconditionFailed, PreconditionRequired
from sepelib.util.secrets import Secret

app = Flask(__name__)


HUNTER = Secret("hunter2")


class Colour(enum.Enum):
    RED = "red"


class Text(str, enum.Enum):  # noqa: UP042
    A = "a"


@dataclass
class Point:
    x: int
    source: Annotated[str, h.Name("from")] = "me"
    password: Secret[str] = HUNTER


class ObjectId:
    """As bson has it, which need not be installed."""

    __module__ = "bson.objectid"

    def __str__(self) -> str:
        return "65a1b2c3d4e5f60718293a4b"


class Money:
    pass


@h.encode.register
def _(value: Money) -> str:
    return "1 EUR"


def sent(value: Any) -> Any:
    response = h.json_response(value)
    assert response.mimetype == "application/json"
    return json.loads(response.data)


@pytest.mark.parametrize(
    ("value", "document"),
    [
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T00:00:00Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC), "2026-01-01T00:00:00.000005Z"),
        (date(2026, 1, 1), "2026-01-01"),
        (Colour.RED, "red"),
        (Text.A, "a"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        ({"b", "a"}, ["a", "b"]),
        (frozenset([2, 10]), [2, 10]),
        ({1, "a"}, ["a", 1]),
        (Point(1), {"x": 1, "from": "me", "password": "***"}),
        ([Point(1)], [{"x": 1, "from": "me", "password": "***"}]),
        (Secret("hunter2"), "***"),
        (ObjectId(), "65a1b2c3d4e5f60718293a4b"),
        (Money(), "1 EUR"),
        (UserDict(a=1), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ((1, 2), [1, 2]),
        (None, None),
        ("я\u2028</script>", "я\u2028</script>"),
        ({Colour.RED: {UUID(int=0): 1}, Text.A: 2}, {"red": {str(UUID(int=0)): 1}, "a": 2}),
        (
            {date(2026, 1, 1): [Point(1), {1}]},
            {"2026-01-01": [sent_point := {"x": 1, "from": "me", "password": "***"}, [1]]},
        ),
    ],
)
def test_each_type_has_its_form(value: object, document: object) -> None:
    assert sent(value) == document


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "Out of range"),
        ([float("inf")], "Out of range"),
        (Decimal("NaN"), "NaN"),
        (datetime(2026, 1, 1), "naive"),
        (b"raw", "bytes"),
        ({"a": bytearray(b"raw")}, "bytes"),
        (object(), "encode.register"),
        ((n for n in "ab"), "stream_json"),
        ({(1, 2): 3}, "form in JSON|keys must be"),
        ({b"a": 1}, "bytes"),
        (Point, "type"),
    ],
)
def test_what_is_not_json_is_refused_before_anything_is_sent(value: object, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        h.json_response(value)


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises(ValueError, match="Circular"):
        h.json_response(circle)


def test_half_of_a_surrogate_pair_is_escaped() -> None:
    response = h.json_response({"\ud800": "я\\\udc00\\"})
    assert response.data == '{"\\ud800":"я\\\\\\udc00\\\\"}'.encode()
    assert json.loads(response.data) == {"\ud800": "я\\\udc00\\"}


def test_status_and_headers_are_as_given() -> None:
    response = h.json_response([], 202, Cache_Control="no-store", ETag='"x"')
    assert response.status_code == 202 and response.headers["Cache-Control"] == "no-store"
    assert response.headers["ETag"] == '"x"'
    with pytest.raises(ValueError, match="newline"):
        h.json_response([], Location="/a\r\nSet-Cookie: x=1")


def test_no_content_has_no_body_and_no_type() -> None:
    response = h.no_content(X_A="b")
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers and response.headers["X-A"] == "b"


def test_created_says_where() -> None:
    with app.test_request_context("/"):
        empty, full = h.created("/jobs/7"), h.created("/jobs/я 7", {"id": 7}, ETag='"1"')
        assert (empty.status_code, empty.data, full.status_code) == (201, b"", 201)
        assert empty.headers["Location"] == "/jobs/7" and full.get_json() == {"id": 7}
        assert full.headers["ETag"] == '"1"'
        sent_headers = full.get_wsgi_headers({"REQUEST_METHOD": "POST"})
        assert sent_headers["Location"] == "/jobs/%D1%8F%207"
    with pytest.raises(ValueError, match="newline"):
        h.created("/a\r\nSet-Cookie: x=1")


@pytest.mark.parametrize(
    ("name", "plain", "full"),
    [
        ("report.csv", "report.csv", None),
        ("a b (1).csv", "a b _1_.csv", "a b (1).csv"),
        ("отчёт.csv", "_____.csv", "отчёт.csv"),
        (
            'x"; filename="evil.exe',
            "x__ filename=_evil.exe".replace("=", "_"),
            "x_; filename=_evil.exe",
        ),
        ("../../etc/passwd", "_.._etc_passwd", None),
        ("C:\\a.txt", "C__a.txt", None),
        ("a\r\nSet-Cookie: b=1", "aSet-Cookie_ b_1", "aSet-Cookie_ b=1"),
        ("\u202egpj.exe", "gpj.exe", None),
        ("100%.txt", "100_.txt", "100%.txt"),
        ("..", "download", None),
        ("\ud800", "download", None),
        ("", "download", None),
    ],
)
def test_a_file_name_does_no_harm(name: str, plain: str, full: str | None) -> None:
    value = h.attachment(name)["Content-Disposition"]

    assert value.isascii() and "\n" not in value and "\r" not in value
    head, _, tail = value.partition("; filename*=UTF-8''")
    assert head == f'attachment; filename="{plain}"'
    assert (unquote(tail) or None) == full
    Response(headers=h.attachment(name))


def test_the_end_of_a_long_file_name_is_kept() -> None:
    value = h.attachment("x" * 1000 + ".csv")["Content-Disposition"]
    assert value.endswith('x.csv"') and len(value) < 250


# -- ETags -----------------------------------------------------------------------------------


def test_equal_values_have_equal_tags() -> None:
    one = h.etag({"a": 1, "b": {"x", "y"}})
    assert one == h.etag({"b": {"y", "x"}, "a": 1}) != h.etag({"a": 2})
    assert one.startswith('"') and h.etag(1, weak=True) == f"W/{h.etag(1)}"


TAG, WEAK = '"abc"', 'W/"abc"'


@pytest.mark.parametrize("tag", [TAG, WEAK])
@pytest.mark.parametrize("header", [TAG, WEAK, f'"x", {TAG}', f"{WEAK},{TAG}", "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_is_not_sent_again(tag: str, header: str, method: str) -> None:
    with app.test_request_context(method=method, headers={"If-None-Match": header}):
        with pytest.raises(HTTPException) as caught:
            h.not_modified_if(tag, Cache_Control="max-age=5")
        response = caught.value.get_response()
        assert response.status_code == 304 and response.headers["ETag"] == tag
        assert response.headers["Cache-Control"] == "max-age=5"


@pytest.mark.parametrize("headers", [{}, {"If-None-Match": '"other"'}, {"If-None-Match": ""}])
def test_what_the_client_does_not_have_is_sent(headers: dict[str, str]) -> None:
    with app.test_request_context(headers=headers):
        h.not_modified_if(TAG)
    with app.test_request_context(method="PUT", headers={"If-None-Match": TAG}):
        h.not_modified_if(TAG)


@pytest.mark.parametrize(
    ("headers", "tag", "passes"),
    [
        ({"If-Match": TAG}, TAG, True),
        ({"If-Match": f'"x", {TAG}'}, TAG, True),
        ({"If-Match": "*"}, TAG, True),
        ({"If-Match": '"old"'}, TAG, False),
        ({"If-Match": WEAK}, TAG, False),  # a weak one never proves what was seen
        ({"If-Match": TAG}, WEAK, False),
        ({"If-Match": "*"}, None, False),
        ({"If-Match": TAG}, None, False),
        ({"If-Match": ""}, TAG, False),
        ({"If-None-Match": "*"}, None, True),
        ({"If-None-Match": "*"}, TAG, False),
        ({"If-None-Match": WEAK}, TAG, False),
        ({"If-None-Match": '"old"'}, TAG, True),
        ({}, None, True),
    ],
)
def test_a_change_needs_the_version_that_it_changes(
    headers: dict[str, str], tag: str | None, passes: bool
) -> None:
    for required in (True, False):
        with app.test_request_context(method="PUT", headers=headers):
            if passes:
                h.check_precondition(tag, required=required)
            else:
                with pytest.raises(PreconditionFailed):
                    h.check_precondition(tag, required=required)


def test_a_change_without_a_version_is_refused_where_one_is_required() -> None:
    with app.test_request_context(method="PUT"):
        h.check_precondition(TAG)
        with pytest.raises(PreconditionRequired):
            h.check_precondition(TAG, required=True)


def test_a_tag_is_written_with_its_quotes() -> None:
    with app.test_request_context():
        for wrong in ("abc", "W/abc", ""):
            with pytest.raises(ValueError, match="ETag"):
                h.not_modified_if(wrong)


# -- Pages -----------------------------------------------------------------------------------


def page_of(query: str, **options: Any) -> h.Page:
    with app.test_request_context(f"/jobs?{query}"):
        return h.pagination(**options)


def links(query: str, **told: Any) -> dict[str, dict[str, list[str]]]:
    """The arguments of each link by its relation."""
    with app.test_request_context(f"/jobs?{query}"):
        header = h.pagination(cursor="cursor" in query or "next_cursor" in told).headers(**told)
    found = {}
    for link in header.get("Link", "").split(", ") if header.get("Link") else []:
        url, _, relation = link.partition("; rel=")
        assert url.startswith("<?") and url.endswith(">")
        found[relation.strip('"')] = parse_qs(url[2:-1])
    return found


def test_a_page_has_defaults_and_bounds() -> None:
    assert page_of("") == h.Page(100, 0)
    assert page_of("", max_limit=50, default_limit=10) == h.Page(10, 0)
    assert page_of("limit=50&offset=7", max_limit=50) == h.Page(50, 7)
    for wrong in ("limit=0", "limit=101", "limit=-1", "offset=-1", "offset=1000001", "limit=x"):
        with pytest.raises(InvalidArguments):
            page_of(wrong)


def test_a_cursor_is_opaque_and_bounded() -> None:
    assert page_of("cursor=a%2Fb&limit=3", cursor=True) == h.Page(3, cursor="a/b")
    assert page_of("", cursor=True) == h.Page(100)
    for wrong in ("cursor=", "cursor=" + "x" * 513):
        with pytest.raises(InvalidArguments):
            page_of(wrong, cursor=True)


def test_links_keep_all_other_arguments() -> None:
    found = links("q=a%26b&tag=x&tag=y&limit=10&offset=20", total=45)
    assert {name: link["offset"] for name, link in found.items()} == {
        "next": ["30"],
        "prev": ["10"],
        "first": ["0"],
        "last": ["40"],
    }
    for link in found.values():
        assert (link["q"], link["tag"], link["limit"]) == (["a&b"], ["x", "y"], ["10"])


def test_links_lead_nowhere_past_the_ends() -> None:
    assert set(links("limit=10", total=10)) == {"last"}
    assert set(links("limit=10", total=0)) == set()
    assert set(links("limit=10", more=True)) == {"next"}
    assert set(links("limit=10", more=False)) == set()
    assert set(links("limit=10&offset=5", more=False)) == {"prev", "first"}
    assert links("limit=10&offset=5", more=False)["prev"]["offset"] == ["0"]


def test_a_cursor_leads_to_the_next_page_only() -> None:
    assert links("limit=10", next_cursor="a b") == {"next": {"limit": ["10"], "cursor": ["a b"]}}
    assert links("limit=10&cursor=z", more=True) == {}
    assert links("cursor=z", next_cursor="y")["next"]["cursor"] == ["y"]


def test_the_total_is_a_header() -> None:
    with app.test_request_context("/?x=%3E%3B%22%0D%0A"):
        headers = h.pagination().headers(total=101)
        assert headers["X-Total-Count"] == "101"
        response = h.json_response([], **headers)
        assert response.headers["Link"].count(">") == response.headers["Link"].count("rel=")
