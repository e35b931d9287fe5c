"""What a client sends, takes, hides and counts."""

import gzip
import logging
import pickle
import zlib
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import requests

from sepelib.util import request_id
from sepelib.util.testing import Clock, MemoryRecorder, ThreadedServer
from sepelib.yandex.auth import BasicAuth, NoAuth, OAuthToken, TokenSource
from sepelib.yandex.base import ApiClient, Stream
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    ApiResponseError,
    BadRequest,
    CredentialsUnavailable,
    ForeignLink,
    NotFound,
    YandexError,
)
from sepelib.yandex.testing import FakeRequest, FakeService, Reply, route

MARKER = "marker-of-a-secret"


class FakeEcho(FakeService[dict[str, int]]):
    """Says what it was asked."""

    service = "echo"
    prefix = "/api"

    def new_state(self) -> dict[str, int]:
        return {}

    @route("GET", "/things/{key}", op="things.get", query=None, auth=False)
    @route("POST", "/things/{key}", op="things.create", query=None, auth=False)
    @route("GET", "/other/{key}", op="things.other", query=None, auth=False)
    @route("GET", "/deep/{path:path}", op="deep.get", query=None, auth=False)
    def _echo(self, request: FakeRequest) -> object:
        return {
            "path": request.path,
            "pairs": [list(pair) for pair in request.pairs],
            "headers": dict(request.headers),
            "body": request.body.decode("latin-1"),
        }


class EchoClient(ApiClient):
    service = "echo"
    PATHS = {
        "things.get": "/things/{key}",
        "things.create": "/things/{key}",
        "deep.get": "/deep/{path:path}",
    }

    def get(self, key: str = "k", **options: Any) -> Any:
        return self.request("things.get", "GET", at={"key": key}, **options).data


@pytest.fixture(params=["inprocess", "live"])
def echo(request: pytest.FixtureRequest) -> Iterator[FakeEcho]:
    fake = FakeEcho()
    with fake.serve() if request.param == "live" else nullcontext():
        yield fake


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def client(echo: FakeEcho, recorder: MemoryRecorder) -> Iterator[EchoClient]:
    with client_of(echo, OAuthToken(MARKER), recorder=recorder) as client:
        yield client


def client_of(echo: FakeEcho, auth: Any = None, **options: Any) -> EchoClient:
    if echo.server is None:
        options.setdefault("session", echo.session())
    return EchoClient(echo.url, auth, sleep=lambda seconds: None, **options)


# URLs.


def test_a_value_stays_one_segment_of_the_path_below_the_base(client: EchoClient) -> None:
    assert client.get("T-7")["path"] == "/api/things/T-7"
    assert client.get("../a?b#c d")["path"] == "/api/things/..%2Fa%3Fb%23c%20d"
    deep = client.request("deep.get", "GET", at={"path": "a/b c"}).data
    assert deep["path"] == "/api/deep/a/b%20c"
    for key in ("", ".", "..", "a\nb"):
        with pytest.raises(ValueError, match="key"):
            client.get(key)


def test_parameters_are_written_as_services_read_them(client: EchoClient) -> None:
    params = {"a": True, "b": False, "none": None, "n": 0, "list": ["x y", "z&"], "empty": []}
    assert client.get(params=params)["pairs"] == [
        ["a", "true"], ["b", "false"], ["n", "0"], ["list", "x y"], ["list", "z&"],
    ]  # fmt: skip


def test_paths_can_be_overridden_by_the_name_of_the_operation(echo: FakeEcho) -> None:
    with client_of(echo, paths={"things.get": "/other/{key}"}) as client:
        assert client.get("x")["path"] == "/api/other/x"
    with client_of(echo, paths={"things.get": "/deep/constant"}) as client:
        assert client.get("x")["path"] == "/api/deep/constant"
    with pytest.raises(ValueError, match=r"paths has the unknown operation things\.got"):
        client_of(echo, paths={"things.got": "/x"})
    with pytest.raises(ValueError, match=r"paths\.things\.get has the unknown name id"):
        client_of(echo, paths={"things.get": "/x/{id}"})


def test_an_operation_without_a_path_is_given_one(client: EchoClient) -> None:
    assert client.request("free", "GET", "/things/{k}", at={"k": "a b"}).data["path"] == (
        "/api/things/a%20b"
    )
    with pytest.raises(ValueError, match="the operation free has no path"):
        client.request("free", "GET")


@pytest.mark.parametrize(
    "url",
    ["", "host/path", "ftp://h", "http://", "http://u:secret@h", "http://h?a=1", "http://h#f"],
)
def test_a_base_that_is_none_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"no base URL|has a user in it|no default URL") as caught:
        ApiClient(url)
    assert "secret" not in str(caught.value)


# Links of the service.


def test_a_link_to_the_same_origin_is_followed_with_its_own_query(
    echo: FakeEcho, client: EchoClient
) -> None:
    for link in (f"{echo.url}/things/n?page=2", "/api/things/n?page=2"):
        answer = client.request("things.get", "GET", link=link).data
        assert answer["path"] == "/api/things/n" and answer["pairs"] == [["page", "2"]]


@pytest.mark.parametrize(
    "link",
    [
        "http://evil.test/api/things/n",
        "//evil.test/things",
        "http://evil.test\\@{host}/things",
        "http://{host}\\@evil.test/things",
        "http://user@{host}/things",
        "http://{host}@evil.test/things",
        "http://{host} .evil.test/",
        "ftp://{host}/things",
        "https://{host}/things",
        "http://{host}:1x/things",
        "http://[::1/things",
    ],
)
def test_a_foreign_link_is_refused_before_anything_is_sent(
    echo: FakeEcho, client: EchoClient, link: str
) -> None:
    link = link.replace("{host}", echo.root.removeprefix("http://"))
    with pytest.raises(ForeignLink, match="not followed"):
        client.request("things.get", "GET", link=link)
    assert echo.calls.ops == []


def test_an_allowed_origin_is_followed(echo: FakeEcho) -> None:
    session = echo.session() if echo.server is None else None
    client = EchoClient("http://elsewhere.test", session=session, allowed_origins=[echo.root])
    with client:
        assert client.request("x", "GET", link=f"{echo.url}/things/n").data["path"]


def test_an_anonymous_request_has_nothing_of_the_client(echo: FakeEcho) -> None:
    session = echo.session() if echo.server is None else requests.Session()
    session.headers["Authorization"] = f"Basic {MARKER}"
    session.auth = ("user", MARKER)
    with session:
        client = EchoClient(
            "http://elsewhere.test", OAuthToken(MARKER), session=session, headers={"X-Org": MARKER}
        )
        answer = client.request("x", "GET", link=f"{echo.url}/things/n", anonymous=True).data
        assert MARKER not in str(answer)
        assert "X-Request-Id" in answer["headers"]


def test_a_redirect_is_not_followed(echo: FakeEcho, client: EchoClient) -> None:
    echo.faults.next(status=302, headers={"Location": "http://evil.test/"})
    with pytest.raises(ApiResponseError, match="status 302"):
        client.get()
    assert len(echo.calls.ops) == 1


# Who asks.


def test_a_request_has_the_credential_the_headers_and_an_id(echo: FakeEcho) -> None:
    with client_of(echo, OAuthToken("t0ken"), headers={"X-Org-ID": "7"}) as client:
        headers = client.get(headers={"If-Match": '"3"'})["headers"]
        assert headers["Authorization"] == "OAuth t0ken"
        assert (headers["X-Org-ID"], headers["If-Match"]) == ("7", '"3"')
        assert headers["Accept"] == "application/json"
        assert len(headers["X-Request-Id"]) == 34 and headers["X-Request-Id"].endswith("-1")
        other = client.get(auth=BasicAuth("ann", "pw"))["headers"]
        assert other["Authorization"] == "Basic YW5uOnB3"
        assert "Authorization" not in client.get(auth=NoAuth())["headers"]


def test_the_id_of_the_request_being_answered_comes_first(client: EchoClient) -> None:
    with request_id.using("outer-1"):
        sent = client.get()["headers"]["X-Request-Id"]
    assert sent.startswith("outer-1.") and sent.endswith("-1")
    with request_id.using("x" * 64):
        assert request_id.accepted(client.get()["headers"]["X-Request-Id"])


def test_without_a_token_nothing_is_sent(echo: FakeEcho, tmp_path: Any) -> None:
    auth = OAuthToken(TokenSource.file(tmp_path / "none"))
    with client_of(echo, auth) as client, pytest.raises(CredentialsUnavailable) as caught:
        client.get()
    assert "none cannot be read: No such file" in str(caught.value)
    assert caught.value.op == "things.get" and echo.calls.ops == []


def test_a_session_of_the_caller_is_used_as_it_is(echo: FakeEcho) -> None:
    session = echo.session() if echo.server is None else requests.Session()
    session.headers["X-Own"] = "yes"
    session.auth = ("ann", "pw")
    before = (dict(session.headers), session.verify, session.trust_env, dict(session.adapters))
    with EchoClient(echo.url, session=session) as client:
        headers = client.get()["headers"]
        assert headers["X-Own"] == "yes" and headers["Authorization"] == "Basic YW5uOnB3"
    assert before == (
        dict(session.headers),
        session.verify,
        session.trust_env,
        dict(session.adapters),
    )
    assert session.get(f"{echo.url}/things/x").ok, "the client has not closed it"
    session.close()


def test_the_own_session_takes_nothing_from_the_environment_and_keeps_no_cookies(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password pw")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    echo = FakeEcho()
    with echo.serve(), client_of(echo) as client:
        echo.faults.next(json={}, headers={"Set-Cookie": "sid=1"}, status=200)
        client.get()
        headers = client.get()["headers"]
    assert "Authorization" not in headers and "Cookie" not in headers


# What comes back.


def test_an_answer_has_status_headers_text_and_data(echo: FakeEcho, client: EchoClient) -> None:
    echo.faults.play(Reply(201, json={"a": 1}, headers={"ETag": '"7"'}))
    answer = client.request("things.create", "POST", at={"key": "k"})
    assert (answer.status, answer.headers["etag"], answer.data) == (201, '"7"', {"a": 1})
    echo.faults.play(
        Reply(200, body="caf\xe9".encode("cp1252"), content_type="text/plain; charset=cp1252")
    )
    assert client.request("things.get", "GET", at={"key": "k"}, decode=False).text == "caf\xe9"
    echo.faults.play(Reply(204))
    assert client.get() is None
    echo.faults.play(Reply(304))
    assert client.request("things.get", "GET", at={"key": "k"}, expect=(304,)).status == 304


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": "bad", "message": "no such queue"}, "no such queue", "bad"),
        ({"msg": "m"}, "m", ""),
        ({"error": "invalid_grant", "error_description": "over"}, "over", "invalid_grant"),
        ({"error": "only_code"}, "only_code", "only_code"),
        ({"errorMessages": ["first", "second"], "statusCode": 400}, "first", ""),
        ({"detail": "d", "reason": "r"}, "r", ""),
        ({"message": {"deep": 1}}, '{"message": {"deep": 1}}', ""),
        (["list"], '["list"]', ""),
    ],
)
def test_the_words_of_the_service_are_found(
    echo: FakeEcho, client: EchoClient, body: Any, message: str, code: str
) -> None:
    echo.faults.next(status=400, json=body)
    with pytest.raises(BadRequest) as caught:
        client.get()
    assert (caught.value.message, caught.value.code) == (message, code)
    assert str(caught.value).startswith(f"echo things.get (GET {echo.url}/things/k): status 400")


def test_words_for_single_fields_are_kept(echo: FakeEcho, client: EchoClient) -> None:
    echo.faults.next(status=422, json={"errors": {"queue": "is needed"}, "errorMessages": []})
    with pytest.raises(BadRequest, match="queue: is needed") as caught:
        client.get()
    assert caught.value.fields == {"queue": "is needed"}


def test_an_error_without_words_tells_the_status(echo: FakeEcho, client: EchoClient) -> None:
    echo.faults.next(status=404, body=b"")
    with pytest.raises(NotFound, match="status 404: no words in the answer"):
        client.get()


def test_what_a_service_says_is_one_short_line(echo: FakeEcho, client: EchoClient) -> None:
    echo.faults.next(status=400, body=b"line\n\x1b[31mred\x00" + b"x" * 5000)
    with pytest.raises(BadRequest) as caught:
        client.get()
    line = str(caught.value)
    assert "\n" not in line and "\x1b" not in line and len(line) < 500


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked(echo: FakeEcho, client: EchoClient, coding: str) -> None:
    packed = gzip.compress(b'{"a": 1}') if coding == "gzip" else zlib.compress(b'{"a": 1}')
    reply = Reply(200, body=packed, headers={"Content-Encoding": coding})
    echo.faults.play(reply)
    assert client.get() == {"a": 1}
    echo.faults.play(Reply(200, body=packed[:-6], headers={"Content-Encoding": coding}), times=3)
    with pytest.raises(ApiProtocolError, match="compressed answer has no end"):
        client.get()
    echo.faults.play(Reply(200, body=b"no gzip", headers={"Content-Encoding": coding}), times=3)
    with pytest.raises(ApiProtocolError, match="compressed answer is broken"):
        client.get()


def test_a_body_is_read_as_far_as_allowed(echo: FakeEcho) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    with client_of(echo, max_body=100_000) as client:
        for reply in (
            Reply(200, body=b"x" * 100_001),
            Reply(200, body=bomb, headers={"Content-Encoding": "gzip"}),
            Reply(500, body=b"x" * 100_001),
        ):
            echo.faults.play(reply)
            with pytest.raises(ApiProtocolError, match="larger than max_body=100000 bytes") as c:
                client.get()
            assert c.value.attempts == 1
        assert client.get()


def test_a_stream_is_read_in_pieces_and_gives_its_connection_back(
    echo: FakeEcho, tmp_path: Any
) -> None:
    body = bytes(range(256)) * 4096
    with client_of(echo, max_connections=1, max_body=1000) as client:
        for headers, sent in (({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body))):
            echo.faults.play(Reply(200, body=sent, headers=headers))
            with client.request("x", "GET", "/things/x", stream=True) as stream:
                assert stream.status == 200
                with open(tmp_path / "file", "wb") as file:
                    assert stream.save(file) == len(body)
            assert (tmp_path / "file").read_bytes() == body
        opened: list[Stream | None] = [client.request("x", "GET", "/things/x", stream=True)]
        opened[0] = None  # dropped, not closed
        with client.request("x", "GET", "/things/x", stream=True, total_timeout=5.0) as stream:
            next(stream.pieces())  # not to its end
        echo.faults.next(status=404)
        with pytest.raises(NotFound):
            client.request("x", "GET", "/things/x", stream=True)
        assert client._slots.free == 1


def test_a_stream_that_breaks_off_is_a_connection_error() -> None:
    class Broken(ThreadedServer):
        def handle(self, connection: Any, peer: tuple[str, int]) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

    with Broken() as server, EchoClient(f"http://{server.host}:{server.port}") as client:
        with client.request("x", "GET", "/x", stream=True) as stream:
            pieces = stream.pieces()
            with pytest.raises(ApiConnectionError, match="before the whole answer"):
                b"".join(pieces)
        assert client._slots.free == client._slots.size


# What nobody may see.


def test_no_secret_is_in_logs_errors_or_pickles(
    echo: FakeEcho, client: EchoClient, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"oauth_token": MARKER, "SessionID": MARKER, "userip": MARKER, "code": MARKER}
    sent: list[dict[str, Any]] = [
        {"params": secret},
        {"data": secret},
        {"json": {"Password": MARKER}},
        {"headers": {"X-Ya-User-Ticket": f"3:user:{MARKER}"}},
    ]
    words = f'{{"message": "bad {MARKER}", "access_token": "{MARKER}", "error": "OAuth {MARKER}"}}'
    shown = [repr(client)]
    for options in sent:
        for fault in (
            {"status": 400, "body": words},
            {"status": 500, "body": f"<html>{MARKER}"},
            {"body": f"<html>{MARKER}"},
            {"reset": "after-apply"},
        ):
            echo.faults.on("*", **fault)  # type: ignore[arg-type]
            with pytest.raises(YandexError) as caught:
                client.request("things.create", "POST", at={"key": "k"}, idempotent=True, **options)
            echo.faults.clear()
            error: BaseException | None = caught.value
            while error is not None:
                shown += [str(error), repr(error), repr(vars(error))]
                shown += [
                    str(pickle.loads(pickle.dumps(error))),
                    str(getattr(error, "__notes__", "")),
                ]
                assert MARKER.encode() not in pickle.dumps(error)
                error = error.__cause__ or error.__context__
    shown += [caplog.text, str(recorder.series("yandex_requests"))]
    assert MARKER not in "\n".join(shown)
    assert len(caplog.records) > 10


def test_it_says_that_it_trusts_everybody(caplog: pytest.LogCaptureFixture) -> None:
    ApiClient("https://x.test", verify=False).close()
    assert [r.getMessage() for r in caplog.records] == [
        "<ApiClient at https://x.test> does not check certificates"
    ]


# What is counted.


def test_each_attempt_is_counted_by_its_result(
    echo: FakeEcho, client: EchoClient, recorder: MemoryRecorder
) -> None:
    client.get()
    for fault in ({"status": 500}, {"status": 404}, {"body": b"<"}, {"reset": "before-apply"}):
        echo.faults.next(**fault)  # type: ignore[arg-type]
        with suppress(NotFound):
            client.get()
    count = {labels[2]: n for labels, n in recorder.series("yandex_requests").items()}
    assert count == {"ok": 4, "5xx": 1, "4xx": 1, "protocol": 1, "connect": 1}
    assert {labels[:2] for labels in recorder.series("yandex_requests")} == {("echo", "things.get")}
    assert len(recorder.observations("yandex_seconds", "echo", "things.get")) == 8


def test_a_client_of_a_default_url_needs_no_argument() -> None:
    class Known(ApiClient):
        default_url = "https://known.test/base/"

    with Known(sleep=Clock().sleep) as client:
        assert repr(client) == "<Known at https://known.test/base>"
    with pytest.raises(ValueError, match="ApiClient has no default URL: give url="):
        ApiClient()


@pytest.mark.parametrize("timeout", [0, -1.0, (1.0, 0.0), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        ApiClient("http://x.test", timeout=timeout)
