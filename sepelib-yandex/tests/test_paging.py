"""Pages are asked for as they are consumed, and a service that leads in a circle is told so."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest

from sepelib.yandex.base import ApiClient
from sepelib.yandex.errors import (
    ApiProtocolError,
    ForeignLink,
    NotFound,
    ServerError,
    YandexError,
)
from sepelib.yandex.paging import (
    BodyLinks,
    Keyset,
    LimitOffset,
    LinkHeader,
    PageNumber,
    Pager,
    Scroll,
    Strategy,
)
from sepelib.yandex.testing import FakeRequest, FakeService, Reply, route


@dataclass
class Shelf:
    size: int = 25
    cap: int = 1000
    scrolls: dict[str, int] = field(default_factory=dict)
    released: list[Any] = field(default_factory=list)


class FakeShelf(FakeService[Shelf]):
    """The numbers from 0, in all the ways in which services number pages."""

    service = "shelf"

    def new_state(self) -> Shelf:
        return Shelf()

    def authorize(self, request: FakeRequest) -> None:
        pass

    def rows(self, start: int, count: int) -> list[dict[str, int]]:
        return [{"id": n} for n in range(start, min(start + count, self.state.size))]

    @route("GET", "/numbered", op="numbered", query=None)
    def _numbered(self, request: FakeRequest) -> object:
        page, size = int(request.query["page"]), int(request.query["perPage"])
        total = self.state.size
        headers = {"X-Total-Count": str(total), "X-Total-Pages": str(-(-total // size))}
        return Reply(json=self.rows((page - 1) * size, size), headers=headers)

    @route("GET", "/linked", op="linked", query=None)
    def _linked(self, request: FakeRequest) -> object:
        start, size = int(request.query.get("from", 0)), int(request.query.get("perPage", 10))
        headers = [("Link", f'<{request.root}/linked?from=0>; rel="first"')]
        if start + size < self.state.size:
            target = f"{request.root}/linked?from={start + size}&perPage={size}"
            headers.append(("Link", f'<{target}>; rel="next"'))
        return Reply(json=self.rows(start, size), headers=headers)

    @route("POST", "/scrolled", op="scrolled", query=None, body="json")
    def _scrolled(self, request: FakeRequest) -> object:
        scroll, size = request.query.get("scrollId"), 10
        if scroll is None:
            assert request.query["scrollType"] == "sorted"
            scroll = f"s{len(self.state.scrolls)}"
            self.state.scrolls[scroll] = 0
        start = self.state.scrolls[scroll]
        self.state.scrolls[scroll] = start + size
        last = start + size >= self.state.size
        headers = {} if last else {"X-Scroll-Id": scroll, "X-Scroll-Token": f"t-{scroll}"}
        return Reply(json=self.rows(start, size), headers=headers)

    @route("POST", "/clear", op="clear", body="json")
    def _clear(self, request: FakeRequest) -> object:
        self.state.released.append(request.json)
        return Reply(200)

    @route("GET", "/body", op="body", query=None)
    def _body(self, request: FakeRequest) -> object:
        page, size = int(request.query.get("_page", 1)), int(request.query["_limit"])
        pages = -(-self.state.size // size)
        links = {}
        if page < pages and "nolinks" not in request.query:
            links["next"] = f"{request.root}/body?_page={page + 1}&_limit={size}"
        rows = self.rows((page - 1) * size, size)
        return {
            "links": links,
            "page": page,
            "pages": pages,
            "total": self.state.size,
            "result": rows,
        }

    @route("GET", "/offset", op="offset", query=None)
    def _offset(self, request: FakeRequest) -> object:
        limit = min(int(request.query["limit"]), 10)
        rows = self.rows(int(request.query["offset"]), limit)
        return rows if "bare" in request.query else {"items": rows, "total": self.state.size}

    @route("GET", "/keyset", op="keyset", query=None)
    def _keyset(self, request: FakeRequest) -> object:
        after = int(request.query.get("after", -1))
        limit = min(int(request.query["_limit"]), self.state.cap)
        return {"result": self.rows(after + 1, limit)}


class ShelfClient(ApiClient):
    service = "shelf"
    PATHS = {
        name: f"/{name}"
        for name in ("numbered", "linked", "scrolled", "clear", "body", "offset", "keyset")
    }

    def clear(self, opened: Mapping[str, str]) -> None:
        self.request("clear", "POST", json=dict(opened), idempotent=True)

    def ids(self, op: str, strategy: Strategy | None = None, **options: Any) -> Pager[int]:
        if op == "scrolled":
            options |= {"method": "POST", "json": {}, "idempotent": True}
        found = strategy or self.strategies()[op]
        return self.pager(found, op, of=lambda row: int(row["id"]), **options)

    def strategies(self) -> dict[str, Strategy]:
        return {
            "numbered": PageNumber(10),
            "linked": LinkHeader(10),
            "scrolled": Scroll(10, release=self.clear),
            "body": BodyLinks(10),
            "offset": LimitOffset(10),
            "keyset": Keyset("id", lambda last: {"after": last}, 10),
        }


ALL = ["numbered", "linked", "scrolled", "body", "offset", "keyset"]


@pytest.fixture(params=["inprocess", "live"])
def shelf(request: pytest.FixtureRequest) -> Iterator[FakeShelf]:
    fake = FakeShelf()
    with fake.serve() if request.param == "live" else nullcontext():
        yield fake
    fake.check()


@pytest.fixture
def client(shelf: FakeShelf) -> Iterator[ShelfClient]:
    session = shelf.session() if shelf.server is None else None
    with ShelfClient(shelf.url, session=session, sleep=lambda seconds: None) as client:
        yield client


@pytest.mark.parametrize("op", ALL)
def test_all_pages_are_walked_one_request_each(
    shelf: FakeShelf, client: ShelfClient, op: str
) -> None:
    pager = client.ids(op)
    assert shelf.calls.ops == [], "nothing is sent before the first item is wanted"
    assert list(pager) == list(range(25))
    # A short page of a keyset may be one that the service has cut: the end is an empty one.
    assert len(shelf.calls.of(op)) == (4 if op == "keyset" else 3)
    assert list(pager) == list(range(25)), "each iteration starts anew"


def test_a_service_that_caps_the_limit_does_not_cut_a_dump(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    shelf.state.cap = 4
    assert list(client.ids("keyset")) == list(range(25))
    assert len(shelf.calls.of("keyset")) == 8


def test_a_service_that_does_not_look_at_the_key_is_no_circle(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    stuck = Keyset("id", lambda last: {"behind": last}, 10)
    pager = client.ids("keyset", stuck)
    with pytest.raises(ApiProtocolError, match="repeats"):
        list(pager)
    assert len(shelf.calls.of("keyset")) == 2


@pytest.mark.parametrize("op", ALL)
def test_no_page_is_asked_for_before_it_is_needed(
    shelf: FakeShelf, client: ShelfClient, op: str
) -> None:
    pager = client.ids(op)
    assert pager.first_page() == list(range(10))
    assert len(shelf.calls.of(op)) == 1
    items = iter(pager)
    assert [next(items) for _ in range(10)] == list(range(10))
    assert len(shelf.calls.of(op)) == 2
    assert next(items) == 10
    assert len(shelf.calls.of(op)) == 3


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("limit", [0, 1, 10, 11, 100])
def test_a_limit_ends_it_early(shelf: FakeShelf, client: ShelfClient, op: str, limit: int) -> None:
    assert list(client.ids(op, limit=limit)) == list(range(min(limit, 25)))
    pages = 4 if op == "keyset" else 3
    assert len(shelf.calls.of(op)) == min(-(-limit // 10), pages)


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20])
def test_no_row_is_lost_at_the_edges_of_pages(
    shelf: FakeShelf, client: ShelfClient, op: str, size: int
) -> None:
    shelf.state.size = size
    assert list(client.ids(op)) == list(range(size))


def test_one_page_is_one_request(shelf: FakeShelf, client: ShelfClient) -> None:
    for op in ("numbered", "body", "offset"):
        pager = client.ids(op)
        assert pager.page(3) == list(range(20, 25)) and pager.total == 25
        assert len(shelf.calls.of(op)) == 1
        with pytest.raises(ValueError, match="from 1, not 0"):
            pager.page(0)
    for op in ("linked", "scrolled", "keyset"):
        with pytest.raises(TypeError, match="has no numbered pages"):
            client.ids(op).page(1)


@pytest.mark.parametrize("value", ["", "many", "-5", "1e3", "25.0", "\xb2"])
def test_totals_of_nonsense_are_no_totals(
    shelf: FakeShelf, client: ShelfClient, value: str
) -> None:
    rows = [[{"id": n} for n in range(10)], [{"id": 10}]]
    for page in rows:
        headers = {
            "X-Total-Count": value.encode().decode("latin-1"),
            "X-Total-Pages": value.encode().decode("latin-1"),
        }
        shelf.faults.play(Reply(json=page, headers=headers))
    pager = client.ids("numbered")
    assert list(pager) == list(range(11)) and pager.total is None


def test_totals_that_lie_end_at_an_empty_page(shelf: FakeShelf, client: ShelfClient) -> None:
    headers = {"X-Total-Count": "1000", "X-Total-Pages": "100"}
    shelf.faults.play(Reply(json=[{"id": 0}], headers=headers))
    shelf.faults.play(Reply(json=[], headers=headers))
    assert list(client.ids("numbered")) == [0]
    shelf.faults.play(Reply(json={"items": [{"id": 0}], "total": 50}))
    shelf.faults.play(Reply(json={"items": [], "total": 50}))
    assert list(client.ids("offset")) == [0]


def test_a_cap_of_the_service_is_told_with_what_to_do(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    strategy = PageNumber(10, cap=20, hint="use scroll()")
    seen: list[int] = []
    with pytest.raises(YandexError, match=r"no pages behind row 20; use scroll\(\)"):
        seen.extend(client.ids("numbered", strategy))
    assert seen == list(range(20)) and len(shelf.calls.of("numbered")) == 2
    with pytest.raises(YandexError, match="no pages behind row 20"):
        client.ids("numbered", strategy).page(3)
    assert len(shelf.calls.of("numbered")) == 2


def test_pages_without_links_are_numbered(shelf: FakeShelf, client: ShelfClient) -> None:
    assert list(client.ids("body", params={"nolinks": "1"})) == list(range(25))
    assert [call.query["_limit"] for call in shelf.calls.of("body")] == ["10"] * 3


def test_a_bare_list_is_a_page_too(shelf: FakeShelf, client: ShelfClient) -> None:
    assert list(client.ids("offset", params={"bare": "1"})) == list(range(25))


def test_a_service_that_gives_less_than_asked_for_is_walked_to_its_total(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    assert list(client.ids("offset", LimitOffset(20))) == list(range(25))


def test_parameters_stay_on_every_page_and_links_have_their_own(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    list(client.ids("numbered", params={"fields": "id"}))
    assert [call.query["fields"] for call in shelf.calls.of("numbered")] == ["id"] * 3
    list(client.ids("linked", params={"fields": "id"}))
    assert ["fields" in call.query for call in shelf.calls.of("linked")] == [True, False, False]


# Circles and strangers.


def answers(shelf: FakeShelf, op: str, rows: list[int], link: str) -> None:
    page = [{"id": n} for n in rows]
    if op == "linked":
        shelf.faults.on(op, json=page, status=200, headers={"Link": f'<{link}>; rel="next"'})
    else:
        shelf.faults.on(op, json={"links": {"next": link}, "result": page})


@pytest.mark.parametrize("op", ["linked", "body"])
def test_a_link_that_repeats_is_a_circle(shelf: FakeShelf, client: ShelfClient, op: str) -> None:
    answers(shelf, op, [1], f"{shelf.root}/{op}?page=2&_limit=1")
    seen: list[int] = []
    with pytest.raises(ApiProtocolError, match="the cursor of the pages repeats"):
        seen.extend(client.ids(op))
    assert seen == [1, 1] and len(shelf.calls.of(op)) == 2


@pytest.mark.parametrize("op", ["linked", "body"])
def test_a_next_link_to_a_stranger_is_refused(
    shelf: FakeShelf, client: ShelfClient, op: str
) -> None:
    answers(shelf, op, [1], "http://evil.test/next")
    items = iter(client.ids(op))
    assert next(items) == 1
    with pytest.raises(ForeignLink):
        next(items)
    assert len(shelf.calls.of(op)) == 1


def test_a_keyset_that_does_not_move_is_a_circle(shelf: FakeShelf, client: ShelfClient) -> None:
    shelf.faults.on("keyset", json={"result": [{"id": 7}] * 10})
    with pytest.raises(ApiProtocolError, match="repeats"):
        list(client.ids("keyset"))
    shelf.faults.clear()
    shelf.faults.on("keyset", json={"result": [{}] * 10})
    with pytest.raises(ApiProtocolError, match="an item has no id"):
        list(client.pager(client.strategies()["keyset"], "keyset", of=dict))


def test_a_scroll_that_stands_still_is_a_circle(shelf: FakeShelf, client: ShelfClient) -> None:
    shelf.faults.on("scrolled", status=200, json=[{"id": 1}], headers={"X-Scroll-Id": "s"})
    with pytest.raises(ApiProtocolError, match="the same page comes again"):
        list(client.ids("scrolled"))
    assert shelf.state.released == [{"s": ""}]


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("body", [{"x": 1}, "text", None, {"result": {}, "items": {}}])
def test_an_answer_without_a_list_is_told(
    shelf: FakeShelf, client: ShelfClient, op: str, body: Any
) -> None:
    shelf.faults.on(op, json=body)
    with pytest.raises(ApiProtocolError, match="is no list"):
        list(client.ids(op))


# Scrolls are given back.


def test_a_scroll_is_released_at_its_end_and_when_it_is_left(
    shelf: FakeShelf, client: ShelfClient
) -> None:
    ends: list[Callable[[], object]] = [
        lambda: list(client.ids("scrolled")),
        lambda: next(iter(client.ids("scrolled"))),
        lambda: list(client.ids("scrolled", limit=3)),
        lambda: client.ids("scrolled").first_page(),
        lambda: leave(client.ids("scrolled")),
    ]
    for number, end in enumerate(ends):
        end()
        gc.collect()
        scroll = f"s{number}"
        assert shelf.state.released == [{scroll: f"t-{scroll}"}]
        shelf.state.released.clear()


def leave(pager: Pager[int]) -> None:
    for number in pager:
        if number == 12:
            break


def test_a_scroll_is_released_when_a_page_fails(shelf: FakeShelf, client: ShelfClient) -> None:
    items = iter(client.ids("scrolled"))
    next(items)
    shelf.faults.on("scrolled", status=404)
    with pytest.raises(NotFound):
        list(items)
    assert len(shelf.state.released) == 1


def test_a_release_that_fails_is_logged(
    shelf: FakeShelf, client: ShelfClient, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.faults.on("clear", status=403)
    assert list(client.ids("scrolled")) == list(range(25))
    assert "a scroll is left to its time" in caplog.text


def test_who_is_cancelled_asks_for_nothing_more(shelf: FakeShelf, client: ShelfClient) -> None:
    class Cancelled(BaseException):
        pass

    def of(row: Any) -> int:
        raise Cancelled

    with pytest.raises(Cancelled):
        list(client.pager(Scroll(10, release=client.clear), "scrolled", "POST", of=of, json={}))
    assert shelf.state.released == []


def test_an_error_of_a_page_is_the_error_of_the_call(shelf: FakeShelf, client: ShelfClient) -> None:
    items = iter(client.ids("numbered"))
    next(items)
    shelf.faults.on("numbered", status=500)
    with pytest.raises(ServerError) as caught:
        list(items)
    assert caught.value.attempts == 3 and caught.value.op == "numbered"
