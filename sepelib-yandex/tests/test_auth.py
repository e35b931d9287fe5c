"""Where credentials come from, where they go, and that nobody sees them."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.secrets import Secret
from sepelib.yandex.auth import (
    Auth,
    BasicAuth,
    CombinedAuth,
    NoAuth,
    OAuthToken,
    SessionCookie,
    TokenSource,
    TvmTicket,
    UserTicket,
    auth_from_config,
    token_id,
)
from sepelib.yandex.errors import CredentialsUnavailable

TOKEN = "y0_marker-of-a-token"


def applied(auth: Auth) -> dict[str, str]:
    headers: dict[str, str] = {}
    auth.apply(headers)
    return headers


class Tickets:
    def __init__(self) -> None:
        self.number = 1

    def service_ticket(self, dst: str, /) -> Secret[str]:
        return Secret(f"3:serv:{dst}:{self.number}")

    def forget(self, dst: str, /) -> None:
        self.number += 1


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        (NoAuth(), {}),
        (OAuthToken(TOKEN), {"Authorization": f"OAuth {TOKEN}"}),
        (OAuthToken(Secret(TOKEN), scheme="Bearer"), {"Authorization": f"Bearer {TOKEN}"}),
        (
            BasicAuth("Aladdin", "open sesame"),
            {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
        ),
        (SessionCookie("3:a"), {"Cookie": "Session_id=3:a"}),
        (SessionCookie("3:a", ssl_session_id="b"), {"Cookie": "Session_id=3:a; sessionid2=b"}),
        (TvmTicket(Tickets(), "blackbox"), {"X-Ya-Service-Ticket": "3:serv:blackbox:1"}),
        (
            CombinedAuth(TvmTicket(Tickets(), "bb"), UserTicket("3:user:x")),
            {"X-Ya-Service-Ticket": "3:serv:bb:1", "X-Ya-User-Ticket": "3:user:x"},
        ),
    ],
)
def test_each_strategy_writes_its_headers(auth: Auth, headers: dict[str, str]) -> None:
    assert applied(auth) == headers
    for value in headers.values():
        assert value not in repr(auth) and value.split()[-1] not in repr(auth)


def test_a_ticket_that_was_refused_is_asked_for_again() -> None:
    auth = CombinedAuth(TvmTicket(Tickets(), "bb"), UserTicket("3:user:x"), NoAuth())
    auth.invalidate()
    assert applied(auth)["X-Ya-Service-Ticket"] == "3:serv:bb:2"


def test_an_environment_variable_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = OAuthToken(TokenSource.env("SOME_TOKEN"))
    monkeypatch.delenv("SOME_TOKEN", raising=False)
    with pytest.raises(CredentialsUnavailable, match="SOME_TOKEN has no token"):
        applied(auth)
    monkeypatch.setenv("SOME_TOKEN", f" {TOKEN}\n")
    assert applied(auth)["Authorization"] == f"OAuth {TOKEN}"


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    source = TokenSource.file(file)
    assert source.token().reveal() == TOKEN
    file.write_text("second-token")
    assert source.token().reveal() == "second-token"
    other = tmp_path / "other"
    other.write_text("third-token!")
    other.replace(file)
    assert source.token().reveal() == "third-token!"


def test_a_file_of_one_size_and_time_is_read_again_after_a_401(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token-a")
    status = file.stat()
    source = TokenSource.file(file)
    assert source.token().reveal() == "token-a"
    file.write_text("token-b")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    source.invalidate()
    assert source.token().reveal() == "token-b"


@pytest.mark.parametrize("broken", [b"", b"  \n", b"\xff\xfe", None])
def test_the_last_token_serves_while_its_file_is_being_replaced(
    tmp_path: Path, broken: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    source = TokenSource.file(file)
    source.token()
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken)
    source.invalidate()
    assert source.token().reveal() == TOKEN
    assert "the last token is used" in caplog.text and TOKEN not in caplog.text
    with pytest.raises(CredentialsUnavailable, match=r"token file .*token (is|cannot)"):
        TokenSource.file(file).token()


def test_a_callable_is_asked_each_time_and_told_of_a_401() -> None:
    tokens, told = iter(["first", "second"]), []
    source = TokenSource.call(lambda: next(tokens), invalidate=lambda: told.append(1))
    assert source.token().reveal() == "first"
    source.invalidate()
    assert source.token().reveal() == "second" and told == [1]


@pytest.mark.parametrize("bad", ["", "two\nlines", "t\xf6ken", "nul\0"])
def test_what_cannot_be_a_header_is_no_token_and_is_not_shown(bad: str) -> None:
    for make in (OAuthToken, UserTicket, SessionCookie):
        with pytest.raises(CredentialsUnavailable, match="empty or not printable") as caught:
            make(bad)
        assert not bad or bad not in str(caught.value)
    with pytest.raises(CredentialsUnavailable):
        applied(OAuthToken(TokenSource.call(lambda: bad)))


def test_a_password_of_a_source_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    auth, headers = BasicAuth("ann", TokenSource.file(file)), {}
    auth.apply(headers)
    assert headers == {"Authorization": "Basic YW5uOmZpcnN0"}
    file.write_text("second")
    auth.invalidate()
    auth.apply(headers)
    assert headers == {"Authorization": "Basic YW5uOnNlY29uZA=="}


def test_a_login_with_a_colon_is_refused() -> None:
    with pytest.raises(ValueError, match="no colon"):
        BasicAuth("a:b", "pw")


def test_sources_show_where_they_look_and_not_what_they_found(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(TOKEN)
    for source in (TokenSource(TOKEN), TokenSource.file(tmp_path / "t"), TokenSource.env("T")):
        assert TOKEN not in repr(source) and TOKEN not in repr(OAuthToken(source))
        assert TOKEN not in str(vars(source))
    assert "t>" in repr(TokenSource.file(tmp_path / "t"))


def test_a_token_is_recognised_by_its_id() -> None:
    assert token_id(TOKEN) == token_id(Secret(TOKEN)) != token_id("other")
    assert len(token_id(TOKEN)) == 8 and token_id(TOKEN) not in TOKEN


def test_threads_read_a_rotating_file_without_ever_missing_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token-0")
    source, wrong = TokenSource.file(file), []
    source.token()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            token = source.token().reveal()
            if not token.startswith("token-"):
                wrong.append(token)
            time.sleep(0)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        new = tmp_path / "new"
        new.write_text(f"token-{number}")
        new.replace(file)
        time.sleep(0)
    done.set()
    for thread in threads:
        thread.join(20.0)
    assert wrong == [] and source.token().reveal() == "token-199"


# Of the configuration.


@pytest.mark.parametrize(
    ("section", "headers"),
    [
        ({"type": "none"}, {}),
        ({"type": "oauth", "token": TOKEN}, {"Authorization": f"OAuth {TOKEN}"}),
        ({"type": "oauth", "token": Secret(TOKEN)}, {"Authorization": f"OAuth {TOKEN}"}),
        ({"type": "oauth", "token": "t", "scheme": "Bearer"}, {"Authorization": "Bearer t"}),
        ({"type": "basic", "login": "a", "password": "b"}, {"Authorization": "Basic YTpi"}),
    ],
)
def test_a_section_makes_a_strategy(section: dict[str, Any], headers: dict[str, str]) -> None:
    assert applied(auth_from_config(section)) == headers


def test_a_section_names_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").write_text("of-file")
    monkeypatch.setenv("T", "of-env")
    for section, token in (
        ({"token_file": str(tmp_path / "t")}, "of-file"),
        ({"token_env": "T"}, "of-env"),
    ):
        auth = auth_from_config({"type": "oauth", **section})
        assert applied(auth)["Authorization"] == f"OAuth {token}"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "auth.type is one of"),
        ({"type": "magic"}, "auth.type is one of"),
        ({"type": "oauth"}, "one of token, token_env, token_file"),
        ({"type": "oauth", "token": TOKEN, "token_env": "T"}, "one of token"),
        ({"type": "oauth", "token": TOKEN, "tokenfile": "x"}, "unknown key tokenfile"),
        ({"type": "oauth", "token_env": 7}, "auth.token_env is not a text"),
        ({"type": "basic", "password": "x"}, "auth.login is a text"),
    ],
)
def test_a_section_that_does_not_fit_is_told_without_its_values(
    section: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        auth_from_config(section)
    assert TOKEN not in str(caught.value)
