"""What is remembered of results, and for how long."""

from datetime import UTC, datetime, timedelta

from lookout.judge import Rules, State
from lookout.records import History, Incident, Result

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(confirm=2, recover=2)


def add(history: History, target: str, probes: str) -> None:
    """Add a result per second; `+` is a good one."""
    for n, probe in enumerate(probes):
        error = None if probe == "+" else "connection refused"
        result = Result(NOON + timedelta(seconds=n), 0.01, None if error else 200, error)
        history.add(target, result, RULES)


def test_a_record_says_since_when_a_target_stands_where_it_does() -> None:
    history = History()
    add(history, "shop", "++---")

    record = history.record("shop")
    assert (record.standing.state, record.since) == (State.DOWN, NOON + timedelta(seconds=3))


def test_targets_fail_independently_of_each_other() -> None:
    history = History()
    add(history, "shop", "--")
    add(history, "blog", "+-+")

    assert history.record("shop").standing.state is State.DOWN
    assert history.record("blog").standing.state is State.UP


def test_only_so_many_results_are_kept() -> None:
    history = History(max_results=3)
    add(history, "shop", "+++++")

    assert [r.at.second for r in history.record("shop").results] == [2, 3, 4]


def test_a_target_that_nobody_watches_any_more_stands_nowhere() -> None:
    history = History()
    add(history, "gone", "--")
    add(history, "shop", "--")

    history.watch_only(["shop"], NOON + timedelta(minutes=1))

    assert history.record("shop").standing.state is State.DOWN
    assert history.record("gone").standing.state is State.UNKNOWN
    assert len(history.record("gone").results) == 2  # it may come back


def test_results_of_a_target_that_was_not_watched_for_a_week_are_dropped() -> None:
    history = History()
    add(history, "gone", "+")

    history.watch_only([], NOON + timedelta(days=8))

    assert history.records == {}


def test_an_incident_never_lasts_less_than_no_time() -> None:
    incident = Incident(1, "shop", NOON, "connection refused")

    assert incident.duration(NOON - timedelta(hours=1)) == 0.0  # the clock was set back
