"""The head of a request: what becomes of it, and what is refused with which status."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.flask.server._limits import Limits
from sepelib.flask.server._parser import CHUNKED, Refused, check_beginning, parse_head

LIMITS = Limits(max_headers=5, max_request_line=200, max_header_bytes=1000)


def parsed(*lines: str, limits: Limits = LIMITS) -> tuple[dict[str, Any], int, bool, bool]:
    environ: dict[str, Any] = {}
    head = "\r\n".join(lines).encode("latin-1")
    return environ, *parse_head(head, environ, limits)


def get(target: str, *headers: str) -> dict[str, Any]:
    return parsed(f"GET {target} HTTP/1.1", "Host: x", *headers)[0]


def refused(*lines: str, limits: Limits = LIMITS) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        parsed(*lines, limits=limits)
    return caught.value.status, caught.value.reason


def with_header(header: str) -> tuple[int, str]:
    return refused("POST / HTTP/1.1", "Host: x", header)


MALFORMED = (400, "malformed")


def test_a_plain_request_becomes_an_environment() -> None:
    environ, length, keep_alive, expects = parsed(
        "GET /a/b?c=d&e HTTP/1.1", "Host: example.org:80", "X-Forwarded-For:  1.2.3.4 \t"
    )

    assert environ == {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/a/b?c=d&e",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d&e",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.org:80",
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
    }
    assert (length, keep_alive, expects) == (0, True, False)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/%41%2f%2F", "/A//"),
        ("/%d0%b6", "/\xd0\xb6"),  # the bytes of UTF-8 as latin-1, as PEP 3333 has it
        ("/\xd0\xb6", "/\xd0\xb6"),
        ("/%zz%4", "/%zz%4"),
        ("/a%00%0d%0ab", "/a\x00\r\nb"),
        ("//a/../b", "//a/../b"),
    ],
)
def test_a_path_is_unquoted_to_latin_1(target: str, path: str) -> None:
    environ = get(target)
    assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == (path, target)


def test_a_query_stays_quoted_and_may_hold_question_marks() -> None:
    assert get("/?a=%26&b=?")["QUERY_STRING"] == "a=%26&b=?"


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other:81/a?b", "/a", "other:81"),
        ("HTTPS://other", "/", "other"),
        ("http://other?q", "/", "other"),
        ("http://[::1]:80/", "/", "[::1]:80"),
    ],
)
def test_an_absolute_target_names_the_host(target: str, path: str, host: str) -> None:
    environ = get(target)
    assert (environ["PATH_INFO"], environ["HTTP_HOST"]) == (path, host)


def test_options_may_ask_about_the_server_as_a_whole() -> None:
    assert parsed("OPTIONS * HTTP/1.1", "Host: x")[0]["PATH_INFO"] == "*"


def test_equal_headers_are_joined_and_cookies_by_a_semicolon() -> None:
    environ = get("/", "Accept: a", "Cookie: x=1", "ACCEPT: b", "cookie: y=2")
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a, b", "x=1; y=2")


def test_names_with_an_underscore_are_dropped_as_they_could_pass_for_others() -> None:
    environ = get("/", "X-User: real", "X_User: forged", "Content_Length: 5")
    assert environ["HTTP_X_USER"] == "real"
    assert "CONTENT_LENGTH" not in environ and "HTTP_CONTENT_LENGTH" not in environ


def test_type_and_length_go_without_http() -> None:
    environ, length, *_ = parsed(
        "POST / HTTP/1.1", "Host: x", "Content-Type: text/plain", "Content-Length: 007"
    )
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"], length) == ("text/plain", "007", 7)


@pytest.mark.parametrize(
    ("version", "header", "keep_alive"),
    [
        ("1.1", "A: b", True),
        ("1.1", "Connection: close", False),
        ("1.1", "Connection: Foo , CLOSE", False),
        ("1.1", "Connection: closed", True),
        ("1.0", "A: b", False),
        ("1.0", "Connection: keep-alive", True),
        ("1.0", "Connection: Keep-Alive, close", False),
    ],
)
def test_who_keeps_the_connection(version: str, header: str, keep_alive: bool) -> None:
    assert parsed(f"GET / HTTP/{version}", "Host: x", header)[2] is keep_alive


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / XTTP/1.1",
        "G@T / HTTP/1.1",
        f"{'A' * 33} / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /#fragment HTTP/1.1",
        "GET ftp://x/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://user@host/ HTTP/1.1",
        "",
    ],
)
def test_an_odd_request_line_is_refused(line: str) -> None:
    assert refused(line, "Host: x") == MALFORMED


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"])
def test_another_version_is_refused_as_such(version: str) -> None:
    assert refused(f"GET / {version}", "Host: x") == (505, "version")


def test_connect_is_not_implemented() -> None:
    assert refused("CONNECT x:443 HTTP/1.1", "Host: x") == (501, "not_implemented")


@pytest.mark.parametrize(
    "header",
    [
        "no colon",
        "Accept",
        ": no name",
        "Space : x",
        " folded",
        "\tfolded",
        "Na(me: x",
        "N\xe4me: x",
        "A: nul\x00",
        "A: bare\rcr",
        "A: bare\nlf",
        "A: escape\x1b",
        "A: delete\x7f",
        "Host: y",
    ],
)
def test_an_odd_header_is_refused(header: str) -> None:
    get("/", "Accept: x")  # from now on a name that is known
    assert with_header(header) == MALFORMED


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a:b", "a:999999", "[::1", "a\xe4", "?"])
def test_an_impossible_host_is_refused(host: str) -> None:
    assert refused("GET / HTTP/1.1", f"Host: {host}") == MALFORMED


def test_http_1_1_needs_a_host_and_1_0_does_not() -> None:
    assert refused("GET / HTTP/1.1") == MALFORMED
    assert refused("GET http://x/ HTTP/1.1") == MALFORMED
    assert "HTTP_HOST" not in parsed("GET / HTTP/1.0")[0]
    assert parsed("GET / HTTP/1.1", "Host:")[0]["HTTP_HOST"] == ""


@pytest.mark.parametrize(
    "value", ["", "+5", "-5", "5 5", "0x5", "5,5", "5, 5", "\xb2", "1_0", "5.0"]
)
def test_an_impossible_content_length_is_refused(value: str) -> None:
    assert with_header(f"Content-Length: {value}") == MALFORMED


@pytest.mark.parametrize(
    "name", ["Content-Length", "Content-Type", "Transfer-Encoding", "Authorization"]
)
def test_what_has_one_value_may_not_come_twice(name: str) -> None:
    value = "chunked" if name == "Transfer-Encoding" else "5"
    assert (
        refused("POST / HTTP/1.1", "Host: x", f"{name}: {value}", f"{name}: {value}") == MALFORMED
    )


def test_a_content_length_of_too_many_digits_is_too_large() -> None:
    assert with_header(f"Content-Length: {'9' * 19}") == (413, "body_too_large")
    assert parsed("POST / HTTP/1.1", "Host: x", f"Content-Length: {'9' * 18}")[1] == 10**18 - 1


def test_a_chunked_body_has_no_other_length() -> None:
    assert parsed("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: Chunked")[1] == CHUNKED
    both = ("Content-Length: 5", "Transfer-Encoding: chunked")
    assert refused("POST / HTTP/1.1", "Host: x", *both) == MALFORMED
    assert refused("POST / HTTP/1.0", "Host: x", both[1]) == MALFORMED


@pytest.mark.parametrize("value", ["gzip", "gzip, chunked", "chunked, chunked", "identity", ""])
def test_an_unknown_transfer_encoding_is_not_implemented(value: str) -> None:
    assert with_header(f"Transfer-Encoding: {value}") == (501, "not_implemented")


def test_only_100_continue_can_be_expected() -> None:
    assert with_header("Expect: fries") == (417, "expectation")
    assert parsed("POST / HTTP/1.1", "Host: x", "Expect: 100-Continue")[3] is True
    assert parsed("POST / HTTP/1.0", "Host: x", "Expect: 100-continue")[3] is False


def test_the_limits_are_exact() -> None:
    line = f"GET /{'a' * (200 - 14)} HTTP/1.1"
    assert len(line) == 200
    assert parsed(line, "Host: x")[0]["PATH_INFO"]
    assert refused(line.replace("/a", "/aa"), "Host: x") == (414, "line_too_long")
    many = [f"A{n}: b" for n in range(4)]
    assert parsed("GET / HTTP/1.1", "Host: x", *many)[0]["HTTP_A3"] == "b"
    assert refused("GET / HTTP/1.1", "Host: x", *many, "B: c") == (431, "headers_too_large")


def test_long_and_many_names_do_not_fill_the_memory() -> None:
    from sepelib.flask.server import _parser

    for number in range(3000):
        parsed("GET / HTTP/1.1", "Host: x", f"X-{number}: a")
    parsed("GET / HTTP/1.1", "Host: x", f"{'long' * 40}: a")

    assert len(_parser._keys) <= 1024
    assert max(map(len, _parser._keys)) <= 64


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (b"", None),
        (b"\r", None),
        (b"G", None),
        (b"GET / HTTP/1.1", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
        (b"\x16\x03\x01", 400),  # TLS
        (b"\r\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/9.9\r\n", 505),
        (b"GET /" + b"a" * 200, 414),
        (b"GET / HTTP/1.1\r\n" + b"a" * 1000, 431),
    ],
)
def test_a_hopeless_beginning_is_refused_before_the_rest_comes(
    part: bytes, status: int | None
) -> None:
    if status is None:
        check_beginning(part, LIMITS)
    else:
        with pytest.raises(Refused) as caught:
            check_beginning(part, LIMITS)
        assert caught.value.status == status


@given(st.binary(max_size=300))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_any_bytes_are_parsed_or_refused(noise: bytes) -> None:
    statuses = {400}
    for head in (noise, b"GET / HTTP/1.1\r\nHost: x\r\n" + noise):
        environ: dict[str, Any] = {}
        try:
            length, *_ = parse_head(head, environ, LIMITS)
        except Refused as error:
            statuses.add(error.status)
        else:
            assert length >= CHUNKED
            assert not any("\r" in v or "\n" in v for k, v in environ.items() if k != "PATH_INFO")
    assert statuses <= {400, 413, 414, 417, 431, 501, 505}


TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


@given(
    st.dictionaries(st.from_regex(r"\A[A-Za-z][A-Za-z0-9-]{0,10}\Z"), TEXT, max_size=4),
    st.sampled_from(["\r\n", "\r\n "]),
)
@settings(derandomize=True, max_examples=200, deadline=None)
def test_what_a_client_writes_properly_arrives_as_it_was(
    headers: dict[str, str], line_end: str
) -> None:
    special = {"host", "content-length", "transfer-encoding", "expect", "content-type"}
    named = {name.upper(): value for name, value in headers.items() if name.lower() not in special}
    lines = [f"{name}: {value}" for name, value in named.items()]
    head = line_end.join(["GET / HTTP/1.1\r\nHost: x", *lines]).encode("latin-1")
    environ: dict[str, Any] = {}

    if line_end != "\r\n" and lines:  # folded
        with pytest.raises(Refused):
            parse_head(head, environ, LIMITS)
    else:
        parse_head(head, environ, LIMITS)
        for name, value in named.items():
            assert environ["HTTP_" + name.replace("-", "_")] == value.strip(" \t")
