"""Queues, and what the tracker has one list of for everybody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sepelib.yandex.paging import PageNumber, Pager

from ._models import Entry, Queue, User, commas, plain
from ._part import Part

__all__ = ["Dictionaries", "Queues"]


class Queues(Part):
    __slots__ = ()

    def list(
        self,
        *,
        expand: str | Iterable[str] = (),
        per_page: int = 50,
        limit: int | None = None,
    ) -> Pager[Queue]:
        return self._listed(
            "queues.list",
            {},
            of=Queue.from_dict,
            strategy=PageNumber(per_page),
            params={"expand": commas(expand)},
            limit=limit,
        )

    def get(self, queue: str, *, expand: str | Iterable[str] = ()) -> Queue:
        params = {"expand": commas(expand)}
        return Queue.from_dict(self._ask("queues.get", "GET", {"queue": queue}, params=params).data)

    def versions(self, queue: str) -> Pager[Entry]:
        """Of the product, for the fields `fixVersions` and its like."""
        return self._listed("queues.versions", {"queue": queue}, of=Entry.from_dict)

    def components(self, queue: str) -> Pager[Entry]:
        return self._listed("queues.components", {"queue": queue}, of=Entry.from_dict)


class Dictionaries(Part):
    """Each call is a request: nothing is kept."""

    __slots__ = ()

    def statuses(self) -> Pager[Entry]:
        return self._entries("statuses")

    def priorities(self) -> Pager[Entry]:
        return self._entries("priorities")

    def resolutions(self) -> Pager[Entry]:
        return self._entries("resolutions")

    def issue_types(self) -> Pager[Entry]:
        return self._entries("issue_types")

    def fields(self) -> Pager[Entry]:
        return self._entries("fields")

    def worklog(self) -> Pager[Entry]:
        return self._entries("worklog")

    def user(self, user: str | int) -> User:
        """By login or id."""
        return User.from_dict(self._ask("dictionaries.user", "GET", {"user": user}).data)

    def version(self, version: str | int) -> Entry:
        at = {"version": version}
        return Entry.from_dict(self._ask("dictionaries.version", "GET", at).data)

    def archive_version(self, version: str | int) -> Entry:
        at = {"version": version}
        return Entry.from_dict(self._ask("dictionaries.archive_version", "POST", at).data)

    def component(self, component: str | int) -> Entry:
        at = {"component": component}
        return Entry.from_dict(self._ask("dictionaries.component", "GET", at).data)

    def update_component(
        self, component: str | int, *, version: int | None = None, **fields: Any
    ) -> Entry:
        """PreconditionRequired without *version*; VersionConflict when that is over."""
        answer = self._ask(
            "dictionaries.update_component",
            "PATCH",
            {"component": component},
            params={"version": version},
            json=plain(fields),
        )
        return Entry.from_dict(answer.data)

    def _entries(self, name: str) -> Pager[Entry]:
        return self._listed(f"dictionaries.{name}", {}, of=Entry.from_dict)
