"""The history on disk: what is read back, what is refused, who waits for whom."""

import json
import logging
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from lookout.database import Away, Refused
from lookout.judge import Rules, Standing, State
from lookout.records import History, Result
from lookout.store import Keeper, NewerHistory, encode, load, save

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BAD = Result(NOON, 0.25, None, "connection refused", 2)
GOOD = Result(NOON + timedelta(seconds=1), 0.01, 200)


def some_history() -> History:
    history = History()
    for result in (BAD, BAD, GOOD):
        history.add("shop", result, Rules(confirm=2, recover=2))
    return history


def read(path: Path, max_results: int = 300) -> History:
    return load(path, max_results=max_results)


def keep(history: History, path: Path, every: float = 3600) -> Keeper:
    return Keeper(lambda: save(path, encode(history)), every=every)


def test_what_was_written_is_read_back_equal(tmp_path: Path) -> None:
    path, history = tmp_path / "history.json", some_history()
    path.write_text(encode(history))

    again = read(path)

    assert again.records == history.records
    assert again.record("shop").standing == Standing(State.RECOVERING, 1)


def test_no_file_is_an_empty_history(tmp_path: Path) -> None:
    assert read(tmp_path / "history.json").records == {}


def test_a_lower_limit_keeps_the_newest_results(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text(encode(some_history()))

    assert list(read(path, max_results=1).record("shop").results) == [GOOD]


def test_times_of_other_zones_are_read_as_utc(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    east = NOON.astimezone(timezone(timedelta(hours=5)))
    path.write_text(encode(some_history()).replace(NOON.isoformat(), east.isoformat()))

    assert read(path).record("shop").results[0].at == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": "1"}',
        '{"version": 2, "targets": []}',
        encode(some_history())[:-30],
        encode(some_history()).replace('"recovering"', '"confused"'),
        encode(some_history()).replace("+00:00", ""),
        "\x00" * 100,
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_moved_aside_and_the_watch_begins_anew(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.json"
    path.write_text(text)

    assert read(path).records == {}

    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("history.json.damaged-")
    assert aside.read_text() == text
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(path) in record.getMessage()
    assert aside.name in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_file_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"version": 3, "whatever": "comes"}')

    with pytest.raises(NewerHistory, match=r"history\.json: written by a later lookout"):
        read(path)

    assert path.read_text() == '{"version": 3, "whatever": "comes"}'


def test_a_flush_returns_when_the_disk_has_what_was_known_before(tmp_path: Path) -> None:
    history, path = History(), tmp_path / "history.json"
    keeper = keep(history, path)
    for n in range(1, 4):
        history.add("shop", GOOD, Rules())
        assert keeper.flush()
        assert len(json.loads(path.read_bytes())["targets"]["shop"]["results"]) == n

    assert keeper.close()


def test_changes_are_saved_by_themselves_after_a_while(tmp_path: Path) -> None:
    history, path = History(), tmp_path / "history.json"
    keeper = keep(history, path, every=0.05)
    history.add("shop", GOOD, Rules())
    keeper.touch()

    with gevent.Timeout(10, AssertionError("it did not come true")):
        while not path.exists():
            gevent.sleep(0.01)

    assert keeper.close()


def test_closing_saves_what_nobody_asked_to_be_saved(tmp_path: Path) -> None:
    history, path = History(), tmp_path / "history.json"
    keeper = keep(history, path)
    history.add("shop", GOOD, Rules())

    assert keeper.close()

    assert read(path).records == history.records


def test_a_disk_that_fails_is_reported_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = tmp_path / "state"
    keeper = keep(some_history(), state / "history.json")

    assert not keeper.flush()
    assert not keeper.flush()
    assert keeper.error is not None
    assert str(state / "history.json") in keeper.error
    state.mkdir()
    assert keeper.flush()

    assert keeper.error is None
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]
    shutil.rmtree(state)
    assert keeper.close() is False
    assert keeper.error is not None


def test_what_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    never = Event()
    keeper = Keeper(never.wait, every=3600)

    assert not keeper.flush(timeout=0.05)
    assert not keeper.close(timeout=0.05)
    assert keeper.error == "not written within 0.05 s"
    never.set()


def test_of_a_database_that_is_away_the_log_has_heard_already(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    troubles: list[Exception] = [Refused("the disk is full"), Away("nobody answers")]

    def fail() -> None:
        if troubles:
            raise troubles.pop()

    keeper = Keeper(fail, every=3600, what="incidents")
    assert not keeper.flush()
    assert (keeper.error, caplog.messages) == ("nobody answers", [])
    keeper.error = None
    assert not keeper.flush()
    assert caplog.messages == ["incidents not saved, trying on: the disk is full"]
    assert keeper.flush()
    assert keeper.close()
