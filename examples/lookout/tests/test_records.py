"""What is remembered of results and incidents, and for how long."""

from datetime import UTC, datetime, timedelta

from lookout.judge import Rules, State
from lookout.records import History, Incident, Result

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(confirm=2, recover=2)


def add(history: History, target: str, probes: str, start: datetime = NOON) -> list[Incident]:
    """Add a result per second; `+` is a good one. The incidents that opened or closed."""
    changes = []
    for n, probe in enumerate(probes):
        error = None if probe == "+" else "connection refused"
        result = Result(start + timedelta(seconds=n), 0.01, None if error else 200, error)
        if incident := history.add(target, result, RULES):
            changes.append(incident)
    return changes


def test_an_incident_opens_with_the_confirming_probe_and_closes_with_the_recovering_one() -> None:
    opened, closed = add(History(), "shop", "+--++")

    assert opened.is_open
    assert (opened.id, opened.cause) == ("INC-1", "connection refused")
    assert opened.opened_at == NOON + timedelta(seconds=2)
    assert closed.id == "INC-1"
    assert closed.closed_at == NOON + timedelta(seconds=4)
    assert closed.closed_because == "recovered"


def test_targets_fail_independently_of_each_other() -> None:
    history = History()
    add(history, "shop", "--")
    add(history, "blog", "+-+")

    assert history.record("shop").standing.state is State.DOWN
    assert history.record("blog").standing.state is State.UP
    assert [i.target for i in history.incidents] == ["shop"]


def test_only_so_many_results_are_kept() -> None:
    history = History(max_results=3)
    add(history, "shop", "+++++")

    assert [r.at.second for r in history.record("shop").results] == [2, 3, 4]


def test_of_too_many_incidents_the_oldest_closed_ones_go_and_open_ones_stay() -> None:
    history = History(max_incidents=3)
    add(history, "old", "--")  # INC-1 stays open
    add(history, "shop", "--++" * 4)

    assert [i.id for i in history.incidents] == ["INC-1", "INC-4", "INC-5"]
    assert history.open_incident("old") is not None


def test_more_open_incidents_than_the_limit_are_all_kept() -> None:
    history = History(max_incidents=1)
    for name in ("a", "b", "c"):
        add(history, name, "--")

    assert len(history.incidents) == 3


def test_the_incident_of_a_target_that_nobody_watches_any_more_is_closed() -> None:
    history = History()
    add(history, "gone", "--")
    add(history, "shop", "--")

    (closed,) = history.watch_only(["shop"], NOON + timedelta(minutes=1))

    assert (closed.target, closed.closed_because) == ("gone", "no longer watched")
    assert history.open_incident("shop") is not None
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
