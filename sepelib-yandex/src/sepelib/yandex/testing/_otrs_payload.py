"""What an OTRS is sent, checked, and what of a ticket it shows."""

from __future__ import annotations

import datetime as dt
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from ._request import Refusal

__all__ = [
    "TIME",
    "Item",
    "article_of",
    "files_and_fields",
    "need",
    "object_of",
    "refused",
    "resolved",
    "several",
    "shown",
]

Item = dict[str, Any]

TIME = "%Y-%m-%d %H:%M:%S"


def refused(condition: str, why: str) -> Refusal:
    """An error in an answer of 200; the fake adds the operation to the *condition*."""
    return Refusal(200, condition, why)


def object_of(payload: Item, name: str) -> Item | None:
    """The object of that name; None when it is not there."""
    value = payload.get(name)
    if value is not None and not isinstance(value, dict):
        raise refused("WrongStructure", f"{name} is no object")
    return value


def need(fields: Item, shown: str, *names: str) -> None:
    """One of the *names* has a value."""
    if not any(fields.get(name) not in (None, "") for name in names):
        raise refused("MissingParameter", f"{shown} is missing")


def resolved(fields: Item, known: Mapping[str, Sequence[str]], now: dt.datetime) -> Item:
    """*fields* with names and ids of what is *known* by both, whichever of them was given."""
    found = dict(fields)
    for name, values in known.items():
        ids = [str(number) for number in range(1, len(values) + 1)]
        if fields.get(name) in values:
            found[f"{name}ID"] = ids[values.index(fields[name])]
        elif str(fields.get(f"{name}ID")) in ids:
            found[f"{name}ID"] = str(fields[f"{name}ID"])
            found[name] = values[ids.index(found[f"{name}ID"])]
        elif name in fields or f"{name}ID" in fields:
            raise refused("InvalidParameter", f"Ticket.{name} is not known")
    if "PendingTime" in fields:
        found["PendingTime"] = _pending(fields["PendingTime"], now).strftime(TIME)
    return found


def _pending(value: object, now: dt.datetime) -> dt.datetime:
    try:
        if isinstance(value, dict) and "Diff" in value:
            return now + dt.timedelta(minutes=int(value["Diff"]))
        if isinstance(value, dict):
            year, month, day = int(value["Year"]), int(value["Month"]), int(value["Day"])
            return dt.datetime(year, month, day, int(value["Hour"]), int(value["Minute"]))
    except (KeyError, OverflowError, TypeError, ValueError):
        pass
    raise refused("InvalidParameter", "Ticket.PendingTime is no time")


def article_of(payload: Item) -> Item | None:
    """The article, if there is one: with all that it needs."""
    article = object_of(payload, "Article")
    if article is None:
        return None
    for name in ("Subject", "Body"):
        need(article, f"Article.{name}", name)
    if "ContentType" not in article:
        need(article, "Article.ContentType", "MimeType")
        need(article, "Article.Charset", "Charset")
    return article


def files_and_fields(payload: Item) -> tuple[list[Item], list[Item]]:
    """Attachments and dynamic fields: each one object or a list of them."""
    files, fields = _objects(payload, "Attachment"), _objects(payload, "DynamicField")
    for file in files:
        for name in ("Content", "ContentType", "Filename"):
            need(file, f"Attachment.{name}", name)
        try:
            b64decode("".join(str(file["Content"]).split()), validate=True)
        except ValueError:
            raise refused("InvalidParameter", "Attachment.Content is no base64") from None
    for field in fields:
        need(field, "DynamicField.Name", "Name")
        if not isinstance(field["Name"], str):
            raise refused("WrongStructure", "DynamicField.Name is no text")
    return files, fields


def _objects(payload: Item, name: str) -> list[Item]:
    value = payload.get(name) or []
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in items):
        raise refused("WrongStructure", f"{name} is no object and no list of them")
    return items


def several(value: object) -> list[str]:
    """One value or a list of them as a list of texts."""
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def shown(ticket: Item, asked: Item) -> Item:
    """What of a ticket was asked for."""
    found = {name: v for name, v in ticket.items() if name not in ("DynamicField", "Article")}
    if _is_on(asked, "DynamicFields", False):
        found["DynamicField"] = ticket["DynamicField"]
    if _is_on(asked, "AllArticles", False):
        articles = list(ticket["Article"])
        if "ArticleSenderType" in asked:
            senders = several(asked["ArticleSenderType"])
            articles = [one for one in articles if one["SenderType"] in senders]
        if asked.get("ArticleOrder") == "DESC":
            articles.reverse()
        limit = str(asked.get("ArticleLimit", ""))
        articles = articles[: int(limit)] if limit.isdecimal() else articles
        found["Article"] = [_shown_article(one, asked) for one in articles]
    return found


def _shown_article(article: Item, asked: Item) -> Item:
    found = {name: value for name, value in article.items() if name != "Attachment"}
    if not _is_on(asked, "Attachments", False):
        return found
    files = list(article["Attachment"])
    if _is_on(asked, "HTMLBodyAsAttachment", False) and "html" in article["ContentType"]:
        content = b64encode(article["Body"].encode()).decode()
        kind = article["ContentType"]
        files.append({"Filename": "body.html", "ContentType": kind, "Content": content})
    if not _is_on(asked, "GetAttachmentContents", True):
        files = [{k: v for k, v in file.items() if k != "Content"} for file in files]
    if files:
        found["Attachment"] = files
    return found


def _is_on(asked: Item, name: str, default: bool) -> bool:
    return str(asked.get(name, int(default))) == "1"
