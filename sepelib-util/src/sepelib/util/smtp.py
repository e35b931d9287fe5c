"""Mail that arrives as it was meant, or an error that says whether to send it again.

    refused = send_mail("lookout@example.org", ["ann@example.org", "bob@example.org"],
                        "db-1 is down", text, host="relay.example.org", user="lookout",
                        password=Secret(...))

    with Mailer("relay.example.org") as mailer:             # one connection for many mails
        for alert in alerts:
            mailer.send_mail(sender, alert.to, alert.title, alert.text, message_id=alert.id)

Units: seconds; a *timeout* is for a whole mail, from waiting for the Mailer to the server's last
answer, whatever the server does in between. It is clipped by the current deadline. Only the
resolver of the system, which cannot be told a time, may exceed it.
Secrets: passwords and texts are in no repr, no error and no log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from sepelib.util._smtp_errors import (
    MailConnectionLost,
    MailError,
    MailInsecure,
    MailRefused,
    MailTimeout,
    RecipientsRefused,
)
from sepelib.util.deadline import checked_seconds, clip
from sepelib.util.secrets import Secret

if TYPE_CHECKING:
    import ssl
    from email.message import EmailMessage

    from sepelib.util._smtp_errors import Refused
    from sepelib.util._smtp_message import Addresses, Attachment
    from sepelib.util._smtp_session import Session, Tls, Transaction

__all__ = [
    "MailConnectionLost",
    "MailError",
    "MailInsecure",
    "MailRefused",
    "MailTimeout",
    "Mailer",
    "RecipientsRefused",
    "build_message",
    "send_mail",
]

_BEFORE_DATA = ("RSET", "MAIL", "RCPT")
_GOING = 421
_GOODBYE = 1.0  # seconds for the answer to QUIT


def build_message(
    sender: str,
    to: Addresses,
    subject: str,
    text: str,
    *,
    html: str | None = None,
    cc: Addresses = (),
    bcc: Addresses = (),
    reply_to: Addresses = (),
    attachments: Iterable[Attachment] = (),
    headers: Mapping[str, str] | None = None,
    message_id: str | None = None,
) -> EmailMessage:
    """A mail with Date and Message-ID, ready for `Mailer.send()`; opens no connection.

    An address is "user@host" or "Name <user@host>", one in each string. Domains not in ASCII are
    written in IDNA, here and in the envelope; local parts not in ASCII make it a mail for servers
    with SMTPUTF8, which many are not. *bcc* is looked at but stays out of the message.

    An attachment is a path, or (name, bytes or path), or (name, bytes or path, content type);
    without a type it goes by the name. A path is read now, up to 64 MiB.

    The text is sent 7 bits wide (quoted-printable or base64), so that it needs nothing of a server.
    Raises ValueError for control characters, line ends above all, in anything that goes into a
    header: they are never cut out in silence. OSError for a path that cannot be read.
    """
    from sepelib.util._smtp_message import build

    return build(
        sender,
        to,
        subject,
        text,
        html=html,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        attachments=attachments,
        headers=headers,
        message_id=message_id,
    )


def send_mail(
    sender: str,
    to: Addresses,
    subject: str,
    text: str,
    *,
    html: str | None = None,
    cc: Addresses = (),
    bcc: Addresses = (),
    reply_to: Addresses = (),
    attachments: Iterable[Attachment] = (),
    headers: Mapping[str, str] | None = None,
    message_id: str | None = None,
    host: str = "localhost",
    port: int | None = None,
    tls: Tls | None = None,
    user: str | None = None,
    password: str | Secret[str] | None = None,
    timeout: float | None = 10.0,
    ssl_context: ssl.SSLContext | None = None,
) -> Refused:
    """Send one mail over a connection of its own; see `build_message` and `Mailer`."""
    # At once: tracebacks with the values of locals go to logs and to Sentry.
    password = None if password is None else Secret(password)
    with Mailer(
        host,
        port,
        tls=tls,
        user=user,
        password=password,
        timeout=timeout,
        ssl_context=ssl_context,
    ) as mailer:
        return mailer.send_mail(
            sender,
            to,
            subject,
            text,
            html=html,
            cc=cc,
            bcc=bcc,
            reply_to=reply_to,
            attachments=attachments,
            headers=headers,
            message_id=message_id,
        )


class Mailer:
    """A connection to a mail server, made at the first mail and kept for the next ones.

    If the server has dropped it in between, the mail goes over a new one, once, and only if that
    shows before the DATA command; from then on nothing is ever sent again by itself. After
    *max_idle* seconds the old one is not tried, as a firewall may have forgotten it.

    *tls*: "starttls" refuses to go on in clear, "tls" speaks TLS from the first byte, "none" does
    neither. Default: "none" if *host* is written "localhost", 127.… or ::1 (no name is resolved
    for that), else "starttls". Certificates are verified by *ssl_context*, by default against the
    system's authorities. A password never travels in clear, except to such a loopback host.
    *port*: by default 465 for "tls", 587 with a *user*, else 25. Logs in by PLAIN or LOGIN.

    Threads and greenlets may share one: mails go one after another, and the *timeout* includes
    the wait. Forked children may not. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int | None = None,
        *,
        tls: Tls | None = None,
        user: str | None = None,
        password: str | Secret[str] | None = None,
        timeout: float | None = 10.0,
        max_idle: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        password = None if password is None else Secret(password)  # see send_mail()
        if not host or not host.isprintable() or " " in host:
            raise ValueError(f"a mail server's host is a name or an address, not {host!r}")
        near = _is_loopback(host)
        if tls is None:
            tls = "none" if near and ssl_context is None else "starttls"
        if tls not in ("none", "starttls", "tls"):
            raise ValueError(f"tls is 'none', 'starttls', 'tls' or None, not {tls!r}")
        if tls == "none" and ssl_context is not None:
            raise ValueError("an ssl_context and tls='none' contradict each other")
        if (user is None) != (password is None):
            raise ValueError("a user needs a password, and a password a user")
        if tls == "none" and user is not None and not near:
            raise ValueError(f"tls='none' would send the password to {host} in clear")
        if port is None:
            port = 465 if tls == "tls" else 25 if user is None else 587
        self.host = host
        self.port = port
        self.timeout = None if timeout is None else checked_seconds(timeout, "a timeout")
        self._tls = tls
        self._user = user
        self._password = password
        if "\0" in (user or "") or (password and "\0" in password.reveal()):
            raise ValueError("a user or password with a NUL cannot be sent")
        self._max_idle = checked_seconds(max_idle, "max_idle")
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._session: Session | None = None  # guarded by the lock, as is the next one
        self._used_at = 0.0
        self._closed = False

    def send_mail(
        self,
        sender: str,
        to: Addresses,
        subject: str,
        text: str,
        *,
        html: str | None = None,
        cc: Addresses = (),
        bcc: Addresses = (),
        reply_to: Addresses = (),
        attachments: Iterable[Attachment] = (),
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
    ) -> Refused:
        """Build a message and `send()` it to *to*, *cc* and *bcc*; see `build_message`."""
        from sepelib.util._smtp_message import every

        to, cc, bcc = every(to), every(cc), every(bcc)
        message = build_message(
            sender,
            to,
            subject,
            text,
            html=html,
            cc=cc,
            bcc=bcc,
            reply_to=reply_to,
            attachments=attachments,
            headers=headers,
            message_id=message_id,
        )
        return self.send(message, sender, [*to, *cc, *bcc])

    def send(self, message: EmailMessage, sender: str, recipients: Iterable[str]) -> Refused:
        """Send a message as it is, but for its Bcc, to *recipients*, whatever its headers say.

        Gives {address as written: (code, reply)} of those whom the server refused while it took
        others. Raises MailError; RecipientsRefused when it refused all. DeadlineExceeded when the
        current deadline was over beforehand. When it is cancelled, the connection is closed, and
        the mail may have been sent.
        """
        from sepelib.util._smtp_message import transaction

        mail = transaction(message, sender, recipients)
        limit = clip(self.timeout)
        until = None if limit is None else time.monotonic() + limit
        if not self._lock.acquire(timeout=-1 if limit is None else min(limit, 1e6)):
            raise MailTimeout(
                f"{self.host}:{self.port}: others were sending for all of {limit:.1f} s",
                stage="WAIT",
                retryable=True,
            )
        try:
            return self._send(mail, until)
        finally:
            self._used_at = time.monotonic()
            self._lock.release()
            if self._closed:
                self._quit()

    def close(self) -> None:
        """Say goodbye, for a second at most. One who is sending finishes the mail, then this."""
        self._closed = True
        self._quit()

    def __enter__(self) -> Mailer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Mailer {self.host}:{self.port} tls={self._tls}{' closed' if self._closed else ''}>"
        )

    def _send(self, mail: Transaction, until: float | None) -> Refused:
        if self._closed:
            raise RuntimeError(f"{self!r} sends no more")
        if time.monotonic() - self._used_at > self._max_idle:
            self._drop()
        if self._session is not None:
            try:
                return self._deliver(self._session, mail, until)
            except MailError as e:
                if e.stage not in _BEFORE_DATA or not _is_dropped(e):
                    raise
        self._session = self._connect(until)
        return self._deliver(self._session, mail, until)

    def _deliver(self, session: Session, mail: Transaction, until: float | None) -> Refused:
        try:
            return session.deliver(mail, until)
        finally:
            if not session.reusable:
                self._drop()

    def _connect(self, until: float | None) -> Session:
        from sepelib.util._smtp_session import Login, Session

        login = None
        if self._user is not None and self._password is not None:
            login = Login(self._user, self._password)
        return Session((self.host, self.port), self._tls, self._ssl_context, login, until)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _quit(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # whoever holds it comes by here
        try:
            session, self._session = self._session, None
            if session is not None:
                session.quit(time.monotonic() + _GOODBYE)
        finally:
            self._lock.release()


def _is_dropped(error: MailError) -> bool:
    return isinstance(error, MailConnectionLost) or getattr(error, "code", 0) == _GOING


def _is_loopback(host: str) -> bool:
    return host.lower() in ("localhost", "::1") or (
        host.startswith("127.") and host.replace(".", "").isdigit()
    )
