"""What keeps a mail from being sent: see `smtp`."""

from __future__ import annotations

from typing import TypeAlias

__all__ = [
    "MailConnectionLost",
    "MailError",
    "MailInsecure",
    "MailRefused",
    "MailTimeout",
    "RecipientsRefused",
    "Refused",
]

Refused: TypeAlias = dict[str, tuple[int, bytes]]


class MailError(OSError):
    """The mail was not sent or, when *maybe_sent*, nobody can tell whether it was.

        MailError                   also: no SMTP, or lacks SMTPUTF8 or the kinds of AUTH we know
         ├── MailRefused            the server said no: `code`, `reply` in its own words
         │    └── RecipientsRefused     to all recipients: `refused`
         ├── MailInsecure           it could only have gone on in clear or to a stranger
         ├── MailConnectionLost     (ConnectionError) never made, or gone
         └── MailTimeout            (TimeoutError)

    *stage*: "WAIT" (for another sender), "CONNECT", "TLS", "EHLO", "STARTTLS", "AUTH", "RSET",
    "MAIL", "RCPT", "DATA" or "TEXT", which is from the first byte of the message to its answer.
    *retryable*: the same mail could work later, and sending it again cannot double it.
    *maybe_sent*: the whole message went out and no answer came back. Who would rather send it
    twice than not at all sends it again with the same Message-ID.
    """

    def __init__(
        self, sentence: str, *, stage: str = "", retryable: bool = False, maybe_sent: bool = False
    ) -> None:
        super().__init__(sentence)
        self.stage = stage
        self.retryable = retryable
        self.maybe_sent = maybe_sent


class MailRefused(MailError):
    """The server answered *code* and *reply*; 4xx is retryable, 5xx is not."""

    def __init__(
        self, sentence: str, *, stage: str = "", code: int = 0, reply: bytes = b""
    ) -> None:
        super().__init__(sentence, stage=stage, retryable=400 <= code < 500)
        self.code = code
        self.reply = reply


class RecipientsRefused(MailRefused):
    """Nobody gets the mail: *refused* is {address: (code, reply)}, `code` the least of them."""

    def __init__(self, sentence: str, *, refused: Refused | None = None) -> None:
        self.refused = dict(refused or {})
        code, reply = min(self.refused.values(), default=(0, b""))
        super().__init__(sentence, stage="RCPT", code=code, reply=reply)


class MailInsecure(MailError):
    """The server offers no TLS, or its certificate does not prove who it is."""


class MailConnectionLost(MailError, ConnectionError):
    """The server could not be reached, or the connection ended early."""


class MailTimeout(MailError, TimeoutError):
    """The time for the whole mail was over."""
