"""Questions about many issues, and how far their pages go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sepelib.yandex.base import Response
from sepelib.yandex.errors import Where, YandexError
from sepelib.yandex.paging import Pager, Step, Strategy

from ._models import Issue, plain

__all__ = ["CAP", "HINT", "SearchPager", "question"]

CAP = 10_000
"""Rows that the paged search shows; what it says of those behind them is not true."""

HINT = "issues.scroll() walks over all of them"


class SearchPager(Pager[Issue]):
    """A pager that does not end silently at the last row which the search shows.

    When that many rows have come and more are wanted, *count* is asked whether there are more.
    """

    def __init__(
        self,
        send: Callable[[Step], Response],
        strategy: Strategy,
        *,
        limit: int | None,
        count: Callable[[], int],
    ) -> None:
        super().__init__(send, strategy, of=Issue.from_dict, limit=limit)
        self._count = count

    def __iter__(self) -> Iterator[Issue]:
        rows = 0
        for issue in super().__iter__():
            yield issue
            rows += 1
        if rows < CAP or rows == self._limit:
            return
        count = self._count()
        if count > rows:
            raise YandexError(
                f"the search shows {rows} of {count} rows; {HINT}",
                where=Where("startrek", "issues.search"),
            )


def question(
    *,
    queue: str | None = None,
    keys: Sequence[str] | None = None,
    filter: Mapping[str, Any] | None = None,
    query: str | None = None,
    order: str | Sequence[str] = (),
) -> dict[str, Any]:
    """The body that asks it. ValueError for what the tracker would refuse, or guess at."""
    given = {"queue": queue, "keys": keys, "filter": filter, "query": query}
    body = {name: plain(value) for name, value in given.items() if value is not None}
    if len(body) != 1:
        said = ", ".join(body) or "none"
        raise ValueError(f"one of queue, keys, filter, query is needed, not {said}")
    if isinstance(keys, str):
        raise ValueError("keys is a list of keys")
    if order:
        if filter is None:
            raise ValueError("order goes with filter only; a query has its own")
        body["order"] = [order] if isinstance(order, str) else list(order)
    return body
