"""One conversation with a mail server: see `smtp`. After RFC 5321, 3207, 4954 and 6531.

READY ──deliver──► BUSY ──delivered──► READY
  ▲                 ├────refused────► STALE ──RSET──► BUSY
  └─────────────────┘                       whatever else happens ──► CLOSED
"""

from __future__ import annotations

import base64
import enum
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from sepelib.util._smtp_errors import (
    MailConnectionLost,
    MailError,
    MailInsecure,
    MailRefused,
    MailTimeout,
    RecipientsRefused,
    Refused,
)
from sepelib.util._smtp_wire import NotSmtp, Reply, Wire
from sepelib.util.secrets import MASK, Secret

if TYPE_CHECKING:
    import ssl

__all__ = ["Login", "Session", "State", "Tls", "Transaction"]

Tls = Literal["none", "starttls", "tls"]

_GOING = 421  # the server closes the connection
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class State(enum.Enum):
    READY = "ready for a mail"
    BUSY = "in the middle of a mail"
    STALE = "to be reset before the next mail"
    CLOSED = "closed"


class Login(NamedTuple):
    user: str
    password: Secret[str]


class Transaction(NamedTuple):
    """What goes over the wire: addresses in ASCII but for local parts, text with CRLF line ends."""

    sender: str
    recipients: dict[str, str]  # on the wire: as its owner wrote it
    text: bytes
    utf8: bool


class Session:
    """A connection that has greeted, is secured and logged in as asked."""

    def __init__(
        self,
        peer: tuple[str, int],
        tls: Tls,
        context: ssl.SSLContext | None,
        login: Login | None,
        until: float | None,
    ) -> None:
        self.state = State.BUSY
        self._peer = peer
        self._name = f"{peer[0]}:{peer[1]}"
        self._features: dict[str, str] = {}
        self._sent_all = False
        self._wire: Wire | None = None
        try:
            with self._stage("CONNECT"):
                self._wire = Wire(*peer, until)
            if tls == "tls":
                self._secure(context)
            with self._stage("CONNECT"):
                self._expect("CONNECT", self._wire.reply(), 220)
            self._greet()
            if tls == "starttls":
                self._start_tls(context)
            if login:
                self._authenticate(login)
        except BaseException:
            self.close()
            raise
        self.state = State.READY

    @property
    def reusable(self) -> bool:
        """Whether the next mail may go over it, as far as this side can tell."""
        return self.state in (State.READY, State.STALE)

    def deliver(self, mail: Transaction, until: float | None) -> Refused:
        """Hand the mail over; gives whom the server refused, while it took others.

        READY or STALE before, and after it one of them if the session may be used again. Raises
        MailError.
        """
        stale, self.state = self.state is State.STALE, State.BUSY
        self._sent_all = False
        self._open_wire.until = until
        if mail.utf8 and "SMTPUTF8" not in self._features:
            self.state = State.STALE if stale else State.READY
            raise MailError(
                f"{self._name}: knows no SMTPUTF8, which an address not in ASCII needs",
                stage="MAIL",
            )
        try:
            if stale:
                self._command("RSET", "RSET", 250)
            refused = self._transact(mail)
        except MailRefused as e:
            self.state = State.CLOSED if e.code == _GOING else State.STALE
            raise
        self.state = State.READY
        return refused

    def quit(self, until: float) -> None:
        """Say goodbye, if that is quick, and close."""
        try:
            if self.state is not State.BUSY and self._wire is not None:
                self._wire.until = until
                self._wire.send(b"QUIT\r\n")
                self._wire.reply()
        except (OSError, EOFError, NotSmtp):
            pass
        finally:
            self.close()

    def close(self) -> None:
        self.state = State.CLOSED
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # Steps.

    def _greet(self) -> None:
        self._features = {}
        name = _own_name(self._open_wire.local_address)
        reply = self._ask("EHLO", f"EHLO {name}")
        if reply.code in (500, 501, 502, 504):  # a server of before 1995
            self._command("EHLO", f"HELO {name}", 250)
            return
        self._expect("EHLO", reply, 250)
        for line in reply.text.decode("ascii", "replace").split("\n")[1:]:
            # "AUTH=LOGIN": as some said it before the standard
            keyword, _, parameters = re.sub("^AUTH=", "AUTH ", line, flags=re.I).partition(" ")
            keyword = keyword.upper()
            self._features[keyword] = f"{self._features.get(keyword, '')} {parameters}".strip()

    def _start_tls(self, context: ssl.SSLContext | None) -> None:
        if "STARTTLS" not in self._features:
            raise MailInsecure(
                f"{self._name}: offers no STARTTLS, and the mail is not to go in clear;"
                " tls='none' would allow it",
                stage="STARTTLS",
            )
        self._command("STARTTLS", "STARTTLS", 220)
        self._secure(context)
        self._greet()

    def _secure(self, context: ssl.SSLContext | None) -> None:
        import ssl

        with self._stage("TLS"):
            try:
                self._open_wire.secure(context or ssl.create_default_context())
            except (ssl.SSLEOFError, ssl.SSLSyscallError):
                raise
            except ssl.SSLError as e:
                what = _printable(str(getattr(e, "verify_message", "") or e))
                raise MailInsecure(f"{self._name}: no TLS: {what}", stage="TLS") from e

    def _authenticate(self, login: Login) -> None:
        offered = self._features.get("AUTH", "").upper().split()
        # Secrets all the way: tracebacks with the values of locals go to logs and to Sentry.
        password = Secret(login.password.reveal().encode())
        plain = Secret(b"\0%b\0%b" % (login.user.encode(), password.reveal()))
        if "PLAIN" in offered:
            lines = [Secret(b"AUTH PLAIN " + _base64(plain).reveal())]
        elif "LOGIN" in offered:
            user = _base64(Secret(login.user.encode()))
            lines = [Secret(b"AUTH LOGIN"), user, _base64(password)]
        else:
            raise MailError(
                f"{self._name}: offers no AUTH PLAIN or LOGIN"
                f" (but: {_printable(' '.join(offered)) or 'none'})",
                stage="AUTH",
            )
        for number, line in enumerate(lines, start=1):
            with self._stage("AUTH"):
                self._open_wire.send(line)
                self._open_wire.send(b"\r\n")
                reply = self._open_wire.reply()
            # Some servers repeat what they did not understand.
            for secret in (_base64(plain), _base64(password), password):
                if secret:
                    reply = Reply(reply.code, reply.text.replace(secret.reveal(), MASK.encode()))
            self._expect("AUTH", reply, 235 if number == len(lines) else 334)

    def _transact(self, mail: Transaction) -> Refused:
        options = " SMTPUTF8 BODY=8BITMIME" if mail.utf8 else ""
        if "SIZE" in self._features:
            options += f" SIZE={len(mail.text)}"
        self._command("MAIL", f"MAIL FROM:<{mail.sender}>{options}", 250)
        refused: Refused = {}
        for wire_address, address in mail.recipients.items():
            reply = self._ask("RCPT", f"RCPT TO:<{wire_address}>")
            if reply.code == _GOING:
                self._expect("RCPT", reply, 250)
            if reply.code not in (250, 251, 252):
                refused[address] = (reply.code, reply.text)
        if len(refused) == len(mail.recipients):
            raise RecipientsRefused(
                f"{self._name}: refused all recipients: {_listed(refused)}", refused=refused
            )
        self._command("DATA", "DATA", 354)
        with self._stage("TEXT"):
            text = re.sub(rb"(?m)^\.", b"..", mail.text)
            self._open_wire.send(text if text.endswith(b"\r\n") else text + b"\r\n")
            self._sent_all = True
            self._open_wire.send(b".\r\n")
            reply = self._open_wire.reply()
        self._expect("TEXT", reply, 250)
        return refused

    # Inside.

    @property
    def _open_wire(self) -> Wire:
        if self._wire is None:
            raise RuntimeError(f"{self._name}: this session is closed")
        return self._wire

    def _ask(self, stage: str, line: str) -> Reply:
        with self._stage(stage):
            self._open_wire.send(f"{line}\r\n".encode())
            return self._open_wire.reply()

    def _command(self, stage: str, line: str, wanted: int) -> None:
        self._expect(stage, self._ask(stage, line), wanted)

    def _expect(self, stage: str, reply: Reply, wanted: int) -> None:
        if reply.code != wanted:
            code, text = reply
            raise MailRefused(
                f"{self._name}: refused {stage}: {code} {_words(text)}",
                stage=stage,
                code=code,
                reply=text,
            )

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        """Turn what goes wrong below into a MailError of ours."""
        try:
            yield
        except MailError:
            raise
        except TimeoutError as e:
            raise MailTimeout(
                f"{self._name}: timed out at {stage}{self._doubt}",
                stage=stage,
                retryable=not self._sent_all,
                maybe_sent=self._sent_all,
            ) from e
        except NotSmtp as e:
            raise MailError(
                f"{self._name}: no SMTP at {stage}: {e}{self._doubt}",
                stage=stage,
                maybe_sent=self._sent_all,
            ) from e
        except (OSError, EOFError) as e:
            what = _words(str(getattr(e, "strerror", None) or e).encode())
            raise MailConnectionLost(
                f"{self._name}: connection failed at {stage}: {what}{self._doubt}",
                stage=stage,
                retryable=not self._sent_all,
                maybe_sent=self._sent_all,
            ) from e

    @property
    def _doubt(self) -> str:
        return "; the mail may have been sent" if self._sent_all else ""


def _own_name(address: str) -> str:
    """Our name for EHLO: not by the DNS, which may take its time; else an address literal."""
    name = socket.gethostname()
    if "." in name and re.fullmatch(r"[A-Za-z0-9.-]+", name):
        return name
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"


def _base64(data: Secret[bytes]) -> Secret[bytes]:
    return Secret(base64.b64encode(data.reveal()))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()[:500]


def _words(text: bytes) -> str:
    return _printable(text.decode("utf-8", "backslashreplace"))


def _listed(refused: Refused) -> str:
    shown = [f"{who}: {code} {_words(text)}" for who, (code, text) in list(refused.items())[:3]]
    return "; ".join([*shown, *([f"and {len(refused) - 3} more"] if len(refused) > 3 else [])])
