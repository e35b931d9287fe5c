"""Answers and arguments that nobody should send: what they end with, and what is said of it."""

import base64
import gzip
import io
import json
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from sepelib.core.config import ConfigError
from sepelib.util.testing import Clock, ThreadedServer
from sepelib.yandex.auth import BasicAuth, OAuthToken, SessionCookie, TokenSource
from sepelib.yandex.base import ApiClient, Response
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    ApiTimeout,
    BadRequest,
    DeadlineExceeded,
    WaitTimeout,
    YandexError,
)


class Replying(ThreadedServer):
    """Gives the next of *replies* to each request, the last one to all others; says `asked`."""

    def __init__(self, *replies: bytes) -> None:
        super().__init__()
        self._replies = list(replies)
        self.asked: list[bytes] = []

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection.makefile("rb") as lines:
            length, head = 0, b""
            while (line := lines.readline()) not in (b"\r\n", b""):
                head += line
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.asked.append(head + lines.read(length))
            connection.sendall(self._replies.pop(0) if self._replies[1:] else self._replies[0])


class ThingClient(ApiClient):
    service = "thing"
    PATHS = {"get": "/x", "post": "/x"}

    def check(self, response: Response, /) -> None:
        data = response.data
        if isinstance(data, dict) and "later" in data:
            raise ApiResponseError("later", status=response.status, temporary=True)

    def get(self, **options: Any) -> Response:
        return self.request("get", "GET", **options)

    def post(self, **options: Any) -> Response:
        return self.request("post", "POST", **options)


@contextmanager
def client_of(*replies: bytes, **options: Any) -> Iterator[tuple[ThingClient, Replying]]:
    with Replying(*replies) as server:
        url = f"http://{server.host}:{server.port}"
        with ThingClient(url, sleep=lambda seconds: None, **options) as client:
            yield client, server
            assert client._slots.free == client._slots.size


def reply(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# Answers.


@pytest.mark.parametrize("charset", ["idna", "undefined", "a\0b", "base64", "\xff", ""])
def test_a_charset_that_is_none_is_utf_8(charset: str) -> None:
    answer = reply("нет".encode(), "400 No", Content_Type=f"text/plain; charset={charset}")
    with client_of(answer) as (client, _), pytest.raises(BadRequest, match="нет"):
        client.get()


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"xx", Content_Encoding="gzip"),
        reply(gzip.compress(b"{}")[:-4], Content_Encoding="gzip"),
        reply(b"xx", Content_Encoding="br"),
        reply(b"x" * 1001),
        reply(b"{", Content_Type="application/json"),
    ],
    ids=["broken", "cut", "coding", "large", "json"],
)
def test_an_answer_of_success_that_cannot_be_read_may_be_of_a_call_that_worked(
    answer: bytes,
) -> None:
    with client_of(answer, max_body=1000) as (client, server):
        with pytest.raises(ApiProtocolError) as caught:
            client.post()
        assert caught.value.maybe_applied and len(server.asked) == 1


@pytest.mark.parametrize(
    "status", ["207 Multi-Status", "206 Partial", "303 See Other", "302 Found", "101 Switching"]
)
def test_only_a_refusal_promises_that_nothing_was_done(status: str) -> None:
    with client_of(reply(b"{}", status)) as (client, _):
        with pytest.raises(ApiResponseError) as caught:
            client.post()
        assert caught.value.maybe_applied
    with client_of(reply(b"{}", "409 Conflict")) as (client, _):
        with pytest.raises(ApiResponseError) as caught:
            client.post()
        assert not caught.value.maybe_applied


def test_a_temporary_failure_told_in_a_200_may_be_of_a_call_that_worked() -> None:
    with client_of(reply(b'{"later": 1}')) as (client, _):
        with pytest.raises(ApiResponseError) as caught:
            client.post()
        assert caught.value.maybe_applied


def test_headers_that_contradict_each_other_are_an_answer_and_not_a_request_unsent() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}"
    with client_of(answer) as (client, server):
        with pytest.raises(ApiConnectionError) as caught:
            client.post()
        assert caught.value.maybe_applied and len(server.asked) == 1
        with pytest.raises(ApiConnectionError) as caught:
            client.get()
        assert caught.value.attempts == 3


def test_a_line_that_is_no_status_is_not_repeated_in_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with client_of(b"HTTP/1.1 what-we-have-sent\r\n\r\n") as (client, _):
        with pytest.raises(ApiConnectionError) as caught:
            client.get()
        assert caught.value.attempts == 3 and caught.value.__cause__ is None
    assert "what-we-have-sent" not in caplog.text


def test_tls_that_breaks_is_tried_again_if_the_call_is_idempotent() -> None:
    class Broken(requests.Session):
        def request(self, *args: Any, **kwargs: Any) -> requests.Response:
            raise requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF in violation"))

    with Broken() as session:
        client = ThingClient("https://a.test", session=session, sleep=lambda seconds: None)
        for call, attempts in ((client.get, 3), (client.post, 1)):
            with pytest.raises(ApiConnectionError, match="TLS failed") as caught:
                call()
            assert caught.value.attempts == attempts and caught.value.maybe_applied


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Plain\r\n\r\n", b""], ids=["plain", "silent"])
def test_a_handshake_that_fails_has_sent_nothing(said: bytes) -> None:
    class NoTls(ThreadedServer):
        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            connection.recv(65536)
            connection.sendall(said)
            self.ending.wait(0.0 if said else 10.0)

    with NoTls() as server:
        url, options = f"https://{server.host}:{server.port}", {"timeout": (0.2, 5.0)}
        with (
            ThingClient(url, sleep=lambda seconds: None, **options) as client,
            pytest.raises(ApiConnectionError, match="it was not applied") as caught,
        ):
            client.post()
        assert caught.value.attempts == 3 and not caught.value.maybe_applied
        if not said:
            assert isinstance(caught.value, ApiTimeout) and caught.value.phase == "connect"
            assert "no connection within 0.2 s" in str(caught.value)


def test_a_compressed_body_of_several_members_is_whole() -> None:
    members = gzip.compress(b'{"a": ') + gzip.compress(b"1}")
    with client_of(reply(members, Content_Encoding="gzip")) as (client, _):
        assert client.get().data == {"a": 1}
    with client_of(reply(members + b"\0\0", Content_Encoding="gzip")) as (client, _):
        assert client.get().data == {"a": 1}, "padding is no member"


# Secrets that a service repeats.

LONG = "y0_" + "Ag-x" * 150


def test_a_secret_that_is_repeated_at_the_edge_of_what_is_kept_is_not_shown() -> None:
    for begin in ("", " " * 300):
        body = f"{begin}no {LONG}, no {LONG} no {LONG}".encode()
        with client_of(reply(body, "400 No")) as (client, _):
            with pytest.raises(BadRequest) as caught:
                client.post(auth=OAuthToken(LONG))
            shown = f"{caught.value} {caught.value.body} {caught.value.args}"
            assert "Ag-x" not in shown and "no ***, no *** no ***" in shown


@pytest.mark.parametrize(
    "options",
    [
        {"auth": BasicAuth("ann", 'pa"ss wörd/+')},
        {"data": {"password": 'pa"ss wörd/+'}},
        {"data": [("password", 'pa"ss wörd/+')]},
        {"json": {"deep": [{"Password": 'pa"ss wörd/+'}]}},
        {"json": {"token": ['pa"ss wörd/+']}},
        {"headers": {"X-Ya-User-Ticket": 'pa"ss wörd/+'.encode("latin-1").decode("latin-1")}},
        {"params": {"password": 'pa"ss wörd/+'}},
    ],
    ids=["basic", "form", "pairs", "json", "list", "header", "query"],
)
@pytest.mark.parametrize(
    "said",
    [
        'pa"ss wörd/+',
        json.dumps('pa"ss wörd/+')[1:-1],
        json.dumps('pa"ss wörd/+', ensure_ascii=False)[1:-1],
        "pa%22ss%20w%C3%B6rd/%2B",
        "pa%22ss+w%C3%B6rd%2F%2B",
        "pa&quot;ss wörd/+",
        base64.b64encode('ann:pa"ss wörd/+'.encode()).decode(),
    ],
    ids=["plain", "json", "unicode", "quoted", "form", "html", "basic"],
)
def test_a_secret_is_known_again_however_it_is_written(options: dict[str, Any], said: str) -> None:
    if said.startswith("YW5u") and "auth" not in options:
        said = "as sent by another"
    answer = reply(f"I do not know {said}.".encode(), "400 No")
    with client_of(answer) as (client, _), pytest.raises(BadRequest) as caught:
        client.post(**options)
    shown = f"{caught.value} {caught.value.body}"
    assert said == "as sent by another" or (said not in shown and "***" in shown)


def test_one_cookie_of_two_is_known_again() -> None:
    auth = SessionCookie("3:session-of-ann", ssl_session_id="3:other-of-ann")
    answer = reply(b"no 3:session-of-ann, no 3:other-of-ann", "400 No")
    known = pytest.raises(BadRequest, match=r"no \*\*\*, no \*\*\*")
    with client_of(answer) as (client, _), known:
        client.post(auth=auth)


# Arguments.


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"If-Match": "версия"}},
        {"headers": {"If-Match": "a\r\nX-Evil: 1"}},
        {"headers": {"If-Match": " a"}},
        {"params": {"q": "\ud800"}},
        {"json": float("nan")},
    ],
    ids=["unicode", "line", "space", "surrogate", "nan"],
)
def test_what_cannot_be_sent_is_not_sent(options: dict[str, Any]) -> None:
    with client_of(reply(b"{}")) as (client, server):
        with pytest.raises(ApiConnectionError, match=r"cannot be sent \(.*was not applied") as c:
            client.post(**options)
        assert c.value.attempts == 1 and not c.value.maybe_applied and server.asked == []
        assert c.value.__cause__ is None, "it may have a secret in it"


def test_a_file_that_was_read_for_an_attempt_without_a_connection_is_not_sent_empty() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with Replying(reply(b"{}")) as server:
        alive = f"http://{server.host}:{server.port}"
        with ThingClient([dead, alive], sleep=lambda seconds: None) as client:
            with pytest.raises(ApiConnectionError) as caught:
                client.post(files={"file": ("a.txt", Pipe(b"content"))})
            assert caught.value.attempts == 1 and not caught.value.maybe_applied
            client.post(files={"file": ("a.txt", io.BytesIO(b"content"))})
        assert len(server.asked) == 1 and b"content" in server.asked[0]


@pytest.mark.parametrize(
    "url",
    ["http://a.test/?", "http://a.test/#", " http://a.test", "http://a.test\n", "http://a.te\tst"],
)
def test_a_base_that_would_not_be_the_one_that_is_asked_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no base URL"):
        ThingClient(url)


def test_an_origin_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"other\.test"):
        ThingClient("http://a.test", allowed_origins=["other.test"])


@pytest.mark.parametrize(
    "section",
    [
        {"url": "ftp://a.test"},
        {"url": "http://a.test", "max_connections": 0},
        {"url": "http://a.test", "timeout": {"connect": 0}},
        {"url": "http://a.test", "timeout": {"read": float("inf")}},
        {"url": "http://a.test", "timeout": {"total": float("inf")}},
        {"url": "http://a.test", "retries": {"backoff": [5.0, float("inf")]}},
        {"url": "http://a.test", "paths": {"get": "/{y}"}},
        {"url": "http://a.test", "paths": {"get": "/{"}},
        {"url": "http://a.test", "auth": {"type": "oauth", "token": "два слова"}},
        {},
    ],
)
def test_a_section_that_no_client_can_be_made_of_is_an_error_of_the_configuration(
    section: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match="thing"):
        ThingClient.from_config(section)


def test_a_section_with_one_timeout_leaves_the_other_ones_as_the_client_has_them() -> None:
    class SlowClient(ThingClient):
        def __init__(self, *args: Any, timeout: Any = (0.1, 60.0), **kwargs: Any) -> None:
            super().__init__(*args, timeout=timeout, **kwargs)

    class OtherClient(SlowClient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    for timeout, found in (({"total": 5}, (0.1, 60.0)), ({"read": 2}, (0.1, 2.0))):
        client = OtherClient.from_config({"url": "http://a.test", "timeout": timeout})
        assert client._timeout == found
    client = ThingClient.from_config({"url": "http://a.test", "timeout": {"connect": 2}})
    assert client._timeout == (2.0, 10.0)


# Tokens.


def test_a_token_that_another_call_has_got_anew_meanwhile_is_not_thrown_away() -> None:
    tokens, forgotten = ["old"], []

    def got() -> str:
        return tokens[-1]

    with client_of(reply(b"", "401 No"), reply(b"{}")) as (client, server):
        client._auth = OAuthToken(TokenSource.call(got, invalidate=lambda: forgotten.append(1)))
        parse_error = client.parse_error

        def meanwhile(response: Response) -> ApiResponseError:
            tokens.append("new")  # by another call that was refused as well
            return parse_error(response)

        client.parse_error = meanwhile  # type: ignore[method-assign]
        assert client.get().data == {}
        assert b"OAuth new" in server.asked[1] and forgotten == []


# Waits.


def test_one_question_that_ends_by_its_own_time_does_not_say_that_all_the_time_is_over() -> None:
    def late() -> str:
        raise DeadlineExceeded("the deadline is over")

    clock = Clock()
    client = ThingClient("http://nowhere.test", clock=clock, sleep=clock.sleep)
    with pytest.raises(YandexError) as caught:
        client.wait_for("thing.wait", late, bool, timeout=600.0)
    assert isinstance(caught.value, DeadlineExceeded) and clock.sleeps == []


def test_the_words_in_a_wait_timeout_have_no_secret_and_one_question_is_always_asked() -> None:
    clock = Clock()
    client = ThingClient("http://nowhere.test", OAuthToken(LONG), clock=clock, sleep=clock.sleep)
    with pytest.raises(WaitTimeout) as caught:
        client.wait_for("thing.wait", lambda: f"no {LONG}\n", lambda s: False, timeout=0.0)
    assert caught.value.state == "no ***" and "Ag-x" not in str(caught.value)
