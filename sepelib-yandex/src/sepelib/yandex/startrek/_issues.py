"""Issues: one, many, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from sepelib.util.deadline import deadline
from sepelib.yandex.base import Response
from sepelib.yandex.errors import ApiProtocolError, Conflict, NotFound, YandexError
from sepelib.yandex.paging import LinkHeader, PageNumber, Pager, Scroll, Step

from ._models import Change, Issue, Transition, commas, plain
from ._part import Part, id_of, key_of
from ._search import CAP, HINT, SearchPager, question

__all__ = ["Issues"]

_LARGEST_SCROLL = 1000  # rows


class Issues(Part):
    """Issues are named by their keys, by their ids, or by what was answered for them.

    Values of fields are what JSON has, aware datetimes, and answered objects as references: `null`
    (None) resets, `[]` empties; `{"add": […]}`, `{"remove": […]}`, `{"set": …}` and
    `{"replace": [{"target": …, "replacement": …}]}` change lists in an update.
    """

    __slots__ = ()

    def get(
        self,
        issue: str | Issue,
        *,
        expand: str | Iterable[str] = (),
        fields: str | Iterable[str] = (),
    ) -> Issue:
        """One issue; by a key from before a move, the one with its new `key`.

        *expand*: transitions, attachments.
        """
        params = {"expand": commas(expand), "fields": commas(fields)}
        answer = self._ask("issues.get", "GET", {"issue": key_of(issue)}, params=params)
        return Issue.from_dict(answer.data)

    def create(
        self,
        queue: str,
        summary: str,
        *,
        unique: str | None = None,
        attachment_ids: Sequence[str | int] | None = None,
        **fields: Any,
    ) -> Issue:
        """The new issue, or the one that has the same *unique* already.

        *unique* is made for each call unless it is given: with it the call may be sent again, and
        never makes two issues. Give one to call `create` again, or `by_unique`, after an error that
        says `maybe_applied`. *attachment_ids*: of `attachments.upload_temporary`.
        The version of what is returned is often over at once, by automation of the queue.
        """
        if unique == "":
            raise ValueError("unique is empty: None makes one")
        unique = unique or uuid4().hex
        body = {**fields, "queue": queue, "summary": summary, "unique": unique}
        if attachment_ids is not None:
            body["attachmentIds"] = attachment_ids
        with deadline(self._client._total_timeout, clock=self._client._clock):
            try:
                answer = self._ask("issues.create", "POST", {}, json=plain(body), idempotent=True)
            except Conflict as conflict:
                found = self._in_conflict(unique, conflict)
                if found is None:
                    raise
                return found
        return Issue.from_dict(answer.data)

    def by_unique(self, unique: str) -> Issue | None:
        """The issue that was created with it; None when there is none."""
        params = {"unique": unique}
        try:
            answer = self._ask("issues.by_unique", "POST", {}, params=params, idempotent=True)
        except NotFound:
            return None
        return Issue.from_dict(answer.data)

    def update(self, issue: str | Issue, *, version: int | None = None, **fields: Any) -> Issue:
        """The issue with *fields* changed; the status changes by `execute` only.

        *version*: the one it was read with; VersionConflict when it is over. None: whatever it
        has become meanwhile. Never sent again once it may have been applied.
        """
        answer = self._ask(
            "issues.update",
            "PATCH",
            {"issue": key_of(issue)},
            params={"version": version},
            json=plain(fields),
        )
        return Issue.from_dict(answer.data)

    def search(
        self,
        *,
        queue: str | None = None,
        keys: Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
        query: str | None = None,
        order: str | Sequence[str] = (),
        expand: str | Iterable[str] = (),
        fields: str | Iterable[str] = (),
        per_page: int = 50,
        limit: int | None = None,
    ) -> Pager[Issue]:
        """The issues that one of *queue*, *keys*, *filter*, *query* is about, by pages.

        *order*: fields with a sign before them, `"+status"`; with *filter* only.
        Pages are computed anew for each request: rows that change meanwhile may come twice or
        never. The search shows 10 000 rows; whoever walks on gets a YandexError, see `scroll`.
        """
        body = question(queue=queue, keys=keys, filter=filter, query=query, order=order)
        params = {"expand": commas(expand), "fields": commas(fields)}

        def send(step: Step) -> Response:
            return self._ask(
                "issues.search",
                "POST",
                {},
                params={**params, **step.params},
                json=body,
                idempotent=True,
            )

        def count() -> int:
            if keys is not None:
                return len(keys)
            if queue is not None:
                return self.count(filter={"queue": queue})
            return self.count(filter=filter, query=query)

        pages = PageNumber(per_page, cap=CAP, hint=HINT)
        return SearchPager(send, pages, limit=limit, count=count)

    def count(self, *, filter: Mapping[str, Any] | None = None, query: str | None = None) -> int:
        """How many issues *filter*, or *query*, is about."""
        body = question(filter=filter, query=query)
        answer = self._ask("issues.count", "POST", {}, json=body, idempotent=True)
        if not isinstance(answer.data, int) or isinstance(answer.data, bool):
            raise ApiProtocolError("the count is no number", where=answer.where)
        return answer.data

    def scroll(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        query: str | None = None,
        order: str | Sequence[str] = (),
        ordered: bool = True,
        expand: str | Iterable[str] = (),
        fields: str | Iterable[str] = (),
        per_scroll: int = 100,
        ttl: float = 60.0,
        limit: int | None = None,
    ) -> Pager[Issue]:
        """All issues that *filter*, or *query*, is about, however many, as they are now.

        The tracker keeps a snapshot until the walk ends, by a `break` too, or for *ttl* seconds
        after each page of *per_scroll* rows (1000 at most). *ordered* False: in any order, and
        faster. A page whose answer was lost raises and is not asked for again, as it may have
        been turned: the walk would miss its rows.
        """
        if not 1 <= per_scroll <= _LARGEST_SCROLL:
            raise ValueError(f"per_scroll is 1 to {_LARGEST_SCROLL}, not {per_scroll}")
        body = question(filter=filter, query=query, order=order)
        params = {"expand": commas(expand), "fields": commas(fields)}

        def send(step: Step) -> Response:
            return self._ask(
                "issues.search",
                "POST",
                {},
                params={**params, **step.params},
                json=body,
                idempotent=step.number == 1,
            )

        start = {
            "scrollType": "sorted" if ordered else "unsorted",
            "scrollTTLMillis": max(1, round(ttl * 1000)),
        }
        strategy = Scroll(per_scroll, start=start, release=self._release)
        return Pager(send, strategy, of=Issue.from_dict, limit=limit)

    def move(
        self,
        issue: str | Issue,
        queue: str,
        *,
        notify: bool | None = None,
        notify_author: bool | None = None,
        move_all_fields: bool | None = None,
        initial_status: bool | None = None,
        expand: str | Iterable[str] = (),
    ) -> Issue:
        """The issue with its key in the other *queue*; the one from before is in its aliases."""
        params = {
            "queue": queue,
            "notify": notify,
            "notifyAuthor": notify_author,
            "moveAllFields": move_all_fields,
            "initialStatus": initial_status,
            "expand": commas(expand),
        }
        answer = self._ask("issues.move", "POST", {"issue": key_of(issue)}, params=params)
        return Issue.from_dict(answer.data)

    def clone(
        self,
        issue: str | Issue,
        queues: str | Iterable[str],
        *,
        clone_all_fields: bool | None = None,
        link_with_original: bool | None = None,
    ) -> list[Issue]:
        """The copies in the *queues*, one in each."""
        params = {
            "queues": [queues] if isinstance(queues, str) else list(queues),
            "cloneAllFields": clone_all_fields,
            "linkWithOriginal": link_with_original,
        }
        answer = self._ask("issues.clone", "POST", {"issue": key_of(issue)}, params=params)
        found = answer.data if isinstance(answer.data, list) else [answer.data]
        return [Issue.from_dict(one) for one in found if one is not None]

    def transitions(self, issue: str | Issue) -> list[Transition]:
        """The ways out of the status that it has."""
        answer = self._ask("issues.transitions", "GET", {"issue": key_of(issue)})
        return _transitions(answer)

    def execute(
        self,
        issue: str | Issue,
        transition: str | Transition,
        *,
        comment: str | None = None,
        resolution: Any = None,
        **fields: Any,
    ) -> list[Transition]:
        """Take the *transition*; the ways out of the new status. *fields*: of its screen."""
        body = {"comment": comment, "resolution": resolution}
        answer = self._ask(
            "issues.execute",
            "POST",
            {"issue": key_of(issue), "transition": id_of(transition)},
            json=plain({**{k: v for k, v in body.items() if v is not None}, **fields}),
        )
        return _transitions(answer)

    def changelog(
        self,
        issue: str | Issue,
        *,
        field: str | None = None,
        type: str | None = None,
        per_page: int = 50,
        limit: int | None = None,
    ) -> Pager[Change]:
        """What has happened to it, the changes of *field*, of *type*."""
        return self._listed(
            "issues.changelog",
            {"issue": key_of(issue)},
            of=Change.from_dict,
            strategy=LinkHeader(per_page),  # its cursor is in the link, not in the entries
            params={"field": field, "type": type},
            limit=limit,
        )

    def _in_conflict(self, unique: str, conflict: Conflict) -> Issue | None:
        try:
            return self.by_unique(unique)
        except YandexError as error:
            # An attempt before the conflict may be what has made the issue.
            error.maybe_applied |= conflict.maybe_applied
            raise

    def _release(self, scrolls: Mapping[str, str]) -> None:
        self._ask(
            "issues.scroll_clear", "POST", {}, json=dict(scrolls), idempotent=True, decode=False
        )


def _transitions(answer: Response) -> list[Transition]:
    found = answer.data
    if not isinstance(found, list):
        raise ApiProtocolError("the transitions are no list", where=answer.where)
    return [Transition.from_dict(one) for one in found]
