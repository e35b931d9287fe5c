"""Making a mail's text and its envelope: see `smtp`. After RFC 5322, 2047, 2231 and 6531."""

from __future__ import annotations

import copy
import io
import mimetypes
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime, make_msgid, quote
from typing import Any, NamedTuple

from sepelib.util._reading import read_file
from sepelib.util._smtp_session import Transaction

__all__ = ["Addresses", "Attachment", "build", "transaction"]

Addresses = str | Iterable[str]
Path = str | os.PathLike[str]
Attachment = Path | tuple[str, bytes | Path] | tuple[str, bytes | Path, str]

_WIDTH = 76
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u00a1-\U0010ffff]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*|\"([^\"\\]|\\[ -~])*\"")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*|\[[A-Za-z0-9:.]+\]")
_NAMED = re.compile(r'(?P<name>"(?:[^"\\]|\\.)*"|[^<>"@]*?)\s*<(?P<address>[^<>]+)>')
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_CONTENT_TYPE = re.compile(
    r"(?P<main>[a-z]+)/(?P<sub>[\w.+-]+)(?P<params>(\s*;\s*[\w-]+=[\w.-]+)*)"
)
_OURS = re.compile(
    "from|to|cc|bcc|sender|reply-to|subject|date|message-id|mime-version|content-.*|resent-.*", re.I
)
_ADDRESS_HEADERS = {"from", "to", "cc", "reply-to"}
# IDNA 2003, which the standard library has, maps these to other letters; IDNA 2008, which the
# registries follow, does not: "faß.de" and "fass.de" belong to different people.
_DEVIANT = re.compile("[\u00df\u03c2\u200c\u200d]")


class _Policy(EmailPolicy):
    """The SMTP policy, but with headers folded by us.

    Python's own (3.11) doubles the beginning of a long display name, drops spaces between encoded
    words and encodes a message id of more than a line, which no client then recognises.
    """

    def fold(self, name: str, value: Any) -> str:
        if name.lower().startswith(("content-", "mime-")):
            return str(super().fold(name, value))
        if name.lower() in _ADDRESS_HEADERS:
            text = ",\r\n ".join(_shown(address, self.utf8) for address in value.addresses)
        else:
            text = _folded(name, str(value))
        return f"{name}: {text}\r\n"

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("utf-8" if self.utf8 else "ascii", "surrogateescape")


# 7bit: quoted-printable or base64 pass through any server, with or without 8BITMIME.
_POLICY = _Policy(linesep="\r\n", max_line_length=_WIDTH, cte_type="7bit")


class Mailbox(NamedTuple):
    name: str
    address: str  # as written
    local: str
    domain: str  # in ASCII

    @property
    def on_wire(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def needs_utf8(self) -> bool:
        return not self.local.isascii()


def build(
    sender: str,
    to: Addresses,
    subject: str,
    text: str,
    *,
    html: str | None,
    cc: Addresses,
    bcc: Addresses,
    reply_to: Addresses,
    attachments: Iterable[Attachment],
    headers: Mapping[str, str] | None,
    message_id: str | None,
) -> EmailMessage:
    author = _mailbox(sender, "the sender")
    shown = {
        "From": [author],
        "To": _mailboxes(to, "to"),
        "Cc": _mailboxes(cc, "cc"),
        "Reply-To": _mailboxes(reply_to, "reply_to"),
    }
    _mailboxes(bcc, "bcc")  # wrong ones are refused here, not when it is sent
    utf8 = any(box.needs_utf8 for boxes in shown.values() for box in boxes)
    message = EmailMessage(policy=_POLICY.clone(utf8=utf8))
    for name, boxes in shown.items():
        if boxes:
            message[name] = [Address(b.name, _unquoted(b.local), b.domain) for b in boxes]
    message["Subject"] = _one_line(subject, "the subject")
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = _message_id(message_id) if message_id else _new_id(author.domain)
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name) or _OURS.fullmatch(name):
            raise ValueError(f"headers= cannot have {name!r}: no header name, or one set by us")
        message[name] = _one_line(value, f"the header {name}")
    message.set_content(_encodable(text, "text"))
    if html is not None:
        message.add_alternative(_encodable(html, "html"), subtype="html")
    for attachment in attachments:
        _attach(message, attachment)
    return message


def transaction(message: EmailMessage, sender: str, recipients: Iterable[str]) -> Transaction:
    author = _mailbox(sender, "the sender")
    boxes = [_mailbox(recipient, "a recipient") for recipient in recipients]
    if not boxes:
        raise ValueError("a mail needs a recipient: to, cc and bcc are empty")
    on_wire: dict[str, str] = {}
    for box in boxes:
        on_wire.setdefault(box.on_wire, box.address)
    utf8 = bool(getattr(message.policy, "utf8", False))
    return Transaction(
        author.on_wire,
        on_wire,
        _flat(message),
        utf8 or any(box.needs_utf8 for box in (author, *boxes)),
    )


def every(*addresses: Addresses) -> list[str]:
    return [one for some in addresses for one in ([some] if isinstance(some, str) else some)]


# Addresses.


def _mailboxes(addresses: Addresses, what: str) -> list[Mailbox]:
    return [_mailbox(address, what) for address in every(addresses)]


def _mailbox(written: str, what: str) -> Mailbox:
    written = _one_line(written, what).strip()
    named = _NAMED.fullmatch(written)
    name, address = (named["name"], named["address"]) if named else ("", written)
    local, _, domain = address.rpartition("@")
    ascii_domain = _ascii_domain(domain, what)
    spaced = not local.startswith('"') and len(local.split()) != 1
    if spaced or not _LOCAL.fullmatch(local) or len(local.encode()) > 64:
        raise ValueError(
            f"{what}: {written!r} is not one address, 'user@host' or 'Name <user@host>';"
            " give several as a list"
        )
    return Mailbox(_unquoted(name), address, local, ascii_domain)


def _ascii_domain(domain: str, what: str) -> str:
    if _DEVIANT.search(domain):
        raise ValueError(f"{what}: write the domain {domain!r} in its xn-- form")
    try:
        encoded = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError as e:
        raise ValueError(f"{what}: the domain {domain!r} has no IDNA form: {e}") from e
    if not _DOMAIN.fullmatch(encoded) or len(encoded) > 253:
        raise ValueError(f"{what}: {domain!r} is not a domain; give several addresses as a list")
    return encoded


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _shown(address: Address, utf8: bool) -> str:
    """An address as it stands in a header."""
    spec = address.addr_spec
    name = address.display_name
    if not name:
        return spec
    if not name.isascii() or "=?" in name or len(name) > _WIDTH:
        name = Header(name, "utf-8", maxlinelen=_WIDTH, header_name="Reply-To").encode(
            linesep="\r\n"
        )
    elif not re.fullmatch(rf"{_ATOM}( {_ATOM})*", name):
        name = f'"{quote(name)}"'
    return f"{name}\r\n <{spec}>" if len(name) + len(spec) > _WIDTH - 16 else f"{name} <{spec}>"


# Headers.


def _folded(name: str, value: str) -> str:
    """Folded at spaces; in encoded words when it is not ASCII or has a word of over a line."""
    words = value.split(" ")
    fits = all(len(word) < 900 for word in words)
    if value.isascii() and fits and not re.search(r"=\?|^ |  | $", value):
        lines, width = [""], len(name) + 2
        for word in words:
            if lines[-1] and width + len(word) >= _WIDTH:
                lines.append("")
                width = 1
            lines[-1] += f" {word}" if lines[-1] else word
            width += len(word) + 1
        return "\r\n ".join(lines)
    return Header(value, "utf-8", maxlinelen=_WIDTH, header_name=name).encode(linesep="\r\n")


def _one_line(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    if found := _CONTROLS.search(value):
        raise ValueError(
            f"{what} has the control character {found[0]!r} at {found.start()}:"
            " it could forge a header"
        )
    return value


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(f"{what} has half a character (a surrogate) at {e.start}") from None
    return text


def _message_id(given: str) -> str:
    if not _MESSAGE_ID.fullmatch(given) or len(given) > 900:
        raise ValueError(f"a message id looks like '<unique@host>', not {given[:100]!r}")
    return given


def _new_id(domain: str) -> str:
    return make_msgid(domain=domain)  # without a domain it would ask the DNS for ours


# Contents.


def _attach(message: EmailMessage, attachment: Attachment) -> None:
    if not isinstance(attachment, tuple):
        attachment = (os.path.basename(os.fspath(attachment)), attachment)
    name, content, *rest = attachment
    name = _one_line(name, "an attachment's name")
    if not name or "/" in name:
        raise ValueError(f"an attachment's name is a file name, not {name!r}")
    if not isinstance(content, bytes | bytearray | memoryview):
        content = read_file(content, encoding=None)
    main, sub, params = _content_type(rest[0] if rest else _guessed(name))
    message.add_attachment(bytes(content), maintype=main, subtype=sub, filename=name, params=params)


def _content_type(written: str) -> tuple[str, str, dict[str, str]]:
    found = _CONTENT_TYPE.fullmatch(_one_line(written, "a content type").lower())
    if not found or found["main"] in ("multipart", "message"):
        raise ValueError(f"an attachment's content type looks like 'text/csv', not {written!r}")
    pairs = (pair.strip().partition("=") for pair in found["params"].split(";")[1:])
    return found["main"], found["sub"], {key: value for key, _, value in pairs}


def _guessed(name: str) -> str:
    # By a table of its own: the files of the host would make one name mean different things.
    kind, encoding = mimetypes.MimeTypes().guess_type(name)
    if kind is None or encoding or kind.startswith(("multipart/", "message/")):
        return "application/octet-stream"
    return kind


def _flat(message: EmailMessage) -> bytes:
    """The message as it is sent: without Bcc, and each line ends in CRLF."""
    policy = message.policy.clone(linesep="\r\n", cte_type="7bit")
    if "Bcc" in message or "Resent-Bcc" in message:
        message = copy.copy(message)
        del message["Bcc"], message["Resent-Bcc"]
    out = io.BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=policy).flatten(message)
    return out.getvalue()
