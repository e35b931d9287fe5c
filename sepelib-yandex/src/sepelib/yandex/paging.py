"""Answers that come in pages, asked for one by one as they are consumed.

    for issue in client.pager(PageNumber(size=50), "issues.search", "POST", json=body):
        ...

A strategy says how a service numbers its pages; it keeps no state and may be shared. What services
tell of totals is advice: it may be missing, late or wrong, and never ends a walk in an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .errors import ApiProtocolError, YandexError

if TYPE_CHECKING:
    from .base import Response

__all__ = [
    "BodyLinks",
    "Keyset",
    "LimitOffset",
    "LinkHeader",
    "Page",
    "PageNumber",
    "Pager",
    "Scroll",
    "Step",
    "Strategy",
]

T = TypeVar("T")

_MAX_PAGES = 100_000

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What asks for one page: parameters of the query, or a link of the service's own."""

    params: Mapping[str, Any] = {}
    link: str | None = None
    number: int = 1
    opened: Mapping[str, str] = {}
    """Scrolls by their ids, to be released."""


class Page(NamedTuple):
    """What one answer has. *next* None: it is the last. *total*: of all pages, if it is told."""

    items: list[Any]
    next: Step | None
    total: int | None = None


class Strategy:
    """How a service turns its pages."""

    constant_cursor = False
    """Whether the cursor may be the same for all pages, as the id of a whole scroll."""

    def first(self) -> Step:
        raise NotImplementedError

    def read(self, response: Response, step: Step, /) -> Page:
        raise NotImplementedError

    def at(self, number: int, /) -> Step:
        """The page of that *number*, from 1. TypeError where pages cannot be chosen."""
        raise TypeError(f"{type(self).__name__} has no numbered pages: iterate")

    def before(self, step: Step, /) -> None:
        """Raise what forbids to ask for *step*."""

    def close(self, step: Step, /) -> None:
        """The walk is over; *step* would have been the next one, or was the last."""


class Pager(Generic[T]):
    """The items of all pages, lazily: one request per page, none before the first is wanted.

    Each iteration starts from the first page. *limit*: items, then it stops. For one greenlet at a
    time. Raises ApiProtocolError when the service leads in a circle; its other errors pass.
    """

    def __init__(
        self,
        send: Callable[[Step], Response],
        strategy: Strategy,
        *,
        of: Callable[[Any], T],
        limit: int | None = None,
    ) -> None:
        self._send = send
        self._strategy = strategy
        self._of = of
        self._limit = limit
        self.total: int | None = None
        """How many items there are, as the last answer had it; None when it did not say."""

    def first_page(self) -> list[T]:
        """One request."""
        step = self._strategy.first()
        page = self._ask(step)[0]
        self._strategy.close(page.next or step)
        return [self._of(item) for item in page.items]

    def page(self, number: int) -> list[T]:
        """The page of that *number*, from 1, by one request; TypeError where pages have none."""
        if number < 1:
            raise ValueError(f"pages are numbered from 1, not {number!r}")
        page = self._ask(self._strategy.at(number))[0]
        return [self._of(item) for item in page.items]

    def __iter__(self) -> Iterator[T]:
        left = self._limit
        if left is not None and left <= 0:
            return
        walk = _Walk(self._ask, self._strategy)
        try:
            for item in walk.items():
                yield self._of(item)
                if left is not None:
                    left -= 1
                    if not left:
                        break
        except BaseException as error:
            # Whoever cancels does not want another request; the service frees it by itself.
            if isinstance(error, Exception | GeneratorExit):
                self._strategy.close(walk.step)
            raise
        self._strategy.close(walk.step)

    def _ask(self, step: Step) -> tuple[Page, Response]:
        self._strategy.before(step)
        response = self._send(step)
        page = self._strategy.read(response, step)
        if page.total is not None:
            self.total = page.total
        return page, response


class _Walk:
    def __init__(self, ask: Callable[[Step], tuple[Page, Response]], strategy: Strategy) -> None:
        self._ask = ask
        self._constant = strategy.constant_cursor
        self._seen: set[object] = set()
        self.step = strategy.first()

    def items(self) -> Iterator[Any]:
        for _ in range(_MAX_PAGES):
            page, response = self._ask(self.step)
            self._remember(self.step, response)
            following = page.next
            if following is not None:
                self.step = following
            yield from page.items
            if following is None or not page.items:
                return
            if not self._constant and _mark(following) in self._seen:
                raise ApiProtocolError("the cursor of the pages repeats", where=response.where)
        raise ApiProtocolError(f"more than {_MAX_PAGES} pages", where=response.where)

    def _remember(self, step: Step, response: Response) -> None:
        mark = _mark(step)
        if self._constant:
            mark = mark, hash(response.content)
            if mark in self._seen and len(response.content) > 2:  # more than []
                raise ApiProtocolError("the same page comes again", where=response.where)
        self._seen.add(mark)


def _mark(step: Step) -> object:
    return step.link, repr(sorted(step.params.items()))


class PageNumber(Strategy):
    """`?page=2&perPage=50`, with X-Total-Pages and X-Total-Count, or their likes in the body.

    *items*, *total*, *pages*: dotted keys in the body; *items* None: the body is the list.
    *cap*: rows behind which the service does not go; who asks for them gets a YandexError with
    *hint*.
    """

    def __init__(
        self,
        size: int = 50,
        *,
        page: str = "page",
        per_page: str = "perPage",
        items: str | None = None,
        total: str | None = None,
        pages: str | None = None,
        cap: int | None = None,
        hint: str = "",
    ) -> None:
        self._size = size
        self._page = page
        self._per_page = per_page
        self._items = items
        self._total = total
        self._pages = pages
        self._cap = cap
        self._hint = hint

    def first(self) -> Step:
        return self.at(1)

    def at(self, number: int, /) -> Step:
        return Step({self._page: number, self._per_page: self._size}, number=number)

    def read(self, response: Response, step: Step, /) -> Page:
        items = _items(response, self._items)
        total = _told(response, "X-Total-Count", self._total)
        pages = _told(response, "X-Total-Pages", self._pages)
        more = len(items) >= self._size if pages is None else step.number < pages
        following = self.at(step.number + 1) if more and items else None
        return Page(items, following, total)

    def before(self, step: Step, /) -> None:
        if self._cap is not None and (step.number - 1) * self._size >= self._cap:
            raise YandexError(f"no pages behind row {self._cap}; {self._hint}".rstrip("; "))


class LinkHeader(Strategy):
    """`Link: <url>; rel="next"` (RFC 8288)."""

    def __init__(
        self, size: int | None = None, *, per_page: str = "perPage", items: str | None = None
    ) -> None:
        self._first = Step({} if size is None else {per_page: size})
        self._items = items

    def first(self) -> Step:
        return self._first

    def read(self, response: Response, step: Step, /) -> Page:
        from requests.utils import parse_header_links

        following = None
        for link in parse_header_links(response.headers.get("Link", "")):
            if "next" in link.get("rel", "").lower().split() and link.get("url"):
                following = Step(link=link["url"], number=step.number + 1)
        total = _told(response, "X-Total-Count", None)
        return Page(_items(response, self._items), following, total)


class Scroll(Strategy):
    """A snapshot on the service's side, turned by its id and released in the end.

    *start*: parameters of the first request. *release* is given {id: token} of all that was
    opened; its failure is logged, as the service frees a scroll by itself after a while.
    """

    constant_cursor = True

    def __init__(
        self,
        size: int = 100,
        *,
        start: Mapping[str, Any] | None = None,
        per_scroll: str = "perScroll",
        cursor: str = "scrollId",
        id_header: str = "X-Scroll-Id",
        token_header: str = "X-Scroll-Token",
        items: str | None = None,
        release: Callable[[Mapping[str, str]], object],
    ) -> None:
        begin = {"scrollType": "sorted"} if start is None else dict(start)
        self._first = Step({**begin, per_scroll: size})
        self._cursor = cursor
        self._id_header = id_header
        self._token_header = token_header
        self._items = items
        self._release = release

    def first(self) -> Step:
        return self._first

    def read(self, response: Response, step: Step, /) -> Page:
        items = _items(response, self._items)
        total = _told(response, "X-Total-Count", None)
        scroll = response.headers.get(self._id_header)
        if not scroll:
            return Page(items, None, total)
        opened = {**step.opened, scroll: response.headers.get(self._token_header, "")}
        return Page(items, Step({self._cursor: scroll}, None, step.number + 1, opened), total)

    def close(self, step: Step, /) -> None:
        if not step.opened:
            return
        try:
            self._release(step.opened)
        except YandexError as error:
            _log.warning("a scroll is left to its time: %s", error)


class BodyLinks(Strategy):
    """`links.next` in the body if it is there, else the page after this one until `pages`."""

    def __init__(
        self,
        size: int | None = None,
        *,
        items: str = "result",
        next: str = "links.next",
        page: str = "_page",
        limit: str = "_limit",
        number: str = "page",
        pages: str = "pages",
        total: str = "total",
    ) -> None:
        self._sized = {} if size is None else {limit: size}
        self._items = items
        self._next = next
        self._page = page
        self._number = number
        self._pages = pages
        self._total = total

    def first(self) -> Step:
        return Step(self._sized)

    def at(self, number: int, /) -> Step:
        return Step({**self._sized, self._page: number}, number=number)

    def read(self, response: Response, step: Step, /) -> Page:
        link = _dotted(response.data, self._next)
        following = None
        if isinstance(link, str) and link:
            following = Step(link=link, number=step.number + 1)
        else:
            number = _number(_dotted(response.data, self._number)) or step.number
            pages = _number(_dotted(response.data, self._pages))
            if pages is not None and number < pages:
                following = self.at(number + 1)
        total = _number(_dotted(response.data, self._total))
        return Page(_items(response, self._items), following, total)


class LimitOffset(Strategy):
    """`?limit=100&offset=200` and `{"items": [...], "total": 301}`; a bare list does as well."""

    def __init__(
        self,
        size: int = 100,
        *,
        items: str = "items",
        total: str = "total",
        limit: str = "limit",
        offset: str = "offset",
    ) -> None:
        self._size = size
        self._items = items
        self._total = total
        self._limit = limit
        self._offset = offset

    def first(self) -> Step:
        return self.at(1)

    def at(self, number: int, /) -> Step:
        return self._from((number - 1) * self._size, number)

    def read(self, response: Response, step: Step, /) -> Page:
        bare = isinstance(response.data, list)
        items = _items(response, None if bare else self._items)
        total = _number(_dotted(response.data, self._total))
        offset = step.params[self._offset] + len(items)
        more = len(items) >= self._size if total is None else offset < total
        following = self._from(offset, step.number + 1) if more and items else None
        return Page(items, following, total)

    def _from(self, offset: int, number: int) -> Step:
        return Step({self._limit: self._size, self._offset: offset}, number=number)


class Keyset(Strategy):
    """Sorted by *field*, each page asked for behind the last item of the one before.

    Stable while rows come and go. *after* makes the parameters of the last item's *field*. Only an
    empty page is the end: a service may let us have fewer rows than were asked for.
    """

    def __init__(
        self,
        field: str,
        after: Callable[[Any], Mapping[str, Any]],
        size: int = 100,
        *,
        limit: str = "_limit",
        items: str | None = "result",
    ) -> None:
        self._field = field
        self._after = after
        self._size = size
        self._limit = limit
        self._items = items

    def first(self) -> Step:
        return Step({self._limit: self._size})

    def read(self, response: Response, step: Step, /) -> Page:
        items = _items(response, self._items)
        if not items:
            return Page(items, None)
        last = _dotted(items[-1], self._field)
        if last is None:
            raise ApiProtocolError(f"an item has no {self._field}", where=response.where)
        params = {self._limit: self._size, **self._after(last)}
        return Page(items, Step(params, number=step.number + 1))


def _items(response: Response, key: str | None) -> list[Any]:
    items = response.data if key is None else _dotted(response.data, key)
    if not isinstance(items, list):
        place = "the answer" if key is None else f"{key} of the answer"
        raise ApiProtocolError(f"{place} is no list", where=response.where, status=response.status)
    return items


def _dotted(data: Any, key: str) -> Any:
    for name in key.split("."):
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _told(response: Response, header: str, key: str | None) -> int | None:
    return _number(response.headers.get(header) if key is None else _dotted(response.data, key))


def _number(value: Any) -> int | None:
    """A count of a stranger; None for whatever is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:12])
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
