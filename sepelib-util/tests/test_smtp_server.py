"""The server that tests of mail rely on, asked by smtplib and by hand."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from sepelib.util.testing import SmtpServer

pytest_plugins = ["sepelib.util.pytest_plugin"]

TEXT = "Subject: x\r\n\r\n.dot\r\n..\r\n"


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


def client(server: SmtpServer) -> smtplib.SMTP:
    return smtplib.SMTP(*server.address, local_hostname="test", timeout=10)


@pytest.fixture
def line(smtp_server: SmtpServer) -> Iterator[socket.socket]:
    with socket.create_connection(smtp_server.address, timeout=10) as line:
        assert said(line).startswith(b"220 ")
        yield line


def said(line: socket.socket, command: bytes = b"") -> bytes:
    if command:
        line.sendall(command + b"\r\n")
    return line.recv(65536)


def test_it_keeps_what_smtplib_sends(smtp_server: SmtpServer) -> None:
    with client(smtp_server) as smtp:
        refused = smtp.sendmail("a@b", ["c@d", "e@f"], TEXT)
    assert refused == {}
    (mail,) = smtp_server.messages
    assert (mail.sender, mail.recipients) == ("a@b", ("c@d", "e@f"))
    assert mail.data == TEXT.encode()
    assert (mail.tls, mail.user, mail.options) == (False, None, ())
    assert mail.message["Subject"] == "x"
    assert mail.message.get_content() == ".dot\r\n..\r\n"
    assert [line.split()[0].upper() for line in smtp_server.commands] == [
        *("EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT")
    ]


def test_a_waiting_test_sees_a_mail_as_soon_as_it_is_taken(smtp_server: SmtpServer) -> None:
    with client(smtp_server) as smtp:
        smtp.sendmail("a@b", "c@d", TEXT)
        smtp_server.wait_for(lambda: len(smtp_server.messages) == 1, timeout=1.0)


def test_commands_out_of_order_are_refused(line: socket.socket, smtp_server: SmtpServer) -> None:
    assert said(line, b"RCPT TO:<a@b>").startswith(b"503")
    assert said(line, b"DATA").startswith(b"503")
    assert said(line, b"MAIL a@b").startswith(b"501")
    assert said(line, b"MAIL FROM:<a@b>").startswith(b"250")
    assert said(line, b"MAIL FROM:<a@b>").startswith(b"503")
    assert said(line, b"DATA").startswith(b"503")
    assert said(line, b"RSET").startswith(b"250")
    assert said(line, b"MAIL FROM:<a@b>").startswith(b"250")
    assert said(line, b"NOOP").startswith(b"250")
    assert said(line, b"MAKE COFFEE").startswith(b"500")
    assert said(line, b"STARTTLS").startswith(b"502")


def test_a_text_may_come_in_pieces_and_be_empty(
    line: socket.socket, smtp_server: SmtpServer
) -> None:
    said(line, b"MAIL FROM:<a@b>")
    said(line, b"RCPT TO:<c@d>")
    assert said(line, b"DATA").startswith(b"354")
    for piece in (b"one\r", b"\n..two\r\n", b".", b"\r", b"\n"):
        line.sendall(piece)
    assert said(line)[:3] == b"250"
    said(line, b"MAIL FROM:<a@b>")
    said(line, b"RCPT TO:<c@d>")
    said(line, b"DATA")
    assert said(line, b".").startswith(b"250")
    assert [mail.data for mail in smtp_server.messages] == [b"one\r\n.two\r\n", b""]


def test_a_line_that_is_no_text_is_no_command(line: socket.socket) -> None:
    assert said(line, b"\x16\x03\x01\xfc")[:1] == b"5"
    assert said(line, b"NOOP").startswith(b"250")


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT", "DATA", "TEXT"])
def test_a_failure_strikes_so_many_times_and_its_mail_is_not_kept(
    smtp_server: SmtpServer, stage: Any
) -> None:
    # smtplib answers a refused EHLO by a HELO, which is of the same stage.
    smtp_server.fail(stage, 554, "no", times=2 if stage == "EHLO" else 1)
    with client(smtp_server) as smtp:
        with pytest.raises(smtplib.SMTPException):
            smtp.sendmail("a@b", "c@d", TEXT)
        assert smtp_server.messages == ()
        smtp.rset()
        smtp.sendmail("a@b", "c@d", TEXT)
    assert len(smtp_server.messages) == 1


def test_a_failure_may_be_for_one_address_and_for_ever(smtp_server: SmtpServer) -> None:
    smtp_server.fail("RCPT", 550, "gone", address="c@d", times=None)
    with client(smtp_server) as smtp:
        for _ in range(3):
            assert smtp.sendmail("a@b", ["c@d", "e@f"], TEXT) == {"c@d": (550, b"gone")}
        smtp_server.heal()
        assert smtp.sendmail("a@b", ["c@d", "e@f"], TEXT) == {}


def test_421_closes_the_connection(line: socket.socket, smtp_server: SmtpServer) -> None:
    smtp_server.fail("MAIL", 421)
    assert said(line, b"MAIL FROM:<a@b>").startswith(b"421")
    assert said(line) == b""


@pytest.mark.parametrize(("stage", "kept"), [("RCPT", 0), ("DATA", 0), ("TEXT", 1)])
@pytest.mark.parametrize("answered", [False, True])
def test_a_connection_is_dropped_instead_of_the_answer_or_after_it(
    line: socket.socket, smtp_server: SmtpServer, stage: Any, kept: int, answered: bool
) -> None:
    (smtp_server.drop_after if answered else smtp_server.drop)(stage)
    commands = {"MAIL": b"MAIL FROM:<a@b>", "RCPT": b"RCPT TO:<c@d>", "DATA": b"DATA", "TEXT": b"."}
    for name, command in commands.items():
        answer = said(line, command)
        if name == stage:
            break
        assert answer[:1] in (b"2", b"3")
    assert (answer != b"") is answered
    smtp_server.wait_for(lambda: smtp_server.connections.open == 0)
    assert len(smtp_server.messages) == kept


def test_an_idle_connection_gets_421() -> None:
    with (
        SmtpServer(idle_timeout=0.1) as server,
        socket.create_connection(server.address, timeout=10) as line,
    ):
        said(line)
        assert said(line).startswith(b"421 ")
        assert said(line) == b""


def test_answers_drip(smtp_server: SmtpServer) -> None:
    smtp_server.drip(5, 0.05)
    started = time.monotonic()
    with client(smtp_server) as smtp:
        smtp.noop()
        assert time.monotonic() - started > 0.2
        smtp_server.heal()


def test_a_server_that_drips_can_be_stopped(smtp_server: SmtpServer) -> None:
    smtp_server.drip(1, 60.0)
    with socket.create_connection(smtp_server.address, timeout=10) as line:
        assert said(line) == b"2"
        smtp_server.close()


def test_a_stage_that_is_none_is_told(smtp_server: SmtpServer) -> None:
    wrong: Any = "MAILFROM"
    with pytest.raises(ValueError, match="'MAILFROM' is no stage: CONNECT"):
        smtp_server.fail(wrong, 550)


def test_extensions_are_offered_as_asked() -> None:
    with SmtpServer(extensions=("X-ONE",), max_size=1000) as server, client(server) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features == {"x-one": "", "size": "1000"}
        assert smtp.docmd("MAIL FROM:<a@b> SMTPUTF8")[0] == 555
        assert smtp.docmd("MAIL FROM:<a@b> SIZE=1001")[0] == 552
        smtp.esmtp_features.clear()  # a client that does not say the size
        with pytest.raises(smtplib.SMTPDataError):
            smtp.sendmail("a@b", "c@d", "x" * 2000)


def test_addresses_beyond_ascii_want_smtputf8(smtp_server: SmtpServer) -> None:
    with client(smtp_server) as smtp:
        smtp.ehlo()
        smtp.command_encoding = "utf-8"
        assert smtp.docmd("MAIL FROM:<ж@b>")[0] == 553
        assert smtp.docmd("MAIL FROM:<ж@b> SMTPUTF8")[0] == 250
        assert smtp.docmd("RCPT TO:<ж@b>")[0] == 250


@pytest.mark.parametrize("implicit", [False, True])
def test_tls_and_logins(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, implicit: bool
) -> None:
    smtp: smtplib.SMTP
    with SmtpServer(
        ssl_context=server_context, implicit_tls=implicit, users={"ann": "secret"}
    ) as server:
        if implicit:
            smtp = smtplib.SMTP_SSL(
                "localhost", server.port, local_hostname="x", context=client_context, timeout=10
            )
        else:
            smtp = smtplib.SMTP("localhost", server.port, local_hostname="x", timeout=10)
            smtp.starttls(context=client_context)
        with smtp:
            with pytest.raises(smtplib.SMTPSenderRefused, match="log in"):
                smtp.sendmail("a@b", "c@d", TEXT)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                smtp.login("ann", "guess")
            smtp.login("ann", "secret")
            smtp.sendmail("a@b", "c@d", TEXT)
        (mail,) = server.messages
        assert (mail.tls, mail.user) == (True, "ann")
        assert "secret" not in " ".join(server.commands)
        assert not any("AUTH" in line and "***" not in line for line in server.commands[:4])


def test_a_connection_in_tls_is_ended_by_stop(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with SmtpServer(ssl_context=server_context) as server:
        smtp = smtplib.SMTP("localhost", server.port, local_hostname="x", timeout=10)
        smtp.starttls(context=client_context)
        server.restart()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.noop()
        smtp.close()
        with smtplib.SMTP("localhost", server.port, local_hostname="x", timeout=10) as again:
            again.starttls(context=client_context)
            again.sendmail("a@b", "c@d", TEXT)


def test_a_client_that_goes_at_any_moment_is_no_failure_of_the_server(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with SmtpServer(ssl_context=server_context) as server:
        for step in ("connect", "ehlo", "starttls", "data"):
            smtp = smtplib.SMTP("localhost", server.port, local_hostname="x", timeout=10)
            if step != "connect":
                smtp.ehlo()
            if step == "starttls":
                smtp.docmd("STARTTLS")
            if step == "data":
                smtp.starttls(context=client_context)
                for command in ("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"):
                    smtp.docmd(command)
                smtp.send("half a te")
            smtp.close()
        server.wait_for(lambda: server.connections == (4, 0))
        assert server.messages == ()
