"""Values on their way out and in, beside the standard library's marshalling; no network."""

from __future__ import annotations

import enum
import io
import xmlrpc.client
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from sepelib.rpc.xml import (
    XmlRpcFault,
    XmlRpcParseError,
    XmlRpcValueRefused,
    xmlrpc_call,
)
from sepelib.util.secrets import Secret

URL = "http://server.test/RPC2"
SECRET = "hunter2"


class Canned(BaseAdapter):
    """Answers each request with *body*, and keeps what was sent."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body
        self.sent: list[bytes] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert isinstance(request.body, bytes)
        self.sent.append(request.body)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = "text/xml"
        response.raw = HTTPResponse(io.BytesIO(self.body), preload_content=False)
        return response

    def close(self) -> None:
        pass


def answered(body: bytes | str, **options: Any) -> Any:
    session = requests.Session()
    session.mount("http://", Canned(body if isinstance(body, bytes) else body.encode()))
    return xmlrpc_call(URL, "a.method", session=session, **options)


def sent(*params: object, **options: Any) -> bytes:
    canned = Canned(reply("<nil/>").encode())
    session = requests.Session()
    session.mount("http://", canned)
    try:
        xmlrpc_call(URL, "a.method", *params, session=session, **options)
    except XmlRpcValueRefused:
        assert canned.sent == []
        raise
    (body,) = canned.sent
    return body


def reply(value: str) -> str:
    return (
        f"<?xml version='1.0'?>\n<methodResponse><params><param><value>{value}</value></param>"
        "</params></methodResponse>"
    )


def arrived(*params: object, **options: Any) -> tuple[Any, ...]:
    """What the standard library makes of what is sent."""
    values, method = xmlrpc.client.loads(sent(*params, **options), use_builtin_types=True)
    assert method == "a.method"
    return values


# Out.


def nested(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


def texts(excluded: str) -> st.SearchStrategy[str]:
    return st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
        | st.sampled_from("".join(c for c in "\t\n\r<>&\"']]>" if c not in excluded)),
        max_size=20,
    )


def leaves(text: st.SearchStrategy[str], bits: int) -> st.SearchStrategy[Any]:
    return (
        st.none()
        | st.booleans()
        | st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
        | st.binary(max_size=40)
        | st.datetimes().map(lambda moment: moment.replace(microsecond=0))
    )


@settings(max_examples=300, derandomize=True, deadline=None)
@given(nested(leaves(texts(""), 64), texts("")))
def test_what_is_sent_is_what_the_standard_library_reads(value: Any) -> None:
    assert arrived(value) == (value,)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(nested(leaves(texts("\r"), 32), texts("\r")))
def test_what_the_standard_library_sends_is_what_is_read(value: Any) -> None:
    body = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True)
    assert answered(body, datetimes="naive") == value


def test_subclasses_of_sendable_types_are_sent_as_those() -> None:
    Point = namedtuple("Point", "x y")

    class Level(enum.IntEnum):
        HIGH = 3

    class Colour(enum.StrEnum):
        RED = "red"

    class Loud(str):
        def __str__(self) -> str:
            return "LOUD"

    params = (Point(1, 2), Level.HIGH, Colour.RED, Loud("quiet"), OrderedDict(a=True), (1,))
    assert arrived(*params) == ([1, 2], 3, "red", "quiet", {"a": True}, [1])
    assert arrived(bytearray(b"ab"), memoryview(b"c-d-")[::2]) == (b"ab", b"cd")


def test_ints_up_to_64_bits_are_sent_and_longer_ones_are_not() -> None:
    assert b"<int>2147483647</int>" in sent((1 << 31) - 1)
    assert b"<int>-2147483648</int>" in sent(-(1 << 31))
    assert b"<i8>2147483648</i8>" in sent(1 << 31)
    assert b"<i8>-9223372036854775808</i8>" in sent(-(1 << 63))
    for beyond in (1 << 63, -(1 << 63) - 1, 10**100):
        with pytest.raises(XmlRpcValueRefused, match="params\\[0\\] is an int beyond 64 bits"):
            sent(beyond)


def test_ints_beyond_32_bits_are_refused_on_request() -> None:
    assert arrived((1 << 31) - 1, big_ints="error") == ((1 << 31) - 1,)
    with pytest.raises(XmlRpcValueRefused, match="beyond 32 bits"):
        sent(1 << 31, big_ints="error")


def test_aware_datetimes_are_sent_in_utc_and_naive_ones_as_they_are() -> None:
    east = timezone(timedelta(hours=3))
    assert b">20231231T22:30:00<" in sent(datetime(2024, 1, 1, 1, 30, tzinfo=east))
    assert b">20240101T01:30:00<" in sent(datetime(2024, 1, 1, 1, 30))
    assert b">09880101T01:30:09<" in sent(datetime(988, 1, 1, 1, 30, 9, 999999, tzinfo=UTC))
    with pytest.raises(XmlRpcValueRefused, match="years 1 to 9999"):
        sent(datetime(1, 1, 1, tzinfo=east))


def test_none_is_refused_on_request() -> None:
    with pytest.raises(XmlRpcValueRefused, match=r"params\[1\]\[0\] is None"):
        sent(1, [None], allow_none=False)


@pytest.mark.parametrize(
    "character", [*map(chr, range(32)), "\ud800", "\ufffe", "\uffff"], ids=ascii
)
def test_characters_that_xml_cannot_hold_are_refused_before_sending(character: str) -> None:
    if character in "\t\n\r":
        assert arrived(f"a{character}b", {f"a{character}b": 1}) == (
            *(f"a{character}b", {f"a{character}b": 1}),
        )
        return
    for value in (f"a{character}b", {f"a{character}b": 1}, {f"<&{character}": 1}):
        with pytest.raises(XmlRpcValueRefused) as caught:
            sent(value)
        assert f"U+{ord(character):04X}" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(object(), {1}, frozenset({SECRET}), date(2024, 1, 1), Decimal(1), 1j, range(3)),
        *(Secret(SECRET), xmlrpc.client.DateTime(0), xmlrpc.client.Binary(b"x"), ValueError),
        *(float("nan"), float("inf"), -float("inf")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_type_in_xmlrpc_is_refused_with_its_path_and_not_its_value(value: Any) -> None:
    with pytest.raises(XmlRpcValueRefused) as caught:
        sent(1, [{"items": [SECRET, SECRET, value]}])
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.path == "params[1][0].items[2]"
    assert SECRET not in str(error) + repr(error)
    assert type(value).__name__ in error.reason or isinstance(value, float)
    assert (error.url, error.method) == (URL, "a.method")
    assert error.__suppress_context__ and error.__cause__ is None


def test_keys_that_are_no_str_are_refused() -> None:
    with pytest.raises(XmlRpcValueRefused, match=r"params\[0\]\.a has a key of type int"):
        sent({"a": {1: SECRET}})
    with pytest.raises(XmlRpcValueRefused, match=r"params\[0\]\['no name'\] is of type set"):
        sent({"no name": set()})


def test_what_contains_itself_or_is_nested_too_deeply_is_refused_without_a_recursion_error() -> (
    None
):
    endless: list[Any] = []
    endless.append(endless)
    circle: dict[str, Any] = {}
    circle["again"] = circle
    for value in (endless, circle, deep(100_000)):
        with pytest.raises(XmlRpcValueRefused, match="nested deeper than 64") as caught:
            sent(value)
        assert len(str(caught.value)) < 400


def test_64_levels_go_out_and_come_in() -> None:
    assert arrived(deep(64)) == (deep(64),)
    body = xmlrpc.client.dumps((deep(64),), methodresponse=True)
    assert answered(body) == deep(64)


@pytest.mark.parametrize("method", ["", "a b", "a<b", "a\n", "m\u00e9thode", None, b"x"])
def test_a_method_has_a_name_of_plain_characters(method: Any) -> None:
    with pytest.raises(XmlRpcValueRefused, match="the method is no name"):
        xmlrpc_call(URL, method)


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


# In.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("19980717T14:08:55", datetime(1998, 7, 17, 14, 8, 55)),
        ("1998-07-17T14:08:55", datetime(1998, 7, 17, 14, 8, 55)),
        ("1998-07-17 14:08:55", datetime(1998, 7, 17, 14, 8, 55)),
        ("19980717T140855", datetime(1998, 7, 17, 14, 8, 55)),
        ("19980717T14:08", datetime(1998, 7, 17, 14, 8)),
        ("\n 19980717T14:08:55 \t", datetime(1998, 7, 17, 14, 8, 55)),
        ("19980717T14:08:55Z", datetime(1998, 7, 17, 14, 8, 55)),
        ("1998-07-17T14:08:55z", datetime(1998, 7, 17, 14, 8, 55)),
        ("1998-07-17T14:08:55.5Z", datetime(1998, 7, 17, 14, 8, 55, 500000)),
        ("1998-07-17T14:08:55,123456789", datetime(1998, 7, 17, 14, 8, 55, 123456)),
        ("19980717T14:08:55+0300", datetime(1998, 7, 17, 11, 8, 55)),
        ("1998-07-17T14:08:55+03:00", datetime(1998, 7, 17, 11, 8, 55)),
        ("19980717T14:08:55-02", datetime(1998, 7, 17, 16, 8, 55)),
        ("1998-07-17T14:08:55 -05:30", datetime(1998, 7, 17, 19, 38, 55)),
    ],
)
def test_all_common_forms_of_a_date_are_read(text: str, expected: datetime) -> None:
    body = reply(f"<dateTime.iso8601>{text}</dateTime.iso8601>")
    assert answered(body, datetimes="naive") == expected
    aware = answered(body)
    assert aware == expected.replace(tzinfo=UTC) and aware.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "19980717", "14:08:55", "19980732T14:08:55", "0000-00-00T00:00:00", "yesterday"),
        *("19980717T24:08:55", "19980717T14:08:55+99:00", "00010101T00:00:00+01:00"),
        "\u0661\u0669\u0669\u06680717T14:08:55",
    ],
)
def test_a_date_that_is_none_is_a_parse_error(text: str) -> None:
    with pytest.raises(XmlRpcParseError, match=r"an unreadable <dateTime\.iso8601> in line 2"):
        answered(reply(f"<dateTime.iso8601>{text}</dateTime.iso8601>"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no type", "no type"),
        ("", ""),
        ("  kept  ", "  kept  "),
        ("\n <string>a</string>\n ", "a"),
        ("<string/>", ""),
        ("<string>  kept\n</string>", "  kept\n"),
        ("<string>a<!-- not me -->b<![CDATA[<&>]]></string>", "ab<&>"),
        ("&lt;&#x263a;&amp;", "<\u263a&"),
        ("<int>+7</int>", 7),
        ("<int> 7\n</int>", 7),
        ("<i1>1</i1>", 1),
        ("<i2>-2</i2>", -2),
        ("<i4>-4</i4>", -4),
        ("<i8>9223372036854775807</i8>", (1 << 63) - 1),
        ("<int>9223372036854775807</int>", (1 << 63) - 1),
        ("<ex:i8>8</ex:i8>", 8),
        ("<biginteger>1000000000000000000000</biginteger>", 10**21),
        ("<boolean>1</boolean>", True),
        ("<boolean>0</boolean>", False),
        ("<boolean>true</boolean>", True),
        ("<double>-1.5e3</double>", -1500.0),
        ("<float>.5</float>", 0.5),
        ("<double>inf</double>", float("inf")),
        ("<nil/>", None),
        ("<ex:nil/>", None),
        ("<base64>\n aGVs\n bG8= </base64>", b"hello"),
        ("<base64/>", b""),
        ("<array><data/></array>", []),
        ("<array>\n<data>\n<value>a</value> <value/></data></array>", ["a", ""]),
        ("<struct/>", {}),
        (
            "<struct><member><value>late</value><name>a </name></member></struct>",
            {"a ": "late"},
        ),
    ],
)
def test_values_are_read_in_all_their_forms(value: str, expected: object) -> None:
    result = answered(reply(value))
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        *("<int>1_000</int>", "<int>x</int>", "<int/>", "<int>\u0661</int>", "<int>1.5</int>"),
        *("<double>1_0.0</double>", "<double/>", "<boolean>2</boolean>", "<boolean/>"),
        *("<nil>x</nil>", "<base64>a</base64>", "<base64>\u0430</base64>", "<i4>0x1F</i4>"),
        f"<biginteger>{'9' * 5000}</biginteger>",
        *("<date>1</date>", "<value>1</value>", "<string><b>x</b></string>"),
        *("text <int>1</int>", "<int>1</int> text", "<int>1</int><int>2</int>"),
        *("<array><value>1</value></array>", "<array>text<data/></array>"),
        *("<struct><member><name>a</name></member></struct>", "<struct>a</struct>"),
        "<struct><member><value>a</value></member></struct>",
        "<struct><member><name>a</name><name>b</name><value>c</value></member></struct>",
        "<struct><member><name>a</name><value>b</value><value>c</value></member></struct>",
        *("</value><value>", "</value></param><param><value>"),
        *("\x01", "&#1;", "&nbsp;", "<int>1", "</int>"),
    ],
)
def test_a_value_that_is_none_is_a_parse_error_with_its_place(value: str) -> None:
    with pytest.raises(XmlRpcParseError) as caught:
        answered(reply(value))
    assert caught.value.line == 2 and caught.value.column > 1
    assert caught.value.excerpt == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no bytes at all"),
        (b" \n", "no bytes at all"),
        (b"hello", "not XML"),
        (b"<methodResponse>", "no element found"),
        (b"<methodResponse/>", "no value"),
        (b"<methodResponse><params/></methodResponse>", "no value"),
        (b"<methodCall/>", "an unexpected <methodCall>"),
        (b"<?xml version='1.0' encoding='klingon'?><methodResponse/>", "encoding"),
        (b"<?xml version='1.0' encoding='utf-7'?><methodResponse/>", "encoding"),
        (b"<?xml version='1.0' encoding='base64'?><methodResponse/>", "encoding"),
        (b"\xff\xfe\x00", "not XML"),
        (reply("\u0430").encode("cp1251"), "not XML"),
        (b"<methodResponse><fault><value>no struct</value></fault></methodResponse>", "a fault"),
        (b"<!DOCTYPE HTML PUBLIC 'x' 'y'>\n<html>", "text/html, which is not XML-RPC"),
        (b"\r\n<HTML><body>", "text/html, which is not XML-RPC"),
    ],
)
def test_a_reply_that_is_none_is_a_parse_error(body: bytes, reason: str) -> None:
    with pytest.raises(XmlRpcParseError) as caught:
        answered(body)
    assert reason in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-5", "windows-1251", "koi8-r"])
def test_the_encoding_that_the_document_names_is_used(encoding: str) -> None:
    text = reply("<string>\u043f\u0440\u0438\u0432\u0435\u0442</string>")
    body = text.replace("'1.0'", f"'1.0' encoding='{encoding}'").encode(encoding)
    assert answered(body) == "\u043f\u0440\u0438\u0432\u0435\u0442"


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE a>",
        "<!DOCTYPE a [<!ENTITY e 'x'>]>",
        "<!DOCTYPE a [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>",
        "<!DOCTYPE a SYSTEM 'http://127.0.0.1:1/evil.dtd'>",
        "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE a [<!ATTLIST b c CDATA 'd'>]>",
    ],
)
def test_a_dtd_is_refused_wherever_it_stands_before_the_reply(doctype: str) -> None:
    for before in ("", "<?xml version='1.0'?>\n", "<!-- c -->\n"):
        body = before + doctype + reply("&e;").partition("\n")[2]
        with pytest.raises(XmlRpcParseError, match="a DTD, which is refused"):
            answered(body)


def test_the_process_is_not_patched() -> None:
    # What defusedxml refuses by patching the standard library, the standard library still takes.
    with pytest.raises(XmlRpcParseError):
        answered("<!DOCTYPE a><methodResponse/>")
    from xml.dom import minidom

    import sepelib.rpc.xml

    assert minidom.parseString("<!DOCTYPE a><a/>").documentElement.tagName == "a"
    assert sepelib.rpc.xml.__name__ == "sepelib.rpc.xml" and minidom.__name__ == "xml.dom.minidom"


@pytest.mark.parametrize(
    "body",
    [
        reply("<array><data><value>" * 65 + "</value></data></array>" * 65),
        reply("<array><data><value>" * 200_000),
        reply("<struct><member><name>a</name><value>" * 100_000),
        "<methodResponse>" * 100_000,
    ],
    ids=["65", "open arrays", "open structs", "other elements"],
)
def test_a_reply_nested_too_deeply_is_a_parse_error(body: str) -> None:
    with pytest.raises(XmlRpcParseError, match=r"nested deeper than 64|unexpected"):
        answered(body)


def test_faults_are_read_with_the_codes_that_servers_really_send() -> None:
    def fault(code: object, message: object) -> XmlRpcFault:
        value = {"faultCode": code, "faultString": message}
        body = xmlrpc.client.dumps((value,), methodresponse=True)
        body = body.replace("<params>\n<param>", "<fault>").replace(
            "</param>\n</params>", "</fault>"
        )
        with pytest.raises(XmlRpcFault) as caught:
            answered(body)
        return caught.value

    error = fault(4, "Too many parameters.\nReally.")
    assert (error.code, error.message) == (4, "Too many parameters.\nReally.")
    assert str(error) == f"a.method at {URL}: fault 4: Too many parameters. Really."
    assert fault("warning -- Access", "no").code == "warning -- Access"
    assert len(str(fault(1, "x" * 10_000))) < 500
    for code, message in ((1.5, "x"), (1, 2), ([], "")):
        value = {"faultCode": code, "faultString": message}
        body = xmlrpc.client.dumps((value,), methodresponse=True).replace("params>", "fault>")
        with pytest.raises(XmlRpcParseError):
            answered(body.replace("<param>", "").replace("</param>", ""))
