"""Long lists in pages, with links to the others.

    page = h.pagination(max_limit=200)                          # ?limit=50&offset=100
    found, total = jobs.find(skip=page.offset, limit=page.limit)
    return h.json_response(found, **page.headers(total=total))

    page = h.pagination(cursor=True)                            # ?limit=50&cursor=...
    found, after = jobs.since(page.cursor, page.limit)
    return h.json_response(found, **page.headers(next_cursor=after))

Links are relative (`?limit=50&offset=150`): they hold behind any proxy and under any host name.
A client joins them with the URL that it asked:

    urljoin(response.url, response.links["next"]["url"])

Source: RFC 8288, "Web Linking".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from sepelib.flask.h import args
from sepelib.flask.h._request import query
from sepelib.flask.h.constraints import Length

__all__ = ["PAGE_ARGUMENTS", "Page", "pagination"]

PAGE_ARGUMENTS = ("limit", "offset", "cursor")
"""What `pagination` reads: `h.args.parse(Search, also=h.PAGE_ARGUMENTS)`."""

_MAX_CURSOR = 512


@dataclass(frozen=True)
class Page:
    """What was asked for: at most *limit* items, after *offset* others or after *cursor*."""

    limit: int
    offset: int = 0
    cursor: str | None = None

    def headers(
        self,
        *,
        total: int | None = None,
        more: bool | None = None,
        next_cursor: str | None = None,
    ) -> dict[str, str]:
        """`Link` to the other pages with all other arguments kept, and `X-Total-Count`.

        The next page exists when *total*, else *more*, else a *next_cursor* says so; the last one
        is known by *total*. Of cursors there is only a next one.
        """
        links = []
        if next_cursor is not None:
            links.append(self._link("next", cursor=next_cursor))
        elif self.cursor is None:
            links = self._by_offset(total, more)
        found = {"Link": ", ".join(links)} if links else {}
        return found if total is None else found | {"X-Total-Count": str(total)}

    def _by_offset(self, total: int | None, more: bool | None) -> list[str]:
        links = []
        following = self.offset + self.limit
        if (following < total) if total is not None else more:
            links.append(self._link("next", offset=following))
        if self.offset:
            links.append(self._link("prev", offset=max(0, self.offset - self.limit)))
            links.append(self._link("first", offset=0))
        if total:
            links.append(self._link("last", offset=(total - 1) // self.limit * self.limit))
        return links

    def _link(self, relation: str, **place: str | int) -> str:
        others = [
            (name, value)
            for name, values in query().items()
            for value in values
            if name not in PAGE_ARGUMENTS
        ]
        url = "?" + urlencode([*others, ("limit", self.limit), *place.items()])
        return f'<{url}>; rel="{relation}"'


def pagination(
    max_limit: int = 100,
    *,
    default_limit: int | None = None,
    max_offset: int = 1_000_000,
    cursor: bool = False,
) -> Page:
    """The page that the query asks for, by `limit` and `offset`, or by `cursor`.

    Without `limit` it is *default_limit*, or *max_limit*. Above the bounds is 400, not cut: a
    client that gets less than it asked for takes it for the end. With *cursor* there is no offset;
    a cursor is at most 512 characters from a stranger, to be checked by who made it.
    """
    limit = args.get("limit", int, default_limit or max_limit, min=1, max=max_limit)
    if cursor:
        text = args.get("cursor", _Cursor, None)
        return Page(limit, cursor=text)
    return Page(limit, args.get("offset", int, 0, min=0, max=max_offset))


_Cursor = Annotated[str, Length(1, _MAX_CURSOR)]
