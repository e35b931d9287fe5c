"""Sending: what reaches the server, what is told of a refusal, what a fault costs."""

from __future__ import annotations

import base64
import contextlib
import gc
import itertools
import os
import signal
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from email.message import EmailMessage, Message
from types import FrameType
from typing import Any, cast

import pytest
import trustme

from sepelib.util import smtp
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.secrets import Secret
from sepelib.util.smtp import (
    MailConnectionLost,
    Mailer,
    MailError,
    MailInsecure,
    MailRefused,
    MailTimeout,
    RecipientsRefused,
    build_message,
    send_mail,
)
from sepelib.util.testing import FlakyProxy, SmtpServer, ThreadedServer, check_errors

pytest_plugins = ["sepelib.util.pytest_plugin"]

SENDER, ANN, BOB = "lookout@example.org", "ann@example.org", "bob@example.org"
PASSWORD = "correct horse пароль"
NOT_LOOPBACK = "0x7f.1"  # 127.0.0.1 to the resolver, but not written as one


class Cancelled(BaseException):
    """What gevent.Timeout and GreenletExit are to us."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    with SmtpServer() as warm:  # gevent opens files of its own at the first use
        send(warm)
    files = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == files


def send(server: ThreadedServer, to: Any = ANN, **given: Any) -> smtp.Refused:
    return send_mail(
        given.pop("sender", SENDER),
        to,
        given.pop("subject", "subject"),
        given.pop("text", "text"),
        port=server.port,
        **given,
    )


def to(mailer: Mailer, to: Any = ANN, **given: Any) -> smtp.Refused:
    return mailer.send_mail(SENDER, to, "subject", given.pop("text", "text"), **given)


def caught(error: pytest.ExceptionInfo[MailError]) -> tuple[str, bool, bool]:
    return error.value.stage, error.value.retryable, error.value.maybe_sent


# What arrives.


def test_a_mail_arrives(smtp_server: SmtpServer) -> None:
    refused = send(
        smtp_server,
        ["Ann <ann@example.org>", BOB],
        subject="пожар",
        cc="cc@example.org",
        bcc=["bcc@example.org", f"Bob <{BOB}>"],
    )
    (mail,) = smtp_server.messages
    assert refused == {}
    assert mail.sender == SENDER
    assert mail.recipients == (ANN, BOB, "cc@example.org", "bcc@example.org")
    assert mail.message["Subject"] == "пожар"
    assert b"bcc@" not in mail.data
    assert mail.options == ()
    assert smtp_server.commands[-1] == "QUIT"


@pytest.mark.parametrize(
    "text", [".", "..\n.\n", "a\n.\nMAIL FROM:<x@y>\n", ".\r\n.\r.\n", "\n.", ""]
)
def test_dots_and_line_ends_in_the_text_end_nothing(smtp_server: SmtpServer, text: str) -> None:
    send(smtp_server, text=text)
    (mail,) = smtp_server.messages
    body = mail.data.split(b"\r\n\r\n", 1)[1]
    assert body.replace(b"\r\n", b"") == text.replace("\r", "").replace("\n", "").encode()
    assert len(smtp_server.messages) == 1


def test_a_bare_line_end_in_a_foreign_message_smuggles_nothing_in(smtp_server: SmtpServer) -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message["Bcc"] = "eve@example.org"
    Message.set_payload(message, "one\n.\nMAIL FROM:<x@y>\r.\rtwo\r\n.\r\n")
    with Mailer(port=smtp_server.port) as mailer:
        mailer.send(message, SENDER, [ANN])
    (mail,) = smtp_server.messages
    assert b"eve" not in mail.data
    assert mail.data.count(b"\r") == mail.data.count(b"\n") == mail.data.count(b"\r\n")
    assert mail.data.endswith(b"\r\none\r\n.\r\nMAIL FROM:<x@y>\r\n.\r\ntwo\r\n.\r\n")
    assert message["Bcc"] == "eve@example.org"  # the caller's message is as it was


def test_a_large_mail_arrives_whole(smtp_server: SmtpServer) -> None:
    data = os.urandom(3 << 20)
    send(smtp_server, attachments=[("data.bin", data)])
    (attached,) = smtp_server.messages[0].message.iter_attachments()
    assert attached.get_content() == data


def test_domains_go_over_the_wire_in_idna_without_smtputf8(smtp_server: SmtpServer) -> None:
    send(smtp_server, "anna@bücher.example", sender="Ёж <ivan@пример.рф>")
    (mail,) = smtp_server.messages
    assert mail.sender == "ivan@xn--e1afmkfd.xn--p1ai"
    assert mail.recipients == ("anna@xn--bcher-kva.example",)
    assert "SMTPUTF8" not in mail.options
    assert mail.data.isascii()


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender"])
def test_a_local_part_beyond_ascii_is_sent_by_smtputf8(smtp_server: SmtpServer, field: str) -> None:
    send(smtp_server, **{"to": ANN, field: "иван@пример.рф"})
    (mail,) = smtp_server.messages
    assert "SMTPUTF8" in mail.options
    assert "иван@xn--e1afmkfd.xn--p1ai" in (mail.sender, *mail.recipients)


def test_a_server_without_smtputf8_is_not_sent_what_it_cannot_read() -> None:
    with SmtpServer(extensions=()) as server, Mailer(port=server.port) as mailer:
        with pytest.raises(MailError, match="SMTPUTF8") as error:
            to(mailer, "иван@пример.рф")
        assert caught(error) == ("MAIL", False, False)
        assert "MAIL" not in " ".join(server.commands)
        to(mailer)  # the connection is as good as before
        assert server.connections.accepted == 1


def test_a_mail_to_nobody_is_refused_before_connecting(smtp_server: SmtpServer) -> None:
    with pytest.raises(ValueError, match="needs a recipient"):
        send(smtp_server, [], cc=(), bcc=())
    assert smtp_server.connections.accepted == 0


def test_a_mail_to_bcc_alone_arrives(smtp_server: SmtpServer) -> None:
    send(smtp_server, [], bcc=[ANN, BOB])
    assert smtp_server.messages[0].recipients == (ANN, BOB)


def test_a_server_of_the_old_school_is_greeted_by_helo(smtp_server: SmtpServer) -> None:
    smtp_server.fail("EHLO", 502, "what is EHLO?")
    send(smtp_server)
    assert [line.split()[0] for line in smtp_server.commands[:2]] == ["EHLO", "HELO"]
    assert len(smtp_server.messages) == 1


def test_a_mail_above_the_servers_size_is_refused_before_it_is_sent() -> None:
    with SmtpServer(max_size=10_000) as server:
        send(server, text="x" * 5_000)
        with pytest.raises(MailRefused, match="552") as error:
            send(server, text="x" * 20_000)
        assert caught(error) == ("MAIL", False, False)


# Refusals.


def test_some_refused_are_returned_with_the_servers_words(smtp_server: SmtpServer) -> None:
    smtp_server.fail("RCPT", 550, "5.1.1 no such user", address="bob@xn--e1afmkfd.xn--p1ai")
    smtp_server.fail("RCPT", 450, "come again", address="eve@example.org")
    refused = send(smtp_server, [ANN, "Bob <bob@пример.рф>"], bcc="eve@example.org")
    assert refused == {
        "bob@пример.рф": (550, b"5.1.1 no such user"),
        "eve@example.org": (450, b"come again"),
    }
    assert smtp_server.messages[0].recipients == (ANN,)


@pytest.mark.parametrize(("code", "retryable"), [(450, True), (550, False)])
def test_all_refused_are_raised(smtp_server: SmtpServer, code: int, retryable: bool) -> None:
    smtp_server.fail("RCPT", 550, "gone", address=ANN)
    smtp_server.fail("RCPT", code, "other", address=BOB)
    with pytest.raises(RecipientsRefused, match=r"ann@example\.org: 550 gone") as error:
        send(smtp_server, [ANN, BOB])
    assert error.value.refused == {ANN: (550, b"gone"), BOB: (code, b"other")}
    assert caught(error) == ("RCPT", retryable, False)
    assert smtp_server.messages == ()


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "DATA", "TEXT"])
@pytest.mark.parametrize(("code", "retryable"), [(421, True), (451, True), (554, False)])
def test_a_refusal_says_where_why_and_whether_to_try_again(
    smtp_server: SmtpServer, stage: Any, code: int, retryable: bool
) -> None:
    smtp_server.fail(stage, code, "4.3.0 так вышло")
    with pytest.raises(MailRefused) as error:
        send(smtp_server)
    assert caught(error) == (stage, retryable, False)
    assert error.value.code == code
    assert error.value.reply.decode() == "4.3.0 так вышло"
    assert (
        str(error.value) == f"localhost:{smtp_server.port}: refused {stage}: {code} 4.3.0 так вышло"
    )
    assert smtp_server.messages == ()
    send(smtp_server)


@pytest.mark.parametrize("stage", ["MAIL", "DATA", "TEXT"])
def test_a_refused_mail_does_not_spoil_the_next_one(smtp_server: SmtpServer, stage: Any) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        smtp_server.fail(stage, 554)
        with pytest.raises(MailRefused):
            to(mailer, BOB)
        to(mailer, ANN)
        to(mailer, ANN)
    assert [mail.recipients for mail in smtp_server.messages] == [(ANN,), (ANN,)]
    assert smtp_server.connections.accepted == 1
    assert smtp_server.commands.count("RSET") == 1


def test_the_servers_words_stay_on_one_line(smtp_server: SmtpServer) -> None:
    smtp_server.say("MAIL", b"550-first\r\n550-\x1b[31msecond\x00\r\n550 \xff\r\n")
    with pytest.raises(MailRefused) as error:
        send(smtp_server)
    assert str(error.value).endswith(r"refused MAIL: 550 first [31msecond \xff")
    assert error.value.reply == b"first\n\x1b[31msecond\x00\n\xff"


# What is no SMTP, and what is no server.


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"220x\r\n",
        b"999 hello\r\n",
        b"\r\n",
        b"\x16\x03\x01\x02\n",
        b"x" * 200_000,
        b"220-more\r\n" * 20_000,
    ],
)
def test_what_does_not_talk_smtp_is_told_from_what_does(
    smtp_server: SmtpServer, banner: bytes
) -> None:
    smtp_server.say("CONNECT", banner)
    with pytest.raises(MailError, match="no SMTP at CONNECT") as error:
        send(smtp_server)
    assert caught(error) == ("CONNECT", False, False)
    assert len(str(error.value)) < 500


def test_garbage_after_the_text_leaves_it_open_whether_it_was_sent(smtp_server: SmtpServer) -> None:
    smtp_server.say("TEXT", b"~~~\r\n")
    with pytest.raises(MailError, match="may have been sent") as error:
        send(smtp_server)
    assert caught(error) == ("TEXT", False, True)


def test_a_server_that_is_not_there_is_worth_another_try(smtp_server: SmtpServer) -> None:
    smtp_server.refuse()
    with pytest.raises(MailConnectionLost, match=r"localhost:.*refused") as error:
        send(smtp_server)
    assert caught(error) == ("CONNECT", True, False)
    assert isinstance(error.value, ConnectionError)


def test_a_name_that_does_not_resolve_is_worth_another_try() -> None:
    with pytest.raises(MailConnectionLost) as error:
        send_mail(SENDER, ANN, "s", "t", host="no-such-host.invalid", tls="none")
    assert caught(error) == ("CONNECT", True, False)


def test_the_second_address_of_a_name_is_tried(
    smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, not listening: it refuses
        taken.bind(("127.0.0.1", 0))
        dead, live = taken.getsockname(), smtp_server.address
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (dead, live)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        send(smtp_server)
    assert len(smtp_server.messages) == 1


# Lost connections.


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
def test_a_connection_lost_before_the_text_is_worth_another_try(
    smtp_server: SmtpServer, stage: Any
) -> None:
    smtp_server.drop(stage)
    with pytest.raises(MailConnectionLost, match="closed the connection") as error:
        send(smtp_server)
    assert caught(error) == (stage, True, False)
    assert smtp_server.connections.accepted == 1  # by somebody else: a new one is not repeated


def test_a_drop_after_data_is_not_sent_again(smtp_server: SmtpServer) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        to(mailer)
        smtp_server.drop("TEXT")
        with pytest.raises(MailConnectionLost, match="may have been sent") as error:
            to(mailer, BOB)
        assert caught(error) == ("TEXT", False, True)
        assert [mail.recipients for mail in smtp_server.messages] == [(ANN,), (BOB,)]
        assert smtp_server.connections.accepted == 1
        to(mailer)  # and the next mail goes over a new connection
    assert smtp_server.connections.accepted == 2


def test_a_connection_lost_while_the_text_goes_out_sent_nothing(smtp_server: SmtpServer) -> None:
    with FlakyProxy(*smtp_server.address) as proxy:
        proxy.reset_after(300_000, direction="requests")
        with pytest.raises(MailConnectionLost) as error:
            send(proxy, text="x" * 8_000_000)
        assert caught(error) == ("TEXT", True, False)
    assert smtp_server.messages == ()


def test_a_connection_reset_at_data_is_not_sent_again_on_a_kept_connection(
    smtp_server: SmtpServer,
) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        to(mailer)
        smtp_server.drop("DATA")
        with pytest.raises(MailConnectionLost) as error:
            to(mailer)
        assert caught(error) == ("DATA", True, False)
        assert smtp_server.connections.accepted == 1


def test_a_connection_is_kept_for_the_next_mails(smtp_server: SmtpServer) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        for _ in range(3):
            to(mailer)
        assert smtp_server.connections == (1, 1)
    smtp_server.wait_for(lambda: smtp_server.connections == (1, 0))
    assert len(smtp_server.messages) == 3


def test_an_idle_connection_that_got_421_is_made_anew() -> None:
    with SmtpServer(idle_timeout=0.05) as server, Mailer(port=server.port) as mailer:
        for number in (1, 2, 3):
            to(mailer)
            server.wait_for(lambda: server.connections.open == 0)
            assert len(server.messages) == server.connections.accepted == number


def test_an_idle_connection_that_was_closed_is_made_anew(smtp_server: SmtpServer) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        to(mailer)
        smtp_server.restart()
        to(mailer)
    assert len(smtp_server.messages) == 2


def test_an_idle_connection_that_was_reset_is_made_anew(smtp_server: SmtpServer) -> None:
    with FlakyProxy(*smtp_server.address) as proxy, Mailer(port=proxy.port) as mailer:
        to(mailer)
        assert proxy.cut(reset=True) == 1
        to(mailer)
    assert len(smtp_server.messages) == 2


@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
@pytest.mark.parametrize("how", ["drop", "421"])
def test_a_kept_connection_that_ends_before_data_is_made_anew_once(
    smtp_server: SmtpServer, stage: Any, how: str
) -> None:
    def arm(times: int) -> None:
        if how == "drop":
            smtp_server.drop(stage, times=times)
        else:
            smtp_server.fail(stage, 421, times=times)

    with Mailer(port=smtp_server.port) as mailer:
        to(mailer)
        arm(1)
        to(mailer)
        assert len(smtp_server.messages) == smtp_server.connections.accepted == 2
        arm(2)
        with pytest.raises((MailConnectionLost, MailRefused)) as error:
            to(mailer)
        assert caught(error) == (stage, True, False)
        assert smtp_server.connections.accepted == 3


def test_a_connection_that_ends_at_the_reset_after_a_refusal_is_made_anew(
    smtp_server: SmtpServer,
) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        smtp_server.fail("RCPT", 550)
        smtp_server.drop("RSET")
        with pytest.raises(RecipientsRefused):
            to(mailer)
        to(mailer)
    assert len(smtp_server.messages) == 1


def test_a_connection_idle_for_too_long_is_not_tried(smtp_server: SmtpServer) -> None:
    with Mailer(port=smtp_server.port, max_idle=0) as mailer:
        to(mailer)
        to(mailer)
    assert smtp_server.connections.accepted == 2


# Time.


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
def test_a_silent_server_is_waited_for_in_all_no_longer_than_the_timeout(
    smtp_server: SmtpServer, stage: Any
) -> None:
    smtp_server.say(stage, b"")
    started = time.monotonic()
    with pytest.raises(MailTimeout, match=f"timed out at {stage}$") as error:
        send(smtp_server, timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 3
    assert caught(error) == (stage, True, False)
    assert isinstance(error.value, TimeoutError)


def test_silence_after_the_text_leaves_it_open_whether_it_was_sent(smtp_server: SmtpServer) -> None:
    smtp_server.say("TEXT", b"")
    with pytest.raises(MailTimeout, match="may have been sent") as error:
        send(smtp_server, timeout=0.3)
    assert caught(error) == ("TEXT", False, True)
    assert len(smtp_server.messages) == 1


def test_a_server_that_drips_its_answers_is_given_no_more_time(smtp_server: SmtpServer) -> None:
    smtp_server.drip(1, 0.1)  # each byte comes in time; the banner alone would take 1.7 s
    started = time.monotonic()
    with pytest.raises(MailTimeout):
        send(smtp_server, timeout=0.5)
    assert 0.5 <= time.monotonic() - started < 1.5


def test_a_tls_handshake_that_drips_is_given_no_more_time(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        SmtpServer(ssl_context=server_context, implicit_tls=True) as server,
        FlakyProxy(*server.address) as proxy,
    ):
        proxy.drip(10, 0.1)
        started = time.monotonic()
        with pytest.raises(MailTimeout, match="TLS") as error:
            send(proxy, timeout=0.5, tls="tls", ssl_context=client_context)
        assert 0.5 <= time.monotonic() - started < 1.5
        assert error.value.retryable


def test_answers_that_drip_inside_of_tls_are_given_no_more_time(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        SmtpServer(ssl_context=server_context, implicit_tls=True) as server,
        FlakyProxy(*server.address) as proxy,
        Mailer(port=proxy.port, tls="tls", ssl_context=client_context, timeout=0.7) as mailer,
    ):
        to(mailer)
        proxy.drip(2, 0.1)  # a record of TLS needs many of them, each in time
        started = time.monotonic()
        with pytest.raises(MailTimeout):
            to(mailer)
        assert 0.7 <= time.monotonic() - started < 2


class Deaf(ThreadedServer):
    """A mail server that stops to read when the text comes."""

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        for answer in (b"220 a", b"250 b", b"250 c", b"250 d", b"354 e"):
            connection.sendall(answer + b"\r\n")
            connection.recv(1000)
        self.ending.wait()


@pytest.mark.parametrize("secured", [False, True])
def test_a_server_that_reads_nothing_is_given_no_more_time(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, secured: bool
) -> None:
    how: dict[str, Any] = {"tls": "tls", "ssl_context": client_context} if secured else {}
    with Deaf(ssl_context=server_context if secured else None) as server:
        started = time.monotonic()
        with pytest.raises(MailTimeout) as error:
            send(server, timeout=1.5, text="x" * 8_000_000, **how)
        assert time.monotonic() - started < 5
        assert caught(error) == ("TEXT", True, False)


def test_the_current_deadline_clips_the_timeout(smtp_server: SmtpServer) -> None:
    smtp_server.say("MAIL", b"")
    started = time.monotonic()
    with deadline(0.2), pytest.raises(MailTimeout):
        send(smtp_server)
    assert time.monotonic() - started < 3


def test_nothing_is_begun_once_the_deadline_is_over(smtp_server: SmtpServer) -> None:
    with deadline(0), pytest.raises(DeadlineExceeded):
        send(smtp_server)
    assert smtp_server.connections.accepted == 0


def test_no_timeout_is_no_limit(smtp_server: SmtpServer) -> None:
    smtp_server.drip(40, 0.02)
    send(smtp_server, timeout=None)
    assert len(smtp_server.messages) == 1


@contextlib.contextmanager
def cancelled_after(seconds: float) -> Iterator[None]:
    """A cancellation that no `except Exception` catches, in either world."""
    try:
        from gevent import Timeout, monkey

        patched = monkey.is_module_patched("socket")
    except ImportError:
        patched = False
    if patched:
        with Timeout(seconds, Cancelled):
            yield
        return

    def strike(number: int, frame: FrameType | None) -> None:
        raise Cancelled

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "TEXT"])
def test_a_cancelled_mail_leaves_a_closed_connection_and_a_usable_mailer(
    smtp_server: SmtpServer, stage: Any
) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        smtp_server.say(stage, b"")
        with pytest.raises(Cancelled), cancelled_after(0.2):
            to(mailer)
        smtp_server.wait_for(lambda: smtp_server.connections.open == 0)
        to(mailer)
    assert len(smtp_server.messages) == (2 if stage == "TEXT" else 1)


# TLS and logins.


def test_starttls_hides_the_mail(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with SmtpServer(ssl_context=server_context) as server:
        send(server, tls="starttls", ssl_context=client_context)
        send(server, ssl_context=client_context)  # who hands in a context wants it used
        assert [mail.tls for mail in server.messages] == [True, True]


def test_tls_from_the_first_byte(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with SmtpServer(ssl_context=server_context, implicit_tls=True) as server:
        with Mailer(port=server.port, tls="tls", ssl_context=client_context) as mailer:
            to(mailer)
            to(mailer, text="x" * 2_000_000)
        assert [mail.tls for mail in server.messages] == [True, True]
        assert server.connections.accepted == 1


@pytest.mark.parametrize("tls", [None, "starttls"])
def test_a_server_without_starttls_is_refused(smtp_server: SmtpServer, tls: Any) -> None:
    with pytest.raises(MailInsecure, match="offers no STARTTLS") as error:
        send(smtp_server, host=NOT_LOOPBACK, tls=tls)
    assert caught(error) == ("STARTTLS", False, False)
    assert not any(line.startswith("MAIL") for line in smtp_server.commands)
    send(smtp_server, host=NOT_LOOPBACK, tls="none")  # written, it goes


def test_a_server_that_takes_starttls_back_is_refused(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with SmtpServer(ssl_context=server_context) as server:
        server.fail("STARTTLS", 454, "no TLS today")
        with pytest.raises(MailRefused, match="454 no TLS today") as error:
            send(server, tls="starttls", ssl_context=client_context)
        assert error.value.retryable
        assert server.messages == ()


def test_what_a_man_in_the_middle_puts_behind_starttls_is_refused(
    smtp_server: SmtpServer, client_context: ssl.SSLContext
) -> None:
    smtp_server.say("EHLO", b"250-hello\r\n250 STARTTLS\r\n")
    smtp_server.say("STARTTLS", b"220 begin\r\n250-hello\r\n250 AUTH PLAIN\r\n")
    smtp_server.starttls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(MailError, match="before TLS began"):
        send(smtp_server, tls="starttls", ssl_context=client_context)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_certificate_of_nobody_we_know_is_refused(
    server_context: ssl.SSLContext, implicit: bool
) -> None:
    with SmtpServer(ssl_context=server_context, implicit_tls=implicit) as server:
        with pytest.raises(MailInsecure, match="unable to get local issuer") as error:
            send(server, tls="tls" if implicit else "starttls")
        assert caught(error) == ("TLS", False, False)
        assert server.messages == ()


def test_a_certificate_of_somebody_else_is_refused(
    authority: trustme.CA, client_context: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mail.example.org").configure_cert(context)
    with SmtpServer(ssl_context=context) as server:
        with pytest.raises(MailInsecure, match="localhost"):
            send(server, tls="starttls", ssl_context=client_context)
        assert server.messages == ()


def test_tls_asked_of_a_server_in_clear_is_told(
    smtp_server: SmtpServer, client_context: ssl.SSLContext
) -> None:
    with pytest.raises(MailInsecure, match="no TLS") as error:
        send(smtp_server, tls="tls", ssl_context=client_context, timeout=3.0)
    assert not error.value.retryable


@pytest.mark.parametrize("mechanisms", [("PLAIN", "LOGIN"), ("LOGIN",), ("X", "PLAIN")])
def test_a_user_logs_in(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, mechanisms: tuple[str, ...]
) -> None:
    with SmtpServer(
        ssl_context=server_context, users={"ёж": PASSWORD}, mechanisms=mechanisms
    ) as server:
        for password in (PASSWORD, Secret(PASSWORD)):
            send(server, tls="starttls", ssl_context=client_context, user="ёж", password=password)
        assert [(mail.user, mail.tls) for mail in server.messages] == [("ёж", True)] * 2
        auth = next(n for n, line in enumerate(server.commands) if line.startswith("AUTH"))
        assert "STARTTLS" in server.commands[:auth]


def test_a_loopback_is_trusted_with_a_password_in_clear() -> None:
    with SmtpServer(users={"ann": PASSWORD}) as server:
        send(server, user="ann", password=PASSWORD)
        assert server.messages[0].user == "ann"


def test_an_auth_line_of_before_the_standard_is_understood(smtp_server: SmtpServer) -> None:
    smtp_server.say("EHLO", b"250-hello\r\n250 AUTH=PLAIN LOGIN\r\n")
    smtp_server.users = {"ann": PASSWORD}
    send(smtp_server, user="ann", password=PASSWORD)
    assert smtp_server.messages[0].user == "ann"


def test_a_password_is_not_sent_in_clear_to_another_host() -> None:
    with pytest.raises(ValueError, match="in clear"):
        Mailer("relay.example.org", tls="none", user="ann", password=PASSWORD)


def test_a_server_that_knows_no_login_of_ours_is_told() -> None:
    with SmtpServer(users={"ann": PASSWORD}, mechanisms=("GSSAPI",)) as server:
        with pytest.raises(MailError, match=r"no AUTH PLAIN or LOGIN \(but: GSSAPI\)") as error:
            send(server, user="ann", password=PASSWORD)
        assert caught(error) == ("AUTH", False, False)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("fault", ["echo", "drop"])
def test_a_password_is_in_no_error_though_the_server_repeats_it(mechanism: str, fault: str) -> None:
    secrets = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode())]
    secrets.append(base64.b64encode(b"\0ann\0" + PASSWORD.encode()))
    with SmtpServer(users={"ann": PASSWORD}, mechanisms=(mechanism,)) as server:
        if fault == "drop":
            server.drop("AUTH")
        else:
            server.say("AUTH", b"535 what is " + b" ".join(secrets) + b"?\r\n")
        with pytest.raises(MailError) as error:
            send(server, user="ann", password=PASSWORD)
    shown = repr(error.value) + repr(vars(error.value))
    if fault == "echo":
        assert "535 what is *** *** ***?" in shown
    frames = [frame for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    ours = [frame for frame in frames if "sepelib/util/" in frame.f_code.co_filename]
    assert len(ours) >= 4
    shown += repr([frame.f_locals for frame in ours])
    for secret in (*(secret.decode() for secret in secrets), ascii(PASSWORD), repr(secrets[0])):
        assert secret.strip("b'") not in shown


def test_a_wrong_password_is_told_by_the_server(smtp_server: SmtpServer) -> None:
    smtp_server.users = {"ann": PASSWORD}
    with pytest.raises(MailRefused, match="refused AUTH: 535 wrong user or password") as error:
        send(smtp_server, user="ann", password="guess")
    assert caught(error) == ("AUTH", False, False)
    assert smtp_server.messages == ()


# The Mailer.


def test_a_mailer_is_set_up_by_the_host_alone() -> None:
    ports = {
        (None, "localhost"): 25,
        (None, "relay.example.org"): 25,
        ("tls", "relay.example.org"): 465,
    }
    for (tls, host), port in ports.items():
        assert Mailer(host, tls=cast(Any, tls)).port == port
    assert Mailer("relay.example.org", user="ann", password="x").port == 587
    assert "tls=none" in repr(Mailer("LocalHost")) and "tls=none" in repr(Mailer("127.8.0.1"))
    assert "tls=none" in repr(Mailer("::1"))
    assert "tls=starttls" in repr(Mailer("127.evil.example"))
    assert PASSWORD not in repr(Mailer(user="ann", password=PASSWORD))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "a\r\nb"}, "host"),
        ({"tls": "ssl"}, "tls is"),
        ({"tls": "none", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, "contradict"),
        ({"user": "ann"}, "needs a password"),
        ({"password": "x"}, "a user"),
        ({"user": "ann", "password": "x\0y"}, "NUL"),
        ({"timeout": -1}, "timeout"),
        ({"max_idle": float("nan")}, "max_idle"),
    ],
)
def test_a_mailer_that_cannot_work_is_refused_at_once(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        Mailer(**given)
    assert "x\0y" not in str(error.value)


def test_a_mailer_sends_no_more_once_closed_and_closes_once(smtp_server: SmtpServer) -> None:
    mailer = Mailer(port=smtp_server.port)
    to(mailer)
    mailer.close()
    mailer.close()
    with pytest.raises(RuntimeError, match="closed"):
        to(mailer)
    assert smtp_server.commands.count("QUIT") == 1


def test_close_waits_no_longer_than_a_moment_for_goodbye(smtp_server: SmtpServer) -> None:
    smtp_server.say("QUIT", b"")
    mailer = Mailer(port=smtp_server.port)
    to(mailer)
    started = time.monotonic()
    with deadline(0):  # close() is clean-up: it works after a deadline too
        mailer.close()
    assert time.monotonic() - started < 5


def test_greenlets_and_threads_share_a_mailer(smtp_server: SmtpServer) -> None:
    with Mailer(port=smtp_server.port) as mailer:
        numbers, errors = itertools.count(), list[BaseException]()

        def work() -> None:
            try:
                for _ in range(5):
                    to(mailer, f"user{next(numbers)}@example.org")
            except BaseException as e:
                errors.append(e)

        in_threads(work, 8)
    assert errors == []
    assert len({mail.recipients for mail in smtp_server.messages}) == 40
    assert smtp_server.connections.accepted == 1


def in_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_waiting_for_the_mailer_is_within_the_timeout(smtp_server: SmtpServer) -> None:
    smtp_server.say("MAIL", b"")
    errors: list[MailError] = []
    with Mailer(port=smtp_server.port, timeout=5.0) as mailer:

        def first() -> None:
            try:
                to(mailer)
            except MailError as e:
                errors.append(e)

        thread = threading.Thread(target=first)
        thread.start()
        smtp_server.wait_for(lambda: len(smtp_server.commands) == 2)
        with deadline(0.1), pytest.raises(MailTimeout, match="others were sending") as error:
            to(mailer)
        assert caught(error) == ("WAIT", True, False)
        smtp_server.restart()
        thread.join(10)
    assert [e.stage for e in errors] == ["MAIL"]


def test_a_mail_under_way_is_finished_though_the_mailer_is_closed(smtp_server: SmtpServer) -> None:
    smtp_server.drip(10, 0.02)
    mailer = Mailer(port=smtp_server.port)
    thread = threading.Thread(target=lambda: to(mailer))
    thread.start()
    smtp_server.wait_for(lambda: len(smtp_server.commands) >= 1)
    mailer.close()
    thread.join(10)
    smtp_server.wait_for(lambda: smtp_server.connections.open == 0)
    assert len(smtp_server.messages) == 1


def test_a_forgotten_mailer_does_no_io_when_it_is_collected(smtp_server: SmtpServer) -> None:
    assert not hasattr(Mailer, "__del__")
    mailer = Mailer(port=smtp_server.port)
    to(mailer)
    message = build_message(SENDER, ANN, "s", "t")
    mailer.send(message, SENDER, [BOB])
    assert smtp_server.messages[-1].message["Message-ID"] == message["Message-ID"]
    mailer.close()
    del mailer
    gc.collect()
    assert smtp_server.commands.count("QUIT") == 1


def test_every_error_pickles_copies_and_is_one_line() -> None:
    check_errors(
        smtp,
        examples=[
            MailError("h:25: no SMTP", stage="CONNECT", retryable=True, maybe_sent=True),
            MailRefused("h:25: 451 later", stage="MAIL", code=451, reply=b"later\nreally"),
            RecipientsRefused("h:25: all", refused={ANN: (550, b"gone"), BOB: (450, b"later")}),
            MailTimeout("h:25: timed out", stage="TEXT", maybe_sent=True),
        ],
    )
