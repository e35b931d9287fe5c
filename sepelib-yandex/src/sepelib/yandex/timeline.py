"""Proposed contract: timeline, marks of events on the graphs of a monitoring.

    with timeline.span("release 7", tags=["web"]):
        ...

Marks are decoration: what `mark` and `span` cannot tell the service is logged, and raised only
with `best_effort=False`. A service that hangs still takes up to `total_timeout` seconds for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from ._undo import undone
from .auth import Auth
from .base import Response
from .contract import Card
from .errors import ApiProtocolError, YandexError
from .model import Record, key, many, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LimitOffset, Pager

__all__ = ["CARD", "Event", "TimelineClient"]

CARD = Card(
    service="timeline",
    purpose="marks of releases and incidents on graphs",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "POST /v1/events",
        "PATCH /v1/events/{id}",
        "DELETE /v1/events/{id}",
        "GET /v1/events",
    ),
    base_url="https://timeline.yandex-team.ru",
    inferred=("everything but the name of the host",),
)

_log = logging.getLogger(__name__)


@record
class Event(Record):
    """A mark; without an *end* it goes on, or was a moment."""

    id: str | None = key("id", of=str)
    title: str | None = None
    start: datetime | str | None = key("start", of=moment)
    end: datetime | str | None = key("end", of=moment)
    tags: tuple[str, ...] = key("tags", of=many(str), default=())
    type: str | None = None
    link: str | None = None
    author: str | None = None
    external_id: str | None = None


class TimelineClient(OperationsClient):
    """Marks, and the events that they are.

    *best_effort*: `mark` and `span` raise no YandexError, they log it. *now*: the time of
    day, aware; by default the system's.
    """

    service = "timeline"
    OPTIONS = {"best_effort": bool}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        best_effort: bool = True,
        now: Callable[[], datetime] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, auth, **options)
        self._best_effort = best_effort
        self._now = now

    @operation("POST", "/v1/events", idempotent=True, of=Event.from_dict)
    def create(
        self,
        title: str,
        start: datetime,
        *,
        external_id: str,
        end: datetime | None = None,
        tags: Collection[str] = (),
        type: str | None = None,
        link: str | None = None,
        author: str | None = None,
    ) -> Event:
        """A new event, of which the answer has the id; of the same *external_id* the first one."""
        return declared

    @operation("PATCH", "/v1/events/{id}", idempotent=True, of=Event.from_dict)
    def update(self, id: str, *, end: datetime) -> Event:
        """Give an event its end."""
        return declared

    @operation("DELETE", "/v1/events/{id}")
    def delete(self, id: str) -> None:
        """Remove an event."""

    @operation("GET", "/v1/events", pages=LimitOffset(), of=Event.from_dict)
    def events(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        tags: Collection[str] | None = None,
    ) -> Pager[Event]:
        """The events with all *tags* that start within *from_* and before *to*."""
        return declared

    def mark(
        self,
        title: str,
        *,
        tags: Collection[str] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        type: str | None = None,
        link: str | None = None,
        author: str | None = None,
        external_id: str | None = None,
    ) -> str | None:
        """Mark now, or *start*; the id of the event, None when that has failed.

        *external_id*, by default a uuid, lets the call be repeated without a second mark.
        """
        try:
            event = self.create(
                title,
                start or (self._now or _system_time)(),
                external_id=external_id or str(uuid4()),
                end=end,
                tags=tags,
                type=type,
                link=link,
                author=author,
            )
        except YandexError as error:
            if not self._best_effort:
                raise
            _log.warning("no mark of %r: %s", title, error)
            return None
        return event.id

    def check(self, response: Response, /) -> None:
        data = response.data
        if response.where.op == "create" and (
            not isinstance(data, dict) or not isinstance(data.get("id"), str | int)
        ):
            raise ApiProtocolError("the answer has no id", status=response.status)

    @contextmanager
    def span(
        self,
        title: str,
        *,
        tags: Collection[str] = (),
        type: str | None = None,
        link: str | None = None,
        author: str | None = None,
        external_id: str | None = None,
    ) -> Iterator[str | None]:
        """Mark the time that the block takes; gives what `mark` does.

        The mark ends with the block, however that ends, whatever deadline is over. An error of
        the block is never replaced by one of the mark.
        """
        id = self.mark(
            title, tags=tags, type=type, link=link, author=author, external_id=external_id
        )
        with undone(lambda: self._end(title, id), _log, f"the mark of {title!r}, {id}, has no end"):
            yield id

    def _end(self, title: str, id: str | None) -> None:
        if id is None:
            return
        try:
            self.update(id, end=(self._now or _system_time)())
        except (YandexError, ValueError) as error:  # the id may be fit for no path
            if not self._best_effort:
                raise
            _log.warning("the mark of %r, %s, has no end: %s", title, id, error)


def _system_time() -> datetime:
    return datetime.now(UTC)
