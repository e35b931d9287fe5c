"""Tickets as OTRS answers them, and as it wants to be sent them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

from .model import Record, key, many, record

__all__ = [
    "Article",
    "Attachment",
    "Parts",
    "Ticket",
    "TicketIds",
    "as_list",
    "as_number",
    "sent_extras",
    "sent_filter",
    "sent_parts",
    "sent_ticket",
]

_TIME = "%Y-%m-%d %H:%M:%S"


def as_number(value: Any) -> Any:
    """Ids come as numbers or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


def _unpacked(value: Any) -> Any:
    """What the base64 holds; anything else as it came."""
    try:
        return b64decode("".join(value.split()), validate=True)  # it may come in lines
    except (AttributeError, TypeError, ValueError):
        return value


def as_list(value: Any) -> Any:
    return [value] if isinstance(value, Mapping) else value


def _by_name(value: Any) -> Any:
    """Dynamic fields as {name: value}."""
    fields = as_list(value)
    if not isinstance(fields, list):
        return value
    return {
        str(field["Name"]): field.get("Value")
        for field in fields
        if isinstance(field, Mapping) and "Name" in field
    }


@record
class Attachment(Record):
    """A file. *content* is its bytes, None where OTRS was not asked for them."""

    filename: str | None = key("Filename")
    content_type: str | None = key("ContentType")
    content: bytes | None = key("Content", of=_unpacked)

    def __repr__(self) -> str:
        size = f"{len(self.content)} bytes" if isinstance(self.content, bytes) else "no content"
        return f"Attachment({self.filename!r}, {self.content_type!r}, {size})"


@record
class Article(Record):
    """One message of a ticket."""

    id: int | None = key("ArticleID", of=as_number)
    subject: str | None = key("Subject")
    body: str | None = key("Body")
    content_type: str | None = key("ContentType")
    sender_type: str | None = key("SenderType")
    attachments: tuple[Attachment, ...] = key(
        "Attachment", of=lambda value: many(Attachment.from_dict)(as_list(value)), default=()
    )
    dynamic_fields: Mapping[str, Any] | None = key("DynamicField", of=_by_name)


@record
class Ticket(Record):
    """A ticket; *articles* and *dynamic_fields* if they were asked for."""

    id: int | None = key("TicketID", of=as_number)
    number: str | None = key("TicketNumber", of=_text)
    title: str | None = key("Title")
    queue: str | None = key("Queue")
    queue_id: int | None = key("QueueID", of=as_number)
    state: str | None = key("State")
    state_id: int | None = key("StateID", of=as_number)
    priority: str | None = key("Priority")
    priority_id: int | None = key("PriorityID", of=as_number)
    type: str | None = key("Type")
    articles: tuple[Article, ...] = key(
        "Article", of=lambda value: many(Article.from_dict)(as_list(value)), default=()
    )
    dynamic_fields: Mapping[str, Any] | None = key("DynamicField", of=_by_name)


@record
class TicketIds(Record):
    """What was made. *ticket_number* None: OTRS did not say, as after an update."""

    ticket_id: int | None = key("TicketID", of=as_number)
    ticket_number: str | None = key("TicketNumber", of=_text)
    article_id: int | None = key("ArticleID", of=as_number)


class Parts(TypedDict, total=False):
    """What of a ticket is asked for."""

    dynamic_fields: bool
    """On unless it is False."""
    extended: bool
    articles: bool
    attachments: bool
    """With the articles that they belong to."""
    contents: bool
    """Of the attachments; on unless it is False."""
    html_body: bool
    """The HTML form of a body is an attachment too."""
    sender_types: Iterable[str]
    """Only articles of these: "agent", "customer"."""
    article_order: Literal["ASC", "DESC"]
    article_limit: int


def sent_ticket(fields: Mapping[str, Any]) -> dict[str, Any]:
    sent = dict(fields)
    pending = sent.get("PendingTime")
    if isinstance(pending, timedelta):
        sent["PendingTime"] = {"Diff": round(pending.total_seconds() / 60)}
    elif isinstance(pending, datetime):
        if pending.tzinfo is None:
            raise ValueError("a PendingTime has a zone")
        utc = pending.astimezone(UTC)
        sent["PendingTime"] = {
            name: getattr(utc, name.lower()) for name in ("Year", "Month", "Day", "Hour", "Minute")
        }
    return sent


def sent_extras(fields: Mapping[str, Any], attachments: Iterable[Attachment]) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if fields:
        extras["DynamicField"] = [{"Name": name, "Value": value} for name, value in fields.items()]
    files = [
        {
            "Filename": file.filename,
            "ContentType": file.content_type or "application/octet-stream",
            "Content": b64encode(file.content or b"").decode(),
        }
        for file in attachments
    ]
    if files:
        extras["Attachment"] = files
    return extras


def sent_parts(parts: Parts) -> dict[str, Any]:
    options: dict[str, Any] = {
        "DynamicFields": int(parts.get("dynamic_fields", True)),
        "Extended": int(parts.get("extended", False)),
        "AllArticles": int(parts.get("articles", False) or parts.get("attachments", False)),
        "Attachments": int(parts.get("attachments", False)),
        "GetAttachmentContents": int(parts.get("contents", True)),
        "HTMLBodyAsAttachment": int(parts.get("html_body", False)),
    }
    if "sender_types" in parts:
        options["ArticleSenderType"] = list(parts["sender_types"])
    if "article_order" in parts:
        options["ArticleOrder"] = parts["article_order"]
    if "article_limit" in parts:
        options["ArticleLimit"] = parts["article_limit"]
    return options


def sent_filter(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [sent_filter(one) for one in value]
    if isinstance(value, datetime):
        return value.strftime(_TIME)
    return int(value) if isinstance(value, bool) else value
