"""A mail server which keeps what it gets and fails as a test says."""

from __future__ import annotations

import base64
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ._threaded_server import ThreadedServer

if TYPE_CHECKING:
    import ssl
    from email.message import EmailMessage

__all__ = ["ReceivedMail", "SmtpServer"]

Stage: TypeAlias = Literal[
    "CONNECT", "EHLO", "STARTTLS", "AUTH", "RSET", "MAIL", "RCPT", "DATA", "TEXT", "QUIT"
]
_STAGES = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "RSET", "MAIL", "RCPT", "DATA", "TEXT", "QUIT")
_DONE = {
    "CONNECT": "220 test server",
    "RSET": "250 reset",
    "MAIL": "250 sender ok",
    "RCPT": "250 recipient ok",
    "DATA": "354 go ahead",
    "TEXT": "250 taken",
    "STARTTLS": "220 begin",
    "AUTH": "235 welcome",
    "QUIT": "221 bye",
}
_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>\s*(.*)", re.I)


class ReceivedMail(NamedTuple):
    """A mail as it came: *data* is its text, without the dots added for the way."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    options: tuple[str, ...]  # of MAIL, such as "SMTPUTF8"
    tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        """The text, parsed."""
        import email.policy

        return email.message_from_bytes(self.data, policy=email.policy.default)


class _Fault(NamedTuple):
    stage: str
    address: str | None
    reply: bytes | None  # None: the proper one
    hang_up: bool


class SmtpServer(ThreadedServer):
    """A mail server on the loopback, with faults on demand.

        with SmtpServer() as server:
            server.fail("RCPT", 550, "no such user", address="bob@example.org")
            send_mail(sender, ["ann@example.org", "bob@example.org"], ..., port=server.port)
            assert server.messages[0].recipients == ("ann@example.org",)

    The stages are "CONNECT", "EHLO" (HELO too), "STARTTLS", "AUTH", "RSET", "MAIL", "RCPT",
    "DATA", "TEXT" (the mail has come whole, its answer is due) and "QUIT". A fault strikes the
    next *times* it fits (None: each time, until `heal()`), instead of the proper answer; faults
    of one stage strike in the order they were made. Other methods: see ThreadedServer.

    *ssl_context*: STARTTLS is offered, or with *implicit_tls* TLS is spoken from the first byte.
    *users*: {name: password}; AUTH PLAIN and LOGIN are offered and asked for. *extensions*: what
    EHLO lists besides; "SMTPUTF8" not listed is refused when used. *max_size*: bytes, by SIZE.
    *idle_timeout*: seconds after which a silent connection gets 421 and is closed.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        users: Mapping[str, str] | None = None,
        mechanisms: Iterable[str] = ("PLAIN", "LOGIN"),
        extensions: Iterable[str] = ("8BITMIME", "SMTPUTF8"),
        max_size: int | None = None,
        idle_timeout: float | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        super().__init__(
            ssl_context=ssl_context if implicit_tls else None, close_timeout=close_timeout
        )
        self.starttls = ssl_context if not implicit_tls else None
        self.users = dict(users) if users is not None else None
        self.mechanisms = tuple(mechanisms)
        self.extensions = tuple(extensions)
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self._messages: list[ReceivedMail] = []
        self._commands: list[str] = []
        self._faults: list[_Fault] = []
        self._lasting: list[_Fault] = []
        self._drip: tuple[int, float] | None = None

    # Faults.

    def fail(
        self,
        stage: Stage,
        code: int,
        text: str = "as the test says",
        *,
        address: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Answer *code* and *text*; after 421 the connection is closed.

        *address*: only at MAIL from it or RCPT to it. A mail that fails at "TEXT" is not kept.
        """
        reply = f"{code} {text}\r\n".encode()
        self._arm(_Fault(stage, address, reply, code == 421), times)

    def drop(self, stage: Stage, *, address: str | None = None, times: int | None = 1) -> None:
        """Close the connection instead of answering. At "TEXT" the mail is kept: the case in
        which a client cannot know."""
        self._arm(_Fault(stage, address, b"", True), times)

    def drop_after(self, stage: Stage, *, times: int | None = 1) -> None:
        """Answer as is proper, then close the connection. At "TEXT" the mail is kept."""
        self._arm(_Fault(stage, None, None, True), times)

    def say(self, stage: Stage, data: bytes, *, times: int | None = 1) -> None:
        """Send *data*, whatever it is (b"": nothing), as the answer. At "TEXT" the mail is kept."""
        self._arm(_Fault(stage, None, data, False), times)

    def drip(self, count: int, every: float) -> None:
        """Send answers *count* bytes at a time, *every* so many seconds."""
        self._drip = (count, every)

    def heal(self) -> None:
        """No fault any more."""
        with self._changed:
            self._faults, self._lasting, self._drip = [], [], None

    # What a test asks.

    @property
    def messages(self) -> tuple[ReceivedMail, ...]:
        """The mails taken so far; `server.wait_for(lambda: len(server.messages) == 2)`."""
        with self._changed:
            return tuple(self._messages)

    @property
    def commands(self) -> tuple[str, ...]:
        """The lines that clients sent, in order; what follows "AUTH PLAIN" or is asked for in
        base64 is "***"."""
        with self._changed:
            return tuple(self._commands)

    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        talk = _Talk(self, connection, peer, tls=self._ssl_context is not None)
        try:
            talk.run()
        except OSError as e:
            # A client that just goes is no failure; ThreadedServer knows this of its own TLS only.
            if type(e).__name__ not in ("SSLEOFError", "SSLZeroReturnError"):
                raise

    # Inside.

    def _arm(self, fault: _Fault, times: int | None) -> None:
        if fault.stage not in _STAGES:
            raise ValueError(f"{fault.stage!r} is no stage: {', '.join(_STAGES)}")
        with self._changed:
            if times is None:
                self._lasting.append(fault)
            else:
                self._faults += [fault] * times

    def _fault(self, stage: str, address: str | None) -> _Fault | None:
        with self._changed:
            for faults in (self._faults, self._lasting):
                for fault in faults:
                    if fault.stage == stage and fault.address in (None, address):
                        if faults is self._faults:
                            faults.remove(fault)
                        return fault
        return None

    def _note(self, command: str) -> None:
        with self._changed:
            self._commands.append(command)
            self._notify()

    def _keep(self, mail: ReceivedMail) -> None:
        with self._changed:
            self._messages.append(mail)
            self._notify()

    def _start_tls(self, peer: tuple[str, int]) -> socket.socket | None:
        thread = threading.current_thread()
        if self.starttls is None or not self._secure(thread, self.starttls, peer):
            return None
        with self._changed:
            return self._open[thread]


class _HangUp(Exception):
    """The connection is to be closed."""


class _Talk:
    """One connection."""

    def __init__(
        self, server: SmtpServer, connection: socket.socket, peer: tuple[str, int], *, tls: bool
    ) -> None:
        self._server = server
        self._connection = connection
        self._peer = peer
        self._tls = tls
        self._user: str | None = None
        self._received = b""
        self._mail: tuple[str, tuple[str, ...]] | None = None
        self._recipients: list[str] = []

    def run(self) -> None:
        try:
            self._answer("CONNECT")
            while True:
                line = self._line()
                verb, _, rest = line.partition(" ")
                verb = verb.upper()
                self._server._note("AUTH PLAIN ***" if verb == "AUTH" and " " in rest else line)
                method = getattr(self, f"_do_{verb.lower()}", None)
                if method is None:
                    self._send(b"500 what?\r\n")
                else:
                    method(rest)
        except (_HangUp, EOFError):
            pass

    # Commands, named after what the client says.

    def _do_ehlo(self, name: str) -> None:
        lines = ["test server", *self._server.extensions]
        if self._server.max_size is not None:
            lines.append(f"SIZE {self._server.max_size}")
        if self._server.starttls is not None and not self._tls:
            lines.append("STARTTLS")
        if self._server.users is not None:
            lines.append("AUTH " + " ".join(self._server.mechanisms))
        proper = [f"250{'-' if line is not lines[-1] else ' '}{line}\r\n" for line in lines]
        self._answer("EHLO", proper="".join(proper))

    def _do_helo(self, name: str) -> None:
        self._answer("EHLO", proper="250 test server\r\n")

    def _do_starttls(self, rest: str) -> None:
        if self._server.starttls is None or self._tls:
            self._send(b"502 no TLS here\r\n")
            return
        if self._answer("STARTTLS"):
            secured = self._server._start_tls(self._peer)
            if secured is None:
                raise _HangUp
            self._connection, self._tls, self._received = secured, True, b""

    def _do_auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "LOGIN":
            user = self._prompt("Username:")
            password = self._prompt("Password:")
        else:
            _, user, password = base64.b64decode(initial).decode().split("\0")
        if (self._server.users or {}).get(user) != password:
            self._send(b"535 wrong user or password\r\n")
        elif self._answer("AUTH"):
            self._user = user

    def _do_mail(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if found is None:
            self._send(b"501 MAIL FROM:<address>\r\n")
            return
        sender, options = found[1], tuple(found[2].upper().split())
        if self._server.users is not None and self._user is None:
            self._send(b"530 log in first\r\n")
        elif "SMTPUTF8" in options and "SMTPUTF8" not in self._server.extensions:
            self._send(b"555 no SMTPUTF8 here\r\n")
        elif not rest.isascii() and "SMTPUTF8" not in options:
            self._send(b"553 not in ASCII\r\n")
        elif self._too_large(max([int(o[5:]) for o in options if o.startswith("SIZE=")] or [0])):
            self._send(b"552 too large\r\n")
        elif self._mail is not None:
            self._send(b"503 one mail at a time\r\n")
        elif self._answer("MAIL", address=sender):
            self._mail, self._recipients = (sender, options), []

    def _do_rcpt(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if self._mail is None or found is None:
            self._send(b"503 MAIL first\r\n")
        elif not rest.isascii() and "SMTPUTF8" not in self._mail[1]:
            self._send(b"553 not in ASCII\r\n")
        elif self._answer("RCPT", address=found[1]):
            self._recipients.append(found[1])

    def _do_data(self, rest: str) -> None:
        if self._mail is None or not self._recipients:
            self._send(b"503 MAIL and RCPT first\r\n")
            return
        if not self._answer("DATA"):
            return
        data = self._text()
        (sender, options), self._mail = self._mail, None
        if self._too_large(len(data)):
            self._send(b"552 too large\r\n")
            return
        mail = ReceivedMail(sender, tuple(self._recipients), data, options, self._tls, self._user)
        self._answer("TEXT", mail=mail)

    def _do_rset(self, rest: str) -> None:
        if self._answer("RSET"):
            self._mail = None

    def _do_noop(self, rest: str) -> None:
        self._send(b"250 nothing done\r\n")

    def _do_quit(self, rest: str) -> None:
        self._answer("QUIT")
        raise _HangUp

    # Inside.

    def _answer(
        self,
        stage: str,
        *,
        proper: str | None = None,
        address: str | None = None,
        mail: ReceivedMail | None = None,
    ) -> bool:
        """Give the proper answer or the fault that is due; whether it was the proper one."""
        fault = self._server._fault(stage, address)
        reply = (proper or f"{_DONE[stage]}\r\n").encode()
        if fault is not None and fault.reply is not None:
            reply = fault.reply
        if mail is not None and not reply.startswith((b"4", b"5")):
            self._server._keep(mail)  # before the answer: whoever has it finds the mail here
        self._send(reply)
        if fault is not None and fault.hang_up:
            raise _HangUp
        return fault is None

    def _prompt(self, text: str) -> str:
        self._send(b"334 " + base64.b64encode(text.encode()) + b"\r\n")
        answer = self._line()
        self._server._note("***")
        return base64.b64decode(answer).decode()

    def _too_large(self, size: int) -> bool:
        return self._server.max_size is not None and size > self._server.max_size

    def _text(self) -> bytes:
        self._received = b"\r\n" + self._received  # the end of a text that is empty begins so
        self._receive_until(b"\r\n.\r\n")
        text, self._received = self._received.split(b"\r\n.\r\n", 1)
        return re.sub(rb"(?m)^\.", b"", text + b"\r\n")[2:]

    def _line(self) -> str:
        self._receive_until(b"\r\n")
        line, self._received = self._received.split(b"\r\n", 1)
        return line.decode(errors="backslashreplace")  # it may be the hello of TLS

    def _receive_until(self, end: bytes) -> None:
        while end not in self._received:
            self._connection.settimeout(self._server.idle_timeout)
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                self._send(b"421 idle for too long\r\n")
                raise _HangUp from None
            if not data:
                raise EOFError
            self._received += data

    def _send(self, data: bytes) -> None:
        self._connection.settimeout(None)
        while data and (drip := self._server._drip) is not None:
            count, every = drip
            self._connection.sendall(data[:count])
            data = data[count:]
            if self._server.ending.wait(every):
                raise _HangUp
        if data:
            self._connection.sendall(data)
