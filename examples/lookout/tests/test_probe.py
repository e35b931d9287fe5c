"""One probe, against servers that misbehave."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookout.probe import probe
from lookout.records import Result
from lookout.targets import Target
from sepelib.util.instrument import install
from sepelib.util.testing import MemoryRecorder, ThreadedServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server(ThreadedServer):
    """Reads a request, then does what it was made for, which is told which connection it is."""

    def __init__(self, behave: Callable[["Server", socket.socket, int], None]) -> None:
        super().__init__()
        self.behave = behave
        self.requests: list[bytes] = []

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := connection.recv(65536)):
                return
            request += data
        self.requests.append(request)
        self.behave(self, connection, len(self.requests))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def answers(text: bytes) -> Server:
    return Server(lambda server, connection, number: connection.sendall(text))


def ask(url: str, timeout: float = 5.0, **rules: Any) -> Result:
    return probe(Target("t", url, timeout=timeout, **rules))


def command(url: str) -> tuple[int, str]:
    """The exit code of `lookout probe` and what it says: a process patched as the daemon is."""
    done = subprocess.run(
        [sys.executable, "-m", "lookout", "probe", url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_good_answer_is_fine() -> None:
    with answers(OK) as server:
        result = ask(server.url)

    assert result.ok
    assert (result.status, result.tries) == (200, 1)
    assert 0 < result.latency < 5
    assert server.requests[0].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_drips_in_ends_at_the_timeout(part: str) -> None:
    text = b"HTTP/1.1 200 OK\r\nX-Long: "
    if part == "body":
        text += b"x\r\nContent-Length: 1000000\r\n\r\n"

    def drip(server: Server, connection: socket.socket, number: int) -> None:
        connection.sendall(text)
        while not server.ending.wait(0.05):
            connection.sendall(b"x")

    with Server(drip) as server:
        result = ask(server.url, timeout=0.3)

        assert (result.error, result.tries) == ("no complete answer within 0.3 s", 1)
        assert 0.2 < result.latency < 5  # the drip itself never ends
        assert len(server.requests) == 1


def test_the_command_says_in_one_line_how_it_was() -> None:
    with answers(OK) as server:
        url = f"http://bob:sesame@127.0.0.1:{server.port}/"
        code, said = command(url)

    assert code == 0
    shown = re.escape(url.replace("sesame", "***"))
    assert re.fullmatch(rf"{shown}: fine \(\d+ ms\)\n", said)
    assert b"Authorization: Basic " in server.requests[0]


def test_silence_ends_at_the_timeout() -> None:
    with Server(lambda server, connection, number: server.ending.wait(60) and None) as server:
        result = ask(server.url, timeout=0.3)

    assert (result.error, result.status) == ("no complete answer within 0.3 s", None)
    assert result.tries == 1


def test_a_name_that_does_not_resolve_is_named() -> None:
    result = ask("http://nowhere.invalid/x?token=t0ken")

    assert result.error is not None
    assert re.fullmatch(r"nowhere\.invalid does not resolve \([^()]+\)", result.error)


def test_a_refused_connection_is_tried_twice() -> None:
    with answers(OK) as server:
        server.refuse()
        result = ask(server.url)

    assert (result.error, result.tries) == ("connection refused", 2)


def test_a_connection_that_was_cut_once_is_forgiven() -> None:
    def cut_the_first(server: Server, connection: socket.socket, number: int) -> None:
        if number > 1:
            connection.sendall(OK)

    with Server(cut_the_first) as server:
        result = ask(server.url)

    assert (result.error, result.tries) == (None, 2)


def test_an_answer_is_never_asked_for_twice_however_bad() -> None:
    with answers(b"HTTP/1.1 503 <script>alert(1)</script>\r\nContent-Length: 0\r\n\r\n") as server:
        result = ask(server.url)

    assert result.error == "answered 503 Service Unavailable"  # not the server's own words
    assert (result.status, result.tries, len(server.requests)) == (503, 1, 1)


def test_a_status_that_is_not_the_expected_one_is_a_failure() -> None:
    with answers(OK) as server:
        assert ask(server.url, status=200).ok
        assert ask(server.url, status=204).error == "answered 200 OK, expected 204"


def test_a_status_without_a_name_is_said_by_its_number() -> None:
    with answers(b"HTTP/1.1 799 Whatever\r\nContent-Length: 0\r\n\r\n") as server:
        assert ask(server.url).error == "answered 799"


def test_an_answer_that_is_slower_than_allowed_is_a_failure() -> None:
    def late(server: Server, connection: socket.socket, number: int) -> None:
        server.ending.wait(0.05)
        connection.sendall(OK)

    with Server(late) as server:
        result = ask(server.url, max_latency=0.02)

    assert result.error is not None
    assert re.fullmatch(r"answered in \d+\.\d\d s, slower than 0\.02 s", result.error)
    assert result.status == 200


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with answers(OK) as elsewhere:
        location = f"Location: {elsewhere.url}\r\n".encode()
        with answers(b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n") as server:
            result = ask(server.url)

        assert (result.ok, result.status) == (True, 302)
        assert elsewhere.requests == []


def test_a_redirect_to_nowhere_is_an_answer() -> None:
    with answers(b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n") as server:
        assert (ask(server.url).status, ask(server.url).error) == (302, None)


def test_each_probe_connects_anew_whatever_the_server_says() -> None:
    def answer_on(server: Server, connection: socket.socket, number: int) -> None:
        connection.sendall(OK)
        while connection.recv(65536):
            connection.sendall(OK)

    with Server(answer_on) as server:
        assert [ask(server.url).tries for _ in range(3)] == [1, 1, 1]

        assert server.connections.accepted == 3


def test_a_probe_is_measured_by_the_name_of_its_target() -> None:
    recorder = MemoryRecorder()
    former = install(recorder)
    try:
        with answers(OK) as server:
            probe(Target("shop", f"{server.url}secret/42?token=t0ken"))
    finally:
        install(former)

    labels = ("probe", "shop", "GET", "2xx")
    assert recorder.value("http_client_requests", *labels) == 1
    assert len(recorder.observations("http_client_seconds", "probe", "shop")) == 1
    assert recorder.value("http_client_in_flight", "probe") == 0


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found\r\nLocation: /"])
def test_an_endless_body_is_read_up_to_a_limit(status: bytes) -> None:
    sent = 0

    def flood(server: Server, connection: socket.socket, number: int) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")
        while sent < 64 << 20:
            sent += connection.send(b"x" * 65536)

    with Server(flood) as server:
        result = ask(server.url)

    assert result.ok
    assert sent < 64 << 20  # 1 MiB and what the sockets' buffers take


def test_an_answer_that_ends_too_early_is_not_fine() -> None:
    with answers(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as server:
        assert ask(server.url).error == "the answer ended too early"


def test_what_is_not_http_is_said_without_its_text() -> None:
    with answers(b"SSH-2.0-OpenSSH_9.2\r\n") as server:
        assert ask(server.url).error == "not an HTTP answer (BadStatusLine)"


def test_tls_with_a_server_that_does_not_talk_it_fails_in_a_sentence() -> None:
    class Plain(ThreadedServer):
        def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
            connection.recv(65536)
            connection.sendall(OK)

    with Plain() as server:
        result = ask(f"https://127.0.0.1:{server.port}/")

    assert result.error is not None
    assert result.error.startswith("TLS failed (")
    assert result.tries == 1


def test_proxies_and_passwords_of_the_environment_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login bob password sesame\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with answers(OK) as proxy, answers(OK) as server:
        monkeypatch.setenv("http_proxy", proxy.url)

        assert ask(server.url).ok

        assert proxy.requests == []
        assert b"Authorization" not in server.requests[0]
