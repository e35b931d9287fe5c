"""What a stream sends and when, and that its items are closed in each case."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, g, request
from gevent import GreenletExit

from sepelib.flask import h
from sepelib.util import request_id

app = Flask(__name__)


class Items:
    """Gives *items*, raises those that are errors, and counts how often it is closed."""

    def __init__(self, *items: Any) -> None:
        self._items = iter(items)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1


def chunks(items: Iterable[Any], **options: Any) -> list[bytes]:
    with app.test_request_context():
        return sent(h.stream_json(items, **options))


def sent(response: Response) -> list[bytes]:
    with response:
        return list(response.iter_encoded())


@pytest.mark.parametrize("items", [[], [1], [1, {"a": None}, "я\n"]])
def test_the_forms_are_an_array_and_lines(items: list[Any]) -> None:
    assert json.loads(b"".join(chunks(items))) == items
    lines = b"".join(chunks(items, form="ndjson")).splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == items
    assert all(line.endswith(b"\n") for line in lines)


def test_the_type_status_and_headers_are_told() -> None:
    with app.test_request_context():
        array = h.stream_json([], status=206, X_A="b")
        lines = h.stream_json([], form="ndjson")
    assert (array.mimetype, array.status_code, array.headers["X-A"]) == (
        "application/json",
        206,
        "b",
    )
    assert lines.mimetype == "application/x-ndjson"
    assert "Content-Length" not in array.headers


def test_small_items_are_sent_together() -> None:
    def numbers() -> list[int]:
        return list(range(10_000))

    assert len(chunks(numbers(), flush_after=60)) == 3
    assert len(chunks(numbers(), buffer=1 << 20, flush_after=60)) == 1
    assert chunks([1, 2], buffer=0) == [b"[1", b",2", b"]"]


def test_an_item_does_not_wait_when_the_last_ones_were_sent_long_ago() -> None:
    assert chunks([1, 2], flush_after=0) == [b"[1", b",2", b"]"]


def test_items_are_made_when_they_are_sent() -> None:
    made = []

    def numbers() -> Iterator[int]:
        for n in range(5):
            made.append(n)
            yield n

    with app.test_request_context():
        response = h.stream_json(numbers(), buffer=0)
        assert made == [0]
        parts = response.iter_encoded()
        assert (next(parts), next(parts), made) == (b"[0", b",1", [0, 1])
        response.close()


@pytest.mark.parametrize("bad", [ValueError("gone"), object(), float("nan")])
def test_the_first_item_fails_before_anything_is_sent(
    bad: object, caplog: pytest.LogCaptureFixture
) -> None:
    items = Items(bad)
    with app.test_request_context(), pytest.raises((ValueError, TypeError)):
        h.stream_json(items)
    assert items.closed == 1 and caplog.records == []


@pytest.mark.parametrize("bad", [ValueError("gone"), object(), float("nan")])
def test_a_later_item_breaks_the_answer_off_after_what_was_ready(
    bad: object, caplog: pytest.LogCaptureFixture
) -> None:
    items = Items(1, 2, bad, 3)
    with request_id.using("id-1"), app.test_request_context("/x?token=hunter2"):
        response = h.stream_json(items)
    parts = response.iter_encoded()

    assert next(parts) == b"[1,2"
    with pytest.raises(h.StreamBroken, match="after 2 items") as caught:
        next(parts)
    response.close()

    assert isinstance(caught.value.__cause__, ValueError | TypeError)
    assert items.closed == 1
    (record,) = caplog.records
    assert record.getMessage() == "GET /x broke off after 2 items (request id-1)"
    assert record.levelno == logging.ERROR and record.exc_info is not None


def test_a_cancelled_stream_is_not_taken_for_a_failed_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    items = Items(1, GreenletExit())
    with app.test_request_context():
        response = h.stream_json(items)
    with pytest.raises(GreenletExit):
        next(response.iter_encoded())
    response.close()
    assert items.closed == 1 and caplog.records == []


def test_items_are_closed_once_however_it_ends() -> None:
    def closed(read: int) -> int:
        items = Items(1, 2, 3)
        with app.test_request_context():
            response = h.stream_json(items, buffer=0)
        parts = response.iter_encoded()
        for _ in range(read):
            next(parts)
        response.close()
        response.close()
        return items.closed

    assert [closed(read) for read in (0, 1, 4)] == [1, 1, 1]


def test_what_was_given_is_closed_and_what_it_gave_too() -> None:
    class Cursor:
        def __init__(self) -> None:
            self.items = Items(1)
            self.closed = 0

        def __iter__(self) -> Items:
            return self.items

        def close(self) -> None:
            self.closed += 1

    cursor = Cursor()
    assert chunks(cursor) == [b"[1]"]
    assert (cursor.closed, cursor.items.closed) == (1, 1)


def test_a_generator_sees_its_end() -> None:
    seen = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        except GeneratorExit:
            seen.append("exit")
            raise
        finally:
            seen.append("finally")

    with app.test_request_context():
        h.stream_json(numbers(), buffer=0).close()
    assert seen == ["exit", "finally"]


def test_the_context_of_the_request_stays_while_items_are_made() -> None:
    seen: list[str] = []
    local = Flask("local")

    @local.get("/x")
    def view() -> Response:
        g.word = "kept"

        def numbers() -> Iterator[str]:
            for _ in range(3):
                yield f"{request.args['a']} {g.word}"

        return h.stream_json(numbers(), buffer=0)

    local.teardown_request(lambda _: seen.append("over"))
    with local.test_client() as client:
        assert client.get("/x?a=b").get_json() == ["b kept"] * 3


def test_what_cannot_be_a_stream_is_refused_at_once() -> None:
    items = Items(1)
    with app.test_request_context():
        with pytest.raises(ValueError, match="form"):
            h.stream_json(items, form="xml")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            h.stream_json(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="newline"):
            h.stream_json(items, X_A="b\nc")
    assert items.closed == 1
