"""The errors of a RestClient: what they are, what they say, and what they never say."""

import copy
import email.utils
import pickle
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests

from sepelib.core.exceptions import Error
from sepelib.http import InstrumentedSession, RestClient, errors
from sepelib.http.testing import HttpTestServer, ReceivedRequest, Reply, faults
from sepelib.util import deadline, request_id
from sepelib.util.retry import RetryPolicy
from sepelib.util.testing import check_errors

URL = "http://staff.example/users/7?login=ann"
SHOWN = "http://staff.example/users/7?login=***"
TOKEN = "s3cr3t-t0ken/+="


@pytest.fixture
def server() -> Iterator[HttpTestServer]:
    with HttpTestServer() as server:
        yield server


@pytest.fixture
def session() -> Iterator[InstrumentedSession]:
    once = RetryPolicy(requests.RequestException, attempts=1)
    with InstrumentedSession(retries=once) as session:
        yield session


@pytest.fixture
def client(server: HttpTestServer, session: InstrumentedSession) -> RestClient:
    return RestClient(session, server.url)


def failure(client: RestClient, server: HttpTestServer, reply: Reply) -> errors.RestError:
    """What `client.get("/x")` raises when it is answered by *reply*."""
    server.route("GET", "/x", lambda request: reply)
    with pytest.raises(errors.RestError) as caught:
        client.get("/x")
    return caught.value


def http_error(client: RestClient, server: HttpTestServer, reply: Reply) -> errors.HttpError:
    error = failure(client, server, reply)
    assert isinstance(error, errors.HttpError)
    return error


# The classes.


def test_each_error_pickles_copies_and_is_one_line() -> None:
    answered = [
        cls("GET", URL, status, "Reason", "b\no\ndy", "words", "id-1", 1.5)
        for cls, status in [
            (errors.HttpError, 600),
            (errors.ClientError, 400),
            (errors.Unauthorized, 401),
            (errors.Forbidden, 403),
            (errors.NotFound, 404),
            (errors.Conflict, 409),
            (errors.RateLimited, 429),
            (errors.ServerError, 500),
            (errors.UnexpectedStatus, 302),
        ]
    ]
    unanswered = [
        cls("GET", URL, "why\nnot", maybe_sent=False)
        for cls in [errors.TransportError, *errors.TransportError.__subclasses__()]
    ]
    others = [errors.RestError("words"), errors.LinkRefused("GET", URL, "http://staff.example:80")]
    check_errors(errors, examples=[*answered, *unanswered, *others])
    kept = errors.InvalidResponse("GET", URL, "not JSON", True, "<ht\nml>")
    check_errors(examples=[kept])
    kept.add_note("while reading the users")
    assert copy.copy(kept).__notes__ == ["while reading the users"]


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        if "──" in line:
            indent, name = line.index("──"), line.partition("──")[2].split()[0]
            above = [one for one in above if one[0] < indent]
            drawn[name] = above[-1][1] if above else "Error"
            above.append((indent, name))
    bases = {name: getattr(errors, name).__bases__ for name in errors.__all__}
    assert drawn == {name: base[0].__name__ for name, base in bases.items()}


def test_one_root_and_the_deadline_of_the_house() -> None:
    assert all(issubclass(getattr(errors, name), errors.RestError) for name in errors.__all__)
    assert issubclass(errors.RestError, Error)
    assert issubclass(errors.DeadlineExceeded, deadline.DeadlineExceeded)
    assert not issubclass(errors.ReadTimeout, OSError)


def test_each_kind_is_one_word_of_its_own() -> None:
    kinds = [cls.kind for cls in errors.TransportError.__subclasses__()]
    assert len(set(kinds)) == len(kinds) == 9
    assert all(kind.replace("_", "").isalpha() for kind in kinds)


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.ClientError),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (418, errors.ClientError),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (599, errors.ServerError),
        (206, errors.UnexpectedStatus),
        (304, errors.UnexpectedStatus),
        (777, errors.UnexpectedStatus),
    ],
)
def test_the_status_says_which_class(
    client: RestClient, server: HttpTestServer, status: int, cls: type[errors.HttpError]
) -> None:
    error = http_error(client, server, Reply(status))
    assert type(error) is cls and error.status == status


# The words.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"title": "Out of credit", "detail": "Balance is 30."}', "Out of credit: Balance is 30."),
        ('{"title": "Out of credit"}', "Out of credit"),
        ('{"detail": "Not found."}', "Not found."),
        ('{"message": "Bad\\n credentials", "documentation_url": "x"}', "Bad credentials"),
        ('{"error": "invalid_grant", "error_description": "expired"}', "expired"),
        ('{"error": {"code": 7, "message": "no such user"}}', "no such user"),
        ('{"errors": [{"message": "first"}, {"message": "second"}]}', "first"),
        ('[{"errorMessages": 1, "message": "in a list"}]', "in a list"),
        ('{"message": "", "error": "not empty"}', "not empty"),
        ('{"code": 7}', ""),
        ('{"message": {"a": {"b": {"c": "deep"}}}}', ""),
        ('{"message": ', '{"message":'),
        ("\r\n  no  such user\r\nTraceback:\r\n", "no such user"),
        ("<!DOCTYPE html><html><head><TITLE>\n502 Bad &amp; Ugly</TITLE>", "502 Bad & Ugly"),
        ("<html><body>no title", ""),
        ("<html><title>never closed", ""),
        ("", ""),
        ("\x1b[31mred\x07\u202e", "\\x1b[31mred\\x07\\u202e"),
    ],
)
def test_the_message_is_in_the_servers_own_words(
    client: RestClient, server: HttpTestServer, body: str, words: str
) -> None:
    error = http_error(client, server, Reply(400, body=body))
    assert error.message == words
    text = f"GET {server.url}/x: 400 Bad Request"
    assert str(error) == (f"{text}: {words}" if words else text)


def test_words_that_only_repeat_the_status_are_said_once(
    client: RestClient, server: HttpTestServer
) -> None:
    error = http_error(client, server, Reply(404, json={"error": "not found"}))
    assert str(error) == f"GET {server.url}/x: 404 Not Found"


def test_the_message_stays_one_line_of_a_bearable_length(
    client: RestClient, server: HttpTestServer
) -> None:
    error = http_error(client, server, Reply(400, json={"message": "long\n" * 5000}))
    assert len(str(error)) < 500 and "long long" in str(error)
    deep = http_error(client, server, Reply(400, body="[" * 60000))
    assert deep.message.startswith("[[[")


def test_the_body_is_kept_up_to_2048_characters_with_its_lines(
    client: RestClient, server: HttpTestServer
) -> None:
    error = http_error(client, server, Reply(500, body="one\r\ntwo\x00\x1b[2J" + "x" * 5000))
    assert error.body.startswith("one\ntwo\\x00\\x1b[2Jxxx") and len(error.body) == 2048


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=cp1251", "нет".encode("cp1251"), "нет"),
        ("text/plain", "нет".encode(), "нет"),
        ("text/plain; charset=utf-8", b"\xffx", "\ufffdx"),
        ("text/plain; charset=no-such", b"\xc3\xa9", "é"),
        ("text/plain; charset=zip", b"x", "x"),
        ("text/plain; charset=undefined", b"x", "x"),
    ],
)
def test_the_body_is_text_whatever_it_was(
    client: RestClient, server: HttpTestServer, content_type: str, body: bytes, text: str
) -> None:
    reply = Reply(500, headers={"Content-Type": content_type}, body=body)
    assert http_error(client, server, reply).body == text


def test_the_request_id_is_the_servers_else_the_one_we_sent(
    client: RestClient, server: HttpTestServer
) -> None:
    with request_id.using("ours-1"):
        theirs = http_error(client, server, Reply(500, headers={"X-Request-Id": "their\x7fs"}))
        ours = http_error(client, server, Reply(500))
    assert theirs.request_id == "their\\x7fs" and ours.request_id == "ours-1"
    assert str(ours).endswith("500 Internal Server Error (request ours-1)")
    assert http_error(client, server, Reply(500)).request_id is None


def test_retry_after_is_seconds_from_now(client: RestClient, server: HttpTestServer) -> None:
    def told(value: str) -> float | None:
        return http_error(client, server, Reply(429, headers={"Retry-After": value})).retry_after

    assert told("7") == 7.0
    assert told("soon") is told("-1") is told("nan") is None
    assert told("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
    in_an_hour = told(email.utils.formatdate(time.time() + 3600, usegmt=True))
    assert in_an_hour is not None and 3500 < in_an_hour <= 3600


def test_a_redirect_that_was_not_followed_says_where_to(
    client: RestClient, server: HttpTestServer
) -> None:
    server.route("POST", "/x", status=302, headers={"Location": "http://h/y?code=1#z"})
    with pytest.raises(errors.UnexpectedStatus, match=r"302 Found: to http://h/y\?code=\*\*\*$"):
        client.post("/x", json={})


def test_an_answer_that_is_no_json_shows_how_it_begins(
    client: RestClient, server: HttpTestServer
) -> None:
    error = failure(client, server, Reply(200, body="<p>Log\n in", headers={"X-Y": "z"}))
    assert isinstance(error, errors.InvalidResponse) and error.maybe_sent
    assert error.excerpt == "<p>Log\n in"
    assert str(error).endswith(
        "200, not JSON: Expecting value: line 1 column 1 (char 0): <p>Log in"
    )


# What is never said.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://bob:pw@host:81/x", "http://host:81/x"),
        ("http://bob:p/w@host/x", "http://host/x"),
        ("http://to:ken@host?a=1&b&&c=", "http://host?a=***&***&&c="),
        ("http://host/x#access_token=1", "http://host/x"),
        ("http://host/a\r\n b", "http://host/a b"),
        ("http://[::1]:80/x?y=[", "http://[::1]:80/x?y=***"),
    ],
)
def test_a_url_is_shown_without_user_and_values(url: str, shown: str) -> None:
    for error in (
        errors.HttpError("GET", url, 500),
        errors.ReadTimeout("GET", url, "why"),
        errors.LinkRefused("GET", url, "origin"),
    ):
        assert error.url == shown
        assert str(error).startswith(f"GET {shown}: ")


def said(error: BaseException) -> str:
    """All that an error says of itself, except by its cause."""
    return f"{error} {error!r} {vars(error)} {pickle.dumps(error)!r} {error.args}"


def test_secrets_that_a_server_repeats_are_masked(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    def debug_page(request: ReceivedRequest) -> Reply:
        """What a framework in debug mode shows, and each secret once more, alone."""
        lines = [request.target, *(f"{name}: {value}" for name, value in request.headers)]
        credentials = (request.header("Authorization") or "").partition(" ")[2]
        lines += [f"<{value}>" for _, value in request.query] + [f"<{credentials}>"]
        lines += ["<bob:hunter22>", f"<{request.args['any']}>", quote(request.args["any"])]
        return Reply(int(request.query[0][1]), body="\n".join(lines))

    server.route("*", "/{any:path}", debug_page)
    session.headers["X-Api-Key"] = "key-of-the-session"
    with_header = RestClient(session, server.url, headers={"Authorization": f"OAuth {TOKEN}"})
    with_auth = RestClient(session, server.url, auth=("bob", "hunter22"))
    with_url = RestClient(session, server.url.replace("//", "//bob:hunter22@"))
    for client in (with_header, with_auth, with_url):
        for status in (401, 500, 200):  # 200: not JSON
            with pytest.raises(errors.RestError) as caught:
                client.get(
                    "/tokens/{token}",
                    token=TOKEN,
                    params={"status": status, "password": "p4ssw0rd!"},
                )
            everything = said(caught.value)
            assert "X-Api-Key: ***" in everything
            secrets = ["t0ken", "Ym9iOmh1bnRlcjIy", "p4ssw0rd", "key-of-the-session"]
            if client is not with_header:
                secrets.append("hunter22")
            assert [secret for secret in secrets if secret in everything] == []


def test_secrets_that_garbage_repeats_are_masked(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    server.next(faults.garbage(f"what is {TOKEN}?\r\n\r\n".encode()))
    client = RestClient(session, server.url, headers={"Authorization": f"OAuth {TOKEN}"})
    with pytest.raises(errors.InvalidResponse, match=r"what is \*\*\*\?") as caught:
        client.get("/x")
    assert "t0ken" not in said(caught.value)


def test_secrets_of_the_url_are_in_no_transport_error(
    server: HttpTestServer, session: InstrumentedSession
) -> None:
    with pytest.raises(ValueError, match="a base URL"):
        RestClient(session, "http://bob:hunter22@host/?token=1")
    client = RestClient(session, server.url.replace("//", "//bob:hunter22@"))
    assert "hunter22" not in repr(client)
    server.refuse()
    with pytest.raises(errors.ConnectFailed) as caught:
        client.get("/tokens/{token}", token=TOKEN, params={"password": "p4ssw0rd!"})
    everything = said(caught.value)
    secrets = ["t0ken", "hunter22", "p4ssw0rd"]
    assert [secret for secret in secrets if secret in everything] == []
    assert "/tokens/***?password=***" in everything
