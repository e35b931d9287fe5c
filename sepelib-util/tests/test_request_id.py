"""The id of the request under way."""

import logging
import threading

import pytest

from sepelib.util import request_id


def test_there_is_none_outside_of_a_request() -> None:
    assert request_id.current() is None


def test_it_is_bound_for_the_block_and_the_outer_one_comes_back() -> None:
    def fail() -> None:
        assert request_id.current() == "inner"
        raise ZeroDivisionError

    with request_id.using("outer"):
        with pytest.raises(ZeroDivisionError), request_id.using("inner"):
            fail()
        assert request_id.current() == "outer"
        with request_id.using(None):
            assert request_id.current() is None
    assert request_id.current() is None


def test_another_thread_has_its_own() -> None:
    seen: list[str | None] = []
    with request_id.using("here"):
        thread = threading.Thread(target=lambda: seen.append(request_id.current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_new_ones_differ_and_are_acceptable() -> None:
    ids = {request_id.new() for _ in range(100)}
    assert len(ids) == 100
    assert all(request_id.accepted(id) == id for id in ids)


@pytest.mark.parametrize("text", ["a", "A-z.0_9:", "x" * 64])
def test_a_plain_word_of_a_stranger_is_accepted(text: str) -> None:
    assert request_id.accepted(text) == text


@pytest.mark.parametrize("text", [None, "", "x" * 65, "a b", "a\nb", "a\r", "é", "a/b", 'a"b'])
def test_what_could_harm_a_log_is_not_accepted(text: str | None) -> None:
    assert request_id.accepted(text) is None
    if text is not None:
        with pytest.raises(ValueError, match="1 to 64 of"), request_id.using(text):
            pass


def test_log_records_carry_it() -> None:
    record = logging.makeLogRecord({"msg": "text"})
    formatter = logging.Formatter("%(request_id)s %(message)s")
    assert request_id.add_to_record(record)
    assert formatter.format(record) == "- text"
    with request_id.using("42"):
        request_id.add_to_record(record)
    assert formatter.format(record) == "42 text"
