"""Search and scroll: how many requests, how far, and what is left behind."""

import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    BadRequest,
    NotFound,
    YandexError,
)
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeStartrek, Reply

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    fake_startrek.add_query("Queue: TEST", lambda issue: issue["queue"]["key"] == "TEST")
    return fake_startrek


@pytest.fixture
def client(fake: FakeStartrek, startrek_client: StartrekClient) -> StartrekClient:
    return startrek_client


def filled(fake: FakeStartrek, count: int) -> list[str]:
    return [fake.add_issue("TEST", summary=f"{number}")["key"] for number in range(count)]


def test_a_search_sends_nothing_before_its_first_row_is_wanted(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    keys = filled(fake, 7)
    found = client.issues.search(queue="TEST", per_page=3)
    assert fake.calls.ops == [] and found.total is None

    assert [issue.key for issue in found.first_page()] == keys[:3]
    assert len(fake.calls.of("issues.search")) == 1 and found.total == 7
    assert [issue.key for issue in found.page(3)] == keys[6:]
    assert len(fake.calls.of("issues.search")) == 2
    assert [issue.key for issue in found] == keys
    assert len(fake.calls.of("issues.search")) == 5


def test_a_limit_ends_the_walk_and_its_requests(fake: FakeStartrek, client: StartrekClient) -> None:
    keys = filled(fake, 7)

    found = client.issues.search(queue="TEST", per_page=3, limit=4)

    assert [issue.key for issue in found] == keys[:4]
    assert len(fake.calls.of("issues.search")) == 2


def test_each_kind_of_question_finds_its_rows(fake: FakeStartrek, client: StartrekClient) -> None:
    filled(fake, 3)
    ann = fake.add_user("ann")
    fake.add_issue("TEST", summary="z", assignee="ann", tags=["a", "b"])
    fake.add_issue("TEST", summary="y", assignee="robot")
    search = client.issues.search

    def keys(**question: Any) -> list[str]:
        return [str(issue.key) for issue in search(**question)]

    assert keys(keys=["TEST-2", "TEST-9", "TEST-4"]) == ["TEST-2", "TEST-4"]
    assert keys(query="Queue: TEST") == [f"TEST-{number}" for number in range(1, 6)]
    assert keys(filter={"assignee": "ann"}) == keys(filter={"assignee": ann["id"]}) == ["TEST-4"]
    assert keys(filter={"assignee": "me()"}) == ["TEST-5"]
    assert keys(filter={"assignee": "Empty()", "summary": ["0", "2", "z"]}) == ["TEST-1", "TEST-3"]
    assert keys(filter={"tags": "b"}) == ["TEST-4"] and keys(filter={"tags": "Empty()"})[0] != "b"
    assert keys(filter={"queue": "TEST"}, order="-summary")[:2] == ["TEST-4", "TEST-5"]
    by_two = keys(filter={"queue": "TEST"}, order=["+assignee", "-key"])
    assert by_two == ["TEST-4", "TEST-5", "TEST-3", "TEST-2", "TEST-1"]
    assert client.issues.count(filter={"assignee": "Empty()"}) == 3
    assert client.issues.count(query="Queue: TEST") == 5


def test_a_question_of_two_kinds_is_refused_before_it_is_sent(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    for question in (
        {},
        {"queue": "TEST", "query": "x"},
        {"queue": "TEST", "order": "+key"},
        {"keys": "TEST-1"},
    ):
        with pytest.raises(ValueError, match=r"one of queue, keys|order goes with|list of keys"):
            client.issues.search(**question)

    assert fake.calls.ops == []


def test_a_query_that_the_tracker_does_not_understand_is_a_bad_request(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    with pytest.raises(BadRequest, match="query: not understood") as caught:
        client.issues.search(query="Quue: TEST").first_page()

    assert "query" in caught.value.fields


def test_a_search_is_tried_again(fake: FakeStartrek, client: StartrekClient) -> None:
    filled(fake, 1)
    fake.faults.next("issues.search", reset="after-apply")
    fake.faults.next("issues.count", status=502)

    assert len(list(client.issues.search(queue="TEST"))) == 1
    assert client.issues.count(query="Queue: TEST") == 1


def test_a_count_that_is_no_number_is_told(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.faults.next(json={"count": 7})

    with pytest.raises(ApiProtocolError, match="the count is no number"):
        client.issues.count(query="Queue: TEST")


@pytest.mark.parametrize("question", [{"query": "Queue: TEST"}, {"queue": "TEST"}])
def test_the_row_behind_the_last_that_is_shown_raises_with_a_hint(
    fake: FakeStartrek, client: StartrekClient, question: dict[str, str]
) -> None:
    filled(fake, 10_001)
    seen = []
    found = client.issues.search(**question, per_page=1000)

    with pytest.raises(YandexError, match=r"10000 of 10001 rows; issues\.scroll\(\) walks over"):
        seen.extend(issue.key for issue in found)

    assert len(seen) == 10_000 and found.total == 10_000  # as the tracker has it
    with pytest.raises(YandexError, match=r"issues\.scroll\(\)"):
        found.page(11)
    assert len(fake.calls.of("issues.search")) == 10
    whole = [issue.key for issue in client.issues.scroll(query="Queue: TEST", per_scroll=1000)]
    assert len(set(whole)) == 10_001 and fake.state.scrolls == {}


def test_as_many_rows_as_are_shown_are_no_error(fake: FakeStartrek, client: StartrekClient) -> None:
    filled(fake, 10_000)

    assert sum(1 for _ in client.issues.search(queue="TEST", per_page=1000)) == 10_000
    assert len(fake.calls.of("issues.count")) == 1
    limited = client.issues.search(queue="TEST", per_page=1000, limit=10_000)
    assert sum(1 for _ in limited) == 10_000
    assert len(fake.calls.of("issues.count")) == 1


def test_a_tracker_that_counts_right_is_not_walked_past_the_last_row_either(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.search_cap = 10**6
    filled(fake, 10_001)

    with pytest.raises(YandexError, match=r"issues\.scroll\(\)"):
        list(client.issues.search(queue="TEST", per_page=1000))

    assert len(fake.calls.of("issues.search")) == 10


@pytest.mark.parametrize("told", ["-1", "lots", "", "99999999999999999999"])
def test_totals_are_advice(fake: FakeStartrek, client: StartrekClient, told: str) -> None:
    filled(fake, 1)
    row = [dict(issue) for issue in client.issues.search(queue="TEST")]
    headers = {"X-Total-Count": told, "X-Total-Pages": told}
    fake.faults.play(Reply(json=row, headers=headers), "issues.search")
    fake.faults.play(Reply(json=[], headers=headers), "issues.search")

    assert len(list(client.issues.search(queue="TEST"))) == 1


def test_a_scroll_shows_what_was_there_when_it_began(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    keys = filled(fake, 25)
    found = iter(client.issues.scroll(query="Queue: TEST", per_scroll=10))
    seen = [next(found)]
    client.issues.update(keys[20], summary="changed")
    filled(fake, 5)

    seen += found

    assert [issue.key for issue in seen] == keys and seen[20].summary == "20"
    first, *others = [call.query for call in fake.calls.of("issues.search")]
    assert first == {"scrollType": "sorted", "perScroll": "10", "scrollTTLMillis": "60000"}
    assert others == [{"scrollId": "scroll-1"}] * 2
    assert [call.json for call in fake.calls.of("issues.scroll_clear")] == [
        {"scroll-1": "token-of-scroll-1"}
    ]
    assert fake.state.scrolls == {}


def test_a_scroll_is_freed_when_the_consumer_breaks_out(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    filled(fake, 25)

    for issue in client.issues.scroll(query="Queue: TEST", per_scroll=10):
        if issue.summary == "3":
            break
    gc.collect()  # of an interpreter that does not count references

    assert fake.state.scrolls == {} and len(fake.calls.of("issues.scroll_clear")) == 1


def test_a_scroll_is_freed_when_the_consumer_fails_or_has_enough(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    filled(fake, 25)
    scroll = client.issues.scroll

    def walk() -> None:
        for _ in scroll(query="Queue: TEST", per_scroll=10):
            raise LookupError("of the consumer")

    with pytest.raises(LookupError):
        walk()
    assert len(list(scroll(query="Queue: TEST", per_scroll=10, limit=12))) == 12
    assert len(scroll(query="Queue: TEST", per_scroll=10).first_page()) == 10

    assert fake.state.scrolls == {} and len(fake.calls.of("issues.scroll_clear")) == 3


def test_a_scroll_that_cannot_be_freed_is_a_warning_without_its_token(
    fake: FakeStartrek, client: StartrekClient, caplog: pytest.LogCaptureFixture
) -> None:
    filled(fake, 25)
    words = b'{"errors": {}, "errorMessages": ["no token-of-scroll-1 here"], "statusCode": 400}'
    fake.faults.next("issues.scroll_clear", status=400, body=words)

    with caplog.at_level(logging.DEBUG, "sepelib"):
        assert len(list(client.issues.scroll(query="Queue: TEST", per_scroll=10))) == 25

    assert "a scroll is left to its time" in caplog.text
    assert "token-of-scroll-1" not in caplog.text
    fake.calls.assert_no_secret_in(caplog.text)
    fake.clock.advance(60.0)
    client.myself()
    assert fake.state.scrolls == {}


def test_one_page_leaves_no_scroll_to_be_freed(fake: FakeStartrek, client: StartrekClient) -> None:
    filled(fake, 10)

    assert len(list(client.issues.scroll(query="Queue: TEST", per_scroll=10))) == 10
    assert list(client.issues.scroll(filter={"summary": "none"})) == []

    assert fake.calls.of("issues.scroll_clear") == [] and fake.state.scrolls == {}


def test_a_page_of_a_scroll_is_not_turned_twice(fake: FakeStartrek, client: StartrekClient) -> None:
    keys = filled(fake, 25)
    found = client.issues.scroll(query="Queue: TEST", per_scroll=10, ordered=False)
    fake.faults.next("issues.search", reset="after-apply")  # the opening one may be repeated
    walk = iter(found)
    seen = [next(walk).key]
    fake.faults.next("issues.search", reset="after-apply")

    with pytest.raises(ApiConnectionError) as caught:
        seen.extend(issue.key for issue in walk)

    # The rows of the lost page are missed aloud.
    assert seen == keys[:10] and caught.value.maybe_applied and caught.value.attempts == 1
    assert list(fake.state.scrolls) == ["scroll-1"]  # whose id nobody has got; the other is freed
    assert [issue.key for issue in found] == keys


def test_a_page_of_a_scroll_that_was_refused_is_asked_for_again(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    keys = filled(fake, 25)
    walk = iter(client.issues.scroll(query="Queue: TEST", per_scroll=10))
    seen = [next(walk).key]
    fake.faults.next("issues.search", status=429, headers={"Retry-After": "0"})

    seen.extend(issue.key for issue in walk)

    assert seen == keys


def test_a_scroll_whose_time_is_over_raises(fake: FakeStartrek, client: StartrekClient) -> None:
    filled(fake, 25)
    walk = iter(client.issues.scroll(query="Queue: TEST", per_scroll=10, ttl=5.0))
    next(walk)
    fake.clock.advance(5.0)

    with pytest.raises(NotFound, match="no such scroll, or its time is over"):
        list(walk)

    assert fake.calls.of("issues.search")[0].query["scrollTTLMillis"] == "5000"


def test_a_scroll_has_at_most_a_thousand_rows_a_page(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    for size in (0, 1001):
        with pytest.raises(ValueError, match="per_scroll is 1 to 1000"):
            client.issues.scroll(query="Queue: TEST", per_scroll=size)


def test_a_walk_that_is_given_up_in_a_generator_frees_its_scroll(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    filled(fake, 25)

    def summaries() -> Iterator[str | None]:
        for issue in client.issues.scroll(query="Queue: TEST", per_scroll=10):
            yield issue.summary

    walk = summaries()
    assert next(walk) == "0"
    walk.close()

    assert fake.state.scrolls == {}
