from __future__ import annotations

import enum
import random
import string
import time
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urljoin, urlsplit

import pytest

from sepelib.util.secrets import Secret
from sepelib.util.url import UrlTemplate, expand, redact_text, redact_url

ALPHABET = string.printable[:95] + "/./..//%2e%2F?#&;=@:\\ éя€😀"  # dots and slashes weigh more


def words(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(ALPHABET, k=rng.randrange(0, 9))) for _ in range(count)]


# Templates


def test_a_value_cannot_leave_its_segment() -> None:
    url = expand("/users/{id}/files/{name}", id="../admin", name="a/b?c#d%2e;e\\f")

    assert url == "/users/..%2Fadmin/files/a%2Fb%3Fc%23d%252e%3Be%5Cf"


def test_any_value_comes_back_from_its_segment_and_its_parameter() -> None:
    template = UrlTemplate("http://host/a/{one}/b-{two}.json?q={three}&r=1#{four}")
    refused = 0
    for one, two, three, four in zip(*(words(seed, 3000) for seed in range(4)), strict=True):
        if {one, two} & {"", ".", ".."}:
            refused += 1
            with pytest.raises(ValueError, match="no segment"):
                template.expand(one=one, two=two, three=three, four=four)
            continue
        url = template.expand(one=one, two=two, three=three, four=four)
        parts = urlsplit(urljoin("http://host/", url))
        segments = parts.path.split("/")
        assert [parts.netloc, len(segments)] == ["host", 4], url
        assert unquote(segments[2]) == one
        assert unquote(segments[3]) == f"b-{two}.json"
        assert parse_qsl(parts.query, keep_blank_values=True) == [("q", three), ("r", "1")]
        assert unquote(parts.fragment) == four
    assert 0 < refused < 1500


def test_a_path_value_keeps_its_slashes_and_stays_below_its_place() -> None:
    template = UrlTemplate("/repos/{path:path}?at={ref}")
    assert template.expand(path="a/b c/d?e", ref="x/y") == "/repos/a/b%20c/d%3Fe?at=x%2Fy"
    kept = 0
    for path in words(7, 5000):
        try:
            url = template.expand(path=path, ref="")
        except ValueError:
            assert {"", ".", ".."} & set(path.split("/"))
            continue
        kept += 1
        parts = urlsplit(urljoin("http://host/repos/", url))
        assert unquote(parts.path) == "/repos/" + path
    assert kept > 2500


@pytest.mark.parametrize("value", ["", ".", "..", b"..", b""])
@pytest.mark.parametrize("template", ["/a/{x}", "/a/{x}/b", "/a/.{x}", "/{x}{x}", "/a/{x:path}"])
def test_what_a_client_would_resolve_is_refused(template: str, value: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"x (is|has an) empty"):
        expand(template, x=value)


@pytest.mark.parametrize("path", ["/etc", "a//b", "a/", "../a", "a/../b", "a/./b", "a/.."])
def test_a_path_value_with_an_empty_or_dot_segment_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="empty segment"):
        expand("/files/{p:path}", p=path)


def test_dots_mean_nothing_in_a_parameter_and_it_may_be_empty() -> None:
    assert expand("/s?q={q}&p={p}#{f}", q="..", p="", f=".") == "/s?q=..&p=#."


@pytest.mark.parametrize("value", ["a\nb", "\x00", "a\x7f", "\x85", b"\r\n", b"\x7f"])
@pytest.mark.parametrize("template", ["/{x}", "/{x:path}", "/?q={x}", "http://{x}/"])
def test_control_characters_are_refused(template: str, value: str | bytes) -> None:
    with pytest.raises(ValueError, match="x has a control character"):
        expand(template, x=value)


def test_values_are_str_bytes_and_int() -> None:
    class Kind(str, enum.Enum):  # noqa: UP042 - its str() is "Kind.BIG"
        BIG = "big one"

    class Level(enum.IntEnum):
        HIGH = 3

    assert expand("/{a}/{b}/{c}/{d}", a=-7, b=b"\xff/", c=Kind.BIG, d=Level.HIGH) == (
        "/-7/%FF%2F/big%20one/3"
    )
    assert unquote_to_bytes(expand("{x}", x=b"\xf0\x9f%")) == b"\xf0\x9f%"


@pytest.mark.parametrize("value", [None, True, 1.5, ["a"], Secret("hunter2")])
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"'/a/{{x}}': x is str, .*not {type(value).__name__}$"):
        expand("/a/{x}", x=value)


def test_an_error_names_the_template_and_not_the_value() -> None:
    with pytest.raises(ValueError, match="lone surrogate") as refused:
        expand("/t/{token}", token="hunter2\ud800")
    assert "'/t/{token}': token" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_missing_and_unknown_names_are_told() -> None:
    with pytest.raises(TypeError, match=r"'/\{a\}/\{b\}/\{b\}': no value for a; has no c, d$"):
        expand("/{a}/{b}/{b}", b=1, c=2, d=3)
    with pytest.raises(TypeError, match=r"no value for a$"):
        expand("/{a}")
    with pytest.raises(TypeError, match=r"has no self, template$"):
        expand("/x", self=1, template=2)


def test_a_value_in_the_host_cannot_move_it() -> None:
    assert expand("https://{region}.api.test/{x}", region="eu-1", x="a") == (
        "https://eu-1.api.test/a"
    )
    for host in ("evil.test/", "evil.test#", "a@evil.test", "evil:80", "", ".evil", "e\u0301vil"):
        with pytest.raises(ValueError, match="goes into the host"):
            expand("https://{region}.api.test/", region=host)
        with pytest.raises(ValueError, match="goes into the host"):
            expand("//{region}/", region=host)


@pytest.mark.parametrize(
    "template",
    [
        *("/{a", "/a}", "/{}", "/{a b}", "/{a:int}", "/{1}", "/{{a}}", "/a b", "/a\n", "/{a?b}"),
        *("/x{a:path}", "/{a:path}x", "/{a:path}{b}", "/?q={a:path}", "http://{a:path}/"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"^URL template ") as refused:
        UrlTemplate(template)
    assert repr(template) in str(refused.value)


def test_the_rest_of_a_template_stays_as_written() -> None:
    template = UrlTemplate("/100%/%41/{x}/../é?a=%s&b=%(x)s")
    assert template.expand(x="%s") == "/100%/%41/%25s/../é?a=%s&b=%(x)s"
    assert template.template == "/100%/%41/{x}/../é?a=%s&b=%(x)s"
    assert template.names == {"x"}
    assert expand("/plain") == "/plain"


# Redaction

REDACTED = {
    "https://bob:hunter2@host:1/p?q=1": "https://bob:***@host:1/p?q=1",
    "mongodb://app:hunter2@h1:1,h2:2/db": "mongodb://app:***@h1:1,h2:2/db",
    "http://u:p:hunter2@host/": "http://u:***@host/",
    "http://u:hunter2@x@host/": "http://u:***@host/",
    "redis://:hunter2@host/0": "redis://:***@host/0",
    "//u:hunter2@host/": "//u:***@host/",
    "://u:hunter2@host/": "://u:***@host/",
    "git+HTTPS://hunter2@host/": "git+HTTPS://***@host/",
    "https://hunter2:@host/": "https://***:@host/",
    "https://hunter2:x-oauth-basic@host/": "https://***:x-oauth-basic@host/",
    # a password that should have been quoted
    "mongodb://u:hun/ter2#a?b@host/db": "mongodb://u:***@host/db",
    "http://h/?password=hunter2&a=1": "http://h/?password=***&a=1",
    "/p?a=1&API_KEY=hunter2#x": "/p?a=1&API_KEY=***#x",
    "http://h/#access_token=hunter2&state=1": "http://h/#access_token=***&state=1",
    "http://h/?a=1;token=hunter2;b=3&c=4": "http://h/?a=1;token=***&c=4",
    "http://h/?p%61ss%77ord=hunter2": "http://h/?p%61ss%77ord=***",
    "http://h/?X-Amz-Signature=hunter2&sig=hunter2": "http://h/?X-Amz-Signature=***&sig=***",
    "http://h/?user[passwd]=hunter2": "http://h/?user[passwd]=***",
    "http://h/?next=http://u:hunter2@i/?x=1": "http://h/?next=http://u:***@i/?x=1",
    "http://h/?token=hunter2 or hunter2": "http://h/?token=***",
    "http://u:hunter2@h/?token=a?pass=hunter2": "http://u:***@h/?token=***",
}
UNTOUCHED = [
    "",
    "://",
    "http://host:8080/a/@b?mail=a@b.test&design=1&pinned=1&q=",
    "http://[::1]:80/x@y",
    "ssh://git@host/repo",
    "ftp://user:@host/",
    "http://host/%zz?%zz=%ff&&==;;#?%20\ud800",
    "mailto:bob@host",
    "http://host/?token=&password=",
    "a:b@c",
]


@pytest.mark.parametrize("url", REDACTED)
def test_the_secrets_of_a_url_are_masked_and_the_rest_stays(url: str) -> None:
    assert redact_url(url) == REDACTED[url]
    assert redact_url(REDACTED[url]) == REDACTED[url]


@pytest.mark.parametrize("url", UNTOUCHED)
def test_a_url_without_secrets_stays_byte_for_byte(url: str) -> None:
    assert redact_url(url) == url
    assert redact_text(url) == url


def test_all_urls_of_a_text_are_redacted_and_the_rest_stays() -> None:
    text = (
        "a: GET /x?token=t&n=1 HTTP/1.1; 'http://u:p@h/?n=1&sig=s', <https://tok@h>\n"
        '{"url":"http://a","mail":"b@c","next":"http://h/?key=k"} (see http://h/?pwd=p).'
        " redis://:p@h http://host: refused root@host"
    )
    assert redact_text(text) == (
        "a: GET /x?token=***&n=1 HTTP/1.1; 'http://u:***@h/?n=1&sig=***', <https://***@h>\n"
        '{"url":"http://a","mail":"b@c","next":"http://h/?key=***"} (see http://h/?pwd=***).'
        " redis://:***@h http://host: refused root@host"
    )


def test_random_secrets_never_show_and_nothing_raises() -> None:
    rng = random.Random(3)
    for before, after in zip(words(5, 3000), words(6, 3000), strict=True):
        secret = f"S{rng.getrandbits(64):x}"
        for url in (
            f"http://user:{secret}@host/{before}",
            f"amqp://user:{secret}@host/{before}?{after}",
            f"http://host/?q={before}&token={secret}&{after}",
            f"https://{secret}@host/?{after}",
        ):
            assert secret not in redact_url(url), url
            assert secret not in redact_text(url), url
            assert secret not in redact_text(f"{after} <{url}> {before}"), url


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "://",
            "x://a:b",
            "?",
            "?a",
            "&pass",
            "pass",
            "//",
            "@",
            "u:",
            "?token=",
            ";token=x",
        ),
        *("https:", "http://[", "%2", "?%", "http:///", "a:b@", "://a:b/", "=", "#", "'", "\ud800"),
    ],
)
def test_a_hostile_megabyte_takes_linear_time(piece: str) -> None:
    for start, size in ("", 1_000_000), ("http://u:", 200_000), ("/?token=", 200_000):
        hostile = start + piece * (size // len(piece))
        begun = time.process_time()
        redact_url(hostile)
        redact_text(hostile)
        assert time.process_time() - begun < 10  # linear takes 0.1 to 1, quadratic hours
